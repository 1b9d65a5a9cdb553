/** What a data path leaves on the heap. */

/** More than this a frame is an object; less is the noise of the test runner. */
export const BYTES_PER_FRAME_MAX = 4;

/** Bytes by which the heap grows per frame in `run`, which passes `frames`, once it is compiled. A run in which memory was collected tells nothing and is repeated. */
export function heapGrowthPerFrame(frames: number, run: () => void): number {
  for (let i = 0; i < 3; i++) run();
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 12 && least > BYTES_PER_FRAME_MAX; i++) {
    const before = process.memoryUsage().heapUsed;
    run();
    const grown = (process.memoryUsage().heapUsed - before) / frames;
    if (grown >= 0 && grown < least) least = grown;
  }
  return least;
}

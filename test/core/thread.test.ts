import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { FramePool, TOTAL } from '../../src/core/pool.ts';
import { SharedRing } from '../../src/core/ring.ts';

/** The worker sums every frame's bytes through its own view of the pool and gives the frames back. */
const WORKER = new URL('./thread-worker.ts', import.meta.url);

it('frames cross to a worker thread by number and come back', async () => {
  const pool = new FramePool({ smallSlots: 64, largeSlots: 2, bareRecords: 8, shared: true });
  const outbound = new SharedRing(64);
  const returns = new SharedRing(128);
  const worker = new Worker(
    `import('tsx/esm/api').then(({ register }) => { register(); return import(${JSON.stringify(WORKER.href)}); })`,
    {
      eval: true,
      workerData: { pool: pool.share(), outbound: outbound.memory, returns: returns.memory, count: 500 },
    },
  );
  const result = new Promise<number>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  let sent = 0;
  let back = 0;
  let expected = 0;
  const batch = new Int32Array(64);
  while (back < 500) {
    while (sent < 500) {
      const frame = pool.from(Uint8Array.of(sent & 0xff, 1, 2, 3));
      if (frame === 0) break;
      if (!outbound.push(frame)) {
        pool.release(frame);
        break;
      }
      expected += (sent & 0xff) + 6 + pool.table[frame + TOTAL]!;
      sent++;
    }
    outbound.wake();
    returns.wait(1000);
    const count = returns.pop(batch, 64);
    for (let i = 0; i < count; i++) pool.reclaim(batch[i]!);
    back += count;
  }
  expect(await result).toBe(expected);
  expect(pool.free).toBe(pool.capacity);
  await worker.terminate();
});

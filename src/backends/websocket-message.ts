/** A frame as a message of its own. */

import { type FramePool, LENGTH, NEXT, OFFSET, TOTAL } from '../core/pool.ts';

/** A copy: a socket may keep it until its host takes it. */
export function messageOf(pool: FramePool, frame: number): Uint8Array {
  const t = pool.table;
  if (t[frame + NEXT] === 0) {
    const at = t[frame + OFFSET]!;
    return pool.bytes.slice(at, at + t[frame + LENGTH]!);
  }
  const bytes = new Uint8Array(t[frame + TOTAL]!);
  pool.read(frame, 0, bytes, 0, bytes.length);
  return bytes;
}

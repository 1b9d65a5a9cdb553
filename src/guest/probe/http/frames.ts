/** Frames of TCP payload: walking what a connection delivers, and making what it is to send, without objects. */

import type { ByteMemory } from '../../../core/copy.ts';
import type { FramePool } from '../../../core/pool.ts';
import { LENGTH, NEXT, OFFSET, REGION } from '../../../core/pool.ts';
import type { Connection } from '../../../tcp/connection.ts';
import { HEADER_ROOM } from '../../../tcp/stack.ts';

/** Shows each run of payload in frames[from..to), without the first `skip` bytes; returns the bytes shown. */
export function eachRun(
  pool: FramePool,
  frames: Int32Array,
  from: number,
  to: number,
  skip: number,
  show: (memory: ByteMemory, at: number, length: number) => void,
): number {
  const t = pool.table;
  let total = 0;
  for (let i = from; i < to; i++) {
    for (let s = frames[i]; s !== 0; s = t[s + NEXT]) {
      const length = t[s + LENGTH];
      if (skip >= length) {
        skip -= length;
        continue;
      }
      show(pool.memories[t[s + REGION]], t[s + OFFSET] + skip, length - skip);
      total += length - skip;
      skip = 0;
    }
  }
  return total;
}

/**
 * A frame for up to `bytes` of payload to `connection.send`; the payload goes to `place` of the pool's bytes. When no large buffer is free a small one
 * is used; `payloadRoom` says how much fits. 0: none at all.
 */
export function payloadFrame(connection: Connection, bytes: number): number {
  const { pool } = connection.stack;
  const frame = pool.alloc(HEADER_ROOM + bytes);
  if (frame !== 0 || HEADER_ROOM + bytes <= pool.smallBytes) return frame;
  return pool.alloc(HEADER_ROOM);
}

export function payloadPlace(pool: FramePool, frame: number): number {
  return pool.table[frame + OFFSET] + HEADER_ROOM;
}

/** Sends the frame with `bytes` of payload at its place. */
export function sendPayload(connection: Connection, frame: number, bytes: number): void {
  const { pool } = connection.stack;
  const place = payloadPlace(pool, frame);
  pool.setLength(frame, bytes);
  pool.table[frame + OFFSET] = place;
  connection.send(frame);
}

/** No packet buffer is free: `sendReady` (or, through it, `sinkReady`) comes again in a few milliseconds. */
export function waitForBuffers(connection: Connection): void {
  connection.sender.starved = true;
  connection.retryLater();
}

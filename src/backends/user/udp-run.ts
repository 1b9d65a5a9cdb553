/**
 * Runs of datagrams that the guest sends as one frame (USO: virtio's UDP_SEGMENT). A run is taken apart into datagrams by reference, in the
 * slots and the guest's memory where its bytes lie; host I/O finds them side by side and hands them to the kernel as one again.
 */

import {
  FACTS,
  type FramePool,
  GSO_SIZE,
  GSO_UDP_L4,
  LENGTH,
  NEXT,
  OFFSET,
  REGION,
} from '../../core/pool.ts';

/** Datagrams in one run at most: as many as Linux's UDP_MAX_SEGMENTS. */
export const RUN_MAX = 128;

/** Payload bytes of each datagram but the last of a frame that is a run; 0: it is one datagram. */
export function runSegmentBytes({ table }: FramePool, frame: number): number {
  return table[frame + FACTS] >> 8 === GSO_UDP_L4 ? table[frame + GSO_SIZE] : 0;
}

/**
 * Writes the datagrams of `run`, a frame of `length` bytes of payload alone and of RUN_MAX datagrams at most, to `out` and returns how many there
 * are: fewer when there was no record or slot for the rest. Takes the frame.
 */
export function splitRun(
  pool: FramePool,
  run: number,
  each: number,
  length: number,
  out: Int32Array,
): number {
  const t = pool.table;
  let segment = run;
  let segmentStart = 0;
  let count = 0;
  for (let from = 0; from < length; from += each) {
    const bytes = Math.min(each, length - from);
    while (from >= segmentStart + t[segment + LENGTH]) {
      segmentStart += t[segment + LENGTH];
      segment = t[segment + NEXT];
    }
    let piece: number;
    if (from + bytes <= segmentStart + t[segment + LENGTH]) {
      piece = pool.part(run, t[segment + OFFSET] + from - segmentStart, bytes);
      if (piece !== 0) t[piece + REGION] = t[segment + REGION];
    } else piece = copyOf(pool, run, from, bytes);
    if (piece === 0) break;
    out[count++] = piece;
  }
  pool.release(run);
  return count;
}

/** Bytes that lie across a frame's segments, in a slot of their own; 0: there is none. */
function copyOf(pool: FramePool, frame: number, from: number, bytes: number): number {
  const copy = pool.alloc(bytes);
  if (copy === 0) return 0;
  pool.read(frame, from, pool.bytes, pool.table[copy + OFFSET], bytes);
  pool.setLength(copy, bytes);
  return copy;
}

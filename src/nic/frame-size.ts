/**
 * The one place for Ethernet's size rules, for every NIC model: a frame shorter than 60 bytes (without FCS) is padded with zeros
 * (IEEE 802.3, 4.2.3.3), one shorter than its header is no frame.
 */

import { type FramePool, LENGTH, NEXT, OFFSET, TOTAL } from '../core/pool.ts';

export const FRAME_MIN_BYTES = 60;
export const HEADER_BYTES = 14;

/** Pads a short frame, which lies in one segment that the caller alone holds. */
export function padFrame(pool: FramePool, frame: number): void {
  const t = pool.table;
  const total = t[frame + TOTAL];
  if (total >= FRAME_MIN_BYTES || t[frame + NEXT] !== 0) return;
  const end = t[frame + OFFSET] + t[frame + LENGTH];
  pool.bytes.fill(0, end, end + FRAME_MIN_BYTES - total);
  pool.setLength(frame, FRAME_MIN_BYTES);
}

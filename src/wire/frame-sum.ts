/**
 * Internet checksums over frames, wherever their segments lie: what NIC models, TCP and captures need of them. (Over plain bytes: checksum.ts.)
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  type FramePool,
  LENGTH,
  NEXT,
  OFFSET,
  REGION,
  TOTAL,
} from '../core/pool.ts';
import { swap16 } from './bytes.ts';
import { finishChecksum, foldSum, sumWords } from './checksum.ts';

/** `sum` plus that (RFC 1071, not folded) of frame bytes [start, start + length), over all segments; less at the frame's end. */
export function sumFrame(pool: FramePool, frame: number, start: number, length: number, sum = 0): number {
  const t = pool.table;
  let done = 0;
  for (let s = frame; s !== 0 && done < length; s = t[s + NEXT]!) {
    const size = t[s + LENGTH]!;
    if (start >= size) {
      start -= size;
      continue;
    }
    const part = Math.min(size - start, length - done);
    const { bytes, words } = pool.memories[t[s + REGION]!]!;
    // A region that was taken away reads as zeros, which add nothing.
    if (t[s + OFFSET]! + start + part <= bytes.length) {
      const segment = foldSum(sumWords(bytes, words, t[s + OFFSET]! + start, part));
      sum += (done & 1) === 0 ? segment : swap16(segment);
    }
    done += part;
    start = 0;
  }
  return sum;
}

/** Where in the frame the checksum lies that its facts ask for; -1: they contradict the frame. */
export function checksumPlace(pool: FramePool, frame: number): number {
  const t = pool.table;
  const start = t[frame + CSUM_START]!;
  const at = start + t[frame + CSUM_OFFSET]!;
  return start < 0 || at < start || at + 2 > t[frame + TOTAL]! ? -1 : at;
}

/** The checksum that is to be stored there. */
export function wantedChecksum(pool: FramePool, frame: number): number {
  const t = pool.table;
  const start = t[frame + CSUM_START]!;
  const checksum = finishChecksum(sumFrame(pool, frame, start, t[frame + TOTAL]! - start));
  // A UDP checksum of 0 would mean that there is none (RFC 768); a TCP one of 0 equals 0xffff in ones' complement.
  return checksum === 0 ? 0xffff : checksum;
}

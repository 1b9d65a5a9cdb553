/**
 * Two helpers on frames that only TCP needs: cutting a frame down to the bytes that matter, and a growing list of frames that is one run of
 * an Int32Array, so that host I/O can send it in one call.
 */

import { type FramePool, LENGTH, NEXT, OFFSET, REFS, TOTAL } from '../core/pool.ts';

/**
 * Cuts `frame` to its bytes [front, front + length): headers in front and padding behind go. Headers are private and short, but a cut may
 * go past the first segment (a duplicate's overlap): emptied segments stay, with length 0. A frame that others hold too is
 * copied first. Returns the frame to use, or 0 when the pool is exhausted: then the caller still holds `frame`.
 */
export function cutFrame(pool: FramePool, frame: number, front: number, length: number): number {
  const t = pool.table;
  if (t[frame + REFS] !== 1) {
    const copy = pool.clone(frame);
    if (copy === 0) return 0;
    pool.release(frame);
    frame = copy;
  }
  let skip = front;
  let left = length;
  for (let s = frame; s !== 0; s = t[s + NEXT]!) {
    const size = t[s + LENGTH]!;
    const cut = Math.min(skip, size);
    skip -= cut;
    const kept = Math.min(left, size - cut);
    t[s + OFFSET] = t[s + OFFSET]! + cut;
    t[s + LENGTH] = kept;
    left -= kept;
  }
  t[frame + TOTAL] = length;
  return frame;
}

/** Frames in order; `items[head..tail)` is the list. Empties to its start, so it stays short. */
export class FrameList {
  items: Int32Array;
  head = 0;
  tail = 0;

  constructor(room = 4) {
    this.items = new Int32Array(room);
  }

  get length(): number {
    return this.tail - this.head;
  }

  push(frame: number): void {
    if (this.tail === this.items.length) this.#makeRoom();
    this.items[this.tail++] = frame;
  }

  /** Takes the first away. */
  shift(): void {
    if (++this.head === this.tail) {
      this.head = 0;
      this.tail = 0;
    }
  }

  #makeRoom(): void {
    const count = this.tail - this.head;
    if (this.head >= this.items.length >> 1) {
      this.items.copyWithin(0, this.head, this.tail);
    } else {
      const items = new Int32Array(this.items.length * 2);
      items.set(this.items.subarray(this.head, this.tail));
      this.items = items;
    }
    this.head = 0;
    this.tail = count;
  }
}

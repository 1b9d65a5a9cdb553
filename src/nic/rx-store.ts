/**
 * Writes a received frame's bytes into guest buffers, whatever its segments are: a run of what the guest is to see, which is the frame without a
 * stripped tag, padded with zeros to 60 bytes, and zeros in place of the frame check sequence, which is not known here.
 */

import { type FramePool, LENGTH, NEXT, OFFSET, REGION } from '../core/pool.ts';
import { DMA_WRITE, type GuestMemory } from '../pci/guest-memory.ts';
import { FRAME_MIN_BYTES } from './frame-size.ts';
import { gatheredFrom, writeRun } from './write-run.ts';

const ADDRESSES_BYTES = 12;
const FCS_BYTES = 4;

export class RxStore {
  readonly #memory: GuestMemory;
  readonly #pool: FramePool;
  readonly #zeros = new Uint8Array(FRAME_MIN_BYTES + FCS_BYTES);

  constructor(memory: GuestMemory, pool: FramePool) {
    this.#memory = memory;
    this.#pool = pool;
  }

  /**
   * Writes bytes [done, done + size) of what the guest is to see to `address`: the frame of `total` bytes without the `cut` bytes behind its
   * addresses, then zeros, of which there are at most 64. False, and nothing is written, when not all of the buffer is RAM.
   */
  store(frame: number, done: number, cut: number, total: number, address: number, size: number): boolean {
    const memory = this.#memory;
    if (!memory.covers(address, size, DMA_WRITE)) return false;
    const stored = this.#storeParts(frame, done, cut, total, address, size);
    this.#pool.copies.run();
    return stored;
  }

  /** The same, but for the long runs, which are in the list of copies (core/copy-list.ts). */
  #storeParts(
    frame: number,
    done: number,
    cut: number,
    total: number,
    address: number,
    size: number,
  ): boolean {
    const memory = this.#memory;
    const pool = this.#pool;
    const gathered = gatheredFrom(pool, memory);
    const t = pool.table;
    let position = done;
    const end = done + size;
    const content = total - cut;
    // `skip` counts from the frame's first byte, with the tag.
    let skip = position < ADDRESSES_BYTES ? position : position + cut;
    let segmentStart = 0;
    for (let s = frame; s !== 0 && position < end && position < content; s = t[s + NEXT]) {
      const segmentEnd = segmentStart + t[s + LENGTH];
      while (skip < segmentEnd && position < end && position < content) {
        let part = Math.min(segmentEnd - skip, end - position, content - position);
        if (cut !== 0 && position < ADDRESSES_BYTES) part = Math.min(part, ADDRESSES_BYTES - position);
        const from = t[s + OFFSET] + skip - segmentStart;
        const target = address + position - done;
        if (!writeRun(pool, memory, gathered, t[s + REGION], from, target, part)) return false;
        position += part;
        skip = position < ADDRESSES_BYTES ? position : position + cut;
      }
      segmentStart = segmentEnd;
    }
    return position >= end || memory.write(address + position - done, this.#zeros, 0, end - position);
  }
}

/**
 * Writes a received frame's bytes into guest buffers, whatever its segments are: a run of what the guest is to see, which is the frame without a
 * stripped tag, padded with zeros to 60 bytes, and zeros in place of the frame check sequence, which is not known here.
 */

import { copyMemory } from '../core/copy.ts';
import { type FramePool, LENGTH, MAX_FRAME_BYTES, NEXT, OFFSET, REGION } from '../core/pool.ts';
import { DMA_WRITE, type GuestMemory } from '../pci/guest-memory.ts';
import { FRAME_MIN_BYTES } from './frame-size.ts';

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
    const { copies } = pool;
    // Marks of a dirty log are set before the next translation, and must not be before the copy: hence at once.
    const together = memory.dirtyLog === null ? copies.minBytes : MAX_FRAME_BYTES + 1;
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
        const source = pool.memories[t[s + REGION]];
        const later = part >= together;
        const target = address + position - done;
        const to = later ? memory.locate(target, part, DMA_WRITE) : memory.translate(target, part, DMA_WRITE);
        if (later) copies.makeRoom();
        if (to >= 0 && later) {
          copies.add(t[s + REGION], from, memory.hitRegion, to, part);
        } else if (to >= 0) {
          copyMemory(source, from, memory.hit, to, part);
        } else if (copies.count !== 0) {
          // Remote memory: the machine may go on while it is written, and is to find no work half done. Then the same again.
          copies.run();
          continue;
        } else if (from + part > source.bytes.length) {
          // Borrowed memory that was taken away reads as zeros.
          if (!memory.clear(address + position - done, part)) return false;
        } else if (!memory.write(address + position - done, source.bytes, from, part)) {
          return false;
        }
        position += part;
        skip = position < ADDRESSES_BYTES ? position : position + cut;
      }
      segmentStart = segmentEnd;
    }
    return position >= end || memory.write(address + position - done, this.#zeros, 0, end - position);
  }
}

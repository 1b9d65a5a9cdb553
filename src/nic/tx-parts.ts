/**
 * The parts of one frame as a driver's descriptors name them, and the frame made of them: a short one copied whole, of a longer one only the
 * head, with the rest borrowed from guest RAM (core/pool.ts for the rule, and for who lends).
 *
 * Nothing is read before the frame is whole, and each byte of its head is read once. A frame of too many parts or bytes is `broken`: its owner
 * drops it and completes its descriptors.
 */

import { copyMemory } from '../core/copy.ts';
import { type FramePool, LENDER, MAX_FRAME_BYTES, OFFSET, PRIVATE_BYTES, TAG } from '../core/pool.ts';
import { DMA_READ, type GuestMemory, NOT_BORROWABLE } from '../pci/guest-memory.ts';

/** Frames up to this length are copied whole; bench/e1000-tx.ts measures where borrowing begins to pay. */
export const COPY_MAX_BYTES = 1536;
/** A slot's first byte may move by this much, to lie as the guest's does. */
export const SKEW_MAX = 7;
/** Room in front of the payload that a tag is put into. */
export const VLAN_TAG_BYTES = 4;
const ADDRESSES_BYTES = 12;
/** More borrowed segments than this are copied together instead: native code has a limit on them. */
const BORROWED_PARTS_MAX = 64;

/** `gather`: an address is not RAM. */
export const NOT_RAM = -1;

export class TxParts {
  readonly #memory: GuestMemory;
  readonly #pool: FramePool;
  readonly #address: Float64Array;
  readonly #length: Int32Array;
  count = 0;
  bytes = 0;
  broken = false;

  /** `partsMax`: parts that do not merge; more make a frame broken. */
  constructor(memory: GuestMemory, pool: FramePool, partsMax: number) {
    this.#memory = memory;
    this.#pool = pool;
    this.#address = new Float64Array(partsMax);
    this.#length = new Int32Array(partsMax);
  }

  clear(): void {
    this.count = 0;
    this.bytes = 0;
    this.broken = false;
  }

  /** Appends guest bytes; they merge with the part before where they go on in memory: fewer segments for everybody behind. */
  add(address: number, length: number): void {
    if (length === 0 || this.broken) return;
    const last = this.count - 1;
    if (this.bytes + length > 2 * MAX_FRAME_BYTES) {
      this.broken = true;
    } else if (last >= 0 && this.#address[last] + this.#length[last] === address) {
      this.#length[last] += length;
      this.bytes += length;
    } else if (this.count === this.#address.length) {
      this.broken = true;
    } else {
      this.#address[this.count] = address;
      this.#length[this.count] = length;
      this.count++;
      this.bytes += length;
    }
  }

  /** Takes `length` bytes off the end: a frame check sequence. There are as many. */
  trim(length: number): void {
    this.bytes -= length;
    while (length > 0) {
      const last = this.count - 1;
      const part = Math.min(length, this.#length[last]);
      this.#length[last] -= part;
      length -= part;
      if (this.#length[last] === 0) this.count--;
    }
  }

  /**
   * The frame of all parts, with a gap of `gap` bytes behind the two addresses, or 0 when the pool is exhausted, NOT_RAM when an address is not. A
   * frame of more than COPY_MAX_BYTES borrows from guest RAM, if it can and `lender` is not 0; then its TAG is still to be set.
   */
  gather(gap: number, lender: number): number {
    const { bytes, count } = this;
    const lends = bytes > COPY_MAX_BYTES ? lender : 0;
    return gatherFrame(this.#memory, this.#pool, this.#address, this.#length, 0, 0, count, bytes, gap, lends);
  }

  /** Address and length of each part. */
  save(): number[][] {
    return Array.from({ length: this.count }, (_, i) => [this.#address[i], this.#length[i]]);
  }

  load(list: readonly (readonly number[])[]): void {
    this.clear();
    for (const [address, length] of list) this.add(address, length);
  }
}

/**
 * The frame of `bytes` bytes that lie in parts [part, end) from byte `within` of the first on: `TxParts.gather` for who keeps parts in arrays of their own. With a lender it
 * borrows, if it can.
 */
export function gatherFrame(
  memory: GuestMemory,
  pool: FramePool,
  address: Float64Array,
  length: Int32Array,
  part: number,
  within: number,
  end: number,
  bytes: number,
  gap: number,
  lender: number,
): number {
  if (lender !== 0) {
    const frame = gatherOnce(memory, pool, address, length, part, within, end, bytes, gap, lender);
    if (frame >= 0) return frame;
  }
  return gatherOnce(memory, pool, address, length, part, within, end, bytes, gap, 0);
}

/** NOT_RAM also when what was to be borrowed cannot be. */
function gatherOnce(
  memory: GuestMemory,
  pool: FramePool,
  address: Float64Array,
  length: Int32Array,
  part: number,
  within: number,
  end: number,
  bytes: number,
  gap: number,
  lender: number,
): number {
  const t = pool.table;
  const head = lender !== 0 ? PRIVATE_BYTES : bytes;
  const frame = pool.alloc(head + gap + SKEW_MAX);
  if (frame === 0) return 0;
  // As the first byte lies, so that it is copied in whole words.
  const slot = t[frame + OFFSET] + ((address[part] + within) % 8);
  t[frame + OFFSET] = slot;
  let copied = 0;
  while (copied < head) {
    let size = Math.min(length[part] - within, head - copied);
    // The addresses go in front of the gap, the rest behind it.
    if (gap !== 0 && copied < ADDRESSES_BYTES) size = Math.min(size, ADDRESSES_BYTES - copied);
    const to = slot + copied + (copied >= ADDRESSES_BYTES ? gap : 0);
    const from = address[part] + within;
    const at = memory.translate(from, size, DMA_READ);
    if (at >= 0) {
      copyMemory(memory.hit, at, pool.memories[0], to, size);
    } else if (!memory.read(from, pool.bytes, to, size)) {
      pool.release(frame);
      return NOT_RAM;
    }
    copied += size;
    within += size;
    if (within === length[part]) {
      part++;
      within = 0;
    }
  }
  pool.setLength(frame, head + gap);
  if (lender === 0) return frame;
  if (end - part > BORROWED_PARTS_MAX) {
    pool.release(frame);
    return NOT_RAM;
  }
  let tail = frame;
  for (; part < end; part++, within = 0) {
    tail = memory.borrow(frame, tail, address[part] + within, length[part] - within);
    if (tail === 0 || tail === NOT_BORROWABLE) {
      // No RAM, remote RAM or no record: whoever copies finds out which.
      pool.release(frame);
      return NOT_RAM;
    }
  }
  t[frame + LENDER] = lender;
  t[frame + TAG] = -1;
  return frame;
}

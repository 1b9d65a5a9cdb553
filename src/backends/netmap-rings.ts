/**
 * Netmap's memory, as netmap(4) and net/netmap.h publish it (API 11 to 14, 64-bit): what the kernel maps for a port.
 *
 *     netmap_if    0 name[16]  16 version  20 flags  24 tx rings  28 rx rings  32 extra buffers  36 host tx rings  40 host rx rings
 *                  56 … offset of each ring from here (64 bit): tx rings, host tx rings, rx rings, host rx rings
 *     netmap_ring  0 offset of buffer 0 from here (64 bit)  8 slots  12 bytes of a buffer  16 ring number (16 bit)  18 direction (16 bit)
 *                  20 head  24 cur  28 tail  32 flags  40 time  128 room for a lock  256 … slots
 *     netmap_slot  0 buffer  4 length (16 bit)  6 flags (16 bit)  8 pointer (64 bit)
 *
 * Fields have 32 bits where nothing else is said, in the machine's byte order. Slots [head, tail) are the program's: to send in, or with what was
 * received; the kernel looks at a ring within system calls of this thread alone, so there is no race and no barrier. A frame longer than a buffer lies in
 * several slots, all but the last flagged.
 *
 * Offsets are checked when a ring is made; head and tail are taken modulo the ring, buffer numbers are checked at each use: nothing the kernel (or
 * another process on the same memory) writes leads outside of it.
 */

import { HostIoError } from '../core/errors.ts';
import { copyBytes, type FramePool, OFFSET, ROOM, TOTAL } from '../core/pool.ts';

const IF_TX_RINGS = 24;
const IF_RX_RINGS = 28;
const IF_HOST_TX_RINGS = 36;
const IF_RING_OFFSETS = 56;
const RING_SLOTS = 8;
const RING_BUFFER_BYTES = 12;
const RING_HEAD = 20;
const RING_CUR = 24;
const RING_TAIL = 28;
const RING_FIRST_SLOT = 256;
const SLOT_BYTES = 16;
const SLOT_LENGTH = 4;
const SLOT_FLAGS = 6;
const MORE_FRAGMENTS = 0x20;
/** Slots that one frame may take. */
const FRAGMENTS_MAX = 64;

/** A mapped region, seen in three widths. */
export class NetmapMemory {
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly halves: Uint16Array;

  /** `bytes` begins on a page. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
    this.halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 1);
  }

  /** A 64-bit offset from `base` stored at `at`: the place it means, which has `bytes` bytes. */
  place(base: number, at: number, bytes: number): number {
    if (at % 8 !== 0 || at + 8 > this.bytes.length) throw damaged();
    const offset = new BigInt64Array(this.bytes.buffer, this.bytes.byteOffset + at, 1)[0]!;
    const place = Number(BigInt(base) + offset);
    if (!(place >= 0 && place % 4 === 0 && place + bytes <= this.bytes.length)) throw damaged();
    return place;
  }
}

function damaged(): HostIoError {
  return new HostIoError('mmap', 'EFAULT', 'the netmap device describes rings outside of its memory');
}

export interface NetmapRings {
  readonly tx: NetmapRing[];
  readonly rx: NetmapRing[];
}

/** The NIC's rings (not those of the host's stack) of the netmap_if at `at`. */
export function netmapRings(memory: NetmapMemory, at: number): NetmapRings {
  const word = (field: number): number => {
    const value = memory.words[(at + field) >>> 2];
    if (at % 8 !== 0 || value === undefined) throw damaged();
    return value;
  };
  const txCount = word(IF_TX_RINGS);
  const rxCount = word(IF_RX_RINGS);
  // Before API 12 there was one, and this word was spare.
  const hostTx = word(IF_HOST_TX_RINGS) || 1;
  const ring = (index: number): NetmapRing =>
    new NetmapRing(memory, memory.place(at, at + IF_RING_OFFSETS + 8 * index, RING_FIRST_SLOT));
  const rings = (count: number, first: number): NetmapRing[] => {
    if (count > 4096) throw damaged();
    return Array.from({ length: count }, (_, i) => ring(first + i));
  };
  return { tx: rings(txCount, 0), rx: rings(rxCount, txCount + hostTx) };
}

export class NetmapRing {
  readonly slots: number;
  readonly bufferBytes: number;
  readonly #memory: NetmapMemory;
  readonly #at: number;
  readonly #buffers: number;
  readonly #bufferCount: number;

  constructor(memory: NetmapMemory, at: number) {
    this.#memory = memory;
    this.#at = at;
    this.slots = memory.words[(at + RING_SLOTS) >>> 2]!;
    this.bufferBytes = memory.words[(at + RING_BUFFER_BYTES) >>> 2]!;
    this.#buffers = memory.place(at, at, 0);
    const end = at + RING_FIRST_SLOT + this.slots * SLOT_BYTES;
    if (this.slots < 2 || end > memory.bytes.length || this.bufferBytes < 64) throw damaged();
    this.#bufferCount = Math.floor((memory.bytes.length - this.#buffers) / this.bufferBytes);
  }

  get #head(): number {
    return this.#memory.words[(this.#at + RING_HEAD) >>> 2]! % this.slots;
  }

  get #tail(): number {
    return this.#memory.words[(this.#at + RING_TAIL) >>> 2]! % this.slots;
  }

  /** Slots in the program's hands. */
  get available(): number {
    return (this.#tail - this.#head + this.slots) % this.slots;
  }

  /** Gives `count` slots to the kernel, which takes them in its next system call. */
  #advance(count: number): void {
    const head = (this.#head + count) % this.slots;
    this.#memory.words[(this.#at + RING_HEAD) >>> 2] = head;
    this.#memory.words[(this.#at + RING_CUR) >>> 2] = head;
  }

  /** Asks to be told when more slots are free than are now: the descriptor is writable then. */
  wantMore(): void {
    this.#memory.words[(this.#at + RING_CUR) >>> 2] = this.#tail;
  }

  #slot(ahead: number): number {
    return this.#at + RING_FIRST_SLOT + ((this.#head + ahead) % this.slots) * SLOT_BYTES;
  }

  /** Where a slot's buffer lies; -1 when there is no such buffer. */
  #buffer(slot: number): number {
    const index = this.#memory.words[slot >>> 2]!;
    return index < this.#bufferCount ? this.#buffers + index * this.bufferBytes : -1;
  }

  /**
   * Takes the first received frame into `frame`, and what its slot has no room for into `spill` (0: none), chained behind it. Returns 1; 2: and `spill` was
   * used; 0: there is none (or not all of it); -1: it was thrown away: too long, or its slots are damaged.
   */
  take(pool: FramePool, frame: number, spill: number): number {
    const { bytes, halves } = this.#memory;
    const available = this.available;
    let fragments = 0;
    let total = 0;
    let bad = false;
    for (;;) {
      if (fragments === available) return 0;
      const slot = this.#slot(fragments++);
      const length = halves[(slot + SLOT_LENGTH) >>> 1]!;
      total += length;
      bad ||= length > this.bufferBytes || this.#buffer(slot) < 0;
      if ((halves[(slot + SLOT_FLAGS) >>> 1]! & MORE_FRAGMENTS) === 0) break;
      bad ||= fragments === FRAGMENTS_MAX;
    }
    const { table } = pool;
    const room = table[frame + ROOM]!;
    if (bad || total > room + (spill === 0 ? 0 : table[spill + ROOM]!)) {
      this.#advance(fragments);
      return -1;
    }
    let done = 0;
    for (let i = 0; i < fragments; i++) {
      const slot = this.#slot(i);
      const from = this.#buffer(slot);
      const length = halves[(slot + SLOT_LENGTH) >>> 1]!;
      const first = Math.min(length, Math.max(0, room - done));
      copyBytes(bytes, from, pool.bytes, table[frame + OFFSET]! + done, first);
      if (first < length) {
        const at = table[spill + OFFSET]! + done + first - room;
        copyBytes(bytes, from + first, pool.bytes, at, length - first);
      }
      done += length;
    }
    this.#advance(fragments);
    if (total <= room) {
      pool.setLength(frame, total);
      return 1;
    }
    pool.setLength(frame, room);
    pool.setLength(spill, total - room);
    pool.append(frame, spill);
    return 2;
  }

  /** Puts a frame into free slots; false when there are too few. The frame stays the caller's. */
  put(pool: FramePool, frame: number): boolean {
    const { bytes, words, halves } = this.#memory;
    const total = pool.table[frame + TOTAL]!;
    const fragments = Math.ceil(total / this.bufferBytes);
    if (fragments > this.available) return false;
    for (let i = 0; i < fragments; i++) {
      const slot = this.#slot(i);
      const to = this.#buffer(slot);
      const length = Math.min(this.bufferBytes, total - i * this.bufferBytes);
      if (to >= 0) pool.read(frame, i * this.bufferBytes, bytes, to, length);
      words[(slot + SLOT_LENGTH) >>> 2] = 0;
      halves[(slot + SLOT_LENGTH) >>> 1] = to < 0 ? 0 : length;
      if (i + 1 < fragments) halves[(slot + SLOT_FLAGS) >>> 1] = MORE_FRAGMENTS;
    }
    this.#advance(fragments);
    return true;
  }

  /** The longest frame that fits. */
  get frameMaxBytes(): number {
    return this.bufferBytes * Math.min(FRAGMENTS_MAX, this.slots - 1);
  }
}

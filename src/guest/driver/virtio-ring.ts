/**
 * The driver's half of a virtqueue (virtio 1.3, sections 2.7 and 2.8), split and packed, laid out in guest RAM. Buffers are known by slots: the caller puts slot s with one or two parts, and
 * `poll` tells of slots that the device used, in its order.
 *
 * A split ring gives slot s its own descriptors, which are written once and changed only where a buffer moves; a packed ring writes them anew at each put, in ring order.
 * The device may run at the same time (a back-end in another process): what is shown to it is shown after what it says, and what the driver asks for is looked at once more after it was asked for
 * (atomic stores are full barriers).
 *
 * With `indirect` a buffer of two parts takes one descriptor, which points to a table of the slot's own.
 */

import type { GuestRam } from './guest-ram.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const NO_INTERRUPT = 1;
const NO_KICK = 1;
const AVAIL = 1 << 7;
const USED = 1 << 15;
const WRAP = 0x8000;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;
const TABLE_BYTES = 32;

export interface DriverRingOptions {
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  /** Parts of each buffer: 1 (to write) or 2 (to read). */
  readonly parts: 1 | 2;
}

export interface DriverRing {
  readonly size: number;
  /** Buffers that can be out at once. */
  readonly slots: number;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  /** The slot that the device used, and the bytes it wrote. */
  usedSlot: number;
  usedBytes: number;
  /** Makes a buffer for the device to write available. */
  putWrite(slot: number, address: number, bytes: number): void;
  /** Makes a buffer of two parts for the device to read available. */
  putRead(slot: number, first: number, firstBytes: number, second: number, secondBytes: number): void;
  /** A command: two parts to read, one to write. */
  putCommand(slot: number, read: number, readBytes: number, write: number, writeBytes: number): void;
  /** Shows the device what was put; true: kick it. */
  publish(): boolean;
  /** Takes the next used buffer; false: there is none. */
  poll(): boolean;
  /** Whether interrupts are wanted, from the next used buffer on. True: there is a used buffer already, for which none may come. */
  wantInterrupts(on: boolean): boolean;
}

export class SplitDriverRing implements DriverRing {
  readonly size: number;
  readonly slots: number;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  usedSlot = 0;
  usedBytes = 0;

  readonly #words: Int32Array;
  readonly #halves: Uint16Array;
  readonly #stride: number;
  readonly #eventIdx: boolean;
  readonly #table: number;
  readonly #ram: GuestRam;
  readonly #tables: number;
  #avail = 0;
  #published = 0;
  #used = 0;

  /** `at`: the ring's place, for a legacy device (page aligned, one piece); else it is allocated. */
  constructor(ram: GuestRam, size: number, options: DriverRingOptions) {
    this.size = size;
    this.#ram = ram;
    this.#words = ram.words;
    this.#halves = new Uint16Array(ram.bytes.buffer);
    this.#eventIdx = options.eventIdx;
    this.#stride = options.parts === 2 && !options.indirect ? 2 : 1;
    this.slots = size / this.#stride;
    // As the legacy interface wants it: in one piece, the used ring on a page of its own.
    const driverAt = 16 * size;
    const deviceAt = Math.ceil((driverAt + 6 + 2 * size) / 4096) * 4096;
    this.descriptors = ram.allocate(deviceAt + 6 + 8 * size, 4096);
    this.driver = this.descriptors + driverAt;
    this.device = this.descriptors + deviceAt;
    this.#tables = options.indirect ? ram.allocate(TABLE_BYTES * size, 16) : 0;
    this.#table = ram.offset(this.descriptors) >> 2;
  }

  #descriptor(index: number, address: number, bytes: number, flags: number, next: number): void {
    const at = this.#table + 4 * index;
    const words = this.#words;
    words[at] = address;
    words[at + 1] = address / 4294967296;
    words[at + 2] = bytes;
    words[at + 3] = flags | (next << 16);
  }

  #offer(head: number): void {
    const ring = (this.#ram.offset(this.driver) >> 1) + 2;
    this.#halves[ring + (this.#avail & (this.size - 1))] = head;
    this.#avail = (this.#avail + 1) & 0xffff;
  }

  putWrite(slot: number, address: number, bytes: number): void {
    this.#descriptor(slot * this.#stride, address, bytes, WRITE, 0);
    this.#offer(slot * this.#stride);
  }

  putRead(slot: number, first: number, firstBytes: number, second: number, secondBytes: number): void {
    this.#putTwo(slot, first, firstBytes, second, secondBytes, 0);
  }

  putCommand(slot: number, read: number, readBytes: number, write: number, writeBytes: number): void {
    this.#putTwo(slot, read, readBytes, write, writeBytes, WRITE);
  }

  #putTwo(slot: number, a: number, aBytes: number, b: number, bBytes: number, flags: number): void {
    if (this.#tables !== 0) {
      const table = this.#tables + TABLE_BYTES * slot;
      const words = this.#words;
      const at = this.#ram.offset(table) >> 2;
      words[at] = a;
      words[at + 1] = a / 4294967296;
      words[at + 2] = aBytes;
      words[at + 3] = NEXT | (1 << 16);
      words[at + 4] = b;
      words[at + 5] = b / 4294967296;
      words[at + 6] = bBytes;
      words[at + 7] = flags;
      this.#descriptor(slot, table, TABLE_BYTES, INDIRECT, 0);
      this.#offer(slot);
      return;
    }
    const head = 2 * slot;
    this.#descriptor(head, a, aBytes, NEXT, head + 1);
    this.#descriptor(head + 1, b, bBytes, flags, 0);
    this.#offer(head);
  }

  publish(): boolean {
    const now = this.#avail;
    const before = this.#published;
    if (now === before) return false;
    this.#published = now;
    const halves = this.#halves;
    Atomics.store(halves, (this.#ram.offset(this.driver) >> 1) + 1, now);
    const used = this.#ram.offset(this.device) >> 1;
    if (!this.#eventIdx) return (halves[used] & NO_KICK) === 0;
    const event = halves[used + 2 + 4 * this.size];
    return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
  }

  poll(): boolean {
    const used = this.#ram.offset(this.device);
    if (this.#halves[(used >> 1) + 1] === this.#used) return false;
    const at = (used >> 2) + 1 + 2 * (this.#used & (this.size - 1));
    this.usedSlot = this.#words[at] / this.#stride;
    this.usedBytes = this.#words[at + 1];
    this.#used = (this.#used + 1) & 0xffff;
    return true;
  }

  wantInterrupts(on: boolean): boolean {
    const driver = this.#ram.offset(this.driver) >> 1;
    const halves = this.#halves;
    if (!this.#eventIdx) Atomics.store(halves, driver, on ? 0 : NO_INTERRUPT);
    // An index that was used already is not reached for a whole lap of its numbers.
    else Atomics.store(halves, driver + 2 + this.size, on ? this.#used : (this.#used - 1) & 0xffff);
    return on && halves[(this.#ram.offset(this.device) >> 1) + 1] !== this.#used;
  }
}

export class PackedDriverRing implements DriverRing {
  readonly size: number;
  readonly slots: number;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  usedSlot = 0;
  usedBytes = 0;

  readonly #words: Int32Array;
  readonly #halves: Uint16Array;
  readonly #ram: GuestRam;
  readonly #ring: number;
  readonly #eventIdx: boolean;
  readonly #tables: number;
  /** Descriptors that each slot took. */
  readonly #taken: Int32Array;
  #next = 0;
  #wrap = true;
  #usedNext = 0;
  #usedWrap = true;
  /** Flags of the first descriptor that was put and not published. */
  #heldAt = -1;
  #heldWord = 0;
  #added = 0;

  constructor(ram: GuestRam, size: number, options: DriverRingOptions) {
    this.size = size;
    this.#ram = ram;
    this.#words = ram.words;
    this.#halves = new Uint16Array(ram.bytes.buffer);
    this.#eventIdx = options.eventIdx;
    this.slots = options.parts === 2 && !options.indirect ? size >> 1 : size;
    this.descriptors = ram.allocate(16 * size, 16);
    this.driver = ram.allocate(4, 4);
    this.device = ram.allocate(4, 4);
    this.#tables = options.indirect ? ram.allocate(TABLE_BYTES * size, 16) : 0;
    this.#ring = ram.offset(this.descriptors) >> 2;
    this.#taken = new Int32Array(size);
  }

  #descriptor(address: number, bytes: number, id: number, flags: number): void {
    const at = this.#ring + 4 * this.#next;
    const words = this.#words;
    words[at] = address;
    words[at + 1] = address / 4294967296;
    words[at + 2] = bytes;
    const word = id | ((flags | (this.#wrap ? AVAIL : USED)) << 16);
    if (this.#heldAt < 0) {
      this.#heldAt = at + 3;
      this.#heldWord = word;
    } else {
      words[at + 3] = word;
    }
    this.#added++;
    this.#next++;
    if (this.#next === this.size) {
      this.#next = 0;
      this.#wrap = !this.#wrap;
    }
  }

  putWrite(slot: number, address: number, bytes: number): void {
    this.#taken[slot] = 1;
    this.#descriptor(address, bytes, slot, WRITE);
  }

  putRead(slot: number, first: number, firstBytes: number, second: number, secondBytes: number): void {
    this.#putTwo(slot, first, firstBytes, second, secondBytes, 0);
  }

  putCommand(slot: number, read: number, readBytes: number, write: number, writeBytes: number): void {
    this.#putTwo(slot, read, readBytes, write, writeBytes, WRITE);
  }

  #putTwo(slot: number, a: number, aBytes: number, b: number, bBytes: number, flags: number): void {
    if (this.#tables === 0) {
      this.#taken[slot] = 2;
      this.#descriptor(a, aBytes, slot, NEXT);
      this.#descriptor(b, bBytes, slot, flags);
      return;
    }
    const table = this.#tables + TABLE_BYTES * slot;
    const words = this.#words;
    const at = this.#ram.offset(table) >> 2;
    words[at] = a;
    words[at + 1] = a / 4294967296;
    words[at + 2] = aBytes;
    words[at + 3] = 0;
    words[at + 4] = b;
    words[at + 5] = b / 4294967296;
    words[at + 6] = bBytes;
    words[at + 7] = flags << 16;
    this.#taken[slot] = 1;
    this.#descriptor(table, TABLE_BYTES, slot, INDIRECT);
  }

  publish(): boolean {
    if (this.#heldAt < 0) return false;
    Atomics.store(this.#words, this.#heldAt, this.#heldWord);
    this.#heldAt = -1;
    const added = this.#added;
    this.#added = 0;
    const event = this.#words[this.#ram.offset(this.device) >> 2];
    const flags = (event >>> 16) & 3;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESC || !this.#eventIdx) return true;
    let offset = event & 0x7fff;
    if (((event & WRAP) !== 0) !== this.#wrap) offset -= this.size;
    return ((this.#next - offset - 1) & 0xffff) < (added & 0xffff);
  }

  #isUsed(word: number): boolean {
    const avail = (word & (AVAIL << 16)) !== 0;
    const used = (word & (USED << 16)) !== 0;
    return avail === used && used === this.#usedWrap;
  }

  poll(): boolean {
    const at = this.#ring + 4 * this.#usedNext;
    const word = this.#words[at + 3];
    if (!this.#isUsed(word)) return false;
    this.usedSlot = word & 0xffff;
    this.usedBytes = this.#words[at + 2];
    this.#usedNext += this.#taken[this.usedSlot];
    if (this.#usedNext >= this.size) {
      this.#usedNext -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
    return true;
  }

  wantInterrupts(on: boolean): boolean {
    const driver = this.#ram.offset(this.driver) >> 1;
    const halves = this.#halves;
    if (on && this.#eventIdx) halves[driver] = this.#usedNext | (this.#usedWrap ? WRAP : 0);
    Atomics.store(halves, driver + 1, !on ? EVENT_DISABLE : this.#eventIdx ? EVENT_DESC : 0);
    return on && this.#isUsed(this.#words[this.#ring + 4 * this.#usedNext + 3]);
  }
}

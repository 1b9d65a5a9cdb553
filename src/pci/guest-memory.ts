/**
 * Guest memory as a device reaches it by DMA: RAM ranges at guest-physical addresses, and nothing else. A device's own registers are never
 * in here, so no DMA can reach them (the re-entrancy class of CVE-2021-20255).
 *
 * Addresses are JavaScript numbers, exact below 2^53 where all ranges lie. A descriptor's two 32-bit halves are joined by
 * `high * 2 ** 32 + low`; what is rounded there lies beyond every range and is refused.
 *
 * The fast way is `translate`: it finds the range that holds a whole run, remembers it, and leaves its memory in `hit`;
 * device code then reads and writes that directly. It is all or nothing: a run of no bytes, one that leaves its range, falls into a hole or
 * wraps gives -1. `read` and `write` also cross from one range into the next one and reach *remote* ranges, which have no mapped bytes
 * (vfio-user ranges without a descriptor): they are copied by their owner.
 *
 * Every mapped range is registered with the frame pool, in regions of at most 1 GiB, so that a frame may `borrow` guest bytes. A range that is
 * removed takes its regions along: frames that still borrow from it read as zeros.
 *
 * With a `dirtyLog`, each run that was translated for writing is marked in it, once the next one is or `settleLog` is called: by then it was written. Such runs
 * are not remembered, so that without a log nothing is asked for each of them. Whoever keeps a translated run for longer (ring areas) marks what it writes.
 */

import { ByteMemory, NO_MEMORY } from '../core/copy.ts';
import { InvariantError } from '../core/errors.ts';
import type { FramePool } from '../core/pool.ts';
import { putU16le, putU32le, u16le, u32le } from '../wire/bytes.ts';
import type { DirtyLog } from './dirty-log.ts';

/** What a device may do to a range, or-ed. */
export const DMA_READ = 1;
export const DMA_WRITE = 2;
export const DMA_BOTH = 3;

/** A range without mapped bytes; offsets count from its start and are within it. False: it could not be done. */
export interface RemoteRange {
  readonly length: number;
  read(offset: number, target: Uint8Array, at: number, length: number): boolean;
  write(offset: number, source: Uint8Array, at: number, length: number): boolean;
}

interface Range {
  readonly start: number;
  readonly end: number;
  readonly access: number;
  readonly memory: ByteMemory;
  /** Pool regions, each REGION_BYTES of the range; empty for a remote range. */
  readonly regions: readonly number[];
  readonly remote: RemoteRange | null;
}

const REGION_SHIFT = 30;
const REGION_BYTES = 2 ** REGION_SHIFT;
const ADDRESS_LIMIT = 2 ** 53;
/** Ranges that one copy may cross. */
const CROSSINGS_MAX = 64;

/** Up to here a loop is faster than the engine's copy, which wants a view. */
const SHORT_MAX_BYTES = 64;

/** What `borrow` returns for bytes that no frame can point to: no RAM, or a remote range. */
export const NOT_BORROWABLE = -1;

export class GuestMemory {
  /** The memory of the range that `translate` hit last. */
  hit: ByteMemory = NO_MEMORY;
  /** The pool's region in which `locate` found its run last. */
  hitRegion = 0;
  /** Changes whenever a range comes or goes: what was translated before is void. */
  generation = 0;

  readonly #pool: FramePool;
  readonly #ranges: Range[] = [];
  readonly #scratch = new Uint8Array(8);
  #range: Range | null = null;
  #start = 0;
  #end = 0;
  #access = 0;
  #log: DirtyLog | null = null;
  /** What was translated for writing last and is not marked yet. */
  #unmarkedAt = 0;
  #unmarkedBytes = 0;

  /** `pool`: the pool whose frames may borrow from this memory. */
  constructor(pool: FramePool) {
    this.#pool = pool;
  }

  /**
   * Adds RAM at `address`, a multiple of 16, as `bytes`, which start at a multiple of 4 in their buffer. False, and nothing is changed, when it is empty or
   * not so aligned, overlaps a range or passes 2^53.
   */
  add(address: number, bytes: Uint8Array, access = DMA_BOTH): boolean {
    if (bytes.byteOffset % 4 !== 0) return false;
    const place = this.#placeFor(address, bytes.length);
    if (place < 0) return false;
    const regions: number[] = [];
    for (let at = 0; at < bytes.length; at += REGION_BYTES) {
      regions.push(this.#pool.addRegion(bytes.subarray(at, Math.min(bytes.length, at + REGION_BYTES))));
    }
    const range: Range = {
      start: address,
      end: address + bytes.length,
      access,
      memory: new ByteMemory(bytes),
      regions,
      remote: null,
    };
    this.#ranges.splice(place, 0, range);
    this.#forget();
    return true;
  }

  /** Adds a range that is reached by messages. The same conditions. */
  addRemote(address: number, remote: RemoteRange, access = DMA_BOTH): boolean {
    const place = this.#placeFor(address, remote.length);
    if (place < 0) return false;
    const end = address + remote.length;
    this.#ranges.splice(place, 0, {
      start: address,
      end,
      access,
      memory: NO_MEMORY,
      regions: [],
      remote,
    });
    this.#forget();
    return true;
  }

  /** Removes the range that was added with exactly this address and length; false when there is none. */
  remove(address: number, length: number): boolean {
    const at = this.#ranges.findIndex(
      (range) => range.start === address && range.end - range.start === length,
    );
    if (at < 0) return false;
    this.#drop(this.#ranges.splice(at, 1)[0]!);
    return true;
  }

  /** Removes every range that lies wholly within [address, address + length); returns how many. */
  removeWithin(address: number, length: number): number {
    let removed = 0;
    for (let i = this.#ranges.length - 1; i >= 0; i--) {
      const range = this.#ranges[i]!;
      if (range.start < address || range.end > address + length) continue;
      this.#ranges.splice(i, 1);
      this.#drop(range);
      removed++;
    }
    return removed;
  }

  removeAll(): void {
    for (const range of this.#ranges.splice(0)) this.#drop(range);
  }

  #drop(range: Range): void {
    for (const region of range.regions) this.#pool.removeRegion(region);
    this.#forget();
  }

  #forget(): void {
    this.generation++;
    this.#forgetHit();
  }

  #forgetHit(): void {
    this.#range = null;
    this.#start = 0;
    this.#end = 0;
    this.#access = 0;
    this.hit = NO_MEMORY;
  }

  get dirtyLog(): DirtyLog | null {
    return this.#log;
  }

  /** Where writes are marked from now on; null: nowhere. */
  set dirtyLog(log: DirtyLog | null) {
    this.settleLog();
    this.#log = log;
    this.#forgetHit();
  }

  /** Marks what was written last. To be called when a device has done what it had to, before it says so. */
  settleLog(): void {
    const bytes = this.#unmarkedBytes;
    if (bytes === 0) return;
    this.#unmarkedBytes = 0;
    this.#log?.mark(this.#unmarkedAt, bytes);
  }

  #markLater(address: number, length: number): void {
    this.settleLog();
    this.#unmarkedAt = address;
    this.#unmarkedBytes = length;
  }

  /** The ranges there are, in order: for those who print them. */
  get ranges(): readonly { start: number; end: number; mapped: boolean; access: number }[] {
    return this.#ranges.map(({ start, end, access, remote }) => ({
      start,
      end,
      access,
      mapped: remote === null,
    }));
  }

  #placeFor(address: number, length: number): number {
    if (!Number.isSafeInteger(address) || address < 0 || address % 16 !== 0) return -1;
    if (!Number.isSafeInteger(length) || length <= 0 || address + length > ADDRESS_LIMIT) return -1;
    let place = 0;
    while (place < this.#ranges.length && this.#ranges[place]!.end <= address) place++;
    const next = this.#ranges[place];
    return next !== undefined && next.start < address + length ? -1 : place;
  }

  /** The range that holds `address`, or null. */
  #rangeAt(address: number): Range | null {
    let low = 0;
    let high = this.#ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const range = this.#ranges[middle]!;
      if (address < range.start) high = middle - 1;
      else if (address >= range.end) low = middle + 1;
      else return range;
    }
    return null;
  }

  /**
   * Finds `length` bytes at `address` in one mapped range that allows `access`. Returns their offset in `hit`, or -1. The offset holds until `generation` changes.
   */
  translate(address: number, length: number, access: number): number {
    if (
      address < this.#start ||
      length <= 0 ||
      address + length > this.#end ||
      (access & ~this.#access) !== 0
    ) {
      return this.#find(address, length, access);
    }
    return address - this.#start;
  }

  /**
   * `translate` for runs that are copied later, by region number (core/copy-list.ts): returns the offset in region `hitRegion`, or -1. Not for
   * writing while there is a dirty log, which would be marked before the copy.
   */
  locate(address: number, length: number, access: number): number {
    const offset = this.translate(address, length, access);
    if (offset < 0) return -1;
    const regions = this.#range!.regions;
    if (regions.length === 1) {
      this.hitRegion = regions[0]!;
      return offset;
    }
    const part = Math.floor(offset / REGION_BYTES);
    const within = offset - part * REGION_BYTES;
    if (within + length > REGION_BYTES) return -1;
    this.hitRegion = regions[part]!;
    return within;
  }

  #find(address: number, length: number, access: number): number {
    if (!(length > 0)) return -1;
    const range = this.#rangeAt(address);
    if (range === null || range.remote !== null || address + length > range.end) return -1;
    if ((access & ~range.access) !== 0) return -1;
    this.#range = range;
    this.#start = range.start;
    this.#end = range.end;
    this.#access = range.access;
    this.hit = range.memory;
    if (this.#log !== null) {
      this.#access &= ~DMA_WRITE;
      if ((access & DMA_WRITE) !== 0) this.#markLater(address, length);
    }
    return address - range.start;
  }

  /** Whether every byte of a run can be reached with `access`, over adjacent ranges and remote ones too. */
  covers(address: number, length: number, access: number): boolean {
    if (!(length > 0)) return false;
    const end = address + length;
    for (let crossings = 0; crossings < CROSSINGS_MAX; crossings++) {
      const range = this.#rangeAt(address);
      if (range === null || (access & ~range.access) !== 0) return false;
      if (end <= range.end) return true;
      address = range.end;
    }
    return false;
  }

  /** Copies guest bytes to `target[at..)`. False when not all of them can be reached; `target` is then untouched unless a remote range failed half-way. */
  read(address: number, target: Uint8Array, at: number, length: number): boolean {
    const offset = this.translate(address, length, DMA_READ);
    if (offset >= 0) {
      if (length <= SHORT_MAX_BYTES) readShort(this.hit, offset, target, at, length);
      else target.set(this.hit.bytes.subarray(offset, offset + length), at);
      return true;
    }
    if (!this.covers(address, length, DMA_READ)) return false;
    while (length > 0) {
      const range = this.#rangeAt(address)!;
      const part = Math.min(length, range.end - address);
      const from = address - range.start;
      if (range.remote === null) target.set(range.memory.bytes.subarray(from, from + part), at);
      else if (!range.remote.read(from, target, at, part)) return false;
      address += part;
      at += part;
      length -= part;
    }
    return true;
  }

  /** Copies `source[at..)` to guest memory. False when not all of it can be reached; nothing is then written unless a remote range failed half-way. */
  write(address: number, source: Uint8Array, at: number, length: number): boolean {
    const offset = this.translate(address, length, DMA_WRITE);
    if (offset >= 0) {
      if (length <= SHORT_MAX_BYTES) writeShort(this.hit, offset, source, at, length);
      else this.hit.bytes.set(source.subarray(at, at + length), offset);
      return true;
    }
    if (!this.covers(address, length, DMA_WRITE)) return false;
    if (this.#log !== null) this.#markLater(address, length);
    while (length > 0) {
      const range = this.#rangeAt(address)!;
      const part = Math.min(length, range.end - address);
      const to = address - range.start;
      if (range.remote === null) range.memory.bytes.set(source.subarray(at, at + part), to);
      else if (!range.remote.write(to, source, at, part)) return false;
      address += part;
      at += part;
      length -= part;
    }
    return true;
  }

  /** Fills guest memory with zeros; false when not all of it can be reached. */
  clear(address: number, length: number): boolean {
    const offset = this.translate(address, length, DMA_WRITE);
    if (offset >= 0) {
      this.hit.bytes.fill(0, offset, offset + length);
      return true;
    }
    return length <= 2 ** 16 && this.write(address, new Uint8Array(length), 0, length);
  }

  /** Little-endian unsigned reads, for code off the fast path; -1 when the address is not RAM. */
  u8(address: number): number {
    return this.read(address, this.#scratch, 0, 1) ? this.#scratch[0] : -1;
  }

  u16(address: number): number {
    return this.read(address, this.#scratch, 0, 2) ? u16le(this.#scratch, 0) : -1;
  }

  u32(address: number): number {
    return this.read(address, this.#scratch, 0, 4) ? u32le(this.#scratch, 0) : -1;
  }

  /** Little-endian writes; false when the address is not RAM. */
  putU8(address: number, value: number): boolean {
    this.#scratch[0] = value;
    return this.write(address, this.#scratch, 0, 1);
  }

  putU16(address: number, value: number): boolean {
    putU16le(this.#scratch, 0, value);
    return this.write(address, this.#scratch, 0, 2);
  }

  putU32(address: number, value: number): boolean {
    putU32le(this.#scratch, 0, value);
    return this.write(address, this.#scratch, 0, 4);
  }

  /**
   * Appends `length` guest bytes to `frame` by reference, behind its last segment `tail`. Returns the new last segment; 0 when the pool has
   * no record left; NOT_BORROWABLE when the bytes are not all in mapped RAM. After 0 the frame may have grown in part: release it.
   */
  borrow(frame: number, tail: number, address: number, length: number): number {
    let offset = this.translate(address, length, DMA_READ);
    if (offset < 0) return this.#borrowAcross(frame, tail, address, length);
    const regions = this.#range!.regions;
    while (length > 0) {
      // Not by shifts: an offset may pass 2^31.
      const part = regions.length === 1 ? 0 : Math.floor(offset / REGION_BYTES);
      const within = offset - part * REGION_BYTES;
      const size = Math.min(length, REGION_BYTES - within);
      tail = this.#pool.borrow(frame, tail, regions[part]!, within, size);
      if (tail === 0) return 0;
      offset += size;
      length -= size;
    }
    return tail;
  }

  #borrowAcross(frame: number, tail: number, address: number, length: number): number {
    if (!this.covers(address, length, DMA_READ)) return NOT_BORROWABLE;
    for (let at = address; at < address + length; ) {
      const range = this.#rangeAt(at)!;
      if (range.remote !== null) return NOT_BORROWABLE;
      at = range.end;
    }
    while (length > 0) {
      const part = Math.min(length, this.#rangeAt(address)!.end - address);
      tail = this.borrow(frame, tail, address, part);
      if (tail === NOT_BORROWABLE) throw new InvariantError('a covered range cannot be borrowed');
      if (tail === 0) return 0;
      address += part;
      length -= part;
    }
    return tail;
  }
}

/**
 * Copies a short run (a descriptor, an index, a header). A guest's processor may write it meanwhile, so what is aligned is read as a device's bus
 * does: 32 or 16 bits in one access, in ascending order, never a word of which one byte is old and one new.
 */
function readShort(memory: ByteMemory, offset: number, target: Uint8Array, at: number, length: number): void {
  const { bytes, view } = memory;
  const end = at + length;
  if (offset % 4 === 0)
    for (; end - at >= 4; offset += 4, at += 4) putU32le(target, at, view.getUint32(offset, true));
  if (offset % 2 === 0 && end - at >= 2) {
    putU16le(target, at, view.getUint16(offset, true));
    at += 2;
    offset += 2;
  }
  while (at < end) target[at++] = bytes[offset++];
}

/** As `readShort`, for writing. */
function writeShort(
  memory: ByteMemory,
  offset: number,
  source: Uint8Array,
  at: number,
  length: number,
): void {
  const { bytes, view } = memory;
  const end = at + length;
  if (offset % 4 === 0)
    for (; end - at >= 4; offset += 4, at += 4) view.setUint32(offset, u32le(source, at), true);
  if (offset % 2 === 0 && end - at >= 2) {
    view.setUint16(offset, u16le(source, at), true);
    at += 2;
    offset += 2;
  }
  while (at < end) bytes[offset++] = source[at++];
}

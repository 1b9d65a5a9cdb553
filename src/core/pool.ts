/**
 * Frames and the pool they come from.
 *
 * A frame in flight is a number: the word index of a 64-byte record in one Int32Array (`pool.table`), which TypeScript walks without
 * allocating and native code reads in place. `bench/frame-shape.ts` is the measurement that decided for this shape. The record holds
 * where the bytes lie (region, offset, length, next segment) and, for the first segment of a frame, the frame's length and its
 * offload facts (the fields of virtio_net_hdr). Frame 0 is no frame.
 *
 * Bytes lie in a *region*: region 0 is the pool's own slots (small ones for one MTU-sized frame, large ones for a 64 KiB GSO frame);
 * any other region is memory somebody registered, such as guest RAM. One rule makes every parser simple: **the first segment of a
 * frame lies in region 0 and holds at least the first PRIVATE_BYTES bytes** (or the whole frame), so headers are private to netemu,
 * contiguous, and cannot change under a decision. Payload behind them may be borrowed from guest RAM by reference.
 *
 * Ownership, in one paragraph. A frame has one owner, who releases it or passes it on. `send` and `receive` move the ownership of
 * exactly the frames they report taken, from the front; the rest stay with the caller, who keeps their order and offers them again after
 * `ready`. To keep a frame and pass it on, an owner calls `retain` first: then each holder owes one `release`, and while there is more
 * than one holder the bytes and facts are read-only (`writable` gives the caller a private copy). When the last holder releases, slots
 * and records return to the pool, and a lender of borrowed segments is told by `returned(tag)`, so that it may complete the guest's
 * descriptors. Only the thread that made a pool allocates and frees; another thread gives frames back through a SharedRing.
 */

import { ByteMemory, NO_MEMORY } from './copy.ts';
import { CopyList } from './copy-list.ts';
import { InvariantError } from './errors.ts';

/** Words of a record; a frame number indexes its first word: `table[frame + OFFSET]`. */
export const RECORD_WORDS = 16;
/** Segment: region number, byte offset in the region, length in bytes, next segment (0 ends). */
export const REGION = 0;
export const OFFSET = 1;
export const LENGTH = 2;
export const NEXT = 3;
/** Frame (first segment only): bytes in all segments. */
export const TOTAL = 4;
/** Frame: FACT_* flags in bits 0..7, GSO_* type in bits 8..15. Zero: no offload is asked for. */
export const FACTS = 5;
/** Frame: payload bytes per segment of a GSO frame. */
export const GSO_SIZE = 6;
/** Frame: bytes of headers in front of a GSO frame's payload; a hint. */
export const HEADER_LENGTH = 7;
/** Frame: with FACT_NEEDS_CSUM, sum from this offset to the end … */
export const CSUM_START = 8;
/** … and store the result this many bytes after CSUM_START. */
export const CSUM_OFFSET = 9;
/** Frame: holders. */
export const REFS = 10;
/**
 * Frame: who lent borrowed segments (index in the pool's lenders, 0: nobody), and the lender's own number for it. Segment: PART, and the
 * frame in whose slot its bytes lie.
 */
export const LENDER = 11;
export const TAG = 12;
/** LENDER of a segment made by `part`. */
export const PART = -1;
/** Fixed for each record: its slot's byte offset in region 0, the slot's size (0: a record without a slot). */
export const SLOT = 13;
export const ROOM = 14;
/** Fixed for each record: which free list it belongs to. */
export const KIND = 15;

/** The checksum from CSUM_START on is partial (pseudo header only) and must be completed before the frame reaches a wire. */
export const FACT_NEEDS_CSUM = 1;
/** Somebody trustworthy has already checked the checksums. */
export const FACT_CSUM_VALID = 2;
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_UDP = 3;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
/** Or-ed to a TCP GSO type: the frame carries CWR, which only the first segment may. */
export const GSO_ECN = 0x80;

/** The first segment holds at least this many bytes of a longer frame: Ethernet, two VLAN tags, IPv6 with options, TCP with options. */
export const PRIVATE_BYTES = 192;
/** The longest frame anywhere: 64 KiB of payload and its headers. */
export const MAX_FRAME_BYTES = 69_632;

const KIND_SMALL = 0;
const KIND_LARGE = 1;
const KIND_BARE = 2;
const REGION_LIMIT = 1 << 12;

/** Who lends segments of its own memory to frames (a NIC, for guest RAM). */
export interface Lender {
  /** The last holder released the frame that was lent under `tag`. */
  returned(tag: number): void;
}

/** Told of every region, now and later: native code, which needs their base addresses. */
export interface RegionWatcher {
  regionChanged(region: number, bytes: Uint8Array): void;
}

export interface PoolOptions {
  /** Slots for frames up to smallBytes. */
  smallSlots?: number;
  /** Bytes of a small slot, a multiple of 64. */
  smallBytes?: number;
  /** Slots for frames up to MAX_FRAME_BYTES. */
  largeSlots?: number;
  /** Records without a slot, for borrowed segments. */
  bareRecords?: number;
  /** Memory that worker threads may attach to (SharedArrayBuffer). */
  shared?: boolean;
  /** Makes the memory of the slots: at least so many bytes, zeroed. Default: memory of this process alone. */
  allocate?: (lengthBytes: number) => Uint8Array;
  /** Poison released slots and throw on any use after release. */
  debug?: boolean;
}

/** What another thread needs to see the frames of a shared pool. */
export interface SharedPool {
  table: Int32Array;
  bytes: Uint8Array;
}

/** Where a thread that does not own the pool puts frames it is done with. */
export interface ReturnPath {
  push(frame: number): boolean;
}

/** A stack of free records of one kind. */
class FreeList {
  readonly frames: Int32Array;
  count = 0;

  constructor(size: number) {
    this.frames = new Int32Array(size);
  }
}

const LARGE_SLOT_BYTES = 73_728;
/** Between small slots: at a distance of a power of two the first lines of all frames would share a few sets of the processor's cache. */
const SLOT_GAP_BYTES = 64;
const POISON = 0xdb;

export class FramePool {
  readonly table: Int32Array;
  /** Region 0. */
  readonly bytes: Uint8Array;
  /** Registered memory by region number. */
  readonly regions: Uint8Array[];
  /** The regions once more, as what copy.ts copies between. */
  readonly memories: ByteMemory[];
  /** What is copied between regions, many runs at once. */
  readonly copies: CopyList;
  readonly debug: boolean;
  /** Slots in all. */
  readonly capacity: number;
  readonly smallBytes: number;
  /** Frames that could not be allocated since the pool was made. */
  exhausted = 0;

  /** Stacks of free records by kind. */
  readonly #small: FreeList;
  readonly #large: FreeList;
  readonly #bare: FreeList;
  readonly #lenders: (Lender | null)[] = [null];
  readonly #watchers: RegionWatcher[] = [];
  readonly #returnPath: ReturnPath | null;
  /** Neither shared with a thread that frees nothing, nor under debug: most frames are freed by a few words. */
  readonly #plain: boolean;
  readonly #shared: boolean;

  constructor(options: PoolOptions = {}, attached?: { memory: SharedPool; returnPath: ReturnPath }) {
    const smallSlots = options.smallSlots ?? 4096;
    const smallBytes = options.smallBytes ?? 2048;
    const largeSlots = options.largeSlots ?? 256;
    const bareRecords = options.bareRecords ?? 8192;
    if (smallBytes % 64 !== 0 || smallBytes < 512)
      throw new InvariantError('smallBytes must be a multiple of 64, at least 512');
    this.smallBytes = smallBytes;
    this.debug = options.debug ?? false;
    this.capacity = smallSlots + largeSlots;
    this.#shared = options.shared ?? attached !== undefined;
    this.#returnPath = attached?.returnPath ?? null;
    this.#plain = attached === undefined && !this.debug;
    const records = 1 + smallSlots + largeSlots + bareRecords;
    if (attached !== undefined) {
      this.table = attached.memory.table;
      this.bytes = attached.memory.bytes;
      this.regions = [this.bytes];
      this.memories = [new ByteMemory(this.bytes)];
      this.copies = new CopyList(this.memories);
      this.#small = this.#large = this.#bare = new FreeList(0);
      return;
    }
    const slotBytes = smallSlots * (smallBytes + SLOT_GAP_BYTES) + largeSlots * LARGE_SLOT_BYTES;
    const memory = (size: number): ArrayBuffer =>
      this.#shared ? (new SharedArrayBuffer(size) as unknown as ArrayBuffer) : new ArrayBuffer(size);
    this.table = new Int32Array(memory(records * RECORD_WORDS * 4));
    this.bytes = options.allocate?.(slotBytes) ?? new Uint8Array(memory(slotBytes));
    this.regions = [this.bytes];
    this.memories = [new ByteMemory(this.bytes)];
    this.copies = new CopyList(this.memories);
    this.#small = new FreeList(smallSlots);
    this.#large = new FreeList(largeSlots);
    this.#bare = new FreeList(bareRecords);
    let record = RECORD_WORDS;
    let slot = 0;
    const lay = (list: FreeList, kind: number, room: number, gap: number): void => {
      const count = list.frames.length;
      for (let i = count - 1; i >= 0; i--) {
        const at = record + i * RECORD_WORDS;
        this.table[at + SLOT] = slot + i * (room + gap);
        this.table[at + ROOM] = room;
        this.table[at + KIND] = kind;
        list.frames[count - 1 - i] = at;
      }
      list.count = count;
      record += count * RECORD_WORDS;
      slot += count * (room + gap);
    };
    lay(this.#small, KIND_SMALL, smallBytes, SLOT_GAP_BYTES);
    lay(this.#large, KIND_LARGE, LARGE_SLOT_BYTES, 0);
    lay(this.#bare, KIND_BARE, 0, 0);
  }

  /** A pool on another thread's memory: it reads and writes frames it was given, and gives them back instead of freeing them. */
  static attach(memory: SharedPool, returnPath: ReturnPath): FramePool {
    return new FramePool({ shared: true }, { memory, returnPath });
  }

  /** What `attach` needs in another thread. The pool must have been made with `shared`. */
  share(): SharedPool {
    if (!this.#shared) throw new InvariantError('only a pool made with shared: true can be attached to');
    return { table: this.table, bytes: this.bytes };
  }

  /** Free slots; equal to `capacity` when nobody holds a frame. */
  get free(): number {
    return this.#small.count + this.#large.count;
  }

  get freeSmall(): number {
    return this.#small.count;
  }

  get freeLarge(): number {
    return this.#large.count;
  }

  /** Free records for borrowed segments. */
  get freeBare(): number {
    return this.#bare.count;
  }

  /** An empty frame (length 0) with room for `bytes` bytes in its slot, or 0 when there is none. */
  alloc(bytes: number): number {
    return this.#take(bytes <= this.smallBytes ? this.#small : this.#large);
  }

  /** An empty frame with a slot for MAX_FRAME_BYTES and headers before them, or 0. */
  allocLarge(): number {
    return this.#take(this.#large);
  }

  #take(list: FreeList): number {
    if (list.count === 0) {
      this.exhausted++;
      return 0;
    }
    // In a free record REGION, NEXT and LENDER are 0.
    const frame = list.frames[--list.count]!;
    const t = this.table;
    t[frame + OFFSET] = t[frame + SLOT]!;
    t[frame + LENGTH] = 0;
    t[frame + TOTAL] = 0;
    t[frame + FACTS] = 0;
    t[frame + REFS] = 1;
    return frame;
  }

  /** A frame with a copy of `source[from..to)`, or 0 when the pool is exhausted. */
  from(source: Uint8Array, from = 0, to = source.length): number {
    const length = to - from;
    if (length > MAX_FRAME_BYTES) return 0;
    const frame = this.alloc(length);
    if (frame === 0) return 0;
    copyBytes(source, from, this.bytes, this.table[frame + OFFSET]!, length);
    this.setLength(frame, length);
    return frame;
  }

  /** Sets the length of a frame whose bytes all lie in its first segment. */
  setLength(frame: number, length: number): void {
    this.table[frame + LENGTH] = length;
    this.table[frame + TOTAL] = length;
  }

  /**
   * Appends `length` bytes at `offset` of `region` to the frame by reference; `tail` is the frame's last segment. Returns the new last
   * segment, or 0 when no record is free. The caller has set the frame's lender if the memory needs to be given back.
   */
  borrow(frame: number, tail: number, region: number, offset: number, length: number): number {
    const segment = this.#take(this.#bare);
    if (segment === 0) return 0;
    const t = this.table;
    t[segment + REGION] = region;
    t[segment + OFFSET] = offset;
    t[segment + LENGTH] = length;
    t[tail + NEXT] = segment;
    t[frame + TOTAL] = t[frame + TOTAL]! + length;
    return segment;
  }

  /**
   * A frame on bytes [offset, offset + length) of another's slot, by reference; the slot is free again when `whole` and all its parts are
   * released. Parts of one slot must not overlap where anybody writes. 0 when no record is free.
   */
  part(whole: number, offset: number, length: number): number {
    const part = this.#take(this.#bare);
    if (part === 0) return 0;
    const t = this.table;
    t[part + OFFSET] = offset;
    t[part + LENGTH] = length;
    t[part + TOTAL] = length;
    t[part + LENDER] = PART;
    t[part + TAG] = whole;
    t[whole + REFS] = t[whole + REFS]! + 1;
    return part;
  }

  /** Appends a frame's segments to another's (both in the caller's hands); `more` is gone as a frame of its own. */
  append(frame: number, more: number): void {
    const t = this.table;
    if (t[more + REFS] !== 1 || t[more + LENDER]! > 0)
      throw new InvariantError('append needs a frame of one holder and no lender');
    let tail = frame;
    while (t[tail + NEXT] !== 0) tail = t[tail + NEXT]!;
    t[tail + NEXT] = more;
    t[frame + TOTAL] = t[frame + TOTAL]! + t[more + TOTAL]!;
    t[more + REFS] = 0;
  }

  /** One more holder; the frame is read-only until it has one again. */
  retain(frame: number): void {
    if (this.debug) this.check(frame);
    this.table[frame + REFS] = this.table[frame + REFS]! + 1;
  }

  /** One holder less; the last one frees the frame. */
  release(frame: number): void {
    const t = this.table;
    // KIND_SMALL is 0: a small slot of one holder, with no further segment and no lender.
    if (
      this.#plain &&
      t[frame + REFS] === 1 &&
      (t[frame + NEXT]! | t[frame + LENDER]! | t[frame + KIND]!) === 0
    ) {
      t[frame + REFS] = 0;
      const list = this.#small;
      list.frames[list.count++] = frame;
    } else {
      this.#releaseAny(frame);
    }
  }

  /** Large frames, those of several holders or segments, lent or partial ones, pools of several threads or under debug. */
  #releaseAny(frame: number): void {
    const t = this.table;
    const refs = t[frame + REFS]! - 1;
    if (refs > 0) {
      t[frame + REFS] = refs;
      return;
    }
    if (refs < 0) throw new InvariantError(`frame ${frame} released twice`);
    if (this.#returnPath !== null) {
      if (!this.#returnPath.push(frame)) throw new InvariantError('the return ring is smaller than the pool');
      return;
    }
    t[frame + REFS] = 0;
    const lender = t[frame + LENDER]!;
    const tag = t[frame + TAG]!;
    let segment = frame;
    do {
      const next = t[segment + NEXT]!;
      const kind = t[segment + KIND];
      if (t[segment + LENDER] === PART) this.release(t[segment + TAG]!);
      if (this.debug) this.#poison(segment);
      t[segment + REGION] = 0;
      t[segment + NEXT] = 0;
      t[segment + LENDER] = 0;
      const list = kind === KIND_SMALL ? this.#small : kind === KIND_LARGE ? this.#large : this.#bare;
      list.frames[list.count++] = segment;
      segment = next;
    } while (segment !== 0);
    if (lender > 0) this.#lenders[lender]?.returned(tag);
  }

  /** Releases frames[from..to). */
  releaseAll(frames: Int32Array, from: number, to: number): void {
    if (!this.#plain) {
      for (let i = from; i < to; i++) this.release(frames[i]!);
      return;
    }
    const t = this.table;
    const list = this.#small;
    const free = list.frames;
    for (let i = from; i < to; i++) {
      let { count } = list;
      for (; i < to; i++) {
        const frame = frames[i]!;
        if (t[frame + REFS] !== 1 || (t[frame + NEXT]! | t[frame + LENDER]! | t[frame + KIND]!) !== 0) break;
        t[frame + REFS] = 0;
        free[count++] = frame;
      }
      list.count = count;
      if (i < to) this.#releaseAny(frames[i]!);
    }
  }

  /** Frees a frame that another thread gave back through its return path. */
  reclaim(frame: number): void {
    this.release(frame);
  }

  #poison(segment: number): void {
    const t = this.table;
    const slot = t[segment + SLOT]!;
    this.bytes.fill(POISON, slot, slot + t[segment + ROOM]!);
    t[segment + LENGTH] = -1;
    t[segment + TOTAL] = -1;
  }

  /** Throws when the frame is not held by anybody or breaks the rule about its first segment. */
  check(frame: number): void {
    const t = this.table;
    if (frame <= 0 || frame % RECORD_WORDS !== 0 || frame >= t.length)
      throw new InvariantError(`${frame} is no frame`);
    if (t[frame + REFS]! <= 0) throw new InvariantError(`frame ${frame} used after release`);
    const total = t[frame + TOTAL]!;
    if (t[frame + REGION] !== 0 || t[frame + LENGTH]! < Math.min(total, PRIVATE_BYTES)) {
      throw new InvariantError(`frame ${frame}: the first segment must hold the headers in region 0`);
    }
    let sum = 0;
    for (let s = frame; s !== 0; s = t[s + NEXT]!) sum += t[s + LENGTH]!;
    if (sum !== total) throw new InvariantError(`frame ${frame}: segments hold ${sum} bytes of ${total}`);
  }

  /** True when the caller is the only holder and no segment is borrowed: it may change any byte. */
  isPrivate(frame: number): boolean {
    return this.table[frame + REFS] === 1 && this.table[frame + LENDER]! <= 0;
  }

  /**
   * A frame with the same bytes and facts that the caller alone holds, in one segment of region 0: the frame itself if it is that
   * already, else a copy, for which the caller's hold of `frame` is released. 0 when the pool is exhausted; then `frame` is still held.
   */
  writable(frame: number): number {
    if (this.isPrivate(frame) && this.table[frame + NEXT] === 0) return frame;
    const copy = this.clone(frame);
    if (copy !== 0) this.release(frame);
    return copy;
  }

  /** A copy in one segment of region 0 with the same facts, or 0. */
  clone(frame: number): number {
    const t = this.table;
    const total = t[frame + TOTAL]!;
    const copy = this.alloc(total);
    if (copy === 0) return 0;
    this.read(frame, 0, this.bytes, t[copy + OFFSET]!, total);
    this.setLength(copy, total);
    this.copyFacts(frame, copy);
    return copy;
  }

  /** Copies the offload facts, not the bytes. */
  copyFacts(from: number, to: number): void {
    const t = this.table;
    for (let word = FACTS; word <= CSUM_OFFSET; word++) t[to + word] = t[from + word]!;
  }

  /** Copies frame bytes [at, at + length) to `target[targetAt..)`; less at the frame's end. Returns the bytes copied. */
  read(frame: number, at: number, target: Uint8Array, targetAt: number, length: number): number {
    const t = this.table;
    let copied = 0;
    for (let s = frame; s !== 0 && copied < length; s = t[s + NEXT]!) {
      const size = t[s + LENGTH]!;
      if (at >= size) {
        at -= size;
        continue;
      }
      const part = Math.min(size - at, length - copied);
      copyBytes(this.regions[t[s + REGION]!]!, t[s + OFFSET]! + at, target, targetAt + copied, part);
      copied += part;
      at = 0;
    }
    return copied;
  }

  /** A fresh array with the frame's bytes; for code off the fast path. */
  toBytes(frame: number): Uint8Array {
    const bytes = new Uint8Array(this.table[frame + TOTAL]!);
    this.read(frame, 0, bytes, 0, bytes.length);
    return bytes;
  }

  /** Registers memory that segments may point into, at most 1 GiB; returns its region number. */
  addRegion(bytes: Uint8Array): number {
    if (bytes.length > 2 ** 30)
      throw new InvariantError('a region holds at most 1 GiB: register larger memory in parts');
    let region = 1;
    while (region < this.regions.length && this.regions[region] !== NO_BYTES) region++;
    if (region >= REGION_LIMIT) throw new InvariantError('too many memory regions');
    this.regions[region] = bytes;
    this.memories[region] = new ByteMemory(bytes);
    for (const watcher of this.#watchers) watcher.regionChanged(region, bytes);
    return region;
  }

  /** Takes a region away. Frames that still point into it read as zeros from then on; its memory may be unmapped. */
  removeRegion(region: number): void {
    if (region <= 0) throw new InvariantError('region 0 is the pool itself');
    this.regions[region] = NO_BYTES;
    this.memories[region] = NO_MEMORY;
    for (const watcher of this.#watchers) watcher.regionChanged(region, NO_BYTES);
  }

  /** Tells `watcher` of every region there is and will be. */
  watchRegions(watcher: RegionWatcher): void {
    this.#watchers.push(watcher);
    for (const [region, bytes] of this.regions.entries()) watcher.regionChanged(region, bytes);
  }

  unwatchRegions(watcher: RegionWatcher): void {
    const at = this.#watchers.indexOf(watcher);
    if (at >= 0) this.#watchers.splice(at, 1);
  }

  /** A number for LENDER words. */
  addLender(lender: Lender): number {
    const vacant = this.#lenders.indexOf(null, 1);
    const index = vacant < 0 ? this.#lenders.length : vacant;
    this.#lenders[index] = lender;
    return index;
  }

  /** Frames it lent may still be held; their return is then told to nobody. */
  removeLender(index: number): void {
    this.#lenders[index] = { returned: () => {} };
  }
}

const NO_BYTES = new Uint8Array(0);

/**
 * Copies `length` bytes. Within one array (slot to slot) copyWithin is the fastest there is; short copies by loop beat a call; bytes past
 * the end of `source` (a region that was taken away) read as zeros.
 */
export function copyBytes(
  source: Uint8Array,
  from: number,
  target: Uint8Array,
  to: number,
  length: number,
): void {
  if (from + length > source.length) {
    const there = Math.max(0, Math.min(length, source.length - from));
    target.fill(0, to + there, to + length);
    length = there;
  }
  if (length <= 32) {
    for (let i = 0; i < length; i++) target[to + i] = source[from + i]!;
  } else if (source === target) {
    target.copyWithin(to, from, from + length);
  } else {
    target.set(source.subarray(from, from + length), to);
  }
}

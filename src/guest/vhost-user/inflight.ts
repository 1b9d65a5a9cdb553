/**
 * What is in flight, in memory that outlives us (INFLIGHT_SHMFD): the back-end makes a file, the front-end keeps it and hands it to whoever serves the rings next. A region for
 * each ring, in the layout of the protocol's text ("Inflight I/O tracking"):
 *
 *   split    features 64, version 16, entries 16, last_batch_head 16, used_idx 16
 *            an entry for each descriptor: inflight 8, padding 40, next 16, counter 64
 *   packed   features 64, version 16, entries 16, free_head 16, old_free_head 16, used_idx 16, old_used_idx 16, used_wrap 8, old_used_wrap 8, padding
 *            an entry for each descriptor: inflight 8, padding 8, next 16, last 16, num 16, counter 64, id 16, flags 16, length 32, address 64
 *
 * A chain is noted when it is fetched, and struck out when the driver was shown that it is used. Where we end in between, the last batch (split) and the `old` fields (packed)
 * tell which of the two holds. The front-end may write all of it: every index is checked and every walk bounded, and what makes no sense is begun anew.
 */

import type { Handle, HostIo } from '../../host-io/host-io.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import type { QueueLayout } from '../../virtio/queue.ts';
import { DESCRIPTOR_BYTES } from '../../virtio/split.ts';
import type { InFlightChain, Ledger } from '../../virtio/tracked.ts';
import { SharedFile } from './shared-file.ts';

const VERSION = 1;
const AT_VERSION = 8;
const AT_ENTRIES = 10;
/** AVAIL and USED of a packed descriptor's flags. */
const AVAIL_FLAG = 0x80;
const USED_FLAG = 0x8000;
const USED_FLAGS = AVAIL_FLAG | USED_FLAG;

/** Bytes of one ring's region: enough for either kind of ring. */
export function regionBytes(queueSize: number): number {
  return (PACKED_HEADER_BYTES + PACKED_ENTRY_BYTES * queueSize + 63) & ~63;
}

const SPLIT_HEADER_BYTES = 16;
const SPLIT_ENTRY_BYTES = 16;
const LAST_BATCH = 12;
const USED_INDEX = 14;
const NEXT = 6;
const COUNTER = 8;

/** Opens a ring's ledger with what stands in `region`, of at least `regionBytes`; `used`: where the ring stands if nothing does. */
export function openLedger(
  region: Uint8Array,
  layout: QueueLayout,
  packed: boolean,
  used: number,
  memory: GuestMemory,
): Ledger {
  const view = new DataView(region.buffer, region.byteOffset, region.byteLength);
  if (!packed) return new SplitLedger(view, layout.size, used);
  const isUsed = (index: number, wrap: boolean): boolean => {
    const flags = memory.u16(layout.descriptors + DESCRIPTOR_BYTES * index + 14);
    return (flags & USED_FLAGS) === (wrap ? USED_FLAGS : 0);
  };
  return new PackedLedger(view, layout.size, used, isUsed);
}

/** Whether what is left is what the ring holds from its used place on: then it need only be fetched again. */
export function isRun(
  left: readonly InFlightChain[],
  layout: QueueLayout,
  packed: boolean,
  used: number,
  memory: GuestMemory,
): boolean {
  const { size, descriptors, driver } = layout;
  if (!packed) return left.every(({ id }, k) => memory.u16(driver + 4 + 2 * ((used + k) % size)) === id);
  let index = used & ~WRAP;
  let wrap = (used & WRAP) !== 0;
  for (const { id, slots } of left) {
    const flags = memory.u16(descriptors + DESCRIPTOR_BYTES * index + 14);
    if ((flags & USED_FLAGS) !== (wrap ? AVAIL_FLAG : USED_FLAG)) return false;
    if (memory.u16(descriptors + DESCRIPTOR_BYTES * ((index + slots - 1) % size) + 12) !== id) return false;
    index += slots;
    if (index >= size) {
      index -= size;
      wrap = !wrap;
    }
  }
  return true;
}

/** What a region holds is not true any more. */
function forget(region: Uint8Array): void {
  region.fill(0, AT_VERSION, AT_VERSION + 2);
}

function isContinued(view: DataView, size: number): boolean {
  return view.getUint16(AT_VERSION, true) === VERSION && view.getUint16(AT_ENTRIES, true) === size;
}

/** Zeros, and then the version: a region that is begun and not finished is begun again. */
function begin(view: DataView, headerBytes: number, entryBytes: number, size: number): void {
  view.setUint16(AT_VERSION, 0, true);
  new Uint8Array(view.buffer, view.byteOffset, headerBytes + entryBytes * size).fill(0);
  view.setUint16(AT_ENTRIES, size, true);
}

/** A 64-bit counter of the region; it never passes 2^53 unless somebody else wrote it. */
function counterAt(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

function putCounter(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

class SplitLedger implements Ledger {
  readonly continued: boolean;
  readonly left: readonly InFlightChain[];
  readonly position: { avail: number; used: number };
  readonly #view: DataView;
  readonly #batch: number[] = [];
  #counter = 0;
  #used: number;

  constructor(view: DataView, size: number, usedIndex: number) {
    this.#view = view;
    this.#used = usedIndex;
    this.continued = isContinued(view, size);
    if (!this.continued) {
      begin(view, SPLIT_HEADER_BYTES, SPLIT_ENTRY_BYTES, size);
      view.setUint16(USED_INDEX, usedIndex, true);
      view.setUint16(AT_VERSION, VERSION, true);
    }
    // The driver was shown a batch that was not struck out: its entries are the first ones of the list.
    let batch = Math.min((usedIndex - view.getUint16(USED_INDEX, true)) & 0xffff, size);
    for (let head = view.getUint16(LAST_BATCH, true); batch > 0 && head < size; batch--) {
      view.setUint8(at(head), 0);
      head = view.getUint16(at(head) + NEXT, true);
    }
    view.setUint16(USED_INDEX, usedIndex, true);
    const left: (InFlightChain & { counter: number })[] = [];
    for (let head = 0; head < size; head++) {
      if (view.getUint8(at(head)) === 0) continue;
      const counter = counterAt(view, at(head) + COUNTER);
      left.push({ id: head, slots: 1, counter });
      this.#counter = Math.max(this.#counter, counter + 1);
    }
    this.left = left.sort((a, b) => a.counter - b.counter);
    this.position = { avail: (usedIndex + left.length) & 0xffff, used: usedIndex };
  }

  fetched(id: number): void {
    const view = this.#view;
    putCounter(view, at(id) + COUNTER, this.#counter++);
    view.setUint8(at(id), 1);
  }

  unfetched(id: number): void {
    this.#view.setUint8(at(id), 0);
  }

  used(id: number): void {
    const view = this.#view;
    view.setUint16(at(id) + NEXT, view.getUint16(LAST_BATCH, true), true);
    view.setUint16(LAST_BATCH, id, true);
    this.#batch.push(id);
  }

  publishing(usedIndex: number): void {
    this.#used = usedIndex;
  }

  published(): void {
    for (const id of this.#batch) this.#view.setUint8(at(id), 0);
    this.#batch.length = 0;
    this.#view.setUint16(USED_INDEX, this.#used, true);
  }
}

const at = (head: number): number => SPLIT_HEADER_BYTES + SPLIT_ENTRY_BYTES * head;

const PACKED_HEADER_BYTES = 32;
const PACKED_ENTRY_BYTES = 32;
const FREE_HEAD = 12;
const OLD_FREE_HEAD = 14;
const PACKED_USED = 16;
const OLD_USED = 18;
const USED_WRAP = 20;
const OLD_USED_WRAP = 21;
const ENTRY_NEXT = 2;
const ENTRY_LAST = 4;
const ENTRY_NUM = 6;
const ENTRY_COUNTER = 8;
/** Identifier, flags. */
const ENTRY_ID = 16;
const ENTRY_LENGTH = 20;
const ENTRY_ADDRESS = 24;
const WRAP = 0x8000;

const entryAt = (entry: number): number => PACKED_HEADER_BYTES + PACKED_ENTRY_BYTES * entry;

class PackedLedger implements Ledger {
  readonly continued: boolean;
  readonly left: readonly InFlightChain[];
  readonly position: { avail: number; used: number };
  readonly #view: DataView;
  readonly #size: number;
  /** The head entry of the chain in flight with this id. */
  readonly #entryOf = new Uint16Array(0x10000);
  readonly #batch: number[] = [];
  #counter = 0;

  constructor(view: DataView, size: number, base: number, isUsed: (index: number, wrap: boolean) => boolean) {
    this.#view = view;
    this.#size = size;
    this.continued = isContinued(view, size);
    if (!this.continued) {
      begin(view, PACKED_HEADER_BYTES, PACKED_ENTRY_BYTES, size);
      for (let entry = 0; entry < size; entry++) view.setUint16(entryAt(entry) + ENTRY_NEXT, entry + 1, true);
      this.#putUsed(base);
      this.#settle();
      view.setUint16(AT_VERSION, VERSION, true);
    }
    const old = view.getUint16(OLD_USED, true) % size;
    // A batch may be as long as the ring: only the lap tells it from none.
    const moved =
      view.getUint16(PACKED_USED, true) !== old || view.getUint8(USED_WRAP) !== view.getUint8(OLD_USED_WRAP);
    if (moved && isUsed(old, view.getUint8(OLD_USED_WRAP) !== 0)) {
      // The driver was shown the last batch.
      this.#settle();
    } else {
      view.setUint16(FREE_HEAD, view.getUint16(OLD_FREE_HEAD, true), true);
      view.setUint16(PACKED_USED, old, true);
      view.setUint8(USED_WRAP, view.getUint8(OLD_USED_WRAP));
    }
    let free = view.getUint16(FREE_HEAD, true);
    for (let steps = 0; steps < size && free < size; steps++) {
      view.setUint8(entryAt(free), 0);
      free = view.getUint16(entryAt(free) + ENTRY_NEXT, true);
    }
    const left: (InFlightChain & { counter: number })[] = [];
    let slots = 0;
    for (let entry = 0; entry < size; entry++) {
      const place = entryAt(entry);
      if (view.getUint8(place) === 0) continue;
      const count = view.getUint16(place + ENTRY_NUM, true);
      const last = view.getUint16(place + ENTRY_LAST, true);
      slots += count;
      if (count === 0 || last >= size || slots > size) {
        // Nobody's bookkeeping: what the ring holds is all that there is.
        view.setUint8(place, 0);
        slots -= count;
        continue;
      }
      const id = view.getUint16(entryAt(last) + ENTRY_ID, true);
      const counter = counterAt(view, place + ENTRY_COUNTER);
      this.#entryOf[id] = entry;
      left.push({ id, slots: count, counter });
      this.#counter = Math.max(this.#counter, counter + 1);
    }
    this.left = left.sort((a, b) => a.counter - b.counter);
    const used = (view.getUint16(PACKED_USED, true) % size) | (view.getUint8(USED_WRAP) !== 0 ? WRAP : 0);
    let avail = (used & ~WRAP) + slots;
    let wrap = used & WRAP;
    if (avail >= size) {
      avail -= size;
      wrap ^= WRAP;
    }
    this.position = { avail: avail | wrap, used };
  }

  #putUsed(used: number): void {
    this.#view.setUint16(PACKED_USED, used & ~WRAP, true);
    this.#view.setUint8(USED_WRAP, (used & WRAP) !== 0 ? 1 : 0);
  }

  /** What is, is what was. */
  #settle(): void {
    const view = this.#view;
    view.setUint16(OLD_FREE_HEAD, view.getUint16(FREE_HEAD, true), true);
    view.setUint16(OLD_USED, view.getUint16(PACKED_USED, true), true);
    view.setUint8(OLD_USED_WRAP, view.getUint8(USED_WRAP));
  }

  fetched(id: number, slots: number, descriptors: DataView): void {
    const view = this.#view;
    const head = view.getUint16(FREE_HEAD, true);
    let entry = head;
    let last = head;
    for (let i = 0; i < slots; i++) {
      if (entry >= this.#size) return;
      const place = entryAt(entry);
      for (let word = 0; word < 2; word++)
        view.setUint32(
          place + ENTRY_ADDRESS + 4 * word,
          descriptors.getUint32(16 * i + 4 * word, true),
          true,
        );
      view.setUint32(place + ENTRY_LENGTH, descriptors.getUint32(16 * i + 8, true), true);
      view.setUint32(place + ENTRY_ID, descriptors.getUint32(16 * i + 12, true), true);
      last = entry;
      entry = view.getUint16(place + ENTRY_NEXT, true);
    }
    const place = entryAt(head);
    view.setUint16(place + ENTRY_LAST, last, true);
    view.setUint16(place + ENTRY_NUM, slots, true);
    putCounter(view, place + ENTRY_COUNTER, this.#counter++);
    view.setUint8(place, 1);
    this.#entryOf[id] = head;
    view.setUint16(FREE_HEAD, entry, true);
    view.setUint16(OLD_FREE_HEAD, entry, true);
  }

  /** Puts a chain's entries back at the free list's head. */
  #free(entry: number): void {
    const view = this.#view;
    const last = Math.min(view.getUint16(entryAt(entry) + ENTRY_LAST, true), this.#size - 1);
    view.setUint16(entryAt(last) + ENTRY_NEXT, view.getUint16(FREE_HEAD, true), true);
    view.setUint16(FREE_HEAD, entry, true);
  }

  unfetched(id: number): void {
    const view = this.#view;
    const entry = this.#entryOf[id];
    this.#free(entry);
    view.setUint16(OLD_FREE_HEAD, view.getUint16(FREE_HEAD, true), true);
    view.setUint8(entryAt(entry), 0);
  }

  /** Its entries are free once the driver was shown the batch, and not before: a chain that is fetched meanwhile must not be noted over them. */
  used(id: number): void {
    this.#batch.push(this.#entryOf[id]);
  }

  publishing(used: number): void {
    for (const entry of this.#batch) this.#free(entry);
    this.#putUsed(used);
  }

  published(): void {
    for (const entry of this.#batch) this.#view.setUint8(entryAt(entry), 0);
    this.#batch.length = 0;
    this.#settle();
  }
}

/** The file that SET_INFLIGHT_FD brought: a region for each of the first `queues` rings, of `queueSize` entries each. */
export class InflightArea {
  readonly #file: SharedFile;
  readonly #queues: number;
  readonly #queueSize: number;

  private constructor(file: SharedFile, queues: number, queueSize: number) {
    this.#file = file;
    this.#queues = queues;
    this.#queueSize = queueSize;
  }

  /** Maps it; null when the file does not hold so many regions. `fd` stays the caller's. */
  static open(
    hostIo: HostIo,
    fd: Handle,
    offset: number,
    length: number,
    queues: number,
    queueSize: number,
  ): InflightArea | null {
    if (queues < 1 || queueSize < 1 || length < queues * regionBytes(queueSize)) return null;
    const file = SharedFile.open(hostIo, fd, offset, length);
    return file === null ? null : new InflightArea(file, queues, queueSize);
  }

  /** A ring's region; null: it has none, or none that is large enough. */
  region(index: number, size: number): Uint8Array | null {
    if (index >= this.#queues || size > this.#queueSize) return null;
    const bytes = regionBytes(this.#queueSize);
    return this.#file.bytes.subarray(index * bytes, (index + 1) * bytes);
  }

  forget(): void {
    for (let index = 0; index < this.#queues; index++) forget(this.region(index, 1)!);
  }

  close(): void {
    this.#file.close();
  }
}

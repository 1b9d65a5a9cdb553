/**
 * The split virtqueue (virtio 1.3, section 2.7): a table of descriptors, linked by `next` into chains; the available ring, where the driver puts heads
 * of chains; the used ring, where the device puts them back.
 *
 *   descriptor   address 64, length 32, flags 16, next 16
 *   available    flags 16, idx 16, ring of 16 bits each, used_event 16
 *   used         flags 16, idx 16, ring of (id 32, length 32) each, avail_event 16
 */

import { DMA_BOTH, DMA_READ, type GuestMemory } from '../pci/guest-memory.ts';
import { CHAIN_PARTS_MAX, type ChainBatch, PART_MAX_BYTES } from './chains.ts';
import {
  FAULT_CHAIN_LENGTH,
  FAULT_EMPTY,
  FAULT_INDEX,
  FAULT_INDIRECT,
  FAULT_ORDER,
  FAULT_OVERRUN,
  FAULT_RING_ADDRESS,
} from './faults.ts';
import type { QueueLayout, QueuePosition, VirtQueue } from './queue.ts';
import { RingArea } from './ring-area.ts';

export const DESCRIPTOR_BYTES = 16;
export const DESC_NEXT = 1;
export const DESC_WRITE = 2;
export const DESC_INDIRECT = 4;
/** used.flags: do not kick. avail.flags: do not interrupt. */
const NO_NOTIFY = 1;

export class SplitQueue implements VirtQueue {
  readonly layout: QueueLayout;
  readonly size: number;
  readonly packed = false;
  fault = 0;
  inFlight: number;

  readonly #mask: number;
  readonly #indirect: boolean;
  readonly #eventIdx: boolean;
  readonly #table: RingArea;
  readonly #avail: RingArea;
  readonly #used: RingArea;
  /** Free-running indices modulo 2^16. */
  #nextAvail: number;
  #nextUsed: number;
  /** The used idx that the driver saw last. */
  #published: number;
  /** No notification was decided since the queue was opened: the first one is always given. */
  #fresh = true;
  #kicksSuppressed = false;
  #scratch: Int32Array | null = null;

  constructor(
    layout: QueueLayout,
    indirect: boolean,
    eventIdx: boolean,
    position?: QueuePosition,
    inFlight = 0,
  ) {
    const { size } = layout;
    this.layout = layout;
    this.size = size;
    this.#mask = size - 1;
    this.#indirect = indirect;
    this.#eventIdx = eventIdx;
    this.#table = new RingArea(layout.descriptors, DESCRIPTOR_BYTES * size, DMA_READ);
    this.#avail = new RingArea(layout.driver, 6 + 2 * size, DMA_READ);
    this.#used = new RingArea(layout.device, 6 + 8 * size, DMA_BOTH);
    this.#nextAvail = (position?.avail ?? 0) & 0xffff;
    this.#nextUsed = (position?.used ?? 0) & 0xffff;
    this.#published = this.#nextUsed;
    this.inFlight = inFlight;
  }

  position(): QueuePosition {
    return { avail: this.#nextAvail, used: this.#nextUsed };
  }

  #fail(fault: number): number {
    this.fault = fault;
    return 0;
  }

  /** Chains that the driver made available and that were not fetched. */
  #pending(): number {
    const avail = this.#avail;
    return (Atomics.load(avail.halves, avail.halfAt + 1) - this.#nextAvail) & 0xffff;
  }

  fetch(memory: GuestMemory, batch: ChainBatch, limit: number): number {
    batch.count = 0;
    if (this.fault !== 0) return 0;
    if (!this.#avail.map(memory)) return this.#fail(FAULT_RING_ADDRESS);
    const pending = this.#pending();
    if (pending === 0) return 0;
    if (!this.#table.map(memory)) return this.#fail(FAULT_RING_ADDRESS);
    const size = this.size;
    if (pending + this.inFlight > size) return this.#fail(FAULT_OVERRUN);
    const want = pending < limit ? pending : limit;
    const { id, slots, first, writeFrom, address, length } = batch;
    const heads = this.#avail.halves;
    const headAt = this.#avail.halfAt + 2;
    const words = this.#table.words;
    const tableAt = this.#table.wordAt;
    const mask = this.#mask;
    const nextAvail = this.#nextAvail;
    let parts = 0;
    let count = 0;
    while (count < want && batch.hasRoom(parts)) {
      first[count] = parts;
      const head = heads[headAt + ((nextAvail + count) & mask)];
      if (head >= size) {
        this.fault = FAULT_INDEX;
        break;
      }
      let at = tableAt + 4 * head;
      let control = words[at + 3];
      if ((control & DESC_INDIRECT) !== 0) {
        parts = this.#fetchIndirect(memory, batch, count, parts, words, at, control);
        if (parts < 0) break;
      } else {
        let write = -1;
        let left = size;
        for (;;) {
          const bytes = words[at + 2];
          const high = words[at + 1];
          address[parts] = high === 0 ? words[at] >>> 0 : (high >>> 0) * 4294967296 + (words[at] >>> 0);
          length[parts] = bytes >= 0 && bytes <= PART_MAX_BYTES ? bytes : PART_MAX_BYTES;
          if (bytes === 0) this.fault = FAULT_EMPTY;
          if ((control & DESC_WRITE) !== 0) {
            if (write < 0) write = parts;
          } else if (write >= 0) {
            this.fault = FAULT_ORDER;
          }
          parts++;
          if ((control & DESC_NEXT) === 0 || this.fault !== 0) break;
          const next = control >>> 16;
          if (next >= size) {
            this.fault = FAULT_INDEX;
            break;
          }
          if (--left === 0 || parts - first[count] >= CHAIN_PARTS_MAX) {
            this.fault = FAULT_CHAIN_LENGTH;
            break;
          }
          at = tableAt + 4 * next;
          control = words[at + 3];
          if ((control & DESC_INDIRECT) !== 0) {
            // An indirect table at the end of a chain is allowed by nobody's driver, and forbidden beside NEXT.
            this.fault = FAULT_INDIRECT;
            break;
          }
        }
        writeFrom[count] = write < 0 ? parts : write;
      }
      if (this.fault !== 0) break;
      id[count] = head;
      slots[count] = 1;
      count++;
    }
    if (this.fault === 0) first[count] = parts;
    batch.count = count;
    this.#nextAvail = (nextAvail + count) & 0xffff;
    this.inFlight += count;
    return count;
  }

  /** The table that one descriptor points to (section 2.7.5.3); returns the new number of parts, or -1. */
  #fetchIndirect(
    memory: GuestMemory,
    batch: ChainBatch,
    chain: number,
    parts: number,
    descriptor: Int32Array,
    descriptorAt: number,
    control: number,
  ): number {
    const bytes = descriptor[descriptorAt + 2] >>> 0;
    const entries = bytes >>> 4;
    if (
      !this.#indirect ||
      (control & DESC_NEXT) !== 0 ||
      (bytes & 15) !== 0 ||
      entries === 0 ||
      entries > 65536
    ) {
      this.fault = FAULT_INDIRECT;
      return -1;
    }
    const tableAddress = (descriptor[descriptorAt + 1] >>> 0) * 4294967296 + (descriptor[descriptorAt] >>> 0);
    // Only as much of it as a chain may have is ever looked at.
    const looked = Math.min(entries, CHAIN_PARTS_MAX);
    let words: Int32Array;
    let base: number;
    const at = memory.translate(tableAddress, looked * DESCRIPTOR_BYTES, DMA_READ);
    if (at >= 0 && (at & 3) === 0 && memory.hit.words.length !== 0) {
      words = memory.hit.words;
      base = at >>> 2;
    } else {
      words = this.#scratch ??= new Int32Array(CHAIN_PARTS_MAX * 4);
      base = 0;
      if (!memory.read(tableAddress, new Uint8Array(words.buffer), 0, looked * DESCRIPTOR_BYTES)) {
        this.fault = FAULT_INDIRECT;
        return -1;
      }
    }
    const { address, length, writeFrom } = batch;
    let write = -1;
    let index = 0;
    for (let left = looked; ; left--) {
      if (left === 0) {
        this.fault = FAULT_CHAIN_LENGTH;
        return -1;
      }
      const d = base + 4 * index;
      const size = words[d + 2];
      const flags = words[d + 3];
      address[parts] = (words[d + 1] >>> 0) * 4294967296 + (words[d] >>> 0);
      length[parts] = size >= 0 && size <= PART_MAX_BYTES ? size : PART_MAX_BYTES;
      if ((flags & DESC_WRITE) !== 0) {
        if (write < 0) write = parts;
      } else if (write >= 0) {
        this.fault = FAULT_ORDER;
        return -1;
      }
      if (size === 0 || (flags & DESC_INDIRECT) !== 0) {
        this.fault = size === 0 ? FAULT_EMPTY : FAULT_INDIRECT;
        return -1;
      }
      parts++;
      if ((flags & DESC_NEXT) === 0) break;
      index = flags >>> 16;
      if (index >= entries || index >= CHAIN_PARTS_MAX) {
        this.fault = FAULT_INDEX;
        return -1;
      }
    }
    writeFrom[chain] = write < 0 ? parts : write;
    return parts;
  }

  unfetch(batch: ChainBatch, from: number): void {
    const count = batch.count - from;
    this.#nextAvail = (this.#nextAvail - count) & 0xffff;
    this.inFlight -= count;
    batch.count = from;
  }

  push(memory: GuestMemory, id: number, slots: number, bytes: number): void {
    const used = this.#used;
    this.inFlight -= slots;
    if (!used.map(memory)) {
      this.fault = FAULT_RING_ADDRESS;
      return;
    }
    const index = this.#nextUsed & this.#mask;
    const at = used.wordAt + 1 + 2 * index;
    used.words[at] = id;
    used.words[at + 1] = bytes;
    if (!used.mapped) used.push(memory, 4 + 8 * index, 8);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
  }

  pushRun(
    memory: GuestMemory,
    ids: Int32Array,
    slots: Int32Array,
    written: Int32Array,
    from: number,
    to: number,
  ): void {
    const used = this.#used;
    if (!used.mapped || !used.map(memory)) {
      for (let i = from; i < to; i++) this.push(memory, ids[i], slots[i], written[i]);
      return;
    }
    const { words } = used;
    const at = used.wordAt + 1;
    const mask = this.#mask;
    let next = this.#nextUsed;
    for (let i = from; i < to; i++) {
      const entry = at + 2 * (next & mask);
      words[entry] = ids[i];
      words[entry + 1] = written[i];
      next++;
    }
    this.inFlight -= to - from;
    this.#nextUsed = next & 0xffff;
  }

  publish(memory: GuestMemory): boolean {
    const before = this.#published;
    const now = this.#nextUsed;
    if (before === now || this.fault === FAULT_RING_ADDRESS) return false;
    const used = this.#used;
    if (!used.map(memory) || !this.#avail.map(memory)) {
      this.fault = FAULT_RING_ADDRESS;
      return false;
    }
    // A full barrier: the driver's wish is read after the index is seen.
    Atomics.store(used.halves, used.halfAt + 1, now);
    used.push(memory, 2, 2);
    this.#published = now;
    const avail = this.#avail;
    if (!this.#eventIdx) return (avail.halves[avail.halfAt] & NO_NOTIFY) === 0;
    const fresh = this.#fresh;
    this.#fresh = false;
    const event = avail.halves[avail.halfAt + 2 + this.size];
    return fresh || ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
  }

  suppressKicks(memory: GuestMemory): void {
    // With EVENT_IDX an avail_event that stays behind does it.
    if (this.#kicksSuppressed || this.#eventIdx || !this.#used.map(memory)) return;
    this.#kicksSuppressed = true;
    this.#used.halves[this.#used.halfAt] = NO_NOTIFY;
    this.#used.push(memory, 0, 2);
  }

  requestKicks(memory: GuestMemory): boolean {
    const used = this.#used;
    if (this.fault !== 0) return false;
    if (!used.map(memory) || !this.#avail.map(memory)) {
      this.fault = FAULT_RING_ADDRESS;
      return false;
    }
    if (this.#eventIdx) {
      Atomics.store(used.halves, used.halfAt + 2 + 4 * this.size, this.#nextAvail);
      used.push(memory, 4 + 8 * this.size, 2);
    } else if (this.#kicksSuppressed) {
      this.#kicksSuppressed = false;
      Atomics.store(used.halves, used.halfAt, 0);
      used.push(memory, 0, 2);
    }
    return this.#pending() !== 0;
  }
}

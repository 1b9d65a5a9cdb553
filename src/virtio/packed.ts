/**
 * The packed virtqueue (virtio 1.3, section 2.8): one ring of descriptors that driver and device both write. A descriptor is available when its AVAIL bit equals
 * the wrap counter and its USED bit does not; used when both equal it. The counter flips with each lap.
 *
 *   descriptor          address 64, length 32, id 16, flags 16; a chain's descriptors follow each other, its id is in the last
 *   event suppression   one for each side: offset 15 and wrap 1, flags 2
 *
 * What was used since the last `publish` is shown at once: the first descriptor's flags are written last.
 */

import { DMA_BOTH, DMA_READ, type GuestMemory } from '../pci/guest-memory.ts';
import { CHAIN_PARTS_MAX, type ChainBatch, PART_MAX_BYTES } from './chains.ts';
import {
  FAULT_CHAIN_LENGTH,
  FAULT_EMPTY,
  FAULT_INDIRECT,
  FAULT_ORDER,
  FAULT_OVERRUN,
  FAULT_RING_ADDRESS,
} from './faults.ts';
import type { QueueLayout, QueuePosition, VirtQueue } from './queue.ts';
import { RingArea } from './ring-area.ts';
import { DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DESCRIPTOR_BYTES } from './split.ts';

const AVAIL = 1 << 7;
const USED = 1 << 15;
const AVAIL_WORD = AVAIL << 16;
const USED_WORD = USED << 16;
const NEXT_WORD = DESC_NEXT << 16;
const WRITE_WORD = DESC_WRITE << 16;
const INDIRECT_WORD = DESC_INDIRECT << 16;
const EVENT_BYTES = 4;
const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;
const WRAP = 0x8000;

export class PackedQueue implements VirtQueue {
  readonly layout: QueueLayout;
  readonly size: number;
  readonly packed = true;
  fault = 0;
  inFlight: number;

  readonly #indirect: boolean;
  readonly #eventIdx: boolean;
  readonly #ring: RingArea;
  readonly #driverEvent: RingArea;
  readonly #deviceEvent: RingArea;
  #nextAvail: number;
  #availWrap: boolean;
  #nextUsed: number;
  #usedWrap: boolean;
  /** Used descriptors that the driver has not been shown: where the first lies, its word with id and flags, and ring slots in all. */
  #heldAt = -1;
  #heldWord = 0;
  #heldSlots = 0;
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
    this.layout = layout;
    this.size = layout.size;
    this.#indirect = indirect;
    this.#eventIdx = eventIdx;
    this.#ring = new RingArea(layout.descriptors, DESCRIPTOR_BYTES * layout.size, DMA_BOTH);
    this.#driverEvent = new RingArea(layout.driver, EVENT_BYTES, DMA_READ);
    this.#deviceEvent = new RingArea(layout.device, EVENT_BYTES, DMA_BOTH);
    const { avail, used } = position ?? { avail: WRAP, used: WRAP };
    this.#nextAvail = (avail & 0x7fff) % layout.size;
    this.#availWrap = (avail & WRAP) !== 0;
    this.#nextUsed = (used & 0x7fff) % layout.size;
    this.#usedWrap = (used & WRAP) !== 0;
    this.inFlight = inFlight;
  }

  position(): QueuePosition {
    return {
      avail: this.#nextAvail | (this.#availWrap ? WRAP : 0),
      used: this.#nextUsed | (this.#usedWrap ? WRAP : 0),
    };
  }

  fetch(memory: GuestMemory, batch: ChainBatch, limit: number): number {
    batch.count = 0;
    if (this.fault !== 0) return 0;
    if (!this.#ring.map(memory)) {
      this.fault = FAULT_RING_ADDRESS;
      return 0;
    }
    const { id, slots, first, writeFrom, address, length } = batch;
    const words = this.#ring.words;
    const base = this.#ring.wordAt;
    const size = this.size;
    let index = this.#nextAvail;
    let wrap = this.#availWrap;
    let inFlight = this.inFlight;
    let parts = 0;
    let count = 0;
    while (count < limit && batch.hasRoom(parts)) {
      let at = base + 4 * index;
      let control = words[at + 3];
      // AVAIL equals the counter, USED does not.
      if ((control & (AVAIL_WORD | USED_WORD)) !== (wrap ? AVAIL_WORD : USED_WORD)) break;
      first[count] = parts;
      if (inFlight >= size) {
        this.fault = FAULT_OVERRUN;
        break;
      }
      let taken = 1;
      if ((control & INDIRECT_WORD) !== 0) {
        const after = this.#fetchIndirect(memory, batch, count, parts, words, at, control);
        if (after < 0) break;
        parts = after;
      } else {
        let write = -1;
        let place = index;
        for (;;) {
          const bytes = words[at + 2];
          const high = words[at + 1];
          address[parts] = high === 0 ? words[at] >>> 0 : (high >>> 0) * 4294967296 + (words[at] >>> 0);
          length[parts] = bytes >= 0 && bytes <= PART_MAX_BYTES ? bytes : PART_MAX_BYTES;
          if (bytes === 0) this.fault = FAULT_EMPTY;
          if ((control & WRITE_WORD) !== 0) {
            if (write < 0) write = parts;
          } else if (write >= 0) {
            this.fault = FAULT_ORDER;
          }
          parts++;
          if ((control & NEXT_WORD) === 0 || this.fault !== 0) break;
          if (inFlight + taken >= size || taken >= CHAIN_PARTS_MAX) {
            this.fault = FAULT_CHAIN_LENGTH;
            break;
          }
          taken++;
          place = place + 1 === size ? 0 : place + 1;
          at = base + 4 * place;
          control = words[at + 3];
          if ((control & INDIRECT_WORD) !== 0) {
            this.fault = FAULT_INDIRECT;
            break;
          }
        }
        writeFrom[count] = write < 0 ? parts : write;
      }
      if (this.fault !== 0) break;
      id[count] = control & 0xffff;
      slots[count] = taken;
      inFlight += taken;
      index += taken;
      if (index >= size) {
        index -= size;
        wrap = !wrap;
      }
      count++;
    }
    if (this.fault === 0) first[count] = parts;
    batch.count = count;
    this.#nextAvail = index;
    this.#availWrap = wrap;
    this.inFlight = inFlight;
    return count;
  }

  /** The table that one descriptor points to (section 2.8.7): all of its entries, in order. Returns the new number of parts, or -1. */
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
      (control & NEXT_WORD) !== 0 ||
      (bytes & 15) !== 0 ||
      entries === 0 ||
      entries > CHAIN_PARTS_MAX
    ) {
      this.fault = FAULT_INDIRECT;
      return -1;
    }
    const tableAddress = (descriptor[descriptorAt + 1] >>> 0) * 4294967296 + (descriptor[descriptorAt] >>> 0);
    let words: Int32Array;
    let base: number;
    const at = memory.translate(tableAddress, bytes, DMA_READ);
    if (at >= 0 && (at & 3) === 0 && memory.hit.words.length !== 0) {
      words = memory.hit.words;
      base = at >>> 2;
    } else {
      words = this.#scratch ??= new Int32Array(CHAIN_PARTS_MAX * 4);
      base = 0;
      if (!memory.read(tableAddress, new Uint8Array(words.buffer), 0, bytes)) {
        this.fault = FAULT_INDIRECT;
        return -1;
      }
    }
    const { address, length, writeFrom } = batch;
    let write = -1;
    for (let i = 0; i < entries; i++) {
      const d = base + 4 * i;
      const size = words[d + 2];
      const flags = words[d + 3];
      address[parts] = (words[d + 1] >>> 0) * 4294967296 + (words[d] >>> 0);
      length[parts] = size >= 0 && size <= PART_MAX_BYTES ? size : PART_MAX_BYTES;
      if ((flags & WRITE_WORD) !== 0) {
        if (write < 0) write = parts;
      } else if (write >= 0) {
        this.fault = FAULT_ORDER;
        return -1;
      }
      if (size === 0 || (flags & INDIRECT_WORD) !== 0) {
        this.fault = size === 0 ? FAULT_EMPTY : FAULT_INDIRECT;
        return -1;
      }
      parts++;
    }
    writeFrom[chain] = write < 0 ? parts : write;
    return parts;
  }

  unfetch(batch: ChainBatch, from: number): void {
    let slots = 0;
    for (let i = from; i < batch.count; i++) slots += batch.slots[i];
    this.inFlight -= slots;
    this.#nextAvail -= slots;
    if (this.#nextAvail < 0) {
      this.#nextAvail += this.size;
      this.#availWrap = !this.#availWrap;
    }
    batch.count = from;
  }

  push(memory: GuestMemory, id: number, slots: number, bytes: number): void {
    const ring = this.#ring;
    this.inFlight -= slots;
    // A copy is brought up to date by fetch alone: what is held back here must not be overwritten.
    if (ring.mapped ? !ring.map(memory) : this.#heldAt < 0 && !ring.map(memory)) {
      this.fault = FAULT_RING_ADDRESS;
      return;
    }
    const index = this.#nextUsed;
    const at = ring.wordAt + 4 * index;
    const word = id | (this.#usedWrap ? AVAIL_WORD | USED_WORD : 0) | (bytes !== 0 ? WRITE_WORD : 0);
    ring.words[at + 2] = bytes;
    if (this.#heldAt < 0) {
      this.#heldAt = index;
      this.#heldWord = word;
      if (!ring.mapped) ring.push(memory, DESCRIPTOR_BYTES * index + 8, 4);
    } else {
      ring.words[at + 3] = word;
      if (!ring.mapped) ring.push(memory, DESCRIPTOR_BYTES * index + 8, 8);
    }
    this.#heldSlots += slots;
    let next = index + slots;
    if (next >= this.size) {
      next -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
    this.#nextUsed = next;
  }

  pushRun(
    memory: GuestMemory,
    ids: Int32Array,
    slots: Int32Array,
    written: Int32Array,
    from: number,
    to: number,
  ): void {
    const ring = this.#ring;
    if (from === to) return;
    this.push(memory, ids[from], slots[from], written[from]);
    if (!ring.mapped || this.#heldAt < 0) {
      for (let i = from + 1; i < to; i++) this.push(memory, ids[i], slots[i], written[i]);
      return;
    }
    const { words } = ring;
    const base = ring.wordAt;
    const { size } = this;
    let index = this.#nextUsed;
    let bits = this.#usedWrap ? AVAIL_WORD | USED_WORD : 0;
    let taken = 0;
    for (let i = from + 1; i < to; i++) {
      const at = base + 4 * index;
      words[at + 2] = written[i];
      words[at + 3] = ids[i] | bits | (written[i] !== 0 ? WRITE_WORD : 0);
      index += slots[i];
      taken += slots[i];
      if (index >= size) {
        index -= size;
        bits ^= AVAIL_WORD | USED_WORD;
      }
    }
    this.#nextUsed = index;
    this.#usedWrap = bits !== 0;
    this.#heldSlots += taken;
    this.inFlight -= taken;
  }

  publish(memory: GuestMemory): boolean {
    const held = this.#heldAt;
    if (held < 0) return false;
    const ring = this.#ring;
    const event = this.#driverEvent;
    if (!ring.map(memory) || !event.map(memory)) {
      this.fault = FAULT_RING_ADDRESS;
      return false;
    }
    // A full barrier, as above all else the flags must be seen last and the driver's wish be read after.
    Atomics.store(ring.words, ring.wordAt + 4 * held + 3, this.#heldWord);
    if (!ring.mapped) ring.push(memory, DESCRIPTOR_BYTES * held + 12, 4);
    const added = this.#heldSlots;
    this.#heldAt = -1;
    this.#heldSlots = 0;
    const fresh = this.#fresh;
    this.#fresh = false;
    const word = event.words[event.wordAt];
    const flags = (word >>> 16) & 3;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESC || !this.#eventIdx || fresh) return true;
    let offset = word & 0x7fff;
    if (((word & WRAP) !== 0) !== this.#usedWrap) offset -= this.size;
    return ((this.#nextUsed - offset - 1) & 0xffff) < (added & 0xffff);
  }

  suppressKicks(memory: GuestMemory): void {
    if (this.#kicksSuppressed || !this.#deviceEvent.map(memory)) return;
    this.#kicksSuppressed = true;
    const event = this.#deviceEvent;
    event.halves[event.halfAt + 1] = EVENT_DISABLE;
    event.push(memory, 2, 2);
  }

  requestKicks(memory: GuestMemory): boolean {
    if (this.fault !== 0) return false;
    const event = this.#deviceEvent;
    const ring = this.#ring;
    if (!event.map(memory) || !ring.map(memory)) {
      this.fault = FAULT_RING_ADDRESS;
      return false;
    }
    this.#kicksSuppressed = false;
    if (this.#eventIdx) event.halves[event.halfAt] = this.#nextAvail | (this.#availWrap ? WRAP : 0);
    Atomics.store(event.halves, event.halfAt + 1, this.#eventIdx ? EVENT_DESC : EVENT_ENABLE);
    event.push(memory, 0, 4);
    const control = ring.words[ring.wordAt + 4 * this.#nextAvail + 3];
    return (control & (AVAIL_WORD | USED_WORD)) === (this.#availWrap ? AVAIL_WORD : USED_WORD);
  }
}

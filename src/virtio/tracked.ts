/**
 * A virtqueue that knows which of its chains are in flight, for a transport that must be able to stop a ring and say where it goes on (vhost-user's GET_VRING_BASE):
 * it stands between the device and the real queue, and keeps for each id the slots that its chain takes.
 *
 *   rewind   a receive ring: what was fetched ahead and not filled was not fetched at all
 *   drain    a transmit ring: what is still lent out or waits is used, so that the driver loses no buffer
 *
 * Both end the queue's use; the device must not touch it again.
 *
 * With a ledger, what is in flight can be told after this process ended without a word.
 *
 * While guest memory has a dirty log, what the queue writes to its ring is marked in it: the whole of the part that it writes, which is a page or a few. Buffers are marked before the driver
 * is told, whose last ones GuestMemory still keeps.
 */

import type { DirtyLog } from '../pci/dirty-log.ts';
import type { GuestMemory } from '../pci/guest-memory.ts';
import { CHAIN_PARTS_MAX, type ChainBatch } from './chains.ts';
import type { QueueLayout, QueuePosition, VirtQueue } from './queue.ts';
import { DESCRIPTOR_BYTES } from './split.ts';

const WRAP = 0x8000;
const PACKED_IDS = 65_536;
const EVENT_BYTES = 4;
const USED_FIXED_BYTES = 6;
const USED_ENTRY_BYTES = 8;
/** `usedLogAddress` when writes to the used ring are not to be marked. */
export const NOT_LOGGED = -1;

export interface InFlightChain {
  readonly id: number;
  readonly slots: number;
}

/** Notes what is in flight where it outlives this process; each step is noted before or after the ring shows it, so that either state can be told from what is there. */
export interface Ledger {
  /** There was something to continue. */
  readonly continued: boolean;
  /** What was in flight when it was opened, in the order of fetch, and where the ring stands then. */
  readonly left: readonly InFlightChain[];
  readonly position: QueuePosition;
  /** `descriptors`: a packed chain's, as they lie in the ring. */
  fetched(id: number, slots: number, descriptors: DataView): void;
  unfetched(id: number): void;
  used(id: number): void;
  /** The driver is about to be shown all that was used up to `used` (QueuePosition). */
  publishing(used: number): void;
  published(): void;
}

export class TrackedQueue implements VirtQueue {
  readonly layout: QueueLayout;
  readonly size: number;
  readonly packed: boolean;
  readonly #queue: VirtQueue;
  /** Slots of the chain in flight with this id; 0: none. A split ring's ids are below its size. */
  readonly #slots: Uint16Array;
  /** Where the used ring (or device event suppression) lies in the dirty log's addresses; NOT_LOGGED: it is not marked. */
  usedLogAddress = NOT_LOGGED;

  readonly #ledger: Ledger | null;
  /** A packed chain as it lies in the ring, for the ledger. */
  readonly #descriptors: Uint8Array;
  readonly #descriptorView: DataView;

  constructor(queue: VirtQueue, ledger: Ledger | null = null) {
    this.#queue = queue;
    this.#ledger = ledger;
    this.#descriptors = new Uint8Array(ledger === null ? 0 : DESCRIPTOR_BYTES * CHAIN_PARTS_MAX);
    this.#descriptorView = new DataView(this.#descriptors.buffer);
    this.layout = queue.layout;
    this.size = queue.size;
    this.packed = queue.packed;
    this.#slots = new Uint16Array(queue.packed ? PACKED_IDS : queue.size);
  }

  get fault(): number {
    return this.#queue.fault;
  }

  set fault(fault: number) {
    this.#queue.fault = fault;
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  fetch(memory: GuestMemory, batch: ChainBatch, limit: number): number {
    let place = this.#ledger !== null && this.packed ? this.#queue.position().avail & ~WRAP : 0;
    const count = this.#queue.fetch(memory, batch, limit);
    const { id, slots } = batch;
    for (let i = 0; i < count; i++) this.#slots[id[i]] = slots[i];
    if (this.#ledger === null) return count;
    for (let i = 0; i < count; i++) {
      if (this.packed) place = this.#readDescriptors(memory, place, slots[i]);
      this.#ledger.fetched(id[i], slots[i], this.#descriptorView);
    }
    return count;
  }

  /** The descriptors of a packed chain, which may lie over the ring's end; returns the place behind them. */
  #readDescriptors(memory: GuestMemory, place: number, slots: number): number {
    for (let i = 0; i < slots; i++) {
      memory.read(
        this.layout.descriptors + DESCRIPTOR_BYTES * place,
        this.#descriptors,
        DESCRIPTOR_BYTES * i,
        DESCRIPTOR_BYTES,
      );
      place = place + 1 === this.size ? 0 : place + 1;
    }
    return place;
  }

  unfetch(batch: ChainBatch, from: number): void {
    for (let i = batch.count - 1; i >= from; i--) {
      this.#slots[batch.id[i]] = 0;
      this.#ledger?.unfetched(batch.id[i]);
    }
    this.#queue.unfetch(batch, from);
  }

  push(memory: GuestMemory, id: number, slots: number, bytes: number): void {
    this.#slots[id] = 0;
    this.#ledger?.used(id);
    this.#queue.push(memory, id, slots, bytes);
  }

  pushRun(
    memory: GuestMemory,
    ids: Int32Array,
    slots: Int32Array,
    written: Int32Array,
    from: number,
    to: number,
  ): void {
    for (let i = from; i < to; i++) this.#slots[ids[i]] = 0;
    if (this.#ledger !== null) for (let i = from; i < to; i++) this.#ledger.used(ids[i]);
    this.#queue.pushRun(memory, ids, slots, written, from, to);
  }

  publish(memory: GuestMemory): boolean {
    this.#ledger?.publishing(this.#queue.position().used);
    const wanted = this.#queue.publish(memory);
    this.#ledger?.published();
    if (memory.dirtyLog !== null) this.#mark(memory, memory.dirtyLog);
    return wanted;
  }

  requestKicks(memory: GuestMemory): boolean {
    const isThere = this.#queue.requestKicks(memory);
    if (memory.dirtyLog !== null) this.#mark(memory, memory.dirtyLog);
    return isThere;
  }

  suppressKicks(memory: GuestMemory): void {
    this.#queue.suppressKicks(memory);
    if (memory.dirtyLog !== null) this.#mark(memory, memory.dirtyLog);
  }

  #mark(memory: GuestMemory, log: DirtyLog): void {
    memory.settleLog();
    const { layout, size, packed } = this;
    if (packed) log.mark(layout.descriptors, DESCRIPTOR_BYTES * size);
    if (this.usedLogAddress !== NOT_LOGGED)
      log.mark(this.usedLogAddress, packed ? EVENT_BYTES : USED_FIXED_BYTES + USED_ENTRY_BYTES * size);
    log.tell();
  }

  position(): QueuePosition {
    return this.#queue.position();
  }

  /** The position before the chains in flight, which must be the last ones fetched. */
  rewind(): QueuePosition {
    if (this.#ledger !== null)
      for (let id = 0; id < this.#slots.length; id++) if (this.#slots[id] !== 0) this.#ledger.unfetched(id);
    const { avail, used } = this.#queue.position();
    const back = this.#queue.inFlight;
    if (!this.packed) return { avail: (avail - back) & 0xffff, used };
    let index = (avail & ~WRAP) - back;
    let wrap = avail & WRAP;
    if (index < 0) {
      index += this.size;
      wrap ^= WRAP;
    }
    return { avail: index | wrap, used };
  }

  /** Uses every chain in flight and shows it to the driver; returns how many there were. `publish` has said that the driver is to be told: `told`. */
  drain(memory: GuestMemory): { chains: number; told: boolean } {
    let chains = 0;
    for (let id = 0; id < this.#slots.length && this.#queue.inFlight > 0; id++) {
      const slots = this.#slots[id];
      if (slots === 0) continue;
      this.push(memory, id, slots, 0);
      chains++;
    }
    return { chains, told: this.publish(memory) };
  }
}

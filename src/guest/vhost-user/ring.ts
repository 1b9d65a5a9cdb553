/**
 * One virtqueue as the front-end describes it: size, addresses, base, and its eventfds. It is served while all of that is there, the front-end has enabled it and the features are known;
 * the session decides when to look (`ready`).
 *
 * Bases are the protocol's: for a split ring the next available index; for a packed one the next available place in bits 0 to 15 and the next used one
 * in bits 16 to 31, each with its wrap counter on top. Some front-ends (DPDK) know the available one only.
 */

import { readlinkSync } from 'node:fs';
import { type Handle, type HostIo, READABLE } from '../../host-io/host-io.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import type { Features } from '../../virtio/features.ts';
import { F_RING_PACKED } from '../../virtio/features.ts';
import { isLayoutValid, openQueue, type QueueLayout, type QueuePosition } from '../../virtio/queue.ts';
import { type Ledger, NOT_LOGGED, TrackedQueue } from '../../virtio/tracked.ts';
import { isRun, openLedger } from './inflight.ts';
import type { FrontEndMemory } from './memory.ts';

const USED_INDEX_OFFSET = 2;

/** 0, or an eventfd; anything else is closed: nothing else could be read and written without care. */
export function takeEventFd(hostIo: HostIo, fd: Handle): boolean {
  if (fd === 0) return true;
  try {
    if (readlinkSync(`/proc/self/fd/${hostIo.fdOf(fd)}`) === 'anon_inode:[eventfd]') return true;
  } catch {
    // Not to be found out: not taken.
  }
  hostIo.close(fd);
  return false;
}

export class Ring {
  readonly index: number;
  size = 0;
  /** The front-end's addresses; null: not told. */
  addresses: { descriptors: number; used: number; available: number } | null = null;
  /** Where its used ring is marked in the dirty log; NOT_LOGGED: nowhere. */
  usedLogAddress = NOT_LOGGED;
  base = 0;
  enabled = false;
  /** SET_VRING_KICK came, be it without a descriptor. */
  kickable = false;
  queue: TrackedQueue | null = null;
  readonly #hostIo: HostIo;
  #kick: Handle = 0;
  #call: Handle = 0;
  #error: Handle = 0;

  constructor(index: number, hostIo: HostIo) {
    this.index = index;
    this.#hostIo = hostIo;
  }

  /** Whether the front-end has told all there is to tell. */
  get ready(): boolean {
    return this.enabled && this.kickable && this.size > 0 && this.addresses !== null;
  }

  /** Takes the kick eventfd (0: none), or closes it and returns false when it is none. */
  setKick(fd: Handle, kicked: () => void): boolean {
    if (!takeEventFd(this.#hostIo, fd)) return false;
    this.#hostIo.close(this.#kick);
    this.#kick = fd;
    this.kickable = true;
    if (fd === 0) return true;
    this.#hostIo.watch(fd, READABLE, () => {
      this.#hostIo.drain(fd);
      kicked();
    });
    return true;
  }

  setCall(fd: Handle): boolean {
    if (!takeEventFd(this.#hostIo, fd)) return false;
    this.#hostIo.close(this.#call);
    this.#call = fd;
    return true;
  }

  setError(fd: Handle): boolean {
    if (!takeEventFd(this.#hostIo, fd)) return false;
    this.#hostIo.close(this.#error);
    this.#error = fd;
    return true;
  }

  interrupt(): void {
    if (this.#call !== 0) this.#hostIo.signal(this.#call);
  }

  tellError(): void {
    if (this.#error !== 0) this.#hostIo.signal(this.#error);
  }

  /** Where the ring lies in guest-physical addresses; null when that is nowhere, or no ring can be so. */
  layout(memory: FrontEndMemory, packed: boolean): QueueLayout | null {
    if (this.addresses === null) return null;
    const layout = {
      size: this.size,
      descriptors: memory.guestAddress(this.addresses.descriptors),
      driver: memory.guestAddress(this.addresses.available),
      device: memory.guestAddress(this.addresses.used),
    };
    if (layout.descriptors < 0 || layout.driver < 0 || layout.device < 0) return null;
    return isLayoutValid(layout, packed) ? layout : null;
  }

  /** Opens the queue where it stands; the caller serves it. `region`: where what is in flight is noted, and what a back-end before us noted is continued. */
  open(
    layout: QueueLayout,
    features: Features,
    memory: GuestMemory,
    region: Uint8Array | null,
  ): TrackedQueue {
    const packed = features.has(F_RING_PACKED);
    const position = this.#position(layout, packed, memory);
    const ledger = region === null ? null : openLedger(region, layout, packed, position.used, memory);
    this.queue =
      ledger?.continued === true
        ? this.#continue(layout, features, memory, ledger)
        : new TrackedQueue(openQueue(layout, features, position), ledger);
    this.queue.usedLogAddress = this.usedLogAddress;
    return this.queue;
  }

  /** What was in flight is fetched again where the ring still holds it in order; else it goes back to the driver as it is: the network loses frames, and no buffer. */
  #continue(layout: QueueLayout, features: Features, memory: GuestMemory, ledger: Ledger): TrackedQueue {
    const { left, position } = ledger;
    if (isRun(left, layout, features.has(F_RING_PACKED), position.used, memory)) {
      for (const { id } of left) ledger.unfetched(id);
      const { used } = position;
      return new TrackedQueue(openQueue(layout, features, { avail: used, used }), ledger);
    }
    const slots = left.reduce((sum, chain) => sum + chain.slots, 0);
    const queue = new TrackedQueue(openQueue(layout, features, position, slots), ledger);
    for (const chain of left) queue.push(memory, chain.id, chain.slots, 0);
    if (queue.publish(memory)) this.interrupt();
    return queue;
  }

  /** Marks writes to the used ring there from now on. */
  logUsed(address: number): void {
    this.usedLogAddress = address;
    if (this.queue !== null) this.queue.usedLogAddress = address;
  }

  #position(layout: QueueLayout, packed: boolean, memory: GuestMemory): QueuePosition {
    // DPDK tells the available place alone, and 0 for the used one: nothing is in flight then.
    if (packed) return { avail: this.base & 0xffff, used: this.base >>> 16 || this.base & 0xffff };
    // What was used last stands in the ring.
    const used = memory.u16(layout.device + USED_INDEX_OFFSET);
    return { avail: this.base & 0xffff, used: Math.max(used, 0) };
  }

  /** Keeps where the closed queue stood as the next base. */
  keepBase({ avail, used }: QueuePosition, packed: boolean): void {
    this.base = packed ? (avail | (used << 16)) >>> 0 : avail;
  }

  /** As before the front-end spoke of it; the queue must be closed. */
  reset(): void {
    for (const fd of [this.#kick, this.#call, this.#error]) this.#hostIo.close(fd);
    this.#kick = 0;
    this.#call = 0;
    this.#error = 0;
    this.size = 0;
    this.addresses = null;
    this.usedLogAddress = NOT_LOGGED;
    this.base = 0;
    this.enabled = false;
    this.kickable = false;
  }

  /** GET_VRING_BASE stops a ring until it is given a kick again. */
  stop(): void {
    this.#hostIo.close(this.#kick);
    this.#kick = 0;
    this.kickable = false;
  }
}

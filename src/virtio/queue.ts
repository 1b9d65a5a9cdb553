/**
 * A virtqueue from the device's side (virtio 1.3, sections 2.6 to 2.8), the same for every transport: the PCI model has one for each of its
 * queues, a vhost-user back-end will. It gets guest memory as an argument and owns no notification: it says whether the driver wants one.
 *
 *   fetch    available chains into a ChainBatch, each descriptor read once and checked
 *   unfetch  the last ones back: as if they had not been fetched
 *   push     a chain was used; in any order (a device that negotiated IN_ORDER keeps to the order of fetch)
 *   publish  shows the driver all that was pushed; true: notify it
 *   requestKicks / suppressKicks   whether the driver is to notify us
 *
 * A ring that breaks the rules (fault != 0) hands out nothing from then on. Every loop is bounded by the ring's size or by CHAIN_PARTS_MAX.
 */

import type { GuestMemory } from '../pci/guest-memory.ts';
import type { ChainBatch } from './chains.ts';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, type Features } from './features.ts';
import { PackedQueue } from './packed.ts';
import { SplitQueue } from './split.ts';

export interface QueueLayout {
  /** Descriptors: a power of two up to 32768 for a split ring, any number up to that for a packed one. */
  readonly size: number;
  /** Descriptor table; the ring itself when packed. Aligned to 16. */
  readonly descriptors: number;
  /** Available ring (aligned to 2), or driver event suppression (4). */
  readonly driver: number;
  /** Used ring, or device event suppression; aligned to 4. */
  readonly device: number;
}

/** Where a queue stands: enough to go on in another process. */
export interface QueuePosition {
  /** Next to fetch, and next to use. For a packed ring both are the ring's index, with the wrap counter in bit 15. */
  readonly avail: number;
  readonly used: number;
}

export interface VirtQueue {
  readonly layout: QueueLayout;
  readonly size: number;
  readonly packed: boolean;
  /** FAULT_*. */
  fault: number;
  /** Descriptors that were fetched and not used. */
  readonly inFlight: number;
  /** Fills `batch` with up to `limit` (at most CHAINS_MAX) available chains; returns how many. */
  fetch(memory: GuestMemory, batch: ChainBatch, limit: number): number;
  /** Gives chains [from, count) of the batch back; they must be the last ones fetched. */
  unfetch(batch: ChainBatch, from: number): void;
  /** The chain was used; `bytes`: written to its buffers. */
  push(memory: GuestMemory, id: number, slots: number, bytes: number): void;
  /** `push` for chains [from, to) of these arrays; `written`: bytes. */
  pushRun(
    memory: GuestMemory,
    ids: Int32Array,
    slots: Int32Array,
    written: Int32Array,
    from: number,
    to: number,
  ): void;
  publish(memory: GuestMemory): boolean;
  /** Asks to be kicked for the next available chain. True: there is one already. */
  requestKicks(memory: GuestMemory): boolean;
  suppressKicks(memory: GuestMemory): void;
  /** Where the queue stands if what is in flight counts as fetched. */
  position(): QueuePosition;
}

/** Whether a layout can be a queue: size, and alignments of section 2.6 or 2.8. */
export function isLayoutValid(layout: QueueLayout, packed: boolean): boolean {
  const { size, descriptors, driver, device } = layout;
  if (size < 1 || size > 32768 || (!packed && (size & (size - 1)) !== 0)) return false;
  return descriptors % 16 === 0 && driver % (packed ? 4 : 2) === 0 && device % 4 === 0;
}

/** Opens a queue of a valid layout, as the negotiated features want it; `position` continues one, and `inFlight` descriptors of it. */
export function openQueue(
  layout: QueueLayout,
  features: Features,
  position?: QueuePosition,
  inFlight = 0,
): VirtQueue {
  const indirect = features.has(F_INDIRECT_DESC);
  const eventIdx = features.has(F_EVENT_IDX);
  return features.has(F_RING_PACKED)
    ? new PackedQueue(layout, indirect, eventIdx, position, inFlight)
    : new SplitQueue(layout, indirect, eventIdx, position, inFlight);
}

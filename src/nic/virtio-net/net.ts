/** What the parts of a virtio network device share: its surroundings, its counters, and what the driver negotiated. */

import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import type { RxFilter } from '../rx-filter.ts';
import type { VirtioNetStats } from './stats.ts';

export interface NetContext {
  readonly memory: GuestMemory;
  readonly pool: FramePool;
  readonly loop: Loop;
  readonly stats: VirtioNetStats;
  readonly filter: RxFilter;
  /** Queues are to be served. */
  live: boolean;
  /** Bytes of the header in front of each packet. */
  headerBytes: number;
  /** A received frame may take several buffers. */
  mergeable: boolean;
  /** Received packets carry their hash. */
  hashReport: boolean;
  /** Used buffers go back in the order they were made available. */
  inOrder: boolean;
  /** The driver relies on it (IN_ORDER); else only as long as none waits for too long. */
  strictOrder: boolean;
  /** The driver is in another process: what it does meanwhile is seen without its kick. */
  driverRunsBeside: boolean;
  /** ACCEPT_* that the driver may ask of us, and those that it takes. */
  hostOffloads: number;
  guestOffloads: number;
  /** A ring broke the rules (virtio FAULT_*). */
  broken(fault: number): void;
}

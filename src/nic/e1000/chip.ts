/** What the parts of one e1000 share: the register file and the things around it. Built by index.ts, handed to tx.ts and rx.ts. */

import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import type { Adapt } from '../../core/port.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import type { RxFilter } from '../rx-filter.ts';
import type { Interrupts } from './interrupts.ts';
import type { E1000Stats, HardwareStats } from './stats.ts';

export interface Chip {
  /** BAR 0's registers, by word. */
  readonly regs: Int32Array;
  readonly memory: GuestMemory;
  readonly pool: FramePool;
  readonly loop: Loop;
  readonly adapt: Adapt;
  readonly interrupts: Interrupts;
  readonly filter: RxFilter;
  readonly stats: E1000Stats;
  readonly hardware: HardwareStats;
  /** Bus mastering is on. */
  readonly dmaEnabled: boolean;
  /** Frames that are sent come back instead: RCTL.LBM or PHY loopback. */
  readonly loopback: boolean;
}

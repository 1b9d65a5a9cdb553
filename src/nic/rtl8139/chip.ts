/** What the parts of one rtl8139 share: the register file and the things around it. Built by index.ts, handed to the others. */

import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import type { Adapt } from '../../core/port.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import type { RxFilter } from '../rx-filter.ts';
import type { Interrupts } from './interrupts.ts';
import type { Rtl8139Stats, Tally } from './stats.ts';

export interface Chip {
  /** The register file by bytes, 16-bit halves and words. */
  readonly bytes: Uint8Array;
  readonly halves: Uint16Array;
  readonly words: Int32Array;
  readonly memory: GuestMemory;
  readonly pool: FramePool;
  readonly loop: Loop;
  readonly adapt: Adapt;
  readonly interrupts: Interrupts;
  readonly filter: RxFilter;
  readonly stats: Rtl8139Stats;
  readonly tally: Tally;
  /** Bus mastering is on. */
  readonly dmaEnabled: boolean;
  /** Frames that are sent come back instead: TCR.LBK or PHY loopback. */
  readonly loopback: boolean;
  /** pci/device-host.ts */
  readonly writesAreLate: boolean;
  /** A DMA address was not RAM: SERR, and a master abort in PCI status. */
  badAddress(): void;
}

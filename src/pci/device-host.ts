/**
 * What a device model sees of the machine around it, and all it sees: guest memory, time, its interrupt pins. A transport (probe,
 * v86, vfio-user, qtest, an embedder) implements it; the device never holds the machine.
 */

import type { Random } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { Loop } from '../core/loop.ts';
import type { GuestMemory } from './guest-memory.ts';

export interface DeviceHost {
  /** RAM as the device may reach it by DMA; never another device's registers. */
  readonly memory: GuestMemory;
  readonly loop: Loop;
  readonly random: Random;
  readonly log: Logger;
  /** The level of the function's INTx pin changed. */
  setIntx(level: boolean): void;
  /** The function signals MSI or MSI-X vector `vector`; on a PC that is a 32-bit write of `data` to `address`. */
  signalMsi(vector: number, address: number, data: number): void;
}

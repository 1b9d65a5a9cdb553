/**
 * What a device model sees of the machine around it, and all it sees: guest memory, time, its interrupt pins. A transport (probe,
 * v86, vfio-user, qtest, an embedder) implements it; the device never holds the machine.
 */

import type { Random } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { Loop } from '../core/loop.ts';
import type { GuestMemory } from './guest-memory.ts';

/** Guest RAM that lies in a file: [offset, offset + length) of what `handle` (host-io) names. */
export interface SharedRange {
  readonly address: number;
  readonly length: number;
  readonly handle: number;
  readonly offset: number;
}

/** The part of guest RAM that other programs can be let into. */
export interface SharedRam {
  /** By address, without overlap. */
  readonly ranges: readonly SharedRange[];
  /** Told after ranges came or went. */
  onChanged: (() => void) | null;
}

export interface DeviceHost {
  /** RAM as the device may reach it by DMA; never another device's registers. */
  readonly memory: GuestMemory;
  /** Absent: no RAM of this machine lies in files. */
  readonly sharedRam?: SharedRam;
  /**
   * Register writes come later than the guest made them: what its memory shows may be newer (on a PCI bus it never is: a device's reads of memory push writes in front
   * of them). A register read comes after all writes before it.
   */
  readonly writesAreLate?: boolean;
  readonly loop: Loop;
  readonly random: Random;
  readonly log: Logger;
  /** The level of the function's INTx pin changed. */
  setIntx(level: boolean): void;
  /** The function signals MSI or MSI-X vector `vector`; on a PC that is a 32-bit write of `data` to `address`. */
  signalMsi(vector: number, address: number, data: number): void;
}

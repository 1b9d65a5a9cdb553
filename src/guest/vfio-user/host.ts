/**
 * What a NIC behind vfio-user sees of its machine: the client's memory, as far as the client has mapped it, and its interrupts. It lives as long as
 * the NIC; clients come and go behind it. Without one there is no memory and nobody hears an interrupt; the pin's level is remembered.
 */

import type { Random } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import type { DeviceHost, SharedRam, SharedRange } from '../../pci/device-host.ts';
import { GuestMemory } from '../../pci/guest-memory.ts';
import type { Interrupts } from './interrupts.ts';

/** What the client has mapped by descriptors. */
export class ClientRam implements SharedRam {
  onChanged: (() => void) | null = null;
  /** The ranges of the client that is there; null: there is none. */
  source: (() => SharedRange[]) | null = null;

  get ranges(): readonly SharedRange[] {
    return this.source?.() ?? [];
  }
}

export class VfioUserHost implements DeviceHost {
  readonly memory: GuestMemory;
  readonly sharedRam = new ClientRam();
  /** The client posts them on the socket, and its memory is ours at once. */
  readonly writesAreLate = true;
  readonly loop: Loop;
  readonly random: Random;
  readonly log: Logger;
  /** Where interrupts go; set by the server while a client is there. */
  interrupts: Interrupts | null = null;
  intxLevel = false;

  constructor(options: { pool: FramePool; loop: Loop; random: Random; log: Logger }) {
    this.memory = new GuestMemory(options.pool);
    this.loop = options.loop;
    this.random = options.random;
    this.log = options.log;
  }

  setIntx(level: boolean): void {
    this.intxLevel = level;
    this.interrupts?.setIntx(level);
  }

  signalMsi(vector: number, _address: number, _data: number): void {
    this.interrupts?.signalMessage(vector);
  }
}

/** What a NIC behind vhost-user sees of its machine: the front-end's memory, as far as it was passed. Pins and messages lead nowhere: a ring's own eventfd tells the driver. */

import type { Random } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import type { DeviceHost } from '../../pci/device-host.ts';
import { GuestMemory } from '../../pci/guest-memory.ts';

export class VhostUserHost implements DeviceHost {
  readonly memory: GuestMemory;
  readonly pool: FramePool;
  readonly loop: Loop;
  readonly random: Random;
  readonly log: Logger;

  constructor(options: { pool: FramePool; loop: Loop; random: Random; log: Logger }) {
    this.memory = new GuestMemory(options.pool);
    this.pool = options.pool;
    this.loop = options.loop;
    this.random = options.random;
    this.log = options.log;
  }

  setIntx(): void {}

  signalMsi(): void {}
}

/** A back-end with a virtio-net on a socket of its own, a recorder at the other end of its link, and front-ends; `end` checks that nothing is left. */

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { readDevice } from '../../../src/config/devices/index.ts';
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { Loop } from '../../../src/core/loop.ts';
import { FramePool } from '../../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../../src/core/port.ts';
import { VhostUserBackend, VhostUserHost } from '../../../src/guest/vhost-user/index.ts';
import { NativeHostIo } from '../../../src/host-io/native.ts';
import { adapt } from '../../../src/nic/offload.ts';
import { VirtioNet } from '../../../src/nic/virtio-net/index.ts';
import { Recorder } from '../../lib/test-machine.ts';
import { FrontEnd } from './front-end.ts';

const BARE = 256;

export class Bench {
  readonly pool = new FramePool({ smallSlots: 512, largeSlots: 16, bareRecords: BARE, debug: true });
  readonly clock = new VirtualClock();
  readonly loop = new Loop(this.clock);
  readonly hostIo = new NativeHostIo();
  readonly clientIo = new NativeHostIo();
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-vhost-'));
  readonly path = join(this.folder, 'vm.sock');
  readonly host: VhostUserHost;
  readonly device: VirtioNet;
  readonly peer: Recorder;
  readonly backend: VhostUserBackend;
  readonly #frontEnds: FrontEnd[] = [];

  constructor(options: { listen?: boolean; properties?: object } = {}) {
    const { pool, loop, clock, hostIo, path } = this;
    hostIo.attachPool(pool);
    hostIo.drive(loop);
    const link = { pool, loop, clock, adapt };
    this.host = new VhostUserHost({ pool, loop, random: seededRandom(1), log: silentLogger });
    const config = readDevice({ driver: 'virtio-net-pci', packed: true, ...options.properties } as never);
    if (config.model !== 'virtio-net') throw new Error('not a virtio-net');
    const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
    this.device = new VirtioNet({ host: this.host, link, name: 'net0' }, { ...config, mac });
    this.peer = new Recorder(link, ACCEPT_ALL);
    Port.connect(this.device.ports[0]!, this.peer.port);
    this.backend = new VhostUserBackend({
      path,
      listen: options.listen ?? true,
      device: this.device,
      host: this.host,
      hostIo,
      loop,
      log: silentLogger,
    });
  }

  connect(ramFd?: number): FrontEnd {
    return this.add(this.clientIo.unixConnect(this.path), ramFd);
  }

  add(handle: number, ramFd?: number): FrontEnd {
    const frontEnd = new FrontEnd(this.clientIo, handle, ramFd);
    this.#frontEnds.push(frontEnd);
    return frontEnd;
  }

  /** Waits, without a clock, until what is asked for holds. */
  async until(holds: () => boolean): Promise<void> {
    for (let turns = 0; !holds(); turns++) {
      if (turns > 100_000) throw new Error('it never came to hold');
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  /** Handles of the back-end's side. */
  get handles(): number {
    return this.hostIo.stats().openHandles;
  }

  end(): void {
    for (const frontEnd of this.#frontEnds) frontEnd.close();
    this.backend.close();
    this.device.close();
    this.peer.letGo();
    this.loop.runUntil(this.clock.nowNs());
    expect(this.handles).toBe(0);
    expect(this.host.memory.ranges).toEqual([]);
    expect(this.pool.free).toBe(this.pool.capacity);
    expect(this.pool.freeBare).toBe(BARE);
    expect(readdirSync(this.folder)).toEqual([]);
    this.hostIo.shutdown();
    this.clientIo.shutdown();
    rmSync(this.folder, { recursive: true });
  }
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

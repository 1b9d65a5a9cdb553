/** A server with the test device on a socket of its own, and a client's half of the host; `end` checks that nothing is left open. */

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { Loop } from '../../../src/core/loop.ts';
import { FramePool } from '../../../src/core/pool.ts';
import { VfioUserHost, VfioUserServer } from '../../../src/guest/vfio-user/index.ts';
import { NativeHostIo } from '../../../src/host-io/native.ts';
import { VfioClient } from './client.ts';
import { TestFunction } from './device.ts';

export class Bench {
  readonly pool = new FramePool({ smallSlots: 16, largeSlots: 2, bareRecords: 16, debug: true });
  readonly loop = new Loop(new VirtualClock());
  readonly hostIo = new NativeHostIo();
  readonly clientIo = new NativeHostIo();
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-vfio-'));
  readonly path = join(this.folder, 'nic.sock');
  readonly host: VfioUserHost;
  readonly device: TestFunction;
  readonly server: VfioUserServer;
  readonly #clients: VfioClient[] = [];

  constructor() {
    const { pool, loop, hostIo, path } = this;
    hostIo.attachPool(pool);
    hostIo.drive(loop);
    this.host = new VfioUserHost({ pool, loop, random: seededRandom(1), log: silentLogger });
    this.device = new TestFunction(this.host);
    this.server = new VfioUserServer({
      path,
      function: this.device,
      host: this.host,
      hostIo,
      loop,
      log: silentLogger,
    });
  }

  /** A client that has negotiated. */
  async connect(): Promise<VfioClient> {
    const client = this.connectRaw();
    await client.negotiate();
    return client;
  }

  connectRaw(): VfioClient {
    const client = new VfioClient(this.clientIo, this.path);
    this.#clients.push(client);
    return client;
  }

  /** A client leaves and the server has noticed: a new one has its turn. */
  async replace(client: VfioClient): Promise<VfioClient> {
    client.close();
    return this.connect();
  }

  /** Handles the server's side holds: 1 is the listening socket, 2 with a client. */
  get serverHandles(): number {
    return this.hostIo.stats().openHandles;
  }

  end(): void {
    for (const client of this.#clients) client.close();
    this.server.close();
    expect(this.serverHandles).toBe(0);
    expect(this.host.memory.ranges).toEqual([]);
    expect(this.pool.free).toBe(this.pool.capacity);
    expect(this.pool.freeBare).toBe(16);
    expect(readdirSync(this.folder)).toEqual([]);
    this.hostIo.shutdown();
    this.clientIo.shutdown();
    rmSync(this.folder, { recursive: true });
  }
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

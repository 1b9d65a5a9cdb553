/**
 * Real backends on the host's loopback, on a virtual clock. Nothing sleeps: `settle` does all that is ready now, `until` does so until something holds.
 */

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Backend, BackendContext, BackendTable } from '../../src/backends/backend.ts';
import { openFrom } from '../../src/backends/backend.ts';
import { createBackends } from '../../src/backends/index.ts';
import { nodeServices } from '../../src/backends/node-services.ts';
import type { Services } from '../../src/backends/services.ts';
import { readNetdev } from '../../src/config/netdevs/index.ts';
import type { Random } from '../../src/core/clock.ts';
import { seededRandom } from '../../src/core/clock.ts';
import { HostIoError } from '../../src/core/errors.ts';
import { silentLogger } from '../../src/core/log.ts';
import type { PoolOptions } from '../../src/core/pool.ts';
import { Port } from '../../src/core/port.ts';
import type { Handle } from '../../src/host-io/host-io.ts';
import { createNativeHostIo, type NativeHostIo } from '../../src/host-io/native.ts';
import { createPortableHostIo } from '../../src/host-io/portable/index.ts';
import { descriptorsSince, openDescriptors, turn } from '../host-io/lab.ts';
import { RecordingClient, type TestContext, testContext } from '../lib/context.ts';

export const BARE_RECORDS = 1024;

export interface LabOptions {
  pool?: PoolOptions;
  services?: Partial<Services>;
  random?: Random;
  /** Host I/O without the addon: everything then takes turns of the event loop. */
  portable?: boolean;
  /** A context that a suite has made. */
  context?: TestContext;
}

export interface Told {
  name: string;
  data: Record<string, unknown>;
}

export class BackendLab {
  readonly hostIo: NativeHostIo;
  readonly link: TestContext;
  readonly context: BackendContext;
  readonly table: BackendTable;
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-backends-'));
  readonly events: Told[] = [];
  /** What an operator is warned of, and what is told as news. */
  readonly logged: string[] = [];
  readonly told: string[] = [];
  readonly passedFds = new Map<string, Handle>();
  readonly #descriptors: readonly string[];
  readonly #backends: Backend[] = [];
  readonly #peers: RecordingClient[] = [];
  #count = 0;

  constructor(options: LabOptions = {}) {
    this.#descriptors = openDescriptors();
    this.hostIo = options.portable ? portableHostIo() : createNativeHostIo();
    this.link = options.context ?? testContext({ bareRecords: BARE_RECORDS, ...options.pool });
    const log = (_details: object, message: string): void => {
      this.logged.push(message);
    };
    this.context = {
      ...this.link,
      hostIo: this.hostIo,
      random: options.random ?? seededRandom(1),
      log: {
        ...silentLogger,
        warn: log,
        error: log,
        info: (_details: object, message: string): void => {
          this.told.push(message);
        },
      },
      emit: (name, data) => this.events.push({ name, data }),
      takeFd: (name) => {
        const handle = this.passedFds.get(name);
        this.passedFds.delete(name);
        return handle;
      },
    };
    this.table = createBackends({ ...nodeServices, ...options.services });
    this.hostIo.attachPool(this.link.pool);
    this.hostIo.drive(this.link.loop);
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Opens a backend from options as JSON has them; `id` may be left out. */
  async open(type: string, options: Record<string, unknown> = {}): Promise<Backend> {
    const opened = openFrom(
      this.table,
      readNetdev({ type, id: `n${this.#count++}`, ...options }),
      this.context,
    );
    if (opened === undefined) throw new Error(`no backend of type ${type}`);
    const backend = await opened;
    this.#backends.push(backend);
    return backend;
  }

  /** Takes care of a backend that the test made. */
  adopt(backend: Backend): Backend {
    this.#backends.push(backend);
    return backend;
  }

  /** The same as open, and what an attempt that must fail says. */
  async refusal(type: string, options: Record<string, unknown>): Promise<string> {
    const before = this.hostIo.stats().openHandles;
    let error: Error | undefined;
    void this.open(type, options).then(
      () => {
        error = new Error('it was opened');
      },
      (reason: Error) => {
        error = reason;
      },
    );
    await this.untilLater(() => error !== undefined);
    expect(this.hostIo.stats().openHandles, 'handles of a netdev that was not made').toBe(before);
    return error!.message;
  }

  /** Closes a backend before the end. */
  forget(backend: Backend): void {
    backend.close();
    this.#backends.splice(this.#backends.indexOf(backend), 1);
  }

  /** A client at the other end of a backend's port. */
  guest(backend: Backend, queue = 0): RecordingClient {
    const client = new RecordingClient(this.link, `guest${this.#peers.length}`, 'nic');
    this.#peers.push(client);
    Port.connect(client.port, backend.ports[queue]!);
    return client;
  }

  /** Does what is ready now, until nothing is. */
  settle(): void {
    for (let quiet = 0, looks = 0; quiet < 3; looks++) {
      if (looks > 100_000) throw new Error('it never settles');
      const told = this.hostIo.look();
      this.link.loop.runUntil(this.link.clock.nowNs());
      quiet = told > 0 ? 0 : quiet + 1;
    }
  }

  /** Lets the event loop turn, and does what is ready, until `holds`. */
  async until(holds: () => boolean, what = 'what the test waits for'): Promise<void> {
    for (let turns = 0; turns < 50_000; turns++) {
      this.settle();
      if (holds()) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
    throw new Error(`${what} did not come; told: ${JSON.stringify(this.events)} ${this.logged.join('; ')}`);
  }

  /** The same with time going by, `stepNs` whenever many turns brought nothing. */
  async untilLater(holds: () => boolean, stepNs = 100e6): Promise<void> {
    for (let turns = 1; !holds(); turns++) {
      if (turns > 200_000)
        throw new Error(`it did not come in ${this.link.clock.nowNs() / 1e9} s of virtual time`);
      this.settle();
      if (turns % 300 === 0) this.link.loop.runUntil(this.link.clock.nowNs() + stepNs);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Lets virtual time pass. */
  async pass(ns: number): Promise<void> {
    this.link.loop.runUntil(this.link.clock.nowNs() + ns);
    await new Promise((resolve) => setImmediate(resolve));
    this.settle();
  }

  /** Closes everything and checks that nothing is left: no frame, no descriptor, no file. */
  async end(): Promise<void> {
    for (const peer of this.#peers) peer.close();
    for (const backend of this.#backends) {
      for (const port of backend.ports) port.disconnect();
      backend.close();
      backend.close();
    }
    this.link.loop.runUntil(this.link.clock.nowNs());
    const left = this.hostIo.stats().openHandles;
    this.hostIo.shutdown();
    const { pool } = this.link;
    // Node closes its own sockets in later turns.
    for (let turns = 0; turns < 500 && descriptorsSince(this.#descriptors).length > 0; turns++) await turn();
    expect({
      handles: left,
      slots: pool.capacity - pool.free,
      descriptors: descriptorsSince(this.#descriptors),
      files: readdirSync(this.folder),
    }).toEqual({
      handles: 0,
      slots: 0,
      descriptors: [],
      files: [],
    });
    rmSync(this.folder, { recursive: true });
  }
}

/** The portable implementation, with what this folder asks of the native one beside. */
function portableHostIo(): NativeHostIo {
  const portable = createPortableHostIo();
  const extra = { look: () => 0, stats: () => ({ openHandles: 0 }) };
  return Object.assign(portable, extra) as unknown as NativeHostIo;
}

let nextPort = 20_000 + ((process.pid * 131) % 10_000);

/** Ports of this machine, UDP and TCP, that are free and that the kernel gives to nobody who does not ask for them by number. */
export function freePorts(lab: BackendLab, count: number): number[] {
  const ports: number[] = [];
  while (ports.length < count) {
    const local = { address: '127.0.0.1', port: nextPort++ };
    if (nextPort > 32_000) nextPort = 20_000;
    try {
      lab.hostIo.close(lab.hostIo.udpOpen({ local }));
      lab.hostIo.close(lab.hostIo.tcpListen(local));
      ports.push(local.port);
    } catch (error) {
      if (!(error instanceof HostIoError)) throw error;
    }
  }
  return ports;
}

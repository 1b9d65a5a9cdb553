/**
 * A NIC's state saved in the middle of a transfer and restored into another process: the guest (the probe), its RAM and its web server stay here, the NIC is in one child
 * after another. Each transfer is cut once, half way, and must end with the right hash.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { nodeServices } from '../../../src/backends/node-services.ts';
import { streamBackend } from '../../../src/backends/stream.ts';
import { openUser } from '../../../src/backends/user/index.ts';
import { type ProbeConfig, parseGuest } from '../../../src/config/guest.ts';
import { SystemClock, seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { ProbeMachine } from '../../../src/guest/probe/machine.ts';
import { ProbeGuest, type ProbeNic } from '../../../src/guest/probe/probe.ts';
import type { ProbeResult, Step } from '../../../src/guest/probe/report.ts';
import { READABLE } from '../../../src/host-io/host-io.ts';
import { NativeHostIo } from '../../../src/host-io/native.ts';
import { openRamFile } from '../../../src/host-io/ram-file.ts';
import { nodeUserServices } from '../../../src/host-io/user-services.ts';
import { Network } from '../../../src/network/network.ts';
import { nics } from '../../../src/nic/index.ts';
import {
  ANSWERS,
  GuestEnd,
  INTERRUPTS,
  LOAD,
  MAILBOX_BYTES,
  READ_BAR,
  READ_CONFIG,
  REQUESTS,
  SAVE,
  WRITE_BAR,
  WRITE_CONFIG,
} from './mailbox.ts';

/** So long that every NIC has its part to carry; what the last one receives are acknowledgements alone, 70 to 110 frames. */
const FILE_BYTES = 33_554_467;
const PROGRAM = fileURLToPath(new URL('nic-process.ts', import.meta.url));

/** A NIC in a child process. */
class Seat {
  readonly mailbox: GuestEnd;
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  readonly #close: () => void;

  private constructor(child: ChildProcess, mailbox: GuestEnd, close: () => void) {
    this.child = child;
    this.mailbox = mailbox;
    this.#close = close;
    this.ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
  }

  static async make(world: World, name: string): Promise<Seat> {
    const path = join(world.folder, name);
    const addr = { type: 'unix', path } as const;
    await world.network.addNetdev({ type: 'stream', id: name, server: true, addr });
    await world.network.addNetdev({ type: 'hubport', id: `h-${name}`, hubid: 0, netdev: name });
    const page = openRamFile(world.hostIo, MAILBOX_BYTES);
    execFileSync(
      'mkfifo',
      [REQUESTS, ANSWERS, INTERRUPTS].map((suffix) => path + suffix),
    );
    const ranges = world.machine.sharedRam!.ranges;
    const args = ['--import', 'tsx', PROGRAM, JSON.stringify(world.device), path, world.stateFile];
    args.push(...ranges.map(({ address, length }) => `${address}:${length}`));
    const child = spawn(process.execPath, args, {
      stdio: [
        'ignore',
        'inherit',
        'inherit',
        ...ranges.map(({ handle }) => world.hostIo.fdOf(handle)),
        world.hostIo.fdOf(page.handle),
        'ipc',
      ],
    });
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => resolve());
      child.once('exit', (code) => reject(new Error(`the NIC's process ended with ${code}`)));
    });
    const mailbox = new GuestEnd(page.bytes, path);
    const watched = world.hostIo.adopt(mailbox.interrupts);
    const seat = new Seat(child, mailbox, () => {
      world.hostIo.close(watched);
      mailbox.close();
      page.close();
    });
    world.hostIo.watch(watched, READABLE, () => {
      mailbox.heard();
      if (world.seat === seat) world.look();
    });
    return seat;
  }

  async close(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
    this.#close();
  }
}

/** The guest and its network. */
class World implements ProbeNic {
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-move-'));
  readonly stateFile = join(this.folder, 'state.json');
  readonly hostIo = new NativeHostIo();
  readonly network: Network;
  readonly machine: ProbeMachine;
  readonly device: object;
  readonly model: string;
  readonly seats: Seat[] = [];
  readonly steps: Step[] = [];
  /** Which seat has the NIC; and what the NICs before had counted. */
  at = 0;
  readonly counters: Record<string, number>[] = [];
  probe!: ProbeGuest;
  #messages = 0;
  #level = false;
  #ended = false;

  constructor(model: string, device: object) {
    this.model = model;
    this.device = device;
    this.network = new Network({
      clock: new SystemClock(() => performance.now()),
      random: seededRandom(11),
      backends: { user: openUser(nodeUserServices()), stream: streamBackend(nodeServices) },
      nics,
      hostIo: this.hostIo,
    });
    const { loop, pool } = this.network;
    this.hostIo.drive(loop);
    this.machine = new ProbeMachine({
      loop,
      pool,
      random: seededRandom(12),
      log: silentLogger,
      ramFile: (bytes) => openRamFile(this.hostIo, bytes),
    });
  }

  async open(guest: string): Promise<ProbeResult> {
    await this.network.addNetdev({ type: 'user', id: 'n0' });
    await this.network.addNetdev({ type: 'hubport', id: 'h0', hubid: 0, netdev: 'n0' });
    for (const name of ['first', 'second', 'third']) this.seats.push(await Seat.make(this, name));
    const { loop } = this.network;
    return await new Promise((resolve) => {
      this.probe = ProbeGuest.onNic(this.machine, this, {
        config: parseGuest(guest) as ProbeConfig,
        loop,
        random: seededRandom(13),
        log: silentLogger,
        report: (step) => this.steps.push(step),
        onDone: resolve,
      });
      this.probe.start();
    });
  }

  get seat(): Seat {
    return this.seats[this.at]!;
  }

  /** Takes the interrupts that the NIC gave. */
  look(): void {
    const { level, messages } = this.seat.mailbox;
    if (level !== this.#level) {
      this.#level = level;
      this.machine.setIntx(level);
    }
    if (messages !== this.#messages) {
      this.#messages = messages;
      this.machine.signalMsi();
    }
  }

  #save(): Record<string, number> {
    this.seat.mailbox.ask(SAVE);
    return (JSON.parse(readFileSync(this.stateFile, 'utf8')) as { counters: Record<string, number> })
      .counters;
  }

  /** The NIC goes to the next process: not one access of the guest comes in between. */
  move(): void {
    this.counters.push(this.#save());
    this.at++;
    this.seat.mailbox.ask(LOAD);
    this.#messages = -1;
    this.look();
  }

  readConfig(offset: number, size: number): number {
    return this.seat.mailbox.ask(READ_CONFIG, 0, offset, size);
  }

  writeConfig(offset: number, size: number, value: number): void {
    this.seat.mailbox.ask(WRITE_CONFIG, 0, offset, size, value);
  }

  readBar(bar: number, offset: number, size: number): number {
    const value = this.seat.mailbox.ask(READ_BAR, bar, offset, size);
    this.look();
    return value;
  }

  writeBar(bar: number, offset: number, size: number, value: number): void {
    this.seat.mailbox.ask(WRITE_BAR, bar, offset, size, value);
    this.look();
  }

  /** The guest ends; returns what the last NIC had counted. */
  end(): Record<string, number> {
    this.probe.close();
    this.#ended = true;
    return this.#save();
  }

  async close(): Promise<void> {
    if (!this.#ended) this.probe?.close();
    for (const seat of this.seats) await seat.close();
    this.network.close();
    this.machine.close();
    this.hostIo.shutdown();
    rmSync(this.folder, { recursive: true });
  }
}

let world: World | undefined;
let server: Server | undefined;
afterEach(async () => {
  server?.closeAllConnections();
  server?.close();
  await world?.close();
  expect(world!.network.pool.free).toBe(world!.network.pool.capacity);
});

const MODELS: readonly [name: string, model: string, device: object][] = [
  ['e1000', 'e1000', { driver: 'e1000' }],
  ['rtl8139, C+', 'rtl8139', { driver: 'rtl8139' }],
  ['rtl8139, classic', 'rtl8139', { driver: 'rtl8139', chip: '8139c' }],
  ['virtio-net', 'virtio-net', { driver: 'virtio-net-pci' }],
  ['virtio-net, packed rings', 'virtio-net', { driver: 'virtio-net-pci', packed: true }],
];

describe('a NIC that goes to another process in the middle of a transfer', () => {
  it.each(MODELS)('%s: the guest downloads and uploads with the right hash', async (_name, model, device) => {
    const random = seededRandom(3);
    const file = Buffer.from(Uint32Array.from({ length: Math.ceil(FILE_BYTES / 4) }, random).buffer).subarray(
      0,
      FILE_BYTES,
    );
    const fileHash = createHash('sha256').update(file).digest('hex');
    let uploadHash = '';
    const moves: string[] = [];
    const moveAt = (half: string): void => {
      if (moves.includes(half)) return;
      moves.push(half);
      world!.move();
    };
    let finished = (): void => {};
    const downloaded = new Promise<void>((resolve) => {
      finished = resolve;
    });
    const web = createServer((request, response) => {
      if (request.method === 'GET') {
        response.on('finish', finished);
        const half = FILE_BYTES >> 1;
        response.setHeader('Content-Length', FILE_BYTES);
        // The callback comes when the kernel has taken it: some of it is on its way to the guest then.
        response.write(file.subarray(0, half), () => {
          moveAt('down');
          response.end(file.subarray(half));
        });
        return;
      }
      const hash = createHash('sha256');
      let bytes = 0;
      // One transfer after the other, so that each NIC has its part of the work.
      void downloaded.then(() => {
        request.on('data', (data: Buffer) => {
          hash.update(data);
          bytes += data.length;
          if (bytes > FILE_BYTES >> 1) moveAt('up');
        });
        request.on('end', () => {
          uploadHash = hash.digest('hex');
          response.writeHead(201).end();
        });
      });
    });
    server = web;
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    const { port } = web.address() as AddressInfo;
    world = new World(model, device);
    const url = `http://10.0.2.2:${port}`;
    const result = await world.open(
      `probe,once,get=${url}/file,expect-sha256=${fileHash},put=${url}/up,size=${FILE_BYTES}`,
    );
    const told = (step: Step['step']): string[] =>
      world!.steps.filter((one) => one.step === step).map(({ detail }) => detail);
    expect(result).toEqual({ ok: true, failures: [] });
    expect(told('get')).toEqual([`GET ${url}/file: 200 OK, ${FILE_BYTES} bytes, sha256 ${fileHash}`]);
    expect(told('put')).toEqual([`PUT ${url}/up: 201 Created, ${FILE_BYTES} bytes, sha256 ${uploadHash}`]);
    expect(moves.sort()).toEqual(['down', 'up']);
    expect(world.at).toBe(2);
    // Each NIC had its part of the work, and the last one goes on.
    for (const counters of [...world.counters, world.end()]) {
      expect(counters.rxFrames).toBeGreaterThan(20);
      expect(counters.txFrames).toBeGreaterThan(20);
    }
  });
});

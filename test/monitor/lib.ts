/** A network on the virtual clock with its monitor, and clients of the monitor that hold both ends of a channel in memory. */

import { expect } from 'vitest';
import type { BackendTable } from '../../src/backends/backend.ts';
import { BaseChardev } from '../../src/chardev/base.ts';
import type { Channel, ChannelUser } from '../../src/chardev/index.ts';
import type { DeviceConfig } from '../../src/config/devices/index.ts';
import { seededRandom, VirtualClock } from '../../src/core/clock.ts';
import { ProbeMachine } from '../../src/guest/probe/machine.ts';
import type { Handle } from '../../src/host-io/host-io.ts';
import { Monitor } from '../../src/monitor/monitor.ts';
import { Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';
import { RecordingClient } from '../lib/context.ts';
import { shapeFault } from '../lib/shape.ts';

/** Netdevs of type user that only record. */
function recordingBackends(recorders: Map<string, RecordingClient>): BackendTable {
  return {
    user: ({ id }, context) => {
      const client = new RecordingClient(context, id);
      recorders.set(id, client);
      return {
        ports: [client.port],
        stats: { rxFrames: 0 },
        describe: () => 'net=10.0.2.0,restrict=off',
        close: () => client.close(),
      };
    },
  };
}

export class TestMonitor {
  readonly clock = new VirtualClock();
  readonly network: Network;
  readonly monitor: Monitor;
  /** The far ends of user netdevs, by id. */
  readonly recorders = new Map<string, RecordingClient>();
  readonly machines = new Map<string, ProbeMachine>();
  quits = 0;
  #chardevs = 0;

  constructor() {
    this.network = new Network({
      clock: this.clock,
      random: seededRandom(7),
      backends: recordingBackends(this.recorders),
      nics,
      pool: { smallSlots: 512, largeSlots: 16, bareRecords: 512, debug: true },
      openFile: () => ({ write: () => true, close() {} }),
    });
    this.monitor = new Monitor({
      network: this.network,
      epochMs: 1_700_000_000_000,
      version: '0.0.0',
      name: 'test',
      addDevice: (config) => this.addDevice(config),
      removeDevice: (id) => {
        this.network.removeDevice(id);
        this.machines.get(id)?.close();
        this.machines.delete(id);
      },
      quit: () => {
        this.quits++;
      },
    });
  }

  addDevice(config: DeviceConfig) {
    const { loop, pool, context } = this.network;
    const machine = new ProbeMachine({
      loop,
      pool,
      random: context.random,
      log: context.log,
      ramBytes: 1 << 16,
      smallBuffers: 4,
      largeBuffers: 1,
    });
    try {
      const device = this.network.makeDevice(config, machine);
      this.machines.set(device.id, machine);
      return device;
    } catch (error) {
      machine.close();
      throw error;
    }
  }

  /** A new QMP client; with `negotiate`, past the greeting and ready for commands. */
  async client(negotiate = true, pretty = false): Promise<TestClient> {
    const client = this.#connect('control', pretty);
    if (!negotiate) return client;
    await client.next();
    expect(await client.ask({ execute: 'qmp_capabilities' })).toEqual({ return: {} });
    return client;
  }

  /** A new client at the prompt. */
  prompt(): TestClient {
    return this.#connect('readline', false);
  }

  #connect(mode: 'control' | 'readline', pretty: boolean): TestClient {
    const chardev = new MemoryChardev(`test${this.#chardevs++}`);
    this.monitor.serve(chardev, mode, pretty);
    return new TestClient(this, chardev.channel);
  }

  /** Runs everything that is due now, promises between turns included. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 100; turn++) {
      for (let i = 0; i < 10; i++) await Promise.resolve();
      if (this.network.loop.nextNs > this.clock.nowNs()) {
        await new Promise((resolve) => setImmediate(resolve));
        if (this.network.loop.nextNs > this.clock.nowNs()) return;
      }
      this.network.loop.run();
    }
  }

  /** Closes everything and asks that nothing is held. */
  async close(): Promise<void> {
    this.monitor.close();
    this.network.close();
    for (const machine of this.machines.values()) machine.close();
    await this.settle();
    expect(this.network.pool.free).toBe(this.network.pool.capacity);
    expect(this.network.pool.freeBare).toBe(512);
  }
}

class MemoryChannel implements Channel {
  user: ChannelUser | null = null;
  readonly written: number[] = [];
  /** Bytes it takes before it refuses. */
  room = Number.POSITIVE_INFINITY;
  readonly fds: Handle[] = [];
  closed = false;
  #offered: Uint8Array = new Uint8Array(0);
  #offering = false;

  /** Bytes that arrived and were not taken. */
  get unread(): number {
    return this.#offered.length;
  }

  arrive(bytes: Uint8Array): void {
    const all = new Uint8Array(this.#offered.length + bytes.length);
    all.set(this.#offered);
    all.set(bytes, this.#offered.length);
    this.#offered = all;
    if (this.#offering) return;
    this.resume();
  }

  resume(): void {
    this.#offering = true;
    while (this.#offered.length > 0 && !this.closed) {
      const taken = this.user!.receive(this.#offered, 0, this.#offered.length);
      this.#offered = this.#offered.subarray(taken);
      if (taken === 0) break;
    }
    this.#offering = this.#offered.length > 0;
  }

  write(bytes: Uint8Array, from: number, to: number): number {
    if (this.closed) return 0;
    const taken = Math.min(to - from, this.room);
    for (let i = from; i < from + taken; i++) this.written.push(bytes[i]!);
    this.room -= taken;
    return taken;
  }

  takeFds(): Handle[] {
    return this.fds.splice(0);
  }

  describe(): string {
    return 'memory';
  }

  close(): void {
    this.closed = true;
  }
}

class MemoryChardev extends BaseChardev {
  readonly channel = new MemoryChannel();

  constructor(id: string) {
    super({ id, type: 'null' });
  }

  get connected(): boolean {
    return !this.channel.closed;
  }

  describe(): string {
    return 'memory';
  }

  protected override attached(): void {
    this.channel.user = this.user!.opened(this.channel);
  }

  protected override detached(): void {
    this.channel.close();
  }

  close(): void {
    this.detach();
  }
}

export type Message = { readonly [member: string]: unknown };

/** The other end of one client's channel. */
export class TestClient {
  readonly channel: MemoryChannel;
  readonly #test: TestMonitor;

  constructor(test: TestMonitor, channel: MemoryChannel) {
    this.#test = test;
    this.channel = channel;
  }

  send(text: string): void {
    this.channel.arrive(new TextEncoder().encode(text));
  }

  /** What was written since the last time, as text. */
  text(): string {
    return new TextDecoder().decode(Uint8Array.from(this.channel.written.splice(0)));
  }

  /** Settles, then takes all messages that were written; one on each line. */
  async messages(): Promise<Message[]> {
    await this.#test.settle();
    return this.text()
      .split('\r\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Message);
  }

  /** The one message there is. */
  async next(): Promise<Message> {
    const messages = await this.messages();
    expect(messages).toHaveLength(1);
    return messages[0]!;
  }

  /** Sends a request and returns its reply; events before it are dropped. */
  async ask(request: object): Promise<Message> {
    this.send(`${JSON.stringify(request)}\n`);
    const replies = (await this.messages()).filter((message) => !('event' in message));
    expect(replies).toHaveLength(1);
    return replies[0]!;
  }

  /** The same for a command that succeeds; returns what it returned. */
  async run(execute: string, args: object = {}): Promise<unknown> {
    const reply = await this.ask({ execute, arguments: args });
    expect(reply).not.toHaveProperty('error');
    // What is answered is what query-qmp-schema says.
    const { returns } = this.#test.monitor.command(execute)!;
    expect(shapeFault(returns, reply.return), execute).toBeUndefined();
    return reply.return;
  }

  /** The same for a command that fails: class and sentence. */
  async fail(execute: string, args: object = {}): Promise<unknown> {
    const reply = await this.ask({ execute, arguments: args });
    return reply.error;
  }

  /** Says that what was refused may be written. */
  async allow(room: number): Promise<void> {
    this.channel.room = room;
    this.channel.user!.writable?.();
    await this.#test.settle();
  }
}

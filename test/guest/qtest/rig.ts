/** A qtest machine with an e1000 on a virtual clock, and a client that holds the other end of its channel. */

import { expect } from 'vitest';
import { BaseChardev } from '../../../src/chardev/base.ts';
import type { Channel, ChannelUser } from '../../../src/chardev/index.ts';
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { QtestMachine } from '../../../src/guest/qtest/index.ts';
import { Network } from '../../../src/network/network.ts';
import { nics } from '../../../src/nic/index.ts';
import { RecordingClient } from '../../lib/context.ts';

export class LineChardev extends BaseChardev implements Channel {
  channelUser: ChannelUser | null = null;
  text = '';
  /** Bytes it takes before it refuses. */
  room = Number.POSITIVE_INFINITY;
  #pending: Uint8Array = new Uint8Array(0);

  constructor() {
    super({ id: 'line', type: 'null' });
  }

  get connected(): boolean {
    return this.channelUser !== null;
  }

  describe(): string {
    return 'line';
  }

  protected override attached(): void {
    this.connect();
  }

  /** A client comes. */
  connect(): void {
    this.channelUser = this.user!.opened(this);
  }

  /** It goes. */
  hangUp(): void {
    this.channelUser?.closed?.();
    this.channelUser = null;
  }

  protected override detached(): void {
    this.channelUser = null;
  }

  arrive(bytes: Uint8Array): void {
    const all = new Uint8Array(this.#pending.length + bytes.length);
    all.set(this.#pending);
    all.set(bytes, this.#pending.length);
    this.#pending = all;
    this.resume();
  }

  get unread(): number {
    return this.#pending.length;
  }

  resume(): void {
    while (this.#pending.length > 0) {
      const taken = this.channelUser?.receive(this.#pending, 0, this.#pending.length) ?? this.#pending.length;
      this.#pending = this.#pending.subarray(taken);
      if (taken === 0) break;
    }
  }

  write(bytes: Uint8Array, from: number, to: number): number {
    const taken = Math.min(to - from, this.room);
    for (let i = from; i < from + taken; i++) this.text += String.fromCharCode(bytes[i]!);
    this.room -= taken;
    return taken;
  }

  takeFds(): [] {
    return [];
  }

  close(): void {
    this.detach();
  }
}

export const BAR = 0xe0000000;

export class QtestRig {
  readonly clock = new VirtualClock();
  readonly network: Network;
  readonly machine: QtestMachine;
  readonly line = new LineChardev();
  readonly transcript: string[] = [];
  peer: RecordingClient | null = null;

  constructor() {
    this.network = new Network({
      clock: this.clock,
      random: seededRandom(3),
      backends: {
        user: ({ id }, context) => {
          const client = new RecordingClient(context, id);
          this.peer = client;
          return { ports: [client.port], stats: {}, describe: () => '', close: () => client.close() };
        },
      },
      nics,
      pool: { smallSlots: 256, largeSlots: 8, bareRecords: 256, debug: true },
    });
    const { loop, pool } = this.network;
    this.machine = new QtestMachine({
      loop,
      pool,
      clock: this.clock,
      random: seededRandom(4),
      log: silentLogger,
      ramBytes: 16 << 20,
      transcript: (kind, line) => this.transcript.push(`${kind} ${line}`),
    });
  }

  /** An e1000 at `slot`, plugged into a recording netdev when it is the first. */
  async addNic(slot: number): Promise<void> {
    if (this.peer === null) await this.network.addNetdev({ type: 'user', id: 'n0' });
    const host = this.machine.platform.slot({ slot, fn: 0 });
    const netdev = this.network.devices.size === 0 ? { netdev: 'n0' } : {};
    this.machine.platform.attach(
      host,
      () => this.network.addDevice({ driver: 'e1000', id: `nic${slot}`, ...netdev, host }).nic,
    );
  }

  serve(): void {
    this.machine.serve(this.line);
  }

  settle(): void {
    while (this.network.loop.nextNs <= this.clock.nowNs()) this.network.loop.run();
  }

  /** Sends text as it is and returns the lines that came back. */
  send(text: string): string[] {
    this.line.arrive(Uint8Array.from(text, (c) => c.charCodeAt(0)));
    this.settle();
    return this.take();
  }

  take(): string[] {
    const lines = this.line.text.split('\n');
    this.line.text = lines.pop()!;
    return lines;
  }

  /** Runs commands that each have one answer and returns those. */
  run(...commands: string[]): string[] {
    return this.send(commands.map((one) => `${one}\n`).join(''));
  }

  /** One command, which must succeed; what it returned. */
  ok(command: string): string {
    const lines = this.run(command);
    expect(lines.at(-1)).toMatch(/^OK/);
    return lines.at(-1)!.slice(3);
  }

  /** Puts the registers of the NIC at `slot` at BAR and switches it on, INTA# routed to ISA interrupt `line`. */
  setUp(slot: number, line: number): void {
    const at = (offset: number) => `outl 0xcf8 0x${(0x80000000 + (slot << 11) + offset).toString(16)}`;
    const pirq = (slot - 1) & 3;
    const answers = this.run(
      at(0x10),
      `outl 0xcfc 0x${BAR.toString(16)}`,
      at(0x14),
      'outl 0xcfc 0xc000',
      at(4),
      'outl 0xcfc 7',
      `outl 0xcf8 0x${(0x80000860 + pirq).toString(16)}`,
      `outb 0xcfc ${line}`,
    );
    expect(new Set(answers)).toEqual(new Set(['OK']));
  }

  close(): void {
    this.network.close();
    this.machine.close();
    this.settle();
    expect(this.network.pool.free).toBe(this.network.pool.capacity);
    expect(this.network.pool.freeBare).toBe(256);
  }
}

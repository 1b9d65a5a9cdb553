/** A link context on the virtual clock with a debug pool, and small clients to put at the ends of links. */
import { expect } from 'vitest';
import { VirtualClock } from '../../src/core/clock.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool, type PoolOptions } from '../../src/core/pool.ts';
import { type Adapt, type Client, type ClientKind, type LinkContext, Port } from '../../src/core/port.ts';

export interface TestContext extends LinkContext {
  readonly clock: VirtualClock;
}

const refuse: Adapt = (pool, frame) => {
  pool.release(frame);
  return 0;
};

export function testContext(options: PoolOptions & { adapt?: Adapt } = {}): TestContext {
  const clock = new VirtualClock();
  const pool = new FramePool({ smallSlots: 512, largeSlots: 16, bareRecords: 512, debug: true, ...options });
  return { clock, loop: new Loop(clock), pool, adapt: options.adapt ?? refuse };
}

/** Runs what is due now and, unless told otherwise, a second of virtual time, then asks that every slot and record is back. */
export function expectNothingHeld(context: TestContext, bareRecords = 512): void {
  context.loop.runUntil(context.clock.nowNs());
  expect(context.pool.free).toBe(context.pool.capacity);
  expect(context.pool.freeBare).toBe(bareRecords);
}

/** A client that keeps copies of what it receives, takes as many as it has room for, and can send. */
export class RecordingClient implements Client {
  readonly port: Port;
  readonly received: Uint8Array[] = [];
  readonly links: boolean[] = [];
  /** Frames it still takes; refuses when 0. */
  room = Number.POSITIVE_INFINITY;
  readyCalls = 0;
  /** Frames refused by the peer, in order, offered again at peerReady. */
  readonly waiting: number[] = [];
  /** Called for each batch before it is taken. */
  onReceive: ((frames: Int32Array, from: number, to: number) => void) | null = null;
  readonly #context: LinkContext;

  constructor(context: LinkContext, name = 'test', kind: ClientKind = 'backend') {
    this.#context = context;
    this.port = new Port(name, kind, this, context);
  }

  receive(frames: Int32Array, from: number, to: number): number {
    this.onReceive?.(frames, from, to);
    const taken = Math.min(to - from, this.room);
    for (let i = from; i < from + taken; i++) {
      this.received.push(this.#context.pool.toBytes(frames[i]!));
      this.#context.pool.release(frames[i]!);
    }
    this.room -= taken;
    return taken;
  }

  peerReady(): void {
    this.readyCalls++;
    this.#offer();
  }

  linkChanged(up: boolean): void {
    this.links.push(up);
  }

  /** Sends copies of these packets; what is refused waits for peerReady. Returns how many were taken at once. */
  send(...packets: Uint8Array[]): number {
    const before = this.waiting.length;
    for (const packet of packets) {
      const frame = this.#context.pool.from(packet);
      expect(frame).not.toBe(0);
      this.waiting.push(frame);
    }
    this.#offer();
    return before + packets.length - this.waiting.length;
  }

  #offer(): void {
    if (this.waiting.length === 0) return;
    const batch = Int32Array.from(this.waiting);
    const taken = this.port.send(batch, 0, batch.length);
    this.waiting.splice(0, taken);
  }

  /** Makes room and says so. */
  allow(room: number): void {
    this.room = room;
    this.port.ready();
  }

  close(): void {
    this.port.disconnect();
    for (const frame of this.waiting.splice(0)) this.#context.pool.release(frame);
  }
}

/** A broadcast frame of `length` bytes that carries `tag` in its payload. */
export function packet(tag: number, length = 60): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = i < 6 ? 0xff : i < 12 ? 0x52 : (i * 7 + tag) & 0xff;
  if (length >= 14) {
    bytes[12] = 0x88;
    bytes[13] = 0xb5;
  }
  if (length > 14) bytes[14] = tag;
  return bytes;
}

export const tags = (packets: readonly Uint8Array[]): number[] => packets.map((bytes) => bytes[14]!);

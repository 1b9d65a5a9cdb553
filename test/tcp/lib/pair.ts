/** Two TCP stacks at the ends of a simulated link on the virtual clock: delay, loss, reordering, duplication, all from one seed. */
import { type Random, seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { Loop } from '../../../src/core/loop.ts';
import { FramePool, LENGTH, NEXT, OFFSET, REGION, TOTAL } from '../../../src/core/pool.ts';
import type { CloseReason, Connection, TcpUser } from '../../../src/tcp/connection.ts';
import { linkHeaderV4, linkHeaderV6 } from '../../../src/tcp/link-header.ts';
import type { TcpSettings } from '../../../src/tcp/settings.ts';
import { TcpStack } from '../../../src/tcp/stack.ts';

export interface LinkOptions {
  seed?: number;
  delayNs?: number;
  /** Bits a second in each direction, behind a queue of as many bytes as netem's 1000 full frames; absent: no limit. */
  rateBps?: number;
  jitterNs?: number;
  loss?: number;
  duplicate?: number;
  /** ACCEPT_* bits of both ends. */
  accepts?: number;
  settings?: Partial<TcpSettings>;
  pool?: { smallSlots?: number; largeSlots?: number };
}

export const MAC_A = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
export const MAC_B = Uint8Array.of(0x52, 0x54, 0, 0, 0, 2);
export const IP_A = 0x0a000001;
export const IP_B = 0x0a000002;
export const IP6_A = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
export const IP6_B = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2);

/** Hands an Ethernet frame with TCP in it to a stack. */
export function inputFrame(stack: TcpStack, pool: FramePool, frame: number): void {
  const ip = pool.table[frame + OFFSET]! + 14;
  const bytes = pool.bytes;
  if (bytes[ip]! >>> 4 === 4) {
    stack.input(frame, 4, ip, ip + 20, ((bytes[ip + 2]! << 8) | bytes[ip + 3]!) - 20);
  } else {
    stack.input(frame, 6, ip, ip + 40, (bytes[ip + 4]! << 8) | bytes[ip + 5]!);
  }
}

/** A connection's user that records what it got and sends what it is given. */
export class TestUser implements TcpUser {
  connection: Connection | null = null;
  readonly log: string[] = [];
  receivedBytes = 0;
  readonly chunks: Uint8Array[] = [];
  closedReason: CloseReason | null = null;
  ended = false;
  /** What is still to be sent. */
  outgoing: Uint8Array = new Uint8Array(0);
  sentTo = 0;
  closeWhenSent = false;
  /** Close when the peer closed. */
  closeOnEnd = false;
  /** Bytes the sink takes at once; Infinity: all. */
  appetite = Number.POSITIVE_INFINITY;
  readonly #pool: FramePool;

  constructor(pool: FramePool) {
    this.#pool = pool;
  }

  established(c: Connection): void {
    this.connection = c;
    this.log.push('established');
  }

  deliver(_c: Connection, frames: Int32Array, from: number, to: number, skip: number): number {
    const t = this.#pool.table;
    let taken = 0;
    for (let i = from; i < to && this.appetite > 0; i++) {
      const total = t[frames[i]! + TOTAL]!;
      const part = Math.min(total - skip, this.appetite);
      const chunk = new Uint8Array(part);
      this.#pool.read(frames[i]!, skip, chunk, 0, part);
      this.chunks.push(chunk);
      this.receivedBytes += part;
      this.appetite -= part;
      taken += part;
      skip = 0;
    }
    return taken;
  }

  feed(bytes: number): void {
    this.appetite = bytes;
    this.connection?.sinkReady();
  }

  sendReady(c: Connection): void {
    this.pump(c);
  }

  send(data: Uint8Array, thenClose = false): void {
    this.outgoing = data;
    this.sentTo = 0;
    this.closeWhenSent = thenClose;
    if (this.connection !== null) this.pump(this.connection);
  }

  pump(c: Connection): void {
    this.sentTo += c.write(this.outgoing, this.sentTo, this.outgoing.length);
    if (this.sentTo === this.outgoing.length && this.closeWhenSent) {
      this.closeWhenSent = false;
      c.close();
    }
  }

  peerClosed(c: Connection): void {
    this.ended = true;
    this.log.push('end');
    if (this.closeOnEnd) c.close();
  }

  closed(_c: Connection, reason: CloseReason): void {
    this.closedReason = reason;
    this.log.push(reason);
  }

  get received(): Uint8Array {
    const all = new Uint8Array(this.receivedBytes);
    let at = 0;
    for (const chunk of this.chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }
}

export class Pair {
  readonly clock = new VirtualClock();
  readonly loop = new Loop(this.clock);
  readonly pool: FramePool;
  readonly random: Random;
  readonly a: TcpStack;
  readonly b: TcpStack;
  readonly options: LinkOptions;
  /** Frames that crossed, for counting. */
  crossed = 0;
  lost = 0;
  bytesCrossed = 0;
  roomA = Number.POSITIVE_INFINITY;
  /** May drop a frame going to `b` or `a`. */
  filter: ((frame: number, toB: boolean) => boolean) | null = null;
  accept: (c: Connection) => TcpUser | null = () => null;
  inFlight = 0;
  /** When the transfer was over, kept by the test. */
  doneNs = 0;
  /** When each direction's wire is free. */
  readonly #freeNs = [0, 0];

  constructor(options: LinkOptions = {}) {
    this.options = options;
    this.pool = new FramePool({
      smallSlots: 2048,
      largeSlots: 64,
      bareRecords: 64,
      debug: true,
      ...options.pool,
    });
    this.random = seededRandom(options.seed ?? 1);
    const make = (toB: boolean): TcpStack => {
      const pair = this;
      return new TcpStack({
        pool: this.pool,
        loop: this.loop,
        random: this.random,
        mac: toB ? MAC_A : MAC_B,
        settings: { rtoInitialNs: 1e9, timeWaitNs: 1e9, ...options.settings },
        lower: {
          accepts: options.accepts ?? 0,
          room: () => (toB ? pair.roomA : Number.POSITIVE_INFINITY),
          transmit: (frame) => this.#cross(frame, toB),
        },
        incoming: (c) => {
          c.user = this.accept(c);
          if (c.user !== null) c.accept();
        },
      });
    };
    this.a = make(true);
    this.b = make(false);
  }

  #chance(probability: number | undefined): boolean {
    return probability !== undefined && probability > 0 && this.random() / 2 ** 32 < probability;
  }

  #cross(frame: number, toB: boolean): void {
    this.pool.check(frame);
    this.crossed++;
    this.bytesCrossed += this.pool.table[frame + TOTAL]!;
    if (this.#chance(this.options.loss) || (this.filter !== null && !this.filter(frame, toB))) {
      this.lost++;
      this.pool.release(frame);
      return;
    }
    if (this.#chance(this.options.duplicate)) {
      this.pool.retain(frame);
      this.#later(frame, toB);
    }
    this.#later(frame, toB);
  }

  #later(frame: number, toB: boolean): void {
    const jitter = this.options.jitterNs ? this.random() % this.options.jitterNs : 0;
    const waitNs = this.#queueNs(frame, toB);
    if (waitNs < 0) {
      this.lost++;
      this.pool.release(frame);
      return;
    }
    this.inFlight++;
    this.loop
      .timer(() => {
        this.inFlight--;
        const stack = toB ? this.b : this.a;
        inputFrame(stack, this.pool, frame);
        stack.flush();
      })
      .armIn((this.options.delayNs ?? 100_000) + jitter + waitNs);
  }

  /** How long a frame waits for those before it and its own bits; -1: the queue is full. */
  #queueNs(frame: number, toB: boolean): number {
    const { rateBps } = this.options;
    if (rateBps === undefined) return 0;
    const nowNs = this.clock.nowNs();
    const side = toB ? 0 : 1;
    const startNs = Math.max(nowNs, this.#freeNs[side]!);
    if (((startNs - nowNs) * rateBps) / 8e9 > 1000 * 1514) return -1;
    this.#freeNs[side] = startNs + (this.pool.table[frame + TOTAL]! * 8e9) / rateBps;
    return this.#freeNs[side]! - nowNs;
  }

  connect(user: TcpUser, port = 80, version: 4 | 6 = 4): Connection {
    const link =
      version === 4 ? linkHeaderV4(MAC_B, MAC_A, IP_A, IP_B) : linkHeaderV6(MAC_B, MAC_A, IP6_A, IP6_B);
    const c = this.a.connect(user, link, 0, port);
    if (c === null) throw new Error('no port');
    return c;
  }

  run(ns: number): void {
    this.loop.runUntil(this.clock.nowNs() + ns);
  }

  /** Frames held by nobody? */
  get clean(): boolean {
    return this.pool.free === this.pool.capacity;
  }
}

export function pattern(length: number, seed: number): Uint8Array {
  const random = seededRandom(seed);
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i += 4) {
    const r = random();
    bytes[i] = r;
    if (i + 1 < length) bytes[i + 1] = r >>> 8;
    if (i + 2 < length) bytes[i + 2] = r >>> 16;
    if (i + 3 < length) bytes[i + 3] = r >>> 24;
  }
  return bytes;
}

export { LENGTH, NEXT, OFFSET, REGION, TOTAL };

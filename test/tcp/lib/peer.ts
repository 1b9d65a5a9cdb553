/** A scripted peer: sends exactly the segments a test says and records what the stack answers. */
import { expect } from 'vitest';
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { Loop } from '../../../src/core/loop.ts';
import { FACT_CSUM_VALID, FACTS, FramePool, OFFSET, TOTAL } from '../../../src/core/pool.ts';
import type { Connection } from '../../../src/tcp/connection.ts';
import { linkHeaderV4 } from '../../../src/tcp/link-header.ts';
import type { TcpSettings } from '../../../src/tcp/settings.ts';
import { TcpStack } from '../../../src/tcp/stack.ts';
import { STATE_NAMES } from '../../../src/tcp/states.ts';
import { pseudoSumV4 } from '../../../src/wire/checksum.ts';
import { writeEthernet } from '../../../src/wire/ethernet.ts';
import { writeIpv4 } from '../../../src/wire/ipv4.ts';
import { setTcpChecksum, TcpHeader, TcpOptions, writeTcp, writeTcpOptions } from '../../../src/wire/tcp.ts';
import { IP_A, IP_B, inputFrame, MAC_A, MAC_B, TestUser } from './pair.ts';

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;

export interface Seg {
  seq: number;
  ack: number;
  flags: number;
  window: number;
  data: Uint8Array;
  options: TcpOptions;
  frameBytes: number;
  facts: number;
}

export interface PeerOptions {
  settings?: Partial<TcpSettings>;
  accepts?: number;
  mss?: number;
  scale?: number;
  sack?: boolean;
  timestamps?: boolean;
  window?: number;
  /** The peer's first sequence number. */
  isn?: number;
  seed?: number;
}

/** The stack is A; the script plays B, port 80 (or the client, at port 5000, towards A's port 80). */
export class Peer {
  readonly clock = new VirtualClock();
  readonly loop = new Loop(this.clock);
  readonly pool = new FramePool({ smallSlots: 512, largeSlots: 32, bareRecords: 32, debug: true });
  readonly stack: TcpStack;
  readonly user: TestUser;
  readonly out: Seg[] = [];
  readonly options: PeerOptions;
  room = Number.POSITIVE_INFINITY;
  connection!: Connection;
  /** Relative sequence numbers start here: the peer's and the stack's initial ones. */
  isn: number;
  iss = 0;
  peerPort = 80;
  localPort = 0;
  stamp = 1000;
  passive: 'accept' | 'hold' = 'accept';

  constructor(options: PeerOptions = {}) {
    this.options = options;
    this.isn = options.isn ?? 5000;
    this.user = new TestUser(this.pool);
    this.stack = new TcpStack({
      pool: this.pool,
      loop: this.loop,
      random: seededRandom(options.seed ?? 3),
      mac: MAC_A,
      settings: {
        sack: options.sack ?? false,
        timestamps: options.timestamps ?? false,
        timeWaitNs: 10e9,
        ...options.settings,
      },
      lower: {
        accepts: options.accepts ?? 0,
        room: () => this.room,
        transmit: (frame) => {
          this.out.push(this.#read(frame));
          this.pool.release(frame);
        },
      },
      incoming: (c) => {
        this.connection = c;
        c.user = this.user;
        if (this.passive === 'accept') c.accept();
      },
    });
  }

  #read(frame: number): Seg {
    this.pool.check(frame);
    const facts = this.pool.table[frame + FACTS]!;
    const b = this.pool.toBytes(frame);
    const header = new TcpHeader();
    const end = 14 + ((b[16]! << 8) | b[17]!);
    expect(end).toBe(b.length);
    expect(header.parse(b, 34, end)).toBe(true);
    if (facts === 0) expect(header.checksumOk(b, pseudoSumV4(IP_A, IP_B, 6, end - 34))).toBe(true);
    const options = new TcpOptions();
    expect(options.parse(b, 54, 34 + header.headerBytes)).toBe(true);
    return {
      seq: header.seq,
      ack: header.ack,
      flags: header.flags,
      window: header.window,
      data: b.slice(header.payload, end),
      options,
      frameBytes: b.length,
      facts,
    };
  }

  /** Opens from the stack's side; returns its SYN. */
  connect(): Seg {
    this.connection = this.stack.connect(this.user, linkHeaderV4(MAC_B, MAC_A, IP_A, IP_B), 0, 80)!;
    this.localPort = this.connection.localPort;
    const [syn] = this.take();
    this.iss = syn!.seq;
    return syn!;
  }

  /** Sends one segment; `seq` and `ack` count from the initial sequence numbers. Returns what the stack sent in answer, at once. */
  send(o: {
    seq: number;
    ack?: number;
    flags?: number;
    data?: Uint8Array | number;
    window?: number;
    sacks?: [number, number][];
    mss?: number;
    stamp?: number;
    noStamp?: boolean;
    absolute?: boolean;
    badChecksum?: boolean;
    more?: boolean;
  }): Seg[] {
    const data = typeof o.data === 'number' ? new Uint8Array(o.data) : (o.data ?? new Uint8Array(0));
    const flags = o.flags ?? ACK;
    const options = new TcpOptions();
    if (flags & SYN) {
      options.mss = o.mss ?? this.options.mss ?? 1460;
      if (this.options.scale !== undefined) options.windowScale = this.options.scale;
      options.sackPermitted = this.options.sack ?? false;
    }
    if (this.options.timestamps && !o.noStamp) {
      options.hasTimestamps = true;
      options.timestampValue = o.stamp ?? this.stamp++;
    }
    for (const [left, right] of o.sacks ?? []) {
      options.sackLeft[options.sackCount] = this.iss + left;
      options.sackRight[options.sackCount++] = this.iss + right;
    }
    const b = new Uint8Array(14 + 20 + 60 + data.length);
    const optionBytes = writeTcpOptions(b, 54, options);
    const length = 20 + optionBytes + data.length;
    writeEthernet(b, 0, MAC_A, 0, MAC_B, 0, 0x0800);
    writeIpv4(b, 14, 20 + length, 7, 0, 64, 6, IP_B, IP_A);
    const seq = o.absolute ? o.seq : this.isn + o.seq;
    const ack = o.absolute ? (o.ack ?? 0) : this.iss + (o.ack ?? 0);
    const window = o.window ?? this.options.window ?? 65535;
    writeTcp(b, 34, this.peerPort, this.localPort, seq >>> 0, ack >>> 0, 20 + optionBytes, flags, window);
    b.set(data, 54 + optionBytes);
    setTcpChecksum(b, 34, length, pseudoSumV4(IP_B, IP_A, 6, length));
    if (o.badChecksum) b[34 + 17]! ^= 1;
    const frame = this.pool.from(b, 0, 34 + length);
    if (data.length > 2000) this.pool.table[frame + FACTS] = FACT_CSUM_VALID;
    inputFrame(this.stack, this.pool, frame);
    if (!o.more) this.stack.flush();
    return this.take();
  }

  /** Active open to ESTABLISHED. */
  open(): this {
    this.connect();
    this.send({ seq: 0, ack: 1, flags: SYN | ACK });
    expect(this.state).toBe('ESTABLISHED');
    this.take();
    return this;
  }

  /** The peer opens to port 80 of the stack. Returns the answers to its SYN. */
  knock(): Seg[] {
    this.peerPort = 5000;
    this.localPort = 80;
    const answers = this.send({ seq: 0, flags: SYN });
    if (answers.length > 0) this.iss = answers[0]!.seq;
    return answers;
  }

  take(): Seg[] {
    return this.out.splice(0);
  }

  run(ns: number): Seg[] {
    this.loop.runUntil(this.clock.nowNs() + ns);
    return this.take();
  }

  get state(): string {
    return STATE_NAMES[this.connection.state]!;
  }

  rel(seg: Seg): { seq: number; ack: number; flags: number; length: number } {
    return {
      seq: (seg.seq - this.iss) | 0,
      ack: (seg.ack - this.isn) | 0,
      flags: seg.flags,
      length: seg.data.length,
    };
  }

  /** Everything is given back once the connection is gone. */
  end(): void {
    this.stack.close();
    expect(this.stack.connections).toBe(0);
    expect(this.stack.heldSlots).toBe(0);
    expect(this.pool.free).toBe(this.pool.capacity);
    expect(this.pool.freeBare).toBe(32);
    this.loop.runUntil(this.clock.nowNs() + 300e9);
    expect(this.loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  }
}

export { OFFSET, TOTAL };

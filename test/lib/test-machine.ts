/**
 * A machine for tests: guest RAM, a virtual clock, a NIC in the one slot, and a peer at the other end of its link that keeps what it is sent. It counts
 * interrupts and can hand them to a driver, in the loop's next turn as a CPU takes them.
 */

import { seededRandom, VirtualClock } from '../../src/core/clock.ts';
import { copyMemory } from '../../src/core/copy.ts';
import {
  COPY_FROM,
  COPY_LENGTH,
  COPY_SOURCE,
  COPY_TARGET,
  COPY_TO,
  COPY_WORDS,
  type CopyEngine,
} from '../../src/core/copy-list.ts';
import { silentLogger } from '../../src/core/log.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool } from '../../src/core/pool.ts';
import { ACCEPT_ALL, type Client, type LinkContext, Port } from '../../src/core/port.ts';
import { GuestRam } from '../../src/guest/driver/guest-ram.ts';
import { adapt } from '../../src/nic/offload.ts';
import type { DeviceHost } from '../../src/pci/device-host.ts';
import { GuestMemory } from '../../src/pci/guest-memory.ts';

/** The other end of the link: takes frames as far as `limit`, and keeps copies. */
export class Recorder implements Client {
  readonly port: Port;
  /** What arrived: bytes and the facts words. */
  readonly frames: {
    bytes: Uint8Array;
    facts: number;
    gsoSize: number;
    csumStart: number;
    csumOffset: number;
  }[] = [];
  /** How many more frames it takes. */
  limit = Number.POSITIVE_INFINITY;
  /** Keeps the frames themselves until `letGo`. */
  hold = false;
  readonly held: number[] = [];
  ready = 0;
  readonly #pool: FramePool;

  constructor(context: LinkContext, accepts = ACCEPT_ALL) {
    this.#pool = context.pool;
    this.port = new Port('peer', 'backend', this, context);
    this.port.accepts = accepts;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    let i = from;
    for (; i < to && this.limit > 0; i++, this.limit--) {
      const frame = frames[i]!;
      const t = this.#pool.table;
      this.frames.push({
        bytes: this.#pool.toBytes(frame),
        facts: t[frame + 5]!,
        gsoSize: t[frame + 6]!,
        csumStart: t[frame + 8]!,
        csumOffset: t[frame + 9]!,
      });
      if (this.hold) this.held.push(frame);
      else this.#pool.release(frame);
    }
    return i - from;
  }

  letGo(): void {
    for (const frame of this.held.splice(0)) this.#pool.release(frame);
  }

  peerReady(): void {
    this.ready++;
  }

  /** Sends one frame with these bytes; returns whether it was taken. */
  send(bytes: Uint8Array, facts = 0): boolean {
    const frame = this.#pool.from(bytes);
    if (frame === 0) return false;
    this.#pool.table[frame + 5] = facts;
    const taken = this.port.send(Int32Array.of(frame), 0, 1);
    if (taken === 0) this.#pool.release(frame);
    return taken === 1;
  }
}

/** A driver that does not make the pin go low in so many turns never will. */
const STORM_MAX = 10_000;

export class TestMachine implements DeviceHost {
  readonly clock = new VirtualClock();
  readonly loop = new Loop(this.clock);
  readonly random = seededRandom(1);
  readonly log = silentLogger;
  readonly pool: FramePool;
  readonly memory: GuestMemory;
  readonly ram: GuestRam;
  readonly link: LinkContext;
  readonly peer: Recorder;
  intx = false;
  /** Rising edges of the pin. */
  interrupts = 0;
  readonly messages: { vector: number; address: number; data: number }[] = [];
  /** Called in the turn after the pin rose, and again while it stays up. */
  onInterrupt: (() => void) | null = null;
  readonly #take: () => void;
  /** Interrupts taken since the pin was low. */
  #storm = 0;

  constructor(
    options: {
      ramBytes?: number;
      ramAddress?: number;
      accepts?: number;
      small?: number;
      large?: number;
      debug?: boolean;
      /** A batch's bytes are copied together, as with the addon (default), or frame by frame, as in a browser. */
      together?: boolean;
    } = {},
  ) {
    this.pool = new FramePool({
      smallSlots: options.small ?? 512,
      largeSlots: options.large ?? 16,
      bareRecords: 1024,
      debug: options.debug ?? true,
    });
    if (options.together ?? true) this.pool.copies.setEngine(copyEngine(this.pool), 0);
    this.memory = new GuestMemory(this.pool);
    this.ram = new GuestRam(options.ramBytes ?? 4 << 20, options.ramAddress ?? 0);
    this.memory.add(this.ram.address, this.ram.bytes);
    this.link = { pool: this.pool, loop: this.loop, adapt };
    this.peer = new Recorder(this.link, options.accepts ?? ACCEPT_ALL);
    this.#take = () => {
      if (!this.intx || this.onInterrupt === null) return;
      if (++this.#storm > STORM_MAX) throw new Error('nobody serves the interrupt: it stays up');
      this.onInterrupt();
      if (this.intx) this.loop.post(this.#take);
    };
  }

  setIntx(level: boolean): void {
    if (level && !this.intx) {
      this.interrupts++;
      this.loop.post(this.#take);
    }
    if (!level) this.#storm = 0;
    this.intx = level;
  }

  signalMsi(vector: number, address: number, data: number): void {
    this.messages.push({ vector, address, data });
  }

  /** Joins a NIC's port to the peer. */
  plug(port: Port): void {
    Port.connect(port, this.peer.port);
  }

  /** Runs what is due within `ns` of virtual time. */
  settle(ns = 1e9): void {
    this.loop.runUntil(this.clock.nowNs() + ns);
  }
}

/** What the addon does with a pool's list of copies: all that fit, one after the other. */
export function copyEngine(pool: FramePool): CopyEngine {
  const { copies, memories } = pool;
  return (count) => {
    const { list } = copies;
    let done = 0;
    for (let at = 0; at < COPY_WORDS * count; at += COPY_WORDS) {
      const target = memories[list[at + COPY_TARGET]!]!;
      const to = list[at + COPY_TO]!;
      const length = list[at + COPY_LENGTH]!;
      if (to < 0 || length < 0 || to + length > target.bytes.length) continue;
      copyMemory(memories[list[at + COPY_SOURCE]!]!, list[at + COPY_FROM]!, target, to, length);
      done++;
    }
    return done;
  };
}

/**
 * A port is one end of a link. Every NIC queue, backend and hub port is the client of one; two connected ports make a link.
 *
 *     client A ── portA.send(batch) ──▶ filter stages ──▶ clientB.receive(batch)
 *     client B ── portB.ready() ──▶ filter stages ──▶ clientA.peerReady()
 *
 * `send` hands on a batch at once, within the call, and returns how many frames were taken (see pool.ts for ownership). Less than all is
 * backpressure: the rest stays with the sender, and the receiver's `ready()` brings the sender's `peerReady()` later. There is no hidden
 * queue: a frame waits with its sender, where hardware or the kernel has a place for it. A link that is down or has no other end
 * takes every frame and drops it, counted, as a cable that is not plugged in.
 *
 * A frame's offload facts are passed on where the peer `accepts` them; else the frame is checksummed or segmented here, by the one routine
 * the context brings (nic/offload.ts). What a segmented frame becomes and the peer cannot take yet waits in a small array of this port: at
 * most one frame's worth.
 *
 * A client may send from within `receive`, and may be offered frames while it sends, but its `receive` is never entered twice: the
 * inner offer is refused and repeated after the outer one. So no loop of any two clients can recurse. `ready` may bring offers
 * before it returns. The batch array belongs to the sender, who leaves frames[from..to) alone until `send` returns; a receiver that keeps
 * frames copies their numbers.
 */

import { InvariantError } from './errors.ts';
import type { Loop } from './loop.ts';
import { FACTS, type FramePool, MAX_FRAME_BYTES, TOTAL } from './pool.ts';

/** Offloads a client takes as they are, or-ed. */
export const ACCEPT_CSUM = 1;
export const ACCEPT_TSO4 = 2;
export const ACCEPT_TSO6 = 4;
export const ACCEPT_UFO = 8;
export const ACCEPT_USO = 16;
export const ACCEPT_ECN = 32;
export const ACCEPT_ALL = 63;

/** Something that takes frames: a client, or a filter stage in front of it. */
export interface Sink {
  /** Offers frames[from..to). Takes the first n, for whose release it is then responsible, and returns n. Fewer than all is a promise of a later `ready`. */
  receive(frames: Int32Array, from: number, to: number): number;
}

export interface Client extends Sink {
  /** The peer refused frames before and can take some now. May be told when nothing was refused. */
  peerReady(): void;
  /** The link went up or down, by set_link or by the peer's doing. */
  linkChanged?(up: boolean): void;
  /** The peer now accepts these offloads (ACCEPT_* bits); told on connecting and at each change. */
  peerAcceptsChanged?(bits: number): void;
}

/** One link of the chain between a sender and a receiver; link/filter/ has them. */
export interface Stage extends Sink {
  /** Where frames go from here; set by the port. */
  next: Sink;
  /** Whom to tell when this stage, having refused, can take again; set by the port. */
  previous: { peerReady(): void };
  /** What `next` says through its port: it can take again. */
  peerReady(): void;
}

/** Brings a frame to what `accepts` allows: consumes it, and writes one or many frames to `out`; returns how many (0: it was bad, and dropped). */
export type Adapt = (pool: FramePool, frame: number, accepts: number, out: Int32Array) => number;

export interface LinkContext {
  readonly pool: FramePool;
  readonly loop: Loop;
  readonly adapt: Adapt;
}

export type ClientKind = 'nic' | 'backend' | 'hubport';

/** Counters of one direction of a link, seen from its sender. */
export class PortStats {
  sentFrames = 0;
  sentBytes = 0;
  /** Offers that were not taken in full. */
  refusals = 0;
  dropLinkDown = 0;
  dropNoPeer = 0;
  dropTooLong = 0;
  /** Frames whose offload facts contradict their bytes. */
  dropBadOffload = 0;
  /** Frames that were segmented or checksummed here. */
  adaptedFrames = 0;
}

const SEGMENTS_MAX = 2048;
const ADMIN_DOWN = 1;
const CARRIER_DOWN = 2;
const HELD = 4;
const GSO_TYPES = 0xff00;
const ANY_OFFLOAD = GSO_TYPES | 1;

export class Port {
  readonly name: string;
  readonly kind: ClientKind;
  readonly context: LinkContext;
  readonly client: Client;
  readonly stats = new PortStats();
  peer: Port | null = null;

  #accepts = 0;
  /** Why no frames pass here: ADMIN_DOWN, CARRIER_DOWN, HELD; 0: they do. */
  #state = 0;
  #entry: Sink = NOWHERE;
  #stages: readonly Stage[] = [];
  #receiving = false;
  #offeredMeanwhile = false;
  /** The client's `receive` is under way, by way of a stage. */
  #entered = false;
  #blocked = false;
  #segments: Int32Array | null = null;
  #segmentsFrom = 0;
  #segmentsTo = 0;
  readonly #announce: () => void;
  /** What the last stage of the peer hands on to. */
  readonly #behindStages: Sink = { receive: (frames, from, to) => this.#deliver(frames, from, to) };
  /** What the last stage hands on to when there is no peer. */
  readonly #unplugged: Sink = { receive: (frames, from, to) => this.#drop(frames, from, to) };

  constructor(name: string, kind: ClientKind, client: Client, context: LinkContext) {
    this.name = name;
    this.kind = kind;
    this.client = client;
    this.context = context;
    this.#announce = () => this.ready();
  }

  /** ACCEPT_* bits: the offloads that this port's own client takes. May change while running. */
  get accepts(): number {
    return this.#accepts;
  }

  set accepts(bits: number) {
    if (bits === this.#accepts) return;
    this.#accepts = bits;
    this.peer?.client.peerAcceptsChanged?.(bits);
  }

  /** Joins two free ports and tells both clients the link's state. */
  static connect(a: Port, b: Port): void {
    if (a.peer !== null || b.peer !== null)
      throw new InvariantError(`${a.peer ? a.name : b.name} is connected already`);
    a.peer = b;
    b.peer = a;
    a.#route();
    b.#route();
    a.client.peerAcceptsChanged?.(b.#accepts);
    b.client.peerAcceptsChanged?.(a.#accepts);
    a.client.linkChanged?.(a.up);
    b.client.linkChanged?.(b.up);
  }

  /** Takes a link apart; both clients see it down. Frames waiting in the ports are dropped. */
  disconnect(): void {
    const peer = this.peer;
    if (peer === null) return;
    this.peer = null;
    peer.peer = null;
    for (const port of [this, peer]) {
      port.#dropSegments();
      port.#route();
      port.#blocked = false;
      port.client.linkChanged?.(port.up);
    }
  }

  /** True when frames pass: connected, and neither end's link is down. */
  get up(): boolean {
    return this.peer !== null && this.linkUp && this.peer.linkUp;
  }

  /** This end's own state, whatever the other end's is. */
  get linkUp(): boolean {
    return (this.#state & (ADMIN_DOWN | CARRIER_DOWN)) === 0;
  }

  /** set_link: an operator's wish. A NIC at the other end is told and goes along. */
  setLink(up: boolean): void {
    this.#state = up ? this.#state & ~ADMIN_DOWN : this.#state | ADMIN_DOWN;
    this.#linkMoved();
  }

  /** A backend's own connection came or went. */
  setCarrier(up: boolean): void {
    const state = up ? this.#state & ~CARRIER_DOWN : this.#state | CARRIER_DOWN;
    if (state === this.#state) return;
    this.#state = state;
    this.#linkMoved();
  }

  /** While a port is held, every frame from it or to it is refused: it waits where it is. The link's state is not touched. */
  hold(held: boolean): void {
    this.#state = held ? this.#state | HELD : this.#state & ~HELD;
    if (held) return;
    this.ready();
    this.peer?.ready();
  }

  #linkMoved(): void {
    this.client.linkChanged?.(this.up);
    const peer = this.peer;
    if (peer !== null) peer.client.linkChanged?.(peer.up);
    if (this.up) {
      // Whoever was refused before may offer again, in either direction.
      this.ready();
      peer?.ready();
    }
  }

  /** Puts filter stages, first to last, between this port's sends and its peer. */
  setStages(stages: readonly Stage[]): void {
    this.#stages = stages;
    this.#route();
  }

  #route(): void {
    const peer = this.peer;
    let next: Sink = peer === null ? NOWHERE : peer.client;
    // A stage may hand on frames at any time: then the rules of `send` hold behind it.
    if (this.#stages.length > 0) next = peer === null ? this.#unplugged : peer.#behindStages;
    for (let i = this.#stages.length - 1; i >= 0; i--) {
      const stage = this.#stages[i]!;
      stage.next = next;
      stage.previous = this.#stages[i - 1] ?? this.client;
      next = stage;
    }
    this.#entry = next;
  }

  /** Hands frames[from..to) to the peer; returns how many were taken, from the front. */
  send(frames: Int32Array, from: number, to: number): number {
    const peer = this.peer;
    if (peer === null) return this.#drop(frames, from, to);
    const state = this.#state | peer.#state;
    if (state !== 0) {
      if (state !== HELD) return this.#drop(frames, from, to);
      this.#blocked = true;
      this.stats.refusals++;
      return 0;
    }
    if (peer.#receiving) {
      peer.#offeredMeanwhile = true;
      this.#blocked = true;
      return 0;
    }
    if (this.#segmentsTo !== 0 && !this.#flushSegments(peer)) {
      this.#blocked = true;
      this.stats.refusals++;
      return 0;
    }
    const pool = this.context.pool;
    const t = pool.table;
    let bytes = 0;
    let facts = 0;
    let longest = 0;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      const total = t[frame + TOTAL]!;
      bytes += total;
      if (total > longest) longest = total;
      facts |= t[frame + FACTS]!;
      if (pool.debug) pool.check(frame);
    }
    if ((facts & ANY_OFFLOAD) !== 0 && peer.#accepts !== ACCEPT_ALL)
      return this.#sendAdapted(peer, frames, from, to);
    if (longest > MAX_FRAME_BYTES) return this.#sendAdapted(peer, frames, from, to);
    const taken = this.#offer(peer, frames, from, to);
    const stats = this.stats;
    stats.sentFrames += taken;
    if (taken === to - from) {
      stats.sentBytes += bytes;
    } else {
      // The frames taken are the receiver's now: count what is left instead.
      for (let i = from + taken; i < to; i++) bytes -= t[frames[i]! + TOTAL]!;
      stats.sentBytes += bytes;
      stats.refusals++;
      this.#blocked = true;
    }
    return taken;
  }

  #offer(peer: Port, frames: Int32Array, from: number, to: number): number {
    peer.#receiving = true;
    try {
      return this.#entry.receive(frames, from, to);
    } finally {
      peer.#received();
    }
  }

  #received(): void {
    this.#receiving = false;
    if (!this.#offeredMeanwhile) return;
    this.#offeredMeanwhile = false;
    this.context.loop.post(this.#announce);
  }

  /** Frames for this port's client that a stage hands on, within an offer or long after it. */
  #deliver(frames: Int32Array, from: number, to: number): number {
    const sender = this.peer;
    if (sender === null) return this.#drop(frames, from, to);
    const state = this.#state | sender.#state;
    if (state !== 0) return state === HELD ? 0 : sender.#drop(frames, from, to);
    if (this.#entered) {
      this.#offeredMeanwhile = true;
      return 0;
    }
    const outermost = !this.#receiving;
    this.#entered = true;
    this.#receiving = true;
    try {
      return this.client.receive(frames, from, to);
    } finally {
      this.#entered = false;
      if (outermost) this.#received();
    }
  }

  #drop(frames: Int32Array, from: number, to: number): number {
    if (this.peer === null) this.stats.dropNoPeer += to - from;
    else this.stats.dropLinkDown += to - from;
    this.context.pool.releaseAll(frames, from, to);
    return to - from;
  }

  /** One frame at a time, each made to fit what the peer accepts. */
  #sendAdapted(peer: Port, frames: Int32Array, from: number, to: number): number {
    const { pool, adapt } = this.context;
    const t = pool.table;
    const stats = this.stats;
    this.#segments ??= new Int32Array(SEGMENTS_MAX);
    const out = this.#segments;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      const total = t[frame + TOTAL]!;
      if (total > MAX_FRAME_BYTES) {
        stats.dropTooLong++;
        pool.release(frame);
        continue;
      }
      const facts = t[frame + FACTS]!;
      if (acceptable(facts, peer.#accepts)) {
        if (this.#offer(peer, frames, i, i + 1) === 0) {
          stats.refusals++;
          this.#blocked = true;
          return i - from;
        }
      } else {
        const count = adapt(pool, frame, peer.#accepts, out);
        if (count === 0) {
          stats.dropBadOffload++;
          continue;
        }
        stats.adaptedFrames++;
        this.#segmentsFrom = 0;
        this.#segmentsTo = count;
      }
      stats.sentFrames++;
      stats.sentBytes += total;
      if (this.#segmentsTo !== 0 && !this.#flushSegments(peer)) {
        this.#blocked = true;
        if (i + 1 < to) stats.refusals++;
        return i + 1 - from;
      }
    }
    return to - from;
  }

  /** Offers what a segmented frame left over; true when nothing is left. */
  #flushSegments(peer: Port): boolean {
    const taken = this.#offer(peer, this.#segments!, this.#segmentsFrom, this.#segmentsTo);
    this.#segmentsFrom += taken;
    if (this.#segmentsFrom < this.#segmentsTo) return false;
    this.#segmentsFrom = 0;
    this.#segmentsTo = 0;
    return true;
  }

  #dropSegments(): void {
    if (this.#segmentsTo === 0) return;
    this.context.pool.releaseAll(this.#segments!, this.#segmentsFrom, this.#segmentsTo);
    this.stats.dropNoPeer += this.#segmentsTo - this.#segmentsFrom;
    this.#segmentsFrom = 0;
    this.#segmentsTo = 0;
  }

  /** Frames of a segmented frame that wait for the peer. */
  get waiting(): number {
    return this.#segmentsTo - this.#segmentsFrom;
  }

  /** True when the peer refused frames and has not said `ready` since. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** This port's client can take frames again: lets a sender that was refused go on. */
  ready(): void {
    const sender = this.peer;
    if (sender === null || ((this.#state | sender.#state) & HELD) !== 0) return;
    if (this.#receiving) {
      this.#offeredMeanwhile = true;
      return;
    }
    if (sender.#segmentsTo !== 0 && !sender.#flushSegments(this)) return;
    sender.#blocked = false;
    const stages = sender.#stages;
    if (stages.length > 0) stages[stages.length - 1]!.peerReady();
    else sender.client.peerReady();
  }
}

/** Whether a client that accepts `accepts` takes a frame with these facts as it is. */
export function acceptable(facts: number, accepts: number): boolean {
  if ((facts & ANY_OFFLOAD) === 0) return true;
  if ((facts & 1) !== 0 && (accepts & ACCEPT_CSUM) === 0) return false;
  const gso = (facts & GSO_TYPES) >> 8;
  if (gso === 0) return true;
  if ((gso & 0x80) !== 0 && (accepts & ACCEPT_ECN) === 0) return false;
  switch (gso & 0x7f) {
    case 1:
      return (accepts & ACCEPT_TSO4) !== 0;
    case 3:
      return (accepts & ACCEPT_UFO) !== 0;
    case 4:
      return (accepts & ACCEPT_TSO6) !== 0;
    case 5:
      return (accepts & ACCEPT_USO) !== 0;
    default:
      return false;
  }
}

const NOWHERE: Sink = { receive: () => 0 };

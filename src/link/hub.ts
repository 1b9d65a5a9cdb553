/**
 * A hub repeats each frame it takes at one port to every other port, as one shared frame: nothing is copied.
 *
 * Each port has a small queue towards its peer for what the peer could not take at once. Under policy `any` (QEMU's) a frame that finds a
 * full queue is dropped at that port and counted there; under `all` the hub takes no more frames than the fullest queue has room for, so
 * the slowest port paces the sender and nothing is lost. Offloads pass as far as any of the other ports' peers takes them, and are done in
 * software for each peer that does not.
 */

import { REFS } from '../core/pool.ts';
import { type Client, type LinkContext, Port } from '../core/port.ts';
import { Ring } from '../core/ring.ts';

export type HubPolicy = 'any' | 'all';

/** Counters of one hub port beside those of its core port: `rx` came in at this port, `tx` was to go out of it. */
export class HubPortStats {
  rxFrames = 0;
  rxBlocked = 0;
  txQueued = 0;
  txDropQueueFull = 0;
}

/** Frames that may wait at one port; an operator sees how many do (`waiting`). */
const QUEUE_FRAMES = 256;

export class HubPort implements Client {
  readonly port: Port;
  readonly stats = new HubPortStats();
  /** Set while this port's peer was refused frames and waits for `ready`. */
  refused = false;
  readonly #hub: Hub;
  readonly #queue = new Ring(QUEUE_FRAMES);
  readonly #batch = new Int32Array(QUEUE_FRAMES);

  constructor(hub: Hub, name: string, context: LinkContext) {
    this.#hub = hub;
    this.port = new Port(name, 'hubport', this, context);
  }

  /** Frames waiting for this port's peer. */
  get waiting(): number {
    return this.#queue.length;
  }

  get room(): number {
    return this.#queue.room;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const taken = this.#hub.repeat(this, frames, from, to);
    this.stats.rxFrames += taken;
    if (taken < to - from) {
      this.stats.rxBlocked++;
      this.refused = true;
    }
    return taken;
  }

  /** Sends frames out of this port: all are consumed, those that find no room are dropped. */
  emit(frames: Int32Array, from: number, to: number): void {
    if (this.#queue.length === 0) from += this.port.send(frames, from, to);
    if (from === to) return;
    const queued = this.#queue.push(frames, from, to);
    this.stats.txQueued += queued;
    this.stats.txDropQueueFull += to - from - queued;
    this.port.context.pool.releaseAll(frames, from + queued, to);
  }

  peerReady(): void {
    while (this.#queue.length > 0) {
      const offered = this.#queue.peek(this.#batch, QUEUE_FRAMES);
      const taken = this.port.send(this.#batch, 0, offered);
      this.#queue.drop(taken);
      if (taken < offered) break;
    }
    if (this.#queue.room > 0) this.#hub.roomAgain();
  }

  peerAcceptsChanged(): void {
    this.#hub.updateAccepts();
  }

  /** Releases what waits here. */
  close(): void {
    this.port.disconnect();
    const count = this.#queue.pop(this.#batch, QUEUE_FRAMES);
    this.port.context.pool.releaseAll(this.#batch, 0, count);
  }
}

export class Hub {
  readonly id: number;
  readonly policy: HubPolicy;
  readonly ports: HubPort[] = [];
  readonly #context: LinkContext;

  constructor(id: number, context: LinkContext, policy: HubPolicy = 'any') {
    this.id = id;
    this.policy = policy;
    this.#context = context;
  }

  /** A new port; connect its `port` to a NIC or a backend. */
  addPort(name: string): HubPort {
    const port = new HubPort(this, name, this.#context);
    this.ports.push(port);
    this.updateAccepts();
    return port;
  }

  removePort(port: HubPort): void {
    const at = this.ports.indexOf(port);
    if (at < 0) return;
    this.ports.splice(at, 1);
    port.close();
    this.updateAccepts();
    this.roomAgain();
  }

  /** Takes frames from `source`'s peer and sends them out of every other port; returns how many it took. */
  repeat(source: HubPort, frames: Int32Array, from: number, to: number): number {
    const ports = this.ports;
    const others = ports.length - 1;
    if (this.policy === 'all') {
      let room = to - from;
      for (const port of ports) if (port !== source && port.room < room) room = port.room;
      to = from + room;
    }
    if (to === from) return 0;
    const { pool } = this.#context;
    if (others === 0) {
      pool.releaseAll(frames, from, to);
      return to - from;
    }
    if (others > 1) {
      const t = pool.table;
      for (let i = from; i < to; i++) t[frames[i]! + REFS] = t[frames[i]! + REFS]! + others - 1;
    }
    for (const port of ports) if (port !== source) port.emit(frames, from, to);
    return to - from;
  }

  /** A queue has room: whoever was refused may go on. */
  roomAgain(): void {
    for (const port of this.ports) {
      if (!port.refused) continue;
      port.refused = false;
      port.port.ready();
    }
  }

  /** What a port accepts is what any other port's peer accepts. */
  updateAccepts(): void {
    for (const port of this.ports) {
      let bits = 0;
      for (const other of this.ports) if (other !== port) bits |= other.port.peer?.accepts ?? 0;
      port.port.accepts = bits;
    }
  }

  close(): void {
    for (const port of [...this.ports]) this.removePort(port);
  }
}

/**
 * Which port of a switch an Ethernet address was last seen behind (IEEE 802.1D section 7.8): learned from source addresses, forgotten after
 * AGE_NS or with the port, bounded for each port so that one that floods addresses pushes out only its own.
 */

import type { Clock } from '../core/clock.ts';

const AGE_NS = 300e9;
const ADDRESSES_PER_PORT = 64;

interface Entry<P> {
  port: P;
  seenNs: number;
}

export class MacTable<P extends object> {
  readonly #clock: Clock;
  readonly #entries = new Map<number, Entry<P>>();
  readonly #counts = new Map<P, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Notes that the address at bytes[at..at + 6) is behind `port`; a group address is nobody's. */
  learn(bytes: Uint8Array, at: number, port: P): void {
    if ((bytes[at]! & 1) !== 0) return;
    const key = keyOf(bytes, at);
    const known = this.#entries.get(key);
    if (known !== undefined) {
      known.seenNs = this.#clock.nowNs();
      if (known.port === port) return;
      this.#makeRoom(port);
      this.#count(known.port, -1);
      known.port = port;
    } else {
      this.#makeRoom(port);
      this.#entries.set(key, { port, seenNs: this.#clock.nowNs() });
    }
    this.#count(port, 1);
  }

  /** The port of a destination address; null: unknown, or a group. */
  find(bytes: Uint8Array, at: number): P | null {
    if ((bytes[at]! & 1) !== 0) return null;
    const key = keyOf(bytes, at);
    const entry = this.#entries.get(key);
    if (entry === undefined) return null;
    if (this.#clock.nowNs() - entry.seenNs <= AGE_NS) return entry.port;
    this.#entries.delete(key);
    this.#count(entry.port, -1);
    return null;
  }

  /** Forgets everything behind a port that is gone. */
  forget(port: P): void {
    if (!this.#counts.delete(port)) return;
    for (const [key, entry] of this.#entries) if (entry.port === port) this.#entries.delete(key);
  }

  /** A full port loses its oldest address. */
  #makeRoom(port: P): void {
    if ((this.#counts.get(port) ?? 0) < ADDRESSES_PER_PORT) return;
    let oldest = -1;
    let oldestNs = Number.POSITIVE_INFINITY;
    for (const [key, entry] of this.#entries) {
      if (entry.port !== port || entry.seenNs >= oldestNs) continue;
      oldest = key;
      oldestNs = entry.seenNs;
    }
    this.#entries.delete(oldest);
    this.#count(port, -1);
  }

  #count(port: P, by: number): void {
    this.#counts.set(port, (this.#counts.get(port) ?? 0) + by);
  }
}

/** 48 bits fit a double exactly. */
function keyOf(bytes: Uint8Array, at: number): number {
  const high = (bytes[at]! << 8) | bytes[at + 1]!;
  const low =
    ((bytes[at + 2]! << 24) | (bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!) >>> 0;
  return high * 2 ** 32 + low;
}

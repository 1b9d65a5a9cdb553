/**
 * The neighbour cache, one for ARP (RFC 826, RFC 1122 section 2.3.2) and one for NDP (RFC 4861 section 7): the same states, the same timer, and
 * only the solicitation differs, which the owner brings.
 *
 * - An address that is asked for the first time is *incomplete*: a solicitation a second, three times, then the entry goes and whoever waits
 *   is told. Up to HELD_MAX frames wait meanwhile; the oldest makes room for a newer one.
 * - An answer makes it *reachable* for 30 s; afterwards the next use sends a unicast solicitation and goes on using the entry. Three without
 *   an answer remove it.
 * - An entry nobody asked for is made only when its owner says so (a request addressed to us), never for overheard traffic.
 *
 * The table is bounded: the entry that was used longest ago makes room.
 */

import type { Loop, Timer } from '../../../core/loop.ts';
import { copyBytes, equalBytes } from '../../../wire/bytes.ts';

const TRIES = 3;
const RETRY_NS = 1e9;
const REACHABLE_NS = 30e9;
const ENTRIES_MAX = 256;
const HELD_MAX = 8;

export class Neighbour {
  readonly address: Uint8Array;
  readonly mac = new Uint8Array(6);
  /** The MAC is known. */
  known = false;
  /** Solicitations sent since it was last confirmed; 0 while none is under way. */
  tries = 0;
  confirmedNs = 0;
  usedNs = 0;
  /** Frames that wait for the MAC. */
  readonly held: Uint8Array[] = [];

  constructor(address: Uint8Array) {
    this.address = address;
  }
}

export interface NeighbourOwner {
  /** Sends one solicitation: to the entry's MAC when it has one, else to the group. */
  solicit(entry: Neighbour): void;
  /** Sends a frame that waited; the MAC is known now. */
  release(entry: Neighbour, frame: Uint8Array): void;
  /** The MAC of an entry that was asked for has become known. */
  resolved(entry: Neighbour): void;
  /** Nobody answered for the address; its waiting frames are gone, `held` of them. */
  unresolved(entry: Neighbour, held: number): void;
}

export class Neighbours {
  readonly #loop: Loop;
  readonly #owner: NeighbourOwner;
  readonly #bytes: number;
  readonly #entries: Neighbour[] = [];
  readonly #timer: Timer;
  #last: Neighbour | null = null;

  /** `addressBytes`: 4 or 16. */
  constructor(loop: Loop, addressBytes: number, owner: NeighbourOwner) {
    this.#loop = loop;
    this.#owner = owner;
    this.#bytes = addressBytes;
    this.#timer = loop.timer(() => this.#tick());
  }

  get size(): number {
    return this.#entries.length;
  }

  /** The entry of an address, or null. */
  find(bytes: Uint8Array, offset: number): Neighbour | null {
    const last = this.#last;
    if (last !== null && equalBytes(last.address, 0, bytes, offset, this.#bytes)) return last;
    for (const entry of this.#entries) {
      if (equalBytes(entry.address, 0, bytes, offset, this.#bytes)) {
        this.#last = entry;
        return entry;
      }
    }
    return null;
  }

  /** The entry to send by: found or made, and being confirmed when that is due. */
  use(bytes: Uint8Array, offset: number): Neighbour {
    let entry = this.find(bytes, offset);
    const nowNs = this.#loop.clock.nowNs();
    if (entry === null) {
      entry = this.#add(bytes, offset, nowNs);
      this.#ask(entry);
    } else if (entry.known && entry.tries === 0 && nowNs - entry.confirmedNs > REACHABLE_NS) {
      this.#ask(entry);
    }
    entry.usedNs = nowNs;
    return entry;
  }

  /** Keeps a frame until the entry's MAC is known; returns how many older ones it pushed out. */
  hold(entry: Neighbour, frame: Uint8Array): number {
    entry.held.push(frame);
    if (entry.held.length <= HELD_MAX) return 0;
    entry.held.shift();
    return 1;
  }

  /** Somebody told the MAC of an address. Without `create` only an entry that exists learns it. */
  learn(bytes: Uint8Array, offset: number, macBytes: Uint8Array, macOffset: number, create: boolean): void {
    const nowNs = this.#loop.clock.nowNs();
    let entry = this.find(bytes, offset);
    if (entry === null) {
      if (!create) return;
      entry = this.#add(bytes, offset, nowNs);
    }
    copyBytes(entry.mac, 0, macBytes, macOffset, 6);
    const asked = entry.tries > 0 && !entry.known;
    entry.known = true;
    entry.tries = 0;
    entry.confirmedNs = nowNs;
    if (!asked) return;
    for (const frame of entry.held.splice(0)) this.#owner.release(entry, frame);
    this.#owner.resolved(entry);
  }

  /** Forgets everything: the link or our own address changed. */
  clear(): void {
    this.#timer.cancel();
    this.#last = null;
    for (const entry of this.#entries.splice(0)) this.#fail(entry);
  }

  close(): void {
    this.#timer.cancel();
    this.#entries.length = 0;
    this.#last = null;
  }

  #add(bytes: Uint8Array, offset: number, nowNs: number): Neighbour {
    if (this.#entries.length >= ENTRIES_MAX) this.#evict();
    const entry = new Neighbour(bytes.slice(offset, offset + this.#bytes));
    entry.usedNs = nowNs;
    this.#entries.push(entry);
    this.#last = entry;
    return entry;
  }

  #evict(): void {
    let oldest = this.#entries[0];
    for (const entry of this.#entries) if (entry.usedNs < oldest.usedNs) oldest = entry;
    this.#remove(oldest);
  }

  #remove(entry: Neighbour): void {
    this.#entries.splice(this.#entries.indexOf(entry), 1);
    if (this.#last === entry) this.#last = null;
    this.#fail(entry);
  }

  #fail(entry: Neighbour): void {
    const held = entry.held.length;
    entry.held.length = 0;
    this.#owner.unresolved(entry, held);
  }

  #ask(entry: Neighbour): void {
    entry.tries++;
    this.#owner.solicit(entry);
    if (!this.#timer.armed) this.#timer.armIn(RETRY_NS);
  }

  /** One timer for all: an entry that is first asked for while it runs has its second solicitation early. */
  #tick(): void {
    let waiting = false;
    for (const entry of this.#entries.slice()) {
      if (entry.tries === 0) continue;
      if (entry.tries >= TRIES) {
        this.#remove(entry);
        continue;
      }
      entry.tries++;
      this.#owner.solicit(entry);
      waiting = true;
    }
    if (waiting) this.#timer.armIn(RETRY_NS);
  }
}

/**
 * IPv4 link-local addresses (RFC 3927), for a link without a DHCP server: a random address of 169.254.1.0 to 169.254.254.255 is probed three
 * times, a second or two apart; when nobody has it, it is announced twice and used. A conflict picks another one; after ten conflicts one a
 * minute. Once it is in use, one conflict is answered with an announcement, a second one within 10 s gives the address up (section 2.5).
 */

import type { Random } from '../../../core/clock.ts';
import type { Loop, Timer } from '../../../core/loop.ts';
import { ARP_OP_REQUEST, type ArpPacket } from '../../../wire/arp.ts';
import type { Arp } from './arp.ts';

const PROBES = 3;
const PROBE_MIN_NS = 1e9;
const ANNOUNCE_WAIT_NS = 2e9;
const ANNOUNCEMENTS = 2;
const CONFLICTS_MAX = 10;
const CONFLICT_WAIT_NS = 60e9;
const DEFEND_NS = 10e9;

export interface LinkLocalEvents {
  bound(address: number): void;
  lost(): void;
}

export class LinkLocal {
  /** 0 while there is none. */
  address = 0;
  conflicts = 0;

  readonly #arp: Arp;
  readonly #loop: Loop;
  readonly #random: Random;
  readonly #events: LinkLocalEvents;
  readonly #timer: Timer;
  #candidate = 0;
  #probes = 0;
  #announcements = 0;
  #defendedNs = Number.NEGATIVE_INFINITY;

  constructor(arp: Arp, loop: Loop, random: Random, events: LinkLocalEvents) {
    this.#arp = arp;
    this.#loop = loop;
    this.#random = random;
    this.#events = events;
    this.#timer = loop.timer(() => this.#due());
  }

  get running(): boolean {
    return this.#candidate !== 0;
  }

  start(): void {
    this.stop();
    this.conflicts = 0;
    this.#choose(0);
  }

  stop(): void {
    this.#timer.cancel();
    this.#candidate = 0;
    this.address = 0;
  }

  #choose(waitNs: number): void {
    // The first and the last 256 addresses are reserved (section 2.1).
    this.#candidate = 0xa9fe0100 + (this.#random() % (254 * 256));
    this.#probes = 0;
    this.#announcements = 0;
    this.address = 0;
    this.#timer.armIn(waitNs);
  }

  #due(): void {
    if (this.#probes < PROBES) {
      this.#probes++;
      this.#arp.probe(this.#candidate);
      const last = this.#probes === PROBES;
      this.#timer.armIn(last ? ANNOUNCE_WAIT_NS : PROBE_MIN_NS * (1 + this.#random() / 0x1_0000_0000));
      return;
    }
    if (this.address === 0) {
      this.address = this.#candidate;
      this.#events.bound(this.address);
    }
    this.#arp.announce(this.address);
    if (++this.#announcements < ANNOUNCEMENTS) this.#timer.armIn(ANNOUNCE_WAIT_NS);
  }

  /** Every ARP packet of others passes by here. */
  arp(arp: ArpPacket): void {
    if (this.#candidate === 0) return;
    const claimed = arp.senderIp === this.#candidate;
    const probed = arp.senderIp === 0 && arp.targetIp === this.#candidate && arp.operation === ARP_OP_REQUEST;
    if (this.address === 0) {
      if (!claimed && !probed) return;
      this.conflicts++;
      this.#choose(this.conflicts >= CONFLICTS_MAX ? CONFLICT_WAIT_NS : PROBE_MIN_NS);
      return;
    }
    if (!claimed) return;
    const nowNs = this.#loop.clock.nowNs();
    if (nowNs - this.#defendedNs >= DEFEND_NS) {
      this.#defendedNs = nowNs;
      this.#arp.announce(this.address);
      return;
    }
    this.conflicts++;
    this.#events.lost();
    this.#choose(this.conflicts >= CONFLICTS_MAX ? CONFLICT_WAIT_NS : PROBE_MIN_NS);
  }
}

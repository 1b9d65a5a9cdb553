/** Echo requests of our own (RFC 792, RFC 4443), one identifier for each ping under way, retried once a second. */

import type { Random } from '../../../core/clock.ts';
import type { Loop, Timer } from '../../../core/loop.ts';
import { ICMP_ECHO_REQUEST, ICMP_HEADER_BYTES, writeIcmpEcho } from '../../../wire/icmp.ts';
import { ICMPV6_ECHO_REQUEST } from '../../../wire/icmpv6.ts';
import { IP_PROTOCOL_ICMP } from '../../../wire/ipv4.ts';
import { IP_PROTOCOL_ICMPV6 } from '../../../wire/ipv6.ts';
import { type IpAddress, sameAddress } from './address.ts';
import type { Interface } from './interface.ts';
import type { Ipv4 } from './ipv4.ts';
import type { Ipv6 } from './ipv6.ts';
import type { Packet } from './packet.ts';

const DATA_BYTES = 56;
const INTERVAL_NS = 1e9;

/** `rttNs` when it was answered; else why not. */
export interface PingResult {
  rttNs: number;
  /** Requests sent. */
  sent: number;
  problem: '' | 'timeout' | 'unreachable';
}

interface Request {
  readonly remote: IpAddress;
  readonly id: number;
  readonly timer: Timer;
  readonly tries: number;
  readonly sentNs: number[];
  readonly done: (result: PingResult) => void;
}

export class Pinger {
  readonly #interface: Interface;
  readonly #ipv4: Ipv4;
  readonly #ipv6: Ipv6;
  readonly #loop: Loop;
  readonly #random: Random;
  readonly #requests = new Map<number, Request>();

  constructor(iface: Interface, ipv4: Ipv4, ipv6: Ipv6, random: Random) {
    this.#interface = iface;
    this.#ipv4 = ipv4;
    this.#ipv6 = ipv6;
    this.#loop = iface.loop;
    this.#random = random;
  }

  /** Pings until the first answer, at most `tries` times, a second apart; `done` is called once, later. Returns a number for `cancel`. */
  ping(remote: IpAddress, tries: number, done: (result: PingResult) => void): number {
    let id = this.#random() & 0xffff;
    while (this.#requests.has(id)) id = (id + 1) & 0xffff;
    const timer = this.#loop.timer(() => this.#next(request));
    const request: Request = { remote, id, timer, tries, sentNs: [], done };
    this.#requests.set(id, request);
    timer.armIn(0);
    return id;
  }

  cancel(id: number): void {
    this.#requests.get(id)?.timer.cancel();
    this.#requests.delete(id);
  }

  get pending(): number {
    return this.#requests.size;
  }

  #next(request: Request): void {
    const layer = request.remote.length === 4 ? this.#ipv4 : this.#ipv6;
    if (request.sentNs.length >= request.tries) {
      // Whether nobody answers, or nobody is there: the cache may be about to say so itself.
      this.#finish(request, -1, layer.hop(request.remote)?.known ? 'timeout' : 'unreachable');
      return;
    }
    request.sentNs.push(this.#loop.clock.nowNs());
    const { remote, id } = request;
    const sequence = request.sentNs.length;
    if (layer.sourceFor(remote) === null) {
      this.#finish(request, -1, 'unreachable');
      return;
    }
    request.timer.armIn(INTERVAL_NS);
    const protocol = remote.length === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6;
    const at = layer.begin(remote, 0, protocol);
    if (at < 0) return;
    const memory = this.#interface.memory;
    for (let i = 0; i < DATA_BYTES; i++) memory[at + ICMP_HEADER_BYTES + i] = 0x10 + i;
    if (remote.length === 4)
      layer.end(writeIcmpEcho(memory, at, ICMP_ECHO_REQUEST, id, sequence, DATA_BYTES));
    else this.#ipv6.sendEcho(at, ICMPV6_ECHO_REQUEST, id, sequence, DATA_BYTES);
  }

  #finish(request: Request, rttNs: number, problem: PingResult['problem']): void {
    request.timer.cancel();
    this.#requests.delete(request.id);
    request.done({ rttNs, problem, sent: request.sentNs.length });
  }

  /** An echo reply arrived. False: it answers nothing we asked. */
  reply(packet: Packet, id: number, sequence: number): boolean {
    const request = this.#requests.get(id);
    if (request === undefined || sequence < 1 || sequence > request.sentNs.length) return false;
    const from = packet.bytes.subarray(packet.src, packet.src + packet.addressBytes);
    if (!sameAddress(from, request.remote)) return false;
    this.#finish(request, this.#loop.clock.nowNs() - request.sentNs[sequence - 1], '');
    return true;
  }

  /** Nobody answers for this address on the link. */
  unresolved(remote: Uint8Array): void {
    for (const request of [...this.#requests.values()]) {
      if (sameAddress(remote, request.remote)) this.#finish(request, -1, 'unreachable');
    }
  }

  close(): void {
    for (const request of this.#requests.values()) request.timer.cancel();
    this.#requests.clear();
  }
}

/**
 * A stub resolver (RFC 1035, RFC 1123 section 6.1): one question to one server after the other, each tried twice with 2 s and 4 s to answer, from a
 * random port with a random id (RFC 5452). Any well-formed reply to the question ends it, "no such name" and "server failure" included.
 * Truncated replies are used as far as they go: addresses come first. Nothing is cached.
 */

import type { Random } from '../../../core/clock.ts';
import type { Loop, Timer } from '../../../core/loop.ts';
import { equalBytes } from '../../../wire/bytes.ts';
import {
  DNS_HEADER_BYTES,
  DNS_PORT,
  DNS_TYPE_A,
  DNS_TYPE_AAAA,
  DnsMessage,
  skipDomainName,
  writeDnsQuery,
} from '../../../wire/dns.ts';
import { type IpAddress, sameAddress } from './address.ts';
import type { Interface } from './interface.ts';
import type { IpProblem, Packet } from './packet.ts';
import type { Udp, UdpHandler } from './udp.ts';

const TRY_NS = [2e9, 4e9];
const QUERY_MAX_BYTES = 512;

export type DnsOutcome =
  | { kind: 'answer'; server: IpAddress; addresses: IpAddress[] }
  /** The server answered, with an error: 3 is "no such name" (RFC 1035 section 4.1.1). */
  | { kind: 'error'; server: IpAddress; rcode: number }
  /** Nobody answered, or there is nobody to ask. */
  | { kind: 'timeout' | 'refused' | 'no-server' | 'bad-name' };

const RCODES = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED'];

export function rcodeName(rcode: number): string {
  return RCODES[rcode] ?? `RCODE ${rcode}`;
}

export class Resolver {
  /** Asked in this order. */
  servers: IpAddress[] = [];
  readonly #interface: Interface;
  readonly #udp: Udp;
  readonly #random: Random;
  readonly #pending = new Set<Query>();

  constructor(iface: Interface, udp: Udp, random: Random) {
    this.#interface = iface;
    this.#udp = udp;
    this.#random = random;
  }

  /** Asks for the addresses of a name; `done` is called once, later. `type`: DNS_TYPE_A or DNS_TYPE_AAAA. */
  resolve(name: string, type: number, done: (outcome: DnsOutcome) => void): void {
    const query = new Query(
      this.#interface,
      this.#udp,
      this.#random,
      this.servers.slice(),
      name,
      type,
      (outcome) => {
        this.#pending.delete(query);
        done(outcome);
      },
    );
    this.#pending.add(query);
    query.start();
  }

  close(): void {
    for (const query of this.#pending) query.close();
    this.#pending.clear();
  }
}

class Query implements UdpHandler {
  readonly #interface: Interface;
  readonly #udp: Udp;
  readonly #loop: Loop;
  readonly #servers: IpAddress[];
  readonly #type: number;
  readonly #done: (outcome: DnsOutcome) => void;
  readonly #timer: Timer;
  readonly #question = new Uint8Array(QUERY_MAX_BYTES);
  readonly #length: number;
  readonly #id: number;
  readonly #message = new DnsMessage();
  #port = 0;
  #tries = 0;
  #refused = 0;
  #ended = false;

  constructor(
    iface: Interface,
    udp: Udp,
    random: Random,
    servers: IpAddress[],
    name: string,
    type: number,
    done: (outcome: DnsOutcome) => void,
  ) {
    this.#interface = iface;
    this.#udp = udp;
    this.#loop = iface.loop;
    this.#servers = servers;
    this.#type = type;
    this.#done = done;
    this.#id = random() & 0xffff;
    this.#length = writeDnsQuery(this.#question, 0, QUERY_MAX_BYTES, this.#id, name, type);
    this.#timer = iface.loop.timer(() => this.#next());
  }

  start(): void {
    if (this.#length >= 0) this.#port = this.#udp.open(0, this);
    this.#timer.armIn(0);
  }

  close(): void {
    this.#ended = true;
    this.#timer.cancel();
    if (this.#port !== 0) this.#udp.close(this.#port);
  }

  #finish(outcome: DnsOutcome): void {
    if (this.#ended) return;
    this.close();
    this.#done(outcome);
  }

  #next(): void {
    const round = this.#servers.length === 0 ? 0 : Math.floor(this.#tries / this.#servers.length);
    if (this.#length < 0) {
      this.#finish({ kind: 'bad-name' });
      return;
    }
    if (this.#servers.length === 0) {
      this.#finish({ kind: 'no-server' });
      return;
    }
    if (round >= TRY_NS.length) {
      this.#finish({ kind: this.#refused >= this.#tries ? 'refused' : 'timeout' });
      return;
    }
    const server = this.#servers[this.#tries % this.#servers.length];
    this.#tries++;
    this.#timer.arm(this.#loop.clock.nowNs() + TRY_NS[round]);
    const at = this.#udp.begin(server.length === 4 ? 4 : 6, server, 0, this.#port, DNS_PORT);
    if (at < 0) return;
    this.#interface.memory.set(this.#question.subarray(0, this.#length), at);
    this.#udp.end(this.#length);
  }

  datagram(packet: Packet, srcPort: number, payload: number, payloadEnd: number): void {
    const { bytes } = packet;
    const message = this.#message;
    const stats = this.#interface.stats;
    const from = bytes.subarray(packet.src, packet.src + packet.addressBytes);
    const server = this.#servers.find((known) => sameAddress(known, from));
    if (server === undefined || srcPort !== DNS_PORT) {
      stats.rxDropUnexpected++;
      return;
    }
    if (!message.parse(bytes, payload, payloadEnd)) {
      stats.rxDropMalformed++;
      return;
    }
    if (!message.isReply || message.id !== this.#id || !this.#echoesQuestion(bytes, payload, payloadEnd)) {
      stats.rxDropUnexpected++;
      return;
    }
    if (message.rcode !== 0) {
      this.#finish({ kind: 'error', server, rcode: message.rcode });
      return;
    }
    const size = this.#type === DNS_TYPE_AAAA ? 16 : 4;
    const addresses: IpAddress[] = [];
    for (const record of message.answers) {
      if (record.type === this.#type && record.dataBytes === size) {
        addresses.push(bytes.slice(record.dataOffset, record.dataOffset + size));
      }
    }
    this.#finish({ kind: 'answer', server, addresses });
  }

  /** The reply repeats our question; one that could not read it may leave it out. Letters may differ in case. */
  #echoesQuestion(bytes: Uint8Array, start: number, end: number): boolean {
    if (bytes[start + 4] === 0 && bytes[start + 5] === 0) return this.#message.rcode !== 0;
    const at = start + DNS_HEADER_BYTES;
    const nameEnd = skipDomainName(bytes, at, end);
    if (nameEnd - at !== this.#length - DNS_HEADER_BYTES - 4) return false;
    for (let i = 0; at + i < nameEnd; i++) {
      if (lower(bytes[at + i]) !== lower(this.#question[DNS_HEADER_BYTES + i])) return false;
    }
    return equalBytes(bytes, nameEnd, this.#question, this.#length - 4, 4);
  }

  problem(problem: IpProblem, remote: Uint8Array, remotePort: number): void {
    if (problem !== 'refused' || remotePort !== DNS_PORT) return;
    if (!this.#servers.some((server) => sameAddress(server, remote))) return;
    // The next one at once: this one told that it does not listen.
    this.#refused++;
    this.#timer.armIn(0);
  }
}

function lower(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 32 : byte;
}

export { DNS_TYPE_A, DNS_TYPE_AAAA };

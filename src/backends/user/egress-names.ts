/**
 * Which addresses the `egress` rules by name stand for: learnt from the answers of name servers as they pass to the guest (UDP and TCP), and
 * from `hosts`.
 *
 *     the guest asks for www.example.org ─▶ answer: CNAME cdn.example.net, A 192.0.2.7, TTL 300
 *     192.0.2.7 belongs to allow:…:*.example.org for 300 s and GRACE_NS
 *
 * An allow rule counts the name that was asked for, a deny rule every name on the way to the address (its aliases too). What is known this way
 * is what this network's name server said: a guest that knows an address from elsewhere, asks another server or asks over HTTPS is judged
 * as if the address had no name. So names are sound for allowing with a deny behind; denying by name alone keeps honest guests away
 * from a name, no more. Servers that share an address share its verdict. A flow that was let through lives on when its name's time is over.
 *
 * An answer is read no further than DnsMessage goes (64 records); the table holds ENTRIES_MAX pairs of address and rule, the oldest giving way.
 */

import type { OwnName } from '../../config/netdevs/user-egress.ts';
import { formatIpv4, formatIpv6, u16be } from '../../wire/bytes.ts';
import {
  DNS_HEADER_BYTES,
  DNS_TYPE_A,
  DNS_TYPE_AAAA,
  DNS_TYPE_CNAME,
  DnsMessage,
  readDomainName,
} from '../../wire/dns.ts';

const ENTRIES_MAX = 8192;
/** Guests use an address a little longer than they were told. */
const GRACE_NS = 60e9;
const TTL_MAX_SECONDS = 86_400;

/** A rule as this file needs it. */
export interface NameRule {
  readonly allow: boolean;
  readonly name: string | undefined;
}

export class EgressNames {
  /** False: there are no rules by name, and no answer needs to be looked at. */
  readonly active: boolean;
  /** Pairs that gave way to newer ones before their time. */
  evicted = 0;
  readonly #rules: readonly NameRule[];
  /** By address and rule: until when, ns. In the order they were learnt. */
  readonly #until = new Map<string, number>();
  readonly #message = new DnsMessage();

  constructor(rules: readonly NameRule[], hosts: readonly OwnName[]) {
    this.#rules = rules;
    this.active = rules.some(({ name }) => name !== undefined);
    for (const { name, address } of hosts) {
      const key = address.family === 4 ? formatIpv4(address.value) : formatIpv6(address.bytes);
      rules.forEach((rule, i) => {
        if (matches(rule, name)) this.#until.set(`${key} ${i}`, Number.POSITIVE_INFINITY);
      });
    }
  }

  /** How many pairs of address and rule are known. */
  get size(): number {
    return this.#until.size;
  }

  /** Whether rule number `rule` stands for `address`, textual, now. */
  covers(rule: number, address: string, nowNs: number): boolean {
    const key = `${address} ${rule}`;
    const until = this.#until.get(key);
    if (until === undefined) return false;
    if (until > nowNs) return true;
    this.#until.delete(key);
    return false;
  }

  /** A message of a name server on its way to the guest: bytes[start..end). What cannot be read teaches nothing. */
  learn(bytes: Uint8Array, start: number, end: number, nowNs: number): void {
    const message = this.#message;
    if (!this.active || end - start < DNS_HEADER_BYTES || u16be(bytes, start + 4) !== 1) return;
    if (!message.parse(bytes, start, end) || !message.isReply || message.rcode !== 0) return;
    const asked = readDomainName(bytes, start, start + DNS_HEADER_BYTES, end)?.toLowerCase();
    if (asked === undefined) return;
    const names = [asked];
    for (const record of message.answers) {
      if (!names.includes(record.name.toLowerCase())) continue;
      const { type, dataOffset, dataBytes } = record;
      if (type === DNS_TYPE_CNAME) {
        const alias = readDomainName(bytes, start, dataOffset, end);
        if (alias !== null) names.push(alias.toLowerCase());
      } else if (type === DNS_TYPE_A && dataBytes === 4) {
        const text = bytes.subarray(dataOffset, dataOffset + 4).join('.');
        this.#note(text, names, record.ttlSeconds, nowNs);
      } else if (type === DNS_TYPE_AAAA && dataBytes === 16) {
        this.#note(formatIpv6(bytes, dataOffset), names, record.ttlSeconds, nowNs);
      }
    }
  }

  #note(address: string, names: readonly string[], ttlSeconds: number, nowNs: number): void {
    const until = nowNs + Math.min(ttlSeconds, TTL_MAX_SECONDS) * 1e9 + GRACE_NS;
    for (let i = 0; i < this.#rules.length; i++) {
      const rule = this.#rules[i];
      if (!(rule.allow ? matches(rule, names[0]) : names.some((name) => matches(rule, name)))) continue;
      const key = `${address} ${i}`;
      const before = this.#until.get(key) ?? 0;
      if (before >= until) continue;
      this.#until.delete(key);
      if (this.#until.size >= ENTRIES_MAX) this.#makeRoom(nowNs);
      this.#until.set(key, until);
    }
  }

  #makeRoom(nowNs: number): void {
    for (const [key, until] of this.#until) if (until <= nowNs) this.#until.delete(key);
    if (this.#until.size < ENTRIES_MAX) return;
    for (const [key, until] of this.#until) {
      if (until === Number.POSITIVE_INFINITY) continue;
      this.#until.delete(key);
      this.evicted++;
      return;
    }
  }
}

/** Whether a name, in lower case, is the rule's or below it. */
function matches({ name: wanted }: NameRule, name: string): boolean {
  if (wanted === undefined) return false;
  return wanted.startsWith('*.')
    ? name.endsWith(wanted.slice(1)) && name.length >= wanted.length
    : name === wanted;
}

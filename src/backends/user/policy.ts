/**
 * Where a guest's packet may go, and what it is called on the host. The order: addresses that name no single host, this network's own
 * (the gateway is the host's loopback, the name server its resolver, nothing else lives here), the switches (`restrict`, `loopback`,
 * `metadata`, `deny`), the `egress` rules in order, the world. Each decision is counted for what decided it, and told (decision-log.ts).
 *
 * Addresses that mean the host itself to the host's kernel (0.0.0.0, 127/8, ::, ::1, and IPv4 mapped into IPv6) are never passed on: else
 * they would walk around `loopback=off`.
 */

import { type IpAddress, parseIp } from '../../config/address.ts';
import type { UserConfig, UserIpv4, UserIpv6 } from '../../config/netdevs/user.ts';
import type { EgressRule } from '../../config/netdevs/user-egress.ts';
import type { Clock } from '../../core/clock.ts';
import { equalBytes, formatIpv4, formatIpv6, u16be, u32be } from '../../wire/bytes.ts';
import { isMulticastIpv4 } from '../../wire/ipv4.ts';
import { isLoopbackIpv6, isMulticastIpv6, isUnspecifiedIpv6 } from '../../wire/ipv6.ts';
import type { DecisionLog } from './decision-log.ts';
import type { EgressNames } from './egress-names.ts';

/** Send it to `address`. */
export const TO_HOST = 0;
/** The gateway: the host's loopback, `address`. */
export const TO_LOOPBACK = 1;
/** The name server's address. */
export const TO_RESOLVER = 2;
/** Names no single host, or nobody on this network. */
export const NOWHERE = 3;
/** An address of this network that nobody has. */
export const NOBODY = 4;
export const RESTRICTED = 5;
export const DENIED = 6;

/** Where clouds serve what only the host should know; 169.254.0.0/16 is link-local as a whole. */
const METADATA = [
  parseIp('169.254.0.0')!,
  parseIp('fd00:ec2::254')!,
  parseIp('fd20:ce::254')!,
  parseIp('100.100.100.200')!,
  parseIp('168.63.129.16')!,
  parseIp('192.0.0.192')!,
].map((address, i) => ({ address, prefixLength: i === 0 ? 16 : address.family === 4 ? 32 : 128 }));

/** What decides, and how often it did. */
export interface Decider {
  readonly rule: string;
  hits: number;
}

export class Policy {
  /** The host address of the last verdict TO_HOST or TO_LOOPBACK. */
  address = '';
  readonly #config: UserConfig;
  readonly #egress: readonly EgressRule[];
  readonly #names: EgressNames;
  readonly #log: DecisionLog;
  readonly #clock: Clock;
  readonly #restrict: Decider = { rule: 'restrict=on', hits: 0 };
  readonly #loopbackOff: Decider = { rule: 'loopback=off', hits: 0 };
  readonly #metadataOff: Decider = { rule: 'metadata=off', hits: 0 };
  readonly #deny: readonly Decider[];
  readonly #rules: readonly Decider[];
  readonly #otherwise: Decider = { rule: 'otherwise allow', hits: 0 };
  #decider: Decider = this.#otherwise;
  readonly #v4: UserIpv4 | undefined;
  readonly #v6: UserIpv6 | undefined;

  constructor(config: UserConfig, names: EgressNames, log: DecisionLog, clock: Clock) {
    this.#config = config;
    this.#names = names;
    this.#log = log;
    this.#clock = clock;
    this.#egress = config.egress;
    this.#rules = config.egress.map(({ text }) => ({ rule: text, hits: 0 }));
    this.#deny = config.deny.map(({ address, prefixLength }) => ({
      rule: `deny=${address.text}/${prefixLength}`,
      hits: 0,
    }));
    this.#v4 = config.ipv4;
    this.#v6 = config.ipv6;
  }

  /** The verdict on the destination at `at` of `bytes`, 4 or 16 bytes as `version` says; `port` 0 for ICMP. */
  decide(
    bytes: Uint8Array,
    version: number,
    at: number,
    protocol: 'tcp' | 'udp' | 'icmp',
    port: number,
  ): number {
    let verdict = version === 4 ? this.#decideV4(bytes, at) : this.#decideV6(bytes, at);
    if (verdict === TO_HOST) verdict = this.#decideByRules(bytes, version, at, protocol, port);
    if (verdict !== TO_HOST && verdict !== DENIED && verdict !== RESTRICTED) return verdict;
    this.#decider.hits++;
    // Where no rule was written, going out is no decision.
    if (verdict !== TO_HOST || this.#rules.length > 0) {
      const address = version === 4 ? formatIpv4(u32be(bytes, at)) : formatIpv6(bytes, at);
      this.#log.tell(verdict === TO_HOST, protocol, address, port, this.#decider.rule);
    }
    return verdict;
  }

  #decideByRules(bytes: Uint8Array, version: number, at: number, protocol: string, port: number): number {
    for (let i = 0; i < this.#egress.length; i++) {
      const rule = this.#egress[i];
      if (rule.protocol !== 'any' && rule.protocol !== protocol) continue;
      if (protocol !== 'icmp' && (port < rule.firstPort || port > rule.lastPort)) continue;
      const matches =
        rule.name === undefined
          ? covers(rule.address, rule.prefixLength, bytes, version, at)
          : this.#names.covers(i, this.address, this.#clock.nowNs());
      if (!matches) continue;
      this.#decider = this.#rules[i];
      return rule.allow ? TO_HOST : DENIED;
    }
    this.#decider = this.#otherwise;
    return TO_HOST;
  }

  /** What is in force, in the order it is asked, and how often each decided. */
  get deciders(): readonly Readonly<Decider>[] {
    const { restrict, loopback, metadata } = this.#config;
    const all = [
      ...(restrict ? [this.#restrict] : []),
      ...(loopback ? [] : [this.#loopbackOff]),
      ...(metadata ? [] : [this.#metadataOff]),
      ...this.#deny,
      ...this.#rules,
    ];
    return all.length === 0 ? [] : [...all, this.#otherwise];
  }

  /** DENIED by the switches' lists, else TO_HOST. */
  #decideByLists(bytes: Uint8Array, version: number, at: number): number {
    if (!this.#config.metadata) {
      for (const { address, prefixLength } of METADATA) {
        if (!covers(address, prefixLength, bytes, version, at)) continue;
        this.#decider = this.#metadataOff;
        return DENIED;
      }
    }
    for (let i = 0; i < this.#deny.length; i++) {
      const { address, prefixLength } = this.#config.deny[i];
      if (!covers(address, prefixLength, bytes, version, at)) continue;
      this.#decider = this.#deny[i];
      return DENIED;
    }
    return TO_HOST;
  }

  #decideV4(bytes: Uint8Array, at: number): number {
    const net = this.#v4;
    if (net === undefined) return NOWHERE;
    const dst = u32be(bytes, at);
    if (dst === net.dns.value) return TO_RESOLVER;
    if (dst === net.host.value) return this.#loopback('127.0.0.1');
    if (dst >>> 24 === 0 || dst >>> 24 === 127 || isMulticastIpv4(dst) || dst >>> 28 === 15) return NOWHERE;
    if ((dst & net.mask.value) >>> 0 === net.net.value) return NOBODY;
    this.#decider = this.#restrict;
    if (this.#config.restrict) return RESTRICTED;
    this.address = formatIpv4(dst);
    return this.#decideByLists(bytes, 4, at);
  }

  #decideV6(bytes: Uint8Array, at: number): number {
    const net = this.#v6;
    if (net === undefined) return NOWHERE;
    if (equalBytes(bytes, at, net.dns.bytes, 0, 16)) return TO_RESOLVER;
    if (equalBytes(bytes, at, net.host.bytes, 0, 16)) return this.#loopback('::1');
    if (isMulticastIpv6(bytes, at) || isUnspecifiedIpv6(bytes, at) || isLoopbackIpv6(bytes, at))
      return NOWHERE;
    // Mapped and compatible IPv4 (::ffff:0:0/96, ::/96), link-local.
    if (leadingZeros(bytes, at, 10) && (u16be(bytes, at + 10) === 0xffff || u16be(bytes, at + 10) === 0))
      return NOWHERE;
    if (bytes[at] === 0xfe && (bytes[at + 1] & 0xc0) === 0x80) {
      const gateway = leadingZeros(bytes, at + 2, 6) && equalBytes(bytes, at + 8, net.host.bytes, 8, 8);
      return gateway ? this.#loopback('::1') : NOBODY;
    }
    if (samePrefix(bytes, at, net.prefix.bytes, net.prefixLength)) return NOBODY;
    this.#decider = this.#restrict;
    if (this.#config.restrict) return RESTRICTED;
    this.address = formatIpv6(bytes, at);
    return this.#decideByLists(bytes, 6, at);
  }

  #loopback(address: string): number {
    this.#decider = this.#restrict;
    if (this.#config.restrict) return RESTRICTED;
    this.#decider = this.#loopbackOff;
    if (!this.#config.loopback) return DENIED;
    this.address = address;
    return TO_LOOPBACK;
  }
}

function sameNetV4(a: number, b: number, length: number): boolean {
  return length === 0 || (a ^ b) >>> (32 - length) === 0;
}

function covers(
  net: IpAddress | undefined,
  length: number,
  bytes: Uint8Array,
  version: number,
  at: number,
): boolean {
  if (net === undefined) return true;
  if (net.family !== version) return false;
  return net.family === 4
    ? sameNetV4(u32be(bytes, at), net.value, length)
    : samePrefix(bytes, at, net.bytes, length);
}

function leadingZeros(bytes: Uint8Array, at: number, count: number): boolean {
  for (let i = 0; i < count; i++) if (bytes[at + i] !== 0) return false;
  return true;
}

export function samePrefix(bytes: Uint8Array, at: number, prefix: Uint8Array, length: number): boolean {
  const whole = length >> 3;
  if (!equalBytes(bytes, at, prefix, 0, whole)) return false;
  const rest = length & 7;
  return rest === 0 || ((bytes[at + whole] ^ prefix[whole]) & (0xff00 >> rest) & 0xff) === 0;
}

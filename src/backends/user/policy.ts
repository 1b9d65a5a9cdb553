/**
 * Where a guest's packet may go, and what it is called on the host. The order: addresses that name no single host, this network's own
 * (the gateway is the host's loopback, the name server its resolver, nothing else lives here), the switches (`restrict`, `loopback`,
 * `deny`), the `egress` rules in order, the world.
 *
 * Addresses that mean the host itself to the host's kernel (0.0.0.0, 127/8, ::, ::1, and IPv4 mapped into IPv6) are never passed on: else
 * they would walk around `loopback=off`.
 */

import type { IpAddress } from '../../config/address.ts';
import type { UserConfig, UserIpv4, UserIpv6 } from '../../config/netdevs/user.ts';
import type { EgressRule } from '../../config/netdevs/user-egress.ts';
import { equalBytes, formatIpv4, formatIpv6, u16be, u32be } from '../../wire/bytes.ts';
import { isMulticastIpv4 } from '../../wire/ipv4.ts';
import { isLoopbackIpv6, isMulticastIpv6, isUnspecifiedIpv6 } from '../../wire/ipv6.ts';

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

export class Policy {
  /** The host address of the last verdict TO_HOST or TO_LOOPBACK. */
  address = '';
  readonly #config: UserConfig;
  readonly #rules: { readonly rule: EgressRule; hits: number }[];
  readonly #v4: UserIpv4 | undefined;
  readonly #v6: UserIpv6 | undefined;

  constructor(config: UserConfig) {
    this.#config = config;
    this.#rules = config.egress.map((rule) => ({ rule, hits: 0 }));
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
    const verdict = version === 4 ? this.#decideV4(u32be(bytes, at)) : this.#decideV6(bytes, at);
    if (verdict !== TO_HOST) return verdict;
    for (let i = 0; i < this.#rules.length; i++) {
      const { rule } = this.#rules[i];
      if (rule.protocol !== 'any' && rule.protocol !== protocol) continue;
      if (protocol !== 'icmp' && (port < rule.firstPort || port > rule.lastPort)) continue;
      if (!covers(rule.address, rule.prefixLength, bytes, version, at)) continue;
      this.#rules[i].hits++;
      return rule.allow ? TO_HOST : DENIED;
    }
    return TO_HOST;
  }

  /** How often each rule decided, for listings. */
  get rules(): readonly { readonly rule: EgressRule; readonly hits: number }[] {
    return this.#rules;
  }

  #decideV4(dst: number): number {
    const net = this.#v4;
    if (net === undefined) return NOWHERE;
    if (dst === net.dns.value) return TO_RESOLVER;
    if (dst === net.host.value) return this.#loopback('127.0.0.1');
    if (dst >>> 24 === 0 || dst >>> 24 === 127 || isMulticastIpv4(dst) || dst >>> 28 === 15) return NOWHERE;
    if ((dst & net.mask.value) >>> 0 === net.net.value) return NOBODY;
    if (this.#config.restrict) return RESTRICTED;
    for (const { address, prefixLength } of this.#config.deny) {
      if (address.family === 4 && sameNetV4(dst, address.value, prefixLength)) return DENIED;
    }
    this.address = formatIpv4(dst);
    return TO_HOST;
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
    if (this.#config.restrict) return RESTRICTED;
    for (const rule of this.#config.deny) {
      if (rule.address.family === 6 && samePrefix(bytes, at, rule.address.bytes, rule.prefixLength))
        return DENIED;
    }
    this.address = formatIpv6(bytes, at);
    return TO_HOST;
  }

  #loopback(address: string): number {
    if (this.#config.restrict) return RESTRICTED;
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

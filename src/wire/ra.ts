/**
 * Router advertisements (RFC 4861 section 4.2) with the options a NAT network tells: the router's MAC, MTU, prefixes,
 * DNS servers and search list (RFC 8106). Seldom sent, so they are built from, and read into, plain objects.
 */

import { copyBytes, putU16be, putU32be, u16be, u32be } from './bytes.ts';
import { encodeDomainList, readDomainName, skipDomainName } from './dns.ts';
import { ICMPV6_CODE, ICMPV6_ROUTER_ADVERTISEMENT, ICMPV6_TYPE, writeIcmpv6 } from './icmpv6.ts';
import { IPV6_ADDRESS_BYTES } from './ipv6.ts';
import {
  findLinkAddress,
  findNdpOption,
  NDP_HOP_LIMIT,
  NDP_OPT_DNSSL,
  NDP_OPT_MTU,
  NDP_OPT_PREFIX,
  NDP_OPT_RDNSS,
  NDP_OPT_SOURCE_LINK_ADDRESS,
  ndpOptionsOk,
  writeLinkAddress,
} from './ndp.ts';

const HOP_LIMIT = 4;
const FLAGS = 5;
const ROUTER_LIFETIME = 6;
const REACHABLE_TIME = 8;
const RETRANS_TIMER = 12;
const OPTIONS = 16;
const FLAG_MANAGED = 0x80;
const FLAG_OTHER = 0x40;

const PREFIX_OPTION_BYTES = 32;
const PREFIX_ON_LINK = 0x80;
const PREFIX_AUTONOMOUS = 0x40;
const MTU_OPTION_BYTES = 8;
const OPTION_MAX_BYTES = 255 * 8;

export interface RaPrefix {
  /** 16 bytes. */
  prefix: Uint8Array;
  prefixLength: number;
  onLink: boolean;
  autonomous: boolean;
  validSeconds: number;
  preferredSeconds: number;
}

export interface RouterAdvertisement {
  hopLimit: number;
  /** Addresses come by DHCPv6. */
  managed: boolean;
  /** Other settings, such as DNS, come by DHCPv6. */
  other: boolean;
  /** 0: not a default router. */
  lifetimeSeconds: number;
  reachableMs: number;
  retransMs: number;
  /** 6 bytes, or `null` when not told. */
  routerMac: Uint8Array | null;
  /** 0: not told. */
  mtu: number;
  prefixes: RaPrefix[];
  dnsLifetimeSeconds: number;
  /** 16 bytes each. */
  dnsServers: Uint8Array[];
  searchDomains: string[];
}

/**
 * Writes an advertisement before `end`, its ICMPv6 checksum left 0. Returns its length, or -1 when it does not fit.
 */
export function writeRouterAdvertisement(
  bytes: Uint8Array,
  offset: number,
  end: number,
  ra: RouterAdvertisement,
): number {
  const domains = encodeDomainList(ra.searchDomains);
  const dnsslBytes = domains.length === 0 ? 0 : 8 + Math.ceil(domains.length / 8) * 8;
  const rdnssBytes = ra.dnsServers.length === 0 ? 0 : 8 + ra.dnsServers.length * IPV6_ADDRESS_BYTES;
  if (dnsslBytes > OPTION_MAX_BYTES || rdnssBytes > OPTION_MAX_BYTES) return -1;
  let length = OPTIONS + ra.prefixes.length * PREFIX_OPTION_BYTES + rdnssBytes + dnsslBytes;
  if (ra.routerMac) length += 8;
  if (ra.mtu) length += MTU_OPTION_BYTES;
  if (length > end - offset) return -1;

  const flags = (ra.managed ? FLAG_MANAGED : 0) | (ra.other ? FLAG_OTHER : 0);
  writeIcmpv6(bytes, offset, ICMPV6_ROUTER_ADVERTISEMENT, 0, 0);
  bytes[offset + HOP_LIMIT] = ra.hopLimit;
  bytes[offset + FLAGS] = flags;
  putU16be(bytes, offset + ROUTER_LIFETIME, ra.lifetimeSeconds);
  putU32be(bytes, offset + REACHABLE_TIME, ra.reachableMs);
  putU32be(bytes, offset + RETRANS_TIMER, ra.retransMs);
  let at = offset + OPTIONS;
  if (ra.routerMac) at += writeLinkAddress(bytes, at, NDP_OPT_SOURCE_LINK_ADDRESS, ra.routerMac, 0);
  if (ra.mtu) {
    optionHead(bytes, at, NDP_OPT_MTU, MTU_OPTION_BYTES);
    putU32be(bytes, at + 4, ra.mtu);
    at += MTU_OPTION_BYTES;
  }
  for (const prefix of ra.prefixes) at += writePrefix(bytes, at, prefix);
  if (rdnssBytes) {
    optionHead(bytes, at, NDP_OPT_RDNSS, rdnssBytes);
    putU32be(bytes, at + 4, ra.dnsLifetimeSeconds);
    ra.dnsServers.forEach((server, i) => {
      copyBytes(bytes, at + 8 + i * IPV6_ADDRESS_BYTES, server, 0, IPV6_ADDRESS_BYTES);
    });
    at += rdnssBytes;
  }
  if (dnsslBytes) {
    optionHead(bytes, at, NDP_OPT_DNSSL, dnsslBytes);
    putU32be(bytes, at + 4, ra.dnsLifetimeSeconds);
    copyBytes(bytes, at + 8, domains, 0, domains.length);
    at += dnsslBytes;
  }
  return at - offset;
}

/** Zeroes an option of `length` bytes and writes its type and length in units of 8. */
function optionHead(bytes: Uint8Array, offset: number, type: number, length: number): void {
  bytes.fill(0, offset, offset + length);
  bytes[offset] = type;
  bytes[offset + 1] = length >>> 3;
}

function writePrefix(bytes: Uint8Array, offset: number, info: RaPrefix): number {
  optionHead(bytes, offset, NDP_OPT_PREFIX, PREFIX_OPTION_BYTES);
  bytes[offset + 2] = info.prefixLength;
  bytes[offset + 3] = (info.onLink ? PREFIX_ON_LINK : 0) | (info.autonomous ? PREFIX_AUTONOMOUS : 0);
  putU32be(bytes, offset + 4, info.validSeconds);
  putU32be(bytes, offset + 8, info.preferredSeconds);
  copyBytes(bytes, offset + 16, info.prefix, 0, IPV6_ADDRESS_BYTES);
  return PREFIX_OPTION_BYTES;
}

/** Reads an advertisement, addresses copied out. `null` when it fails a check of RFC 4861 section 6.1.2. */
export function parseRouterAdvertisement(
  bytes: Uint8Array,
  offset: number,
  end: number,
  hopLimit: number,
): RouterAdvertisement | null {
  if (end - offset < OPTIONS || hopLimit !== NDP_HOP_LIMIT) return null;
  if (bytes[offset + ICMPV6_TYPE] !== ICMPV6_ROUTER_ADVERTISEMENT || bytes[offset + ICMPV6_CODE] !== 0)
    return null;
  const options = offset + OPTIONS;
  if (!ndpOptionsOk(bytes, options, end)) return null;
  const mac = findLinkAddress(bytes, options, end, NDP_OPT_SOURCE_LINK_ADDRESS);
  const mtu = findNdpOption(bytes, options, end, NDP_OPT_MTU);
  const ra: RouterAdvertisement = {
    hopLimit: bytes[offset + HOP_LIMIT],
    managed: (bytes[offset + FLAGS] & FLAG_MANAGED) !== 0,
    other: (bytes[offset + FLAGS] & FLAG_OTHER) !== 0,
    lifetimeSeconds: u16be(bytes, offset + ROUTER_LIFETIME),
    reachableMs: u32be(bytes, offset + REACHABLE_TIME),
    retransMs: u32be(bytes, offset + RETRANS_TIMER),
    routerMac: mac < 0 ? null : bytes.slice(mac, mac + 6),
    mtu: mtu < 0 ? 0 : u32be(bytes, mtu + 4),
    prefixes: [],
    dnsLifetimeSeconds: 0,
    dnsServers: [],
    searchDomains: [],
  };
  for (let at = options; at < end; at += bytes[at + 1] * 8) readOption(bytes, at, ra);
  return ra;
}

function readOption(bytes: Uint8Array, at: number, ra: RouterAdvertisement): void {
  const length = bytes[at + 1] * 8;
  const end = at + length;
  if (bytes[at] === NDP_OPT_PREFIX && length === PREFIX_OPTION_BYTES && bytes[at + 2] <= 128) {
    ra.prefixes.push({
      prefix: bytes.slice(at + 16, at + 32),
      prefixLength: bytes[at + 2],
      onLink: (bytes[at + 3] & PREFIX_ON_LINK) !== 0,
      autonomous: (bytes[at + 3] & PREFIX_AUTONOMOUS) !== 0,
      validSeconds: u32be(bytes, at + 4),
      preferredSeconds: u32be(bytes, at + 8),
    });
  } else if (bytes[at] === NDP_OPT_RDNSS) {
    ra.dnsLifetimeSeconds = u32be(bytes, at + 4);
    for (let server = at + 8; end - server >= IPV6_ADDRESS_BYTES; server += IPV6_ADDRESS_BYTES) {
      ra.dnsServers.push(bytes.slice(server, server + IPV6_ADDRESS_BYTES));
    }
  } else if (bytes[at] === NDP_OPT_DNSSL) {
    ra.dnsLifetimeSeconds = u32be(bytes, at + 4);
    // Names here are never compressed (RFC 8106 section 5.2): a pointer ends the list, as does the zero padding.
    for (let name = at + 8; name < end && bytes[name] !== 0; ) {
      const text = readDomainName(bytes, end, name, end);
      if (text === null) return;
      ra.searchDomains.push(text);
      name = skipDomainName(bytes, name, end);
    }
  }
}

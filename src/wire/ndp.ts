/**
 * Neighbor discovery (RFC 4861): neighbor solicitation and advertisement, router solicitation, and the option list
 * all of them carry. Router advertisements are in ra.ts.
 *
 * `parse` makes the checks of sections 6.1 and 7.1 that need only the message: hop limit 255 (so it was not routed),
 * code 0, length, target not a group, each option's length neither 0 nor past the end. The ICMPv6 checksum is checked
 * before (`Icmpv6Message`); what depends on the source being `::` (duplicate address detection) is the caller's.
 * Writers leave the checksum 0 for `setIcmpv6Checksum`.
 */

import { copyBytes } from './bytes.ts';
import {
  ICMPV6_CODE,
  ICMPV6_NEIGHBOR_ADVERTISEMENT,
  ICMPV6_NEIGHBOR_SOLICITATION,
  ICMPV6_ROUTER_SOLICITATION,
  ICMPV6_TYPE,
  writeIcmpv6,
} from './icmpv6.ts';
import { IPV6_ADDRESS_BYTES, isMulticastIpv6 } from './ipv6.ts';

export const NDP_HOP_LIMIT = 255;

export const NDP_OPT_SOURCE_LINK_ADDRESS = 1;
export const NDP_OPT_TARGET_LINK_ADDRESS = 2;
export const NDP_OPT_PREFIX = 3;
export const NDP_OPT_MTU = 5;
/** Recursive DNS servers and search list, RFC 8106. */
export const NDP_OPT_RDNSS = 25;
export const NDP_OPT_DNSSL = 31;

/** Flags of a neighbor advertisement, in the message's second word. */
export const NA_ROUTER = 0x80000000;
export const NA_SOLICITED = 0x40000000;
export const NA_OVERRIDE = 0x20000000;

const TARGET = 8;
const NEIGHBOR_OPTIONS = 24;
const ROUTER_SOLICITATION_OPTIONS = 8;
const LINK_ADDRESS_OPTION_BYTES = 8;

/** Whether options fill `offset..end` exactly, each at least 8 bytes long. */
export function ndpOptionsOk(bytes: Uint8Array, offset: number, end: number): boolean {
  let at = offset;
  while (at < end) {
    if (end - at < 8) return false;
    const length = bytes[at + 1] * 8;
    if (length === 0 || length > end - at) return false;
    at += length;
  }
  return true;
}

/** The first option of a type at or behind `offset`, or -1. Only for options that `ndpOptionsOk` has accepted. */
export function findNdpOption(bytes: Uint8Array, offset: number, end: number, type: number): number {
  let at = offset;
  while (end - at >= 8 && bytes[at + 1] !== 0) {
    if (bytes[at] === type) return at;
    at += bytes[at + 1] * 8;
  }
  return -1;
}

/** Offset of the MAC in a link-address option, or -1. */
export function findLinkAddress(bytes: Uint8Array, offset: number, end: number, type: number): number {
  const option = findNdpOption(bytes, offset, end, type);
  return option >= 0 && bytes[option + 1] === 1 ? option + 2 : -1;
}

/** A neighbor solicitation or advertisement. Reused: `parse` overwrites every field. */
export class NeighborMessage {
  isSolicitation = false;
  /** Offset of the target address. */
  target = 0;
  /** Flags of an advertisement. */
  router = false;
  solicited = false;
  override = false;
  /** Offset of the MAC in the option this kind of message carries (source or target), or -1. */
  linkAddress = -1;

  parse(bytes: Uint8Array, offset: number, end: number, hopLimit: number): boolean {
    if (end - offset < NEIGHBOR_OPTIONS || hopLimit !== NDP_HOP_LIMIT) return false;
    const type = bytes[offset + ICMPV6_TYPE];
    if (type !== ICMPV6_NEIGHBOR_SOLICITATION && type !== ICMPV6_NEIGHBOR_ADVERTISEMENT) return false;
    if (bytes[offset + ICMPV6_CODE] !== 0 || isMulticastIpv6(bytes, offset + TARGET)) return false;
    const options = offset + NEIGHBOR_OPTIONS;
    if (!ndpOptionsOk(bytes, options, end)) return false;
    this.isSolicitation = type === ICMPV6_NEIGHBOR_SOLICITATION;
    this.target = offset + TARGET;
    const flags = this.isSolicitation ? 0 : bytes[offset + 4];
    this.router = (flags & 0x80) !== 0;
    this.solicited = (flags & 0x40) !== 0;
    this.override = (flags & 0x20) !== 0;
    const option = this.isSolicitation ? NDP_OPT_SOURCE_LINK_ADDRESS : NDP_OPT_TARGET_LINK_ADDRESS;
    this.linkAddress = findLinkAddress(bytes, options, end, option);
    return true;
  }
}

/** A router solicitation: the offset of the sender's MAC, -1 when it told none, or -2 when it is malformed. */
export function parseRouterSolicitation(
  bytes: Uint8Array,
  offset: number,
  end: number,
  hopLimit: number,
): number {
  if (end - offset < ROUTER_SOLICITATION_OPTIONS || hopLimit !== NDP_HOP_LIMIT) return -2;
  if (bytes[offset + ICMPV6_TYPE] !== ICMPV6_ROUTER_SOLICITATION || bytes[offset + ICMPV6_CODE] !== 0)
    return -2;
  const options = offset + ROUTER_SOLICITATION_OPTIONS;
  if (!ndpOptionsOk(bytes, options, end)) return -2;
  return findLinkAddress(bytes, options, end, NDP_OPT_SOURCE_LINK_ADDRESS);
}

/** Writes a link-address option. Returns its length, 8. */
export function writeLinkAddress(
  bytes: Uint8Array,
  offset: number,
  type: number,
  mac: Uint8Array,
  macOffset: number,
): number {
  bytes[offset] = type;
  bytes[offset + 1] = 1;
  copyBytes(bytes, offset + 2, mac, macOffset, 6);
  return LINK_ADDRESS_OPTION_BYTES;
}

/** Writes a solicitation for `target`; `mac` is `null` when the source is `::`. Returns its length, 24 or 32. */
export function writeNeighborSolicitation(
  bytes: Uint8Array,
  offset: number,
  target: Uint8Array,
  targetOffset: number,
  mac: Uint8Array | null,
  macOffset = 0,
): number {
  writeIcmpv6(bytes, offset, ICMPV6_NEIGHBOR_SOLICITATION, 0, 0);
  copyBytes(bytes, offset + TARGET, target, targetOffset, IPV6_ADDRESS_BYTES);
  if (mac === null) return NEIGHBOR_OPTIONS;
  const options = offset + NEIGHBOR_OPTIONS;
  return NEIGHBOR_OPTIONS + writeLinkAddress(bytes, options, NDP_OPT_SOURCE_LINK_ADDRESS, mac, macOffset);
}

/** Writes an advertisement of `target` at `mac`; `flags` of NA_*. Returns its length, 32. */
export function writeNeighborAdvertisement(
  bytes: Uint8Array,
  offset: number,
  flags: number,
  target: Uint8Array,
  targetOffset: number,
  mac: Uint8Array,
  macOffset: number,
): number {
  writeIcmpv6(bytes, offset, ICMPV6_NEIGHBOR_ADVERTISEMENT, 0, flags);
  copyBytes(bytes, offset + TARGET, target, targetOffset, IPV6_ADDRESS_BYTES);
  const options = offset + NEIGHBOR_OPTIONS;
  return NEIGHBOR_OPTIONS + writeLinkAddress(bytes, options, NDP_OPT_TARGET_LINK_ADDRESS, mac, macOffset);
}

/** Writes a router solicitation; `mac` is `null` when the source is `::`. Returns its length, 8 or 16. */
export function writeRouterSolicitation(
  bytes: Uint8Array,
  offset: number,
  mac: Uint8Array | null,
  macOffset = 0,
): number {
  writeIcmpv6(bytes, offset, ICMPV6_ROUTER_SOLICITATION, 0, 0);
  if (mac === null) return ROUTER_SOLICITATION_OPTIONS;
  const options = offset + ROUTER_SOLICITATION_OPTIONS;
  const optionBytes = writeLinkAddress(bytes, options, NDP_OPT_SOURCE_LINK_ADDRESS, mac, macOffset);
  return ROUTER_SOLICITATION_OPTIONS + optionBytes;
}

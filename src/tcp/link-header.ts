/**
 * The Ethernet and IP header that every segment of a connection starts with, as a template of 34 (IPv4) or 54 (IPv6) bytes, copied in front of
 * the TCP header and completed with the packet's length. It is also where a connection's addresses are kept, in network order. IPv4 packets
 * are atomic (DF set, RFC 6864), so their ID carries no meaning; it counts up, as offload engines expect of it.
 */

import { copyBytes, equalBytes, putU16be, u16be } from '../wire/bytes.ts';
import { finishChecksum, sumBytes } from '../wire/checksum.ts';
import { ETH_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, writeEthernet } from '../wire/ethernet.ts';
import { IP_PROTOCOL_TCP, IPV4_DF, IPV4_HEADER_BYTES, writeIpv4 } from '../wire/ipv4.ts';
import { IPV6_HEADER_BYTES, writeIpv6 } from '../wire/ipv6.ts';

export const LINK_BYTES_V4 = ETH_HEADER_BYTES + IPV4_HEADER_BYTES;
export const LINK_BYTES_V6 = ETH_HEADER_BYTES + IPV6_HEADER_BYTES;
const HOP_LIMIT = 64;
const V4_PROTOCOL = ETH_HEADER_BYTES + 9;
const V6_PROTOCOL = ETH_HEADER_BYTES + 6;
const V4_SRC = ETH_HEADER_BYTES + 12;
const V6_SRC = ETH_HEADER_BYTES + 8;

/** For packets from `src` to `dst`, 32-bit addresses. */
export function linkHeaderV4(
  dstMac: Uint8Array,
  srcMac: Uint8Array,
  src: number,
  dst: number,
  protocol = IP_PROTOCOL_TCP,
): Uint8Array {
  const link = new Uint8Array(LINK_BYTES_V4);
  writeEthernet(link, 0, dstMac, 0, srcMac, 0, ETHERTYPE_IPV4);
  writeIpv4(link, ETH_HEADER_BYTES, 0, 0, IPV4_DF, HOP_LIMIT, protocol, src, dst);
  putU16be(link, ETH_HEADER_BYTES + 10, 0);
  return link;
}

/** For packets from `src` to `dst`, 16-byte addresses. */
export function linkHeaderV6(
  dstMac: Uint8Array,
  srcMac: Uint8Array,
  src: Uint8Array,
  dst: Uint8Array,
  protocol = IP_PROTOCOL_TCP,
): Uint8Array {
  const link = new Uint8Array(LINK_BYTES_V6);
  writeEthernet(link, 0, dstMac, 0, srcMac, 0, ETHERTYPE_IPV6);
  writeIpv6(link, ETH_HEADER_BYTES, 0, protocol, HOP_LIMIT, src, 0, dst, 0);
  return link;
}

/** The template that answers the packet whose IP header lies at `ipOffset`: `srcMac` answers to the MAC at `macOffset`. */
export function linkHeaderReply(
  bytes: Uint8Array,
  version: number,
  ipOffset: number,
  macOffset: number,
  srcMac: Uint8Array,
  protocol = IP_PROTOCOL_TCP,
): Uint8Array {
  const v4 = version === 4;
  const link = new Uint8Array(v4 ? LINK_BYTES_V4 : LINK_BYTES_V6);
  writeEthernet(link, 0, bytes, macOffset, srcMac, 0, v4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
  if (v4) {
    writeIpv4(link, ETH_HEADER_BYTES, 0, 0, IPV4_DF, HOP_LIMIT, protocol, 0, 0);
    putU16be(link, ETH_HEADER_BYTES + 10, 0);
    copyBytes(link, V4_SRC, bytes, ipOffset + 16, 4);
    copyBytes(link, V4_SRC + 4, bytes, ipOffset + 12, 4);
  } else {
    writeIpv6(link, ETH_HEADER_BYTES, 0, protocol, HOP_LIMIT, bytes, ipOffset + 24, bytes, ipOffset + 8);
  }
  return link;
}

/** Whether the packet at `ipOffset` goes the other way between the template's two addresses. */
export function linkMatches(link: Uint8Array, bytes: Uint8Array, version: number, ipOffset: number): boolean {
  const v4 = version === 4;
  if (link.length !== (v4 ? LINK_BYTES_V4 : LINK_BYTES_V6)) return false;
  const size = v4 ? 4 : 16;
  const local = addressesAt(link);
  const src = ipOffset + (v4 ? 12 : 8);
  for (let i = 0; i < size; i++) {
    if (bytes[src + i] !== link[local + size + i] || bytes[src + size + i] !== link[local + i]) return false;
  }
  return true;
}

/** Whether the packet at `ipOffset` goes from the template's local address to its remote one: one that was sent with it. */
export function linkSent(link: Uint8Array, bytes: Uint8Array, version: number, ipOffset: number): boolean {
  const v4 = version === 4;
  if (isV4(link) !== v4) return false;
  return equalBytes(link, addressesAt(link), bytes, ipOffset + (v4 ? 12 : 8), v4 ? 8 : 32);
}

/** The partial sum of the template's pseudo-header, without the length. */
export function linkPseudoSum(link: Uint8Array): number {
  const v4 = isV4(link);
  return sumBytes(link, addressesAt(link), v4 ? 8 : 32, link[v4 ? V4_PROTOCOL : V6_PROTOCOL]);
}

/** The partial sum of an IPv4 template's header, with length and ID zero; 0 for IPv6. */
export function linkHeaderSum(link: Uint8Array): number {
  return link.length === LINK_BYTES_V4 ? sumBytes(link, ETH_HEADER_BYTES, IPV4_HEADER_BYTES) : 0;
}

/** Lays the template at `at` and completes it for `segmentBytes` of TCP header and payload. */
export function putLinkHeader(
  bytes: Uint8Array,
  at: number,
  link: Uint8Array,
  headerSum: number,
  id: number,
  segmentBytes: number,
): void {
  bytes.set(link, at);
  const ip = at + ETH_HEADER_BYTES;
  if (link.length === LINK_BYTES_V4) {
    const total = segmentBytes + IPV4_HEADER_BYTES;
    putU16be(bytes, ip + 2, total);
    putU16be(bytes, ip + 4, id);
    putU16be(bytes, ip + 10, finishChecksum(headerSum + total + (id & 0xffff)));
  } else {
    putU16be(bytes, ip + 4, segmentBytes);
  }
}

/** Where the local address starts in a template; the remote one follows it. */
export function addressesAt(link: Uint8Array): number {
  return isV4(link) ? V4_SRC : V6_SRC;
}

export function isV4(link: Uint8Array): boolean {
  return link.length === LINK_BYTES_V4;
}

/** The address packets come from (this end) and go to (the peer), as a subarray. */
export function localAddress(link: Uint8Array): Uint8Array {
  return isV4(link) ? link.subarray(V4_SRC, V4_SRC + 4) : link.subarray(V6_SRC, V6_SRC + 16);
}

export function remoteAddress(link: Uint8Array): Uint8Array {
  return isV4(link) ? link.subarray(V4_SRC + 4, V4_SRC + 8) : link.subarray(V6_SRC + 16, V6_SRC + 32);
}

/** A mixing of the two addresses and ports for the flow table, seeded by secrets so that nobody can aim at one bucket. */
export function mixFlow(
  bytes: Uint8Array,
  local: number,
  remote: number,
  size: number,
  ports: number,
  seed: number,
  seed2: number,
): number {
  let h = Math.imul(ports ^ seed, 0x85ebca6b);
  for (let i = 0; i < size; i += 2) {
    h = Math.imul(h ^ (h >>> 15) ^ u16be(bytes, local + i), 0xc2b2ae35);
    h = Math.imul((h ^ (h >>> 13) ^ u16be(bytes, remote + i)) + seed2, 0x27d4eb2f);
  }
  return h ^ (h >>> 16);
}

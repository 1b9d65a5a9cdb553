/**
 * The IPv4 header (RFC 791). `Ipv4Header.parse` accepts a packet only when each length in it is true: version 4,
 * IHL of at least 5 words, header within total length, total length within the bytes at hand, and a fragment that
 * neither ends past 65535 nor has a ragged middle. The header checksum is a separate question (`checksumOk`), since
 * frames of an offloading guest and frames off a wire answer it differently. Options are carried, not interpreted.
 */

import { putU16be, putU32be, u16be, u32be } from './bytes.ts';
import { internetChecksum, updateChecksum16 } from './checksum.ts';

export const IPV4_HEADER_BYTES = 20;
export const IPV4_VERSION_IHL = 0;
export const IPV4_TOS = 1;
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_ID = 4;
export const IPV4_FLAGS_FRAGMENT = 6;
export const IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SRC = 12;
export const IPV4_DST = 16;

/** Bits of the flags-and-fragment word. */
export const IPV4_DF = 0x4000;
export const IPV4_MF = 0x2000;
export const IPV4_FRAGMENT_MASK = 0x1fff;

export const IP_PROTOCOL_ICMP = 1;
export const IP_PROTOCOL_IGMP = 2;
export const IP_PROTOCOL_TCP = 6;
export const IP_PROTOCOL_UDP = 17;
export const IP_PROTOCOL_L2TP = 115;

/** Reused: `parse` overwrites every field. Addresses are 32-bit numbers. */
export class Ipv4Header {
  offset = 0;
  headerBytes = 0;
  /** DSCP and ECN, as one byte. */
  tos = 0;
  totalBytes = 0;
  id = 0;
  dontFragment = false;
  moreFragments = false;
  /** Where this fragment's payload belongs in the whole, in bytes; 0 for the first or only one. */
  fragmentOffset = 0;
  ttl = 0;
  protocol = 0;
  src = 0;
  dst = 0;
  payload = 0;
  /** The end by total length: padding behind it does not belong to the packet. */
  payloadEnd = 0;

  /** False for a header that lies about a length or is cut short. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < IPV4_HEADER_BYTES) return false;
    const versionIhl = bytes[offset + IPV4_VERSION_IHL];
    const headerBytes = (versionIhl & 0x0f) * 4;
    const totalBytes = u16be(bytes, offset + IPV4_TOTAL_LENGTH);
    if (versionIhl >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES) return false;
    if (totalBytes < headerBytes || totalBytes > end - offset) return false;
    const fragment = u16be(bytes, offset + IPV4_FLAGS_FRAGMENT);
    const fragmentOffset = (fragment & IPV4_FRAGMENT_MASK) * 8;
    const payloadBytes = totalBytes - headerBytes;
    if (fragmentOffset + payloadBytes > 0xffff - headerBytes && fragmentOffset !== 0) return false;
    const moreFragments = (fragment & IPV4_MF) !== 0;
    if (moreFragments && (payloadBytes === 0 || (payloadBytes & 7) !== 0)) return false;
    this.offset = offset;
    this.headerBytes = headerBytes;
    this.tos = bytes[offset + IPV4_TOS];
    this.totalBytes = totalBytes;
    this.id = u16be(bytes, offset + IPV4_ID);
    this.dontFragment = (fragment & IPV4_DF) !== 0;
    this.moreFragments = moreFragments;
    this.fragmentOffset = fragmentOffset;
    this.ttl = bytes[offset + IPV4_TTL];
    this.protocol = bytes[offset + IPV4_PROTOCOL];
    this.src = u32be(bytes, offset + IPV4_SRC);
    this.dst = u32be(bytes, offset + IPV4_DST);
    this.payload = offset + headerBytes;
    this.payloadEnd = offset + totalBytes;
    return true;
  }

  /** Whether the header just parsed sums to zero. */
  checksumOk(bytes: Uint8Array): boolean {
    return internetChecksum(bytes, this.offset, this.headerBytes) === 0;
  }

  /** Whether it is a piece of a datagram (the first one included). */
  get isFragment(): boolean {
    return this.moreFragments || this.fragmentOffset !== 0;
  }
}

/**
 * Writes a header without options, its checksum included. `totalBytes` covers header and payload; `flagsFragment` is
 * the raw word (IPV4_DF, IPV4_MF, offset in 8-byte units). Returns its length, 20.
 */
export function writeIpv4(
  bytes: Uint8Array,
  offset: number,
  totalBytes: number,
  id: number,
  flagsFragment: number,
  ttl: number,
  protocol: number,
  src: number,
  dst: number,
  tos = 0,
): number {
  bytes[offset + IPV4_VERSION_IHL] = 0x45;
  bytes[offset + IPV4_TOS] = tos;
  putU16be(bytes, offset + IPV4_TOTAL_LENGTH, totalBytes);
  putU16be(bytes, offset + IPV4_ID, id);
  putU16be(bytes, offset + IPV4_FLAGS_FRAGMENT, flagsFragment);
  bytes[offset + IPV4_TTL] = ttl;
  bytes[offset + IPV4_PROTOCOL] = protocol;
  putU32be(bytes, offset + IPV4_SRC, src);
  putU32be(bytes, offset + IPV4_DST, dst);
  setIpv4Checksum(bytes, offset, IPV4_HEADER_BYTES);
  return IPV4_HEADER_BYTES;
}

/** Computes the header checksum anew, whatever the field held. */
export function setIpv4Checksum(bytes: Uint8Array, offset: number, headerBytes: number): void {
  putU16be(bytes, offset + IPV4_CHECKSUM, 0);
  putU16be(bytes, offset + IPV4_CHECKSUM, internetChecksum(bytes, offset, headerBytes));
}

/** Takes one hop off the TTL and corrects the checksum. False, changing nothing, when none is left to take. */
export function decrementIpv4Ttl(bytes: Uint8Array, offset: number): boolean {
  const old = u16be(bytes, offset + IPV4_TTL); // TTL and protocol share a checksum word
  if (old < 0x0200) return false;
  bytes[offset + IPV4_TTL]--;
  const checksum = updateChecksum16(u16be(bytes, offset + IPV4_CHECKSUM), old, old - 0x0100);
  putU16be(bytes, offset + IPV4_CHECKSUM, checksum);
  return true;
}

/** 224.0.0.0/4. */
export function isMulticastIpv4(address: number): boolean {
  return address >>> 28 === 14;
}

/** 127.0.0.0/8. */
export function isLoopbackIpv4(address: number): boolean {
  return address >>> 24 === 127;
}

/** 169.254.0.0/16, where clouds also keep their metadata service. */
export function isLinkLocalIpv4(address: number): boolean {
  return address >>> 16 === 0xa9fe;
}

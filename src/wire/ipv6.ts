/**
 * The IPv6 header and its chain of extension headers (RFC 8200). `parse` walks at most MAX_EXTENSION_HEADERS of
 * them, each checked against the packet's end, and stops at the transport protocol, at a later fragment (whose
 * payload starts in the middle of something), at ESP or at "no next header". Jumbograms (RFC 2675) are not spoken.
 * Addresses stay in place, as offsets: comparing 16 bytes there beats carrying four numbers along.
 */

import { copyBytes, putU16be, putU32be, u16be, u32be } from './bytes.ts';

export const IPV6_HEADER_BYTES = 40;
export const IPV6_ADDRESS_BYTES = 16;
export const IPV6_VERSION_CLASS_FLOW = 0;
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_HOP_LIMIT = 7;
export const IPV6_SRC = 8;
export const IPV6_DST = 24;

export const IPV6_FRAGMENT_HEADER_BYTES = 8;
/** More than any sane sender uses; what comes with more is dropped. */
export const MAX_EXTENSION_HEADERS = 8;

export const NEXT_HOP_BY_HOP = 0;
export const NEXT_ROUTING = 43;
export const NEXT_FRAGMENT = 44;
export const NEXT_ESP = 50;
export const NEXT_AH = 51;
export const IP_PROTOCOL_ICMPV6 = 58;
export const NEXT_NONE = 59;
export const NEXT_DESTINATION_OPTIONS = 60;
const NEXT_MOBILITY = 135;
const NEXT_HIP = 139;
const NEXT_SHIM6 = 140;

/** Reused: `parse` overwrites every field. */
export class Ipv6Header {
  offset = 0;
  trafficClass = 0;
  flowLabel = 0;
  hopLimit = 0;
  /** Offsets of the two addresses. */
  src = 0;
  dst = 0;
  /** The protocol behind the last extension header that was walked. */
  protocol = 0;
  /** Offset of the byte that names `protocol`: what reassembly rewrites and a parameter problem points at. */
  protocolField = 0;
  /** Header plus extension headers, in bytes. */
  headerBytes = 0;
  payload = 0;
  payloadEnd = 0;
  /** Offset of the fragment header, or -1. The fields below are 0 and false without one. */
  fragmentHeader = -1;
  fragmentOffset = 0;
  moreFragments = false;
  fragmentId = 0;
  /** A routing header with segments left: the destination of the pseudo-header is not `dst`. */
  routed = false;

  /** False when a length lies, the packet is cut short, or the chain is too long or out of order. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < IPV6_HEADER_BYTES || bytes[offset] >>> 4 !== 6) return false;
    const payloadBytes = u16be(bytes, offset + IPV6_PAYLOAD_LENGTH);
    if (payloadBytes > end - offset - IPV6_HEADER_BYTES) return false;
    const first = u32be(bytes, offset);
    this.offset = offset;
    this.trafficClass = (first >>> 20) & 0xff;
    this.flowLabel = first & 0xfffff;
    this.hopLimit = bytes[offset + IPV6_HOP_LIMIT];
    this.src = offset + IPV6_SRC;
    this.dst = offset + IPV6_DST;
    this.payloadEnd = offset + IPV6_HEADER_BYTES + payloadBytes;
    return this.#walk(bytes);
  }

  #walk(bytes: Uint8Array): boolean {
    const end = this.payloadEnd;
    let at = this.offset + IPV6_HEADER_BYTES;
    let field = this.offset + IPV6_NEXT_HEADER;
    this.fragmentHeader = -1;
    this.fragmentOffset = 0;
    this.moreFragments = false;
    this.fragmentId = 0;
    this.routed = false;
    for (let steps = 0; isWalked(bytes[field]) && this.fragmentOffset === 0; steps++) {
      const kind = bytes[field];
      if (steps === MAX_EXTENSION_HEADERS || end - at < 8) return false;
      // RFC 8200 4.1: hop-by-hop options come first or not at all.
      if (kind === NEXT_HOP_BY_HOP && steps > 0) return false;
      let length = (bytes[at + 1] + 1) * 8;
      if (kind === NEXT_AH) length = (bytes[at + 1] + 2) * 4;
      if (kind === NEXT_FRAGMENT) length = IPV6_FRAGMENT_HEADER_BYTES;
      if (length > end - at) return false;
      if (kind === NEXT_ROUTING && bytes[at + 3] !== 0) this.routed = true;
      if (kind === NEXT_FRAGMENT && !this.#fragment(bytes, at)) return false;
      field = at;
      at += length;
    }
    this.protocol = bytes[field];
    this.protocolField = field;
    this.payload = at;
    this.headerBytes = at - this.offset;
    return true;
  }

  /** RFC 8200 section 4.5: a middle piece is a multiple of 8 bytes, and none ends past 65535. */
  #fragment(bytes: Uint8Array, at: number): boolean {
    if (this.fragmentHeader >= 0) return false;
    const word = u16be(bytes, at + 2);
    const pieceBytes = this.payloadEnd - at - IPV6_FRAGMENT_HEADER_BYTES;
    this.fragmentHeader = at;
    this.fragmentOffset = word & 0xfff8;
    this.moreFragments = (word & 1) !== 0;
    this.fragmentId = u32be(bytes, at + 4);
    if (this.moreFragments && (pieceBytes === 0 || (pieceBytes & 7) !== 0)) return false;
    return this.fragmentOffset + pieceBytes <= 0xffff;
  }

  /** Whether it is a piece of a packet. An "atomic" fragment (RFC 6946), whole in itself, is not. */
  get isFragment(): boolean {
    return this.moreFragments || this.fragmentOffset !== 0;
  }
}

function isWalked(kind: number): boolean {
  switch (kind) {
    case NEXT_HOP_BY_HOP:
    case NEXT_ROUTING:
    case NEXT_FRAGMENT:
    case NEXT_AH:
    case NEXT_DESTINATION_OPTIONS:
    case NEXT_MOBILITY:
    case NEXT_HIP:
    case NEXT_SHIM6:
      return true;
    default:
      return false;
  }
}

/** Writes a header without extensions; `payloadBytes` is all that follows it. Returns its length, 40. */
export function writeIpv6(
  bytes: Uint8Array,
  offset: number,
  payloadBytes: number,
  nextHeader: number,
  hopLimit: number,
  src: Uint8Array,
  srcOffset: number,
  dst: Uint8Array,
  dstOffset: number,
  trafficClass = 0,
  flowLabel = 0,
): number {
  putU32be(
    bytes,
    offset + IPV6_VERSION_CLASS_FLOW,
    (6 << 28) | ((trafficClass & 0xff) << 20) | (flowLabel & 0xfffff),
  );
  putU16be(bytes, offset + IPV6_PAYLOAD_LENGTH, payloadBytes);
  bytes[offset + IPV6_NEXT_HEADER] = nextHeader;
  bytes[offset + IPV6_HOP_LIMIT] = hopLimit;
  copyBytes(bytes, offset + IPV6_SRC, src, srcOffset, IPV6_ADDRESS_BYTES);
  copyBytes(bytes, offset + IPV6_DST, dst, dstOffset, IPV6_ADDRESS_BYTES);
  return IPV6_HEADER_BYTES;
}

/** Writes a fragment header: `fragmentOffset` in bytes, a multiple of 8. Returns its length, 8. */
export function writeIpv6Fragment(
  bytes: Uint8Array,
  offset: number,
  nextHeader: number,
  fragmentOffset: number,
  moreFragments: boolean,
  id: number,
): number {
  bytes[offset] = nextHeader;
  bytes[offset + 1] = 0;
  putU16be(bytes, offset + 2, (fragmentOffset & 0xfff8) | (moreFragments ? 1 : 0));
  putU32be(bytes, offset + 4, id);
  return IPV6_FRAGMENT_HEADER_BYTES;
}

/** ff00::/8. */
export function isMulticastIpv6(bytes: Uint8Array, offset: number): boolean {
  return bytes[offset] === 0xff;
}

/** fe80::/10. */
export function isLinkLocalIpv6(bytes: Uint8Array, offset: number): boolean {
  return bytes[offset] === 0xfe && (bytes[offset + 1] & 0xc0) === 0x80;
}

/** `::`. */
export function isUnspecifiedIpv6(bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < IPV6_ADDRESS_BYTES; i++) if (bytes[offset + i] !== 0) return false;
  return true;
}

/** `::1`. */
export function isLoopbackIpv6(bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < IPV6_ADDRESS_BYTES - 1; i++) if (bytes[offset + i] !== 0) return false;
  return bytes[offset + 15] === 1;
}

/** Writes the solicited-node group ff02::1:ffXX:XXXX of an address (RFC 4291 section 2.7.1). Returns 16. */
export function writeSolicitedNode(
  bytes: Uint8Array,
  offset: number,
  address: Uint8Array,
  addressOffset: number,
): number {
  bytes.fill(0, offset, offset + IPV6_ADDRESS_BYTES);
  putU16be(bytes, offset, 0xff02);
  bytes[offset + 11] = 1;
  bytes[offset + 12] = 0xff;
  copyBytes(bytes, offset + 13, address, addressOffset + 13, 3);
  return IPV6_ADDRESS_BYTES;
}

/** Writes the Ethernet group 33:33:… of a multicast address (RFC 2464 section 7). Returns 6. */
export function writeIpv6GroupMac(
  bytes: Uint8Array,
  offset: number,
  address: Uint8Array,
  addressOffset: number,
): number {
  putU16be(bytes, offset, 0x3333);
  copyBytes(bytes, offset + 2, address, addressOffset + 12, 4);
  return 6;
}

/** Writes the EUI-64 interface identifier of a MAC (RFC 4291 appendix A): the low half of an address. Returns 8. */
export function writeInterfaceId(
  bytes: Uint8Array,
  offset: number,
  mac: Uint8Array,
  macOffset: number,
): number {
  copyBytes(bytes, offset, mac, macOffset, 3);
  bytes[offset] ^= 2;
  putU16be(bytes, offset + 3, 0xfffe);
  copyBytes(bytes, offset + 5, mac, macOffset + 3, 3);
  return 8;
}

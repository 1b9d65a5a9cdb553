/**
 * ICMPv6 (RFC 4443): echo and errors. Neighbor discovery rides on it in ndp.ts and ra.ts. The length of a message is
 * that of its IP payload; the checksum always covers the pseudo-header, so each check takes its partial sum.
 */

import { copyBytes, putU16be, putU32be, u32be } from './bytes.ts';
import { finishChecksum, foldSum, pseudoSumV6, sumBytes } from './checksum.ts';
import {
  IP_PROTOCOL_ICMPV6,
  IPV6_DST,
  IPV6_SRC,
  type Ipv6Header,
  isMulticastIpv6,
  isUnspecifiedIpv6,
} from './ipv6.ts';

export const ICMPV6_HEADER_BYTES = 8;
export const ICMPV6_TYPE = 0;
export const ICMPV6_CODE = 1;
export const ICMPV6_CHECKSUM = 2;
/** The second word: identifier and sequence, MTU, pointer or flags. */
export const ICMPV6_REST = 4;

export const ICMPV6_UNREACHABLE = 1;
export const ICMPV6_PACKET_TOO_BIG = 2;
export const ICMPV6_TIME_EXCEEDED = 3;
export const ICMPV6_PARAMETER_PROBLEM = 4;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;
export const ICMPV6_ROUTER_SOLICITATION = 133;
export const ICMPV6_ROUTER_ADVERTISEMENT = 134;
export const ICMPV6_NEIGHBOR_SOLICITATION = 135;
export const ICMPV6_NEIGHBOR_ADVERTISEMENT = 136;
export const ICMPV6_REDIRECT = 137;

/** Codes of ICMPV6_UNREACHABLE. */
export const ICMPV6_NO_ROUTE = 0;
export const ICMPV6_ADMIN_PROHIBITED = 1;
export const ICMPV6_ADDRESS_UNREACHABLE = 3;
export const ICMPV6_PORT_UNREACHABLE = 4;

/** An error with its IPv6 header stays within the least MTU (RFC 4443 section 2.4 (c)). */
const ERROR_QUOTE_MAX_BYTES = 1280 - 40 - ICMPV6_HEADER_BYTES;

/** Reused: `parse` overwrites every field. */
export class Icmpv6Message {
  offset = 0;
  type = 0;
  code = 0;
  /** The second word; for an echo `id` and `sequence` are its halves. */
  rest = 0;
  id = 0;
  sequence = 0;
  /** Echo data, or the packet an error quotes. */
  payload = 0;
  payloadEnd = 0;

  /** False when it is shorter than 8 bytes. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < ICMPV6_HEADER_BYTES) return false;
    this.offset = offset;
    this.type = bytes[offset + ICMPV6_TYPE];
    this.code = bytes[offset + ICMPV6_CODE];
    this.rest = u32be(bytes, offset + ICMPV6_REST);
    this.id = this.rest >>> 16;
    this.sequence = this.rest & 0xffff;
    this.payload = offset + ICMPV6_HEADER_BYTES;
    this.payloadEnd = end;
    return true;
  }

  /** Whether the checksum of the message just parsed is right, the IPv6 header being at `ipOffset`. */
  checksumOk(bytes: Uint8Array, ipOffset: number): boolean {
    const length = this.payloadEnd - this.offset;
    return foldSum(sumBytes(bytes, this.offset, length, pseudoSum(bytes, ipOffset, length))) === 0xffff;
  }
}

function pseudoSum(bytes: Uint8Array, ipOffset: number, length: number): number {
  return pseudoSumV6(bytes, ipOffset + IPV6_SRC, bytes, ipOffset + IPV6_DST, IP_PROTOCOL_ICMPV6, length);
}

/** Writes the header, its checksum left 0 until `setIcmpv6Checksum`. Returns its length, 8. */
export function writeIcmpv6(
  bytes: Uint8Array,
  offset: number,
  type: number,
  code: number,
  rest: number,
): number {
  bytes[offset + ICMPV6_TYPE] = type;
  bytes[offset + ICMPV6_CODE] = code;
  putU16be(bytes, offset + ICMPV6_CHECKSUM, 0);
  putU32be(bytes, offset + ICMPV6_REST, rest);
  return ICMPV6_HEADER_BYTES;
}

/** Computes the checksum of a message of `length` bytes; both addresses must be in the IPv6 header at `ipOffset`. */
export function setIcmpv6Checksum(bytes: Uint8Array, offset: number, length: number, ipOffset: number): void {
  putU16be(bytes, offset + ICMPV6_CHECKSUM, 0);
  const sum = sumBytes(bytes, offset, length, pseudoSum(bytes, ipOffset, length));
  putU16be(bytes, offset + ICMPV6_CHECKSUM, finishChecksum(sum));
}

/**
 * Writes an error that quotes `quoted[quotedOffset..]`, as much as fits 1280 bytes with the IPv6 header. The checksum
 * stays 0. Returns the message's length: at most 1240.
 */
export function writeIcmpv6Error(
  bytes: Uint8Array,
  offset: number,
  type: number,
  code: number,
  rest: number,
  quoted: Uint8Array,
  quotedOffset: number,
  quotedBytes: number,
): number {
  const quote = Math.min(quotedBytes, ERROR_QUOTE_MAX_BYTES);
  writeIcmpv6(bytes, offset, type, code, rest);
  copyBytes(bytes, offset + ICMPV6_HEADER_BYTES, quoted, quotedOffset, quote);
  return ICMPV6_HEADER_BYTES + quote;
}

/**
 * Whether a packet may be answered with an error (RFC 4443 section 2.4 (e)): not an error or a redirect, nor from an
 * address that names no single node. One sent to a group may only be answered "packet too big".
 */
export function mayAnswerWithIcmpv6Error(bytes: Uint8Array, ip: Ipv6Header, type: number): boolean {
  if (isUnspecifiedIpv6(bytes, ip.src) || isMulticastIpv6(bytes, ip.src)) return false;
  if (isMulticastIpv6(bytes, ip.dst) && type !== ICMPV6_PACKET_TOO_BIG) return false;
  if (ip.fragmentOffset !== 0) return false;
  if (ip.protocol !== IP_PROTOCOL_ICMPV6) return true;
  return ip.payload < ip.payloadEnd && bytes[ip.payload] >= 128 && bytes[ip.payload] !== ICMPV6_REDIRECT;
}

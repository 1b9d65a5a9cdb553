/**
 * ICMP for IPv4 (RFC 792): echo, and errors that quote what they are about. The length of a message is that of its
 * IP packet, never a field of its own, so an echo cannot claim bytes that were not sent.
 */

import { copyBytes, putU16be, putU32be, u16be, u32be } from './bytes.ts';
import { internetChecksum } from './checksum.ts';
import { IP_PROTOCOL_ICMP, type Ipv4Header, isLoopbackIpv4, isMulticastIpv4 } from './ipv4.ts';

export const ICMP_HEADER_BYTES = 8;
export const ICMP_TYPE = 0;
export const ICMP_CODE = 1;
export const ICMP_CHECKSUM = 2;
/** The second word: identifier and sequence, next-hop MTU or pointer. */
export const ICMP_REST = 4;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMP_PARAMETER_PROBLEM = 12;
export const ICMP_TIMESTAMP = 13;

/** Codes of ICMP_UNREACHABLE. */
export const ICMP_NET_UNREACHABLE = 0;
export const ICMP_HOST_UNREACHABLE = 1;
export const ICMP_PROTOCOL_UNREACHABLE = 2;
export const ICMP_PORT_UNREACHABLE = 3;
export const ICMP_FRAGMENTATION_NEEDED = 4;
export const ICMP_ADMIN_PROHIBITED = 13;

/** An error with its IP header stays within what every host must take (RFC 1812 section 4.3.2.3). */
const ERROR_PACKET_MAX_BYTES = 576;
const ERROR_QUOTE_MAX_BYTES = ERROR_PACKET_MAX_BYTES - 20 - ICMP_HEADER_BYTES;

/** Reused: `parse` overwrites every field. */
export class IcmpMessage {
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
    if (end - offset < ICMP_HEADER_BYTES) return false;
    this.offset = offset;
    this.type = bytes[offset + ICMP_TYPE];
    this.code = bytes[offset + ICMP_CODE];
    this.rest = u32be(bytes, offset + ICMP_REST);
    this.id = this.rest >>> 16;
    this.sequence = this.rest & 0xffff;
    this.payload = offset + ICMP_HEADER_BYTES;
    this.payloadEnd = end;
    return true;
  }

  /** Whether the message just parsed sums to zero. */
  checksumOk(bytes: Uint8Array): boolean {
    return internetChecksum(bytes, this.offset, this.payloadEnd - this.offset) === 0;
  }
}

/** Writes the header, its checksum left 0 until `setIcmpChecksum`. Returns its length, 8. */
export function writeIcmp(
  bytes: Uint8Array,
  offset: number,
  type: number,
  code: number,
  rest: number,
): number {
  bytes[offset + ICMP_TYPE] = type;
  bytes[offset + ICMP_CODE] = code;
  putU16be(bytes, offset + ICMP_CHECKSUM, 0);
  putU32be(bytes, offset + ICMP_REST, rest);
  return ICMP_HEADER_BYTES;
}

/** Computes the checksum of a message of `length` bytes, header and payload, whatever the field held. */
export function setIcmpChecksum(bytes: Uint8Array, offset: number, length: number): void {
  putU16be(bytes, offset + ICMP_CHECKSUM, 0);
  putU16be(bytes, offset + ICMP_CHECKSUM, internetChecksum(bytes, offset, length));
}

/** Writes an echo header for data that is already in place behind it, checksum included. Returns 8 + dataBytes. */
export function writeIcmpEcho(
  bytes: Uint8Array,
  offset: number,
  type: number,
  id: number,
  sequence: number,
  dataBytes: number,
): number {
  writeIcmp(bytes, offset, type, 0, ((id << 16) | (sequence & 0xffff)) >>> 0);
  setIcmpChecksum(bytes, offset, ICMP_HEADER_BYTES + dataBytes);
  return ICMP_HEADER_BYTES + dataBytes;
}

/**
 * Writes an error that quotes `quoted[quotedOffset..]`, as much as fits 576 bytes with the IP header, checksum
 * included. Returns the message's length: at most 556.
 */
export function writeIcmpError(
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
  writeIcmp(bytes, offset, type, code, rest);
  copyBytes(bytes, offset + ICMP_HEADER_BYTES, quoted, quotedOffset, quote);
  setIcmpChecksum(bytes, offset, ICMP_HEADER_BYTES + quote);
  return ICMP_HEADER_BYTES + quote;
}

/** Whether a type reports an error about another packet. */
export function isIcmpError(type: number): boolean {
  return type === ICMP_UNREACHABLE || (type >= 4 && type <= 5) || (type >= 11 && type <= 12);
}

/**
 * Whether a packet may be answered with an error at all (RFC 1122 section 3.2.2): not when it is itself an error, a
 * later fragment, addressed to a group, or from an address that names no single host.
 */
export function mayAnswerWithIcmpError(bytes: Uint8Array, ip: Ipv4Header): boolean {
  if (ip.fragmentOffset !== 0 || isMulticastIpv4(ip.dst) || ip.dst === 0xffffffff) return false;
  if (ip.src === 0 || ip.src === 0xffffffff || isMulticastIpv4(ip.src) || isLoopbackIpv4(ip.src))
    return false;
  if (ip.protocol !== IP_PROTOCOL_ICMP) return true;
  return ip.payload < ip.payloadEnd && !isIcmpError(bytes[ip.payload]);
}

/** The next-hop MTU of a "fragmentation needed" (RFC 1191 section 4), 0 from a router that does not tell. */
export function icmpNextHopMtu(bytes: Uint8Array, offset: number): number {
  return u16be(bytes, offset + ICMP_REST + 2);
}

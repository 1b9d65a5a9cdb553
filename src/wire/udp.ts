/**
 * UDP (RFC 768). The length field is believed only when it covers the header and lies within the IP payload; bytes
 * between the two ends are padding. A checksum of 0 means "none" over IPv4 and is an error over IPv6 (RFC 8200 8.1).
 */

import { putU16be, u16be } from './bytes.ts';
import { finishChecksum, foldSum, pseudoSumV4, pseudoSumV6, sumBytes } from './checksum.ts';
import { IP_PROTOCOL_UDP } from './ipv4.ts';

export const UDP_HEADER_BYTES = 8;
export const UDP_SRC_PORT = 0;
export const UDP_DST_PORT = 2;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;

/** Reused: `parse` overwrites every field. */
export class UdpHeader {
  offset = 0;
  srcPort = 0;
  dstPort = 0;
  checksum = 0;
  payload = 0;
  payloadEnd = 0;

  /** False when the datagram is shorter than 8 bytes or its length field says more, or less, than can be. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < UDP_HEADER_BYTES) return false;
    const length = u16be(bytes, offset + UDP_LENGTH);
    if (length < UDP_HEADER_BYTES || length > end - offset) return false;
    this.offset = offset;
    this.srcPort = u16be(bytes, offset + UDP_SRC_PORT);
    this.dstPort = u16be(bytes, offset + UDP_DST_PORT);
    this.checksum = u16be(bytes, offset + UDP_CHECKSUM);
    this.payload = offset + UDP_HEADER_BYTES;
    this.payloadEnd = offset + length;
    return true;
  }

  /** Whether the checksum of the datagram just parsed is right, given its pseudo-header sum; true when it has none. */
  checksumOk(bytes: Uint8Array, pseudoSum: number): boolean {
    if (this.checksum === 0) return true;
    return foldSum(sumBytes(bytes, this.offset, this.payloadEnd - this.offset, pseudoSum)) === 0xffff;
  }
}

/** Writes a header with checksum 0; `length` counts header and payload. Returns 8. */
export function writeUdp(
  bytes: Uint8Array,
  offset: number,
  srcPort: number,
  dstPort: number,
  length: number,
): number {
  putU16be(bytes, offset + UDP_SRC_PORT, srcPort);
  putU16be(bytes, offset + UDP_DST_PORT, dstPort);
  putU16be(bytes, offset + UDP_LENGTH, length);
  putU16be(bytes, offset + UDP_CHECKSUM, 0);
  return UDP_HEADER_BYTES;
}

/** Fills the checksum of a datagram of `length` bytes in place, from its pseudo-header sum. */
export function setUdpChecksum(bytes: Uint8Array, offset: number, length: number, pseudoSum: number): void {
  putU16be(bytes, offset + UDP_CHECKSUM, 0);
  const checksum = finishChecksum(sumBytes(bytes, offset, length, pseudoSum));
  putU16be(bytes, offset + UDP_CHECKSUM, checksum === 0 ? 0xffff : checksum);
}

/** `setUdpChecksum` over IPv4. */
export function setUdpChecksumV4(
  bytes: Uint8Array,
  offset: number,
  length: number,
  src: number,
  dst: number,
): void {
  setUdpChecksum(bytes, offset, length, pseudoSumV4(src, dst, IP_PROTOCOL_UDP, length));
}

/** `setUdpChecksum` over IPv6, addresses at `ipOffset` in the same array. */
export function setUdpChecksumV6(bytes: Uint8Array, offset: number, length: number, ipOffset: number): void {
  const pseudo = pseudoSumV6(bytes, ipOffset + 8, bytes, ipOffset + 24, IP_PROTOCOL_UDP, length);
  setUdpChecksum(bytes, offset, length, pseudo);
}

/**
 * `struct virtio_net_hdr` (virtio 1.2 section 5.1.6): the offload facts that travel in front of a frame, between a
 * guest and a virtio device and on a tap with vnet_hdr. Little-endian, in three lengths: 10 bytes (legacy), 12 with
 * the number of merged buffers (mergeable buffers or version 1), 20 with a receive hash.
 */

import { putU16le, putU32le, u16le } from './bytes.ts';

export const VNET_HDR_FLAGS = 0;
export const VNET_HDR_GSO_TYPE = 1;
export const VNET_HDR_HDR_LEN = 2;
export const VNET_HDR_GSO_SIZE = 4;
export const VNET_HDR_CSUM_START = 6;
export const VNET_HDR_CSUM_OFFSET = 8;
export const VNET_HDR_NUM_BUFFERS = 10;
export const VNET_HDR_HASH_VALUE = 12;
export const VNET_HDR_HASH_REPORT = 16;

export const VNET_HDR_LEGACY_BYTES = 10;
export const VNET_HDR_BYTES = 12;
export const VNET_HDR_HASH_BYTES = 20;

export const VNET_HDR_F_NEEDS_CSUM = 1;
export const VNET_HDR_F_DATA_VALID = 2;
export const VNET_HDR_F_RSC_INFO = 4;

export const VNET_HDR_GSO_NONE = 0;
export const VNET_HDR_GSO_TCPV4 = 1;
export const VNET_HDR_GSO_UDP = 3;
export const VNET_HDR_GSO_TCPV6 = 4;
export const VNET_HDR_GSO_UDP_L4 = 5;
/** Set beside a TCP type: the segments carry ECN's CWR. */
export const VNET_HDR_GSO_ECN = 0x80;

/** Reused: `parse` overwrites every field. */
export class VirtioNetHdr {
  flags = 0;
  gsoType = VNET_HDR_GSO_NONE;
  hdrLen = 0;
  gsoSize = 0;
  csumStart = 0;
  csumOffset = 0;
  numBuffers = 0;

  clear(): void {
    this.flags = 0;
    this.gsoType = VNET_HDR_GSO_NONE;
    this.hdrLen = 0;
    this.gsoSize = 0;
    this.csumStart = 0;
    this.csumOffset = 0;
    this.numBuffers = 0;
  }

  /** Reads a header of `headerBytes` (10, 12 or 20). False when fewer are at hand. */
  parse(bytes: Uint8Array, offset: number, end: number, headerBytes: number): boolean {
    if (end - offset < headerBytes || headerBytes < VNET_HDR_LEGACY_BYTES) return false;
    this.flags = bytes[offset + VNET_HDR_FLAGS];
    this.gsoType = bytes[offset + VNET_HDR_GSO_TYPE];
    this.hdrLen = u16le(bytes, offset + VNET_HDR_HDR_LEN);
    this.gsoSize = u16le(bytes, offset + VNET_HDR_GSO_SIZE);
    this.csumStart = u16le(bytes, offset + VNET_HDR_CSUM_START);
    this.csumOffset = u16le(bytes, offset + VNET_HDR_CSUM_OFFSET);
    this.numBuffers = headerBytes >= VNET_HDR_BYTES ? u16le(bytes, offset + VNET_HDR_NUM_BUFFERS) : 0;
    return true;
  }

  /**
   * Whether the facts can be true of a frame of `frameBytes`: a checksum field within it, a GSO type that exists. A
   * segment size of 0 makes the frame an ordinary one, and `hdrLen`, which is only a hint, is kept within the frame.
   */
  settle(frameBytes: number): boolean {
    if (this.gsoSize === 0) this.gsoType = VNET_HDR_GSO_NONE;
    if (this.hdrLen > frameBytes) this.hdrLen = frameBytes;
    if ((this.flags & VNET_HDR_F_NEEDS_CSUM) !== 0 && this.csumStart + this.csumOffset + 2 > frameBytes)
      return false;
    switch (this.gsoType & ~VNET_HDR_GSO_ECN) {
      case VNET_HDR_GSO_NONE:
        this.gsoType = VNET_HDR_GSO_NONE;
        return true;
      case VNET_HDR_GSO_TCPV4:
      case VNET_HDR_GSO_TCPV6:
        return true;
      case VNET_HDR_GSO_UDP:
      case VNET_HDR_GSO_UDP_L4:
        return (this.gsoType & VNET_HDR_GSO_ECN) === 0;
      default:
        return false;
    }
  }

  /** Writes a header of `headerBytes` (10, 12 or 20, the hash left empty). Returns `headerBytes`. */
  write(bytes: Uint8Array, offset: number, headerBytes: number): number {
    bytes[offset + VNET_HDR_FLAGS] = this.flags;
    bytes[offset + VNET_HDR_GSO_TYPE] = this.gsoType;
    putU16le(bytes, offset + VNET_HDR_HDR_LEN, this.hdrLen);
    putU16le(bytes, offset + VNET_HDR_GSO_SIZE, this.gsoSize);
    putU16le(bytes, offset + VNET_HDR_CSUM_START, this.csumStart);
    putU16le(bytes, offset + VNET_HDR_CSUM_OFFSET, this.csumOffset);
    if (headerBytes >= VNET_HDR_BYTES) putU16le(bytes, offset + VNET_HDR_NUM_BUFFERS, this.numBuffers);
    if (headerBytes >= VNET_HDR_HASH_BYTES) writeVnetHash(bytes, offset, 0, 0);
    return headerBytes;
  }
}

/** Writes the hash part of a 20-byte header: the value and the kind that was computed. */
export function writeVnetHash(bytes: Uint8Array, offset: number, hash: number, report: number): void {
  putU32le(bytes, offset + VNET_HDR_HASH_VALUE, hash);
  putU32le(bytes, offset + VNET_HDR_HASH_REPORT, report & 0xffff);
}

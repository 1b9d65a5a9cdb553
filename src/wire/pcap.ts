/**
 * Capture files: classic pcap and pcapng (both as the IETF opsawg drafts draft-ietf-opsawg-pcap and -pcapng describe
 * them), headers only. A frame's bytes go between what these functions write, by reference. Everything is written
 * little-endian; the classic reader takes either order.
 *
 * Times come as whole seconds and nanoseconds since 1970, since their product does not fit a number exactly.
 */

import { putLatin1, putU16le, putU32le, u16be, u16le, u32be, u32le, utf8Bytes } from './bytes.ts';

export const LINKTYPE_ETHERNET = 1;
/** What capture tools accept as the longest frame. */
export const PCAP_SNAPLEN_BYTES = 262144;

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
export const PCAP_FILE_HEADER_BYTES = 24;
export const PCAP_RECORD_HEADER_BYTES = 16;

/** Writes the header of a classic file. Returns its length, 24. */
export function writePcapHeader(
  bytes: Uint8Array,
  offset: number,
  nanoseconds: boolean,
  snaplenBytes = PCAP_SNAPLEN_BYTES,
  linktype = LINKTYPE_ETHERNET,
): number {
  putU32le(bytes, offset, nanoseconds ? MAGIC_NANOSECONDS : MAGIC_MICROSECONDS);
  putU16le(bytes, offset + 4, 2);
  putU16le(bytes, offset + 6, 4);
  putU32le(bytes, offset + 8, 0);
  putU32le(bytes, offset + 12, 0);
  putU32le(bytes, offset + 16, snaplenBytes);
  putU32le(bytes, offset + 20, linktype);
  return PCAP_FILE_HEADER_BYTES;
}

/**
 * Writes the header of a classic record. `fraction` is micro- or nanoseconds, as the file's header says. Returns 16.
 */
export function writePcapRecord(
  bytes: Uint8Array,
  offset: number,
  seconds: number,
  fraction: number,
  capturedBytes: number,
  originalBytes: number,
): number {
  putU32le(bytes, offset, seconds);
  putU32le(bytes, offset + 4, fraction);
  putU32le(bytes, offset + 8, capturedBytes);
  putU32le(bytes, offset + 12, originalBytes);
  return PCAP_RECORD_HEADER_BYTES;
}

/** Reads classic files: `parseHeader` once, then `parseRecord` for each record. */
export class PcapReader {
  nanoseconds = false;
  bigEndian = false;
  snaplenBytes = 0;
  linktype = 0;
  /** Of the record just parsed. */
  seconds = 0;
  /** Nanoseconds within the second, whatever the file's unit. */
  nanos = 0;
  originalBytes = 0;
  data = 0;
  dataEnd = 0;

  /** False when it is not a classic pcap file of version 2. */
  parseHeader(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < PCAP_FILE_HEADER_BYTES) return false;
    const little = u32le(bytes, offset);
    const big = u32be(bytes, offset);
    this.bigEndian = big === MAGIC_MICROSECONDS || big === MAGIC_NANOSECONDS;
    const magic = this.bigEndian ? big : little;
    if (magic !== MAGIC_MICROSECONDS && magic !== MAGIC_NANOSECONDS) return false;
    this.nanoseconds = magic === MAGIC_NANOSECONDS;
    this.snaplenBytes = this.#u32(bytes, offset + 16);
    this.linktype = this.#u32(bytes, offset + 20) & 0xffff;
    return (this.bigEndian ? u16be(bytes, offset + 4) : u16le(bytes, offset + 4)) === 2;
  }

  /** Returns where the next record starts, or -1 when this one is cut short or longer than any capture tool writes. */
  parseRecord(bytes: Uint8Array, offset: number, end: number): number {
    if (end - offset < PCAP_RECORD_HEADER_BYTES) return -1;
    const captured = this.#u32(bytes, offset + 8);
    if (captured > PCAP_SNAPLEN_BYTES || captured > end - offset - PCAP_RECORD_HEADER_BYTES) return -1;
    this.seconds = this.#u32(bytes, offset);
    this.nanos = this.#u32(bytes, offset + 4) * (this.nanoseconds ? 1 : 1000);
    this.originalBytes = this.#u32(bytes, offset + 12);
    this.data = offset + PCAP_RECORD_HEADER_BYTES;
    this.dataEnd = this.data + captured;
    return this.dataEnd;
  }

  #u32(bytes: Uint8Array, offset: number): number {
    return this.bigEndian ? u32be(bytes, offset) : u32le(bytes, offset);
  }
}

const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const OPTION_END = 0;
const OPTION_IF_NAME = 2;
const OPTION_IF_TSRESOL = 9;
const OPTION_SHB_USERAPPL = 4;
const OPTION_EPB_FLAGS = 2;
const TSRESOL_NANOSECONDS = 9;

/** The direction in a packet's flags: as seen from the captured interface. */
export const PCAPNG_DIRECTION_UNKNOWN = 0;
export const PCAPNG_INBOUND = 1;
export const PCAPNG_OUTBOUND = 2;

export const PCAPNG_PACKET_HEAD_BYTES = 28;
/** The most that `writePcapngPacketTail` writes: padding, flags, end of options, length. */
export const PCAPNG_PACKET_TAIL_MAX_BYTES = 19;

function pad4(length: number): number {
  return (length + 3) & ~3;
}

/** Writes an option with its padding. Returns where the next one goes. */
function putOption(bytes: Uint8Array, at: number, code: number, value: Uint8Array): number {
  putU16le(bytes, at, code);
  putU16le(bytes, at + 2, value.length);
  bytes.fill(0, at + 4, at + 4 + pad4(value.length));
  bytes.set(value, at + 4);
  return at + 4 + pad4(value.length);
}

/** Writes the end of options and both lengths of a block. Returns the block's length. */
function finishBlock(bytes: Uint8Array, offset: number, at: number): number {
  putU32le(bytes, at, OPTION_END);
  const length = at + 8 - offset;
  putU32le(bytes, offset + 4, length);
  putU32le(bytes, at + 4, length);
  return length;
}

/** Writes a section header of unknown length; `application` names the writer. Returns its length: 36 and the text. */
export function writePcapngSection(bytes: Uint8Array, offset: number, application: string): number {
  putU32le(bytes, offset, BLOCK_SECTION);
  putU32le(bytes, offset + 8, BYTE_ORDER_MAGIC);
  putU16le(bytes, offset + 12, 1);
  putU16le(bytes, offset + 14, 0);
  bytes.fill(0xff, offset + 16, offset + 24);
  const value = new Uint8Array(application.length);
  putLatin1(value, 0, application);
  return finishBlock(bytes, offset, putOption(bytes, offset + 24, OPTION_SHB_USERAPPL, value));
}

/**
 * Writes an interface description with nanosecond times. Interfaces count from 0 in the order written. Returns its
 * length: 36 and the name in UTF-8, padded.
 */
export function writePcapngInterface(
  bytes: Uint8Array,
  offset: number,
  name: string,
  snaplenBytes = PCAP_SNAPLEN_BYTES,
  linktype = LINKTYPE_ETHERNET,
): number {
  putU32le(bytes, offset, BLOCK_INTERFACE);
  putU16le(bytes, offset + 8, linktype);
  putU16le(bytes, offset + 10, 0);
  putU32le(bytes, offset + 12, snaplenBytes);
  let at = putOption(bytes, offset + 16, OPTION_IF_NAME, utf8Bytes(name));
  putU16le(bytes, at, OPTION_IF_TSRESOL);
  putU16le(bytes, at + 2, 1);
  putU32le(bytes, at + 4, TSRESOL_NANOSECONDS);
  at += 8;
  return finishBlock(bytes, offset, at);
}

/** The whole length of a packet block that captures so many bytes. */
export function pcapngPacketBytes(capturedBytes: number, direction: number): number {
  return PCAPNG_PACKET_HEAD_BYTES + pad4(capturedBytes) + (direction === PCAPNG_DIRECTION_UNKNOWN ? 4 : 16);
}

/** Writes what comes before a packet's bytes. The tail must be given the same length and direction. Returns 28. */
export function writePcapngPacketHead(
  bytes: Uint8Array,
  offset: number,
  interfaceIndex: number,
  seconds: number,
  nanos: number,
  capturedBytes: number,
  originalBytes: number,
  direction: number,
): number {
  // seconds * 1e9 + nanos as two halves of 64 bits, by way of 16-bit parts that stay exact.
  const low = (seconds % 0x10000) * 1e9 + nanos;
  const high = Math.floor(seconds / 0x10000) * 1e9;
  const bottom = (high % 0x10000) * 0x10000 + low;
  putU32le(bytes, offset, BLOCK_PACKET);
  putU32le(bytes, offset + 4, pcapngPacketBytes(capturedBytes, direction));
  putU32le(bytes, offset + 8, interfaceIndex);
  putU32le(bytes, offset + 12, Math.floor(high / 0x10000) + Math.floor(bottom / 0x1_0000_0000));
  putU32le(bytes, offset + 16, bottom % 0x1_0000_0000);
  putU32le(bytes, offset + 20, capturedBytes);
  putU32le(bytes, offset + 24, originalBytes);
  return PCAPNG_PACKET_HEAD_BYTES;
}

/** Writes what comes behind a packet's bytes: padding, direction, length. Returns how many bytes, 4 to 19. */
export function writePcapngPacketTail(
  bytes: Uint8Array,
  offset: number,
  capturedBytes: number,
  direction: number,
): number {
  let at = offset;
  for (let pad = pad4(capturedBytes) - capturedBytes; pad > 0; pad--) bytes[at++] = 0;
  if (direction !== PCAPNG_DIRECTION_UNKNOWN) {
    putU16le(bytes, at, OPTION_EPB_FLAGS);
    putU16le(bytes, at + 2, 4);
    putU32le(bytes, at + 4, direction);
    putU32le(bytes, at + 8, OPTION_END);
    at += 12;
  }
  putU32le(bytes, at, pcapngPacketBytes(capturedBytes, direction));
  return at + 4 - offset;
}

/**
 * The TCP header (RFC 9293 section 3.1) and its options: MSS, window scale and timestamps (RFC 7323), selective
 * acknowledgement (RFC 2018). Codec only: the state machine lives in backends/user. Header and options are two
 * structs, as a segment's options are looked at less often than its header; the layout almost every segment has (two
 * NOPs and a timestamp) is recognised without the walk.
 */

import { putU16be, putU32be, u16be, u32be } from './bytes.ts';
import { finishChecksum, foldSum, sumBytes } from './checksum.ts';

export const TCP_HEADER_BYTES = 20;
export const TCP_HEADER_MAX_BYTES = 60;
export const TCP_SRC_PORT = 0;
export const TCP_DST_PORT = 2;
export const TCP_SEQ = 4;
export const TCP_ACK = 8;
export const TCP_DATA_OFFSET = 12;
export const TCP_FLAGS = 13;
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK_FLAG = 0x10;
export const TCP_URG = 0x20;
export const TCP_ECE = 0x40;
export const TCP_CWR = 0x80;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_WINDOW_SCALE = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
const OPTION_TIMESTAMPS = 8;
/** NOP, NOP, kind 8, length 10: the aligned timestamp option of RFC 7323 appendix A. */
const ALIGNED_TIMESTAMPS = 0x0101080a;

/** The largest shift RFC 7323 section 2.3 allows; a larger one counts as this. */
export const TCP_WINDOW_SCALE_MAX = 14;
/** As many SACK blocks as 40 bytes of options hold. */
export const TCP_SACK_BLOCKS_MAX = 4;

/** Reused: `parse` overwrites every field. Sequence numbers are non-negative 32-bit numbers. */
export class TcpHeader {
  offset = 0;
  srcPort = 0;
  dstPort = 0;
  seq = 0;
  ack = 0;
  flags = 0;
  /** As sent, before scaling. */
  window = 0;
  urgent = 0;
  headerBytes = 0;
  payload = 0;
  payloadEnd = 0;

  /** False when the header is cut short or its data offset is less than 5 words or past `end`. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < TCP_HEADER_BYTES) return false;
    const headerBytes = (bytes[offset + TCP_DATA_OFFSET] >>> 4) * 4;
    if (headerBytes < TCP_HEADER_BYTES || headerBytes > end - offset) return false;
    this.offset = offset;
    this.srcPort = u16be(bytes, offset + TCP_SRC_PORT);
    this.dstPort = u16be(bytes, offset + TCP_DST_PORT);
    this.seq = u32be(bytes, offset + TCP_SEQ);
    this.ack = u32be(bytes, offset + TCP_ACK);
    this.flags = bytes[offset + TCP_FLAGS];
    this.window = u16be(bytes, offset + TCP_WINDOW);
    this.urgent = u16be(bytes, offset + TCP_URGENT);
    this.headerBytes = headerBytes;
    this.payload = offset + headerBytes;
    this.payloadEnd = end;
    return true;
  }

  /** Whether the checksum of the segment just parsed is right, given its pseudo-header sum. */
  checksumOk(bytes: Uint8Array, pseudoSum: number): boolean {
    return foldSum(sumBytes(bytes, this.offset, this.payloadEnd - this.offset, pseudoSum)) === 0xffff;
  }
}

/** The options of a segment. Reused: `parse` and `clear` overwrite every field. */
export class TcpOptions {
  /** 0: absent. */
  mss = 0;
  /** -1: absent. */
  windowScale = -1;
  sackPermitted = false;
  hasTimestamps = false;
  timestampValue = 0;
  timestampEcho = 0;
  sackCount = 0;
  readonly sackLeft = new Uint32Array(TCP_SACK_BLOCKS_MAX);
  readonly sackRight = new Uint32Array(TCP_SACK_BLOCKS_MAX);

  clear(): void {
    this.mss = 0;
    this.windowScale = -1;
    this.sackPermitted = false;
    this.hasTimestamps = false;
    this.timestampValue = 0;
    this.timestampEcho = 0;
    this.sackCount = 0;
  }

  /**
   * Reads the options between the fixed header and the payload. Kinds it does not know, and known ones with the
   * wrong length, are skipped. False when a length is 0, 1 or past `end`: what came before it stands, the rest
   * cannot be read.
   */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    this.clear();
    if (end - offset === 12 && u32be(bytes, offset) === ALIGNED_TIMESTAMPS) {
      this.#timestamps(bytes, offset + 2);
      return true;
    }
    let at = offset;
    while (at < end) {
      const kind = bytes[at];
      if (kind === OPTION_END) return true;
      if (kind === OPTION_NOP) {
        at++;
        continue;
      }
      if (end - at < 2) return false;
      const length = bytes[at + 1];
      if (length < 2 || length > end - at) return false;
      this.#option(bytes, at, kind, length);
      at += length;
    }
    return true;
  }

  #option(bytes: Uint8Array, at: number, kind: number, length: number): void {
    if (kind === OPTION_MSS && length === 4) this.mss = u16be(bytes, at + 2);
    else if (kind === OPTION_WINDOW_SCALE && length === 3) {
      this.windowScale = Math.min(bytes[at + 2], TCP_WINDOW_SCALE_MAX);
    } else if (kind === OPTION_SACK_PERMITTED && length === 2) this.sackPermitted = true;
    else if (kind === OPTION_TIMESTAMPS && length === 10) this.#timestamps(bytes, at);
    else if (kind === OPTION_SACK && length >= 10 && (length - 2) % 8 === 0) {
      const count = Math.min((length - 2) >>> 3, TCP_SACK_BLOCKS_MAX);
      for (let i = 0; i < count; i++) {
        this.sackLeft[i] = u32be(bytes, at + 2 + 8 * i);
        this.sackRight[i] = u32be(bytes, at + 6 + 8 * i);
      }
      this.sackCount = count;
    }
  }

  #timestamps(bytes: Uint8Array, at: number): void {
    this.hasTimestamps = true;
    this.timestampValue = u32be(bytes, at + 2);
    this.timestampEcho = u32be(bytes, at + 6);
  }
}

/**
 * Writes what `options` holds, each option aligned with NOPs, and returns its length: a multiple of 4, at most 40.
 * SACK blocks that no longer fit are left out, the last ones first.
 */
export function writeTcpOptions(bytes: Uint8Array, offset: number, options: TcpOptions): number {
  const limit = offset + TCP_HEADER_MAX_BYTES - TCP_HEADER_BYTES;
  let at = offset;
  if (options.mss !== 0) {
    putU16be(bytes, at, (OPTION_MSS << 8) | 4);
    putU16be(bytes, at + 2, options.mss);
    at += 4;
  }
  if (options.windowScale >= 0) {
    putU32be(
      bytes,
      at,
      (OPTION_NOP << 24) | (OPTION_WINDOW_SCALE << 16) | (3 << 8) | (options.windowScale & 0xff),
    );
    at += 4;
  }
  if (options.sackPermitted) {
    putU32be(bytes, at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK_PERMITTED << 8) | 2);
    at += 4;
  }
  if (options.hasTimestamps) {
    putU32be(bytes, at, ALIGNED_TIMESTAMPS);
    putU32be(bytes, at + 4, options.timestampValue);
    putU32be(bytes, at + 8, options.timestampEcho);
    at += 12;
  }
  const blocks = Math.min(options.sackCount, TCP_SACK_BLOCKS_MAX, (limit - at - 4) >> 3);
  if (blocks > 0) {
    putU32be(bytes, at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK << 8) | (2 + 8 * blocks));
    at += 4;
    for (let i = 0; i < blocks; i++, at += 8) {
      putU32be(bytes, at, options.sackLeft[i]);
      putU32be(bytes, at + 4, options.sackRight[i]);
    }
  }
  return at - offset;
}

/**
 * Writes the fixed header with checksum 0 and no urgent data. `headerBytes` counts the options, which the caller
 * writes behind it. Returns 20.
 */
export function writeTcp(
  bytes: Uint8Array,
  offset: number,
  srcPort: number,
  dstPort: number,
  seq: number,
  ack: number,
  headerBytes: number,
  flags: number,
  window: number,
): number {
  putU16be(bytes, offset + TCP_SRC_PORT, srcPort);
  putU16be(bytes, offset + TCP_DST_PORT, dstPort);
  putU32be(bytes, offset + TCP_SEQ, seq);
  putU32be(bytes, offset + TCP_ACK, ack);
  bytes[offset + TCP_DATA_OFFSET] = (headerBytes >>> 2) << 4;
  bytes[offset + TCP_FLAGS] = flags;
  putU16be(bytes, offset + TCP_WINDOW, window);
  putU32be(bytes, offset + TCP_CHECKSUM, 0);
  return TCP_HEADER_BYTES;
}

/** Fills the checksum of a segment of `length` bytes in place, from its pseudo-header sum. */
export function setTcpChecksum(bytes: Uint8Array, offset: number, length: number, pseudoSum: number): void {
  putU16be(bytes, offset + TCP_CHECKSUM, 0);
  putU16be(bytes, offset + TCP_CHECKSUM, finishChecksum(sumBytes(bytes, offset, length, pseudoSum)));
}

/** Whether sequence number `a` comes before `b` (RFC 9293 section 3.4: arithmetic modulo 2^32). */
export function seqBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** Whether `a` comes before `b` or is the same. */
export function seqAtMost(a: number, b: number): boolean {
  return ((a - b) | 0) <= 0;
}

/** `a + n` modulo 2^32; `n` may be negative. */
export function seqAdd(a: number, n: number): number {
  return (a + n) >>> 0;
}

/** How far `a` is ahead of `b`: between -2^31 and 2^31 - 1. */
export function seqDistance(a: number, b: number): number {
  return (a - b) | 0;
}

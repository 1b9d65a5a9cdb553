/**
 * One received segment, parsed from the private first bytes of its frame. One instance serves a whole stack: the fields are overwritten by
 * each frame. Sequence numbers are int32 (small integers to the engine, so no boxed doubles on the data path).
 */

import {
  FACT_CSUM_VALID,
  FACT_NEEDS_CSUM,
  FACTS,
  type FramePool,
  LENGTH,
  OFFSET,
  TOTAL,
} from '../core/pool.ts';
import { u16be } from '../wire/bytes.ts';
import { foldSum, pseudoSumAt } from '../wire/checksum.ts';
import { sumFrame } from '../wire/frame-sum.ts';
import { IP_PROTOCOL_TCP } from '../wire/ipv4.ts';
import {
  TCP_ACK,
  TCP_DATA_OFFSET,
  TCP_DST_PORT,
  TCP_FIN,
  TCP_FLAGS,
  TCP_HEADER_BYTES,
  TCP_SEQ,
  TCP_SRC_PORT,
  TCP_SYN,
  TCP_WINDOW,
  TcpOptions,
} from '../wire/tcp.ts';

function i32be(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
}

export class Segment {
  frame = 0;
  /** 4 or 6, and where the IP and TCP headers lie in region 0. */
  version = 4;
  ipOffset = 0;
  tcpOffset = 0;
  srcPort = 0;
  dstPort = 0;
  seq = 0;
  ack = 0;
  flags = 0;
  /** As sent, before scaling. */
  window = 0;
  /** Where the payload starts in the frame, from the frame's first byte, and how long it is. */
  payloadAt = 0;
  payloadBytes = 0;
  readonly options = new TcpOptions();

  /** Sequence space it takes: payload, SYN and FIN (RFC 9293 section 3.4: SEG.LEN). */
  get length(): number {
    return this.payloadBytes + (this.flags & TCP_SYN ? 1 : 0) + (this.flags & TCP_FIN ? 1 : 0);
  }

  /**
   * Reads the header at `tcpOffset` of region 0; the IP packet ends `ipPayloadBytes` behind it. False when a length lies or the header is
   * not in the frame's first segment.
   */
  parse(
    pool: FramePool,
    frame: number,
    version: number,
    ipOffset: number,
    tcpOffset: number,
    ipPayloadBytes: number,
  ): boolean {
    const bytes = pool.bytes;
    const t = pool.table;
    const start = t[frame + OFFSET]!;
    const inFirst = start + t[frame + LENGTH]! - tcpOffset;
    if (inFirst < TCP_HEADER_BYTES || ipPayloadBytes < TCP_HEADER_BYTES) return false;
    const headerBytes = (bytes[tcpOffset + TCP_DATA_OFFSET]! >>> 4) * 4;
    if (headerBytes < TCP_HEADER_BYTES || headerBytes > ipPayloadBytes || headerBytes > inFirst) return false;
    if (tcpOffset - start + ipPayloadBytes > t[frame + TOTAL]!) return false;
    this.frame = frame;
    this.version = version;
    this.ipOffset = ipOffset;
    this.tcpOffset = tcpOffset;
    this.srcPort = u16be(bytes, tcpOffset + TCP_SRC_PORT);
    this.dstPort = u16be(bytes, tcpOffset + TCP_DST_PORT);
    this.seq = i32be(bytes, tcpOffset + TCP_SEQ);
    this.ack = i32be(bytes, tcpOffset + TCP_ACK);
    this.flags = bytes[tcpOffset + TCP_FLAGS]! & 0x3f;
    this.window = u16be(bytes, tcpOffset + TCP_WINDOW);
    this.payloadAt = tcpOffset - start + headerBytes;
    this.payloadBytes = ipPayloadBytes - headerBytes;
    if (headerBytes === TCP_HEADER_BYTES) this.options.clear();
    else this.options.parse(bytes, tcpOffset + TCP_HEADER_BYTES, tcpOffset + headerBytes);
    return true;
  }

  /** Whether the checksum is right, or somebody trustworthy answers for it (its offload facts). */
  checksumOk(pool: FramePool): boolean {
    const t = pool.table;
    const frame = this.frame;
    if ((t[frame + FACTS]! & (FACT_NEEDS_CSUM | FACT_CSUM_VALID)) !== 0) return true;
    const at = this.tcpOffset - t[frame + OFFSET]!;
    const length = this.payloadAt + this.payloadBytes - at;
    const pseudo = pseudoSumAt(pool.bytes, this.ipOffset, IP_PROTOCOL_TCP, length);
    return foldSum(sumFrame(pool, frame, at, length, pseudo)) === 0xffff;
  }
}

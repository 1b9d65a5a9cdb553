/**
 * Transmit offloads (8254x manual, sections 3.3.6, 3.3.7 and 3.5): what the last context descriptor and a frame's own options ask for, turned into the
 * frame's offload facts. Nothing is believed: every offset is checked against the frame, and a request that contradicts it is
 * counted and left out, so the frame goes out as it is.
 *
 * The facts are those of virtio_net_hdr: for a frame to be segmented, IP lengths are set as if the whole were one packet, and the TCP checksum field
 * holds the pseudo-header's sum with that length (a driver of this chip leaves lengths and that sum to the hardware). Writes go to the frame's first
 * segment only, which is a private copy.
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_ECN,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  HEADER_LENGTH,
  LENGTH,
  OFFSET,
  TOTAL,
} from '../../core/pool.ts';
import { putU16be } from '../../wire/bytes.ts';
import { finishChecksum, foldSum, pseudoSumAt, sumBytes } from '../../wire/checksum.ts';
import { sumFrame } from '../../wire/frame-sum.ts';
import type { Chip } from './chip.ts';
import { VET } from './registers.ts';

/** The fields of a context descriptor. */
export interface TxContext {
  ipStart: number;
  ipOffset: number;
  /** Last byte of the IP checksum's range; 0: the frame's end. */
  ipEnd: number;
  l4Start: number;
  l4Offset: number;
  l4End: number;
  payloadBytes: number;
  headerBytes: number;
  segmentBytes: number;
  /** TUCMD: bit 0 TCP, bit 1 IPv4. */
  command: number;
}

const POPTS_IXSM = 1 << 8;
const POPTS_TXSM = 2 << 8;
const TUCMD_TCP = 1;
const IPV4 = 4;
const IPV6 = 6;
const IPV6_BYTES = 40;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const TCP_CWR = 0x80;

export class TxOffload {
  readonly context: TxContext = emptyContext();
  readonly #chip: Chip;

  constructor(chip: Chip) {
    this.#chip = chip;
  }

  reset(): void {
    Object.assign(this.context, emptyContext());
  }

  /** Takes saved fields, in TxContext's order. */
  load(fields: readonly number[]): void {
    const names = Object.keys(this.context) as (keyof TxContext)[];
    for (const [i, name] of names.entries()) this.context[name] = fields[i];
  }

  setContext(word0: number, word1: number, word2: number, word3: number): void {
    const c = this.context;
    c.ipStart = word0 & 0xff;
    c.ipOffset = (word0 >>> 8) & 0xff;
    c.ipEnd = word0 >>> 16;
    c.l4Start = word1 & 0xff;
    c.l4Offset = (word1 >>> 8) & 0xff;
    c.l4End = word1 >>> 16;
    c.payloadBytes = word2 & 0xfffff;
    c.headerBytes = (word3 >>> 8) & 0xff;
    c.segmentBytes = word3 >>> 16;
    c.command = word2 >>> 24;
  }

  /** Whether the context can segment a frame of `bytes` bytes; a segment size of 0 or a frame of headers only is sent as it is. */
  canSegment(bytes: number): boolean {
    const c = this.context;
    return c.segmentBytes !== 0 && c.headerBytes >= 34 && bytes > c.headerBytes;
  }

  #bad(): void {
    this.#chip.stats.txBadOffload++;
  }

  /** Writes an 802.1Q tag into the gap behind the addresses. */
  insertTag(frame: number, tci: number): void {
    const { pool, regs } = this.#chip;
    const at = pool.table[frame + OFFSET] + 12;
    putU16be(pool.bytes, at, regs[VET >> 2] & 0xffff);
    putU16be(pool.bytes, at + 2, tci);
  }

  /** POPTS of a data descriptor: IXSM and TXSM. `shift`: bytes inserted in front of the IP header. */
  checksums(frame: number, bytes: number, options: number, shift: number): void {
    const c = this.context;
    if ((options & POPTS_IXSM) !== 0) {
      const end = c.ipEnd === 0 ? bytes : c.ipEnd + 1 + shift;
      this.#fillNow(frame, bytes, c.ipStart + shift, end, c.ipOffset + shift);
    }
    if ((options & POPTS_TXSM) !== 0)
      this.#toBeFilled(frame, bytes, c.l4Start + shift, c.l4End, c.l4Offset + shift, shift);
  }

  /** IC of a legacy descriptor: the sum from CSS to the end goes to CSO. */
  legacyChecksum(frame: number, bytes: number, command: number, options: number, shift: number): void {
    this.#toBeFilled(
      frame,
      bytes,
      ((options >>> 8) & 0xff) + shift,
      0,
      ((command >>> 16) & 0xff) + shift,
      shift,
    );
  }

  #toBeFilled(frame: number, bytes: number, start: number, last: number, at: number, shift: number): void {
    const t = this.#chip.pool.table;
    if (last !== 0 || at < start) {
      this.#fillNow(frame, bytes, start, last === 0 ? bytes : last + 1 + shift, at);
      return;
    }
    if (at + 2 > bytes || at + 2 > t[frame + LENGTH]) {
      this.#bad();
      return;
    }
    t[frame + FACTS] |= FACT_NEEDS_CSUM;
    t[frame + CSUM_START] = start;
    t[frame + CSUM_OFFSET] = at - start;
  }

  /** Sums [start, end) and stores the checksum at `at`. */
  #fillNow(frame: number, bytes: number, start: number, end: number, at: number): void {
    const { pool } = this.#chip;
    if (start >= end || end > bytes || at + 2 > pool.table[frame + LENGTH]) {
      this.#bad();
      return;
    }
    const sum = sumFrame(pool, frame, start, end - start);
    putU16be(pool.bytes, pool.table[frame + OFFSET] + at, finishChecksum(sum));
  }

  /** TSE: completes the headers of a frame that is to be segmented, and sets its facts. */
  segment(frame: number, shift: number): void {
    const c = this.context;
    const { pool } = this.#chip;
    const t = pool.table;
    const bytes = pool.bytes;
    const slot = t[frame + OFFSET];
    const total = t[frame + TOTAL];
    const header = c.headerBytes + shift;
    const ip = c.ipStart + shift;
    const l4 = c.l4Start + shift;
    const isTcp = (c.command & TUCMD_TCP) !== 0;
    const protocol = isTcp ? PROTOCOL_TCP : PROTOCOL_UDP;
    if (
      header > t[frame + LENGTH] ||
      ip < 14 ||
      l4 < ip + 20 ||
      l4 + (isTcp ? 20 : 8) > header ||
      total - ip > 0xffff
    ) {
      this.#bad();
      return;
    }
    const version = bytes[slot + ip] >>> 4;
    const l4Bytes = isTcp ? (bytes[slot + l4 + 12] >>> 4) * 4 : 8;
    if (l4 + l4Bytes !== header) {
      this.#bad();
      return;
    }
    if (version === IPV4) {
      const ipBytes = (bytes[slot + ip] & 15) * 4;
      if (ip + ipBytes !== l4 || bytes[slot + ip + 9] !== protocol) {
        this.#bad();
        return;
      }
      putU16be(bytes, slot + ip + 2, total - ip);
      putU16be(bytes, slot + ip + 10, 0);
      putU16be(bytes, slot + ip + 10, finishChecksum(sumBytes(bytes, slot + ip, ipBytes)));
    } else if (version === IPV6 && l4 >= ip + IPV6_BYTES) {
      putU16be(bytes, slot + ip + 4, total - ip - IPV6_BYTES);
    } else {
      this.#bad();
      return;
    }
    const checksumOffset = isTcp ? 16 : 6;
    if (!isTcp) putU16be(bytes, slot + l4 + 4, total - l4);
    putU16be(bytes, slot + l4 + checksumOffset, foldSum(pseudoSumAt(bytes, slot + ip, protocol, total - l4)));
    let facts = FACT_NEEDS_CSUM;
    if (total - header > c.segmentBytes) {
      let type = isTcp ? (version === IPV4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_UDP_L4;
      if (isTcp && (bytes[slot + l4 + 13] & TCP_CWR) !== 0) type |= GSO_ECN;
      facts |= type << 8;
    }
    t[frame + FACTS] = facts;
    t[frame + CSUM_START] = l4;
    t[frame + CSUM_OFFSET] = checksumOffset;
    t[frame + GSO_SIZE] = c.segmentBytes;
    t[frame + HEADER_LENGTH] = header;
    this.#chip.stats.txSegmentations++;
  }
}

function emptyContext(): TxContext {
  return {
    ipStart: 0,
    ipOffset: 0,
    ipEnd: 0,
    l4Start: 0,
    l4Offset: 0,
    l4End: 0,
    payloadBytes: 0,
    headerBytes: 0,
    segmentBytes: 0,
    command: 0,
  };
}

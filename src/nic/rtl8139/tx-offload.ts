/**
 * C+ transmit offloads (8139C+ datasheet, "Tx command descriptor"): IPCS, UDPCS and TCPCS have the chip find IP itself and fill checksums; LGSEN has it
 * cut a TCP packet into segments of MSS bytes; TAGC inserts a VLAN tag. They become the frame's offload facts (virtio_net_hdr's), and the port
 * segments and sums where its peer cannot.
 *
 * The chip knows IPv4 only. Nothing of the frame is believed: a request that contradicts its headers is counted and left out, so the frame goes out
 * as it is. A driver of this chip may leave lengths and pseudo-header sums to the hardware: they are written anew. Writes go to the
 * frame's first segment only, which is a private copy.
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_ECN,
  GSO_SIZE,
  GSO_TCPV4,
  HEADER_LENGTH,
  LENGTH,
  OFFSET,
  TOTAL,
} from '../../core/pool.ts';
import { putU16be } from '../../wire/bytes.ts';
import { finishChecksum, foldSum, pseudoSumAt, sumBytes } from '../../wire/checksum.ts';
import { sumFrame } from '../../wire/frame-sum.ts';
import { HeaderLayout } from '../offload.ts';
import type { Chip } from './chip.ts';

/** Bits of a descriptor's first word. */
export const TX_LGSEN = 1 << 27;
export const TX_MSS_SHIFT = 16;
export const TX_MSS = 0x7ff;
export const TX_IPCS = 1 << 18;
export const TX_UDPCS = 1 << 17;
export const TX_TCPCS = 1 << 16;

const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
const TCP_CWR = 0x80;

export class TxOffload {
  readonly #chip: Chip;
  readonly #layout = new HeaderLayout();

  constructor(chip: Chip) {
    this.#chip = chip;
  }

  /** Writes an 802.1Q tag into the gap behind the addresses; `tag` as the descriptor has it, high byte last. */
  insertTag(frame: number, tag: number): void {
    const { pool } = this.#chip;
    const at = pool.table[frame + OFFSET] + 12;
    putU16be(pool.bytes, at, 0x8100);
    pool.bytes[at + 2] = tag;
    pool.bytes[at + 3] = tag >>> 8;
  }

  #bad(): void {
    this.#chip.stats.txBadOffload++;
  }

  /** Reads the headers of a whole IPv4 packet; false, counted, when there is none. */
  #readHeaders(frame: number): boolean {
    const { pool } = this.#chip;
    const t = pool.table;
    const layout = this.#layout;
    if (!layout.read(pool.bytes, t[frame + OFFSET], t[frame + LENGTH]) || layout.version !== 4) {
      this.#bad();
      return false;
    }
    return true;
  }

  /** IPCS, UDPCS and TCPCS. */
  checksums(frame: number, command: number): void {
    if (!this.#readHeaders(frame)) return;
    const { pool } = this.#chip;
    const t = pool.table;
    const { ip, l4, protocol, end, fragment } = this.#layout;
    const slot = t[frame + OFFSET];
    const bytes = pool.bytes;
    if ((command & TX_IPCS) !== 0) {
      putU16be(bytes, slot + ip + 10, 0);
      putU16be(bytes, slot + ip + 10, finishChecksum(sumBytes(bytes, slot + ip, l4 - ip)));
    }
    const tcp = (command & TX_TCPCS) !== 0;
    if (!tcp && (command & TX_UDPCS) === 0) return;
    const total = t[frame + TOTAL];
    const headerBytes = tcp ? 20 : 8;
    const at = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    const expected = tcp ? PROTOCOL_TCP : PROTOCOL_UDP;
    if (
      protocol !== expected ||
      fragment ||
      end > total ||
      l4 + headerBytes > end ||
      l4 + headerBytes > t[frame + LENGTH]
    ) {
      this.#bad();
      return;
    }
    const pseudo = pseudoSumAt(bytes, slot + ip, protocol, end - l4);
    if (end === total) {
      putU16be(bytes, slot + l4 + at, foldSum(pseudo));
      t[frame + FACTS] = FACT_NEEDS_CSUM;
      t[frame + CSUM_START] = l4;
      t[frame + CSUM_OFFSET] = at;
      return;
    }
    // Padding behind the packet is not part of the sum.
    putU16be(bytes, slot + l4 + at, 0);
    const checksum = finishChecksum(sumFrame(pool, frame, l4, end - l4) + pseudo);
    putU16be(bytes, slot + l4 + at, checksum === 0 ? 0xffff : checksum);
  }

  /** LGSEN: completes the headers of a TCP packet that is to be cut into segments of `mss` bytes, and sets its facts. */
  largeSend(frame: number, mss: number): void {
    if (mss === 0) {
      this.#bad();
      return;
    }
    if (!this.#readHeaders(frame)) return;
    const { pool, stats } = this.#chip;
    const t = pool.table;
    const { ip, l4, protocol, fragment } = this.#layout;
    const slot = t[frame + OFFSET];
    const bytes = pool.bytes;
    const total = t[frame + TOTAL];
    const room = t[frame + LENGTH];
    const header = l4 + 20 <= room ? l4 + (bytes[slot + l4 + 12] >>> 4) * 4 : 0;
    if (
      protocol !== PROTOCOL_TCP ||
      fragment ||
      header < l4 + 20 ||
      header > room ||
      total <= header ||
      total - ip > 0xffff
    ) {
      this.#bad();
      return;
    }
    putU16be(bytes, slot + ip + 2, total - ip);
    putU16be(bytes, slot + ip + 10, 0);
    putU16be(bytes, slot + ip + 10, finishChecksum(sumBytes(bytes, slot + ip, l4 - ip)));
    putU16be(
      bytes,
      slot + l4 + TCP_CHECKSUM,
      foldSum(pseudoSumAt(bytes, slot + ip, PROTOCOL_TCP, total - l4)),
    );
    let facts = FACT_NEEDS_CSUM;
    if (total - header > mss) {
      const ecn = (bytes[slot + l4 + 13] & TCP_CWR) !== 0 ? GSO_ECN : 0;
      facts |= (GSO_TCPV4 | ecn) << 8;
    }
    t[frame + FACTS] = facts;
    t[frame + CSUM_START] = l4;
    t[frame + CSUM_OFFSET] = TCP_CHECKSUM;
    t[frame + GSO_SIZE] = mss;
    t[frame + HEADER_LENGTH] = header;
    stats.txSegmentations++;
  }
}

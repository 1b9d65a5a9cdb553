/**
 * Receive (8254x manual, sections 3.2 and 13.4.22 to 13.4.38): from frames on the port to descriptors in guest RAM.
 *
 *   offered frames → filter → room in the ring? → bytes into the guest's buffers → descriptor (length, status, errors, tag) → RDH → RXT0
 *
 * A frame takes as many descriptors as its length needs; the last one has EOP. Frames are taken only as far as the ring has descriptors: the rest is refused and stays with
 * its sender until RDT moves. A receiver that is off takes every frame and drops it, counted, as a cable that nobody listens to. A frame that the ring could never hold is dropped.
 *
 * The FCS is not known here: where the driver wants it (no SECRC) four zero bytes stand for it. A buffer address that is not RAM ends the frame with
 * RXE in its descriptor, so the driver drops it.
 */

import { copyMemory } from '../../core/copy.ts';
import { COPY_LENGTH, COPY_WORDS } from '../../core/copy-list.ts';
import { FACT_CSUM_VALID, FACTS, LENGTH, NEXT, OFFSET, TOTAL } from '../../core/pool.ts';
import type { Port } from '../../core/port.ts';
import { DMA_BOTH, DMA_WRITE } from '../../pci/guest-memory.ts';
import { finishChecksum } from '../../wire/checksum.ts';
import { isBroadcastMac } from '../../wire/ethernet.ts';
import { sumFrame } from '../../wire/frame-sum.ts';
import { FRAME_MIN_BYTES } from '../frame-size.ts';
import {
  BAD_IP,
  BAD_L4,
  CHECKED_IP,
  CHECKED_L4,
  HeaderLayout,
  isPlainTcp4,
  verifyFrame,
  verifyPlainTcp4,
} from '../offload.ts';
import {
  RX_ACCEPT_INEXACT,
  RX_DROP_BROADCAST,
  RX_DROP_MULTICAST,
  RX_DROP_RUNT,
  RX_DROP_UNICAST,
  RX_DROP_VLAN,
} from '../rx-filter.ts';
import { RxStore } from '../rx-store.ts';
import { gatheredFrom } from '../write-run.ts';
import type { Chip } from './chip.ts';
import {
  CTRL,
  CTRL_VME,
  DESCRIPTOR_BYTES,
  INT_RXDMT0,
  INT_RXO,
  INT_SRPD,
  RCTL,
  RCTL_BSEX,
  RCTL_BSIZE_SHIFT,
  RCTL_EN,
  RCTL_LPE,
  RCTL_RDMTS_SHIFT,
  RCTL_SBP,
  RCTL_SECRC,
  RDBAH,
  RDBAL,
  RDH,
  RDLEN,
  RDT,
  RSRPD,
  RXCSUM,
  RXCSUM_IPOFL,
  RXCSUM_PCSS,
  RXCSUM_TUOFL,
  VET,
} from './registers.ts';
import { FCS_BYTES, PRC64, sizeBin } from './stats.ts';

/** Longest frame, with FCS, without LPE (tagged), and with it. */
const NORMAL_MAX_BYTES = 1522;
const LONG_MAX_BYTES = 16_384;
const LOOP_MAX = 2048;
/** Frames copied at once; what else a delivery brings is copied one by one. */
const COPIED_MAX = 256;

const STATUS_DD = 1;
const STATUS_EOP = 1 << 1;
const STATUS_IXSM = 1 << 2;
const STATUS_VP = 1 << 3;
const STATUS_TCPCS = 1 << 5;
const STATUS_IPCS = 1 << 6;
const STATUS_PIF = 1 << 7;
const ERROR_TCPE = 1 << 13;
const ERROR_IPE = 1 << 14;
const ERROR_RXE = 1 << 15;
const VLAN_TAG_BYTES = 4;
const TAG_MASK = 0xffff << 16;
const ADDRESSES_BYTES = 12;
const TYPE_OFFSET = 12;

export class Receiver {
  readonly #chip: Chip;
  /** Set by index.ts, which owns the port. */
  port: Port | null = null;

  #base = 0;
  #count = 0;
  #bufferBytes = 2048;
  /** Frames were refused: the port is told when descriptors come. */
  #refused = false;
  /** RXO was raised for this shortage; RXDMT0 for this one. */
  #overrunTold = false;
  #lowTold = false;
  /** Changes with every reset and every move of the ring: what a delivery under way knows of the ring is void. */
  #epoch = 0;

  readonly #layout = new HeaderLayout();
  /** Frames that are copied later: the first word of each one's descriptor, and its status. */
  readonly #copiedAt = new Int32Array(COPIED_MAX);
  readonly #copiedStatus = new Int32Array(COPIED_MAX);
  readonly #loopFrames: Int32Array;
  readonly #readyLater: () => void;
  readonly #scratch = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);
  readonly #store: RxStore;

  constructor(chip: Chip) {
    this.#chip = chip;
    this.#store = new RxStore(chip.memory, chip.pool);
    this.#loopFrames = new Int32Array(LOOP_MAX);
    this.#readyLater = () => this.#tellReady();
  }

  // Registers.

  /** RDBAL, RDBAH or RDLEN was written. */
  ringMoved(): void {
    const regs = this.#chip.regs;
    this.#epoch++;
    this.#base = (regs[RDBAH >> 2] >>> 0) * 2 ** 32 + (regs[RDBAL >> 2] >>> 0);
    this.#count = regs[RDLEN >> 2] >>> 4;
  }

  /** RCTL was written, or bus mastering changed. */
  controlChanged(): void {
    const rctl = this.#chip.regs[RCTL >> 2];
    const size = 2048 >> ((rctl >>> RCTL_BSIZE_SHIFT) & 3);
    // BSEX multiplies by 16; with the largest BSIZE the combination is reserved, and taken for 16 KiB.
    this.#bufferBytes = (rctl & RCTL_BSEX) !== 0 ? Math.min(16 * size, LONG_MAX_BYTES) : size;
    this.#tellReady();
  }

  /** RDT was written: descriptors came. */
  tailMoved(): void {
    this.#overrunTold = false;
    this.#lowTold = false;
    this.#tellReady();
  }

  #tellReady(): void {
    if (!this.#refused || (this.enabled && this.#free() === 0)) return;
    this.#refused = false;
    this.port?.ready();
  }

  reset(): void {
    this.#epoch++;
    this.#overrunTold = false;
    this.#lowTold = false;
    this.ringMoved();
    this.controlChanged();
  }

  get enabled(): boolean {
    return (this.#chip.regs[RCTL >> 2] & RCTL_EN) !== 0 && this.#chip.dmaEnabled;
  }

  /** Descriptors that are the device's. */
  #free(): number {
    const regs = this.#chip.regs;
    const free = regs[RDT >> 2] - regs[RDH >> 2];
    return free >= 0 ? free : free + this.#count;
  }

  // Frames.

  /** core/port.ts `Sink.receive`. */
  receive(frames: Int32Array, from: number, to: number): number {
    if (!this.enabled) {
      this.#chip.stats.rxDropDisabled += to - from;
      this.#chip.pool.releaseAll(frames, from, to);
      return to - from;
    }
    if (this.#chip.loopback) {
      this.#chip.stats.rxDropLoopback += to - from;
      this.#chip.pool.releaseAll(frames, from, to);
      return to - from;
    }
    return this.#deliver(frames, from, to);
  }

  /** Loopback: takes all of a batch that the transmitter sent. What finds no descriptor is lost, as on a wire. */
  loopBack(frames: Int32Array, from: number, to: number): void {
    const { pool, adapt, stats, hardware } = this.#chip;
    for (let i = from; i < to; i++) {
      if (!this.enabled) {
        stats.rxDropDisabled++;
        pool.release(frames[i]);
        continue;
      }
      const count = adapt(pool, frames[i], 0, this.#loopFrames);
      const taken = this.#deliver(this.#loopFrames, 0, count);
      if (taken === count) continue;
      this.#refused = false;
      stats.rxDropNoDescriptor += count - taken;
      hardware.missed(count - taken);
      pool.releaseAll(this.#loopFrames, taken, count);
    }
  }

  #deliver(frames: Int32Array, from: number, to: number): number {
    const { regs, pool, filter, stats, hardware, memory, interrupts } = this.#chip;
    const t = pool.table;
    const rctl = regs[RCTL >> 2];
    const fcs = (rctl & RCTL_SECRC) !== 0 ? 0 : FCS_BYTES;
    const maxBytes = (rctl & (RCTL_LPE | RCTL_SBP)) !== 0 ? LONG_MAX_BYTES : NORMAL_MAX_BYTES;
    const strip = (regs[CTRL >> 2] & CTRL_VME) !== 0;
    const bufferBytes = this.#bufferBytes;
    const smallBytes = regs[RSRPD >> 2];
    const count = this.#count;
    const headBefore = regs[RDH >> 2];
    const tail = regs[RDT >> 2];
    const usable = count !== 0 && headBefore < count && tail < count;
    const plain =
      usable && fcs === 0 && smallBytes === 0
        ? this.#deliverPlain(frames, from, to, maxBytes - FCS_BYTES)
        : 0;
    let head = regs[RDH >> 2];
    let free = usable ? this.#free() : 0;
    // The whole ring in one piece, nearly always; else one descriptor at a time.
    const epoch = this.#epoch;
    let generation = memory.generation;
    let ringAt = usable ? memory.translate(this.#base, DESCRIPTOR_BYTES * count, DMA_BOTH) >> 2 : -1;
    let ringWords = memory.hit.words;
    const slots = pool.memories[0];
    const bytes = slots.bytes;
    const rxcsum = regs[RXCSUM >> 2];
    const checking = (rxcsum & (RXCSUM_IPOFL | RXCSUM_TUOFL)) !== 0;
    const sumStart = rxcsum & RXCSUM_PCSS;
    let received = 0;
    let receivedBytes = 0;
    let causes = 0;
    let i = from + plain;
    for (; i < to; i++) {
      if (memory.generation !== generation || epoch !== this.#epoch) {
        // Remote memory was written, and the machine went on meanwhile.
        if (epoch !== this.#epoch) break;
        generation = memory.generation;
        ringAt = usable ? memory.translate(this.#base, DESCRIPTOR_BYTES * count, DMA_BOTH) >> 2 : -1;
        ringWords = memory.hit.words;
      }
      const frame = frames[i];
      const at = t[frame + OFFSET];
      const total = t[frame + TOTAL];
      const verdict = filter.decide(bytes, at, t[frame + LENGTH]);
      if (verdict > RX_ACCEPT_INEXACT) {
        this.#countDrop(verdict);
        pool.release(frame);
        continue;
      }
      if (!usable) {
        stats.rxDropBadRing++;
        pool.release(frame);
        continue;
      }
      const wireBytes = Math.max(total, FRAME_MIN_BYTES) + FCS_BYTES;
      if (wireBytes > maxBytes) {
        stats.rxDropTooLong++;
        hardware.tooLong();
        pool.release(frame);
        continue;
      }
      let tag = 0;
      let cut = 0;
      let status = verdict === RX_ACCEPT_INEXACT ? STATUS_PIF : 0;
      if (strip && total >= ADDRESSES_BYTES + VLAN_TAG_BYTES + 2) {
        const type = (bytes[at + ADDRESSES_BYTES] << 8) | bytes[at + ADDRESSES_BYTES + 1];
        if (type === (regs[VET >> 2] & 0xffff)) {
          tag = (bytes[at + ADDRESSES_BYTES + 2] << 8) | bytes[at + ADDRESSES_BYTES + 3];
          cut = VLAN_TAG_BYTES;
          status |= STATUS_VP;
        }
      }
      const stored = Math.max(total - cut, FRAME_MIN_BYTES) + fcs;
      const needed = stored <= bufferBytes ? 1 : Math.ceil(stored / bufferBytes);
      if (needed > free) {
        if (needed >= count) {
          stats.rxDropTooLong++;
          hardware.tooLong();
          pool.release(frame);
          continue;
        }
        stats.rxNoDescriptor++;
        hardware.noBuffer();
        this.#refused = true;
        if (!this.#overrunTold) {
          this.#overrunTold = true;
          causes |= INT_RXO;
        }
        break;
      }
      if (checking) status |= this.#checksumStatus(frame, rxcsum);
      else status |= STATUS_IXSM;
      const sum = sumStart === 0 ? 0 : this.#packetChecksum(frame, sumStart, total);

      // The most common case here: one buffer, one segment, nothing to cut or pad.
      let to = -1;
      const d = ringAt + 4 * head;
      if (needed === 1 && ringAt >= 0 && cut === 0 && total >= FRAME_MIN_BYTES && t[frame + NEXT] === 0) {
        const address = (ringWords[d + 1] >>> 0) * 4294967296 + (ringWords[d] >>> 0);
        to = memory.translate(address, stored, DMA_WRITE);
      }
      if (to >= 0) {
        copyMemory(slots, at, memory.hit, to, total);
        if (fcs !== 0) {
          const target = memory.hit.bytes;
          const end = to + total;
          for (let k = 0; k < FCS_BYTES; k++) target[end + k] = 0;
        }
        ringWords[d + 2] = stored | (sum << 16);
        ringWords[d + 3] = status | STATUS_DD | STATUS_EOP;
        if (++head === count) head = 0;
        free--;
      } else {
        const used = this.#scatter(frame, cut, stored, status | (tag << 16), sum, head, ringWords, ringAt);
        head = (head + Math.abs(used)) % count;
        free -= Math.abs(used);
        if (used <= 0) {
          if (used === 0) stats.rxDropBadRing++;
          else stats.rxDropBadAddress++;
          pool.release(frame);
          continue;
        }
      }
      const multicast = (bytes[at] & 1) !== 0;
      hardware.received(wireBytes - FCS_BYTES, multicast && isBroadcastMac(bytes, at), multicast);
      received++;
      receivedBytes += total;
      if (smallBytes !== 0 && wireBytes <= smallBytes) causes |= INT_SRPD;
      pool.release(frame);
    }
    if (epoch !== this.#epoch) {
      // The rest is offered again: to the ring as it is then, or dropped if the receiver is off.
      if (i < to) this.#refused = true;
      this.#chip.loop.post(this.#readyLater);
      return i - from;
    }
    if (head !== headBefore) {
      regs[RDH >> 2] = head;
      if (received !== 0) {
        stats.rxFrames += received;
        stats.rxBytes += receivedBytes;
        hardware.receivedTotals(received, receivedBytes);
      }
      const threshold = count >>> (1 + ((rctl >>> RCTL_RDMTS_SHIFT) & 3));
      if (free <= threshold && !this.#lowTold) {
        this.#lowTold = true;
        causes |= INT_RXDMT0;
      }
      if (causes !== 0) interrupts.raise(causes);
      interrupts.raiseRx();
    } else if (causes !== 0) {
      interrupts.raise(causes);
    }
    return i - from;
  }

  /**
   * The most common frames in front of a batch, all in local variables: for the main address, without a tag, in one segment and one mapped buffer. Returns
   * how many there were; RDH and the counters are moved on. `longest`: bytes of a frame without FCS.
   */
  #deliverPlain(frames: Int32Array, from: number, to: number, longest: number): number {
    const { regs, pool, filter, stats, hardware, memory } = this.#chip;
    const t = pool.table;
    const slots = pool.memories[0];
    const headers = slots.view;
    const count = this.#count;
    const ringAt = memory.translate(this.#base, DESCRIPTOR_BYTES * count, DMA_BOTH) >> 2;
    const ringWords = memory.hit.words;
    const rxcsum = regs[RXCSUM >> 2];
    if (ringAt < 0 || (rxcsum & RXCSUM_PCSS) !== 0) return 0;
    const checking = (rxcsum & (RXCSUM_IPOFL | RXCSUM_TUOFL)) !== 0;
    const unchecked = STATUS_DD | STATUS_EOP | STATUS_IXSM;
    let trusted = STATUS_DD | STATUS_EOP;
    if ((rxcsum & RXCSUM_IPOFL) !== 0) trusted |= STATUS_IPCS;
    if ((rxcsum & RXCSUM_TUOFL) !== 0) trusted |= STATUS_TCPCS;
    const tagType = regs[VET >> 2] & 0xffff;
    const filterType = filter.vlanType;
    const maxBytes = Math.min(longest, this.#bufferBytes);
    const { copies } = pool;
    const together = gatheredFrom(pool, memory);
    let head = regs[RDH >> 2];
    let free = this.#free();
    let bytes = 0;
    let i = from;
    for (; i < to && free !== 0; i++, free--) {
      const frame = frames[i];
      const total = t[frame + TOTAL];
      const at = t[frame + OFFSET];
      if (total < FRAME_MIN_BYTES || total > maxBytes || t[frame + NEXT] !== 0) break;
      const type = headers.getUint16(at + TYPE_OFFSET);
      if (type === tagType || type === filterType) break;
      if (!filter.isMain(headers, at)) break;
      const d = ringAt + 4 * head;
      const address = (ringWords[d + 1] >>> 0) * 4294967296 + (ringWords[d] >>> 0);
      const later = total >= together && copies.count < COPIED_MAX;
      const target = later
        ? memory.locate(address, total, DMA_WRITE)
        : memory.translate(address, total, DMA_WRITE);
      if (target < 0) break;
      let status = unchecked;
      if (checking) {
        if (!isPlainTcp4(headers, at, total))
          status = STATUS_DD | STATUS_EOP | this.#checksumStatus(frame, rxcsum);
        else if (t[frame + FACTS] === FACT_CSUM_VALID) status = trusted;
        else status = STATUS_DD | STATUS_EOP | statusOf(verifyPlainTcp4(pool, at), rxcsum);
      }
      if (later) {
        this.#copiedAt[copies.count] = d;
        this.#copiedStatus[copies.count] = status;
        copies.add(0, at, memory.hitRegion, target, total);
      } else {
        copyMemory(slots, at, memory.hit, target, total);
        ringWords[d + 2] = total;
        ringWords[d + 3] = status;
      }
      if (++head === count) head = 0;
      regs[PRC64 + sizeBin(total + FCS_BYTES)]++;
      bytes += total;
    }
    const received = i - from;
    if (received === 0) return 0;
    if (copies.count !== 0) this.#copyTogether(ringWords);
    regs[RDH >> 2] = head;
    stats.rxFrames += received;
    stats.rxBytes += bytes;
    hardware.receivedTotals(received, bytes);
    pool.releaseAll(frames, from, i);
    return received;
  }

  /** Copies the frames that were gathered (core/copy-list.ts), and then writes their descriptors. */
  #copyTogether(ringWords: Int32Array): void {
    const { copies } = this.#chip.pool;
    const { count, list } = copies;
    copies.run();
    for (let i = 0; i < count; i++) {
      const d = this.#copiedAt[i];
      ringWords[d + 2] = list[i * COPY_WORDS + COPY_LENGTH];
      ringWords[d + 3] = this.#copiedStatus[i];
    }
  }

  /**
   * Stores a frame over as many descriptors as it needs, from `head` on. Returns how many were used, negative when a buffer was not RAM, 0 when a
   * descriptor could not be read. `status`: what the last descriptor says, with the tag in the upper half.
   */
  #scatter(
    frame: number,
    cut: number,
    stored: number,
    status: number,
    sum: number,
    head: number,
    ringWords: Int32Array,
    ringAt: number,
  ): number {
    const { memory, pool } = this.#chip;
    const total = pool.table[frame + TOTAL];
    let used = 0;
    for (let done = 0; done < stored; ) {
      const index = (head + used) % this.#count;
      let words = ringWords;
      let d = ringAt + 4 * index;
      if (ringAt < 0) {
        if (!memory.read(this.#base + DESCRIPTOR_BYTES * index, this.#scratch, 0, DESCRIPTOR_BYTES)) return 0;
        words = this.#scratchWords;
        d = 0;
      }
      const address = (words[d + 1] >>> 0) * 4294967296 + (words[d] >>> 0);
      const size = Math.min(stored - done, this.#bufferBytes);
      const ok = this.#store.store(frame, done, cut, total, address, size);
      done += size;
      used++;
      words[d + 2] = ok ? size | (sum << 16) : 0;
      if (!ok) words[d + 3] = STATUS_DD | STATUS_EOP | ERROR_RXE;
      else if (done < stored) words[d + 3] = STATUS_DD | (status & (STATUS_VP | TAG_MASK));
      else words[d + 3] = status | STATUS_DD | STATUS_EOP;
      if (ringAt < 0) memory.write(this.#base + DESCRIPTOR_BYTES * index + 8, this.#scratch, 8, 8);
      if (!ok) return -used;
    }
    return used;
  }

  #countDrop(verdict: number): void {
    const { stats, hardware } = this.#chip;
    if (verdict === RX_DROP_UNICAST) stats.rxDropUnicast++;
    else if (verdict === RX_DROP_MULTICAST) stats.rxDropMulticast++;
    else if (verdict === RX_DROP_BROADCAST) stats.rxDropBroadcast++;
    else if (verdict === RX_DROP_VLAN) stats.rxDropVlan++;
    else if (verdict === RX_DROP_RUNT) {
      stats.rxDropRunt++;
      hardware.tooShort();
    }
  }

  /** IPCS and TCPCS with their error bits, by RXCSUM; IXSM for what is not IP. */
  #checksumStatus(frame: number, rxcsum: number): number {
    return statusOf(verifyFrame(this.#chip.pool, frame, this.#layout), rxcsum);
  }

  /** The packet checksum: the sum from PCSS on. Computed only for drivers that set PCSS. */
  #packetChecksum(frame: number, start: number, total: number): number {
    return start >= total
      ? 0
      : finishChecksum(sumFrame(this.#chip.pool, frame, start, total - start)) ^ 0xffff;
  }
}

/** IPCS and TCPCS with their error bits, by RXCSUM, of what `verifyFrame` found; IXSM for what is not IP. */
function statusOf(found: number, rxcsum: number): number {
  if (found === 0) return STATUS_IXSM;
  let status = 0;
  if ((rxcsum & RXCSUM_IPOFL) !== 0 && (found & CHECKED_IP) !== 0) {
    status |= STATUS_IPCS;
    if ((found & BAD_IP) !== 0) status |= ERROR_IPE;
  }
  if ((rxcsum & RXCSUM_TUOFL) !== 0 && (found & CHECKED_L4) !== 0) {
    status |= STATUS_TCPCS;
    if ((found & BAD_L4) !== 0) status |= ERROR_TCPE;
  }
  return status;
}

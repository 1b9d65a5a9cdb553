/**
 * Transmit (8254x manual, sections 3.3 to 3.5): from descriptors in guest RAM to frames on the port.
 *
 *   TDT written → walk the ring from the head → frame by frame into a batch → port.send → write DD back, in ring order → TXDW
 *
 * A descriptor is legacy, data or context. The parts of a frame (up to EOP) are collected as addresses and lengths. A short frame is copied into a
 * slot; of a longer one the first PRIVATE_BYTES are copied and the rest is borrowed from guest RAM, so that the guest cannot change headers under a
 * decision and a 64 KiB segment costs no copy. Its descriptors are completed when the frame's last holder lets go of it, and completion keeps the ring's
 * order: `#done` never passes a frame that is still lent. TDH tells `#done`, as drivers that poll TDH expect.
 *
 * Frames wait in the ring. When the port takes less than all, what is left of the batch (at most BATCH frames) stays here and
 * the walk stops until `peerReady`. One pass walks at most PASS_DESCRIPTORS, then goes on in the loop's next turn; a head or tail outside the ring ends it.
 *
 * Left out: TIPG, TXDCTL's prefetch thresholds (there is nothing to tune), packet bursting.
 */

import { copyRounded } from '../../core/copy.ts';
import type { Timer } from '../../core/loop.ts';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACTS,
  GSO_SIZE,
  HEADER_LENGTH,
  LENDER,
  LENGTH,
  type Lender,
  MAX_FRAME_BYTES,
  OFFSET,
  TAG,
  TOTAL,
} from '../../core/pool.ts';
import type { Port } from '../../core/port.ts';
import { DMA_BOTH, DMA_READ } from '../../pci/guest-memory.ts';
import { fromHex, toHex } from '../../wire/bytes.ts';
import { isBroadcastMac } from '../../wire/ethernet.ts';
import { FRAME_MIN_BYTES, HEADER_BYTES, padFrame } from '../frame-size.ts';
import { COPY_MAX_BYTES, NOT_RAM, SKEW_MAX, TxParts } from '../tx-parts.ts';
import type { Chip } from './chip.ts';
import {
  CTRL,
  CTRL_VME,
  DESCRIPTOR_BYTES,
  INT_TXD_LOW,
  INT_TXDW,
  INT_TXQE,
  TCTL,
  TCTL_EN,
  TCTL_PSP,
  TDBAH,
  TDBAL,
  TDH,
  TDLEN,
  TDT,
  TXDCTL,
} from './registers.ts';
import type { Receiver } from './rx.ts';
import type { SavedFrame, SavedTransmitter } from './state.ts';
import { FCS_BYTES, PTC64, sizeBin } from './stats.ts';
import { TxOffload } from './tx-offload.ts';

const BATCH = 64;
/** Descriptors of one pass, and of one fetch from guest RAM. */
const PASS_DESCRIPTORS = 1024;
/** Longest frame that is not segmented (manual, section 3.3.3). */
const PLAIN_MAX_BYTES = 16_288;
const PARTS_MAX = 1024;
const LENT_SHIFT = 10;
const LENT_MAX = 1 << LENT_SHIFT;
const POOL_RETRY_NS = 1e6;

export const CMD_EOP = 1 << 24;
export const CMD_TSE_OR_IC = 1 << 26;
const CMD_RS = 1 << 27;
export const CMD_DEXT = 1 << 29;
export const CMD_VLE = 1 << 30;
export const POPTS = 0x300;
export const TYPE_SHIFT = 20;
/** What tells a frame in one descriptor from everything else: data (with its type), or legacy. */
const LEGACY_MASK = CMD_EOP | CMD_TSE_OR_IC | CMD_DEXT | CMD_VLE;
const WHOLE_MASK = LEGACY_MASK | (15 << TYPE_SHIFT);
export const TYPE_DATA = 1;
const WHOLE_DATA = CMD_EOP | CMD_DEXT | (TYPE_DATA << TYPE_SHIFT);
const DATA_LENGTH = 0xfffff;
const LEGACY_LENGTH = 0xffff;
const STATUS_DD = 1;
const STATUS_OFFSET = 12;

export class Transmitter implements Lender {
  readonly #chip: Chip;
  readonly #receiver: Receiver;
  readonly #offload: TxOffload;
  /** Set by index.ts, which owns the port. */
  port: Port | null = null;

  #base = 0;
  #count = 0;
  /** Ring index of the next descriptor to fetch, and how many were fetched since reset (modulo 2^32). */
  #head = 0;
  #fetched = 0;
  /** Ring index of the oldest descriptor not completed, and how many were completed. */
  #done = 0;
  #completed = 0;

  /** The frame being collected: its parts, and what its first and last descriptors said. */
  readonly #parts: TxParts;
  #started = false;
  #startedAt = 0;
  #firstCommand = 0;
  #firstOptions = 0;

  readonly #batch = new Int32Array(BATCH);
  /** For each frame of the batch: the count of fetched descriptors behind its last one. */
  readonly #batchEnd = new Int32Array(BATCH);
  #batchFrom = 0;
  #batchTo = 0;
  /** Frames of the batch whose bytes are still to be copied, and what their descriptors ask for. */
  readonly #copiedFrames = new Int32Array(BATCH);
  readonly #copiedOptions = new Int32Array(BATCH);
  /** Not yet counted in the statistics. */
  #newFrames = 0;
  #newBytes = 0;

  /** Frames lent and not returned, in ring order: the count of descriptors before each; and whether it came back. */
  readonly #lentStart = new Int32Array(LENT_MAX);
  readonly #lentBack = new Uint8Array(LENT_MAX);
  #lentHead = 0;
  #lentTail = 0;
  #epoch = 0;
  readonly #lender: number;

  readonly #scratch = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);
  #running = false;
  #blocked = false;
  #resumePosted = false;
  #completePosted = false;
  readonly #retry: Timer;
  readonly #resume: () => void;
  readonly #completeLater: () => void;

  constructor(chip: Chip, receiver: Receiver) {
    this.#chip = chip;
    this.#receiver = receiver;
    this.#offload = new TxOffload(chip);
    this.#parts = new TxParts(chip.memory, chip.pool, PARTS_MAX);
    this.#lender = chip.pool.addLender(this);
    this.#retry = chip.loop.timer(() => this.run());
    this.#resume = () => {
      this.#resumePosted = false;
      this.run();
    };
    this.#completeLater = () => {
      this.#completePosted = false;
      this.#complete();
    };
  }

  // Registers.

  /** TDBAL, TDBAH or TDLEN was written. */
  ringMoved(): void {
    const regs = this.#chip.regs;
    this.#base = (regs[TDBAH >> 2] >>> 0) * 2 ** 32 + (regs[TDBAL >> 2] >>> 0);
    this.#count = regs[TDLEN >> 2] >>> 4;
  }

  /** TDH was written: software sets the head, with the transmitter off. */
  headMoved(value: number): void {
    this.#abandon();
    this.#head = value;
    this.#done = value;
    this.#chip.regs[TDH >> 2] = value;
  }

  reset(): void {
    this.#abandon();
    this.#retry.cancel();
    this.#head = 0;
    this.#done = 0;
    this.#offload.reset();
    this.ringMoved();
  }

  /** Forgets what is collected, unsent and lent. */
  #abandon(): void {
    this.#chip.pool.releaseAll(this.#batch, this.#batchFrom, this.#batchTo);
    this.#batchFrom = 0;
    this.#batchTo = 0;
    this.#blocked = false;
    this.#dropParts();
    this.#epoch = (this.#epoch + 1) & 0xfffff;
    this.#lentHead = 0;
    this.#lentTail = 0;
    this.#completed = this.#fetched;
  }

  close(): void {
    this.#abandon();
    this.#retry.cancel();
    this.#count = 0;
    this.#chip.pool.removeLender(this.#lender);
  }

  get enabled(): boolean {
    return this.#count !== 0 && (this.#chip.regs[TCTL >> 2] & TCTL_EN) !== 0 && this.#chip.dmaEnabled;
  }

  /** The peer can take frames again. */
  peerReady(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    this.run();
  }

  // The walk.

  /** Sends what the ring holds, as far as the port and this pass's budget go. */
  run(): void {
    if (this.#running || this.#blocked || !this.enabled) return;
    const tail = this.#chip.regs[TDT >> 2];
    if (this.#head === tail && this.#batchFrom === this.#batchTo) return;
    if (this.#head >= this.#count || tail >= this.#count) {
      this.#chip.stats.txBadRing++;
      return;
    }
    this.#running = true;
    const epoch = this.#epoch;
    try {
      if (this.#flush()) this.#walk();
    } finally {
      this.#running = false;
    }
    if (epoch === this.#epoch) this.#complete();
    else this.#resumeNextTurn();
  }

  #walk(): void {
    const chip = this.#chip;
    const { regs, memory } = chip;
    let budget = PASS_DESCRIPTORS;
    for (;;) {
      // Read again: the frames just sent may have led to a doorbell.
      const tail = regs[TDT >> 2];
      const head = this.#head;
      if (head === tail || head >= this.#count || tail >= this.#count || !this.enabled) break;
      if (budget === 0) {
        this.#resumeNextTurn();
        break;
      }
      const run = Math.min(budget, (tail > head ? tail : this.#count) - head);
      const at = memory.translate(this.#base + DESCRIPTOR_BYTES * head, DESCRIPTOR_BYTES * run, DMA_READ);
      const walked = at >= 0 ? this.#walkRun(memory.hit.words, at >> 2, run) : this.#walkOne();
      if (walked < 0) break;
      budget -= walked;
    }
    if (!this.#blocked) this.#flush();
  }

  #resumeNextTurn(): void {
    if (this.#resumePosted) return;
    this.#resumePosted = true;
    this.#chip.loop.post(this.#resume);
  }

  /**
   * Descriptors that lie one behind the other in `words`. Returns how many were walked, or -1 to stop. The most common case is handled here, all in
   * local variables: a short frame in one descriptor, without segmentation or tag, in mapped RAM.
   */
  #walkRun(words: Int32Array, at: number, run: number): number {
    const { pool, memory, regs } = this.#chip;
    const t = pool.table;
    const { copies } = pool;
    const together = copies.minBytes;
    const slots = pool.memories[0];
    const bytes = slots.bytes;
    const batch = this.#batch;
    const batchEnd = this.#batchEnd;
    let place = this.#batchTo;
    let fetched = this.#fetched;
    let newBytes = 0;
    let newFrames = 0;
    let started = this.#started;
    let walked = 0;
    let i = 0;
    let going = true;
    const epoch = this.#epoch;
    for (; i < run; at += 4) {
      const command = words[at + 2];
      const kind = command & WHOLE_MASK;
      const length = command & ((kind & CMD_DEXT) === 0 ? LEGACY_LENGTH : DATA_LENGTH);
      let frame = 0;
      if (
        (kind === WHOLE_DATA || (kind & LEGACY_MASK) === CMD_EOP) &&
        !started &&
        length >= FRAME_MIN_BYTES &&
        length <= COPY_MAX_BYTES
      ) {
        const address = (words[at + 1] >>> 0) * 4294967296 + (words[at] >>> 0);
        const later = length >= together;
        const from = later
          ? memory.locate(address, length, DMA_READ)
          : memory.translate(address, length, DMA_READ);
        if (from >= 0) frame = pool.alloc(length + SKEW_MAX);
        if (frame !== 0 && later) {
          const to = t[frame + OFFSET] + (from & 7);
          this.#copiedFrames[copies.count] = frame;
          this.#copiedOptions[copies.count] = kind === WHOLE_DATA ? words[at + 3] : 0;
          copies.add(memory.hitRegion, from, 0, to, length);
          t[frame + OFFSET] = to;
          t[frame + LENGTH] = length;
          t[frame + TOTAL] = length;
          newBytes += length;
          newFrames++;
        } else if (frame !== 0) {
          // The slot's bytes lie as the guest's do, so that they are copied in whole words.
          const to = t[frame + OFFSET] + (from & 7);
          copyRounded(memory.hit, from, slots, to, length);
          t[frame + OFFSET] = to;
          t[frame + LENGTH] = length;
          t[frame + TOTAL] = length;
          const options = words[at + 3];
          if ((options & POPTS) !== 0 && kind === WHOLE_DATA)
            this.#offload.checksums(frame, length, options, 0);
          if ((bytes[to] & 1) === 0) regs[PTC64 + sizeBin(length + FCS_BYTES)]++;
          else this.#chip.hardware.sent(length, isBroadcastMac(bytes, to), true);
          newBytes += length;
          newFrames++;
        }
      }
      fetched = (fetched + 1) | 0;
      if (frame === 0) {
        // Everything else: the fields hold what the locals do while others look at them.
        if (copies.count !== 0) this.#copyTogether();
        this.#fetched = (fetched - 1) | 0;
        this.#batchTo = place;
        going = this.#descriptor(words, at);
        // A reset came in while remote memory was read: everything here is void.
        if (epoch !== this.#epoch) return -1;
        place = this.#batchTo;
        started = this.#started;
        if (!going) break;
      } else {
        batch[place] = frame;
        batchEnd[place] = fetched;
        place++;
      }
      i++;
      if (place === BATCH) {
        this.#advance(fetched, i);
        run -= i;
        walked += i;
        i = 0;
        this.#batchTo = place;
        this.#newBytes += newBytes;
        this.#newFrames += newFrames;
        newBytes = 0;
        newFrames = 0;
        if (copies.count !== 0) this.#copyTogether();
        if (!this.#flush() || epoch !== this.#epoch) return -1;
        place = this.#batchTo;
      }
    }
    if (copies.count !== 0) this.#copyTogether();
    this.#advance(going ? fetched : (fetched - 1) | 0, i);
    this.#batchTo = place;
    this.#newBytes += newBytes;
    this.#newFrames += newFrames;
    return going ? walked + i : -1;
  }

  /** Copies the frames that were gathered (core/copy-list.ts), and does what needs their bytes. */
  #copyTogether(): void {
    const { pool, regs, hardware } = this.#chip;
    const t = pool.table;
    const { bytes } = pool;
    const { count } = pool.copies;
    pool.copies.run();
    for (let i = 0; i < count; i++) {
      const frame = this.#copiedFrames[i];
      const length = t[frame + TOTAL];
      const at = t[frame + OFFSET];
      const options = this.#copiedOptions[i];
      if ((options & POPTS) !== 0) this.#offload.checksums(frame, length, options, 0);
      if ((bytes[at] & 1) === 0) regs[PTC64 + sizeBin(length + FCS_BYTES)]++;
      else hardware.sent(length, isBroadcastMac(bytes, at), true);
    }
  }

  /** `steps` descriptors more were taken; they never pass the ring's end by more than a lap. */
  #advance(fetched: number, steps: number): void {
    this.#fetched = fetched;
    const head = this.#head + steps;
    this.#head = head >= this.#count ? head - this.#count : head;
  }

  /** One descriptor of a ring that does not lie in one mapped range. */
  #walkOne(): number {
    const address = this.#base + DESCRIPTOR_BYTES * this.#head;
    if (!this.#chip.memory.read(address, this.#scratch, 0, DESCRIPTOR_BYTES)) {
      this.#chip.stats.txBadRing++;
      return -1;
    }
    return this.#walkRun(this.#scratchWords, 0, 1);
  }

  /** Takes one descriptor; false: no frame could be allocated, try this descriptor again later. */
  #descriptor(words: Int32Array, at: number): boolean {
    const command = words[at + 2];
    let length: number;
    if ((command & CMD_DEXT) === 0) {
      length = command & LEGACY_LENGTH;
    } else {
      const type = (command >>> TYPE_SHIFT) & 15;
      if (type === 0) {
        this.#offload.setContext(words[at], words[at + 1], command, words[at + 3]);
        return true;
      }
      if (type !== TYPE_DATA) {
        this.#chip.stats.txBadDescriptor++;
        return true;
      }
      length = command & DATA_LENGTH;
    }
    const address = (words[at + 1] >>> 0) * 4294967296 + (words[at] >>> 0);
    const options = words[at + 3];
    if (!this.#started) {
      this.#started = true;
      this.#startedAt = this.#fetched;
      this.#firstCommand = command;
      this.#firstOptions = options;
    }
    this.#parts.add(address, length);
    if ((command & CMD_EOP) === 0) return true;
    const epoch = this.#epoch;
    if (!this.#finishFrame(command, options)) {
      if (epoch !== this.#epoch) return true;
      // The last part comes again with its descriptor.
      this.#unmerge(length);
      return false;
    }
    this.#dropParts();
    return true;
  }

  /** Takes the last `length` bytes off the collected parts. */
  #unmerge(length: number): void {
    const parts = this.#parts;
    if (length === 0 || parts.broken) return;
    parts.trim(length);
    if (parts.count === 0 && this.#startedAt === this.#fetched) this.#started = false;
  }

  #dropParts(): void {
    this.#parts.clear();
    this.#started = false;
  }

  #poolExhausted(): false {
    this.#chip.stats.txPoolExhausted++;
    if (!this.#retry.armed) this.#retry.armIn(POOL_RETRY_NS);
    return false;
  }

  /** At EOP: builds the frame from its parts. False: no frame could be allocated; nothing has changed. */
  #finishFrame(command: number, options: number): boolean {
    const { stats, regs, pool } = this.#chip;
    const { bytes, broken } = this.#parts;
    const extended = (this.#firstCommand & CMD_DEXT) !== 0;
    const segment = extended && (this.#firstCommand & CMD_TSE_OR_IC) !== 0 && this.#offload.canSegment(bytes);
    if (bytes < HEADER_BYTES && !broken) {
      stats.txDropRunt++;
      return true;
    }
    if (broken || bytes > MAX_FRAME_BYTES - 4 || (!segment && bytes > PLAIN_MAX_BYTES)) {
      stats.txDropTooLong++;
      return true;
    }
    const tagged = (command & CMD_VLE) !== 0 && (regs[CTRL >> 2] & CTRL_VME) !== 0;
    const shift = tagged ? 4 : 0;
    const epoch = this.#epoch;
    const canLend = this.#lentTail - this.#lentHead < LENT_MAX;
    const frame = this.#parts.gather(shift, canLend ? this.#lender : 0);
    if (epoch !== this.#epoch) {
      if (frame > 0) pool.release(frame);
      return true;
    }
    if (frame === 0) return this.#poolExhausted();
    if (frame === NOT_RAM) {
      stats.txDropBadAddress++;
      return true;
    }
    if (tagged) this.#offload.insertTag(frame, options >>> 16);
    if (segment) this.#offload.segment(frame, shift);
    else if (extended) this.#offload.checksums(frame, bytes + shift, this.#firstOptions, shift);
    else if ((command & CMD_TSE_OR_IC) !== 0)
      this.#offload.legacyChecksum(frame, bytes + shift, command, options, shift);
    if (pool.table[frame + LENDER] !== 0) {
      const tag = this.#lentTail & (LENT_MAX - 1);
      this.#lentStart[tag] = this.#startedAt;
      this.#lentBack[tag] = 0;
      this.#lentTail = (this.#lentTail + 1) | 0;
      pool.table[frame + TAG] = (this.#epoch << LENT_SHIFT) | tag;
      stats.txBorrowed++;
    }
    this.#enqueue(frame, bytes + shift);
    return true;
  }

  #enqueue(frame: number, bytes: number): void {
    const { pool, regs, hardware } = this.#chip;
    const t = pool.table;
    if (bytes < FRAME_MIN_BYTES && (regs[TCTL >> 2] & TCTL_PSP) !== 0) padFrame(pool, frame);
    const slot = t[frame + OFFSET];
    const multicast = (pool.bytes[slot] & 1) !== 0;
    const broadcast = multicast && isBroadcastMac(pool.bytes, slot);
    const segmentBytes = t[frame + FACTS] > 0xff ? t[frame + GSO_SIZE] : 0;
    if (segmentBytes === 0) {
      const total = t[frame + TOTAL];
      hardware.sent(total, broadcast, multicast);
      this.#newFrames++;
      this.#newBytes += total;
    } else {
      const header = t[frame + HEADER_LENGTH];
      const payload = bytes - header;
      const segments = Math.ceil(payload / segmentBytes);
      hardware.sent(header + segmentBytes, broadcast, multicast, segments - 1);
      hardware.sent(header + payload - (segments - 1) * segmentBytes, broadcast, multicast);
      hardware.segmentation();
      this.#newFrames += segments;
      this.#newBytes += payload + segments * header;
    }
    this.#batch[this.#batchTo] = frame;
    this.#batchEnd[this.#batchTo] = (this.#fetched + 1) | 0;
    this.#batchTo++;
  }

  // Handing on.

  /** Offers the batch to the port, or to the receiver in loopback. True when nothing is left of it. */
  #flush(): boolean {
    const from = this.#batchFrom;
    const to = this.#batchTo;
    if (from === to) return true;
    const { stats, hardware, loopback } = this.#chip;
    if (this.#newFrames !== 0) {
      stats.txFrames += this.#newFrames;
      stats.txBytes += this.#newBytes;
      hardware.sentTotals(this.#newFrames, this.#newBytes);
      this.#newFrames = 0;
      this.#newBytes = 0;
    }
    const port = this.port;
    const epoch = this.#epoch;
    let taken = to - from;
    // While they are offered the frames are nobody's here: a reset from within must not release them.
    this.#batchFrom = 0;
    this.#batchTo = 0;
    if (loopback || port === null) this.#receiver.loopBack(this.#batch, from, to);
    else taken = port.send(this.#batch, from, to);
    if (taken === to - from) return epoch === this.#epoch;
    if (epoch !== this.#epoch) {
      this.#chip.pool.releaseAll(this.#batch, from + taken, to);
      return false;
    }
    this.#batchFrom = from + taken;
    this.#batchTo = to;
    this.#blocked = true;
    return false;
  }

  /** The last holder of a lent frame released it. */
  returned(tag: number): void {
    if (tag >>> LENT_SHIFT !== this.#epoch) return;
    this.#lentBack[tag & (LENT_MAX - 1)] = 1;
    if (this.#running || this.#completePosted) return;
    this.#completePosted = true;
    this.#chip.loop.post(this.#completeLater);
  }

  /** Writes DD back as far as frames are gone, tells TDH and raises the interrupt. */
  #complete(): void {
    while (this.#lentHead !== this.#lentTail && this.#lentBack[this.#lentHead & (LENT_MAX - 1)] !== 0) {
      this.#lentHead = (this.#lentHead + 1) | 0;
    }
    let limit = this.#started ? this.#startedAt : this.#fetched;
    if (this.#batchFrom !== this.#batchTo) {
      limit = this.#batchFrom === 0 ? this.#completed : this.#batchEnd[this.#batchFrom - 1];
    }
    if (this.#lentHead !== this.#lentTail) {
      const lent = this.#lentStart[this.#lentHead & (LENT_MAX - 1)];
      if (((lent - limit) | 0) < 0) limit = lent;
    }
    let left = (limit - this.#completed) | 0;
    if (left <= 0 || this.#count === 0) return;
    this.#completed = limit;
    const { memory, regs, interrupts } = this.#chip;
    let seen = 0;
    while (left > 0) {
      if (this.#done >= this.#count) this.#done = 0;
      let run = Math.min(left, this.#count - this.#done);
      const address = this.#base + DESCRIPTOR_BYTES * this.#done;
      const at = memory.translate(address, DESCRIPTOR_BYTES * run, DMA_BOTH);
      if (at >= 0) {
        seen |= writeBack(memory.hit.words, at >> 2, run);
      } else {
        run = 1;
        if (memory.read(address, this.#scratch, 0, DESCRIPTOR_BYTES)) {
          seen |= writeBack(this.#scratchWords, 0, 1);
          memory.write(address + STATUS_OFFSET, this.#scratch, STATUS_OFFSET, 4);
        }
      }
      left -= run;
      this.#done += run;
    }
    if (this.#done === this.#count) this.#done = 0;
    regs[TDH >> 2] = this.#done;
    let causes = 0;
    if (this.#done === regs[TDT >> 2]) causes |= INT_TXQE;
    const lowThreshold = (regs[TXDCTL >> 2] >>> 25) * 8;
    if (lowThreshold !== 0) {
      const waiting = (regs[TDT >> 2] - this.#head + this.#count) % this.#count;
      if (waiting < lowThreshold) causes |= INT_TXD_LOW;
    }
    if (seen === REPORT_DELAYED) interrupts.raiseTxDelayed();
    else if (seen !== 0) causes |= INT_TXDW;
    if (causes !== 0) interrupts.raise(causes);
  }

  // Save and restore.

  save(): SavedTransmitter {
    const { pool } = this.#chip;
    const frames: SavedFrame[] = [];
    for (let i = this.#batchFrom; i < this.#batchTo; i++) {
      const frame = this.#batch[i];
      const facts = FACT_WORDS.map((word) =>
        pool.table[frame + FACTS] === 0 ? 0 : pool.table[frame + word],
      );
      frames.push({
        bytes: toHex(pool.toBytes(frame)),
        facts,
        end: (this.#batchEnd[i] - this.#completed) | 0,
      });
    }
    return {
      head: this.#head,
      done: this.#done,
      context: Object.values(this.#offload.context),
      frames,
      parts: !this.#started
        ? null
        : {
            list: this.#parts.save(),
            startedAt: (this.#startedAt - this.#completed) | 0,
            command: this.#firstCommand,
            options: this.#firstOptions,
            broken: this.#parts.broken,
          },
    };
  }

  /** Takes a saved state whose shape was checked; registers are restored before. Frames go on waiting as far as the pool has room. */
  load(state: SavedTransmitter): void {
    const { pool } = this.#chip;
    this.reset();
    this.#head = state.head;
    this.#done = state.done;
    this.#completed = 0;
    this.#fetched = this.#count === 0 ? 0 : (state.head - state.done + this.#count) % this.#count;
    this.#chip.regs[TDH >> 2] = state.done;
    this.#offload.load(state.context);
    for (const saved of state.frames) {
      const bytes = fromHex(saved.bytes);
      const frame = bytes === null ? 0 : pool.from(bytes);
      if (frame === 0) continue;
      for (const [i, word] of FACT_WORDS.entries()) pool.table[frame + word] = saved.facts[i];
      this.#batch[this.#batchTo] = frame;
      this.#batchEnd[this.#batchTo] = Math.min(saved.end, this.#fetched);
      this.#batchTo++;
    }
    const parts = state.parts;
    if (parts === null) return;
    this.#started = true;
    this.#startedAt = Math.min(parts.startedAt, this.#fetched);
    this.#firstCommand = parts.command;
    this.#firstOptions = parts.options;
    this.#parts.load(parts.list);
    this.#parts.broken ||= parts.broken;
  }
}

const FACT_WORDS = [FACTS, GSO_SIZE, HEADER_LENGTH, CSUM_START, CSUM_OFFSET];

const REPORT_DELAYED = 1;
const REPORT_NOW = 2;

/** Sets DD in the descriptors that ask for a report (RS). Returns whether any did, REPORT_* or-ed. */
function writeBack(words: Int32Array, at: number, run: number): number {
  let seen = 0;
  for (const end = at + 4 * run; at < end; at += 4) {
    const command = words[at + 2];
    if ((command & CMD_RS) === 0) continue;
    words[at + 3] |= STATUS_DD;
    seen |= command < 0 ? REPORT_DELAYED : REPORT_NOW;
  }
  return seen;
}

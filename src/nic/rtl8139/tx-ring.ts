/**
 * One C+ transmit ring (8139C+ datasheet, "Transmit descriptors"): up to 64 descriptors of 16 bytes, the last one with EOR, walked as long as they have OWN.
 *
 *   word 0  OWN EOR FS LS LGSEN MSS or IPCS UDPCS TCPCS, length      word 1  TAGC, VLAN tag      words 2, 3  buffer address
 *
 * A frame is one descriptor with FS and LS, or several from FS to LS. OWN stays set until the frame has left, so every descriptor that
 * was fetched is marked `busy` here: the walk stops where it meets one, and a ring without an end is walked once, not for ever. A
 * completed descriptor keeps EOR, FS, LS and its length.
 */

import { copyRounded } from '../../core/copy.ts';
import { LENDER, LENGTH, MAX_FRAME_BYTES, OFFSET, TOTAL } from '../../core/pool.ts';
import { DMA_BOTH, DMA_READ } from '../../pci/guest-memory.ts';
import { FRAME_MIN_BYTES, HEADER_BYTES } from '../frame-size.ts';
import { COPY_MAX_BYTES, NOT_RAM, SKEW_MAX, TxParts, VLAN_TAG_BYTES } from '../tx-parts.ts';
import { DESCRIPTOR_BYTES, RING_MAX, THPDS, TNPDS } from './registers.ts';
import type { SavedTxRing } from './state.ts';
import { FROM_NORMAL, PLAIN_MAX_BYTES, type Transmitter } from './tx.ts';
import { TX_IPCS, TX_LGSEN, TX_MSS, TX_MSS_SHIFT, TX_TCPCS, TX_UDPCS, TxOffload } from './tx-offload.ts';

/** Why a walk ended: a descriptor that is the driver's; the pass's budget; no free frame; the port, or descriptors still on their way. */
export const WALK_EMPTY = 0;
export const WALK_AGAIN = 1;
export const WALK_NO_FRAME = 2;
export const WALK_WAITS = 3;
const WALK_ON = 4;

export const TX_EOR = 1 << 30;
export const TX_FS = 1 << 29;
export const TX_LS = 1 << 28;
const TX_TES = 1 << 23;
export const TX_LENGTH = 0xffff;
const TX_KEPT = TX_EOR | TX_FS | TX_LS | TX_LENGTH;
const TX_CHECKSUMS = TX_IPCS | TX_UDPCS | TX_TCPCS;
const TX_TAGC = 1 << 17;
const WHOLE = TX_FS | TX_LS;
const FCS_BYTES = 4;

const BUSY = 1;
/** The descriptor had EOR. */
const BUSY_END = 2;

export class TxRing {
  readonly #tx: Transmitter;
  readonly #source: number;
  readonly #offload: TxOffload;
  readonly #parts: TxParts;
  #base = 0;
  /** Next descriptor to fetch. */
  #index = 0;
  /** BUSY* of fetched descriptors, and at a frame's first one how many it has. */
  readonly #busy = new Uint8Array(RING_MAX);
  readonly #span = new Uint8Array(RING_MAX);
  /** Descriptors of the frame being collected (0: none), its first one, and what that said. */
  #collected = 0;
  #first = 0;
  #command = 0;
  #tag = 0;
  /** All of the frame is collected, and no slot was free for it. */
  #whole = false;
  readonly #scratch = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);

  constructor(tx: Transmitter, source: number) {
    this.#tx = tx;
    this.#source = source;
    this.#offload = new TxOffload(tx.chip);
    this.#parts = new TxParts(tx.chip.memory, tx.chip.pool, RING_MAX);
  }

  /** The ring's address was written, or restored: walking begins at descriptor `index`. */
  moved(index = 0): void {
    const { words } = this.#tx.chip;
    const at = (this.#source === FROM_NORMAL ? TNPDS : THPDS) >> 2;
    this.#index = index;
    this.#base = (words[at + 1] >>> 0) * 2 ** 32 + ((words[at] & ~(DESCRIPTOR_BYTES - 1)) >>> 0);
  }

  /** The descriptor that is fetched next. */
  get index(): number {
    return this.#index;
  }

  /** Forgets what was fetched; the ring is walked on from where the oldest unsent frame began. `waiting` as in `save`. */
  abandon(waiting = -1): void {
    if (waiting >= 0) this.#index = waiting;
    else if (this.#collected > 0) this.#index = this.#first;
    this.#busy.fill(0);
    this.#span.fill(0);
    this.#drop();
  }

  #drop(): void {
    this.#collected = 0;
    this.#whole = false;
    this.#parts.clear();
  }

  /** Fetches descriptors until one is not the device's; returns WALK_*. */
  walk(): number {
    const tx = this.#tx;
    const { memory, pool } = tx.chip;
    const t = pool.table;
    const slots = pool.memories[0];
    const busy = this.#busy;
    const base = this.#base;
    const plain = !tx.withFcs;
    const epoch = tx.epoch;
    if (this.#whole) {
      const end = this.#finish();
      if (end !== WALK_ON) return end;
    }
    for (let budget = RING_MAX; ; budget--) {
      const index = this.#index;
      if (busy[index] !== 0 && !this.#unbusy(index)) return WALK_WAITS;
      const address = base + DESCRIPTOR_BYTES * index;
      const offset = memory.translate(address, DESCRIPTOR_BYTES, DMA_READ);
      let at = offset >>> 2;
      let words = memory.hit.words;
      if (offset < 0) {
        if (!memory.read(address, this.#scratch, 0, DESCRIPTOR_BYTES)) {
          tx.chip.stats.txBadRing++;
          tx.chip.badAddress();
          return WALK_EMPTY;
        }
        if (epoch !== tx.epoch) return WALK_WAITS;
        words = this.#scratchWords;
        at = 0;
      }
      const command = words[at];
      if (command >= 0) return WALK_EMPTY;
      if (budget === 0) return WALK_AGAIN;
      const tag = words[at + 1];
      const buffer = (words[at + 3] >>> 0) * 4294967296 + (words[at + 2] >>> 0);
      const length = command & TX_LENGTH;
      busy[index] = (command & TX_EOR) !== 0 ? BUSY | BUSY_END : BUSY;
      this.#index = (command & TX_EOR) !== 0 ? 0 : (index + 1) & (RING_MAX - 1);

      // The most common case: a short frame in one descriptor, in mapped RAM.
      if (
        (command & (WHOLE | TX_LGSEN)) === WHOLE &&
        (tag & TX_TAGC) === 0 &&
        this.#collected === 0 &&
        length >= FRAME_MIN_BYTES &&
        length <= COPY_MAX_BYTES &&
        plain
      ) {
        const from = memory.translate(buffer, length, DMA_READ);
        const frame = from >= 0 ? pool.alloc(length + SKEW_MAX) : 0;
        if (frame !== 0) {
          // The slot's bytes lie as the guest's do, so that they are copied in whole words.
          const to = t[frame + OFFSET] + (from & 7);
          copyRounded(memory.hit, from, slots, to, length);
          t[frame + OFFSET] = to;
          t[frame + LENGTH] = length;
          t[frame + TOTAL] = length;
          if ((command & TX_CHECKSUMS) !== 0) this.#offload.checksums(frame, command);
          this.#span[index] = 1;
          if (!tx.push(frame, length, this.#source, index, false)) return WALK_WAITS;
          continue;
        }
      }
      const end = this.#collect(index, command, tag, buffer, length);
      if (end !== WALK_ON) return end;
    }
  }

  /** The walk met a descriptor that it has fetched. True: it is not busy any more. */
  #unbusy(index: number): boolean {
    const epoch = this.#tx.epoch;
    if (this.#collected > 0 && index === this.#first) {
      // The whole ring is one frame, which has no end.
      this.#tx.chip.stats.txBadRing++;
      this.#fail();
    } else if (!this.#tx.flush()) {
      return false;
    }
    return this.#busy[index] === 0 && epoch === this.#tx.epoch;
  }

  /** A frame in several descriptors, or one that needs a closer look. Returns WALK_*. */
  #collect(index: number, command: number, tag: number, buffer: number, length: number): number {
    const { stats } = this.#tx.chip;
    const epoch = this.#tx.epoch;
    if ((command & TX_FS) !== 0) {
      if (this.#collected > 0) {
        // The last one never ended.
        stats.txBadDescriptor++;
        this.#fail();
        if (epoch !== this.#tx.epoch) return WALK_WAITS;
      }
      this.#first = index;
      this.#command = command;
      this.#tag = tag;
    } else if (this.#collected === 0) {
      stats.txBadDescriptor++;
      this.#span[index] = 1;
      this.#tx.failed(this.#source, index);
      return epoch === this.#tx.epoch ? WALK_ON : WALK_WAITS;
    }
    this.#collected++;
    this.#span[this.#first] = this.#collected;
    this.#parts.add(buffer, length);
    return (command & TX_LS) === 0 ? WALK_ON : this.#finish();
  }

  /** Drops the frame that is being collected. Returns WALK_*. */
  #fail(): number {
    const epoch = this.#tx.epoch;
    this.#drop();
    this.#tx.failed(this.#source, this.#first);
    return epoch === this.#tx.epoch ? WALK_ON : WALK_WAITS;
  }

  /** At LS: builds the frame from its parts. Returns WALK_*; after WALK_NO_FRAME it is tried again. */
  #finish(): number {
    const tx = this.#tx;
    const { stats, pool } = tx.chip;
    const parts = this.#parts;
    const command = this.#command;
    this.#whole = true;
    const segment = (command & TX_LGSEN) !== 0;
    const fcs = tx.withFcs && parts.bytes >= FCS_BYTES ? FCS_BYTES : 0;
    const bytes = parts.bytes - fcs;
    if (parts.broken || bytes > (segment ? MAX_FRAME_BYTES - VLAN_TAG_BYTES : PLAIN_MAX_BYTES)) {
      stats.txDropTooLong++;
      return this.#fail();
    }
    if (bytes < HEADER_BYTES) {
      stats.txDropRunt++;
      return this.#fail();
    }
    const gap = (this.#tag & TX_TAGC) !== 0 ? VLAN_TAG_BYTES : 0;
    const epoch = tx.epoch;
    if (fcs !== 0) parts.trim(fcs);
    const frame = parts.gather(gap, tx.lender);
    if (epoch !== tx.epoch) {
      if (frame > 0) pool.release(frame);
      return WALK_WAITS;
    }
    if (frame === 0) {
      // Its bytes are trimmed already: it is collected anew.
      if (fcs !== 0) this.#rewind();
      return WALK_NO_FRAME;
    }
    if (frame === NOT_RAM) {
      stats.txDropBadAddress++;
      tx.chip.badAddress();
      return this.#fail();
    }
    if (gap !== 0) this.#offload.insertTag(frame, this.#tag);
    if (segment) this.#offload.largeSend(frame, (command >>> TX_MSS_SHIFT) & TX_MSS);
    else if ((command & TX_CHECKSUMS) !== 0) this.#offload.checksums(frame, command);
    const first = this.#first;
    this.#drop();
    const lent = pool.table[frame + LENDER] > 0;
    return tx.push(frame, bytes + gap, this.#source, first, lent) ? WALK_ON : WALK_WAITS;
  }

  /** Lets go of the collected descriptors, to fetch them again. */
  #rewind(): void {
    let index = this.#first;
    for (let left = this.#collected; left > 0; left--) {
      const end = this.#busy[index] & BUSY_END;
      this.#busy[index] = 0;
      index = end !== 0 ? 0 : (index + 1) & (RING_MAX - 1);
    }
    this.#span[this.#first] = 0;
    this.#index = this.#first;
    this.#drop();
  }

  /** Gives the frame's descriptors, from `first` on, back to the driver. */
  complete(first: number, ok: boolean): void {
    const { memory } = this.#tx.chip;
    const base = this.#base;
    let index = first;
    if (this.#span[first] === 1) {
      const at = memory.translate(base + DESCRIPTOR_BYTES * first, 4, DMA_BOTH);
      if (at >= 0) {
        const { words } = memory.hit;
        words[at >>> 2] = (words[at >>> 2] & TX_KEPT) | (ok ? 0 : TX_TES);
        this.#busy[first] = 0;
        this.#span[first] = 0;
        return;
      }
    }
    for (let left = this.#span[first]; left > 0; left--) {
      const flags = this.#busy[index];
      this.#busy[index] = 0;
      const address = base + DESCRIPTOR_BYTES * index;
      const at = memory.translate(address, 4, DMA_BOTH);
      if (at >= 0) {
        const { words } = memory.hit;
        words[at >>> 2] = (words[at >>> 2] & TX_KEPT) | (ok ? 0 : TX_TES);
      } else if (memory.read(address, this.#scratch, 0, 4)) {
        this.#scratchWords[0] = (this.#scratchWords[0] & TX_KEPT) | (ok ? 0 : TX_TES);
        memory.write(address, this.#scratch, 0, 4);
      }
      index = (flags & BUSY_END) !== 0 ? 0 : (index + 1) & (RING_MAX - 1);
    }
    this.#span[first] = 0;
  }

  /** `waiting`: the first descriptor of the oldest frame that waits for the port; -1: none does. What comes behind it is fetched again. */
  save(waiting: number): SavedTxRing {
    const from = waiting >= 0 ? waiting : this.#collected > 0 ? this.#first : -1;
    const busy = [...this.#busy];
    const span = [...this.#span];
    if (from >= 0) {
      for (let index = from; busy[index] !== 0; ) {
        const end = busy[index] & BUSY_END;
        busy[index] = 0;
        span[index] = 0;
        index = end !== 0 ? 0 : (index + 1) & (RING_MAX - 1);
        if (index === this.#index) break;
      }
    }
    return { index: from >= 0 ? from : this.#index, busy, span };
  }

  /** Takes a saved ring; returns the first descriptors of frames that are on their way. */
  load(state: SavedTxRing): number[] {
    this.abandon();
    this.moved(state.index);
    this.#busy.set(state.busy);
    this.#span.set(state.span);
    const lent: number[] = [];
    for (let index = 0; index < RING_MAX; index++) {
      if (this.#span[index] === 0) continue;
      lent.push(index);
    }
    return lent;
  }
}

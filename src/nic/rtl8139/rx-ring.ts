/**
 * The C+ receive ring (8139C+ datasheet, "Receive descriptors"): up to 64 descriptors of 16 bytes, the last one with EOR; the device's are those
 * with OWN.
 *
 *   given   word 0  OWN EOR, buffer size       word 1  -                  words 2, 3  buffer address
 *   back    word 0  EOR FS LS, whom it was for, errors, PID and checksum failures, length with FCS       word 1  TAVA, VLAN tag
 *
 * A frame takes as many descriptors as its length needs, which must all be the device's before a byte is written. They are given back
 * last first, so a driver that sees the first sees all. A buffer that is not RAM gives RES in its descriptor, so the driver drops the frame.
 */

import { copyMemory } from '../../core/copy.ts';
import { FACT_CSUM_VALID, FACTS, NEXT, OFFSET, TOTAL } from '../../core/pool.ts';
import { DMA_BOTH, DMA_WRITE } from '../../pci/guest-memory.ts';
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
import type { RxStore } from '../rx-store.ts';
import type { Chip } from './chip.ts';
import { CPCR, CPCR_RX_CHECKSUM, CPCR_RX_VLAN, DESCRIPTOR_BYTES, RDSAR, RING_MAX } from './registers.ts';
import { FCS_BYTES, LOST, NO_ROOM, NORMAL_MAX_BYTES, STORED, STORED_BAD } from './rx.ts';

const RX_EOR = 1 << 30;
const RX_FS = 1 << 29;
const RX_LS = 1 << 28;
const RX_MAR = 1 << 26;
const RX_PAM = 1 << 25;
const RX_BAR = 1 << 24;
const RX_RWT = 1 << 21;
const RX_RES = 1 << 20;
const RX_PID_TCP = 1 << 16;
const RX_PID_UDP = 2 << 16;
const RX_PID_IP = 3 << 16;
const RX_IPF = 1 << 15;
const RX_UDPF = 1 << 14;
const RX_TCPF = 1 << 13;
export const RX_SIZE = 0x1fff;
const RX_TAVA = 1 << 16;

/** By TO_*: others, us, a group, all. */
const WHOM = Int32Array.of(0, RX_PAM, RX_MAR, RX_BAR);

const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const VLAN_TAG_BYTES = 4;
const TYPE_OFFSET = 12;
/** The first byte of 0x8100. */
const TAG_TYPE_HIGH = 0x81;

export class RxRing {
  /** The next descriptor. */
  index = 0;
  #base = 0;
  readonly #chip: Chip;
  readonly #store: RxStore;
  readonly #layout = new HeaderLayout();
  readonly #scratch = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);
  /** The frame's descriptors. */
  readonly #indices = new Uint8Array(RING_MAX);
  /** The descriptor that `#fetch` read. */
  #command = 0;
  #address = 0;

  constructor(chip: Chip, store: RxStore) {
    this.#chip = chip;
    this.#store = store;
  }

  /** RDSAR was written, or restored: the ring begins at descriptor `index`. */
  moved(index: number): void {
    const { words } = this.#chip;
    const at = RDSAR >> 2;
    this.index = index;
    this.#base = (words[at + 1] >>> 0) * 2 ** 32 + ((words[at] & ~(DESCRIPTOR_BYTES - 1)) >>> 0);
  }

  #place(index: number): number {
    return this.#base + DESCRIPTOR_BYTES * index;
  }

  /** Reads a descriptor; false when it is not in RAM. */
  #fetch(index: number): boolean {
    const { memory } = this.#chip;
    const address = this.#place(index);
    const offset = memory.translate(address, DESCRIPTOR_BYTES, DMA_BOTH);
    let at = offset >>> 2;
    let words = memory.hit.words;
    if (offset < 0) {
      if (!memory.read(address, this.#scratch, 0, DESCRIPTOR_BYTES)) return false;
      words = this.#scratchWords;
      at = 0;
    }
    this.#command = words[at];
    this.#address = (words[at + 3] >>> 0) * 4294967296 + (words[at + 2] >>> 0);
    return true;
  }

  /** Gives a descriptor back: its tag word first, the word with OWN last. */
  #writeBack(index: number, status: number, tag: number): void {
    const { memory } = this.#chip;
    const address = this.#place(index);
    const offset = memory.translate(address, DESCRIPTOR_BYTES, DMA_BOTH);
    if (offset >= 0) {
      const { words } = memory.hit;
      words[(offset >>> 2) + 1] = tag;
      words[offset >>> 2] = status | (words[offset >>> 2] & RX_EOR);
      return;
    }
    if (!memory.read(address, this.#scratch, 0, 4)) return;
    this.#scratchWords[0] = status | (this.#scratchWords[0] & RX_EOR);
    this.#scratchWords[1] = tag;
    memory.write(address, this.#scratch, 0, 8);
  }

  /** The next descriptor is the device's; or it is nowhere, and frames are dropped. */
  get hasRoom(): boolean {
    return !this.#fetch(this.index) || this.#command < 0;
  }

  /**
   * Stores the plain frames in front of a batch, in a loop of their own: for the main address, without a tag, in one piece, each for one buffer in mapped RAM.
   * Returns how many; they stay the caller's.
   */
  putPlain(frames: Int32Array, from: number, to: number): number {
    const { pool, memory, halves, filter } = this.#chip;
    const t = pool.table;
    const slots = pool.memories[0];
    const headers = slots.view;
    const ringAt = memory.translate(this.#base, DESCRIPTOR_BYTES * RING_MAX, DMA_BOTH) >> 2;
    if (ringAt < 0) return 0;
    const { words } = memory.hit;
    const checking = (halves[CPCR >> 1] & CPCR_RX_CHECKSUM) !== 0;
    let index = this.index;
    let i = from;
    for (; i < to; i++) {
      const d = ringAt + 4 * index;
      const command = words[d];
      const frame = frames[i];
      const total = t[frame + TOTAL];
      const at = t[frame + OFFSET];
      const stored = total + FCS_BYTES;
      if (
        command >= 0 ||
        total < FRAME_MIN_BYTES ||
        stored > (command & RX_SIZE) ||
        stored > NORMAL_MAX_BYTES ||
        t[frame + NEXT] !== 0
      )
        break;
      if (headers.getUint8(at + TYPE_OFFSET) === TAG_TYPE_HIGH) break;
      if (!filter.isMain(headers, at)) break;
      const target = memory.translate(
        (words[d + 3] >>> 0) * 4294967296 + (words[d + 2] >>> 0),
        stored,
        DMA_WRITE,
      );
      if (target < 0) break;
      let checked = 0;
      if (checking) {
        if (!isPlainTcp4(headers, at, total)) checked = this.#checksumStatus(frame);
        else if (t[frame + FACTS] === FACT_CSUM_VALID) checked = RX_PID_TCP;
        else checked = tcpStatus(verifyPlainTcp4(pool, at));
      }
      copyMemory(slots, at, memory.hit, target, total);
      clearFcs(memory.hit.bytes, target + total);
      words[d + 1] = 0;
      words[d] = (command & RX_EOR) | RX_FS | RX_LS | RX_PAM | checked | stored;
      index = (command & RX_EOR) !== 0 ? 0 : (index + 1) & (RING_MAX - 1);
    }
    this.index = index;
    return i - from;
  }

  /** Stores a frame; `whom`: TO_*. */
  put(frame: number, whom: number): number {
    const { pool, memory, halves } = this.#chip;
    const t = pool.table;
    const at = t[frame + OFFSET];
    const total = t[frame + TOTAL];
    const control = halves[CPCR >> 1];
    const index = this.index;
    const offset = memory.translate(this.#base + DESCRIPTOR_BYTES * index, DESCRIPTOR_BYTES, DMA_BOTH);
    // The most common case, all in local variables: ring and buffer in mapped RAM, the frame in one piece.
    if (offset < 0) return this.#putSlow(frame, whom, control);
    const { words } = memory.hit;
    const d = offset >>> 2;
    const command = words[d];
    if (command >= 0) return NO_ROOM;
    const stored = total + FCS_BYTES;
    const bytes = pool.bytes;
    if (
      total < FRAME_MIN_BYTES ||
      stored > (command & RX_SIZE) ||
      stored > NORMAL_MAX_BYTES ||
      t[frame + NEXT] !== 0 ||
      ((control & CPCR_RX_VLAN) !== 0 && bytes[at + TYPE_OFFSET] === TAG_TYPE_HIGH)
    )
      return this.#putSlow(frame, whom, control);
    const address = (words[d + 3] >>> 0) * 4294967296 + (words[d + 2] >>> 0);
    const to = memory.translate(address, stored, DMA_WRITE);
    if (to < 0) return this.#putSlow(frame, whom, control);
    copyMemory(pool.memories[0], at, memory.hit, to, total);
    clearFcs(memory.hit.bytes, to + total);
    const checked = (control & CPCR_RX_CHECKSUM) !== 0 ? this.#checksumStatus(frame) : 0;
    words[d + 1] = 0;
    words[d] = (command & RX_EOR) | RX_FS | RX_LS | WHOM[whom] | checked | stored;
    this.index = (command & RX_EOR) !== 0 ? 0 : (index + 1) & (RING_MAX - 1);
    return STORED;
  }

  /** Everything else: remote memory, tags, padding, several descriptors, errors. */
  #putSlow(frame: number, whom: number, control: number): number {
    const { pool, stats } = this.#chip;
    const t = pool.table;
    const at = t[frame + OFFSET];
    const total = t[frame + TOTAL];
    const first = this.index;
    if (!this.#fetch(first)) {
      stats.rxDropBadRing++;
      this.#chip.badAddress();
      return LOST;
    }
    if (this.#command >= 0) return NO_ROOM;
    let tag = 0;
    let cut = 0;
    if ((control & CPCR_RX_VLAN) !== 0 && total >= TYPE_OFFSET + VLAN_TAG_BYTES + 2) {
      const bytes = pool.bytes;
      if (bytes[at + TYPE_OFFSET] === 0x81 && bytes[at + TYPE_OFFSET + 1] === 0) {
        // As the descriptor has it: high byte last.
        tag = RX_TAVA | bytes[at + TYPE_OFFSET + 2] | (bytes[at + TYPE_OFFSET + 3] << 8);
        cut = VLAN_TAG_BYTES;
      }
    }
    const stored = Math.max(total - cut, FRAME_MIN_BYTES) + FCS_BYTES;
    let status = WHOM[whom];
    if ((control & CPCR_RX_CHECKSUM) !== 0) status |= this.#checksumStatus(frame);
    const long = stored > NORMAL_MAX_BYTES;
    if (long) status |= RX_RWT | RX_RES;
    const size = this.#command & RX_SIZE;
    if (stored > size) return this.#putParts(frame, cut, stored, status, tag);
    this.index = (this.#command & RX_EOR) !== 0 ? 0 : (first + 1) & (RING_MAX - 1);
    if (!this.#store.store(frame, 0, cut, total, this.#address, stored)) {
      stats.rxDropBadAddress++;
      this.#chip.badAddress();
      this.#writeBack(first, RX_FS | RX_LS | RX_RES, 0);
      return STORED_BAD;
    }
    this.#writeBack(first, status | RX_FS | RX_LS | stored, tag);
    return long ? STORED_BAD : STORED;
  }

  /** Stores a frame that is longer than the first descriptor's buffer. */
  #putParts(frame: number, cut: number, stored: number, status: number, tag: number): number {
    const { pool, stats } = this.#chip;
    const indices = this.#indices;
    let index = this.index;
    let count = 0;
    let capacity = 0;
    while (capacity < stored) {
      if (count === RING_MAX || (count > 0 && index === this.index)) {
        // All the ring's buffers together are shorter.
        stats.rxDropTooLong++;
        return LOST;
      }
      if (!this.#fetch(index)) {
        stats.rxDropBadRing++;
        this.#chip.badAddress();
        return LOST;
      }
      if (this.#command >= 0) return NO_ROOM;
      capacity += this.#command & RX_SIZE;
      indices[count++] = index;
      index = (this.#command & RX_EOR) !== 0 ? 0 : (index + 1) & (RING_MAX - 1);
    }
    this.index = index;
    const total = pool.table[frame + TOTAL];
    let done = 0;
    let ok = true;
    for (let i = 0; i < count && ok; i++) {
      const there = this.#fetch(indices[i]);
      const size = Math.min(this.#command & RX_SIZE, stored - done);
      ok = there && (size === 0 || this.#store.store(frame, done, cut, total, this.#address, size));
      done += size;
    }
    // A driver that shrank a buffer meanwhile gets an error too.
    if (!ok || done < stored) {
      stats.rxDropBadAddress++;
      this.#chip.badAddress();
      status |= RX_RES;
    }
    for (let i = count - 1; i >= 0; i--) {
      const last = i === count - 1;
      // Only the last one tells a length; those before are full.
      this.#writeBack(indices[i], status | (i === 0 ? RX_FS : 0) | (last ? RX_LS | stored : 0), tag);
    }
    return (status & RX_RES) !== 0 ? STORED_BAD : STORED;
  }

  /** What the packet is, and which checksums are wrong; the chip knows IPv4 only. */
  #checksumStatus(frame: number): number {
    const layout = this.#layout;
    const found = verifyFrame(this.#chip.pool, frame, layout);
    if ((found & CHECKED_IP) === 0) return 0;
    if (layout.fragment || (found & BAD_IP) !== 0) return RX_PID_IP | ((found & BAD_IP) !== 0 ? RX_IPF : 0);
    if (layout.protocol === PROTOCOL_TCP && (found & CHECKED_L4) !== 0) return tcpStatus(found);
    // UDP without a checksum is right.
    if (
      layout.protocol === PROTOCOL_UDP &&
      ((found & CHECKED_L4) !== 0 || udpUnsummed(this.#chip, frame, layout))
    )
      return RX_PID_UDP | ((found & BAD_L4) !== 0 ? RX_UDPF : 0);
    return RX_PID_IP;
  }
}

/** Of a whole TCP packet in IPv4, by what was found. */
function tcpStatus(found: number): number {
  if ((found & BAD_IP) !== 0) return RX_PID_IP | RX_IPF;
  return RX_PID_TCP | ((found & BAD_L4) !== 0 ? RX_TCPF : 0);
}

/** The frame check sequence, which is not known here. */
function clearFcs(target: Uint8Array, at: number): void {
  for (let i = 0; i < FCS_BYTES; i++) target[at + i] = 0;
}

/** Whether a whole UDP header is there that says it has no checksum. */
function udpUnsummed(chip: Chip, frame: number, layout: HeaderLayout): boolean {
  const { pool } = chip;
  const total = pool.table[frame + TOTAL];
  if (layout.l4 + 8 > total || layout.end > total || layout.end - layout.l4 < 8) return false;
  const at = pool.table[frame + OFFSET] + layout.l4 + 6;
  return pool.bytes[at] === 0 && pool.bytes[at + 1] === 0;
}

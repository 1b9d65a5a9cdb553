/**
 * The classic receiver's ring buffer (RTL8139C datasheet, "Receive Configuration", "CAPR", "CBR"): 8 to 64 KiB of RAM from RBSTART on.
 *
 *   at CBR: status (16 bits), length with FCS (16 bits), bytes, FCS; the next frame begins at a multiple of 4
 *
 * CBR is where the device writes, CAPR + 16 where the driver reads; both count modulo the buffer's length. With RCR.WRAP a frame that
 * reaches the end is written on behind it (the driver has left room there), else it goes on at the buffer's start. A 64 KiB buffer always wraps.
 */

import { TOTAL } from '../../core/pool.ts';
import { FRAME_MIN_BYTES } from '../frame-size.ts';
import type { RxStore } from '../rx-store.ts';
import type { Chip } from './chip.ts';
import { CAPR, CBR, RBSTART, RCR, RCR_RBLEN_SHIFT, RCR_WRAP } from './registers.ts';
import {
  FCS_BYTES,
  LOST,
  NO_ROOM,
  NORMAL_MAX_BYTES,
  STORED,
  STORED_BAD,
  TO_ALL,
  TO_GROUP,
  TO_US,
} from './rx.ts';

const HEADER_BYTES = 4;
const CAPR_OFFSET = 16;
const CAPR_RESET = 0xfff0;
const LENGTH_LARGEST = 3;

const STATUS_ROK = 1 << 0;
const STATUS_LONG = 1 << 3;
const STATUS_BAR = 1 << 13;
const STATUS_PAM = 1 << 14;
const STATUS_MAR = 1 << 15;

/** What has room for a frame of an Ethernet MTU. */
const ROOM_BYTES = 1536;

export class RxBuffer {
  readonly #chip: Chip;
  readonly #store: RxStore;
  readonly #header = new Uint8Array(HEADER_BYTES);

  constructor(chip: Chip, store: RxStore) {
    this.#chip = chip;
    this.#store = store;
  }

  restart(): void {
    this.#chip.halves[CBR >> 1] = 0;
    this.#chip.halves[CAPR >> 1] = CAPR_RESET;
  }

  get #bytes(): number {
    return 8192 << ((this.#chip.words[RCR >> 2] >>> RCR_RBLEN_SHIFT) & 3);
  }

  /** Bytes that the driver has not read. */
  #used(bytes: number): number {
    const { halves } = this.#chip;
    return (halves[CBR >> 1] - halves[CAPR >> 1] - CAPR_OFFSET) & (bytes - 1);
  }

  get empty(): boolean {
    return this.#used(this.#bytes) === 0;
  }

  get hasRoom(): boolean {
    const bytes = this.#bytes;
    return bytes - this.#used(bytes) > ROOM_BYTES;
  }

  /** Stores a frame; `whom`: TO_*. */
  put(frame: number, whom: number): number {
    const { pool, words, halves, memory, stats } = this.#chip;
    const total = pool.table[frame + TOTAL];
    const stored = Math.max(total, FRAME_MIN_BYTES) + FCS_BYTES;
    const length = this.#bytes;
    const needed = (HEADER_BYTES + stored + 3) & ~3;
    // A full buffer would look like an empty one.
    if (needed >= length - this.#used(length)) {
      if (needed < length) return NO_ROOM;
      stats.rxDropTooLong++;
      return LOST;
    }
    const rcr = words[RCR >> 2];
    const base = words[RBSTART >> 2] >>> 0;
    const place = halves[CBR >> 1] & (length - 1) & ~3;
    const data = place + HEADER_BYTES;
    const goesOn = (rcr & RCR_WRAP) !== 0 && ((rcr >>> RCR_RBLEN_SHIFT) & 3) !== LENGTH_LARGEST;
    const before = goesOn ? stored : Math.min(stored, length - data);
    const long = stored > NORMAL_MAX_BYTES;
    const status =
      (long ? STATUS_LONG : STATUS_ROK) |
      (whom === TO_ALL ? STATUS_BAR : whom === TO_GROUP ? STATUS_MAR : whom === TO_US ? STATUS_PAM : 0);
    const header = this.#header;
    header[0] = status;
    header[1] = status >>> 8;
    header[2] = stored;
    header[3] = stored >>> 8;
    if (
      (before > 0 && !this.#store.store(frame, 0, 0, total, base + data, before)) ||
      (before < stored && !this.#store.store(frame, before, 0, total, base, stored - before)) ||
      !memory.write(base + place, header, 0, HEADER_BYTES)
    ) {
      stats.rxDropBadAddress++;
      this.#chip.badAddress();
      return LOST;
    }
    halves[CBR >> 1] = (place + needed) & (length - 1);
    return long ? STORED_BAD : STORED;
  }
}

/**
 * Receive: from frames on the port to the driver's memory, in both programming models.
 *
 *   offered frames → filter → length → classic: header and bytes into the ring buffer (rx-buffer.ts)
 *                                      C+: bytes into descriptors' buffers (rx-ring.ts)       → ROK
 *
 * Frames are taken only as far as the driver has given room: the rest is refused and stays with its sender. In the classic model a write to CAPR makes
 * room; in C+ nothing tells the chip of new descriptors, so while frames are refused it looks at every write to ISR, IMR or TPPoll, which drivers
 * make after refilling, and by a timer that doubles from 100 us (about a frame's time on the wire) to 10 ms. Each time that it finds no room it tells
 * the driver again, RDU in C+ and ROK in the classic model: Linux's 8139too leaves frames in a full buffer when their ROK was acknowledged with another one's,
 * and waits for the next. RXOVW, which drivers count as loss, is told only of loss. A receiver that is off takes every frame and drops it, counted, as a cable
 * that nobody listens to.
 *
 * The FCS, which the chip always stores, is four zero bytes. Frames of more than 4 KiB of payload are errors (LONG, RWT) that only RCR.AER lets in. Short
 * frames are padded, so RCR.AR finds no runts. Early receive (ERTH, MULINT) has nothing to do: frames come whole.
 */

import type { Timer } from '../../core/loop.ts';
import { LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import type { Port } from '../../core/port.ts';
import { isBroadcastMac } from '../../wire/ethernet.ts';
import { FRAME_MIN_BYTES } from '../frame-size.ts';
import {
  RX_ACCEPT,
  RX_ACCEPT_INEXACT,
  RX_DROP_BROADCAST,
  RX_DROP_MULTICAST,
  RX_DROP_RUNT,
  RX_DROP_UNICAST,
} from '../rx-filter.ts';
import { RxStore } from '../rx-store.ts';
import type { Chip } from './chip.ts';
import { CPCR, CPCR_RX, CR, CR_RE, INT_RER, INT_ROK, INT_RXOVW, RCR, RCR_AER } from './registers.ts';
import { RxBuffer } from './rx-buffer.ts';
import { RxRing } from './rx-ring.ts';

/** What became of a frame that the filter let in. */
export const STORED = 0;
/** Stored with an error bit. */
export const STORED_BAD = 1;
export const NO_ROOM = 2;
/** It can never be stored; counted. */
export const LOST = 3;

/** Whom the frame was for. */
export const TO_OTHERS = 0;
export const TO_US = 1;
export const TO_GROUP = 2;
export const TO_ALL = 3;

export const FCS_BYTES = 4;
/** Longest frame with FCS that is no error: 4 KiB behind a tagged header. */
export const NORMAL_MAX_BYTES = 4096 + 18 + FCS_BYTES;
/** The 13 bits of the length field. */
const LENGTH_MAX_BYTES = 8191;
const LOOP_MAX = 2048;
const LOOK_MIN_NS = 100e3;
const LOOK_MAX_NS = 10e6;

export class Receiver {
  readonly #chip: Chip;
  /** Set by index.ts, which owns the port. */
  port: Port | null = null;

  readonly #buffer: RxBuffer;
  readonly #ring: RxRing;
  /** Frames were refused: the port is told when there is room. */
  #refused = false;
  #overflowTold = false;
  #framesAtRead = 0;
  /** Changes with every reset and every move of the ring: what a delivery under way knows of it is void. */
  #epoch = 0;
  #lookNs = LOOK_MIN_NS;
  readonly #look: Timer;
  readonly #readyLater: () => void;
  readonly #loopFrames = new Int32Array(LOOP_MAX);

  constructor(chip: Chip) {
    this.#chip = chip;
    const store = new RxStore(chip.memory, chip.pool);
    this.#buffer = new RxBuffer(chip, store);
    this.#ring = new RxRing(chip, store);
    this.#readyLater = () => this.#tellReady();
    this.#look = chip.loop.timer(() => {
      this.roomMade();
      if (!this.#refused) return;
      this.#lookNs = Math.min(2 * this.#lookNs, LOOK_MAX_NS);
      if (!this.#look.armed) this.#look.armIn(this.#lookNs);
      chip.interrupts.raise(this.plus ? INT_RXOVW : INT_ROK);
    });
  }

  // Registers.

  get plus(): boolean {
    return (this.#chip.bytes[CPCR] & CPCR_RX) !== 0;
  }

  get enabled(): boolean {
    return (this.#chip.bytes[CR] & CR_RE) !== 0 && this.#chip.dmaEnabled;
  }

  /** CR.BUFE: the classic buffer holds nothing. */
  get empty(): boolean {
    return this.#buffer.empty;
  }

  /** CR.RE went from 0 to 1: both places are begun anew. */
  restart(): void {
    this.#epoch++;
    this.#buffer.restart();
    this.ringMoved();
  }

  /** RDSAR was written. */
  ringMoved(): void {
    this.#epoch++;
    this.#ring.moved(0);
    this.roomMade();
  }

  reset(): void {
    this.#look.cancel();
    this.restart();
    this.#tellReady();
  }

  close(): void {
    this.#look.cancel();
    this.#refused = false;
  }

  /** A register was written after which there may be room, or the receiver went on or off. */
  roomMade(): void {
    if (!this.#refused || (this.enabled && !this.#hasRoom())) return;
    this.#tellReady();
  }

  /** ISR was read. */
  causesRead(): void {
    this.#framesAtRead = this.#chip.stats.rxFrames;
  }

  /**
   * ROK was acknowledged, and the driver may have done so before it refilled the descriptors that frames are in since: a C+ ring is refilled in memory
   * alone, and where register writes are late the acknowledgement comes after the refilling. iPXE, whose ring has four descriptors, would wait for ever.
   */
  get mustTellAgain(): boolean {
    return this.#chip.writesAreLate && this.plus && this.#chip.stats.rxFrames !== this.#framesAtRead;
  }

  /** ISR was written: what it told of is told again, soon, if it is still so. */
  acknowledged(): void {
    this.roomMade();
    if (!this.#refused) return;
    this.#lookNs = LOOK_MIN_NS;
    if (this.#look.deadlineNs > this.#chip.loop.clock.nowNs() + LOOK_MIN_NS) this.#look.armIn(LOOK_MIN_NS);
  }

  #hasRoom(): boolean {
    return this.plus ? this.#ring.hasRoom : this.#buffer.hasRoom;
  }

  #tellReady(): void {
    if (!this.#refused) return;
    this.#refused = false;
    this.#overflowTold = false;
    this.#look.cancel();
    this.#lookNs = LOOK_MIN_NS;
    this.port?.ready();
  }

  #refuse(): void {
    this.#chip.stats.rxNoDescriptor++;
    this.#refused = true;
    if (!this.#look.armed) this.#look.armIn(this.#lookNs);
  }

  // Frames.

  /** core/port.ts `Sink.receive`. */
  receive(frames: Int32Array, from: number, to: number): number {
    const { stats, pool } = this.#chip;
    if (this.enabled && !this.#chip.loopback) return this.#deliver(frames, from, to);
    if (this.enabled) stats.rxDropLoopback += to - from;
    else stats.rxDropDisabled += to - from;
    pool.releaseAll(frames, from, to);
    return to - from;
  }

  /** Loopback: takes all of a batch that the transmitter sent. What finds no room is lost, as on a wire. */
  loopBack(frames: Int32Array, from: number, to: number): void {
    const { pool, adapt, stats, tally } = this.#chip;
    for (let i = from; i < to; i++) {
      if (!this.enabled) {
        stats.rxDropDisabled++;
        pool.release(frames[i]);
        continue;
      }
      const count = adapt(pool, frames[i], 0, this.#loopFrames);
      const refused = this.#refused;
      const taken = this.#deliver(this.#loopFrames, 0, count);
      if (taken === count) continue;
      this.#refused = refused;
      if (!refused) this.#look.cancel();
      stats.rxDropNoDescriptor += count - taken;
      tally.missed(count - taken);
      this.#chip.interrupts.raise(INT_RXOVW);
      pool.releaseAll(this.#loopFrames, taken, count);
    }
  }

  #deliver(frames: Int32Array, from: number, to: number): number {
    const { pool, filter, stats, tally, words, interrupts } = this.#chip;
    const t = pool.table;
    const bytes = pool.bytes;
    const plus = this.plus;
    const acceptErrors = (words[RCR >> 2] & RCR_AER) !== 0;
    const epoch = this.#epoch;
    let received = 0;
    let receivedBytes = 0;
    let causes = 0;
    let i = from;
    if (plus) {
      received = this.#ring.putPlain(frames, from, to);
      i += received;
      for (let k = from; k < i; k++) receivedBytes += t[frames[k] + TOTAL];
      if (received !== 0) causes = INT_ROK;
      tally.receivedPhysical(received);
      pool.releaseAll(frames, from, i);
    }
    for (; i < to && epoch === this.#epoch; i++) {
      const frame = frames[i];
      const at = t[frame + OFFSET];
      const total = t[frame + TOTAL];
      const verdict = filter.decide(bytes, at, t[frame + LENGTH]);
      if (verdict > RX_ACCEPT_INEXACT) {
        this.#countDrop(verdict);
        pool.release(frame);
        continue;
      }
      const wireBytes = Math.max(total, FRAME_MIN_BYTES) + FCS_BYTES;
      if (wireBytes > NORMAL_MAX_BYTES && (!acceptErrors || wireBytes > LENGTH_MAX_BYTES)) {
        stats.rxDropTooLong++;
        tally.rxError++;
        pool.release(frame);
        continue;
      }
      const group = (bytes[at] & 1) !== 0;
      const whom = !group
        ? verdict === RX_ACCEPT
          ? TO_US
          : TO_OTHERS
        : isBroadcastMac(bytes, at)
          ? TO_ALL
          : TO_GROUP;
      const result = plus ? this.#ring.put(frame, whom) : this.#buffer.put(frame, whom);
      if (result === NO_ROOM) {
        this.#refuse();
        if (plus && !this.#overflowTold) {
          this.#overflowTold = true;
          causes |= INT_RXOVW;
        }
        break;
      }
      if (result === STORED) {
        received++;
        receivedBytes += total;
        causes |= INT_ROK;
        tally.received(whom === TO_ALL, group);
      } else {
        tally.rxError++;
        if (result === STORED_BAD) causes |= INT_RER;
      }
      pool.release(frame);
    }
    stats.rxFrames += received;
    stats.rxBytes += receivedBytes;
    if (epoch !== this.#epoch) {
      // Remote memory was written, and a reset came meanwhile: what is left is offered again, to the ring as it is then.
      if (i < to) {
        this.#refused = true;
        this.#chip.loop.post(this.#readyLater);
      }
      return i - from;
    }
    if (causes !== 0) interrupts.raise(causes);
    return i - from;
  }

  #countDrop(verdict: number): void {
    const { stats } = this.#chip;
    if (verdict === RX_DROP_UNICAST) stats.rxDropUnicast++;
    else if (verdict === RX_DROP_MULTICAST) stats.rxDropMulticast++;
    else if (verdict === RX_DROP_BROADCAST) stats.rxDropBroadcast++;
    else if (verdict === RX_DROP_RUNT) stats.rxDropRunt++;
  }

  /** The C+ descriptor that is filled next. */
  get ringIndex(): number {
    return this.#ring.index;
  }

  // Save and restore.

  save(): number {
    return this.#ring.index;
  }

  load(index: number): void {
    this.#ring.moved(index);
  }
}

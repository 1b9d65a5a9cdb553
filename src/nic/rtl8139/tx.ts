/**
 * Transmit: from the driver's descriptors to frames on the port, in both programming models.
 *
 *   classic  TSD written with OWN clear → one buffer at TSAD → port.send → OWN and TOK in TSD                 (tx-classic.ts)
 *   C+       TPPoll written → walk the high, then the normal ring → port.send → OWN cleared in descriptors    (tx-ring.ts)
 *
 * This file has what both need: the batch of frames on their way to the port, its order, completion, interrupts. Frames wait in the driver's
 * descriptors: when the port takes less than all, what is left of the batch stays here and all walking stops until `peerReady`. A frame that
 * borrows from guest RAM is lent: its descriptors are completed when its last holder lets go of it. One pass looks at no more than 64 descriptors
 * of a ring, then goes on in the loop's next turn.
 *
 * Left out: early transmit thresholds and FIFO underrun (a frame is fetched whole), collisions, retries.
 */

import type { Timer } from '../../core/loop.ts';
import { FACTS, GSO_SIZE, HEADER_LENGTH, type Lender, TAG, TOTAL } from '../../core/pool.ts';
import type { Port } from '../../core/port.ts';
import { FRAME_MIN_BYTES, padFrame } from '../frame-size.ts';
import type { Chip } from './chip.ts';
import {
  CPCR,
  CPCR_TX,
  CR,
  CR_TE,
  INT_TDU,
  INT_TER,
  INT_TOK,
  TCR,
  TCR_CRC,
  TPPOLL_HPQ,
  TPPOLL_NPQ,
} from './registers.ts';
import type { Receiver } from './rx.ts';
import type { SavedTransmitter } from './state.ts';
import { ClassicTransmitter } from './tx-classic.ts';
import { TxRing, WALK_AGAIN, WALK_EMPTY, WALK_NO_FRAME } from './tx-ring.ts';

export const BATCH = 64;
/** Longest frame that is not cut into segments: the 13 bits of the chip's lengths. */
export const PLAIN_MAX_BYTES = 8191;
const POOL_RETRY_NS = 1e6;

/** Who put a frame into the batch. */
export const FROM_NORMAL = 0;
export const FROM_HIGH = 1;
export const FROM_CLASSIC = 2;
const TAG_FIRST = 63;
const TAG_RING_SHIFT = 6;
const TAG_EPOCH_SHIFT = 7;
const TAG_EPOCH = 0xfffff;
const LENT_MAX = 128;

export class Transmitter implements Lender {
  readonly chip: Chip;
  /** Set by index.ts, which owns the port. */
  port: Port | null = null;
  /** Changes with every reset: what a walk or a send under way knows is void. */
  epoch = 0;
  /** Lends guest RAM to frames (core/pool.ts). */
  readonly lender: number;

  readonly #receiver: Receiver;
  readonly #classic: ClassicTransmitter;
  readonly #rings: readonly [TxRing, TxRing];
  /** TPPOLL_* of the rings that may have something to send. */
  #polled = 0;

  readonly #batch = new Int32Array(BATCH);
  readonly #batchSource = new Uint8Array(BATCH);
  /** The frame's first descriptor. */
  readonly #batchFirst = new Uint8Array(BATCH);
  readonly #batchLent = new Uint8Array(BATCH);
  /** Frames on the wire that it becomes, and their bytes. */
  readonly #batchSegments = new Int32Array(BATCH);
  readonly #batchBytes = new Int32Array(BATCH);
  #batchFrom = 0;
  #batchTo = 0;
  #causes = 0;

  /** Tags of lent frames that came back and are not completed. */
  readonly #returned = new Int32Array(LENT_MAX);
  #returnedCount = 0;
  #running = false;
  #blocked = false;
  #resumePosted = false;
  readonly #retry: Timer;
  readonly #resume: () => void;

  constructor(chip: Chip, receiver: Receiver) {
    this.chip = chip;
    this.#receiver = receiver;
    this.#classic = new ClassicTransmitter(this);
    this.#rings = [new TxRing(this, FROM_NORMAL), new TxRing(this, FROM_HIGH)];
    this.lender = chip.pool.addLender(this);
    this.#retry = chip.loop.timer(() => this.run());
    this.#resume = () => {
      this.#resumePosted = false;
      this.run();
    };
  }

  // Registers.

  /** TSD `index` was written. */
  statusWritten(index: number): void {
    this.#classic.statusWritten(index);
    this.run();
  }

  /** TPPoll was written: bits NPQ, HPQ. */
  poll(bits: number): void {
    this.#polled |= bits & (TPPOLL_NPQ | TPPOLL_HPQ);
    this.run();
  }

  /** A ring's address was written, or the transmitter switched on: walking begins at its first descriptor. */
  ringMoved(source: number): void {
    this.#abandon();
    this.#rings[source].moved();
  }

  /** CR.TE went from 0 to 1, or C+ mode was entered or left. */
  restart(): void {
    this.ringMoved(FROM_NORMAL);
    this.ringMoved(FROM_HIGH);
    this.#polled = 0;
  }

  reset(): void {
    this.restart();
    this.#retry.cancel();
    this.#classic.reset();
  }

  close(): void {
    this.reset();
    this.chip.pool.removeLender(this.lender);
  }

  /** Lets go of frames that wait for the port, to be fetched again, and forgets what is lent. */
  #abandon(): void {
    this.#classic.rewind(this.#waiting(FROM_CLASSIC));
    for (const [source, ring] of this.#rings.entries()) ring.abandon(this.#waiting(source)[0] ?? -1);
    this.chip.pool.releaseAll(this.#batch, this.#batchFrom, this.#batchTo);
    this.#batchFrom = 0;
    this.#batchTo = 0;
    this.#blocked = false;
    this.#returnedCount = 0;
    this.epoch = (this.epoch + 1) & TAG_EPOCH;
  }

  /** First descriptors of the frames from one source that wait for the port, in order. */
  #waiting(source: number): number[] {
    const list: number[] = [];
    for (let i = this.#batchFrom; i < this.#batchTo; i++)
      if (this.#batchSource[i] === source) list.push(this.#batchFirst[i]);
    return list;
  }

  /** The C+ descriptor that is fetched next, of the normal or the high priority ring. */
  ringIndex(source: number): number {
    return this.#rings[source].index;
  }

  get plus(): boolean {
    return (this.chip.bytes[CPCR] & CPCR_TX) !== 0;
  }

  get enabled(): boolean {
    return (this.chip.bytes[CR] & CR_TE) !== 0 && this.chip.dmaEnabled;
  }

  /** TCR.CRC: the driver's frames end with a frame check sequence of their own. */
  get withFcs(): boolean {
    return (this.chip.words[TCR >> 2] & TCR_CRC) !== 0;
  }

  /** The peer can take frames again. */
  peerReady(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    this.run();
  }

  // The pass.

  /** Sends what descriptors hold, as far as the port and this pass's budget go. */
  run(): void {
    if (this.#running || !this.enabled) return;
    this.#running = true;
    const epoch = this.epoch;
    try {
      this.#completeReturned();
      if (!this.#blocked && this.flush()) {
        if (this.plus) {
          if ((this.#polled & TPPOLL_HPQ) !== 0) this.#walk(FROM_HIGH, TPPOLL_HPQ);
          if ((this.#polled & TPPOLL_NPQ) !== 0 && epoch === this.epoch) this.#walk(FROM_NORMAL, TPPOLL_NPQ);
        } else if (!this.#classic.run()) {
          this.#poolExhausted();
        }
        if (!this.#blocked && epoch === this.epoch) this.flush();
      }
    } finally {
      this.#running = false;
    }
    const again = this.#returnedCount !== 0 || epoch !== this.epoch;
    if (again) this.#resumeNextTurn();
    const causes = this.#causes;
    this.#causes = 0;
    if (causes !== 0) this.chip.interrupts.raise(causes);
  }

  #walk(source: number, bit: number): void {
    if (this.#blocked) return;
    this.#polled &= ~bit;
    const end = this.#rings[source].walk();
    if (end === WALK_EMPTY) {
      this.#causes |= INT_TDU;
      // A doorbell rang meanwhile, for what this walk may not have seen.
      if ((this.#polled & bit) !== 0) this.#resumeNextTurn();
      return;
    }
    this.#polled |= bit;
    if (end === WALK_AGAIN) this.#resumeNextTurn();
    else if (end === WALK_NO_FRAME) this.#poolExhausted();
  }

  #resumeNextTurn(): void {
    if (this.#resumePosted) return;
    this.#resumePosted = true;
    this.chip.loop.post(this.#resume);
  }

  #poolExhausted(): void {
    this.chip.stats.txPoolExhausted++;
    if (!this.#retry.armed) this.#retry.armIn(POOL_RETRY_NS);
  }

  // The batch.

  /**
   * Takes a frame that is ready for the port. False: the batch is full and the port took nothing; the walk stops. `bytes`: what the driver
   * gave, with a tag, before padding.
   */
  push(frame: number, bytes: number, source: number, first: number, lent: boolean): boolean {
    const { pool } = this.chip;
    const t = pool.table;
    if (bytes < FRAME_MIN_BYTES) padFrame(pool, frame);
    const place = this.#batchTo;
    const segmentBytes = t[frame + FACTS] > 0xff ? t[frame + GSO_SIZE] : 0;
    if (segmentBytes === 0) {
      this.#batchSegments[place] = 1;
      this.#batchBytes[place] = t[frame + TOTAL];
    } else {
      const header = t[frame + HEADER_LENGTH];
      const segments = Math.ceil((bytes - header) / segmentBytes);
      this.#batchSegments[place] = segments;
      this.#batchBytes[place] = bytes + (segments - 1) * header;
    }
    this.#batch[place] = frame;
    this.#batchSource[place] = source;
    this.#batchFirst[place] = first;
    this.#batchLent[place] = lent ? 1 : 0;
    if (lent) {
      t[frame + TAG] = (this.epoch << TAG_EPOCH_SHIFT) | (source << TAG_RING_SHIFT) | first;
      this.chip.stats.txBorrowed++;
    }
    this.#batchTo = place + 1;
    return this.#batchTo < BATCH || this.flush();
  }

  /** A frame was dropped: its descriptors say that it failed. */
  failed(source: number, first: number): void {
    this.chip.tally.txError++;
    this.#causes |= INT_TER;
    if (source === FROM_CLASSIC) this.#classic.complete(first, false);
    else this.#rings[source].complete(first, false);
  }

  /** Offers the batch to the port, or to the receiver in loopback. True when nothing is left of it. */
  flush(): boolean {
    const from = this.#batchFrom;
    const to = this.#batchTo;
    if (from === to) return true;
    const { stats, tally, loopback, pool } = this.chip;
    const port = this.port;
    const epoch = this.epoch;
    let taken = to - from;
    // While they are offered the frames are nobody's here: a reset from within must not release them.
    this.#batchFrom = 0;
    this.#batchTo = 0;
    if (loopback || port === null) this.#receiver.loopBack(this.#batch, from, to);
    else taken = port.send(this.#batch, from, to);
    if (epoch !== this.epoch) {
      pool.releaseAll(this.#batch, from + taken, to);
      return false;
    }
    const end = from + taken;
    if (end < to) {
      this.#batchFrom = end;
      this.#batchTo = to;
      this.#blocked = true;
    }
    let sentFrames = 0;
    let sentBytes = 0;
    // Completion writes to guest memory, which may be remote, and a reset may come in meanwhile.
    for (let i = from; i < end && epoch === this.epoch; i++) {
      sentFrames += this.#batchSegments[i];
      sentBytes += this.#batchBytes[i];
      if (this.#batchLent[i] !== 0) continue;
      this.#causes |= INT_TOK;
      const source = this.#batchSource[i];
      if (source === FROM_CLASSIC) this.#classic.complete(this.#batchFirst[i], true);
      else this.#rings[source].complete(this.#batchFirst[i], true);
    }
    stats.txFrames += sentFrames;
    stats.txBytes += sentBytes;
    tally.txOk += sentFrames;
    return end === to && epoch === this.epoch;
  }

  /** The last holder of a lent frame released it. */
  returned(tag: number): void {
    if (tag >>> TAG_EPOCH_SHIFT !== this.epoch) return;
    this.#returned[this.#returnedCount++] = tag;
    this.#resumeNextTurn();
  }

  #completeReturned(): void {
    const count = this.#returnedCount;
    if (count === 0) return;
    this.#returnedCount = 0;
    for (let i = 0; i < count; i++) {
      const tag = this.#returned[i];
      this.#rings[(tag >>> TAG_RING_SHIFT) & 1].complete(tag & TAG_FIRST, true);
    }
    this.#causes |= INT_TOK;
  }

  // Save and restore.

  /** Frames that wait for the port are in the driver's descriptors: they are fetched again. Lent ones are on their way. */
  save(): SavedTransmitter {
    const unsent = this.#batchFrom !== this.#batchTo && this.plus;
    return {
      polled: this.#polled | (unsent ? TPPOLL_NPQ | TPPOLL_HPQ : 0),
      classic: this.#classic.save(this.#waiting(FROM_CLASSIC)),
      rings: this.#rings.map((ring, source) => ring.save(this.#waiting(source)[0] ?? -1)),
    };
  }

  /** Takes a saved state whose shape was checked; registers are restored before. */
  load(state: SavedTransmitter): void {
    this.reset();
    this.#polled = state.polled & (TPPOLL_NPQ | TPPOLL_HPQ);
    this.#classic.load(state.classic);
    for (const [source, ring] of this.#rings.entries()) {
      for (const first of ring.load(state.rings[source])) {
        this.#returned[this.#returnedCount++] =
          (this.epoch << TAG_EPOCH_SHIFT) | (source << TAG_RING_SHIFT) | first;
      }
    }
    this.#resumeNextTurn();
  }
}

/**
 * The classic transmitter (RTL8139C datasheet, "Transmit Status of Descriptors"): four descriptors in registers, each one buffer of at most 1792 bytes,
 * sent in turn from 0 on. A write to TSD with OWN clear hands the buffer to the device; OWN and TOK say that it is the driver's again.
 */

import { HEADER_BYTES } from '../frame-size.ts';
import { NOT_RAM, TxParts } from '../tx-parts.ts';
import { TSAD, TSD, TSD_OWN, TSD_SIZE, TSD_TABT, TSD_TOK, TSD_TUN } from './registers.ts';
import type { SavedTransmitter } from './state.ts';
import { FROM_CLASSIC, type Transmitter } from './tx.ts';

const DESCRIPTORS = 4;
const BUFFER_MAX_BYTES = 1792;
const FCS_BYTES = 4;

export class ClassicTransmitter {
  readonly #tx: Transmitter;
  readonly #parts: TxParts;
  /** The descriptor that is next in turn; a bit for each one that is the device's and not fetched. */
  #next = 0;
  #pending = 0;

  constructor(tx: Transmitter) {
    this.#tx = tx;
    this.#parts = new TxParts(tx.chip.memory, tx.chip.pool, 1);
  }

  reset(): void {
    this.#next = 0;
    this.#pending = 0;
  }

  /** TSD was written: its size and OWN are in the register. */
  statusWritten(index: number): void {
    if ((this.#tx.chip.words[(TSD >> 2) + index] & TSD_OWN) === 0) this.#pending |= 1 << index;
    else this.#pending &= ~(1 << index);
  }

  /** Frames of these descriptors, the oldest first, were fetched and not sent: they are in turn again. */
  rewind(waiting: readonly number[]): void {
    if (waiting.length > 0) this.#next = waiting[0];
    for (const index of waiting) this.#pending |= 1 << index;
  }

  /** Fetches what is in turn; false: no frame could be allocated. */
  run(): boolean {
    const tx = this.#tx;
    const { words, pool, stats } = tx.chip;
    const parts = this.#parts;
    for (let steps = 0; steps < DESCRIPTORS; steps++) {
      const index = this.#next;
      if ((this.#pending & (1 << index)) === 0) return true;
      let bytes = words[(TSD >> 2) + index] & TSD_SIZE;
      if (tx.withFcs && bytes >= FCS_BYTES) bytes -= FCS_BYTES;
      let frame = 0;
      if (bytes < HEADER_BYTES) {
        stats.txDropRunt++;
      } else if (bytes > BUFFER_MAX_BYTES) {
        stats.txDropTooLong++;
      } else {
        parts.clear();
        parts.add(words[(TSAD >> 2) + index] >>> 0, bytes);
        const epoch = tx.epoch;
        frame = parts.gather(0, 0);
        if (frame === 0) return false;
        if (epoch !== tx.epoch) {
          if (frame !== NOT_RAM) pool.release(frame);
          return true;
        }
        if (frame === NOT_RAM) {
          stats.txDropBadAddress++;
          tx.chip.badAddress();
          frame = 0;
        }
      }
      this.#pending &= ~(1 << index);
      this.#next = (index + 1) % DESCRIPTORS;
      if (frame === 0) tx.failed(FROM_CLASSIC, index);
      else if (!tx.push(frame, bytes, FROM_CLASSIC, index, false)) return true;
    }
    return true;
  }

  /** Descriptor `index` is the driver's again. */
  complete(index: number, ok: boolean): void {
    const word = (TSD >> 2) + index;
    const kept = this.#tx.chip.words[word] & ~(TSD_TOK | TSD_TUN | TSD_TABT);
    this.#tx.chip.words[word] = kept | TSD_OWN | (ok ? TSD_TOK : TSD_TABT);
    if (!ok) this.#tx.chip.tally.txAbort++;
  }

  /** `waiting`: descriptors of frames that wait for the port, in order. */
  save(waiting: readonly number[]): SavedTransmitter['classic'] {
    let pending = this.#pending;
    for (const index of waiting) pending |= 1 << index;
    return { next: waiting.length > 0 ? waiting[0] : this.#next, pending };
  }

  load(state: SavedTransmitter['classic']): void {
    this.#next = state.next;
    this.#pending = state.pending;
  }
}

/**
 * A connection's timers: five deadlines behind one timer of the loop. Moving a deadline away (as each acknowledgement does to the
 * retransmission timeout) only stores a number: the loop's timer fires at the old time, finds nothing due and is armed anew. So 10,000
 * busy connections touch the heap a few times a second each, not at every segment. Times are microseconds of the clock.
 */

import type { Loop, Timer } from '../core/loop.ts';

export const RETRANSMIT = 0;
export const DELAYED_ACK = 1;
export const KEEP_ALIVE = 2;
/** The end of a state: handshake, TIME_WAIT. */
export const LIFE = 3;
/** A tail to probe, or a hole whose time for reordering ends (loss-times.ts). */
export const PROBE = 4;

export class Timers {
  retransmitUs = Number.POSITIVE_INFINITY;
  delayedAckUs = Number.POSITIVE_INFINITY;
  keepAliveUs = Number.POSITIVE_INFINITY;
  lifeUs = Number.POSITIVE_INFINITY;
  probeUs = Number.POSITIVE_INFINITY;
  readonly #timer: Timer;
  #armedUs = Number.POSITIVE_INFINITY;

  /** `owner.due` is told which deadline passed; the deadline is cleared before. */
  constructor(loop: Loop, owner: { due(kind: number): void }) {
    this.#timer = loop.timer(() => {
      const nowUs = loop.clock.nowNs() / 1000;
      this.#armedUs = Number.POSITIVE_INFINITY;
      for (let kind = RETRANSMIT; kind <= PROBE; kind++) {
        if (this.get(kind) <= nowUs) {
          this.#put(kind, Number.POSITIVE_INFINITY);
          owner.due(kind);
        }
      }
      this.#arm();
    });
  }

  get(kind: number): number {
    if (kind === RETRANSMIT) return this.retransmitUs;
    if (kind === DELAYED_ACK) return this.delayedAckUs;
    if (kind === KEEP_ALIVE) return this.keepAliveUs;
    return kind === LIFE ? this.lifeUs : this.probeUs;
  }

  #put(kind: number, atUs: number): void {
    if (kind === RETRANSMIT) this.retransmitUs = atUs;
    else if (kind === DELAYED_ACK) this.delayedAckUs = atUs;
    else if (kind === KEEP_ALIVE) this.keepAliveUs = atUs;
    else if (kind === LIFE) this.lifeUs = atUs;
    else this.probeUs = atUs;
  }

  /** Moves a deadline; Infinity: none. */
  set(kind: number, atUs: number): void {
    this.#put(kind, atUs);
    if (atUs < this.#armedUs) {
      this.#armedUs = atUs;
      this.#timer.arm(Math.ceil(atUs * 1000));
    }
  }

  #arm(): void {
    const next = Math.min(this.retransmitUs, this.delayedAckUs, this.keepAliveUs, this.lifeUs, this.probeUs);
    if (next >= this.#armedUs) return;
    this.#armedUs = next;
    this.#timer.arm(Math.ceil(next * 1000));
  }

  cancelAll(): void {
    this.retransmitUs = Number.POSITIVE_INFINITY;
    this.delayedAckUs = Number.POSITIVE_INFINITY;
    this.keepAliveUs = Number.POSITIVE_INFINITY;
    this.lifeUs = Number.POSITIVE_INFINITY;
    this.probeUs = Number.POSITIVE_INFINITY;
    this.#armedUs = Number.POSITIVE_INFINITY;
    this.#timer.cancel();
  }
}

/**
 * Interrupt causes and their moderation (8254x manual, sections 3.2.7, 3.4.3 and 13.4.17 to 13.4.21).
 *
 *   cause → ICR ── & IMS ──▶ throttle (ITR) ──▶ the pin
 *
 * Three kinds of delay come before: a transmitted descriptor with IDE waits TIDV after the last one, at most TADV after the first; a received packet waits RDTR
 * after the last one, at most RADV after the first; and ITR keeps two assertions at least that far apart. All are timers of the
 * loop. With `mitigation` off every cause is told at once.
 */

import type { Loop, Timer } from '../../core/loop.ts';
import { ICR, IMS, INT_RXT0, INT_TXDW, ITR, RADV, RDTR, TADV, TIDV } from './registers.ts';

const DELAY_UNIT_NS = 1024;
const THROTTLE_UNIT_NS = 256;
const CAUSES = 0x1ffff;

export class Interrupts {
  readonly #regs: Int32Array;
  readonly #loop: Loop;
  readonly #mitigation: boolean;
  readonly #setPin: (level: boolean) => void;
  readonly #txDelay: Timer;
  readonly #txAbsolute: Timer;
  readonly #rxDelay: Timer;
  readonly #rxAbsolute: Timer;
  readonly #throttle: Timer;
  #pin = false;
  #nextNs = 0;
  /** How often the pin was raised. */
  raised = 0;

  constructor(regs: Int32Array, loop: Loop, mitigation: boolean, setPin: (level: boolean) => void) {
    this.#regs = regs;
    this.#loop = loop;
    this.#mitigation = mitigation;
    this.#setPin = setPin;
    const flushTx = (): void => this.raise(INT_TXDW);
    const flushRx = (): void => this.raise(INT_RXT0);
    this.#txDelay = loop.timer(flushTx);
    this.#txAbsolute = loop.timer(flushTx);
    this.#rxDelay = loop.timer(flushRx);
    this.#rxAbsolute = loop.timer(flushRx);
    this.#throttle = loop.timer(() => this.update());
  }

  /** Sets causes and moves the pin as masks and throttle allow. */
  raise(causes: number): void {
    if ((causes & INT_TXDW) !== 0) this.#cancel(this.#txDelay, this.#txAbsolute);
    if ((causes & INT_RXT0) !== 0) this.#cancel(this.#rxDelay, this.#rxAbsolute);
    this.#regs[ICR >> 2] |= causes & CAUSES;
    this.update();
  }

  #cancel(delay: Timer, absolute: Timer): void {
    if (delay.place >= 0) delay.cancel();
    if (absolute.place >= 0) absolute.cancel();
  }

  /** Descriptors that asked for a report were written back, all of them with IDE. */
  raiseTxDelayed(): void {
    this.#delayed(INT_TXDW, this.#regs[TIDV >> 2], this.#regs[TADV >> 2], this.#txDelay, this.#txAbsolute);
  }

  /** Packets were received. */
  raiseRx(): void {
    this.#delayed(INT_RXT0, this.#regs[RDTR >> 2], this.#regs[RADV >> 2], this.#rxDelay, this.#rxAbsolute);
  }

  #delayed(cause: number, units: number, absoluteUnits: number, delay: Timer, absolute: Timer): void {
    if (units === 0 || !this.#mitigation) {
      this.raise(cause);
      return;
    }
    delay.armIn(units * DELAY_UNIT_NS);
    if (absoluteUnits !== 0 && absolute.place < 0) absolute.armIn(absoluteUnits * DELAY_UNIT_NS);
  }

  /** RDTR.FPD: what waits is told now. */
  flushRx(): void {
    if (this.#rxDelay.armed || this.#rxAbsolute.armed) this.raise(INT_RXT0);
  }

  flushTx(): void {
    if (this.#txDelay.armed || this.#txAbsolute.armed) this.raise(INT_TXDW);
  }

  /** ICR read: the causes, which are then cleared. */
  readCauses(): number {
    const causes = this.#regs[ICR >> 2];
    this.#regs[ICR >> 2] = 0;
    this.update();
    return causes;
  }

  /** ICR written: ones clear. */
  clearCauses(causes: number): void {
    this.#regs[ICR >> 2] &= ~causes;
    this.update();
  }

  setMask(bits: number): void {
    this.#regs[IMS >> 2] |= bits & CAUSES;
    this.update();
  }

  clearMask(bits: number): void {
    this.#regs[IMS >> 2] &= ~bits;
    this.update();
  }

  /** Brings the pin to what causes, masks and throttle say. */
  update(): void {
    const pending = (this.#regs[ICR >> 2] & this.#regs[IMS >> 2]) !== 0;
    if (!pending) {
      if (this.#throttle.place >= 0) this.#throttle.cancel();
      if (this.#pin) {
        this.#pin = false;
        this.#setPin(false);
      }
      return;
    }
    if (this.#pin) return;
    const interval = this.#regs[ITR >> 2];
    if (interval !== 0 && this.#mitigation) {
      const nowNs = this.#loop.clock.nowNs();
      if (nowNs < this.#nextNs) {
        if (this.#throttle.place < 0) this.#throttle.arm(this.#nextNs);
        return;
      }
      this.#nextNs = nowNs + interval * THROTTLE_UNIT_NS;
    }
    this.#pin = true;
    this.raised++;
    this.#setPin(true);
  }

  reset(): void {
    this.#cancel(this.#txDelay, this.#txAbsolute);
    this.#cancel(this.#rxDelay, this.#rxAbsolute);
    this.#throttle.cancel();
    this.#nextNs = 0;
    this.#regs[ICR >> 2] = 0;
    this.#regs[IMS >> 2] = 0;
    this.update();
  }

  /** Time left on the timers, -1 for one that is not armed: tx, tx absolute, rx, rx absolute; and until the throttle opens. */
  save(): number[] {
    const nowNs = this.#loop.clock.nowNs();
    const left = [this.#txDelay, this.#txAbsolute, this.#rxDelay, this.#rxAbsolute].map((timer) =>
      timer.armed ? Math.max(0, timer.deadlineNs - nowNs) : -1,
    );
    left.push(Math.max(0, this.#nextNs - nowNs));
    return left;
  }

  /** Takes a saved state whose shape was checked; registers are restored before. */
  load(state: readonly number[]): void {
    const timers = [this.#txDelay, this.#txAbsolute, this.#rxDelay, this.#rxAbsolute];
    const longestNs = 0xffff * DELAY_UNIT_NS;
    for (const [i, timer] of timers.entries()) {
      timer.cancel();
      if (state[i] >= 0) timer.armIn(Math.min(state[i], longestNs));
    }
    this.#throttle.cancel();
    this.#nextNs = this.#loop.clock.nowNs() + Math.min(Math.max(0, state[4]), longestNs);
    this.#pin = false;
    this.#setPin(false);
    this.update();
  }
}

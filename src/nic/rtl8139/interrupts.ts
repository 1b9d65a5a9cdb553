/**
 * Interrupt causes (ISR, IMR) and the timer that is one of them: TCTR counts PCI clocks of 33 MHz from the last write to it, and TimeOut is raised
 * whenever it passes TimerInt's value (datasheet, "Timer Count Register"). Both live on the loop's clock; nothing ticks in between.
 */

import type { Loop, Timer } from '../../core/loop.ts';
import { IMR, INT_TIMEOUT, ISR } from './registers.ts';

const TICKS_PER_NS = 0.033;
const TICKS_WRAP = 2 ** 32;
const CAUSES = 0xe1ff;

export class Interrupts {
  readonly #halves: Uint16Array;
  readonly #loop: Loop;
  readonly #setPin: (level: boolean) => void;
  readonly #timer: Timer;
  #pin = false;
  #zeroNs = 0;
  #compare = 0;

  /** `halves`: the register file by 16-bit halves. */
  constructor(halves: Uint16Array, loop: Loop, setPin: (level: boolean) => void) {
    this.#halves = halves;
    this.#loop = loop;
    this.#setPin = setPin;
    this.#timer = loop.timer(() => {
      this.#armNext();
      this.raise(INT_TIMEOUT);
    });
    this.#zeroNs = loop.clock.nowNs();
  }

  raise(causes: number): void {
    this.#halves[ISR >> 1] |= causes & CAUSES;
    this.update();
  }

  /** ISR written: ones clear. */
  clear(causes: number): void {
    this.#halves[ISR >> 1] &= ~causes;
    this.update();
  }

  /** Brings the pin to what causes and mask say. */
  update(): void {
    const level = (this.#halves[ISR >> 1] & this.#halves[IMR >> 1]) !== 0;
    if (level === this.#pin) return;
    this.#pin = level;
    this.#setPin(level);
  }

  // The timer.

  /** TCTR. */
  get count(): number {
    return Math.floor((this.#loop.clock.nowNs() - this.#zeroNs) * TICKS_PER_NS) % TICKS_WRAP;
  }

  /** TCTR was written. */
  zero(): void {
    this.#zeroNs = this.#loop.clock.nowNs();
    this.#armNext();
  }

  /** TimerInt was written. */
  set compare(value: number) {
    this.#compare = value >>> 0;
    this.#armNext();
  }

  #armNext(): void {
    if (this.#compare === 0) {
      this.#timer.cancel();
      return;
    }
    const ticks = (this.#loop.clock.nowNs() - this.#zeroNs) * TICKS_PER_NS;
    // One half tick of slack: when the timer has fired for this lap, it is the next one's turn.
    const lap = Math.floor((ticks - this.#compare + 0.5) / TICKS_WRAP) + 1;
    this.#timer.arm(this.#zeroNs + (this.#compare + Math.max(0, lap) * TICKS_WRAP) / TICKS_PER_NS);
  }

  reset(): void {
    this.#halves[ISR >> 1] = 0;
    this.#halves[IMR >> 1] = 0;
    this.#compare = 0;
    this.zero();
    this.update();
  }

  close(): void {
    this.#timer.cancel();
  }

  save(): number {
    return this.count;
  }

  /** Takes a saved TCTR; registers are restored before. */
  load(count: number, compare: number): void {
    this.#zeroNs = this.#loop.clock.nowNs() - count / TICKS_PER_NS;
    this.compare = compare;
    this.#pin = false;
    this.#setPin(false);
    this.update();
  }
}

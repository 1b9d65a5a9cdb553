/**
 * The loop driver: runs a core/loop Loop whenever it has work, on the host's time. An implementation of host I/O calls `turn` after each
 * batch of readiness events; between those the driver is woken by an immediate (for posted tasks) or by one wake-up timer (for the
 * earliest deadline), which it moves only when a deadline comes nearer: one that fires too early costs a turn that does nothing.
 *
 * A turn runs the loop again while tasks are waiting, but at most RUNS_PER_TURN times; then the rest of the process has its turn.
 */

import { VirtualClock } from '../core/clock.ts';
import type { Loop } from '../core/loop.ts';

const RUNS_PER_TURN = 8;

/** Where tasks for the next turn of the host's own loop go: Node's globals are one. */
export interface Immediates {
  setImmediate(run: () => void): unknown;
  clearImmediate(immediate: unknown): void;
}

/** Fires `wake` once after `delayNs`; Infinity disarms. */
export type ArmTimer = (delayNs: number) => void;

export class LoopDriver {
  readonly loop: Loop;
  readonly #arm: ArmTimer;
  readonly #soon: () => void;
  readonly #immediates: Immediates;
  readonly #isVirtual: boolean;
  #armedNs = Number.POSITIVE_INFINITY;
  /** What setImmediate returned, or null: none is due. */
  #immediate: unknown = null;
  #turning = false;
  #stopped = false;

  constructor(loop: Loop, arm: ArmTimer, immediates: Immediates = globalThis as unknown as Immediates) {
    this.loop = loop;
    this.#arm = arm;
    this.#immediates = immediates;
    this.#isVirtual = loop.clock instanceof VirtualClock;
    this.#soon = () => {
      this.#immediate = null;
      this.turn();
    };
    loop.onWork = () => {
      if (!this.#turning) this.#schedule();
    };
    this.#schedule();
  }

  /** The wake-up timer fired: whatever was armed is armed no more. */
  timerFired(): void {
    this.#armedNs = Number.POSITIVE_INFINITY;
  }

  /** True when an immediate is due, so that nobody should wait for readiness meanwhile. */
  get busy(): boolean {
    return this.#immediate !== null;
  }

  /** Holds back onWork's scheduling: a batch of events is being told, and a turn follows. */
  hold(): void {
    this.#turning = true;
  }

  turn(): void {
    if (this.#stopped) return;
    this.#turning = true;
    try {
      for (let runs = 0; runs < RUNS_PER_TURN; runs++) {
        this.loop.run();
        if (this.loop.nextNs !== Number.NEGATIVE_INFINITY) break;
      }
    } finally {
      this.#turning = false;
      this.#schedule();
    }
  }

  #schedule(): void {
    if (this.#stopped) return;
    const nextNs = this.#nextNs();
    if (nextNs === Number.NEGATIVE_INFINITY) {
      this.#immediate ??= this.#immediates.setImmediate(this.#soon);
      return;
    }
    if (nextNs === Number.POSITIVE_INFINITY) {
      // An armed timer would keep the process alive for nothing.
      if (this.#armedNs !== Number.POSITIVE_INFINITY) {
        this.#armedNs = Number.POSITIVE_INFINITY;
        this.#arm(Number.POSITIVE_INFINITY);
      }
    } else if (nextNs < this.#armedNs) {
      this.#armedNs = nextNs;
      this.#arm(Math.max(0, nextNs - this.loop.clock.nowNs()));
    }
  }

  /** A virtual clock does not move while anybody waits: who moves it runs what is due. */
  #nextNs(): number {
    const { nextNs } = this.loop;
    if (!this.#isVirtual || nextNs === Number.NEGATIVE_INFINITY) return nextNs;
    return nextNs <= this.loop.clock.nowNs() ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.loop.onWork = null;
    if (this.#immediate !== null) this.#immediates.clearImmediate(this.#immediate);
    this.#immediate = null;
    if (this.#armedNs !== Number.POSITIVE_INFINITY) this.#arm(Number.POSITIVE_INFINITY);
  }
}

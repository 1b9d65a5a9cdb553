/**
 * Notification coalescing (virtio 1.3, section 5.1.6.5.9): an interrupt waits until so many packets have been used since the last one, or so much time has passed
 * since the first of them. One for each queue; the parameters are shared by all transmit and all receive queues.
 */

import type { Loop, Timer } from '../../core/loop.ts';

export interface CoalesceParameters {
  /** 0: every packet is told at once. */
  maxNs: number;
  maxPackets: number;
}

export class Coalescer {
  readonly #parameters: CoalesceParameters;
  readonly #fire: () => void;
  readonly #timer: Timer;
  #packets = 0;
  /** The driver wants to hear of what was used. */
  #wanted = false;

  constructor(loop: Loop, parameters: CoalesceParameters, fire: () => void) {
    this.#parameters = parameters;
    this.#fire = fire;
    this.#timer = loop.timer(() => this.flush());
  }

  /** `count` packets were used; `wanted`: the driver asks to be told. What follows counts towards the same interrupt. */
  used(count: number, wanted: boolean): void {
    const { maxNs, maxPackets } = this.#parameters;
    if (maxNs === 0) {
      if (wanted) this.#fire();
      return;
    }
    if (wanted) this.#wanted = true;
    if (!this.#wanted) return;
    this.#packets += count;
    if (this.#packets >= maxPackets) this.flush();
    else if (!this.#timer.armed) this.#timer.armIn(maxNs);
  }

  /** What waits is told now. */
  flush(): void {
    this.reset();
    this.#fire();
  }

  reset(): void {
    this.#timer.cancel();
    this.#packets = 0;
    this.#wanted = false;
  }
}

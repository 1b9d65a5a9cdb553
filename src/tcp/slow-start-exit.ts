/**
 * When slow start should end before it has filled somebody's queue to the brim (HyStart++, RFC 9406 section 4.2): the shortest round trip among the
 * first samples of a round is clearly longer than that of the round before, so a queue is growing. Congestion avoidance follows at once,
 * without the RFC's conservative slow start in between.
 */

const SAMPLES = 8;
const MIN_STEP_US = 4000;
const MAX_STEP_US = 16_000;
const NEVER_US = 0x7fff_ffff;

export class SlowStartExit {
  #roundEnd = 0;
  #samples = 0;
  #minUs = NEVER_US;
  #lastMinUs = 0;

  /** One round trip was measured, by the acknowledgement of what lies before `ack`, with SND.NXT `next`. True: a queue grows. */
  sample(us: number, ack: number, next: number): boolean {
    if (((ack - this.#roundEnd) | 0) >= 0 || this.#lastMinUs === 0) {
      this.#lastMinUs = this.#samples > 0 ? this.#minUs : us;
      this.#roundEnd = next;
      this.#samples = 0;
      this.#minUs = NEVER_US;
    }
    if (us < this.#minUs) this.#minUs = us;
    const step = Math.max(MIN_STEP_US, Math.min(this.#lastMinUs >> 3, MAX_STEP_US));
    return ++this.#samples >= SAMPLES && this.#minUs >= this.#lastMinUs + step;
  }
}

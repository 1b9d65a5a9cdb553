/**
 * The retransmission timeout (RFC 6298), in microseconds: smoothed round-trip time plus four deviations, between the settings' bounds, doubled
 * at each expiry (5.5). All are whole microseconds: small integers to the engine. Samples come from segments sent once (Karn's rule, section 3), so timestamps are not needed for it.
 */

export class RoundTrip {
  /** 0: no sample yet. */
  smoothedUs = 0;
  variationUs = 0;
  /** The shortest round trip; 0: no sample yet. */
  minUs = 0;
  /** The timeout now, backoff included. */
  timeoutUs: number;
  /** Expiries since the last sample or new acknowledgement. */
  backoffs = 0;
  readonly #floorUs: number;
  readonly #ceilingUs: number;
  #baseUs: number;

  constructor(initialNs: number, minNs: number, maxNs: number) {
    this.#baseUs = Math.ceil(initialNs / 1000);
    this.timeoutUs = this.#baseUs;
    this.#floorUs = Math.ceil(minNs / 1000);
    this.#ceilingUs = Math.ceil(maxNs / 1000);
  }

  /** One measured round trip. */
  sample(us: number): void {
    us = Math.min(us, this.#ceilingUs);
    if (this.minUs === 0 || us < this.minUs) this.minUs = Math.max(1, us);
    if (this.smoothedUs === 0) {
      this.smoothedUs = Math.max(1, us);
      this.variationUs = us >> 1;
    } else {
      this.variationUs = (3 * this.variationUs + Math.abs(this.smoothedUs - us) + 2) >> 2;
      this.smoothedUs = (7 * this.smoothedUs + us + 4) >> 3;
    }
    this.#baseUs = this.smoothedUs + Math.max(1000, 4 * this.variationUs);
    this.progress();
  }

  /** New data was acknowledged: no backoff any more. */
  progress(): void {
    this.backoffs = 0;
    this.timeoutUs = Math.min(Math.max(this.#baseUs, this.#floorUs), this.#ceilingUs);
  }

  /** The timer expired: twice the time for the next (RFC 6298 5.5). */
  backOff(): void {
    this.backoffs++;
    this.timeoutUs = Math.min(this.timeoutUs * 2, this.#ceilingUs);
  }
}

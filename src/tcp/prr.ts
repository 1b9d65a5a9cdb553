/**
 * Proportional rate reduction (RFC 6937): how much may be sent during a fast recovery. Each acknowledgement that tells of delivered bytes lets out a
 * proportional share, so that by the recovery's end as much is in flight as congestion control wants, without the half round trip of silence
 * after a loss that halving the window at once brings, and without a burst at its end. Below that goal the slow-start part ("PRR-SSRB")
 * catches up by at most one segment more than was delivered. Bytes throughout.
 */

export class Prr {
  /** What may be in the network now. */
  windowBytes = 0;
  #flightBytes = 1;
  #deliveredBytes = 0;
  #sentBytes = 0;

  /** A recovery begins, or begins anew, with `flightBytes` sent and not acknowledged ("RecoverFS"). */
  start(flightBytes: number): void {
    this.#flightBytes = Math.max(1, flightBytes);
    this.#deliveredBytes = 0;
    this.#sentBytes = 0;
    this.windowBytes = 0;
  }

  /**
   * An acknowledgement told of `bytes` newly delivered, in order or not, while `pipeBytes` are in the network; `goalBytes` is the window that
   * congestion control wants ("ssthresh").
   */
  delivered(bytes: number, pipeBytes: number, goalBytes: number, segmentBytes: number): void {
    this.#deliveredBytes += bytes;
    let more: number;
    if (pipeBytes > goalBytes) {
      more = Math.ceil((this.#deliveredBytes * goalBytes) / this.#flightBytes) - this.#sentBytes;
    } else {
      const limit = Math.max(this.#deliveredBytes - this.#sentBytes, bytes) + segmentBytes;
      more = Math.min(goalBytes - pipeBytes, limit);
    }
    this.windowBytes = pipeBytes + Math.max(0, more);
  }

  /** `bytes` went out, first or again. */
  sent(bytes: number): void {
    this.#sentBytes += bytes;
  }
}

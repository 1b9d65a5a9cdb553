/**
 * What time says about losses (RFC 8985): when a segment that the peer did not name counts as lost because one sent later has arrived (RACK), and
 * when the end of a flight that nothing answers is probed (TLP). This file knows the times; the sender knows the segments.
 *
 * RACK here: a hole below what arrived is lost once as much time passed since it was sent as the later segment took, and the time that
 * reordering may take on top: a quarter of the shortest round trip at first, none once three segments arrived beyond it or a recovery
 * runs, unless this peer's link was seen to reorder; then it is the time alone that decides, and each needless retransmission (D-SACK, RFC 2883)
 * adds a quarter, to one round trip.
 *
 * TLP here: two round trips after the last thing sent or acknowledged, the last segment (or a new one, if there is any) goes out, so that the loss
 * of a tail is told by SACK and not by the retransmission timeout. One probe at a time; PROBE_MIN_US keeps the timer from running at each round trip of
 * a fast link, and a lone segment waits for the peer's delayed acknowledgement as well.
 */

/** Linux delays an acknowledgement by 40 ms at least, the BSDs by 100; a probe that is early costs one segment. */
const MAX_ACK_DELAY_US = 100_000;
const PROBE_MIN_US = 10_000;
/** The least time given to reordering: frames of one flow may take different queues, and timers are not finer. */
const REORDER_MIN_US = 1000;
/** Recoveries after which a widened time goes back (RFC 8985 section 6.2 step 4). */
const KEEP_RECOVERIES = 16;

export class LossTimes {
  /** The round trip of what arrived last, in order of sending (RACK.rtt). */
  roundTripUs = 0;
  /** The link was seen to deliver what was sent earlier after what was sent later. */
  reorders = false;
  /** One probe is out: up to its SND.NXT `probeEnd`. */
  probing = false;
  probeEnd = 0;
  /** The probe repeats what was sent before. */
  probeRepeats = false;
  #steps = 1;
  #keep = 0;
  #widenedAt = 0;

  /** How long after `roundTripUs` a segment may still be under way. `minUs`: the shortest round trip seen; `smoothedUs`: the usual one. */
  reorderUs(minUs: number, smoothedUs: number): number {
    return Math.max(REORDER_MIN_US, Math.min((this.#steps * minUs) >> 2, smoothedUs));
  }

  /** The peer got something twice. `una` marks the round: the time widens once in each. */
  spurious(una: number, next: number): void {
    if (((una - this.#widenedAt) | 0) < 0 && this.#steps > 1) return;
    this.#widenedAt = next;
    this.#steps++;
    this.#keep = KEEP_RECOVERIES;
  }

  recoveryEnded(): void {
    if (this.#keep > 0 && --this.#keep === 0) this.#steps = 1;
  }

  /** How long after now the tail of `flightBytes` is probed. */
  probeDelayUs(smoothedUs: number, flightBytes: number, segmentBytes: number): number {
    const delay = Math.max(2 * smoothedUs, PROBE_MIN_US);
    return flightBytes <= segmentBytes ? delay + MAX_ACK_DELAY_US : delay;
  }
}

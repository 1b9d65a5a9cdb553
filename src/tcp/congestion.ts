/**
 * Congestion control: slow start and congestion avoidance (RFC 5681) with CUBIC's growth (RFC 9438), in bytes. Loss takes the window to
 * 0.7 of what was in flight, a timeout to one segment. CUBIC and not plain Reno because a link that filter-netem delays and thins has a long
 * round trip, where Reno's one segment a trip never fills the pipe again; CUBIC's Reno-friendly bound makes it no worse on short ones.
 * On an undisturbed virtual link nothing is lost (backpressure takes the place of drops), and the window just grows to its cap.
 *
 * One thing differs from these RFCs, on purpose. The link to the guest is a virtual one that no other host's traffic shares. Where frames vanish
 * on it although no queue has built up (the round trip is as short as it ever was) and they are few, that is no congestion but a
 * loss that somebody asked for (filter-netem), and a window cut for it would leave the link idle: at 1 % loss CUBIC keeps about 12 segments in
 * flight, whatever the link holds. Such a "quiet" loss leaves the window as it is; it becomes an ordinary one when it turns out at the recovery's
 * end that more than a sixteenth was lost, when a retransmission is lost as well, or the timer has to expire.
 */

const CUBIC_C = 0.4;
const BETA = 0.7;
/** RFC 9438 section 4.3: additive increase that matches Reno's throughput with this beta. */
const ALPHA = (3 * (1 - BETA)) / (1 + BETA);
const WINDOW_CAP_BYTES = 1 << 24;
/** The shortest round trip over the present one: from here on there is no queue worth the name. */
const QUIET_RATIO = 0.8;

export class Congestion {
  windowBytes: number;
  thresholdBytes = WINDOW_CAP_BYTES;
  /** The recovery under way is for a loss without a queue: the window stays, and goes on growing. */
  quiet = false;
  readonly #initialSegments: number;
  #segmentBytes: number;
  /** In flight when the recovery under way began. */
  #lossFlightBytes = 0;
  /** The window before the last reduction, the start of the current growth (0: not yet), the time CUBIC takes back to it, Reno's window. */
  #maximum = 0;
  #epochUs = 0;
  #k = 0;
  #reno = 0;

  constructor(initialSegments: number, segmentBytes: number) {
    this.#initialSegments = initialSegments;
    this.#segmentBytes = segmentBytes;
    this.windowBytes = initialSegments * segmentBytes;
  }

  /** The segment size became known in the handshake. */
  start(segmentBytes: number): void {
    this.#segmentBytes = segmentBytes;
    this.windowBytes = this.#initialSegments * segmentBytes;
  }

  /** The path turned out narrower: the window keeps its bytes. */
  setSegment(segmentBytes: number): void {
    this.#segmentBytes = segmentBytes;
  }

  /** `bytes` were newly acknowledged outside recovery, or in a quiet one, while the window was the limit. */
  acknowledged(bytes: number, nowUs: number, roundTripUs: number): void {
    if (this.windowBytes >= WINDOW_CAP_BYTES) return;
    if (this.windowBytes < this.thresholdBytes) {
      this.windowBytes = Math.min(this.windowBytes + bytes, this.thresholdBytes);
      return;
    }
    const segment = this.#segmentBytes;
    const window = this.windowBytes;
    if (this.#epochUs === 0) {
      this.#epochUs = nowUs;
      this.#reno = window;
      if (window < this.#maximum) this.#k = Math.cbrt((this.#maximum - window) / segment / CUBIC_C);
      else {
        this.#k = 0;
        this.#maximum = window;
      }
    }
    const seconds = (nowUs - this.#epochUs + roundTripUs) / 1e6 - this.#k;
    const cubic = CUBIC_C * seconds * seconds * seconds * segment + this.#maximum;
    this.#reno += ((this.#reno < this.#maximum ? ALPHA : 1) * bytes * segment) / window;
    let next = Math.max(window, this.#reno);
    if (cubic > window)
      next = Math.max(next, window + ((Math.min(cubic, 1.5 * window) - window) * bytes) / window);
    this.windowBytes = Math.min(next, WINDOW_CAP_BYTES);
  }

  /**
   * A recovery begins: a loss was seen, with `flightBytes` in flight. `minUs` and `nowUs` are the shortest round trip and the present one; the
   * loss is an ordinary one where the shortest is not known (0).
   */
  lost(flightBytes: number, minUs: number, nowUs: number): void {
    this.#lossFlightBytes = flightBytes;
    this.quiet = minUs > 0 && minUs >= QUIET_RATIO * nowUs;
    if (this.quiet) return;
    this.#reduce(flightBytes);
    this.windowBytes = this.thresholdBytes;
  }

  /** A retransmission was lost too: a second sign of congestion (RFC 5681 section 4.3). */
  lostAgain(flightBytes: number): void {
    this.quiet = false;
    this.#lossFlightBytes = flightBytes;
    this.#reduce(flightBytes);
    this.windowBytes = this.thresholdBytes;
  }

  /** The recovery ended; `resentBytes` were sent again in it. */
  recovered(resentBytes: number): void {
    const few = Math.max(2 * this.#segmentBytes, this.#lossFlightBytes >> 4);
    if (this.quiet && resentBytes > few) {
      this.#reduce(this.#lossFlightBytes);
      this.windowBytes = Math.min(this.windowBytes, this.thresholdBytes);
    }
    this.quiet = false;
  }

  /** The retransmission timer expired. `again`: for data it expired for before (RFC 5681 section 3.1, ssthresh stays). */
  timedOut(flightBytes: number, again: boolean): void {
    this.quiet = false;
    if (!again) this.#reduce(flightBytes);
    this.windowBytes = this.#segmentBytes;
  }

  /** A queue is growing: slow start ends here (slow-start-exit.ts). */
  leaveSlowStart(): void {
    this.thresholdBytes = Math.min(this.thresholdBytes, this.windowBytes);
  }

  /** Nothing was sent for longer than the timeout: what the window said is stale (RFC 5681 section 4.1). */
  idle(): void {
    this.windowBytes = Math.min(this.windowBytes, this.#initialSegments * this.#segmentBytes);
    this.#epochUs = 0;
  }

  #reduce(flightBytes: number): void {
    const window = Math.min(this.windowBytes, Math.max(flightBytes, 2 * this.#segmentBytes));
    // Fast convergence, RFC 9438 section 4.7.
    this.#maximum = window < this.#maximum ? (window * (1 + BETA)) / 2 : window;
    this.#epochUs = 0;
    this.thresholdBytes = Math.max(Math.floor(window * BETA), 2 * this.#segmentBytes);
  }
}

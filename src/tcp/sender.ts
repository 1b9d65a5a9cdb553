/**
 * The sending half of a connection: frames queued, in flight and kept until they are acknowledged; retransmission; the send window.
 *
 *     user ──queue(frame)──▶ unsent ──transmit──▶ in flight ──acknowledged──▶ released
 *
 * A frame's payload lies in its slot with room for all headers in front. It is sent from there and kept (a second hold), so in a transfer
 * without loss no payload byte is copied. The frame is read-only while the receiver holds it, and may lie for long in a queue or a capture,
 * so headers are written in front of a payload exactly once, when it is first sent. Everything else that needs a header before
 * bytes of the middle, a retransmission or the rest of a frame that did not fit the window, is a copy of just these bytes in a fresh slot.
 * (Rewriting in place when nobody else holds the frame saves the copy only for whole-frame retransmissions; selective ones, the usual kind
 * after a loss inside a 64 KiB frame, need it anyway, and losses are rare on a virtual link. One rule for both is simpler to trust.)
 *
 * Loss: RFC 6675 with SACK, and by time what too few segments follow (RFC 8985: loss-times.ts), the tail of a flight probed; how much goes out
 * meanwhile is RFC 6937's matter (prr.ts). NewReno (RFC 6582) without SACK. A retransmission may be lost too: resent.ts. After a timeout (RFC 6298) everything not selectively acknowledged is
 * sent again in slow start. A closed window is probed (RFC 9293 section 3.8.6.1) with an empty segment before the window, which
 * every TCP answers with its window.
 */

import { type FramePool, OFFSET } from '../core/pool.ts';
import { TCP_ACK_FLAG, TCP_FIN, TCP_PSH } from '../wire/tcp.ts';
import { Congestion } from './congestion.ts';
import type { Connection } from './connection.ts';
import { LossTimes } from './loss-times.ts';
import { Prr } from './prr.ts';
import { Resent } from './resent.ts';
import { RoundTrip } from './rtt.ts';
import { Scoreboard } from './scoreboard.ts';
import type { Segment } from './segment.ts';
import { SlowStartExit } from './slow-start-exit.ts';
import { HEADER_ROOM } from './stack.ts';
import { PROBE, RETRANSMIT } from './timers.ts';

/** Words of a queue entry: frame, sequence number, length, payload's place in region 0, when sent (int32 us), times sent. */
const ENTRY = 6;
const SEQ = 1;
const BYTES = 2;
const PLACE = 3;
const SENT_US = 4;
const TIMES = 5;

const RECOVERY_NONE = 0;
const RECOVERY_FAST = 1;
const RECOVERY_TIMEOUT = 2;
/** Duplicate acknowledgements that mean a loss (RFC 5681 section 3.2). */
const DUPLICATES = 3;
const NO_ENTRIES = new Int32Array(0);

export class Sender {
  /** Oldest unacknowledged (SND.UNA), next to send (SND.NXT), first sequence number behind what is queued. */
  una = 0;
  next = 0;
  end = 0;
  /** The peer's window in bytes, the segment that told it, and the largest it ever was. */
  window = 0;
  windowSeq = 0;
  windowAck = 0;
  windowMax = 0;
  /** Shift for the windows the peer sends. */
  scale = 0;
  /** Payload bytes of a full segment (without options). */
  segmentBytes = 536;
  finQueued = false;
  finSent = false;
  /** The user wanted to send and could not. */
  starved = false;
  readonly roundTrip: RoundTrip;
  readonly congestion: Congestion;
  readonly #board = new Scoreboard();
  readonly #times = new LossTimes();
  readonly #slowStartExit = new SlowStartExit();
  /** Made at the first loss. */
  #prr: Prr | null = null;
  #again: Resent | null = null;
  /** Sent again in this recovery. */
  #resentBytes = 0;
  /** The segment at hand told that something arrived twice (D-SACK, RFC 2883). */
  #arrivedTwice = false;
  readonly #c: Connection;
  readonly #pool: FramePool;

  #q = NO_ENTRIES;
  #head = 0;
  #unsent = 0;
  #tail = 0;
  #recovery = RECOVERY_NONE;
  /** SND.NXT when recovery began; retransmitted up to here. */
  #recoveryEnd = 0;
  #resent = 0;
  /** A recovery ended before #recoveryEnd was acknowledged: what is found lost below is part of the same loss. */
  #sameWindow = false;
  #duplicates = 0;
  #limited = false;
  #lastSentUs = 0;
  /** Since when nothing was acknowledged (clock us) of what waits; -1: nothing waits. */
  #stuckSinceUs = -1;
  #probes = 0;

  constructor(connection: Connection) {
    this.#c = connection;
    const s = connection.stack.settings;
    this.#pool = connection.stack.pool;
    this.roundTrip = new RoundTrip(s.rtoInitialNs, s.rtoMinNs, s.rtoMaxNs);
    this.congestion = new Congestion(s.initialWindowSegments, this.segmentBytes);
  }

  /** The handshake's end: our SYN (at `iss`) is acknowledged, the peer's options are known. */
  start(segmentBytes: number): void {
    this.segmentBytes = segmentBytes;
    this.congestion.start(segmentBytes);
  }

  /**
   * The path takes segments of `segmentBytes` only. What is in flight and not named by the peer goes out again, cut anew, at the pace of the window:
   * it was too long, and its loss is no sign of congestion (RFC 1191 section 6.4).
   */
  narrow(segmentBytes: number): void {
    this.segmentBytes = segmentBytes;
    this.congestion.setSegment(segmentBytes);
    this.#beginAgain();
    this.#armRetransmit();
    this.#c.wantWork();
  }

  /** All that is in flight and not named by the peer goes out again from here on, at the pace of the window. */
  #beginAgain(): void {
    this.#c.timers.set(PROBE, Number.POSITIVE_INFINITY);
    this.#times.probing = false;
    this.#again?.clear();
    this.#recovery = RECOVERY_TIMEOUT;
    this.#recoveryEnd = this.next;
    this.#resent = this.una;
    this.#duplicates = 0;
  }

  get flightBytes(): number {
    return (this.next - this.una) | 0;
  }

  /** Bytes queued and not sent. */
  get unsentBytes(): number {
    return (this.end - this.next) | 0;
  }

  get idle(): boolean {
    return this.una === this.end && !this.finQueued;
  }

  /** Bytes that the congestion window leaves, by RFC 6675's estimate of what is in the network. */
  #congestionRoom(): number {
    const proportional = this.#recovery === RECOVERY_FAST && this.#prr !== null && this.#c.sackUsed;
    const window = proportional ? this.#prr!.windowBytes : this.congestion.windowBytes;
    return Math.floor(window) - this.#pipe();
  }

  #pipe(): number {
    const flight = this.flightBytes;
    if (this.#recovery === RECOVERY_NONE) return flight - this.#board.bytes;
    if (this.#recovery === RECOVERY_TIMEOUT) {
      // What was sent before the timeout counts as lost, but for what was sent again.
      const again = ((this.#resent - this.una) | 0) - this.#board.bytesWithin(this.una, this.#resent);
      const fresh = (this.next - this.#recoveryEnd) | 0;
      return Math.max(0, again) + Math.max(0, fresh);
    }
    if (this.#board.empty) return Math.max(0, flight - this.#duplicates * this.segmentBytes);
    const board = this.#board;
    const highest = board.highest;
    // What was sent again, and has not arrived in the meantime.
    let pipe = Math.max(0, (this.next - highest) | 0);
    let at = this.una;
    if (((this.#resent - at) | 0) > 0) {
      at = ((this.#resent - highest) | 0) < 0 ? this.#resent : highest;
      pipe += ((at - this.una) | 0) - board.bytesWithin(this.una, at);
    }
    if (!this.#times.reorders) return pipe;
    // What is not lost yet is under way. Later holes were sent later: behind the first of them all are.
    while (((highest - at) | 0) > 0) {
      const hole = board.holeFrom(at);
      if (((highest - hole) | 0) <= 0) break;
      if (!this.#holeLost(hole)) return pipe + ((highest - hole) | 0) - board.bytesWithin(hole, highest);
      at = board.holeEnd(hole, highest);
    }
    return pipe;
  }

  /** Bytes the user may queue now so that they are sent at once. Zero makes the user `starved`: it will be told. */
  room(): number {
    if (this.unsentBytes > 0 || this.finQueued) {
      this.starved = !this.finQueued;
      return 0;
    }
    const inWindow = (this.una + this.window - this.next) | 0;
    let room = Math.min(inWindow, this.#congestionRoom());
    const enough = Math.min(this.segmentBytes, this.windowMax >> 1);
    // Sender's silly window avoidance, RFC 9293 section 3.8.6.2.1; with nothing in flight there is no later chance.
    if (room < enough && (this.flightBytes > 0 || room <= 0)) room = 0;
    if (room > 0 && !this.#c.stack.maySend(this.#tail - this.#head)) {
      // Slots are short for all connections together; they come back soon, or their holders time out.
      this.starved = true;
      this.#c.retryLater();
      return 0;
    }
    if (room <= 0) {
      this.#limited ||= this.#congestionRoom() < enough;
      this.starved = true;
      if (this.flightBytes === 0) this.#armRetransmit();
      return 0;
    }
    return room;
  }

  /** Queues a frame whose payload is all of its one segment, with HEADER_ROOM before it in the slot. Takes the frame. */
  queue(frame: number, place: number, bytes: number): void {
    if (ENTRY * (this.#tail + 1) > this.#q.length) this.#makeRoom();
    const q = this.#q;
    const at = ENTRY * this.#tail++;
    q[at] = frame;
    q[at + SEQ] = this.end;
    q[at + BYTES] = bytes;
    q[at + PLACE] = place;
    q[at + TIMES] = 0;
    this.end = (this.end + bytes) | 0;
    this.#c.stack.held(frame);
  }

  #makeRoom(): void {
    const count = this.#tail - this.#head;
    let q = this.#q;
    if (this.#head >= 4 && this.#head >= count) q.copyWithin(0, ENTRY * this.#head, ENTRY * this.#tail);
    else {
      // The first room fits the engine's own heap (64 bytes): most flows never ask for more.
      q = new Int32Array(Math.max(ENTRY * 2, q.length * 2));
      for (let i = ENTRY * this.#head, to = 0; i < ENTRY * this.#tail; i++) q[to++] = this.#q[i]!;
      this.#q = q;
    }
    this.#unsent -= this.#head;
    this.#tail = count;
    this.#head = 0;
  }

  /** Sends what may be sent: holes first, then what was never sent, then the FIN. */
  transmit(): void {
    const c = this.#c;
    if (this.#recovery !== RECOVERY_NONE) this.#retransmitHoles();
    while (this.#unsent < this.#tail) {
      if (c.stack.outputRoom() <= 0) {
        c.stack.waitForOutput(c);
        return;
      }
      const at = ENTRY * this.#unsent;
      const inWindow = (this.una + this.window - this.next) | 0;
      const room = Math.min(inWindow, this.#congestionRoom());
      const bytes = this.#q[at + BYTES]!;
      if (room < bytes || bytes > c.unitBytes) {
        const part = Math.min(room, c.unitBytes);
        const enough = Math.min(this.segmentBytes, this.windowMax >> 1);
        if (part <= 0 || (part < enough && part < bytes && this.flightBytes > 0)) {
          if (this.#congestionRoom() < bytes) this.#limited = true;
          break;
        }
        if (part < bytes && !this.#split(part)) {
          c.retryLater();
          return;
        }
      }
      this.#sendFirst(ENTRY * this.#unsent);
    }
    if (this.finQueued && !this.finSent && this.#unsent === this.#tail) this.#sendFin();
    if (this.flightBytes === 0 && this.unsentBytes > 0) this.#armRetransmit();
  }

  #sendFirst(at: number): void {
    const c = this.#c;
    const q = this.#q;
    const nowUs = c.stack.nowUs;
    if (this.flightBytes === 0 && nowUs - this.#lastSentUs > this.roundTrip.timeoutUs) this.congestion.idle();
    const bytes = q[at + BYTES]!;
    const last = this.#unsent + 1 === this.#tail;
    let flags = TCP_ACK_FLAG;
    if (last) flags |= TCP_PSH;
    const fin = last && this.finQueued && !this.finSent;
    if (fin) flags |= TCP_FIN;
    q[at + SENT_US] = nowUs | 0;
    q[at + TIMES] = 1;
    this.#unsent++;
    this.#lastSentUs = nowUs;
    const frame = q[at]!;
    this.#pool.retain(frame);
    const seq = q[at + SEQ]!;
    this.next = (seq + bytes + (fin ? 1 : 0)) | 0;
    if (fin) {
      this.finSent = true;
      this.end = this.next;
    }
    if (this.#recovery === RECOVERY_FAST) this.#prr?.sent(bytes);
    c.emit(frame, q[at + PLACE]!, bytes, seq, flags);
    this.#scheduleProbe();
    if (c.timers.retransmitUs === Number.POSITIVE_INFINITY || this.#stuckSinceUs < 0) this.#armRetransmit();
  }

  #sendFin(): void {
    const c = this.#c;
    const frame = c.stack.emptyFrame();
    if (frame === 0) {
      c.retryLater();
      return;
    }
    const seq = this.next;
    this.finSent = true;
    this.next = (seq + 1) | 0;
    this.end = this.next;
    c.emit(frame, c.stack.payloadPlace(frame), 0, seq, TCP_FIN | TCP_ACK_FLAG);
    this.#armRetransmit();
    this.#scheduleProbe();
  }

  /** Cuts the first unsent entry after `part` bytes; the rest moves to a slot of its own. */
  #split(part: number): boolean {
    const pool = this.#pool;
    const at0 = ENTRY * this.#unsent;
    const rest = this.#q[at0 + BYTES]! - part;
    const frame = pool.alloc(HEADER_ROOM + rest);
    if (frame === 0) return false;
    if (ENTRY * (this.#tail + 1) > this.#q.length) this.#makeRoom();
    const q = this.#q;
    const at = ENTRY * this.#unsent;
    const place = pool.table[frame + OFFSET]! + HEADER_ROOM;
    pool.bytes.copyWithin(place, q[at + PLACE]! + part, q[at + PLACE]! + part + rest);
    q.copyWithin(at + ENTRY, at, ENTRY * this.#tail);
    this.#tail++;
    q[at + BYTES] = part;
    q[at + ENTRY] = frame;
    q[at + ENTRY + SEQ] = (q[at + SEQ]! + part) | 0;
    q[at + ENTRY + BYTES] = rest;
    q[at + ENTRY + PLACE] = place;
    q[at + ENTRY + TIMES] = 0;
    this.#c.stack.held(frame);
    return true;
  }

  /** An acceptable acknowledgement (RFC 9293 section 3.10.7.4, fifth check). */
  acknowledge(segment: Segment): void {
    const ack = segment.ack;
    const newly = (ack - this.una) | 0;
    if (newly < 0) return;
    const c = this.#c;
    const quiet = this.#recovery === RECOVERY_FAST && this.congestion.quiet;
    const heldBytes = this.#board.bytes;
    const told = this.#readBlocks(segment);
    this.#probes = 0;
    if (newly > 0) this.#advance(ack, newly);
    if (this.#times.probing) this.#probeAnswered(segment, newly);
    if (this.#arrivedTwice) this.#times.spurious(this.una, this.next);
    if (this.#recovery === RECOVERY_FAST && (told || newly > 0)) this.#checkResent();
    const window = segment.window << this.scale;
    const duplicate =
      newly === 0 && this.flightBytes > 0 && segment.length === 0 && window === this.window && !c.sackUsed;
    // With SACK a duplicate is one that tells something new (RFC 6675 section 2).
    if (told || duplicate) this.#duplicate();
    if (this.#recovery === RECOVERY_FAST) {
      const delivered = newly + this.#board.bytes - heldBytes;
      if (quiet) this.#grow(delivered);
      if (c.sackUsed)
        this.#prr?.delivered(delivered, this.#pipe(), this.congestion.windowBytes, this.segmentBytes);
    }
    if (
      ((this.windowSeq - segment.seq) | 0) < 0 ||
      (this.windowSeq === segment.seq && ((this.windowAck - ack) | 0) <= 0)
    ) {
      if (window > this.window || this.window === 0) c.wantWork();
      this.window = window;
      if (window > this.windowMax) this.windowMax = window;
      this.windowSeq = segment.seq;
      this.windowAck = ack;
    }
    if (this.flightBytes === 0) {
      this.#stuckSinceUs = this.unsentBytes > 0 || this.starved ? c.stack.nowUs : -1;
      if (this.window > 0) c.timers.set(RETRANSMIT, Number.POSITIVE_INFINITY);
    }
    if (this.#recovery !== RECOVERY_NONE) c.wantWork();
  }

  #grow(bytes: number): void {
    const { congestion } = this;
    if (this.#limited || congestion.windowBytes < congestion.thresholdBytes) {
      congestion.acknowledged(bytes, this.#c.stack.nowUs, this.roundTrip.smoothedUs);
    }
    this.#limited = false;
  }

  /** Notes what the segment's SACK blocks tell; false: nothing new. */
  #readBlocks(segment: Segment): boolean {
    const options = segment.options;
    this.#arrivedTwice = false;
    if (options.sackCount === 0 || !this.#c.sackUsed) return false;
    const board = this.#board;
    const times = this.#times;
    const top = board.empty ? this.una : board.highest;
    let told = false;
    for (let i = 0; i < options.sackCount; i++) {
      const left = options.sackLeft[i]! | 0;
      const right = options.sackRight[i]! | 0;
      // Only blocks within what is in flight and above this acknowledgement (others are D-SACK, RFC 2883, or nonsense).
      if (((left - segment.ack) | 0) < 0 || ((left - this.una) | 0) < 0) {
        if (i === 0 && ((right - segment.ack) | 0) <= 0) this.#arrivedTwice = true;
        continue;
      }
      if (((right - left) | 0) <= 0 || ((right - this.next) | 0) > 0) continue;
      // Sent before what arrived earlier, and only once: the link reorders.
      const fresh = board.holeFrom(left);
      if (((fresh - right) | 0) < 0 && ((fresh - top) | 0) < 0 && this.#sentOnce(fresh)) {
        if (this.#sentOnce((board.holeEnd(fresh, right) - 1) | 0)) times.reorders = true;
      }
      if (board.add(left, right)) told = true;
    }
    if (told && board.highest !== top) {
      const at = this.#entryOf((board.highest - 1) | 0);
      if (at >= 0 && this.#q[at + TIMES] === 1) {
        times.roundTripUs = ((this.#c.stack.nowUs | 0) - this.#q[at + SENT_US]!) | 0;
        this.roundTrip.sample(times.roundTripUs);
      }
    }
    return told;
  }

  /** Where the entry of a sequence number in flight lies in the queue; -1: it is the FIN's. */
  #entryOf(seq: number): number {
    const q = this.#q;
    let low = this.#head;
    let high = this.#unsent;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (((q[ENTRY * middle + SEQ]! + q[ENTRY * middle + BYTES]! - seq) | 0) <= 0) low = middle + 1;
      else high = middle;
    }
    return low < this.#unsent ? ENTRY * low : -1;
  }

  #sentOnce(seq: number): boolean {
    const at = this.#entryOf(seq);
    return at >= 0 && this.#q[at + TIMES] === 1;
  }

  #advance(ack: number, newly: number): void {
    const c = this.#c;
    const q = this.#q;
    const nowUs = c.stack.nowUs;
    // What came late was no loss: the hole at the front is filled and nobody filled it.
    if (this.#recovery === RECOVERY_NONE && !this.#board.empty && this.#sentOnce(this.una)) {
      this.#times.reorders = true;
    }
    // What the peer named before arrived before: it tells nothing of the round trip.
    const named = !this.#board.empty && this.#board.holds((ack - 1) | 0, ack);
    this.una = ack;
    this.#board.acknowledged(ack);
    this.#again?.acknowledged(ack);
    let sampleUs = -1;
    while (this.#head < this.#unsent) {
      const at = ENTRY * this.#head;
      if (((q[at + SEQ]! + q[at + BYTES]! - ack) | 0) > 0) break;
      if (q[at + TIMES] === 1) sampleUs = ((nowUs | 0) - q[at + SENT_US]!) | 0;
      c.stack.drop(q[at]!);
      this.#head++;
    }
    if (this.#head === this.#tail) {
      this.#head = 0;
      this.#unsent = 0;
      this.#tail = 0;
    }
    if (sampleUs >= 0 && !named) {
      this.roundTrip.sample(sampleUs);
      this.#times.roundTripUs = sampleUs;
      if (
        this.congestion.windowBytes < this.congestion.thresholdBytes &&
        this.#slowStartExit.sample(sampleUs, ack, this.next)
      ) {
        this.congestion.leaveSlowStart();
      }
    } else this.roundTrip.progress();
    this.#stuckSinceUs = this.flightBytes > 0 ? nowUs : -1;
    if (this.#recovery === RECOVERY_NONE) {
      this.#grow(newly);
      this.#duplicates = 0;
      if (this.#sameWindow && ((ack - this.#recoveryEnd) | 0) >= 0) this.#sameWindow = false;
    } else if (((ack - this.#recoveryEnd) | 0) >= 0) {
      this.#recovered();
      // Holes above, sent again already: the next recovery begins, and nothing is sent a third time.
      if (!this.#board.empty && ((this.#resent - ack) | 0) > 0) this.#recover(this.#resent);
    } else if (this.#recovery === RECOVERY_FAST && this.#board.empty && c.sackUsed) {
      // Nothing is known to be missing; what may be is the tail probe's matter.
      this.#recovered();
      this.#sameWindow = true;
    } else {
      if (((this.#resent - ack) | 0) < 0) this.#resent = ack;
      if (this.#recovery === RECOVERY_TIMEOUT) {
        this.congestion.acknowledged(newly, nowUs, this.roundTrip.smoothedUs);
      } else if (this.#board.empty) {
        // NewReno's partial acknowledgement: the next segment is lost too (RFC 6582 section 3.2).
        this.#duplicates = Math.max(0, this.#duplicates - Math.ceil(newly / this.segmentBytes)) + 1;
        this.#resent = ack;
        this.#resendFirst();
      }
    }
    if (this.flightBytes > 0) this.#armRetransmit();
    this.#scheduleProbe();
    c.wantWork();
  }

  /** The front's retransmission may be lost in its turn. */
  #checkResent(): void {
    if (this.#board.empty || this.#again === null) return;
    const beyond = (DUPLICATES - 1) * this.segmentBytes;
    const { minUs, smoothedUs } = this.roundTrip;
    const times = this.#times;
    const ageUs = times.reorders ? times.roundTripUs + times.reorderUs(minUs, smoothedUs) : 0;
    const sentBeforeUs = this.#c.stack.nowUs - ageUs;
    const bytes = this.#again.overtaken(this.una, this.next, this.#board, beyond, sentBeforeUs);
    if (bytes === 0 || this.#c.stack.outputRoom() <= 0) return;
    this.#c.stack.stats.txLostRetransmissions++;
    if (!this.congestion.quiet) {
      // RFC 5681 section 4.3: the loss of a retransmission is a second sign of congestion.
      const pipe = this.#pipe();
      this.congestion.lostAgain(pipe);
      this.#prr?.start(pipe);
    }
    const resent = this.#resent;
    this.#resend(this.una, this.#board.holeEnd(this.una, (this.una + bytes) | 0));
    if (((resent - this.#resent) | 0) > 0) this.#resent = resent;
  }

  /** The peer told of something beyond the front (without SACK: most likely did). */
  #duplicate(): void {
    this.#duplicates++;
    if (this.#recovery === RECOVERY_NONE) this.#considerLoss();
  }

  /** Is the front lost, or when will it be? */
  #considerLoss(): void {
    const { timers } = this.#c;
    if (this.#board.empty) {
      if (this.#c.sackUsed || this.#duplicates < DUPLICATES) return;
    } else if (!this.#holeLost(this.una)) {
      timers.set(PROBE, this.#dueUs(this.una));
      return;
    }
    timers.set(PROBE, Number.POSITIVE_INFINITY);
    this.#again?.clear();
    this.#recover(this.una);
    this.#c.wantWork();
    // RFC 6675 section 5 step 4.3: the first retransmission does not wait for the pipe to drain.
    this.#resendFirst();
  }

  /** A recovery begins, in which everything before `resent` was sent again already. */
  #recover(resent: number): void {
    const flight = this.flightBytes;
    if (!this.#sameWindow) {
      this.#recoveryEnd = this.next;
      this.congestion.lost(flight, this.roundTrip.minUs, this.roundTrip.smoothedUs);
    }
    this.#recovery = RECOVERY_FAST;
    this.#resent = resent;
    this.#resentBytes = 0;
    this.#c.stack.stats.txFastRecoveries++;
    this.#prr ??= new Prr();
    this.#prr.start(flight);
  }

  #recovered(): void {
    if (this.#recovery === RECOVERY_FAST) {
      this.congestion.recovered(this.#resentBytes);
      this.#times.recoveryEnded();
    }
    this.#recovery = RECOVERY_NONE;
    this.#sameWindow = false;
    this.#duplicates = 0;
  }

  /** Whether what the peer did not name at `seq`, below what it named, counts as lost. */
  #holeLost(seq: number): boolean {
    if (!this.#times.reorders) {
      if (this.#recovery === RECOVERY_FAST || this.#duplicates >= DUPLICATES) return true;
      if (this.#board.isLost(seq, this.segmentBytes)) return true;
    }
    return this.#dueUs(seq) <= this.#c.stack.nowUs;
  }

  /** When it counts as lost by time alone. */
  #dueUs(seq: number): number {
    const { nowUs } = this.#c.stack;
    const { minUs, smoothedUs } = this.roundTrip;
    const at = this.#entryOf(seq);
    const sentUs = at < 0 ? this.#lastSentUs : nowUs - (((nowUs | 0) - this.#q[at + SENT_US]!) | 0);
    return sentUs + this.#times.roundTripUs + this.#times.reorderUs(minUs, smoothedUs);
  }

  // The tail.

  /** Something was sent or acknowledged: the tail's probe must be on its way, or is no more wanted. When it is due is reckoned then. */
  #scheduleProbe(): void {
    const { timers } = this.#c;
    if (this.flightBytes === 0) {
      if (this.#board.empty) timers.probeUs = Number.POSITIVE_INFINITY;
    } else if (timers.probeUs === Number.POSITIVE_INFINITY) this.#setProbe(2 * this.segmentBytes);
  }

  /** `flightBytes`: what will be in flight then, as far as it matters (a lone segment waits longer). */
  #setProbe(flightBytes: number): void {
    const { timers, sackUsed } = this.#c;
    if (!sackUsed || this.#recovery !== RECOVERY_NONE || this.#times.probing || !this.#board.empty) return;
    const { smoothedUs } = this.roundTrip;
    if (smoothedUs === 0 || flightBytes === 0) return;
    const quietUs = Math.max(this.#lastSentUs, this.#stuckSinceUs);
    const atUs = quietUs + this.#times.probeDelayUs(smoothedUs, flightBytes, this.segmentBytes);
    timers.set(PROBE, atUs < timers.retransmitUs ? atUs : Number.POSITIVE_INFINITY);
  }

  /** The time set for a hole or for the tail has come. */
  probeDue(): void {
    const c = this.#c;
    if (this.#recovery !== RECOVERY_NONE) c.wantWork();
    else if (!this.#board.empty) this.#considerLoss();
    else {
      this.#setProbe(this.flightBytes);
      if (c.timers.probeUs > c.stack.nowUs || this.flightBytes === 0 || this.#times.probing) return;
      c.timers.probeUs = Number.POSITIVE_INFINITY;
      if (c.stack.outputRoom() > 0) this.#probeTail();
    }
  }

  /** RFC 8985 section 7.3: the next new segment if the peer has room for it, whatever the congestion window says; else the last one again. */
  #probeTail(): void {
    const times = this.#times;
    const q = this.#q;
    const segment = this.segmentBytes;
    if (this.#unsent < this.#tail) {
      const inWindow = (this.una + this.window - this.next) | 0;
      const bytes = q[ENTRY * this.#unsent + BYTES]!;
      if (inWindow < Math.min(bytes, segment)) return;
      if (bytes > segment && !this.#split(segment)) return;
      times.probing = true;
      times.probeRepeats = false;
      this.#sendFirst(ENTRY * this.#unsent);
    } else {
      const end = (this.next - (this.finSent ? 1 : 0)) | 0;
      let from = this.una;
      if (this.#unsent > this.#head) {
        // Within the last frame: its end, at most a segment.
        const at = ENTRY * (this.#unsent - 1);
        from = (q[at + SEQ]! + Math.max(0, q[at + BYTES]! - segment)) | 0;
        if (((from - this.una) | 0) < 0) from = this.una;
      }
      if (this.#resend(from, end) === 0) return;
      times.probing = true;
      times.probeRepeats = true;
    }
    times.probeEnd = this.next;
    this.#c.stack.stats.txTailProbes++;
    this.#armRetransmit();
  }

  /** RFC 8985 section 7.4: what an acknowledgement says of the probe. One that repaired a loss tells of that loss only by this. */
  #probeAnswered(segment: Segment, newly: number): void {
    const times = this.#times;
    const beyond = (segment.ack - times.probeEnd) | 0;
    if (beyond < 0) return;
    if (!times.probeRepeats || this.#arrivedTwice) {
      times.probing = false;
      this.#arrivedTwice = false;
    } else if (beyond > 0) {
      times.probing = false;
      if (this.#recovery !== RECOVERY_NONE) return;
      this.congestion.lost(newly, this.roundTrip.minUs, this.roundTrip.smoothedUs);
      this.congestion.recovered(this.segmentBytes);
    } else if (newly === 0 && segment.length === 0 && segment.options.sackCount === 0) times.probing = false;
  }

  /** The oldest segment again, whatever the window says. Without room or slot the pipe's drain, or the timer, comes to it. */
  #resendFirst(): void {
    if (this.#c.stack.outputRoom() > 0) this.#resend(this.una, this.#firstHoleEnd());
  }

  #firstHoleEnd(): number {
    const limit = (this.una + this.segmentBytes) | 0;
    const end = this.#board.holeEnd(this.una, this.next);
    return ((end - limit) | 0) < 0 ? end : limit;
  }

  #retransmitHoles(): void {
    const c = this.#c;
    const board = this.#board;
    for (;;) {
      let from = ((this.#resent - this.una) | 0) > 0 ? this.#resent : this.una;
      from = board.holeFrom(from);
      let limit: number;
      if (this.#recovery === RECOVERY_TIMEOUT) limit = this.#recoveryEnd;
      else if (board.empty) {
        // NewReno: one segment at the front.
        limit = (this.una + this.segmentBytes) | 0;
        if (((limit - this.#recoveryEnd) | 0) > 0) limit = this.#recoveryEnd;
      } else limit = board.highest;
      if (((from - limit) | 0) >= 0) return;
      if (this.#recovery === RECOVERY_FAST && !board.empty && !this.#holeLost(from)) {
        c.timers.set(PROBE, this.#dueUs(from));
        return;
      }
      const room = this.#congestionRoom();
      if (room < this.segmentBytes && this.#pipe() > 0) return;
      if (c.stack.outputRoom() <= 0) {
        c.stack.waitForOutput(c);
        return;
      }
      let to = board.holeEnd(from, limit);
      const most = Math.max(this.segmentBytes, Math.min(room, c.unitBytes));
      if (((to - from) | 0) > most) to = (from + most) | 0;
      const sent = this.#resend(from, to);
      if (sent === 0) {
        c.retryLater();
        return;
      }
    }
  }

  /** Sends a copy of [from, to) again, at most to the end of the frame it starts in. Returns the sequence space sent, 0: no slot. */
  #resend(from: number, to: number): number {
    const c = this.#c;
    const pool = this.#pool;
    const q = this.#q;
    const at = this.#entryOf(from);
    let bytes = 0;
    let frame: number;
    if (at >= 0) {
      const skip = (from - q[at + SEQ]!) | 0;
      bytes = Math.min((to - from) | 0, q[at + BYTES]! - skip);
      frame = pool.alloc(HEADER_ROOM + bytes);
      if (frame === 0 && bytes > this.segmentBytes) {
        // Large slots may all be held by what waits for just this hole.
        bytes = this.segmentBytes;
        frame = pool.alloc(HEADER_ROOM + bytes);
      }
      if (frame === 0) return 0;
      const place = c.stack.payloadPlace(frame);
      pool.bytes.copyWithin(place, q[at + PLACE]! + skip, q[at + PLACE]! + skip + bytes);
      q[at + TIMES] = q[at + TIMES]! + 1;
    } else {
      frame = c.stack.emptyFrame();
      if (frame === 0) return 0;
    }
    // The FIN takes the last sequence number.
    const fin = this.finSent && ((from + bytes + 1 - this.next) | 0) === 0;
    c.stack.stats.txRetransmittedSegments++;
    const sent = bytes + (fin ? 1 : 0);
    this.#resent = (from + sent) | 0;
    if (c.sackUsed) {
      this.#again ??= new Resent();
      this.#again.add(from, (from + sent) | 0, this.next, c.stack.nowUs);
    }
    this.#lastSentUs = c.stack.nowUs;
    this.#resentBytes += bytes;
    if (this.#recovery === RECOVERY_FAST) this.#prr?.sent(bytes);
    c.emit(frame, c.stack.payloadPlace(frame), bytes, from, TCP_ACK_FLAG | TCP_PSH | (fin ? TCP_FIN : 0));
    return sent;
  }

  #armRetransmit(): void {
    const c = this.#c;
    if (this.#stuckSinceUs < 0) this.#stuckSinceUs = c.stack.nowUs;
    c.timers.set(RETRANSMIT, c.stack.nowUs + this.roundTrip.timeoutUs);
  }

  /** The retransmission timer fired: in flight, resend; nothing in flight and a closed window, probe. False: the peer is given up. */
  timeout(): boolean {
    const c = this.#c;
    const nowUs = c.stack.nowUs;
    if (this.flightBytes === 0) return this.#probe();
    if (this.#stuckSinceUs >= 0 && nowUs - this.#stuckSinceUs > c.stack.settings.userTimeoutNs / 1000)
      return false;
    c.stack.stats.txTimeouts++;
    this.congestion.timedOut(this.flightBytes, this.roundTrip.backoffs > 0);
    this.roundTrip.backOff();
    this.#beginAgain();
    // RFC 2018 section 8: after a timeout the peer may have forgotten what it had.
    this.#board.clear();
    this.#resendFirst();
    this.#armRetransmit();
    return true;
  }

  #probe(): boolean {
    const c = this.#c;
    if (this.window > 0 && this.unsentBytes === 0) {
      if (this.starved) c.wantWork();
      return true;
    }
    if (this.unsentBytes === 0 && !this.starved) return true;
    // A peer that answers probes may keep its window closed for ever (RFC 9293 section 3.8.6.1); one that does not is gone.
    const silentUs = c.stack.nowUs - c.lastHeardUs;
    if (this.#probes > 2 && silentUs > c.stack.settings.userTimeoutNs / 1000) return false;
    this.#probes++;
    this.roundTrip.backOff();
    c.stack.stats.txWindowProbes++;
    c.probe();
    this.#armRetransmit();
    if (this.window > 0) c.wantWork();
    return true;
  }

  /** Gives every frame back. */
  clear(): void {
    for (let i = this.#head; i < this.#tail; i++) this.#c.stack.drop(this.#q[ENTRY * i]!);
    this.#q = NO_ENTRIES;
    this.#head = 0;
    this.#unsent = 0;
    this.#tail = 0;
    this.#board.clear();
    this.end = this.next;
  }
}

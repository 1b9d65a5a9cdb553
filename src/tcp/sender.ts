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
 * Loss: RFC 6675 with SACK; NewReno (RFC 6582) without. A retransmission is lost too when what was first sent after it arrives and it is still
 * missing (RFC 8985's thought, told by sequence numbers: holes go first, so new data marks the end of a round). After a timeout (RFC 6298) everything not selectively acknowledged is
 * sent again in slow start. A closed window is probed (RFC 9293 section 3.8.6.1) with an empty segment before the window, which
 * every TCP answers with its window.
 */

import { type FramePool, OFFSET } from '../core/pool.ts';
import { TCP_ACK_FLAG, TCP_FIN, TCP_PSH } from '../wire/tcp.ts';
import { Congestion } from './congestion.ts';
import type { Connection } from './connection.ts';
import { RoundTrip } from './rtt.ts';
import { Scoreboard } from './scoreboard.ts';
import type { Segment } from './segment.ts';
import { HEADER_ROOM } from './stack.ts';
import { RETRANSMIT } from './timers.ts';

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
  /** SND.NXT at the latest retransmission: what lies above was sent after every one of them. */
  #resentBefore = 0;
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
    return Math.floor(this.congestion.windowBytes) - this.#pipe();
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
    let pipe = 0;
    let at = this.una;
    const highest = this.#board.highest;
    while (((highest - at) | 0) > 0) {
      const hole = this.#board.holeFrom(at);
      if (((highest - hole) | 0) <= 0) break;
      const end = this.#board.holeEnd(hole, highest);
      const size = (end - hole) | 0;
      const resent = Math.min(Math.max(0, (this.#resent - hole) | 0), size);
      pipe += resent;
      if (!this.#board.isLost(hole, this.segmentBytes)) pipe += size - resent;
      at = end;
    }
    return pipe + Math.max(0, (this.next - highest) | 0);
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
      q = new Int32Array(Math.max(ENTRY * 4, q.length * 2));
      q.set(this.#q.subarray(ENTRY * this.#head, ENTRY * this.#tail));
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
    c.emit(frame, q[at + PLACE]!, bytes, seq, flags);
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
    const told = this.#readBlocks(segment);
    this.#probes = 0;
    if (newly > 0) this.#advance(ack, newly);
    if (told && this.#recovery === RECOVERY_FAST && this.#lostAgain()) {
      this.#resent = this.una;
      // RFC 5681 section 4.3: the loss of a retransmission is a second sign of congestion.
      this.congestion.lost(this.#pipe());
      this.#c.stack.stats.txLostRetransmissions++;
      this.#resendFirst();
    }
    const window = segment.window << this.scale;
    const flight = this.flightBytes;
    if (newly === 0 && flight > 0 && segment.length === 0 && (told || window === this.window)) {
      // With SACK a duplicate is one that tells something new (RFC 6675 section 2).
      if (told || !this.#c.sackUsed) this.#duplicate();
    }
    if (
      ((this.windowSeq - segment.seq) | 0) < 0 ||
      (this.windowSeq === segment.seq && ((this.windowAck - ack) | 0) <= 0)
    ) {
      if (window > this.window || this.window === 0) this.#c.wantWork();
      this.window = window;
      if (window > this.windowMax) this.windowMax = window;
      this.windowSeq = segment.seq;
      this.windowAck = ack;
    }
    if (this.flightBytes === 0) {
      this.#stuckSinceUs = this.unsentBytes > 0 || this.starved ? this.#c.stack.nowUs : -1;
      if (this.window > 0) this.#c.timers.set(RETRANSMIT, Number.POSITIVE_INFINITY);
    }
    if (this.#recovery !== RECOVERY_NONE) this.#c.wantWork();
  }

  #readBlocks(segment: Segment): boolean {
    const options = segment.options;
    if (options.sackCount === 0 || !this.#c.sackUsed) return false;
    let told = false;
    for (let i = 0; i < options.sackCount; i++) {
      const left = options.sackLeft[i]! | 0;
      const right = options.sackRight[i]! | 0;
      // Only blocks within what is in flight and above this acknowledgement (others are D-SACK, RFC 2883, or nonsense).
      if (((left - segment.ack) | 0) < 0 || ((left - this.una) | 0) < 0) continue;
      if (((right - left) | 0) <= 0 || ((right - this.next) | 0) > 0) continue;
      if (this.#board.add(left, right)) told = true;
    }
    return told;
  }

  #advance(ack: number, newly: number): void {
    const c = this.#c;
    const q = this.#q;
    const nowUs = c.stack.nowUs;
    this.una = ack;
    this.#board.acknowledged(ack);
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
    if (sampleUs >= 0) this.roundTrip.sample(sampleUs);
    else this.roundTrip.progress();
    this.#stuckSinceUs = this.flightBytes > 0 ? nowUs : -1;
    if (this.#recovery === RECOVERY_NONE) {
      if (this.#limited || this.congestion.windowBytes < this.congestion.thresholdBytes) {
        this.congestion.acknowledged(newly, nowUs, this.roundTrip.smoothedUs);
      }
      this.#limited = false;
      this.#duplicates = 0;
    } else if (((ack - this.#recoveryEnd) | 0) >= 0) {
      this.#recovery = RECOVERY_NONE;
      this.#duplicates = 0;
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
    c.wantWork();
  }

  /** Whether holes remain whose retransmission was overtaken by new data, by as much as makes any other segment count as lost. */
  #lostAgain(): boolean {
    if (this.#board.empty || ((this.#resentBefore - this.una) | 0) <= 0) return false;
    if (((this.#resent - this.una) | 0) <= 0) return false;
    const beyond = this.#board.bytesWithin(this.#resentBefore, this.next);
    return beyond > (DUPLICATES - 1) * this.segmentBytes;
  }

  #duplicate(): void {
    this.#duplicates++;
    if (this.#recovery !== RECOVERY_NONE) return;
    const lost = this.#board.empty
      ? this.#duplicates >= DUPLICATES
      : this.#duplicates >= DUPLICATES || this.#board.isLost(this.una, this.segmentBytes);
    if (!lost) return;
    this.#recovery = RECOVERY_FAST;
    this.#recoveryEnd = this.next;
    this.#resent = this.una;
    this.#c.stack.stats.txFastRecoveries++;
    this.congestion.lost(this.flightBytes);
    this.#c.wantWork();
    // RFC 6675 section 5 step 4.3: the first retransmission does not wait for the pipe to drain.
    this.#resendFirst();
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
      if (this.#recovery === RECOVERY_FAST && !board.empty && !board.isLost(from, this.segmentBytes)) return;
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
    let i = this.#head;
    while (i < this.#unsent && ((q[ENTRY * i + SEQ]! + q[ENTRY * i + BYTES]! - from) | 0) <= 0) i++;
    let bytes = 0;
    let frame: number;
    if (i < this.#unsent) {
      const at = ENTRY * i;
      const skip = (from - q[at + SEQ]!) | 0;
      bytes = Math.min((to - from) | 0, q[at + BYTES]! - skip);
      frame = pool.alloc(HEADER_ROOM + bytes);
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
    this.#resentBefore = this.next;
    this.#lastSentUs = c.stack.nowUs;
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
    this.#recovery = RECOVERY_TIMEOUT;
    this.#recoveryEnd = this.next;
    this.#resent = this.una;
    this.#duplicates = 0;
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

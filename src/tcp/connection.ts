/**
 * One connection: the state machine of RFC 9293 section 3.10, between a user and the segments of a peer.
 *
 *     segments ─▶ checks (PAWS, window, RST, SYN, ACK) ─▶ sender.acknowledge, receiver.take ─▶ listed for work
 *     work (once a burst) ─▶ sink takes data ─▶ sender transmits ─▶ user may send more ─▶ acknowledgement, if none rode on data
 *
 * In-window resets and SYNs that do not match exactly get a challenge acknowledgement (RFC 5961); timestamps protect against wrapped
 * sequence numbers (RFC 7323 section 5). Initial sequence numbers are RFC 6528's. There is no Nagle delay: the users are a NAT, whose guest
 * or host already decided when to send, and a probe. Urgent data is taken as ordinary (RFC 9293 section 3.8.5 lets no new use be made of it).
 */

import { LENGTH, OFFSET } from '../core/pool.ts';
import { ACCEPT_TSO4, ACCEPT_TSO6 } from '../core/port.ts';
import { TCP_ACK_FLAG, TCP_FIN, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { isV4, linkHeaderSum, linkPseudoSum } from './link-header.ts';
import { writeSegment } from './output.ts';
import { Receiver } from './receiver.ts';
import type { Segment } from './segment.ts';
import { Sender } from './sender.ts';
import { HEADER_ROOM, type TcpStack } from './stack.ts';
import {
  CLOSE_WAIT,
  CLOSED,
  CLOSING,
  ESTABLISHED,
  FIN_WAIT_1,
  FIN_WAIT_2,
  LAST_ACK,
  SYN_HELD,
  SYN_RECEIVED,
  SYN_SENT,
  TIME_WAIT,
} from './states.ts';
import { DELAYED_ACK, KEEP_ALIVE, LIFE, PROBE, RETRANSMIT, Timers } from './timers.ts';

/** Why a connection ended: both sides closed, the peer reset it, its SYN was answered by a reset, nothing was heard, we aborted it. */
export type CloseReason = 'closed' | 'reset' | 'refused' | 'timeout' | 'aborted';

/** What a connection tells its user. Called from the stack's flush or from a timer, never from within the user's own call. */
export interface TcpUser {
  established(connection: Connection): void;
  /**
   * Offers received data: the payload of frames[from..to), without the first `skip` bytes. Returns how many bytes it took, from the front.
   * Fewer than all is a promise of a later `sinkReady()`. The frames stay the connection's.
   */
  deliver(connection: Connection, frames: Int32Array, from: number, to: number, skip: number): number;
  /** `sendRoom` said 0 before and may say more now; also once after `established`. */
  sendReady(connection: Connection): void;
  /** The peer sends nothing more, and everything it sent was taken. */
  peerClosed(connection: Connection): void;
  /** The end: no more calls. After 'closed' the connection may linger in TIME_WAIT by itself. */
  closed(connection: Connection, reason: CloseReason): void;
}

/** Quick acknowledgements at the start, before it is known whether data flows the other way. */
const QUICK_ACKS = 8;
const CHALLENGES_PER_SECOND = 10;
const PAWS_IDLE_US = 24 * 86_400 * 1e6;
const SYN_RETRIES = 6;
const DEFAULT_MSS = 536;
const RETRY_US = 5000;

export class Connection {
  readonly stack: TcpStack;
  /** Ethernet and IP header towards the peer (link-header.ts). */
  readonly link: Uint8Array;
  /** Local port in the upper half, the peer's in the lower, as one int32. */
  readonly ports: number;
  readonly hash: number;
  nextInBucket: Connection | null = null;
  /** Kept by the stack. */
  listed = false;
  stalled = false;

  user: TcpUser | null = null;
  state = CLOSED;
  readonly sender: Sender;
  readonly receiver: Receiver;
  readonly timers: Timers;
  /** Negotiated. */
  sackUsed = false;
  timestampsUsed = false;
  /** When the latest acceptable segment came. */
  lastHeardUs = 0;
  /** Bytes in either direction, for listings: from the peer, to the peer. */
  receivedBytes = 0;
  sentBytes = 0;

  readonly #linkSum: number;
  readonly #pseudoSum: number;
  #packetId = 0;
  #iss = 0;
  #irs = 0;
  #peerMss = DEFAULT_MSS;
  #scaling = false;
  #timestampRecent = 0;
  #timestampRecentUs = 0;
  #timestampOffset = 0;
  #lastAckSent = 0;
  #sinkBlocked = false;
  #endTold = false;
  #greet = false;
  #quickAcks = QUICK_ACKS;
  #synTries = 0;
  #synSentUs = 0;
  #passive = false;
  #probesUnanswered = 0;
  #challenges = 0;
  #challengesSinceUs = 0;

  constructor(stack: TcpStack, link: Uint8Array, ports: number, hash: number) {
    this.stack = stack;
    this.link = link;
    this.ports = ports;
    this.hash = hash;
    this.#linkSum = linkHeaderSum(link);
    this.#pseudoSum = linkPseudoSum(link);
    this.sender = new Sender(this);
    this.receiver = new Receiver(stack);
    this.timers = new Timers(stack.loop, this);
    this.lastHeardUs = stack.nowUs;
  }

  get localPort(): number {
    return this.ports >>> 16;
  }

  get remotePort(): number {
    return this.ports & 0xffff;
  }

  get version(): 4 | 6 {
    return isV4(this.link) ? 4 : 6;
  }

  // What users call.

  /** SYN_HELD: answers the SYN. */
  accept(): void {
    if (this.state !== SYN_HELD) return;
    this.stack.tick();
    this.#passive = true;
    this.#chooseIss();
    this.state = SYN_RECEIVED;
    this.stack.stats.connectionsAccepted++;
    this.timers.set(LIFE, this.stack.nowUs + this.stack.settings.handshakeTimeoutNs / 1000);
    this.#sendSyn();
  }

  /** SYN_HELD: refuses the SYN with a reset. `silent`: without a word (an ICMP error was sent instead). */
  refuse(silent = false): void {
    if (this.state !== SYN_HELD) return;
    if (!silent && this.stack.outputRoom() > 0) {
      this.stack.sendBare(
        this.link,
        this.localPort,
        this.remotePort,
        0,
        this.receiver.next,
        TCP_RST | TCP_ACK_FLAG,
      );
    }
    this.remove();
  }

  /** Bytes that `send` may be given now and that go out at once. After 0 the user is told by `sendReady`. */
  sendRoom(): number {
    if (this.state !== ESTABLISHED && this.state !== CLOSE_WAIT) return 0;
    return this.sender.room();
  }

  /** Most bytes one frame given to `send` should carry: one segment, or a whole GSO frame where the peer takes those. */
  get unitBytes(): number {
    const segment = this.sender.segmentBytes;
    const v4 = isV4(this.link);
    const tso = v4 ? ACCEPT_TSO4 : ACCEPT_TSO6;
    if ((this.stack.accepts & tso) === 0 || !this.stack.acceptsChecksum) return segment;
    const headers = (v4 ? 40 : 20) + (this.timestampsUsed ? 12 : 0);
    return Math.max(1, Math.floor((0xffff - headers) / segment)) * segment;
  }

  /**
   * Sends a frame: one segment, all payload, with HEADER_ROOM bytes before it in its slot. Takes it. More than `sendRoom` said is
   * queued. The frame must be the caller's alone.
   */
  send(frame: number): void {
    const t = this.stack.pool.table;
    const bytes = t[frame + LENGTH]!;
    if ((this.state !== ESTABLISHED && this.state !== CLOSE_WAIT) || this.sender.finQueued || bytes === 0) {
      this.stack.pool.release(frame);
      return;
    }
    if (!this.listed) this.stack.tick();
    this.sentBytes += bytes;
    this.sender.queue(frame, t[frame + OFFSET]!, bytes);
    this.sender.transmit();
  }

  /** Copies up to `sendRoom` bytes of source[from..to) and sends them; returns how many. For users without frames of their own. */
  write(source: Uint8Array, from: number, to: number): number {
    const { pool } = this.stack;
    let done = from;
    while (done < to) {
      const room = this.sendRoom();
      const part = Math.min(room, to - done, this.unitBytes);
      if (part <= 0) break;
      const frame = pool.alloc(HEADER_ROOM + part);
      if (frame === 0) {
        this.sender.starved = true;
        this.retryLater();
        break;
      }
      pool.bytes.set(source.subarray(done, done + part), this.stack.payloadPlace(frame));
      pool.setLength(frame, part);
      pool.table[frame + OFFSET] = this.stack.payloadPlace(frame);
      this.send(frame);
      done += part;
    }
    return done - from;
  }

  /** No more will be sent: FIN behind what is queued. Receiving goes on. */
  close(): void {
    if (this.sender.finQueued) return;
    if (this.state === SYN_SENT || this.state === SYN_HELD) {
      this.remove();
      return;
    }
    if (this.state === ESTABLISHED || this.state === SYN_RECEIVED) this.#closing(FIN_WAIT_1);
    else if (this.state === CLOSE_WAIT) this.#closing(LAST_ACK);
  }

  #closing(state: number): void {
    const wait = this.state === SYN_RECEIVED;
    this.stack.tick();
    this.sender.finQueued = true;
    if (wait) return;
    this.state = state;
    this.sender.transmit();
  }

  /** Ends the connection now, with a reset if the peer knows of it. `user.closed` is not called. */
  abort(): void {
    if (
      this.state !== CLOSED &&
      this.state !== TIME_WAIT &&
      this.state !== SYN_HELD &&
      this.state !== SYN_SENT
    ) {
      if (this.stack.outputRoom() > 0) {
        const flags = TCP_RST | TCP_ACK_FLAG;
        this.stack.sendBare(
          this.link,
          this.localPort,
          this.remotePort,
          this.sender.next,
          this.receiver.next,
          flags,
        );
      }
    }
    if (this.state === SYN_HELD) this.refuse();
    else this.remove();
  }

  /** The sink, which did not take everything, can take again. */
  sinkReady(): void {
    if (!this.#sinkBlocked) return;
    this.#sinkBlocked = false;
    this.wantWork();
  }

  wantWork(): void {
    this.stack.wantWork(this);
  }

  /** Something lacked a slot: try again in a moment. */
  retryLater(): void {
    const at = this.stack.nowUs + RETRY_US;
    if (this.timers.delayedAckUs > at) this.timers.set(DELAYED_ACK, at);
  }

  // Opening.

  /** Called by the stack: active open. */
  open(): void {
    this.#chooseIss();
    this.state = SYN_SENT;
    this.timers.set(LIFE, this.stack.nowUs + this.stack.settings.handshakeTimeoutNs / 1000);
    this.#sendSyn();
  }

  /** Called by the stack: a SYN came, and waits for `accept` or `refuse`. */
  hold(segment: Segment): void {
    this.state = SYN_HELD;
    this.#readSyn(segment);
    this.#learnWindow(segment);
    this.timers.set(LIFE, this.stack.nowUs + this.stack.settings.handshakeTimeoutNs / 1000);
  }

  /** RFC 6528: a clock of 4 us plus a keyed hash of the four-tuple. */
  #chooseIss(): void {
    const hash = this.stack.keyed(this.link, this.ports, 0);
    this.#iss = (hash + Math.floor(this.stack.nowUs / 4)) | 0;
    this.#timestampOffset = this.stack.keyedHigh;
    this.sender.una = this.#iss;
    this.sender.next = (this.#iss + 1) | 0;
    this.sender.end = this.sender.next;
  }

  get #ownMss(): number {
    return this.stack.settings.ipMtuBytes - (isV4(this.link) ? 40 : 60);
  }

  #readSyn(segment: Segment): void {
    const o = segment.options;
    const s = this.stack.settings;
    this.#irs = segment.seq;
    this.receiver.start((segment.seq + 1) | 0);
    // RFC 9293 section 3.7.1; a lower bound keeps an MSS of 1 from turning a transfer into a flood.
    this.#peerMss = o.mss === 0 ? (isV4(this.link) ? DEFAULT_MSS : 1220) : Math.max(o.mss, 64);
    this.sackUsed = s.sack && o.sackPermitted;
    this.timestampsUsed = s.timestamps && o.hasTimestamps;
    this.#scaling = o.windowScale >= 0;
    this.sender.scale = this.#scaling ? o.windowScale : 0;
    this.receiver.scale = this.#scaling ? this.#ownScale() : 0;
    if (this.timestampsUsed) this.#noteTimestamp(o.timestampValue);
  }

  #ownScale(): number {
    let scale = 0;
    while (this.stack.settings.receiveWindowBytes >>> scale > 0xffff) scale++;
    return scale;
  }

  /** The window of a SYN is never scaled (RFC 7323 section 2.2). */
  #learnWindow(segment: Segment): void {
    this.sender.window = segment.window;
    this.sender.windowMax = segment.window;
    this.sender.windowSeq = segment.seq;
    this.sender.windowAck = segment.ack;
  }

  #sendSyn(): void {
    const { stack } = this;
    const o = stack.options;
    const synAck = this.state === SYN_RECEIVED;
    this.#synTries++;
    this.#synSentUs = stack.nowUs;
    this.timers.set(RETRANSMIT, stack.nowUs + this.sender.roundTrip.timeoutUs);
    const frame = stack.outputRoom() > 0 ? stack.emptyFrame() : 0;
    if (frame === 0) return;
    o.clear();
    o.mss = Math.min(this.#ownMss, 0xffff);
    if (!synAck || this.#scaling) o.windowScale = this.#ownScale();
    if (synAck ? this.sackUsed : stack.settings.sack) o.sackPermitted = true;
    if (synAck ? this.timestampsUsed : stack.settings.timestamps) this.#stamp();
    const window = synAck ? this.receiver.offer(0, true) : Math.min(this.receiver.windowMax, 0xffff);
    const flags = synAck ? TCP_SYN | TCP_ACK_FLAG : TCP_SYN;
    this.#write(
      frame,
      stack.payloadPlace(frame),
      0,
      this.#iss,
      synAck ? this.receiver.next : 0,
      flags,
      window,
    );
  }

  #established(): void {
    const s = this.stack.settings;
    this.state = ESTABLISHED;
    this.timers.set(LIFE, Number.POSITIVE_INFINITY);
    this.timers.set(RETRANSMIT, Number.POSITIVE_INFINITY);
    if (this.#synTries === 1) this.sender.roundTrip.sample(this.stack.nowUs - this.#synSentUs);
    this.sender.roundTrip.progress();
    this.sender.una = (this.#iss + 1) | 0;
    this.sender.start(Math.min(this.#peerMss, this.#ownMss) - (this.timestampsUsed ? 12 : 0));
    if (s.keepAliveIdleNs !== Number.POSITIVE_INFINITY) {
      this.timers.set(KEEP_ALIVE, this.stack.nowUs + s.keepAliveIdleNs / 1000);
    }
    this.#greet = true;
    this.wantWork();
  }

  // Segments in.

  /** One segment of this connection. Returns true when it keeps the frame. */
  input(segment: Segment): boolean {
    if (this.state === SYN_HELD) {
      this.#inputHeld(segment);
      return false;
    }
    if (this.state === SYN_SENT) {
      this.#inputSynSent(segment);
      return false;
    }
    if (this.state === SYN_RECEIVED && !this.#inputSynReceived(segment)) return false;
    if (!this.#checkTimestamp(segment) || !this.#checkSequence(segment)) return false;
    if ((segment.flags & TCP_RST) !== 0) {
      this.#inputReset(segment);
      return false;
    }
    if ((segment.flags & TCP_SYN) !== 0) {
      this.#challenge();
      return false;
    }
    if ((segment.flags & TCP_ACK_FLAG) === 0) return false;
    this.lastHeardUs = this.stack.nowUs;
    this.#probesUnanswered = 0;
    if (!this.#inputAck(segment)) return false;
    return this.#inputText(segment);
  }

  #inputHeld(segment: Segment): void {
    const { flags, seq } = segment;
    if ((flags & TCP_RST) !== 0) {
      if (seq === this.receiver.next || seq === this.#irs) this.#end('reset');
    } else if ((flags & (TCP_SYN | TCP_ACK_FLAG)) === TCP_SYN && seq !== this.#irs) {
      // The peer started over.
      this.#readSyn(segment);
      this.#learnWindow(segment);
    }
  }

  /** RFC 9293 section 3.10.7.3. */
  #inputSynSent(segment: Segment): void {
    const { flags, ack } = segment;
    const acks = (flags & TCP_ACK_FLAG) !== 0;
    if (acks && ack !== this.sender.next) {
      this.stack.resetSegment(segment, this.link);
      return;
    }
    if ((flags & TCP_RST) !== 0) {
      if (acks) this.#end('refused');
      return;
    }
    if ((flags & TCP_SYN) === 0) return;
    this.#readSyn(segment);
    this.#learnWindow(segment);
    if (acks) {
      this.#established();
      this.receiver.ackNow = true;
    } else {
      // Simultaneous open.
      this.state = SYN_RECEIVED;
      this.#sendSyn();
    }
    this.lastHeardUs = this.stack.nowUs;
  }

  /** What comes before the common checks in SYN_RECEIVED. False: the segment is dealt with. */
  #inputSynReceived(segment: Segment): boolean {
    if ((segment.flags & TCP_SYN) !== 0 && (segment.flags & TCP_RST) === 0 && segment.seq === this.#irs) {
      if ((segment.flags & TCP_ACK_FLAG) === 0) {
        // A retransmitted SYN: our answer was lost.
        this.#sendSyn();
        return false;
      }
      // Simultaneous open: the other side's SYN-ACK. Its SYN is known already.
      segment.flags &= ~TCP_SYN;
      segment.seq = (segment.seq + 1) | 0;
    }
    return true;
  }

  /** RFC 7323 section 5.3: PAWS, and the timestamp to echo. */
  #checkTimestamp(segment: Segment): boolean {
    if (!this.timestampsUsed) return true;
    const o = segment.options;
    if (!o.hasTimestamps) {
      // Section 3.2: not without, once agreed; but a reset may be bare.
      if ((segment.flags & TCP_RST) !== 0) return true;
      this.stack.stats.rxDropPaws++;
      return false;
    }
    const age = (o.timestampValue - this.#timestampRecent) | 0;
    const stale = this.stack.nowUs - this.#timestampRecentUs > PAWS_IDLE_US;
    if (age < 0 && !stale && (segment.flags & TCP_RST) === 0) {
      this.stack.stats.rxDropPaws++;
      this.receiver.ackNow = true;
      this.wantWork();
      return false;
    }
    const covers = (segment.seq - this.#lastAckSent) | 0;
    if ((age >= 0 || stale) && covers <= 0) this.#noteTimestamp(o.timestampValue);
    return true;
  }

  #noteTimestamp(value: number): void {
    this.#timestampRecent = value;
    this.#timestampRecentUs = this.stack.nowUs;
  }

  #checkSequence(segment: Segment): boolean {
    const r = this.receiver;
    if (r.acceptable(segment.seq, segment.length)) return true;
    this.stack.stats.rxUnacceptable++;
    if ((segment.flags & TCP_RST) !== 0) return false;
    // A closed window still lets acknowledgements in (RFC 9293 section 3.10.7.4): the text goes, the rest counts.
    if (r.window === 0 && segment.seq === r.next && (segment.flags & TCP_SYN) === 0) {
      segment.payloadBytes = 0;
      segment.flags &= ~TCP_FIN;
      r.ackNow = true;
      this.wantWork();
      return true;
    }
    if (this.state === TIME_WAIT && (segment.flags & TCP_FIN) !== 0) this.#waitTime();
    if (segment.length > 0) {
      // Most likely a retransmission: our acknowledgement was lost.
      if ((segment.flags & TCP_ACK_FLAG) !== 0 && ((segment.seq + segment.length - r.next) | 0) <= 0) {
        this.lastHeardUs = this.stack.nowUs;
        if (segment.payloadBytes > 0) r.noteTwice(segment.seq, (segment.seq + segment.payloadBytes) | 0);
      }
      r.ackNow = true;
      this.wantWork();
    } else if (((segment.seq - r.next) | 0) === -1) {
      // A keep-alive or window probe. Its acknowledgement counts: it may tell a window.
      this.lastHeardUs = this.stack.nowUs;
      r.ackNow = true;
      this.wantWork();
    } else this.#challenge();
    return false;
  }

  /** RFC 5961 section 3.2: only the exact next sequence number resets. */
  #inputReset(segment: Segment): void {
    if (segment.seq !== this.receiver.next) {
      this.#challenge();
      return;
    }
    if (this.state === TIME_WAIT) this.remove();
    else this.#end(this.state === SYN_RECEIVED && !this.#passive ? 'refused' : 'reset');
  }

  #challenge(): void {
    const nowUs = this.stack.nowUs;
    if (nowUs - this.#challengesSinceUs > 1e6) {
      this.#challengesSinceUs = nowUs;
      this.#challenges = 0;
    }
    if (++this.#challenges > CHALLENGES_PER_SECOND) return;
    this.stack.stats.txChallengeAcks++;
    this.receiver.ackNow = true;
    this.wantWork();
  }

  /** The fifth check. False: nothing more is to be done with the segment. */
  #inputAck(segment: Segment): boolean {
    const sender = this.sender;
    const { ack } = segment;
    if (this.state === SYN_RECEIVED) {
      if (ack !== sender.next) {
        this.stack.resetSegment(segment, this.link);
        return false;
      }
      this.#established();
      sender.window = segment.window << sender.scale;
      sender.windowMax = sender.window;
      sender.windowSeq = segment.seq;
      sender.windowAck = ack;
      if (sender.finQueued) this.state = FIN_WAIT_1;
    } else if (((ack - sender.next) | 0) > 0) {
      // It acknowledges what was never sent (RFC 5961 section 5.2).
      this.#challenge();
      return false;
    } else if (((sender.una - ack) | 0) > Math.max(sender.windowMax, 0xffff)) {
      this.#challenge();
      return false;
    } else {
      sender.acknowledge(segment);
    }
    if (sender.finSent && sender.una === sender.next) this.#finAcknowledged();
    return this.state !== CLOSED;
  }

  #finAcknowledged(): void {
    if (this.state === FIN_WAIT_1) this.state = FIN_WAIT_2;
    else if (this.state === CLOSING) this.#timeWait();
    else if (this.state === LAST_ACK) this.#end('closed');
  }

  /** The seventh and eighth check: text and FIN. */
  #inputText(segment: Segment): boolean {
    if (segment.payloadBytes === 0 && (segment.flags & TCP_FIN) === 0) return false;
    if (this.state !== ESTABLISHED && this.state !== FIN_WAIT_1 && this.state !== FIN_WAIT_2) {
      // After the peer's FIN there is nothing: a retransmission of it wants our acknowledgement again.
      this.receiver.ackNow = true;
      if (this.state === TIME_WAIT) this.#waitTime();
      this.wantWork();
      return false;
    }
    const before = this.receiver.next;
    const kept = this.receiver.take(segment);
    this.receivedBytes += (this.receiver.next - before) | 0;
    if (this.receiver.finished) this.#finReceived();
    this.wantWork();
    return kept;
  }

  #finReceived(): void {
    if (this.state === ESTABLISHED) {
      this.state = CLOSE_WAIT;
      return;
    }
    // Our own FIN is out: nothing follows that could carry the acknowledgement.
    this.receiver.ackNow = true;
    if (this.state === FIN_WAIT_1) this.state = CLOSING;
    else if (this.state === FIN_WAIT_2) this.#timeWait();
  }

  // The burst's end.

  /** Called by the stack's flush. */
  work(): void {
    if (this.state === CLOSED) return;
    const user = this.user;
    if (this.#greet && user !== null) {
      this.#greet = false;
      this.sender.starved = true;
      user.established(this);
    }
    if (this.receiver.waiting && !this.#sinkBlocked && user !== null) this.#deliver(user);
    if (this.receiver.finished && !this.receiver.waiting && !this.#endTold && this.state !== CLOSED) {
      this.#endTold = true;
      user?.peerClosed(this);
    }
    if (this.state === TIME_WAIT && this.#endTold) this.#leave('closed');
    if (this.state === CLOSED) return;
    this.sender.transmit();
    if (this.sender.starved && this.sendRoom() > 0) {
      this.sender.starved = false;
      user?.sendReady(this);
    }
    this.#acknowledge();
  }

  #deliver(user: TcpUser): void {
    const r = this.receiver;
    const held = r.heldFrames;
    const offered = r.heldBytes;
    const taken = user.deliver(this, held.items, held.head, held.tail, r.skip);
    if (this.state === CLOSED) return;
    if (taken < offered) this.#sinkBlocked = true;
    r.taken(taken);
  }

  /** Sends an acknowledgement if one is due and none rode on data; else makes sure that it is in time. */
  #acknowledge(): void {
    const r = this.receiver;
    if (this.state < SYN_RECEIVED) return;
    const segment = this.sender.segmentBytes;
    if (!r.ackNow && r.unacknowledged < 2 * segment) {
      if (r.windowOpened(segment)) r.ackNow = true;
      else if (r.unacknowledged === 0) return;
      else if (this.#quickAcks > 0) this.#quickAcks--;
      else {
        const at = this.stack.nowUs + this.stack.settings.delayedAckNs / 1000;
        if (this.timers.delayedAckUs > at) this.timers.set(DELAYED_ACK, at);
        return;
      }
    }
    this.#sendAck();
  }

  #sendAck(): void {
    if (this.stack.outputRoom() <= 0) {
      this.receiver.ackNow = true;
      this.stack.waitForOutput(this);
      return;
    }
    const frame = this.stack.emptyFrame();
    if (frame === 0) {
      this.receiver.ackNow = true;
      this.retryLater();
      return;
    }
    this.emit(frame, this.stack.payloadPlace(frame), 0, this.sender.next, TCP_ACK_FLAG);
  }

  /** Sends one segment; `frame` is as writeSegment wants it, and its hold is handed on. Carries the acknowledgement. */
  emit(frame: number, place: number, payloadBytes: number, seq: number, flags: number): void {
    const r = this.receiver;
    const o = this.stack.options;
    o.clear();
    if (this.timestampsUsed) this.#stamp();
    // Blocks only where there is no payload: a full segment has no room for them.
    if (payloadBytes === 0 && this.sackUsed && r.blocksWait) r.writeBlocks(o);
    const window = r.offer(this.sender.segmentBytes, false);
    // Data that answers what just came: acknowledgements may wait for more of it.
    if (payloadBytes > 0 && r.unacknowledged > 0) this.#quickAcks = 0;
    if (payloadBytes === 0 || r.outOfOrder === 0) r.ackNow = false;
    r.unacknowledged = 0;
    this.#lastAckSent = r.next;
    this.timers.delayedAckUs = Number.POSITIVE_INFINITY;
    this.#write(frame, place, payloadBytes, seq, r.next, flags, window);
  }

  #stamp(): void {
    const o = this.stack.options;
    o.hasTimestamps = true;
    o.timestampValue = (Math.floor(this.stack.nowUs / 1000) + this.#timestampOffset) >>> 0;
    o.timestampEcho = this.#timestampRecent >>> 0;
  }

  #write(
    frame: number,
    place: number,
    payloadBytes: number,
    seq: number,
    ack: number,
    flags: number,
    window: number,
  ): void {
    const segment = this.sender.segmentBytes;
    this.#packetId = (this.#packetId + 1) & 0xffff;
    this.stack.transmit(
      writeSegment(
        this.stack,
        frame,
        place,
        payloadBytes,
        this.link,
        this.#linkSum,
        this.#pseudoSum,
        this.#packetId,
        this.ports >>> 16,
        this.ports & 0xffff,
        seq,
        ack,
        flags,
        window,
        payloadBytes > segment ? segment : 0,
      ),
    );
  }

  /**
   * A packet of ours with sequence number `seq` was too long for the path, which takes `mtuBytes`: from now on segments are no longer than that.
   * False: nothing of the kind is in flight (RFC 5927 section 4), or they are not longer.
   */
  narrow(seq: number, mtuBytes: number): boolean {
    const { sender } = this;
    if (this.state < ESTABLISHED || this.state === TIME_WAIT) return false;
    if (((seq - sender.una) | 0) < 0 || ((seq - sender.next) | 0) >= 0) return false;
    const segment = mtuBytes - (isV4(this.link) ? 40 : 60) - (this.timestampsUsed ? 12 : 0);
    if (segment <= 0 || segment >= sender.segmentBytes) return false;
    sender.narrow(segment);
    return true;
  }

  // Time.

  /** An empty segment just below the window: the peer answers with its acknowledgement and window. */
  probe(): void {
    const frame = this.stack.outputRoom() > 0 ? this.stack.emptyFrame() : 0;
    if (frame === 0) return;
    this.emit(frame, this.stack.payloadPlace(frame), 0, (this.sender.una - 1) | 0, TCP_ACK_FLAG);
  }

  /** Called by `timers`: a deadline passed. */
  due(kind: number): void {
    this.stack.tick();
    if (kind === RETRANSMIT) this.#retransmit();
    else if (kind === PROBE) this.sender.probeDue();
    else if (kind === DELAYED_ACK) {
      this.#quickAcks = 1;
      if (this.receiver.unacknowledged > 0) this.receiver.ackNow = true;
      this.wantWork();
    } else if (kind === KEEP_ALIVE) this.#keepAlive();
    else if (this.state === TIME_WAIT) this.remove();
    else this.#timedOut();
  }

  #retransmit(): void {
    if (this.state === SYN_SENT || this.state === SYN_RECEIVED) {
      if (this.#synTries > SYN_RETRIES) this.#timedOut();
      else {
        this.sender.roundTrip.backOff();
        this.stack.stats.txTimeouts++;
        this.#sendSyn();
      }
    } else if (!this.sender.timeout()) {
      this.abortSilently();
    }
  }

  /** The peer is given up: told by a reset, in case it lives. */
  abortSilently(): void {
    this.stack.stats.connectionsTimedOut++;
    const { user } = this;
    this.user = null;
    this.abort();
    user?.closed(this, 'timeout');
  }

  #timedOut(): void {
    this.stack.stats.connectionsTimedOut++;
    this.#end('timeout');
  }

  #keepAlive(): void {
    const s = this.stack.settings;
    const idleUs = s.keepAliveIdleNs / 1000;
    const silentUs = this.stack.nowUs - this.lastHeardUs;
    if (silentUs < idleUs) {
      this.timers.set(KEEP_ALIVE, this.lastHeardUs + idleUs);
      return;
    }
    if (this.#probesUnanswered >= s.keepAliveProbes) {
      this.abortSilently();
      return;
    }
    this.#probesUnanswered++;
    this.stack.stats.txKeepAlives++;
    this.probe();
    this.timers.set(KEEP_ALIVE, this.stack.nowUs + s.keepAliveIntervalNs / 1000);
  }

  // The end.

  /** Whether a SYN may take over this connection in TIME_WAIT (RFC 9293 section 3.10.7.4, RFC 6191). */
  mayBeReused(segment: Segment): boolean {
    if ((segment.flags & (TCP_SYN | TCP_ACK_FLAG | TCP_RST)) !== TCP_SYN) return false;
    if (((segment.seq - this.receiver.next) | 0) > 0) return true;
    const o = segment.options;
    return this.timestampsUsed && o.hasTimestamps && ((o.timestampValue - this.#timestampRecent) | 0) > 0;
  }

  #timeWait(): void {
    this.state = TIME_WAIT;
    this.timers.cancelAll();
    this.#waitTime();
    this.wantWork();
  }

  #waitTime(): void {
    this.timers.set(LIFE, this.stack.nowUs + this.stack.settings.timeWaitNs / 1000);
  }

  /** Tells the user that it is over; the connection itself may stay for TIME_WAIT. */
  #leave(reason: CloseReason): void {
    const { user } = this;
    if (user === null) return;
    this.user = null;
    user.closed(this, reason);
  }

  #end(reason: CloseReason): void {
    const { user } = this;
    this.user = null;
    this.remove();
    user?.closed(this, reason);
  }

  /** Forgets the connection and gives its frames back. Nothing is sent, nobody is told. */
  remove(): void {
    if (this.state === CLOSED) return;
    this.state = CLOSED;
    this.user = null;
    this.timers.cancelAll();
    this.sender.clear();
    this.receiver.clear();
    this.stack.forget(this);
  }
}

/**
 * `filter-rewriter`: keeps a secondary guest's TCP connections in step with those of the primary guest whose client it shadows. Both guests get
 * the client's frames, but each chose an initial sequence number of its own, and the client only knows the primary's. So:
 *
 *     netdev ─▶ guest (tx)   acknowledgement and SACK blocks + offset: what the client acknowledges, in the secondary's numbers
 *     guest ─▶ netdev (rx)   sequence number − offset: what the secondary sends, in the primary's numbers (for colo-compare to look at)
 *
 * offset = the secondary's initial sequence number − the primary's. The secondary's is in its SYN; the primary's is one less than what the
 * client's answer to a SYN acknowledges: the SYN-ACK when the guest opened the connection, the first segment behind the SYN when the client
 * did. Connections whose beginning was not seen pass unchanged, as everything else does. QEMU's follows TCP over IPv4 only; so does this one, unless
 * ipv6=on is given. Where both
 * guests chose the same number, and after a failover, the offset is 0 and nothing is written.
 *
 * `status=off` forgets all offsets: to be switched off and on again when a checkpoint has made the guests the same.
 *
 * A frame is changed just before it is offered and changed back when it was not taken, so that one which is offered twice is right both times;
 * a frame that others hold is copied. A checksum that is still to be completed does not cover these fields and stays.
 */

import type { Timer } from '../../core/loop.ts';
import { CSUM_START, FACT_NEEDS_CSUM, FACTS, REFS } from '../../core/pool.ts';
import type { LinkContext } from '../../core/port.ts';
import { putU16be, putU32be, u16be, u32be } from '../../wire/bytes.ts';
import { foldSum, sumBytes, updateChecksum16 } from '../../wire/checksum.ts';
import { IP_PROTOCOL_TCP } from '../../wire/ipv4.ts';
import {
  seqAdd,
  seqAtMost,
  TCP_ACK,
  TCP_ACK_FLAG,
  TCP_CHECKSUM,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SEQ,
  TCP_SYN,
} from '../../wire/tcp.ts';
import { type Filter, type FilterDirection, PassingStage } from '../filter/filter.ts';
import { FlowTable } from './flow-table.ts';
import { IpPacket } from './ip-packet.ts';

export class RewriterStats {
  /** Frames to the guest whose acknowledgement was changed. */
  ackRewritten = 0;
  /** Frames from the guest whose sequence number was changed. */
  seqRewritten = 0;
  /** Connections seen from their beginning. */
  connections = 0;
  /** Connections that had to make room for others. */
  evicted = 0;
  /** Frames that had to be copied and found no slot. */
  dropNoSlot = 0;
}

/** One connection, in the guest's terms. */
class Connection {
  /** Initial sequence numbers; -1: not seen yet. */
  secondary = -1;
  primary = -1;
  /** The peer's initial sequence number, by which a SYN that comes again is told from a new connection's; -1: the guest opened it. */
  peer = -1;
  /** Behind the FIN of each side, as each sent it; -1: none. */
  guestEnd = -1;
  peerEnd = -1;
  guestEndAcked = false;
  peerEndAcked = false;
  /** When it was over; Infinity: it is not. */
  closedNs = Number.POSITIVE_INFINITY;

  /** secondary − primary, modulo 2^32; 0 as long as one of them is not known. */
  get offset(): number {
    return this.secondary < 0 || this.primary < 0 ? 0 : (this.secondary - this.primary) >>> 0;
  }

  begin(): void {
    this.secondary = -1;
    this.primary = -1;
    this.peer = -1;
    this.guestEnd = -1;
    this.peerEnd = -1;
    this.guestEndAcked = false;
    this.peerEndAcked = false;
    this.closedNs = Number.POSITIVE_INFINITY;
  }
}

/** Twice the maximum segment lifetime (RFC 9293 section 3.4.2, in the usual half-minute version): until then a FIN may come again. */
const CLOSED_NS = 60e9;
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_SACK = 5;

export interface RewriterOptions {
  readonly id: string;
  readonly direction: FilterDirection;
  /** TCP over IPv6 is followed as well; QEMU does not. */
  readonly ipv6: boolean;
}

export class RewriterFilter implements Filter {
  readonly type = 'filter-rewriter';
  readonly id: string;
  readonly rx: PassingStage | null;
  readonly tx: PassingStage | null;
  readonly stats = new RewriterStats();
  active = true;
  readonly #context: LinkContext;
  readonly #connections = new FlowTable<Connection>();
  readonly #packet: IpPacket;
  readonly #sweeper: Timer;

  constructor(options: RewriterOptions, context: LinkContext) {
    this.id = options.id;
    this.#context = context;
    this.#packet = new IpPacket(options.ipv6);
    this.#sweeper = context.loop.timer(() => this.#sweep());
    this.tx =
      options.direction === 'rx'
        ? null
        : new RewriteStage(context, this.stats, {
            look: (frame) => this.#toGuest(frame),
            change: (frame, add) => this.#change(frame, add, true),
            counter: 'ackRewritten',
          });
    this.rx =
      options.direction === 'tx'
        ? null
        : new RewriteStage(context, this.stats, {
            look: (frame) => -this.#fromGuest(frame) >>> 0,
            change: (frame, add) => this.#change(frame, add, false),
            counter: 'seqRewritten',
          });
  }

  /** Offset for a frame that goes to the guest, after learning from it. Learning the same twice changes nothing. */
  #toGuest(frame: number): number {
    const packet = this.#packet;
    const { tcp } = packet;
    if (!packet.parse(this.#context.pool, frame) || !packet.isTcp) return 0;
    const { flags, ack, seq } = tcp;
    const key = packet.flowBack(IP_PROTOCOL_TCP, true);
    let connection = this.#connections.find(key);
    if ((flags & (TCP_SYN | TCP_ACK_FLAG)) === TCP_SYN) {
      if (connection === undefined) {
        connection = this.#add(key);
      } else if (connection.peer !== seq) {
        connection.begin();
      }
      connection.peer = seq;
      return 0;
    }
    if (connection === undefined) return 0;
    if ((flags & TCP_ACK_FLAG) === 0) {
      if ((flags & TCP_RST) !== 0) this.#close(connection);
      return 0;
    }
    if (connection.primary < 0 && (flags & TCP_RST) === 0) connection.primary = seqAdd(ack, -1);
    const { offset } = connection;
    if ((flags & TCP_FIN) !== 0) connection.peerEnd = seqAdd(seq, tcp.payloadEnd - tcp.payload + 1);
    if (connection.guestEnd >= 0 && seqAtMost(connection.guestEnd, seqAdd(ack, offset)))
      connection.guestEndAcked = true;
    if ((flags & TCP_RST) !== 0 || (connection.guestEndAcked && connection.peerEndAcked)) {
      this.#close(connection);
    }
    return offset;
  }

  /** Offset for a frame that the guest sent. */
  #fromGuest(frame: number): number {
    const packet = this.#packet;
    const { tcp } = packet;
    if (!packet.parse(this.#context.pool, frame) || !packet.isTcp) return 0;
    const { flags, ack, seq } = tcp;
    const key = packet.flow(IP_PROTOCOL_TCP, true);
    let connection = this.#connections.find(key);
    if ((flags & TCP_SYN) !== 0) {
      if ((flags & TCP_ACK_FLAG) === 0) {
        // The guest opens the connection; another number than before makes it a new one.
        if (connection === undefined) connection = this.#add(key);
        else if (connection.secondary !== seq) connection.begin();
      }
      if (connection !== undefined) connection.secondary = seq;
      return connection?.offset ?? 0;
    }
    if (connection === undefined) return 0;
    if ((flags & TCP_FIN) !== 0) connection.guestEnd = seqAdd(seq, tcp.payloadEnd - tcp.payload + 1);
    if ((flags & TCP_ACK_FLAG) !== 0 && connection.peerEnd >= 0 && seqAtMost(connection.peerEnd, ack))
      connection.peerEndAcked = true;
    if ((flags & TCP_RST) !== 0 || (connection.guestEndAcked && connection.peerEndAcked)) {
      this.#close(connection);
    }
    return connection.offset;
  }

  #add(key: Int32Array): Connection {
    const connection = new Connection();
    const evicted = this.#connections.add(key, connection);
    if (evicted !== undefined) this.stats.evicted++;
    this.stats.connections++;
    return connection;
  }

  #close(connection: Connection): void {
    connection.closedNs = Math.min(connection.closedNs, this.#context.loop.clock.nowNs());
    if (!this.#sweeper.armed) this.#sweeper.armIn(CLOSED_NS);
  }

  #sweep(): void {
    const nowNs = this.#context.loop.clock.nowNs();
    let leftNs = Number.POSITIVE_INFINITY;
    this.#connections.sweep(({ closedNs }) => {
      if (nowNs - closedNs >= CLOSED_NS) return true;
      leftNs = Math.min(leftNs, closedNs + CLOSED_NS);
      return false;
    });
    this.#sweeper.arm(leftNs);
  }

  /** Adds to what a frame acknowledges, or to its sequence number; its headers may be written. */
  #change(frame: number, add: number, acknowledged: boolean): void {
    const { pool } = this.#context;
    const packet = this.#packet;
    if (!packet.parse(pool, frame) || !packet.isTcp) return;
    const { bytes, table } = pool;
    const at = packet.tcp.offset;
    const { headerBytes } = packet.tcp;
    const before = sumBytes(bytes, at, headerBytes);
    const field = at + (acknowledged ? TCP_ACK : TCP_SEQ);
    putU32be(bytes, field, seqAdd(u32be(bytes, field), add));
    if (acknowledged) addToSackEdges(bytes, at + TCP_HEADER_BYTES, at + headerBytes, add);
    const pending = (table[frame + FACTS]! & FACT_NEEDS_CSUM) !== 0;
    if (pending && table[frame + CSUM_START] === at - packet.start) return;
    const after = sumBytes(bytes, at, headerBytes);
    const sum = at + TCP_CHECKSUM;
    putU16be(bytes, sum, updateChecksum16(u16be(bytes, sum), foldSum(before), foldSum(after)));
  }

  flush(): void {
    this.#connections.clear();
    this.#sweeper.cancel();
  }

  close(): void {
    this.flush();
  }
}

/** Adds to each edge in the SACK options (RFC 2018) of bytes[from..to), up to where a length makes no sense. */
function addToSackEdges(bytes: Uint8Array, from: number, to: number, add: number): void {
  for (let at = from; at < to; ) {
    const kind = bytes[at]!;
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    const length = at + 1 < to ? bytes[at + 1]! : 0;
    if (length < 2 || length > to - at) return;
    if (kind === OPTION_SACK) {
      for (let i = at + 2; i + 4 <= at + length; i += 4) {
        putU32be(bytes, i, seqAdd(u32be(bytes, i), add));
      }
    }
    at += length;
  }
}

interface Rewriting {
  /** What is to be added (modulo 2^32); 0: the frame passes as it is. */
  look(frame: number): number;
  change(frame: number, add: number): void;
  readonly counter: 'ackRewritten' | 'seqRewritten';
}

class RewriteStage extends PassingStage {
  readonly #context: LinkContext;
  readonly #stats: RewriterStats;
  readonly #rewriting: Rewriting;
  readonly #one = new Int32Array(1);

  constructor(context: LinkContext, stats: RewriterStats, rewriting: Rewriting) {
    super();
    this.#context = context;
    this.#stats = stats;
    this.#rewriting = rewriting;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    // frames[done..at) pass as they are.
    let done = from;
    for (let at = from; at < to; at++) {
      const add = this.#rewriting.look(frames[at]!);
      if (add === 0) continue;
      if (at > done) {
        done += this.next.receive(frames, done, at);
        if (done < at) return done - from;
      }
      if (!this.#pass(frames[at]!, add)) return at - from;
      done = at + 1;
    }
    if (to > done) done += this.next.receive(frames, done, to);
    return done - from;
  }

  /** Hands on one frame, changed; false when it was not taken, and is then as it was. */
  #pass(frame: number, add: number): boolean {
    const { pool } = this.#context;
    const shared = pool.table[frame + REFS] !== 1;
    const own = shared ? pool.clone(frame) : frame;
    if (own === 0) {
      this.#stats.dropNoSlot++;
      pool.release(frame);
      return true;
    }
    this.#rewriting.change(own, add);
    this.#one[0] = own;
    const taken = this.next.receive(this.#one, 0, 1) === 1;
    if (taken) this.#stats[this.#rewriting.counter]++;
    if (shared) pool.release(taken ? frame : own);
    else if (!taken) this.#rewriting.change(own, -add >>> 0);
    return taken;
  }
}

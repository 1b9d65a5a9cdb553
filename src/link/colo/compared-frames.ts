/**
 * What colo-compare keeps of one connection: frames of both guests that came in and are not decided yet, oldest first. What two guests send is
 * the same when their streams of bytes are, however TCP cut them:
 *
 *     TCP      bytes up to `agreed` were the same in both. A primary's frame may go when all its bytes are agreed on, and when the secondary has
 *              acknowledged as much as it does (or a client would forget what the secondary still lacks). A FIN counts as one byte more.
 *              A secondary's frame is used up when its bytes are agreed on.
 *     other    a primary's frame may go when the secondary sent one with the same bytes behind the IP header (headers hold random fields).
 *
 * They differ when bytes at the same place of the stream do, or when both wait and none is like another. Nothing is decided
 * about retransmissions of what was agreed: they pass, or are used up, as they come.
 */

import type { FramePool } from '../../core/pool.ts';
import { seqAdd, seqAtMost, seqBefore, seqDistance, TCP_ACK_FLAG, TCP_FIN, TCP_SYN } from '../../wire/tcp.ts';
import type { IpPacket } from './ip-packet.ts';

/** A frame that waits. Reused. */
export class HeldFrame {
  frame = 0;
  /** Of the virtio_net_hdr that it came with. */
  headerBytes = 0;
  arrivedNs = 0;
  /** What is compared: bytes of the frame from `data` on. */
  data = 0;
  length = 0;
  /** TCP only. A SYN's number is not part of the range. */
  seq = 0;
  ack = 0;
  flags = 0;

  /** Behind the last byte, a FIN included. */
  get end(): number {
    return seqAdd(this.seq, this.length + ((this.flags & TCP_FIN) !== 0 ? 1 : 0));
  }

  /** Takes the facts of a frame just parsed. */
  read(packet: IpPacket, frame: number, headerBytes: number, nowNs: number): void {
    const { tcp, start } = packet;
    this.frame = frame;
    this.headerBytes = headerBytes;
    this.arrivedNs = nowNs;
    this.data = (packet.isTcp ? tcp.payload : packet.payload) - start;
    this.length = (packet.isTcp ? tcp.payloadEnd : packet.payloadEnd) - start - this.data;
    this.flags = packet.isTcp ? tcp.flags : 0;
    this.seq = packet.isTcp ? seqAdd(tcp.seq, (tcp.flags & TCP_SYN) !== 0 ? 1 : 0) : 0;
    this.ack = packet.isTcp ? tcp.ack : 0;
  }
}

/** What became of the frames: those that may go, those that are used up; who compares puts them there. */
export interface Decided {
  release(held: HeldFrame): void;
  discard(held: HeldFrame): void;
}

const CHUNK_BYTES = 2048;

/** Compares bytes of two frames, wherever their segments lie. */
export class FrameComparer {
  readonly #pool: FramePool;
  readonly #a = new Uint8Array(CHUNK_BYTES);
  readonly #b = new Uint8Array(CHUNK_BYTES);

  constructor(pool: FramePool) {
    this.#pool = pool;
  }

  same(a: number, aFrom: number, b: number, bFrom: number, length: number): boolean {
    for (let done = 0; done < length; done += CHUNK_BYTES) {
      const count = Math.min(CHUNK_BYTES, length - done);
      this.#pool.read(a, aFrom + done, this.#a, 0, count);
      this.#pool.read(b, bFrom + done, this.#b, 0, count);
      for (let i = 0; i < count; i++) if (this.#a[i] !== this.#b[i]) return false;
    }
    return true;
  }
}

export class ComparedConnection {
  readonly primary: HeldFrame[] = [];
  readonly secondary: HeldFrame[] = [];
  readonly isTcp: boolean;
  readonly #comparer: FrameComparer;
  readonly #decided: Decided;
  /** TCP: the number up to which both streams are the same; -1: nothing was compared yet. */
  #agreed = -1;
  /** TCP: what `begin` was told last. */
  #began = -1;
  /** TCP: the highest number the secondary acknowledged; -1: none. */
  #secondaryAck = -1;

  constructor(isTcp: boolean, comparer: FrameComparer, decided: Decided) {
    this.isTcp = isTcp;
    this.#comparer = comparer;
    this.#decided = decided;
  }

  /** The primary begins the connection: its numbers count from here. (The secondary's own SYN has not been rewritten, and tells nothing.) */
  begin({ seq }: HeldFrame): void {
    if (this.#began === seq) return;
    this.#began = seq;
    this.#agreed = seq;
    this.drop();
  }

  /** Compares as far as possible; false when the guests differ. */
  compare(): boolean {
    return this.isTcp ? this.#compareStreams() : this.#compareDatagrams();
  }

  #compareDatagrams(): boolean {
    const { primary, secondary } = this;
    for (let p = 0; p < primary.length; ) {
      const own = primary[p]!;
      const s = secondary.findIndex(
        (other) =>
          other.length === own.length &&
          this.#comparer.same(own.frame, own.data, other.frame, other.data, own.length),
      );
      if (s < 0) {
        p++;
        continue;
      }
      this.#decided.discard(secondary.splice(s, 1)[0]!);
      this.#decided.release(primary.splice(p, 1)[0]!);
    }
    return primary.length === 0 || secondary.length === 0;
  }

  #compareStreams(): boolean {
    const { primary, secondary } = this;
    for (const { flags, ack } of secondary) {
      if ((flags & TCP_ACK_FLAG) === 0) continue;
      const begins = (flags & TCP_SYN) !== 0;
      if (begins || this.#secondaryAck < 0 || seqBefore(this.#secondaryAck, ack)) this.#secondaryAck = ack;
    }
    let same = true;
    if (this.#agreed < 0) {
      // The beginning was not seen: what only one of them still has cannot be compared.
      const p = primary.find(({ seq, end }) => seq !== end);
      const s = secondary.find(({ seq, end }) => seq !== end);
      if (p !== undefined && s !== undefined) this.#agreed = seqBefore(p.seq, s.seq) ? s.seq : p.seq;
    }
    if (this.#agreed >= 0) {
      for (;;) {
        const p = primary.find((held) => this.#covers(held));
        const s = secondary.find((held) => this.#covers(held));
        if (p === undefined || s === undefined) break;
        if (!this.#agreeOn(p, s)) {
          same = false;
          break;
        }
      }
    }
    this.#settle();
    return same;
  }

  /** Whether the byte at `agreed` is in it. */
  #covers({ seq, end }: HeldFrame): boolean {
    return seqAtMost(seq, this.#agreed) && seqBefore(this.#agreed, end);
  }

  #agreeOn(p: HeldFrame, s: HeldFrame): boolean {
    const pSkip = seqDistance(this.#agreed, p.seq);
    const sSkip = seqDistance(this.#agreed, s.seq);
    const count = Math.min(p.length - pSkip, s.length - sSkip);
    // No byte is left on one side: then the FIN is what comes, and has to come on both.
    if (count === 0) {
      if (p.length - pSkip !== s.length - sSkip) return false;
      this.#agreed = seqAdd(this.#agreed, 1);
      return true;
    }
    if (!this.#comparer.same(p.frame, p.data + pSkip, s.frame, s.data + sSkip, count)) return false;
    this.#agreed = seqAdd(this.#agreed, count);
    return true;
  }

  /** Lets go of what is decided: the primary's in their order, the secondary's as they are. */
  #settle(): void {
    const { primary, secondary } = this;
    while (primary.length > 0 && this.#mayGo(primary[0]!)) this.#decided.release(primary.shift()!);
    let kept = 0;
    for (const held of secondary) {
      const done = held.seq === held.end || (this.#agreed >= 0 && seqAtMost(held.end, this.#agreed));
      if (done) this.#decided.discard(held);
      else secondary[kept++] = held;
    }
    secondary.length = kept;
  }

  #mayGo({ seq, end, ack, flags }: HeldFrame): boolean {
    if (seq !== end && (this.#agreed < 0 || seqBefore(this.#agreed, end))) return false;
    if ((flags & TCP_ACK_FLAG) === 0) return true;
    return this.#secondaryAck >= 0 && seqAtMost(ack, this.#secondaryAck);
  }

  /** After a checkpoint the secondary is what the primary was: the primary's frames go, the secondary's are of the past. */
  checkpoint(): void {
    for (const held of this.primary) {
      if (this.#agreed < 0 || seqBefore(this.#agreed, held.end)) this.#agreed = held.end;
      const acknowledges = (held.flags & TCP_ACK_FLAG) !== 0;
      if (acknowledges && (this.#secondaryAck < 0 || seqBefore(this.#secondaryAck, held.ack)))
        this.#secondaryAck = held.ack;
      this.#decided.release(held);
    }
    this.primary.length = 0;
    this.drop();
  }

  /** Gives up the secondary's frames. */
  drop(): void {
    for (const held of this.secondary) this.#decided.discard(held);
    this.secondary.length = 0;
  }

  /** Whether the oldest of the primary's frames came before `beforeNs`. */
  waitsSince(beforeNs: number): boolean {
    const first = this.primary[0];
    return first !== undefined && first.arrivedNs <= beforeNs;
  }

  get empty(): boolean {
    return this.primary.length === 0 && this.secondary.length === 0;
  }
}

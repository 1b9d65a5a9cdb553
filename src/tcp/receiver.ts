/**
 * The receiving half of a connection: what came in order and the sink has not taken, what came out of order, and the window.
 *
 *     segment ─▶ cut to its new bytes ─▶ in order: held ──deliver──▶ sink       out of order: queue, sorted, until the gap closes
 *
 * Frames are held as they came, cut to their payload (no copy). They are offered to the sink once per burst, all in one call; what it takes
 * is released, what it leaves stays held and keeps the window closed by as much. Received bytes are acknowledged: they are ours now,
 * whatever the sink does. Bounds: the window (bytes), OUT_OF_ORDER_MAX (frames), the stack's budget of held slots and of frames lent by
 * guests. Past them data is dropped unacknowledged and counted, which costs the peer a retransmission and us nothing. Small segments that
 * pile up behind a sink that takes nothing are gathered into one slot, so that a byte a segment cannot take a slot a byte.
 *
 * The window never takes back what it offered (RFC 9293 section 3.8.6) and moves only by worthwhile steps (silly window, 3.8.6.2.2).
 */

import { LENDER, LENGTH, NEXT, OFFSET, REFS, REGION, ROOM, SLOT, TOTAL } from '../core/pool.ts';
import { TCP_FIN, TCP_SACK_BLOCKS_MAX, type TcpOptions } from '../wire/tcp.ts';
import { cutFrame, FrameList } from './frames.ts';
import type { Segment } from './segment.ts';
import type { TcpStack } from './stack.ts';

/** As many full segments of an Ethernet as the largest window holds. */
const OUT_OF_ORDER_MAX = 768;
/** Words of an out-of-order entry: frame, sequence number, length. */
const ENTRY = 3;
const NO_FRAMES = new FrameList(1);

export class Receiver {
  /** The next sequence number expected (RCV.NXT). */
  next = 0;
  /** The right edge of the window offered. */
  edge = 0;
  /** How much is held, and how much of the first held frame the sink has taken already. */
  heldBytes = 0;
  skip = 0;
  /** The peer's FIN is in: nothing more comes. */
  finished = false;
  /** Sequence numbers taken since an acknowledgement was sent, and whether one must be sent at the end of the burst. */
  unacknowledged = 0;
  ackNow = false;
  readonly windowMax: number;
  #scale = 0;
  /** The widest window: what may be held, and what a header's field can say. */
  #most = 0;
  readonly #stack: TcpStack;
  /** `next` after the peer's SYN. */
  #start = 0;
  /** In order, for the sink. Shared and empty until something is held. */
  #held: FrameList = NO_FRAMES;
  #queue: Int32Array | null = null;
  #queued = 0;
  /** Sequence number of the latest out-of-order arrival: its block goes first (RFC 2018 section 4). */
  #latest = 0;
  /** The sequence number of a FIN that came out of order. */
  #finAt = 0;
  #finEarly = false;
  /** What came twice, to be told once (D-SACK, RFC 2883); empty: nothing. */
  #twiceFrom = 0;
  #twiceTo = 0;

  constructor(stack: TcpStack) {
    this.#stack = stack;
    this.windowMax = stack.settings.receiveWindowBytes;
    this.scale = 0;
  }

  /** The peer's SYN was seen: `next` is its successor. */
  start(next: number): void {
    this.next = next;
    this.#start = next;
    this.edge = (next + Math.min(this.windowMax, 0xffff)) | 0;
  }

  get outOfOrder(): number {
    return this.#queued;
  }

  /** Shift for the windows we send. */
  get scale(): number {
    return this.#scale;
  }

  set scale(scale: number) {
    this.#scale = scale;
    this.#most = Math.min(this.windowMax, 0xffff << scale);
  }

  /** Something for SACK blocks to tell. */
  get blocksWait(): boolean {
    return this.#queued > 0 || this.#twiceFrom !== this.#twiceTo;
  }

  /** [from, to) came again: the sender learns from it that a retransmission was needless. */
  noteTwice(from: number, to: number): void {
    this.#twiceFrom = from;
    this.#twiceTo = to;
  }

  /** Bytes the peer may still send. */
  get window(): number {
    return (this.edge - this.next) | 0;
  }

  /**
   * Whether part of a segment lies in the window (RFC 9293 section 3.10.7.4, first check). One without text may also lie at its right edge: from a peer that filled
   * the window and lost all of it every acknowledgement begins there, and two such peers would never hear each other.
   */
  acceptable(seq: number, length: number): boolean {
    const window = this.window;
    const at = (seq - this.next) | 0;
    if (length === 0) return at >= 0 && at <= window;
    return window > 0 && at < window && at + length > 0;
  }

  /**
   * Takes the text and FIN of an acceptable segment. Returns true when it keeps the frame. Sets what the acknowledgement needs.
   */
  take(segment: Segment): boolean {
    let front = (this.next - segment.seq) | 0;
    let length = segment.payloadBytes;
    let fin = (segment.flags & TCP_FIN) !== 0;
    if (front < 0) front = 0;
    const seq = (segment.seq + front) | 0;
    const room = (this.edge - seq) | 0;
    length -= front;
    if (length > room) {
      length = room;
      fin = false;
    }
    // A retransmission of what is here already: say so at once, the peer may have lost our acknowledgement.
    if (length < 0 || (length === 0 && !fin)) {
      this.ackNow = true;
      if (length <= 0) this.#stack.stats.rxDuplicateSegments++;
      if (segment.payloadBytes > 0) this.noteTwice(segment.seq, (segment.seq + segment.payloadBytes) | 0);
      return false;
    }
    if (seq !== this.next) return this.#takeEarly(segment, seq, front, length, fin);
    let kept = false;
    if (length > 0) {
      kept = this.#hold(segment, segment.payloadAt + front, length);
      if (!kept) {
        this.ackNow = true;
        return false;
      }
      this.unacknowledged += length;
    }
    if (fin) this.#finish();
    else if (this.#queued > 0 || this.#finEarly) this.#closeGap();
    return kept;
  }

  /** The FIN's acknowledgement may wait as data's may: often the user ends its side at once, and our FIN carries it. Not where a gap just closed. */
  #finish(): void {
    this.next = (this.next + 1) | 0;
    if (this.window < 0) this.edge = this.next;
    this.finished = true;
    this.unacknowledged++;
    if (this.#finEarly || this.#queued > 0) this.ackNow = true;
    this.#dropQueue();
  }

  /** Appends a frame's payload to what the sink is offered; false when a bound forbids it. */
  #hold(segment: Segment, at: number, length: number): boolean {
    const { pool, stats } = this.#stack;
    if (!this.#stack.mayHold(this.heldBytes > 0)) {
      stats.rxDropHeldBudget++;
      return false;
    }
    if (pool.table[segment.frame + LENDER] !== 0 && !this.#stack.mayHoldLent()) {
      const copy = pool.clone(segment.frame);
      if (copy === 0) {
        stats.rxDropNoSlot++;
        return false;
      }
      pool.release(segment.frame);
      segment.frame = copy;
    }
    const cut = cutFrame(pool, segment.frame, at, length);
    if (cut === 0) {
      stats.rxDropNoSlot++;
      return false;
    }
    this.#push(cut);
    this.next = (this.next + length) | 0;
    return true;
  }

  #push(frame: number): void {
    if (this.#held === NO_FRAMES) this.#held = new FrameList();
    this.#held.push(frame);
    this.heldBytes += this.#stack.pool.table[frame + TOTAL]!;
    this.#stack.held(frame);
  }

  #takeEarly(segment: Segment, seq: number, front: number, length: number, fin: boolean): boolean {
    const { pool, stats } = this.#stack;
    this.ackNow = true;
    if (fin) {
      this.#finEarly = true;
      this.#finAt = (seq + length) | 0;
    }
    if (length === 0) return false;
    const q = (this.#queue ??= new Int32Array(ENTRY * 8));
    // The new bytes go between entries i-1 and i.
    let i = this.#queued;
    while (i > 0 && ((q[ENTRY * (i - 1) + 1]! - seq) | 0) > 0) i--;
    let from = seq;
    let to = (seq + length) | 0;
    if (i > 0) {
      const end = (q[ENTRY * (i - 1) + 1]! + q[ENTRY * (i - 1) + 2]!) | 0;
      if (((end - from) | 0) > 0) from = end;
    }
    // Later entries that the new frame covers go; one that it reaches into cuts its end.
    let j = i;
    while (j < this.#queued) {
      const at = q[ENTRY * j + 1]!;
      if (((to - at) | 0) <= 0) break;
      if (((at + q[ENTRY * j + 2]! - to) | 0) > 0) {
        to = at;
        break;
      }
      j++;
    }
    const part = (to - from) | 0;
    if (part <= 0) {
      stats.rxDuplicateSegments++;
      this.noteTwice(seq, (seq + length) | 0);
      return false;
    }
    if (this.#queued - (j - i) >= OUT_OF_ORDER_MAX || !this.#stack.mayHold(true)) {
      stats.rxDropOutOfOrderBudget++;
      return false;
    }
    if (pool.table[segment.frame + LENDER] !== 0) {
      // A gap may last: give the guest its memory back.
      const copy = pool.clone(segment.frame);
      if (copy === 0) {
        stats.rxDropNoSlot++;
        return false;
      }
      pool.release(segment.frame);
      segment.frame = copy;
    }
    const cut = cutFrame(pool, segment.frame, segment.payloadAt + front + ((from - seq) | 0), part);
    if (cut === 0) {
      stats.rxDropNoSlot++;
      return false;
    }
    for (let k = i; k < j; k++) this.#stack.drop(q[ENTRY * k]!);
    this.#insert(i, j, cut, from, part);
    this.#stack.held(cut);
    this.#latest = from;
    return true;
  }

  #insert(i: number, j: number, frame: number, seq: number, length: number): void {
    let q = this.#queue!;
    if (j === i && ENTRY * (this.#queued + 1) > q.length) {
      q = new Int32Array(q.length * 2);
      q.set(this.#queue!);
      this.#queue = q;
    }
    if (j !== i + 1) q.copyWithin(ENTRY * (i + 1), ENTRY * j, ENTRY * this.#queued);
    this.#queued += 1 - (j - i);
    q[ENTRY * i] = frame;
    q[ENTRY * i + 1] = seq;
    q[ENTRY * i + 2] = length;
  }

  /** `next` moved: entries that it reached join what the sink is offered. */
  #closeGap(): void {
    const q = this.#queue;
    const { pool } = this.#stack;
    let i = 0;
    for (; i < this.#queued; i++) {
      const frame = q![ENTRY * i]!;
      const seq = q![ENTRY * i + 1]!;
      const length = q![ENTRY * i + 2]!;
      const front = (this.next - seq) | 0;
      if (front < 0) break;
      this.#stack.unheld(frame);
      if (front >= length) {
        pool.release(frame);
        continue;
      }
      const cut = front === 0 ? frame : cutFrame(pool, frame, front, length - front);
      if (cut === 0) {
        pool.release(frame);
        i++;
        break;
      }
      this.#push(cut);
      this.next = (this.next + length - front) | 0;
      this.unacknowledged += length - front;
      this.ackNow = true;
    }
    if (i > 0) {
      q!.copyWithin(0, ENTRY * i, ENTRY * this.#queued);
      this.#queued -= i;
    }
    if (this.#finEarly && this.#finAt === this.next) this.#finish();
  }

  /** Anything for the sink? */
  get waiting(): boolean {
    return this.heldBytes > 0;
  }

  /** The frames for the sink: items[head..tail), the first `skip` bytes of the first taken already. */
  get heldFrames(): FrameList {
    return this.#held;
  }

  /** The sink took `bytes`: releases frames that are done, and moves the window. */
  taken(bytes: number): void {
    const t = this.#stack.pool.table;
    const held = this.#held;
    this.heldBytes -= bytes;
    let left = this.skip + bytes;
    while (held.length > 0) {
      const frame = held.items[held.head]!;
      const size = t[frame + TOTAL]!;
      if (left < size) break;
      left -= size;
      held.shift();
      this.#stack.drop(frame);
    }
    this.skip = left;
    if (this.heldBytes > 0) this.#gather();
  }

  /** The sink leaves frames for longer: small ones move together, so that they do not keep large slots or one slot each. */
  #gather(): void {
    const held = this.#held;
    const { pool } = this.#stack;
    const t = pool.table;
    if (held.length < 4) return;
    let to = held.head + 1;
    for (let i = held.head + 1; i < held.tail; i++) {
      let frame = held.items[i]!;
      const size = t[frame + TOTAL]!;
      const last = held.items[to - 1]!;
      if (to - 1 > held.head && this.#joins(last, size)) {
        pool.read(frame, 0, pool.bytes, t[last + OFFSET]! + t[last + LENGTH]!, size);
        pool.setLength(last, t[last + LENGTH]! + size);
        this.#stack.drop(frame);
        continue;
      }
      if (size * 4 <= pool.smallBytes && (t[frame + ROOM]! > pool.smallBytes || t[frame + LENDER] !== 0)) {
        const copy = pool.alloc(size);
        if (copy !== 0) {
          pool.read(frame, 0, pool.bytes, t[copy + OFFSET]!, size);
          pool.setLength(copy, size);
          this.#stack.drop(frame);
          this.#stack.held(copy);
          frame = copy;
        }
      }
      held.items[to++] = frame;
    }
    held.tail = to;
  }

  #joins(last: number, size: number): boolean {
    const t = this.#stack.pool.table;
    if (t[last + REFS] !== 1 || t[last + NEXT] !== 0 || t[last + LENDER] !== 0 || t[last + REGION] !== 0)
      return false;
    return t[last + OFFSET]! + t[last + LENGTH]! + size <= t[last + SLOT]! + t[last + ROOM]!;
  }

  /**
   * Moves the right edge by what is free now, if the step is worth it, and returns the window field for a header. `syn`: not scaled
   * (RFC 7323 section 2.2).
   */
  offer(segmentBytes: number, syn: boolean): number {
    if (!syn && !this.finished) {
      const edge = this.#wantedEdge();
      const step = (edge - this.edge) | 0;
      if (step >= Math.min(segmentBytes, this.#most >> 1)) this.edge = edge;
    }
    const window = Math.max(0, this.window);
    return syn ? Math.min(window, 0xffff) : Math.min(window >>> this.scale, 0xffff);
  }

  #wantedEdge(): number {
    const free = Math.max(0, this.#most - this.heldBytes);
    return (this.next + Math.min(free, this.#stack.windowLimit(this.heldBytes > 0))) | 0;
  }

  /** Whether the sink took so much that the peer should hear of the wider window without waiting for more data. */
  windowOpened(segmentBytes: number): boolean {
    // Before the first data the window of the handshake is wide enough for any first flight.
    if (this.finished || this.next === this.#start) return false;
    const step = (this.#wantedEdge() - this.edge) | 0;
    return step >= Math.min(2 * segmentBytes, this.#most >> 1) && this.window < this.#most >> 1;
  }

  /** Fills in the SACK blocks: what came twice, then what is queued out of order, the latest first. */
  writeBlocks(options: TcpOptions): void {
    const q = this.#queue;
    let first = 0;
    options.sackCount = 0;
    if (this.#twiceFrom !== this.#twiceTo) {
      options.sackLeft[0] = this.#twiceFrom;
      options.sackRight[0] = this.#twiceTo;
      options.sackCount = 1;
      first = 1;
      this.#twiceTo = this.#twiceFrom;
    }
    if (q === null || this.#queued === 0) return;
    let count = first + 1;
    let i = 0;
    let found = false;
    while (i < this.#queued && count <= TCP_SACK_BLOCKS_MAX) {
      const left = q[ENTRY * i + 1]!;
      let right = (left + q[ENTRY * i + 2]!) | 0;
      i++;
      while (i < this.#queued && q[ENTRY * i + 1] === right) {
        right = (right + q[ENTRY * i + 2]!) | 0;
        i++;
      }
      const latest = !found && ((this.#latest - left) | 0) >= 0 && ((right - this.#latest) | 0) > 0;
      if (latest) found = true;
      const at = latest ? first : count;
      if (at >= TCP_SACK_BLOCKS_MAX) continue;
      options.sackLeft[at] = left;
      options.sackRight[at] = right;
      if (!latest) count++;
    }
    if (found) options.sackCount = Math.min(count, TCP_SACK_BLOCKS_MAX);
    else {
      // The latest block lies past what was looked at: shift the others down.
      for (let k = first + 1; k < count; k++) {
        options.sackLeft[k - 1] = options.sackLeft[k]!;
        options.sackRight[k - 1] = options.sackRight[k]!;
      }
      options.sackCount = count - 1;
    }
  }

  #dropQueue(): void {
    for (let i = 0; i < this.#queued; i++) this.#stack.drop(this.#queue![ENTRY * i]!);
    this.#queued = 0;
    this.#finEarly = false;
  }

  /** Gives every frame back. */
  clear(): void {
    this.#dropQueue();
    this.#queue = null;
    const held = this.#held;
    for (let i = held.head; i < held.tail; i++) this.#stack.drop(held.items[i]!);
    this.#held = NO_FRAMES;
    this.heldBytes = 0;
    this.skip = 0;
  }
}

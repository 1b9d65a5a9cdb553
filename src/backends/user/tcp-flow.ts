/**
 * One TCP connection of the guest and the host's stream socket at its other side.
 *
 *     guest ──segments──▶ engine ──deliver──▶ sendStream(frames) ──▶ host      payload goes out of the guest's own frames
 *     guest ◀──segments── engine ◀──send────  receiveStream(slots) ◀── host    payload lands behind room for the headers
 *
 * Neither way copies the payload here, and neither way has a buffer here: what the host does not take keeps the guest's window closed, what
 * the guest does not take stays in the host's socket. One receive call a burst, one send call a burst.
 *
 * Ends are carried over one by one: FIN becomes shutdown, end of stream becomes FIN, a reset is a reset on the other side. When both
 * directions are done on the host its socket is closed at once; the guest's side finishes by itself.
 *
 * Reading is steered by the guest's window: it happens when an acknowledgement makes room, straight from the burst that brought it. The
 * socket's readability is watched only while there is room and nothing to read, so a busy transfer makes no epoll_ctl calls.
 */

import { OFFSET, SLOT, TOTAL } from '../../core/pool.ts';
import { ERRNO, FAILED, type Handle, HUNG_UP, READABLE, WRITABLE } from '../../host-io/host-io.ts';
import type { CloseReason, Connection, TcpUser } from '../../tcp/connection.ts';
import { HEADER_ROOM } from '../../tcp/stack.ts';
import type { FlowList, Linked } from './flow-list.ts';
import type { Site } from './site.ts';

/** Most bytes read for one flow before others get their turn. */
const TURN_BYTES = 512 << 10;
const FRAMES_MAX = 64;
const LARGE_MAX = 8;

/** What a flow needs of whoever made it. */
export interface FlowOwner {
  /** The flow's host connection did not come about. `errno` is positive. */
  connectFailed(flow: TcpFlow, errno: number): void;
  /** Both sides stand. */
  established(flow: TcpFlow): void;
  /** The flow is over; its handle is closed. */
  ended(flow: TcpFlow): void;
  /** No slot was free: call `flow.resume` in a moment. */
  retry(flow: TcpFlow): void;
}

export class TcpFlow implements TcpUser, Linked<TcpFlow> {
  /** The owner's list it is in. */
  list: FlowList<TcpFlow> | null = null;
  older: TcpFlow | null = null;
  newer: TcpFlow | null = null;
  connection: Connection | null = null;
  handle: Handle;
  /** The host's connection stands. */
  connected: boolean;
  /** The host sends nothing more; the guest sends nothing more. */
  hostEnded = false;
  guestEnded = false;
  /** What it is, for listings. */
  readonly label: string;
  /** The host's connection was begun with a hop limit of its own, which ends when it stands. */
  hopLimited = false;
  readonly #site: Site;
  readonly #owner: FlowOwner;
  readonly #frames: Int32Array;
  #interest = 0;
  /** The last read filled its slots: more is likely waiting. */
  #bulk = false;
  #closed = false;
  #resetEarly = false;
  /** Bytes that go to the guest before those of the host, not sent yet; null: none. */
  #preamble: Uint8Array | null = null;

  /** `frames` is scratch that all flows share. */
  constructor(
    site: Site,
    owner: FlowOwner,
    handle: Handle,
    connected: boolean,
    label: string,
    frames: Int32Array,
  ) {
    this.#site = site;
    this.#owner = owner;
    this.handle = handle;
    this.connected = connected;
    this.label = label;
    this.#frames = frames;
  }

  /** Watches the host's socket: for the end of connecting, or for what comes. */
  start(): void {
    if (this.connected) this.#endHopLimit();
    // A host that speaks first is heard when the guest's side stands (`resume` finds no room before); most wait for the guest.
    this.#interest = this.connected ? READABLE : WRITABLE;
    this.#site.hostIo.watch(this.handle, this.#interest, (ready) => this.#ready(ready));
  }

  /** Puts bytes in front of what the host sends: before the guest's side stands, and few enough for any first window. */
  lead(preamble: Uint8Array): void {
    this.#preamble = preamble;
  }

  /** Sends the preamble as far as there is room; false when some is left. */
  #sendPreamble(c: Connection, preamble: Uint8Array): boolean {
    const done = c.write(preamble, 0, preamble.length);
    this.#preamble = done === preamble.length ? null : preamble.subarray(done);
    return this.#preamble === null;
  }

  #ready(ready: number): void {
    if (this.#closed) return;
    if (!this.connected) {
      this.#connectEnded(ready);
      return;
    }
    if ((ready & WRITABLE) !== 0) {
      this.#watch(this.#interest & ~WRITABLE);
      this.connection?.sinkReady();
    }
    if ((ready & (READABLE | HUNG_UP | FAILED)) !== 0 && !this.hostEnded) this.resume();
    if ((ready & FAILED) !== 0 && !this.#closed) {
      const errno = this.#site.hostIo.takeError(this.handle);
      if (errno !== 0) this.#hostFailed();
    }
  }

  #connectEnded(ready: number): void {
    const errno = this.#site.hostIo.takeError(this.handle);
    if (errno === ERRNO.ECONNRESET) {
      // The server took the connection and reset it: the guest sees the same.
      this.#resetEarly = true;
    } else if (errno !== 0) {
      this.#owner.connectFailed(this, errno);
      return;
    } else if ((ready & WRITABLE) === 0) return;
    this.connected = true;
    this.#endHopLimit();
    this.#watch(0);
    this.connection?.accept();
  }

  #endHopLimit(): void {
    if (this.hopLimited) this.#site.hostIo.setHopLimit?.(this.handle, 0);
    this.hopLimited = false;
  }

  #watch(interest: number): void {
    if (interest === this.#interest || this.#closed) return;
    this.#interest = interest;
    this.#site.hostIo.setInterest(this.handle, interest);
  }

  /** Moves what the host has to the guest, as far as the guest's window and this turn's budget go. */
  resume(): void {
    const c = this.connection;
    if (c === null || this.#closed || this.hostEnded || !this.connected) return;
    if (this.#preamble !== null && !this.#sendPreamble(c, this.#preamble)) {
      // As for data: an acknowledgement makes room, or a slot gets free.
      this.#watch(this.#interest & ~READABLE);
      return;
    }
    const { pool, hostIo } = this.#site;
    const frames = this.#frames;
    let budget = TURN_BYTES;
    while (budget > 0) {
      const room = c.sendRoom();
      if (room <= 0) {
        // The window opens by an acknowledgement, which calls sendReady.
        this.#watch(this.#interest & ~READABLE);
        return;
      }
      const each = this.#pieceBytes(c, room);
      const large = each > pool.smallBytes - HEADER_ROOM;
      const most = this.#bulk ? (large ? LARGE_MAX : FRAMES_MAX) : 1;
      const wanted = Math.max(1, Math.min(most, Math.floor(room / each)));
      let count = 0;
      while (count < wanted) {
        const frame = pool.alloc(HEADER_ROOM + each);
        if (frame === 0) break;
        frames[count++] = frame;
      }
      if (count === 0) {
        this.#watch(this.#interest & ~READABLE);
        this.#owner.retry(this);
        return;
      }
      const got = hostIo.receiveStream(this.handle, frames, 0, count, HEADER_ROOM, each);
      if (got <= 0) {
        pool.releaseAll(frames, 0, count);
        this.#endOfRead(c, got);
        return;
      }
      this.#send(c, count, each, got);
      if (this.#closed) return;
      budget -= got;
      this.#bulk = got === count * each;
      if (!this.#bulk) break;
    }
    this.#watch(this.#interest | READABLE);
  }

  /** How many bytes each frame should carry: a segment, or a run of whole segments that the guest's side cuts up. */
  #pieceBytes(c: Connection, room: number): number {
    const small = this.#site.pool.smallBytes - HEADER_ROOM;
    const segment = c.sender.segmentBytes;
    let each = c.unitBytes;
    if (each > small && !this.#bulk) return Math.min(small, room);
    if (each > room) each = room > segment ? room - (room % segment) : room;
    return each;
  }

  #send(c: Connection, count: number, each: number, got: number): void {
    const { pool } = this.#site;
    const frames = this.#frames;
    let left = got;
    for (let i = 0; i < count; i++) {
      const frame = frames[i];
      if (left <= 0) {
        pool.release(frame);
        continue;
      }
      pool.table[frame + OFFSET] = pool.table[frame + SLOT] + HEADER_ROOM;
      pool.setLength(frame, Math.min(left, each));
      left -= each;
      c.send(frame);
    }
  }

  #endOfRead(c: Connection, got: number): void {
    if (got === -ERRNO.EAGAIN || got === -ERRNO.EINTR) {
      this.#bulk = false;
      this.#watch(this.#interest | READABLE);
    } else if (got === 0) {
      this.hostEnded = true;
      c.close();
      // A socket that closes now need not be told what is of interest no more.
      if (this.guestEnded) this.#release(false);
      else this.#watch(this.#interest & ~READABLE);
    } else this.#hostFailed();
  }

  #hostFailed(): void {
    const c = this.connection;
    this.connection = null;
    this.#release(true);
    c?.abort();
  }

  // The engine's side.

  established(c: Connection): void {
    this.connection = c;
    this.#owner.established(this);
    if (this.#resetEarly) this.#hostFailed();
  }

  deliver(_c: Connection, frames: Int32Array, from: number, to: number, skip: number): number {
    if (this.#closed) return 0;
    const sent = this.#site.hostIo.sendStream(this.handle, frames, from, to, skip);
    if (sent < 0) {
      if (sent === -ERRNO.EAGAIN || sent === -ERRNO.ENOBUFS || sent === -ERRNO.EINTR) {
        this.#watch(this.#interest | WRITABLE);
        return 0;
      }
      this.#hostFailed();
      return 0;
    }
    const { table } = this.#site.pool;
    let offered = -skip;
    for (let i = from; i < to && offered <= sent; i++) offered += table[frames[i] + TOTAL];
    if (sent < offered) this.#watch(this.#interest | WRITABLE);
    return sent;
  }

  sendReady(): void {
    this.resume();
  }

  peerClosed(): void {
    if (this.#closed) return;
    this.guestEnded = true;
    this.#site.hostIo.shutdownWrite(this.handle);
    if (this.hostEnded) this.#release(false);
  }

  closed(_c: Connection, reason: CloseReason): void {
    this.connection = null;
    this.#release(reason !== 'closed');
  }

  /** Closes the host's socket, with a reset if something was cut off. */
  #release(reset: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    if (reset && this.connected) this.#site.hostIo.reset(this.handle);
    else this.#site.hostIo.close(this.handle);
    this.#owner.ended(this);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Ends both sides now. */
  close(): void {
    const c = this.connection;
    this.connection = null;
    this.#release(true);
    c?.abort();
  }

  /** Gives the host's socket back after a failed connect; the engine's side is the caller's matter. */
  drop(): void {
    this.connection = null;
    this.#release(false);
  }
}

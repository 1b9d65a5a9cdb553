/**
 * Frames over one stream connection, a 4-byte length before each: the port of `socket` (listen, connect, fd) and `stream`, whose connection
 * comes and goes while the port stays (stream-peer.ts makes connections).
 *
 * Towards the guest: frame-reader.ts. What the peer refuses waits here, one batch; what lies behind it waits in the reader's chunk and in
 * the kernel. Towards the host: a batch goes out by one call; a frame that was sent in part is taken and finished when the socket is writable
 * again, so that at most one frame waits here.
 *
 * The framing cannot lose step: a length over the maximum closes the connection, and so does its end within a frame, whose beginning is
 * thrown away.
 */

import { TOTAL } from '../core/pool.ts';
import { type Client, Port } from '../core/port.ts';
import { ERRNO, FAILED, type Handle, type HostIo, HUNG_UP, READABLE, WRITABLE } from '../host-io/host-io.ts';
import { FRAMING_PREFIX_BYTES } from '../wire/framing.ts';
import type { BackendContext } from './backend.ts';
import { FrameReader, NO_SLOT } from './frame-reader.ts';

export class StreamPortStats {
  rxFrames = 0;
  rxBytes = 0;
  rxDropShort = 0;
  /** Connections closed for a length over the maximum. */
  rxBadLength = 0;
  /** Frames of which the connection's end cut off a part. */
  rxDropCut = 0;
  rxRefused = 0;
  rxWaitNoSlot = 0;
  txFrames = 0;
  txBlocked = 0;
  /** Frames under way when the connection ended. */
  txDropDisconnected = 0;
  txDropHostError = 0;
  /** Connections made, and lost. */
  connected = 0;
  disconnected = 0;
}

/** Why a connection ended. */
export type LostReason = 'closed' | 'bad-length' | 'error';

const ETHERNET_HEADER_BYTES = 14;
const BATCH = 256;
const READS = 4;
/** A wake-up that brings less than this is no bulk transfer. */
const LITTLE_BYTES = 2048;
const STARVED_NS = 1_000_000;

export class StreamPort implements Client {
  readonly port: Port;
  readonly stats = new StreamPortStats();
  readonly #context: BackendContext;
  readonly #hostIo: HostIo;
  readonly #reader: FrameReader;
  readonly #lost: (reason: LostReason, errno: number) => void;
  readonly #batch = new Int32Array(BATCH);
  readonly #starved;
  #handle: Handle = 0;
  #heldFrom = 0;
  #heldTo = 0;
  #interest = 0;
  /** A frame of which `#sentBytes` bytes went out (its length's 4 among them), in a list of one. */
  readonly #partial = new Int32Array(1);
  #sentBytes = 0;
  #writeBlocked = false;

  /** `lost`: the connection is over, and closed. */
  constructor(
    name: string,
    context: BackendContext,
    hostIo: HostIo,
    lost: (reason: LostReason, errno: number) => void,
  ) {
    this.#context = context;
    this.#hostIo = hostIo;
    this.#lost = lost;
    this.#reader = new FrameReader(context.pool);
    this.port = new Port(name, 'backend', this, context);
    this.port.setCarrier(false);
    this.#starved = context.loop.timer(() => this.#resume());
  }

  get isConnected(): boolean {
    return this.#handle !== 0;
  }

  /** Takes over a connected stream; the link goes up. */
  attach(handle: Handle): void {
    this.#handle = handle;
    this.#interest = READABLE;
    this.stats.connected++;
    this.#hostIo.watch(handle, READABLE, (ready) => {
      if ((ready & WRITABLE) !== 0) this.#writable();
      if ((ready & (READABLE | FAILED | HUNG_UP)) !== 0) this.#readable();
    });
    this.port.setCarrier(true);
  }

  /** Ends the connection: the link goes down, what was under way is dropped. */
  detach(): void {
    if (this.#handle === 0) return;
    const { pool } = this.#context;
    this.#hostIo.close(this.#handle);
    this.#handle = 0;
    this.#interest = 0;
    this.#starved.cancel();
    this.stats.disconnected++;
    if (this.#reader.midFrame) this.stats.rxDropCut++;
    this.#reader.reset();
    pool.releaseAll(this.#batch, this.#heldFrom, this.#heldTo);
    this.#heldFrom = this.#heldTo = 0;
    if (this.#sentBytes > 0) {
      pool.release(this.#partial[0]!);
      this.#sentBytes = 0;
      this.stats.txDropDisconnected++;
    }
    this.#writeBlocked = false;
    this.port.setCarrier(false);
  }

  #end(reason: LostReason, errno: number): void {
    this.detach();
    this.#lost(reason, errno);
  }

  #setInterest(bit: number, on: boolean): void {
    if (this.#handle === 0) return;
    this.#interest = on ? this.#interest | bit : this.#interest & ~bit;
    this.#hostIo.setInterest(this.#handle, this.#interest);
  }

  #readable(): void {
    let received = 0;
    for (let reads = 0; reads < READS; reads++) {
      if (this.#handle === 0) return;
      if (this.#heldTo !== 0 || this.#starved.armed) {
        this.#setInterest(READABLE, false);
        return;
      }
      const got = this.#reader.receive(this.#hostIo, this.#handle);
      if (got === NO_SLOT) {
        this.#starve();
        return;
      }
      if (got === 0) {
        this.#end('closed', 0);
        return;
      }
      if (got < 0) {
        if (got === -ERRNO.EAGAIN) break;
        this.#end('error', -got);
        return;
      }
      received += got;
      this.stats.rxBytes += got;
      if (!this.#parse()) return;
    }
    if (received < LITTLE_BYTES) this.#reader.idle();
  }

  /** Sends every frame that has come in whole; false when that cannot go on now. */
  #parse(): boolean {
    const { pool } = this.#context;
    const t = pool.table;
    const batch = this.#batch;
    for (;;) {
      const count = this.#reader.take(batch, BATCH);
      let n = 0;
      for (let i = 0; i < count; i++) {
        const frame = batch[i]!;
        if (t[frame + TOTAL]! >= ETHERNET_HEADER_BYTES) batch[n++] = frame;
        else {
          this.stats.rxDropShort++;
          pool.release(frame);
        }
      }
      if (n > 0) {
        const taken = this.port.send(batch, 0, n);
        this.stats.rxFrames += taken;
        if (taken < n) {
          this.stats.rxRefused++;
          if (this.#handle === 0) {
            // The peer's answer ended the connection.
            pool.releaseAll(batch, taken, n);
            return false;
          }
          this.#heldFrom = taken;
          this.#heldTo = n;
          return false;
        }
      }
      if (this.#reader.bad) {
        this.stats.rxBadLength++;
        this.#end('bad-length', 0);
        return false;
      }
      if (this.#handle === 0) return false;
      if (count < BATCH) return true;
    }
  }

  #starve(): void {
    this.stats.rxWaitNoSlot++;
    this.#setInterest(READABLE, false);
    this.#starved.armIn(STARVED_NS);
  }

  #resume(): void {
    if (this.#handle !== 0 && this.#heldTo === 0 && this.#parse()) this.#setInterest(READABLE, true);
  }

  get waiting(): number {
    return this.#heldTo - this.#heldFrom;
  }

  peerReady(): void {
    if (this.#handle === 0) return;
    if (this.#heldTo !== 0) {
      const taken = this.port.send(this.#batch, this.#heldFrom, this.#heldTo);
      this.stats.rxFrames += taken;
      this.#heldFrom += taken;
      if (this.#heldFrom < this.#heldTo) return;
      this.#heldFrom = this.#heldTo = 0;
    }
    if (!this.#starved.armed) this.#resume();
  }

  receive(frames: Int32Array, from: number, to: number): number {
    if (this.#writeBlocked) return 0;
    const { pool } = this.#context;
    if (this.#handle === 0) {
      this.stats.txDropDisconnected += to - from;
      pool.releaseAll(frames, from, to);
      return to - from;
    }
    let at = from;
    while (at < to) {
      const sent = this.#hostIo.sendFramed(this.#handle, frames, at, to, 0);
      if (sent < 0) {
        if (sent === -ERRNO.EAGAIN) {
          this.#block();
          break;
        }
        if (sent === -ERRNO.EMSGSIZE || sent === -ERRNO.EINVAL) {
          // A frame of too many pieces: that one only.
          this.stats.txDropHostError++;
          pool.release(frames[at++]!);
          continue;
        }
        this.stats.txDropDisconnected += to - at;
        pool.releaseAll(frames, at, to);
        this.#end('error', -sent);
        return to - from;
      }
      const before = at;
      at = this.#account(frames, at, to, sent);
      if (this.#sentBytes > 0) {
        this.#block();
        break;
      }
      if (at === before) break;
    }
    return at - from;
  }

  /** Releases the frames that `bytes` sent bytes cover; one that is covered in part is kept. Returns the first frame that is not ours now. */
  #account(frames: Int32Array, at: number, to: number, bytes: number): number {
    const { pool } = this.#context;
    const t = pool.table;
    while (bytes > 0 && at < to) {
      const frame = frames[at]!;
      const size = t[frame + TOTAL]! + FRAMING_PREFIX_BYTES;
      at++;
      if (bytes < size) {
        this.#partial[0] = frame;
        this.#sentBytes = bytes;
        return at;
      }
      bytes -= size;
      this.stats.txFrames++;
      pool.release(frame);
    }
    return at;
  }

  #block(): void {
    this.stats.txBlocked++;
    this.#writeBlocked = true;
    this.#setInterest(WRITABLE, true);
  }

  #writable(): void {
    if (!this.#writeBlocked) {
      this.#setInterest(WRITABLE, false);
      return;
    }
    if (this.#sentBytes > 0) {
      const frame = this.#partial[0]!;
      const size = this.#context.pool.table[frame + TOTAL]! + FRAMING_PREFIX_BYTES;
      const sent = this.#hostIo.sendFramed(this.#handle, this.#partial, 0, 1, this.#sentBytes);
      if (sent < 0) {
        if (sent !== -ERRNO.EAGAIN) this.#end('error', -sent);
        return;
      }
      this.#sentBytes += sent;
      if (this.#sentBytes < size) return;
      this.#sentBytes = 0;
      this.stats.txFrames++;
      this.#context.pool.release(frame);
    }
    this.#writeBlocked = false;
    this.port.ready();
  }

  /** True while the host takes no frames. */
  get blocked(): boolean {
    return this.#writeBlocked;
  }
}

/**
 * Frames as datagrams: one frame a datagram, on a UDP, unix or raw IP socket, for dgram, socket (udp, mcast), l2tpv3 and vde.
 *
 * A UDP socket asks for UDP_GRO: where the peer sends runs of equal-size datagrams (as netemu does, by UDP_SEGMENT), a run arrives as one
 * message in one slot and becomes frames by reference. A tunnel header before each frame is its owner's (`Encapsulation`); it is
 * written to a buffer beside the frames, which stay as they are.
 */

import { type FramePool, GSO_SIZE, LENGTH, NEXT, OFFSET, TOTAL } from '../core/pool.ts';
import { ADDRESS_BYTES, type Endpoint, ERRNO, type Handle, type HostIo } from '../host-io/host-io.ts';
import type { BackendContext } from './backend.ts';
import { FramePort, FramePortStats } from './frame-port.ts';

/** A header in front of each frame. */
export interface Encapsulation {
  readonly headerBytes: number;
  /** Writes headers for the next `count` datagrams to `target`. */
  write(target: Uint8Array, count: number): void;
  /** The first `count` of those went out. */
  sent(count: number): void;
  /** Whether a datagram at bytes[offset..end) is ours; counts it if not. Its frame then begins behind the header. */
  check(bytes: Uint8Array, offset: number, end: number): boolean;
}

export class DatagramPortStats extends FramePortStats {
  /** Datagrams that came as part of a run. */
  rxRunFrames = 0;
  /** Own datagrams that a multicast group brought back. */
  rxOwnEchoes = 0;
}

export interface DatagramPortOptions {
  /** 0: none yet, `attach` brings one. */
  readonly receive: Handle;
  /** Equal to `receive` when absent. */
  readonly send?: Handle;
  /** Where to send; absent: the socket is connected. */
  readonly remote?: Endpoint;
  readonly encapsulation?: Encapsulation;
  /** Datagrams from this source (20 bytes, ADDRESS_BYTES) are our own, echoed. */
  readonly ownSource?: Uint8Array;
  /** Makes a socket whose peer is not there work again; returns whether that was done. */
  readonly reconnect?: () => boolean;
}

const ETHERNET_HEADER_BYTES = 14;
/** Frames whose headers are written for one call. */
const HEADERS = 256;
const MESSAGES = 64;

export class DatagramPort extends FramePort {
  readonly stats: DatagramPortStats;
  readonly #remote: Endpoint | undefined;
  readonly #encapsulation: Encapsulation | null;
  readonly #headerBytes: number;
  readonly #headers: Uint8Array;
  readonly #staged: Int32Array;
  readonly #own: Uint8Array | null;
  readonly #addresses: Uint8Array | undefined;
  readonly #reconnect: (() => boolean) | null;

  constructor(
    name: string,
    context: BackendContext,
    hostIo: HostIo,
    options: DatagramPortOptions,
    stats = new DatagramPortStats(),
  ) {
    super(name, context, hostIo);
    this.stats = stats;
    this.#remote = options.remote;
    this.#encapsulation = options.encapsulation ?? null;
    this.#headerBytes = options.encapsulation?.headerBytes ?? 0;
    this.#headers = new Uint8Array(this.#headerBytes * HEADERS);
    this.#staged = new Int32Array(this.#headerBytes > 0 ? HEADERS : 0);
    this.#own = options.ownSource ?? null;
    this.#addresses = options.ownSource && new Uint8Array(MESSAGES * ADDRESS_BYTES);
    this.#reconnect = options.reconnect ?? null;
    if (options.receive !== 0) this.attach(options.receive, options.send ?? options.receive);
  }

  protected read(slots: Int32Array, count: number, spill: Int32Array): number {
    return this.hostIo.receiveDatagrams(this.receiveHandle, slots, 0, count, 0, this.#addresses, spill);
  }

  protected write(frames: Int32Array, from: number, to: number): number {
    const encapsulation = this.#encapsulation;
    if (encapsulation === null)
      return this.hostIo.sendDatagrams(this.sendHandle, frames, from, to, this.#remote);
    const count = Math.min(to - from, HEADERS);
    const staged = this.#staged;
    for (let i = 0; i < count; i++) staged[i] = frames[from + i]!;
    encapsulation.write(this.#headers, count);
    const sent = this.hostIo.sendDatagrams(
      this.sendHandle,
      staged,
      0,
      count,
      this.#remote,
      this.#headers,
      this.#headerBytes,
    );
    if (sent > 0) encapsulation.sent(sent);
    return sent;
  }

  protected override mend(errno: number): boolean {
    if (this.#reconnect === null) return errno === ERRNO.ECONNREFUSED;
    return this.#reconnect();
  }

  /** A socket is not lost by any error. */
  protected gone(): void {}

  protected override unpack(frames: Int32Array, count: number): number {
    const { pool } = this.context;
    const t = pool.table;
    const own = this.#own;
    let n = 0;
    for (let i = 0; i < count; i++) {
      const frame = frames[i]!;
      if (own !== null && this.#isOwn(i)) {
        this.stats.rxOwnEchoes++;
        pool.release(frame);
        continue;
      }
      const size = t[frame + GSO_SIZE]!;
      const total = t[frame + TOTAL]!;
      if (size > 0 && size < total) {
        n = this.#unpackRun(frame, size, total, n);
        continue;
      }
      const at = t[frame + OFFSET]!;
      if (!this.#isFrame(pool.bytes, at, t[frame + LENGTH]!, total)) {
        pool.release(frame);
        continue;
      }
      const header = this.#headerBytes;
      if (header > 0) {
        t[frame + OFFSET] = at + header;
        t[frame + LENGTH] = t[frame + LENGTH]! - header;
        t[frame + TOTAL] = total - header;
      }
      if (n === this.batch.length) this.#grow();
      this.batch[n++] = frame;
    }
    return n;
  }

  /** Checks a datagram of `total` bytes, the first `length` of them at `at`; counts what is wrong with it. */
  #isFrame(bytes: Uint8Array, at: number, length: number, total: number): boolean {
    if (this.#encapsulation !== null && !this.#encapsulation.check(bytes, at, at + length)) return false;
    if (total - this.#headerBytes >= ETHERNET_HEADER_BYTES) return true;
    this.stats.rxDropShort++;
    return false;
  }

  /** Each `size` bytes of the message, and what is left at its end, become a frame on the message's own slot. */
  #unpackRun(run: number, size: number, total: number, n: number): number {
    const { pool } = this.context;
    const t = pool.table;
    const { stats } = this;
    const header = this.#headerBytes;
    let segment = run;
    let segmentStart = 0;
    for (let from = 0; from < total; from += size) {
      const length = Math.min(size, total - from);
      while (from >= segmentStart + t[segment + LENGTH]!) {
        segmentStart += t[segment + LENGTH]!;
        segment = t[segment + NEXT]!;
      }
      stats.rxRunFrames++;
      const at = t[segment + OFFSET]! + from - segmentStart;
      const frame =
        from + length <= segmentStart + t[segment + LENGTH]!
          ? pool.part(run, at, length)
          : copied(pool, run, from, length);
      if (frame === 0) {
        stats.rxDropNoRecord++;
        continue;
      }
      const start = t[frame + OFFSET]!;
      if (!this.#isFrame(pool.bytes, start, length, length)) {
        pool.release(frame);
        continue;
      }
      t[frame + OFFSET] = start + header;
      pool.setLength(frame, length - header);
      if (n === this.batch.length) this.#grow();
      this.batch[n++] = frame;
    }
    pool.release(run);
    return n;
  }

  #isOwn(i: number): boolean {
    const own = this.#own!;
    const addresses = this.#addresses!;
    const at = i * ADDRESS_BYTES;
    for (let k = 0; k < ADDRESS_BYTES; k++) if (addresses[at + k] !== own[k]) return false;
    return true;
  }

  #grow(): void {
    const larger = new Int32Array(this.batch.length * 2);
    larger.set(this.batch);
    this.batch = larger;
  }
}

/** The one datagram of a run that lies across two slots. */
function copied(pool: FramePool, run: number, from: number, length: number): number {
  const frame = pool.alloc(length);
  if (frame === 0) return 0;
  pool.read(run, from, pool.bytes, pool.table[frame + OFFSET]!, length);
  pool.setLength(frame, length);
  return frame;
}

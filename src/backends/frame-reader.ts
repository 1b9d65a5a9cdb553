/**
 * Frames out of a byte stream, each behind a 4-byte big-endian length, without a copy: the stream is received into chunks (slots of the
 * pool), and a frame is a part of its chunk's slot, by reference. A frame that goes on in the next chunk has a segment in each.
 *
 *     chunk  |len|frame....|len|frame..........|len|frame...        |   room   |
 *                                              ^start          ^parsed     ^fill
 *
 * Two things are moved to the head of the next chunk: a length of which not all bytes came, and a beginning of a frame shorter than
 * PRIVATE_BYTES, which must lie in one piece. That is at most 195 bytes a chunk.
 *
 * A chunk is small until one read fills it, and large from then on until little comes: a lone short frame that waits somewhere holds 2 KiB,
 * not 72. It is filled by as many reads as fit.
 */

import { type FramePool, PRIVATE_BYTES, ROOM, SLOT } from '../core/pool.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import { u32be } from '../wire/bytes.ts';
import { FRAMING_MAX_FRAME_BYTES, FRAMING_PREFIX_BYTES } from '../wire/framing.ts';

/** `receive`: nothing received, for want of a slot. */
export const NO_SLOT = -0x10000;

export class FrameReader {
  /** The peer sent a length over the maximum: nothing behind it can be trusted. */
  bad = false;
  readonly #pool: FramePool;
  readonly #maxFrameBytes: number;
  readonly #one = new Int32Array(1);
  #chunk = 0;
  /** Bytes of the chunk that were received, and that were made frames of. */
  #fill = 0;
  #parsed = 0;
  #large = false;
  /** A frame under way that began in an earlier chunk, and its bytes still to come. */
  #frame = 0;
  #missing = 0;

  constructor(pool: FramePool, maxFrameBytes = FRAMING_MAX_FRAME_BYTES) {
    this.#pool = pool;
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Whether the stream may not end here: a frame, or its length, has come only in part. */
  get midFrame(): boolean {
    return this.#frame !== 0 || this.#parsed < this.#fill;
  }

  /** Bytes that can still be received into the chunk. */
  get #room(): number {
    return this.#chunk === 0 ? 0 : this.#pool.table[this.#chunk + ROOM]! - this.#fill;
  }

  /** Receives what is there, up to one chunk. Returns the bytes, 0 at the stream's end, NO_SLOT, or a negative errno. */
  receive(hostIo: HostIo, handle: Handle): number {
    if (this.#room === 0 && !this.#nextChunk()) return NO_SLOT;
    const room = this.#room;
    this.#one[0] = this.#chunk;
    const got = hostIo.receiveStream(handle, this.#one, 0, 1, this.#fill, room);
    if (got > 0) {
      this.#fill += got;
      if (got === room) this.#large = true;
    }
    return got;
  }

  /** Little comes: chunks are small again, and a chunk of which nothing waits is let go. */
  idle(): void {
    this.#large = false;
    if (this.#chunk === 0 || this.#parsed < this.#fill) return;
    this.#pool.release(this.#chunk);
    this.#chunk = 0;
  }

  /** Takes a new chunk; what the old one holds of a frame under way is kept by reference, or moved. False: nothing has changed. */
  #nextChunk(): boolean {
    const pool = this.#pool;
    const t = pool.table;
    let next = this.#large ? pool.allocLarge() : pool.alloc(0);
    if (next === 0) next = this.#large ? pool.alloc(0) : pool.allocLarge();
    if (next === 0) return false;
    const old = this.#chunk;
    let moved = 0;
    if (old !== 0) {
      const from = t[old + SLOT]! + this.#parsed;
      const rest = this.#fill - this.#parsed;
      const mayMove = this.#frame === 0 && rest < FRAMING_PREFIX_BYTES + PRIVATE_BYTES;
      if (mayMove && !this.#holdsFrame(from, rest)) {
        pool.bytes.copyWithin(t[next + SLOT]!, from, from + rest);
        moved = rest;
      } else if (!this.#keep(from, rest)) {
        pool.release(next);
        return false;
      }
      pool.release(old);
    }
    this.#chunk = next;
    this.#fill = moved;
    this.#parsed = 0;
    return true;
  }

  /** Whether a whole frame lies there that `take` has not made yet, for want of a record. */
  #holdsFrame(from: number, rest: number): boolean {
    return rest >= FRAMING_PREFIX_BYTES && rest >= FRAMING_PREFIX_BYTES + u32be(this.#pool.bytes, from);
  }

  /** The chunk ends within a frame: the part that lies here becomes a segment of it. */
  #keep(from: number, rest: number): boolean {
    const pool = this.#pool;
    if (this.#frame !== 0) {
      const more = pool.part(this.#chunk, from, rest);
      if (more === 0) return false;
      pool.append(this.#frame, more);
      this.#missing -= rest;
      return true;
    }
    if (this.#holdsFrame(from, rest)) return false;
    const length = rest - FRAMING_PREFIX_BYTES;
    const frame = pool.part(this.#chunk, from + FRAMING_PREFIX_BYTES, length);
    if (frame === 0) return false;
    this.#frame = frame;
    this.#missing = u32be(pool.bytes, from) - length;
    return true;
  }

  /**
   * Makes frames of what was received and not parsed yet, up to `limit`, to `batch[0..)`. Returns how many. Fewer than `limit`: all is
   * parsed, or `bad` is set, or no record was free and a later call goes on.
   */
  take(batch: Int32Array, limit: number): number {
    const pool = this.#pool;
    if (this.#chunk === 0) return 0;
    const slot = pool.table[this.#chunk + SLOT]!;
    let n = 0;
    if (this.#frame !== 0) {
      if (this.#fill - this.#parsed < this.#missing) return 0;
      const more = pool.part(this.#chunk, slot + this.#parsed, this.#missing);
      if (more === 0) return 0;
      pool.append(this.#frame, more);
      this.#parsed += this.#missing;
      batch[n++] = this.#frame;
      this.#frame = 0;
    }
    while (n < limit && this.#fill - this.#parsed >= FRAMING_PREFIX_BYTES) {
      const at = slot + this.#parsed;
      const length = u32be(pool.bytes, at);
      if (length > this.#maxFrameBytes) {
        this.bad = true;
        break;
      }
      if (this.#fill - this.#parsed < FRAMING_PREFIX_BYTES + length) break;
      const frame = pool.part(this.#chunk, at + FRAMING_PREFIX_BYTES, length);
      if (frame === 0) break;
      batch[n++] = frame;
      this.#parsed += FRAMING_PREFIX_BYTES + length;
    }
    return n;
  }

  /** Lets go of everything; a new connection starts afresh. */
  reset(): void {
    if (this.#frame !== 0) this.#pool.release(this.#frame);
    if (this.#chunk !== 0) this.#pool.release(this.#chunk);
    this.#frame = this.#chunk = 0;
    this.#fill = this.#parsed = this.#missing = 0;
    this.#large = false;
    this.bad = false;
  }
}

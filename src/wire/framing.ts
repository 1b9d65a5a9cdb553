/**
 * Frames on a byte stream, as QEMU's socket and stream netdevs send them: a 4-byte big-endian length, then the frame.
 *
 * A stream arrives in chunks cut anywhere, even inside a length. `StreamFraming` keeps the state between chunks and
 * tells where the bytes of frames lie in the chunk at hand; copying, or using them in place, is the caller's:
 *
 *   framing.begin(from);
 *   while ((found = framing.next(chunk, end)) > 0) {
 *     // chunk[pieceStart..pieceEnd) are bytes pieceAt.. of a frame of frameBytes; FRAMING_FRAME: its last ones.
 *   }
 *   // found is FRAMING_MORE: all used, wait for the next chunk; or FRAMING_BAD: close the peer.
 */

import { putU32be } from './bytes.ts';

export const FRAMING_PREFIX_BYTES = 4;
/** 64 KiB of GSO payload and its headers. */
export const FRAMING_MAX_FRAME_BYTES = 69632;

export const FRAMING_BAD = -1;
export const FRAMING_MORE = 0;
export const FRAMING_PIECE = 1;
export const FRAMING_FRAME = 2;

export class StreamFraming {
  /** The length of the frame under way. May be 0: such a frame has one empty, final piece. */
  frameBytes = 0;
  pieceStart = 0;
  pieceEnd = 0;
  /** Where in the frame the piece belongs. */
  pieceAt = 0;

  readonly #maxBytes: number;
  #position = 0;
  #prefixBytes = 0;
  #done = 0;
  #bad = false;

  constructor(maxFrameBytes = FRAMING_MAX_FRAME_BYTES) {
    this.#maxBytes = maxFrameBytes;
  }

  /** Forgets a half-received frame and an error: for a new connection. */
  reset(): void {
    this.frameBytes = 0;
    this.#prefixBytes = 0;
    this.#done = 0;
    this.#bad = false;
  }

  /** Starts on a new chunk, whose first unread byte is at `offset`. */
  begin(offset: number): void {
    this.#position = offset;
  }

  /** Whether a frame, or its length, has come only in part: a peer that leaves now cut it off. */
  get midFrame(): boolean {
    return this.#prefixBytes !== 0;
  }

  /** Finds the next piece before `end`. A length over the maximum is FRAMING_BAD, and stays so until `reset`. */
  next(bytes: Uint8Array, end: number): number {
    if (this.#bad) return FRAMING_BAD;
    while (this.#prefixBytes < FRAMING_PREFIX_BYTES) {
      if (this.#position >= end) return FRAMING_MORE;
      if (this.#prefixBytes === 0) this.frameBytes = 0;
      this.frameBytes = this.frameBytes * 256 + bytes[this.#position++];
      this.#prefixBytes++;
      this.#done = 0;
    }
    if (this.frameBytes > this.#maxBytes) {
      this.#bad = true;
      return FRAMING_BAD;
    }
    const missing = this.frameBytes - this.#done;
    if (missing > 0 && this.#position >= end) return FRAMING_MORE;
    const length = Math.min(missing, end - this.#position);
    this.pieceStart = this.#position;
    this.pieceEnd = this.#position + length;
    this.pieceAt = this.#done;
    this.#position += length;
    this.#done += length;
    if (length < missing) return FRAMING_PIECE;
    this.#prefixBytes = 0;
    return FRAMING_FRAME;
  }
}

/** Writes the length in front of a frame. Returns 4. */
export function writeFramingPrefix(bytes: Uint8Array, offset: number, frameBytes: number): number {
  putU32be(bytes, offset, frameBytes);
  return FRAMING_PREFIX_BYTES;
}

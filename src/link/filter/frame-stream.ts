/**
 * Frames on a chardev, as filter-mirror, filter-redirector and colo-compare write and read them:
 *
 *     length (4 bytes, big-endian) [header length (4, with vnet_hdr_support)] [virtio_net_hdr] frame        length counts header and frame
 *
 * How long the header is depends on the link that the frame is on, not on the stream: 0 where frames have none (most netdevs), 10, 12 or 20 where
 * a virtio-net guest's frames pass with theirs (a tap). QEMU's readers take a header of the length that their own netdev has.
 *
 * `FrameWriter` gathers frames in one buffer that is written when the loop's turn ends or the buffer is full; frames that find no room are
 * the caller's matter. Without a header a frame that still has offloads to do is made into plain ones first. `FrameReader` takes bytes cut
 * anywhere and builds frames; a stream that makes no sense is at its end.
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_CSUM_VALID,
  FACT_NEEDS_CSUM,
  FACTS,
  type FramePool,
  GSO_SIZE,
  HEADER_LENGTH,
  LENGTH,
  MAX_FRAME_BYTES,
  OFFSET,
  ROOM,
  SLOT,
  TOTAL,
} from '../../core/pool.ts';
import type { LinkContext } from '../../core/port.ts';
import { putU32be } from '../../wire/bytes.ts';
import { VirtioNetHdr, VNET_HDR_LEGACY_BYTES } from '../../wire/virtio-net-hdr.ts';

const LENGTH_BYTES = 4;
const BUFFER_BYTES = 1 << 18;
const HEADER_MAX_BYTES = 20;
const RECORD_MAX_BYTES = 2 * LENGTH_BYTES + HEADER_MAX_BYTES + MAX_FRAME_BYTES;
const SEGMENTS_MAX = 2048;

/** Where the bytes go: writes bytes[from..to) as far as they are taken, returns how many. */
export type WriteBytes = (bytes: Uint8Array, from: number, to: number) => number;

export class FrameWriter {
  readonly #context: LinkContext;
  readonly #vnetHdr: boolean;
  readonly #write: WriteBytes;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #header = new VirtioNetHdr();
  readonly #segments = new Int32Array(SEGMENTS_MAX);
  readonly #onTurn = (): void => {
    this.#posted = false;
    this.flush();
  };
  #filled = 0;
  #sent = 0;
  #posted = false;

  constructor(context: LinkContext, vnetHdr: boolean, write: WriteBytes) {
    this.#context = context;
    this.#vnetHdr = vnetHdr;
    this.#write = write;
  }

  /** Whether any frame finds room now. */
  get hasRoom(): boolean {
    return this.#filled + RECORD_MAX_BYTES <= BUFFER_BYTES;
  }

  /**
   * Writes one frame, which stays with the caller, with a header of so many bytes (0, 10, 12 or 20; of no meaning without vnet_hdr_support). False
   * when there is no room for it, or no slot to make it plain in.
   */
  write(frame: number, headerBytes: number): boolean {
    const { pool, adapt } = this.#context;
    if (!this.hasRoom) {
      this.flush();
      if (!this.hasRoom) return false;
    }
    if (!this.#posted) {
      this.#posted = true;
      this.#context.loop.post(this.#onTurn);
    }
    const facts = pool.table[frame + FACTS]!;
    const header = this.#vnetHdr ? headerBytes : 0;
    if (header !== 0 || (facts & ~FACT_CSUM_VALID) === 0) {
      this.#put(frame, header);
      return true;
    }
    const copy = pool.clone(frame);
    if (copy === 0) return false;
    const count = adapt(pool, copy, 0, this.#segments);
    for (let i = 0; i < count; i++) {
      // The pieces of one frame hold little more than it did, and its headers once for each.
      if (!this.hasRoom) this.flush();
      if (this.hasRoom) this.#put(this.#segments[i]!, 0);
      pool.release(this.#segments[i]!);
    }
    return count > 0;
  }

  #put(frame: number, headerBytes: number): void {
    const { pool } = this.#context;
    const total = pool.table[frame + TOTAL]!;
    const buffer = this.#buffer;
    let at = this.#filled;
    putU32be(buffer, at, headerBytes + total);
    at += LENGTH_BYTES;
    if (this.#vnetHdr) {
      putU32be(buffer, at, headerBytes);
      at += LENGTH_BYTES;
      if (headerBytes !== 0) at += this.#factsToHeader(frame).write(buffer, at, headerBytes);
    }
    pool.read(frame, 0, buffer, at, total);
    this.#filled = at + total;
  }

  #factsToHeader(frame: number): VirtioNetHdr {
    const t = this.#context.pool.table;
    const header = this.#header;
    const facts = t[frame + FACTS]!;
    header.clear();
    header.flags = facts & (FACT_NEEDS_CSUM | FACT_CSUM_VALID);
    header.gsoType = (facts >> 8) & 0xff;
    if (header.gsoType !== 0) {
      header.gsoSize = t[frame + GSO_SIZE]!;
      header.hdrLen = t[frame + HEADER_LENGTH]!;
    }
    if ((facts & FACT_NEEDS_CSUM) !== 0) {
      header.csumStart = t[frame + CSUM_START]!;
      header.csumOffset = t[frame + CSUM_OFFSET]!;
    }
    return header;
  }

  /** Hands on what is gathered, as far as it is taken; true when nothing is left. */
  flush(): boolean {
    if (this.#filled === 0) return true;
    this.#sent += this.#write(this.#buffer, this.#sent, this.#filled);
    if (this.#sent === this.#filled) {
      this.#sent = 0;
      this.#filled = 0;
      return true;
    }
    if (this.#sent > BUFFER_BYTES / 2) {
      this.#buffer.copyWithin(0, this.#sent, this.#filled);
      this.#filled -= this.#sent;
      this.#sent = 0;
    }
    return false;
  }

  /** Forgets what is gathered: the stream has ended, and a new one begins with a whole frame. */
  reset(): void {
    this.#filled = 0;
    this.#sent = 0;
  }
}

export type FrameReaderOutcome = 'more' | 'frame' | 'bad';

export class FrameReader {
  readonly #pool: FramePool;
  readonly #vnetHdr: boolean;
  readonly #header = new VirtioNetHdr();
  readonly #prefix = new Uint8Array(2 * LENGTH_BYTES + HEADER_MAX_BYTES);
  #prefixFilled = 0;
  #headerBytes = 0;
  #frameBytes = 0;
  /** The frame under way; 0: none, or there was no slot for it and its bytes are skipped. */
  #building = 0;
  #filled = 0;
  #inFrame = false;

  /** Bytes before this position of the last `push` are used up. */
  position = 0;
  /** The frame that was found last, the caller's; 0: there was no slot for it. */
  frame = 0;
  /** How long the header in front of it was. */
  get headerBytes(): number {
    return this.#headerBytes;
  }

  constructor(pool: FramePool, vnetHdr: boolean) {
    this.#pool = pool;
    this.#vnetHdr = vnetHdr;
  }

  /** Reads bytes[from..to) up to the end of a frame; `bad` stands for a stream that is none. */
  push(bytes: Uint8Array, from: number, to: number): FrameReaderOutcome {
    let at = from;
    while (!this.#inFrame) {
      const wanted = this.#prefixWanted();
      if (wanted < 0) return 'bad';
      const count = Math.min(wanted - this.#prefixFilled, to - at);
      for (let i = 0; i < count; i++) this.#prefix[this.#prefixFilled++] = bytes[at++]!;
      this.position = at;
      if (this.#prefixFilled < wanted) return 'more';
      if (!this.#prefixRead()) return 'bad';
    }
    const count = Math.min(this.#frameBytes - this.#filled, to - at);
    const { table, bytes: slots } = this.#pool;
    if (this.#building !== 0) {
      slots.set(bytes.subarray(at, at + count), table[this.#building + OFFSET]! + this.#filled);
    }
    this.#filled += count;
    this.position = at + count;
    if (this.#filled < this.#frameBytes) return 'more';
    return this.#finish() ? 'frame' : 'bad';
  }

  /** Bytes of the prefix that are needed before more is known; negative when it cannot be. */
  #prefixWanted(): number {
    const lengths = this.#vnetHdr ? 2 * LENGTH_BYTES : LENGTH_BYTES;
    if (this.#prefixFilled < lengths) return lengths;
    const total = u32(this.#prefix, 0);
    this.#headerBytes = this.#vnetHdr ? u32(this.#prefix, LENGTH_BYTES) : 0;
    this.#frameBytes = total - this.#headerBytes;
    if (this.#headerBytes > HEADER_MAX_BYTES || this.#frameBytes < 0 || this.#frameBytes > MAX_FRAME_BYTES) {
      return -1;
    }
    return lengths + this.#headerBytes;
  }

  /** The prefix may be whole; then the frame begins. False when its length is out of bounds. */
  #prefixRead(): boolean {
    const wanted = this.#prefixWanted();
    if (wanted < 0) return false;
    if (this.#prefixFilled < wanted) return true;
    this.#inFrame = true;
    this.#filled = 0;
    const frame = this.#pool.alloc(this.#frameBytes);
    this.#building = frame;
    if (frame !== 0 && this.#pool.table[frame + ROOM]! < this.#frameBytes) {
      this.#pool.release(frame);
      this.#building = 0;
    }
    return true;
  }

  #finish(): boolean {
    const frame = this.#building;
    this.#building = 0;
    this.#inFrame = false;
    this.#prefixFilled = 0;
    this.frame = frame;
    if (frame === 0) return true;
    const t = this.#pool.table;
    t[frame + OFFSET] = t[frame + SLOT]!;
    t[frame + LENGTH] = this.#frameBytes;
    t[frame + TOTAL] = this.#frameBytes;
    if (this.#headerBytes < VNET_HDR_LEGACY_BYTES) return true;
    const header = this.#header;
    const at = 2 * LENGTH_BYTES;
    header.parse(this.#prefix, at, at + this.#headerBytes, this.#headerBytes);
    if (!header.settle(this.#frameBytes)) {
      this.#pool.release(frame);
      this.frame = 0;
      return true;
    }
    t[frame + FACTS] = (header.flags & (FACT_NEEDS_CSUM | FACT_CSUM_VALID)) | (header.gsoType << 8);
    t[frame + GSO_SIZE] = header.gsoSize;
    t[frame + HEADER_LENGTH] = header.hdrLen;
    t[frame + CSUM_START] = header.csumStart;
    t[frame + CSUM_OFFSET] = header.csumOffset;
    return true;
  }

  /** Forgets a frame under way. */
  reset(): void {
    if (this.#building !== 0) this.#pool.release(this.#building);
    this.#building = 0;
    this.#inFrame = false;
    this.#prefixFilled = 0;
  }
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

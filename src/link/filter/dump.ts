/**
 * `filter-dump`: writes every frame that passes to a capture file (pcap, or pcapng with the interface's name and each frame's direction),
 * and passes it on unchanged.
 *
 * Records are staged in the buffer before the frames are passed on, so that an answer which comes within the call stands behind its question;
 * those of frames that were refused are taken out again, so that a frame which is offered twice is written once. A checksum that is still
 * to be filled in (an offload fact) is filled in in the capture's copy, so that readers find no bad one. Records reach the sink whole, and at
 * the end of the loop's turn at the latest: a kill leaves a readable capture.
 */

import { FACT_NEEDS_CSUM, FACTS, TOTAL } from '../../core/pool.ts';
import type { LinkContext, Sink } from '../../core/port.ts';
import { putU16be } from '../../wire/bytes.ts';
import { checksumPlace, wantedChecksum } from '../../wire/frame-sum.ts';
import {
  PCAPNG_INBOUND,
  PCAPNG_OUTBOUND,
  PCAPNG_PACKET_HEAD_BYTES,
  PCAPNG_PACKET_TAIL_MAX_BYTES,
  writePcapHeader,
  writePcapngInterface,
  writePcapngPacketHead,
  writePcapngPacketTail,
  writePcapngSection,
  writePcapRecord,
} from '../../wire/pcap.ts';
import { type Filter, type FilterDirection, PassingStage } from './filter.ts';

/** Where a capture goes: a file, or memory. */
export interface ByteSink {
  /** Writes bytes[from..to) whole; false when it could not (a full disk): the capture then ends. */
  write(bytes: Uint8Array, from: number, to: number): boolean;
  close(): void;
}

export interface DumpOptions {
  readonly id: string;
  readonly direction: FilterDirection;
  readonly format: 'pcap' | 'pcapng';
  /** Bytes kept of each frame. */
  readonly maxlenBytes: number;
  /** The netdev's id, which a pcapng names as the interface. */
  readonly interfaceName: string;
  /** Milliseconds since 1970 at the clock's zero. */
  readonly epochMs: number;
}

export class DumpStats {
  frames = 0;
  /** Written to the sink, headers included. */
  bytes = 0;
  /** Frames that passed after the sink failed. */
  dropSinkFailed = 0;
}

/** Handed to the sink when so much is buffered, and at the end of a turn. */
const FLUSH_BYTES = 1 << 17;
const RECORD_OVERHEAD_BYTES = PCAPNG_PACKET_HEAD_BYTES + PCAPNG_PACKET_TAIL_MAX_BYTES;

export class DumpFilter implements Filter {
  readonly type = 'filter-dump';
  readonly id: string;
  readonly rx: DumpStage | null;
  readonly tx: DumpStage | null;
  readonly stats = new DumpStats();
  active = true;

  readonly #options: DumpOptions;
  readonly #context: LinkContext;
  readonly #sink: ByteSink;
  #buffer = new Uint8Array(FLUSH_BYTES);
  readonly #flush = (): void => this.flush();
  #filled = 0;
  /** Batches being passed on: records of theirs may still be taken out. */
  #passing = 0;
  #flushPosted = false;
  #failed = false;
  #closed = false;

  constructor(options: DumpOptions, context: LinkContext, sink: ByteSink) {
    this.id = options.id;
    this.#options = options;
    this.#context = context;
    this.#sink = sink;
    // Directions are named from the netdev's side, as `queue=rx|tx` is: rx is inbound to it.
    this.rx = options.direction === 'tx' ? null : new DumpStage(this, PCAPNG_INBOUND);
    this.tx = options.direction === 'rx' ? null : new DumpStage(this, PCAPNG_OUTBOUND);
    if (options.format === 'pcap') {
      this.#filled = writePcapHeader(this.#buffer, 0, false, options.maxlenBytes);
    } else {
      this.#filled = writePcapngSection(this.#buffer, 0, 'netemu');
      this.#filled += writePcapngInterface(
        this.#buffer,
        this.#filled,
        options.interfaceName,
        options.maxlenBytes,
      );
    }
    this.flush();
  }

  /** Records frames[from..to) and passes them on to `next`; returns how many it took. */
  pass(frames: Int32Array, from: number, to: number, direction: number, next: Sink): number {
    if (this.#failed) {
      const taken = next.receive(frames, from, to);
      this.stats.dropSinkFailed += taken;
      return taken;
    }
    const start = this.#filled;
    const ends = new Int32Array(to - from);
    for (let i = from; i < to; i++) {
      this.#stage(frames[i]!, direction);
      ends[i - from] = this.#filled;
    }
    const staged = this.#filled;
    this.#passing++;
    const taken = next.receive(frames, from, to);
    this.#passing--;
    const kept = taken === 0 ? start : ends[taken - 1]!;
    this.#buffer.copyWithin(kept, staged, this.#filled);
    this.#filled -= staged - kept;
    this.stats.frames += taken;
    if (this.#passing === 0 && this.#filled >= FLUSH_BYTES) this.flush();
    else if (!this.#flushPosted) {
      this.#flushPosted = true;
      this.#context.loop.post(this.#flush);
    }
    return taken;
  }

  /** Appends a record of one frame to the buffer. */
  #stage(frame: number, direction: number): void {
    const { pool, loop } = this.#context;
    const t = pool.table;
    const total = t[frame + TOTAL]!;
    const captured = Math.min(total, this.#options.maxlenBytes);
    this.#makeRoom(RECORD_OVERHEAD_BYTES + total);
    const buffer = this.#buffer;
    // Seconds and nanoseconds apart: their sum in nanoseconds would not be exact in a double.
    const sinceSecondNs = (this.#options.epochMs % 1000) * 1e6 + loop.clock.nowNs();
    const seconds = Math.floor(this.#options.epochMs / 1000) + Math.floor(sinceSecondNs / 1e9);
    const nanos = Math.floor(sinceSecondNs % 1e9);
    const pcapng = this.#options.format === 'pcapng';
    let at = this.#filled;
    at += pcapng
      ? writePcapngPacketHead(buffer, at, 0, seconds, nanos, captured, total, direction)
      : writePcapRecord(buffer, at, seconds, Math.floor(nanos / 1000), captured, total);
    // The whole frame: a checksum's place may lie behind what the capture keeps, and the buffer has room.
    pool.read(frame, 0, buffer, at, total);
    if ((t[frame + FACTS]! & FACT_NEEDS_CSUM) !== 0) {
      const place = checksumPlace(pool, frame);
      if (place >= 0) putU16be(buffer, at + place, wantedChecksum(pool, frame));
    }
    at += captured;
    if (pcapng) at += writePcapngPacketTail(buffer, at, captured, direction);
    this.#filled = at;
  }

  #makeRoom(bytes: number): void {
    const needed = this.#filled + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#buffer.length));
    larger.set(this.#buffer.subarray(0, this.#filled));
    this.#buffer = larger;
  }

  /** Hands what is buffered to the sink. */
  flush(): void {
    this.#flushPosted = false;
    if (this.#filled === 0 || this.#closed || this.#passing > 0) return;
    this.#failed ||= !this.#sink.write(this.#buffer, 0, this.#filled);
    this.stats.bytes += this.#filled;
    this.#filled = 0;
  }

  close(): void {
    if (this.#closed) return;
    this.flush();
    this.#closed = true;
    this.#sink.close();
  }
}

class DumpStage extends PassingStage {
  readonly #filter: DumpFilter;
  readonly #direction: number;

  constructor(filter: DumpFilter, direction: number) {
    super();
    this.#filter = filter;
    this.#direction = direction;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    return this.#filter.pass(frames, from, to, this.#direction, this.next);
  }
}

/**
 * `filter-replay`: the network side of recording a run and playing it again. QEMU's, which has no options of its own, works when the whole machine
 * records (`-icount rr=`); netemu has no machine, so the same words stand here:
 *
 *     rr=none      everything passes (QEMU's without -icount)
 *     rr=record    what the netdev sends passes, and is written to rrfile with the time since the filter was made
 *     rr=replay    what the netdev sends, and what is sent to it, is swallowed; the frames of rrfile come in its place, each at its time
 *
 * The file is a capture (classic pcap, nanoseconds since the start) of frames as they stand on a wire: one whose checksum or segmentation was left
 * to the receiver is completed first, in a copy. Only frames that went on are written. Times are the network's clock's: on a virtual clock a
 * replay is exact. While the guest takes nothing, frames wait, and those behind them.
 */

import type { Timer } from '../../core/loop.ts';
import { FACT_CSUM_VALID, FACTS, TOTAL } from '../../core/pool.ts';
import type { LinkContext, Stage } from '../../core/port.ts';
import {
  LINKTYPE_ETHERNET,
  PCAP_FILE_HEADER_BYTES,
  PCAP_RECORD_HEADER_BYTES,
  PcapReader,
  writePcapHeader,
  writePcapRecord,
} from '../../wire/pcap.ts';
import type { ByteSink } from './dump.ts';
import { type Filter, type FilterDirection, PassingStage } from './filter.ts';

export class ReplayStats {
  recordedFrames = 0;
  replayedFrames = 0;
  /** Frames of the link that the recorded ones stand in for. */
  dropReplaced = 0;
  /** Frames that passed and could not be written: no slot for the copy, or the sink failed. */
  lostRecords = 0;
  /** Recorded frames that found no slot. */
  dropNoSlot = 0;
}

/** What to do, with what that needs. */
export type ReplayMode =
  | { readonly kind: 'none' }
  | { readonly kind: 'record'; readonly sink: ByteSink }
  | { readonly kind: 'replay'; readonly recording: Uint8Array };

export class ReplayFilter implements Filter {
  readonly type = 'filter-replay';
  readonly id: string;
  readonly rx: Stage | null;
  readonly tx: Stage | null;
  readonly stats = new ReplayStats();
  active = true;
  readonly #close: () => void;

  /** A recording that is none plays nothing; `isRecording` tells beforehand. */
  constructor(
    options: { readonly id: string; readonly direction: FilterDirection },
    mode: ReplayMode,
    context: LinkContext,
  ) {
    this.id = options.id;
    const to = options.direction !== 'tx';
    const from = options.direction !== 'rx';
    if (mode.kind === 'record') {
      const recorder = from ? new RecordStage(mode.sink, context, this.stats) : null;
      this.tx = recorder;
      this.rx = to ? new OpenStage() : null;
      this.#close = () => {
        recorder?.flush();
        mode.sink.close();
      };
    } else if (mode.kind === 'replay') {
      const player = from ? new PlayStage(mode.recording, context, this.stats) : null;
      this.tx = player;
      this.rx = to ? new SwallowStage(context, this.stats) : null;
      this.#close = () => player?.stop();
    } else {
      this.tx = from ? new OpenStage() : null;
      this.rx = to ? new OpenStage() : null;
      this.#close = () => {};
    }
  }

  close(): void {
    this.#close();
  }
}

/** Whether bytes begin as a recording does. */
export function isRecording(bytes: Uint8Array): boolean {
  const reader = new PcapReader();
  return reader.parseHeader(bytes, 0, bytes.length) && reader.linktype === LINKTYPE_ETHERNET;
}

class OpenStage extends PassingStage {
  receive(frames: Int32Array, from: number, to: number): number {
    return this.next.receive(frames, from, to);
  }
}

class SwallowStage extends PassingStage {
  readonly #context: LinkContext;
  readonly #stats: ReplayStats;

  constructor(context: LinkContext, stats: ReplayStats) {
    super();
    this.#context = context;
    this.#stats = stats;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    this.#stats.dropReplaced += to - from;
    this.#context.pool.releaseAll(frames, from, to);
    return to - from;
  }
}

const BUFFER_BYTES = 1 << 17;
const SEGMENTS_MAX = 2048;

class RecordStage extends PassingStage {
  readonly #sink: ByteSink;
  readonly #context: LinkContext;
  readonly #stats: ReplayStats;
  readonly #startNs: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #segments = new Int32Array(SEGMENTS_MAX);
  readonly #onTurn = (): void => {
    this.#posted = false;
    this.flush();
  };
  #filled: number;
  #posted = false;
  #failed = false;

  constructor(sink: ByteSink, context: LinkContext, stats: ReplayStats) {
    super();
    this.#sink = sink;
    this.#context = context;
    this.#stats = stats;
    this.#startNs = context.loop.clock.nowNs();
    this.#filled = writePcapHeader(this.#buffer, 0, true);
    this.flush();
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) pool.retain(frames[i]!);
    const taken = this.next.receive(frames, from, to);
    for (let i = from; i < from + taken; i++) this.#record(frames[i]!);
    pool.releaseAll(frames, from, to);
    return taken;
  }

  #record(frame: number): void {
    const { pool, adapt } = this.#context;
    if ((pool.table[frame + FACTS]! & ~FACT_CSUM_VALID) === 0) {
      this.#write(frame);
      return;
    }
    const copy = pool.clone(frame);
    const count = copy === 0 ? 0 : adapt(pool, copy, 0, this.#segments);
    if (count === 0) this.#stats.lostRecords++;
    for (let i = 0; i < count; i++) this.#write(this.#segments[i]!);
    pool.releaseAll(this.#segments, 0, count);
  }

  #write(frame: number): void {
    const { pool, loop } = this.#context;
    const total = pool.table[frame + TOTAL]!;
    if (this.#filled + PCAP_RECORD_HEADER_BYTES + total > BUFFER_BYTES) this.flush();
    if (this.#failed) {
      this.#stats.lostRecords++;
      return;
    }
    const sinceNs = loop.clock.nowNs() - this.#startNs;
    const seconds = Math.floor(sinceNs / 1e9);
    this.#filled += writePcapRecord(
      this.#buffer,
      this.#filled,
      seconds,
      sinceNs - seconds * 1e9,
      total,
      total,
    );
    pool.read(frame, 0, this.#buffer, this.#filled, total);
    this.#filled += total;
    this.#stats.recordedFrames++;
    if (this.#posted) return;
    this.#posted = true;
    loop.post(this.#onTurn);
  }

  flush(): void {
    if (this.#filled > 0 && !this.#failed) this.#failed = !this.#sink.write(this.#buffer, 0, this.#filled);
    this.#filled = 0;
  }
}

class PlayStage extends SwallowStage {
  readonly #recording: Uint8Array;
  readonly #loop: LinkContext['loop'];
  readonly #pool: LinkContext['pool'];
  readonly #played: ReplayStats;
  readonly #reader = new PcapReader();
  readonly #timer: Timer;
  readonly #startNs: number;
  readonly #one = new Int32Array(1);
  #at = PCAP_FILE_HEADER_BYTES;
  #nextAt = -1;
  /** A frame that was refused. */
  #waiting = 0;
  #playing = false;
  #stopped = false;

  constructor(recording: Uint8Array, context: LinkContext, stats: ReplayStats) {
    super(context, stats);
    this.#recording = recording;
    this.#loop = context.loop;
    this.#pool = context.pool;
    this.#played = stats;
    this.#startNs = context.loop.clock.nowNs();
    this.#timer = context.loop.timer(() => this.#play());
    if (!this.#reader.parseHeader(recording, 0, recording.length)) this.#at = recording.length;
    this.#nextAt = this.#reader.parseRecord(recording, this.#at, recording.length);
    this.#arm();
  }

  get #dueNs(): number {
    return this.#startNs + this.#reader.seconds * 1e9 + this.#reader.nanos;
  }

  #arm(): void {
    if (this.#nextAt >= 0 && this.#waiting === 0 && !this.#stopped) this.#timer.arm(this.#dueNs);
  }

  #play(): void {
    if (this.#playing) return;
    this.#playing = true;
    while (
      !this.#stopped &&
      (this.#waiting !== 0 || (this.#nextAt >= 0 && this.#dueNs <= this.#loop.clock.nowNs()))
    ) {
      if (this.#waiting === 0) {
        this.#waiting = this.#pool.from(this.#recording, this.#reader.data, this.#reader.dataEnd);
        this.#at = this.#nextAt;
        this.#nextAt = this.#reader.parseRecord(this.#recording, this.#at, this.#recording.length);
        if (this.#waiting === 0) {
          this.#played.dropNoSlot++;
          continue;
        }
      }
      this.#one[0] = this.#waiting;
      if (this.next.receive(this.#one, 0, 1) === 0) break;
      this.#waiting = 0;
      this.#played.replayedFrames++;
    }
    this.#playing = false;
    this.#arm();
  }

  override peerReady(): void {
    this.#play();
    super.peerReady();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer.cancel();
    if (this.#waiting !== 0) this.#pool.release(this.#waiting);
    this.#waiting = 0;
  }
}

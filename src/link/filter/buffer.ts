/**
 * `filter-buffer`: holds what passes and lets it go in intervals, all at once and in order.
 *
 * Each direction holds up to BUFFER_FRAMES frames; then the sender has to wait, as it would for a slow link: nothing is lost here. What the
 * far end does not take at the interval's end follows as soon as it can.
 */

import type { ObjectConfig } from '../../config/objects/index.ts';
import type { Timer } from '../../core/loop.ts';
import type { LinkContext } from '../../core/port.ts';
import { Ring } from '../../core/ring.ts';
import { type Filter, type FilterDirection, PassingStage } from './filter.ts';

export interface BufferOptions {
  readonly id: string;
  readonly direction: FilterDirection;
  readonly intervalNs: number;
}

export class BufferStats {
  /** Frames that were held and went on. */
  frames = 0;
  /** Offers that found the buffer full. */
  refusals = 0;
  /** Frames that nobody took when the filter was removed. */
  dropRemoved = 0;
}

const BUFFER_FRAMES = 1024;

export class BufferFilter implements Filter {
  readonly type = 'filter-buffer';
  readonly id: string;
  readonly rx: BufferStage | null;
  readonly tx: BufferStage | null;
  readonly stats = new BufferStats();
  readonly changeable = ['interval'];
  active = true;

  readonly #timer: Timer;
  #intervalNs: number;

  constructor(options: BufferOptions, context: LinkContext) {
    this.id = options.id;
    this.#intervalNs = options.intervalNs;
    this.rx = options.direction === 'tx' ? null : new BufferStage(this.stats, context);
    this.tx = options.direction === 'rx' ? null : new BufferStage(this.stats, context);
    this.#timer = context.loop.timer(() => {
      this.flush();
      this.#timer.armIn(this.#intervalNs);
    });
    this.#timer.armIn(this.#intervalNs);
  }

  change(config: ObjectConfig): void {
    if (config.type !== 'filter-buffer') return;
    this.#intervalNs = config.intervalNs;
    this.#timer.armIn(this.#intervalNs);
  }

  /** Lets go of everything held, as far as it is taken. */
  flush(): void {
    this.rx?.flush();
    this.tx?.flush();
  }

  close(): void {
    this.#timer.cancel();
    this.flush();
    this.rx?.drop();
    this.tx?.drop();
  }
}

class BufferStage extends PassingStage {
  readonly #stats: BufferStats;
  readonly #context: LinkContext;
  readonly #held = new Ring(BUFFER_FRAMES);
  readonly #batch = new Int32Array(BUFFER_FRAMES);
  /** Frames at the front that are due: the interval they came in is over. */
  #due = 0;
  #refused = false;

  constructor(stats: BufferStats, context: LinkContext) {
    super();
    this.#stats = stats;
    this.#context = context;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const taken = this.#held.push(frames, from, to);
    if (taken < to - from) {
      this.#stats.refusals++;
      this.#refused = true;
    }
    return taken;
  }

  flush(): void {
    this.#due = this.#held.length;
    this.#release();
  }

  override peerReady(): void {
    this.#release();
  }

  #release(): void {
    while (this.#due > 0) {
      const offered = this.#held.peek(this.#batch, this.#due);
      const taken = this.next.receive(this.#batch, 0, offered);
      this.#held.drop(taken);
      this.#due -= taken;
      this.#stats.frames += taken;
      if (taken < offered) break;
    }
    if (!this.#refused || this.#held.room === 0) return;
    this.#refused = false;
    this.previous.peerReady();
  }

  /** Gives up what nobody took. */
  drop(): void {
    const count = this.#held.pop(this.#batch, BUFFER_FRAMES);
    this.#context.pool.releaseAll(this.#batch, 0, count);
    this.#stats.dropRemoved += count;
    this.#due = 0;
  }
}

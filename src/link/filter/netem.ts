/**
 * `filter-netem`: a bad network on demand. Each frame goes through these steps, each direction with a state of its own:
 *
 *     loss (random, or Gilbert's two states) ─▶ duplication ─▶ corruption ─▶ rate (token bucket) ─▶ delay and jitter ─▶ release queue
 *
 * A frame's release time is fixed when it arrives: the moment the line would have sent its last bit, plus the delay. So the delay stays the
 * delay however busy the line is, and a late timer delays no other frame. Frames leave in order (jitter never lets one overtake another)
 * except those that `reorder` sends without the delay.
 *
 * Like a wire, it never refuses: beyond `limit` frames it drops, counted. Frames that lie in memory of a guest are copied, so that the guest
 * gets its buffers back at once. Chance comes from a generator seeded by `seed`: the same seed and traffic give the same fate to each frame.
 *
 * The rate follows the generic cell rate algorithm: `lineFreeNs` is when the line would be idle if nothing more came; up to `burst` bytes
 * pass without waiting for it. The release queue is a binary heap by release time, then by arrival.
 */

import type { ObjectConfig } from '../../config/objects/index.ts';
import type { NetemConfig } from '../../config/objects/netem.ts';
import { type Random, seededRandom } from '../../core/clock.ts';
import type { Timer } from '../../core/loop.ts';
import { LENDER, OFFSET, TOTAL } from '../../core/pool.ts';
import type { LinkContext } from '../../core/port.ts';
import { type Filter, type FilterDirection, PassingStage } from './filter.ts';

export class NetemStats {
  /** Frames that came in. */
  frames = 0;
  dropLoss = 0;
  /** Frames beyond `limit`. */
  dropLimit = 0;
  /** Frames that had to be copied and found no slot. */
  dropNoSlot = 0;
  /** Frames that nobody took when the filter was removed. */
  dropRemoved = 0;
  duplicated = 0;
  corrupted = 0;
  reordered = 0;
  /** Offers of due frames that the far end did not take in full. */
  refusals = 0;
}

export interface NetemOptions {
  readonly id: string;
  readonly direction: FilterDirection;
}

const BATCH = 256;
const TWO_32 = 2 ** 32;

export class NetemFilter implements Filter {
  readonly type = 'filter-netem';
  readonly id: string;
  readonly rx: NetemStage | null;
  readonly tx: NetemStage | null;
  readonly stats = new NetemStats();
  readonly changeable = [
    'delay',
    'jitter',
    'distribution',
    'loss',
    'loss-model',
    'gilbert-bad',
    'gilbert-good',
    'gilbert-loss',
    'duplicate',
    'reorder',
    'corrupt',
    'rate',
    'burst',
    'limit',
  ];
  active = true;

  constructor(options: NetemOptions, config: NetemConfig, context: LinkContext, random: Random) {
    this.id = options.id;
    const seed =
      config.seed === undefined ? random() : Number(BigInt.asUintN(32, config.seed ^ (config.seed >> 32n)));
    // Two streams of chance: what happens one way does not change the fate of frames the other way.
    this.rx =
      options.direction === 'tx' ? null : new NetemStage(config, context, this.stats, seededRandom(seed));
    this.tx =
      options.direction === 'rx'
        ? null
        : new NetemStage(config, context, this.stats, seededRandom((seed ^ 0x5bd1e995) >>> 0));
  }

  change(config: ObjectConfig): void {
    if (config.type !== 'filter-netem') return;
    this.rx?.change(config);
    this.tx?.change(config);
  }

  flush(): void {
    this.rx?.flush();
    this.tx?.flush();
  }

  close(): void {
    this.rx?.close();
    this.tx?.close();
  }
}

export class NetemStage extends PassingStage {
  readonly #context: LinkContext;
  readonly #stats: NetemStats;
  readonly #random: Random;
  readonly #timer: Timer;
  readonly #queue = new ReleaseQueue();
  readonly #batch = new Int32Array(BATCH);
  #config: NetemConfig;
  #inBadState = false;
  #lineFreeNs = 0;
  /** The release time of the last frame in order. */
  #lastReleaseNs = 0;
  /** Due frames that the far end refused. */
  #blocked = false;
  #releasing = false;
  /** The second of a pair of normal deviates; NaN: none. */
  #spareNormal = Number.NaN;

  constructor(config: NetemConfig, context: LinkContext, stats: NetemStats, random: Random) {
    super();
    this.#config = config;
    this.#context = context;
    this.#stats = stats;
    this.#random = random;
    this.#timer = context.loop.timer(() => this.#release());
  }

  /** Frames that are held. */
  get held(): number {
    return this.#queue.length;
  }

  change(config: NetemConfig): void {
    this.#config = config;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const nowNs = this.#context.loop.clock.nowNs();
    for (let i = from; i < to; i++) this.#arrive(frames[i]!, nowNs);
    this.#release();
    return to - from;
  }

  #arrive(frame: number, nowNs: number): void {
    const { pool } = this.#context;
    const config = this.#config;
    this.#stats.frames++;
    if (this.#isLost()) {
      this.#stats.dropLoss++;
      pool.release(frame);
      return;
    }
    if (this.#chance(config.duplicate)) {
      this.#stats.duplicated++;
      pool.retain(frame);
      this.#hold(frame, nowNs);
    }
    this.#hold(frame, nowNs);
  }

  #isLost(): boolean {
    const { loss, gilbert } = this.#config;
    if (gilbert === undefined) return this.#chance(loss);
    const moves = this.#chance(this.#inBadState ? gilbert.toGood : gilbert.toBad);
    if (moves) this.#inBadState = !this.#inBadState;
    return this.#chance(this.#inBadState ? gilbert.lossInBad : loss);
  }

  #chance(probability: number): boolean {
    return probability > 0 && this.#random() < probability * TWO_32;
  }

  #hold(frame: number, nowNs: number): void {
    const { pool } = this.#context;
    const { limitFrames, corrupt, reorder, delayNs, jitterNs } = this.#config;
    const t = pool.table;
    if (this.#queue.length >= limitFrames) {
      this.#stats.dropLimit++;
      pool.release(frame);
      return;
    }
    const corrupts = this.#chance(corrupt);
    if (corrupts || (t[frame + LENDER] !== 0 && delayNs + jitterNs > 0)) {
      const own = pool.writable(frame);
      if (own === 0) {
        this.#stats.dropNoSlot++;
        pool.release(frame);
        return;
      }
      frame = own;
    }
    if (corrupts) this.#flipBit(frame);
    const sentNs = this.#lineSends(t[frame + TOTAL]!, nowNs);
    if (this.#chance(reorder)) {
      this.#stats.reordered++;
      this.#queue.push(frame, sentNs);
      return;
    }
    const releaseNs = Math.max(sentNs + this.#delay(), this.#lastReleaseNs);
    this.#lastReleaseNs = releaseNs;
    this.#queue.push(frame, releaseNs);
  }

  #flipBit(frame: number): void {
    const { pool } = this.#context;
    const total = pool.table[frame + TOTAL]!;
    if (total === 0) return;
    const bit = Math.floor((this.#random() / TWO_32) * total * 8);
    const at = pool.table[frame + OFFSET]! + (bit >> 3);
    pool.bytes[at] = pool.bytes[at]! ^ (1 << (bit & 7));
    this.#stats.corrupted++;
  }

  /** When the line has sent a frame of this length that it got now. */
  #lineSends(bytes: number, nowNs: number): number {
    const { rateBps, burstBytes } = this.#config;
    if (rateBps === undefined) return nowNs;
    const nsPerByte = 8e9 / rateBps;
    this.#lineFreeNs = Math.max(this.#lineFreeNs, nowNs) + bytes * nsPerByte;
    return Math.max(nowNs, this.#lineFreeNs - burstBytes * nsPerByte);
  }

  /** The delay with this frame's jitter, never negative. */
  #delay(): number {
    const { delayNs, jitterNs, distribution } = this.#config;
    if (jitterNs === 0) return delayNs;
    return Math.max(0, delayNs + jitterNs * this.#deviate(distribution));
  }

  /** A deviate with mean 0: within ±1 for uniform, with standard deviation 1 for the others. */
  #deviate(distribution: NetemConfig['distribution']): number {
    switch (distribution) {
      case 'uniform':
        return 2 * (this.#random() / TWO_32) - 1;
      case 'normal':
        return this.#normal();
      case 'pareto': {
        // Shape 3: mean 3/2, variance 3/4.
        const value = ((this.#random() + 1) / TWO_32) ** (-1 / 3);
        return (value - 1.5) / Math.sqrt(0.75);
      }
    }
  }

  /** Box and Muller (1958): two at a time. */
  #normal(): number {
    const spare = this.#spareNormal;
    if (!Number.isNaN(spare)) {
      this.#spareNormal = Number.NaN;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log((this.#random() + 1) / TWO_32));
    const angle = 2 * Math.PI * (this.#random() / TWO_32);
    this.#spareNormal = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  override peerReady(): void {
    this.#blocked = false;
    this.#release();
    super.peerReady();
  }

  /** Hands on all that is due, then waits for the next. */
  #release(): void {
    if (this.#releasing || this.#blocked) return;
    this.#releasing = true;
    try {
      this.#offer(this.#context.loop.clock.nowNs());
    } finally {
      this.#releasing = false;
    }
    if (!this.#blocked) this.#timer.arm(this.#queue.firstNs);
  }

  #offer(untilNs: number): void {
    const queue = this.#queue;
    while (queue.firstNs <= untilNs) {
      const count = queue.takeDue(this.#batch, untilNs);
      const taken = this.next.receive(this.#batch, 0, count);
      if (taken === count) continue;
      this.#stats.refusals++;
      this.#blocked = true;
      // What is due already goes before everything else, in the order it had.
      for (let i = count - 1; i >= taken; i--) queue.putBack(this.#batch[i]!);
      return;
    }
  }

  /** Hands on everything, due or not, as far as it is taken. */
  flush(): void {
    if (this.#releasing) return;
    this.#blocked = false;
    this.#releasing = true;
    try {
      this.#offer(Number.MAX_VALUE);
    } finally {
      this.#releasing = false;
    }
    this.#lastReleaseNs = 0;
    this.#timer.arm(this.#blocked ? Number.POSITIVE_INFINITY : this.#queue.firstNs);
  }

  close(): void {
    this.flush();
    this.#timer.cancel();
    const { pool } = this.#context;
    for (;;) {
      const count = this.#queue.takeDue(this.#batch, Number.MAX_VALUE);
      if (count === 0) return;
      pool.releaseAll(this.#batch, 0, count);
      this.#stats.dropRemoved += count;
    }
  }
}

/** A binary heap of frames by release time, equal times in order of arrival, in typed arrays that grow as needed. */
class ReleaseQueue {
  #frames = new Int32Array(64);
  #times = new Float64Array(64);
  #orders = new Float64Array(64);
  #next = 0;
  #front = -1;
  length = 0;

  /** When the first frame is due; Infinity: there is none. */
  get firstNs(): number {
    return this.length === 0 ? Number.POSITIVE_INFINITY : this.#times[0]!;
  }

  push(frame: number, timeNs: number): void {
    this.#insert(frame, timeNs, this.#next++);
  }

  /** Puts a frame in front of all others, due at once. */
  putBack(frame: number): void {
    this.#insert(frame, Number.NEGATIVE_INFINITY, this.#front--);
  }

  /** Takes frames that are due until `untilNs`, at most as many as `target` holds; returns how many. */
  takeDue(target: Int32Array, untilNs: number): number {
    let count = 0;
    while (count < target.length && this.length > 0 && this.#times[0]! <= untilNs) {
      target[count++] = this.#frames[0]!;
      this.#removeFirst();
    }
    return count;
  }

  #insert(frame: number, timeNs: number, order: number): void {
    if (this.length === this.#frames.length) this.#grow();
    let place = this.length++;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!this.#before(timeNs, order, parent)) break;
      this.#move(parent, place);
      place = parent;
    }
    this.#set(place, frame, timeNs, order);
  }

  #removeFirst(): void {
    const last = --this.length;
    if (last === 0) return;
    const frame = this.#frames[last]!;
    const timeNs = this.#times[last]!;
    const order = this.#orders[last]!;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= last) break;
      if (child + 1 < last && this.#before(this.#times[child + 1]!, this.#orders[child + 1]!, child)) child++;
      if (this.#before(timeNs, order, child)) break;
      this.#move(child, place);
      place = child;
    }
    this.#set(place, frame, timeNs, order);
  }

  #before(timeNs: number, order: number, place: number): boolean {
    const other = this.#times[place]!;
    return timeNs < other || (timeNs === other && order < this.#orders[place]!);
  }

  #move(from: number, to: number): void {
    this.#frames[to] = this.#frames[from]!;
    this.#times[to] = this.#times[from]!;
    this.#orders[to] = this.#orders[from]!;
  }

  #set(place: number, frame: number, timeNs: number, order: number): void {
    this.#frames[place] = frame;
    this.#times[place] = timeNs;
    this.#orders[place] = order;
  }

  #grow(): void {
    const size = 2 * this.#frames.length;
    const frames = new Int32Array(size);
    frames.set(this.#frames);
    this.#frames = frames;
    const times = new Float64Array(size);
    times.set(this.#times);
    this.#times = times;
    const orders = new Float64Array(size);
    orders.set(this.#orders);
    this.#orders = orders;
  }
}

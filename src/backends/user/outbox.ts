/**
 * Frames on their way to the guest. They are gathered over a turn and offered to the port in one batch. What the guest's side does not take
 * stays here, in order, and `room` says 0 until it has been taken: everybody who makes frames asks first, so nothing but what one turn
 * had begun ever waits, LIMIT frames at most.
 */

import type { LinkContext, Port } from '../../core/port.ts';
import type { UserStats } from './stats.ts';

const LIMIT = 1024;

export class Outbox {
  readonly #context: LinkContext;
  readonly #stats: UserStats;
  readonly #frames = new Int32Array(LIMIT);
  #count = 0;
  #blocked = false;
  #posted = false;
  #batches = 0;
  /** Somebody was told that there is no room. */
  #missed = false;
  #port: Port | null = null;
  readonly #task: () => void;
  readonly #tell: () => void;

  /** `onRoom`: there is room again, after `room` said 0. */
  constructor(context: LinkContext, stats: UserStats, onRoom: () => void) {
    this.#context = context;
    this.#stats = stats;
    this.#tell = onRoom;
    this.#task = () => {
      this.#posted = false;
      this.flush();
    };
  }

  attach(port: Port): void {
    this.#port = port;
  }

  /** How many frames `push` takes now. Whoever is told 0 is called back through `onRoom`. */
  room(): number {
    const room = this.#blocked ? 0 : LIMIT - this.#count;
    if (room === 0) this.#missed = true;
    return room;
  }

  /** Takes the caller's hold of a frame; drops it, counted, when there is no room. */
  push(frame: number): void {
    if (this.#count === LIMIT) this.flush();
    if (this.#count === LIMIT) {
      this.#stats.rxDropQueueFull++;
      this.#context.pool.release(frame);
      return;
    }
    this.#frames[this.#count++] = frame;
    if (this.#batches === 0 && !this.#posted) {
      this.#posted = true;
      this.#context.loop.post(this.#task);
    }
  }

  /** Between these two, `push` only gathers: the caller flushes at the end. */
  begin(): void {
    this.#batches++;
  }

  end(): void {
    if (--this.#batches === 0) this.flush();
  }

  /** Offers everything. Returns true when nothing is left. */
  flush(): boolean {
    const count = this.#count;
    if (count === 0 || this.#port === null) return true;
    const frames = this.#frames;
    const taken = this.#port.send(frames, 0, count);
    this.#stats.rxFrames += taken;
    if (taken < count) frames.copyWithin(0, taken, this.#count);
    this.#count -= taken;
    this.#blocked = this.#count > 0;
    if (this.#blocked || !this.#missed) return !this.#blocked;
    // Also a turn that only filled the outbox, without a refusal of the port, kept somebody waiting.
    this.#missed = false;
    this.#context.loop.post(this.#tell);
    return true;
  }

  get waiting(): number {
    return this.#count;
  }

  clear(): void {
    this.#context.pool.releaseAll(this.#frames, 0, this.#count);
    this.#count = 0;
    this.#blocked = false;
  }
}

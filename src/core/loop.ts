/**
 * The loop: timers on an injected clock, and tasks for the next turn. It owns no thread and no wake-up of its own: `run` does what is due
 * and returns; whoever drives it (host-io's driver on Node, an embedder's time slice, a test) comes back at `nextNs`, and is told
 * through `onWork` when that moment moved nearer.
 *
 * Timers lie in a binary heap by deadline; equal deadlines fire in the order they were armed. Re-arming and cancelling are lazy-free: each
 * timer knows its place in the heap. A turn runs each task once: what a task posts waits for the next turn, so nothing can starve the rest.
 */

import type { Clock } from './clock.ts';
import { VirtualClock } from './clock.ts';
import { InvariantError } from './errors.ts';

export class Timer {
  /** The clock's time at which it fires; Infinity when it is not armed. */
  deadlineNs = Number.POSITIVE_INFINITY;
  /** Heap position (-1: not armed) and order among equals; kept by the loop. */
  place = -1;
  order = 0;
  readonly #loop: Loop;
  readonly fire: () => void;

  constructor(loop: Loop, fire: () => void) {
    this.#loop = loop;
    this.fire = fire;
  }

  get armed(): boolean {
    return this.place >= 0;
  }

  /** Fires once at `deadlineNs`, instead of any earlier arming. */
  arm(deadlineNs: number): void {
    this.#loop.armTimer(this, deadlineNs);
  }

  /** Fires once, `delayNs` from now. */
  armIn(delayNs: number): void {
    this.#loop.armTimer(this, this.#loop.clock.nowNs() + delayNs);
  }

  cancel(): void {
    this.#loop.cancelTimer(this);
  }
}

const NOTHING = (): void => {};

export class Loop {
  readonly clock: Clock;
  /** Called when there is work earlier than `nextNs` said before; the driver then calls `run` at or after `nextNs`. */
  onWork: (() => void) | null = null;

  readonly #heap: Timer[] = [];
  /** Posted for the next turn: the first #taskCount. Neither array ever shrinks: setting a length is a call into the engine. */
  #tasks: (() => void)[] = [];
  #spare: (() => void)[] = [];
  #taskCount = 0;
  #order = 0;
  #running = false;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** A timer that is not armed yet. */
  timer(fire: () => void): Timer {
    return new Timer(this, fire);
  }

  /** Runs `task` in the next turn. */
  post(task: () => void): void {
    this.#tasks[this.#taskCount++] = task;
    if (this.#taskCount === 1 && !this.#running) this.onWork?.();
  }

  /** When there is something to do next, by the clock; -Infinity: at once; Infinity: nothing. */
  get nextNs(): number {
    if (this.#taskCount > 0) return Number.NEGATIVE_INFINITY;
    return this.#heap[0]?.deadlineNs ?? Number.POSITIVE_INFINITY;
  }

  /** One turn: the tasks posted before it, then the timers that are due. Not re-entrant. */
  run(): void {
    if (this.#running) throw new InvariantError('the loop runs already');
    this.#running = true;
    const tasks = this.#tasks;
    this.#tasks = this.#spare;
    this.#spare = tasks;
    const count = this.#taskCount;
    this.#taskCount = 0;
    let done = 0;
    try {
      while (done < count) {
        const task = tasks[done]!;
        tasks[done++] = NOTHING;
        task();
      }
      if (this.#heap.length === 0) return;
      const nowNs = this.clock.nowNs();
      const limit = this.#order;
      for (;;) {
        const timer = this.#heap[0];
        if (timer === undefined || timer.deadlineNs > nowNs || timer.order >= limit) break;
        this.cancelTimer(timer);
        timer.fire();
      }
    } finally {
      // Empty unless a task threw: then the rest runs in the next turn.
      if (done < count) this.#putBack(tasks.slice(done, count));
      this.#running = false;
    }
  }

  #putBack(tasks: readonly (() => void)[]): void {
    this.#tasks = [...tasks, ...this.#tasks.slice(0, this.#taskCount)];
    this.#taskCount += tasks.length;
  }

  /** Virtual time only: runs everything due until `untilNs`, moving the clock from event to event, and leaves it at `untilNs`. */
  runUntil(untilNs: number): void {
    const clock = this.#virtual();
    for (;;) {
      const next = this.nextNs;
      if (next > untilNs) break;
      clock.setNs(next);
      this.run();
    }
    clock.setNs(untilNs);
  }

  /** Virtual time only: runs until `done` holds or `limitNs` of virtual time passed; returns whether it held. */
  runWhile(notDone: () => boolean, limitNs = 60e9): boolean {
    const clock = this.#virtual();
    const endNs = clock.nowNs() + limitNs;
    while (notDone()) {
      const next = this.nextNs;
      if (next > endNs) return false;
      clock.setNs(next);
      this.run();
    }
    return true;
  }

  #virtual(): VirtualClock {
    if (!(this.clock instanceof VirtualClock)) throw new InvariantError('only a virtual clock can be moved');
    return this.clock;
  }

  armTimer(timer: Timer, deadlineNs: number): void {
    if (timer.place >= 0) this.cancelTimer(timer);
    if (deadlineNs === Number.POSITIVE_INFINITY) return;
    timer.deadlineNs = deadlineNs;
    timer.order = this.#order++;
    this.#up(timer, this.#heap.length);
    if (timer.place === 0 && !this.#running) this.onWork?.();
  }

  cancelTimer(timer: Timer): void {
    const place = timer.place;
    if (place < 0) return;
    timer.place = -1;
    timer.deadlineNs = Number.POSITIVE_INFINITY;
    const last = this.#heap.pop()!;
    if (last === timer) return;
    if (place > 0 && before(last, this.#heap[(place - 1) >> 1]!)) this.#up(last, place);
    else this.#down(last, place);
  }

  #up(timer: Timer, place: number): void {
    const heap = this.#heap;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      const above = heap[parent]!;
      if (!before(timer, above)) break;
      heap[place] = above;
      above.place = place;
      place = parent;
    }
    heap[place] = timer;
    timer.place = place;
  }

  #down(timer: Timer, place: number): void {
    const heap = this.#heap;
    const count = heap.length;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= count) break;
      if (child + 1 < count && before(heap[child + 1]!, heap[child]!)) child++;
      const below = heap[child]!;
      if (!before(below, timer)) break;
      heap[place] = below;
      below.place = place;
      place = child;
    }
    heap[place] = timer;
    timer.place = place;
  }
}

function before(a: Timer, b: Timer): boolean {
  return a.deadlineNs < b.deadlineNs || (a.deadlineNs === b.deadlineNs && a.order < b.order);
}

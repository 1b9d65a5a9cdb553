/**
 * Transmitted chains that are used later than in the turn they were sent in: those of lent frames and, where the ring's order counts (IN_ORDER, or a transport whose rings
 * others may have to continue), all that were sent behind one. Each has an entry, a small number that a frame's tag can carry.
 *
 * Entries lie in arrays as long as the ring; free ones are a stack, and with an order the others are a ring of their own in the order they were taken.
 */

import type { NetContext } from './net.ts';

export class HeldChains {
  readonly #net: NetContext;
  readonly #use: (id: number, slots: number) => void;
  #id = new Int32Array(0);
  #slots = new Int32Array(0);
  #done = new Uint8Array(0);
  #free = new Int32Array(0);
  #freeCount = 0;
  #order = new Int32Array(0);
  #head = 0;
  #tail = 0;
  /** Entries that are done and wait for an older one. */
  #waiting = 0;
  #ringSize = 0;

  /** `use`: gives a chain back to the driver. */
  constructor(net: NetContext, use: (id: number, slots: number) => void) {
    this.#net = net;
    this.#use = use;
  }

  /** For a ring of `size` chains: none is held. */
  open(size: number): void {
    if (this.#id.length < size) {
      this.#id = new Int32Array(size);
      this.#slots = new Int32Array(size);
      this.#done = new Uint8Array(size);
      this.#free = new Int32Array(size);
      this.#order = new Int32Array(size);
    }
    this.#ringSize = size;
    this.#freeCount = this.#id.length;
    for (let i = 0; i < this.#freeCount; i++) this.#free[i] = i;
    this.forget();
  }

  /** Whoever is held is not to be used any more. */
  forget(): void {
    this.#head = 0;
    this.#tail = 0;
    this.#waiting = 0;
  }

  /** Further chains that can be held. */
  get room(): number {
    return this.#freeCount;
  }

  /** Chains that are held. */
  get count(): number {
    return this.#id.length - this.#freeCount;
  }

  /** Holds a chain; there must be room. Returns its entry. */
  hold(id: number, slots: number): number {
    const entry = this.#free[--this.#freeCount];
    this.#id[entry] = id;
    this.#slots[entry] = slots;
    this.#done[entry] = 0;
    if (this.#net.inOrder) {
      this.#order[this.#tail] = entry;
      this.#tail = this.#after(this.#tail);
    }
    return entry;
  }

  /** An entry's chain may be used: at once, or with an order after all before it. */
  finish(entry: number): void {
    if (!this.#net.inOrder) {
      this.#let(entry);
      return;
    }
    this.#done[entry] = 1;
    this.#waiting++;
    while (this.count > 0) {
      const oldest = this.#order[this.#head];
      if (this.#done[oldest] === 0) break;
      this.#head = this.#after(this.#head);
      this.#waiting--;
      this.#let(oldest);
    }
    if (!this.#net.strictOrder && this.#waiting > this.#ringSize >> 1) this.#finishAllDone();
  }

  /** Gives up on the order: one frame is held for so long that half the ring waits behind it. */
  #finishAllDone(): void {
    const order = this.#order;
    const { count } = this;
    let kept = this.#head;
    let at = this.#head;
    for (let i = 0; i < count; i++) {
      const entry = order[at];
      at = this.#after(at);
      if (this.#done[entry] === 0) {
        order[kept] = entry;
        kept = this.#after(kept);
      } else {
        this.#let(entry);
      }
    }
    this.#tail = kept;
    this.#waiting = 0;
    this.#net.stats.txOrderGivenUp++;
  }

  #let(entry: number): void {
    this.#free[this.#freeCount++] = entry;
    this.#use(this.#id[entry], this.#slots[entry]);
  }

  #after(place: number): number {
    return place + 1 === this.#order.length ? 0 : place + 1;
  }

  /** Entries, ids and slots of what is held, in ring order where there is an order. */
  list(): { entry: number; id: number; slots: number }[] {
    const free = new Set(this.#free.subarray(0, this.#freeCount));
    const entries = this.#net.inOrder
      ? Array.from({ length: this.count }, (_, i) => this.#order[(this.#head + i) % this.#order.length])
      : [...this.#id.keys()].filter((entry) => !free.has(entry));
    return entries.map((entry) => ({ entry, id: this.#id[entry], slots: this.#slots[entry] }));
  }
}

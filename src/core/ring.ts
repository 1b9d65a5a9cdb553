/**
 * Rings of frame numbers. `Ring` is for one thread; `SharedRing` is single producer, single consumer between two threads, on a
 * SharedArrayBuffer. Both hold whole batches: `push` and `pop` move as many as there is room for and say how many.
 */

import { InvariantError } from './errors.ts';

function checkSize(size: number): void {
  if (size < 2 || (size & (size - 1)) !== 0) throw new InvariantError('a ring holds a power of two');
}

export class Ring {
  readonly size: number;
  readonly #slots: Int32Array;
  readonly #mask: number;
  #head = 0;
  #tail = 0;

  /** `size`: frames it holds, a power of two. */
  constructor(size: number) {
    checkSize(size);
    this.size = size;
    this.#slots = new Int32Array(size);
    this.#mask = size - 1;
  }

  get length(): number {
    return (this.#tail - this.#head) | 0;
  }

  get room(): number {
    return this.size - this.length;
  }

  /** Appends frames[from..to) as far as there is room; returns how many. */
  push(frames: Int32Array, from: number, to: number): number {
    const count = Math.min(to - from, this.room);
    const slots = this.#slots;
    const mask = this.#mask;
    const tail = this.#tail;
    for (let i = 0; i < count; i++) slots[(tail + i) & mask] = frames[from + i]!;
    this.#tail = (tail + count) | 0;
    return count;
  }

  /** Copies the oldest `limit` frames to `target[0..)` without taking them; returns how many. */
  peek(target: Int32Array, limit: number): number {
    const count = Math.min(limit, this.length, target.length);
    for (let i = 0; i < count; i++) target[i] = this.#slots[(this.#head + i) & this.#mask]!;
    return count;
  }

  /** Takes the oldest `count` frames away (they were peeked). */
  drop(count: number): void {
    this.#head = (this.#head + count) | 0;
  }

  /** Takes up to `limit` of the oldest frames into `target[0..)`; returns how many. */
  pop(target: Int32Array, limit: number): number {
    const count = this.peek(target, limit);
    this.drop(count);
    return count;
  }
}

const HEAD = 0;
const TAIL = 16;
const FIRST = 32;

export class SharedRing {
  /** Give this to the other thread's constructor. */
  readonly memory: Int32Array;
  readonly size: number;
  readonly #mask: number;

  constructor(sizeOrMemory: number | Int32Array) {
    if (typeof sizeOrMemory === 'number') {
      checkSize(sizeOrMemory);
      this.memory = new Int32Array(new SharedArrayBuffer((FIRST + sizeOrMemory) * 4));
    } else {
      this.memory = sizeOrMemory;
    }
    this.size = this.memory.length - FIRST;
    checkSize(this.size);
    this.#mask = this.size - 1;
  }

  get length(): number {
    return (Atomics.load(this.memory, TAIL) - Atomics.load(this.memory, HEAD)) | 0;
  }

  /** Producer: appends one frame; false when the ring is full. */
  push(frame: number): boolean {
    const tail = this.memory[TAIL]!;
    if (((tail - Atomics.load(this.memory, HEAD)) | 0) === this.size) return false;
    this.memory[FIRST + (tail & this.#mask)] = frame;
    Atomics.store(this.memory, TAIL, (tail + 1) | 0);
    return true;
  }

  /** Producer: appends frames[from..to) as far as there is room; returns how many. */
  pushAll(frames: Int32Array, from: number, to: number): number {
    const tail = this.memory[TAIL]!;
    const count = Math.min(to - from, this.size - ((tail - Atomics.load(this.memory, HEAD)) | 0));
    for (let i = 0; i < count; i++) this.memory[FIRST + ((tail + i) & this.#mask)] = frames[from + i]!;
    Atomics.store(this.memory, TAIL, (tail + count) | 0);
    return count;
  }

  /** Consumer: takes up to `limit` of the oldest frames into `target[0..)`; returns how many. */
  pop(target: Int32Array, limit: number): number {
    const head = this.memory[HEAD]!;
    const count = Math.min(limit, target.length, (Atomics.load(this.memory, TAIL) - head) | 0);
    for (let i = 0; i < count; i++) target[i] = this.memory[FIRST + ((head + i) & this.#mask)]!;
    Atomics.store(this.memory, HEAD, (head + count) | 0);
    return count;
  }

  /** Consumer: waits until there is a frame, or `timeoutMs` passed. Not for the browser's main thread. */
  wait(timeoutMs: number): void {
    const tail = Atomics.load(this.memory, TAIL);
    if (tail === Atomics.load(this.memory, HEAD)) Atomics.wait(this.memory, TAIL, tail, timeoutMs);
  }

  /** Producer: wakes a consumer that waits. */
  wake(): void {
    Atomics.notify(this.memory, TAIL);
  }
}

/**
 * Runs of bytes that are copied together, between memories named by the pool's region numbers. A NIC walks its descriptors in TypeScript, adds a run for each buffer, and
 * copies them all at once before anybody is told: by one call of native code where there is an engine, which copies a frame of 1514 bytes three times as
 * fast as a loop here can and asks for the memory of the next runs while it copies one. Without an engine the runs are copied here.
 *
 * Adding a run and looking at it again costs more than copying a short one at once: `minBytes` says from which length on it is worth it. (So it is too where
 * another processor writes the memory: with DPDK at the other end 64-byte frames pass 5 to 10 % faster when each is copied at once.)
 *
 * Rules: runs are copied in their order; whoever adds one calls `run` before it returns to its own caller, so that the list is empty whenever
 * anybody else looks; a source that was taken away reads as zeros.
 */

import { type ByteMemory, copyMemory } from './copy.ts';
import { InvariantError } from './errors.ts';

/** Words of a run in the list. */
export const COPY_SOURCE = 0;
export const COPY_FROM = 1;
export const COPY_TARGET = 2;
export const COPY_TO = 3;
export const COPY_LENGTH = 4;
export const COPY_WORDS = 5;
/** Runs that a list holds. */
export const COPIES_MAX = 512;

/** From this length on an engine is faster than a loop, its call and the list included. */
const ENGINE_MIN_BYTES = 128;
const NEVER = 2 ** 31 - 1;

/** Copies the first `count` runs of the list it was given. Returns how many it copied: all, or ours is the mistake. */
export type CopyEngine = (count: number) => number;

export class CopyList {
  readonly list = new Int32Array(COPIES_MAX * COPY_WORDS);
  /** Runs that were added. */
  count = 0;
  /** Runs of fewer bytes are better copied at once. */
  minBytes = NEVER;
  /** Calls of the engine, and the runs it copied, since the list was made. */
  engineCalls = 0;
  engineRuns = 0;
  readonly #memories: readonly ByteMemory[];
  #engine: CopyEngine | null = null;

  /** `memories`: by region number, as they are at the time of `run`. */
  constructor(memories: readonly ByteMemory[]) {
    this.#memories = memories;
  }

  /** Who copies from now on; null: this list itself, which is never worth it. */
  setEngine(engine: CopyEngine | null, minBytes = ENGINE_MIN_BYTES): void {
    this.#engine = engine;
    this.minBytes = engine === null ? NEVER : minBytes;
  }

  /** There must be room: `count < COPIES_MAX`. Bytes [from, from + length) of region `source` go to `to` of region `target`. */
  add(source: number, from: number, target: number, to: number, length: number): void {
    const { list } = this;
    const at = COPY_WORDS * this.count++;
    list[at + COPY_SOURCE] = source;
    list[at + COPY_FROM] = from;
    list[at + COPY_TARGET] = target;
    list[at + COPY_TO] = to;
    list[at + COPY_LENGTH] = length;
  }

  /** For who adds more runs than a list may hold. */
  makeRoom(): void {
    if (this.count === COPIES_MAX) this.run();
  }

  /** Copies all that was added, and forgets it. */
  run(): void {
    const { count, list } = this;
    if (count === 0) return;
    this.count = 0;
    if (this.#engine !== null) {
      this.engineCalls++;
      this.engineRuns += count;
      if (this.#engine(count) !== count) throw new InvariantError('a copy does not fit its target');
      return;
    }
    const memories = this.#memories;
    for (let at = 0; at < COPY_WORDS * count; at += COPY_WORDS) {
      const source = memories[list[at + COPY_SOURCE]!]!;
      const target = memories[list[at + COPY_TARGET]!]!;
      copyMemory(source, list[at + COPY_FROM]!, target, list[at + COPY_TO]!, list[at + COPY_LENGTH]!);
    }
  }
}

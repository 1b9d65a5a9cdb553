/**
 * Register accesses from one process to a NIC in another one: the words of a request and of its answer lie in a page that both have mapped, and pipes are the doorbells. The
 * guest's side blocks until the answer is there, as a CPU does on a read from the bus; the NIC's side answers between its other work.
 */

import { closeSync, openSync, readSync, writeSync } from 'node:fs';

const OPERATION = 0;
const BAR = 1;
const OFFSET = 2;
const SIZE = 3;
const VALUE = 4;
const LEVEL = 5;
const MESSAGES = 6;
const TOLD = 7;

export const MAILBOX_BYTES = 4096;
export const READ_CONFIG = 1;
export const WRITE_CONFIG = 2;
export const READ_BAR = 3;
export const WRITE_BAR = 4;
/** Take the state from the file, or write it there and end. */
export const LOAD = 5;
export const SAVE = 6;

/** The pipes of a mailbox, as suffixes of one path. */
export const REQUESTS = '.requests';
export const ANSWERS = '.answers';
export const INTERRUPTS = '.interrupts';
const BELL = Uint8Array.of(1);

function wordsOf(page: Uint8Array): Int32Array {
  return new Int32Array(page.buffer, page.byteOffset, MAILBOX_BYTES / 4);
}

/** The guest's side. */
export class GuestEnd {
  /** To be watched: there is something to look at in `level` and `messages`. */
  readonly interrupts: number;
  readonly #words: Int32Array;
  readonly #requests: number;
  readonly #answers: number;
  readonly #scratch = new Uint8Array(64);

  /** The other end is about to open the same pipes. */
  constructor(page: Uint8Array, path: string) {
    this.#words = wordsOf(page);
    this.#requests = openSync(path + REQUESTS, 'w');
    this.#answers = openSync(path + ANSWERS, 'r');
    this.interrupts = openSync(path + INTERRUPTS, 'r');
  }

  ask(operation: number, bar = 0, offset = 0, size = 0, value = 0): number {
    const words = this.#words;
    words[OPERATION] = operation;
    words[BAR] = bar;
    words[OFFSET] = offset;
    words[SIZE] = size;
    words[VALUE] = value | 0;
    writeSync(this.#requests, BELL);
    if (readSync(this.#answers, this.#scratch, 0, 1, null) === 0)
      throw new Error("the NIC's process is gone");
    return words[VALUE]! >>> 0;
  }

  /** Takes the bells off the pipe; look afterwards. In the other order a bell that rings in between would be taken, and none would ever follow it. */
  heard(): void {
    readSync(this.interrupts, this.#scratch, 0, this.#scratch.length, null);
    Atomics.store(this.#words, TOLD, 0);
  }

  /** The level of the interrupt pin, and how many message-signalled interrupts there were. */
  get level(): boolean {
    return Atomics.load(this.#words, LEVEL) !== 0;
  }

  get messages(): number {
    return Atomics.load(this.#words, MESSAGES);
  }

  /** Closes all but `interrupts`, which is closed by who watches it. */
  close(): void {
    closeSync(this.#requests);
    closeSync(this.#answers);
  }
}

/** The NIC's side. */
export class NicEnd {
  /** To be watched. */
  readonly requests: number;
  readonly #words: Int32Array;
  readonly #answers: number;
  readonly #interrupts: number;
  readonly #scratch = new Uint8Array(1);

  constructor(page: Uint8Array, path: string) {
    this.#words = wordsOf(page);
    this.requests = openSync(path + REQUESTS, 'r');
    this.#answers = openSync(path + ANSWERS, 'w');
    this.#interrupts = openSync(path + INTERRUPTS, 'w');
  }

  /** Answers the request that the bell rang for. */
  serve(
    answer: (operation: number, bar: number, offset: number, size: number, value: number) => number,
  ): void {
    const words = this.#words;
    if (readSync(this.requests, this.#scratch, 0, 1, null) === 0) process.exit(1);
    const [operation, bar, offset, size, value] = words;
    words[VALUE] = answer(operation!, bar!, offset!, size!, value! >>> 0) | 0;
    writeSync(this.#answers, BELL);
  }

  setLevel(level: boolean): void {
    Atomics.store(this.#words, LEVEL, level ? 1 : 0);
    this.#tell();
  }

  signal(): void {
    Atomics.add(this.#words, MESSAGES, 1);
    this.#tell();
  }

  #tell(): void {
    if (Atomics.exchange(this.#words, TOLD, 1) === 0) writeSync(this.#interrupts, BELL);
  }
}

/**
 * A part of a ring (descriptors, available ring, used ring) as the device sees it: guest RAM itself, as words and half-words, nearly always. Where it
 * does not lie in one mapped range (remote memory, two ranges) it is a private copy instead, which `pull` brings up to date before reads and
 * `push` writes through. Reads of a half-word or word are single loads, so another processor's writes are never seen in part.
 */

import type { GuestMemory } from '../pci/guest-memory.ts';

const NO_HALVES: Uint16Array = new Uint16Array(0);
const NO_WORDS: Int32Array = new Int32Array(0);

export class RingArea {
  readonly address: number;
  readonly bytes: number;
  halves: Uint16Array = NO_HALVES;
  words: Int32Array = NO_WORDS;
  /** Index of the area's first half-word and word. */
  halfAt = 0;
  wordAt = 0;
  /** The guest's own memory, not a copy. */
  mapped = false;
  readonly #access: number;
  #generation = -1;
  #copy: Uint8Array | null = null;

  constructor(address: number, bytes: number, access: number) {
    this.address = address;
    this.bytes = bytes;
    this.#access = access;
  }

  /** Makes the views good for memory as it is now; false when not all of it is RAM that may be so used. */
  map(memory: GuestMemory): boolean {
    if (this.#generation === memory.generation) {
      return this.mapped || this.#pull(memory);
    }
    const at = memory.translate(this.address, this.bytes, this.#access);
    if (at >= 0 && at % 2 === 0 && memory.hit.words.length !== 0) {
      const { bytes, words } = memory.hit;
      this.halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 1);
      this.words = words;
      this.halfAt = at / 2;
      this.wordAt = Math.floor(at / 4);
      this.mapped = true;
      this.#generation = memory.generation;
      return true;
    }
    this.mapped = false;
    if (!memory.covers(this.address, this.bytes, this.#access)) return false;
    this.#copy ??= new Uint8Array((this.bytes + 7) & ~7);
    this.halves = new Uint16Array(this.#copy.buffer);
    this.words = new Int32Array(this.#copy.buffer);
    this.halfAt = 0;
    this.wordAt = 0;
    this.#generation = memory.generation;
    return this.#pull(memory);
  }

  #pull(memory: GuestMemory): boolean {
    return this.#copy !== null && memory.read(this.address, this.#copy, 0, this.bytes);
  }

  /** Writes bytes [from, from + length) of a copy through to guest memory; nothing to do where the area is mapped. */
  push(memory: GuestMemory, from: number, length: number): void {
    if (!this.mapped && this.#copy !== null) memory.write(this.address + from, this.#copy, from, length);
  }
}

/**
 * SHA-256 of a stream, fed in pieces of any size: they are gathered in 64 KiB before the hash function sees them, so a segment costs a copy
 * and no object. What is gathered starts where the first piece lies modulo 8, so that the pieces of a stream, mostly multiples of 8 long, are
 * copied in whole words. The function is @noble/hashes, which runs anywhere (about 110 MB/s here); Node's own may be injected (ten times as fast).
 */

import { sha256 } from '@noble/hashes/sha2.js';
import { ByteMemory, copyMemory } from '../../core/copy.ts';
import { toHex } from '../../wire/bytes.ts';

/** An incremental hash function. */
export interface Hash {
  update(bytes: Uint8Array): unknown;
  digest(): Uint8Array;
}

export type CreateHash = () => Hash;

export const portableSha256: CreateHash = () => sha256.create();

const GATHER_BYTES = 1 << 16;

export class StreamHash {
  readonly #hash: Hash;
  readonly #gathered = new ByteMemory(new Uint8Array(GATHER_BYTES + 8));
  /** The gathered bytes, for each place they may start at. */
  readonly #views: (Uint8Array | undefined)[] = new Array(8).fill(undefined);
  #start = 0;
  #used = 0;

  constructor(create: CreateHash) {
    this.#hash = create();
  }

  /** Adds `memory.bytes[from .. from + length)`. */
  update(memory: ByteMemory, from: number, length: number): void {
    while (length > 0) {
      if (this.#used === 0) this.#start = from & 7;
      const part = Math.min(length, GATHER_BYTES - this.#used);
      copyMemory(memory, from, this.#gathered, this.#start + this.#used, part);
      this.#used += part;
      from += part;
      length -= part;
      if (this.#used === GATHER_BYTES) this.#flush();
    }
  }

  #flush(): void {
    const start = this.#start;
    this.#views[start] ??= this.#gathered.bytes.subarray(start, start + GATHER_BYTES);
    this.#hash.update(this.#views[start]);
    this.#used = 0;
  }

  /** Lower-case hexadecimal; ends it. */
  digest(): string {
    const { bytes } = this.#gathered;
    if (this.#used > 0) this.#hash.update(bytes.subarray(this.#start, this.#start + this.#used));
    this.#used = 0;
    return toHex(this.#hash.digest());
  }
}

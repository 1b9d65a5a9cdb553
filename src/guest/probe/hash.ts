/**
 * SHA-256 of a stream, fed in pieces of any size: they are gathered in 64 KiB before the hash function sees them, so a segment costs a copy
 * and no object. The function is @noble/hashes, which runs anywhere (about 110 MB/s here); Node's own may be injected (ten times as fast).
 */

import { sha256 } from '@noble/hashes/sha2.js';
import { copyRun, wordsOf } from '../../core/copy.ts';
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
  readonly #buffer = new Uint8Array(GATHER_BYTES);
  readonly #words = wordsOf(this.#buffer);
  #used = 0;

  constructor(create: CreateHash) {
    this.#hash = create();
  }

  /** `words`: wordsOf(bytes). */
  update(bytes: Uint8Array, words: Int32Array, from: number, length: number): void {
    while (length > 0) {
      const part = Math.min(length, GATHER_BYTES - this.#used);
      copyRun(bytes, words, from, this.#buffer, this.#words, this.#used, part);
      this.#used += part;
      from += part;
      length -= part;
      if (this.#used === GATHER_BYTES) {
        this.#hash.update(this.#buffer);
        this.#used = 0;
      }
    }
  }

  /** Lower-case hexadecimal; ends it. */
  digest(): string {
    if (this.#used > 0) this.#hash.update(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
    return toHex(this.#hash.digest());
  }
}

/**
 * SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash for what an outsider must not predict, such as initial
 * sequence numbers (RFC 6528) and source ports (RFC 6056). Also good for flow tables: nobody can aim at one bucket.
 * 64-bit words are pairs of 32-bit halves, low half first, as BigInt would be some fifty times slower.
 */

import { u32le } from './bytes.ts';

export const SIPHASH_KEY_BYTES = 16;

export class SipHash {
  /** The halves of the last 64-bit result. */
  low = 0;
  high = 0;
  readonly #key = new Int32Array(4);
  readonly #v = new Int32Array(8);

  /** A key of 16 secret bytes; a shorter one counts as padded with zeros. */
  constructor(key: Uint8Array) {
    const padded = new Uint8Array(SIPHASH_KEY_BYTES);
    padded.set(key.subarray(0, SIPHASH_KEY_BYTES));
    for (let i = 0; i < 4; i++) this.#key[i] = u32le(padded, 4 * i);
  }

  /** Hashes a run of bytes; sets `low` and `high` and returns `low`, a non-negative 32-bit number. */
  hash(bytes: Uint8Array, offset: number, length: number): number {
    const v = this.#v;
    const key = this.#key;
    v[0] = key[0] ^ 0x70736575;
    v[1] = key[1] ^ 0x736f6d65;
    v[2] = key[2] ^ 0x6e646f6d;
    v[3] = key[3] ^ 0x646f7261;
    v[4] = key[0] ^ 0x6e657261;
    v[5] = key[1] ^ 0x6c796765;
    v[6] = key[2] ^ 0x79746573;
    v[7] = key[3] ^ 0x74656462;
    const wordsEnd = offset + (length & ~7);
    for (let at = offset; at < wordsEnd; at += 8) this.#absorb(u32le(bytes, at), u32le(bytes, at + 4));
    // The last word: what is left over, and the length in the top byte.
    const left = length & 7;
    let low = 0;
    let high = length << 24;
    for (let i = 0; i < left; i++) {
      if (i < 4) low |= bytes[wordsEnd + i] << (8 * i);
      else high |= bytes[wordsEnd + i] << (8 * (i - 4));
    }
    this.#absorb(low, high);
    v[4] ^= 0xff;
    for (let i = 0; i < 4; i++) sipRound(v);
    this.low = (v[0] ^ v[2] ^ v[4] ^ v[6]) >>> 0;
    this.high = (v[1] ^ v[3] ^ v[5] ^ v[7]) >>> 0;
    return this.low;
  }

  #absorb(low: number, high: number): void {
    const v = this.#v;
    v[6] ^= low;
    v[7] ^= high;
    sipRound(v);
    sipRound(v);
    v[0] ^= low;
    v[1] ^= high;
  }
}

function sipRound(v: Int32Array): void {
  add(v, 0, 2);
  add(v, 4, 6);
  rotateXor(v, 2, 13, 0);
  rotateXor(v, 6, 16, 4);
  swapHalves(v, 0);
  add(v, 4, 2);
  add(v, 0, 6);
  rotateXor(v, 2, 17, 4);
  rotateXor(v, 6, 21, 0);
  swapHalves(v, 4);
}

/** v[a] += v[b], as 64-bit words. */
function add(v: Int32Array, a: number, b: number): void {
  const low = (v[a] >>> 0) + (v[b] >>> 0);
  v[a] = low;
  v[a + 1] += v[b + 1] + (low > 0xffffffff ? 1 : 0);
}

/** v[a] = rotl(v[a], bits) ^ v[b], for fewer than 32 bits. */
function rotateXor(v: Int32Array, a: number, bits: number, b: number): void {
  const low = v[a];
  const high = v[a + 1];
  v[a] = ((low << bits) | (high >>> (32 - bits))) ^ v[b];
  v[a + 1] = ((high << bits) | (low >>> (32 - bits))) ^ v[b + 1];
}

/** A rotation by 32. */
function swapHalves(v: Int32Array, a: number): void {
  const low = v[a];
  v[a] = v[a + 1];
  v[a + 1] = low;
}

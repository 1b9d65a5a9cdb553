/**
 * Connections by a key of ten words (addresses, ports, protocol), found without allocating: a hash table with chains in typed arrays. It holds FLOWS_MAX of
 * them; one more takes the place of the one that came in first, whose value is handed back to whoever added.
 *
 * The hash is not keyed: a peer that builds collisions makes its own guest's lookups slow, CHAIN_MAX steps at most; behind that many a
 * flow is not found, as if it had been evicted.
 */

const FLOWS_MAX = 16_384;
const CHAIN_MAX = 64;
const NONE = -1;
/** Two addresses of four words each, both ports in one, the protocol. */
export const FLOW_KEY_WORDS = 10;

export class FlowTable<T> {
  readonly #max: number;
  readonly #buckets: Int32Array;
  readonly #keys: Int32Array;
  readonly #next: Int32Array;
  readonly #values: (T | undefined)[] = [];
  readonly #free: number[] = [];
  #hand = 0;

  /** `max`: connections held, a power of two. */
  constructor(max = FLOWS_MAX) {
    this.#max = max;
    this.#buckets = new Int32Array(2 * max).fill(NONE);
    this.#keys = new Int32Array(FLOW_KEY_WORDS * max);
    this.#next = new Int32Array(max);
  }

  get size(): number {
    return this.#values.length - this.#free.length;
  }

  find(key: Int32Array): T | undefined {
    let place = this.#buckets[this.#bucket(key, 0)]!;
    for (let steps = 0; place !== NONE && steps < CHAIN_MAX; steps++) {
      if (this.#is(place, key)) return this.#values[place];
      place = this.#next[place]!;
    }
    return undefined;
  }

  /** Adds a connection that `find` did not find. Returns the one that had to go for it, if any. */
  add(key: Int32Array, value: T): T | undefined {
    let place = this.#free.pop();
    let evicted: T | undefined;
    if (place === undefined && this.#values.length < this.#max) {
      place = this.#values.length;
    } else if (place === undefined) {
      place = this.#hand;
      this.#hand = (this.#hand + 1) & (this.#max - 1);
      evicted = this.#values[place];
      this.#unlink(place);
    }
    this.#keys.set(key, FLOW_KEY_WORDS * place);
    this.#values[place] = value;
    const bucket = this.#bucket(key, 0);
    this.#next[place] = this.#buckets[bucket]!;
    this.#buckets[bucket] = place;
    return evicted;
  }

  /** Takes away every connection that `gone` says so of. */
  sweep(gone: (value: T) => boolean): void {
    for (const [place, value] of this.#values.entries()) {
      if (value === undefined || !gone(value)) continue;
      this.#unlink(place);
      this.#values[place] = undefined;
      this.#free.push(place);
    }
  }

  *values(): Generator<T> {
    for (const value of this.#values) if (value !== undefined) yield value;
  }

  clear(): void {
    this.#buckets.fill(NONE);
    this.#values.length = 0;
    this.#free.length = 0;
    this.#hand = 0;
  }

  #is(place: number, key: Int32Array): boolean {
    const keys = this.#keys;
    const k = FLOW_KEY_WORDS * place;
    for (let i = 0; i < FLOW_KEY_WORDS; i++) if (keys[k + i] !== key[i]) return false;
    return true;
  }

  /** Of the key that begins at words[from]. */
  #bucket(words: Int32Array, from: number): number {
    let hash = 0;
    for (let i = from; i < from + FLOW_KEY_WORDS; i++) {
      hash = Math.imul(hash ^ words[i]!, 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash, 0x2c1b3c6d);
    return (hash ^ (hash >>> 13)) & (this.#buckets.length - 1);
  }

  #unlink(place: number): void {
    const bucket = this.#bucket(this.#keys, FLOW_KEY_WORDS * place);
    let at = this.#buckets[bucket]!;
    if (at === place) {
      this.#buckets[bucket] = this.#next[place]!;
      return;
    }
    while (this.#next[at] !== place) at = this.#next[at]!;
    this.#next[at] = this.#next[place]!;
  }
}

/**
 * Connections by protocol, addresses and ports (IPv4), found without allocating: a hash table with chains in typed arrays. It holds FLOWS_MAX of
 * them; one more takes the place of the one that came in first, whose value is handed back to whoever added.
 *
 * The hash is not keyed: a peer that builds collisions makes its own guest's lookups slow, CHAIN_MAX steps at most; behind that many a
 * flow is not found, as if it had been evicted.
 */

const FLOWS_MAX = 16_384;
const CHAIN_MAX = 64;
const NONE = -1;

export class FlowTable<T> {
  readonly #max: number;
  readonly #buckets: Int32Array;
  /** Source, destination, both ports, protocol of each place. */
  readonly #keys: Int32Array;
  readonly #next: Int32Array;
  readonly #values: (T | undefined)[] = [];
  readonly #free: number[] = [];
  #hand = 0;

  /** `max`: connections held, a power of two. */
  constructor(max = FLOWS_MAX) {
    this.#max = max;
    this.#buckets = new Int32Array(2 * max).fill(NONE);
    this.#keys = new Int32Array(4 * max);
    this.#next = new Int32Array(max);
  }

  get size(): number {
    return this.#values.length - this.#free.length;
  }

  find(protocol: number, src: number, srcPort: number, dst: number, dstPort: number): T | undefined {
    const ports = (srcPort << 16) | dstPort;
    let place = this.#buckets[this.#bucket(protocol, src, dst, ports)]!;
    for (let steps = 0; place !== NONE && steps < CHAIN_MAX; steps++) {
      if (this.#is(place, protocol, src, dst, ports)) return this.#values[place];
      place = this.#next[place]!;
    }
    return undefined;
  }

  /** Adds a connection that `find` did not find. Returns the one that had to go for it, if any. */
  add(protocol: number, src: number, srcPort: number, dst: number, dstPort: number, value: T): T | undefined {
    const ports = (srcPort << 16) | dstPort;
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
    const k = 4 * place;
    this.#keys[k] = src;
    this.#keys[k + 1] = dst;
    this.#keys[k + 2] = ports;
    this.#keys[k + 3] = protocol;
    this.#values[place] = value;
    const bucket = this.#bucket(protocol, src, dst, ports);
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

  #is(place: number, protocol: number, src: number, dst: number, ports: number): boolean {
    const keys = this.#keys;
    const k = 4 * place;
    return (
      keys[k] === (src | 0) && keys[k + 1] === (dst | 0) && keys[k + 2] === ports && keys[k + 3] === protocol
    );
  }

  #bucket(protocol: number, src: number, dst: number, ports: number): number {
    let hash =
      Math.imul(src ^ Math.imul(dst, 0x9e3779b1), 0x85ebca6b) ^ Math.imul(ports, 0xc2b2ae35) ^ protocol;
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return (hash ^ (hash >>> 13)) & (this.#buckets.length - 1);
  }

  #unlink(place: number): void {
    const keys = this.#keys;
    const k = 4 * place;
    const bucket = this.#bucket(keys[k + 3]!, keys[k]!, keys[k + 1]!, keys[k + 2]!);
    let at = this.#buckets[bucket]!;
    if (at === place) {
      this.#buckets[bucket] = this.#next[place]!;
      return;
    }
    while (this.#next[at] !== place) at = this.#next[at]!;
    this.#next[at] = this.#next[place]!;
  }
}

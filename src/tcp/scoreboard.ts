/**
 * What the peer said it holds beyond the acknowledgement (SACK, RFC 2018), as sorted disjoint ranges of sequence numbers, and RFC 6675's
 * question whether a byte that it did not name counts as lost. Sequence numbers are int32 and compared by their distance. At most
 * RANGES_MAX ranges are remembered: what does not fit counts as not yet received, which costs at most a retransmission.
 */

const RANGES_MAX = 256;
/** RFC 6675's DupThresh. */
const DUPLICATES = 3;

export class Scoreboard {
  /** Pairs: left edge, right edge (exclusive). Made at the first block, since most connections never lose anything; doubled when full. */
  #edges: Int32Array | null = null;
  #count = 0;
  /** Bytes in all ranges. */
  bytes = 0;

  get empty(): boolean {
    return this.#count === 0;
  }

  /** The right edge of the highest range; only when not empty. */
  get highest(): number {
    return this.#edges![2 * this.#count - 1]!;
  }

  clear(): void {
    this.#count = 0;
    this.bytes = 0;
  }

  /** The first range that ends behind `seq`. */
  #behind(seq: number): number {
    const e = this.#edges;
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (((e![2 * middle + 1]! - seq) | 0) <= 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Adds [left, right), which the caller has checked to lie within what was sent. Returns true when it told something new. */
  add(left: number, right: number): boolean {
    let e = (this.#edges ??= new Int32Array(32));
    let n = this.#count;
    const i = this.#behind((left - 1) | 0);
    if (i < n && ((e[2 * i]! - left) | 0) <= 0 && ((e[2 * i + 1]! - right) | 0) >= 0) return false;
    // Ranges i..j-1 touch the new one: they become one.
    let j = i;
    while (j < n && ((e[2 * j]! - right) | 0) <= 0) {
      if (((e[2 * j]! - left) | 0) < 0) left = e[2 * j]!;
      if (((e[2 * j + 1]! - right) | 0) > 0) right = e[2 * j + 1]!;
      this.bytes -= (e[2 * j + 1]! - e[2 * j]!) | 0;
      j++;
    }
    if (j === i) {
      if (n === RANGES_MAX) return false;
      if (2 * n === e.length) {
        this.#edges = new Int32Array(2 * e.length);
        this.#edges.set(e);
        e = this.#edges;
      }
      e.copyWithin(2 * i + 2, 2 * i, 2 * n);
      n++;
    } else if (j > i + 1) {
      e.copyWithin(2 * i + 2, 2 * j, 2 * n);
      n -= j - i - 1;
    }
    e[2 * i] = left;
    e[2 * i + 1] = right;
    this.bytes += (right - left) | 0;
    this.#count = n;
    return true;
  }

  /** Everything before `una` is acknowledged: forgets it. */
  acknowledged(una: number): void {
    const e = this.#edges;
    if (e === null || this.#count === 0) return;
    const drop = this.#behind(una);
    for (let i = 0; i < drop; i++) this.bytes -= (e[2 * i + 1]! - e[2 * i]!) | 0;
    if (drop > 0) {
      e.copyWithin(0, 2 * drop, 2 * this.#count);
      this.#count -= drop;
    }
    if (this.#count > 0 && ((e[0]! - una) | 0) < 0) {
      this.bytes -= (una - e[0]!) | 0;
      e[0] = una;
    }
  }

  /** The first byte at or after `from` that no range holds. */
  holeFrom(from: number): number {
    const i = this.#behind(from);
    return i < this.#count && ((this.#edges![2 * i]! - from) | 0) <= 0 ? this.#edges![2 * i + 1]! : from;
  }

  /** Where the hole that `from` lies in ends: the next range's left edge, or `limit`. */
  holeEnd(from: number, limit: number): number {
    let i = this.#behind(from);
    if (i < this.#count && ((this.#edges![2 * i]! - from) | 0) <= 0) i++;
    if (i === this.#count) return limit;
    const left = this.#edges![2 * i]!;
    return ((left - limit) | 0) < 0 ? left : limit;
  }

  /** Whether all of [from, to) is in one range. */
  holds(from: number, to: number): boolean {
    const i = this.#behind(from);
    if (i === this.#count) return false;
    return ((this.#edges![2 * i]! - from) | 0) <= 0 && ((this.#edges![2 * i + 1]! - to) | 0) >= 0;
  }

  /** RFC 6675 IsLost: three ranges, or more than two segments' worth of bytes, were received above `seq`. */
  isLost(seq: number, segmentBytes: number): boolean {
    const e = this.#edges;
    let ranges = 0;
    let bytes = 0;
    for (let i = this.#count - 1; i >= 0; i--) {
      if (((e![2 * i + 1]! - seq) | 0) <= 0) break;
      ranges++;
      bytes += (e![2 * i + 1]! - e![2 * i]!) | 0;
      if (ranges >= DUPLICATES || bytes > (DUPLICATES - 1) * segmentBytes) return true;
    }
    return false;
  }

  /** Bytes of ranges within [from, to). */
  bytesWithin(from: number, to: number): number {
    const e = this.#edges;
    let sum = 0;
    for (let i = this.#behind(from); i < this.#count; i++) {
      const left = ((e![2 * i]! - from) | 0) > 0 ? e![2 * i]! : from;
      if (((left - to) | 0) >= 0) break;
      const right = ((e![2 * i + 1]! - to) | 0) < 0 ? e![2 * i + 1]! : to;
      sum += (right - left) | 0;
    }
    return sum;
  }
}

/**
 * What the peer said it holds beyond the acknowledgement (SACK, RFC 2018), as sorted disjoint ranges of sequence numbers, and RFC 6675's
 * question whether a byte that it did not name counts as lost. Sequence numbers are int32 and compared by their distance. At most
 * RANGES_MAX ranges are remembered: what does not fit counts as not yet received, which costs at most a retransmission.
 */

const RANGES_MAX = 64;
/** RFC 6675's DupThresh. */
const DUPLICATES = 3;

export class Scoreboard {
  /** Pairs: left edge, right edge (exclusive). Made at the first block, since most connections never lose anything. */
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

  /** Adds [left, right), which the caller has checked to lie within what was sent. Returns true when it told something new. */
  add(left: number, right: number): boolean {
    const e = (this.#edges ??= new Int32Array(2 * RANGES_MAX));
    let n = this.#count;
    let i = 0;
    while (i < n && ((e[2 * i + 1]! - left) | 0) < 0) i++;
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
    let drop = 0;
    while (drop < this.#count && ((e[2 * drop + 1]! - una) | 0) <= 0) {
      this.bytes -= (e[2 * drop + 1]! - e[2 * drop]!) | 0;
      drop++;
    }
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
    const e = this.#edges;
    for (let i = 0; i < this.#count; i++) {
      if (((from - e![2 * i]!) | 0) < 0) break;
      if (((from - e![2 * i + 1]!) | 0) < 0) return e![2 * i + 1]!;
    }
    return from;
  }

  /** Where the hole that `from` lies in ends: the next range's left edge, or `limit`. */
  holeEnd(from: number, limit: number): number {
    const e = this.#edges;
    for (let i = 0; i < this.#count; i++) {
      const left = e![2 * i]!;
      if (((left - from) | 0) > 0) return ((left - limit) | 0) < 0 ? left : limit;
    }
    return limit;
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
    for (let i = 0; i < this.#count; i++) {
      const left = ((e![2 * i]! - from) | 0) > 0 ? e![2 * i]! : from;
      const right = ((e![2 * i + 1]! - to) | 0) < 0 ? e![2 * i + 1]! : to;
      const length = (right - left) | 0;
      if (length > 0) sum += length;
    }
    return sum;
  }
}

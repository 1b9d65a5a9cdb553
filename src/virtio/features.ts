/** Feature bits (virtio 1.3, chapter 6): 64 of them as two words, and the numbers of those that concern rings and transports. */

export const F_NOTIFY_ON_EMPTY = 24;
export const F_ANY_LAYOUT = 27;
export const F_INDIRECT_DESC = 28;
export const F_EVENT_IDX = 29;
export const F_VERSION_1 = 32;
export const F_ACCESS_PLATFORM = 33;
export const F_RING_PACKED = 34;
export const F_IN_ORDER = 35;
export const F_NOTIFICATION_DATA = 38;
export const F_RING_RESET = 40;

export class Features {
  /** Bits 0 to 31 and 32 to 63, as signed words. */
  low = 0;
  high = 0;

  constructor(bits: Iterable<number> = []) {
    for (const bit of bits) this.add(bit);
  }

  has(bit: number): boolean {
    return (((bit < 32 ? this.low : this.high) >>> (bit & 31)) & 1) !== 0;
  }

  add(bit: number): void {
    if (bit < 32) this.low |= 1 << bit;
    else this.high |= 1 << (bit & 31);
  }

  remove(bit: number): void {
    if (bit < 32) this.low &= ~(1 << bit);
    else this.high &= ~(1 << (bit & 31));
  }

  /** Word 0 or 1; other words are empty. */
  word(index: number): number {
    return (index === 0 ? this.low : index === 1 ? this.high : 0) >>> 0;
  }

  setWord(index: number, value: number): void {
    if (index === 0) this.low = value | 0;
    else if (index === 1) this.high = value | 0;
  }

  clear(): void {
    this.low = 0;
    this.high = 0;
  }

  copy(from: Features): void {
    this.low = from.low;
    this.high = from.high;
  }

  /** Keeps only the bits that `allowed` has too; returns whether that took any away. */
  mask(allowed: Features): boolean {
    const extra = (this.low & ~allowed.low) !== 0 || (this.high & ~allowed.high) !== 0;
    this.low &= allowed.low;
    this.high &= allowed.high;
    return extra;
  }
}

/**
 * A log of the pages that a device wrote, for a machine that moves while it runs: one bit for each 4 KiB of guest-physical addresses, in memory that whoever copies the
 * machine reads and clears at the same time (vhost-user's LOG_SHMFD). Bits are therefore set by atomic operations, and *after* the page was
 * written: a bit that was set before could be taken, and the page copied, in between.
 */

const PAGE_SHIFT = 12;
const PAGE_BYTES = 2 ** PAGE_SHIFT;

export class DirtyLog {
  /** Pages beyond the log that were to be marked. */
  missed = 0;
  readonly #bits: Uint8Array;
  readonly #marked: () => void;

  /** `marked` is told when a run of marks is done. */
  constructor(bits: Uint8Array, marked: () => void) {
    this.#bits = bits;
    this.#marked = marked;
  }

  /** Marks every page of [address, address + length). */
  mark(address: number, length: number): void {
    if (length <= 0) return;
    const bits = this.#bits;
    // Not by shifts: addresses pass 2^32.
    const last = Math.floor((address + length - 1) / PAGE_BYTES);
    for (let page = Math.floor(address / PAGE_BYTES); page <= last; page++) {
      const at = Math.floor(page / 8);
      if (at >= bits.length) {
        this.missed++;
        return;
      }
      const bit = 1 << (page % 8);
      // A bit that is set already says it: nobody need be kept from reading.
      if ((Atomics.load(bits, at) & bit) === 0) Atomics.or(bits, at, bit);
    }
  }

  tell(): void {
    this.#marked();
  }
}

/**
 * Message signalled interrupts: MSI (PCI 3.0 section 6.8.1, 64-bit address and per-vector masks) and MSI-X (6.8.2, table and pending bits in a BAR).
 * Both hold masks and pending bits: a message for a masked vector waits in its pending bit and is sent when the mask goes.
 *
 * A transport whose client keeps the tables itself (vfio-user: enabling and masking happen by SET_IRQS) sets `external`: then every
 * message goes out at once and the function's own enable and mask bits do not count.
 */

import { CAP_MSI, CAP_MSIX, type ConfigSpace } from './config-space.ts';

/** Where messages go: `DeviceHost.signalMsi`. */
export type SendMessage = (vector: number, address: number, data: number) => void;

const MSI_ENABLE = 1;
const MSI_64BIT = 1 << 7;
const MSI_MASKABLE = 1 << 8;
const MSI_BYTES = 24;

export class Msi {
  /** Messages the function asks for; a power of two, 1 to 32. */
  readonly vectors: number;
  external = false;
  readonly offset: number;
  readonly #config: ConfigSpace;
  readonly #send: SendMessage;

  constructor(config: ConfigSpace, vectors: number, send: SendMessage, at?: number) {
    this.#config = config;
    this.#send = send;
    this.vectors = vectors;
    this.offset = config.addCapability(CAP_MSI, MSI_BYTES, at);
    const log2 = 31 - Math.clz32(vectors);
    config.put(this.offset + 2, 2, MSI_64BIT | MSI_MASKABLE | (log2 << 1));
    config.allow(this.offset + 2, 2, MSI_ENABLE | (7 << 4));
    config.allow(this.offset + 4, 4, 0xfffffffc);
    config.allow(this.offset + 8, 4, 0xffffffff);
    config.allow(this.offset + 12, 2, 0xffff);
    config.allow(this.offset + 16, 4, vectors === 32 ? 0xffffffff : 2 ** vectors - 1);
  }

  get enabled(): boolean {
    return this.external || (this.#config.bytes[this.offset + 2] & MSI_ENABLE) !== 0;
  }

  /** Sends a message, or remembers it while its vector is masked. Vectors beyond what software granted share the last one granted. */
  notify(vector: number): void {
    if (!this.enabled) return;
    const config = this.#config;
    const at = this.offset;
    if (this.external) {
      this.#send(vector, 0, 0);
      return;
    }
    const granted = Math.min(this.vectors, 1 << ((config.bytes[at + 2] >>> 4) & 7));
    if (vector >= granted) vector = granted - 1;
    const bit = 2 ** vector;
    if (((config.read(at + 16, 4) / bit) & 1) !== 0) {
      config.put(at + 20, 4, (config.read(at + 20, 4) | bit) >>> 0);
      return;
    }
    const address = config.read(at + 4, 4) + config.read(at + 8, 4) * 2 ** 32;
    // The low bits of the data choose the vector.
    this.#send(vector, address, (config.read(at + 12, 2) & ~(granted - 1)) | vector);
  }

  /** After software wrote the capability: sends what was pending and is masked no longer. */
  written(): void {
    if (!this.enabled || this.external) return;
    const config = this.#config;
    const ready = config.read(this.offset + 20, 4) & ~config.read(this.offset + 16, 4);
    if (ready === 0) return;
    config.put(this.offset + 20, 4, config.read(this.offset + 20, 4) & ~ready);
    for (let vector = 0; vector < this.vectors; vector++)
      if (((ready >>> vector) & 1) !== 0) this.notify(vector);
  }

  reset(): void {
    const config = this.#config;
    config.put(this.offset + 2, 2, config.read(this.offset + 2, 2) & ~(MSI_ENABLE | (7 << 4)));
    for (const [at, size] of [
      [4, 4],
      [8, 4],
      [12, 2],
      [16, 4],
      [20, 4],
    ]) {
      config.put(this.offset + at, size, 0);
    }
  }
}

const MSIX_ENABLE = 0x8000;
const MSIX_MASK_ALL = 0x4000;
const MSIX_BYTES = 12;
const ENTRY_WORDS = 4;
const ENTRY_MASKED = 1;

export interface MsixPlace {
  readonly bar: number;
  readonly tableOffset: number;
  readonly pbaOffset: number;
}

export class Msix {
  readonly vectors: number;
  readonly place: MsixPlace;
  external = false;
  readonly offset: number;
  readonly #config: ConfigSpace;
  readonly #send: SendMessage;
  readonly #table: Int32Array;
  readonly #pending: Int32Array;

  constructor(config: ConfigSpace, vectors: number, place: MsixPlace, send: SendMessage, at?: number) {
    this.#config = config;
    this.#send = send;
    this.vectors = vectors;
    this.place = place;
    this.#table = new Int32Array(vectors * ENTRY_WORDS);
    this.#pending = new Int32Array(2 * Math.ceil(vectors / 64));
    this.offset = config.addCapability(CAP_MSIX, MSIX_BYTES, at);
    config.put(this.offset + 2, 2, vectors - 1);
    config.allow(this.offset + 2, 2, MSIX_ENABLE | MSIX_MASK_ALL);
    config.put(this.offset + 4, 4, place.tableOffset | place.bar);
    config.put(this.offset + 8, 4, place.pbaOffset | place.bar);
    this.reset();
  }

  get tableBytes(): number {
    return this.#table.length * 4;
  }

  get pbaBytes(): number {
    return this.#pending.length * 4;
  }

  get enabled(): boolean {
    return this.external || (this.#config.bytes[this.offset + 3] & (MSIX_ENABLE >> 8)) !== 0;
  }

  get #allMasked(): boolean {
    return (this.#config.bytes[this.offset + 3] & (MSIX_MASK_ALL >> 8)) !== 0;
  }

  /** Sends a message, or remembers it while its vector or the function is masked. A vector outside the table is nobody's. */
  notify(vector: number): void {
    if (vector < 0 || vector >= this.vectors || !this.enabled) return;
    const table = this.#table;
    const at = vector * ENTRY_WORDS;
    if (this.external) {
      this.#send(vector, (table[at] >>> 0) + (table[at + 1] >>> 0) * 2 ** 32, table[at + 2] >>> 0);
      return;
    }
    if (this.#allMasked || (table[at + 3] & ENTRY_MASKED) !== 0) {
      this.#pending[vector >> 5] |= 1 << (vector & 31);
      return;
    }
    this.#send(vector, (table[at] >>> 0) + (table[at + 1] >>> 0) * 2 ** 32, table[at + 2] >>> 0);
  }

  /** Whether a vector's message waits for its mask to go. */
  isPending(vector: number): boolean {
    return vector >= 0 && vector < this.vectors && ((this.#pending[vector >> 5] >>> (vector & 31)) & 1) !== 0;
  }

  #sendPending(vector: number): void {
    if (!this.isPending(vector) || !this.enabled || this.#allMasked) return;
    if ((this.#table[vector * ENTRY_WORDS + 3] & ENTRY_MASKED) !== 0) return;
    this.#pending[vector >> 5] &= ~(1 << (vector & 31));
    this.notify(vector);
  }

  /** After software wrote the capability. */
  written(): void {
    for (let vector = 0; vector < this.vectors; vector++) this.#sendPending(vector);
  }

  /** The table or the pending bits hold this offset of the BAR. */
  holds(offset: number): boolean {
    const { tableOffset, pbaOffset } = this.place;
    return (
      (offset >= tableOffset && offset < tableOffset + this.tableBytes) ||
      (offset >= pbaOffset && offset < pbaOffset + this.pbaBytes)
    );
  }

  /** An aligned 32-bit read; 0 outside table and pending bits. */
  read32(offset: number): number {
    const { tableOffset, pbaOffset } = this.place;
    if (offset >= pbaOffset && offset < pbaOffset + this.pbaBytes)
      return this.#pending[(offset - pbaOffset) >> 2] >>> 0;
    if (offset >= tableOffset && offset < tableOffset + this.tableBytes)
      return this.#table[(offset - tableOffset) >> 2] >>> 0;
    return 0;
  }

  /** An aligned 32-bit write; pending bits are read-only. */
  write32(offset: number, value: number): void {
    const at = (offset - this.place.tableOffset) >> 2;
    if (at < 0 || at >= this.#table.length) return;
    const word = at % ENTRY_WORDS;
    this.#table[at] = word === 0 ? value & ~3 : word === 3 ? value & ENTRY_MASKED : value;
    if (word === 3) this.#sendPending(Math.floor(at / ENTRY_WORDS));
  }

  reset(): void {
    const config = this.#config;
    config.put(this.offset + 2, 2, config.read(this.offset + 2, 2) & ~(MSIX_ENABLE | MSIX_MASK_ALL));
    this.#pending.fill(0);
    this.#table.fill(0);
    for (let at = 3; at < this.#table.length; at += ENTRY_WORDS) this.#table[at] = ENTRY_MASKED;
  }

  /** Table and pending bits, for save and restore. */
  save(): { table: number[]; pending: number[] } {
    return { table: [...this.#table], pending: [...this.#pending] };
  }

  /** False, and nothing is changed, when the shape is not this function's. */
  load(state: { table: readonly number[]; pending: readonly number[] }): boolean {
    if (state.table.length !== this.#table.length || state.pending.length !== this.#pending.length)
      return false;
    this.#table.set(state.table);
    this.#pending.set(state.pending);
    return true;
  }
}

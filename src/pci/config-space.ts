/**
 * The configuration space of one PCI function (PCI Local Bus 3.0, chapter 6): bytes, which bits software may write, which bits a written 1
 * clears, and a list of capabilities. What a write means beyond its bits (a BAR that moves, an interrupt that is masked) is the owner's business.
 */

import { InvariantError } from '../core/errors.ts';

export const PCI_VENDOR_ID = 0x00;
export const PCI_DEVICE_ID = 0x02;
export const PCI_COMMAND = 0x04;
export const PCI_STATUS = 0x06;
export const PCI_REVISION = 0x08;
export const PCI_CLASS = 0x09;
export const PCI_CACHE_LINE = 0x0c;
export const PCI_LATENCY_TIMER = 0x0d;
export const PCI_HEADER_TYPE = 0x0e;
export const PCI_BAR0 = 0x10;
export const PCI_SUBSYSTEM_VENDOR_ID = 0x2c;
export const PCI_SUBSYSTEM_ID = 0x2e;
export const PCI_ROM = 0x30;
export const PCI_CAPABILITIES = 0x34;
export const PCI_INTERRUPT_LINE = 0x3c;
export const PCI_INTERRUPT_PIN = 0x3d;

export const COMMAND_IO = 1 << 0;
export const COMMAND_MEMORY = 1 << 1;
export const COMMAND_BUS_MASTER = 1 << 2;
export const COMMAND_PARITY = 1 << 6;
export const COMMAND_SERR = 1 << 8;
export const COMMAND_INTX_DISABLE = 1 << 10;
export const STATUS_INTX = 1 << 3;
export const STATUS_CAPABILITIES = 1 << 4;
/** Error bits of the status register that a written 1 clears. */
const STATUS_WRITE_CLEAR = 0xf900;

export const CAP_POWER_MANAGEMENT = 0x01;
export const CAP_MSI = 0x05;
export const CAP_VENDOR = 0x09;
export const CAP_MSIX = 0x11;

/** Capabilities may start here (behind the standard header). */
const CAPABILITIES_START = 0x40;
const CONVENTIONAL_BYTES = 256;

export class ConfigSpace {
  readonly bytes: Uint8Array;
  /** Bits that software may change. */
  readonly writable: Uint8Array;
  /** Bits that a written 1 clears. */
  readonly writeClear: Uint8Array;
  #lastCapability = 0;
  #nextFree = CAPABILITIES_START;

  /** `size`: 256, or 4096 for a function with extended space. */
  constructor(size = CONVENTIONAL_BYTES) {
    this.bytes = new Uint8Array(size);
    this.writable = new Uint8Array(size);
    this.writeClear = new Uint8Array(size);
    const command = COMMAND_PARITY | COMMAND_SERR | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
    this.set(this.writable, PCI_COMMAND, 2, command);
    this.set(this.writeClear, PCI_STATUS, 2, STATUS_WRITE_CLEAR);
    this.writable[PCI_CACHE_LINE] = 0xff;
    this.writable[PCI_LATENCY_TIMER] = 0xff;
    this.writable[PCI_INTERRUPT_LINE] = 0xff;
  }

  /** A little-endian value of `size` bytes; bytes outside the space read as ones. */
  read(offset: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + (this.bytes[offset + i] ?? 0xff);
    return value;
  }

  /** Software's write: only writable bits change. Bytes outside the space are ignored. */
  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      const byte = i < 4 ? (value >>> (8 * i)) & 0xff : Math.floor(value / 2 ** (8 * i)) & 0xff;
      if (at < 0 || at >= this.bytes.length) continue;
      const mask = this.writable[at];
      this.bytes[at] = ((this.bytes[at] & ~mask) | (byte & mask)) & ~(byte & this.writeClear[at]);
    }
  }

  /** The device's own write, whatever the masks. */
  put(offset: number, size: number, value: number): void {
    this.set(this.bytes, offset, size, value);
  }

  /** Which bits of a field software may write. */
  allow(offset: number, size: number, mask: number): void {
    this.set(this.writable, offset, size, mask);
  }

  private set(target: Uint8Array, offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) target[offset + i] = value >>> (8 * i);
  }

  /** Appends a capability of `length` bytes at `at`, or at the next free place; returns its offset. */
  addCapability(id: number, length: number, at?: number): number {
    const offset = at ?? (this.#nextFree + 3) & ~3;
    if (offset < CAPABILITIES_START || offset + length > CONVENTIONAL_BYTES || offset % 4 !== 0) {
      throw new InvariantError(`no place for a capability of ${length} bytes at ${offset}`);
    }
    this.bytes[offset] = id;
    this.bytes[offset + 1] = 0;
    if (this.#lastCapability === 0) this.bytes[PCI_CAPABILITIES] = offset;
    else this.bytes[this.#lastCapability + 1] = offset;
    this.#lastCapability = offset;
    if (at === undefined) this.#nextFree = offset + length;
    this.bytes[PCI_STATUS] |= STATUS_CAPABILITIES;
    return offset;
  }

  /** The offset of the first capability with this id, or 0. */
  findCapability(id: number): number {
    let at = this.bytes[PCI_CAPABILITIES];
    for (let hops = 0; at >= CAPABILITIES_START && hops < 48; hops++) {
      if (this.bytes[at] === id) return at;
      at = this.bytes[at + 1];
    }
    return 0;
  }
}

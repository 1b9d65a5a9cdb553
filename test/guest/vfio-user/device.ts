/**
 * A PCI function made for tests: registers that hold what is written, a copier that moves guest memory by DMA, and registers that raise each kind of
 * interrupt.
 */

import type { DeviceHost } from '../../../src/pci/device-host.ts';
import { PciFunction } from '../../../src/pci/pci-function.ts';

/** Plain registers from 0 to PLAIN_END; then: */
export const PLAIN_END = 0x100;
/** 1: the pin goes high; 0: low. */
export const PIN = 0x100;
/** Sends this MSI or MSI-X vector. */
export const SEND_MSI = 0x104;
export const SEND_MSIX = 0x108;
/** Copies LENGTH bytes from SOURCE to TARGET; reads as 1 when the last copy succeeded. */
export const COPY = 0x10c;
export const SOURCE = 0x00;
export const TARGET = 0x04;
export const LENGTH = 0x08;
/** Reading counts: a register with a side effect. */
export const READS = 0x110;
/** Throws: a bug of a model. */
export const FAULT = 0x114;

export const VECTORS = 4;

export class TestFunction extends PciFunction {
  readonly registers = new Uint32Array(PLAIN_END / 4);
  resets = 0;
  /** Called within every register write. */
  onWrite: (() => void) | null = null;
  reads = 0;
  copied = 0;
  /** Sizes and offsets of what reached the registers, in order. */
  readonly accesses: string[] = [];

  constructor(host: DeviceHost) {
    super(host, {
      vendorId: 0x1234,
      deviceId: 0x5678,
      revision: 1,
      classCode: 0x020000,
      subsystemVendorId: 0x1234,
      subsystemId: 1,
      interruptPin: 1,
    });
    this.addBar(0, 'memory32', 4096);
    this.addBar(1, 'io', 64);
    this.addBar(2, 'memory32', 4096);
    this.addMsi(VECTORS);
    this.addMsix(VECTORS, { bar: 2, tableOffset: 0, pbaOffset: 2048 });
  }

  protected override readRegister(bar: number, offset: number): number {
    this.accesses.push(`r${bar}:${offset.toString(16)}`);
    if (bar !== 0) return 0xb1b1b1b1;
    if (offset === READS) return ++this.reads;
    if (offset === COPY) return this.copied;
    if (offset === FAULT) throw new Error('a model with a bug');
    return this.registers[offset / 4] ?? 0;
  }

  protected override writeRegister(bar: number, offset: number, value: number): void {
    this.accesses.push(`w${bar}:${offset.toString(16)}=${value.toString(16)}`);
    this.onWrite?.();
    if (bar !== 0) return;
    if (offset < PLAIN_END) this.registers[offset / 4] = value;
    else if (offset === PIN) this.setIntx(value !== 0);
    else if (offset === SEND_MSI) this.msi?.notify(value);
    else if (offset === SEND_MSIX) this.msix?.notify(value);
    else if (offset === COPY) this.copied = this.#copy() ? 1 : 0;
  }

  #copy(): boolean {
    const bytes = new Uint8Array(this.registers[LENGTH / 4]!);
    return (
      this.host.memory.read(this.registers[SOURCE / 4]!, bytes, 0, bytes.length) &&
      this.host.memory.write(this.registers[TARGET / 4]!, bytes, 0, bytes.length)
    );
  }

  protected override resetModel(): void {
    this.resets++;
    this.registers.fill(0);
    this.copied = 0;
  }

  override close(): void {}
}

/** What the two halves of the rtl8139 driver have in common: registers, packets' bytes, and what each half does for the driver. */

import type {
  DriverCapabilities,
  DriverListener,
  DriverOptions,
  PacketBatch,
  PacketMemory,
  PciAccess,
} from './driver.ts';

const BAR = 1;

/** The chip's registers as a driver reaches them, by their own sizes. */
export class Registers {
  readonly #pci: PciAccess;

  constructor(pci: PciAccess) {
    this.#pci = pci;
  }

  get8(register: number): number {
    return this.#pci.readBar(BAR, register, 1);
  }

  put8(register: number, value: number): void {
    this.#pci.writeBar(BAR, register, 1, value);
  }

  get16(register: number): number {
    return this.#pci.readBar(BAR, register, 2);
  }

  put16(register: number, value: number): void {
    this.#pci.writeBar(BAR, register, 2, value);
  }

  get32(register: number): number {
    return this.#pci.readBar(BAR, register, 4);
  }

  put32(register: number, value: number): void {
    this.#pci.writeBar(BAR, register, 4, value >>> 0);
  }
}

/** The bytes of packets to send, as the CPU reaches them: in the driver's own RAM, or in the packets' memory. */
export class PacketBytes {
  readonly #ram: PacketMemory;
  readonly #packets: PacketMemory;
  bytes: Uint8Array;

  constructor(options: DriverOptions) {
    this.#ram = options.ram;
    this.#packets = options.packets ?? options.ram;
    this.bytes = this.#ram.bytes;
  }

  /** Index in `bytes` of a packet's first byte; `bytes` is then the memory where it lies. */
  find(address: number): number {
    const { address: start, bytes } = this.#packets;
    const memory = address >= start && address < start + bytes.length ? this.#packets : this.#ram;
    this.bytes = memory.bytes;
    return address - memory.address;
  }
}

/** One programming model: rings or buffers, and what moves through them. */
export interface Rtl8139Path {
  readonly capabilities: DriverCapabilities;
  readonly room: number;
  /** Bits of RCR that belong to it. */
  readonly receiveConfiguration: number;
  /** Allocates guest RAM, and tells the chip before and after receiver and transmitter are switched on. */
  layOut(): void;
  start(): void;
  /** Takes packets [from, to), as many as it can. */
  send(batch: PacketBatch, from: number, to: number): number;
  /** Packets transmitted since the last call. */
  reap(): number;
  /** Shows received packets; returns whether there were any. `open` false from within a listener ends it. */
  receive(listener: DriverListener, open: () => boolean): boolean;
}

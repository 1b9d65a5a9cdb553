/**
 * How a driver reaches a virtio PCI device (virtio 1.3, section 4.1): through the structures that vendor capabilities point to, or through the legacy I/O registers. Only what a
 * network driver needs.
 */

import type { PciAccess } from './driver.ts';
import type { DriverRing } from './virtio-ring.ts';

export const STATUS_ACKNOWLEDGE = 1;
export const STATUS_DRIVER = 2;
export const STATUS_DRIVER_OK = 4;
export const STATUS_FEATURES_OK = 8;
export const STATUS_NEEDS_RESET = 0x40;
const NO_VECTOR = 0xffff;
const CAP_VENDOR = 9;
const PAGE_BYTES = 4096;

export interface VirtioTransport {
  readonly legacy: boolean;
  status: number;
  features(word: number): number;
  setFeatures(word: number, value: number): void;
  /** Entries of a queue; 0: there is none. */
  queueSize(index: number): number;
  /** Places a queue of `ring.size` entries and enables it; `vector` of MSI-X, or -1. False: it does not take it. */
  enableQueue(index: number, ring: DriverRing, vector: number): boolean;
  kick(index: number): void;
  setConfigVector(vector: number): void;
  /** Reads and clears the interrupt causes: 1 queues, 2 configuration. */
  causes(): number;
  config(offset: number, size: number): number;
}

/** Finds the modern structures; null where the device has none. */
export function modernTransport(pci: PciAccess): VirtioTransport | null {
  const places = new Map<number, { bar: number; offset: number; at: number }>();
  let at = pci.readConfig(0x34, 1);
  for (let hops = 0; at >= 0x40 && hops < 48; hops++) {
    if (pci.readConfig(at, 1) === CAP_VENDOR) {
      const type = pci.readConfig(at + 3, 1);
      if (!places.has(type)) {
        places.set(type, { bar: pci.readConfig(at + 4, 1), offset: pci.readConfig(at + 8, 4), at });
      }
    }
    at = pci.readConfig(at + 1, 1);
  }
  const common = places.get(1);
  const notify = places.get(2);
  const isr = places.get(3);
  const device = places.get(4);
  if (common === undefined || notify === undefined || isr === undefined || device === undefined) return null;
  return new ModernTransport(pci, common, notify, pci.readConfig(notify.at + 16, 4), isr, device);
}

interface Place {
  readonly bar: number;
  readonly offset: number;
}

class ModernTransport implements VirtioTransport {
  readonly legacy = false;
  readonly #pci: PciAccess;
  readonly #common: Place;
  readonly #notify: Place;
  readonly #multiplier: number;
  readonly #isr: Place;
  readonly #device: Place;
  readonly #notifyOffsets: number[] = [];

  constructor(pci: PciAccess, common: Place, notify: Place, multiplier: number, isr: Place, device: Place) {
    this.#pci = pci;
    this.#common = common;
    this.#notify = notify;
    this.#multiplier = multiplier;
    this.#isr = isr;
    this.#device = device;
  }

  #get(offset: number, size: number): number {
    return this.#pci.readBar(this.#common.bar, this.#common.offset + offset, size);
  }

  #put(offset: number, size: number, value: number): void {
    this.#pci.writeBar(this.#common.bar, this.#common.offset + offset, size, value >>> 0);
  }

  get status(): number {
    return this.#get(20, 1);
  }

  set status(value: number) {
    this.#put(20, 1, value);
  }

  features(word: number): number {
    this.#put(0, 4, word);
    return this.#get(4, 4);
  }

  setFeatures(word: number, value: number): void {
    this.#put(8, 4, word);
    this.#put(12, 4, value);
  }

  queueSize(index: number): number {
    if (index >= this.#get(18, 2)) return 0;
    this.#put(22, 2, index);
    return this.#get(24, 2);
  }

  enableQueue(index: number, ring: DriverRing, vector: number): boolean {
    this.#put(22, 2, index);
    this.#put(24, 2, ring.size);
    this.#put(26, 2, vector < 0 ? NO_VECTOR : vector);
    for (const [at, address] of [
      [32, ring.descriptors],
      [40, ring.driver],
      [48, ring.device],
    ]) {
      this.#put(at, 4, address % 2 ** 32);
      this.#put(at + 4, 4, Math.floor(address / 2 ** 32));
    }
    this.#notifyOffsets[index] = this.#notify.offset + this.#get(30, 2) * this.#multiplier;
    this.#put(28, 2, 1);
    return this.#get(28, 2) === 1 && (vector < 0 || this.#get(26, 2) === vector);
  }

  kick(index: number): void {
    this.#pci.writeBar(this.#notify.bar, this.#notifyOffsets[index], 2, index);
  }

  setConfigVector(vector: number): void {
    this.#put(16, 2, vector);
  }

  causes(): number {
    return this.#pci.readBar(this.#isr.bar, this.#isr.offset, 1);
  }

  config(offset: number, size: number): number {
    return this.#pci.readBar(this.#device.bar, this.#device.offset + offset, size);
  }
}

/** The legacy registers in BAR 0; MSI-X is not used with it. */
export class LegacyTransport implements VirtioTransport {
  readonly legacy = true;
  readonly #pci: PciAccess;

  constructor(pci: PciAccess) {
    this.#pci = pci;
  }

  get status(): number {
    return this.#pci.readBar(0, 18, 1);
  }

  set status(value: number) {
    this.#pci.writeBar(0, 18, 1, value);
  }

  features(word: number): number {
    return word === 0 ? this.#pci.readBar(0, 0, 4) : 0;
  }

  setFeatures(word: number, value: number): void {
    if (word === 0) this.#pci.writeBar(0, 4, 4, value >>> 0);
  }

  queueSize(index: number): number {
    this.#pci.writeBar(0, 14, 2, index);
    return this.#pci.readBar(0, 12, 2);
  }

  enableQueue(index: number, ring: DriverRing): boolean {
    this.#pci.writeBar(0, 14, 2, index);
    if (this.#pci.readBar(0, 12, 2) !== ring.size) return false;
    this.#pci.writeBar(0, 8, 4, ring.descriptors / PAGE_BYTES);
    return this.#pci.readBar(0, 8, 4) === ring.descriptors / PAGE_BYTES;
  }

  kick(index: number): void {
    this.#pci.writeBar(0, 16, 2, index);
  }

  setConfigVector(): void {}

  causes(): number {
    return this.#pci.readBar(0, 19, 1);
  }

  config(offset: number, size: number): number {
    return this.#pci.readBar(0, 20 + offset, size);
  }
}

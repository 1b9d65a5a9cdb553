/**
 * Where a virtio device's registers lie in its BARs (virtio 1.3, section 4.1.4): the sections of the modern BAR, each told by a vendor capability of
 * configuration space, and the window there (section 4.1.4.9), through which firmware that maps no BAR reaches them.
 */

import { CAP_VENDOR, type ConfigSpace } from '../pci/config-space.ts';

export const LEGACY_BAR = 0;
export const MSIX_BAR = 1;
export const MODERN_BAR = 4;
export const COMMON_OFFSET = 0x0000;
export const ISR_OFFSET = 0x1000;
export const DEVICE_OFFSET = 0x2000;
export const NOTIFY_OFFSET = 0x3000;
export const SECTION_BYTES = 0x1000;
export const MODERN_BAR_BYTES = 0x4000;
export const NOTIFY_MULTIPLIER = 4;
export const COMMON_BYTES = 60;

const CAP_COMMON = 1;
const CAP_NOTIFY = 2;
const CAP_ISR = 3;
const CAP_DEVICE = 4;
const CAP_PCI_ACCESS = 5;
const CAP_BYTES = 16;
const CAP_LONG_BYTES = 20;
/** In the access capability: BAR, offset and length of what its last word, the data, stands for. */
const ACCESS_BAR = 4;
const ACCESS_OFFSET = 8;
const ACCESS_LENGTH = 12;
const ACCESS_DATA = 16;
const DATA_BYTES = 4;

/** Adds the vendor capabilities; returns where the one of the window lies. */
export function addCapabilities(config: ConfigSpace, queues: number, deviceBytes: number): number {
  const add = (type: number, offset: number, length: number, bytes = CAP_BYTES): number => {
    const at = config.addCapability(CAP_VENDOR, bytes);
    config.put(at + 2, 1, bytes);
    config.put(at + 3, 1, type);
    config.put(at + 4, 1, type === CAP_PCI_ACCESS ? 0 : MODERN_BAR);
    config.put(at + 8, 4, offset);
    config.put(at + 12, 4, length);
    return at;
  };
  add(CAP_COMMON, COMMON_OFFSET, COMMON_BYTES);
  const notify = add(CAP_NOTIFY, NOTIFY_OFFSET, NOTIFY_MULTIPLIER * queues, CAP_LONG_BYTES);
  config.put(notify + 16, 4, NOTIFY_MULTIPLIER);
  add(CAP_ISR, ISR_OFFSET, 1);
  add(CAP_DEVICE, DEVICE_OFFSET, deviceBytes);
  const access = add(CAP_PCI_ACCESS, 0, 0, CAP_LONG_BYTES);
  config.allow(access + ACCESS_BAR, 1, 0xff);
  config.allow(access + ACCESS_OFFSET, 4, 0xffffffff);
  config.allow(access + ACCESS_LENGTH, 4, 0xffffffff);
  return access;
}

/** The window in configuration space: an access to its data is one to the BAR that it is set to. */
export class ConfigWindow {
  readonly #config: ConfigSpace;
  readonly #at: number;
  readonly #device: BarAccess;

  /** `at`: what `addCapabilities` returned. */
  constructor(config: ConfigSpace, at: number, device: BarAccess) {
    this.#config = config;
    this.#at = at;
    this.#device = device;
  }

  /** Before configuration space is read: brings the data up to date. */
  beforeRead(offset: number, size: number): void {
    if (!this.#touches(offset, size)) return;
    const { bar, at, length } = this.#target();
    if (length !== 0)
      this.#config.put(this.#at + ACCESS_DATA, DATA_BYTES, this.#device.readBar(bar, at, length));
  }

  /** After configuration space was written. */
  afterWrite(offset: number, size: number, value: number): void {
    if (!this.#touches(offset, size)) return;
    const data = this.#at + ACCESS_DATA;
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      if (at >= data && at < data + DATA_BYTES)
        this.#config.bytes[at] = Math.floor(value / 2 ** (8 * i)) & 0xff;
    }
    const { bar, at, length } = this.#target();
    if (length !== 0) this.#device.writeBar(bar, at, length, this.#config.read(data, length));
  }

  #touches(offset: number, size: number): boolean {
    const data = this.#at + ACCESS_DATA;
    return offset < data + DATA_BYTES && offset + size > data;
  }

  /** What it is set to; length 0: nothing that can be reached. */
  #target(): { bar: number; at: number; length: number } {
    const config = this.#config;
    const bar = config.read(this.#at + ACCESS_BAR, 1);
    const length = config.read(this.#at + ACCESS_LENGTH, 4);
    const reachable =
      (bar === MODERN_BAR || bar === LEGACY_BAR) && (length === 1 || length === 2 || length === 4);
    return { bar, at: config.read(this.#at + ACCESS_OFFSET, 4), length: reachable ? length : 0 };
  }
}

export interface BarAccess {
  readBar(bar: number, offset: number, size: number): number;
  writeBar(bar: number, offset: number, size: number, value: number): void;
}

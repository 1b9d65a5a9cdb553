/**
 * The registers of a virtio device's PCI transport, and access to them: what both interfaces, modern and legacy, keep and act on. An interface says where
 * each field lies and what it reads and writes as; accesses of any size, over several fields or a part of one, are put together here.
 */

import type { Features } from './features.ts';
import type { QueueLayout, VirtQueue } from './queue.ts';

export const STATUS_ACKNOWLEDGE = 1;
export const STATUS_DRIVER = 2;
export const STATUS_DRIVER_OK = 4;
export const STATUS_FEATURES_OK = 8;
export const STATUS_NEEDS_RESET = 0x40;
export const STATUS_FAILED = 0x80;

export const NO_VECTOR = 0xffff;
export const ISR_QUEUE = 1;
export const ISR_CONFIG = 2;

export class VirtioStats {
  /** The driver took features that were not offered, or against their dependencies. */
  badFeatures = 0;
  /** A queue was enabled with a size or address that it cannot have. */
  badQueue = 0;
  /** Kicks for queues that are not there or not enabled. */
  badKick = 0;
  /** Rings that broke the rules; each leads to NEEDS_RESET. */
  brokenRings = 0;
  /** Accesses to registers that are not there or not in one piece. */
  oddAccess = 0;
  kicks = 0;
  interrupts = 0;
  resets = 0;
}

/** One queue's registers, and the queue while it is enabled. */
export class QueueSlot {
  size = 0;
  vector = NO_VECTOR;
  /** Low and high words of descriptor, driver and device area, as written. */
  readonly addresses = new Uint32Array(6);
  /** Legacy: the ring's page number. */
  page = 0;
  queue: VirtQueue | null = null;

  clear(size: number): void {
    this.size = size;
    this.vector = NO_VECTOR;
    this.addresses.fill(0);
    this.page = 0;
    this.queue = null;
  }
}

/** The layout that a queue's registers tell. */
export function layoutOf({ size, addresses: a }: QueueSlot): QueueLayout {
  return {
    size,
    descriptors: a[1] * 2 ** 32 + a[0],
    driver: a[3] * 2 ** 32 + a[2],
    device: a[5] * 2 ** 32 + a[4],
  };
}

/** What is not a queue's. */
export class Registers {
  status = 0;
  isr = 0;
  /** Of the device configuration. */
  generation = 0;
  deviceSelect = 0;
  driverSelect = 0;
  queueSelect = 0;
  configVector = NO_VECTOR;

  /** As a reset leaves them; the generation goes on. */
  clear(): void {
    this.status = 0;
    this.isr = 0;
    this.deviceSelect = 0;
    this.driverSelect = 0;
    this.queueSelect = 0;
    this.configVector = NO_VECTOR;
  }
}

/** What an interface acts on: the device behind its registers. */
export interface RegisterOwner {
  readonly registers: Registers;
  readonly slots: readonly QueueSlot[];
  readonly offered: Features;
  readonly accepted: Features;
  stats(): VirtioStats;
  msixEnabled(): boolean;
  /** The status as it reads. */
  statusRead(): number;
  writeStatus(value: number, modern: boolean): void;
  /** The interrupt status, which reading clears. */
  takeIsr(): number;
  /** A vector as it is kept: NO_VECTOR where there is none of that number. */
  vector(value: number): number;
  /** The accepted features are settled. */
  settle(): void;
  /** Enables a modern queue, if its registers allow that. */
  enableQueue(index: number): void;
  /** Serves the queue that the registers tell. */
  openQueue(index: number): void;
  resetQueue(index: number): void;
  kickQueue(index: number): void;
  /** Byte `offset` of the device configuration. */
  configByte(offset: number): number;
  writeConfigByte(offset: number, value: number): void;
}

/** One of the two interfaces. */
export interface RegisterInterface {
  /** Where the field at `offset` begins and how wide it is: offset * 8 + bytes; -1: there is none. */
  fieldAt(offset: number): number;
  /** The field that begins at `offset`. */
  read(offset: number): number;
  write(offset: number, value: number): void;
}

/** Reads `size` bytes at `offset`, which lie in one field or in several; bytes without a field read as 0. */
export function readFields(fields: RegisterInterface, offset: number, size: number): number {
  if (size !== 1 && size !== 2 && size !== 4 && size !== 8) return 0;
  let value = 0;
  for (let at = offset; at < offset + size; ) {
    const field = fields.fieldAt(at);
    if (field < 0) {
      at++;
      continue;
    }
    const start = Math.floor(field / 8);
    const bytes = field & 7;
    const whole = fields.read(start);
    const end = Math.min(start + bytes, offset + size);
    for (let b = at; b < end; b++) value += ((whole >>> (8 * (b - start))) & 0xff) * 2 ** (8 * (b - offset));
    at = end;
  }
  return value;
}

/** Writes `size` bytes at `offset`, field by field; a write of a part of one keeps the rest as it reads. */
export function writeFields(
  fields: RegisterInterface,
  stats: VirtioStats,
  offset: number,
  size: number,
  value: number,
): void {
  if (size !== 1 && size !== 2 && size !== 4 && size !== 8) return;
  for (let at = offset; at < offset + size; ) {
    const field = fields.fieldAt(at);
    if (field < 0) {
      stats.oddAccess++;
      at++;
      continue;
    }
    const start = Math.floor(field / 8);
    const bytes = field & 7;
    const end = Math.min(start + bytes, offset + size);
    let whole = 0;
    if (at > start || end < start + bytes) whole = fields.read(start);
    for (let b = at; b < end; b++) {
      const byte = Math.floor(value / 2 ** (8 * (b - offset))) & 0xff;
      const shift = 8 * (b - start);
      whole = ((whole & ~(0xff << shift)) | (byte << shift)) >>> 0;
    }
    fields.write(start, whole);
    at = end;
  }
}

/**
 * The PCI transport of a virtio device (virtio 1.3, section 4.1), whatever the device is: a model extends it and says what it offers, how its configuration reads and
 * what a kick does.
 *
 *   BAR 0  I/O: the legacy interface (section 4.1.4.8), when there is one
 *   BAR 1  memory: MSI-X table and pending bits
 *   BAR 4  memory: common 0x0000, ISR 0x1000, device 0x2000, notification 0x3000, each told by a vendor capability
 *
 * Status machine: reset (0) → ACKNOWLEDGE, DRIVER → FEATURES_OK (refused when the driver took what was not offered or broke a dependency) → queues are
 * enabled → DRIVER_OK. A ring that breaks the rules sets NEEDS_RESET; nothing is done until the driver resets. What a queue's registers say is frozen
 * when it is enabled. On reset of the device or a queue what it had in flight is forgotten at once: frames that others still hold may borrow memory that the driver
 * uses for something else, as with any device whose reset stops DMA of what it has already fetched.
 *
 * A transport outside this process (vhost-user) drives the same device without these registers: `attachTransport` and what follows it.
 */

import { CAP_VENDOR, COMMAND_BUS_MASTER, PCI_COMMAND } from '../pci/config-space.ts';
import type { DeviceHost } from '../pci/device-host.ts';
import type { GuestMemory } from '../pci/guest-memory.ts';
import { PciFunction } from '../pci/pci-function.ts';
import { F_RING_PACKED, F_RING_RESET, F_VERSION_1, Features } from './features.ts';
import { isLayoutValid, openQueue, type QueueLayout, type QueuePosition, type VirtQueue } from './queue.ts';

export const STATUS_ACKNOWLEDGE = 1;
export const STATUS_DRIVER = 2;
export const STATUS_DRIVER_OK = 4;
export const STATUS_FEATURES_OK = 8;
export const STATUS_NEEDS_RESET = 0x40;
export const STATUS_FAILED = 0x80;

export const LEGACY_BAR = 0;
export const MSIX_BAR = 1;
export const MODERN_BAR = 4;
export const COMMON_OFFSET = 0x0000;
export const ISR_OFFSET = 0x1000;
export const DEVICE_OFFSET = 0x2000;
export const NOTIFY_OFFSET = 0x3000;
const SECTION_BYTES = 0x1000;
const MODERN_BAR_BYTES = 0x4000;
export const NOTIFY_MULTIPLIER = 4;
const COMMON_BYTES = 60;

const CAP_COMMON = 1;
const CAP_NOTIFY = 2;
const CAP_ISR = 3;
const CAP_DEVICE = 4;
const CAP_PCI_ACCESS = 5;
const CAP_BYTES = 16;
const CAP_LONG_BYTES = 20;

export const NO_VECTOR = 0xffff;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;
const LEGACY_PAGE_BYTES = 4096;
const LEGACY_DEVICE_OFFSET = 20;
const LEGACY_DEVICE_OFFSET_MSIX = 24;

export interface VirtioPciOptions {
  /** Virtio device type: 1 is a network card. */
  readonly deviceType: number;
  readonly classCode: number;
  readonly legacy: boolean;
  readonly modern: boolean;
  /** MSI-X vectors; 0: none. */
  readonly vectors: number;
  /** Queues there may be. */
  readonly queues: number;
  /** Bytes of the device configuration. */
  readonly configBytes: number;
}

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

export interface QueueState {
  readonly sizeMax: number;
  readonly layout: QueueLayout;
  readonly enabled: boolean;
  readonly inFlight: number;
  readonly position: QueuePosition;
}

/** A transport in place of PCI's registers and interrupts. */
export interface OtherTransport {
  /** Buffers of the queue were used, and the driver asked to be told. */
  queueInterrupt(index: number): void;
  /** A ring broke the rules: nothing is served until `restart`. */
  ringBroken(): void;
}

export abstract class VirtioPci extends PciFunction {
  /** What the driver may take now; the model fills it in `offer`. */
  readonly offered = new Features();
  /** What the driver took. */
  readonly accepted = new Features();
  readonly memory: GuestMemory;
  protected readonly slots: QueueSlot[];
  protected configVector = NO_VECTOR;
  protected abstract readonly transport: VirtioStats;

  readonly #options: VirtioPciOptions;
  readonly #accessCapability: number;
  #status = 0;
  #isr = 0;
  #generation = 0;
  #deviceSelect = 0;
  #driverSelect = 0;
  #queueSelect = 0;
  #live = false;
  #loading = false;
  #other: OtherTransport | null = null;
  #otherLive = false;

  constructor(host: DeviceHost, options: VirtioPciOptions) {
    const modernOnly = !options.legacy;
    super(host, {
      vendorId: 0x1af4,
      deviceId: modernOnly ? 0x1040 + options.deviceType : 0x0fff + options.deviceType,
      revision: modernOnly ? 1 : 0,
      classCode: options.classCode,
      subsystemVendorId: 0x1af4,
      subsystemId: modernOnly ? 0x1100 : options.deviceType,
      interruptPin: 1,
    });
    this.#options = options;
    this.memory = host.memory;
    this.slots = Array.from({ length: options.queues }, () => new QueueSlot());
    if (options.legacy) this.addBar(LEGACY_BAR, 'io', 64);
    if (options.vectors > 0) {
      const tableBytes = Math.max(2048, 2 ** Math.ceil(Math.log2(16 * options.vectors)));
      this.addBar(MSIX_BAR, 'memory32', 2 * tableBytes);
      this.addMsix(options.vectors, { bar: MSIX_BAR, tableOffset: 0, pbaOffset: tableBytes });
    }
    this.#accessCapability = options.modern ? this.#addCapabilities() : 0;
  }

  #addCapabilities(): number {
    this.addBar(MODERN_BAR, 'memory32', MODERN_BAR_BYTES);
    const { config } = this;
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
    const notify = add(CAP_NOTIFY, NOTIFY_OFFSET, NOTIFY_MULTIPLIER * this.slots.length, CAP_LONG_BYTES);
    config.put(notify + 16, 4, NOTIFY_MULTIPLIER);
    add(CAP_ISR, ISR_OFFSET, 1);
    add(CAP_DEVICE, DEVICE_OFFSET, this.#options.configBytes);
    const access = add(CAP_PCI_ACCESS, 0, 0, CAP_LONG_BYTES);
    config.allow(access + 4, 1, 0xff);
    config.allow(access + 8, 4, 0xffffffff);
    config.allow(access + 12, 4, 0xffffffff);
    return access;
  }

  // What a model answers.

  /** Sets `offered` to what can be served now. */
  protected abstract offer(): void;
  /** Whether the accepted features hold their dependencies. */
  protected abstract featuresFit(accepted: Features): boolean;
  /** The accepted features are settled: sizes of queues may depend on them. */
  protected abstract queueSizeMax(index: number): number;
  /** Byte `offset` of the device configuration. */
  protected abstract configByte(offset: number): number;
  protected abstract writeConfigByte(offset: number, value: number): void;
  /** Accepted features were settled (FEATURES_OK, or each legacy write). */
  protected abstract featuresSettled(): void;
  /** A queue was enabled, after or before `started`. */
  protected abstract queueOpened(index: number, queue: VirtQueue): void;
  /** A queue was reset; with the device's own reset it is not told. */
  protected abstract queueClosed(index: number): void;
  /** DRIVER_OK, bus mastering or NEEDS_RESET changed what `live` says. */
  protected abstract liveChanged(live: boolean): void;
  protected abstract kicked(index: number): void;
  /** Somebody still works on queues that a reset has taken away: until not, the driver does not see the reset done (section 2.1.2). */
  protected get resetting(): boolean {
    return false;
  }
  /** The device's own state after a reset by the driver. */
  protected abstract resetDevice(): void;

  // State.

  get status(): number {
    return this.#status;
  }

  /** A queue as a monitor shows it; undefined: there is none of that number. */
  queueState(index: number): QueueState | undefined {
    const slot = this.slots[index];
    if (slot === undefined) return undefined;
    return {
      sizeMax: this.queueSizeMax(index),
      layout: this.#layout(slot),
      enabled: slot.queue !== null,
      inFlight: slot.queue?.inFlight ?? 0,
      position: slot.queue?.position() ?? { avail: 0, used: 0 },
    };
  }

  /** Another program serves the data queues. */
  get servedOutside(): boolean {
    return false;
  }

  get #statusRead(): number {
    return this.#status === 0 && this.resetting ? STATUS_ACKNOWLEDGE : this.#status;
  }

  /** A queue goes on from another position, as whoever served it says. */
  protected moveQueue(index: number, position: QueuePosition): void {
    const slot = this.slots[index];
    if (slot.queue !== null) slot.queue = openQueue(slot.queue.layout, this.accepted, position);
  }

  get queueCount(): number {
    return this.slots.length;
  }

  /** Queues are to be served: DRIVER_OK, DMA allowed, not broken. */
  get live(): boolean {
    return this.#live;
  }

  #updateLive(): void {
    const status = this.#status | (this.#otherLive ? STATUS_DRIVER_OK : 0);
    const live =
      (status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET | STATUS_FAILED)) === STATUS_DRIVER_OK &&
      this.dmaEnabled;
    if (live === this.#live) return;
    this.#live = live;
    if (!this.#loading) this.liveChanged(live);
  }

  protected override dmaChanged(): void {
    // Told by the base class's constructor-time reset too, before this object is whole.
    if (this.slots !== undefined) this.#updateLive();
  }

  protected override resetModel(): void {
    this.#resetAll();
  }

  #resetAll(): void {
    this.#status = 0;
    this.#otherLive = false;
    this.#updateLive();
    for (const slot of this.slots) slot.queue = null;
    this.accepted.clear();
    this.offered.clear();
    this.#isr = 0;
    this.#deviceSelect = 0;
    this.#driverSelect = 0;
    this.#queueSelect = 0;
    this.configVector = NO_VECTOR;
    this.setIntx(false);
    this.resetDevice();
    this.offer();
    for (const [index, slot] of this.slots.entries()) slot.clear(this.queueSizeMax(index));
  }

  /** What can be offered changed; a driver that has settled its features keeps to what it was told. */
  protected offerChanged(): void {
    if ((this.#status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) === 0 && this.accepted.low === 0)
      this.offer();
  }

  /** The ring broke the rules: the device stops until it is reset (section 2.1.2). */
  protected needsReset(): void {
    if ((this.#status & STATUS_NEEDS_RESET) !== 0) return;
    this.transport.brokenRings++;
    this.#status |= STATUS_NEEDS_RESET;
    this.#updateLive();
    if ((this.#status & STATUS_DRIVER_OK) !== 0) this.configChanged();
    this.#other?.ringBroken();
  }

  // Another transport: it keeps the rings' registers and notifications itself, and has the front-end's word for the features.

  /**
   * The driver is in another process: it goes on while we work, and who serves its rings next may know no more than how many buffers were used, which are then to be the first ones.
   */
  protected get isServedElsewhere(): boolean {
    return this.#other !== null;
  }

  /** From now on `other` drives the device, which is reset; null: nobody does. */
  attachTransport(other: OtherTransport | null): void {
    this.#other = other;
    this.restart();
  }

  /** As after a reset: no features, no queues, what can be offered looked up anew; DMA stays allowed. */
  restart(): void {
    this.reset();
    if (this.#other !== null) this.writeConfig(PCI_COMMAND, 2, COMMAND_BUS_MASTER);
  }

  /** The driver's features, which are cut to what was offered and settled. No queue may be there. */
  settleFeatures(features: Features): void {
    this.accepted.copy(features);
    this.accepted.mask(this.offered);
    this.#settle();
  }

  /** Serves an opened queue; the place must be empty. */
  openQueueAt(index: number, queue: VirtQueue): void {
    this.slots[index].queue = queue;
    this.queueOpened(index, queue);
  }

  /** Forgets a queue, as its reset does. */
  closeQueueAt(index: number): void {
    this.slots[index].queue = null;
    this.queueClosed(index);
  }

  /** Whether queues that are open are to be served. */
  setTransportLive(live: boolean): void {
    this.#otherLive = live;
    this.#updateLive();
  }

  /** The driver has kicked a queue. */
  kickQueueAt(index: number): void {
    this.#kickQueue(index);
  }

  // Interrupts.

  protected queueInterrupt(index: number): void {
    this.transport.interrupts++;
    if (this.#other !== null) {
      this.#other.queueInterrupt(index);
      return;
    }
    const msix = this.msix;
    if (msix?.enabled) {
      msix.notify(this.slots[index].vector);
      return;
    }
    this.#isr |= ISR_QUEUE;
    this.setIntx(true);
  }

  /** The device configuration changed: tells the driver. */
  protected configChanged(): void {
    this.#generation = (this.#generation + 1) & 0xff;
    if ((this.#status & STATUS_DRIVER_OK) === 0) return;
    this.transport.interrupts++;
    const msix = this.msix;
    if (msix?.enabled) {
      msix.notify(this.configVector);
      return;
    }
    this.#isr |= ISR_CONFIG;
    this.setIntx(true);
  }

  #readIsr(): number {
    const isr = this.#isr;
    this.#isr = 0;
    this.setIntx(false);
    return isr;
  }

  #vector(value: number): number {
    return value < (this.msix?.vectors ?? 0) ? value : NO_VECTOR;
  }

  // Access.

  override readBar(bar: number, offset: number, size: number): number {
    if (bar === MODERN_BAR && this.#options.modern) return this.#readFields(this.#modernField, offset, size);
    if (bar === LEGACY_BAR && this.#options.legacy) return this.#readFields(this.#legacyField, offset, size);
    return super.readBar(bar, offset, size);
  }

  override writeBar(bar: number, offset: number, size: number, value: number): void {
    if (bar === MODERN_BAR && this.#options.modern) {
      if (offset >= NOTIFY_OFFSET && offset < NOTIFY_OFFSET + SECTION_BYTES) {
        this.#kick(offset - NOTIFY_OFFSET, size);
        return;
      }
      this.#writeFields(this.#modernField, offset, size, value);
    } else if (bar === LEGACY_BAR && this.#options.legacy) {
      this.#writeFields(this.#legacyField, offset, size, value);
    } else {
      super.writeBar(bar, offset, size, value);
    }
  }

  /** Every register is answered in `readBar`; only the MSI-X BAR comes here, behind its table. */
  protected override readRegister(): number {
    return 0;
  }

  protected override writeRegister(): void {}

  #kick(offset: number, size: number): void {
    const index = offset / NOTIFY_MULTIPLIER;
    if ((size !== 2 && size !== 4) || !Number.isInteger(index)) {
      this.transport.oddAccess++;
      return;
    }
    this.#kickQueue(index);
  }

  #kickQueue(index: number): void {
    const queue = this.slots[index]?.queue ?? null;
    if (queue === null) {
      this.transport.badKick++;
      return;
    }
    this.transport.kicks++;
    if (this.#live) this.kicked(index);
  }

  /** Where the field at `offset` begins and how wide it is: offset * 8 + bytes; -1: there is none. */
  readonly #modernField = (offset: number): number => {
    if (offset < COMMON_BYTES) {
      if (offset < 16) return (offset & ~3) * 8 + 4;
      if (offset < 20) return (offset & ~1) * 8 + 2;
      if (offset < 22) return offset * 8 + 1;
      if (offset < 32) return (offset & ~1) * 8 + 2;
      return offset < 56 ? (offset & ~3) * 8 + 4 : (offset & ~1) * 8 + 2;
    }
    if (offset === ISR_OFFSET) return offset * 8 + 1;
    if (offset >= DEVICE_OFFSET && offset < DEVICE_OFFSET + this.#options.configBytes) return offset * 8 + 1;
    return -1;
  };

  readonly #legacyField = (offset: number): number => {
    if (offset < 12) return (offset & ~3) * 8 + 4;
    if (offset < 18) return (offset & ~1) * 8 + 2;
    if (offset < LEGACY_DEVICE_OFFSET) return offset * 8 + 1;
    const device = this.#legacyDeviceOffset;
    if (offset < device) return (offset & ~1) * 8 + 2;
    return offset < device + this.#options.configBytes ? offset * 8 + 1 : -1;
  };

  get #legacyDeviceOffset(): number {
    return this.msix?.enabled ? LEGACY_DEVICE_OFFSET_MSIX : LEGACY_DEVICE_OFFSET;
  }

  #readFields(fieldAt: (offset: number) => number, offset: number, size: number): number {
    if (size !== 1 && size !== 2 && size !== 4 && size !== 8) return 0;
    const modern = fieldAt === this.#modernField;
    let value = 0;
    for (let at = offset; at < offset + size; ) {
      const field = fieldAt(at);
      if (field < 0) {
        at++;
        continue;
      }
      const start = Math.floor(field / 8);
      const bytes = field & 7;
      const whole = modern ? this.#readModern(start) : this.#readLegacy(start);
      const end = Math.min(start + bytes, offset + size);
      for (let b = at; b < end; b++)
        value += ((whole >>> (8 * (b - start))) & 0xff) * 2 ** (8 * (b - offset));
      at = end;
    }
    return value;
  }

  #writeFields(fieldAt: (offset: number) => number, offset: number, size: number, value: number): void {
    if (size !== 1 && size !== 2 && size !== 4 && size !== 8) return;
    const modern = fieldAt === this.#modernField;
    for (let at = offset; at < offset + size; ) {
      const field = fieldAt(at);
      if (field < 0) {
        this.transport.oddAccess++;
        at++;
        continue;
      }
      const start = Math.floor(field / 8);
      const bytes = field & 7;
      const end = Math.min(start + bytes, offset + size);
      let whole = 0;
      // A write of a part of a field keeps the rest as it reads.
      if (at > start || end < start + bytes)
        whole = modern ? this.#readModern(start) : this.#readLegacy(start);
      for (let b = at; b < end; b++) {
        const byte = Math.floor(value / 2 ** (8 * (b - offset))) & 0xff;
        const shift = 8 * (b - start);
        whole = ((whole & ~(0xff << shift)) | (byte << shift)) >>> 0;
      }
      if (modern) this.#writeModern(start, whole);
      else this.#writeLegacy(start, whole);
      at = end;
    }
  }

  // The modern interface.

  #readModern(offset: number): number {
    if (offset === ISR_OFFSET) return this.#readIsr();
    if (offset >= DEVICE_OFFSET) return this.configByte(offset - DEVICE_OFFSET) & 0xff;
    const slot = this.slots[this.#queueSelect];
    switch (offset) {
      case 0:
        return this.#deviceSelect;
      case 4:
        return this.#offeredWord(this.#deviceSelect);
      case 8:
        return this.#driverSelect;
      case 12:
        return this.accepted.word(this.#driverSelect);
      case 16:
        return this.configVector;
      case 18:
        return this.slots.length;
      case 20:
        return this.#statusRead;
      case 21:
        return this.#generation;
      case 22:
        return this.#queueSelect;
    }
    if (slot === undefined) return 0;
    if (offset >= 32 && offset < 56) return slot.addresses[(offset - 32) >> 2];
    switch (offset) {
      case 24:
        return slot.size;
      case 26:
        return slot.vector;
      case 28:
        return slot.queue === null ? 0 : 1;
      case 30:
        return this.#queueSelect;
      default:
        return 0;
    }
  }

  #offeredWord(select: number): number {
    return this.offered.word(select);
  }

  #writeModern(offset: number, value: number): void {
    if (offset >= DEVICE_OFFSET) {
      this.writeConfigByte(offset - DEVICE_OFFSET, value);
      return;
    }
    const slot = this.slots[this.#queueSelect];
    switch (offset) {
      case 0:
        this.#deviceSelect = value;
        return;
      case 8:
        this.#driverSelect = value;
        return;
      case 12:
        if ((this.#status & STATUS_FEATURES_OK) === 0) this.accepted.setWord(this.#driverSelect, value);
        return;
      case 16:
        this.configVector = this.#vector(value);
        return;
      case 20:
        this.#writeStatus(value, true);
        return;
      case 22:
        this.#queueSelect = value;
        return;
    }
    if (slot === undefined) return;
    if (offset >= 32 && offset < 56) {
      if (slot.queue === null) slot.addresses[(offset - 32) >> 2] = value;
      return;
    }
    switch (offset) {
      case 24:
        // Frozen once enabled; what the queue cannot be is found out then.
        if (slot.queue === null) slot.size = value;
        return;
      case 26:
        slot.vector = this.#vector(value);
        return;
      case 28:
        if (value === 1) this.#enable(this.#queueSelect);
        return;
      case 58:
        if (value === 1 && this.accepted.has(F_RING_RESET)) this.#resetQueue(this.#queueSelect);
        return;
    }
  }

  #writeStatus(value: number, modern: boolean): void {
    if (value === 0) {
      this.transport.resets++;
      this.#resetAll();
      return;
    }
    const rising = value & ~this.#status & 0xff;
    if (modern && (rising & STATUS_FEATURES_OK) !== 0) {
      const beyond = this.accepted.mask(this.offered);
      if (beyond || !this.accepted.has(F_VERSION_1) || !this.featuresFit(this.accepted)) {
        this.transport.badFeatures++;
        value &= ~STATUS_FEATURES_OK;
      } else {
        this.#settle();
      }
    }
    // A modern driver needs FEATURES_OK first; a legacy one never sets it.
    if (modern && ((this.#status | value) & STATUS_FEATURES_OK) === 0) value &= ~STATUS_DRIVER_OK;
    this.#status |= value & ~STATUS_NEEDS_RESET & 0xff;
    this.#updateLive();
  }

  #settle(): void {
    for (const [index, slot] of this.slots.entries()) {
      if (slot.queue === null) slot.size = this.queueSizeMax(index);
    }
    this.featuresSettled();
  }

  #layout(slot: QueueSlot): QueueLayout {
    const a = slot.addresses;
    return {
      size: slot.size,
      descriptors: a[1] * 2 ** 32 + a[0],
      driver: a[3] * 2 ** 32 + a[2],
      device: a[5] * 2 ** 32 + a[4],
    };
  }

  #enable(index: number): void {
    const slot = this.slots[index];
    if (slot.queue !== null) return;
    const layout = this.#layout(slot);
    if (
      (this.#status & STATUS_FEATURES_OK) === 0 ||
      layout.size > this.queueSizeMax(index) ||
      !isLayoutValid(layout, this.accepted.has(F_RING_PACKED))
    ) {
      this.transport.badQueue++;
      return;
    }
    slot.queue = openQueue(layout, this.accepted);
    this.queueOpened(index, slot.queue);
  }

  #resetQueue(index: number): void {
    const slot = this.slots[index];
    if (slot.queue === null) return;
    slot.queue = null;
    this.queueClosed(index);
    slot.addresses.fill(0);
    slot.size = this.queueSizeMax(index);
  }

  // The legacy interface.

  #readLegacy(offset: number): number {
    const device = this.#legacyDeviceOffset;
    if (offset >= device) return this.configByte(offset - device) & 0xff;
    const slot = this.slots[this.#queueSelect];
    switch (offset) {
      case 0:
        return this.offered.word(0);
      case 4:
        return this.accepted.word(0);
      case 8:
        return slot?.page ?? 0;
      case 12:
        return slot?.size ?? 0;
      case 14:
        return this.#queueSelect;
      case 18:
        return this.#statusRead;
      case 19:
        return this.#readIsr();
      case 20:
        return this.configVector;
      case 22:
        return slot?.vector ?? NO_VECTOR;
      default:
        return 0;
    }
  }

  #writeLegacy(offset: number, value: number): void {
    const device = this.#legacyDeviceOffset;
    if (offset >= device) {
      this.writeConfigByte(offset - device, value);
      return;
    }
    const slot = this.slots[this.#queueSelect];
    switch (offset) {
      case 4:
        if ((this.#status & STATUS_DRIVER_OK) !== 0) return;
        this.accepted.clear();
        this.accepted.setWord(0, value);
        if (this.accepted.mask(this.offered)) this.transport.badFeatures++;
        this.#settle();
        return;
      case 8:
        if (slot !== undefined) this.#placeLegacy(this.#queueSelect, value);
        return;
      case 14:
        this.#queueSelect = value;
        return;
      case 16:
        this.#kickQueue(value);
        return;
      case 18:
        this.#writeStatus(value, false);
        return;
      case 20:
        this.configVector = this.#vector(value);
        return;
      case 22:
        if (slot !== undefined) slot.vector = this.#vector(value);
        return;
    }
  }

  /** The whole ring lies behind one page number; 0 takes the queue away (section 2.7.2 gives the layout). */
  #placeLegacy(index: number, page: number): void {
    const slot = this.slots[index];
    if (page === 0) {
      if (slot.queue !== null) this.#resetQueue(index);
      slot.page = 0;
      return;
    }
    if (slot.queue !== null || slot.size === 0) return;
    slot.page = page;
    const { size } = slot;
    const descriptors = page * LEGACY_PAGE_BYTES;
    const driver = descriptors + 16 * size;
    const device = Math.ceil((driver + 6 + 2 * size) / LEGACY_PAGE_BYTES) * LEGACY_PAGE_BYTES;
    for (const [i, address] of [descriptors, driver, device].entries()) {
      slot.addresses[2 * i] = address % 2 ** 32;
      slot.addresses[2 * i + 1] = Math.floor(address / 2 ** 32);
    }
    slot.queue = openQueue(this.#layout(slot), this.accepted);
    this.queueOpened(index, slot.queue);
  }

  // Access through configuration space (section 4.1.4.9).

  override readConfig(offset: number, size: number): number {
    if (this.#touchesWindow(offset, size)) {
      const [bar, at, length] = this.#window();
      const reachable =
        (bar === MODERN_BAR || bar === LEGACY_BAR) && (length === 1 || length === 2 || length === 4);
      if (reachable) this.config.put(this.#accessCapability + 16, 4, this.readBar(bar, at, length));
    }
    return super.readConfig(offset, size);
  }

  override writeConfig(offset: number, size: number, value: number): void {
    super.writeConfig(offset, size, value);
    if (!this.#touchesWindow(offset, size)) return;
    const data = this.#accessCapability + 16;
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      if (at >= data && at < data + 4) this.config.bytes[at] = Math.floor(value / 2 ** (8 * i)) & 0xff;
    }
    const [bar, at, length] = this.#window();
    if ((bar !== MODERN_BAR && bar !== LEGACY_BAR) || (length !== 1 && length !== 2 && length !== 4)) return;
    this.writeBar(bar, at, length, this.config.read(data, length));
  }

  #touchesWindow(offset: number, size: number): boolean {
    const data = this.#accessCapability + 16;
    return this.#accessCapability !== 0 && offset < data + 4 && offset + size > data;
  }

  #window(): [number, number, number] {
    const at = this.#accessCapability;
    return [this.config.read(at + 4, 1), this.config.read(at + 8, 4), this.config.read(at + 12, 4)];
  }

  // Save and restore.

  protected saveTransport(): TransportState {
    return {
      status: this.#status,
      isr: this.#isr,
      generation: this.#generation,
      selects: [this.#deviceSelect, this.#driverSelect, this.#queueSelect],
      offered: [this.offered.word(0), this.offered.word(1)],
      accepted: [this.accepted.word(0), this.accepted.word(1)],
      configVector: this.configVector,
      msix: this.msix?.save() ?? null,
      queues: this.slots.map((slot) => ({
        size: slot.size,
        vector: slot.vector,
        addresses: [...slot.addresses],
        page: slot.page,
        position: slot.queue?.position() ?? null,
      })),
    };
  }

  /** Takes a checked state; `inFlight` has the descriptors in flight of each queue. The device's own state follows, then `goOn`. */
  protected loadTransport(state: TransportState, inFlight: readonly number[]): void {
    this.#resetAll();
    this.offered.setWord(0, state.offered[0]);
    this.offered.setWord(1, state.offered[1]);
    this.accepted.setWord(0, state.accepted[0]);
    this.accepted.setWord(1, state.accepted[1]);
    this.accepted.mask(this.offered);
    this.#isr = state.isr & 3;
    this.#generation = state.generation;
    [this.#deviceSelect, this.#driverSelect, this.#queueSelect] = state.selects;
    this.configVector = this.#vector(state.configVector);
    if (state.msix !== null) this.msix?.load(state.msix);
    if ((state.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) !== 0) this.featuresSettled();
    for (const [index, saved] of state.queues.entries()) {
      const slot = this.slots[index];
      slot.size = saved.size;
      slot.vector = this.#vector(saved.vector);
      slot.addresses.set(saved.addresses);
      slot.page = saved.page;
      if (saved.position === null) continue;
      const layout = this.#layout(slot);
      if (
        layout.size > this.queueSizeMax(index) ||
        !isLayoutValid(layout, this.accepted.has(F_RING_PACKED))
      ) {
        this.transport.badQueue++;
        continue;
      }
      slot.queue = openQueue(
        layout,
        this.accepted,
        saved.position,
        Math.min(inFlight[index] ?? 0, slot.size),
      );
      this.queueOpened(index, slot.queue);
    }
    this.#status = state.status & 0xff;
  }

  /** After everything was restored: the device is live again; `first` does what comes before the queues are served. */
  protected goOn(first: () => void): void {
    this.setIntx(this.#isr !== 0);
    this.#loading = true;
    this.#updateLive();
    this.#loading = false;
    first();
    if (this.#live) this.liveChanged(true);
  }
}

export interface TransportState {
  status: number;
  isr: number;
  generation: number;
  selects: [number, number, number];
  offered: [number, number];
  accepted: [number, number];
  configVector: number;
  msix: { table: number[]; pending: number[] } | null;
  queues: {
    size: number;
    vector: number;
    addresses: number[];
    page: number;
    position: { avail: number; used: number } | null;
  }[];
}

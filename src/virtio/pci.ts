/**
 * The PCI transport of a virtio device (virtio 1.3, section 4.1), whatever the device is: a model extends it and says what it offers, how its configuration reads and
 * what a kick does.
 *
 *   BAR 0  I/O: the legacy interface (section 4.1.4.8), when there is one
 *   BAR 1  memory: MSI-X table and pending bits
 *   BAR 4  memory: common 0x0000, ISR 0x1000, device 0x2000, notification 0x3000, each told by a vendor capability (capabilities.ts)
 *
 * What the registers hold is in registers.ts, how each interface reads and writes them in modern.ts and legacy.ts; here is what a write leads to.
 *
 * Status machine: reset (0) → ACKNOWLEDGE, DRIVER → FEATURES_OK (refused when the driver took what was not offered or broke a dependency) → queues are
 * enabled → DRIVER_OK. A ring that breaks the rules sets NEEDS_RESET; nothing is done until the driver resets. What a queue's registers say is frozen
 * when it is enabled. On reset of the device or a queue what it had in flight is forgotten at once: frames that others still hold may borrow memory that the driver
 * uses for something else, as with any device whose reset stops DMA of what it has already fetched.
 *
 * A transport outside this process (vhost-user) drives the same device without these registers: `attachTransport` and what follows it.
 */

import { COMMAND_BUS_MASTER, PCI_COMMAND } from '../pci/config-space.ts';
import type { DeviceHost } from '../pci/device-host.ts';
import type { GuestMemory } from '../pci/guest-memory.ts';
import { PciFunction } from '../pci/pci-function.ts';
import {
  addCapabilities,
  ConfigWindow,
  LEGACY_BAR,
  MODERN_BAR,
  MODERN_BAR_BYTES,
  MSIX_BAR,
  NOTIFY_MULTIPLIER,
  NOTIFY_OFFSET,
  SECTION_BYTES,
} from './capabilities.ts';
import { F_RING_PACKED, F_VERSION_1, Features } from './features.ts';
import { LegacyInterface } from './legacy.ts';
import { ModernInterface } from './modern.ts';
import { isLayoutValid, openQueue, type QueueLayout, type QueuePosition, type VirtQueue } from './queue.ts';
import {
  ISR_CONFIG,
  ISR_QUEUE,
  layoutOf,
  NO_VECTOR,
  QueueSlot,
  type RegisterInterface,
  type RegisterOwner,
  Registers,
  readFields,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
  type VirtioStats,
  writeFields,
} from './registers.ts';

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
  protected abstract readonly transport: VirtioStats;

  readonly #registers = new Registers();
  readonly #modern: ModernInterface | null;
  readonly #legacy: LegacyInterface | null;
  readonly #window: ConfigWindow | null;
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
    this.memory = host.memory;
    this.slots = Array.from({ length: options.queues }, () => new QueueSlot());
    if (options.legacy) this.addBar(LEGACY_BAR, 'io', 64);
    if (options.vectors > 0) {
      const tableBytes = Math.max(2048, 2 ** Math.ceil(Math.log2(16 * options.vectors)));
      this.addBar(MSIX_BAR, 'memory32', 2 * tableBytes);
      this.addMsix(options.vectors, { bar: MSIX_BAR, tableOffset: 0, pbaOffset: tableBytes });
    }
    const owner = this.#owner();
    this.#legacy = options.legacy ? new LegacyInterface(owner, options.configBytes) : null;
    this.#modern = options.modern ? new ModernInterface(owner, options.configBytes) : null;
    this.#window = options.modern ? this.#addModernBar(options) : null;
  }

  #addModernBar({ queues, configBytes }: VirtioPciOptions): ConfigWindow {
    this.addBar(MODERN_BAR, 'memory32', MODERN_BAR_BYTES);
    return new ConfigWindow(this.config, addCapabilities(this.config, queues, configBytes), this);
  }

  #owner(): RegisterOwner {
    return {
      registers: this.#registers,
      slots: this.slots,
      offered: this.offered,
      accepted: this.accepted,
      stats: () => this.transport,
      msixEnabled: () => this.msix?.enabled === true,
      statusRead: () => this.#statusRead,
      writeStatus: (value, modern) => this.#writeStatus(value, modern),
      takeIsr: () => this.#takeIsr(),
      vector: (value) => this.#vector(value),
      settle: () => this.#settle(),
      enableQueue: (index) => this.#enable(index),
      openQueue: (index) => this.#open(index),
      resetQueue: (index) => this.#resetQueue(index),
      kickQueue: (index) => this.#kickQueue(index),
      configByte: (offset) => this.configByte(offset),
      writeConfigByte: (offset, value) => this.writeConfigByte(offset, value),
    };
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
    return this.#registers.status;
  }

  /** A queue as a monitor shows it; undefined: there is none of that number. */
  queueState(index: number): QueueState | undefined {
    const slot = this.slots[index];
    if (slot === undefined) return undefined;
    return {
      sizeMax: this.queueSizeMax(index),
      layout: layoutOf(slot),
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
    return this.#registers.status === 0 && this.resetting ? STATUS_ACKNOWLEDGE : this.#registers.status;
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
    const status = this.#registers.status | (this.#otherLive ? STATUS_DRIVER_OK : 0);
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
    this.#registers.clear();
    this.#otherLive = false;
    this.#updateLive();
    for (const slot of this.slots) slot.queue = null;
    this.accepted.clear();
    this.offered.clear();
    this.setIntx(false);
    this.resetDevice();
    this.offer();
    for (const [index, slot] of this.slots.entries()) slot.clear(this.queueSizeMax(index));
  }

  /** What can be offered changed; a driver that has settled its features keeps to what it was told. */
  protected offerChanged(): void {
    if ((this.#registers.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) === 0 && this.accepted.low === 0)
      this.offer();
  }

  /** The ring broke the rules: the device stops until it is reset (section 2.1.2). */
  protected needsReset(): void {
    if ((this.#registers.status & STATUS_NEEDS_RESET) !== 0) return;
    this.transport.brokenRings++;
    this.#registers.status |= STATUS_NEEDS_RESET;
    this.#updateLive();
    if ((this.#registers.status & STATUS_DRIVER_OK) !== 0) this.configChanged();
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
    this.#registers.isr |= ISR_QUEUE;
    this.setIntx(true);
  }

  /** The device configuration changed: tells the driver. */
  protected configChanged(): void {
    this.#registers.generation = (this.#registers.generation + 1) & 0xff;
    if ((this.#registers.status & STATUS_DRIVER_OK) === 0) return;
    this.transport.interrupts++;
    const msix = this.msix;
    if (msix?.enabled) {
      msix.notify(this.#registers.configVector);
      return;
    }
    this.#registers.isr |= ISR_CONFIG;
    this.setIntx(true);
  }

  #takeIsr(): number {
    const isr = this.#registers.isr;
    this.#registers.isr = 0;
    this.setIntx(false);
    return isr;
  }

  #vector(value: number): number {
    return value < (this.msix?.vectors ?? 0) ? value : NO_VECTOR;
  }

  // Access.

  override readBar(bar: number, offset: number, size: number): number {
    const fields = this.#fieldsOf(bar);
    if (fields !== null) return readFields(fields, offset, size);
    return super.readBar(bar, offset, size);
  }

  override writeBar(bar: number, offset: number, size: number, value: number): void {
    const fields = this.#fieldsOf(bar);
    if (fields === null) super.writeBar(bar, offset, size, value);
    else if (fields === this.#modern && offset >= NOTIFY_OFFSET && offset < NOTIFY_OFFSET + SECTION_BYTES)
      this.#kick(offset - NOTIFY_OFFSET, size);
    else writeFields(fields, this.transport, offset, size, value);
  }

  #fieldsOf(bar: number): RegisterInterface | null {
    return bar === MODERN_BAR ? this.#modern : bar === LEGACY_BAR ? this.#legacy : null;
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

  #writeStatus(value: number, modern: boolean): void {
    if (value === 0) {
      this.transport.resets++;
      this.#resetAll();
      return;
    }
    const rising = value & ~this.#registers.status & 0xff;
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
    if (modern && ((this.#registers.status | value) & STATUS_FEATURES_OK) === 0) value &= ~STATUS_DRIVER_OK;
    this.#registers.status |= value & ~STATUS_NEEDS_RESET & 0xff;
    this.#updateLive();
  }

  #settle(): void {
    for (const [index, slot] of this.slots.entries()) {
      if (slot.queue === null) slot.size = this.queueSizeMax(index);
    }
    this.featuresSettled();
  }

  #enable(index: number): void {
    const slot = this.slots[index];
    if (slot.queue !== null) return;
    const layout = layoutOf(slot);
    if (
      (this.#registers.status & STATUS_FEATURES_OK) === 0 ||
      layout.size > this.queueSizeMax(index) ||
      !isLayoutValid(layout, this.accepted.has(F_RING_PACKED))
    ) {
      this.transport.badQueue++;
      return;
    }
    this.#open(index);
  }

  #open(index: number): void {
    const slot = this.slots[index];
    slot.queue = openQueue(layoutOf(slot), this.accepted);
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

  // Access through configuration space.

  override readConfig(offset: number, size: number): number {
    this.#window?.beforeRead(offset, size);
    return super.readConfig(offset, size);
  }

  override writeConfig(offset: number, size: number, value: number): void {
    super.writeConfig(offset, size, value);
    this.#window?.afterWrite(offset, size, value);
  }

  // Save and restore.

  protected saveTransport(): TransportState {
    return {
      status: this.#registers.status,
      isr: this.#registers.isr,
      generation: this.#registers.generation,
      selects: [this.#registers.deviceSelect, this.#registers.driverSelect, this.#registers.queueSelect],
      offered: [this.offered.word(0), this.offered.word(1)],
      accepted: [this.accepted.word(0), this.accepted.word(1)],
      configVector: this.#registers.configVector,
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
    this.#registers.isr = state.isr & 3;
    this.#registers.generation = state.generation;
    [this.#registers.deviceSelect, this.#registers.driverSelect, this.#registers.queueSelect] = state.selects;
    this.#registers.configVector = this.#vector(state.configVector);
    if (state.msix !== null) this.msix?.load(state.msix);
    if ((state.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) !== 0) this.featuresSettled();
    for (const [index, saved] of state.queues.entries()) {
      const slot = this.slots[index];
      slot.size = saved.size;
      slot.vector = this.#vector(saved.vector);
      slot.addresses.set(saved.addresses);
      slot.page = saved.page;
      if (saved.position === null) continue;
      const layout = layoutOf(slot);
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
    this.#registers.status = state.status & 0xff;
  }

  /** After everything was restored: the device is live again; `first` does what comes before the queues are served. */
  protected goOn(first: () => void): void {
    this.setIntx(this.#registers.isr !== 0);
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

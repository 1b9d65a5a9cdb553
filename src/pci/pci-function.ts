/**
 * One PCI function: configuration space, BARs, interrupt pin and messages. A NIC model extends it and answers for its BARs in aligned
 * 32-bit registers; every other size and alignment is brought to that here, so a guest's odd access gives a defined value and never
 * an exception. Values are unsigned numbers. An 8-byte access is two 4-byte ones, low half first.
 *
 * A transport calls readConfig, writeConfig, readBar and writeBar, decodes addresses itself (the BAR registers size and hold what
 * software writes), and offers the function its DeviceHost. Whether DMA is allowed (bus mastering on, power state D0) is `dmaEnabled`.
 */

import {
  CAP_POWER_MANAGEMENT,
  COMMAND_BUS_MASTER,
  COMMAND_INTX_DISABLE,
  COMMAND_IO,
  COMMAND_MEMORY,
  ConfigSpace,
  PCI_BAR0,
  PCI_CLASS,
  PCI_COMMAND,
  PCI_DEVICE_ID,
  PCI_INTERRUPT_PIN,
  PCI_REVISION,
  PCI_ROM,
  PCI_STATUS,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
  STATUS_INTX,
} from './config-space.ts';
import type { DeviceHost } from './device-host.ts';
import { Msi, Msix, type MsixPlace } from './msi.ts';

export interface PciIdentity {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Base class, sub-class and programming interface: 0x020000 is Ethernet. */
  readonly classCode: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** 1: INTA#; 0: the function has no pin. */
  readonly interruptPin: number;
  /** 4096 for a function with extended configuration space. */
  readonly configBytes?: 256 | 4096;
}

export interface BarInfo {
  readonly index: number;
  readonly kind: 'io' | 'memory32' | 'memory64';
  /** A power of two, at least 16 for memory and 4 for I/O. */
  readonly bytes: number;
  readonly prefetchable: boolean;
}

const BAR_IO = 1;
const BAR_64BIT = 4;
const BAR_PREFETCHABLE = 8;
const PM_BYTES = 8;
const PM_STATE = 3;
const PM_NO_SOFT_RESET = 8;
const PM_PME_ENABLE = 0x100;
const PM_PME_STATUS = 0x8000;

export abstract class PciFunction {
  readonly host: DeviceHost;
  readonly config: ConfigSpace;
  readonly bars: BarInfo[] = [];
  msi: Msi | null = null;
  msix: Msix | null = null;
  /** The expansion ROM, a power of two bytes long; null: none. */
  rom: Uint8Array | null = null;
  /** DMA may be done: software enabled bus mastering, and the function is in power state D0. */
  dmaEnabled = false;

  #intxLevel = false;
  #intxPin = false;
  #intxExternal = false;
  #powerCapability = 0;
  #stopped = false;

  constructor(host: DeviceHost, identity: PciIdentity) {
    this.host = host;
    const config = new ConfigSpace(identity.configBytes ?? 256);
    this.config = config;
    config.put(PCI_VENDOR_ID, 2, identity.vendorId);
    config.put(PCI_DEVICE_ID, 2, identity.deviceId);
    config.put(PCI_REVISION, 1, identity.revision);
    config.put(PCI_CLASS, 3, identity.classCode);
    config.put(PCI_SUBSYSTEM_VENDOR_ID, 2, identity.subsystemVendorId);
    config.put(PCI_SUBSYSTEM_ID, 2, identity.subsystemId);
    config.put(PCI_INTERRUPT_PIN, 1, identity.interruptPin);
  }

  // What a model builds itself from.

  protected addBar(index: number, kind: BarInfo['kind'], bytes: number, prefetchable = false): void {
    this.bars.push({ index, kind, bytes, prefetchable });
    const at = PCI_BAR0 + 4 * index;
    const flags =
      kind === 'io' ? BAR_IO : (kind === 'memory64' ? BAR_64BIT : 0) | (prefetchable ? BAR_PREFETCHABLE : 0);
    this.config.put(at, 4, flags);
    this.config.allow(at, 4, -bytes >>> 0);
    if (kind === 'memory64') this.config.allow(at + 4, 4, 0xffffffff);
    const command = this.config.writable[PCI_COMMAND];
    this.config.writable[PCI_COMMAND] = command | (kind === 'io' ? COMMAND_IO : COMMAND_MEMORY);
  }

  /** Gives the function an expansion ROM (firmware's boot code), filled up with ones to a power of two, at least the 2 KiB that its address register can tell. */
  setRom(image: Uint8Array): void {
    let bytes = 2048;
    while (bytes < image.length) bytes *= 2;
    this.rom = new Uint8Array(bytes).fill(0xff);
    this.rom.set(image);
    this.config.allow(PCI_ROM, 4, ((-bytes & ~0x7ff) | 1) >>> 0);
  }

  /** Power management 1.1: states D0 and D3hot, PME from D3. Coming back to D0 keeps the function's state. */
  protected addPowerManagement(at?: number): void {
    const offset = this.config.addCapability(CAP_POWER_MANAGEMENT, PM_BYTES, at);
    this.config.put(offset + 2, 2, 0xc822);
    this.config.put(offset + 4, 2, PM_NO_SOFT_RESET);
    this.config.allow(offset + 4, 2, PM_STATE | PM_PME_ENABLE);
    this.config.writeClear[offset + 5] = PM_PME_STATUS >> 8;
    this.#powerCapability = offset;
  }

  protected addMsi(vectors: number, at?: number): void {
    this.msi = new Msi(
      this.config,
      vectors,
      (vector, address, data) => this.host.signalMsi(vector, address, data),
      at,
    );
  }

  protected addMsix(vectors: number, place: MsixPlace, at?: number): void {
    this.msix = new Msix(
      this.config,
      vectors,
      place,
      (vector, address, data) => this.host.signalMsi(vector, address, data),
      at,
    );
  }

  /** The model's registers: an aligned 32-bit read or write within a BAR. MSI-X tables are answered before. */
  protected abstract readRegister(bar: number, offset: number): number;
  protected abstract writeRegister(bar: number, offset: number, value: number): void;

  /**
   * A write narrower than 32 bits, which by default arrives as a write of the aligned register with the other lanes as they read. A model whose reads
   * have side effects, or that has narrow registers, answers for itself.
   */
  protected writeNarrow(bar: number, offset: number, size: number, value: number): void {
    const shift = 8 * (offset & 3);
    const mask = (2 ** (8 * size) - 1) << shift;
    const old = this.readRegister(bar, offset & ~3);
    this.writeRegister(bar, offset & ~3, ((old & ~mask) | ((value << shift) & mask)) >>> 0);
  }

  /** Bus mastering or the power state changed. */
  protected dmaChanged?(): void;

  /** The model's own reset, as by RST#: registers, rings, timers. */
  protected abstract resetModel(): void;

  // What a transport calls.

  readConfig(offset: number, size: number): number {
    return this.config.read(offset, size);
  }

  writeConfig(offset: number, size: number, value: number): void {
    this.config.write(offset, size, value);
    const end = offset + size;
    if (offset < PCI_COMMAND + 2 && end > PCI_COMMAND) this.#commandWritten();
    const power = this.#powerCapability;
    if (power !== 0 && offset < power + 6 && end > power + 4) this.#commandWritten();
    const msi = this.msi;
    if (msi !== null && offset < msi.offset + 24 && end > msi.offset + 2) {
      msi.written();
      this.#driveIntx();
    }
    const msix = this.msix;
    if (msix !== null && offset < msix.offset + 4 && end > msix.offset + 2) {
      msix.written();
      this.#driveIntx();
    }
  }

  /** Reads 1, 2, 4 or 8 bytes at any offset; outside the BAR all ones. */
  readBar(bar: number, offset: number, size: number): number {
    if (size === 4 && (offset & 3) === 0 && this.#within(bar, offset)) return this.#read32(bar, offset);
    if (size === 8) return this.readBar(bar, offset, 4) + this.readBar(bar, offset + 4, 4) * 2 ** 32;
    if (size !== 1 && size !== 2 && size !== 4) return 0;
    const skew = offset & 3;
    const first = this.#within(bar, offset - skew) ? this.#read32(bar, offset - skew) : 0xffffffff;
    let value = first >>> (8 * skew);
    if (skew + size > 4) {
      const next = offset - skew + 4;
      const second = this.#within(bar, next) ? this.#read32(bar, next) : 0xffffffff;
      value |= second << (8 * (4 - skew));
    }
    return size === 4 ? value >>> 0 : value & (2 ** (8 * size) - 1);
  }

  /** Writes 1, 2, 4 or 8 bytes at any offset; outside the BAR nothing happens. An access across two registers is one to each. */
  writeBar(bar: number, offset: number, size: number, value: number): void {
    if (size === 4 && (offset & 3) === 0) {
      if (this.#within(bar, offset)) this.#write32(bar, offset, value);
      return;
    }
    if (size === 8) {
      this.writeBar(bar, offset, 4, value >>> 0);
      this.writeBar(bar, offset + 4, 4, Math.floor(value / 2 ** 32) >>> 0);
      return;
    }
    if (size !== 1 && size !== 2 && size !== 4) return;
    const skew = offset & 3;
    const lanes = Math.min(size, 4 - skew);
    if (this.#within(bar, offset)) this.#writeNarrow(bar, offset, lanes, value);
    if (lanes < size && this.#within(bar, offset + lanes)) {
      this.#writeNarrow(bar, offset + lanes, size - lanes, value >>> (8 * lanes));
    }
  }

  #within(bar: number, offset: number): boolean {
    for (const info of this.bars)
      if (info.index === bar) return offset >= 0 && offset < info.bytes && Number.isInteger(offset);
    return false;
  }

  #read32(bar: number, offset: number): number {
    const msix = this.msix;
    if (msix !== null && msix.place.bar === bar && msix.holds(offset)) return msix.read32(offset);
    return this.readRegister(bar, offset) >>> 0;
  }

  #write32(bar: number, offset: number, value: number): void {
    const msix = this.msix;
    if (msix !== null && msix.place.bar === bar && msix.holds(offset)) msix.write32(offset, value);
    else this.writeRegister(bar, offset, value >>> 0);
  }

  #writeNarrow(bar: number, offset: number, size: number, value: number): void {
    const msix = this.msix;
    const aligned = offset & ~3;
    if (msix !== null && msix.place.bar === bar && msix.holds(aligned)) {
      const shift = 8 * (offset & 3);
      const mask = (2 ** (8 * size) - 1) << shift;
      msix.write32(aligned, ((msix.read32(aligned) & ~mask) | ((value << shift) & mask)) >>> 0);
      return;
    }
    this.writeNarrow(bar, offset, size, value >>> 0);
  }

  /** Where software put a BAR; 0 when nowhere. */
  barAddress(index: number): number {
    const info = this.bars.find((bar) => bar.index === index);
    if (info === undefined) return 0;
    const at = PCI_BAR0 + 4 * index;
    const low = this.config.read(at, 4);
    if (info.kind === 'io') return (low & ~3) >>> 0;
    const high = info.kind === 'memory64' ? this.config.read(at + 4, 4) : 0;
    return ((low & ~15) >>> 0) + high * 2 ** 32;
  }

  get memoryEnabled(): boolean {
    return (this.config.bytes[PCI_COMMAND] & COMMAND_MEMORY) !== 0;
  }

  get ioEnabled(): boolean {
    return (this.config.bytes[PCI_COMMAND] & COMMAND_IO) !== 0;
  }

  /** As RST# does: software's writes to configuration space are forgotten, the model is reset. */
  reset(): void {
    const { bytes, writable, writeClear } = this.config;
    const power = this.#powerCapability;
    const keptPower =
      power === 0 ? 0 : this.config.read(power + 4, 2) & ~(PM_STATE | PM_PME_ENABLE | PM_PME_STATUS);
    for (let i = 0; i < bytes.length; i++) bytes[i] &= ~(writable[i] | writeClear[i]);
    if (power !== 0) this.config.put(power + 4, 2, keptPower);
    this.msi?.reset();
    this.msix?.reset();
    this.resetModel();
    this.setIntx(false);
    this.#commandWritten();
  }

  /** Restores what software wrote to configuration space; fixed bits stay as they are. */
  protected loadConfig(bytes: readonly number[]): void {
    const { bytes: own, writable, writeClear } = this.config;
    for (let i = 0; i < own.length; i++) {
      const mask = writable[i] | writeClear[i];
      own[i] = (own[i] & ~mask) | (bytes[i] & mask);
    }
    this.#commandWritten();
  }

  /** The machine stands still: no DMA until it runs again. Registers answer as ever. */
  setStopped(stopped: boolean): void {
    this.#stopped = stopped;
    this.#commandWritten();
  }

  abstract close(): void;

  /** The transport's client keeps interrupt enable and mask bits itself: pin and messages go out whatever the function's own bits say. */
  setExternalInterrupts(kind: 'none' | 'intx' | 'msi' | 'msix'): void {
    this.#intxExternal = kind === 'intx';
    if (this.msi !== null) this.msi.external = kind === 'msi';
    if (this.msix !== null) this.msix.external = kind === 'msix';
    this.#driveIntx();
  }

  // Interrupts.

  /** The model's interrupt condition; the pin follows unless software disabled it or uses messages. */
  protected setIntx(level: boolean): void {
    if (level === this.#intxLevel) return;
    this.#intxLevel = level;
    const status = this.config.bytes[PCI_STATUS];
    this.config.bytes[PCI_STATUS] = level ? status | STATUS_INTX : status & ~STATUS_INTX;
    this.#driveIntx();
  }

  /** The level of the pin as the machine sees it. */
  get intxPin(): boolean {
    return this.#intxPin;
  }

  #driveIntx(): void {
    const disabled = (this.config.bytes[PCI_COMMAND + 1] & (COMMAND_INTX_DISABLE >> 8)) !== 0;
    const messages = this.msi?.enabled === true || this.msix?.enabled === true;
    const pin = this.#intxLevel && (this.#intxExternal || (!disabled && !messages));
    if (pin === this.#intxPin) return;
    this.#intxPin = pin;
    this.host.setIntx(pin);
  }

  #commandWritten(): void {
    const power = this.#powerCapability;
    const awake = power === 0 || (this.config.bytes[power + 4] & PM_STATE) === 0;
    const enabled = awake && !this.#stopped && (this.config.bytes[PCI_COMMAND] & COMMAND_BUS_MASTER) !== 0;
    this.#driveIntx();
    if (enabled === this.dmaEnabled) return;
    this.dmaEnabled = enabled;
    this.dmaChanged?.();
  }
}

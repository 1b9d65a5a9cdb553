/**
 * Intel 82540EM Gigabit Ethernet controller (8086:100e), as QEMU's `e1000` and many machines have it. Written from the PCI/PCI-X Family of
 * Gigabit Ethernet Controllers Software Developer's Manual (8254x).
 *
 *   registers.ts  the register map, as a table        tx.ts, tx-offload.ts  transmit ring, checksum and TCP segmentation
 *   eeprom.ts     MAC address and identifiers         rx.ts                 receive ring, VLAN strip, checksum results
 *   phy.ts        MDIO registers and the link         interrupts.ts         causes, masks, moderation
 *   stats.ts      counters, the chip's and ours       state.ts              save and restore
 *                                                     strict.ts             what a driver does against the manual
 *
 * This file ties them together: it answers register reads and writes, owns the port, and turns RCTL, RAL/RAH, MTA and VFTA into the shared
 * receive filter. BAR 0 is 128 KiB of registers, BAR 1 the I/O window (IOADDR, IODATA).
 *
 * Left out: TBI and SerDes, flow control frames, packet buffer access, wake-up packets (the filters read back; nothing wakes a machine here).
 */

import { type Client, Port } from '../../core/port.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import { PciFunction } from '../../pci/pci-function.ts';
import { DriverReport } from '../driver-report.ts';
import type { Nic, NicSite } from '../nic.ts';
import { RxFilter, type RxFilterInfo } from '../rx-filter.ts';
import type { Chip } from './chip.ts';
import { Eeprom } from './eeprom.ts';
import { Interrupts } from './interrupts.ts';
import { Phy } from './phy.ts';
import {
  CTRL,
  CTRL_EXT,
  CTRL_EXT_EE_RST,
  CTRL_FD,
  CTRL_FRCDPX,
  CTRL_FRCSPD,
  CTRL_PHY_RST,
  CTRL_RST,
  CTRL_SLU,
  CTRL_SPEED_SHIFT,
  EECD,
  EERD,
  ICR,
  ICS,
  IMC,
  IMS,
  INT_LSC,
  INT_MDAC,
  ITR,
  KIND_NONE,
  KIND_RC,
  KIND_RO,
  KIND_RW,
  MDIC,
  MTA,
  RAH,
  RAH_ASEL_SHIFT,
  RAH_AV,
  RAL,
  RCTL,
  RCTL_BAM,
  RCTL_CFI,
  RCTL_CFIEN,
  RCTL_LBM_SHIFT,
  RCTL_MO_SHIFT,
  RCTL_MPE,
  RCTL_UPE,
  RCTL_VFE,
  RDBAH,
  RDBAL,
  RDH,
  RDLEN,
  RDT,
  RDTR,
  RECEIVE_ADDRESSES,
  REGISTER_BYTES,
  REGISTER_MAP,
  STATUS,
  STATUS_ASDV_SHIFT,
  STATUS_FD,
  STATUS_LU,
  STATUS_SPEED_SHIFT,
  TABLE_WORDS,
  TCTL,
  TDBAH,
  TDBAL,
  TDH,
  TDLEN,
  TDT,
  TIDV,
  VET,
  VFTA,
  WUS,
} from './registers.ts';
import { Receiver } from './rx.ts';
import { type E1000State, parseState } from './state.ts';
import { E1000Stats, HardwareStats } from './stats.ts';
import { E1000_RULES, E1000Strict } from './strict.ts';
import { Transmitter } from './tx.ts';

export interface E1000Options {
  /** 6 bytes, unicast. */
  readonly mac: Uint8Array;
  /** VET holds 0x8100 after reset; default true. */
  readonly initVet?: boolean;
  /** Interrupts are delayed as ITR, RDTR, RADV, TIDV and TADV say; default true. */
  readonly mitigation?: boolean;
  /** Report what the driver does against the manual; default false. */
  readonly strict?: boolean;
}

const IDENTITY = {
  vendorId: 0x8086,
  deviceId: 0x100e,
  revision: 3,
  classCode: 0x02_00_00,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  interruptPin: 1,
};
const REGISTER_BAR = 0;
const REGISTER_BAR_BYTES = 0x20000;
const IO_BAR = 1;
const IO_BAR_BYTES = 64;
const IO_ADDRESS = 0;
const IO_DATA = 4;
const POWER_CAPABILITY = 0xdc;
const WORDS = REGISTER_BYTES / 4;
const VLAN_ETHERTYPE = 0x8100;
const HASH_BITS = 4096;
/** How far the destination's last 16 bits are shifted to make the hash, by RCTL.MO. */
const HASH_SHIFTS = [4, 3, 2, 0];

export class E1000 extends PciFunction implements Nic, Client {
  readonly model = 'e1000';
  readonly stats = new E1000Stats();
  readonly port: Port;
  readonly ports: readonly Port[];
  readonly mac: Uint8Array;
  readonly driverReport: DriverReport | null;

  readonly #strict: E1000Strict | null;
  readonly #regs = new Int32Array(WORDS);
  readonly #filter: RxFilter;
  readonly #interrupts: Interrupts;
  readonly #phy: Phy;
  readonly #eeprom: Eeprom;
  readonly #tx: Transmitter;
  readonly #rx: Receiver;
  readonly #initVet: boolean;
  readonly #macBytes = new Uint8Array(6);
  #ioAddress = 0;
  #hashShift = HASH_SHIFTS[0];
  #looping = false;

  constructor(site: NicSite, options: E1000Options) {
    super(site.host, IDENTITY);
    this.mac = options.mac.slice();
    this.#initVet = options.initVet ?? true;
    const report = options.strict === true ? new DriverReport(site.name, E1000_RULES, site.log) : null;
    this.driverReport = report;
    this.#strict =
      report === null
        ? null
        : new E1000Strict(this.#regs, site.host.memory as GuestMemory, report, () => this.dmaEnabled);
    this.addBar(REGISTER_BAR, 'memory32', REGISTER_BAR_BYTES);
    this.addBar(IO_BAR, 'io', IO_BAR_BYTES);
    this.addPowerManagement(POWER_CAPABILITY);
    this.#filter = new RxFilter(
      RECEIVE_ADDRESSES,
      (bytes, at) => (((bytes[at + 5] << 8) | bytes[at + 4]) >> this.#hashShift) & (HASH_BITS - 1),
      HASH_BITS,
    );
    const loop = site.link.loop;
    const regs = this.#regs;
    this.#interrupts = new Interrupts(regs, loop, options.mitigation ?? true, (level) => {
      if (level) this.stats.interrupts++;
      this.setIntx(level);
    });
    const self = this;
    const chip: Chip = {
      regs,
      memory: site.host.memory as GuestMemory,
      pool: site.link.pool,
      loop,
      adapt: site.link.adapt,
      interrupts: this.#interrupts,
      filter: this.#filter,
      stats: this.stats,
      hardware: new HardwareStats(regs),
      get dmaEnabled() {
        return self.dmaEnabled;
      },
      get loopback() {
        return self.#looping;
      },
    };
    this.#eeprom = new Eeprom(options.mac, IDENTITY);
    this.#rx = new Receiver(chip);
    this.#tx = new Transmitter(chip, this.#rx);
    this.#phy = new Phy(loop, () => this.#linkResolved());
    this.port = new Port(site.name, 'nic', this, site.link);
    this.ports = [this.port];
    this.#rx.port = this.port;
    this.#tx.port = this.port;
    this.resetModel();
  }

  // Port client.

  receive(frames: Int32Array, from: number, to: number): number {
    return this.#rx.receive(frames, from, to);
  }

  peerReady(): void {
    this.#tx.peerReady();
  }

  linkChanged(up: boolean): void {
    this.#phy.carrier = up;
  }

  // Reset and end.

  protected override resetModel(): void {
    this.#phy.reset();
    this.#resetDevice();
  }

  /** CTRL.RST: everything but the PHY and the EEPROM. */
  #resetDevice(): void {
    const regs = this.#regs;
    regs.set(REGISTER_MAP.reset);
    if (this.#initVet) regs[VET >> 2] = VLAN_ETHERTYPE;
    this.#ioAddress = 0;
    this.#interrupts.reset();
    this.#loadAddress();
    this.#filter.clear();
    this.#receiveAddressWritten(0);
    this.#controlWritten();
    this.#tx.reset();
    this.#rx.reset();
    this.#strict?.reset();
    this.#linkResolved();
  }

  /** RAL[0] and RAH[0] from the EEPROM, as the chip does after reset. */
  #loadAddress(): void {
    const words = this.#eeprom.words;
    this.#regs[RAL >> 2] = words[0] | (words[1] << 16);
    this.#regs[RAH >> 2] = words[2] | RAH_AV;
  }

  protected override dmaChanged(): void {
    this.#tx.run();
    this.#rx.controlChanged();
  }

  close(): void {
    this.port.disconnect();
    this.#tx.close();
    this.#interrupts.reset();
    this.#phy.close();
    this.#regs[RCTL >> 2] = 0;
  }

  // Link.

  /** STATUS follows PHY and CTRL; a change of the link raises LSC. */
  #linkResolved(): void {
    // The PHY tells of itself while it is made, before this object is whole.
    if (this.#phy === undefined) return;
    const regs = this.#regs;
    const control = regs[CTRL >> 2];
    const before = regs[STATUS >> 2];
    const up = this.#phy.link && (control & CTRL_SLU) !== 0;
    const speed = (control & CTRL_FRCSPD) !== 0 ? (control >>> CTRL_SPEED_SHIFT) & 3 : this.#phy.speed;
    const fullDuplex = (control & CTRL_FRCDPX) !== 0 ? (control & CTRL_FD) !== 0 : this.#phy.fullDuplex;
    const cleared = before & ~(STATUS_LU | STATUS_FD | (3 << STATUS_SPEED_SHIFT) | (3 << STATUS_ASDV_SHIFT));
    const after =
      cleared |
      (up ? STATUS_LU : 0) |
      (fullDuplex ? STATUS_FD : 0) |
      (speed << STATUS_SPEED_SHIFT) |
      (this.#phy.speed << STATUS_ASDV_SHIFT);
    regs[STATUS >> 2] = after;
    this.#loopbackChanged();
    if (((before ^ after) & STATUS_LU) !== 0) this.#interrupts.raise(INT_LSC);
  }

  #loopbackChanged(): void {
    this.#looping = ((this.#regs[RCTL >> 2] >>> RCTL_LBM_SHIFT) & 3) !== 0 || this.#phy.loopback;
  }

  // Registers.

  protected override readRegister(bar: number, offset: number): number {
    if (bar === REGISTER_BAR) return this.#read(offset);
    if (offset === IO_ADDRESS) return this.#ioAddress;
    return offset === IO_DATA ? this.#read(this.#ioAddress) : 0;
  }

  protected override writeRegister(bar: number, offset: number, value: number): void {
    if (bar === REGISTER_BAR) this.#write(offset, value | 0);
    else if (offset === IO_ADDRESS) this.#ioAddress = (value & (REGISTER_BAR_BYTES - 1) & ~3) >>> 0;
    else if (offset === IO_DATA) this.#write(this.#ioAddress, value | 0);
  }

  /** Registers are 32 bits wide (manual, section 13.1): a narrower write keeps the other lanes as they are stored, without a read's side effects. */
  protected override writeNarrow(bar: number, offset: number, size: number, value: number): void {
    this.stats.oddAccess++;
    this.#strict?.narrow(offset);
    const aligned = offset & ~3;
    const shift = 8 * (offset & 3);
    const mask = (2 ** (8 * size) - 1) << shift;
    const at = bar === REGISTER_BAR ? aligned : aligned === IO_DATA ? this.#ioAddress : -1;
    const old =
      at < 0 ? this.#ioAddress : at < REGISTER_BYTES ? this.#regs[REGISTER_MAP.target[at >> 2] >> 2] : 0;
    this.writeRegister(bar, aligned, ((old & ~mask) | ((value << shift) & mask)) >>> 0);
  }

  #read(offset: number): number {
    if (offset >= REGISTER_BYTES) return 0;
    const target = REGISTER_MAP.target[offset >> 2];
    const word = target >> 2;
    const regs = this.#regs;
    switch (REGISTER_MAP.kind[word]) {
      case KIND_RW:
        if (target === ICR) return this.#interrupts.readCauses();
        if (target === EECD) return this.#eeprom.readEecd(regs[word]);
        return regs[word];
      case KIND_RO:
        return regs[word];
      case KIND_RC: {
        const value = regs[word];
        regs[word] = 0;
        // The high half of a 64-bit counter takes the low half along.
        if (word > 0 && REGISTER_MAP.kind[word - 1] === KIND_RO && target > STATISTICS_START)
          regs[word - 1] = 0;
        return value;
      }
      default:
        // Write-only or nothing: IMC reads as the mask, as ICS does as the causes, in the chip's own decoder.
        return 0;
    }
  }

  #write(offset: number, value: number): void {
    if (offset >= REGISTER_BYTES) return;
    const target = REGISTER_MAP.target[offset >> 2];
    const word = target >> 2;
    const kind = REGISTER_MAP.kind[word];
    if (this.#strict !== null) this.#strict.write(target, value);
    if (kind === KIND_NONE || kind === KIND_RO || kind === KIND_RC) return;
    const regs = this.#regs;
    const mask = REGISTER_MAP.writable[word];
    // Doorbells first: they are most writes.
    switch (target) {
      case TDT:
        regs[word] = value & mask;
        this.#tx.run();
        return;
      case RDT:
        regs[word] = value & mask;
        this.#rx.tailMoved();
        return;
      case IMS:
        this.#interrupts.setMask(value);
        return;
      case IMC:
        this.#interrupts.clearMask(value);
        return;
      case ICS:
        this.#interrupts.raise(value);
        return;
      case ICR:
        this.#interrupts.clearCauses(value);
        return;
      case TDH:
        this.#tx.headMoved(value & mask);
        return;
      case CTRL:
        this.#ctrlWritten(value);
        return;
      case CTRL_EXT:
        regs[word] = value & mask & ~CTRL_EXT_EE_RST;
        if ((value & CTRL_EXT_EE_RST) !== 0) {
          this.#loadAddress();
          this.#receiveAddressWritten(0);
        }
        return;
      case EECD:
        regs[word] = (regs[word] & ~mask) | (value & mask);
        this.#eeprom.writeEecd(value);
        return;
      case EERD:
        regs[word] = (value & 1) !== 0 ? this.#eeprom.readByEerd(value) : value & mask;
        return;
      case MDIC:
        regs[word] = this.#phy.mdic(value & mask);
        if (this.#phy.wantsInterrupt(value)) this.#interrupts.raise(INT_MDAC);
        return;
      case WUS:
        regs[word] &= ~value;
        return;
    }
    regs[word] = (regs[word] & ~mask) | (value & mask);
    switch (target) {
      case TCTL:
        this.#tx.run();
        return;
      case TDBAL:
      case TDBAH:
      case TDLEN:
        this.#tx.ringMoved();
        return;
      case RDBAL:
      case RDBAH:
      case RDLEN:
        this.#rx.ringMoved();
        return;
      case RDH:
        this.#rx.tailMoved();
        return;
      case RCTL:
        this.#controlWritten();
        this.#rx.controlChanged();
        return;
      case RDTR:
        if (value < 0) this.#interrupts.flushRx();
        return;
      case TIDV:
        if (value < 0) this.#interrupts.flushTx();
        return;
      case ITR:
        this.#interrupts.update();
        return;
      case VET:
        this.#controlWritten();
        return;
    }
    if (target >= RAL && target < RAL + 8 * RECEIVE_ADDRESSES) {
      this.#receiveAddressWritten((target - RAL) >> 3);
      this.#filter.changed();
    } else if (target >= MTA && target < MTA + 4 * TABLE_WORDS) {
      this.#filter.hashBits[(target - MTA) >> 2] = value;
      this.#filter.changed();
    } else if (target >= VFTA && target < VFTA + 4 * TABLE_WORDS) {
      this.#filter.vlans[(target - VFTA) >> 2] = value;
      this.#filter.changed();
    }
  }

  #ctrlWritten(value: number): void {
    if ((value & CTRL_PHY_RST) !== 0) this.#phy.reset();
    if ((value & CTRL_RST) !== 0) {
      this.#resetDevice();
      return;
    }
    this.#regs[CTRL >> 2] = value & REGISTER_MAP.writable[CTRL >> 2];
    this.#linkResolved();
  }

  // Receive filter.

  /** RCTL's and VET's meaning for the shared filter. */
  #controlWritten(): void {
    const rctl = this.#regs[RCTL >> 2];
    const filter = this.#filter;
    filter.allUnicast = (rctl & RCTL_UPE) !== 0;
    filter.allMulticast = (rctl & RCTL_MPE) !== 0;
    filter.promiscuous = filter.allUnicast && filter.allMulticast;
    filter.broadcast = (rctl & RCTL_BAM) !== 0;
    filter.vlanFilter = (rctl & RCTL_VFE) !== 0;
    filter.cfi = filter.vlanFilter && (rctl & RCTL_CFIEN) !== 0 ? ((rctl & RCTL_CFI) !== 0 ? 1 : 0) : -1;
    filter.vlanType = this.#regs[VET >> 2] & 0xffff;
    this.#hashShift = HASH_SHIFTS[(rctl >>> RCTL_MO_SHIFT) & 3];
    this.#loopbackChanged();
    filter.changed();
  }

  #receiveAddressWritten(index: number): void {
    const low = this.#regs[(RAL >> 2) + 2 * index];
    const high = this.#regs[(RAH >> 2) + 2 * index];
    // Only destination addresses are compared (ASEL 00b): the other selections are for management.
    const valid = (high & RAH_AV) !== 0 && ((high >>> RAH_ASEL_SHIFT) & 3) === 0;
    const mac = this.#macBytes;
    for (let i = 0; i < 4; i++) mac[i] = low >>> (8 * i);
    mac[4] = high;
    mac[5] = high >>> 8;
    this.#filter.setAddress(index, valid ? mac : null);
  }

  queryRxFilter(name: string): RxFilterInfo {
    return this.#filter.query(name);
  }

  #onRxFilterChanged: (() => void) | null = null;

  get onRxFilterChanged(): (() => void) | null {
    return this.#onRxFilterChanged;
  }

  set onRxFilterChanged(listener: (() => void) | null) {
    this.#onRxFilterChanged = listener;
    this.#filter.onChanged = listener;
  }

  // Save and restore.

  saveState(): E1000State {
    return {
      model: 'e1000',
      version: 1,
      config: [...this.config.bytes],
      registers: [...this.#regs],
      ioAddress: this.#ioAddress,
      eeprom: this.#eeprom.save(),
      phy: this.#phy.save(),
      interrupts: this.#interrupts.save(),
      tx: this.#tx.save(),
    };
  }

  loadState(state: unknown): void {
    const saved = parseState(state, this.config.bytes.length, WORDS);
    this.#resetDevice();
    for (let i = 0; i < WORDS; i++) {
      // As if written, bit by bit; what only the device writes is taken as it is.
      const kind = REGISTER_MAP.kind[i];
      const mask = REGISTER_MAP.writable[i];
      const result = 4 * i === EERD || 4 * i === MDIC;
      if (kind === KIND_RW && !result) this.#regs[i] = (this.#regs[i] & ~mask) | (saved.registers[i] & mask);
      else if (kind === KIND_RO || kind === KIND_RC || result) this.#regs[i] = saved.registers[i];
    }
    this.#ioAddress = saved.ioAddress & (REGISTER_BAR_BYTES - 1) & ~3;
    this.#eeprom.load(saved.eeprom);
    for (let i = 0; i < TABLE_WORDS; i++) {
      this.#filter.hashBits[i] = this.#regs[(MTA >> 2) + i];
      this.#filter.vlans[i] = this.#regs[(VFTA >> 2) + i];
    }
    for (let i = 0; i < RECEIVE_ADDRESSES; i++) this.#receiveAddressWritten(i);
    this.#controlWritten();
    this.loadConfig(saved.config);
    this.#tx.load(saved.tx);
    this.#rx.reset();
    this.#phy.load(saved.phy);
    this.#interrupts.load(saved.interrupts);
    this.#tx.run();
  }
}

const STATISTICS_START = 0x4000;

/**
 * Realtek RTL8139C+ and RTL8139C Fast Ethernet controllers (10ec:8139, revision 0x20 and 0x10), written from their datasheets.
 *
 *   registers.ts   the register map, as a table             tx.ts          the batch on its way to the port, completion
 *   eeprom.ts      MAC address and identifiers              tx-classic.ts  four descriptors in registers
 *   phy.ts         MII registers and the link               tx-ring.ts     C+ descriptor rings, two priorities
 *   interrupts.ts  ISR, IMR, TCTR and TimerInt              tx-offload.ts  C+ checksums, large send, VLAN tag
 *   stats.ts       tally counters, and ours                 rx.ts          filter, room, refusal
 *   state.ts       save and restore                         rx-buffer.ts, rx-ring.ts  classic buffer, C+ ring
 *   strict.ts      what a driver does against the datasheet
 *
 * This file ties them together: it answers register reads and writes, owns the port, and turns RCR, IDR and MAR into the shared receive
 * filter. BAR 0 (I/O) and BAR 1 (memory) are the same 256 bytes of registers of 1, 2 and 4 bytes; any access is one to each register that it
 * touches. CPCR chooses the programming model for each direction; the 8139C has no CPCR.
 *
 * Left out: wake-up frames, flash, CardBus, VPD; PCI dual address cycles are always done (high address words count).
 */

import { type Client, Port } from '../../core/port.ts';
import { PCI_STATUS } from '../../pci/config-space.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import { PciFunction } from '../../pci/pci-function.ts';
import { DriverReport } from '../driver-report.ts';
import type { Nic, NicSite } from '../nic.ts';
import { RxFilter, type RxFilterInfo } from '../rx-filter.ts';
import type { Chip } from './chip.ts';
import { Eeprom } from './eeprom.ts';
import { Interrupts } from './interrupts.ts';
import { BMCR_LOCKED, Phy } from './phy.ts';
import {
  CAPR,
  CBR,
  CLASSIC_MAP,
  CONFIG1,
  CONFIG3,
  CONFIG4,
  CONFIG5,
  CPCR,
  CPCR_RX,
  CPCR_TX,
  CR,
  CR_BUFE,
  CR_RE,
  CR_RST,
  CR_TE,
  CR9346,
  CSCR,
  DTCCR,
  DTCCR_DUMP,
  EEM_AUTOLOAD,
  EEM_CONFIG,
  EEM_PROGRAM,
  EEM_SHIFT,
  IDR,
  IMR,
  INT_LINK,
  INT_ROK,
  INT_SERR,
  INT_SWINT,
  ISR,
  KIND_LOCKED,
  KIND_NONE,
  KIND_RO,
  KIND_WO,
  LBK_LOOPBACK,
  MAR,
  MII_ANAR,
  MII_BMCR,
  MPC,
  MSR,
  MSR_LINKB,
  MSR_SPEED_10,
  PLUS_MAP,
  RCR,
  RCR_AAP,
  RCR_AB,
  RCR_AM,
  RCR_APM,
  RDSAR,
  REGISTER_BYTES,
  type RegisterMap,
  TCR,
  TCR_LBK_SHIFT,
  TCTR,
  THPDS,
  TIMERINT,
  TPPOLL,
  TPPOLL_FSWINT,
  TSAD,
  TSAD_STATUS,
  TSD,
  TSD_OWN,
  TSD_TABT,
  TSD_TOK,
  TSD_TUN,
} from './registers.ts';
import { Receiver } from './rx.ts';
import { parseState, type Rtl8139State } from './state.ts';
import { Rtl8139Stats, Tally } from './stats.ts';
import { RTL8139_RULES, Rtl8139Strict } from './strict.ts';
import { FROM_HIGH, FROM_NORMAL, Transmitter } from './tx.ts';

export interface Rtl8139Options {
  /** 6 bytes, unicast. */
  readonly mac: Uint8Array;
  /** Default '8139c+'. */
  readonly chip?: '8139c+' | '8139c';
  /** Report what the driver does against the datasheet; default false. */
  readonly strict?: boolean;
}

const IDENTITY = {
  vendorId: 0x10ec,
  deviceId: 0x8139,
  classCode: 0x02_00_00,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
  interruptPin: 1,
};
const REVISION_PLUS = 0x20;
const REVISION_CLASSIC = 0x10;
const IO_BAR = 0;
const MEMORY_BAR = 1;
const POWER_CAPABILITY = 0x50;
const PCI_MIN_GRANT = 0x3e;
const PCI_MAX_LATENCY = 0x3f;
const STATUS_MASTER_ABORT = 1 << 13;
const HASH_BITS = 64;
const CRC_POLYNOMIAL = 0x04c11db7;
/** Beside Con_status, two bits that Linux's 8139too reads to tell a link change from an underrun, which share a bit of ISR. */
const CSCR_CONNECTED = 1 << 3;
const CSCR_LINK_OK = 1 << 10;
const CSCR_LINK_CHANGED = 1 << 11;
const MSR_FLOW = 0xc0;
/** MII registers 0, 1, 4, 5 and 6 by their place in the map. */
const MII_PLACES = [0, 1, 4, 5, 6];
/** Registers that CR.RST leaves as they are: IDR, MAR, 9346CR, CONFIG, flow control, PHY. */
const KEPT: readonly (readonly [number, number])[] = [
  [IDR, 16],
  [CR9346, 3],
  [MSR, 3],
  [MII_BMCR, 0x82 - MII_BMCR],
  [CONFIG5, 1],
];

/** Bits that a restored register keeps where these are not just the writable ones. In C+ mode TSD's place holds a ring's or dump's address. */
const RESTORED: ReadonlyMap<number, number> = new Map([
  [TSD, -1],
  [TSD + 4, -1],
  [TSD + 8, -1],
  [TSD + 12, -1],
  [CBR, 0xfffc],
  [CR9346, 0xcf],
  [MSR, MSR_FLOW | MSR_LINKB | MSR_SPEED_10],
]);

export class Rtl8139 extends PciFunction implements Nic, Client {
  readonly model = 'rtl8139';
  readonly stats = new Rtl8139Stats();
  readonly port: Port;
  readonly ports: readonly Port[];
  readonly mac: Uint8Array;
  readonly driverReport: DriverReport | null;

  readonly #strict: Rtl8139Strict | null;
  readonly #chipName: '8139c+' | '8139c';
  readonly #map: RegisterMap;
  readonly #bytes = new Uint8Array(REGISTER_BYTES);
  readonly #halves = new Uint16Array(this.#bytes.buffer);
  readonly #words = new Int32Array(this.#bytes.buffer);
  readonly #filter: RxFilter;
  readonly #tally = new Tally();
  readonly #interrupts: Interrupts;
  readonly #phy: Phy;
  readonly #eeprom: Eeprom;
  readonly #tx: Transmitter;
  readonly #rx: Receiver;
  readonly #memory: GuestMemory;
  #looping = false;

  constructor(site: NicSite, options: Rtl8139Options) {
    const chipName = options.chip ?? '8139c+';
    const plus = chipName === '8139c+';
    super(site.host, { ...IDENTITY, revision: plus ? REVISION_PLUS : REVISION_CLASSIC });
    this.mac = options.mac.slice();
    this.#chipName = chipName;
    this.#map = plus ? PLUS_MAP : CLASSIC_MAP;
    this.#memory = site.host.memory as GuestMemory;
    this.addBar(IO_BAR, 'io', REGISTER_BYTES);
    this.addBar(MEMORY_BAR, 'memory32', REGISTER_BYTES);
    this.addPowerManagement(POWER_CAPABILITY);
    this.config.put(PCI_MIN_GRANT, 1, 0x20);
    this.config.put(PCI_MAX_LATENCY, 1, 0x40);
    this.#filter = new RxFilter(1, hashOf, HASH_BITS);
    const loop = site.link.loop;
    this.#interrupts = new Interrupts(this.#halves, loop, (level) => {
      if (level) this.stats.interrupts++;
      this.setIntx(level);
    });
    const self = this;
    const chip: Chip = {
      bytes: this.#bytes,
      halves: this.#halves,
      words: this.#words,
      memory: this.#memory,
      pool: site.link.pool,
      loop,
      adapt: site.link.adapt,
      interrupts: this.#interrupts,
      filter: this.#filter,
      stats: this.stats,
      tally: this.#tally,
      get dmaEnabled() {
        return self.dmaEnabled;
      },
      get loopback() {
        return self.#looping;
      },
      writesAreLate: site.host.writesAreLate === true,
      badAddress: () => this.#badAddress(),
    };
    this.#eeprom = new Eeprom(options.mac, IDENTITY);
    this.#rx = new Receiver(chip);
    this.#tx = new Transmitter(chip, this.#rx);
    this.#phy = new Phy(loop, () => this.#linkResolved());
    const report = options.strict === true ? new DriverReport(site.name, RTL8139_RULES, site.log) : null;
    this.driverReport = report;
    this.#strict = report === null ? null : new Rtl8139Strict(chip, this.#tx, this.#rx, report);
    this.port = new Port(site.name, 'nic', this, site.link);
    this.ports = [this.port];
    this.#rx.port = this.port;
    this.#tx.port = this.port;
    this.resetModel();
  }

  // Port client.

  receive(frames: Int32Array, from: number, to: number): number {
    if (this.#strict !== null) this.#strict.receive();
    return this.#rx.receive(frames, from, to);
  }

  peerReady(): void {
    this.#tx.peerReady();
  }

  linkChanged(up: boolean): void {
    this.#phy.carrier = up;
  }

  // Reset and end.

  /** As by RST#: all registers, with what the EEPROM holds loaded anew. */
  protected override resetModel(): void {
    this.#bytes.set(this.#map.reset);
    this.#eeprom.copyMac(this.#bytes);
    this.#tally.clear();
    this.#phy.reset();
    this.#resetDevice();
  }

  /** CR.RST. */
  #resetDevice(): void {
    const kept = KEPT.map(([at, length]) => this.#bytes.slice(at, at + length));
    this.#bytes.set(this.#map.reset);
    for (const [i, [at]] of KEPT.entries()) this.#bytes.set(kept[i], at);
    this.#interrupts.reset();
    this.#tx.reset();
    this.#filterWritten();
    this.#loopbackWritten();
    this.#rx.reset();
    this.#strict?.reset();
    this.#linkResolved();
  }

  protected override dmaChanged(): void {
    this.#tx.run();
    this.#rx.roomMade();
  }

  close(): void {
    this.port.disconnect();
    this.#bytes[CR] = 0;
    this.#tx.close();
    this.#rx.close();
    this.#interrupts.reset();
    this.#interrupts.close();
    this.#phy.close();
  }

  #badAddress(): void {
    this.config.bytes[PCI_STATUS + 1] |= STATUS_MASTER_ABORT >> 8;
    this.#interrupts.raise(INT_SERR);
  }

  // Link.

  /** MSR, CSCR and the MII registers follow the PHY; a change of the link raises LinkChg. */
  #linkResolved(): void {
    // The PHY tells of itself while it is made, before this object is whole.
    if (this.#phy === undefined) return;
    const { registers, link, fast } = this.#phy;
    for (const [i, register] of MII_PLACES.entries()) this.#halves[(MII_BMCR >> 1) + i] = registers[register];
    const before = this.#bytes[MSR];
    const after = (before & ~(MSR_LINKB | MSR_SPEED_10)) | (link ? 0 : MSR_LINKB) | (fast ? 0 : MSR_SPEED_10);
    this.#bytes[MSR] = after;
    const status = this.#halves[CSCR >> 1] & ~(CSCR_CONNECTED | CSCR_LINK_OK);
    this.#halves[CSCR >> 1] = status | (link ? CSCR_CONNECTED | CSCR_LINK_OK : 0);
    this.#loopbackWritten();
    if (((before ^ after) & MSR_LINKB) === 0) return;
    this.#halves[CSCR >> 1] |= CSCR_LINK_CHANGED;
    this.#interrupts.raise(INT_LINK);
  }

  #loopbackWritten(): void {
    const mode = (this.#words[TCR >> 2] >>> TCR_LBK_SHIFT) & 3;
    this.#looping = mode === LBK_LOOPBACK || this.#phy.loopback;
  }

  // Registers.

  protected override readRegister(_bar: number, offset: number): number {
    const word = offset >> 2;
    switch (offset) {
      case CR & ~3:
        return (this.#words[word] & ~(CR_BUFE << 24)) | (this.#rx.empty ? CR_BUFE << 24 : 0);
      case TCTR:
        return this.#interrupts.count;
      case IMR & ~3:
        this.#rx.causesRead();
        return this.#words[word];
      case MPC:
        return this.#tally.missedPackets;
      case TSAD_STATUS:
        return (this.#words[word] & ~0xffff) | this.#summary();
      default:
        return this.#words[word];
    }
  }

  /** TSAD: OWN, TABT, TUN and TOK of the four descriptors, four bits each from bit 0 on. */
  #summary(): number {
    let value = 0;
    for (let i = 0; i < 4; i++) {
      const status = this.#words[(TSD >> 2) + i];
      if ((status & TSD_OWN) !== 0) value |= 1 << i;
      if ((status & TSD_TABT) !== 0) value |= 1 << (4 + i);
      if ((status & TSD_TUN) !== 0) value |= 1 << (8 + i);
      if ((status & TSD_TOK) !== 0) value |= 1 << (12 + i);
    }
    return value;
  }

  protected override writeRegister(_bar: number, offset: number, value: number): void {
    this.#write(offset, 4, value);
  }

  /** Registers are of 1, 2 and 4 bytes, and drivers write single bytes of them: each has its own bytes of the access. */
  protected override writeNarrow(_bar: number, offset: number, size: number, value: number): void {
    this.#write(offset, size, value);
  }

  /** Divides an access of `size` bytes, within one word, into one for each register that it touches. */
  #write(offset: number, size: number, value: number): void {
    const end = offset + size;
    for (let at = offset; at < end; ) {
      const start = this.#map.start[at];
      const length = this.#map.size[start];
      const next = Math.min(end, start + length);
      if (this.#map.kind[start] !== KIND_NONE) {
        // The access's bytes in the register's place, and which they are.
        const shift = 8 * (at - start);
        const lanes = (2 ** (8 * (next - at)) - 1) << shift;
        this.#writeOne(start, (value >>> (8 * (at - offset))) << shift, lanes);
      }
      at = next;
    }
  }

  get #mode(): number {
    return this.#bytes[CR9346] >>> EEM_SHIFT;
  }

  get #plusActive(): boolean {
    return (this.#bytes[CPCR] & (CPCR_RX | CPCR_TX)) !== 0;
  }

  #stored(register: number): number {
    const size = this.#map.size[register];
    if (size === 4) return this.#words[register >> 2];
    return size === 2 ? this.#halves[register >> 1] : this.#bytes[register];
  }

  #store(register: number, value: number): void {
    const size = this.#map.size[register];
    if (size === 4) this.#words[register >> 2] = value;
    else if (size === 2) this.#halves[register >> 1] = value;
    else this.#bytes[register] = value;
  }

  /** Writes the bytes `lanes` of one register. */
  #writeOne(register: number, value: number, lanes: number): void {
    if (this.#strict !== null) this.#strict.write(register, value, lanes);
    // Doorbells and acknowledgements first: they are most writes.
    switch (register) {
      case TPPOLL:
        if ((value & TPPOLL_FSWINT) !== 0) this.#interrupts.raise(INT_SWINT);
        this.#tx.poll(value);
        this.#rx.roomMade();
        return;
      case ISR:
        this.#interrupts.clear(value & lanes);
        if ((value & lanes & INT_LINK) !== 0) this.#halves[CSCR >> 1] &= ~CSCR_LINK_CHANGED;
        if ((value & lanes & INT_ROK) !== 0 && this.#rx.mustTellAgain) this.#interrupts.raise(INT_ROK);
        this.#rx.acknowledged();
        return;
    }
    const kind = this.#map.kind[register];
    if (kind === KIND_LOCKED && this.#mode !== EEM_CONFIG) {
      this.#strict?.locked(register);
      return;
    }
    if (kind === KIND_RO) return;
    // The tally dump has the places of TSD0 and TSD1, with bits of its own.
    const dump = register >= DTCCR && register < DTCCR + 8 && this.#plusActive;
    const mask = dump ? -1 : this.#map.writable[register];
    const old = this.#stored(register);
    const written = mask & lanes;
    const now = (old & ~written) | (value & written);
    switch (register) {
      case CR:
        this.#commandWritten(value & lanes, now & (CR_RE | CR_TE));
        return;
      case CR9346:
        this.#eepromWritten(now);
        return;
      case MII_BMCR: {
        const bits = this.#mode === EEM_CONFIG ? 0xffff : 0xffff & ~BMCR_LOCKED;
        this.#phy.write(0, (old & ~(written & bits)) | (value & written & bits));
        return;
      }
      case MII_ANAR:
        this.#phy.write(4, now);
        this.#linkResolved();
        return;
      case TCTR:
        this.#interrupts.zero();
        return;
      case MPC:
        this.#tally.missedPackets = 0;
        return;
    }
    if (dump) {
      this.#words[register >> 2] = now;
      if (register === DTCCR) this.#dumpTally();
      return;
    }
    if (register >= TSD && register < TSD + 16) {
      // A new buffer's status is empty until it was sent.
      this.#words[register >> 2] = now & ~(TSD_TOK | TSD_TUN | TSD_TABT);
      this.#tx.statusWritten((register - TSD) >> 2);
      return;
    }
    this.#store(register, now);
    if (register < MAR + 8) {
      this.#filterWritten();
      return;
    }
    if (register >= TSAD && register < TSAD + 16) {
      if (this.#tx.plus) this.#tx.ringMoved(register < THPDS ? FROM_NORMAL : FROM_HIGH);
      return;
    }
    switch (register) {
      case CAPR:
        this.#rx.roomMade();
        return;
      case IMR:
        this.#interrupts.update();
        this.#rx.roomMade();
        return;
      case TCR:
        this.#loopbackWritten();
        return;
      case RCR:
        this.#filterWritten();
        this.#rx.roomMade();
        return;
      case TIMERINT:
        this.#interrupts.compare = now;
        return;
      case CPCR:
        if (((old ^ now) & CPCR_TX) !== 0) this.#tx.restart();
        if (((old ^ now) & CPCR_RX) !== 0) this.#rx.ringMoved();
        return;
      case RDSAR:
      case RDSAR + 4:
        this.#rx.ringMoved();
        return;
    }
  }

  /** CR: `bits` were written, RE and TE are to be as in `enables`. */
  #commandWritten(bits: number, enables: number): void {
    if ((bits & CR_RST) !== 0) {
      this.#resetDevice();
      return;
    }
    const on = enables & ~this.#bytes[CR];
    this.#bytes[CR] = enables;
    if ((on & CR_TE) !== 0) {
      this.#tx.restart();
      this.#tx.run();
    }
    if ((on & CR_RE) !== 0) this.#rx.restart();
    this.#rx.roomMade();
  }

  #eepromWritten(value: number): void {
    const mode = value >>> EEM_SHIFT;
    if (mode === EEM_AUTOLOAD) {
      this.#eeprom.copyMac(this.#bytes);
      for (const register of [CONFIG1, CONFIG3, CONFIG4]) this.#bytes[register] = this.#map.reset[register];
      this.#bytes[CR9346] = 0;
      this.#filterWritten();
      return;
    }
    this.#eeprom.writePins(mode === EEM_PROGRAM ? value : 0);
    this.#bytes[CR9346] = this.#eeprom.readPins(value);
  }

  /** DTCCR: writes the tally to RAM when asked to, which takes no time. */
  #dumpTally(): void {
    const word = DTCCR >> 2;
    const low = this.#words[word];
    if ((low & DTCCR_DUMP) === 0) return;
    const address = (this.#words[word + 1] >>> 0) * 2 ** 32 + ((low & ~63) >>> 0);
    this.#words[word] = low & ~DTCCR_DUMP;
    if (this.dmaEnabled && this.#tally.dump(this.#memory, address)) return;
    this.stats.badTallyAddress++;
    this.#badAddress();
  }

  // Receive filter.

  /** What RCR, IDR and MAR mean for the shared filter. */
  #filterWritten(): void {
    const rcr = this.#words[RCR >> 2];
    const filter = this.#filter;
    const low = this.#words[MAR >> 2];
    const high = this.#words[(MAR >> 2) + 1];
    const multicast = (rcr & RCR_AM) !== 0;
    filter.allUnicast = (rcr & RCR_AAP) !== 0;
    filter.noUnicast = (rcr & RCR_APM) === 0;
    filter.allMulticast = multicast && low === -1 && high === -1;
    filter.noMulticast = !multicast;
    filter.promiscuous = filter.allUnicast && filter.allMulticast;
    filter.broadcast = (rcr & RCR_AB) !== 0;
    filter.hashBits[0] = multicast ? low : 0;
    filter.hashBits[1] = multicast ? high : 0;
    filter.setAddress(0, this.#bytes, IDR);
    filter.changed();
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

  saveState(): Rtl8139State {
    return {
      model: 'rtl8139',
      version: 1,
      chip: this.#chipName,
      config: [...this.config.bytes],
      registers: [...this.#bytes],
      eeprom: this.#eeprom.save(),
      phy: this.#phy.save(),
      timerCount: this.#interrupts.count,
      tally: this.#tally.save(),
      tx: this.#tx.save(),
      rxIndex: this.#rx.save(),
    };
  }

  /** Takes saved registers through the masks of live writes; what follows from other parts of the state is worked out anew. */
  #restoreRegisters(bytes: Uint8Array): void {
    const { kind, start, size, writable, reset } = this.#map;
    for (let register = 0; register < REGISTER_BYTES; register += size[register]) {
      if (kind[register] === KIND_NONE || start[register] !== register) continue;
      const mask =
        RESTORED.get(register) ??
        (kind[register] === KIND_RO || kind[register] === KIND_WO ? 0 : writable[register]);
      for (let i = 0; i < size[register]; i++) {
        const lane = mask >>> (8 * i);
        this.#bytes[register + i] = (reset[register + i] & ~lane) | (bytes[register + i] & lane);
      }
    }
    // BUFE is worked out when CR is read.
    this.#bytes[CR] &= CR_RE | CR_TE;
  }

  loadState(state: unknown): void {
    const saved = parseState(state, this.config.bytes.length, this.#chipName);
    this.#resetDevice();
    this.#restoreRegisters(Uint8Array.from(saved.registers));
    this.#eeprom.load(saved.eeprom);
    this.#tally.load(saved.tally);
    this.#filterWritten();
    this.loadConfig(saved.config);
    this.#tx.load(saved.tx);
    this.#rx.load(saved.rxIndex);
    this.#phy.load(saved.phy);
    this.#interrupts.load(saved.timerCount, this.#words[TIMERINT >> 2]);
    this.#tx.run();
    this.#rx.roomMade();
  }
}

/** The hash of a multicast address: the upper six bits of its CRC-32, most significant bit first (datasheet, "Multicast Register"). */
export function hashOf(bytes: Uint8Array, at: number): number {
  let crc = -1;
  for (let i = 0; i < 6; i++) {
    let byte = bytes[at + i];
    for (let bit = 0; bit < 8; bit++, byte >>= 1) {
      crc = (crc << 1) ^ (((crc >>> 31) ^ byte) & 1 ? CRC_POLYNOMIAL : 0);
    }
  }
  return crc >>> 26;
}

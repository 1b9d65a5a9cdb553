/**
 * The driver's half of the rtl8139, written from the datasheets as an operating system's drivers would be. It looks at the chip's PCI revision and
 * takes the programming model that fits: from 0x20 on descriptor rings (C+, rtl8139-plus.ts), below that four transmit buffers and a receive
 * ring buffer (rtl8139-classic.ts). This file has what both share: finding the NIC, its EEPROM, filters, interrupts and link.
 */

import type { Timer } from '../../core/loop.ts';
import type {
  DriverCapabilities,
  DriverListener,
  DriverOptions,
  NicDriver,
  PacketBatch,
  PciAccess,
} from './driver.ts';
import { Rtl8139Classic } from './rtl8139-classic.ts';
import { Registers, type Rtl8139Path } from './rtl8139-path.ts';
import { Rtl8139Plus } from './rtl8139-plus.ts';

const IDR = 0x00;
const MAR = 0x08;
const CR = 0x37;
const IMR = 0x3c;
const ISR = 0x3e;
const TCR = 0x40;
const RCR = 0x44;
const CR9346 = 0x50;
const CONFIG1 = 0x52;
const MSR = 0x58;

const CR_RST = 0x10;
const CR_RE_TE = 0x0c;
const RCR_AAP = 1;
const RCR_APM = 2;
const RCR_AM = 4;
const RCR_AB = 8;
const RCR_UNLIMITED_DMA = 7 << 8;
const RCR_NO_THRESHOLD = 7 << 13;
const TCR_GAP_AND_DMA = (3 << 24) | (7 << 8);
const CONFIG1_DRIVER_LOADED = 0x20;
const EEM_CONFIG = 0xc0;
const MSR_LINKB = 4;
const INT_ROK = 1 << 0;
const INT_RER = 1 << 1;
const INT_TOK = 1 << 2;
const INT_TER = 1 << 3;
const INT_RXOVW = 1 << 4;
const INT_LINK = 1 << 5;
const INT_FOVW = 1 << 6;
const INTERRUPTS = INT_ROK | INT_RER | INT_TOK | INT_TER | INT_RXOVW | INT_LINK | INT_FOVW;

const VENDOR_REALTEK = 0x10ec;
const DEVICE_8139 = 0x8139;
const COMMAND_IO_MEMORY_MASTER = 7;
const REVISION_PLUS = 0x20;
const EEPROM_SIGNATURE = 0x8129;
const EEPROM_MAC = 7;
const EE_PROGRAM = 0x80;
const EE_CS = 8;
const EE_SK = 4;
const EE_DI = 2;
const EE_DO = 1;
const EE_READ = 6;
const EE_COMMAND_BITS = 3 + 6;
const SEND_POLL_NS = 10e6;

export class Rtl8139Driver implements NicDriver {
  readonly mac = new Uint8Array(6);
  linkUp = false;
  readonly ipMtuBytes: number;
  listener: DriverListener = { received() {}, sent() {} };

  readonly #pci: PciAccess;
  readonly #options: DriverOptions;
  readonly #registers: Registers;
  readonly #path: Rtl8139Path;
  #mark = 0;
  #refused = false;
  #open = false;
  readonly #isOpen = (): boolean => this.#open;
  readonly #poll: Timer;

  constructor(options: DriverOptions) {
    this.#options = options;
    this.#pci = options.pci;
    this.#registers = new Registers(options.pci);
    this.ipMtuBytes = options.ipMtuBytes ?? 1500;
    const plus = options.pci.readConfig(8, 1) >= REVISION_PLUS;
    this.#path = plus
      ? new Rtl8139Plus(this.#registers, options)
      : new Rtl8139Classic(this.#registers, options);
    this.#poll = options.loop.timer(() => this.#reap());
  }

  get capabilities(): DriverCapabilities {
    return this.#path.capabilities;
  }

  get room(): number {
    return this.#path.room;
  }

  open(): boolean {
    const pci = this.#pci;
    const r = this.#registers;
    if (pci.readConfig(0, 2) !== VENDOR_REALTEK || pci.readConfig(2, 2) !== DEVICE_8139) return false;
    pci.writeConfig(4, 2, pci.readConfig(4, 2) | COMMAND_IO_MEMORY_MASTER);
    r.put8(CR, CR_RST);
    if ((r.get8(CR) & CR_RST) !== 0) return false;
    if (!this.#readMac()) return false;
    r.put8(CR9346, EEM_CONFIG);
    r.put8(CONFIG1, r.get8(CONFIG1) | CONFIG1_DRIVER_LOADED);
    r.put8(CR9346, 0);
    const mac = this.mac;
    r.put32(IDR, mac[0] | (mac[1] << 8) | (mac[2] << 16) | (mac[3] << 24));
    r.put32(IDR + 4, mac[4] | (mac[5] << 8));
    this.#mark = this.#options.ram.mark();
    this.#path.layOut();
    r.put8(CR, CR_RE_TE);
    this.#path.start();
    r.put32(TCR, TCR_GAP_AND_DMA);
    this.#setFilters();
    r.put16(ISR, 0xffff);
    r.put16(IMR, INTERRUPTS);
    this.#refused = false;
    this.#open = true;
    this.#checkLink();
    return true;
  }

  /** The EEPROM's words 7 to 9, if its signature is there. */
  #readMac(): boolean {
    if (this.#readEeprom(0) !== EEPROM_SIGNATURE) return false;
    for (let i = 0; i < 3; i++) {
      const word = this.#readEeprom(EEPROM_MAC + i);
      this.mac[2 * i] = word;
      this.mac[2 * i + 1] = word >>> 8;
    }
    return true;
  }

  /** READ of the 93C46, bit by bit. */
  #readEeprom(address: number): number {
    const r = this.#registers;
    const command = (EE_READ << 6) | address;
    r.put8(CR9346, EE_PROGRAM);
    r.put8(CR9346, EE_PROGRAM | EE_CS);
    for (let bit = EE_COMMAND_BITS - 1; bit >= 0; bit--) {
      const data = ((command >> bit) & 1) !== 0 ? EE_DI : 0;
      r.put8(CR9346, EE_PROGRAM | EE_CS | data);
      r.put8(CR9346, EE_PROGRAM | EE_CS | EE_SK | data);
    }
    r.put8(CR9346, EE_PROGRAM | EE_CS);
    let word = 0;
    for (let bit = 0; bit < 16; bit++) {
      r.put8(CR9346, EE_PROGRAM | EE_CS | EE_SK);
      word = (word << 1) | (r.get8(CR9346) & EE_DO);
      r.put8(CR9346, EE_PROGRAM | EE_CS);
    }
    r.put8(CR9346, 0);
    return word;
  }

  #setFilters(): void {
    const { promiscuous, multicast } = this.#options;
    const r = this.#registers;
    const hash = new Int32Array(2);
    for (const group of multicast ?? []) {
      const bit = hashBit(group);
      hash[bit >> 5] |= 1 << (bit & 31);
    }
    if (promiscuous === true) hash.fill(-1);
    let rcr = RCR_APM | RCR_AB | RCR_UNLIMITED_DMA | RCR_NO_THRESHOLD | this.#path.receiveConfiguration;
    if (hash[0] !== 0 || hash[1] !== 0) rcr |= RCR_AM;
    if (promiscuous === true) rcr |= RCR_AAP;
    r.put32(MAR, hash[0]);
    r.put32(MAR + 4, hash[1]);
    r.put32(RCR, rcr);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#poll.cancel();
    this.#registers.put16(IMR, 0);
    this.#registers.put8(CR, CR_RST);
    this.#options.ram.release(this.#mark);
  }

  send(batch: PacketBatch, from: number, to: number): number {
    if (this.#path.room < to - from) this.#reap();
    const taken = this.#path.send(batch, from, to);
    if (taken < to - from) {
      this.#refused = true;
      if (!this.#poll.armed) this.#poll.armIn(SEND_POLL_NS);
    }
    return taken;
  }

  #reap(): boolean {
    const packets = this.#open ? this.#path.reap() : 0;
    if (packets === 0) {
      if (this.#refused && this.#open && !this.#poll.armed) this.#poll.armIn(SEND_POLL_NS);
      return false;
    }
    this.listener.sent(packets);
    if (this.#refused && this.#open && this.room > 0) {
      this.#refused = false;
      this.#poll.cancel();
      this.listener.sendReady?.();
    }
    return true;
  }

  interrupt(): boolean {
    if (!this.#open) return false;
    const r = this.#registers;
    const causes = r.get16(ISR);
    // A NIC that is gone reads as ones.
    if (causes === 0xffff) return false;
    if (causes !== 0) r.put16(ISR, causes);
    if ((causes & INT_LINK) !== 0) this.#checkLink();
    const sent = this.#reap();
    const received = this.#open && this.#path.receive(this.listener, this.#isOpen);
    // The chip looks for new descriptors when the driver is done.
    if (received && this.#open) {
      r.put16(IMR, INTERRUPTS);
      this.listener.receivedAll?.();
    }
    return causes !== 0 || sent || received;
  }

  #checkLink(): void {
    const up = (this.#registers.get8(MSR) & MSR_LINKB) === 0;
    if (up === this.linkUp) return;
    this.linkUp = up;
    this.listener.linkChanged?.(up);
  }
}

const CRC_POLYNOMIAL = 0x04c11db7;

/** Which of the 64 bits of MAR a group address has: the top six bits of its CRC. */
function hashBit(address: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of address) {
    for (let bit = 0; bit < 8; bit++) {
      const carry = (crc >>> 31) ^ ((byte >> bit) & 1);
      crc = (crc << 1) ^ (carry !== 0 ? CRC_POLYNOMIAL : 0);
    }
  }
  return crc >>> 26;
}

/**
 * The driver's half of the e1000, written from the 8254x manual as an operating system's driver would be: chapter 14 for initialisation,
 * chapter 3 for the rings.
 *
 * Transmit: one data descriptor for a packet, a context descriptor before it when it needs another context than the last one did. RS is set on each
 * packet's descriptor and completion is read from DD, in ring order. Receive: each buffer holds a whole frame (one descriptor), is
 * shown to the listener and given back at once; RDT moves once for a batch.
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
import { RX_CSUM_BAD, RX_CSUM_OK, RX_VLAN, SEGMENT_NONE, SEGMENT_TCP4 } from './driver.ts';
import type { GuestRam } from './guest-ram.ts';

const CTRL = 0x0000;
const STATUS = 0x0008;
const EERD = 0x0014;
const VET = 0x0038;
const ICR = 0x00c0;
const IMS = 0x00d0;
const IMC = 0x00d8;
const RCTL = 0x0100;
const TCTL = 0x0400;
const RDBAL = 0x2800;
const TDBAL = 0x3800;
const RXCSUM = 0x5000;
const MTA = 0x5200;
const RAL = 0x5400;
const VFTA = 0x5600;
/** From a ring's base register. */
const RING_HIGH = 0x04;
const RING_LENGTH = 0x08;
const RING_HEAD = 0x10;
const RING_TAIL = 0x18;

const CTRL_SLU = 1 << 6;
const CTRL_ASDE = 1 << 5;
const CTRL_RST = 1 << 26;
const CTRL_VME = 1 << 30;
const STATUS_LU = 2;
const RCTL_EN = 1 << 1;
const RCTL_UPE = 1 << 3;
const RCTL_MPE = 1 << 4;
const RCTL_LPE = 1 << 5;
const RCTL_BAM = 1 << 15;
const RCTL_BSIZE_SHIFT = 16;
const RCTL_VFE = 1 << 18;
const RCTL_BSEX = 1 << 25;
const RCTL_SECRC = 1 << 26;
const TCTL_EN = 1 << 1;
const TCTL_PSP = 1 << 3;
const INT_TXDW = 1 << 0;
const INT_LSC = 1 << 2;
const INT_RXDMT0 = 1 << 4;
const INT_RXO = 1 << 6;
const INT_RXT0 = 1 << 7;
const INTERRUPTS = INT_TXDW | INT_LSC | INT_RXDMT0 | INT_RXO | INT_RXT0;

const CMD_EOP = 1 << 24;
const CMD_IFCS = 1 << 25;
const CMD_TSE = 1 << 26;
const CMD_RS = 1 << 27;
const CMD_DEXT = 1 << 29;
const CMD_VLE = 1 << 30;
const DATA_TYPE = 1 << 20;
const TUCMD_TCP = 1 << 24;
const TUCMD_IPV4 = 1 << 25;
const POPTS_IXSM = 1 << 8;
const POPTS_TXSM = 2 << 8;
const DD = 1;
const RX_EOP = 2;
const RX_IXSM = 4;
const RX_VP = 8;
const RX_TCPCS = 0x20;
const RX_ERRORS = 0x9700;
const RX_TCPE = 0x2000;
const RX_IPE = 0x4000;

const BAR = 0;
const DESCRIPTOR_BYTES = 16;
const RING_ALIGN = 128;
const HEADER_BYTES = 18;
const VENDOR_INTEL = 0x8086;
const DEVICE_82540EM = 0x100e;
const COMMAND_MEMORY_MASTER = 6;
const EEPROM_WORDS = 64;
const EEPROM_SUM = 0xbaba;
/** Largest packet for the device in one descriptor, with what 8254x leaves for itself. */
const PACKET_MAX_BYTES = 65_550;
const SEND_POLL_NS = 10e6;

export class E1000Driver implements NicDriver {
  readonly mac = new Uint8Array(6);
  linkUp = false;
  readonly ipMtuBytes: number;
  readonly capabilities: DriverCapabilities;
  listener: DriverListener = { received() {}, sent() {} };

  readonly #pci: PciAccess;
  readonly #ram: GuestRam;
  readonly #options: DriverOptions;
  readonly #size: number;
  #mark = 0;
  #txRing = 0;
  #rxRing = 0;
  #rxBuffers = 0;
  #bufferBytes = 2048;
  #txTail = 0;
  #txClean = 0;
  #txUsed = 0;
  /** Whether the descriptor ends a packet: contexts do not. */
  readonly #txEnds: Uint8Array;
  #rxNext = 0;
  #refused = false;
  #open = false;
  /** The context that the NIC has: start, offset, kind, segment size, header bytes as one key each. */
  #contextA = -1;
  #contextB = -1;
  readonly #poll: Timer;

  constructor(options: DriverOptions) {
    this.#options = options;
    this.#pci = options.pci;
    this.#ram = options.ram;
    this.#size = options.ringSize ?? 256;
    this.ipMtuBytes = options.ipMtuBytes ?? 1500;
    const offloads = options.offloads ?? true;
    this.capabilities = {
      checksum: offloads,
      segmentTcp4: offloads,
      segmentTcp6: offloads,
      vlan: options.vlans !== undefined,
    };
    this.#txEnds = new Uint8Array(this.#size);
    this.#poll = options.loop.timer(() => this.#reap());
  }

  #get(register: number): number {
    return this.#pci.readBar(BAR, register, 4);
  }

  #put(register: number, value: number): void {
    this.#pci.writeBar(BAR, register, 4, value >>> 0);
  }

  open(): boolean {
    const pci = this.#pci;
    if (pci.readConfig(0, 2) !== VENDOR_INTEL || pci.readConfig(2, 2) !== DEVICE_82540EM) return false;
    pci.writeConfig(4, 2, pci.readConfig(4, 2) | COMMAND_MEMORY_MASTER);
    this.#put(IMC, 0xffffffff);
    this.#put(CTRL, this.#get(CTRL) | CTRL_RST);
    if ((this.#get(CTRL) & CTRL_RST) !== 0) return false;
    this.#put(IMC, 0xffffffff);
    this.#get(ICR);
    if (!this.#readMac()) return false;
    const vlans = this.#options.vlans;
    this.#put(
      CTRL,
      (this.#get(CTRL) | CTRL_SLU | CTRL_ASDE | (vlans === undefined ? 0 : CTRL_VME)) & ~CTRL_RST,
    );
    this.#layRings();
    this.#setFilters();
    this.#put(RXCSUM, this.capabilities.checksum ? 0x300 : 0);
    this.#put(TCTL, TCTL_EN | TCTL_PSP | (0x0f << 4) | (0x40 << 12));
    this.#put(IMS, INTERRUPTS);
    this.#open = true;
    this.#checkLink();
    return true;
  }

  /** The EEPROM's first words, if its sum is right. */
  #readMac(): boolean {
    let sum = 0;
    for (let word = 0; word < EEPROM_WORDS; word++) {
      this.#put(EERD, (word << 8) | 1);
      const value = this.#get(EERD);
      if ((value & 0x10) === 0) return false;
      const data = value >>> 16;
      sum = (sum + data) & 0xffff;
      if (word < 3) {
        this.mac[2 * word] = data;
        this.mac[2 * word + 1] = data >>> 8;
      }
    }
    return sum === EEPROM_SUM;
  }

  #layRings(): void {
    const ram = this.#ram;
    const size = this.#size;
    this.#mark = ram.mark();
    this.#txRing = ram.allocate(size * DESCRIPTOR_BYTES, RING_ALIGN);
    this.#rxRing = ram.allocate(size * DESCRIPTOR_BYTES, RING_ALIGN);
    const frameBytes = this.ipMtuBytes + HEADER_BYTES;
    this.#bufferBytes =
      frameBytes <= 2048 ? 2048 : frameBytes <= 4096 ? 4096 : frameBytes <= 8192 ? 8192 : 16384;
    this.#rxBuffers = ram.allocate(size * this.#bufferBytes, 64);
    for (let i = 0; i < size; i++) this.#postBuffer(i);
    for (const [base, ring] of [
      [TDBAL, this.#txRing],
      [RDBAL, this.#rxRing],
    ]) {
      this.#put(base, ring % 2 ** 32);
      this.#put(base + RING_HIGH, Math.floor(ring / 2 ** 32));
      this.#put(base + RING_LENGTH, size * DESCRIPTOR_BYTES);
      this.#put(base + RING_HEAD, 0);
      this.#put(base + RING_TAIL, 0);
    }
    this.#txTail = 0;
    this.#txClean = 0;
    this.#txUsed = 0;
    this.#rxNext = 0;
    this.#contextA = -1;
  }

  #postBuffer(index: number): void {
    const at = this.#ram.offset(this.#rxRing + index * DESCRIPTOR_BYTES) >> 2;
    const address = this.#rxBuffers + index * this.#bufferBytes;
    const words = this.#ram.words;
    words[at] = address % 2 ** 32;
    words[at + 1] = Math.floor(address / 2 ** 32);
    words[at + 2] = 0;
    words[at + 3] = 0;
  }

  #setFilters(): void {
    const { vlans, multicast, promiscuous } = this.#options;
    const mac = this.mac;
    this.#put(RAL, mac[0] | (mac[1] << 8) | (mac[2] << 16) | (mac[3] << 24));
    this.#put(RAL + 4, mac[4] | (mac[5] << 8) | (1 << 31));
    for (let i = 0; i < 128; i++) {
      this.#put(MTA + 4 * i, 0);
      this.#put(VFTA + 4 * i, 0);
    }
    for (const group of multicast ?? []) {
      const bit = (((group[5] << 8) | group[4]) >> 4) & 0xfff;
      const register = MTA + 4 * (bit >> 5);
      this.#put(register, this.#get(register) | (1 << (bit & 31)));
    }
    for (const id of vlans ?? []) {
      const register = VFTA + 4 * ((id & 0xfff) >> 5);
      this.#put(register, this.#get(register) | (1 << (id & 31)));
    }
    this.#put(VET, 0x8100);
    let rctl = RCTL_EN | RCTL_BAM | RCTL_SECRC;
    if (promiscuous === true) rctl |= RCTL_UPE | RCTL_MPE;
    if (vlans !== undefined) rctl |= RCTL_VFE;
    // 2048 is BSIZE 0; with BSEX the sizes are 16, 8 and 4 KiB for BSIZE 1, 2, 3.
    if (this.#bufferBytes > 2048) {
      const sizeCode = this.#bufferBytes === 16384 ? 1 : this.#bufferBytes === 8192 ? 2 : 3;
      rctl |= RCTL_LPE | RCTL_BSEX | (sizeCode << RCTL_BSIZE_SHIFT);
    }
    this.#put(RCTL, rctl);
    this.#put(RDBAL + RING_TAIL, this.#size - 1);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#poll.cancel();
    this.#put(IMC, 0xffffffff);
    this.#put(RCTL, 0);
    this.#put(TCTL, 0);
    this.#put(CTRL, this.#get(CTRL) | CTRL_RST);
    this.#get(ICR);
    this.#ram.release(this.#mark);
  }

  get room(): number {
    // One descriptor stays unused, so that a full ring differs from an empty one.
    return (this.#size - 1 - this.#txUsed) >> 1;
  }

  send(batch: PacketBatch, from: number, to: number): number {
    const words = this.#ram.words;
    const ring = this.#ram.offset(this.#txRing) >> 2;
    const size = this.#size;
    const ends = this.#txEnds;
    if (size - 1 - this.#txUsed < 2 * (to - from)) this.#reap();
    let room = size - 1 - this.#txUsed;
    let tail = this.#txTail;
    let i = from;
    for (; i < to && room >= 2; i++) {
      const length = batch.length[i];
      const csumStart = batch.csumStart[i];
      let command = CMD_EOP | CMD_IFCS | CMD_RS | CMD_DEXT | DATA_TYPE;
      let options = 0;
      if (csumStart !== 0) {
        const segment = batch.segment[i];
        const a =
          csumStart |
          ((csumStart + batch.csumOffset[i]) << 8) |
          (segment << 16) |
          (batch.headerBytes[i] << 20);
        const b =
          segment === SEGMENT_NONE ? 0 : (length - batch.headerBytes[i]) * 65536 + batch.segmentBytes[i];
        if (a !== this.#contextA || b !== this.#contextB) {
          this.#contextA = a;
          this.#contextB = b;
          this.#context(batch, i, ring + 4 * tail);
          ends[tail] = 0;
          tail = tail + 1 === size ? 0 : tail + 1;
          room--;
        }
        options = POPTS_TXSM;
        if (segment !== SEGMENT_NONE) {
          command |= CMD_TSE;
          if (segment === SEGMENT_TCP4) options |= POPTS_IXSM;
        }
      }
      const tci = batch.vlanTci[i];
      if (tci >= 0) {
        command |= CMD_VLE;
        options |= tci << 16;
      }
      const address = batch.address[i];
      const at = ring + 4 * tail;
      words[at] = address;
      words[at + 1] = address / 4294967296;
      words[at + 2] = command | Math.min(length, PACKET_MAX_BYTES);
      words[at + 3] = options;
      ends[tail] = 1;
      tail = tail + 1 === size ? 0 : tail + 1;
      room--;
    }
    if (i > from) {
      this.#txUsed = size - 1 - room;
      this.#txTail = tail;
      this.#put(TDBAL + RING_TAIL, tail);
    }
    if (i < to) {
      this.#refused = true;
      if (!this.#poll.armed) this.#poll.armIn(SEND_POLL_NS);
    }
    return i - from;
  }

  /** Writes a context descriptor for packet `i` at word `at`. */
  #context(batch: PacketBatch, i: number, at: number): void {
    const words = this.#ram.words;
    const start = batch.csumStart[i];
    const segment = batch.segment[i];
    // Where the IP header starts is only needed to segment; it ends where TCP starts.
    const ipBytes = segment === SEGMENT_TCP4 ? 20 : 40;
    const ip = segment === SEGMENT_NONE ? 14 : start - ipBytes;
    words[at] = ip | ((ip + 10) << 8) | ((start - 1) << 16);
    words[at + 1] = start | ((start + batch.csumOffset[i]) << 8);
    let command = CMD_DEXT | TUCMD_TCP;
    let length = 0;
    if (segment !== SEGMENT_NONE) {
      command |= CMD_TSE | (segment === SEGMENT_TCP4 ? TUCMD_IPV4 : 0);
      length = batch.length[i] - batch.headerBytes[i];
      words[at + 3] = (batch.headerBytes[i] << 8) | (batch.segmentBytes[i] << 16);
    } else {
      words[at + 3] = 0;
    }
    words[at + 2] = command | length;
  }

  /** Looks for descriptors that the NIC is done with. */
  #reap(): boolean {
    const words = this.#ram.words;
    const ring = this.#ram.offset(this.#txRing) >> 2;
    const size = this.#size;
    const ends = this.#txEnds;
    let clean = this.#txClean;
    let used = this.#txUsed;
    let packets = 0;
    for (;;) {
      // A packet ends at the next descriptor with DD; contexts before it are done with it.
      let at = clean;
      let span = 1;
      while (span <= used && ends[at] === 0) {
        at = at + 1 === size ? 0 : at + 1;
        span++;
      }
      if (span > used || (words[ring + 4 * at + 3] & DD) === 0) break;
      clean = at + 1 === size ? 0 : at + 1;
      used -= span;
      packets++;
    }
    if (packets === 0) {
      if (this.#refused && this.#open && !this.#poll.armed) this.#poll.armIn(SEND_POLL_NS);
      return false;
    }
    this.#txClean = clean;
    this.#txUsed = used;
    this.listener.sent(packets);
    if (this.#refused && this.room > 0) {
      this.#refused = false;
      this.#poll.cancel();
      this.listener.sendReady?.();
    }
    return true;
  }

  interrupt(): boolean {
    if (!this.#open) return false;
    const causes = this.#get(ICR);
    if ((causes & INT_LSC) !== 0) this.#checkLink();
    const sent = this.#reap();
    const received = this.#receive();
    return causes !== 0 || sent || received;
  }

  #checkLink(): void {
    const up = (this.#get(STATUS) & STATUS_LU) !== 0;
    if (up === this.linkUp) return;
    this.linkUp = up;
    this.listener.linkChanged?.(up);
  }

  #receive(): boolean {
    const words = this.#ram.words;
    const ring = this.#ram.offset(this.#rxRing) >> 2;
    const size = this.#size;
    const listener = this.listener;
    let next = this.#rxNext;
    let seen = 0;
    // One lap at most: what comes meanwhile raises its own interrupt.
    while (seen < size) {
      const at = ring + 4 * next;
      const status = words[at + 3];
      if ((status & DD) === 0) break;
      if ((status & RX_EOP) !== 0 && (status & RX_ERRORS) === 0) {
        const length = words[at + 2] & 0xffff;
        let flags = 0;
        if ((status & (RX_TCPE | RX_IPE)) !== 0) flags |= RX_CSUM_BAD;
        else if ((status & (RX_IXSM | RX_TCPCS)) === RX_TCPCS) flags |= RX_CSUM_OK;
        if ((status & RX_VP) !== 0) flags |= RX_VLAN;
        listener.received(this.#rxBuffers + next * this.#bufferBytes, length, flags, status >>> 16);
        if (!this.#open) return true;
      }
      words[at + 2] = 0;
      words[at + 3] = 0;
      next = next + 1 === size ? 0 : next + 1;
      seen++;
    }
    if (seen === 0) return false;
    this.#rxNext = next;
    this.#put(RDBAL + RING_TAIL, next === 0 ? size - 1 : next - 1);
    listener.receivedAll?.();
    return true;
  }
}

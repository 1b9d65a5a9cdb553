/**
 * `strict=on`: what a driver of the rtl8139 does against the datasheets of the 8139C and 8139C+. Looks at each register write before it is carried out, at
 * the C+ transmit descriptors that a doorbell hands over before the chip fetches them, and at the next receive descriptor when frames come; so the data path
 * knows nothing of it. Sections are the datasheets' headings.
 */

import { DMA_READ, DMA_WRITE } from '../../pci/guest-memory.ts';
import type { DriverReport } from '../driver-report.ts';
import { FRAME_MIN_BYTES } from '../frame-size.ts';
import type { Chip } from './chip.ts';
import {
  CAPR,
  CBR,
  CPCR,
  CPCR_RX,
  CPCR_TX,
  CR,
  CR_RE,
  CR_TE,
  DESCRIPTOR_BYTES,
  DTCCR,
  DTCCR_DUMP,
  IMR,
  MAR,
  RBSTART,
  RCR,
  RCR_RBLEN_SHIFT,
  RDSAR,
  RING_MAX,
  TCR,
  THPDS,
  TNPDS,
  TPPOLL,
  TPPOLL_HPQ,
  TPPOLL_NPQ,
  TSAD,
  TSD,
  TSD_OWN,
  TSD_SIZE,
} from './registers.ts';
import type { Receiver } from './rx.ts';
import { RX_SIZE } from './rx-ring.ts';
import { FROM_HIGH, FROM_NORMAL, type Transmitter } from './tx.ts';
import { TX_LGSEN, TX_MSS, TX_MSS_SHIFT } from './tx-offload.ts';
import { TX_EOR, TX_FS, TX_LENGTH, TX_LS } from './tx-ring.ts';

export const RTL8139_RULES = {
  'address-width': ['IDR, MAR', '8139C "ID Registers"', 'IDR and MAR are written in 4 bytes only'],
  locked: [
    'CONFIG',
    '8139C "9346CR: Command Register"',
    'a locked register was written while EEM was not 11',
  ],
  'reserved-bits': [
    'CR, IMR, TCR, RCR, CPCR',
    '8139C, 8139C+ "Register Descriptions"',
    'a reserved bit was set',
  ],
  'loopback-mode': [
    'TCR.LBK',
    '8139C "Transmit Configuration Register"',
    'loopback modes 01 and 10 are reserved',
  ],
  'tx-before-enable': ['TSD', '8139C "Command Register"', 'a buffer was handed over before CR.TE was set'],
  'poll-before-enable': [
    'TPPoll',
    '8139C+ "Command Register"',
    'descriptors were handed over before CR.TE was set',
  ],
  'tx-without-master': [
    'TSD, TPPoll',
    '8139C "PCI Configuration Space"',
    'a doorbell without PCI bus mastering',
  ],
  'tx-size': ['TSD.SIZE', '8139C "Transmit Status Register"', 'a buffer is longer than 1792 bytes'],
  'tx-unpadded': [
    'TSD.SIZE',
    '8139C "Transmit Status Register"',
    'a frame is shorter than 60 bytes: this chip does not pad',
  ],
  'tx-order': ['TSD', '8139C "Transmit Operation"', 'the four descriptors were not used in turn'],
  'tx-reuse': [
    'TSD',
    '8139C "Transmit Status Register"',
    'a descriptor that the chip still owned was written',
  ],
  'tx-address': ['TSAD', '8139C "Transmit Start Address"', 'a buffer to send from is not RAM'],
  'tx-alignment': ['TSAD', '8139C "Transmit Start Address"', 'the address is no multiple of 4'],
  'mode-classic': [
    'TSD',
    '8139C+ "C+ Command Register"',
    'a classic descriptor was used while C+ transmit was on',
  ],
  'mode-plus': ['TPPoll', '8139C+ "C+ Command Register"', 'TPPoll was written while C+ transmit was off'],
  'rx-buffer': [
    'RBSTART',
    '8139C "Command Register"',
    'the receiver was switched on with a buffer that is not RAM',
  ],
  'rx-pointer': [
    'CAPR',
    '8139C "Current Address of Packet Read"',
    'the read pointer passed what was received',
  ],
  'rx-pointer-alignment': [
    'CAPR',
    '8139C "Current Address of Packet Read"',
    'the read pointer is no multiple of 4',
  ],
  'ring-alignment': [
    'TNPDS, THPDS, RDSAR',
    '8139C+ "Descriptor Start Address"',
    "a ring's address is no multiple of 256",
  ],
  'tally-alignment': ['DTCCR', '8139C+ "Dump Tally Counter Command"', 'the address is no multiple of 64'],
  'tx-ring-moved': [
    'TNPDS, THPDS',
    '8139C+ "Transmit Descriptors"',
    'a transmit ring was moved while the transmitter was on',
  ],
  'rx-ring-moved': [
    'RDSAR',
    '8139C+ "Receive Descriptors"',
    'the receive ring was moved while the receiver was on',
  ],
  'tx-ring-address': ['TNPDS, THPDS', '8139C+ "Transmit Descriptors"', 'a transmit ring does not lie in RAM'],
  'tx-ring-end': ['TxDesc.EOR', '8139C+ "Transmit Descriptors"', 'no descriptor of the ring has EOR'],
  'tx-first': [
    'TxDesc.FS',
    '8139C+ "Transmit Descriptors"',
    'FS stands within a frame, or a frame begins without it',
  ],
  'tx-segment-size': ['TxDesc.MSS', '8139C+ "Large Send"', 'LGSEN with an MSS of 0'],
  'tx-descriptor-address': ['TxDesc', '8139C+ "Transmit Descriptors"', 'a buffer to send from is not RAM'],
  'tx-empty': ['TxDesc', '8139C+ "Transmit Descriptors"', 'a descriptor has no bytes'],
  'rx-ring-address': ['RDSAR', '8139C+ "Receive Descriptors"', 'the receive ring does not lie in RAM'],
  'rx-descriptor-address': ['RxDesc', '8139C+ "Receive Descriptors"', 'a receive buffer is not RAM'],
  'rx-descriptor-size': [
    'RxDesc',
    '8139C+ "Receive Descriptors"',
    "a receive buffer's size is 0 or no multiple of 8",
  ],
} as const;

export type Rtl8139Rule = keyof typeof RTL8139_RULES;

const DESCRIPTORS = 4;
const BUFFER_MAX_BYTES = 1792;
const CAPR_OFFSET = 16;
const RING_ALIGN = 256;
const TALLY_ALIGN = 64;
/** Reserved bits by register; what drivers write back as they have read it (TCR's version) is none. */
const RESERVED: ReadonlyMap<number, number> = new Map([
  [CR, 0xe2],
  [IMR, 0x1e00],
  [TCR, 0x0030f80e],
  [RCR, 0xf0fc0040],
  [CPCR, 0xfd84],
]);
const TCR_LBK_SHIFT = 17;

const OWN = 1 << 31;

export class Rtl8139Strict {
  readonly #chip: Chip;
  readonly #tx: Transmitter;
  readonly #rx: Receiver;
  readonly #report: DriverReport<Rtl8139Rule>;
  readonly #descriptor = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #words = new Int32Array(this.#descriptor.buffer);
  /** The classic descriptor whose turn it is; -1: whichever comes first. */
  #turn = -1;

  constructor(chip: Chip, tx: Transmitter, rx: Receiver, report: DriverReport<Rtl8139Rule>) {
    this.#chip = chip;
    this.#tx = tx;
    this.#rx = rx;
    this.#report = report;
  }

  reset(): void {
    this.#turn = -1;
  }

  #must(holds: boolean, rule: Rtl8139Rule, value: number): void {
    if (!holds) this.#report.broken(rule, value >>> 0);
  }

  /** A write to a locked register was ignored. */
  locked(register: number): void {
    this.#report.broken('locked', register);
  }

  /** The bytes `lanes` of a register are about to be written as in `value`. */
  write(register: number, value: number, lanes: number): void {
    const { bytes } = this.#chip;
    const reserved = RESERVED.get(register);
    if (reserved !== undefined) this.#must((value & lanes & reserved) === 0, 'reserved-bits', value & lanes);
    if (register < MAR + 8) {
      this.#must(lanes >>> 0 === 0xffffffff, 'address-width', register);
      return;
    }
    const plus = (bytes[CPCR] & CPCR_TX) !== 0;
    const whole = lanes >>> 0 === 0xffffffff;
    if (register >= TSD && register < TSD + 4 * DESCRIPTORS) {
      if ((bytes[CPCR] & (CPCR_TX | CPCR_RX)) === 0) this.#classic((register - TSD) >> 2, value, lanes);
      else if (register >= DTCCR + 8) this.#report.broken('mode-classic', register);
      else if (register === DTCCR && whole)
        this.#must((value & (TALLY_ALIGN - 1) & ~DTCCR_DUMP) === 0, 'tally-alignment', value);
      return;
    }
    if (register >= TSAD && register < TSAD + 4 * DESCRIPTORS) {
      if (plus) this.#txRing(register, value, lanes);
      else if ((bytes[CPCR] & CPCR_RX) === 0 && whole) this.#must((value & 3) === 0, 'tx-alignment', value);
      return;
    }
    switch (register) {
      case CR:
        this.#command(value & lanes);
        return;
      case TCR:
        if ((lanes & (3 << TCR_LBK_SHIFT)) !== 0)
          this.#must([0, 3].includes((value >>> TCR_LBK_SHIFT) & 3), 'loopback-mode', value);
        return;
      case CAPR:
        if ((lanes & 0xffff) === 0xffff) this.#readPointer(value & 0xffff);
        return;
      case RDSAR:
      case RDSAR + 4: {
        const moved = this.#moved(register, value, lanes);
        const live = (bytes[CR] & CR_RE) !== 0 && (bytes[CPCR] & CPCR_RX) !== 0;
        this.#must(!moved || !live, 'rx-ring-moved', value);
        if (register === RDSAR) this.#must((value & lanes & (RING_ALIGN - 1)) === 0, 'ring-alignment', value);
        return;
      }
      case TPPOLL:
        if ((value & (TPPOLL_NPQ | TPPOLL_HPQ)) !== 0) this.#poll(value, plus);
        return;
    }
  }

  /** Whether a ring's address is written that had another one; drivers may place a ring after CR was written. */
  #moved(register: number, value: number, lanes: number): boolean {
    const before = this.#chip.words[register >> 2];
    return before !== 0 && ((before ^ value) & lanes) !== 0;
  }

  #command(value: number): void {
    const { bytes, halves, words, memory } = this.#chip;
    const risesRx = (value & CR_RE) !== 0 && (bytes[CR] & CR_RE) === 0;
    // The 8139's buffer may be placed after RE is set; a place of nothing is no buffer yet.
    if (!risesRx || (halves[CPCR >> 1] & CPCR_RX) !== 0 || words[RBSTART >> 2] === 0) return;
    const length = 8192 << ((words[RCR >> 2] >>> RCR_RBLEN_SHIFT) & 3);
    this.#must(memory.covers(words[RBSTART >> 2] >>> 0, length, DMA_WRITE), 'rx-buffer', words[RBSTART >> 2]);
  }

  // The classic model.

  #classic(index: number, value: number, lanes: number): void {
    const { bytes, words, memory, dmaEnabled } = this.#chip;
    const whole = (words[(TSD >> 2) + index] & ~lanes) | (value & lanes);
    if ((whole & TSD_OWN) !== 0) return;
    this.#must((bytes[CR] & CR_TE) !== 0, 'tx-before-enable', index);
    this.#must(dmaEnabled, 'tx-without-master', index);
    this.#must((words[(TSD >> 2) + index] & TSD_OWN) !== 0, 'tx-reuse', index);
    // Descriptor 0 is the first after reset and after CR.TE was set; later starts go on from where the chip stands.
    this.#must(this.#turn < 0 || index === this.#turn, 'tx-order', index);
    this.#turn = (index + 1) % DESCRIPTORS;
    const size = whole & TSD_SIZE;
    this.#must(size <= BUFFER_MAX_BYTES, 'tx-size', size);
    this.#must(size >= FRAME_MIN_BYTES, 'tx-unpadded', size);
    const address = words[(TSAD >> 2) + index] >>> 0;
    this.#must(memory.covers(address, Math.max(size, 1), DMA_READ), 'tx-address', address);
  }

  #readPointer(value: number): void {
    const { halves, words } = this.#chip;
    this.#must((value & 3) === 0, 'rx-pointer-alignment', value);
    const mask = (8192 << ((words[RCR >> 2] >>> RCR_RBLEN_SHIFT) & 3)) - 1;
    const before = (halves[CBR >> 1] - halves[CAPR >> 1] - CAPR_OFFSET) & mask;
    const after = (halves[CBR >> 1] - value - CAPR_OFFSET) & mask;
    this.#must(after <= before, 'rx-pointer', value);
  }

  // C+.

  #txRing(register: number, value: number, lanes: number): void {
    const { bytes } = this.#chip;
    const moved = this.#moved(register, value, lanes);
    this.#must(!moved || (bytes[CR] & CR_TE) === 0, 'tx-ring-moved', value);
    if (register === TNPDS || register === THPDS)
      this.#must((value & lanes & (RING_ALIGN - 1)) === 0, 'ring-alignment', value);
  }

  #poll(value: number, plus: boolean): void {
    const { bytes, dmaEnabled } = this.#chip;
    this.#must(plus, 'mode-plus', value);
    if (!plus) return;
    this.#must((bytes[CR] & CR_TE) !== 0, 'poll-before-enable', value);
    this.#must(dmaEnabled, 'tx-without-master', value);
    if ((value & TPPOLL_NPQ) !== 0) this.#walk(TNPDS, FROM_NORMAL);
    if ((value & TPPOLL_HPQ) !== 0) this.#walk(THPDS, FROM_HIGH);
  }

  #fetch(base: number, index: number): boolean {
    const { words, memory } = this.#chip;
    const low = (words[base >> 2] & ~(DESCRIPTOR_BYTES - 1)) >>> 0;
    const address = (words[(base + 4) >> 2] >>> 0) * 2 ** 32 + low + DESCRIPTOR_BYTES * index;
    return memory.read(address, this.#descriptor, 0, DESCRIPTOR_BYTES);
  }

  #address(): number {
    return (this.#words[3] >>> 0) * 4294967296 + (this.#words[2] >>> 0);
  }

  /** The descriptors that are the chip's, from the one that it fetches next. */
  #walk(base: number, ring: number): void {
    const words = this.#words;
    let index = this.#tx.ringIndex(ring);
    // A frame that the chip has begun to collect goes on here.
    let inFrame: boolean | null = null;
    let ended = false;
    let i = 0;
    for (; i < RING_MAX; i++) {
      if (!this.#fetch(base, index)) {
        this.#report.broken('tx-ring-address', index);
        return;
      }
      const command = words[0];
      if ((command & OWN) === 0) return;
      const begins = (command & TX_FS) !== 0;
      this.#must(inFrame === null || begins !== inFrame, 'tx-first', index);
      inFrame = (command & TX_LS) === 0;
      const length = command & TX_LENGTH;
      this.#must(length !== 0, 'tx-empty', index);
      if (length !== 0)
        this.#must(
          this.#chip.memory.covers(this.#address(), length, DMA_READ),
          'tx-descriptor-address',
          index,
        );
      const segments = begins && (command & TX_LGSEN) !== 0;
      this.#must(!segments || ((command >>> TX_MSS_SHIFT) & TX_MSS) !== 0, 'tx-segment-size', index);
      ended ||= (command & TX_EOR) !== 0;
      index = (command & TX_EOR) !== 0 ? 0 : (index + 1) % RING_MAX;
    }
    this.#must(ended, 'tx-ring-end', index);
  }

  /** Frames come: the next receive descriptor, if it is the chip's. */
  receive(): void {
    const { bytes, memory } = this.#chip;
    const rxIndex = this.#rx.ringIndex;
    if ((bytes[CR] & CR_RE) === 0 || (bytes[CPCR] & CPCR_RX) === 0) return;
    if (!this.#fetch(RDSAR, rxIndex)) {
      this.#report.broken('rx-ring-address', rxIndex);
      return;
    }
    if ((this.#words[0] & OWN) === 0) return;
    const size = this.#words[0] & RX_SIZE;
    this.#must(size !== 0 && size % 8 === 0, 'rx-descriptor-size', size);
    this.#must(
      memory.covers(this.#address(), Math.max(size, 1), DMA_WRITE),
      'rx-descriptor-address',
      rxIndex,
    );
  }
}

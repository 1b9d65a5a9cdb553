/**
 * `strict=on`: what a driver of the e1000 does against the 8254x manual. Looks at each register write before it is carried out, and at the descriptors
 * that a doorbell hands over, in guest RAM, before the chip fetches them; so the data path knows nothing of it.
 *
 * Not looked at: registers that take anything (addresses, tables, timers), and receive descriptors' contents beyond what the chip needs.
 */

import { DMA_READ, DMA_WRITE, type GuestMemory } from '../../pci/guest-memory.ts';
import type { DriverReport } from '../driver-report.ts';
import { FRAME_MIN_BYTES } from '../frame-size.ts';
import {
  CTRL,
  CTRL_FRCSPD,
  CTRL_RST,
  CTRL_SPEED_SHIFT,
  CTRL_VME,
  DESCRIPTOR_BYTES,
  IMS,
  MDIC,
  RAH,
  RAL,
  RCTL,
  RCTL_BSEX,
  RCTL_BSIZE_SHIFT,
  RCTL_EN,
  RCTL_LBM_SHIFT,
  RCTL_RDMTS_SHIFT,
  RDBAH,
  RDBAL,
  RDH,
  RDLEN,
  RDT,
  RECEIVE_ADDRESSES,
  RXCSUM,
  TCTL,
  TCTL_EN,
  TCTL_PSP,
  TDBAH,
  TDBAL,
  TDH,
  TDLEN,
  TDT,
  VET,
} from './registers.ts';
import { CMD_DEXT, CMD_EOP, CMD_TSE_OR_IC, CMD_VLE, POPTS, TYPE_DATA, TYPE_SHIFT } from './tx.ts';

export const E1000_RULES = {
  'ring-length': ['TDLEN, RDLEN', '8254x 13.4.38, 13.4.27', "a ring's length is no multiple of 128 bytes"],
  'ring-base': ['TDBAL, RDBAL', '8254x 13.4.36, 13.4.25', "a ring's address is no multiple of 16"],
  'ring-moved': [
    'TDBAL, TDBAH, TDLEN, TDH',
    '8254x 14.5',
    'the transmit ring was moved while the transmitter was on',
  ],
  'rx-ring-moved': [
    'RDBAL, RDBAH, RDLEN, RDH',
    '8254x 14.4',
    'the receive ring was moved while the receiver was on',
  ],
  'tail-past-ring': ['TDT', '8254x 13.4.40', 'the transmit tail is past the end of the ring'],
  'rx-tail-past-ring': ['RDT', '8254x 13.4.29', 'the receive tail is past the end of the ring'],
  'doorbell-before-enable': ['TDT', '8254x 14.5', 'descriptors were handed over before TCTL.EN was set'],
  'doorbell-without-master': ['TDT', '8254x 4.1.1', 'descriptors were handed over without PCI bus mastering'],
  'enable-without-ring': ['TCTL', '8254x 14.5', 'the transmitter was switched on before it had a ring'],
  'rx-enable-without-ring': ['RCTL', '8254x 14.4', 'the receiver was switched on before it had a ring'],
  'reserved-bits': ['RCTL, TCTL, IMS, RXCSUM, RAH, VET and rings', '8254x 13.4', 'a reserved bit was set'],
  'buffer-size': ['RCTL.BSIZE', '8254x 13.4.22', 'BSIZE 00b with BSEX is reserved'],
  'loopback-mode': ['RCTL.LBM', '8254x 13.4.22', 'loopback modes 01b and 10b are reserved'],
  'rx-threshold': ['RCTL.RDMTS', '8254x 13.4.22', 'RDMTS 11b is reserved'],
  'address-select': ['RAH.AS', '8254x 13.5.3', 'address selections 10b and 11b are reserved'],
  'speed-select': ['CTRL.SPEED', '8254x 13.4.1', 'speed 11b is reserved'],
  'phy-operation': ['MDIC.OP', '8254x 13.4.7', 'the operation is neither a read nor a write'],
  'access-width': ['any', '8254x 13.2', 'a register was written in less than 32 bits'],
  'tail-past-head': ['TDT', '8254x 3.4', 'descriptors that the chip still owned were handed over again'],
  'rx-tail-past-head': [
    'RDT',
    '8254x 3.2.6',
    'receive descriptors that the chip still owned were handed over',
  ],
  'dd-set': ['TDESC.STA', '8254x 3.3.3.2', 'a descriptor was handed over with status bits set'],
  'rx-dd-set': ['RDESC.STA', '8254x 3.2.3.1', 'a receive descriptor was handed over with status bits set'],
  'descriptor-reserved': ['TDESC', '8254x 3.3.3, 3.3.6, 3.3.7', 'a reserved bit of a descriptor was set'],
  'descriptor-type': ['TDESC.DTYP', '8254x 3.3.7', 'the descriptor type does not exist'],
  'descriptor-address': ['TDESC', '8254x 3.3.3', 'a buffer to send from is not RAM'],
  'rx-descriptor-address': ['RDESC', '8254x 3.2.3', 'a receive buffer is not RAM'],
  'ring-address': ['TDBAL, RDBAL', '8254x 3.2.6, 3.4', 'a ring does not lie in RAM'],
  'frame-too-long': ['TDESC', '8254x 3.3.3', 'a frame without segmentation is longer than 16288 bytes'],
  'frame-empty': ['TDESC', '8254x 3.3.3', 'a frame has no bytes'],
  'frame-unpadded': ['TCTL.PSP', '8254x 13.4.33', 'a frame is shorter than 60 bytes and PSP is off'],
  'tag-without-vme': ['TDESC.VLE', '8254x 9.2', 'VLE has no effect while CTRL.VME is 0'],
  'no-context': ['TDESC', '8254x 3.3.6', 'an offload was asked for before any context was given'],
  'context-in-frame': ['TDESC', '8254x 3.3.6', 'a context descriptor stands between the parts of a frame'],
  'context-offsets': [
    'TDESC',
    '8254x 3.3.6',
    'a checksum is stored before its range, or the range ends first',
  ],
  'tso-context': ['TDESC.TSE', '8254x 3.5', 'a segmentation has no MSS, no header length or no such context'],
} as const;

export type E1000Rule = keyof typeof E1000_RULES;

const RING_LENGTH_BYTES = 128;
const PLAIN_MAX_BYTES = 16_288;
/** Descriptors of one doorbell that are looked at. */
const LOOKED_MAX = 65_536;
const RAH_AS_HIGH = 1 << 17;
const MDIC_OP_SHIFT = 26;

/** Reserved bits by register. */
const RESERVED: ReadonlyMap<number, number> = new Map([
  [RCTL, 0xf9204c01],
  [TCTL, 0xfc800005],
  [IMS, 0xfffe0120],
  [RXCSUM, 0xfffffc00],
  [VET, 0xffff0000],
  [TDLEN, 0xfff00000],
  [RDLEN, 0xfff00000],
  [TDT, 0xffff0000],
  [RDT, 0xffff0000],
  [TDH, 0xffff0000],
  [RDH, 0xffff0000],
]);
const RAH_RESERVED = 0x7ffc0000;

/** RPS, which only the 82544GC has. */
const CMD_RESERVED = 1 << 28;
const STATUS = 0x0f;
const STATUS_RESERVED = 0xf0;
const POPTS_RESERVED = 0xfc00;

export class E1000Strict {
  readonly #regs: Int32Array;
  readonly #memory: GuestMemory;
  readonly #report: DriverReport<E1000Rule>;
  readonly #dmaEnabled: () => boolean;
  readonly #descriptor = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #words = new Int32Array(this.#descriptor.buffer);
  /** The frame that the next descriptor goes on with: its bytes, and what its first descriptor said. */
  #inFrame = false;
  #bytes = 0;
  #segmented = false;
  #offloads = false;
  #hasContext = false;
  #hasSegmentContext = false;

  constructor(
    regs: Int32Array,
    memory: GuestMemory,
    report: DriverReport<E1000Rule>,
    dmaEnabled: () => boolean,
  ) {
    this.#regs = regs;
    this.#memory = memory;
    this.#report = report;
    this.#dmaEnabled = dmaEnabled;
  }

  reset(): void {
    this.#inFrame = false;
    this.#hasContext = false;
    this.#hasSegmentContext = false;
  }

  /** A write of 8 or 16 bits. */
  narrow(offset: number): void {
    this.#report.broken('access-width', offset);
  }

  #must(holds: boolean, rule: E1000Rule, value: number): void {
    if (!holds) this.#report.broken(rule, value >>> 0);
  }

  /** `value` is about to be written to the register at `target`. */
  write(target: number, value: number): void {
    const regs = this.#regs;
    const reserved = RESERVED.get(target);
    if (reserved !== undefined) this.#must((value & reserved) === 0, 'reserved-bits', value);
    switch (target) {
      case TDT:
        this.#transmit(value & 0xffff);
        return;
      case RDT:
        this.#receive(value & 0xffff);
        return;
      case TDH:
        this.reset();
        this.#ringMoved(target, value);
        return;
      case TDLEN:
      case RDLEN:
        this.#must(value % RING_LENGTH_BYTES === 0, 'ring-length', value);
        this.#ringMoved(target, value);
        return;
      case TDBAL:
      case RDBAL:
        this.#must(value % DESCRIPTOR_BYTES === 0, 'ring-base', value);
        this.#ringMoved(target, value);
        return;
      case TDBAH:
      case RDBAH:
      case RDH:
        this.#ringMoved(target, value);
        return;
      case TCTL:
        this.#must((value & TCTL_EN) === 0 || regs[TDLEN >> 2] !== 0, 'enable-without-ring', value);
        return;
      case RCTL:
        this.#must((value & RCTL_EN) === 0 || regs[RDLEN >> 2] !== 0, 'rx-enable-without-ring', value);
        this.#must(
          (value & RCTL_BSEX) === 0 || ((value >>> RCTL_BSIZE_SHIFT) & 3) !== 0,
          'buffer-size',
          value,
        );
        this.#must([0, 3].includes((value >>> RCTL_LBM_SHIFT) & 3), 'loopback-mode', value);
        this.#must(((value >>> RCTL_RDMTS_SHIFT) & 3) !== 3, 'rx-threshold', value);
        return;
      case CTRL:
        this.#must(
          (value & CTRL_RST) !== 0 || (value & CTRL_FRCSPD) === 0 || ((value >>> CTRL_SPEED_SHIFT) & 3) !== 3,
          'speed-select',
          value,
        );
        return;
      case MDIC:
        this.#must([1, 2].includes((value >>> MDIC_OP_SHIFT) & 3), 'phy-operation', value);
        return;
    }
    if (target >= RAL && target < RAL + 8 * RECEIVE_ADDRESSES && (target & 4) === (RAH & 4)) {
      this.#must((value & RAH_RESERVED) === 0, 'reserved-bits', value);
      this.#must((value & RAH_AS_HIGH) === 0, 'address-select', value);
    }
  }

  /** A register of a ring is written; the same value again moves nothing. */
  #ringMoved(target: number, value: number): void {
    const regs = this.#regs;
    if (regs[target >> 2] === value) return;
    if (target < TDBAL) this.#must((regs[RCTL >> 2] & RCTL_EN) === 0, 'rx-ring-moved', value);
    else this.#must((regs[TCTL >> 2] & TCTL_EN) === 0, 'ring-moved', value);
  }

  /** Reads descriptor `index` of the ring whose base register is `base`; false, and told of, when it is not in RAM. */
  #fetch(base: number, index: number): boolean {
    const regs = this.#regs;
    const address =
      (regs[(base + 4) >> 2] >>> 0) * 2 ** 32 + (regs[base >> 2] >>> 0) + DESCRIPTOR_BYTES * index;
    const there = this.#memory.read(address, this.#descriptor, 0, DESCRIPTOR_BYTES);
    this.#must(there, 'ring-address', index);
    return there;
  }

  #address(): number {
    return (this.#words[1] >>> 0) * 4294967296 + (this.#words[0] >>> 0);
  }

  // Transmit.

  #transmit(tail: number): void {
    const regs = this.#regs;
    const count = regs[TDLEN >> 2] >>> 4;
    const head = regs[TDH >> 2];
    const before = regs[TDT >> 2];
    if (tail !== before) {
      this.#must((regs[TCTL >> 2] & TCTL_EN) !== 0, 'doorbell-before-enable', tail);
      this.#must(this.#dmaEnabled(), 'doorbell-without-master', tail);
    }
    // Before there is a ring, only the start of one can be meant.
    this.#must(tail < count || tail === 0, 'tail-past-ring', tail);
    if (tail >= count || before >= count || head >= count) return;
    const added = (tail - before + count) % count;
    const owned = (before - head + count) % count;
    this.#must(owned + added < count, 'tail-past-head', tail);
    if ((regs[TCTL >> 2] & TCTL_EN) === 0) return;
    for (let i = 0; i < added && i < LOOKED_MAX; i++) {
      if (!this.#fetch(TDBAL, (before + i) % count)) return;
      this.#descriptorGiven();
    }
  }

  #descriptorGiven(): void {
    const words = this.#words;
    const command = words[2];
    const status = words[3];
    const extended = (command & CMD_DEXT) !== 0;
    const type = extended ? (command >>> TYPE_SHIFT) & 15 : TYPE_DATA;
    this.#must((status & STATUS) === 0, 'dd-set', status);
    this.#must(type <= TYPE_DATA, 'descriptor-type', type);
    if (type > TYPE_DATA) return;
    if (type !== TYPE_DATA) {
      this.#context();
      return;
    }
    const reservedStatus = extended ? STATUS_RESERVED | POPTS_RESERVED : STATUS_RESERVED;
    const clean = (status & reservedStatus) === 0 && (command & CMD_RESERVED) === 0;
    this.#must(clean, 'descriptor-reserved', clean ? 0 : command);
    const length = command & (extended ? 0xfffff : 0xffff);
    if (!this.#inFrame) {
      this.#inFrame = true;
      this.#bytes = 0;
      this.#segmented = extended && (command & CMD_TSE_OR_IC) !== 0;
      this.#offloads = extended && (status & POPTS) !== 0;
    }
    this.#bytes += length;
    if (length !== 0) {
      const there = this.#memory.covers(this.#address(), length, DMA_READ);
      this.#must(there, 'descriptor-address', length);
    }
    if ((command & CMD_EOP) === 0) return;
    this.#inFrame = false;
    this.#frame(command);
  }

  /** A frame's last descriptor. */
  #frame(command: number): void {
    const regs = this.#regs;
    const bytes = this.#bytes;
    this.#must(bytes !== 0, 'frame-empty', bytes);
    const tagged = (command & CMD_VLE) !== 0;
    this.#must(!tagged || (regs[CTRL >> 2] & CTRL_VME) !== 0, 'tag-without-vme', bytes);
    this.#must(!this.#offloads || this.#hasContext, 'no-context', bytes);
    if (this.#segmented) {
      this.#must(this.#hasSegmentContext, 'tso-context', bytes);
      return;
    }
    this.#must(bytes <= PLAIN_MAX_BYTES, 'frame-too-long', bytes);
    const padded = bytes >= FRAME_MIN_BYTES || (regs[TCTL >> 2] & TCTL_PSP) !== 0;
    this.#must(padded || bytes === 0, 'frame-unpadded', bytes);
  }

  #context(): void {
    const [ip, transport, command, status] = this.#words;
    this.#must(!this.#inFrame, 'context-in-frame', this.#bytes);
    const clean = (status & STATUS_RESERVED) === 0 && (command & CMD_RESERVED) === 0;
    this.#must(clean, 'descriptor-reserved', clean ? 0 : command);
    for (const fields of [ip, transport]) {
      const start = fields & 0xff;
      const end = fields >>> 16;
      const inOrder = ((fields >>> 8) & 0xff) >= start && (end === 0 || end >= start);
      // A context for one checksum leaves the other's fields empty.
      this.#must(fields === 0 || inOrder, 'context-offsets', fields);
    }
    this.#hasContext = true;
    if ((command & CMD_TSE_OR_IC) === 0) return;
    const headerBytes = (status >>> 8) & 0xff;
    const complete = status >>> 16 !== 0 && headerBytes !== 0 && (command & 0xfffff) !== 0;
    this.#must(complete, 'tso-context', status);
    this.#hasSegmentContext = complete;
  }

  // Receive.

  #receive(tail: number): void {
    const regs = this.#regs;
    const count = regs[RDLEN >> 2] >>> 4;
    const head = regs[RDH >> 2];
    const before = regs[RDT >> 2];
    this.#must(tail < count || tail === 0, 'rx-tail-past-ring', tail);
    if (tail >= count || before >= count || head >= count) return;
    const added = (tail - before + count) % count;
    const owned = (before - head + count) % count;
    this.#must(owned + added < count, 'rx-tail-past-head', tail);
    const rctl = regs[RCTL >> 2];
    const size = 2048 >> ((rctl >>> RCTL_BSIZE_SHIFT) & 3);
    const bytes = (rctl & RCTL_EN) === 0 ? 1 : (rctl & RCTL_BSEX) !== 0 ? Math.min(16 * size, 16_384) : size;
    for (let i = 0; i < added; i++) {
      if (!this.#fetch(RDBAL, (before + i) % count)) return;
      this.#must((this.#words[3] & 0xff) === 0, 'rx-dd-set', this.#words[3]);
      const there = this.#memory.covers(this.#address(), bytes, DMA_WRITE);
      this.#must(there, 'rx-descriptor-address', (before + i) % count);
    }
  }
}

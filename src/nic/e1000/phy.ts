/**
 * The PHY behind MDIC: an 88E1011 (Marvell) as in the 82540EM, at MDIO address 1 (8254x manual, chapter 8; mii.ts for what every PHY has).
 *
 * Autonegotiation ends at 1 Gbit/s full duplex unless the driver offered less or forced a speed. Register 16 and up keep what is written,
 * where a driver only sets options.
 */

import type { Loop } from '../../core/loop.ts';
import {
  ANAR,
  ANER,
  ANLPAR,
  BMCR,
  BMCR_AUTONEG,
  BMCR_DUPLEX,
  BMCR_SPEED_HIGH,
  BMCR_SPEED_LOW,
  BMSR,
  ID_1,
  ID_2,
  type MiiKind,
  MiiPhy,
} from '../mii.ts';

export { NEGOTIATION_NS } from '../mii.ts';

const PHY_ADDRESS = 1;
const GIGABIT_CONTROL = 9;
const GIGABIT_STATUS = 10;
const EXTENDED_STATUS = 15;
const M88_STATUS = 17;
const M88_INTERRUPT_STATUS = 19;
const M88_LINK = 1 << 10;
const M88_RESOLVED = 1 << 11;
const M88_DUPLEX = 1 << 13;
const M88_SPEED_SHIFT = 14;

const MDIC_READ = 2;
const MDIC_WRITE = 1;
const MDIC_READY = 1 << 28;
const MDIC_INTERRUPT = 1 << 29;
const MDIC_ERROR = 1 << 30;

const KIND: MiiKind = {
  reset: [
    [BMCR, 0x1140],
    [BMSR, 0x7949],
    [ID_1, 0x0141],
    [ID_2, 0x0c20],
    [ANAR, 0x0de1],
    [7, 0x2001],
    [GIGABIT_CONTROL, 0x0e00],
    [EXTENDED_STATUS, 0x3000],
    [16, 0x0360],
    [20, 0x0d60],
  ],
  readOnly: new Set([
    BMSR,
    ID_1,
    ID_2,
    ANLPAR,
    ANER,
    GIGABIT_STATUS,
    EXTENDED_STATUS,
    M88_STATUS,
    M88_INTERRUPT_STATUS,
    21,
  ]),
  partnerAbility: 0xcde1,
};
const PARTNER_GIGABIT = 0x3c00;

export class Phy extends MiiPhy {
  /** Speed as in CTRL and STATUS: 0, 1, 2 for 10, 100, 1000 Mbit/s. */
  speed = 2;
  fullDuplex = true;

  constructor(loop: Loop, changed: () => void) {
    super(KIND, loop, changed);
    this.reset();
  }

  protected override resolve(up: boolean, negotiated: boolean): void {
    const r = this.registers;
    const control = r[BMCR];
    if ((control & BMCR_AUTONEG) !== 0) {
      const gigabit = (r[GIGABIT_CONTROL] & 0x0300) !== 0;
      const hundred = (r[ANAR] & 0x0180) !== 0;
      this.speed = gigabit ? 2 : hundred ? 1 : 0;
      this.fullDuplex = gigabit
        ? (r[GIGABIT_CONTROL] & 0x0200) !== 0
        : (r[ANAR] & (hundred ? 0x0100 : 0x0040)) !== 0;
    } else {
      this.speed = (control & BMCR_SPEED_HIGH) !== 0 ? 2 : (control & BMCR_SPEED_LOW) !== 0 ? 1 : 0;
      this.fullDuplex = (control & BMCR_DUPLEX) !== 0;
    }
    r[GIGABIT_STATUS] = negotiated ? PARTNER_GIGABIT : 0;
    r[M88_STATUS] =
      (this.speed << M88_SPEED_SHIFT) |
      (this.fullDuplex ? M88_DUPLEX : 0) |
      M88_RESOLVED |
      (up ? M88_LINK : 0);
  }

  /** MDIC written: does it and returns MDIC's new value. */
  mdic(value: number): number {
    const operation = (value >>> 26) & 3;
    const register = (value >>> 16) & 31;
    const result = (value & ~(MDIC_READY | MDIC_ERROR)) | MDIC_READY;
    if (((value >>> 21) & 31) !== PHY_ADDRESS) return result | MDIC_ERROR;
    if (operation === MDIC_READ) return (result & ~0xffff) | this.#read(register);
    if (operation === MDIC_WRITE) {
      this.write(register, value & 0xffff);
      return result;
    }
    return result | MDIC_ERROR;
  }

  /** Whether the end of this MDIC operation is to raise MDAC. */
  wantsInterrupt(value: number): boolean {
    return (value & MDIC_INTERRUPT) !== 0;
  }

  #read(register: number): number {
    const value = this.registers[register];
    if (register === M88_INTERRUPT_STATUS) this.registers[register] = 0;
    return value;
  }
}

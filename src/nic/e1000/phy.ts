/**
 * The PHY behind MDIC: an 88E1011 (Marvell) as in the 82540EM, at MDIO address 1 (8254x manual, chapter 8; IEEE 802.3 clause 22 for registers 0..15).
 *
 * Its link follows the port's. Restarting autonegotiation takes the link down for NEGOTIATION_NS, then it comes back at 1 Gbit/s full
 * duplex, unless the driver forced a speed. MDIC operations end at once. Register 16 and up keep what is written, where a driver only sets options.
 */

import type { Loop, Timer } from '../../core/loop.ts';

const PHY_ADDRESS = 1;
const REGISTERS = 32;
/** Long enough that a driver that restarts negotiation and then enables interrupts does not miss the change. */
export const NEGOTIATION_NS = 100e6;

const BMCR = 0;
const BMSR = 1;
const ID_1 = 2;
const ID_2 = 3;
const ANAR = 4;
const ANLPAR = 5;
const ANER = 6;
const GIGABIT_STATUS = 10;
const EXTENDED_STATUS = 15;
const M88_STATUS = 17;
const M88_INTERRUPT_STATUS = 19;

const BMCR_RESET = 1 << 15;
const BMCR_LOOPBACK = 1 << 14;
const BMCR_SPEED_LOW = 1 << 13;
const BMCR_AUTONEG = 1 << 12;
const BMCR_POWER_DOWN = 1 << 11;
const BMCR_ISOLATE = 1 << 10;
const BMCR_RESTART = 1 << 9;
const BMCR_DUPLEX = 1 << 8;
const BMCR_SPEED_HIGH = 1 << 6;
const BMSR_LINK = 1 << 2;
const BMSR_NEGOTIATED = 1 << 5;
const M88_LINK = 1 << 10;
const M88_RESOLVED = 1 << 11;
const M88_DUPLEX = 1 << 13;
const M88_SPEED_SHIFT = 14;

const MDIC_READ = 2;
const MDIC_WRITE = 1;
const MDIC_READY = 1 << 28;
const MDIC_INTERRUPT = 1 << 29;
const MDIC_ERROR = 1 << 30;

/** Values after reset, of registers that are not zero. */
const RESET: readonly (readonly [number, number])[] = [
  [BMCR, 0x1140],
  [BMSR, 0x7949],
  [ID_1, 0x0141],
  [ID_2, 0x0c20],
  [ANAR, 0x0de1],
  [7, 0x2001],
  [9, 0x0e00],
  [EXTENDED_STATUS, 0x3000],
  [16, 0x0360],
  [20, 0x0d60],
];
const READ_ONLY = new Set([
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
]);
/** What a partner that can do everything answers. */
const PARTNER_ABILITY = 0xcde1;
const PARTNER_GIGABIT = 0x3c00;

export class Phy {
  readonly registers = new Uint16Array(REGISTERS);
  /** Speed as in CTRL and STATUS: 0, 1, 2 for 10, 100, 1000 Mbit/s. */
  speed = 2;
  fullDuplex = true;
  /** The cable is in and the other end is up. */
  #carrier = false;
  #negotiating = false;
  readonly #timer: Timer;
  readonly #loop: Loop;
  readonly #changed: () => void;

  /** `changed` is told when link, speed or duplex may have changed. */
  constructor(loop: Loop, changed: () => void) {
    this.#loop = loop;
    this.#changed = changed;
    this.#timer = loop.timer(() => {
      this.#negotiating = false;
      this.#resolve();
    });
    this.reset();
  }

  get link(): boolean {
    const control = this.registers[BMCR];
    if ((control & BMCR_LOOPBACK) !== 0) return true;
    return this.#carrier && !this.#negotiating && (control & (BMCR_POWER_DOWN | BMCR_ISOLATE)) === 0;
  }

  /** What is sent comes back (BMCR bit 14). */
  get loopback(): boolean {
    return (this.registers[BMCR] & BMCR_LOOPBACK) !== 0;
  }

  /** The port's link went up or down. */
  set carrier(up: boolean) {
    if (up === this.#carrier) return;
    this.#carrier = up;
    this.#resolve();
  }

  /** PHY reset: negotiation is done at once, as a machine finds it that was switched on before its driver came. */
  reset(): void {
    this.registers.fill(0);
    for (const [register, value] of RESET) this.registers[register] = value;
    this.#timer.cancel();
    this.#negotiating = false;
    this.#resolve();
  }

  close(): void {
    this.#timer.cancel();
  }

  #resolve(): void {
    const r = this.registers;
    const control = r[BMCR];
    const up = this.link;
    const negotiated = up && (control & BMCR_AUTONEG) !== 0;
    if ((control & BMCR_AUTONEG) !== 0) {
      const gigabit = (r[9] & 0x0300) !== 0;
      const hundred = (r[ANAR] & 0x0180) !== 0;
      this.speed = gigabit ? 2 : hundred ? 1 : 0;
      this.fullDuplex = gigabit ? (r[9] & 0x0200) !== 0 : (r[ANAR] & (hundred ? 0x0100 : 0x0040)) !== 0;
    } else {
      this.speed = (control & BMCR_SPEED_HIGH) !== 0 ? 2 : (control & BMCR_SPEED_LOW) !== 0 ? 1 : 0;
      this.fullDuplex = (control & BMCR_DUPLEX) !== 0;
    }
    r[BMSR] =
      (r[BMSR] & ~(BMSR_LINK | BMSR_NEGOTIATED)) | (up ? BMSR_LINK : 0) | (negotiated ? BMSR_NEGOTIATED : 0);
    r[ANLPAR] = negotiated ? PARTNER_ABILITY : 0;
    r[ANER] = negotiated ? 1 : 0;
    r[GIGABIT_STATUS] = negotiated ? PARTNER_GIGABIT : 0;
    r[M88_STATUS] =
      (this.speed << M88_SPEED_SHIFT) |
      (this.fullDuplex ? M88_DUPLEX : 0) |
      M88_RESOLVED |
      (up ? M88_LINK : 0);
    this.#changed();
  }

  /** MDIC written: does it and returns MDIC's new value. */
  mdic(value: number): number {
    const operation = (value >>> 26) & 3;
    const register = (value >>> 16) & 31;
    const result = (value & ~(MDIC_READY | MDIC_ERROR)) | MDIC_READY;
    if (((value >>> 21) & 31) !== PHY_ADDRESS) return result | MDIC_ERROR;
    if (operation === MDIC_READ) return (result & ~0xffff) | this.#read(register);
    if (operation === MDIC_WRITE) {
      this.#write(register, value & 0xffff);
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

  #write(register: number, value: number): void {
    if (READ_ONLY.has(register)) return;
    if (register !== BMCR) {
      this.registers[register] = value;
      return;
    }
    if ((value & BMCR_RESET) !== 0) {
      this.reset();
      return;
    }
    this.registers[BMCR] = value & ~BMCR_RESTART;
    if ((value & BMCR_RESTART) !== 0 && (value & BMCR_AUTONEG) !== 0) {
      this.#negotiating = true;
      this.#timer.armIn(NEGOTIATION_NS);
    } else if ((value & BMCR_AUTONEG) === 0) {
      this.#negotiating = false;
      this.#timer.cancel();
    }
    this.#resolve();
  }

  save(): { registers: number[]; negotiatingNs: number } {
    const left = this.#negotiating ? Math.max(0, this.#timer.deadlineNs - this.#loop.clock.nowNs()) : -1;
    return { registers: [...this.registers], negotiatingNs: left };
  }

  /** Takes a saved state whose shape was checked. */
  load(state: { registers: readonly number[]; negotiatingNs: number }): void {
    for (let i = 0; i < REGISTERS; i++) this.registers[i] = state.registers[i];
    this.#timer.cancel();
    this.#negotiating = state.negotiatingNs >= 0;
    if (this.#negotiating) this.#timer.armIn(Math.min(state.negotiatingNs, NEGOTIATION_NS));
    this.#resolve();
  }
}

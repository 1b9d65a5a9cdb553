/**
 * The management registers of a PHY (IEEE 802.3, clause 22) and its link, as far as all NICs have them alike: control, status, autonegotiation.
 * A model's PHY extends this with its own registers and with what speed comes out.
 *
 * The link follows the port's. Restarting autonegotiation takes it down for NEGOTIATION_NS, then it comes back. MII operations end at once.
 * Registers that nobody gave a meaning keep what is written, where a driver only sets options.
 */

import type { Loop, Timer } from '../core/loop.ts';

export const MII_REGISTERS = 32;
/** Long enough that a driver that restarts negotiation and then enables interrupts does not miss the change. */
export const NEGOTIATION_NS = 100e6;

export const BMCR = 0;
export const BMSR = 1;
export const ID_1 = 2;
export const ID_2 = 3;
export const ANAR = 4;
export const ANLPAR = 5;
export const ANER = 6;

export const BMCR_RESET = 1 << 15;
export const BMCR_LOOPBACK = 1 << 14;
export const BMCR_SPEED_LOW = 1 << 13;
export const BMCR_AUTONEG = 1 << 12;
export const BMCR_POWER_DOWN = 1 << 11;
export const BMCR_ISOLATE = 1 << 10;
export const BMCR_RESTART = 1 << 9;
export const BMCR_DUPLEX = 1 << 8;
export const BMCR_SPEED_HIGH = 1 << 6;
export const BMSR_LINK = 1 << 2;
export const BMSR_NEGOTIATED = 1 << 5;

/** What one kind of PHY has that others have not. */
export interface MiiKind {
  /** Values after reset, of registers that are not zero. */
  readonly reset: readonly (readonly [number, number])[];
  readonly readOnly: ReadonlySet<number>;
  /** ANLPAR when negotiated: what a partner that can do everything answers. */
  readonly partnerAbility: number;
}

export interface SavedMii {
  registers: number[];
  /** Time left of a negotiation; -1: none is under way. */
  negotiatingNs: number;
}

export abstract class MiiPhy {
  readonly registers = new Uint16Array(MII_REGISTERS);
  /** The cable is in and the other end is up. */
  #carrier = false;
  #negotiating = false;
  readonly #kind: MiiKind;
  readonly #timer: Timer;
  readonly #loop: Loop;
  readonly #changed: () => void;

  /** `changed` is told when link, speed or duplex may have changed. The model calls `reset` when it is whole. */
  constructor(kind: MiiKind, loop: Loop, changed: () => void) {
    this.#kind = kind;
    this.#loop = loop;
    this.#changed = changed;
    this.#timer = loop.timer(() => {
      this.#negotiating = false;
      this.#resolve();
    });
  }

  /** Works out speed and duplex and the model's own registers; BMSR, ANLPAR and ANER are done. */
  protected abstract resolve(up: boolean, negotiated: boolean): void;

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
    for (const [register, value] of this.#kind.reset) this.registers[register] = value;
    this.#timer.cancel();
    this.#negotiating = false;
    this.#resolve();
  }

  close(): void {
    this.#timer.cancel();
  }

  #resolve(): void {
    const r = this.registers;
    const up = this.link;
    const negotiated = up && (r[BMCR] & BMCR_AUTONEG) !== 0;
    r[BMSR] =
      (r[BMSR] & ~(BMSR_LINK | BMSR_NEGOTIATED)) | (up ? BMSR_LINK : 0) | (negotiated ? BMSR_NEGOTIATED : 0);
    r[ANLPAR] = negotiated ? this.#kind.partnerAbility : 0;
    r[ANER] = negotiated ? 1 : 0;
    this.resolve(up, negotiated);
    this.#changed();
  }

  /** A write by MDIO or by a register that stands for it. */
  write(register: number, value: number): void {
    if (this.#kind.readOnly.has(register)) return;
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

  save(): SavedMii {
    const left = this.#negotiating ? Math.max(0, this.#timer.deadlineNs - this.#loop.clock.nowNs()) : -1;
    return { registers: [...this.registers], negotiatingNs: left };
  }

  /** Takes a saved state whose shape was checked. */
  load(state: { registers: readonly number[]; negotiatingNs: number }): void {
    for (let i = 0; i < MII_REGISTERS; i++) this.registers[i] = state.registers[i];
    this.#timer.cancel();
    this.#negotiating = state.negotiatingNs >= 0;
    if (this.#negotiating) this.#timer.armIn(Math.min(state.negotiatingNs, NEGOTIATION_NS));
    this.#resolve();
  }
}

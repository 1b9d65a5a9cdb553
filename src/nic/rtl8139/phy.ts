/**
 * The PHY inside the RTL8139: 100 Mbit/s at most, its registers at fixed places of the register map instead of behind MDIO (datasheet, BMCR
 * to ANER; mii.ts for what every PHY has).
 */

import type { Loop } from '../../core/loop.ts';
import {
  ANAR,
  ANER,
  ANLPAR,
  BMCR,
  BMCR_AUTONEG,
  BMCR_DUPLEX,
  BMCR_SPEED_LOW,
  BMSR,
  type MiiKind,
  MiiPhy,
} from '../mii.ts';

const KIND: MiiKind = {
  reset: [
    [BMCR, BMCR_AUTONEG],
    [BMSR, 0x7809],
    [ANAR, 0x05e1],
  ],
  readOnly: new Set([BMSR, ANLPAR, ANER]),
  partnerAbility: 0x45e1,
};
const OFFERS_HUNDRED = 0x0180;
const OFFERS_HUNDRED_FULL = 0x0100;
const OFFERS_TEN_FULL = 0x0040;

/** BMCR's speed, negotiation and duplex bits, which 9346CR locks. */
export const BMCR_LOCKED = BMCR_SPEED_LOW | BMCR_AUTONEG | BMCR_DUPLEX;

export class Phy extends MiiPhy {
  /** 100 Mbit/s; else 10. */
  fast = true;
  fullDuplex = true;

  constructor(loop: Loop, changed: () => void) {
    super(KIND, loop, changed);
    this.reset();
  }

  protected override resolve(): void {
    const control = this.registers[BMCR];
    const offer = this.registers[ANAR];
    if ((control & BMCR_AUTONEG) !== 0) {
      this.fast = (offer & OFFERS_HUNDRED) !== 0;
      this.fullDuplex = (offer & (this.fast ? OFFERS_HUNDRED_FULL : OFFERS_TEN_FULL)) !== 0;
    } else {
      this.fast = (control & BMCR_SPEED_LOW) !== 0;
      this.fullDuplex = (control & BMCR_DUPLEX) !== 0;
    }
  }
}

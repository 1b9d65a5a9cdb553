/**
 * The RTL8139's EEPROM (eeprom-93c46.ts): what it holds (datasheet, "93C46 contents"), and 9346CR, by which a driver moves its pins. Words 7 to 9 are
 * the MAC address; a first word of 8129h says that the content is valid.
 */

import { Eeprom93c46, PIN_CS, PIN_DI, PIN_SK } from '../eeprom-93c46.ts';

const SIGNATURE = 0x8129;
const WORD_MAC = 7;

const EEDO = 1 << 0;
const EEDI = 1 << 1;
const EESK = 1 << 2;
const EECS = 1 << 3;

export class Eeprom extends Eeprom93c46 {
  constructor(
    mac: Uint8Array,
    ids: { vendorId: number; deviceId: number; subsystemVendorId: number; subsystemId: number },
  ) {
    super();
    const words = this.words.fill(0);
    words[0] = SIGNATURE;
    words[1] = ids.vendorId;
    words[2] = ids.deviceId;
    words[3] = ids.subsystemVendorId;
    words[4] = ids.subsystemId;
    words[5] = 0x4020; // maximum latency and minimum grant
    words[6] = 0x1000; // BMCR and CONFIG3 as after reset
    for (let i = 0; i < 3; i++) words[WORD_MAC + i] = mac[2 * i] | (mac[2 * i + 1] << 8);
    words[10] = 0x0d00; // CONFIG1 as after reset, CONFIG0
  }

  /** 9346CR as software reads it. */
  readPins(stored: number): number {
    return (stored & ~EEDO) | (this.dataOut ? EEDO : 0);
  }

  /** 9346CR was written in programming mode. */
  writePins(value: number): void {
    const pins =
      ((value & EESK) !== 0 ? PIN_SK : 0) |
      ((value & EECS) !== 0 ? PIN_CS : 0) |
      ((value & EEDI) !== 0 ? PIN_DI : 0);
    this.movePins(pins);
  }

  /** The MAC address that the chip loads. */
  copyMac(target: Uint8Array): void {
    for (let i = 0; i < 6; i++) target[i] = this.words[WORD_MAC + (i >> 1)] >>> (8 * (i & 1));
  }
}

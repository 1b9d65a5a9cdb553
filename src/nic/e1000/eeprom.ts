/**
 * The 82540EM's EEPROM (eeprom-93c46.ts): what it holds, and how a driver reaches it: by EERD, or by moving the chip's pins in EECD
 * (8254x manual, sections 5.4 and 13.4.3). Words 0..2 are the MAC address, and word 63 makes the sum of all words 0xBABA.
 */

import { EEPROM_WORDS, Eeprom93c46, PIN_CS, PIN_DI, PIN_SK } from '../eeprom-93c46.ts';

const CHECKSUM_WORD = 63;
const CHECKSUM = 0xbaba;

/** SK, CS and DI lie in EECD's lowest bits as PIN_* do. */
const EECD_PINS = PIN_SK | PIN_CS | PIN_DI;
const EECD_DO = 1 << 3;
const EECD_REQ = 1 << 6;
const EECD_GNT = 1 << 7;
const EECD_PRES = 1 << 8;

/** Words that mean something to drivers (manual, table 5-2); the others hold ones, as an erased EEPROM does. */
const WORD_INIT_CONTROL_1 = 0x0a;
const WORD_SUBSYSTEM_ID = 0x0b;
const WORD_SUBSYSTEM_VENDOR_ID = 0x0c;
const WORD_DEVICE_ID = 0x0d;
const WORD_VENDOR_ID = 0x0e;
const WORD_INIT_CONTROL_2 = 0x0f;
const WORD_INIT_CONTROL_3 = 0x24;

export class Eeprom extends Eeprom93c46 {
  constructor(
    mac: Uint8Array,
    ids: { vendorId: number; deviceId: number; subsystemVendorId: number; subsystemId: number },
  ) {
    super();
    const words = this.words;
    for (let i = 0; i < 3; i++) words[i] = mac[2 * i] | (mac[2 * i + 1] << 8);
    words[0x03] = 0; // compatibility: no LAN-on-motherboard, client NIC
    words[0x08] = 0; // no printed board assembly number
    words[0x09] = 0;
    words[WORD_INIT_CONTROL_1] = 0x4408; // valid signature, load the identifiers from here
    words[WORD_SUBSYSTEM_ID] = ids.subsystemId;
    words[WORD_SUBSYSTEM_VENDOR_ID] = ids.subsystemVendorId;
    words[WORD_DEVICE_ID] = ids.deviceId;
    words[WORD_VENDOR_ID] = ids.vendorId;
    words[WORD_INIT_CONTROL_2] = 0x3040; // pause in both directions, full duplex
    words[WORD_INIT_CONTROL_3] = 0x0000; // wake-up is off until software asks
    let sum = 0;
    for (let i = 0; i < CHECKSUM_WORD; i++) sum += words[i];
    words[CHECKSUM_WORD] = CHECKSUM - sum;
  }

  /** EECD as software reads it. */
  readEecd(stored: number): number {
    const grant = (stored & EECD_REQ) !== 0 ? EECD_GNT : 0;
    return (stored & ~(EECD_DO | EECD_GNT)) | EECD_PRES | grant | (this.dataOut ? EECD_DO : 0);
  }

  /** Software moved the pins. */
  writeEecd(value: number): void {
    this.movePins(value & EECD_PINS);
  }

  /** EERD written with START: the value with DONE and the word; words that do not exist read as zero. */
  readByEerd(value: number): number {
    const address = (value >>> 8) & 0xff;
    const word = address < EEPROM_WORDS ? this.words[address] : 0;
    return (word << 16) | (address << 8) | (1 << 4);
  }
}

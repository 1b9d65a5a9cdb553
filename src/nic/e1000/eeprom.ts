/**
 * The serial EEPROM of the 82540EM: 64 words in a 93C46 (Microwire), which a driver reads through EERD or by moving the chip's pins in EECD
 * (8254x manual, sections 5.4 and 13.4.3; 93C46 datasheet for the commands). Words 0..2 are the MAC address, and word 63 makes the sum of all words
 * 0xBABA. Writing works by the pins, after EWEN, and lasts as long as the model.
 */

export const EEPROM_WORDS = 64;
const CHECKSUM_WORD = 63;
const CHECKSUM = 0xbaba;

const EECD_SK = 1 << 0;
const EECD_CS = 1 << 1;
const EECD_DI = 1 << 2;
const EECD_DO = 1 << 3;
const EECD_REQ = 1 << 6;
const EECD_GNT = 1 << 7;
const EECD_PRES = 1 << 8;
const EECD_PINS = EECD_SK | EECD_CS | EECD_DI;

const ADDRESS_BITS = 6;
const COMMAND_BITS = 2 + ADDRESS_BITS;
const DATA_BITS = 16;

/** Words that mean something to drivers (manual, table 5-2); the others hold ones, as an erased EEPROM does. */
const WORD_INIT_CONTROL_1 = 0x0a;
const WORD_SUBSYSTEM_ID = 0x0b;
const WORD_SUBSYSTEM_VENDOR_ID = 0x0c;
const WORD_DEVICE_ID = 0x0d;
const WORD_VENDOR_ID = 0x0e;
const WORD_INIT_CONTROL_2 = 0x0f;
const WORD_INIT_CONTROL_3 = 0x24;

export class Eeprom {
  readonly words = new Uint16Array(EEPROM_WORDS);
  /** Told when software changed the content. */
  #pins = 0;
  #selected = false;
  #started = false;
  #shift = 0;
  #bits = 0;
  #command = 0;
  #dataOut = true;
  #out = 0;
  #outBits = 0;
  #writeEnabled = false;

  constructor(
    mac: Uint8Array,
    ids: { vendorId: number; deviceId: number; subsystemVendorId: number; subsystemId: number },
  ) {
    const words = this.words.fill(0xffff);
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
    return (stored & ~(EECD_DO | EECD_GNT)) | EECD_PRES | grant | (this.#dataOut ? EECD_DO : 0);
  }

  /** Software moved the pins. */
  writeEecd(value: number): void {
    const before = this.#pins;
    this.#pins = value & EECD_PINS;
    if ((value & EECD_CS) === 0) {
      this.#selected = false;
      return;
    }
    if (!this.#selected) {
      this.#selected = true;
      this.#restart();
    }
    if ((value & EECD_SK) !== 0 && (before & EECD_SK) === 0) this.#clock((value & EECD_DI) !== 0 ? 1 : 0);
  }

  #restart(): void {
    this.#started = false;
    this.#shift = 0;
    this.#bits = 0;
    this.#command = -1;
    this.#outBits = 0;
    // Between commands the pin tells that a write has ended, which here takes no time.
    this.#dataOut = true;
  }

  /** A rising edge of the clock. */
  #clock(bit: number): void {
    if (!this.#started) {
      this.#started = bit === 1;
      return;
    }
    if (this.#command < 0) {
      this.#shift = (this.#shift << 1) | bit;
      if (++this.#bits === COMMAND_BITS) this.#decode(this.#shift);
      return;
    }
    const address = this.#command & (EEPROM_WORDS - 1);
    if (this.#command >> ADDRESS_BITS === 2) {
      this.#readBit();
    } else if (this.#bits < DATA_BITS) {
      this.#shift = ((this.#shift << 1) | bit) & 0xffff;
      if (++this.#bits === DATA_BITS && this.#writeEnabled) {
        if (this.#command >> ADDRESS_BITS === 1) this.words[address] = this.#shift;
        else if (this.#command >> ADDRESS_BITS === 0 && address >> 4 === 1) this.words.fill(this.#shift);
      }
    }
  }

  #decode(command: number): void {
    this.#command = command;
    this.#bits = 0;
    this.#shift = 0;
    const address = command & (EEPROM_WORDS - 1);
    switch (command >> ADDRESS_BITS) {
      case 2: // READ: a 0 comes before the data
        this.#dataOut = false;
        this.#out = this.words[address];
        this.#outBits = DATA_BITS;
        break;
      case 3: // ERASE
        if (this.#writeEnabled) this.words[address] = 0xffff;
        break;
      case 0:
        if (address >> 4 === 3) this.#writeEnabled = true;
        else if (address >> 4 === 0) this.#writeEnabled = false;
        else if (address >> 4 === 2 && this.#writeEnabled) this.words.fill(0xffff);
        break;
    }
  }

  #readBit(): void {
    if (this.#outBits === 0) {
      // Clocked on, the chip goes on with the next word.
      this.#command = (this.#command & ~(EEPROM_WORDS - 1)) | ((this.#command + 1) & (EEPROM_WORDS - 1));
      this.#out = this.words[this.#command & (EEPROM_WORDS - 1)];
      this.#outBits = DATA_BITS;
    }
    this.#outBits--;
    this.#dataOut = ((this.#out >> this.#outBits) & 1) !== 0;
  }

  /** EERD written with START: the value with DONE and the word; words that do not exist read as zero. */
  readByEerd(value: number): number {
    const address = (value >>> 8) & 0xff;
    const word = address < EEPROM_WORDS ? this.words[address] : 0;
    return (word << 16) | (address << 8) | (1 << 4);
  }

  get mac(): Uint8Array {
    const words = this.words;
    return Uint8Array.of(
      words[0] & 255,
      words[0] >> 8,
      words[1] & 255,
      words[1] >> 8,
      words[2] & 255,
      words[2] >> 8,
    );
  }

  save(): { words: number[]; pins: number; shift: number[] } {
    return {
      words: [...this.words],
      pins: this.#pins,
      shift: [
        Number(this.#selected),
        Number(this.#started),
        this.#shift,
        this.#bits,
        this.#command,
        Number(this.#dataOut),
        this.#out,
        this.#outBits,
        Number(this.#writeEnabled),
      ],
    };
  }

  /** Takes a saved state whose shape was checked; every number is brought into its range. */
  load(state: { words: readonly number[]; pins: number; shift: readonly number[] }): void {
    for (let i = 0; i < EEPROM_WORDS; i++) this.words[i] = state.words[i];
    const [selected, started, shift, bits, command, dataOut, out, outBits, writeEnabled] = state.shift;
    this.#pins = state.pins & EECD_PINS;
    this.#selected = selected !== 0;
    this.#started = started !== 0;
    this.#shift = shift & 0xffff;
    this.#bits = bits & 31;
    this.#command = command < 0 ? -1 : command & 0xff;
    this.#dataOut = dataOut !== 0;
    this.#out = out & 0xffff;
    this.#outBits = Math.min(outBits & 31, DATA_BITS);
    this.#writeEnabled = writeEnabled !== 0;
  }
}

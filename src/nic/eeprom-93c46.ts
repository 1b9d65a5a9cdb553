/**
 * The serial EEPROM beside a NIC: 64 words in a 93C46 (Microwire; its datasheet for the commands), which a driver reads and writes by moving
 * the chip's pins. Each NIC has a register for these pins; the model brings its bits to PIN_* and shows `dataOut`. A write works
 * after EWEN, takes no time, and lasts as long as the model.
 *
 *   chip select up, start bit 1, opcode (2 bits), address (6 bits), then 16 data bits in or out, each taken at a rising clock
 */

export const EEPROM_WORDS = 64;

/** Pins, or-ed: clock, chip select, data in. */
export const PIN_SK = 1 << 0;
export const PIN_CS = 1 << 1;
export const PIN_DI = 1 << 2;
const PINS = PIN_SK | PIN_CS | PIN_DI;

const ADDRESS_BITS = 6;
const COMMAND_BITS = 2 + ADDRESS_BITS;
const DATA_BITS = 16;
/** Fields of a saved `shift`. */
export const EEPROM_SHIFT_FIELDS = 9;

export interface SavedEeprom {
  words: number[];
  pins: number;
  shift: number[];
}

export class Eeprom93c46 {
  readonly words = new Uint16Array(EEPROM_WORDS).fill(0xffff);
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

  /** The level of the chip's data output. */
  get dataOut(): boolean {
    return this.#dataOut;
  }

  /** Software moved the pins (PIN_* bits). */
  movePins(value: number): void {
    const before = this.#pins;
    this.#pins = value & PINS;
    if ((value & PIN_CS) === 0) {
      this.#selected = false;
      return;
    }
    if (!this.#selected) {
      this.#selected = true;
      this.#restart();
    }
    if ((value & PIN_SK) !== 0 && (before & PIN_SK) === 0) this.#clock((value & PIN_DI) !== 0 ? 1 : 0);
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

  save(): SavedEeprom {
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
    this.#pins = state.pins & PINS;
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

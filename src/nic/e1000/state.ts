/**
 * The saved state of an e1000 as plain JSON, and the check of such a state. A state file is as untrusted as a guest: shape and ranges are
 * checked here, and registers then go through the same masks and decoders as live writes (index.ts `loadState`).
 *
 * Frames that were taken from the ring and wait for the port are saved as bytes, so nothing is sent twice or lost; frames that others hold are on their way.
 */

import { MAX_FRAME_BYTES } from '../../core/pool.ts';
import { EEPROM_SHIFT_FIELDS, EEPROM_WORDS } from '../eeprom-93c46.ts';
import { StateCheck } from '../saved-state.ts';

/** A frame that waits in the transmitter. */
export interface SavedFrame {
  /** Lower-case hexadecimal. */
  bytes: string;
  /** The pool's words FACTS, GSO_SIZE, HEADER_LENGTH, CSUM_START, CSUM_OFFSET. */
  facts: number[];
  /** Descriptors from the oldest uncompleted one to behind this frame's last. */
  end: number;
}

export interface SavedTransmitter {
  /** Next descriptor to fetch, and the oldest that is not completed. */
  head: number;
  done: number;
  /** The last context descriptor's fields, in the order of TxContext. */
  context: number[];
  frames: SavedFrame[];
  /** The frame being collected: address and length of each part; null: none. */
  parts: { list: number[][]; startedAt: number; command: number; options: number; broken: boolean } | null;
}

export interface E1000State {
  model: 'e1000';
  version: 1;
  config: number[];
  registers: number[];
  ioAddress: number;
  eeprom: { words: number[]; pins: number; shift: number[] };
  phy: { registers: number[]; negotiatingNs: number };
  interrupts: number[];
  tx: SavedTransmitter;
}

const CONTEXT_FIELDS = 10;
const PHY_REGISTERS = 32;
const INTERRUPT_FIELDS = 5;
const FACT_WORDS = 5;
const FRAMES_MAX = 64;
const PARTS_MAX = 1024;
const RING_MAX = 65_536;
const INT32_MIN = -(2 ** 31);

function parseFrame(check: StateCheck, value: unknown): SavedFrame {
  const frame = check.object(value, 'tx.frames');
  const bytes = frame.bytes;
  if (typeof bytes !== 'string' || bytes.length > 2 * MAX_FRAME_BYTES || bytes.length < 2)
    check.fail('tx.frames.bytes');
  if (!/^([0-9a-f]{2})*$/.test(bytes)) check.fail('tx.frames.bytes');
  const facts = check.integers(frame.facts, 'tx.frames.facts', FACT_WORDS, 0, 0x1ffff);
  return { bytes, facts, end: check.integer(frame.end, 'tx.frames.end', 0, RING_MAX) };
}

function parseParts(check: StateCheck, value: unknown): SavedTransmitter['parts'] {
  if (value === null) return null;
  const parts = check.object(value, 'tx.parts');
  if (typeof parts.broken !== 'boolean') check.fail('tx.parts.broken');
  return {
    list: check.list(parts.list, 'tx.parts.list', 0, PARTS_MAX).map((part) => {
      const [address, length] = check.list(part, 'tx.parts.list', 2);
      return [
        check.finite(address, 'tx.parts.list'),
        check.integer(length, 'tx.parts.list', 1, MAX_FRAME_BYTES + 2 ** 20),
      ];
    }),
    startedAt: check.integer(parts.startedAt, 'tx.parts.startedAt', 0, RING_MAX),
    command: check.integer(parts.command, 'tx.parts.command', INT32_MIN, 2 ** 31 - 1),
    options: check.integer(parts.options, 'tx.parts.options', INT32_MIN, 2 ** 31 - 1),
    broken: parts.broken,
  };
}

/** The state, or an OptionError that names the field at fault. */
export function parseState(value: unknown, configBytes: number, registerWords: number): E1000State {
  const check = new StateCheck('e1000');
  const state = check.object(value, 'state');
  if (state.model !== 'e1000') check.fail('model');
  if (state.version !== 1) check.fail('version');
  const eeprom = check.object(state.eeprom, 'eeprom');
  const phy = check.object(state.phy, 'phy');
  const tx = check.object(state.tx, 'tx');
  return {
    model: 'e1000',
    version: 1,
    config: check.integers(state.config, 'config', configBytes, 0, 255),
    registers: check.integers(state.registers, 'registers', registerWords, INT32_MIN, 2 ** 31 - 1),
    ioAddress: check.integer(state.ioAddress, 'ioAddress', 0, 2 ** 32 - 1),
    eeprom: {
      words: check.integers(eeprom.words, 'eeprom.words', EEPROM_WORDS, 0, 0xffff),
      pins: check.integer(eeprom.pins, 'eeprom.pins', 0, 255),
      shift: check.integers(eeprom.shift, 'eeprom.shift', EEPROM_SHIFT_FIELDS, -1, 0xffff),
    },
    phy: {
      registers: check.integers(phy.registers, 'phy.registers', PHY_REGISTERS, 0, 0xffff),
      negotiatingNs: check.finite(phy.negotiatingNs, 'phy.negotiatingNs'),
    },
    interrupts: check
      .list(state.interrupts, 'interrupts', INTERRUPT_FIELDS)
      .map((item) => check.finite(item, 'interrupts')),
    tx: {
      head: check.integer(tx.head, 'tx.head', 0, RING_MAX),
      done: check.integer(tx.done, 'tx.done', 0, RING_MAX),
      context: check.integers(tx.context, 'tx.context', CONTEXT_FIELDS, 0, 0xfffff),
      frames: check.list(tx.frames, 'tx.frames', 0, FRAMES_MAX).map((item) => parseFrame(check, item)),
      parts: parseParts(check, tx.parts),
    },
  };
}

/**
 * The saved state of an e1000 as plain JSON, and the check of such a state. A state file is as untrusted as a guest: shape and ranges are
 * checked here, and registers then go through the same masks and decoders as live writes (index.ts `loadState`).
 *
 * Frames that were taken from the ring and wait for the port are saved as bytes, so nothing is sent twice or lost; frames that others hold are on their way.
 */

import { OptionError } from '../../core/errors.ts';
import { MAX_FRAME_BYTES } from '../../core/pool.ts';
import { EEPROM_SHIFT_FIELDS, EEPROM_WORDS } from '../eeprom-93c46.ts';

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

function fail(where: string): never {
  throw new OptionError(`e1000 state: '${where}' is missing or out of range`);
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail(where);
  return value as Record<string, unknown>;
}

function integer(value: unknown, where: string, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) fail(where);
  return value;
}

function finite(value: unknown, where: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) fail(where);
  return value;
}

function list(value: unknown, where: string, lengthMin: number, lengthMax = lengthMin): unknown[] {
  if (!Array.isArray(value) || value.length < lengthMin || value.length > lengthMax) fail(where);
  return value;
}

function integers(value: unknown, where: string, length: number, min: number, max: number): number[] {
  return list(value, where, length).map((item) => integer(item, where, min, max));
}

function parseFrame(value: unknown): SavedFrame {
  const frame = object(value, 'tx.frames');
  const bytes = frame.bytes;
  if (typeof bytes !== 'string' || bytes.length > 2 * MAX_FRAME_BYTES || bytes.length < 2)
    fail('tx.frames.bytes');
  if (!/^([0-9a-f]{2})*$/.test(bytes)) fail('tx.frames.bytes');
  const facts = integers(frame.facts, 'tx.frames.facts', FACT_WORDS, 0, 0x1ffff);
  return { bytes, facts, end: integer(frame.end, 'tx.frames.end', 0, RING_MAX) };
}

function parseParts(value: unknown): SavedTransmitter['parts'] {
  if (value === null) return null;
  const parts = object(value, 'tx.parts');
  if (typeof parts.broken !== 'boolean') fail('tx.parts.broken');
  return {
    list: list(parts.list, 'tx.parts.list', 0, PARTS_MAX).map((part) => {
      const [address, length] = list(part, 'tx.parts.list', 2);
      return [
        finite(address, 'tx.parts.list'),
        integer(length, 'tx.parts.list', 1, MAX_FRAME_BYTES + 2 ** 20),
      ];
    }),
    startedAt: integer(parts.startedAt, 'tx.parts.startedAt', 0, RING_MAX),
    command: integer(parts.command, 'tx.parts.command', INT32_MIN, 2 ** 31 - 1),
    options: integer(parts.options, 'tx.parts.options', INT32_MIN, 2 ** 31 - 1),
    broken: parts.broken,
  };
}

/** The state, or an OptionError that names the field at fault. */
export function parseState(value: unknown, configBytes: number, registerWords: number): E1000State {
  const state = object(value, 'state');
  if (state.model !== 'e1000') fail('model');
  if (state.version !== 1) fail('version');
  const eeprom = object(state.eeprom, 'eeprom');
  const phy = object(state.phy, 'phy');
  const tx = object(state.tx, 'tx');
  return {
    model: 'e1000',
    version: 1,
    config: integers(state.config, 'config', configBytes, 0, 255),
    registers: integers(state.registers, 'registers', registerWords, INT32_MIN, 2 ** 31 - 1),
    ioAddress: integer(state.ioAddress, 'ioAddress', 0, 2 ** 32 - 1),
    eeprom: {
      words: integers(eeprom.words, 'eeprom.words', EEPROM_WORDS, 0, 0xffff),
      pins: integer(eeprom.pins, 'eeprom.pins', 0, 255),
      shift: integers(eeprom.shift, 'eeprom.shift', EEPROM_SHIFT_FIELDS, -1, 0xffff),
    },
    phy: {
      registers: integers(phy.registers, 'phy.registers', PHY_REGISTERS, 0, 0xffff),
      negotiatingNs: finite(phy.negotiatingNs, 'phy.negotiatingNs'),
    },
    interrupts: list(state.interrupts, 'interrupts', INTERRUPT_FIELDS).map((item) =>
      finite(item, 'interrupts'),
    ),
    tx: {
      head: integer(tx.head, 'tx.head', 0, RING_MAX),
      done: integer(tx.done, 'tx.done', 0, RING_MAX),
      context: integers(tx.context, 'tx.context', CONTEXT_FIELDS, 0, 0xfffff),
      frames: list(tx.frames, 'tx.frames', 0, FRAMES_MAX).map(parseFrame),
      parts: parseParts(tx.parts),
    },
  };
}

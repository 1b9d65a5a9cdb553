/**
 * What each line of the protocol does, and its answer. A line is words between single spaces; an answer is `OK`, `OK VALUE` or `FAIL REASON`. The
 * formats are those that QEMU 11.1 was seen to send: port values with at least 4 hexadecimal digits, memory values with 16.
 *
 * Where QEMU ends itself (a word is missing, a number is none) this answers FAIL and goes on. clock_step is the session's: it takes turns of the loop.
 */

import { toHex } from '../../wire/bytes.ts';
import type { QtestPlatform } from './platform.ts';
import { parseAddress, parseBase64, parseHexBytes, parseNumber, parseShort, toBase64 } from './values.ts';

/** Bytes that one read or write may move. */
const TRANSFER_LIMIT_BYTES = 64 << 20;
const CHUNK_BYTES = 1 << 16;
const ADDRESS_LIMIT = 2 ** 53;
const PORTS = 0x10000;

/** What a command may do beside the platform. */
export interface Commander {
  readonly platform: QtestPlatform;
  /** Listens to one device's lines from now on. False: another one is listened to. */
  intercept(what: string): boolean;
}

type Run = (to: Commander, words: readonly string[]) => string;

class Refusal extends Error {}

function refuse(reason: string): never {
  throw new Refusal(reason);
}

function address(word: string | undefined, what = 'address'): number {
  return parseAddress(word) ?? refuse(word === undefined ? `missing ${what}` : `bad ${what} '${word}'`);
}

function port(word: string | undefined): number {
  const value = address(word, 'port');
  return value < PORTS ? value : refuse(`bad port '${word}'`);
}

function number(word: string | undefined): bigint {
  return parseNumber(word) ?? refuse(word === undefined ? 'missing value' : `bad value '${word}'`);
}

function length(word: string | undefined, zero: boolean): number {
  const bytes = address(word, 'size');
  if (bytes === 0 && !zero) refuse(`bad size '${word}'`);
  if (bytes > TRANSFER_LIMIT_BYTES) refuse(`a size is at most ${TRANSFER_LIMIT_BYTES} bytes`);
  return bytes;
}

function portIn(size: number): Run {
  return ({ platform }, words) =>
    `OK 0x${platform.portRead(port(words[1]), size).toString(16).padStart(4, '0')}`;
}

function portOut(size: number): Run {
  return ({ platform }, words) => {
    platform.portWrite(port(words[1]), size, Number(number(words[2]) & BigInt(2 ** (8 * size) - 1)));
    return 'OK';
  };
}

function readOne(size: number): Run {
  return ({ platform }, words) => {
    const bytes = new Uint8Array(size);
    platform.read(address(words[1]), bytes, 0, size);
    return `OK 0x${toHex(bytes.reverse()).padStart(16, '0')}`;
  };
}

function writeOne(size: number): Run {
  return ({ platform }, words) => {
    const at = address(words[1]);
    const bytes = new Uint8Array(size);
    const short = parseShort(words[2] ?? '');
    if (short >= 0) {
      for (let i = 0, rest = short; i < size; i++, rest = Math.floor(rest / 256)) bytes[i] = rest;
    } else {
      let value = number(words[2]);
      for (let i = 0; i < size; i++, value >>= 8n) bytes[i] = Number(value & 0xffn);
    }
    platform.write(at, bytes, 0, size);
    return 'OK';
  };
}

function readBytes({ platform }: Commander, words: readonly string[]): Uint8Array {
  const at = address(words[1]);
  const bytes = new Uint8Array(length(words[2], false));
  platform.read(at, bytes, 0, bytes.length);
  return bytes;
}

function intercept(to: Commander, words: readonly string[], known: readonly string[]): string {
  const what = words[1] ?? refuse('missing device');
  if (!INTERCEPTABLE.includes(what)) return 'FAIL Unknown device';
  if (!known.includes(what)) return 'FAIL No intercepts installed';
  return to.intercept(what) ? 'OK' : 'FAIL IRQ intercept already enabled';
}

/** Devices with lines, by the names that scripts use. All carry the ISA interrupts: into the controllers, out of the PIIX3. */
const LINES_IN = ['ioapic', 'i8259'];
const LINES_OUT = ['piix3'];
const INTERCEPTABLE = [...LINES_IN, ...LINES_OUT];

const COMMANDS: ReadonlyMap<string, Run> = new Map<string, Run>([
  ['inb', portIn(1)],
  ['inw', portIn(2)],
  ['inl', portIn(4)],
  ['outb', portOut(1)],
  ['outw', portOut(2)],
  ['outl', portOut(4)],
  ['readb', readOne(1)],
  ['readw', readOne(2)],
  ['readl', readOne(4)],
  ['readq', readOne(8)],
  ['writeb', writeOne(1)],
  ['writew', writeOne(2)],
  ['writel', writeOne(4)],
  ['writeq', writeOne(8)],
  ['read', (to, words) => `OK 0x${toHex(readBytes(to, words))}`],
  ['b64read', (to, words) => `OK ${toBase64(readBytes(to, words))}`],
  [
    'write',
    ({ platform }, words) => {
      const at = address(words[1]);
      const size = length(words[2], true);
      const text = words[3] ?? refuse('missing data');
      const bytes = parseHexBytes(text, size) ?? refuse('the data is not 0x and pairs of hexadecimal digits');
      platform.write(at, bytes, 0, size);
      return 'OK';
    },
  ],
  [
    'b64write',
    ({ platform }, words) => {
      const at = address(words[1]);
      const size = length(words[2], true);
      const bytes = parseBase64(words[3] ?? refuse('missing data')) ?? refuse('the data is not base64');
      if (bytes.length !== size) refuse(`the data is ${bytes.length} bytes, not ${size}`);
      platform.write(at, bytes, 0, size);
      return 'OK';
    },
  ],
  [
    'memset',
    ({ platform }, words) => {
      const at = address(words[1]);
      const size = address(words[2], 'size');
      const value = number(words[3]);
      if (at + size > ADDRESS_LIMIT) refuse('it ends beyond the address space');
      const chunk = new Uint8Array(Math.min(size, CHUNK_BYTES)).fill(Number(value & 0xffn));
      // Beyond RAM there is nothing to fill but registers, and those lie below 4 GiB.
      const end = Math.min(at + size, 2 ** 32);
      for (let from = at; from < end; from += CHUNK_BYTES)
        platform.write(from, chunk, 0, Math.min(CHUNK_BYTES, end - from));
      return 'OK';
    },
  ],
  ['endianness', () => 'OK little'],
  ['irq_intercept_in', (to, words) => intercept(to, words, LINES_IN)],
  ['irq_intercept_out', (to, words) => intercept(to, words, LINES_OUT)],
  // Loadable modules: everything is built in.
  ['module_load', () => 'FAIL there are no modules to load'],
]);

/** Runs one line that is not about the clock. Never throws for what the line says. */
export function runCommand(to: Commander, words: readonly string[]): string {
  const name = words[0] ?? '';
  const run = COMMANDS.get(name);
  if (run === undefined) return `FAIL Unknown command '${name}'`;
  try {
    return run(to, words);
  } catch (error) {
    if (error instanceof Refusal) return `FAIL ${name}: ${error.message}`;
    throw error;
  }
}

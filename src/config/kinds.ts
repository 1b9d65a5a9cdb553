/**
 * The kinds of option values: how each is read from command-line text and from JSON, and how it is shown.
 *
 * Wording follows QEMU, which has two voices: the option visitor of `-netdev` and `-net` ("expects a uint64 value")
 * and the property visitor of `-device` and `-object` ("expects integer"). `ReadContext.voice` picks one.
 */
import { OptionError } from '../core/errors.ts';
import { formatMac, parseMac } from './address.ts';
import { nearest } from './nearest.ts';
import type { EnumSpec, OptionSpec, UnionSpec } from './schema.ts';

/** Where the options came from, and the sentences that differ with it. */
export interface ReadContext {
  readonly source: 'command-line' | 'json';
  readonly voice: 'options' | 'properties';
  /** The sentence for a name the table does not have. */
  readonly unknown?: (name: string) => string;
  /** The sentence for a MAC address that is none. */
  readonly badMac?: (name: string, text: string) => string;
}

export type ScalarSpec = Exclude<OptionSpec, UnionSpec | { kind: 'list' }>;

const ON = ['on', 'yes', 'true', 'y'];
const OFF = ['off', 'no', 'false', 'n'];

/** Reads one value from command-line text. `name` is the full dotted name, for messages. */
export function fromText(name: string, spec: ScalarSpec, text: string, context: ReadContext): unknown {
  switch (spec.kind) {
    case 'bool':
      if (ON.includes(text)) return true;
      if (OFF.includes(text)) return false;
      throw expects(name, "'on' or 'off'");
    case 'string':
      return plainString(name, text);
    case 'id':
      return identifier(name, text);
    case 'mac':
      return mac(name, text, context);
    case 'enum':
      return enumValue(name, spec, text);
    case 'uint': {
      const number = spec.octal ? octalFromText(text) : integerFromText(text);
      if (number === undefined || number < 0n) throw expects(name, uintWords(context));
      return inRange(name, number, spec.bits, false);
    }
    case 'uint64': {
      const number = integerFromText(text);
      if (number === undefined || number < 0n || number >> 64n) throw expects(name, uintWords(context));
      return number;
    }
    case 'int': {
      const number = integerFromText(text);
      if (number === undefined)
        throw expects(name, context.voice === 'options' ? 'an int64 value' : 'integer');
      return inRange(name, number, 32, true);
    }
    case 'size':
      return (
        scaled(text, 'BkKMGTPE', 1024) ?? fail(name, context.voice === 'options' ? 'a size value' : 'size')
      );
    case 'rate':
      return scaled(text, '_kKMGT', 1000) ?? fail(name, `a rate in ${spec.unit}, such as 10M`);
    case 'duration':
      return durationFromText(text, spec.bareUnit) ?? fail(name, 'a time, such as 20ms or 2s');
    case 'percent': {
      const number = /^\d{1,3}(\.\d{1,9})?%?$/.test(text) ? Number.parseFloat(text) : 101;
      return number <= 100 ? number : fail(name, 'a percentage from 0 to 100');
    }
  }
}

/** Reads one value from JSON (or from a JavaScript caller). */
export function fromJson(name: string, spec: ScalarSpec, value: unknown, context: ReadContext): unknown {
  switch (spec.kind) {
    case 'bool':
      if (typeof value !== 'boolean') throw wrongType(name, 'boolean');
      return value;
    case 'string':
    case 'id':
    case 'mac':
    case 'enum':
      if (typeof value !== 'string') throw wrongType(name, 'string');
      return fromText(name, spec, value, context);
    case 'uint':
      return inRange(name, integerFromJson(name, value, 'uint64'), spec.bits, false);
    case 'uint64': {
      const number = integerFromJson(name, value, 'uint64');
      if (number < 0n || number >> 64n) throw expects(name, 'uint64');
      return number;
    }
    case 'int':
      return inRange(name, integerFromJson(name, value, 'integer'), 32, true);
    case 'size':
      if (typeof value === 'string') return fromText(name, spec, value, context);
      return inRange(name, integerFromJson(name, value, 'integer'), 53, false);
    case 'rate':
    case 'duration':
    case 'percent': {
      if (typeof value === 'string') return fromText(name, spec, value, context);
      if (typeof value !== 'number' || !Number.isFinite(value)) throw wrongType(name, 'number');
      return fromText(name, spec, String(value), context);
    }
  }
}

/** What stands for the value in help. */
export function metavar(spec: OptionSpec): string {
  switch (spec.kind) {
    case 'bool':
      return 'on|off';
    case 'string':
    case 'list':
      return spec.metavar ?? 'text';
    case 'id':
      return 'id';
    case 'mac':
      return 'xx:xx:xx:xx:xx:xx';
    case 'enum':
      return spec.values.join('|');
    case 'union':
      return Object.keys(spec.branches).join('|');
    case 'uint':
      return spec.metavar ?? (spec.octal ? 'octal' : 'number');
    case 'uint64':
    case 'int':
      return 'number';
    case 'size':
      return 'size[k|M|G|T]';
    case 'rate':
      return `${spec.unit}[k|M|G]`;
    case 'duration':
      return 'time[us|ms|s]';
    case 'percent':
      return 'percent';
  }
}

/** A default as the user would type it; undefined when there is none to show. */
export function defaultAsText(spec: OptionSpec): string | undefined {
  if (spec.defaultText !== undefined) return spec.defaultText;
  if (!('default' in spec) || spec.default === undefined) return undefined;
  if (spec.kind === 'bool') return spec.default ? 'on' : 'off';
  if (spec.kind === 'uint' && spec.octal) return `0${spec.default.toString(8)}`;
  if (spec.kind === 'duration') return durationAsText(spec.default);
  return String(spec.default);
}

export function wrongType(name: string, expected: string): OptionError {
  return new OptionError(`Invalid parameter type for '${name}', expected: ${expected}`, { option: name });
}

export function expects(name: string, what: string): OptionError {
  return new OptionError(`Parameter '${name}' expects ${what}`, { option: name });
}

function fail(name: string, what: string): never {
  throw expects(name, what);
}

export function doesNotAccept(name: string, value: string, valid: readonly string[]): OptionError {
  return new OptionError(`Parameter '${name}' does not accept value '${value}'`, {
    option: name,
    nearest: nearest(value, valid),
  });
}

/** Letters, digits, `-._`, starting with a letter. */
export function isIdentifier(text: string): boolean {
  return /^[A-Za-z][A-Za-z0-9._-]*$/.test(text);
}

function identifier(name: string, text: string): string {
  if (!isIdentifier(text)) throw expects(name, 'an identifier');
  return text;
}

function plainString(name: string, text: string): string {
  if (text.includes('\0')) throw expects(name, 'text without NUL characters');
  return text;
}

function mac(name: string, text: string, context: ReadContext): string {
  const bytes = parseMac(text);
  if (bytes) return formatMac(bytes);
  throw new OptionError(context.badMac?.(name, text) ?? 'invalid syntax for ethernet address', {
    option: name,
  });
}

function enumValue(name: string, spec: EnumSpec, text: string): string {
  if (spec.values.includes(text)) return text;
  throw doesNotAccept(name, text, spec.values);
}

function uintWords(context: ReadContext): string {
  return context.voice === 'options' ? 'a uint64 value' : 'integer';
}

/** Decimal or 0x; a leading zero, which C reads as octal, is refused rather than guessed at. */
function integerFromText(text: string): bigint | undefined {
  if (!/^-?(0[xX][0-9a-fA-F]{1,16}|0|[1-9]\d{0,19})$/.test(text)) return undefined;
  return text.startsWith('-') ? -BigInt(text.slice(1)) : BigInt(text);
}

function octalFromText(text: string): bigint | undefined {
  return /^0?[0-7]{1,6}$/.test(text) ? BigInt(`0o${text}`) : undefined;
}

function integerFromJson(name: string, value: unknown, expected: 'integer' | 'uint64'): bigint {
  if (typeof value === 'bigint') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  throw expected === 'uint64' ? expects(name, 'uint64') : wrongType(name, 'integer');
}

function inRange(name: string, number: bigint, bits: number, signed: boolean): number {
  const limit = 1n << BigInt(signed ? bits - 1 : bits);
  if (number >= limit || number < (signed ? -limit : 0n)) {
    throw expects(name, bits === 53 ? 'a value below 2^53' : `${signed ? '' : 'u'}int${bits}_t`);
  }
  return Number(number);
}

/** A decimal number with at most one suffix of `suffixes` (position = power of `base`; k and K are the same). */
function scaled(text: string, suffixes: string, base: number): number | undefined {
  const match = /^(\d{1,19})(\.\d{1,9})?([A-Za-z])?$/.exec(text);
  if (!match) return undefined;
  const suffix = match[3]?.replace('k', 'K');
  const powers = suffixes.replace('k', '');
  const power = suffix === undefined ? 0 : powers.indexOf(suffix);
  if (power < 0) return undefined;
  const value = Number(match[1]! + (match[2] ?? '')) * base ** power;
  return Number.isSafeInteger(value) ? value : undefined;
}

const NS_PER = { us: 1e3, ms: 1e6, s: 1e9, m: 60e9 } as const;

function durationFromText(text: string, bareUnit: 's' | 'ms' | 'us'): number | undefined {
  const match = /^(\d{1,12}(?:\.\d{1,9})?)(us|ms|s|m)?$/.exec(text);
  if (!match) return undefined;
  const ns = Math.round(Number(match[1]) * NS_PER[(match[2] as keyof typeof NS_PER | undefined) ?? bareUnit]);
  return Number.isSafeInteger(ns) ? ns : undefined;
}

function durationAsText(ns: number): string {
  if (ns === 0) return '0';
  for (const unit of ['s', 'ms'] as const) if (ns % NS_PER[unit] === 0) return `${ns / NS_PER[unit]}${unit}`;
  return `${ns / NS_PER.us}us`;
}

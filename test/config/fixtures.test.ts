/**
 * Every case of fixtures/options: a command line (`line`) or a monitor's JSON (`qmp` and `arguments`), and either
 * what comes of it (`expect`, a part of the result; `warnings`) or the exact sentence it is refused with (`error`).
 *
 * `expect` is about the last option of the line, or, when it is a list, about all of them. In it, addresses are their text, sets are sorted lists, 64-bit numbers are strings, and null is "absent".
 */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readChardev } from '../../src/config/chardevs.ts';
import {
  CommandLineError,
  type Declaration,
  formatCliError,
  parseCommandLine,
} from '../../src/config/commandline.ts';
import { parseConfigFile } from '../../src/config/config-file.ts';
import { readDevice } from '../../src/config/devices/index.ts';
import { parseJson } from '../../src/config/json.ts';
import { readNetdev } from '../../src/config/netdevs/index.ts';
import { readObject } from '../../src/config/objects/index.ts';
import { checkReferences } from '../../src/config/references.ts';
import { OptionError } from '../../src/core/errors.ts';

interface Case {
  /** Where the expected result comes from. */
  readonly origin: string;
  readonly line?: readonly string[];
  readonly qmp?: 'netdev_add' | 'device_add' | 'object-add' | 'chardev-add';
  readonly config?: unknown;
  /** JSON text instead of `arguments`, for what JSON.parse would not let through. */
  readonly text?: string;
  readonly arguments?: unknown;
  readonly expect?: unknown;
  readonly warnings?: readonly string[];
  readonly error?: string;
  readonly nearest?: string;
}

const folder = new URL('../../fixtures/options/', import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
const readers = {
  netdev_add: readNetdev,
  device_add: readDevice,
  'object-add': readObject,
  'chardev-add': readChardev,
};

let count = 0;
for (const file of files) {
  const { cases } = JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as { cases: Case[] };
  describe(`fixtures/options/${file}`, () => {
    for (const one of cases) {
      count++;
      it(titleOf(one), () => check(one));
    }
  });
}

it('has at least 200 cases, each with its origin', () => {
  expect(count).toBeGreaterThanOrEqual(200);
});

function titleOf(one: Case): string {
  if (one.line) return one.line.join(' ');
  if (one.config !== undefined) return `--config ${JSON.stringify(one.config)}`;
  return `${one.qmp} ${one.text ?? JSON.stringify(one.arguments)}`;
}

function check(one: Case): void {
  expect(one.origin).toMatch(/\w/);
  let result: unknown;
  let failure: unknown;
  try {
    result = run(one);
  } catch (error) {
    failure = error;
  }
  if (one.error !== undefined) {
    expect(failure, `got ${JSON.stringify(plain(result))}`).toBeInstanceOf(OptionError);
    const error = failure as OptionError;
    expect(error.message).toBe(one.error);
    if (one.nearest !== undefined) expect(error.nearest).toBe(one.nearest);
    const line = formatCliError(error);
    expect(line).not.toContain('\n');
    if (error instanceof CommandLineError) expect(line.startsWith(`netemu: ${error.flag}`)).toBe(true);
    return;
  }
  if (failure !== undefined) throw failure;
  const [what, warnings] = result as [unknown, string[]];
  if (one.expect !== undefined) expect(plain(what)).toMatchObject(one.expect as object);
  if (one.warnings !== undefined) expect(warnings).toEqual(one.warnings);
}

/** What a declaration holds, without where it came from. */
function payload(declaration: Declaration): unknown {
  const { flag: _flag, argument: _argument, kind, ...rest } = declaration;
  const values = Object.values(rest);
  return values.length === 1 && typeof values[0] === 'object' ? values[0] : { kind, ...rest };
}

function payloads(declarations: readonly Declaration[], expected: unknown): unknown {
  const all = declarations.map(payload);
  return Array.isArray(expected) ? all : all.at(-1);
}

function run(one: Case): [unknown, string[]] {
  if (one.qmp !== undefined) {
    return [readers[one.qmp](one.text === undefined ? one.arguments : parseJson(one.text)), []];
  }
  if (one.config !== undefined) {
    const declarations = parseConfigFile('net.json', JSON.stringify(one.config));
    return [payloads(declarations, one.expect), checkReferences(declarations)];
  }
  const parsed = parseCommandLine(one.line!);
  if (parsed.action !== 'run') return [parsed, []];
  const warnings = checkReferences(parsed.declarations);
  return [payloads(parsed.declarations, one.expect), warnings];
}

function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return String(value);
  if (value === undefined) return null;
  if (value instanceof Set) return [...value].sort();
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  const isAddress = 'family' in value && 'text' in value;
  if (isAddress) return value.text;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, plain(member)]));
}

/**
 * Fuzzing with fast-check: inputs are files of a committed corpus (fixtures/fuzz/NAME), as they are and then changed in a few places. The short run of every
 * `make test` has a fixed seed, the same inputs on every machine; `make fuzz` multiplies the runs (NETEMU_FUZZ) with a seed of its own, which is
 * printed on failure. An input that was found is added to the corpus: add a file, not code.
 */

import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, expect } from 'vitest';
import { fromHex } from '../../src/wire/bytes.ts';

const FIXTURES = new URL('../../fixtures/', import.meta.url);
const SEED = 20_261_123;

/** Several times what a file's whole run needs; an input that makes a length of its own into memory passes it at once. */
const RESIDENT_MAX_MIB = 768;

/** After each test of the file: its process never held more than RESIDENT_MAX_MIB, not for a moment either. */
export function boundMemory(): void {
  afterEach(() => {
    // In KiB.
    expect(process.resourceUsage().maxRSS / 1024).toBeLessThan(RESIDENT_MAX_MIB);
  });
}

/** How many times the usual runs are wanted. */
export const FUZZ_TIMES = Number(process.env.NETEMU_FUZZ ?? 1);

/** The files of a corpus, by name. */
export function corpus(name: string): Uint8Array[] {
  const folder = new URL(`fuzz/${name}/`, FIXTURES);
  const files = readdirSync(folder).sort();
  return files.map((file) => new Uint8Array(readFileSync(new URL(file, folder))));
}

/** The frames of fixtures/frames. */
export function frames(): Uint8Array[] {
  const folder = new URL('frames/', FIXTURES);
  const files = readdirSync(folder).filter((file) => file.endsWith('.hex'));
  return files.sort().map((file) => {
    const text = readFileSync(new URL(file, folder), 'utf8').replaceAll(/#.*|\s/g, '');
    return fromHex(text) as Uint8Array;
  });
}

const jsonFiles = (name: string): Record<string, unknown>[] => {
  const folder = new URL(`${name}/`, FIXTURES);
  const files = readdirSync(folder).sort();
  return files.map(
    (file) => JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Record<string, unknown>,
  );
};
const asBytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** The requests of fixtures/qmp, a few to a text. */
export function qmpTexts(): Uint8Array[] {
  const requests = jsonFiles('qmp').flatMap(({ steps }) =>
    (steps as { send?: unknown }[]).flatMap(({ send }) => (send === undefined ? [] : [JSON.stringify(send)])),
  );
  const texts: Uint8Array[] = [];
  for (let at = 0; at < requests.length; at += 5) texts.push(asBytes(requests.slice(at, at + 5).join('\n')));
  return texts;
}

/** The command lines of fixtures/options, a word on a line. */
export function commandLines(): Uint8Array[] {
  return jsonFiles('options').flatMap(({ cases }) =>
    (cases as { line?: string[] }[]).flatMap(({ line }) =>
      line === undefined ? [] : [asBytes(line.join('\n'))],
    ),
  );
}

interface Edit {
  readonly kind: 'set' | 'flip' | 'insert' | 'remove' | 'splice' | 'repeat';
  /** Where, in 65536ths of the length. */
  readonly at: number;
  readonly value: number;
  readonly other: number;
}

function apply(bytes: Uint8Array, { kind, at, value, other }: Edit, all: readonly Uint8Array[]): Uint8Array {
  const place = Math.floor((at / 65536) * (bytes.length + 1));
  const before = bytes.subarray(0, place);
  const join = (...parts: readonly Uint8Array[]): Uint8Array =>
    Uint8Array.from(parts.flatMap((part) => [...part]));
  switch (kind) {
    case 'set':
      return join(before, Uint8Array.of(value), bytes.subarray(place + 1));
    case 'flip':
      return join(before, Uint8Array.of((bytes[place] ?? 0) ^ (1 << (value & 7))), bytes.subarray(place + 1));
    case 'insert':
      return join(before, new Uint8Array((other % 8) + 1).fill(value), bytes.subarray(place));
    case 'remove':
      return join(before, bytes.subarray(place + 1 + (value & 31)));
    case 'splice': {
      const piece = all[other % all.length]!;
      return join(before, piece.subarray(0, value * 8), bytes.subarray(place));
    }
    case 'repeat':
      return join(before, bytes.subarray(place, place + (value & 63)), bytes.subarray(place));
  }
}

const MAX_BYTES = 4096;

/** Members of a corpus with up to `edits` changes. */
export function changed(all: readonly Uint8Array[], edits = 6): fc.Arbitrary<Uint8Array> {
  const edit: fc.Arbitrary<Edit> = fc.record({
    kind: fc.constantFrom('set', 'set', 'flip', 'insert', 'remove', 'splice', 'repeat'),
    at: fc.nat(65535),
    value: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 127, 128, 255)),
    other: fc.nat(255),
  });
  return fc
    .tuple(fc.nat(all.length - 1), fc.array(edit, { minLength: 1, maxLength: edits }))
    .map(([which, list]) =>
      list.reduce((bytes, one) => apply(bytes, one, all), all[which]!).slice(0, MAX_BYTES),
    );
}

/** Parameters of a property: the given runs, many times over when that is asked for. */
export function runs(count: number): fc.Parameters<unknown> {
  return { numRuns: count * FUZZ_TIMES, ...(FUZZ_TIMES === 1 && { seed: SEED }) };
}

/** Every member of the corpus as it is, then `count` changed ones. */
export async function fuzz(
  all: readonly Uint8Array[],
  count: number,
  target: (bytes: Uint8Array) => void | Promise<void>,
): Promise<void> {
  if (all.length === 0) throw new Error('an empty corpus');
  for (const bytes of all) await target(bytes);
  await fc.assert(
    fc.asyncProperty(changed(all), async (bytes) => {
      try {
        await target(bytes);
      } catch (error) {
        throw new Error(`input ${Buffer.from(bytes).toString('hex')}`, { cause: error });
      }
    }),
    runs(count) as fc.Parameters<[Uint8Array]>,
  );
}

/** Every pair in fixtures/frames: the decoded frame must match what the pair's .json expects. */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { fromHex } from '../../src/wire/bytes.ts';
import { type Decoded, decodeFrame } from './decode.ts';

const folder = new URL('../../fixtures/frames/', import.meta.url);

interface Expectation {
  origin: string;
  note: string;
  expect: Decoded;
}

const names = readdirSync(folder)
  .filter((file) => file.endsWith('.json'))
  .map((file) => file.slice(0, -5));

function load(name: string): { bytes: Uint8Array; expected: Expectation } {
  const bytes = fromHex(readFileSync(new URL(`${name}.hex`, folder), 'utf8'));
  if (bytes === null) throw new Error(`${name}.hex is not hexadecimal`);
  return { bytes, expected: JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')) };
}

describe('fixtures/frames', () => {
  it.each(names)('%s', (name) => {
    const { bytes, expected } = load(name);
    expect(expected.origin).not.toBe('');
    const decoded = decodeFrame(bytes, 0, bytes.length);
    expect(decoded).toMatchObject(expected.expect);
    if (!('error' in expected.expect)) expect(decoded).not.toHaveProperty('error');
    // The same in the middle of a larger array, at an odd place, amid bytes that would mislead.
    const amid = new Uint8Array(bytes.length + 101).fill(0xa5);
    amid.set(bytes, 37);
    expect(decodeFrame(amid, 37, 37 + bytes.length)).toEqual(decoded);
  });

  it.each(names)('%s, cut anywhere, never reads past its end', (name) => {
    const { bytes } = load(name);
    for (let end = 0; end < bytes.length; end++) {
      const decoded = decodeFrame(bytes, 0, end);
      const other = bytes.slice();
      for (let i = end; i < other.length; i++) other[i] ^= 0xff;
      expect(decodeFrame(other, 0, end)).toEqual(decoded);
    }
  });
});

/** Numbers of qtest lines: the short way says what the long one does, or nothing. */

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parseAddress, parseNumber, parseShort } from '../../../src/guest/qtest/values.ts';

const digits = fc.string({ unit: fc.constantFrom(...'0123456789abcdefABCDEFgx-+ :@`'), maxLength: 20 });

it('reads a short number as the full parser does', () => {
  const texts = fc.tuple(fc.constantFrom('', '0x', '0X', '0', '-0x', '00x'), digits);
  fc.assert(
    fc.property(texts, ([prefix, rest]) => {
      const text = prefix + rest;
      const short = parseShort(text);
      const full = parseNumber(text);
      if (short >= 0) expect(full).toBe(BigInt(short));
      expect(parseAddress(text)).toBe(full === null ? null : Number(full));
    }),
    { numRuns: 5000 },
  );
});

it('takes the short way for what scripts are made of', () => {
  expect(['0', '7', '0x0', '0xe0003818', '0XABCDEFabcdef'].map(parseShort)).toEqual([
    0, 7, 0, 0xe0003818, 0xabcdefabcdef,
  ]);
  for (const other of ['', '0x', '10', '010', '-1', '0x1234567890abc', '0xg', '0x:'])
    expect(parseShort(other), other).toBe(-1);
});

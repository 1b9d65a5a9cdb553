import { expect, it } from 'vitest';
import { systemRandom } from '../../src/host-io/random.ts';

it('gives unsigned 32-bit numbers, none of them left behind or told twice, across stocks', () => {
  const [a, b] = [systemRandom(), systemRandom()];
  const seen = new Set<number>();
  for (let i = 0; i < 3000; i++) {
    for (const number of [a(), b()]) {
      expect(Number.isInteger(number) && number >= 0 && number < 2 ** 32).toBe(true);
      seen.add(number);
    }
  }
  // 6000 of 2^32: a pair of equal ones is one chance in 240, ten are none.
  expect(seen.size).toBeGreaterThan(5990);
  let ones = 0;
  for (let i = 0; i < 32_000; i++) ones += (a() >>> (i & 31)) & 1;
  expect(ones).toBeGreaterThan(15_000);
  expect(ones).toBeLessThan(17_000);
});

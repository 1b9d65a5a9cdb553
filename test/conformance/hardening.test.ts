/** docs/hardening.md: every case has a test that is named for it, and every test that the page names is there. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { caseTable, claims, loadTable, testsByNumber } from '../../docs/hardening-tables.ts';

const TESTS = new URL('..', import.meta.url).pathname;
const page = readFileSync(new URL('../../docs/hardening.md', import.meta.url), 'utf8');
const found = testsByNumber(TESTS);

it('has a test for each of the 58 cases', () => {
  expect([...found.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: 58 }, (_, i) => i + 1));
  expect(caseTable(TESTS).split('\n')).toHaveLength(60);
});

it('names tests that there are, for every case', () => {
  const named = claims(page);
  expect([...new Set(named.map(({ number }) => number))]).toEqual(
    Array.from({ length: 58 }, (_, i) => i + 1),
  );
  for (const { number, file, name } of named) expect(found.get(number)).toContainEqual({ file, name });
});

it('names tests of loads and faults that there are', () => {
  for (const row of loadTable(TESTS).split('\n')) expect(page).toContain(row);
});

/** The tables of rules, and the page that is made of them. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { nicModels } from '../../src/config/devices/index.ts';
import { DRIVER_RULES, driverRulesPage } from '../../src/nic/driver-rules.ts';

it('every model has rules, each with its register, section and sentence', () => {
  expect(Object.keys(DRIVER_RULES).sort()).toEqual(Object.keys(nicModels).sort());
  for (const rules of Object.values(DRIVER_RULES)) {
    expect(Object.keys(rules).length).toBeGreaterThan(20);
    for (const parts of Object.values(rules)) expect(parts.every((part) => part.length > 1)).toBe(true);
  }
});

it('docs/strict.md is what `npm run docs` writes', () => {
  expect(readFileSync(new URL('../../docs/strict.md', import.meta.url), 'utf8')).toBe(driverRulesPage());
});

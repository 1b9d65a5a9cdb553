/** Writes docs/options.md, docs/qmp.md and docs/strict.md from the tables in src/ and the conversations in fixtures/qmp, and the tables of docs/hardening.md from the tests: `npm run docs`. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { referencePage } from '../src/config/reference.ts';
import { type Difference, qmpReferencePage, type SchemaDifference } from '../src/monitor/reference.ts';
import { driverRulesPage } from '../src/nic/driver-rules.ts';
import { withTables } from './hardening-tables.ts';

writeFileSync(new URL('options.md', import.meta.url), referencePage());
writeFileSync(new URL('strict.md', import.meta.url), driverRulesPage());

const differences = ['qmp', 'qmp-process'].flatMap((name) => {
  const folder = new URL(`../fixtures/${name}/`, import.meta.url);
  return readdirSync(folder)
    .sort()
    .flatMap(
      (file) => (JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as { steps: Difference[] }).steps,
    )
    .filter(({ qemu }) => qemu !== undefined);
});
const schema = JSON.parse(
  readFileSync(new URL('../fixtures/qmp-schema/differences.json', import.meta.url), 'utf8'),
) as { differences: SchemaDifference[] };
writeFileSync(new URL('qmp.md', import.meta.url), qmpReferencePage(differences, schema.differences));

const hardening = new URL('hardening.md', import.meta.url);
const tests = new URL('../test', import.meta.url).pathname;
writeFileSync(hardening, withTables(readFileSync(hardening, 'utf8'), tests));

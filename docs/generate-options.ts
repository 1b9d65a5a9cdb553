/** Writes docs/options.md and docs/qmp.md from the tables in src/ and the conversations in fixtures/qmp: `npm run docs`. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { referencePage } from '../src/config/reference.ts';
import { type Difference, qmpReferencePage, type SchemaDifference } from '../src/monitor/reference.ts';

writeFileSync(new URL('options.md', import.meta.url), referencePage());

const fixtures = new URL('../fixtures/qmp/', import.meta.url);
const differences = readdirSync(fixtures)
  .sort()
  .flatMap(
    (file) => (JSON.parse(readFileSync(new URL(file, fixtures), 'utf8')) as { steps: Difference[] }).steps,
  )
  .filter(({ qemu }) => qemu !== undefined);
const schema = JSON.parse(
  readFileSync(new URL('../fixtures/qmp-schema/differences.json', import.meta.url), 'utf8'),
) as { differences: SchemaDifference[] };
writeFileSync(new URL('qmp.md', import.meta.url), qmpReferencePage(differences, schema.differences));

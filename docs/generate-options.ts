/** Writes docs/options.md from the option tables: `npm run docs`. */
import { writeFileSync } from 'node:fs';
import { referencePage } from '../src/config/reference.ts';

writeFileSync(new URL('options.md', import.meta.url), referencePage());

/** Small C programs for guests, compiled statically by this machine's compiler and kept in the cache by what their source says. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureInstalled } from './apt.ts';
import { cached } from './cache.ts';
import { run } from './command.ts';

/** The program made of `guest-programs/NAME.c`. */
export async function guestProgram(name: string): Promise<Uint8Array> {
  const source = fileURLToPath(new URL(`guest-programs/${name}.c`, import.meta.url));
  const recipe = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 12);
  const folder = await cached(`program-${name}-${recipe}`, async (scratch) => {
    await ensureInstalled('gcc', 'libc6-dev');
    await run('gcc', ['-O2', '-Wall', '-Werror', '-static', '-s', '-o', join(scratch, name), source]);
  });
  return readFileSync(join(folder, name));
}

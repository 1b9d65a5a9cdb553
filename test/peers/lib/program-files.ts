/** Programs of this machine for a guest of the same architecture, with the libraries they are linked with. */

import { readFileSync, realpathSync } from 'node:fs';
import { run } from './command.ts';

/** The files that programs need, by path without its first slash. A path that is a link to a program stands for the program itself. */
export async function programFiles(...paths: readonly string[]): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {};
  for (const path of paths) {
    files[path.slice(1)] = readFileSync(path);
    for (const line of (await run('ldd', [realpathSync(path)])).split('\n')) {
      const library = line.match(/(\/\S+) \(0x/)?.[1];
      if (library !== undefined) files[library.slice(1)] ??= readFileSync(library);
    }
  }
  return files;
}

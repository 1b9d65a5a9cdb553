/** Loads the module of a `filter-hook`. */

import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { OptionError } from '../core/errors.ts';
import type { HookModule } from '../link/filter/hook.ts';

/** Rejects with OptionError. TypeScript is taken where this Node reads it (from version 22.18 on, or with a loader). */
export async function loadHookModule(path: string): Promise<HookModule> {
  let loaded: { readonly createHook?: unknown };
  try {
    loaded = (await import(pathToFileURL(resolve(path)).href)) as { readonly createHook?: unknown };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why =
      code === 'ERR_UNKNOWN_FILE_EXTENSION' ? 'this Node reads JavaScript only; compile it first' : message;
    throw new OptionError(`filter-hook: could not load '${path}': ${why.split('\n')[0]}`, {
      option: 'module',
    });
  }
  if (typeof loaded.createHook !== 'function') {
    throw new OptionError(`filter-hook: '${path}' does not export createHook`, { option: 'module' });
  }
  return loaded as HookModule;
}

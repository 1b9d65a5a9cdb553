/**
 * `--config FILE`: the same objects as on the command line, as one JSON object of lists:
 *
 *     { "netdev": [{ "type": "user", "id": "n0" }], "device": [{ "driver": "e1000", "netdev": "n0" }],
 *       "object": [...], "chardev": [...], "guest": { "type": "probe", "once": true } }
 *
 * Each entry becomes a declaration as if it stood on the line, in this order of kinds.
 */
import { OptionError } from '../core/errors.ts';
import { readChardev } from './chardevs.ts';
import type { Declaration, Declared } from './commandline.ts';
import { CommandLineError } from './commandline.ts';
import { readDevice } from './devices/index.ts';
import { readGuest } from './guest.ts';
import { isJsonObject, parseJson } from './json.ts';
import { nearest } from './nearest.ts';
import { readNetdev } from './netdevs/index.ts';
import { readObject } from './objects/index.ts';

const readers: { readonly [section: string]: (value: unknown) => Declared } = {
  chardev: (value) => ({ kind: 'chardev', chardev: readChardev(value) }),
  netdev: (value) => ({ kind: 'netdev', netdev: readNetdev(value) }),
  object: (value) => ({ kind: 'object', object: readObject(value) }),
  device: (value) => ({ kind: 'device', device: readDevice(value) }),
  guest: (value) => ({ kind: 'guest', guest: readGuest(value) }),
};

/** Declarations from the text of the file at `path`. Throws CommandLineError. */
export function parseConfigFile(path: string, text: string): Declaration[] {
  const fail = (error: unknown): never => {
    if (error instanceof OptionError) throw new CommandLineError(error, '--config', path);
    throw error;
  };
  let file: unknown;
  try {
    file = parseJson(text);
    if (!isJsonObject(file)) throw new OptionError('a configuration file holds one JSON object');
    const unknown = Object.keys(file).find((section) => !Object.hasOwn(readers, section));
    if (unknown !== undefined) {
      throw new OptionError(`Parameter '${unknown}' is unexpected`, {
        option: unknown,
        nearest: nearest(unknown, Object.keys(readers)),
      });
    }
  } catch (error) {
    return fail(error);
  }
  const declarations: Declaration[] = [];
  for (const [section, read] of Object.entries(readers)) {
    const value = (file as Record<string, unknown>)[section];
    if (value === undefined) continue;
    for (const entry of Array.isArray(value) ? value : [value]) {
      const argument = JSON.stringify(entry);
      try {
        declarations.push({ ...read(entry), flag: `${path}: ${section}`, argument });
      } catch (error) {
        if (error instanceof OptionError) throw new CommandLineError(error, `${path}: ${section}`, argument);
        throw error;
      }
    }
  }
  return declarations;
}

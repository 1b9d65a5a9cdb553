/**
 * `--config FILE`: the same declarations as on the command line, as one JSON object.
 *
 *   { "netdev": [{"type": "user", "id": "n0"}], "device": [{"driver": "e1000", "netdev": "n0"}],
 *     "chardev": […], "object": […], "mon": […], "guest": {…} }
 *
 * Each element is what the option of that name takes as JSON. Whatever their order in the file, they come out in
 * the order in which they can be made. The text comes from the caller: nothing is read here.
 */
import { OptionError } from '../core/errors.ts';
import { readChardev } from './chardevs.ts';
import { CommandLineError, type Declaration, type Declared } from './commandline.ts';
import { readDevice } from './devices/index.ts';
import { readGuest } from './guest.ts';
import { isJsonObject, type JsonObject, parseJson } from './json.ts';
import { readMon } from './monitor-option.ts';
import { nearest } from './nearest.ts';
import { readNetdev } from './netdevs/index.ts';
import { readObject } from './objects/index.ts';

const readers: { readonly [section: string]: (value: unknown) => Declared } = {
  chardev: (value) => ({ kind: 'chardev', chardev: readChardev(value) }),
  netdev: (value) => ({ kind: 'netdev', netdev: readNetdev(value) }),
  object: (value) => ({ kind: 'object', object: readObject(value) }),
  device: (value) => ({ kind: 'device', device: readDevice(value) }),
  mon: (value) => ({ kind: 'monitor', monitor: readMon(value) }),
  guest: (value) => ({ kind: 'guest', guest: readGuest(value) }),
};

/** Declarations from the text of the file at `path`. Throws CommandLineError. */
export function parseConfigFile(path: string, text: string): Declaration[] {
  const sections = blaming(path, () => sectionsOf(text));
  return Object.entries(readers).flatMap(([section, read]) => {
    const value = sections[section];
    if (value === undefined) return [];
    const entries: readonly unknown[] = Array.isArray(value) ? value : [value];
    return entries.map((entry, i): Declaration => {
      const argument = `${path}: ${section}${Array.isArray(value) ? `[${i}]` : ''}`;
      return { ...blaming(argument, () => read(entry)), flag: '--config', argument };
    });
  });
}

function sectionsOf(text: string): JsonObject {
  const file = parseJson(text);
  if (!isJsonObject(file)) throw new OptionError('a configuration file holds one JSON object');
  const unknown = Object.keys(file).find((section) => !Object.hasOwn(readers, section));
  if (unknown === undefined) return file;
  throw new OptionError(`Parameter '${unknown}' is unexpected`, {
    option: unknown,
    nearest: nearest(unknown, Object.keys(readers)),
  });
}

/** Runs `read`; an OptionError becomes one that names the place in the file. */
function blaming<T>(place: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof OptionError) throw new CommandLineError(error, '--config', place);
    throw error;
  }
}

/**
 * `--config FILE`: the same declarations as JSON.
 *
 *   { "netdev": [{"type": "user", "id": "n0"}], "device": [{"driver": "e1000", "netdev": "n0"}],
 *     "chardev": […], "object": […], "mon": […], "guest": {…} }
 *
 * Each element is what the option of that name takes as JSON. The text comes from the caller: nothing is read here.
 */
import { OptionError } from '../core/errors.ts';
import { readChardev } from './chardevs.ts';
import { CommandLineError, type Declaration, type Declared } from './commandline.ts';
import { readDevice } from './devices/index.ts';
import { readGuest } from './guest.ts';
import { isJsonObject, parseJson } from './json.ts';
import { readMon } from './monitor-option.ts';
import { nearest } from './nearest.ts';
import { readNetdev } from './netdevs/index.ts';
import { readObject } from './objects/index.ts';

const readers: { readonly [section: string]: (value: unknown) => Declared } = {
  chardev: (value) => ({ kind: 'chardev', chardev: readChardev(value) }),
  netdev: (value) => ({ kind: 'netdev', netdev: readNetdev(value) }),
  device: (value) => ({ kind: 'device', device: readDevice(value) }),
  object: (value) => ({ kind: 'object', object: readObject(value) }),
  mon: (value) => ({ kind: 'monitor', monitor: readMon(value) }),
  guest: (value) => ({ kind: 'guest', guest: readGuest(value) }),
};

/** Parses a configuration file's text. `path` is for messages. Throws CommandLineError. */
export function parseConfigFile(text: string, path: string): Declaration[] {
  const blame = (place: string, read: () => Declared): Declaration => {
    try {
      return { ...read(), flag: '--config', argument: place };
    } catch (error) {
      if (!(error instanceof OptionError)) throw error;
      throw new CommandLineError(error, '--config', place);
    }
  };
  const refuse = (sentence: string, near?: string): never => {
    throw new CommandLineError(new OptionError(sentence, { nearest: near }), '--config', path);
  };

  let root: unknown;
  try {
    root = parseJson(text);
  } catch (error) {
    return refuse((error as Error).message);
  }
  if (!isJsonObject(root)) return refuse('Invalid parameter type, expected: object');
  return Object.entries(root).flatMap(([section, value]) => {
    const read = Object.hasOwn(readers, section) ? readers[section] : undefined;
    if (!read) return refuse(`Parameter '${section}' is unexpected`, nearest(section, Object.keys(readers)));
    const list: readonly unknown[] = Array.isArray(value) ? value : [value];
    return list.map((item, i) =>
      blame(`${path}: ${section}${Array.isArray(value) ? `[${i}]` : ''}`, () => read(item)),
    );
  });
}

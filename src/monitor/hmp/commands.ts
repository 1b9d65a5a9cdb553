/** THE TABLE of the prompt's commands. Nearly all are QMP commands with arguments spelled for people; what they print is QEMU's wording. */

import { parseChardev } from '../../config/chardevs.ts';
import { parseDevice } from '../../config/devices/index.ts';
import type { JsonObject } from '../../config/json.ts';
import { parseNetdev } from '../../config/netdevs/index.ts';
import { parseObject } from '../../config/objects/index.ts';
import type { Caller } from '../command.ts';
import { explain } from '../errors.ts';
import { jsonText } from '../json-text.ts';
import { infoTopics } from './info.ts';

export interface HmpCommand {
  /** The first one is shown; others are short for it. */
  readonly names: readonly [string, ...string[]];
  /** Its arguments, as help shows them. */
  readonly usage: string;
  readonly help: string;
  /** How many words it takes: `rest` is one argument with everything in it, `options` the same and may be empty. */
  readonly words: readonly [number, number] | 'rest' | 'options';
  /** What may be typed as the last word. */
  readonly complete?: (caller: Caller, words: readonly string[]) => readonly string[];
  /** Returns what to print. Throws UsageError for words that mean nothing. */
  readonly run: (
    caller: Caller,
    words: readonly string[],
  ) => string | undefined | Promise<string | undefined>;
}

/** Arguments that do not fit; the sentence is printed with a pointer to help. */
export class UsageError extends Error {
  /** What to look up instead of the command. */
  readonly topic: string | undefined;

  constructor(message: string, topic?: string) {
    super(message);
    this.topic = topic;
  }
}

const ids = (caller: Caller, ...kinds: readonly ('nic' | 'netdev' | 'object' | 'chardev')[]): string[] => {
  const { devices, netdevs, objects, chardevs } = caller.monitor.network;
  const known = {
    nic: [...devices.keys()],
    netdev: [...netdevs.keys()],
    object: [...objects.keys()],
    chardev: chardevs.all.map(({ id }) => id),
  };
  return kinds.flatMap((kind) => known[kind]);
};

/** A QMP command by its name. */
async function qmp(caller: Caller, name: string, args: JsonObject): Promise<unknown> {
  return await caller.monitor.execute(name, args, caller);
}

const qmpQuietly =
  (name: string, args: (words: readonly string[]) => JsonObject) =>
  async (caller: Caller, words: readonly string[]): Promise<undefined> => {
    await qmp(caller, name, args(words));
  };

export const hmpCommands: readonly HmpCommand[] = [
  {
    names: ['help', '?'],
    usage: '[cmd]',
    help: 'show the help',
    words: [0, 2],
    complete: (_caller, [name, topic]) => {
      if (topic === undefined) return hmpCommands.flatMap(({ names }) => names);
      return name === 'info' ? Object.keys(infoTopics) : [];
    },
    run: (_caller, [name, topic]) => helpText(name, topic),
  },
  {
    names: ['info'],
    usage: '[topic]',
    help: 'show what is going on',
    words: [0, 2],
    complete: (_caller, words) => (words.length < 2 ? Object.keys(infoTopics) : []),
    run: (caller, [topic, more]) => {
      if (topic === undefined) return listTopics();
      const found = Object.hasOwn(infoTopics, topic) ? infoTopics[topic] : undefined;
      if (found === undefined) return `unknown command: 'info ${topic}'\n`;
      if (more !== undefined)
        throw new UsageError(`${topic}: extraneous characters at the end of line`, `info ${topic}`);
      return found.show(caller.monitor);
    },
  },
  {
    names: ['set_link'],
    usage: 'name on|off',
    help: 'change the link status of a network adapter',
    words: [1, 2],
    complete: (caller, words) => (words.length < 2 ? ids(caller, 'nic', 'netdev') : ['on', 'off']),
    run: async (caller, [name, state]) => {
      if (state !== 'on' && state !== 'off') throw new UsageError("Expected 'on' or 'off'");
      await qmp(caller, 'set_link', { name: name!, up: state === 'on' });
      return undefined;
    },
  },
  {
    names: ['netdev_add'],
    usage: 'TYPE,id=ID[,prop=value][,...]',
    help: 'add a host network device',
    words: 'options',
    run: async ({ monitor }, [text]) => {
      await monitor.network.openNetdev(parseNetdev(text!));
      return undefined;
    },
  },
  {
    names: ['netdev_del'],
    usage: 'id',
    help: 'remove a host network device',
    words: [1, 1],
    complete: (caller) => ids(caller, 'netdev'),
    run: qmpQuietly('netdev_del', ([id]) => ({ id: id! })),
  },
  {
    names: ['device_add'],
    usage: 'driver[,prop=value][,...]',
    help: 'add a NIC',
    words: 'options',
    run: async ({ monitor }, [text]) => {
      await monitor.addDevice(parseDevice(text!));
      return undefined;
    },
  },
  {
    names: ['device_del'],
    usage: 'device',
    help: 'remove a NIC',
    words: [1, 1],
    complete: (caller) => ids(caller, 'nic'),
    run: qmpQuietly('device_del', ([id]) => ({ id: id! })),
  },
  {
    names: ['object_add'],
    usage: 'qom-type,id=ID[,prop=value][,...]',
    help: 'make an object, such as a filter',
    words: 'rest',
    run: async ({ monitor }, [text]) => {
      await monitor.network.openObject(parseObject(text!));
      return undefined;
    },
  },
  {
    names: ['object_del'],
    usage: 'id',
    help: 'remove an object',
    words: [1, 1],
    complete: (caller) => ids(caller, 'object'),
    run: qmpQuietly('object-del', ([id]) => ({ id: id! })),
  },
  {
    names: ['chardev-add'],
    usage: 'type,id=ID[,prop=value][,...]',
    help: 'add a character device',
    words: 'rest',
    run: async ({ monitor }, [text]) => {
      const chardev = await monitor.network.chardevs.open(parseChardev(text!));
      const described = chardev.describe();
      return described.startsWith('pty:') ? `${described}\n` : undefined;
    },
  },
  {
    names: ['chardev-remove'],
    usage: 'id',
    help: 'remove a character device',
    words: [1, 1],
    complete: (caller) => ids(caller, 'chardev'),
    run: qmpQuietly('chardev-remove', ([id]) => ({ id: id! })),
  },
  {
    names: ['ringbuf_write'],
    usage: 'device data',
    help: 'write to a ringbuf character device',
    words: [2, 2],
    complete: (caller) => ids(caller, 'chardev'),
    run: qmpQuietly('ringbuf-write', ([device, data]) => ({ device: device!, data: data! })),
  },
  {
    names: ['ringbuf_read'],
    usage: 'device size',
    help: 'read from a ringbuf character device',
    words: [2, 2],
    complete: (caller) => ids(caller, 'chardev'),
    run: async (caller, [device, size]) => {
      if (!/^\d{1,9}$/.test(size!)) throw new UsageError('Expected a number');
      return `${await qmp(caller, 'ringbuf-read', { device: device!, size: Number(size) })}\n`;
    },
  },
  {
    names: ['hostfwd_add'],
    usage: '[netdev_id] [tcp|udp|unix]:[hostaddr]:hostport-[guestaddr]:guestport',
    help: 'forward a port of the host to a guest',
    words: [1, 2],
    complete: (caller) => ids(caller, 'netdev'),
    run: async (caller, words) => await forward(caller, 'hostfwd-add', words),
  },
  {
    names: ['hostfwd_remove'],
    usage: '[netdev_id] [tcp|udp|unix]:[hostaddr]:hostport',
    help: 'end a forward',
    words: [1, 2],
    complete: (caller) => ids(caller, 'netdev'),
    run: async (caller, words) => {
      const text = await forward(caller, 'hostfwd-remove', words);
      return text ?? `host forwarding rule for ${words.at(-1)} removed\n`;
    },
  },
  {
    names: ['announce_self'],
    usage: '[interfaces] [id]',
    help: 'make the NICs send who they are',
    words: [0, 2],
    complete: (caller) => ids(caller, 'nic'),
    run: qmpQuietly('announce-self', ([interfaces, id]) => ({
      initial: 50,
      max: 550,
      rounds: 5,
      step: 100,
      ...(interfaces !== undefined && interfaces !== '' && { interfaces: interfaces.split(',') }),
      ...(id !== undefined && { id }),
    })),
  },
  {
    names: ['qom-list'],
    usage: 'path',
    help: 'list what is at a place of the object tree',
    words: [0, 1],
    run: async (caller, [path]) => {
      if (path === undefined) return '/\n';
      const listed = await qmp(caller, 'qom-list', { path });
      return (listed as { name: string; type: string }[])
        .map(({ name, type }) => `${name} (${type})\n`)
        .join('');
    },
  },
  {
    names: ['qom-get'],
    usage: 'path property',
    help: 'print a property of an object',
    words: [2, 2],
    run: async (caller, [path, property]) =>
      `${jsonText(await qmp(caller, 'qom-get', { path: path!, property: property! }), true)}\n`,
  },
  {
    names: ['qom-set'],
    usage: 'path property value',
    help: 'change a property of an object',
    words: [3, 3],
    run: qmpQuietly('qom-set', ([path, property, value]) => ({
      path: path!,
      property: property!,
      value: value!,
    })),
  },
  {
    names: ['system_reset'],
    usage: '',
    help: 'reset all NICs',
    words: [0, 0],
    run: qmpQuietly('system_reset', () => ({})),
  },
  {
    names: ['stop', 's'],
    usage: '',
    help: 'freeze all NICs',
    words: [0, 0],
    run: qmpQuietly('stop', () => ({})),
  },
  {
    names: ['cont', 'c'],
    usage: '',
    help: 'let the NICs go on',
    words: [0, 0],
    run: qmpQuietly('cont', () => ({})),
  },
  { names: ['quit', 'q'], usage: '', help: 'end netemu', words: [0, 0], run: qmpQuietly('quit', () => ({})) },
];

/** hostfwd errors are printed without the word Error. */
async function forward(caller: Caller, name: string, words: readonly string[]): Promise<string | undefined> {
  const rule = words.at(-1)!;
  try {
    await qmp(caller, name, { rule, ...(words.length > 1 && { netdev: words[0]! }) });
    return undefined;
  } catch (error) {
    const told = explain(error);
    if (told === undefined) throw error;
    return `${told.desc}\n`;
  }
}

/** The command of that name, short or long. */
export function hmpCommand(name: string): HmpCommand | undefined {
  return hmpCommands.find(({ names }) => names.includes(name));
}

function line({ names, usage, help }: HmpCommand): string {
  return `${names.join('|')} ${usage} -- ${help}\n`;
}

function helpText(name: string | undefined, topic: string | undefined): string {
  if (name === undefined) return hmpCommands.map(line).join('');
  if (name === 'info' && topic !== undefined && !Object.hasOwn(infoTopics, topic))
    return `unknown command: 'info ${topic}'\n`;
  if (name === 'info') return listTopics(topic);
  const found = hmpCommand(name);
  return found === undefined ? `unknown command: '${name}'\n` : line(found);
}

/** All topics, or one of them. */
function listTopics(wanted?: string): string {
  return Object.entries(infoTopics)
    .filter(([topic]) => wanted === undefined || topic === wanted)
    .map(([topic, { help }]) => `info ${topic}  -- ${help}\n`)
    .join('');
}

/** Character devices: made, taken away and asked about; the memory of a ringbuf; connections that are to be cut. */

import { failedToAdd } from '../../chardev/index.ts';
import { RingbufChardev } from '../../chardev/memory.ts';
import { type ChardevConfig, chardevTypes, readChardev } from '../../config/chardevs.ts';
import { addChardevSchema } from '../../config/introspect.ts';
import { isJsonObject, type JsonObject } from '../../config/json.ts';
import { doesNotAccept, isIdentifier } from '../../config/kinds.ts';
import { OptionError } from '../../core/errors.ts';
import type { Network } from '../../network/network.ts';
import {
  type Command,
  command,
  listArgument,
  objectElement,
  onlyMembers,
  rawCommand,
  readArguments,
} from '../command.ts';
import { addShape, bool, list, nothing, optional, str, struct, union } from '../shape.ts';

const id = { kind: 'string', required: true, doc: 'The id of the chardev.' } as const;
const format = {
  kind: 'enum',
  values: ['utf8', 'base64'],
  default: 'utf8',
  doc: 'How bytes are written as text.',
} as const;

const yankInstanceInfo = union('YankInstance', 'type', {}, { chardev: { id: str }, netdev: { id: str } });

export const chardevCommands: readonly Command[] = [
  rawCommand({
    name: 'chardev-add',
    doc: 'Makes a character device. A server does not wait for its client here.',
    returns: struct('ChardevReturn', { pty: optional(str) }),
    schema: addChardevSchema,
    run: async (args, { monitor }) => {
      const config = readConfig(args);
      if (!isIdentifier(config.id))
        throw new OptionError("Parameter 'id' expects an identifier", { option: 'id' });
      const { chardevs } = monitor.network;
      try {
        const chardev = await chardevs.open(config);
        const described = chardev.describe();
        return described.startsWith('pty:') ? { pty: described.slice(4) } : {};
      } catch (error) {
        if (error instanceof OptionError && error.option === 'id') throw error;
        throw failedToAdd(config.id, error);
      }
    },
  }),
  command({
    name: 'chardev-remove',
    doc: 'Takes a character device away that nobody uses.',
    returns: nothing,
    args: { id },
    run: (args, { monitor }) => monitor.network.chardevs.remove(args.id),
  }),
  command({
    name: 'query-chardev',
    doc: 'All character devices.',
    returns: list(struct('ChardevInfo', { label: str, filename: str, 'frontend-open': bool })),
    args: {},
    run: (_args, { monitor }) =>
      monitor.network.chardevs.all.map((chardev) => ({
        label: chardev.id,
        filename: chardev.describe(),
        'frontend-open': chardev.busy,
      })),
  }),
  command({
    name: 'ringbuf-write',
    doc: 'Writes to a ringbuf, as its user would.',
    returns: nothing,
    args: { device: id, data: { kind: 'string', required: true, doc: 'What to write.' }, format },
    run: ({ device, data, format: written }, { monitor }) => {
      const bytes = written === 'base64' ? fromBase64(data) : new TextEncoder().encode(data);
      ringbuf(monitor.network, device).write(bytes, 0, bytes.length);
    },
  }),
  command({
    name: 'ringbuf-read',
    doc: 'Takes the oldest bytes out of a ringbuf.',
    returns: str,
    args: {
      device: id,
      size: { kind: 'uint', bits: 32, required: true, doc: 'At most this many bytes.' },
      format,
    },
    run: ({ device, size, format: written }, { monitor }) => {
      if (size === 0)
        throw new OptionError("Parameter 'size' expects a value greater than zero", { option: 'size' });
      const bytes = ringbuf(monitor.network, device).read(size);
      return written === 'base64' ? toBase64(bytes) : new TextDecoder().decode(bytes);
    },
  }),
  command({
    name: 'query-yank',
    doc: 'What yank can cut.',
    oob: true,
    returns: list(yankInstanceInfo),
    args: {},
    run: (_args, { monitor }) => [...yankable(monitor.network)].map(({ instance }) => instance),
  }),
  rawCommand({
    name: 'yank',
    doc: 'Cuts connections that hang, without waiting for the other end.',
    returns: nothing,
    oob: true,
    schema: (builder) =>
      builder.members('yank-arg', [{ name: 'instances', type: addShape(builder, list(yankInstanceInfo)) }]),
    run: (args, { monitor }) => {
      const wanted = listArgument(args, 'instances').map((element, index) =>
        readArguments(yankInstance, objectElement(element, `instances[${index}]`)),
      );
      onlyMembers(args, ['instances']);
      const cuts = wanted.map(({ type, id: name }) => {
        const found = [...yankable(monitor.network)].find(
          ({ instance }) => instance.type === type && instance.id === name,
        );
        if (found === undefined) throw new OptionError('Instance not found', { qmpClass: 'DeviceNotFound' });
        return found.cut;
      });
      for (const cut of cuts) cut();
    },
  }),
];

/** Reads the nested form, whose type is a member of its own, with QEMU's sentences for it. */
function readConfig(args: JsonObject): ChardevConfig {
  const { id: name, backend } = args;
  if (isJsonObject(backend)) {
    const { type } = backend;
    if (typeof type === 'string' && !Object.hasOwn(chardevTypes, type)) {
      throw doesNotAccept('type', type, Object.keys(chardevTypes));
    }
  }
  try {
    return readChardev(args);
  } catch (error) {
    // What the options mean together is found out when the chardev is made.
    const together = error instanceof OptionError && !/arameter/.test(error.message);
    throw together && typeof name === 'string' ? failedToAdd(name, error) : error;
  }
}

const yankInstance = {
  type: { kind: 'enum', values: ['chardev', 'netdev'], required: true, doc: 'What kind of thing it is.' },
  id: { kind: 'string', required: true, doc: 'Its id.' },
} as const;

interface Yankable {
  readonly instance: { readonly type: 'chardev' | 'netdev'; readonly id: string };
  readonly cut: () => void;
}

function* yankable(network: Network): Generator<Yankable> {
  for (const chardev of network.chardevs.all) {
    if (chardev.yank) yield { instance: { type: 'chardev', id: chardev.id }, cut: () => chardev.yank?.() };
  }
  for (const { id: name, backend } of network.netdevs.values()) {
    if (backend?.yank) yield { instance: { type: 'netdev', id: name }, cut: () => backend.yank?.() };
  }
}

function ringbuf(network: Network, name: string): RingbufChardev {
  const chardev = network.chardevs.get(name);
  if (chardev === undefined) throw new OptionError(`Device '${name}' not found`, { option: 'device' });
  if (!(chardev instanceof RingbufChardev)) {
    throw new OptionError(`${name} is not a ringbuf device`, { option: 'device' });
  }
  return chardev;
}

function fromBase64(text: string): Uint8Array {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    throw new OptionError("Invalid base64 encoding in 'data'", { option: 'data' });
  }
}

function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

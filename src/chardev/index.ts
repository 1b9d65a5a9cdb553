/** THE TABLE of character devices that any platform with host I/O has, and the registry by id. */

import type { ChardevConfig, ChardevDevice } from '../config/chardevs.ts';
import { HostIoError, notInThisBuild, OptionError, UnsupportedError } from '../core/errors.ts';
import type { Chardev, ChardevContext } from './chardev.ts';
import { PassedFds } from './fds.ts';
import { NullChardev, RingbufChardev } from './memory.ts';
import { SocketChardev } from './socket.ts';

type OpenChardev<K extends ChardevDevice['type']> = (
  config: ChardevConfig & Extract<ChardevDevice, { readonly type: K }>,
  context: ChardevContext,
) => Chardev | Promise<Chardev>;

/** Which types can be opened here. A type that is missing parses, and is then refused by name. */
export type ChardevTable = { readonly [K in ChardevDevice['type']]?: OpenChardev<K> };

export const portableChardevs: ChardevTable = {
  null: (config) => new NullChardev(config),
  ringbuf: (config) => new RingbufChardev(config, config.sizeBytes),
  socket: (config, context) => SocketChardev.open(config, context),
};

/** A network's chardevs by id. */
export class Chardevs {
  readonly #table: ChardevTable;
  readonly #context: ChardevContext;
  readonly #chardevs = new Map<string, Chardev>();
  readonly #opening = new Set<string>();
  readonly fds: PassedFds;
  #closed = false;

  constructor(table: ChardevTable, context: Omit<ChardevContext, 'fds'>) {
    this.#table = table;
    this.fds = new PassedFds(context.hostIo);
    this.#context = { ...context, fds: this.fds };
  }

  get(id: string): Chardev | undefined {
    return this.#chardevs.get(id);
  }

  get all(): readonly Chardev[] {
    return [...this.#chardevs.values()];
  }

  /** Opens a chardev from a checked config; a server does not wait for its client here. Rejects with OptionError, HostIoError or UnsupportedError. */
  async open(config: ChardevConfig): Promise<Chardev> {
    const { id } = config;
    if (this.#chardevs.has(id) || this.#opening.has(id)) {
      throw new OptionError(`Chardev with id '${id}' already exists`, { option: 'id' });
    }
    this.#opening.add(id);
    try {
      const chardev = await this.#make(config);
      this.#chardevs.set(id, chardev);
      return chardev;
    } finally {
      this.#opening.delete(id);
    }
  }

  /** The same for a chardev described in place, which is in no list: its user closes it. */
  openUnnamed(device: ChardevDevice): Promise<Chardev> {
    return this.#make({ ...device, id: '' });
  }

  async #make(config: ChardevConfig): Promise<Chardev> {
    // The table pairs each type with its own config, which an index by a union cannot express.
    const open = this.#table[config.type] as
      | ((config: ChardevConfig, context: ChardevContext) => Chardev | Promise<Chardev>)
      | undefined;
    if (open === undefined) {
      throw notInThisBuild(`chardev type '${config.type}'`);
    }
    const chardev = await open(config, this.#context);
    if (!this.#closed) return chardev;
    chardev.close();
    throw new OptionError('the network is closed');
  }

  /** Throws OptionError when it is not there or somebody uses it. */
  remove(id: string): void {
    const chardev = this.#chardevs.get(id);
    if (chardev === undefined) throw new OptionError(`Chardev '${id}' not found`, { option: 'id' });
    if (chardev.busy) throw new OptionError(`Chardev '${id}' is busy`, { option: 'id' });
    this.#chardevs.delete(id);
    chardev.close();
  }

  close(): void {
    this.#closed = true;
    for (const chardev of this.#chardevs.values()) chardev.close();
    this.#chardevs.clear();
    this.fds.close();
  }
}

/** A chardev error in the words of chardev-add. */
export function failedToAdd(id: string, error: unknown): unknown {
  if (error instanceof HostIoError || error instanceof OptionError || error instanceof UnsupportedError) {
    return new OptionError(`Failed to add chardev '${id}': ${error.message}`);
  }
  return error;
}

export type { Channel, ChannelUser, Chardev, ChardevContext, ChardevUser } from './chardev.ts';
export { ChardevStats } from './chardev.ts';

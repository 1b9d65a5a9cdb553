/** What every backend is to the network that holds it, and what it is given. One file per backend opens one of these. */

import type { Chardev } from '../chardev/chardev.ts';
import type { ChardevReference } from '../config/chardevs.ts';
import type { NetdevConfig, NetdevConfigOf, NetdevTypeName } from '../config/netdevs/index.ts';
import type { Random } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { LinkContext, Port } from '../core/port.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import type { QueueServer } from '../virtio/hand-over.ts';

export interface Backend {
  /** One port for each queue; most have one. */
  readonly ports: readonly Port[];
  /** Counters as public number fields. */
  readonly stats: object;
  /** Frames pass to the host and back with a virtio_net_hdr (a tap); absent: without. */
  readonly vnetHeader?: boolean;
  /** It takes the NIC's queues, not its frames: neither a hub nor a filter can stand in between. Absent: it takes frames. */
  readonly queueServer?: QueueServer;
  /** What `info network` shows behind the type, such as `net=10.0.2.0,restrict=off`. */
  describe(): string;
  /** Lines an operator should read once it is open, such as the port that the host chose for a forward. */
  notices?(): readonly string[];
  /** Cuts connections that hang, without waiting for the other end; absent: there are none. */
  yank?(): void;
  /** Releases every frame, handle and file; the ports are disconnected by then. Harmless when repeated. */
  close(): void;
}

/** Something happened that monitors report: an event's QMP name and data. */
export type EmitEvent = (name: string, data: Record<string, unknown>) => void;

/** What a backend may use. */
export interface BackendContext extends LinkContext {
  readonly random: Random;
  readonly log: Logger;
  /** Null where there is no host to reach (a bare browser): backends that need one say so with UnsupportedError. */
  readonly hostIo: HostIo | null;
  readonly emit: EmitEvent;
  /** Hands over the descriptor that a monitor client passed under this name (getfd); absent or undefined: there is none. */
  readonly takeFd?: ((name: string) => Handle | undefined) | undefined;
  /** A stream to a character device (native host I/O only). Throws OptionError or UnsupportedError. Absent: there are none. */
  readonly openChardev?: (reference: ChardevReference) => Handle;
  /** A character device by its id; undefined: there is none of that name. Absent: there are none. */
  readonly chardev?: (id: string) => Chardev | undefined;
}

export type OpenBackend<K extends NetdevTypeName> = (
  config: NetdevConfigOf<K>,
  context: BackendContext,
) => Backend | Promise<Backend>;

/** Which types can be opened here. A type that is missing parses, and is then refused by name. */
export type BackendTable = { readonly [K in Exclude<NetdevTypeName, 'hubport'>]?: OpenBackend<K> };

/** Opens a backend by its type; undefined when the table has none for it. */
export function openFrom(
  table: BackendTable,
  config: NetdevConfig,
  context: BackendContext,
): Backend | Promise<Backend> | undefined {
  // The table pairs each name with its own config type, which an index by a union cannot express.
  const open = table[config.type as keyof BackendTable] as
    | ((config: NetdevConfig, context: BackendContext) => Backend | Promise<Backend>)
    | undefined;
  return open?.(config, context);
}

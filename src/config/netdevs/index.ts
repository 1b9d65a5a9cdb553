/**
 * THE TABLE of netdev types, and the ways in: a command-line argument, JSON, or an object from a caller.
 *
 * Each way ends in a NetdevConfig: checked, defaults filled in, addresses parsed. A type stands here with all its
 * options whether or not its backend can run on this machine; the runtime says so when it cannot.
 */
import { OptionError } from '../../core/errors.ts';
import { isJsonObject, parseJson } from '../json.ts';
import { splitKeyval } from '../keyval.ts';
import { doesNotAccept, isIdentifier, type ReadContext, wrongType } from '../kinds.ts';
import { missing, readJson, readKeyval } from '../read.ts';
import { defineOptions, type InputOf, type OptionsOf, type OptionTable } from '../schema.ts';
import { bridge } from './bridge.ts';
import type { NetdevDefinition } from './definition.ts';
import { dgram } from './dgram.ts';
import { hubport } from './hubport.ts';
import { l2tpv3 } from './l2tpv3.ts';
import { netmap } from './netmap.ts';
import { socket } from './socket.ts';
import { stream } from './stream.ts';
import { tap } from './tap.ts';
import { user } from './user.ts';
import { vde } from './vde.ts';
import { vhostUser } from './vhost-user.ts';
import { websocket } from './websocket.ts';

export const netdevTypes = {
  user,
  tap,
  bridge,
  socket,
  stream,
  dgram,
  l2tpv3,
  vde,
  'vhost-user': vhostUser,
  netmap,
  hubport,
  websocket,
} as const;

export type NetdevTypeName = keyof typeof netdevTypes;

/** What every netdev has. */
export const netdevCommonOptions = defineOptions({
  id: { kind: 'id', required: true, doc: 'The name devices and the monitor refer to. Unique.' },
});

/** A checked netdev of type K. */
export type NetdevConfigOf<K extends NetdevTypeName> = {
  readonly type: K;
  readonly id: string;
} & ReturnType<(typeof netdevTypes)[K]['resolve']>;

/** Any checked netdev; `type` tells which. */
export type NetdevConfig = { [K in NetdevTypeName]: NetdevConfigOf<K> }[NetdevTypeName];

/** What a caller of the embedding API may write. */
export type NetdevInput = {
  [K in NetdevTypeName]: { readonly type: K; readonly id: string } & InputOf<
    (typeof netdevTypes)[K]['options']
  >;
}[NetdevTypeName];

/** Parses the argument of `--netdev`, key=value or JSON. Throws OptionError. */
export function parseNetdev(argument: string): NetdevConfig {
  if (argument.startsWith('{')) return readNetdev(parseJson(argument));
  const entries = splitKeyval(argument, 'type');
  const type = entries.findLast(({ key }) => key === 'type')?.value;
  if (type === undefined) throw missing('type');
  const definition = netdevTypeNamed(type);
  const own = entries.filter(({ key }) => key !== 'type');
  const table = { ...netdevCommonOptions, ...definition.options };
  return resolveNetdev(definition, readKeyval(table, own, { source: 'command-line', voice: 'options' }));
}

/** Reads the arguments of `netdev_add`, or a NetdevInput. Throws OptionError. */
export function readNetdev(value: unknown): NetdevConfig {
  if (!isJsonObject(value)) throw new OptionError('Invalid parameter type, expected: object');
  const { type, ...members } = value;
  if (type === undefined) throw missing('type');
  if (typeof type !== 'string') throw wrongType('type', 'string');
  const definition = netdevTypeNamed(type);
  const table = { ...netdevCommonOptions, ...definition.options };
  return resolveNetdev(definition, readJson(table, members, { source: 'json', voice: 'options' }));
}

/**
 * Reads a netdev of a known type whose id was chosen by the program (`--net`, `--nic`).
 * `rest` are the entries left when the caller has taken its own.
 */
export function readNetdevEntries(
  type: string,
  id: string,
  rest: Parameters<typeof readKeyval>[1],
  context: ReadContext,
): NetdevConfig {
  const definition = netdevTypeNamed(type);
  return resolveNetdev(definition, { ...readKeyval(definition.options, rest, context), id });
}

/** The definition of a type, as one that takes any table. */
export function netdevTypeNamed(type: string): AnyNetdev {
  if (!Object.hasOwn(netdevTypes, type)) throw doesNotAccept('type', type, Object.keys(netdevTypes));
  return netdevTypes[type as NetdevTypeName] as unknown as AnyNetdev;
}

export type AnyNetdev = NetdevDefinition<NetdevTypeName, OptionTable, object>;

function resolveNetdev(definition: AnyNetdev, options: object): NetdevConfig {
  const { id, ...own } = options as { id: string };
  const config = definition.resolve(own as OptionsOf<OptionTable>);
  // The table pairs each name with its own resolve, which the type of the table cannot express.
  return { type: definition.type, id, ...config } as unknown as NetdevConfig;
}

export function netdevNotFound(id: string): OptionError {
  return new OptionError(`netdev '${id}' not found`, { option: 'netdev' });
}

/** Throws for an id that cannot be one; `what` is the kind of thing that has it. */
export function checkId(id: string): void {
  if (!isIdentifier(id)) throw new OptionError("Parameter 'id' expects an identifier", { option: 'id' });
}

/**
 * Character devices: byte streams for guestfwd, filters, monitors and vhost-user.
 *
 * Three spellings lead to the same ChardevConfig:
 *   --chardev socket,id=c0,path=/run/x.sock,server=on        a declaration with an id
 *   chardev-add {"id": …, "backend": {"type": …, "data": …}}  the monitor's nested form
 *   unix:/run/x.sock,server=on                                an address in place (--qmp, --monitor, guestfwd)
 */
import { OptionError } from '../core/errors.ts';
import { isJsonObject, parseJson } from './json.ts';
import { type KeyvalEntry, splitKeyval } from './keyval.ts';
import { isIdentifier, type ReadContext } from './kinds.ts';
import { nearest } from './nearest.ts';
import { missing, readJson, readKeyval } from './read.ts';
import { defineOptions, type OptionSpec, type OptionsOf, type OptionTable } from './schema.ts';
import {
  fdReference,
  resolveInet,
  type SocketAddress,
  socketAddressBranches,
  unixSocketPath,
} from './socket-address.ts';

const socketOptions = defineOptions({
  path: { kind: 'string', metavar: 'path', doc: 'The path of a unix socket.' },
  host: { kind: 'string', metavar: 'host', defaultText: 'every address', doc: 'The TCP host.' },
  port: { kind: 'string', metavar: 'port', doc: 'The TCP port.' },
  fd: { kind: 'string', metavar: 'fd', doc: 'A connected or listening socket by number or getfd name.' },
  to: {
    kind: 'uint',
    bits: 16,
    defaultText: 'port',
    doc: 'When listening, the highest port to try if the ones from port on are taken.',
  },
  ipv4: { kind: 'bool', defaultText: 'as the host name resolves', doc: 'Use IPv4 (off: never).' },
  ipv6: { kind: 'bool', defaultText: 'as the host name resolves', doc: 'Use IPv6 (off: never).' },
  server: { kind: 'bool', default: false, doc: 'Listen instead of connecting.' },
  wait: {
    kind: 'bool',
    defaultText: 'on with server=on',
    doc: 'A listening socket waits for its client before anything starts.',
  },
  delay: { kind: 'bool', default: true, doc: "Let TCP gather small writes (Nagle's algorithm)." },
  'reconnect-ms': {
    kind: 'uint',
    bits: 32,
    default: 0,
    doc: 'Connect again this many milliseconds after the connection is lost; 0 is never.',
  },
  reconnect: {
    kind: 'uint',
    bits: 32,
    legacy: 'use reconnect-ms=',
    doc: 'Connect again this many seconds after the connection is lost.',
  },
  abstract: {
    kind: 'bool',
    default: false,
    doc: 'Refused when on: an abstract socket has no permissions, so every local user could connect.',
  },
});

const stdioOptions = defineOptions({
  signal: { kind: 'bool', default: true, doc: 'Ctrl-C still ends the program; off passes it on as a byte.' },
});
const fileOptions = defineOptions({
  path: { kind: 'string', metavar: 'path', doc: 'The file to write. Required.' },
  'input-path': { kind: 'string', metavar: 'path', doc: 'A file to read from.' },
  append: { kind: 'bool', default: false, doc: 'Add to the file instead of emptying it first.' },
});
const pipeOptions = defineOptions({
  path: {
    kind: 'string',
    metavar: 'path',
    doc: 'A named pipe, or the name both path.in and path.out begin with.',
  },
});
const ptyOptions = defineOptions({
  path: { kind: 'string', metavar: 'path', doc: 'A symbolic link to make to the terminal that was opened.' },
});
const ringbufOptions = defineOptions({
  size: { kind: 'size', default: 65536, doc: 'Bytes kept, a power of two.' },
});

export interface SocketChardev {
  readonly type: 'socket';
  readonly address: SocketAddress;
  readonly server: boolean;
  readonly wait: boolean;
  readonly delay: boolean;
  readonly reconnectMs: number;
}
export type ChardevDevice =
  | SocketChardev
  | { readonly type: 'null' }
  | { readonly type: 'stdio'; readonly signal: boolean }
  | {
      readonly type: 'file';
      readonly path: string;
      readonly inputPath: string | undefined;
      readonly append: boolean;
    }
  | { readonly type: 'pipe'; readonly path: string }
  | { readonly type: 'pty'; readonly path: string | undefined }
  | { readonly type: 'ringbuf'; readonly sizeBytes: number };

export type ChardevConfig = ChardevDevice & { readonly id: string };

/** A declared chardev by id, or one described in place. */
export type ChardevReference =
  | { readonly kind: 'chardev'; readonly id: string }
  | { readonly kind: 'device'; readonly device: ChardevDevice };

interface ChardevType<T extends OptionTable> {
  readonly summary: string;
  readonly options: T;
  readonly resolve: (options: OptionsOf<T>) => ChardevDevice;
}

function chardevType<const T extends OptionTable>(type: ChardevType<T>): ChardevType<T> {
  return type;
}

function required(value: string | undefined, sentence: string): string {
  if (value === undefined) throw new OptionError(sentence);
  return value;
}

/** THE TABLE of character devices. */
export const chardevTypes = {
  socket: chardevType({ summary: 'a unix or TCP socket', options: socketOptions, resolve: resolveSocket }),
  null: chardevType({
    summary: 'swallows what is written',
    options: defineOptions({}),
    resolve: () => ({ type: 'null' }),
  }),
  stdio: chardevType({
    summary: 'standard input and output',
    options: stdioOptions,
    resolve: (o) => ({ type: 'stdio', signal: o.signal }),
  }),
  file: chardevType({
    summary: 'a file',
    options: fileOptions,
    resolve: (o) => ({
      type: 'file',
      path: required(o.path, 'chardev: file: no filename given'),
      inputPath: o['input-path'],
      append: o.append,
    }),
  }),
  pipe: chardevType({
    summary: 'named pipes',
    options: pipeOptions,
    resolve: (o) => ({ type: 'pipe', path: required(o.path, 'chardev: pipe: no device path given') }),
  }),
  pty: chardevType({
    summary: 'a pseudo terminal',
    options: ptyOptions,
    resolve: (o) => ({ type: 'pty', path: o.path }),
  }),
  ringbuf: chardevType({
    summary: 'memory that keeps the last bytes written',
    options: ringbufOptions,
    resolve: (o) => {
      if (o.size <= 0 || !Number.isInteger(Math.log2(o.size)) || o.size > 2 ** 30) {
        throw new OptionError('size of ringbuf chardev must be power of two', { option: 'size' });
      }
      return { type: 'ringbuf', sizeBytes: o.size };
    },
  }),
} as const;

export type ChardevTypeName = keyof typeof chardevTypes;

function resolveSocket(o: OptionsOf<typeof socketOptions>): SocketChardev {
  if ([o.path, o.fd, o.host ?? o.port].filter((given) => given !== undefined).length > 1) {
    throw new OptionError("None or one of 'path', 'fd' or 'host' option required.");
  }
  if (o.reconnect !== undefined && o['reconnect-ms'] !== 0) {
    throw new OptionError("'reconnect' and 'reconnect-ms' are mutually exclusive", { option: 'reconnect' });
  }
  const reconnectMs = o.reconnect === undefined ? o['reconnect-ms'] : o.reconnect * 1000;
  if (o.server && reconnectMs > 0) {
    throw new OptionError("'reconnect' option is incompatible with socket in server listen mode", {
      option: 'reconnect-ms',
    });
  }
  if (!o.server && o.wait !== undefined) {
    throw new OptionError("'wait' option is incompatible with socket in client connect mode", {
      option: 'wait',
    });
  }
  return {
    type: 'socket',
    address: socketAddress(o),
    server: o.server,
    wait: o.server && (o.wait ?? true),
    delay: o.delay,
    reconnectMs,
  };
}

function socketAddress(o: OptionsOf<typeof socketOptions>): SocketAddress {
  if (o.abstract)
    throw new OptionError('abstract unix sockets are refused: every local user could connect to one');
  if (o.path !== undefined) return { type: 'unix', path: unixSocketPath(o.path) };
  if (o.fd !== undefined) return { type: 'fd', fd: fdReference(o.fd) };
  const { host = '', port, to, ipv4, ipv6 } = o;
  if (port === undefined) {
    throw new OptionError(
      o.host === undefined ? 'chardev: socket: no path, port or fd given' : 'chardev: socket: no port given',
    );
  }
  return resolveInet({
    host,
    port,
    ...(to !== undefined && { to }),
    ...(ipv4 !== undefined && { ipv4 }),
    ...(ipv6 !== undefined && { ipv6 }),
  });
}

const ID: OptionTable = { id: { kind: 'id', required: true, doc: 'The name others refer to.' } };
const CLI: ReadContext = { source: 'command-line', voice: 'options' };
const JSON_: ReadContext = { source: 'json', voice: 'options' };

/** Parses the argument of `--chardev`. */
export function parseChardev(argument: string): ChardevConfig {
  if (argument.startsWith('{')) return readChardev(parseJson(argument));
  const entries = splitKeyval(argument, 'backend');
  const backend = entries.findLast(({ key }) => key === 'backend')?.value;
  if (backend === undefined) throw missing('backend');
  const type = chardevTypeNamed(backend);
  if (!entries.some(({ key }) => key === 'id'))
    throw new OptionError('chardev: no id specified', { option: 'id' });
  const own = entries.filter(({ key }) => key !== 'backend');
  const { id, ...options } = readKeyval({ ...ID, ...type.options }, own, CLI) as { id: string };
  return { ...resolveWith(type, options), id };
}

/** Reads `{"backend": "socket", "id": …, …}`, or the monitor's `{"id": …, "backend": {"type": …, "data": …}}`. */
export function readChardev(value: unknown): ChardevConfig {
  if (!isJsonObject(value)) throw new OptionError('Invalid parameter type, expected: object');
  const { backend, ...rest } = value;
  if (backend === undefined) throw missing('backend');
  const flat = isJsonObject(backend) ? { ...rest, ...flatBackend(backend) } : { ...rest, backend };
  const { backend: typeName, ...members } = flat;
  if (typeof typeName !== 'string') {
    throw new OptionError("Invalid parameter type for 'backend', expected: string", { option: 'backend' });
  }
  const type = chardevTypeNamed(typeName);
  const { id, ...options } = readJson({ ...ID, ...type.options }, members, JSON_) as { id: string };
  return { ...resolveWith(type, options), id };
}

/** What chardev-add calls options that have another name on the command line. */
export const nestedNames: { readonly [T in ChardevTypeName]?: Readonly<Record<string, string>> } = {
  file: { path: 'out', 'input-path': 'in' },
  pipe: { path: 'device' },
};

/** The options of a type in chardev-add's `data`; a socket's address is a union of its own there. */
export function nestedOptions(type: ChardevTypeName): OptionTable {
  const names = nestedNames[type] ?? {};
  const own = Object.entries(chardevTypes[type].options as OptionTable).map(
    ([name, spec]): [string, OptionSpec] => [
      names[name] ?? name,
      name === 'path' && names[name] !== undefined ? { ...spec, required: true } : spec,
    ],
  );
  if (type !== 'socket') return Object.fromEntries(own);
  const inAddress = new Set(Object.values(socketAddressBranches).flatMap((branch) => Object.keys(branch)));
  const {
    delay: _delay,
    fd: _fd,
    reconnect: _reconnect,
    ...rest
  } = Object.fromEntries(own.filter(([name]) => !inAddress.has(name)));
  return { ...rest, nodelay: { kind: 'bool', default: false, doc: 'Send small writes at once.' } };
}

/** The monitor wraps each level in {type, data} and names a socket's address `addr`. */
function flatBackend(backend: { readonly [key: string]: unknown }): { [key: string]: unknown } {
  const { type, data, ...extra } = backend;
  for (const key of Object.keys(extra)) {
    throw new OptionError(`Parameter 'backend.${key}' is unexpected`, { option: `backend.${key}` });
  }
  if (type === undefined) throw missing('backend.type');
  if (data !== undefined && !isJsonObject(data)) {
    throw new OptionError("Invalid parameter type for 'backend.data', expected: object", {
      option: 'backend',
    });
  }
  const { addr, nodelay, ...own } = (data ?? {}) as { readonly [key: string]: unknown };
  const names: Readonly<Record<string, string>> = nestedNames[type as ChardevTypeName] ?? {};
  const renamed = Object.entries(names).map(([name, nested]) => [nested, name] as const);
  const flatNames = new Map<string, string>(renamed);
  const members: { [key: string]: unknown } = {};
  for (const [name, value] of Object.entries(own)) members[flatNames.get(name) ?? name] = value;
  if (typeof nodelay === 'boolean') members.delay = !nodelay;
  else if (nodelay !== undefined) members.nodelay = nodelay;
  const address = isJsonObject(addr) ? (isJsonObject(addr.data) ? addr.data : addr) : {};
  const { type: _type, str, ...place } = address as { readonly [key: string]: unknown };
  return {
    ...(str !== undefined && { fd: str }),
    ...(type === 'socket' && members.server === undefined && { server: true }),
    ...place,
    ...members,
    backend: type,
  };
}

/** Parses `chardev:ID`, a bare ID, or an address in place: `unix:PATH`, `tcp:HOST:PORT`, `file:PATH`, `stdio`, … */
export function parseChardevReference(text: string): ChardevReference {
  const [first, ...entries] = splitKeyval(text, 'address');
  const place = first?.value ?? '';
  const colon = place.indexOf(':');
  const scheme = colon < 0 ? place : place.slice(0, colon);
  const rest = colon < 0 ? '' : place.slice(colon + 1);
  const device = (type: ChardevTypeName, own: KeyvalEntry[]): ChardevReference => ({
    kind: 'device',
    device: resolveWith(
      chardevTypes[type],
      readKeyval(chardevTypes[type].options, [...own, ...entries], CLI),
    ),
  });
  switch (scheme) {
    case 'chardev':
      if (!isIdentifier(rest) || entries.length > 0) break;
      return { kind: 'chardev', id: rest };
    case 'unix':
      return device('socket', [{ key: 'path', value: rest }]);
    case 'tcp': {
      const split = /^(?:\[([^\]]*)\]|([^:]*)):([^:]*)$/.exec(rest);
      if (!split)
        throw new OptionError(`host address '${rest}' doesn't contain ':' separating host from port`);
      return device('socket', [
        { key: 'host', value: split[1] ?? split[2] ?? '' },
        { key: 'port', value: split[3]! },
      ]);
    }
    case 'file':
    case 'pipe':
      return device(scheme, [{ key: 'path', value: rest }]);
    case 'null':
    case 'stdio':
    case 'pty':
      if (colon < 0) return device(scheme, []);
      break;
    default:
      if (colon < 0 && isIdentifier(place) && entries.length === 0) return { kind: 'chardev', id: place };
  }
  throw new OptionError(`'${text}' is not a valid char driver`);
}

export function chardevNotFound(id: string): OptionError {
  return new OptionError(`chardev "${id}" not found`, { option: 'chardev' });
}

function chardevTypeNamed(name: string): ChardevType<OptionTable> {
  if (!Object.hasOwn(chardevTypes, name)) {
    throw new OptionError(`'${name}' is not a valid char driver name`, {
      option: 'backend',
      nearest: nearest(name, Object.keys(chardevTypes)),
    });
  }
  return chardevTypes[name as ChardevTypeName] as unknown as ChardevType<OptionTable>;
}

function resolveWith(type: unknown, options: object): ChardevDevice {
  const { resolve } = type as ChardevType<OptionTable>;
  return resolve(options as OptionsOf<OptionTable>);
}

/**
 * QAPI's SocketAddress: where a stream, a datagram socket or a character device meets the world.
 *
 *   addr.type=inet,addr.host=…,addr.port=…     addr.type=unix,addr.path=…     addr.type=fd,addr.str=…
 *
 * Names are resolved later, by whoever opens the socket; here only their form is checked.
 */
import { OptionError } from '../core/errors.ts';
import { type Endpoint, type Host, parseHost, parseIpv4, parsePort, splitHostPort } from './address.ts';
import { defineOptions, type OptionsOf } from './schema.ts';

export const socketAddressBranches = {
  inet: defineOptions({
    host: { kind: 'string', metavar: 'host', required: true, doc: 'The host name or address.' },
    port: { kind: 'string', metavar: 'port', required: true, doc: 'The port number.' },
    to: {
      kind: 'uint',
      bits: 16,
      defaultText: 'port',
      doc: 'When listening, the highest port to try if the ones from port on are taken.',
    },
    ipv4: { kind: 'bool', defaultText: 'as the host name resolves', doc: 'Use IPv4 (off: never).' },
    ipv6: { kind: 'bool', defaultText: 'as the host name resolves', doc: 'Use IPv6 (off: never).' },
    'keep-alive': { kind: 'bool', default: false, doc: 'Send TCP keep-alive probes.' },
  }),
  unix: defineOptions({
    path: { kind: 'string', metavar: 'path', required: true, doc: 'The path of the unix socket.' },
    abstract: {
      kind: 'bool',
      default: false,
      doc: 'Refused when on: an abstract socket has no permissions, so every local user could connect.',
    },
  }),
  fd: defineOptions({
    str: {
      kind: 'string',
      metavar: 'fd',
      required: true,
      doc: 'An inherited file descriptor number, or the name of one passed by getfd.',
    },
  }),
} as const;

/** The option of that name as read from the tables above. */
export type SocketAddressOptions = {
  [B in keyof typeof socketAddressBranches]: { readonly type: B } & OptionsOf<
    (typeof socketAddressBranches)[B]
  >;
}[keyof typeof socketAddressBranches];

export interface InetAddress {
  readonly type: 'inet';
  readonly host: Host;
  readonly port: number;
  /** When listening, the last port to try; equal to `port` unless given. */
  readonly lastPort: number;
  /** The only family to use; undefined lets the resolver's order decide. */
  readonly family: 4 | 6 | undefined;
  readonly keepAlive: boolean;
}
export interface UnixAddress {
  readonly type: 'unix';
  readonly path: string;
}
export interface FdAddress {
  readonly type: 'fd';
  readonly fd: FdReference;
}
export type SocketAddress = InetAddress | UnixAddress | FdAddress;

/** A descriptor by number (inherited) or by the name `getfd` gave it. */
export type FdReference = { readonly number: number } | { readonly name: string };

export function resolveSocketAddress(address: SocketAddressOptions): SocketAddress {
  switch (address.type) {
    case 'inet':
      return resolveInet(address);
    case 'unix':
      if (address.abstract) {
        throw new OptionError('abstract unix sockets are refused: every local user could connect to one');
      }
      return { type: 'unix', path: unixSocketPath(address.path) };
    case 'fd':
      return { type: 'fd', fd: fdReference(address.str) };
  }
}

/** An empty host means every address of the machine, or, for a connection, this machine. */
export function resolveInet(
  options: Omit<Extract<SocketAddressOptions, { type: 'inet' }>, 'type' | 'keep-alive'> & {
    readonly 'keep-alive'?: boolean;
  },
): InetAddress {
  const host = options.host === '' ? parseIpv4('0.0.0.0') : parseHost(options.host);
  if (!host) throw cannotResolve(options.host);
  const port = parsePort(options.port);
  if (port === undefined) throw badPort(options.port);
  const lastPort = options.to ?? port;
  if (lastPort < port)
    throw new OptionError(`Parameter 'to' expects a port number not below ${port}`, { option: 'to' });
  if (options.ipv4 === false && options.ipv6 === false) throw new OptionError('IPv4 and IPv6 disabled');
  const family = options.ipv4 === options.ipv6 ? undefined : options.ipv4 || options.ipv6 === false ? 4 : 6;
  if (family !== undefined && host.family !== 0 && host.family !== family && options.host !== '') {
    throw cannotResolve(options.host);
  }
  return { type: 'inet', host, port, lastPort, family, keepAlive: options['keep-alive'] ?? false };
}

/** Longest path that fits `sockaddr_un` with its terminating zero. */
const UNIX_PATH_MAX = 107;

export function unixSocketPath(path: string): string {
  if (path === '') throw new OptionError('the unix socket path is empty');
  if (path.length > UNIX_PATH_MAX) throw new OptionError(`UNIX socket path '${path}' is too long`);
  return path;
}

/** Digits are a number, an identifier is a name. */
export function fdReference(text: string): FdReference {
  if (/^\d{1,9}$/.test(text)) return { number: Number(text) };
  if (/^[A-Za-z][A-Za-z0-9._-]*$/.test(text)) return { name: text };
  throw new OptionError(`Invalid file descriptor number '${text}'`);
}

/** `host:port` as the `socket` netdev writes it; an empty host means every address. */
export function resolveHostPort(text: string, port: 'any' | 'nonzero'): Endpoint {
  const parts = splitHostPort(text);
  if (!parts) {
    if (/:.*:/.test(text)) throw cannotResolve(text.slice(0, text.lastIndexOf(':')));
    throw new OptionError(`host address '${text}' doesn't contain ':' separating host from port`);
  }
  const host = parts.host === '' ? parseIpv4('0.0.0.0') : parseHost(parts.host);
  if (!host) throw cannotResolve(parts.host);
  const number = parsePort(parts.port);
  if (number === undefined || (number === 0 && port === 'nonzero')) throw badPort(parts.port);
  return { host, port: number };
}

function cannotResolve(host: string): OptionError {
  return new OptionError(`can't resolve host address '${host}'`);
}

function badPort(port: string): OptionError {
  return new OptionError(`port number '${port}' is invalid`);
}

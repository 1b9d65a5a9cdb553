/**
 * `socket`: frames over one TCP connection (4-byte length before each) or as UDP datagrams. Which of the five ways
 * is meant is told by which option is there.
 */
import { OptionError } from '../../core/errors.ts';
import { type Endpoint, type IpAddress, isMulticast, parseIp } from '../address.ts';
import { defineOptions, type OptionsOf } from '../schema.ts';
import { type FdReference, fdReference, resolveHostPort } from '../socket-address.ts';
import { defineNetdev } from './definition.ts';

const options = defineOptions({
  fd: { kind: 'string', metavar: 'fd', doc: 'A connected socket by number or getfd name.' },
  listen: { kind: 'string', metavar: '[host]:port', doc: 'Wait for one TCP connection here.' },
  connect: { kind: 'string', metavar: 'host:port', doc: 'Connect to this TCP address.' },
  mcast: { kind: 'string', metavar: 'maddr:port', doc: 'Join this UDP multicast group.' },
  localaddr: {
    kind: 'string',
    metavar: 'addr|host:port',
    doc: 'With udp, the host:port to send from (mandatory); with mcast, the address of the interface to use.',
  },
  udp: { kind: 'string', metavar: 'host:port', doc: 'Send UDP datagrams to this address.' },
});

export type SocketConfig =
  | { readonly mode: 'fd'; readonly fd: FdReference }
  | { readonly mode: 'listen' | 'connect'; readonly endpoint: Endpoint }
  | {
      readonly mode: 'mcast';
      readonly group: IpAddress;
      readonly port: number;
      readonly local: IpAddress | undefined;
    }
  | { readonly mode: 'udp'; readonly remote: Endpoint; readonly local: Endpoint };

export const socket = defineNetdev({
  type: 'socket',
  summary: 'another emulator over TCP or UDP (listen, connect, mcast, udp)',
  options,
  resolve: (o): SocketConfig => {
    const ways = [o.fd, o.listen, o.connect, o.mcast, o.udp].filter((given) => given !== undefined);
    if (ways.length !== 1) {
      throw new OptionError('exactly one of listen=, connect=, mcast= or udp= is required');
    }
    if (o.localaddr !== undefined && o.mcast === undefined && o.udp === undefined) {
      throw new OptionError('localaddr= is only valid with mcast= or udp=', { option: 'localaddr' });
    }
    if (o.fd !== undefined) return { mode: 'fd', fd: fdReference(o.fd) };
    if (o.listen !== undefined) return { mode: 'listen', endpoint: resolveHostPort(o.listen, 'any') };
    if (o.connect !== undefined) return { mode: 'connect', endpoint: resolveHostPort(o.connect, 'nonzero') };
    return o.mcast === undefined ? udp(o) : mcast(o.mcast, o.localaddr);
  },
});

function mcast(text: string, localText: string | undefined): SocketConfig {
  const { host, port } = resolveHostPort(text, 'nonzero');
  if (host.family === 0 || !isMulticast(host)) {
    const hex = host.family === 4 ? ` (0x${host.value.toString(16).padStart(8, '0')})` : '';
    throw new OptionError(`specified mcastaddr ${host.text}${hex} does not contain a multicast address`, {
      option: 'mcast',
    });
  }
  const local = localText === undefined ? undefined : parseIp(localText);
  if (localText !== undefined && (!local || local.family !== host.family)) {
    throw new OptionError(`localaddr '${localText}' is not an IPv${host.family} address`, {
      option: 'localaddr',
    });
  }
  return { mode: 'mcast', group: host, port, local };
}

function udp(o: OptionsOf<typeof options>): SocketConfig {
  if (o.localaddr === undefined)
    throw new OptionError('localaddr= is mandatory with udp=', { option: 'udp' });
  return {
    mode: 'udp',
    local: resolveHostPort(o.localaddr, 'any'),
    remote: resolveHostPort(o.udp!, 'nonzero'),
  };
}

/**
 * `dgram`: one frame a datagram, between a local and a remote address of the same kind, or in a multicast group
 * (which the remote address tells), or over a passed descriptor.
 */
import { OptionError } from '../../core/errors.ts';
import { type IpAddress, isMulticast } from '../address.ts';
import { defineOptions } from '../schema.ts';
import {
  type FdReference,
  type InetAddress,
  resolveSocketAddress,
  socketAddressBranches,
  type UnixAddress,
} from '../socket-address.ts';
import { defineNetdev } from './definition.ts';

export type DgramConfig =
  | { readonly mode: 'inet'; readonly local: InetAddress; readonly remote: InetAddress }
  | { readonly mode: 'unix'; readonly local: UnixAddress; readonly remote: UnixAddress }
  | { readonly mode: 'fd'; readonly fd: FdReference }
  | {
      readonly mode: 'mcast';
      readonly group: IpAddress;
      readonly port: number;
      /** The interface to use, or an open socket that has joined already. */
      readonly local: InetAddress | { readonly type: 'fd'; readonly fd: FdReference } | undefined;
    };

export const dgram = defineNetdev({
  type: 'dgram',
  summary: 'another emulator over UDP, multicast or unix datagrams',
  options: defineOptions({
    local: {
      kind: 'union',
      tag: 'type',
      branches: socketAddressBranches,
      doc: 'The address to receive on. Only multicast can do without.',
    },
    remote: {
      kind: 'union',
      tag: 'type',
      branches: socketAddressBranches,
      doc: 'The address to send to. Must be of the same type as local, and absent for a descriptor.',
    },
  }),
  resolve: (o): DgramConfig => {
    const remote = o.remote && resolveSocketAddress(o.remote);
    const local = o.local && resolveSocketAddress(o.local);
    if (remote?.type === 'inet' && remote.host.family !== 0 && isMulticast(remote.host)) {
      if (local?.type === 'unix') throw new OptionError('remote and local types must be the same');
      return { mode: 'mcast', group: remote.host, port: remote.port, local };
    }
    if (!local) throw new OptionError('dgram requires local= parameter', { option: 'local' });
    if (local.type === 'fd') {
      if (remote) throw new OptionError("don't set remote with local.fd", { option: 'remote' });
      return { mode: 'fd', fd: local.fd };
    }
    if (!remote) {
      throw new OptionError('type=inet or type=unix requires remote parameter', { option: 'remote' });
    }
    if (local.type === 'inet' && remote.type === 'inet') return { mode: 'inet', local, remote };
    if (local.type === 'unix' && remote.type === 'unix') return { mode: 'unix', local, remote };
    throw new OptionError('remote and local types must be the same', { option: 'remote' });
  },
});

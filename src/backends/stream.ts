/**
 * `stream`: frames over one stream connection, TCP or unix or a descriptor; to connect, with reconnect-ms again and again, or to listen for
 * one peer at a time. Monitors are told of each connection: NETDEV_STREAM_CONNECTED and NETDEV_STREAM_DISCONNECTED.
 */

import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import type { InetAddress, SocketAddress } from '../config/socket-address.ts';
import { type HostIoError, OptionError } from '../core/errors.ts';
import { ERRNO, type Handle, type HostIo } from '../host-io/host-io.ts';
import type { BackendContext, OpenBackend } from './backend.ts';
import {
  needHostIo,
  opening,
  resolveHost,
  type Services,
  showEndpoint,
  showFd,
  takeDescriptor,
  warnIfOpen,
} from './services.ts';
import { type Peer, StreamBackend, type StreamSource } from './stream-peer.ts';
import { isDatagramSocket } from './udp.ts';

export function streamBackend(services: Services): OpenBackend<'stream'> {
  return async (config, context) => {
    const hostIo = needHostIo(context, 'stream');
    const { id, address } = config;
    const source = await openSource(config, context, hostIo, services);
    const shown = showAddress(address, source, hostIo);
    const backend = new StreamBackend(
      {
        id,
        source,
        keepAlive: address.type === 'inet' && address.keepAlive,
        describe(state, detail) {
          if (state === 'connected') return `stream: ${detail === '' ? shown : detail}`;
          const why = detail === '' ? state : `${state}: ${detail}`;
          return `stream: ${shown} (${why})`;
        },
        describePeer: (handle) => describePeer(address, hostIo, handle),
        onConnected(peer) {
          context.emit('NETDEV_STREAM_CONNECTED', { 'netdev-id': id, addr: peer.address });
        },
        onDisconnected() {
          context.emit('NETDEV_STREAM_DISCONNECTED', { 'netdev-id': id });
        },
      },
      context,
      hostIo,
    );
    await backend.start(false);
    return backend;
  };
}

async function openSource(
  { id, address, server, reconnectMs }: NetdevConfigOf<'stream'>,
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): Promise<StreamSource> {
  switch (address.type) {
    case 'inet':
      if (server) {
        const listener = await listenInet(address, hostIo, services);
        warnIfOpen(context, id, hostIo.localEndpoint(listener).address);
        return { kind: 'listen', listener };
      }
      return {
        kind: 'connect',
        reconnectMs,
        connect: async () => {
          const host = await resolveHost(address.host, address.family ?? 0, services);
          return hostIo.tcpConnect({ address: host, port: address.port }, { noDelay: true });
        },
      };
    case 'unix': {
      const { path } = address;
      if (server) {
        return {
          kind: 'listen',
          listener: opening(`Failed to bind socket to ${path}`, () => hostIo.unixListen(path)),
        };
      }
      return { kind: 'connect', reconnectMs, connect: () => hostIo.unixConnect(path) };
    }
    case 'fd': {
      if (reconnectMs > 0) {
        throw new OptionError("'reconnect-ms' needs an address to connect to, not a descriptor", {
          option: 'reconnect-ms',
        });
      }
      return descriptorSource(
        takeDescriptor(address.fd, context, hostIo),
        server,
        showFd(address.fd),
        hostIo,
      );
    }
  }
}

/** A descriptor must be what `server` says: a listening socket, or a connected stream. */
function descriptorSource(handle: Handle, server: boolean, shown: string, hostIo: HostIo): StreamSource {
  const first = hostIo.accept(handle);
  const isListening = first > 0 || first === -ERRNO.EAGAIN;
  if (isListening === server && (server || !isDatagramSocket(hostIo, handle))) {
    if (!server) return { kind: 'connected', handle };
    return { kind: 'listen', listener: handle, ...(first > 0 ? { first } : {}) };
  }
  if (first > 0) hostIo.close(first);
  hostIo.close(handle);
  throw new OptionError(`fd ${shown} is not a ${server ? 'listening' : 'connected stream'} socket`, {
    option: 'addr.str',
  });
}

/** Binds the first free port from `port` to `lastPort`. */
async function listenInet(address: InetAddress, hostIo: HostIo, services: Services): Promise<Handle> {
  const host = await resolveHost(address.host, address.family ?? 0, services);
  for (let port = address.port; ; port++) {
    try {
      return opening('Failed to bind socket', () => hostIo.tcpListen({ address: host, port }));
    } catch (error) {
      if ((error as HostIoError).code !== 'EADDRINUSE' || port >= address.lastPort) throw error;
    }
  }
}

function showAddress(address: SocketAddress, source: StreamSource, hostIo: HostIo): string {
  switch (address.type) {
    case 'inet':
      if (source.kind === 'listen') return `tcp:${showEndpoint(hostIo.localEndpoint(source.listener))}`;
      return `tcp:${showEndpoint({ address: address.host.text, port: address.port })}`;
    case 'unix':
      return `unix:${address.path}`;
    case 'fd':
      return `fd:${showFd(address.fd)}`;
  }
}

function describePeer(address: SocketAddress, hostIo: HostIo, handle: Handle): Peer {
  switch (address.type) {
    case 'inet': {
      const remote = hostIo.remoteEndpoint(handle);
      return {
        name: `tcp:${showEndpoint(remote)}`,
        address: { type: 'inet', host: remote.address, port: String(remote.port) },
      };
    }
    case 'unix':
      return { name: '', address: { type: 'unix', path: address.path } };
    case 'fd':
      return { name: '', address: { type: 'fd', str: showFd(address.fd) } };
  }
}

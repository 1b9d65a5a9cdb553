/**
 * `socket`: frames to another emulator over one TCP connection (listen, connect, or a descriptor) or as UDP datagrams (udp, mcast, or a
 * descriptor that is a datagram socket).
 */

import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import { HostIoError } from '../core/errors.ts';
import { errnoName } from '../host-io/errno.ts';
import type { HostIo } from '../host-io/host-io.ts';
import type { Backend, BackendContext, OpenBackend } from './backend.ts';
import { DatagramBackend } from './datagram-backend.ts';
import { DatagramPort } from './datagram-port.ts';
import {
  needHostIo,
  opening,
  resolveEndpoint,
  type Services,
  showEndpoint,
  showFd,
  takeDescriptor,
  warnIfOpen,
} from './services.ts';
import { ConnectError, StreamBackend } from './stream-peer.ts';
import { familyOf, isDatagramSocket, openGroup, openUnicast } from './udp.ts';

type SocketConfig = NetdevConfigOf<'socket'>;

export function socketBackend(services: Services): OpenBackend<'socket'> {
  return async (config, context) => {
    const hostIo = needHostIo(context, 'socket');
    switch (config.mode) {
      case 'fd':
        return overDescriptor(config, context, hostIo);
      case 'listen':
        return await listen(config, context, hostIo, services);
      case 'connect':
        return await connect(config, context, hostIo, services);
      case 'mcast': {
        const options = openGroup(hostIo, config.group, config.port, config.local?.text);
        const group = { address: config.group.text, port: config.port };
        return new DatagramBackend(
          new DatagramPort(config.id, context, hostIo, options),
          `socket: mcast=${showEndpoint(group)}`,
        );
      }
      case 'udp': {
        const remote = await resolveEndpoint(config.remote, 0, services);
        const local = await resolveEndpoint(config.local, familyOf(remote.address), services);
        const options = openUnicast(hostIo, local, remote);
        return new DatagramBackend(
          new DatagramPort(config.id, context, hostIo, options),
          `socket: udp=${showEndpoint(remote)}`,
        );
      }
    }
  };
}

function overDescriptor(
  config: Extract<SocketConfig, { mode: 'fd' }>,
  context: BackendContext,
  hostIo: HostIo,
): Backend {
  const handle = takeDescriptor(config.fd, context, hostIo);
  const shown = `socket: fd=${showFd(config.fd)}`;
  if (isDatagramSocket(hostIo, handle)) {
    return new DatagramBackend(new DatagramPort(config.id, context, hostIo, { receive: handle }), shown);
  }
  return new StreamBackend(
    {
      id: config.id,
      source: { kind: 'connected', handle },
      describe: (state) => (state === 'connected' ? shown : `${shown} (disconnected)`),
    },
    context,
    hostIo,
  );
}

async function listen(
  config: Extract<SocketConfig, { mode: 'listen' | 'connect' }>,
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): Promise<Backend> {
  const local = await resolveEndpoint(config.endpoint, 0, services);
  warnIfOpen(context, config.id, local.address);
  const listener = opening(`can't bind ip=${local.address} to socket`, () => hostIo.tcpListen(local));
  const at = showEndpoint(hostIo.localEndpoint(listener));
  return new StreamBackend(
    {
      id: config.id,
      source: { kind: 'listen', listener },
      describe: (state, detail) =>
        state === 'connected' ? `socket: connection from ${detail}` : `socket: wait from ${at}`,
      describePeer: (handle) => ({ name: showEndpoint(hostIo.remoteEndpoint(handle)), address: {} }),
    },
    context,
    hostIo,
  );
}

async function connect(
  config: Extract<SocketConfig, { mode: 'listen' | 'connect' }>,
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): Promise<Backend> {
  const remote = await resolveEndpoint(config.endpoint, 0, services);
  const shown = `socket: connect to ${showEndpoint(remote)}`;
  const backend = new StreamBackend(
    {
      id: config.id,
      source: {
        kind: 'connect',
        connect: () => opening("can't connect socket", () => hostIo.tcpConnect(remote, { noDelay: true })),
        reconnectMs: 0,
      },
      describe: (state, detail) => {
        if (state === 'connected') return shown;
        return `${shown} (${detail === '' ? state : detail})`;
      },
    },
    context,
    hostIo,
  );
  try {
    await backend.start(true);
    return backend;
  } catch (error) {
    backend.close();
    if (!(error instanceof ConnectError)) throw error;
    throw new HostIoError('connect', errnoName(error.errno), `can't connect socket: ${error.message}`);
  }
}

/**
 * `dgram`: one frame a datagram to a peer over UDP or unix sockets, in a multicast group, or over a descriptor that somebody else opened.
 *
 * A unix peer need not be there yet, and may be replaced: the socket is bound to our path and connected to the peer's whenever that can be
 * done. The kernel keeps a socket connected to the *process* that had the path, so the path is looked up again when a frame finds nobody,
 * and every LOOK_AGAIN_NS in case the new peer speaks first (to a socket that is still connected to the old one it could not).
 */

import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import type { HostIo } from '../host-io/host-io.ts';
import type { Backend, BackendContext, OpenBackend } from './backend.ts';
import { DatagramBackend } from './datagram-backend.ts';
import { DatagramPort, type DatagramPortOptions } from './datagram-port.ts';
import {
  needHostIo,
  opening,
  resolveEndpoint,
  resolveHost,
  type Services,
  showEndpoint,
  showFd,
  takeDescriptor,
} from './services.ts';
import { isDatagramSocket, notDatagram, openGroup, openUnicast } from './udp.ts';

const LOOK_AGAIN_NS = 1e9;

export function dgramBackend(services: Services): OpenBackend<'dgram'> {
  return async (config, context) => {
    const hostIo = needHostIo(context, 'dgram');
    if (config.mode === 'unix') return openUnix(config, context, hostIo);
    const [options, description] = await openSocket(config, context, hostIo, services);
    return new DatagramBackend(new DatagramPort(config.id, context, hostIo, options), description);
  };
}

async function openSocket(
  config: Exclude<NetdevConfigOf<'dgram'>, { mode: 'unix' }>,
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): Promise<[DatagramPortOptions, string]> {
  switch (config.mode) {
    case 'inet': {
      const remote = await resolveEndpoint(config.remote, config.remote.family ?? 0, services);
      const family = remote.address.includes(':') ? 6 : 4;
      const local = await resolveEndpoint(config.local, config.local.family ?? family, services);
      const options = openUnicast(hostIo, local, remote);
      return [
        options,
        `dgram: udp=${showEndpoint(hostIo.localEndpoint(options.receive))}/${showEndpoint(remote)}`,
      ];
    }
    case 'mcast': {
      const group = { address: config.group.text, port: config.port };
      const description = `dgram: mcast=${showEndpoint(group)}`;
      const { local } = config;
      if (local?.type === 'fd') {
        const receive = takeDescriptor(local.fd, context, hostIo);
        if (!isDatagramSocket(hostIo, receive)) throw notDatagram(hostIo, receive, showFd(local.fd));
        return [
          { receive, remote: group },
          `dgram: fd=${showFd(local.fd)} (cloned mcast=${showEndpoint(group)})`,
        ];
      }
      const own = local && (await resolveHost(local.host, config.group.family, services));
      return [openGroup(hostIo, config.group, config.port, own), description];
    }
    case 'fd': {
      const receive = takeDescriptor(config.fd, context, hostIo);
      if (!isDatagramSocket(hostIo, receive)) throw notDatagram(hostIo, receive, showFd(config.fd));
      return [{ receive }, `dgram: fd=${showFd(config.fd)}`];
    }
  }
}

function openUnix(
  config: Extract<NetdevConfigOf<'dgram'>, { mode: 'unix' }>,
  context: BackendContext,
  hostIo: HostIo,
): Backend {
  const local = config.local.path;
  const remote = config.remote.path;
  const receive = opening(`can't bind unix=${local} to socket`, () => hostIo.unixDatagramOpen({ local }));
  const reconnect = (): boolean => hostIo.datagramConnect(receive, remote) === 0;
  reconnect();
  const link = new DatagramPort(config.id, context, hostIo, { receive, reconnect });
  const lookAgain = context.loop.timer(() => {
    reconnect();
    lookAgain.armIn(LOOK_AGAIN_NS);
  });
  lookAgain.armIn(LOOK_AGAIN_NS);
  return new DatagramBackend(link, `dgram: unix=${local}:${remote}`, () => lookAgain.cancel());
}

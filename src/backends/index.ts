/** THE TABLE of backends under Node. One line each; the options of a type stand in config/netdevs/. */

import { nodeUserServices } from '../host-io/user-services.ts';
import type { BackendTable } from './backend.ts';
import { bridgeBackend } from './bridge.ts';
import { dgramBackend } from './dgram.ts';
import { l2tpv3Backend } from './l2tpv3.ts';
import { netmapBackend } from './netmap.ts';
import { nodeServices } from './node-services.ts';
import type { Services } from './services.ts';
import { socketBackend } from './socket.ts';
import { streamBackend } from './stream.ts';
import { tapBackend } from './tap.ts';
import { openUser } from './user/index.ts';
import { vdeBackend } from './vde.ts';
import { vhostUserBackend } from './vhost-user/index.ts';
import { websocketBackend } from './websocket.ts';

export function createBackends(services: Services): BackendTable {
  return {
    user: openUser(nodeUserServices()),
    tap: tapBackend(services),
    bridge: bridgeBackend(services),
    socket: socketBackend(services),
    stream: streamBackend(services),
    dgram: dgramBackend(services),
    l2tpv3: l2tpv3Backend(services),
    vde: vdeBackend(services),
    'vhost-user': vhostUserBackend,
    netmap: netmapBackend(services),
    websocket: websocketBackend(services),
  };
}

export const nodeBackends: BackendTable = createBackends(nodeServices);

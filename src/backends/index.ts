/** THE TABLE of backends under Node. One line each; the options of a type stand in config/netdevs/. */

import { hostResolvers } from '../host-io/resolvers.ts';
import type { BackendTable } from './backend.ts';
import { dgramBackend } from './dgram.ts';
import { nodeServices } from './node-services.ts';
import type { Services } from './services.ts';
import { socketBackend } from './socket.ts';
import { streamBackend } from './stream.ts';
import { openUser } from './user/index.ts';

export function createBackends(services: Services): BackendTable {
  return {
    user: openUser({ resolvers: hostResolvers() }),
    socket: socketBackend(services),
    stream: streamBackend(services),
    dgram: dgramBackend(services),
  };
}

export const nodeBackends: BackendTable = createBackends(nodeServices);

/** What traceroute and ping see through the user network of a namespace: the gateway, the routers behind the host, the far end, as they are. */

import { afterAll, beforeAll } from 'vitest';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { Routes, userRoutes } from './lib/user-routes.ts';

const routes = new Routes();
let shell: NetnsShell;

beforeAll(async () => {
  await prepare(['tools', 'network-clients']);
  await routes.open();
  shell = new NetnsShell([], routes.host);
});

afterAll(async () => {
  await shell?.close();
  await routes.close();
});

userRoutes(() => ({ shell, gateway4: '10.0.2.2', gateway6: 'fec0::2' }));

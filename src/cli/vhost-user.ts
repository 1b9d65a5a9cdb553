/** A virtio-net whose rings are in another process's hands: the command serves it on a unix socket as a vhost-user back-end. */

import type { DeviceConfig } from '../config/devices/index.ts';
import { InvariantError, UnsupportedError } from '../core/errors.ts';
import { VhostUserBackend, VhostUserHost } from '../guest/vhost-user/index.ts';
import type { Network } from '../network/network.ts';
import { VirtioNet } from '../nic/virtio-net/index.ts';
import type { RunningServer } from './vfio-user.ts';

/** Makes the device and listens at, or connects to, `path`. Throws like `Network.makeDevice`, and HostIoError when the path cannot be had. */
export function startVhostUser(
  network: Network,
  config: DeviceConfig,
  { path, server: listen }: { readonly path: string; readonly server: boolean },
  print: (line: string) => void,
): RunningServer {
  const { loop, pool, context } = network;
  const { hostIo, random, log } = context;
  if (hostIo === null) throw new UnsupportedError('vhost-user needs sockets of the host');
  const host = new VhostUserHost({ pool, loop, random, log });
  const device = network.makeDevice(config, host);
  let backend: VhostUserBackend;
  try {
    if (!(device.nic instanceof VirtioNet)) throw new InvariantError('vhost-user on a NIC that has no rings');
    backend = new VhostUserBackend({ path, listen, device: device.nic, host, hostIo, loop, log });
  } catch (error) {
    network.removeDevice(device.id);
    throw error;
  }
  print(`${device.id}: ${listen ? 'served by vhost-user on' : 'connects by vhost-user to'} ${path}`);
  return { device, start() {}, close: () => backend.close() };
}

/** A NIC whose guest is in another process: the command serves it on a unix socket by vfio-user. */

import type { DeviceConfig } from '../config/devices/index.ts';
import { UnsupportedError } from '../core/errors.ts';
import { VfioUserHost, VfioUserServer } from '../guest/vfio-user/index.ts';
import type { Device, Network } from '../network/network.ts';

export interface RunningServer {
  readonly device: Device;
  /** The virtual machine has its own switch. */
  start(): void;
  close(): void;
}

/** Makes the device and listens at `path`. Throws like `Network.makeDevice`, and HostIoError when the path cannot be had. */
export function startVfioUser(
  network: Network,
  config: DeviceConfig,
  path: string,
  print: (line: string) => void,
): RunningServer {
  const { loop, pool, context } = network;
  const { hostIo, random, log } = context;
  if (hostIo === null) throw new UnsupportedError('vfio-user needs sockets of the host');
  const host = new VfioUserHost({ pool, loop, random, log });
  const device = network.makeDevice(config, host);
  let server: VfioUserServer;
  try {
    server = new VfioUserServer({ path, function: device.nic, host, hostIo, loop, log });
  } catch (error) {
    network.removeDevice(device.id);
    throw error;
  }
  print(`${device.id}: served by vfio-user on ${path}`);
  return { device, start() {}, close: () => server.close() };
}

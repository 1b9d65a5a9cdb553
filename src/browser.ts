/**
 * The portable part, which runs beside an emulator in a browser as well as under Node: no import leads to a Node module. Backends that need
 * the host take whatever HostIo the page brings.
 */

export type { Backend, BackendContext, BackendTable } from './backends/backend.ts';
export { type ClientSocket, type OpenSocket, websocketClient } from './backends/websocket-client.ts';
export type { DeviceConfig, DeviceInput } from './config/devices/index.ts';
export type { ProbeConfig } from './config/guest.ts';
export { parseGuest } from './config/guest.ts';
export type { NetdevConfig, NetdevInput } from './config/netdevs/index.ts';
export type { ObjectConfig, ObjectInput } from './config/objects/index.ts';
export type { Clock, Random } from './core/clock.ts';
export { SystemClock, seededRandom, VirtualClock } from './core/clock.ts';
export { HostIoError, InvariantError, OptionError, UnsupportedError } from './core/errors.ts';
export { type Logger, silentLogger } from './core/log.ts';
export { Loop } from './core/loop.ts';
export { FramePool } from './core/pool.ts';
export { Port } from './core/port.ts';
export { readCounters } from './core/stats.ts';
export { driverModel } from './guest/driver/index.ts';
export { ProbeMachine } from './guest/probe/machine.ts';
export { ProbeGuest } from './guest/probe/probe.ts';
export type { HostIo } from './host-io/host-io.ts';
export { drivePage, type PageGlobals } from './host-io/page-driver.ts';
export { Hub } from './link/hub.ts';
export type { Device, Netdev, NetworkOptions } from './network/network.ts';
export { Network } from './network/network.ts';
export { nics } from './nic/index.ts';
export type { Nic } from './nic/nic.ts';
export { VirtioNet } from './nic/virtio-net/index.ts';
export type { DeviceHost } from './pci/device-host.ts';
export { GuestMemory } from './pci/guest-memory.ts';
export { PciFunction } from './pci/pci-function.ts';

/**
 * A running network: NICs, backends, hubs and filters by name, plugged together as options say. It is what the command line, the monitor
 * and an embedding emulator drive; two networks share nothing.
 *
 *     Network ── netdevs: id → Netdev (backend or hub port, filter chain)
 *             ├─ devices: id → Device (NIC model, the netdev it names)
 *             └─ hubs: number → Hub
 *
 * What is made is either complete or not there at all: an error leaves no port, no handle and no name behind. A netdev that goes
 * takes its NIC's link down; one that comes under a name that a NIC asks for is plugged in at once.
 */

import type { Backend, BackendContext, BackendTable, EmitEvent } from '../backends/backend.ts';
import { openFrom } from '../backends/backend.ts';
import { Chardevs, type ChardevTable, portableChardevs } from '../chardev/index.ts';
import { openChardevStream } from '../chardev/stream.ts';
import { duplicateDeviceId, propertyInUse, propertyNotFoundValue } from '../config/devices/common.ts';
import { type DeviceConfig, type DeviceInput, readDevice } from '../config/devices/index.ts';
import { MacPool } from '../config/mac-pool.ts';
import {
  type NetdevConfig,
  type NetdevConfigOf,
  type NetdevInput,
  netdevNotFound,
  readNetdev,
} from '../config/netdevs/index.ts';
import { vhostUserNeedsVirtio } from '../config/netdevs/vhost-user.ts';
import { filterNetdevNotFound, filterNotFound } from '../config/objects/filter-common.ts';
import { type ObjectConfig, type ObjectInput, objectNotFound, readObject } from '../config/objects/index.ts';
import { objectOptions } from '../config/objects/show.ts';
import type { Clock, Random } from '../core/clock.ts';
import { notInThisBuild, OptionError, UnsupportedError } from '../core/errors.ts';
import { type Logger, silentLogger } from '../core/log.ts';
import { Loop } from '../core/loop.ts';
import { FramePool, type PoolOptions } from '../core/pool.ts';
import { Port } from '../core/port.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import type { ByteSink } from '../link/filter/dump.ts';
import { type Filter, FilterChain, type RunningObject } from '../link/filter/filter.ts';
import type { HookModule } from '../link/filter/hook.ts';
import { createFilter, createObject, type FilterConfig, isFilter } from '../link/filter/index.ts';
import { Hub, type HubPort } from '../link/hub.ts';
import { createNic, type NicTable } from '../nic/index.ts';
import type { Nic } from '../nic/nic.ts';
import { adapt } from '../nic/offload.ts';
import type { DeviceHost } from '../pci/device-host.ts';
import { Announcements } from './announce.ts';

export interface NetworkOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly backends: BackendTable;
  readonly nics: NicTable;
  /** Absent: the character devices that need nothing but host I/O. */
  readonly chardevs?: ChardevTable;
  /** Loads the module of a filter-hook; rejects with OptionError. Absent: there are no modules here. */
  readonly loadHook?: (path: string) => Promise<HookModule>;
  /** Looks a host name up, for chardevs; rejects with OptionError. Absent: only addresses are known. */
  readonly resolveHost?: (name: string, family: 4 | 6 | undefined) => Promise<string>;
  readonly log?: Logger;
  /** Null: no backend that reaches the host can be opened. */
  readonly hostIo?: HostIo | null;
  readonly pool?: PoolOptions;
  /** Milliseconds since 1970 at the clock's zero, for captures. */
  readonly epochMs?: number;
  /** Makes (or empties) a file for a capture; absent: captures to files are refused. */
  readonly openFile?: (path: string) => ByteSink;
  /** Reads a file for a replay; absent: replays are refused. */
  readonly readFile?: (path: string) => Uint8Array;
  /** Told of every event that a monitor would report. */
  readonly onEvent?: EmitEvent;
  /** Hands over a descriptor that a monitor client passed by name (getfd). */
  readonly takeFd?: (name: string) => Handle | undefined;
}

/** Its backend has a NIC's queues or nothing. */
function takesQueuesOnly({ backend }: Netdev): boolean {
  return backend?.queueServer !== undefined && backend.queueServer.optional !== true;
}

/** A netdev: a backend's ports, or a port of a hub. */
export interface Netdev {
  readonly id: string;
  readonly config: NetdevConfig;
  readonly ports: readonly Port[];
  readonly stats: object;
  /** Null for a hub port. */
  readonly backend: Backend | null;
  /** Null for anything else. */
  readonly hubPort: HubPort | null;
  readonly chain: FilterChain;
  describe(): string;
}

export interface Device {
  readonly id: string;
  readonly config: DeviceConfig;
  readonly nic: Nic;
}

/** What `--object` made. */
export interface NetworkObject {
  readonly id: string;
  readonly config: ObjectConfig;
  readonly running: RunningObject;
  /** `running` once more, where it is a filter on a netdev's link; else null. */
  readonly filter: Filter | null;
}

export class Network {
  readonly loop: Loop;
  readonly pool: FramePool;
  readonly netdevs = new Map<string, Netdev>();
  readonly devices = new Map<string, Device>();
  readonly hubs = new Map<number, Hub>();
  readonly objects = new Map<string, NetworkObject>();
  readonly chardevs: Chardevs;
  readonly announcements = new Announcements();
  readonly context: BackendContext;

  readonly #backends: BackendTable;
  readonly #epochMs: number;
  readonly #openFile: (path: string) => ByteSink;
  readonly #readFile: (path: string) => Uint8Array;
  readonly #nics: NicTable;
  readonly #macs = new MacPool();
  /** Ids of netdevs whose backend is being opened. */
  readonly #opening = new Set<string>();
  /** Devices whose queues a netdev has taken: no other netdev can take its place. */
  readonly #served = new Set<Device>();
  readonly #loadHook: NetworkOptions['loadHook'];
  readonly #listeners = new Set<EmitEvent>();
  #running = true;
  #closed = false;

  constructor(options: NetworkOptions) {
    this.loop = new Loop(options.clock);
    this.pool = new FramePool(options.pool);
    this.#backends = options.backends;
    this.#nics = options.nics;
    this.#epochMs = options.epochMs ?? 0;
    this.#loadHook = options.loadHook;
    this.#openFile =
      options.openFile ??
      (() => {
        throw new UnsupportedError('there are no files here to write a capture to');
      });
    this.#readFile =
      options.readFile ??
      (() => {
        throw new UnsupportedError('there are no files here to read a recording from');
      });
    const hostIo = options.hostIo ?? null;
    hostIo?.attachPool(this.pool);
    this.context = {
      pool: this.pool,
      loop: this.loop,
      adapt,
      random: options.random,
      log: options.log ?? silentLogger,
      hostIo,
      emit: (name, data) => {
        for (const listener of this.#listeners) listener(name, data);
      },
      takeFd: (name) => options.takeFd?.(name) ?? this.chardevs.fds.take(name),
    };
    if (hostIo !== null) {
      this.context = {
        ...this.context,
        chardev: (id) => this.chardevs.get(id),
        openChardev: (reference) => openChardevStream(this.chardevs, hostIo, reference),
      };
    }
    if (options.onEvent !== undefined) this.#listeners.add(options.onEvent);
    this.chardevs = new Chardevs(options.chardevs ?? portableChardevs, {
      loop: this.loop,
      log: this.context.log,
      hostIo,
      ...(options.resolveHost && { resolveHost: options.resolveHost }),
    });
  }

  /** Tells `listener` of every event from now on, until the function returned is called. */
  onEvent(listener: EmitEvent): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** False while the guests are to stand still. */
  get running(): boolean {
    return this.#running;
  }

  /** Freezes all NICs: no DMA, no frame in or out, until they run again. What is sent to them waits with its sender. */
  setRunning(running: boolean): void {
    if (running === this.#running) return;
    this.#running = running;
    for (const { nic } of this.devices.values()) this.#hold(nic, !running);
  }

  #hold(nic: Nic, held: boolean): void {
    if (held) for (const port of nic.ports) port.hold(true);
    nic.setStopped(held);
    if (!held) for (const port of nic.ports) port.hold(false);
  }

  /** system_reset: every NIC as after power-on. */
  reset(): void {
    for (const { nic } of this.devices.values()) nic.reset();
  }

  /** Checks and opens a netdev, as `netdev_add` does. Rejects like `openNetdev`. */
  async addNetdev(input: NetdevInput): Promise<Netdev> {
    return await this.openNetdev(readNetdev(input));
  }

  /** Opens a netdev from a checked config. Rejects with OptionError, HostIoError or UnsupportedError; then its id is free again. */
  async openNetdev(config: NetdevConfig): Promise<Netdev> {
    const { id } = config;
    if (this.#closed) throw new OptionError('the network is closed');
    if (this.netdevs.has(id) || this.#opening.has(id)) {
      throw new OptionError(`Duplicate ID '${id}'`, { option: 'id' });
    }
    if (config.type === 'hubport') return this.#register(this.#makeHubPort(config));
    this.#opening.add(id);
    try {
      const opened = openFrom(this.#backends, config, this.context);
      if (opened === undefined) {
        throw notInThisBuild(`netdev type '${config.type}'`);
      }
      const backend = await opened;
      if (this.#closed) {
        backend.close();
        throw new OptionError('the network is closed');
      }
      return this.#register({
        id,
        config,
        ports: backend.ports,
        stats: backend.stats,
        backend,
        hubPort: null,
        chain: new FilterChain(backend.ports[0]!),
        describe: () => backend.describe(),
      });
    } finally {
      this.#opening.delete(id);
    }
  }

  #makeHubPort(config: NetdevConfigOf<'hubport'>): Netdev {
    const { id, hubId, policy } = config;
    const backend = config.netdev === undefined ? null : this.#netdevFor(config.netdev);
    if (backend !== null && backend.ports[0]!.peer !== null) {
      throw new OptionError(`netdev '${backend.id}' is in use`, { option: 'netdev' });
    }
    if (backend !== null && takesQueuesOnly(backend)) throw vhostUserNeedsVirtio();
    if (backend !== null && backend.ports.length > 1) {
      throw new OptionError('Multiqueue tap cannot be used with hubs', { option: 'netdev' });
    }
    const known = this.hubs.get(hubId);
    if (known !== undefined && policy !== undefined && policy !== known.policy) {
      throw new OptionError(`hub ${hubId} has policy=${known.policy} already`, { option: 'policy' });
    }
    const hub = known ?? new Hub(hubId, this.context, policy ?? 'any');
    this.hubs.set(hubId, hub);
    const hubPort = hub.addPort(id);
    if (backend !== null) {
      Port.connect(hubPort.port, backend.ports[0]!);
      backend.chain.route();
    }
    return {
      id,
      config,
      ports: [hubPort.port],
      stats: hubPort.stats,
      backend: null,
      hubPort,
      chain: new FilterChain(hubPort.port),
      describe: () => `hubid=${hubId}`,
    };
  }

  #register(netdev: Netdev): Netdev {
    this.netdevs.set(netdev.id, netdev);
    // Queues are handed over when a device is made, or never.
    if (takesQueuesOnly(netdev)) return netdev;
    for (const device of this.devices.values()) {
      if (this.#served.has(device)) continue;
      if (device.config.netdev === netdev.id && device.nic.ports[0]!.peer === null)
        this.#plug(device.nic, netdev);
    }
    return netdev;
  }

  #netdevFor(id: string): Netdev {
    const netdev = this.netdevs.get(id);
    if (netdev === undefined) throw netdevNotFound(id);
    return netdev;
  }

  /** Takes a netdev away; a NIC on it sees its link go down. */
  removeNetdev(id: string): void {
    const netdev = this.netdevs.get(id);
    if (netdev === undefined) {
      throw new OptionError(`Device '${id}' not found`, { option: 'id', qmpClass: 'DeviceNotFound' });
    }
    this.netdevs.delete(id);
    for (const object of [...this.objects.values()]) {
      if (object.filter !== null && netdev.chain.filters.includes(object.filter))
        this.removeObject(object.id);
    }
    for (const port of netdev.ports) port.disconnect();
    netdev.backend?.close();
    const hubPort = netdev.hubPort;
    if (hubPort === null) return;
    const hub = [...this.hubs.values()].find((candidate) => candidate.ports.includes(hubPort));
    hub?.removePort(hubPort);
    if (hub?.ports.length === 0) this.hubs.delete(hub.id);
  }

  /**
   * Checks properties and makes a NIC on the machine that `host` stands for, as `device_add` does. Throws like `makeDevice`, and
   * UnsupportedError for `vfio-user` and `vhost-user`: whoever gives a host drives the NIC, and the servers make hosts of their own.
   */
  addDevice({ host, ...input }: DeviceInput & { readonly host: DeviceHost }): Device {
    const config = readDevice(input);
    const served =
      config.vfioUser !== undefined
        ? 'vfio-user'
        : config.model === 'virtio-net' && config.vhostUser !== undefined
          ? 'vhost-user'
          : undefined;
    if (served !== undefined) {
      throw new UnsupportedError(
        `addDevice: '${served}' is served by ${served === 'vfio-user' ? 'VfioUserServer' : 'VhostUserBackend'}, not by the host given here`,
      );
    }
    return this.makeDevice(config, host);
  }

  /** Makes a NIC from a checked config and plugs it into the netdev it names. Throws OptionError or UnsupportedError. */
  makeDevice(config: DeviceConfig, host: DeviceHost): Device {
    if (this.#closed) throw new OptionError('the network is closed');
    const netdev = this.checkDevice(config);
    const offered = netdev?.backend?.queueServer;
    const canHandOver = config.model === 'virtio-net' && host.sharedRam !== undefined;
    const server = offered?.optional === true && !canHandOver ? undefined : offered;
    const id = config.id ?? this.#freeDeviceId(config.qomType);
    const mac = this.#macs.take(config.mac);
    let nic: Nic;
    try {
      nic = createNic(
        this.#nics,
        config,
        {
          host,
          link: this.context,
          name: id,
          log: this.context.log,
          queues: netdev?.ports.length ?? 1,
          ...(server && { server }),
        },
        mac,
      );
    } catch (error) {
      this.#macs.release(mac);
      throw error;
    }
    const device: Device = { id, config, nic };
    nic.onRxFilterChanged = () =>
      this.context.emit('NIC_RX_FILTER_CHANGED', { name: id, path: devicePath(config, id) });
    this.devices.set(id, device);
    if (server !== undefined) this.#served.add(device);
    if (!this.#running) this.#hold(nic, true);
    if (netdev !== undefined) this.#plug(nic, netdev);
    return device;
  }

  /** Throws where `addDevice` would, without making anything; returns the netdev that the device names. */
  checkDevice(config: DeviceConfig): Netdev | undefined {
    if (config.id !== undefined && (this.devices.has(config.id) || this.netdevs.has(config.id))) {
      throw duplicateDeviceId(config.id);
    }
    if (config.netdev === undefined) return undefined;
    const netdev = this.netdevs.get(config.netdev);
    if (netdev === undefined) throw propertyNotFoundValue(config.qomType, 'netdev', config.netdev);
    if (netdev.ports[0]!.peer !== null) throw propertyInUse(config.qomType, 'netdev', config.netdev);
    if (takesQueuesOnly(netdev) && config.model !== 'virtio-net') throw vhostUserNeedsVirtio();
    return netdev;
  }

  #freeDeviceId(qomType: string): string {
    for (let n = 0; ; n++) {
      const id = `${qomType}.${n}`;
      if (!this.devices.has(id)) return id;
    }
  }

  #plug(nic: Nic, netdev: Netdev): void {
    const queues = Math.min(nic.ports.length, netdev.ports.length);
    for (let i = 0; i < queues; i++) Port.connect(nic.ports[i]!, netdev.ports[i]!);
    netdev.chain.route();
  }

  removeDevice(id: string): void {
    const device = this.devices.get(id);
    if (device === undefined) {
      throw new OptionError(`Device '${id}' not found`, { option: 'id', qmpClass: 'DeviceNotFound' });
    }
    this.devices.delete(id);
    this.#served.delete(device);
    const netdev = device.config.netdev === undefined ? undefined : this.netdevs.get(device.config.netdev);
    for (const port of device.nic.ports) port.disconnect();
    netdev?.chain.route();
    device.nic.close();
    this.#macs.release(device.nic.mac);
  }

  /** Checks and makes an object, as `object-add` does. Throws like `makeObject`. */
  addObject(input: ObjectInput): NetworkObject {
    return this.makeObject(readObject(input));
  }

  /** The same as `makeObject`, for objects that have to load something first as well. */
  async openObject(config: ObjectConfig): Promise<NetworkObject> {
    if (config.type !== 'filter-hook' || this.#loadHook === undefined) return this.makeObject(config);
    return this.makeObject(config, await this.#loadHook(config.module));
  }

  /** Makes an object from a checked config; a filter goes into its netdev's chain. Throws OptionError, HostIoError or UnsupportedError. */
  makeObject(config: ObjectConfig, hookModule?: HookModule): NetworkObject {
    const { id } = config;
    if (this.objects.has(id)) {
      throw new OptionError(`attempt to add duplicate property '${id}' to object (type 'container')`, {
        option: 'id',
      });
    }
    let filter: Filter | null = null;
    let running: RunningObject;
    if (isFilter(config)) {
      filter = this.#makeFilter(config, hookModule);
      running = filter;
    } else {
      if (config.type === 'colo-compare' && this.objects.get(config.iothread)?.config.type !== 'iothread') {
        throw new OptionError(`Device '${config.iothread}' not found`, { qmpClass: 'DeviceNotFound' });
      }
      running = createObject(config, { ...this.context, chardev: (name) => this.chardevs.get(name) });
    }
    const object = { id, config, running, filter };
    this.objects.set(id, object);
    return object;
  }

  #makeFilter(config: FilterConfig, hookModule: HookModule | undefined): Filter {
    const netdev = this.netdevs.get(config.netdev);
    if (netdev === undefined) throw filterNetdevNotFound();
    if (netdev.backend?.queueServer !== undefined) throw new OptionError('Vhost is not supported');
    if (netdev.ports.length > 1) throw new OptionError('multiqueue is not supported');
    const { chain } = netdev;
    const { position } = config;
    if ('filter' in position && !chain.filters.some((filter) => filter.id === position.filter)) {
      throw filterNotFound(position.filter);
    }
    const filter = createFilter(config, {
      ...this.context,
      epochMs: this.#epochMs,
      hookModule,
      chardev: (id) => this.chardevs.get(id),
      openFile: (path) => this.#openFile(this.chardevs.fds.resolvePath(path)),
      readFile: (path) => this.#readFile(this.chardevs.fds.resolvePath(path)),
      linkHeaderBytes: () => this.#linkHeaderBytes(netdev),
    });
    chain.insert(filter, 'filter' in position ? { id: position.filter, insert: position.at } : position.at);
    return filter;
  }

  /** How long the virtio_net_hdr of frames on a netdev's link is, where both ends have one: a virtio-net guest's on a tap. */
  #linkHeaderBytes({ ports, backend }: Netdev): number {
    const peer = ports[0]!.peer;
    if (peer === null || backend?.vnetHeader !== true) return 0;
    for (const { nic } of this.devices.values()) if (nic.ports[0] === peer) return nic.vnetHdrBytes ?? 0;
    return 0;
  }

  /** Changes options of an object in place, as qom-set does. Throws OptionError for a value that is bad, or an option that stays as it is. */
  changeObject(id: string, changes: Readonly<Record<string, unknown>>): void {
    const object = this.objects.get(id);
    if (object === undefined) throw objectNotFound(id);
    const { config, running, filter } = object;
    const { status, ...own } = filter === null ? { ...changes, status: undefined } : changes;
    const fixed = Object.keys(own).find((name) => !(running.changeable?.includes(name) ?? false));
    if (fixed !== undefined) {
      throw new OptionError(
        `Attempt to set property '${fixed}' of object '${id}' (type '${config.type}') while it is in use`,
        { option: fixed },
      );
    }
    const changed = readObject({ ...objectOptions(config), ...changes, 'qom-type': config.type, id });
    running.change?.(changed);
    this.objects.set(id, { ...object, config: changed });
    if (filter === null || status === undefined || !('status' in changed)) return;
    filter.active = changed.status === 'on';
    if (!filter.active) filter.flush?.();
    for (const netdev of this.netdevs.values())
      if (netdev.chain.filters.includes(filter)) netdev.chain.route();
  }

  removeObject(id: string): void {
    const object = this.objects.get(id);
    if (object === undefined) throw objectNotFound(id);
    this.objects.delete(id);
    const { filter, running } = object;
    if (filter !== null) for (const netdev of this.netdevs.values()) netdev.chain.remove(filter);
    running.close();
  }

  /** set_link: by the name of a NIC or a netdev. */
  setLink(name: string, up: boolean): void {
    const ports = this.devices.get(name)?.nic.ports ?? this.netdevs.get(name)?.ports;
    if (ports === undefined) {
      throw new OptionError(`Device '${name}' not found`, { option: 'name', qmpClass: 'DeviceNotFound' });
    }
    for (const port of ports) port.setLink(up);
  }

  /** Takes everything away: devices first, then netdevs. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const id of [...this.devices.keys()]) this.removeDevice(id);
    for (const id of [...this.netdevs.keys()]) this.removeNetdev(id);
    for (const hub of this.hubs.values()) hub.close();
    this.hubs.clear();
    for (const id of [...this.objects.keys()]) this.removeObject(id);
    this.chardevs.close();
    for (const timer of this.announcements.series.values()) timer.cancel();
  }
}

/** Where a device stands in the object tree. */
export function devicePath(config: DeviceConfig, id: string): string {
  return config.id === undefined ? `/machine/peripheral-anon/${id}` : `/machine/peripheral/${id}`;
}

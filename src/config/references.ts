/**
 * Whether declarations fit together: every name that is referred to exists, is of the right kind and is free.
 * Checked before anything is made, so that a bad line leaves nothing half made. Order on the line does not matter.
 */
import { OptionError } from '../core/errors.ts';
import { type ChardevConfig, type ChardevReference, chardevNotFound } from './chardevs.ts';
import { CommandLineError, type Declaration } from './commandline.ts';
import { propertyInUse, propertyNotFoundValue } from './devices/common.ts';
import type { DeviceConfig } from './devices/index.ts';
import { type NetdevConfig, netdevNotFound } from './netdevs/index.ts';
import { multiqueueInHub } from './netdevs/tap.ts';
import { checkVhostUserChardev, vhostUserNeedsVirtio } from './netdevs/vhost-user.ts';
import { filterNetdevNotFound, filterNotFound } from './objects/filter-common.ts';
import type { ObjectConfig } from './objects/index.ts';

/** Everything that was declared, and what is plugged into what. */
class Graph {
  readonly netdevs = new Map<string, NetdevConfig>();
  readonly chardevs = new Map<string, ChardevConfig>();
  readonly objects = new Map<string, ObjectConfig>();
  readonly devices: DeviceConfig[] = [];
  /** Netdevs that have a peer. */
  readonly taken = new Set<string>();
  readonly hubs = new Map<number, { nics: number; uplinks: number }>();
  /** Devices that joined a hub without a netdev (`--net nic`). */
  readonly onHub = new Set<DeviceConfig>();

  hub(id: number): { nics: number; uplinks: number } {
    let hub = this.hubs.get(id);
    if (!hub) {
      hub = { nics: 0, uplinks: 0 };
      this.hubs.set(id, hub);
    }
    return hub;
  }
}

/** Throws CommandLineError for the first declaration at fault; returns warnings, each one plain sentence. */
export function checkReferences(declarations: readonly Declaration[]): string[] {
  const graph = new Graph();
  for (const pass of [collect, plug]) {
    for (const declaration of declarations) {
      try {
        pass(graph, declaration);
      } catch (error) {
        if (!(error instanceof OptionError)) throw error;
        throw new CommandLineError(error, declaration.flag, declaration.argument);
      }
    }
  }
  return warningsOf(graph);
}

function collect(graph: Graph, declaration: Declaration): void {
  switch (declaration.kind) {
    case 'netdev':
      addUnique(graph.netdevs, declaration.netdev, 'netdev');
      break;
    case 'chardev':
      addUnique(graph.chardevs, declaration.chardev, 'chardev');
      break;
    case 'object':
      addUnique(graph.objects, declaration.object, 'object');
      break;
    case 'device':
      addDevice(graph, declaration.device);
      break;
    case 'net':
      if (declaration.net.netdev) addUnique(graph.netdevs, declaration.net.netdev, 'netdev');
      if (declaration.net.device) addDevice(graph, declaration.net.device);
  }
}

function addUnique<T extends { readonly id: string }>(map: Map<string, T>, item: T, what: string): void {
  if (map.has(item.id)) throw new OptionError(`Duplicate ID '${item.id}' for ${what}`, { option: 'id' });
  map.set(item.id, item);
}

function addDevice(graph: Graph, device: DeviceConfig): void {
  if (device.id !== undefined && graph.devices.some(({ id }) => id === device.id)) {
    throw new OptionError(`Duplicate ID '${device.id}' for device`, { option: 'id' });
  }
  graph.devices.push(device);
}

function plug(graph: Graph, declaration: Declaration): void {
  switch (declaration.kind) {
    case 'netdev':
      plugNetdev(graph, declaration.netdev);
      break;
    case 'device':
      plugDevice(graph, declaration.device, propertyNotFoundValue);
      break;
    case 'net':
      plugLegacy(graph, declaration.net);
      break;
    case 'object':
      checkObject(graph, declaration.object);
      break;
    case 'monitor':
      checkChardev(graph, declaration.monitor.chardev);
      break;
    case 'qtest':
      checkChardev(graph, declaration.address);
      break;
    case 'guest':
      if (declaration.guest.type === 'qtest') checkChardev(graph, declaration.guest.address);
  }
}

function plugLegacy(
  graph: Graph,
  { netdev, device, hub }: Extract<Declaration, { kind: 'net' }>['net'],
): void {
  if (netdev) plugNetdev(graph, netdev);
  if (hub === undefined) {
    if (device) plugDevice(graph, device, (_type, _property, id) => netdevNotFound(id));
  } else if (device) {
    graph.hub(hub).nics++;
    graph.onHub.add(device);
  } else if (netdev) {
    graph.hub(hub).uplinks++;
    graph.taken.add(netdev.id);
  }
}

function plugNetdev(graph: Graph, netdev: NetdevConfig): void {
  switch (netdev.type) {
    case 'user':
      for (const { target } of netdev.guestfwd) if (target.kind !== 'command') checkChardev(graph, target);
      break;
    case 'vhost-user': {
      const chardev = graph.chardevs.get(netdev.chardev);
      if (!chardev) throw chardevNotFound(netdev.chardev);
      checkVhostUserChardev(chardev);
      break;
    }
    case 'hubport': {
      const uplink = netdev.netdev;
      const hub = graph.hub(netdev.hubId);
      if (uplink === undefined) break;
      const target = graph.netdevs.get(uplink);
      if (!target || target === netdev) throw netdevNotFound(uplink);
      if (graph.taken.has(uplink))
        throw new OptionError(`netdev '${uplink}' is in use`, { option: 'netdev' });
      if (target.type === 'tap' && target.multiqueue) throw multiqueueInHub();
      if (target.type === 'vhost-user') throw vhostUserNeedsVirtio();
      graph.taken.add(uplink);
      graph.taken.add(netdev.id);
      hub.uplinks++;
    }
  }
}

function plugDevice(graph: Graph, device: DeviceConfig, notFound: typeof propertyNotFoundValue): void {
  const id = device.netdev;
  if (id === undefined) return;
  const netdev = graph.netdevs.get(id);
  if (!netdev) throw notFound(device.qomType, 'netdev', id);
  if (graph.taken.has(id)) throw propertyInUse(device.qomType, 'netdev', id);
  if (netdev.type === 'hubport' && netdev.netdev !== undefined)
    throw propertyInUse(device.qomType, 'netdev', id);
  if (netdev.type === 'vhost-user' && device.model !== 'virtio-net') {
    throw vhostUserNeedsVirtio();
  }
  graph.taken.add(id);
  if (netdev.type === 'hubport') graph.hub(netdev.hubId).nics++;
}

function checkObject(graph: Graph, object: ObjectConfig): void {
  if ('netdev' in object) {
    if (!graph.netdevs.has(object.netdev)) throw filterNetdevNotFound();
    if ('filter' in object.position) {
      const beside = graph.objects.get(object.position.filter);
      if (!beside || !('position' in beside)) throw filterNotFound(object.position.filter);
    }
  }
  const chardevs =
    object.type === 'filter-mirror'
      ? [object.outdev]
      : object.type === 'filter-redirector'
        ? [object.indev, object.outdev]
        : object.type === 'colo-compare'
          ? [object.primaryIn, object.secondaryIn, object.outdev, object.notifyDev]
          : [];
  for (const id of chardevs) {
    if (id !== undefined && !graph.chardevs.has(id)) throw new OptionError(`Device '${id}' not found`);
  }
  if (object.type === 'colo-compare' && graph.objects.get(object.iothread)?.type !== 'iothread')
    throw new OptionError(`Device '${object.iothread}' not found`);
}

function checkChardev(graph: Graph, chardev: ChardevReference): void {
  if (chardev.kind === 'chardev' && !graph.chardevs.has(chardev.id)) throw chardevNotFound(chardev.id);
}

function warningsOf(graph: Graph): string[] {
  const warnings: string[] = [];
  for (const netdev of graph.netdevs.values()) {
    if (!graph.taken.has(netdev.id)) warnings.push(`netdev ${netdev.id} has no peer`);
  }
  const seen = new Map<string, number>();
  for (const device of graph.devices) {
    const nth = seen.get(device.model) ?? 0;
    seen.set(device.model, nth + 1);
    if (device.netdev !== undefined || graph.onHub.has(device)) continue;
    warnings.push(`nic ${device.id ?? `${device.qomType}.${nth}`} has no peer`);
  }
  for (const [id, { nics, uplinks }] of graph.hubs) {
    if (nics === 0) warnings.push(`hub ${id} with no nics`);
    else if (uplinks === 0) warnings.push(`hub ${id} is not connected to host network`);
  }
  return warnings;
}

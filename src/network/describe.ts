/**
 * The running graph as plain data, and every counter in it. One walk serves query-network, query-stats, the Prometheus text and the live
 * page, so they never differ.
 */

import type { Port } from '../core/port.ts';
import { type Counters, readCounters } from '../core/stats.ts';
import { formatMac } from './info.ts';
import type { Network } from './network.ts';

export type CountedKind = 'nic' | 'queue' | 'netdev' | 'hub-port' | 'filter' | 'object' | 'chardev' | 'pool';

/** One thing that counts. */
export interface Counted {
  readonly kind: CountedKind;
  /** Where it is in the object tree. */
  readonly path: string;
  /** What tells it from others of its kind. */
  readonly labels: Readonly<Record<string, string>>;
  readonly counters: Counters;
}

/** Everything that counts, in the order of the graph. */
export function* countedThings(network: Network): Generator<Counted> {
  for (const { id, config, nic } of network.devices.values()) {
    const path = `/machine/peripheral/${id}`;
    const labels = { id, type: config.model };
    yield { kind: 'nic', path, labels, counters: readCounters(nic.stats) };
    yield* queues(nic.ports, path, labels);
  }
  for (const { id, config, ports, stats, hubPort, chain } of network.netdevs.values()) {
    const path = `/netdevs/${id}`;
    const labels = { id, type: config.type };
    yield { kind: hubPort === null ? 'netdev' : 'hub-port', path, labels, counters: readCounters(stats) };
    yield* queues(ports, path, labels);
    for (const filter of chain.filters) {
      yield {
        kind: 'filter',
        path: `/objects/${filter.id}`,
        labels: { id: filter.id, type: filter.type, netdev: id },
        counters: readCounters(filter.stats),
      };
    }
  }
  for (const { id, running, filter } of network.objects.values()) {
    if (filter !== null) continue;
    yield {
      kind: 'object',
      path: `/objects/${id}`,
      labels: { id, type: running.type },
      counters: readCounters(running.stats),
    };
  }
  for (const { id, config, stats } of network.chardevs.all) {
    yield {
      kind: 'chardev',
      path: `/chardevs/${id}`,
      labels: { id, type: config.type },
      counters: readCounters(stats),
    };
  }
  const { capacity, free, freeBare, exhausted } = network.pool;
  yield { kind: 'pool', path: '/pool', labels: {}, counters: { capacity, free, freeBare, exhausted } };
}

function* queues(
  ports: readonly Port[],
  path: string,
  labels: Readonly<Record<string, string>>,
): Generator<Counted> {
  for (const [index, port] of ports.entries()) {
    yield {
      kind: 'queue',
      path: `${path}/queue[${index}]`,
      labels: { ...labels, queue: String(index) },
      counters: readCounters(port.stats),
    };
  }
}

/** Values that rise and fall; all other counters only rise. */
export const GAUGES: ReadonlySet<string> = new Set(['capacity', 'free', 'freeBare']);

/** The answer of query-network. */
export function describeNetwork(network: Network) {
  return {
    running: network.running,
    nics: [...network.devices.values()].map(({ id, config, nic }) => ({
      id,
      model: config.qomType,
      mac: formatMac(nic.mac),
      ...(config.netdev !== undefined && { netdev: config.netdev }),
      queues: nic.ports.map((port) => describePort(network, port)),
      counters: readCounters(nic.stats),
    })),
    netdevs: [...network.netdevs.values()].map((netdev) => ({
      id: netdev.id,
      type: netdev.config.type,
      info: netdev.describe(),
      ...(netdev.config.type === 'hubport' && { hub: netdev.config.hubId }),
      queues: netdev.ports.map((port) => describePort(network, port)),
      filters: netdev.chain.filters.map((filter) => ({
        id: filter.id,
        type: filter.type,
        active: filter.active,
        counters: readCounters(filter.stats),
      })),
      ...(netdev.hubPort !== null && { waiting: netdev.hubPort.waiting }),
      counters: readCounters(netdev.stats),
    })),
    hubs: [...network.hubs.values()].map(({ id, policy, ports }) => ({
      id,
      policy,
      ports: ports.map(({ port }) => port.name),
    })),
    objects: [...network.objects.values()]
      .filter(({ filter }) => filter === null)
      .map(({ id, running }) => ({ id, type: running.type, counters: readCounters(running.stats) })),
    chardevs: network.chardevs.all.map((chardev) => ({
      id: chardev.id,
      type: chardev.config.type,
      info: chardev.describe(),
      connected: chardev.connected,
      counters: readCounters(chardev.stats),
    })),
    pool: {
      capacity: network.pool.capacity,
      free: network.pool.free,
      exhausted: network.pool.exhausted,
    },
  };
}

function describePort(network: Network, port: Port) {
  const peer = port.peer === null ? undefined : clientOf(network, port.peer);
  return {
    ...(peer !== undefined && { peer }),
    'link-up': port.up,
    'own-link-up': port.linkUp,
    blocked: port.blocked,
    counters: readCounters(port.stats),
  };
}

/** The id of the NIC or netdev that a port belongs to. */
export function clientOf(network: Network, port: Port): string {
  for (const { id, nic } of network.devices.values()) if (nic.ports.includes(port)) return id;
  for (const { id, ports } of network.netdevs.values()) if (ports.includes(port)) return id;
  return port.name;
}

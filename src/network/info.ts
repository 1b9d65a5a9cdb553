/** `info network`: the graph as QEMU's users read it. */

import { objectOptions } from '../config/objects/show.ts';
import type { Port } from '../core/port.ts';
import type { Device, Netdev, Network } from './network.ts';

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function nicLine(device: Device): string {
  return `${device.id}: index=0,type=nic,model=${device.config.qomType},macaddr=${formatMac(device.nic.mac)}`;
}

function netdevLine(netdev: Netdev): string {
  const details = netdev.describe();
  return `${netdev.id}: index=0,type=${netdev.config.type}${details === '' ? '' : `,${details}`}`;
}

function filterLines(network: Network, netdev: Netdev): string[] {
  const { filters } = netdev.chain;
  if (filters.length === 0) return [];
  return [
    'filters:',
    ...filters.map(({ id, type }) => {
      const object = network.objects.get(id);
      const options = object === undefined ? {} : objectOptions(object.config);
      const shown = Object.entries(options).map(([name, value]) => `,${name}=${onOff(value)}`);
      return `  - ${id}: type=${type}${shown.join('')}`;
    }),
  ];
}

const onOff = (value: unknown): string =>
  typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);

/** One line for each client: hubs with their ports first, then NICs and netdevs, each with its peer under it. */
export function infoNetwork(network: Network): string {
  const lines: string[] = [];
  const shown = new Set<Port>();
  const nameOf = (port: Port | null | undefined): string => {
    for (const device of network.devices.values())
      if (device.nic.ports.includes(port!)) return nicLine(device);
    for (const netdev of network.netdevs.values())
      if (netdev.ports.includes(port!)) return netdevLine(netdev);
    return '';
  };
  for (const hub of network.hubs.values()) {
    lines.push(`hub ${hub.id}`);
    for (const { port } of hub.ports) {
      shown.add(port);
      const peer = port.peer;
      if (peer === null) {
        lines.push(` \\ ${port.name}`);
        continue;
      }
      shown.add(peer);
      lines.push(` \\ ${port.name}: ${nameOf(peer)}`);
    }
  }
  for (const device of network.devices.values()) {
    const port = device.nic.ports[0]!;
    if (shown.has(port)) continue;
    lines.push(nicLine(device));
    if (port.peer !== null) {
      shown.add(port.peer);
      lines.push(` \\ ${nameOf(port.peer)}`);
      for (const netdev of network.netdevs.values()) {
        if (netdev.ports.includes(port.peer)) lines.push(...filterLines(network, netdev));
      }
    }
  }
  for (const netdev of network.netdevs.values()) {
    if (netdev.ports.some((port) => shown.has(port))) continue;
    lines.push(netdevLine(netdev), ...filterLines(network, netdev));
  }
  return lines.join('\n');
}

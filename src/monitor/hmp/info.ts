/** What `info TOPIC` prints. */

import type { UserBackend } from '../../backends/user/index.ts';
import { driverNamed } from '../../config/devices/index.ts';
import { deviceProperties } from '../../config/introspect.ts';
import { OptionError } from '../../core/errors.ts';
import { infoNetwork } from '../../network/info.ts';
import { userNetworks } from '../commands/user.ts';
import { virtioDevices } from '../commands/virtio.ts';
import type { Monitor } from '../monitor.ts';
import { devicePath, findNode } from '../qom.ts';

interface Topic {
  readonly help: string;
  readonly show: (monitor: Monitor) => string;
}

const lines = (all: readonly string[]): string => all.map((text) => `${text}\n`).join('');

export const infoTopics: Readonly<Record<string, Topic>> = {
  chardev: {
    help: 'show the character devices',
    show: ({ network }) => lines(network.chardevs.all.map((one) => `${one.id}: filename=${one.describe()}`)),
  },
  name: {
    help: 'show the name given by --name',
    show: ({ site }) => (site.name === undefined ? '' : `${site.name}\n`),
  },
  network: {
    help: 'show the network state',
    show: ({ network }) => {
      const text = infoNetwork(network);
      return text === '' ? '' : `${text}\n`;
    },
  },
  qtree: { help: 'show the NICs with their properties', show: qtree },
  status: {
    help: 'show whether the guests run',
    show: (monitor) =>
      `VM status: ${monitor.runState === 'running' ? 'running' : `paused${monitor.runState === 'prelaunch' ? ' (prelaunch)' : ''}`}\n`,
  },
  usernet: { help: 'show the flows of user networks', show: usernet },
  virtio: {
    help: 'show the virtio devices',
    show: ({ network }) => {
      const found = virtioDevices(network);
      if (found.length === 0) throw new OptionError('No virtio devices found');
      return lines(found.map(({ name, path }) => `${path} [${name}]`));
    },
  },
  version: { help: 'show the version', show: ({ site }) => `netemu ${site.version}\n` },
};

function qtree(monitor: Monitor): string {
  const out = ['bus: pci.0', '  type PCI'];
  for (const device of monitor.network.devices.values()) {
    const { qomType } = device.config;
    out.push(`  dev: ${qomType}, id "${device.config.id ?? ''}"`);
    const node = findNode(monitor, devicePath(device));
    const names = new Set(deviceProperties(driverNamed(qomType)).map(({ name }) => name));
    for (const property of node.properties) {
      if (!names.has(property.name)) continue;
      const value = property.get();
      out.push(`    ${property.name} = ${typeof value === 'string' ? JSON.stringify(value) : String(value)}`);
    }
  }
  return lines(out);
}

const COLUMNS = [20, 20, 6, 20, 6, 12, 12] as const;

function usernet({ network }: Monitor): string {
  const out: string[] = [];
  for (const { id, backend } of userNetworks(network)) {
    const { flows, forwards, egress } = (backend as UserBackend).info();
    out.push(`Hub -1 (${id}):`);
    out.push(row('Protocol[State]', 'Source Address', 'Port', 'Dest. Address', 'Port', 'Sent', 'Received'));
    for (const { protocol, listen, port, guest, guestPort } of forwards) {
      const shown = protocol === 'unix' ? '' : String(port);
      out.push(
        row(`${protocol.toUpperCase()}[HOST_FORWARD]`, listen, shown, guest, String(guestPort), '', ''),
      );
    }
    for (const flow of flows) {
      const { protocol, state, guest, guestPort, remote, remotePort, fromGuestBytes, toGuestBytes } = flow;
      out.push(
        row(
          `${protocol.toUpperCase()}[${state}]`,
          guest,
          String(guestPort),
          remote,
          String(remotePort),
          String(fromGuestBytes),
          String(toGuestBytes),
        ),
      );
    }
    if (egress.length > 0) out.push('  Egress, in the order it is decided:');
    for (const { rule, hits } of egress) out.push(`    ${rule} (${hits})`);
  }
  return lines(out);
}

function row(...cells: readonly string[]): string {
  return `  ${cells.map((cell, i) => (i === 0 || i === 1 || i === 3 ? cell.padEnd(COLUMNS[i]!) : cell.padStart(COLUMNS[i]!))).join(' ')}`.trimEnd();
}

/** What virtio devices and their drivers have agreed on, in the shapes of the QAPI; for people, and unstable by name (x-) as there. */

import { OptionError } from '../../core/errors.ts';
import type { Device, Network } from '../../network/network.ts';
import type { Features } from '../../virtio/features.ts';
import { VirtioPci } from '../../virtio/pci.ts';
import { type Command, command } from '../command.ts';
import { devicePath } from '../qom.ts';
import { bool, int, list, optional, str, struct, type ValueOfShape } from '../shape.ts';

const path = { kind: 'string', required: true, doc: 'The path that x-query-virtio tells.' } as const;

const deviceFeatures = struct('VirtioDeviceFeatures', {
  transports: list(str),
  'dev-features': optional(list(str)),
  'unknown-dev-features': optional(int),
});
const virtioStatus = struct('VirtioStatus', {
  name: str,
  'bus-name': str,
  'device-id': int,
  'vhost-started': bool,
  'device-endian': str,
  'guest-features': deviceFeatures,
  'host-features': deviceFeatures,
  'num-vqs': int,
  status: struct('VirtioDeviceStatus', { statuses: list(str) }),
  'vm-running': bool,
  broken: bool,
  disabled: bool,
  started: bool,
  'qom-path': str,
});
const virtioQueueStatus = struct('VirtQueueStatus', {
  name: str,
  'queue-index': int,
  inuse: int,
  enabled: bool,
  'vring-num': int,
  'vring-num-default': int,
  'vring-desc': int,
  'vring-avail': int,
  'vring-used': int,
  'last-avail-idx': optional(int),
  'used-idx': int,
});

export const virtioCommands: readonly Command[] = [
  command({
    name: 'x-query-virtio',
    doc: 'All virtio devices.',
    returns: list(struct('VirtioInfo', { path: str, name: str })),
    args: {},
    run: (_args, { monitor }) =>
      virtioDevices(monitor.network).map(({ name, path: at }) => ({ name, path: at })),
  }),
  command({
    name: 'x-query-virtio-status',
    doc: 'Features, status and state of a virtio device.',
    returns: virtioStatus,
    args: { path },
    run: (args, { monitor }) => {
      const { device, nic } = find(monitor.network, args.path, 'realized VirtIODevice');
      return {
        name: 'virtio-net',
        'bus-name': 'virtio-bus',
        'device-id': 1,
        'vhost-started': nic.servedOutside,
        'device-endian': 'little',
        'guest-features': features(nic.accepted),
        'host-features': features(nic.offered),
        'num-vqs': nic.queueCount,
        status: statuses(nic.status),
        'vm-running': monitor.network.running,
        broken: (nic.status & STATUS_NEEDS_RESET) !== 0,
        disabled: false,
        started: nic.live,
        'qom-path': devicePath(device),
      };
    },
  }),
  command({
    name: 'x-query-virtio-queue-status',
    doc: 'Addresses and positions of one queue of a virtio device.',
    returns: virtioQueueStatus,
    args: { path, queue: { kind: 'uint', bits: 16, required: true, doc: 'The number of the queue.' } },
    run: (args, { monitor }) => {
      const state = find(monitor.network, args.path).nic.queueState(args.queue);
      if (state === undefined)
        throw new OptionError(`Invalid virtqueue number ${args.queue}`, { option: 'queue' });
      const { layout, position } = state;
      return {
        name: 'virtio-net',
        'queue-index': args.queue,
        inuse: state.inFlight,
        enabled: state.enabled,
        'vring-num': layout.size,
        'vring-num-default': state.sizeMax,
        'vring-desc': layout.descriptors,
        'vring-avail': layout.driver,
        'vring-used': layout.device,
        'last-avail-idx': position.avail,
        'used-idx': position.used,
      };
    },
  }),
];

interface VirtioDevice {
  readonly device: Device;
  readonly nic: VirtioPci;
  readonly name: string;
  readonly path: string;
}

export function virtioDevices(network: Network): VirtioDevice[] {
  return [...network.devices.values()].flatMap((device) =>
    device.nic instanceof VirtioPci
      ? [{ device, nic: device.nic, name: 'virtio-net', path: `${devicePath(device)}/virtio-backend` }]
      : [],
  );
}

function find(network: Network, wanted: string, what = 'VirtIODevice'): VirtioDevice {
  const found = virtioDevices(network).find((one) => one.path === wanted);
  if (found === undefined) throw new OptionError(`Path ${wanted} is not a ${what}`, { option: 'path' });
  return found;
}

const STATUS_NEEDS_RESET = 64;

/** Virtio 1.3 section 2.1. */
const STATUSES: readonly (readonly [number, string])[] = [
  [1, 'VIRTIO_CONFIG_S_ACKNOWLEDGE: Valid virtio device found'],
  [2, 'VIRTIO_CONFIG_S_DRIVER: Guest OS compatible with device'],
  [8, 'VIRTIO_CONFIG_S_FEATURES_OK: Feature negotiation complete'],
  [4, 'VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready'],
  [64, 'VIRTIO_CONFIG_S_NEEDS_RESET: Irrecoverable error, device needs reset'],
  [128, 'VIRTIO_CONFIG_S_FAILED: Error in guest, device failed'],
];

function statuses(status: number): { statuses: string[] } {
  return { statuses: STATUSES.filter(([bit]) => (status & bit) !== 0).map(([, text]) => text) };
}

/** Virtio 1.3 sections 5.1.3 and 6. */
const NET_FEATURES: Readonly<Record<number, string>> = {
  0: 'CSUM',
  1: 'GUEST_CSUM',
  2: 'CTRL_GUEST_OFFLOADS',
  3: 'MTU',
  5: 'MAC',
  6: 'GSO',
  7: 'GUEST_TSO4',
  8: 'GUEST_TSO6',
  9: 'GUEST_ECN',
  10: 'GUEST_UFO',
  11: 'HOST_TSO4',
  12: 'HOST_TSO6',
  13: 'HOST_ECN',
  14: 'HOST_UFO',
  15: 'MRG_RXBUF',
  16: 'STATUS',
  17: 'CTRL_VQ',
  18: 'CTRL_RX',
  19: 'CTRL_VLAN',
  20: 'CTRL_RX_EXTRA',
  21: 'GUEST_ANNOUNCE',
  22: 'MQ',
  23: 'CTRL_MAC_ADDR',
  52: 'DEVICE_STATS',
  53: 'VQ_NOTF_COAL',
  54: 'GUEST_USO4',
  55: 'GUEST_USO6',
  56: 'HOST_USO',
  57: 'HASH_REPORT',
  59: 'GUEST_HDRLEN',
  60: 'RSS',
  61: 'RSC_EXT',
  62: 'STANDBY',
  63: 'SPEED_DUPLEX',
};
const TRANSPORT_FEATURES: Readonly<Record<number, string>> = {
  24: 'NOTIFY_ON_EMPTY',
  27: 'ANY_LAYOUT',
  28: 'RING_INDIRECT_DESC',
  29: 'RING_EVENT_IDX',
  32: 'VERSION_1',
  33: 'ACCESS_PLATFORM',
  34: 'RING_PACKED',
  35: 'IN_ORDER',
  36: 'ORDER_PLATFORM',
  37: 'SR_IOV',
  38: 'NOTIFICATION_DATA',
  40: 'RING_RESET',
};

function features(bits: Features): ValueOfShape<typeof deviceFeatures> {
  const named = (table: Readonly<Record<number, string>>, prefix: string): string[] =>
    Object.entries(table)
      .filter(([bit]) => bits.has(Number(bit)))
      .map(([, name]) => `${prefix}${name}`);
  const unknown = Array.from({ length: 64 }, (_, bit) => bit).filter(
    (bit) => bits.has(bit) && NET_FEATURES[bit] === undefined && TRANSPORT_FEATURES[bit] === undefined,
  );
  return {
    transports: named(TRANSPORT_FEATURES, 'VIRTIO_F_'),
    'dev-features': named(NET_FEATURES, 'VIRTIO_NET_F_'),
    ...(unknown.length > 0 && { 'unknown-dev-features': unknown.reduce((sum, bit) => sum + 2 ** bit, 0) }),
  };
}

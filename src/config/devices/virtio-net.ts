/**
 * Properties of virtio-net. Features are on unless the user takes them away; what the peer cannot serve is not
 * offered, whatever stands here. Names are QEMU's, one per feature bit.
 */
import { OptionError } from '../../core/errors.ts';
import { expects } from '../kinds.ts';
import { defineOptions, type OptionsOf } from '../schema.ts';
import { propertyBadValue } from './common.ts';

export const virtioNetOptions = defineOptions({
  csum: { kind: 'bool', default: true, doc: 'CSUM: frames from the driver may lack their checksum.' },
  guest_csum: {
    kind: 'bool',
    default: true,
    doc: 'GUEST_CSUM: the driver takes frames that lack their checksum.',
  },
  gso: {
    kind: 'bool',
    default: true,
    doc: 'GSO: the old all-in-one segmentation feature, legacy interface only.',
  },
  guest_tso4: {
    kind: 'bool',
    default: true,
    doc: 'GUEST_TSO4: the driver takes large TCP segments over IPv4.',
  },
  guest_tso6: {
    kind: 'bool',
    default: true,
    doc: 'GUEST_TSO6: the driver takes large TCP segments over IPv6.',
  },
  guest_ecn: { kind: 'bool', default: true, doc: 'GUEST_ECN: the large segments it takes may have ECN set.' },
  guest_ufo: {
    kind: 'bool',
    default: true,
    doc: 'GUEST_UFO: the driver takes large UDP datagrams to be fragmented.',
  },
  guest_uso4: { kind: 'bool', default: true, doc: 'GUEST_USO4: the driver takes UDP bundles over IPv4.' },
  guest_uso6: { kind: 'bool', default: true, doc: 'GUEST_USO6: the driver takes UDP bundles over IPv6.' },
  host_tso4: {
    kind: 'bool',
    default: true,
    doc: 'HOST_TSO4: the driver may send large TCP segments over IPv4.',
  },
  host_tso6: {
    kind: 'bool',
    default: true,
    doc: 'HOST_TSO6: the driver may send large TCP segments over IPv6.',
  },
  host_ecn: { kind: 'bool', default: true, doc: 'HOST_ECN: the large segments it sends may have ECN set.' },
  host_ufo: {
    kind: 'bool',
    default: true,
    doc: 'HOST_UFO: the driver may send large UDP datagrams to be fragmented.',
  },
  host_uso: { kind: 'bool', default: true, doc: 'HOST_USO: the driver may send UDP bundles.' },
  mrg_rxbuf: {
    kind: 'bool',
    default: true,
    doc: 'MRG_RXBUF: a received frame may spread over several buffers.',
  },
  status: { kind: 'bool', default: true, doc: 'STATUS: the link state is shown in the configuration.' },
  ctrl_vq: { kind: 'bool', default: true, doc: 'CTRL_VQ: there is a control queue.' },
  ctrl_rx: {
    kind: 'bool',
    default: true,
    doc: 'CTRL_RX: the driver sets promiscuous and all-multicast modes.',
  },
  ctrl_rx_extra: {
    kind: 'bool',
    default: true,
    doc: 'CTRL_RX_EXTRA: the driver sets the further receive modes.',
  },
  ctrl_vlan: { kind: 'bool', default: true, doc: 'CTRL_VLAN: the driver sets the VLAN filter.' },
  ctrl_mac_addr: {
    kind: 'bool',
    default: true,
    doc: 'CTRL_MAC_ADDR: the driver sets the MAC address by command.',
  },
  ctrl_guest_offloads: {
    kind: 'bool',
    default: true,
    doc: 'CTRL_GUEST_OFFLOADS: the driver changes its receive offloads while running.',
  },
  guest_announce: {
    kind: 'bool',
    default: true,
    doc: 'GUEST_ANNOUNCE: the driver announces itself when asked.',
  },
  mq: { kind: 'bool', default: false, doc: 'MQ: the driver may use all queue pairs of the netdev.' },
  queues: {
    kind: 'uint',
    bits: 16,
    beyond: true,
    defaultText: 'as many as the netdev has',
    doc: 'Queue pairs that a driver may use with mq=on or rss=on.',
  },
  rss: {
    kind: 'bool',
    default: false,
    doc: 'RSS: the driver sets how received flows spread over the queues.',
  },
  hash: { kind: 'bool', default: false, doc: 'HASH_REPORT: received frames carry the hash of their flow.' },
  notf_coal: {
    kind: 'bool',
    default: true,
    beyond: true,
    doc: 'NOTF_COAL: the driver sets how notifications are gathered.',
  },
  failover: { kind: 'bool', default: false, doc: 'STANDBY: this NIC stands in for a passed-through device.' },
  packed: { kind: 'bool', default: false, doc: 'RING_PACKED: the driver may use packed rings.' },
  indirect_desc: {
    kind: 'bool',
    default: true,
    doc: 'INDIRECT_DESC: descriptors may stand in tables of their own.',
  },
  event_idx: {
    kind: 'bool',
    default: true,
    doc: 'EVENT_IDX: each side says when it wants the next notification.',
  },
  in_order: {
    kind: 'bool',
    default: false,
    doc: 'IN_ORDER: buffers are used in the order they were made available.',
  },
  queue_reset: { kind: 'bool', default: true, doc: 'RING_RESET: the driver may reset a single queue.' },
  any_layout: {
    kind: 'bool',
    default: true,
    doc: 'ANY_LAYOUT: headers need no descriptor of their own (legacy).',
  },
  iommu_platform: {
    kind: 'bool',
    default: false,
    doc: 'ACCESS_PLATFORM: addresses go through the platform.',
  },
  rx_queue_size: { kind: 'uint', bits: 16, default: 256, doc: 'Receive ring entries: 256, 512 or 1024.' },
  tx_queue_size: { kind: 'uint', bits: 16, default: 256, doc: 'Transmit ring entries: 256, 512 or 1024.' },
  vectors: {
    kind: 'uint',
    bits: 32,
    defaultText: 'two a queue pair and two more',
    doc: 'MSI-X vectors; 0 leaves only the INTx line.',
  },
  host_mtu: {
    kind: 'uint',
    bits: 16,
    default: 0,
    doc: 'The MTU told to the driver (MTU feature), from 68; 0 tells none.',
  },
  speed: { kind: 'int', default: -1, doc: 'The link speed shown in Mbit/s; -1 is unknown.' },
  duplex: { kind: 'string', metavar: 'half|full', defaultText: 'unknown', doc: 'The duplex mode shown.' },
  'disable-legacy': {
    kind: 'enum',
    values: ['on', 'off', 'auto'],
    default: 'auto',
    doc: 'Leave out the legacy interface; auto keeps it.',
  },
  'disable-modern': { kind: 'bool', default: false, doc: 'Leave out the modern interface.' },
  'vhost-user': {
    kind: 'string',
    metavar: 'path',
    beyond: true,
    doc: "Serve the NIC's queues to a virtual machine monitor on this unix socket, as a vhost-user back-end.",
  },
  server: {
    kind: 'bool',
    default: false,
    beyond: true,
    doc: 'With vhost-user, listen on the socket instead of connecting to it.',
  },
});

/** Two queues each, and the control queue, are within what a PCI device may have vectors for. */
const QUEUE_PAIRS_MAX = 256;

type Options = OptionsOf<typeof virtioNetOptions>;

/** One per feature bit, named as the option is. */
export type VirtioNetFeature = {
  [K in keyof Options]-?: K extends 'disable-modern' | 'server'
    ? never
    : Options[K] extends boolean
      ? K
      : never;
}[keyof Options];

export interface VirtioNetProperties {
  readonly features: ReadonlySet<VirtioNetFeature>;
  /** undefined: one for each queue of the netdev. */
  readonly queuePairs: number | undefined;
  readonly rxQueueSize: number;
  readonly txQueueSize: number;
  /** undefined: as many as the queues need. */
  readonly vectors: number | undefined;
  /** undefined: the MTU feature is not offered. */
  readonly hostMtuBytes: number | undefined;
  /** undefined: unknown. */
  readonly speedMbps: number | undefined;
  readonly duplex: 'half' | 'full' | undefined;
  readonly legacy: boolean;
  readonly modern: boolean;
  readonly vhostUser: { readonly path: string; readonly server: boolean } | undefined;
}

/** `qomType` tells the variant: `…-transitional` has both interfaces, `…-non-transitional` only the modern one. */
export function resolveVirtioNet(
  o: Options,
  qomType: string,
  vfioUser: string | undefined,
): VirtioNetProperties {
  checkQueueSize('rx_queue_size', o.rx_queue_size, '.');
  checkQueueSize('tx_queue_size', o.tx_queue_size, '');
  if (o.speed < -1) throw new OptionError("'speed' must be between 0 and INT_MAX", { option: 'speed' });
  if (o.duplex !== undefined && o.duplex !== 'half' && o.duplex !== 'full') {
    throw new OptionError("'duplex' must be 'half' or 'full'", { option: 'duplex' });
  }
  if (o.host_mtu !== 0 && o.host_mtu < 68) throw expects('host_mtu', 'a number of bytes from 68');
  const { queues } = o;
  if (queues !== undefined && (queues < 1 || queues > QUEUE_PAIRS_MAX)) {
    throw expects('queues', `a number from 1 to ${QUEUE_PAIRS_MAX}`);
  }
  const vectors = o.vectors;
  if (vectors !== undefined && vectors > 2048) throw propertyBadValue(qomType, 'vectors', String(vectors));
  return {
    features: featuresOf(o),
    queuePairs: queues,
    rxQueueSize: o.rx_queue_size,
    txQueueSize: o.tx_queue_size,
    vectors,
    hostMtuBytes: o.host_mtu === 0 ? undefined : o.host_mtu,
    speedMbps: o.speed === -1 ? undefined : o.speed,
    duplex: o.duplex,
    ...interfaces(o, qomType),
    vhostUser: vhostUser(o, qomType, vfioUser),
  };
}

function featuresOf(o: Options): ReadonlySet<VirtioNetFeature> {
  const features = new Set<VirtioNetFeature>();
  for (const [name, spec] of Object.entries(virtioNetOptions)) {
    const isFeature = spec.kind === 'bool' && name !== 'disable-modern' && name !== 'server';
    if (isFeature && o[name as keyof Options] === true) features.add(name as VirtioNetFeature);
  }
  return features;
}

function checkQueueSize(name: string, size: number, stop: string): void {
  if (size === 256 || size === 512 || size === 1024) return;
  throw new OptionError(`Invalid ${name} (= ${size}), must be a power of 2 between 256 and 1024${stop}`, {
    option: name,
  });
}

function interfaces(o: Options, qomType: string): { legacy: boolean; modern: boolean } {
  if (qomType.endsWith('-non-transitional')) return { legacy: false, modern: true };
  if (qomType.endsWith('-transitional')) return { legacy: true, modern: true };
  const legacy = o['disable-legacy'] !== 'on';
  const modern = !o['disable-modern'];
  if (!legacy && !modern) {
    throw new OptionError('device cannot work as neither modern nor legacy mode is enabled', {
      option: 'disable-modern',
    });
  }
  return { legacy, modern };
}

function vhostUser(
  o: Options,
  qomType: string,
  vfioUser: string | undefined,
): VirtioNetProperties['vhostUser'] {
  const path = o['vhost-user'];
  if (path === undefined) {
    if (o.server) throw new OptionError('server= is only valid with vhost-user=', { option: 'server' });
    return undefined;
  }
  if (vfioUser !== undefined) {
    throw new OptionError('vfio-user= and vhost-user= exclude each other', { option: 'vhost-user' });
  }
  if (path === '' || path.length > 107) throw propertyBadValue(qomType, 'vhost-user', path);
  return { path, server: o.server };
}

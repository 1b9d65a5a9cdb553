/**
 * The feature bits of a virtio network device (virtio 1.3, section 5.1.3): which property offers which, what the peer must be able to do for it, what each
 * requires, and what follows from the accepted ones: the header's size, and what the driver takes.
 */

import type { VirtioNetFeature } from '../../config/devices/virtio-net.ts';
import {
  ACCEPT_CSUM,
  ACCEPT_ECN,
  ACCEPT_TSO4,
  ACCEPT_TSO6,
  ACCEPT_UFO,
  ACCEPT_USO,
} from '../../core/port.ts';
import {
  F_ACCESS_PLATFORM,
  F_ANY_LAYOUT,
  F_EVENT_IDX,
  F_IN_ORDER,
  F_INDIRECT_DESC,
  F_NOTIFICATION_DATA,
  F_RING_PACKED,
  F_RING_RESET,
  F_VERSION_1,
  type Features,
} from '../../virtio/features.ts';
import { VNET_HDR_BYTES, VNET_HDR_HASH_BYTES, VNET_HDR_LEGACY_BYTES } from '../../wire/virtio-net-hdr.ts';

export const F_CSUM = 0;
export const F_GUEST_CSUM = 1;
export const F_CTRL_GUEST_OFFLOADS = 2;
export const F_MTU = 3;
export const F_MAC = 5;
export const F_GSO = 6;
export const F_GUEST_TSO4 = 7;
export const F_GUEST_TSO6 = 8;
export const F_GUEST_ECN = 9;
export const F_GUEST_UFO = 10;
export const F_HOST_TSO4 = 11;
export const F_HOST_TSO6 = 12;
export const F_HOST_ECN = 13;
export const F_HOST_UFO = 14;
export const F_MRG_RXBUF = 15;
export const F_STATUS = 16;
export const F_CTRL_VQ = 17;
export const F_CTRL_RX = 18;
export const F_CTRL_VLAN = 19;
export const F_CTRL_RX_EXTRA = 20;
export const F_GUEST_ANNOUNCE = 21;
export const F_MQ = 22;
export const F_CTRL_MAC_ADDR = 23;
export const F_NOTF_COAL = 53;
export const F_GUEST_USO4 = 54;
export const F_GUEST_USO6 = 55;
export const F_HOST_USO = 56;
export const F_HASH_REPORT = 57;
export const F_RSS = 60;
export const F_STANDBY = 62;
export const F_SPEED_DUPLEX = 63;

interface Row {
  readonly property: VirtioNetFeature;
  readonly bit: number;
  /** ACCEPT_* that the peer needs to have. */
  readonly peer?: number;
  /** Features without which it is not accepted (section 5.1.3.1). */
  readonly needs?: readonly number[];
  /** One of these must be there too. */
  readonly needsAny?: readonly number[];
}

/** THE TABLE of features that a property switches. */
export const FEATURES: readonly Row[] = [
  { property: 'csum', bit: F_CSUM, peer: ACCEPT_CSUM },
  { property: 'guest_csum', bit: F_GUEST_CSUM },
  { property: 'ctrl_guest_offloads', bit: F_CTRL_GUEST_OFFLOADS, needs: [F_CTRL_VQ] },
  { property: 'gso', bit: F_GSO, peer: ACCEPT_CSUM | ACCEPT_TSO4 | ACCEPT_TSO6 | ACCEPT_ECN | ACCEPT_UFO },
  { property: 'guest_tso4', bit: F_GUEST_TSO4, needs: [F_GUEST_CSUM] },
  { property: 'guest_tso6', bit: F_GUEST_TSO6, needs: [F_GUEST_CSUM] },
  { property: 'guest_ecn', bit: F_GUEST_ECN, needsAny: [F_GUEST_TSO4, F_GUEST_TSO6] },
  { property: 'guest_ufo', bit: F_GUEST_UFO, needs: [F_GUEST_CSUM] },
  { property: 'host_tso4', bit: F_HOST_TSO4, peer: ACCEPT_CSUM | ACCEPT_TSO4, needs: [F_CSUM] },
  { property: 'host_tso6', bit: F_HOST_TSO6, peer: ACCEPT_CSUM | ACCEPT_TSO6, needs: [F_CSUM] },
  {
    property: 'host_ecn',
    bit: F_HOST_ECN,
    peer: ACCEPT_CSUM | ACCEPT_ECN,
    needsAny: [F_HOST_TSO4, F_HOST_TSO6],
  },
  { property: 'host_ufo', bit: F_HOST_UFO, peer: ACCEPT_CSUM | ACCEPT_UFO, needs: [F_CSUM] },
  { property: 'mrg_rxbuf', bit: F_MRG_RXBUF },
  { property: 'status', bit: F_STATUS },
  { property: 'ctrl_vq', bit: F_CTRL_VQ },
  { property: 'ctrl_rx', bit: F_CTRL_RX, needs: [F_CTRL_VQ] },
  { property: 'ctrl_vlan', bit: F_CTRL_VLAN, needs: [F_CTRL_VQ] },
  { property: 'ctrl_rx_extra', bit: F_CTRL_RX_EXTRA, needs: [F_CTRL_VQ] },
  { property: 'guest_announce', bit: F_GUEST_ANNOUNCE, needs: [F_CTRL_VQ] },
  { property: 'mq', bit: F_MQ, needs: [F_CTRL_VQ] },
  { property: 'ctrl_mac_addr', bit: F_CTRL_MAC_ADDR, needs: [F_CTRL_VQ] },
  { property: 'any_layout', bit: F_ANY_LAYOUT },
  { property: 'indirect_desc', bit: F_INDIRECT_DESC },
  { property: 'event_idx', bit: F_EVENT_IDX },
  { property: 'iommu_platform', bit: F_ACCESS_PLATFORM },
  { property: 'packed', bit: F_RING_PACKED },
  { property: 'in_order', bit: F_IN_ORDER },
  { property: 'queue_reset', bit: F_RING_RESET },
  { property: 'notf_coal', bit: F_NOTF_COAL, needs: [F_CTRL_VQ] },
  { property: 'guest_uso4', bit: F_GUEST_USO4, needs: [F_GUEST_CSUM] },
  { property: 'guest_uso6', bit: F_GUEST_USO6, needs: [F_GUEST_CSUM] },
  { property: 'host_uso', bit: F_HOST_USO, peer: ACCEPT_CSUM | ACCEPT_USO, needs: [F_CSUM] },
  { property: 'hash', bit: F_HASH_REPORT, needs: [F_CTRL_VQ] },
  { property: 'rss', bit: F_RSS, needs: [F_CTRL_VQ] },
  { property: 'failover', bit: F_STANDBY },
];

/** Sets `offered`: what the properties allow and the peer can serve. */
export function offerFeatures(
  offered: Features,
  properties: ReadonlySet<VirtioNetFeature>,
  peerAccepts: number,
  modern: boolean,
): void {
  offered.clear();
  offered.add(F_MAC);
  if (modern) {
    offered.add(F_VERSION_1);
    offered.add(F_NOTIFICATION_DATA);
  }
  for (const { property, bit, peer } of FEATURES) {
    if (properties.has(property) && ((peer ?? 0) & ~peerAccepts) === 0) offered.add(bit);
  }
  removeUnmet(offered);
}

/** Removes features whose dependencies are not there. */
function removeUnmet(offered: Features): void {
  // What is needed may itself go for want of something: chains are two long.
  for (let pass = 0; pass < 2; pass++) {
    for (const row of FEATURES) if (!hasNeeds(offered, row)) offered.remove(row.bit);
  }
}

function hasNeeds(features: Features, { needs, needsAny }: Row): boolean {
  return (
    (needs?.every((other) => features.has(other)) ?? true) &&
    (needsAny?.some((other) => features.has(other)) ?? true)
  );
}

/** Features that are done where packets are: in the rings and in their headers. */
export const DATA_PATH: readonly number[] = [
  F_CSUM,
  F_GUEST_CSUM,
  F_GSO,
  F_GUEST_TSO4,
  F_GUEST_TSO6,
  F_GUEST_ECN,
  F_GUEST_UFO,
  F_GUEST_USO4,
  F_GUEST_USO6,
  F_HOST_TSO4,
  F_HOST_TSO6,
  F_HOST_ECN,
  F_HOST_UFO,
  F_HOST_USO,
  F_MRG_RXBUF,
  F_ANY_LAYOUT,
  F_INDIRECT_DESC,
  F_EVENT_IDX,
  F_VERSION_1,
  F_RING_PACKED,
  F_IN_ORDER,
];

/** Features of registers, configuration and commands that mean nothing to whoever serves the data queues. */
const KEPT: readonly number[] = [
  F_MAC,
  F_MTU,
  F_STATUS,
  F_CTRL_VQ,
  F_CTRL_RX,
  F_CTRL_VLAN,
  F_CTRL_RX_EXTRA,
  F_GUEST_ANNOUNCE,
  F_MQ,
  F_CTRL_MAC_ADDR,
  F_STANDBY,
  F_SPEED_DUPLEX,
];

/** Cuts an offer to what is possible while another program, which can do `served`, has the data queues. */
export function limitToServer(offered: Features, served: Features): void {
  for (let bit = 0; bit < 64; bit++) {
    const isPossible = KEPT.includes(bit) || (DATA_PATH.includes(bit) && served.has(bit));
    if (!isPossible) offered.remove(bit);
  }
  removeUnmet(offered);
}

/** Whether accepted features hold their dependencies. */
export function featuresFit(accepted: Features): boolean {
  return FEATURES.every((row) => !accepted.has(row.bit) || hasNeeds(accepted, row));
}

/** The one place that knows how long a packet's header is (section 5.1.6.1). */
export function headerBytes(accepted: Features): number {
  if (accepted.has(F_HASH_REPORT)) return VNET_HDR_HASH_BYTES;
  return accepted.has(F_VERSION_1) || accepted.has(F_MRG_RXBUF) ? VNET_HDR_BYTES : VNET_HDR_LEGACY_BYTES;
}

/** Guest offloads as CTRL_GUEST_OFFLOADS names them: the bits of the features themselves. */
export const GUEST_OFFLOAD_BITS = [
  F_GUEST_CSUM,
  F_GUEST_TSO4,
  F_GUEST_TSO6,
  F_GUEST_ECN,
  F_GUEST_UFO,
  F_GUEST_USO4,
  F_GUEST_USO6,
] as const;

/** ACCEPT_* for the guest offloads that are on. */
export function acceptsOf(offloads: Features): number {
  if (!offloads.has(F_GUEST_CSUM)) return 0;
  let accepts = ACCEPT_CSUM;
  if (offloads.has(F_GUEST_TSO4)) accepts |= ACCEPT_TSO4;
  if (offloads.has(F_GUEST_TSO6)) accepts |= ACCEPT_TSO6;
  if (offloads.has(F_GUEST_ECN)) accepts |= ACCEPT_ECN;
  if (offloads.has(F_GUEST_UFO)) accepts |= ACCEPT_UFO;
  if (offloads.has(F_GUEST_USO4) && offloads.has(F_GUEST_USO6)) accepts |= ACCEPT_USO;
  return accepts;
}

/** ACCEPT_* for what the driver may ask of us. */
export function hostOffloadsOf(accepted: Features): number {
  if (!accepted.has(F_CSUM)) return 0;
  const all = accepted.has(F_GSO);
  let can = ACCEPT_CSUM;
  if (all || accepted.has(F_HOST_TSO4)) can |= ACCEPT_TSO4;
  if (all || accepted.has(F_HOST_TSO6)) can |= ACCEPT_TSO6;
  if (all || accepted.has(F_HOST_ECN)) can |= ACCEPT_ECN;
  if (all || accepted.has(F_HOST_UFO)) can |= ACCEPT_UFO;
  if (accepted.has(F_HOST_USO)) can |= ACCEPT_USO;
  return can;
}

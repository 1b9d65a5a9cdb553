/**
 * The 802.1Q tag (IEEE 802.1Q clause 9.6): TPID where the EtherType was, then 3 bits of priority, the drop-eligible
 * bit and 12 bits of VLAN id. Inserting and stripping move the two addresses, never the payload: an insert needs 4
 * bytes of headroom before the frame and yields an earlier start, a strip yields a later one.
 */

import { putU16be, u16be } from './bytes.ts';
import { ETH_HEADER_BYTES, ETH_TYPE, ETHERTYPE_QINQ, ETHERTYPE_VLAN } from './ethernet.ts';

export const VLAN_TAG_BYTES = 4;
export const VLAN_ID_MASK = 0x0fff;
export const VLAN_DEI = 0x1000;
export const VLAN_PCP_SHIFT = 13;
const ADDRESSES_BYTES = 12;

export function vlanId(tci: number): number {
  return tci & VLAN_ID_MASK;
}

export function vlanPriority(tci: number): number {
  return (tci >>> VLAN_PCP_SHIFT) & 7;
}

/** Tag control information; each part is masked to its width. */
export function vlanTci(id: number, priority: number, dropEligible: boolean): number {
  return ((priority & 7) << VLAN_PCP_SHIFT) | (dropEligible ? VLAN_DEI : 0) | (id & VLAN_ID_MASK);
}

/** The outer tag's TCI, or -1: untagged, or too short to hold a whole tag and the EtherType behind it. */
export function readVlanTag(bytes: Uint8Array, offset: number, end: number, tpid = ETHERTYPE_VLAN): number {
  if (end - offset < ETH_HEADER_BYTES + VLAN_TAG_BYTES) return -1;
  return u16be(bytes, offset + ETH_TYPE) === tpid ? u16be(bytes, offset + ETH_HEADER_BYTES) : -1;
}

/** Whether an EtherType announces a tag. */
export function isVlanType(etherType: number): boolean {
  return etherType === ETHERTYPE_VLAN || etherType === ETHERTYPE_QINQ;
}

/**
 * Puts a tag into the frame at `offset`, using the 4 bytes before it. Returns the frame's new start (the frame is 4
 * bytes longer), or -1 when the frame is shorter than its header or there is no headroom.
 */
export function insertVlanTag(
  bytes: Uint8Array,
  offset: number,
  end: number,
  tci: number,
  tpid = ETHERTYPE_VLAN,
): number {
  if (end - offset < ETH_HEADER_BYTES || offset < VLAN_TAG_BYTES) return -1;
  const start = offset - VLAN_TAG_BYTES;
  for (let i = 0; i < ADDRESSES_BYTES; i++) bytes[start + i] = bytes[offset + i];
  putU16be(bytes, start + ETH_TYPE, tpid);
  putU16be(bytes, start + ETH_HEADER_BYTES, tci);
  return start;
}

/** Takes the outer tag out. Returns the frame's new start (4 bytes later), or -1 when there is no whole tag. */
export function stripVlanTag(bytes: Uint8Array, offset: number, end: number, tpid = ETHERTYPE_VLAN): number {
  if (readVlanTag(bytes, offset, end, tpid) < 0) return -1;
  const start = offset + VLAN_TAG_BYTES;
  for (let i = ADDRESSES_BYTES - 1; i >= 0; i--) bytes[start + i] = bytes[offset + i];
  return start;
}

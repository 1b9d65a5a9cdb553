/**
 * Ethernet II framing (IEEE 802.3 clause 3): two addresses, an EtherType, the payload; no FCS, which the models add
 * where their guest expects one. Up to two VLAN tags are looked through, so that a caller finds the network layer.
 */

import { copyBytes, equalBytes, putU16be, u16be } from './bytes.ts';

export const ETH_DST = 0;
export const ETH_SRC = 6;
export const ETH_TYPE = 12;
export const ETH_HEADER_BYTES = 14;
export const ETH_ADDRESS_BYTES = 6;
/** The shortest frame on the medium, without its FCS: 64 - 4. */
export const ETH_MIN_FRAME_BYTES = 60;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_RARP = 0x8035;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
export const ETHERTYPE_QINQ = 0x88a8;
/** Below this the field is an 802.3 length, not a type (IEEE 802.3 clause 3.2.6). */
export const ETHERTYPE_MIN = 0x0600;

/** What the Ethernet header says. Reused: `parse` overwrites every field. */
export class EthernetHeader {
  /** Where the frame starts: destination at `offset`, source 6 further on. */
  offset = 0;
  /** The EtherType behind any VLAN tags; below 0x600 an 802.3 length. */
  etherType = 0;
  /** The outer tag's control information, or -1 when the frame is untagged. */
  vlanTci = -1;
  /** Where the network layer starts. */
  payload = 0;

  /** False, leaving the fields undefined, when the frame ends inside the header or inside a tag. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < ETH_HEADER_BYTES) return false;
    this.offset = offset;
    this.vlanTci = -1;
    let type = u16be(bytes, offset + ETH_TYPE);
    let payload = offset + ETH_HEADER_BYTES;
    for (let tags = 0; tags < 2 && (type === ETHERTYPE_VLAN || type === ETHERTYPE_QINQ); tags++) {
      if (end - payload < 4) return false;
      if (tags === 0) this.vlanTci = u16be(bytes, payload);
      type = u16be(bytes, payload + 2);
      payload += 4;
    }
    this.etherType = type;
    this.payload = payload;
    return true;
  }
}

/** Writes an untagged header from the two addresses. Returns its length, 14. */
export function writeEthernet(
  bytes: Uint8Array,
  offset: number,
  dst: Uint8Array,
  dstOffset: number,
  src: Uint8Array,
  srcOffset: number,
  etherType: number,
): number {
  copyBytes(bytes, offset + ETH_DST, dst, dstOffset, ETH_ADDRESS_BYTES);
  copyBytes(bytes, offset + ETH_SRC, src, srcOffset, ETH_ADDRESS_BYTES);
  putU16be(bytes, offset + ETH_TYPE, etherType);
  return ETH_HEADER_BYTES;
}

/** How many zero bytes a frame of `length` needs to reach the medium's minimum. */
export function ethernetPadBytes(length: number): number {
  return length < ETH_MIN_FRAME_BYTES ? ETH_MIN_FRAME_BYTES - length : 0;
}

/** The group bit: set for multicast and for broadcast. */
export function isGroupMac(bytes: Uint8Array, offset: number): boolean {
  return (bytes[offset] & 1) !== 0;
}

export function isBroadcastMac(bytes: Uint8Array, offset: number): boolean {
  return (
    (bytes[offset] &
      bytes[offset + 1] &
      bytes[offset + 2] &
      bytes[offset + 3] &
      bytes[offset + 4] &
      bytes[offset + 5]) ===
    0xff
  );
}

export function isZeroMac(bytes: Uint8Array, offset: number): boolean {
  return (
    (bytes[offset] |
      bytes[offset + 1] |
      bytes[offset + 2] |
      bytes[offset + 3] |
      bytes[offset + 4] |
      bytes[offset + 5]) ===
    0
  );
}

export function equalMac(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number): boolean {
  return equalBytes(a, aOffset, b, bOffset, ETH_ADDRESS_BYTES);
}

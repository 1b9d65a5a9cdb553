/**
 * ARP for IPv4 over Ethernet (RFC 826) and RARP, which shares its layout (RFC 903). Other hardware or protocol
 * kinds are refused by `parse`.
 */

import { copyBytes, putU16be, putU32be, u16be, u32be } from './bytes.ts';
import { ETHERTYPE_IPV4 } from './ethernet.ts';

export const ARP_BYTES = 28;
export const ARP_OP_REQUEST = 1;
export const ARP_OP_REPLY = 2;
export const RARP_OP_REQUEST = 3;
export const RARP_OP_REPLY = 4;

const HARDWARE_TYPE = 0;
const PROTOCOL_TYPE = 2;
const HARDWARE_LENGTH = 4;
const PROTOCOL_LENGTH = 5;
const OPERATION = 6;
const SENDER_MAC = 8;
const SENDER_IP = 14;
const TARGET_MAC = 18;
const TARGET_IP = 24;
const HARDWARE_ETHERNET = 1;

/** Reused: `parse` overwrites every field. Addresses are 32-bit numbers; MACs stay in place, as offsets. */
export class ArpPacket {
  operation = 0;
  senderMac = 0;
  senderIp = 0;
  targetMac = 0;
  targetIp = 0;

  /** False when it is shorter than 28 bytes or not about IPv4 over Ethernet. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < ARP_BYTES) return false;
    if (u16be(bytes, offset + HARDWARE_TYPE) !== HARDWARE_ETHERNET) return false;
    if (u16be(bytes, offset + PROTOCOL_TYPE) !== ETHERTYPE_IPV4) return false;
    if (bytes[offset + HARDWARE_LENGTH] !== 6 || bytes[offset + PROTOCOL_LENGTH] !== 4) return false;
    this.operation = u16be(bytes, offset + OPERATION);
    this.senderMac = offset + SENDER_MAC;
    this.senderIp = u32be(bytes, offset + SENDER_IP);
    this.targetMac = offset + TARGET_MAC;
    this.targetIp = u32be(bytes, offset + TARGET_IP);
    return true;
  }
}

/** Writes one packet from two MACs (arrays and offsets) and two 32-bit addresses. Returns its length, 28. */
export function writeArp(
  bytes: Uint8Array,
  offset: number,
  operation: number,
  senderMac: Uint8Array,
  senderMacOffset: number,
  senderIp: number,
  targetMac: Uint8Array,
  targetMacOffset: number,
  targetIp: number,
): number {
  putU16be(bytes, offset + HARDWARE_TYPE, HARDWARE_ETHERNET);
  putU16be(bytes, offset + PROTOCOL_TYPE, ETHERTYPE_IPV4);
  bytes[offset + HARDWARE_LENGTH] = 6;
  bytes[offset + PROTOCOL_LENGTH] = 4;
  putU16be(bytes, offset + OPERATION, operation);
  copyBytes(bytes, offset + SENDER_MAC, senderMac, senderMacOffset, 6);
  putU32be(bytes, offset + SENDER_IP, senderIp);
  copyBytes(bytes, offset + TARGET_MAC, targetMac, targetMacOffset, 6);
  putU32be(bytes, offset + TARGET_IP, targetIp);
  return ARP_BYTES;
}

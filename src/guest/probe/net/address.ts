/** IP addresses as the probe keeps them: 4 or 16 bytes, the length tells the family. */

import {
  equalBytes,
  formatIpv4,
  formatIpv6,
  parseIpv4,
  parseIpv6,
  putU32be,
  u32be,
} from '../../../wire/bytes.ts';

export type IpAddress = Uint8Array;
export type Family = 4 | 6;

export function familyOf(address: IpAddress): Family {
  return address.length === 4 ? 4 : 6;
}

/** From a 32-bit number. */
export function ipv4Address(value: number): IpAddress {
  const bytes = new Uint8Array(4);
  putU32be(bytes, 0, value);
  return bytes;
}

/** As people write it, IPv6 with or without brackets; `null` when it is not an address. */
export function parseAddress(text: string): IpAddress | null {
  const bare = text.startsWith('[') && text.endsWith(']') ? text.slice(1, -1) : text;
  const value = bare === text ? parseIpv4(bare) : -1;
  return value >= 0 ? ipv4Address(value) : parseIpv6(bare);
}

export function formatAddress(address: IpAddress): string {
  return address.length === 4 ? formatIpv4(u32be(address, 0)) : formatIpv6(address);
}

export function sameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.length === b.length && equalBytes(a, 0, b, 0, a.length);
}

/** `10.0.2.2:80`, `[fe80::1]:80`. */
export function formatEndpoint(address: IpAddress, port: number): string {
  return address.length === 4 ? `${formatAddress(address)}:${port}` : `[${formatAddress(address)}]:${port}`;
}

/** The number of leading one bits, or -1 when ones follow zeros. */
export function prefixLength(mask: number): number {
  const length = Math.clz32(~mask);
  const rest = length === 32 ? 0 : (mask << length) | 0;
  return rest === 0 ? length : -1;
}

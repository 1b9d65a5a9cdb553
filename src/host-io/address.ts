/** The 20-byte form of socket addresses (ADDRESS_BYTES in host-io.ts). */

import { formatIpv4, formatIpv6, parseIpv4, parseIpv6, putU32be, u32be } from '../wire/bytes.ts';
import type { Endpoint } from './host-io.ts';

/** Writes `endpoint` to target[at..at + 20); false when its address is no IP address. */
export function packAddress(endpoint: Endpoint, target: Uint8Array, at: number): boolean {
  const { address, port } = endpoint;
  if (!(port >= 0 && port <= 0xffff)) return false;
  target.fill(0, at, at + 20);
  if (address.includes(':')) {
    const bytes = parseIpv6(address);
    if (bytes === null) return false;
    target.set(bytes, at);
    target[at + 18] = 6;
  } else {
    const value = parseIpv4(address);
    if (value < 0) return false;
    putU32be(target, at, value);
    target[at + 18] = 4;
  }
  target[at + 16] = port >>> 8;
  target[at + 17] = port & 0xff;
  return true;
}

/** The endpoint in source[at..at + 20), or null when there is none (a unix socket's). */
export function unpackAddress(source: Uint8Array, at: number): Endpoint | null {
  const port = (source[at + 16]! << 8) | source[at + 17]!;
  switch (source[at + 18]) {
    case 4:
      return { address: formatIpv4(u32be(source, at)), port };
    case 6:
      return { address: formatIpv6(source, at), port };
    default:
      return null;
  }
}

/**
 * The PROXY protocol's header ("The PROXY protocol, versions 1 & 2", HAProxy, sections 2.1 and 2.2): the first bytes of a connection, by which
 * who passes it on tells who made it.
 *
 *     version 1   a line of text: PROXY TCP4|TCP6 source destination port port CR LF, or PROXY UNKNOWN CR LF
 *     version 2   12 bytes of signature, version and command, family and protocol, length (16 bits), the addresses
 *
 * Only streams are told of (TCP, unix); extensions (TLVs) are none of ours.
 */

import { parseIpv4, parseIpv6, putU16be, putU32be, utf8Bytes } from './bytes.ts';

export const PROXY_SIGNATURE = [
  0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
] as const;
const HEAD_BYTES = 16;
/** Version 2, command PROXY. */
const VERSION_2_PROXY = 0x21;
const TCP4 = 0x11;
const TCP6 = 0x21;
const UNIX_STREAM = 0x31;
const UNIX_PATH_BYTES = 108;

/** One end of the connection; a textual address without brackets. */
interface End {
  readonly address: string;
  readonly port: number;
}

/** A TCP connection from `source` to `destination`, which are of one family. */
export function proxyHeaderTcp(version: 1 | 2, source: End, destination: End): Uint8Array {
  const six = source.address.includes(':');
  if (version === 1) {
    const family = six ? 'TCP6' : 'TCP4';
    return utf8Bytes(
      `PROXY ${family} ${source.address} ${destination.address} ${source.port} ${destination.port}\r\n`,
    );
  }
  const addressBytes = six ? 16 : 4;
  const header = head(six ? TCP6 : TCP4, 2 * addressBytes + 4);
  [source, destination].forEach(({ address, port }, i) => {
    const at = HEAD_BYTES + i * addressBytes;
    if (six) header.set(parseIpv6(address)!, at);
    else putU32be(header, at, parseIpv4(address));
    putU16be(header, HEAD_BYTES + 2 * addressBytes + 2 * i, port);
  });
  return header;
}

/** A connection to the unix socket at `path`; its maker has no name. Version 1 cannot tell of one and says UNKNOWN. */
export function proxyHeaderUnix(version: 1 | 2, path: string): Uint8Array {
  if (version === 1) return utf8Bytes('PROXY UNKNOWN\r\n');
  const header = head(UNIX_STREAM, 2 * UNIX_PATH_BYTES);
  header.set(utf8Bytes(path).subarray(0, UNIX_PATH_BYTES - 1), HEAD_BYTES + UNIX_PATH_BYTES);
  return header;
}

function head(family: number, bytes: number): Uint8Array {
  const header = new Uint8Array(HEAD_BYTES + bytes);
  header.set(PROXY_SIGNATURE);
  header[12] = VERSION_2_PROXY;
  header[13] = family;
  putU16be(header, 14, bytes);
  return header;
}

/**
 * Strict address parsing. What is accepted here is accepted by everyone in one meaning only: no `010.0.0.1` (octal
 * to some), no `0x7f.1`, no bare `2130706433`, no IPv6 zone. Loose parsers let one spelling pass an access list and
 * another reach the socket.
 *
 * Functions named `parse…` return undefined for bad text; the caller knows the sentence that belongs to it.
 */

/** An IPv4 address: `value` in host order, `text` canonical. */
export interface Ipv4 {
  readonly family: 4;
  readonly value: number;
  readonly text: string;
}

/** An IPv6 address: `bytes` has 16, `text` is RFC 5952. */
export interface Ipv6 {
  readonly family: 6;
  readonly bytes: Uint8Array;
  readonly text: string;
}

/** A name that someone else resolves. */
export interface HostName {
  readonly family: 0;
  readonly text: string;
}

export type IpAddress = Ipv4 | Ipv6;
export type Host = IpAddress | HostName;

export interface Endpoint {
  readonly host: Host;
  readonly port: number;
}

export function ipv4(value: number): Ipv4 {
  return { family: 4, value: value >>> 0, text: formatIpv4(value) };
}

export function ipv6(bytes: Uint8Array): Ipv6 {
  return { family: 6, bytes, text: formatIpv6(bytes) };
}

export const formatIpv4 = (value: number): string =>
  `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;

/** Four decimal octets without leading zeros, nothing else. */
export function parseIpv4(text: string): Ipv4 | undefined {
  const value = ipv4Value(text);
  return value === undefined ? undefined : ipv4(value);
}

function ipv4Value(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return undefined;
  let value = 0;
  for (const octet of match.slice(1)) {
    if (octet.length > 1 && octet.startsWith('0')) return undefined;
    if (Number(octet) > 255) return undefined;
    value = value * 256 + Number(octet);
  }
  return value;
}

/** RFC 4291 section 2.2: groups, one `::`, an IPv4 tail. */
export function parseIpv6(text: string): Ipv6 | undefined {
  if (text.length > 45 || !/^[0-9a-fA-F:.]+$/.test(text)) return undefined;
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = groups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? groups(halves[1]!, true) : [];
  if (!head || !tail) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const bytes = new Uint8Array(16);
  [...head, ...new Array<number>(missing).fill(0), ...tail].forEach((group, i) => {
    bytes[i * 2] = group >> 8;
    bytes[i * 2 + 1] = group & 255;
  });
  return ipv6(bytes);
}

function groups(text: string, mayEndInIpv4: boolean): number[] | undefined {
  if (text === '') return [];
  const words = text.split(':');
  const result: number[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (mayEndInIpv4 && i === words.length - 1 && word.includes('.')) {
      const value = ipv4Value(word);
      if (value === undefined) return undefined;
      result.push(value >>> 16, value & 0xffff);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(word)) return undefined;
      result.push(Number.parseInt(word, 16));
    }
  }
  return result;
}

/** RFC 5952: lower case, the longest run of two or more zero groups as `::`. */
export function formatIpv6(bytes: Uint8Array): string {
  const words: number[] = [];
  for (let i = 0; i < 16; i += 2) words.push((bytes[i]! << 8) | bytes[i + 1]!);
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (at + length < 8 && words[at + length] === 0) length++;
    if (length > best.length) best = { at, length };
  }
  const hex = (part: number[]): string => part.map((word) => word.toString(16)).join(':');
  if (best.at < 0) return hex(words);
  return `${hex(words.slice(0, best.at))}::${hex(words.slice(best.at + best.length))}`;
}

export function parseIp(text: string): IpAddress | undefined {
  return parseIpv4(text) ?? parseIpv6(text);
}

/** 224.0.0.0/4 or ff00::/8. */
export function isMulticast(address: IpAddress): boolean {
  return address.family === 4 ? address.value >>> 28 === 0xe : address.bytes[0] === 0xff;
}

/** 0.0.0.0 or ::. */
export function isUnspecified(address: IpAddress): boolean {
  return address.family === 4 ? address.value === 0 : address.bytes.every((byte) => byte === 0);
}

/** An address literal, or a DNS name whose last label cannot be taken for a number. */
export function parseHost(text: string): Host | undefined {
  return parseIp(text) ?? (isHostName(text) ? { family: 0, text } : undefined);
}

function isHostName(text: string): boolean {
  if (text.length > 253) return false;
  const labels = (text.endsWith('.') ? text.slice(0, -1) : text).split('.');
  if (!labels.every((label) => /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/.test(label))) return false;
  return !/^(\d+|0[xX][0-9a-fA-F]*)$/.test(labels.at(-1)!);
}

/** Decimal, 0 to 65535, no sign, no blanks, no leading zero. */
export function parsePort(text: string): number | undefined {
  if (!/^(0|[1-9]\d{0,4})$/.test(text)) return undefined;
  const port = Number(text);
  return port > 65535 ? undefined : port;
}

/** Splits `host:port` or `[v6]:port` at the colon before the port; undefined without such a colon. */
export function splitHostPort(text: string): { host: string; port: string } | undefined {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):([^:]*)$/.exec(text);
  if (!match) return undefined;
  return { host: match[1] ?? match[2] ?? '', port: match[3]! };
}

/** Six bytes as two hex digits each, separated by `:` or by `-`. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(\1[0-9a-fA-F]{2}){4}$/.test(text)) return undefined;
  return Uint8Array.from(text.split(/[:-]/), (byte) => Number.parseInt(byte, 16));
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

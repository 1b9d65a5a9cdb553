/** Numbers and bytes as qtest's lines spell them: C's strtoull with base 0 (decimal, 0x, octal), hexadecimal strings, base64. */

const MASK_64 = 2n ** 64n - 1n;

/** An unsigned 64-bit number; a leading minus wraps, as in C. Null: it is none. */
export function parseNumber(text: string | undefined): bigint | null {
  const match = text === undefined ? null : /^([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/.exec(text);
  if (match === null) return null;
  const digits = match[2]!;
  const octal = digits.length > 1 && /^0[0-7]/.test(digits);
  const value = BigInt(octal ? `0o${digits.slice(1)}` : digits);
  if (value > MASK_64) return null;
  return match[1] === '-' ? -value & MASK_64 : value;
}

/** An address or a size that this platform can have; beyond 2^53 nothing answers, and the number need not be exact. */
export function parseAddress(text: string | undefined): number | null {
  const short = text === undefined ? -1 : parseShort(text);
  if (short >= 0) return short;
  const value = parseNumber(text);
  return value === null ? null : Number(value);
}

/** `0x` and up to 12 hexadecimal digits, or one decimal digit: nearly every number of a script, without a BigInt. -1: it is something else. */
export function parseShort(text: string): number {
  return /^(0[xX][0-9a-fA-F]{1,12}|[0-9])$/.test(text) ? Number(text) : -1;
}

/** The bytes of `0x…`, at most `length`; missing ones are zeros. Null when it is not hexadecimal. */
export function parseHexBytes(text: string, length: number): Uint8Array | null {
  if (!/^0[xX]([0-9a-fA-F]{2})*$/.test(text)) return null;
  const bytes = new Uint8Array(length);
  const given = Math.min(length, (text.length - 2) >> 1);
  for (let i = 0; i < given; i++) bytes[i] = Number.parseInt(text.slice(2 + 2 * i, 4 + 2 * i), 16);
  return bytes;
}

const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** Standard base64 with padding. Null when it is not. */
export function parseBase64(text: string): Uint8Array | null {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return null;
  const digits = text.replace(/=+$/, '');
  const bytes = new Uint8Array(Math.floor((digits.length * 3) / 4));
  let bits = 0;
  let value = 0;
  let at = 0;
  for (let i = 0; i < digits.length; i++) {
    value = ((value << 6) | BASE64.indexOf(digits[i]!)) & 0xffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes[at++] = value >>> bits;
  }
  return bytes;
}

export function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const three = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    const left = bytes.length - i;
    text += BASE64[three >> 18]! + BASE64[(three >> 12) & 63]!;
    text += left > 1 ? BASE64[(three >> 6) & 63]! : '=';
    text += left > 2 ? BASE64[three & 63]! : '=';
  }
  return text;
}

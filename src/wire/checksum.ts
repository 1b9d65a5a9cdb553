/**
 * The Internet checksum (RFC 1071): the ones' complement sum of big-endian 16-bit words.
 *
 * A *partial sum* is a number that holds such a sum before it is folded and inverted. Partial sums are added with
 * `+` and stay far below 2^31 for anything that fits a frame; `foldSum` brings one to 16 bits, `finishChecksum` makes
 * the value that goes into a header. The checksum field itself is zero while a header is summed, or is left in to
 * verify: then the finished checksum is 0.
 *
 * - One run of bytes: `sumBytes`, or `ChecksumRegion.sum` where a pool's memory is summed again and again: it keeps a
 *   32-bit view of that memory. `sumWords` is the same for memory whose words the caller has: four times as fast on payloads.
 * - A payload in several segments: `chainSum`, told how many bytes went before. A segment that starts at an odd
 *   position has its bytes in the other half of each word, which is the same as swapping its folded sum
 *   (RFC 1071 section 2 (B)).
 * - A field rewritten in place (NAT, TTL): `updateChecksum16/32`, RFC 1624 equation 3, which unlike that of RFC 1141
 *   never turns a checksum into the wrong zero.
 */

import { swap16, u16be, u32be } from './bytes.ts';

/** From this length on, making a 32-bit view costs less than summing byte by byte. */
const VIEW_MIN_BYTES = 2048;
/** From this length on, aligning for a view that exists costs less. */
const WORDS_MIN_BYTES = 32;

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Folds a partial sum to 16 bits. */
export function foldSum(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** The header value of a partial sum: folded and inverted. UDP sends 0xffff where this is 0 (RFC 768). */
export function finishChecksum(sum: number): number {
  return ~foldSum(sum) & 0xffff;
}

/** `sum` plus the words of a run of bytes, at most 256 KiB, an odd last byte padded with zero. */
export function sumBytes(bytes: Uint8Array, offset: number, length: number, sum = 0): number {
  if (length >= VIEW_MIN_BYTES) return sumBytesByView(bytes, offset, length, sum);
  const end = offset + length;
  const blockEnd = offset + (length & ~7);
  let high = 0;
  let low = 0;
  let i = offset;
  for (; i < blockEnd; i += 8) {
    high += bytes[i] + bytes[i + 2] + bytes[i + 4] + bytes[i + 6];
    low += bytes[i + 1] + bytes[i + 3] + bytes[i + 5] + bytes[i + 7];
  }
  for (; i + 1 < end; i += 2) {
    high += bytes[i];
    low += bytes[i + 1];
  }
  if (i < end) high += bytes[i];
  return sum + (high << 8) + low;
}

/** `sumBytes` by way of a temporary view, for long runs. */
function sumBytesByView(bytes: Uint8Array, offset: number, length: number, sum: number): number {
  const head = -(bytes.byteOffset + offset) & 3;
  const count = (length - head) >>> 2;
  const view = new Int32Array(bytes.buffer, bytes.byteOffset + offset + head, count);
  return sumAround(bytes, offset, length, head, sumOfWords(view, 0, count), sum);
}

/**
 * `sumBytes` of a memory that is also there as `words`, from its first byte on: several times as fast from 32 bytes on. Without words (an empty array) it is
 * `sumBytes`.
 */
export function sumWords(
  bytes: Uint8Array,
  words: Int32Array,
  offset: number,
  length: number,
  sum = 0,
): number {
  if (length < WORDS_MIN_BYTES || words.length === 0) return sumBytes(bytes, offset, length, sum);
  const head = -offset & 3;
  const folded = sumOfWords(words, (offset + head) >>> 2, (length - head) >>> 2);
  return sumAround(bytes, offset, length, head, folded, sum);
}

/** The folded big-endian sum of `count` words. */
function sumOfWords(words: Int32Array, first: number, count: number): number {
  let low = 0;
  let high = 0;
  const end = first + count;
  let i = first;
  for (const last = end - 7; i < last; i += 8) {
    const a = words[i];
    const b = words[i + 1];
    const c = words[i + 2];
    const d = words[i + 3];
    const e = words[i + 4];
    const f = words[i + 5];
    const g = words[i + 6];
    const h = words[i + 7];
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    low += (e & 0xffff) + (f & 0xffff) + (g & 0xffff) + (h & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
    high += (e >>> 16) + (f >>> 16) + (g >>> 16) + (h >>> 16);
  }
  for (; i < end; i++) {
    low += words[i] & 0xffff;
    high += words[i] >>> 16;
  }
  const folded = foldSum(foldSum(low) + foldSum(high));
  return LITTLE_ENDIAN ? swap16(folded) : folded;
}

/** `sum` plus the bytes before (`head`, at most 3) and behind the whole words of a run, and the words' own sum. */
function sumAround(
  bytes: Uint8Array,
  offset: number,
  length: number,
  head: number,
  wordsSum: number,
  sum: number,
): number {
  const done = head + ((length - head) & ~3);
  if (head !== 0) sum = sumBytes(bytes, offset, head, sum);
  sum = chainFolded(sum, head, wordsSum);
  return done === length ? sum : chainSum(sum, done, bytes, offset + done, length - done);
}

function chainFolded(sum: number, bytesBefore: number, folded: number): number {
  return sum + ((bytesBefore & 1) === 0 ? folded : swap16(folded));
}

/**
 * `sum` plus one more segment of a payload of which `bytesBefore` bytes are summed already. Segments may have any
 * length and alignment; the result equals that of the payload in one piece.
 */
export function chainSum(
  sum: number,
  bytesBefore: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
): number {
  if ((bytesBefore & 1) === 0) return sumBytes(bytes, offset, length, sum);
  return sum + swap16(foldSum(sumBytes(bytes, offset, length)));
}

/** Sums over one long-lived memory, of which it keeps a 32-bit view: nothing is allocated per call. */
export class ChecksumRegion {
  readonly bytes: Uint8Array;
  readonly #words: Int32Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    const aligned = bytes.byteOffset % 4 === 0;
    this.#words = new Int32Array(
      bytes.buffer,
      aligned ? bytes.byteOffset : 0,
      aligned ? bytes.length >>> 2 : 0,
    );
  }

  /** `sumBytes` of this memory. */
  sum(offset: number, length: number, sum = 0): number {
    return sumWords(this.bytes, this.#words, offset, length, sum);
  }

  /** `chainSum` of this memory. */
  chain(sum: number, bytesBefore: number, offset: number, length: number): number {
    if ((bytesBefore & 1) === 0) return this.sum(offset, length, sum);
    return sum + swap16(foldSum(this.sum(offset, length)));
  }
}

/** The checksum of one run of bytes; 0 when the run holds its own, correct checksum. */
export function internetChecksum(bytes: Uint8Array, offset: number, length: number): number {
  return finishChecksum(sumBytes(bytes, offset, length));
}

/** The partial sum of the IPv4 pseudo-header (RFC 9293 section 3.1): `length` is header plus payload, in bytes. */
export function pseudoSumV4(src: number, dst: number, protocol: number, length: number): number {
  return (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + length;
}

/**
 * The partial sum of the IPv6 pseudo-header (RFC 8200 section 8.1), addresses read where they lie. With a routing
 * header `dstOffset` must point at the final destination.
 */
export function pseudoSumV6(
  src: Uint8Array,
  srcOffset: number,
  dst: Uint8Array,
  dstOffset: number,
  protocol: number,
  length: number,
): number {
  let sum = protocol + (length >>> 16) + (length & 0xffff);
  for (let i = 0; i < 16; i += 2) sum += u16be(src, srcOffset + i) + u16be(dst, dstOffset + i);
  return sum;
}

/** The pseudo-header sum of an IPv4 (version 4) or IPv6 header in place, without regard to a routing header. */
export function pseudoSumAt(bytes: Uint8Array, ipOffset: number, protocol: number, length: number): number {
  if (bytes[ipOffset] >>> 4 === 4) {
    return pseudoSumV4(u32be(bytes, ipOffset + 12), u32be(bytes, ipOffset + 16), protocol, length);
  }
  return pseudoSumV6(bytes, ipOffset + 8, bytes, ipOffset + 24, protocol, length);
}

/** The checksum after a 16-bit field changed (RFC 1624 section 3, equation 3). */
export function updateChecksum16(checksum: number, oldValue: number, newValue: number): number {
  return finishChecksum((~checksum & 0xffff) + (~oldValue & 0xffff) + (newValue & 0xffff));
}

/** The checksum after an aligned 32-bit field changed. */
export function updateChecksum32(checksum: number, oldValue: number, newValue: number): number {
  const sum = (~checksum & 0xffff) + (~oldValue >>> 16) + (~oldValue & 0xffff);
  return finishChecksum(sum + (newValue >>> 16) + (newValue & 0xffff));
}

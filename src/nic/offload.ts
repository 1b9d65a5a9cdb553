/**
 * The one place where offload facts become bytes: `adapt` brings a frame to what its next client accepts, by completing a checksum or by
 * cutting a segment into packets. Every port uses it (core/port.ts); NIC models use `verifyFrame`.
 *
 * Facts come from guests and peers, so they are checked against the frame's real headers, which lie in its first segment. A frame whose
 * facts contradict its bytes is dropped (0 frames come out). A frame that is shared or borrows memory is never written: it is copied first.
 *
 *   checksum    sum from CSUM_START to the end, store at CSUM_START + CSUM_OFFSET
 *   TCPv4/v6    headers repeated before GSO_SIZE payload bytes each; IP length, IPv4 id and checksum, sequence number; FIN and PSH in the last
 *               only, CWR in the first only (RFC 3168 section 6.1.2)
 *   UDP_L4      like TCP: each piece a datagram of its own
 *   UDP (UFO)   one datagram as IP fragments (RFC 791 section 3.2, RFC 8200 section 4.5)
 *
 * What comes out was summed here: it carries FACT_CSUM_VALID.
 */

import { type ByteMemory, copyMemory } from '../core/copy.ts';
import {
  FACT_CSUM_VALID,
  FACT_NEEDS_CSUM,
  FACTS,
  type FramePool,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  GSO_UDP_L4,
  LENGTH,
  NEXT,
  OFFSET,
  REGION,
  TOTAL,
} from '../core/pool.ts';
import { ACCEPT_CSUM, acceptable } from '../core/port.ts';
import { putU16be, putU32be, swap16, u16be, u32be } from '../wire/bytes.ts';
import { finishChecksum, foldSum, pseudoSumAt, sumBytes, sumWords } from '../wire/checksum.ts';
import { checksumPlace, sumFrame, wantedChecksum } from '../wire/frame-sum.ts';
import { HEADER_BYTES } from './frame-size.ts';

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_QINQ = 0x88a8;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const IPV6_FRAGMENT = 44;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const FRAGMENT_HEADER_BYTES = 8;
const TCP_FIN_PSH = 0x09;
const TCP_CWR = 0x80;
/** Pieces of one frame: the port's array holds as many. */
const PIECES_MAX = 2048;
const VLAN_TAGS_MAX = 2;
const EXTENSION_HEADERS_MAX = 8;

/** Completes the checksum that the facts ask for, in a frame the caller may write. False: the facts contradict the frame. */
function fillChecksum(pool: FramePool, frame: number): boolean {
  const t = pool.table;
  const at = checksumPlace(pool, frame);
  if (at < 0 || at + 2 > t[frame + LENGTH]) return false;
  putU16be(pool.bytes, t[frame + OFFSET] + at, wantedChecksum(pool, frame));
  t[frame + FACTS] = (t[frame + FACTS] & ~FACT_NEEDS_CSUM) | FACT_CSUM_VALID;
  return true;
}

/** core/port.ts `Adapt`. */
export function adapt(pool: FramePool, frame: number, accepts: number, out: Int32Array): number {
  const facts = pool.table[frame + FACTS];
  if (acceptable(facts, accepts)) {
    out[0] = frame;
    return 1;
  }
  const gso = facts >>> 8;
  // A segment's checksums cannot be filled before it is cut, whatever of it is accepted.
  if (gso !== 0) return segmentFrame(pool, frame, gso, out);
  if ((accepts & ACCEPT_CSUM) === 0) {
    const own = pool.writable(frame);
    if (own === 0) return drop(pool, frame);
    if (!fillChecksum(pool, own)) return drop(pool, own);
    out[0] = own;
    return 1;
  }
  return drop(pool, frame);
}

function drop(pool: FramePool, frame: number): 0 {
  pool.release(frame);
  return 0;
}

/** Where a frame's headers lie, by offsets from its start; one reused object. */
export class HeaderLayout {
  version = 0;
  ip = 0;
  l4 = 0;
  protocol = 0;
  /** Where the IP packet ends by its own length field. */
  end = 0;
  fragment = false;

  /** Reads Ethernet, up to two VLAN tags and IP with options or extension headers from `bytes[at, at + length)`. False: no whole IP header is there. */
  read(bytes: Uint8Array, at: number, length: number): boolean {
    let ip = 14;
    if (length < ip) return false;
    let type = u16be(bytes, at + 12);
    for (let tags = 0; (type === ETHERTYPE_VLAN || type === ETHERTYPE_QINQ) && tags < VLAN_TAGS_MAX; tags++) {
      ip += 4;
      if (length < ip) return false;
      type = u16be(bytes, at + ip - 2);
    }
    this.ip = ip;
    this.fragment = false;
    if (type === ETHERTYPE_IPV4) {
      if (length < ip + 20 || bytes[at + ip] >>> 4 !== 4) return false;
      const headerBytes = (bytes[at + ip] & 15) * 4;
      if (headerBytes < 20 || length < ip + headerBytes) return false;
      this.version = 4;
      this.l4 = ip + headerBytes;
      this.protocol = bytes[at + ip + 9];
      this.end = ip + u16be(bytes, at + ip + 2);
      this.fragment = (u16be(bytes, at + ip + 6) & 0x3fff) !== 0;
      return true;
    }
    if (type !== ETHERTYPE_IPV6 || length < ip + IPV6_BYTES || bytes[at + ip] >>> 4 !== 6) return false;
    this.version = 6;
    this.end = ip + IPV6_BYTES + u16be(bytes, at + ip + 4);
    let next = bytes[at + ip + 6];
    let l4 = ip + IPV6_BYTES;
    for (let hops = 0; hops < EXTENSION_HEADERS_MAX; hops++) {
      if (next === IPV6_FRAGMENT) {
        this.fragment = true;
        break;
      }
      if (next !== 0 && next !== 43 && next !== 60) break;
      if (length < l4 + 8) return false;
      next = bytes[at + l4];
      l4 += 8 * (bytes[at + l4 + 1] + 1);
      if (length < l4) return false;
    }
    this.l4 = l4;
    this.protocol = next;
    return true;
  }
}

/** The payload cursor and constants of one segmentation. */
function segmentFrame(pool: FramePool, frame: number, gso: number, out: Int32Array): number {
  const layout = new HeaderLayout();
  const t = pool.table;
  const { bytes, words } = pool.memories[0];
  const slot = t[frame + OFFSET];
  const headRoom = t[frame + LENGTH];
  const total = t[frame + TOTAL];
  const size = t[frame + GSO_SIZE];
  const type = gso & 0x7f;
  if (size <= 0 || !layout.read(bytes, slot, headRoom) || layout.fragment) return drop(pool, frame);
  if (type === GSO_UDP) return fragmentFrame(pool, frame, layout, out);
  const { version, ip, l4, protocol } = layout;
  let header: number;
  if (type === GSO_TCPV4 || type === GSO_TCPV6) {
    if (protocol !== PROTOCOL_TCP || version !== (type === GSO_TCPV4 ? 4 : 6) || l4 + 20 > headRoom)
      return drop(pool, frame);
    const tcpBytes = (bytes[slot + l4 + 12] >>> 4) * 4;
    if (tcpBytes < 20) return drop(pool, frame);
    header = l4 + tcpBytes;
  } else if (type === GSO_UDP_L4) {
    if (protocol !== PROTOCOL_UDP) return drop(pool, frame);
    header = l4 + 8;
  } else {
    return drop(pool, frame);
  }
  if (header > headRoom || total <= header) return drop(pool, frame);
  const payload = total - header;
  const pieces = Math.ceil(payload / size);
  if (pieces > PIECES_MAX || header + size - ip > 0xffff) return drop(pool, frame);

  const isTcp = protocol === PROTOCOL_TCP;
  const sequence = isTcp ? u32be(bytes, slot + l4 + 4) : 0;
  const flags = isTcp ? bytes[slot + l4 + 13] : 0;
  const id = version === 4 ? u16be(bytes, slot + ip + 4) : 0;
  const checksumAt = isTcp ? 16 : 6;
  const udpUnchecked =
    !isTcp &&
    version === 4 &&
    u16be(bytes, slot + l4 + 6) === 0 &&
    (t[frame + FACTS] & FACT_NEEDS_CSUM) === 0;
  const cursor = new Cursor(pool, frame, header);
  for (let i = 0; i < pieces; i++) {
    const part = Math.min(size, payload - i * size);
    const piece = pool.alloc(header + part);
    if (piece === 0) {
      pool.releaseAll(out, 0, i);
      return drop(pool, frame);
    }
    const to = t[piece + OFFSET];
    bytes.copyWithin(to, slot, slot + header);
    cursor.copy(pool.memories[0], to + header, part);
    const length = header + part;
    if (version === 4) {
      putU16be(bytes, to + ip + 2, length - ip);
      putU16be(bytes, to + ip + 4, id + i);
      putU16be(bytes, to + ip + 10, 0);
      putU16be(bytes, to + ip + 10, finishChecksum(sumBytes(bytes, to + ip, l4 - ip)));
    } else {
      putU16be(bytes, to + ip + 4, length - ip - IPV6_BYTES);
    }
    if (isTcp) {
      putU32be(bytes, to + l4 + 4, (sequence + i * size) >>> 0);
      let own = flags;
      if (i > 0) own &= ~TCP_CWR;
      if (i < pieces - 1) own &= ~TCP_FIN_PSH;
      bytes[to + l4 + 13] = own;
    } else {
      putU16be(bytes, to + l4 + 4, length - l4);
    }
    putU16be(bytes, to + l4 + checksumAt, 0);
    if (!udpUnchecked) {
      const pseudo = pseudoSumAt(bytes, to + ip, protocol, length - l4);
      const sum = sumWords(bytes, words, to + l4, length - l4, pseudo);
      const checksum = finishChecksum(sum);
      putU16be(bytes, to + l4 + checksumAt, checksum === 0 && !isTcp ? 0xffff : checksum);
    }
    pool.setLength(piece, length);
    t[piece + FACTS] = FACT_CSUM_VALID;
    out[i] = piece;
  }
  pool.release(frame);
  return pieces;
}

/** UFO: one UDP datagram as IP fragments of at most GSO_SIZE payload bytes (a multiple of 8). */
function fragmentFrame(pool: FramePool, frame: number, layout: HeaderLayout, out: Int32Array): number {
  const t = pool.table;
  const bytes = pool.bytes;
  const { version, ip, l4, protocol } = layout;
  const size = t[frame + GSO_SIZE] & ~7;
  if (protocol !== PROTOCOL_UDP || size === 0) return drop(pool, frame);
  // The datagram's own checksum covers all fragments: it is filled before they are cut.
  let whole = frame;
  if ((t[frame + FACTS] & FACT_NEEDS_CSUM) !== 0) {
    whole = pool.writable(frame);
    if (whole === 0) return drop(pool, frame);
    if (!fillChecksum(pool, whole)) return drop(pool, whole);
  }
  const slot = t[whole + OFFSET];
  const payload = t[whole + TOTAL] - l4;
  const pieces = Math.ceil(payload / size);
  if (payload <= 0 || pieces > PIECES_MAX || payload > 0xffff) return drop(pool, whole);
  const header = version === 4 ? l4 : l4 + FRAGMENT_HEADER_BYTES;
  const cursor = new Cursor(pool, whole, l4);
  const fragmentId = u32be(bytes, slot + l4) ^ u16be(bytes, slot + l4 + 6);
  for (let i = 0; i < pieces; i++) {
    const part = Math.min(size, payload - i * size);
    const piece = pool.alloc(header + part);
    if (piece === 0) {
      pool.releaseAll(out, 0, i);
      return drop(pool, whole);
    }
    const to = t[piece + OFFSET];
    bytes.copyWithin(to, slot, slot + l4);
    cursor.copy(pool.memories[0], to + header, part);
    const more = i < pieces - 1;
    if (version === 4) {
      putU16be(bytes, to + ip + 2, header + part - ip);
      putU16be(bytes, to + ip + 6, (more ? 0x2000 : 0) | ((i * size) >> 3));
      putU16be(bytes, to + ip + 10, 0);
      putU16be(bytes, to + ip + 10, finishChecksum(sumBytes(bytes, to + ip, l4 - ip)));
    } else {
      putU16be(bytes, to + ip + 4, header + part - ip - IPV6_BYTES);
      // The header in front of UDP now announces the fragment header.
      bytes[to + nextHeaderAt(bytes, to, ip, l4)] = IPV6_FRAGMENT;
      bytes[to + l4] = PROTOCOL_UDP;
      bytes[to + l4 + 1] = 0;
      putU16be(bytes, to + l4 + 2, (i * size) | (more ? 1 : 0));
      putU32be(bytes, to + l4 + 4, fragmentId);
    }
    pool.setLength(piece, header + part);
    t[piece + FACTS] = FACT_CSUM_VALID;
    out[i] = piece;
  }
  pool.release(whole);
  return pieces;
}

/** Offset from the frame's start of the next-header field that names the header at `l4`. */
function nextHeaderAt(bytes: Uint8Array, at: number, ip: number, l4: number): number {
  let field = ip + 6;
  let position = ip + IPV6_BYTES;
  while (position < l4) {
    field = position;
    position += 8 * (bytes[at + position + 1] + 1);
  }
  return field;
}

/** Walks a frame's bytes once, from front to back. */
class Cursor {
  readonly #pool: FramePool;
  #segment: number;
  #at: number;

  constructor(pool: FramePool, frame: number, start: number) {
    this.#pool = pool;
    this.#segment = frame;
    this.#at = start;
  }

  copy(target: ByteMemory, to: number, length: number): void {
    const t = this.#pool.table;
    while (length > 0 && this.#segment !== 0) {
      const left = t[this.#segment + LENGTH] - this.#at;
      if (left <= 0) {
        this.#at -= t[this.#segment + LENGTH];
        this.#segment = t[this.#segment + NEXT];
        continue;
      }
      const part = Math.min(left, length);
      const region = t[this.#segment + REGION];
      const from = t[this.#segment + OFFSET] + this.#at;
      if (region === 0 && part >= 64) target.bytes.copyWithin(to, from, from + part);
      else copyMemory(this.#pool.memories[region], from, target, to, part);
      this.#at += part;
      to += part;
      length -= part;
    }
  }
}

/** What `verifyFrame` found, or-ed. */
export const CHECKED_IP = 1;
export const BAD_IP = 2;
export const CHECKED_L4 = 4;
export const BAD_L4 = 8;

/** Ethernet, IPv4 and TCP without options; bytes 12 to 14 of such a frame, and byte 23, as parts of words. */
const PLAIN_HEADERS_BYTES = 54;
const PLAIN_IPV4 = 0x45_00_08;
const FRAGMENT_OR_PROTOCOL = 0xff00ff3f | 0;
const WHOLE_TCP = PROTOCOL_TCP << 24;

/**
 * Whether the frame of `total` bytes at `at` is plain: IPv4 without options with TCP, unfragmented and whole. What `verifyFrame`
 * finds of one with FACT_CSUM_VALID is then known: CHECKED_IP and CHECKED_L4.
 */
export function isPlainTcp4(headers: DataView, at: number, total: number): boolean {
  const length = headers.getUint16(at + 16) + HEADER_BYTES;
  return (
    (headers.getInt32(at + 12, true) & 0xffffff) === PLAIN_IPV4 &&
    (headers.getInt32(at + 20, true) & FRAGMENT_OR_PROTOCOL) === WHOLE_TCP &&
    length >= PLAIN_HEADERS_BYTES &&
    length <= total
  );
}

/** `verifyFrame` of a frame in one segment that `isPlainTcp4` and has no FACT_CSUM_VALID. */
export function verifyPlainTcp4(pool: FramePool, at: number): number {
  const { view, bytes, words } = pool.memories[0];
  const ip = at + HEADER_BYTES;
  const addresses = halves(view.getInt32(ip + 12, true)) + halves(view.getInt32(ip + 16, true));
  const header =
    halves(view.getInt32(ip, true)) +
    halves(view.getInt32(ip + 4, true)) +
    halves(view.getInt32(ip + 8, true)) +
    addresses;
  let found = CHECKED_IP | CHECKED_L4;
  if (foldSum(header) !== 0xffff) found |= BAD_IP;
  const l4Bytes = view.getUint16(ip + 2) - IPV4_BYTES;
  // Little-endian like the sums above: a correct sum is all ones in either order.
  const pseudo = addresses + swap16(PROTOCOL_TCP) + swap16(l4Bytes);
  const sum = pseudo + swap16(foldSum(sumWords(bytes, words, ip + IPV4_BYTES, l4Bytes)));
  return foldSum(sum) === 0xffff ? found : found | BAD_L4;
}

function halves(word: number): number {
  return (word & 0xffff) + (word >>> 16);
}

/**
 * Checks the checksums of a received IP packet as a NIC does; returns CHECKED_* and BAD_* bits. A frame with FACT_CSUM_VALID is believed;
 * fragments and UDP without a checksum are not judged. `layout` is the caller's, reused.
 */
export function verifyFrame(pool: FramePool, frame: number, layout: HeaderLayout): number {
  const t = pool.table;
  const bytes = pool.bytes;
  const at = t[frame + OFFSET];
  if (!layout.read(bytes, at, t[frame + LENGTH])) return 0;
  const trusted = (t[frame + FACTS] & FACT_CSUM_VALID) !== 0;
  const { version, ip, l4, protocol, end } = layout;
  let found = 0;
  if (version === 4) {
    found = CHECKED_IP;
    if (!trusted && foldSum(sumBytes(bytes, at + ip, l4 - ip)) !== 0xffff) found |= BAD_IP;
  }
  const l4Bytes = end - l4;
  if (layout.fragment || end > t[frame + TOTAL]) return found;
  if (protocol === PROTOCOL_UDP) {
    if (l4Bytes < 8 || l4 + 8 > t[frame + LENGTH] || u16be(bytes, at + l4 + 6) === 0) return found;
  } else if (protocol !== PROTOCOL_TCP || l4Bytes < 20) {
    return found;
  }
  found |= CHECKED_L4;
  if (trusted) return found;
  const sum = sumFrame(pool, frame, l4, l4Bytes) + pseudoSumAt(bytes, at + ip, protocol, l4Bytes);
  return foldSum(sum) === 0xffff ? found : found | BAD_L4;
}

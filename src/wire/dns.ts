/**
 * A little DNS (RFC 1035): asking one question and reading the answers, for the probe guest and for tests. The relay
 * of the user network does not use it: it forwards messages as they are, so that a large or odd one costs nothing.
 *
 * Names may be compressed by pointers (section 4.1.4). A pointer is followed only to an earlier place than any before
 * it, so a loop ends by itself, and a name is never longer than 255 bytes.
 */

import { getLatin1, putU16be, u16be, u32be } from './bytes.ts';

export const DNS_PORT = 53;
export const DNS_TYPE_A = 1;
export const DNS_TYPE_CNAME = 5;
export const DNS_TYPE_PTR = 12;
export const DNS_TYPE_AAAA = 28;
export const DNS_CLASS_IN = 1;

export const DNS_HEADER_BYTES = 12;
const ID = 0;
const FLAGS = 2;
const QUESTIONS = 4;
const ANSWERS = 6;
const FLAG_RESPONSE = 0x8000;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const RCODE_MASK = 0x000f;

const NAME_MAX_BYTES = 255;
const LABEL_MAX_BYTES = 63;
/** More records than this in one reply are not read. */
const RECORDS_MAX = 64;

/** One resource record of a reply. */
export interface DnsRecord {
  name: string;
  type: number;
  ttlSeconds: number;
  /** Where the record's data lies in the message: 4 bytes for A, 16 for AAAA, a name for CNAME and PTR. */
  dataOffset: number;
  dataBytes: number;
}

/**
 * Writes a name as labels, without compression; one trailing dot is allowed. Returns the encoded length, or -1 when
 * a label is empty or over 63 bytes, the name is over 255, or it does not fit before `end`.
 */
export function writeDomainName(bytes: Uint8Array, offset: number, end: number, name: string): number {
  const text = name.endsWith('.') ? name.slice(0, -1) : name;
  const length = text === '' ? 1 : text.length + 2;
  if (length > NAME_MAX_BYTES || length > end - offset) return -1;
  let at = offset;
  for (const label of text === '' ? [] : text.split('.')) {
    if (label.length === 0 || label.length > LABEL_MAX_BYTES) return -1;
    bytes[at++] = label.length;
    for (let i = 0; i < label.length; i++) {
      const code = label.charCodeAt(i);
      if (code > 255) return -1;
      bytes[at++] = code;
    }
  }
  bytes[at] = 0;
  return length;
}

/** Domain names in wire form, one behind the other; what is not a valid name is left out (RFC 3397, 8106, 3646). */
export function encodeDomainList(names: readonly string[]): Uint8Array {
  const room = names.reduce((sum, name) => sum + name.length + 2, 0);
  const bytes = new Uint8Array(room);
  let at = 0;
  for (const name of names) {
    const length = name === '' || name === '.' ? -1 : writeDomainName(bytes, at, room, name);
    if (length > 0) at += length;
  }
  return bytes.subarray(0, at);
}

/**
 * The name at `offset` of a message that lies in `bytes[start..end)`, labels joined by dots (`''` for the root), or
 * `null` when it is malformed or longer than 255 bytes.
 */
export function readDomainName(bytes: Uint8Array, start: number, offset: number, end: number): string | null {
  let at = offset;
  let earliest = offset;
  let text = '';
  for (;;) {
    if (at >= end) return null;
    const length = bytes[at];
    if (length === 0) return text;
    if (length >= 0xc0) {
      if (end - at < 2) return null;
      const target = start + (u16be(bytes, at) & 0x3fff);
      if (target >= earliest) return null;
      earliest = target;
      at = target;
    } else {
      if (length > LABEL_MAX_BYTES || length > end - at - 1) return null;
      text += (text === '' ? '' : '.') + getLatin1(bytes, at + 1, length);
      if (text.length + 2 > NAME_MAX_BYTES) return null;
      at += 1 + length;
    }
  }
}

/** Where the name at `offset` ends, its pointer included but not followed; -1 when it runs past `end`. */
export function skipDomainName(bytes: Uint8Array, offset: number, end: number): number {
  let at = offset;
  while (at < end) {
    const length = bytes[at];
    if (length === 0) return at + 1;
    if (length >= 0xc0) return end - at >= 2 ? at + 2 : -1;
    if (length > LABEL_MAX_BYTES) return -1;
    at += 1 + length;
  }
  return -1;
}

/** Writes a recursive query with one question of class IN. Returns its length, or -1 when `name` is not valid. */
export function writeDnsQuery(
  bytes: Uint8Array,
  offset: number,
  end: number,
  id: number,
  name: string,
  type: number,
): number {
  if (end - offset < DNS_HEADER_BYTES) return -1;
  const question = offset + DNS_HEADER_BYTES;
  const nameBytes = writeDomainName(bytes, question, end - 4, name);
  if (nameBytes < 0) return -1;
  bytes.fill(0, offset, question);
  putU16be(bytes, offset + ID, id);
  putU16be(bytes, offset + FLAGS, FLAG_RECURSION_DESIRED);
  putU16be(bytes, offset + QUESTIONS, 1);
  putU16be(bytes, question + nameBytes, type);
  putU16be(bytes, question + nameBytes + 2, DNS_CLASS_IN);
  return DNS_HEADER_BYTES + nameBytes + 4;
}

/** A message's header and, for a reply, its answers. */
export class DnsMessage {
  id = 0;
  isReply = false;
  truncated = false;
  /** 0 is success, 3 "no such name" (RFC 1035 section 4.1.1). */
  rcode = 0;
  answers: DnsRecord[] = [];

  /** False when any part of what it reads is malformed. At most 64 questions and 64 answers are read. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    this.answers = [];
    if (end - offset < DNS_HEADER_BYTES) return false;
    const flags = u16be(bytes, offset + FLAGS);
    this.id = u16be(bytes, offset + ID);
    this.isReply = (flags & FLAG_RESPONSE) !== 0;
    this.truncated = (flags & FLAG_TRUNCATED) !== 0;
    this.rcode = flags & RCODE_MASK;
    const questions = u16be(bytes, offset + QUESTIONS);
    if (questions > RECORDS_MAX) return false;
    let at = offset + DNS_HEADER_BYTES;
    for (let i = 0; i < questions; i++) {
      at = skipDomainName(bytes, at, end);
      if (at < 0 || end - at < 4) return false;
      at += 4;
    }
    const records = Math.min(u16be(bytes, offset + ANSWERS), RECORDS_MAX);
    for (let i = 0; i < records; i++) {
      const name = readDomainName(bytes, offset, at, end);
      at = skipDomainName(bytes, at, end);
      if (name === null || at < 0 || end - at < 10) return false;
      const dataBytes = u16be(bytes, at + 8);
      const dataOffset = at + 10;
      if (dataBytes > end - dataOffset) return false;
      if (u16be(bytes, at + 2) === DNS_CLASS_IN) {
        const type = u16be(bytes, at);
        this.answers.push({ name, type, ttlSeconds: u32be(bytes, at + 4), dataOffset, dataBytes });
      }
      at = dataOffset + dataBytes;
    }
    return true;
  }
}

/**
 * DHCPv4 (RFC 2131, options RFC 2132) and the BOOTP (RFC 951) it grew from: a fixed part of 236 bytes, a magic cookie,
 * then options of code, length, value.
 *
 * Reading: `DhcpMessage.parse` indexes every option once and refuses the whole message when one runs past its field,
 * so that nobody acts on half an option. With option 52 the `file` and `sname` fields hold options too. A code that
 * comes more than once is one long value in pieces (RFC 3396): `copyOption` joins them; `findOption` gives the first.
 * A message without cookie is plain BOOTP: it parses with `messageType` 0.
 *
 * Writing: `writeDhcp` lays the fixed part, `DhcpOptionsWriter` appends options within a limit and remembers when one
 * did not fit, so a caller checks once, at the end.
 */

import { copyBytes, equalBytes, getLatin1, putLatin1, putU16be, putU32be, u16be, u32be } from './bytes.ts';
import { encodeDomainList } from './dns.ts';

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;

export const BOOTP_REQUEST = 1;
export const BOOTP_REPLY = 2;
/** The broadcast bit of `flags`: the client cannot yet take unicast. */
export const DHCP_FLAG_BROADCAST = 0x8000;

export const DHCP_DISCOVER = 1;
export const DHCP_OFFER = 2;
export const DHCP_REQUEST = 3;
export const DHCP_DECLINE = 4;
export const DHCP_ACK = 5;
export const DHCP_NAK = 6;
export const DHCP_RELEASE = 7;
export const DHCP_INFORM = 8;

export const DHCP_OPT_PAD = 0;
export const DHCP_OPT_SUBNET_MASK = 1;
export const DHCP_OPT_ROUTER = 3;
export const DHCP_OPT_DNS = 6;
export const DHCP_OPT_HOST_NAME = 12;
export const DHCP_OPT_DOMAIN_NAME = 15;
export const DHCP_OPT_MTU = 26;
export const DHCP_OPT_BROADCAST = 28;
export const DHCP_OPT_REQUESTED_IP = 50;
export const DHCP_OPT_LEASE_TIME = 51;
export const DHCP_OPT_OVERLOAD = 52;
export const DHCP_OPT_MESSAGE_TYPE = 53;
export const DHCP_OPT_SERVER_ID = 54;
export const DHCP_OPT_PARAMETER_LIST = 55;
export const DHCP_OPT_MESSAGE = 56;
export const DHCP_OPT_MAX_SIZE = 57;
export const DHCP_OPT_RENEWAL_TIME = 58;
export const DHCP_OPT_REBINDING_TIME = 59;
export const DHCP_OPT_VENDOR_CLASS = 60;
export const DHCP_OPT_CLIENT_ID = 61;
export const DHCP_OPT_TFTP_SERVER = 66;
export const DHCP_OPT_BOOTFILE = 67;
/** Rapid Commit, RFC 4039. */
export const DHCP_OPT_RAPID_COMMIT = 80;
/** Domain search list, RFC 3397. */
export const DHCP_OPT_DOMAIN_SEARCH = 119;
export const DHCP_OPT_END = 255;

const OP = 0;
const HTYPE = 1;
const HLEN = 2;
const HOPS = 3;
const XID = 4;
const SECS = 8;
const FLAGS = 10;
const CIADDR = 12;
const YIADDR = 16;
const SIADDR = 20;
const GIADDR = 24;
const CHADDR = 28;
const SNAME = 44;
const SNAME_BYTES = 64;
const FILE = 108;
const FILE_BYTES = 128;
const COOKIE = 236;
const MAGIC_COOKIE = 0x63825363;
const HTYPE_ETHERNET = 1;

/** The fixed part without the cookie: the shortest BOOTP message that is taken. */
export const BOOTP_HEADER_BYTES = 236;
/** The fixed part with the cookie: where options start. */
export const DHCP_OPTIONS = 240;
/** RFC 951: replies shorter than this are dropped by old clients, so writers pad up to it. */
export const BOOTP_MIN_BYTES = 300;
/** What every client takes without option 57: the 576-byte IP packet of RFC 2131 section 2, less IP and UDP. */
export const DHCP_DEFAULT_MAX_BYTES = 548;

const OVERLOAD_FILE = 1;
const OVERLOAD_SNAME = 2;

/** Reused: `parse` overwrites every field. Addresses are 32-bit numbers. */
export class DhcpMessage {
  offset = 0;
  op = 0;
  hops = 0;
  xid = 0;
  secs = 0;
  flags = 0;
  ciaddr = 0;
  yiaddr = 0;
  siaddr = 0;
  giaddr = 0;
  /** Offset of the client's hardware address; `parse` has made sure that it is an Ethernet one. */
  chaddr = 0;
  /** Option 53, or 0 for BOOTP. */
  messageType = 0;
  /** Where the value found by `findOption` lies. */
  valueOffset = 0;
  valueBytes = 0;

  #end = 0;
  #overload = 0;
  readonly #first = new Int32Array(256);

  /**
   * False when it is shorter than the fixed part, not for Ethernet, has an option that runs past its field, or a
   * message type that is not one byte of 1 to 8. A missing end option is forgiven.
   */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < BOOTP_HEADER_BYTES) return false;
    if (bytes[offset + HTYPE] !== HTYPE_ETHERNET || bytes[offset + HLEN] !== 6) return false;
    this.offset = offset;
    this.op = bytes[offset + OP];
    this.hops = bytes[offset + HOPS];
    this.xid = u32be(bytes, offset + XID);
    this.secs = u16be(bytes, offset + SECS);
    this.flags = u16be(bytes, offset + FLAGS);
    this.ciaddr = u32be(bytes, offset + CIADDR);
    this.yiaddr = u32be(bytes, offset + YIADDR);
    this.siaddr = u32be(bytes, offset + SIADDR);
    this.giaddr = u32be(bytes, offset + GIADDR);
    this.chaddr = offset + CHADDR;
    this.messageType = 0;
    this.#overload = 0;
    this.#first.fill(-1);
    this.#end = offset + BOOTP_HEADER_BYTES;
    if (end - offset < DHCP_OPTIONS || u32be(bytes, offset + COOKIE) !== MAGIC_COOKIE) return true;
    this.#end = end;
    if (!this.#index(bytes, offset + DHCP_OPTIONS, end)) return false;
    if (this.findOption(bytes, DHCP_OPT_OVERLOAD)) {
      if (this.valueBytes !== 1) return false;
      // RFC 2131 section 4.1: `file` is read before `sname`. Neither can overload anything further.
      this.#overload = bytes[this.valueOffset] & (OVERLOAD_FILE | OVERLOAD_SNAME);
      if (!this.#indexOverloaded(bytes)) return false;
    }
    if (this.findOption(bytes, DHCP_OPT_MESSAGE_TYPE)) {
      const type = bytes[this.valueOffset];
      if (this.valueBytes !== 1 || type < DHCP_DISCOVER || type > DHCP_INFORM) return false;
      this.messageType = type;
    }
    return true;
  }

  #indexOverloaded(bytes: Uint8Array): boolean {
    const file = this.offset + FILE;
    const sname = this.offset + SNAME;
    if (this.#overload & OVERLOAD_FILE && !this.#index(bytes, file, file + FILE_BYTES)) return false;
    return (this.#overload & OVERLOAD_SNAME) === 0 || this.#index(bytes, sname, sname + SNAME_BYTES);
  }

  /** Notes where each code comes first. False when an option runs past `end`. */
  #index(bytes: Uint8Array, offset: number, end: number): boolean {
    for (let at = offset; at < end; ) {
      const code = bytes[at];
      if (code === DHCP_OPT_END) return true;
      if (code === DHCP_OPT_PAD) {
        at++;
        continue;
      }
      if (end - at < 2 || bytes[at + 1] > end - at - 2) return false;
      if (this.#first[code] < 0) this.#first[code] = at;
      at += 2 + bytes[at + 1];
    }
    return true;
  }

  /** Sets `valueOffset` and `valueBytes` to the first occurrence of an option. False when there is none. */
  findOption(bytes: Uint8Array, code: number): boolean {
    const at = this.#first[code & 0xff];
    if (at < 0) return false;
    this.valueOffset = at + 2;
    this.valueBytes = bytes[at + 1];
    return true;
  }

  /** An option that holds one IPv4 address (or starts a list of them), or -1. */
  ipOption(bytes: Uint8Array, code: number): number {
    return this.findOption(bytes, code) && this.valueBytes >= 4 ? u32be(bytes, this.valueOffset) : -1;
  }

  /** An option that holds a 32-bit number, or -1. */
  u32Option(bytes: Uint8Array, code: number): number {
    return this.findOption(bytes, code) && this.valueBytes === 4 ? u32be(bytes, this.valueOffset) : -1;
  }

  /** An option that holds a 16-bit number, or -1. */
  u16Option(bytes: Uint8Array, code: number): number {
    return this.findOption(bytes, code) && this.valueBytes === 2 ? u16be(bytes, this.valueOffset) : -1;
  }

  /** An option that holds text, up to a NUL if there is one; `null` when absent. */
  textOption(bytes: Uint8Array, code: number): string | null {
    if (!this.findOption(bytes, code)) return null;
    const text = getLatin1(bytes, this.valueOffset, this.valueBytes);
    const nul = text.indexOf('\0');
    return nul < 0 ? text : text.slice(0, nul);
  }

  /** Whether the parameter request list names `code`; true when the client sent no list. */
  wants(bytes: Uint8Array, code: number): boolean {
    if (!this.findOption(bytes, DHCP_OPT_PARAMETER_LIST)) return true;
    for (let i = 0; i < this.valueBytes; i++) if (bytes[this.valueOffset + i] === code) return true;
    return false;
  }

  /** Joins all pieces of an option into `target`. Returns the length, or -1 when absent or longer than the room. */
  copyOption(bytes: Uint8Array, code: number, target: Uint8Array, targetOffset: number): number {
    if (this.#first[code & 0xff] < 0) return -1;
    const file = this.offset + FILE;
    const sname = this.offset + SNAME;
    let at = copyPieces(bytes, this.offset + DHCP_OPTIONS, this.#end, code, target, targetOffset);
    if (this.#overload & OVERLOAD_FILE) at = copyPieces(bytes, file, file + FILE_BYTES, code, target, at);
    if (this.#overload & OVERLOAD_SNAME) at = copyPieces(bytes, sname, sname + SNAME_BYTES, code, target, at);
    return at < 0 ? -1 : at - targetOffset;
  }

  /** The `file` field as text; empty when it holds options. */
  file(bytes: Uint8Array): string {
    return this.#overload & OVERLOAD_FILE ? '' : fieldText(bytes, this.offset + FILE, FILE_BYTES);
  }

  /** The `sname` field as text; empty when it holds options. */
  sname(bytes: Uint8Array): string {
    return this.#overload & OVERLOAD_SNAME ? '' : fieldText(bytes, this.offset + SNAME, SNAME_BYTES);
  }
}

/** Appends each piece of `code` in an already indexed field. Returns where the copy ends, or -1: no room. */
function copyPieces(
  bytes: Uint8Array,
  offset: number,
  end: number,
  code: number,
  target: Uint8Array,
  targetAt: number,
): number {
  for (let at = offset; at < end && targetAt >= 0 && bytes[at] !== DHCP_OPT_END; ) {
    const length = bytes[at] === DHCP_OPT_PAD ? -1 : bytes[at + 1];
    if (bytes[at] === code) {
      if (length > target.length - targetAt) return -1;
      copyBytes(target, targetAt, bytes, at + 2, length);
      targetAt += length;
    }
    at += 2 + length;
  }
  return targetAt;
}

function fieldText(bytes: Uint8Array, offset: number, length: number): string {
  let used = 0;
  while (used < length && bytes[offset + used] !== 0) used++;
  return getLatin1(bytes, offset, used);
}

/** The fixed part of a message; what is left out is 0. */
export interface DhcpFields {
  op: number;
  xid: number;
  hops?: number;
  secs?: number;
  flags?: number;
  ciaddr?: number;
  yiaddr?: number;
  siaddr?: number;
  giaddr?: number;
  /** Cut to 63 and 127 bytes. */
  sname?: string;
  file?: string;
}

/** Writes the fixed part and the cookie. `bytes` must have room. Returns where options go: 240 bytes further on. */
export function writeDhcp(
  bytes: Uint8Array,
  offset: number,
  fields: DhcpFields,
  chaddr: Uint8Array,
  chaddrOffset: number,
): number {
  bytes.fill(0, offset, offset + DHCP_OPTIONS);
  bytes[offset + OP] = fields.op;
  bytes[offset + HTYPE] = HTYPE_ETHERNET;
  bytes[offset + HLEN] = 6;
  bytes[offset + HOPS] = fields.hops ?? 0;
  putU32be(bytes, offset + XID, fields.xid);
  putU16be(bytes, offset + SECS, fields.secs ?? 0);
  putU16be(bytes, offset + FLAGS, fields.flags ?? 0);
  putU32be(bytes, offset + CIADDR, fields.ciaddr ?? 0);
  putU32be(bytes, offset + YIADDR, fields.yiaddr ?? 0);
  putU32be(bytes, offset + SIADDR, fields.siaddr ?? 0);
  putU32be(bytes, offset + GIADDR, fields.giaddr ?? 0);
  copyBytes(bytes, offset + CHADDR, chaddr, chaddrOffset, 6);
  putLatin1(bytes, offset + SNAME, (fields.sname ?? '').slice(0, SNAME_BYTES - 1));
  putLatin1(bytes, offset + FILE, (fields.file ?? '').slice(0, FILE_BYTES - 1));
  putU32be(bytes, offset + COOKIE, MAGIC_COOKIE);
  return offset + DHCP_OPTIONS;
}

/** Whether the two hardware addresses of a message and a client agree. */
export function dhcpIsFor(bytes: Uint8Array, message: DhcpMessage, mac: Uint8Array, macOffset = 0): boolean {
  return equalBytes(bytes, message.chaddr, mac, macOffset, 6);
}

/**
 * Appends options behind the fixed part, keeping room for the end option. An option that does not fit is left out
 * whole and sets `overflow`; later ones may still fit.
 */
export class DhcpOptionsWriter {
  overflow = false;
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;

  /** Starts at `offset`, as `writeDhcp` returned it; the message must end before `end`. Returns this. */
  start(bytes: Uint8Array, offset: number, end: number): this {
    this.overflow = false;
    this.#bytes = bytes;
    this.#at = offset;
    this.#end = Math.min(end, bytes.length);
    return this;
  }

  /** Any option, from bytes; values over 255 bytes are split as RFC 3396 says. */
  bytes(code: number, value: Uint8Array, valueOffset = 0, length = value.length - valueOffset): this {
    const pieces = Math.max(1, Math.ceil(length / 255));
    if (!this.#room(length + 2 * pieces)) return this;
    for (let done = 0, i = 0; i < pieces; i++) {
      const piece = Math.min(255, length - done);
      this.#head(code, piece);
      copyBytes(this.#bytes, this.#at, value, valueOffset + done, piece);
      this.#at += piece;
      done += piece;
    }
    return this;
  }

  /** An option without a value, such as Rapid Commit. */
  flag(code: number): this {
    if (this.#room(2)) this.#head(code, 0);
    return this;
  }

  u8(code: number, value: number): this {
    if (this.#room(3)) {
      this.#head(code, 1);
      this.#bytes[this.#at++] = value;
    }
    return this;
  }

  u16(code: number, value: number): this {
    if (this.#room(4)) {
      this.#head(code, 2);
      putU16be(this.#bytes, this.#at, value);
      this.#at += 2;
    }
    return this;
  }

  /** A 32-bit number: a time, or one IPv4 address. */
  u32(code: number, value: number): this {
    if (this.#room(6)) {
      this.#head(code, 4);
      putU32be(this.#bytes, this.#at, value);
      this.#at += 4;
    }
    return this;
  }

  /** A list of IPv4 addresses, at most 63; an empty list writes nothing. */
  ips(code: number, addresses: readonly number[]): this {
    const count = Math.min(addresses.length, 63);
    if (count === 0 || !this.#room(2 + 4 * count)) return this;
    this.#head(code, 4 * count);
    for (let i = 0; i < count; i++, this.#at += 4) putU32be(this.#bytes, this.#at, addresses[i]);
    return this;
  }

  /** Text without a terminating NUL (RFC 2132 section 2); empty text writes nothing, as a length of 0 is not legal. */
  text(code: number, text: string): this {
    if (text === '') return this;
    const value = new Uint8Array(text.length);
    putLatin1(value, 0, text);
    return this.bytes(code, value);
  }

  /**
   * The search list of RFC 3397 without its compression, which is optional for the writer. Names that are not valid
   * are left out; none left writes nothing.
   */
  domainSearch(names: readonly string[]): this {
    const value = encodeDomainList(names);
    return value.length === 0 ? this : this.bytes(DHCP_OPT_DOMAIN_SEARCH, value);
  }

  /** Writes the end option and pads to `minBytes` from `messageOffset`. Returns the message's length. */
  finish(messageOffset: number, minBytes = BOOTP_MIN_BYTES): number {
    this.#bytes[this.#at++] = DHCP_OPT_END;
    const padded = Math.min(messageOffset + minBytes, this.#end);
    if (this.#at < padded) {
      this.#bytes.fill(0, this.#at, padded);
      this.#at = padded;
    }
    return this.#at - messageOffset;
  }

  #room(length: number): boolean {
    if (length <= this.#end - this.#at - 1) return true;
    this.overflow = true;
    return false;
  }

  #head(code: number, length: number): void {
    this.#bytes[this.#at++] = code;
    this.#bytes[this.#at++] = length;
  }
}

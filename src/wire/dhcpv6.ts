/**
 * DHCPv6 (RFC 8415), the stateless part: a client asks with INFORMATION-REQUEST, a server replies with DNS servers and
 * search list (RFC 3646). Any client message parses, so that a server can tell what it leaves unanswered. Options are
 * 16-bit code, 16-bit length, value; a message with one that runs past its end is refused whole.
 */

import { copyBytes, putU16be, putU32be, u16be } from './bytes.ts';
import { encodeDomainList } from './dns.ts';

export const DHCPV6_SERVER_PORT = 547;
export const DHCPV6_CLIENT_PORT = 546;
/** All_DHCP_Relay_Agents_and_Servers. */
export const DHCPV6_SERVERS_GROUP = 'ff02::1:2';

export const DHCPV6_SOLICIT = 1;
export const DHCPV6_REPLY = 7;
export const DHCPV6_INFORMATION_REQUEST = 11;

export const DHCPV6_OPT_CLIENT_ID = 1;
export const DHCPV6_OPT_SERVER_ID = 2;
export const DHCPV6_OPT_REQUEST = 6;
export const DHCPV6_OPT_ELAPSED_TIME = 8;
export const DHCPV6_OPT_STATUS_CODE = 13;
export const DHCPV6_OPT_RAPID_COMMIT = 14;
export const DHCPV6_OPT_DNS_SERVERS = 23;
export const DHCPV6_OPT_DOMAIN_LIST = 24;
export const DHCPV6_OPT_REFRESH_TIME = 32;
export const DHCPV6_OPT_BOOTFILE_URL = 59;

export const DHCPV6_HEADER_BYTES = 4;
/** Relayed messages (RFC 8415 section 9) have another header and are refused. */
const RELAY_FORW = 12;
const RELAY_REPL = 13;

const DUID_LL = 3;
const HARDWARE_ETHERNET = 1;
export const DUID_LL_BYTES = 10;

/** Reused: `parse` overwrites every field. */
export class Dhcpv6Message {
  type = 0;
  /** 24 bits. */
  transactionId = 0;
  /** Where the value found by `findOption` lies. */
  valueOffset = 0;
  valueBytes = 0;
  #options = 0;
  #end = 0;

  /** False for a relayed message, one shorter than 4 bytes, or one whose options do not fill it exactly. */
  parse(bytes: Uint8Array, offset: number, end: number): boolean {
    if (end - offset < DHCPV6_HEADER_BYTES) return false;
    this.type = bytes[offset];
    if (this.type === RELAY_FORW || this.type === RELAY_REPL) return false;
    this.transactionId = (bytes[offset + 1] << 16) | u16be(bytes, offset + 2);
    this.#options = offset + DHCPV6_HEADER_BYTES;
    this.#end = end;
    let at = this.#options;
    while (at < end) {
      if (end - at < 4 || u16be(bytes, at + 2) > end - at - 4) return false;
      at += 4 + u16be(bytes, at + 2);
    }
    return true;
  }

  /** Sets `valueOffset` and `valueBytes` to the first option with this code. False when there is none. */
  findOption(bytes: Uint8Array, code: number): boolean {
    for (let at = this.#options; at < this.#end; at += 4 + u16be(bytes, at + 2)) {
      if (u16be(bytes, at) === code) {
        this.valueOffset = at + 4;
        this.valueBytes = u16be(bytes, at + 2);
        return true;
      }
    }
    return false;
  }

  /** Whether the option request names `code`; false when the client sent no request. */
  wants(bytes: Uint8Array, code: number): boolean {
    if (!this.findOption(bytes, DHCPV6_OPT_REQUEST)) return false;
    for (let i = 0; i + 1 < this.valueBytes; i += 2) {
      if (u16be(bytes, this.valueOffset + i) === code) return true;
    }
    return false;
  }
}

/** Writes one message within a limit. An option that does not fit is left out whole and sets `overflow`. */
export class Dhcpv6Writer {
  overflow = false;
  #bytes: Uint8Array = new Uint8Array(0);
  #offset = 0;
  #at = 0;
  #end = 0;

  /** Starts a message at `offset` that ends before `end`; there must be room for 4 bytes. Returns this. */
  start(bytes: Uint8Array, offset: number, end: number, type: number, transactionId: number): this {
    this.overflow = false;
    this.#bytes = bytes;
    this.#offset = offset;
    this.#end = Math.min(end, bytes.length);
    bytes[offset] = type;
    bytes[offset + 1] = transactionId >>> 16;
    putU16be(bytes, offset + 2, transactionId);
    this.#at = offset + DHCPV6_HEADER_BYTES;
    return this;
  }

  /** Any option, from bytes. */
  bytes(code: number, value: Uint8Array, valueOffset = 0, length = value.length - valueOffset): this {
    if (this.#head(code, length)) {
      copyBytes(this.#bytes, this.#at, value, valueOffset, length);
      this.#at += length;
    }
    return this;
  }

  u16(code: number, value: number): this {
    if (this.#head(code, 2)) {
      putU16be(this.#bytes, this.#at, value);
      this.#at += 2;
    }
    return this;
  }

  u32(code: number, value: number): this {
    if (this.#head(code, 4)) {
      putU32be(this.#bytes, this.#at, value);
      this.#at += 4;
    }
    return this;
  }

  /** The option request: the codes the client wants. */
  request(codes: readonly number[]): this {
    if (this.#head(DHCPV6_OPT_REQUEST, 2 * codes.length)) {
      for (const code of codes) {
        putU16be(this.#bytes, this.#at, code);
        this.#at += 2;
      }
    }
    return this;
  }

  /** DNS servers of 16 bytes each; an empty list writes nothing. */
  dnsServers(addresses: readonly Uint8Array[]): this {
    if (addresses.length && this.#head(DHCPV6_OPT_DNS_SERVERS, 16 * addresses.length)) {
      for (const address of addresses) {
        copyBytes(this.#bytes, this.#at, address, 0, 16);
        this.#at += 16;
      }
    }
    return this;
  }

  /** The search list; names that are not valid are left out, none left writes nothing. */
  domainList(names: readonly string[]): this {
    const value = encodeDomainList(names);
    return value.length === 0 ? this : this.bytes(DHCPV6_OPT_DOMAIN_LIST, value);
  }

  /** The message's length. */
  finish(): number {
    return this.#at - this.#offset;
  }

  #head(code: number, length: number): boolean {
    if (length > 0xffff || length + 4 > this.#end - this.#at) {
      this.overflow = true;
      return false;
    }
    putU16be(this.#bytes, this.#at, code);
    putU16be(this.#bytes, this.#at + 2, length);
    this.#at += 4;
    return true;
  }
}

/** Writes the identifier made of an Ethernet address (DUID-LL, RFC 8415 section 11.4). Returns its length, 10. */
export function writeDuidLl(bytes: Uint8Array, offset: number, mac: Uint8Array, macOffset: number): number {
  putU16be(bytes, offset, DUID_LL);
  putU16be(bytes, offset + 2, HARDWARE_ETHERNET);
  copyBytes(bytes, offset + 4, mac, macOffset, 6);
  return DUID_LL_BYTES;
}

/**
 * The L2TPv3 data header (RFC 3931 section 4.1) in the layouts of a static tunnel, in this order:
 *
 *   4 bytes   0x00030000 (data message, version 3)    only over UDP
 *   4 bytes   session
 *   4 or 8    cookie                                  when one is agreed
 *   4 bytes   packet counter                          when asked for
 *   n bytes   unused                                  `offset`
 *
 * The layout is fixed per tunnel: one object works out the positions and writes and checks every header. A cookie is
 * compared as a whole, whatever part differs, so that its value cannot be found byte by byte from response times.
 */

import { putU32be, u32be } from './bytes.ts';

const DATA_VERSION_3 = 0x00030000;
/** The message type bit and the version; the other bits of the first word are reserved (RFC 3931 4.1.2.1). */
const TYPE_VERSION_MASK = 0x800f0000;

export const L2TPV3_PORT = 1701;

/** What `check` finds. */
export const L2TPV3_OK = 0;
export const L2TPV3_SHORT = 1;
export const L2TPV3_BAD_TYPE = 2;
export const L2TPV3_BAD_SESSION = 3;
export const L2TPV3_BAD_COOKIE = 4;

/** The agreed layout and the values each side expects. */
export interface L2tpv3Config {
  udp: boolean;
  cookieBytes: 0 | 4 | 8;
  counter: boolean;
  /** Unused bytes behind the header, under 256. */
  offsetBytes: number;
  txSession: number;
  rxSession: number;
  /** 32-bit halves; of a 4-byte cookie only the low one. */
  txCookieHigh: number;
  txCookieLow: number;
  rxCookieHigh: number;
  rxCookieLow: number;
}

export class L2tpv3Header {
  /** From the first byte to the tunnelled frame. */
  readonly headerBytes: number;
  readonly #config: L2tpv3Config;
  readonly #session: number;
  readonly #cookie: number;
  readonly #counter: number;

  constructor(config: L2tpv3Config) {
    this.#config = config;
    this.#session = config.udp ? 4 : 0;
    this.#cookie = this.#session + 4;
    this.#counter = this.#cookie + config.cookieBytes;
    this.headerBytes = this.#counter + (config.counter ? 4 : 0) + config.offsetBytes;
  }

  /** Writes the header in front of a frame; `counter` is ignored where the layout has none. Returns its length. */
  write(bytes: Uint8Array, offset: number, counter: number): number {
    const config = this.#config;
    if (config.udp) putU32be(bytes, offset, DATA_VERSION_3);
    putU32be(bytes, offset + this.#session, config.txSession);
    const cookie = offset + this.#cookie;
    if (config.cookieBytes === 8) {
      putU32be(bytes, cookie, config.txCookieHigh);
      putU32be(bytes, cookie + 4, config.txCookieLow);
    } else if (config.cookieBytes === 4) putU32be(bytes, cookie, config.txCookieLow);
    if (config.counter) putU32be(bytes, offset + this.#counter, counter);
    bytes.fill(0, offset + this.headerBytes - config.offsetBytes, offset + this.headerBytes);
    return this.headerBytes;
  }

  /** Whether a datagram belongs here: L2TPV3_OK, then its frame starts at `offset + headerBytes`; or why not. */
  check(bytes: Uint8Array, offset: number, end: number): number {
    const config = this.#config;
    if (end - offset < this.headerBytes) return L2TPV3_SHORT;
    if (config.udp && ((u32be(bytes, offset) ^ DATA_VERSION_3) & TYPE_VERSION_MASK) !== 0)
      return L2TPV3_BAD_TYPE;
    if (u32be(bytes, offset + this.#session) !== config.rxSession >>> 0) return L2TPV3_BAD_SESSION;
    const cookie = offset + this.#cookie;
    let difference = 0;
    if (config.cookieBytes === 8) {
      difference =
        (u32be(bytes, cookie) ^ config.rxCookieHigh) | (u32be(bytes, cookie + 4) ^ config.rxCookieLow);
    } else if (config.cookieBytes === 4) difference = u32be(bytes, cookie) ^ config.rxCookieLow;
    return difference === 0 ? L2TPV3_OK : L2TPV3_BAD_COOKIE;
  }

  /** The counter of a checked datagram; 0 where the layout has none. */
  counter(bytes: Uint8Array, offset: number): number {
    return this.#config.counter ? u32be(bytes, offset + this.#counter) : 0;
  }
}

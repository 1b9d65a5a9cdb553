/**
 * `l2tpv3`: a static Ethernet pseudowire (RFC 3931), over UDP or straight over IP protocol 115, IPv4 and IPv6. There is no control connection: both ends
 * were told the same sessions and cookies.
 *
 * The socket is bound to src and connected to dst, so that only dst's datagrams come in. On protocol 115 a session of 0 is a control message
 * (RFC 3931 section 4.1.1), which like any other session that is not ours is dropped and counted. Counters are written, and only looked at to tell
 * (`rxOutOfOrder`): a frame that comes late is still a frame.
 */

import type { Host } from '../config/address.ts';
import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import { HostIoError, OptionError } from '../core/errors.ts';
import { errnoOf, errnoText } from '../host-io/errno.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import {
  L2TPV3_BAD_COOKIE,
  L2TPV3_BAD_SESSION,
  L2TPV3_BAD_TYPE,
  L2TPV3_OK,
  L2TPV3_SHORT,
  type L2tpv3Config,
  L2tpv3Header,
} from '../wire/l2tpv3.ts';
import type { OpenBackend } from './backend.ts';
import { DatagramBackend } from './datagram-backend.ts';
import { DatagramPort, DatagramPortStats, type Encapsulation } from './datagram-port.ts';
import { needHostIo, resolveHost, type Services, showEndpoint } from './services.ts';
import { RECEIVE_BUFFER_BYTES } from './udp.ts';

const L2TPV3_PROTOCOL = 115;

export class L2tpv3Stats extends DatagramPortStats {
  /** Shorter than the agreed header. */
  rxDropTruncated = 0;
  /** Not a data message of version 3. */
  rxDropBadType = 0;
  rxDropBadSession = 0;
  rxDropBadCookie = 0;
  /** Frames whose counter is not the one after the last; they pass. */
  rxOutOfOrder = 0;
}

/** Writes and checks the tunnel's headers. */
export class L2tpv3Encapsulation implements Encapsulation {
  readonly headerBytes: number;
  readonly #header: L2tpv3Header;
  readonly #stats: L2tpv3Stats;
  readonly #counter: 'none' | 'counting' | 'pinned';
  #next = 0;
  #expected = 0;
  #received = false;

  constructor(config: L2tpv3Config, counter: 'none' | 'counting' | 'pinned', stats: L2tpv3Stats) {
    this.#header = new L2tpv3Header(config);
    this.headerBytes = this.#header.headerBytes;
    this.#counter = counter;
    this.#stats = stats;
  }

  write(target: Uint8Array, count: number): void {
    const step = this.#counter === 'counting' ? 1 : 0;
    for (let i = 0; i < count; i++) this.#header.write(target, i * this.headerBytes, this.#next + i * step);
  }

  sent(count: number): void {
    if (this.#counter === 'counting') this.#next = (this.#next + count) >>> 0;
  }

  check(bytes: Uint8Array, offset: number, end: number): boolean {
    const result = this.#header.check(bytes, offset, end);
    if (result === L2TPV3_OK) {
      if (this.#counter === 'counting') this.#watch(this.#header.counter(bytes, offset));
      return true;
    }
    const stats = this.#stats;
    if (result === L2TPV3_SHORT) stats.rxDropTruncated++;
    else if (result === L2TPV3_BAD_TYPE) stats.rxDropBadType++;
    else if (result === L2TPV3_BAD_SESSION) stats.rxDropBadSession++;
    else if (result === L2TPV3_BAD_COOKIE) stats.rxDropBadCookie++;
    return false;
  }

  #watch(counter: number): void {
    if (this.#received && counter !== this.#expected) this.#stats.rxOutOfOrder++;
    this.#received = true;
    this.#expected = (counter + 1) >>> 0;
  }
}

export function l2tpv3Backend(services: Services): OpenBackend<'l2tpv3'> {
  return async (config, context) => {
    const hostIo = needHostIo(context, 'l2tpv3');
    const src = await resolveEnd('src', config.src, config.family, services);
    const dst = await resolveEnd('dst', config.dst, config.family, services);
    const receive = openSocket(config, src, dst, hostIo);
    const stats = new L2tpv3Stats();
    const encapsulation = new L2tpv3Encapsulation(wireConfig(config), config.counter, stats);
    const link = new DatagramPort(config.id, context, hostIo, { receive, encapsulation }, stats);
    const name = (address: string, port: number | undefined): string =>
      port === undefined ? address : showEndpoint({ address, port });
    return new DatagramBackend(
      link,
      `l2tpv3: ${name(src, config.udp?.srcPort)} to ${name(dst, config.udp?.dstPort)}`,
    );
  };
}

async function resolveEnd(
  option: 'src' | 'dst',
  host: Host,
  family: 4 | 6,
  services: Services,
): Promise<string> {
  try {
    return await resolveHost(host, family, services);
  } catch {
    throw new OptionError(`could not resolve ${option}, error = Name or service not known`, { option });
  }
}

function openSocket(config: NetdevConfigOf<'l2tpv3'>, src: string, dst: string, hostIo: HostIo): Handle {
  try {
    if (config.udp !== undefined) {
      return hostIo.udpOpen({
        local: { address: src, port: config.udp.srcPort },
        remote: { address: dst, port: config.udp.dstPort },
        family: config.family,
        gro: true,
        receiveBufferBytes: RECEIVE_BUFFER_BYTES,
      });
    }
    return hostIo.rawIpOpen(config.family, L2TPV3_PROTOCOL, { local: src, remote: dst });
  } catch (error) {
    if (!(error instanceof HostIoError)) throw error;
    const text = errnoText(errnoOf(error.code));
    const isPermission = config.udp === undefined && (error.code === 'EPERM' || error.code === 'EACCES');
    throw new HostIoError(
      error.syscall,
      error.code,
      isPermission
        ? `could not open raw IP socket: ${text} (it needs CAP_NET_RAW; udp=on does not)`
        : `could not bind socket: ${text}`,
    );
  }
}

function wireConfig(config: NetdevConfigOf<'l2tpv3'>): L2tpv3Config {
  const { cookie } = config;
  const high = (value: bigint): number => Number(value >> 32n);
  const low = (value: bigint): number => Number(value & 0xffffffffn);
  return {
    udp: config.udp !== undefined,
    cookieBytes: cookie === undefined ? 0 : cookie.bits === 32 ? 4 : 8,
    counter: config.counter !== 'none',
    offsetBytes: config.offsetBytes,
    txSession: config.txSession,
    rxSession: config.rxSession,
    txCookieHigh: high(cookie?.tx ?? 0n),
    txCookieLow: low(cookie?.tx ?? 0n),
    rxCookieHigh: high(cookie?.rx ?? 0n),
    rxCookieLow: low(cookie?.rx ?? 0n),
  };
}

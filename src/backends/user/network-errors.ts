/**
 * How far the guest's packets may go, and what routers say about it: what traceroute is made of.
 *
 *     guest ── hop limit n ──▶ gateway ── hop limit n − 1 ──▶ routers ──▶ far end
 *     guest ◀── ICMP error, from who sent it ── the host's socket keeps errors
 *
 * A hop limit below the usual 64 is meant: traceroute's, or that of a guest that is a router itself. It goes on, less the gateway's hop. All
 * others leave with the host's own, which costs nothing.
 *
 * Told to the guest are "unreachable" and "time exceeded", in the sender's own name, about the packet as the guest sent it. Not "too big": the host
 * cuts datagrams itself. What the host says as a router, or about an address that stands for one of its own, is said by the gateway: the host's addresses
 * appear nowhere.
 */

import { HostIoError } from '../../core/errors.ts';
import {
  type Handle,
  NETWORK_ERROR_ABOUT,
  NETWORK_ERROR_BYTES,
  NETWORK_ERROR_CODE,
  NETWORK_ERROR_FAMILY,
  NETWORK_ERROR_FROM,
  NETWORK_ERROR_QUOTE,
  NETWORK_ERROR_QUOTED,
  NETWORK_ERROR_TYPE,
} from '../../host-io/host-io.ts';
import { isV4, localAddress } from '../../tcp/link-header.ts';
import { equalBytes, formatIpv4, formatIpv6, u32be } from '../../wire/bytes.ts';
import {
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_PORT_UNREACHABLE,
  ICMP_PROTOCOL_UNREACHABLE,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
} from '../../wire/icmp.ts';
import { ICMPV6_PORT_UNREACHABLE, ICMPV6_TIME_EXCEEDED, ICMPV6_UNREACHABLE } from '../../wire/icmpv6.ts';
import { sendFlowError } from './icmp-error.ts';
import type { Site } from './site.ts';

const HOPS_USUAL = 64;
/** Errors of one socket that are told in a row. */
const ERRORS_MAX = 32;

/** What a packet's hop limit means for the host's socket: how far its packets go; 0: as the host has it. The gateway has let the packet pass. */
export function hopsOnward(hopLimit: number): number {
  return hopLimit > 1 && hopLimit < HOPS_USUAL ? hopLimit - 1 : 0;
}

/** The hop limit of the packet whose IP header lies at `ip`. */
export function hopLimitOf(bytes: Uint8Array, version: number, ip: number): number {
  return bytes[ip + (version === 4 ? 8 : 7)];
}

/**
 * The first 8 bytes that the guest's packet had behind its IP header, by what the host's had; null: the error is about nobody of ours. `quote` has
 * as many bytes as are known.
 */
export type TransportOf = (quote: Uint8Array, about: Uint8Array) => Uint8Array | null;

export class NetworkErrors {
  readonly #site: Site;
  readonly #error = new Uint8Array(NETWORK_ERROR_BYTES);

  constructor(site: Site) {
    this.#site = site;
  }

  /**
   * Takes the errors that wait in a socket, and tells the guest of those that concern it. `link` is the flow's template towards the guest.
   * Returns how many there were.
   */
  tell(handle: Handle, link: Uint8Array, transportOf: TransportOf): number {
    const { hostIo, stats } = this.#site;
    const error = this.#error;
    let count = 0;
    while (count < ERRORS_MAX && hostIo.networkError?.(handle, error)) {
      count++;
      const v4 = isV4(link);
      const size = v4 ? 4 : 16;
      if (error[NETWORK_ERROR_FAMILY] !== (v4 ? 4 : 6) || !isTold(v4, error)) continue;
      const about = error.subarray(NETWORK_ERROR_ABOUT, NETWORK_ERROR_ABOUT + size);
      const quoted = NETWORK_ERROR_QUOTE + error[NETWORK_ERROR_QUOTED];
      const transport = transportOf(error.subarray(NETWORK_ERROR_QUOTE, quoted), about);
      if (transport === null) continue;
      stats.networkErrors++;
      const from = this.#source(v4, error, about, link);
      sendFlowError(this.#site, link, transport, error[NETWORK_ERROR_TYPE], error[NETWORK_ERROR_CODE], from);
    }
    return count;
  }

  /** Who it comes from as the guest sees it; null: the gateway. */
  #source(v4: boolean, error: Uint8Array, about: Uint8Array, link: Uint8Array): Uint8Array | null {
    const far = localAddress(link);
    const from = error.subarray(NETWORK_ERROR_FROM, NETWORK_ERROR_FROM + about.length);
    const fromTarget = equalBytes(from, 0, about, 0, about.length);
    if (!equalBytes(far, 0, about, 0, about.length)) return isOfTarget(v4, error) ? far : null;
    if (fromTarget) return far;
    return this.#isOurs(v4 ? formatIpv4(u32be(from, 0)) : formatIpv6(from)) ? null : from.slice();
  }

  /** Whether an address is the host's: what goes there leaves from there. */
  #isOurs(address: string): boolean {
    const { hostIo } = this.#site;
    let probe: Handle;
    try {
      probe = hostIo.udpOpen({ remote: { address, port: 9 } });
    } catch (error) {
      if (!(error instanceof HostIoError)) throw error;
      return true;
    }
    const ours = hostIo.localEndpoint(probe).address === address;
    hostIo.close(probe);
    return ours;
  }
}

function isTold(v4: boolean, error: Uint8Array): boolean {
  const type = error[NETWORK_ERROR_TYPE];
  if (!v4) return type === ICMPV6_UNREACHABLE || type === ICMPV6_TIME_EXCEEDED;
  return (
    (type === ICMP_UNREACHABLE && error[NETWORK_ERROR_CODE] !== ICMP_FRAGMENTATION_NEEDED) ||
    type === ICMP_TIME_EXCEEDED
  );
}

/** What only the far end itself says. */
function isOfTarget(v4: boolean, error: Uint8Array): boolean {
  const code = error[NETWORK_ERROR_CODE];
  if (!v4) return error[NETWORK_ERROR_TYPE] === ICMPV6_UNREACHABLE && code === ICMPV6_PORT_UNREACHABLE;
  return (
    error[NETWORK_ERROR_TYPE] === ICMP_UNREACHABLE &&
    (code === ICMP_PORT_UNREACHABLE || code === ICMP_PROTOCOL_UNREACHABLE)
  );
}

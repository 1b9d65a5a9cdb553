/**
 * ICMP and ICMPv6 errors to the guest: about a packet at hand, or about a flow whose packet is long gone (then the quoted headers are
 * made up again from the flow). Sources: the gateway for what a router says, the destination itself for what it would say. The host's own
 * address appears nowhere: quotes carry the addresses the guest used.
 */

import { ERRNO } from '../../host-io/host-io.ts';
import {
  isV4,
  linkHeaderSum,
  linkHeaderV4,
  linkHeaderV6,
  localAddress,
  remoteAddress,
} from '../../tcp/link-header.ts';
import { putU16be, putU32be, u32be } from '../../wire/bytes.ts';
import { ETH_HEADER_BYTES } from '../../wire/ethernet.ts';
import { ICMP_UNREACHABLE, writeIcmpError } from '../../wire/icmp.ts';
import {
  ICMPV6_ADDRESS_UNREACHABLE,
  ICMPV6_ADMIN_PROHIBITED,
  ICMPV6_NO_ROUTE,
  ICMPV6_PORT_UNREACHABLE,
  ICMPV6_UNREACHABLE,
  setIcmpv6Checksum,
  writeIcmpv6Error,
} from '../../wire/icmpv6.ts';
import { IP_PROTOCOL_ICMP, IP_PROTOCOL_TCP, IPV4_HEADER_BYTES, writeIpv4 } from '../../wire/ipv4.ts';
import { IP_PROTOCOL_ICMPV6, IPV6_HEADER_BYTES, writeIpv6 } from '../../wire/ipv6.ts';
import { allocPacket, payloadPlace, sendIp } from './packet-out.ts';
import type { Site } from './site.ts';

/** What is wrong, in both families' codes. */
export interface Unreachable {
  readonly v4: number;
  readonly v6: number;
  /** Said by the destination, not by the gateway. */
  readonly byTarget: boolean;
}

export const NET_UNREACHABLE: Unreachable = { v4: 0, v6: ICMPV6_NO_ROUTE, byTarget: false };
export const HOST_UNREACHABLE: Unreachable = { v4: 1, v6: ICMPV6_ADDRESS_UNREACHABLE, byTarget: false };
export const PROTOCOL_UNREACHABLE: Unreachable = { v4: 2, v6: ICMPV6_PORT_UNREACHABLE, byTarget: true };
export const PORT_UNREACHABLE: Unreachable = { v4: 3, v6: ICMPV6_PORT_UNREACHABLE, byTarget: true };
export const PROHIBITED: Unreachable = { v4: 13, v6: ICMPV6_ADMIN_PROHIBITED, byTarget: false };

/** What a host's errno (positive) means for the guest; null: nothing to be told. */
export function unreachableFor(errno: number): Unreachable | null {
  switch (errno) {
    case ERRNO.ECONNREFUSED:
      return PORT_UNREACHABLE;
    case ERRNO.ENETUNREACH:
    case ERRNO.ENETDOWN:
    case ERRNO.EADDRNOTAVAIL:
      return NET_UNREACHABLE;
    case ERRNO.EHOSTUNREACH:
    case ERRNO.EHOSTDOWN:
      return HOST_UNREACHABLE;
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return PROHIBITED;
    default:
      return null;
  }
}

/**
 * Tells the guest about the packet whose IP header lies at `ipOffset` of region 0, of which `bytes` are there in a row. `type` and `rest` as
 * in writeIcmpError of the family. `macOffset`: the guest's MAC.
 */
export function sendErrorAbout(
  site: Site,
  version: number,
  ipOffset: number,
  bytes: number,
  macOffset: number,
  type: number,
  code: number,
  byTarget: boolean,
  rest = 0,
): void {
  const memory = site.pool.bytes;
  const mac = memory.subarray(macOffset, macOffset + 6);
  if (version === 4) {
    const gateway = site.config.ipv4;
    if (gateway === undefined) return;
    const src = byTarget ? u32be(memory, ipOffset + 16) : gateway.host.value;
    send(
      site,
      linkHeaderV4(mac, site.mac, src, u32be(memory, ipOffset + 12), IP_PROTOCOL_ICMP),
      memory,
      ipOffset,
      bytes,
      type,
      code,
      rest,
    );
  } else {
    const gateway = site.config.ipv6;
    if (gateway === undefined) return;
    const src = byTarget ? memory.subarray(ipOffset + 24, ipOffset + 40) : gateway.host.bytes;
    const dst = memory.subarray(ipOffset + 8, ipOffset + 24);
    send(
      site,
      linkHeaderV6(mac, site.mac, src, dst, IP_PROTOCOL_ICMPV6),
      memory,
      ipOffset,
      bytes,
      type,
      code,
      rest,
    );
  }
}

/**
 * Tells the guest that a flow's far end cannot be reached. `link` is the flow's template towards the guest; `guestPort` and
 * `farPort` are 16 bits each, in the order of the guest's packet. `seq` for TCP: the stack looks at it.
 */
export function sendFlowUnreachable(
  site: Site,
  link: Uint8Array,
  guestPort: number,
  farPort: number,
  seq: number,
  what: Unreachable,
): void {
  const from = what.byTarget ? localAddress(link) : null;
  const transport = flowTransport(link, guestPort, farPort, seq);
  if (isV4(link)) sendFlowError(site, link, transport, ICMP_UNREACHABLE, what.v4, from);
  else sendFlowError(site, link, transport, ICMPV6_UNREACHABLE, what.v6, from);
}

/** The first 8 bytes of a flow's packet of the guest, behind the IP header: UDP without data, or TCP. */
export function flowTransport(link: Uint8Array, guestPort: number, farPort: number, seq: number): Uint8Array {
  const out = new Uint8Array(8);
  putU16be(out, 0, guestPort);
  putU16be(out, 2, farPort);
  if (link[ETH_HEADER_BYTES + (isV4(link) ? 9 : 6)] === IP_PROTOCOL_TCP) putU32be(out, 4, seq);
  else putU16be(out, 4, 8);
  return out;
}

/**
 * Tells the guest of an error about a packet of a flow, of which `transport` is what the packet had behind its IP header (8 bytes). `type` and `code` are
 * of the flow's family; `from`: who says it, null: the gateway.
 */
export function sendFlowError(
  site: Site,
  link: Uint8Array,
  transport: Uint8Array,
  type: number,
  code: number,
  from: Uint8Array | null,
): void {
  const v4 = isV4(link);
  const protocol = link[ETH_HEADER_BYTES + (v4 ? 9 : 6)];
  const headerBytes = v4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const quote = new Uint8Array(headerBytes + transport.length);
  const guest = remoteAddress(link);
  const far = localAddress(link);
  if (v4) writeIpv4(quote, 0, quote.length, 0, 0, 63, protocol, u32be(guest, 0), u32be(far, 0));
  else writeIpv6(quote, 0, transport.length, protocol, 63, guest, 0, far, 0);
  quote.set(transport, headerBytes);
  const mac = link.subarray(0, 6);
  if (v4) {
    const src = from === null ? site.config.ipv4!.host.value : u32be(from, 0);
    const out = linkHeaderV4(mac, site.mac, src, u32be(guest, 0), IP_PROTOCOL_ICMP);
    send(site, out, quote, 0, quote.length, type, code, 0);
  } else {
    const src = from ?? site.config.ipv6!.host.bytes;
    const out = linkHeaderV6(mac, site.mac, src, guest, IP_PROTOCOL_ICMPV6);
    send(site, out, quote, 0, quote.length, type, code, 0);
  }
}

function send(
  site: Site,
  link: Uint8Array,
  quoted: Uint8Array,
  at: number,
  bytes: number,
  type: number,
  code: number,
  rest: number,
): void {
  if (site.outbox.room() <= 0) {
    site.stats.rxDropQueueFull++;
    return;
  }
  const frame = allocPacket(site, 1280);
  if (frame === 0) return;
  const place = payloadPlace(site, frame);
  const memory = site.pool.bytes;
  let length: number;
  if (isV4(link)) {
    length = writeIcmpError(memory, place, type, code, rest, quoted, at, bytes);
  } else {
    length = writeIcmpv6Error(memory, place, type, code, rest, quoted, at, bytes);
    // The checksum covers the addresses: lay them where sendIp will, then sum.
    memory.set(link, place - link.length);
    setIcmpv6Checksum(memory, place, length, place - IPV6_HEADER_BYTES);
  }
  site.stats.icmpErrorsSent++;
  sendIp(site, frame, place, length, link, linkHeaderSum(link));
}

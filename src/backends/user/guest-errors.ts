/**
 * What the guest says by ICMP errors about packets of ours. "Port unreachable" about a datagram ends the flow it belongs to: the host's socket is
 * closed, and the host itself says "port unreachable" to whoever goes on sending. "Fragmentation needed" and "packet too big" about a TCP
 * segment make that connection's segments shorter: the guest is a router there, with a narrower link behind it. All else is not for us.
 *
 * Whoever is on the guest's side may write such a message. So a flow is ended only by the address it leads to, and a connection believes only a
 * quote whose sequence number is in flight (RFC 5927 section 4).
 */

import type { TcpStack } from '../../tcp/stack.ts';
import { equalBytes, u16be, u32be } from '../../wire/bytes.ts';
import {
  ICMP_CODE,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HEADER_BYTES,
  ICMP_PORT_UNREACHABLE,
  ICMP_REST,
  ICMP_UNREACHABLE,
} from '../../wire/icmp.ts';
import { ICMPV6_PACKET_TOO_BIG, ICMPV6_PORT_UNREACHABLE, ICMPV6_UNREACHABLE } from '../../wire/icmpv6.ts';
import { IP_PROTOCOL_TCP, IP_PROTOCOL_UDP, IPV4_HEADER_BYTES } from '../../wire/ipv4.ts';
import { IPV6_HEADER_BYTES } from '../../wire/ipv6.ts';
import type { Site } from './site.ts';
import type { UdpNat } from './udp-nat.ts';

export class GuestErrors {
  readonly #site: Site;
  readonly #udp: UdpNat;
  readonly #tcp: TcpStack;

  constructor(site: Site, udp: UdpNat, tcp: TcpStack) {
    this.#site = site;
    this.#udp = udp;
    this.#tcp = tcp;
  }

  /** An ICMP message at bytes[at..end) of region 0, behind the IP header at `ip`. False: it means nothing to us. */
  input(version: number, ip: number, at: number, end: number): boolean {
    const { bytes } = this.#site.pool;
    const v4 = version === 4;
    const type = bytes[at];
    const code = bytes[at + ICMP_CODE];
    const closed = v4
      ? type === ICMP_UNREACHABLE && code === ICMP_PORT_UNREACHABLE
      : type === ICMPV6_UNREACHABLE && code === ICMPV6_PORT_UNREACHABLE;
    const tooBig = v4
      ? type === ICMP_UNREACHABLE && code === ICMP_FRAGMENTATION_NEEDED
      : type === ICMPV6_PACKET_TOO_BIG;
    if (!closed && !tooBig) return false;
    const quote = at + ICMP_HEADER_BYTES;
    if (end - quote < (v4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) || bytes[quote] >>> 4 !== version)
      return false;
    const protocol = bytes[quote + (v4 ? 9 : 6)];
    const transport = quote + (v4 ? (bytes[quote] & 15) * 4 : IPV6_HEADER_BYTES);
    if (transport - quote < IPV4_HEADER_BYTES || end - transport < 8) return false;
    if (closed) {
      if (protocol !== IP_PROTOCOL_UDP || !this.#isFromGuest(version, ip, quote)) return false;
      return this.#udp.refusedByGuest(version, quote, transport);
    }
    if (protocol !== IP_PROTOCOL_TCP) return false;
    const rest = at + ICMP_REST;
    const told = v4 ? u16be(bytes, rest + 2) : u32be(bytes, rest);
    return this.#tcp.packetTooBig(bytes, version, quote, transport, told);
  }

  /** Whether who says it is who the quoted packet was for. */
  #isFromGuest(version: number, ip: number, quote: number): boolean {
    const { bytes } = this.#site.pool;
    return version === 4
      ? u32be(bytes, ip + 12) === u32be(bytes, quote + 16)
      : equalBytes(bytes, ip + 8, bytes, quote + 24, 16);
  }
}

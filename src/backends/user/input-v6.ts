/**
 * IPv6 packets of the guest: as input-v4.ts, with NDP and DHCPv6 in place of ARP and DHCP. Errors follow RFC 4443: none about errors or groups.
 */

import { LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import { DHCPV6_SERVER_PORT } from '../../wire/dhcpv6.ts';
import { ICMPV6_TIME_EXCEEDED, mayAnswerWithIcmpv6Error } from '../../wire/icmpv6.ts';
import { IP_PROTOCOL_TCP, IP_PROTOCOL_UDP } from '../../wire/ipv4.ts';
import {
  IP_PROTOCOL_ICMPV6,
  IPV6_HEADER_BYTES,
  Ipv6Header,
  isLinkLocalIpv6,
  isLoopbackIpv6,
  isMulticastIpv6,
  isUnspecifiedIpv6,
} from '../../wire/ipv6.ts';
import { UdpHeader } from '../../wire/udp.ts';
import { sendErrorAbout } from './icmp-error.ts';
import type { Parts } from './parts.ts';
import { samePrefix } from './policy.ts';
import { ServedDatagrams } from './served-datagrams.ts';
import type { Site } from './site.ts';
import type { UserStats } from './stats.ts';
import { udpChecksumOk } from './udp-nat.ts';

export class InputV6 {
  readonly #site: Site;
  readonly #parts: Parts;
  readonly #stats: UserStats;
  readonly #served: ServedDatagrams;
  readonly #ip = new Ipv6Header();
  readonly #udp = new UdpHeader();

  constructor(site: Site, parts: Parts) {
    this.#site = site;
    this.#parts = parts;
    this.#stats = site.stats;
    this.#served = new ServedDatagrams(site, parts);
  }

  /** As InputV4.input. */
  input(frame: number, start: number, at: number, end: number): void {
    const { pool, config } = this.#site;
    const stats = this.#stats;
    const ip = this.#ip;
    const inFirst = start + pool.table[frame + LENGTH];
    if (config.ipv6 === undefined) stats.txDropFamilyOff++;
    else if (inFirst - at < IPV6_HEADER_BYTES || !ip.parse(pool.bytes, at, end)) stats.txDropBadIp++;
    else if (ip.payload > inFirst || ip.routed) stats.txDropNoHeaderRoom++;
    else if (!this.#sourceOk(ip)) stats.txDropBadSource++;
    else if (ip.isFragment) {
      const whole = this.#parts.reassembly.inputV6(frame, start, ip);
      pool.release(frame);
      if (whole !== 0) {
        const wholeStart = pool.table[whole + OFFSET];
        this.input(whole, wholeStart, wholeStart + 14, wholeStart + pool.table[whole + TOTAL]);
      }
      return;
    } else if (ip.hopLimit <= 1 && !this.#isLocal(ip)) {
      stats.txTtlExpired++;
      if (mayAnswerWithIcmpv6Error(pool.bytes, ip, ICMPV6_TIME_EXCEEDED)) {
        const there = Math.min(inFirst, ip.payloadEnd) - ip.offset;
        sendErrorAbout(this.#site, 6, ip.offset, there, start + 6, ICMPV6_TIME_EXCEEDED, 0, false);
      }
    } else {
      this.#transport(frame, start, ip, inFirst);
      return;
    }
    pool.release(frame);
  }

  #sourceOk(ip: Ipv6Header): boolean {
    const bytes = this.#site.pool.bytes;
    if (
      isMulticastIpv6(bytes, ip.src) ||
      isLoopbackIpv6(bytes, ip.src) ||
      this.#parts.ndp!.serves(bytes, ip.src)
    )
      return false;
    // Duplicate address detection and router solicitations come from `::`.
    return !isUnspecifiedIpv6(bytes, ip.src) || ip.protocol === IP_PROTOCOL_ICMPV6;
  }

  #isLocal(ip: Ipv6Header): boolean {
    const bytes = this.#site.pool.bytes;
    const net = this.#site.config.ipv6!;
    return (
      isMulticastIpv6(bytes, ip.dst) ||
      isLinkLocalIpv6(bytes, ip.dst) ||
      samePrefix(bytes, ip.dst, net.prefix.bytes, net.prefixLength) ||
      this.#parts.ndp!.serves(bytes, ip.dst)
    );
  }

  #transport(frame: number, start: number, ip: Ipv6Header, inFirst: number): void {
    const { pool } = this.#site;
    const length = ip.payloadEnd - ip.payload;
    switch (ip.protocol) {
      case IP_PROTOCOL_TCP:
        this.#parts.tcp.hopLimit = ip.hopLimit;
        this.#parts.tcp.stack.input(frame, 6, ip.offset, ip.payload, length);
        return;
      case IP_PROTOCOL_UDP:
        this.#udpDatagram(frame, start, ip, inFirst);
        return;
      case IP_PROTOCOL_ICMPV6:
        this.#icmp(frame, start, ip, inFirst);
        break;
      default:
        this.#stats.txDropUnknownProtocol++;
        if (mayAnswerWithIcmpv6Error(pool.bytes, ip, 4)) {
          // Parameter problem, unrecognized next header, pointing at it (RFC 4443 section 3.4).
          const there = Math.min(inFirst, ip.payloadEnd) - ip.offset;
          const pointer = ip.protocolField - ip.offset;
          sendErrorAbout(this.#site, 6, ip.offset, there, start + 6, 4, 1, true, pointer);
        }
    }
    pool.release(frame);
  }

  #icmp(frame: number, start: number, ip: Ipv6Header, inFirst: number): void {
    const { pool } = this.#site;
    const length = ip.payloadEnd - ip.payload;
    if (length < 4 || ip.payload + 4 > inFirst) {
      this.#stats.icmpDropMalformed++;
      return;
    }
    const type = pool.bytes[ip.payload];
    if (type < 133 || type > 137) {
      this.#parts.icmp.input(frame, 6, start, ip.offset, ip.payload, length);
      return;
    }
    const whole = ip.payloadEnd <= inFirst;
    if (!whole || !this.#parts.icmp.checksumOk(frame, 6, start, ip.offset, ip.payload, length))
      this.#stats.ndpDropMalformed++;
    else if (!this.#parts.ndp!.input(start, ip)) this.#stats.icmpDropUnsupported++;
  }

  #udpDatagram(frame: number, start: number, ip: Ipv6Header, inFirst: number): void {
    const { pool } = this.#site;
    const bytes = pool.bytes;
    const udp = this.#udp;
    if (ip.payload + 8 > inFirst || !udp.parse(bytes, ip.payload, ip.payloadEnd)) {
      this.#stats.udpDropMalformed++;
      pool.release(frame);
      return;
    }
    const group = isMulticastIpv6(bytes, ip.dst);
    const ours = this.#parts.ndp!.serves(bytes, ip.dst);
    if (udp.dstPort === DHCPV6_SERVER_PORT && (group || ours)) {
      if (udp.payloadEnd > inFirst) this.#stats.dhcpDropMalformed++;
      else if (!udpChecksumOk(this.#site, frame, 6, start, ip.offset, udp)) this.#stats.udpDropBadChecksum++;
      else this.#parts.dhcpv6!.input(start, ip.offset, udp.payload, udp.payloadEnd);
      pool.release(frame);
      return;
    }
    if (group) {
      this.#stats.txDropBadDestination++;
      pool.release(frame);
      return;
    }
    if (ours && this.#parts.forwards.answers(udp.dstPort, udp.srcPort)) {
      this.#parts.forwards.inputUdp(frame, start, udp);
      return;
    }
    if (ours && this.#served.tftp(frame, 6, start, ip.offset, udp)) return;
    if (ours && this.#served.ownNames(frame, 6, start, ip.offset, udp)) return;
    this.#parts.udp.input(frame, 6, start, ip.offset, udp);
  }
}

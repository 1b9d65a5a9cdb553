/**
 * IPv4 packets of the guest: checked, put together from fragments, told apart. What expires on the way out is answered here ("time exceeded");
 * what no protocol of ours takes is counted, and told to the guest where a host or router would tell.
 */

import { LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import { DHCP_SERVER_PORT } from '../../wire/dhcp.ts';
import { ICMP_TIME_EXCEEDED } from '../../wire/icmp.ts';
import {
  IP_PROTOCOL_ICMP,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  Ipv4Header,
  isLoopbackIpv4,
  isMulticastIpv4,
} from '../../wire/ipv4.ts';
import { UdpHeader } from '../../wire/udp.ts';
import { PROTOCOL_UNREACHABLE, sendErrorAbout } from './icmp-error.ts';
import type { Parts } from './parts.ts';
import { ServedDatagrams } from './served-datagrams.ts';
import type { Site } from './site.ts';
import type { UserStats } from './stats.ts';

export class InputV4 {
  readonly #site: Site;
  readonly #parts: Parts;
  readonly #stats: UserStats;
  readonly #served: ServedDatagrams;
  readonly #ip = new Ipv4Header();
  readonly #udp = new UdpHeader();

  constructor(site: Site, parts: Parts) {
    this.#site = site;
    this.#parts = parts;
    this.#stats = site.stats;
    this.#served = new ServedDatagrams(site, parts);
  }

  /** A frame from `start` whose IP header lies at `at`; it ends at `end`, which may lie in further segments. Takes the frame. */
  input(frame: number, start: number, at: number, end: number): void {
    const { pool, config } = this.#site;
    const stats = this.#stats;
    const ip = this.#ip;
    if (config.ipv4 === undefined) stats.txDropFamilyOff++;
    else if (!ip.parse(pool.bytes, at, end)) stats.txDropBadIp++;
    else if (ip.payload > start + pool.table[frame + LENGTH]) stats.txDropNoHeaderRoom++;
    else if (!ip.checksumOk(pool.bytes)) stats.txDropBadIpChecksum++;
    else if (!this.#sourceOk(ip)) stats.txDropBadSource++;
    else if (ip.isFragment) {
      const whole = this.#parts.reassembly.inputV4(frame, start, ip);
      pool.release(frame);
      if (whole !== 0) {
        const wholeStart = pool.table[whole + OFFSET];
        this.input(whole, wholeStart, wholeStart + 14, wholeStart + pool.table[whole + TOTAL]);
      }
      return;
    } else if (ip.ttl <= 1 && !this.#isLocal(ip.dst)) {
      stats.txTtlExpired++;
      const there = start + pool.table[frame + LENGTH] - ip.offset;
      sendErrorAbout(
        this.#site,
        4,
        ip.offset,
        Math.min(there, ip.totalBytes),
        start + 6,
        ICMP_TIME_EXCEEDED,
        0,
        false,
      );
    } else {
      this.#transport(frame, start, ip);
      return;
    }
    pool.release(frame);
  }

  #sourceOk(ip: Ipv4Header): boolean {
    const { src } = ip;
    // 0.0.0.0 is a DHCP client; the gateway's own addresses are nobody else's.
    if (src === 0) return ip.protocol === IP_PROTOCOL_UDP;
    return (
      src >>> 24 !== 0 &&
      !isLoopbackIpv4(src) &&
      !isMulticastIpv4(src) &&
      src >>> 28 !== 15 &&
      !this.#parts.serves(src)
    );
  }

  /** Takes no hop: this network itself, and groups on it. */
  #isLocal(dst: number): boolean {
    const net = this.#site.config.ipv4!;
    return (dst & net.mask.value) >>> 0 === net.net.value || isMulticastIpv4(dst) || dst === 0xffffffff;
  }

  #transport(frame: number, start: number, ip: Ipv4Header): void {
    const { pool } = this.#site;
    const length = ip.payloadEnd - ip.payload;
    switch (ip.protocol) {
      case IP_PROTOCOL_TCP:
        if (ip.src === 0) break;
        this.#parts.tcp.hopLimit = ip.ttl;
        this.#parts.tcp.stack.input(frame, 4, ip.offset, ip.payload, length);
        return;
      case IP_PROTOCOL_UDP:
        this.#udpDatagram(frame, start, ip);
        return;
      case IP_PROTOCOL_ICMP:
        this.#parts.icmp.input(frame, 4, start, ip.offset, ip.payload, length);
        pool.release(frame);
        return;
      default:
        this.#stats.txDropUnknownProtocol++;
        if (!isMulticastIpv4(ip.dst) && ip.dst !== 0xffffffff) {
          const there = Math.min(start + pool.table[frame + LENGTH] - ip.offset, ip.totalBytes);
          sendErrorAbout(this.#site, 4, ip.offset, there, start + 6, 3, PROTOCOL_UNREACHABLE.v4, true);
        }
    }
    pool.release(frame);
  }

  #udpDatagram(frame: number, start: number, ip: Ipv4Header): void {
    const { pool, config } = this.#site;
    const udp = this.#udp;
    const stats = this.#stats;
    const inFirst = start + pool.table[frame + LENGTH];
    if (ip.payload + 8 > inFirst || !udp.parse(pool.bytes, ip.payload, ip.payloadEnd)) {
      stats.udpDropMalformed++;
      pool.release(frame);
      return;
    }
    const net = config.ipv4!;
    const broadcast = ip.dst === 0xffffffff || ip.dst === (net.net.value | (~net.mask.value >>> 0)) >>> 0;
    const gateway = ip.dst === net.host.value;
    if (udp.dstPort === DHCP_SERVER_PORT && (broadcast || gateway)) {
      // A message in more than one segment is none of ours: make it one.
      const whole = udp.payloadEnd <= inFirst ? frame : pool.writable(frame);
      if (whole !== 0) {
        const shift = pool.table[whole + OFFSET] - start;
        this.#parts.dhcp?.input(udp.payload + shift, udp.payloadEnd + shift);
      }
      pool.release(whole === 0 ? frame : whole);
      return;
    }
    if (broadcast || ip.src === 0) {
      if (ip.src === 0) stats.txDropBadSource++;
      else stats.txDropBadDestination++;
      pool.release(frame);
      return;
    }
    if (gateway && this.#parts.forwards.answers(udp.dstPort, udp.srcPort)) {
      this.#parts.forwards.inputUdp(frame, start, udp);
      return;
    }
    if (gateway && this.#served.tftp(frame, 4, start, ip.offset, udp)) return;
    if (ip.dst === net.dns.value && this.#served.ownNames(frame, 4, start, ip.offset, udp)) return;
    this.#parts.udp.input(frame, 4, start, ip.offset, udp);
  }
}

/**
 * Neighbour discovery and router advertisements (RFC 4861, RFC 8106). The gateway answers for `ipv6-host`, `ipv6-dns` and its link-local address
 * (fe80:: with the interface identifier of `ipv6-host`: fe80::2 by default), learns who asks, and advertises the prefix: when
 * asked, when the link comes up, and every ADVERTISE_NS while a guest has ever spoken IPv6. A guest that may not leave (`restrict`) is told of
 * a prefix and no router.
 */

import type { Timer } from '../../core/loop.ts';
import { linkHeaderSum, linkHeaderV6 } from '../../tcp/link-header.ts';
import { copyBytes, equalBytes, formatIpv6 } from '../../wire/bytes.ts';
import { ETH_HEADER_BYTES, isGroupMac, isZeroMac } from '../../wire/ethernet.ts';
import {
  ICMPV6_NEIGHBOR_ADVERTISEMENT,
  ICMPV6_NEIGHBOR_SOLICITATION,
  ICMPV6_ROUTER_SOLICITATION,
  setIcmpv6Checksum,
} from '../../wire/icmpv6.ts';
import {
  IP_PROTOCOL_ICMPV6,
  IPV6_HEADER_BYTES,
  type Ipv6Header,
  isUnspecifiedIpv6,
  writeIpv6GroupMac,
  writeSolicitedNode,
} from '../../wire/ipv6.ts';
import {
  NA_OVERRIDE,
  NA_ROUTER,
  NA_SOLICITED,
  NDP_HOP_LIMIT,
  NeighborMessage,
  parseRouterSolicitation,
  writeNeighborAdvertisement,
  writeNeighborSolicitation,
} from '../../wire/ndp.ts';
import { writeRouterAdvertisement } from '../../wire/ra.ts';
import { allocPacket, payloadPlace, sendIp } from './packet-out.ts';
import type { Site } from './site.ts';

const ADVERTISE_NS = 300e9;
const ROUTER_SECONDS = 1800;
const PREFIX_VALID_SECONDS = 86_400;
const PREFIX_PREFERRED_SECONDS = 14_400;
const MESSAGE_MAX_BYTES = 1280 - IPV6_HEADER_BYTES;
const ALL_NODES = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);

/** fe80:: with the lower half of an address. */
export function linkLocalOf(address: Uint8Array): Uint8Array {
  const out = new Uint8Array(16);
  out[0] = 0xfe;
  out[1] = 0x80;
  copyBytes(out, 8, address, 8, 8);
  return out;
}

export class Ndp {
  readonly #site: Site;
  readonly #message = new NeighborMessage();
  readonly #linkLocal: Uint8Array;
  readonly #timer: Timer;
  #heard = false;

  constructor(site: Site) {
    this.#site = site;
    this.#linkLocal = linkLocalOf(site.config.ipv6!.host.bytes);
    this.#timer = site.loop.timer(() => this.advertise());
  }

  /** Whether the 16 bytes at `at` are an address of ours. */
  serves(bytes: Uint8Array, at: number): boolean {
    const net = this.#site.config.ipv6!;
    return (
      equalBytes(bytes, at, net.host.bytes, 0, 16) ||
      equalBytes(bytes, at, net.dns.bytes, 0, 16) ||
      equalBytes(bytes, at, this.#linkLocal, 0, 16)
    );
  }

  /** A checked ICMPv6 message of a type that is NDP's. Returns false when it is not. */
  input(start: number, ip: Ipv6Header): boolean {
    const { pool, stats } = this.#site;
    const bytes = pool.bytes;
    const type = bytes[ip.payload];
    if (type === ICMPV6_ROUTER_SOLICITATION) this.#solicited(start, ip);
    else if (type === ICMPV6_NEIGHBOR_SOLICITATION || type === ICMPV6_NEIGHBOR_ADVERTISEMENT)
      this.#neighbour(ip);
    else return false;
    stats.ndpMessages++;
    return true;
  }

  #solicited(start: number, ip: Ipv6Header): void {
    const { pool, stats } = this.#site;
    const bytes = pool.bytes;
    const mac = parseRouterSolicitation(bytes, ip.payload, ip.payloadEnd, ip.hopLimit);
    const anonymous = isUnspecifiedIpv6(bytes, ip.src);
    if (mac === -2 || (anonymous && mac >= 0)) {
      stats.ndpDropMalformed++;
      return;
    }
    if (!anonymous) this.#learn(ip.src, mac >= 0 ? mac : start + 6);
    this.#heard = true;
    this.advertise();
  }

  #learn(address: number, mac: number): void {
    const bytes = this.#site.pool.bytes;
    if (isGroupMac(bytes, mac) || isZeroMac(bytes, mac) || this.serves(bytes, address)) return;
    this.#site.neighbours.learn(formatIpv6(bytes, address), bytes, mac);
  }

  #neighbour(ip: Ipv6Header): void {
    const { pool, stats } = this.#site;
    const bytes = pool.bytes;
    const message = this.#message;
    const anonymous = isUnspecifiedIpv6(bytes, ip.src);
    if (
      !message.parse(bytes, ip.payload, ip.payloadEnd, ip.hopLimit) ||
      (anonymous && message.isSolicitation && message.linkAddress >= 0)
    ) {
      stats.ndpDropMalformed++;
      return;
    }
    this.#heard = true;
    if (!message.isSolicitation) {
      if (message.linkAddress >= 0) this.#learn(message.target, message.linkAddress);
      return;
    }
    if (message.linkAddress >= 0) this.#learn(ip.src, message.linkAddress);
    if (!this.serves(bytes, message.target)) return;
    const target = bytes.slice(message.target, message.target + 16);
    const dst = anonymous ? ALL_NODES : bytes.slice(ip.src, ip.src + 16);
    const known = anonymous ? ALL_NODES_MAC : this.#site.neighbours.find(formatIpv6(dst));
    const mac = known ?? bytes.slice(ip.offset - ETH_HEADER_BYTES + 6, ip.offset - ETH_HEADER_BYTES + 12);
    const flags = NA_OVERRIDE + (anonymous ? 0 : NA_SOLICITED) + (this.#site.config.restrict ? 0 : NA_ROUTER);
    this.#send(mac, target, dst, (place) =>
      writeNeighborAdvertisement(bytes, place, flags, target, 0, this.#site.mac, 0),
    );
  }

  /** Asks who has `address`. */
  ask(address: Uint8Array): void {
    const { pool, mac, config } = this.#site;
    const group = new Uint8Array(16);
    const groupMac = new Uint8Array(6);
    writeSolicitedNode(group, 0, address, 0);
    writeIpv6GroupMac(groupMac, 0, group, 0);
    this.#send(groupMac, config.ipv6!.host.bytes, group, (place) =>
      writeNeighborSolicitation(pool.bytes, place, address, 0, mac),
    );
  }

  /** The link came up: guests that are there already learn of us. */
  linkUp(): void {
    if (this.#heard) this.advertise();
  }

  /** Tells all nodes. */
  advertise(): void {
    const site = this.#site;
    const { config } = site;
    const net = config.ipv6!;
    site.stats.routerAdvertisements++;
    this.#timer.armIn(ADVERTISE_NS);
    this.#send(ALL_NODES_MAC, this.#linkLocal, ALL_NODES, (place) =>
      writeRouterAdvertisement(site.pool.bytes, place, place + MESSAGE_MAX_BYTES, {
        hopLimit: 64,
        managed: false,
        other: true,
        lifetimeSeconds: config.restrict ? 0 : ROUTER_SECONDS,
        reachableMs: 0,
        retransMs: 0,
        routerMac: site.mac,
        mtu: config.ipMtuBytes,
        prefixes: [
          {
            prefix: net.prefix.bytes,
            prefixLength: net.prefixLength,
            onLink: true,
            // SLAAC needs a 64-bit interface identifier (RFC 4862 section 5.5.3 (d)).
            autonomous: net.prefixLength === 64,
            validSeconds: PREFIX_VALID_SECONDS,
            preferredSeconds: PREFIX_PREFERRED_SECONDS,
          },
        ],
        dnsLifetimeSeconds: ROUTER_SECONDS,
        dnsServers: [net.dns.bytes],
        searchDomains: [...config.dnssearch],
      }),
    );
  }

  #send(dstMac: Uint8Array, src: Uint8Array, dst: Uint8Array, write: (place: number) => number): void {
    const site = this.#site;
    if (site.outbox.room() <= 0) {
      site.stats.rxDropQueueFull++;
      return;
    }
    const frame = allocPacket(site, MESSAGE_MAX_BYTES);
    if (frame === 0) return;
    const place = payloadPlace(site, frame);
    const length = write(place);
    if (length < 0) {
      site.stats.rxDropTooLong++;
      site.pool.release(frame);
      return;
    }
    const link = linkHeaderV6(dstMac, site.mac, src, dst, IP_PROTOCOL_ICMPV6);
    link[ETH_HEADER_BYTES + 7] = NDP_HOP_LIMIT;
    site.pool.bytes.set(link, place - link.length);
    setIcmpv6Checksum(site.pool.bytes, place, length, place - IPV6_HEADER_BYTES);
    sendIp(site, frame, place, length, link, linkHeaderSum(link));
  }

  close(): void {
    this.#timer.cancel();
  }
}

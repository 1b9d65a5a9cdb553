/**
 * Neighbour discovery (RFC 4861) and the wire side of address autoconfiguration (RFC 4862): solicitations and advertisements in and out. What an
 * answer means for the neighbour cache is neighbours.ts's business, what an advertisement means for our addresses slaac.ts's.
 */

import { copyBytes, equalBytes } from '../../../wire/bytes.ts';
import { IPV6_ADDRESS_BYTES, isLinkLocalIpv6, isUnspecifiedIpv6 } from '../../../wire/ipv6.ts';
import {
  NA_OVERRIDE,
  NA_SOLICITED,
  NDP_HOP_LIMIT,
  NeighborMessage,
  writeNeighborAdvertisement,
  writeNeighborSolicitation,
  writeRouterSolicitation,
} from '../../../wire/ndp.ts';
import { parseRouterAdvertisement } from '../../../wire/ra.ts';
import type { Interface } from './interface.ts';
import { type Neighbour, type NeighbourOwner, Neighbours } from './neighbours.ts';
import type { Packet } from './packet.ts';
import { ALL_NODES, ALL_ROUTERS, Slaac, solicitedNode, UNSPECIFIED } from './slaac.ts';

/** RFC 8200 section 5; a router that tells less is not believed. */
const MTU_MIN_BYTES = 1280;
/** More than any message here. */
const MESSAGE_BYTES = 64;

export interface NdpHooks {
  /** A MAC that was asked for is known now. */
  resolved(entry: Neighbour): void;
  /** Nobody answers for the address. */
  unresolved(remote: Uint8Array): void;
}

/** How messages leave: ICMPv6 of ipv6.ts. */
export interface IcmpWriter {
  /** Starts a message; where it goes in the interface's memory, or -1. */
  beginIcmp(
    to: Uint8Array,
    toOffset: number,
    src: Uint8Array | null,
    hopLimit: number,
    bytes: number,
  ): number;
  /** Sends the message of `length` bytes that lies at `at`; fills its checksum. */
  endIcmp(at: number, length: number): void;
}

export class Ndp implements NeighbourOwner {
  readonly neighbours: Neighbours;
  readonly addresses: Slaac;

  readonly #interface: Interface;
  readonly #writer: IcmpWriter;
  readonly #hooks: NdpHooks;
  readonly #message = new NeighborMessage();

  constructor(iface: Interface, writer: IcmpWriter, hooks: NdpHooks) {
    this.#interface = iface;
    this.#writer = writer;
    this.#hooks = hooks;
    this.neighbours = new Neighbours(iface.loop, IPV6_ADDRESS_BYTES, this);
    this.addresses = new Slaac(iface.loop, iface.mac, {
      solicitRouters: () => this.#solicitRouters(),
      probe: (address) => this.#probe(address),
      mtu: (bytes) => {
        if (bytes >= MTU_MIN_BYTES) iface.setMtu(bytes);
      },
    });
  }

  solicit(entry: Neighbour): void {
    const { addresses } = this;
    const src = addresses.sourceFor(entry.address);
    if (src === null) return;
    const to = entry.known ? entry.address : solicitedNode(entry.address);
    const at = this.#writer.beginIcmp(to, 0, src, NDP_HOP_LIMIT, MESSAGE_BYTES);
    if (at < 0) return;
    const { memory, mac } = this.#interface;
    this.#writer.endIcmp(at, writeNeighborSolicitation(memory, at, entry.address, 0, mac));
  }

  release(entry: Neighbour, frame: Uint8Array): void {
    const iface = this.#interface;
    const at = iface.begin();
    if (at < 0) return;
    iface.memory.set(frame, at);
    copyBytes(iface.memory, at, entry.mac, 0, 6);
    iface.sendFrame(at, frame.length);
  }

  resolved(entry: Neighbour): void {
    this.#hooks.resolved(entry);
  }

  unresolved(entry: Neighbour, held: number): void {
    this.#interface.stats.txDropUnresolved += held;
    if (!entry.known || entry.tries > 0) this.#hooks.unresolved(entry.address);
  }

  #solicitRouters(): void {
    const at = this.#writer.beginIcmp(
      ALL_ROUTERS,
      0,
      this.addresses.linkLocal ?? UNSPECIFIED,
      NDP_HOP_LIMIT,
      MESSAGE_BYTES,
    );
    if (at < 0) return;
    const mac = this.addresses.linkLocal === null ? null : this.#interface.mac;
    this.#writer.endIcmp(at, writeRouterSolicitation(this.#interface.memory, at, mac));
  }

  /** Duplicate address detection (RFC 4862 section 5.4.2): asks for the address from `::`. */
  #probe(address: Uint8Array): void {
    const at = this.#writer.beginIcmp(solicitedNode(address), 0, UNSPECIFIED, NDP_HOP_LIMIT, MESSAGE_BYTES);
    if (at < 0) return;
    this.#writer.endIcmp(at, writeNeighborSolicitation(this.#interface.memory, at, address, 0, null));
  }

  #advertise(to: Uint8Array, toOffset: number, target: Uint8Array, flags: number): void {
    const at = this.#writer.beginIcmp(to, toOffset, target, NDP_HOP_LIMIT, MESSAGE_BYTES);
    if (at < 0) return;
    const { memory, mac } = this.#interface;
    this.#writer.endIcmp(at, writeNeighborAdvertisement(memory, at, flags, target, 0, mac, 0));
  }

  /** A solicitation or advertisement whose ICMPv6 checksum was checked. */
  receiveNeighbor(packet: Packet): void {
    const { bytes } = packet;
    const message = this.#message;
    const fromNobody = isUnspecifiedIpv6(bytes, packet.src);
    const stats = this.#interface.stats;
    const bad = !message.parse(bytes, packet.payload, packet.payloadEnd, packet.hopLimit);
    // RFC 4861 section 7.1.1: from `::` only to a solicited-node group, and without a link address.
    if (bad || (fromNobody && (!message.isSolicitation || message.linkAddress >= 0 || !packet.toGroup))) {
      stats.rxDropMalformed++;
      return;
    }
    if (!message.isSolicitation) {
      if (this.addresses.conflict(bytes, message.target)) return;
      if (message.linkAddress < 0) return;
      const known = this.neighbours.find(bytes, message.target);
      if (known === null) {
        stats.rxDropUnexpected++;
        return;
      }
      // RFC 4861 section 7.2.5: without override a different MAC for a known address is not taken over.
      if (known.known && !message.override && !equalBytes(known.mac, 0, bytes, message.linkAddress, 6))
        return;
      this.neighbours.learn(bytes, message.target, bytes, message.linkAddress, false);
      return;
    }
    const target = this.addresses.ownAt(bytes, message.target);
    if (target === null) {
      // Somebody else tests an address that we are testing too (RFC 4862 section 5.4.3).
      if (fromNobody) this.addresses.conflict(bytes, message.target);
      return;
    }
    if (fromNobody) {
      this.#advertise(ALL_NODES, 0, target, NA_OVERRIDE);
      return;
    }
    if (message.linkAddress >= 0) this.neighbours.learn(bytes, packet.src, bytes, message.linkAddress, true);
    this.#advertise(bytes, packet.src, target, NA_SOLICITED | NA_OVERRIDE);
  }

  /** A router advertisement whose ICMPv6 checksum was checked. */
  receiveRouter(packet: Packet): void {
    const { bytes } = packet;
    const ra = parseRouterAdvertisement(bytes, packet.payload, packet.payloadEnd, packet.hopLimit);
    if (ra === null || !isLinkLocalIpv6(bytes, packet.src)) {
      this.#interface.stats.rxDropMalformed++;
      return;
    }
    const router = bytes.slice(packet.src, packet.src + IPV6_ADDRESS_BYTES);
    if (ra.routerMac !== null) this.neighbours.learn(router, 0, ra.routerMac, 0, true);
    this.addresses.advertised(router, ra);
  }

  close(): void {
    this.neighbours.close();
    this.addresses.close();
  }
}

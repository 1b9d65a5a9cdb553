/**
 * The probe's IP host: one interface, IPv4 and IPv6 on it, UDP, ping and TCP above, and the configuration protocols beside them.
 *
 *     link ─▶ receive ─▶ Ethernet ─┬─ ARP ──▶ ipv4.ts
 *                                  ├─ IPv4 ─▶ ipv4.ts ─┬─▶ ICMP (there)        ┌─▶ DHCP, DNS, echo …
 *                                  └─ IPv6 ─▶ ipv6.ts ─┴─▶ UDP (udp.ts) ───────┘
 *                                                      └─▶ TCP (tcp.ts)
 *
 * It configures itself when the link is up: DHCP; without a DHCP server a link-local address meanwhile (RFC 3927 section 1.9 lets only one
 * of them be used at a time); IPv6 by router advertisement beside it. What happened is told by events; who starts what is probe.ts's business.
 * Every received byte is read where the driver left it, and no object is made for a frame.
 */

import type { Random } from '../../../core/clock.ts';
import type { ByteMemory } from '../../../core/copy.ts';
import type { Loop } from '../../../core/loop.ts';
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  EthernetHeader,
  equalMac,
  isBroadcastMac,
  isGroupMac,
} from '../../../wire/ethernet.ts';
import { IP_PROTOCOL_TCP, IP_PROTOCOL_UDP } from '../../../wire/ipv4.ts';
import type { RouterAdvertisement } from '../../../wire/ra.ts';
import { ipv4Address } from './address.ts';
import { DhcpClient, type Lease } from './dhcp-client.ts';
import { Interface } from './interface.ts';
import { Ipv4 } from './ipv4.ts';
import { Ipv6 } from './ipv6.ts';
import { type EthernetLink, type LinkReceiver, RX_CSUM_VALID } from './link.ts';
import { LinkLocal } from './link-local.ts';
import type { Neighbour } from './neighbours.ts';
import { type IpLayer, Packet, type Transport } from './packet.ts';
import { Pinger } from './ping.ts';
import { Resolver } from './resolver.ts';
import { HostStats } from './stats.ts';
import { ProbeTcp } from './tcp.ts';
import { Udp } from './udp.ts';

const LINK_LOCAL_MASK = 0xffff0000;
/** Discovers that go unanswered before a link-local address is taken: 1 + 2 + 4 s. */
const SILENT_TRIES = 3;

export interface HostEvents {
  linkChanged(up: boolean): void;
  /** A lease is in use, new or renewed. */
  leased(lease: Lease, renewed: boolean): void;
  leaseLost(reason: string): void;
  /** No DHCP server answers; a link-local address is being looked for. DHCP goes on. */
  noDhcpServer(): void;
  linkLocal(address: number): void;
  ipv6Assigned(address: Uint8Array, prefixLength: number, linkLocal: boolean): void;
  ipv6Duplicate(address: Uint8Array): void;
  ipv6Advertised(router: Uint8Array, ra: RouterAdvertisement): void;
  ipv6NoRouter(): void;
}

export class IpHost implements LinkReceiver {
  readonly stats = new HostStats();
  readonly link: EthernetLink;
  readonly loop: Loop;
  readonly random: Random;
  readonly interface: Interface;
  readonly ipv4: Ipv4;
  readonly ipv6: Ipv6;
  readonly udp: Udp;
  readonly ping: Pinger;
  readonly resolver: Resolver;
  readonly dhcp: DhcpClient;
  readonly linkLocal: LinkLocal;
  readonly tcp: ProbeTcp;

  readonly #events: HostEvents;
  readonly #ethernet = new EthernetHeader();
  readonly #packet = new Packet();
  #inBatch = false;

  constructor(link: EthernetLink, loop: Loop, random: Random, hostName: string, events: HostEvents) {
    this.link = link;
    this.loop = loop;
    this.random = random;
    this.#events = events;
    link.receiver = this;
    const iface = new Interface(link, loop, this.stats);
    this.interface = iface;
    const hooks = {
      transport: (protocol: number) => this.#transport(protocol),
      echoReply: (packet: Packet, id: number, sequence: number) => {
        if (!this.ping.reply(packet, id, sequence)) this.stats.rxDropUnexpected++;
      },
      unresolved: (remote: Uint8Array) => this.#unresolved(remote),
      resolved: (entry: Neighbour) => this.tcp.resolved(entry),
    };
    this.ipv4 = new Ipv4(iface, hooks, random());
    this.ipv6 = new Ipv6(iface, hooks);
    this.udp = new Udp(
      iface,
      random,
      (family) => this.layer(family),
      (packet) => {
        if (packet.family === 4) this.ipv4.refusePort(packet);
        else this.ipv6.refusePort(packet);
      },
    );
    this.tcp = new ProbeTcp(iface, random, (family) => this.layer(family));
    iface.onMtu = (bytes) => this.tcp.stack.setIpMtu(bytes);
    this.ping = new Pinger(iface, this.ipv4, this.ipv6, random);
    this.resolver = new Resolver(iface, this.udp, random);
    this.dhcp = new DhcpClient(iface, this.udp, random, hostName, {
      bound: (lease, renewed) => this.#leased(lease, renewed),
      lost: (reason) => {
        this.ipv4.configure(0, 0, 0);
        events.leaseLost(reason);
      },
      silence: (tries) => {
        if (tries !== SILENT_TRIES || this.linkLocal.running) return;
        events.noDhcpServer();
        this.linkLocal.start();
      },
    });
    this.linkLocal = new LinkLocal(this.ipv4.arp, loop, random, {
      bound: (address) => {
        this.ipv4.configure(address, LINK_LOCAL_MASK, 0);
        events.linkLocal(address);
      },
      lost: () => this.ipv4.configure(0, 0, 0),
    });
    this.ipv4.arp.onPacket = (arp) => {
      this.linkLocal.arp(arp);
      if (arp.senderIp !== 0 && arp.senderIp === this.dhcp.lease?.address) this.dhcp.conflict();
    };
    this.ipv6.addresses.events = {
      assigned: (address, prefixLength, linkLocal) => {
        this.#servers();
        events.ipv6Assigned(address, prefixLength, linkLocal);
      },
      duplicate: (address) => events.ipv6Duplicate(address),
      advertised: (router, ra) => {
        this.#servers();
        events.ipv6Advertised(router, ra);
      },
      noRouter: () => events.ipv6NoRouter(),
    };
  }

  /** Configures itself if the link is up, and whenever it comes up. */
  start(): void {
    if (this.link.up) this.#configure();
  }

  #configure(): void {
    this.dhcp.start();
    this.ipv6.addresses.start();
  }

  #leased(lease: Lease, renewed: boolean): void {
    this.linkLocal.stop();
    if (!renewed || lease.address !== this.ipv4.address) {
      this.ipv4.configure(lease.address, lease.mask, lease.router);
      this.ipv4.arp.announce(lease.address);
    }
    if (lease.mtuBytes !== 0) this.interface.setMtu(lease.mtuBytes);
    this.#servers();
    this.#events.leased(lease, renewed);
  }

  /** IPv4's resolvers first, then those of router advertisements once there is an address to ask from. */
  #servers(): void {
    const servers = (this.dhcp.lease?.dnsServers ?? []).map(ipv4Address);
    if (this.ipv6.ready) servers.push(...this.ipv6.addresses.dnsServers);
    this.resolver.servers = servers;
  }

  layer(family: number): IpLayer {
    return family === 4 ? this.ipv4 : this.ipv6;
  }

  #transport(protocol: number): Transport | null {
    if (protocol === IP_PROTOCOL_UDP) return this.udp;
    return protocol === IP_PROTOCOL_TCP ? this.tcp : null;
  }

  #unresolved(remote: Uint8Array): void {
    this.ping.unresolved(remote);
    this.udp.problem('unreachable', remote, remote, 0, 0);
    this.tcp.problem('unreachable', remote, remote, 0, 0);
  }

  // From the link.

  receive(memory: ByteMemory, offset: number, length: number, facts: number): void {
    const { bytes } = memory;
    const stats = this.stats;
    if (!this.#inBatch) {
      this.#inBatch = true;
      this.interface.startOfBatch();
    }
    stats.rxFrames++;
    stats.rxBytes += length;
    const ethernet = this.#ethernet;
    const end = offset + length;
    if (!ethernet.parse(bytes, offset, end)) {
      stats.rxDropMalformed++;
      return;
    }
    const forUs = isGroupMac(bytes, offset) || equalMac(bytes, offset, this.link.mac, 0);
    if (!forUs || ethernet.vlanTci !== -1) {
      stats.rxDropNotForUs++;
      return;
    }
    const packet = this.#packet;
    packet.memory = memory;
    packet.bytes = bytes;
    packet.checksumValid = (facts & RX_CSUM_VALID) !== 0;
    switch (ethernet.etherType) {
      case ETHERTYPE_IPV4:
        this.ipv4.receive(packet, ethernet.payload, end);
        break;
      case ETHERTYPE_ARP:
        this.ipv4.arp.receive(bytes, ethernet.payload, end);
        break;
      case ETHERTYPE_IPV6:
        if (isBroadcastMac(bytes, offset)) stats.rxDropUnknownProtocol++;
        else this.ipv6.receive(packet, ethernet.payload, end);
        break;
      default:
        stats.rxDropUnknownProtocol++;
    }
  }

  endOfBatch(): void {
    this.tcp.endOfBatch();
    if (!this.#inBatch) return;
    this.#inBatch = false;
    this.interface.endOfBatch();
  }

  linkChanged(up: boolean): void {
    if (up) this.#configure();
    else {
      // Addresses are kept out of use until they are confirmed anew: the other end may be another network.
      this.dhcp.stop();
      this.linkLocal.stop();
      this.ipv6.addresses.stop();
      this.ipv4.configure(0, 0, 0);
      this.ipv6.neighbours.clear();
      this.resolver.servers = [];
    }
    this.#events.linkChanged(up);
  }

  room(): void {
    this.tcp.outputReady();
  }

  close(): void {
    this.dhcp.stop();
    this.linkLocal.stop();
    this.resolver.close();
    this.ping.close();
    this.tcp.close();
    this.ipv4.close();
    this.ipv6.close();
  }
}

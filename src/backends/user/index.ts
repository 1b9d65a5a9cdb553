/**
 * The `user` netdev: a small private network whose gateway is the host, without privileges. This file is the port's client and tells packets
 * apart; each protocol has a file of its own.
 *
 *     port.receive(batch) ─▶ Ethernet ─▶ ARP ──────────────────────── arp.ts
 *                                     ├▶ IPv4, IPv6 ─▶ reassembly.ts
 *                                     │     ├▶ ICMP ───────────────── icmp.ts (echo, ping), ndp.ts
 *                                     │     ├▶ UDP ─▶ DHCP, TFTP … ── dhcp.ts, tftp.ts, dhcpv6.ts
 *                                     │     │       └▶ outside ────── udp-nat.ts, hostfwd.ts; where to: policy.ts
 *                                     │     └▶ TCP ────────────────── tcp-nat.ts over src/tcp; the name server: dns-tcp.ts
 *     end of the loop's turn: one send call and one acknowledgement per flow, one batch back through outbox.ts
 *
 * All this waits for the turn's end because a tap hands over a few frames at a time, and each acknowledgement written to it makes the guest's kernel
 * send the next frame then and there: answered one by one, a stream never gets past one frame a round. Measured with a tap in a
 * namespace, MTU 1500, one stream up: 0.91 s of CPU per GB with an acknowledgement per batch, 0.44 with one per turn.
 *
 * Frames of the guest are always taken: TCP has windows, datagrams are dropped where there is no room, each drop is counted. Frames to
 * the guest wait in outbox.ts at most. What a guest sends can make us send, open sockets and allocate slots only within the bounds named
 * in each file. Addresses of the host never appear on the guest's side.
 */

import type { NetdevConfigOf } from '../../config/netdevs/index.ts';
import type { UserConfig } from '../../config/netdevs/user.ts';
import type { HostForward } from '../../config/netdevs/user-forward.ts';
import { HostIoError, UnsupportedError } from '../../core/errors.ts';
import { LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import {
  ACCEPT_CSUM,
  ACCEPT_ECN,
  ACCEPT_TSO4,
  ACCEPT_TSO6,
  ACCEPT_UFO,
  ACCEPT_USO,
  type Client,
  Port,
} from '../../core/port.ts';
import { errnoOf, errnoText } from '../../host-io/errno.ts';
import type { HostIo } from '../../host-io/host-io.ts';
import { putU32be } from '../../wire/bytes.ts';
import { ChecksumRegion } from '../../wire/checksum.ts';
import { DHCP_SERVER_PORT } from '../../wire/dhcp.ts';
import { DHCPV6_SERVER_PORT } from '../../wire/dhcpv6.ts';
import { DNS_PORT } from '../../wire/dns.ts';
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  EthernetHeader,
  equalMac,
  isGroupMac,
} from '../../wire/ethernet.ts';
import { ICMP_TIME_EXCEEDED } from '../../wire/icmp.ts';
import { ICMPV6_TIME_EXCEEDED, mayAnswerWithIcmpv6Error } from '../../wire/icmpv6.ts';
import {
  IP_PROTOCOL_ICMP,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
  Ipv4Header,
  isLoopbackIpv4,
  isMulticastIpv4,
} from '../../wire/ipv4.ts';
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
import type { Backend, BackendContext, OpenBackend } from '../backend.ts';
import { Arp } from './arp.ts';
import { DecisionLog } from './decision-log.ts';
import { DhcpServer } from './dhcp.ts';
import { Dhcpv6Server } from './dhcpv6.ts';
import { EgressNames } from './egress-names.ts';
import { type ForwardInfo, HostForwards } from './hostfwd.ts';
import { Icmp } from './icmp.ts';
import { PROTOCOL_UNREACHABLE, sendErrorAbout } from './icmp-error.ts';
import { InnerServers } from './inner-servers.ts';
import { Ndp } from './ndp.ts';
import { Neighbours } from './neighbours.ts';
import { Outbox } from './outbox.ts';
import { OwnNames } from './own-names.ts';
import { Policy, samePrefix } from './policy.ts';
import { Reassembly } from './reassembly.ts';
import { Resolvers } from './resolvers.ts';
import type { Site, UserServices } from './site.ts';
import { UserStats } from './stats.ts';
import { type FlowInfo, TcpNat } from './tcp-nat.ts';
import { TftpServer } from './tftp.ts';
import { UdpNat, udpChecksumOk } from './udp-nat.ts';
import { runSegmentBytes } from './udp-run.ts';

/** What `query-usernet` and `info usernet` show. */
export interface UserInfo {
  readonly flows: readonly FlowInfo[];
  readonly forwards: readonly ForwardInfo[];
  readonly neighbours: readonly { readonly address: string; readonly mac: string }[];
  /** What decides where the guest may go, in order, with how often it did; none where everything is open. */
  readonly egress: readonly { readonly rule: string; readonly hits: number }[];
  /** Addresses that names of egress rules stand for now, counted for each rule. */
  readonly egressNames: number;
  /** Decisions that the log left out because there were too many. */
  readonly egressUnlogged: number;
}

/** The first bytes of the gateway's MAC; its IPv4 address follows, as QEMU's users know it. */
const MAC_PREFIX = [0x52, 0x55];
/** 10.0.2.2, whose MAC the gateway keeps where there is no IPv4. */
const MAC_WITHOUT_IPV4 = 0x0a000202;

export class UserBackend implements Backend, Client {
  readonly ports: readonly Port[];
  readonly stats = new UserStats();
  readonly tcp: TcpNat;
  readonly udp: UdpNat;
  readonly icmp: Icmp;
  readonly forwards: HostForwards;
  readonly dhcp: DhcpServer | null;
  readonly tftp: TftpServer | null;
  readonly #dhcpv6: Dhcpv6Server | null;
  readonly #ndp: Ndp | null;
  readonly #inner: InnerServers;
  readonly #names: OwnNames;
  readonly #site: Site;
  readonly #decisions: DecisionLog;
  readonly #resolvers: Resolvers;
  readonly #port: Port;
  readonly #outbox: Outbox;
  readonly #arp: Arp;
  readonly #reassembly: Reassembly;
  readonly #ethernet = new EthernetHeader();
  readonly #ip = new Ipv4Header();
  readonly #ip6 = new Ipv6Header();
  readonly #udpHeader = new UdpHeader();
  #closed = false;
  #posted = false;
  readonly #burstEnd = (): void => {
    this.#posted = false;
    this.#outbox.begin();
    this.udp.flush();
    this.tcp.stack.flush();
    this.#outbox.end();
  };

  constructor(id: string, config: UserConfig, context: BackendContext, services: UserServices) {
    if (context.hostIo === null)
      throw new UnsupportedError(`netdev '${id}': user needs host sockets, and there are none here`);
    if (config.sourceInterface !== undefined) tryInterface(context.hostIo, config.sourceInterface);
    const mac = Uint8Array.of(...MAC_PREFIX, 0, 0, 0, 0);
    putU32be(mac, 2, config.ipv4?.host.value ?? MAC_WITHOUT_IPV4);
    this.#port = new Port(id, 'backend', this, context);
    // A run of datagrams goes out as one (udp-nat.ts); a datagram too long for the wire is one datagram to a socket (UFO).
    this.#port.accepts = ACCEPT_CSUM | ACCEPT_TSO4 | ACCEPT_TSO6 | ACCEPT_ECN | ACCEPT_USO | ACCEPT_UFO;
    this.ports = [this.#port];
    this.#outbox = new Outbox(context, this.stats, () => this.#roomAgain());
    this.#outbox.attach(this.#port);
    const port = this.#port;
    const egressNames = new EgressNames(config.egress, config.hosts);
    this.#decisions = new DecisionLog(id, context.log, context.loop);
    const own = config.dnsUpstream.map(({ text }) => text);
    this.#resolvers = new Resolvers(own.length > 0 ? () => own : () => services.resolvers(), () =>
      context.loop.clock.nowNs(),
    );
    this.#site = {
      id,
      pool: context.pool,
      loop: context.loop,
      openChardev: context.openChardev,
      random: context.random,
      log: context.log,
      hostIo: context.hostIo,
      config,
      services,
      mac,
      stats: this.stats,
      outbox: this.#outbox,
      policy: new Policy(config, egressNames, this.#decisions, context.loop.clock),
      resolvers: this.#resolvers,
      egressNames,
      neighbours: new Neighbours(context.loop),
      sums: new ChecksumRegion(context.pool.bytes),
      accepts: () => port.peer?.accepts ?? 0,
    };
    this.tftp = this.#openTftp();
    this.#names = new OwnNames(this.#site);
    this.#inner = new InnerServers(this.#site);
    this.tcp = new TcpNat(this.#site, (address, port) => this.#inner.open(address, port), this.#names);
    this.udp = new UdpNat(this.#site);
    this.icmp = new Icmp(this.#site, this.udp);
    this.#arp = new Arp(this.#site, (address) => this.#serves(address));
    this.#reassembly = new Reassembly(this.#site);
    this.dhcp = config.ipv4 === undefined ? null : new DhcpServer(this.#site);
    this.#dhcpv6 = config.ipv6 === undefined ? null : new Dhcpv6Server(this.#site);
    this.#ndp = config.ipv6 === undefined ? null : new Ndp(this.#site);
    this.forwards = new HostForwards(this.#site, this.tcp, (guest) => this.#ask(guest));
    try {
      for (const rule of config.hostfwd) this.forwards.add(rule);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #openTftp(): TftpServer | null {
    const { config, services } = this.#site;
    if (config.tftp === undefined) return null;
    if (services.openTftpRoot === undefined)
      throw new UnsupportedError('tftp= needs files, and there are none here');
    return new TftpServer(this.#site, services.openTftpRoot(config.tftp));
  }

  get mac(): Uint8Array {
    return this.#site.mac;
  }

  #serves(address: number): boolean {
    const net = this.#site.config.ipv4;
    if (net === undefined) return false;
    return address === net.host.value || address === net.dns.value || this.#inner.serves(address);
  }

  #ask(guest: HostForward['guestAddress']): void {
    if (guest.family === 4) this.#arp.ask(guest.value);
    else this.#ndp?.ask(guest.bytes);
  }

  // The port's client.

  receive(frames: Int32Array, from: number, to: number): number {
    const { stats } = this;
    stats.txFrames += to - from;
    for (let i = from; i < to; i++) this.#input(frames[i]);
    if (!this.#posted) {
      this.#posted = true;
      this.#site.loop.post(this.#burstEnd);
    }
    return to - from;
  }

  peerReady(): void {
    this.#outbox.flush();
  }

  #roomAgain(): void {
    if (this.#closed) return;
    this.#outbox.begin();
    this.tcp.stack.outputReady();
    this.udp.resume();
    this.#outbox.end();
  }

  linkChanged(up: boolean): void {
    if (!up) return;
    this.peerReady();
    this.#ndp?.linkUp();
  }

  #input(frame: number): void {
    const { pool } = this.#site;
    const { stats } = this;
    const t = pool.table;
    const bytes = pool.bytes;
    const start = t[frame + OFFSET];
    // Lengths count the whole frame: its payload may lie in further segments, its headers do not.
    const end = start + t[frame + TOTAL];
    const ethernet = this.#ethernet;
    if (!ethernet.parse(bytes, start, start + t[frame + LENGTH])) stats.txDropShort++;
    else if (!isGroupMac(bytes, start) && !equalMac(bytes, start, this.#site.mac, 0)) stats.txDropNotForUs++;
    else if (isGroupMac(bytes, start + 6)) stats.txDropBadSource++;
    else if (ethernet.vlanTci >= 0) stats.txDropVlan++;
    else if (ethernet.etherType === ETHERTYPE_IPV4) {
      this.#inputV4(frame, start, ethernet.payload, end);
      return;
    } else if (ethernet.etherType === ETHERTYPE_ARP) {
      this.#arp.input(start, ethernet.payload, start + t[frame + LENGTH]);
    } else if (ethernet.etherType === ETHERTYPE_IPV6) {
      this.#inputV6(frame, start, ethernet.payload, end);
      return;
    } else stats.txDropUnknownEtherType++;
    pool.release(frame);
  }

  #inputV4(frame: number, start: number, at: number, end: number): void {
    const { pool, config } = this.#site;
    const { stats } = this;
    const ip = this.#ip;
    if (config.ipv4 === undefined) stats.txDropFamilyOff++;
    else if (!ip.parse(pool.bytes, at, end)) stats.txDropBadIp++;
    else if (ip.payload > start + pool.table[frame + LENGTH]) stats.txDropNoHeaderRoom++;
    else if (!ip.checksumOk(pool.bytes)) stats.txDropBadIpChecksum++;
    else if (!this.#sourceOk(ip)) stats.txDropBadSource++;
    else if (ip.isFragment) {
      const whole = this.#reassembly.inputV4(frame, start, ip);
      pool.release(frame);
      if (whole !== 0) {
        const wholeStart = pool.table[whole + OFFSET];
        this.#inputV4(whole, wholeStart, wholeStart + 14, wholeStart + pool.table[whole + TOTAL]);
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
      this.#transportV4(frame, start, ip);
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
      !this.#serves(src)
    );
  }

  /** Takes no hop: this network itself, and groups on it. */
  #isLocal(dst: number): boolean {
    const net = this.#site.config.ipv4!;
    return (dst & net.mask.value) >>> 0 === net.net.value || isMulticastIpv4(dst) || dst === 0xffffffff;
  }

  #transportV4(frame: number, start: number, ip: Ipv4Header): void {
    const { pool } = this.#site;
    const length = ip.payloadEnd - ip.payload;
    switch (ip.protocol) {
      case IP_PROTOCOL_TCP:
        if (ip.src === 0) break;
        this.tcp.stack.input(frame, 4, ip.offset, ip.payload, length);
        return;
      case IP_PROTOCOL_UDP:
        this.#udpV4(frame, start, ip);
        return;
      case IP_PROTOCOL_ICMP:
        this.icmp.input(frame, 4, start, ip.offset, ip.payload, length);
        pool.release(frame);
        return;
      default:
        this.stats.txDropUnknownProtocol++;
        if (!isMulticastIpv4(ip.dst) && ip.dst !== 0xffffffff) {
          const there = Math.min(start + pool.table[frame + LENGTH] - ip.offset, ip.totalBytes);
          sendErrorAbout(this.#site, 4, ip.offset, there, start + 6, 3, PROTOCOL_UNREACHABLE.v4, true);
        }
    }
    pool.release(frame);
  }

  #udpV4(frame: number, start: number, ip: Ipv4Header): void {
    const { pool, config } = this.#site;
    const udp = this.#udpHeader;
    const { stats } = this;
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
        this.dhcp?.input(udp.payload + shift, udp.payloadEnd + shift);
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
    if (gateway && this.forwards.answers(udp.dstPort, udp.srcPort)) {
      this.forwards.inputUdp(frame, start, udp);
      return;
    }
    if (gateway && this.#tftp(frame, 4, start, ip.offset, udp)) return;
    if (ip.dst === net.dns.value && this.#ownNames(frame, 4, start, ip.offset, udp)) return;
    this.udp.input(frame, 4, start, ip.offset, udp);
  }

  /** A datagram to the gateway may be TFTP's. True: it was, and the frame is taken. */
  #tftp(frame: number, version: number, start: number, ip: number, udp: UdpHeader): boolean {
    const { tftp } = this;
    const { pool } = this.#site;
    if (tftp === null || !tftp.serves(udp.dstPort)) return false;
    const whole = udp.payloadEnd <= start + pool.table[frame + LENGTH];
    if (!whole) this.stats.tftpDropMalformed++;
    else if (!udpChecksumOk(this.#site, frame, version, start, ip, udp)) this.stats.udpDropBadChecksum++;
    else tftp.input(version, start, ip, udp);
    pool.release(frame);
    return true;
  }

  /** A query to the name server may be for a name of this network. True: it was answered, and the frame is taken. */
  #ownNames(frame: number, version: number, start: number, ip: number, udp: UdpHeader): boolean {
    const { pool } = this.#site;
    if (udp.dstPort !== DNS_PORT || !this.#names.active || runSegmentBytes(pool, frame) > 0) return false;
    if (udp.payloadEnd > start + pool.table[frame + LENGTH]) return false;
    if (!udpChecksumOk(this.#site, frame, version, start, ip, udp)) return false;
    if (!this.#names.answer(version, start, ip, udp)) return false;
    pool.release(frame);
    return true;
  }

  // IPv6.

  #inputV6(frame: number, start: number, at: number, end: number): void {
    const { pool, config } = this.#site;
    const { stats } = this;
    const ip = this.#ip6;
    const inFirst = start + pool.table[frame + LENGTH];
    if (config.ipv6 === undefined) stats.txDropFamilyOff++;
    else if (inFirst - at < IPV6_HEADER_BYTES || !ip.parse(pool.bytes, at, end)) stats.txDropBadIp++;
    else if (ip.payload > inFirst || ip.routed) stats.txDropNoHeaderRoom++;
    else if (!this.#sourceOkV6(ip)) stats.txDropBadSource++;
    else if (ip.isFragment) {
      const whole = this.#reassembly.inputV6(frame, start, ip);
      pool.release(frame);
      if (whole !== 0) {
        const wholeStart = pool.table[whole + OFFSET];
        this.#inputV6(whole, wholeStart, wholeStart + 14, wholeStart + pool.table[whole + TOTAL]);
      }
      return;
    } else if (ip.hopLimit <= 1 && !this.#isLocalV6(ip)) {
      stats.txTtlExpired++;
      if (mayAnswerWithIcmpv6Error(pool.bytes, ip, ICMPV6_TIME_EXCEEDED)) {
        const there = Math.min(inFirst, ip.payloadEnd) - ip.offset;
        sendErrorAbout(this.#site, 6, ip.offset, there, start + 6, ICMPV6_TIME_EXCEEDED, 0, false);
      }
    } else {
      this.#transportV6(frame, start, ip, inFirst);
      return;
    }
    pool.release(frame);
  }

  #sourceOkV6(ip: Ipv6Header): boolean {
    const bytes = this.#site.pool.bytes;
    if (isMulticastIpv6(bytes, ip.src) || isLoopbackIpv6(bytes, ip.src) || this.#ndp!.serves(bytes, ip.src))
      return false;
    // Duplicate address detection and router solicitations come from `::`.
    return !isUnspecifiedIpv6(bytes, ip.src) || ip.protocol === IP_PROTOCOL_ICMPV6;
  }

  #isLocalV6(ip: Ipv6Header): boolean {
    const bytes = this.#site.pool.bytes;
    const net = this.#site.config.ipv6!;
    return (
      isMulticastIpv6(bytes, ip.dst) ||
      isLinkLocalIpv6(bytes, ip.dst) ||
      samePrefix(bytes, ip.dst, net.prefix.bytes, net.prefixLength) ||
      this.#ndp!.serves(bytes, ip.dst)
    );
  }

  #transportV6(frame: number, start: number, ip: Ipv6Header, inFirst: number): void {
    const { pool } = this.#site;
    const length = ip.payloadEnd - ip.payload;
    switch (ip.protocol) {
      case IP_PROTOCOL_TCP:
        this.tcp.stack.input(frame, 6, ip.offset, ip.payload, length);
        return;
      case IP_PROTOCOL_UDP:
        this.#udpV6(frame, start, ip, inFirst);
        return;
      case IP_PROTOCOL_ICMPV6:
        this.#icmpV6(frame, start, ip, inFirst);
        break;
      default:
        this.stats.txDropUnknownProtocol++;
        if (mayAnswerWithIcmpv6Error(pool.bytes, ip, 4)) {
          // Parameter problem, unrecognized next header, pointing at it (RFC 4443 section 3.4).
          const there = Math.min(inFirst, ip.payloadEnd) - ip.offset;
          const pointer = ip.protocolField - ip.offset;
          sendErrorAbout(this.#site, 6, ip.offset, there, start + 6, 4, 1, true, pointer);
        }
    }
    pool.release(frame);
  }

  #icmpV6(frame: number, start: number, ip: Ipv6Header, inFirst: number): void {
    const { pool } = this.#site;
    const length = ip.payloadEnd - ip.payload;
    if (length < 4 || ip.payload + 4 > inFirst) {
      this.stats.icmpDropMalformed++;
      return;
    }
    const type = pool.bytes[ip.payload];
    if (type < 133 || type > 137) {
      this.icmp.input(frame, 6, start, ip.offset, ip.payload, length);
      return;
    }
    const whole = ip.payloadEnd <= inFirst;
    if (!whole || !this.icmp.checksumOk(frame, 6, start, ip.offset, ip.payload, length))
      this.stats.ndpDropMalformed++;
    else if (!this.#ndp!.input(start, ip)) this.stats.icmpDropUnsupported++;
  }

  #udpV6(frame: number, start: number, ip: Ipv6Header, inFirst: number): void {
    const { pool } = this.#site;
    const bytes = pool.bytes;
    const udp = this.#udpHeader;
    if (ip.payload + 8 > inFirst || !udp.parse(bytes, ip.payload, ip.payloadEnd)) {
      this.stats.udpDropMalformed++;
      pool.release(frame);
      return;
    }
    const group = isMulticastIpv6(bytes, ip.dst);
    const ours = this.#ndp!.serves(bytes, ip.dst);
    if (udp.dstPort === DHCPV6_SERVER_PORT && (group || ours)) {
      if (udp.payloadEnd > inFirst) this.stats.dhcpDropMalformed++;
      else if (!udpChecksumOk(this.#site, frame, 6, start, ip.offset, udp)) this.stats.udpDropBadChecksum++;
      else this.#dhcpv6!.input(start, ip.offset, udp.payload, udp.payloadEnd);
      pool.release(frame);
      return;
    }
    if (group) {
      this.stats.txDropBadDestination++;
      pool.release(frame);
      return;
    }
    if (ours && this.forwards.answers(udp.dstPort, udp.srcPort)) {
      this.forwards.inputUdp(frame, start, udp);
      return;
    }
    if (ours && this.#tftp(frame, 6, start, ip.offset, udp)) return;
    if (ours && this.#ownNames(frame, 6, start, ip.offset, udp)) return;
    this.udp.input(frame, 6, start, ip.offset, udp);
  }

  // For the monitor.

  describe(): string {
    const { ipv4, restrict } = this.#site.config;
    return `net=${ipv4 === undefined ? 'none' : ipv4.net.text},restrict=${restrict ? 'on' : 'off'}`;
  }

  /** Where each forward listens: the host may have chosen the port. */
  notices(): readonly string[] {
    const place = (address: string, port: number): string =>
      address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
    return this.forwards.list().map(({ protocol, listen, port, guest, guestPort }) => {
      const from = protocol === 'unix' ? `unix:${listen}` : `${protocol} ${place(listen, port)}`;
      return `${this.#port.name}: forwarding ${from} to ${place(guest, guestPort)}`;
    });
  }

  info(): UserInfo {
    const neighbours = [...this.#site.neighbours.entries].map(([address, mac]) => ({
      address,
      mac: [...mac].map((byte) => byte.toString(16).padStart(2, '0')).join(':'),
    }));
    return {
      flows: [...this.tcp.list(), ...this.udp.list(), ...this.icmp.list()],
      forwards: this.forwards.list(),
      neighbours,
      egress: this.#site.policy.deciders.map(({ rule, hits }) => ({ rule, hits })),
      egressNames: this.#site.egressNames.size,
      egressUnlogged: this.#decisions.suppressed,
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#site.neighbours.close();
    this.forwards.close();
    this.tcp.close();
    this.udp.close();
    this.icmp.close();
    this.#reassembly.close();
    this.tftp?.close();
    this.#ndp?.close();
    this.#inner.close();
    this.#outbox.clear();
  }
}

/** Throws for an interface that sockets cannot be bound to: better now than by silence later. */
function tryInterface(hostIo: HostIo, name: string): void {
  try {
    hostIo.close(hostIo.udpOpen({ family: 4, bindInterface: name }));
  } catch (error) {
    if (!(error instanceof HostIoError)) throw error;
    throw new HostIoError(
      error.syscall,
      error.code,
      `source-interface=${name}: ${errnoText(errnoOf(error.code))}`,
    );
  }
}

/** The table's row, with what the platform brings beside sockets. */
export function openUser(services: UserServices): OpenBackend<'user'> {
  return (config: NetdevConfigOf<'user'>, context: BackendContext) =>
    new UserBackend(config.id, config, context, services);
}

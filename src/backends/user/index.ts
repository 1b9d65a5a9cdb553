/**
 * The `user` netdev: a small private network whose gateway is the host, without privileges. This file is the port's client and
 * puts the parts together; each protocol has a file of its own.
 *
 *     port.receive(batch) ─▶ Ethernet ─▶ ARP ──────────────────────── arp.ts
 *                                     ├▶ input-v4.ts, input-v6.ts ─▶ reassembly.ts
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
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  EthernetHeader,
  equalMac,
  isGroupMac,
} from '../../wire/ethernet.ts';
import type { Backend, BackendContext, OpenBackend } from '../backend.ts';
import { Arp } from './arp.ts';
import { DecisionLog } from './decision-log.ts';
import { Descriptors } from './descriptors.ts';
import { DhcpServer } from './dhcp.ts';
import { Dhcpv6Server } from './dhcpv6.ts';
import { EgressNames } from './egress-names.ts';
import { GuestErrors } from './guest-errors.ts';
import { type ForwardInfo, HostForwards } from './hostfwd.ts';
import { Icmp } from './icmp.ts';
import { InnerServers } from './inner-servers.ts';
import { InputV4 } from './input-v4.ts';
import { InputV6 } from './input-v6.ts';
import { Ndp } from './ndp.ts';
import { Neighbours } from './neighbours.ts';
import { Outbox } from './outbox.ts';
import { OwnNames } from './own-names.ts';
import type { Parts } from './parts.ts';
import { Policy } from './policy.ts';
import { Reassembly } from './reassembly.ts';
import { Resolvers } from './resolvers.ts';
import type { Site, UserServices } from './site.ts';
import { UserStats } from './stats.ts';
import { type FlowInfo, TcpNat } from './tcp-nat.ts';
import { TftpServer } from './tftp.ts';
import { UdpNat } from './udp-nat.ts';

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
  readonly #ndp: Ndp | null;
  readonly #inner: InnerServers;
  readonly #site: Site;
  readonly #decisions: DecisionLog;
  readonly #resolvers: Resolvers;
  readonly #port: Port;
  readonly #outbox: Outbox;
  readonly #arp: Arp;
  readonly #reassembly: Reassembly;
  readonly #v4: InputV4;
  readonly #v6: InputV6;
  readonly #ethernet = new EthernetHeader();
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
      descriptors: new Descriptors(),
      neighbours: new Neighbours(context.loop),
      sums: new ChecksumRegion(context.pool.bytes),
      accepts: () => port.peer?.accepts ?? 0,
    };
    this.tftp = this.#openTftp();
    const names = new OwnNames(this.#site);
    this.#inner = new InnerServers(this.#site);
    const inner = this.#inner;
    this.tcp = new TcpNat(
      this.#site,
      (bytes, version, at, port) => inner.open(bytes, version, at, port),
      names,
    );
    this.udp = new UdpNat(this.#site);
    this.icmp = new Icmp(this.#site, new GuestErrors(this.#site, this.udp, this.tcp.stack));
    this.#arp = new Arp(this.#site, (address) => this.#serves(address));
    this.#reassembly = new Reassembly(this.#site);
    this.dhcp = config.ipv4 === undefined ? null : new DhcpServer(this.#site);
    this.#ndp = config.ipv6 === undefined ? null : new Ndp(this.#site);
    this.forwards = new HostForwards(this.#site, this.tcp, (guest) => this.#ask(guest));
    const parts: Parts = {
      dhcp: this.dhcp,
      dhcpv6: config.ipv6 === undefined ? null : new Dhcpv6Server(this.#site),
      ndp: this.#ndp,
      tftp: this.tftp,
      names,
      tcp: this.tcp,
      udp: this.udp,
      icmp: this.icmp,
      forwards: this.forwards,
      reassembly: this.#reassembly,
      serves: (address) => this.#serves(address),
    };
    this.#v4 = new InputV4(this.#site, parts);
    this.#v6 = new InputV6(this.#site, parts);
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
      this.#v4.input(frame, start, ethernet.payload, end);
      return;
    } else if (ethernet.etherType === ETHERTYPE_ARP) {
      this.#arp.input(start, ethernet.payload, start + t[frame + LENGTH]);
    } else if (ethernet.etherType === ETHERTYPE_IPV6) {
      this.#v6.input(frame, start, ethernet.payload, end);
      return;
    } else stats.txDropUnknownEtherType++;
    pool.release(frame);
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

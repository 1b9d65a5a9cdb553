/**
 * The network's DHCPv4 server (RFC 2131; rapid commit RFC 4039) and BOOTP server (RFC 951). Sixteen addresses from `dhcpstart`, given to MACs in
 * the order they come and kept for them: the first guest always gets the first. When all are given, the longest expired lease is given
 * anew; a declined address rests for a lease time. Everything a client can be told fits the options of `user`; the boot file goes into
 * `file` and option 67, as BOOTP clients and PXE ROMs read one or the other.
 */

import { linkHeaderV4 } from '../../tcp/link-header.ts';
import { formatIpv4, toHex } from '../../wire/bytes.ts';
import {
  BOOTP_REPLY,
  BOOTP_REQUEST,
  DHCP_ACK,
  DHCP_CLIENT_PORT,
  DHCP_DECLINE,
  DHCP_DEFAULT_MAX_BYTES,
  DHCP_DISCOVER,
  DHCP_FLAG_BROADCAST,
  DHCP_INFORM,
  DHCP_NAK,
  DHCP_OFFER,
  DHCP_OPT_BOOTFILE,
  DHCP_OPT_BROADCAST,
  DHCP_OPT_DNS,
  DHCP_OPT_DOMAIN_NAME,
  DHCP_OPT_HOST_NAME,
  DHCP_OPT_LEASE_TIME,
  DHCP_OPT_MAX_SIZE,
  DHCP_OPT_MESSAGE,
  DHCP_OPT_MESSAGE_TYPE,
  DHCP_OPT_MTU,
  DHCP_OPT_RAPID_COMMIT,
  DHCP_OPT_REBINDING_TIME,
  DHCP_OPT_RENEWAL_TIME,
  DHCP_OPT_REQUESTED_IP,
  DHCP_OPT_ROUTER,
  DHCP_OPT_SERVER_ID,
  DHCP_OPT_SUBNET_MASK,
  DHCP_OPT_TFTP_SERVER,
  DHCP_RELEASE,
  DHCP_REQUEST,
  DHCP_SERVER_PORT,
  DhcpMessage,
  DhcpOptionsWriter,
  writeDhcp,
} from '../../wire/dhcp.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ipv4.ts';
import { allocPacket, payloadPlace, sendUdpOnce } from './packet-out.ts';
import type { Site } from './site.ts';

const LEASES = 16;
const LEASE_SECONDS = 86_400;
/** An offer that is not taken up in this time is void. */
const OFFER_SECONDS = 30;
const REPLY_MAX_BYTES = 1400;
const BROADCAST_MAC = Uint8Array.of(255, 255, 255, 255, 255, 255);
const BROADCAST_IP = 0xffffffff;

interface Lease {
  /** Hexadecimal MAC; '' when nobody ever had it. */
  mac: string;
  /** By the clock; 0 for one that is free. */
  untilNs: number;
  declined: boolean;
}

export interface LeaseInfo {
  readonly address: string;
  readonly mac: string;
}

export class DhcpServer {
  readonly #site: Site;
  readonly #message = new DhcpMessage();
  readonly #writer = new DhcpOptionsWriter();
  readonly #leases: Lease[];

  constructor(site: Site) {
    this.#site = site;
    const net = site.config.ipv4!;
    const last = (net.net.value | (~net.mask.value >>> 0)) >>> 0;
    const count = Math.max(1, Math.min(LEASES, last - net.dhcpStart.value));
    this.#leases = Array.from({ length: count }, () => ({ mac: '', untilNs: 0, declined: false }));
  }

  /** A datagram to port 67, in region 0 at [at, end). */
  input(at: number, end: number): void {
    const { stats, pool } = this.#site;
    const message = this.#message;
    if (!message.parse(pool.bytes, at, end) || message.op !== BOOTP_REQUEST || message.giaddr !== 0) {
      stats.dhcpDropMalformed++;
      return;
    }
    stats.dhcpRequests++;
    const mac = toHex(pool.bytes, message.chaddr, 6);
    switch (message.messageType) {
      case 0:
        this.#bootp(mac);
        break;
      case DHCP_DISCOVER:
        this.#discover(mac);
        break;
      case DHCP_REQUEST:
        this.#request(mac);
        break;
      case DHCP_DECLINE:
        this.#decline(mac);
        break;
      case DHCP_RELEASE:
        this.#release(mac);
        break;
      case DHCP_INFORM:
        this.#reply(DHCP_ACK, 0, false);
        break;
      default:
        stats.dhcpDropMalformed++;
    }
  }

  #addressOf(index: number): number {
    return (this.#site.config.ipv4!.dhcpStart.value + index) >>> 0;
  }

  #usable(index: number): boolean {
    const net = this.#site.config.ipv4!;
    const address = this.#addressOf(index);
    return address !== net.host.value && address !== net.dns.value && address !== net.smbServer.value;
  }

  #indexOf(address: number): number {
    const index = address - this.#site.config.ipv4!.dhcpStart.value;
    return index >= 0 && index < this.#leases.length && this.#usable(index) ? index : -1;
  }

  /** The lease for a MAC: its own, the one it wishes if free, the first never given, the longest expired; -1: none. */
  #choose(mac: string, wished: number): number {
    const nowNs = this.#site.loop.clock.nowNs();
    const own = this.#leases.findIndex((lease) => lease.mac === mac && !lease.declined);
    if (own >= 0) return own;
    const index = wished < 0 ? -1 : this.#indexOf(wished);
    const free = (i: number): boolean => this.#usable(i) && this.#leases[i].untilNs <= nowNs;
    if (index >= 0 && free(index) && this.#leases[index].mac === '') return index;
    let best = -1;
    for (let i = 0; i < this.#leases.length; i++) {
      if (!free(i)) continue;
      if (this.#leases[i].mac === '' && !this.#leases[i].declined) return i;
      if (best < 0 || this.#leases[i].untilNs < this.#leases[best].untilNs) best = i;
    }
    return best;
  }

  #take(index: number, mac: string, seconds: number): void {
    const untilNs = this.#site.loop.clock.nowNs() + seconds * 1e9;
    const lease = this.#leases[index];
    if (lease.mac === mac && lease.untilNs > untilNs) return;
    lease.mac = mac;
    lease.declined = false;
    lease.untilNs = untilNs;
  }

  #discover(mac: string): void {
    const index = this.#choose(mac, this.#message.ipOption(this.#site.pool.bytes, DHCP_OPT_REQUESTED_IP));
    if (index < 0) {
      this.#site.stats.dhcpDropNoLease++;
      return;
    }
    const rapid = this.#message.findOption(this.#site.pool.bytes, DHCP_OPT_RAPID_COMMIT);
    this.#take(index, mac, rapid ? LEASE_SECONDS : OFFER_SECONDS);
    if (rapid) this.#granted(index);
    this.#reply(rapid ? DHCP_ACK : DHCP_OFFER, this.#addressOf(index), rapid);
  }

  #request(mac: string): void {
    const { config, pool } = this.#site;
    const message = this.#message;
    const server = message.ipOption(pool.bytes, DHCP_OPT_SERVER_ID);
    if (server >= 0 && server !== config.ipv4!.host.value) {
      // It took another server's offer.
      this.#release(mac);
      return;
    }
    const requested = message.ipOption(pool.bytes, DHCP_OPT_REQUESTED_IP);
    const address = requested >= 0 ? requested : message.ciaddr;
    const index = this.#indexOf(address);
    const lease = this.#leases[index];
    const taken =
      lease !== undefined &&
      lease.mac !== mac &&
      (lease.declined || lease.untilNs > this.#site.loop.clock.nowNs());
    if (lease === undefined || taken) {
      this.#reply(DHCP_NAK, 0, false);
      return;
    }
    for (const other of this.#leases) {
      if (other !== lease && other.mac === mac) {
        other.mac = '';
        other.untilNs = 0;
      }
    }
    this.#take(index, mac, LEASE_SECONDS);
    this.#granted(index);
    this.#reply(DHCP_ACK, this.#addressOf(index), false);
  }

  #granted(index: number): void {
    const { neighbours, pool, stats } = this.#site;
    stats.dhcpLeases++;
    neighbours.learn(formatIpv4(this.#addressOf(index)), pool.bytes, this.#message.chaddr);
  }

  /** Somebody uses the address already (RFC 2131 section 4.3.3): it rests. */
  #decline(mac: string): void {
    const address = this.#message.ipOption(this.#site.pool.bytes, DHCP_OPT_REQUESTED_IP);
    const index = address < 0 ? -1 : this.#indexOf(address);
    const lease = this.#leases[index];
    if (lease === undefined || lease.mac !== mac) return;
    lease.declined = true;
    lease.mac = '';
    lease.untilNs = this.#site.loop.clock.nowNs() + LEASE_SECONDS * 1e9;
  }

  /** Expired, but still remembered for this MAC. */
  #release(mac: string): void {
    for (const lease of this.#leases) if (lease.mac === mac) lease.untilNs = 0;
  }

  #bootp(mac: string): void {
    const index = this.#choose(mac, -1);
    if (index < 0) {
      this.#site.stats.dhcpDropNoLease++;
      return;
    }
    // BOOTP has no lease time: the address is the client's for good.
    this.#take(index, mac, Number.POSITIVE_INFINITY);
    this.#granted(index);
    this.#reply(0, this.#addressOf(index), false);
  }

  /** Answers the message just parsed. `type` 0: BOOTP. `yiaddr` 0 for NAK and for INFORM. */
  #reply(type: number, yiaddr: number, rapid: boolean): void {
    const site = this.#site;
    const { config, pool } = site;
    const net = config.ipv4!;
    const message = this.#message;
    const bytes = pool.bytes;
    if (site.outbox.room() <= 0) return;
    const frame = allocPacket(site, REPLY_MAX_BYTES);
    if (frame === 0) return;
    const place = payloadPlace(site, frame);
    const boots = type !== DHCP_NAK && (config.tftp !== undefined || config.bootfile !== undefined);
    const fields = {
      op: BOOTP_REPLY,
      xid: message.xid,
      flags: message.flags,
      ciaddr: type === DHCP_NAK ? 0 : message.ciaddr,
      yiaddr,
      siaddr: boots ? net.host.value : 0,
      ...(boots && config.bootfile !== undefined ? { file: config.bootfile } : {}),
      ...(boots && config.tftpServerName !== undefined ? { sname: config.tftpServerName } : {}),
    };
    const asked = message.u16Option(bytes, DHCP_OPT_MAX_SIZE);
    // Option 57 counts IP and UDP headers; less than the default is not legal (RFC 2132 section 9.10).
    const limit = Math.min(
      Math.max(asked - 28, DHCP_DEFAULT_MAX_BYTES),
      REPLY_MAX_BYTES,
      config.ipMtuBytes - 28,
    );
    const at = writeDhcp(bytes, place, fields, bytes, message.chaddr);
    const w = this.#writer.start(bytes, at, place + limit);
    if (type !== 0) w.u8(DHCP_OPT_MESSAGE_TYPE, type).u32(DHCP_OPT_SERVER_ID, net.host.value);
    if (type === DHCP_NAK) w.text(DHCP_OPT_MESSAGE, 'address not available');
    else this.#tell(type, rapid);
    const length = w.finish(place);
    const unicast =
      type !== DHCP_NAK && (message.ciaddr !== 0 || (message.flags & DHCP_FLAG_BROADCAST) === 0);
    const dst = message.ciaddr !== 0 ? message.ciaddr : yiaddr;
    const link = linkHeaderV4(
      unicast ? bytes.subarray(message.chaddr, message.chaddr + 6) : BROADCAST_MAC,
      site.mac,
      net.host.value,
      unicast && dst !== 0 ? dst : BROADCAST_IP,
      IP_PROTOCOL_UDP,
    );
    sendUdpOnce(site, frame, length, link, DHCP_SERVER_PORT, DHCP_CLIENT_PORT);
  }

  #tell(type: number, rapid: boolean): void {
    const { config } = this.#site;
    const net = config.ipv4!;
    const w = this.#writer;
    const inform = type === DHCP_ACK && this.#message.messageType === DHCP_INFORM;
    if (type !== 0 && !inform) {
      w.u32(DHCP_OPT_LEASE_TIME, LEASE_SECONDS)
        .u32(DHCP_OPT_RENEWAL_TIME, LEASE_SECONDS / 2)
        .u32(DHCP_OPT_REBINDING_TIME, (LEASE_SECONDS * 7) / 8);
      if (rapid) w.flag(DHCP_OPT_RAPID_COMMIT);
    }
    w.u32(DHCP_OPT_SUBNET_MASK, net.mask.value);
    w.u32(DHCP_OPT_BROADCAST, (net.net.value | (~net.mask.value >>> 0)) >>> 0);
    // A guest that may not leave is told of no way out.
    if (!config.restrict) w.u32(DHCP_OPT_ROUTER, net.host.value);
    w.u32(DHCP_OPT_DNS, net.dns.value);
    if (config.hostname !== undefined) w.text(DHCP_OPT_HOST_NAME, config.hostname);
    if (config.domainname !== undefined) w.text(DHCP_OPT_DOMAIN_NAME, config.domainname);
    if (config.ipMtuBytes !== 1500) w.u16(DHCP_OPT_MTU, config.ipMtuBytes);
    if (config.tftpServerName !== undefined) w.text(DHCP_OPT_TFTP_SERVER, config.tftpServerName);
    if (config.bootfile !== undefined) w.text(DHCP_OPT_BOOTFILE, config.bootfile);
    w.domainSearch(config.dnssearch);
  }

  /** Addresses given out, for listings. */
  list(): LeaseInfo[] {
    const nowNs = this.#site.loop.clock.nowNs();
    return this.#leases.flatMap((lease, i) =>
      lease.mac !== '' && lease.untilNs > nowNs
        ? [{ address: formatIpv4(this.#addressOf(i)), mac: lease.mac.replace(/..(?=.)/g, '$&:') }]
        : [],
    );
  }
}

/**
 * A DHCPv4 client (RFC 2131): discover, offer, request, ack; renewing by unicast at T1, rebinding by broadcast at T2, starting over when the
 * lease ends, a NAK comes or somebody else turns out to have the address (then it declines). A retry waits 1, 2, 4 … 64 s, give or take a
 * quarter: RFC 2131 section 4.1 starts at 4 s, but the nets here answer in microseconds, and a lost first frame should not cost a newcomer 4 s.
 *
 * A reply counts only when it is one: its xid, client address and message type fit the state, a server names itself, the address is one a host
 * may have, and the mask is a mask. Anything else is counted and ignored.
 */

import type { Random } from '../../../core/clock.ts';
import type { Loop, Timer } from '../../../core/loop.ts';
import { putU32be, u32be } from '../../../wire/bytes.ts';
import {
  BOOTP_REPLY,
  BOOTP_REQUEST,
  DHCP_ACK,
  DHCP_CLIENT_PORT,
  DHCP_DECLINE,
  DHCP_DISCOVER,
  DHCP_NAK,
  DHCP_OFFER,
  DHCP_OPT_CLIENT_ID,
  DHCP_OPT_DNS,
  DHCP_OPT_DOMAIN_NAME,
  DHCP_OPT_HOST_NAME,
  DHCP_OPT_LEASE_TIME,
  DHCP_OPT_MAX_SIZE,
  DHCP_OPT_MTU,
  DHCP_OPT_PARAMETER_LIST,
  DHCP_OPT_REBINDING_TIME,
  DHCP_OPT_RENEWAL_TIME,
  DHCP_OPT_REQUESTED_IP,
  DHCP_OPT_ROUTER,
  DHCP_OPT_SERVER_ID,
  DHCP_OPT_SUBNET_MASK,
  DHCP_REQUEST,
  DHCP_SERVER_PORT,
  DhcpMessage,
  DhcpOptionsWriter,
  dhcpIsFor,
  writeDhcp,
} from '../../../wire/dhcp.ts';
import { isLoopbackIpv4, isMulticastIpv4 } from '../../../wire/ipv4.ts';
import { prefixLength } from './address.ts';
import type { Interface } from './interface.ts';
import type { Packet } from './packet.ts';
import type { Udp, UdpHandler } from './udp.ts';

const FIRST_RETRY_NS = 1e9;
const LONGEST_RETRY_NS = 64e9;
const REQUEST_TRIES = 4;
/** RFC 2131 section 4.4.5: no renewal is tried more often. */
const RENEW_RETRY_MIN_NS = 60e9;
const DECLINE_WAIT_NS = 10e9;
const INFINITE_LEASE = 0xffffffff;
const WANTED = Uint8Array.of(
  DHCP_OPT_SUBNET_MASK,
  DHCP_OPT_ROUTER,
  DHCP_OPT_DNS,
  DHCP_OPT_DOMAIN_NAME,
  DHCP_OPT_MTU,
  DHCP_OPT_LEASE_TIME,
  DHCP_OPT_RENEWAL_TIME,
  DHCP_OPT_REBINDING_TIME,
);
const BROADCAST = Uint8Array.of(255, 255, 255, 255);

export interface Lease {
  address: number;
  mask: number;
  /** 0: none. */
  router: number;
  server: number;
  dnsServers: number[];
  domain: string;
  /** 0: not told. */
  mtuBytes: number;
  seconds: number;
}

export interface DhcpEvents {
  /** A lease was taken, or renewed with these facts. */
  bound(lease: Lease, renewed: boolean): void;
  /** The lease ended or was refused; the address must not be used any longer. */
  lost(reason: string): void;
  /** `tries` discovers went unanswered (told after each). */
  silence(tries: number): void;
}

type State = 'stopped' | 'selecting' | 'requesting' | 'bound' | 'renewing' | 'rebinding' | 'declined';

export class DhcpClient implements UdpHandler {
  state: State = 'stopped';
  lease: Lease | null = null;

  readonly #interface: Interface;
  readonly #udp: Udp;
  readonly #loop: Loop;
  readonly #random: Random;
  readonly #events: DhcpEvents;
  readonly #hostName: string;
  readonly #message = new DhcpMessage();
  readonly #writer = new DhcpOptionsWriter();
  readonly #timer: Timer;
  readonly #to = new Uint8Array(4);
  #xid = 0;
  #tries = 0;
  #startedNs = 0;
  #offer: Lease | null = null;
  #boundNs = 0;
  #renewNs = 0;
  #rebindNs = 0;
  #endNs = 0;

  constructor(iface: Interface, udp: Udp, random: Random, hostName: string, events: DhcpEvents) {
    this.#interface = iface;
    this.#udp = udp;
    this.#loop = iface.loop;
    this.#random = random;
    this.#hostName = hostName;
    this.#events = events;
    this.#timer = iface.loop.timer(() => this.#due());
  }

  start(): void {
    this.stop();
    this.#udp.open(DHCP_CLIENT_PORT, this);
    this.#discover();
  }

  stop(): void {
    this.#timer.cancel();
    this.#udp.close(DHCP_CLIENT_PORT);
    this.state = 'stopped';
    this.lease = null;
    this.#offer = null;
  }

  /** Somebody else uses the leased address (RFC 2131 section 3.1 step 5): tell the server and start over. */
  conflict(): void {
    const lease = this.lease;
    if (lease === null) return;
    this.lease = null;
    this.#events.lost('somebody else has the address');
    this.#send(DHCP_DECLINE, BROADCAST, 0, lease);
    this.state = 'declined';
    this.#timer.armIn(DECLINE_WAIT_NS);
  }

  #discover(): void {
    this.state = 'selecting';
    this.#xid = this.#random();
    this.#tries = 0;
    this.#startedNs = this.#loop.clock.nowNs();
    this.#offer = null;
    this.#transmit();
  }

  /** Sends what the state asks for and sets the time of the next try. */
  #transmit(): void {
    const lease = this.lease;
    this.#tries++;
    if (this.state === 'selecting') this.#send(DHCP_DISCOVER, BROADCAST, 0, null);
    else if (this.state === 'requesting') this.#send(DHCP_REQUEST, BROADCAST, 0, this.#offer);
    else if (this.state === 'renewing' && lease !== null) {
      putU32be(this.#to, 0, lease.server);
      this.#send(DHCP_REQUEST, this.#to, lease.address, null);
    } else if (this.state === 'rebinding' && lease !== null)
      this.#send(DHCP_REQUEST, BROADCAST, lease.address, null);
    if (this.state === 'renewing' || this.state === 'rebinding') {
      // RFC 2131 section 4.4.5: half of what is left until the next stage, but not more often than once a minute.
      const nowNs = this.#loop.clock.nowNs();
      const stageNs = this.state === 'renewing' ? this.#rebindNs : this.#endNs;
      this.#timer.arm(Math.min(stageNs, nowNs + Math.max(RENEW_RETRY_MIN_NS, (stageNs - nowNs) / 2)));
      return;
    }
    const baseNs = Math.min(LONGEST_RETRY_NS, FIRST_RETRY_NS * 2 ** (this.#tries - 1));
    this.#timer.armIn(baseNs * (0.75 + (this.#random() / 0x1_0000_0000) * 0.5));
  }

  #due(): void {
    const nowNs = this.#loop.clock.nowNs();
    switch (this.state) {
      case 'selecting':
        this.#events.silence(this.#tries);
        // The listener may have stopped us.
        if (this.state === 'selecting') this.#transmit();
        break;
      case 'requesting':
        if (this.#tries >= REQUEST_TRIES) this.#discover();
        else this.#transmit();
        break;
      case 'bound':
        this.#renew('renewing');
        break;
      case 'renewing':
        if (nowNs >= this.#rebindNs) this.#renew('rebinding');
        else this.#transmit();
        break;
      case 'rebinding':
        if (nowNs < this.#endNs) this.#transmit();
        else {
          this.lease = null;
          this.#events.lost('the lease ended');
          this.#discover();
        }
        break;
      case 'declined':
        this.#discover();
        break;
      case 'stopped':
        break;
    }
  }

  #renew(state: 'renewing' | 'rebinding'): void {
    this.state = state;
    this.#xid = this.#random();
    this.#tries = 0;
    this.#startedNs = this.#loop.clock.nowNs();
    this.#transmit();
  }

  /** `chosen`: the lease that a request, in answer to an offer, or a decline names. */
  #send(type: number, to: Uint8Array, ciaddr: number, chosen: Lease | null): void {
    const at = this.#udp.begin(4, to, 0, DHCP_CLIENT_PORT, DHCP_SERVER_PORT);
    if (at < 0) return;
    const { memory, mac } = this.#interface;
    const secs = Math.min(0xffff, Math.floor((this.#loop.clock.nowNs() - this.#startedNs) / 1e9));
    const options = writeDhcp(memory, at, { op: BOOTP_REQUEST, xid: this.#xid, secs, ciaddr }, mac, 0);
    const clientId = new Uint8Array(7);
    clientId[0] = 1;
    clientId.set(mac, 1);
    const writer = this.#writer.start(memory, options, at + 548);
    writer.u8(53, type).bytes(DHCP_OPT_CLIENT_ID, clientId);
    if (chosen !== null)
      writer.u32(DHCP_OPT_REQUESTED_IP, chosen.address).u32(DHCP_OPT_SERVER_ID, chosen.server);
    if (type !== DHCP_DECLINE) {
      writer
        .text(DHCP_OPT_HOST_NAME, this.#hostName)
        .u16(DHCP_OPT_MAX_SIZE, 1500)
        .bytes(DHCP_OPT_PARAMETER_LIST, WANTED);
    }
    this.#udp.end(writer.finish(at));
  }

  datagram(packet: Packet, srcPort: number, payload: number, payloadEnd: number): void {
    const { bytes } = packet;
    const message = this.#message;
    const stats = this.#interface.stats;
    if (packet.family !== 4 || srcPort !== DHCP_SERVER_PORT || !message.parse(bytes, payload, payloadEnd)) {
      stats.rxDropMalformed++;
      return;
    }
    const ours =
      message.op === BOOTP_REPLY &&
      message.xid === this.#xid &&
      dhcpIsFor(bytes, message, this.#interface.mac);
    const waiting = this.state !== 'stopped' && this.state !== 'bound' && this.state !== 'declined';
    if (!ours || !waiting) {
      stats.rxDropUnexpected++;
      return;
    }
    if (message.messageType === DHCP_NAK) {
      this.#refused(message.ipOption(bytes, DHCP_OPT_SERVER_ID) >>> 0);
      return;
    }
    const offered = this.state === 'selecting';
    if (message.messageType !== (offered ? DHCP_OFFER : DHCP_ACK)) {
      stats.rxDropUnexpected++;
      return;
    }
    const lease = this.#read(bytes);
    if (lease === null) {
      stats.rxDropMalformed++;
      return;
    }
    if (offered) {
      this.#offer = lease;
      this.state = 'requesting';
      this.#tries = 0;
      this.#transmit();
      return;
    }
    const expected = this.lease ?? this.#offer;
    if (
      expected !== null &&
      (expected.address !== lease.address ||
        (this.state === 'requesting' && expected.server !== lease.server))
    ) {
      stats.rxDropUnexpected++;
      return;
    }
    this.#bind(bytes, lease);
  }

  #refused(server: number): void {
    if (this.state === 'selecting' || (this.state === 'requesting' && server !== this.#offer?.server)) {
      this.#interface.stats.rxDropUnexpected++;
      return;
    }
    if (this.lease !== null) {
      this.lease = null;
      this.#events.lost('the server refused to renew the lease');
    }
    // Not at once: a server that offers and refuses in turn would keep us busy.
    this.state = 'declined';
    this.#timer.armIn(FIRST_RETRY_NS);
  }

  #bind(bytes: Uint8Array, lease: Lease): void {
    const renewed = this.lease !== null;
    const nowNs = this.#loop.clock.nowNs();
    const forever = lease.seconds === INFINITE_LEASE;
    const t1 = this.#message.u32Option(bytes, DHCP_OPT_RENEWAL_TIME);
    const t2 = this.#message.u32Option(bytes, DHCP_OPT_REBINDING_TIME);
    const sane = t1 > 0 && t2 > t1 && t2 < lease.seconds;
    this.lease = lease;
    this.state = 'bound';
    this.#boundNs = nowNs;
    this.#renewNs = forever ? Number.POSITIVE_INFINITY : nowNs + (sane ? t1 : lease.seconds * 0.5) * 1e9;
    this.#rebindNs = nowNs + (sane ? t2 : lease.seconds * 0.875) * 1e9;
    this.#endNs = nowNs + lease.seconds * 1e9;
    this.#timer.arm(this.#renewNs);
    this.#events.bound(lease, renewed);
  }

  /** When the lease was taken or last renewed, by the clock. */
  get boundNs(): number {
    return this.#boundNs;
  }

  /** The lease a message offers, or null when it lacks something or offers nonsense. */
  #read(bytes: Uint8Array): Lease | null {
    const message = this.#message;
    const address = message.yiaddr;
    const server = message.ipOption(bytes, DHCP_OPT_SERVER_ID);
    const seconds = message.u32Option(bytes, DHCP_OPT_LEASE_TIME);
    if (!isHostAddress(address) || server <= 0 || seconds <= 0) return null;
    let mask = message.u32Option(bytes, DHCP_OPT_SUBNET_MASK);
    if (mask === -1) mask = classMask(address);
    const length = prefixLength(mask);
    if (length < 1 || (length < 31 && (address & ~mask) === 0) || (length < 31 && (address | mask) === -1))
      return null;
    const router = message.ipOption(bytes, DHCP_OPT_ROUTER);
    const dnsServers: number[] = [];
    if (message.findOption(bytes, DHCP_OPT_DNS)) {
      for (let at = 0; at + 4 <= message.valueBytes && dnsServers.length < 3; at += 4) {
        const dns = u32be(bytes, message.valueOffset + at);
        if (isHostAddress(dns)) dnsServers.push(dns);
      }
    }
    const mtu = message.u16Option(bytes, DHCP_OPT_MTU);
    return {
      address,
      mask: mask >>> 0,
      router: isHostAddress(router >>> 0) && router !== -1 ? router : 0,
      server,
      dnsServers,
      domain: message.textOption(bytes, DHCP_OPT_DOMAIN_NAME) ?? '',
      mtuBytes: mtu >= 576 ? mtu : 0,
      seconds,
    };
  }
}

/** An address one host may have. */
function isHostAddress(address: number): boolean {
  return (
    address >>> 24 !== 0 && !isLoopbackIpv4(address) && !isMulticastIpv4(address) && address >>> 28 !== 15
  );
}

/** The mask of old (RFC 791) for a server that tells none. */
function classMask(address: number): number {
  const first = address >>> 24;
  return first < 128 ? 0xff000000 : first < 192 ? 0xffff0000 : 0xffffff00;
}

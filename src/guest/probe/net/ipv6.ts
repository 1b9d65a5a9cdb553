/**
 * IPv6 (RFC 8200) as the probe speaks it: sending with source selection and next hop, receiving, and the host's part of ICMPv6 (RFC 4443). Addresses,
 * routers and neighbours are the business of ndp.ts and slaac.ts. No fragments (counted and dropped), no extension headers of our own;
 * those of others are walked and ignored. Of RFC 6724 source selection two rules are left: same scope, else the newest global address.
 */

import { copyBytes } from '../../../wire/bytes.ts';
import { pseudoSumV6 } from '../../../wire/checksum.ts';
import { ETH_HEADER_BYTES, ETHERTYPE_IPV6 } from '../../../wire/ethernet.ts';
import {
  ICMPV6_ADMIN_PROHIBITED,
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  ICMPV6_HEADER_BYTES,
  ICMPV6_NEIGHBOR_ADVERTISEMENT,
  ICMPV6_NEIGHBOR_SOLICITATION,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_PORT_UNREACHABLE,
  ICMPV6_ROUTER_ADVERTISEMENT,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_UNREACHABLE,
  Icmpv6Message,
  mayAnswerWithIcmpv6Error,
  setIcmpv6Checksum,
  writeIcmpv6,
  writeIcmpv6Error,
} from '../../../wire/icmpv6.ts';
import {
  IP_PROTOCOL_ICMPV6,
  IPV6_ADDRESS_BYTES,
  IPV6_DST,
  IPV6_HEADER_BYTES,
  IPV6_SRC,
  Ipv6Header,
  isMulticastIpv6,
  writeIpv6,
  writeIpv6GroupMac,
} from '../../../wire/ipv6.ts';
import { NDP_HOP_LIMIT } from '../../../wire/ndp.ts';
import type { Interface } from './interface.ts';
import { type IcmpWriter, Ndp, type NdpHooks } from './ndp.ts';
import type { Neighbour, Neighbours } from './neighbours.ts';
import type { IpLayer, IpProblem, Packet, Transport } from './packet.ts';
import { type Slaac, UNSPECIFIED } from './slaac.ts';

const HOP_LIMIT = 64;
const ERRORS_PER_SECOND = 20;

export interface Ipv6Hooks extends NdpHooks {
  /** The transport of a protocol number, or null. */
  transport(protocol: number): Transport | null;
  /** An echo reply for us. */
  echoReply(packet: Packet, id: number, sequence: number): void;
}

export class Ipv6 implements IpLayer, IcmpWriter {
  readonly ndp: Ndp;
  readonly neighbours: Neighbours;
  readonly addresses: Slaac;

  readonly #interface: Interface;
  readonly #hooks: Ipv6Hooks;
  readonly #header = new Ipv6Header();
  readonly #icmp = new Icmpv6Message();
  readonly #groupMac = new Uint8Array(6);
  readonly #remote = new Uint8Array(IPV6_ADDRESS_BYTES);
  #errorSecond = -1;
  #errors = 0;
  // The packet under way.
  #frame = 0;
  readonly #dst = new Uint8Array(IPV6_ADDRESS_BYTES);
  #src: Uint8Array = UNSPECIFIED;
  #protocol = 0;
  #hopLimit = HOP_LIMIT;

  constructor(iface: Interface, hooks: Ipv6Hooks) {
    this.#interface = iface;
    this.#hooks = hooks;
    this.ndp = new Ndp(iface, this, hooks);
    this.neighbours = this.ndp.neighbours;
    this.addresses = this.ndp.addresses;
  }

  get ready(): boolean {
    return this.addresses.globalAddress !== null;
  }

  get payloadMaxBytes(): number {
    return this.#interface.mtuBytes - IPV6_HEADER_BYTES;
  }

  // Sending.

  begin(
    remote: Uint8Array,
    remoteOffset: number,
    protocol: number,
    payloadBytes = this.payloadMaxBytes,
  ): number {
    return this.#begin(remote, remoteOffset, protocol, null, HOP_LIMIT, payloadBytes);
  }

  #begin(
    remote: Uint8Array,
    remoteOffset: number,
    protocol: number,
    src: Uint8Array | null,
    hopLimit: number,
    payloadBytes: number,
  ): number {
    const frame = this.#interface.begin(IPV6_HEADER_BYTES + payloadBytes);
    if (frame < 0) return -1;
    this.#frame = frame;
    copyBytes(this.#dst, 0, remote, remoteOffset, IPV6_ADDRESS_BYTES);
    this.#src = src ?? this.addresses.sourceFor(this.#dst) ?? UNSPECIFIED;
    this.#protocol = protocol;
    this.#hopLimit = hopLimit;
    return frame + ETH_HEADER_BYTES + IPV6_HEADER_BYTES;
  }

  pseudoSum(length: number): number {
    return pseudoSumV6(this.#src, 0, this.#dst, 0, this.#protocol, length);
  }

  end(payloadBytes: number): void {
    const iface = this.#interface;
    const memory = iface.memory;
    const frame = this.#frame;
    const dst = this.#dst;
    const total = IPV6_HEADER_BYTES + payloadBytes;
    if (total > iface.mtuBytes) {
      iface.stats.txDropTooLong++;
      return;
    }
    if (this.#src === UNSPECIFIED && this.#hopLimit !== NDP_HOP_LIMIT) {
      iface.stats.txDropNoRoute++;
      return;
    }
    const ip = frame + ETH_HEADER_BYTES;
    writeIpv6(memory, ip, payloadBytes, this.#protocol, this.#hopLimit, this.#src, 0, dst, 0);
    if (isMulticastIpv6(dst, 0)) {
      writeIpv6GroupMac(this.#groupMac, 0, dst, 0);
      iface.send(frame, this.#groupMac, 0, ETHERTYPE_IPV6, total);
      return;
    }
    const hop = this.addresses.nextHop(dst);
    if (hop === null) {
      iface.stats.txDropNoRoute++;
      return;
    }
    const neighbour = this.neighbours.find(hop, 0);
    if (neighbour?.known) {
      iface.send(frame, neighbour.mac, 0, ETHERTYPE_IPV6, total);
      this.neighbours.use(hop, 0);
      return;
    }
    // Soliciting writes a frame of its own to the reserved place: keep this one first.
    const held = memory.slice(frame, frame + ETH_HEADER_BYTES + total);
    copyBytes(held, 6, iface.mac, 0, 6);
    held[12] = ETHERTYPE_IPV6 >>> 8;
    held[13] = ETHERTYPE_IPV6 & 0xff;
    iface.stats.txDropUnresolved += this.neighbours.hold(this.neighbours.use(hop, 0), held);
  }

  hop(remote: Uint8Array): Neighbour | null {
    const hop = this.addresses.nextHop(remote);
    return hop === null ? null : this.neighbours.use(hop, 0);
  }

  sourceFor(remote: Uint8Array): Uint8Array | null {
    return this.addresses.nextHop(remote) === null ? null : this.addresses.sourceFor(remote);
  }

  beginIcmp(
    to: Uint8Array,
    toOffset: number,
    src: Uint8Array | null,
    hopLimit: number,
    bytes = this.payloadMaxBytes,
  ): number {
    return this.#begin(to, toOffset, IP_PROTOCOL_ICMPV6, src, hopLimit, bytes);
  }

  endIcmp(at: number, length: number): void {
    const memory = this.#interface.memory;
    // The checksum needs both addresses in place.
    const ip = at - IPV6_HEADER_BYTES;
    writeIpv6(memory, ip, length, IP_PROTOCOL_ICMPV6, this.#hopLimit, this.#src, 0, this.#dst, 0);
    setIcmpv6Checksum(memory, at, length, ip);
    this.end(length);
  }

  /** Writes an echo request's header for `dataBytes` that lie behind it and sends it; begun by `begin`. */
  sendEcho(at: number, type: number, id: number, sequence: number, dataBytes: number): void {
    writeIcmpv6(this.#interface.memory, at, type, 0, ((id << 16) | sequence) >>> 0);
    this.endIcmp(at, ICMPV6_HEADER_BYTES + dataBytes);
  }

  // Receiving.

  /** Checks the packet at `offset` and passes it up. `packet.bytes` and `checksumValid` are set by the caller. */
  receive(packet: Packet, offset: number, end: number): void {
    const bytes = packet.bytes;
    const ip = this.#header;
    const stats = this.#interface.stats;
    if (!ip.parse(bytes, offset, end) || isMulticastIpv6(bytes, ip.src)) {
      stats.rxDropMalformed++;
      return;
    }
    const toGroup = isMulticastIpv6(bytes, ip.dst);
    if (
      !(toGroup ? this.addresses.inGroup(bytes, ip.dst) : this.addresses.isOurs(bytes, ip.dst)) ||
      ip.routed
    ) {
      stats.rxDropNotForUs++;
      return;
    }
    if (ip.isFragment) {
      stats.rxDropFragment++;
      return;
    }
    packet.family = 6;
    packet.addressBytes = IPV6_ADDRESS_BYTES;
    packet.ipOffset = offset;
    packet.src = ip.src;
    packet.dst = ip.dst;
    packet.protocol = ip.protocol;
    packet.payload = ip.payload;
    packet.payloadEnd = ip.payloadEnd;
    packet.hopLimit = ip.hopLimit;
    packet.toGroup = toGroup;
    if (ip.protocol === IP_PROTOCOL_ICMPV6) {
      this.#receiveIcmp(packet);
      return;
    }
    const transport = this.#hooks.transport(ip.protocol);
    if (transport === null) stats.rxDropUnknownProtocol++;
    // An address that is still being tested takes part in nothing (RFC 4862 section 5.4).
    else if (!toGroup && !this.addresses.isAssigned(bytes, ip.dst)) stats.rxDropNotForUs++;
    else transport.receive(packet);
  }

  #receiveIcmp(packet: Packet): void {
    const { bytes } = packet;
    const icmp = this.#icmp;
    const stats = this.#interface.stats;
    if (!icmp.parse(bytes, packet.payload, packet.payloadEnd)) {
      stats.rxDropMalformed++;
      return;
    }
    if (!icmp.checksumOk(bytes, packet.ipOffset)) {
      stats.rxDropChecksum++;
      return;
    }
    switch (icmp.type) {
      case ICMPV6_ECHO_REQUEST:
        this.#answerEcho(packet, icmp);
        break;
      case ICMPV6_ECHO_REPLY:
        this.#hooks.echoReply(packet, icmp.id, icmp.sequence);
        break;
      case ICMPV6_NEIGHBOR_SOLICITATION:
      case ICMPV6_NEIGHBOR_ADVERTISEMENT:
        this.ndp.receiveNeighbor(packet);
        break;
      case ICMPV6_ROUTER_ADVERTISEMENT:
        this.ndp.receiveRouter(packet);
        break;
      case ICMPV6_UNREACHABLE:
      case ICMPV6_PACKET_TOO_BIG:
      case ICMPV6_TIME_EXCEEDED:
        this.#receiveError(packet, icmp);
        break;
      default:
        stats.rxDropUnknownProtocol++;
    }
  }

  #answerEcho(packet: Packet, icmp: Icmpv6Message): void {
    // A tentative address does not exist yet; a request to a group goes unanswered, as with IPv4.
    if (packet.toGroup || !this.addresses.isAssigned(packet.bytes, packet.dst)) {
      this.#interface.stats.rxDropUnexpected++;
      return;
    }
    const dataBytes = icmp.payloadEnd - icmp.payload;
    const src = this.addresses.ownAt(packet.bytes, packet.dst);
    const at = this.beginIcmp(packet.bytes, packet.src, src, HOP_LIMIT);
    if (at < 0) return;
    copyBytes(this.#interface.memory, at + ICMPV6_HEADER_BYTES, packet.bytes, icmp.payload, dataBytes);
    this.sendEcho(at, ICMPV6_ECHO_REPLY, icmp.id, icmp.sequence, dataBytes);
  }

  #receiveError(packet: Packet, icmp: Icmpv6Message): void {
    const { bytes } = packet;
    const quote = icmp.payload;
    if (icmp.payloadEnd - quote < IPV6_HEADER_BYTES + 8 || bytes[quote] >>> 4 !== 6) {
      this.#interface.stats.rxDropMalformed++;
      return;
    }
    const ours = this.addresses.isAssigned(bytes, quote + IPV6_SRC);
    const transport = ours ? this.#hooks.transport(bytes[quote + 6]) : null;
    if (transport === null) {
      this.#interface.stats.rxDropUnexpected++;
      return;
    }
    copyBytes(this.#remote, 0, bytes, quote + IPV6_DST, IPV6_ADDRESS_BYTES);
    const problem = problemOf(icmp.type, icmp.code);
    transport.problem(problem, this.#remote, bytes, quote + IPV6_HEADER_BYTES, icmp.payloadEnd);
  }

  /** Nobody listens on the port of this datagram. */
  refusePort(packet: Packet): void {
    if (packet.toGroup || !mayAnswerWithIcmpv6Error(packet.bytes, this.#header, ICMPV6_UNREACHABLE)) return;
    const second = Math.floor(this.#interface.loop.clock.nowNs() / 1e9);
    if (second !== this.#errorSecond) {
      this.#errorSecond = second;
      this.#errors = 0;
    }
    if (++this.#errors > ERRORS_PER_SECOND) return;
    const src = this.addresses.ownAt(packet.bytes, packet.dst);
    const at = this.beginIcmp(packet.bytes, packet.src, src, HOP_LIMIT);
    if (at < 0) return;
    const quoted = packet.payloadEnd - packet.ipOffset;
    const memory = this.#interface.memory;
    const { bytes, ipOffset } = packet;
    this.endIcmp(
      at,
      writeIcmpv6Error(memory, at, ICMPV6_UNREACHABLE, ICMPV6_PORT_UNREACHABLE, 0, bytes, ipOffset, quoted),
    );
  }

  close(): void {
    this.ndp.close();
  }
}

function problemOf(type: number, code: number): IpProblem {
  if (type === ICMPV6_TIME_EXCEEDED) return 'ttl-exceeded';
  if (type === ICMPV6_PACKET_TOO_BIG) return 'too-big';
  if (code === ICMPV6_PORT_UNREACHABLE) return 'refused';
  return code === ICMPV6_ADMIN_PROHIBITED ? 'prohibited' : 'unreachable';
}

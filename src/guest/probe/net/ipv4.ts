/**
 * IPv4 (RFC 791, RFC 1122) and the host's part of ICMP (RFC 792): one address, one router, no options, no fragments (a
 * fragment is counted and dropped; packets are sent whole with DF). Echo requests to our address are answered; errors about our packets
 * are passed to the transport they quote; a UDP datagram or protocol nobody listens to is answered with an ICMP error, at most
 * ERRORS_PER_SECOND of them.
 */

import type { Loop } from '../../../core/loop.ts';
import { copyBytes, putU32be, u32be } from '../../../wire/bytes.ts';
import { pseudoSumV4 } from '../../../wire/checksum.ts';
import { ETH_HEADER_BYTES, ETHERTYPE_IPV4 } from '../../../wire/ethernet.ts';
import {
  ICMP_ADMIN_PROHIBITED,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HEADER_BYTES,
  ICMP_PORT_UNREACHABLE,
  ICMP_PROTOCOL_UNREACHABLE,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  IcmpMessage,
  mayAnswerWithIcmpError,
  writeIcmpEcho,
  writeIcmpError,
} from '../../../wire/icmp.ts';
import {
  IP_PROTOCOL_ICMP,
  IP_PROTOCOL_UDP,
  IPV4_DF,
  IPV4_DST,
  IPV4_HEADER_BYTES,
  IPV4_SRC,
  Ipv4Header,
  isMulticastIpv4,
  writeIpv4,
} from '../../../wire/ipv4.ts';
import { Arp, type ArpHooks } from './arp.ts';
import type { Interface } from './interface.ts';
import type { Neighbour, Neighbours } from './neighbours.ts';
import type { IpLayer, IpProblem, Packet, Transport } from './packet.ts';

const BROADCAST_MAC = Uint8Array.of(255, 255, 255, 255, 255, 255);
const HOP_LIMIT = 64;
const ERRORS_PER_SECOND = 20;

export interface Ipv4Hooks extends ArpHooks {
  /** The transport of a protocol number, or null. */
  transport(protocol: number): Transport | null;
  /** An echo reply for us. */
  echoReply(packet: Packet, id: number, sequence: number): void;
}

export class Ipv4 implements IpLayer {
  /** Our address, 0 while there is none; set by `configure`. */
  address = 0;
  mask = 0;
  /** 0: no router. */
  router = 0;
  readonly arp: Arp;
  readonly neighbours: Neighbours;

  readonly #interface: Interface;
  readonly #loop: Loop;
  readonly #hooks: Ipv4Hooks;
  readonly #header = new Ipv4Header();
  readonly #icmp = new IcmpMessage();
  readonly #quoted = new Ipv4Header();
  readonly #local = new Uint8Array(4);
  readonly #hop = new Uint8Array(4);
  readonly #groupMac = Uint8Array.of(1, 0, 0x5e, 0, 0, 0);
  readonly #remote = new Uint8Array(4);
  // The configuration once more as int32: small integers to the engine, so no boxed numbers on the data path.
  #self = 0;
  #net = 0;
  #via = 0;
  #broadcast = -1;
  #id = 0;
  #errorSecond = -1;
  #errors = 0;
  // The packet under way.
  #frame = 0;
  #dst = 0;
  #protocol = 0;

  constructor(iface: Interface, hooks: Ipv4Hooks, random: number) {
    this.#interface = iface;
    this.#loop = iface.loop;
    this.#hooks = hooks;
    this.#id = random & 0xffff;
    this.arp = new Arp(iface, hooks);
    this.neighbours = this.arp.neighbours;
  }

  configure(address: number, mask: number, router: number): void {
    this.address = address >>> 0;
    this.mask = mask >>> 0;
    this.router = router >>> 0;
    this.#self = address | 0;
    this.#net = mask | 0;
    this.#via = router | 0;
    // A /31 or /32 has none (RFC 3021).
    this.#broadcast = address === 0 || mask === 0 || ~mask >>> 0 < 3 ? -1 : this.#self | ~this.#net;
    putU32be(this.#local, 0, this.address);
    this.arp.configure(this.address);
  }

  get ready(): boolean {
    return this.address !== 0;
  }

  get payloadMaxBytes(): number {
    return this.#interface.mtuBytes - IPV4_HEADER_BYTES;
  }

  // Sending.

  begin(
    remote: Uint8Array,
    remoteOffset: number,
    protocol: number,
    payloadBytes = this.payloadMaxBytes,
  ): number {
    const frame = this.#interface.begin(IPV4_HEADER_BYTES + payloadBytes);
    if (frame < 0) return -1;
    this.#frame = frame;
    this.#dst = i32be(remote, remoteOffset);
    this.#protocol = protocol;
    return frame + ETH_HEADER_BYTES + IPV4_HEADER_BYTES;
  }

  pseudoSum(length: number): number {
    return pseudoSumV4(this.#self, this.#dst, this.#protocol, length);
  }

  end(payloadBytes: number): void {
    const dst = this.#dst;
    const iface = this.#interface;
    const memory = iface.memory;
    const frame = this.#frame;
    const ip = frame + ETH_HEADER_BYTES;
    const total = IPV4_HEADER_BYTES + payloadBytes;
    if (total > iface.mtuBytes) {
      iface.stats.txDropTooLong++;
      return;
    }
    this.#id = (this.#id + 1) & 0xffff;
    writeIpv4(memory, ip, total, this.#id, IPV4_DF, HOP_LIMIT, this.#protocol, this.#self, dst);
    if (this.#isBroadcast(dst)) {
      iface.send(frame, BROADCAST_MAC, 0, ETHERTYPE_IPV4, total);
      return;
    }
    if (isMulticastIpv4(dst)) {
      // RFC 1112 section 6.4: the low 23 bits.
      this.#groupMac[3] = (dst >>> 16) & 0x7f;
      this.#groupMac[4] = dst >>> 8;
      this.#groupMac[5] = dst;
      iface.send(frame, this.#groupMac, 0, ETHERTYPE_IPV4, total);
      return;
    }
    const hop = this.#nextHop(dst);
    if (hop === 0) {
      iface.stats.txDropNoRoute++;
      return;
    }
    putU32be(this.#hop, 0, hop);
    const neighbour = this.neighbours.find(this.#hop, 0);
    if (neighbour?.known) {
      iface.send(frame, neighbour.mac, 0, ETHERTYPE_IPV4, total);
      this.neighbours.use(this.#hop, 0);
      return;
    }
    // Soliciting writes a frame of its own to the reserved place: keep this one first.
    const held = memory.slice(frame, frame + ETH_HEADER_BYTES + total);
    copyBytes(held, 6, iface.mac, 0, 6);
    held[12] = ETHERTYPE_IPV4 >>> 8;
    held[13] = ETHERTYPE_IPV4 & 0xff;
    iface.stats.txDropUnresolved += this.neighbours.hold(this.neighbours.use(this.#hop, 0), held);
  }

  hop(remote: Uint8Array): Neighbour | null {
    const hop = this.#nextHop(i32be(remote, 0));
    if (hop === 0) return null;
    putU32be(this.#hop, 0, hop);
    return this.neighbours.use(this.#hop, 0);
  }

  sourceFor(remote: Uint8Array): Uint8Array | null {
    return this.address !== 0 && this.#nextHop(i32be(remote, 0)) !== 0 ? this.#local : null;
  }

  #isBroadcast(dst: number): boolean {
    return dst === -1 || dst === this.#broadcast;
  }

  /** 0: there is no way there. */
  #nextHop(dst: number): number {
    if (this.#self === 0) return 0;
    if (((dst ^ this.#self) & this.#net) === 0) return dst;
    return this.#via;
  }

  // Receiving.

  /** Checks the packet at `offset` and passes it up. `packet.bytes` and `checksumValid` are set by the caller. */
  receive(packet: Packet, offset: number, end: number): void {
    const bytes = packet.bytes;
    const ip = this.#header;
    const stats = this.#interface.stats;
    if (!ip.parse(bytes, offset, end)) {
      stats.rxDropMalformed++;
      return;
    }
    if (!packet.checksumValid && !ip.checksumOk(bytes)) {
      stats.rxDropChecksum++;
      return;
    }
    const toGroup = isMulticastIpv4(ip.dst) || this.#isBroadcast(ip.dst | 0);
    // Without an address any datagram that reached our MAC may be the DHCP server's answer (RFC 2131 section 4.1).
    const unnamed = this.#self === 0 && ip.protocol === IP_PROTOCOL_UDP;
    if (!toGroup && !unnamed && (ip.dst | 0) !== this.#self) {
      stats.rxDropNotForUs++;
      return;
    }
    if (ip.isFragment) {
      stats.rxDropFragment++;
      return;
    }
    packet.family = 4;
    packet.addressBytes = 4;
    packet.ipOffset = offset;
    packet.src = offset + IPV4_SRC;
    packet.dst = offset + IPV4_DST;
    packet.protocol = ip.protocol;
    packet.payload = ip.payload;
    packet.payloadEnd = ip.payloadEnd;
    packet.hopLimit = ip.ttl;
    packet.toGroup = toGroup;
    if (ip.protocol === IP_PROTOCOL_ICMP) {
      this.#receiveIcmp(packet);
      return;
    }
    const transport = this.#hooks.transport(ip.protocol);
    if (transport !== null) {
      transport.receive(packet);
      return;
    }
    stats.rxDropUnknownProtocol++;
    this.sendUnreachable(packet, ICMP_PROTOCOL_UNREACHABLE);
  }

  #receiveIcmp(packet: Packet): void {
    const { bytes } = packet;
    const icmp = this.#icmp;
    const stats = this.#interface.stats;
    if (!icmp.parse(bytes, packet.payload, packet.payloadEnd)) {
      stats.rxDropMalformed++;
    } else if (!icmp.checksumOk(bytes)) {
      stats.rxDropChecksum++;
    } else if (icmp.type === ICMP_ECHO_REQUEST) {
      // RFC 1122 section 3.2.2.6 lets a host ignore requests to a group; ours does.
      if (packet.toGroup || this.address === 0) stats.rxDropUnexpected++;
      else this.#answerEcho(packet, icmp);
    } else if (icmp.type === ICMP_ECHO_REPLY) {
      this.#hooks.echoReply(packet, icmp.id, icmp.sequence);
    } else if (icmp.type === ICMP_UNREACHABLE || icmp.type === ICMP_TIME_EXCEEDED) {
      this.#receiveError(packet, icmp);
    } else {
      stats.rxDropUnknownProtocol++;
    }
  }

  #answerEcho(packet: Packet, icmp: IcmpMessage): void {
    const dataBytes = icmp.payloadEnd - icmp.payload;
    const at = this.begin(packet.bytes, packet.src, IP_PROTOCOL_ICMP);
    if (at < 0) return;
    const memory = this.#interface.memory;
    copyBytes(memory, at + ICMP_HEADER_BYTES, packet.bytes, icmp.payload, dataBytes);
    this.end(writeIcmpEcho(memory, at, ICMP_ECHO_REPLY, icmp.id, icmp.sequence, dataBytes));
  }

  #receiveError(packet: Packet, icmp: IcmpMessage): void {
    const quoted = this.#quoted;
    const bytes = packet.bytes;
    // The quote is cut short on purpose: its own length field may say more than is there.
    if (icmp.payloadEnd - icmp.payload < IPV4_HEADER_BYTES + 8 || bytes[icmp.payload] !== 0x45) {
      this.#interface.stats.rxDropMalformed++;
      return;
    }
    quoted.src = u32be(bytes, icmp.payload + IPV4_SRC);
    const transport = quoted.src === this.address ? this.#hooks.transport(bytes[icmp.payload + 9]) : null;
    if (transport === null) {
      this.#interface.stats.rxDropUnexpected++;
      return;
    }
    copyBytes(this.#remote, 0, bytes, icmp.payload + IPV4_DST, 4);
    const problem = problemOf(icmp.type, icmp.code);
    transport.problem(problem, this.#remote, bytes, icmp.payload + IPV4_HEADER_BYTES, icmp.payloadEnd);
  }

  /** Answers a packet nobody wants, where RFC 1122 allows it and not too often. */
  sendUnreachable(packet: Packet, code: number): void {
    if (this.address === 0 || packet.toGroup || !mayAnswerWithIcmpError(packet.bytes, this.#header)) return;
    const second = Math.floor(this.#loop.clock.nowNs() / 1e9);
    if (second !== this.#errorSecond) {
      this.#errorSecond = second;
      this.#errors = 0;
    }
    if (++this.#errors > ERRORS_PER_SECOND) return;
    const quotedBytes = packet.payloadEnd - packet.ipOffset;
    const at = this.begin(packet.bytes, packet.src, IP_PROTOCOL_ICMP);
    if (at < 0) return;
    const memory = this.#interface.memory;
    this.end(
      writeIcmpError(memory, at, ICMP_UNREACHABLE, code, 0, packet.bytes, packet.ipOffset, quotedBytes),
    );
  }

  /** Nobody listens on the port of this datagram. */
  refusePort(packet: Packet): void {
    this.sendUnreachable(packet, ICMP_PORT_UNREACHABLE);
  }

  close(): void {
    this.arp.close();
  }
}

function problemOf(type: number, code: number): IpProblem {
  if (type === ICMP_TIME_EXCEEDED) return 'ttl-exceeded';
  if (code === ICMP_PORT_UNREACHABLE || code === ICMP_PROTOCOL_UNREACHABLE) return 'refused';
  if (code === ICMP_FRAGMENTATION_NEEDED) return 'too-big';
  return code === ICMP_ADMIN_PROHIBITED || code === 9 || code === 10 ? 'prohibited' : 'unreachable';
}

/** Big-endian 32-bit read as an int32. */
function i32be(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}

/**
 * A scripted wire for the probe's IP host: `FakeLink` in place of driver and NIC, and `Peer`, the only other station, which answers as each test
 * says. Everything runs on a virtual clock; a frame takes WIRE_NS.
 */
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { ByteMemory } from '../../../src/core/copy.ts';
import { Loop } from '../../../src/core/loop.ts';
import { FramePool, LENGTH, OFFSET } from '../../../src/core/pool.ts';
import { type HostEvents, IpHost } from '../../../src/guest/probe/net/host.ts';
import type { EthernetLink, LinkReceiver } from '../../../src/guest/probe/net/link.ts';
import { ARP_OP_REPLY, ARP_OP_REQUEST, ArpPacket, writeArp } from '../../../src/wire/arp.ts';
import { parseIpv4 } from '../../../src/wire/bytes.ts';
import {
  ETH_HEADER_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  EthernetHeader,
  writeEthernet,
} from '../../../src/wire/ethernet.ts';
import { ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, IcmpMessage, writeIcmpEcho } from '../../../src/wire/icmp.ts';
import { IP_PROTOCOL_ICMP, IP_PROTOCOL_UDP, Ipv4Header, writeIpv4 } from '../../../src/wire/ipv4.ts';
import { setUdpChecksumV4, UDP_HEADER_BYTES, UdpHeader, writeUdp } from '../../../src/wire/udp.ts';

export const PROBE_MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
export const PEER_MAC = Uint8Array.of(0x52, 0x55, 0x0a, 0, 2, 2);
export const BROADCAST_MAC = Uint8Array.of(255, 255, 255, 255, 255, 255);
export const WIRE_NS = 1000;

export function ip(text: string): number {
  return parseIpv4(text) >>> 0;
}

export class FakeLink implements EthernetLink {
  readonly mac = PROBE_MAC;
  up = true;
  readonly speedText = '1000 Mb/s full duplex';
  readonly pool = new FramePool({ smallSlots: 256, largeSlots: 8, bareRecords: 16, debug: true });
  readonly memory = this.pool.bytes;
  readonly offloads = 0;
  receiver: LinkReceiver = { receive() {}, endOfBatch() {}, linkChanged() {}, room() {} };
  room = 256;
  /** Called for each frame the host sends, WIRE_NS later. */
  onFrame: (frame: Uint8Array) => void = () => {};
  /** Everything the host sent. */
  readonly sent: Uint8Array[] = [];
  flushes = 0;
  readonly #loop: Loop;
  readonly #rx = new ByteMemory(new Uint8Array(1 << 16));
  #reserved = 0;

  constructor(loop: Loop) {
    this.#loop = loop;
  }

  reserve(bytes: number): number {
    if (this.room <= 0) return -1;
    if (this.#reserved === 0) this.#reserved = this.pool.alloc(bytes);
    return this.pool.table[this.#reserved + OFFSET];
  }

  send(length: number): void {
    const frame = this.#reserved;
    this.#reserved = 0;
    this.pool.setLength(frame, length);
    this.sendFrame(frame);
  }

  sendFrame(frame: number): number {
    const at = this.pool.table[frame + OFFSET];
    const length = this.pool.table[frame + LENGTH];
    const bytes = this.memory.slice(at, at + length);
    this.pool.release(frame);
    this.sent.push(bytes);
    this.#later(() => this.onFrame(bytes));
    return length;
  }

  flush(): void {
    this.flushes++;
  }

  /** Brings a frame to the host, WIRE_NS later. */
  deliver(frame: Uint8Array): void {
    this.#later(() => {
      // As in guest RAM, the frame does not start at a round place, and other bytes follow it.
      this.#rx.bytes.fill(0xee);
      this.#rx.bytes.set(frame, 66);
      this.receiver.receive(this.#rx, 66, frame.length, 0);
      this.receiver.endOfBatch();
    });
  }

  #later(task: () => void): void {
    this.#loop.timer(task).armIn(WIRE_NS);
  }

  setUp(up: boolean): void {
    this.up = up;
    this.receiver.linkChanged(up);
  }

  close(): void {
    if (this.#reserved !== 0) this.pool.release(this.#reserved);
    this.#reserved = 0;
  }
}

/** What a test learns of a UDP datagram. */
export interface Datagram {
  src: number;
  dst: number;
  srcPort: number;
  dstPort: number;
  payload: Uint8Array;
}

/** The other station: ARP, echo and UDP of one or more IPv4 addresses, each as the test wants it. */
export class Peer {
  readonly link: FakeLink;
  /** Addresses it answers ARP and echo for. */
  addresses = new Set<number>();
  answersArp = true;
  answersEcho = true;
  arpRequests = 0;
  /** Probes and announcements included, as [sender, target]. */
  readonly arps: [number, number][] = [];
  readonly datagrams: Datagram[] = [];
  onDatagram: (datagram: Datagram) => void = () => {};
  onOther: (frame: Uint8Array) => void = () => {};
  readonly #ethernet = new EthernetHeader();
  readonly #ip = new Ipv4Header();
  readonly #udp = new UdpHeader();
  readonly #icmp = new IcmpMessage();
  readonly #arp = new ArpPacket();

  constructor(link: FakeLink) {
    this.link = link;
    link.onFrame = (frame) => this.#frame(frame);
  }

  #frame(frame: Uint8Array): void {
    if (!this.#ethernet.parse(frame, 0, frame.length)) throw new Error('the host sent half a frame');
    const at = this.#ethernet.payload;
    if (this.#ethernet.etherType === ETHERTYPE_ARP) this.#receiveArp(frame, at);
    else if (this.#ethernet.etherType === ETHERTYPE_IPV4) this.#receiveIp(frame, at);
    else this.onOther(frame);
  }

  #receiveArp(frame: Uint8Array, at: number): void {
    const arp = this.#arp;
    if (!arp.parse(frame, at, frame.length)) throw new Error('bad ARP');
    if (arp.operation !== ARP_OP_REQUEST) {
      this.onOther(frame);
      return;
    }
    this.arps.push([arp.senderIp, arp.targetIp]);
    if (arp.senderIp === arp.targetIp || arp.senderIp === 0) return;
    this.arpRequests++;
    if (this.answersArp && this.addresses.has(arp.targetIp))
      this.sayArp(ARP_OP_REPLY, arp.targetIp, PROBE_MAC, arp.senderIp);
  }

  /** Sends an ARP packet from PEER_MAC. */
  sayArp(operation: number, sender: number, to: Uint8Array, target: number, mac = PEER_MAC): void {
    const frame = new Uint8Array(60);
    writeEthernet(frame, 0, to, 0, mac, 0, ETHERTYPE_ARP);
    writeArp(frame, ETH_HEADER_BYTES, operation, mac, 0, sender, PROBE_MAC, 0, target);
    this.link.deliver(frame);
  }

  #receiveIp(frame: Uint8Array, at: number): void {
    const header = this.#ip;
    if (!header.parse(frame, at, frame.length) || !header.checksumOk(frame)) throw new Error('bad IPv4');
    if (header.protocol === IP_PROTOCOL_ICMP) {
      if (!this.#icmp.parse(frame, header.payload, header.payloadEnd) || !this.#icmp.checksumOk(frame)) {
        throw new Error('bad ICMP');
      }
      if (this.#icmp.type !== ICMP_ECHO_REQUEST) this.onOther(frame);
      else if (this.answersEcho && this.addresses.has(header.dst)) {
        const data = frame.slice(header.payload + 8, header.payloadEnd);
        const packet = new Uint8Array(8 + data.length);
        packet.set(data, 8);
        writeIcmpEcho(packet, 0, ICMP_ECHO_REPLY, this.#icmp.id, this.#icmp.sequence, data.length);
        this.sendIp(header.dst, header.src, IP_PROTOCOL_ICMP, packet);
      }
      return;
    }
    if (header.protocol !== IP_PROTOCOL_UDP) {
      this.onOther(frame);
      return;
    }
    if (!this.#udp.parse(frame, header.payload, header.payloadEnd)) throw new Error('bad UDP');
    const datagram: Datagram = {
      src: header.src,
      dst: header.dst,
      srcPort: this.#udp.srcPort,
      dstPort: this.#udp.dstPort,
      payload: frame.slice(this.#udp.payload, this.#udp.payloadEnd),
    };
    this.datagrams.push(datagram);
    this.onDatagram(datagram);
  }

  sendIp(src: number, dst: number, protocol: number, payload: Uint8Array, to = PROBE_MAC): void {
    this.link.deliver(ipFrame(src, dst, protocol, payload, to));
  }

  sendUdp(
    src: number,
    dst: number,
    srcPort: number,
    dstPort: number,
    payload: Uint8Array,
    to = PROBE_MAC,
  ): void {
    this.sendIp(src, dst, IP_PROTOCOL_UDP, udpPacket(src, dst, srcPort, dstPort, payload), to);
  }
}

export function udpPacket(
  src: number,
  dst: number,
  srcPort: number,
  dstPort: number,
  payload: Uint8Array,
): Uint8Array {
  const packet = new Uint8Array(UDP_HEADER_BYTES + payload.length);
  packet.set(payload, UDP_HEADER_BYTES);
  writeUdp(packet, 0, srcPort, dstPort, packet.length);
  setUdpChecksumV4(packet, 0, packet.length, src, dst);
  return packet;
}

export function ipFrame(
  src: number,
  dst: number,
  protocol: number,
  payload: Uint8Array,
  to = PROBE_MAC,
): Uint8Array {
  const total = 20 + payload.length;
  const frame = new Uint8Array(Math.max(60, ETH_HEADER_BYTES + total));
  writeEthernet(frame, 0, to, 0, PEER_MAC, 0, ETHERTYPE_IPV4);
  writeIpv4(frame, ETH_HEADER_BYTES, total, 1, 0, 64, protocol, src, dst);
  frame.set(payload, ETH_HEADER_BYTES + 20);
  return frame;
}

/** What the host told, one line each. */
export class Told implements HostEvents {
  readonly lines: string[] = [];
  linkChanged(up: boolean): void {
    this.lines.push(`link ${up ? 'up' : 'down'}`);
  }
  leased(lease: { address: number; seconds: number }, renewed: boolean): void {
    this.lines.push(`${renewed ? 'renewed' : 'leased'} ${lease.address.toString(16)} ${lease.seconds}`);
  }
  leaseLost(reason: string): void {
    this.lines.push(`lost: ${reason}`);
  }
  noDhcpServer(): void {
    this.lines.push('no DHCP server');
  }
  linkLocal(address: number): void {
    this.lines.push(`link-local ${(address >>> 16).toString(16)}`);
  }
  ipv6Assigned(address: Uint8Array, length: number, linkLocal: boolean): void {
    this.lines.push(
      `${linkLocal ? 'v6 link-local' : 'v6 global'} ${[...address].map((b) => b.toString(16)).join(' ')}/${length}`,
    );
  }
  ipv6Duplicate(): void {
    this.lines.push('v6 duplicate');
  }
  ipv6Advertised(): void {
    this.lines.push('v6 advertised');
  }
  ipv6NoRouter(): void {
    this.lines.push('v6 no router');
  }
}

export interface Bench {
  clock: VirtualClock;
  loop: Loop;
  link: FakeLink;
  peer: Peer;
  host: IpHost;
  told: Told;
  /** Ends everything and checks that every buffer is back. */
  close(): void;
}

export function hostBench(seed = 1): Bench {
  const clock = new VirtualClock();
  const loop = new Loop(clock);
  const link = new FakeLink(loop);
  const peer = new Peer(link);
  const told = new Told();
  const host = new IpHost(link, loop, seededRandom(seed), 'probe', told);
  return {
    clock,
    loop,
    link,
    peer,
    host,
    told,
    close() {
      host.close();
      link.close();
      // What was on its way arrives at a closed host.
      link.receiver = { receive() {}, endOfBatch() {}, linkChanged() {}, room() {} };
      loop.runUntil(clock.nowNs() + 1e9);
      if (link.pool.free !== link.pool.capacity)
        throw new Error(`${link.pool.capacity - link.pool.free} buffers leaked`);
      if (loop.nextNs !== Number.POSITIVE_INFINITY) throw new Error('a timer is still armed');
    },
  };
}

/** A small guest for the user network: raw packets by hand, and TCP by the engine itself. */

import { seededRandom } from '../../../../src/core/clock.ts';
import { GSO_SIZE, HEADER_LENGTH, OFFSET, TOTAL } from '../../../../src/core/pool.ts';
import { ACCEPT_ALL, type Client, type LinkContext, Port } from '../../../../src/core/port.ts';
import type { Connection, TcpUser } from '../../../../src/tcp/connection.ts';
import { linkHeaderV4, linkHeaderV6 } from '../../../../src/tcp/link-header.ts';
import type { TcpSettings } from '../../../../src/tcp/settings.ts';
import { TcpStack } from '../../../../src/tcp/stack.ts';
import { ARP_OP_REPLY, ARP_OP_REQUEST, ArpPacket, writeArp } from '../../../../src/wire/arp.ts';
import { formatMac, parseIpv4, parseIpv6, putU32be } from '../../../../src/wire/bytes.ts';
import { internetChecksum, pseudoSumV4 } from '../../../../src/wire/checksum.ts';
import { writeEthernet } from '../../../../src/wire/ethernet.ts';
import { setIcmpv6Checksum } from '../../../../src/wire/icmpv6.ts';
import { writeIpv4 } from '../../../../src/wire/ipv4.ts';
import { writeIpv6 } from '../../../../src/wire/ipv6.ts';
import { setUdpChecksum, setUdpChecksumV6, writeUdp } from '../../../../src/wire/udp.ts';

export const GUEST_MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
export const GATEWAY_MAC = Uint8Array.of(0x52, 0x55, 10, 0, 2, 2);
export const BROADCAST_MAC = Uint8Array.of(255, 255, 255, 255, 255, 255);

export const ip4 = (text: string): number => parseIpv4(text);
export const ip6 = (text: string): Uint8Array => parseIpv6(text)!;

export interface GuestOptions {
  ip?: string;
  ip6?: string;
  accepts?: number;
  settings?: Partial<TcpSettings>;
  mac?: Uint8Array;
}

/** An IPv4 packet in an Ethernet frame. */
export function ipv4Frame(o: {
  src: string;
  dst: string;
  protocol: number;
  payload: Uint8Array;
  ttl?: number;
  flagsFragment?: number;
  id?: number;
  dstMac?: Uint8Array;
  srcMac?: Uint8Array;
}): Uint8Array {
  const frame = new Uint8Array(34 + o.payload.length);
  writeEthernet(frame, 0, o.dstMac ?? GATEWAY_MAC, 0, o.srcMac ?? GUEST_MAC, 0, 0x0800);
  writeIpv4(
    frame,
    14,
    20 + o.payload.length,
    o.id ?? 1,
    o.flagsFragment ?? 0,
    o.ttl ?? 64,
    o.protocol,
    ip4(o.src),
    ip4(o.dst),
  );
  frame.set(o.payload, 34);
  return frame;
}

export function udpPacket(
  src: string,
  srcPort: number,
  dst: string,
  dstPort: number,
  data: Uint8Array,
): Uint8Array {
  const udp = new Uint8Array(8 + data.length);
  writeUdp(udp, 0, srcPort, dstPort, udp.length);
  udp.set(data, 8);
  setUdpChecksum(udp, 0, udp.length, pseudoSumV4(ip4(src), ip4(dst), 17, udp.length));
  return udp;
}

export function udpFrame(
  src: string,
  srcPort: number,
  dst: string,
  dstPort: number,
  data: Uint8Array,
  more: { ttl?: number; dstMac?: Uint8Array } = {},
): Uint8Array {
  return ipv4Frame({ src, dst, protocol: 17, payload: udpPacket(src, srcPort, dst, dstPort, data), ...more });
}

export function udpFrame6(
  src: string,
  srcPort: number,
  dst: string,
  dstPort: number,
  data: Uint8Array,
): Uint8Array {
  const frame = new Uint8Array(14 + 40 + 8 + data.length);
  writeEthernet(frame, 0, GATEWAY_MAC, 0, GUEST_MAC, 0, 0x86dd);
  writeIpv6(frame, 14, 8 + data.length, 17, 64, ip6(src), 0, ip6(dst), 0);
  writeUdp(frame, 54, srcPort, dstPort, 8 + data.length);
  frame.set(data, 62);
  setUdpChecksumV6(frame, 54, 8 + data.length, 14);
  return frame;
}

export function echoPacket(id: number, sequence: number, data: Uint8Array, type = 8): Uint8Array {
  const icmp = new Uint8Array(8 + data.length);
  icmp.set([type, 0, 0, 0, id >> 8, id, sequence >> 8, sequence]);
  icmp.set(data, 8);
  const sum = internetChecksum(icmp, 0, icmp.length);
  icmp[2] = sum >> 8;
  icmp[3] = sum;
  return icmp;
}

export function arpFrame(operation: number, senderIp: string, targetIp: string, mac = GUEST_MAC): Uint8Array {
  const frame = new Uint8Array(42);
  writeEthernet(frame, 0, BROADCAST_MAC, 0, mac, 0, 0x0806);
  writeArp(frame, 14, operation, mac, 0, ip4(senderIp), new Uint8Array(6), 0, ip4(targetIp));
  return frame;
}

/** "Fragmentation needed" from `src` to whom the quoted packet came from. */
export function tooBigV4(src: string, quote: Uint8Array, mtu: number): Uint8Array {
  const icmp = new Uint8Array(8 + quote.length);
  icmp.set([3, 4, 0, 0, 0, 0, mtu >> 8, mtu & 255]);
  icmp.set(quote, 8);
  const sum = internetChecksum(icmp, 0, icmp.length);
  icmp.set([sum >> 8, sum & 255], 2);
  return ipv4Frame({ src, dst: [...quote.subarray(12, 16)].join('.'), protocol: 1, payload: icmp });
}

/** "Packet too big". */
export function tooBigV6(src: Uint8Array, quote: Uint8Array, mtu: number): Uint8Array {
  const frame = new Uint8Array(14 + 40 + 8 + quote.length);
  writeEthernet(frame, 0, GATEWAY_MAC, 0, GUEST_MAC, 0, 0x86dd);
  writeIpv6(frame, 14, 8 + quote.length, 58, 64, src, 0, quote, 8);
  frame[54] = 2;
  putU32be(frame, 58, mtu);
  frame.set(quote, 62);
  setIcmpv6Checksum(frame, 54, 8 + quote.length, 14);
  return frame;
}

export class Guest implements Client {
  readonly port: Port;
  readonly tcp: TcpStack;
  readonly ip: string;
  /** Frames that are not TCP to our address. */
  readonly received: Uint8Array[] = [];
  /** Takes new TCP connections. */
  accept: ((c: Connection) => TcpUser | null) | null = null;
  answerArp = true;
  /** Refuses frames while false. */
  open = true;
  tcpFrames = 0;
  /** Narrower than the link: the guest is a router, and says so of each longer TCP packet. `tells` is the MTU in its messages. */
  behindMtu = Number.POSITIVE_INFINITY;
  behindTells: number | null = null;
  tooBig = 0;
  readonly #context: LinkContext;
  readonly #out: number[] = [];
  readonly #ip6: Uint8Array | null;
  #batch = false;

  constructor(context: LinkContext, options: GuestOptions = {}) {
    this.#context = context;
    this.ip = options.ip ?? '10.0.2.15';
    this.#ip6 = options.ip6 === undefined ? null : ip6(options.ip6);
    const mac = options.mac ?? GUEST_MAC;
    this.port = new Port('guest', 'nic', this, context);
    this.port.accepts = options.accepts ?? ACCEPT_ALL;
    const guest = this;
    this.tcp = new TcpStack({
      pool: context.pool,
      loop: context.loop,
      random: seededRandom(99),
      mac,
      settings: { timeWaitNs: 1e9, ...options.settings },
      lower: {
        get accepts() {
          return guest.port.peer?.accepts ?? 0;
        },
        room: () => Number.POSITIVE_INFINITY,
        transmit: (frame) => guest.#push(frame),
      },
      incoming: (c) => {
        c.user = this.accept?.(c) ?? null;
        if (c.user !== null) c.accept();
      },
    });
  }

  #push(frame: number): void {
    this.#out.push(frame);
    if (!this.#batch && this.#out.length === 1) this.#context.loop.post(() => this.#flush());
  }

  #flush(): void {
    if (this.#out.length === 0) return;
    const batch = Int32Array.from(this.#out);
    this.#out.length = 0;
    const taken = this.port.send(batch, 0, batch.length);
    this.#out.unshift(...batch.subarray(taken));
  }

  peerReady(): void {
    this.#flush();
    this.tcp.outputReady();
  }

  receive(frames: Int32Array, from: number, to: number): number {
    if (!this.open) return 0;
    const { pool } = this.#context;
    this.#batch = true;
    for (let i = from; i < to; i++) this.#input(frames[i]!, pool.table[frames[i]! + OFFSET]!);
    this.tcp.flush();
    this.#batch = false;
    if (this.#out.length > 0) this.#context.loop.post(() => this.#flush());
    return to - from;
  }

  #input(frame: number, at: number): void {
    const { pool } = this.#context;
    const b = pool.bytes;
    const type = (b[at + 12]! << 8) | b[at + 13]!;
    if (this.#isTooBig(frame, at, type)) {
      pool.release(frame);
      return;
    }
    if (type === 0x0800 && b[at + 23] === 6) {
      this.tcpFrames++;
      this.tcp.input(frame, 4, at + 14, at + 34, ((b[at + 16]! << 8) | b[at + 17]!) - 20);
      return;
    }
    if (type === 0x86dd && b[at + 20] === 6) {
      this.tcpFrames++;
      this.tcp.input(frame, 6, at + 14, at + 54, (b[at + 18]! << 8) | b[at + 19]!);
      return;
    }
    if (type === 0x0806) this.#arp(at, at + pool.table[frame + TOTAL]!);
    this.received.push(pool.toBytes(frame));
    pool.release(frame);
  }

  #isTooBig(frame: number, at: number, type: number): boolean {
    const { pool } = this.#context;
    const b = pool.bytes;
    const v4 = type === 0x0800;
    const ip = at + 14;
    if (!v4 && type !== 0x86dd) return false;
    if (b[v4 ? ip + 9 : ip + 6] !== 6) return false;
    const gso = pool.table[frame + GSO_SIZE]!;
    const whole = pool.table[frame + TOTAL]! - 14;
    const longest = gso > 0 ? pool.table[frame + HEADER_LENGTH]! - 14 + gso : whole;
    if (longest <= this.behindMtu) return false;
    this.tooBig++;
    const told = this.behindTells ?? this.behindMtu;
    // What is cut is cut before it is routed.
    const quote = b.slice(ip, ip + (v4 ? 28 : 100));
    if (v4) quote.set([longest >> 8, longest & 255], 2);
    else quote.set([(longest - 40) >> 8, (longest - 40) & 255], 4);
    this.#push(pool.from(v4 ? tooBigV4(this.ip, quote, told) : tooBigV6(this.#ip6!, quote, told)));
    return true;
  }

  #arp(at: number, end: number): void {
    const packet = new ArpPacket();
    const b = this.#context.pool.bytes;
    if (!this.answerArp || !packet.parse(b, at + 14, end)) return;
    if (packet.operation !== ARP_OP_REQUEST || packet.targetIp !== ip4(this.ip)) return;
    const reply = new Uint8Array(42);
    writeEthernet(reply, 0, b, packet.senderMac, this.tcp.mac, 0, 0x0806);
    writeArp(reply, 14, ARP_OP_REPLY, this.tcp.mac, 0, ip4(this.ip), b, packet.senderMac, packet.senderIp);
    this.#push(this.#context.pool.from(reply));
  }

  /** Sends packets at once. */
  send(...packets: Uint8Array[]): void {
    for (const packet of packets) this.#out.push(this.#context.pool.from(packet));
    this.#flush();
  }

  /** Takes what was received (not TCP) since the last call. */
  take(): Uint8Array[] {
    return this.received.splice(0);
  }

  connect(user: TcpUser, address: string, port: number, hopLimit = 64): Connection {
    const six = address.includes(':');
    const link = six
      ? linkHeaderV6(GATEWAY_MAC, this.tcp.mac, this.#ip6!, ip6(address))
      : linkHeaderV4(GATEWAY_MAC, this.tcp.mac, ip4(this.ip), ip4(address));
    link[six ? 21 : 22] = hopLimit;
    return this.tcp.connect(user, link, 0, port)!;
  }

  close(): void {
    this.tcp.close();
    for (const frame of this.#out.splice(0)) this.#context.pool.release(frame);
  }
}

export const macOf = (frame: Uint8Array, at = 0): string => formatMac(frame, at);

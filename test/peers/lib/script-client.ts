/**
 * A client of a user network that says exactly what a script tells it to, over a `stream` netdev (a 4-byte length before each frame): the same for QEMU and
 * for netemu. It answers ARP requests and neighbour solicitations for its own addresses, as any host must; everything else is kept for the script.
 *
 * Nothing here waits for a time to pass: after each question comes an ARP request of its own for the gateway, and what arrives before the answer to
 * that is the answer to the question. What needs the host (a connection, a datagram's answer) is waited for by what should come; only what never
 * comes costs PATIENCE_MS, and shows.
 */

import { createServer, type Server, type Socket } from 'node:net';
import { writeArp } from '../../../src/wire/arp.ts';
import { formatIpv6, parseIpv4, parseIpv6, u16be, u32be } from '../../../src/wire/bytes.ts';
import { pseudoSumV4 } from '../../../src/wire/checksum.ts';
import { writeEthernet } from '../../../src/wire/ethernet.ts';
import { setIcmpv6Checksum } from '../../../src/wire/icmpv6.ts';
import { writeIpv4 } from '../../../src/wire/ipv4.ts';
import { writeIpv6 } from '../../../src/wire/ipv6.ts';
import { NA_OVERRIDE, NA_SOLICITED, writeNeighborAdvertisement } from '../../../src/wire/ndp.ts';
import { setTcpChecksum, TcpOptions, writeTcp, writeTcpOptions } from '../../../src/wire/tcp.ts';
import { setUdpChecksum, setUdpChecksumV6, writeUdp } from '../../../src/wire/udp.ts';
import { FrameText } from './frame-text.ts';

export const CLIENT_MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
export const GATEWAY_MAC = Uint8Array.of(0x52, 0x55, 10, 0, 2, 2);
export const BROADCAST = new Uint8Array(6).fill(255);
export const CLIENT = '10.0.2.15';
export const CLIENT6 = 'fec0::5054:ff:fe12:3456';
const MARKER_IP = '10.0.2.99';
const MARKER_MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 0x99);
const PATIENCE_MS = 2500;
/** How soon to ask again, when something should come of the host. */
const LOOK_AGAIN_MS = 5;

/** An IPv4 packet or an IPv6 one, by the addresses. */
export function ipFrame(
  src: string,
  dst: string,
  protocol: number,
  payload: Uint8Array,
  more: { ttl?: number; mac?: Uint8Array } = {},
): Uint8Array {
  const v6 = src.includes(':');
  const header = v6 ? 40 : 20;
  const frame = new Uint8Array(14 + header + payload.length);
  const group6 = Uint8Array.of(0x33, 0x33, ...(v6 ? parseIpv6(dst)!.slice(12) : []));
  const mac = more.mac ?? (v6 && parseIpv6(dst)![0] === 255 ? group6 : GATEWAY_MAC);
  writeEthernet(frame, 0, mac, 0, CLIENT_MAC, 0, v6 ? 0x86dd : 0x0800);
  if (v6)
    writeIpv6(frame, 14, payload.length, protocol, more.ttl ?? 64, parseIpv6(src)!, 0, parseIpv6(dst)!, 0);
  else
    writeIpv4(frame, 14, 20 + payload.length, 1, 0, more.ttl ?? 64, protocol, parseIpv4(src), parseIpv4(dst));
  frame.set(payload, 14 + header);
  return frame;
}

export function udp(
  src: string,
  srcPort: number,
  dst: string,
  dstPort: number,
  data: Uint8Array,
  more: { ttl?: number; mac?: Uint8Array } = {},
): Uint8Array {
  const datagram = new Uint8Array(8 + data.length);
  writeUdp(datagram, 0, srcPort, dstPort, datagram.length);
  datagram.set(data, 8);
  const frame = ipFrame(src, dst, 17, datagram, more);
  if (src.includes(':')) setUdpChecksumV6(frame, 54, datagram.length, 14);
  else
    setUdpChecksum(
      frame,
      34,
      datagram.length,
      pseudoSumV4(parseIpv4(src), parseIpv4(dst), 17, datagram.length),
    );
  return frame;
}

export function icmp6(src: string, dst: string, message: Uint8Array, hops = 255): Uint8Array {
  const frame = ipFrame(src, dst, 58, message, { ttl: hops });
  setIcmpv6Checksum(frame, 54, message.length, 14);
  return frame;
}

export function arp(operation: number, senderIp: string, targetIp: string, mac = CLIENT_MAC): Uint8Array {
  const frame = new Uint8Array(42);
  writeEthernet(frame, 0, BROADCAST, 0, mac, 0, 0x0806);
  writeArp(frame, 14, operation, mac, 0, parseIpv4(senderIp), new Uint8Array(6), 0, parseIpv4(targetIp));
  return frame;
}

export interface Segment {
  flags: number;
  seq?: number;
  ack?: number;
  data?: string;
  window?: number;
  options?: (options: TcpOptions) => void;
}

export class ScriptClient {
  readonly text = new FrameText();
  /** What came and was not asked for yet. */
  #frames: Uint8Array[] = [];
  #buffer = Buffer.alloc(0);
  #socket: Socket | null = null;
  #server: Server;
  #markers = 0;
  #answered = 0;
  #wake: () => void = () => {};
  /** Advertisements that nobody asked for come when they come. */
  keepsAdvertisements = false;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Waits at the socket `path` for one network to connect. */
  static listen(path: string): Promise<{ client: ScriptClient; connected: Promise<void> }> {
    return new Promise((resolve) => {
      const server = createServer();
      const client = new ScriptClient(server);
      const connected = new Promise<void>((there) => {
        server.once('connection', (socket) => {
          client.#socket = socket;
          socket.on('data', (chunk: Buffer) => client.#take(chunk));
          socket.on('error', () => {});
          socket.on('close', () => client.#wake());
          there();
        });
      });
      server.listen(path, () => resolve({ client, connected }));
    });
  }

  close(): void {
    this.#socket?.destroy();
    this.#server.close();
  }

  send(...frames: Uint8Array[]): void {
    for (const frame of frames) {
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(frame.length);
      this.#socket!.write(Buffer.concat([prefix, frame]));
    }
  }

  #take(chunk: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, chunk]);
    while (this.#buffer.length >= 4 && this.#buffer.length >= 4 + this.#buffer.readUInt32BE(0)) {
      const length = this.#buffer.readUInt32BE(0);
      this.#input(Uint8Array.from(this.#buffer.subarray(4, 4 + length)));
      this.#buffer = this.#buffer.subarray(4 + length);
    }
    this.#wake();
  }

  #input(frame: Uint8Array): void {
    const type = u16be(frame, 12);
    if (type === 0x0806) {
      const target = u32be(frame, 38);
      if (u16be(frame, 20) === 2 && target === parseIpv4(MARKER_IP)) {
        this.#answered++;
        return;
      }
      if (u16be(frame, 20) === 1 && u32be(frame, 28) !== 0) {
        if (target === parseIpv4(CLIENT)) {
          const reply = arp(2, CLIENT, '10.0.2.2');
          reply.set(frame.subarray(6, 12), 0);
          this.send(reply);
        }
        return;
      }
    } else if (type === 0x86dd && frame[20] === 58) {
      if (frame[54] === 135) {
        this.#advertise(frame);
        return;
      }
      if (frame[54] === 134 && !this.keepsAdvertisements) return;
    }
    this.#frames.push(frame);
  }

  #advertise(solicitation: Uint8Array): void {
    const target = solicitation.subarray(62, 78);
    const src = formatIpv6(solicitation.subarray(22, 38));
    if (target[15] !== 0x56 || src === '::') return;
    const message = new Uint8Array(32);
    writeNeighborAdvertisement(message, 0, NA_SOLICITED | NA_OVERRIDE, target, 0, CLIENT_MAC, 0);
    this.send(icmp6(formatIpv6(target), src, message));
  }

  /**
   * Resolves when all that was sent until now was read, and answered as far as the network itself answers. Twice, for a network may write what a batch
   * of frames led to behind its answers to single ones.
   */
  async #settle(): Promise<void> {
    for (let i = 0; i < 2; i++) {
      const wanted = ++this.#markers;
      this.send(arp(1, MARKER_IP, '10.0.2.2', MARKER_MAC));
      while (this.#answered < wanted) {
        if (this.#socket!.destroyed) throw new Error('the network has gone');
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  /**
   * Sends, and returns what came back, as lines. `want`: what must have come of the host (a line that has it); without it only what the network says
   * at once.
   */
  async ask(frames: readonly Uint8Array[], want: readonly (string | RegExp)[] = []): Promise<string[]> {
    const got = await this.raw(frames, want);
    return got.map((frame) => this.text.line(frame));
  }

  async raw(frames: readonly Uint8Array[], want: readonly (string | RegExp)[] = []): Promise<Uint8Array[]> {
    this.send(...frames);
    const endMs = performance.now() + PATIENCE_MS;
    for (;;) {
      await this.#settle();
      const lines = this.#frames.map((frame) => this.text.line(frame));
      const there = want.every((one) =>
        lines.some((line) => (typeof one === 'string' ? line.includes(one) : one.test(line))),
      );
      if (there || performance.now() > endMs) {
        if (want.length > 0) await this.#settle();
        const out = this.#frames;
        this.#frames = [];
        return out;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
    }
  }

  /** One TCP segment of the client, whose numbers start at 1000. */
  segment(srcPort: number, dst: string, dstPort: number, s: Segment): Uint8Array {
    const v6 = dst.includes(':');
    const src = v6 ? CLIENT6 : CLIENT;
    const options = new TcpOptions();
    s.options?.(options);
    const data = new TextEncoder().encode(s.data ?? '');
    const bytes = new Uint8Array(60 + data.length);
    const optionBytes = writeTcpOptions(bytes, 20, options);
    const header = 20 + optionBytes;
    writeTcp(bytes, 0, srcPort, dstPort, s.seq ?? 1000, s.ack ?? 0, header, s.flags, s.window ?? 32_768);
    bytes.set(data, header);
    const length = header + data.length;
    const frame = ipFrame(src, dst, 6, bytes.subarray(0, length));
    const at = v6 ? 54 : 34;
    setTcpChecksum(
      frame,
      at,
      length,
      v6 ? pseudo6(frame, length) : pseudoSumV4(parseIpv4(src), parseIpv4(dst), 6, length),
    );
    return frame;
  }
}

function pseudo6(frame: Uint8Array, length: number): number {
  let sum = 6 + length;
  for (let at = 22; at < 54; at += 2) sum += u16be(frame, at);
  return sum;
}

/** IPv4 frames for tests that follow connections, and what such a frame says. */

import { putU16be, putU32be, u16be, u32be } from '../../src/wire/bytes.ts';
import { internetChecksum, pseudoSumV4, pseudoSumV6 } from '../../src/wire/checksum.ts';
import { writeIpv4 } from '../../src/wire/ipv4.ts';
import { Ipv6Header } from '../../src/wire/ipv6.ts';
import { setTcpChecksum, TcpHeader, TcpOptions, writeTcp, writeTcpOptions } from '../../src/wire/tcp.ts';

export interface Segment {
  readonly src?: number;
  readonly dst?: number;
  readonly srcPort?: number;
  readonly dstPort?: number;
  readonly seq: number;
  readonly ack?: number;
  readonly flags: number;
  readonly payload?: Uint8Array;
  readonly sack?: readonly (readonly [number, number])[];
}

export const CLIENT = 0x0a000001;
export const SERVER = 0x0a000002;

/** A whole Ethernet frame with right checksums. */
export function tcpFrame(segment: Segment): Uint8Array {
  const { src = CLIENT, dst = SERVER, srcPort = 1024, dstPort = 80, payload = new Uint8Array(0) } = segment;
  const bytes = new Uint8Array(14 + 20 + 60 + payload.length);
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
  const options = new TcpOptions();
  for (const [left, right] of segment.sack ?? []) {
    options.sackLeft[options.sackCount] = left;
    options.sackRight[options.sackCount++] = right;
  }
  const headerBytes = 20 + writeTcpOptions(bytes, 54, options);
  writeTcp(bytes, 34, srcPort, dstPort, segment.seq, segment.ack ?? 0, headerBytes, segment.flags, 0x1000);
  bytes.set(payload, 34 + headerBytes);
  const length = headerBytes + payload.length;
  setTcpChecksum(bytes, 34, length, pseudoSumV4(src, dst, 6, length));
  writeIpv4(bytes, 14, 20 + length, 7, 0, 64, 6, src, dst);
  return bytes.slice(0, 34 + length);
}

/** A frame of the functions here as IPv6: fd00:: and the old address, the transport's checksum reckoned anew, extension headers in between. */
export function asIpv6(frame: Uint8Array, extensions: readonly Uint8Array[] = []): Uint8Array {
  if (u16be(frame, 12) !== 0x0800) return frame;
  const protocol = frame[23]!;
  const transport = frame.slice(34, 14 + u16be(frame, 16));
  const between = extensions.flatMap((one) => [...one]);
  const bytes = new Uint8Array(54 + between.length + transport.length);
  bytes.set(frame.subarray(0, 12));
  bytes.set([0x86, 0xdd, 0x60, 0, 0, 0], 12);
  putU16be(bytes, 18, between.length + transport.length);
  bytes[20] = extensions.length > 0 ? 60 : protocol;
  bytes[21] = 64;
  for (const [at, from] of [
    [22, 26],
    [38, 30],
  ] as const) {
    bytes[at] = 0xfd;
    bytes.set(frame.subarray(from, from + 4), at + 12);
  }
  bytes.set(between, 54);
  const payload = 54 + between.length;
  bytes.set(transport, payload);
  if (protocol === 6) {
    putU16be(bytes, payload + 16, 0);
    setTcpChecksum(bytes, payload, transport.length, pseudoSumV6(bytes, 22, bytes, 38, 6, transport.length));
  }
  return bytes;
}

/** What a TCP frame says; throws when a checksum is wrong. */
export function readTcp(frame: Uint8Array): { seq: number; ack: number; flags: number; sack: number[][] } {
  const tcp = new TcpHeader();
  const options = new TcpOptions();
  const end = 14 + u16be(frame, 16);
  if (!tcp.parse(frame, 34, end)) throw new Error('no TCP header');
  if (!tcp.checksumOk(frame, pseudoSumV4(u32be(frame, 26), u32be(frame, 30), 6, end - 34)))
    throw new Error('bad TCP checksum');
  if (internetChecksum(frame, 14, 20) !== 0) throw new Error('bad IP checksum');
  options.parse(frame, 54, 34 + tcp.headerBytes);
  const sack = Array.from({ length: options.sackCount }, (_, i) => [
    options.sackLeft[i]!,
    options.sackRight[i]!,
  ]);
  return { seq: tcp.seq, ack: tcp.ack, flags: tcp.flags, sack };
}

/** The same of a TCP frame over IPv6. */
export function readTcp6(frame: Uint8Array): ReturnType<typeof readTcp> {
  const ip = new Ipv6Header();
  const tcp = new TcpHeader();
  const options = new TcpOptions();
  if (!ip.parse(frame, 14, frame.length) || !tcp.parse(frame, ip.payload, ip.payloadEnd))
    throw new Error('no TCP header');
  const length = ip.payloadEnd - ip.payload;
  if (!tcp.checksumOk(frame, pseudoSumV6(frame, ip.src, frame, ip.dst, 6, length)))
    throw new Error('bad TCP checksum');
  options.parse(frame, ip.payload + 20, ip.payload + tcp.headerBytes);
  const sack = Array.from({ length: options.sackCount }, (_, i) => [
    options.sackLeft[i]!,
    options.sackRight[i]!,
  ]);
  return { seq: tcp.seq, ack: tcp.ack, flags: tcp.flags, sack };
}

/** A UDP datagram; `id` is the IP header's, which no two guests choose alike. */
export function udpFrame(payload: Uint8Array, id = 1, src = SERVER, dst = CLIENT): Uint8Array {
  const bytes = new Uint8Array(42 + payload.length);
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
  writeIpv4(bytes, 14, 28 + payload.length, id, 0, 64, 17, src, dst);
  putU16be(bytes, 34, 53);
  putU16be(bytes, 36, 4000);
  putU16be(bytes, 38, 8 + payload.length);
  putU32be(bytes, 40, 0);
  bytes.set(payload, 42);
  return bytes;
}

/**
 * UDP (RFC 768) for both families: a socket is a local port and a handler. Checksums are verified unless the device did; a datagram to a
 * port without a socket is answered with "port unreachable".
 */

import type { Random } from '../../../core/clock.ts';
import { u16be } from '../../../wire/bytes.ts';
import { pseudoSumAt } from '../../../wire/checksum.ts';
import { IP_PROTOCOL_UDP } from '../../../wire/ipv4.ts';
import { setUdpChecksum, UDP_HEADER_BYTES, UdpHeader, writeUdp } from '../../../wire/udp.ts';
import type { Interface } from './interface.ts';
import type { IpLayer, IpProblem, Packet, Transport } from './packet.ts';

export interface UdpHandler {
  /** A datagram from `srcPort` of the packet's source. Its bytes are `packet.bytes[packet.payload .. payloadEnd)` behind the UDP header. */
  datagram(packet: Packet, srcPort: number, payload: number, payloadEnd: number): void;
  /** A datagram of ours to `remote` met a problem. */
  problem?(problem: IpProblem, remote: Uint8Array, remotePort: number): void;
}

const EPHEMERAL_FIRST = 49_152;

export class Udp implements Transport {
  readonly #interface: Interface;
  readonly #layerOf: (family: number) => IpLayer;
  readonly #refuse: (packet: Packet) => void;
  readonly #random: Random;
  readonly #sockets = new Map<number, UdpHandler>();
  readonly #header = new UdpHeader();
  // The datagram under way.
  #layer: IpLayer | null = null;
  #at = 0;
  #srcPort = 0;
  #dstPort = 0;

  constructor(
    iface: Interface,
    random: Random,
    layerOf: (family: number) => IpLayer,
    refuse: (packet: Packet) => void,
  ) {
    this.#interface = iface;
    this.#random = random;
    this.#layerOf = layerOf;
    this.#refuse = refuse;
  }

  /** Listens on `port`, or with 0 on a random free port of 49152 and up (RFC 6056). Returns the port, or 0 when it is taken. */
  open(port: number, handler: UdpHandler): number {
    let chosen = port;
    for (let tries = 0; chosen === 0 && tries < 64; tries++) {
      const candidate = EPHEMERAL_FIRST + (this.#random() & 0x3fff);
      if (!this.#sockets.has(candidate)) chosen = candidate;
    }
    if (chosen === 0 || this.#sockets.has(chosen)) return 0;
    this.#sockets.set(chosen, handler);
    return chosen;
  }

  close(port: number): void {
    this.#sockets.delete(port);
  }

  get openSockets(): number {
    return this.#sockets.size;
  }

  /** Starts a datagram; returns where its payload goes in the interface's memory, or -1. `end` sends it. */
  begin(family: number, remote: Uint8Array, remoteOffset: number, srcPort: number, dstPort: number): number {
    const layer = this.#layerOf(family);
    this.#layer = layer;
    this.#at = layer.begin(remote, remoteOffset, IP_PROTOCOL_UDP);
    this.#srcPort = srcPort;
    this.#dstPort = dstPort;
    return this.#at < 0 ? -1 : this.#at + UDP_HEADER_BYTES;
  }

  end(payloadBytes: number): void {
    const layer = this.#layer!;
    const length = UDP_HEADER_BYTES + payloadBytes;
    if (length > layer.payloadMaxBytes) {
      this.#interface.stats.txDropTooLong++;
      return;
    }
    const memory = this.#interface.memory;
    writeUdp(memory, this.#at, this.#srcPort, this.#dstPort, length);
    setUdpChecksum(memory, this.#at, length, layer.pseudoSum(length));
    layer.end(length);
  }

  receive(packet: Packet): void {
    const { bytes } = packet;
    const udp = this.#header;
    const stats = this.#interface.stats;
    if (!udp.parse(bytes, packet.payload, packet.payloadEnd) || udp.srcPort === 0) {
      stats.rxDropMalformed++;
      return;
    }
    const length = udp.payloadEnd - udp.offset;
    if (!packet.checksumValid) {
      const missing = udp.checksum === 0 && packet.family === 6;
      if (missing || !udp.checksumOk(bytes, pseudoSumAt(bytes, packet.ipOffset, IP_PROTOCOL_UDP, length))) {
        stats.rxDropChecksum++;
        return;
      }
    }
    const socket = this.#sockets.get(udp.dstPort);
    if (socket === undefined) {
      stats.rxDropNoPort++;
      this.#refuse(packet);
      return;
    }
    socket.datagram(packet, udp.srcPort, udp.payload, udp.payloadEnd);
  }

  problem(problem: IpProblem, remote: Uint8Array, bytes: Uint8Array, at: number, end: number): void {
    if (at === end) {
      for (const socket of [...this.#sockets.values()]) socket.problem?.(problem, remote, 0);
      return;
    }
    this.#sockets.get(u16be(bytes, at))?.problem?.(problem, remote, u16be(bytes, at + 2));
  }
}

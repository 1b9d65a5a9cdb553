/** Echo (RFC 862) over TCP and UDP: every byte comes back. A datagram from the echo port itself is not answered, or two echoes would never end. */

import { copyMemory } from '../../core/copy.ts';
import { LENGTH, OFFSET, REGION, ROOM } from '../../core/pool.ts';
import type { Connection, TcpUser } from '../../tcp/connection.ts';
import { HEADER_ROOM } from '../../tcp/stack.ts';
import { payloadFrame, payloadPlace, sendPayload, waitForBuffers } from './http/frames.ts';
import type { IpHost } from './net/host.ts';
import type { Packet } from './net/packet.ts';
import type { UdpHandler } from './net/udp.ts';

/** TCP connections open at once; more are refused. */
const CONNECTIONS_MAX = 1024;

export class EchoStats {
  tcpConnections = 0;
  tcpRefused = 0;
  tcpBytes = 0;
  udpDatagrams = 0;
  udpDropLoop = 0;
}

export class EchoServer implements UdpHandler, TcpUser {
  readonly stats = new EchoStats();
  readonly #host: IpHost;
  readonly #port: number;
  readonly #open = new Set<Connection>();

  constructor(host: IpHost, port: number) {
    this.#host = host;
    this.#port = port;
  }

  /** False: the port is taken. */
  listen(): boolean {
    const tcp = this.#host.tcp.listen(this.#port, (connection) => {
      if (this.#open.size >= CONNECTIONS_MAX) {
        this.stats.tcpRefused++;
        return null;
      }
      this.#open.add(connection);
      return this;
    });
    return tcp && this.#host.udp.open(this.#port, this) !== 0;
  }

  close(): void {
    this.#host.udp.close(this.#port);
    for (const connection of [...this.#open]) connection.abort();
    this.#open.clear();
  }

  datagram(packet: Packet, srcPort: number, payload: number, payloadEnd: number): void {
    if (srcPort === this.#port || packet.toGroup) {
      this.stats.udpDropLoop++;
      return;
    }
    const at = this.#host.udp.begin(packet.family, packet.bytes, packet.src, this.#port, srcPort);
    if (at < 0) return;
    copyMemory(packet.memory, payload, this.#host.link.pool.memories[0], at, payloadEnd - payload);
    this.#host.udp.end(payloadEnd - payload);
    this.stats.udpDatagrams++;
  }

  established(): void {
    this.stats.tcpConnections++;
  }

  deliver(connection: Connection, frames: Int32Array, from: number, to: number, skip: number): number {
    const { pool } = connection.stack;
    const t = pool.table;
    let done = 0;
    for (let i = from; i < to; i++) {
      // Received segments lie in one buffer each.
      let at = t[frames[i] + OFFSET] + skip;
      let left = t[frames[i] + LENGTH] - skip;
      if (t[frames[i] + REGION] !== 0) return done;
      skip = 0;
      while (left > 0) {
        const room = Math.min(left, connection.sendRoom(), connection.unitBytes);
        const frame = room > 0 ? payloadFrame(connection, room) : 0;
        if (frame === 0) {
          // `sendReady` follows when the window opens or a buffer is free.
          if (room > 0) waitForBuffers(connection);
          return done;
        }
        const part = Math.min(room, t[frame + ROOM] - HEADER_ROOM);
        copyMemory(pool.memories[0], at, pool.memories[0], payloadPlace(pool, frame), part);
        sendPayload(connection, frame, part);
        this.stats.tcpBytes += part;
        at += part;
        left -= part;
        done += part;
      }
    }
    return done;
  }

  sendReady(connection: Connection): void {
    connection.sinkReady();
  }

  peerClosed(connection: Connection): void {
    connection.close();
  }

  closed(connection: Connection): void {
    this.#open.delete(connection);
  }
}

/**
 * TCP for the probe: the engine of src/tcp on the guest's packet buffers.
 *
 * Out, nothing is copied: the engine's segments lie in guest RAM and are sent from there, cut and summed by the NIC where it can. In, a segment
 * is copied once, from the driver's receive buffer, which goes back to the NIC, to a packet buffer of the guest.
 *
 * The engine writes whole frames, so a connection is opened when the next hop's MAC is known; until then it waits here. Problems that the
 * engine cannot see (no route, nobody answers ARP, an ICMP error about a SYN) end an opening as what they are.
 */

import type { Random } from '../../../core/clock.ts';
import { copyMemory } from '../../../core/copy.ts';
import { FACT_CSUM_VALID, FACTS, OFFSET } from '../../../core/pool.ts';
import type { Connection, TcpUser } from '../../../tcp/connection.ts';
import { linkHeaderV4, linkHeaderV6, remoteAddress } from '../../../tcp/link-header.ts';
import { type TcpLower, TcpStack } from '../../../tcp/stack.ts';
import { SYN_SENT } from '../../../tcp/states.ts';
import { u16be, u32be } from '../../../wire/bytes.ts';
import { ETH_HEADER_BYTES } from '../../../wire/ethernet.ts';
import { type IpAddress, sameAddress } from './address.ts';
import type { Interface } from './interface.ts';
import type { Neighbour } from './neighbours.ts';
import type { IpLayer, IpProblem, Packet, Transport } from './packet.ts';

/** Offered to each peer; 200 connections share the packet buffers. */
const RECEIVE_WINDOW_BYTES = 256 << 10;

/** Why a connection could not be opened, beside what the engine tells (CloseReason). */
export type OpenFailure = 'no-route' | 'unreachable' | 'prohibited' | 'refused' | 'no-port';

export interface TcpClient extends TcpUser {
  /** The opening failed before the engine had an answer; no other call follows. */
  failed(reason: OpenFailure): void;
}

/** An opening or open connection, for who opened it. */
export class TcpHandle {
  connection: Connection | null = null;
  /** Waits for the MAC of `hop`. */
  waiting = false;
  hop: IpAddress | null = null;
  readonly remote: IpAddress;
  readonly port: number;
  readonly client: TcpClient;

  constructor(remote: IpAddress, port: number, client: TcpClient) {
    this.remote = remote;
    this.port = port;
    this.client = client;
  }
}

/** A SYN arrived for a port that is listened on: the connection's user, or null to refuse it. */
export type Acceptor = (connection: Connection) => TcpUser | null;

export class ProbeTcp implements Transport, TcpLower {
  readonly stack: TcpStack;
  readonly #interface: Interface;
  readonly #layerOf: (family: number) => IpLayer;
  readonly #listeners = new Map<number, Acceptor>();
  readonly #handles: TcpHandle[] = [];

  constructor(iface: Interface, random: Random, layerOf: (family: number) => IpLayer) {
    this.#interface = iface;
    this.#layerOf = layerOf;
    const { pool } = iface.link;
    this.stack = new TcpStack({
      pool,
      loop: iface.loop,
      random,
      lower: this,
      mac: iface.mac,
      settings: { receiveWindowBytes: RECEIVE_WINDOW_BYTES },
      incoming: (connection) => this.#incoming(connection),
    });
  }

  // Users.

  /** Opens a connection; `client` is told the end in any case, later. */
  open(remote: IpAddress, port: number, client: TcpClient): TcpHandle {
    const handle = new TcpHandle(remote, port, client);
    this.#handles.push(handle);
    handle.waiting = true;
    this.#interface.loop.post(() => this.#tryOpen(handle));
    return handle;
  }

  /** Ends a connection, open or opening, with a reset where the peer knows of it; its client hears nothing more. */
  abort(handle: TcpHandle): void {
    this.#forget(handle);
    handle.waiting = false;
    handle.connection?.abort();
  }

  #forget(handle: TcpHandle): void {
    const at = this.#handles.indexOf(handle);
    if (at < 0) return;
    this.#handles[at] = this.#handles[this.#handles.length - 1];
    this.#handles.pop();
  }

  #fail(handle: TcpHandle, reason: OpenFailure): void {
    this.#forget(handle);
    handle.waiting = false;
    handle.client.failed(reason);
  }

  #tryOpen(handle: TcpHandle): void {
    if (!handle.waiting) return;
    const layer = this.#layerOf(handle.remote.length === 4 ? 4 : 6);
    const source = layer.sourceFor(handle.remote);
    const hop = source === null ? null : layer.hop(handle.remote);
    if (source === null || hop === null) {
      this.#fail(handle, 'no-route');
      return;
    }
    handle.hop = hop.address;
    // `resolved` or `problem` comes back to it.
    if (!hop.known) return;
    handle.waiting = false;
    const { mac } = this.#interface;
    const link =
      handle.remote.length === 4
        ? linkHeaderV4(hop.mac, mac, u32be(source, 0), u32be(handle.remote, 0))
        : linkHeaderV6(hop.mac, mac, source, handle.remote);
    const connection = this.stack.connect(handle.client, link, 0, handle.port);
    if (connection === null) {
      this.#fail(handle, 'no-port');
      return;
    }
    handle.connection = connection;
  }

  /** A neighbour's MAC is known: openings that wait may go on. */
  resolved(entry: Neighbour): void {
    for (const handle of this.#handles.slice()) {
      if (handle.waiting && handle.hop !== null && sameAddress(handle.hop, entry.address))
        this.#tryOpen(handle);
    }
  }

  /** Listens on a port for as long as the host lives. False: somebody does already. */
  listen(port: number, acceptor: Acceptor): boolean {
    if (this.#listeners.has(port)) return false;
    this.#listeners.set(port, acceptor);
    return true;
  }

  #incoming(connection: Connection): void {
    const acceptor = this.#listeners.get(connection.localPort);
    if (acceptor === undefined) this.#interface.stats.rxDropNoPort++;
    const user = acceptor?.(connection) ?? null;
    // Without a user the engine refuses.
    if (user === null) return;
    connection.user = user;
    connection.accept();
  }

  // The engine's way down.

  get accepts(): number {
    return this.#interface.link.offloads;
  }

  room(): number {
    return this.#interface.link.up ? this.#interface.link.room : 1;
  }

  transmit(frame: number): void {
    const iface = this.#interface;
    const { stats, link } = iface;
    if (!link.up) {
      stats.txDropLinkDown++;
      link.pool.release(frame);
      return;
    }
    const bytes = link.sendFrame(frame);
    if (bytes === 0) {
      stats.txDropNoRoom++;
      return;
    }
    stats.txFrames++;
    stats.txBytes += bytes;
    iface.dirty();
  }

  outputReady(): void {
    this.stack.outputReady();
  }

  // From below.

  receive(packet: Packet): void {
    const { pool } = this.#interface.link;
    const stats = this.#interface.stats;
    if (packet.toGroup) {
      stats.rxDropNotForUs++;
      return;
    }
    const start = packet.ipOffset - ETH_HEADER_BYTES;
    const length = packet.payloadEnd - start;
    const frame = pool.alloc(length);
    if (frame === 0) {
      stats.rxDropNoBuffer++;
      return;
    }
    const at = pool.table[frame + OFFSET]!;
    copyMemory(packet.memory, start, pool.memories[0], at, length);
    pool.setLength(frame, length);
    if (packet.checksumValid) pool.table[frame + FACTS] = FACT_CSUM_VALID;
    const tcp = at + packet.payload - start;
    this.stack.input(frame, packet.family, at + ETH_HEADER_BYTES, tcp, packet.payloadEnd - packet.payload);
  }

  endOfBatch(): void {
    this.stack.flush();
  }

  problem(problem: IpProblem, remote: Uint8Array, bytes: Uint8Array, at: number, end: number): void {
    if (problem === 'too-big') return;
    const reason: OpenFailure = problem === 'refused' || problem === 'prohibited' ? problem : 'unreachable';
    const quoted = at < end;
    for (const handle of this.#handles.slice()) {
      const c = handle.connection;
      if (handle.waiting) {
        if (!quoted && handle.hop !== null && sameAddress(handle.hop, remote)) this.#fail(handle, reason);
        continue;
      }
      if (c === null || !quoted || c.state !== SYN_SENT || !sameAddress(remoteAddress(c.link), remote))
        continue;
      // An established connection outlives such news (RFC 1122 section 4.2.3.9).
      if (c.localPort !== u16be(bytes, at) || c.remotePort !== u16be(bytes, at + 2)) continue;
      c.user = null;
      c.remove();
      this.#fail(handle, reason);
    }
  }

  /** The client of a connection heard its end: the handle is not needed any longer. */
  done(handle: TcpHandle): void {
    this.#forget(handle);
  }

  close(): void {
    this.#handles.length = 0;
    this.#listeners.clear();
    this.stack.close();
  }
}

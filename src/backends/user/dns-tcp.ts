/**
 * The network's name server over TCP (RFC 7766): the guest's connection ends here, message by message (two bytes of length, then the message),
 * so that own names are answered, the next resolver can be asked, and answers can teach the egress rules.
 *
 *     guest ─▶ whole queries ─▶ own name? ─▶ answer
 *                            └▶ `outgoing` ─▶ one connection to the resolver, opened by the first query and again after it was closed
 *     guest ◀─ `answers` ◀───── whole messages ◀┘
 *
 * Of a query, nothing but its length and, where there are own names, its one question is looked at. What waits is bounded: a guest that does
 * not read stops the reading of the resolver's socket, a resolver that does not read closes the guest's window. A resolver that cannot be
 * reached is followed by the next; when none is left, or one goes away with queries unanswered, the guest's connection is reset.
 */

import { HostIoError } from '../../core/errors.ts';
import type { Timer } from '../../core/loop.ts';
import { TOTAL } from '../../core/pool.ts';
import { ERRNO, FAILED, type Handle, HUNG_UP, READABLE, WRITABLE } from '../../host-io/host-io.ts';
import type { CloseReason, Connection, TcpUser } from '../../tcp/connection.ts';
import { localAddress, remoteAddress } from '../../tcp/link-header.ts';
import { STATE_NAMES } from '../../tcp/states.ts';
import { putU16be, u16be } from '../../wire/bytes.ts';
import { DNS_PORT } from '../../wire/dns.ts';
import type { EgressNames } from './egress-names.ts';
import type { OwnNames } from './own-names.ts';
import type { Resolvers } from './resolvers.ts';
import type { Site } from './site.ts';
import { addressText, type FlowInfo } from './tcp-nat.ts';

const CONNECTIONS_MAX = 256;
const IDLE_NS = 30e9;
/** A resolver that does not take the connection for so long is passed over. */
const CONNECT_NS = 3e9;
/** Bytes that wait in either direction before no more is taken: any message fits behind. */
const WAITING_BYTES = 4096;
const READ_BYTES = 16_384;

/** Bytes in, whole messages out. */
class MessageReader {
  #bytes = new Uint8Array(512);
  #length = 0;

  /** Bytes of a message that is not whole. */
  get pending(): number {
    return this.#length;
  }

  /** Room for `more` bytes at the end; the caller fills them and calls `added`. */
  room(more: number): Uint8Array {
    if (this.#length + more > this.#bytes.length) {
      const wider = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length + more));
      wider.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = wider;
    }
    return this.#bytes.subarray(this.#length, this.#length + more);
  }

  added(count: number): void {
    this.#length += count;
  }

  /** The next whole message with its two bytes of length, a copy; null: there is none yet. */
  next(): Uint8Array | null {
    if (this.#length < 2) return null;
    const bytes = 2 + u16be(this.#bytes, 0);
    if (this.#length < bytes) return null;
    const message = this.#bytes.slice(0, bytes);
    this.#bytes.copyWithin(0, bytes, this.#length);
    this.#length -= bytes;
    return message;
  }

  clear(): void {
    this.#length = 0;
  }
}

/** Messages on their way out, the first partly gone. */
class MessageWriter {
  readonly #messages: Uint8Array[] = [];
  #sent = 0;
  bytes = 0;

  push(message: Uint8Array): void {
    this.#messages.push(message);
    this.bytes += message.length;
  }

  /** Offers what waits to `send`, which returns how many it took of bytes[from..); ends when it takes less. A negative number is returned. */
  flush(send: (bytes: Uint8Array, from: number) => number): number {
    for (let first = this.#messages[0]; first !== undefined; first = this.#messages[0]) {
      const taken = send(first, this.#sent);
      if (taken < 0) return taken;
      this.#sent += taken;
      this.bytes -= taken;
      if (this.#sent < first.length) return 0;
      this.#messages.shift();
      this.#sent = 0;
    }
    return 0;
  }

  /** The first message starts again, on a new connection. */
  rewind(): void {
    this.bytes += this.#sent;
    this.#sent = 0;
  }
}

/** One connection of the guest. */
class DnsConnection implements TcpUser {
  readonly connection: Connection;
  lastNs: number;
  fromGuestBytes = 0;
  toGuestBytes = 0;
  readonly #server: DnsTcp;
  readonly #queries = new MessageReader();
  readonly #replies = new MessageReader();
  readonly #outgoing = new MessageWriter();
  readonly #answers = new MessageWriter();
  readonly #tried: string[] = [];
  #resolver = '';
  #handle: Handle = 0;
  #connected = false;
  #interest = 0;
  /** Queries the resolver was given, or will be, less its messages. */
  #unanswered = 0;
  #guestEnded = false;
  /** The engine waits for `sinkReady`. */
  #blocked = false;
  #ended = false;
  readonly #connectTimer: Timer;

  constructor(server: DnsTcp, connection: Connection) {
    this.#server = server;
    this.connection = connection;
    this.lastNs = server.site.loop.clock.nowNs();
    this.#connectTimer = server.site.loop.timer(() => this.#connectFailed());
  }

  // The engine's side.

  established(): void {}

  deliver(_c: Connection, frames: Int32Array, from: number, to: number, skip: number): number {
    const { pool } = this.#server.site;
    let taken = 0;
    for (let i = from; i < to && !this.#ended; i++, skip = 0) {
      if (this.#full) {
        this.#flush();
        this.#blocked = this.#full;
        if (this.#blocked) return taken;
      }
      const bytes = pool.table[frames[i] + TOTAL] - skip;
      pool.read(frames[i], skip, this.#queries.room(bytes), 0, bytes);
      this.#queries.added(bytes);
      taken += bytes;
      this.fromGuestBytes += bytes;
      this.#used();
      for (let query = this.#queries.next(); query !== null; query = this.#queries.next()) this.#ask(query);
    }
    this.#flush();
    return taken;
  }

  /** Enough waits in one direction or the other. */
  get #full(): boolean {
    return this.#outgoing.bytes > WAITING_BYTES || this.#answers.bytes > WAITING_BYTES;
  }

  sendReady(): void {
    this.#flush();
  }

  peerClosed(): void {
    this.#guestEnded = true;
    this.#finish();
  }

  closed(_c: Connection, _reason: CloseReason): void {
    this.#end();
  }

  // Queries.

  #ask(query: Uint8Array): void {
    const { names, site } = this.#server;
    const own = names.active ? names.reply(query, 2, query.length) : null;
    if (own !== null) {
      const message = new Uint8Array(2 + own.length);
      putU16be(message, 0, own.length);
      message.set(own, 2);
      this.#answers.push(message);
      return;
    }
    site.stats.dnsQueries++;
    this.#outgoing.push(query);
    this.#unanswered++;
    if (this.#handle === 0 && !this.#ended) {
      this.#tried.length = 0;
      this.#open();
    }
  }

  #open(): void {
    const { site, resolvers } = this.#server;
    const resolver = resolvers.next(this.#tried);
    if (resolver === undefined || site.config.restrict) {
      site.stats.dnsDropNoResolver++;
      this.abort();
      return;
    }
    this.#tried.push(resolver);
    this.#resolver = resolver;
    this.#connected = false;
    try {
      const remote = { address: resolver, port: DNS_PORT };
      this.#handle = site.descriptors.open(() => site.hostIo.tcpConnect(remote, { noDelay: true }));
    } catch (error) {
      if (!(error instanceof HostIoError)) throw error;
      site.stats.tcpDropNoDescriptor++;
      this.abort();
      return;
    }
    this.#interest = WRITABLE;
    site.hostIo.watch(this.#handle, WRITABLE, (ready) => this.#ready(ready));
    this.#connectTimer.armIn(CONNECT_NS);
  }

  #connectFailed(): void {
    const { resolvers, site } = this.#server;
    resolvers.failed(this.#resolver);
    if (resolvers.several) site.stats.dnsFailovers++;
    this.#drop();
    this.#outgoing.rewind();
    this.#open();
  }

  #drop(): void {
    this.#connectTimer.cancel();
    if (this.#handle !== 0) this.#server.site.hostIo.close(this.#handle);
    this.#handle = 0;
    this.#connected = false;
    this.#replies.clear();
  }

  // The resolver's side.

  #ready(ready: number): void {
    const { site, resolvers } = this.#server;
    if (this.#handle === 0) return;
    const errno = (ready & FAILED) !== 0 || !this.#connected ? site.hostIo.takeError(this.#handle) : 0;
    if (!this.#connected) {
      if (errno !== 0) {
        this.#connectFailed();
        return;
      }
      if ((ready & WRITABLE) === 0) return;
      this.#connected = true;
      this.#connectTimer.cancel();
      resolvers.answered(this.#resolver);
    } else if (errno !== 0) {
      this.#resolverGone();
      return;
    }
    if ((ready & (READABLE | HUNG_UP)) !== 0) this.#receive();
    this.#flush();
  }

  #receive(): void {
    const { site, egressNames } = this.#server;
    if (this.#answers.bytes > WAITING_BYTES) return;
    const room = this.#replies.room(READ_BYTES);
    const got = site.hostIo.receiveBytes(this.#handle, room, 0, room.length);
    if (got === -ERRNO.EAGAIN || got === -ERRNO.EINTR) return;
    if (got <= 0) {
      this.#resolverGone();
      return;
    }
    this.#replies.added(got);
    this.#used();
    const nowNs = site.loop.clock.nowNs();
    for (let reply = this.#replies.next(); reply !== null; reply = this.#replies.next()) {
      egressNames.learn(reply, 2, reply.length, nowNs);
      this.#unanswered = Math.max(0, this.#unanswered - 1);
      this.#answers.push(reply);
    }
  }

  /** It closed: nothing is lost if it owed nothing, and the next query opens a new connection. */
  #resolverGone(): void {
    const owed = this.#unanswered > 0 || this.#replies.pending > 0;
    this.#drop();
    if (owed) this.abort();
    else this.#finish();
  }

  // Both.

  /** Sends what can be sent, and asks for what is to be known. */
  #flush(): void {
    if (this.#ended) return;
    const { hostIo } = this.#server.site;
    const c = this.connection;
    const before = this.#answers.bytes;
    this.#answers.flush((bytes, from) => c.write(bytes, from, bytes.length));
    this.toGuestBytes += before - this.#answers.bytes;
    if (this.#connected) {
      const sent = this.#outgoing.flush((bytes, from) =>
        hostIo.sendBytes(this.#handle, bytes, from, bytes.length),
      );
      if (sent < 0 && sent !== -ERRNO.EAGAIN && sent !== -ERRNO.EINTR && sent !== -ERRNO.ENOBUFS) {
        this.#resolverGone();
        return;
      }
    }
    if (this.#handle !== 0) {
      const readable = this.#connected && this.#answers.bytes <= WAITING_BYTES ? READABLE : 0;
      const interest = readable | (!this.#connected || this.#outgoing.bytes > 0 ? WRITABLE : 0);
      if (interest !== this.#interest) hostIo.setInterest(this.#handle, interest);
      this.#interest = interest;
    }
    if (this.#blocked && !this.#full) {
      this.#blocked = false;
      c.sinkReady();
    }
    this.#finish();
  }

  /** A guest that asks no more is done when it has all answers. */
  #finish(): void {
    if (this.#guestEnded && this.#unanswered === 0 && this.#answers.bytes === 0) this.connection.close();
  }

  #used(): void {
    this.lastNs = this.#server.site.loop.clock.nowNs();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#drop();
    this.#server.ended(this);
  }

  abort(): void {
    const ended = this.#ended;
    this.#end();
    if (!ended) this.connection.abort();
  }
}

export class DnsTcp {
  readonly site: Site;
  readonly names: OwnNames;
  readonly resolvers: Resolvers;
  readonly egressNames: EgressNames;
  readonly #connections = new Set<DnsConnection>();
  readonly #timer: Timer;

  constructor(site: Site, names: OwnNames) {
    this.site = site;
    this.names = names;
    this.resolvers = site.resolvers;
    this.egressNames = site.egressNames;
    this.#timer = site.loop.timer(() => this.#expire());
  }

  get flows(): number {
    return this.#connections.size;
  }

  /** Takes a held connection of the guest to the name server's port. Not taken (no server, too many): it is reset by the engine. */
  open(c: Connection): void {
    const { config, stats } = this.site;
    const serves = config.hosts.length > 0 || (!config.restrict && this.resolvers.next() !== undefined);
    if (!serves) return;
    if (this.#connections.size >= CONNECTIONS_MAX) {
      stats.tcpDropFlowLimit++;
      return;
    }
    const connection = new DnsConnection(this, c);
    c.user = connection;
    this.#connections.add(connection);
    stats.tcpFlowsOpened++;
    if (!this.#timer.armed) this.#timer.armIn(IDLE_NS);
    c.accept();
  }

  ended(connection: DnsConnection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#timer.cancel();
  }

  #expire(): void {
    const nowNs = this.site.loop.clock.nowNs();
    let nextNs = Number.POSITIVE_INFINITY;
    for (const connection of [...this.#connections]) {
      const untilNs = connection.lastNs + IDLE_NS;
      if (untilNs <= nowNs) connection.abort();
      else nextNs = Math.min(nextNs, untilNs);
    }
    if (this.#connections.size > 0) this.#timer.arm(nextNs);
  }

  list(): FlowInfo[] {
    return [...this.#connections].map(({ connection: c, fromGuestBytes, toGuestBytes }) => ({
      protocol: 'tcp' as const,
      state: STATE_NAMES[c.state],
      guest: addressText(remoteAddress(c.link)),
      guestPort: c.remotePort,
      remote: addressText(localAddress(c.link)),
      remotePort: c.localPort,
      fromGuestBytes,
      toGuestBytes,
      kind: 'dns',
    }));
  }

  close(): void {
    this.#timer.cancel();
    for (const connection of [...this.#connections]) connection.abort();
  }
}

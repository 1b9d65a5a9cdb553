/**
 * A TCP or unix listener over net.Server. Node accepts at once, so connections wait here, paused, at most QUEUE of them; the rest is closed
 * and counted. When the process has no descriptors left, libuv closes waiting connections itself.
 *
 * `net.Server.listen` with an address reports failure and the chosen port in a later turn, but opening calls of host I/O answer at once. So
 * the socket is bound first, by the same function that Node's cluster uses for it.
 */

import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import * as net from 'node:net';
import { UnsupportedError } from '../../core/errors.ts';
import { errnoName, hostIoError } from '../errno.ts';
import type { Endpoint } from '../host-io.ts';
import { AGAIN, Entry, type EntryOwner } from './entry.ts';

const QUEUE = 128;
const IPV6_ONLY = 1;

interface BoundHandle {
  getsockname?(out: object): number;
  close(): void;
}

type CreateServerHandle = (
  address: string,
  port: number,
  addressType: number,
  fd: number,
  flags: number,
) => BoundHandle | number;

export class ListenerEntry extends Entry {
  readonly #server: net.Server;
  readonly #path: string | null;
  readonly #waiting: net.Socket[] = [];
  readonly #inode: number;
  /** Connections closed because too many were waiting. */
  dropQueueFull = 0;

  private constructor(owner: EntryOwner, server: net.Server, path: string | null) {
    super(owner);
    this.#server = server;
    this.#path = path;
    this.#inode = path === null ? 0 : lstatSync(path).ino;
    server.on('connection', (socket) => {
      if (this.closed || this.#waiting.length >= QUEUE) {
        this.dropQueueFull++;
        socket.destroy();
        return;
      }
      // A socket that resets while it waits must not raise an uncaught error.
      socket.on('error', () => {});
      this.#waiting.push(socket);
      owner.changed(this);
    });
    server.unref();
  }

  static tcp(owner: EntryOwner, local: Endpoint, backlog: number, v6Only: boolean): ListenerEntry {
    const family = net.isIP(local.address);
    const what = `listen on ${local.address}:${local.port}`;
    if (family === 0) throw hostIoError('listen', -22, what);
    const bound = bind(local.address, local.port, family, family === 6 && v6Only ? IPV6_ONLY : 0, what);
    // libuv keeps some errors of bind for later; asking for the name tells them.
    const delayed = bound.getsockname?.({}) ?? 0;
    if (delayed < 0) {
      bound.close();
      throw hostIoError('bind', delayed, what);
    }
    return ListenerEntry.#listen(owner, bound, backlog, null);
  }

  static unix(owner: EntryOwner, path: string, backlog: number): ListenerEntry {
    const bound = bind(path, -1, -1, 0, `listen on ${path}`);
    chmodSync(path, 0o600);
    return ListenerEntry.#listen(owner, bound, backlog, path);
  }

  static #listen(owner: EntryOwner, bound: BoundHandle, backlog: number, path: string | null): ListenerEntry {
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
    const entry = new ListenerEntry(owner, server, path);
    server.on('error', (error: NodeJS.ErrnoException) => entry.fail(-(error.errno ?? -5)));
    server.listen(bound, backlog);
    server.unref();
    return entry;
  }

  get readable(): boolean {
    return this.#waiting.length > 0;
  }

  get writable(): boolean {
    return false;
  }

  get pendingBytes(): number {
    return -22;
  }

  get local(): Endpoint | null {
    if (this.#path !== null) return { address: this.#path, port: 0 };
    const address = this.#server.address();
    return address === null || typeof address === 'string'
      ? null
      : { address: address.address, port: address.port };
  }

  get remote(): Endpoint | null {
    return null;
  }

  /** The next waiting connection, or a negative errno. */
  accept(): net.Socket | number {
    for (;;) {
      const socket = this.#waiting.shift();
      if (socket === undefined) return this.error !== 0 ? -this.takeError() : AGAIN;
      if (socket.destroyed) continue;
      socket.removeAllListeners('error');
      return socket;
    }
  }

  /** The path of a unix listener, which its connections are told as their far end's. */
  get path(): string | null {
    return this.#path;
  }

  keepAlive(yes: boolean): void {
    if (yes) this.#server.ref();
    else this.#server.unref();
  }

  close(): void {
    this.closed = true;
    for (const socket of this.#waiting) socket.destroy();
    this.#waiting.length = 0;
    if (this.#path !== null && lstatSync(this.#path, { throwIfNoEntry: false })?.ino === this.#inode)
      unlinkSync(this.#path);
    this.#server.close();
  }
}

function bind(address: string, port: number, family: number, flags: number, what: string): BoundHandle {
  const create = (net as unknown as { _createServerHandle?: CreateServerHandle })._createServerHandle;
  if (create === undefined)
    throw new UnsupportedError(`${what}: this Node cannot bind at once; the native addon can`);
  const bound = create(address, port, family, -1, flags);
  if (typeof bound !== 'number') return bound;
  // libuv reports a socket file in a missing folder as EACCES.
  throw hostIoError('bind', bound, `${what} (${errnoName(bound)})`);
}

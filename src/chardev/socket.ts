/**
 * `socket`: a unix or TCP socket, as server or client.
 *
 *     server   listens from the start; a connection is accepted while the user has a place for one more channel, else it waits in the
 *              kernel, or, for a user with many places, is closed and counted
 *     client   connects from the start; with reconnect-ms again and again until it is connected, and anew when the connection is lost
 *
 * A connection that comes before there is a user is kept for it, with nothing read: so `wait=on` can hold up the start for a client that
 * nobody serves yet. Unix sockets are made with mode 0600 and taken away again; descriptors passed beside bytes are kept for the user.
 */

import type { ChardevConfig, SocketChardev as SocketOptions } from '../config/chardevs.ts';
import type { InetAddress } from '../config/socket-address.ts';
import { HostIoError, OptionError, UnsupportedError } from '../core/errors.ts';
import type { Timer } from '../core/loop.ts';
import { errnoName, errnoOf, errnoText } from '../host-io/errno.ts';
import { ERRNO, FAILED, type Handle, type HostIo, READABLE, WRITABLE } from '../host-io/host-io.ts';
import { BaseChardev } from './base.ts';
import type { ChardevContext, ChardevUser } from './chardev.ts';
import { HandleChannel } from './handle-channel.ts';

type SocketConfig = ChardevConfig & SocketOptions;

const MAX_ACCEPTS_PER_TURN = 16;

export class SocketChardev extends BaseChardev {
  readonly #socket: SocketConfig;
  readonly #context: ChardevContext;
  readonly #io: HostIo;
  readonly #reconnect: Timer;
  readonly #channels = new Set<HandleChannel>();
  /** Connected before there was a user. */
  #early: HandleChannel | null = null;
  #listener: Handle = -1;
  #connecting: Handle = -1;
  /** Where a client connects to, or a server listens, once it is resolved. */
  #place = '';
  #address = '';
  #closed = false;
  #onFirst: (() => void) | null = null;
  #settleConnect: ((error: Error | null) => void) | null = null;

  private constructor(config: SocketConfig, context: ChardevContext, io: HostIo) {
    super(config);
    this.#socket = config;
    this.#context = context;
    this.#io = io;
    this.#reconnect = context.loop.timer(() => this.#connect());
  }

  /** Listens, or connects; a client that does not reconnect must succeed now. Rejects with HostIoError, OptionError or UnsupportedError. */
  static async open(config: SocketConfig, context: ChardevContext): Promise<SocketChardev> {
    const { hostIo } = context;
    if (hostIo === null)
      throw new UnsupportedError("chardev type 'socket' needs host I/O, which is not here");
    const chardev = new SocketChardev(config, context, hostIo);
    try {
      await chardev.#start();
    } catch (error) {
      chardev.close();
      throw error;
    }
    return chardev;
  }

  async #start(): Promise<void> {
    const { address, server } = this.#socket;
    if (address.type === 'inet') this.#address = await this.#resolve(address);
    if (this.#closed) throw new OptionError(`chardev '${this.id}' was removed`);
    if (server) {
      this.#listen();
      return;
    }
    if (address.type === 'fd') {
      this.#place = `fd:${this.#takeFd()}`;
      return;
    }
    this.#place =
      address.type === 'unix' ? `unix:${address.path}` : `tcp:${show(this.#address, address.port)}`;
    if (this.#socket.reconnectMs > 0) {
      this.#connect();
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#settleConnect = (error) => (error === null ? resolve() : reject(error));
      this.#connect();
    });
  }

  async #resolve({ host, family }: InetAddress): Promise<string> {
    if (host.family !== 0) return host.text;
    if (host.text === 'localhost') return family === 6 ? '::1' : '127.0.0.1';
    const resolve = this.#context.resolveHost;
    if (resolve === undefined) throw new OptionError(`can't resolve host address '${host.text}'`);
    return await resolve(host.text, family);
  }

  #takeFd(): string {
    const { address } = this.#socket;
    if (address.type !== 'fd') return '';
    const { fd } = address;
    let handle: Handle | undefined;
    if ('number' in fd) {
      try {
        handle = this.#io.adopt(fd.number);
      } catch (error) {
        if (!(error instanceof HostIoError)) throw error;
        throw new OptionError(`Invalid file descriptor number '${fd.number}'`);
      }
    } else {
      handle = this.#context.fds.take(fd.name);
      if (handle === undefined)
        throw new OptionError(`File descriptor named '${fd.name}' has not been found`);
    }
    if (this.#socket.server) this.#listener = handle;
    else this.#arrived(handle);
    return 'number' in fd ? String(fd.number) : fd.name;
  }

  // Server.

  #listen(): void {
    const { address } = this.#socket;
    if (address.type === 'unix') {
      this.#place = `unix:${address.path}`;
      try {
        this.#listener = this.#io.unixListen(address.path);
      } catch (error) {
        throw plain(error, (text) => `Failed to bind socket to ${address.path}: ${text}`);
      }
    } else if (address.type === 'fd') {
      this.#place = `fd:${this.#takeFd()}`;
    } else {
      this.#listenInet(address);
    }
    this.#io.watch(this.#listener, READABLE, () => this.#accept());
  }

  #listenInet({ port, lastPort }: InetAddress): void {
    for (let attempt = port; ; attempt++) {
      try {
        this.#listener = this.#io.tcpListen({ address: this.#address, port: attempt });
        break;
      } catch (error) {
        const inUse = error instanceof HostIoError && error.code === 'EADDRINUSE';
        if (inUse && attempt < lastPort) continue;
        throw plain(error, (text) =>
          inUse ? `Failed to find an available port: ${text}` : `Failed to bind socket: ${text}`,
        );
      }
    }
    this.#place = `tcp:${show(this.#address, this.#io.localEndpoint(this.#listener).port)}`;
  }

  /** The port a TCP server listens on; 0 for anything else. */
  get port(): number {
    if (this.#socket.address.type !== 'inet' || this.#listener === -1) return 0;
    return this.#io.localEndpoint(this.#listener).port;
  }

  get #maxChannels(): number {
    return this.user?.maxChannels ?? 1;
  }

  #accept(): void {
    for (let n = 0; n < MAX_ACCEPTS_PER_TURN && this.#listener !== -1; n++) {
      if (this.#channels.size >= this.#maxChannels) {
        if (this.#maxChannels > 1) {
          this.#refuse();
          return;
        }
        this.#io.setInterest(this.#listener, 0);
        return;
      }
      const handle = this.#io.accept(this.#listener);
      if (handle < 0) return;
      this.#arrived(handle);
    }
  }

  #refuse(): void {
    for (let n = 0; n < MAX_ACCEPTS_PER_TURN; n++) {
      const handle = this.#io.accept(this.#listener);
      if (handle < 0) return;
      this.stats.dropTooManyClients++;
      this.#io.close(handle);
    }
  }

  // Client.

  #connect(): void {
    if (this.#closed) return;
    const { address, delay } = this.#socket;
    let handle: Handle;
    try {
      handle =
        address.type === 'unix'
          ? this.#io.unixConnect(address.path)
          : this.#io.tcpConnect(
              { address: this.#address, port: (address as InetAddress).port },
              { noDelay: !delay },
            );
    } catch (error) {
      this.#connectFailed(error instanceof HostIoError ? errnoOf(error.code) : ERRNO.EIO);
      return;
    }
    this.#connecting = handle;
    this.#io.watch(handle, WRITABLE, (ready) => {
      const failure = this.#io.takeError(handle);
      if (failure === 0 && (ready & WRITABLE) === 0 && (ready & FAILED) === 0) return;
      this.#connecting = -1;
      if (failure !== 0) {
        this.#io.close(handle);
        this.#connectFailed(failure);
        return;
      }
      this.#arrived(handle);
      this.#settle(null);
    });
  }

  #connectFailed(errno: number): void {
    this.stats.connectFailed++;
    const { reconnectMs } = this.#socket;
    if (reconnectMs > 0) this.#reconnect.armIn(reconnectMs * 1e6);
    const target = this.#place.slice(this.#place.indexOf(':') + 1);
    this.#settle(
      new HostIoError('connect', errnoName(errno), `Failed to connect to '${target}': ${errnoText(errno)}`),
    );
  }

  #settle(error: Error | null): void {
    const settle = this.#settleConnect;
    this.#settleConnect = null;
    settle?.(error);
  }

  // Both.

  #arrived(handle: Handle): void {
    const { type } = this.#socket.address;
    const channel = new HandleChannel(
      this.#io,
      { input: handle, output: handle },
      {
        label: this.#labelOf(handle),
        passesFds: type !== 'inet' && this.#io.implementation === 'native',
        stats: this.stats,
        onClose: (gone) => this.#gone(gone),
      },
    );
    this.stats.opened++;
    this.#channels.add(channel);
    if (this.user === null) this.#early = channel;
    else channel.serve(this.user.opened(channel));
    const onFirst = this.#onFirst;
    this.#onFirst = null;
    onFirst?.();
  }

  #labelOf(handle: Handle): string {
    if (this.#socket.address.type !== 'inet') return this.#place;
    try {
      const { address, port } = this.#io.remoteEndpoint(handle);
      return `tcp:${show(address, port)}`;
    } catch {
      // It has gone already; reading from it will tell.
      return this.#place;
    }
  }

  #gone(channel: HandleChannel): void {
    if (!this.#channels.delete(channel)) return;
    this.stats.closed++;
    if (this.#early === channel) this.#early = null;
    if (this.#closed) return;
    if (this.#listener !== -1) this.#io.setInterest(this.#listener, READABLE);
    else if (this.#socket.reconnectMs > 0) this.#reconnect.armIn(this.#socket.reconnectMs * 1e6);
  }

  /** Resolves with the first connection, at once when there is one. */
  whenConnected(): Promise<void> {
    if (this.connected) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onFirst = resolve;
    });
  }

  get connected(): boolean {
    return this.#channels.size > 0;
  }

  describe(): string {
    const server = this.#socket.server ? ',server=on' : '';
    const [channel] = this.#channels;
    if (channel === undefined) return `disconnected:${this.#place}${server}`;
    const peer = this.#socket.address.type === 'inet' ? ` <-> ${channel.describe().slice(4)}` : '';
    return `${this.#place}${server}${peer}`;
  }

  protected override attached(): void {
    const early = this.#early;
    this.#early = null;
    if (early !== null) early.serve((this.user as ChardevUser).opened(early));
    if (this.#listener !== -1) this.#io.setInterest(this.#listener, READABLE);
  }

  protected override detached(): void {
    for (const channel of [...this.#channels]) channel.close();
  }

  yank(): void {
    for (const channel of [...this.#channels]) channel.cut();
    if (this.#connecting === -1) return;
    this.#io.close(this.#connecting);
    this.#connecting = -1;
    this.#connectFailed(ERRNO.ECONNABORTED);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reconnect.cancel();
    const { user } = this;
    this.detach();
    user?.removed?.();
    for (const channel of [...this.#channels]) channel.close();
    if (this.#listener !== -1) this.#io.close(this.#listener);
    if (this.#connecting !== -1) this.#io.close(this.#connecting);
    this.#listener = -1;
    this.#connecting = -1;
    this.#settle(new OptionError(`chardev '${this.id}' was removed`));
    this.#onFirst?.();
    this.#onFirst = null;
  }
}

function show(address: string, port: number): string {
  return `${address.includes(':') ? `[${address}]` : address}:${port}`;
}

/** A host's error in the sentence that QEMU's users know; any other as it is. */
function plain(error: unknown, sentence: (text: string) => string): unknown {
  if (!(error instanceof HostIoError)) return error;
  return new HostIoError(error.syscall, error.code, sentence(errnoText(errnoOf(error.code))));
}

/**
 * Where a stream port's connection comes from: a descriptor, a listener that serves one peer after another, or an address to connect to.
 *
 *     listen:   listener ready ─▶ attach ─▶ lost ─▶ listener ready …       others wait in the backlog meanwhile
 *     connect:  connect ─▶ attach ─▶ lost ─▶ (reconnect-ms, doubling while it fails, and a random part) ─▶ connect …
 *
 * Waits double from reconnect-ms up to RECONNECT_MAX_MS (or stay at reconnect-ms if that is longer) and are drawn out by up to a quarter, so
 * that many netdevs that lost one switch do not come back as one. A name is resolved anew for each attempt.
 */

import type { Timer } from '../core/loop.ts';
import { errnoText } from '../host-io/errno.ts';
import { ERRNO, FAILED, type Handle, type HostIo, HUNG_UP, READABLE, WRITABLE } from '../host-io/host-io.ts';
import type { Backend, BackendContext } from './backend.ts';
import { type LostReason, StreamPort, type StreamPortStats } from './stream-port.ts';

export type StreamSource =
  | { readonly kind: 'connected'; readonly handle: Handle }
  /** `first`: a connection that was accepted already. */
  | { readonly kind: 'listen'; readonly listener: Handle; readonly first?: Handle }
  | {
      readonly kind: 'connect';
      /** Starts to connect. May throw or reject like an opening call. */
      readonly connect: () => Handle | Promise<Handle>;
      /** 0: never again. */
      readonly reconnectMs: number;
    };

export interface StreamPeerOptions {
  readonly id: string;
  readonly source: StreamSource;
  readonly keepAlive?: boolean;
  /** The text of `info network` for a state; `detail` is the peer's address or an error. */
  readonly describe: (state: StreamState, detail: string) => string;
  readonly onConnected?: (peer: Peer) => void;
  readonly onDisconnected?: () => void;
  /** Who is at the other end. May throw HostIoError: it is gone. */
  readonly describePeer?: (handle: Handle) => Peer;
}

export interface Peer {
  /** For `describe`. */
  readonly name: string;
  /** QAPI's SocketAddress. */
  readonly address: Readonly<Record<string, string>>;
}

const NOBODY: Peer = { name: '', address: {} };

export type StreamState = 'listening' | 'connecting' | 'connected' | 'disconnected';

const RECONNECT_MAX_MS = 10_000;

export class StreamBackend implements Backend {
  readonly ports;
  readonly stats: StreamPortStats;
  readonly link: StreamPort;
  readonly #options: StreamPeerOptions;
  readonly #context: BackendContext;
  readonly #hostIo: HostIo;
  readonly #retry: Timer;
  #state: StreamState;
  #detail = '';
  #connecting: Handle = 0;
  #failures = 0;
  #closed = false;

  constructor(options: StreamPeerOptions, context: BackendContext, hostIo: HostIo) {
    this.#options = options;
    this.#context = context;
    this.#hostIo = hostIo;
    this.link = new StreamPort(options.id, context, hostIo, (reason, errno) => this.#lost(reason, errno));
    this.ports = [this.link.port];
    this.stats = this.link.stats;
    this.#retry = context.loop.timer(() => this.#connect());
    const { source } = options;
    this.#state = source.kind === 'listen' ? 'listening' : 'connecting';
    if (source.kind === 'connected') this.#attach(source.handle);
    else if (source.kind === 'listen') {
      hostIo.watch(source.listener, READABLE, () => this.#accept());
      if (source.first !== undefined) this.#attach(source.first);
    }
  }

  /** Starts the first connection attempt. An address that refuses at once is an error of this call with `strict`, else a failed attempt. */
  async start(strict: boolean): Promise<void> {
    const { source } = this.#options;
    if (source.kind !== 'connect') return;
    if (!strict) {
      this.#connect();
      return;
    }
    const handle = await source.connect();
    const errno = this.#hostIo.takeError(handle);
    if (errno !== 0) {
      this.#hostIo.close(handle);
      throw new ConnectError(errno);
    }
    this.#await(handle);
  }

  get state(): StreamState {
    return this.#state;
  }

  describe(): string {
    return this.#options.describe(this.#state, this.#detail);
  }

  #attach(handle: Handle): void {
    const { keepAlive, describePeer, onConnected } = this.#options;
    let peer: Peer;
    try {
      peer = describePeer?.(handle) ?? NOBODY;
    } catch (error) {
      // It left before it could be asked who it is.
      this.#hostIo.close(handle);
      this.#over(error instanceof Error ? error.message : '');
      return;
    }
    if (keepAlive) this.#hostIo.setKeepAlive(handle, true);
    this.#state = 'connected';
    this.#detail = peer.name;
    this.#failures = 0;
    this.link.attach(handle);
    onConnected?.(peer);
  }

  #accept(): void {
    const { source } = this.#options;
    if (source.kind !== 'listen' || this.#closed) return;
    if (this.link.isConnected) {
      // One peer at a time: the next one waits in the backlog.
      this.#hostIo.setInterest(source.listener, 0);
      return;
    }
    const handle = this.#hostIo.accept(source.listener);
    if (handle <= 0) {
      if (handle !== -ERRNO.EAGAIN)
        this.#context.log.warn({ netdev: this.#options.id }, `accept: ${errnoText(handle)}`);
      return;
    }
    this.#hostIo.setInterest(source.listener, 0);
    this.#attach(handle);
  }

  #connect(): void {
    const { source } = this.#options;
    if (source.kind !== 'connect' || this.#closed) return;
    this.#state = 'connecting';
    void (async () => {
      try {
        const handle = await source.connect();
        if (this.#closed) this.#hostIo.close(handle);
        else this.#await(handle);
      } catch (error) {
        if (!this.#closed) this.#failed(error instanceof Error ? error.message : String(error));
      }
    })();
  }

  /** Waits for a connection under way. */
  #await(handle: Handle): void {
    this.#connecting = handle;
    this.#hostIo.watch(handle, WRITABLE, (ready) => {
      const errno = this.#hostIo.takeError(handle);
      if (errno === 0 && (ready & WRITABLE) === 0) {
        if ((ready & (FAILED | HUNG_UP)) === 0) return;
      }
      this.#connecting = 0;
      if (errno === 0 && (ready & WRITABLE) !== 0) {
        this.#attach(handle);
        return;
      }
      this.#hostIo.close(handle);
      this.#failed(errnoText(errno === 0 ? ERRNO.ECONNRESET : errno));
    });
  }

  #failed(reason: string): void {
    this.#state = 'disconnected';
    this.#detail = reason;
    this.#failures++;
    this.#context.log.debug(
      { netdev: this.#options.id, attempt: this.#failures },
      `could not connect: ${reason}`,
    );
    this.#again();
  }

  #again(): void {
    const { source } = this.#options;
    if (source.kind !== 'connect' || source.reconnectMs === 0) return;
    const doubled = source.reconnectMs * 2 ** Math.min(this.#failures === 0 ? 0 : this.#failures - 1, 20);
    const waitMs = Math.min(doubled, Math.max(source.reconnectMs, RECONNECT_MAX_MS));
    const jitter = (this.#context.random() / 2 ** 32) * 0.25;
    this.#retry.armIn(waitMs * (1 + jitter) * 1e6);
  }

  #lost(reason: LostReason, errno: number): void {
    const { id, onDisconnected } = this.#options;
    if (reason === 'bad-length') {
      this.#context.log.warn(
        { netdev: id },
        'the peer sent a frame length over the maximum: connection closed',
      );
    }
    onDisconnected?.();
    this.#over(reason === 'error' ? errnoText(errno) : '');
  }

  /** No connection any more: waits for the next one. */
  #over(detail: string): void {
    const { source } = this.#options;
    this.#state = source.kind === 'listen' ? 'listening' : 'disconnected';
    this.#detail = detail;
    if (this.#closed) return;
    if (source.kind === 'listen') this.#hostIo.setInterest(source.listener, READABLE);
    else this.#again();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retry.cancel();
    const { source } = this.#options;
    if (source.kind === 'listen') this.#hostIo.close(source.listener);
    if (this.#connecting !== 0) this.#hostIo.close(this.#connecting);
    this.#connecting = 0;
    this.link.detach();
  }
}

/** A connection was refused while it was begun. */
export class ConnectError extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(errnoText(errno));
    this.errno = errno;
  }
}

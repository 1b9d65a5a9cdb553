/**
 * `websocket` with url: one peer, and no switch. Portable: the page's own WebSocket, or under Node the one of the package ws, stands behind
 * ClientSocket, so that a NIC in a page and one in a process reach a netemu by the same code.
 *
 * Frames from the guest are copied into messages, which the socket may keep as long as it likes; when more than BUFFER_BYTES wait in it, the guest
 * waits too, and since a page's socket does not tell when they have gone, a timer looks again. What the guest refuses waits here, at most PENDING
 * frames; a socket that can pause is paused meanwhile, and from one that cannot (a page's) what comes on top is dropped and counted.
 */

import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import { HostIoError, UnsupportedError } from '../core/errors.ts';
import type { Timer } from '../core/loop.ts';
import { type Client, Port } from '../core/port.ts';
import type { Backend, BackendContext, OpenBackend } from './backend.ts';
import { messageOf } from './websocket-message.ts';
import { WebsocketStats } from './websocket-stats.ts';

const ETHERNET_HEADER_BYTES = 14;
const BUFFER_BYTES = 4 << 20;
const PENDING = 256;
const LOOK_AGAIN_NS = 1e6;
const HANDSHAKE_LIMIT_NS = 10e9;
const RECONNECT_MAX_MS = 10_000;

/** What is used of a W3C WebSocket. Binary messages arrive as ArrayBuffer. */
export interface ClientSocket {
  binaryType: string;
  readonly bufferedAmount: number;
  addEventListener(type: 'open' | 'close' | 'error', listener: () => void): void;
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void;
  send(message: Uint8Array): void;
  close(): void;
  /** Where the implementation can: stops and goes on reading; asks for a pong, told by `onPong`; ends without a farewell. */
  pause?(): void;
  resume?(): void;
  ping?(): void;
  onPong?(listener: () => void): void;
  terminate?(): void;
}

/** Begins to connect. Messages over `maxPayloadBytes` may be refused. Throws for a URL that it does not take, then and always. */
export type OpenSocket = (url: string, maxPayloadBytes: number) => ClientSocket;

class WebsocketClient implements Backend, Client {
  readonly port: Port;
  readonly ports: readonly Port[];
  readonly stats = new WebsocketStats();
  readonly #config: NetdevConfigOf<'websocket'> & { mode: 'connect' };
  readonly #context: BackendContext;
  readonly #openSocket: OpenSocket;
  #socket: ClientSocket | null = null;
  #open = false;
  /** Something came since the last ping. */
  #alive = true;
  readonly #pending = new Int32Array(PENDING);
  #pendingCount = 0;
  #full = false;
  readonly #handshake: Timer;
  readonly #ping: Timer;
  readonly #retry: Timer;
  readonly #lookAgain: Timer;
  #failures = 0;
  #closed = false;

  constructor(
    config: NetdevConfigOf<'websocket'> & { mode: 'connect' },
    context: BackendContext,
    openSocket: OpenSocket,
  ) {
    this.#config = config;
    this.#context = context;
    this.#openSocket = openSocket;
    this.port = new Port(config.id, 'backend', this, context);
    this.ports = [this.port];
    const { loop } = context;
    this.#handshake = loop.timer(() => this.#end());
    this.#ping = loop.timer(() => this.#askForLife());
    this.#retry = loop.timer(() => this.#connect());
    this.#lookAgain = loop.timer(() => this.#drained());
    this.port.setCarrier(false);
    this.#connect();
  }

  // The connection.

  #connect(): void {
    const { url, maxPayloadBytes } = this.#config;
    let socket: ClientSocket;
    try {
      socket = this.#openSocket(url, maxPayloadBytes);
    } catch (error) {
      // A page of https may open no ws: socket.
      throw new HostIoError('connect', 'EINVAL', `can't connect to ${url}: ${(error as Error).message}`);
    }
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    // Events of a socket that was given up are none of ours.
    const isCurrent = (): boolean => this.#socket === socket;
    socket.addEventListener('error', () => {
      if (isCurrent() && this.#open) this.stats.closedError++;
    });
    socket.addEventListener('open', () => {
      if (isCurrent()) this.#opened(socket);
    });
    socket.addEventListener('message', ({ data }) => {
      if (isCurrent()) this.#message(data);
    });
    socket.addEventListener('close', () => {
      if (isCurrent()) this.#lost();
    });
    this.#handshake.armIn(HANDSHAKE_LIMIT_NS);
  }

  #opened(socket: ClientSocket): void {
    this.#handshake.cancel();
    this.#open = true;
    this.#failures = 0;
    this.#alive = true;
    this.stats.clients++;
    socket.onPong?.(() => {
      this.#alive = true;
    });
    if (this.#config.pingMs > 0 && socket.ping !== undefined) this.#ping.armIn(this.#config.pingMs * 1e6);
    if (this.#pendingCount > 0) socket.pause?.();
    this.port.setCarrier(true);
  }

  #askForLife(): void {
    if (this.#alive || this.#pendingCount > 0) {
      this.#alive = false;
      this.#socket?.ping?.();
      this.#ping.armIn(this.#config.pingMs * 1e6);
    } else {
      this.stats.closedSilent++;
      this.#end();
    }
  }

  /** Gives the connection up; it is lost at once, whatever the peer says. */
  #end(): void {
    const socket = this.#socket;
    if (socket === null) return;
    this.#lost();
    if (socket.terminate !== undefined) socket.terminate();
    else socket.close();
  }

  #lost(): void {
    const wasOpen = this.#open;
    this.#socket = null;
    this.#open = false;
    for (const timer of [this.#handshake, this.#ping, this.#lookAgain]) timer.cancel();
    if (this.#closed) return;
    this.port.setCarrier(false);
    if (this.#full) this.#letGo();
    if (!wasOpen) this.#failures++;
    const { reconnectMs } = this.#config;
    if (reconnectMs === 0) return;
    const doubled = reconnectMs * 2 ** Math.min(Math.max(0, this.#failures - 1), 20);
    const waitMs = Math.min(doubled, Math.max(reconnectMs, RECONNECT_MAX_MS));
    this.#retry.armIn(waitMs * (1 + (this.#context.random() / 2 ** 32) * 0.25) * 1e6);
  }

  // Frames to the guest.

  #message(data: unknown): void {
    this.#alive = true;
    if (!(data instanceof ArrayBuffer)) {
      this.stats.rxDropText++;
      return;
    }
    if (data.byteLength < ETHERNET_HEADER_BYTES) {
      this.stats.rxDropShort++;
      return;
    }
    if (data.byteLength > this.#config.maxPayloadBytes) {
      this.stats.closedTooLong++;
      this.#end();
      return;
    }
    if (this.#pendingCount === PENDING) {
      this.stats.rxDropQueueFull++;
      return;
    }
    const frame = this.#context.pool.from(new Uint8Array(data));
    if (frame === 0) {
      this.stats.rxDropNoSlot++;
      return;
    }
    this.#pending[this.#pendingCount++] = frame;
    if (this.#pendingCount === 1) this.#offer();
  }

  #offer(): void {
    const taken = this.port.send(this.#pending, 0, this.#pendingCount);
    this.stats.rxFrames += taken;
    this.#pending.copyWithin(0, taken, this.#pendingCount);
    this.#pendingCount -= taken;
    if (!this.#open) return;
    if (this.#pendingCount > 0) this.#socket?.pause?.();
    else this.#socket?.resume?.();
  }

  peerReady(): void {
    if (this.#pendingCount > 0) this.#offer();
  }

  // Frames from the guest.

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) {
      if (this.#full) return i - from;
      this.#fromGuest(messageOf(pool, frames[i]!));
      pool.release(frames[i]!);
    }
    return to - from;
  }

  #fromGuest(message: Uint8Array): void {
    const socket = this.#socket;
    if (message.length < ETHERNET_HEADER_BYTES) {
      this.stats.txDropShort++;
    } else if (!this.#open || socket === null) {
      this.stats.txDropDisconnected++;
    } else {
      this.stats.txFrames++;
      socket.send(message);
      if (socket.bufferedAmount <= BUFFER_BYTES) return;
      this.#full = true;
      this.#lookAgain.armIn(LOOK_AGAIN_NS);
    }
  }

  #drained(): void {
    if (this.#socket !== null && this.#socket.bufferedAmount > BUFFER_BYTES)
      this.#lookAgain.armIn(LOOK_AGAIN_NS);
    else this.#letGo();
  }

  #letGo(): void {
    this.#full = false;
    this.port.ready();
  }

  describe(): string {
    return `url=${this.#config.url}${this.#open ? '' : ' (not connected)'}`;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retry.cancel();
    this.#end();
    this.#context.pool.releaseAll(this.#pending, 0, this.#pendingCount);
    this.#pendingCount = 0;
  }
}

/** The row of a table whose host cannot listen, such as a page's. */
export function websocketClient(openSocket: OpenSocket): OpenBackend<'websocket'> {
  return (config, context) => {
    if (config.mode !== 'connect')
      throw new UnsupportedError('a websocket netdev can only connect (url=) here, and not listen');
    return new WebsocketClient(config, context, openSocket);
  };
}

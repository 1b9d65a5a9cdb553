/**
 * `websocket`: frames as binary messages, one a message, as browser emulators speak it (v86's `network_relay_url`).
 *
 * Listening, there is a switch in here: every client is a port of it, and the netdev's own port is one more. Addresses are learned
 * (mac-table.ts); frames for a known address go to its port only, all others to every port but the one they came from. A client that does
 * not read has its frames dropped, counted, beyond CLIENT_BUFFER_BYTES: it must not hold up the others. What the guest refuses waits here,
 * at most PENDING frames, and no client is read meanwhile.
 *
 * Connecting (url) is websocket-client.ts, over the library's sockets.
 *
 * The library is loaded when the first such netdev is made. Frames are copied once each way: messages are the library's memory.
 */

import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { WebSocket, WebSocketServer } from 'ws';
import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import { HostIoError, UnsupportedError } from '../core/errors.ts';
import type { Timer } from '../core/loop.ts';
import { type Client, Port } from '../core/port.ts';
import { errnoOf, errnoText } from '../host-io/errno.ts';
import type { Backend, BackendContext, OpenBackend } from './backend.ts';
import { MacTable } from './mac-table.ts';
import { resolveEndpoint, type Services, showEndpoint, warnIfOpen } from './services.ts';
import { type ClientSocket, websocketClient } from './websocket-client.ts';
import { messageOf } from './websocket-message.ts';
import { WebsocketStats } from './websocket-stats.ts';

const ETHERNET_HEADER_BYTES = 14;
const CLIENT_BUFFER_BYTES = 4 << 20;
const PENDING = 256;
/** RFC 6455 section 7.4.1. */
const CLOSE_GOING_AWAY = 1001;

type Library = typeof import('ws');

async function loadLibrary(): Promise<Library> {
  try {
    return await import('ws');
  } catch {
    throw new UnsupportedError("netdev type 'websocket' needs the package 'ws', which is not installed");
  }
}

/** One connection. */
class Connection {
  readonly socket: WebSocket;
  /** Something came since the last ping. */
  isAlive = true;

  constructor(socket: WebSocket) {
    this.socket = socket;
  }

  get isOpen(): boolean {
    return this.socket.readyState === this.socket.OPEN;
  }
}

type ListenConfig = NetdevConfigOf<'websocket'> & { mode: 'listen' };

class WebsocketSwitch implements Backend, Client {
  readonly port: Port;
  readonly ports: readonly Port[];
  readonly stats = new WebsocketStats();
  readonly #config: ListenConfig;
  readonly #context: BackendContext;
  readonly #connections = new Set<Connection>();
  /** The netdev's own port is `this`. */
  readonly #table: MacTable<Connection | WebsocketSwitch>;
  readonly #pending = new Int32Array(PENDING);
  #pendingCount = 0;
  #paused = false;
  readonly #ping: Timer;
  #closed = false;
  #library: Library;
  #http: Server | null = null;
  #server: WebSocketServer | null = null;
  #shown = '';

  constructor(config: ListenConfig, context: BackendContext, library: Library) {
    this.#config = config;
    this.#context = context;
    this.#library = library;
    this.port = new Port(config.id, 'backend', this, context);
    this.ports = [this.port];
    this.#table = new MacTable(context.loop.clock);
    this.#ping = context.loop.timer(() => this.#pingAll());
    if (config.pingMs > 0) this.#ping.armIn(config.pingMs * 1e6);
  }

  async listen(services: Services): Promise<void> {
    const config = this.#config;
    const { address, port } = await resolveEndpoint(config.endpoint, 0, services);
    warnIfOpen(this.#context, config.id, address);
    const { createServer } = await import('node:http');
    const http = createServer((_request, response) => {
      // Nothing is served here but websockets.
      response.writeHead(426, { Upgrade: 'websocket' }).end();
    });
    this.#http = http;
    this.#server = new this.#library.WebSocketServer({
      server: http,
      maxPayload: config.maxPayloadBytes,
      perMessageDeflate: false,
      verifyClient: ({ origin, req }, answer) => this.#admit(origin, req, answer),
    });
    // The server's errors are the HTTP server's, which `listening` below tells.
    this.#server.on('error', () => {});
    this.#server.on('connection', (socket) => this.#add(socket));
    await new Promise<void>((resolve, reject) => {
      http.once('error', (error: NodeJS.ErrnoException) => {
        const text = errnoText(errnoOf(error.code));
        reject(new HostIoError('listen', error.code ?? 'EIO', `can't bind ip=${address} to socket: ${text}`));
      });
      http.listen({ host: address, port }, resolve);
    });
    const bound = http.address() as AddressInfo;
    this.#shown = `listen=${showEndpoint({ address: bound.address, port: bound.port })}`;
  }

  #admit(
    origin: string | undefined,
    _request: IncomingMessage,
    answer: (ok: boolean, code?: number, message?: string) => void,
  ): void {
    const config = this.#config;
    if (config.origins.length > 0 && (origin === undefined || !config.origins.includes(origin))) {
      this.stats.refusedOrigin++;
      answer(false, 403, 'Origin not allowed');
      return;
    }
    if (this.#connections.size >= config.maxClients) {
      this.stats.refusedFull++;
      answer(false, 503, 'Too many clients');
      return;
    }
    answer(true);
  }

  // Connections.

  #add(socket: WebSocket): void {
    const connection = new Connection(socket);
    this.#connections.add(connection);
    this.stats.clients++;
    socket.binaryType = 'nodebuffer';
    if (this.#paused) socket.pause();
    socket.on('message', (data, isBinary) => {
      connection.isAlive = true;
      if (!isBinary) this.stats.rxDropText++;
      else this.#fromClient(connection, data as Uint8Array);
    });
    socket.on('pong', () => {
      connection.isAlive = true;
    });
    socket.on('error', (error: Error & { code?: string }) => {
      if (error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') this.stats.closedTooLong++;
      else this.stats.closedError++;
    });
    socket.on('close', () => {
      this.#connections.delete(connection);
      this.#table.forget(connection);
    });
  }

  #pingAll(): void {
    for (const connection of this.#connections) {
      if (!connection.isAlive && !this.#paused) {
        this.stats.closedSilent++;
        connection.socket.terminate();
        continue;
      }
      connection.isAlive = false;
      if (connection.isOpen) connection.socket.ping();
    }
    this.#ping.armIn(this.#config.pingMs * 1e6);
  }

  // Frames from a client.

  #fromClient(from: Connection, message: Uint8Array): void {
    if (this.#closed) return;
    if (message.length < ETHERNET_HEADER_BYTES) {
      this.stats.rxDropShort++;
      return;
    }
    this.#table.learn(message, 6, from);
    const target = this.#table.find(message, 0);
    if (target !== null && target !== this) {
      if (target !== from) {
        this.stats.switchedFrames++;
        this.#sendTo(target as Connection, message);
      }
      return;
    }
    if (target === null) {
      for (const other of this.#connections) {
        if (other === from) continue;
        this.stats.switchedFrames++;
        this.#sendTo(other, message);
      }
    }
    this.#toGuest(message);
  }

  #toGuest(message: Uint8Array): void {
    const { pool } = this.#context;
    if (this.#pendingCount === PENDING) {
      this.stats.rxDropQueueFull++;
      return;
    }
    const frame = pool.from(message);
    if (frame === 0) {
      this.stats.rxDropNoSlot++;
      return;
    }
    this.#pending[this.#pendingCount++] = frame;
    if (!this.#paused) this.#offer();
  }

  #offer(): void {
    const taken = this.port.send(this.#pending, 0, this.#pendingCount);
    this.stats.rxFrames += taken;
    this.#pending.copyWithin(0, taken, this.#pendingCount);
    this.#pendingCount -= taken;
    this.#pause(this.#pendingCount > 0);
  }

  #pause(on: boolean): void {
    if (this.#paused === on) return;
    this.#paused = on;
    for (const { socket } of this.#connections) {
      if (socket.readyState !== socket.OPEN) continue;
      if (on) socket.pause();
      else socket.resume();
    }
  }

  peerReady(): void {
    if (this.#pendingCount > 0) this.#offer();
  }

  // Frames from the guest.

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      this.#fromGuest(frame);
      pool.release(frame);
    }
    return to - from;
  }

  #fromGuest(frame: number): void {
    const bytes = messageOf(this.#context.pool, frame);
    if (bytes.length < ETHERNET_HEADER_BYTES) {
      this.stats.txDropShort++;
      return;
    }
    if (this.#connections.size === 0) {
      this.stats.txDropDisconnected++;
      return;
    }
    this.#table.learn(bytes, 6, this);
    const target = this.#table.find(bytes, 0);
    if (target === this) return;
    if (target !== null) this.#sendTo(target as Connection, bytes);
    else for (const connection of this.#connections) this.#sendTo(connection, bytes);
    this.stats.txFrames++;
  }

  #sendTo({ socket, isOpen }: Connection, bytes: Uint8Array): void {
    if (!isOpen) return;
    if (socket.bufferedAmount > CLIENT_BUFFER_BYTES) this.stats.txDropSlowClient++;
    else socket.send(bytes, { binary: true });
  }

  describe(): string {
    return `${this.#shown},clients=${this.#connections.size}`;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ping.cancel();
    for (const { socket } of this.#connections) {
      socket.close(CLOSE_GOING_AWAY);
      socket.terminate();
    }
    this.#connections.clear();
    this.#server?.close();
    this.#http?.close();
    this.#http?.closeAllConnections();
    this.#context.pool.releaseAll(this.#pending, 0, this.#pendingCount);
    this.#pendingCount = 0;
  }
}

/** The library's sockets for the connecting half: pause, resume and terminate are their own; a pong is an event of theirs. */
function openWith(library: Library): (url: string, maxPayloadBytes: number) => ClientSocket {
  return (url, maxPayloadBytes) => {
    const socket = new library.WebSocket(url, { maxPayload: maxPayloadBytes, perMessageDeflate: false });
    return Object.assign(socket, {
      onPong: (listener: () => void) => {
        socket.on('pong', listener);
      },
    }) as unknown as ClientSocket;
  };
}

export function websocketBackend(services: Services): OpenBackend<'websocket'> {
  return async (config, context) => {
    const library = await loadLibrary();
    if (config.mode === 'connect') return websocketClient(openWith(library))(config, context);
    const backend = new WebsocketSwitch(config, context, library);
    try {
      await backend.listen(services);
    } catch (error) {
      backend.close();
      throw error;
    }
    return backend;
  };
}

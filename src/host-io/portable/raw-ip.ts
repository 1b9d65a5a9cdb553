/**
 * Raw IP and ICMP echo sockets over raw-socket, an optional package that needs CAP_NET_RAW. Its traps: each message is a slice of one shared
 * buffer (copied here before the callback returns), it takes one message per wake-up, and it cannot be loaded in a worker thread.
 *
 * raw-socket cannot bind, connect or filter, so the far end of a "connected" socket is compared here. An echo socket gets only echo replies
 * (type 0, or 129 for IPv6), but those of the whole host: its user compares identifiers, which unlike the kernel's echo sockets' go out as written.
 */

import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { UnsupportedError } from '../../core/errors.ts';
import { errnoOf, hostIoError } from '../errno.ts';
import { type Endpoint, ERRNO } from '../host-io.ts';
import { AGAIN, areFrames, type EntryOwner, frameMessage, INVALID } from './entry.ts';
import { MessageEntry, SEND_MESSAGES } from './message-entry.ts';

const BUFFER_BYTES = 65_535;
const ICMP = 1;
const ICMPV6 = 58;

interface RawSocket {
  on(event: 'message', listener: (message: Uint8Array, source: string) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  send(
    message: Uint8Array,
    offset: number,
    length: number,
    address: string,
    after: (error: Error | null, bytes: number) => void,
  ): void;
  pauseRecv(): void;
  resumeRecv(): void;
  close(): void;
}

interface RawModule {
  createSocket(options: { addressFamily: number; protocol: number; bufferSize: number }): RawSocket;
}

function loadRawSocket(): RawModule {
  if (!isMainThread)
    throw new UnsupportedError(
      'raw-socket cannot be loaded in a worker thread; the native addon can do raw IP there',
    );
  try {
    return createRequire(import.meta.url)('raw-socket') as RawModule;
  } catch {
    throw new UnsupportedError(
      "raw IP needs the native addon, or the optional package 'raw-socket', and neither can be loaded",
    );
  }
}

export class RawIpEntry extends MessageEntry {
  readonly #socket: RawSocket;
  readonly #family: 4 | 6;
  readonly #remote: string | null;
  #paused = false;
  /** Messages without a whole IP header, or not from the far end, or no echo reply. */
  dropNotWanted = 0;

  /** Throws UnsupportedError or HostIoError. */
  constructor(
    owner: EntryOwner,
    family: 4 | 6,
    protocol: number,
    options: { local?: string; remote?: string; echoOnly?: boolean },
  ) {
    super(owner);
    const { local, remote, echoOnly = false } = options;
    if (local !== undefined && local !== '0.0.0.0' && local !== '::') {
      throw new UnsupportedError(
        'raw-socket cannot bind to a local address: raw IP with one needs the native addon',
      );
    }
    if (remote !== undefined && isIP(remote) !== family)
      throw hostIoError('socket', -ERRNO.EINVAL, `raw IP socket to ${remote}`);
    if (!(protocol > 0 && protocol <= 255))
      throw hostIoError('socket', -ERRNO.EINVAL, `raw IP socket of protocol ${protocol}`);
    const raw = loadRawSocket();
    this.#family = family;
    this.#remote = remote ?? null;
    try {
      this.#socket = raw.createSocket({
        addressFamily: family === 4 ? 1 : 2,
        protocol,
        bufferSize: BUFFER_BYTES,
      });
    } catch (error) {
      const denied = /not permitted|denied/i.test(String(error));
      throw hostIoError(
        'socket',
        denied ? -ERRNO.EPERM : -ERRNO.EIO,
        `raw IP socket of protocol ${protocol}`,
      );
    }
    const echoReply = protocol === ICMP ? 0 : 129;
    this.#socket.on('error', (error) => this.fail(errnoOf((error as NodeJS.ErrnoException).code)));
    this.#socket.on('message', (message, source) => {
      if (this.closed) return;
      const header = family === 4 && message.length > 0 ? (message[0]! & 15) * 4 : family === 4 ? 20 : 0;
      const wanted =
        header <= message.length &&
        (family === 6 || header >= 20) &&
        (this.#remote === null || source === this.#remote) &&
        (!echoOnly || message[header] === echoReply);
      if (!wanted) this.dropNotWanted++;
      else this.arrived(message.slice(header), { address: source, port: 0 });
    });
  }

  static echo(owner: EntryOwner, family: 4 | 6): RawIpEntry {
    return new RawIpEntry(owner, family, family === 4 ? ICMP : ICMPV6, { echoOnly: true });
  }

  get local(): Endpoint | null {
    return { address: this.#family === 4 ? '0.0.0.0' : '::', port: 0 };
  }

  get remote(): Endpoint | null {
    return this.#remote === null ? null : { address: this.#remote, port: 0 };
  }

  /** raw-socket has no ref and unref: it lets the process end only while it does not receive. */
  keepAlive(yes: boolean): void {
    if (this.#paused === !yes) return;
    this.#paused = !yes;
    if (yes) this.#socket.resumeRecv();
    else this.#socket.pauseRecv();
  }

  close(): void {
    this.closed = true;
    this.#socket.close();
  }

  send(
    frames: Int32Array,
    from: number,
    to: number,
    remote: Endpoint | undefined,
    headers: Uint8Array | undefined,
    headerBytes: number,
  ): number {
    const pool = this.owner.pool;
    if (!areFrames(pool, frames, from, to) || headerBytes < 0) return INVALID;
    if (headers !== undefined && headers.length < to * headerBytes) return INVALID;
    if (from === to) return 0;
    if (this.error !== 0) return -this.takeError();
    const address = remote?.address ?? this.#remote;
    if (address === null) return -ERRNO.EDESTADDRREQ;
    if (isIP(address) !== this.#family) return INVALID;
    let next = from;
    for (; next < to && this.sending < SEND_MESSAGES; next++) {
      const message = frameMessage(pool, frames[next]!, headers, headerBytes, next);
      if (message === null) return next > from ? next - from : INVALID;
      this.sending++;
      this.#socket.send(Buffer.from(message.buffer), 0, message.length, address, this.sent);
    }
    return next > from ? next - from : AGAIN;
  }
}

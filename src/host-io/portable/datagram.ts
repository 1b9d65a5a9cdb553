/**
 * UDP over dgram-as-promised. Addresses are literal, so name look-up is answered on the spot, and binding and connecting have happened when
 * the constructor returns. Received messages wait in a bounded queue; Node cannot be told to stop receiving, so what does not fit is
 * dropped and counted, as a kernel's buffer would. A host's error (ECONNREFUSED …) is told by the next receive or send.
 */

import type { Socket } from 'node:dgram';
import { isIP } from 'node:net';
import { DgramAsPromised, type SocketAsPromised } from 'dgram-as-promised';
import { errnoOf, hostIoError } from '../errno.ts';
import { type Endpoint, ERRNO, type UdpOptions } from '../host-io.ts';
import { AGAIN, areFrames, type EntryOwner, frameMessage, INVALID } from './entry.ts';
import { MessageEntry, SEND_MESSAGES } from './message-entry.ts';

export class UdpEntry extends MessageEntry {
  readonly #dgram: SocketAsPromised;
  readonly #socket: Socket;
  readonly #remote: Endpoint | null;
  #bound = false;

  /** Throws HostIoError. */
  constructor(owner: EntryOwner, options: UdpOptions) {
    super(owner);
    const { local, remote, multicast } = options;
    const what = `UDP socket${local ? ` on ${local.address}:${local.port}` : ''}${remote ? ` to ${remote.address}:${remote.port}` : ''}`;
    const family = local ? isIP(local.address) : remote ? isIP(remote.address) : (options.family ?? 0);
    if (family === 0 || (remote && isIP(remote.address) !== family))
      throw hostIoError('socket', -ERRNO.EINVAL, what);
    this.#remote = remote ?? null;
    this.#dgram = DgramAsPromised.createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      reuseAddr: options.reuseAddress ?? false,
      ...(options.receiveBufferBytes === undefined ? {} : { recvBufferSize: options.receiveBufferBytes }),
      ...(options.sendBufferBytes === undefined ? {} : { sendBufferSize: options.sendBufferBytes }),
      lookup: (host, _options, answer) => answer(null, host, family),
    });
    const socket = this.#dgram.socket;
    this.#socket = socket;
    let failed: NodeJS.ErrnoException | null = null;
    const atOnce = (error: NodeJS.ErrnoException): void => {
      failed ??= error;
    };
    socket.on('error', atOnce);
    try {
      if (local || multicast || remote) {
        const any = family === 4 ? '0.0.0.0' : '::';
        // The promise tells what the error listener is told; nobody waits for it.
        this.#dgram
          .bind({ address: local?.address ?? any, port: local?.port ?? 0, exclusive: true })
          .catch(() => {});
        this.#bound = failed === null;
      }
      if (failed === null && multicast) {
        this.#dgram.addMembership(multicast.group, multicast.interface);
        socket.setMulticastLoopback(multicast.loop ?? true);
        if (multicast.interface !== undefined && family === 4)
          socket.setMulticastInterface(multicast.interface);
      }
      if (failed === null && remote) socket.connect(remote.port, remote.address);
    } catch (error) {
      failed ??= error as NodeJS.ErrnoException;
    }
    socket.off('error', atOnce);
    if (failed !== null) {
      socket.on('error', () => {});
      socket.close();
      const { code, syscall } = failed as NodeJS.ErrnoException;
      throw hostIoError(syscall ?? 'bind', -errnoOf(code), what);
    }
    socket.on('error', (error: NodeJS.ErrnoException) => this.fail(errnoOf(error.code)));
    socket.on('message', (message, from) => {
      if (this.closed) return;
      this.arrived(message, { address: from.address, port: from.port });
    });
    socket.unref();
  }

  get local(): Endpoint | null {
    if (!this.#bound) return { address: '0.0.0.0', port: 0 };
    const { address, port } = this.#socket.address();
    return { address, port };
  }

  get remote(): Endpoint | null {
    return this.#remote;
  }

  keepAlive(yes: boolean): void {
    if (yes) this.#socket.ref();
    else this.#socket.unref();
  }

  close(): void {
    this.closed = true;
    this.#dgram.close().catch(() => {});
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
    const fixed = this.#remote;
    if (fixed === null && remote === undefined) return -ERRNO.EDESTADDRREQ;
    if (
      fixed !== null &&
      remote !== undefined &&
      (fixed.address !== remote.address || fixed.port !== remote.port)
    )
      return -ERRNO.EISCONN;
    if (remote !== undefined && isIP(remote.address) === 0) return INVALID;
    let next = from;
    for (; next < to && this.sending < SEND_MESSAGES; next++) {
      const message = frameMessage(pool, frames[next]!, headers, headerBytes, next);
      if (message === null) return next > from ? next - from : INVALID;
      this.sending++;
      if (fixed !== null) this.#socket.send(message, this.sent);
      else this.#socket.send(message, remote!.port, remote!.address, this.sent);
      this.#bound = true;
    }
    return next > from ? next - from : AGAIN;
  }
}

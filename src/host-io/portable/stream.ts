/**
 * A TCP or unix stream over net.Socket. What Node pushes lies in a chain of chunks; above RECEIVE_BYTES the socket is paused, so that the
 * peer's window closes as it would with the kernel's buffer. What is sent is copied (the caller's frames go back to their pool at once)
 * and accepted only while less than SEND_BYTES wait in Node.
 */

import type { Socket } from 'node:net';
import { ROOM, SLOT } from '../../core/pool.ts';
import { errnoOf } from '../errno.ts';
import { type Endpoint, ERRNO } from '../host-io.ts';
import { AGAIN, areFrames, Entry, type EntryOwner, INVALID, segmentBytes } from './entry.ts';

const RECEIVE_BYTES = 65_536;
const SEND_BYTES = 262_144;

export class StreamEntry extends Entry {
  readonly #socket: Socket;
  readonly #path: string | null;
  #connected: boolean;
  #chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that were taken already. */
  #taken = 0;
  #buffered = 0;
  #ended = false;
  #shut = false;
  #gone = false;

  /** `path`: of a unix socket. */
  constructor(owner: EntryOwner, socket: Socket, connected: boolean, path: string | null) {
    super(owner);
    this.#socket = socket;
    this.#connected = connected;
    this.#path = path;
    socket.on('connect', () => {
      this.#connected = true;
      owner.changed(this);
    });
    socket.on('data', (chunk: Uint8Array) => {
      if (this.closed) return;
      this.#chunks.push(chunk);
      this.#buffered += chunk.length;
      if (this.#buffered >= RECEIVE_BYTES) socket.pause();
      owner.changed(this);
    });
    socket.on('end', () => {
      this.#ended = true;
      owner.changed(this);
    });
    socket.on('drain', () => owner.changed(this));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#gone = true;
      this.fail(errnoOf(error.code));
    });
    socket.on('close', () => {
      this.#gone = true;
      if (!this.closed) owner.changed(this);
    });
    socket.unref();
    if (connected) socket.resume();
  }

  get readable(): boolean {
    return this.#buffered > 0 || this.#ended || this.#gone;
  }

  get writable(): boolean {
    return this.#gone || (this.#connected && this.#socket.writableLength < SEND_BYTES);
  }

  override get hungUp(): boolean {
    return this.#ended || this.#gone;
  }

  get pendingBytes(): number {
    return this.#buffered;
  }

  get local(): Endpoint | null {
    if (this.#path !== null) return { address: '', port: 0 };
    const { localAddress, localPort } = this.#socket;
    return localAddress === undefined ? null : { address: localAddress, port: localPort ?? 0 };
  }

  get remote(): Endpoint | null {
    if (this.#path !== null) return { address: this.#path, port: 0 };
    const { remoteAddress, remotePort } = this.#socket;
    return remoteAddress === undefined ? null : { address: remoteAddress, port: remotePort ?? 0 };
  }

  /** SO_KEEPALIVE. */
  probe(on: boolean): void {
    this.#socket.setKeepAlive(on);
  }

  keepAlive(yes: boolean): void {
    if (yes) this.#socket.ref();
    else this.#socket.unref();
  }

  close(): void {
    this.closed = true;
    this.#chunks = [];
    // What was accepted for sending still goes out, as from a kernel's buffer, but does not keep the process.
    this.#socket.unref();
    this.#socket.resume();
    this.#socket.destroySoon();
  }

  reset(): void {
    this.closed = true;
    this.#chunks = [];
    // While a FIN is on its way libuv refuses to reset, and Node would leave the socket open and the loop spinning for good.
    const resettable = this.#path === null && !this.#socket.connecting && !this.#shut;
    if (resettable) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  shutdownWrite(): void {
    this.#shut = true;
    this.#socket.end();
  }

  /** What a receive returns when there are no bytes. */
  #nothing(): number {
    if (this.error !== 0) return -this.takeError();
    return this.#ended || this.#gone ? 0 : AGAIN;
  }

  /** Copies up to `length` buffered bytes, from `skip` bytes on, to target[at..). */
  #peek(skip: number, target: Uint8Array, at: number, length: number): number {
    let offset = this.#taken + skip;
    let copied = 0;
    for (const chunk of this.#chunks) {
      if (offset >= chunk.length) {
        offset -= chunk.length;
        continue;
      }
      const part = Math.min(chunk.length - offset, length - copied);
      target.set(chunk.subarray(offset, offset + part), at + copied);
      copied += part;
      offset = 0;
      if (copied === length) break;
    }
    return copied;
  }

  #take(length: number): void {
    this.#buffered -= length;
    this.#taken += length;
    let whole = 0;
    while (whole < this.#chunks.length && this.#taken >= this.#chunks[whole]!.length) {
      this.#taken -= this.#chunks[whole]!.length;
      whole++;
    }
    if (whole > 0) this.#chunks.splice(0, whole);
    if (this.#buffered < RECEIVE_BYTES / 2 && this.#socket.isPaused()) this.#socket.resume();
  }

  receive(frames: Int32Array, from: number, to: number, at: number, each: number, peek: boolean): number {
    const pool = this.owner.pool;
    if (!areFrames(pool, frames, from, to) || from === to || each <= 0 || at < 0) return INVALID;
    for (let i = from; i < to; i++) if (at + each > pool.table[frames[i]! + ROOM]!) return INVALID;
    if (this.#buffered === 0) return this.#nothing();
    let done = 0;
    for (let i = from; i < to && done < this.#buffered; i++) {
      done += this.#peek(done, pool.bytes, pool.table[frames[i]! + SLOT]! + at, each);
    }
    if (!peek) this.#take(done);
    return done;
  }

  receiveBytes(target: Uint8Array, from: number, to: number): number {
    if (!(from >= 0 && from < to && to <= target.length)) return INVALID;
    if (this.#buffered === 0) return this.#nothing();
    const done = this.#peek(0, target, from, to - from);
    this.#take(done);
    return done;
  }

  discard(length: number): number {
    if (!(length >= 0)) return INVALID;
    if (length === 0) return 0;
    if (this.#buffered === 0) return this.#nothing();
    const done = Math.min(length, this.#buffered);
    this.#take(done);
    return done;
  }

  /** Room for sending now, or a negative errno. */
  #room(): number {
    if (this.error !== 0) return -this.takeError();
    if (this.#gone || this.#shut || this.#socket.writableEnded) return -ERRNO.EPIPE;
    if (!this.#connected) return AGAIN;
    const room = SEND_BYTES - this.#socket.writableLength;
    return room > 0 ? room : AGAIN;
  }

  sendBytes(source: Uint8Array, from: number, to: number): number {
    if (!(from >= 0 && from <= to && to <= source.length)) return INVALID;
    const room = this.#room();
    if (room < 0) return room;
    const part = source.slice(from, Math.min(to, from + room));
    if (part.length > 0) this.#socket.write(part);
    return part.length;
  }

  /** With `framed`, a 4-byte big-endian length goes in front of each frame; `skip` counts these. */
  send(frames: Int32Array, from: number, to: number, skip: number, framed: boolean): number {
    const pool = this.owner.pool;
    if (!areFrames(pool, frames, from, to) || skip < 0) return INVALID;
    if (from === to) return skip === 0 ? 0 : INVALID;
    const ahead = framed ? 4 : 0;
    let total = -skip;
    for (let i = from; i < to; i++) {
      const length = segmentBytes(pool, frames[i]!);
      if (length < 0 || (i === from && skip > length + ahead)) return INVALID;
      total += ahead + length;
    }
    const room = this.#room();
    if (room < 0) return room;
    const size = Math.min(total, room);
    const message = new Uint8Array(size);
    let at = 0;
    for (let i = from; i < to && at < size; i++) {
      const length = segmentBytes(pool, frames[i]!);
      if (framed) {
        for (let k = skip; k < 4 && at < size; k++) message[at++] = (length >>> (24 - 8 * k)) & 0xff;
        skip = Math.max(0, skip - 4);
      }
      at += pool.read(frames[i]!, skip, message, at, Math.min(length - skip, size - at));
      skip = 0;
    }
    if (size > 0) this.#socket.write(message);
    return size;
  }
}

/**
 * A channel on a handle of host I/O: a connection, a pipe, a terminal. It reads only while its user takes what it reads, and asks to be
 * told of room only while a write was refused.
 *
 * Where both ends can pass descriptors (unix sockets under the native host I/O) they are collected as they arrive, at most MAX_FDS; more
 * are closed and counted. Those that nobody took are closed with the channel.
 */

import { ERRNO, FAILED, type Handle, type HostIo, HUNG_UP, READABLE, WRITABLE } from '../host-io/host-io.ts';
import type { Channel, ChannelUser, ChardevStats } from './chardev.ts';

/** Where bytes are read to and written at; a pair of pipes has two handles. */
export interface HandlePair {
  /** -1: nothing is ever read. */
  readonly input: Handle;
  readonly output: Handle;
}

export interface HandleChannelOptions {
  readonly label: string;
  /** Descriptors may arrive beside the bytes. */
  readonly passesFds: boolean;
  readonly stats: ChardevStats;
  /** The channel ended, for whatever reason; its handles are closed. */
  readonly onClose: (channel: HandleChannel) => void;
}

const BUFFER_BYTES = 65_536;
const MAX_FDS = 16;
/** Buffers handed over for each wake-up: one busy peer does not keep the others waiting. */
const READS_PER_TURN = 4;

export class HandleChannel implements Channel {
  readonly #io: HostIo;
  readonly #handles: HandlePair;
  readonly #options: HandleChannelOptions;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #fds: Handle[] = [];
  #user: ChannelUser | null = null;
  /** bytes of #buffer that arrived and were not taken. */
  #from = 0;
  #to = 0;
  #paused = true;
  #pumping = false;
  #wantsRoom = false;
  #ended = false;
  #closed = false;

  constructor(io: HostIo, handles: HandlePair, options: HandleChannelOptions) {
    this.#io = io;
    this.#handles = handles;
    this.#options = options;
  }

  /** Tells `user` what arrives from now on. */
  serve(user: ChannelUser): void {
    this.#user = user;
    if (this.#closed) {
      user.closed?.();
      return;
    }
    const { input, output } = this.#handles;
    this.#paused = false;
    if (input === output) {
      this.#io.watch(input, READABLE, (ready) => this.#ready(ready));
    } else {
      if (input !== -1) this.#io.watch(input, READABLE, (ready) => this.#ready(ready & ~WRITABLE));
      this.#io.watch(output, 0, (ready) => this.#ready(ready & ~READABLE));
    }
    if (this.#wantsRoom) this.#setInterest();
  }

  describe(): string {
    return this.#options.label;
  }

  #ready(ready: number): void {
    if (this.#closed) return;
    if ((ready & WRITABLE) !== 0 && this.#wantsRoom) {
      this.#wantsRoom = false;
      this.#setInterest();
      this.#user?.writable?.();
    }
    if (this.#closed) return;
    if ((ready & (READABLE | HUNG_UP | FAILED)) === 0) return;
    if (!this.#paused && !this.#ended) this.#pump();
    else if ((ready & FAILED) !== 0) this.#end();
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      for (let reads = 0; reads < READS_PER_TURN && !this.#paused && !this.#closed; reads++) {
        const got = this.#read();
        if (got === -ERRNO.EAGAIN) return;
        if (got < 0) {
          this.#end();
          return;
        }
        if (got === 0) {
          this.#ended = true;
          this.#setInterest();
          if (this.#user?.ended === undefined) this.#end();
          else this.#user.ended();
          return;
        }
        this.#options.stats.rxBytes += got;
        this.#from = 0;
        this.#to = got;
        this.#deliver();
        if (got < BUFFER_BYTES) return;
      }
    } finally {
      this.#pumping = false;
    }
  }

  #read(): number {
    const { input } = this.#handles;
    if (!this.#options.passesFds) return this.#io.receiveBytes(input, this.#buffer, 0, BUFFER_BYTES);
    const { bytes, fds, excessFds } = this.#io.receiveWithFds(input, this.#buffer, MAX_FDS);
    this.#options.stats.dropFds += excessFds;
    for (const fd of fds) {
      if (this.#fds.length < MAX_FDS) {
        this.#fds.push(fd);
      } else {
        this.#options.stats.dropFds++;
        this.#io.close(fd);
      }
    }
    return bytes;
  }

  #deliver(): void {
    while (this.#from < this.#to && !this.#closed) {
      const taken = this.#user!.receive(this.#buffer, this.#from, this.#to);
      this.#from += taken;
      if (this.#from < this.#to && taken === 0) {
        this.#paused = true;
        this.#setInterest();
        return;
      }
    }
  }

  resume(): void {
    if (!this.#paused || this.#closed || this.#user === null) return;
    this.#paused = false;
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      this.#deliver();
    } finally {
      this.#pumping = false;
    }
    this.#setInterest();
  }

  get passesFds(): boolean {
    return this.#options.passesFds;
  }

  write(bytes: Uint8Array, from: number, to: number, fds: readonly Handle[] = []): number {
    if (this.#closed || from === to) return 0;
    let at = from;
    while (at < to) {
      const sent =
        at === from && fds.length > 0
          ? this.#io.sendWithFds(this.#handles.output, bytes.subarray(from, to), fds)
          : this.#io.sendBytes(this.#handles.output, bytes, at, to);
      if (sent === -ERRNO.EAGAIN || sent === -ERRNO.ENOBUFS) break;
      if (sent < 0) {
        this.#end();
        return at - from;
      }
      at += sent;
      this.#options.stats.txBytes += sent;
    }
    if (at < to && !this.#wantsRoom) {
      this.#wantsRoom = true;
      this.#setInterest();
    }
    return at - from;
  }

  #setInterest(): void {
    if (this.#closed || this.#user === null) return;
    const { input, output } = this.#handles;
    const reads = this.#paused || this.#ended ? 0 : READABLE;
    const writes = this.#wantsRoom ? WRITABLE : 0;
    if (input === output) {
      this.#io.setInterest(input, reads | writes);
    } else {
      if (input !== -1) this.#io.setInterest(input, reads);
      this.#io.setInterest(output, writes);
    }
  }

  takeFds(): Handle[] {
    return this.#fds.splice(0);
  }

  /** The other end went, or the descriptor failed. */
  #end(): void {
    if (this.#closed) return;
    const user = this.#user;
    this.close();
    user?.closed?.();
  }

  /** Ends it as if the other end had gone: the user is told. */
  cut(): void {
    this.#end();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const fd of this.#fds.splice(0)) this.#io.close(fd);
    const { input, output } = this.#handles;
    if (input !== -1) this.#io.close(input);
    if (output !== input) this.#io.close(output);
    this.#options.onClose(this);
  }
}

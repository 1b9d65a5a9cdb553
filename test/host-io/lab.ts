/** A host, a pool and the waiting that tests of host I/O share. Nothing sleeps: tests wait for readiness, or for turns of the event loop. */

import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { FramePool } from '../../src/core/pool.ts';
import { type Handle, type HostIo, READABLE, WRITABLE } from '../../src/host-io/host-io.ts';

export const LOOPBACK = { address: '127.0.0.1', port: 0 };

export class Lab {
  readonly host: HostIo;
  readonly pool: FramePool;
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-host-io-'));
  readonly #descriptors = openDescriptors();

  constructor(
    make: () => HostIo,
    pool = new FramePool({ smallSlots: 512, largeSlots: 16, bareRecords: 2048, debug: true }),
  ) {
    this.host = make();
    this.pool = pool;
    this.host.attachPool(pool);
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Resolves with the bits that `listener` is told first; the handle then stays watched with interest 0. */
  ready(handle: Handle, interest: number): Promise<number> {
    return new Promise((resolve) => {
      this.host.watch(handle, interest, (bits) => {
        if ((bits & interest) === 0 && interest !== 0 && (bits & 12) === 0) return;
        this.host.setInterest(handle, 0);
        resolve(bits);
      });
    });
  }

  /** A listener, a connection to it and the accepted end. */
  async tcpPair(): Promise<{ listener: Handle; client: Handle; server: Handle }> {
    const listener = this.host.tcpListen(LOOPBACK);
    const client = this.host.tcpConnect(this.host.localEndpoint(listener));
    await this.ready(client, WRITABLE);
    return { listener, client, server: await this.accept(listener) };
  }

  async accept(listener: Handle): Promise<Handle> {
    for (;;) {
      const handle = this.host.accept(listener);
      if (handle > 0) return handle;
      expect(handle).toBe(-11);
      await this.ready(listener, READABLE);
    }
  }

  frames(...contents: (Uint8Array | string)[]): Int32Array {
    return Int32Array.from(contents, (content) => {
      const frame = this.pool.from(typeof content === 'string' ? text(content) : content);
      expect(frame).not.toBe(0);
      return frame;
    });
  }

  /** Frames with empty slots. */
  slots(count: number, bytes = 2048): Int32Array {
    return Int32Array.from({ length: count }, () => this.pool.alloc(bytes));
  }

  bytesOf(frame: number): Uint8Array {
    return this.pool.toBytes(frame);
  }

  /** What lies in the slot of `frame`, records aside. */
  slotBytes(frame: number, at: number, length: number): Uint8Array {
    const start = this.pool.table[frame + 13]! + at;
    return this.pool.bytes.slice(start, start + length);
  }

  release(...lists: Int32Array[]): void {
    for (const list of lists) this.pool.releaseAll(list, 0, list.length);
  }

  /** Receives exactly `length` bytes of a stream. */
  async receiveAll(handle: Handle, length: number): Promise<Uint8Array> {
    const target = new Uint8Array(length);
    let at = 0;
    while (at < length) {
      const got = this.host.receiveBytes(handle, target, at, length);
      if (got === -11) await this.ready(handle, READABLE);
      else if (got <= 0) throw new Error(`receive returned ${got} after ${at} bytes`);
      else at += got;
    }
    return target;
  }

  /** The end of a stream: 0, or a negative errno. */
  async receiveEnd(handle: Handle): Promise<number> {
    const target = new Uint8Array(16);
    for (;;) {
      const got = this.host.receiveBytes(handle, target, 0, 16);
      if (got === -11) await this.ready(handle, READABLE);
      else return got;
    }
  }

  /** Fills frames[from..to) with datagrams, waiting for them all. */
  async receiveDatagrams(handle: Handle, frames: Int32Array, at = 0, addresses?: Uint8Array): Promise<void> {
    let done = 0;
    while (done < frames.length) {
      const got = this.host.receiveDatagrams(handle, frames, done, frames.length, at, addresses);
      if (got === -11) await this.ready(handle, READABLE);
      else if (got < 0) throw new Error(`receive returned ${got}`);
      else done += got;
    }
  }

  async sendDatagrams(
    handle: Handle,
    frames: Int32Array,
    ...rest: [] | [{ address: string; port: number }]
  ): Promise<void> {
    let done = 0;
    while (done < frames.length) {
      const sent = this.host.sendDatagrams(handle, frames, done, frames.length, ...rest);
      if (sent === -11) await this.ready(handle, WRITABLE);
      else if (sent < 0) throw new Error(`send returned ${sent}`);
      else done += sent;
    }
  }

  /** Ends the host and checks that nothing is left: no frame, no descriptor, no file. */
  async end(): Promise<void> {
    this.host.shutdown();
    expect(this.pool.free).toBe(this.pool.capacity);
    // Node closes its sockets in later turns.
    for (let turns = 0; turns < 200 && descriptorsSince(this.#descriptors).length > 0; turns++) await turn();
    expect(descriptorsSince(this.#descriptors)).toEqual([]);
    expect(readdirSync(this.folder)).toEqual([]);
    rmSync(this.folder, { recursive: true });
  }
}

/** What is open now and was not among `before`; what an earlier test left to Node to close may have gone since. */
export function descriptorsSince(before: readonly string[]): string[] {
  return openDescriptors().filter((descriptor) => !before.includes(descriptor));
}

/** Sockets, eventfds and the like that this process has open. */
export function openDescriptors(): string[] {
  const kinds: string[] = [];
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      const target = readlinkSync(`/proc/self/fd/${name}`);
      if (/^socket:|anon_inode|memfd|\/dev\/net\/tun/.test(target))
        kinds.push(`${name} ${target.replace(/\d+/g, '')}`);
    } catch {
      // The descriptor of the listing itself.
    }
  }
  return kinds;
}

export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

export function show(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** Bytes that differ from place to place. */
export function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) * 13 + seed * 31) & 0xff);
}

/**
 * A vhost-user front-end for tests, written from the protocol's text and not from the back-end: it shares a memfd as guest RAM, lays rings in it with the driver's half that the probe guest
 * uses, and sends any bytes with any descriptors.
 */

import { GuestRam } from '../../../src/guest/driver/guest-ram.ts';
import type { DriverRing } from '../../../src/guest/driver/virtio-ring.ts';
import { PackedDriverRing, SplitDriverRing } from '../../../src/guest/driver/virtio-ring.ts';
import { type Handle, type HostIo, READABLE } from '../../../src/host-io/host-io.ts';

export const RAM_BYTES = 16 << 20;
export const GUEST = 0x1_0000_0000;
export const USER = 0x7f00_0000_0000;
export const RING_SIZE = 64;
const HEADER = 12;
const NEED_REPLY = 8;

export const F_VERSION_1 = 1n << 32n;
export const F_PACKED = 1n << 34n;
export const F_EVENT_IDX = 1n << 29n;
export const F_INDIRECT = 1n << 28n;
export const F_MRG_RXBUF = 1n << 15n;
export const F_PROTOCOL = 1n << 30n;
export const F_CSUM = 1n << 0n;
export const F_HOST_TSO4 = 1n << 11n;

/** Little-endian fields: value and bytes of each. */
export function fields(...list: readonly (readonly [number | bigint, 2 | 4 | 8])[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(list.reduce((sum, [, size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [value, size] of list) {
    if (size === 8) view.setBigUint64(at, BigInt(value), true);
    else if (size === 4) view.setUint32(at, Number(value), true);
    else view.setUint16(at, Number(value), true);
    at += size;
  }
  return bytes;
}

export const u64 = (value: number | bigint): Uint8Array => fields([value, 8]);
export const state = (index: number, value: number): Uint8Array => fields([index, 4], [value, 4]);
export const region = (
  guest: number | bigint,
  bytes: number | bigint,
  user: number | bigint,
  offset: number | bigint,
): Uint8Array => fields([guest, 8], [bytes, 8], [user, 8], [offset, 8]);

export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export interface Reply {
  request: number;
  flags: number;
  payload: Uint8Array;
  view: DataView;
}

export class FrontEnd {
  readonly hostIo: HostIo;
  handle: Handle;
  readonly ramFd: Handle;
  readonly ram: GuestRam;
  ended = false;
  readonly #memory: Uint8Array;
  readonly #replies: Reply[] = [];
  #bytes = new Uint8Array(0);
  #waiting: (() => void) | null = null;
  /** Descriptors that came with replies. */
  readonly received: Handle[] = [];
  readonly kicks: Handle[] = [];
  readonly calls: Handle[] = [];
  readonly errors: Handle[] = [];
  readonly rings: DriverRing[] = [];

  /** `ramFd`: a file of RAM_BYTES, in place of a memfd, which cannot be cut short. */
  constructor(hostIo: HostIo, handle: Handle, ramFd = hostIo.memoryFd('ram', RAM_BYTES)) {
    this.hostIo = hostIo;
    this.handle = handle;
    this.ramFd = ramFd;
    this.#memory = hostIo.map(this.ramFd, 0, RAM_BYTES);
    this.ram = new GuestRam(RAM_BYTES, GUEST, this.#memory);
    hostIo.watch(handle, READABLE, () => this.#read());
  }

  /** Goes on with another back-end on the same memory. */
  reconnect(handle: Handle): void {
    this.handle = handle;
    this.ended = false;
    this.#bytes = new Uint8Array(0);
    this.hostIo.watch(handle, READABLE, () => this.#read());
  }

  #read(): void {
    const chunk = new Uint8Array(1 << 16);
    const { bytes: got, fds } = this.hostIo.receiveWithFds(this.handle, chunk, 8);
    this.received.push(...fds);
    if (got === 0 || (got < 0 && got !== -11)) {
      this.ended = true;
      this.hostIo.setInterest(this.handle, 0);
    }
    if (got > 0) this.#bytes = concat(this.#bytes, chunk.subarray(0, got));
    for (;;) {
      if (this.#bytes.length < HEADER) break;
      const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset);
      const size = view.getUint32(8, true);
      if (this.#bytes.length < HEADER + size) break;
      const payload = this.#bytes.slice(HEADER, HEADER + size);
      this.#replies.push({
        request: view.getUint32(0, true),
        flags: view.getUint32(4, true),
        payload,
        view: new DataView(payload.buffer),
      });
      this.#bytes = this.#bytes.slice(HEADER + size);
    }
    this.#waiting?.();
  }

  /** Sends one message, whatever it is. */
  send(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    {
      fds = [],
      flags = 1,
      size = payload.length,
    }: { fds?: readonly Handle[]; flags?: number; size?: number } = {},
  ): void {
    const bytes = concat(fields([request, 4], [flags, 4], [size, 4]), payload);
    const sent = this.hostIo.sendWithFds(this.handle, bytes, fds);
    if (sent !== bytes.length) throw new Error(`sent ${sent} of ${bytes.length} bytes`);
  }

  /** The next reply, or null when the back-end has closed. */
  async receive(): Promise<Reply | null> {
    while (this.#replies.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    this.#waiting = null;
    return this.#replies.shift() ?? null;
  }

  /** Sends a request that has a reply of its own. */
  async get(request: number, payload?: Uint8Array): Promise<Reply> {
    this.send(request, payload);
    const reply = await this.receive();
    if (reply === null) throw new Error(`request ${request} ended the connection`);
    if (reply.request !== request || reply.flags !== 5) throw new Error(`not the reply to ${request}`);
    return reply;
  }

  async getU64(request: number): Promise<bigint> {
    return (await this.get(request)).view.getBigUint64(0, true);
  }

  /** Sends a request with NEED_REPLY; returns the errno. */
  async call(request: number, payload?: Uint8Array, fds: readonly Handle[] = []): Promise<number> {
    this.send(request, payload, { fds, flags: 1 | NEED_REPLY });
    const reply = await this.receive();
    if (reply === null) throw new Error(`request ${request} ended the connection`);
    if (reply.request !== request) throw new Error(`not the reply to ${request}`);
    return Number(reply.view.getBigUint64(0, true));
  }

  async ok(request: number, payload?: Uint8Array, fds: readonly Handle[] = []): Promise<void> {
    const errno = await this.call(request, payload, fds);
    if (errno !== 0) throw new Error(`request ${request} failed with errno ${errno}`);
  }

  /** Features, protocol features and memory. */
  async begin(features: bigint): Promise<void> {
    await this.getU64(1);
    const protocol = await this.getU64(15);
    this.send(16, u64(protocol));
    await this.ok(3);
    await this.ok(2, u64(features | F_PROTOCOL | F_VERSION_1));
    await this.ok(5, concat(fields([1, 4], [0, 4]), region(GUEST, RAM_BYTES, USER, 0)), [this.ramFd]);
  }

  user(guest: number): number {
    return guest - GUEST + USER;
  }

  /** Lays a ring and hands it over; an even one receives. */
  async addRing(index: number, features: bigint, base?: number): Promise<DriverRing> {
    const { hostIo } = this;
    const Kind = (features & F_PACKED) !== 0n ? PackedDriverRing : SplitDriverRing;
    const ring = new Kind(this.ram, RING_SIZE, {
      eventIdx: (features & F_EVENT_IDX) !== 0n,
      indirect: index % 2 === 1 && (features & F_INDIRECT) !== 0n,
      parts: index % 2 === 0 ? 1 : 2,
    });
    this.rings[index] = ring;
    this.kicks[index] = hostIo.eventFd();
    this.calls[index] = hostIo.eventFd();
    this.errors[index] = hostIo.eventFd();
    await this.startRing(index, base ?? ((features & F_PACKED) !== 0n ? 0x8000_8000 : 0));
    return ring;
  }

  async startRing(index: number, base: number): Promise<void> {
    const ring = this.rings[index]!;
    await this.ok(8, state(index, ring.size));
    await this.ok(10, state(index, base));
    await this.ok(
      9,
      fields(
        [index, 4],
        [0, 4],
        [this.user(ring.descriptors), 8],
        [this.user(ring.device), 8],
        [this.user(ring.driver), 8],
        [0, 8],
      ),
    );
    await this.ok(12, u64(index), [this.kicks[index]!]);
    await this.ok(13, u64(index), [this.calls[index]!]);
    await this.ok(14, u64(index), [this.errors[index]!]);
    await this.ok(18, state(index, 1));
  }

  /** Shows what was put, and kicks. */
  kick(index: number): void {
    this.rings[index]!.publish();
    this.hostIo.signal(this.kicks[index]!);
  }

  close(): void {
    this.ended = true;
    this.hostIo.close(this.handle);
    for (const fd of [...this.kicks, ...this.calls, ...this.errors, this.ramFd])
      if (fd) this.hostIo.close(fd);
    this.hostIo.unmap(this.#memory);
    this.kicks.length = 0;
    this.calls.length = 0;
    this.errors.length = 0;
  }
}

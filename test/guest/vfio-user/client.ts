/**
 * A vfio-user client for tests, written from the protocol's text and not from the server: it sends any bytes with any descriptors, and hands out
 * what comes back as messages.
 */

import { type Handle, type HostIo, READABLE } from '../../../src/host-io/host-io.ts';

export interface Message {
  id: number;
  command: number;
  flags: number;
  errno: number;
  payload: Uint8Array;
  view: DataView;
}

export interface SendOptions {
  id?: number;
  flags?: number;
  fds?: readonly Handle[];
  /** What the header says, instead of the truth. */
  size?: number;
}

const HEADER = 16;
export const REPLY = 1;
export const NO_REPLY = 0x10;
export const ERROR = 0x20;

export class VfioClient {
  readonly hostIo: HostIo;
  readonly handle: Handle;
  ended = false;
  readonly #received: Message[] = [];
  #bytes = new Uint8Array(0);
  #waiting: (() => void) | null = null;
  #nextId = 100;

  constructor(hostIo: HostIo, path: string) {
    this.hostIo = hostIo;
    this.handle = hostIo.unixConnect(path);
    hostIo.watch(this.handle, READABLE, () => this.#read());
  }

  #read(): void {
    const chunk = new Uint8Array(1 << 20);
    const got = this.hostIo.receiveBytes(this.handle, chunk, 0, chunk.length);
    if (got === 0 || (got < 0 && got !== -11)) {
      this.ended = true;
      this.hostIo.setInterest(this.handle, 0);
    }
    if (got > 0) this.#append(chunk.subarray(0, got));
    this.#waiting?.();
  }

  #append(chunk: Uint8Array): void {
    const all = new Uint8Array(this.#bytes.length + chunk.length);
    all.set(this.#bytes);
    all.set(chunk, this.#bytes.length);
    this.#bytes = all;
    for (;;) {
      const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset);
      if (this.#bytes.length < HEADER) return;
      const size = view.getUint32(4, true);
      if (this.#bytes.length < size) return;
      const payload = this.#bytes.slice(HEADER, size);
      this.#received.push({
        id: view.getUint16(0, true),
        command: view.getUint16(2, true),
        flags: view.getUint32(8, true),
        errno: view.getUint32(12, true),
        payload,
        view: new DataView(payload.buffer),
      });
      this.#bytes = this.#bytes.slice(size);
    }
  }

  /** Bytes of one message. */
  static encode(command: number, payload: Uint8Array, options: SendOptions = {}): Uint8Array {
    const bytes = new Uint8Array(HEADER + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, options.id ?? 0, true);
    view.setUint16(2, command, true);
    view.setUint32(4, options.size ?? bytes.length, true);
    view.setUint32(8, options.flags ?? 0, true);
    bytes.set(payload, HEADER);
    return bytes;
  }

  sendRaw(bytes: Uint8Array, fds: readonly Handle[] = []): void {
    const sent = this.hostIo.sendWithFds(this.handle, bytes, fds);
    if (sent !== bytes.length) throw new Error(`sent ${sent} of ${bytes.length} bytes`);
  }

  /** Sends a command; returns its id. */
  send(command: number, payload: Uint8Array, options: SendOptions = {}): number {
    const id = options.id ?? this.#nextId++ & 0xffff;
    this.sendRaw(VfioClient.encode(command, payload, { ...options, id }), options.fds ?? []);
    return id;
  }

  /** The next message, or null when the server has closed. */
  async receive(): Promise<Message | null> {
    while (this.#received.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    this.#waiting = null;
    return this.#received.shift() ?? null;
  }

  /** Sends a command and waits for its reply. */
  async call(command: number, payload: Uint8Array, options: SendOptions = {}): Promise<Message> {
    const id = this.send(command, payload, options);
    const message = await this.receive();
    if (message === null) throw new Error('the server closed the connection');
    if (message.id !== id || message.command !== command || (message.flags & 15) !== REPLY) {
      throw new Error(`not the reply to ${command}/${id}: ${JSON.stringify(message)}`);
    }
    return message;
  }

  /** The same, for a command that must succeed. */
  async ok(command: number, payload: Uint8Array, options: SendOptions = {}): Promise<Message> {
    const message = await this.call(command, payload, options);
    if ((message.flags & ERROR) !== 0)
      throw new Error(`command ${command} failed with errno ${message.errno}`);
    return message;
  }

  /** The same, for one that must fail; returns the errno. */
  async fails(command: number, payload: Uint8Array, options: SendOptions = {}): Promise<number> {
    const message = await this.call(command, payload, options);
    if ((message.flags & ERROR) === 0) throw new Error(`command ${command} succeeded`);
    if (message.payload.length !== 0) throw new Error('an error reply carries a payload');
    return message.errno;
  }

  async negotiate(
    capabilities: object = { max_msg_fds: 8, max_data_xfer_size: 1 << 20, write_multiple: true },
  ): Promise<Message> {
    const json = new TextEncoder().encode(`${JSON.stringify({ capabilities })}\0`);
    const payload = new Uint8Array(4 + json.length);
    payload.set(json, 4);
    return this.ok(1, payload);
  }

  async read(region: number, offset: number, count: number): Promise<Uint8Array> {
    const message = await this.ok(9, fields([offset, 8], [region, 4], [count, 4]));
    return message.payload.slice(16);
  }

  async read32(region: number, offset: number): Promise<number> {
    return new DataView((await this.read(region, offset, 4)).buffer).getUint32(0, true);
  }

  async write(region: number, offset: number, data: Uint8Array): Promise<void> {
    await this.ok(10, concat(fields([offset, 8], [region, 4], [data.length, 4]), data));
  }

  async write32(region: number, offset: number, value: number): Promise<void> {
    await this.write(region, offset, fields([value, 4]));
  }

  async map(address: number, length: number, fd: Handle | null, offset = 0, flags = 3): Promise<void> {
    await this.ok(2, dmaMap(address, length, offset, flags), { fds: fd === null ? [] : [fd] });
  }

  async unmap(address: number, length: number): Promise<void> {
    await this.ok(3, fields([24, 4], [0, 4], [address, 8], [length, 8]));
  }

  close(): void {
    this.hostIo.close(this.handle);
    this.ended = true;
    this.#waiting?.();
  }
}

export function dmaMap(address: number, length: number, offset = 0, flags = 3): Uint8Array {
  return fields([32, 4], [flags, 4], [offset, 8], [address, 8], [length, 8]);
}

export function setIrqs(
  flags: number,
  index: number,
  start: number,
  count: number,
  bools: readonly number[] = [],
): Uint8Array {
  return concat(
    fields([20 + bools.length, 4], [flags, 4], [index, 4], [start, 4], [count, 4]),
    Uint8Array.from(bools),
  );
}

/** Little-endian fields: [value, bytes]. */
export function fields(...list: readonly (readonly [number | bigint, 1 | 2 | 4 | 8])[]): Uint8Array {
  const bytes = new Uint8Array(list.reduce((sum, [, size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [value, size] of list) {
    let rest = BigInt(value);
    for (let i = 0; i < size; i++) {
      view.setUint8(at++, Number(rest & 255n));
      rest >>= 8n;
    }
  }
  return bytes;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

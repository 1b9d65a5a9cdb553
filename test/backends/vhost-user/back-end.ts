/**
 * A vhost-user back-end for tests, written from the protocol's text: it answers as it should, or as a script says, and keeps what it was told. It serves no ring.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Handle, READABLE } from '../../../src/host-io/host-io.ts';
import { NativeHostIo } from '../../../src/host-io/native.ts';
import { concat, fields, u64 } from '../../guest/vhost-user/front-end.ts';

export const F_MRG_RXBUF = 1n << 15n;
export const F_INDIRECT = 1n << 28n;
export const F_EVENT_IDX = 1n << 29n;
export const F_PROTOCOL = 1n << 30n;
export const F_VERSION_1 = 1n << 32n;
export const F_PACKED = 1n << 34n;

export const PF = { mq: 1, rarp: 4, ack: 8, mtu: 16, inflight: 1 << 12, reset: 1 << 13, slots: 1 << 15 };

export interface Told {
  request: number;
  flags: number;
  payload: Uint8Array;
  view: DataView;
  fds: number;
}

export interface Script {
  features?: bigint;
  protocol?: number;
  pairs?: number;
  slots?: number;
  /** Instead of the right answer to a message: these bytes, with these descriptors; null: none at all. */
  answer?: (told: Told, right: Uint8Array | null) => { bytes: Uint8Array; fds?: Handle[] } | null;
}

/** A reply as the protocol writes it. */
export function replyTo(request: number, payload: Uint8Array, flags = 5): Uint8Array<ArrayBuffer> {
  return concat(fields([request, 4], [flags, 4], [payload.length, 4]), payload);
}

export class BackEnd {
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-vhost-back-'));
  readonly path = join(this.folder, 'back.sock');
  readonly hostIo = new NativeHostIo();
  readonly told: Told[] = [];
  connections = 0;
  script: Script;
  #connection: Handle = 0;
  #bytes = new Uint8Array(0);
  #fds: Handle[] = [];
  /** In-flight areas that were handed out. */
  areas = 0;

  constructor(script: Script = {}) {
    this.script = script;
    const listener = this.hostIo.unixListen(this.path);
    this.hostIo.watch(listener, READABLE, () => {
      const handle = this.hostIo.accept(listener);
      if (handle > 0) this.#accepted(handle);
    });
  }

  #accepted(handle: Handle): void {
    this.hang();
    this.connections++;
    this.#connection = handle;
    this.#bytes = new Uint8Array(0);
    this.hostIo.watch(handle, READABLE, () => this.#read(handle));
  }

  /** Dies. */
  hang(): void {
    if (this.#connection !== 0) this.hostIo.close(this.#connection);
    this.#connection = 0;
    for (const fd of this.#fds.splice(0)) this.hostIo.close(fd);
  }

  requests(): number[] {
    return this.told.map(({ request }) => request);
  }

  lastOf(request: number): Told | undefined {
    return this.told.findLast((one) => one.request === request);
  }

  #read(handle: Handle): void {
    const chunk = new Uint8Array(1 << 16);
    const { bytes, fds } = this.hostIo.receiveWithFds(handle, chunk, 16);
    this.#fds.push(...fds);
    if (bytes === 0 || (bytes < 0 && bytes !== -11)) {
      this.hang();
      return;
    }
    if (bytes > 0) this.#bytes = concat(this.#bytes, chunk.subarray(0, bytes));
    while (this.#bytes.length >= 12 && this.#connection === handle) {
      const head = new DataView(this.#bytes.buffer);
      const size = head.getUint32(8, true);
      if (this.#bytes.length < 12 + size) return;
      const payload = this.#bytes.slice(12, 12 + size);
      this.#bytes = this.#bytes.slice(12 + size);
      // The front-end waits for acknowledgements: what came is this message's.
      const count = this.#fds.length;
      for (const fd of this.#fds.splice(0)) this.hostIo.close(fd);
      const told = {
        request: head.getUint32(0, true),
        flags: head.getUint32(4, true),
        payload,
        view: new DataView(payload.buffer),
        fds: count,
      };
      this.told.push(told);
      this.#answer(handle, told);
    }
  }

  #answer(handle: Handle, told: Told): void {
    const { hostIo, script } = this;
    const [right, own] = this.#right(told);
    const answer =
      script.answer === undefined ? right && { bytes: right, fds: own } : script.answer(told, right);
    if (answer !== null && answer.bytes.length > 0) {
      if (answer.fds === undefined || answer.fds.length === 0)
        hostIo.sendBytes(handle, answer.bytes, 0, answer.bytes.length);
      else hostIo.sendWithFds(handle, answer.bytes, answer.fds);
    }
    for (const fd of new Set([...own, ...(answer?.fds ?? [])])) hostIo.close(fd);
  }

  /** Sends bytes that nobody asked for. */
  send(bytes: Uint8Array, fds: Handle[] = []): void {
    if (fds.length > 0) this.hostIo.sendWithFds(this.#connection, bytes, fds);
    else this.hostIo.sendBytes(this.#connection, bytes, 0, bytes.length);
    for (const fd of fds) this.hostIo.close(fd);
  }

  #right({ request, flags, payload, view }: Told): [Uint8Array | null, Handle[]] {
    const { features = F_VERSION_1 | F_MRG_RXBUF | F_PROTOCOL, protocol = PF.mq | PF.ack } = this.script;
    const reply = (bytes: Uint8Array, fds: Handle[] = []): [Uint8Array, Handle[]] => [
      replyTo(request, bytes),
      fds,
    ];
    switch (request) {
      case 1:
        return reply(u64(features));
      case 15:
        return reply(u64(protocol));
      case 17:
        return reply(u64(this.script.pairs ?? 2));
      case 36:
        return reply(u64(this.script.slots ?? 32));
      case 11:
        return reply(fields([view.getUint32(0, true), 4], [0, 4]));
      case 31: {
        this.areas++;
        const bytes = 4096;
        const area = this.hostIo.memoryFd('inflight', bytes);
        return reply(concat(u64(bytes), u64(0), payload.subarray(16)), [area]);
      }
      default:
        return (flags & 8) !== 0 ? reply(u64(0)) : [null, []];
    }
  }

  close(): void {
    this.hang();
    this.hostIo.shutdown();
    rmSync(this.folder, { recursive: true });
  }
}

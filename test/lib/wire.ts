/** A character device for tests, and frames as filters write them to one. */

import { BaseChardev } from '../../src/chardev/base.ts';
import type { Channel, ChannelUser } from '../../src/chardev/index.ts';

/** A chardev with one connection, whose other end the test holds. */
export class Wire extends BaseChardev implements Channel {
  written: number[] = [];
  room = Number.POSITIVE_INFINITY;
  closed = false;
  #served: ChannelUser | null = null;
  #unread: Uint8Array = new Uint8Array(0);

  constructor(id = 'wire') {
    super({ id, type: 'null' });
  }

  get connected(): boolean {
    return this.#served !== null;
  }

  connect(): void {
    this.closed = false;
    this.#served = this.user!.opened(this);
  }

  hangUp(): void {
    const served = this.#served;
    this.#served = null;
    served?.closed?.();
  }

  arrive(bytes: Uint8Array): void {
    const unread = new Uint8Array(this.#unread.length + bytes.length);
    unread.set(this.#unread);
    unread.set(bytes, this.#unread.length);
    this.#unread = unread;
    this.resume();
  }

  get unread(): number {
    return this.#unread.length;
  }

  resume(): void {
    while (this.#unread.length > 0 && this.#served !== null) {
      const taken = this.#served.receive(this.#unread, 0, this.#unread.length);
      this.#unread = this.#unread.subarray(taken);
      if (taken === 0) return;
    }
  }

  write(bytes: Uint8Array, from: number, to: number): number {
    const taken = Math.min(this.room, to - from);
    for (let i = from; i < from + taken; i++) this.written.push(bytes[i]!);
    this.room -= taken;
    return taken;
  }

  allow(room: number): void {
    this.room = room;
    this.#served?.writable?.();
  }

  takeFds(): [] {
    return [];
  }

  describe(): string {
    return 'wire';
  }

  protected override attached(): void {}

  protected override detached(): void {
    this.#served = null;
  }

  close(): void {
    this.closed = true;
    this.#served = null;
  }
}

/** Frames as they stand on the wire. */
export function framed(vnetHeader: Uint8Array | null, ...packets: Uint8Array[]): Uint8Array {
  return Uint8Array.from(
    packets.flatMap((bytes) => {
      const total = bytes.length + (vnetHeader?.length ?? 0);
      const header = vnetHeader === null ? [] : [0, 0, 0, vnetHeader.length, ...vnetHeader];
      return [0, 0, total >> 8, total & 0xff, ...header, ...bytes];
    }),
  );
}

/** A virtio-net driven by hand: every descriptor and index is the test's own, right or wrong. */
import { modernTransport, type VirtioTransport } from '../../../src/guest/driver/virtio-transport.ts';
import { Rig, type RigOptions } from './rig.ts';

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;
export const AVAIL = 1 << 7;
export const USED = 1 << 15;
export const VERSION_1 = 32;
export const PACKED = 34;

const QUEUE_BYTES = 0x8000;

/** One queue's memory: descriptors, driver area, device area, and room for buffers. */
export class RawQueue {
  readonly size: number;
  readonly slots = 0;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  readonly buffers: number;
  readonly #raw: Raw;
  #avail = 0;

  constructor(raw: Raw, index: number, size: number) {
    this.#raw = raw;
    this.size = size;
    const base = raw.rig.scratch + index * QUEUE_BYTES;
    this.descriptors = base;
    this.driver = base + 0x1000;
    this.device = base + 0x2000;
    this.buffers = base + 0x4000;
  }

  /** A descriptor of a split ring, or of an indirect table elsewhere. */
  desc(index: number, address: number, length: number, flags = 0, next = 0, table = this.descriptors): void {
    const { words } = this.#raw;
    const at = this.#raw.offset(table) / 4 + 4 * index;
    words[at] = address;
    words[at + 1] = Math.floor(address / 2 ** 32);
    words[at + 2] = length;
    words[at + 3] = flags | (next << 16);
  }

  /** A descriptor of a packed ring. */
  packed(index: number, address: number, length: number, id: number, flags: number): void {
    this.desc(index, address, length, id, flags);
  }

  /** Makes heads available in a split ring, and kicks. */
  offer(...heads: number[]): void {
    const { halves } = this.#raw;
    const at = this.#raw.offset(this.driver) / 2;
    for (const head of heads) {
      halves[at + 2 + (this.#avail % this.size)] = head;
      this.#avail = (this.#avail + 1) & 0xffff;
    }
    halves[at + 1] = this.#avail;
  }

  set availIdx(value: number) {
    this.#avail = value;
    this.#raw.halves[this.#raw.offset(this.driver) / 2 + 1] = value;
  }

  get usedIdx(): number {
    return this.#raw.halves[this.#raw.offset(this.device) / 2 + 1]!;
  }

  used(index: number): { id: number; length: number } {
    const at = this.#raw.offset(this.device) / 4 + 1 + 2 * (index % this.size);
    return { id: this.#raw.words[at]!, length: this.#raw.words[at + 1]! };
  }
}

export class Raw {
  readonly rig: Rig;
  readonly words: Int32Array;
  readonly halves: Uint16Array;
  readonly bytes: Uint8Array;
  readonly transport: VirtioTransport;
  rx!: RawQueue;
  tx!: RawQueue;
  control!: RawQueue;

  constructor(options: RigOptions = {}) {
    this.rig = new Rig({ ...options, open: false });
    const { ram } = this.rig.machine;
    // There is no driver yet that could serve an interrupt.
    this.rig.machine.onInterrupt = null;
    this.bytes = ram.bytes;
    this.words = ram.words;
    this.halves = new Uint16Array(ram.bytes.buffer);
    this.rig.nic.writeConfig(4, 2, 7);
    this.transport = modernTransport(this.rig.nic)!;
  }

  offset(address: number): number {
    return this.rig.machine.ram.offset(address);
  }

  /** Reset, features, queues of `size`, DRIVER_OK. */
  start(features: readonly number[] = [], size = 64): boolean {
    const { transport } = this;
    transport.status = 0;
    transport.status = 3;
    const words = [0, 0];
    for (const bit of [VERSION_1, 17, ...features]) words[bit >> 5]! |= 1 << (bit & 31);
    transport.setFeatures(0, words[0]!);
    transport.setFeatures(1, words[1]!);
    transport.status = 11;
    if ((transport.status & 8) === 0) return false;
    const at = this.offset(this.rig.scratch);
    this.bytes.fill(0, at, at + 3 * QUEUE_BYTES);
    [this.rx, this.tx, this.control] = [0, 1, 2].map(
      (index) => new RawQueue(this, index, Math.min(size, 64)),
    );
    for (const [index, queue] of [this.rx, this.tx, this.control].entries()) {
      if (!transport.enableQueue(index, queue as never, -1)) return false;
    }
    transport.status = 15;
    return true;
  }

  kick(index: number): void {
    this.transport.kick(index);
  }

  get needsReset(): boolean {
    return (this.transport.status & 0x40) !== 0;
  }

  /** A good packet with its header, in two descriptors of the transmit queue. */
  sendGood(): void {
    const { tx } = this;
    const at = this.offset(tx.buffers);
    this.bytes.fill(0, at, at + 12);
    this.bytes.set(this.rig.frame(80), at + 12);
    tx.desc(0, tx.buffers, 12, NEXT, 1);
    tx.desc(1, tx.buffers + 12, 80);
    tx.offer(0);
    this.kick(1);
  }

  /** After a reset the device works with a driver again. */
  expectRecovers(): void {
    const { driver, machine } = this.rig;
    machine.onInterrupt = () => driver.interrupt();
    driver.open();
    this.rig.expectWorks();
  }

  close(): void {
    this.rig.close();
  }
}

/** A virtio-net with its driver in a test machine. */
import { expect } from 'vitest';
import { readDevice } from '../../../src/config/devices/index.ts';
import { type Logger, silentLogger } from '../../../src/core/log.ts';
import { ACCEPT_ALL } from '../../../src/core/port.ts';
import { PacketBatch, type PciAccess } from '../../../src/guest/driver/driver.ts';
import { VirtioDriver, type VirtioDriverOptions } from '../../../src/guest/driver/virtio-driver.ts';
import { VirtioNet, type VirtioNetOptions } from '../../../src/nic/virtio-net/index.ts';
import { TestMachine } from '../../lib/test-machine.ts';

export const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
export const BARE_RECORDS = 1024;

/** The options of a device line's properties, as the table of NICs would make them. */
export function optionsFor(
  properties: Record<string, unknown> = {},
  driver = 'virtio-net-pci',
): VirtioNetOptions {
  const config = readDevice({ driver, ...properties });
  if (config.model !== 'virtio-net') throw new Error('not a virtio-net');
  return { ...config, mac: MAC };
}

export interface RigOptions {
  properties?: Record<string, unknown>;
  driver?: Partial<VirtioDriverOptions>;
  device?: Partial<VirtioNetOptions>;
  name?: string;
  accepts?: number;
  large?: number;
  small?: number;
  open?: boolean;
  debug?: boolean;
  /** A batch's bytes are copied together; default true. */
  together?: boolean;
  log?: Logger;
}

/** The slot that the device is plugged into: the driver keeps it when the device behind it is another. */
class Slot implements PciAccess {
  nic!: VirtioNet;

  readConfig(offset: number, size: number): number {
    return this.nic.readConfig(offset, size);
  }

  writeConfig(offset: number, size: number, value: number): void {
    this.nic.writeConfig(offset, size, value);
  }

  readBar(bar: number, offset: number, size: number): number {
    return this.nic.readBar(bar, offset, size);
  }

  writeBar(bar: number, offset: number, size: number, value: number): void {
    this.nic.writeBar(bar, offset, size, value);
  }
}

export class Rig {
  readonly pci = new Slot();
  readonly machine: TestMachine;
  nic: VirtioNet;
  driver: VirtioDriver;
  readonly received: { bytes: Uint8Array; flags: number; tci: number }[] = [];
  sent = 0;
  ready = 0;
  links: boolean[] = [];
  readonly #options: RigOptions;
  #mark = 0;
  readonly #ringsAt: number;

  constructor(options: RigOptions = {}) {
    this.#options = options;
    const machine = new TestMachine({
      accepts: options.accepts ?? ACCEPT_ALL,
      large: options.large ?? 32,
      small: options.small ?? 512,
      ramBytes: 16 << 20,
      debug: options.debug ?? true,
      together: options.together ?? true,
    });
    this.machine = machine;
    // Room that tests put rings and packets of their own in.
    this.#mark = machine.ram.allocate(1 << 20, 4096);
    this.nic = this.makeNic();
    this.pci.nic = this.nic;
    for (const port of this.nic.ports.slice(0, 1)) machine.plug(port);
    this.driver = this.makeDriver();
    this.#ringsAt = machine.ram.address + machine.ram.mark();
    if (options.open !== false) expect(this.driver.open()).toBe(true);
  }

  get scratch(): number {
    return this.#mark;
  }

  makeNic(): VirtioNet {
    const { machine } = this;
    return new VirtioNet(
      { host: machine, link: machine.link, name: 'net0', log: this.#options.log ?? silentLogger },
      { ...optionsFor(this.#options.properties, this.#options.name), ...this.#options.device },
    );
  }

  makeDriver(more: Partial<VirtioDriverOptions> = {}): VirtioDriver {
    const { machine } = this;
    const driver = new VirtioDriver({
      pci: this.pci,
      ram: machine.ram,
      loop: machine.loop,
      ...this.#options.driver,
      ...more,
    });
    driver.listener = {
      received: (address, length, flags, tci) => {
        const at = machine.ram.offset(address);
        this.received.push({ bytes: machine.ram.bytes.slice(at, at + length), flags, tci });
      },
      sent: (count) => {
        this.sent += count;
      },
      sendReady: () => {
        this.ready++;
      },
      linkChanged: (up) => {
        this.links.push(up);
      },
    };
    machine.onInterrupt = () => driver.interrupt();
    return driver;
  }

  /** Where the driver's first ring lies; the others follow. */
  get ringsAt(): number {
    return this.#ringsAt;
  }

  /** Runs `ns` of virtual time with a driver that may be out of its depth: interrupts that stay up are no one's fault. */
  turns(ns: number): void {
    const before = this.machine.onInterrupt;
    let left = 100;
    this.machine.onInterrupt = () => {
      if (left-- > 0) before?.();
      else this.machine.onInterrupt = null;
    };
    this.machine.settle(ns);
    this.machine.onInterrupt = before;
  }

  /** Puts a packet of `length` bytes into guest RAM. */
  packet(length: number, seed = 1): number {
    const address = this.machine.ram.allocate(length + 2) + 2;
    const at = this.machine.ram.offset(address);
    for (let i = 0; i < length; i++) this.machine.ram.bytes[at + i] = (i * 7 + seed) & 0xff;
    this.machine.ram.bytes.set([2, 0, 0, 0, 0, 1], at);
    this.machine.ram.bytes.set(MAC, at + 6);
    this.machine.ram.bytes.set([0x88, 0xb5], at + 12);
    return address;
  }

  bytesAt(address: number, length: number): Uint8Array {
    const at = this.machine.ram.offset(address);
    return this.machine.ram.bytes.slice(at, at + length);
  }

  /** Sends packets of these lengths and runs what is due; returns their bytes. */
  sendAll(lengths: readonly number[]): Uint8Array[] {
    const batch = new PacketBatch(lengths.length);
    const addresses = lengths.map((length, i) => this.packet(length, i));
    lengths.forEach((length, i) => {
      batch.plain(i, addresses[i]!, length);
    });
    expect(this.driver.send(batch, 0, lengths.length)).toBe(lengths.length);
    this.machine.settle();
    return lengths.map((length, i) => this.bytesAt(addresses[i]!, length));
  }

  /** A frame for the NIC. */
  frame(length: number, seed = 1): Uint8Array {
    const frame = new Uint8Array(length).map((_, i) => i * 3 + seed);
    frame.set(MAC.subarray(0, Math.min(6, length)), 0);
    if (length >= 14) frame.set([0x88, 0xb5], 12);
    return frame;
  }

  /** A good frame passes each way. */
  expectWorks(): void {
    const before = this.machine.peer.frames.length;
    const packets = this.sendAll([77]);
    expect(this.machine.peer.frames.slice(before).map((f) => f.bytes)).toEqual(packets);
    const frame = this.frame(101, 9);
    const seen = this.received.length;
    expect(this.machine.peer.send(frame)).toBe(true);
    this.machine.settle();
    expect(this.received.slice(seen).map((r) => r.bytes)).toEqual([frame]);
  }

  close(): void {
    this.machine.peer.letGo();
    this.driver.close();
    this.nic.close();
    this.machine.settle();
    expect(this.machine.pool.free).toBe(this.machine.pool.capacity);
    expect(this.machine.pool.freeBare).toBe(BARE_RECORDS);
    expect(this.machine.loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  }
}

/** The ways a driver can work with rings. */
export const RING_WAYS: readonly [string, RigOptions][] = [
  ['split', {}],
  ['split, indirect', { driver: { indirect: true } }],
  ['split, without event_idx', { properties: { event_idx: false } }],
  ['split, in order', { properties: { in_order: true } }],
  ['packed', { properties: { packed: true } }],
  ['packed, indirect', { properties: { packed: true }, driver: { indirect: true } }],
  ['packed, without event_idx', { properties: { packed: true, event_idx: false } }],
  ['packed, in order', { properties: { packed: true, in_order: true } }],
  ['legacy', { driver: { legacy: true } }],
  ['modern only', { name: 'virtio-net-pci-non-transitional' }],
  ['without mergeable buffers', { properties: { mrg_rxbuf: false } }],
];

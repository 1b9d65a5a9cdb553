/** An rtl8139 on a test machine with its driver's half, and a raw way to its registers and rings for tests that misbehave. */
import { expect } from 'vitest';
import { type Logger, silentLogger } from '../../src/core/log.ts';
import { ACCEPT_ALL } from '../../src/core/port.ts';
import { PacketBatch } from '../../src/guest/driver/driver.ts';
import { Rtl8139Driver } from '../../src/guest/driver/rtl8139-driver.ts';
import { Rtl8139 } from '../../src/nic/rtl8139/index.ts';
import { MAC, testFrame } from './e1000-rig.ts';
import { TestMachine } from './test-machine.ts';

export { MAC, testFrame };

export interface RigOptions {
  chip?: '8139c+' | '8139c';
  ringSize?: number;
  mtu?: number;
  vlans?: number[];
  accepts?: number;
  large?: number;
  small?: number;
  promiscuous?: boolean;
  multicast?: Uint8Array[];
  offloads?: boolean;
  ramAddress?: number;
  /** The driver's faults are counted; default false. */
  strict?: boolean;
  log?: Logger;
  /** As over vfio-user (pci/device-host.ts); default false. */
  writesAreLate?: boolean;
  /** The pool's checks; default true. */
  debug?: boolean;
}

const OWN_FS_LS = 0xb0000000;

export class Rtl8139Rig {
  readonly machine: TestMachine;
  readonly nic: Rtl8139;
  driver: Rtl8139Driver;
  readonly received: { bytes: Uint8Array; flags: number; tci: number }[] = [];
  sent = 0;
  ready = 0;
  readonly #options: RigOptions;

  constructor(options: RigOptions = {}, open = true) {
    this.#options = options;
    this.machine = new TestMachine({
      accepts: options.accepts ?? ACCEPT_ALL,
      large: options.large ?? 16,
      small: options.small ?? 512,
      ramBytes: 8 << 20,
      ramAddress: options.ramAddress ?? 0,
      debug: options.debug ?? true,
    });
    this.nic = this.newNic();
    this.machine.plug(this.nic.port);
    this.driver = this.newDriver();
    this.machine.onInterrupt = () => this.driver.interrupt();
    if (open) expect(this.driver.open()).toBe(true);
  }

  newNic(): Rtl8139 {
    return new Rtl8139(
      {
        host: Object.assign(this.machine, { writesAreLate: this.#options.writesAreLate ?? false }),
        link: this.machine.link,
        name: 'rtl8139.0',
        log: this.#options.log ?? silentLogger,
      },
      { mac: MAC, chip: this.#options.chip ?? '8139c+', strict: this.#options.strict ?? false },
    );
  }

  newDriver(nic: Rtl8139 = this.nic): Rtl8139Driver {
    const { machine } = this;
    const { ringSize, mtu, vlans, promiscuous, multicast, offloads } = this.#options;
    const driver = new Rtl8139Driver({
      pci: nic,
      ram: machine.ram,
      loop: machine.loop,
      ...(ringSize === undefined ? {} : { ringSize }),
      ...(mtu === undefined ? {} : { ipMtuBytes: mtu }),
      ...(vlans === undefined ? {} : { vlans }),
      ...(promiscuous === undefined ? {} : { promiscuous }),
      ...(multicast === undefined ? {} : { multicast }),
      ...(offloads === undefined ? {} : { offloads }),
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
    };
    return driver;
  }

  get(register: number, size = 4): number {
    return this.nic.readBar(1, register, size);
  }

  put(register: number, value: number, size = 4): void {
    this.nic.writeBar(1, register, size, size === 4 ? value >>> 0 : value);
  }

  /** Puts bytes into guest RAM, at an odd place as drivers do. */
  place(bytes: Uint8Array): number {
    const address = this.machine.ram.allocate(bytes.length + 2) + 2;
    this.machine.ram.bytes.set(bytes, this.machine.ram.offset(address));
    return address;
  }

  /** A packet of an experimental EtherType in guest RAM. */
  packet(length: number, seed = 1): number {
    return this.place(testFrame(length, seed));
  }

  bytesAt(address: number, length: number): Uint8Array {
    const at = this.machine.ram.offset(address);
    return this.machine.ram.bytes.slice(at, at + length);
  }

  wordAt(address: number): number {
    return this.machine.ram.words[this.machine.ram.offset(address) >> 2]!;
  }

  /** A ring of the test's own with these descriptors (4 words each). */
  ring(descriptors: number[][]): number {
    const ring = this.machine.ram.allocate(64 * 16, 256);
    const words = this.machine.ram.words;
    for (const [i, descriptor] of descriptors.entries())
      words.set(descriptor, (this.machine.ram.offset(ring) >> 2) + 4 * i);
    return ring;
  }

  /** A C+ transmit ring of the test's own, and its doorbell. */
  transmit(descriptors: number[][], high = false): number {
    const ring = this.ring(descriptors);
    this.nic.writeConfig(4, 2, 7);
    this.put(0xe0, this.get(0xe0, 2) | 1, 2);
    this.put(0x37, 0x0c, 1);
    this.put(high ? 0x28 : 0x20, ring);
    this.put(high ? 0x2c : 0x24, Math.floor(ring / 2 ** 32));
    this.put(0xd9, high ? 0x80 : 0x40, 1);
    return ring;
  }

  /** One descriptor with a whole frame. */
  whole(address: number, length: number, bits = 0, tag = 0): number[] {
    return [OWN_FS_LS | bits | length, tag, address, Math.floor(address / 2 ** 32)];
  }

  /** The first words of a ring's descriptors. */
  commands(ring: number, count: number): number[] {
    return Array.from({ length: count }, (_, i) => this.wordAt(ring + 16 * i) >>> 0);
  }

  /** Resets, brings up again, and passes a frame each way: what must always work after whatever came before. */
  expectGood(): void {
    this.machine.peer.limit = Number.POSITIVE_INFINITY;
    this.machine.peer.letGo();
    this.machine.peer.hold = false;
    this.machine.settle();
    this.nic.reset();
    this.driver.close();
    this.driver = this.newDriver();
    this.machine.onInterrupt = () => this.driver.interrupt();
    expect(this.driver.open()).toBe(true);
    this.machine.settle();
    this.received.length = 0;
    const sentBefore = this.machine.peer.frames.length;
    const frame = testFrame(100, 9);
    frame.set(MAC, 0);
    expect(this.machine.peer.send(frame)).toBe(true);
    this.machine.settle();
    expect(this.received.map(({ bytes }) => bytes)).toEqual([frame]);
    const address = this.packet(300, 3);
    const batch = new PacketBatch(1);
    batch.plain(0, address, 300);
    expect(this.driver.send(batch, 0, 1)).toBe(1);
    this.machine.settle();
    expect(this.machine.peer.frames.slice(sentBefore).map(({ bytes }) => bytes)).toEqual([
      this.bytesAt(address, 300),
    ]);
  }

  close(): void {
    this.machine.peer.letGo();
    this.driver.close();
    this.nic.close();
    this.machine.settle(1);
    expect(this.machine.pool.free).toBe(this.machine.pool.capacity);
    expect(this.machine.pool.freeBare).toBe(1024);
    expect(this.machine.loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  }
}

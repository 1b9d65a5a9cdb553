/** A NIC of a PCI model on a test machine with its driver's half: what the rigs of the models share. */
import { expect } from 'vitest';
import { type Logger, silentLogger } from '../../src/core/log.ts';
import { ACCEPT_ALL, type Port } from '../../src/core/port.ts';
import { type DriverOptions, type NicDriver, PacketBatch } from '../../src/guest/driver/driver.ts';
import type { Nic, NicSite } from '../../src/nic/nic.ts';
import { TestMachine } from './test-machine.ts';

export const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);

export interface NicRigOptions {
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
  /** A batch's bytes are copied together; default true. */
  together?: boolean;
  /** Poisoned slots and checks of every frame; default true. */
  debug?: boolean;
}

export abstract class NicRig<N extends Nic & { readonly port: Port }, O extends NicRigOptions> {
  readonly machine: TestMachine;
  readonly nic: N;
  driver: NicDriver;
  readonly received: { bytes: Uint8Array; flags: number; tci: number }[] = [];
  sent = 0;
  ready = 0;
  protected readonly options: O;

  constructor(options: O, open: boolean) {
    this.options = options;
    this.machine = new TestMachine({
      accepts: options.accepts ?? ACCEPT_ALL,
      large: options.large ?? 16,
      small: options.small ?? 512,
      ramBytes: 8 << 20,
      ramAddress: options.ramAddress ?? 0,
      debug: options.debug ?? true,
      together: options.together ?? true,
    });
    this.nic = this.newNic();
    this.machine.plug(this.nic.port);
    this.driver = this.newDriver();
    this.machine.onInterrupt = () => this.driver.interrupt();
    if (open) expect(this.driver.open()).toBe(true);
  }

  protected abstract makeNic(site: NicSite): N;
  protected abstract makeDriver(options: DriverOptions): NicDriver;

  newNic(): N {
    const { machine, options } = this;
    return this.makeNic({
      host: machine,
      link: machine.link,
      name: 'net0',
      log: options.log ?? silentLogger,
    });
  }

  newDriver(nic: N = this.nic): NicDriver {
    const { machine } = this;
    const { ringSize, mtu, vlans, promiscuous, multicast, offloads } = this.options;
    const driver = this.makeDriver({
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

  /** Room for `count` descriptors of 16 bytes, with these (4 words each) in front; returns its address. */
  layRing(descriptors: number[][], count: number, align: number): number {
    const ring = this.machine.ram.allocate(count * 16, align);
    const words = this.machine.ram.words;
    for (const [i, descriptor] of descriptors.entries())
      words.set(descriptor, (this.machine.ram.offset(ring) >> 2) + 4 * i);
    return ring;
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

/** A frame to 02:00:00:00:00:01 from the rig's NIC with a pattern behind its header. */
export function testFrame(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = i * 7 + seed;
  bytes.set([2, 0, 0, 0, 0, 1].slice(0, length), 0);
  if (length >= 14) {
    bytes.set(MAC, 6);
    bytes.set([0x88, 0xb5], 12);
  }
  return bytes;
}

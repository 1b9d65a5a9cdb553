/** The e1000 driven from its guest's side: bring-up, transmit, receive, interrupts, completion. */
import { afterEach, describe, expect, it } from 'vitest';
import { ACCEPT_ALL } from '../../../src/core/port.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { E1000Driver } from '../../../src/guest/driver/e1000-driver.ts';
import { E1000 } from '../../../src/nic/e1000/index.ts';
import { TestMachine } from '../../lib/test-machine.ts';

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);

class Rig {
  readonly machine: TestMachine;
  readonly nic: E1000;
  readonly driver: E1000Driver;
  readonly received: { bytes: Uint8Array; flags: number; tci: number }[] = [];
  sent = 0;
  ready = 0;

  constructor(
    options: { ringSize?: number; mtu?: number; vlans?: number[]; accepts?: number; large?: number } = {},
  ) {
    const machine = new TestMachine({
      accepts: options.accepts ?? ACCEPT_ALL,
      large: options.large ?? 16,
      ramBytes: 8 << 20,
    });
    this.machine = machine;
    this.nic = new E1000({ host: machine, link: machine.link, name: 'e1000.0' }, { mac: MAC });
    machine.plug(this.nic.port);
    this.driver = new E1000Driver({
      pci: this.nic,
      ram: machine.ram,
      loop: machine.loop,
      ...(options.ringSize === undefined ? {} : { ringSize: options.ringSize }),
      ...(options.mtu === undefined ? {} : { ipMtuBytes: options.mtu }),
      ...(options.vlans === undefined ? {} : { vlans: options.vlans }),
    });
    this.driver.listener = {
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
    machine.onInterrupt = () => this.driver.interrupt();
    expect(this.driver.open()).toBe(true);
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

  close(): void {
    this.machine.peer.letGo();
    this.driver.close();
    this.nic.close();
    this.machine.loop.run();
    expect(this.machine.pool.free).toBe(this.machine.pool.capacity);
    expect(this.machine.pool.freeBare).toBe(1024);
    expect(this.machine.loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  }
}

let rig: Rig;
afterEach(() => rig.close());

describe('e1000 with its driver', () => {
  it('comes up with the EEPROM address and the link', () => {
    rig = new Rig();
    expect(rig.driver.mac).toEqual(MAC);
    expect(rig.driver.linkUp).toBe(true);
    rig.machine.peer.port.setLink(false);
    rig.machine.settle();
    expect(rig.driver.linkUp).toBe(false);
    rig.machine.peer.port.setLink(true);
    rig.machine.settle();
    expect(rig.driver.linkUp).toBe(true);
  });

  it('sends packets of every length, copied or borrowed, byte for byte', () => {
    rig = new Rig();
    const batch = new PacketBatch(64);
    const lengths = [60, 61, 62, 63, 64, 191, 192, 193, 1023, 1024, 1025, 1514, 1536, 1537, 1538, 4000];
    const addresses = lengths.map((length, i) => rig.packet(length, i));
    lengths.forEach((length, i) => {
      batch.plain(i, addresses[i]!, length);
    });
    expect(rig.driver.send(batch, 0, lengths.length)).toBe(lengths.length);
    rig.machine.settle();
    expect(rig.machine.peer.frames.map((f) => f.bytes)).toEqual(
      lengths.map((l, i) => rig.bytesAt(addresses[i]!, l)),
    );
    expect(rig.sent).toBe(lengths.length);
    expect(rig.nic.stats.txBorrowed).toBe(3);
  });

  it('completes lent frames when their last holder lets go, in ring order', () => {
    rig = new Rig();
    rig.machine.peer.hold = true;
    const batch = new PacketBatch(4);
    batch.plain(0, rig.packet(2000), 2000);
    batch.plain(1, rig.packet(60), 60);
    batch.plain(2, rig.packet(2000), 2000);
    rig.driver.send(batch, 0, 3);
    rig.machine.settle();
    expect(rig.sent).toBe(0);
    const [first, second, third] = rig.machine.peer.held;
    rig.machine.pool.release(third!);
    rig.machine.pool.release(second!);
    rig.machine.settle();
    expect(rig.sent).toBe(0);
    rig.machine.pool.release(first!);
    rig.machine.peer.held.length = 0;
    rig.machine.settle();
    expect(rig.sent).toBe(3);
  });

  it('stops when the peer refuses and goes on when it is ready', () => {
    rig = new Rig({ ringSize: 64 });
    rig.machine.peer.limit = 5;
    const batch = new PacketBatch(40);
    for (let i = 0; i < 40; i++) {
      batch.plain(i, rig.packet(60 + i, i), 60 + i);
    }
    expect(rig.driver.send(batch, 0, 40)).toBe(40);
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(5);
    expect(rig.sent).toBe(5);
    rig.machine.peer.limit = 1000;
    rig.machine.peer.port.ready();
    rig.machine.settle();
    expect(rig.machine.peer.frames.map((f) => f.bytes.length)).toEqual(
      Array.from({ length: 40 }, (_, i) => 60 + i),
    );
    expect(rig.sent).toBe(40);
  });

  it('receives frames into the ring and refuses what finds no descriptor', () => {
    rig = new Rig({ ringSize: 8 });
    const frame = new Uint8Array(1514).map((_, i) => i * 3);
    frame.set(MAC, 0);
    rig.machine.onInterrupt = null;
    let taken = 0;
    while (rig.machine.peer.send(frame.subarray(0, 60 + taken))) taken++;
    expect(taken).toBe(7);
    expect(rig.nic.stats.rxNoDescriptor).toBe(1);
    rig.driver.interrupt();
    expect(rig.received.map((r) => r.bytes)).toEqual(
      Array.from({ length: 7 }, (_, i) => frame.subarray(0, 60 + i)),
    );
    expect(rig.machine.peer.ready).toBe(1);
    expect(rig.machine.peer.send(frame)).toBe(true);
    rig.driver.interrupt();
    expect(rig.received[7]!.bytes).toEqual(frame);
  });
});

/** The rtl8139 driven from its guest's side, in both programming models: bring-up, transmit, receive, interrupts, completion. */
import { afterEach, describe, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { MAC, Rtl8139Rig } from '../../lib/rtl8139-rig.ts';

let rig: Rtl8139Rig;
afterEach(() => rig.close());

describe.each(['8139c+', '8139c'] as const)('%s with its driver', (chip) => {
  it('comes up with the EEPROM address and the link', () => {
    rig = new Rtl8139Rig({ chip });
    expect(rig.driver.mac).toEqual(MAC);
    expect(rig.driver.linkUp).toBe(true);
    expect(rig.nic.readConfig(8, 1)).toBe(chip === '8139c+' ? 0x20 : 0x10);
    rig.machine.peer.port.setLink(false);
    rig.machine.settle();
    expect(rig.driver.linkUp).toBe(false);
    rig.machine.peer.port.setLink(true);
    rig.machine.settle();
    expect(rig.driver.linkUp).toBe(true);
  });

  it('sends packets of every length, byte for byte', () => {
    rig = new Rtl8139Rig({ chip });
    const batch = new PacketBatch(64);
    const lengths = [60, 61, 62, 63, 64, 191, 192, 193, 1023, 1024, 1025, 1514];
    if (chip === '8139c+') lengths.push(1536, 1537, 1538, 4000);
    const addresses = lengths.map((length, i) => rig.packet(length, i));
    lengths.forEach((length, i) => {
      batch.plain(i, addresses[i]!, length);
    });
    for (let i = 0; i < lengths.length; ) {
      const taken = rig.driver.send(batch, i, lengths.length);
      expect(taken).toBeGreaterThan(0);
      i += taken;
      rig.machine.settle();
    }
    expect(rig.machine.peer.frames.map((f) => f.bytes)).toEqual(
      lengths.map((l, i) => rig.bytesAt(addresses[i]!, l)),
    );
    expect(rig.sent).toBe(lengths.length);
    expect(rig.nic.stats.txBorrowed).toBe(chip === '8139c+' ? 3 : 0);
    expect(rig.nic.stats.txFrames).toBe(lengths.length);
  });

  it('stops when the peer refuses and goes on when it is ready', () => {
    rig = new Rtl8139Rig({ chip });
    rig.machine.peer.limit = 2;
    const batch = new PacketBatch(40);
    for (let i = 0; i < 40; i++) batch.plain(i, rig.packet(60 + i, i), 60 + i);
    const taken = rig.driver.send(batch, 0, 40);
    expect(taken).toBe(chip === '8139c+' ? 40 : 4);
    rig.machine.settle(1e6);
    expect(rig.machine.peer.frames.length).toBe(2);
    expect(rig.sent).toBe(2);
    rig.machine.peer.limit = 1000;
    rig.machine.peer.port.ready();
    rig.machine.settle();
    expect(rig.machine.peer.frames.map((f) => f.bytes.length)).toEqual(
      Array.from({ length: taken }, (_, i) => 60 + i),
    );
    expect(rig.sent).toBe(taken);
  });

  it('receives frames of every length and refuses what finds no room', () => {
    rig = new Rtl8139Rig({ chip, ringSize: 8 });
    const frame = new Uint8Array(1514).map((_, i) => i * 3);
    frame.set(MAC, 0);
    rig.machine.onInterrupt = null;
    let taken = 0;
    while (rig.machine.peer.send(frame.subarray(0, 60 + taken))) taken++;
    if (chip === '8139c+') expect(taken).toBe(8);
    else expect(taken).toBeGreaterThan(100);
    expect(rig.nic.stats.rxNoDescriptor).toBe(1);
    // The classic model has lost nothing.
    expect(rig.get(0x3e, 2) & 0x10).toBe(chip === '8139c+' ? 0x10 : 0);
    while (rig.driver.interrupt());
    expect(rig.received.map((r) => r.bytes)).toEqual(
      Array.from({ length: taken }, (_, i) => frame.subarray(0, 60 + i)),
    );
    expect(rig.machine.peer.ready).toBeGreaterThan(0);
    for (let round = 0; round < 100; round++) {
      rig.received.length = 0;
      const length = 60 + ((round * 37) % 1455);
      expect(rig.machine.peer.send(frame.subarray(0, length))).toBe(true);
      rig.driver.interrupt();
      expect(rig.received.map((r) => r.bytes)).toEqual([frame.subarray(0, length)]);
    }
  });

  it('tells a peer that was refused when the driver made room, with nobody ringing', () => {
    rig = new Rtl8139Rig({ chip, ringSize: 4 });
    const frame = new Uint8Array(1514).fill(7);
    frame.set(MAC, 0);
    rig.machine.onInterrupt = null;
    while (rig.machine.peer.send(frame));
    const before = rig.machine.peer.ready;
    rig.machine.settle();
    expect(rig.machine.peer.ready).toBe(before);
    rig.machine.onInterrupt = () => rig.driver.interrupt();
    rig.driver.interrupt();
    rig.machine.settle();
    expect(rig.machine.peer.ready).toBe(before + 1);
    rig.expectGood();
  });

  it('tells again that frames wait, even when all causes were acknowledged', () => {
    // Linux's 8139too reads up to 64 frames, acknowledging after each, and looks no more when no cause is left.
    rig = new Rtl8139Rig({ chip, ringSize: 4 });
    rig.machine.onInterrupt = null;
    const frame = new Uint8Array(1514).fill(7);
    frame.set(MAC, 0);
    while (rig.machine.peer.send(frame));
    rig.put(0x3e, 0xffff, 2);
    expect(rig.get(0x3e, 2)).toBe(0);
    const told = chip === '8139c+' ? 0x10 : 1;
    rig.machine.settle(0.15e6);
    expect(rig.get(0x3e, 2)).toBe(told);
    // Unheard, it looks less and less often, at least every 10 ms.
    rig.machine.settle(1e9);
    rig.put(0x3e, 0xffff, 2);
    rig.machine.settle(0.15e6);
    expect(rig.get(0x3e, 2)).toBe(told);
    rig.expectGood();
  });

  it('passes a good frame after a reset', () => {
    rig = new Rtl8139Rig({ chip });
    rig.expectGood();
  });
});

describe('completion', () => {
  it('gives lent descriptors back when their frame is let go, and never sends them twice', () => {
    rig = new Rtl8139Rig();
    rig.machine.peer.hold = true;
    const batch = new PacketBatch(64);
    for (let i = 0; i < 64; i++) batch.plain(i, rig.packet(2000, i), 2000);
    expect(rig.driver.send(batch, 0, 64)).toBe(64);
    rig.machine.settle();
    expect(rig.sent).toBe(0);
    expect(rig.machine.peer.held.length).toBe(64);
    // The whole ring is lent: a doorbell finds nothing new.
    rig.put(0xd9, 0x40, 1);
    rig.machine.settle();
    expect(rig.machine.peer.held.length).toBe(64);
    const [first, second, third] = rig.machine.peer.held.splice(0, 3);
    rig.machine.pool.release(third!);
    rig.machine.pool.release(second!);
    rig.machine.settle();
    expect(rig.sent).toBe(0);
    rig.machine.pool.release(first!);
    rig.machine.settle();
    expect(rig.sent).toBe(3);
    rig.machine.peer.letGo();
    rig.machine.settle();
    expect(rig.sent).toBe(64);
  });

  it('sends the high priority ring first', () => {
    rig = new Rtl8139Rig({}, false);
    rig.nic.writeConfig(4, 2, 7);
    rig.put(0xe0, 1, 2);
    const normal = rig.ring([rig.whole(rig.packet(60), 60), rig.whole(rig.packet(61), 61, 0x40000000)]);
    const high = rig.ring([rig.whole(rig.packet(70), 70), rig.whole(rig.packet(71), 71, 0x40000000)]);
    rig.put(0x20, normal);
    rig.put(0x28, high);
    rig.put(0xd9, 0xc0, 1);
    expect(rig.machine.peer.frames.length).toBe(0);
    rig.put(0x37, 4, 1);
    rig.put(0x3e, 0xffff, 2);
    rig.put(0xd9, 0xc0, 1);
    rig.machine.settle();
    expect(rig.machine.peer.frames.map(({ bytes }) => bytes.length)).toEqual([70, 71, 60, 61]);
    expect(rig.commands(normal, 2)).toEqual([0x3000003c, 0x7000003d]);
    expect(rig.commands(high, 2)).toEqual([0x30000046, 0x70000047]);
    expect(rig.get(0x3e, 2)).toBe(0x84);
  });
});

/** The e1000 driven from its guest's side: bring-up, transmit, receive, interrupts, completion. */
import { afterEach, describe, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { E1000Rig, MAC } from '../../lib/e1000-rig.ts';

let rig: E1000Rig;
afterEach(() => rig.close());

describe('e1000 with its driver', () => {
  it('comes up with the EEPROM address and the link', () => {
    rig = new E1000Rig();
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
    rig = new E1000Rig();
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
    rig = new E1000Rig();
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
    rig = new E1000Rig({ ringSize: 64 });
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
    rig = new E1000Rig({ ringSize: 8 });
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

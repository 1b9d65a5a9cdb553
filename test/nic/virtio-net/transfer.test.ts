/** The virtio-net driven from its guest's side, over every kind of ring: bring-up, transmit, receive, completion, backpressure. */
import { afterEach, describe, expect, it } from 'vitest';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_CSUM_VALID,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_TCPV4,
  HEADER_LENGTH,
} from '../../../src/core/pool.ts';
import { PacketBatch, RX_CSUM_OK, SEGMENT_TCP4 } from '../../../src/guest/driver/driver.ts';
import { putU16be } from '../../../src/wire/bytes.ts';
import { foldSum, pseudoSumAt } from '../../../src/wire/checksum.ts';
import { MAC, RING_WAYS, Rig } from './rig.ts';

let rig: Rig;
afterEach(() => rig.close());

/** An Ethernet, IPv4 and TCP packet. */
function tcpPacket(length: number): Uint8Array {
  const bytes = new Uint8Array(length).map((_, i) => i * 11);
  bytes.set(MAC, 0);
  bytes.set([2, 0, 0, 0, 0, 1], 6);
  bytes.set([8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2], 12);
  putU16be(bytes, 16, length - 14);
  bytes.set([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0], 34);
  return bytes;
}

for (const [name, options] of RING_WAYS) {
  describe(`virtio-net with its driver, ${name}`, () => {
    it('comes up with its address and the link', () => {
      rig = new Rig(options);
      expect(rig.driver.mac).toEqual(MAC);
      expect(rig.driver.linkUp).toBe(true);
      rig.machine.peer.port.setLink(false);
      rig.machine.settle();
      expect(rig.driver.linkUp).toBe(false);
      rig.machine.peer.port.setLink(true);
      rig.machine.settle();
      expect(rig.links).toEqual([false, true]);
    });

    it('sends packets of every length, copied or borrowed, byte for byte', () => {
      rig = new Rig(options);
      const lengths = [60, 61, 62, 63, 64, 191, 192, 193, 1023, 1514, 1536, 1537, 9000, 65_000];
      const packets = rig.sendAll(lengths);
      expect(rig.machine.peer.frames.map((f) => f.bytes)).toEqual(packets);
      expect(rig.sent).toBe(lengths.length);
      expect(rig.nic.stats.txBorrowed).toBe(3);
      expect(rig.nic.stats.txFrames).toBe(lengths.length);
    });

    it('goes round its rings many times, both ways', () => {
      rig = new Rig({ ...options, driver: { ...options.driver, ringSize: 16 } });
      const sizes = [60, 1514, 77, 3000];
      for (let lap = 0; lap < 40; lap++) {
        const before = rig.machine.peer.frames.length;
        const packets = rig.sendAll(sizes);
        expect(rig.machine.peer.frames.slice(before).map((f) => f.bytes)).toEqual(packets);
        rig.machine.ram.release(rig.machine.ram.mark() - sizes.reduce((sum, size) => sum + size + 16, 0));
        for (let i = 0; i < 5; i++) {
          const frame = rig.frame(60 + lap * 5 + i, lap);
          expect(rig.machine.peer.send(frame)).toBe(true);
          rig.machine.settle();
          expect(rig.received.pop()?.bytes).toEqual(frame);
        }
      }
      expect(rig.sent).toBe(160);
    });

    it('pads short packets both ways', () => {
      rig = new Rig(options);
      const [packet] = rig.sendAll([14]);
      expect(rig.machine.peer.frames[0]!.bytes.length).toBe(60);
      expect(rig.machine.peer.frames[0]!.bytes.subarray(0, 14)).toEqual(packet);
      expect(rig.machine.peer.frames[0]!.bytes.subarray(14).every((byte) => byte === 0)).toBe(true);
      rig.machine.peer.send(rig.frame(20));
      rig.machine.settle();
      expect(rig.received[0]!.bytes.length).toBe(60);
      expect(rig.received[0]!.bytes.subarray(0, 20)).toEqual(rig.frame(20));
      expect(rig.received[0]!.bytes.subarray(20).every((byte) => byte === 0)).toBe(true);
    });

    it('uses the chains of lent frames when their last holder lets go', () => {
      rig = new Rig(options);
      rig.machine.peer.hold = true;
      rig.sendAll([2000, 60, 2000]);
      expect(rig.sent).toBe(0);
      const [first, second, third] = rig.machine.peer.held.splice(0);
      rig.machine.pool.release(third!);
      rig.machine.pool.release(second!);
      rig.machine.settle();
      expect(rig.sent).toBe(0);
      rig.machine.pool.release(first!);
      rig.machine.settle();
      expect(rig.sent).toBe(3);
    });

    it('stops when the peer refuses and goes on when it is ready', () => {
      rig = new Rig(options);
      rig.machine.peer.limit = 5;
      const batch = new PacketBatch(100);
      for (let i = 0; i < 100; i++) batch.plain(i, rig.packet(60 + i, i), 60 + i);
      expect(rig.driver.send(batch, 0, 100)).toBe(100);
      rig.machine.settle();
      expect(rig.machine.peer.frames.length).toBe(5);
      expect(rig.sent).toBe(5);
      rig.machine.peer.limit = 1000;
      rig.machine.peer.port.ready();
      rig.machine.settle();
      expect(rig.machine.peer.frames.map((f) => f.bytes.length)).toEqual(
        Array.from({ length: 100 }, (_, i) => 60 + i),
      );
      expect(rig.sent).toBe(100);
    });

    it('refuses what finds no buffer, and says ready at the refill', () => {
      rig = new Rig({ ...options, driver: { ...options.driver, ringSize: 8 } });
      const size = options.driver?.legacy ? 256 : 8;
      rig.machine.onInterrupt = null;
      let taken = 0;
      while (rig.machine.peer.send(rig.frame(60 + taken))) taken++;
      expect(taken).toBe(size);
      expect(rig.nic.stats.rxNoBuffer).toBe(1);
      rig.driver.interrupt();
      expect(rig.received.length).toBe(size);
      expect(rig.machine.peer.ready).toBeGreaterThan(0);
      rig.machine.onInterrupt = () => rig.driver.interrupt();
      rig.expectWorks();
    });

    it('fills checksums and hands segments on whole', () => {
      rig = new Rig(options);
      const batch = new PacketBatch(2);
      const small = rig.packet(1000);
      const large = rig.packet(20_054);
      for (const [address, length] of [
        [small, 1000],
        [large, 20_054],
      ] as const) {
        const at = rig.machine.ram.offset(address);
        const { bytes } = rig.machine.ram;
        bytes.set(tcpPacket(length), at);
        const l4 = length === 1000 ? length - 34 : 0;
        putU16be(bytes, at + 50, foldSum(pseudoSumAt(bytes, at + 14, 6, l4)));
      }
      batch.checksummed(0, small, 1000, 34, 16);
      batch.segmented(1, large, 20_054, SEGMENT_TCP4, 34, 54, 1460);
      if (!rig.driver.capabilities.segmentTcp4) throw new Error('TSO was not negotiated');
      rig.driver.send(batch, 0, 2);
      rig.machine.settle();
      const [a, b] = rig.machine.peer.frames;
      expect(a).toMatchObject({ facts: FACT_NEEDS_CSUM, csumStart: 34, csumOffset: 16 });
      expect(b).toMatchObject({
        facts: FACT_NEEDS_CSUM | (GSO_TCPV4 << 8),
        gsoSize: 1460,
        csumStart: 34,
        csumOffset: 16,
      });
      expect(b!.bytes.length).toBe(20_054);
      expect(rig.sent).toBe(2);
    });

    it('cuts segments for a peer that lost its offloads meanwhile', () => {
      rig = new Rig(options);
      rig.machine.peer.port.accepts = 0;
      const address = rig.packet(4434);
      const at = rig.machine.ram.offset(address);
      rig.machine.ram.bytes.set(tcpPacket(4434), at);
      putU16be(rig.machine.ram.bytes, at + 50, foldSum(pseudoSumAt(rig.machine.ram.bytes, at + 14, 6, 0)));
      const batch = new PacketBatch(1);
      batch.segmented(0, address, 4434, SEGMENT_TCP4, 34, 54, 1460);
      rig.driver.send(batch, 0, 1);
      rig.machine.settle();
      expect(rig.machine.peer.frames.map((f) => f.bytes.length)).toEqual([1514, 1514, 1514]);
    });

    it('receives large segments where the driver has buffers to spread them over', () => {
      rig = new Rig(options);
      const { pool, peer } = rig.machine;
      const bytes = tcpPacket(20_054);
      const frame = pool.from(bytes);
      const t = pool.table;
      t[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_TCPV4 << 8);
      t[frame + GSO_SIZE] = 1460;
      t[frame + HEADER_LENGTH] = 54;
      t[frame + CSUM_START] = 34;
      t[frame + CSUM_OFFSET] = 16;
      expect(peer.port.send(Int32Array.of(frame), 0, 1)).toBe(1);
      rig.machine.settle();
      if (rig.driver.has(7)) {
        expect(rig.received.map((r) => r.bytes)).toEqual([bytes]);
        expect(rig.received[0]!.flags & RX_CSUM_OK).toBe(RX_CSUM_OK);
        expect(rig.nic.stats.rxMerged).toBe(1);
      } else {
        expect(rig.received.map((r) => r.bytes.length)).toEqual([...new Array<number>(13).fill(1514), 1074]);
      }
    });

    it('tells which checksums were verified', () => {
      rig = new Rig(options);
      rig.machine.peer.send(rig.frame(100), FACT_CSUM_VALID);
      rig.machine.peer.send(rig.frame(100));
      rig.machine.settle();
      expect(rig.received.map((r) => r.flags)).toEqual([RX_CSUM_OK, 0]);
    });

    it('puts frames in several segments into buffers, and borrowed ones as zeros once their memory is gone', () => {
      rig = new Rig(options);
      const { pool, peer } = rig.machine;
      const bytes = rig.frame(1400);
      const lent = new Uint8Array(1200);
      lent.set(bytes.subarray(200));
      const region = pool.addRegion(lent);
      for (const gone of [false, true]) {
        const frame = pool.from(bytes, 0, 200);
        expect(pool.borrow(frame, frame, region, 0, 1200)).not.toBe(0);
        if (gone) pool.removeRegion(region);
        expect(peer.port.send(Int32Array.of(frame), 0, 1)).toBe(1);
      }
      rig.machine.settle();
      expect(rig.received[0]!.bytes).toEqual(bytes);
      expect(rig.received[1]!.bytes.subarray(0, 200)).toEqual(bytes.subarray(0, 200));
      expect(rig.received[1]!.bytes.subarray(200).every((byte) => byte === 0)).toBe(true);
    });
  });
}

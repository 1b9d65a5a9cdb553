/** What a malicious or broken driver does to the e1000 (spec of bad input), and that a good frame passes afterwards. */
import { afterEach, describe, expect, it } from 'vitest';
import { E1000Rig, MAC, testFrame } from '../../lib/e1000-rig.ts';

const CMD = 0x0b000000; // EOP, IFCS, RS
const MORE = 0x0a000000; // the same without EOP
const DATA = 0x20100000;
const CONTEXT = 0x20000000;
const TSE = 0x04000000;

let rig: E1000Rig;
afterEach(() => rig.close());

function toUs(length: number): Uint8Array {
  const frame = testFrame(length);
  frame.set(MAC.subarray(0, Math.min(6, length)), 0);
  return frame;
}

describe('transmit', () => {
  it('hardening 1: a head or tail outside the ring ends the pass, in both rings', () => {
    rig = new E1000Rig();
    const address = rig.packet(60);
    for (const [head, tail] of [
      [64, 3],
      [65_535, 0],
      [0, 64],
      [3, 65_535],
      [65_535, 65_535],
    ]) {
      rig.transmit([[address, 0, CMD | 60, 0]], { head: head!, tail: tail! });
      rig.machine.settle();
    }
    expect(rig.machine.peer.frames.length).toBe(0);
    expect(rig.nic.stats.txBadRing).toBeGreaterThan(3);
    for (const [head, tail] of [
      [256, 3],
      [65_535, 0],
      [0, 256],
    ]) {
      rig.put(0x2810, head!);
      rig.put(0x2818, tail!);
      expect(rig.machine.peer.send(toUs(60))).toBe(true);
    }
    expect(rig.nic.stats.rxDropBadRing).toBe(3);
    rig.expectGood();
  });

  it('hardening 1: a tail just behind the head is one lap, not more', () => {
    rig = new E1000Rig();
    const address = rig.packet(60);
    rig.transmit(
      Array.from({ length: 64 }, () => [address, 0, CMD | 60, 0]),
      { head: 5, tail: 4 },
    );
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(63);
    rig.expectGood();
  });

  it('hardening 2: absurd field mixes are dropped or sent as they are, written back, and counted', () => {
    rig = new E1000Rig();
    const address = rig.packet(200);
    const mixes: number[][] = [
      [address, 0, CMD | 0x20f00000 | 60, 0], // a type that does not exist
      [address, 0, CMD | DATA | TSE | 60, 0x300], // segmentation without a context
      [-1, -1, CMD | CONTEXT | 0xfffff, -16], // a context of ones
      [address, 0, CMD | DATA | TSE | 100, 0x300],
      [address, 0, CMD | DATA | 100, 0x300],
      [address, 0, CMD | TSE | 0xff0000 | 60, 0xff00], // legacy checksum at 255
      [address, 0, CMD | DATA | 0xfffff, 0], // a megabyte
      [address, 0, CMD, 0], // nothing
      [address, 0, CMD | 13, 0], // less than a header
      [-1, -1, CMD | 60, 0], // nowhere
      [0, 0x100000, CMD | DATA | 60, 0],
    ];
    const ring = rig.transmit(mixes);
    rig.machine.settle();
    expect(rig.statuses(ring, mixes.length)).toEqual(mixes.map(() => 1));
    expect(rig.nic.stats).toMatchObject({
      txBadDescriptor: 1,
      txDropTooLong: 1,
      txDropRunt: 2,
      txDropBadAddress: 2,
    });
    expect(rig.nic.stats.txBadOffload).toBe(5);
    expect(rig.machine.peer.frames.length).toBe(4);
    rig.expectGood();
  });

  it('hardening 3: a ring of length 0, or a length that is no multiple of 128, does not divide by zero', () => {
    rig = new E1000Rig();
    const address = rig.packet(60);
    for (const length of [0, 1, 16, 127, 0xfff00000]) {
      const ring = rig.machine.ram.allocate(128, 128);
      rig.machine.ram.words.set([address, 0, CMD | 60, 0], rig.machine.ram.offset(ring) >> 2);
      rig.put(0x400, 0);
      rig.put(0x3800, ring);
      rig.put(0x3808, length);
      rig.put(0x3810, 0);
      rig.put(0x400, 0x4010a);
      rig.put(0x3818, 1);
      rig.put(0x2808, length);
      rig.put(0x2810, 0);
      rig.put(0x2818, 1);
      rig.machine.peer.send(toUs(60));
    }
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(0);
    expect(rig.received.length).toBe(0);
    rig.expectGood();
  });

  it('hardening 5: zero-length descriptors without EOP count as progress', () => {
    rig = new E1000Rig();
    const descriptors = Array.from({ length: 62 }, () => [rig.packet(60), 0, MORE | DATA, 0]);
    descriptors.push([rig.packet(60), 0, CMD | DATA | 60, 0]);
    const ring = rig.transmit(descriptors);
    rig.machine.settle();
    expect(rig.machine.peer.frames.map(({ bytes }) => bytes.length)).toEqual([60]);
    expect(rig.statuses(ring, 63)).toEqual(new Array(63).fill(1));
    rig.transmit(
      Array.from({ length: 64 }, () => [0, 0, MORE | DATA, 0]),
      { head: 1, tail: 0 },
    );
    rig.machine.settle();
    rig.expectGood();
  });

  it('hardening 7: a frame put together past the maximum is dropped whole', () => {
    rig = new E1000Rig();
    const address = rig.packet(4000);
    const descriptors = Array.from({ length: 40 }, () => [address, 0, MORE | DATA | 4000, 0]);
    descriptors.push([address, 0, CMD | DATA | 4000, 0], [address, 0, CMD | DATA | 100, 0]);
    const ring = rig.transmit(descriptors);
    rig.machine.settle();
    expect(rig.nic.stats.txDropTooLong).toBe(1);
    expect(rig.machine.peer.frames.map(({ bytes }) => bytes.length)).toEqual([100]);
    expect(rig.statuses(ring, 42)).toEqual(new Array(42).fill(1));
    // Thousands of single bytes: more parts than any frame has.
    rig.transmit(
      [
        ...Array.from({ length: 1100 }, (_, i) => [address + 2 * i, 0, MORE | DATA | 1, 0]),
        [address, 0, CMD | DATA | 1, 0],
      ],
      {
        count: 2048,
      },
    );
    rig.machine.settle();
    expect(rig.nic.stats.txDropTooLong).toBe(2);
    rig.expectGood();
  });

  it('hardening 9: short frames of 0, 1, 13 and 59 bytes are dropped or padded with zeros, also in loopback', () => {
    rig = new E1000Rig();
    const lengths = [0, 1, 13, 14, 59];
    const descriptors = lengths.map((length) => [rig.packet(60, 0x55), 0, CMD | length, 0]);
    rig.transmit(descriptors);
    rig.machine.settle();
    expect(rig.machine.peer.frames.map(({ bytes }) => bytes.length)).toEqual([60, 60]);
    expect(rig.machine.peer.frames[0]!.bytes.subarray(14).every((byte) => byte === 0)).toBe(true);
    for (const length of lengths) rig.machine.peer.send(toUs(length));
    rig.machine.settle();
    expect(rig.received.map(({ bytes }) => bytes.length)).toEqual([60, 60]);
    expect([...rig.received[1]!.bytes]).toEqual([...toUs(59), 0]);
    rig.put(0x100, rig.get(0x100) | 0x40 | 0x18);
    rig.transmit(descriptors);
    rig.machine.settle();
    expect(rig.received.slice(2).map(({ bytes }) => bytes.length)).toEqual([60, 60]);
    expect(rig.machine.peer.frames.length).toBe(2);
    rig.expectGood();
  });

  it('hardening 10: loopback delivers without recursion, and loses what finds no descriptor', () => {
    rig = new E1000Rig({ ringSize: 8 });
    rig.machine.onInterrupt = null;
    rig.put(0x100, rig.get(0x100) | 0x40 | 0x18);
    const address = rig.packet(60);
    rig.transmit(Array.from({ length: 60 }, () => [address, 0, CMD | 60, 0]));
    expect(rig.nic.stats.rxFrames).toBe(7);
    expect(rig.nic.stats.rxDropNoDescriptor).toBe(53);
    expect(rig.get(0x4010)).toBe(53);
    expect(rig.machine.peer.frames.length).toBe(0);
    expect(rig.machine.peer.send(toUs(60))).toBe(true);
    expect(rig.nic.stats.rxDropLoopback).toBe(1);
    rig.driver.interrupt();
    expect(rig.received.length).toBe(7);
    rig.machine.onInterrupt = () => rig.driver.interrupt();
    rig.expectGood();
  });

  it('hardening 35: the tag type in a runt, and every VLAN id, are read only where they are', () => {
    rig = new E1000Rig({ vlans: [1] });
    for (let word = 0; word < 128; word++) rig.put(0x5600 + 4 * word, -1);
    for (const length of [14, 16, 17, 18, 60]) {
      const frame = toUs(length);
      frame.set([0x81, 0, 0xff, 0xff].slice(0, length - 12), 12);
      expect(rig.machine.peer.send(frame)).toBe(true);
    }
    rig.machine.settle();
    // A header that its tag cuts short is none.
    expect(rig.nic.stats.rxDropRunt).toBe(3);
    expect(rig.received.map(({ flags, tci }) => [flags & 4, tci])).toEqual([
      [4, 0xffff],
      [4, 0xffff],
    ]);
    rig.transmit([[rig.packet(60), 0, CMD | DATA | 0x40000000 | 60, 0xffff0000]]);
    rig.machine.settle();
    expect([...rig.machine.peer.frames[0]!.bytes.subarray(12, 16)]).toEqual([0x81, 0, 0xff, 0xff]);
    rig.expectGood();
  });

  it('hardening 11: DMA never reaches registers, wherever the BAR lies', () => {
    rig = new E1000Rig();
    rig.nic.writeConfig(0x10, 4, 0xfebc0000);
    rig.nic.writeConfig(4, 2, 7);
    // Frame from the own registers, ring in the own registers, write-back into them.
    rig.transmit([[0xfebc0000, 0, CMD | 60, 0]]);
    rig.put(0x3800, 0xfebc3800);
    rig.put(0x3810, 0);
    rig.put(0x3818, 5);
    rig.put(0x2800, 0xfebc0000);
    rig.machine.peer.send(toUs(60));
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(0);
    expect(rig.nic.stats.txDropBadAddress).toBe(1);
    expect(rig.nic.stats.txBadRing).toBeGreaterThan(0);
    expect(rig.nic.stats.rxDropBadRing + rig.nic.stats.rxDropBadAddress).toBeGreaterThan(0);
    rig.expectGood();
  });

  it('hardening 12: buffers that cross the end of RAM are refused whole, for both directions', () => {
    rig = new E1000Rig();
    const end = rig.machine.ram.bytes.length;
    rig.machine.ram.bytes.fill(0x77, end - 64);
    rig.transmit([
      [end - 30, 0, CMD | 60, 0],
      [end - 1000, 0, CMD | DATA | 4000, 0],
      [0xffffffe0 | 0, 0xffffffff | 0, CMD | DATA | 64, 0],
      [0xffffffe0 | 0, 0, CMD | DATA | 64, 0],
    ]);
    rig.machine.settle();
    expect(rig.nic.stats.txDropBadAddress).toBe(4);
    expect(rig.machine.peer.frames.length).toBe(0);
    // All receive buffers point past the end.
    const ring = rig.get(0x2800);
    for (let i = 0; i < 256; i++) rig.machine.ram.words[((ring + 16 * i) >> 2) + 0] = end - 30;
    rig.machine.peer.send(toUs(60));
    rig.machine.settle();
    expect(rig.nic.stats.rxDropBadAddress).toBe(1);
    expect(rig.received.length).toBe(0);
    expect(rig.machine.ram.bytes.subarray(end - 64).every((byte) => byte === 0x77)).toBe(true);
    rig.expectGood();
  });

  it('hardening 13: segmentation with lying headers goes out unsegmented, or not at all', () => {
    rig = new E1000Rig();
    const tcp = tcpPacket(3000);
    const context = (word0: number, word1: number, word3: number): number[] => [
      word0,
      word1,
      CONTEXT | 0x0b000000 | 3000,
      word3,
    ];
    const good = [14 | (24 << 8) | (33 << 16), 34 | (50 << 8), (54 << 8) | (1460 << 16)] as const;
    const cases: [number[], Uint8Array][] = [
      [context(good[0], good[1], (60 << 8) | (1460 << 16)), tcp], // header length that is not the headers'
      [context(14, 30 | (46 << 8), good[2]), tcp], // TCP inside IP
      [context(2, good[1], good[2]), tcp], // IP inside Ethernet
      [context(good[0], good[1], good[2]), change(tcp, 14, 0x4f)], // IHL
      [context(good[0], good[1], good[2]), change(tcp, 14, 0x75)], // version
      [context(good[0], good[1], good[2]), change(tcp, 23, 17)], // protocol
      [context(good[0], good[1], good[2]), change(tcp, 46, 0xf0)], // TCP header length
    ];
    for (const [descriptor, packet] of cases) {
      rig.transmit([descriptor, [rig.place(packet), 0, CMD | DATA | TSE | packet.length, 0x300]]);
      rig.machine.settle();
    }
    expect(rig.nic.stats.txBadOffload).toBe(cases.length);
    expect(rig.nic.stats.txSegmentations).toBe(0);
    for (const { facts } of rig.machine.peer.frames) expect(facts).toBe(0);
    rig.expectGood();
  });

  it('hardening 14: a tag inserted in loopback makes the frame four bytes longer', () => {
    rig = new E1000Rig({ vlans: [5], promiscuous: true });
    rig.put(0x100, (rig.get(0x100) | 0x40) & ~(1 << 18));
    for (const length of [14, 56, 59, 60, 1514, 3000]) {
      rig.transmit([[rig.packet(length), 0, CMD | 0x40000000 | length, 5 << 16]]);
    }
    rig.machine.settle();
    expect(rig.received.map(({ bytes, tci }) => [bytes.length, tci])).toEqual([
      [60, 5],
      [60, 5],
      [60, 5],
      [60, 5],
      [1514, 5],
    ]);
    // 3004 bytes are too long for a receiver without LPE.
    expect(rig.nic.stats.rxDropTooLong).toBe(1);
    rig.expectGood();
  });

  it('hardening 15: lengths whose sum is far too large are refused, not wrapped', () => {
    rig = new E1000Rig();
    const address = rig.packet(2000);
    const descriptors = Array.from({ length: 60 }, () => [address, 0, MORE | DATA | 0xfffff, 0]);
    descriptors.push([address, 0, CMD | DATA | 0xfffff, 0]);
    rig.transmit([[14, 34 | (50 << 8), CONTEXT | 0x0b0fffff, (54 << 8) | (1460 << 16)], ...descriptors]);
    rig.machine.settle();
    expect(rig.nic.stats.txDropTooLong).toBe(1);
    expect(rig.machine.peer.frames.length).toBe(0);
    rig.expectGood();
  });

  it('hardening 17: checksum offsets past the frame are left out, and the frame goes out', () => {
    rig = new E1000Rig();
    const address = rig.packet(100);
    rig.transmit([
      [14 | (200 << 8), 34 | (255 << 8), CONTEXT | 0x0b000000, 0],
      [address, 0, CMD | DATA | 100, 0x300],
      [address, 0, CMD | TSE | 100 | (99 << 16), 0x1000],
      [200 | (201 << 8) | (20 << 16), 34 | (50 << 8) | (20 << 16), CONTEXT | 0x0b000000, 0],
      [address, 0, CMD | DATA | 100, 0x300],
    ]);
    rig.machine.settle();
    expect(rig.nic.stats.txBadOffload).toBe(5);
    expect(rig.machine.peer.frames.map(({ bytes }) => bytes)).toEqual(
      new Array(3).fill(rig.bytesAt(address, 100)),
    );
    rig.expectGood();
  });

  it('hardening 18: a segment size of 0 sends the frame unsegmented', () => {
    rig = new E1000Rig();
    const packet = tcpPacket(1000);
    rig.transmit([
      [14 | (24 << 8) | (33 << 16), 34 | (50 << 8), CONTEXT | 0x0b000000 | 1000, 54 << 8],
      [rig.place(packet), 0, CMD | DATA | TSE | packet.length, 0x100],
    ]);
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(1);
    expect(rig.machine.peer.frames[0]!.facts >> 8).toBe(0);
    expect(rig.machine.peer.frames[0]!.bytes.length).toBe(packet.length);
    rig.expectGood();
  });

  it('hardening 19: a frame of very many fragments is copied together or dropped, never an error', () => {
    rig = new E1000Rig();
    const bytes = testFrame(5000, 3);
    const address = rig.place(bytes);
    const descriptors: number[][] = [];
    // Out of order in memory, so that parts do not merge.
    const copies = [address, rig.place(bytes)];
    for (let at = 0; at < 5000; at += 10)
      descriptors.push([copies[(at / 10) & 1]! + at, 0, MORE | DATA | 10, 0]);
    descriptors[descriptors.length - 1]![2] = CMD | DATA | 10;
    rig.transmit(descriptors, { count: 1024 });
    rig.machine.settle();
    expect(rig.machine.peer.frames.map((frame) => frame.bytes)).toEqual([bytes]);
    rig.expectGood();
  });

  it('hardening 22: resets and unplugs from within callbacks, ten thousand times, leak nothing', () => {
    rig = new E1000Rig({ ringSize: 64 });
    const address = rig.packet(2000);
    let resets = 0;
    const receive = rig.machine.peer.receive.bind(rig.machine.peer);
    rig.machine.peer.receive = (frames, from, to) => {
      rig.put(0, 0x04000000);
      resets++;
      return receive(frames, from, to);
    };
    for (let i = 0; i < 2000; i++) {
      rig.machine.peer.limit = i % 5;
      rig.transmit(
        Array.from({ length: 8 }, (_, k) => [address, 0, CMD | DATA | (k % 2 === 0 ? 60 : 2000), 0]),
        { count: 8, tail: 7 },
      );
      rig.machine.loop.run();
      rig.machine.peer.frames.length = 0;
      rig.machine.ram.release(0x300000);
    }
    expect(resets).toBeGreaterThan(1000);
    rig.machine.peer.receive = receive;
    expect(rig.machine.pool.free).toBe(rig.machine.pool.capacity);
    for (let i = 0; i < 8000; i++) {
      rig.nic.reset();
      rig.nic.writeConfig(4, 2, 6);
      rig.put(0xd0, 0x1ffff);
      rig.put(0xc8, 4);
    }
    rig.expectGood();
  });

  it('hardening 22: resets and doorbells while remote memory is read or written', () => {
    rig = new E1000Rig();
    const { machine, nic } = rig;
    machine.onInterrupt = null;
    const far = new Uint8Array(65_536);
    const words = new Int32Array(far.buffer);
    const FAR = 0x4000_0000;
    let turn = 0;
    const meddle = (): void => {
      turn++;
      if (turn % 7 === 0) rig.put(0, 0x04000000);
      else if (turn % 5 === 0) nic.reset();
      else if (turn % 3 === 0) rig.put(0x3818, turn % 32);
      else if (turn % 11 === 0) rig.put(0x2818, turn % 32);
    };
    machine.memory.addRemote(FAR, {
      length: far.length,
      read(offset, target, at, length) {
        target.set(far.subarray(offset, offset + length), at);
        meddle();
        return turn % 13 !== 0;
      },
      write(offset, source, at, length) {
        far.set(source.subarray(at, at + length), offset);
        meddle();
        return turn % 17 !== 0;
      },
    });
    for (let round = 0; round < 300; round++) {
      for (let i = 0; i < 32; i++) {
        words.set(
          [FAR + 0x1000 + 2048 * (i % 8), 0, (i % 3 === 0 ? MORE : CMD) | DATA | (60 + 40 * i), 0],
          4 * i,
        );
        words.set([FAR + 0x8000 + 2048 * (i % 8), 0, 0, 0], 128 + 4 * i);
      }
      nic.writeConfig(4, 2, 6);
      for (const [base, ring] of [
        [0x2800, FAR + 512],
        [0x3800, FAR],
      ]) {
        rig.put(base!, ring!);
        rig.put(base! + 8, 512);
        rig.put(base! + 0x10, 0);
      }
      rig.put(0x100, 0x801a);
      rig.put(0x2818, 31);
      rig.put(0x400, 0x4010a);
      rig.put(0x3818, 31);
      for (let i = 0; i < 5; i++) machine.peer.send(toUs(60 + 300 * i));
      machine.loop.run();
    }
    machine.settle();
    expect(turn).toBeGreaterThan(1000);
    machine.memory.remove(FAR, far.length);
    machine.onInterrupt = () => rig.driver.interrupt();
    rig.expectGood();
  });

  it('hardening 22: a peer that unplugs the NIC while it is sent frames', () => {
    rig = new E1000Rig();
    const other = new E1000Rig();
    const receive = other.machine.peer.receive.bind(other.machine.peer);
    other.machine.peer.receive = (frames, from, to) => {
      other.nic.close();
      return receive(frames, from, to);
    };
    other.transmit(Array.from({ length: 60 }, () => [other.packet(60), 0, CMD | 60, 0]));
    other.machine.settle(1);
    expect(other.machine.pool.free).toBe(other.machine.pool.capacity);
    rig.expectGood();
  });
});

describe('receive', () => {
  it('hardening 6: receive pointers that point backwards, anywhere or past the buffers stay within RAM', () => {
    rig = new E1000Rig({ ringSize: 64 });
    for (const [head, tail] of [
      [10, 3],
      [63, 62],
      [0, 63],
      [5, 5],
    ]) {
      rig.put(0x2810, head!);
      rig.put(0x2818, tail!);
      for (let i = 0; i < 70; i++) rig.machine.peer.send(toUs(60));
    }
    rig.machine.settle();
    rig.expectGood();
  });

  it('hardening 8: frames that are too long are dropped by RCTL', () => {
    rig = new E1000Rig({ mtu: 9000 });
    const rctl = rig.get(0x100);
    rig.put(0x100, rctl & ~0x20);
    rig.machine.peer.send(toUs(1518));
    rig.machine.peer.send(toUs(1519));
    rig.machine.peer.send(toUs(9014));
    rig.machine.settle();
    expect(rig.received.map(({ bytes }) => bytes.length)).toEqual([1518]);
    expect(rig.nic.stats.rxDropTooLong).toBe(2);
    expect(rig.get(0x40ac)).toBe(2);
    rig.put(0x100, rctl);
    rig.machine.peer.send(toUs(9014));
    rig.machine.settle();
    expect(rig.received[1]!.bytes).toEqual(toUs(9014));
    rig.put(0x100, (rctl & ~0x20) | 4);
    rig.machine.peer.send(toUs(9014));
    rig.machine.peer.send(toUs(16_381));
    rig.machine.settle();
    expect(rig.received.length).toBe(3);
    rig.expectGood();
  });

  it('hardening 16: frames shorter than an FCS, a tag or a header are refused before anything is subtracted', () => {
    rig = new E1000Rig({ vlans: [5] });
    for (let length = 0; length < 60; length++) {
      const frame = toUs(length);
      if (length > 13) frame.set([0x81, 0], 12);
      rig.machine.peer.send(frame);
    }
    rig.machine.settle();
    for (const { bytes } of rig.received) expect(bytes.length).toBe(60);
    rig.expectGood();
  });

  it('hardening 20: the guest never sees bytes that were not sent to it', () => {
    rig = new E1000Rig();
    const ring = rig.get(0x2800);
    const buffer = rig.machine.ram.words[ring >> 2]!;
    rig.machine.ram.bytes.fill(0xaa, buffer, buffer + 2048);
    // A slot that held something else.
    const secret = rig.machine.pool.from(new Uint8Array(2000).fill(0x5e));
    rig.machine.pool.release(secret);
    rig.machine.peer.send(toUs(20));
    rig.machine.settle();
    expect([...rig.received[0]!.bytes]).toEqual([...toUs(20), ...new Array(40).fill(0)]);
    expect(rig.machine.ram.bytes.subarray(buffer + 60, buffer + 2048).every((byte) => byte === 0xaa)).toBe(
      true,
    );
    // Padding on the way out is zeros as well.
    rig.transmit([[rig.packet(60, 3), 0, CMD | 20, 0]]);
    rig.machine.settle();
    expect(rig.machine.peer.frames[0]!.bytes.subarray(20).every((byte) => byte === 0)).toBe(true);
    rig.expectGood();
  });

  it('hardening 36: a flood without buffers is refused, and passes again when buffers come', () => {
    rig = new E1000Rig({ ringSize: 16 });
    rig.machine.onInterrupt = null;
    let taken = 0;
    for (let i = 0; i < 10_000; i++) if (rig.machine.peer.send(toUs(60))) taken++;
    expect(taken).toBe(15);
    expect(rig.nic.stats.rxNoDescriptor).toBe(10_000 - 15);
    expect(rig.get(0xc0) & 0x40).toBe(0x40);
    rig.driver.interrupt();
    expect(rig.machine.peer.ready).toBe(1);
    for (let i = 0; i < 10; i++) expect(rig.machine.peer.send(toUs(60))).toBe(true);
    rig.machine.onInterrupt = () => rig.driver.interrupt();
    // A receiver that is switched off takes and drops.
    rig.put(0x100, 0);
    for (let i = 0; i < 100; i++) expect(rig.machine.peer.send(toUs(60))).toBe(true);
    expect(rig.nic.stats.rxDropDisabled).toBe(100);
    rig.expectGood();
  });
});

/** Ethernet, IPv4 and TCP with `payload` bytes. */
function tcpPacket(payload: number): Uint8Array {
  const bytes = testFrame(54 + payload, 7);
  bytes.set([8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2], 12);
  bytes.set([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0], 34);
  return bytes;
}

function change(bytes: Uint8Array, at: number, value: number): Uint8Array {
  const changed = bytes.slice();
  changed[at] = value;
  return changed;
}

/** Offloads, VLANs, jumbo frames, filters and save/restore of the e1000, through its driver's half. */
import { afterEach, describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/core/errors.ts';
import { FACT_CSUM_VALID, FACT_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6 } from '../../../src/core/pool.ts';
import {
  PacketBatch,
  RX_CSUM_BAD,
  RX_CSUM_OK,
  RX_VLAN,
  SEGMENT_TCP4,
  SEGMENT_TCP6,
} from '../../../src/guest/driver/driver.ts';
import { E1000 } from '../../../src/nic/e1000/index.ts';
import {
  finishChecksum,
  foldSum,
  internetChecksum,
  pseudoSumAt,
  sumBytes,
} from '../../../src/wire/checksum.ts';
import { E1000Rig, MAC, testFrame } from '../../lib/e1000-rig.ts';

let rig: E1000Rig;
afterEach(() => rig.close());

/** A TCP packet to 02:…:01 whose checksum field holds the folded pseudo-header sum, as a stack leaves it for its NIC. */
function tcp(
  version: 4 | 6,
  payload: number,
  flags = 0x18,
  withLength = true,
): { bytes: Uint8Array; l4: number; header: number } {
  const l4 = version === 4 ? 34 : 54;
  const bytes = testFrame(l4 + 20 + payload, 5);
  if (version === 4) {
    const length = 40 + payload;
    bytes.set(
      [8, 0, 0x45, 0, length >> 8, length & 255, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2],
      12,
    );
    const sum = internetChecksum(bytes, 14, 20);
    bytes.set([sum >> 8, sum & 255], 24);
  } else {
    bytes.set([0x86, 0xdd, 0x60, 0, 0, 0, (20 + payload) >> 8, (20 + payload) & 255, 6, 64], 12);
    for (let i = 22; i < 54; i++) bytes[i] = i;
  }
  bytes.set([0x30, 0x39, 0, 80, 0, 0, 1, 0, 0, 0, 0, 1, 0x50, flags, 255, 255, 0, 0, 0, 0], l4);
  const pseudo = foldSum(pseudoSumAt(bytes, 14, 6, withLength ? 20 + payload : 0));
  bytes.set([pseudo >> 8, pseudo & 255], l4 + 16);
  return { bytes, l4, header: l4 + 20 };
}

/** The checksum of IP's TCP payload as a receiver computes it: 0 when right. */
function tcpError(bytes: Uint8Array, ip = 14): number {
  const l4 = bytes[ip]! >> 4 === 4 ? ip + 20 : ip + 40;
  return finishChecksum(
    sumBytes(bytes, l4, bytes.length - l4) + pseudoSumAt(bytes, ip, 6, bytes.length - l4),
  );
}

describe('transmit offloads', () => {
  it('hands a checksum on as facts, and fills it for a peer that cannot', () => {
    for (const accepts of [63, 0]) {
      rig = new E1000Rig({ accepts });
      for (const version of [4, 6] as const) {
        const { bytes, l4 } = tcp(version, 100);
        const batch = new PacketBatch(1);
        batch.checksummed(0, rig.place(bytes), bytes.length, l4, 16);
        rig.driver.send(batch, 0, 1);
        rig.machine.settle();
        const frame = rig.machine.peer.frames.pop()!;
        if (accepts === 0) {
          expect(frame.facts).toBe(FACT_CSUM_VALID);
          expect(tcpError(frame.bytes)).toBe(0);
        } else {
          expect(frame).toMatchObject({ facts: FACT_NEEDS_CSUM, csumStart: l4, csumOffset: 16, bytes });
        }
      }
      if (accepts !== 0) rig.close();
    }
    expect(rig.sent).toBe(2);
  });

  it('hands a 64 KiB TCP segment on as one frame with right headers, its payload by reference', () => {
    rig = new E1000Rig();
    for (const [version, kind, type] of [
      [4, SEGMENT_TCP4, GSO_TCPV4],
      [6, SEGMENT_TCP6, GSO_TCPV6],
    ] as const) {
      for (const flags of [0x18, 0x98]) {
        const { bytes, l4, header } = tcp(version, 64_000, flags, false);
        const sent = bytes.slice();
        // Drivers leave lengths and the IP checksum to the hardware.
        bytes.fill(0, version === 4 ? 16 : 18, version === 4 ? 18 : 20);
        if (version === 4) bytes.fill(0, 24, 26);
        const batch = new PacketBatch(1);
        batch.segmented(0, rig.place(bytes), bytes.length, kind, l4, header, 1448);
        rig.driver.send(batch, 0, 1);
        rig.machine.settle();
        const frame = rig.machine.peer.frames.pop()!;
        const ecn = flags === 0x98 ? GSO_ECN : 0;
        expect(frame).toMatchObject({
          facts: FACT_NEEDS_CSUM | ((type | ecn) << 8),
          gsoSize: 1448,
          csumStart: l4,
          csumOffset: 16,
        });
        // As if the whole were one packet: lengths, IP checksum, pseudo header with the length.
        const pseudo = foldSum(pseudoSumAt(sent, 14, 6, 64_020));
        sent.set([pseudo >> 8, pseudo & 255], l4 + 16);
        expect(frame.bytes.findIndex((byte, i) => byte !== sent[i])).toBe(-1);
      }
    }
    expect(rig.nic.stats.txBorrowed).toBe(4);
    expect(rig.nic.stats.txSegmentations).toBe(4);
    expect(rig.get(0x40f8)).toBe(4);
    expect(rig.get(0x4080)).toBe(4 * 45);
  });

  it('cuts the segment for a peer that cannot, with a tag too', () => {
    rig = new E1000Rig({ accepts: 0, vlans: [7] });
    const { bytes, l4, header } = tcp(4, 5000, 0x19, false);
    const batch = new PacketBatch(1);
    batch.segmented(0, rig.place(bytes), bytes.length, SEGMENT_TCP4, l4, header, 1448);
    batch.vlanTci[0] = 0x2007;
    rig.driver.send(batch, 0, 1);
    rig.machine.settle();
    const frames = rig.machine.peer.frames;
    expect(frames.map((frame) => frame.bytes.length)).toEqual([58 + 1448, 58 + 1448, 58 + 1448, 58 + 656]);
    for (const [i, frame] of frames.entries()) {
      expect([...frame.bytes.subarray(12, 18)]).toEqual([0x81, 0, 0x20, 7, 8, 0]);
      expect(internetChecksum(frame.bytes, 18, 20)).toBe(0);
      expect(tcpError(frame.bytes, 18)).toBe(0);
      expect(frame.bytes[38 + 13]).toBe(i === 3 ? 0x19 : 0x10);
    }
    expect(rig.sent).toBe(1);
  });

  it('computes the IP checksum and ranges that end before the frame does', () => {
    rig = new E1000Rig();
    const { bytes } = tcp(4, 100);
    bytes.fill(0, 24, 26);
    const address = rig.place(bytes);
    rig.transmit([
      [14 | (24 << 8) | (33 << 16), 34 | (50 << 8) | (83 << 16), 0x20000000 | 0x0b000000, 0],
      [address, 0, 0x0b000000 | 0x20100000 | bytes.length, 0x300],
    ]);
    rig.machine.settle();
    const frame = rig.machine.peer.frames[0]!;
    expect(frame.facts).toBe(0);
    expect(internetChecksum(frame.bytes, 14, 20)).toBe(0);
    const expected = bytes.slice(34, 84);
    expect((frame.bytes[50]! << 8) | frame.bytes[51]!).toBe(finishChecksum(sumBytes(expected, 0, 50)));
  });
});

describe('receive offloads', () => {
  const packet = tcp(4, 200).bytes;
  packet.set(MAC, 0);

  it('tells what the checksums are, and believes who checked them before', () => {
    rig = new E1000Rig();
    const good = packet.slice();
    good.fill(0, 50, 52);
    const sum = finishChecksum(
      sumBytes(good, 34, good.length - 34) + pseudoSumAt(good, 14, 6, good.length - 34),
    );
    good.set([sum >> 8, sum & 255], 50);
    rig.machine.peer.send(good);
    rig.machine.peer.send(packet);
    rig.machine.peer.send(packet, FACT_CSUM_VALID);
    const other = testFrame(60);
    other.set(MAC, 0);
    rig.machine.peer.send(other);
    rig.machine.settle();
    expect(rig.received.map(({ flags }) => flags)).toEqual([RX_CSUM_OK, RX_CSUM_BAD, RX_CSUM_OK, 0]);
    rig.put(0x5000, 34);
    rig.machine.onInterrupt = null;
    const index = rig.get(0x2810);
    rig.machine.peer.send(good);
    const word = rig.machine.ram.words[(rig.get(0x2800) >> 2) + 4 * index + 2]! >>> 16;
    expect(word).toBe(foldSum(sumBytes(good, 34, good.length - 34)));
    rig.machine.onInterrupt = () => rig.driver.interrupt();
  });

  it('strips tags, filters VLANs and takes untagged frames', () => {
    rig = new E1000Rig({ vlans: [5, 4095] });
    const tagged = (id: number): Uint8Array => {
      const frame = testFrame(100, 4);
      frame.set(MAC, 0);
      frame.set([0x81, 0, 0xa0 | (id >> 8), id & 255], 12);
      return frame;
    };
    for (const id of [5, 6, 4095, 0]) rig.machine.peer.send(tagged(id));
    rig.machine.peer.send(packet);
    rig.machine.settle();
    expect(rig.received.map(({ flags, tci }) => [flags & RX_VLAN, tci])).toEqual([
      [RX_VLAN, 0xa005],
      [RX_VLAN, 0xafff],
      [0, 0],
    ]);
    const expected = tagged(5);
    expect(rig.received[0]!.bytes).toEqual(
      Uint8Array.of(...expected.subarray(0, 12), ...expected.subarray(16)),
    );
    expect(rig.nic.stats.rxDropVlan).toBe(2);
    // Without filter and strip the tag stays.
    rig.put(0, rig.get(0) & ~0x40000000);
    rig.put(0x100, rig.get(0x100) & ~(1 << 18));
    rig.machine.peer.send(tagged(6));
    rig.machine.settle();
    expect(rig.received[3]!.bytes).toEqual(tagged(6));
  });

  it('spreads a frame over several descriptors, with and without FCS, in every buffer size', () => {
    rig = new E1000Rig({ ringSize: 128 });
    rig.machine.onInterrupt = null;
    for (const [code, extended, size] of [
      [0, false, 2048],
      [1, false, 1024],
      [2, false, 512],
      [3, false, 256],
      [1, true, 16_384],
      [2, true, 8192],
      [3, true, 4096],
    ] as const) {
      for (const strip of [true, false]) {
        rig.driver.interrupt();
        rig.received.length = 0;
        const rctl = 0x8002 | 0x20 | (code << 16) | (extended ? 1 << 25 : 0) | (strip ? 1 << 26 : 0);
        rig.put(0x100, rctl);
        const frame = testFrame(5000, code);
        frame.set(MAC, 0);
        // A ring of its own, with a guard behind every buffer.
        const count = 64;
        const ring = rig.machine.ram.allocate(16 * count, 128);
        const buffers = Array.from({ length: count }, () =>
          rig.machine.ram.allocate(Math.min(size, 5100) + 8, 16),
        );
        const at = rig.machine.ram.offset(ring) >> 2;
        for (const [i, buffer] of buffers.entries()) {
          rig.machine.ram.words.set([buffer, 0, 0, 0], at + 4 * i);
          rig.machine.ram.bytes.fill(0xcc, buffer, buffer + Math.min(size, 5100) + 8);
        }
        rig.put(0x2800, ring);
        rig.put(0x2808, 16 * count);
        rig.put(0x2810, 0);
        rig.put(0x2818, count - 1);
        expect(rig.machine.peer.send(frame)).toBe(true);
        const stored = 5000 + (strip ? 0 : 4);
        const needed = Math.ceil(stored / size);
        expect(rig.get(0x2810)).toBe(needed);
        const together: number[] = [];
        for (let i = 0; i < needed; i++) {
          const length = rig.machine.ram.words[at + 4 * i + 2]! & 0xffff;
          const status = rig.machine.ram.words[at + 4 * i + 3]! & 0xff;
          expect(status & 3).toBe(i === needed - 1 ? 3 : 1);
          together.push(...rig.bytesAt(buffers[i]!, length));
          if (size < 5100) expect(rig.machine.ram.bytes[buffers[i]! + size]).toBe(0xcc);
        }
        expect(together.length).toBe(stored);
        expect(together.findIndex((byte, i) => byte !== (i < 5000 ? frame[i] : 0))).toBe(-1);
        rig.machine.ram.release(0x100000);
      }
    }
  });

  it('warns when descriptors run low (RDMTS), and of small packets (SRPD)', () => {
    rig = new E1000Rig({ ringSize: 64 });
    rig.machine.onInterrupt = null;
    rig.put(0x100, rig.get(0x100) | 0x200);
    rig.put(0x2c00, 64);
    const frame = testFrame(60);
    frame.set(MAC, 0);
    rig.get(0xc0);
    for (let i = 0; i < 54; i++) rig.machine.peer.send(frame);
    expect(rig.get(0xc0) & 0x10010).toBe(0x10000);
    rig.machine.peer.send(frame);
    expect(rig.get(0xc0) & 0x10).toBe(0x10);
    rig.machine.peer.send(packet);
    expect(rig.get(0xc0) & 0x10010).toBe(0);
  });
});

describe('receive filter', () => {
  it('follows RAL/RAH, MTA with every offset, UPE, MPE and BAM, and shows it', () => {
    const group = Uint8Array.of(1, 0, 0x5e, 0x12, 0x34, 0x56);
    rig = new E1000Rig({ multicast: [group] });
    const sends = (destination: Uint8Array): boolean => {
      const before = rig.nic.stats.rxFrames;
      const frame = testFrame(60);
      frame.set(destination, 0);
      rig.machine.peer.send(frame);
      return rig.nic.stats.rxFrames > before;
    };
    const other = Uint8Array.of(2, 2, 2, 2, 2, 2);
    const otherGroup = Uint8Array.of(1, 0, 0x5e, 0x12, 0x35, 0x57);
    const all = new Uint8Array(6).fill(255);
    expect([MAC, all, group, otherGroup, other].map(sends)).toEqual([true, true, true, false, false]);
    expect(rig.nic.queryRxFilter('nic')).toMatchObject({
      'main-mac': '52:54:00:12:34:56',
      promiscuous: false,
      multicast: 'normal',
      'multicast-overflow': true,
      vlan: 'all',
    });
    const rctl = rig.get(0x100);
    for (let mo = 0; mo < 4; mo++) {
      rig.put(0x100, rctl | (mo << 12));
      for (let i = 0; i < 128; i++) rig.put(0x5200 + 4 * i, 0);
      expect(sends(group)).toBe(false);
      const bit = (0x5634 >> [4, 3, 2, 0][mo]!) & 0xfff;
      rig.put(0x5200 + 4 * (bit >> 5), 1 << (bit & 31));
      expect(sends(group)).toBe(true);
      rig.put(0x5200 + 4 * (bit >> 5), 0);
    }
    rig.put(0x100, rctl | 8);
    expect([other, otherGroup].map(sends)).toEqual([true, false]);
    rig.put(0x100, rctl | 16);
    expect([other, otherGroup].map(sends)).toEqual([false, true]);
    rig.put(0x100, rctl & ~0x8000);
    expect(sends(all)).toBe(false);
    rig.put(0x5400 + 8, 0x02020202);
    rig.put(0x5404 + 8, 0x80000202);
    expect(sends(other)).toBe(true);
    expect(rig.nic.queryRxFilter('nic')['unicast-table']).toEqual(['02:02:02:02:02:02']);
    rig.put(0x5404 + 8, 0x0202);
    expect(sends(other)).toBe(false);
  });

  it('tells of a change once until somebody asks', () => {
    rig = new E1000Rig();
    let told = 0;
    rig.nic.onRxFilterChanged = () => {
      told++;
    };
    rig.put(0x100, rig.get(0x100) | 0x18);
    rig.put(0x5600, 1);
    expect(told).toBe(1);
    rig.nic.queryRxFilter('nic');
    rig.put(0x5200, 1);
    rig.put(0x5200, 2);
    expect(told).toBe(2);
  });
});

describe('save and restore', () => {
  it('goes on in the middle of a transfer, with frames that waited for the port', () => {
    rig = new E1000Rig({ ringSize: 64 });
    const addresses = Array.from({ length: 30 }, (_, i) => rig.packet(100 + i * 90, i));
    const batch = new PacketBatch(30);
    for (const [i, address] of addresses.entries()) batch.plain(i, address, 100 + i * 90);
    rig.machine.peer.limit = 7;
    rig.driver.send(batch, 0, 30);
    rig.machine.settle();
    expect(rig.sent).toBe(7);
    const state = JSON.parse(JSON.stringify(rig.nic.saveState()));
    const config = rig.nic.readConfig(4, 2);

    // The driver speaks to the first NIC: nobody serves the second one's interrupts.
    rig.machine.onInterrupt = null;
    // Another NIC takes the first one's place on the same machine and link.
    rig.nic.close();
    rig.machine.loop.run();
    const nic = new E1000(
      { host: rig.machine, link: rig.machine.link, name: 'e1000.1' },
      { mac: Uint8Array.of(2, 9, 9, 9, 9, 9) },
    );
    rig.machine.plug(nic.port);
    nic.loadState(state);
    expect(nic.readConfig(4, 2)).toBe(config);
    (rig as { nic: E1000 }).nic = nic;
    rig.machine.peer.limit = 1000;
    rig.machine.peer.port.ready();
    rig.machine.settle();
    expect(rig.machine.peer.frames.map(({ bytes }) => bytes)).toEqual(
      addresses.map((a, i) => rig.bytesAt(a, 100 + i * 90)),
    );
    expect(nic.readBar(0, 0x3810, 4)).toBe(30);
    expect(nic.readBar(0, 0x5400, 4)).toBe(0x12005452);
    expect(nic.saveState()).toMatchObject({ model: 'e1000' });
  });

  it('hardening 23: states that are not one are refused, by the field at fault, and change nothing', () => {
    rig = new E1000Rig();
    const good = rig.nic.saveState() as unknown as Record<string, unknown>;
    const bad: [string, unknown][] = [
      ['state', null],
      ['state', []],
      ['model', { ...good, model: 'e1001' }],
      ['version', { ...good, version: 2 }],
      ['config', { ...good, config: [1, 2] }],
      ['config', { ...good, config: new Array(256).fill(256) }],
      ['registers', { ...good, registers: new Array(10).fill(0) }],
      ['ioAddress', { ...good, ioAddress: -1 }],
      ['eeprom.words', { ...good, eeprom: { words: [], pins: 0, shift: [] } }],
      ['phy', { ...good, phy: 7 }],
      ['interrupts', { ...good, interrupts: ['1', 2, 3, 4, 5] }],
      ['tx.head', { ...good, tx: { ...(good.tx as object), head: 1e9 } }],
      [
        'tx.frames.bytes',
        {
          ...good,
          tx: { ...(good.tx as object), frames: [{ bytes: 'zz', facts: [0, 0, 0, 0, 0], end: 0 }] },
        },
      ],
      ['tx.parts', { ...good, tx: { ...(good.tx as object), parts: 'x' } }],
    ];
    for (const [field, state] of bad) {
      expect(() => rig.nic.loadState(state)).toThrow(OptionError);
      expect(() => rig.nic.loadState(state)).toThrow(`'${field}'`);
    }
    expect(rig.nic.saveState()).toEqual(good);
    rig.expectGood();
  });
});

/** Offloads, VLANs, fragments, jumbo frames, priorities, starvation and save/restore of the rtl8139. */
import { afterEach, describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/core/errors.ts';
import { FACT_CSUM_VALID, FACT_NEEDS_CSUM, GSO_ECN, GSO_TCPV4 } from '../../../src/core/pool.ts';
import { Port } from '../../../src/core/port.ts';
import {
  PacketBatch,
  RX_CSUM_BAD,
  RX_CSUM_OK,
  RX_VLAN,
  SEGMENT_TCP4,
} from '../../../src/guest/driver/driver.ts';
import {
  finishChecksum,
  foldSum,
  internetChecksum,
  pseudoSumAt,
  sumBytes,
} from '../../../src/wire/checksum.ts';
import { MAC, Rtl8139Rig, testFrame } from '../../lib/rtl8139-rig.ts';

let rig: Rtl8139Rig;
afterEach(() => rig.close());

/** An IP packet with TCP or UDP; the checksum field holds the folded pseudo-header sum, as a stack leaves it for its NIC. */
function ipPacket(
  version: 4 | 6,
  payload: number,
  protocol: 6 | 17 = 6,
  flags = 0x18,
): { bytes: Uint8Array; l4: number; header: number } {
  const l4 = version === 4 ? 34 : 54;
  const l4Bytes = protocol === 6 ? 20 : 8;
  const bytes = testFrame(l4 + l4Bytes + payload, 5);
  const length = l4Bytes + payload;
  if (version === 4) {
    const ip = 20 + length;
    bytes.set([8, 0, 0x45, 0, ip >> 8, ip & 255, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0], 12);
    bytes.set([10, 0, 2, 15, 10, 0, 2, 2], 26);
    const sum = internetChecksum(bytes, 14, 20);
    bytes.set([sum >> 8, sum & 255], 24);
  } else {
    bytes.set([0x86, 0xdd, 0x60, 0, 0, 0, length >> 8, length & 255, protocol, 64], 12);
    for (let i = 22; i < 54; i++) bytes[i] = i;
  }
  if (protocol === 6) {
    bytes.set([0x30, 0x39, 0, 80, 0, 0, 1, 0, 0, 0, 0, 1, 0x50, flags, 255, 255, 0, 0, 0, 0], l4);
  } else {
    bytes.set([0x30, 0x39, 0, 80, length >> 8, length & 255, 0, 0], l4);
  }
  const pseudo = foldSum(pseudoSumAt(bytes, 14, protocol, length));
  const at = l4 + (protocol === 6 ? 16 : 6);
  bytes.set([pseudo >> 8, pseudo & 255], at);
  return { bytes, l4, header: l4 + l4Bytes };
}

/** The checksum as a receiver computes it: 0 when right. */
function error(bytes: Uint8Array, protocol = 6): number {
  const l4 = bytes[14]! >> 4 === 4 ? 34 : 54;
  const length = bytes.length - l4;
  return finishChecksum(sumBytes(bytes, l4, length) + pseudoSumAt(bytes, 14, protocol, length));
}

describe('transmit offloads', () => {
  it('hands a checksum on as facts, and fills it for a peer that cannot; IPv6 is summed by the driver', () => {
    for (const accepts of [63, 0]) {
      rig = new Rtl8139Rig({ accepts });
      for (const [version, protocol] of [
        [4, 6],
        [4, 17],
        [6, 6],
        [6, 17],
      ] as const) {
        const { bytes, l4 } = ipPacket(version, 100, protocol);
        const batch = new PacketBatch(1);
        batch.checksummed(0, rig.place(bytes), bytes.length, l4, protocol === 6 ? 16 : 6);
        rig.driver.send(batch, 0, 1);
        rig.machine.settle();
        const frame = rig.machine.peer.frames.pop()!;
        if (version === 4 && accepts !== 0) {
          expect(frame).toMatchObject({ facts: FACT_NEEDS_CSUM, csumStart: l4, bytes });
        } else {
          expect(frame.facts).toBe(version === 4 ? FACT_CSUM_VALID : 0);
          expect(error(frame.bytes, protocol)).toBe(0);
        }
      }
      if (accepts !== 0) rig.close();
    }
  });

  it('leaves padding behind the packet out of the sum', () => {
    rig = new Rtl8139Rig();
    const { bytes } = ipPacket(4, 3);
    const padded = new Uint8Array(64).fill(0x99);
    padded.set(bytes);
    rig.transmit([rig.whole(rig.place(padded), 64, (1 << 18) | (1 << 16))]);
    rig.machine.settle();
    const frame = rig.machine.peer.frames[0]!;
    expect(frame.facts).toBe(0);
    expect(error(frame.bytes.subarray(0, bytes.length))).toBe(0);
  });

  it('hands a 64 KiB TCP segment on as one frame with right headers, its payload by reference', () => {
    rig = new Rtl8139Rig();
    for (const flags of [0x18, 0x98]) {
      const { bytes, l4, header } = ipPacket(4, 64_000, 6, flags);
      const sent = bytes.slice();
      // A driver may leave length, IP checksum and the pseudo header's sum to the hardware.
      bytes.fill(0, 16, 18);
      bytes.fill(0, 24, 26);
      bytes.fill(0, l4 + 16, l4 + 18);
      const batch = new PacketBatch(1);
      batch.segmented(0, rig.place(bytes), bytes.length, SEGMENT_TCP4, l4, header, 1448);
      rig.driver.send(batch, 0, 1);
      rig.machine.settle();
      const frame = rig.machine.peer.frames.pop()!;
      expect(frame).toMatchObject({
        facts: FACT_NEEDS_CSUM | ((GSO_TCPV4 | (flags === 0x98 ? GSO_ECN : 0)) << 8),
        gsoSize: 1448,
        csumStart: l4,
        csumOffset: 16,
      });
      expect(frame.bytes.findIndex((byte, i) => byte !== sent[i])).toBe(-1);
    }
    expect(rig.nic.stats).toMatchObject({ txBorrowed: 2, txSegmentations: 2, txFrames: 2 * 45 });
    expect(rig.sent).toBe(2);
  });

  it('cuts the segment for a peer that cannot, with a tag too', () => {
    rig = new Rtl8139Rig({ accepts: 0, vlans: [7] });
    const { bytes, l4, header } = ipPacket(4, 5000, 6, 0x19);
    const batch = new PacketBatch(1);
    batch.segmented(0, rig.place(bytes), bytes.length, SEGMENT_TCP4, l4, header, 1448);
    batch.vlanTci[0] = 0x6007;
    rig.driver.send(batch, 0, 1);
    rig.machine.settle();
    const frames = rig.machine.peer.frames.map((frame) => frame.bytes);
    expect(frames.map(({ length }) => length)).toEqual([1506, 1506, 1506, 714]);
    const payload = frames.flatMap((frame) => {
      expect([...frame.subarray(12, 18)]).toEqual([0x81, 0, 0x60, 7, 8, 0]);
      const bare = Uint8Array.of(...frame.subarray(0, 12), ...frame.subarray(16));
      expect(error(bare)).toBe(0);
      expect(internetChecksum(bare, 14, 20)).toBe(0);
      return [...bare.subarray(54)];
    });
    expect(payload).toEqual([...bytes.subarray(54)]);
  });

  it('sends a frame of several descriptors, over the end of the ring', () => {
    rig = new Rtl8139Rig();
    const bytes = testFrame(3000, 9);
    const address = rig.place(bytes);
    const OWN = 0x80000000;
    const ring = rig.transmit([
      [OWN + 0x10000000 + 1000, 0, address + 2000, 0],
      rig.whole(rig.packet(60), 60),
      rig.whole(rig.packet(61), 61),
      [OWN + 0x60000000 + 2000, 0, address, 0],
    ]);
    // The first descriptor alone continues nothing and is given back; the driver gives it again.
    rig.machine.settle();
    expect(rig.nic.stats.txBadDescriptor).toBe(1);
    rig.machine.ram.words[ring >> 2] = (OWN + 0x10000000 + 1000) | 0;
    rig.put(0xd9, 0x40, 1);
    rig.machine.settle();
    expect(rig.machine.peer.frames.map((frame) => frame.bytes.length)).toEqual([60, 61, 3000]);
    expect(rig.machine.peer.frames[2]!.bytes).toEqual(bytes);
    expect(rig.commands(ring, 4).every((command) => command < OWN)).toBe(true);
  });
});

describe('receive offloads', () => {
  it('tells right and wrong checksums, of IPv4 only', () => {
    rig = new Rtl8139Rig();
    const flags: number[] = [];
    for (const [version, protocol] of [
      [4, 6],
      [4, 17],
      [6, 6],
    ] as const) {
      const { bytes, l4 } = ipPacket(version, 60, protocol);
      bytes.set(MAC);
      const at = l4 + (protocol === 6 ? 16 : 6);
      bytes.fill(0, at, at + 2);
      const good = finishChecksum(
        sumBytes(bytes, l4, bytes.length - l4) + pseudoSumAt(bytes, 14, protocol, bytes.length - l4),
      );
      bytes.set([good >> 8, good & 255], at);
      for (const change of [0, 1]) {
        bytes[at]! ^= change;
        rig.machine.peer.send(bytes);
        rig.machine.settle();
        flags.push(rig.received.pop()!.flags);
      }
    }
    expect(flags).toEqual([RX_CSUM_OK, RX_CSUM_BAD, RX_CSUM_OK, RX_CSUM_BAD, 0, 0]);
    // UDP without a checksum is right, a fragment and a broken IP header are IP.
    const { bytes } = ipPacket(4, 60, 17);
    bytes.set(MAC);
    bytes.fill(0, 40, 42);
    rig.machine.peer.send(bytes);
    rig.machine.settle();
    expect(rig.received.pop()!.flags).toBe(RX_CSUM_OK);
    bytes[20] = 0x20;
    rig.machine.peer.send(bytes);
    rig.machine.settle();
    expect(rig.received.pop()!.flags).toBe(RX_CSUM_BAD);
  });

  it('takes tags off when CPCR says so, and leaves them otherwise', () => {
    const tagged = testFrame(100);
    tagged.set(MAC);
    tagged.set([0x81, 0, 0x60, 0x07, 0x88, 0xb5], 12);
    rig = new Rtl8139Rig({ vlans: [7] });
    rig.machine.peer.send(tagged);
    rig.machine.settle();
    expect(rig.received[0]).toEqual({
      bytes: Uint8Array.of(...tagged.subarray(0, 12), ...tagged.subarray(16)),
      flags: RX_VLAN,
      tci: 0x6007,
    });
    rig.close();
    rig = new Rtl8139Rig();
    rig.machine.peer.send(tagged);
    rig.machine.settle();
    expect(rig.received[0]).toEqual({ bytes: tagged, flags: 0, tci: 0 });
  });

  it('puts a long frame into several descriptors', () => {
    rig = new Rtl8139Rig();
    rig.machine.onInterrupt = null;
    const buffers = rig.machine.ram.allocate(8192, 64);
    const OWN = 0x80000000;
    const ring = rig.ring([
      [OWN + 1000, 0, buffers, 0],
      [OWN + 0, 0, buffers, 0],
      [OWN + 1000, 0, buffers + 1000, 0],
      [OWN + 0x40000000 + 1000, 0, buffers + 2000, 0],
    ]);
    rig.put(0xe4, ring);
    const frame = testFrame(2500, 4);
    frame.set(MAC);
    expect(rig.machine.peer.send(frame)).toBe(true);
    expect(rig.commands(ring, 4).map((word) => (word >>> 0).toString(16))).toEqual([
      '22000000',
      '2000000',
      '2000000',
      (0x52000000 + 2504).toString(16),
    ]);
    expect(rig.bytesAt(buffers, 2500)).toEqual(frame);
    expect([...rig.bytesAt(buffers + 2500, 4)]).toEqual([0, 0, 0, 0]);
    // Half a frame's room is none.
    rig.machine.ram.words[ring >> 2] = (OWN + 1000) | 0;
    expect(rig.machine.peer.send(frame)).toBe(false);
    expect(rig.nic.stats.rxNoDescriptor).toBe(1);
  });

  it('takes an IP MTU of 4096', () => {
    rig = new Rtl8139Rig({ mtu: 4096 });
    const frame = testFrame(4110, 3);
    frame.set(MAC);
    rig.machine.peer.send(frame);
    rig.machine.settle();
    expect(rig.received.map(({ bytes }) => bytes)).toEqual([frame]);
  });
});

describe('an acknowledgement that comes later than the guest made it', () => {
  it.each([true, false])('is told again when frames came meanwhile, where that can be: %s', (late) => {
    rig = new Rtl8139Rig({ writesAreLate: late });
    rig.put(0x3c, 0, 2);
    const frame = testFrame(60, 1);
    frame.set(MAC);
    const deliver = () => {
      rig.machine.peer.send(frame);
      rig.machine.settle();
    };
    deliver();
    expect(rig.get(0x3e, 2) & 1).toBe(1);
    deliver();
    rig.put(0x3e, 1, 2);
    // The driver may have looked for frames before the second one came.
    expect(rig.get(0x3e, 2) & 1).toBe(late ? 1 : 0);
    rig.put(0x3e, 1, 2);
    expect(rig.get(0x3e, 2) & 1).toBe(0);
  });
});

describe('a pool without slots', () => {
  it('lets transmission wait and go on', () => {
    for (const chip of ['8139c+', '8139c'] as const) {
      rig = new Rtl8139Rig({ chip, small: 4, large: 1 });
      const { pool } = rig.machine;
      const taken = [0, 1, 2, 3].map(() => pool.alloc(60)).concat(pool.allocLarge());
      const batch = new PacketBatch(4);
      for (let i = 0; i < 4; i++) batch.plain(i, rig.packet(60 + i), 60 + i);
      expect(rig.driver.send(batch, 0, 4)).toBe(4);
      expect(rig.nic.stats.txPoolExhausted).toBeGreaterThan(0);
      rig.machine.settle(10e6);
      expect(rig.sent).toBe(0);
      for (const frame of taken) pool.release(frame);
      rig.machine.settle();
      expect(rig.machine.peer.frames.map(({ bytes }) => bytes.length)).toEqual([60, 61, 62, 63]);
      expect(rig.sent).toBe(4);
      if (chip === '8139c+') rig.close();
    }
  });
});

describe('save and restore', () => {
  /** A new NIC on the same machine, as after migration: its RAM is where it was. */
  function replaceNic(state: unknown): void {
    const { machine } = rig;
    // The driver knows the old one only.
    machine.onInterrupt = null;
    rig.nic.close();
    const nic = rig.newNic();
    Port.connect(nic.port, machine.peer.port);
    nic.loadState(state);
    Object.assign(rig, { nic });
  }

  it('goes on in the middle of a transfer, with frames that waited for the port', () => {
    for (const chip of ['8139c+', '8139c'] as const) {
      rig = new Rtl8139Rig({ chip });
      const count = chip === '8139c+' ? 40 : 4;
      rig.machine.peer.limit = 2;
      const batch = new PacketBatch(count);
      const addresses = Array.from({ length: count }, (_, i) => rig.packet(60 + 50 * i, i));
      addresses.forEach((address, i) => {
        batch.plain(i, address, 60 + 50 * i);
      });
      rig.driver.send(batch, 0, count);
      const frame = testFrame(200);
      frame.set(MAC);
      rig.machine.onInterrupt = null;
      rig.machine.peer.send(frame);
      rig.machine.settle(1e6);
      const state = JSON.parse(JSON.stringify(rig.nic.saveState())) as object;
      replaceNic(state);
      expect(rig.nic.saveState()).toEqual(state);
      rig.machine.peer.limit = 1000;
      rig.machine.peer.port.ready();
      rig.machine.settle();
      expect(rig.machine.peer.frames.map(({ bytes }) => bytes)).toEqual(
        addresses.map((address, i) => rig.bytesAt(address, 60 + 50 * i)),
      );
      // Both the frame from before and one from after lie in the driver's memory.
      const second = testFrame(300);
      second.set(MAC);
      rig.machine.peer.send(second);
      if (chip === '8139c') expect(rig.get(0x3a, 2)).toBe(208 + 308);
      else expect(rig.commands(rig.get(0xe4), 2).map((word) => word & 0x1fff)).toEqual([204, 304]);
      rig.expectGood();
      if (chip === '8139c+') rig.close();
    }
  });

  it('completes descriptors of frames that were on their way', () => {
    rig = new Rtl8139Rig();
    rig.machine.peer.hold = true;
    const address = rig.packet(3000);
    const ring = rig.transmit([
      rig.whole(address, 3000),
      rig.whole(address, 60),
      [0xa0000000 + 1500, 0, address, 0],
      [0x90000000 + 1000, 0, address + 1600, 0],
    ]);
    expect(rig.commands(ring, 4).map((word) => word >>> 31)).toEqual([1, 0, 1, 1]);
    const state = rig.nic.saveState();
    rig.machine.peer.letGo();
    replaceNic(state);
    rig.machine.settle();
    expect(rig.commands(ring, 4).map((word) => word >>> 31)).toEqual([0, 0, 0, 0]);
    expect(rig.get(0x3e, 2) & 4).toBe(4);
    rig.expectGood();
  });

  it('keeps timer, negotiation, tally and EEPROM position', () => {
    rig = new Rtl8139Rig({}, false);
    rig.put(0x48, 0);
    rig.put(0x54, 330_000);
    rig.put(0x62, 0x1200, 2);
    rig.put(0x3e, 0xffff, 2);
    rig.machine.settle(6e6);
    const state = JSON.parse(JSON.stringify(rig.nic.saveState())) as object;
    replaceNic(state);
    expect(rig.get(0x48)).toBe(198_000);
    expect(rig.get(0x64, 2) & 4).toBe(0);
    rig.machine.settle(5e6);
    expect(rig.get(0x3e, 2) & 0x4000).toBe(0x4000);
    rig.machine.settle(100e6);
    expect(rig.get(0x64, 2) & 4).toBe(4);
    rig.put(0x54, 0);
  });

  it('restored registers pass the masks of live writes', () => {
    rig = new Rtl8139Rig();
    const state = rig.nic.saveState();
    state.registers.fill(0xff);
    rig.nic.loadState(state);
    expect(rig.get(0x40) & 0x7cc00000).toBe(0x74800000);
    expect(rig.get(0x3c)).toBe(0xe1ffe1ff);
    expect([rig.get(0x37, 1) & 0xfe, rig.get(0x3a, 2), rig.get(0x51, 1), rig.get(0xd9, 1)]).toEqual([
      0x0c, 0xfffc, 0, 0,
    ]);
    expect([rig.get(0x58, 1), rig.get(0x5e, 1), rig.get(0x5f, 1), rig.get(0x84)]).toEqual([0xd0, 0x10, 0, 0]);
    rig.machine.onInterrupt = null;
    rig.put(0x54, 0);
    rig.expectGood();
  });

  it('hardening 23: malformed states are refused with the field at fault, and change nothing', () => {
    rig = new Rtl8139Rig();
    const good = rig.nic.saveState();
    const broken: [string, (state: Record<string, never>) => void][] = [
      ['model', (state) => Object.assign(state, { model: 'e1000' })],
      ['version', (state) => Object.assign(state, { version: 2 })],
      ['chip', (state) => Object.assign(state, { chip: '8139c' })],
      ['registers', (state) => Object.assign(state, { registers: [1] })],
      ['registers', (state) => Object.assign(state, { registers: new Array(256).fill(256) })],
      ['config', (state) => Object.assign(state, { config: 'x' })],
      ['rxIndex', (state) => Object.assign(state, { rxIndex: 64 })],
      ['timerCount', (state) => Object.assign(state, { timerCount: -1 })],
      ['tally', (state) => Object.assign(state, { tally: [0.5] })],
      ['tx', (state) => Object.assign(state, { tx: null })],
      ['tx.rings', (state) => Object.assign(state, { tx: { ...good.tx, rings: [good.tx.rings[0]] } })],
      [
        'tx.rings.span',
        (state) =>
          Object.assign(state, {
            tx: {
              ...good.tx,
              rings: [good.tx.rings[0], { ...good.tx.rings[1], span: new Array(64).fill(65) }],
            },
          }),
      ],
      [
        'tx.classic.next',
        (state) => Object.assign(state, { tx: { ...good.tx, classic: { next: 4, pending: 0 } } }),
      ],
      ['eeprom.words', (state) => Object.assign(state, { eeprom: { ...good.eeprom, words: [] } })],
      ['phy.negotiatingNs', (state) => Object.assign(state, { phy: { ...good.phy, negotiatingNs: null } })],
    ];
    for (const [field, breakIt] of broken) {
      const state = structuredClone(good) as unknown as Record<string, never>;
      breakIt(state);
      expect(() => rig.nic.loadState(state), field).toThrow(
        new OptionError(`rtl8139 state: '${field}' is missing or out of range`),
      );
    }
    for (const value of [null, 5, 'x', []]) expect(() => rig.nic.loadState(value)).toThrow(OptionError);
    expect(rig.nic.saveState()).toEqual(good);
  });
});

/** strict=on of the e1000: a driver that breaks each rule, and one that breaks none. */
import { afterEach, describe, expect, it } from 'vitest';
import { PacketBatch, SEGMENT_TCP4 } from '../../../src/guest/driver/driver.ts';
import { E1000 } from '../../../src/nic/e1000/index.ts';
import { E1000_RULES, type E1000Rule } from '../../../src/nic/e1000/strict.ts';
import { E1000Rig, MAC, type RigOptions, testFrame } from '../../lib/e1000-rig.ts';
import { expectClean, LogBook } from '../../lib/strict.ts';

const EOP = 0x01000000;
const CMD = 0x0b000000; // EOP, IFCS, RS
const MORE = 0x0a000000;
const DATA = 0x20100000;
const CONTEXT = 0x20000000;
const TSE = 0x04000000;
const VLE = 0x40000000;

const CTRL = 0x0000;
const MDIC = 0x0020;
const RCTL = 0x0100;
const TCTL = 0x0400;
const RDBAL = 0x2800;
const RDLEN = 0x2808;
const RDH = 0x2810;
const RDT = 0x2818;
const TDBAL = 0x3800;
const TDLEN = 0x3808;
const TDT = 0x3818;
const RAH = 0x5404;

let rig: E1000Rig;
afterEach(() => rig?.close());

/** What a driver does to break a rule; the NIC is up, with its driver's rings of 256 descriptors. */
const BREAKS: Readonly<Record<E1000Rule, () => void>> = {
  'ring-length': () => {
    rig.put(TCTL, 0);
    rig.put(TDLEN, 100);
  },
  'ring-base': () => {
    rig.put(TCTL, 0);
    rig.put(TDBAL, 0x1008);
  },
  'ring-moved': () => rig.put(TDLEN, 1024),
  'rx-ring-moved': () => rig.put(RDH, 7),
  'tail-past-ring': () => rig.put(TDT, 256),
  'rx-tail-past-ring': () => rig.put(RDT, 300),
  'doorbell-before-enable': () => {
    rig.put(TCTL, 0);
    rig.put(TDT, 1);
  },
  'doorbell-without-master': () => {
    rig.nic.writeConfig(4, 2, 2);
    rig.put(TDT, 1);
  },
  'enable-without-ring': () => {
    rig.nic.reset();
    rig.nic.writeConfig(4, 2, 6);
    rig.put(TCTL, 2);
  },
  'rx-enable-without-ring': () => {
    rig.nic.reset();
    rig.nic.writeConfig(4, 2, 6);
    rig.put(RCTL, 2);
  },
  'reserved-bits': () => rig.put(TCTL, rig.get(TCTL) | 1),
  'buffer-size': () => rig.put(RCTL, 1 << 25),
  'loopback-mode': () => rig.put(RCTL, 1 << 6),
  'rx-threshold': () => rig.put(RCTL, 3 << 8),
  'address-select': () => rig.put(RAH + 8, 2 << 16),
  'speed-select': () => rig.put(CTRL, rig.get(CTRL) | (1 << 11) | (3 << 8)),
  'phy-operation': () => rig.put(MDIC, 1 << 21),
  'access-width': () => rig.nic.writeBar(0, TCTL, 2, 0x10a),
  'tail-past-head': () => {
    // All but one are the chip's, which does nothing for want of a peer; then as many again.
    rig.machine.peer.limit = 0;
    const packet = rig.packet(60);
    const ring = Array.from({ length: 8 }, () => [packet, 0, CMD | 60, 0]);
    rig.transmit(ring, { count: 8, tail: 7 });
    rig.put(TDT, 5);
    rig.machine.peer.limit = 1000;
    rig.machine.peer.port.ready();
  },
  'rx-tail-past-head': () => {
    const tail = rig.get(RDT);
    rig.put(RDT, (tail + 200) % 256);
    rig.put(RDT, (tail + 100) % 256);
  },
  'dd-set': () => send([rig.packet(60), 0, CMD | 60, 1]),
  'rx-dd-set': () => {
    receiveRing(4)[3] = 1;
    rig.put(RDT, 3);
  },
  'descriptor-reserved': () => send([rig.packet(60), 0, CMD | 60 | 0x10000000, 0]),
  'descriptor-type': () => send([rig.packet(60), 0, CMD | 0x20300000 | 60, 0]),
  'descriptor-address': () => send([0, 0x7fff0000, CMD | 60, 0]),
  'rx-descriptor-address': () => {
    receiveRing(4)[1] = 0x7fff0000;
    rig.put(RDT, 3);
  },
  'ring-address': () => {
    rig.put(TCTL, 0);
    rig.put(TDBAL + 4, 0x7fff0000);
    rig.put(TCTL, 2);
    rig.put(TDT, 1);
  },
  'frame-too-long': () => send([rig.packet(17_000), 0, DATA | CMD | 17_000, 0]),
  'frame-empty': () => send([rig.packet(60), 0, CMD, 0]),
  'frame-unpadded': () => {
    const ring = rig.transmit([[rig.packet(60), 0, CMD | 60, 0]]);
    rig.put(TCTL, 0x40102);
    rig.machine.ram.words.set([rig.packet(59), 0, CMD | 59, 0], (rig.machine.ram.offset(ring) >> 2) + 4);
    rig.put(TDT, 2);
  },
  'tag-without-vme': () => send([rig.packet(60), 0, DATA | CMD | VLE | 60, 5 << 16]),
  'no-context': () => {
    rig.nic.reset();
    send([rig.packet(60), 0, DATA | CMD | 60, 0x200]);
  },
  'context-in-frame': () =>
    send(
      [rig.packet(30), 0, DATA | MORE | 30, 0],
      [0, 0, CONTEXT | 0x08000000, 0],
      [rig.packet(30), 0, DATA | CMD | 30, 0],
    ),
  'context-offsets': () => send([14 | (10 << 8) | (33 << 16), 0, CONTEXT | 0x08000000, 0]),
  'tso-context': () => send([14 | (24 << 8) | (33 << 16), 34 | (50 << 8), CONTEXT | TSE | 1000, 54 << 8]),
};

function send(...descriptors: number[][]): void {
  rig.transmit(descriptors);
}

/** A receive ring of the test's own of 8 descriptors with good buffers, with the receiver on; returns the words of `count` of them. */
function receiveRing(count: number): Int32Array {
  const { ram } = rig.machine;
  const ring = ram.allocate(8 * 16, 128);
  const words = ram.words.subarray(ram.offset(ring) >> 2, (ram.offset(ring) >> 2) + 4 * count);
  const buffer = ram.allocate(2048);
  for (let i = 0; i < count; i++) words.set([buffer, 0, 0, 0], 4 * i);
  rig.put(RCTL, 0);
  rig.put(RDBAL, ring);
  rig.put(RDBAL + 4, 0);
  rig.put(RDLEN, 128);
  rig.put(RDH, 0);
  rig.put(RDT, 0);
  rig.put(RCTL, 2);
  return words;
}

describe('strict=on, e1000', () => {
  it.each(Object.keys(E1000_RULES) as E1000Rule[])('tells of %s, once, and counts it', (rule) => {
    const log = new LogBook();
    rig = new E1000Rig({ strict: true, log });
    expectClean(rig.nic);
    BREAKS[rule]();
    const [register, section, message] = E1000_RULES[rule];
    const found = rig.nic.driverReport!.complaints().find((complaint) => complaint.rule === rule);
    expect(found).toMatchObject({ register, section, message });
    rig.machine.settle();
    rig.nic.reset();
    expect(rig.driver.open()).toBe(true);
    BREAKS[rule]();
    const again = rig.nic.driverReport!.complaints().find((complaint) => complaint.rule === rule);
    expect(again).toEqual({ ...found, count: 2 * found!.count });
    const lines = log.lines.filter(({ details }) => (details as { rule: string }).rule === rule);
    expect(lines.map((line) => line.message)).toEqual([`net0: ${message} (${register}, ${section})`]);
    rig.machine.settle();
  });

  const ways: [string, RigOptions][] = [
    ['plain', {}],
    ['small rings', { ringSize: 8 }],
    ['VLANs', { vlans: [5, 7] }],
    ['jumbo frames', { mtu: 9000 }],
    ['promiscuous', { promiscuous: true, multicast: [Uint8Array.of(1, 0, 0x5e, 1, 2, 3)] }],
  ];
  it.each(ways)('has nothing to say of the driver in guest/driver: %s', (_name, options) => {
    rig = new E1000Rig({ strict: true, ...options });
    const batch = new PacketBatch(1);
    for (let lap = 0; lap < 60; lap++) {
      const bytes = testFrame(1500, lap);
      bytes.set([8, 0, 0x45, 0, 5, 206, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2], 12);
      bytes.set([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0], 34);
      const address = rig.place(bytes);
      if (lap % 3 === 0) batch.plain(0, address, 60 + lap);
      else if (lap % 3 === 1) batch.checksummed(0, address, 1500, 34, 16);
      else batch.segmented(0, address, 1500, SEGMENT_TCP4, 34, 54, 700);
      if (options.vlans !== undefined) batch.vlanTci[0] = 5;
      expect(rig.driver.send(batch, 0, 1)).toBe(1);
      const frame = testFrame(300, lap);
      frame.set(MAC, 0);
      expect(rig.machine.peer.send(frame)).toBe(true);
      rig.machine.settle();
    }
    rig.driver.close();
    expect(rig.driver.open()).toBe(true);
    rig.machine.settle();
    expectClean(rig.nic);
  });

  it('is off unless asked for, and says so', () => {
    rig = new E1000Rig();
    rig.put(TCTL, 1);
    expect(rig.nic.driverReport).toBeNull();
    expect(rig.nic).toBeInstanceOf(E1000);
    send([rig.packet(60), 0, EOP | 60, 0]);
    rig.machine.settle();
  });
});

/** strict=on of the rtl8139: a driver that breaks each rule, and two that break none. */
import { afterEach, describe, expect, it } from 'vitest';
import { PacketBatch, SEGMENT_TCP4 } from '../../../src/guest/driver/driver.ts';
import { RTL8139_RULES, type Rtl8139Rule } from '../../../src/nic/rtl8139/strict.ts';
import { MAC, type RigOptions, Rtl8139Rig, testFrame } from '../../lib/rtl8139-rig.ts';
import { expectClean, LogBook } from '../../lib/strict.ts';

const OWN = 0x80000000;
const EOR = 0x40000000;
const FS = 0x20000000;
const LS = 0x10000000;
const LGSEN = 0x08000000;

const MAR = 0x08;
const TSD = 0x10;
const TSAD = 0x20;
const RBSTART = 0x30;
const CR = 0x37;
const CAPR = 0x38;
const TCR = 0x40;
const CONFIG1 = 0x52;
const CR9346 = 0x50;
const TPPOLL = 0xd9;
const CPCR = 0xe0;
const RDSAR = 0xe4;

let rig: Rtl8139Rig;
afterEach(() => rig?.close());

/** A reset chip with bus mastering, in the classic model, transmitter and receiver on unless told otherwise. */
function classic(command = 0x0c): void {
  rig.nic.reset();
  rig.nic.writeConfig(4, 2, 7);
  rig.put(RBSTART, rig.machine.ram.allocate(70_000, 256));
  rig.put(CR, command, 1);
}

/** Hands classic descriptor `index` over. */
function sendClassic(index: number, bytes: number, address = rig.packet(2000) + 2): void {
  rig.put(TSAD + 4 * index, address);
  rig.put(TSD + 4 * index, bytes);
}

/** What a driver does to break a rule. */
const BREAKS: Readonly<Record<Rtl8139Rule, () => void>> = {
  'address-width': () => rig.put(MAR, 0xff, 1),
  locked: () => {
    rig.put(CR9346, 0, 1);
    rig.put(CONFIG1, 1, 1);
  },
  'reserved-bits': () => rig.put(CR, 0x0e, 1),
  'loopback-mode': () => rig.put(TCR, 1 << 17),
  'tx-before-enable': () => {
    classic(0x08);
    sendClassic(0, 60);
  },
  'poll-before-enable': () => {
    rig.put(CR, 0, 1);
    rig.put(TPPOLL, 0x40, 1);
  },
  'tx-without-master': () => {
    rig.nic.writeConfig(4, 2, 3);
    rig.put(TPPOLL, 0x40, 1);
  },
  'tx-size': () => {
    classic();
    sendClassic(0, 1793);
  },
  'tx-unpadded': () => {
    classic();
    sendClassic(0, 59);
  },
  'tx-order': () => {
    classic();
    sendClassic(0, 60);
    sendClassic(2, 60);
  },
  'tx-reuse': () => {
    classic();
    rig.machine.peer.limit = 0;
    sendClassic(0, 60);
    rig.put(TSD, 60);
    rig.machine.peer.limit = 1000;
    rig.machine.peer.port.ready();
  },
  'tx-address': () => {
    classic();
    sendClassic(0, 60, 0x7fff0000);
  },
  'tx-alignment': () => {
    classic();
    rig.put(TSAD, 0x1002);
  },
  'mode-classic': () => rig.put(TSD + 8, 60),
  'mode-plus': () => {
    classic();
    rig.put(TPPOLL, 0x40, 1);
  },
  'rx-buffer': () => {
    classic(0);
    rig.put(RBSTART, 0x7fff0000);
    rig.put(CR, 0x0c, 1);
  },
  'rx-pointer': () => {
    classic();
    rig.put(CAPR, 0x100, 2);
  },
  'rx-pointer-alignment': () => {
    classic();
    rig.put(CAPR, 0xfff2, 2);
  },
  'ring-alignment': () => {
    rig.put(CR, 0, 1);
    rig.put(RDSAR, 0x1010);
  },
  'tally-alignment': () => rig.put(TSD, 0x1010),
  'tx-ring-moved': () => {
    rig.put(TSAD, 0x1000);
    rig.put(TSAD, 0x2000);
  },
  'rx-ring-moved': () => {
    rig.put(RDSAR, 0x1000);
    rig.put(RDSAR, 0x2000);
  },
  'tx-ring-address': () => ownRing(0x7fff0000),
  'tx-ring-end': () => ownRing(rig.ring(Array.from({ length: 64 }, () => whole()))),
  'tx-first': () => ownRing(rig.ring([whole(), [OWN | LS | 60, 0, rig.packet(60), 0]])),
  'tx-segment-size': () => ownRing(rig.ring([whole(LGSEN)])),
  'tx-descriptor-address': () => ownRing(rig.ring([[OWN | FS | LS | EOR | 60, 0, 0, 0x7fff0000]])),
  'tx-empty': () => ownRing(rig.ring([[OWN | FS | LS | EOR, 0, rig.packet(60), 0]])),
  'rx-ring-address': () => receiveRing(0x7fff0000),
  'rx-descriptor-address': () => receiveRing(rig.ring([[OWN | EOR | 1536, 0, 0x7fff0000, 0]])),
  'rx-descriptor-size': () =>
    receiveRing(rig.ring([[OWN | EOR | 1537, 0, rig.machine.ram.allocate(2048, 256), 0]])),
};

function whole(bits = 0): number[] {
  return [OWN | FS | LS | bits | 60, 0, rig.packet(60), 0];
}

/** A C+ transmit ring of the test's own, and its doorbell. */
function ownRing(address: number): void {
  rig.put(CR, 0, 1);
  rig.put(TSAD, address);
  rig.put(TSAD + 4, 0);
  rig.put(CR, 0x0c, 1);
  rig.put(TPPOLL, 0x40, 1);
}

/** A C+ receive ring of the test's own, and a frame for it. */
function receiveRing(address: number): void {
  rig.put(CR, 0, 1);
  rig.put(RDSAR, address);
  rig.put(RDSAR + 4, 0);
  rig.put(CR, 0x0c, 1);
  const frame = testFrame(100);
  frame.set(MAC, 0);
  rig.machine.peer.send(frame);
}

describe('strict=on, rtl8139', () => {
  it.each(Object.keys(RTL8139_RULES) as Rtl8139Rule[])('tells of %s, once, and counts it', (rule) => {
    const log = new LogBook();
    rig = new Rtl8139Rig({ strict: true, log });
    expectClean(rig.nic);
    BREAKS[rule]();
    const [register, section, message] = RTL8139_RULES[rule];
    const found = rig.nic.driverReport!.complaints().find((complaint) => complaint.rule === rule);
    expect(found).toMatchObject({ register, section, message });
    rig.machine.settle();
    rig.nic.reset();
    expect(rig.driver.open()).toBe(true);
    BREAKS[rule]();
    const again = rig.nic.driverReport!.complaints().find((complaint) => complaint.rule === rule);
    expect(again!.count).toBeGreaterThan(found!.count);
    const lines = log.lines.filter(({ details }) => (details as { rule: string }).rule === rule);
    expect(lines.map((line) => line.message)).toEqual([`net0: ${message} (${register}, ${section})`]);
    rig.machine.settle();
  });

  const ways: [string, RigOptions][] = [
    ['C+', {}],
    ['C+ with small rings', { ringSize: 8 }],
    ['C+ with VLANs', { vlans: [5, 7] }],
    ['classic', { chip: '8139c' }],
    ['promiscuous', { promiscuous: true, multicast: [Uint8Array.of(1, 0, 0x5e, 1, 2, 3)] }],
  ];
  it.each(ways)('has nothing to say of the driver in guest/driver: %s', (_name, options) => {
    rig = new Rtl8139Rig({ strict: true, ...options });
    const batch = new PacketBatch(1);
    for (let lap = 0; lap < 60; lap++) {
      const bytes = testFrame(1500, lap);
      bytes.set([8, 0, 0x45, 0, 5, 206, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2], 12);
      bytes.set([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0], 34);
      const address = rig.place(bytes);
      const { checksum, segmentTcp4 } = rig.driver.capabilities;
      if (lap % 3 === 2 && segmentTcp4) batch.segmented(0, address, 1500, SEGMENT_TCP4, 34, 54, 700);
      else if (lap % 3 === 1 && checksum) batch.checksummed(0, address, 1500, 34, 16);
      else batch.plain(0, address, 30 + lap);
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

  it('is off unless asked for', () => {
    rig = new Rtl8139Rig();
    rig.put(CPCR, 0xffff, 2);
    expect(rig.nic.driverReport).toBeNull();
  });
});

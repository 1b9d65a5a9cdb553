/** The control queue, receive filters and their query, multiqueue, RSS and hashes, announcement, coalescing, offloads that change. */
import { afterEach, describe, expect, it } from 'vitest';
import { ACCEPT_CSUM, ACCEPT_ECN, ACCEPT_TSO4, ACCEPT_TSO6 } from '../../../src/core/port.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { ToeplitzHash } from '../../../src/wire/flow-hash.ts';
import { MAC, Rig } from './rig.ts';

const OK = 0;
const ERR = 1;
const RX = 0;
const MACS = 1;
const VLAN = 2;
const ANNOUNCE = 3;
const MQ = 4;
const OFFLOADS = 5;
const COALESCE = 6;

let rig: Rig;
afterEach(() => {
  rig.expectWorks();
  rig.close();
});

const u16 = (value: number): number[] => [value & 255, (value >> 8) & 255];
const u32 = (value: number): number[] => [...u16(value & 0xffff), ...u16(value >>> 16)];
const command = (kind: number, number: number, ...data: number[]): number =>
  rig.driver.command(kind, number, Uint8Array.from(data));

/** Whether a frame to this destination comes in. */
function arrives(destination: readonly number[], vlan = -1): boolean {
  const before = rig.received.length;
  const frame = rig.frame(100);
  frame.set(destination, 0);
  if (vlan >= 0) frame.set([0x81, 0, vlan >> 8, vlan & 255], 12);
  expect(rig.machine.peer.send(frame)).toBe(true);
  rig.machine.settle();
  return rig.received.length > before;
}

const OTHER = [2, 9, 9, 9, 9, 9];
const GROUP = [1, 0, 0x5e, 1, 2, 3];
const ALL = [255, 255, 255, 255, 255, 255];

/** An IPv4 TCP frame of a flow. */
function flow(source: number, target = 80): Uint8Array {
  const frame = rig.frame(80);
  frame.set([8, 0, 0x45, 0, 0, 66, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15], 12);
  frame.set([source >> 8, source & 255, target >> 8, target & 255], 34);
  return frame;
}

describe('receive modes', () => {
  it('each mode lets in and keeps out what it says', () => {
    rig = new Rig({ driver: { take: [20, 23] } });
    expect([arrives([...MAC]), arrives(OTHER), arrives(GROUP), arrives(ALL)]).toEqual([
      true,
      false,
      false,
      true,
    ]);
    expect(command(RX, 0, 1)).toBe(OK);
    expect([arrives(OTHER), arrives(GROUP)]).toEqual([true, true]);
    expect(command(RX, 0, 0)).toBe(OK);
    expect(command(RX, 1, 1)).toBe(OK);
    expect([arrives(OTHER), arrives(GROUP)]).toEqual([false, true]);
    expect(command(RX, 3, 1)).toBe(OK);
    expect(command(RX, 1, 0)).toBe(OK);
    expect(arrives(GROUP)).toBe(false);
    expect(command(RX, 3, 0)).toBe(OK);
    expect(command(RX, 2, 1)).toBe(OK);
    expect([arrives(OTHER), arrives(GROUP)]).toEqual([true, false]);
    expect(command(RX, 2, 0)).toBe(OK);
    expect(command(RX, 4, 1)).toBe(OK);
    expect([arrives([...MAC]), arrives(ALL)]).toEqual([false, true]);
    expect(command(RX, 4, 0)).toBe(OK);
    expect(command(RX, 5, 1)).toBe(OK);
    expect([arrives([...MAC]), arrives(ALL)]).toEqual([true, false]);
    expect(command(RX, 5, 0)).toBe(OK);
    expect(command(RX, 6, 0)).toBe(ERR);
    expect(command(RX, 0)).toBe(ERR);
  });

  it('the MAC table, and the address itself', () => {
    rig = new Rig({ driver: { take: [20, 23] } });
    expect(command(MACS, 0, ...u32(1), ...OTHER, ...u32(1), ...GROUP)).toBe(OK);
    expect([arrives(OTHER), arrives(GROUP), arrives([2, 9, 9, 9, 9, 8])]).toEqual([true, true, false]);
    expect(rig.nic.queryRxFilter('net0')).toMatchObject({
      promiscuous: false,
      unicast: 'normal',
      multicast: 'normal',
      'unicast-table': ['02:09:09:09:09:09'],
      'multicast-table': ['01:00:5e:01:02:03'],
    });
    expect(command(MACS, 1, ...OTHER)).toBe(OK);
    expect(rig.nic.queryRxFilter('net0')['main-mac']).toBe('02:09:09:09:09:09');
    expect(arrives([...MAC])).toBe(false);
    expect(command(MACS, 1, ...OTHER.slice(1))).toBe(ERR);
    expect(command(MACS, 1, ...MAC)).toBe(OK);
  });

  it('hardening 34: counts of the MAC table that overflow it or the command', () => {
    rig = new Rig();
    const macs = (count: number): number[] =>
      Array.from({ length: count }, (_, i) => [1, 0, 0x5e, 0, 0, i]).flat();
    expect(command(MACS, 0, ...u32(0), ...u32(64), ...macs(64))).toBe(OK);
    expect(rig.nic.queryRxFilter('net0')).toMatchObject({ 'multicast-overflow': false });
    expect(rig.nic.queryRxFilter('net0')['multicast-table'].length).toBe(64);
    expect(arrives(GROUP)).toBe(false);
    expect(command(MACS, 0, ...u32(0), ...u32(65), ...macs(65))).toBe(OK);
    expect(rig.nic.queryRxFilter('net0')).toMatchObject({
      'multicast-overflow': true,
      'multicast-table': [],
    });
    expect(arrives(GROUP)).toBe(true);
    expect(command(MACS, 0, ...u32(1), ...OTHER, ...u32(64), ...macs(64))).toBe(OK);
    expect(rig.nic.queryRxFilter('net0')).toMatchObject({
      'multicast-overflow': true,
      'unicast-overflow': false,
      'unicast-table': ['02:09:09:09:09:09'],
    });
    const before = rig.nic.queryRxFilter('net0');
    for (const count of [3, 0x2aaaaaaa, 0x80000000, 0xffffffff]) {
      expect(command(MACS, 0, ...u32(count), ...macs(2), ...u32(0))).toBe(ERR);
      expect(command(MACS, 0, ...u32(0), ...u32(count), ...macs(2))).toBe(ERR);
    }
    expect(command(MACS, 0, ...u32(0))).toBe(ERR);
    expect(command(MACS, 0)).toBe(ERR);
    expect(rig.nic.queryRxFilter('net0')).toEqual(before);
    expect(command(MACS, 0, ...u32(0), ...u32(0))).toBe(OK);
  });

  it('hardening 35: the VLAN table, and ids that are none', () => {
    rig = new Rig();
    expect([arrives([...MAC], 5), arrives([...MAC])]).toEqual([false, true]);
    expect(command(VLAN, 0, ...u16(5))).toBe(OK);
    expect([arrives([...MAC], 5), arrives([...MAC], 6)]).toEqual([true, false]);
    expect(command(VLAN, 0, ...u16(4095))).toBe(OK);
    for (const id of [4096, 0x8005, 0xffff]) expect(command(VLAN, 0, ...u16(id))).toBe(ERR);
    expect(command(VLAN, 0, 5)).toBe(ERR);
    expect(command(VLAN, 2, ...u16(5))).toBe(ERR);
    expect(rig.nic.queryRxFilter('net0')).toMatchObject({ vlan: 'normal', 'vlan-table': [4095, 5] });
    expect(command(VLAN, 1, ...u16(5))).toBe(OK);
    expect(arrives([...MAC], 5)).toBe(false);
  });

  it('a driver without CTRL_RX and CTRL_VLAN gets everything, and its commands are refused', () => {
    rig = new Rig({ driver: { avoid: [18, 19] } });
    expect([arrives(OTHER), arrives(GROUP), arrives(OTHER, 77)]).toEqual([true, true, true]);
    expect([
      command(RX, 0, 0),
      command(RX, 2, 0),
      command(VLAN, 0, 1, 0),
      command(MACS, 0, ...u32(0), ...u32(0)),
    ]).toEqual([ERR, ERR, ERR, ERR]);
    expect(rig.nic.queryRxFilter('net0')).toMatchObject({ promiscuous: true, vlan: 'all' });
  });

  it('is shown as QEMU 7.2 shows a device that no driver has touched', () => {
    rig = new Rig({ open: false });
    expect(rig.nic.queryRxFilter('nic0')).toEqual({
      name: 'nic0',
      'main-mac': '52:54:00:12:34:56',
      promiscuous: true,
      unicast: 'normal',
      multicast: 'normal',
      vlan: 'all',
      'vlan-table': Array.from({ length: 4096 }, (_, i) => 4095 - i),
      'unicast-table': [],
      'multicast-table': [],
      'unicast-overflow': false,
      'multicast-overflow': false,
      'broadcast-allowed': false,
    });
    rig.driver.open();
  });

  it('tells of a change once until the filter is queried', () => {
    rig = new Rig();
    let told = 0;
    rig.nic.onRxFilterChanged = () => told++;
    command(RX, 0, 1);
    command(RX, 0, 0);
    expect(told).toBe(1);
    rig.nic.queryRxFilter('net0');
    command(VLAN, 0, 1, 0);
    expect(told).toBe(2);
  });

  it('a VLAN driver inserts and strips tags around the device', () => {
    rig = new Rig({ driver: { vlans: [5] } });
    const batch = new PacketBatch(1);
    batch.plain(0, rig.packet(100), 100);
    batch.vlanTci[0] = 0x2005;
    rig.driver.send(batch, 0, 1);
    rig.machine.settle();
    const sent = rig.machine.peer.frames[0]!.bytes;
    expect([...sent.subarray(12, 16)]).toEqual([0x81, 0, 0x20, 5]);
    rig.machine.peer.send(sent.slice().fill(255, 0, 6));
    rig.machine.settle();
    expect(rig.received[0]).toMatchObject({ tci: 0x2005 });
    expect(rig.received[0]!.bytes.subarray(6)).toEqual(rig.bytesAt(batch.address[0]!, 100).subarray(6));
  });
});

describe('other commands', () => {
  it('classes and commands that are none are answered ERR, a chain without an answer is used with nothing written', () => {
    rig = new Rig();
    for (const kind of [7, 8, 255]) expect(command(kind, 0, 1, 2, 3, 4)).toBe(ERR);
    for (const kind of [MACS, ANNOUNCE, MQ, OFFLOADS, COALESCE])
      expect(command(kind, 99, 1, 2, 3, 4)).toBe(ERR);
    expect(rig.driver.command(RX, 0, new Uint8Array(0))).toBe(ERR);
    expect(rig.nic.stats.ctrlErrors).toBe(9);
  });

  it('guest offloads change what the port is sent', () => {
    rig = new Rig({ driver: { take: [2] } });
    const port = rig.nic.ports[0]!;
    expect(port.accepts).toBe(ACCEPT_CSUM | ACCEPT_TSO4 | ACCEPT_TSO6);
    expect(command(OFFLOADS, 0, ...u32(2), ...u32(0))).toBe(OK);
    expect(port.accepts).toBe(ACCEPT_CSUM);
    expect(command(OFFLOADS, 0, ...u32(0), ...u32(0))).toBe(OK);
    expect(port.accepts).toBe(0);
    // ECN was not negotiated, bit 30 is none, and 4 bytes are too few.
    expect(command(OFFLOADS, 0, ...u32(2 | (1 << 9)), ...u32(0))).toBe(ERR);
    expect(command(OFFLOADS, 0, ...u32(1 << 30), ...u32(0))).toBe(ERR);
    expect(command(OFFLOADS, 0, ...u32(2))).toBe(ERR);
    expect(port.accepts & ACCEPT_ECN).toBe(0);
    expect(command(OFFLOADS, 0, ...u32(2 | (1 << 7)), ...u32(0))).toBe(OK);
    expect(port.accepts).toBe(ACCEPT_CSUM | ACCEPT_TSO4);
  });

  it('announcement is asked for by a bit and acknowledged by a command', () => {
    rig = new Rig();
    rig.machine.onInterrupt = null;
    expect(rig.nic.announce()).toBe(true);
    expect(rig.nic.readBar(4, 0x2006, 2)).toBe(3);
    const { driver } = rig;
    rig.machine.onInterrupt = () => driver.interrupt();
    rig.driver.interrupt();
    expect(rig.nic.readBar(4, 0x2006, 2)).toBe(1);
    expect(rig.driver.linkUp).toBe(true);
  });

  it('notifications are gathered by packets and by time', () => {
    rig = new Rig({ driver: { take: [53] } });
    expect(command(COALESCE, 1, ...u32(4), ...u32(50))).toBe(OK);
    expect(command(COALESCE, 0, ...u32(1000), ...u32(2_000_000))).toBe(ERR);
    rig.machine.settle();
    const nowNs = rig.machine.clock.nowNs();
    for (let i = 0; i < 3; i++) rig.machine.peer.send(rig.frame(100));
    rig.machine.settle(49_000);
    expect(rig.received.length).toBe(0);
    rig.machine.settle(1_000);
    expect(rig.received.length).toBe(3);
    expect(rig.machine.clock.nowNs()).toBe(nowNs + 50_000);
    for (let i = 0; i < 4; i++) rig.machine.peer.send(rig.frame(100));
    rig.machine.settle(0);
    expect(rig.received.length).toBe(7);
    expect(command(COALESCE, 1, ...u32(0), ...u32(0))).toBe(OK);
  });

  it('the configuration shows MTU, speed and duplex', () => {
    rig = new Rig({ properties: { host_mtu: 9000, speed: 25_000, duplex: 'full' } });
    expect(rig.nic.offered.has(3) && rig.nic.offered.has(63)).toBe(true);
    expect(rig.nic.readBar(4, 0x200a, 2)).toBe(9000);
    expect(rig.nic.readBar(4, 0x200c, 4)).toBe(25_000);
    expect(rig.nic.readBar(4, 0x2010, 1)).toBe(1);
  });

  it('an old driver writes its address into the configuration', () => {
    rig = new Rig({ driver: { legacy: true, avoid: [23] } });
    for (const [i, byte] of OTHER.entries()) rig.nic.writeBar(0, 20 + i, 1, byte);
    expect(rig.nic.queryRxFilter('net0')['main-mac']).toBe('02:09:09:09:09:09');
    expect(arrives(OTHER)).toBe(true);
    for (const [i, byte] of MAC.entries()) rig.nic.writeBar(0, 20 + i, 1, byte);
  });
});

describe('several queue pairs', () => {
  const PAIRS = {
    properties: { mq: true, rss: true, hash: true, queues: 4 },
    driver: { queuePairs: 4 },
  } as const;

  it('flows come in on the pair they were sent from', () => {
    rig = new Rig({ properties: { mq: true, queues: 4 }, driver: { queuePairs: 4 } });
    expect(rig.nic.readBar(4, 0x2008, 2)).toBe(4);
    const batch = new PacketBatch(1);
    for (let pair = 0; pair < 4; pair++) {
      const address = rig.packet(80);
      rig.machine.ram.bytes.set(flow(80, 5000 + pair), rig.machine.ram.offset(address));
      batch.plain(0, address, 80);
      rig.driver.sendPair = pair;
      rig.driver.send(batch, 0, 1);
    }
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(4);
    for (let pair = 0; pair < 4; pair++) {
      const before = [...rig.driver.receivedOn];
      rig.machine.peer.send(flow(5000 + pair, 80));
      rig.machine.settle();
      const after = rig.driver.receivedOn.map((count, i) => count - before[i]!);
      expect(after).toEqual([0, 1, 2, 3].map((i) => (i === pair ? 1 : 0)));
    }
    // Everything on one pair again.
    expect(command(MQ, 0, ...u16(1))).toBe(OK);
    for (const pairs of [0, 5, 0x8000, 0xffff]) expect(command(MQ, 0, ...u16(pairs))).toBe(ERR);
    const before = rig.driver.receivedOn[0]!;
    for (let i = 0; i < 20; i++) rig.machine.peer.send(flow(6000 + i));
    rig.machine.settle();
    expect(rig.driver.receivedOn[0]).toBe(before + 20);
    rig.driver.sendPair = 0;
  });

  it('RSS spreads by the hash and the table that the driver chose', () => {
    rig = new Rig({ ...PAIRS, driver: { ...PAIRS.driver, take: [60] } });
    const key = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) & 255);
    const table = [0, 1, 2, 3, 3, 2, 1, 0];
    const config = [...u32(63), ...u16(7), ...u16(2), ...table.flatMap(u16), ...u16(4), 40, ...key];
    expect(command(MQ, 1, ...config)).toBe(OK);
    const toeplitz = new ToeplitzHash(Uint8Array.from(key));
    const want = [0, 0, 0, 0];
    for (let i = 0; i < 64; i++) {
      const hash = toeplitz.hashV4Ports(0x0a000202, 0x0a00020f, 7000 + i, 80);
      want[table[hash & 7]!]!++;
      rig.machine.peer.send(flow(7000 + i));
    }
    want[2]!++;
    rig.machine.peer.send(rig.frame(100));
    rig.machine.settle();
    expect(rig.driver.receivedOn).toEqual(want);
    expect(Math.min(...want)).toBeGreaterThan(0);
    expect(command(MQ, 0, ...u16(4))).toBe(OK);
  });

  it('hardening 33: RSS tables and indices that are out of range change nothing', () => {
    rig = new Rig({ ...PAIRS, driver: { ...PAIRS.driver, take: [60, 57] } });
    const config = (o: {
      types?: number;
      mask?: number;
      other?: number;
      table?: number[];
      tx?: number;
      key?: number;
    }): number[] => [
      ...u32(o.types ?? 63),
      ...u16(o.mask ?? 1),
      ...u16(o.other ?? 0),
      ...(o.table ?? [0, 1]).flatMap(u16),
      ...u16(o.tx ?? 4),
      o.key ?? 40,
      ...new Array<number>(40).fill(7),
    ];
    expect(command(MQ, 1, ...config({}))).toBe(OK);
    const before = JSON.stringify(rig.nic.saveState().steering);
    for (const bad of [
      { types: 64 },
      { types: 0xffffffff },
      { mask: 2, table: [0, 1, 2] },
      { mask: 255, table: new Array<number>(256).fill(0) },
      { mask: 0xffff },
      { other: 4 },
      { table: [0, 4] },
      { table: [0xffff, 0] },
      { tx: 0 },
      { tx: 5 },
      { key: 41 },
      { key: 255 },
    ]) {
      expect(command(MQ, 1, ...config(bad))).toBe(ERR);
    }
    for (let length = 0; length < 15; length++)
      expect(command(MQ, 1, ...config({}).slice(0, length))).toBe(ERR);
    expect(command(MQ, 2, ...u32(64), 0, 0, 0, 0, 0, 0, 0, 0, 0)).toBe(ERR);
    expect(command(MQ, 2, ...u32(63), 0, 0, 0, 0, 0, 0, 0, 0, 41)).toBe(ERR);
    expect(JSON.stringify(rig.nic.saveState().steering)).toBe(before);
    rig.driver.close();
    rig.driver = rig.makeDriver({ take: [] });
    rig.driver.open();
  });

  it('the hash is reported in the packet header', () => {
    rig = new Rig({ properties: { hash: true }, open: false });
    rig.driver = rig.makeDriver({ take: [57], avoid: [15, 7, 8] });
    rig.driver.open();
    const key = Array.from({ length: 40 }, (_, i) => (i * 5 + 1) & 255);
    expect(command(MQ, 2, ...u32(3), 0, 0, 0, 0, 0, 0, 0, 0, 40, ...key)).toBe(OK);
    rig.machine.peer.send(flow(1234));
    rig.machine.peer.send(rig.frame(80));
    rig.machine.settle();
    // This driver takes headers for 12 bytes long: the rest of one stands in front of the frame.
    const [ip, other] = rig.received.map(({ bytes }) => new DataView(bytes.buffer));
    const hash = new ToeplitzHash(Uint8Array.from(key)).hashV4Ports(0x0a000202, 0x0a00020f, 1234, 80);
    expect([ip!.getUint32(0, true), ip!.getUint16(4, true)]).toEqual([hash, 2]);
    expect([other!.getUint32(0, true), other!.getUint16(4, true)]).toEqual([0, 0]);
    expect(rig.received[0]!.bytes.subarray(8)).toEqual(flow(1234));
    rig.driver.close();
    rig.driver = rig.makeDriver();
    rig.driver.open();
  });
});

/** strict=on of virtio-net: a driver that breaks each rule, and drivers of every kind of ring that break none. */
import { afterEach, describe, expect, it } from 'vitest';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { VIRTIO_NET_RULES, type VirtioNetRule } from '../../../src/nic/virtio-net/strict.ts';
import { expectClean, LogBook } from '../../lib/strict.ts';
import { INDIRECT, NEXT, Raw, WRITE } from './raw.ts';
import { RING_WAYS, Rig } from './rig.ts';

const CSUM = 0;
const HOST_TSO4 = 11;
const NOWHERE = 0x7fff0000;
const COMMON = 4;

let raw: Raw;
afterEach(() => raw?.close());

const put = (offset: number, size: number, value: number): void =>
  raw.rig.nic.writeBar(COMMON, offset, size, value);
const get = (offset: number, size: number): number => raw.rig.nic.readBar(COMMON, offset, size);

/** One packet of 80 bytes in one descriptor, behind a header with these bytes from the front. */
function sendPacket(header: readonly number[], bytes = 92): void {
  const at = raw.offset(raw.tx.buffers);
  raw.bytes.fill(0, at, at + 12);
  raw.bytes.set(raw.rig.frame(80), at + 12);
  raw.bytes.set(header, at);
  raw.tx.desc(0, raw.tx.buffers, bytes);
  raw.tx.offer(0);
  raw.kick(1);
}

/** A receive buffer as the first chain, and a frame for it. */
function receive(flags = WRITE, bytes = 2048): void {
  raw.rx.desc(0, raw.rx.buffers, bytes, flags);
  raw.rx.offer(0);
  raw.kick(0);
  raw.rig.machine.peer.send(raw.rig.frame(80));
}

const start = (...features: number[]): void => {
  expect(raw.start(features)).toBe(true);
};

/** What a driver does to break a rule. */
const BREAKS: Readonly<Record<VirtioNetRule, () => void>> = {
  'access-width': () => put(22, 1, 0),
  'read-only': () => put(4, 4, 0),
  'config-written': () => put(0x2000, 1, 2),
  'status-cleared': () => {
    start();
    put(20, 1, 11);
  },
  'status-order': () => put(20, 1, 8),
  'features-late': () => {
    start();
    put(12, 4, 0);
  },
  'feature-not-offered': () => {
    put(8, 4, 1);
    put(12, 4, 1 << 30);
  },
  'feature-needs': () => {
    put(20, 1, 3);
    // HOST_TSO4 without CSUM.
    put(8, 4, 0);
    put(12, 4, 1 << HOST_TSO4);
    put(8, 4, 1);
    put(12, 4, 1);
    put(20, 1, 11);
  },
  'version-1': () => {
    put(20, 1, 3);
    put(20, 1, 11);
  },
  vector: () => put(16, 2, 999),
  'queue-size': () => put(24, 2, 100),
  'queue-alignment': () => {
    put(20, 1, 0);
    put(22, 2, 0);
    put(32, 4, 8);
    put(28, 2, 1);
  },
  'queue-disable': () => put(28, 2, 0),
  'queue-early': () => put(28, 2, 1),
  'queue-frozen': () => {
    start();
    put(22, 2, 0);
    put(24, 2, 32);
  },
  'queue-reset': () => {
    start();
    put(58, 2, 1);
  },
  'kick-early': () => put(0x3000, 2, 0),
  'kick-queue': () => {
    start();
    put(0x3000 + 4 * 7, 2, 7);
  },
  'kick-width': () => put(0x3000, 1, 0),
  'ring-address': () => {
    start();
    put(20, 1, 0);
    const { transport } = raw;
    transport.status = 3;
    put(8, 4, 1);
    put(12, 4, 1);
    transport.status = 11;
    put(22, 2, 1);
    for (const [at, address] of [
      [32, NOWHERE],
      [40, NOWHERE],
      [48, NOWHERE],
    ] as const)
      put(at, 4, address);
    put(28, 2, 1);
    transport.status = 15;
    raw.kick(1);
  },
  overrun: () => {
    start();
    raw.tx.availIdx = 200;
    raw.kick(1);
  },
  index: () => {
    start();
    raw.tx.offer(5000);
    raw.kick(1);
  },
  'chain-length': () => {
    start();
    raw.tx.desc(0, raw.tx.buffers, 100, NEXT, 0);
    raw.tx.offer(0);
    raw.kick(1);
  },
  empty: () => {
    start();
    raw.tx.desc(0, raw.tx.buffers, 0);
    raw.tx.offer(0);
    raw.kick(1);
  },
  indirect: () => {
    start();
    raw.tx.desc(0, raw.tx.buffers, 16, INDIRECT);
    raw.tx.offer(0);
    raw.kick(1);
  },
  order: () => {
    start();
    raw.tx.desc(0, raw.tx.buffers, 100, WRITE | NEXT, 1);
    raw.tx.desc(1, raw.tx.buffers, 100);
    raw.tx.offer(0);
    raw.kick(1);
  },
  'buffer-address': () => {
    start();
    raw.tx.desc(0, NOWHERE, 100);
    raw.tx.offer(0);
    raw.kick(1);
  },
  'chain-reuse': () => {
    start();
    raw.tx.desc(0, raw.tx.buffers, 100);
    raw.tx.offer(0, 0);
    raw.kick(1);
  },
  'tx-writable': () => {
    start();
    raw.tx.desc(0, raw.tx.buffers, 100, NEXT, 1);
    raw.tx.desc(1, raw.tx.buffers, 100, WRITE);
    raw.tx.offer(0);
    raw.kick(1);
  },
  'rx-readable': () => {
    start();
    raw.rx.desc(1, raw.rx.buffers, 2048, WRITE);
    receive(NEXT | (1 << 16));
  },
  'rx-size': () => {
    start();
    receive(WRITE, 1000);
  },
  'tx-header': () => {
    start();
    sendPacket([], 13);
  },
  'data-valid': () => {
    start();
    sendPacket([2]);
  },
  'csum-feature': () => {
    start();
    sendPacket([1, 0, 0, 0, 0, 0, 34, 0, 16, 0]);
  },
  'csum-place': () => {
    start(CSUM);
    sendPacket([1, 0, 0, 0, 0, 0, 100, 0, 16, 0]);
  },
  'gso-feature': () => {
    start(CSUM);
    sendPacket([1, 1, 54, 0, 100, 0, 34, 0, 16, 0]);
  },
  'gso-csum': () => {
    start(CSUM, HOST_TSO4);
    sendPacket([0, 1, 54, 0, 100, 0, 34, 0, 16, 0]);
  },
  'gso-size': () => {
    start(CSUM, HOST_TSO4);
    sendPacket([1, 1, 54, 0, 0, 0, 34, 0, 16, 0]);
  },
  'num-buffers': () => {
    start();
    sendPacket([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  },
  'control-answer': () => {
    start();
    raw.control.desc(0, raw.control.buffers, 3);
    raw.control.offer(0);
    raw.kick(2);
  },
  'control-refused': () => {
    start();
    raw.bytes.set([99, 99, 0], raw.offset(raw.control.buffers));
    raw.control.desc(0, raw.control.buffers, 3, NEXT, 1);
    raw.control.desc(1, raw.control.buffers + 16, 1, WRITE);
    raw.control.offer(0);
    raw.kick(2);
  },
};

describe('strict=on, virtio-net', () => {
  it.each(Object.keys(VIRTIO_NET_RULES) as VirtioNetRule[])('tells of %s, once, and counts it', (rule) => {
    const log = new LogBook();
    raw = new Raw({ device: { strict: true }, log });
    const { nic, machine } = raw.rig;
    expectClean(nic);
    BREAKS[rule]();
    machine.settle();
    const [register, section, message] = VIRTIO_NET_RULES[rule];
    const found = nic.driverReport!.complaints().find((complaint) => complaint.rule === rule);
    expect(found).toMatchObject({ register, section, message });
    put(20, 1, 0);
    BREAKS[rule]();
    machine.settle();
    const again = nic.driverReport!.complaints().find((complaint) => complaint.rule === rule);
    expect(again!.count).toBeGreaterThan(found!.count);
    const lines = log.lines.filter(({ details }) => (details as { rule: string }).rule === rule);
    expect(lines.map((line) => line.message)).toEqual([`net0: ${message} (${register}, ${section})`]);
    expect(get(20, 1) & 0x80).toBe(0);
  });

  it('good packets, buffers and commands are good', () => {
    raw = new Raw({ device: { strict: true } });
    start(CSUM, HOST_TSO4);
    raw.sendGood();
    sendPacket([1, 1, 54, 0, 100, 0, 34, 0, 16, 0]);
    receive();
    raw.rig.machine.settle();
    expectClean(raw.rig.nic);
  });
});

describe('strict=on, virtio-net with the driver in guest/driver', () => {
  it.each(RING_WAYS)('has nothing to say: %s', (_name, options) => {
    const rig = new Rig({ ...options, device: { ...options.device, strict: true } });
    for (let lap = 0; lap < 40; lap++) {
      rig.sendAll([60 + lap, 1514, 3000]);
      rig.machine.ram.release(rig.machine.ram.mark() - (60 + lap + 1514 + 3000 + 48));
      expect(rig.machine.peer.send(rig.frame(300, lap))).toBe(true);
      rig.machine.settle();
    }
    const batch = new PacketBatch(1);
    const address = rig.packet(1000);
    batch.checksummed(0, address, 1000, 34, 16);
    expect(rig.driver.send(batch, 0, 1)).toBe(1);
    rig.machine.settle();
    rig.expectWorks();
    rig.driver.close();
    expect(rig.driver.open()).toBe(true);
    rig.expectWorks();
    expectClean(rig.nic);
    rig.close();
  });
});

/** What is offered, PCI identities, MSI-X vectors, queue reset, ports of several queues. */
import { afterEach, describe, expect, it } from 'vitest';
import { ACCEPT_ALL, ACCEPT_CSUM, ACCEPT_TSO4, Port } from '../../../src/core/port.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { Recorder } from '../../lib/test-machine.ts';
import { Raw } from './raw.ts';
import { Rig } from './rig.ts';

let rig: Rig;
afterEach(() => rig.close());

const offered = (): number[] =>
  Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => rig.nic.offered.has(bit));

describe('identity and offer', () => {
  it.each([
    ['virtio-net-pci', {}, [0x1000, 0, 1, [0, 1, 4]]],
    ['virtio-net-pci-non-transitional', {}, [0x1041, 1, 0x1100, [1, 4]]],
    ['virtio-net-pci', { 'disable-modern': true }, [0x1000, 0, 1, [0, 1]]],
    ['virtio-net-pci', { vectors: 0 }, [0x1000, 0, 1, [0, 4]]],
  ] as const)('%s %j', (name, properties, [device, revision, subsystem, bars]) => {
    rig = new Rig({ name, properties });
    const { nic } = rig;
    expect(nic.readConfig(0, 2)).toBe(0x1af4);
    expect([nic.readConfig(2, 2), nic.readConfig(8, 1), nic.readConfig(0x2e, 2)]).toEqual([
      device,
      revision,
      subsystem,
    ]);
    expect(nic.bars.map((bar) => bar.index)).toEqual(bars);
    rig.expectWorks();
  });

  it('offers what the peer can serve, as it is when the driver looks', () => {
    rig = new Rig({ accepts: 0, open: false });
    const host = (): number[] => offered().filter((bit) => [0, 6, 11, 12, 13, 14, 56].includes(bit));
    expect(host()).toEqual([]);
    rig.machine.peer.port.accepts = ACCEPT_CSUM;
    expect(host()).toEqual([0]);
    rig.machine.peer.port.accepts = ACCEPT_CSUM | ACCEPT_TSO4;
    expect(host()).toEqual([0, 11]);
    rig.machine.peer.port.accepts = ACCEPT_ALL;
    expect(host()).toEqual([0, 6, 11, 12, 13, 14, 56]);
    rig.driver.open();
    // A driver that is up keeps what it was told.
    rig.machine.peer.port.accepts = 0;
    expect(host()).toEqual([0, 6, 11, 12, 13, 14, 56]);
    rig.driver.close();
    expect(host()).toEqual([]);
    rig.driver.open();
    rig.expectWorks();
  });

  it('each property takes its feature away', () => {
    const bits = {
      csum: 0,
      guest_csum: 1,
      mrg_rxbuf: 15,
      status: 16,
      ctrl_vq: 17,
      ctrl_vlan: 19,
      event_idx: 29,
    };
    for (const [property, bit] of Object.entries(bits)) {
      rig = new Rig({ properties: { [property]: false } });
      expect(offered()).not.toContain(bit);
      rig.expectWorks();
      rig.close();
    }
    // With ctrl_vq goes all that needs it; with csum the segmentations.
    rig = new Rig({ properties: { ctrl_vq: false, csum: false, mq: true, queues: 2 } });
    expect(
      offered().filter((bit) => [2, 18, 19, 20, 21, 22, 23, 53, 11, 12, 13, 14, 56].includes(bit)),
    ).toEqual([]);
  });
});

describe('MSI-X', () => {
  it('each queue and the configuration have a vector of their own, masked and pending by it', () => {
    const raw = new Raw();
    rig = raw.rig;
    expect(raw.start()).toBe(true);
    const { nic, machine } = rig;
    const capability = nic.config.findCapability(0x11);
    expect(nic.readConfig(capability + 2, 2) & 0x7ff).toBe(3);
    nic.writeConfig(capability + 2, 2, 0x8000);
    for (let vector = 0; vector < 4; vector++) {
      nic.writeBar(1, 16 * vector, 4, 0xfee00000);
      nic.writeBar(1, 16 * vector + 8, 4, 0x40 + vector);
      nic.writeBar(1, 16 * vector + 12, 4, 0);
    }
    raw.transport.setConfigVector(0);
    for (const [queue, vector] of [
      [0, 1],
      [1, 2],
    ] as const) {
      nic.writeBar(4, 22, 2, queue);
      nic.writeBar(4, 26, 2, vector);
      expect(nic.readBar(4, 26, 2)).toBe(vector);
    }
    nic.writeBar(4, 22, 2, 2);
    nic.writeBar(4, 26, 2, 4);
    expect(nic.readBar(4, 26, 2)).toBe(0xffff);
    raw.sendGood();
    expect(machine.messages.map((message) => message.data)).toEqual([0x42]);
    raw.rx.desc(0, raw.rx.buffers, 200, 2);
    raw.rx.offer(0);
    machine.peer.send(rig.frame(100));
    machine.peer.port.setLink(false);
    expect(machine.messages.map((message) => message.data)).toEqual([0x42, 0x41, 0x40]);
    expect(nic.readBar(4, 0x1000, 1)).toBe(0);
    nic.writeBar(1, 12, 4, 1);
    machine.peer.port.setLink(true);
    expect(machine.messages.length).toBe(3);
    nic.writeBar(1, 12, 4, 0);
    expect(machine.messages.map((message) => message.data)).toEqual([0x42, 0x41, 0x40, 0x40]);
    expect(machine.interrupts).toBe(0);
  });

  it('an interrupt without MSI-X is a level that reading the ISR takes down', () => {
    const raw = new Raw();
    rig = raw.rig;
    expect(raw.start()).toBe(true);
    raw.sendGood();
    expect(rig.machine.intx).toBe(true);
    expect(rig.nic.readBar(4, 0x1000, 1)).toBe(1);
    expect(rig.machine.intx).toBe(false);
    rig.machine.peer.port.setLink(false);
    expect(rig.nic.readBar(4, 0x1000, 4)).toBe(2);
    expect(rig.nic.readBar(4, 0x1000, 1)).toBe(0);
  });

  it('no interrupt is sent where the driver wants none', () => {
    const raw = new Raw();
    rig = raw.rig;
    expect(raw.start()).toBe(true);
    raw.halves[raw.offset(raw.tx.driver) / 2] = 1;
    raw.sendGood();
    expect(rig.machine.intx).toBe(false);
    expect(raw.tx.usedIdx).toBe(1);
  });
});

describe('queue reset', () => {
  it('stops one queue, and it is enabled again elsewhere and with another size', () => {
    const raw = new Raw();
    rig = raw.rig;
    expect(raw.start([40])).toBe(true);
    const { nic, machine } = rig;
    machine.peer.limit = 0;
    raw.sendGood();
    expect(machine.peer.frames.length).toBe(0);
    nic.writeBar(4, 22, 2, 1);
    nic.writeBar(4, 58, 2, 1);
    expect([nic.readBar(4, 58, 2), nic.readBar(4, 28, 2)]).toEqual([0, 0]);
    expect(machine.pool.free).toBe(machine.pool.capacity);
    machine.peer.limit = 10;
    machine.peer.port.ready();
    expect(machine.peer.frames.length).toBe(0);
    const before = nic.stats.badKick;
    raw.kick(1);
    expect(nic.stats.badKick).toBe(before + 1);
    // The receive queue went on all the while.
    raw.rx.desc(0, raw.rx.buffers, 200, 2);
    raw.rx.offer(0);
    expect(machine.peer.send(rig.frame(100))).toBe(true);
    expect(raw.rx.usedIdx).toBe(1);
    const again = new (raw.tx.constructor as new (raw: Raw, index: number, size: number) => Raw['tx'])(
      raw,
      3,
      16,
    );
    const at = raw.offset(again.descriptors);
    raw.bytes.fill(0, at, at + 0x8000);
    expect(raw.transport.enableQueue(1, again as never, -1)).toBe(true);
    expect(nic.readBar(4, 24, 2)).toBe(16);
    raw.tx = again;
    raw.sendGood();
    expect(machine.peer.frames.length).toBe(1);
  });

  it('is nothing without the feature', () => {
    const raw = new Raw();
    rig = raw.rig;
    expect(raw.start()).toBe(true);
    rig.nic.writeBar(4, 22, 2, 1);
    rig.nic.writeBar(4, 58, 2, 1);
    expect(rig.nic.readBar(4, 28, 2)).toBe(1);
  });
});

describe('a netdev with several queues', () => {
  it('has a port for each pair, and frames stay on theirs', () => {
    rig = new Rig({ properties: { mq: true }, device: { ports: 2 }, driver: { queuePairs: 2 } });
    const { machine, nic, driver } = rig;
    const second = new Recorder(machine.link);
    Port.connect(nic.ports[1]!, second.port);
    for (const [pair, peer] of [machine.peer, second].entries()) {
      const batch = new PacketBatch(1);
      batch.plain(0, rig.packet(70 + pair), 70 + pair);
      driver.sendPair = pair;
      driver.send(batch, 0, 1);
      machine.settle();
      expect(peer.frames.map((f) => f.bytes.length)).toEqual([70 + pair]);
      expect(peer.send(rig.frame(100))).toBe(true);
      machine.settle();
      expect(driver.receivedOn[pair]).toBe(1);
    }
    driver.sendPair = 0;
    second.port.disconnect();
  });

  it('one pair that is not served does not hold the other up', () => {
    rig = new Rig({ properties: { mq: true }, device: { ports: 2 }, driver: { queuePairs: 2, ringSize: 8 } });
    const { machine, nic, driver } = rig;
    const second = new Recorder(machine.link);
    Port.connect(nic.ports[1]!, second.port);
    machine.onInterrupt = null;
    let taken = 0;
    while (second.send(rig.frame(100))) taken++;
    expect(taken).toBe(8);
    expect(machine.peer.send(rig.frame(100))).toBe(true);
    expect(second.ready).toBe(0);
    machine.onInterrupt = () => driver.interrupt();
    driver.interrupt();
    expect(second.ready).toBeGreaterThan(0);
    second.port.disconnect();
  });
});

describe('without bus mastering', () => {
  it('nothing is read or written, and all goes on when it comes back', () => {
    rig = new Rig();
    const command = rig.nic.readConfig(4, 2);
    rig.nic.writeConfig(4, 2, command & ~4);
    const batch = new PacketBatch(1);
    batch.plain(0, rig.packet(60), 60);
    rig.driver.send(batch, 0, 1);
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(0);
    expect(rig.machine.peer.send(rig.frame(100))).toBe(true);
    expect(rig.nic.stats.rxDropDisabled).toBe(1);
    rig.nic.writeConfig(4, 2, command);
    rig.machine.settle();
    expect(rig.machine.peer.frames.length).toBe(1);
    rig.expectWorks();
  });
});

/** What the netdev says to a back-end, and what it refuses. */
import { afterEach, describe, expect, test } from 'vitest';
import { regionsOf } from '../../../src/backends/vhost-user/ram.ts';
import { readChardev } from '../../../src/config/chardevs.ts';
import { VirtualClock } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { ProbeMachine } from '../../../src/guest/probe/machine.ts';
import { announce } from '../../../src/network/announce.ts';
import { VhostGuest, type VhostGuestOptions } from '../../lib/vhost-guest.ts';
import {
  BackEnd,
  F_EVENT_IDX,
  F_INDIRECT,
  F_MRG_RXBUF,
  F_PACKED,
  F_PROTOCOL,
  F_VERSION_1,
  PF,
  type Script,
} from './back-end.ts';

const clock = new VirtualClock();
let backEnd: BackEnd | null = null;
let guest: VhostGuest | null = null;
afterEach(() => {
  guest?.close();
  backEnd?.close();
  guest = null;
  backEnd = null;
});

async function start(
  script: Script = {},
  options: Partial<VhostGuestOptions> = {},
): Promise<{ back: BackEnd; guest: VhostGuest }> {
  backEnd = new BackEnd(script);
  const made = await VhostGuest.make({ path: backEnd.path, clock, ...options });
  guest = made;
  await made.until(() => made.nic.servedOutside);
  return { back: backEnd, guest: made };
}

const ALL = PF.mq | PF.rarp | PF.ack | PF.mtu | PF.inflight | PF.reset | PF.slots;

describe('what a back-end is told', () => {
  test('without protocol features: features, owner, memory, two rings, and no more', async () => {
    const { back, guest } = await start({ features: F_VERSION_1 | F_MRG_RXBUF });
    // The second GET_FEATURES says that the memory table is in use.
    const ring = [8, 10, 9, 14, 13, 12];
    await guest.until(() => back.told.length >= 5 + 2 * ring.length);
    expect(back.requests()).toEqual([1, 3, 2, 5, 1, ...ring, ...ring]);
    expect(back.told.every(({ flags }) => flags === 1)).toBe(true);
  });

  test('with acknowledgements: each request asks for one', async () => {
    const { back } = await start();
    const ring = [8, 10, 9, 14, 13, 12];
    expect(back.requests()).toEqual([1, 15, 16, 17, 3, 2, 5, ...ring, ...ring, 18, 18]);
    for (const { request, flags } of back.told.slice(4)) expect([request, flags]).toEqual([request, 9]);
    expect(back.lastOf(5)!.fds).toBe(2);
    expect(back.lastOf(12)!.fds).toBe(1);
  });

  test('rings by their front-end addresses, which lie in the regions of the memory table', async () => {
    const { back, guest } = await start();
    const table = back.lastOf(5)!.view;
    expect(table.getUint32(0, true)).toBe(2);
    const regions = [0, 1].map((i) => ({
      guest: table.getBigUint64(8 + 32 * i, true),
      bytes: table.getBigUint64(16 + 32 * i, true),
      user: table.getBigUint64(24 + 32 * i, true),
      offset: table.getBigUint64(32 + 32 * i, true),
    }));
    expect(regions.map(({ offset }) => offset)).toEqual([0n, 0n]);
    for (const { payload } of back.told.filter(({ request }) => request === 9)) {
      const view = new DataView(payload.buffer);
      const index = view.getUint32(0, true);
      const { layout } = guest.nic.queueState(index)!;
      const wanted = [layout.descriptors, layout.device, layout.driver];
      for (const [i, address] of wanted.entries()) {
        const user = view.getBigUint64(8 + 8 * i, true);
        const region = regions.find((one) => user >= one.user && user < one.user + one.bytes)!;
        expect(user - region.user + region.guest).toBe(BigInt(address));
      }
    }
  });

  test('memory slots, an in-flight area, the MTU, a reset and an announcement, where it can', async () => {
    const { back, guest } = await start(
      { protocol: ALL },
      { properties: { host_mtu: 1400 }, driver: { take: [3] } },
    );
    const requests = back.requests();
    expect(requests).not.toContain(5);
    expect(requests.filter((request) => request === 37)).toHaveLength(2);
    expect(back.lastOf(20)!.view.getUint32(0, true)).toBe(1400);
    expect(back.lastOf(31)!.view.getUint16(16, true)).toBe(2);
    expect(back.lastOf(31)!.view.getUint16(18, true)).toBe(256);
    expect(back.lastOf(32)!.fds).toBe(1);
    announce(guest.network, { initialMs: 1, maxMs: 1, rounds: 1, stepMs: 0 });
    await guest.until(() => guest.stats.announcements === 1);
    expect(back.lastOf(19)!.payload).toEqual(Uint8Array.from([...guest.nic.mac, 0, 0]));
    guest.driver.close();
    await guest.until(() => back.lastOf(34) !== undefined);
    // A driver that begins anew has nothing in flight: the area is a new one.
    expect(back.areas).toBe(1);
    await guest.until(() => guest.nic.readBar(4, 20, 1) === 0);
    expect(guest.driver.open()).toBe(true);
    await guest.until(() => guest.nic.servedOutside);
    expect(back.areas).toBe(2);
  });

  test('the next back-end gets the in-flight area of the one that died', async () => {
    const { back, guest } = await start({ protocol: ALL }, { reconnectMs: 5 });
    back.told.length = 0;
    back.hang();
    await guest.until(() => !guest.netdev.ports[0]!.linkUp);
    guest.network.loop.runUntil(clock.nowNs() + 6e6);
    await guest.until(() => guest.nic.servedOutside);
    expect(back.areas).toBe(1);
    expect(back.requests()).not.toContain(31);
    expect(back.lastOf(32)!.fds).toBe(1);
    expect(guest.stats.takenOver).toBe(2);
  });

  test('which pairs the driver uses', async () => {
    const { back } = await start(
      { protocol: PF.mq | PF.ack, pairs: 4 },
      { queues: 2, driver: { queuePairs: 1 } },
    );
    const enabled = back.told
      .filter(({ request }) => request === 18)
      .map(({ view }) => [view.getUint32(0, true), view.getUint32(4, true)]);
    expect(enabled).toEqual([
      [0, 1],
      [1, 1],
    ]);
  });
});

describe('what the driver is offered', () => {
  test('of rings and packet headers only what the back-end can do; of registers and commands all', async () => {
    const { guest } = await start(
      { features: F_VERSION_1 | F_PROTOCOL | F_INDIRECT },
      { properties: { packed: true } },
    );
    const { offered } = guest.nic;
    expect([28, 32].every((bit) => offered.has(bit))).toBe(true);
    expect([0, 1, 11, 15, 29, 34].some((bit) => offered.has(bit))).toBe(false);
    expect([5, 16, 17, 18].every((bit) => offered.has(bit))).toBe(true);
  });

  test('neither RSS, hash reports, changes of offloads, coalescing nor a reset of single queues, whatever the back-end says', async () => {
    const bits = [2, 40, 53, 57, 60];
    const all = bits.reduce((sum, bit) => sum | (1n << BigInt(bit)), F_VERSION_1 | F_PROTOCOL);
    const { guest } = await start({ features: all }, { properties: { rss: true, hash: true } });
    expect(bits.filter((bit) => guest.nic.offered.has(bit))).toEqual([]);
  });

  test('packed rings where both can', async () => {
    const { guest, back } = await start(
      { features: F_VERSION_1 | F_PROTOCOL | F_PACKED | F_EVENT_IDX | F_MRG_RXBUF },
      { properties: { packed: true } },
    );
    expect(guest.driver.has(34)).toBe(true);
    // The wrap counters of both ends begin at 1.
    expect(back.lastOf(10)!.view.getUint32(4, true)).toBe(0x8000_8000);
  });
});

describe('what is refused', () => {
  test('more queues than the back-end has', async () => {
    backEnd = new BackEnd({ pairs: 1 });
    await expect(VhostGuest.make({ path: backEnd.path, clock, queues: 2 })).rejects.toThrow(
      'you are asking more queues than supported: 1',
    );
  });

  test('a NIC that is no virtio-net, a hub and a filter', async () => {
    backEnd = new BackEnd();
    guest = new VhostGuest({ path: backEnd.path, clock });
    await guest.openNetdev();
    const { network, machine } = guest;
    const frontEnd = 'vhost-user requires frontend driver virtio-net-*';
    for (const driver of ['e1000', 'rtl8139'] as const)
      expect(() => network.addDevice({ driver, netdev: 'n0', host: machine })).toThrow(frontEnd);
    await expect(network.addNetdev({ type: 'hubport', id: 'h0', hubid: 0, netdev: 'n0' })).rejects.toThrow(
      frontEnd,
    );
    await expect(
      network.openObject({
        type: 'filter-buffer',
        id: 'f0',
        netdev: 'n0',
        position: { at: 'tail' },
      } as never),
    ).rejects.toThrow('Vhost is not supported');
  });

  test('a guest whose RAM lies in no files', async () => {
    backEnd = new BackEnd();
    guest = new VhostGuest({ path: backEnd.path, clock });
    await guest.openNetdev();
    const { loop, pool, context } = guest.network;
    const machine = new ProbeMachine({ loop, pool, random: context.random, log: context.log });
    expect(() => guest!.network.addDevice({ driver: 'virtio-net-pci', netdev: 'n0', host: machine })).toThrow(
      'vhost-user needs a guest whose RAM lies in files',
    );
    machine.close();
    // Nothing of it is left.
    guest.plug();
    await guest.until(() => guest!.nic.servedOutside);
  });

  test('a chardev that is not there, is no unix socket, or is in use', async () => {
    backEnd = new BackEnd();
    guest = await VhostGuest.make({ path: backEnd.path, clock });
    const { network } = guest;
    const add = (chardev: string): Promise<unknown> =>
      network.addNetdev({ type: 'vhost-user', id: 'n1', chardev });
    await expect(add('zz')).rejects.toThrow('chardev "zz" not found');
    await expect(add('c0')).rejects.toThrow("chardev 'c0' is already in use");
    await network.chardevs.open(readChardev({ id: 'c1', backend: 'null' }));
    await expect(add('c1')).rejects.toThrow('chardev "c1" is not reconnectable');
    expect([...network.netdevs.keys()]).toEqual(['n0']);
  });

  test('a netdev that waits for its first back-end goes with its chardev', async () => {
    const told: string[] = [];
    const log = { ...silentLogger, warn: (_facts: object, text: string) => told.push(text) };
    guest = new VhostGuest({ path: '/tmp/netemu-nobody-comes.sock', server: true, clock, log });
    const opening = guest.openNetdev();
    const settled = expect(opening).rejects.toThrow("chardev 'c0' was removed");
    await new Promise((resolve) => setImmediate(resolve));
    expect(told).toEqual([
      'netdev n0 waits for its back-end: disconnected:unix:/tmp/netemu-nobody-comes.sock,server=on',
    ]);
    guest.network.chardevs.close();
    await settled;
    expect(guest.network.netdevs.size).toBe(0);
  });
});

describe('the memory table', () => {
  const range = (address: number, length: number, offset = address, handle = 1) => ({
    address,
    length,
    handle,
    offset,
  });

  test('neighbours in memory and file are one region', () => {
    expect(regionsOf([range(0, 10), range(10, 10), range(20, 5, 100), range(25, 5, 105)], 8)).toEqual([
      range(0, 20),
      range(20, 10, 100),
    ]);
    expect(regionsOf([range(0, 10), range(10, 10, 10, 2)], 8)).toHaveLength(2);
    expect(regionsOf([range(0, 10), range(12, 10)], 8)).toHaveLength(2);
  });

  test('of too many the largest go, in order', () => {
    const many = [range(0, 5), range(10, 50), range(100, 1), range(200, 20)];
    expect(regionsOf(many, 2)).toEqual([range(10, 50), range(200, 20)]);
  });
});

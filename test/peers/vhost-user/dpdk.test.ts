/**
 * DPDK's virtio_user as the front-end: two testpmds on two NICs of ours, which share a hub. One sends, the other one receives, then the other way round; split and packed rings, one and two queue
 * pairs, and a front-end that is killed.
 */

import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ensureDpdk, Testpmd } from '../lib/dpdk.ts';
import { Rig, type Seat } from './rig.ts';

const ENOUGH = 20_000;

let rig: Rig;
const running: Testpmd[] = [];

beforeAll(async () => {
  await ensureDpdk();
});

afterEach(async () => {
  for (const testpmd of running.splice(0)) await testpmd.kill();
  rig?.close();
});

async function seats(queues: number): Promise<Seat[]> {
  rig = await Rig.make({ type: 'hubport', id: 'h0', hubid: 0 }, { type: 'hubport', id: 'h1', hubid: 0 });
  const device = { driver: 'virtio-net-pci', packed: true, ...(queues > 1 ? { mq: true, queues } : {}) };
  return ['h0', 'h1'].map((netdev, i) => rig.seat({ ...device, netdev, id: `nic${i}` } as never));
}

async function start({ path }: Seat, ring: string, queues: number, forward: string): Promise<Testpmd> {
  const packed = ring === 'packed' ? 1 : 0;
  const testpmd = new Testpmd({
    vdevs: [`net_virtio_user0,path=${path},queues=${queues},packed_vq=${packed}`],
    queues,
    forward,
    more: ['--txonly-multi-flow'],
  });
  running.push(testpmd);
  await testpmd.ready();
  return testpmd;
}

/** What passed on a queue, by testpmd's own count. */
async function queueCount(testpmd: Testpmd, name: string): Promise<number> {
  const text = await testpmd.command('show port xstats 0');
  return Number(new RegExp(`${name}: (\\d+)`).exec(text)?.[1] ?? -1);
}

/** Waits until both back-ends saw their front-end leave, and checks that nothing of it stays. */
async function gone(both: readonly Seat[]): Promise<void> {
  const { pool } = rig.network;
  while (both.some(({ backend }) => backend.connected) || pool.free !== pool.capacity)
    await new Promise((resolve) => setImmediate(resolve));
  for (const { host } of both) expect(host.memory.ranges).toEqual([]);
}

describe.each([
  ['split', 1],
  ['split', 2],
  ['packed', 1],
  ['packed', 2],
] as const)('%s rings, %d queue pairs', (ring, queues) => {
  test('frames pass both ways through two NICs and a hub, sent on every queue', async () => {
    const both = await seats(queues);
    const ends = [
      await start(both[0]!, ring, queues, 'rxonly'),
      await start(both[1]!, ring, queues, 'txonly'),
    ] as const;
    for (const [receiver, sender] of [ends, [ends[1], ends[0]]] as const) {
      for (const [testpmd, forward] of [
        [receiver, 'rxonly'],
        [sender, 'txonly'],
      ] as const) {
        await testpmd.command('stop');
        await testpmd.command(`set fwd ${forward}`);
        await testpmd.command('start');
      }
      const before = (await receiver.counts()).rxPackets;
      while ((await receiver.counts()).rxPackets < before + ENOUGH);
      for (let queue = 0; queue < queues; queue++) {
        expect(await queueCount(sender, `tx_q${queue}_good_packets`)).toBeGreaterThan(0);
      }
    }
    for (const { nic, backend } of both) {
      expect(nic.stats.txFrames).toBeGreaterThanOrEqual(ENOUGH);
      expect(nic.stats.rxFrames).toBeGreaterThanOrEqual(ENOUGH);
      expect(nic.stats).toMatchObject({ brokenRings: 0, txDropBadHeader: 0, rxDropTooLong: 0 });
      expect(backend.wireStats.badMessages).toBe(0);
      expect(backend.ringStats).toMatchObject({ starts: 2 * queues, badRings: 0 });
    }
    for (const testpmd of running.splice(0)) await testpmd.stop();
    await gone(both);
  });
});

test('front-ends that are killed in mid-traffic leave nothing behind, and the next ones are served', async () => {
  const both = await seats(1);
  for (const ring of ['split', 'packed']) {
    const receiver = await start(both[0]!, ring, 1, 'rxonly');
    await start(both[1]!, ring, 1, 'txonly');
    while ((await receiver.counts()).rxPackets < 1000);
    for (const testpmd of running.splice(0)) await testpmd.kill();
    await gone(both);
  }
  for (const { nic, backend } of both) {
    expect(nic.stats.brokenRings).toBe(0);
    expect(backend.frontEnds).toBe(2);
  }
});

/**
 * How many frames a second pass between netemu's front-end and DPDK's back-end: the driver's half of virtio-net in this process, on RAM in a file, and testpmd's `net_vhost`, which counts what it
 * gets (up) or sends all it can (down). Beside it, in the same run, DPDK's own front-end (`virtio_user`) on the same back-end. Both sides poll: each has a processor for itself.
 *
 *     npx tsx bench/vhost-user-frontend.ts [seconds] [rounds]
 */

import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PacketBatch } from '../src/guest/driver/driver.ts';
import { VhostGuest } from '../test/lib/vhost-guest.ts';
import { ensureDpdk, Testpmd } from '../test/peers/lib/dpdk.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const [seconds = 1, rounds = 3] = process.argv.slice(2).map(Number);
const BURST = 64;
const SLICE_BURSTS = 256;
const RING_SIZE = 1024;
const path = join(tmpdir(), `netemu-bench-vhost-${process.pid}.sock`);

const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function backEnd(direction: 'up' | 'down', bytes: number): Testpmd {
  return new Testpmd({
    vdevs: [`net_vhost0,iface=${path}`],
    forward: direction === 'up' ? 'rxonly' : 'txonly',
    more: [`--txpkts=${bytes}`],
  });
}

/** Runs `turn` for some time and returns what the counter went up by in a second, once it had half a second to warm up. */
async function rate(turn: () => Promise<void>, count: () => Promise<number>): Promise<number> {
  const spin = async (ms: number): Promise<void> => {
    for (const end = performance.now() + ms; performance.now() < end; ) await turn();
  };
  await spin(500);
  const before = await count();
  const start = performance.now();
  await spin(1000 * seconds);
  const counted = (await count()) - before;
  return counted / ((performance.now() - start) / 1000);
}

async function netemu(direction: 'up' | 'down', packed: boolean, bytes: number): Promise<number> {
  const peer = backEnd(direction, bytes);
  await peer.ready();
  const guest = await VhostGuest.make({
    path,
    properties: { packed, rx_queue_size: RING_SIZE, tx_queue_size: RING_SIZE },
    driver: { polled: true, ringSize: RING_SIZE, indirect: false },
  });
  const { driver, machine } = guest;
  let received = 0;
  let sum = 0;
  driver.listener = {
    received(address) {
      received++;
      // The frame is looked at: its type.
      sum += machine.ram.words[machine.ram.offset(address) >> 2]!;
    },
    sent() {},
  };
  await guest.until(() => guest.nic.servedOutside);
  const batch = new PacketBatch(BURST);
  const frames = machine.ram.allocate(BURST * 2048, 64);
  for (let i = 0; i < BURST; i++) {
    machine.ram.bytes.fill(
      0xff,
      machine.ram.offset(frames + 2048 * i),
      machine.ram.offset(frames + 2048 * i) + 12,
    );
    batch.plain(i, frames + 2048 * i, bytes);
  }
  const result =
    direction === 'up'
      ? await rate(
          async () => {
            for (let n = 0; n < SLICE_BURSTS; n++) driver.send(batch, 0, BURST);
            await pause();
          },
          async () => (await peer.counts()).rxPackets,
        )
      : await rate(
          async () => {
            for (let n = 0; n < SLICE_BURSTS; n++) driver.interrupt();
            await pause();
          },
          async () => received,
        );
  guest.close();
  await peer.stop();
  rmSync(path, { force: true });
  if (received > 0 && sum === 0) throw new Error('the frames that arrived are empty');
  return result;
}

async function dpdk(direction: 'up' | 'down', packed: boolean, bytes: number): Promise<number> {
  const peer = backEnd(direction, bytes);
  await peer.ready();
  const front = new Testpmd({
    vdevs: [`net_virtio_user0,path=${path},queues=1,queue_size=${RING_SIZE},packed_vq=${packed ? 1 : 0}`],
    forward: direction === 'up' ? 'txonly' : 'rxonly',
    more: [`--txpkts=${bytes}`, `--rxd=${RING_SIZE}`, `--txd=${RING_SIZE}`],
  });
  await front.ready();
  const result = await rate(
    () => new Promise((resolve) => setTimeout(resolve, 50)),
    async () => (direction === 'up' ? (await peer.counts()).rxPackets : (await front.counts()).rxPackets),
  );
  await front.stop();
  await peer.stop();
  rmSync(path, { force: true });
  return result;
}

await ensureDpdk();
for (const bytes of [64, 1514]) {
  for (const packed of [false, true]) {
    for (const direction of ['up', 'down'] as const) {
      const ours: number[] = [];
      const theirs: number[] = [];
      for (let round = 0; round < rounds; round++) {
        ours.push(await netemu(direction, packed, bytes));
        theirs.push(await dpdk(direction, packed, bytes));
      }
      const netemuMpps = median(ours) / 1e6;
      const dpdkMpps = median(theirs) / 1e6;
      report({
        bench: 'vhost-user-frontend',
        direction,
        ring: packed ? 'packed' : 'split',
        frameBytes: bytes,
        burst: BURST,
        netemuMpps,
        dpdkMpps,
        ratio: netemuMpps / dpdkMpps,
        // On a machine that others use, the best turn says more of the program.
        netemuBestMpps: Math.max(...ours) / 1e6,
        dpdkBestMpps: Math.max(...theirs) / 1e6,
        ...runtimeFacts(),
      });
    }
  }
}

/**
 * How many frames a second pass from one guest to another through Open vSwitch with DPDK, which serves the queues of both: two drivers' halves of virtio-net in this process, on RAM in files, and the switch, which
 * learns addresses and polls on a processor of its own. Split and packed rings, one and two queue pairs.
 *
 *     npx tsx bench/vhost-user-ovs.ts [seconds] [rounds]
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PacketBatch } from '../src/guest/driver/driver.ts';
import { VhostGuest } from '../test/lib/vhost-guest.ts';
import { ensureOvs, OpenVSwitch } from '../test/peers/lib/ovs.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const [seconds = 1, rounds = 3] = process.argv.slice(2).map(Number);
const BURST = 64;
const SLICE_BURSTS = 64;
const RING_SIZE = 1024;
const SENDER = [2, 0, 0, 0, 0, 1] as const;
const RECEIVER = [2, 0, 0, 0, 0, 2] as const;

const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** `BURST` frames in the guest's RAM, ready to be sent again and again. */
function burstOf(
  guest: VhostGuest,
  to: readonly number[],
  from: readonly number[],
  bytes: number,
): PacketBatch {
  const { ram } = guest.machine;
  const batch = new PacketBatch(BURST);
  const frames = ram.allocate(BURST * 2048, 64);
  for (let i = 0; i < BURST; i++) {
    const at = ram.offset(frames + 2048 * i);
    ram.bytes.set([...to, ...from, 0x88, 0xb5], at);
    batch.plain(i, frames + 2048 * i, bytes);
  }
  return batch;
}

async function turn(packed: boolean, queues: number, bytes: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-ovs-'));
  const ovs = await OpenVSwitch.start(folder);
  const guestOn = async (name: string): Promise<VhostGuest> => {
    const path = await ovs.addServerPort(name);
    const guest = await VhostGuest.make({
      path,
      queues,
      properties: { packed, rx_queue_size: RING_SIZE, tx_queue_size: RING_SIZE },
      driver: { polled: true, ringSize: RING_SIZE, indirect: false },
    });
    await guest.until(() => guest.nic.servedOutside);
    return guest;
  };
  const sender = await guestOn('vh0');
  const receiver = await guestOn('vh1');
  let received = 0;
  receiver.driver.listener = {
    received() {
      received++;
    },
    sent() {},
  };
  let answers = 0;
  sender.driver.listener = {
    received() {
      answers++;
    },
    sent() {},
  };
  const batch = burstOf(sender, RECEIVER, SENDER, bytes);
  const answer = burstOf(receiver, SENDER, RECEIVER, bytes);
  let pair = 0;
  const step = async (): Promise<void> => {
    for (let n = 0; n < SLICE_BURSTS; n++) {
      sender.driver.sendPair = pair = (pair + 1) % queues;
      sender.driver.send(batch, 0, BURST);
      receiver.driver.interrupt();
    }
    await pause();
  };
  // The switch learns both addresses, and has told its ports of their guests, when frames pass both ways.
  while (answers === 0 || received === 0) {
    sender.driver.send(batch, 0, 1);
    receiver.driver.send(answer, 0, 1);
    sender.driver.interrupt();
    receiver.driver.interrupt();
    await pause();
  }
  for (const end = performance.now() + 500; performance.now() < end; ) await step();
  const before = received;
  const start = performance.now();
  while (performance.now() - start < 1000 * seconds) await step();
  const rate = (received - before) / ((performance.now() - start) / 1000);
  sender.close();
  receiver.close();
  await ovs.stop();
  rmSync(folder, { recursive: true });
  return rate;
}

await ensureOvs();
for (const bytes of [64, 1514]) {
  for (const packed of [false, true]) {
    for (const queues of [1, 2]) {
      const rates: number[] = [];
      for (let round = 0; round < rounds; round++) rates.push(await turn(packed, queues, bytes));
      report({
        bench: 'vhost-user-ovs',
        ring: packed ? 'packed' : 'split',
        queuePairs: queues,
        frameBytes: bytes,
        burst: BURST,
        mpps: median(rates) / 1e6,
        bestMpps: Math.max(...rates) / 1e6,
        ...runtimeFacts(),
      });
    }
  }
}

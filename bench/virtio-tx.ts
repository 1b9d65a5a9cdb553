/**
 * How many frames a second does virtio-net send, with split and with packed rings? The driver's half puts two-part chains (packet header, packet) into the ring; the kick, the ring walk,
 * header checks, counters, used ring and interrupt are the full model; the peer reads each frame's first and last byte and releases it. `deviceOnly` leaves the driver out: a ring that was
 * filled once is made available again and again (for a packed ring by one copy a lap).
 *
 * The twin does the same work as plain objects: a descriptor object a frame, a fresh Uint8Array for its bytes, an array for the batch.
 *
 *     npx tsx bench/virtio-tx.ts
 */

import { LENGTH, NEXT, OFFSET, REGION } from '../src/core/pool.ts';
import { PacketBatch, SEGMENT_TCP4 } from '../src/guest/driver/driver.ts';
import { VirtioDriver } from '../src/guest/driver/virtio-driver.ts';
import { heapPerFrame, rates, tcpHeaders, twinTransmit } from './lib/e1000.ts';
import { report, runtimeFacts } from './lib/report.ts';
import { ReplayedQueue, RINGS, VirtioBench } from './lib/virtio.ts';

const RING = 1024;
const BATCH = 256;
const ROUNDS = 7;

/** Frames of one size: ns a frame with the driver, and of the driver's ring work alone. */
function measure(ring: string, length: number, segmentBytes: number): Record<string, number> {
  const bench = new VirtioBench(RINGS[ring]!);
  const { machine, nic } = bench;
  let touched = 0;
  const pool = machine.pool;
  const t = pool.table;
  bench.sink = (frames, from, to) => {
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      let last = frame;
      while (t[last + NEXT] !== 0) last = t[last + NEXT]!;
      touched +=
        pool.bytes[t[frame + OFFSET]!]! +
        pool.regions[t[last + REGION]!]![t[last + OFFSET]! + t[last + LENGTH]! - 1]!;
      pool.release(frame);
    }
    return to - from;
  };
  const driver = new VirtioDriver({ pci: nic, ram: machine.ram, loop: machine.loop, ringSize: RING });
  let sent = 0;
  driver.listener = {
    received() {},
    sent(count) {
      sent += count;
    },
  };
  driver.open();
  const batch = new PacketBatch(BATCH);
  const packets = segmentBytes === 0 ? BATCH : 16;
  for (let i = 0; i < packets; i++) {
    const address = machine.ram.allocate(length + 2, 64) + 2;
    machine.ram.bytes.set(tcpHeaders(length), machine.ram.offset(address));
    if (segmentBytes === 0) batch.plain(i, address, length);
    else batch.segmented(i, address, length, SEGMENT_TCP4, 34, 54, segmentBytes);
  }
  const frames = segmentBytes === 0 ? 400_000 : 20_000;
  const withDriver = (): void => {
    for (let done = 0; done < frames; done += packets) {
      driver.send(batch, 0, packets);
      driver.interrupt();
    }
  };
  const driven = rates(ROUNDS, frames, { withDriver });
  // What lies in RAM stays where it is.
  const mark = machine.ram.mark();
  driver.close();
  machine.ram.release(mark);
  const header = machine.ram.allocate(16, 16);
  if (segmentBytes !== 0) {
    const words = [1 | (1 << 8) | (54 << 16), segmentBytes | (34 << 16), 16];
    machine.ram.words.set(words, machine.ram.offset(header) / 4);
  }
  const queue = new ReplayedQueue(bench, 1, 2, (ring, slot) =>
    ring.putRead(slot, header, 12, batch.address[slot % packets]!, length),
  );
  const deviceOnly = (): void => {
    for (let done = 0; done < frames; done += packets) {
      queue.offer(packets);
      queue.kick();
    }
  };
  const alone = rates(ROUNDS, frames, { deviceOnly });
  const heap = heapPerFrame(frames, deviceOnly);
  const want = 2 * (1 + ROUNDS) * frames;
  if (sent === 0 || touched === 0 || nic.stats.txFrames < 0.99 * want) throw new Error('frames are missing');
  bench.close();
  return { ...driven, ...alone, heapBytesPer10kFrames: heap * 10_000 };
}

const rings: Record<string, Record<string, Record<string, number>>> = {};
for (const ring of Object.keys(RINGS)) {
  const sizes: Record<string, Record<string, number>> = {};
  for (const length of process.argv[2] ? [Number(process.argv[2])] : [60, 1514]) {
    const figures = measure(ring, length, 0);
    const twin = twinTransmit(length, 200_000, ROUNDS);
    sizes[length + 4] = {
      ...figures,
      framesPerSecond: 1e9 / figures.deviceOnly!,
      twinNs: twin,
      ratio: twin / figures.deviceOnly!,
    };
  }
  const tso = measure(ring, 65_054, 1460);
  sizes.tso64KiB = {
    ...tso,
    framesPerSecond: 1e9 / tso.deviceOnly!,
    gbitPerSecond: (65_054 * 8) / tso.deviceOnly!,
  };
  rings[ring] = sizes;
}
report({ bench: 'virtio-tx', ...runtimeFacts(), batch: BATCH, nsPerFrame: rings });

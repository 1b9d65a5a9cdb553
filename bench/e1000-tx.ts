/**
 * How many frames a second does the e1000 model send? The driver's half fills descriptors in guest RAM; the doorbell, the ring walk, filters,
 * counters, write-back and interrupt are the full model; the peer reads each frame's first and last header byte and releases it.
 * `device` leaves the driver out: the same ring, filled once, is sent again and again.
 *
 * The twin does the same work as plain objects: a descriptor object a frame, a fresh Uint8Array for its bytes, an array for the batch.
 *
 *     npx tsx bench/e1000-tx.ts
 */

import { LENGTH, NEXT, OFFSET, REGION } from '../src/core/pool.ts';
import { PacketBatch, SEGMENT_TCP4 } from '../src/guest/driver/driver.ts';
import { E1000Driver } from '../src/guest/driver/e1000-driver.ts';
import { E1000Bench, floorOf, heapPerFrame, rates, tcpHeaders, twinTransmit } from './lib/e1000.ts';
import { report, runtimeFacts } from './lib/report.ts';

const RING = 1024;
const BATCH = 256;
const ROUNDS = 7;

/** Frames of one size, driver included and device only. */
function measure(length: number, segmentBytes: number): Record<string, number> {
  const bench = new E1000Bench(RING);
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
  const driver = new E1000Driver({ pci: nic, ram: machine.ram, loop: machine.loop, ringSize: RING });
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
  // The ring as the driver left it holds packets in every descriptor: ring the doorbell a batch further each time.
  const deviceOnly = (): void => {
    let tail = nic.readBar(0, 0x3818, 4);
    for (let done = 0; done < frames; done += packets) {
      tail = (tail + packets) % RING;
      nic.writeBar(0, 0x3818, 4, tail);
      nic.readBar(0, 0xc0, 4);
    }
  };
  const result = rates(ROUNDS, frames, {
    withDriver,
    deviceOnly,
    floor: floorOf(bench, Math.min(length, 2048), frames),
  });
  const heap = heapPerFrame(frames, deviceOnly);
  if (sent === 0 || touched === 0) throw new Error('nothing was sent');
  driver.close();
  bench.close();
  return { ...result, heapBytesPer10kFrames: heap * 10_000 };
}

const sizes: Record<string, Record<string, number>> = {};
for (const length of process.argv[2] ? [Number(process.argv[2])] : [60, 1514]) {
  const figures = measure(length, 0);
  const twin = twinTransmit(length, 200_000, ROUNDS);
  sizes[length + 4] = {
    ...figures,
    framesPerSecond: 1e9 / figures.deviceOnly!,
    twinNs: twin,
    ratio: twin / figures.deviceOnly!,
    timesFloor: figures.deviceOnly! / figures.floor!,
  };
}
const tso = measure(65_054, 1460);
sizes.tso64KiB = {
  ...tso,
  framesPerSecond: 1e9 / tso.deviceOnly!,
  gbitPerSecond: (65_054 * 8) / tso.deviceOnly!,
};
report({ bench: 'e1000-tx', ...runtimeFacts(), batch: BATCH, nsPerFrame: sizes });

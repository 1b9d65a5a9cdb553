/**
 * How many frames a second does virtio-net receive, with split and with packed rings? A peer offers batches of frames that it allocates from the pool and fills with their headers; the
 * model filters, finds buffers, writes packet headers, copies the bytes, counts and interrupts; the driver's half looks at every packet and refills. `deviceOnly` leaves the driver out: a ring that
 * was filled once is made available again and again; `senderOnly` is what allocating and releasing the frames costs, which is in all figures but `net`. `gso` offers 64 KiB segments, each spread over 33 buffers.
 *
 *     npx tsx bench/virtio-rx.ts
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_CSUM_VALID,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_TCPV4,
  HEADER_LENGTH,
  OFFSET,
} from '../src/core/pool.ts';
import { VirtioDriver } from '../src/guest/driver/virtio-driver.ts';
import { heapPerFrame, rates, tcpHeaders, twinReceive } from './lib/e1000.ts';
import { report, runtimeFacts } from './lib/report.ts';
import { ReplayedQueue, RINGS, VirtioBench } from './lib/virtio.ts';

const RING = 1024;
const ROUNDS = 7;

function measure(ring: string, length: number, segmentBytes: number): Record<string, number> {
  const bench = new VirtioBench(RINGS[ring]!);
  const { machine, nic, peer } = bench;
  const pool = machine.pool;
  const t = pool.table;
  const batch = segmentBytes === 0 ? 64 : 8;
  const driver = new VirtioDriver({ pci: nic, ram: machine.ram, loop: machine.loop, ringSize: RING });
  let received = 0;
  let touched = 0;
  driver.listener = {
    received(address, size) {
      received++;
      touched += machine.ram.bytes[machine.ram.offset(address) + size - 1]!;
    },
    sent() {},
  };
  driver.open();
  const headers = tcpHeaders(60);
  const frames = Int32Array.from({ length: batch });
  const send = (offer: boolean): void => {
    for (let i = 0; i < batch; i++) {
      const frame = pool.alloc(length);
      const at = t[frame + OFFSET]!;
      for (let b = 0; b < 14; b++) pool.bytes[at + b] = headers[b]!;
      pool.setLength(frame, length);
      t[frame + FACTS] = FACT_CSUM_VALID;
      if (segmentBytes !== 0) {
        t[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_TCPV4 << 8);
        t[frame + GSO_SIZE] = segmentBytes;
        t[frame + HEADER_LENGTH] = 54;
        t[frame + CSUM_START] = 34;
        t[frame + CSUM_OFFSET] = 16;
      }
      frames[i] = frame;
    }
    if (!offer) return;
    const taken = peer.send(frames, 0, batch);
    if (taken !== batch) throw new Error(`${taken} of ${batch} frames were taken`);
  };
  // Slots hold whole packets, as a backend would leave them.
  const slots = length > pool.smallBytes ? 64 : 4096;
  const all = Int32Array.from({ length: slots }, () => pool.alloc(length));
  for (const frame of all) pool.bytes.set(tcpHeaders(length), t[frame + OFFSET]!);
  pool.releaseAll(all, 0, all.length);

  const count = segmentBytes === 0 ? 400_000 : 8_000;
  const withDriver = (): void => {
    for (let done = 0; done < count; done += batch) {
      send(true);
      driver.interrupt();
    }
  };
  const senderOnly = (): void => {
    for (let done = 0; done < count; done += batch) {
      send(false);
      pool.releaseAll(frames, 0, batch);
    }
  };
  const driven = rates(ROUNDS, count, { withDriver, senderOnly });
  // What lies in RAM stays where it is.
  const mark = machine.ram.mark();
  driver.close();
  machine.ram.release(mark);
  if (segmentBytes !== 0) {
    bench.close();
    if (received === 0 || touched < 0) throw new Error('nothing was received');
    return {
      ...driven,
      net: driven.withDriver! - driven.senderOnly!,
      deviceOnly: driven.withDriver! - driven.senderOnly!,
    };
  }
  const buffers = machine.ram.allocate(2048 * RING, 64);
  const queue = new ReplayedQueue(bench, 0, 1, (ring, slot) =>
    ring.putWrite(slot, buffers + 2048 * slot, 2048),
  );
  if (ring === 'split') queue.offer(batch);
  const deviceOnly = (): void => {
    for (let done = 0; done < count; done += batch) {
      send(true);
      queue.offer(batch);
      queue.kick();
    }
  };
  const alone = rates(ROUNDS, count, { deviceOnly });
  const heap = heapPerFrame(count, deviceOnly);
  if (received === 0 || touched < 0) throw new Error('nothing was received');
  bench.close();
  return {
    ...driven,
    net: driven.withDriver! - driven.senderOnly!,
    deviceOnly: alone.deviceOnly! - driven.senderOnly!,
    heapBytesPer10kFrames: heap * 10_000,
  };
}

const rings: Record<string, Record<string, Record<string, number>>> = {};
for (const ring of Object.keys(RINGS)) {
  const sizes: Record<string, Record<string, number>> = {};
  for (const length of process.argv[2] ? [Number(process.argv[2])] : [60, 1514]) {
    const figures = measure(ring, length, 0);
    const twin = twinReceive(length, 200_000, ROUNDS);
    sizes[length + 4] = {
      ...figures,
      framesPerSecond: 1e9 / figures.deviceOnly!,
      twinNs: twin,
      ratio: twin / figures.deviceOnly!,
    };
  }
  const gso = measure(ring, 65_054, 1460);
  sizes.gso64KiB = {
    ...gso,
    framesPerSecond: 1e9 / gso.deviceOnly!,
    gbitPerSecond: (65_054 * 8) / gso.deviceOnly!,
  };
  rings[ring] = sizes;
}
report({ bench: 'virtio-rx', ...runtimeFacts(), batch: 64, nsPerFrame: rings });

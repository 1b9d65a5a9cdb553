/**
 * How many frames a second does the e1000 model receive? A peer offers batches of frames that it allocates from the pool and fills with their headers;
 * the model filters, finds descriptors, copies the bytes into the guest's buffers, counts and interrupts; the ring is given back by one write of RDT.
 * `withDriver` has the driver's half look at every packet and refill. `checked` offers frames whose checksums nobody has verified, so the
 * model sums every byte (RXCSUM).
 *
 *     npx tsx bench/e1000-rx.ts
 */

import { FACT_CSUM_VALID, FACTS, OFFSET } from '../src/core/pool.ts';
import { E1000Driver } from '../src/guest/driver/e1000-driver.ts';
import { E1000Bench, floorOf, heapPerFrame, rates, tcpHeaders, twinReceive } from './lib/e1000.ts';
import { report, runtimeFacts } from './lib/report.ts';

const RING = 1024;
const BATCH = 64;
const ROUNDS = 7;

function measure(length: number): Record<string, number> {
  const bench = new E1000Bench(RING);
  const { machine, nic, peer } = bench;
  const pool = machine.pool;
  const t = pool.table;
  const driver = new E1000Driver({ pci: nic, ram: machine.ram, loop: machine.loop, ringSize: RING });
  let received = 0;
  let touched = 0;
  driver.listener = {
    received(address, size) {
      received++;
      touched += machine.ram.bytes[machine.ram.offset(address) + size - 1]!;
    },
    sent() {},
  };
  if (!driver.open()) throw new Error('the driver found no NIC');
  const headers = tcpHeaders(60);
  const frames = Int32Array.from({ length: BATCH });
  const send = (facts: number): void => {
    for (let i = 0; i < BATCH; i++) {
      const frame = pool.alloc(length);
      const at = t[frame + OFFSET]!;
      for (let b = 0; b < 14; b++) pool.bytes[at + b] = headers[b]!;
      pool.setLength(frame, length);
      t[frame + FACTS] = facts;
      frames[i] = frame;
    }
    const taken = peer.send(frames, 0, BATCH);
    if (taken !== BATCH) throw new Error(`${taken} of ${BATCH} frames were taken`);
  };
  // Slots hold whole packets, as a backend would leave them.
  const all = Int32Array.from({ length: 4096 }, () => pool.alloc(length));
  for (const frame of all) pool.bytes.set(tcpHeaders(length), t[frame + OFFSET]!);
  pool.releaseAll(all, 0, all.length);

  const count = 400_000;
  const withDriver = (): void => {
    for (let done = 0; done < count; done += BATCH) {
      send(FACT_CSUM_VALID);
      driver.interrupt();
    }
  };
  let tail = 0;
  const deviceOnly = (facts: number): void => {
    tail = nic.readBar(0, 0x2818, 4);
    for (let done = 0; done < count; done += BATCH) {
      send(facts);
      tail = (tail + BATCH) % RING;
      nic.readBar(0, 0xc0, 4);
      nic.writeBar(0, 0x2818, 4, tail);
    }
  };
  // Allocating and filling the frames is the sender's work: measured alone, and taken off.
  const senderOnly = (): void => {
    for (let done = 0; done < count; done += BATCH) {
      for (let i = 0; i < BATCH; i++) {
        const frame = pool.alloc(length);
        const at = t[frame + OFFSET]!;
        for (let b = 0; b < 14; b++) pool.bytes[at + b] = headers[b]!;
        pool.setLength(frame, length);
        t[frame + FACTS] = 0;
        frames[i] = frame;
      }
      pool.releaseAll(frames, 0, BATCH);
    }
  };
  // The driver first: the device alone leaves the ring's descriptors done.
  const result = rates(ROUNDS, count, { withDriver });
  Object.assign(
    result,
    rates(ROUNDS, count, {
      deviceOnly: () => deviceOnly(FACT_CSUM_VALID),
      checked: () => deviceOnly(0),
      senderOnly,
      floor: floorOf(bench, length, count),
    }),
  );
  const heap = heapPerFrame(count, () => deviceOnly(FACT_CSUM_VALID));
  if (received === 0 || touched < 0) throw new Error('nothing was received');
  driver.close();
  bench.close();
  return { ...result, heapBytesPer10kFrames: heap * 10_000 };
}

const sizes: Record<string, Record<string, number>> = {};
for (const length of process.argv[2] ? [Number(process.argv[2])] : [60, 1514]) {
  const figures = measure(length);
  const twin = twinReceive(length, 200_000, ROUNDS);
  sizes[length + 4] = {
    ...figures,
    framesPerSecond: 1e9 / figures.deviceOnly!,
    twinNs: twin,
    ratio: twin / figures.deviceOnly!,
    timesFloor: (figures.deviceOnly! - (figures.senderOnly ?? 0)) / figures.floor!,
  };
}
report({ bench: 'e1000-rx', ...runtimeFacts(), batch: BATCH, nsPerFrame: sizes });

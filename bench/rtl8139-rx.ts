/**
 * How many frames a second does the rtl8139 model receive? A peer offers batches of frames that it allocates from the pool and fills with their headers; the
 * model filters, finds room, copies the bytes into guest RAM, counts and interrupts. `withDriver` has the driver's half look at every packet and give its place back;
 * `deviceOnly` (C+) gives the ring's descriptors back by one loop. `senderOnly` is the peer's own work, which is in every other figure.
 *
 * The twin does the same work as plain objects: a fresh Uint8Array for each frame, a descriptor object for each place.
 *
 *     npx tsx bench/rtl8139-rx.ts
 */

import { FACT_CSUM_VALID, FACTS, OFFSET } from '../src/core/pool.ts';
import { Rtl8139Driver } from '../src/guest/driver/rtl8139-driver.ts';
import { floorOf, heapPerFrame, rates, tcpHeaders, twinReceive } from './lib/e1000.ts';
import { report, runtimeFacts } from './lib/report.ts';
import { Rtl8139Bench } from './lib/rtl8139.ts';

const BATCH = 16;
const RING = 64;
const ROUNDS = 7;
const OWN = 1 << 31;
const BUFFER_BYTES = 2048;
const EOR = 1 << 30;
const RDSAR = 0xe4;
const ISR = 0x3e;

function measure(chip: '8139c+' | '8139c', length: number): Record<string, number> {
  const bench = new Rtl8139Bench(chip);
  const { machine, nic, peer } = bench;
  const { pool } = machine;
  const t = pool.table;
  const driver = new Rtl8139Driver({ pci: nic, ram: machine.ram, loop: machine.loop });
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
  const frames = new Int32Array(BATCH);
  const fill = (): void => {
    for (let i = 0; i < BATCH; i++) {
      const frame = pool.alloc(length);
      const at = t[frame + OFFSET]!;
      for (let b = 0; b < 14; b++) pool.bytes[at + b] = headers[b]!;
      pool.setLength(frame, length);
      t[frame + FACTS] = FACT_CSUM_VALID;
      frames[i] = frame;
    }
  };
  const send = (): void => {
    fill();
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
      send();
      driver.interrupt();
    }
  };
  const senderOnly = (): void => {
    for (let done = 0; done < count; done += BATCH) {
      fill();
      pool.releaseAll(frames, 0, BATCH);
    }
  };
  const result = rates(ROUNDS, count, { withDriver, senderOnly, floor: floorOf(bench, length, count) });
  let measured = withDriver;
  if (chip === '8139c+') {
    const words = machine.ram.words;
    const ring = machine.ram.offset(nic.readBar(1, RDSAR, 4)) >> 2;
    let next = nic.saveState().rxIndex;
    const deviceOnly = (): void => {
      for (let done = 0; done < count; done += BATCH) {
        send();
        for (let i = 0; i < BATCH; i++) {
          words[ring + 4 * next] = OWN | (next === RING - 1 ? EOR : 0) | BUFFER_BYTES;
          next = (next + 1) & (RING - 1);
        }
        nic.writeBar(1, ISR, 2, 0xffff);
      }
    };
    Object.assign(result, rates(ROUNDS, count, { deviceOnly }));
    measured = deviceOnly;
  }
  result.heapBytesPer10kFrames = heapPerFrame(count, measured) * 10_000;
  if (received === 0 || touched < 0) throw new Error('nothing was received');
  driver.close();
  bench.close();
  return result;
}

const figures: Record<string, Record<string, number>> = {};
for (const length of process.argv[2] ? [Number(process.argv[2])] : [60, 1514]) {
  const twin = twinReceive(length, 200_000, ROUNDS);
  for (const chip of ['8139c+', '8139c'] as const) {
    const result = measure(chip, length);
    const ns = result.deviceOnly ?? result.withDriver!;
    figures[`${chip} ${length + 4}`] = {
      ...result,
      framesPerSecond: 1e9 / ns,
      twinNs: twin,
      ratio: twin / ns,
    };
  }
}
report({ bench: 'rtl8139-rx', ...runtimeFacts(), batch: BATCH, nsPerFrame: figures });

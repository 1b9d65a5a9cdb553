/**
 * How many frames a second does the rtl8139 model send? The driver's half fills descriptors in guest RAM (C+: rings of 64, one doorbell for 32 frames; classic: four
 * buffers, a register write a frame); the doorbell, the walk, counters, completion and interrupt are the full model; the peer reads each frame's first
 * and last byte and releases it. `deviceOnly` leaves the driver's part to one loop that gives the same descriptors back.
 *
 * The twin does the same work as plain objects: a descriptor object a frame, a fresh Uint8Array for its bytes, an array for the batch.
 *
 *     npx tsx bench/rtl8139-tx.ts
 */

import { LENGTH, NEXT, OFFSET, REGION } from '../src/core/pool.ts';
import { PacketBatch, SEGMENT_TCP4 } from '../src/guest/driver/driver.ts';
import { Rtl8139Driver } from '../src/guest/driver/rtl8139-driver.ts';
import { floorOf, heapPerFrame, rates, tcpHeaders, twinTransmit } from './lib/e1000.ts';
import { report, runtimeFacts } from './lib/report.ts';
import { Rtl8139Bench } from './lib/rtl8139.ts';

const BATCH = 32;
const RING = 64;
const ROUNDS = 7;
const OWN = 1 << 31;
const LGSEN = 1 << 27;
const TNPDS = 0x20;
const ISR = 0x3e;
const TPPOLL = 0xd9;
const TPPOLL_NPQ = 0x40;

function measure(chip: '8139c+' | '8139c', length: number, segmentBytes: number): Record<string, number> {
  const bench = new Rtl8139Bench(chip);
  const { machine, nic } = bench;
  const { pool } = machine;
  const t = pool.table;
  let touched = 0;
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
  const driver = new Rtl8139Driver({ pci: nic, ram: machine.ram, loop: machine.loop });
  let sent = 0;
  driver.listener = {
    received() {},
    sent(count) {
      sent += count;
    },
  };
  if (!driver.open()) throw new Error('the driver found no NIC');
  const batch = new PacketBatch(BATCH);
  const packets = chip === '8139c' ? 4 : segmentBytes === 0 ? BATCH : 16;
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
      // Lent frames are completed in the loop's next turn.
      if (segmentBytes !== 0) machine.loop.run();
    }
  };
  const ways: Record<string, () => void> = { withDriver };
  if (chip === '8139c+') {
    ways.floor = floorOf(bench, length, frames);
    const result = rates(ROUNDS, frames, ways);
    // Every descriptor of the ring holds a packet: the device is given a batch of them again and again.
    const words = machine.ram.words;
    const ring = machine.ram.offset(nic.readBar(1, TNPDS, 4)) >> 2;
    for (let i = 0; i < RING; i++) {
      driver.send(batch, 0, 1);
      driver.interrupt();
    }
    machine.loop.run();
    driver.interrupt();
    // A completed descriptor has lost what it asked for.
    const asked = OWN | (segmentBytes === 0 ? 0 : LGSEN | (segmentBytes << 16));
    const commands = Int32Array.from({ length: RING }, (_, i) => words[ring + 4 * i]! | asked);
    let next = nic.saveState().tx.rings[0]!.index;
    const deviceOnly = (): void => {
      for (let done = 0; done < frames; done += packets) {
        for (let i = 0; i < packets; i++) {
          words[ring + 4 * next] = commands[next]!;
          next = (next + 1) & (RING - 1);
        }
        nic.writeBar(1, TPPOLL, 1, TPPOLL_NPQ);
        nic.writeBar(1, ISR, 2, 0xffff);
        if (segmentBytes !== 0) machine.loop.run();
      }
    };
    Object.assign(result, rates(ROUNDS, frames, { deviceOnly }));
    const before = nic.stats.txFrames;
    deviceOnly();
    if (nic.stats.txFrames - before < frames) throw new Error('frames were left out');
    result.heapBytesPer10kFrames = heapPerFrame(frames, deviceOnly) * 10_000;
    finish();
    return result;
  }
  const result = rates(ROUNDS, frames, ways);
  result.heapBytesPer10kFrames = heapPerFrame(frames, withDriver) * 10_000;
  finish();
  return result;

  function finish(): void {
    if (sent === 0 || touched === 0) throw new Error('nothing was sent');
    machine.loop.run();
    driver.close();
    bench.close();
  }
}

const figures: Record<string, Record<string, number>> = {};
for (const length of process.argv[2] ? [Number(process.argv[2])] : [60, 1514]) {
  const twin = twinTransmit(length, 200_000, ROUNDS);
  const plus = measure('8139c+', length, 0);
  figures[`C+ ${length + 4}`] = {
    ...plus,
    framesPerSecond: 1e9 / plus.deviceOnly!,
    twinNs: twin,
    ratio: twin / plus.deviceOnly!,
  };
  const classic = measure('8139c', length, 0);
  figures[`classic ${length + 4}`] = {
    ...classic,
    framesPerSecond: 1e9 / classic.withDriver!,
    twinNs: twin,
    ratio: twin / classic.withDriver!,
  };
}
const large = measure('8139c+', 65_054, 1460);
figures['C+ 64 KiB large send'] = {
  ...large,
  framesPerSecond: 1e9 / large.deviceOnly!,
  gbitPerSecond: (65_054 * 8) / large.deviceOnly!,
};
report({ bench: 'rtl8139-tx', ...runtimeFacts(), batch: BATCH, nsPerFrame: figures });

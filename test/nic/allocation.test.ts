/**
 * The data path of the ring models allocates nothing on the heap for a frame, once it is compiled. (virtio-net's has a file of its own, for its kinds of ring.) A frame that cost one small object would grow the heap by megabytes in a
 * run; what is left is the noise of the test runner. A run in which memory was collected tells nothing and is repeated.
 */
import { describe, expect, it } from 'vitest';
import { FACT_CSUM_VALID, FACTS } from '../../src/core/pool.ts';
import { PacketBatch } from '../../src/guest/driver/driver.ts';
import { E1000Rig } from '../lib/e1000-rig.ts';
import { BYTES_PER_FRAME_MAX, heapGrowthPerFrame } from '../lib/heap.ts';
import { MAC, testFrame } from '../lib/nic-rig.ts';
import { Rtl8139Rig } from '../lib/rtl8139-rig.ts';

const FRAMES = 100_000;
const BATCH = 50;

const RIGS = [
  ['e1000', () => new E1000Rig({ ringSize: 128, debug: false })],
  ['rtl8139', () => new Rtl8139Rig({ debug: false })],
] as const;

describe.each(RIGS)('heap allocation, %s', (_name, make) => {
  for (const length of [60, 1514]) {
    it(`is none for a transmitted or received frame of ${length} bytes`, () => {
      const rig = make();
      const { machine, driver } = rig;
      machine.onInterrupt = null;
      // A peer that only lets go.
      machine.peer.receive = (frames, from, to) => {
        machine.pool.releaseAll(frames, from, to);
        return to - from;
      };
      let received = 0;
      driver.listener = {
        received() {
          received++;
        },
        sent() {},
      };
      const batch = new PacketBatch(BATCH);
      for (let i = 0; i < BATCH; i++) batch.plain(i, rig.packet(length), length);
      const transmit = (): void => {
        for (let done = 0; done < FRAMES; done += BATCH) {
          driver.send(batch, 0, BATCH);
          driver.interrupt();
        }
      };
      const frame = testFrame(length);
      frame.set(MAC, 0);
      const frames = new Int32Array(BATCH);
      const t = machine.pool.table;
      const receive = (): void => {
        for (let done = 0; done < FRAMES; done += BATCH) {
          for (let i = 0; i < BATCH; i++) {
            const one = machine.pool.alloc(length);
            machine.pool.setLength(one, length);
            t[one + FACTS] = FACT_CSUM_VALID;
            frames[i] = one;
          }
          machine.peer.port.send(frames, 0, BATCH);
          driver.interrupt();
        }
      };
      expect(heapGrowthPerFrame(FRAMES, transmit)).toBeLessThan(BYTES_PER_FRAME_MAX);
      expect(rig.nic.stats.txFrames).toBeGreaterThan(FRAMES);
      // Slots keep their bytes: the frame is put into them once.
      const all = Int32Array.from({ length: machine.pool.freeSmall }, () => machine.pool.from(frame));
      machine.pool.releaseAll(all, 0, all.length);
      expect(heapGrowthPerFrame(FRAMES, receive)).toBeLessThan(BYTES_PER_FRAME_MAX);
      machine.loop.run();
      rig.close();
      expect(rig.nic.stats.rxFrames).toBeGreaterThan(FRAMES);
      expect(received).toBe(rig.nic.stats.rxFrames);
    });
  }
});

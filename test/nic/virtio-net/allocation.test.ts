/**
 * The data path allocates nothing on the heap for a frame, once it is compiled. (Received frames of more than 512 bytes cost the view that the engine's own copy needs, because the
 * packet header puts them 4 bytes beside a multiple of 8: see core/copy.ts.) A run in which memory was collected tells nothing and is repeated.
 */
import { describe, expect, it } from 'vitest';
import { FACT_CSUM_VALID, FACTS } from '../../../src/core/pool.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { BYTES_PER_FRAME_MAX, heapGrowthPerFrame } from '../../lib/heap.ts';
import { Rig } from './rig.ts';

const FRAMES = 100_000;
const BATCH = 50;

describe.each([{ packed: false }, { packed: true }])('heap allocation, %j', (properties) => {
  const setUp = (): Rig => {
    const rig = new Rig({ properties, debug: false });
    rig.machine.onInterrupt = null;
    rig.machine.peer.receive = (frames, from, to) => {
      rig.machine.pool.releaseAll(frames, from, to);
      return to - from;
    };
    rig.driver.listener = { received() {}, sent() {} };
    return rig;
  };

  it.each([60, 1514])('is none for a transmitted frame of %i bytes', (length) => {
    const rig = setUp();
    const batch = new PacketBatch(BATCH);
    for (let i = 0; i < BATCH; i++) batch.plain(i, rig.packet(length), length);
    const transmit = (): void => {
      for (let done = 0; done < FRAMES; done += BATCH) {
        rig.driver.send(batch, 0, BATCH);
        rig.driver.interrupt();
      }
    };
    expect(heapGrowthPerFrame(FRAMES, transmit)).toBeLessThan(BYTES_PER_FRAME_MAX);
    expect(rig.nic.stats.txFrames).toBeGreaterThan(FRAMES);
    rig.close();
  });

  it('is none for a received frame of 60 bytes', () => {
    const rig = setUp();
    const { pool, peer } = rig.machine;
    const frames = new Int32Array(BATCH);
    const good = rig.frame(60);
    const all = Array.from({ length: pool.freeSmall }, () => pool.from(good));
    for (const frame of all) pool.release(frame);
    const receive = (): void => {
      for (let done = 0; done < FRAMES; done += BATCH) {
        for (let i = 0; i < BATCH; i++) {
          const one = pool.alloc(60);
          pool.setLength(one, 60);
          pool.table[one + FACTS] = FACT_CSUM_VALID;
          frames[i] = one;
        }
        peer.port.send(frames, 0, BATCH);
        rig.driver.interrupt();
      }
    };
    expect(heapGrowthPerFrame(FRAMES, receive)).toBeLessThan(BYTES_PER_FRAME_MAX);
    expect(rig.nic.stats.rxFrames).toBeGreaterThan(FRAMES);
    rig.close();
  });
});

import { VirtualClock } from '../../src/core/clock.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool, type PoolOptions } from '../../src/core/pool.ts';
import type { Adapt, LinkContext } from '../../src/core/port.ts';

const refuse: Adapt = () => {
  throw new Error('nothing in this bench needs offloads done');
};

export function benchContext(options: PoolOptions = {}, adapt: Adapt = refuse): LinkContext {
  return { pool: new FramePool(options), loop: new Loop(new VirtualClock()), adapt };
}

import { parentPort, workerData } from 'node:worker_threads';
import { FramePool, OFFSET, type SharedPool, TOTAL } from '../../src/core/pool.ts';
import { SharedRing } from '../../src/core/ring.ts';

interface Work {
  pool: SharedPool;
  outbound: Int32Array;
  returns: Int32Array;
  count: number;
}

const work = workerData as Work;
const outbound = new SharedRing(work.outbound);
const returns = new SharedRing(work.returns);
const pool = FramePool.attach(work.pool, returns);
const batch = new Int32Array(32);
let sum = 0;
for (let done = 0; done < work.count; ) {
  outbound.wait(1000);
  const count = outbound.pop(batch, 32);
  for (let i = 0; i < count; i++) {
    const frame = batch[i]!;
    const at = pool.table[frame + OFFSET]!;
    for (let b = 0; b < pool.table[frame + TOTAL]!; b++) sum += pool.bytes[at + b]!;
    sum += pool.table[frame + TOTAL]!;
    pool.release(frame);
  }
  returns.wake();
  done += count;
}
parentPort?.postMessage(sum);

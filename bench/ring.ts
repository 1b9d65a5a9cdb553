/**
 * One hop through a ring of frame numbers, in one thread: core/ring.ts (plain and shared-memory), against the obvious twin, an Array of
 * frame objects with push and shift. One JSON line; target: ring and port together at least 50 M frames/s a core.
 */
import { Ring, SharedRing } from '../src/core/ring.ts';
import { nsPerItem } from './lib/micro.ts';
import { report, runtimeFacts } from './lib/report.ts';

const BATCH = 64;
const frames = Int32Array.from({ length: BATCH }, (_, i) => (i + 1) * 16);
const out = new Int32Array(BATCH);
const ring = new Ring(256);
const shared = new SharedRing(256);
const objects = Array.from({ length: BATCH }, (_, i) => ({ offset: i * 2048, length: 64 }));
const queue: { offset: number; length: number }[] = [];
let sum = 0;

const ns = nsPerItem(
  {
    ring() {
      ring.push(frames, 0, BATCH);
      const count = ring.pop(out, BATCH);
      for (let i = 0; i < count; i++) sum = (sum + out[i]!) | 0;
    },
    sharedRing() {
      shared.pushAll(frames, 0, BATCH);
      const count = shared.pop(out, BATCH);
      for (let i = 0; i < count; i++) sum = (sum + out[i]!) | 0;
    },
    arrayOfObjects() {
      for (const object of objects) queue.push(object);
      for (let i = 0; i < BATCH; i++) sum = (sum + queue.shift()!.offset) | 0;
    },
  },
  BATCH,
);

report({
  bench: 'ring',
  ...runtimeFacts(),
  batch: BATCH,
  nsPerFrame: ns,
  millionPerSecond: 1000 / ns.ring!,
  ratioToArray: ns.arrayOfObjects! / ns.ring!,
  checksum: sum,
});

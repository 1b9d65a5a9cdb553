/** Makes netdevs and takes them away a thousand times, and looks at what is left. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'vitest';
import type { Backend } from '../../src/backends/backend.ts';
import type { BackendLab } from './lab.ts';

const WARM_UP = 200;
const CYCLES = 1000;

/** Collects garbage, after what Node closes in later turns is closed. */
async function collect(): Promise<void> {
  for (let turns = 0; turns < 50; turns++) await new Promise((resolve) => setImmediate(resolve));
  setFlagsFromString('--expose_gc');
  (runInNewContext('gc') as () => void)();
}

/** `open` makes the netdevs of one cycle; `lab.end` then checks frames, descriptors and files. */
export async function thousandCycles(
  lab: BackendLab,
  open: (i: number) => Promise<readonly Backend[]>,
): Promise<void> {
  const cycle = async (i: number): Promise<void> => {
    const backends = await open(i);
    lab.settle();
    for (const backend of backends) lab.forget(backend);
  };
  for (let i = 0; i < WARM_UP; i++) await cycle(i);
  await collect();
  const before = process.memoryUsage();
  for (let i = WARM_UP; i < CYCLES; i++) await cycle(i);
  await collect();
  const after = process.memoryUsage();
  expect(lab.hostIo.stats().openHandles).toBe(0);
  expect(lab.link.loop.nextNs, 'timers left').toBe(Number.POSITIVE_INFINITY);
  expect(after.arrayBuffers + after.external - before.arrayBuffers - before.external).toBeLessThan(4 << 20);
  // Less than 2 KB a cycle: a kept backend would be more.
  expect(after.heapUsed - before.heapUsed).toBeLessThan((CYCLES - WARM_UP) * 2048);
  expect(after.rss - before.rss).toBeLessThan(64 << 20);
}

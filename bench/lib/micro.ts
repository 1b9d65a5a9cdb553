/**
 * Micro-benchmarks by benchmark.js: each case is a function that moves one burst; cases run in turn for several rounds, and the median of
 * the rounds counts, so that a slow spell of the machine hits all alike.
 */
import Benchmark from 'benchmark';
import { median } from './report.ts';

/** Nanoseconds per item for each case; `items` is how many one call moves (an operation must last at least a microsecond). */
export function nsPerItem(
  cases: Record<string, () => void>,
  items: number,
  rounds = 5,
): Record<string, number> {
  const samples: Record<string, number[]> = {};
  for (let round = 0; round < rounds; round++) {
    for (const [name, fn] of Object.entries(cases)) {
      const bench = new Benchmark(name, fn, { maxTime: 0.3, minSamples: 3 });
      bench.run();
      const failure = (bench as unknown as { error?: Error }).error;
      if (failure !== undefined) throw failure;
      (samples[name] ??= []).push((bench.stats.mean * 1e9) / items);
    }
  }
  return Object.fromEntries(Object.entries(samples).map(([name, list]) => [name, median(list)]));
}

/** Bytes of heap that `fn` leaves behind per call in steady state; run with --expose-gc. */
export function heapPerCall(fn: () => void, calls = 10_000): number {
  const collect = (globalThis as { gc?: () => void }).gc;
  if (collect === undefined) throw new Error('run with node --expose-gc');
  for (let i = 0; i < calls; i++) fn();
  collect();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < calls; i++) fn();
  return Math.max(0, process.memoryUsage().heapUsed - before) / calls;
}

/** One run: steps a workload for a time or a count, letting the host's events in between, and samples its rate. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Workload } from './workload.ts';

export interface Sample {
  /** Since the run began. */
  seconds: number;
  framesPerSecond: number;
}

export interface Measurement {
  name: string;
  direction: string;
  frameBytes: number;
  batch: number;
  seconds: number;
  frames: number;
  bytes: number;
  framesPerSecond: number;
  bitsPerSecond: number;
  nsPerFrame: number;
  /** Seconds of processor time that this process used. */
  cpuSeconds: number;
  cpuNsPerFrame: number;
  drops: Record<string, number>;
  samples: Sample[];
}

const SLICE_MS = 4;
const SAMPLE_MS = 250;

export async function measure(
  workload: Workload,
  what: { name: string; direction: string; frameBytes: number; batch: number },
  limit: { seconds: number; count: number | undefined },
  onSample: (sample: Sample) => void,
): Promise<Measurement> {
  // A few turns first: the compiler has seen the code, pools and caches are warm, and links are up.
  for (let i = 0; i < 50; i++) {
    for (let k = 0; k < 20; k++) workload.step();
    await nextTurn();
  }
  const before = workload.drops();
  const framesBefore = workload.frames;
  const bytesBefore = workload.bytes;
  const cpuBefore = process.cpuUsage();
  const startMs = performance.now();
  const samples: Sample[] = [];
  let sampleMs = startMs;
  let sampleFrames = framesBefore;
  for (;;) {
    const nowMs = performance.now();
    const frames = workload.frames - framesBefore;
    if (nowMs - sampleMs >= SAMPLE_MS) {
      const framesPerSecond = ((workload.frames - sampleFrames) * 1000) / (nowMs - sampleMs);
      const sample = { seconds: (nowMs - startMs) / 1000, framesPerSecond };
      samples.push(sample);
      onSample(sample);
      sampleMs = nowMs;
      sampleFrames = workload.frames;
    }
    if (limit.count === undefined ? nowMs - startMs >= limit.seconds * 1000 : frames >= limit.count) break;
    if (limit.count !== undefined && nowMs - startMs >= 600_000) break;
    const sliceEnd = nowMs + SLICE_MS;
    const target = limit.count === undefined ? Number.POSITIVE_INFINITY : framesBefore + limit.count;
    while (performance.now() < sliceEnd && workload.frames < target) if (!workload.step()) break;
    await nextTurn();
  }
  const seconds = (performance.now() - startMs) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  const cpuSeconds = (cpu.user + cpu.system) / 1e6;
  const frames = workload.frames - framesBefore;
  const bytes = workload.bytes - bytesBefore;
  const drops: Record<string, number> = {};
  for (const [cause, value] of Object.entries(workload.drops())) {
    if (value > (before[cause] ?? 0)) drops[cause] = value - (before[cause] ?? 0);
  }
  return {
    ...what,
    seconds,
    frames,
    bytes,
    framesPerSecond: frames / seconds,
    bitsPerSecond: (8 * bytes) / seconds,
    nsPerFrame: frames === 0 ? Number.NaN : (seconds * 1e9) / frames,
    cpuSeconds,
    cpuNsPerFrame: frames === 0 ? Number.NaN : (cpuSeconds * 1e9) / frames,
    drops,
    samples,
  };
}

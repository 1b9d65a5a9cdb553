/**
 * What does a UDP frame cost through host I/O, send and receive together, over the loopback in one process? Three ways, alternating,
 * medians of five rounds: `native` (a system call a batch, sizes that rise so that nothing can be grouped), `grouped` (equal sizes:
 * UDP_SEGMENT one way, UDP_GRO the other), and `portable` (Node's dgram), which is the peer. Every frame is counted and its first bytes are
 * compared; a lost one fails the bench.
 */

import { FramePool, GSO_SIZE, OFFSET, TOTAL } from '../src/core/pool.ts';
import { type HostIo, READABLE } from '../src/host-io/host-io.ts';
import { createHostIo } from '../src/host-io/index.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const BATCH = 64;
const ROUNDS = 5;
const FRAME_BYTES = 64;

interface Way {
  name: string;
  host: HostIo;
  pool: FramePool;
  batches: number;
  sizes: number[];
  gro: boolean;
}

function way(
  name: string,
  implementation: 'native' | 'portable',
  batches: number,
  sizes: number[],
  gro: boolean,
): Way {
  const host = createHostIo({ implementation });
  const pool = new FramePool({ smallSlots: 4 * BATCH, largeSlots: 16, bareRecords: 16 });
  host.attachPool(pool);
  return { name, host, pool, batches, sizes, gro };
}

/** Sends and receives all batches; returns nanoseconds a frame by the wall and by the processor. */
async function run({ host, pool, batches, sizes, gro, name }: Way): Promise<{ ns: number; cpuNs: number }> {
  const server = host.udpOpen({ local: { address: '127.0.0.1', port: 0 }, gro });
  const client = host.udpOpen({ remote: host.localEndpoint(server) });
  const sent = Int32Array.from(sizes, (size, i) => pool.from(new Uint8Array(size).fill(i + 1)));
  const slots = Int32Array.from({ length: gro ? 8 : BATCH }, () =>
    gro ? pool.allocLarge() : pool.alloc(2048),
  );
  const t = pool.table;
  let received = 0;
  let bad = 0;

  const take = (): number => {
    const got = host.receiveDatagrams(server, slots, 0, slots.length, 0);
    for (let i = 0; i < got; i++) {
      const frame = slots[i]!;
      const total = t[frame + TOTAL]!;
      const size = t[frame + GSO_SIZE]! > 0 && gro ? t[frame + GSO_SIZE]! : total;
      for (let at = 0; at < total; at += size) {
        if (pool.bytes[t[frame + OFFSET]! + at] !== (received % BATCH) + 1) bad++;
        received++;
      }
    }
    return got;
  };

  const startCpu = process.cpuUsage();
  const start = process.hrtime.bigint();
  for (let batch = 0; batch < batches; batch++) {
    const target = (batch + 1) * BATCH;
    for (let from = 0; from < BATCH; ) {
      const count = host.sendDatagrams(client, sent, from, BATCH);
      if (count > 0) from += count;
      else await new Promise<void>((resolve) => setImmediate(resolve));
    }
    while (received < target) {
      if (take() > 0) continue;
      await new Promise<void>((resolve) => {
        host.watch(server, READABLE, () => {
          host.setInterest(server, 0);
          resolve();
        });
      });
    }
  }
  const frames = batches * BATCH;
  const ns = Number(process.hrtime.bigint() - start) / frames;
  const cpu = process.cpuUsage(startCpu);
  if (bad > 0 || received !== frames)
    throw new Error(`${name}: ${received} of ${frames} frames, ${bad} of them wrong`);
  host.close(server);
  host.close(client);
  pool.releaseAll(sent, 0, sent.length);
  pool.releaseAll(slots, 0, slots.length);
  return { ns, cpuNs: ((cpu.user + cpu.system) * 1000) / frames };
}

const rising = Array.from({ length: BATCH }, (_, i) => FRAME_BYTES - BATCH / 2 + i);
const equal = new Array<number>(BATCH).fill(FRAME_BYTES);
const ways = [
  way('native', 'native', 1500, rising, false),
  way('grouped', 'native', 15_000, equal, true),
  way('portable', 'portable', 200, equal, false),
];
const figures = new Map(ways.map(({ name }) => [name, { ns: [] as number[], cpuNs: [] as number[] }]));
for (let round = 0; round <= ROUNDS; round++) {
  for (const each of ways) {
    const { ns, cpuNs } = await run(each);
    // The first round warms up.
    if (round > 0) figures.get(each.name)!.ns.push(ns);
    if (round > 0) figures.get(each.name)!.cpuNs.push(cpuNs);
  }
}
for (const { host } of ways) host.shutdown();

const nsOf = (name: string): number => median(figures.get(name)!.ns);
report({
  bench: 'host-io-udp',
  ...runtimeFacts(),
  frameBytes: FRAME_BYTES,
  batch: BATCH,
  nativeNsPerFrame: nsOf('native'),
  groupedNsPerFrame: nsOf('grouped'),
  portableNsPerFrame: nsOf('portable'),
  nativeCpuNsPerFrame: median(figures.get('native')!.cpuNs),
  groupedCpuNsPerFrame: median(figures.get('grouped')!.cpuNs),
  portableCpuNsPerFrame: median(figures.get('portable')!.cpuNs),
  nativeFramesPerSecond: Math.round(1e9 / nsOf('native')),
  ratioNativeToPortable: nsOf('portable') / nsOf('native'),
  ratioGroupedToNative: nsOf('native') / nsOf('grouped'),
});

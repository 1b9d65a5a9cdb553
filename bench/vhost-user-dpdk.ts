/**
 * How many frames a second pass between a virtio_user of DPDK's, in the place of a guest, and netemu as its vhost-user back-end, next to DPDK's own back-end
 * (net_vhost) under the same load? Both are counted by the same front-end, in turns: `tx` is what it sends, `rx` what it receives. netemu's end takes each frame, touches it and frees it, or allocates
 * each frame and writes its header, as testpmd's does.
 *
 *     npx tsx bench/vhost-user-dpdk.ts [ROUNDS [QUEUES [RINGS]]]
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureDpdk, Testpmd } from '../test/peers/lib/dpdk.ts';
import { median, report, runtimeFacts } from './lib/report.ts';
import { VhostUserEnd } from './lib/vhost-user-end.ts';

const ROUNDS = Number(process.argv[2] ?? 3);
const QUEUES = Number(process.argv[3] ?? 1);
const RINGS = (process.argv[4] ?? 'split,packed').split(',');
const SIZES = [64, 1514] as const;
/** Traffic before the window is measured: V8 compiles what is hot meanwhile. */
const WARM_UP_MS = 1500;
const WINDOW_MS = 1000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface BackEnd {
  /** The front-end is about to send, or to be sent frames of this length. */
  load(direction: 'tx' | 'rx', length: number): Promise<void>;
  close(): Promise<void>;
}

class NetemuEnd implements BackEnd {
  readonly #end: VhostUserEnd;

  private constructor(end: VhostUserEnd) {
    this.#end = end;
  }

  static async make(path: string): Promise<NetemuEnd> {
    return new NetemuEnd(await VhostUserEnd.make(path, QUEUES));
  }

  load(direction: 'tx' | 'rx', length: number): Promise<void> {
    this.#end.send(direction === 'rx' ? length : 0);
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.#end.close();
  }
}

class DpdkEnd implements BackEnd {
  readonly #testpmd: Testpmd;

  private constructor(path: string) {
    this.#testpmd = new Testpmd({
      vdevs: [`net_vhost0,iface=${path},queues=${QUEUES}`],
      queues: QUEUES,
      forward: 'rxonly',
    });
  }

  static async make(path: string): Promise<DpdkEnd> {
    const end = new DpdkEnd(path);
    await end.#testpmd.ready();
    return end;
  }

  async load(direction: 'tx' | 'rx', length: number): Promise<void> {
    await forward(this.#testpmd, direction === 'tx' ? 'rxonly' : 'txonly', length);
  }

  async close(): Promise<void> {
    await this.#testpmd.stop();
  }
}

async function forward(testpmd: Testpmd, mode: string, length: number): Promise<void> {
  await testpmd.command('stop');
  await testpmd.command(`set fwd ${mode}`);
  await testpmd.command(`set txpkts ${length}`);
  await testpmd.command('start');
}

/** Frames a second, in millions, by load. */
async function session(back: BackEnd, path: string, ring: string): Promise<Record<string, number>> {
  const packed = ring === 'packed' ? 1 : 0;
  const front = new Testpmd({
    vdevs: [`net_virtio_user0,path=${path},queues=${QUEUES},queue_size=1024,packed_vq=${packed}`],
    queues: QUEUES,
    forward: 'rxonly',
  });
  const figures: Record<string, number> = {};
  try {
    await front.ready();
    for (const direction of ['tx', 'rx'] as const) {
      for (const length of SIZES) {
        await forward(front, direction === 'tx' ? 'txonly' : 'rxonly', length);
        await back.load(direction, length);
        await pause(WARM_UP_MS);
        const before = await front.counts();
        const start = performance.now();
        await pause(WINDOW_MS);
        const after = await front.counts();
        const us = 1000 * (performance.now() - start);
        const packets =
          direction === 'tx' ? after.txPackets - before.txPackets : after.rxPackets - before.rxPackets;
        figures[`${direction}${length}`] = packets / us;
        await back.load('tx', length);
      }
    }
  } finally {
    await front.stop();
  }
  return figures;
}

await ensureDpdk();
const folder = mkdtempSync(join(tmpdir(), 'netemu-bench-'));
const results: Record<string, Record<string, Record<string, unknown>>> = {};
for (const ring of RINGS) {
  const samples: Record<string, { netemu: number[]; dpdk: number[] }> = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const kind of ['dpdk', 'netemu'] as const) {
      const path = join(folder, `${kind}${round}${ring}`);
      const back = await (kind === 'dpdk' ? DpdkEnd : NetemuEnd).make(path);
      const figures = await session(back, path, ring);
      await back.close();
      for (const [load, rate] of Object.entries(figures)) {
        samples[load] ??= { netemu: [], dpdk: [] };
        samples[load][kind].push(rate);
      }
    }
  }
  results[ring] = {};
  for (const [load, { netemu, dpdk }] of Object.entries(samples)) {
    const ratios = netemu.map((rate, i) => rate / dpdk[i]!);
    results[ring][load] = { netemu: median(netemu), dpdk: median(dpdk), ratio: median(ratios) };
  }
}
rmSync(folder, { recursive: true });
report({
  bench: 'vhost-user-dpdk',
  ...runtimeFacts(),
  queues: QUEUES,
  rounds: ROUNDS,
  millionFramesPerSecond: results,
});

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
import { readDevice } from '../src/config/devices/index.ts';
import { SystemClock, seededRandom } from '../src/core/clock.ts';
import { silentLogger } from '../src/core/log.ts';
import { Loop } from '../src/core/loop.ts';
import { FramePool, LENGTH, OFFSET, TOTAL } from '../src/core/pool.ts';
import { ACCEPT_ALL, type Client, type LinkContext, Port } from '../src/core/port.ts';
import { VhostUserBackend, VhostUserHost } from '../src/guest/vhost-user/index.ts';
import { NativeHostIo } from '../src/host-io/native.ts';
import { adapt } from '../src/nic/offload.ts';
import { VirtioNet } from '../src/nic/virtio-net/index.ts';
import { ensureDpdk, Testpmd } from '../test/peers/lib/dpdk.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.argv[2] ?? 3);
const QUEUES = Number(process.argv[3] ?? 1);
const RINGS = (process.argv[4] ?? 'split,packed').split(',');
const SIZES = [64, 1514] as const;
const WINDOW_MS = 1000;
const BATCH = 64;
/** Batches sent before the loop looks at other things. */
const PASS_BATCHES = 16;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** What stands behind netemu's NIC: it counts and frees what comes, and sends as fast as the guest takes while `length` is not 0. */
class End implements Client {
  readonly port: Port;
  frames = 0;
  touched = 0;
  length = 0;
  readonly #context: LinkContext;
  readonly #batch = new Int32Array(BATCH);
  #waiting = 0;
  #posted = false;

  constructor(context: LinkContext) {
    this.#context = context;
    this.port = new Port('end', 'backend', this, context);
    this.port.accepts = ACCEPT_ALL;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    const { table, bytes } = pool;
    for (let i = from; i < to; i++)
      this.touched = (this.touched + bytes[table[frames[i]! + OFFSET]! + 13]!) | 0;
    pool.releaseAll(frames, from, to);
    this.frames += to - from;
    return to - from;
  }

  peerReady(): void {
    this.send();
  }

  send(): void {
    if (this.#posted || this.length === 0) return;
    this.#posted = true;
    this.#context.loop.post(this.#pass);
  }

  readonly #pass = (): void => {
    this.#posted = false;
    const { length } = this;
    const { pool } = this.#context;
    const { table, bytes } = pool;
    const batch = this.#batch;
    for (let round = 0; round < PASS_BATCHES && length !== 0; round++) {
      for (; this.#waiting < BATCH; this.#waiting++) {
        const frame = pool.alloc(length);
        if (frame === 0) throw new Error('the pool is exhausted');
        const at = table[frame + OFFSET]!;
        for (let b = 0; b < 6; b++) bytes[at + b] = 0xff;
        for (let b = 6; b < 14; b++) bytes[at + b] = b;
        table[frame + LENGTH] = length;
        table[frame + TOTAL] = length;
        batch[this.#waiting] = frame;
      }
      const taken = this.port.send(batch, 0, BATCH);
      batch.copyWithin(0, taken, BATCH);
      this.#waiting = BATCH - taken;
      if (taken < BATCH) return;
    }
    this.send();
  };

  close(): void {
    this.length = 0;
    this.#context.pool.releaseAll(this.#batch, 0, this.#waiting);
    this.#waiting = 0;
  }
}

interface BackEnd {
  /** The front-end is about to send, or to be sent frames of this length. */
  load(direction: 'tx' | 'rx', length: number): Promise<void>;
  close(): Promise<void>;
}

class NetemuEnd implements BackEnd {
  readonly #hostIo = new NativeHostIo(undefined, { busyPollNs: 50_000 });
  readonly #pool = new FramePool();
  readonly #end: End;
  readonly #device: VirtioNet;
  readonly #backend: VhostUserBackend;

  constructor(path: string) {
    const pool = this.#pool;
    const hostIo = this.#hostIo;
    const clock = new SystemClock(() => performance.now());
    const loop = new Loop(clock);
    hostIo.attachPool(pool);
    hostIo.drive(loop);
    const link = { pool, loop, clock, adapt };
    const host = new VhostUserHost({ pool, loop, random: seededRandom(1), log: silentLogger });
    const queues = QUEUES > 1 ? { mq: true, queues: QUEUES } : {};
    const config = readDevice({ driver: 'virtio-net-pci', packed: true, ...queues } as never);
    if (config.model !== 'virtio-net') throw new Error('not a virtio-net');
    const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
    this.#device = new VirtioNet({ host, link, name: 'net0' }, { ...config, mac });
    this.#end = new End(link);
    Port.connect(this.#device.ports[0]!, this.#end.port);
    this.#backend = new VhostUserBackend({
      path,
      listen: true,
      device: this.#device,
      host,
      hostIo,
      loop,
      log: silentLogger,
    });
  }

  load(direction: 'tx' | 'rx', length: number): Promise<void> {
    this.#end.length = direction === 'rx' ? length : 0;
    this.#end.send();
    return Promise.resolve();
  }

  close(): Promise<void> {
    const { brokenRings, txDropBadHeader, rxDropTooLong } = this.#device.stats;
    if (brokenRings + txDropBadHeader + rxDropTooLong !== 0) throw new Error('frames were dropped');
    this.#end.close();
    this.#backend.close();
    this.#device.close();
    if (this.#pool.free !== this.#pool.capacity) throw new Error('frames were lost');
    this.#hostIo.shutdown();
    return Promise.resolve();
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
        await pause(WINDOW_MS / 2);
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
      const back = kind === 'dpdk' ? await DpdkEnd.make(path) : new NetemuEnd(path);
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

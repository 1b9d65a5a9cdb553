/**
 * How exact filter-netem is on the host's clock: frames through a delay of 20 ms, one every 100 us, alone and beside a link that is kept full
 * (64-byte frames without a pause, which take all of this process's time). The line of the delayed frames is itself full: its rate is what is
 * sent, at most. Gate: half of all frames are within 1 ms of the delay, with and without load; a busy machine shows in p99.
 *
 * A link that is kept full needs a core to itself, which a shared machine does not give: there the wall clock tells how late the others made
 * us. So the loaded run is made again on the clock of this process's own processor time (which goes on as the wall clock does while a core is
 * ours), and that one has the gate.
 */
import { parseObject } from '../src/config/objects/index.ts';
import { SystemClock, seededRandom } from '../src/core/clock.ts';
import { Loop } from '../src/core/loop.ts';
import { FramePool } from '../src/core/pool.ts';
import { type Client, type LinkContext, Port } from '../src/core/port.ts';
import { createHostIo } from '../src/host-io/index.ts';
import { FilterChain } from '../src/link/filter/filter.ts';
import { NetemFilter } from '../src/link/filter/netem.ts';
import { adapt } from '../src/nic/offload.ts';
import { report, runtimeFacts } from './lib/report.ts';

const FRAMES = Number(process.env.FRAMES ?? 10_000);
const DELAY_NS = 20e6;
const GAP_NS = 100e3;
const FRAME_BYTES = 1000;
const GATE_MS = 1;

/** One end of a link: counts, and says when each frame came. */
class End implements Client {
  readonly port: Port;
  readonly onFrame: () => void;
  readonly #context: LinkContext;

  constructor(context: LinkContext, onFrame: () => void) {
    this.#context = context;
    this.onFrame = onFrame;
    this.port = new Port('end', 'backend', this, context);
  }

  receive(frames: Int32Array, from: number, to: number): number {
    for (let i = from; i < to; i++) {
      this.onFrame();
      this.#context.pool.release(frames[i]!);
    }
    return to - from;
  }

  peerReady(): void {}
}

const CLOCKS = {
  wall: () => performance.now(),
  processor: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  },
};

async function measure(loaded: boolean, clock: keyof typeof CLOCKS): Promise<boolean> {
  const hostIo = createHostIo();
  const loop = new Loop(new SystemClock(CLOCKS[clock]));
  const pool = new FramePool();
  hostIo.attachPool(pool);
  const context: LinkContext = { pool, loop, adapt };
  const sentNs: number[] = [];
  const errorsMs: number[] = [];
  let finish: () => void = () => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const far = new End(context, () => {
    errorsMs.push((loop.clock.nowNs() - sentNs[errorsMs.length]! - DELAY_NS) / 1e6);
    if (errorsMs.length === FRAMES) finish();
  });
  const near = new End(context, () => {});
  Port.connect(near.port, far.port);
  // The line is full when every timer is in time.
  const rateBps = (8 * FRAME_BYTES * 1e9) / GAP_NS;
  const config = parseObject(
    `filter-netem,id=f,netdev=n,delay=${DELAY_NS / 1e6}ms,rate=${rateBps},limit=5000,seed=1`,
  );
  if (config.type !== 'filter-netem') throw new Error('not a netem');
  const filter = new NetemFilter({ id: 'f', direction: 'rx' }, config, context, seededRandom(1));
  new FilterChain(far.port).insert(filter, 'tail');

  const batch = new Int32Array(64);
  const payload = new Uint8Array(FRAME_BYTES);
  const sender = loop.timer(() => {
    batch[0] = pool.from(payload);
    sentNs.push(loop.clock.nowNs());
    near.port.send(batch, 0, 1);
    // A late timer does not catch up: a burst would wait for the line, which is not what is measured.
    if (sentNs.length < FRAMES) sender.armIn(GAP_NS);
  });
  sender.armIn(0);

  let loadFrames = 0;
  let stopped = false;
  const sink = new End(context, () => loadFrames++);
  const source = new End(context, () => {});
  Port.connect(source.port, sink.port);
  const small = new Uint8Array(64);
  const load = new Int32Array(64);
  const pump = (): void => {
    if (stopped) return;
    for (let i = 0; i < load.length; i++) load[i] = pool.from(small);
    source.port.send(load, 0, load.length);
    loop.post(pump);
  };
  if (loaded) loop.post(pump);

  hostIo.drive(loop);
  const beganMs = performance.now();
  await finished;
  const seconds = (performance.now() - beganMs) / 1000;
  stopped = true;
  filter.close();
  hostIo.shutdown();
  errorsMs.sort((a, b) => a - b);
  const p50Ms = errorsMs[FRAMES >> 1]!;
  const ok = Math.abs(p50Ms) < GATE_MS;
  report({
    bench: 'netem-delay',
    loaded,
    clock,
    delayMs: DELAY_NS / 1e6,
    earlyMs: Math.min(0, errorsMs[0]!),
    lateP50Ms: p50Ms,
    lateP99Ms: errorsMs[Math.floor(FRAMES * 0.99)]!,
    loadFramesPerSecond: loadFrames / seconds,
    drops: filter.stats.dropLimit + filter.stats.dropNoSlot,
    gateMs: GATE_MS,
    ok,
    ...runtimeFacts(),
  });
  return ok;
}

const idle = await measure(false, 'wall');
await measure(true, 'wall');
const loaded = await measure(true, 'processor');
process.exitCode = idle && loaded ? 0 : 1;

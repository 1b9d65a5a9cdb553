/**
 * How long a monitor's client waits for its reply while a probe guest sends as fast as its NIC takes: the gate is 50 ms for 99 of 100. One netemu as
 * a user runs it (built: `make build`), one client here; each kind of request is timed on its own. framesPerSecond tells that frames flowed all the time.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Qmp } from '../test/peers/lib/qmp.ts';
import { report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 1000);
const MAIN = new URL('../dist/cli/main.js', import.meta.url).pathname;
const GATE_MS = 50;

interface Graph {
  readonly nics: readonly {
    readonly queues: readonly { readonly counters: { readonly sentFrames: number } }[];
  }[];
}

const folder = mkdtempSync(join(tmpdir(), 'netemu-bench-'));
const socket = join(folder, 'qmp');
const load = ['--netdev', 'hubport,id=h0,hubid=0', '--netdev', 'hubport,id=h1,hubid=0'];
const netemu = spawn(
  process.execPath,
  [
    MAIN,
    ...load,
    ...['--device', 'e1000,id=e0,netdev=h0', '--device', 'e1000,id=e1,netdev=h1'],
    ...['--guest', 'probe,tx=0', '--qmp', `unix:${socket},server=on,wait=off`],
  ],
  { stdio: 'ignore' },
);
let failed = false;
try {
  const qmp = await Qmp.connect(socket);
  const sent = async (): Promise<number> =>
    ((await qmp.run('query-network')) as Graph).nics.reduce(
      (sum, nic) => sum + nic.queues[0]!.counters.sentFrames,
      0,
    );
  // Until the guests have come so far that they send.
  while ((await sent()) < 1000) await new Promise((resolve) => setImmediate(resolve));
  for (const [command, args] of [
    ['query-status', {}],
    ['query-network', {}],
    ['query-rx-filter', { name: 'e0' }],
    ['query-qmp-schema', {}],
  ] as const) {
    const before = await sent();
    const startMs = performance.now();
    const times: number[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      const askedMs = performance.now();
      await qmp.run(command, args);
      times.push(performance.now() - askedMs);
    }
    const seconds = (performance.now() - startMs) / 1000;
    times.sort((a, b) => a - b);
    const p99Ms = times[Math.floor(times.length * 0.99)]!;
    const ok = p99Ms < GATE_MS;
    failed ||= !ok;
    report({
      bench: 'qmp-latency',
      command,
      p50Ms: times[times.length >> 1]!,
      p99Ms,
      maxMs: times.at(-1)!,
      framesPerSecond: ((await sent()) - before) / seconds,
      gateMs: GATE_MS,
      ok,
      ...runtimeFacts(),
    });
  }
} finally {
  netemu.kill('SIGINT');
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed ? 1 : 0;

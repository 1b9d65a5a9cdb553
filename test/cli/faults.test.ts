/** Faults of a whole netemu, from the built files: ended in the middle of traffic, its disk full, its descriptors used up. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { PcapReader } from '../../src/wire/pcap.ts';
import { RunningNetemu } from '../peers/lib/netemu.ts';
import { Qmp } from '../peers/lib/qmp.ts';

let folder: string;
let netemu: RunningNetemu | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'netemu-faults-'));
});
afterEach(async () => {
  await netemu?.stop();
  netemu = undefined;
  rmSync(folder, { recursive: true });
});

/** Waits for what another process does; the watchdog of the test ends it when it never comes. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) {
    const { child, output } = netemu!;
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`netemu ended early:\n${output}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** How many whole records a capture has, and the bytes behind them. */
function recordsOf(file: string): { records: number; rest: number } {
  const bytes = readFileSync(file);
  const reader = new PcapReader();
  if (!reader.parseHeader(bytes, 0, bytes.length)) throw new Error('no capture');
  let at = 24;
  let records = 0;
  for (let next = 0; next >= 0; next = reader.parseRecord(bytes, at, bytes.length)) {
    if (next === 0) continue;
    at = next;
    records++;
  }
  return { records, rest: bytes.length - at };
}

/** A guest that sends as fast as it is let, a capture of it, a monitor and a forward on sockets. */
function underTraffic(): { capture: string; sockets: string[] } {
  const capture = join(folder, 'a.pcap');
  const sockets = [join(folder, 'qmp'), join(folder, 'ssh')];
  netemu = new RunningNetemu([
    ...['--netdev', `user,id=n0,hostfwd=unix:${sockets[1]}-:22`, '--device', 'e1000,netdev=n0'],
    ...['--object', `filter-dump,id=d,netdev=n0,file=${capture}`],
    ...['--guest', 'probe,tx=20000', '--qmp', `unix:${sockets[0]},server=on,wait=off`],
  ]);
  return { capture, sockets };
}

const isLarge = (file: string) => (): boolean => existsSync(file) && statSync(file).size > 200_000;

it.each([
  'SIGTERM',
  'SIGINT',
] as const)('load: %s in mid-transfer ends it with status 0, its capture whole and its sockets gone', async (signal) => {
  const { capture, sockets } = underTraffic();
  await until(isLarge(capture));
  for (const socket of sockets) expect(existsSync(socket)).toBe(true);
  netemu!.child.kill(signal);
  expect((await netemu!.finished).status).toBe(0);
  const { records, rest } = recordsOf(capture);
  expect(records).toBeGreaterThan(100);
  expect(rest).toBe(0);
  expect(readdirSync(folder)).toEqual(['a.pcap']);
});

it('load: a second signal ends it at once, whatever the first one waits for', async () => {
  const { capture } = underTraffic();
  await until(isLarge(capture));
  netemu!.child.kill('SIGTERM');
  netemu!.child.kill('SIGINT');
  expect((await netemu!.finished).status).toBe(0);
});

it('load: SIGKILL leaves a capture that can be read up to its end', async () => {
  const { capture } = underTraffic();
  await until(isLarge(capture));
  netemu!.child.kill('SIGKILL');
  expect((await netemu!.finished).status).toBeNull();
  const { records, rest } = recordsOf(capture);
  expect(records).toBeGreaterThan(100);
  // Whole records are written at a time, but the kernel may stop in the middle of one.
  expect(rest).toBeLessThan(16 + 65_536);
});

it('load: a full disk ends the capture, counted, and not the traffic', async () => {
  const socket = join(folder, 'qmp');
  netemu = new RunningNetemu([
    ...['--netdev', 'user,id=n0', '--device', 'e1000,id=e0,netdev=n0'],
    ...['--object', 'filter-dump,id=d,netdev=n0,file=/dev/full'],
    ...['--guest', 'probe', '--qmp', `unix:${socket},server=on,wait=off`],
  ]);
  const qmp = await Qmp.connect(socket);
  await netemu.until(/DNS 10\.0\.2\.3 answered/);
  const graph = JSON.stringify(await qmp.run('query-network'));
  expect(Number(/"dropSinkFailed":(\d+)/.exec(graph)?.[1])).toBeGreaterThan(0);
  await qmp.run('quit');
  expect((await netemu.finished).status).toBe(0);
});

/** An answer over a connection that stays. */
function get(socketPath: string, agent: Agent): Promise<{ status: number | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: '/metrics', agent }, (answer) => {
      let text = '';
      answer.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      answer.on('end', () => resolve({ status: answer.statusCode, text }));
    });
    asked.on('error', reject).end();
  });
}

it('load: without descriptors left it answers those it has, and takes others once some are free', async () => {
  const metrics = join(folder, 'metrics');
  const socket = join(folder, 'qmp');
  const args = [
    '--metrics',
    `unix:${metrics}`,
    '--qmp',
    `unix:${socket},server=on,wait=off`,
    '--guest',
    'none',
  ];
  netemu = new RunningNetemu(args);
  const qmp = await Qmp.connect(socket);
  await until(() => existsSync(metrics));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  expect(await get(metrics, agent)).toMatchObject({ status: 200 });
  const pid = netemu.child.pid!;
  const numbers = (): number[] => readdirSync(`/proc/${pid}/fd`).map(Number);
  // Ten more numbers are free below it, and no other is given out.
  const taken = new Set(numbers());
  const limit = 1 + Array.from({ length: 1024 }, (_, i) => i).filter((i) => !taken.has(i))[9]!;
  const left = (): number => limit - numbers().filter((number) => number < limit).length;
  execFileSync('prlimit', ['--pid', `${pid}`, `--nofile=${limit}:${limit}`]);
  const clients = Array.from({ length: 20 }, () => connect(metrics).on('error', () => {}));
  await until(() => left() <= 1);
  // Its own memory cannot be read without one (it is told by /proc): the rest is.
  const answer = await get(metrics, agent);
  expect(answer.status).toBe(200);
  expect(answer.text).toMatch(/uptime/);
  expect(await qmp.run('query-status')).toMatchObject({ running: true });
  for (const client of clients) client.destroy();
  await until(() => left() > 5);
  const other = await Qmp.connect(socket);
  expect(await other.run('query-status')).toMatchObject({ running: true });
  agent.destroy();
  await other.run('quit');
  expect((await netemu.finished).status).toBe(0);
});

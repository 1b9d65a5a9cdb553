/** vde_switch and vde_plug at the other end of the vde netdev. */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { thousandCycles } from '../backends/cycles.ts';
import { BackendLab } from '../backends/lab.ts';
import { pairSuite } from '../backends/pair-suite.ts';
import { packet, type RecordingClient, tags } from '../lib/context.ts';
import { prepare } from './lib/prepare.ts';

const folder = mkdtempSync(join(tmpdir(), 'netemu-vde-'));
const sock = join(folder, 'switch');
let running: ChildProcess | null = null;

/** Its console stays open: a switch whose standard input ends, ends. */
async function startSwitch(): Promise<void> {
  const child = spawn('vde_switch', ['-s', sock, '-m', '660'], { stdio: ['pipe', 'ignore', 'ignore'] });
  running = child;
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`vde_switch ended with ${code}`)));
    const look = (): void => {
      if (existsSync(join(sock, 'ctl'))) resolve();
      else setImmediate(look);
    };
    look();
  });
}

async function stopSwitch(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  const child = running;
  if (child === null) return;
  running = null;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await gone;
}

beforeAll(async () => {
  await prepare(['vde']);
  await startSwitch();
});

afterAll(async () => {
  await stopSwitch();
  rmSync(folder, { recursive: true, force: true });
});

pairSuite({
  name: 'vde, two ports of vde_switch',
  frameMaxBytes: 1514,
  async open(lab) {
    return [await lab.open('vde', { sock }), await lab.open('vde', { sock })];
  },
});

describe('vde', () => {
  let lab: BackendLab;

  afterEach(() => lab.end());

  it('takes the port it is told, and says so when the switch does not give it', async () => {
    lab = new BackendLab();
    const backend = await lab.open('vde', { sock, port: 5 });
    expect(backend.describe()).toBe(`sock=${sock},port=5`);
    expect(await lab.refusal('vde', { sock, port: 999 })).toBe(
      `could not open vde switch '${sock}': it gives us no port 999`,
    );
  });

  it('says that there is no switch', async () => {
    lab = new BackendLab();
    expect(await lab.refusal('vde', { sock: join(folder, 'nowhere') })).toBe(
      `could not open vde switch '${join(folder, 'nowhere')}': No such file or directory`,
    );
    expect(await lab.refusal('vde', { sock, group: 'no-such-group' })).toBe(
      "group 'no-such-group' not found",
    );
  });

  it('leaves no file beside the switch’s, even while it runs', async () => {
    lab = new BackendLab();
    await lab.open('vde', { sock, mode: 0o600, group: 'root' });
    expect(readdirSync(sock).filter((name) => name.startsWith('.'))).toEqual([]);
    expect(statSync(sock).isDirectory()).toBe(true);
  });

  it('goes down with the switch, comes back with it, and carries frames again', async () => {
    lab = new BackendLab();
    const backends = [await lab.open('vde', { sock }), await lab.open('vde', { sock })] as const;
    const guests = backends.map((backend) => lab.guest(backend));
    const [a, b] = guests as [(typeof guests)[0], (typeof guests)[0]];
    a.send(packet(1));
    await lab.until(() => b.received.length === 1);
    await stopSwitch('SIGKILL');
    await lab.until(() => backends.every(({ ports }) => !ports[0]!.linkUp), 'link down');
    expect(b.links.at(-1)).toBe(false);
    expect(lab.logged).toContain('the vde switch is gone');
    a.send(packet(2));
    expect(backends[0].ports[0]!.peer!.stats.dropLinkDown).toBe(1);
    await lab.pass(300e6);
    expect(backends[0].describe()).toContain('(no switch)');
    rmSync(sock, { recursive: true, force: true });
    await startSwitch();
    await lab.untilLater(() => backends.every(({ ports }) => ports[0]!.linkUp));
    a.send(packet(3));
    await lab.until(() => b.received.length === 2);
    expect(tags(b.received)).toEqual([1, 3]);
  });

  it('carries a transfer on when the switch is killed in its midst and comes back', async () => {
    lab = new BackendLab();
    const backends = [await lab.open('vde', { sock }), await lab.open('vde', { sock })] as const;
    const [a, b] = backends.map((backend) => lab.guest(backend)) as [RecordingClient, RecordingClient];
    const FRAMES = 400;
    // A sender that repeats what was not acknowledged, and a receiver that acknowledges each frame in order.
    let next = 0;
    let acknowledged = 0;
    let restarts = 0;
    const number = (bytes: Uint8Array): number => bytes[20]! * 256 + bytes[21]!;
    const numbered = (value: number): Uint8Array => {
      const bytes = packet(value & 0xff, 1000);
      bytes[20] = value >> 8;
      bytes[21] = value & 0xff;
      return bytes;
    };
    await lab.untilLater(() => {
      for (const frame of b.received.splice(0)) {
        if (number(frame) === next) next++;
        if (backends[1].ports[0]!.linkUp) b.send(numbered(next));
      }
      for (const frame of a.received.splice(0)) acknowledged = Math.max(acknowledged, number(frame));
      if (acknowledged >= FRAMES / 2 && restarts === 0) {
        restarts++;
        void stopSwitch('SIGKILL').then(async () => {
          rmSync(sock, { recursive: true, force: true });
          await startSwitch();
          restarts++;
        });
      }
      if (backends[0].ports[0]!.linkUp) for (let i = 0; i < 4; i++) a.send(numbered(acknowledged + i));
      return acknowledged >= FRAMES;
    });
    expect(restarts).toBe(2);
    expect(lab.logged.filter((line) => line === 'the vde switch is gone').length).toBe(2);
    expect(lab.told.filter((line) => line === 'the vde switch is back').length).toBe(2);
  });

  it('made and taken away 1,000 times, leaves no descriptor, no memory and no socket file', async () => {
    lab = new BackendLab();
    await thousandCycles(lab, async () => {
      // vde_switch loses ports, and at last itself, when one goes and the next comes at once.
      while (readdirSync(sock).length > 1) await new Promise((resolve) => setImmediate(resolve));
      return [await lab.open('vde', { sock })];
    });
  });

  it('meets vde_plug', async () => {
    lab = new BackendLab();
    const backend = await lab.open('vde', { sock });
    const guest = lab.guest(backend);
    // vde_plug speaks frames with a 2-byte big-endian length on its standard streams.
    const plug = spawn('vde_plug', [sock], { stdio: ['pipe', 'pipe', 'inherit'] });
    let out = Buffer.alloc(0);
    plug.stdout.on('data', (data: Buffer) => {
      out = Buffer.concat([out, data]);
    });
    const frame = packet(7, 100);
    // The switch must know the plug's port before it floods to it: the plug speaks first, until it is heard.
    await lab.until(() => {
      if (guest.received.length === 0) plug.stdin.write(Buffer.concat([Buffer.from([0, 100]), frame]));
      return guest.received.length > 0;
    });
    expect(tags(guest.received)[0]).toBe(7);
    guest.send(packet(9, 64));
    await lab.until(() => out.length >= 66);
    expect([...out.subarray(0, 2)]).toEqual([0, 64]);
    expect(Buffer.compare(out.subarray(2, 66), packet(9, 64))).toBe(0);
    const gone = new Promise((resolve) => plug.once('exit', resolve));
    plug.kill('SIGKILL');
    await gone;
  });
});

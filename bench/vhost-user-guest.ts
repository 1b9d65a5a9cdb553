/**
 * How fast is a Linux guest under TCG through netemu as vhost-user back-end with the user network, next to the same guest with QEMU's own `-netdev user`, and with passt as its vhost-user back-end? iperf3
 * to and from the host's loopback, in turns; the guest's emulated processor is the limit of all three, so this is told, and no gate.
 *
 *     npx tsx bench/vhost-user-guest.ts [ROUNDS [SECONDS]]
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { forkyCommand } from '../test/peers/lib/forky.ts';
import { runGuest } from '../test/peers/lib/guest.ts';
import { Iperf } from '../test/peers/lib/iperf.ts';
import { prepare } from '../test/peers/lib/prepare.ts';
import { LEASE, LOAD, Rig, vhostUserArgs } from '../test/peers/vhost-user/rig.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.argv[2] ?? 3);
const SECONDS = Number(process.argv[3] ?? 5);

interface Contestant {
  args: readonly string[];
  close(): void;
}

const device = 'virtio-net-pci,netdev=n0,mac=52:54:00:aa:bb:cc';

async function netemu(): Promise<Contestant> {
  const rig = await Rig.make({ type: 'user', id: 'n0' });
  const seat = rig.seat({ driver: 'virtio-net-pci', netdev: 'n0', id: 'nic0' } as never);
  return { args: seat.qemuArgs({ qemu: '11.1' }), close: () => rig.close() };
}

async function qemu(): Promise<Contestant> {
  return { args: ['-netdev', 'user,id=n0', '-device', device], close() {} };
}

async function passt(): Promise<Contestant> {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-passt-'));
  const path = join(folder, 'vm.sock');
  const options = ['--vhost-user', '-f', '-q', '-s', path, '-a', '10.0.2.15', '-n', '24'];
  const command = forkyCommand('passt', [...options, '-g', '10.0.2.2', '--map-host-loopback', '10.0.2.2']);
  const child: ChildProcess = spawn(command.program, command.args, {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  while (!existsSync(path)) {
    if (child.exitCode !== null) throw new Error(`passt ended with ${child.exitCode}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return {
    args: vhostUserArgs({ qemu: '11.1', path, listen: true }),
    close: () => {
      child.kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const CONTESTANTS = { netemu, qemu, passt };

function gbits(output: string): number {
  const { end } = JSON.parse(output) as { end: { sum_received: { bits_per_second: number } } };
  return end.sum_received.bits_per_second / 1e9;
}

await prepare(['tools', 'qemu-11.1', 'passt-forky']);
const iperf = await Iperf.start();
const samples: Record<string, { up: number[]; down: number[] }> = {};
for (let round = 0; round < ROUNDS; round++) {
  for (const [name, make] of Object.entries(CONTESTANTS)) {
    const contestant = await make();
    const run = `iperf3 -c 10.0.2.2 -p ${iperf.port} -t ${SECONDS} -J`;
    const result = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      memoryMiB: 256,
      args: contestant.args,
      script: { bind: `set -e; ${LOAD}; ${LEASE}`, up: run, down: `${run} -R` },
    });
    samples[name] ??= { up: [], down: [] };
    samples[name].up.push(gbits(result.ok('up')));
    samples[name].down.push(gbits(result.ok('down')));
    contestant.close();
  }
}
await iperf.close();
const figures: Record<string, Record<string, number>> = {};
for (const way of ['up', 'down'] as const) {
  const of = (name: string): number[] => samples[name]![way];
  const ratio = (name: string): number => median(of('netemu').map((rate, i) => rate / of(name)[i]!));
  figures[way] = {
    netemu: median(of('netemu')),
    qemu: median(of('qemu')),
    passt: median(of('passt')),
    ratioToQemu: ratio('qemu'),
    ratioToPasst: ratio('passt'),
  };
}
report({
  bench: 'vhost-user-guest',
  ...runtimeFacts(),
  rounds: ROUNDS,
  seconds: SECONDS,
  gbitPerSecond: figures,
});

/**
 * How fast do two Linux guests under TCG talk to each other, each by a vhost-user NIC on netemu's hub, next to the same two guests on the two ends of QEMU's own `-netdev socket`? iperf3 in the guests, both ways,
 * in turns; four programs share the machine's processors, and the guests' emulated ones are the limit of both, so this is told, and no gate.
 *
 *     npx tsx bench/vhost-user-vm-to-vm.ts [ROUNDS [SECONDS]]
 */

import { createServer } from 'node:net';
import { startGuest } from '../test/peers/lib/guest.ts';
import { iperfCommand } from '../test/peers/lib/iperf.ts';
import { prepare } from '../test/peers/lib/prepare.ts';
import { Signals } from '../test/peers/lib/signals.ts';
import { LOAD, Rig } from '../test/peers/vhost-user/rig.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.argv[2] ?? 3);
const SECONDS = Number(process.argv[3] ?? 5);
const IPERF_PORT = 5201;
const MACS = ['52:54:00:00:00:01', '52:54:00:00:00:02'] as const;

interface Contestant {
  /** QEMU's arguments of the guest that listens and of the one that talks. */
  args: readonly [readonly string[], readonly string[]];
  close(): void;
}

async function netemu(): Promise<Contestant> {
  const rig = await Rig.make(
    { type: 'hubport', id: 'h0', hubid: 0 },
    { type: 'hubport', id: 'h1', hubid: 0 },
  );
  const args = (i: 0 | 1): string[] =>
    rig
      .seat({ driver: 'virtio-net-pci', netdev: `h${i}`, id: `nic${i}` } as never)
      .qemuArgs({ qemu: '11.1', mac: MACS[i] });
  return { args: [args(0), args(1)], close: () => rig.close() };
}

/** A TCP port of the loopback that nobody listens at. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function qemu(): Promise<Contestant> {
  const port = await freePort();
  const args = (i: 0 | 1, end: string): string[] => [
    ...['-netdev', `socket,id=n0,${end}=127.0.0.1:${port}`],
    ...['-device', `virtio-net-pci,netdev=n0,mac=${MACS[i]}`],
  ];
  return { args: [args(0, 'listen'), args(1, 'connect')], close() {} };
}

const CONTESTANTS = { netemu, qemu };

/** What the receiver counted; iperf3 may end well without a report of the other side's, and says why. */
function gbits(output: string): number {
  const { end, error } = JSON.parse(output) as {
    end: { sum_received?: { bits_per_second: number } };
    error?: string;
  };
  if (end.sum_received === undefined) throw new Error(`iperf3: ${error ?? output}`);
  return end.sum_received.bits_per_second / 1e9;
}

async function turn({ args }: Contestant): Promise<{ up: number; down: number }> {
  const { host } = new Signals();
  const common = { qemu: '11.1', sharedMemory: true, memoryMiB: 256, host } as const;
  const address = (n: number): string => `set -e; ${LOAD}; ip addr add 10.88.0.${n}/24 dev eth0`;
  const listener = await startGuest({
    ...common,
    args: args[0],
    script: { bind: `${address(1)}; iperf3 -s -D; host say listening`, rest: 'host wait end' },
  });
  const run = (more: string): string => iperfCommand(IPERF_PORT, `-t ${SECONDS}${more}`, '10.88.0.1');
  const talker = await startGuest({
    ...common,
    args: args[1],
    script: {
      bind: `${address(2)}; host wait listening; n=0; until ping -c 1 -W 1 10.88.0.1; do n=$((n+1)); [ $n -lt 30 ]; done`,
      up: run(''),
      down: run(' -R'),
      end: 'host say end',
    },
  });
  const [result] = await Promise.all([talker.done, listener.done]);
  return { up: gbits(result.ok('up')), down: gbits(result.ok('down')) };
}

await prepare(['tools', 'qemu-11.1']);
const samples: Record<'netemu' | 'qemu', { up: number; down: number }[]> = { netemu: [], qemu: [] };
for (let round = 0; round < ROUNDS; round++) {
  for (const name of ['netemu', 'qemu'] as const) {
    const contestant = await CONTESTANTS[name]();
    samples[name].push(await turn(contestant));
    contestant.close();
  }
}
const figures: Record<string, Record<string, number>> = {};
for (const way of ['up', 'down'] as const) {
  figures[way] = {
    netemu: median(samples.netemu.map((sample) => sample[way])),
    qemu: median(samples.qemu.map((sample) => sample[way])),
    ratioToQemu: median(samples.netemu.map((sample, i) => sample[way] / samples.qemu[i]![way])),
  };
}
report({
  bench: 'vhost-user-vm-to-vm',
  ...runtimeFacts(),
  rounds: ROUNDS,
  seconds: SECONDS,
  gbitPerSecond: figures,
});

/**
 * Frames through a hub between two UDP dgram netdevs: netemu against QEMU's hub with the same options, and against a plain C forwarder
 * (recvmmsg to sendmmsg, no hub, no options). Plain peers at 64 and 1514 bytes, and peers that group (UDP_SEGMENT, UDP_GRO; QEMU, which
 * knows none, is then compared with plain peers). Closed loop: a window of frames
 * is always on its way; every frame is checked. Gates: 1.6 x QEMU 7.2 and 2 x QEMU 11.1 with plain peers, 4 x with grouping peers.
 */

import { netemu, qemus } from './lib/contestants.ts';
import { type Contestant, compiled, contest } from './lib/forwarding.ts';
import { report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const SECONDS = Number(process.env.SECONDS ?? 2);
const BUSY_POLL_NS = process.env.BUSY_POLL_NS ?? '0';
/** Load from 9001 to 9002, out of 9003 to the sink at 9004. */
const [FROM, IN, OUT, SINK] = ['9001', '9002', '9003', '9004'] as const;

const netdevs = [
  `dgram,id=a,local.type=inet,local.host=127.0.0.1,local.port=${IN},remote.type=inet,remote.host=127.0.0.1,remote.port=${FROM}`,
  `dgram,id=b,local.type=inet,local.host=127.0.0.1,local.port=${OUT},remote.type=inet,remote.host=127.0.0.1,remote.port=${SINK}`,
];

function contestants(grouping: boolean, windowFrames: number): Contestant[] {
  return [
    netemu(netdevs, BUSY_POLL_NS),
    { name: 'c', program: compiled('forward'), args: [IN, OUT, SINK, ...(grouping ? ['gro'] : [])] },
    ...qemus(netdevs, windowFrames),
  ];
}

for (const { bytes, window, qemuWindow, grouping } of [
  { bytes: 64, window: 192, qemuWindow: 192, grouping: false },
  { bytes: 1514, window: 48, qemuWindow: 48, grouping: false },
  { bytes: 64, window: 512, qemuWindow: 192, grouping: true },
  { bytes: 1514, window: 312, qemuWindow: 48, grouping: true },
]) {
  const turns = await contest(
    contestants(grouping, qemuWindow),
    { ports: [FROM, IN, SINK, OUT], frameBytes: bytes, windowFrames: window, seconds: SECONDS, grouping },
    ROUNDS,
  );
  const mine = turns.netemu!.framesPerSecond;
  const ratios: Record<string, number> = {};
  for (const [name, turn] of Object.entries(turns)) {
    if (name !== 'netemu') ratios[`over ${name}`] = mine / turn.framesPerSecond;
  }
  report({
    bench: 'hub-udp',
    ...runtimeFacts(),
    frameBytes: bytes,
    windowFrames: window,
    qemuWindowFrames: qemuWindow,
    peersGroup: grouping,
    busyPollNs: Number(BUSY_POLL_NS),
    rounds: ROUNDS,
    seconds: SECONDS,
    turns,
    ...ratios,
  });
}

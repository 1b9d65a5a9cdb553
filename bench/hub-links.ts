/**
 * Frames through a hub between other pairs of netdevs, against QEMU's hub with the same options: l2tpv3 to l2tpv3 (plain peers, and peers that group), tap
 * to socket and back (in a namespace of its own; needs root). Closed loop, every frame checked. Gates: l2tpv3 1.1 x QEMU, tap to socket 1.3 x, socket to
 * tap 1.5 x.
 */

import { execFileSync } from 'node:child_process';
import { inNamespace, netemu, qemus } from './lib/contestants.ts';
import { type Contestant, contest, type Load } from './lib/forwarding.ts';
import { report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const SECONDS = Number(process.env.SECONDS ?? 2);
const NAMESPACE = `netemu-bench${process.pid}`;
const LOCAL = '127.0.0.1';

async function run(
  link: string,
  contestants: readonly Contestant[],
  load: Omit<Load, 'seconds'>,
): Promise<void> {
  const turns = await contest(contestants, { ...load, seconds: SECONDS }, ROUNDS);
  const mine = turns.netemu!.framesPerSecond;
  const ratios: Record<string, number> = {};
  for (const [name, turn] of Object.entries(turns)) {
    if (name !== 'netemu') ratios[`over ${name}`] = mine / turn.framesPerSecond;
  }
  const { frameBytes, windowFrames, grouping } = load;
  report({
    bench: 'hub-links',
    ...runtimeFacts(),
    link,
    frameBytes,
    windowFrames,
    peersGroup: grouping,
    rounds: ROUNDS,
    seconds: SECONDS,
    turns,
    ...ratios,
  });
}

const tunnel = (id: string, src: number, dst: number) =>
  `l2tpv3,id=${id},src=${LOCAL},dst=${LOCAL},udp=on,srcport=${src},dstport=${dst},txsession=1,txcookie=2,rxcookie=2`;
const HEADER = '000300000000000100000002';
const tunnels = [tunnel('a', 9012, 9011), tunnel('b', 9013, 9014)];
for (const grouping of [false, true]) {
  await run('l2tpv3 to l2tpv3', [netemu(tunnels), ...qemus(tunnels, 96)], {
    ports: ['9011', '9012', '9014', '9013'],
    frameBytes: 64,
    windowFrames: grouping ? 512 : 96,
    grouping,
    headers: [HEADER, HEADER],
  });
}

const ip = (...words: string[]) => execFileSync('ip', words);
if (process.getuid?.() === 0) {
  ip('netns', 'add', NAMESPACE);
  try {
    ip('-n', NAMESPACE, 'link', 'set', 'lo', 'up');
    ip('netns', 'exec', NAMESPACE, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
    ip('-n', NAMESPACE, 'tuntap', 'add', 'tap0', 'mode', 'tap', 'vnet_hdr');
    ip('-n', NAMESPACE, 'link', 'set', 'tap0', 'txqueuelen', '2000', 'up');
    const netdevs = [
      'tap,id=a,ifname=tap0,script=no,downscript=no',
      `dgram,id=b,local.type=inet,local.host=${LOCAL},local.port=9023,remote.type=inet,remote.host=${LOCAL},remote.port=9024`,
    ];
    const contestants = [netemu(netdevs), ...qemus(netdevs, 48)].map((one) => inNamespace(NAMESPACE, one));
    const within = ['ip', 'netns', 'exec', NAMESPACE];
    const common = { frameBytes: 1514, windowFrames: 48, grouping: false, within };
    await run('tap to socket', contestants, { ...common, ports: ['tap0', '0', '9024', '9023'] });
    await run('socket to tap', contestants, { ...common, ports: ['9024', '9023', 'tap0', '0'] });
  } finally {
    ip('netns', 'del', NAMESPACE);
  }
}

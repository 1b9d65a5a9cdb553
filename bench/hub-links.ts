/**
 * Frames through a hub between other pairs of netdevs, against QEMU's hub with the same options, vde_switch, and a plain C forwarder: l2tpv3 to l2tpv3,
 * l2tpv3 to UDP and back (plain peers, and peers that group), tap to socket and back, vde port to vde port (64 and 1514 bytes; these in a
 * namespace of their own, which needs root). Closed loop, every frame checked. Gates: l2tpv3 both ways 1.3 x QEMU (5 x with grouping peers), rx 1.1 x, tx 1.6 x;
 * tap to socket 1.3 x QEMU and 0.9 x C, socket to tap 1.5 x and 0.9 x; vde 1 x vde_switch. LINKS=WORD runs those whose name has the word.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inNamespace, netemu, qemus } from './lib/contestants.ts';
import { type Contestant, compiled, contest, type Load } from './lib/forwarding.ts';
import { report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const SECONDS = Number(process.env.SECONDS ?? 2);
const LINKS = process.env.LINKS ?? '';
const NAMESPACE = `netemu-bench${process.pid}`;
const LOCAL = '127.0.0.1';

async function run(
  link: string,
  contestants: readonly Contestant[],
  load: Omit<Load, 'seconds'>,
): Promise<void> {
  if (!link.includes(LINKS)) return;
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

const plainC = (...args: string[]): Contestant => ({ name: 'c', program: compiled('forward'), args });

const tunnel = (id: string, src: number, dst: number) =>
  `l2tpv3,id=${id},src=${LOCAL},dst=${LOCAL},udp=on,srcport=${src},dstport=${dst},txsession=1,txcookie=2,rxcookie=2`;
const datagrams = (id: string, local: number, remote: number) =>
  `dgram,id=${id},local.type=inet,local.host=${LOCAL},local.port=${local},remote.type=inet,remote.host=${LOCAL},remote.port=${remote}`;
const HEADER = '000300000000000100000002';

const UDP_LINKS: readonly {
  name: string;
  netdevs: readonly string[];
  headers: readonly [string, string];
  /** It passes on what it gets, header and all. */
  hasC?: boolean;
}[] = [
  {
    name: 'l2tpv3 to l2tpv3',
    netdevs: [tunnel('a', 9012, 9011), tunnel('b', 9013, 9014)],
    headers: [HEADER, HEADER],
    hasC: true,
  },
  {
    name: 'l2tpv3 rx (to dgram)',
    netdevs: [tunnel('a', 9012, 9011), datagrams('b', 9013, 9014)],
    headers: [HEADER, ''],
  },
  {
    name: 'l2tpv3 tx (from dgram)',
    netdevs: [datagrams('a', 9012, 9011), tunnel('b', 9013, 9014)],
    headers: ['', HEADER],
  },
];

for (const { name, netdevs, headers, hasC } of UDP_LINKS) {
  for (const grouping of [false, true]) {
    const c = hasC ? [plainC('9012', '9013', '9014', ...(grouping ? ['gro'] : []))] : [];
    await run(name, [netemu(netdevs), ...c, ...qemus(netdevs, 96)], {
      ports: ['9011', '9012', '9014', '9013'],
      frameBytes: 64,
      windowFrames: grouping ? 512 : 96,
      grouping,
      headers,
    });
  }
}

const ip = (...words: string[]) => execFileSync('ip', words);

async function taps(): Promise<void> {
  ip('-n', NAMESPACE, 'tuntap', 'add', 'tap0', 'mode', 'tap', 'vnet_hdr');
  ip('-n', NAMESPACE, 'link', 'set', 'tap0', 'txqueuelen', '2000', 'up');
  const netdevs = ['tap,id=a,ifname=tap0,script=no,downscript=no', datagrams('b', 9023, 9024)];
  const contestants = (...c: Contestant[]) =>
    [netemu(netdevs), ...c, ...qemus(netdevs, 48)].map((one) => inNamespace(NAMESPACE, one));
  const common = { windowFrames: 48, grouping: false, within };
  const grouping = { ...plainC('tap0', '9023', '9024', 'gso'), name: 'c with UDP_SEGMENT' };
  for (const frameBytes of [64, 1514]) {
    await run('tap to socket', contestants(plainC('tap0', '9023', '9024'), grouping), {
      ...common,
      frameBytes,
      ports: ['tap0', '0', '9024', '9023'],
    });
    await run('socket to tap', contestants(plainC('9023', 'tap0', '0')), {
      ...common,
      frameBytes,
      ports: ['9024', '9023', 'tap0', '0'],
    });
  }
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/**
 * The generator gives the emulators' vde netdevs their ports itself; vde_switch it plugs into. The kernel's queue of unix datagrams has room for 10 here, for 512
 * where systemd is.
 */
async function vde(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-bench-'));
  try {
    const netdevs = ['a', 'b'].map((id) => `vde,id=${id},sock=${join(folder, id)}`);
    const sock = join(folder, 'switch');
    const vdeSwitch: Contestant = {
      name: 'vde_switch',
      program: 'vde_switch',
      args: ['-s', sock],
      ports: [`plug:${sock}`, '0', `plug:${sock}`, '0'],
      async ready() {
        // One that was killed leaves its socket's file.
        while (!(await isServed(join(sock, 'ctl')))) await new Promise((resolve) => setImmediate(resolve));
      },
    };
    for (const frameBytes of [64, 1514]) {
      await run(
        'vde port to vde port',
        [netemu(netdevs), vdeSwitch, ...qemus(netdevs, 192)].map((one) => inNamespace(NAMESPACE, one)),
        {
          ports: [`serve:${join(folder, 'a')}`, '0', `serve:${join(folder, 'b')}`, '0'],
          frameBytes,
          windowFrames: frameBytes > 1000 ? 64 : 192,
          grouping: false,
          within,
        },
      );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const within = ['ip', 'netns', 'exec', NAMESPACE];
if (process.getuid?.() === 0) {
  ip('netns', 'add', NAMESPACE);
  try {
    ip('-n', NAMESPACE, 'link', 'set', 'lo', 'up');
    for (const setting of ['net.ipv6.conf.default.disable_ipv6=1', 'net.unix.max_dgram_qlen=512'])
      ip('netns', 'exec', NAMESPACE, 'sysctl', '-qw', setting);
    await taps();
    await vde();
  } finally {
    ip('netns', 'del', NAMESPACE);
  }
}

/**
 * tap and bridge against the kernel: two namespaces that reach each other only through netemu, with segmentation left to us and without; several
 * queues; the bridge helper as root and as nobody; and what goes wrong.
 */

import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeBackends } from '../../src/backends/index.ts';
import { nodeServices } from '../../src/backends/node-services.ts';
import type { TapBackend } from '../../src/backends/tap.ts';
import type { TapStats } from '../../src/backends/tap-port.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { createNativeHostIo } from '../../src/host-io/native.ts';
import { Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';
import { BackendLab } from '../backends/lab.ts';
import { pairSuite } from '../backends/pair-suite.ts';
import { packet, tags } from '../lib/context.ts';
import { prepare } from './lib/prepare.ts';

const RUN = `ne${process.pid}`;
const A = `${RUN}a`;
const B = `${RUN}b`;
const ip = (...words: string[]) =>
  execFileSync('ip', words, { stdio: ['ignore', 'pipe', 'pipe'] }).toString();
const folder = mkdtempSync(join(tmpdir(), 'netemu-tap-'));
let made = 0;

function script(text: string): string {
  const path = join(folder, `script${made++}`);
  writeFileSync(path, `#!/bin/sh -e\n${text}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** A script that moves the tap to a namespace and gives it an address. */
const joining = (namespace: string, address: string) =>
  script(`ip link set "$1" netns ${namespace}
ip -n ${namespace} addr add ${address}/24 dev "$1"
ip -n ${namespace} link set "$1" up`);

beforeAll(async () => {
  await prepare(['tools', 'qemu-7.2']);
  for (const namespace of [A, B]) {
    ip('netns', 'add', namespace);
    for (const which of ['all', 'default'])
      ip('netns', 'exec', namespace, 'sysctl', '-qw', `net.ipv6.conf.${which}.disable_ipv6=1`);
    ip('-n', namespace, 'link', 'set', 'lo', 'up');
  }
  ip('-n', A, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
  ip('-n', A, 'link', 'set', 'br0', 'up');
  ip('-n', A, 'link', 'add', 'br1', 'type', 'bridge');
});

afterAll(() => {
  for (const namespace of [A, B]) ip('netns', 'del', namespace);
  rmSync(folder, { recursive: true, force: true });
});

/** iperf3 from A to B; bytes that arrived. */
async function transfer(reverse: boolean): Promise<{ bytes: number; bitsPerSecond: number }> {
  const server = spawn('ip', ['netns', 'exec', B, 'iperf3', '-s', '-1', '--forceflush'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => server.stdout.once('data', resolve));
  const client = spawn(
    'ip',
    [
      'netns',
      'exec',
      A,
      'iperf3',
      '-c',
      '10.77.0.2',
      '-n',
      '64M',
      '-J',
      '--get-server-output',
      ...(reverse ? ['-R'] : []),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let out = '';
  client.stdout.on('data', (data) => {
    out += data;
  });
  const gone = new Promise((resolve) => server.once('exit', resolve));
  await new Promise((resolve) => client.once('close', resolve));
  await gone;
  const { end } = JSON.parse(out) as { end: { sum_received: { bytes: number; bits_per_second: number } } };
  return { bytes: end.sum_received.bytes, bitsPerSecond: end.sum_received.bits_per_second };
}

/** 64 MiB from A to B: their hash before and after. */
async function hashes(): Promise<[string, string]> {
  const file = join(folder, 'blob');
  execFileSync('dd', ['if=/dev/urandom', `of=${file}`, 'bs=1M', 'count=64'], { stdio: 'ignore' });
  const wanted = execFileSync('sha256sum', [file]).toString().split(' ')[0]!;
  const program = `require('net').createServer((socket) => {
    const hash = require('crypto').createHash('sha256');
    socket.on('data', (data) => hash.update(data));
    socket.on('end', () => { console.log(hash.digest('hex')); process.exit(); });
  }).listen(7000, () => console.log('ready'))`;
  const listener = spawn('ip', ['netns', 'exec', B, process.execPath, '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let got = '';
  const ready = new Promise((resolve) => listener.stdout.once('data', resolve));
  listener.stdout.on('data', (data) => {
    got += data;
  });
  const done = new Promise((resolve) => listener.once('close', resolve));
  await ready;
  const sender = spawn('sh', ['-c', `ip netns exec ${A} busybox nc 10.77.0.2 7000 <${file}`], {
    stdio: 'inherit',
  });
  await new Promise((resolve) => sender.once('close', resolve));
  await done;
  return [wanted, got.trim().split('\n')[1]!];
}

describe.each([
  ['with vnet_hdr', 'on'],
  ['without vnet_hdr', 'off'],
])('two namespaces through netemu, taps %s', (_name, vnetHdr) => {
  it('ping, and move 64 MiB each way', async () => {
    const hostIo = createNativeHostIo();
    const network = new Network({
      clock: new SystemClock(() => performance.now()),
      random: seededRandom(1),
      backends: nodeBackends,
      nics,
      hostIo,
    });
    hostIo.drive(network.loop);
    const stats: TapStats[] = [];
    for (const [id, namespace, address] of [
      ['a', A, '10.77.0.1'],
      ['b', B, '10.77.0.2'],
    ] as const) {
      const netdev = await network.addNetdev({
        type: 'tap',
        id,
        ifname: `${RUN}t${made++}`,
        script: joining(namespace, address),
        downscript: 'no',
        vnet_hdr: vnetHdr === 'on',
      });
      stats.push(netdev.stats as TapStats);
      await network.addNetdev({ type: 'hubport', id: `${id}p`, hubid: 0, netdev: id });
    }
    const ping = spawn('ip', ['netns', 'exec', A, 'ping', '-c', '3', '-i', '0.2', '-w', '10', '10.77.0.2'], {
      stdio: 'ignore',
    });
    expect(await new Promise((resolve) => ping.once('close', resolve))).toBe(0);
    const there = await transfer(false);
    const back = await transfer(true);
    expect(there.bytes).toBeGreaterThan(60 << 20);
    expect(back.bytes).toBeGreaterThan(60 << 20);
    const [wanted, got] = await hashes();
    expect(got).toBe(wanted);
    const frames = stats[0]!.rxFrames + stats[1]!.rxFrames;
    console.log(
      `tap to tap, vnet_hdr=${vnetHdr}: ${(there.bitsPerSecond / 1e9).toFixed(1)} and ${(back.bitsPerSecond / 1e9).toFixed(1)} Gbit/s, ${frames} frames, ${stats[0]!.rxOffloaded + stats[1]!.rxOffloaded} with work left to us`,
    );
    if (vnetHdr === 'on') {
      // 192 MiB in full-sized segments would be over 130,000 frames.
      expect(stats[0]!.rxOffloaded).toBeGreaterThan(1000);
      expect(stats[1]!.txOffloaded).toBe(stats[0]!.rxOffloaded);
      expect(frames).toBeLessThan(60_000);
    } else {
      expect(stats[0]!.rxOffloaded + stats[1]!.rxOffloaded).toBe(0);
    }
    network.close();
    expect(network.pool.free).toBe(network.pool.capacity);
    expect(hostIo.stats().openHandles).toBe(0);
    hostIo.shutdown();
  }, 120_000);
});

describe('a tap', () => {
  it('of four queues has four ports, which the kernel spreads flows over', async () => {
    const lab = new BackendLab();
    const backend = (await lab.open('tap', {
      ifname: `${RUN}q`,
      queues: 4,
      script: joining(A, '10.78.0.1'),
      downscript: 'no',
    })) as TapBackend;
    expect(backend.ports.length).toBe(4);
    const guests = backend.ports.map((_port, queue) => lab.guest(backend, queue));
    // A neighbour that needs no answer, and datagrams from many ports to it.
    ip('-n', A, 'neigh', 'add', '10.78.0.9', 'lladdr', '52:54:00:00:00:09', 'dev', `${RUN}q`);
    ip(
      'netns',
      'exec',
      A,
      'bash',
      '-c',
      'for i in $(seq 200); do echo x >/dev/udp/10.78.0.9/$((9000+i)); done',
    );
    await lab.until(() => guests.reduce((sum, { received }) => sum + received.length, 0) >= 200);
    expect(guests.filter(({ received }) => received.length > 0).length).toBeGreaterThan(1);
    expect((backend.stats as TapStats).rxFrames).toBeGreaterThanOrEqual(200);
    expect(backend.describe()).toMatch(new RegExp(`^ifname=${RUN}q,script=.*,downscript=no$`));
    await lab.end();
  });

  it('runs its scripts with its name, and says how they failed', async () => {
    const lab = new BackendLab();
    const log = join(folder, 'log');
    const up = script(`echo up "$1" >>${log}; ip link show dev "$1" >/dev/null`);
    const down = script(`echo down "$1" >>${log}; ip link show dev "$1" >/dev/null`);
    const backend = await lab.open('tap', { ifname: `${RUN}s`, script: up, downscript: down });
    lab.forget(backend);
    expect(readFileSync(log, 'utf8')).toBe(`up ${RUN}s\ndown ${RUN}s\n`);
    expect(lab.logged).toEqual([]);
    const bad = script('exit 3');
    expect(await lab.refusal('tap', { ifname: `${RUN}s`, script: bad, downscript: 'no' })).toBe(
      `network script ${bad} failed with status 3`,
    );
    expect(await lab.refusal('tap', { ifname: `${RUN}s`, script: '/no/such', downscript: 'no' })).toBe(
      'could not launch network script /no/such: No such file or directory',
    );
    expect(existsSync(`/sys/class/net/${RUN}s`)).toBe(false);
    const downBad = await lab.open('tap', { ifname: `${RUN}s`, script: 'no', downscript: bad });
    lab.forget(downBad);
    expect(lab.logged).toEqual([`network script ${bad} failed with status 3`]);
    await lab.end();
  });

  it('says that its interface is busy, and takes one by number or name', async () => {
    const lab = new BackendLab();
    await lab.open('tap', { ifname: `${RUN}b`, script: 'no', downscript: 'no' });
    expect(await lab.refusal('tap', { ifname: `${RUN}b`, script: 'no', downscript: 'no' })).toBe(
      `could not configure /dev/net/tun (${RUN}b): Device or resource busy`,
    );
    const open = lab.hostIo.tapOpen({ vnetHeader: false });
    lab.passedFds.set('mine', open.handle);
    const backend = await lab.open('tap', { fd: 'mine', sndbuf: '1M' });
    expect(backend.describe()).toBe('fd=mine');
    expect(backend.ports[0]!.accepts).toBe(0);
    await lab.end();
  });

  it('whose interface is removed goes down, says so, and drops what comes', async () => {
    const lab = new BackendLab();
    const backend = await lab.open('tap', {
      ifname: `${RUN}r`,
      script: joining(A, '10.79.0.1'),
      downscript: 'no',
    });
    const guest = lab.guest(backend);
    guest.send(packet(1));
    ip('-n', A, 'link', 'del', `${RUN}r`);
    await lab.until(() => !backend.ports[0]!.linkUp, 'link down');
    expect(lab.logged).toEqual([`interface ${RUN}r is gone`]);
    expect(guest.links.at(-1)).toBe(false);
    guest.send(packet(2));
    expect(guest.port.stats.dropLinkDown).toBe(1);
    await lab.end();
  });

  it('that is down drops frames, counted, and passes them when it is up', async () => {
    const lab = new BackendLab();
    const backend = await lab.open('tap', { ifname: `${RUN}d`, script: 'no', downscript: 'no' });
    const guest = lab.guest(backend);
    guest.send(packet(1));
    expect((backend.stats as TapStats).txDropUnreachable).toBe(1);
    await lab.end();
  });

  it('goes without vhost-net where there is none, or one that cannot be had, and says so', async () => {
    let openFile = (_path: string): number => {
      throw new Error('not to be opened');
    };
    let isThere = false;
    const lab = new BackendLab({
      services: {
        exists: (path) => (path === '/dev/vhost-net' ? isThere : nodeServices.exists(path)),
        openFile: (path) => openFile(path),
      },
    });
    const options = { ifname: `${RUN}v`, script: 'no', downscript: 'no', vhost: true };
    const lead = 'vhost-net requested but could not be initialized: ';
    const opened = async (more: object = {}): Promise<void> => {
      const backend = await lab.open('tap', { ...options, ...more });
      expect(backend.queueServer).toBeUndefined();
      lab.forget(backend);
    };
    await opened({ 'poll-us': 5 });
    isThere = true;
    openFile = () => {
      throw Object.assign(new Error('open'), { code: 'EACCES' });
    };
    await opened();
    // A device that is none: it knows none of the requests.
    openFile = () => openSync('/dev/null', 'r+');
    await opened();
    const reasons = [
      'there is no /dev/vhost-net (the vhost_net kernel module is not loaded)',
      'could not open /dev/vhost-net: Permission denied',
      'VHOST_SET_OWNER: Inappropriate ioctl for device',
    ];
    expect(lab.logged).toEqual([
      `tap: ${lead}${reasons[0]}; frames go by the tap itself, poll-us has no effect`,
      `tap: ${lead}${reasons[1]}; frames go by the tap itself`,
      `tap: ${lead}${reasons[2]}; frames go by the tap itself`,
    ]);
    expect(await lab.refusal('tap', { ...options, vhostforce: true })).toBe(`${lead}${reasons[2]}`);
    lab.passedFds.set('mine', lab.hostIo.eventFd());
    // Whoever passes a device gives it away.
    const passed = lab.open('tap', { ...options, vhostforce: true, vhostfd: 'mine' });
    await expect(passed).rejects.toThrow(`${lead}${reasons[2]}`);
    expect(lab.hostIo.stats().openHandles).toBe(0);
    await lab.end();
  });

  it('is refused to who may not, with the reason', () => {
    const program = join(folder, 'refused.mts');
    const secret = mkdtempSync(join(tmpdir(), 'netemu-secret-'));
    const inet = 'addr.type=inet,addr.host=127.0.0.1';
    const refused = [
      [
        'tap,id=a,ifname=x,script=no,downscript=no',
        'could not configure /dev/net/tun (x): Permission denied',
      ],
      [
        'l2tpv3,id=b,src=127.0.0.1,dst=127.0.0.1,txsession=1',
        'could not open raw IP socket: Operation not permitted (it needs CAP_NET_RAW; udp=on does not)',
      ],
      [
        `stream,id=c,server=on,addr.type=unix,addr.path=${secret}/s`,
        `Failed to bind socket to ${secret}/s: Permission denied`,
      ],
      [`stream,id=d,server=on,${inet},addr.port=80`, 'Failed to bind socket: Permission denied'],
      ['socket,id=e,listen=127.0.0.1:80', "can't bind ip=127.0.0.1 to socket: Permission denied"],
      [
        'socket,id=f,udp=127.0.0.1:9,localaddr=127.0.0.1:80',
        "can't bind ip=127.0.0.1 to socket: Permission denied",
      ],
      [
        `dgram,id=g,local.type=unix,local.path=${secret}/d,remote.type=unix,remote.path=${secret}/e`,
        `can't bind unix=${secret}/d to socket: Permission denied`,
      ],
      [`vde,id=h,sock=${secret}/vde`, `could not open vde switch '${secret}/vde': Permission denied`],
      ['websocket,id=i,listen=127.0.0.1:80', "can't bind ip=127.0.0.1 to socket: Permission denied"],
      [
        `bridge,id=j,helper=${secret}/helper`,
        `bridge helper failed: could not run ${secret}/helper: Permission denied`,
      ],
    ] as const;
    const at = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
    writeFileSync(
      program,
      `import { nodeBackends } from ${at('backends/index.ts')};
import { parseNetdev } from ${at('config/netdevs/index.ts')};
import { SystemClock, seededRandom } from ${at('core/clock.ts')};
import { createNativeHostIo } from ${at('host-io/native.ts')};
import { Network } from ${at('network/network.ts')};
process.setgroups([]); process.setgid(65534); process.setuid(65534);
const hostIo = createNativeHostIo();
const network = new Network({ clock: new SystemClock(() => performance.now()), random: seededRandom(1), backends: nodeBackends, nics: {}, hostIo });
for (const line of ${JSON.stringify(refused.map(([line]) => line))})
  await network.openNetdev(parseNetdev(line)).then(() => console.log('opened'), (error) => console.log(error.message));
`,
    );
    chmodSync(folder, 0o755);
    const out = execFileSync(process.execPath, ['--import', 'tsx', program], {
      cwd: new URL('../..', import.meta.url).pathname,
    });
    rmSync(secret, { recursive: true });
    expect(out.toString().trim().split('\n')).toEqual(refused.map(([, message]) => message));
  });
});

const HELPER = '/usr/lib/qemu/qemu-bridge-helper';
const ACL = '/etc/qemu/bridge.conf';

describe('the bridge helper', () => {
  const setuid = join(folder, 'qemu-bridge-helper');
  const asRoot = `ip netns exec ${A} ${HELPER}`;
  const asNobody = `ip netns exec ${A} setpriv --reuid=65534 --regid=65534 --clear-groups ${setuid}`;
  let acl: string | null = null;
  let tunMode = 0;

  beforeAll(() => {
    acl = existsSync(ACL) ? readFileSync(ACL, 'utf8') : null;
    mkdirSync('/etc/qemu', { recursive: true });
    writeFileSync(ACL, 'allow br0\n');
    chmodSync(ACL, 0o644);
    copyFileSync(HELPER, setuid);
    chmodSync(setuid, 0o4755);
    chmodSync(folder, 0o755);
    // As udev has it: the helper opens the device after it gave up being root.
    tunMode = statSync('/dev/net/tun').mode & 0o777;
    chmodSync('/dev/net/tun', 0o666);
  });

  afterAll(() => {
    chmodSync('/dev/net/tun', tunMode);
    if (acl === null) rmSync(ACL);
    else writeFileSync(ACL, acl);
  });

  pairSuite({
    name: 'bridge, qemu-bridge-helper as root',
    frameMaxBytes: 1514,
    async open(lab) {
      return [
        await lab.open('bridge', { helper: asRoot }),
        await lab.open('tap', { helper: asRoot, br: 'br0' }),
      ];
    },
  });

  it('works for an ordinary user whom the list allows, and for no other bridge', async () => {
    const lab = new BackendLab();
    const a = await lab.open('bridge', { helper: asNobody, br: 'br0' });
    const b = await lab.open('bridge', { helper: asNobody, br: 'br0' });
    expect(a.describe()).toBe(`helper=${asNobody},br=br0`);
    expect(a.ports[0]!.accepts).toBeGreaterThan(0);
    const guestA = lab.guest(a);
    const guestB = lab.guest(b);
    guestA.send(packet(1));
    await lab.until(() => guestB.received.length === 1);
    expect(tags(guestB.received)).toEqual([1]);
    expect(await lab.refusal('bridge', { helper: asNobody, br: 'br1' })).toBe('bridge helper failed');
    await lab.end();
  });
});

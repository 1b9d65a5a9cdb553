/**
 * The guest's file system: busybox, the network drivers, a few real network tools with their libraries, and an init that runs the steps of a
 * test. It is one cpio archive in the cache for each kernel; the steps of one run are a second, small archive behind it.
 *
 * The guest talks on two serial lines. ttyS0 is the console: kernel messages. ttyS1 is for the harness: the steps' output, lines that begin with
 * MARK ("begin NAME", "end NAME STATUS", "host WORD …"), and the harness's one-line answers to "host". Programs of the 686 image are busybox's, and iperf3.
 */

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureInstalled, forArchitecture, unpack } from './apt.ts';
import { cached, cachePath } from './cache.ts';
import { run } from './command.ts';
import { CpioWriter } from './cpio.ts';
import { ensureKernel, type Kernel, type KernelName } from './kernel.ts';
import { programFiles } from './program-files.ts';

export const MARK = '@@netemu ';

const MODULES = [
  ...[
    'e1000',
    '8139cp',
    '8139too',
    'virtio_net',
    'virtio_pci',
    'af_packet',
    '8021q',
    'macvlan',
    'pktgen',
    'bridge',
    'tun',
    'veth',
    'dummy',
  ],
  ...[
    'l2tp_eth',
    'l2tp_ip',
    'l2tp_ip6',
    'l2tp_netlink',
    'sch_fq_codel',
    'vhost_net',
    'virtio_rng',
    '9pnet_virtio',
    '9p',
    'uio_pci_generic',
  ],
];

const PROGRAMS = [
  '/usr/bin/dash',
  '/usr/bin/iperf3',
  '/usr/sbin/ethtool',
  '/usr/sbin/ip',
  '/usr/sbin/tc',
  '/usr/bin/tcpdump',
];
/** What the 686 image is made of: busybox, and iperf3 with all that it is linked with. */
const PACKAGES_I386 = ['busybox-static', 'iperf3', 'libiperf0', 'libsctp1', 'libssl3', 'libc6'];
const PACKAGES = ['busybox-static', 'iperf3', 'ethtool', 'iproute2', 'tcpdump', 'kmod'];

const INIT = `#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
busybox mkdir -p /dev/shm /tmp /var/run
busybox mount -t tmpfs tmpfs /tmp
busybox stty -F /dev/ttyS1 raw -echo
busybox ip link set lo up
for step in /steps/*; do
  name=\${step##*/}
  name=\${name#*-}
  echo "${MARK}begin $name" >/dev/ttyS1
  /bin/sh "$step" </dev/null >/dev/ttyS1 2>&1
  echo "${MARK}end $name $?" >/dev/ttyS1
done
poweroff -f
`;

/** \`host WORD …\` asks the harness for something, waits, and prints its answer. */
const HOST = `#!/bin/busybox sh
exec 3<>/dev/ttyS1
echo "${MARK}host $*" >&3
read -r reply <&3
echo "$reply"
`;

const UDHCPC = `#!/bin/busybox sh
case "$1" in
deconfig) busybox ip addr flush dev $interface; busybox ip link set $interface up ;;
bound|renew)
  busybox ip addr flush dev $interface
  busybox ip addr add $ip/$mask dev $interface
  if [ -n "$router" ]; then busybox ip route add default via \${router%% *} dev $interface; fi
  : >/etc/resolv.conf
  for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
  if [ -n "$domain" ]; then echo "search $domain" >>/etc/resolv.conf; fi
  env | grep -E '^(ip|mask|subnet|router|dns|domain|search|serverid|lease|hostname|tftp|boot_file|siaddr|mtu|ntpsrv|broadcast)=' >/tmp/lease.$interface
  ;;
esac
`;

/** Adds the wanted modules, and what they need, with tables that busybox's modprobe reads. */
function addModules(archive: CpioWriter, from: Kernel): void {
  const folder = `lib/modules/${from.version}`;
  const table = readFileSync(join(from.root, folder, 'modules.dep'), 'utf8')
    .trim()
    .split('\n');
  const rows = new Map(table.map((row) => [basename(row.split(':')[0]!, '.ko'), row]));
  const kept = new Set<string>();
  const keep = (row: string): void => {
    if (kept.has(row)) return;
    kept.add(row);
    for (const path of row.replace(':', '').split(' ')) {
      const needed = rows.get(basename(path, '.ko'));
      if (needed !== undefined) keep(needed);
    }
  };
  for (const name of MODULES) {
    // What is built in has no row.
    const row = rows.get(name);
    if (row !== undefined) keep(row);
  }
  for (const row of kept) {
    const path = `${folder}/${row.split(':')[0]}`;
    archive.file(path, readFileSync(join(from.root, path)));
  }
  archive.file(`${folder}/modules.dep`, `${[...kept].join('\n')}\n`);
  for (const name of ['modules.alias', 'modules.builtin', 'modules.symbols']) {
    archive.file(`${folder}/${name}`, readFileSync(join(from.root, folder, name)));
  }
}

/** Adds a program of this machine with the libraries it is linked with. */
async function addProgram(archive: CpioWriter, path: string): Promise<void> {
  for (const [place, content] of Object.entries(await programFiles(path)))
    if (!archive.has(place)) archive.file(place, content, 0o755);
}

/** Adds iperf3 of the i386 packages in `root`, with its libraries, which its own loader finds there. */
async function addIperf32(archive: CpioWriter, root: string): Promise<void> {
  const find = (name: string): string =>
    ['usr/lib/i386-linux-gnu', 'lib/i386-linux-gnu', 'usr/lib', 'lib']
      .map((folder) => join(root, folder, name))
      .find((path) => existsSync(path))!;
  const program = join(root, 'usr/bin/iperf3');
  const loader = find('ld-linux.so.2');
  const folders = [find('libc.so.6'), find('libiperf.so.0')].map(dirname).join(':');
  archive.file('usr/bin/iperf3', readFileSync(program), 0o755);
  archive.file('lib/ld-linux.so.2', readFileSync(loader), 0o755);
  const list = await run(loader, ['--library-path', folders, '--list', program]);
  for (const [, name, path] of list.matchAll(/^\s*(\S+) => (\S+) \(0x/gm))
    if (name !== 'ld-linux.so.2') archive.file(`lib/${name}`, readFileSync(path!), 0o755);
}

/** Makes the image unless the cache has it, made by this very file for this kernel; returns its path. */
export async function ensureInitramfs(name: KernelName): Promise<string> {
  const from = await ensureKernel(name);
  const recipe = createHash('sha256')
    .update(readFileSync(fileURLToPath(import.meta.url)))
    .update(from.version)
    .digest('hex')
    .slice(0, 12);
  const folder = await cached(`initramfs-${name}-${recipe}`, async (scratch) => {
    await ensureInstalled(...PACKAGES);
    const archive = new CpioWriter();
    for (const path of ['proc', 'sys', 'dev', 'run', 'tmp', 'root', 'var', 'mnt']) archive.directory(path);
    archive.device('dev/console', 5, 1);
    archive.device('dev/null', 1, 3);
    archive.file('init', INIT, 0o755);
    archive.file('bin/host', HOST, 0o755);
    archive.file('usr/share/udhcpc/default.script', UDHCPC, 0o755);
    archive.file('etc/udhcpc/default.script', UDHCPC, 0o755);
    archive.file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n');
    archive.file('etc/hosts', '127.0.0.1 localhost\n');
    archive.file('etc/nsswitch.conf', 'hosts: files dns\n');
    const i386 = join(scratch, 'i386');
    if (name === '686')
      await unpack(PACKAGES_I386, i386, await forArchitecture('i386', cachePath('lists-i386')));
    const busybox =
      name === 'amd64'
        ? '/bin/busybox'
        : [join(i386, 'bin/busybox'), join(i386, 'usr/bin/busybox')].find((path) => existsSync(path))!;
    archive.file('bin/busybox', readFileSync(busybox), 0o755);
    const programs = name === 'amd64' ? PROGRAMS : [];
    const names = new Set(programs.map((path) => basename(path)));
    // busybox's shell runs its own applets before any program of the same name (ip, tc); dash does not.
    const shell = names.has('dash') ? 'sh' : undefined;
    for (const applet of (await run(busybox, ['--list'])).trim().split('\n')) {
      if (applet !== 'busybox' && applet !== shell && !names.has(applet))
        archive.link(`bin/${applet}`, 'busybox');
    }
    for (const path of programs) await addProgram(archive, path);
    if (name === '686') await addIperf32(archive, i386);
    if (names.has('dash')) archive.link('bin/sh', '/usr/bin/dash');
    addModules(archive, from);
    rmSync(i386, { recursive: true, force: true });
    writeFileSync(join(scratch, 'initramfs.cpio'), archive.finish());
  });
  return join(folder, 'initramfs.cpio');
}

/** Writes the image of one run: the cached one, and behind it the steps and other files by path (those are made executable). */
export function writeRunImage(
  base: string,
  steps: Readonly<Record<string, string>>,
  files: Readonly<Record<string, Uint8Array | string>>,
  target: string,
): void {
  const archive = new CpioWriter();
  let number = 0;
  for (const [name, script] of Object.entries(steps)) {
    if (!/^[A-Za-z0-9._-]+$/.test(name)) throw new Error(`a step's name must be one word: ${name}`);
    archive.file(`steps/${String(number++).padStart(3, '0')}-${name}`, script);
  }
  for (const [path, content] of Object.entries(files)) archive.file(path.replace(/^\//, ''), content, 0o755);
  const first = readFileSync(base);
  writeFileSync(target, Buffer.concat([first, new Uint8Array(-first.length & 511), archive.finish()]));
}

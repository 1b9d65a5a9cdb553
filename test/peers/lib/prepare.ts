/**
 * Everything that test/peers/ needs on a Debian 12 machine, by name; each is prepared once and kept (see cache.ts). Tests prepare what they use;
 * `npx tsx test/peers/lib/prepare.ts [NAME…]` does it beforehand, for the names given or for all. Needs root, for apt and chroot.
 */

import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ensureInstalled } from './apt.ts';
import { ensureDpdk } from './dpdk.ts';
import { ensureForky } from './forky.ts';
import { ensureInitramfs } from './initramfs.ts';
import { ensureKernel } from './kernel.ts';
import { ensureOvs } from './ovs.ts';

interface Peer {
  prepare: () => Promise<unknown>;
}

const debian = (...packages: string[]): Peer => ({ prepare: () => ensureInstalled(...packages) });
const forky = (...packages: string[]): Peer => ({ prepare: () => ensureForky(...packages) });

const PEERS = {
  'qemu-7.2': debian('qemu-system-x86', 'qemu-system-common', 'seabios', 'ipxe-qemu'),
  'qemu-11.1': forky('qemu-system-x86', 'qemu-system-common', 'seabios', 'ipxe-qemu'),
  'kernel-amd64': { prepare: () => ensureKernel('amd64') },
  'kernel-686': { prepare: () => ensureKernel('686') },
  'initramfs-amd64': { prepare: () => ensureInitramfs('amd64') },
  'initramfs-686': { prepare: () => ensureInitramfs('686') },
  tools: debian('iperf3', 'iproute2', 'iputils-ping', 'ethtool', 'tcpdump', 'curl', 'procps', 'util-linux'),
  'network-clients': debian(
    'bind9-dnsutils',
    'busybox-static',
    'netbase',
    'netcat-openbsd',
    'tftp-hpa',
    'traceroute',
    'udhcpc',
    'isc-dhcp-client',
    'nmap',
    'smbclient',
    'samba',
    'openssh-server',
    'openssh-client',
    'curl',
  ),
  'network-servers': debian('nginx-light', 'dnsmasq-base'),
  tshark: debian('tshark', 'tcpdump'),
  vde: debian('vde2'),
  slirp4netns: debian('slirp4netns'),
  passt: debian('passt'),
  'passt-forky': forky('passt'),
  chromium: debian('chromium'),
  qmp: forky('python3', 'python3-qemu-qmp'),
  firmware: debian('seabios', 'ipxe-qemu'),
  'firmware-uefi': debian('ovmf'),
  'firmware-u-boot': debian('u-boot-qemu'),
  dpdk: { prepare: ensureDpdk },
  'ovs-dpdk': { prepare: ensureOvs },
} satisfies Record<string, Peer>;

export type PeerName = keyof typeof PEERS;

const rows: Readonly<Record<string, Peer>> = PEERS;

/** Prepares what is named. */
export async function prepare(names: readonly string[]): Promise<void> {
  for (const name of names) {
    const peer = rows[name];
    if (peer === undefined)
      throw new Error(`no peer is called ${name}; there are: ${Object.keys(PEERS).join(' ')}`);
    await peer.prepare();
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const wanted = process.argv.slice(2);
  const names = wanted.length > 0 ? wanted : Object.keys(rows);
  for (const name of names) {
    const start = performance.now();
    await prepare([name]);
    console.log(`${name}: ready (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  }
}

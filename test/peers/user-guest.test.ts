/**
 * A Linux guest under QEMU on the user network, its virtio-net's rings in netemu's hands (vhost-user): the same programs that run in a namespace
 * (user-clients.test.ts, user-routes.test.ts), all in one boot. Its second NIC is on the user network of a host with routers behind it.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { guestProgram } from './lib/guest-program.ts';
import { GuestShell } from './lib/guest-shell.ts';
import { RunningNetemu } from './lib/netemu.ts';
import { prepare } from './lib/prepare.ts';
import { programFiles } from './lib/program-files.ts';
import { type Place, userClients } from './lib/user-clients.ts';
import { ROUTED4, ROUTED6, Routes, userRoutes } from './lib/user-routes.ts';
import { UserServices } from './lib/user-services.ts';
import { LEASE, LOAD, vhostUserArgs } from './vhost-user/rig.ts';

/** NETEMU_GIB=1: a GiB by curl in each family, which takes minutes. */
const DOWN_BYTES = process.env.NETEMU_GIB === '1' ? 1 << 30 : 64 << 20;
const MAC = '52:54:00:aa:bb:cc';
const ROUTED_MAC = '52:54:00:aa:bb:dd';
/** What the guest makes of the advertised prefix and its MAC (RFC 4862, RFC 4291 appendix A). */
const ADDRESS6 = 'fec0::5054:ff:feaa:bbcc';
const PROGRAMS = [
  ...['/usr/bin/curl', '/usr/bin/dig', '/usr/bin/nmap', '/usr/bin/ping', '/usr/bin/smbclient'],
  ...['/usr/bin/tftp', '/usr/bin/traceroute', '/usr/sbin/dhclient', '/usr/sbin/sshd'],
];
const DATA = [
  '/etc/protocols',
  '/etc/services',
  '/usr/share/nmap/nmap-services',
  '/usr/share/nmap/nmap-payloads',
];

const folder = mkdtempSync(join(tmpdir(), 'netemu-user-guest-'));
let services: UserServices;
const routes = new Routes();
let netemu: RunningNetemu;
let routed: RunningNetemu;
let shell: GuestShell;
let setUp: string;
let place: Place;

beforeAll(async () => {
  await prepare(['tools', 'network-clients', 'qemu-11.1']);
  services = await UserServices.start();
  await routes.open();
  const path = join(folder, 'vm.sock');
  const routedPath = join(folder, 'routed.sock');
  netemu = new RunningNetemu([
    '--netdev',
    `user,id=n0,${services.netdevOptions(ADDRESS6)}`,
    '--device',
    `virtio-net-pci,netdev=n0,id=nic0,vhost-user=${path},server=on`,
  ]);
  await netemu.until(/served by vhost-user/);
  routed = new RunningNetemu(
    [
      '--netdev',
      'user,id=n0,net=10.0.3.0/24,ipv6-prefix=fec1::',
      '--device',
      `virtio-net-pci,netdev=n0,id=nic0,vhost-user=${routedPath},server=on`,
    ],
    { namespace: routes.host },
  );
  await routed.until(/served by vhost-user/);
  const data = DATA.map((name) => [name.slice(1), readFileSync(name)] as const);
  const started = await GuestShell.start(
    {
      qemu: '11.1',
      sharedMemory: true,
      memoryMiB: 768,
      timeoutMs: 840_000,
      args: [
        ...vhostUserArgs({ qemu: '11.1', path, listen: true, mac: MAC }),
        ...vhostUserArgs({ qemu: '11.1', path: routedPath, listen: true, mac: ROUTED_MAC, id: 'routed' }),
      ],
      files: {
        ...(await programFiles(...PROGRAMS)),
        ...Object.fromEntries(data),
        'bin/udp-flows': await guestProgram('udp-flows'),
        'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n',
        'etc/samba/smb.conf': '[global]\n',
      },
    },
    // An address is there to be used when the guest has found that nobody else has it.
    `set -e; ${LOAD}; ${LEASE}; n=0
    until ip -6 -o addr show dev eth0 scope site -tentative | grep ${ADDRESS6}; do n=$((n+1)); [ $n -lt 300 ]; sleep 0.1; done
    ethtool -i eth0; ip -6 route
    ip -o link show dev eth1 | grep -q ${ROUTED_MAC}
    echo 0 >/proc/sys/net/ipv6/conf/eth1/accept_ra
    ip addr add 10.0.3.15/24 dev eth1; ip addr add fec1::15/64 dev eth1 nodad; ip link set eth1 up
    for net in ${ROUTED4.join(' ')}; do ip route add $net via 10.0.3.2; done
    for net in ${ROUTED6.join(' ')}; do ip -6 route add $net via fec1::2; done`,
  );
  shell = started.shell;
  setUp = started.said;
  place = {
    shell,
    said: () => netemu.output,
    ifname: 'eth0',
    mtu: null,
    folder: '/tmp',
    udpFlows: '/bin/udp-flows',
  };
});

afterAll(async () => {
  const result = await shell?.close();
  await netemu?.stop();
  await routed?.stop();
  await routes.close();
  await services?.close();
  rmSync(folder, { recursive: true });
  expect(result?.exitCode).toBe(0);
});

it('the driver is virtio_net, and the router is known by both families', () => {
  expect(setUp).toContain('driver: virtio_net');
  expect(setUp).toMatch(/^default via fe80::\S+ dev eth0 proto ra/m);
});

describe('clients', () => {
  userClients(
    () => place,
    () => services,
    { downBytes: DOWN_BYTES, upBytes: 64 << 20, iperfBytes: 128 << 20, sshBytes: 4 << 20 },
  );
});

describe('a host with routers behind it', () => {
  userRoutes(() => ({ shell, gateway4: '10.0.3.2', gateway6: 'fec1::2' }));
});

it('the kernel log has no complaint', async () => {
  const { output } = await shell.run('dmesg -r');
  const complaints = output
    .split('\n')
    .filter((line) => /virtio|eth0|NETDEV WATCHDOG|soft lockup|not a head|oom|out of memory/i.test(line))
    .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
  expect(complaints).toEqual([]);
});

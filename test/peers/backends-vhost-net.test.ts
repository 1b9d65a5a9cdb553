/**
 * vhost-net: this machine's kernel has none, Debian's in a QEMU guest does. netemu runs in that guest, on this machine's files (9p, read-only): the kernel serves the
 * queues of the virtio-net that the probe drives, on a tap of a bridge, behind which another netemu has the user network.
 *
 *     probe ── virtio-net, rings in a file ◀── vhost-net ──▶ tapv ── br0 ── tapu ── netemu: tap, hub, user ── httpd
 */

import { createHash, randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { type GuestResult, runGuest } from './lib/guest.ts';
import { prepare } from './lib/prepare.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const MAIN = 'dist/cli/main.js';
const blob = randomBytes(1 << 20);
const sha256 = createHash('sha256').update(blob).digest('hex');

/** A shell command that runs netemu with this machine's files. */
const netemu = (...words: string[]) =>
  `chroot /host /bin/sh -c 'cd ${ROOT} && exec ${process.execPath} ${MAIN} ${words.join(' ')}'`;
const tap = (id: string, options = '') =>
  `--netdev tap,id=${id},ifname=${id},script=no,downscript=no${options}`;
const job = `probe,once,get=http://10.0.2.2:8000/blob,expect-sha256=${sha256}`;

describe('vhost-net', () => {
  let result: GuestResult;

  beforeAll(async () => {
    await prepare(['tools', 'qemu-7.2']);
    const run = (device: string, tapOptions: string) =>
      netemu(tap('tapv', tapOptions), `--device ${device},netdev=tapv,id=nic`, `--guest ${job}`);
    // The user network, whose DNS servers do not answer here, is not at fault: what was fetched is looked at.
    const watched = (command: string) => `${command} >/tmp/log 2>&1 & pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q 'GET http' /tmp/log; do
  cat /proc/[0-9]*/comm 2>/dev/null | grep '^vhost-' >>/tmp/workers
  busybox usleep 300000
done
kill $pid; wait; grep -a nic: /tmp/log || cat /tmp/log
echo workers: $(sort -u /tmp/workers | wc -l); rm /tmp/workers
cat /proc/[0-9]*/comm | grep -c '^vhost-'`;
    result = await runGuest({
      qemu: '7.2',
      memoryMiB: 768,
      timeoutMs: 500_000,
      args: ['-virtfs', 'local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap'],
      files: { '/www/blob': blob },
      script: {
        start: `set -e
modprobe virtio_pci; modprobe 9pnet_virtio; modprobe 9p; modprobe tun; modprobe vhost_net; modprobe bridge
mkdir /host; busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 host /host
for fs in dev proc sys; do busybox mount --bind /$fs /host/$fs; done
ls -l /dev/vhost-net
ip link add br0 type bridge mcast_snooping 0; ip link set br0 up
for t in tapu tapv; do ip tuntap add dev $t mode tap vnet_hdr; ip link set $t master br0 up; done
busybox httpd -p 127.0.0.1:8000 -h /www
${netemu(tap('tapu'), '--netdev user,id=u', '--netdev hubport,id=a,hubid=0,netdev=tapu', '--netdev hubport,id=b,hubid=0,netdev=u')} >/tmp/user.log 2>&1 &
until [ "$(cat /sys/class/net/tapu/carrier)" = 1 ]; do busybox usleep 100000; done`,
        modern: watched(run('virtio-net-pci', ',vhost=on,vhostforce=on,poll-us=20')),
        legacy: watched(run('virtio-net-pci,disable-modern=on,mrg_rxbuf=off', ',vhost=on,vhostforce=on')),
        other: watched(run('e1000', ',vhost=on,vhostforce=on')),
      },
    });
  }, 600_000);

  it.each([
    ['a virtio-net of version 1', 'modern'],
    ['a legacy virtio-net, with the short header', 'legacy'],
  ])('serves %s: lease, ping, 1 MiB with the right hash, by a worker of the kernel', (_name, step) => {
    const told = result.ok('start') && (result.steps.find(({ name }) => name === step)?.output ?? '');
    expect(told, told).toContain('DHCP lease 10.0.2.15/24');
    expect(told).toContain('ping 10.0.2.2');
    expect(told).toContain(`200 OK, 1048576 bytes, sha256 ${sha256}`);
    expect(told).toContain('workers: 1');
    // And none is left.
    expect(told.trim().endsWith('\n0'), told).toBe(true);
  });

  it('leaves the frames of another NIC to the tap', () => {
    const told = result.steps.find(({ name }) => name === 'other')?.output ?? '';
    expect(told).toContain(`200 OK, 1048576 bytes, sha256 ${sha256}`);
  });
});

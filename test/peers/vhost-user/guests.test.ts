/**
 * QEMU's virtio-net-pci with its rings in netemu's hands (`-netdev vhost-user`), Linux's virtio_net in the guest and the user network behind: split and packed rings, two queue pairs,
 * either side owning the socket, a reboot, the driver unloaded and loaded, and a back-end that goes away and comes back while the guest runs.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type GuestResult, type QemuVersion, runGuest } from '../lib/guest.ts';
import { prepare } from '../lib/prepare.ts';
import { startWebServer, type WebServer } from '../vfio-user/services.ts';
import { LEASE, LOAD, Rig, type Seat } from './rig.ts';

const MiB = 1 << 20;
const UP = `ip link set eth0 up && ${LEASE}`;

interface Case {
  name: string;
  qemu: QemuVersion;
  listen: boolean;
  queues: number;
  /** More properties of QEMU's device. */
  properties: string;
}

const CASES: readonly Case[] = [
  { name: 'split, we listen', qemu: '11.1', listen: true, queues: 1, properties: '' },
  { name: 'packed, we connect', qemu: '11.1', listen: false, queues: 1, properties: ',packed=on' },
  {
    name: 'two queue pairs, without mergeable buffers',
    qemu: '11.1',
    listen: true,
    queues: 2,
    properties: ',mq=on,vectors=6,mrg_rxbuf=off',
  },
  { name: 'QEMU 7.2, INTx', qemu: '7.2', listen: true, queues: 1, properties: '' },
];

describe.each(CASES)('$name', (it) => {
  const { qemu, listen, queues, properties } = it;
  let rig: Rig;
  let seat: Seat;
  // Where a packed ring stands nobody knows when its back-end is gone: the driver is loaded anew.
  const isPacked = properties.includes('packed');
  let web: WebServer;
  let result: GuestResult;
  const fds: number[] = [];
  let boots = 0;

  beforeAll(async () => {
    await prepare(['tools']);
    const device = { driver: 'virtio-net-pci', netdev: 'n0', id: 'nic0', packed: true };
    rig = await Rig.make({ type: 'user', id: 'n0' });
    seat = rig.seat((queues > 1 ? { ...device, mq: true, queues } : device) as never, listen);
    web = await startWebServer(64 * MiB);
    const file = `http://10.0.2.2:${web.port}/file`;
    result = await runGuest({
      qemu,
      sharedMemory: true,
      memoryMiB: 512,
      args: seat.qemuArgs({ qemu, queues, properties }),
      timeoutMs: 400_000,
      host: {
        boot: () => `boot ${++boots}`,
        restart: () => {
          seat.backend.close();
          fds.push(rig.hostIo.stats().openHandles);
          seat.serve();
          return 'restarted';
        },
        handles: () => {
          fds.push(rig.hostIo.stats().openHandles);
          return 'counted';
        },
      },
      script: {
        bind: `set -e; ${LOAD}; ${LEASE}; ethtool -i eth0; cat /sys/bus/virtio/devices/virtio0/features`,
        ping: 'ping -c 5 -A 10.0.2.2 && ping -c 5 -A -s 1400 10.0.2.2',
        // Everything from here on runs in the guest that was rebooted.
        reboot: '[ "$(host boot)" = "boot 2" ] || reboot -f',
        queues: `ethtool -L eth0 combined ${queues}; ethtool -l eth0`,
        download: `wget -q -O /tmp/file ${file} && sha256sum </tmp/file`,
        upload: `wget -q -O - --post-file /tmp/file ${file}`,
        reload: `set -e; for i in $(seq 5); do rmmod virtio_net; modprobe virtio_net; done; ${UP}; ping -c 3 -A 10.0.2.2`,
        back: `set -e; host handles; host restart; n=0; until ${isPacked ? `rmmod virtio_net; modprobe virtio_net; ${UP} &&` : ''} ping -c 1 -W 1 10.0.2.2; do n=$((n+1)); [ $n -lt 60 ]; sleep 0.2; done; host handles; ping -c 3 -A 10.0.2.2`,
        again: `wget -q -O - ${file} | sha256sum`,
        dmesg: 'dmesg -r',
      },
    });
  });

  afterAll(() => {
    web?.close();
    rig?.close();
  });

  test('the driver binds and a DHCP lease is taken', () => {
    expect(result.ok('bind')).toContain('driver: virtio_net');
    const bits = result.ok('bind').match(/^[01]{64}$/m)?.[0] ?? '';
    expect([bits[32], bits[34]]).toEqual(['1', isPacked ? '1' : '0']);
    // RING_RESET: QEMU would offer it if we did, and never tell us of a ring that was reset.
    expect(bits[40]).toBe('0');
  });

  test('the gateway answers pings', () => {
    expect(result.ok('ping').match(/5 packets received/g)?.length).toBe(2);
  });

  test('64 MiB come down and go up with the right hash, in large frames', () => {
    expect(result.ok('download')).toContain(web.fileHash);
    expect(result.ok('upload')).toContain('stored');
    expect(web.uploadHash()).toBe(web.fileHash);
    expect(seat.nic.stats.txSegmentations).toBeGreaterThan(500);
    expect(seat.nic.stats.txBorrowed).toBeGreaterThan(500);
  });

  test('the queue pairs that were asked for are there', () => {
    expect(result.ok('queues')).toMatch(new RegExp(`Combined:\\s+${queues}`));
  });

  test('the driver is unloaded and loaded', () => {
    expect(result.ok('reload')).toContain('3 packets received');
  });

  test('the back-end goes away and comes back, and holds as much as before', () => {
    expect(result.ok('back')).toContain('3 packets received');
    expect(result.ok('again')).toContain(web.fileHash);
    expect(fds[2]).toBe(fds[0]);
  });

  test('no ring was broken and no message was bad', () => {
    expect(seat.nic.stats).toMatchObject({ brokenRings: 0, badKick: 0 });
    expect(seat.backend.wireStats.badMessages).toBe(0);
  });

  test('the kernel log has no complaint', () => {
    const complaints = result
      .ok('dmesg')
      .split('\n')
      .filter((line) => /virtio|eth0|NETDEV WATCHDOG|soft lockup|not a head/i.test(line))
      .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
    expect(complaints).toEqual([]);
  });
});

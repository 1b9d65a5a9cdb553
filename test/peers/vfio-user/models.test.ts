/**
 * Every other NIC model over vfio-user with Linux's own driver for it: a row is a model. e1000 has a file of its own (e1000.test.ts), with everything a driver does;
 * here is what tells whether transport, interrupts and DMA of a model work in a real guest.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DeviceInput } from '../../../src/config/devices/index.ts';
import { type GuestResult, runGuest } from '../lib/guest.ts';
import { prepare } from '../lib/prepare.ts';
import { Rig } from './rig.ts';
import { startWebServer, uploadCommand, type WebServer } from './services.ts';

interface Row {
  name: string;
  device: DeviceInput;
  /** In the order of loading; unloaded the other way round. */
  modules: string[];
  driver: string;
  /** What /proc/interrupts must show of it. */
  interrupts: RegExp;
}

const ROWS: Row[] = [
  {
    name: 'virtio-net',
    device: { driver: 'virtio-net-pci', netdev: 'n0', id: 'nic0' },
    modules: ['virtio_pci', 'virtio_net'],
    driver: 'virtio_net',
    interrupts: /[1-9]\d* +PCI-MSI .*virtio0-input\.0/,
  },
  {
    name: 'virtio-net, packed rings',
    device: { driver: 'virtio-net-pci', netdev: 'n0', id: 'nic0', packed: true },
    modules: ['virtio_pci', 'virtio_net'],
    driver: 'virtio_net',
    interrupts: /[1-9]\d* +PCI-MSI .*virtio0-input\.0/,
  },
];

const MiB = 1 << 20;

describe.each(ROWS)('$name', (row) => {
  let rig: Rig;
  let web: WebServer;
  let result: GuestResult;

  beforeAll(async () => {
    await prepare(['tools']);
    rig = await Rig.make({ netdev: { type: 'user', id: 'n0' }, device: row.device, busyPollNs: 20_000 });
    web = await startWebServer(16 * MiB);
    const file = `http://10.0.2.2:${web.port}/file`;
    const load = row.modules.map((name) => `modprobe ${name}`).join('; ');
    const unload = row.modules
      .map((name) => `rmmod ${name}`)
      .reverse()
      .join('; ');
    const up = 'ip link set eth0 up && udhcpc -n -q -t 10 -T 1 -i eth0';
    result = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      args: rig.qemuArgs(),
      timeoutMs: 240_000,
      host: {
        link: (state) => {
          rig.network.setLink('nic0', state === 'up');
          return 'done';
        },
      },
      script: {
        bind: `${load}; ethtool -i eth0 && ${up} && ping -c 5 -A 10.0.2.2`,
        download: `wget -q -O /tmp/file ${file} && sha256sum </tmp/file`,
        upload: uploadCommand('/tmp/file', '10.0.2.2', web.port),
        interrupts: 'cat /proc/interrupts',
        carrier: `set -e; n=0; host link down; while [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do n=$((n+1)); [ $n -lt 200 ]; sleep 0.1; done
          host link up; while [ "$(cat /sys/class/net/eth0/carrier)" = 0 ]; do n=$((n+1)); [ $n -lt 200 ]; sleep 0.1; done
          n=0; until ping -c 1 -W 1 10.0.2.2; do n=$((n+1)); [ $n -lt 50 ]; sleep 0.1; done`,
        reload: `set -e; for i in 1 2 3 4 5; do ${unload}; ${load}; done; ${up}; ping -c 3 -A 10.0.2.2`,
        dmesg: 'dmesg -r',
      },
    });
  });
  afterAll(() => {
    rig?.close();
    web?.close();
  });

  test('the driver binds, takes a lease and reaches the gateway', () => {
    expect(result.ok('bind')).toContain(`driver: ${row.driver}`);
    expect(result.ok('bind')).toContain('5 packets received');
  });

  test('it is interrupted the way it should be', () => {
    expect(result.ok('interrupts')).toMatch(row.interrupts);
  });

  test('16 MiB come down and go up with the right hash', () => {
    expect(result.ok('download')).toContain(web.fileHash);
    expect(result.ok('upload')).toContain('stored');
    expect(web.uploadHash()).toBe(web.fileHash);
  });

  test('the link goes down and up', () => {
    expect(result.ok('carrier')).toContain('1 packets received');
  });

  test('the driver is unloaded and loaded again and again', () => {
    expect(result.ok('reload')).toContain('3 packets received');
  });

  test('the kernel has nothing to complain about', () => {
    const complaints = result
      .ok('dmesg')
      .split('\n')
      .filter((line) => /virtio|8139|eth0|0000:00:02\.0|Hang|NETDEV WATCHDOG|nobody cared/i.test(line))
      .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
    expect(complaints, result.ok('dmesg')).toEqual([]);
  });
});

/**
 * Linux's two rtl8139 drivers in a QEMU 11.1 guest over vfio-user, with the user network behind: 8139cp takes revision 0x20 and drives the C+ rings, 8139too takes
 * revision 0x10 and the classic registers. One boot each goes through all a driver does; each test looks at one step of it.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readCounters } from '../../../src/core/stats.ts';
import { type GuestResult, runGuest } from '../lib/guest.ts';
import { Iperf, iperfCommand } from '../lib/iperf.ts';
import { prepare } from '../lib/prepare.ts';
import {
  captureOf,
  expectNoStall,
  expectOffloads,
  expectSegmentation,
  expectVlans,
  iperfSteps,
  type MatrixNotes,
  matrixHandlers,
  offloadSteps,
  VLAN_STEPS,
} from './matrix.ts';
import { Rig } from './rig.ts';
import { startWebServer, uploadCommand, type WebServer } from './services.ts';

const MiB = 1 << 20;
const UP = 'ip link set eth0 up && udhcpc -n -q -t 10 -T 1 -i eth0';
const UNTIL =
  'until_ok() { n=0; until eval "$1"; do n=$((n+1)); [ $n -gt 200 ] && return 1; sleep 0.1; done; }';

describe.each([
  { chip: '8139c+', driver: '8139cp' },
  { chip: '8139c', driver: '8139too' },
] as const)('$driver on $chip', ({ chip, driver }) => {
  let rig: Rig;
  let web: WebServer;
  let small: WebServer;
  let iperf: Iperf;
  const matrix: MatrixNotes = { vlan: new Map() };
  let result: GuestResult;
  const answers = new Map<string, unknown>();

  beforeAll(async () => {
    await prepare(['tools', 'tshark']);
    rig = await Rig.make({
      netdev: { type: 'user', id: 'n0' },
      device: { driver: 'rtl8139', netdev: 'n0', id: 'nic0', chip, mac: '52:54:00:aa:bb:cc', strict: true },
      busyPollNs: 20_000,
    });
    web = await startWebServer(64 * MiB);
    small = await startWebServer(4 * MiB);
    iperf = await Iperf.start();
    const file = `http://10.0.2.2:${web.port}/file`;
    // The 8139C has none.
    const offloads = {
      offloadsOn: `for o in tso sg tx; do ethtool -K eth0 $o on; done; ethtool -k eth0; ${uploadCommand('/tmp/file', '10.0.2.2', web.port)}; host note plain; ${iperfCommand(iperf.port, '-n 16M')} >/dev/null; host note cut`,
      offloadsOff: `for o in tso tx rx; do ethtool -K eth0 $o off; done; ${uploadCommand('/tmp/file', '10.0.2.2', web.port)}; wget -q -O - ${file} | sha256sum`,
    };
    result = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      memoryMiB: 512,
      args: rig.qemuArgs(),
      timeoutMs: 500_000,
      host: {
        link: (state) => {
          rig.network.setLink('nic0', state === 'up');
          return 'done';
        },
        note: (name) => {
          const { nic } = rig.device;
          answers.set(name, name.startsWith('filter') ? nic.queryRxFilter('nic0') : readCounters(nic.stats));
          return 'noted';
        },
        ...matrixHandlers(rig, () => readCounters(rig.device.nic.stats), matrix),
        capture: () => {
          const file = captureOf(rig, 'vlan');
          rig.network.addObject({ 'qom-type': 'filter-dump', id: 'd0', netdev: 'n0', file });
          return 'done';
        },
      },
      script: {
        bind: `set -e; modprobe ${driver}; ${UP}; cat /sys/class/net/eth0/address; ethtool -i eth0`,
        ping: 'ping -c 5 -A 10.0.2.2',
        features: 'ethtool -k eth0',
        download: `wget -q -O /tmp/file ${file} && sha256sum </tmp/file`,
        upload: uploadCommand('/tmp/file', '10.0.2.2', web.port),
        ...(chip === '8139c+' ? offloads : {}),
        statistics:
          'ethtool -S eth0; cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/tx_errors; ethtool eth0',
        carrier: `set -e; ${UNTIL}; carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = $1 ]; }
          carrier 1; host link down; until_ok "carrier 0"; host link up; until_ok "carrier 1"; until_ok "ping -c 1 -W 1 10.0.2.2"`,
        promiscuous:
          'set -e; host note filter-plain; ip link set eth0 promisc on; host note filter-promiscuous; ip link set eth0 promisc off; host note filter-again',
        multicast:
          'set -e; ip maddr add 01:00:5e:11:22:33 dev eth0; host note filter-joined; ip maddr del 01:00:5e:11:22:33 dev eth0; ip link set eth0 allmulticast on; host note filter-all; ip link set eth0 allmulticast off',
        ...iperfSteps(iperf.port),
        ...offloadSteps(small, iperf.port),
        capture: 'host capture',
        ...VLAN_STEPS,
        reload: `set -e; for i in $(seq 10); do rmmod ${driver}; modprobe ${driver}; done; ${UP}; ping -c 3 -A 10.0.2.2`,
        dmesg: 'dmesg -r',
      },
    });
  });

  afterAll(async () => {
    await iperf?.close();
    small?.close();
    web?.close();
    rig?.close();
  });

  test('the driver binds and takes a DHCP lease', () => {
    expect(result.ok('bind')).toContain('52:54:00:aa:bb:cc');
    expect(result.ok('bind')).toContain(`driver: ${driver}`);
  });

  test('the gateway answers pings', () => {
    expect(result.ok('ping')).toContain('5 packets received');
  });

  test('64 MiB come down with the right hash', () => {
    expect(result.ok('download')).toContain(web.fileHash);
  });

  test('64 MiB go up with the right hash, with and without offloads', () => {
    expect(result.ok('upload')).toContain('stored');
    expect(web.uploadHash()).toBe(web.fileHash);
    if (chip === '8139c') return;
    for (const step of ['offloadsOn', 'offloadsOff']) expect(result.ok(step)).toContain('stored');
    expect(result.ok('offloadsOff')).toContain(web.fileHash);
  });

  test('TSO hands on fewer, larger frames, where the chip has it', () => {
    const cut = (name: string): number => (answers.get(name) as Record<string, number>).txSegmentations!;
    if (chip === '8139c') {
      expect(result.ok('features')).toMatch(/tcp-segmentation-offload: off/);
      return;
    }
    const text = result.ok('offloadsOn');
    expect(text).toMatch(/tcp-segmentation-offload: on/);
    expect(text).toMatch(/rx-vlan-offload: on/);
    // 16 MiB in frames of at most 64 KiB, but for those that the guest's TCP sends singly.
    expect(cut('cut') - cut('plain')).toBeGreaterThan(100);
    expect((answers.get('cut') as Record<string, number>).txBadOffload).toBe(0);
  });

  test('the chip and the driver count no errors', () => {
    const text = result.ok('statistics');
    expect(text).toMatch(/^0\n0$/m);
    if (chip === '8139c+') {
      expect(Number(text.match(/tx_ok: (\d+)/)?.[1])).toBeGreaterThan(10_000);
      expect(Number(text.match(/rx_ok: (\d+)/)?.[1])).toBeGreaterThan(10_000);
      expect(text).toMatch(/rx_err: 0\n/);
    }
    expect(text).toContain('Speed: 100Mb/s');
    expect(text).toContain('Link detected: yes');
  });

  test('a link taken down and up by netemu is seen as the carrier', () => {
    expect(result.ok('carrier')).toContain('1 packets received');
  });

  test('promiscuous mode and multicast groups reach the filter', () => {
    result.ok('promiscuous');
    result.ok('multicast');
    const of = (name: string): { promiscuous: boolean; multicast: string } =>
      answers.get(name) as { promiscuous: boolean; multicast: string };
    expect(
      ['filter-plain', 'filter-promiscuous', 'filter-again'].map((name) => of(name).promiscuous),
    ).toEqual([false, true, false]);
    expect(of('filter-joined').multicast).toBe('normal');
    expect(of('filter-all').multicast).toBe('all');
  });

  test('iperf3 runs both ways without a stall', () => expectNoStall(result));

  test('the bytes are right with each offload on and off, and segmentation saves frames', () => {
    const found = expectOffloads(result, small);
    // 8139too copies each packet and sums it meanwhile: it has nothing to switch off.
    if (chip === '8139c') return;
    expectSegmentation(found);
  });

  test('frames of several VLANs go to and come from their devices', () =>
    expectVlans(result, captureOf(rig, 'vlan'), matrix, false));

  test('strict=on finds nothing that the driver does against the datasheet', () => {
    expect(rig.device.nic.driverReport!.complaints()).toEqual([]);
  });

  test('the driver is unloaded and loaded ten times', () => {
    expect(result.ok('reload')).toContain('3 packets received');
  });

  test('the kernel has nothing to complain about', () => {
    const complaints = result
      .ok('dmesg')
      .split('\n')
      .filter((line) => /8139|eth0|0000:00:02\.0|Hang|NETDEV WATCHDOG|soft lockup|nobody cared/i.test(line))
      .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
    expect(complaints, result.ok('dmesg')).toEqual([]);
  });

  test('nothing was asked of the chip that contradicted itself', () => {
    const counters = readCounters(rig.device.nic.stats);
    for (const name of [
      'txBadDescriptor',
      'txBadRing',
      'txBadOffload',
      'txDropBadAddress',
      'rxDropBadAddress',
    ])
      expect(counters[name], name).toBe(0);
  });
});

/**
 * Linux's virtio_net driver in a QEMU 11.1 guest drives netemu's virtio-net over vfio-user, with the user network behind it: with the transitional device, a modern one, packed
 * rings, several queue pairs, and the INTx line. Each boot goes through what a driver does; each test looks at one step of it.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readCounters } from '../../../src/core/stats.ts';
import type { RxFilterInfo } from '../../../src/nic/rx-filter.ts';
import { type GuestResult, runGuest } from '../lib/guest.ts';
import { Iperf } from '../lib/iperf.ts';
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
import { startWebServer, type WebServer } from './services.ts';

const MiB = 1 << 20;
const FILE_BYTES = 64 * MiB;
/** Of an Ethernet frame: more payload than that no segment holds. */
const MSS_BYTES = 1460;
const UP = 'ip link set eth0 up && udhcpc -n -q -t 10 -T 1 -i eth0';
const UNTIL =
  'until_ok() { n=0; until eval "$1"; do n=$((n+1)); [ $n -gt 200 ] && return 1; sleep 0.1; done; }';

const DEVICES: readonly [string, object, RegExp][] = [
  ['transitional', { driver: 'virtio-net-pci' }, /0x1000/],
  // Without a VLAN filter, which the others have.
  ['modern', { driver: 'virtio-net-pci-non-transitional', ctrl_vlan: false }, /0x1041/],
  ['packed', { driver: 'virtio-net-pci', packed: true }, /0x1000/],
  ['mq=2', { driver: 'virtio-net-pci', mq: true, queues: 2 }, /0x1000/],
  ['legacy alone', { driver: 'virtio-net-pci', 'disable-modern': true }, /0x1000/],
  ['INTx', { driver: 'virtio-net-pci', vectors: 0 }, /0x1000/],
];

/** Those that go through the whole matrix. */
const WHOLE = ['transitional', 'modern', 'packed', 'mq=2'];

describe.each(DEVICES)('%s', (name, device, id) => {
  const whole = WHOLE.includes(name);
  let rig: Rig;
  let web: WebServer;
  let small: WebServer;
  let iperf: Iperf;
  const matrix: MatrixNotes = { vlan: new Map() };
  let result: GuestResult;
  const notes = new Map<string, { filter: RxFilterInfo; counters: Record<string, number> }>();

  beforeAll(async () => {
    await prepare(['tools', 'tshark']);
    rig = await Rig.make({
      netdev: { type: 'user', id: 'n0' },
      device: { ...device, netdev: 'n0', id: 'nic0', mac: '52:54:00:aa:bb:cc', strict: true } as never,
      busyPollNs: 20_000,
    });
    web = await startWebServer(FILE_BYTES);
    small = await startWebServer(4 * MiB);
    iperf = await Iperf.start();
    const file = `http://10.0.2.2:${web.port}/file`;
    const { nic } = rig.device;
    result = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      memoryMiB: 512,
      args: rig.qemuArgs(),
      timeoutMs: 400_000,
      host: {
        link: (state) => {
          rig.network.setLink('nic0', state === 'up');
          return 'done';
        },
        note: (key) => {
          notes.set(key, { filter: nic.queryRxFilter('nic0'), counters: { ...readCounters(nic.stats) } });
          return 'noted';
        },
        ...matrixHandlers(rig, () => readCounters(nic.stats), matrix),
        capture: () => {
          const file = captureOf(rig, 'vlan');
          rig.network.addObject({ 'qom-type': 'filter-dump', id: 'd0', netdev: 'n0', file });
          return 'done';
        },
      },
      script: {
        bind: `set -e; modprobe virtio_pci; modprobe virtio_net; ${UP}; cat /sys/class/net/eth0/address; ethtool -i eth0; cat /sys/bus/pci/devices/*/device; cat /sys/bus/virtio/devices/virtio0/features`,
        ping: 'ping -c 5 -A 10.0.2.2 && ping -c 5 -A -s 1400 10.0.2.2',
        offloads: 'ethtool -k eth0',
        queues: 'ethtool -L eth0 combined 2; ethtool -l eth0; cat /proc/interrupts',
        download: `host note before-down; wget -q -O /tmp/file ${file} && sha256sum </tmp/file; host note after-down`,
        upload: `host note before-up; wget -q -O - --post-file /tmp/file ${file}; host note after-up`,
        uploadPlain: `ethtool -K eth0 tso off gso off tx off; host note before-plain; wget -q -O - --post-file /tmp/file ${file}; host note after-plain; ethtool -K eth0 tx on tso on gso on`,
        carrier: `set -e; ${UNTIL}; carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = $1 ]; }
          host link down; until_ok "carrier 0"; host link up; until_ok "carrier 1"; until_ok 'ping -c 1 -W 1 10.0.2.2'`,
        filters: `set -e; host note plain; ip link set eth0 promisc on; host note promiscuous; ip link set eth0 promisc off
          ip maddr add 01:00:5e:11:22:33 dev eth0; host note joined; for i in $(seq 10 89); do ip maddr add 01:00:5e:00:01:$i dev eth0; done; host note overflow
          for i in $(seq 10 89); do ip maddr del 01:00:5e:00:01:$i dev eth0; done; host note again`,
        ...(whole
          ? {
              ...iperfSteps(iperf.port),
              ...offloadSteps(small, iperf.port),
              capture: 'host capture',
              ...VLAN_STEPS,
            }
          : {}),
        vlan: `set -e; modprobe 8021q; for i in 5 100 4000; do ip link add link eth0 name eth0.$i type vlan id $i; done; host note vlans
          ip link del eth0.100; host note fewer; ping -c 1 10.0.2.2`,
        reload: `set -e; for i in $(seq 10); do rmmod virtio_net; modprobe virtio_net; done; ${UP}; ping -c 3 -A 10.0.2.2`,
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

  test('the driver binds and a DHCP lease is taken', () => {
    expect(result.ok('bind')).toContain('52:54:00:aa:bb:cc');
    expect(result.ok('bind')).toContain('driver: virtio_net');
    expect(result.ok('bind')).toMatch(id);
    // The bits of what this case is about: VERSION_1 and RING_PACKED.
    const bits = result.ok('bind').match(/^[01]{64}$/m)?.[0] ?? '';
    expect([bits[32], bits[34]]).toEqual([
      name === 'legacy alone' ? '0' : '1',
      name === 'packed' ? '1' : '0',
    ]);
  });

  test('the kernel log has no complaint', () => {
    const complaints = result
      .ok('dmesg')
      .split('\n')
      .filter((line) => /virtio|eth0|0000:00:02\.0|NETDEV WATCHDOG|soft lockup|nobody cared/i.test(line))
      .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
    expect(complaints).toEqual([]);
  });

  test('the gateway answers pings', () => {
    expect(result.ok('ping').match(/5 packets received/g)?.length).toBe(2);
  });

  test('the offloads are listed', () => {
    const listed = result.ok('offloads');
    for (const feature of [
      'tx-checksum-ip-generic: on',
      'tcp-segmentation-offload: on',
      'tx-tcp6-segmentation: on',
      'rx-checksumming: on',
    ]) {
      expect(listed).toContain(feature);
    }
  });

  test('64 MiB come down with the right hash', () => {
    expect(result.ok('download')).toContain(web.fileHash);
  });

  test('64 MiB go up with the right hash, in few large frames, and without offloads in many', () => {
    expect(result.ok('upload')).toContain('stored');
    expect(result.ok('uploadPlain')).toContain('stored');
    expect(web.uploadHash()).toBe(web.fileHash);
    const grown = (name: string, of: string): number =>
      notes.get(`after-${of}`)!.counters[name]! - notes.get(`before-${of}`)!.counters[name]!;
    // How much a frame holds is the guest's TCP's affair: from one segment to 64 KiB with the offload, one segment without.
    expect(grown('txSegmentations', 'up')).toBeGreaterThan(0);
    expect(grown('txSegmentations', 'plain')).toBe(0);
    expect(grown('txFrames', 'plain')).toBeGreaterThan(FILE_BYTES / MSS_BYTES);
    expect(grown('txFrames', 'up')).toBeLessThan(grown('txFrames', 'plain'));
  });

  test('the link taken down and up is seen as the carrier', () => {
    expect(result.ok('carrier')).toContain('1 packets received');
  });

  test("receive modes and tables are the driver's", () => {
    result.ok('filters');
    expect(notes.get('plain')!.filter).toMatchObject({ promiscuous: false, 'multicast-overflow': false });
    expect(notes.get('promiscuous')!.filter.promiscuous).toBe(true);
    expect(notes.get('joined')!.filter['multicast-table']).toContain('01:00:5e:11:22:33');
    expect(notes.get('overflow')!.filter).toMatchObject({
      'multicast-overflow': true,
      'multicast-table': [],
    });
    expect(notes.get('again')!.filter).toMatchObject({ 'multicast-overflow': false });
    result.ok('vlan');
    if (name === 'modern') {
      expect(notes.get('vlans')!.filter).toMatchObject({ vlan: 'all' });
      return;
    }
    expect(notes.get('vlans')!.filter).toMatchObject({
      vlan: 'normal',
      'vlan-table': expect.arrayContaining([5, 100, 4000]),
    });
    expect(notes.get('fewer')!.filter['vlan-table']).not.toContain(100);
  });

  test('the driver is unloaded and loaded ten times', () => {
    expect(result.ok('reload')).toContain('3 packets received');
  });

  test('no ring was broken and no kick was for nobody', () => {
    expect(rig.device.nic.stats).toMatchObject({ brokenRings: 0, badFeatures: 0, badQueue: 0, badKick: 0 });
  });

  test('strict=on finds nothing that the driver does against the specification', () => {
    expect(rig.device.nic.driverReport!.complaints()).toEqual([]);
  });

  if (whole) {
    test('iperf3 runs both ways without a stall', () => expectNoStall(result));

    test('the bytes are right with each offload on and off, and segmentation saves frames', () => {
      const found = expectOffloads(result, small);
      expectSegmentation(found);
    });

    test('frames of several VLANs go to and come from their devices', () =>
      expectVlans(result, captureOf(rig, 'vlan'), matrix, name !== 'modern'));
  }

  if (name === 'mq=2') {
    test('both queue pairs are used', () => {
      const rows = result.ok('queues');
      expect(rows).toMatch(/Combined:\s+2/);
      const counts = [...rows.matchAll(/^ *\d+: +([\d ]+).*virtio0-(input|output)\.(\d)/gm)].map(
        (row) => row[3],
      );
      expect(counts.sort()).toEqual(['0', '0', '1', '1']);
    });
  }
});

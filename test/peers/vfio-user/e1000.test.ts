/**
 * Linux's e1000 driver in a QEMU 11.1 guest drives netemu's e1000 over vfio-user, with the user network behind it. One boot (and one reboot) goes
 * through everything a driver does; each test looks at one step of it.
 */

import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readCounters } from '../../../src/core/stats.ts';
import type { DriverComplaint } from '../../../src/nic/driver-report.ts';
import { run } from '../lib/command.ts';
import { type GuestResult, runGuest, startGuest } from '../lib/guest.ts';
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
import { startWebServer, uploadCommand, type WebServer } from './services.ts';

const MiB = 1 << 20;
const UP = 'ip link set eth0 up && udhcpc -n -q -t 10 -T 1 -i eth0';
/** Waits in the guest until a command succeeds, at most 20 s. */
const UNTIL =
  'until_ok() { n=0; until eval "$1"; do n=$((n+1)); [ $n -gt 200 ] && return 1; sleep 0.1; done; }';

let rig: Rig;
let web: WebServer;
let small: WebServer;
let iperf: Iperf;
let complaints: DriverComplaint[] = [];
const matrix: MatrixNotes = { vlan: new Map() };
let result: GuestResult;
let boots = 0;
const answers = new Map<string, unknown>();

/** Captures what passes from now on into NAME.pcap; nothing when there is no name (bulk data would only make it long). */
function capture(name: string): void {
  if (rig.network.objects.has('d0')) rig.network.removeObject('d0');
  if (name === '') return;
  rig.network.addObject({
    'qom-type': 'filter-dump',
    id: 'd0',
    netdev: 'n0',
    file: join(rig.folder, `${name}.pcap`),
  });
}

beforeAll(async () => {
  await prepare(['tools', 'tshark']);
  rig = await Rig.make({
    netdev: { type: 'user', id: 'n0' },
    device: { driver: 'e1000', netdev: 'n0', id: 'nic0', mac: '52:54:00:aa:bb:cc', strict: true },
    busyPollNs: 20_000,
  });
  capture('before');
  web = await startWebServer(64 * MiB);
  small = await startWebServer(4 * MiB);
  iperf = await Iperf.start();
  const file = `http://10.0.2.2:${web.port}/file`;
  result = await runGuest({
    qemu: '11.1',
    sharedMemory: true,
    memoryMiB: 512,
    args: rig.qemuArgs(),
    timeoutMs: 400_000,
    host: {
      boots: () => String(++boots),
      link: (state) => {
        rig.network.setLink('nic0', state === 'up');
        return 'done';
      },
      capture: (name) => {
        capture(name);
        return 'done';
      },
      note: (name) => {
        if (name.startsWith('filter')) {
          answers.set(name, rig.device.nic.queryRxFilter('nic0'));
          return 'noted';
        }
        const counters = readCounters(rig.device.nic.stats);
        answers.set(name, counters);
        return `${counters.rxFrames} ${counters.txFrames}`;
      },
      complaints: () => {
        complaints = rig.device.nic.driverReport!.complaints();
        return 'noted';
      },
      ...matrixHandlers(rig, () => readCounters(rig.device.nic.stats), matrix),
    },
    script: {
      bind: `set -e; modprobe e1000; ${UP}; cat /sys/class/net/eth0/address; ethtool -i eth0`,
      reboot: `if [ "$(host boots)" = 1 ]; then ping -c 1 10.0.2.2 && reboot -f; sleep 60; exit 1; fi`,
      lease: 'cat /tmp/lease.eth0; cat /etc/resolv.conf',
      ping: 'ping -c 5 -A 10.0.2.2',
      // A look at the chip's counters starts them anew.
      // Both are read until no frame passed in between: the guest sends some of its own.
      counters: `both() { n=0; until was=$(host note $1); ethtool -S eth0 >/tmp/$1; [ "$was" = "$(host note $1)" ]; do n=$((n+1)); [ $n -lt 100 ] || return 1; done; }
        both before && ping -c 20 -A 10.0.2.2 >/dev/null && ping -c 20 -A -s 1400 10.0.2.2 >/dev/null && both after && cat /tmp/before && echo --- && cat /tmp/after`,
      download: `host capture; wget -q -O /tmp/file ${file} && sha256sum </tmp/file`,
      upload: uploadCommand('/tmp/file', '10.0.2.2', web.port),
      ...iperfSteps(iperf.port, 10),
      carrier: `set -e; ${UNTIL}; host capture after; carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = $1 ]; }
        carrier 1; host link down; until_ok "carrier 0"; ethtool eth0 | grep 'Link detected'; host link up; until_ok "carrier 1"; ethtool eth0 | grep 'Link detected'
        until_ok "ping -c 1 -W 1 10.0.2.2"`,
      mtu: `set -e; ${UNTIL}; ip link set eth0 mtu 9000; until_ok 'ping -c 1 -W 1 -s 8000 10.0.2.2'; ip link show eth0 | head -1
        ip link set eth0 mtu 1500; until_ok 'ping -c 1 -W 1 10.0.2.2'`,
      promiscuous:
        'set -e; host note filter-plain; ip link set eth0 promisc on; host note filter-promiscuous; ip link set eth0 promisc off; host note filter-again',
      multicast:
        'set -e; ip maddr add 01:00:5e:11:22:33 dev eth0; host note filter-joined; ip maddr del 01:00:5e:11:22:33 dev eth0; ip link set eth0 allmulticast on; host note filter-all; ip link set eth0 allmulticast off',
      vlan: `set -e; modprobe 8021q; ip link add link eth0 name eth0.5 type vlan id 5; ip addr add 10.5.0.1/24 dev eth0.5; ip link set eth0.5 up
        host note filter-vlan; ping -c 1 -W 1 10.5.0.2 || true; ip link del eth0.5; ping -c 1 10.0.2.2`,
      ...offloadSteps(small, iperf.port),
      captureVlans: 'host capture vlan',
      ...VLAN_STEPS,
      selftest: `${UNTIL}; host complaints; ethtool -t eth0 offline; status=$?; until_ok "ping -c 1 -W 1 10.0.2.2" && exit $status`,
      reload: `set -e; for i in $(seq 20); do rmmod e1000; modprobe e1000; done; ${UP}; ping -c 3 -A 10.0.2.2`,
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
  expect(result.ok('lease')).toMatch(/ip=10\.0\.2\.15\n/);
  expect(result.ok('lease')).toContain('nameserver 10.0.2.3');
});

test('nothing in the kernel log complains about the device, its driver or a hung queue', () => {
  const complaints = result
    .ok('dmesg')
    .split('\n')
    .filter((line) =>
      /e1000|eth0|0000:00:02\.0|Hang|NETDEV WATCHDOG|soft lockup|irq .*nobody cared/i.test(line),
    )
    .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4)
    // Its answer to a link that went (we take it down) while a packet of the guest's own was not reported yet; a queue that hangs says more than that.
    .filter((line) => !/eth0: Reset adapter$/.test(line));
  expect(complaints, result.ok('dmesg')).toEqual([]);
});

test('the guest reboots and finds the device again', () => {
  expect(boots).toBe(2);
  expect(result.steps.filter(({ name }) => name === 'bind').map(({ status }) => status)).toEqual([0, 0]);
});

test('the gateway answers pings', () => {
  expect(result.ok('ping')).toContain('5 packets received');
});

test('64 MiB come down with the right hash', () => {
  expect(result.ok('download')).toContain(web.fileHash);
});

test('64 MiB go up with the right hash', () => {
  expect(result.ok('upload')).toContain('stored');
  expect(web.uploadHash()).toBe(web.fileHash);
});

test('iperf3 runs ten seconds both ways without a stall', () => expectNoStall(result, 10));

test("ethtool's counters are netemu's", () => {
  const [before, after] = result.ok('counters').split('---\n');
  const counter = (text: string, name: string): number =>
    Number(text.match(new RegExp(`^ *${name}: (\\d+)$`, 'm'))?.[1]);
  const ours = (name: string): number =>
    (answers.get('after') as Record<string, number>)[name]! -
    (answers.get('before') as Record<string, number>)[name]!;
  const theirs = (name: string): number => counter(after!, name) - counter(before!, name);
  expect(theirs('rx_packets')).toBeGreaterThanOrEqual(40);
  expect([theirs('rx_packets'), theirs('tx_packets')]).toEqual([ours('rxFrames'), ours('txFrames')]);
  // The chip counts the frame check sequence too.
  const fcs = 4;
  expect(theirs('rx_bytes')).toBe(ours('rxBytes') + fcs * ours('rxFrames'));
  expect(theirs('tx_bytes')).toBe(ours('txBytes') + fcs * ours('txFrames'));
  for (const name of ['rx_errors', 'tx_errors', 'rx_missed_errors', 'rx_crc_errors', 'rx_no_buffer_count'])
    expect(counter(after!, name)).toBe(0);
});

test('a link taken down and up by netemu is seen as the carrier', () => {
  const seen = result.ok('carrier').match(/Link detected: (yes|no)/g);
  expect(seen).toEqual(['Link detected: no', 'Link detected: yes']);
});

test('the MTU can be 9000 and back', () => {
  expect(result.ok('mtu')).toContain('mtu 9000');
});

test('promiscuous mode reaches the filter', () => {
  result.ok('promiscuous');
  const modes = ['filter-plain', 'filter-promiscuous', 'filter-again'].map(
    (name) => (answers.get(name) as { promiscuous: boolean }).promiscuous,
  );
  expect(modes).toEqual([false, true, false]);
});

test('multicast groups reach the filter', () => {
  result.ok('multicast');
  expect(answers.get('filter-joined')).toMatchObject({ multicast: 'normal' });
  expect(answers.get('filter-all')).toMatchObject({ multicast: 'all' });
});

test('a VLAN device sets the filter, and its frames are tagged', async () => {
  result.ok('vlan');
  expect(answers.get('filter-vlan')).toMatchObject({
    vlan: 'normal',
    'vlan-table': expect.arrayContaining([5]),
  });
  const wanted = 'vlan.id == 5 && arp.dst.proto_ipv4 == 10.5.0.2';
  const frames = await run('tshark', ['-r', join(rig.folder, 'after.pcap'), '-Y', wanted]);
  expect(frames.trim().split('\n').length).toBeGreaterThanOrEqual(1);
  expect(frames).toContain('10.5.0.2');
});

test('frames of several VLANs go to and come from their devices, and no others', () =>
  expectVlans(result, captureOf(rig, 'vlan'), matrix, true));

test('the bytes are right with each offload on and off, and segmentation saves frames', () => {
  const found = expectOffloads(result, small);
  expectSegmentation(found);
});

test('strict=on finds what the driver does against the manual, and no more', () => {
  // Linux sets TCTL.EN when it sees the link, and may queue a packet before that. (Its self-test, which comes later, writes patterns into every register.)
  const known = ['doorbell-before-enable'];
  expect(complaints.filter(({ rule }) => !known.includes(rule))).toEqual([]);
});

test('strict=on sees the self-test write what is reserved', () => {
  const rules = rig.device.nic.driverReport!.complaints().map(({ rule }) => rule);
  expect(rules).toEqual(expect.arrayContaining(['reserved-bits', 'ring-length', 'ring-base']));
});

test("the driver's own self-test passes, off line too", () => {
  expect(result.ok('selftest')).toContain('The test result is PASS');
});

test('the driver is unloaded and loaded twenty times', () => {
  expect(result.ok('reload')).toContain('3 packets received');
});

test.each(['before', 'after'])('no frame %s the bulk data is malformed', async (name) => {
  const bad = '_ws.malformed || _ws.expert.severity == error';
  // The files are random bytes on ports of the moment: tshark would guess protocols from either, and find those malformed.
  const opaque = ['-d', 'tcp.port==1024-65535,data'];
  expect(await run('tshark', ['-r', join(rig.folder, `${name}.pcap`), ...opaque, '-Y', bad])).toBe('');
});

test('a VM killed in full flight leaves nothing, and a new one is served', async () => {
  const script = `modprobe e1000; ${UP}; ping -c 1 10.0.2.2; host running; wget -q -O /dev/null http://10.0.2.2:${web.port}/file`;
  const one = await startGuest({
    qemu: '11.1',
    sharedMemory: true,
    args: rig.qemuArgs(),
    script,
    host: {
      running: () => {
        // It is about to load: cut its power when the first of it is on its way.
        const rx = (rig.device.nic.stats as unknown as Record<string, number>).rxFrames!;
        const look = (): void => {
          if ((rig.device.nic.stats as unknown as Record<string, number>).rxFrames! > rx + 500) one.kill();
          else setImmediate(look);
        };
        look();
        return 'go';
      },
    },
  });
  const killed = await one.done;
  expect(killed.exitCode).toBeNull();
  const two = await runGuest({
    qemu: '11.1',
    sharedMemory: true,
    args: rig.qemuArgs(),
    script: `modprobe e1000; ${UP}; ping -c 3 -A 10.0.2.2`,
  });
  expect(two.ok('main')).toContain('3 packets received');
  // Its process has ended; the socket says so when the event loop comes to it.
  while (rig.server.connected) await new Promise((resolve) => setImmediate(resolve));
  expect(rig.host.memory.ranges).toEqual([]);
});

test('guest memory without descriptors is reached by messages', async () => {
  const guest = await runGuest({
    qemu: '11.1',
    args: rig.qemuArgs(),
    script: `modprobe e1000; ${UP}; ping -c 3 -A 10.0.2.2 && ping -c 3 -A -s 1400 10.0.2.2`,
  });
  expect(guest.ok('main').match(/3 packets received/g)?.length).toBe(2);
  expect(rig.server.wireStats.requests).toBeGreaterThan(20);
});

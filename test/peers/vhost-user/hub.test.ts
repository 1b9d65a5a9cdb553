/**
 * Two virtual machines on one hub, each by a vhost-user NIC, and a tap of the host's with them: pings, transfers with their hash and iperf3 between the guests, and between a guest and the host's kernel
 * behind the tap, both ways.
 */

import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type GuestResult, startGuest } from '../lib/guest.ts';
import { iperfCommand } from '../lib/iperf.ts';
import { prepare } from '../lib/prepare.ts';
import { Signals } from '../lib/signals.ts';
import { LOAD, Rig, type Seat } from './rig.ts';

/** 32 MiB by default; NETEMU_GIB=1 makes it a GiB, which takes most of an hour where others work too. */
const MEBIBYTES = process.env.NETEMU_GIB === '1' ? 1024 : 32;
const TIMEOUT_MS = process.env.NETEMU_GIB === '1' ? 3_600_000 : 300_000;
const NAMESPACE = `nevu${process.pid}`;
const ip = (...words: string[]): string =>
  execFileSync('ip', words, { stdio: ['ignore', 'pipe', 'pipe'] }).toString();
/** The same bytes in both guests and on the host: no file, so that a GiB needs no memory. */
const LINE = '0123456789abcdefghijklmnopqrstuvwxyz';
const IPERF_PORT = 5201;
const BYTES = `yes ${LINE} | head -c ${MEBIBYTES << 20}`;

let rig: Rig;
let seats: Seat[];
let results: GuestResult[];
const servers: { kill(): void }[] = [];

async function hostServers(): Promise<void> {
  const inside = ['netns', 'exec', NAMESPACE];
  const iperf = spawn('ip', [...inside, 'iperf3', '-s', '--forceflush'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => iperf.stdout.once('data', resolve));
  servers.push(iperf);
  // Hashes what comes, then sends the same bytes.
  const program = `
    const { createHash } = require('node:crypto');
    require('node:net').createServer((socket) => {
      const hash = createHash('sha256');
      socket.on('data', (data) => hash.update(data));
      socket.on('end', () => socket.end(hash.digest('hex')));
    }).listen({ port: 7000, allowHalfOpen: true, host: '0.0.0.0' }, () => console.log('ready'));`.replace(
    'createServer((',
    'createServer({ allowHalfOpen: true }, (',
  );
  const sink = spawn('ip', [...inside, process.execPath, '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => sink.stdout.once('data', resolve));
  servers.push(sink);
  const source = spawn(
    'ip',
    [...inside, 'busybox', 'nc', '-ll', '-p', '7001', '-e', '/bin/sh', '-c', BYTES],
    { stdio: 'ignore' },
  );
  servers.push(source);
}

beforeAll(async () => {
  await prepare(['tools', 'network-clients', 'qemu-7.2', 'qemu-11.1']);
  ip('netns', 'add', NAMESPACE);
  ip('-n', NAMESPACE, 'link', 'set', 'lo', 'up');
  rig = await Rig.make();
  const script = join(rig.folder, 'up');
  writeFileSync(
    script,
    `#!/bin/sh -e\nip link set "$1" netns ${NAMESPACE}\nip -n ${NAMESPACE} addr add 10.88.0.3/24 dev "$1"\nip -n ${NAMESPACE} link set "$1" up\n`,
  );
  chmodSync(script, 0o755);
  const { network } = rig;
  await network.addNetdev({ type: 'tap', id: 't0', script, downscript: 'no' });
  await network.addNetdev({ type: 'hubport', id: 'h2', hubid: 0, netdev: 't0' });
  for (const id of ['h0', 'h1']) await network.addNetdev({ type: 'hubport', id, hubid: 0 });
  await hostServers();
  seats = ['h0', 'h1'].map((netdev, i) =>
    rig.seat({ driver: 'virtio-net-pci', netdev, id: `nic${i}`, packed: true } as never),
  );

  const signals = new Signals();
  const common = { sharedMemory: true, memoryMiB: 256, timeoutMs: TIMEOUT_MS, host: signals.host } as const;
  // busybox's nc ends a connection when either side's input ends: whoever only receives reads from what never ends.
  const address = (n: number): string => `${LOAD}; ip addr add 10.88.0.${n}/24 dev eth0; mkfifo /tmp/never`;
  const listener = await startGuest({
    ...common,
    qemu: '7.2',
    args: seats[1]!.qemuArgs({ qemu: '7.2', mac: '52:54:00:00:00:02' }),
    script: {
      bind: `set -e; ${address(2)}; iperf3 -s -D`,
      receive: 'host say receiver & nc -l -p 7000 <>/tmp/never | sha256sum',
      send: `host say sender & ${BYTES} | nc -l -p 7001`,
      rest: 'host wait end',
      dmesg: 'dmesg -r',
    },
  });
  const talker = await startGuest({
    ...common,
    qemu: '11.1',
    args: seats[0]!.qemuArgs({ qemu: '11.1', mac: '52:54:00:00:00:01', properties: ',packed=on' }),
    script: {
      bind: `set -e; ${address(1)}`,
      up: `host wait receiver; n=0; until ${BYTES} | nc 10.88.0.2 7000; do n=$((n+1)); [ $n -lt 50 ]; done`,
      // Its nc may not listen yet.
      down: `host wait sender; n=0; while { nc 10.88.0.2 7001 <>/tmp/never || touch /tmp/refused; } | sha256sum >/tmp/hash; [ -e /tmp/refused ]
        do rm /tmp/refused; n=$((n+1)); [ $n -lt 50 ] || exit 1; sleep 0.1; done; cat /tmp/hash`,
      ping: 'ping -c 5 -A 10.88.0.2 && ping -c 5 -A 10.88.0.3 && ping -c 3 -A -s 8000 10.88.0.2',
      iperf: iperfCommand(IPERF_PORT, '-t 2', '10.88.0.2'),
      iperfReverse: iperfCommand(IPERF_PORT, '-t 2 -R', '10.88.0.2'),
      tapUp: `${BYTES} | nc 10.88.0.3 7000`,
      tapDown: 'nc 10.88.0.3 7001 <>/tmp/never | sha256sum',
      tapIperf: iperfCommand(IPERF_PORT, '-t 2', '10.88.0.3'),
      tapIperfReverse: iperfCommand(IPERF_PORT, '-t 2 -R', '10.88.0.3'),
      dmesg: 'dmesg -r; host say end',
    },
  });
  results = await Promise.all([talker.done, listener.done]);
}, TIMEOUT_MS + 600_000);

afterAll(() => {
  for (const server of servers) server.kill();
  rig?.close();
  ip('netns', 'del', NAMESPACE);
});

/** The hash of BYTES. */
function wantedHash(): string {
  const hash = createHash('sha256');
  const block = Buffer.from(`${LINE}\n`.repeat(1 << 14));
  let left = MEBIBYTES << 20;
  for (; left > block.length; left -= block.length) hash.update(block);
  return hash.update(block.subarray(0, left)).digest('hex');
}

const hashIn = (text: string): string => text.match(/[0-9a-f]{64}/)?.[0] ?? 'no hash';

test('the guests and the host ping each other', () => {
  const text = results[0]!.ok('ping');
  expect(text.match(/5 packets received/g)?.length).toBe(2);
  expect(text).toContain('3 packets received');
});

test(`${MEBIBYTES} MiB pass between the guests both ways with the right hash, in large frames`, () => {
  const [talker, listener] = results as [GuestResult, GuestResult];
  const wanted = wantedHash();
  talker.ok('up');
  expect(hashIn(listener.ok('receive'))).toBe(wanted);
  expect(hashIn(talker.ok('down'))).toBe(wanted);
  for (const { nic } of seats) expect(nic.stats.txSegmentations).toBeGreaterThan(500);
});

test(`${MEBIBYTES} MiB pass between a guest and the kernel behind the tap with the right hash`, () => {
  const wanted = wantedHash();
  expect(hashIn(results[0]!.ok('tapUp'))).toBe(wanted);
  expect(hashIn(results[0]!.ok('tapDown'))).toBe(wanted);
});

test('iperf3 runs both ways, between the guests and through the tap', () => {
  for (const step of ['iperf', 'iperfReverse', 'tapIperf', 'tapIperfReverse']) {
    const { end } = JSON.parse(results[0]!.ok(step)) as { end: { sum_received: { bytes: number } } };
    expect(end.sum_received.bytes, step).toBeGreaterThan(1 << 20);
  }
});

test('no ring was broken, and neither kernel has a complaint', () => {
  for (const { nic, backend } of seats) {
    expect(nic.stats.brokenRings).toBe(0);
    expect(backend.wireStats.badMessages).toBe(0);
  }
  for (const result of results) {
    const complaints = result
      .ok('dmesg')
      .split('\n')
      .filter((line) => /virtio|eth0|NETDEV WATCHDOG|not a head/i.test(line))
      .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
    expect(complaints).toEqual([]);
  }
});

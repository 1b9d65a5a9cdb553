/**
 * A tap of four queues under a virtio-net with mq=on, in a QEMU 11.1 guest whose driver is Linux's: flows are spread over all four pairs both ways, and
 * `ethtool -L` takes pairs away and brings them back while frames pass.
 */

import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TapBackend } from '../../src/backends/tap.ts';
import { type GuestResult, runGuest } from './lib/guest.ts';
import { iperfCommand } from './lib/iperf.ts';
import { prepare } from './lib/prepare.ts';
import { Rig } from './vfio-user/rig.ts';

const NAMESPACE = `netemu-q${process.pid}`;
const FLOWS = 32;
/** Packets of more than one flow: 64 KiB cross as one. */
const SEVERAL = 20;
const ip = (...words: string[]) => execFileSync('ip', words, { stdio: ['ignore', 'pipe', 'inherit'] });

interface Counts {
  rx: number[];
  tx: number[];
}

describe('a tap of four queues, virtio-net with mq=on', () => {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-queues-'));
  /** What the tap's queues had carried when the guest asked: rx from the kernel, tx to it. */
  const seen: Record<string, Counts> = {};
  let rig: Rig;
  let tap: TapBackend;
  let result: GuestResult;
  let server: ReturnType<typeof spawn>;

  beforeAll(async () => {
    await prepare(['tools']);
    ip('netns', 'add', NAMESPACE);
    ip('netns', 'exec', NAMESPACE, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
    const script = join(folder, 'up');
    writeFileSync(
      script,
      `#!/bin/sh -e
ip link set "$1" netns ${NAMESPACE}
ip -n ${NAMESPACE} addr add 10.78.5.1/24 dev "$1"
ip -n ${NAMESPACE} link set "$1" up
`,
    );
    chmodSync(script, 0o755);
    rig = await Rig.make({
      netdev: {
        type: 'tap',
        id: 'n0',
        ifname: `nq${process.pid}`,
        queues: 4,
        script,
        downscript: 'no',
      },
      device: { driver: 'virtio-net-pci', netdev: 'n0', id: 'nic0', mq: true, mac: '52:54:00:aa:bb:04' },
    });
    tap = rig.network.netdevs.get('n0')!.backend as TapBackend;
    server = spawn('ip', ['netns', 'exec', NAMESPACE, 'iperf3', '-s', '--forceflush'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => server.stdout!.once('data', resolve));
    const flows = (way: string) =>
      `{ ${iperfCommand(5201, `-P ${FLOWS} -n 512K ${way}`, '10.78.5.1')}; } >/dev/null`;
    const both = `${flows('')}
${flows('-R')}`;
    const counts = (note: string) =>
      `host note ${note}; ethtool -S eth0 | grep -E '(rx|tx)_queue_[0-9]_packets'`;
    result = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      timeoutMs: 300_000,
      args: rig.qemuArgs(),
      script: {
        up: 'set -e; modprobe virtio_pci; modprobe virtio_net; ip addr add 10.78.5.2/24 dev eth0; ip link set eth0 up; busybox ping -c 2 -A 10.78.5.1',
        four: `set -e; ethtool -L eth0 combined 4; ethtool -l eth0; ${both}; ${counts('four')}`,
        two: `set -e; ethtool -L eth0 combined 2; ${counts('before')}; ${both}; ${counts('two')}`,
        changing: `busybox ping -c 200 -i 0.02 10.78.5.1 >/tmp/ping & n=0
while [ $n -lt 12 ]; do ethtool -L eth0 combined $((n % 4 + 1)) || exit 1; n=$((n+1)); busybox usleep 200000; done
wait; cat /tmp/ping; ethtool -l eth0`,
        again: `set -e; ethtool -L eth0 combined 4; host note again-before; ${both}; ${counts('again')}`,
        five: 'ethtool -L eth0 combined 5',
        dmesg: 'dmesg -r',
      },
      host: {
        note(name) {
          seen[name] = {
            rx: tap.queues.map(({ stats }) => stats.rxFrames),
            tx: tap.queues.map(({ stats }) => stats.txFrames),
          };
          return 'noted';
        },
      },
    });
  }, 400_000);

  afterAll(async () => {
    const gone = new Promise((resolve) => server.once('exit', resolve));
    server.kill();
    await gone;
    rig.close();
    ip('netns', 'del', NAMESPACE);
    rmSync(folder, { recursive: true });
  });

  /** Packets by queue, from the guest's `ethtool -S`; of a step with two listings, the last. */
  function inGuest(step: string): Counts {
    const text = result.ok(step);
    const of = (way: string): number[] => {
      const found: number[] = [];
      for (const [, queue, packets] of text.matchAll(new RegExp(`${way}_queue_(\\d)_packets: (\\d+)`, 'g')))
        found[Number(queue)] = Number(packets);
      return found;
    };
    return { rx: of('rx'), tx: of('tx') };
  }

  const grew = (from: Counts, to: Counts, way: 'rx' | 'tx'): number[] =>
    to[way].map((count, queue) => count - from[way][queue]!);

  test('the guest reaches the namespace', () => {
    expect(result.ok('up')).toContain('2 packets received');
  });

  test('four pairs: flows pass on each queue, both ways', () => {
    expect(result.ok('four').match(/Combined:\s+4/g)?.length).toBe(2);
    const guest = inGuest('four');
    for (let queue = 0; queue < 4; queue++) {
      // Each queue had several of the flows.
      expect(guest.rx[queue], `guest rx ${queue}`).toBeGreaterThan(SEVERAL);
      expect(guest.tx[queue], `guest tx ${queue}`).toBeGreaterThan(SEVERAL);
      // RX and TX are the guest's: what the tap reads is what the guest receives.
      expect(seen.four!.rx[queue], `tap queue ${queue} to the guest`).toBeGreaterThan(SEVERAL);
      expect(seen.four!.tx[queue], `tap queue ${queue} from the guest`).toBeGreaterThan(SEVERAL);
    }
  });

  test('two pairs: the others carry nothing, and nothing is lost that the kernel still gives to them', () => {
    const text = result.ok('two');
    expect(text.match(/rx_queue_[23]_packets/)).toBeNull();
    const grown = grew(seen.before!, seen.two!, 'tx');
    expect(grown[0]).toBeGreaterThan(SEVERAL);
    expect(grown[1]).toBeGreaterThan(SEVERAL);
    expect(grown.slice(2)).toEqual([0, 0]);
  });

  test('pairs come and go while it pings', () => {
    const text = result.ok('changing');
    const answers = Number(/(\d+) packets received/.exec(text)?.[1]);
    // The driver stops the queues while it changes them, for as long as the guest's CPU takes.
    expect(answers, text).toBeGreaterThan(100);
  });

  test('four pairs again carry flows, and five are refused', () => {
    result.ok('again');
    for (const way of ['rx', 'tx'] as const)
      for (const packets of grew(seen['again-before']!, seen.again!, way))
        expect(packets).toBeGreaterThan(SEVERAL);
    expect(result.steps.find(({ name }) => name === 'five')?.status).not.toBe(0);
  });

  test('no ring was broken, and the kernel log has no complaint', () => {
    expect(rig.device.nic.stats).toMatchObject({ brokenRings: 0, badQueue: 0, badKick: 0 });
    const complaints = result
      .ok('dmesg')
      .split('\n')
      .filter((line) => /virtio|eth0|NETDEV WATCHDOG/i.test(line))
      .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
    expect(complaints).toEqual([]);
  });
});

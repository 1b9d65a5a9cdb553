/** The suite over pairs for what needs privileges: taps on a bridge of a namespace, and raw IP. */

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { thousandCycles } from '../backends/cycles.ts';
import { BackendLab } from '../backends/lab.ts';
import { pairSuite } from '../backends/pair-suite.ts';
import type { Pair } from '../backends/pairs.ts';
import { guestProgram } from './lib/guest-program.ts';

const NAMESPACE = `netemu-t${process.pid}`;
const ip = (...words: string[]) => execFileSync('ip', words, { stdio: ['ignore', 'pipe', 'inherit'] });

beforeAll(() => {
  ip('netns', 'add', NAMESPACE);
  for (const which of ['all', 'default']) {
    ip('netns', 'exec', NAMESPACE, 'sysctl', '-qw', `net.ipv6.conf.${which}.disable_ipv6=1`);
  }
  ip('-n', NAMESPACE, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
  ip('-n', NAMESPACE, 'link', 'set', 'br0', 'up');
});

afterAll(() => {
  ip('netns', 'del', NAMESPACE);
});

let made = 0;

/** Two taps on one bridge; the script that joins them is netemu's to run. */
function taps(name: string, options: Record<string, unknown>): Pair {
  return {
    name,
    frameMaxBytes: 65_507,
    async open(lab: BackendLab) {
      const script = `/tmp/${NAMESPACE}-${made++}`;
      writeFileSync(
        script,
        `#!/bin/sh -e
ip link set "$1" netns ${NAMESPACE}
ip -n ${NAMESPACE} link set "$1" mtu 65500 master br0 up
`,
      );
      chmodSync(script, 0o755);
      try {
        const open = () =>
          lab.open('tap', { ifname: `netemu${made++}`, script, downscript: 'no', ...options });
        return [await open(), await open()];
      } finally {
        rmSync(script);
      }
    },
  };
}

function raw(name: string, options: Record<string, unknown>, address: string, frameMaxBytes: number): Pair {
  return {
    name,
    frameMaxBytes,
    async open(lab) {
      // Both ends have one address: what tells them apart is their sessions, and each drops the other's own.
      const common = { src: address, dst: address, ...options };
      return [
        await lab.open('l2tpv3', { ...common, txsession: 1, rxsession: 2 }),
        await lab.open('l2tpv3', { ...common, txsession: 2, rxsession: 1 }),
      ];
    },
  };
}

pairSuite(taps('tap, with vnet_hdr', {}));
pairSuite(taps('tap, without vnet_hdr, bounded send buffer', { vnet_hdr: false, sndbuf: 1 << 20 }));
pairSuite(raw('l2tpv3, raw IPv4', { counter: true }, '127.0.0.1', 60_000));
pairSuite(
  raw('l2tpv3, raw IPv6, cookies', { ipv6: true, txcookie: 5, rxcookie: 5, pincounter: true }, '::1', 60_000),
);

describe('1,000 times made and taken away', () => {
  // The interface stays: to make and remove one takes the kernel some 50 ms (which the suites above do 50 times each).
  const name = `netemu${process.pid}`;
  const persistent = (...flags: string[]): void => {
    ip('tuntap', 'add', name, 'mode', 'tap', ...flags);
  };

  afterEach(() => {
    ip('link', 'del', name);
  });

  it('tap of two queues: no descriptor and no memory is left', async () => {
    persistent('multi_queue', 'vnet_hdr');
    const lab = new BackendLab();
    const options = { ifname: name, queues: 2, script: 'no', downscript: 'no' };
    await thousandCycles(lab, async () => [await lab.open('tap', options)]);
    await lab.end();
  });

  it('bridge: no descriptor, no memory and no process is left', async () => {
    persistent('vnet_hdr');
    const helper = `/tmp/${NAMESPACE}-helper`;
    writeFileSync(helper, await guestProgram('tap-helper'));
    chmodSync(helper, 0o755);
    const lab = new BackendLab();
    try {
      await thousandCycles(lab, async () => [
        await lab.open('bridge', { helper: `TAP_HELPER_NAME=${name} exec ${helper}` }),
      ]);
    } finally {
      rmSync(helper);
    }
    await lab.end();
    // The last helper has handed over its descriptor and may still be on its way out.
    const helpers = (): string[] =>
      readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8')
        .trim()
        .split(' ')
        .map((pid) => (existsSync(`/proc/${pid}/comm`) ? readFileSync(`/proc/${pid}/comm`, 'utf8') : ''))
        .filter((comm) => /helper|sh/.test(comm));
    await expect.poll(helpers, { timeout: 60_000 }).toEqual([]);
  });
});

it('l2tpv3, raw IP, 1,000 times made and taken away: no descriptor and no memory is left', async () => {
  const lab = new BackendLab();
  const addresses = { src: '127.0.0.1', dst: '127.0.0.1' };
  await thousandCycles(lab, async () => [await lab.open('l2tpv3', { ...addresses, txsession: 1 })]);
  await lab.end();
});

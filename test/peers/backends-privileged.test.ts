/** The suite over pairs for what needs privileges: taps on a bridge of a namespace, and raw IP. */

import { execFileSync } from 'node:child_process';
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll } from 'vitest';
import type { BackendLab } from '../backends/lab.ts';
import { pairSuite } from '../backends/pair-suite.ts';
import type { Pair } from '../backends/pairs.ts';

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

/**
 * What traceroute sees through the user network: the gateway, the routers behind the host, the far end, as they are.
 *
 *     guest's namespace ── netemu ── HOST ══ ROUTER ══ FAR (198.51.100.9, 2001:db8:f::9)
 *                                              └ 203.0.113.0/24, 2001:db8:e::/48: unreachable
 */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture, run } from './lib/command.ts';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';

const HOST = `ne-hops-host-${process.pid}`;
const ROUTER = `ne-hops-router-${process.pid}`;
const FAR = `ne-hops-far-${process.pid}`;
let shell: NetnsShell | undefined;

const ip = (...words: string[]): Promise<string> => run('ip', words);

/** A wire between two namespaces, with .1 and .2 of both families at its ends. */
async function wire(name: string, left: string, right: string, net4: string, net6: string): Promise<void> {
  await ip('-n', left, 'link', 'add', name, 'type', 'veth', 'peer', 'name', name, 'netns', right);
  for (const [ns, n] of [
    [left, 1],
    [right, 2],
  ] as const) {
    await ip('-n', ns, 'address', 'add', `${net4}.${n}/24`, 'dev', name);
    await ip('-n', ns, 'address', 'add', `${net6}::${n}/64`, 'dev', name, 'nodad');
    await ip('-n', ns, 'link', 'set', name, 'up');
  }
}

beforeAll(async () => {
  await prepare(['tools', 'network-clients']);
  for (const ns of [HOST, ROUTER, FAR]) {
    await ip('netns', 'add', ns);
    await ip('-n', ns, 'link', 'set', 'lo', 'up');
    // Each of many probes at once is answered.
    const settings = ['net.ipv4.icmp_ratemask=0', 'net.ipv6.icmp.ratelimit=0', 'net.ipv4.ip_forward=1'];
    await ip('netns', 'exec', ns, 'sysctl', '-q', '-w', ...settings, 'net.ipv6.conf.all.forwarding=1');
  }
  await wire('near', HOST, ROUTER, '10.99.0', '2001:db8:a');
  await wire('away', ROUTER, FAR, '10.99.1', '2001:db8:b');
  await ip('-n', HOST, 'route', 'add', 'default', 'via', '10.99.0.2');
  await ip('-n', HOST, 'route', 'add', 'default', 'via', '2001:db8:a::2');
  await ip('-n', FAR, 'route', 'add', 'default', 'via', '10.99.1.1');
  await ip('-n', FAR, 'route', 'add', 'default', 'via', '2001:db8:b::1');
  await ip('-n', FAR, 'address', 'add', '198.51.100.9/32', 'dev', 'lo');
  await ip('-n', FAR, 'address', 'add', '2001:db8:f::9/128', 'dev', 'lo', 'nodad');
  await ip('-n', ROUTER, 'route', 'add', '198.51.100.9', 'via', '10.99.1.2');
  await ip('-n', ROUTER, 'route', 'add', '2001:db8:f::9', 'via', '2001:db8:b::2');
  await ip('-n', ROUTER, 'route', 'add', 'unreachable', '203.0.113.0/24');
  await ip('-n', ROUTER, 'route', 'add', 'unreachable', '2001:db8:e::/48');
  shell = new NetnsShell([], HOST);
});

afterAll(async () => {
  await shell?.close();
  for (const ns of [HOST, ROUTER, FAR]) await capture('ip', ['netns', 'delete', ns]);
});

/** Each hop with who answered and what was wrong. */
async function trace(options: string): Promise<string[]> {
  const { output } = await shell!.run(`traceroute ${options}`);
  const hops = output
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.replace(/ +[\d.]+ ms/g, '').trim());
  return hops.length > 0 ? hops : [output];
}

describe('traceroute', () => {
  it.each([
    ['UDP', ''],
    ['UDP to one port', '-U -p 53'],
    ['ICMP', '-I'],
    ['TCP', '-T -p 9'],
  ])('by %s sees the way as it is', async (_how, options) => {
    expect(await trace(`${options} -n -q 1 -m 8 -w 20 198.51.100.9`)).toEqual([
      '1  10.0.2.2',
      '2  10.99.0.2',
      '3  198.51.100.9',
    ]);
    expect(await trace(`-6 ${options} -n -q 1 -m 8 -w 20 2001:db8:f::9`)).toEqual([
      '1  fec0::2',
      '2  2001:db8:a::2',
      '3  2001:db8:f::9',
    ]);
  });

  it('three probes for each hop are all answered', async () => {
    expect(await trace('-n -m 8 -w 20 198.51.100.9')).toEqual([
      '1  10.0.2.2',
      '2  10.99.0.2',
      '3  198.51.100.9',
    ]);
  });

  it('ends where a router says that there is no way', async () => {
    // One probe at a time: a router's kernel says so five times at once, then once a second.
    for (const how of ['', '-I'])
      expect(await trace(`${how} -N 1 -n -q 1 -m 8 -w 20 203.0.113.5`)).toEqual([
        '1  10.0.2.2',
        '2  10.99.0.2 !H',
      ]);
    expect(await trace('-6 -N 1 -n -q 1 -m 8 -w 20 2001:db8:e::5')).toEqual([
      '1  fec0::2',
      '2  2001:db8:a::2 !N',
    ]);
  });
});

describe('ping', () => {
  it('reaches the host’s own addresses and those beyond, by both families', async () => {
    for (const target of ['10.99.0.1', '198.51.100.9', '2001:db8:a::1', '2001:db8:f::9'])
      expect((await shell!.run(`ping -c 2 -i 0.01 -W 20 ${target}`)).output).toContain('2 received');
  });

  it('names the router where its hop limit ended', async () => {
    const four = await shell!.run('ping -c 1 -t 2 -W 20 198.51.100.9');
    expect(four.output).toMatch(/From 10\.99\.0\.2 icmp_seq=1 Time to live exceeded/);
    const six = await shell!.run('ping -6 -c 1 -t 2 -W 20 2001:db8:f::9');
    expect(six.output).toMatch(/From 2001:db8:a::2 icmp_seq=1 Time exceeded: Hop limit/);
  });

  it('and many others at once go on', async () => {
    const { output } = await shell!.run(
      'for i in 1 2 3 4 5 6 7 8; do ping -c 3 -i 0.01 -W 20 -t $((i > 4 ? 2 : 64)) 198.51.100.9 & done; wait',
    );
    expect(output.match(/3 received/g)).toHaveLength(4);
    expect(output.match(/Time to live exceeded/g)).toHaveLength(12);
  });
});

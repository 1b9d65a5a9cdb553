/**
 * A way with routers behind a host, in namespaces, and what traceroute and ping are to see of it from a user network of that host:
 *
 *     the user network ── netemu ── HOST ══ ROUTER ══ FAR (198.51.100.9, 2001:db8:f::9)
 *                                             └ 100.64.9.0/24, 2001:db8:e::/48: unreachable
 */

import { describe, expect, it } from 'vitest';
import { capture, run } from './command.ts';
import type { Shell } from './netns.ts';

const ip = (...words: string[]): Promise<string> => run('ip', words);

/** What the guest of a user network is to have routes for. */
export const ROUTED4 = ['198.51.100.0/24', '100.64.9.0/24', '192.168.77.0/24'];
export const ROUTED6 = ['2001:db8:a::/48', '2001:db8:e::/48', '2001:db8:f::/48'];

export class Routes {
  /** The namespace that netemu is to run in. */
  readonly host = `ne-hops-host-${process.pid}`;
  readonly #router = `ne-hops-router-${process.pid}`;
  readonly #far = `ne-hops-far-${process.pid}`;

  async open(): Promise<void> {
    const host = this.host;
    const router = this.#router;
    const far = this.#far;
    for (const ns of [host, router, far]) {
      await ip('netns', 'add', ns);
      await ip('-n', ns, 'link', 'set', 'lo', 'up');
      // Each of many probes at once is answered.
      const settings = ['net.ipv4.icmp_ratemask=0', 'net.ipv6.icmp.ratelimit=0', 'net.ipv4.ip_forward=1'];
      await ip('netns', 'exec', ns, 'sysctl', '-q', '-w', ...settings, 'net.ipv6.conf.all.forwarding=1');
    }
    await wire('near', host, router, '192.168.77', '2001:db8:a');
    await wire('away', router, far, '192.168.78', '2001:db8:b');
    await ip('-n', host, 'route', 'add', 'default', 'via', '192.168.77.2');
    await ip('-n', host, 'route', 'add', 'default', 'via', '2001:db8:a::2');
    await ip('-n', far, 'route', 'add', 'default', 'via', '192.168.78.1');
    await ip('-n', far, 'route', 'add', 'default', 'via', '2001:db8:b::1');
    await ip('-n', far, 'address', 'add', '198.51.100.9/32', 'dev', 'lo');
    await ip('-n', far, 'address', 'add', '2001:db8:f::9/128', 'dev', 'lo', 'nodad');
    await ip('-n', router, 'route', 'add', '198.51.100.9', 'via', '192.168.78.2');
    await ip('-n', router, 'route', 'add', '2001:db8:f::9', 'via', '2001:db8:b::2');
    await ip('-n', router, 'route', 'add', 'unreachable', '100.64.9.0/24');
    await ip('-n', router, 'route', 'add', 'unreachable', '2001:db8:e::/48');
  }

  async close(): Promise<void> {
    for (const ns of [this.host, this.#router, this.#far]) await capture('ip', ['netns', 'delete', ns]);
  }
}

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

/** `gateway4` and `gateway6`: the user network's. */
export function userRoutes(at: () => { shell: Shell; gateway4: string; gateway6: string }): void {
  /** Each hop with who answered and what was wrong. */
  async function trace(options: string): Promise<string[]> {
    const { output } = await at().shell.run(`traceroute ${options}`);
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
        `1  ${at().gateway4}`,
        '2  192.168.77.2',
        '3  198.51.100.9',
      ]);
      expect(await trace(`-6 ${options} -n -q 1 -m 8 -w 20 2001:db8:f::9`)).toEqual([
        `1  ${at().gateway6}`,
        '2  2001:db8:a::2',
        '3  2001:db8:f::9',
      ]);
    });

    it('three probes for each hop are all answered', async () => {
      expect(await trace('-n -m 8 -w 20 198.51.100.9')).toEqual([
        `1  ${at().gateway4}`,
        '2  192.168.77.2',
        '3  198.51.100.9',
      ]);
    });

    it('ends where a router says that there is no way', async () => {
      // One probe at a time: a router's kernel says so five times at once, then once a second.
      for (const how of ['', '-I'])
        expect(await trace(`${how} -N 1 -n -q 1 -m 8 -w 20 100.64.9.5`)).toEqual([
          `1  ${at().gateway4}`,
          '2  192.168.77.2 !H',
        ]);
      expect(await trace('-6 -N 1 -n -q 1 -m 8 -w 20 2001:db8:e::5')).toEqual([
        `1  ${at().gateway6}`,
        '2  2001:db8:a::2 !N',
      ]);
    });
  });

  describe('ping', () => {
    it('reaches the host’s own addresses and those beyond, by both families', async () => {
      for (const target of ['192.168.77.1', '198.51.100.9', '2001:db8:a::1', '2001:db8:f::9'])
        expect((await at().shell.run(`ping -c 2 -i 0.01 -W 20 ${target}`)).output).toContain('2 received');
    });

    it('names the router where its hop limit ended', async () => {
      const four = await at().shell.run('ping -c 1 -t 2 -W 20 198.51.100.9');
      expect(four.output).toMatch(/From 192\.168\.77\.2 icmp_seq=1 Time to live exceeded/);
      const six = await at().shell.run('ping -6 -c 1 -t 2 -W 20 2001:db8:f::9');
      expect(six.output).toMatch(/From 2001:db8:a::2 icmp_seq=1 Time exceeded: Hop limit/);
    });

    it('and many others at once go on', async () => {
      const { output } = await at().shell.run(
        'for i in 1 2 3 4 5 6 7 8; do ping -c 3 -i 0.01 -W 20 -t $((i > 4 ? 2 : 64)) 198.51.100.9 & done; wait',
      );
      expect(output.match(/3 received/g)).toHaveLength(4);
      expect(output.match(/Time to live exceeded/g)).toHaveLength(12);
    });
  });
}

import { describe, expect, test } from 'vitest';
import { ARP_OP_REPLY } from '../../../src/wire/arp.ts';
import {
  DHCP_ACK,
  DHCP_DECLINE,
  DHCP_DISCOVER,
  DHCP_NAK,
  DHCP_OFFER,
  DHCP_REQUEST,
} from '../../../src/wire/dhcp.ts';
import { type Answer, DhcpServer } from './dhcp-server.ts';
import { BROADCAST_MAC, hostBench, ip } from './harness.ts';

function bench(seed = 1) {
  const b = hostBench(seed);
  return { ...b, server: new DhcpServer(b.peer) };
}

describe('DHCP', () => {
  test('discover, offer, request, acknowledgement; the address is announced', () => {
    const { host, loop, server, told, peer, close } = bench();
    host.start();
    loop.runUntil(10e6);
    expect(told.lines).toEqual(['leased a00020f 86400']);
    expect(server.asked).toEqual([
      [DHCP_DISCOVER, -1, 0, 0xffffffff],
      [DHCP_REQUEST, ip('10.0.2.15'), 0, 0xffffffff],
    ]);
    expect(host.ipv4.address).toBe(ip('10.0.2.15'));
    expect(host.ipv4.mask).toBe(ip('255.255.255.0'));
    expect(host.ipv4.router).toBe(ip('10.0.2.2'));
    expect(host.resolver.servers).toEqual([Uint8Array.of(10, 0, 2, 3)]);
    expect(peer.arps.at(-1)).toEqual([ip('10.0.2.15'), ip('10.0.2.15')]);
    close();
  });

  test('retries after 1, 2, 4 s, give or take a quarter, while nobody answers; then a late server is taken', () => {
    const { host, loop, server, told, clock, close } = bench();
    const times: number[] = [];
    const datagram = server.datagram.bind(server);
    server.datagram = (d) => {
      if (d.dstPort === 67) times.push(clock.nowNs() / 1e9);
      datagram(d);
    };
    server.silent = true;
    host.start();
    loop.runUntil(20e9);
    const gaps = times.slice(1).map((time, i) => time - times[i]);
    for (const [i, gap] of gaps.entries()) {
      expect(gap).toBeGreaterThan(0.74 * 2 ** i);
      expect(gap).toBeLessThan(1.26 * 2 ** i);
    }
    expect(gaps.length).toBeGreaterThanOrEqual(4);
    expect(told.lines).toContain('no DHCP server');
    expect(told.lines).toContain('link-local a9fe');
    server.silent = false;
    loop.runUntil(60e9);
    expect(told.lines.at(-1)).toBe('leased a00020f 86400');
    expect(host.linkLocal.running).toBe(false);
    expect(host.ipv4.address).toBe(ip('10.0.2.15'));
    close();
  });

  test('renews by unicast at half the lease, keeps the address', () => {
    const { host, loop, server, told, close } = bench();
    server.seconds = 1000;
    host.start();
    loop.runUntil(499e9);
    expect(server.asked).toHaveLength(2);
    loop.runUntil(501e9);
    expect(server.asked[2]).toEqual([DHCP_REQUEST, -1, ip('10.0.2.15'), ip('10.0.2.2')]);
    expect(told.lines).toContain('renewed a00020f 1000');
    expect(host.dhcp.state).toBe('bound');
    close();
  });

  test('rebinds by broadcast at seven eighths; when the lease ends the address goes', () => {
    const { host, loop, server, told, close } = bench();
    server.seconds = 1000;
    host.start();
    loop.runUntil(1e9);
    server.silent = true;
    loop.runUntil(874e9);
    expect(
      server.asked.slice(2).every(([, , ciaddr, to]) => ciaddr === ip('10.0.2.15') && to === ip('10.0.2.2')),
    ).toBe(true);
    loop.runUntil(876e9);
    expect(server.asked.at(-1)![3]).toBe(0xffffffff);
    expect(host.ipv4.ready).toBe(true);
    loop.runUntil(1001e9);
    expect(told.lines).toContain('lost: the lease ended');
    expect(host.ipv4.ready).toBe(false);
    expect(server.asked.at(-1)![0]).toBe(DHCP_DISCOVER);
    close();
  });

  test('a refusal while requesting starts over after a second; while renewing it takes the address away', () => {
    const { host, loop, server, told, close } = bench();
    let refusals = 1;
    server.bend = (answer) =>
      answer.type === DHCP_ACK && refusals-- > 0 ? { ...answer, type: DHCP_NAK } : answer;
    server.seconds = 1000;
    host.start();
    loop.runUntil(0.9e9);
    expect(host.dhcp.state).toBe('declined');
    loop.runUntil(2e9);
    expect(told.lines).toContain('leased a00020f 1000');
    refusals = 1;
    loop.runUntil(505e9);
    expect(told.lines).toContain('lost: the server refused to renew the lease');
    expect(told.lines.at(-1)).toBe('leased a00020f 1000');
    close();
  });

  test('declines an address that somebody else turns out to have', () => {
    const { host, loop, server, peer, told, close } = bench();
    host.start();
    loop.runUntil(1e9);
    peer.sayArp(ARP_OP_REPLY, ip('10.0.2.15'), BROADCAST_MAC, ip('10.0.2.15'));
    loop.runUntil(2e9);
    expect(told.lines).toContain('lost: somebody else has the address');
    expect(server.asked.at(-1)!.slice(0, 2)).toEqual([DHCP_DECLINE, ip('10.0.2.15')]);
    expect(host.ipv4.ready).toBe(false);
    server.address = ip('10.0.2.16');
    loop.runUntil(20e9);
    expect(host.ipv4.address).toBe(ip('10.0.2.16'));
    close();
  });

  const nonsense: [string, (answer: Answer) => Answer][] = [
    ['another transaction', (a) => ({ ...a, xid: a.xid ^ 1 })],
    ['another client', (a) => ({ ...a, chaddr: Uint8Array.of(2, 0, 0, 0, 0, 1) })],
    ['a request', (a) => ({ ...a, op: 1 })],
    ['no server', (a) => ({ ...a, server: 0 })],
    ['no lease time', (a) => ({ ...a, seconds: 0 })],
    ['no address', (a) => ({ ...a, yiaddr: 0 })],
    ['a loopback address', (a) => ({ ...a, yiaddr: ip('127.0.0.1') })],
    ['a multicast address', (a) => ({ ...a, yiaddr: ip('224.0.0.1') })],
    ['the broadcast address', (a) => ({ ...a, yiaddr: ip('10.0.2.255') })],
    ['the network address', (a) => ({ ...a, yiaddr: ip('10.0.2.0') })],
    ['a mask with holes', (a) => ({ ...a, mask: ip('255.0.255.0') })],
    ['an acknowledgement too early', (a) => ({ ...a, type: a.type === DHCP_OFFER ? DHCP_ACK : a.type })],
  ];
  test.each(nonsense)('hardening 40: an answer with %s is counted and ignored', (_name, bend) => {
    const { host, loop, server, told, close } = bench();
    server.bend = bend;
    host.start();
    loop.runUntil(0.7e9);
    expect(told.lines).toEqual([]);
    expect(host.stats.rxDropUnexpected + host.stats.rxDropMalformed).toBe(1);
    server.bend = (answer) => answer;
    loop.runUntil(3e9);
    expect(told.lines).toContain('leased a00020f 86400');
    close();
  });

  test('hardening 40: short messages and options that run over are counted and ignored', () => {
    const { host, loop, server, peer, told, close } = bench();
    server.silent = true;
    host.start();
    loop.runUntil(1e6);
    const whole = new Uint8Array(300);
    whole[0] = 2;
    whole.set([1, 6], 1);
    whole.set([0x63, 0x82, 0x53, 0x63, 53, 200, 2], 236);
    for (const length of [0, 1, 100, 235])
      peer.sendUdp(server.server, 0xffffffff, 67, 68, whole.slice(0, length), BROADCAST_MAC);
    peer.sendUdp(server.server, 0xffffffff, 67, 68, whole, BROADCAST_MAC);
    loop.runUntil(2e6);
    expect(host.stats.rxDropMalformed).toBe(5);
    server.silent = false;
    loop.runUntil(3e9);
    expect(told.lines).toContain('leased a00020f 86400');
    close();
  });

  test('a link that goes down and up is configured anew', () => {
    const { host, loop, server, link, told, close } = bench();
    host.start();
    loop.runUntil(1e9);
    link.setUp(false);
    expect(host.ipv4.ready).toBe(false);
    server.address = ip('10.0.2.20');
    loop.runUntil(2e9);
    link.setUp(true);
    loop.runUntil(3e9);
    const lines = told.lines.filter((line) => !line.startsWith('v6'));
    expect(lines).toEqual(['leased a00020f 86400', 'link down', 'link up', 'leased a000214 86400']);
    close();
  });
});

import { describe, expect, test } from 'vitest';
import { ARP_OP_REPLY, ARP_OP_REQUEST } from '../../../src/wire/arp.ts';
import { BROADCAST_MAC, hostBench } from './harness.ts';

describe('IPv4 link-local (RFC 3927)', () => {
  test('probes three times, then announces twice and uses the address', () => {
    const { host, loop, peer, told, close } = hostBench(5);
    host.linkLocal.start();
    loop.runUntil(10e9);
    const address = host.linkLocal.address;
    expect(peer.arps).toEqual([
      [0, address],
      [0, address],
      [0, address],
      [address, address],
      [address, address],
    ]);
    expect(address).toBeGreaterThanOrEqual(0xa9fe0100);
    expect(address).toBeLessThan(0xa9feff00);
    expect(host.ipv4.address).toBe(address);
    expect(told.lines).toEqual(['link-local a9fe']);
    close();
  });

  test('picks another address when the probed one is taken, or probed by somebody else', () => {
    const { host, loop, peer, close } = hostBench(5);
    host.linkLocal.start();
    loop.runUntil(1e6);
    const [[, first]] = peer.arps;
    peer.sayArp(ARP_OP_REPLY, first, BROADCAST_MAC, first);
    loop.runUntil(1.1e9);
    const second = peer.arps.at(-1)![1];
    expect(second).not.toBe(first);
    peer.sayArp(ARP_OP_REQUEST, 0, BROADCAST_MAC, second);
    loop.runUntil(20e9);
    expect(host.linkLocal.address).not.toBe(second);
    expect(host.linkLocal.address).not.toBe(0);
    expect(host.linkLocal.conflicts).toBe(2);
    close();
  });

  test('defends its address once, then gives it up', () => {
    const { host, loop, peer, close } = hostBench(5);
    host.linkLocal.start();
    loop.runUntil(10e9);
    const address = host.linkLocal.address;
    const announced = peer.arps.length;
    peer.sayArp(ARP_OP_REPLY, address, BROADCAST_MAC, address);
    loop.runUntil(11e9);
    expect(peer.arps.length).toBe(announced + 1);
    expect(host.linkLocal.address).toBe(address);
    peer.sayArp(ARP_OP_REPLY, address, BROADCAST_MAC, address);
    loop.runUntil(11.1e9);
    expect(host.ipv4.ready).toBe(false);
    loop.runUntil(30e9);
    expect(host.linkLocal.address).not.toBe(address);
    expect(host.ipv4.ready).toBe(true);
    close();
  });

  test('after ten conflicts it tries once a minute', () => {
    const { host, loop, peer, close } = hostBench(5);
    let probes = 0;
    const sent = peer.link.onFrame;
    peer.link.onFrame = (frame) => {
      sent(frame);
      const [sender, target] = peer.arps.at(-1)!;
      if (sender !== 0) return;
      probes++;
      peer.sayArp(ARP_OP_REPLY, target, BROADCAST_MAC, target);
    };
    host.linkLocal.start();
    loop.runUntil(30e9);
    expect(probes).toBe(10);
    loop.runUntil(200e9);
    expect(probes).toBe(13);
    close();
  });
});

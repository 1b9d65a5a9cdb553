/**
 * Any bytes at all into the probe's host: nothing throws, every buffer comes back, what is sent is bounded, and a good frame still passes
 * afterwards. Frames are noise, or good ones with some bytes changed, so that the noise gets deep.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EchoServer } from '../../../src/guest/probe/echo.ts';
import { portableSha256 } from '../../../src/guest/probe/hash.ts';
import { HttpServer } from '../../../src/guest/probe/http/server.ts';
import { writeArp } from '../../../src/wire/arp.ts';
import { parseIpv6, putU16be } from '../../../src/wire/bytes.ts';
import { pseudoSumV4 } from '../../../src/wire/checksum.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IPV6, writeEthernet } from '../../../src/wire/ethernet.ts';
import { ICMP_ECHO_REQUEST, writeIcmpEcho } from '../../../src/wire/icmp.ts';
import { setIcmpv6Checksum, writeIcmpv6 } from '../../../src/wire/icmpv6.ts';
import { writeIpv6 } from '../../../src/wire/ipv6.ts';
import { setTcpChecksum, TCP_SYN, writeTcp } from '../../../src/wire/tcp.ts';
import { hostBench, ip, ipFrame, PEER_MAC, PROBE_MAC, udpPacket } from './harness.ts';

const OURS = ip('10.0.2.15');
const PEER = ip('10.0.2.2');

function tcp(flags: number, port: number, seq: number): Uint8Array {
  const segment = new Uint8Array(30);
  writeTcp(segment, 0, 4000, port, seq, 1, 20, flags, 1000);
  setTcpChecksum(segment, 0, 30, pseudoSumV4(PEER, OURS, 6, 30));
  return ipFrame(PEER, OURS, 6, segment);
}

function arp(operation: number, sender: number, target: number): Uint8Array {
  const frame = new Uint8Array(60);
  writeEthernet(frame, 0, PROBE_MAC, 0, PEER_MAC, 0, ETHERTYPE_ARP);
  writeArp(frame, 14, operation, PEER_MAC, 0, sender, PROBE_MAC, 0, target);
  return frame;
}

function icmpv6(type: number, body: number): Uint8Array {
  const frame = new Uint8Array(54 + body);
  writeEthernet(frame, 0, PROBE_MAC, 0, PEER_MAC, 0, ETHERTYPE_IPV6);
  writeIpv6(frame, 14, body, 58, 255, parseIpv6('fe80::2')!, 0, parseIpv6('fe80::5054:ff:fe12:3456')!, 0);
  writeIcmpv6(frame, 54, type, 0, 0);
  setIcmpv6Checksum(frame, 54, body, 14);
  return frame;
}

function echo(): Uint8Array {
  const message = new Uint8Array(40);
  writeIcmpEcho(message, 0, ICMP_ECHO_REQUEST, 1, 1, 32);
  return ipFrame(PEER, OURS, 1, message);
}

const good: readonly (() => Uint8Array)[] = [
  echo,
  () => arp(1, PEER, OURS),
  () => arp(2, PEER, OURS),
  () => ipFrame(PEER, OURS, 17, udpPacket(PEER, OURS, 5000, 7, new Uint8Array(64))),
  () => ipFrame(PEER, OURS, 17, udpPacket(PEER, OURS, 67, 68, new Uint8Array(300))),
  () => tcp(TCP_SYN, 80, 100),
  () => tcp(0x18, 80, 101),
  () => tcp(0x11, 80, 111),
  () => tcp(0x04, 80, 101),
  () => icmpv6(128, 40),
  () => icmpv6(134, 64),
  () => icmpv6(135, 32),
  () => icmpv6(136, 32),
];

const bent = fc
  .tuple(
    fc.nat(good.length - 1),
    fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 6 }),
    fc.integer({ min: -60, max: 20 }),
  )
  .map(([which, changes, cut]) => {
    const frame = good[which]();
    for (const [at, value] of changes) if (at >= 12 && at < frame.length) frame[at] = value;
    const length = Math.max(0, frame.length + cut);
    const out = new Uint8Array(length);
    out.set(frame.subarray(0, length));
    return out;
  });
const noise = fc.uint8Array({ maxLength: 200 }).map((bytes) => {
  const frame = new Uint8Array(14 + bytes.length);
  writeEthernet(frame, 0, PROBE_MAC, 0, PEER_MAC, 0, bytes.length % 2 === 0 ? 0x0800 : ETHERTYPE_IPV6);
  frame.set(bytes, 14);
  return frame;
});

test('no stream of frames breaks the host', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(bent, noise), { maxLength: 60 }), (frames) => {
      const b = hostBench();
      b.host.start();
      b.host.ipv4.configure(OURS, ip('255.255.255.0'), PEER);
      b.peer.addresses.add(PEER);
      const server = new HttpServer(b.loop, portableSha256);
      server.listen(b.host.tcp, 80);
      const service = new EchoServer(b.host, 7);
      service.listen();
      b.loop.runUntil(1.5e9);
      b.link.sent.length = 0;
      // The scripted peer parses strictly; here it only has to be there for ARP.
      const strict = b.link.onFrame;
      b.link.onFrame = () => {};
      for (const frame of frames) b.link.deliver(frame);
      b.loop.runUntil(2.5e9);
      // Answers, retransmissions and our own protocols: a few frames for each that came in.
      expect(b.link.sent.length).toBeLessThan(20 + 6 * frames.length);
      b.link.onFrame = strict;
      b.peer.onOther = () => {};
      b.peer.onDatagram = () => {};
      b.host.ipv4.configure(OURS, ip('255.255.255.0'), PEER);
      b.link.sent.length = 0;
      b.link.deliver(echo());
      b.loop.runUntil(3e9);
      expect(b.link.sent.some((frame) => frame[23] === 1 && frame[34] === 0)).toBe(true);
      server.close();
      service.close();
      b.close();
    }),
    { numRuns: 300 },
  );
});

test('a flood of SYNs is held to 1024 connections, which end by themselves', () => {
  const b = hostBench();
  b.host.ipv4.configure(OURS, ip('255.255.255.0'), PEER);
  b.peer.addresses.add(PEER);
  b.peer.onOther = () => {};
  const server = new HttpServer(b.loop, portableSha256);
  server.listen(b.host.tcp, 80);
  for (let port = 1024; port < 3024; port++) {
    const frame = tcp(TCP_SYN, 80, 7);
    putU16be(frame, 34, port);
    setTcpChecksum(frame, 34, 30, pseudoSumV4(PEER, OURS, 6, 30));
    b.link.deliver(frame);
    b.loop.runUntil(b.clock.nowNs() + 1e6);
  }
  expect(b.host.tcp.stack.connections).toBe(1024);
  expect(server.stats.refusedConnections).toBe(976);
  b.loop.runUntil(b.clock.nowNs() + 200e9);
  expect(b.host.tcp.stack.connections).toBe(0);
  server.close();
  b.close();
});

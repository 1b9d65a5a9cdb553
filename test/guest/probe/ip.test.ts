import { describe, expect, test } from 'vitest';
import { EchoServer } from '../../../src/guest/probe/echo.ts';
import type { PingResult } from '../../../src/guest/probe/net/ping.ts';
import { ARP_OP_REPLY, ARP_OP_REQUEST, ArpPacket } from '../../../src/wire/arp.ts';
import { ETHERTYPE_ARP, writeEthernet } from '../../../src/wire/ethernet.ts';
import {
  ICMP_ECHO_REQUEST,
  IcmpMessage,
  setIcmpChecksum,
  writeIcmp,
  writeIcmpEcho,
  writeIcmpError,
} from '../../../src/wire/icmp.ts';
import { IPV4_MF, writeIpv4 } from '../../../src/wire/ipv4.ts';
import {
  type Bench,
  BROADCAST_MAC,
  hostBench,
  ip,
  ipFrame,
  PEER_MAC,
  PROBE_MAC,
  udpPacket,
  WIRE_NS,
} from './harness.ts';

const OURS = ip('10.0.2.15');
const PEER = ip('10.0.2.2');
const PEER_BYTES = Uint8Array.of(10, 0, 2, 2);

/** A host with a fixed address and a peer that is there. */
function bench(): Bench {
  const b = hostBench();
  b.host.ipv4.configure(OURS, ip('255.255.255.0'), PEER);
  b.peer.addresses.add(PEER);
  return b;
}

function ping(b: Bench, remote: Uint8Array, tries = 3): PingResult[] {
  const results: PingResult[] = [];
  b.host.ping.ping(remote, tries, (result) => results.push(result));
  return results;
}

describe('ARP', () => {
  test('a packet waits for the answer and goes out then', () => {
    const b = bench();
    const results = ping(b, PEER_BYTES);
    b.loop.runUntil(1e6);
    expect(b.peer.arpRequests).toBe(1);
    // The request, its answer, the echo, its answer.
    expect(results).toEqual([{ rttNs: 4 * WIRE_NS, problem: '', sent: 1 }]);
    b.close();
  });

  test('asks three times, a second apart, then tells that nobody is there and drops what waited', () => {
    const b = bench();
    b.peer.answersArp = false;
    const results = ping(b, PEER_BYTES, 9);
    b.loop.runUntil(2.9e9);
    expect(b.peer.arpRequests).toBe(3);
    expect(results).toEqual([]);
    b.loop.runUntil(3.1e9);
    expect(results).toEqual([{ rttNs: -1, problem: 'unreachable', sent: 4 }]);
    expect(b.host.stats.txDropUnresolved).toBeGreaterThanOrEqual(3);
    b.close();
  });

  test('an entry in use is confirmed by unicast after 30 s and given up when that fails', () => {
    const b = bench();
    ping(b, PEER_BYTES);
    b.loop.runUntil(31e9);
    b.peer.answersArp = false;
    b.link.sent.length = 0;
    expect(ping(b, PEER_BYTES)).toEqual([]);
    b.loop.runUntil(32e9);
    const requests = b.link.sent.filter((frame) => frame[12] === 8 && frame[13] === 6);
    expect(requests[0].slice(0, 6)).toEqual(PEER_MAC);
    b.loop.runUntil(40e9);
    expect(b.host.ipv4.neighbours.size).toBe(0);
    b.close();
  });

  test('answers requests for its address, learns who asked, and nothing from others', () => {
    const b = bench();
    const replies: Uint8Array[] = [];
    b.peer.onOther = (frame) => replies.push(frame);
    b.peer.sayArp(ARP_OP_REQUEST, PEER, BROADCAST_MAC, OURS);
    b.peer.sayArp(ARP_OP_REQUEST, ip('10.0.2.9'), BROADCAST_MAC, ip('10.0.2.10'));
    b.peer.sayArp(ARP_OP_REPLY, ip('10.0.2.11'), PROBE_MAC, OURS);
    b.loop.runUntil(1e6);
    expect(replies).toHaveLength(1);
    const arp = new ArpPacket();
    expect(arp.parse(replies[0], 14, replies[0].length)).toBe(true);
    expect([arp.operation, arp.senderIp, arp.targetIp]).toEqual([ARP_OP_REPLY, OURS, PEER]);
    expect(replies[0].slice(0, 6)).toEqual(PEER_MAC);
    expect(replies[0].slice(arp.senderMac, arp.senderMac + 6)).toEqual(PROBE_MAC);
    expect(b.host.ipv4.neighbours.size).toBe(1);
    b.close();
  });

  test('hardening 44: short and nonsensical ARP is counted and dropped', () => {
    const b = bench();
    for (const length of [14, 20, 41]) {
      const frame = new Uint8Array(length);
      writeEthernet(frame, 0, BROADCAST_MAC, 0, PEER_MAC, 0, ETHERTYPE_ARP);
      b.link.deliver(frame);
    }
    b.peer.sayArp(ARP_OP_REQUEST, PEER, BROADCAST_MAC, OURS, BROADCAST_MAC);
    b.loop.runUntil(1e6);
    expect(b.host.stats.rxDropMalformed).toBe(4);
    expect(b.host.ipv4.neighbours.size).toBe(0);
    b.close();
  });

  test('the table holds at most 256 entries', () => {
    const b = bench();
    for (let i = 0; i < 1000; i++) b.peer.sayArp(ARP_OP_REQUEST, ip('10.0.2.20') + i, BROADCAST_MAC, OURS);
    b.loop.runUntil(1e9);
    expect(b.host.ipv4.neighbours.size).toBe(256);
    b.close();
  });
});

describe('ICMP', () => {
  test('answers an echo with the same bytes', () => {
    const b = bench();
    const replies: Uint8Array[] = [];
    b.peer.onOther = (frame) => replies.push(frame);
    const message = new Uint8Array(8 + 1000);
    for (let i = 0; i < 1000; i++) message[8 + i] = i;
    writeIcmpEcho(message, 0, ICMP_ECHO_REQUEST, 7, 9, 1000);
    b.peer.sendIp(PEER, OURS, 1, message);
    b.loop.runUntil(1e6);
    const icmp = new IcmpMessage();
    expect(icmp.parse(replies[0], 34, 34 + message.length)).toBe(true);
    expect([icmp.type, icmp.id, icmp.sequence]).toEqual([0, 7, 9]);
    expect(replies[0].slice(42, 1042)).toEqual(message.slice(8));
    b.close();
  });

  test('a ping without an answer is repeated and then told', () => {
    const b = bench();
    b.peer.answersEcho = false;
    const results = ping(b, PEER_BYTES);
    b.loop.runUntil(10e9);
    expect(results).toEqual([{ rttNs: -1, problem: 'timeout', sent: 3 }]);
    b.close();
  });

  test('a reply from elsewhere, or to nothing, is counted and ignored', () => {
    const b = bench();
    b.peer.answersEcho = false;
    const results = ping(b, PEER_BYTES, 1);
    b.loop.runUntil(0.1e9);
    const echo = b.link.sent.find((frame) => frame[23] === 1)!;
    const id = (echo[38] << 8) | echo[39];
    const reply = new Uint8Array(8);
    writeIcmpEcho(reply, 0, 0, id, 1, 0);
    b.peer.sendIp(ip('10.0.2.77'), OURS, 1, reply);
    writeIcmpEcho(reply, 0, 0, id, 2, 0);
    b.peer.sendIp(PEER, OURS, 1, reply);
    b.loop.runUntil(5e9);
    expect(results[0].problem).toBe('timeout');
    expect(b.host.stats.rxDropUnexpected).toBe(2);
    b.close();
  });

  test('hardening 45: bad checksums, short messages and fragments are counted and dropped', () => {
    const b = bench();
    const message = new Uint8Array(16);
    writeIcmpEcho(message, 0, ICMP_ECHO_REQUEST, 7, 9, 8);
    message[2] ^= 1;
    b.peer.sendIp(PEER, OURS, 1, message);
    b.peer.sendIp(PEER, OURS, 1, message.slice(0, 7));
    const bad = ipFrame(PEER, OURS, 1, message);
    bad[24] ^= 0xff;
    b.link.deliver(bad);
    const fragment = ipFrame(PEER, OURS, 1, message);
    writeIpv4(fragment, 14, 36, 1, IPV4_MF, 64, 1, PEER, OURS);
    b.link.deliver(fragment);
    const cut = ipFrame(PEER, OURS, 1, new Uint8Array(100)).slice(0, 100);
    b.link.deliver(cut);
    b.loop.runUntil(1e6);
    const { rxDropChecksum, rxDropMalformed, rxDropFragment } = b.host.stats;
    expect({ rxDropChecksum, rxDropMalformed, rxDropFragment }).toEqual({
      rxDropChecksum: 2,
      rxDropMalformed: 2,
      rxDropFragment: 1,
    });
    expect(b.link.sent).toEqual([]);
    b.close();
  });

  test('what is not for us is dropped: another MAC, another address, a VLAN, an unknown protocol', () => {
    const b = bench();
    const other = Uint8Array.of(2, 0, 0, 0, 0, 9);
    b.link.deliver(ipFrame(PEER, OURS, 1, new Uint8Array(8), other));
    b.link.deliver(ipFrame(PEER, ip('10.0.2.99'), 1, new Uint8Array(8)));
    b.link.deliver(ipFrame(PEER, OURS, 99, new Uint8Array(8)));
    b.loop.runUntil(1e6);
    expect(b.host.stats.rxDropNotForUs).toBe(2);
    expect(b.host.stats.rxDropUnknownProtocol).toBe(1);
    b.close();
  });
});

describe('UDP', () => {
  test('the echo service returns datagrams, whole, to their port', () => {
    const b = bench();
    const echo = new EchoServer(b.host, 7);
    expect(echo.listen()).toBe(true);
    const payload = Uint8Array.from({ length: 1400 }, (_, i) => i);
    b.peer.sendUdp(PEER, OURS, 5000, 7, payload);
    b.loop.runUntil(1e6);
    expect(b.peer.datagrams).toEqual([{ src: OURS, dst: PEER, srcPort: 7, dstPort: 5000, payload }]);
    echo.close();
    b.close();
  });

  test('a datagram from the echo port is not answered: two echoes would never end', () => {
    const b = bench();
    const echo = new EchoServer(b.host, 7);
    echo.listen();
    b.peer.sendUdp(PEER, OURS, 7, 7, Uint8Array.of(1));
    b.peer.sendUdp(PEER, ip('10.0.2.255'), 9, 7, Uint8Array.of(1), BROADCAST_MAC);
    b.loop.runUntil(1e6);
    expect(b.peer.datagrams).toEqual([]);
    expect(echo.stats.udpDropLoop).toBe(2);
    echo.close();
    b.close();
  });

  test('a closed port is answered with port unreachable, at most 20 a second', () => {
    const b = bench();
    const errors: Uint8Array[] = [];
    b.peer.onOther = (frame) => errors.push(frame);
    ping(b, PEER_BYTES);
    b.loop.runUntil(1e6);
    for (let i = 0; i < 50; i++) b.peer.sendUdp(PEER, OURS, 5000, 9, Uint8Array.of(1));
    b.loop.runUntil(0.5e9);
    expect(errors).toHaveLength(20);
    expect([errors[0][34], errors[0][35]]).toEqual([3, 3]);
    expect(b.host.stats.rxDropNoPort).toBe(50);
    b.close();
  });

  test('hardening 39: a datagram shorter than its header or its length, with a bad sum or from port 0 is dropped', () => {
    const b = bench();
    const good = udpPacket(PEER, OURS, 5000, 9, Uint8Array.of(1, 2, 3));
    b.peer.sendIp(PEER, OURS, 17, good.slice(0, 7));
    const long = good.slice();
    long[5] = 200;
    b.peer.sendIp(PEER, OURS, 17, long);
    const wrong = good.slice();
    wrong[8] ^= 1;
    b.peer.sendIp(PEER, OURS, 17, wrong);
    b.peer.sendIp(PEER, OURS, 17, udpPacket(PEER, OURS, 0, 9, Uint8Array.of(1)));
    b.loop.runUntil(1e6);
    expect([b.host.stats.rxDropMalformed, b.host.stats.rxDropChecksum]).toEqual([3, 1]);
    b.close();
  });

  test('an ICMP error reaches the socket whose datagram it quotes, and only that', () => {
    const b = bench();
    const problems: unknown[] = [];
    const handler = {
      datagram() {},
      problem: (...what: unknown[]) => problems.push(what[0], what[2]),
    };
    b.host.udp.open(4000, handler);
    const quoted = ipFrame(OURS, PEER, 17, udpPacket(OURS, PEER, 4000, 53, Uint8Array.of(1, 2, 3, 4))).slice(
      14,
    );
    const error = new Uint8Array(600);
    const tell = (code: number, packet: Uint8Array): void => {
      const length = writeIcmpError(error, 0, 3, code, 0, packet, 0, packet.length);
      b.peer.sendIp(PEER, OURS, 1, error.slice(0, length));
    };
    tell(3, quoted);
    tell(1, quoted);
    const foreign = ipFrame(PEER, PEER, 17, udpPacket(PEER, PEER, 4000, 53, Uint8Array.of(1))).slice(14);
    tell(3, foreign);
    writeIcmp(error, 0, 3, 3, 0);
    setIcmpChecksum(error, 0, 12);
    b.peer.sendIp(PEER, OURS, 1, error.slice(0, 12));
    b.loop.runUntil(1e6);
    expect(problems).toEqual(['refused', 53, 'unreachable', 53]);
    expect([b.host.stats.rxDropUnexpected, b.host.stats.rxDropMalformed]).toEqual([1, 1]);
    b.close();
  });

  test('without room in the device a frame is dropped and counted', () => {
    const b = bench();
    b.link.room = 0;
    ping(b, PEER_BYTES, 1);
    b.loop.runUntil(0.5e9);
    expect(b.host.stats.txDropNoRoom).toBe(1);
    b.close();
  });
});

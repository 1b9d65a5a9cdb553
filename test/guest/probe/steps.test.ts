import { describe, expect, test } from 'vitest';
import { type ProbeConfig, parseGuest } from '../../../src/config/guest.ts';
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { Loop } from '../../../src/core/loop.ts';
import { ProbeGuest } from '../../../src/guest/probe/probe.ts';
import { formatNs, type ProbeResult, type Step } from '../../../src/guest/probe/report.ts';
import { parseIpv6, putU16be } from '../../../src/wire/bytes.ts';
import { ETHERTYPE_IPV6, writeEthernet } from '../../../src/wire/ethernet.ts';
import { setIcmpv6Checksum } from '../../../src/wire/icmpv6.ts';
import { writeIpv6, writeIpv6GroupMac } from '../../../src/wire/ipv6.ts';
import { writeRouterAdvertisement } from '../../../src/wire/ra.ts';
import { DhcpServer } from './dhcp-server.ts';
import { FakeLink, ip, PEER_MAC, Peer, PROBE_MAC } from './harness.ts';

/** A probe on a scripted wire whose peer serves DHCP, answers ping, and answers DNS as told. */
function bench(line: string, dns: 'answers' | 'silent' | 'refuses' = 'answers') {
  const clock = new VirtualClock();
  const loop = new Loop(clock);
  const link = new FakeLink(loop);
  const peer = new Peer(link);
  const server = new DhcpServer(peer);
  peer.addresses.add(ip('10.0.2.3'));
  peer.onDatagram = (datagram) => {
    server.datagram(datagram);
    if (datagram.dstPort !== 53 || dns === 'silent') return;
    const reply = datagram.payload.slice();
    putU16be(reply, 2, dns === 'answers' ? 0x8183 : 0x8182);
    peer.sendUdp(datagram.dst, datagram.src, 53, datagram.srcPort, reply);
  };
  const steps: Step[] = [];
  const results: ProbeResult[] = [];
  const probe = new ProbeGuest(link, () => true, {
    config: parseGuest(line) as ProbeConfig,
    loop,
    random: seededRandom(3),
    log: silentLogger,
    report: (step) => steps.push(step),
    onDone: (result) => results.push(result),
  });
  const close = (): void => {
    probe.close();
    link.receiver = { receive() {}, endOfBatch() {}, linkChanged() {}, room() {} };
    loop.runUntil(clock.nowNs() + 1e9);
    expect(link.pool.free).toBe(link.pool.capacity);
    expect(loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  };
  return {
    clock,
    loop,
    link,
    peer,
    server,
    probe,
    steps,
    results,
    close,
    lines: () => steps.map(({ step, detail }) => [step, detail]),
  };
}

describe('probe steps', () => {
  test('link, lease, gateway and DNS, each with its time; once ends well', () => {
    const b = bench('probe,once');
    b.probe.start();
    b.loop.runUntil(1e9);
    expect(b.lines()).toEqual([
      ['link', 'link up 1000 Mb/s full duplex'],
      ['dhcp', 'DHCP lease 10.0.2.15/24 from 10.0.2.2, router 10.0.2.2, DNS 10.0.2.3'],
      // The ARP exchange and the echo: four frames of a microsecond.
      ['gateway', 'ping 10.0.2.2: 4.00 us'],
      ['dns', 'DNS 10.0.2.3 answered: NXDOMAIN for localhost'],
    ]);
    expect(b.steps.map(({ ok }) => ok)).toEqual([true, true, true, true]);
    expect(b.steps.map(({ elapsedNs }) => elapsedNs)).toEqual([0, 4000, 4000, 4000]);
    expect(b.results).toEqual([{ ok: true, failures: [] }]);
    b.close();
  });

  test('without once it stays, and a service answers', () => {
    const b = bench('probe,echo=7');
    b.probe.start();
    b.loop.runUntil(1e9);
    expect(b.results).toEqual([]);
    expect(b.lines()).toContainEqual(['echo', 'echo service on port 7']);
    b.peer.sendUdp(ip('10.0.2.2'), ip('10.0.2.15'), 5000, 7, Uint8Array.of(1, 2));
    b.loop.runUntil(2e9);
    expect(b.peer.datagrams.at(-1)?.payload).toEqual(Uint8Array.of(1, 2));
    b.close();
  });

  test('a resolver that does not answer is told and is not fatal', () => {
    const b = bench('probe,once', 'silent');
    b.probe.start();
    b.loop.runUntil(10e9);
    const dns = b.steps.find(({ step }) => step === 'dns')!;
    expect([dns.ok, dns.detail]).toEqual([
      false,
      'DNS 10.0.2.3: no answer (names cannot be looked up; the host may have no network)',
    ]);
    expect(b.results).toEqual([{ ok: true, failures: [] }]);
    b.close();
  });

  test('a job that needs the silent resolver fails', () => {
    const b = bench('probe,once,get=http://files.example/x', 'silent');
    b.probe.start();
    b.loop.runUntil(20e9);
    const failure =
      'GET http://files.example/x: files.example cannot be looked up: the DNS server does not answer';
    expect(b.results).toEqual([{ ok: false, failures: [failure] }]);
    b.close();
  });

  test('a gateway that does not answer fails, unless jobs decide', () => {
    for (const [line, ok] of [
      ['probe,once', false],
      ['probe,once,ping=10.0.2.3', true],
    ] as const) {
      const b = bench(line);
      b.peer.addresses.delete(ip('10.0.2.2'));
      b.probe.start();
      b.loop.runUntil(20e9);
      expect(b.steps.find(({ step }) => step === 'gateway')?.detail).toBe(
        'ping 10.0.2.2: nobody has this address on the link',
      );
      expect(b.results[0].ok).toBe(ok);
      b.close();
    }
  });

  test('without a DHCP server it takes a link-local address, says so, and that alone is no success', () => {
    const b = bench('probe,once');
    b.server.silent = true;
    b.probe.start();
    b.loop.runUntil(30e9);
    const told = b.steps
      .filter(({ step }) => step !== 'link')
      .map(({ step, ok, detail }) => [step, ok, detail.replace(/169\.254\.\d+\.\d+/, 'A')]);
    expect(told).toEqual([
      ['dhcp', false, 'no DHCP server answers; looking for a link-local address'],
      [
        'link-local',
        true,
        'link-local address A/16, as no DHCP server answers: only this link can be reached',
      ],
      ['dns', true, 'no DNS server was told'],
    ]);
    expect(b.results[0].ok).toBe(false);
    b.close();
  });

  test('with a router advertisement and no DHCP the IPv6 router is the gateway', () => {
    const b = bench('probe,once');
    b.server.silent = true;
    const bytes = new Uint8Array(200);
    const router = parseIpv6('fe80::2')!;
    const prefix = {
      prefix: parseIpv6('fec0::')!,
      prefixLength: 64,
      onLink: true,
      autonomous: true,
      validSeconds: 7200,
      preferredSeconds: 7200,
    };
    const length = writeRouterAdvertisement(bytes, 0, 200, {
      hopLimit: 64,
      managed: false,
      other: false,
      lifetimeSeconds: 1800,
      reachableMs: 0,
      retransMs: 0,
      routerMac: PEER_MAC,
      mtu: 1400,
      prefixes: [prefix],
      dnsLifetimeSeconds: 0,
      dnsServers: [],
      searchDomains: [],
    });
    const send = (dst: Uint8Array, message: Uint8Array, hopLimit: number): void => {
      const frame = new Uint8Array(54 + message.length);
      const mac = PROBE_MAC.slice();
      if (dst[0] === 0xff) writeIpv6GroupMac(mac, 0, dst, 0);
      writeEthernet(frame, 0, mac, 0, PEER_MAC, 0, ETHERTYPE_IPV6);
      writeIpv6(frame, 14, message.length, 58, hopLimit, router, 0, dst, 0);
      frame.set(message, 54);
      setIcmpv6Checksum(frame, 54, message.length, 14);
      b.link.deliver(frame);
    };
    b.peer.onOther = (frame) => {
      if (frame[54] === 133) send(parseIpv6('ff02::1')!, bytes.slice(0, length), 255);
      if (frame[54] !== 128) return;
      const reply = frame.slice(54);
      reply[0] = 129;
      send(frame.slice(22, 38), reply, 64);
    };
    b.probe.start();
    b.loop.runUntil(30e9);
    expect(b.lines().slice(1, 5)).toEqual([
      ['ra', 'IPv6 address fec0::5054:ff:fe12:3456/64 by router fe80::2'],
      ['dhcp', 'no DHCP server answers; looking for a link-local address'],
      ['gateway', 'ping fe80::2: 2.00 us'],
      ['dns', 'no DNS server was told'],
    ]);
    expect(b.results).toEqual([{ ok: true, failures: [] }]);
    // What the router said of the MTU holds for TCP too.
    expect(b.probe.host.tcp.stack.settings.ipMtuBytes).toBe(1400);
    b.close();
  });

  test('a link that is down is told; when it comes up all goes on', () => {
    const b = bench('probe');
    b.link.up = false;
    b.probe.start();
    b.loop.runUntil(6e9);
    expect(b.lines()).toEqual([['link', 'no link: nothing is connected to the NIC, or its link is down']]);
    b.link.setUp(true);
    b.loop.runUntil(7e9);
    expect(b.steps.map(({ step }) => step)).toEqual(['link', 'link', 'dhcp', 'gateway', 'dns']);
    b.close();
  });

  test('a link that stays down ends once with a failure', () => {
    const b = bench('probe,once,get=http://10.0.2.2/');
    b.link.up = false;
    b.probe.start();
    b.loop.runUntil(6e9);
    expect(b.results).toEqual([
      { ok: false, failures: ['no link: nothing is connected to the NIC, or its link is down'] },
    ]);
    b.close();
  });

  test('a device that is none ends at once', () => {
    const b = bench('probe,once');
    const steps: Step[] = [];
    const results: ProbeResult[] = [];
    const probe = new ProbeGuest(b.link, () => false, {
      config: parseGuest('probe') as ProbeConfig,
      loop: b.loop,
      random: seededRandom(3),
      log: silentLogger,
      report: (step) => steps.push(step),
      onDone: (result) => results.push(result),
    });
    probe.start();
    expect(steps[0].detail).toBe('the driver does not know this NIC');
    expect(results[0].ok).toBe(false);
    probe.close();
    b.close();
  });

  test('times are told in three digits', () => {
    expect([210_000, 1_420_000, 3_000, 99_000, 1.4e9, 61e9, 123e9, 25e6].map(formatNs)).toEqual([
      '0.21 ms',
      '1.42 ms',
      '3.00 us',
      '99.0 us',
      '1.40 s',
      '61.0 s',
      '123 s',
      '25.0 ms',
    ]);
  });
});

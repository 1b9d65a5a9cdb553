import { describe, expect, test } from 'vitest';
import { formatIpv6, parseIpv6 } from '../../../src/wire/bytes.ts';
import { ETHERTYPE_IPV6, writeEthernet } from '../../../src/wire/ethernet.ts';
import {
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  ICMPV6_NEIGHBOR_ADVERTISEMENT,
  ICMPV6_NEIGHBOR_SOLICITATION,
  ICMPV6_ROUTER_SOLICITATION,
  Icmpv6Message,
  setIcmpv6Checksum,
  writeIcmpv6,
} from '../../../src/wire/icmpv6.ts';
import { IP_PROTOCOL_ICMPV6, Ipv6Header, writeIpv6, writeIpv6GroupMac } from '../../../src/wire/ipv6.ts';
import {
  NA_OVERRIDE,
  NA_SOLICITED,
  NeighborMessage,
  writeNeighborAdvertisement,
  writeNeighborSolicitation,
} from '../../../src/wire/ndp.ts';
import { type RouterAdvertisement, writeRouterAdvertisement } from '../../../src/wire/ra.ts';
import { type Bench, hostBench, PEER_MAC, PROBE_MAC } from './harness.ts';

const ANY = v6('::');
const ALL_NODES = v6('ff02::1');
const LINK_LOCAL = v6('fe80::5054:ff:fe12:3456');
const GLOBAL = v6('fec0::5054:ff:fe12:3456');
const ROUTER = v6('fe80::2');
const GROUP = v6('ff02::1:ff12:3456');

function v6(text: string): Uint8Array {
  return parseIpv6(text)!;
}

const RA: RouterAdvertisement = {
  hopLimit: 64,
  managed: false,
  other: false,
  lifetimeSeconds: 1800,
  reachableMs: 0,
  retransMs: 0,
  routerMac: PEER_MAC,
  mtu: 1400,
  prefixes: [
    {
      prefix: v6('fec0::'),
      prefixLength: 64,
      onLink: true,
      autonomous: true,
      validSeconds: 86_400,
      preferredSeconds: 14_400,
    },
  ],
  dnsLifetimeSeconds: 600,
  dnsServers: [v6('fec0::3')],
  searchDomains: [],
};

interface Seen {
  src: string;
  dst: string;
  type: number;
  bytes: Uint8Array;
  at: number;
}

/** A host whose IPv6 alone is looked at, and what it sent. */
function bench(): Bench & {
  seen: Seen[];
  send: typeof sendIcmp;
  advertise: (ra?: Partial<RouterAdvertisement>) => void;
} {
  const b = hostBench();
  const seen: Seen[] = [];
  const ip = new Ipv6Header();
  const icmp = new Icmpv6Message();
  b.peer.onOther = (frame) => {
    if (!ip.parse(frame, 14, frame.length)) throw new Error('bad IPv6');
    if (!icmp.parse(frame, ip.payload, ip.payloadEnd) || !icmp.checksumOk(frame, 14))
      throw new Error('bad ICMPv6');
    seen.push({
      src: formatIpv6(frame, ip.src),
      dst: formatIpv6(frame, ip.dst),
      type: icmp.type,
      bytes: frame,
      at: ip.payload,
    });
  };
  const advertise = (ra: Partial<RouterAdvertisement> = {}): void => {
    const bytes = new Uint8Array(400);
    const length = writeRouterAdvertisement(bytes, 0, 400, { ...RA, ...ra });
    sendIcmp(b, ROUTER, ALL_NODES, bytes.slice(0, length), 255);
  };
  return { ...b, seen, send: sendIcmp, advertise };
}

function sendIcmp(b: Bench, src: Uint8Array, dst: Uint8Array, message: Uint8Array, hopLimit = 64): void {
  const frame = new Uint8Array(54 + message.length);
  const mac = PROBE_MAC.slice();
  if (dst[0] === 0xff) writeIpv6GroupMac(mac, 0, dst, 0);
  writeEthernet(frame, 0, mac, 0, PEER_MAC, 0, ETHERTYPE_IPV6);
  writeIpv6(frame, 14, message.length, IP_PROTOCOL_ICMPV6, hopLimit, src, 0, dst, 0);
  frame.set(message, 54);
  setIcmpv6Checksum(frame, 54, message.length, 14);
  b.link.deliver(frame);
}

describe('IPv6', () => {
  test('tests its link-local address, asks for routers, and takes up an advertised prefix', () => {
    const b = bench();
    b.host.start();
    b.loop.runUntil(1e6);
    expect(b.seen.map(({ src, dst, type }) => [src, dst, type])).toEqual([
      ['::', formatIpv6(GROUP), ICMPV6_NEIGHBOR_SOLICITATION],
      ['::', 'ff02::2', ICMPV6_ROUTER_SOLICITATION],
    ]);
    b.advertise();
    b.loop.runUntil(0.9e9);
    expect(b.host.ipv6.ready).toBe(false);
    b.loop.runUntil(1.1e9);
    expect(formatIpv6(b.host.ipv6.addresses.linkLocal!)).toBe(formatIpv6(LINK_LOCAL));
    expect(formatIpv6(b.host.ipv6.addresses.globalAddress!)).toBe(formatIpv6(GLOBAL));
    expect(b.host.ipv6.addresses.router).toEqual(ROUTER);
    expect(b.host.resolver.servers).toEqual([v6('fec0::3')]);
    expect(b.host.interface.mtuBytes).toBe(1400);
    expect(b.told.lines.filter((line) => line.startsWith('v6'))).toHaveLength(3);
    b.close();
  });

  test('asks for routers three times, 4 s apart, then tells that there is none', () => {
    const b = bench();
    b.host.start();
    b.loop.runUntil(30e9);
    expect(b.seen.filter(({ type }) => type === ICMPV6_ROUTER_SOLICITATION)).toHaveLength(3);
    expect(b.told.lines).toContain('v6 no router');
    b.close();
  });

  test.each([
    'advertised',
    'tested by another',
  ])('an address that is %s by somebody else while it is tested is not used', (how) => {
    const b = bench();
    b.host.start();
    b.loop.runUntil(1e6);
    const message = new Uint8Array(32);
    if (how === 'advertised') {
      const length = writeNeighborAdvertisement(message, 0, NA_OVERRIDE, LINK_LOCAL, 0, PEER_MAC, 0);
      sendIcmp(b, LINK_LOCAL, ALL_NODES, message.slice(0, length), 255);
    } else {
      const length = writeNeighborSolicitation(message, 0, LINK_LOCAL, 0, null);
      sendIcmp(b, ANY, GROUP, message.slice(0, length), 255);
    }
    b.loop.runUntil(3e9);
    expect(b.told.lines).toContain('v6 duplicate');
    expect(b.host.ipv6.addresses.linkLocal).toBe(null);
    b.close();
  });

  test('answers solicitations and echoes, and defends its address', () => {
    const b = bench();
    b.host.start();
    b.loop.runUntil(2e9);
    b.seen.length = 0;
    const message = new Uint8Array(32);
    sendIcmp(
      b,
      ROUTER,
      GROUP,
      message.slice(0, writeNeighborSolicitation(message, 0, LINK_LOCAL, 0, PEER_MAC)),
      255,
    );
    sendIcmp(
      b,
      ANY,
      GROUP,
      message.slice(0, writeNeighborSolicitation(message, 0, LINK_LOCAL, 0, null)),
      255,
    );
    const echo = new Uint8Array(8 + 56).fill(0x5a);
    writeIcmpv6(echo, 0, ICMPV6_ECHO_REQUEST, 0, 0x70009);
    sendIcmp(b, ROUTER, LINK_LOCAL, echo);
    b.loop.runUntil(2.1e9);
    expect(b.seen.map(({ src, dst, type }) => [src, dst, type])).toEqual([
      [formatIpv6(LINK_LOCAL), 'fe80::2', ICMPV6_NEIGHBOR_ADVERTISEMENT],
      [formatIpv6(LINK_LOCAL), 'ff02::1', ICMPV6_NEIGHBOR_ADVERTISEMENT],
      [formatIpv6(LINK_LOCAL), 'fe80::2', ICMPV6_ECHO_REPLY],
    ]);
    const [solicited, defended, reply] = b.seen;
    const neighbor = new NeighborMessage();
    expect(neighbor.parse(solicited.bytes, solicited.at, solicited.at + 32, 255)).toBe(true);
    expect([neighbor.solicited, neighbor.override]).toEqual([true, true]);
    expect(neighbor.parse(defended.bytes, defended.at, defended.at + 32, 255)).toBe(true);
    expect(neighbor.solicited).toBe(false);
    expect(reply.bytes.slice(reply.at + 4, reply.at + 64)).toEqual(echo.slice(4));
    b.close();
  });

  test('pings a neighbour it has to solicit first; the packet waits', () => {
    const b = bench();
    b.host.start();
    b.loop.runUntil(2e9);
    b.seen.length = 0;
    const rtts: number[] = [];
    const answer = b.peer.onOther;
    b.peer.onOther = (frame) => {
      answer(frame);
      const last = b.seen.at(-1)!;
      const message = new Uint8Array(200);
      if (last.type === ICMPV6_NEIGHBOR_SOLICITATION) {
        const length = writeNeighborAdvertisement(
          message,
          0,
          NA_SOLICITED | NA_OVERRIDE,
          ROUTER,
          0,
          PEER_MAC,
          0,
        );
        sendIcmp(b, ROUTER, LINK_LOCAL, message.slice(0, length), 255);
      } else if (last.type === ICMPV6_ECHO_REQUEST) {
        const echo = last.bytes.slice(last.at);
        echo[0] = ICMPV6_ECHO_REPLY;
        sendIcmp(b, ROUTER, LINK_LOCAL, echo);
      }
    };
    b.host.ping.ping(ROUTER, 3, ({ rttNs }) => rtts.push(rttNs));
    b.loop.runUntil(3e9);
    expect(rtts).toEqual([4000]);
    b.close();
  });

  test('hardening 44: neighbour discovery that was routed, is short, comes from :: with an address or for a group is dropped', () => {
    const b = bench();
    b.host.start();
    b.loop.runUntil(2e9);
    const before = b.host.stats.rxDropMalformed;
    b.seen.length = 0;
    const message = new Uint8Array(32);
    writeNeighborSolicitation(message, 0, LINK_LOCAL, 0, PEER_MAC);
    sendIcmp(b, ROUTER, GROUP, message, 254);
    sendIcmp(b, ROUTER, GROUP, message.slice(0, 20), 255);
    sendIcmp(b, ANY, GROUP, message, 255);
    const empty = message.slice();
    empty[25] = 0;
    sendIcmp(b, ROUTER, GROUP, empty, 255);
    writeNeighborSolicitation(message, 0, ALL_NODES, 0, PEER_MAC);
    sendIcmp(b, ROUTER, GROUP, message, 255);
    b.loop.runUntil(2.1e9);
    expect(b.host.stats.rxDropMalformed - before).toBe(5);
    expect(b.seen).toEqual([]);
    b.close();
  });

  test('an advertisement that is routed, from no link-local address or for a long prefix changes nothing', () => {
    const b = bench();
    b.host.start();
    b.loop.runUntil(2e9);
    const bytes = new Uint8Array(400);
    const length = writeRouterAdvertisement(bytes, 0, 400, RA);
    sendIcmp(b, ROUTER, ALL_NODES, bytes.slice(0, length), 64);
    sendIcmp(b, v6('fec0::2'), ALL_NODES, bytes.slice(0, length), 255);
    b.loop.runUntil(4e9);
    expect(b.host.ipv6.addresses.router).toBe(null);
    b.advertise({
      prefixes: [
        { ...RA.prefixes[0], prefixLength: 96 },
        { ...RA.prefixes[0], prefix: v6('fe80::') },
      ],
    });
    b.loop.runUntil(6e9);
    expect(b.host.ipv6.addresses.globalAddress).toBe(null);
    b.close();
  });

  test('lifetimes: a router and an address end with theirs; nobody can cut an address below two hours', () => {
    const b = bench();
    b.host.start();
    b.advertise({ lifetimeSeconds: 100 });
    b.loop.runUntil(10e9);
    expect(b.host.ipv6.ready).toBe(true);
    b.loop.runUntil(102e9);
    expect(b.host.ipv6.addresses.router).toBe(null);
    b.advertise({ prefixes: [{ ...RA.prefixes[0], validSeconds: 1, preferredSeconds: 1 }] });
    b.loop.runUntil(7000e9);
    expect(b.host.ipv6.ready).toBe(true);
    b.loop.runUntil(7400e9);
    expect(b.host.ipv6.ready).toBe(false);
    b.close();
  });
});

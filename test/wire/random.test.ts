/**
 * Random and mutated bytes through every parser: none throws, and none looks past its end, which shows as a result
 * that changes with bytes it must not see. Parsers that read by offset are given their own copy with other surroundings.
 */

import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ArpPacket } from '../../src/wire/arp.ts';
import { fromHex } from '../../src/wire/bytes.ts';
import { DhcpMessage } from '../../src/wire/dhcp.ts';
import { Dhcpv6Message } from '../../src/wire/dhcpv6.ts';
import { DnsMessage, readDomainName, skipDomainName } from '../../src/wire/dns.ts';
import { EthernetHeader } from '../../src/wire/ethernet.ts';
import { IcmpMessage } from '../../src/wire/icmp.ts';
import { Icmpv6Message } from '../../src/wire/icmpv6.ts';
import { Ipv4Header } from '../../src/wire/ipv4.ts';
import { Ipv6Header } from '../../src/wire/ipv6.ts';
import { L2tpv3Header } from '../../src/wire/l2tpv3.ts';
import { NeighborMessage, parseRouterSolicitation } from '../../src/wire/ndp.ts';
import { PcapReader } from '../../src/wire/pcap.ts';
import { parseRouterAdvertisement } from '../../src/wire/ra.ts';
import { TcpHeader, TcpOptions } from '../../src/wire/tcp.ts';
import { TftpPacket } from '../../src/wire/tftp.ts';
import { UdpHeader } from '../../src/wire/udp.ts';
import { VirtioNetHdr } from '../../src/wire/virtio-net-hdr.ts';
import { readVlanTag } from '../../src/wire/vlan.ts';
import { decodeFrame } from './decode.ts';

type Parser = (bytes: Uint8Array, offset: number, end: number) => unknown;

/** A struct's `parse`, and its fields when it accepted. */
function struct<T extends { parse: (bytes: Uint8Array, offset: number, end: number) => boolean }>(
  make: () => T,
): Parser {
  return (bytes, offset, end) => {
    const parsed = make();
    return parsed.parse(bytes, offset, end) ? parsed : null;
  };
}

const tunnel = new L2tpv3Header({
  udp: true,
  cookieBytes: 8,
  counter: true,
  offsetBytes: 1,
  txSession: 1,
  rxSession: 1,
  txCookieHigh: 0,
  txCookieLow: 0,
  rxCookieHigh: 0,
  rxCookieLow: 0,
});

const PARSERS: Record<string, Parser> = {
  frame: decodeFrame,
  ethernet: struct(() => new EthernetHeader()),
  vlan: (bytes, offset, end) => readVlanTag(bytes, offset, end),
  arp: struct(() => new ArpPacket()),
  ipv4: struct(() => new Ipv4Header()),
  ipv6: struct(() => new Ipv6Header()),
  icmp: struct(() => new IcmpMessage()),
  icmpv6: struct(() => new Icmpv6Message()),
  udp: struct(() => new UdpHeader()),
  tcp: struct(() => new TcpHeader()),
  tcpOptions: struct(() => new TcpOptions()),
  dhcp: (bytes, offset, end) => {
    const message = new DhcpMessage();
    if (!message.parse(bytes, offset, end)) return null;
    const values: unknown[] = [message.messageType, message.file(bytes), message.sname(bytes)];
    for (let code = 0; code < 256; code++) {
      const copy = new Uint8Array(2048);
      values.push(message.textOption(bytes, code), message.copyOption(bytes, code, copy, 0), copy);
    }
    return values;
  },
  dhcpv6: (bytes, offset, end) => {
    const message = new Dhcpv6Message();
    if (!message.parse(bytes, offset, end)) return null;
    return [
      message.type,
      message.wants(bytes, 23),
      message.findOption(bytes, bytes[offset + 1]),
      message.valueBytes,
    ];
  },
  dns: struct(() => new DnsMessage()),
  domainName: (bytes, offset, end) => [
    readDomainName(bytes, offset, offset, end),
    skipDomainName(bytes, offset, end),
  ],
  neighbor: (bytes, offset, end) => {
    const message = new NeighborMessage();
    return message.parse(bytes, offset, end, 255) ? message : null;
  },
  routerSolicitation: (bytes, offset, end) => parseRouterSolicitation(bytes, offset, end, 255),
  routerAdvertisement: (bytes, offset, end) => parseRouterAdvertisement(bytes, offset, end, 255),
  tftp: struct(() => new TftpPacket()),
  l2tpv3: (bytes, offset, end) => tunnel.check(bytes, offset, end),
  virtioNetHdr: (bytes, offset, end) => {
    const header = new VirtioNetHdr();
    return header.parse(bytes, offset, end, 12) && header.settle(end - offset) ? header : null;
  },
  pcap: (bytes, offset, end) => {
    const reader = new PcapReader();
    return [reader.parseHeader(bytes, offset, end), reader.parseRecord(bytes, offset, end), reader];
  },
};

function sameWhateverSurrounds(parser: Parser, input: Uint8Array): void {
  const one = new Uint8Array(input.length + 80).fill(0);
  const other = new Uint8Array(input.length + 80).fill(0xff);
  one.set(input, 40);
  other.set(input, 40);
  const result = parser(one, 40, 40 + input.length);
  expect(parser(other, 40, 40 + input.length)).toEqual(result);
}

/** Random bytes of which the first few are likely to pass for the start of something. */
const starts = [
  '',
  '4500',
  '6000',
  '000108000604',
  '01010600',
  '8600',
  '8700',
  '0b000001',
  '0001',
  '00030000',
  '81000001',
  'd4c3b2a102000400',
];
const random = fc
  .tuple(fc.constantFrom(...starts), fc.uint8Array({ maxLength: 400 }))
  .map(([start, rest]) => Uint8Array.of(...(fromHex(start) as Uint8Array), ...rest));

const folder = new URL('../../fixtures/frames/', import.meta.url);
const frames = readdirSync(folder)
  .filter((file) => file.endsWith('.hex'))
  .map((file) => fromHex(readFileSync(new URL(file, folder), 'utf8')) as Uint8Array);

const mutated = fc
  .tuple(fc.constantFrom(...frames), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat())
  .map(([frame, edits, cut]) => {
    const copy = frame.slice(0, cut % 4 === 0 ? cut % frame.length : frame.length);
    for (const [at, value] of edits) if (copy.length) copy[at % copy.length] = value;
    return copy;
  });

describe.each(Object.entries(PARSERS))('%s', (_, parser) => {
  it('neither throws on random bytes nor reads past them', () => {
    fc.assert(
      fc.property(random, (input) => sameWhateverSurrounds(parser, input)),
      { numRuns: 300 },
    );
  });
});

it('damaged frames neither throw nor are read past their end', () => {
  fc.assert(
    fc.property(mutated, (input) => sameWhateverSurrounds(decodeFrame, input)),
    { numRuns: 2000 },
  );
});

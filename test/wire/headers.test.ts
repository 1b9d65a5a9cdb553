/** What the writers of the header codecs write, the parsers read; and the rules each one enforces. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ARP_BYTES, ArpPacket, writeArp } from '../../src/wire/arp.ts';
import { u16be } from '../../src/wire/bytes.ts';
import { pseudoSumAt, pseudoSumV4 } from '../../src/wire/checksum.ts';
import * as ethernet from '../../src/wire/ethernet.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as icmpv6 from '../../src/wire/icmpv6.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import * as tcp from '../../src/wire/tcp.ts';
import * as udp from '../../src/wire/udp.ts';
import * as vlan from '../../src/wire/vlan.ts';

const u8 = fc.nat(0xff);
const u16 = fc.nat(0xffff);
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const mac = fc.uint8Array({ minLength: 6, maxLength: 6 });
const address6 = fc.uint8Array({ minLength: 16, maxLength: 16 });
/** Writers must not depend on what the memory held, or on where they write. */
const dirty = () => new Uint8Array(256).fill(0xee);
const AT = 3;

describe('ethernet and vlan', () => {
  it('goes there and back', () => {
    fc.assert(
      fc.property(mac, mac, u16, (dst, src, type) => {
        fc.pre(!vlan.isVlanType(type));
        const bytes = dirty();
        expect(ethernet.writeEthernet(bytes, AT, dst, 0, src, 0, type)).toBe(14);
        const header = new ethernet.EthernetHeader();
        expect(header.parse(bytes, AT, AT + 14)).toBe(true);
        expect(header).toMatchObject({ offset: AT, etherType: type, vlanTci: -1, payload: AT + 14 });
        expect(ethernet.equalMac(bytes, AT, dst, 0) && ethernet.equalMac(bytes, AT + 6, src, 0)).toBe(true);
      }),
    );
  });

  it('pads frames of 0, 1, 13 and 59 bytes to 60, none beyond (CVE-2025-12464)', () => {
    expect([0, 1, 13, 59, 60, 61, 1514].map(ethernet.ethernetPadBytes)).toEqual([60, 59, 47, 1, 0, 0, 0]);
  });

  it('knows groups', () => {
    const broadcast = new Uint8Array(6).fill(255);
    expect(ethernet.isBroadcastMac(broadcast, 0) && ethernet.isGroupMac(broadcast, 0)).toBe(true);
    expect(ethernet.isBroadcastMac(Uint8Array.of(255, 255, 255, 255, 255, 254), 0)).toBe(false);
    expect(ethernet.isGroupMac(Uint8Array.of(0x52, 1, 1, 1, 1, 1), 0)).toBe(false);
    expect(ethernet.isZeroMac(new Uint8Array(6), 0) && !ethernet.isZeroMac(broadcast, 0)).toBe(true);
  });

  it('a tag inserted is the tag found, and stripping it restores the frame', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 14, maxLength: 80 }), u16, (frame, tci) => {
        const bytes = new Uint8Array(frame.length + 10);
        bytes.set(frame, 8);
        const end = 8 + frame.length;
        const start = vlan.insertVlanTag(bytes, 8, end, tci);
        expect(start).toBe(4);
        expect(vlan.readVlanTag(bytes, start, end)).toBe(tci);
        expect(vlan.vlanTci(vlan.vlanId(tci), vlan.vlanPriority(tci), (tci & vlan.VLAN_DEI) !== 0)).toBe(tci);
        expect(vlan.stripVlanTag(bytes, start, end)).toBe(8);
        expect(bytes.subarray(8, end)).toEqual(frame);
      }),
    );
  });

  it('an id over 4095 is masked; a runt holds no tag, whatever its TPID says', () => {
    expect(vlan.vlanId(vlan.vlanTci(4096 + 5, 9, false))).toBe(5);
    const runt = new Uint8Array(64).fill(0x81);
    runt[13] = 0;
    for (let end = 0; end < 18; end++) {
      expect(vlan.readVlanTag(runt, 0, end)).toBe(-1);
      expect(vlan.stripVlanTag(runt, 0, end)).toBe(-1);
    }
    expect(vlan.readVlanTag(runt, 0, 18)).toBe(0x8181);
    expect(vlan.insertVlanTag(runt, 3, 60, 1)).toBe(-1);
    expect(vlan.insertVlanTag(runt, 8, 8 + 13, 1)).toBe(-1);
  });
});

describe('arp', () => {
  it('goes there and back', () => {
    fc.assert(
      fc.property(u16, mac, u32, mac, u32, (operation, senderMac, senderIp, targetMac, targetIp) => {
        const bytes = dirty();
        expect(writeArp(bytes, AT, operation, senderMac, 0, senderIp, targetMac, 0, targetIp)).toBe(
          ARP_BYTES,
        );
        const arp = new ArpPacket();
        expect(arp.parse(bytes, AT, AT + 27)).toBe(false);
        expect(arp.parse(bytes, AT, AT + 28)).toBe(true);
        expect(arp).toMatchObject({ operation, senderIp, targetIp });
        expect(ethernet.equalMac(bytes, arp.senderMac, senderMac, 0)).toBe(true);
        expect(ethernet.equalMac(bytes, arp.targetMac, targetMac, 0)).toBe(true);
      }),
    );
  });
});

describe('ipv4', () => {
  it('goes there and back, with a checksum that holds', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 20, max: 250 }),
        u16,
        u8,
        u8,
        u32,
        u32,
        u8,
        (total, id, ttl, protocol, src, dst, tos) => {
          const bytes = dirty();
          expect(ipv4.writeIpv4(bytes, AT, total, id, ipv4.IPV4_DF, ttl, protocol, src, dst, tos)).toBe(20);
          const ip = new ipv4.Ipv4Header();
          expect(ip.parse(bytes, AT, AT + total)).toBe(true);
          expect(ip.checksumOk(bytes)).toBe(true);
          expect(ip).toMatchObject({ totalBytes: total, id, ttl, protocol, src, dst, tos, headerBytes: 20 });
          expect(ip).toMatchObject({
            dontFragment: true,
            moreFragments: false,
            fragmentOffset: 0,
            isFragment: false,
          });
          expect(ip).toMatchObject({ payload: AT + 20, payloadEnd: AT + total });
          expect(ip.parse(bytes, AT, AT + total - 1)).toBe(false);
          expect(ipv4.decrementIpv4Ttl(bytes, AT)).toBe(ttl > 1);
          expect(ip.parse(bytes, AT, AT + total) && ip.checksumOk(bytes)).toBe(true);
          expect(ip.ttl).toBe(ttl > 1 ? ttl - 1 : ttl);
        },
      ),
    );
  });

  it('a middle fragment is a multiple of 8 bytes and not empty', () => {
    const bytes = dirty();
    const ip = new ipv4.Ipv4Header();
    for (const [payload, good] of [
      [16, true],
      [8, true],
      [0, false],
      [9, false],
    ] as const) {
      ipv4.writeIpv4(bytes, 0, 20 + payload, 1, ipv4.IPV4_MF | 1, 64, 17, 1, 2);
      expect(ip.parse(bytes, 0, 20 + payload)).toBe(good);
    }
  });

  it('classes of addresses', () => {
    expect(ipv4.isMulticastIpv4(0xe0000001) && ipv4.isMulticastIpv4(0xefffffff)).toBe(true);
    expect(ipv4.isMulticastIpv4(0xf0000000) || ipv4.isMulticastIpv4(0xdfffffff)).toBe(false);
    expect(ipv4.isLoopbackIpv4(0x7f010203) && !ipv4.isLoopbackIpv4(0x80000001)).toBe(true);
    expect(ipv4.isLinkLocalIpv4(0xa9fea9fe) && !ipv4.isLinkLocalIpv4(0xa9ff0000)).toBe(true);
  });
});

describe('ipv6', () => {
  it('goes there and back', () => {
    fc.assert(
      fc.property(
        fc.nat(100),
        u8,
        address6,
        address6,
        u8,
        fc.nat(0xfffff),
        (length, hops, src, dst, tc, flow) => {
          const bytes = dirty();
          expect(ipv6.writeIpv6(bytes, AT, length, 17, hops, src, 0, dst, 0, tc, flow)).toBe(40);
          const ip = new ipv6.Ipv6Header();
          expect(ip.parse(bytes, AT, AT + 40 + length)).toBe(true);
          expect(ip).toMatchObject({ trafficClass: tc, flowLabel: flow, hopLimit: hops, protocol: 17 });
          expect(ip).toMatchObject({ payload: AT + 40, payloadEnd: AT + 40 + length, headerBytes: 40 });
          expect(ip).toMatchObject({ isFragment: false, fragmentHeader: -1, protocolField: AT + 6 });
          expect(bytes.subarray(ip.src, ip.src + 16)).toEqual(src);
          expect(bytes.subarray(ip.dst, ip.dst + 16)).toEqual(dst);
          expect(ip.parse(bytes, AT, AT + 39 + length)).toBe(false);
        },
      ),
    );
  });

  function withExtensions(headers: number[][], last: number): { bytes: Uint8Array; end: number } {
    const bytes = new Uint8Array(512);
    const chain = headers.map((header) => header.slice());
    const kinds = [...chain.map((header) => header.shift() as number), last];
    chain.forEach((header, i) => {
      header[0] = kinds[i + 1];
    });
    const body = [...chain.flat(), 1, 2, 3, 4, 5, 6, 7, 8];
    bytes.set(body, 40);
    ipv6.writeIpv6(bytes, 0, body.length, kinds[0], 64, new Uint8Array(16), 0, new Uint8Array(16), 0);
    return { bytes, end: 40 + body.length };
  }
  const options = [0, 0, 1, 4, 0, 0, 0, 0];
  const parse = (headers: number[][], last = 17) => {
    const { bytes, end } = withExtensions(headers, last);
    const ip = new ipv6.Ipv6Header();
    return ip.parse(bytes, 0, end) ? ip : null;
  };

  it('walks up to 8 extension headers and no more', () => {
    const destination = [60, ...options];
    expect(parse(new Array(8).fill(destination))?.headerBytes).toBe(40 + 64);
    expect(parse(new Array(9).fill(destination))).toBeNull();
  });

  it('takes hop-by-hop options only in the first place', () => {
    expect(
      parse([
        [0, ...options],
        [60, ...options],
      ])?.protocol,
    ).toBe(17);
    expect(
      parse([
        [60, ...options],
        [0, ...options],
      ]),
    ).toBeNull();
  });

  it('measures an authentication header in 4-byte words', () => {
    expect(parse([[51, 0, 4, ...new Array(22).fill(0)]])?.headerBytes).toBe(40 + 24);
  });

  it('stops at ESP, at "no next header" and at a later fragment', () => {
    expect(parse([], 50)?.protocol).toBe(50);
    expect(parse([], 59)?.protocol).toBe(59);
    const later = parse([[44, 0, 0, 0x05, 0xc8, 0, 0, 0, 9]], 60);
    expect(later).toMatchObject({
      fragmentOffset: 1480,
      fragmentId: 9,
      protocol: 60,
      payload: 48,
      isFragment: true,
    });
  });

  it('an atomic fragment is whole; two fragment headers are not', () => {
    const atomic = [44, 0, 0, 0, 0, 0, 0, 0, 7];
    expect(parse([atomic])).toMatchObject({ isFragment: false, fragmentHeader: 40, protocol: 17 });
    expect(parse([atomic, atomic])).toBeNull();
  });

  it('refuses an extension header past the end, and a fragment past 65535', () => {
    expect(parse([[60, 0, 9, 0, 0, 0, 0, 0, 0]])).toBeNull();
    expect(parse([[44, 0, 0, 0xff, 0xf8, 0, 0, 0, 1]])).toBeNull();
  });

  it('notices segments left in a routing header', () => {
    expect(parse([[43, 0, 0, 0, 1, 0, 0, 0, 0]])?.routed).toBe(true);
    expect(parse([[43, 0, 0, 0, 0, 0, 0, 0, 0]])?.routed).toBe(false);
  });

  it('writes fragment headers as it reads them', () => {
    const fragment = [44, ...new Array(8).fill(0)];
    const { bytes, end } = withExtensions([fragment], 17);
    expect(ipv6.writeIpv6Fragment(bytes, 40, 17, 1480, true, 0xdeadbeef)).toBe(8);
    const ip = new ipv6.Ipv6Header();
    expect(ip.parse(bytes, 0, end)).toBe(true);
    expect(ip).toMatchObject({ fragmentOffset: 1480, moreFragments: true, fragmentId: 0xdeadbeef });
  });

  it('derives groups and interface identifiers', () => {
    const address = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56);
    const out = new Uint8Array(16);
    ipv6.writeSolicitedNode(out, 0, address, 0);
    expect([...out]).toEqual([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56]);
    ipv6.writeIpv6GroupMac(out, 0, Uint8Array.from([...out]), 0);
    expect([...out.subarray(0, 6)]).toEqual([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    ipv6.writeInterfaceId(out, 0, Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56), 0);
    expect([...out.subarray(0, 8)]).toEqual([0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56]);
    expect(ipv6.isLinkLocalIpv6(address, 0) && !ipv6.isMulticastIpv6(address, 0)).toBe(true);
    expect(ipv6.isUnspecifiedIpv6(new Uint8Array(16), 0) && !ipv6.isUnspecifiedIpv6(address, 0)).toBe(true);
    expect(ipv6.isLoopbackIpv6(Uint8Array.of(...new Array(15).fill(0), 1), 0)).toBe(true);
  });
});

describe('icmp', () => {
  it('echo goes there and back', () => {
    fc.assert(
      fc.property(u16, u16, fc.uint8Array({ maxLength: 200 }), (id, sequence, data) => {
        const bytes = dirty();
        bytes.set(data, AT + 8);
        const length = icmp.writeIcmpEcho(bytes, AT, icmp.ICMP_ECHO_REQUEST, id, sequence, data.length);
        const message = new icmp.IcmpMessage();
        expect(message.parse(bytes, AT, AT + length)).toBe(true);
        expect(message).toMatchObject({ type: 8, code: 0, id, sequence });
        expect(message.checksumOk(bytes)).toBe(true);
        expect(bytes.subarray(message.payload, message.payloadEnd)).toEqual(data);
      }),
    );
  });

  it('an error quotes no more than fits 576 bytes', () => {
    const bytes = new Uint8Array(2000);
    const quoted = new Uint8Array(1500).fill(7);
    expect(icmp.writeIcmpError(bytes, 0, 3, 3, 0, quoted, 0, 1500)).toBe(556);
    expect(icmp.writeIcmpError(bytes, 0, 3, 4, 1400, quoted, 0, 28)).toBe(36);
    expect(icmp.icmpNextHopMtu(bytes, 0)).toBe(1400);
    const message = new icmp.IcmpMessage();
    expect(message.parse(bytes, 0, 36) && message.checksumOk(bytes)).toBe(true);
    expect(message.parse(bytes, 0, 7)).toBe(false);
  });

  it('answers neither errors, later fragments, groups nor nobody', () => {
    const bytes = new Uint8Array(64);
    const ip = new ipv4.Ipv4Header();
    const may = (src: number, dst: number, protocol = 17, fragment = 0, type = 8) => {
      ipv4.writeIpv4(bytes, 0, 28, 0, fragment, 64, protocol, src, dst);
      bytes[20] = type;
      expect(ip.parse(bytes, 0, 28)).toBe(true);
      return icmp.mayAnswerWithIcmpError(bytes, ip);
    };
    const host = 0x0a00020f;
    expect(may(host, host)).toBe(true);
    expect(may(host, host, 1)).toBe(true);
    expect(may(host, host, 1, 0, 3)).toBe(false);
    expect(may(host, host, 17, 5)).toBe(false);
    for (const dst of [0xffffffff, 0xe0000001]) expect(may(host, dst)).toBe(false);
    for (const src of [0, 0xffffffff, 0xe0000001, 0x7f000001]) expect(may(src, host)).toBe(false);
  });
});

describe('icmpv6', () => {
  const ipOffset = AT;
  const at = AT + 40;

  it('echo goes there and back', () => {
    fc.assert(
      fc.property(
        u16,
        u16,
        address6,
        address6,
        fc.uint8Array({ maxLength: 100 }),
        (id, sequence, src, dst, data) => {
          const bytes = dirty();
          ipv6.writeIpv6(bytes, ipOffset, 8 + data.length, 58, 64, src, 0, dst, 0);
          icmpv6.writeIcmpv6(bytes, at, icmpv6.ICMPV6_ECHO_REQUEST, 0, id * 65536 + sequence);
          bytes.set(data, at + 8);
          icmpv6.setIcmpv6Checksum(bytes, at, 8 + data.length, ipOffset);
          const message = new icmpv6.Icmpv6Message();
          expect(message.parse(bytes, at, at + 8 + data.length)).toBe(true);
          expect(message).toMatchObject({ type: 128, id, sequence });
          expect(message.checksumOk(bytes, ipOffset)).toBe(true);
          bytes[ipOffset + 9] ^= 1;
          expect(message.checksumOk(bytes, ipOffset)).toBe(false);
        },
      ),
    );
  });

  it('an error quotes no more than fits 1280 bytes', () => {
    const bytes = new Uint8Array(2000);
    expect(icmpv6.writeIcmpv6Error(bytes, 0, 2, 0, 1280, new Uint8Array(1500), 0, 1500)).toBe(1240);
  });

  it('answers neither errors, redirects, groups nor nobody', () => {
    const bytes = new Uint8Array(64);
    const ip = new ipv6.Ipv6Header();
    const host = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2);
    const group = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
    const may = (src: Uint8Array, dst: Uint8Array, protocol = 17, kind = 128, error = 1) => {
      ipv6.writeIpv6(bytes, 0, 8, protocol, 64, src, 0, dst, 0);
      bytes[40] = kind;
      expect(ip.parse(bytes, 0, 48)).toBe(true);
      return icmpv6.mayAnswerWithIcmpv6Error(bytes, ip, error);
    };
    expect(may(host, host)).toBe(true);
    expect(may(host, host, 58)).toBe(true);
    expect(may(host, host, 58, 1)).toBe(false);
    expect(may(host, host, 58, 137)).toBe(false);
    expect(may(host, group)).toBe(false);
    expect(may(host, group, 17, 0, icmpv6.ICMPV6_PACKET_TOO_BIG)).toBe(true);
    expect(may(group, host)).toBe(false);
    expect(may(new Uint8Array(16), host)).toBe(false);
  });
});

describe('udp', () => {
  it('goes there and back over both families', () => {
    fc.assert(
      fc.property(
        u16,
        u16,
        fc.uint8Array({ maxLength: 100 }),
        u32,
        u32,
        (srcPort, dstPort, data, src, dst) => {
          const bytes = dirty();
          const length = 8 + data.length;
          udp.writeUdp(bytes, AT, srcPort, dstPort, length);
          bytes.set(data, AT + 8);
          udp.setUdpChecksumV4(bytes, AT, length, src, dst);
          const header = new udp.UdpHeader();
          expect(header.parse(bytes, AT, AT + length + 3)).toBe(true);
          expect(header).toMatchObject({ srcPort, dstPort, payload: AT + 8, payloadEnd: AT + length });
          expect(header.checksum).not.toBe(0);
          const pseudo = pseudoSumV4(src, dst, 17, length);
          expect(header.checksumOk(bytes, pseudo)).toBe(true);
          expect(header.checksumOk(bytes, pseudo + 1)).toBe(false);
          expect(header.parse(bytes, AT, AT + length - 1)).toBe(false);
        },
      ),
    );
  });

  it('sends ffff where the checksum is 0', () => {
    const bytes = new Uint8Array(10);
    udp.writeUdp(bytes, 0, 0, 0, 10);
    // Everything sums to ffff: length 10 in header and pseudo-header, protocol 17, data ffff - 37.
    bytes.set([0xff, 0xff - 37], 8);
    udp.setUdpChecksumV4(bytes, 0, 10, 0, 0);
    expect(u16be(bytes, 6)).toBe(0xffff);
    const header = new udp.UdpHeader();
    expect(header.parse(bytes, 0, 10) && header.checksumOk(bytes, pseudoSumV4(0, 0, 17, 10))).toBe(true);
  });

  it('over IPv6', () => {
    const bytes = dirty();
    const address = Uint8Array.from({ length: 16 }, (_, i) => i);
    ipv6.writeIpv6(bytes, 0, 12, 17, 64, address, 0, address, 0);
    udp.writeUdp(bytes, 40, 1, 2, 12);
    udp.setUdpChecksumV6(bytes, 40, 12, 0);
    const header = new udp.UdpHeader();
    expect(header.parse(bytes, 40, 52) && header.checksumOk(bytes, pseudoSumAt(bytes, 0, 17, 12))).toBe(true);
  });
});

describe('tcp', () => {
  const optional = fc.record({
    mss: fc.oneof(fc.constant(0), u16),
    windowScale: fc.integer({ min: -1, max: 14 }),
    sackPermitted: fc.boolean(),
    timestamps: fc.option(fc.tuple(u32, u32)),
    sack: fc.array(fc.tuple(u32, u32), { maxLength: 4 }),
  });

  it('header and options go there and back', () => {
    fc.assert(
      fc.property(
        u16,
        u16,
        u32,
        u32,
        u8,
        u16,
        optional,
        (srcPort, dstPort, seq, ack, flags, window, wanted) => {
          const bytes = dirty();
          const options = new tcp.TcpOptions();
          options.mss = wanted.mss;
          options.windowScale = wanted.windowScale;
          options.sackPermitted = wanted.sackPermitted;
          if (wanted.timestamps) {
            options.hasTimestamps = true;
            [options.timestampValue, options.timestampEcho] = wanted.timestamps;
          }
          options.sackCount = wanted.sack.length;
          wanted.sack.forEach(([left, right], i) => {
            options.sackLeft[i] = left;
            options.sackRight[i] = right;
          });
          const optionBytes = tcp.writeTcpOptions(bytes, AT + 20, options);
          expect(optionBytes % 4).toBe(0);
          expect(optionBytes).toBeLessThanOrEqual(40);
          tcp.writeTcp(bytes, AT, srcPort, dstPort, seq, ack, 20 + optionBytes, flags, window);
          const end = AT + 20 + optionBytes + 5;
          tcp.setTcpChecksum(bytes, AT, end - AT, 1234);
          const header = new tcp.TcpHeader();
          expect(header.parse(bytes, AT, end)).toBe(true);
          expect(header).toMatchObject({
            srcPort,
            dstPort,
            seq,
            ack,
            flags,
            window,
            urgent: 0,
            payloadEnd: end,
          });
          expect(header.payload).toBe(end - 5);
          expect(header.checksumOk(bytes, 1234)).toBe(true);
          const read = new tcp.TcpOptions();
          expect(read.parse(bytes, AT + 20, header.payload)).toBe(true);
          const room = Math.min(
            4,
            (40 - (optionBytes - (read.sackCount ? 4 + 8 * read.sackCount : 0)) - 4) >> 3,
          );
          expect(read.sackCount).toBe(Math.max(0, Math.min(wanted.sack.length, room)));
          const { mss, windowScale, sackPermitted, hasTimestamps, timestampValue, timestampEcho } = options;
          expect(read).toMatchObject({
            mss,
            windowScale,
            sackPermitted,
            hasTimestamps,
            timestampValue,
            timestampEcho,
          });
          for (let i = 0; i < read.sackCount; i++) {
            expect([read.sackLeft[i], read.sackRight[i]]).toEqual(wanted.sack[i]);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it.each([
    ['length 0', [2, 0, 0, 0], false],
    ['length 1', [2, 1, 0, 0], false],
    ['kind without a length', [1, 1, 1, 2], false],
    ['length past the end', [1, 8, 10, 0], false],
    ['unknown kind', [254, 4, 1, 2, 2, 4, 5, 180], true],
    ['known kind with a wrong length', [2, 3, 9, 1, 2, 4, 5, 180], true],
    ['behind the end of options', [0, 9, 0, 0], true],
  ])('options: %s', (_, list, good) => {
    const options = new tcp.TcpOptions();
    expect(options.parse(Uint8Array.from(list), 0, list.length)).toBe(good);
    if (list.length === 8) expect(options.mss).toBe(1460);
  });

  it('a window scale over 14 counts as 14 (RFC 7323 section 2.3)', () => {
    const options = new tcp.TcpOptions();
    expect(options.parse(Uint8Array.of(3, 3, 200, 0), 0, 4)).toBe(true);
    expect(options.windowScale).toBe(14);
  });

  it('sequence numbers compare around the wrap', () => {
    expect(tcp.seqBefore(0xfffffff0, 5) && !tcp.seqBefore(5, 0xfffffff0)).toBe(true);
    expect(tcp.seqAtMost(7, 7) && !tcp.seqBefore(7, 7)).toBe(true);
    expect(tcp.seqAdd(0xffffffff, 2)).toBe(1);
    expect(tcp.seqAdd(1, -2)).toBe(0xffffffff);
    expect(tcp.seqDistance(5, 0xfffffff0)).toBe(21);
    expect(tcp.seqDistance(0xfffffff0, 5)).toBe(-21);
  });
});

import { describe, expect, it } from 'vitest';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import * as pcap from '../../src/wire/pcap.ts';

function written(length: (bytes: Uint8Array) => number): string {
  const bytes = new Uint8Array(200).fill(0xee);
  const used = length(bytes);
  expect(bytes.subarray(used).every((byte) => byte === 0xee)).toBe(true);
  return toHex(bytes, 0, used);
}

const plain = (hex: string) => hex.replace(/\s/g, '');

describe('classic pcap', () => {
  it('writes the headers tools read', () => {
    expect(written((b) => pcap.writePcapHeader(b, 0, false))).toBe(
      plain('d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000'),
    );
    expect(written((b) => pcap.writePcapHeader(b, 0, true, 65535, 228))).toBe(
      plain('4d3cb2a1 0200 0400 00000000 00000000 ffff0000 e4000000'),
    );
    expect(written((b) => pcap.writePcapRecord(b, 0, 0x01020304, 5, 60, 1514))).toBe(
      plain('04030201 05000000 3c000000 ea050000'),
    );
  });

  it.each([
    [
      'little-endian microseconds',
      'd4c3b2a1 0200 0400 00000000 00000000 ffff0000 01000000',
      '01000000 02000000 02000000 40000000 aabb',
      2000,
    ],
    [
      'big-endian nanoseconds',
      'a1b23c4d 0002 0004 00000000 00000000 0000ffff 00000001',
      '00000001 00000002 00000002 00000040 aabb',
      2,
    ],
  ])('reads %s', (_, header, record, nanos) => {
    const bytes = fromHex(header + record) as Uint8Array;
    const reader = new pcap.PcapReader();
    expect(reader.parseHeader(bytes, 0, bytes.length)).toBe(true);
    expect(reader).toMatchObject({ snaplenBytes: 65535, linktype: pcap.LINKTYPE_ETHERNET });
    expect(reader.parseRecord(bytes, 24, bytes.length)).toBe(bytes.length);
    expect(reader).toMatchObject({ seconds: 1, nanos, originalBytes: 64, data: 40, dataEnd: 42 });
    expect(reader.parseRecord(bytes, 24, bytes.length - 1)).toBe(-1);
    expect(reader.parseRecord(bytes, 24, 39)).toBe(-1);
    expect(reader.parseHeader(bytes, 0, 23)).toBe(false);
  });

  it('refuses what is no capture, another version, or an absurd length', () => {
    const reader = new pcap.PcapReader();
    const bytes = new Uint8Array(300000);
    expect(reader.parseHeader(bytes, 0, 24)).toBe(false);
    pcap.writePcapHeader(bytes, 0, false);
    pcap.writePcapRecord(bytes, 24, 0, 0, pcap.PCAP_SNAPLEN_BYTES + 1, 0);
    expect(reader.parseHeader(bytes, 0, 24)).toBe(true);
    expect(reader.parseRecord(bytes, 24, bytes.length)).toBe(-1);
    bytes[4] = 3;
    expect(reader.parseHeader(bytes, 0, 24)).toBe(false);
  });
});

describe('pcapng', () => {
  it('writes the blocks tools read', () => {
    expect(written((b) => pcap.writePcapngSection(b, 0, 'netemu'))).toBe(
      plain(
        '0a0d0d0a 2c000000 4d3c2b1a 0100 0000 ffffffffffffffff 0400 0600 6e6574656d75 0000 00000000 2c000000',
      ),
    );
    expect(written((b) => pcap.writePcapngInterface(b, 0, 'n0'))).toBe(
      plain('01000000 28000000 0100 0000 00000400 0200 0200 6e30 0000 0900 0100 09 000000 00000000 28000000'),
    );
  });

  it('the length of an interface block counts the name in UTF-8', () => {
    expect(written((b) => pcap.writePcapngInterface(b, 0, '\u00e9t\u00e9'))).toHaveLength(2 * (36 + 8));
  });

  it.each([0, 1, 2, 3, 4, 60])('a packet of %i bytes is closed by its length', (length) => {
    for (const direction of [pcap.PCAPNG_DIRECTION_UNKNOWN, pcap.PCAPNG_INBOUND, pcap.PCAPNG_OUTBOUND]) {
      const bytes = new Uint8Array(200).fill(0xee);
      const head = pcap.writePcapngPacketHead(bytes, 0, 3, 1, 2, length, 1514, direction);
      expect(head).toBe(pcap.PCAPNG_PACKET_HEAD_BYTES);
      const tail = pcap.writePcapngPacketTail(bytes, head + length, length, direction);
      expect(tail).toBeLessThanOrEqual(pcap.PCAPNG_PACKET_TAIL_MAX_BYTES);
      const total = head + length + tail;
      expect(total % 4).toBe(0);
      expect(total).toBe(pcap.pcapngPacketBytes(length, direction));
      const view = new DataView(bytes.buffer);
      expect([view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)]).toEqual([
        6,
        total,
        3,
      ]);
      expect([view.getUint32(20, true), view.getUint32(24, true)]).toEqual([length, 1514]);
      expect(view.getUint32(total - 4, true)).toBe(total);
      if (direction) {
        expect(toHex(bytes, total - 16, 12)).toBe(`02000400${direction === 1 ? '01' : '02'}00000000000000`);
      }
    }
  });

  it.each([
    [0, 0],
    [1, 999_999_999],
    [1_700_000_000, 123_456_789],
    [4_294_967_295, 999_999_999],
    [9_000_000_000, 1],
  ])('%i s and %i ns are exact in 64 bits', (seconds, nanos) => {
    const bytes = new Uint8Array(28);
    pcap.writePcapngPacketHead(bytes, 0, 0, seconds, nanos, 0, 0, 0);
    const view = new DataView(bytes.buffer);
    const time = (BigInt(view.getUint32(12, true)) << 32n) | BigInt(view.getUint32(16, true));
    expect(time).toBe(BigInt(seconds) * 1_000_000_000n + BigInt(nanos));
  });
});

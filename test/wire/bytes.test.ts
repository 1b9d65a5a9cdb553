import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as b from '../../src/wire/bytes.ts';

describe('integers', () => {
  it('agree with DataView in both orders', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 8, maxLength: 8 }),
        fc.integer({ min: 0, max: 4 }),
        (bytes, at) => {
          const view = new DataView(bytes.buffer);
          expect(b.u16be(bytes, at)).toBe(view.getUint16(at));
          expect(b.u32be(bytes, at)).toBe(view.getUint32(at));
          expect(b.u16le(bytes, at)).toBe(view.getUint16(at, true));
          expect(b.u32le(bytes, at)).toBe(view.getUint32(at, true));
        },
      ),
    );
  });

  it('are written as they are read', () => {
    const bytes = new Uint8Array(8);
    fc.assert(
      fc.property(fc.nat(0xffff), fc.integer({ min: 0, max: 0xffffffff }), (short, long) => {
        b.putU16be(bytes, 1, short);
        expect(b.u16be(bytes, 1)).toBe(short);
        b.putU16le(bytes, 1, short);
        expect(b.u16le(bytes, 1)).toBe(short);
        b.putU32be(bytes, 3, long);
        expect(b.u32be(bytes, 3)).toBe(long);
        b.putU32le(bytes, 3, long);
        expect(b.u32le(bytes, 3)).toBe(long);
      }),
    );
  });
});

describe('text', () => {
  it('hexadecimal goes there and back', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(b.fromHex(b.toHex(bytes))).toEqual(bytes);
      }),
    );
    expect(b.fromHex('01:0a fF')).toEqual(Uint8Array.of(1, 10, 255));
    for (const bad of ['0', '0g', '-1']) expect(b.fromHex(bad)).toBeNull();
  });

  it('MAC addresses take colons, dashes and short groups', () => {
    expect(b.parseMac('52:54:0:12:34:56')).toEqual(Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56));
    expect(b.parseMac('52-54-00-12-34-56')).toEqual(Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56));
    for (const bad of [
      '',
      '52:54:00:12:34',
      '52:54:00:12:34:56:78',
      '52:54:00:12:34:567',
      '52:54-00:12:34:56',
      'x:0:0:0:0:0',
    ]) {
      expect(b.parseMac(bad), bad).toBeNull();
    }
  });

  it('IPv4 addresses go there and back', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffffffff }), (ip) => {
        expect(b.parseIpv4(b.formatIpv4(ip))).toBe(ip);
      }),
    );
    for (const bad of [
      '',
      '1.2.3',
      '1.2.3.4.5',
      '1.2.3.256',
      '01.2.3.4',
      '1.2.3.4 ',
      '0x1.2.3.4',
      '1..2.3',
      '-1.2.3.4',
    ]) {
      expect(b.parseIpv4(bad), bad).toBe(-1);
    }
  });

  it('IPv6 addresses go there and back', () => {
    const group = fc.oneof(fc.constant(0), fc.nat(0xffff));
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
        const bytes = Uint8Array.from(groups.flatMap((g) => [g >> 8, g & 255]));
        expect(b.parseIpv6(b.formatIpv6(bytes))).toEqual(bytes);
      }),
    );
  });

  it.each([
    // RFC 5952 sections 2 and 4
    ['2001:0db8:0:0:0:0:0:1', '2001:db8::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['::ffff:192.0.2.1', '::ffff:c000:201'],
    ['FE80::AbCd', 'fe80::abcd'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
  ])('%s reads as %s', (text, canonical) => {
    const bytes = b.parseIpv6(text);
    expect(bytes && b.formatIpv6(bytes)).toBe(canonical);
  });

  it.each([
    '',
    ':',
    ':::',
    '1',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    '12345::',
    '::1.2.3',
    '1.2.3.4::',
    '::1.2.3.4:5',
    '::g',
    'fe80::1%eth0',
  ])('%s is not an IPv6 address', (text) => expect(b.parseIpv6(text)).toBeNull());

  it('UTF-8 agrees with the platform', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(b.utf8Bytes(text)).toEqual(new TextEncoder().encode(text));
      }),
    );
    expect(b.utf8Bytes('\ud800')).toEqual(Uint8Array.of(0xef, 0xbf, 0xbd));
  });
});

/** The small parsers: key=value, JSON, addresses, the nearest word. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  formatIpv4,
  formatIpv6,
  formatMac,
  parseHost,
  parseIpv4,
  parseIpv6,
  parseMac,
  parsePort,
} from '../../src/config/address.ts';
import { parseJson } from '../../src/config/json.ts';
import { escapeValue, splitKeyval } from '../../src/config/keyval.ts';
import { nearest } from '../../src/config/nearest.ts';

describe('key=value', () => {
  it('gives back every value, commas and all', () => {
    const value = fc.string({ unit: 'binary' });
    fc.assert(
      fc.property(fc.array(value), (list) => {
        const text = list.map((item) => `key=${escapeValue(item)}`).join(',');
        expect(splitKeyval(text).map((entry) => entry.value)).toEqual(list);
      }),
    );
  });

  it('implies only the first key', () => {
    expect(splitKeyval('user,,x,id=a,restrict', 'type')).toEqual([
      { key: 'type', value: 'user,x' },
      { key: 'id', value: 'a' },
      { key: 'restrict', value: undefined },
    ]);
    expect(splitKeyval('id=a=b', 'type')).toEqual([{ key: 'id', value: 'a=b' }]);
    expect(splitKeyval('', 'type')).toEqual([]);
  });
});

describe('JSON', () => {
  it('reads what JSON.parse reads, to the same value', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
        const text = JSON.stringify(value);
        const plain = (_key: string, item: unknown) => (typeof item === 'bigint' ? Number(item) : item);
        expect(JSON.stringify(parseJson(text), plain)).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  it('refuses what JSON.parse refuses', () => {
    const unit = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      '"',
      ':',
      ',',
      '1',
      '-',
      '.',
      'e',
      '\\',
      'u',
      'true',
      'null',
      ' ',
      'a',
    );
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 12 }), (parts) => {
        const text = parts.join('');
        let valid = true;
        try {
          JSON.parse(text);
        } catch {
          valid = false;
        }
        if (!valid) expect(() => parseJson(text)).toThrow(/^JSON/);
      }),
      { numRuns: 5000 },
    );
  });

  it('keeps integers that a double cannot hold', () => {
    expect(parseJson('[18446744073709551615, 9007199254740992, 4]')).toEqual([
      18446744073709551615n,
      9007199254740992n,
      4,
    ]);
  });
});

describe('addresses', () => {
  it('IPv4 round trip', () => {
    fc.assert(
      fc.property(fc.nat(0xffffffff), (value) => {
        expect(parseIpv4(formatIpv4(value))).toEqual({ family: 4, value, text: formatIpv4(value) });
      }),
    );
  });

  it('IPv6 round trip', () => {
    const byte = fc.oneof(fc.constant(0), fc.nat(255));
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        fc.array(byte, { minLength: 16, maxLength: 16 }),
        (a, b) => {
          for (const bytes of [a, Uint8Array.from(b)])
            expect(parseIpv6(formatIpv6(bytes))?.bytes).toEqual(bytes);
        },
      ),
    );
  });

  // Examples of RFC 5952 section 4, and RFC 4291 section 2.2.
  it.each([
    ['2001:0db8::0001', '2001:db8::1'],
    ['2001:db8:0:0:0:0:2:1', '2001:db8::2:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::FFFF:129.144.52.38', '::ffff:8190:3426'],
    ['::', '::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['1::', '1::'],
  ])('%s is %s', (text, canonical) => {
    expect(parseIpv6(text)?.text).toBe(canonical);
  });

  it.each([
    '',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    'g::',
    '12345::',
    '::1%eth0',
    '::1.2.3',
    '1.2.3.4::',
    '::01.2.3.4',
    '[::1]',
  ])('no IPv6: %s', (text) => expect(parseIpv6(text)).toBeUndefined());

  it.each([
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '010.0.0.1',
    '1.2.3.256',
    '0x7f.1',
    '2130706433',
    '1.2.3.4 ',
    '1..2.3',
    '１.2.3.4',
    '-1.2.3.4',
  ])('no IPv4, no host name: %s', (text) => {
    expect(parseIpv4(text)).toBeUndefined();
    expect(parseHost(text)).toBeUndefined();
  });

  it('host names', () => {
    expect(parseHost('host-1.example.org.')).toEqual({ family: 0, text: 'host-1.example.org.' });
    for (const bad of ['-a', 'a-', 'a b', 'a..b', 'a/b', `${'a'.repeat(64)}.b`, 'a.0x10', 'a.1'])
      expect(parseHost(bad)).toBeUndefined();
  });

  it('ports and MAC addresses', () => {
    expect(['0', '65535', '65536', '00', '+1', '1 ', '', '1e3'].map(parsePort)).toEqual([
      0,
      65535,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(formatMac(parseMac('52-54-00-AB-cd-01')!)).toBe('52:54:00:ab:cd:01');
    for (const bad of [
      '',
      '52:54:00:12:34',
      '52:54:00:12:34:5g',
      '5:54:0:12:34:56',
      '52:54:00-12:34:56',
      '525400123456',
    ])
      expect(parseMac(bad)).toBeUndefined();
  });
});

it('the nearest word is near', () => {
  const words = ['hostfwd', 'guestfwd', 'restrict', 'net', 'dns'];
  expect(nearest('hotsfwd', words)).toBe('hostfwd');
  expect(nearest('restrct', words)).toBe('restrict');
  expect(nearest('dsn', words)).toBe('dns');
  expect(nearest('completely-else', words)).toBeUndefined();
});

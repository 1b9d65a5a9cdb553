import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromHex } from '../../src/wire/bytes.ts';
import * as dns from '../../src/wire/dns.ts';

const label = fc.stringMatching(/^[a-z0-9-]{1,20}$/);
const name = fc.array(label, { maxLength: 8 }).map((labels) => labels.join('.'));

describe('domain names', () => {
  it('go there and back', () => {
    fc.assert(
      fc.property(name, (text) => {
        const bytes = new Uint8Array(300).fill(0xee);
        const length = dns.writeDomainName(bytes, 9, 300, text);
        expect(length).toBe(text === '' ? 1 : text.length + 2);
        expect(dns.readDomainName(bytes, 0, 9, 9 + length)).toBe(text);
        expect(dns.skipDomainName(bytes, 9, 9 + length)).toBe(9 + length);
        expect(dns.readDomainName(bytes, 0, 9, 9 + length - 1)).toBeNull();
        expect(dns.skipDomainName(bytes, 9, 9 + length - 1)).toBe(-1);
        expect(dns.writeDomainName(bytes, 9, 9 + length - 1, text)).toBe(-1);
      }),
    );
  });

  it.each([
    'a..b',
    '.a',
    'x'.repeat(64),
    `${'x'.repeat(63)}.`.repeat(4),
    '\u0100',
  ])('%s is refused', (text) => {
    expect(dns.writeDomainName(new Uint8Array(400), 0, 400, text)).toBe(-1);
  });

  it('a name of 255 bytes is the longest', () => {
    const longest = `${'x'.repeat(63)}.${'y'.repeat(63)}.${'z'.repeat(63)}.${'w'.repeat(61)}`;
    const bytes = new Uint8Array(300);
    expect(dns.writeDomainName(bytes, 0, 300, longest)).toBe(255);
    expect(dns.readDomainName(bytes, 0, 0, 255)).toBe(longest);
    expect(dns.writeDomainName(bytes, 0, 300, `${longest}w`)).toBe(-1);
  });

  it('pointers lead only backwards, and names by way of them stay under 255 bytes', () => {
    const bytes = fromHex('03777777 0765 78616d706c65 036f7267 00 04686f7374 c004'.replace('0765', '07 65'));
    expect(bytes && dns.readDomainName(bytes, 0, 17, bytes.length)).toBe('host.example.org');
    expect(dns.readDomainName(Uint8Array.of(0xc0, 0), 0, 0, 2)).toBeNull();
    expect(dns.readDomainName(Uint8Array.of(0xc0, 2, 0xc0, 0), 0, 2, 4)).toBeNull();
    expect(dns.readDomainName(Uint8Array.of(1, 65, 0xc0, 0), 0, 0, 4)).toBeNull();
    expect(dns.readDomainName(Uint8Array.of(0, 0xc0), 0, 1, 2)).toBeNull();
    // Labels of 60 bytes, each followed by a pointer to the one before: five of them exceed 255.
    const chain = new Uint8Array(400);
    for (let i = 0; i < 6; i++) {
      chain[i * 64] = 60;
      chain[i * 64 + 61] = i === 0 ? 0 : 0xc0 | (((i - 1) * 64) >> 8);
      chain[i * 64 + 62] = (i - 1) * 64;
    }
    expect(dns.readDomainName(chain, 0, 3 * 64, 400)).toHaveLength(243);
    expect(dns.readDomainName(chain, 0, 5 * 64, 400)).toBeNull();
  });
});

describe('messages', () => {
  it('a query parses as a query', () => {
    const bytes = new Uint8Array(64).fill(0xee);
    const length = dns.writeDnsQuery(bytes, 3, 64, 0xbeef, 'example.org', dns.DNS_TYPE_AAAA);
    expect(length).toBe(12 + 13 + 4);
    const message = new dns.DnsMessage();
    expect(message.parse(bytes, 3, 3 + length)).toBe(true);
    expect(message).toMatchObject({ id: 0xbeef, isReply: false, answers: [] });
    for (let end = 3; end < 3 + length; end++) expect(message.parse(bytes, 3, end)).toBe(false);
    expect(dns.writeDnsQuery(bytes, 3, 3 + length - 1, 1, 'example.org', 1)).toBe(-1);
    expect(dns.writeDnsQuery(bytes, 3, 10, 1, '', 1)).toBe(-1);
  });

  it('10,000 questions are not read (they are forwarded unseen)', () => {
    const bytes = new Uint8Array(60000);
    bytes.set([0, 1, 1, 0, 0x27, 0x10], 0);
    expect(new dns.DnsMessage().parse(bytes, 0, bytes.length)).toBe(false);
  });

  it('an answer whose data runs past the end is refused', () => {
    const bytes = fromHex('0001 8180 0000 0001 0000 0000 00 0001 0001 00000001 0005 c0000207');
    expect(bytes && new dns.DnsMessage().parse(bytes, 0, bytes.length)).toBe(false);
  });
});

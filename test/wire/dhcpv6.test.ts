import { describe, expect, it } from 'vitest';
import { parseIpv6, u32be } from '../../src/wire/bytes.ts';
import * as v6 from '../../src/wire/dhcpv6.ts';
import { readDomainName } from '../../src/wire/dns.ts';

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const DNS = parseIpv6('fec0::3') as Uint8Array;

describe('dhcpv6', () => {
  it('a reply goes there and back', () => {
    const bytes = new Uint8Array(300).fill(0xee);
    const duid = new Uint8Array(v6.DUID_LL_BYTES);
    expect(v6.writeDuidLl(duid, 0, MAC, 0)).toBe(10);
    const writer = new v6.Dhcpv6Writer();
    const length = writer
      .start(bytes, 3, 300, v6.DHCPV6_REPLY, 0xabcdef)
      .bytes(v6.DHCPV6_OPT_SERVER_ID, duid)
      .dnsServers([DNS, DNS])
      .dnsServers([])
      .domainList(['example.org', 'a..b'])
      .domainList([])
      .u32(v6.DHCPV6_OPT_REFRESH_TIME, 3600)
      .u16(v6.DHCPV6_OPT_STATUS_CODE, 0)
      .request([v6.DHCPV6_OPT_DNS_SERVERS, v6.DHCPV6_OPT_BOOTFILE_URL])
      .finish();
    expect(writer.overflow).toBe(false);
    const message = new v6.Dhcpv6Message();
    expect(message.parse(bytes, 3, 3 + length)).toBe(true);
    expect(message).toMatchObject({ type: v6.DHCPV6_REPLY, transactionId: 0xabcdef });
    expect(message.findOption(bytes, v6.DHCPV6_OPT_SERVER_ID) && message.valueBytes).toBe(10);
    expect(bytes.subarray(message.valueOffset + 4, message.valueOffset + 10)).toEqual(MAC);
    expect(message.findOption(bytes, v6.DHCPV6_OPT_DNS_SERVERS) && message.valueBytes).toBe(32);
    expect(bytes.subarray(message.valueOffset + 16, message.valueOffset + 32)).toEqual(DNS);
    expect(message.findOption(bytes, v6.DHCPV6_OPT_DOMAIN_LIST)).toBe(true);
    expect(readDomainName(bytes, 3, message.valueOffset, 3 + length)).toBe('example.org');
    expect(message.findOption(bytes, v6.DHCPV6_OPT_REFRESH_TIME)).toBe(true);
    expect(u32be(bytes, message.valueOffset)).toBe(3600);
    expect(message.wants(bytes, v6.DHCPV6_OPT_BOOTFILE_URL)).toBe(true);
    expect(message.wants(bytes, v6.DHCPV6_OPT_DOMAIN_LIST)).toBe(false);
    for (let end = 4; end < length; end++) message.parse(bytes, 3, 3 + end);
    expect(message.parse(bytes, 3, 3 + length - 1)).toBe(false);
  });

  it('leaves out whole what does not fit', () => {
    const bytes = new Uint8Array(40).fill(0xee);
    const writer = new v6.Dhcpv6Writer().start(bytes, 0, 24, v6.DHCPV6_REPLY, 1);
    expect(writer.dnsServers([DNS]).finish()).toBe(24);
    expect(writer.u16(1, 1).finish()).toBe(24);
    expect(writer.overflow).toBe(true);
    expect(bytes[24]).toBe(0xee);
  });

  it('refuses relayed and cut messages', () => {
    const message = new v6.Dhcpv6Message();
    expect(message.parse(Uint8Array.of(12, 0, 0, 0), 0, 4)).toBe(false);
    expect(message.parse(Uint8Array.of(11, 0, 0), 0, 3)).toBe(false);
    expect(message.parse(Uint8Array.of(11, 0, 0, 1), 0, 4)).toBe(true);
    expect(message.wants(new Uint8Array(4), 23)).toBe(false);
    expect(message.parse(Uint8Array.of(11, 0, 0, 1, 0, 6, 0, 2, 0), 0, 9)).toBe(false);
  });
});

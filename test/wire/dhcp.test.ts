import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatIpv4, getLatin1, parseIpv4, putU32be } from '../../src/wire/bytes.ts';
import * as dhcp from '../../src/wire/dhcp.ts';
import { readDomainName, skipDomainName } from '../../src/wire/dns.ts';

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const ip = parseIpv4;

function message(
  fill: (options: dhcp.DhcpOptionsWriter) => void,
  room = 1500,
): { bytes: Uint8Array; length: number } {
  const bytes = new Uint8Array(room).fill(0xee);
  const options = new dhcp.DhcpOptionsWriter();
  options.start(bytes, dhcp.writeDhcp(bytes, 0, { op: dhcp.BOOTP_REPLY, xid: 7 }, MAC, 0), room);
  fill(options);
  return { bytes, length: options.finish(0) };
}

describe('dhcp', () => {
  it('the fixed part goes there and back', () => {
    const u32 = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(
        u32,
        fc.nat(0xffff),
        fc.nat(0xffff),
        u32,
        u32,
        u32,
        u32,
        (xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr) => {
          const bytes = new Uint8Array(400).fill(0xee);
          const fields = { op: 1, hops: 3, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr };
          const at = dhcp.writeDhcp(bytes, 5, { ...fields, sname: 'server', file: 'x'.repeat(200) }, MAC, 0);
          const length = new dhcp.DhcpOptionsWriter().start(bytes, at, 400).finish(5);
          expect(length).toBe(dhcp.BOOTP_MIN_BYTES);
          const parsed = new dhcp.DhcpMessage();
          expect(parsed.parse(bytes, 5, 5 + length)).toBe(true);
          expect(parsed).toMatchObject({ ...fields, messageType: 0 });
          expect(parsed.sname(bytes)).toBe('server');
          expect(parsed.file(bytes)).toBe('x'.repeat(127));
          expect(dhcp.dhcpIsFor(bytes, parsed, MAC)).toBe(true);
        },
      ),
    );
  });

  it('every kind of option goes there and back', () => {
    const { bytes, length } = message((options) =>
      options
        .u8(dhcp.DHCP_OPT_MESSAGE_TYPE, dhcp.DHCP_ACK)
        .u32(dhcp.DHCP_OPT_SUBNET_MASK, 0xffffff00)
        .u32(dhcp.DHCP_OPT_ROUTER, ip('10.0.2.2'))
        .ips(dhcp.DHCP_OPT_DNS, [ip('10.0.2.3'), ip('10.0.2.4')])
        .text(dhcp.DHCP_OPT_HOST_NAME, 'guest')
        .text(dhcp.DHCP_OPT_DOMAIN_NAME, 'example.org')
        .u16(dhcp.DHCP_OPT_MTU, 65520)
        .u32(dhcp.DHCP_OPT_LEASE_TIME, 86400)
        .u32(dhcp.DHCP_OPT_RENEWAL_TIME, 43200)
        .u32(dhcp.DHCP_OPT_REBINDING_TIME, 75600)
        .u32(dhcp.DHCP_OPT_SERVER_ID, ip('10.0.2.2'))
        .u32(dhcp.DHCP_OPT_REQUESTED_IP, ip('10.0.2.15'))
        .u16(dhcp.DHCP_OPT_MAX_SIZE, 1472)
        .bytes(dhcp.DHCP_OPT_PARAMETER_LIST, Uint8Array.of(1, 3, 6))
        .bytes(dhcp.DHCP_OPT_CLIENT_ID, Uint8Array.of(1, ...MAC))
        .text(dhcp.DHCP_OPT_TFTP_SERVER, 'tftp\0')
        .text(dhcp.DHCP_OPT_BOOTFILE, 'pxelinux.0')
        .flag(dhcp.DHCP_OPT_RAPID_COMMIT)
        .domainSearch(['eng.example.org', '', 'bad..name', 'example.net.']),
    );
    const m = new dhcp.DhcpMessage();
    expect(m.parse(bytes, 0, length)).toBe(true);
    expect(m.messageType).toBe(dhcp.DHCP_ACK);
    expect(m.ipOption(bytes, dhcp.DHCP_OPT_SUBNET_MASK)).toBe(0xffffff00);
    expect(formatIpv4(m.ipOption(bytes, dhcp.DHCP_OPT_DNS))).toBe('10.0.2.3');
    expect(m.valueBytes).toBe(8);
    expect(m.textOption(bytes, dhcp.DHCP_OPT_HOST_NAME)).toBe('guest');
    expect(m.textOption(bytes, dhcp.DHCP_OPT_TFTP_SERVER)).toBe('tftp');
    expect(m.u16Option(bytes, dhcp.DHCP_OPT_MTU)).toBe(65520);
    expect(m.u32Option(bytes, dhcp.DHCP_OPT_REBINDING_TIME)).toBe(75600);
    expect(m.findOption(bytes, dhcp.DHCP_OPT_RAPID_COMMIT)).toBe(true);
    expect(m.valueBytes).toBe(0);
    expect(m.wants(bytes, 6) && !m.wants(bytes, 26)).toBe(true);
    expect(m.u32Option(bytes, dhcp.DHCP_OPT_MTU)).toBe(-1);
    expect(m.u16Option(bytes, dhcp.DHCP_OPT_VENDOR_CLASS)).toBe(-1);
    expect(m.textOption(bytes, dhcp.DHCP_OPT_VENDOR_CLASS)).toBeNull();
    const search = new Uint8Array(100);
    const searchBytes = m.copyOption(bytes, dhcp.DHCP_OPT_DOMAIN_SEARCH, search, 0);
    const names: (string | null)[] = [];
    for (let at = 0; at < searchBytes; at = skipDomainName(search, at, searchBytes)) {
      names.push(readDomainName(search, 0, at, searchBytes));
    }
    expect(names).toEqual(['eng.example.org', 'example.net']);
  });

  it('a value over 255 bytes is split and joined (RFC 3396)', () => {
    const value = Uint8Array.from({ length: 600 }, (_, i) => i);
    const { bytes, length } = message((options) => options.bytes(43, value));
    const m = new dhcp.DhcpMessage();
    expect(m.parse(bytes, 0, length)).toBe(true);
    const copy = new Uint8Array(600);
    expect(m.copyOption(bytes, 43, copy, 0)).toBe(600);
    expect(copy).toEqual(value);
    expect(m.copyOption(bytes, 43, new Uint8Array(599), 0)).toBe(-1);
    expect(m.copyOption(bytes, 44, copy, 0)).toBe(-1);
  });

  it('what does not fit is left out whole and remembered', () => {
    const room = dhcp.DHCP_OPTIONS + 10;
    const bytes = new Uint8Array(room + 50).fill(0xee);
    const options = new dhcp.DhcpOptionsWriter();
    options.start(bytes, dhcp.writeDhcp(bytes, 0, { op: 2, xid: 1 }, MAC, 0), room);
    options.u8(53, 2).text(12, 'too-long-a-name').u32(51, 60);
    expect(options.overflow).toBe(true);
    expect(options.finish(0)).toBe(room);
    expect(bytes.subarray(room).every((byte) => byte === 0xee)).toBe(true);
    const m = new dhcp.DhcpMessage();
    expect(m.parse(bytes, 0, room)).toBe(true);
    expect(m.findOption(bytes, 12)).toBe(false);
    expect(m.u32Option(bytes, 51)).toBe(60);
  });

  it.each([
    ['an option without a length', [53, 1, 1, 12]],
    ['an option past the end', [53, 1, 1, 12, 9, 65]],
    ['a message type of 0', [53, 1, 0, 255]],
    ['a message type of 9', [53, 1, 9, 255]],
    ['a message type of two bytes', [53, 2, 1, 1, 255]],
    ['an overload of two bytes', [52, 2, 1, 1, 255]],
  ])('refuses %s', (_, list) => {
    const bytes = new Uint8Array(dhcp.DHCP_OPTIONS + list.length);
    dhcp.writeDhcp(bytes, 0, { op: 1, xid: 1 }, MAC, 0);
    bytes.set(list, dhcp.DHCP_OPTIONS);
    expect(new dhcp.DhcpMessage().parse(bytes, 0, bytes.length)).toBe(false);
  });

  it('refuses another kind of hardware, or less than the fixed part', () => {
    const { bytes, length } = message(() => {});
    const m = new dhcp.DhcpMessage();
    expect(m.parse(bytes, 0, dhcp.BOOTP_HEADER_BYTES - 1)).toBe(false);
    expect(m.parse(bytes, 0, dhcp.BOOTP_HEADER_BYTES)).toBe(true);
    expect(m.copyOption(bytes, 53, new Uint8Array(9), 0)).toBe(-1);
    bytes[1] = 6;
    expect(m.parse(bytes, 0, length)).toBe(false);
    bytes[1] = 1;
    bytes[2] = 16;
    expect(m.parse(bytes, 0, length)).toBe(false);
  });

  it('forgives pads and a missing end', () => {
    const bytes = new Uint8Array(dhcp.DHCP_OPTIONS + 5);
    dhcp.writeDhcp(bytes, 0, { op: 1, xid: 1 }, MAC, 0);
    bytes.set([0, 0, 53, 1, 8], dhcp.DHCP_OPTIONS);
    const m = new dhcp.DhcpMessage();
    expect(m.parse(bytes, 0, bytes.length)).toBe(true);
    expect(m.messageType).toBe(dhcp.DHCP_INFORM);
  });

  it('an option that overruns an overloaded field is refused, though the message goes on behind it', () => {
    const bytes = new Uint8Array(400);
    dhcp.writeDhcp(bytes, 0, { op: 1, xid: 1 }, MAC, 0);
    bytes.set([52, 1, 1, 255], dhcp.DHCP_OPTIONS);
    bytes.set([60, 127], 108);
    expect(new dhcp.DhcpMessage().parse(bytes, 0, 400)).toBe(false);
    bytes.set([60, 126], 108);
    expect(new dhcp.DhcpMessage().parse(bytes, 0, 400)).toBe(true);
  });

  it('a reused parser forgets the message before', () => {
    const m = new dhcp.DhcpMessage();
    const first = message((options) => options.u8(53, 1).text(12, 'first'));
    expect(m.parse(first.bytes, 0, first.length)).toBe(true);
    const second = message((options) => options.u8(53, 3));
    expect(m.parse(second.bytes, 0, second.length)).toBe(true);
    expect(m.textOption(second.bytes, 12)).toBeNull();
    putU32be(second.bytes, 236, 0);
    expect(m.parse(second.bytes, 0, second.length)).toBe(true);
    expect(m.findOption(second.bytes, 53)).toBe(false);
    expect(getLatin1(second.bytes, 0, 1)).toBe('\x02');
  });
});

/**
 * `user`: rootless NAT. The host is the gateway of a small private network; these options lay that network out.
 *
 * Either family can be switched off; naming one as on switches the other off unless that is named too. The IPv4
 * layout hangs on `net`: host, dns, dhcpstart and smbserver default to .2, .3, .15 and .4 in its last two bytes.
 */
import { OptionError } from '../../core/errors.ts';
import {
  type IpAddress,
  type Ipv4,
  type Ipv6,
  ipv4,
  ipv6,
  isUnspecified,
  parseHost,
  parseIp,
  parseIpv4,
  parseIpv6,
} from '../address.ts';
import { expects } from '../kinds.ts';
import { defineNetdev } from './definition.ts';
import { type EgressRule, type OwnName, parseEgressRule, parseOwnName } from './user-egress.ts';
import {
  type GuestForward,
  type HostForward,
  parseGuestForwards,
  parseHostForwards,
} from './user-forward.ts';
import { type UserOptions, userOptions } from './user-options.ts';

export interface UserIpv4 {
  readonly net: Ipv4;
  readonly prefixLength: number;
  readonly mask: Ipv4;
  readonly host: Ipv4;
  readonly dns: Ipv4;
  readonly dhcpStart: Ipv4;
  readonly smbServer: Ipv4;
}

export interface UserIpv6 {
  readonly prefix: Ipv6;
  readonly prefixLength: number;
  readonly host: Ipv6;
  readonly dns: Ipv6;
}

export interface DeniedNet {
  readonly address: Ipv4 | Ipv6;
  readonly prefixLength: number;
}

export interface UserConfig {
  /** undefined: the family is off. */
  readonly ipv4: UserIpv4 | undefined;
  readonly ipv6: UserIpv6 | undefined;
  readonly restrict: boolean;
  readonly loopback: boolean;
  /** Whether link-local and metadata addresses may be reached. */
  readonly metadata: boolean;
  readonly deny: readonly DeniedNet[];
  readonly egress: readonly EgressRule[];
  /** At most one of each family. */
  readonly source: readonly IpAddress[];
  /** The host's interface to leave by; undefined: as the host routes. */
  readonly sourceInterface: string | undefined;
  /** In the order they are asked; none: the host's. */
  readonly dnsUpstream: readonly IpAddress[];
  readonly hosts: readonly OwnName[];
  readonly hostname: string | undefined;
  readonly domainname: string | undefined;
  readonly dnssearch: readonly string[];
  readonly tftp: string | undefined;
  readonly bootfile: string | undefined;
  readonly tftpServerName: string | undefined;
  readonly smb: string | undefined;
  readonly hostfwd: readonly HostForward[];
  readonly guestfwd: readonly GuestForward[];
  /** Where a rule without a host address listens; `hostfwd-add` at run time needs it as well. */
  readonly hostfwdAddress: Ipv4 | Ipv6;
  readonly ipMtuBytes: number;
}

export const user = defineNetdev({
  type: 'user',
  summary: 'user-mode NAT, needs no privilege',
  options: userOptions,
  resolve: resolveUser,
});

const bad = (option: string, text: string): OptionError => new OptionError(text, { option });

function resolveUser(o: UserOptions): UserConfig {
  const on4 = o.ipv4 ?? !(o.ipv6 === true);
  const on6 = o.ipv6 ?? !(o.ipv4 === true);
  if (!on4 && !on6) throw bad('ipv4', 'IPv4 and IPv6 disabled');
  if (!on4 && (o.net ?? o.ip ?? o.host ?? o.dns) !== undefined) {
    throw bad('ipv4', 'IPv4 disabled but netmask/host/dns provided');
  }
  const [prefixText, prefixLength] = ipv6Net(o);
  if (!on6 && (prefixText ?? o['ipv6-host'] ?? o['ipv6-dns']) !== undefined) {
    throw bad('ipv6', 'IPv6 disabled but prefix/host6/dns6 provided');
  }
  checkDhcpText(o);
  const v4 = on4 ? layOutIpv4(o) : undefined;
  const v6 = on6 ? layOutIpv6(o, prefixText ?? 'fec0::', prefixLength) : undefined;
  const hostfwdAddress = parseIp(o['hostfwd-address']);
  if (!hostfwdAddress) throw bad('hostfwd-address', 'Failed to parse host forwarding address');
  if (o.mtu < (on6 ? 1280 : 576) || o.mtu > 65520) {
    throw expects('mtu', `a number of bytes from ${on6 ? 1280 : 576} to 65520`);
  }
  return {
    ipv4: v4,
    ipv6: v6,
    restrict: o.restrict,
    loopback: o.loopback,
    metadata: o.metadata,
    deny: (o.deny ?? []).map(deniedNet),
    egress: (o.egress ?? []).map(parseEgressRule),
    source: sources(o.source ?? []),
    sourceInterface: interfaceName(o['source-interface']),
    dnsUpstream: (o['dns-upstream'] ?? []).map(dnsUpstream),
    hosts: (o.hosts ?? []).map(parseOwnName),
    hostname: o.hostname,
    domainname: o.domainname,
    dnssearch: o.dnssearch ?? [],
    tftp: o.tftp,
    bootfile: o.bootfile,
    tftpServerName: o['tftp-server-name'],
    smb: o.smb,
    hostfwd: parseHostForwards(o.hostfwd ?? [], {
      defaultHost: hostfwdAddress,
      guest4: v4?.dhcpStart,
      guest6: v6 !== undefined,
    }),
    guestfwd: parseGuestForwards(o.guestfwd ?? [], v4),
    hostfwdAddress,
    ipMtuBytes: o.mtu,
  };
}

function layOutIpv4(o: UserOptions): UserIpv4 {
  const { net, mask, prefixLength } = ipv4Net(o.net ?? (o.ip === undefined ? undefined : `${o.ip}/24`));
  const inNet = (address: Ipv4): boolean => (address.value & mask) >>> 0 === net;
  const at = (tail: number): Ipv4 => ipv4((net | (tail & ~mask)) >>> 0);
  const given = (text: string | undefined, option: string, what: string, tail: number): Ipv4 => {
    const address = text === undefined ? at(tail) : parseIpv4(text);
    if (!address) throw bad(option, `Failed to parse ${what}`);
    return address;
  };

  const host = given(o.host, 'host', 'host', 0x0202);
  if (!inNet(host)) throw bad('host', "Host doesn't belong to network");
  const dns = given(o.dns, 'dns', 'DNS', 0x0203);
  if (o.restrict && !inNet(dns)) throw bad('dns', "DNS doesn't belong to network");
  if (dns.value === host.value) throw bad('dns', 'DNS must be different from host');
  const dhcpStart = given(o.dhcpstart, 'dhcpstart', 'DHCP start address', 0x020f);
  if (!inNet(dhcpStart)) throw bad('dhcpstart', "DHCP doesn't belong to network");
  if (dhcpStart.value === host.value || dhcpStart.value === dns.value) {
    throw bad('dhcpstart', 'DHCP must be different from host and DNS');
  }
  const smbServer = given(o.smbserver, 'smbserver', 'SMB address', 0x0204);
  if (o.smbserver !== undefined) {
    if (!inNet(smbServer)) throw bad('smbserver', "SMB doesn't belong to network");
    if ([host, dns, dhcpStart].some((other) => other.value === smbServer.value)) {
      throw bad('smbserver', 'SMB must be different from host, DNS and DHCP');
    }
  }
  return { net: ipv4(net), prefixLength, mask: ipv4(mask), host, dns, dhcpStart, smbServer };
}

function ipv4Net(text = '10.0.2.0/24'): { net: number; mask: number; prefixLength: number } {
  const [addressText, maskText, ...rest] = text.split('/');
  const address = parseIpv4(addressText!);
  if (!address || rest.length > 0) throw bad('net', 'Failed to parse netmask');
  let prefixLength: number;
  if (maskText === undefined) {
    prefixLength = classPrefix(address.value);
  } else if (maskText.includes('.')) {
    const dotted = parseIpv4(maskText);
    if (!dotted) throw bad('net', 'Failed to parse netmask (trailing chars)');
    prefixLength = Math.clz32(~dotted.value);
    if (maskOf(prefixLength) !== dotted.value) throw bad('net', 'Failed to parse netmask (not contiguous)');
  } else {
    if (!/^\d{1,9}$/.test(maskText)) throw bad('net', 'Failed to parse netmask (trailing chars)');
    prefixLength = Number(maskText);
  }
  if (prefixLength < 4 || prefixLength > 32) {
    throw bad('net', 'Invalid netmask provided (must be in range 4-32)');
  }
  const mask = maskOf(prefixLength);
  return { net: (address.value & mask) >>> 0, mask, prefixLength };
}

/** The mask an address has by its class, with the special networks QEMU knows: of RFC 1918, and 198.18 of RFC 2544. */
function classPrefix(address: number): number {
  const under = (net: number, length: number): boolean => (address & maskOf(length)) >>> 0 === net;
  if (address >>> 31 === 0) return 8;
  if (under(0xac100000, 12)) return 12;
  if (under(0xc0a80000, 16)) return 16;
  if (under(0xc6120000, 16)) return 15;
  if (under(0x80000000, 2)) return 16;
  return under(0xc0000000, 3) ? 24 : 28;
}

function maskOf(prefixLength: number): number {
  return prefixLength === 0 ? 0 : (-1 << (32 - prefixLength)) >>> 0;
}

/** The prefix and its length as given by `ipv6-net` or by the pair of options. */
function ipv6Net(o: UserOptions): [prefix: string | undefined, length: number] {
  const both = o['ipv6-net'];
  if (both === undefined) return [o['ipv6-prefix'], o['ipv6-prefixlen'] ?? 64];
  if (o['ipv6-prefix'] !== undefined || o['ipv6-prefixlen'] !== undefined) {
    throw bad('ipv6-net', 'ipv6-net= excludes ipv6-prefix= and ipv6-prefixlen=');
  }
  const [prefix, length, ...rest] = both.split('/');
  if (length === undefined) return [prefix, 64];
  if (!/^\d{1,9}$/.test(length) || rest.length > 0) throw expects('ipv6-prefixlen', 'a number');
  return [prefix, Number(length)];
}

function layOutIpv6(o: UserOptions, prefixText: string, prefixLength: number): UserIpv6 {
  const given = parseIpv6(prefixText);
  if (!given) throw bad('ipv6-prefix', 'Failed to parse IPv6 prefix');
  if (prefixLength < 0 || prefixLength > 126) {
    throw bad(
      'ipv6-prefixlen',
      'Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)',
    );
  }
  const prefix = ipv6(given.bytes.map((byte, i) => byte & byteMask(prefixLength, i)));
  const inNet = (address: Ipv6): boolean =>
    address.bytes.every((byte, i) => (byte & byteMask(prefixLength, i)) === prefix.bytes[i]);
  const at = (last: number): Ipv6 => ipv6(prefix.bytes.map((byte, i) => (i === 15 ? byte | last : byte)));

  const host = o['ipv6-host'] === undefined ? at(2) : parseIpv6(o['ipv6-host']);
  if (!host) throw bad('ipv6-host', 'Failed to parse IPv6 host');
  if (!inNet(host)) throw bad('ipv6-host', "IPv6 Host doesn't belong to network");
  const dns = o['ipv6-dns'] === undefined ? at(3) : parseIpv6(o['ipv6-dns']);
  if (!dns) throw bad('ipv6-dns', 'Failed to parse IPv6 DNS');
  if (o.restrict && !inNet(dns)) throw bad('ipv6-dns', "IPv6 DNS doesn't belong to network");
  if (dns.text === host.text) throw bad('ipv6-dns', 'IPv6 DNS must be different from host');
  return { prefix, prefixLength, host, dns };
}

/** The bits of byte `index` that belong to a prefix. */
function byteMask(prefixLength: number, index: number): number {
  const bits = Math.min(8, Math.max(0, prefixLength - index * 8));
  return (0xff00 >> bits) & 0xff;
}

/** A name as the kernel allows it (dev_valid_name): 1 to 15 bytes, no slash, colon or space. */
function interfaceName(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  if (!/^[^\s/:]{1,15}$/.test(text) || text === '.' || text === '..' || utf8Length(text) > 15)
    throw expects('source-interface', 'the name of an interface');
  return text;
}

function dnsUpstream(text: string): IpAddress {
  const address = parseIp(text);
  if (!address) throw expects('dns-upstream', 'an address');
  return address;
}

function sources(texts: readonly string[]): IpAddress[] {
  const found = texts.map((text) => {
    const address = parseIp(text);
    if (!address) throw expects('source', 'an address');
    return address;
  });
  for (const family of [4, 6]) {
    if (found.filter((address) => address.family === family).length > 1) {
      throw bad('source', `source= names more than one IPv${family} address`);
    }
  }
  return found;
}

function deniedNet(text: string): DeniedNet {
  const [addressText, lengthText, ...rest] = text.split('/');
  const address = parseIp(addressText!);
  const longest = address?.family === 4 ? 32 : 128;
  const prefixLength =
    lengthText === undefined ? longest : /^\d{1,3}$/.test(lengthText) ? Number(lengthText) : 999;
  if (!address || rest.length > 0 || prefixLength > longest) throw expects('deny', 'addr[/len]');
  if (prefixLength > 0 && isUnspecified(address))
    throw expects('deny', 'an address other than the unspecified one');
  return { address, prefixLength };
}

/** What must fit the one-byte length of a DHCP option. */
function checkDhcpText(o: UserOptions): void {
  if (o.domainname === '') throw bad('domainname', "'domainname' parameter cannot be empty");
  for (const option of ['domainname', 'hostname', 'tftp-server-name'] as const) {
    const bytes = utf8Length(o[option] ?? '');
    if (bytes > 255) throw bad(option, `'${option}' parameter cannot exceed 255 bytes`);
  }
  if (utf8Length(o.bootfile ?? '') > 127)
    throw bad('bootfile', "'bootfile' parameter cannot exceed 127 bytes");
  for (const domain of o.dnssearch ?? []) {
    if (parseHost(domain)?.family !== 0) throw expects('dnssearch', 'a domain name');
  }
}

function utf8Length(text: string): number {
  let length = 0;
  for (const char of text) {
    const code = char.codePointAt(0)!;
    length += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return length;
}

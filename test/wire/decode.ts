/**
 * Decodes a whole frame with the codecs of src/wire into a flat record, for comparing with fixtures/frames. `error`
 * names the layer that refused it.
 */

import { ArpPacket } from '../../src/wire/arp.ts';
import { formatIpv4, formatIpv6, formatMac } from '../../src/wire/bytes.ts';
import { pseudoSumAt } from '../../src/wire/checksum.ts';
import * as dhcp from '../../src/wire/dhcp.ts';
import {
  DHCPV6_OPT_BOOTFILE_URL,
  DHCPV6_OPT_CLIENT_ID,
  DHCPV6_OPT_DNS_SERVERS,
  Dhcpv6Message,
} from '../../src/wire/dhcpv6.ts';
import { DNS_TYPE_A, DnsMessage } from '../../src/wire/dns.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader } from '../../src/wire/ethernet.ts';
import { IcmpMessage, icmpNextHopMtu } from '../../src/wire/icmp.ts';
import { Icmpv6Message } from '../../src/wire/icmpv6.ts';
import { Ipv4Header } from '../../src/wire/ipv4.ts';
import { Ipv6Header } from '../../src/wire/ipv6.ts';
import { NeighborMessage, parseRouterSolicitation } from '../../src/wire/ndp.ts';
import { parseRouterAdvertisement } from '../../src/wire/ra.ts';
import { TcpHeader, TcpOptions } from '../../src/wire/tcp.ts';
import { TftpPacket } from '../../src/wire/tftp.ts';
import { UdpHeader } from '../../src/wire/udp.ts';
import { vlanId, vlanPriority } from '../../src/wire/vlan.ts';

export type Decoded = Record<string, unknown>;

const MAC_NONE = -1;

export function decodeFrame(bytes: Uint8Array, offset: number, end: number): Decoded {
  const out: Decoded = { 'frame.bytes': end - offset };
  const eth = new EthernetHeader();
  if (!eth.parse(bytes, offset, end)) return fail(out, 'ethernet');
  out['eth.dst'] = formatMac(bytes, offset);
  out['eth.src'] = formatMac(bytes, offset + 6);
  out['eth.type'] = eth.etherType;
  if (eth.vlanTci >= 0) {
    out['vlan.id'] = vlanId(eth.vlanTci);
    out['vlan.priority'] = vlanPriority(eth.vlanTci);
  }
  if (eth.etherType === ETHERTYPE_ARP) return decodeArp(bytes, eth.payload, end, out);
  if (eth.etherType === ETHERTYPE_IPV4) return decodeIpv4(bytes, eth.payload, end, out);
  if (eth.etherType === ETHERTYPE_IPV6) return decodeIpv6(bytes, eth.payload, end, out);
  return out;
}

function fail(out: Decoded, layer: string): Decoded {
  out.error = layer;
  return out;
}

function put(out: Decoded, prefix: string, fields: Decoded): void {
  for (const [key, value] of Object.entries(fields)) out[`${prefix}.${key}`] = value;
}

function macAt(bytes: Uint8Array, at: number): string | number {
  return at < 0 ? MAC_NONE : formatMac(bytes, at);
}

function decodeArp(bytes: Uint8Array, offset: number, end: number, out: Decoded): Decoded {
  const arp = new ArpPacket();
  if (!arp.parse(bytes, offset, end)) return fail(out, 'arp');
  put(out, 'arp', {
    operation: arp.operation,
    senderMac: formatMac(bytes, arp.senderMac),
    senderIp: formatIpv4(arp.senderIp),
    targetMac: formatMac(bytes, arp.targetMac),
    targetIp: formatIpv4(arp.targetIp),
  });
  return out;
}

function decodeIpv4(bytes: Uint8Array, offset: number, end: number, out: Decoded): Decoded {
  const ip = new Ipv4Header();
  if (!ip.parse(bytes, offset, end)) return fail(out, 'ipv4');
  const { headerBytes, totalBytes, id, moreFragments, fragmentOffset, ttl, protocol } = ip;
  put(out, 'ip', { headerBytes, totalBytes, id, moreFragments, fragmentOffset, ttl, protocol });
  put(out, 'ip', { src: formatIpv4(ip.src), dst: formatIpv4(ip.dst), checksumOk: ip.checksumOk(bytes) });
  if (ip.isFragment) return out;
  if (protocol === 1) {
    const icmp = new IcmpMessage();
    if (!icmp.parse(bytes, ip.payload, ip.payloadEnd)) return fail(out, 'icmp');
    const { type, code, sequence } = icmp;
    const payloadBytes = icmp.payloadEnd - icmp.payload;
    put(out, 'icmp', { type, code, id: icmp.id, sequence, payloadBytes, checksumOk: icmp.checksumOk(bytes) });
    out['icmp.nextHopMtu'] = icmpNextHopMtu(bytes, icmp.offset);
    return out;
  }
  return decodeTransport(bytes, offset, protocol, ip.payload, ip.payloadEnd, out);
}

function decodeIpv6(bytes: Uint8Array, offset: number, end: number, out: Decoded): Decoded {
  const ip = new Ipv6Header();
  if (!ip.parse(bytes, offset, end)) return fail(out, 'ipv6');
  const { headerBytes, hopLimit, protocol, fragmentOffset, moreFragments, fragmentId } = ip;
  put(out, 'ip6', { headerBytes, hopLimit, protocol, fragmentOffset, moreFragments, fragmentId });
  put(out, 'ip6', { src: formatIpv6(bytes, ip.src), dst: formatIpv6(bytes, ip.dst) });
  if (ip.isFragment) return out;
  if (protocol === 58) return decodeIcmpv6(bytes, ip, out);
  return decodeTransport(bytes, offset, protocol, ip.payload, ip.payloadEnd, out);
}

function decodeIcmpv6(bytes: Uint8Array, ip: Ipv6Header, out: Decoded): Decoded {
  const icmp = new Icmpv6Message();
  const { payload: offset, payloadEnd: end, hopLimit } = ip;
  if (!icmp.parse(bytes, offset, end)) return fail(out, 'icmp6');
  const { type, code, rest, id, sequence } = icmp;
  const checksumOk = icmp.checksumOk(bytes, ip.offset);
  put(out, 'icmp6', { type, code, rest, id, sequence, checksumOk, payloadBytes: end - icmp.payload });
  if (type === 135 || type === 136) {
    const ndp = new NeighborMessage();
    if (!ndp.parse(bytes, offset, end, hopLimit)) return fail(out, 'ndp');
    const { isSolicitation, router, solicited, override } = ndp;
    put(out, 'ndp', { isSolicitation, router, solicited, override });
    put(out, 'ndp', { target: formatIpv6(bytes, ndp.target), linkAddress: macAt(bytes, ndp.linkAddress) });
  } else if (type === 133) {
    const mac = parseRouterSolicitation(bytes, offset, end, hopLimit);
    if (mac === -2) return fail(out, 'rs');
    out['rs.linkAddress'] = macAt(bytes, mac);
  } else if (type === 134) {
    const ra = parseRouterAdvertisement(bytes, offset, end, hopLimit);
    if (ra === null) return fail(out, 'ra');
    put(out, 'ra', {
      ...ra,
      routerMac: ra.routerMac && formatMac(ra.routerMac),
      prefix: ra.prefixes[0] && formatIpv6(ra.prefixes[0].prefix),
      prefixLength: ra.prefixes[0]?.prefixLength,
      dnsServers: ra.dnsServers.map((server) => formatIpv6(server)),
    });
  }
  return out;
}

function decodeTransport(
  bytes: Uint8Array,
  ipOffset: number,
  protocol: number,
  offset: number,
  end: number,
  out: Decoded,
): Decoded {
  if (protocol === 17) {
    const udp = new UdpHeader();
    if (!udp.parse(bytes, offset, end)) return fail(out, 'udp');
    const { srcPort, dstPort, checksum, payload, payloadEnd } = udp;
    const pseudo = pseudoSumAt(bytes, ipOffset, 17, payloadEnd - offset);
    put(out, 'udp', { srcPort, dstPort, checksum, payloadBytes: payloadEnd - payload });
    out['udp.checksumOk'] = udp.checksumOk(bytes, pseudo);
    return decodeApplication(bytes, srcPort, dstPort, payload, payloadEnd, out);
  }
  if (protocol === 6) {
    const tcp = new TcpHeader();
    const options = new TcpOptions();
    if (!tcp.parse(bytes, offset, end)) return fail(out, 'tcp');
    const { srcPort, dstPort, seq, ack, flags, window, headerBytes } = tcp;
    put(out, 'tcp', { srcPort, dstPort, seq, ack, flags, window, headerBytes });
    put(out, 'tcp', {
      payloadBytes: tcp.payloadEnd - tcp.payload,
      checksumOk: tcp.checksumOk(bytes, pseudoSumAt(bytes, ipOffset, 6, end - offset)),
      optionsOk: options.parse(bytes, offset + 20, tcp.payload),
      mss: options.mss,
      windowScale: options.windowScale,
      sackPermitted: options.sackPermitted,
      timestamps: options.hasTimestamps ? [options.timestampValue, options.timestampEcho] : null,
      sack: Array.from({ length: options.sackCount }, (_, i) => [options.sackLeft[i], options.sackRight[i]]),
    });
  }
  return out;
}

function decodeApplication(
  bytes: Uint8Array,
  srcPort: number,
  dstPort: number,
  offset: number,
  end: number,
  out: Decoded,
): Decoded {
  if (dstPort === 67 || dstPort === 68) return decodeDhcp(bytes, offset, end, out);
  if (dstPort === 547) {
    const message = new Dhcpv6Message();
    if (!message.parse(bytes, offset, end)) return fail(out, 'dhcp6');
    const clientIdBytes = message.findOption(bytes, DHCPV6_OPT_CLIENT_ID) ? message.valueBytes : -1;
    put(out, 'dhcp6', { type: message.type, transactionId: message.transactionId, clientIdBytes });
    out['dhcp6.wantsDns'] = message.wants(bytes, DHCPV6_OPT_DNS_SERVERS);
    out['dhcp6.wantsBootfile'] = message.wants(bytes, DHCPV6_OPT_BOOTFILE_URL);
  } else if (srcPort === 53) {
    const message = new DnsMessage();
    if (!message.parse(bytes, offset, end)) return fail(out, 'dns');
    const addresses = message.answers
      .filter((record) => record.type === DNS_TYPE_A)
      .map(({ name, dataOffset }) => `${name} ${bytes.slice(dataOffset, dataOffset + 4).join('.')}`);
    put(out, 'dns', { id: message.id, isReply: message.isReply, rcode: message.rcode, addresses });
  } else if (dstPort === 69) {
    const packet = new TftpPacket();
    if (!packet.parse(bytes, offset, end)) return fail(out, 'tftp');
    put(out, 'tftp', { ...packet });
  }
  return out;
}

function decodeDhcp(bytes: Uint8Array, offset: number, end: number, out: Decoded): Decoded {
  const message = new dhcp.DhcpMessage();
  if (!message.parse(bytes, offset, end)) return fail(out, 'dhcp');
  const { op, xid, flags, messageType } = message;
  const search = new Uint8Array(1024);
  const ip = (code: number) => formatIpv4(message.ipOption(bytes, code));
  put(out, 'dhcp', {
    op,
    xid,
    flags,
    messageType,
    yiaddr: formatIpv4(message.yiaddr),
    chaddr: formatMac(bytes, message.chaddr),
    file: message.file(bytes),
    hostName: message.textOption(bytes, dhcp.DHCP_OPT_HOST_NAME),
    tftpServer: message.textOption(bytes, dhcp.DHCP_OPT_TFTP_SERVER),
    bootfile: message.textOption(bytes, dhcp.DHCP_OPT_BOOTFILE),
    maxSize: message.u16Option(bytes, dhcp.DHCP_OPT_MAX_SIZE),
    leaseSeconds: message.u32Option(bytes, dhcp.DHCP_OPT_LEASE_TIME),
    serverId: ip(dhcp.DHCP_OPT_SERVER_ID),
    subnetMask: ip(dhcp.DHCP_OPT_SUBNET_MASK),
    router: ip(dhcp.DHCP_OPT_ROUTER),
    wantsMtu: message.wants(bytes, dhcp.DHCP_OPT_MTU),
    wantsBootfile: message.wants(bytes, dhcp.DHCP_OPT_BOOTFILE),
    searchBytes: message.copyOption(bytes, dhcp.DHCP_OPT_DOMAIN_SEARCH, search, 0),
  });
  return out;
}

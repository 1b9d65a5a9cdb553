/** The options of the `user` netdev. What they mean together is in user.ts. */
import { defineOptions, type OptionsOf } from '../schema.ts';

export const userOptions = defineOptions({
  ipv4: {
    kind: 'bool',
    defaultText: 'on, unless only ipv6=on is given',
    doc: 'Serve IPv4: ARP, DHCP, ICMP, UDP and TCP.',
  },
  ipv6: {
    kind: 'bool',
    defaultText: 'on, unless only ipv4=on is given',
    doc: 'Serve IPv6: neighbour discovery, router advertisements, DHCPv6, ICMPv6, UDP and TCP.',
  },
  net: {
    kind: 'string',
    metavar: 'addr[/len|/mask]',
    defaultText: '10.0.2.0/24',
    doc: 'The IPv4 network the guest sees, of prefix length 4 to 32. Without a mask the address class decides.',
  },
  ip: {
    kind: 'string',
    metavar: 'addr',
    legacy: 'use net=ADDR/24',
    doc: 'The IPv4 network as an address alone, with a 24-bit mask.',
  },
  host: {
    kind: 'string',
    metavar: 'addr',
    defaultText: 'net.2',
    doc: "The gateway's IPv4 address, which is also the host's loopback as the guest sees it.",
  },
  dns: {
    kind: 'string',
    metavar: 'addr',
    defaultText: 'net.3',
    doc: 'The IPv4 address of the DNS relay. Must lie in the network when restrict is on.',
  },
  dhcpstart: {
    kind: 'string',
    metavar: 'addr',
    defaultText: 'net.15',
    doc: 'The first of the 16 IPv4 addresses that DHCP leases.',
  },
  'ipv6-net': {
    kind: 'string',
    metavar: 'addr[/len]',
    doc: 'The IPv6 prefix and its length in one: sets ipv6-prefix and ipv6-prefixlen.',
  },
  'ipv6-prefix': {
    kind: 'string',
    metavar: 'addr',
    defaultText: 'fec0::',
    doc: 'The IPv6 prefix that router advertisements announce.',
  },
  'ipv6-prefixlen': {
    kind: 'int',
    defaultText: '64',
    doc: 'The length of the IPv6 prefix in bits, 0 to 126.',
  },
  'ipv6-host': {
    kind: 'string',
    metavar: 'addr',
    defaultText: 'prefix::2',
    doc: "The gateway's IPv6 address, which is also the host's loopback as the guest sees it.",
  },
  'ipv6-dns': {
    kind: 'string',
    metavar: 'addr',
    defaultText: 'prefix::3',
    doc: 'The IPv6 address of the DNS relay. Must lie under the prefix when restrict is on.',
  },
  restrict: {
    kind: 'bool',
    default: false,
    doc: 'Let nothing leave or enter but the forwards named here; DHCP and the names of this network still answer.',
  },
  loopback: {
    kind: 'bool',
    default: true,
    beyond: true,
    doc: "Let the guest reach services on the host's loopback by the gateway's address.",
  },
  metadata: {
    kind: 'bool',
    default: true,
    beyond: true,
    doc: 'Let the guest reach IPv4 link-local addresses (169.254.0.0/16) and the addresses at which clouds serve the credentials of the host: fd00:ec2::254, fd20:ce::254, 100.100.100.200, 168.63.129.16 and 192.0.0.192.',
  },
  deny: {
    kind: 'list',
    metavar: 'addr[/len]',
    beyond: true,
    doc: 'Addresses the guest may not reach, such as 169.254.0.0/16 for link-local and metadata services. Repeats.',
  },
  egress: {
    kind: 'list',
    metavar: 'allow|deny:any|tcp|udp|icmp:all|addr[/len]|name[:port[-port]]',
    beyond: true,
    doc: "What the guest may reach outside: the first rule that matches decides, and without a match it may. IPv6 addresses stand in brackets. A name, or *.name for all below it, stands for the addresses that the network's name server answered for it, for as long as it said. The gateway and the name server have switches of their own. Repeats.",
  },
  source: {
    kind: 'list',
    metavar: 'addr',
    beyond: true,
    doc: 'The host address that connections and datagrams of the guest come from, one for each family. Repeats.',
  },
  'source-interface': {
    kind: 'string',
    metavar: 'name',
    beyond: true,
    doc: "The host's interface that connections, datagrams and pings of the guest leave by, whatever its routes say. Needs the native addon.",
  },
  'dns-upstream': {
    kind: 'list',
    metavar: 'addr',
    beyond: true,
    doc: "The name server the DNS relay asks instead of the host's. Repeats: the next is asked when the one before does not answer.",
  },
  hosts: {
    kind: 'list',
    metavar: 'name:addr',
    beyond: true,
    doc: "A name that the network's name server answers itself, also when restrict is on. Repeats.",
  },
  hostname: { kind: 'string', metavar: 'name', doc: "The guest's name, told by DHCP option 12." },
  domainname: {
    kind: 'string',
    metavar: 'name',
    doc: "The guest's domain, told by DHCP option 15.",
  },
  dnssearch: {
    kind: 'list',
    metavar: 'domain',
    doc: 'Domains to complete short names with, told by DHCP option 119, DHCPv6 and router advertisements. Repeats.',
  },
  tftp: { kind: 'string', metavar: 'dir', doc: 'A folder to serve by TFTP, read only.' },
  bootfile: { kind: 'string', metavar: 'file', doc: 'The file to boot from, told by DHCP option 67.' },
  'tftp-server-name': {
    kind: 'string',
    metavar: 'name',
    doc: 'The name of the boot server, told by DHCP option 66.',
  },
  smb: { kind: 'string', metavar: 'dir', doc: "A folder to share by the host's smbd." },
  smbserver: {
    kind: 'string',
    metavar: 'addr',
    defaultText: 'net.4',
    doc: 'The IPv4 address the shared folder is found at.',
  },
  hostfwd: {
    kind: 'list',
    metavar: '[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport[/proxy1|/proxy2]',
    doc: 'Forward a host port to the guest; host port 0 lets the system choose. unix:/path-[guestaddr]:port forwards a unix socket. IPv6 addresses stand in brackets. With /proxy1 or /proxy2 behind the guest port each TCP or unix connection begins with a PROXY protocol header of that version, which names the real client. Repeats.',
  },
  'hostfwd-address': {
    kind: 'string',
    metavar: 'addr',
    default: '0.0.0.0',
    beyond: true,
    doc: 'The host address a hostfwd rule without one listens on; 127.0.0.1 keeps forwards on this machine.',
  },
  guestfwd: {
    kind: 'list',
    metavar: '[tcp]:server:port-chardev|-cmd:command',
    doc: "Forward a server address in the guest's network to a character device, or to a process per connection. Repeats.",
  },
  mtu: {
    kind: 'uint',
    bits: 32,
    default: 1500,
    beyond: true,
    doc: 'The IP MTU in bytes, 576 to 65520 (at least 1280 with IPv6), told by DHCP option 26 and router advertisements.',
  },
});

export type UserOptions = OptionsOf<typeof userOptions>;

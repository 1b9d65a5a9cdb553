/** The protocols of the network, as the way in calls them. One object, made by index.ts; what the configuration leaves out is null. */

import type { DhcpServer } from './dhcp.ts';
import type { Dhcpv6Server } from './dhcpv6.ts';
import type { HostForwards } from './hostfwd.ts';
import type { Icmp } from './icmp.ts';
import type { Ndp } from './ndp.ts';
import type { OwnNames } from './own-names.ts';
import type { Reassembly } from './reassembly.ts';
import type { TcpNat } from './tcp-nat.ts';
import type { TftpServer } from './tftp.ts';
import type { UdpNat } from './udp-nat.ts';

export interface Parts {
  readonly dhcp: DhcpServer | null;
  readonly dhcpv6: Dhcpv6Server | null;
  readonly ndp: Ndp | null;
  readonly tftp: TftpServer | null;
  readonly names: OwnNames;
  readonly tcp: TcpNat;
  readonly udp: UdpNat;
  readonly icmp: Icmp;
  readonly forwards: HostForwards;
  readonly reassembly: Reassembly;
  /** Whether an IPv4 address is the gateway's, the name server's or that of a server inside the network. */
  serves(address: number): boolean;
}

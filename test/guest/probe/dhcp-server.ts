/** A DHCP server in a few lines, each answer of which a test can bend. */
import { putU32be } from '../../../src/wire/bytes.ts';
import {
  BOOTP_REPLY,
  DHCP_ACK,
  DHCP_DISCOVER,
  DHCP_OFFER,
  DHCP_OPT_DNS,
  DHCP_OPT_LEASE_TIME,
  DHCP_OPT_REQUESTED_IP,
  DHCP_OPT_ROUTER,
  DHCP_OPT_SERVER_ID,
  DHCP_OPT_SUBNET_MASK,
  DHCP_REQUEST,
  DhcpMessage,
  DhcpOptionsWriter,
  writeDhcp,
} from '../../../src/wire/dhcp.ts';
import { BROADCAST_MAC, type Datagram, ip, type Peer } from './harness.ts';

export interface Answer {
  type: number;
  xid: number;
  op: number;
  yiaddr: number;
  chaddr: Uint8Array;
  /** 0: the option is left out. */
  server: number;
  seconds: number;
  mask: number;
  router: number;
  dns: number[];
}

export class DhcpServer {
  readonly server = ip('10.0.2.2');
  address = ip('10.0.2.15');
  seconds = 86_400;
  silent = false;
  /** Changes an answer before it is sent; null drops it. */
  bend: (answer: Answer) => Answer | null = (answer) => answer;
  /** What was asked, as [message type, requested address, ciaddr, destination]. */
  readonly asked: [number, number, number, number][] = [];
  readonly #peer: Peer;
  readonly #message = new DhcpMessage();

  constructor(peer: Peer) {
    this.#peer = peer;
    peer.addresses.add(this.server);
    peer.onDatagram = (datagram) => this.datagram(datagram);
  }

  datagram(datagram: Datagram): void {
    if (datagram.dstPort !== 67) return;
    const message = this.#message;
    const bytes = datagram.payload;
    if (!message.parse(bytes, 0, bytes.length)) throw new Error('the client sent a bad DHCP message');
    const requested = message.ipOption(bytes, DHCP_OPT_REQUESTED_IP);
    this.asked.push([message.messageType, requested, message.ciaddr, datagram.dst]);
    if (this.silent || (message.messageType !== DHCP_DISCOVER && message.messageType !== DHCP_REQUEST))
      return;
    const answer = this.bend({
      type: message.messageType === DHCP_DISCOVER ? DHCP_OFFER : DHCP_ACK,
      xid: message.xid,
      op: BOOTP_REPLY,
      yiaddr: this.address,
      chaddr: bytes.slice(message.chaddr, message.chaddr + 6),
      server: this.server,
      seconds: this.seconds,
      mask: ip('255.255.255.0'),
      router: this.server,
      dns: [ip('10.0.2.3')],
    });
    if (answer !== null) this.send(answer, datagram.src === 0 ? 0xffffffff : datagram.src);
  }

  send(answer: Answer, to: number): void {
    const bytes = new Uint8Array(600);
    const fields = { op: answer.op, xid: answer.xid, yiaddr: answer.yiaddr };
    const options = writeDhcp(bytes, 0, fields, answer.chaddr, 0);
    const writer = new DhcpOptionsWriter().start(bytes, options, 548).u8(53, answer.type);
    if (answer.server !== 0) writer.u32(DHCP_OPT_SERVER_ID, answer.server);
    if (answer.seconds !== 0) writer.u32(DHCP_OPT_LEASE_TIME, answer.seconds);
    if (answer.mask !== 0) writer.u32(DHCP_OPT_SUBNET_MASK, answer.mask);
    if (answer.router !== 0) writer.u32(DHCP_OPT_ROUTER, answer.router);
    writer.ips(DHCP_OPT_DNS, answer.dns);
    const length = writer.finish(0);
    const mac = to === 0xffffffff ? BROADCAST_MAC : undefined;
    this.#peer.sendUdp(this.server, to, 67, 68, bytes.slice(0, length), mac);
  }
}

export function addressBytes(address: number): Uint8Array {
  const bytes = new Uint8Array(4);
  putU32be(bytes, 0, address);
  return bytes;
}

/**
 * Where the headers of an IP frame lie, for those who follow connections, and what tells its connection from others. Reused; IPv4's headers lie
 * whole in a frame's first segment (core/pool.ts), and an IPv6 frame whose extension headers go on behind it is none of ours.
 */

import { type FramePool, LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import { u32be } from '../../wire/bytes.ts';
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader } from '../../wire/ethernet.ts';
import { IP_PROTOCOL_TCP, Ipv4Header } from '../../wire/ipv4.ts';
import { IP_PROTOCOL_ICMPV6, Ipv6Header } from '../../wire/ipv6.ts';
import { TCP_HEADER_BYTES, TcpHeader } from '../../wire/tcp.ts';
import { FLOW_KEY_WORDS } from './flow-table.ts';

const ADDRESS_WORDS = 4;
const PORTS = 2 * ADDRESS_WORDS;
const PROTOCOL = PORTS + 1;
/** In a key's protocol word. */
const IS_IPV6 = 0x200;

/** Of ICMPv6, what a host says for the link's sake: multicast listeners (130 to 132, 143), neighbours and routers (133 to 137). */
const LINK_FIRST = 130;
const LINK_LAST = 137;
const LINK_LISTENER_V2 = 143;

export class IpPacket {
  readonly tcp = new TcpHeader();
  /** Offsets are of the pool's bytes; the frame's first one lies here. */
  start = 0;
  isTcp = false;
  protocol = 0;
  payload = 0;
  payloadEnd = 0;
  /** What `flow` and `flowBack` fill in. */
  readonly key = new Int32Array(FLOW_KEY_WORDS);
  readonly #ipv6: boolean;
  readonly #ethernet = new EthernetHeader();
  readonly #v4 = new Ipv4Header();
  readonly #v6 = new Ipv6Header();
  #bytes: Uint8Array = new Uint8Array(0);
  #is6 = false;

  /** Without `ipv6` IPv6 is what it does not know, as for QEMU. */
  constructor(ipv6: boolean) {
    this.#ipv6 = ipv6;
  }

  /** False for what is no IP, or lies about a length. `isTcp` is false for a fragment. */
  parse(pool: FramePool, frame: number): boolean {
    const bytes = pool.bytes;
    const start = pool.table[frame + OFFSET]!;
    const end = start + pool.table[frame + TOTAL]!;
    this.#bytes = bytes;
    this.start = start;
    this.isTcp = false;
    const ethernet = this.#ethernet;
    if (!ethernet.parse(bytes, start, end)) return false;
    if (ethernet.etherType === ETHERTYPE_IPV4) return this.#parse4(ethernet.payload, end);
    if (ethernet.etherType !== ETHERTYPE_IPV6 || !this.#ipv6) return false;
    return this.#parse6(ethernet.payload, end, start + pool.table[frame + LENGTH]!);
  }

  #parse4(at: number, end: number): boolean {
    const ip = this.#v4;
    if (!ip.parse(this.#bytes, at, end)) return false;
    this.#is6 = false;
    this.#found(ip.protocol, ip.payload, ip.payloadEnd, ip.isFragment);
    return true;
  }

  #parse6(at: number, end: number, firstEnd: number): boolean {
    const ip = this.#v6;
    if (!ip.parse(this.#bytes, at, end)) return false;
    const bytesWanted = ip.protocol === IP_PROTOCOL_TCP ? TCP_HEADER_BYTES : 0;
    if (ip.payload + bytesWanted > firstEnd) return false;
    this.#is6 = true;
    this.#found(ip.protocol, ip.payload, ip.payloadEnd, ip.isFragment);
    // Options behind the header's fixed part.
    if (this.isTcp && this.tcp.payload > firstEnd) this.isTcp = false;
    return ip.protocol !== IP_PROTOCOL_ICMPV6 || ip.isFragment || !this.#isForTheLink();
  }

  #found(protocol: number, payload: number, payloadEnd: number, isFragment: boolean): void {
    this.protocol = protocol;
    this.payload = payload;
    this.payloadEnd = payloadEnd;
    this.isTcp =
      protocol === IP_PROTOCOL_TCP && !isFragment && this.tcp.parse(this.#bytes, payload, payloadEnd);
  }

  /** Each guest does this in its own time and order, as it does ARP: nothing to compare. */
  #isForTheLink(): boolean {
    if (this.payload >= this.payloadEnd) return false;
    const type = this.#bytes[this.payload]!;
    return (type >= LINK_FIRST && type <= LINK_LAST) || type === LINK_LISTENER_V2;
  }

  /** The connection as the sender sees it, in `key`. `protocol` may say more than the packet's own. */
  flow(protocol: number, withPorts: boolean): Int32Array {
    return this.#fill(
      protocol,
      withPorts ? this.tcp.srcPort : 0,
      withPorts ? this.tcp.dstPort : 0,
      0,
      ADDRESS_WORDS,
    );
  }

  /** The same as the receiver sees it. */
  flowBack(protocol: number, withPorts: boolean): Int32Array {
    return this.#fill(
      protocol,
      withPorts ? this.tcp.dstPort : 0,
      withPorts ? this.tcp.srcPort : 0,
      ADDRESS_WORDS,
      0,
    );
  }

  #fill(protocol: number, nearPort: number, farPort: number, srcAt: number, dstAt: number): Int32Array {
    const { key } = this;
    key.fill(0);
    if (this.#is6) {
      for (let i = 0; i < ADDRESS_WORDS; i++) {
        key[srcAt + i] = u32be(this.#bytes, this.#v6.src + 4 * i);
        key[dstAt + i] = u32be(this.#bytes, this.#v6.dst + 4 * i);
      }
    } else {
      key[srcAt] = this.#v4.src;
      key[dstAt] = this.#v4.dst;
    }
    key[PORTS] = (nearPort << 16) | farPort;
    key[PROTOCOL] = this.#is6 ? protocol | IS_IPV6 : protocol;
    return key;
  }
}

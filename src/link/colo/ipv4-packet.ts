/** Where the headers of an IPv4 frame lie, for those who follow connections. Reused; headers lie whole in a frame's first segment (core/pool.ts). */

import { type FramePool, OFFSET, TOTAL } from '../../core/pool.ts';
import { ETHERTYPE_IPV4, EthernetHeader } from '../../wire/ethernet.ts';
import { IP_PROTOCOL_TCP, Ipv4Header } from '../../wire/ipv4.ts';
import { TcpHeader } from '../../wire/tcp.ts';

export class Ipv4Packet {
  readonly ip = new Ipv4Header();
  readonly tcp = new TcpHeader();
  /** Offsets in `ip` and `tcp` are of the pool's bytes; the frame's first one lies here. */
  start = 0;
  isTcp = false;
  readonly #ethernet = new EthernetHeader();

  /** False for what is not IPv4, or lies about a length. `isTcp` is false for a fragment. */
  parse(pool: FramePool, frame: number): boolean {
    const bytes = pool.bytes;
    const start = pool.table[frame + OFFSET]!;
    const end = start + pool.table[frame + TOTAL]!;
    this.start = start;
    this.isTcp = false;
    if (!this.#ethernet.parse(bytes, start, end) || this.#ethernet.etherType !== ETHERTYPE_IPV4) return false;
    const { ip } = this;
    if (!ip.parse(bytes, this.#ethernet.payload, end)) return false;
    this.isTcp =
      ip.protocol === IP_PROTOCOL_TCP && !ip.isFragment && this.tcp.parse(bytes, ip.payload, ip.payloadEnd);
    return true;
  }
}

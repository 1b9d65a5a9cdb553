/**
 * The header in front of a packet to send (section 5.1.6), copied out of guest memory and believed only as far as it was negotiated and the packet bears it out: what it
 * says become the offload facts of the frame.
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  GSO_UDP_L4,
  HEADER_LENGTH,
} from '../../core/pool.ts';
import {
  ACCEPT_CSUM,
  ACCEPT_ECN,
  ACCEPT_TSO4,
  ACCEPT_TSO6,
  ACCEPT_UFO,
  ACCEPT_USO,
} from '../../core/port.ts';
import { VirtioNetHdr, VNET_HDR_F_NEEDS_CSUM, VNET_HDR_GSO_ECN } from '../../wire/virtio-net-hdr.ts';
import type { NetContext } from './net.ts';

const HEADER_MAX_BYTES = 24;

export class TxHeader {
  readonly #net: NetContext;
  readonly #fields = new VirtioNetHdr();
  /** Where the caller puts a header that it copies out of guest memory. */
  readonly bytes = new Uint8Array(HEADER_MAX_BYTES);

  constructor(net: NetContext) {
    this.#net = net;
  }

  /** Reads a header of the negotiated length at `source[at]`. */
  parse(source: Uint8Array, at: number): void {
    const { headerBytes } = this.#net;
    this.#fields.parse(source, at, at + headerBytes, headerBytes);
  }

  /** The facts of a packet of `bytes` with this header; -1 when they cannot be. */
  factsFor(bytes: number): number {
    const fields = this.#fields;
    const can = this.#net.hostOffloads;
    // What was not negotiated is not used (section 5.1.6.2): such a flag means nothing.
    if ((can & ACCEPT_CSUM) === 0) fields.flags &= ~VNET_HDR_F_NEEDS_CSUM;
    if (!fields.settle(bytes)) return -1;
    const facts = (fields.flags & VNET_HDR_F_NEEDS_CSUM) !== 0 ? FACT_NEEDS_CSUM : 0;
    if (fields.gsoType === 0) return facts;
    return (this.#needed() & ~can) !== 0 ? -1 : facts | (fields.gsoType << 8);
  }

  /** ACCEPT_* that the segmentation it asks for takes. */
  #needed(): number {
    const { gsoType } = this.#fields;
    const ecn = (gsoType & VNET_HDR_GSO_ECN) !== 0 ? ACCEPT_ECN : 0;
    switch (gsoType & ~VNET_HDR_GSO_ECN) {
      case GSO_TCPV4:
        return ecn | ACCEPT_TSO4;
      case GSO_TCPV6:
        return ecn | ACCEPT_TSO6;
      case GSO_UDP:
        return ecn | ACCEPT_UFO;
      case GSO_UDP_L4:
        return ecn | ACCEPT_USO;
      default:
        return ecn;
    }
  }

  /** First byte of the packet behind the checksum that `facts` ask for; 0: they ask for none. */
  checksumEnd(facts: number): number {
    const { csumStart, csumOffset } = this.#fields;
    return (facts & FACT_NEEDS_CSUM) !== 0 ? csumStart + csumOffset + 2 : 0;
  }

  /** Gives a frame what `factsFor` found. */
  apply(frame: number, facts: number): void {
    const fields = this.#fields;
    const t = this.#net.pool.table;
    t[frame + FACTS] = facts;
    t[frame + GSO_SIZE] = fields.gsoSize;
    t[frame + HEADER_LENGTH] = fields.hdrLen;
    t[frame + CSUM_START] = fields.csumStart;
    t[frame + CSUM_OFFSET] = fields.csumOffset;
    if (facts > 0xff) this.#net.stats.txSegmentations++;
  }
}

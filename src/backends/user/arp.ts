/** ARP (RFC 826) for the gateway and the other addresses that answer here. The MAC is one for all; a probe or announcement only teaches. */

import { OFFSET } from '../../core/pool.ts';
import { ARP_BYTES, ARP_OP_REPLY, ARP_OP_REQUEST, ArpPacket, writeArp } from '../../wire/arp.ts';
import { formatIpv4 } from '../../wire/bytes.ts';
import {
  ETH_HEADER_BYTES,
  ETHERTYPE_ARP,
  equalMac,
  isGroupMac,
  isZeroMac,
  writeEthernet,
} from '../../wire/ethernet.ts';
import type { Site } from './site.ts';

const BROADCAST = Uint8Array.of(255, 255, 255, 255, 255, 255);
const NOBODY = new Uint8Array(6);

export class Arp {
  readonly #site: Site;
  readonly #packet = new ArpPacket();
  /** Whether an address of the network is answered for. */
  readonly #serves: (address: number) => boolean;

  constructor(site: Site, serves: (address: number) => boolean) {
    this.#site = site;
    this.#serves = serves;
  }

  /** The packet in region 0 at [at, end), of a frame that starts at `start`. */
  input(start: number, at: number, end: number): void {
    const site = this.#site;
    const bytes = site.pool.bytes;
    const packet = this.#packet;
    if (!packet.parse(bytes, at, end)) {
      site.stats.arpDropMalformed++;
      return;
    }
    const mac = packet.senderMac;
    if (isGroupMac(bytes, mac) || isZeroMac(bytes, mac) || !equalMac(bytes, mac, bytes, start + 6)) {
      site.stats.arpDropMalformed++;
      return;
    }
    // A sender of 0.0.0.0 probes (RFC 5227) and tells nothing about itself; nobody takes over an address that is ours.
    if (packet.senderIp !== 0 && !this.#serves(packet.senderIp)) {
      site.neighbours.learn(formatIpv4(packet.senderIp), bytes, mac);
    }
    if (packet.operation !== ARP_OP_REQUEST || !this.#serves(packet.targetIp)) return;
    site.stats.arpRequests++;
    this.#send(ARP_OP_REPLY, packet.targetIp, bytes, mac, bytes, mac, packet.senderIp);
  }

  /** Asks who has `address`. */
  ask(address: number): void {
    const gateway = this.#site.config.ipv4;
    if (gateway !== undefined)
      this.#send(ARP_OP_REQUEST, gateway.host.value, BROADCAST, 0, NOBODY, 0, address);
  }

  #send(
    operation: number,
    senderIp: number,
    dst: Uint8Array,
    dstAt: number,
    targetMac: Uint8Array,
    targetMacAt: number,
    targetIp: number,
  ): void {
    const { pool, mac, outbox, stats } = this.#site;
    if (outbox.room() <= 0) {
      stats.rxDropQueueFull++;
      return;
    }
    const frame = pool.alloc(ETH_HEADER_BYTES + ARP_BYTES);
    if (frame === 0) {
      stats.rxDropNoSlot++;
      return;
    }
    const at = pool.table[frame + OFFSET];
    writeEthernet(pool.bytes, at, dst, dstAt, mac, 0, ETHERTYPE_ARP);
    writeArp(
      pool.bytes,
      at + ETH_HEADER_BYTES,
      operation,
      mac,
      0,
      senderIp,
      targetMac,
      targetMacAt,
      targetIp,
    );
    pool.setLength(frame, ETH_HEADER_BYTES + ARP_BYTES);
    outbox.push(frame);
  }
}

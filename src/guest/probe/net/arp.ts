/**
 * ARP (RFC 826) with the neighbour cache of IPv4, and the packets that probe for and announce an address (RFC 5227). Requests for our address
 * are answered; who asks is remembered; what others tell each other updates entries that exist and makes none.
 */

import { ARP_BYTES, ARP_OP_REPLY, ARP_OP_REQUEST, ArpPacket, writeArp } from '../../../wire/arp.ts';
import { copyBytes, equalBytes, putU32be, u32be } from '../../../wire/bytes.ts';
import { ETH_HEADER_BYTES, ETHERTYPE_ARP, isGroupMac, isZeroMac } from '../../../wire/ethernet.ts';
import { isMulticastIpv4 } from '../../../wire/ipv4.ts';
import type { Interface } from './interface.ts';
import { type Neighbour, type NeighbourOwner, Neighbours } from './neighbours.ts';

const BROADCAST_MAC = Uint8Array.of(255, 255, 255, 255, 255, 255);
const ZERO_MAC = new Uint8Array(6);

export interface ArpHooks {
  /** A MAC that was asked for is known now. */
  resolved(entry: Neighbour): void;
  /** Nobody answers for the address. */
  unresolved(remote: Uint8Array): void;
}

export class Arp implements NeighbourOwner {
  readonly neighbours: Neighbours;
  /** Called for every packet of others, before it is dealt with: conflict detection. */
  onPacket: ((arp: ArpPacket) => void) | null = null;

  readonly #interface: Interface;
  readonly #hooks: ArpHooks;
  readonly #arp = new ArpPacket();
  readonly #sender = new Uint8Array(4);
  #address = 0;

  constructor(iface: Interface, hooks: ArpHooks) {
    this.#interface = iface;
    this.#hooks = hooks;
    this.neighbours = new Neighbours(iface.loop, 4, this);
  }

  /** Our address changed (0: none); what was known of others is void. */
  configure(address: number): void {
    this.#address = address;
    this.neighbours.clear();
  }

  solicit(entry: Neighbour): void {
    this.#send(
      ARP_OP_REQUEST,
      this.#address,
      entry.known ? entry.mac : BROADCAST_MAC,
      ZERO_MAC,
      u32be(entry.address, 0),
    );
  }

  release(entry: Neighbour, frame: Uint8Array): void {
    const iface = this.#interface;
    const at = iface.begin();
    if (at < 0) return;
    iface.memory.set(frame, at);
    copyBytes(iface.memory, at, entry.mac, 0, 6);
    iface.sendFrame(at, frame.length);
  }

  resolved(entry: Neighbour): void {
    this.#hooks.resolved(entry);
  }

  unresolved(entry: Neighbour, held: number): void {
    this.#interface.stats.txDropUnresolved += held;
    if (!entry.known || entry.tries > 0) this.#hooks.unresolved(entry.address);
  }

  #send(operation: number, sender: number, to: Uint8Array, targetMac: Uint8Array, target: number): void {
    const iface = this.#interface;
    const frame = iface.begin();
    if (frame < 0) return;
    writeArp(iface.memory, frame + ETH_HEADER_BYTES, operation, iface.mac, 0, sender, targetMac, 0, target);
    iface.send(frame, to, 0, ETHERTYPE_ARP, ARP_BYTES);
  }

  /** Asks who has `address` without telling ours (RFC 5227 section 2.1.1). */
  probe(address: number): void {
    this.#send(ARP_OP_REQUEST, 0, BROADCAST_MAC, ZERO_MAC, address);
  }

  /** Tells everybody that `address` is ours (RFC 5227 section 2.3). */
  announce(address: number): void {
    this.#send(ARP_OP_REQUEST, address, BROADCAST_MAC, ZERO_MAC, address);
  }

  receive(bytes: Uint8Array, offset: number, end: number): void {
    const arp = this.#arp;
    const stats = this.#interface.stats;
    if (
      !arp.parse(bytes, offset, end) ||
      isGroupMac(bytes, arp.senderMac) ||
      isZeroMac(bytes, arp.senderMac)
    ) {
      stats.rxDropMalformed++;
      return;
    }
    if (equalBytes(bytes, arp.senderMac, this.#interface.mac, 0, 6)) {
      stats.rxDropUnexpected++;
      return;
    }
    this.onPacket?.(arp);
    if (this.#address === 0 || arp.senderIp === this.#address) return;
    const forUs = arp.targetIp === this.#address;
    if (arp.senderIp !== 0 && arp.senderIp !== 0xffffffff && !isMulticastIpv4(arp.senderIp)) {
      putU32be(this.#sender, 0, arp.senderIp);
      // RFC 826: merge what is known already, add only when the packet is for us.
      this.neighbours.learn(this.#sender, 0, bytes, arp.senderMac, forUs && arp.operation === ARP_OP_REQUEST);
    }
    if (!forUs || arp.operation !== ARP_OP_REQUEST) return;
    const frame = this.#interface.begin();
    if (frame < 0) return;
    const memory = this.#interface.memory;
    const mac = this.#interface.mac;
    writeArp(
      memory,
      frame + ETH_HEADER_BYTES,
      ARP_OP_REPLY,
      mac,
      0,
      this.#address,
      bytes,
      arp.senderMac,
      arp.senderIp,
    );
    this.#interface.send(frame, bytes, arp.senderMac, ETHERTYPE_ARP, ARP_BYTES);
  }

  close(): void {
    this.neighbours.close();
  }
}

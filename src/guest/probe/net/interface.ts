/**
 * The host's Ethernet interface: frames out, with the doorbell rung once for all that one turn sends. During a receive batch that is the batch's
 * end; outside of one a posted task does it. Frames in are dispatched by host.ts.
 */

import type { Loop } from '../../../core/loop.ts';
import { ETH_HEADER_BYTES, ETH_MIN_FRAME_BYTES, writeEthernet } from '../../../wire/ethernet.ts';
import type { EthernetLink } from './link.ts';
import type { HostStats } from './stats.ts';

/** What fits an ordinary Ethernet frame; a larger MTU that somebody tells is not used. */
const IP_MTU_MAX_BYTES = 1500;

export class Interface {
  readonly link: EthernetLink;
  readonly loop: Loop;
  readonly stats: HostStats;
  /** Bytes of an IP packet; see `setMtu`. */
  mtuBytes = IP_MTU_MAX_BYTES;
  /** Told of a new MTU. */
  onMtu: (bytes: number) => void = () => {};

  #inBatch = false;
  #dirty = false;
  #posted = false;
  readonly #flushTask: () => void;

  constructor(link: EthernetLink, loop: Loop, stats: HostStats) {
    this.link = link;
    this.loop = loop;
    this.stats = stats;
    this.#flushTask = () => {
      this.#posted = false;
      this.flush();
    };
  }

  get mac(): Uint8Array {
    return this.link.mac;
  }

  get memory(): Uint8Array {
    return this.link.memory;
  }

  /** A DHCP server or a router told the link's MTU. */
  setMtu(bytes: number): void {
    this.mtuBytes = Math.min(bytes, IP_MTU_MAX_BYTES);
    this.onMtu(this.mtuBytes);
  }

  /** Where the next frame goes, in `memory`, `payloadBytes` behind its Ethernet header at most; -1 (counted) when there is no room. */
  begin(payloadBytes = this.mtuBytes): number {
    const offset = this.link.reserve(ETH_HEADER_BYTES + Math.max(payloadBytes, ETH_MIN_FRAME_BYTES));
    if (offset < 0) this.stats.txDropNoRoom++;
    return offset;
  }

  /** Sends the begun frame, whose `payloadBytes` lie behind the Ethernet header: writes that header and pads with zeros. */
  send(offset: number, mac: Uint8Array, macOffset: number, etherType: number, payloadBytes: number): void {
    writeEthernet(this.link.memory, offset, mac, macOffset, this.link.mac, 0, etherType);
    this.sendFrame(offset, ETH_HEADER_BYTES + payloadBytes);
  }

  /** Sends the begun frame, whose Ethernet header is in place. */
  sendFrame(offset: number, length: number): void {
    const stats = this.stats;
    if (!this.link.up) {
      stats.txDropLinkDown++;
      return;
    }
    let total = length;
    if (total < ETH_MIN_FRAME_BYTES) {
      this.link.memory.fill(0, offset + total, offset + ETH_MIN_FRAME_BYTES);
      total = ETH_MIN_FRAME_BYTES;
    }
    stats.txFrames++;
    stats.txBytes += total;
    this.link.send(total);
    this.dirty();
  }

  /** Something was sent that `flush` must show the device. */
  dirty(): void {
    this.#dirty = true;
    if (this.#inBatch || this.#posted) return;
    this.#posted = true;
    this.loop.post(this.#flushTask);
  }

  /** Frames sent from now on are flushed by `endOfBatch`. */
  startOfBatch(): void {
    this.#inBatch = true;
  }

  endOfBatch(): void {
    this.#inBatch = false;
    this.flush();
  }

  flush(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    this.link.flush();
  }
}

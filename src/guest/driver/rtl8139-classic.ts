/**
 * The classic half of the rtl8139 driver: four transmit buffers, to which packets are copied (the chip wants them at a multiple of four), and one
 * receive buffer of 32 KiB with room behind it, so that each packet lies in one piece (RCR.WRAP). CAPR moves packet by packet; CR.BUFE
 * says that there is no more.
 */

import type { DriverCapabilities, DriverListener, DriverOptions, PacketBatch } from './driver.ts';
import type { GuestRam } from './guest-ram.ts';
import { PacketBytes, type Registers, type Rtl8139Path } from './rtl8139-path.ts';

const TSD = 0x10;
const TSAD = 0x20;
const RBSTART = 0x30;
const CR = 0x37;
const CAPR = 0x38;
const CR_BUFE = 1;
const TSD_OWN = 1 << 13;
const TSD_THRESHOLD = 8 << 16;
const RCR_WRAP = 1 << 7;
const RCR_32K = 2 << 11;

const DESCRIPTORS = 4;
const TX_BUFFER_BYTES = 1536;
const FRAME_MIN_BYTES = 60;
const RX_BYTES = 32_768;
const RX_SPILL_BYTES = 2048;
const RX_HEADER_BYTES = 4;
const RX_STATUS_OK = 1;
const FCS_BYTES = 4;
const CAPR_OFFSET = 16;
/** Packets of one look, as many as the buffer holds. */
const PACKETS_MAX = RX_BYTES / 64;

export class Rtl8139Classic implements Rtl8139Path {
  readonly capabilities: DriverCapabilities = {
    checksum: false,
    segmentTcp4: false,
    segmentTcp6: false,
    vlan: false,
  };
  readonly receiveConfiguration = RCR_WRAP | RCR_32K;
  readonly #registers: Registers;
  readonly #ram: GuestRam;
  readonly #packets: PacketBytes;
  #txBuffers = 0;
  #rxBuffer = 0;
  #txNext = 0;
  #txClean = 0;
  #txUsed = 0;
  #rxAt = 0;

  constructor(registers: Registers, options: DriverOptions) {
    this.#registers = registers;
    this.#ram = options.ram;
    this.#packets = new PacketBytes(options);
  }

  get room(): number {
    return DESCRIPTORS - this.#txUsed;
  }

  layOut(): void {
    this.#txBuffers = this.#ram.allocate(DESCRIPTORS * TX_BUFFER_BYTES, 64);
    this.#rxBuffer = this.#ram.allocate(RX_BYTES + RX_SPILL_BYTES, 64);
    this.#txNext = 0;
    this.#txClean = 0;
    this.#txUsed = 0;
    this.#rxAt = 0;
    this.#registers.put32(RBSTART, this.#rxBuffer);
  }

  start(): void {
    for (let i = 0; i < DESCRIPTORS; i++)
      this.#registers.put32(TSAD + 4 * i, this.#txBuffers + i * TX_BUFFER_BYTES);
  }

  send(batch: PacketBatch, from: number, to: number): number {
    const { bytes } = this.#ram;
    let i = from;
    for (; i < to && this.#txUsed < DESCRIPTORS; i++) {
      const at = this.#packets.find(batch.address[i]);
      const length = Math.min(batch.length[i], TX_BUFFER_BYTES);
      const buffer = this.#ram.offset(this.#txBuffers + this.#txNext * TX_BUFFER_BYTES);
      bytes.set(this.#packets.bytes.subarray(at, at + length), buffer);
      // This chip does not pad.
      const sent = Math.max(length, FRAME_MIN_BYTES);
      bytes.fill(0, buffer + length, buffer + sent);
      const register = TSD + 4 * this.#txNext;
      this.#txNext = (this.#txNext + 1) % DESCRIPTORS;
      this.#txUsed++;
      this.#registers.put32(register, TSD_THRESHOLD | sent);
    }
    return i - from;
  }

  reap(): number {
    let packets = 0;
    while (packets < this.#txUsed && (this.#registers.get32(TSD + 4 * this.#txClean) & TSD_OWN) !== 0) {
      this.#txClean = (this.#txClean + 1) % DESCRIPTORS;
      packets++;
    }
    this.#txUsed -= packets;
    return packets;
  }

  receive(listener: DriverListener, open: () => boolean): boolean {
    const { bytes } = this.#ram;
    let seen = 0;
    while (seen < PACKETS_MAX && (this.#registers.get8(CR) & CR_BUFE) === 0) {
      const at = this.#ram.offset(this.#rxBuffer) + this.#rxAt;
      const status = bytes[at] | (bytes[at + 1] << 8);
      const stored = bytes[at + 2] | (bytes[at + 3] << 8);
      if ((status & RX_STATUS_OK) !== 0 && stored > FCS_BYTES) {
        listener.received(this.#rxBuffer + this.#rxAt + RX_HEADER_BYTES, stored - FCS_BYTES, 0, 0);
        if (!open()) return true;
      }
      this.#rxAt = (this.#rxAt + RX_HEADER_BYTES + stored + 3) & ~3 & (RX_BYTES - 1);
      this.#registers.put16(CAPR, (this.#rxAt - CAPR_OFFSET) & 0xffff);
      seen++;
    }
    return seen > 0;
  }
}

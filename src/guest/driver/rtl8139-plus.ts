/**
 * The C+ half of the rtl8139 driver: a transmit and a receive ring of at most 64 descriptors.
 *
 * Transmit: one descriptor for a packet; OWN is set last, and TPPoll tells the chip. The chip sums and segments IPv4 only, so checksums
 * of IPv6 packets are summed here. Completion is read from OWN, in ring order. Receive: each buffer holds a whole frame with its FCS, is shown to
 * the listener and given back at once.
 */

import { finishChecksum, sumBytes } from '../../wire/checksum.ts';
import type { DriverCapabilities, DriverListener, DriverOptions, PacketBatch } from './driver.ts';
import { RX_CSUM_BAD, RX_CSUM_OK, RX_VLAN, SEGMENT_NONE } from './driver.ts';
import type { GuestRam } from './guest-ram.ts';
import { PacketBytes, type Registers, type Rtl8139Path } from './rtl8139-path.ts';

const TNPDS = 0x20;
const THPDS = 0x28;
const TPPOLL = 0xd9;
const CPCR = 0xe0;
const RDSAR = 0xe4;
const ETTHR = 0xec;
const TPPOLL_NPQ = 0x40;
const CPCR_TX_RX = 3;
const CPCR_MULRW = 1 << 3;
const CPCR_DAC = 1 << 4;
const CPCR_RX_CHECKSUM = 1 << 5;
const CPCR_RX_VLAN = 1 << 6;

const OWN = 1 << 31;
const EOR = 1 << 30;
const FS_LS = 3 << 28;
const TX_LGSEN = 1 << 27;
const TX_MSS_SHIFT = 16;
const TX_IPCS = 1 << 18;
const TX_UDPCS = 1 << 17;
const TX_TCPCS = 1 << 16;
const TX_TAGC = 1 << 17;
const RX_ERROR = 1 << 20;
const RX_PID = 3 << 16;
const RX_PID_TCP = 1 << 16;
const RX_PID_UDP = 2 << 16;
const RX_FAILURES = 7 << 13;
const RX_LENGTH = 0x1fff;
const RX_TAVA = 1 << 16;

const DESCRIPTOR_BYTES = 16;
const RING_ALIGN = 256;
const RING_MAX = 64;
const FCS_BYTES = 4;
const HEADER_BYTES = 18;
const BUFFER_BYTES = 2048;
const LARGE_BUFFER_BYTES = 4608;
const TCP_CHECKSUM_OFFSET = 16;
const IP_OFFSET = 14;
/** MSS has 11 bits. */
const SEGMENT_MAX_BYTES = 2047;

export class Rtl8139Plus implements Rtl8139Path {
  readonly capabilities: DriverCapabilities;
  readonly receiveConfiguration = 0;
  readonly #registers: Registers;
  readonly #ram: GuestRam;
  readonly #packets: PacketBytes;
  readonly #size: number;
  readonly #bufferBytes: number;
  #txRing = 0;
  #rxRing = 0;
  #rxBuffers = 0;
  #txNext = 0;
  #txClean = 0;
  #txUsed = 0;
  #rxNext = 0;

  constructor(registers: Registers, options: DriverOptions) {
    this.#registers = registers;
    this.#ram = options.ram;
    this.#packets = new PacketBytes(options);
    this.#size = Math.min(options.ringSize ?? RING_MAX, RING_MAX);
    const frameBytes = (options.ipMtuBytes ?? 1500) + HEADER_BYTES + FCS_BYTES;
    this.#bufferBytes = frameBytes <= BUFFER_BYTES ? BUFFER_BYTES : LARGE_BUFFER_BYTES;
    const offloads = options.offloads ?? true;
    this.capabilities = {
      checksum: offloads,
      segmentTcp4: offloads,
      segmentTcp6: false,
      vlan: options.vlans !== undefined,
    };
  }

  get room(): number {
    return this.#size - this.#txUsed;
  }

  layOut(): void {
    const ram = this.#ram;
    const size = this.#size;
    this.#txRing = ram.allocate(size * DESCRIPTOR_BYTES, RING_ALIGN);
    this.#rxRing = ram.allocate(size * DESCRIPTOR_BYTES, RING_ALIGN);
    this.#rxBuffers = ram.allocate(size * this.#bufferBytes, 64);
    for (let i = 0; i < size; i++) this.#postBuffer(i);
    this.#txNext = 0;
    this.#txClean = 0;
    this.#txUsed = 0;
    this.#rxNext = 0;
    let mode = CPCR_TX_RX | CPCR_MULRW | CPCR_DAC;
    if (this.capabilities.checksum) mode |= CPCR_RX_CHECKSUM;
    if (this.capabilities.vlan) mode |= CPCR_RX_VLAN;
    this.#registers.put16(CPCR, mode);
  }

  start(): void {
    const r = this.#registers;
    for (const [register, ring] of [
      [TNPDS, this.#txRing],
      [THPDS, 0],
      [RDSAR, this.#rxRing],
    ]) {
      r.put32(register, ring % 2 ** 32);
      r.put32(register + 4, Math.floor(ring / 2 ** 32));
    }
    r.put8(ETTHR, 6);
  }

  #end(index: number): number {
    return index === this.#size - 1 ? EOR : 0;
  }

  #postBuffer(index: number): void {
    const at = this.#ram.offset(this.#rxRing + index * DESCRIPTOR_BYTES) >> 2;
    const address = this.#rxBuffers + index * this.#bufferBytes;
    const words = this.#ram.words;
    words[at + 1] = 0;
    words[at + 2] = address;
    words[at + 3] = address / 4294967296;
    words[at] = OWN | this.#end(index) | this.#bufferBytes;
  }

  send(batch: PacketBatch, from: number, to: number): number {
    const { words } = this.#ram;
    const ring = this.#ram.offset(this.#txRing) >> 2;
    const size = this.#size;
    let next = this.#txNext;
    let room = size - this.#txUsed;
    let i = from;
    for (; i < to && room > 0; i++, room--) {
      let command = OWN | FS_LS | (next === size - 1 ? EOR : 0) | (batch.length[i] & 0xffff);
      if (batch.csumStart[i] !== 0) command |= this.#offload(batch, i);
      const tci = batch.vlanTci[i];
      const address = batch.address[i];
      const at = ring + 4 * next;
      // Tags lie high byte first.
      words[at + 1] = tci < 0 ? 0 : TX_TAGC | (tci >>> 8) | ((tci & 0xff) << 8);
      words[at + 2] = address;
      words[at + 3] = address / 4294967296;
      words[at] = command;
      next = next + 1 === size ? 0 : next + 1;
    }
    if (i > from) {
      this.#txNext = next;
      this.#txUsed = size - room;
      this.#registers.put8(TPPOLL, TPPOLL_NPQ);
    }
    return i - from;
  }

  /** The command bits of what the chip is to do with packet `i`; what it cannot do is done here. */
  #offload(batch: PacketBatch, i: number): number {
    const packet = this.#packets.find(batch.address[i]);
    const { bytes } = this.#packets;
    const segmentBytes = batch.segmentBytes[i];
    if (batch.segment[i] !== SEGMENT_NONE)
      return TX_LGSEN | (Math.min(segmentBytes, SEGMENT_MAX_BYTES) << TX_MSS_SHIFT);
    const tcp = batch.csumOffset[i] === TCP_CHECKSUM_OFFSET;
    if (bytes[packet + IP_OFFSET] >>> 4 === 4 && bytes[packet + IP_OFFSET - 2] === 8)
      return TX_IPCS | (tcp ? TX_TCPCS : TX_UDPCS);
    const start = batch.csumStart[i];
    const sum = finishChecksum(sumBytes(bytes, packet + start, batch.length[i] - start));
    const at = packet + start + batch.csumOffset[i];
    const checksum = sum === 0 ? 0xffff : sum;
    bytes[at] = checksum >>> 8;
    bytes[at + 1] = checksum;
    return 0;
  }

  reap(): number {
    const { words } = this.#ram;
    const ring = this.#ram.offset(this.#txRing) >> 2;
    const size = this.#size;
    let clean = this.#txClean;
    let packets = 0;
    while (packets < this.#txUsed && words[ring + 4 * clean] >= 0) {
      clean = clean + 1 === size ? 0 : clean + 1;
      packets++;
    }
    this.#txClean = clean;
    this.#txUsed -= packets;
    return packets;
  }

  receive(listener: DriverListener, open: () => boolean): boolean {
    const { words } = this.#ram;
    const ring = this.#ram.offset(this.#rxRing) >> 2;
    const size = this.#size;
    let next = this.#rxNext;
    let seen = 0;
    // One lap at most: what comes meanwhile raises its own interrupt.
    while (seen < size) {
      const at = ring + 4 * next;
      const status = words[at];
      if (status < 0) break;
      // All of a frame is in one buffer: anything else is dropped.
      if ((status & FS_LS) === FS_LS && (status & RX_ERROR) === 0) {
        const tag = words[at + 1];
        let flags = 0;
        if ((status & RX_FAILURES) !== 0) flags |= RX_CSUM_BAD;
        else if ((status & RX_PID) === RX_PID_TCP || (status & RX_PID) === RX_PID_UDP) flags |= RX_CSUM_OK;
        let tci = 0;
        if ((tag & RX_TAVA) !== 0) {
          flags |= RX_VLAN;
          tci = ((tag & 0xff) << 8) | ((tag >>> 8) & 0xff);
        }
        const length = (status & RX_LENGTH) - FCS_BYTES;
        listener.received(this.#rxBuffers + next * this.#bufferBytes, length, flags, tci);
        if (!open()) return true;
      }
      this.#postBuffer(next);
      next = next + 1 === size ? 0 : next + 1;
      seen++;
    }
    this.#rxNext = next;
    return seen > 0;
  }
}

/**
 * The host's link over a driver half: places for frames in the guest's own packet buffers, a queue of what was sent and not yet shown to the
 * NIC, and the buffers the NIC still reads.
 *
 *     send ─▶ batch[from..to) ──flush──▶ driver.send (one doorbell) ──▶ NIC ──sent(n)──▶ back to the pool
 *
 * The queue is the driver's PacketBatch itself. It is full when the ring is full and a batch waits behind it; then `reserve` has no place.
 */

import { ByteMemory } from '../../core/copy.ts';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  type FramePool,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_TCPV6,
  HEADER_LENGTH,
  NEXT,
  OFFSET,
  TOTAL,
} from '../../core/pool.ts';
import { ACCEPT_CSUM, ACCEPT_TSO4, ACCEPT_TSO6 } from '../../core/port.ts';
import { putU16be, u16be } from '../../wire/bytes.ts';
import { foldSum } from '../../wire/checksum.ts';
import { ETH_MIN_FRAME_BYTES } from '../../wire/ethernet.ts';
import {
  type DriverListener,
  type NicDriver,
  PacketBatch,
  RX_CSUM_BAD,
  RX_CSUM_OK,
  SEGMENT_TCP4,
  SEGMENT_TCP6,
} from '../driver/driver.ts';
import type { GuestRam } from '../driver/guest-ram.ts';
import { type EthernetLink, type LinkReceiver, RX_CSUM_VALID } from './net/link.ts';

const BATCH = 256;
/** Frames queued here or with the NIC, a power of two. */
const HELD_MAX = 2048;

const NOBODY: LinkReceiver = { receive() {}, endOfBatch() {}, linkChanged() {}, room() {} };

/** Counted here because only the link sees it. */
export class DriverLinkStats {
  /** No buffer or no place in the queue. */
  txNoRoom = 0;
  /** A frame whose facts the device cannot serve, or in pieces. */
  txDropUnsuitable = 0;
  /** The NIC says that a checksum is wrong. */
  rxDropChecksum = 0;
}

export class DriverLink implements EthernetLink, DriverListener {
  readonly pool: FramePool;
  readonly memory: Uint8Array;
  readonly stats = new DriverLinkStats();
  readonly speedText: string;
  receiver: LinkReceiver = NOBODY;

  readonly #driver: NicDriver;
  readonly #ram: GuestRam;
  /** Guest address of the pool's region 0. */
  readonly #poolAddress: number;
  /** The driver's receive buffers lie in here. */
  readonly #rx: ByteMemory;
  readonly #batch = new PacketBatch(BATCH);
  #from = 0;
  #to = 0;
  /** All frames that are not transmitted yet, oldest first: those the NIC has, then those of the batch. */
  readonly #held = new Int32Array(HELD_MAX);
  #heldHead = 0;
  #heldTail = 0;
  #reserved = 0;
  #up = false;
  #refused = false;
  #flushing = false;
  /** Somebody was told that there is no room. */
  #wanted = false;

  constructor(driver: NicDriver, ram: GuestRam, pool: FramePool, poolAddress: number, speedText: string) {
    this.#driver = driver;
    this.#ram = ram;
    this.#rx = new ByteMemory(ram.bytes);
    this.pool = pool;
    this.memory = pool.bytes;
    this.#poolAddress = poolAddress;
    this.speedText = speedText;
    driver.listener = this;
  }

  /** Brings the NIC up. False: the driver does not know it. */
  open(): boolean {
    if (!this.#driver.open()) return false;
    this.#up = this.#driver.linkUp;
    return true;
  }

  get mac(): Uint8Array {
    return this.#driver.mac;
  }

  get up(): boolean {
    return this.#up;
  }

  get offloads(): number {
    const can = this.#driver.capabilities;
    return (
      (can.checksum ? ACCEPT_CSUM : 0) |
      (can.segmentTcp4 ? ACCEPT_TSO4 : 0) |
      (can.segmentTcp6 ? ACCEPT_TSO6 : 0)
    );
  }

  // Sending.

  reserve(bytes: number): number {
    if (this.room <= 0) {
      this.stats.txNoRoom++;
      return -1;
    }
    const t = this.pool.table;
    if (this.#reserved === 0 || this.pool.smallBytes < bytes) {
      if (this.#reserved !== 0) this.pool.release(this.#reserved);
      this.#reserved = this.pool.alloc(bytes);
      if (this.#reserved === 0) {
        this.stats.txNoRoom++;
        return -1;
      }
    }
    return t[this.#reserved + OFFSET]!;
  }

  /** Frames that are queued and not yet transmitted. */
  get pending(): number {
    return (this.#heldTail - this.#heldHead) | 0;
  }

  get room(): number {
    if (this.#to === BATCH && !this.#refused) this.flush();
    const room = Math.min(BATCH - this.#to, HELD_MAX - this.pending);
    if (room <= 0) this.#wanted = true;
    return room;
  }

  send(length: number): void {
    const frame = this.#reserved;
    this.#reserved = 0;
    this.pool.setLength(frame, length);
    this.#batch.plain(this.#to, this.#addressOf(frame), length);
    this.#to++;
    this.#hold(frame);
  }

  #hold(frame: number): void {
    this.#held[this.#heldTail & (HELD_MAX - 1)] = frame;
    this.#heldTail = (this.#heldTail + 1) | 0;
  }

  #addressOf(frame: number): number {
    return this.#poolAddress + this.pool.table[frame + OFFSET]!;
  }

  sendFrame(frame: number): number {
    const t = this.pool.table;
    if (this.room <= 0) {
      this.stats.txNoRoom++;
      this.pool.release(frame);
      return 0;
    }
    const facts = t[frame + FACTS]!;
    const gso = (facts >> 8) & 0x7f;
    const can = this.#driver.capabilities;
    const kind = gso === GSO_TCPV4 ? SEGMENT_TCP4 : SEGMENT_TCP6;
    const fits =
      gso === 0 || (gso === GSO_TCPV4 && can.segmentTcp4) || (gso === GSO_TCPV6 && can.segmentTcp6);
    if (t[frame + NEXT] !== 0 || !fits || ((facts & FACT_NEEDS_CSUM) !== 0 && !can.checksum)) {
      this.stats.txDropUnsuitable++;
      this.pool.release(frame);
      return 0;
    }
    const start = t[frame + OFFSET]!;
    const address = this.#poolAddress + start;
    let length = t[frame + TOTAL]!;
    if (length < ETH_MIN_FRAME_BYTES) {
      // The slot has room behind the frame; its record stays as its other holder knows it.
      this.memory.fill(0, start + length, start + ETH_MIN_FRAME_BYTES);
      length = ETH_MIN_FRAME_BYTES;
    }
    const batch = this.#batch;
    const at = this.#to;
    if (gso !== 0) {
      // The device adds each segment's length itself: take the whole one's out of the pseudo-header sum.
      const field = start + t[frame + CSUM_START]! + t[frame + CSUM_OFFSET]!;
      const sum = u16be(this.memory, field) + (~(length - t[frame + CSUM_START]!) & 0xffff);
      putU16be(this.memory, field, foldSum(sum));
      batch.segmented(
        at,
        address,
        length,
        kind,
        t[frame + CSUM_START]!,
        t[frame + HEADER_LENGTH]!,
        t[frame + GSO_SIZE]!,
      );
    } else if ((facts & FACT_NEEDS_CSUM) !== 0) {
      batch.checksummed(at, address, length, t[frame + CSUM_START]!, t[frame + CSUM_OFFSET]!);
    } else {
      batch.plain(at, address, length);
    }
    this.#to++;
    this.#hold(frame);
    return length;
  }

  flush(): void {
    if (this.#from === this.#to || this.#flushing) return;
    // The driver may report packets sent meanwhile, and somebody may then send more.
    this.#flushing = true;
    this.#from += this.#driver.send(this.#batch, this.#from, this.#to);
    this.#flushing = false;
    this.#refused = this.#from < this.#to;
    if (!this.#refused) {
      this.#from = 0;
      this.#to = 0;
    }
    this.#tellRoom();
  }

  sent(count: number): void {
    for (let i = 0; i < count && this.#heldHead !== this.#heldTail; i++) this.#releaseOldest();
    this.#tellRoom();
  }

  #tellRoom(): void {
    if (!this.#wanted || this.#flushing || this.#to === BATCH || this.pending === HELD_MAX) return;
    this.#wanted = false;
    this.receiver.room();
  }

  #releaseOldest(): void {
    this.pool.release(this.#held[this.#heldHead & (HELD_MAX - 1)]);
    this.#heldHead = (this.#heldHead + 1) | 0;
  }

  sendReady(): void {
    this.#refused = false;
    this.flush();
    this.#tellRoom();
  }

  // Receiving.

  received(address: number, length: number, flags: number): void {
    if ((flags & RX_CSUM_BAD) !== 0) {
      this.stats.rxDropChecksum++;
      return;
    }
    this.receiver.receive(
      this.#rx,
      this.#ram.offset(address),
      length,
      (flags & RX_CSUM_OK) !== 0 ? RX_CSUM_VALID : 0,
    );
  }

  receivedAll(): void {
    this.receiver.endOfBatch();
  }

  linkChanged(up: boolean): void {
    if (this.#up === up) return;
    this.#up = up;
    this.receiver.linkChanged(up);
  }

  close(): void {
    this.#driver.close();
    if (this.#reserved !== 0) this.pool.release(this.#reserved);
    this.#reserved = 0;
    // What the NIC had and will never report, and what it never saw.
    while (this.#heldHead !== this.#heldTail) this.#releaseOldest();
    this.#from = 0;
    this.#to = 0;
  }
}

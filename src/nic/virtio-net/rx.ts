/**
 * A receive queue: frames from the port become used chains of the ring, one copy each.
 *
 * Chains are fetched ahead, a batch at a time, and wait here; what is left of a batch goes back to the ring when the queue's state is saved. With mergeable buffers a
 * frame takes as many chains as it needs (section 5.1.6.3.1), and all of them are pushed once the last is filled, with their count in
 * the first one's header. Without, a frame that its chain cannot hold is dropped and the chain stays. Frames that find no chain are refused: they wait with
 * their sender until the driver's kick brings new ones.
 */

import { copyMemory } from '../../core/copy.ts';
import { COPIES_MAX, COPY_TARGET, COPY_TO, COPY_WORDS } from '../../core/copy-list.ts';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_CSUM_VALID,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  HEADER_LENGTH,
  LENGTH,
  NEXT,
  OFFSET,
  REGION,
  TOTAL,
} from '../../core/pool.ts';
import { ACCEPT_CSUM, acceptable } from '../../core/port.ts';
import { DMA_WRITE } from '../../pci/guest-memory.ts';
import { CHAINS_MAX, ChainBatch } from '../../virtio/chains.ts';
import { FAULT_BUFFER_ADDRESS } from '../../virtio/faults.ts';
import type { VirtQueue } from '../../virtio/queue.ts';
import {
  VirtioNetHdr,
  VNET_HDR_F_DATA_VALID,
  VNET_HDR_F_NEEDS_CSUM,
  VNET_HDR_NUM_BUFFERS,
  writeVnetHash,
} from '../../wire/virtio-net-hdr.ts';
import { FRAME_MIN_BYTES } from '../frame-size.ts';
import { gatheredFrom, writeRun } from '../write-run.ts';
import type { NetContext } from './net.ts';

/** Chains fetched ahead. */
const AHEAD = 64;
const HEADER_MAX_BYTES = 24;
const TYPE_OFFSET = 12;
/** A packet header with `num_buffers` and no hash, and its last word: csum_offset 0, num_buffers 1. */
const PLAIN_HEADER_BYTES = 12;
const ONE_BUFFER = 0x10000;

/** What `store` did with a frame. */
export const STORED = 0;
/** No chain: the frame stays with its sender. */
export const REFUSED = 1;
/** It was dropped and counted. */
export const DROPPED = 2;

export class Receiver {
  readonly #net: NetContext;
  readonly #notify: (count: number, wanted: boolean) => void;

  #queue: VirtQueue | null = null;
  readonly #chains = new ChainBatch();
  /** The next chain of the batch to fill. */
  #next = 0;
  #pushed = 0;
  readonly #header = new VirtioNetHdr();
  readonly #headerBytes = new Uint8Array(HEADER_MAX_BYTES);
  readonly #zeros = new Uint8Array(FRAME_MIN_BYTES);
  /** Bytes written to each chain of a merged frame. */
  readonly #written = new Int32Array(CHAINS_MAX);
  /** Flags in the packet header of each frame that is copied later. */
  readonly #headerWord = new Int32Array(COPIES_MAX);
  /** The hash of the frame that is stored, and its kind. */
  hash = 0;
  hashType = 0;

  constructor(net: NetContext, notify: (count: number, wanted: boolean) => void) {
    this.#net = net;
    this.#notify = notify;
  }

  open(queue: VirtQueue): void {
    this.stop();
    this.#queue = queue;
  }

  stop(): void {
    this.#queue = null;
    this.#chains.count = 0;
    this.#next = 0;
    this.#pushed = 0;
  }

  get isOpen(): boolean {
    return this.#queue !== null;
  }

  /** Gives what was fetched ahead back to the ring. */
  giveBack(): void {
    this.#queue?.unfetch(this.#chains, this.#next);
  }

  /** Whether there is a chain for a frame; asks for kicks when there is none. */
  hasBuffers(): boolean {
    return this.#next < this.#chains.count || this.#refill(AHEAD);
  }

  /** Fetches the next batch, with what is left of this one; false when that brings nothing more. */
  #refill(limit: number): boolean {
    const queue = this.#queue;
    const { memory } = this.#net;
    if (queue === null) return false;
    const left = this.#chains.count - this.#next;
    if (left > 0) queue.unfetch(this.#chains, this.#next);
    this.#next = 0;
    let count = queue.fetch(memory, this.#chains, limit);
    if (count <= left && queue.fault === 0 && queue.requestKicks(memory)) {
      queue.unfetch(this.#chains, 0);
      count = queue.fetch(memory, this.#chains, limit);
    }
    if (count > left) queue.suppressKicks(memory);
    return count > left;
  }

  /**
   * Stores the plain frames in front of a batch, in a loop of their own: for the main address and without a tag where that is asked, in one piece, each for one buffer. Returns how
   * many; they stay the caller's.
   */
  storePlain(frames: Int32Array, from: number, to: number): number {
    const queue = this.#queue;
    const { pool, memory, filter, headerBytes, hashReport, guestOffloads } = this.#net;
    const together = gatheredFrom(pool, memory);
    const slots = pool.memories[0];
    const headers = slots.view;
    if (queue === null || hashReport || headerBytes !== PLAIN_HEADER_BYTES) return 0;
    const t = pool.table;
    const chains = this.#chains;
    const written = this.#written;
    // A receiver that takes everything asks nothing of a frame.
    const filtered = !filter.promiscuous || filter.vlanFilter || filter.cfi >= 0;
    const checked = (guestOffloads & ACCEPT_CSUM) !== 0 ? VNET_HDR_F_DATA_VALID : 0;
    let i = from;
    while (i < to) {
      if (this.#next === chains.count && !this.#refill(AHEAD)) break;
      const begin = this.#next;
      const end = Math.min(chains.count, begin + to - i);
      let chain = begin;
      const isLong = t[frames[i] + TOTAL] >= together;
      if (isLong) {
        chain = this.#storeTogether(frames, i, begin, end, together, checked);
        i += chain - begin;
      } else
        for (; chain < end; chain++, i++) {
          const frame = frames[i];
          const at = t[frame + OFFSET];
          const total = t[frame + TOTAL];
          const facts = t[frame + FACTS];
          if (total < FRAME_MIN_BYTES || total >= together) break;
          if (t[frame + NEXT] !== 0 || (facts & ~FACT_CSUM_VALID) !== 0) break;
          if (
            filtered &&
            (headers.getUint16(at + TYPE_OFFSET) === filter.vlanType || !filter.isMain(headers, at))
          )
            break;
          const part = chains.writeFrom[chain];
          const needed = PLAIN_HEADER_BYTES + total;
          if (part >= chains.first[chain + 1] || chains.length[part] < needed) break;
          const target = memory.translate(chains.address[part], needed, DMA_WRITE);
          if (target < 0 || (target & 3) !== 0) break;
          const { hit } = memory;
          const { words } = hit;
          const header = target >> 2;
          words[header] = facts === 0 ? 0 : checked;
          words[header + 1] = 0;
          words[header + 2] = ONE_BUFFER;
          copyMemory(slots, at, hit, target + PLAIN_HEADER_BYTES, total);
          written[chain] = needed;
        }
      if (chain === begin) break;
      queue.pushRun(memory, chains.id, chains.slots, written, begin, chain);
      this.#pushed += chain - begin;
      this.#next = chain;
      if (chain < end && t[frames[i] + TOTAL] >= together === isLong) break;
    }
    return i - from;
  }

  /**
   * What `storePlain` does, for frames of at least `atLeast` bytes, which are copied all at once: from frame `i` and chain `begin` on. Returns the chain behind the last one
   * that was filled. (What is asked of a frame stands in both loops: a check that both call costs 3 % of a short frame and 8 % of a long one.)
   */
  #storeTogether(
    frames: Int32Array,
    i: number,
    begin: number,
    end: number,
    atLeast: number,
    checked: number,
  ): number {
    const { pool, memory, filter } = this.#net;
    const { copies, memories, table: t } = pool;
    const headers = memories[0].view;
    const filtered = !filter.promiscuous || filter.vlanFilter || filter.cfi >= 0;
    const chains = this.#chains;
    let chain = begin;
    for (; chain < end; chain++, i++) {
      const frame = frames[i];
      const at = t[frame + OFFSET];
      const total = t[frame + TOTAL];
      const facts = t[frame + FACTS];
      if (total < atLeast || t[frame + NEXT] !== 0 || (facts & ~FACT_CSUM_VALID) !== 0) break;
      if (
        filtered &&
        (headers.getUint16(at + TYPE_OFFSET) === filter.vlanType || !filter.isMain(headers, at))
      )
        break;
      const part = chains.writeFrom[chain];
      const needed = PLAIN_HEADER_BYTES + total;
      if (total < FRAME_MIN_BYTES || part >= chains.first[chain + 1] || chains.length[part] < needed) break;
      const to = memory.locate(chains.address[part], needed, DMA_WRITE);
      if (to < 0 || (to & 3) !== 0) break;
      this.#headerWord[copies.count] = facts === 0 ? 0 : checked;
      copies.add(0, at, memory.hitRegion, to + PLAIN_HEADER_BYTES, total);
      this.#written[chain] = needed;
    }
    const { count, list } = copies;
    copies.run();
    // The packet headers last: their memory is at hand now.
    for (let k = 0, run = 0; k < count; k++, run += COPY_WORDS) {
      const { words } = memories[list[run + COPY_TARGET]];
      const header = (list[run + COPY_TO] - PLAIN_HEADER_BYTES) >> 2;
      words[header] = this.#headerWord[k];
      words[header + 1] = 0;
      words[header + 2] = ONE_BUFFER;
    }
    return chain;
  }

  /** Writes one frame into the driver's buffers; the frame stays the caller's. After the last one call `finish`. */
  store(frame: number): number {
    const queue = this.#queue;
    const net = this.#net;
    if (queue === null) return DROPPED;
    if (this.#next === this.#chains.count && !this.#refill(AHEAD)) return this.#noBuffer(queue);
    const { pool, memory, headerBytes } = net;
    const t = pool.table;
    const total = t[frame + TOTAL];
    const facts = t[frame + FACTS];
    const chains = this.#chains;
    const chain = this.#next;
    const part = chains.writeFrom[chain];
    const needed = headerBytes + total;
    // The most common case: a plain frame in one piece for one buffer.
    if (
      total >= FRAME_MIN_BYTES &&
      t[frame + NEXT] === 0 &&
      part < chains.first[chain + 1] &&
      chains.length[part] >= needed &&
      !net.hashReport &&
      (facts & ~FACT_CSUM_VALID) === 0
    ) {
      const to = memory.translate(chains.address[part], needed, DMA_WRITE);
      if (to >= 0) {
        const { hit } = memory;
        const { view } = hit;
        const flags = facts !== 0 && (net.guestOffloads & ACCEPT_CSUM) !== 0 ? VNET_HDR_F_DATA_VALID : 0;
        view.setInt32(to, flags, true);
        view.setInt32(to + 4, 0, true);
        if (headerBytes === 10) view.setInt16(to + 8, 0, true);
        else view.setInt32(to + 8, 0x10000, true);
        copyMemory(pool.memories[0], t[frame + OFFSET], hit, to + headerBytes, total);
        this.#next = chain + 1;
        queue.push(memory, chains.id[chain], chains.slots[chain], needed);
        this.#pushed++;
        return STORED;
      }
    }
    return this.#storeAny(queue, frame, total, facts);
  }

  #noBuffer(queue: VirtQueue): number {
    if (queue.fault !== 0) {
      this.#net.broken(queue.fault);
      return DROPPED;
    }
    this.#net.stats.rxNoBuffer++;
    return REFUSED;
  }

  #storeAny(queue: VirtQueue, frame: number, total: number, facts: number): number {
    const net = this.#net;
    const { headerBytes, stats } = net;
    if (!acceptable(facts, net.guestOffloads)) {
      stats.rxDropOffload++;
      return DROPPED;
    }
    const stored = Math.max(total, FRAME_MIN_BYTES);
    const needed = headerBytes + stored;
    const chains = this.#chains;
    // Buffers that not even the header fits in go back empty.
    while (this.#room(this.#next) < headerBytes) {
      stats.rxBufferTooSmall++;
      this.#use(queue, this.#next, 0);
      this.#next++;
      if (this.#next === chains.count && !this.#refill(AHEAD)) return this.#noBuffer(queue);
    }
    let count = 1;
    let room = this.#room(this.#next);
    if (room < needed) {
      if (!net.mergeable) {
        stats.rxDropTooLong++;
        return DROPPED;
      }
      for (;;) {
        while (room < needed && this.#next + count < chains.count) {
          room += this.#room(this.#next + count);
          count++;
        }
        if (room >= needed) break;
        if (count >= Math.min(queue.size, CHAINS_MAX)) {
          stats.rxDropTooLong++;
          return DROPPED;
        }
        const before = chains.count - this.#next;
        if (!this.#refill(CHAINS_MAX)) {
          const isFull = before >= queue.size || !chains.hasRoom(chains.first[chains.count]);
          if (queue.fault === 0 && isFull) {
            stats.rxDropTooLong++;
            return DROPPED;
          }
          return this.#noBuffer(queue);
        }
        count = 1;
        room = this.#room(this.#next);
      }
    }
    this.#fillHeader(frame, facts, count);
    if (!this.#write(frame, total, stored, count)) {
      stats.rxDropBadAddress++;
      queue.fault = FAULT_BUFFER_ADDRESS;
      net.broken(queue.fault);
      return DROPPED;
    }
    for (let i = 0; i < count; i++) this.#use(queue, this.#next + i, this.#written[i]);
    this.#next += count;
    if (count > 1) stats.rxMerged++;
    return STORED;
  }

  #use(queue: VirtQueue, chain: number, bytes: number): void {
    queue.push(this.#net.memory, this.#chains.id[chain], this.#chains.slots[chain], bytes);
    this.#pushed++;
  }

  /** Bytes that a chain can take; a chain with parts to read takes as much as its others. */
  #room(chain: number): number {
    return this.#chains.bytes(this.#chains.writeFrom[chain], this.#chains.first[chain + 1]);
  }

  #fillHeader(frame: number, facts: number, count: number): void {
    const net = this.#net;
    const t = net.pool.table;
    const header = this.#header;
    header.clear();
    if ((facts & FACT_NEEDS_CSUM) !== 0) {
      header.flags = VNET_HDR_F_NEEDS_CSUM;
      header.csumStart = t[frame + CSUM_START];
      header.csumOffset = t[frame + CSUM_OFFSET];
    } else if ((facts & FACT_CSUM_VALID) !== 0 && (net.guestOffloads & ACCEPT_CSUM) !== 0) {
      header.flags = VNET_HDR_F_DATA_VALID;
    }
    if (facts > 0xff) {
      header.gsoType = facts >>> 8;
      header.gsoSize = t[frame + GSO_SIZE];
      header.hdrLen = t[frame + HEADER_LENGTH];
    }
    // Without mergeable buffers the field is 1 all the same (section 5.1.6.4.1), and a legacy header ends before it.
    header.numBuffers = count;
    header.write(this.#headerBytes, 0, net.headerBytes);
    if (net.hashReport) writeVnetHash(this.#headerBytes, 0, this.hash, this.hashType);
    if (net.headerBytes > VNET_HDR_NUM_BUFFERS + 2 && !net.hashReport)
      writeVnetHash(this.#headerBytes, 0, 0, 0);
  }

  /** Writes header, frame and padding over `count` chains from the next one on. */
  #write(frame: number, total: number, stored: number, count: number): boolean {
    const written = this.#writeParts(frame, total, stored, count);
    this.#net.pool.copies.run();
    return written;
  }

  /** The same, but for the long runs, which are in the list of copies. */
  #writeParts(frame: number, total: number, stored: number, count: number): boolean {
    const { pool, memory, headerBytes } = this.#net;
    const gathered = gatheredFrom(pool, memory);
    const t = pool.table;
    const chains = this.#chains;
    const end = headerBytes + stored;
    /** Position in what is written, and the segment that holds it. */
    let done = 0;
    let segment = frame;
    let segmentStart = headerBytes;
    for (let c = 0; c < count; c++) {
      const chain = this.#next + c;
      const before = done;
      for (let part = chains.writeFrom[chain]; part < chains.first[chain + 1] && done < end; part++) {
        let address = chains.address[part];
        let left = Math.min(chains.length[part], end - done);
        while (left > 0) {
          let size: number;
          if (done < headerBytes) {
            size = Math.min(left, headerBytes - done);
            if (!memory.write(address, this.#headerBytes, done, size)) return false;
          } else if (done - headerBytes >= total) {
            size = left;
            if (!memory.write(address, this.#zeros, 0, size)) return false;
          } else {
            while (done >= segmentStart + t[segment + LENGTH]) {
              segmentStart += t[segment + LENGTH];
              segment = t[segment + NEXT];
            }
            const skip = done - segmentStart;
            size = Math.min(left, t[segment + LENGTH] - skip);
            const from = t[segment + OFFSET] + skip;
            if (!writeRun(pool, memory, gathered, t[segment + REGION], from, address, size)) return false;
          }
          done += size;
          address += size;
          left -= size;
        }
      }
      this.#written[c] = done - before;
    }
    return done === end;
  }

  /** Shows the driver what was stored. */
  finish(): void {
    const count = this.#pushed;
    const queue = this.#queue;
    if (count === 0 || queue === null || !this.#net.live) return;
    this.#pushed = 0;
    this.#notify(count, queue.publish(this.#net.memory));
    if (queue.fault !== 0) this.#net.broken(queue.fault);
  }
}

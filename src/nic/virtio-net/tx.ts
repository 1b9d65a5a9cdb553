/**
 * A transmit queue: chains of the ring become frames for the port.
 *
 *   kick → fetch → header checked, frame built → port.send → used
 *
 * The packet header is judged by tx-header.ts. A short frame is copied whole into a slot, with others in one go where that pays (core/copy-list.ts); of a long one the first
 * PRIVATE_BYTES are copied and the rest is borrowed, and its chain is used when the last holder releases the frame (held-chains.ts). What the port does not take waits here, at
 * most one batch; all that is behind waits in the guest's ring, and the driver's kicks are not asked for.
 */

import { copyRounded } from '../../core/copy.ts';
import type { Timer } from '../../core/loop.ts';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACTS,
  GSO_SIZE,
  HEADER_LENGTH,
  LENDER,
  LENGTH,
  type Lender,
  MAX_FRAME_BYTES,
  OFFSET,
  PRIVATE_BYTES,
  TAG,
  TOTAL,
} from '../../core/pool.ts';
import type { Port } from '../../core/port.ts';
import { DMA_READ } from '../../pci/guest-memory.ts';
import { CHAINS_MAX, ChainBatch } from '../../virtio/chains.ts';
import { FAULT_BUFFER_ADDRESS } from '../../virtio/faults.ts';
import type { VirtQueue } from '../../virtio/queue.ts';
import { fromHex, toHex } from '../../wire/bytes.ts';
import { FRAME_MIN_BYTES, HEADER_BYTES, padFrame } from '../frame-size.ts';
import { COPY_MAX_BYTES, gatherFrame, NOT_RAM, SKEW_MAX } from '../tx-parts.ts';
import { HeldChains } from './held-chains.ts';
import type { NetContext } from './net.ts';
import { TxHeader } from './tx-header.ts';

const BATCH = 64;
/** Chains of one pass. */
const PASS_CHAINS = 1024;
/** Turns of the loop that an empty ring is looked at again, at most, where the driver runs at the same time as we do. */
const LOOKS_MAX = 32;
const POOL_RETRY_NS = 1e6;
const ENTRY_SHIFT = 16;
/** Room for a packet header in front of a frame that is copied with it. */
const HEADER_ROOM = 24;
/** In place of an entry: the chain is used when the port took the frame; when the frame was released. */
const NO_ENTRY = -1;
const LENT = -2;
/** `#build`'s answers that are no frame. */
const EXHAUSTED = 0;
const DROPPED = -1;

export interface SavedTx {
  /** Chains whose frames others held: they are used when the queue goes on. Pairs of id and slots, in ring order. */
  lent: number[][];
  /** Frames that wait for the port. */
  frames: { id: number; slots: number; bytes: string; facts: number[] }[];
}

const NOTHING_WRITTEN = new Int32Array(CHAINS_MAX);

const FACT_WORDS = [FACTS, GSO_SIZE, HEADER_LENGTH, CSUM_START, CSUM_OFFSET];

export class Transmitter implements Lender {
  readonly #net: NetContext;
  /** `count` used chains were published; `wanted`: the driver asks to be told. */
  readonly #notify: (count: number, wanted: boolean) => void;
  /** Told of each frame before it is sent; null: nobody. Learns which queue a flow uses. */
  observe: ((frame: number) => void) | null = null;
  port: Port | null = null;

  #queue: VirtQueue | null = null;
  readonly #chains = new ChainBatch();
  readonly #header: TxHeader;

  /** Frames for the port. The chain of each stands at the same place in `#chains`, whose dropped chains were closed over. */
  readonly #frames = new Int32Array(BATCH);
  /** The entry that will use the frame's chain, NO_ENTRY or LENT; meaningless unless `#anyEntry`. */
  readonly #frameEntry = new Int32Array(BATCH);
  #anyEntry = false;
  #from = 0;
  #to = 0;

  readonly #held: HeldChains;

  #pushed = 0;
  #epoch = 0;
  readonly #lender: number;
  #running = false;
  /** Looks at the empty ring since it held something, and how many there may be. */
  #looked = 0;
  #looksAllowed = 1;
  /** The frames are in the port's hands: `stop` leaves them to `#flush`. */
  #sending = false;
  #blocked = false;
  #resumePosted = false;
  #completePosted = false;
  readonly #retry: Timer;
  readonly #resume: () => void;
  readonly #completeLater: () => void;

  constructor(net: NetContext, notify: (count: number, wanted: boolean) => void) {
    this.#net = net;
    this.#notify = notify;
    this.#lender = net.pool.addLender(this);
    this.#header = new TxHeader(net);
    this.#held = new HeldChains(net, (id, slots) => this.#use(id, slots));
    this.#retry = net.loop.timer(() => this.run());
    this.#resume = () => {
      this.#resumePosted = false;
      this.run();
    };
    this.#completeLater = () => {
      this.#completePosted = false;
      this.#publish();
    };
  }

  /** A queue was enabled; nothing happens before the device is live and kicked. */
  open(queue: VirtQueue): void {
    this.stop();
    this.#queue = queue;
    this.#held.open(queue.size);
  }

  /** Forgets the queue, what waits and what is lent. */
  stop(): void {
    if (!this.#sending) {
      this.#net.pool.releaseAll(this.#frames, this.#from, this.#to);
      this.#from = 0;
      this.#to = 0;
    }
    this.#epoch = (this.#epoch + 1) & 0x7fff;
    this.#held.forget();
    this.#pushed = 0;
    this.#blocked = false;
    this.#retry.cancel();
    this.#queue = null;
  }

  close(): void {
    this.stop();
    this.#net.pool.removeLender(this.#lender);
  }

  /** The peer can take frames again. */
  peerReady(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    this.run();
  }

  /** Sends what the ring holds, as far as the port and this pass's budget go. */
  run(): void {
    if (this.#running || this.#blocked || this.#queue === null || !this.#net.live) return;
    this.#running = true;
    try {
      if (this.#flush()) this.#walk();
    } finally {
      this.#running = false;
    }
    this.#publish();
  }

  #walk(): void {
    const net = this.#net;
    let budget = PASS_CHAINS;
    this.#queue?.suppressKicks(net.memory);
    for (;;) {
      // Sending may have led to a reset: read again.
      const queue = this.#queue;
      if (queue === null || !net.live) return;
      if (budget <= 0) {
        this.#resumeNextTurn();
        return;
      }
      const count = queue.fetch(net.memory, this.#chains, Math.min(BATCH, this.#held.room));
      if (count === 0) {
        if (queue.fault !== 0) {
          net.broken(queue.fault);
          return;
        }
        // With no entry free, the return of a lent frame goes on.
        if (this.#held.room === 0 || this.#looksAgain() || !queue.requestKicks(net.memory)) return;
        queue.suppressKicks(net.memory);
        budget--;
        continue;
      }
      budget -= count;
      if (this.#looked > 0) this.#looksAllowed = Math.min(2 * this.#looksAllowed, LOOKS_MAX);
      this.#looked = 0;
      const built = this.#buildAll(count);
      if (built < count) {
        queue.unfetch(this.#chains, built);
        if (!this.#flush() || !net.live) return;
        net.stats.txPoolExhausted++;
        if (!this.#retry.armed) this.#retry.armIn(POOL_RETRY_NS);
        return;
      }
      if (!this.#flush()) return;
      if (queue.fault !== 0) {
        net.broken(queue.fault);
        return;
      }
    }
  }

  /**
   * Instead of asking for kicks, which cost the driver a system call each and us a wake-up, an empty ring is looked at again in the next turns: more often as long as that
   * finds something, once after it was in vain.
   */
  #looksAgain(): boolean {
    if (!this.#net.driverRunsBeside) return false;
    if (this.#looked < this.#looksAllowed) {
      this.#looked++;
      this.#resumeNextTurn();
      return true;
    }
    this.#looked = 0;
    this.#looksAllowed = Math.max(this.#looksAllowed >> 1, 1);
    return false;
  }

  #resumeNextTurn(): void {
    if (this.#resumePosted) return;
    this.#resumePosted = true;
    this.#net.loop.post(this.#resume);
  }

  /** Chains [0, count) of the batch as frames; returns how many chains were consumed. The most common case is handled here: a short plain frame in one part. */
  #buildAll(count: number): number {
    const { memory, pool, headerBytes, inOrder, stats } = this.#net;
    const { first, writeFrom, address, length, id, slots } = this.#chains;
    const t = pool.table;
    const slotMemory = pool.memories[0];
    const frames = this.#frames;
    const observe = this.observe;
    let place = 0;
    let sentBytes = 0;
    let i = 0;
    const together = pool.copies.minBytes;
    // As long as nothing is lent or dropped, buffers go back in order without entries.
    this.#anyEntry = inOrder && this.#held.count > 0;
    for (; i < count; i++) {
      const part = first[i];
      const parts = writeFrom[i] - part;
      let frame = 0;
      let bytes = length[part];
      let from = address[part];
      if (parts === 2 && bytes === headerBytes) {
        bytes = length[part + 1];
        from = address[part + 1];
      } else {
        // Too long for the short way where the packet does not lie in one piece behind its header.
        bytes = parts === 1 ? bytes - headerBytes : 0;
        from += headerBytes;
      }
      if (bytes >= FRAME_MIN_BYTES && bytes <= COPY_MAX_BYTES) {
        if (bytes >= together) {
          this.#to = place;
          const taken = this.#copyTogether(i, count, together);
          place = this.#to;
          if (taken !== 0) {
            i += taken - 1;
            continue;
          }
        }
        const headerAt = memory.translate(address[part], headerBytes, DMA_READ);
        // Flags and GSO type of zero: the rest of the header means nothing.
        if (headerAt >= 0 && memory.hit.view.getUint16(headerAt, true) === 0) {
          const at = memory.translate(from, bytes, DMA_READ);
          if (at >= 0) frame = pool.alloc(bytes + SKEW_MAX);
          if (frame !== 0) {
            // The slot's bytes lie as the guest's do, so that they are copied in whole words.
            const to = t[frame + OFFSET] + (at & 7);
            copyRounded(memory.hit, at, slotMemory, to, bytes);
            t[frame + OFFSET] = to;
            t[frame + LENGTH] = bytes;
            t[frame + TOTAL] = bytes;
            sentBytes += bytes;
            if (place !== i) {
              id[place] = id[i];
              slots[place] = slots[i];
            }
            if (this.#anyEntry) this.#setEntry(frame, place);
            frames[place++] = frame;
            if (observe !== null) observe(frame);
            continue;
          }
        }
      }
      frame = this.#build(i);
      if (frame === EXHAUSTED) break;
      if (frame === DROPPED) {
        this.#useDropped(i, place);
        continue;
      }
      sentBytes += t[frame + TOTAL];
      id[place] = id[i];
      slots[place] = slots[i];
      if (t[frame + LENDER] > 0 && !this.#anyEntry) this.#beginEntries(place);
      if (this.#anyEntry) this.#setEntry(frame, place);
      frames[place++] = frame;
      if (observe !== null) observe(frame);
    }
    stats.txFrames += place;
    stats.txBytes += sentBytes;
    this.#to = place;
    return i;
  }

  /**
   * Short frames, each in one piece, from chain `i` on: copied all at once with their packet headers, which are judged in the copies. Returns how many chains that was: up to the first of another kind, or for which
   * there is no slot. Those that are dropped are used, the others' frames are appended to the batch.
   */
  #copyTogether(i: number, count: number, atLeast: number): number {
    const { memory, pool, headerBytes, stats } = this.#net;
    const { first, writeFrom, address, length, id, slots } = this.#chains;
    const { copies, table: t } = pool;
    const frames = this.#frames;
    const start = this.#to;
    let taken = 0;
    for (let chain = i; chain < count; chain++) {
      const part = first[chain];
      const parts = writeFrom[chain] - part;
      let bytes = length[part] - headerBytes;
      let header = -1;
      let region = 0;
      if (parts === 2 && bytes === 0) {
        header = memory.locate(address[part], headerBytes, DMA_READ);
        if (header < 0) break;
        region = memory.hitRegion;
        bytes = length[part + 1];
      } else if (parts !== 1) {
        break;
      }
      if (bytes < FRAME_MIN_BYTES || bytes > COPY_MAX_BYTES || bytes < atLeast) break;
      const all = header < 0 ? bytes + headerBytes : bytes;
      const from = memory.locate(header < 0 ? address[part] : address[part + 1], all, DMA_READ);
      if (from < 0) break;
      const frame = pool.alloc(bytes + HEADER_ROOM + SKEW_MAX);
      if (frame === 0) break;
      const end = t[frame + OFFSET] + HEADER_ROOM + bytes + ((from + all - bytes) & SKEW_MAX);
      copies.add(memory.hitRegion, from, 0, end - all, all);
      if (header >= 0) copies.add(region, header, 0, end - bytes - headerBytes, headerBytes);
      t[frame + OFFSET] = end - bytes;
      t[frame + LENGTH] = bytes;
      t[frame + TOTAL] = bytes;
      frames[start + taken++] = frame;
    }
    copies.run();
    const observe = this.observe;
    const headers = pool.memories[0].view;
    let place = start;
    let sentBytes = 0;
    for (let k = 0; k < taken; k++) {
      const frame = frames[start + k];
      const at = t[frame + OFFSET] - headerBytes;
      // Flags and GSO type of zero: the rest of the header means nothing.
      if (headers.getUint16(at, true) !== 0) {
        this.#header.parse(pool.bytes, at);
        const facts = this.#header.factsFor(t[frame + TOTAL]);
        if (facts < 0) {
          stats.txDropBadHeader++;
          pool.release(frame);
          this.#useDropped(i + k, place);
          continue;
        }
        this.#header.apply(frame, facts);
      }
      sentBytes += t[frame + TOTAL];
      if (place !== i + k) {
        id[place] = id[i + k];
        slots[place] = slots[i + k];
      }
      if (this.#anyEntry) this.#setEntry(frame, place);
      frames[place++] = frame;
      if (observe !== null) observe(frame);
    }
    stats.txBytes += sentBytes;
    this.#to = place;
    return taken;
  }

  /** The chain of a frame that was dropped, behind `place` frames of the batch, goes back. */
  #useDropped(chain: number, place: number): void {
    const { id, slots } = this.#chains;
    if (!this.#net.inOrder) {
      this.#use(id[chain], slots[chain]);
      return;
    }
    if (!this.#anyEntry) this.#beginEntries(place);
    this.#held.finish(this.#held.hold(id[chain], slots[chain]));
  }

  /** From here on the chains of this batch are used by entries; so are, where the order counts, those of the `place` frames before. */
  #beginEntries(place: number): void {
    this.#anyEntry = true;
    for (let i = 0; i < place; i++) this.#setEntry(this.#frames[i], i);
  }

  /** Says when the chain of the frame at `place` is used. */
  #setEntry(frame: number, place: number): void {
    const t = this.#net.pool.table;
    const isLent = t[frame + LENDER] > 0;
    if (!isLent && !this.#net.inOrder) {
      this.#frameEntry[place] = NO_ENTRY;
      return;
    }
    const { id, slots } = this.#chains;
    const entry = this.#held.hold(id[place], slots[place]);
    if (isLent) t[frame + TAG] = (this.#epoch << ENTRY_SHIFT) | entry;
    this.#frameEntry[place] = isLent ? LENT : entry;
  }

  /** The frame of chain `i`, or EXHAUSTED, or DROPPED: then it is counted. */
  #build(i: number): number {
    const { pool, stats, headerBytes, memory } = this.#net;
    const { first, writeFrom, address, length } = this.#chains;
    const begin = first[i];
    const end = writeFrom[i];
    let bytes = -headerBytes;
    for (let part = begin; part < end; part++) bytes += length[part];
    if (bytes < HEADER_BYTES) {
      stats.txDropRunt++;
      return DROPPED;
    }
    if (bytes > MAX_FRAME_BYTES - SKEW_MAX) {
      stats.txDropTooLong++;
      return DROPPED;
    }
    const header = this.#header;
    // It may lie in any number of parts.
    let part = begin;
    let within = 0;
    for (let copied = 0; copied < headerBytes; ) {
      const size = Math.min(length[part] - within, headerBytes - copied);
      if (!memory.read(address[part] + within, header.bytes, copied, size)) return this.#badAddress();
      copied += size;
      within += size;
      if (within === length[part]) {
        part++;
        within = 0;
      }
    }
    header.parse(header.bytes, 0);
    const facts = header.factsFor(bytes);
    if (facts < 0) {
      stats.txDropBadHeader++;
      return DROPPED;
    }
    const lender = bytes > COPY_MAX_BYTES && header.checksumEnd(facts) <= PRIVATE_BYTES ? this.#lender : 0;
    const frame = gatherFrame(memory, pool, address, length, part, within, end, bytes, 0, lender);
    if (frame === 0) return EXHAUSTED;
    if (frame === NOT_RAM) return this.#badAddress();
    if (pool.table[frame + LENDER] !== 0) stats.txBorrowed++;
    if (bytes < FRAME_MIN_BYTES) padFrame(pool, frame);
    if (facts !== 0) this.#header.apply(frame, facts);
    return frame;
  }

  /** A buffer outside RAM breaks the queue: no driver of ours would do that. */
  #badAddress(): number {
    this.#net.stats.txDropBadAddress++;
    if (this.#queue !== null) this.#queue.fault = FAULT_BUFFER_ADDRESS;
    return DROPPED;
  }

  // Handing on.

  /** Offers the batch to the port. True when nothing is left of it. */
  #flush(): boolean {
    const from = this.#from;
    const to = this.#to;
    if (from === to) return true;
    const { port } = this;
    const epoch = this.#epoch;
    if (port === null) {
      this.#net.pool.releaseAll(this.#frames, from, to);
      this.#from = to;
    } else {
      this.#sending = true;
      let taken = 0;
      try {
        taken = port.send(this.#frames, from, to);
      } finally {
        this.#sending = false;
      }
      if (epoch !== this.#epoch) {
        // Sending led to a reset, which wants all of this forgotten.
        this.#net.pool.releaseAll(this.#frames, from + taken, to);
        this.#from = 0;
        this.#to = 0;
        return false;
      }
      this.#from = from + taken;
    }
    const queue = this.#queue;
    if (queue !== null) {
      const done = this.#from;
      const entries = this.#frameEntry;
      if (!this.#anyEntry) this.#useRun(queue, from, done);
      else {
        for (let i = from; i < done; i++) {
          if (entries[i] === NO_ENTRY) this.#useRun(queue, i, i + 1);
          else if (entries[i] >= 0) this.#held.finish(entries[i]);
        }
      }
    }
    if (this.#from < to) {
      this.#blocked = true;
      return false;
    }
    this.#from = 0;
    this.#to = 0;
    return true;
  }

  #use(id: number, slots: number): void {
    const queue = this.#queue;
    // A device that may not do DMA any more writes nothing back.
    if (queue === null || !this.#net.live) return;
    queue.push(this.#net.memory, id, slots, 0);
    this.#pushed++;
  }

  #useRun(queue: VirtQueue, from: number, to: number): void {
    if (!this.#net.live) return;
    queue.pushRun(this.#net.memory, this.#chains.id, this.#chains.slots, NOTHING_WRITTEN, from, to);
    this.#pushed += to - from;
  }

  /** The last holder of a lent frame released it. */
  returned(tag: number): void {
    const queue = this.#queue;
    if (queue === null || tag < 0 || tag >>> ENTRY_SHIFT !== this.#epoch) return;
    const starved = this.#held.room === 0;
    this.#held.finish(tag & 0xffff);
    if (starved) this.#resumeNextTurn();
    if (this.#running || this.#completePosted) return;
    this.#completePosted = true;
    this.#net.loop.post(this.#completeLater);
  }

  #publish(): void {
    const count = this.#pushed;
    const queue = this.#queue;
    if (count === 0 || queue === null || !this.#net.live) return;
    this.#pushed = 0;
    this.#notify(count, queue.publish(this.#net.memory));
    if (queue.fault !== 0) this.#net.broken(queue.fault);
  }

  // Save and restore.

  save(): SavedTx {
    const { pool } = this.#net;
    const frames: SavedTx['frames'] = [];
    const waiting = new Set<number>();
    for (let i = this.#from; i < this.#to; i++) {
      const frame = this.#frames[i];
      const kept = this.#anyEntry ? this.#frameEntry[i] : NO_ENTRY;
      const entry = kept === LENT ? pool.table[frame + TAG] & 0xffff : kept;
      if (entry >= 0) waiting.add(entry);
      frames.push({
        id: this.#chains.id[i],
        slots: this.#chains.slots[i],
        bytes: toHex(pool.toBytes(frame)),
        facts: FACT_WORDS.map((word) => (pool.table[frame + FACTS] === 0 ? 0 : pool.table[frame + word])),
      });
    }
    const lent: number[][] = [];
    if (this.#queue !== null)
      for (const { entry, id, slots } of this.#held.list()) if (!waiting.has(entry)) lent.push([id, slots]);
    return { lent, frames };
  }

  /** Takes a saved state whose shape was checked, after `open`. Frames go on waiting as far as the pool has room. */
  load(state: SavedTx): void {
    const queue = this.#queue;
    if (queue === null) return;
    const { pool } = this.#net;
    for (const [id, slots] of state.lent) if (queue.inFlight >= slots) this.#use(id, slots);
    for (const { id, slots, bytes, facts } of state.frames) {
      if (queue.inFlight < slots || this.#held.room === 0) continue;
      const content = fromHex(bytes);
      const frame = content === null || this.#to === BATCH ? 0 : pool.from(content);
      if (frame === 0) {
        this.#use(id, slots);
        continue;
      }
      for (const [i, word] of FACT_WORDS.entries()) pool.table[frame + word] = facts[i];
      this.#frames[this.#to] = frame;
      this.#chains.id[this.#to] = id;
      this.#chains.slots[this.#to] = slots;
      this.#anyEntry = true;
      this.#frameEntry[this.#to] = this.#net.inOrder ? this.#held.hold(id, slots) : NO_ENTRY;
      this.#to++;
    }
  }
}

/**
 * `colo-compare`: two guests do the same work, and the client hears the primary as long as the secondary would have said the same.
 *
 *     primary_in   ─▶ frames of the primary   ─┐
 *                                              ├─ compared by connection (compared-frames.ts) ─▶ outdev: the primary's frames
 *     secondary_in ─▶ frames of the secondary ─┘
 *     notify_dev   ◀─▶ "they differ", "a checkpoint is made"
 *
 * Frames that are not IPv4 are not compared: the primary's go at once, the secondary's are dropped (as QEMU does it). With ipv6=on IPv6 is compared
 * in the same way, but for what a host says for the link's sake (neighbours, routers, listeners), which is to IPv6 what ARP is to IPv4. When the two differ, or a
 * primary's frame has waited for compare_timeout, a checkpoint is wanted: whoever is at notify_dev is told (DO_CHECKPOINT), and says when
 * it is made (COLO_CHECKPOINT); then the primary's frames go and the secondary's are dropped. QEMU can also make the checkpoint itself, by
 * its migration; nobody here can, so without notify_dev the frames are let go as if it had been made.
 *
 * Bounded: each connection keeps max_queue_size frames of each guest, all together at most half of the pool's slots; what comes in beyond that
 * is dropped, counted. While outdev takes nothing, primary_in is not read.
 */

import type { Chardev } from '../../chardev/chardev.ts';
import type { ObjectConfig } from '../../config/objects/index.ts';
import type { Timer } from '../../core/loop.ts';
import type { LinkContext, Sink } from '../../core/port.ts';
import { TCP_SYN } from '../../wire/tcp.ts';
import type { RunningObject } from '../filter/filter.ts';
import { FrameInlet, FrameOutlet, InletStats } from '../filter/frame-ends.ts';
import { ComparedConnection, type Decided, FrameComparer, HeldFrame } from './compared-frames.ts';
import { FlowTable } from './flow-table.ts';
import { IpPacket } from './ip-packet.ts';
import { MessageChannel } from './message-channel.ts';

export class CompareStats extends InletStats {
  /** Primary's frames handed on. */
  outFrames = 0;
  /** Secondary's frames that were used up, or of the past. */
  secondaryDone = 0;
  /** Primary's frames that are never compared (no IP, or IPv6 that is not asked for). */
  passedUncompared = 0;
  /** Secondary's frames that are never compared. */
  dropSecondaryUncompared = 0;
  /** Frames that found their queue full. */
  dropQueueFull = 0;
  /** Frames that were to go out while nobody was at outdev. */
  dropNotConnected = 0;
  /** Frames whose connection had to make room, or that were held when the object was removed. */
  dropRemoved = 0;
  /** Times that frames of the two were found to differ. */
  differences = 0;
  /** Times that a primary's frame had waited too long. */
  timeouts = 0;
  checkpoints = 0;
  /** Messages from notify_dev that are none. */
  badMessages = 0;
}

export interface CompareOptions {
  readonly id: string;
  readonly vnetHdr: boolean;
  /** IPv6 is compared as well; QEMU does not. */
  readonly ipv6: boolean;
}

export interface CompareChardevs {
  readonly primary: Chardev;
  readonly secondary: Chardev;
  readonly out: Chardev;
  readonly notify: Chardev | undefined;
}

export interface CompareTiming {
  readonly compareTimeoutMs: number;
  readonly expiredScanCycleMs: number;
  readonly maxQueueFrames: number;
}

const SPARE_MAX = 4096;
/** Tells what is not TCP, and pieces of TCP, from connections. */
const FRAGMENTS_TOO = 0x100;
const DO_CHECKPOINT = 'DO_CHECKPOINT';
/** What the other end of notify_dev says, and what is answered. */
const INIT = 'COLO_USERSPACE_PROXY_INIT';
const INIT_REPLY = 'COLO_COMPARE_GET_XEN_INIT';
const CHECKPOINT = 'COLO_CHECKPOINT';

export class ColoCompare implements RunningObject, Decided {
  readonly type = 'colo-compare';
  readonly id: string;
  readonly stats = new CompareStats();
  readonly changeable = ['compare_timeout', 'expired_scan_cycle', 'max_queue_size'];

  readonly #context: LinkContext;
  readonly #connections = new FlowTable<ComparedConnection>();
  readonly #comparer: FrameComparer;
  readonly #packet: IpPacket;
  readonly #spare: HeldFrame[] = [];
  readonly #timer: Timer;
  readonly #outlet: FrameOutlet;
  readonly #inlets: FrameInlet[] = [];
  readonly #notify: MessageChannel | null = null;
  /** Decided frames of the primary that wait for outdev, oldest first. */
  #leaving: HeldFrame[] = [];
  #timing: CompareTiming;
  /** Frames in all queues. */
  #held = 0;
  /** A checkpoint is wanted and not made yet. */
  #wanted = false;
  /** The frame that came last, of either guest. */
  #headerBytes = 0;

  constructor(
    options: CompareOptions,
    timing: CompareTiming,
    context: LinkContext,
    chardevs: CompareChardevs,
  ) {
    const { vnetHdr } = options;
    this.id = options.id;
    this.#timing = timing;
    this.#context = context;
    this.#packet = new IpPacket(options.ipv6);
    this.#comparer = new FrameComparer(context.pool);
    this.#timer = context.loop.timer(() => this.#scan());
    this.#outlet = new FrameOutlet(chardevs.out, context, vnetHdr, () => {
      this.#drain();
      this.#inlets[0]?.goOn();
    });
    const inlet = (chardev: Chardev, take: (frame: number) => boolean): void => {
      const sinks: readonly Sink[] = [{ receive: (frames, from) => (take(frames[from]!) ? 1 : 0) }];
      this.#inlets.push(
        new FrameInlet(chardev, context, vnetHdr, this.stats, (headerBytes) => {
          this.#headerBytes = headerBytes;
          return sinks;
        }),
      );
    };
    try {
      inlet(chardevs.primary, (frame) => this.#fromPrimary(frame));
      inlet(chardevs.secondary, (frame) => this.#fromSecondary(frame));
      if (chardevs.notify !== undefined)
        this.#notify = new MessageChannel(chardevs.notify, vnetHdr, (message) => this.#heard(message));
    } catch (error) {
      this.close();
      throw error;
    }
    this.#timer.armIn(timing.expiredScanCycleMs * 1e6);
  }

  change(config: ObjectConfig): void {
    if (config.type !== 'colo-compare') return;
    this.#timing = config;
    this.#timer.armIn(config.expiredScanCycleMs * 1e6);
  }

  /** False: outdev takes nothing now; the frame is to be offered again. */
  #fromPrimary(frame: number): boolean {
    if (this.#leaving.length > 0) return false;
    const { pool } = this.#context;
    const connection = this.#connectionOf(frame);
    if (connection === undefined) {
      this.stats.passedUncompared++;
      const held = this.#spare.pop() ?? new HeldFrame();
      held.frame = frame;
      held.headerBytes = this.#headerBytes;
      this.#leaving.push(held);
      this.#drain();
    } else if (!this.#hasRoom(connection.primary)) {
      this.stats.dropQueueFull++;
      pool.release(frame);
    } else {
      const held = this.#hold(frame);
      if ((held.flags & TCP_SYN) !== 0) connection.begin(held);
      connection.primary.push(held);
      this.#compare(connection);
    }
    return true;
  }

  #fromSecondary(frame: number): boolean {
    const { pool } = this.#context;
    const connection = this.#connectionOf(frame);
    if (connection === undefined) {
      this.stats.dropSecondaryUncompared++;
      pool.release(frame);
    } else if (!this.#hasRoom(connection.secondary)) {
      this.stats.dropQueueFull++;
      pool.release(frame);
    } else {
      connection.secondary.push(this.#hold(frame));
      this.#compare(connection);
    }
    return true;
  }

  /** The connection of a frame, which is parsed then; undefined: it is not compared. */
  #connectionOf(frame: number): ComparedConnection | undefined {
    const packet = this.#packet;
    if (!packet.parse(this.#context.pool, frame)) return undefined;
    const { protocol, isTcp } = packet;
    // What is not TCP is compared by protocol and addresses: its ports are among the bytes compared.
    const key = packet.flow(isTcp ? protocol : protocol | FRAGMENTS_TOO, isTcp);
    const known = this.#connections.find(key);
    if (known !== undefined) return known;
    const made = new ComparedConnection(isTcp, this.#comparer, this);
    const evicted = this.#connections.add(key, made);
    if (evicted !== undefined) this.#giveUp(evicted);
    return made;
  }

  #hasRoom(queue: readonly HeldFrame[]): boolean {
    return queue.length < this.#timing.maxQueueFrames && this.#held < this.#context.pool.capacity >> 1;
  }

  #hold(frame: number): HeldFrame {
    const held = this.#spare.pop() ?? new HeldFrame();
    held.read(this.#packet, frame, this.#headerBytes, this.#context.loop.clock.nowNs());
    this.#held++;
    return held;
  }

  #compare(connection: ComparedConnection): void {
    const same = connection.compare();
    this.#drain();
    if (same) return;
    this.stats.differences++;
    this.#want();
  }

  /** Decided: a primary's frame may go. */
  release(held: HeldFrame): void {
    this.#held--;
    this.#leaving.push(held);
  }

  /** Decided: a secondary's frame is used up. */
  discard(held: HeldFrame): void {
    this.#held--;
    this.stats.secondaryDone++;
    this.#free(held);
  }

  #free(held: HeldFrame): void {
    this.#context.pool.release(held.frame);
    if (this.#spare.length < SPARE_MAX) this.#spare.push(held);
  }

  /** Hands decided frames on as far as outdev takes them. */
  #drain(): void {
    const leaving = this.#leaving;
    let gone = 0;
    for (; gone < leaving.length; gone++) {
      const held = leaving[gone]!;
      if (!this.#outlet.connected) this.stats.dropNotConnected++;
      else if (this.#outlet.write(held.frame, held.headerBytes)) this.stats.outFrames++;
      else break;
      this.#free(held);
    }
    if (gone === leaving.length) leaving.length = 0;
    else if (gone > 0) this.#leaving = leaving.slice(gone);
  }

  /** Looks for frames that have waited too long, and repeats a wish that was not heard. */
  #scan(): void {
    const { compareTimeoutMs, expiredScanCycleMs } = this.#timing;
    const beforeNs = this.#context.loop.clock.nowNs() - compareTimeoutMs * 1e6;
    let late = false;
    for (const connection of this.#connections.values()) late ||= connection.waitsSince(beforeNs);
    if (late) {
      this.stats.timeouts++;
      this.#wanted = false;
      this.#want();
    }
    this.#timer.armIn(expiredScanCycleMs * 1e6);
  }

  #want(): void {
    if (this.#wanted) return;
    if (this.#notify === null) {
      this.#checkpoint();
      return;
    }
    this.#wanted = this.#notify.send(DO_CHECKPOINT);
  }

  #heard(message: string): void {
    if (message === INIT) this.#notify?.send(INIT_REPLY);
    else if (message === CHECKPOINT) this.#checkpoint();
    else this.stats.badMessages++;
  }

  #checkpoint(): void {
    this.#wanted = false;
    this.stats.checkpoints++;
    for (const connection of this.#connections.values()) connection.checkpoint();
    this.#drain();
  }

  #giveUp(connection: ComparedConnection): void {
    for (const queue of [connection.primary, connection.secondary]) {
      for (const held of queue) {
        this.#held--;
        this.stats.dropRemoved++;
        this.#free(held);
      }
      queue.length = 0;
    }
  }

  close(): void {
    this.#timer.cancel();
    for (const inlet of this.#inlets) inlet.close();
    for (const connection of this.#connections.values()) this.#giveUp(connection);
    this.#connections.clear();
    this.#drain();
    for (const held of this.#leaving) {
      this.stats.dropRemoved++;
      this.#free(held);
    }
    this.#leaving.length = 0;
    this.#outlet.close();
    this.#notify?.close();
  }
}

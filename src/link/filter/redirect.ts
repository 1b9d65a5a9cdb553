/**
 * `filter-mirror` copies what passes to a chardev. `filter-redirector` takes what passes out to a chardev (outdev), and puts frames from
 * another one in at its place (indev): two of them, here and in another process, move a link's traffic through something in between.
 *
 * A copy that finds the chardev slow is dropped and counted: a mirror never slows its link. A redirected frame waits with its sender, as
 * on a slow link. While nobody is at the other end both drop, counted. Frames from indev go on in each direction that the filter works on,
 * as if they had passed it; while the link does not take them, nothing more is read.
 */

import type { Channel, ChannelUser, Chardev } from '../../chardev/chardev.ts';
import type { LinkContext, Sink } from '../../core/port.ts';
import { type Filter, type FilterDirection, PassingStage } from './filter.ts';
import { FrameReader, FrameWriter } from './frame-stream.ts';

export class RedirectStats {
  /** Frames written to outdev. */
  outFrames = 0;
  /** Frames read from indev. */
  inFrames = 0;
  dropNotConnected = 0;
  /** Copies that found the chardev slow. */
  dropOutFull = 0;
  /** Frames from indev that found no slot, or whose header contradicts them. */
  dropInBad = 0;
  /** Connections whose bytes were no frames. */
  badStreams = 0;
  /** Offers that had to wait for outdev. */
  refusals = 0;
}

/** The outgoing half: frames to whoever is connected. */
class FrameOutlet {
  readonly #chardev: Chardev;
  readonly #writer: FrameWriter;
  readonly #onRoom: () => void;
  #channel: Channel | null = null;

  constructor(chardev: Chardev, context: LinkContext, vnetHdr: boolean, onRoom: () => void) {
    this.#chardev = chardev;
    this.#onRoom = onRoom;
    this.#writer = new FrameWriter(
      context,
      vnetHdr,
      (bytes, from, to) => this.#channel?.write(bytes, from, to) ?? to - from,
    );
    chardev.attach({
      opened: (channel): ChannelUser => {
        this.#writer.reset();
        this.#channel = channel;
        return {
          // Whatever the other end says is nothing to us.
          receive: (_bytes, from, to) => to - from,
          writable: () => {
            if (this.#writer.flush() || this.#writer.hasRoom) this.#onRoom();
          },
          closed: () => {
            this.#channel = null;
            this.#writer.reset();
            this.#onRoom();
          },
        };
      },
    });
  }

  get connected(): boolean {
    return this.#channel !== null;
  }

  write(frame: number): boolean {
    return this.#writer.write(frame);
  }

  close(): void {
    this.#writer.flush();
    this.#chardev.detach();
    this.#channel = null;
  }
}

export interface MirrorOptions {
  readonly id: string;
  readonly direction: FilterDirection;
  readonly vnetHdr: boolean;
}

export class MirrorFilter implements Filter {
  readonly type = 'filter-mirror';
  readonly id: string;
  readonly rx: PassingStage | null;
  readonly tx: PassingStage | null;
  readonly stats = new RedirectStats();
  active = true;
  readonly #outlet: FrameOutlet;

  constructor(options: MirrorOptions, context: LinkContext, outdev: Chardev) {
    this.id = options.id;
    this.#outlet = new FrameOutlet(outdev, context, options.vnetHdr, () => {});
    const stage = (): PassingStage => new MirrorStage(context, (frame) => this.#copy(frame));
    this.rx = options.direction === 'tx' ? null : stage();
    this.tx = options.direction === 'rx' ? null : stage();
  }

  #copy(frame: number): void {
    if (!this.#outlet.connected) this.stats.dropNotConnected++;
    else if (this.#outlet.write(frame)) this.stats.outFrames++;
    else this.stats.dropOutFull++;
  }

  close(): void {
    this.#outlet.close();
  }
}

class MirrorStage extends PassingStage {
  readonly #context: LinkContext;
  readonly #copy: (frame: number) => void;

  constructor(context: LinkContext, copy: (frame: number) => void) {
    super();
    this.#context = context;
    this.#copy = copy;
  }

  /** Copies are made of what the far end took, so that a frame which is offered twice is mirrored once. */
  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) pool.retain(frames[i]!);
    const taken = this.next.receive(frames, from, to);
    for (let i = from; i < from + taken; i++) this.#copy(frames[i]!);
    pool.releaseAll(frames, from, to);
    return taken;
  }
}

export class RedirectorFilter implements Filter {
  readonly type = 'filter-redirector';
  readonly id: string;
  readonly rx: PassingStage | null;
  readonly tx: PassingStage | null;
  readonly stats = new RedirectStats();
  active = true;
  readonly #outlet: FrameOutlet | null;
  readonly #inlet: FrameInlet | null;

  constructor(
    options: MirrorOptions,
    context: LinkContext,
    indev: Chardev | undefined,
    outdev: Chardev | undefined,
  ) {
    this.id = options.id;
    const { stats } = this;
    this.#outlet =
      outdev === undefined
        ? null
        : new FrameOutlet(outdev, context, options.vnetHdr, () => {
            this.rx?.previous.peerReady();
            this.tx?.previous.peerReady();
          });
    const stage = (): PassingStage => {
      const made: PassingStage =
        this.#outlet === null ? new ThroughStage() : new RedirectStage(context, this.#outlet, stats);
      return made;
    };
    this.rx = options.direction === 'tx' ? null : stage();
    this.tx = options.direction === 'rx' ? null : stage();
    try {
      this.#inlet =
        indev === undefined
          ? null
          : new FrameInlet(indev, context, options.vnetHdr, stats, () =>
              this.active ? [this.tx?.next, this.rx?.next].filter((sink) => sink !== undefined) : [],
            );
    } catch (error) {
      this.#outlet?.close();
      throw error;
    }
    const inlet = this.#inlet;
    if (inlet !== null) {
      for (const one of [this.rx, this.tx]) if (one !== null) one.onReady = () => inlet.goOn();
    }
  }

  close(): void {
    this.#inlet?.close();
    this.#outlet?.close();
  }
}

/** Lets everything pass; stands where frames from indev are put in. */
class ThroughStage extends PassingStage {
  receive(frames: Int32Array, from: number, to: number): number {
    return this.next.receive(frames, from, to);
  }
}

class RedirectStage extends PassingStage {
  readonly #context: LinkContext;
  readonly #outlet: FrameOutlet;
  readonly #stats: RedirectStats;

  constructor(context: LinkContext, outlet: FrameOutlet, stats: RedirectStats) {
    super();
    this.#context = context;
    this.#outlet = outlet;
    this.#stats = stats;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      if (!this.#outlet.connected) {
        this.#stats.dropNotConnected++;
      } else if (this.#outlet.write(frame)) {
        this.#stats.outFrames++;
      } else {
        this.#stats.refusals++;
        return i - from;
      }
      pool.release(frame);
    }
    return to - from;
  }
}

/** The incoming half: frames from whoever is connected, handed on one after the other. */
class FrameInlet {
  readonly #chardev: Chardev;
  readonly #context: LinkContext;
  readonly #reader: FrameReader;
  readonly #stats: RedirectStats;
  readonly #targets: () => readonly Sink[];
  readonly #one = new Int32Array(1);
  #channel: Channel | null = null;
  /** A frame that a target did not take yet, and the targets that are still to get it. */
  #waiting = 0;
  #left: readonly Sink[] = [];
  #delivering = false;

  constructor(
    chardev: Chardev,
    context: LinkContext,
    vnetHdr: boolean,
    stats: RedirectStats,
    targets: () => readonly Sink[],
  ) {
    this.#chardev = chardev;
    this.#context = context;
    this.#reader = new FrameReader(context.pool, vnetHdr);
    this.#stats = stats;
    this.#targets = targets;
    chardev.attach({
      opened: (channel): ChannelUser => {
        this.#channel = channel;
        this.#reader.reset();
        return {
          receive: (bytes, from, to) => this.#receive(bytes, from, to),
          closed: () => {
            this.#channel = null;
            this.#reader.reset();
          },
        };
      },
    });
  }

  #receive(bytes: Uint8Array, from: number, to: number): number {
    let at = from;
    while (at < to) {
      if (this.#waiting !== 0 && !this.#deliver()) return at - from;
      const outcome = this.#reader.push(bytes, at, to);
      at = this.#reader.position;
      if (outcome === 'more') break;
      if (outcome === 'bad') {
        this.#stats.badStreams++;
        this.#channel?.close();
        this.#channel = null;
        this.#reader.reset();
        return to - from;
      }
      if (this.#reader.frame === 0) {
        this.#stats.dropInBad++;
        continue;
      }
      this.#stats.inFrames++;
      this.#waiting = this.#reader.frame;
      this.#left = this.#targets();
      this.#deliver();
    }
    return at - from;
  }

  /** Gives the waiting frame to those who are still to get it; true when it is gone. */
  #deliver(): boolean {
    if (this.#delivering) return false;
    const { pool } = this.#context;
    this.#delivering = true;
    try {
      while (this.#left.length > 0) {
        const frame = this.#waiting;
        // Each but the last target gets a hold of its own.
        const shared = this.#left.length > 1;
        if (shared) pool.retain(frame);
        this.#one[0] = frame;
        if (this.#left[0]!.receive(this.#one, 0, 1) === 0) {
          if (shared) pool.release(frame);
          return false;
        }
        this.#left = this.#left.slice(1);
        if (!shared) {
          this.#waiting = 0;
          return true;
        }
      }
      pool.release(this.#waiting);
      this.#waiting = 0;
      return true;
    } finally {
      this.#delivering = false;
    }
  }

  /** The link takes frames again. */
  goOn(): void {
    if (this.#delivering || (this.#waiting !== 0 && !this.#deliver())) return;
    this.#channel?.resume();
  }

  close(): void {
    this.#chardev.detach();
    this.#channel = null;
    this.#reader.reset();
    if (this.#waiting !== 0) this.#context.pool.release(this.#waiting);
    this.#waiting = 0;
    this.#left = [];
  }
}

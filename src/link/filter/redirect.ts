/**
 * `filter-mirror` copies what passes to a chardev. `filter-redirector` takes what passes out to a chardev (outdev), and puts frames from
 * another one in at its place (indev): two of them, here and in another process, move a link's traffic through something in between.
 *
 * A copy that finds the chardev slow is dropped and counted: a mirror never slows its link. A redirected frame waits with its sender, as
 * on a slow link. While nobody is at the other end both drop, counted. Frames from indev go on in each direction that the filter works on,
 * as if they had passed it; while the link does not take them, nothing more is read.
 */

import type { Chardev } from '../../chardev/chardev.ts';
import type { LinkContext } from '../../core/port.ts';
import { type Filter, type FilterDirection, PassingStage } from './filter.ts';
import { FrameInlet, FrameOutlet, InletStats } from './frame-ends.ts';

export class RedirectStats extends InletStats {
  /** Frames written to outdev. */
  outFrames = 0;
  dropNotConnected = 0;
  /** Copies that found the chardev slow. */
  dropOutFull = 0;
  /** Offers that had to wait for outdev. */
  refusals = 0;
}

export interface MirrorOptions {
  readonly id: string;
  readonly direction: FilterDirection;
  readonly vnetHdr: boolean;
  /** How long the virtio_net_hdr is that frames on this link have now; 0: they have none. Asked with vnetHdr only. */
  readonly linkHeaderBytes: () => number;
}

export class MirrorFilter implements Filter {
  readonly type = 'filter-mirror';
  readonly id: string;
  readonly rx: PassingStage | null;
  readonly tx: PassingStage | null;
  readonly stats = new RedirectStats();
  active = true;
  readonly #outlet: FrameOutlet;
  readonly #headerBytes: () => number;

  constructor(options: MirrorOptions, context: LinkContext, outdev: Chardev) {
    this.id = options.id;
    this.#headerBytes = options.linkHeaderBytes;
    this.#outlet = new FrameOutlet(outdev, context, options.vnetHdr, () => {});
    const stage = (): PassingStage => new MirrorStage(context, (frame) => this.#copy(frame));
    this.rx = options.direction === 'tx' ? null : stage();
    this.tx = options.direction === 'rx' ? null : stage();
  }

  #copy(frame: number): void {
    if (!this.#outlet.connected) this.stats.dropNotConnected++;
    else if (this.#outlet.write(frame, this.#headerBytes())) this.stats.outFrames++;
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
        this.#outlet === null
          ? new ThroughStage()
          : new RedirectStage(context, this.#outlet, stats, options.linkHeaderBytes);
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
  readonly #headerBytes: () => number;

  constructor(context: LinkContext, outlet: FrameOutlet, stats: RedirectStats, headerBytes: () => number) {
    super();
    this.#context = context;
    this.#outlet = outlet;
    this.#stats = stats;
    this.#headerBytes = headerBytes;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      if (!this.#outlet.connected) {
        this.#stats.dropNotConnected++;
      } else if (this.#outlet.write(frame, this.#headerBytes())) {
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

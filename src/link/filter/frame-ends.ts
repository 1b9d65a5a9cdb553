/**
 * The two ends of a stream of frames on a chardev (frame-stream.ts), as filters and colo-compare use them: `FrameOutlet` writes to whoever is
 * connected, `FrameInlet` hands on what whoever is connected sends, one frame after the other, and reads nothing more while a frame waits.
 */

import type { Channel, ChannelUser, Chardev } from '../../chardev/chardev.ts';
import type { LinkContext, Sink } from '../../core/port.ts';
import { FrameReader, FrameWriter } from './frame-stream.ts';

export class FrameOutlet {
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

  /** Whether any frame finds room now. */
  get hasRoom(): boolean {
    return this.#writer.hasRoom;
  }

  /** As FrameWriter's. */
  write(frame: number, headerBytes: number): boolean {
    return this.#writer.write(frame, headerBytes);
  }

  close(): void {
    this.#writer.flush();
    this.#chardev.detach();
    this.#channel = null;
  }
}

export class InletStats {
  /** Frames read from indev. */
  inFrames = 0;
  /** Frames from indev that found no slot, or whose header contradicts them. */
  dropInBad = 0;
  /** Connections whose bytes were no frames. */
  badStreams = 0;
}

export class FrameInlet {
  readonly #chardev: Chardev;
  readonly #context: LinkContext;
  readonly #reader: FrameReader;
  readonly #stats: InletStats;
  /** Who gets a frame that came with a header of so many bytes; asked for each. */
  readonly #targets: (headerBytes: number) => readonly Sink[];
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
    stats: InletStats,
    targets: (headerBytes: number) => readonly Sink[],
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
      this.#left = this.#targets(this.#reader.headerBytes);
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

/**
 * One hop from client to client through a port, 64-byte frames in batches. `hop`: frames that exist already are sent, touched by the receiver
 * and put into its ring, from which the sender takes them for the next round (target: at least 50 M frames/s a core, ring and port
 * together). `life`: each frame is also allocated, written and released. Beside them the same work with a fresh Uint8Array per frame
 * handed to a callback, as an ordinary Node program would do it. One JSON line, with heap bytes per frame.
 */
import { OFFSET } from '../src/core/pool.ts';
import { type Client, Port } from '../src/core/port.ts';
import { Ring } from '../src/core/ring.ts';
import { benchContext } from './lib/context.ts';
import { Counter, Source } from './lib/ends.ts';
import { heapPerCall, nsPerItem } from './lib/micro.ts';
import { report, runtimeFacts } from './lib/report.ts';

const BATCH = 64;
const BYTES = 64;
const context = benchContext();
const source = new Source(context);
const counter = new Counter(context);
Port.connect(source.port, counter.port);

/** Keeps what it receives in a ring. */
class Keeper implements Client {
  readonly port = new Port('keeper', 'backend', this, context);
  readonly ring = new Ring(BATCH);
  touched = 0;

  receive(frames: Int32Array, from: number, to: number): number {
    const { table, bytes } = context.pool;
    for (let i = from; i < to; i++) this.touched = (this.touched + bytes[table[frames[i]! + OFFSET]!]!) | 0;
    return this.ring.push(frames, from, to);
  }

  peerReady(): void {}
}

const keeper = new Keeper();
const sender = new Source(context);
Port.connect(sender.port, keeper.port);
const batch = Int32Array.from({ length: BATCH }, () => context.pool.from(new Uint8Array(BYTES)));
const hop = (): void => {
  if (sender.port.send(batch, 0, BATCH) !== BATCH) throw new Error('frames were refused');
  keeper.ring.pop(batch, BATCH);
};

let touched = 0;
const onFrame = (frame: Uint8Array): void => {
  touched = (touched + frame[13]!) | 0;
};
const freshArrays = (): void => {
  for (let i = 0; i < BATCH; i++) {
    const frame = new Uint8Array(BYTES);
    for (let b = 0; b < 14; b++) frame[b] = b + i;
    onFrame(frame);
  }
};

const ns = nsPerItem({ hop, life: () => source.burst(BATCH, BYTES), freshArrays }, BATCH);
const heap = heapPerCall(() => source.burst(BATCH, BYTES)) / BATCH;
if (counter.frames !== source.port.stats.sentFrames) throw new Error('frames were lost');

report({
  bench: 'port',
  ...runtimeFacts(),
  batch: BATCH,
  frameBytes: BYTES,
  nsPerFrame: ns,
  hopMillionPerSecond: 1000 / ns.hop!,
  freshArraysOverLife: ns.freshArrays! / ns.life!,
  heapBytesPerFrame: heap,
  checksum: touched + counter.touched + keeper.touched,
});

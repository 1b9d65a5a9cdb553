/**
 * A transfer allocates nothing on the heap for a frame, once it is compiled: two stacks back to back, an hour into the clock (where microseconds are no
 * small integers to the engine any more). What is left is the noise of the test runner. A run in which memory was collected tells nothing and is repeated.
 */
import { expect, it } from 'vitest';
import { seededRandom, VirtualClock } from '../../src/core/clock.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool, OFFSET, TOTAL } from '../../src/core/pool.ts';
import { ACCEPT_ALL } from '../../src/core/port.ts';
import type { Connection, TcpUser } from '../../src/tcp/connection.ts';
import { linkHeaderV4 } from '../../src/tcp/link-header.ts';
import { HEADER_ROOM, TcpStack } from '../../src/tcp/stack.ts';
import { IP_A, IP_B, inputFrame, MAC_A, MAC_B } from './lib/pair.ts';

const FRAMES = 10_000;
const BYTES_PER_FRAME_MAX = 4;
const FRAME_BYTES = 64_000;
const HOUR_NS = 3600e9;
const ROUND_NS = 50_000;

/** Sends while `left` bytes are left, a slot a frame, or takes what comes. */
class Mover implements TcpUser {
  left = 0;
  takenBytes = 0;
  readonly #pool: FramePool;

  constructor(pool: FramePool) {
    this.#pool = pool;
  }

  established(): void {}

  deliver(_c: Connection, frames: Int32Array, from: number, to: number, skip: number): number {
    let taken = -skip;
    for (let i = from; i < to; i++) taken += this.#pool.table[frames[i]! + TOTAL]!;
    this.takenBytes += taken;
    return taken;
  }

  sendReady(c: Connection): void {
    const { table } = this.#pool;
    while (this.left > 0) {
      const part = Math.min(FRAME_BYTES, c.sendRoom());
      if (part === 0) return;
      const frame = this.#pool.alloc(HEADER_ROOM + part);
      table[frame + OFFSET] = table[frame + OFFSET]! + HEADER_ROOM;
      this.#pool.setLength(frame, part);
      this.left -= part;
      c.send(frame);
    }
  }

  peerClosed(): void {}
  closed(): void {}
}

/** One end, and the frames that it sent and the other has not seen yet. */
class End {
  readonly frames = new Int32Array(1024);
  count = 0;
  readonly stack: TcpStack;
  readonly mover: Mover;

  constructor(pool: FramePool, loop: Loop, mac: Uint8Array) {
    this.mover = new Mover(pool);
    this.stack = new TcpStack({
      pool,
      loop,
      random: seededRandom(1),
      mac,
      lower: {
        accepts: ACCEPT_ALL,
        room: () => this.frames.length - this.count,
        transmit: (frame) => {
          this.frames[this.count++] = frame;
        },
      },
      incoming: (c) => {
        c.user = this.mover;
        c.accept();
      },
    });
  }

  handOver(pool: FramePool, to: TcpStack): void {
    const { count } = this;
    this.count = 0;
    for (let i = 0; i < count; i++) inputFrame(to, pool, this.frames[i]!);
    to.flush();
  }
}

it('heap allocation is none for a frame of a transfer', () => {
  const clock = new VirtualClock();
  clock.setNs(HOUR_NS);
  const loop = new Loop(clock);
  const pool = new FramePool();
  const a = new End(pool, loop, MAC_A);
  const b = new End(pool, loop, MAC_B);
  const c = a.stack.connect(a.mover, linkHeaderV4(MAC_B, MAC_A, IP_A, IP_B), 0, 80)!;
  let time = HOUR_NS;
  const round = (): void => {
    time += ROUND_NS;
    clock.setNs(time);
    loop.run();
    a.handOver(pool, b.stack);
    b.handOver(pool, a.stack);
  };
  const transfer = (): void => {
    a.mover.left = FRAMES * FRAME_BYTES;
    a.mover.sendReady(c);
    for (let rounds = 0; a.mover.left > 0; rounds++) {
      if (rounds > 10 * FRAMES) throw new Error('the transfer stands still');
      round();
    }
  };
  for (let i = 0; i < 4; i++) round();
  for (let i = 0; i < 3; i++) transfer();
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 12 && least > BYTES_PER_FRAME_MAX; i++) {
    const before = process.memoryUsage().heapUsed;
    transfer();
    const grown = (process.memoryUsage().heapUsed - before) / FRAMES;
    if (grown >= 0 && grown < least) least = grown;
  }
  for (let i = 0; i < 4; i++) round();
  expect(b.mover.takenBytes).toBeGreaterThanOrEqual(4 * FRAMES * FRAME_BYTES);
  expect(least).toBeLessThan(BYTES_PER_FRAME_MAX);
  c.abort();
  a.handOver(pool, b.stack);
  b.handOver(pool, a.stack);
  a.stack.close();
  b.stack.close();
  expect(pool.free).toBe(pool.capacity);
});

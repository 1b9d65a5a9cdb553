/** The plainest clients there are, to put at the ends of what is measured: one takes frames from the pool, one touches and frees them. */

import { LENGTH, OFFSET, TOTAL } from '../../src/core/pool.ts';
import { type Client, type LinkContext, Port } from '../../src/core/port.ts';

export class Source implements Client {
  readonly port: Port;
  readonly #context: LinkContext;
  readonly #batch = new Int32Array(256);

  constructor(context: LinkContext, name = 'source') {
    this.#context = context;
    this.port = new Port(name, 'backend', this, context);
  }

  receive(frames: Int32Array, from: number, to: number): number {
    this.#context.pool.releaseAll(frames, from, to);
    return to - from;
  }

  peerReady(): void {}

  /** Sends `count` fresh frames of `length` bytes, writing the first 14 of each. */
  burst(count: number, length: number): void {
    const { pool } = this.#context;
    const { table, bytes } = pool;
    const batch = this.#batch;
    for (let i = 0; i < count; i++) {
      const frame = pool.alloc(length);
      if (frame === 0) throw new Error('the pool is exhausted: frames were lost');
      const at = table[frame + OFFSET]!;
      for (let b = 0; b < 14; b++) bytes[at + b] = b + i;
      table[frame + LENGTH] = length;
      table[frame + TOTAL] = length;
      batch[i] = frame;
    }
    if (this.port.send(batch, 0, count) !== count) throw new Error('frames were refused');
  }
}

export class Counter implements Client {
  readonly port: Port;
  frames = 0;
  bytes = 0;
  touched = 0;
  readonly #context: LinkContext;

  constructor(context: LinkContext, name = 'counter') {
    this.#context = context;
    this.port = new Port(name, 'backend', this, context);
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    const { table, bytes } = pool;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      this.touched = (this.touched + bytes[table[frame + OFFSET]! + 13]!) | 0;
      this.bytes += table[frame + TOTAL]!;
      pool.release(frame);
    }
    this.frames += to - from;
    return to - from;
  }

  peerReady(): void {}
}

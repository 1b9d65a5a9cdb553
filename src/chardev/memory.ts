/** `null` swallows what is written; `ringbuf` keeps the last bytes of it, for the monitor's ringbuf-read. Neither ever has anything to read. */

import type { ChardevConfig } from '../config/chardevs.ts';
import { PlainChardev } from './base.ts';

export class NullChardev extends PlainChardev {
  describe(): string {
    return 'null';
  }

  write(_bytes: Uint8Array, from: number, to: number): number {
    this.stats.txBytes += to - from;
    return to - from;
  }
}

export class RingbufChardev extends PlainChardev {
  readonly #ring: Uint8Array;
  /** Bytes written and read since the start; what lies between them, at most the ring's size, is kept. */
  #written = 0;
  #read = 0;

  constructor(config: ChardevConfig, sizeBytes: number) {
    super(config);
    this.#ring = new Uint8Array(sizeBytes);
  }

  describe(): string {
    return 'ringbuf';
  }

  write(bytes: Uint8Array, from: number, to: number): number {
    const ring = this.#ring;
    for (let i = Math.max(from, to - ring.length); i < to; i++) {
      ring[(this.#written + i - from) & (ring.length - 1)] = bytes[i]!;
    }
    this.#written += to - from;
    this.#read = Math.max(this.#read, this.#written - ring.length);
    this.stats.txBytes += to - from;
    return to - from;
  }

  /** Takes up to `limit` of the oldest bytes out. */
  read(limit: number): Uint8Array {
    const ring = this.#ring;
    const out = new Uint8Array(Math.min(limit, this.#written - this.#read));
    for (let i = 0; i < out.length; i++) out[i] = ring[(this.#read + i) & (ring.length - 1)]!;
    this.#read += out.length;
    return out;
  }
}

/**
 * Time is a number of nanoseconds (a double: exact for 104 days) since the clock's own start, and is always passed in. `SystemClock` takes
 * its source from outside (`performance.now` in a browser, `process.hrtime` in Node); `VirtualClock` moves only when it is told to.
 */

export interface Clock {
  nowNs(): number;
}

export class SystemClock implements Clock {
  readonly nowNs: () => number;

  /** `source` returns milliseconds that never go back, as `performance.now` does. */
  constructor(source: () => number) {
    const start = source();
    this.nowNs = () => Math.round((source() - start) * 1e6);
  }
}

export class VirtualClock implements Clock {
  #nowNs = 0;

  nowNs(): number {
    return this.#nowNs;
  }

  /** Moves the clock forward; a time in the past leaves it where it is. Timers fire when their loop runs. */
  setNs(timeNs: number): void {
    if (timeNs > this.#nowNs) this.#nowNs = timeNs;
  }
}

/** A source of chance: an unsigned 32-bit number at each call. */
export type Random = () => number;

/** xorshift128 (Marsaglia 2003), seeded: the same seed gives the same run. Not for secrets. */
export function seededRandom(seed: number): Random {
  let x = (seed ^ 0x9e3779b9) | 1;
  let y = 0x6c078965 ^ (seed << 13);
  let z = 0x5851f42d;
  let w = seed | 0x10001;
  return () => {
    const t = x ^ (x << 11);
    x = y;
    y = z;
    z = w;
    w = w ^ (w >>> 19) ^ t ^ (t >>> 8);
    return w >>> 0;
  };
}

/**
 * The host's random numbers: the kernel's, fetched in stocks, because a request for four bytes costs as much as one for thousands, and a datagram
 * wants a number. One that was given away is wiped, so memory that leaks later does not tell it.
 */

import { randomFillSync } from 'node:crypto';
import type { Random } from '../core/clock.ts';

const STOCK = 1024;

/** Unsigned 32-bit numbers nobody can foretell. */
export function systemRandom(): Random {
  const stock = new Uint32Array(STOCK);
  let next = STOCK;
  return () => {
    if (next === STOCK) {
      randomFillSync(stock);
      next = 0;
    }
    const number = stock[next]!;
    stock[next++] = 0;
    return number;
  };
}

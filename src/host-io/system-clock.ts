/** The machine's monotonic clock. */

// Not the global of that name: that is a getter, asked anew at each look at the clock.
import { performance } from 'node:perf_hooks';
import { type Clock, SystemClock } from '../core/clock.ts';

export function systemClock(): Clock {
  return new SystemClock(() => performance.now());
}

/**
 * Drives a loop in a browser's page or worker, which has no setImmediate: a message to oneself is the next turn, since setTimeout waits 4 ms there. Portable.
 */

import { InvariantError } from '../core/errors.ts';
import type { Loop } from '../core/loop.ts';
import { LoopDriver } from './driver.ts';

/** What is used of a page's globals. */
export interface PageGlobals {
  setTimeout(run: () => void, delayMs: number): unknown;
  clearTimeout(timeout: unknown): void;
  readonly MessageChannel: new () => {
    readonly port1: { onmessage: unknown; close(): void };
    readonly port2: { postMessage(message: unknown): void };
  };
}

/** Runs `loop` whenever it has work, until the returned function is called. `page` is a page's `globalThis`. */
export function drivePage(loop: Loop, page: PageGlobals): () => void {
  const { port1, port2 } = new page.MessageChannel();
  let wanted: (() => void) | null = null;
  port1.onmessage = () => {
    const run = wanted;
    wanted = null;
    run?.();
  };
  let timeout: unknown = null;
  const driver = new LoopDriver(
    loop,
    (delayNs) => {
      if (timeout !== null) page.clearTimeout(timeout);
      timeout = null;
      if (delayNs === Number.POSITIVE_INFINITY) return;
      timeout = page.setTimeout(
        () => {
          timeout = null;
          driver.timerFired();
          driver.turn();
        },
        Math.min(Math.ceil(delayNs / 1e6), 0x7fff_ffff),
      );
    },
    {
      setImmediate(run) {
        if (wanted !== null) throw new InvariantError('one turn at a time');
        wanted = run;
        port2.postMessage(null);
        return port2;
      },
      clearImmediate() {
        wanted = null;
      },
    },
  );
  return () => {
    driver.stop();
    port1.close();
  };
}

/** A loop driven by a page's globals: Node's are like them. */

import { expect, it } from 'vitest';
import { SystemClock } from '../../src/core/clock.ts';
import { Loop } from '../../src/core/loop.ts';
import { drivePage, type PageGlobals } from '../../src/host-io/page-driver.ts';

it('runs tasks and timers when they are due, and nothing after it was stopped', async () => {
  const timeouts = new Set<unknown>();
  const page: PageGlobals = {
    MessageChannel: globalThis.MessageChannel as unknown as PageGlobals['MessageChannel'],
    setTimeout(run, delayMs) {
      const timeout = setTimeout(() => {
        timeouts.delete(timeout);
        run();
      }, delayMs);
      timeouts.add(timeout);
      return timeout;
    },
    clearTimeout(timeout) {
      timeouts.delete(timeout);
      clearTimeout(timeout as NodeJS.Timeout);
    },
  };
  const loop = new Loop(new SystemClock(() => performance.now()));
  const order: string[] = [];
  const stop = drivePage(loop, page);
  await new Promise<void>((resolve) => {
    const last = loop.timer(() => {
      order.push('timer');
      loop.post(() => {
        order.push('task of the timer');
        resolve();
      });
    });
    loop.timer(() => order.push('never')).armIn(3600e9);
    last.armIn(2e6);
    loop.post(() => {
      order.push('task');
      loop.post(() => order.push('task of the task'));
    });
  });
  expect(order).toEqual(['task', 'task of the task', 'timer', 'task of the timer']);
  expect(timeouts.size).toBe(1);
  loop.post(() => order.push('too late'));
  stop();
  expect(timeouts.size).toBe(0);
  await new Promise((resolve) => setImmediate(resolve));
  expect(order).toHaveLength(4);
});

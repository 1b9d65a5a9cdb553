/** Ten thousand connections: what each costs while it is idle, that none is lost, and that all of it goes away. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import type { FramePool } from '../../src/core/pool.ts';
import { Pair, TestUser } from './lib/pair.ts';

it('10,000 idle connections cost under 3 KB each at either end, and none fails', () => {
  const pair = new Pair({ accepts: 63 });
  const pool: FramePool = pair.pool;
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const users: TestUser[] = [];
  pair.accept = () => {
    const user = new TestUser(pool);
    users.push(user);
    return user;
  };
  const open = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const user = new TestUser(pool);
      users.push(user);
      pair.connect(user, 80 + (users.length & 7));
      if (i % 100 === 99) pair.run(1e6);
    }
    pair.run(1e9);
  };
  open(2000); // warm-up
  collect();
  const before = process.memoryUsage().heapUsed;
  open(10_000);
  collect();
  const perEnd = (process.memoryUsage().heapUsed - before) / 20_000;
  expect(pair.a.connections).toBe(12_000);
  expect(pair.b.connections).toBe(12_000);
  expect(users.every((user) => user.log.length === 1 && user.log[0] === 'established')).toBe(true);
  expect(pair.a.heldSlots + pair.b.heldSlots).toBe(0);
  expect(pair.clean).toBe(true);
  // The test's user, with arrays of its own, is counted in.
  expect(perEnd).toBeLessThan(3000);
  for (const c of [...pair.a]) c.close();
  for (const user of users) user.closeOnEnd = true;
  pair.run(1e9);
  for (const c of [...pair.b]) c.close();
  pair.run(300e9);
  expect(pair.a.connections + pair.b.connections).toBe(0);
  expect(pair.clean).toBe(true);
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom, VirtualClock } from '../../src/core/clock.ts';
import { Loop, type Timer } from '../../src/core/loop.ts';

describe('Loop', () => {
  it('fires timers by deadline, equal ones in the order they were armed', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ at: fc.nat(50), cancel: fc.boolean(), again: fc.option(fc.nat(50)) })),
        (plan) => {
          const loop = new Loop(new VirtualClock());
          const fired: number[] = [];
          const timers = plan.map((_, i) => loop.timer(() => fired.push(i)));
          const model: { i: number; at: number; order: number }[] = [];
          let order = 0;
          plan.forEach(({ at, cancel, again }, i) => {
            timers[i]!.arm(at);
            model.push({ i, at, order: order++ });
            if (again !== null) {
              timers[i]!.arm(again);
              model.splice(
                model.findIndex((m) => m.i === i),
                1,
                { i, at: again, order: order++ },
              );
            }
            if (cancel) {
              timers[i]!.cancel();
              model.splice(
                model.findIndex((m) => m.i === i),
                1,
              );
            }
          });
          loop.runUntil(100);
          model.sort((a, b) => a.at - b.at || a.order - b.order);
          expect(fired).toEqual(model.map((m) => m.i));
          expect(loop.nextNs).toBe(Number.POSITIVE_INFINITY);
        },
      ),
    );
  });

  it('runs what a task posts in the next turn', () => {
    const loop = new Loop(new VirtualClock());
    const seen: string[] = [];
    loop.post(() => {
      seen.push('a');
      loop.post(() => seen.push('b'));
    });
    loop.run();
    expect(seen).toEqual(['a']);
    expect(loop.nextNs).toBe(Number.NEGATIVE_INFINITY);
    loop.run();
    expect(seen).toEqual(['a', 'b']);
  });

  it('a timer that re-arms itself in the past fires once a turn', () => {
    const loop = new Loop(new VirtualClock());
    let count = 0;
    const timer: Timer = loop.timer(() => {
      count++;
      timer.arm(0);
    });
    timer.arm(0);
    loop.run();
    expect(count).toBe(1);
    timer.cancel();
  });

  it('tells its driver when work comes nearer', () => {
    const loop = new Loop(new VirtualClock());
    let told = 0;
    loop.onWork = () => told++;
    const late = loop.timer(() => {});
    late.arm(100);
    expect(told).toBe(1);
    const later = loop.timer(() => {});
    later.arm(200);
    expect(told).toBe(1);
    later.arm(50);
    expect(told).toBe(2);
    loop.post(() => {});
    loop.post(() => {});
    expect(told).toBe(3);
    late.cancel();
    later.cancel();
  });

  it('is not re-entrant, and goes on after a task that threw', () => {
    const loop = new Loop(new VirtualClock());
    let ran = 0;
    loop.post(() => loop.run());
    loop.post(() => ran++);
    expect(() => loop.run()).toThrow('runs already');
    expect(ran).toBe(0);
    loop.run();
    expect(ran).toBe(1);
    expect(loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  });

  it('waits for a condition in virtual time', () => {
    const loop = new Loop(new VirtualClock());
    let done = false;
    loop
      .timer(() => {
        done = true;
      })
      .arm(5e9);
    expect(loop.runWhile(() => !done)).toBe(true);
    expect(loop.clock.nowNs()).toBe(5e9);
    expect(loop.runWhile(() => true, 1e9)).toBe(false);
  });
});

it('the same seed gives the same numbers, another seed others', () => {
  const take = (seed: number) => {
    const random = seededRandom(seed);
    return Array.from({ length: 5 }, () => random());
  };
  expect(take(7)).toEqual(take(7));
  expect(take(7)).not.toEqual(take(8));
  expect(take(7).every((n) => Number.isInteger(n) && n >= 0 && n < 2 ** 32)).toBe(true);
});

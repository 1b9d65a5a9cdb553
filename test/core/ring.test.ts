import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Ring, SharedRing } from '../../src/core/ring.ts';

it('Ring and SharedRing behave like a bounded queue', () => {
  const step = fc.oneof(
    fc.record({ push: fc.array(fc.integer({ min: 1, max: 1 << 20 }), { maxLength: 12 }) }),
    fc.record({ pop: fc.integer({ min: 0, max: 12 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const ring = new Ring(8);
      const shared = new SharedRing(8);
      const model: number[] = [];
      const target = new Int32Array(12);
      for (const action of steps) {
        if ('push' in action) {
          const frames = Int32Array.from(action.push);
          const room = Math.min(frames.length, 8 - model.length);
          expect(ring.push(frames, 0, frames.length)).toBe(room);
          expect(shared.pushAll(frames, 0, frames.length)).toBe(room);
          model.push(...action.push.slice(0, room));
        } else {
          const expected = model.splice(0, action.pop);
          expect([...target.subarray(0, ring.pop(target, action.pop))]).toEqual(expected);
          expect([...target.subarray(0, shared.pop(target, action.pop))]).toEqual(expected);
        }
        expect(ring.length).toBe(model.length);
        expect(shared.length).toBe(model.length);
      }
    }),
  );
});

it('a ring must hold a power of two', () => {
  expect(() => new Ring(12)).toThrow('power of two');
  expect(() => new SharedRing(3)).toThrow('power of two');
});

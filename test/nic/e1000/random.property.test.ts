/**
 * Random drivers: streams of register accesses, descriptors in RAM, frames from the link, time and resets. Whatever comes, each step is bounded and
 * raises no exception, no frame is lost for ever, and afterwards a properly driven frame passes both ways.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { REGISTERS } from '../../../src/nic/e1000/registers.ts';
import { E1000Rig, MAC, testFrame } from '../../lib/e1000-rig.ts';

const RING = 0x200000;
const RING_DESCRIPTORS = 32;

const offsets = REGISTERS.flatMap(({ offset, count, stride }) => [offset, offset + (count - 1) * stride]);
const words = fc.oneof(
  fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  fc.constantFrom(
    0,
    1,
    2,
    3,
    31,
    32,
    0x80,
    0x200,
    0xffff,
    0xffffffff,
    RING,
    RING + 64,
    0x800000,
    0x7fffff,
    0x04000000,
  ),
  fc.integer({ min: 0, max: 31 }).map((bit) => 2 ** bit),
);
const register = fc.oneof(fc.constantFrom(...offsets), fc.integer({ min: 0, max: 0x1ffff }));
/** Descriptors that mean something more often than chance would have it. */
const descriptor = fc.tuple(
  fc.oneof(fc.integer({ min: 0x300000, max: 0x400000 }), words),
  fc.oneof(fc.constant(0), words),
  fc
    .tuple(
      fc.constantFrom(0, 0x20100000, 0x20000000, 0x20200000),
      fc.integer({ min: 0, max: 255 }),
      fc.oneof(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 0, max: 0xfffff })),
    )
    .map(([kind, command, length]) => ((command << 24) | kind | length) >>> 0),
  fc.oneof(words, fc.constantFrom(0x100, 0x200, 0x300, (54 << 8) | (1460 << 16), (54 << 8) | (1 << 16))),
);

type Op =
  | { kind: 'write' | 'narrow'; offset: number; size: number; value: number }
  | { kind: 'read'; offset: number; size: number }
  | { kind: 'ring'; at: number; words: number[] }
  | { kind: 'frame'; length: number; facts: number }
  | { kind: 'time'; ns: number }
  | { kind: 'peer'; limit: number; hold: boolean }
  | { kind: 'config'; offset: number; value: number }
  | { kind: 'doorbell'; tail: number }
  | { kind: 'rings' }
  | { kind: 'reset' };

const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      offset: register,
      size: fc.constant(4),
      value: words,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('narrow' as const),
      offset: register,
      size: fc.constantFrom(1, 2, 4, 8),
      value: words,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      offset: register,
      size: fc.constantFrom(1, 2, 4, 8),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('ring' as const),
      at: fc.integer({ min: 0, max: RING_DESCRIPTORS - 1 }),
      words: descriptor.map((four) => [...four]),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('frame' as const),
      length: fc.integer({ min: 0, max: 3000 }),
      facts: fc.constantFrom(0, 2),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('time' as const), ns: fc.integer({ min: 1, max: 1e9 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('peer' as const),
      limit: fc.constantFrom(0, 1, 5, 1e9),
      hold: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('config' as const),
      offset: fc.constantFrom(4, 5, 0x10, 0xe0, 0x3c),
      value: words,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('doorbell' as const),
      tail: fc.integer({ min: 0, max: RING_DESCRIPTORS }),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: 'rings' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'reset' as const }) },
);

function apply(rig: E1000Rig, step: Op): void {
  const { machine, nic } = rig;
  switch (step.kind) {
    case 'write':
    case 'narrow':
      nic.writeBar(0, step.offset, step.size, step.value);
      break;
    case 'read': {
      const value = nic.readBar(0, step.offset, step.size);
      expect(Number.isInteger(value) && value >= 0).toBe(true);
      break;
    }
    case 'ring':
      machine.ram.words.set(step.words, (RING >> 2) + 4 * step.at);
      break;
    case 'frame': {
      const frame = testFrame(step.length);
      frame.set(MAC.subarray(0, Math.min(6, step.length)));
      machine.peer.send(frame, step.facts);
      break;
    }
    case 'time':
      machine.settle(step.ns);
      break;
    case 'peer':
      machine.peer.limit = step.limit;
      machine.peer.hold = step.hold;
      if (!step.hold) machine.peer.letGo();
      machine.peer.port.ready();
      break;
    case 'config':
      nic.writeConfig(step.offset, 4, step.value);
      break;
    case 'doorbell':
      rig.put(0x3818, step.tail);
      break;
    case 'rings':
      // Something that works, for the next steps to break.
      nic.writeConfig(4, 2, 6);
      for (const base of [0x3800, 0x2800]) {
        rig.put(base, RING);
        rig.put(base + 4, 0);
        rig.put(base + 8, RING_DESCRIPTORS * 16);
        rig.put(base + 0x10, 0);
        rig.put(base + 0x18, base === 0x3800 ? 0 : RING_DESCRIPTORS - 1);
      }
      rig.put(0x400, 0x4010a);
      rig.put(0x100, 0x801a);
      break;
    case 'reset':
      nic.reset();
      break;
  }
}

describe('random drivers', () => {
  it('never raise an exception, take bounded steps, and leave a NIC that works after a reset', () => {
    fc.assert(
      fc.property(
        fc.array(op, { minLength: 1, maxLength: 120 }),
        fc.boolean(),
        fc.boolean(),
        (steps, accepts, together) => {
          const rig = new E1000Rig({
            strict: true,
            accepts: accepts ? 63 : 0,
            large: 40,
            small: 2200,
            together,
          });
          // The driver would serve interrupts that it knows nothing of.
          rig.machine.onInterrupt = null;
          let framesBefore = 0;
          for (const step of steps) {
            apply(rig, step);
            const frames = rig.machine.peer.frames.length;
            // One lap of the largest ring, each frame in at most 2048 pieces, would still be far more; a loop would not end.
            expect(frames - framesBefore).toBeLessThan(70_000);
            framesBefore = frames;
          }
          rig.machine.onInterrupt = () => rig.driver.interrupt();
          rig.put(0xd8, 0xffffffff);
          rig.put(0, 0x04000000);
          rig.expectGood();
          rig.close();
        },
      ),
      { numRuns: 150 },
    );
  });

  it('random states are refused or taken, never an exception of another kind', () => {
    const rig = new E1000Rig();
    rig.machine.onInterrupt = null;
    const good = rig.nic.saveState();
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(fc.integer({ min: 0, max: 6143 }), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
          { maxLength: 40 },
        ),
        fc.integer({ min: 0, max: 65_536 }),
        fc.integer({ min: 0, max: 65_536 }),
        fc.boolean(),
        (changes, head, done, parts) => {
          const state = structuredClone(good);
          for (const [word, value] of changes) state.registers[word] = value;
          state.tx.head = head;
          state.tx.done = done;
          state.tx.frames = [{ bytes: '00'.repeat(60), facts: [0x401, 1, 2, 3, 4], end: 65_536 }];
          if (parts)
            state.tx.parts = {
              list: [
                [0.5, 20],
                [1e300, 5],
              ],
              startedAt: 3,
              command: -1,
              options: -1,
              broken: false,
            };
          rig.nic.loadState(state);
          rig.machine.settle(1e6);
          rig.put(0x3818, 5);
          rig.machine.settle(1e6);
        },
      ),
      { numRuns: 100 },
    );
    rig.machine.onInterrupt = () => rig.driver.interrupt();
    rig.put(0xd8, 0xffffffff);
    rig.expectGood();
    rig.close();
  });
});

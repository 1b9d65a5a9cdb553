/**
 * Random drivers: streams of register accesses, descriptors in RAM, frames from the link, time and resets. Whatever comes, each step is bounded and
 * raises no exception, no frame is lost for ever, and afterwards a properly driven frame passes both ways.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/core/errors.ts';
import { REGISTERS } from '../../../src/nic/rtl8139/registers.ts';
import { MAC, Rtl8139Rig, testFrame } from '../../lib/rtl8139-rig.ts';

const RING = 0x200000;
const BUFFERS = 0x300000;
const RING_DESCRIPTORS = 64;

const register = fc.oneof(
  fc.constantFrom(...REGISTERS.map(({ offset }) => offset)),
  fc.integer({ min: 0, max: 259 }),
);
const words = fc.oneof(
  fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  fc.constantFrom(
    0,
    1,
    3,
    0x0c,
    0x10,
    0x3c,
    0x40,
    0x80,
    0xc0,
    0xffff,
    0xffffffff,
    RING,
    BUFFERS,
    0x7fff00,
    0x800000,
  ),
  fc.integer({ min: 0, max: 31 }).map((bit) => 2 ** bit),
);
/** Descriptors that mean something more often than chance would have it. */
const descriptor = fc.tuple(
  fc
    .tuple(
      fc.constantFrom(0x8, 0x9, 0xa, 0xb, 0xb, 0xb, 0xc, 0xf, 0x0, 0x3),
      fc.integer({ min: 0, max: 4095 }),
      fc.oneof(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 0, max: 0xffff })),
    )
    .map(([flags, command, length]) => (((flags << 28) | (command << 16)) + length) >>> 0),
  fc.oneof(fc.constant(0), fc.constant(0x20500), words),
  fc.oneof(fc.integer({ min: BUFFERS, max: 0x400000 }), words),
  fc.oneof(fc.constant(0), fc.constant(0), words),
);

type Op =
  | { kind: 'write'; offset: number; size: number; value: number }
  | { kind: 'read'; offset: number; size: number }
  | { kind: 'ring'; at: number; words: number[] }
  | { kind: 'frame'; length: number; facts: number; tagged: boolean }
  | { kind: 'time'; ns: number }
  | { kind: 'peer'; limit: number; hold: boolean }
  | { kind: 'config'; offset: number; value: number }
  | { kind: 'classic'; index: number; length: number; address: number }
  | { kind: 'packet'; at: number; protocol: number; ihl: number; length: number }
  | { kind: 'poll' | 'plus' | 'set-classic' | 'reset' };

const of = <K extends Op['kind']>(kind: K): fc.Arbitrary<K> => fc.constant(kind);
const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: of('write'),
      offset: register,
      size: fc.constantFrom(1, 2, 4, 4, 8),
      value: words,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: of('read'), offset: register, size: fc.constantFrom(1, 2, 4, 8) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: of('ring'),
      at: fc.integer({ min: 0, max: RING_DESCRIPTORS - 1 }),
      words: descriptor.map((four) => [...four]),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: of('frame'),
      length: fc.integer({ min: 0, max: 6000 }),
      facts: fc.constantFrom(0, 2),
      tagged: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: of('time'), ns: fc.integer({ min: 1, max: 1e9 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: of('peer'), limit: fc.constantFrom(0, 1, 5, 1e9), hold: fc.boolean() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: of('config'),
      offset: fc.constantFrom(4, 5, 0x10, 0x14, 0x54, 0x3c),
      value: words,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: of('classic'),
      index: fc.integer({ min: 0, max: 3 }),
      length: fc.integer({ min: 0, max: 0x3fff }),
      address: fc.oneof(fc.integer({ min: BUFFERS, max: 0x400000 }), words),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: of('packet'),
      at: fc.integer({ min: BUFFERS, max: 0x300800 }),
      protocol: fc.constantFrom(6, 17, 1),
      ihl: fc.constantFrom(5, 5, 5, 0, 4, 6, 15),
      length: fc.integer({ min: 0, max: 3000 }),
    }),
  },
  { weight: 5, arbitrary: fc.record({ kind: of('poll') }) },
  { weight: 2, arbitrary: fc.record({ kind: of('plus') }) },
  { weight: 1, arbitrary: fc.record({ kind: of('set-classic') }) },
  { weight: 1, arbitrary: fc.record({ kind: of('reset') }) },
);

function apply(rig: Rtl8139Rig, step: Op): void {
  const { machine, nic } = rig;
  switch (step.kind) {
    case 'write':
      nic.writeBar(step.value & 1, step.offset, step.size, step.value);
      break;
    case 'read': {
      const value = nic.readBar(1, step.offset, step.size);
      expect(Number.isInteger(value) && value >= 0).toBe(true);
      break;
    }
    case 'ring':
      machine.ram.words.set(step.words, (RING >> 2) + 4 * step.at);
      break;
    case 'frame': {
      const frame = testFrame(step.length);
      frame.set(MAC.subarray(0, Math.min(6, step.length)));
      if (step.tagged && step.length > 14) frame.set([0x81, 0], 12);
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
    case 'classic':
      rig.put(0x20 + 4 * step.index, step.address);
      rig.put(0x10 + 4 * step.index, step.length);
      break;
    case 'packet':
      machine.ram.bytes.set([8, 0, 0x40 | step.ihl, 0, step.length >> 8, step.length & 255], step.at + 12);
      machine.ram.bytes.set([0, 0, 64, step.protocol], step.at + 20);
      break;
    case 'poll':
      rig.put(0xd9, 0xc0, 1);
      break;
    case 'plus':
      // Something that works, for the next steps to break. Both transmit rings and the receive ring are one.
      nic.writeConfig(4, 2, 7);
      rig.put(0xe0, 0x6b, 2);
      rig.put(0x37, 0x0c, 1);
      for (const at of [0x20, 0x28, 0xe4]) {
        rig.put(at, RING);
        rig.put(at + 4, 0);
      }
      rig.put(0x44, 0xf);
      break;
    case 'set-classic':
      nic.writeConfig(4, 2, 7);
      rig.put(0xe0, 0, 2);
      rig.put(0x37, 0x0c, 1);
      rig.put(0x30, RING);
      rig.put(0x44, 0x8f);
      break;
    case 'reset':
      nic.reset();
      break;
  }
}

describe.each(['8139c+', '8139c'] as const)('random drivers of the %s', (chip) => {
  it('never raise an exception, take bounded steps, and leave a NIC that works after a reset', () => {
    fc.assert(
      fc.property(fc.array(op, { minLength: 1, maxLength: 120 }), fc.boolean(), (steps, accepts) => {
        const rig = new Rtl8139Rig({ chip, strict: true, accepts: accepts ? 63 : 0, large: 40, small: 2200 });
        // The driver would serve interrupts that it knows nothing of.
        rig.machine.onInterrupt = null;
        let framesBefore = 0;
        for (const step of steps) {
          apply(rig, step);
          const frames = rig.machine.peer.frames.length;
          // 64 descriptors of each ring, each frame in at most 2048 pieces; time may run many passes. A loop would not end.
          expect(frames - framesBefore).toBeLessThan(300_000);
          framesBefore = frames;
        }
        rig.machine.peer.frames.length = 0;
        rig.expectGood();
        rig.close();
      }),
      { numRuns: 150 },
    );
  });

  it('random states are refused or taken, never an exception of another kind', () => {
    const rig = new Rtl8139Rig({ chip });
    rig.machine.onInterrupt = null;
    const good = rig.nic.saveState();
    let taken = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 255 })), {
          maxLength: 40,
        }),
        fc.array(
          fc.tuple(
            fc.integer({ min: 0, max: 63 }),
            fc.integer({ min: 0, max: 4 }),
            fc.integer({ min: 0, max: 65 }),
          ),
          {
            maxLength: 10,
          },
        ),
        fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        fc.integer({ min: -1, max: 64 }),
        (changes, ring, timerCount, index) => {
          const state = structuredClone(good);
          for (const [at, value] of changes) state.registers[at] = value;
          for (const [at, busy, span] of ring) {
            state.tx.rings[at & 1]!.busy[at] = busy;
            state.tx.rings[at & 1]!.span[at] = span;
          }
          state.timerCount = timerCount;
          state.rxIndex = index;
          state.tx.polled = 0xc0;
          state.tx.classic = { next: index & 3, pending: timerCount & 15 };
          try {
            rig.nic.loadState(state);
            taken++;
          } catch (error) {
            expect(error).toBeInstanceOf(OptionError);
          }
          rig.machine.settle(1e6);
          rig.put(0xd9, 0xc0, 1);
          rig.machine.peer.send(testFrame(100));
          rig.machine.settle(1e6);
        },
      ),
      { numRuns: 150 },
    );
    expect(taken).toBeGreaterThan(10);
    rig.expectGood();
    rig.close();
  });
});

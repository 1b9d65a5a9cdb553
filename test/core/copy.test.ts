/** Copies between memories, in every alignment and length, against a byte loop. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteMemory, copyMemory, copyRounded, copyRun, wordsOf } from '../../src/core/copy.ts';

const SIZE = 6144;
const run = fc.record({
  from: fc.integer({ min: 0, max: 40 }),
  to: fc.integer({ min: 0, max: 40 }),
  length: fc.oneof(fc.integer({ min: 0, max: 80 }), fc.integer({ min: 80, max: 5000 })),
  skew: fc.integer({ min: 0, max: 15 }),
});

function memories(skew: number): { source: Uint8Array; target: Uint8Array } {
  const source = new Uint8Array(new ArrayBuffer(SIZE + 16), skew, SIZE).map((_, i) => (i * 31 + 7) & 0xff);
  const sourceThere = new Uint8Array(new ArrayBuffer(SIZE + 16), skew, SIZE);
  sourceThere.set(source);
  return { source: sourceThere, target: new Uint8Array(SIZE).fill(0xee) };
}

/** Faster than a deep comparison of two arrays. */
function indexOfDifference(a: Uint8Array, b: Uint8Array): number {
  return a.findIndex((byte, i) => byte !== b[i]);
}

describe('copies between memories', () => {
  it('copyMemory writes exactly its run', () => {
    fc.assert(
      fc.property(run, ({ from, to, length, skew }) => {
        const { source, target } = memories(skew);
        const expected = target.slice();
        for (let i = 0; i < length; i++) expected[to + i] = source[from + i]!;
        copyMemory(new ByteMemory(source), from, new ByteMemory(target), to, length);
        expect(indexOfDifference(target, expected)).toBe(-1);
      }),
    );
  });

  it('copyRounded writes its run and touches at most the words it begins and ends in', () => {
    fc.assert(
      fc.property(run, ({ from, to, length, skew }) => {
        const start = 64 + 8 * to + (from & 7);
        const { source, target } = memories(skew);
        const expected = source.slice(from, from + length);
        copyRounded(new ByteMemory(source), from, new ByteMemory(target), start, length);
        expect(target.slice(start, start + length)).toEqual(expected);
        expect(target.slice(0, start & ~7).every((byte) => byte === 0xee)).toBe(true);
        expect(target.slice((start + length + 7) & ~7).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
  });

  it('copyRun writes exactly its run', () => {
    fc.assert(
      fc.property(run, ({ from, to, length, skew }) => {
        const { source, target } = memories(skew);
        const expected = target.slice();
        for (let i = 0; i < length; i++) expected[to + i] = source[from + i]!;
        copyRun(source, wordsOf(source), from, target, wordsOf(target), to, length);
        expect(indexOfDifference(target, expected)).toBe(-1);
      }),
    );
  });

  it('what lies past the source reads as zeros', () => {
    const target = new Uint8Array(32).fill(0xee);
    copyMemory(new ByteMemory(Uint8Array.of(1, 2, 3, 4)), 2, new ByteMemory(target), 1, 16);
    expect([...target.subarray(0, 20)]).toEqual([
      0xee,
      3,
      4,
      ...new Array<number>(14).fill(0),
      0xee,
      0xee,
      0xee,
    ]);
  });
});

/** Runs copied together: the list's own way and the addon's do the same, whatever the runs are. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { COPIES_MAX, COPY_WORDS, CopyList } from '../../src/core/copy-list.ts';
import { InvariantError } from '../../src/core/errors.ts';
import { FramePool } from '../../src/core/pool.ts';
import { createNativeHostIo, type NativeHostIo } from '../../src/host-io/native.ts';

const RAM_BYTES = 16384;
/** Each run has its own part of the target, so that none overlap. */
const PART_BYTES = 2048;

const runs = fc.array(
  fc.record({
    source: fc.constantFrom(1, 2, 3),
    from: fc.integer({ min: 0, max: RAM_BYTES + 100 }),
    at: fc.integer({ min: 0, max: 20 }),
    length: fc.oneof(fc.integer({ min: 0, max: 80 }), fc.integer({ min: 80, max: 2000 })),
  }),
  { maxLength: 8 },
);

let hostIo: NativeHostIo | null = null;
afterEach(() => {
  hostIo?.shutdown();
  hostIo = null;
});

function ram(seed: number): Uint8Array {
  return Uint8Array.from({ length: RAM_BYTES }, (_, i) => (i * 31 + seed) & 0xff);
}

/** A pool with RAM in regions 1 to 3, of which the last is taken away. */
function machine(): FramePool {
  const pool = new FramePool({ smallSlots: 16, largeSlots: 0, bareRecords: 0 });
  for (const seed of [1, 2, 3]) pool.addRegion(ram(seed));
  pool.removeRegion(3);
  pool.bytes.fill(0xee);
  return pool;
}

describe('copies made together', () => {
  it('native code and the list itself write the same, and nothing else', () => {
    const ours = machine();
    const native = machine();
    hostIo = createNativeHostIo();
    hostIo.attachPool(native);
    fc.assert(
      fc.property(runs, (list) => {
        for (const pool of [ours, native]) {
          pool.bytes.fill(0xee);
          for (const [i, { source, from, at, length }] of list.entries())
            pool.copies.add(source, from, 0, i * PART_BYTES + at, length);
          pool.copies.run();
          expect(pool.copies.count).toBe(0);
        }
        const expected = new Uint8Array(ours.bytes.length).fill(0xee);
        for (const [i, { source, from, at, length }] of list.entries()) {
          const bytes = source === 3 ? new Uint8Array(0) : ram(source);
          for (let k = 0; k < length; k++) expected[i * PART_BYTES + at + k] = bytes[from + k] ?? 0;
        }
        expect(ours.bytes.findIndex((byte, i) => byte !== expected[i])).toBe(-1);
        expect(native.bytes.findIndex((byte, i) => byte !== expected[i])).toBe(-1);
      }),
    );
    expect(native.copies.engineRuns).toBeGreaterThan(0);
    expect(ours.copies.engineRuns).toBe(0);
  });

  it('is one call of the engine for as many runs as a list holds', () => {
    const pool = machine();
    hostIo = createNativeHostIo();
    hostIo.attachPool(pool);
    for (let i = 0; i < COPIES_MAX; i++) pool.copies.add(1, 3 * i, 0, 64 * i, 60);
    pool.copies.run();
    expect([pool.copies.engineCalls, pool.copies.engineRuns]).toEqual([1, COPIES_MAX]);
    const source = ram(1);
    for (let i = 0; i < COPIES_MAX; i++) expect(pool.bytes[64 * i + 59]).toBe(source[3 * i + 59]);
    expect(pool.copies.list.length).toBe(COPIES_MAX * COPY_WORDS);
  });

  it('a run that does not fit its target is refused whole, and is a mistake of ours', () => {
    const pool = machine();
    hostIo = createNativeHostIo();
    hostIo.attachPool(pool);
    const before = pool.bytes.slice();
    for (const [source, from, target, to, length] of [
      [1, 0, 0, pool.bytes.length - 10, 11],
      [1, 0, 3, 0, 1],
      [1, 0, 5000, 0, 1],
      [-1, 0, 0, 0, 1],
      [1, -1, 0, 0, 1],
      [1, 0, 0, -1, 1],
      [1, 0, 0, 0, -1],
    ] as const) {
      pool.copies.add(source, from, target, to, length);
      expect(() => pool.copies.run()).toThrow(InvariantError);
    }
    expect(pool.bytes).toEqual(before);
    pool.copies.add(1, 0, 0, 0, 64);
    pool.copies.run();
    expect(pool.bytes.slice(0, 64)).toEqual(ram(1).slice(0, 64));
  });

  it('is worth adding long runs to, where there is an engine', () => {
    const list = new CopyList([]);
    expect(list.minBytes).toBeGreaterThan(2 ** 30);
    list.setEngine((count) => count);
    expect(list.minBytes).toBeGreaterThan(60);
    expect(list.minBytes).toBeLessThan(1514);
    list.setEngine(null);
    expect(list.minBytes).toBeGreaterThan(2 ** 30);
  });

  it('a host that ends leaves the copying to the list', () => {
    const pool = machine();
    const ended = createNativeHostIo();
    ended.attachPool(pool);
    ended.shutdown();
    pool.copies.add(2, 5, 0, 7, 100);
    pool.copies.run();
    expect(pool.bytes.slice(7, 107)).toEqual(ram(2).slice(5, 105));
    expect(pool.copies.engineRuns).toBe(0);
  });
});

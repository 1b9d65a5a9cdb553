/** The log of written pages, against a naive twin, and when GuestMemory marks in it. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FramePool } from '../../src/core/pool.ts';
import { DirtyLog } from '../../src/pci/dirty-log.ts';
import { DMA_BOTH, DMA_READ, DMA_WRITE, GuestMemory } from '../../src/pci/guest-memory.ts';

const marked = (bits: Uint8Array): number[] =>
  [...bits].flatMap((byte, i) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((n) => byte & (1 << n)).map((n) => 8 * i + n),
  );

test('a run marks every page that it touches, and none beyond the log', () => {
  const run = fc.tuple(fc.integer({ min: 0, max: 40 * 4096 }), fc.integer({ min: 0, max: 5 * 4096 }));
  fc.assert(
    fc.property(fc.array(run, { maxLength: 6 }), (runs) => {
      const bits = new Uint8Array(4);
      const log = new DirtyLog(bits, () => {});
      const pages = new Set<number>();
      for (const [at, length] of runs) {
        log.mark(at, length);
        for (let page = 0; page < 32; page++)
          if (length > 0 && at < (page + 1) * 4096 && page * 4096 < at + length) pages.add(page);
      }
      expect(marked(bits)).toEqual([...pages].sort((a, b) => a - b));
    }),
  );
});

test('addresses that no log covers are counted, however large', () => {
  const log = new DirtyLog(new Uint8Array(1), () => {});
  log.mark(8 * 4096, 1);
  log.mark(2 ** 52, 2 ** 30);
  log.mark(2 ** 64, 1);
  expect(log.missed).toBe(3);
});

test('what is translated for writing is marked when it was written: with the next run, or when settled', () => {
  const pool = new FramePool({ smallSlots: 4, largeSlots: 1, bareRecords: 4, debug: true });
  const memory = new GuestMemory(pool);
  memory.add(0x10000, new Uint8Array(0x10000));
  memory.add(0x20000, new Uint8Array(0x10000));
  const bits = new Uint8Array(8);
  // Remembered from before the log was there.
  expect(memory.translate(0x10000, 4, DMA_BOTH)).toBe(0);
  memory.dirtyLog = new DirtyLog(bits, () => {});
  const seen = (): number[] => marked(bits);
  memory.translate(0x11000, 0x1001, DMA_WRITE);
  expect(seen()).toEqual([]);
  memory.translate(0x15000, 4, DMA_READ);
  expect(seen()).toEqual([]);
  memory.translate(0x13ffe, 4, DMA_WRITE);
  expect(seen()).toEqual([0x11, 0x12]);
  memory.settleLog();
  expect(seen()).toEqual([0x11, 0x12, 0x13, 0x14]);
  // Over two ranges, and what cannot be written.
  expect(memory.write(0x1fffe, new Uint8Array(4), 0, 4)).toBe(true);
  expect(memory.write(0x2fffe, new Uint8Array(4), 0, 4)).toBe(false);
  memory.clear(0x25000, 16);
  memory.settleLog();
  expect(seen()).toEqual([0x11, 0x12, 0x13, 0x14, 0x1f, 0x20, 0x25]);
  memory.dirtyLog = null;
  memory.translate(0x18000, 4, DMA_WRITE);
  memory.settleLog();
  expect(seen()).not.toContain(0x18);
  memory.removeAll();
  expect(pool.free).toBe(pool.capacity);
});

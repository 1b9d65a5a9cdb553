import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvariantError } from '../../src/core/errors.ts';
import {
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  FramePool,
  LENDER,
  LENGTH,
  MAX_FRAME_BYTES,
  NEXT,
  OFFSET,
  REGION,
  TAG,
  TOTAL,
} from '../../src/core/pool.ts';

const small = () => new FramePool({ smallSlots: 8, largeSlots: 2, bareRecords: 32, debug: true });
const counting = (length: number, from = 0) => Uint8Array.from({ length }, (_, i) => (i + from) & 0xff);

describe('FramePool', () => {
  it('gives out every slot once and takes them back', () => {
    const pool = small();
    const frames = Array.from({ length: 8 }, () => pool.alloc(60));
    expect(new Set(frames).size).toBe(8);
    expect(pool.alloc(60)).toBe(0);
    expect(pool.exhausted).toBe(1);
    for (const frame of frames) pool.release(frame);
    expect(pool.free).toBe(pool.capacity);
  });

  it('takes a large slot for what a small one cannot hold', () => {
    const pool = small();
    const frame = pool.from(counting(MAX_FRAME_BYTES));
    expect(pool.freeLarge).toBe(1);
    expect(pool.toBytes(frame)).toEqual(counting(MAX_FRAME_BYTES));
    pool.release(frame);
    expect(pool.from(counting(MAX_FRAME_BYTES + 1))).toBe(0);
    expect(pool.free).toBe(pool.capacity);
  });

  it('hardening 15: refuses a frame longer than 64 KiB and headers', () => {
    const pool = small();
    expect(pool.from(new Uint8Array(MAX_FRAME_BYTES), 0, 2 ** 31)).toBe(0);
    expect(pool.free).toBe(pool.capacity);
  });

  it('frees a shared frame with its last holder', () => {
    const pool = small();
    const frame = pool.from(counting(100));
    pool.retain(frame);
    pool.retain(frame);
    expect(pool.isPrivate(frame)).toBe(false);
    pool.release(frame);
    pool.release(frame);
    expect(pool.free).toBe(pool.capacity - 1);
    expect(pool.isPrivate(frame)).toBe(true);
    pool.release(frame);
    expect(pool.free).toBe(pool.capacity);
  });

  it('throws on a second release and on use after release', () => {
    const pool = small();
    const frame = pool.from(counting(100));
    pool.release(frame);
    expect(() => pool.release(frame)).toThrow(InvariantError);
    expect(() => pool.check(frame)).toThrow('used after release');
    expect(() => pool.retain(frame)).toThrow('used after release');
  });

  it('hardening 20: a debug pool poisons what is released', () => {
    const pool = small();
    const frame = pool.from(counting(100));
    const at = pool.table[frame + OFFSET]!;
    pool.release(frame);
    expect([...pool.bytes.subarray(at, at + 100)].every((byte) => byte === 0xdb)).toBe(true);
  });

  it('tells the lender when the last holder of borrowed memory is gone', () => {
    const pool = small();
    const ram = counting(4096, 7);
    const region = pool.addRegion(ram);
    const returned: number[] = [];
    const lender = pool.addLender({ returned: (tag) => returned.push(tag) });
    const frame = pool.from(ram, 0, 192);
    pool.table[frame + LENDER] = lender;
    pool.table[frame + TAG] = 42;
    const tail = pool.borrow(frame, frame, region, 192, 1000);
    pool.borrow(frame, tail, region, 3000, 500);
    expect(pool.table[frame + TOTAL]).toBe(1692);
    pool.check(frame);
    const expected = new Uint8Array(1692);
    expected.set(ram.subarray(0, 1192));
    expected.set(ram.subarray(3000, 3500), 1192);
    expect(pool.toBytes(frame)).toEqual(expected);
    pool.retain(frame);
    const copy = pool.writable(frame);
    expect(copy).not.toBe(frame);
    expect(pool.toBytes(copy)).toEqual(expected);
    expect(returned).toEqual([]);
    pool.release(frame);
    expect(returned).toEqual([42]);
    pool.release(copy);
    expect(pool.freeBare).toBe(32);
    expect(pool.free).toBe(pool.capacity);
  });

  it('takes every kind of record back to its own kind, also a segment that was taken off its frame', () => {
    const pool = new FramePool({ smallSlots: 2, largeSlots: 2, bareRecords: 2 });
    const region = pool.addRegion(new Uint8Array(64));
    const frame = pool.alloc(100);
    const large = pool.allocLarge();
    pool.setLength(frame, 20);
    const segment = pool.borrow(frame, frame, region, 0, 64);
    pool.table[frame + NEXT] = 0;
    pool.table[frame + TOTAL] = 20;
    for (const one of [segment, large, frame]) pool.release(one);
    expect([pool.freeSmall, pool.freeLarge, pool.freeBare]).toEqual([2, 2, 2]);
    // Nothing is left of the region in what is given out next.
    const whole = pool.alloc(64);
    expect(pool.table[pool.part(whole, 0, 1) + REGION]).toBe(0);
  });

  it('reads a removed region as zeros', () => {
    const pool = small();
    const region = pool.addRegion(counting(1000, 1));
    const frame = pool.from(counting(192));
    pool.borrow(frame, frame, region, 10, 300);
    pool.removeRegion(region);
    const bytes = pool.toBytes(frame);
    expect(bytes.length).toBe(492);
    expect(bytes.subarray(192).every((byte) => byte === 0)).toBe(true);
    pool.release(frame);
  });

  it('uses a region number again and tells watchers', () => {
    const pool = small();
    const seen: [number, number][] = [];
    pool.watchRegions({ regionChanged: (region, bytes) => seen.push([region, bytes.length]) });
    const a = pool.addRegion(new Uint8Array(10));
    pool.removeRegion(a);
    expect(pool.addRegion(new Uint8Array(20))).toBe(a);
    expect(seen.slice(1)).toEqual([
      [a, 10],
      [a, 0],
      [a, 20],
    ]);
  });

  it('writable leaves a private frame as it is and keeps the facts of a copy', () => {
    const pool = small();
    const frame = pool.from(counting(100));
    expect(pool.writable(frame)).toBe(frame);
    pool.table[frame + FACTS] = FACT_NEEDS_CSUM;
    pool.table[frame + CSUM_START] = 34;
    pool.retain(frame);
    const copy = pool.writable(frame);
    expect(copy).not.toBe(frame);
    expect(pool.table[copy + FACTS]).toBe(FACT_NEEDS_CSUM);
    expect(pool.table[copy + CSUM_START]).toBe(34);
    pool.release(copy);
    pool.release(frame);
    expect(pool.free).toBe(pool.capacity);
  });

  it('reads any range of a chain as a plain array would', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 6 }),
        fc.nat(5000),
        fc.nat(5000),
        (parts, at, length) => {
          const pool = small();
          const ram = counting(8192, 3);
          const region = pool.addRegion(ram);
          const frame = pool.from(counting(200));
          const whole = [...counting(200)];
          let tail = frame;
          for (const part of parts) {
            tail = pool.borrow(frame, tail, region, part, part);
            whole.push(...ram.subarray(part, part + part));
          }
          const target = new Uint8Array(length);
          const copied = pool.read(frame, at, target, 0, length);
          expect([...target.subarray(0, copied)]).toEqual(whole.slice(at, at + length));
          pool.release(frame);
          expect(pool.free).toBe(pool.capacity);
          expect(pool.freeBare).toBe(32);
        },
      ),
    );
  });

  it('joins two frames and frees both with the first', () => {
    const pool = small();
    const a = pool.from(counting(300));
    const b = pool.from(counting(50, 9));
    pool.append(a, b);
    pool.check(a);
    expect(pool.toBytes(a)).toEqual(Uint8Array.from([...counting(300), ...counting(50, 9)]));
    expect(pool.table[a + LENGTH]).toBe(300);
    pool.release(a);
    expect(pool.free).toBe(pool.capacity);
  });
});

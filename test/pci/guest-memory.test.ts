/** Guest memory: translation is all or nothing, copies cross ranges, frames borrow. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { FramePool, NEXT } from '../../src/core/pool.ts';
import { DMA_BOTH, DMA_READ, DMA_WRITE, GuestMemory, NOT_BORROWABLE } from '../../src/pci/guest-memory.ts';

function ramp(length: number): Uint8Array {
  return new Uint8Array(length).map((_, i) => i & 0xff);
}

function setUp(): { pool: FramePool; memory: GuestMemory } {
  const pool = new FramePool({ smallSlots: 8, largeSlots: 2, bareRecords: 8, debug: true });
  return { pool, memory: new GuestMemory(pool) };
}

describe('guest memory', () => {
  it('translates a run that lies in one range', () => {
    const { memory } = setUp();
    const low = ramp(4096);
    const high = ramp(8192);
    expect(memory.add(0x1000, low)).toBe(true);
    expect(memory.add(2 ** 32, high)).toBe(true);
    expect(memory.translate(0x1010, 16, DMA_BOTH)).toBe(16);
    expect(memory.hit.bytes).toBe(low);
    expect(memory.translate(2 ** 32 + 8191, 1, DMA_BOTH)).toBe(8191);
    expect(memory.hit.bytes).toBe(high);
  });

  it('hardening 12: a run that leaves its range, falls into a hole, is empty or wraps is refused whole', () => {
    const { memory } = setUp();
    const bytes = ramp(4096);
    memory.add(0x1000, bytes);
    memory.add(0x3000, ramp(4096));
    const target = new Uint8Array(8192).fill(0xee);
    for (const [address, length] of [
      [0xfff, 2],
      [0x1fff, 2],
      [0x2000, 1],
      [0x1000, 0],
      [0x1000, -5],
      [0x1000, Number.NaN],
      [0x1f00, 0x1200],
      [2 ** 53, 16],
      [2 ** 64 - 8, 16],
      [2 ** 64, 1],
      [-16, 32],
    ] as const) {
      expect(memory.translate(address, length, DMA_READ), `${address}+${length}`).toBe(-1);
      expect(memory.read(address, target, 0, length)).toBe(false);
      expect(memory.write(address, target, 0, length)).toBe(false);
    }
    expect(target.every((byte) => byte === 0xee)).toBe(true);
    expect(bytes).toEqual(ramp(4096));
  });

  it('reads and writes runs of every length and alignment', () => {
    const { memory } = setUp();
    const bytes = ramp(256);
    memory.add(0x1000, bytes);
    for (let from = 0; from < 8; from++)
      for (let length = 1; length <= 80; length++) {
        const target = new Uint8Array(96).fill(0xee);
        expect(memory.read(0x1000 + from, target, 5, length)).toBe(true);
        expect(target).toEqual(
          new Uint8Array(96).fill(0xee).map((byte, i) => (i < 5 || i >= 5 + length ? byte : from + i - 5)),
        );
        const before = bytes.slice();
        const source = ramp(96).reverse();
        expect(memory.write(0x1000 + from, source, 3, length)).toBe(true);
        before.set(source.subarray(3, 3 + length), from);
        expect(bytes).toEqual(before);
        bytes.set(ramp(256));
      }
  });

  it('never reads half of a word that the guest is writing', async () => {
    const { memory } = setUp();
    const shared = new SharedArrayBuffer(4096);
    memory.add(0x1000, new Uint8Array(shared));
    const guest = new Worker(
      `const words = new Int32Array(require('node:worker_threads').workerData);
       for (;;) { for (let i = 0; i < 4096; i++) words[4] = -(i & 1); if (Atomics.load(words, 0) !== 0) break; }`,
      { eval: true, workerData: shared },
    );
    const left = once(guest, 'exit');
    const descriptor = new Uint8Array(16);
    const seen = new Set<number>();
    const both = new Set([0, 0xffffffff]);
    const all = (): boolean => [...both].every((word) => seen.has(word));
    for (let i = 0; i < 1e6 || !all(); i++) {
      memory.read(0x1010, descriptor, 0, 16);
      seen.add(
        (descriptor[0]! | (descriptor[1]! << 8) | (descriptor[2]! << 16) | (descriptor[3]! << 24)) >>> 0,
      );
    }
    Atomics.store(new Int32Array(shared), 0, 1);
    await left;
    expect(seen).toEqual(both);
  });

  it('refuses ranges that are empty, overlap, are not aligned or pass 2^53', () => {
    const { memory } = setUp();
    expect(memory.add(0x1000, ramp(4096))).toBe(true);
    expect(memory.add(0x1ff0, ramp(16))).toBe(false);
    expect(memory.add(0xff0, ramp(32))).toBe(false);
    expect(memory.add(0x2000, ramp(0))).toBe(false);
    expect(memory.add(0x2008, ramp(16))).toBe(false);
    expect(memory.add(2 ** 53 - 16, ramp(32))).toBe(false);
    expect(memory.add(-16, ramp(16))).toBe(false);
    expect(memory.add(Number.NaN, ramp(16))).toBe(false);
    expect(memory.add(0x2000, new Uint8Array(new ArrayBuffer(32), 2, 16))).toBe(false);
    expect(memory.add(0xff0, ramp(16))).toBe(true);
    expect(memory.ranges.map(({ start }) => start)).toEqual([0xff0, 0x1000]);
  });

  it('keeps read-only ranges from writes and write-only ones from reads', () => {
    const { memory } = setUp();
    memory.add(0, ramp(4096), DMA_READ);
    memory.add(0x1000, ramp(4096), DMA_WRITE);
    expect(memory.u8(5)).toBe(5);
    expect(memory.putU8(5, 1)).toBe(false);
    expect(memory.u8(0x1005)).toBe(-1);
    expect(memory.putU8(0x1005, 1)).toBe(true);
    expect(memory.translate(0, 16, DMA_BOTH)).toBe(-1);
  });

  it('copies across adjacent ranges and reads numbers little-endian', () => {
    const { memory } = setUp();
    const low = ramp(4096);
    const high = ramp(4096);
    memory.add(0, low);
    memory.add(4096, high);
    expect(memory.translate(4090, 12, DMA_READ)).toBe(-1);
    expect(memory.write(4090, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 0, 10)).toBe(true);
    expect([...low.subarray(4090), ...high.subarray(0, 4)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(memory.u32(4094)).toBe(0x08070605);
    expect(memory.putU32(4094, 0xdeadbeef)).toBe(true);
    expect(memory.u16(4095)).toBe(0xadbe);
    expect(memory.clear(4090, 10)).toBe(true);
    expect(memory.u32(4094)).toBe(0);
  });

  it('reaches remote ranges by their owner, and does not borrow from them', () => {
    const { pool, memory } = setUp();
    const far = ramp(256);
    memory.add(0, ramp(4096));
    memory.addRemote(4096, {
      length: 256,
      read(offset, target, at, length) {
        target.set(far.subarray(offset, offset + length), at);
        return true;
      },
      write(offset, source, at, length) {
        far.set(source.subarray(at, at + length), offset);
        return offset < 128;
      },
    });
    expect(memory.translate(4096, 4, DMA_READ)).toBe(-1);
    expect(memory.covers(4000, 300, DMA_BOTH)).toBe(true);
    const target = new Uint8Array(300);
    expect(memory.read(4000, target, 0, 300)).toBe(true);
    expect(target[95]).toBe(4095 & 0xff);
    expect(target[96]).toBe(0);
    expect(target[299]).toBe(203);
    expect(memory.putU32(4096, 0x01020304)).toBe(true);
    expect(far[0]).toBe(4);
    expect(memory.putU32(4096 + 200, 1)).toBe(false);
    const frame = pool.alloc(60);
    pool.setLength(frame, 60);
    expect(memory.borrow(frame, frame, 4000, 300)).toBe(NOT_BORROWABLE);
    pool.release(frame);
    expect(pool.free).toBe(pool.capacity);
  });

  it('lends runs to frames, across ranges too, and forgets what is removed', () => {
    const { pool, memory } = setUp();
    memory.add(0, ramp(4096));
    memory.add(4096, ramp(4096));
    const frame = pool.alloc(200);
    pool.setLength(frame, 200);
    const tail = memory.borrow(frame, frame, 4000, 200);
    expect(tail).toBeGreaterThan(0);
    expect(pool.table[frame + NEXT]).not.toBe(tail);
    expect(pool.toBytes(frame).subarray(200, 202)).toEqual(Uint8Array.of(4000 & 0xff, 4001 & 0xff));
    expect(pool.toBytes(frame).length).toBe(400);
    const generation = memory.generation;
    expect(memory.remove(4096, 4096)).toBe(true);
    expect(memory.generation).not.toBe(generation);
    expect(memory.translate(4096, 1, DMA_READ)).toBe(-1);
    expect(
      pool
        .toBytes(frame)
        .subarray(296)
        .every((byte) => byte === 0),
    ).toBe(true);
    pool.release(frame);
    expect(memory.borrow(pool.alloc(60), 0, 2 ** 40, 4)).toBe(NOT_BORROWABLE);
    expect(memory.remove(0, 1)).toBe(false);
    expect(memory.removeWithin(0, 2 ** 40)).toBe(1);
    expect(memory.ranges).toEqual([]);
  });

  it('gives regions back over many changes', () => {
    const { pool, memory } = setUp();
    for (let i = 0; i < 10_000; i++) {
      memory.add(16 * i, ramp(16));
      if (i % 3 === 2) memory.removeAll();
    }
    memory.removeAll();
    expect(pool.regions.length).toBeLessThan(8);
  });
});

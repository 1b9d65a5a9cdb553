/** The reader against a naive twin (wire/framing.ts), on streams cut anywhere. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameReader, NO_SLOT } from '../../src/backends/frame-reader.ts';
import { SLOT } from '../../src/core/pool.ts';
import type { HostIo } from '../../src/host-io/host-io.ts';
import { FRAMING_BAD, FRAMING_FRAME, FRAMING_MORE, StreamFraming } from '../../src/wire/framing.ts';
import { testContext } from '../lib/context.ts';

const BARE = 2048;

/** A host whose one stream gives these bytes, at most as many at a time as `cuts` say in turn. */
function streamOf(
  pool: ReturnType<typeof testContext>['pool'],
  bytes: Uint8Array,
  cuts: readonly number[],
): HostIo {
  let at = 0;
  let turn = 0;
  return {
    receiveStream(_handle, frames, from, _to, offset, each) {
      const cut = cuts[turn++ % cuts.length]!;
      const length = Math.min(each, cut, bytes.length - at);
      if (length === 0) return 0;
      pool.bytes.set(bytes.subarray(at, at + length), pool.table[frames[from]! + SLOT]! + offset);
      at += length;
      return length;
    },
  } satisfies Pick<HostIo, 'receiveStream'> as unknown as HostIo;
}

function framed(frames: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(frames.reduce((sum, frame) => sum + 4 + frame.length, 0));
  let at = 0;
  for (const frame of frames) {
    new DataView(bytes.buffer).setUint32(at, frame.length);
    bytes.set(frame, at + 4);
    at += 4 + frame.length;
  }
  return bytes;
}

/** What the twin finds, and whether it ended at a bad length. */
function naive(bytes: Uint8Array): { frames: Uint8Array[]; bad: boolean; midFrame: boolean } {
  const framing = new StreamFraming();
  const frames: Uint8Array[] = [];
  let parts: number[] = [];
  framing.begin(0);
  for (;;) {
    const found = framing.next(bytes, bytes.length);
    if (found === FRAMING_MORE || found === FRAMING_BAD) {
      return { frames, bad: found === FRAMING_BAD, midFrame: framing.midFrame };
    }
    parts.push(...bytes.subarray(framing.pieceStart, framing.pieceEnd));
    if (found === FRAMING_FRAME) {
      frames.push(Uint8Array.from(parts));
      parts = [];
    }
  }
}

/** What the reader finds; `limit` frames are taken at a time and kept until the end. */
function read(
  bytes: Uint8Array,
  cuts: readonly number[],
  limit: number,
): { frames: Uint8Array[]; bad: boolean; midFrame: boolean } {
  const context = testContext({ bareRecords: BARE, largeSlots: 32 });
  const { pool } = context;
  const reader = new FrameReader(pool);
  const host = streamOf(pool, bytes, cuts);
  const batch = new Int32Array(limit);
  const held: number[] = [];
  const frames: Uint8Array[] = [];
  for (let got = 1; got !== 0 && !reader.bad; ) {
    got = reader.receive(host, 1);
    expect(got).not.toBe(NO_SLOT);
    for (let count = limit; count === limit; ) {
      count = reader.take(batch, limit);
      for (let i = 0; i < count; i++) {
        pool.check(batch[i]!);
        frames.push(pool.toBytes(batch[i]!));
        held.push(batch[i]!);
      }
    }
    if (held.length > 40) for (const frame of held.splice(0)) pool.release(frame);
    if (cuts[0]! % 3 === 0) reader.idle();
  }
  const result = { frames, bad: reader.bad, midFrame: reader.midFrame };
  for (const frame of held) pool.release(frame);
  reader.reset();
  expect(pool.free).toBe(pool.capacity);
  expect(pool.freeBare).toBe(BARE);
  return result;
}

const frame = fc
  .oneof(
    fc.integer({ min: 0, max: 300 }),
    fc.integer({ min: 1500, max: 2500 }),
    fc.integer({ min: 60_000, max: 69_632 }),
  )
  .map((length) => Uint8Array.from({ length }, (_, i) => (i * 7 + length) & 0xff));
const cuts = fc.array(
  fc.oneof(
    fc.integer({ min: 1, max: 8 }),
    fc.integer({ min: 190, max: 210 }),
    fc.integer({ min: 500, max: 80_000 }),
  ),
  {
    minLength: 1,
    maxLength: 12,
  },
);

describe('frames out of a stream', () => {
  it('are the twin’s, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 12 }),
        cuts,
        fc.integer({ min: 1, max: 64 }),
        (frames, cut, limit) => {
          // Bytes one at a time make thousands of reads: only for short streams.
          const bytes = framed(frames);
          const usable = bytes.length > 20_000 ? cut.map((length) => Math.max(length, 500)) : cut;
          const result = read(bytes, usable, limit);
          expect(result.frames.length).toBe(frames.length);
          for (const [i, one] of frames.entries()) expect(Buffer.compare(result.frames[i]!, one)).toBe(0);
          expect(result.bad).toBe(false);
          expect(result.midFrame).toBe(false);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('hardening 50: end at a bad length or a cut, where the twin ends, whatever the bytes are', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 3000 }),
        fc.array(frame, { maxLength: 3 }),
        cuts,
        (junk, frames, cut) => {
          const bytes = Uint8Array.from([...framed(frames), ...junk]);
          const usable = bytes.length > 20_000 ? cut.map((length) => Math.max(length, 500)) : cut;
          const expected = naive(bytes);
          const result = read(bytes, usable, 16);
          expect(result.frames.length).toBe(expected.frames.length);
          for (const [i, one] of expected.frames.entries())
            expect(Buffer.compare(result.frames[i]!, one)).toBe(0);
          expect(result.bad).toBe(expected.bad);
          if (!expected.bad) expect(result.midFrame).toBe(expected.midFrame);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('go on after slots and records ran out', () => {
    const { pool } = testContext({ smallSlots: 4, largeSlots: 2, bareRecords: 3 });
    const frames = Array.from({ length: 30 }, (_, i) => new Uint8Array(100 + i * 10).fill(i));
    const host = streamOf(pool, framed(frames), [700]);
    const reader = new FrameReader(pool);
    const batch = new Int32Array(8);
    const got: number[] = [];
    for (let starved = 0; got.length < frames.length; ) {
      const received = reader.receive(host, 1);
      const count = reader.take(batch, 8);
      for (let i = 0; i < count; i++) {
        got.push(pool.toBytes(batch[i]!)[0]!);
        pool.release(batch[i]!);
      }
      starved = received <= 0 && count === 0 ? starved + 1 : 0;
      expect(starved).toBeLessThan(3);
    }
    expect(got).toEqual(frames.map((_, i) => i));
    reader.reset();
    expect(pool.free).toBe(pool.capacity);
  });
});

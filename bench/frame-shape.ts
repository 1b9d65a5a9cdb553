/**
 * Which shape should a frame in flight have? One producer allocates a frame, writes its descriptor and its first 14 bytes, hands it
 * on in a batch; one consumer reads descriptor and bytes, and frees it. Four shapes do the same work:
 *
 * - `record`: the frame is a number, the word index of a 64-byte record in one Int32Array (what netemu uses, core/pool.ts);
 * - `soa`:    the frame is a number that indexes one typed array per field;
 * - `object`: a reused plain object per slot, fields as properties, batch as an Array;
 * - `buffer`: a fresh subarray per frame (what most Node programs do).
 *
 * Each is run at one segment (a frame from a socket) and at eighteen (a 64 KiB GSO frame in guest pages).
 * Prints one JSON line; `ratio` is frames/s of `record` over each other shape.
 */
import { report, runtimeFacts } from './lib/report.ts';

const FRAMES = 4096;
const BATCH = 64;
const SLOT = 2048;
const SEGMENTS_BIG = 18;

interface Shape {
  /** Moves `count` frames of `segments` segments; returns a checksum so that nothing can be optimised away. */
  run(count: number, segments: number): number;
}

function recordShape(): Shape {
  const table = new Int32Array(FRAMES * 32 * 16);
  const bytes = new Uint8Array(FRAMES * SLOT);
  const free = new Int32Array(FRAMES * 32);
  const total = FRAMES * 32;
  for (let i = 0; i < total; i++) free[i] = i * 16;
  let top = total;
  const batch = new Int32Array(BATCH);
  return {
    run(count, segments) {
      let sum = 0;
      for (let done = 0; done < count; done += BATCH) {
        for (let k = 0; k < BATCH; k++) {
          const head = free[--top]!;
          let at = head;
          for (let s = 0; ; ) {
            table[at] = 0;
            table[at + 1] = (at << 3) & (FRAMES * SLOT - SLOT);
            table[at + 2] = 1514;
            if (++s === segments) break;
            const n = free[--top]!;
            table[at + 3] = n;
            at = n;
          }
          table[at + 3] = -1;
          table[head + 4] = 1514 * segments;
          table[head + 5] = 0;
          table[head + 6] = 1;
          const o = table[head + 1]!;
          for (let b = 0; b < 14; b++) bytes[o + b] = b + k;
          batch[k] = head;
        }
        for (let k = 0; k < BATCH; k++) {
          const head = batch[k]!;
          const o = table[head + 1]!;
          sum = (sum + bytes[o]! + bytes[o + 13]! + table[head + 4]! + table[head + 6]!) | 0;
          let at = head;
          while (at !== -1) {
            sum = (sum + table[at + 2]!) | 0;
            free[top++] = at;
            at = table[at + 3]!;
          }
        }
      }
      return sum;
    },
  };
}

function soaShape(): Shape {
  const total = FRAMES * 32;
  const region = new Uint16Array(total);
  const offset = new Uint32Array(total);
  const length = new Uint32Array(total);
  const next = new Int32Array(total);
  const whole = new Uint32Array(total);
  const gso = new Uint8Array(total);
  const refs = new Int32Array(total);
  const bytes = new Uint8Array(FRAMES * SLOT);
  const free = new Int32Array(total);
  for (let i = 0; i < total; i++) free[i] = i;
  let top = total;
  const batch = new Int32Array(BATCH);
  return {
    run(count, segments) {
      let sum = 0;
      for (let done = 0; done < count; done += BATCH) {
        for (let k = 0; k < BATCH; k++) {
          const head = free[--top]!;
          let at = head;
          for (let s = 0; ; ) {
            region[at] = 0;
            offset[at] = (at << 7) & (FRAMES * SLOT - SLOT);
            length[at] = 1514;
            if (++s === segments) break;
            const n = free[--top]!;
            next[at] = n;
            at = n;
          }
          next[at] = -1;
          whole[head] = 1514 * segments;
          gso[head] = 0;
          refs[head] = 1;
          const o = offset[head]!;
          for (let b = 0; b < 14; b++) bytes[o + b] = b + k;
          batch[k] = head;
        }
        for (let k = 0; k < BATCH; k++) {
          const head = batch[k]!;
          const o = offset[head]!;
          sum = (sum + bytes[o]! + bytes[o + 13]! + whole[head]! + refs[head]!) | 0;
          let at = head;
          while (at !== -1) {
            sum = (sum + length[at]!) | 0;
            free[top++] = at;
            at = next[at]!;
          }
        }
      }
      return sum;
    },
  };
}

interface FrameObject {
  region: number;
  offset: number;
  length: number;
  next: FrameObject | null;
  total: number;
  gso: number;
  refs: number;
}

function objectShape(): Shape {
  const bytes = new Uint8Array(FRAMES * SLOT);
  const free: FrameObject[] = [];
  for (let i = 0; i < FRAMES * 32; i++) {
    free.push({
      region: 0,
      offset: (i << 7) & (FRAMES * SLOT - SLOT),
      length: 0,
      next: null,
      total: 0,
      gso: 0,
      refs: 0,
    });
  }
  const batch: FrameObject[] = [];
  return {
    run(count, segments) {
      let sum = 0;
      for (let done = 0; done < count; done += BATCH) {
        for (let k = 0; k < BATCH; k++) {
          const head = free.pop()!;
          let at = head;
          for (let s = 0; ; ) {
            at.region = 0;
            at.length = 1514;
            if (++s === segments) break;
            const n = free.pop()!;
            at.next = n;
            at = n;
          }
          at.next = null;
          head.total = 1514 * segments;
          head.gso = 0;
          head.refs = 1;
          const o = head.offset;
          for (let b = 0; b < 14; b++) bytes[o + b] = b + k;
          batch[k] = head;
        }
        for (let k = 0; k < BATCH; k++) {
          const head = batch[k]!;
          const o = head.offset;
          sum = (sum + bytes[o]! + bytes[o + 13]! + head.total + head.refs) | 0;
          let at: FrameObject | null = head;
          while (at !== null) {
            sum = (sum + at.length) | 0;
            const n: FrameObject | null = at.next;
            free.push(at);
            at = n;
          }
        }
      }
      return sum;
    },
  };
}

function bufferShape(): Shape {
  const bytes = new Uint8Array(FRAMES * SLOT);
  let slot = 0;
  return {
    run(count, segments) {
      let sum = 0;
      for (let done = 0; done < count; done += BATCH) {
        const batch: Uint8Array[][] = [];
        for (let k = 0; k < BATCH; k++) {
          const parts: Uint8Array[] = [];
          for (let s = 0; s < segments; s++) {
            slot = (slot + 1) % FRAMES;
            parts.push(bytes.subarray(slot * SLOT, slot * SLOT + 1514));
          }
          const first = parts[0]!;
          for (let b = 0; b < 14; b++) first[b] = b + k;
          batch.push(parts);
        }
        for (const parts of batch) {
          const first = parts[0]!;
          sum = (sum + first[0]! + first[13]!) | 0;
          for (const part of parts) sum = (sum + part.length) | 0;
        }
      }
      return sum;
    },
  };
}

const shapes: Record<string, Shape> = {
  record: recordShape(),
  soa: soaShape(),
  object: objectShape(),
  buffer: bufferShape(),
};
const rounds = 7;

function measure(count: number, segments: number): Record<string, number> {
  const samples: Record<string, number[]> = {};
  for (const shape of Object.values(shapes)) shape.run(count >> 2, segments);
  for (let r = 0; r < rounds; r++) {
    for (const [name, shape] of Object.entries(shapes)) {
      const begin = process.hrtime.bigint();
      shape.run(count, segments);
      (samples[name] ??= []).push(Number(process.hrtime.bigint() - begin) / count);
    }
  }
  return Object.fromEntries(
    Object.entries(samples).map(([name, list]) => [name, list.sort((a, b) => a - b)[rounds >> 1]!]),
  );
}

const oneSegment = measure(2_000_000, 1);
const manySegments = measure(200_000, SEGMENTS_BIG);
const ratio = (ns: Record<string, number>): Record<string, number> =>
  Object.fromEntries(
    Object.entries(ns).map(([name, value]) => [name, Number((value / ns.record!).toFixed(2))]),
  );

report({
  bench: 'frame-shape',
  ...runtimeFacts(),
  batch: BATCH,
  nsPerFrame: { oneSegment, manySegments },
  ratio: { oneSegment: ratio(oneSegment), manySegments: ratio(manySegments) },
});

/** The fast checksum against a naive twin: one word at a time, folded at once, as RFC 1071 section 4.1 does it. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as c from '../../src/wire/checksum.ts';

function naive(bytes: Uint8Array, offset: number, length: number, sum = 0): number {
  for (let i = 0; i < length; i += 2) {
    sum += bytes[offset + i] * 256 + (i + 1 < length ? bytes[offset + i + 1] : 0);
    while (sum > 0xffff) sum = (sum % 65536) + Math.floor(sum / 65536);
  }
  return sum;
}

/** Byte arrays that start anywhere within a word of their buffer, filled to provoke carries. */
const memory = fc
  .tuple(
    fc.integer({ min: 0, max: 3 }),
    fc.integer({ min: 0, max: 5000 }),
    fc.constantFrom('random', 'ones', 'zeros'),
    fc.integer(),
  )
  .map(([skew, length, kind, seed]) => {
    const bytes = new Uint8Array(new ArrayBuffer(length + skew), skew);
    let state = seed;
    for (let i = 0; i < length; i++) {
      state = (Math.imul(state, 1103515245) + 12345) | 0;
      bytes[i] = kind === 'random' ? state >>> 16 : kind === 'ones' ? 0xff : 0;
    }
    return bytes;
  });

const run = memory.chain((bytes) =>
  fc
    .tuple(fc.nat(bytes.length), fc.nat(bytes.length))
    .map(([a, b]) => ({ bytes, offset: Math.min(a, b), length: Math.abs(a - b) })),
);

describe('checksum', () => {
  it('RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2', () => {
    const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
    expect(c.foldSum(c.sumBytes(bytes, 0, 8))).toBe(0xddf2);
    expect(c.internetChecksum(bytes, 0, 8)).toBe(0x220d);
  });

  it('agrees with the naive twin at any alignment and length', () => {
    fc.assert(
      fc.property(run, fc.nat(0x3ffff), ({ bytes, offset, length }, before) => {
        const expected = naive(bytes, offset, length, before);
        expect(c.foldSum(c.sumBytes(bytes, offset, length, before))).toBe(c.foldSum(expected));
        const region = new c.ChecksumRegion(bytes);
        expect(c.foldSum(region.sum(offset, length, before))).toBe(c.foldSum(expected));
      }),
      { numRuns: 500 },
    );
  });

  it('does not overflow on 256 KiB of ones', () => {
    const bytes = new Uint8Array(262144).fill(0xff);
    expect(c.foldSum(c.sumBytes(bytes, 0, bytes.length))).toBe(0xffff);
    expect(c.foldSum(new c.ChecksumRegion(bytes).sum(1, bytes.length - 1))).toBe(
      naive(bytes, 1, bytes.length - 1),
    );
  });

  it('a payload in segments sums as in one piece', () => {
    fc.assert(
      fc.property(run, fc.array(fc.nat(1500), { maxLength: 6 }), ({ bytes, offset, length }, cuts) => {
        const region = new c.ChecksumRegion(bytes);
        let done = 0;
        let plain = 0;
        let viewed = 0;
        for (const cut of [...cuts, length]) {
          const piece = Math.min(cut, length - done);
          plain = c.chainSum(plain, done, bytes, offset + done, piece);
          viewed = region.chain(viewed, done, offset + done, piece);
          done += piece;
        }
        expect(c.foldSum(plain)).toBe(naive(bytes, offset, length));
        expect(c.foldSum(viewed)).toBe(naive(bytes, offset, length));
      }),
      { numRuns: 500 },
    );
  });

  it('an updated checksum verifies like one computed anew (RFC 1624)', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 20, maxLength: 20 }),
        fc.nat(8),
        fc.nat(0xffff),
        fc.integer({ min: 0, max: 0xffffffff }),
        (bytes, word, short, long) => {
          const at = 2 + 2 * word;
          const view = new DataView(bytes.buffer);
          view.setUint16(0, 0);
          view.setUint16(0, c.internetChecksum(bytes, 0, 20));
          const old = view.getUint16(at);
          view.setUint16(at, short);
          view.setUint16(0, c.updateChecksum16(view.getUint16(0), old, short));
          expect(c.internetChecksum(bytes, 0, 20)).toBe(0);
          const at32 = Math.min(at, 16);
          const old32 = view.getUint32(at32);
          view.setUint32(at32, long);
          view.setUint16(0, c.updateChecksum32(view.getUint16(0), old32, long));
          expect(c.internetChecksum(bytes, 0, 20)).toBe(0);
        },
      ),
    );
  });

  it('RFC 1624 section 4: dd2f, 5555 to 3285, gives 0000 and not ffff', () => {
    expect(c.updateChecksum16(0xdd2f, 0x5555, 0x3285)).toBe(0x0000);
  });

  it('pseudo-headers sum as if they were written out', () => {
    const v4 = Uint8Array.of(10, 0, 2, 15, 192, 0, 2, 255, 0, 17, 0xff, 0xf0);
    expect(c.foldSum(c.pseudoSumV4(0x0a00020f, 0xc00002ff, 17, 0xfff0))).toBe(naive(v4, 0, 12));
    const v6 = Uint8Array.from({ length: 40 }, (_, i) => (i * 37) & 255);
    v6.set([0, 1, 0x23, 0x45, 0, 0, 0, 58], 32);
    expect(c.foldSum(c.pseudoSumV6(v6, 0, v6, 16, 58, 0x12345))).toBe(naive(v6, 0, 40));
    const header = new Uint8Array(40);
    header[0] = 0x60;
    header.set(v6.subarray(0, 32), 8);
    expect(c.pseudoSumAt(header, 0, 58, 99)).toBe(c.pseudoSumV6(v6, 0, v6, 16, 58, 99));
    header[0] = 0x45;
    expect(c.pseudoSumAt(header, 0, 6, 99)).toBe(naivePseudo(header));
  });
});

function naivePseudo(header: Uint8Array): number {
  const words = new DataView(header.buffer);
  return [12, 14, 16, 18].reduce((sum, at) => sum + words.getUint16(at), 6 + 99);
}

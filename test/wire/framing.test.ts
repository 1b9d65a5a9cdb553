import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as framing from '../../src/wire/framing.ts';

function stream(frames: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(frames.reduce((sum, frame) => sum + 4 + frame.length, 0));
  let at = 0;
  for (const frame of frames) {
    at += framing.writeFramingPrefix(bytes, at, frame.length);
    bytes.set(frame, at);
    at += frame.length;
  }
  return bytes;
}

/** Feeds a stream cut at `cuts`, each chunk at an odd place of its own array; collects whole frames. */
function decode(
  decoder: framing.StreamFraming,
  bytes: Uint8Array,
  cuts: number[],
): { frames: Uint8Array[]; last: number } {
  const frames: Uint8Array[] = [];
  const building = new Uint8Array(framing.FRAMING_MAX_FRAME_BYTES);
  let last: number = framing.FRAMING_MORE;
  const edges = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  for (let i = 1; i < edges.length; i++) {
    const chunk = new Uint8Array(3 + edges[i] - edges[i - 1] + 2).fill(0xee);
    chunk.set(bytes.subarray(edges[i - 1], edges[i]), 3);
    decoder.begin(3);
    for (;;) {
      last = decoder.next(chunk, chunk.length - 2);
      if (last <= 0) break;
      building.set(chunk.subarray(decoder.pieceStart, decoder.pieceEnd), decoder.pieceAt);
      if (last === framing.FRAMING_FRAME) frames.push(building.slice(0, decoder.frameBytes));
    }
  }
  return { frames, last };
}

describe('stream framing', () => {
  it('finds the frames, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 8 }),
        fc.array(fc.nat()),
        (frames, cuts) => {
          const decoder = new framing.StreamFraming();
          const result = decode(decoder, stream(frames), cuts);
          expect(result.frames).toEqual(frames);
          expect(result.last).toBe(framing.FRAMING_MORE);
          expect(decoder.midFrame).toBe(false);
        },
      ),
    );
  });

  it('byte by byte', () => {
    const frames = [Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(4)];
    const bytes = stream(frames);
    const cuts = Array.from({ length: bytes.length }, (_, i) => i);
    expect(decode(new framing.StreamFraming(), bytes, cuts).frames).toEqual(frames);
  });

  it('takes 69632 bytes, closes at one more, and at 0xffffffff', () => {
    const most = new Uint8Array(framing.FRAMING_MAX_FRAME_BYTES).fill(9);
    expect(decode(new framing.StreamFraming(), stream([most]), [5, 70]).frames).toEqual([most]);
    for (const length of [framing.FRAMING_MAX_FRAME_BYTES + 1, 0xffffffff]) {
      const decoder = new framing.StreamFraming();
      const bytes = new Uint8Array(8);
      framing.writeFramingPrefix(bytes, 0, length);
      expect(decode(decoder, bytes, [2])).toEqual({ frames: [], last: framing.FRAMING_BAD });
      expect(decode(decoder, stream([Uint8Array.of(1)]), []).last).toBe(framing.FRAMING_BAD);
      decoder.reset();
      expect(decode(decoder, stream([Uint8Array.of(1)]), []).frames).toEqual([Uint8Array.of(1)]);
    }
  });

  it('knows when a peer leaves in the middle', () => {
    const bytes = stream([Uint8Array.of(1, 2, 3)]);
    for (let end = 1; end < bytes.length; end++) {
      const decoder = new framing.StreamFraming();
      decode(decoder, bytes.subarray(0, end), []);
      expect(decoder.midFrame).toBe(true);
      decoder.reset();
      expect(decoder.midFrame).toBe(false);
    }
  });

  it('any bytes at all end in MORE or BAD', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat()), (bytes, cuts) => {
        const { last } = decode(new framing.StreamFraming(200), bytes, cuts);
        expect([framing.FRAMING_MORE, framing.FRAMING_BAD]).toContain(last);
      }),
    );
  });
});

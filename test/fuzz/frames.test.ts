/** Streams of frames into the user network: bounded answers, no exception, nothing held at the end, and a good packet passes after each. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { putU16be } from '../../src/wire/bytes.ts';
import { internetChecksum } from '../../src/wire/checksum.ts';
import { arpFrame, udpFrame } from '../backends/user/lib/guest.ts';
import { World } from '../backends/user/lib/world.ts';
import { boundMemory, changed, frames, runs } from './lib.ts';

boundMemory();

/** Answers to one frame: a segment sent again and an error beside it, but no storm. */
const ANSWERS_MAX = 8;

/** A frame of the corpus speaks for others than this guest; with its addresses more is reached. */
function asGuests(frame: Uint8Array, mend: boolean): Uint8Array {
  const own = frame.slice();
  if (own.length >= 14) own.set([0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56]);
  if (mend && own.length >= 34 && own[12] === 8 && own[13] === 0) {
    own.set([10, 0, 2, 15], 26);
    const header = Math.min(own.length - 14, Math.max(20, (own[14]! & 15) * 4));
    putU16be(own, 24, 0);
    putU16be(own, 24, internetChecksum(own, 14, header));
  }
  return own;
}

it('hardening: no stream of frames brings the user network down', () => {
  const all = [...frames(), udpFrame('10.0.2.15', 5000, '192.0.2.1', 7, new Uint8Array(64))];
  let sent = 0;
  let answered = 0;
  const one = fc.record({
    frame: changed(all, 4),
    mend: fc.boolean(),
    ns: fc.constantFrom(0, 1e6, 1e9, 40e9),
  });
  fc.assert(
    fc.property(fc.array(one, { minLength: 1, maxLength: 12 }), (stream) => {
      const world = new World(
        ',tftp=/x',
        { ip6: 'fec0::15' },
        { openTftpRoot: () => ({ open: () => null }) },
      );
      for (const { frame, mend, ns } of stream) {
        sent++;
        const answers = world.ask(asGuests(frame, mend));
        expect(answers.length).toBeLessThanOrEqual(ANSWERS_MAX);
        answered += answers.length;
        world.run(ns);
      }
      world.guest.take();
      expect(
        world.ask(arpFrame(1, '10.0.2.15', '10.0.2.2')).some((frame) => frame[12] === 8 && frame[13] === 6),
      ).toBe(true);
      world.end();
    }),
    runs(150) as fc.Parameters<[{ frame: Uint8Array; mend: boolean; ns: number }[]]>,
  );
  // They do come past the first checks.
  expect(answered).toBeGreaterThan(sent / 20);
});

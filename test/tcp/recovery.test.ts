/** Loss and reordering told by time (RFC 8985), proportional rate reduction (RFC 6937), losses without a queue: scripted peers on the virtual clock. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { Congestion } from '../../src/tcp/congestion.ts';
import { Prr } from '../../src/tcp/prr.ts';
import { Resent } from '../../src/tcp/resent.ts';
import { Scoreboard } from '../../src/tcp/scoreboard.ts';
import { SlowStartExit } from '../../src/tcp/slow-start-exit.ts';
import { HEADER_ROOM } from '../../src/tcp/stack.ts';
import { pattern } from './lib/pair.ts';
import { ACK, OFFSET, Peer, type PeerOptions, SYN } from './lib/peer.ts';

const MSS = 1460;
const MS = 1e6;
let p: Peer;
afterEach(() => p?.end());

/** Open over a path of 20 ms, with `segments` full ones sent. */
function sent(segments: number, options: PeerOptions = {}): void {
  p = new Peer({ sack: true, window: 65_535, ...options });
  p.connect();
  p.run(20 * MS);
  p.send({ seq: 0, ack: 1, flags: SYN | ACK });
  p.user.send(pattern(segments * MSS, 1));
  expect(p.take().filter((s) => s.data.length > 0).length).toBe(Math.min(segments, 10));
}
/** The start of segment `n`, from 0, relative to the initial sequence number. */
const at = (n: number): number => 1 + n * MSS;
const seqs = (list: ReturnType<Peer['take']>): number[] =>
  list.filter((s) => s.data.length > 0).map((s) => (p.rel(s).seq - 1) / MSS);
const stats = () => p.stack.stats;

describe('tail loss probe (RFC 8985 section 7)', () => {
  it('a lost tail is sent again after two round trips, not after the retransmission timeout', () => {
    sent(5);
    p.run(20 * MS);
    p.send({ seq: 1, ack: at(3) });
    expect(seqs(p.run(39 * MS))).toEqual([]);
    expect(seqs(p.run(2 * MS))).toEqual([4]);
    // The probe arrives: segment 3 is missing before it, and is sent again once reordering had its time.
    p.run(20 * MS);
    const answer = p.send({ seq: 1, ack: at(3), sacks: [[at(4), at(5)]] });
    expect(seqs([...answer, ...p.run(6 * MS)])).toEqual([3]);
    p.run(20 * MS);
    p.send({ seq: 1, ack: at(5) });
    expect(stats().txTailProbes).toBe(1);
    expect(stats().txTimeouts).toBe(0);
    expect(p.connection.sender.flightBytes).toBe(0);
  });

  it('a lone segment waits for a delayed acknowledgement as well', () => {
    sent(1);
    expect(seqs(p.run(135 * MS))).toEqual([]);
    expect(seqs(p.run(10 * MS))).toEqual([0]);
    expect(stats().txTailProbes).toBe(1);
  });

  it('what is new goes out as the probe, although the congestion window is full', () => {
    sent(10);
    // More than there is room for: it waits.
    const frame = p.pool.alloc(HEADER_ROOM + MSS);
    p.pool.setLength(frame, MSS);
    p.pool.table[frame + OFFSET]! += HEADER_ROOM;
    p.connection.send(frame);
    expect(seqs(p.take())).toEqual([]);
    expect(seqs(p.run(42 * MS))).toEqual([10]);
    expect(stats().txTailProbes).toBe(1);
    p.send({ seq: 1, ack: at(11) });
    expect(stats().txRetransmittedSegments).toBe(0);
    expect(p.connection.sender.flightBytes).toBe(0);
  });

  it('one probe at a time; the retransmission timeout, put off by it, follows', () => {
    sent(3);
    expect(seqs(p.run(150 * MS))).toEqual([2]);
    expect(stats().txTimeouts).toBe(0);
    expect(seqs(p.run(100 * MS))).toEqual([0]);
    expect(stats().txTimeouts).toBe(1);
    expect(stats().txTailProbes).toBe(1);
  });

  it('a FIN alone at the tail is probed', () => {
    sent(2);
    p.send({ seq: 1, ack: at(2) });
    p.user.send(new Uint8Array(0), true);
    expect(p.take().length).toBe(1);
    const probe = p.run(150 * MS);
    expect(probe.length).toBe(1);
    expect(p.rel(probe[0]!)).toMatchObject({ seq: at(2), length: 0 });
    expect(stats().txTailProbes).toBe(1);
    p.send({ seq: 1, ack: at(2) + 1 });
  });

  it('a probe that repaired a loss counts as one; one that came twice (D-SACK) does not', () => {
    for (const twice of [false, true]) {
      sent(3);
      p.run(30 * MS);
      p.send({ seq: 1, ack: at(2) });
      // The round trip has grown: the loss is an ordinary one.
      const before = p.connection.sender.congestion.thresholdBytes;
      expect(seqs(p.run(250 * MS)).slice(0, 1)).toEqual([2]);
      p.send({ seq: 1, ack: at(3), ...(twice ? { sacks: [[at(2), at(3)]] } : {}) });
      p.user.send(pattern(MSS, 2));
      p.take();
      p.send({ seq: 1, ack: at(4) });
      const { thresholdBytes } = p.connection.sender.congestion;
      if (twice) expect(thresholdBytes).toBe(before);
      else expect(thresholdBytes).toBeLessThan(before);
      p.end();
    }
  });

  it('without SACK there is no probe', () => {
    sent(3, { sack: false });
    expect(seqs(p.run(150 * MS))).toEqual([]);
    expect(stats().txTailProbes).toBe(0);
  });
});

describe('loss by time (RFC 8985 section 6)', () => {
  it('one segment beyond a hole is enough once reordering had a quarter of a round trip', () => {
    sent(2);
    p.run(20 * MS);
    expect(seqs(p.send({ seq: 1, ack: 1, sacks: [[at(1), at(2)]] }))).toEqual([]);
    expect(seqs(p.run(4 * MS))).toEqual([]);
    expect(seqs(p.run(2 * MS))).toEqual([0]);
    expect(stats().txFastRecoveries).toBe(1);
  });

  it('what only came late is not sent again, and three segments beyond a hole mean nothing from then on', () => {
    sent(10);
    p.run(20 * MS);
    p.send({ seq: 1, ack: 1, sacks: [[at(1), at(2)]] });
    p.run(2 * MS);
    p.send({ seq: 1, ack: at(2) });
    expect(p.run(2 * MS).length).toBe(0);
    const later = p.send({ seq: 1, ack: at(2), sacks: [[at(3), at(7)]] });
    expect(seqs(later)).toEqual([]);
    // It comes, late again.
    expect(seqs(p.send({ seq: 1, ack: at(7) }))).toEqual([]);
    expect(stats().txRetransmittedSegments).toBe(0);
    // A segment that does not come is sent again by time.
    p.send({ seq: 1, ack: at(7), sacks: [[at(8), at(10)]] });
    expect(seqs(p.run(30 * MS))).toEqual([7]);
  });

  it('each needless retransmission gives reordering more time', () => {
    sent(10);
    p.run(20 * MS);
    p.send({ seq: 1, ack: 1, sacks: [[at(1), at(2)]] });
    expect(seqs(p.run(6 * MS))).toEqual([0]);
    // The original and the copy both arrived.
    p.send({ seq: 1, ack: at(2), sacks: [[1, at(1)]] });
    p.send({ seq: 1, ack: at(2), sacks: [[at(3), at(4)]] });
    expect(seqs(p.run(8 * MS))).toEqual([]);
    expect(seqs(p.run(4 * MS))).toEqual([2]);
  });

  it('a lost retransmission is told by a later one that arrived', () => {
    sent(10);
    p.run(20 * MS);
    const first = p.send({
      seq: 1,
      ack: 1,
      sacks: [
        [at(1), at(4)],
        [at(5), at(10)],
      ],
    });
    expect(seqs([...first, ...p.run(1 * MS)])).toEqual([0, 4]);
    p.run(20 * MS);
    expect(seqs(p.send({ seq: 1, ack: 1, sacks: [[at(1), at(10)]] }))).toEqual([0]);
    expect(stats().txLostRetransmissions).toBe(1);
    expect(stats().txTimeouts).toBe(0);
    p.send({ seq: 1, ack: at(10) });
  });

  it('what may be sent in a recovery is a whole number of bytes', () => {
    sent(10);
    p.connection.sender.congestion.windowBytes += 2000.7;
    p.run(20 * MS);
    p.send({ seq: 1, ack: 1, sacks: [[at(1), at(6)]] });
    const room = p.connection.sendRoom();
    expect(room).toBeGreaterThan(0);
    expect(Number.isInteger(room)).toBe(true);
  });

  it('holes that were sent again are not sent a third time when the next recovery begins with them', () => {
    sent(14);
    p.run(20 * MS);
    const sacks: [number, number][] = [[at(1), at(9)]];
    const first = p.send({ seq: 1, ack: 1, sacks });
    expect(seqs(first)[0]).toBe(0);
    // 9 is missing as well, found out by what was sent meanwhile.
    const more = p.send({ seq: 1, ack: 1, sacks: [[at(10), at(12)], ...sacks] });
    expect(seqs([...more, ...p.run(1 * MS)]).filter((n) => n === 9)).toEqual([9]);
    // The first hole is filled: the recovery ends with 9 under way.
    const then = p.send({ seq: 1, ack: at(9), sacks: [[at(10), at(12)]] });
    expect(seqs([...then, ...p.run(10 * MS)]).filter((n) => n === 9)).toEqual([]);
    p.send({ seq: 1, ack: at(14) });
    expect(stats().txRetransmittedSegments).toBe(2);
  });
});

describe('D-SACK (RFC 2883), as a receiver', () => {
  it('tells once what came twice, in front of the other blocks', () => {
    sent(1);
    p.send({ seq: 1, ack: 1, data: 100 });
    p.send({ seq: 301, ack: 1, data: 100 });
    const [ack] = p.send({ seq: 1, ack: 1, data: 100 });
    const { options } = ack!;
    const blocks = Array.from({ length: options.sackCount }, (_, i) => [
      options.sackLeft[i]! - p.isn,
      options.sackRight[i]! - p.isn,
    ]);
    expect(blocks).toEqual([
      [1, 101],
      [301, 401],
    ]);
    const [next] = p.send({ seq: 301, ack: 1, data: 100 });
    expect([next!.options.sackLeft[0]! - p.isn, next!.options.sackRight[0]! - p.isn]).toEqual([301, 401]);
    expect(next!.options.sackCount).toBe(2);
    const [last] = p.send({ seq: 101, ack: 1, data: 200 });
    expect(last!.options.sackCount).toBe(0);
  });
});

describe('proportional rate reduction (RFC 6937)', () => {
  /** A flight of which the first segment is lost, `goal` wanted afterwards; the acknowledgements tell of one segment each. */
  function recover(segments: number, goalSegments: number): { sends: number[]; pipe: number } {
    const prr = new Prr();
    let pipe = segments * MSS;
    prr.start(pipe);
    const sends: number[] = [];
    // The lost one leaves the pipe, and is sent again.
    pipe -= MSS;
    for (let i = 1; i < segments; i++) {
      pipe -= MSS;
      prr.delivered(MSS, pipe, goalSegments * MSS, MSS);
      let count = 0;
      while (prr.windowBytes - pipe >= MSS) {
        prr.sent(MSS);
        pipe += MSS;
        count++;
      }
      sends.push(count);
    }
    return { sends, pipe };
  }

  it('spreads what may be sent over the whole recovery', () => {
    const { sends, pipe } = recover(20, 10);
    expect(pipe / MSS).toBeGreaterThanOrEqual(8);
    expect(pipe / MSS).toBeLessThanOrEqual(10);
    expect(Math.max(...sends)).toBe(1);
    // No three acknowledgements in a row let nothing out.
    expect(sends.join('')).not.toContain('000');
  });

  it('property: never more than was delivered and a segment, and near the goal at the end', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 4, max: 200 }),
        fc.double({ min: 0.5, max: 1, noNaN: true }),
        (n, share) => {
          const goal = Math.max(2, Math.floor(n * share));
          const { sends, pipe } = recover(n, goal);
          expect(Math.max(...sends)).toBeLessThanOrEqual(2);
          expect(pipe / MSS).toBeLessThanOrEqual(goal);
          expect(pipe / MSS).toBeGreaterThanOrEqual(goal - 2);
        },
      ),
    );
  });
});

describe('losses without a queue', () => {
  const flight = 100 * MSS;
  const make = (): Congestion => {
    const c = new Congestion(100, MSS);
    c.start(MSS);
    return c;
  };
  it('few, with the round trip at its shortest: the window stays', () => {
    const c = make();
    c.lost(flight, 20_000, 21_000);
    c.recovered(3 * MSS);
    expect(c.windowBytes).toBe(flight);
  });
  it('many: the window is reduced when that is known', () => {
    const c = make();
    c.lost(flight, 20_000, 21_000);
    expect(c.windowBytes).toBe(flight);
    c.recovered(7 * MSS);
    expect(c.windowBytes).toBe(70 * MSS);
  });
  it('with a queue, or not knowing the shortest round trip: at once', () => {
    for (const [shortest, now] of [
      [20_000, 26_000],
      [0, 0],
    ]) {
      const c = make();
      c.lost(flight, shortest!, now!);
      expect(c.windowBytes).toBe(70 * MSS);
      c.recovered(MSS);
      expect(c.windowBytes).toBe(70 * MSS);
    }
  });
  it('a timeout reduces in any case', () => {
    const c = make();
    c.lost(flight, 20_000, 20_000);
    c.timedOut(flight, false);
    expect(c.windowBytes).toBe(MSS);
    expect(c.thresholdBytes).toBe(70 * MSS);
  });
});

describe('slow start ends when a queue grows (RFC 9406)', () => {
  it('at the eighth sample of a round that is clearly slower; not for one slow sample', () => {
    const exit = new SlowStartExit();
    for (let i = 0; i < 10; i++) expect(exit.sample(20_000, i, 10)).toBe(false);
    for (let i = 0; i < 7; i++) expect(exit.sample(30_000, 10 + i, 30)).toBe(false);
    expect(exit.sample(30_000, 17, 30)).toBe(true);
    const calm = new SlowStartExit();
    for (let i = 0; i < 10; i++) calm.sample(20_000, i, 10);
    expect(calm.sample(20_500, 10, 30)).toBe(false);
    for (let i = 1; i < 15; i++) expect(calm.sample(90_000, 10 + i, 30)).toBe(false);
  });
});

describe('scoreboard and record of retransmissions against naive twins', () => {
  it('property: whatever is told, near a wrap of the sequence numbers too', () => {
    const range = fc.tuple(fc.integer({ min: 0, max: 900 }), fc.integer({ min: 1, max: 60 }));
    fc.assert(
      fc.property(
        fc.constantFrom(0, 0x7fff_ff00, -200),
        fc.array(range, { maxLength: 60 }),
        fc.integer({ min: 0, max: 500 }),
        range,
        (base, told, una, [from, length]) => {
          const board = new Scoreboard();
          const naive = new Set<number>();
          for (const [left, size] of told) {
            const fresh = Array.from({ length: size }, (_, i) => left + i).some((n) => !naive.has(n));
            expect(board.add((base + left) | 0, (base + left + size) | 0)).toBe(fresh);
            for (let i = 0; i < size; i++) naive.add(left + i);
          }
          board.acknowledged((base + una) | 0);
          for (let n = 0; n < una; n++) naive.delete(n);
          const to = from + length;
          let within = 0;
          let whole = true;
          for (let n = from; n < to; n++) {
            if (naive.has(n)) within++;
            else whole = false;
          }
          expect(board.bytes).toBe(naive.size);
          expect(board.bytesWithin((base + from) | 0, (base + to) | 0)).toBe(within);
          expect(board.holds((base + from) | 0, (base + to) | 0)).toBe(whole);
          let hole = from;
          while (naive.has(hole)) hole++;
          expect(board.holeFrom((base + from) | 0)).toBe((base + hole) | 0);
          let end = hole;
          while (end < 2000 && !naive.has(end)) end++;
          expect(board.holeEnd((base + hole) | 0, (base + 2000) | 0)).toBe((base + end) | 0);
        },
      ),
    );
  });

  it('forgets what was acknowledged, keeps the latest 256 and answers for the latest retransmission', () => {
    const board = new Scoreboard();
    const resent = new Resent();
    for (let i = 0; i < 300; i++) resent.add(i * 10, i * 10 + 10, 5000, i);
    expect(resent.overtaken(0, 9000, board, 100, 1000)).toBe(0);
    board.add(5000, 5200);
    expect(resent.overtaken(0, 9000, board, 100, 1000)).toBe(0);
    expect(resent.overtaken(2994, 9000, board, 100, 1000)).toBe(6);
    expect(resent.overtaken(2994, 9000, board, 300, 1000)).toBe(0);
    expect(resent.overtaken(2994, 9000, board, 100, 298)).toBe(0);
    resent.add(2990, 3000, 6000, 301);
    expect(resent.overtaken(2994, 9000, board, 100, 1000)).toBe(0);
    resent.acknowledged(3000);
    expect(resent.overtaken(2994, 9000, board, 0, 1000)).toBe(0);
  });
});

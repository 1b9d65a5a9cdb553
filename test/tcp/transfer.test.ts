/** Two engines over a link that loses, reorders and duplicates: what was sent arrives, both ways, and nothing stays behind. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ACCEPT_ALL } from '../../src/core/port.ts';
import type { LinkOptions } from './lib/pair.ts';
import { Pair, pattern, TestUser } from './lib/pair.ts';

function exchange(
  options: LinkOptions,
  up: number,
  down: number,
  version: 4 | 6 = 4,
  limitNs = 3600e9,
): Pair {
  const pair = new Pair(options);
  const client = new TestUser(pair.pool);
  const server = new TestUser(pair.pool);
  const upData = pattern(up, 11);
  const downData = pattern(down, 12);
  pair.accept = () => server;
  client.outgoing = upData;
  client.closeWhenSent = true;
  server.outgoing = downData;
  server.closeWhenSent = true;
  pair.connect(client, 80, version);
  const done = (): boolean => client.closedReason !== null && server.closedReason !== null;
  expect(pair.loop.runWhile(() => !done(), limitNs)).toBe(true);
  pair.doneNs = pair.clock.nowNs();
  expect(client.log).toEqual(['established', 'end', 'closed']);
  expect(server.log).toEqual(['established', 'end', 'closed']);
  expect(server.receivedBytes).toBe(up);
  expect(client.receivedBytes).toBe(down);
  expect(Buffer.compare(server.received, upData)).toBe(0);
  expect(Buffer.compare(client.received, downData)).toBe(0);
  pair.run(400e9);
  expect(pair.a.connections + pair.b.connections).toBe(0);
  expect(pair.a.heldSlots + pair.b.heldSlots).toBe(0);
  expect(pair.clean).toBe(true);
  expect(pair.loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  return pair;
}

describe('transfer', () => {
  it('carries nothing at all and closes', () => {
    exchange({}, 0, 0);
  });
  it('carries data both ways in MSS-sized frames', () => {
    const pair = exchange({}, 300_000, 200_000);
    expect(pair.a.stats.txRetransmittedSegments + pair.b.stats.txRetransmittedSegments).toBe(0);
  });
  it('carries data both ways in GSO frames, far fewer of them', () => {
    const pair = exchange({ accepts: ACCEPT_ALL }, 2_000_000, 1_000_000);
    expect(pair.a.stats.txRetransmittedSegments + pair.b.stats.txRetransmittedSegments).toBe(0);
    expect(pair.crossed).toBeLessThan(300);
  });
  it('runs over IPv6', () => {
    exchange({ accepts: ACCEPT_ALL }, 500_000, 100_000, 6);
    exchange({}, 100_000, 100_000, 6);
  });
  it('runs without SACK and without timestamps', () => {
    exchange({ loss: 0.02, settings: { sack: false, timestamps: false } }, 300_000, 10_000);
  });
  it('fills a 20 ms link in spite of 1 % loss with SACK', () => {
    const pair = exchange({ loss: 0.01, delayNs: 10e6, seed: 5 }, 3_000_000, 0);
    expect(pair.a.stats.txFastRecoveries).toBeGreaterThan(0);
  });

  it.each([
    { rateBps: 100e6, delayNs: 0.25e6 },
    { rateBps: 20e6, delayNs: 1e6 },
    { rateBps: 5e6, delayNs: 10e6 },
  ])('with 1 % loss the transfer still fills the link and ends right: %o', (link) => {
    for (const seed of [5, 6, 7]) {
      const pair = exchange({ ...link, loss: 0.01, seed }, link.rateBps / 8, 0, 4, 60e9);
      expect(pair.lost).toBeGreaterThan(0);
      // One second's worth of bits; headers take 4.7 %, what was lost is sent again, and a loss at the end costs a timeout.
      expect(pair.doneNs).toBeLessThan(1.25e9);
    }
  });

  it.each([
    // Without PRR, probes and the distinction of losses: 12 s, 3 s, 1.6 s.
    { rateBps: 100e6, delayNs: 10e6, mostNs: 1.8e9 },
    { rateBps: 20e6, delayNs: 20e6, mostNs: 1.4e9 },
    { rateBps: 50e6, delayNs: 5e6, mostNs: 1.3e9 },
  ])('1 % loss leaves a long link nearly full: %o', ({ mostNs, ...link }) => {
    let timeouts = 0;
    for (const seed of [5, 6, 7]) {
      const pair = exchange({ ...link, loss: 0.01, seed }, link.rateBps / 8, 0, 4, 60e9);
      expect(pair.lost).toBeGreaterThan(0);
      expect(pair.doneNs).toBeLessThan(mostNs);
      timeouts += pair.a.stats.txTimeouts;
    }
    // The end of the connection may need one.
    expect(timeouts).toBeLessThanOrEqual(2);
  });

  it('short transfers over 3 % loss seldom wait for a timeout', () => {
    let timeouts = 0;
    let probes = 0;
    for (let seed = 1; seed <= 100; seed++) {
      const pair = exchange({ rateBps: 100e6, delayNs: 10e6, loss: 0.03, seed }, 30_000, 0, 4, 60e9);
      timeouts += pair.a.stats.txTimeouts;
      probes += pair.a.stats.txTailProbes;
    }
    expect(probes).toBeGreaterThan(4);
    // 22 without probes. What is left: SYNs, and retransmissions lost in their turn with nothing behind them.
    expect(timeouts).toBeLessThan(12);
  });

  it('a link that reorders costs hardly anything', () => {
    const pair = exchange({ rateBps: 20e6, delayNs: 5e6, jitterNs: 3e6, seed: 5 }, 2_500_000, 0, 4, 60e9);
    expect(pair.doneNs).toBeLessThan(1.25e9);
    expect(pair.a.stats.txRetransmittedSegments).toBeLessThan(40);
  });

  it('goes on after both sides filled the window and lost all of it', () => {
    const windowBytes = 5 * 1448;
    const pair = new Pair({ settings: { receiveWindowBytes: windowBytes } });
    const [client, server] = [new TestUser(pair.pool), new TestUser(pair.pool)];
    pair.accept = () => server;
    pair.connect(client);
    pair.run(1e6);
    // Neither sink takes anything: no window moves. The first acknowledgements begin at the windows' edges.
    for (const user of [client, server]) user.appetite = 0;
    pair.filter = () => false;
    for (const user of [client, server]) user.send(pattern(50_000, 3), true);
    pair.run(50e6);
    pair.filter = null;
    const flights = (): number[] => [client, server].map((user) => user.connection!.sender.flightBytes);
    expect(flights()).toEqual([windowBytes, windowBytes]);
    pair.run(60e9);
    expect(flights()).toEqual([0, 0]);
    for (const user of [client, server]) user.connection!.abort();
    pair.run(400e9);
    expect(pair.clean).toBe(true);
  });

  it('property: whatever the link does, the bytes arrive and everything is given back', () => {
    fc.assert(
      fc.property(
        fc.record({
          seed: fc.integer({ min: 1, max: 1e9 }),
          loss: fc.constantFrom(0, 0.005, 0.03, 0.15),
          duplicate: fc.constantFrom(0, 0.02, 0.2),
          jitterNs: fc.constantFrom(0, 50_000, 3_000_000),
          delayNs: fc.constantFrom(10_000, 1_000_000, 30_000_000),
          accepts: fc.constantFrom(0, 1, ACCEPT_ALL),
          up: fc.integer({ min: 0, max: 150_000 }),
          down: fc.integer({ min: 0, max: 150_000 }),
          version: fc.constantFrom<4 | 6>(4, 6),
          sack: fc.boolean(),
          timestamps: fc.boolean(),
          window: fc.constantFrom(1000, 20_000, 65_535, 1 << 20),
        }),
        (c) => {
          const settings = { sack: c.sack, timestamps: c.timestamps, receiveWindowBytes: c.window };
          exchange(
            {
              ...c,
              settings: {
                ...settings,
                userTimeoutNs: 1e15,
                handshakeTimeoutNs: 1e15,
                rtoMaxNs: 4e9,
                timeWaitNs: 300e9,
              },
            },
            c.up,
            c.down,
            c.version,
            36_000e9,
          );
        },
      ),
      { numRuns: 150 },
    );
  }, 120_000);
});

/** filter-netem on the virtual clock: every property measured, with and without load. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readObject } from '../../../src/config/objects/index.ts';
import { seededRandom } from '../../../src/core/clock.ts';
import { Port } from '../../../src/core/port.ts';
import { FilterChain } from '../../../src/link/filter/filter.ts';
import { NetemFilter } from '../../../src/link/filter/netem.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { behindFilter } from '../../lib/behind-filter.ts';
import {
  expectNothingHeld,
  packet,
  RecordingClient,
  type TestContext,
  tags,
  testContext,
} from '../../lib/context.ts';

const MS = 1e6;

function configOf(options: object) {
  const config = readObject({ 'qom-type': 'filter-netem', id: 'f', netdev: 'n', seed: 1, ...options });
  if (config.type !== 'filter-netem') throw new Error('not a netem');
  return config;
}

class Line {
  readonly context: TestContext = testContext({ smallSlots: 4096 });
  readonly near = new RecordingClient(this.context, 'near', 'nic');
  readonly far = new RecordingClient(this.context, 'far');
  readonly chain = new FilterChain(this.far.port);
  readonly filter: NetemFilter;
  /** When each frame arrived at the far end, in nanoseconds. */
  readonly arrivals: number[] = [];

  constructor(options: object) {
    this.filter = new NetemFilter(
      { id: 'f', direction: 'rx' },
      configOf(options),
      this.context,
      seededRandom(3),
    );
    Port.connect(this.near.port, this.far.port);
    this.chain.insert(this.filter, 'tail');
    this.far.onReceive = (_frames, from, to) => {
      for (let i = from; i < to; i++) this.arrivals.push(this.context.clock.nowNs());
    };
  }

  get nowNs(): number {
    return this.context.clock.nowNs();
  }

  /** Sends `count` frames of `bytes`, one every `gapNs`; returns when each was sent. */
  send(count: number, gapNs: number, bytes = 1000): number[] {
    const sent: number[] = [];
    for (let i = 0; i < count; i++) {
      sent.push(this.nowNs);
      expect(this.near.send(packet(i & 0xff, bytes))).toBe(1);
      this.context.loop.runUntil(this.nowNs + gapNs);
    }
    return sent;
  }

  run(ns: number): void {
    this.context.loop.runUntil(this.nowNs + ns);
  }

  close(): void {
    this.chain.remove(this.filter);
    this.filter.close();
    this.near.close();
    this.far.close();
    expectNothingHeld(this.context);
  }
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

describe('filter-netem', () => {
  let line: Line;
  const open = (options: object): Line => {
    line = new Line(options);
    return line;
  };
  afterEach(() => line.close());

  it('without options is a wire', () => {
    const { near, far } = open({});
    near.send(packet(1), packet(2), packet(3));
    expect(tags(far.received)).toEqual([1, 2, 3]);
  });

  it('delays each frame by exactly the delay', () => {
    const { arrivals } = open({ delay: '10ms' });
    const sent = line.send(50, 3 * MS);
    line.run(20 * MS);
    expect(arrivals).toEqual(sent.map((ns) => ns + 10 * MS));
  });

  it('the delay stays the delay when the line is full', () => {
    // 1000 bytes at 8 Mbit/s take 1 ms: the line is exactly full, and 100 frames are always under way.
    const { arrivals, filter } = open({ delay: '100ms', rate: '8M', burst: 1514, limit: 2000 });
    const sent = line.send(1000, MS);
    line.run(200 * MS);
    expect(filter.stats.dropLimit).toBe(0);
    const delays = arrivals.map((ns, i) => ns - sent[i]!);
    expect(delays).toHaveLength(1000);
    for (const delay of delays) expect(delay).toBeGreaterThanOrEqual(100 * MS);
    for (const delay of delays) expect(delay).toBeLessThanOrEqual(101 * MS);
  });

  it('sends at the rate, after the burst', () => {
    const { arrivals } = open({ rate: '8M', burst: 3000, limit: 2000 });
    line.send(500, 0);
    line.run(1000 * MS);
    // Three frames pass at once, then one each millisecond.
    expect(arrivals.slice(0, 5).map((ns) => ns / MS)).toEqual([0, 0, 0, 1, 2]);
    expect((arrivals.at(-1)! - arrivals[2]!) / MS).toBeCloseTo(497, 5);
  });

  it.each([
    ['uniform', 10, (deviation: number) => expect(deviation).toBeCloseTo(2 / Math.sqrt(3), 0)],
    ['normal', 10, (deviation: number) => expect(deviation).toBeCloseTo(2, 0)],
    ['pareto', 10, (deviation: number) => expect(deviation).toBeGreaterThan(1)],
  ])('%s jitter spreads the delay around its mean, and keeps the order', (distribution, delay, check) => {
    const { arrivals, far } = open({ delay: `${delay}ms`, jitter: '2ms', distribution });
    const sent = line.send(2000, 50 * MS, 64);
    line.run(200 * MS);
    const delays = arrivals.map((ns, i) => (ns - sent[i]!) / MS);
    expect(mean(delays)).toBeGreaterThan(delay - 0.3);
    expect(mean(delays)).toBeLessThan(delay + 0.3);
    const centre = mean(delays);
    check(Math.sqrt(mean(delays.map((value) => (value - centre) ** 2))));
    expect(tags(far.received)).toEqual(sent.map((_, i) => i & 0xff));
  });

  it('jitter larger than the gaps between frames does not change their order', () => {
    const { far } = open({ delay: '5ms', jitter: '5ms' });
    line.send(200, 0.1 * MS, 64);
    line.run(50 * MS);
    expect(tags(far.received)).toEqual(Array.from({ length: 200 }, (_, i) => i));
  });

  it('loses as many as it is told', () => {
    const { far, filter } = open({ loss: 10 });
    line.send(10_000, 0, 64);
    expect(filter.stats.dropLoss).toBe(10_000 - far.received.length);
    expect(filter.stats.dropLoss).toBeGreaterThan(900);
    expect(filter.stats.dropLoss).toBeLessThan(1100);
  });

  it('loses in bursts by the model of Gilbert', () => {
    const { far, filter } = open({
      'loss-model': 'gilbert',
      'gilbert-bad': 1,
      'gilbert-good': 20,
      'gilbert-loss': 100,
    });
    const got: boolean[] = [];
    for (let i = 0; i < 20_000; i++) {
      const before = far.received.length;
      line.near.send(packet(i & 0xff, 64));
      got.push(far.received.length > before);
    }
    // In the bad state for 1/(1+20) of the time, five frames in a row on average.
    expect(filter.stats.dropLoss / got.length).toBeGreaterThan(0.035);
    expect(filter.stats.dropLoss / got.length).toBeLessThan(0.062);
    const bursts = got.filter((ok, i) => !ok && got[i - 1] !== false).length;
    expect(filter.stats.dropLoss / bursts).toBeGreaterThan(4);
    expect(filter.stats.dropLoss / bursts).toBeLessThan(6);
  });

  it('doubles, reorders and corrupts as many as it is told', () => {
    const { far, filter } = open({ delay: '1ms', duplicate: 5, reorder: 5, corrupt: 5 });
    line.send(4000, 0.01 * MS, 64);
    line.run(5 * MS);
    const { duplicated, reordered, corrupted } = filter.stats;
    expect(far.received.length).toBe(4000 + duplicated);
    for (const count of [duplicated, reordered, corrupted]) {
      expect(count).toBeGreaterThan(150);
      expect(count).toBeLessThan(260);
    }
    const bits = far.received.map((bytes) => {
      const clean = packet(bytes[14]!, 64);
      return bytes.reduce((sum, byte, i) => sum + ((byte ^ clean[i]!) === 0 ? 0 : 1), 0);
    });
    // A flip of the tag itself shows as many bytes that differ.
    expect(bits.filter((count) => count === 1).length).toBeGreaterThan(corrupted * 0.9);
  });

  it('does the same to the same traffic with the same seed', () => {
    const fate = (): number[] => {
      const one = new Line({ delay: '2ms', jitter: '1ms', loss: 20, duplicate: 10, reorder: 10, seed: 42 });
      one.send(300, 0.3 * MS, 64);
      one.run(20 * MS);
      const result = [...one.arrivals, ...tags(one.far.received)];
      one.close();
      return result;
    };
    expect(fate()).toEqual(fate());
    open({});
  });

  it('drops beyond its limit, and never refuses', () => {
    const { far, filter } = open({ delay: '10ms', limit: 7 });
    line.send(20, 0, 64);
    expect(filter.rx!.held).toBe(7);
    expect(filter.stats.dropLimit).toBe(13);
    line.run(20 * MS);
    expect(tags(far.received)).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });

  it('waits for a far end that refuses, and keeps the order', () => {
    const { far } = open({ delay: '1ms' });
    far.room = 2;
    line.send(10, 0, 64);
    line.run(5 * MS);
    expect(tags(far.received)).toEqual([0, 1]);
    far.allow(Number.POSITIVE_INFINITY);
    expect(tags(far.received)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('takes other options while frames are held', () => {
    const { arrivals, filter } = open({ delay: '10ms' });
    line.send(1, MS);
    filter.change(configOf({ delay: '30ms' }));
    line.send(1, 0);
    line.run(100 * MS);
    expect(arrivals).toEqual([10 * MS, 31 * MS]);
  });

  it('lets go of what it holds when it is removed', () => {
    const { far, chain, filter } = open({ delay: '10ms' });
    line.send(5, 0, 64);
    chain.remove(filter);
    filter.close();
    expect(tags(far.received)).toEqual([0, 1, 2, 3, 4]);
  });

  it('drops what it holds when the link goes down meanwhile', () => {
    const { far, near } = open({ delay: '10ms' });
    line.send(5, 0, 64);
    far.port.setLink(false);
    line.run(20 * MS);
    expect(far.received).toEqual([]);
    expect(near.port.stats.dropLinkDown).toBe(5);
  });

  it('never enters its far end twice', () => {
    const { far, near } = open({ delay: '1ms' });
    let depth = 0;
    let deepest = 0;
    far.onReceive = () => {
      deepest = Math.max(deepest, ++depth);
      // The answer makes the near end send again, at once.
      if (far.received.length < 50) far.send(packet(1, 64));
      depth--;
    };
    near.onReceive = () => {
      near.send(packet(2, 64));
      line.context.clock.setNs(line.nowNs + 2 * MS);
    };
    near.send(packet(0, 64));
    line.run(100 * MS);
    expect(deepest).toBe(1);
    expect(far.received.length).toBeGreaterThan(10);
  });
});

describe('filter-netem in a chain', () => {
  let context: TestContext;
  beforeEach(() => {
    context = testContext();
  });

  portClientSuite('a client behind filter-netem', (shared) => {
    context = shared;
    const filter = new NetemFilter(
      { id: 'f', direction: 'tx' },
      configOf({ delay: '1ms' }),
      context,
      seededRandom(1),
    );
    return behindFilter(context, filter);
  });
});

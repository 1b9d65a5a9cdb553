/** filter-replay: what one run's netdev sent, another run's guest gets, at the same times. */

import { describe, expect, it } from 'vitest';
import { CSUM_OFFSET, CSUM_START, FACT_NEEDS_CSUM, FACTS, OFFSET } from '../../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../../src/core/port.ts';
import type { ByteSink } from '../../../src/link/filter/dump.ts';
import { FilterChain, type FilterDirection } from '../../../src/link/filter/filter.ts';
import { isRecording, ReplayFilter, type ReplayMode } from '../../../src/link/filter/replay.ts';
import { adapt } from '../../../src/nic/offload.ts';
import { putU16be } from '../../../src/wire/bytes.ts';
import { foldSum, pseudoSumV4 } from '../../../src/wire/checksum.ts';
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
import { CLIENT, readTcp, SERVER, tcpFrame } from '../../lib/tcp-frame.ts';

class MemorySink implements ByteSink {
  bytes: number[] = [];
  closed = false;
  full = false;

  write(bytes: Uint8Array, from: number, to: number): boolean {
    if (this.full) return false;
    this.bytes.push(...bytes.subarray(from, to));
    return true;
  }

  close(): void {
    this.closed = true;
  }
}

class Link {
  readonly context: TestContext = testContext({ adapt });
  readonly guest = new RecordingClient(this.context, 'guest', 'nic');
  readonly netdev = new RecordingClient(this.context, 'netdev');
  readonly chain = new FilterChain(this.netdev.port);
  readonly filter: ReplayFilter;
  /** When each frame reached the guest. */
  readonly timesNs: number[] = [];

  constructor(mode: ReplayMode, direction: FilterDirection = 'all') {
    Port.connect(this.guest.port, this.netdev.port);
    this.guest.onReceive = () => this.timesNs.push(this.context.clock.nowNs());
    this.filter = new ReplayFilter({ id: 'p', direction }, mode, this.context);
    this.chain.insert(this.filter, 'tail');
  }

  run(ns: number): void {
    this.context.loop.runUntil(this.context.clock.nowNs() + ns);
  }

  close(): void {
    this.chain.remove(this.filter);
    this.filter.close();
    this.guest.close();
    this.netdev.close();
    expectNothingHeld(this.context);
  }
}

/** Frames 1, 2 and 3 at 1 ms, 1 ms and 2.5 s. */
function record(): Uint8Array {
  const sink = new MemorySink();
  const link = new Link({ kind: 'record', sink });
  link.run(1_000_001);
  link.netdev.send(packet(1), packet(2, 1500));
  link.guest.send(packet(9));
  link.run(2.5e9);
  link.netdev.send(packet(3));
  expect([tags(link.guest.received), tags(link.netdev.received)]).toEqual([[1, 2, 3], [9]]);
  expect(link.filter.stats).toMatchObject({ recordedFrames: 3, lostRecords: 0 });
  link.close();
  expect(sink.closed).toBe(true);
  return Uint8Array.from(sink.bytes);
}

describe('filter-replay', () => {
  it('plays a recording at its times, to the nanosecond, in place of what the link carries', () => {
    const recording = record();
    expect(isRecording(recording)).toBe(true);
    const link = new Link({ kind: 'replay', recording });
    link.netdev.send(packet(50));
    link.guest.send(packet(51));
    link.run(3e9);
    expect(link.guest.received).toEqual([packet(1), packet(2, 1500), packet(3)]);
    expect(link.timesNs).toEqual([1_000_001, 1_000_001, 2_501_000_001]);
    expect(link.netdev.received).toEqual([]);
    expect(link.filter.stats).toMatchObject({ replayedFrames: 3, dropReplaced: 2 });
    link.close();
  });

  it('waits for a guest that takes nothing, and goes on in order', () => {
    const link = new Link({ kind: 'replay', recording: record() });
    link.guest.room = 1;
    link.run(3e9);
    expect(tags(link.guest.received)).toEqual([1]);
    link.guest.allow(Number.POSITIVE_INFINITY);
    expect(tags(link.guest.received)).toEqual([1, 2, 3]);
    link.close();
  });

  it('holds nothing when it is removed in the middle', () => {
    const link = new Link({ kind: 'replay', recording: record() });
    link.guest.room = 0;
    link.run(1e9);
    link.close();
  });

  it('records frames as they stand on a wire, and once, however often they are offered', () => {
    const sink = new MemorySink();
    const link = new Link({ kind: 'record', sink });
    link.guest.port.accepts = ACCEPT_ALL;
    const bytes = tcpFrame({ seq: 1, flags: 2, payload: new Uint8Array(30) });
    const { pool } = link.context;
    const frame = pool.from(bytes);
    const partial = foldSum(pseudoSumV4(CLIENT, SERVER, 6, bytes.length - 34));
    putU16be(pool.bytes, pool.table[frame + OFFSET]! + 50, partial);
    pool.table[frame + FACTS] = FACT_NEEDS_CSUM;
    pool.table[frame + CSUM_START] = 34;
    pool.table[frame + CSUM_OFFSET] = 16;
    link.guest.room = 0;
    expect(link.netdev.port.send(Int32Array.of(frame), 0, 1)).toBe(0);
    link.guest.allow(1);
    expect(link.netdev.port.send(Int32Array.of(frame), 0, 1)).toBe(1);
    link.run(0);
    link.close();
    expect(sink.bytes).toHaveLength(24 + 16 + bytes.length);
    expect(readTcp(Uint8Array.from(sink.bytes.slice(40)))).toMatchObject({ seq: 1 });
  });

  it('goes on without the recording when the disk is full, counted', () => {
    const sink = new MemorySink();
    const link = new Link({ kind: 'record', sink });
    sink.full = true;
    link.netdev.send(packet(1));
    link.run(0);
    link.netdev.send(packet(2));
    expect(tags(link.guest.received)).toEqual([1, 2]);
    expect(link.filter.stats.lostRecords).toBe(1);
    link.close();
  });

  it('rr=none, and a direction it does not look at, let everything pass', () => {
    const link = new Link({ kind: 'none' });
    link.netdev.send(packet(1));
    link.guest.send(packet(2));
    expect([tags(link.guest.received), tags(link.netdev.received)]).toEqual([[1], [2]]);
    link.close();
    const one = new Link({ kind: 'replay', recording: record() }, 'rx');
    one.netdev.send(packet(1));
    one.guest.send(packet(2));
    one.run(3e9);
    expect([tags(one.guest.received), tags(one.netdev.received)]).toEqual([[1], []]);
    one.close();
  });

  it.each([
    ['no bytes', 0],
    ['half a header', 12],
    ['a header', 24],
    ['half a record', 60],
  ])('a recording of %s ends there', (_, length) => {
    const recording = record().subarray(0, length);
    expect(isRecording(recording)).toBe(length >= 24);
    const link = new Link({ kind: 'replay', recording });
    link.run(3e9);
    expect(link.guest.received).toEqual([]);
    link.close();
  });
});

portClientSuite('a client behind filter-replay that records', (context) => {
  const filter = new ReplayFilter(
    { id: 'p', direction: 'all' },
    { kind: 'record', sink: new MemorySink() },
    context,
  );
  return behindFilter(context, filter);
});

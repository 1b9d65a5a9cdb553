import { describe, expect, it } from 'vitest';
import { CSUM_OFFSET, CSUM_START, FACT_NEEDS_CSUM, FACTS } from '../../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../../src/core/port.ts';
import { type ByteSink, DumpFilter, type DumpOptions } from '../../../src/link/filter/dump.ts';
import { FilterChain } from '../../../src/link/filter/filter.ts';
import { internetChecksum } from '../../../src/wire/checksum.ts';
import { PCAP_FILE_HEADER_BYTES, PcapReader } from '../../../src/wire/pcap.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { behindFilter } from '../../lib/behind-filter.ts';
import { expectNothingHeld, packet, RecordingClient, tags, testContext } from '../../lib/context.ts';

class MemorySink implements ByteSink {
  readonly chunks: Uint8Array[] = [];
  room = Number.POSITIVE_INFINITY;
  closed = 0;

  write(bytes: Uint8Array, from: number, to: number): boolean {
    if (to - from > this.room) return false;
    this.room -= to - from;
    this.chunks.push(bytes.slice(from, to));
    return true;
  }

  close(): void {
    this.closed++;
  }

  get bytes(): Uint8Array {
    return Uint8Array.from(this.chunks.flatMap((chunk) => [...chunk]));
  }
}

interface Captured {
  seconds: number;
  nanos: number;
  packet: Uint8Array;
  original: number;
}

function records(bytes: Uint8Array): Captured[] {
  const reader = new PcapReader();
  expect(reader.parseHeader(bytes, 0, bytes.length)).toBe(true);
  const out: Captured[] = [];
  for (let at = PCAP_FILE_HEADER_BYTES; at < bytes.length; ) {
    at = reader.parseRecord(bytes, at, bytes.length);
    expect(at, 'a whole record').toBeGreaterThan(0);
    const { seconds, nanos, originalBytes: original } = reader;
    out.push({ seconds, nanos, packet: bytes.slice(reader.data, reader.dataEnd), original });
  }
  return out;
}

const OPTIONS: DumpOptions = {
  id: 'f0',
  direction: 'all',
  format: 'pcap',
  maxlenBytes: 65_536,
  interfaceName: 'n0',
  epochMs: 1_700_000_000_250,
};

function setUp(options: Partial<DumpOptions> = {}) {
  const context = testContext();
  const nic = new RecordingClient(context, 'nic', 'nic');
  const netdev = new RecordingClient(context, 'n0');
  const sink = new MemorySink();
  const chain = new FilterChain(netdev.port);
  const filter = new DumpFilter({ ...OPTIONS, ...options }, context, sink);
  Port.connect(nic.port, netdev.port);
  chain.insert(filter, 'tail');
  return { context, nic, netdev, sink, chain, filter };
}

describe('DumpFilter', () => {
  it('writes both directions with the time of day, and passes every frame on', () => {
    const { context, nic, netdev, sink, chain, filter } = setUp();
    context.clock.setNs(800_123_000);
    nic.send(packet(1));
    netdev.send(packet(2, 100));
    chain.remove(filter);
    filter.close();
    filter.close();
    nic.send(packet(3));
    expect(tags(netdev.received)).toEqual([1, 3]);
    expect(tags(nic.received)).toEqual([2]);
    expect(records(sink.bytes)).toEqual([
      { seconds: 1_700_000_001, nanos: 50_123_000, packet: packet(1), original: 60 },
      { seconds: 1_700_000_001, nanos: 50_123_000, packet: packet(2, 100), original: 100 },
    ]);
    expect(sink.closed).toBe(1);
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it.each([
    ['rx', [1]],
    ['tx', [2]],
  ] as const)('queue=%s sees one direction', (direction, seen) => {
    const { context, nic, netdev, sink, filter } = setUp({ direction });
    nic.send(packet(1));
    netdev.send(packet(2));
    filter.close();
    expect(tags(records(sink.bytes).map((record) => record.packet))).toEqual(seen);
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it('writes a frame once that was refused first', () => {
    const { context, nic, netdev, sink, filter } = setUp();
    netdev.room = 1;
    nic.send(packet(1), packet(2), packet(3));
    netdev.allow(10);
    filter.close();
    expect(tags(records(sink.bytes).map((record) => record.packet))).toEqual([1, 2, 3]);
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it('puts an answer that comes within the call behind its question', () => {
    const { context, nic, netdev, sink, filter } = setUp();
    netdev.room = 2;
    let answers = 0;
    netdev.onReceive = () => {
      if (answers++ === 0) netdev.send(packet(99, 200));
    };
    nic.send(packet(1), packet(2), packet(3));
    netdev.allow(1);
    filter.close();
    expect(tags(records(sink.bytes).map((record) => record.packet))).toEqual([1, 2, 99, 3]);
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it('keeps maxlen bytes of a frame and its true length', () => {
    const { context, nic, netdev, sink, filter } = setUp({ maxlenBytes: 64 });
    nic.send(packet(1, 1000));
    filter.close();
    expect(records(sink.bytes)).toMatchObject([{ packet: packet(1, 1000).slice(0, 64), original: 1000 }]);
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it('fills in a checksum that the frame leaves to be done, in the capture only', () => {
    const { context, nic, netdev, sink, filter } = setUp();
    netdev.port.accepts = ACCEPT_ALL;
    // A partial sum of zero: what the field says when nothing but the frame's own bytes count.
    const bytes = packet(1, 61).fill(0, 26, 28);
    const frame = context.pool.from(bytes);
    context.pool.table[frame + FACTS] = FACT_NEEDS_CSUM;
    context.pool.table[frame + CSUM_START] = 20;
    context.pool.table[frame + CSUM_OFFSET] = 6;
    nic.port.send(Int32Array.of(frame), 0, 1);
    filter.close();
    const [record] = records(sink.bytes);
    expect(internetChecksum(record!.packet, 20, 41)).toBe(0);
    expect(netdev.received).toEqual([bytes]);
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it('has every record of a turn in the sink when the turn ends', () => {
    const { context, nic, netdev, sink, filter } = setUp();
    nic.send(packet(1), packet(2));
    expect(records(sink.bytes)).toEqual([]);
    context.loop.run();
    expect(records(sink.bytes).length).toBe(2);
    filter.close();
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it('stops writing when the sink is full, counts, and still passes frames', () => {
    const { context, nic, netdev, sink, filter } = setUp();
    sink.room = 10;
    nic.send(packet(1));
    context.loop.run();
    nic.send(packet(2));
    expect(filter.stats).toMatchObject({ frames: 1, dropSinkFailed: 1 });
    expect(tags(netdev.received)).toEqual([1, 2]);
    filter.close();
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });

  it('writes blocks of pcapng that agree on their length at both ends', () => {
    const { context, nic, netdev, sink, filter } = setUp({ format: 'pcapng' });
    for (let length = 60; length < 70; length++) nic.send(packet(length, length));
    filter.close();
    const bytes = sink.bytes;
    const view = new DataView(bytes.buffer);
    const types = [];
    for (let at = 0; at < bytes.length; ) {
      const length = view.getUint32(at + 4, true);
      expect(view.getUint32(at + length - 4, true)).toBe(length);
      types.push(view.getUint32(at, true));
      at += length;
    }
    expect(types).toEqual([0x0a0d0d0a, 1, ...new Array(10).fill(6)]);
    nic.close();
    netdev.close();
    expectNothingHeld(context);
  });
});

portClientSuite('a client behind filter-dump', (context) => {
  const filter = new DumpFilter(OPTIONS, context, new MemorySink());
  return behindFilter(context, filter);
});

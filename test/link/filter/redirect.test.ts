/** filter-buffer, filter-mirror and filter-redirector, with a chardev whose other end is the test. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_TCPV4,
} from '../../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../../src/core/port.ts';
import { BufferFilter } from '../../../src/link/filter/buffer.ts';
import { type Filter, FilterChain, type FilterDirection } from '../../../src/link/filter/filter.ts';
import { FrameReader } from '../../../src/link/filter/frame-stream.ts';
import { MirrorFilter, RedirectorFilter } from '../../../src/link/filter/redirect.ts';
import { adapt } from '../../../src/nic/offload.ts';
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
import { framed, Wire } from '../../lib/wire.ts';

/** The link of a virtio-net guest on a tap. */
const linkHeaderBytes = (): number => 12;

class Link {
  readonly context: TestContext = testContext({ adapt });
  readonly near = new RecordingClient(this.context, 'near', 'nic');
  readonly far = new RecordingClient(this.context, 'far');
  readonly chain = new FilterChain(this.far.port);
  filter: Filter | null = null;

  constructor() {
    Port.connect(this.near.port, this.far.port);
  }

  with<F extends Filter>(filter: F): F {
    this.filter = filter;
    this.chain.insert(filter, 'tail');
    return filter;
  }

  run(ns = 0): void {
    this.context.loop.runUntil(this.context.clock.nowNs() + ns);
  }

  close(): void {
    if (this.filter !== null) {
      this.chain.remove(this.filter);
      this.filter.close();
    }
    this.near.close();
    this.far.close();
    expectNothingHeld(this.context);
  }
}

describe('filter-buffer', () => {
  const open = (): Link & { buffer: BufferFilter } => {
    const link = new Link();
    return Object.assign(link, {
      buffer: link.with(new BufferFilter({ id: 'b', direction: 'all', intervalNs: 1e6 }, link.context)),
    });
  };

  it('holds frames of both directions until the interval ends', () => {
    const link = open();
    link.near.send(packet(1), packet(2));
    link.far.send(packet(3));
    link.run(999_999);
    expect([link.far.received, link.near.received]).toEqual([[], []]);
    link.run(1);
    expect([tags(link.far.received), tags(link.near.received)]).toEqual([[1, 2], [3]]);
    link.close();
  });

  it('makes the sender wait when it is full, and loses nothing', () => {
    const link = open();
    const packets = Array.from({ length: 300 }, (_, i) => packet(i & 0xff, 64));
    let taken = 0;
    for (let i = 0; i < 4; i++) taken += link.near.send(...packets.slice(0, 100));
    expect(taken).toBe(400);
    link.run(5e6);
    expect(link.far.received).toHaveLength(400);
    link.close();
  });

  it('lets go of what it holds when it is removed', () => {
    const link = open();
    link.near.send(packet(1), packet(2));
    link.close();
    expect(tags(link.far.received)).toEqual([1, 2]);
  });
});

describe('filter-mirror', () => {
  const mirror = (link: Link, wire: Wire, vnetHdr = false, direction: FilterDirection = 'all') =>
    link.with(new MirrorFilter({ id: 'm', direction, vnetHdr, linkHeaderBytes }, link.context, wire));

  it('copies what passes, in both directions, and passes it on', () => {
    const link = new Link();
    const wire = new Wire();
    const filter = mirror(link, wire);
    wire.connect();
    link.near.send(packet(1), packet(2, 200));
    link.far.send(packet(3));
    link.run();
    expect(tags(link.far.received)).toEqual([1, 2]);
    expect(Uint8Array.from(wire.written)).toEqual(framed(null, packet(1), packet(2, 200), packet(3)));
    expect(filter.stats.outFrames).toBe(3);
    link.close();
  });

  it('never slows the link: copies that find no room are dropped, whole', () => {
    const link = new Link();
    const wire = new Wire();
    const filter = mirror(link, wire);
    wire.connect();
    wire.room = 10;
    for (let i = 0; i < 6000; i++) expect(link.near.send(packet(i & 0xff))).toBe(1);
    link.run();
    expect(filter.stats.dropOutFull).toBeGreaterThan(0);
    wire.allow(Number.POSITIVE_INFINITY);
    expect(wire.written.length).toBe(64 * filter.stats.outFrames);
    link.close();
  });

  it('counts what nobody listens to', () => {
    const link = new Link();
    const filter = mirror(link, new Wire());
    link.near.send(packet(1));
    expect(filter.stats.dropNotConnected).toBe(1);
    link.close();
  });

  it('mirrors only its direction', () => {
    const link = new Link();
    const wire = new Wire();
    mirror(link, wire, false, 'tx');
    wire.connect();
    link.near.send(packet(1));
    link.far.send(packet(2));
    link.run();
    expect(Uint8Array.from(wire.written)).toEqual(framed(null, packet(2)));
    link.close();
  });

  it('carries offload facts in the header, or does the offloads without one', () => {
    for (const vnetHdr of [true, false]) {
      const link = new Link();
      const wire = new Wire();
      mirror(link, wire, vnetHdr);
      wire.connect();
      link.far.port.accepts = ACCEPT_ALL;
      const { pool } = link.context;
      const bytes = packet(1, 100);
      const frame = pool.from(bytes);
      pool.table[frame + FACTS] = FACT_NEEDS_CSUM;
      pool.table[frame + CSUM_START] = 34;
      pool.table[frame + CSUM_OFFSET] = 16;
      expect(link.near.port.send(Int32Array.of(frame), 0, 1)).toBe(1);
      link.run();
      if (vnetHdr) {
        const header = Uint8Array.of(1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0);
        expect(Uint8Array.from(wire.written)).toEqual(framed(header, bytes));
      } else {
        expect(wire.written.length).toBe(104);
        expect(wire.written.slice(4, 54)).toEqual([...bytes.subarray(0, 50)]);
        expect(wire.written.slice(54, 56)).not.toEqual([...bytes.subarray(50, 52)]);
      }
      link.close();
    }
  });
});

describe('filter-redirector', () => {
  it('takes frames out, and makes the sender wait when the chardev is slow', () => {
    const link = new Link();
    const wire = new Wire();
    const filter = link.with(
      new RedirectorFilter(
        { id: 'r', direction: 'all', vnetHdr: false, linkHeaderBytes },
        link.context,
        undefined,
        wire,
      ),
    );
    wire.connect();
    wire.room = 100;
    for (let i = 0; i < 300; i++) link.near.send(packet(i & 0xff, 1500));
    link.run();
    expect(link.far.received).toEqual([]);
    expect(link.near.waiting.length).toBeGreaterThan(0);
    wire.allow(Number.POSITIVE_INFINITY);
    link.run();
    expect(link.near.waiting).toEqual([]);
    expect(filter.stats.outFrames).toBe(300);
    expect(wire.written.length).toBe(300 * 1504);
    link.close();
  });

  it('puts frames in, in the directions it works on', () => {
    for (const [direction, near, far] of [
      ['rx', [], [1, 2]],
      ['tx', [1, 2], []],
      ['all', [1, 2], [1, 2]],
    ] as const) {
      const link = new Link();
      const wire = new Wire();
      link.with(
        new RedirectorFilter(
          { id: 'r', direction, vnetHdr: false, linkHeaderBytes },
          link.context,
          wire,
          undefined,
        ),
      );
      wire.connect();
      wire.arrive(framed(null, packet(1), packet(2, 1500)));
      expect([tags(link.near.received), tags(link.far.received)]).toEqual([near, far]);
      link.near.send(packet(9));
      expect(link.far.received.at(-1)![14]).toBe(9);
      link.close();
    }
  });

  it('reads no more than the link takes', () => {
    const link = new Link();
    const wire = new Wire();
    link.with(
      new RedirectorFilter(
        { id: 'r', direction: 'rx', vnetHdr: false, linkHeaderBytes },
        link.context,
        wire,
        undefined,
      ),
    );
    wire.connect();
    link.far.room = 1;
    wire.arrive(framed(null, packet(1), packet(2), packet(3)));
    expect(tags(link.far.received)).toEqual([1]);
    expect(wire.unread).toBeGreaterThan(0);
    link.far.allow(10);
    expect(tags(link.far.received)).toEqual([1, 2, 3]);
    link.close();
  });

  it('goes through two of them and comes back the same, with offloads', () => {
    const [one, two] = [new Link(), new Link()];
    const [out, back] = [new Wire(), new Wire()];
    one.with(
      new RedirectorFilter(
        { id: 'r', direction: 'rx', vnetHdr: true, linkHeaderBytes },
        one.context,
        undefined,
        out,
      ),
    );
    two.with(
      new RedirectorFilter(
        { id: 'r', direction: 'rx', vnetHdr: true, linkHeaderBytes },
        two.context,
        back,
        undefined,
      ),
    );
    out.connect();
    back.connect();
    one.far.port.accepts = ACCEPT_ALL;
    const { pool } = one.context;
    const bytes = packet(5, 9000);
    const frame = pool.from(bytes);
    pool.table[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_TCPV4 << 8);
    pool.table[frame + GSO_SIZE] = 1448;
    pool.table[frame + CSUM_START] = 34;
    pool.table[frame + CSUM_OFFSET] = 16;
    one.near.port.send(Int32Array.of(frame), 0, 1);
    one.run();
    let facts: number[] = [];
    two.far.onReceive = (frames, from) => {
      const t = two.context.pool.table;
      facts = [FACTS, GSO_SIZE, CSUM_START, CSUM_OFFSET].map((word) => t[frames[from]! + word]!);
    };
    back.arrive(Uint8Array.from(out.written));
    expect(two.far.received).toEqual([bytes]);
    expect(facts).toEqual([FACT_NEEDS_CSUM | (GSO_TCPV4 << 8), 1448, 34, 16]);
    one.close();
    two.close();
  });

  it.each([
    ['a length beyond any frame', [0xff, 0xff, 0xff, 0xff]],
    ['a length beyond any frame', [0, 2, 0, 0]],
  ])('ends a connection with %s, and takes the next one', (_, bytes) => {
    const link = new Link();
    const wire = new Wire();
    const filter = link.with(
      new RedirectorFilter(
        { id: 'r', direction: 'rx', vnetHdr: false, linkHeaderBytes },
        link.context,
        wire,
        undefined,
      ),
    );
    wire.connect();
    wire.arrive(Uint8Array.from(bytes));
    expect(wire.closed).toBe(true);
    expect(filter.stats.badStreams).toBe(1);
    wire.connect();
    wire.arrive(framed(null, packet(7)));
    expect(tags(link.far.received)).toEqual([7]);
    link.close();
  });

  it('starts anew with a new connection, in mid-frame as well', () => {
    const link = new Link();
    const wire = new Wire();
    link.with(
      new RedirectorFilter(
        { id: 'r', direction: 'rx', vnetHdr: false, linkHeaderBytes },
        link.context,
        wire,
        undefined,
      ),
    );
    wire.connect();
    wire.arrive(framed(null, packet(1)).subarray(0, 30));
    wire.hangUp();
    wire.connect();
    wire.arrive(framed(null, packet(2)));
    expect(tags(link.far.received)).toEqual([2]);
    link.close();
  });

  it('reads the same wherever the bytes are cut, and survives any', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), fc.boolean(), (chunks, vnetHdr) => {
        const context = testContext();
        const reader = new FrameReader(context.pool, vnetHdr);
        for (const chunk of chunks) {
          for (let at = 0; at < chunk.length; at = reader.position) {
            const outcome = reader.push(chunk, at, chunk.length);
            if (outcome === 'bad') break;
            if (outcome === 'frame' && reader.frame !== 0) context.pool.release(reader.frame);
            if (outcome === 'more') break;
          }
        }
        reader.reset();
        expectNothingHeld(context);
      }),
    );
    const packets = Array.from({ length: 20 }, (_, i) => packet(i, 60 + 37 * i));
    const bytes = framed(new Uint8Array(12), ...packets);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length - 1), { maxLength: 30 }), (cuts) => {
        const context = testContext();
        const reader = new FrameReader(context.pool, true);
        const places = [0, ...new Set(cuts)].sort((a, b) => a - b);
        const found: Uint8Array[] = [];
        for (const [i, place] of places.entries()) {
          const end = places[i + 1] ?? bytes.length;
          for (let at = place; at < end; at = reader.position) {
            if (reader.push(bytes, at, end) !== 'frame') continue;
            found.push(context.pool.toBytes(reader.frame));
            context.pool.release(reader.frame);
          }
        }
        expect(found).toEqual(packets);
      }),
    );
  });
});

for (const [name, make] of [
  ['filter-buffer', (c: TestContext) => new BufferFilter({ id: 'b', direction: 'all', intervalNs: 1e6 }, c)],
  [
    'filter-mirror',
    (c: TestContext) =>
      new MirrorFilter({ id: 'm', direction: 'all', vnetHdr: false, linkHeaderBytes }, c, new Wire()),
  ],
] as const) {
  portClientSuite(`a client behind ${name}`, (context) => {
    const filter = make(context);
    return behindFilter(context, filter, name === 'filter-mirror');
  });
}

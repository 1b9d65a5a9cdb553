/** filter-rewriter between a netdev (the client's side) and a secondary guest. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CSUM_OFFSET, CSUM_START, FACT_NEEDS_CSUM, FACTS } from '../../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../../src/core/port.ts';
import { RewriterFilter } from '../../../src/link/colo/rewriter.ts';
import { FilterChain } from '../../../src/link/filter/filter.ts';
import { adapt } from '../../../src/nic/offload.ts';
import {
  TCP_ACK_FLAG as ACK,
  TCP_FIN as FIN,
  TCP_RST as RST,
  TCP_SYN as SYN,
  TCP_PSH,
} from '../../../src/wire/tcp.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { behindFilter } from '../../lib/behind-filter.ts';
import {
  expectNothingHeld,
  packet,
  RecordingClient,
  type TestContext,
  testContext,
} from '../../lib/context.ts';
import { asIpv6, CLIENT, readTcp, readTcp6, SERVER, type Segment, tcpFrame } from '../../lib/tcp-frame.ts';

const PRIMARY = 0xffff_ff00;
const SECONDARY = 0x1234_5678;
const CLIENT_ISN = 5000;
const OFFSET = (SECONDARY - PRIMARY) >>> 0;

class Secondary {
  readonly context: TestContext = testContext({ adapt });
  readonly guest = new RecordingClient(this.context, 'guest', 'nic');
  readonly netdev = new RecordingClient(this.context, 'netdev');
  readonly chain = new FilterChain(this.netdev.port);
  readonly filter: RewriterFilter;

  constructor(ipv6 = false) {
    this.filter = new RewriterFilter({ id: 'w', direction: 'all', ipv6 }, this.context);
    Port.connect(this.guest.port, this.netdev.port);
    this.chain.insert(this.filter, 'tail');
  }

  /** The client's segment as the guest gets it. */
  toGuest(segment: Segment) {
    this.netdev.send(tcpFrame(segment));
    return readTcp(this.guest.received.at(-1)!);
  }

  /** The guest's segment as it leaves. */
  fromGuest(segment: Segment) {
    this.guest.send(tcpFrame({ src: SERVER, dst: CLIENT, srcPort: 80, dstPort: 1024, ...segment }));
    return readTcp(this.netdev.received.at(-1)!);
  }

  handshake(): void {
    this.toGuest({ seq: CLIENT_ISN, flags: SYN });
    this.fromGuest({ seq: SECONDARY, ack: CLIENT_ISN + 1, flags: SYN | ACK });
    this.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK });
  }

  close(): void {
    this.chain.remove(this.filter);
    this.filter.close();
    this.guest.close();
    this.netdev.close();
    expectNothingHeld(this.context);
  }
}

const add = (a: number, b: number): number => (a + b) >>> 0;

describe('filter-rewriter', () => {
  it("puts the client's acknowledgements in the secondary's numbers, and its sequence numbers in the primary's", () => {
    const one = new Secondary();
    one.toGuest({ seq: CLIENT_ISN, flags: SYN });
    one.fromGuest({ seq: SECONDARY, ack: CLIENT_ISN + 1, flags: SYN | ACK });
    expect(one.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK })).toMatchObject({
      seq: CLIENT_ISN + 1,
      ack: SECONDARY + 1,
    });
    const payload = Uint8Array.of(1, 2, 3);
    expect(
      one.fromGuest({ seq: SECONDARY + 1, ack: CLIENT_ISN + 1, flags: ACK | TCP_PSH, payload }),
    ).toMatchObject({
      seq: PRIMARY + 1,
      ack: CLIENT_ISN + 1,
    });
    expect(
      one.toGuest({
        seq: CLIENT_ISN + 1,
        ack: PRIMARY + 1,
        flags: ACK,
        sack: [
          [add(PRIMARY, 200), add(PRIMARY, 300)],
          [add(PRIMARY, 400), add(PRIMARY, 500)],
        ],
      }),
    ).toMatchObject({
      ack: SECONDARY + 1,
      sack: [
        [SECONDARY + 200, SECONDARY + 300],
        [SECONDARY + 400, SECONDARY + 500],
      ],
    });
    // A SYN-ACK that comes again is the primary's by then.
    expect(one.fromGuest({ seq: SECONDARY, ack: CLIENT_ISN + 1, flags: SYN | ACK }).seq).toBe(PRIMARY);
    expect(one.filter.stats).toMatchObject({ ackRewritten: 2, seqRewritten: 2, connections: 1 });
    one.close();
  });

  it('learns from the SYN-ACK when the guest opens the connection', () => {
    const one = new Secondary();
    expect(one.fromGuest({ seq: SECONDARY, flags: SYN }).seq).toBe(SECONDARY);
    expect(one.toGuest({ seq: 77, ack: PRIMARY + 1, flags: SYN | ACK }).ack).toBe(SECONDARY + 1);
    expect(one.fromGuest({ seq: SECONDARY + 1, ack: 78, flags: ACK }).seq).toBe(PRIMARY + 1);
    one.close();
  });

  it("waits for a secondary that is slower than the client's answer", () => {
    const one = new Secondary();
    one.toGuest({ seq: CLIENT_ISN, flags: SYN });
    one.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK });
    one.fromGuest({ seq: SECONDARY, ack: CLIENT_ISN + 1, flags: SYN | ACK });
    expect(one.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK }).ack).toBe(SECONDARY + 1);
    one.close();
  });

  it('passes what it knows nothing about: a connection in mid-life, equal numbers, UDP, what is no IP', () => {
    const one = new Secondary();
    expect(one.toGuest({ seq: 9, ack: 10, flags: ACK }).ack).toBe(10);
    expect(one.fromGuest({ seq: 11, ack: 12, flags: ACK }).seq).toBe(11);
    one.toGuest({ seq: 1, flags: SYN, srcPort: 9 });
    one.fromGuest({ seq: 100, ack: 2, flags: SYN | ACK, dstPort: 9 });
    expect(one.toGuest({ seq: 2, ack: 101, flags: ACK, srcPort: 9 }).ack).toBe(101);
    one.netdev.send(packet(1));
    expect(one.guest.received.at(-1)).toEqual(packet(1));
    expect(one.filter.stats).toMatchObject({ ackRewritten: 0, seqRewritten: 0 });
    one.close();
  });

  it('keeps the numbers for a FIN that comes again, forgets them a minute after the end, and at once with new ones', () => {
    const one = new Secondary();
    one.handshake();
    one.fromGuest({ seq: SECONDARY + 1, ack: CLIENT_ISN + 1, flags: FIN | ACK });
    one.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 2, flags: FIN | ACK });
    expect(one.fromGuest({ seq: SECONDARY + 2, ack: CLIENT_ISN + 2, flags: ACK }).seq).toBe(add(PRIMARY, 2));
    expect(one.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 2, flags: FIN | ACK }).ack).toBe(SECONDARY + 2);
    one.context.loop.runUntil(one.context.clock.nowNs() + 59e9);
    expect(one.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 2, flags: FIN | ACK }).ack).toBe(SECONDARY + 2);
    one.context.loop.runUntil(one.context.clock.nowNs() + 2e9);
    expect(one.toGuest({ seq: CLIENT_ISN + 1, ack: 50, flags: FIN | ACK }).ack).toBe(50);
    // The same ports again, with other numbers, before the first is forgotten.
    one.handshake();
    one.toGuest({ seq: 1, flags: SYN });
    one.fromGuest({ seq: 1000, ack: 2, flags: SYN | ACK });
    expect(one.toGuest({ seq: 2, ack: 501, flags: ACK }).ack).toBe(1001);
    one.close();
  });

  it('an RST is rewritten and ends the connection', () => {
    const one = new Secondary();
    one.handshake();
    expect(one.fromGuest({ seq: SECONDARY + 1, ack: 0, flags: RST }).seq).toBe(PRIMARY + 1);
    one.context.loop.runUntil(one.context.clock.nowNs() + 61e9);
    expect(one.fromGuest({ seq: SECONDARY + 1, ack: 0, flags: RST }).seq).toBe(SECONDARY + 1);
    one.close();
  });

  it('status=off forgets: after a checkpoint both guests have the same numbers', () => {
    const one = new Secondary();
    one.handshake();
    one.filter.flush();
    expect(one.toGuest({ seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK }).ack).toBe(PRIMARY + 1);
    one.close();
  });

  it('changes a frame once, however often it is offered, and not in the hands of others', () => {
    const one = new Secondary();
    one.handshake();
    const before = one.guest.received.length;
    one.guest.room = 0;
    const frame = tcpFrame({ seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK });
    expect(one.netdev.send(frame, frame)).toBe(0);
    expect(one.context.pool.toBytes(one.netdev.waiting[0]!)).toEqual(frame);
    one.guest.allow(Number.POSITIVE_INFINITY);
    expect(one.guest.received.slice(before).map((bytes) => readTcp(bytes).ack)).toEqual([
      SECONDARY + 1,
      SECONDARY + 1,
    ]);
    const { pool } = one.context;
    const shared = pool.from(frame);
    pool.retain(shared);
    expect(one.netdev.port.send(Int32Array.of(shared), 0, 1)).toBe(1);
    expect(pool.toBytes(shared)).toEqual(frame);
    expect(readTcp(one.guest.received.at(-1)!).ack).toBe(SECONDARY + 1);
    pool.release(shared);
    one.close();
  });

  it('leaves a checksum alone that is still to be completed', () => {
    const one = new Secondary();
    one.handshake();
    one.netdev.port.accepts = ACCEPT_ALL;
    const { pool } = one.context;
    const bytes = tcpFrame({
      src: SERVER,
      dst: CLIENT,
      srcPort: 80,
      dstPort: 1024,
      seq: SECONDARY + 1,
      ack: CLIENT_ISN + 1,
      flags: ACK,
    });
    const frame = pool.from(bytes);
    pool.table[frame + FACTS] = FACT_NEEDS_CSUM;
    pool.table[frame + CSUM_START] = 34;
    pool.table[frame + CSUM_OFFSET] = 16;
    one.guest.port.send(Int32Array.of(frame), 0, 1);
    const got = one.netdev.received.at(-1)!;
    expect([...got.subarray(50, 52)]).toEqual([...bytes.subarray(50, 52)]);
    expect([...got.subarray(38, 42)]).toEqual([0xff, 0xff, 0xff, 0x01]);
    one.close();
  });

  it('many connections push out the oldest, and any bytes at all pass without an exception', () => {
    const one = new Secondary();
    for (let i = 0; i < 17_000; i++) {
      one.netdev.send(tcpFrame({ src: CLIENT + (i >> 14), srcPort: i & 0x3fff, seq: i, flags: SYN }));
      one.guest.received.length = 0;
    }
    expect(one.filter.stats).toMatchObject({ connections: 17_000, evicted: 17_000 - 16_384 });
    const base = tcpFrame({ seq: 1, ack: 2, flags: ACK, sack: [[1, 2]], payload: new Uint8Array(20) });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 6 }),
        fc.integer({ min: 14, max: base.length }),
        (changes, length) => {
          const bytes = base.slice(0, length);
          for (const [at, value] of changes) if (at < length) bytes[at] = value;
          one.netdev.send(bytes);
          one.guest.send(bytes);
          expect(one.guest.received.pop()).toHaveLength(length);
          expect(one.netdev.received.pop()).toHaveLength(length);
        },
      ),
    );
    one.close();
  });

  it('is exact for any offset and any options: checksums stay right, and both ways cancel', () => {
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(u32, u32, u32, fc.uint8Array({ maxLength: 40 }), (primary, secondary, ack, payload) => {
        const one = new Secondary();
        one.toGuest({ seq: 1, flags: SYN });
        one.fromGuest({ seq: secondary, ack: 2, flags: SYN | ACK });
        one.toGuest({ seq: 2, ack: add(primary, 1), flags: ACK });
        const segment = { seq: 2, ack, flags: ACK, payload, sack: [[ack, add(ack, 9)]] as const };
        const offset = (secondary - primary) >>> 0;
        expect(one.toGuest(segment)).toEqual({
          seq: 2,
          ack: add(ack, offset),
          flags: ACK,
          sack: [[add(ack, offset), add(ack, 9 + offset)]],
        });
        expect(one.fromGuest({ seq: add(ack, offset), ack: 3, flags: ACK, payload }).seq).toBe(ack);
        one.close();
      }),
      { numRuns: 50 },
    );
    expect(OFFSET).toBe((SECONDARY + 0x100) >>> 0);
  });
});

describe('filter-rewriter with ipv6=on', () => {
  const HOP: Uint8Array = Uint8Array.of(6, 0, 1, 4, 0, 0, 0, 0);

  it('does to any conversation over IPv6 what it does over IPv4', () => {
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
    const step = fc.record({
      toGuest: fc.boolean(),
      flags: fc.constantFrom(ACK, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, TCP_PSH | ACK),
      seq: fc.oneof(u32, fc.constantFrom(CLIENT_ISN, SECONDARY, PRIMARY)),
      ack: fc.oneof(u32, fc.constantFrom(PRIMARY + 1, CLIENT_ISN + 1)),
      port: fc.nat(1),
      payload: fc.uint8Array({ maxLength: 20 }),
      extended: fc.boolean(),
    });
    let changed = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 20 }), (steps) => {
        const four = new Secondary();
        const six = new Secondary(true);
        for (const { toGuest, port, extended, ...rest } of [
          {
            toGuest: true,
            flags: SYN,
            seq: CLIENT_ISN,
            ack: 0,
            port: 0,
            payload: new Uint8Array(0),
            extended: false,
          },
          ...steps,
        ]) {
          const segment: Segment = toGuest
            ? { ...rest, srcPort: 1024 + port, sack: [[rest.ack, add(rest.ack, 9)]] }
            : { ...rest, src: SERVER, dst: CLIENT, srcPort: 80, dstPort: 1024 + port };
          const frame = tcpFrame(segment);
          const read = (one: Secondary, bytes: Uint8Array): Uint8Array => {
            (toGuest ? one.netdev : one.guest).send(bytes);
            return (toGuest ? one.guest : one.netdev).received.at(-1)!;
          };
          const expected = readTcp(read(four, frame));
          expect(readTcp6(read(six, asIpv6(frame, extended ? [HOP] : [])))).toEqual(expected);
          if (expected.seq !== segment.seq || expected.ack !== segment.ack) changed++;
        }
        expect(six.filter.stats).toEqual(four.filter.stats);
        four.close();
        six.close();
      }),
      { numRuns: 60 },
    );
    expect(changed).toBeGreaterThan(5);
  });

  it('leaves IPv6 alone without it, as QEMU does', () => {
    const one = new Secondary();
    for (const segment of [
      { seq: CLIENT_ISN, flags: SYN },
      { seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK },
    ]) {
      const frame = asIpv6(tcpFrame(segment));
      one.netdev.send(frame);
      expect(one.guest.received.at(-1)).toEqual(frame);
    }
    expect(one.filter.stats.connections).toBe(0);
    one.close();
  });

  it('passes fragments, lengths that lie and long chains of extension headers', () => {
    const one = new Secondary(true);
    one.netdev.send(asIpv6(tcpFrame({ seq: CLIENT_ISN, flags: SYN })));
    one.guest.send(
      asIpv6(
        tcpFrame({
          src: SERVER,
          dst: CLIENT,
          srcPort: 80,
          dstPort: 1024,
          seq: SECONDARY,
          ack: CLIENT_ISN + 1,
          flags: SYN | ACK,
        }),
      ),
    );
    const ack = tcpFrame({ seq: CLIENT_ISN + 1, ack: PRIMARY + 1, flags: ACK });
    const fragment = asIpv6(ack, [Uint8Array.of(6, 0, 0, 1, 0, 0, 0, 1)]);
    fragment[20] = 44;
    const long = asIpv6(ack, [Uint8Array.of(60, 31, 1, 254, ...new Uint8Array(252)), HOP]);
    const lying = asIpv6(ack);
    lying[18] = 0xff;
    for (const frame of [fragment, lying]) {
      one.netdev.send(frame);
      expect(one.guest.received.at(-1)).toEqual(frame);
    }
    one.netdev.send(long);
    expect(one.guest.received.at(-1)).toHaveLength(long.length);
    one.close();
  });
});

portClientSuite('a client behind filter-rewriter', (context) => {
  const filter = new RewriterFilter({ id: 'w', direction: 'all', ipv6: true }, context);
  return behindFilter(context, filter);
});

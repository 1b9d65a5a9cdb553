import { describe, expect, it } from 'vitest';
import { FACT_NEEDS_CSUM, FACTS, GSO_TCPV4, TOTAL } from '../../src/core/pool.ts';
import { ACCEPT_ALL, ACCEPT_CSUM, ACCEPT_TSO4, type Adapt, acceptable, Port } from '../../src/core/port.ts';
import { PassingStage } from '../../src/link/filter/filter.ts';
import {
  expectNothingHeld,
  packet,
  RecordingClient,
  type TestContext,
  tags,
  testContext,
} from '../lib/context.ts';

function pair(
  options: Parameters<typeof testContext>[0] = {},
  kinds: ['nic' | 'backend', 'nic' | 'backend'] = ['nic', 'backend'],
) {
  const context = testContext(options);
  const a = new RecordingClient(context, 'a', kinds[0]);
  const b = new RecordingClient(context, 'b', kinds[1]);
  Port.connect(a.port, b.port);
  return { context, a, b };
}

const end = (context: TestContext, ...clients: RecordingClient[]) => {
  for (const client of clients) client.close();
  expectNothingHeld(context);
};

describe('Port', () => {
  it('hands a batch on within the call and counts it', () => {
    const { context, a, b } = pair();
    expect(a.send(packet(1), packet(2, 100))).toBe(2);
    expect(b.received).toEqual([packet(1), packet(2, 100)]);
    expect(a.port.stats).toMatchObject({ sentFrames: 2, sentBytes: 160, refusals: 0 });
    end(context, a, b);
  });

  it('leaves what was refused with the sender, and repeats it in order after ready', () => {
    const { context, a, b } = pair();
    b.room = 2;
    expect(a.send(packet(1), packet(2), packet(3), packet(4))).toBe(2);
    expect(a.port.blocked).toBe(true);
    expect(a.port.stats).toMatchObject({ sentFrames: 2, sentBytes: 120, refusals: 1 });
    b.allow(1);
    b.allow(10);
    expect(tags(b.received)).toEqual([1, 2, 3, 4]);
    expect(a.port.blocked).toBe(false);
    expect(a.port.stats).toMatchObject({ sentFrames: 4, sentBytes: 240 });
    end(context, a, b);
  });

  it('drops, counted, with no peer and with the link down', () => {
    const context = testContext();
    const a = new RecordingClient(context, 'a');
    const b = new RecordingClient(context, 'b');
    a.send(packet(1));
    expect(a.port.stats.dropNoPeer).toBe(1);
    Port.connect(a.port, b.port);
    b.port.setLink(false);
    a.send(packet(2));
    b.send(packet(3));
    expect(a.port.stats.dropLinkDown).toBe(1);
    expect(b.port.stats.dropLinkDown).toBe(1);
    b.port.setLink(true);
    a.send(packet(4));
    expect(tags(b.received)).toEqual([4]);
    expect(a.links).toEqual([true, false, true]);
    end(context, a, b);
  });

  it('keeps set_link and carrier apart: both must be up', () => {
    const { context, a, b } = pair();
    b.port.setCarrier(false);
    b.port.setLink(false);
    b.port.setCarrier(true);
    expect(a.port.up).toBe(false);
    b.port.setLink(true);
    expect(a.port.up).toBe(true);
    end(context, a, b);
  });

  it('lets a sender go on when the link comes back', () => {
    const { context, a, b } = pair();
    b.room = 0;
    a.send(packet(1));
    b.room = 5;
    b.port.setLink(false);
    b.port.setLink(true);
    expect(tags(b.received)).toEqual([1]);
    end(context, a, b);
  });

  it('never enters receive twice: an echo between two clients does not recurse', () => {
    const { context, a, b } = pair();
    let depth = 0;
    let deepest = 0;
    let left = 20;
    const bounce = (self: RecordingClient) => () => {
      depth++;
      deepest = Math.max(deepest, depth);
      if (left-- > 0) self.send(packet(left));
      depth--;
    };
    a.onReceive = bounce(a);
    b.onReceive = bounce(b);
    a.send(packet(99));
    context.loop.runWhile(() => left > 0, 1e9);
    context.loop.runUntil(1e9);
    expect(deepest).toBeLessThanOrEqual(2);
    expect(a.received.length + b.received.length).toBe(21);
    end(context, a, b);
  });

  it('forgets its peer on disconnect and can be connected again', () => {
    const { context, a, b } = pair();
    a.port.disconnect();
    expect(b.port.peer).toBe(null);
    expect(b.links).toEqual([true, false]);
    const c = new RecordingClient(context, 'c');
    Port.connect(a.port, c.port);
    a.send(packet(5));
    expect(tags(c.received)).toEqual([5]);
    expect(() => Port.connect(b.port, c.port)).toThrow('connected already');
    end(context, a, b, c);
  });

  it('passes frames through its stages in order, and readiness back', () => {
    const { context, a, b } = pair();
    const seen: string[] = [];
    class Spy extends PassingStage {
      readonly mark: string;
      constructor(mark: string) {
        super();
        this.mark = mark;
      }
      receive(frames: Int32Array, from: number, to: number): number {
        seen.push(this.mark);
        return this.next.receive(frames, from, to);
      }
    }
    a.port.setStages([new Spy('1'), new Spy('2')]);
    b.room = 0;
    a.send(packet(1));
    b.allow(1);
    expect(seen).toEqual(['1', '2', '1', '2']);
    a.port.setStages([]);
    b.allow(1);
    a.send(packet(2));
    expect(seen.length).toBe(4);
    expect(tags(b.received)).toEqual([1, 2]);
    end(context, a, b);
  });
});

describe('offload facts at a port', () => {
  /** Splits a frame into single frames that carry its payload bytes 14, 15, … as their tags. */
  const split: Adapt = (pool, frame, _accepts, out) => {
    const bytes = pool.toBytes(frame);
    pool.release(frame);
    if (bytes.length < 16) return 0;
    let count = 0;
    for (const tag of bytes.subarray(14)) out[count++] = pool.from(packet(tag));
    return count;
  };
  const gso = (context: TestContext, tagList: number[]) => {
    const frame = context.pool.from(Uint8Array.from([...new Array(14).fill(0), ...tagList]));
    context.pool.table[frame + FACTS] = GSO_TCPV4 << 8;
    return frame;
  };

  it('passes facts to a peer that accepts them', () => {
    const { context, a, b } = pair({ adapt: split });
    b.port.accepts = ACCEPT_ALL;
    let facts = 0;
    b.onReceive = (frames) => {
      facts = context.pool.table[frames[0]! + FACTS]!;
    };
    expect(a.port.send(Int32Array.of(gso(context, [1, 2])), 0, 1)).toBe(1);
    expect(facts).toBe(GSO_TCPV4 << 8);
    expect(b.received.length).toBe(1);
    end(context, a, b);
  });

  it('adapts a frame where the peer does not, and holds back what the peer cannot take yet', () => {
    const { context, a, b } = pair({ adapt: split });
    b.room = 2;
    expect(a.port.send(Int32Array.of(gso(context, [1, 2, 3, 4])), 0, 1)).toBe(1);
    expect(a.port.waiting).toBe(2);
    expect(a.send(packet(5))).toBe(0);
    expect(tags(b.received)).toEqual([1, 2]);
    b.allow(10);
    expect(tags(b.received)).toEqual([1, 2, 3, 4, 5]);
    expect(a.port.waiting).toBe(0);
    end(context, a, b);
  });

  it('drops a frame that cannot be adapted, and goes on with the next', () => {
    const { context, a, b } = pair({ adapt: split });
    const batch = Int32Array.of(gso(context, []), gso(context, [7, 8]), context.pool.from(packet(9)));
    expect(a.port.send(batch, 0, 3)).toBe(3);
    expect(a.port.stats.dropBadOffload).toBe(1);
    expect(tags(b.received)).toEqual([7, 8, 9]);
    end(context, a, b);
  });

  it('drops what waits when the link is taken apart', () => {
    const { context, a, b } = pair({ adapt: split });
    b.room = 1;
    a.port.send(Int32Array.of(gso(context, [1, 2, 3])), 0, 1);
    a.port.disconnect();
    expect(a.port.stats.dropNoPeer).toBe(2);
    end(context, a, b);
  });

  it('hardening 15: a frame longer than any may be is dropped and counted', () => {
    const { context, a, b } = pair();
    const region = context.pool.addRegion(new Uint8Array(80_000));
    const frame = context.pool.from(packet(1, 192));
    context.pool.borrow(frame, frame, region, 0, 80_000);
    expect(context.pool.table[frame + TOTAL]).toBe(80_192);
    expect(a.port.send(Int32Array.of(frame), 0, 1)).toBe(1);
    expect(a.port.stats.dropTooLong).toBe(1);
    end(context, a, b);
  });

  it('knows which facts a set of bits covers', () => {
    expect(acceptable(0, 0)).toBe(true);
    expect(acceptable(FACT_NEEDS_CSUM, 0)).toBe(false);
    expect(acceptable(FACT_NEEDS_CSUM, ACCEPT_CSUM)).toBe(true);
    expect(acceptable((GSO_TCPV4 << 8) | 1, ACCEPT_CSUM)).toBe(false);
    expect(acceptable((GSO_TCPV4 << 8) | 1, ACCEPT_CSUM | ACCEPT_TSO4)).toBe(true);
    expect(acceptable(((GSO_TCPV4 | 0x80) << 8) | 1, ACCEPT_CSUM | ACCEPT_TSO4)).toBe(false);
    expect(acceptable(2 << 8, ACCEPT_ALL)).toBe(false);
  });
});

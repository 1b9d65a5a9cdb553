/** colo-compare with chardevs whose other ends are the test. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ColoCompare, type CompareTiming } from '../../../src/link/colo/compare.ts';
import { FlowTable } from '../../../src/link/colo/flow-table.ts';
import { adapt } from '../../../src/nic/offload.ts';
import {
  TCP_ACK_FLAG as ACK,
  TCP_FIN as FIN,
  TCP_RST as RST,
  TCP_SYN as SYN,
} from '../../../src/wire/tcp.ts';
import { expectNothingHeld, packet, type TestContext, testContext } from '../../lib/context.ts';
import { asIpv6, CLIENT, SERVER, type Segment, tcpFrame, udpFrame } from '../../lib/tcp-frame.ts';
import { framed, Wire } from '../../lib/wire.ts';

const TIMING: CompareTiming = { compareTimeoutMs: 3000, expiredScanCycleMs: 1000, maxQueueFrames: 1024 };
const SECOND = 1e9;

const message = (text: string): Uint8Array =>
  Uint8Array.from([0, 0, 0, text.length, ...[...text].map((c) => c.charCodeAt(0))]);

class Rig {
  readonly context: TestContext;
  readonly primary = new Wire('p');
  readonly secondary = new Wire('s');
  readonly out = new Wire('o');
  readonly notify = new Wire('n');
  readonly compare: ColoCompare;

  constructor(
    options: { vnetHdr?: boolean; ipv6?: boolean; notify?: boolean; timing?: Partial<CompareTiming> } = {},
  ) {
    this.context = testContext({ adapt });
    this.compare = new ColoCompare(
      { id: 'k', vnetHdr: options.vnetHdr ?? false, ipv6: options.ipv6 ?? false },
      { ...TIMING, ...options.timing },
      this.context,
      {
        primary: this.primary,
        secondary: this.secondary,
        out: this.out,
        notify: options.notify === false ? undefined : this.notify,
      },
    );
    for (const wire of [this.primary, this.secondary, this.out]) wire.connect();
    if (options.notify !== false) this.notify.connect();
  }

  /** What left since the last time. */
  get left(): Uint8Array {
    this.run(0);
    return Uint8Array.from(this.out.written.splice(0));
  }

  get told(): Uint8Array {
    return Uint8Array.from(this.notify.written.splice(0));
  }

  run(ns: number): void {
    this.context.loop.runUntil(this.context.clock.nowNs() + ns);
  }

  p(...frames: Uint8Array[]): this {
    this.primary.arrive(framed(null, ...frames));
    return this;
  }

  s(...frames: Uint8Array[]): this {
    this.secondary.arrive(framed(null, ...frames));
    return this;
  }

  close(): void {
    this.compare.close();
    expectNothingHeld(this.context);
  }
}

/** From the guest to the client. */
const guest = (segment: Segment): Uint8Array =>
  tcpFrame({ src: SERVER, dst: CLIENT, srcPort: 80, dstPort: 1024, ...segment });
const data = (seq: number, text: string, flags = ACK, ack = 10): Uint8Array =>
  guest({ seq, ack, flags, payload: Uint8Array.from([...text].map((c) => c.charCodeAt(0))) });

describe('colo-compare', () => {
  it("lets the primary's frame go once the secondary sent the same bytes, and not its own", () => {
    const rig = new Rig();
    rig.p(data(100, 'hello'));
    expect(rig.left).toEqual(new Uint8Array(0));
    rig.s(data(100, 'hello'));
    expect(rig.left).toEqual(framed(null, data(100, 'hello')));
    expect(rig.compare.stats).toMatchObject({ outFrames: 1, secondaryDone: 1, differences: 0 });
    rig.close();
  });

  it('does not mind how TCP cut the bytes, or in which order they came', () => {
    const rig = new Rig();
    rig.p(guest({ seq: 99, ack: 10, flags: SYN | ACK })).s(guest({ seq: 5, ack: 10, flags: SYN | ACK }));
    rig.p(data(100, 'hel'), data(103, 'lo world'));
    rig.s(data(107, 'orl'), data(100, 'hello w'));
    rig.s(data(110, 'd'));
    const [syn, one, two] = [
      guest({ seq: 99, ack: 10, flags: SYN | ACK }),
      data(100, 'hel'),
      data(103, 'lo world'),
    ];
    expect(rig.left).toEqual(framed(null, syn, one, two));
    rig.close();
  });

  it('any stream, cut and repeated anyhow by two guests, goes out as the primary sent it', () => {
    const cuts = fc.array(fc.nat(399), { maxLength: 12 });
    const segments = (text: Uint8Array, places: readonly number[], first: number): Uint8Array[] => {
      const edges = [0, ...[...new Set(places)].sort((a, b) => a - b), text.length];
      return edges
        .slice(1)
        .map((end, i) => ({ from: edges[i]!, end }))
        .filter(({ from, end }) => end > from)
        .map(({ from, end }) =>
          guest({ seq: (first + from) >>> 0, ack: 1, flags: ACK, payload: text.slice(from, end) }),
        );
    };
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 400, maxLength: 400 }),
        cuts,
        cuts,
        fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }),
        fc.integer({ min: 0, max: 0xffff_ffff }),
        (text, pCuts, sCuts, turns, first) => {
          const rig = new Rig();
          const own = segments(text, pCuts, first);
          const theirs = segments(text, sCuts, first);
          // The secondary may also send everything twice.
          if (turns[0]) theirs.push(...theirs.slice());
          let [p, s] = [0, 0];
          for (const turn of turns) {
            if (turn && p < own.length) rig.p(own[p++]!);
            else if (s < theirs.length) rig.s(theirs[s++]!);
          }
          while (p < own.length) rig.p(own[p++]!);
          while (s < theirs.length) rig.s(theirs[s++]!);
          expect(rig.left).toEqual(framed(null, ...own));
          expect(rig.compare.stats.differences).toBe(0);
          rig.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('holds an acknowledgement until the secondary has what it acknowledges', () => {
    const rig = new Rig();
    const ack = (number: number) => guest({ seq: 100, ack: number, flags: ACK });
    rig.p(ack(50)).s(ack(40));
    expect(rig.left).toHaveLength(0);
    rig.s(ack(50));
    expect(rig.left).toEqual(framed(null, ack(50)));
    rig.p(guest({ seq: 100, flags: RST }));
    expect(rig.left).toEqual(framed(null, guest({ seq: 100, flags: RST })));
    rig.close();
  });

  it('a FIN has to come from both', () => {
    const rig = new Rig();
    rig.p(data(100, 'bye', ACK | FIN)).s(data(100, 'bye'));
    expect(rig.left).toHaveLength(0);
    rig.s(guest({ seq: 103, ack: 10, flags: ACK | FIN }));
    expect(rig.left).toEqual(framed(null, data(100, 'bye', ACK | FIN)));
    rig.p(data(104, '')).s(data(104, 'more'));
    expect(rig.left).toEqual(framed(null, data(104, '')));
    rig.close();
  });

  it('asks for a checkpoint where bytes differ, once, and goes on when it is made', () => {
    const rig = new Rig();
    rig.p(data(100, 'hello')).s(data(100, 'hullo'));
    expect(rig.told).toEqual(message('DO_CHECKPOINT'));
    rig.p(data(105, 'more'));
    expect([rig.left.length, rig.told.length]).toEqual([0, 0]);
    rig.notify.arrive(message('COLO_CHECKPOINT'));
    expect(rig.left).toEqual(framed(null, data(100, 'hello'), data(105, 'more')));
    // From here both have the same numbers.
    rig.s(data(109, 'x')).p(data(109, 'x'));
    expect(rig.left).toEqual(framed(null, data(109, 'x')));
    expect(rig.compare.stats).toMatchObject({ checkpoints: 1, outFrames: 3 });
    rig.close();
  });

  it('asks for one when a frame has waited for compare_timeout, and again while nobody listens', () => {
    const rig = new Rig();
    rig.p(data(100, 'hello'));
    rig.run(2.9 * SECOND);
    expect(rig.told).toHaveLength(0);
    rig.run(0.2 * SECOND);
    expect(rig.told).toEqual(message('DO_CHECKPOINT'));
    rig.run(SECOND);
    expect(rig.told).toEqual(message('DO_CHECKPOINT'));
    expect(rig.compare.stats.timeouts).toBe(2);
    rig.close();
  });

  it('without notify_dev lets the frames go as after a checkpoint', () => {
    const rig = new Rig({ notify: false });
    rig.p(data(100, 'hello'));
    rig.run(4 * SECOND);
    expect(rig.left).toEqual(framed(null, data(100, 'hello')));
    rig.p(data(105, 'a')).s(data(105, 'b'));
    expect(rig.left).toEqual(framed(null, data(105, 'a')));
    expect(rig.compare.stats).toMatchObject({ timeouts: 1, differences: 1, checkpoints: 2 });
    rig.close();
  });

  it('answers who sets notify_dev up, and counts what it does not know', () => {
    const rig = new Rig();
    rig.notify.arrive(message('COLO_USERSPACE_PROXY_INIT'));
    expect(rig.told).toEqual(message('COLO_COMPARE_GET_XEN_INIT'));
    rig.notify.arrive(message('HELLO'));
    expect(rig.compare.stats.badMessages).toBe(1);
    rig.notify.arrive(Uint8Array.of(0xff, 0, 0, 0));
    expect(rig.notify.closed).toBe(true);
    rig.close();
  });

  it('datagrams agree by what is behind their IP headers, in any order; different ones ask for a checkpoint', () => {
    const rig = new Rig();
    const [a, b] = [Uint8Array.of(1, 2, 3), Uint8Array.of(4, 5)];
    rig.p(udpFrame(a, 7));
    rig.s(udpFrame(a, 9));
    expect(rig.left).toEqual(framed(null, udpFrame(a, 7)));
    rig.s(udpFrame(b, 1), udpFrame(a, 2)).p(udpFrame(a, 3));
    expect(rig.left).toEqual(framed(null, udpFrame(a, 3)));
    expect(rig.told).toHaveLength(0);
    rig.p(udpFrame(Uint8Array.of(9), 3));
    expect(rig.told).toEqual(message('DO_CHECKPOINT'));
    rig.close();
  });

  it("does not compare what is no IPv4: the primary's goes at once", () => {
    const rig = new Rig();
    rig.p(packet(1)).s(packet(2));
    expect(rig.left).toEqual(framed(null, packet(1)));
    expect(rig.compare.stats).toMatchObject({ passedUncompared: 1, dropSecondaryUncompared: 1 });
    rig.close();
  });

  it('with ipv6=on compares IPv6 as IPv4: streams, datagrams, ICMPv6; what is for the link only goes at once', () => {
    const rig = new Rig({ ipv6: true });
    const one = asIpv6(data(100, 'hello'));
    rig.p(one);
    expect(rig.left).toHaveLength(0);
    rig.s(asIpv6(data(100, 'hel')), asIpv6(data(103, 'lo'), [Uint8Array.of(6, 0, 1, 4, 0, 0, 0, 0)]));
    expect(rig.left).toEqual(framed(null, one));
    const datagram = asIpv6(udpFrame(Uint8Array.of(1, 2, 3), 7));
    rig.p(datagram);
    expect(rig.left).toHaveLength(0);
    rig.s(asIpv6(udpFrame(Uint8Array.of(1, 2, 3), 9)));
    expect(rig.left).toEqual(framed(null, datagram));
    const icmp = (type: number, id: number): Uint8Array => {
      const frame = asIpv6(udpFrame(Uint8Array.of(9, 9, 9)));
      frame[20] = 58;
      frame.set([type, 0, 0, 0, 0, id], 54);
      return frame;
    };
    rig.p(icmp(129, 5)).s(icmp(129, 5));
    expect(rig.left).toEqual(framed(null, icmp(129, 5)));
    const { passedUncompared } = rig.compare.stats;
    for (const type of [130, 131, 132, 133, 134, 135, 136, 137, 143]) {
      rig.p(icmp(type, 1)).s(icmp(type, 2));
      expect(rig.left).toEqual(framed(null, icmp(type, 1)));
    }
    expect(rig.compare.stats.passedUncompared).toBe(passedUncompared + 9);
    expect(rig.told).toHaveLength(0);
    rig.p(icmp(129, 6)).s(icmp(129, 7));
    expect(rig.told).toEqual(message('DO_CHECKPOINT'));
    rig.close();
  });

  it('tells a connection over IPv6 from the one over IPv4 with the same ports, and one address from another by every byte', () => {
    const rig = new Rig({ ipv6: true });
    rig.p(data(100, 'hello')).s(asIpv6(data(100, 'hello')));
    expect(rig.left).toHaveLength(0);
    rig.s(data(100, 'hello'));
    expect(rig.left).toEqual(framed(null, data(100, 'hello')));
    for (let i = 0; i < 16; i++) {
      const other = asIpv6(data(200, 'x'));
      other[38 + i]! ^= 0x40;
      rig.p(other).s(asIpv6(data(200, 'x')));
      expect(rig.left).toHaveLength(0);
      rig.notify.arrive(message('COLO_CHECKPOINT'));
      expect(rig.left).toEqual(framed(null, other));
    }
    rig.close();
  });

  it('without ipv6=on lets the primary’s IPv6 pass uncompared, as QEMU does', () => {
    const rig = new Rig();
    const one = asIpv6(data(100, 'hello'));
    rig.p(one).s(asIpv6(data(100, 'HELLO')));
    expect(rig.left).toEqual(framed(null, one));
    expect(rig.compare.stats).toMatchObject({ passedUncompared: 1, dropSecondaryUncompared: 1 });
    rig.close();
  });

  it('keeps each frame its virtio_net_hdr, of the length it came with', () => {
    for (const length of [0, 10, 12, 20]) {
      const rig = new Rig({ vnetHdr: true });
      const header = new Uint8Array(length);
      rig.primary.arrive(framed(header, data(100, 'hello')));
      rig.secondary.arrive(framed(header, data(100, 'hello')));
      expect(rig.left).toEqual(framed(header, data(100, 'hello')));
      rig.close();
    }
  });

  it('bounds what it keeps: max_queue_size of a connection, half of the pool in all', () => {
    const rig = new Rig({ timing: { maxQueueFrames: 3 } });
    rig.p(...Array.from({ length: 5 }, (_, i) => data(100 + i, 'x')));
    expect(rig.compare.stats.dropQueueFull).toBe(2);
    rig.close();
    const wide = new Rig({ timing: { maxQueueFrames: 1e6 } });
    const { capacity } = wide.context.pool;
    for (let i = 0; i < capacity; i++) wide.p(data(100 + i, 'x'));
    expect(wide.context.pool.free).toBe(capacity - (capacity >> 1));
    expect(wide.compare.stats.dropQueueFull).toBe(capacity - (capacity >> 1));
    wide.close();
  });

  it('stops reading the primary while outdev takes nothing, and drops while nobody is there', () => {
    const rig = new Rig();
    rig.out.room = 10;
    for (let i = 0; i < 300; i++) rig.p(packet(i & 0xff, 1500));
    rig.run(0);
    for (let i = 0; i < 300; i++) rig.p(packet(i & 0xff, 1500));
    expect(rig.primary.unread).toBeGreaterThan(0);
    rig.out.allow(Number.POSITIVE_INFINITY);
    expect(rig.primary.unread).toBe(0);
    expect(rig.left).toHaveLength(600 * 1504);
    rig.out.hangUp();
    rig.p(packet(1));
    expect(rig.compare.stats.dropNotConnected).toBe(1);
    rig.close();
  });

  it('changes its timing while frames wait', () => {
    const rig = new Rig();
    rig.p(data(100, 'hello'));
    rig.compare.change({
      type: 'colo-compare',
      id: 'k',
      primaryIn: 'p',
      secondaryIn: 's',
      outdev: 'o',
      iothread: 'io',
      vnetHdr: false,
      ipv6: false,
      notifyDev: 'n',
      compareTimeoutMs: 10,
      expiredScanCycleMs: 5,
      maxQueueFrames: 10,
    });
    rig.run(0.011 * SECOND);
    expect(rig.told).toEqual(message('DO_CHECKPOINT'));
    rig.close();
  });

  it('survives any frames and any bytes', () => {
    const frames = fc.array(
      fc.record({
        primary: fc.boolean(),
        seq: fc.integer({ min: 95, max: 110 }),
        ack: fc.integer({ min: 0, max: 5 }),
        flags: fc.nat(63),
        length: fc.nat(12),
        fill: fc.nat(1),
        udp: fc.boolean(),
      }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(frames, fc.uint8Array({ maxLength: 60 }), (list, noise) => {
        const rig = new Rig({ timing: { maxQueueFrames: 8 } });
        for (const { primary, seq, ack, flags, length, fill, udp } of list) {
          const payload = new Uint8Array(length).fill(fill);
          const frame = udp ? udpFrame(payload, seq) : guest({ seq, ack, flags, payload });
          if (primary) rig.p(frame);
          else rig.s(frame);
        }
        rig.run(5 * SECOND);
        rig.notify.arrive(message('COLO_CHECKPOINT'));
        rig.primary.arrive(noise);
        rig.secondary.arrive(noise);
        rig.notify.arrive(noise);
        rig.close();
      }),
    );
  });
});

it('a flow table is a map that forgets its oldest entries', () => {
  const operation = fc.record({
    kind: fc.constantFrom('add', 'find', 'sweep'),
    src: fc.nat(3),
    port: fc.nat(7),
    value: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 200 }), (list) => {
      const table = new FlowTable<{ value: number }>(8);
      const model = new Map<string, { value: number }>();
      for (const { kind, src, port, value } of list) {
        const name = `${src}:${port}`;
        const key = Int32Array.of(src, 0, 0, port & 1, 1, 0, 0, 0, (port << 16) | 2, 6);
        const found = table.find(key);
        expect(found).toBe(model.get(name));
        if (kind === 'add' && found === undefined) {
          const entry = { value };
          const evicted = table.add(key, entry);
          if (evicted !== undefined) {
            expect(model.size).toBe(8);
            for (const [old, other] of model) if (other === evicted) model.delete(old);
          }
          model.set(name, entry);
        }
        if (kind === 'sweep') {
          table.sweep((entry) => entry.value === value);
          for (const [old, other] of model) if (other.value === value) model.delete(old);
        }
        expect(table.size).toBe(model.size);
        expect(new Set(table.values())).toEqual(new Set(model.values()));
      }
    }),
  );
});

/** The engine against scripted peers on the virtual clock, by the sections of RFC 9293 and its companions. */
import { afterEach, describe, expect, it } from 'vitest';
import { ACCEPT_ALL } from '../../src/core/port.ts';
import { pattern } from './lib/pair.ts';
import { ACK, FIN, Peer, type PeerOptions, PSH, RST, type Seg, SYN } from './lib/peer.ts';

let p: Peer;
const peer = (options: PeerOptions = {}): Peer => (p = new Peer(options));
afterEach(() => p.end());
const rel = (segs: ReturnType<Peer['take']>) => segs.map((s) => p.rel(s));

describe('opening (RFC 9293 3.5)', () => {
  it('active: SYN with MSS, scale, SACK and timestamps; then ACK', () => {
    peer({ sack: true, timestamps: true, scale: 3, mss: 1400 });
    const syn = p.connect();
    expect(syn.flags).toBe(SYN);
    expect(syn.options.mss).toBe(1460);
    expect(syn.options.windowScale).toBe(5);
    expect(syn.options.sackPermitted).toBe(true);
    expect(syn.options.hasTimestamps).toBe(true);
    const [ack] = p.send({ seq: 0, ack: 1, flags: SYN | ACK });
    expect(p.rel(ack!)).toEqual({ seq: 1, ack: 1, flags: ACK, length: 0 });
    expect(p.user.log).toEqual(['established']);
    // The segment is the peer's MSS less the timestamps.
    expect(p.connection.sender.segmentBytes).toBe(1388);
  });
  it('active: retries the SYN with backoff and gives up', () => {
    peer().connect();
    expect(p.run(1.1e9).length).toBe(1);
    expect(p.run(2e9).length).toBe(1);
    expect(p.run(4e9).length).toBe(1);
    p.run(200e9);
    expect(p.user.log).toEqual(['timeout']);
  });
  it('active: refused by a reset that acknowledges the SYN, not by any other', () => {
    peer().connect();
    p.send({ seq: 0, ack: 5, flags: RST | ACK });
    p.send({ seq: 0, flags: RST });
    expect(p.state).toBe('SYN_SENT');
    p.send({ seq: 0, ack: 1, flags: RST | ACK });
    expect(p.user.log).toEqual(['refused']);
  });
  it('active: an acknowledgement of something else gets a reset (3.10.7.3)', () => {
    peer().connect();
    expect(rel(p.send({ seq: 0, ack: 77, flags: ACK }))).toMatchObject([{ seq: 77, flags: RST }]);
    expect(p.state).toBe('SYN_SENT');
  });
  it('simultaneous open', () => {
    peer().connect();
    expect(rel(p.send({ seq: 0, flags: SYN }))).toEqual([{ seq: 0, ack: 1, flags: SYN | ACK, length: 0 }]);
    expect(p.state).toBe('SYN_RECEIVED');
    p.send({ seq: 0, ack: 1, flags: SYN | ACK });
    expect(p.state).toBe('ESTABLISHED');
    p.send({ seq: 1, ack: 1, data: 10 });
    expect(p.user.receivedBytes).toBe(10);
  });
  it('passive: SYN-ACK, ACK; a repeated SYN gets it again, at once and by timer', () => {
    peer({ mss: 900 });
    expect(rel(p.knock())).toEqual([{ seq: 0, ack: 1, flags: SYN | ACK, length: 0 }]);
    expect(rel(p.send({ seq: 0, flags: SYN }))).toMatchObject([{ seq: 0, ack: 1, flags: SYN | ACK }]);
    expect(p.run(1.1e9).length).toBe(1);
    p.send({ seq: 1, ack: 1 });
    expect(p.state).toBe('ESTABLISHED');
    expect(p.connection.sender.segmentBytes).toBe(900);
    expect(p.run(30e9)).toEqual([]);
  });
  it('passive: a held SYN is silent until it is accepted', () => {
    peer().passive = 'hold';
    expect(p.knock()).toEqual([]);
    expect(p.send({ seq: 0, flags: SYN })).toEqual([]);
    expect(p.state).toBe('SYN_HELD');
    p.connection.accept();
    const [synAck] = p.take();
    expect(synAck!.flags).toBe(SYN | ACK);
  });
  it('passive: a held SYN that is refused gets RST, ACK; one without a word nothing', () => {
    peer().passive = 'hold';
    p.knock();
    p.connection.refuse();
    expect(p.take().map((s) => [s.flags, (s.ack - p.isn) | 0])).toEqual([[RST | ACK, 1]]);
    p.send({ seq: 0, flags: SYN });
    p.connection.refuse(true);
    expect(p.take()).toEqual([]);
  });
  it('passive: a held SYN goes away by its own reset and by time', () => {
    peer().passive = 'hold';
    p.knock();
    p.send({ seq: 1, flags: RST });
    expect(p.user.log).toEqual(['reset']);
    p.send({ seq: 0, flags: SYN });
    p.run(80e9);
    expect(p.user.log).toEqual(['reset', 'timeout']);
  });
  it('no connection: RST by the acknowledgement, or by the length (3.10.7.1); nothing for a reset', () => {
    peer({}).localPort = 1234;
    p.iss = 0;
    expect(p.send({ seq: 5, ack: 99, flags: ACK }).map((s) => [s.seq, s.flags])).toEqual([[99, RST]]);
    const [r] = p.send({ seq: 5, flags: FIN, data: 3 });
    expect([r!.seq, (r!.ack - p.isn) | 0, r!.flags]).toEqual([0, 9, RST | ACK]);
    expect(p.send({ seq: 5, flags: RST })).toEqual([]);
  });
  it('MSS clamp: the link’s MTU bounds what the peer allows, and a missing option means 536', () => {
    peer({ mss: 9000 }).open();
    expect(p.connection.sender.segmentBytes).toBe(1460);
    p.end();
    peer({ mss: 0 }).open();
    expect(p.connection.sender.segmentBytes).toBe(536);
    p.end();
    peer({ mss: 1 }).open();
    expect(p.connection.sender.segmentBytes).toBe(64);
  });
  it('hardening 48: initial sequence numbers differ by four-tuple and by secret (RFC 6528)', () => {
    const isns = new Set<number>();
    const ports = new Set<number>();
    for (let seed = 1; seed <= 10; seed++) {
      peer({ seed });
      for (let i = 0; i < 10; i++) {
        p.connect();
        isns.add(p.iss);
        ports.add(p.localPort);
        p.connection.abort();
      }
      p.end();
    }
    expect(isns.size).toBe(100);
    expect(ports.size).toBeGreaterThan(90);
    // The same four-tuple, the same time, another secret.
    const fixed = [1, 2].map((seed) => {
      peer({ seed });
      p.knock();
      const iss = p.iss;
      p.end();
      return iss;
    });
    expect(fixed[0]).not.toBe(fixed[1]);
    peer();
  });
});

describe('receiving', () => {
  it('acknowledges once for a burst', () => {
    peer().open();
    for (let i = 0; i < 9; i++)
      expect(p.send({ seq: 1 + 1460 * i, ack: 1, data: 1460, more: true })).toEqual([]);
    expect(rel(p.send({ seq: 1 + 1460 * 9, ack: 1, data: 1460 }))).toEqual([
      { seq: 1, ack: 14601, flags: ACK, length: 0 },
    ]);
    expect(p.user.receivedBytes).toBe(14600);
  });
  it('delays the acknowledgement of a small segment once data flows the other way, under 500 ms', () => {
    peer().open();
    for (let i = 0; i < 10; i++) p.send({ seq: 1 + 10 * i, ack: 1, data: 10 });
    expect(p.send({ seq: 101, ack: 1, data: 10 })).toEqual([]);
    expect(rel(p.run(50e6))).toMatchObject([{ ack: 111 }]);
  });
  it('rides on data when there is some', () => {
    peer().open();
    p.user.outgoing = new Uint8Array(0);
    p.send({ seq: 1, ack: 1, data: 10, more: true });
    p.connection.write(pattern(20, 1), 0, 20);
    expect(rel(p.take())).toEqual([{ seq: 1, ack: 11, flags: ACK | PSH, length: 20 }]);
    p.stack.flush();
    expect(p.run(1e6)).toEqual([]);
  });
  it('reorders: duplicate ACKs at once, SACK blocks latest first, then all at once', () => {
    peer({ sack: true }).open();
    const data = pattern(5000, 4);
    const part = (from: number, to: number, seq = from) =>
      p.send({ seq: 1 + seq, ack: 1, data: data.subarray(from, to) });
    const blocks = (s: { options: { sackCount: number; sackLeft: Uint32Array; sackRight: Uint32Array } }) =>
      Array.from({ length: s.options.sackCount }, (_, i) => [
        s.options.sackLeft[i]! - p.isn,
        s.options.sackRight[i]! - p.isn,
      ]);
    const [a] = part(1000, 2000);
    expect(p.rel(a!).ack).toBe(1);
    expect(blocks(a!)).toEqual([[1001, 2001]]);
    const [b] = part(3000, 4000);
    expect(blocks(b!)).toEqual([
      [3001, 4001],
      [1001, 2001],
    ]);
    const [c] = part(2500, 3500); // overlaps the second
    expect(blocks(c!)).toEqual([
      [2501, 4001],
      [1001, 2001],
    ]);
    const [d] = part(500, 4500); // covers all
    expect(blocks(d!)).toEqual([[501, 4501]]);
    const [e] = part(0, 700);
    expect(p.rel(e!).ack).toBe(4501);
    part(4500, 5000);
    expect(Buffer.compare(p.user.received, data)).toBe(0);
  });
  it('drops a duplicate and says so; trims an overlap', () => {
    peer().open();
    const data = pattern(100, 1);
    p.send({ seq: 1, ack: 1, data: data.subarray(0, 60) });
    expect(rel(p.send({ seq: 1, ack: 1, data: data.subarray(0, 60) }))).toMatchObject([{ ack: 61 }]);
    p.send({ seq: 41, ack: 1, data: data.subarray(40, 100) });
    expect(Buffer.compare(p.user.received, data)).toBe(0);
  });
  it('closes the window as the sink stops, never takes back, and opens it with an update', () => {
    peer({ settings: { receiveWindowBytes: 10_000 } }).open();
    p.user.appetite = 2000;
    let seq = 1;
    let edge = 0;
    for (let i = 0; i < 20; i++) {
      const answers = p.send({ seq, ack: 1, data: 1000 });
      for (const s of answers) {
        const now = ((s.ack - p.isn) | 0) + s.window;
        expect(now).toBeGreaterThanOrEqual(edge);
        edge = now;
        seq = (s.ack - p.isn) | 0;
      }
    }
    expect(seq).toBe(12_001); // 2000 taken, 10,000 held
    const [probe] = p.send({ seq: seq - 1, ack: 1 });
    expect(probe!.window).toBe(0);
    p.user.feed(5000);
    const update = p.run(1e6);
    expect(update.length).toBe(1);
    expect(update[0]!.window).toBeGreaterThanOrEqual(4000);
    p.user.feed(1e9);
    p.run(1e6);
    expect(p.user.receivedBytes).toBe(12_000);
  });
  it('a closed window drops text but takes the acknowledgement with it', () => {
    peer({ settings: { receiveWindowBytes: 1000 } }).open();
    p.user.appetite = 0;
    p.send({ seq: 1, ack: 1, data: 1000 });
    p.connection.write(pattern(100, 1), 0, 100);
    p.take();
    p.send({ seq: 1001, ack: 101, data: 500 });
    expect(p.connection.sender.flightBytes).toBe(0);
    expect(p.connection.receiver.heldBytes).toBe(1000);
  });
  it('gathers tiny segments behind a sink that stopped: slots do not grow with segments', () => {
    peer().open();
    p.user.appetite = 0;
    for (let i = 0; i < 2000; i++) {
      p.send({ seq: 1 + i, ack: 1, data: Uint8Array.of(i) });
      if (i % 10 !== 0) continue;
      p.user.feed(1);
      p.run(1000);
    }
    expect(p.pool.capacity - p.pool.free).toBeLessThan(40);
    p.user.feed(1e9);
    p.run(1e6);
    expect(p.user.received).toEqual(Uint8Array.from({ length: 2000 }, (_, i) => i));
  });
  it('drops what is damaged, and what is malformed', () => {
    peer().open();
    p.send({ seq: 1, ack: 1, data: 10, badChecksum: true });
    expect(p.user.receivedBytes).toBe(0);
    expect(p.stack.stats.rxDropBadChecksum).toBe(1);
  });
  it('sequence numbers wrap in both directions', () => {
    peer({ isn: 0xffff_fff0 }).open();
    const data = pattern(6000, 9);
    for (let at = 0; at < 6000; at += 1000)
      p.send({ seq: 1 + at, ack: 1, data: data.subarray(at, at + 1000) });
    expect(Buffer.compare(p.user.received, data)).toBe(0);
    expect(p.connection.receiver.next).toBe((0xffff_fff0 + 6001) | 0);
  });
  it('a GSO frame is one segment', () => {
    peer().open();
    expect(rel(p.send({ seq: 1, ack: 1, data: pattern(60_000, 1) }))).toMatchObject([{ ack: 60_001 }]);
    expect(p.user.receivedBytes).toBe(60_000);
  });
  it('PAWS drops an old timestamp and one that is missing (RFC 7323)', () => {
    peer({ timestamps: true }).open();
    p.send({ seq: 1, ack: 1, data: 10 });
    expect(rel(p.send({ seq: 11, ack: 1, data: 10, stamp: 5 }))).toMatchObject([{ ack: 11 }]);
    p.send({ seq: 11, ack: 1, data: 10, noStamp: true });
    expect(p.user.receivedBytes).toBe(10);
    expect(p.stack.stats.rxDropPaws).toBe(2);
    p.send({ seq: 11, ack: 1, data: 10 });
    expect(p.user.receivedBytes).toBe(20);
  });
});

describe('sending', () => {
  const open = (options: PeerOptions = {}, bytes = 20_000): Uint8Array => {
    const data = pattern(bytes, 8);
    peer(options).open();
    p.user.send(data);
    return data;
  };
  it('starts with the initial window of full segments, then by acknowledgements', () => {
    open({}, 100_000);
    const first = p.take();
    expect(first.length).toBe(10);
    expect(first.every((s) => s.data.length === 1460)).toBe(true);
    const next = p.send({ seq: 1, ack: 14_601 });
    expect(next.length).toBe(20);
  });
  it('one frame for a run of segments when the peer segments (TSO)', () => {
    open({ accepts: ACCEPT_ALL, settings: { initialWindowSegments: 40 } }, 40 * 1460);
    const [frame, ...rest] = p.take();
    expect(rest).toEqual([]);
    expect(frame!.data.length).toBe(40 * 1460);
    expect(frame!.facts).toBe((1 << 8) | 1);
  });
  it('retransmits after the timeout, with backoff, and goes on after the acknowledgement', () => {
    open({}, 1000);
    p.take();
    expect(rel(p.run(250e6))).toMatchObject([{ seq: 1, length: 1000 }]);
    expect(p.run(340e6)).toEqual([]);
    expect(rel(p.run(100e6))).toMatchObject([{ seq: 1, length: 1000 }]);
    p.send({ seq: 1, ack: 1001 });
    expect(p.run(60e9)).toEqual([]);
  });
  it('fast retransmit at the third duplicate, NewReno partial acknowledgements', () => {
    open();
    p.take();
    const dup = () => p.send({ seq: 1, ack: 1461 });
    p.send({ seq: 1, ack: 1461 });
    dup();
    dup();
    expect(rel(dup())[0]).toMatchObject({ seq: 1461, length: 1460 });
    expect(p.stack.stats.txFastRecoveries).toBe(1);
    // A partial acknowledgement: the next hole at once.
    expect(rel(p.send({ seq: 1, ack: 5841 }))[0]).toMatchObject({ seq: 5841, length: 1460 });
    const sent = (): number => (p.connection.sender.next - p.iss) | 0;
    p.send({ seq: 1, ack: sent() });
    p.send({ seq: 1, ack: sent() });
    expect(sent()).toBe(20_001);
    expect(p.connection.sender.flightBytes).toBe(0);
  });
  it('SACK: only the holes are sent again', () => {
    open({ sack: true });
    p.take();
    p.send({ seq: 1, ack: 1, sacks: [[1461, 2921]] });
    p.send({
      seq: 1,
      ack: 1,
      sacks: [
        [4381, 5841],
        [1461, 2921],
      ],
    });
    const resent = [
      ...rel(
        p.send({
          seq: 1,
          ack: 1,
          sacks: [
            [4381, 8761],
            [1461, 2921],
          ],
        }),
      ),
      ...rel(
        p.send({
          seq: 1,
          ack: 1,
          sacks: [
            [4381, 14_601],
            [1461, 2921],
          ],
        }),
      ),
    ].filter((s) => s.seq < 14_601);
    expect(resent).toMatchObject([
      { seq: 1, length: 1460 },
      { seq: 2921, length: 1460 },
    ]);
  });
  it('SACK blocks that lie change nothing', () => {
    open({ sack: true });
    p.take();
    p.send({
      seq: 1,
      ack: 1,
      sacks: [
        [5000, 90_000],
        [1, 1],
        [3000, 2000],
        [-5000, 100],
      ],
    });
    p.send({ seq: 1, ack: 14_601 });
    expect(p.connection.sender.flightBytes).toBeLessThanOrEqual(20_000 - 14_600);
  });
  it('a lost retransmission is found when data sent after it arrives, long before the timeout', () => {
    open({ sack: true }, 40_000);
    p.take();
    for (const right of [2921, 4381, 5841]) p.send({ seq: 1, ack: 1, sacks: [[1461, right]] });
    // The hole was filled again, and that is lost too. What arrives now was sent before it: no news.
    expect(rel(p.send({ seq: 1, ack: 1, sacks: [[1461, 14_601]] })).filter((s) => s.seq === 1)).toEqual([]);
    const later: Seg[] = [];
    for (let right = 14_601 + 1460; right <= 14_601 + 4 * 1460; right += 1460)
      later.push(...p.send({ seq: 1, ack: 1, sacks: [[1461, right]] }));
    expect(rel(later).filter((s) => s.seq === 1)).toMatchObject([{ length: 1460 }]);
    expect([p.stack.stats.txLostRetransmissions, p.stack.stats.txTimeouts]).toEqual([1, 0]);
    p.send({ seq: 1, ack: p.connection.sender.next - p.iss });
    p.send({ seq: 1, ack: 40_001 });
  });
  it('a lost retransmission is found by the timeout', () => {
    open({ sack: true });
    p.take();
    for (const right of [2921, 4381, 5841]) p.send({ seq: 1, ack: 1, sacks: [[1461, right]] });
    p.take();
    expect(rel(p.run(1e9)).some((s) => s.seq === 1)).toBe(true);
    p.send({ seq: 1, ack: 20_001 });
  });
  it('zero window: stops, probes with growing gaps for as long as it is answered, goes on', () => {
    open({ window: 3000 }, 9000);
    expect(p.take().map((s) => s.data.length)).toEqual([1460, 1460]);
    p.send({ seq: 1, ack: 2921, window: 0 });
    const probes = p.run(500e6);
    expect(rel(probes)[0]).toMatchObject({ seq: 2920, length: 0 });
    let count = 0;
    for (let i = 0; i < 300; i++) {
      for (const _ of p.run(2e9)) {
        count++;
        p.send({ seq: 1, ack: 2921, window: 0 });
      }
    }
    expect(count).toBeGreaterThan(8);
    expect(count).toBeLessThan(30);
    expect(p.user.log).toEqual(['established']);
    const more = p.send({ seq: 1, ack: 2921, window: 20_000 });
    expect(rel(more)[0]).toMatchObject({ seq: 2921 });
    p.send({ seq: 1, ack: 9001, window: 20_000 });
    expect(p.user.sentTo).toBe(9000);
  });
  it('a peer that answers no probe is given up', () => {
    open({ window: 0 }, 9000);
    p.run(400e9);
    expect(p.user.log).toEqual(['established', 'timeout']);
  });
  it('does not send silly segments into a window that opens by drops', () => {
    open({ window: 1460 }, 9000);
    p.take();
    p.send({ seq: 1, ack: 1461, window: 1460 });
    p.take();
    // A window of 100 bytes with data in flight: wait.
    expect(p.send({ seq: 1, ack: 1461, window: 1560 })).toEqual([]);
  });
  it('window scaling: the peer’s shift counts', () => {
    open({ scale: 4, window: 1000 }, 30_000);
    // The SYN's own window is not scaled: 1000 bytes, then 16,000.
    p.take();
    p.send({ seq: 1, ack: 1001, window: 1000 });
    expect(p.connection.sender.window).toBe(16_000);
  });
  it('an acknowledgement of what was never sent gets a challenge (RFC 5961 5.2)', () => {
    peer().open();
    expect(rel(p.send({ seq: 1, ack: 500 }))).toMatchObject([{ seq: 1, ack: 1, flags: ACK }]);
    expect(p.stack.stats.txChallengeAcks).toBe(1);
  });
  it('a peer that vanishes is given up after the user timeout', () => {
    open({}, 1000);
    p.run(400e9);
    expect(p.user.log).toEqual(['established', 'timeout']);
  });
  it('keep-alive: probes a silent peer, gives it up, is content with an answer', () => {
    peer({ settings: { keepAliveIdleNs: 100e9, keepAliveIntervalNs: 10e9, keepAliveProbes: 3 } }).open();
    expect(rel(p.run(101e9))).toMatchObject([{ seq: 0, length: 0, flags: ACK }]);
    p.send({ seq: 1, ack: 1 });
    expect(p.run(95e9)).toEqual([]);
    p.run(60e9);
    expect(p.user.log).toEqual(['established', 'timeout']);
  });
  it('waits for room at the port and goes on: nothing is queued meanwhile', () => {
    peer().open();
    p.room = 0;
    p.user.send(pattern(5000, 1));
    p.send({ seq: 1, ack: 1, data: 3000 });
    expect(p.take()).toEqual([]);
    p.room = 1e9;
    p.stack.outputReady();
    expect(p.take().length).toBeGreaterThanOrEqual(4);
  });
});

describe('closing (RFC 9293 3.6)', () => {
  it('our FIN first: FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT, gone', () => {
    peer().open();
    p.connection.close();
    expect(rel(p.take())).toEqual([{ seq: 1, ack: 1, flags: FIN | ACK, length: 0 }]);
    expect(p.state).toBe('FIN_WAIT_1');
    p.send({ seq: 1, ack: 2 });
    expect(p.state).toBe('FIN_WAIT_2');
    // Half closed: data still comes in.
    p.send({ seq: 1, ack: 2, data: 100 });
    expect(p.user.receivedBytes).toBe(100);
    expect(rel(p.send({ seq: 101, ack: 2, flags: FIN | ACK }))).toMatchObject([
      { seq: 2, ack: 102, flags: ACK },
    ]);
    expect(p.state).toBe('TIME_WAIT');
    expect(p.user.log).toEqual(['established', 'end', 'closed']);
    // A retransmitted FIN is acknowledged again.
    expect(rel(p.send({ seq: 101, ack: 2, flags: FIN | ACK }))).toMatchObject([{ ack: 102 }]);
    p.run(11e9);
    expect(p.stack.connections).toBe(0);
  });
  it('the peer first: CLOSE_WAIT, we still send, LAST_ACK', () => {
    peer().open();
    p.send({ seq: 1, ack: 1, flags: FIN | ACK, data: 50 });
    expect(p.state).toBe('CLOSE_WAIT');
    expect(p.user.log).toEqual(['established', 'end']);
    p.user.send(pattern(500, 1), true);
    expect(rel(p.take())).toMatchObject([
      { seq: 1, length: 500 },
      { seq: 501, flags: FIN | ACK },
    ]);
    expect(p.state).toBe('LAST_ACK');
    p.send({ seq: 52, ack: 502 });
    expect(p.user.log).toEqual(['established', 'end', 'closed']);
    expect(p.stack.connections).toBe(0);
  });
  it('the acknowledgement of the peer’s FIN rides on ours when that follows at once, else it comes under 500 ms', () => {
    for (const followed of [true, false]) {
      peer().open();
      p.user.outgoing = new Uint8Array(0);
      p.send({ seq: 1, ack: 1, data: 10, more: true });
      p.connection.write(pattern(20, 1), 0, 20);
      p.take();
      expect(p.send({ seq: 11, ack: 21, flags: FIN | ACK })).toEqual([]);
      expect(p.state).toBe('CLOSE_WAIT');
      if (followed) {
        p.connection.close();
        expect(rel(p.take())).toMatchObject([{ seq: 21, ack: 12, flags: FIN | ACK, length: 0 }]);
        p.send({ seq: 12, ack: 22 });
        expect(p.stack.connections).toBe(0);
      } else {
        expect(rel(p.run(50e6))).toMatchObject([{ seq: 21, ack: 12, flags: ACK, length: 0 }]);
        // Whoever sends it again has not heard of it.
        expect(rel(p.send({ seq: 11, ack: 21, flags: FIN | ACK }))).toMatchObject([{ ack: 12, flags: ACK }]);
      }
      p.end();
    }
    peer();
  });
  it('both at once: CLOSING', () => {
    peer().open();
    p.connection.close();
    p.take();
    p.send({ seq: 1, ack: 1, flags: FIN | ACK });
    expect(p.state).toBe('CLOSING');
    p.send({ seq: 2, ack: 2 });
    expect(p.state).toBe('TIME_WAIT');
    expect(p.user.log).toEqual(['established', 'end', 'closed']);
  });
  it('the FIN is retransmitted', () => {
    peer().open();
    p.connection.close();
    p.take();
    expect(rel(p.run(1.2e9))[0]).toMatchObject({ seq: 1, flags: FIN | ACK | PSH });
    p.send({ seq: 1, ack: 2, flags: FIN | ACK });
    expect(p.state).toBe('TIME_WAIT');
  });
  it('the end is told only when the sink took everything', () => {
    peer().open();
    p.user.appetite = 10;
    p.send({ seq: 1, ack: 1, data: 100, flags: ACK | FIN });
    expect(p.user.log).toEqual(['established']);
    p.user.feed(1000);
    p.run(1e6);
    expect(p.user.log).toEqual(['established', 'end']);
  });
  it('TIME_WAIT gives way to a new SYN with a later sequence number', () => {
    peer();
    p.knock();
    p.send({ seq: 1, ack: 1 });
    p.connection.close();
    p.send({ seq: 1, ack: 2, flags: FIN | ACK });
    expect(p.state).toBe('TIME_WAIT');
    const [synAck] = p.send({ seq: 1000, flags: SYN });
    expect(synAck!.flags).toBe(SYN | ACK);
    expect(p.stack.connections).toBe(1);
  });
  it('aborting sends a reset', () => {
    peer().open();
    p.connection.abort();
    expect(rel(p.take())).toMatchObject([{ seq: 1, flags: RST | ACK }]);
    expect(p.stack.connections).toBe(0);
  });
});

describe('resets (RFC 9293 3.10.7.4, RFC 5961)', () => {
  const states: [string, () => void][] = [
    ['ESTABLISHED', () => {}],
    ['FIN_WAIT_1', () => p.connection.close()],
    [
      'FIN_WAIT_2',
      () => {
        p.connection.close();
        p.send({ seq: 1, ack: 2 });
      },
    ],
    ['CLOSE_WAIT', () => p.send({ seq: 1, ack: 1, flags: FIN | ACK })],
    [
      'CLOSING',
      () => {
        p.connection.close();
        p.send({ seq: 1, ack: 1, flags: FIN | ACK });
      },
    ],
    [
      'LAST_ACK',
      () => {
        p.send({ seq: 1, ack: 1, flags: FIN | ACK });
        p.connection.close();
      },
    ],
    [
      'TIME_WAIT',
      () => {
        p.connection.close();
        p.send({ seq: 1, ack: 2, flags: FIN | ACK });
      },
    ],
  ];
  for (const [state, reach] of states) {
    it(`in ${state}: the exact number resets, another in the window is challenged, one outside is dropped`, () => {
      peer().open();
      reach();
      expect(p.state).toBe(state);
      p.take();
      const next = (p.connection.receiver.next - p.isn) | 0;
      expect(p.send({ seq: next - 1000, flags: RST })).toEqual([]);
      expect(p.state).toBe(state);
      const challenged = p.send({ seq: next + 5, flags: RST });
      expect(p.state).toBe(state);
      expect(rel(challenged)).toMatchObject([{ ack: next, flags: ACK }]);
      p.send({ seq: next, flags: RST });
      expect(p.stack.connections).toBe(0);
      if (state !== 'TIME_WAIT') expect(p.user.closedReason).toBe('reset');
    });
  }
  it('in SYN_RECEIVED a reset ends it; a SYN in a synchronized state is challenged', () => {
    peer();
    p.knock();
    p.send({ seq: 1, flags: RST });
    expect(p.user.log).toEqual(['reset']);
    p.end();
    peer().open();
    expect(rel(p.send({ seq: 1, flags: SYN }))).toMatchObject([{ ack: 1, flags: ACK }]);
    expect(p.state).toBe('ESTABLISHED');
  });
  it('challenges are limited', () => {
    peer().open();
    let count = 0;
    for (let i = 0; i < 100; i++) count += p.send({ seq: 10 + i, flags: RST }).length;
    expect(count).toBe(10);
  });
});

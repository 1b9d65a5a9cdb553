/** Runs of datagrams: out of the guest as one frame (USO), into it as one (UDP_GRO); every datagram keeps its bounds. */
import { afterEach, describe, expect, it } from 'vitest';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_UDP,
  GSO_UDP_L4,
  HEADER_LENGTH,
} from '../../../src/core/pool.ts';
import { ACCEPT_ALL, ACCEPT_USO } from '../../../src/core/port.ts';
import { u16be } from '../../../src/wire/bytes.ts';
import { pattern } from '../../tcp/lib/pair.ts';
import { udpFrame } from './lib/guest.ts';
import { bytes, text, World } from './lib/world.ts';

let w: World;
const world = (...args: ConstructorParameters<typeof World>): World => (w = new World(...args));
afterEach(() => w.end());

/** The guest sends one frame that is a run: its payload in the frame's slot, or from `split` on in a second segment. */
function sendRun(
  dst: string,
  port: number,
  data: Uint8Array,
  each: number,
  split?: number,
  srcPort = 5000,
): void {
  const { pool } = w.context;
  const packet = udpFrame('10.0.2.15', srcPort, dst, port, data);
  const first = split === undefined ? packet.length : 42 + split;
  const frame = pool.from(packet.subarray(0, first));
  if (split !== undefined) pool.append(frame, pool.from(packet.subarray(first)));
  const t = pool.table;
  t[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_UDP_L4 << 8);
  t[frame + GSO_SIZE] = each;
  t[frame + HEADER_LENGTH] = 42;
  t[frame + CSUM_START] = 34;
  t[frame + CSUM_OFFSET] = 6;
  expect(w.guest.port.send(Int32Array.of(frame), 0, 1)).toBe(1);
  w.run();
}

const cut = (data: Uint8Array, each: number): Uint8Array[] =>
  Array.from({ length: Math.ceil(data.length / each) }, (_, i) => data.slice(i * each, (i + 1) * each));

describe('out of the guest', () => {
  it('a run is as many datagrams, in as few calls, no byte copied', () => {
    world();
    const data = pattern(50_000, 1);
    sendRun('192.0.2.1', 443, data, 1200);
    const socket = w.host.latest;
    expect(socket.datagramsOut.map((d) => d.data)).toEqual(cut(data, 1200));
    expect([socket.sendCalls, w.backend.stats.udpRunsOut, w.backend.stats.udpDatagramsOut]).toEqual([
      1, 1, 42,
    ]);
    expect(w.backend.info().flows[0]!.fromGuestBytes).toBe(50_000);
  });
  it('a datagram that lies across two segments is put together', () => {
    world();
    const data = pattern(5000, 2);
    sendRun('192.0.2.1', 443, data, 1000, 2500);
    expect(w.host.latest.datagramsOut.map((d) => d.data)).toEqual(cut(data, 1000));
  });
  it('an answer of a server behind a forward', () => {
    world(',hostfwd=udp:127.0.0.1:0-:443');
    const listener = w.host.all[0]!;
    w.host.pushDatagram(listener, bytes('hello'), { address: '198.51.100.7', port: 4433 });
    w.run(1e9);
    const [request] = w.guest.take().filter((frame) => u16be(frame, 12) === 0x0800);
    expect(text(request!.subarray(42))).toBe('hello');
    const data = pattern(3000, 3);
    sendRun('10.0.2.2', u16be(request!, 34), data, 1400, undefined, 443);
    expect(listener.datagramsOut).toEqual(
      cut(data, 1400).map((d) => ({ data: d, to: { address: '198.51.100.7', port: 4433 } })),
    );
  });
  it('a run that lies: no size, one piece, more pieces than any kernel makes', () => {
    world();
    sendRun('192.0.2.1', 443, pattern(500, 1), 0);
    sendRun('192.0.2.1', 443, pattern(500, 1), 500);
    sendRun('192.0.2.1', 443, pattern(500, 1), 60_000);
    expect(w.host.latest.datagramsOut.map((d) => d.data.length)).toEqual([500, 500, 500]);
    sendRun('192.0.2.1', 443, pattern(129, 1), 1);
    expect([w.host.latest.datagramsOut.length, w.backend.stats.udpDropMalformed]).toEqual([3, 1]);
    sendRun('192.0.2.1', 443, pattern(128, 1), 1);
    expect(w.host.latest.datagramsOut.length).toBe(131);
    // None of the servers here is spoken to in runs: their datagrams are small.
    w.end();
    world(',hosts=a.example:192.0.2.1');
    sendRun('10.0.2.3', 53, pattern(100, 1), 40);
    expect(w.host.latest.datagramsOut.map((d) => d.data.length)).toEqual([40, 40, 20]);
  });
  it('a socket that fails amid a run, and a pool without records, lose datagrams and nothing else', () => {
    world();
    sendRun('192.0.2.1', 443, pattern(100, 1), 10);
    w.host.latest.sendRoom = 3;
    sendRun('192.0.2.1', 443, pattern(1280, 1), 10);
    expect(w.backend.stats.udpDropHostFull).toBe(125);
    const { pool } = w.context;
    const held: number[] = [];
    while (pool.freeBare > 5) held.push(pool.part(held[0] ?? held[held.push(pool.alloc(10)) - 1]!, 0, 1));
    w.host.latest.sendRoom = 1000;
    sendRun('192.0.2.1', 443, pattern(100, 1), 10);
    expect(w.backend.stats.txDropNoSlot).toBe(1);
    for (const frame of held) pool.release(frame);
  });
  it('a datagram longer than the wire (UFO) is one datagram', () => {
    world();
    const { pool } = w.context;
    const data = pattern(9000, 4);
    const frame = pool.from(udpFrame('10.0.2.15', 5000, '192.0.2.1', 9, data));
    const t = pool.table;
    t[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_UDP << 8);
    t[frame + GSO_SIZE] = 1480;
    t[frame + HEADER_LENGTH] = 34;
    t[frame + CSUM_START] = 34;
    t[frame + CSUM_OFFSET] = 6;
    w.guest.port.send(Int32Array.of(frame), 0, 1);
    w.run();
    expect(w.host.latest.datagramsOut.map((d) => d.data)).toEqual([data]);
  });
});

describe('into the guest', () => {
  /** What arrives for one run of the host's socket. */
  const arrive = (length: number, each: number, options = '', accepts = ACCEPT_ALL): Uint8Array[] => {
    world(options, { accepts });
    w.udp('192.0.2.1', 443, bytes('x'));
    w.host.pushDatagram(w.host.latest, pattern(length, 5), undefined, each);
    w.run();
    return w.guest.take();
  };

  it('a run is one frame where the guest takes it so', () => {
    const [frame, ...more] = arrive(20_000, 1200);
    expect([more.length, frame!.length, u16be(frame!, 16), u16be(frame!, 38)]).toEqual([
      0, 20_042, 20_028, 20_008,
    ]);
    expect(frame!.subarray(42)).toEqual(pattern(20_000, 5));
    expect(w.backend.stats.udpRunsIn).toBe(1);
  });
  it('a guest that does not is received for one by one', () => {
    world('', { accepts: ACCEPT_ALL & ~ACCEPT_USO });
    w.udp('192.0.2.1', 443, bytes('x'));
    expect(w.host.latest.gro).toBe(false);
  });
  it('a guest that takes it no more gets them one by one, checksums made', () => {
    world();
    w.udp('192.0.2.1', 443, bytes('x'));
    w.guest.port.accepts = 0;
    w.host.pushDatagram(w.host.latest, pattern(3000, 5), undefined, 1200);
    w.run();
    const frames = w.guest.take();
    expect(frames.map((f) => f.length - 42)).toEqual([1200, 1200, 600]);
    expect(Uint8Array.from(frames.flatMap((f) => [...f.subarray(42)]))).toEqual(pattern(3000, 5));
  });
  it('datagrams too long for the link are fragmented, each by itself', () => {
    const frames = arrive(5000, 2000, ',mtu=1400,ipv6=off');
    expect(frames.filter((f) => (u16be(f, 20) & 0x3fff) !== 0).length).toBe(4);
    expect(frames.reduce((sum, f) => sum + u16be(f, 16) - 20, 0)).toBe(5000 + 3 * 8);
  });
});

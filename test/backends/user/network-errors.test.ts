/** Hop limits that go out with the guest's packets, and what routers and far ends say about them: what traceroute lives on. */

import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import {
  ERRNO,
  NETWORK_ERROR_ABOUT,
  NETWORK_ERROR_BYTES,
  NETWORK_ERROR_FROM,
  NETWORK_ERROR_QUOTE,
} from '../../../src/host-io/host-io.ts';
import { formatIpv4, formatIpv6, parseIpv6, u16be, u32be } from '../../../src/wire/bytes.ts';
import { internetChecksum } from '../../../src/wire/checksum.ts';
import { echoPacket, ipv4Frame, udpFrame, udpFrame6 } from './lib/guest.ts';
import { bytes, World } from './lib/world.ts';

let w: World;
const world = (...args: ConstructorParameters<typeof World>): World => (w = new World(...args));
afterEach(() => w.end());

const addressOf = (text: string): Uint8Array =>
  text.includes(':') ? parseIpv6(text)! : Uint8Array.from(text.split('.'), Number);

/** As the host's socket keeps it. */
function says(
  type: number,
  code: number,
  from: string,
  about: string,
  quote = new Uint8Array(0),
): Uint8Array {
  const error = new Uint8Array(NETWORK_ERROR_BYTES);
  error.set([type, code, from.includes(':') ? 6 : 4, quote.length]);
  error.set(addressOf(from), NETWORK_ERROR_FROM);
  error.set(addressOf(about), NETWORK_ERROR_ABOUT);
  error.set(quote, NETWORK_ERROR_QUOTE);
  return error;
}

/** What the guest was told: type, code, sender; then the quoted packet's target and ports. */
function told4(frame: Uint8Array): unknown[] {
  expect(internetChecksum(frame, 34, frame.length - 34)).toBe(0);
  const quote = 42;
  return [
    ...[frame[34], frame[35], formatIpv4(u32be(frame, 26))],
    ...[formatIpv4(u32be(frame, quote + 12)), formatIpv4(u32be(frame, quote + 16))],
    ...[u16be(frame, quote + 20), u16be(frame, quote + 22)],
  ];
}

const FAR = '203.0.113.9';
const ROUTER = '198.51.100.1';
const UDP = ['10.0.2.15', FAR, 33_000, 33_434];
const probe = (ttl: number, dst = FAR): Uint8Array =>
  udpFrame('10.0.2.15', 33_000, dst, 33_434, bytes('x'), { ttl });

describe('hop limits', () => {
  it('below the usual go on, less one; others are the host’s', () => {
    world();
    w.ask(probe(64));
    const socket = w.host.latest;
    for (const ttl of [2, 30, 63, 64, 128, 255, 9, 255]) w.ask(probe(ttl));
    expect(socket.hopsOut).toEqual([0, 1, 29, 62, 0, 0, 0, 8, 0]);
    expect(w.host.all.length).toBe(1);
  });

  it('of one burst are kept apart', () => {
    world();
    const burst = [2, 2, 3, 64, 64, 4].map((ttl) => w.context.pool.from(probe(ttl)));
    w.guest.port.send(Int32Array.from(burst), 0, burst.length);
    w.run();
    expect(w.host.latest.hopsOut).toEqual([1, 1, 2, 0, 0, 3]);
    expect(w.host.latest.sendCalls).toBe(4);
  });

  it('are nothing to what the gateway stands for: the host’s loopback, a name server', () => {
    world();
    w.ask(probe(5, '10.0.2.2'));
    expect(w.host.latest.hopsOut).toEqual([0]);
    w.ask(udpFrame('10.0.2.15', 33_000, '10.0.2.3', 53, bytes('x'), { ttl: 5 }));
    expect(w.host.latest.hopsOut).toEqual([0]);
  });

  it('IPv6 and pings have them too', () => {
    world();
    const frame = udpFrame6('fec0::15', 33_000, '2001:db8::9', 33_434, bytes('x'));
    frame[21] = 7;
    w.ask(frame);
    expect(w.host.latest.hopsOut).toEqual([6]);
    const ping = (ttl: number): Uint8Array =>
      ipv4Frame({ src: '10.0.2.15', dst: FAR, protocol: 1, payload: echoPacket(9, 1, bytes('ping')), ttl });
    for (const ttl of [3, 64, 4]) w.ask(ping(ttl));
    expect(w.host.latest.hopsOut).toEqual([2, 0, 3]);
  });
});

describe('what the network says', () => {
  it('comes from who said it, about the guest’s datagram', () => {
    world();
    w.ask(probe(3));
    const socket = w.host.latest;
    w.host.networkSays(socket, says(11, 0, ROUTER, FAR), ERRNO.EHOSTUNREACH);
    w.host.networkSays(socket, says(3, 13, ROUTER, FAR));
    w.host.networkSays(socket, says(3, 3, FAR, FAR), ERRNO.ECONNREFUSED);
    w.run();
    expect(w.guest.take().map(told4)).toEqual([
      [11, 0, ROUTER, ...UDP],
      [3, 13, ROUTER, ...UDP],
      [3, 3, FAR, ...UDP],
    ]);
    expect(w.backend.stats.networkErrors).toBe(3);
    expect(socket.closed).toBe(false);
  });

  it('is told once, also when a call meets the error first; what was to be sent is sent', () => {
    world();
    w.ask(probe(3));
    const socket = w.host.latest;
    socket.networkErrors.push(says(11, 0, ROUTER, FAR));
    socket.error = ERRNO.EHOSTUNREACH;
    const got = w.ask(probe(4));
    expect(got.map(told4)).toEqual([[11, 0, ROUTER, ...UDP]]);
    expect(socket.hopsOut).toEqual([2, 3]);
  });

  it('IPv6', () => {
    world();
    w.ask(udpFrame6('fec0::15', 33_000, '2001:db8::9', 33_434, bytes('x')));
    w.host.networkSays(w.host.latest, says(3, 0, '2001:db8:1::1', '2001:db8::9'));
    w.host.networkSays(w.host.latest, says(2, 0, '2001:db8:1::1', '2001:db8::9'));
    w.run();
    const got = w.guest.take();
    expect(got.length).toBe(1);
    expect([got[0]![54], got[0]![55]]).toEqual([3, 0]);
    expect(formatIpv6(got[0]!.subarray(22, 38))).toBe('2001:db8:1::1');
    expect(formatIpv6(got[0]!.subarray(62 + 24, 62 + 40))).toBe('2001:db8::9');
    expect([u16be(got[0]!, 102), u16be(got[0]!, 104)]).toEqual([33_000, 33_434]);
  });

  it('the host’s own addresses appear nowhere: the gateway says it', () => {
    world();
    w.host.ownAddress = '198.51.100.200';
    w.ask(probe(3));
    w.host.networkSays(w.host.latest, says(3, 1, '198.51.100.200', FAR), ERRNO.EHOSTUNREACH);
    w.run();
    expect(w.guest.take().map(told4)).toEqual([[3, 1, '10.0.2.2', ...UDP]]);
    // The gateway’s address stands for the host’s loopback, the name server’s for the resolver.
    w.ask(probe(64, '10.0.2.2'));
    w.host.networkSays(w.host.latest, says(3, 3, '127.0.0.1', '127.0.0.1'), ERRNO.ECONNREFUSED);
    w.run();
    expect(w.guest.take().map(told4)).toEqual([[3, 3, '10.0.2.2', '10.0.2.15', '10.0.2.2', 33_000, 33_434]]);
    w.ask(udpFrame('10.0.2.15', 5000, '10.0.2.3', 53, bytes('x')));
    w.host.networkSays(w.host.latest, says(3, 1, ROUTER, '192.0.2.53'), ERRNO.EHOSTUNREACH);
    w.host.networkSays(w.host.latest, says(3, 3, '192.0.2.53', '192.0.2.53'), ERRNO.ECONNREFUSED);
    w.run();
    expect(w.guest.take().map((frame) => told4(frame).slice(0, 3))).toEqual([
      [3, 1, '10.0.2.2'],
      [3, 3, '10.0.2.3'],
    ]);
  });

  it('what concerns the host alone, or is no error, is not told', () => {
    world();
    w.ask(probe(3));
    const socket = w.host.latest;
    // Fragmentation needed; echo reply; redirect; another family's.
    for (const [type, code] of [
      [3, 4],
      [0, 0],
      [5, 1],
    ] as const)
      w.host.networkSays(socket, says(type, code, ROUTER, FAR));
    w.host.networkSays(socket, says(1, 0, '2001:db8::1', '2001:db8::2'));
    w.run();
    expect(w.guest.take()).toEqual([]);
    expect(socket.networkErrors).toEqual([]);
  });

  it('about a ping: by the identifier that the guest gave it; a raw socket hears of those of others', () => {
    world();
    w.host.rawPings = true;
    const echo = echoPacket(9, 77, bytes('ping'));
    const frame = ipv4Frame({ src: '10.0.2.15', dst: FAR, protocol: 1, payload: echo, ttl: 3 });
    w.ask(frame);
    const socket = w.host.latest;
    const sent = socket.datagramsOut[0]!.data.slice(0, 12);
    const other = sent.slice();
    other[4]! ^= 1;
    w.host.networkSays(socket, says(11, 0, ROUTER, FAR, other));
    w.host.networkSays(socket, says(11, 0, ROUTER, '203.0.113.10', sent));
    w.host.networkSays(socket, says(11, 0, ROUTER, FAR, sent.slice(0, 6)));
    w.run();
    expect(w.guest.take()).toEqual([]);
    w.host.networkSays(socket, says(11, 0, ROUTER, FAR, sent), ERRNO.EHOSTUNREACH);
    w.run();
    const [error] = w.guest.take();
    expect(told4(error!).slice(0, 5)).toEqual([11, 0, ROUTER, '10.0.2.15', FAR]);
    expect([error![62], u16be(error!, 66), u16be(error!, 68)]).toEqual([8, 9, 77]);
    // An error that a call meets costs no request.
    socket.networkErrors.push(says(11, 0, ROUTER, FAR, sent));
    socket.error = ERRNO.EHOSTUNREACH;
    expect(w.ask(frame).length).toBe(1);
    expect(socket.datagramsOut.length).toBe(2);
  });

  it('about a connection that is begun: the SYN goes as far as the guest says, and its error comes back', () => {
    world();
    const user = w.user();
    const client = w.guest.connect(user, FAR, 80, 3);
    w.run();
    const socket = w.host.latest;
    expect(socket.hops).toBe(2);
    w.host.networkSays(socket, says(11, 0, ROUTER, FAR), ERRNO.EHOSTUNREACH);
    w.run();
    const errors = w.guest.take().filter((frame) => frame[23] === 1);
    expect(errors.map(told4)).toEqual([[11, 0, ROUTER, '10.0.2.15', FAR, client.localPort, 80]]);
    expect(socket.closed).toBe(true);
    // One that stands goes on as the host has it.
    w.guest.connect(w.user(), FAR, 81, 3);
    w.run();
    const other = w.host.latest;
    expect(other.hops).toBe(2);
    w.host.finishConnect(other);
    w.run();
    expect(other.hops).toBe(0);
    w.host.connectsAtOnce = true;
    w.guest.connect(w.user(), FAR, 82, 3);
    w.run();
    expect([w.host.latest.hops, w.host.latest.connected]).toEqual([0, true]);
  });

  it('property: whatever it says, at most one error each reaches the guest, and nothing throws', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: NETWORK_ERROR_BYTES, maxLength: NETWORK_ERROR_BYTES }), {
          maxLength: 70,
        }),
        (errors) => {
          world();
          w.ask(probe(3));
          const socket = w.host.latest;
          for (const error of errors) {
            error[3]! %= NETWORK_ERROR_BYTES - NETWORK_ERROR_QUOTE + 1;
            error[0] = [0, 1, 3, 5, 11][error[0]! % 5]!;
            error[2] = error[2]! < 192 ? 4 : 6;
            w.host.networkSays(socket, error);
          }
          w.run();
          expect(w.guest.take().length).toBeLessThanOrEqual(errors.length);
          expect(socket.networkErrors).toEqual([]);
          w.end();
        },
      ),
      { numRuns: 30 },
    );
  });
});

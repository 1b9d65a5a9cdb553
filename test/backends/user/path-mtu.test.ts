/** Path MTU discovery towards the guest (RFC 1191, RFC 8201): the guest is a router with a narrower link behind it. */
import { afterEach, describe, expect, it } from 'vitest';
import { ACCEPT_ALL } from '../../../src/core/port.ts';
import { pathMtu } from '../../../src/tcp/path-mtu.ts';
import { pattern } from '../../tcp/lib/pair.ts';
import { type GuestOptions, ip6, tooBigV4, tooBigV6 } from './lib/guest.ts';
import { World } from './lib/world.ts';

let w: World;
afterEach(() => w?.end());

const GATEWAYS = { 4: '10.0.2.2', 6: 'fec0::2' } as const;
const DATA = pattern(400_000, 7);

/** The host sends DATA to the guest, over an established connection. */
function begin(version: 4 | 6, behindMtu: number, guest: GuestOptions = {}, tells: number | null = null) {
  w = new World('', { ip6: 'fec0::15', ...guest });
  const { user, socket } = w.connect(GATEWAYS[version], 80);
  w.host.finishConnect(socket);
  w.run();
  expect(user.log).toEqual(['established']);
  w.guest.behindMtu = behindMtu;
  w.guest.behindTells = tells;
  w.host.push(socket, DATA);
  const [connection] = [...w.backend.tcp.stack];
  return { user, socket, connection: connection! };
}

describe.each([4, 6] as const)('IPv%i', (version) => {
  it.each([
    ['one by one', 0],
    ['in GSO frames', ACCEPT_ALL],
  ])('segments get as short as the path takes, sent %s, and everything arrives without a timeout', (_, accepts) => {
    const { user, connection } = begin(version, 1400, { accepts });
    const threshold = connection.sender.congestion.thresholdBytes;
    w.run(150e6);
    expect(user.receivedBytes).toBe(DATA.length);
    expect(Buffer.compare(user.received, DATA)).toBe(0);
    expect(connection.sender.segmentBytes).toBe(1400 - (version === 4 ? 40 : 60) - 12);
    const { stats } = w.backend.tcp.stack;
    expect(stats.pathMtuLowered).toBe(1);
    expect(stats.txTimeouts).toBe(0);
    expect(stats.txRetransmittedSegments).toBeGreaterThan(0);
    // No sign of congestion.
    expect(connection.sender.congestion.thresholdBytes).toBe(threshold);
  });

  it('a second, narrower link further on lowers it again', () => {
    const { user, connection } = begin(version, 1450);
    w.run(20e6);
    w.guest.behindMtu = 1300;
    w.host.push(w.host.latest, DATA);
    w.run(150e6);
    expect(user.receivedBytes).toBe(2 * DATA.length);
    expect(connection.sender.segmentBytes).toBe(1300 - (version === 4 ? 40 : 60) - 12);
    expect(w.backend.tcp.stack.stats.pathMtuLowered).toBe(2);
  });
});

it('IPv4: a router that does not say how wide its link is: the next plateaus of RFC 1191', () => {
  const { user, connection } = begin(4, 1100, {}, 0);
  w.run(300e6);
  expect(user.receivedBytes).toBe(DATA.length);
  expect(connection.sender.segmentBytes).toBe(1006 - 40 - 12);
});

describe('what is not believed', () => {
  /** What the guest says about a packet of the connection, without having dropped it. */
  function say(version: 4 | 6, mtu: number, change: (quote: Uint8Array) => void = () => {}) {
    const { user, connection } = begin(version, Number.POSITIVE_INFINITY);
    const before = connection.sender.segmentBytes;
    const { link } = connection;
    w.guest.open = false;
    w.run();
    expect(connection.sender.flightBytes).toBeGreaterThan(0);
    const size = version === 4 ? 20 : 40;
    const quote = new Uint8Array(size + 8);
    quote.set(link.subarray(14), 0);
    quote.set(version === 4 ? [1500 >> 8, 1500 & 255] : [1460 >> 8, 1460 & 255], version === 4 ? 2 : 4);
    const view = new DataView(quote.buffer, size);
    view.setInt32(0, connection.ports);
    view.setInt32(4, connection.sender.una);
    change(quote);
    w.guest.send(version === 4 ? tooBigV4(w.guest.ip, quote, mtu) : tooBigV6(ip6('fec0::15'), quote, mtu));
    w.run();
    const after = connection.sender.segmentBytes;
    w.guest.open = true;
    w.guest.peerReady();
    w.guest.port.ready();
    w.run(300e6);
    expect(user.receivedBytes).toBe(DATA.length);
    return { before, after, stats: w.backend.tcp.stack.stats };
  }

  it.each([
    ['a sequence number below what is in flight', (q: Uint8Array) => (q[q.length - 4]! ^= 0x40)],
    ['another port', (q: Uint8Array) => (q[q.length - 5]! ^= 1)],
    ['another address', (q: Uint8Array) => (q[12]! ^= 1)],
    ['another protocol', (q: Uint8Array) => q.fill(132, q.length === 28 ? 9 : 6, q.length === 28 ? 10 : 7)],
    ['a header that is too short', (q: Uint8Array) => (q[0] = q.length === 28 ? 0x44 : 0x44)],
  ])('%s', (_, change) => {
    for (const version of [4, 6] as const) {
      const { before, after, stats } = say(version, 1300, change);
      expect(after).toBe(before);
      expect(stats.pathMtuLowered).toBe(0);
      w.end();
    }
  });

  it('no narrower than now', () => {
    const { before, after, stats } = say(4, 1500);
    expect(after).toBe(before);
    expect(stats.pathMtuIgnored).toBe(1);
  });

  it('IPv4: below 552 is 552; IPv6: below 1280 is nothing', () => {
    expect(say(4, 68).after).toBe(552 - 40 - 12);
    w.end();
    const { before, after } = say(6, 1279);
    expect(after).toBe(before);
    expect(pathMtu(6, 1280, 1500)).toBe(1280);
    expect(pathMtu(4, 0, 552)).toBe(0);
    expect(pathMtu(4, 0, 65_535)).toBe(32_000);
  });

  it('the untouched quote is believed: the checks above are what refuses', () => {
    for (const version of [4, 6] as const) {
      const { after } = say(version, 1300);
      expect(after).toBe(1300 - (version === 4 ? 40 : 60) - 12);
      w.end();
    }
  });
});

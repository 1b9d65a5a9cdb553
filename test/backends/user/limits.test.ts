/** What gives way when the host's descriptors, or the places for connections that do not stand yet, run out. */
import { afterEach, describe, expect, it } from 'vitest';
import { pseudoSumV4 } from '../../../src/wire/checksum.ts';
import { setTcpChecksum, writeTcp } from '../../../src/wire/tcp.ts';
import { arpFrame, echoPacket, ip4, ipv4Frame } from './lib/guest.ts';
import { bytes, text, World } from './lib/world.ts';

let w: World;
afterEach(() => w?.end());

const ping = (id: number) =>
  ipv4Frame({ src: '10.0.2.15', dst: '192.0.2.1', protocol: 1, payload: echoPacket(id, 1, bytes('ping')) });
const kinds = () =>
  w.backend
    .info()
    .flows.map((flow) => `${flow.protocol} ${flow.protocol === 'icmp' ? flow.guestPort : flow.remotePort}`)
    .sort();

describe('no descriptor left', () => {
  it('a new connection takes the place of the UDP flow or ping that was silent longest, one after the other', () => {
    w = new World();
    w.udp('192.0.2.9', 7, bytes('x'));
    w.run(1e9);
    w.ask(ping(5));
    w.run(1e9);
    w.udp('192.0.2.9', 8, bytes('x'));
    w.run(1e9);
    // The first is used again: the ping is the oldest now.
    w.udp('192.0.2.9', 7, bytes('x'));
    w.host.descriptorsMax = 3;
    const left = [['udp 7', 'udp 8'], ['udp 7'], []];
    for (let i = 0; i < 3; i++) {
      const { user, socket } = w.connect('10.0.2.2', 80 + i);
      w.host.finishConnect(socket);
      w.run();
      expect(user.log).toEqual(['established']);
      expect(kinds().filter((flow) => !flow.startsWith('tcp'))).toEqual(left[i]);
    }
    const { stats } = w.backend;
    expect([stats.pingFlowsEvicted, stats.udpFlowsEvicted, stats.tcpDropNoDescriptor]).toEqual([1, 2, 0]);
    // Connections do not give way.
    expect(w.connect('10.0.2.2', 90).user.log).toEqual(['refused']);
    expect(stats.tcpDropNoDescriptor).toBe(1);
    expect(kinds().length).toBe(3);
    expect(w.host.openCount).toBe(3);
  });

  it('so does a datagram and a ping; the one that gave way goes on with its next', () => {
    w = new World();
    w.host.descriptorsMax = 1;
    w.ask(ping(5));
    w.run(1e6);
    w.udp('192.0.2.9', 7, bytes('x'));
    expect(kinds()).toEqual(['udp 7']);
    w.run(1e6);
    w.ask(ping(6));
    expect(kinds()).toEqual(['icmp 6']);
    w.udp('192.0.2.9', 7, bytes('again'));
    expect(text(w.host.latest.datagramsOut[0]!.data)).toBe('again');
    expect(w.host.openCount).toBe(1);
  });

  it('and a connection to a forwarded port', () => {
    w = new World(',hostfwd=tcp:127.0.0.1:0-:22');
    const listener = w.host.all[0]!;
    w.guest.accept = () => w.user();
    w.ask(arpFrame(1, '10.0.2.15', '10.0.2.2'));
    w.udp('192.0.2.9', 7, bytes('x'));
    w.host.descriptorsMax = 2;
    w.host.knock(listener);
    w.run();
    expect(kinds().length).toBe(1);
    expect(w.backend.stats.udpFlowsEvicted).toBe(1);
    expect(w.backend.info().flows).toMatchObject([{ kind: 'hostfwd', state: 'ESTABLISHED' }]);
  });

  it('and a name server query; never the flow that asks', () => {
    w = new World();
    w.host.descriptorsMax = 1;
    w.udp('10.0.2.3', 53, bytes('query 1'), 5001);
    w.run(1e6);
    w.udp('10.0.2.3', 53, bytes('query 2'), 5002);
    expect(w.backend.udp.flows).toBe(1);
    expect(w.backend.stats.udpFlowsEvicted).toBe(1);
    expect(text(w.host.latest.datagramsOut[0]!.data)).toBe('query 2');
  });
});

it('pings: the 257th takes the place of the oldest', () => {
  w = new World();
  for (let id = 1; id <= 256; id++) w.ask(ping(id));
  w.ask(ping(1));
  w.ask(ping(300));
  expect(w.backend.icmp.flows).toBe(256);
  const { flows } = w.backend.info();
  const has = (id: number) => flows.some((flow) => flow.guestPort === id);
  expect([has(1), has(2), has(300)]).toEqual([true, false, true]);
  expect(w.backend.stats.pingFlowsEvicted).toBe(1);
  expect(w.host.openCount).toBe(256);
});

describe('connections that do not stand yet are bounded', () => {
  const HALF_OPEN_MAX = 4096;
  /** A SYN of a guest that keeps no state. */
  function syn(n: number): Uint8Array {
    const tcp = new Uint8Array(20);
    writeTcp(tcp, 0, 1024 + (n % 60_000), 80, 1000 + n, 0, 20, 2, 65_535);
    const dst = `198.51.100.${1 + Math.floor(n / 60_000)}`;
    setTcpChecksum(tcp, 0, 20, pseudoSumV4(ip4('10.0.2.15'), ip4(dst), 6, 20));
    return ipv4Frame({ src: '10.0.2.15', dst, protocol: 6, payload: tcp });
  }
  const flood = (from: number, to: number) => {
    for (let n = from; n < to; n++) w.guest.send(syn(n));
    w.run();
  };

  it('hardening T5: SYNs to hosts that do not answer: the oldest attempt goes, without a word; the guest may try again', () => {
    w = new World();
    const old = w.connect('10.0.2.2', 8080);
    w.host.finishConnect(old.socket);
    w.run();
    flood(0, HALF_OPEN_MAX);
    expect(w.host.openCount).toBe(HALF_OPEN_MAX + 1);
    const first = w.host.all[1]!;
    expect(first.closed).toBe(false);
    const tcpFrames = w.guest.tcpFrames;
    flood(HALF_OPEN_MAX, HALF_OPEN_MAX + 500);
    expect(w.guest.tcpFrames).toBe(tcpFrames);
    expect(w.host.openCount).toBe(HALF_OPEN_MAX + 1);
    expect(w.backend.stats.tcpHalfOpenEvicted).toBe(500);
    expect(first.closed).toBe(true);
    // What stands is not touched, and the newest are still tried.
    w.host.push(old.socket, bytes('still here'));
    w.host.finishConnect(w.host.latest);
    w.run();
    expect(text(old.user.received)).toBe('still here');
    expect(w.guest.tcpFrames).toBeGreaterThan(tcpFrames);
    // The first once more.
    flood(0, 1);
    expect(w.host.latest.closed).toBe(false);
    expect(w.host.latest.remote.port).toBe(80);
  });

  it('so are those that the host answered and the guest did not', () => {
    w = new World();
    w.host.connectsAtOnce = true;
    // It takes nothing: no answer, no reset.
    w.guest.open = false;
    flood(0, HALF_OPEN_MAX + 10);
    expect(w.backend.stats.tcpHalfOpenEvicted).toBe(10);
    expect(w.host.openCount).toBeLessThanOrEqual(HALF_OPEN_MAX);
  });
});

/** What goes wrong with hosts and peers, and what the user is told: each fault by name. */

import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DatagramPortStats } from '../../src/backends/datagram-port.ts';
import type { L2tpv3Stats } from '../../src/backends/l2tpv3.ts';
import { nodeServices } from '../../src/backends/node-services.ts';
import type { StreamPortStats } from '../../src/backends/stream-port.ts';
import { readCounters } from '../../src/core/stats.ts';
import { type Handle, READABLE } from '../../src/host-io/host-io.ts';
import { packet, type RecordingClient, tags } from '../lib/context.ts';
import { BackendLab, freePorts } from './lab.ts';

const LOCAL = '127.0.0.1';
const inet = (port: number, host = LOCAL) => ({ type: 'inet', host, port: String(port) });

let lab: BackendLab;

beforeEach(() => {
  lab = new BackendLab();
});

afterEach(() => lab.end());

/** A bare connection to a listening netdev. */
async function connected(port: number): Promise<Handle> {
  const handle = lab.hostIo.tcpConnect({ address: LOCAL, port });
  let open = false;
  lab.hostIo.watch(handle, 2, () => {
    open = true;
    lab.hostIo.setInterest(handle, 0);
  });
  await lab.until(() => open);
  return handle;
}

const write = (handle: Handle, ...bytes: number[]) =>
  lab.hostIo.sendBytes(handle, Uint8Array.from(bytes), 0, bytes.length);

function framed(...packets: Uint8Array[]): number[] {
  return packets.flatMap((one) => [0, 0, one.length >> 8, one.length & 0xff, ...one]);
}

describe('a socket netdev that listens', () => {
  it.each([
    ['0xffffffff', [0xff, 0xff, 0xff, 0xff]],
    ['just over the maximum', [0, 1, 0x10, 1]],
    ['after a good frame', [...framed(packet(1)), 0x7f, 0, 0, 0]],
  ])('hardening 50: closes a peer whose length is %s, and serves the next', async (_name, bytes) => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('socket', { listen: `${LOCAL}:${port}` });
    const guest = lab.guest(backend);
    const stats = backend.stats as StreamPortStats;
    const bad = await connected(port);
    await lab.until(() => stats.connected === 1);
    write(bad, ...bytes);
    await lab.until(() => stats.disconnected === 1);
    expect(stats.rxBadLength).toBe(1);
    expect(lab.logged).toContain('the peer sent a frame length over the maximum: connection closed');
    expect(guest.links.at(-1)).toBe(false);
    lab.hostIo.close(bad);
    const good = await connected(port);
    write(good, ...framed(packet(9)));
    await lab.until(() => tags(guest.received).includes(9));
    expect(backend.describe()).toContain('socket: connection from 127.0.0.1:');
    lab.hostIo.close(good);
  });

  it('hardening 50: takes a length of 0 for an empty frame, and a length split over segments', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('socket', { listen: `${LOCAL}:${port}` });
    const guest = lab.guest(backend);
    const peer = await connected(port);
    for (const byte of [0, 0, 0, 0, ...framed(packet(5))]) {
      write(peer, byte);
      lab.settle();
    }
    await lab.until(() => guest.received.length === 1);
    expect(tags(guest.received)).toEqual([5]);
    expect((backend.stats as StreamPortStats).rxDropShort).toBe(1);
    lab.hostIo.close(peer);
  });

  it('throws the beginning of a frame away when its peer is killed within it, and begins anew with the next', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('socket', { listen: `${LOCAL}:${port}` });
    const guest = lab.guest(backend);
    const stats = backend.stats as StreamPortStats;
    const first = await connected(port);
    write(first, ...framed(packet(1)), 0, 0, 0, 60, 1, 2, 3);
    await lab.until(() => guest.received.length === 1);
    lab.hostIo.reset(first);
    await lab.until(() => stats.disconnected === 1);
    expect(stats.rxDropCut).toBe(1);
    const second = await connected(port);
    write(second, ...framed(packet(2)));
    await lab.until(() => guest.received.length === 2);
    expect(tags(guest.received)).toEqual([1, 2]);
    lab.hostIo.close(second);
  });

  it('says that its port is busy', async () => {
    const [port] = freePorts(lab, 1) as [number];
    await lab.open('socket', { listen: `${LOCAL}:${port}` });
    expect(await lab.refusal('socket', { listen: `${LOCAL}:${port}` })).toBe(
      "can't bind ip=127.0.0.1 to socket: Address already in use",
    );
    expect(await lab.refusal('stream', { server: true, addr: inet(port) })).toBe(
      'Failed to bind socket: Address already in use',
    );
    const second = await lab.open('stream', { server: true, addr: { ...inet(port), to: port + 20 } });
    expect(second.describe()).toMatch(/^stream: tcp:127\.0\.0\.1:\d+ \(listening\)$/);
  });

  it('drops what the guest sends while nobody is connected', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('socket', { listen: `${LOCAL}:${port}` });
    const guest = lab.guest(backend);
    expect(guest.links.at(-1)).toBe(false);
    guest.send(packet(1));
    expect(guest.port.stats.dropLinkDown).toBe(1);
  });
});

describe('a netdev that connects', () => {
  it('says that nobody listens', async () => {
    const [port] = freePorts(lab, 1) as [number];
    expect(await lab.refusal('socket', { connect: `${LOCAL}:${port}` })).toBe(
      "can't connect socket: Connection refused",
    );
    const stream = await lab.open('stream', { addr: inet(port) });
    await lab.until(() => stream.describe().includes('refused'));
    expect(stream.describe()).toBe(`stream: tcp:127.0.0.1:${port} (disconnected: Connection refused)`);
    expect(stream.ports[0]!.linkUp).toBe(false);
  });

  it('tries again with reconnect-ms, at growing intervals with a random part, and tells of each connection', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const stream = await lab.open('stream', { addr: inet(port), 'reconnect-ms': 100 });
    const stats = stream.stats as StreamPortStats;
    const waits: number[] = [];
    for (let attempt = 0; attempt < 9; attempt++) {
      await lab.until(() => stream.describe().includes('refused'));
      const next = lab.link.loop.nextNs - lab.link.clock.nowNs();
      waits.push(next / 1e6);
      await lab.pass(next);
    }
    for (const [i, wait] of waits.entries()) {
      const base = Math.min(100 * 2 ** i, 10_000);
      expect(wait).toBeGreaterThanOrEqual(base);
      expect(wait).toBeLessThanOrEqual(base * 1.25);
    }
    expect(new Set(waits.map((wait, i) => wait / 2 ** Math.min(i, 7))).size).toBeGreaterThan(1);
    const server = await lab.open('stream', { server: true, addr: inet(port) });
    await lab.untilLater(() => stats.connected === 1);
    expect(stream.ports[0]!.linkUp).toBe(true);
    const id = 'n0';
    expect(lab.events.filter(({ data }) => data['netdev-id'] === id)).toEqual([
      {
        name: 'NETDEV_STREAM_CONNECTED',
        data: { 'netdev-id': id, addr: { type: 'inet', host: LOCAL, port: String(port) } },
      },
    ]);
    server.close();
    await lab.until(() => stats.disconnected === 1);
    expect(lab.events.filter(({ data }) => data['netdev-id'] === id).at(-1)).toEqual({
      name: 'NETDEV_STREAM_DISCONNECTED',
      data: { 'netdev-id': id },
    });
    const again = await lab.open('stream', { server: true, addr: inet(port) });
    await lab.untilLater(() => stats.connected === 2);
    const a = lab.guest(stream);
    const b = lab.guest(again);
    a.send(packet(1));
    await lab.until(() => b.received.length === 1);
  });

  it('says that a name has no address', async () => {
    await lab.end();
    lab = new BackendLab({
      services: {
        async resolve(name) {
          if (name === 'good.example') return '127.0.0.1';
          throw new Error('ENOTFOUND');
        },
      },
    });
    const [port] = freePorts(lab, 1) as [number];
    const bad = "can't resolve host address 'bad.example'";
    expect(await lab.refusal('socket', { connect: 'bad.example:1' })).toBe(bad);
    expect(await lab.refusal('socket', { listen: 'bad.example:1' })).toBe(bad);
    expect(await lab.refusal('socket', { udp: 'bad.example:1', localaddr: '127.0.0.1:2' })).toBe(bad);
    expect(await lab.refusal('dgram', { local: inet(1), remote: inet(2, 'bad.example') })).toBe(bad);
    expect(await lab.refusal('l2tpv3', { src: 'good.example', dst: 'bad.example', txsession: 1 })).toBe(
      'could not resolve dst, error = Name or service not known',
    );
    const stream = await lab.open('stream', { addr: inet(port, 'bad.example'), 'reconnect-ms': 50 });
    await lab.until(() => stream.describe().includes(bad));
    const server = await lab.open('stream', { server: true, addr: inet(port, 'good.example') });
    const client = await lab.open('stream', { addr: inet(port, 'good.example') });
    await lab.until(() => client.ports[0]!.linkUp && server.ports[0]!.linkUp);
  });

  it('holds one frame and no more when its peer does not read, and goes on when it does', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const listener = lab.hostIo.tcpListen({ address: LOCAL, port });
    const backend = await lab.open('stream', { addr: inet(port) });
    const guest = lab.guest(backend);
    let peer: Handle = 0;
    lab.hostIo.watch(listener, READABLE, () => {
      peer = lab.hostIo.accept(listener);
    });
    await lab.until(() => peer > 0 && backend.ports[0]!.linkUp);
    const big = packet(1, 60_000);
    let sent = 0;
    while (guest.waiting.length === 0 && sent < 2000) {
      guest.send(big);
      sent++;
    }
    expect(guest.waiting.length).toBeGreaterThan(0);
    const held = lab.link.pool.capacity - lab.link.pool.free;
    expect(held - guest.waiting.length).toBeLessThanOrEqual(1);
    const target = new Uint8Array(1 << 20);
    let got = 0;
    await lab.until(() => {
      for (let n = 1; n > 0; got += Math.max(0, n))
        n = lab.hostIo.receiveBytes(peer, target, 0, target.length);
      return got === sent * 60_004;
    });
    expect(guest.waiting.length).toBe(0);
    expect(guest.readyCalls).toBeGreaterThan(0);
    lab.hostIo.close(peer);
    lab.hostIo.close(listener);
  });
});

describe('a unix stream', () => {
  it('says that its path cannot be bound, and takes over one that a dead process left', async () => {
    const path = lab.path('nowhere/s');
    expect(await lab.refusal('stream', { server: true, addr: { type: 'unix', path } })).toBe(
      `Failed to bind socket to ${path}: No such file or directory`,
    );
    const file = lab.path('file');
    writeFileSync(file, '');
    expect(await lab.refusal('stream', { server: true, addr: { type: 'unix', path: file } })).toBe(
      `Failed to bind socket to ${file}: Address already in use`,
    );
    const { rmSync } = await import('node:fs');
    rmSync(file);
  });
});

describe('a datagram netdev', () => {
  it('says that its port is busy', async () => {
    const [a, b] = freePorts(lab, 2) as [number, number];
    await lab.open('dgram', { local: inet(a), remote: inet(b) });
    const said = "can't bind ip=127.0.0.1 to socket: Address already in use";
    expect(await lab.refusal('dgram', { local: inet(a), remote: inet(b) })).toBe(said);
    expect(await lab.refusal('socket', { udp: `${LOCAL}:${b}`, localaddr: `${LOCAL}:${a}` })).toBe(said);
    const path = lab.path('d');
    await lab.open('dgram', { local: { type: 'unix', path }, remote: { type: 'unix', path: lab.path('e') } });
    expect(
      await lab.refusal('dgram', {
        local: { type: 'unix', path },
        remote: { type: 'unix', path: lab.path('e') },
      }),
    ).toBe(`can't bind unix=${path} to socket: Address already in use`);
  });

  it('counts frames for a peer that is not there, and reaches it when it comes', async () => {
    const [a, b] = freePorts(lab, 2) as [number, number];
    const near = await lab.open('dgram', { local: inet(a), remote: inet(b) });
    const guest = lab.guest(near);
    for (let i = 0; i < 5; i++) {
      guest.send(packet(i));
      lab.settle();
    }
    const stats = near.stats as DatagramPortStats;
    expect(stats.txFrames + stats.txDropUnreachable).toBe(5);
    expect(stats.rxHostErrors + stats.txDropUnreachable).toBeGreaterThan(0);
    const far = await lab.open('dgram', { local: inet(b), remote: inet(a) });
    const farGuest = lab.guest(far);
    guest.send(packet(9));
    guest.send(packet(10));
    await lab.until(() => tags(farGuest.received).includes(10));
  });

  it('finds a unix peer that was killed and came back, whoever speaks first', async () => {
    const one = { type: 'unix', path: lab.path('1') };
    const two = { type: 'unix', path: lab.path('2') };
    const near = await lab.open('dgram', { local: one, remote: two });
    const guest = lab.guest(near);
    const stats = near.stats as DatagramPortStats;
    guest.send(packet(1));
    lab.settle();
    expect(stats.txDropUnreachable).toBe(1);
    for (const first of ['near', 'far'] as const) {
      const far = await lab.open('dgram', { local: two, remote: one });
      const farGuest = lab.guest(far);
      if (first === 'near') {
        guest.send(packet(2));
        await lab.until(() => farGuest.received.length === 1);
      } else {
        await lab.pass(1.1e9);
        farGuest.send(packet(3));
        await lab.until(() => tags(guest.received).includes(3));
      }
      farGuest.close();
      far.close();
    }
  });

  it('takes datagrams from its peer only', async () => {
    const [a, b, c] = freePorts(lab, 3) as [number, number, number];
    const near = await lab.open('socket', { udp: `${LOCAL}:${b}`, localaddr: `${LOCAL}:${a}` });
    const guest = lab.guest(near);
    const stranger = lab.hostIo.udpOpen({
      local: { address: LOCAL, port: c },
      remote: { address: LOCAL, port: a },
    });
    const peer = lab.hostIo.udpOpen({
      local: { address: LOCAL, port: b },
      remote: { address: LOCAL, port: a },
    });
    for (const [handle, tag] of [
      [stranger, 1],
      [peer, 2],
    ] as const) {
      const frame = Int32Array.of(lab.link.pool.from(packet(tag)));
      lab.hostIo.sendDatagrams(handle, frame, 0, 1);
      lab.link.pool.release(frame[0]!);
    }
    await lab.until(() => guest.received.length === 1);
    expect(tags(guest.received)).toEqual([2]);
    lab.hostIo.close(stranger);
    lab.hostIo.close(peer);
  });

  it('drops runts and frames too long for a datagram, counted', async () => {
    const [a, b] = freePorts(lab, 2) as [number, number];
    const near = await lab.open('dgram', { local: inet(a), remote: inet(b) });
    const far = await lab.open('dgram', { local: inet(b), remote: inet(a) });
    const guest = lab.guest(near);
    const farGuest = lab.guest(far);
    guest.send(packet(1, 65_508), new Uint8Array(13), packet(2, 65_507));
    await lab.until(() => farGuest.received.length === 1);
    expect((near.stats as DatagramPortStats).txDropTooLong).toBe(1);
    expect((far.stats as DatagramPortStats).rxDropShort).toBe(1);
  });

  it('does not hear its own multicast frames, and hears another’s on the same machine', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const options = { mcast: `230.0.0.3:${port}`, localaddr: LOCAL };
    const guests: RecordingClient[] = [];
    for (let i = 0; i < 3; i++) guests.push(lab.guest(await lab.open('socket', options)));
    guests[0]!.send(packet(1));
    await lab.until(() => guests[1]!.received.length === 1 && guests[2]!.received.length === 1);
    lab.settle();
    expect(guests[0]!.received).toEqual([]);
  });

  it('goes on when the pool has no slots, once it has some again', async () => {
    await lab.end();
    lab = new BackendLab({ pool: { smallSlots: 16, largeSlots: 4, bareRecords: 64 } });
    const [a, b] = freePorts(lab, 2) as [number, number];
    const near = await lab.open('dgram', { local: inet(a), remote: inet(b) });
    const far = await lab.open('dgram', { local: inet(b), remote: inet(a) });
    const guest = lab.guest(near);
    const farGuest = lab.guest(far);
    const { pool } = lab.link;
    guest.send(packet(1), packet(2));
    const hoard: number[] = [];
    for (let frame = pool.alloc(0); frame !== 0; frame = pool.alloc(0)) hoard.push(frame);
    for (let frame = pool.allocLarge(); frame !== 0; frame = pool.allocLarge()) hoard.push(frame);
    lab.settle();
    expect(farGuest.received).toEqual([]);
    expect((far.stats as DatagramPortStats).rxWaitNoSlot).toBe(1);
    for (const frame of hoard) pool.release(frame);
    await lab.pass(2e6);
    await lab.until(() => farGuest.received.length === 2);
  });
});

describe('an l2tpv3 tunnel', () => {
  it('hardening 51: drops what has the wrong session, cookie, type or length, counted, and passes the rest', async () => {
    const [a, b] = freePorts(lab, 2) as [number, number];
    const backend = await lab.open('l2tpv3', {
      src: LOCAL,
      dst: LOCAL,
      udp: true,
      srcport: String(a),
      dstport: String(b),
      txsession: 1,
      rxsession: 0x01020304,
      txcookie: 0,
      rxcookie: 0xa1a2a3a4,
      counter: true,
    });
    const guest = lab.guest(backend);
    const peer = lab.hostIo.udpOpen({
      local: { address: LOCAL, port: b },
      remote: { address: LOCAL, port: a },
    });
    const send = (...bytes: number[]): void => {
      const frame = Int32Array.of(lab.link.pool.from(Uint8Array.from(bytes)));
      lab.hostIo.sendDatagrams(peer, frame, 0, 1);
      lab.link.pool.release(frame[0]!);
    };
    const good = [0, 3, 0, 0, 1, 2, 3, 4, 0xa1, 0xa2, 0xa3, 0xa4, 0, 0, 0, 1];
    const changed = (at: number, to: number): number[] => good.map((byte, i) => (i === at ? to : byte));
    const body = [...packet(7)];
    send(...good, ...body);
    send(...changed(7, 5), ...body);
    send(...changed(8, 0), ...body);
    send(...changed(11, 0), ...body);
    send(...changed(1, 2), ...body);
    send(...changed(0, 0x80), ...body);
    send(...good.slice(0, 15));
    send(...changed(15, 2), ...body.slice(0, 13));
    send(...changed(15, 9), ...body);
    await lab.until(() => guest.received.length === 2);
    const stats = readCounters(backend.stats as L2tpv3Stats);
    expect(stats).toMatchObject({
      rxFrames: 2,
      rxDropBadSession: 1,
      rxDropBadCookie: 2,
      rxDropBadType: 2,
      rxDropTruncated: 1,
      rxDropShort: 1,
      rxOutOfOrder: 1,
    });
    lab.hostIo.close(peer);
  });

  it('says that its port is busy', async () => {
    const [a, b] = freePorts(lab, 2) as [number, number];
    const options = {
      src: LOCAL,
      dst: LOCAL,
      udp: true,
      srcport: String(a),
      dstport: String(b),
      txsession: 1,
    };
    await lab.open('l2tpv3', options);
    expect(await lab.refusal('l2tpv3', options)).toBe('could not bind socket: Address already in use');
  });
});

describe('descriptors', () => {
  it('are refused when they are not what they are said to be', async () => {
    expect(await lab.refusal('socket', { fd: '4000' })).toBe('fd 4000: Bad file descriptor');
    expect(await lab.refusal('socket', { fd: '1' })).toBe("Invalid file descriptor number '1'");
    expect(await lab.refusal('socket', { fd: 'unknown' })).toBe(
      "File descriptor named 'unknown' has not been found",
    );
    expect(await lab.refusal('tap', { fd: 'unknown' })).toBe(
      "File descriptor named 'unknown' has not been found",
    );
    const [one, two] = lab.hostIo.socketPair();
    lab.passedFds.set('pair', one);
    const open = lab.open('dgram', { local: { type: 'fd', str: 'pair' } });
    await expect(open).rejects.toThrow('fd pair is not a datagram socket');
    lab.passedFds.set('pair', two);
    await expect(lab.open('tap', { fd: 'pair' })).rejects.toThrow(
      'fd pair is not a tap without packet information',
    );
    const [three, four] = lab.hostIo.socketPair();
    lab.passedFds.set('pair', three);
    await expect(lab.open('stream', { server: true, addr: { type: 'fd', str: 'pair' } })).rejects.toThrow(
      'fd pair is not a listening socket',
    );
    lab.hostIo.close(four);
  });

  it('carry frames by socket, stream and dgram', async () => {
    const [one, two] = lab.hostIo.socketPair();
    lab.passedFds.set('one', one);
    lab.passedFds.set('two', two);
    const a = await lab.open('socket', { fd: 'one' });
    const b = await lab.open('stream', { addr: { type: 'fd', str: 'two' } });
    const guestA = lab.guest(a);
    const guestB = lab.guest(b);
    guestA.send(packet(1));
    guestB.send(packet(2));
    await lab.until(() => guestA.received.length === 1 && guestB.received.length === 1);
    expect(lab.events[0]).toEqual({
      name: 'NETDEV_STREAM_CONNECTED',
      data: { 'netdev-id': 'n1', addr: { type: 'fd', str: 'two' } },
    });
    const [p, q] = freePorts(lab, 2) as [number, number];
    const udp = lab.hostIo.udpOpen({
      local: { address: LOCAL, port: p },
      remote: { address: LOCAL, port: q },
    });
    lab.passedFds.set('udp', udp);
    const c = lab.guest(await lab.open('dgram', { local: { type: 'fd', str: 'udp' } }));
    const d = lab.guest(await lab.open('dgram', { local: inet(q), remote: inet(p) }));
    c.send(packet(3));
    d.send(packet(4));
    await lab.until(() => c.received.length === 1 && d.received.length === 1);
  });
});

describe('names of interfaces and bridges', () => {
  it('hardening 52: are refused by the options and by the addon when they are too long or lead elsewhere', async () => {
    const long = 'a'.repeat(16);
    const said = (option: string) =>
      `Parameter '${option}' expects an interface name (1 to 15 characters, none of them '/' or ':')`;
    expect(await lab.refusal('tap', { ifname: long })).toBe(said('ifname'));
    expect(await lab.refusal('bridge', { br: '../../etc' })).toBe(said('br'));
    expect(await lab.refusal('tap', { helper: '/bin/true', br: '../x' })).toBe(said('br'));
    expect(() => lab.hostIo.tapOpen({ name: long })).toThrow('Invalid argument');
    expect(lab.hostIo.stats().openHandles).toBe(0);
  });
});

describe('what this machine cannot do', () => {
  it('is told', async () => {
    await lab.end();
    lab = new BackendLab({
      services: { exists: (path) => path !== '/dev/vhost-net' && nodeServices.exists(path) },
    });
    expect(await lab.refusal('tap', { vhost: true, vhostforce: true })).toBe(
      'vhost-net requested but could not be initialized: there is no /dev/vhost-net (the vhost_net kernel module is not loaded)',
    );
    expect(await lab.refusal('bridge', { helper: '/no/such/helper' })).toBe(
      'bridge helper failed: could not run /no/such/helper: No such file or directory',
    );
    expect(await lab.refusal('bridge', { helper: '/bin/false' })).toBe('bridge helper failed');
    expect(await lab.refusal('bridge', { helper: '/bin/true' })).toBe('bridge helper failed');
    expect(await lab.refusal('bridge', { helper: 'exit 3;' })).toBe('bridge helper failed');
  });
});

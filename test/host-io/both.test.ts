/** One suite over the native and the portable implementation: whatever both can do, both do alike. */

import { statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemClock } from '../../src/core/clock.ts';
import { HostIoError } from '../../src/core/errors.ts';
import { Loop } from '../../src/core/loop.ts';
import { LENGTH, OFFSET, SLOT, TOTAL } from '../../src/core/pool.ts';
import { unpackAddress } from '../../src/host-io/address.ts';
import { ADDRESS_BYTES, ERRNO, FAILED, HUNG_UP, READABLE, WRITABLE } from '../../src/host-io/host-io.ts';
import { createHostIo } from '../../src/host-io/index.ts';
import { internetChecksum } from '../../src/wire/checksum.ts';
import { Lab, LOOPBACK, pattern, show, text, turn } from './lab.ts';

function canLoad(name: string): boolean {
  try {
    createRequire(import.meta.url)(name);
    return true;
  } catch {
    return false;
  }
}

describe.each(['native', 'portable'] as const)('host I/O, %s', (implementation) => {
  let lab: Lab;
  // An optional package that is compiled when it is installed: without it, portable raw IP must say so instead.
  const rawSocketMissing = implementation === 'portable' && !canLoad('raw-socket');

  beforeEach(() => {
    lab = new Lab(() => createHostIo({ implementation }));
  });

  afterEach(() => lab.end());

  it('says what it is', () => {
    expect(lab.host.implementation).toBe(implementation);
  });

  describe('UDP', () => {
    it('carries batches both ways, with the sources of an unconnected socket', async () => {
      const { host } = lab;
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ local: LOOPBACK, remote: host.localEndpoint(server) });
      const sent = lab.frames(...Array.from({ length: 100 }, (_, i) => pattern(60 + i, i)));
      await lab.sendDatagrams(client, sent);
      const got = lab.slots(100);
      const addresses = new Uint8Array(100 * ADDRESS_BYTES);
      await lab.receiveDatagrams(server, got, 42, addresses);
      for (const [i, frame] of got.entries()) {
        expect(lab.bytesOf(frame)).toEqual(pattern(60 + i, i));
        expect(lab.pool.table[frame + OFFSET]).toBe(lab.pool.table[frame + SLOT]! + 42);
        expect(unpackAddress(addresses, i * ADDRESS_BYTES)).toEqual(host.localEndpoint(client));
      }
      await lab.sendDatagrams(server, got, host.localEndpoint(client));
      const back = lab.slots(100);
      await lab.receiveDatagrams(client, back);
      expect(lab.bytesOf(back[99]!)).toEqual(pattern(159, 99));
      lab.release(sent, got, back);
    });

    it('keeps the boundaries of equal-size runs, of a shorter last one, and of empty datagrams', async () => {
      const { host } = lab;
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const lengths = [64, 64, 64, 10, 64, 0, 0, 5, 5, 1400, 1400, 1400, 1, 1400];
      const sent = lab.frames(...lengths.map((length, i) => pattern(length, i)));
      await lab.sendDatagrams(client, sent);
      const got = lab.slots(lengths.length);
      await lab.receiveDatagrams(server, got);
      expect([...got].map((frame) => lab.bytesOf(frame))).toEqual(
        lengths.map((length, i) => pattern(length, i)),
      );
      lab.release(sent, got);
    });

    it('leaves by the interface it is bound to, or says that it needs the addon', async () => {
      const { host } = lab;
      const bind = { bindInterface: 'lo' };
      const nowhere = { bindInterface: 'no-such-if0' };
      if (implementation === 'portable') {
        for (const open of [
          () => host.udpOpen({ family: 4, ...bind }),
          () => host.tcpConnect(LOOPBACK, bind),
          () => host.pingOpen(4, bind),
        ])
          expect(open).toThrow('binding to an interface needs the native addon');
        return;
      }
      for (const open of [
        () => host.udpOpen({ family: 4, ...nowhere }),
        () => host.tcpConnect({ address: '127.0.0.1', port: 9 }, nowhere),
        () => host.udpOpen({ family: 4, bindInterface: 'longer-than-any-name-there-can-be-in-linux' }),
      ])
        expect(open).toThrow(HostIoError);
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ remote: host.localEndpoint(server), ...bind });
      const sent = lab.frames(pattern(60, 1));
      await lab.sendDatagrams(client, sent);
      const got = lab.slots(1);
      await lab.receiveDatagrams(server, got);
      expect(lab.bytesOf(got[0]!)).toEqual(pattern(60, 1));
      lab.release(sent, got);
    });

    it('puts the header of each frame in front of it', async () => {
      const { host } = lab;
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const sent = lab.frames('zero', 'one', 'two');
      const headers = text('h0:h1:h2:');
      expect(host.sendDatagrams(client, sent, 1, 3, undefined, headers, 3)).toBe(2);
      const got = lab.slots(2);
      await lab.receiveDatagrams(server, got);
      expect([...got].map((frame) => show(lab.bytesOf(frame)))).toEqual(['h1:one', 'h2:two']);
      expect(host.sendDatagrams(client, sent, 0, 3, undefined, text('short'), 3)).toBe(-ERRNO.EINVAL);
      lab.release(sent, got);
    });

    it('sends frames of many segments, with memory borrowed from a region', async () => {
      const { host, pool } = lab;
      const guest = pattern(10_000);
      const region = pool.addRegion(guest);
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const sent = lab.frames(pattern(200, 3));
      let tail = sent[0]!;
      for (const offset of [5000, 100, 9000]) tail = pool.borrow(sent[0]!, tail, region, offset, 400);
      expect(host.sendDatagrams(client, sent, 0, 1)).toBe(1);
      const got = lab.slots(1);
      await lab.receiveDatagrams(server, got);
      expect(lab.bytesOf(got[0]!)).toEqual(pool.toBytes(sent[0]!));
      expect(lab.bytesOf(got[0]!).subarray(200, 600)).toEqual(guest.subarray(5000, 5400));
      lab.release(sent, got);
      expect(pool.freeBare).toBe(2048);
    });

    it('reads a region that was taken away under a frame as zeros', async () => {
      const { host, pool } = lab;
      const region = pool.addRegion(pattern(4096));
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const sent = lab.frames(pattern(200));
      pool.borrow(sent[0]!, sent[0]!, region, 0, 1000);
      pool.removeRegion(region);
      expect(host.sendDatagrams(client, sent, 0, 1)).toBe(1);
      const got = lab.slots(1);
      await lab.receiveDatagrams(server, got);
      expect(lab.bytesOf(got[0]!)).toEqual(Uint8Array.of(...pattern(200), ...new Uint8Array(1000)));
      lab.release(sent, got);
    });

    it('reports a refused port as -ECONNREFUSED, once', async () => {
      const { host } = lab;
      const gone = host.udpOpen({ local: LOOPBACK });
      const remote = host.localEndpoint(gone);
      host.close(gone);
      await turn();
      const client = host.udpOpen({ remote });
      const sent = lab.frames('anybody?');
      expect(host.sendDatagrams(client, sent, 0, 1)).toBe(1);
      const bits = await lab.ready(client, READABLE);
      expect(bits & FAILED).toBe(FAILED);
      const got = lab.slots(1);
      expect(host.receiveDatagrams(client, got, 0, 1, 0)).toBe(-ERRNO.ECONNREFUSED);
      expect(host.receiveDatagrams(client, got, 0, 1, 0)).toBe(-ERRNO.EAGAIN);
      lab.release(sent, got);
    });

    it('throws away datagrams that do not fit their slot, and fills the frames with the others', async () => {
      const { host } = lab;
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const sent = lab.frames('one', pattern(3000), 'two');
      await lab.sendDatagrams(client, sent);
      const got = lab.slots(2, 100);
      const all = new Set(got);
      await lab.receiveDatagrams(server, got, 10);
      expect([...got].map((frame) => show(lab.bytesOf(frame)))).toEqual(['one', 'two']);
      expect(new Set(got)).toEqual(all);
      lab.release(sent, got);
    });

    it('joins a multicast group on the loopback', async () => {
      const { host } = lab;
      const group = '239.192.7.7';
      const options = { reuseAddress: true, multicast: { group, interface: '127.0.0.1' } };
      const first = host.udpOpen({ local: { address: group, port: 0 }, ...options });
      const { port } = host.localEndpoint(first);
      const second = host.udpOpen({ local: { address: group, port }, ...options });
      const sent = lab.frames('to all');
      await lab.sendDatagrams(first, sent, { address: group, port });
      const got = lab.slots(2);
      await lab.receiveDatagrams(first, got.subarray(0, 1));
      await lab.receiveDatagrams(second, got.subarray(1, 2));
      expect([...got].map((frame) => show(lab.bytesOf(frame)))).toEqual(['to all', 'to all']);
      lab.release(sent, got);
    });

    it('works over IPv6', async () => {
      const { host } = lab;
      const server = host.udpOpen({ local: { address: '::1', port: 0 } });
      const client = host.udpOpen({ local: { address: '::1', port: 0 } });
      const sent = lab.frames('six');
      await lab.sendDatagrams(client, sent, host.localEndpoint(server));
      const got = lab.slots(1);
      const addresses = new Uint8Array(ADDRESS_BYTES);
      await lab.receiveDatagrams(server, got, 0, addresses);
      expect(unpackAddress(addresses, 0)).toEqual(host.localEndpoint(client));
      lab.release(sent, got);
    });

    it('refuses a port in use, an address that is none, and an address of another host', () => {
      const { host } = lab;
      const local = host.localEndpoint(host.udpOpen({ local: LOOPBACK }));
      expect(() => host.udpOpen({ local })).toThrow(HostIoError);
      expect(() => host.udpOpen({ local })).toThrow(/127\.0\.0\.1:\d+.*: Address already in use/);
      expect(() => host.udpOpen({ local: { address: 'localhost', port: 0 } })).toThrow(HostIoError);
      expect(() => host.udpOpen({ local: { address: '192.0.2.1', port: 0 } })).toThrow(
        /Cannot assign requested address/,
      );
      expect(() => host.udpOpen({})).toThrow(HostIoError);
    });
  });

  describe('raw IP', () => {
    // 253: for experiments (RFC 3692).
    it.each([
      [4, '127.0.0.1'],
      [6, '::1'],
    ] as const)('carries messages of one protocol over IPv%i, without the IP header', async (family, address) => {
      const { host } = lab;
      if (rawSocketMissing) {
        expect(() => host.rawIpOpen(family, 253)).toThrow(
          /needs the native addon, or the optional package 'raw-socket'/,
        );
        return;
      }
      const one = host.rawIpOpen(family, 253, { remote: address });
      const two = host.rawIpOpen(family, 253);
      const sent = lab.frames('raw one', pattern(900));
      expect(host.sendDatagrams(one, sent, 0, 2)).toBe(2);
      const got = lab.slots(2);
      const addresses = new Uint8Array(2 * ADDRESS_BYTES);
      await lab.receiveDatagrams(two, got, 14, addresses);
      expect(show(lab.bytesOf(got[0]!))).toBe('raw one');
      expect(lab.bytesOf(got[1]!)).toEqual(pattern(900));
      expect(lab.pool.table[got[0]! + OFFSET]).toBe(lab.pool.table[got[0]! + SLOT]! + 14);
      expect(unpackAddress(addresses, 0)?.address).toBe(address);
      lab.release(sent, got);
    });

    it('refuses a protocol that is none', () => {
      expect(() => lab.host.rawIpOpen(4, 300)).toThrow(HostIoError);
      expect(() => lab.host.rawIpOpen(4, 253, { remote: '::1' })).toThrow(HostIoError);
    });

    it('hears the echo of a ping', async () => {
      const { host } = lab;
      if (rawSocketMissing) {
        expect(() => host.pingOpen(4)).toThrow(
          /needs the native addon, or the optional package 'raw-socket'/,
        );
        return;
      }
      const socket = host.pingOpen(4);
      // Type 8, code 0, checksum, identifier, sequence 7, then four bytes.
      const identifier = host.localEndpoint(socket).port || 0x1234;
      const request = Uint8Array.of(8, 0, 0, 0, identifier >> 8, identifier & 0xff, 0, 7, 1, 2, 3, 4);
      const sum = internetChecksum(request, 0, request.length);
      request[2] = sum >> 8;
      request[3] = sum & 0xff;
      const sent = lab.frames(request);
      await lab.sendDatagrams(socket, sent, { address: '127.0.0.1', port: 0 });
      const got = lab.slots(1);
      await lab.receiveDatagrams(socket, got);
      const reply = lab.bytesOf(got[0]!);
      expect(reply[0]).toBe(0);
      expect(internetChecksum(reply, 0, reply.length)).toBe(0);
      expect([...reply.subarray(4)]).toEqual([...request.subarray(4)]);
      lab.release(sent, got);
    });
  });

  describe('TCP', () => {
    it('connects, tells both ends their addresses, and carries bytes', async () => {
      const { host } = lab;
      const { listener, client, server } = await lab.tcpPair();
      expect(host.takeError(client)).toBe(0);
      expect(host.localEndpoint(listener).port).toBeGreaterThan(0);
      expect(host.remoteEndpoint(client)).toEqual(host.localEndpoint(listener));
      expect(host.remoteEndpoint(server)).toEqual(host.localEndpoint(client));
      expect(host.sendBytes(client, text('xhellox'), 1, 6)).toBe(5);
      expect(show(await lab.receiveAll(server, 5))).toBe('hello');
      expect(host.receiveBytes(server, new Uint8Array(4), 0, 4)).toBe(-ERRNO.EAGAIN);
    });

    it('connects from the address and port it is told', async () => {
      const { host } = lab;
      const listener = host.tcpListen(LOOPBACK);
      const client = host.tcpConnect(host.localEndpoint(listener), {
        local: { address: '127.0.0.7', port: 0 },
      });
      await lab.ready(client, WRITABLE);
      const server = await lab.accept(listener);
      expect(host.remoteEndpoint(server).address).toBe('127.0.0.7');
    });

    it('tells a refused connection by FAILED and takeError', async () => {
      const { host } = lab;
      const listener = host.tcpListen(LOOPBACK);
      const remote = host.localEndpoint(listener);
      host.close(listener);
      await turn();
      const client = host.tcpConnect(remote);
      expect((await lab.ready(client, WRITABLE)) & FAILED).toBe(FAILED);
      expect(host.takeError(client)).toBe(ERRNO.ECONNREFUSED);
      expect(host.takeError(client)).toBe(0);
    });

    it('knows of a connection that it stands, at once where it can tell, and never of one that does not', async () => {
      const { host } = lab;
      const listener = host.tcpListen(LOOPBACK);
      const client = host.tcpConnect(host.localEndpoint(listener));
      expect(host.isConnected(client)).toBe(host.implementation === 'native');
      await lab.ready(client, WRITABLE);
      expect(host.takeError(client)).toBe(0);
      const refused = host.localEndpoint(listener);
      host.close(listener);
      expect(host.isConnected(host.tcpConnect(refused))).toBe(false);
      expect(host.isConnected(12_345)).toBe(false);
    });

    it('tells an unreachable network like a refused connection, and does not throw', async () => {
      const { host } = lab;
      const client = host.tcpConnect({ address: '255.255.255.255', port: 1 });
      expect((await lab.ready(client, WRITABLE)) & FAILED).toBe(FAILED);
      expect([ERRNO.ENETUNREACH, ERRNO.EACCES, ERRNO.EHOSTUNREACH]).toContain(host.takeError(client));
    });

    it('scatters into slots, records untouched, and leaves peeked bytes', async () => {
      const { host, pool } = lab;
      const { client, server } = await lab.tcpPair();
      const message = pattern(250);
      expect(host.sendBytes(client, message, 0, 250)).toBe(250);
      await waitPending(server, 250);
      const slots = lab.slots(4);
      expect(host.receiveStream(server, slots, 0, 4, 54, 100, true)).toBe(250);
      expect(host.pendingBytes(server)).toBe(250);
      expect(lab.slotBytes(slots[2]!, 54, 50)).toEqual(message.subarray(200));
      for (const frame of slots) {
        expect(pool.table[frame + LENGTH]).toBe(0);
        expect(pool.table[frame + TOTAL]).toBe(0);
      }
      expect(host.discardStream(server, 70)).toBe(70);
      expect(host.receiveStream(server, slots, 1, 3, 54, 100)).toBe(180);
      expect(lab.slotBytes(slots[1]!, 54, 100)).toEqual(message.subarray(70, 170));
      expect(lab.slotBytes(slots[2]!, 54, 80)).toEqual(message.subarray(170));
      expect(host.receiveStream(server, slots, 0, 4, 54, 100)).toBe(-ERRNO.EAGAIN);
      expect(host.discardStream(server, 1)).toBe(-ERRNO.EAGAIN);
      expect(host.receiveStream(server, slots, 0, 4, 2000, 100)).toBe(-ERRNO.EINVAL);
      lab.release(slots);
    });

    it('gathers many frames of many segments, from any number of skipped bytes on', async () => {
      const { host, pool } = lab;
      const { client, server } = await lab.tcpPair();
      const region = pool.addRegion(pattern(60_000, 5));
      for (const skip of [0, 1, 199, 200, 201, 650, 1000]) {
        const frames = lab.frames(pattern(200, 1), pattern(300, 2), new Uint8Array(0), pattern(77, 3));
        let tail = pool.borrow(frames[0]!, frames[0]!, region, 1234, 500);
        tail = pool.borrow(frames[0]!, tail, region, 50_000, 300);
        const whole = Uint8Array.from([...frames].flatMap((frame) => [...pool.toBytes(frame)]));
        expect(host.sendStream(client, frames, 0, 4, skip)).toBe(whole.length - skip);
        expect(await lab.receiveAll(server, whole.length - skip)).toEqual(whole.subarray(skip));
        expect(host.sendStream(client, frames, 0, 4, 1001)).toBe(-ERRNO.EINVAL);
        lab.release(frames);
      }
    });

    it('puts a length in front of each frame, from any number of skipped bytes on', async () => {
      const { host } = lab;
      const { client, server } = await lab.tcpPair();
      const whole = Uint8Array.of(0, 0, 0, 3, 97, 98, 99, 0, 0, 0, 0, 0, 0, 1, 44, ...pattern(300));
      for (const skip of [0, 1, 3, 4, 5, 7]) {
        const frames = lab.frames('abc', '', pattern(300));
        expect(host.sendFramed(client, frames, 0, 3, skip)).toBe(whole.length - skip);
        expect(await lab.receiveAll(server, whole.length - skip)).toEqual(whole.subarray(skip));
        expect(host.sendFramed(client, frames, 0, 3, 8)).toBe(-ERRNO.EINVAL);
        lab.release(frames);
      }
    });

    it('takes less than all when the far end does not read, then goes on where it stopped', async () => {
      const { host, pool } = lab;
      const { client, server } = await lab.tcpPair();
      const frames = Int32Array.from({ length: 16 }, (_, i) => pool.from(pattern(65_000, i)));
      const total = 16 * 65_000;
      let sent = 0;
      let next = 0;
      let skip = 0;
      let rounds = 0;
      const received: Uint8Array[] = [];
      let got = 0;
      let refused = 0;
      // The same frames again and again, until the far end has got eight times all of them.
      while (got < 8 * total) {
        if (sent < 8 * total) {
          const count = host.sendStream(client, frames, next, 16, skip);
          if (count < 0) {
            expect(count).toBe(-ERRNO.EAGAIN);
            refused++;
          } else {
            sent += count;
            skip += count;
            while (next < 16 && skip >= 65_000) {
              skip -= 65_000;
              next++;
            }
            if (next === 16) next = 0;
          }
        }
        if (refused > 0 || sent === 8 * total) {
          const part = new Uint8Array(500_000);
          const count = host.receiveBytes(server, part, 0, part.length);
          if (count > 0) {
            received.push(part.subarray(0, count));
            got += count;
          } else {
            expect(count).toBe(-ERRNO.EAGAIN);
            await lab.ready(server, READABLE);
          }
        }
        if (++rounds % 16 === 0) await turn();
      }
      expect(refused).toBeGreaterThan(0);
      const once = Buffer.concat([...frames].map((frame) => pool.toBytes(frame)));
      const all = Buffer.concat(received);
      for (let i = 0; i < 8; i++) expect(all.compare(once, 0, total, i * total, (i + 1) * total)).toBe(0);
      lab.release(frames);
    });

    it('half-closes: the end of one direction leaves the other open', async () => {
      const { host } = lab;
      const { client, server } = await lab.tcpPair();
      host.sendBytes(client, text('last words'), 0, 10);
      host.shutdownWrite(client);
      expect(show(await lab.receiveAll(server, 10))).toBe('last words');
      expect(await lab.receiveEnd(server)).toBe(0);
      expect(host.sendBytes(server, text('answer'), 0, 6)).toBe(6);
      expect(show(await lab.receiveAll(client, 6))).toBe('answer');
      expect(host.sendBytes(client, text('x'), 0, 1)).toBe(-ERRNO.EPIPE);
      expect(host.receiveBytes(client, new Uint8Array(1), 0, 1)).toBe(-ERRNO.EAGAIN);
    });

    it('tells the end of the peer by HUNG_UP', async () => {
      const { host } = lab;
      const { client, server } = await lab.tcpPair();
      host.close(client);
      const bits = await lab.ready(server, READABLE);
      expect(bits & (READABLE | HUNG_UP)).not.toBe(0);
      expect(await lab.receiveEnd(server)).toBe(0);
    });

    it('tells a reset as -ECONNRESET, also when nothing was asked for', async () => {
      const { host } = lab;
      const { client, server } = await lab.tcpPair();
      const told = lab.ready(server, 0);
      host.reset(client);
      expect((await told) & (FAILED | HUNG_UP)).not.toBe(0);
      expect(await lab.receiveEnd(server)).toBe(-ERRNO.ECONNRESET);
      expect(host.sendBytes(server, text('x'), 0, 1)).toBe(-ERRNO.EPIPE);
    });

    it('accepts many that wait', async () => {
      const { host } = lab;
      const listener = host.tcpListen(LOOPBACK);
      const clients = Array.from({ length: 50 }, () => host.tcpConnect(host.localEndpoint(listener)));
      const servers: number[] = [];
      while (servers.length < 50) servers.push(await lab.accept(listener));
      expect(host.accept(listener)).toBe(-ERRNO.EAGAIN);
      expect(new Set([...clients, ...servers]).size).toBe(100);
      for (const handle of clients) host.close(handle);
      for (const handle of servers) expect(await lab.receiveEnd(handle)).toBe(0);
    });

    it('refuses a listening port in use, and listens on IPv6', async () => {
      const { host } = lab;
      const local = host.localEndpoint(host.tcpListen(LOOPBACK));
      expect(() => host.tcpListen(local)).toThrow(/Address already in use/);
      expect(() => host.tcpListen({ address: '192.0.2.1', port: 0 })).toThrow(HostIoError);
      expect(() => host.tcpListen({ address: 'nonsense', port: 0 })).toThrow(HostIoError);
      const six = host.tcpListen({ address: '::', port: 0 }, { v6Only: false });
      const client = host.tcpConnect({ address: '127.0.0.1', port: host.localEndpoint(six).port });
      await lab.ready(client, WRITABLE);
      expect(host.remoteEndpoint(await lab.accept(six)).address).toBe('::ffff:127.0.0.1');
    });

    async function waitPending(handle: number, bytes: number): Promise<void> {
      while (lab.host.pendingBytes(handle) < bytes) await turn();
    }
  });

  describe('unix streams', () => {
    it('makes a file for its owner alone, carries bytes, and takes the file away', async () => {
      const { host } = lab;
      const path = lab.path('stream');
      const listener = host.unixListen(path);
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(host.localEndpoint(listener)).toEqual({ address: path, port: 0 });
      const client = host.unixConnect(path);
      const server = await lab.accept(listener);
      await lab.ready(client, WRITABLE);
      expect(host.takeError(client)).toBe(0);
      const frames = lab.frames('through ', 'the file');
      expect(host.sendStream(client, frames, 0, 2, 0)).toBe(16);
      expect(show(await lab.receiveAll(server, 16))).toBe('through the file');
      expect(host.sendBytes(server, pattern(1000), 0, 1000)).toBe(1000);
      while (host.pendingBytes(client) < 1000) await turn();
      expect(host.discardStream(client, 900)).toBe(900);
      expect(await lab.receiveAll(client, 100)).toEqual(pattern(1000).subarray(900));
      lab.release(frames);
    });

    it('refuses a path that is served, or is no socket, or does not exist', async () => {
      const { host } = lab;
      const path = lab.path('served');
      const listener = host.unixListen(path);
      expect(() => host.unixListen(path)).toThrow(/Address already in use/);
      host.close(listener);
      const file = lab.path('file');
      writeFileSync(file, 'mine');
      expect(() => host.unixListen(file)).toThrow(/Address already in use/);
      expect(statSync(file).size).toBe(4);
      const { unlinkSync } = await import('node:fs');
      unlinkSync(file);
      const nobody = host.unixConnect(lab.path('nobody'));
      expect((await lab.ready(nobody, WRITABLE)) & FAILED).toBe(FAILED);
      expect(host.takeError(nobody)).toBe(2);
    });

    it('takes over a socket file that nobody serves', async () => {
      const { host } = lab;
      const path = lab.path('left');
      // The file of a process that ended without cleaning up.
      const { execFileSync } = await import('node:child_process');
      const script = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
      try {
        execFileSync(process.execPath, ['-e', script, path], { stdio: 'ignore' });
      } catch {
        // Killed, as it was told.
      }
      expect(statSync(path).isSocket()).toBe(true);
      const listener = host.unixListen(path);
      const client = host.unixConnect(path);
      expect(await lab.accept(listener)).toBeGreaterThan(0);
      host.close(client);
    });
  });

  describe('readiness', () => {
    it('is told again for as long as it lasts, and only while it is asked for', async () => {
      const { host } = lab;
      const { client, server } = await lab.tcpPair();
      let told = 0;
      const thrice = new Promise<void>((resolve) => {
        host.watch(server, READABLE, (bits) => {
          expect(bits & READABLE).toBe(READABLE);
          if (++told === 3) {
            host.setInterest(server, 0);
            resolve();
          }
        });
      });
      host.sendBytes(client, text('unread'), 0, 6);
      await thrice;
      await lab.ready(client, WRITABLE);
      for (let i = 0; i < 5; i++) await turn();
      expect(told).toBe(3);
      const again = new Promise<void>((resolve) => {
        host.watch(server, READABLE, () => {
          host.setInterest(server, 0);
          resolve();
        });
      });
      await again;
    });

    it('is never told of a closed handle, not even in the same batch', async () => {
      const { host } = lab;
      const listener = host.tcpListen(LOOPBACK);
      const clients = Array.from({ length: 20 }, () => host.tcpConnect(host.localEndpoint(listener)));
      const servers: number[] = [];
      for (const _ of clients) servers.push(await lab.accept(listener));
      for (const client of clients) await lab.ready(client, WRITABLE);
      for (const client of clients) host.sendBytes(client, text('x'), 0, 1);
      for (const server of servers) while (host.pendingBytes(server) < 1) await turn();
      const told: number[] = [];
      await new Promise<void>((resolve) => {
        for (const server of servers) {
          host.watch(server, READABLE, () => {
            told.push(server);
            for (const other of servers) host.close(other);
            // New handles in the old places must not get the old events.
            for (let i = 0; i < 20; i++) {
              const fresh = host.udpOpen({ local: LOOPBACK });
              host.watch(fresh, READABLE, () => told.push(-fresh));
            }
            resolve();
          });
        }
      });
      for (let i = 0; i < 5; i++) await turn();
      expect(told).toHaveLength(1);
    });

    it('does no harm to close twice, or to use what is closed', async () => {
      const { host } = lab;
      const first = host.udpOpen({ local: LOOPBACK });
      host.close(first);
      host.close(first);
      host.reset(first);
      const second = host.udpOpen({ local: LOOPBACK });
      host.close(first);
      expect(host.localEndpoint(second).address).toBe('127.0.0.1');
      expect(host.pendingBytes(first)).toBe(-9);
      expect(host.takeError(first)).toBe(9);
      expect(host.sendBytes(first, text('x'), 0, 1)).toBe(-9);
      expect(() => host.watch(first, READABLE, () => {})).toThrow(/Bad file descriptor/);
      expect(() => host.localEndpoint(first)).toThrow(HostIoError);
      host.setInterest(first, READABLE);
      host.shutdownWrite(first);
      await turn();
    });

    it('goes on after a listener that throws', async () => {
      const { host } = lab;
      const thrown = new Promise<unknown>((resolve) => {
        const listeners = process.listeners('uncaughtException');
        process.removeAllListeners('uncaughtException');
        process.once('uncaughtException', (error) => {
          for (const listener of listeners) process.on('uncaughtException', listener);
          resolve(error);
        });
      });
      const { client, server } = await lab.tcpPair();
      host.watch(server, READABLE, () => {
        host.close(server);
        throw new Error('a bug of the listener');
      });
      host.sendBytes(client, text('x'), 0, 1);
      expect(String(await thrown)).toContain('a bug of the listener');
      expect(await lab.receiveEnd(client)).toBeLessThanOrEqual(0);
    });
  });

  describe('the drive', () => {
    it('runs the loop after readiness, at once for tasks, and at the deadlines of timers', async () => {
      const { host } = lab;
      const loop = new Loop(new SystemClock(() => performance.now()));
      const order: string[] = [];
      host.drive(loop);
      await new Promise<void>((resolve) => {
        loop
          .timer(() => {
            order.push('timer');
            loop.post(() => {
              order.push('task of the timer');
              resolve();
            });
          })
          .armIn(2e6);
        loop.post(() => order.push('task'));
      });
      expect(order).toEqual(['task', 'timer', 'task of the timer']);
      const { client, server } = await lab.tcpPair();
      await new Promise<void>((resolve) => {
        host.watch(server, READABLE, () => {
          host.setInterest(server, 0);
          order.push('ready');
          loop.post(() => {
            order.push('turn');
            resolve();
          });
        });
        host.sendBytes(client, text('x'), 0, 1);
      });
      expect(order.slice(3)).toEqual(['ready', 'turn']);
    });

    it('moves to a nearer deadline, and forgets a cancelled one', async () => {
      const { host } = lab;
      const loop = new Loop(new SystemClock(() => performance.now()));
      host.drive(loop);
      const fired: string[] = [];
      const far = loop.timer(() => fired.push('far'));
      far.armIn(3600e9);
      const cancelled = loop.timer(() => fired.push('cancelled'));
      cancelled.armIn(1e6);
      cancelled.cancel();
      await new Promise<void>((resolve) => loop.timer(resolve).armIn(2e6));
      expect(fired).toEqual([]);
      far.cancel();
    });

    it('does not starve others: a task that posts itself for ever leaves room for the rest', async () => {
      const { host } = lab;
      const loop = new Loop(new SystemClock(() => performance.now()));
      host.drive(loop);
      let posts = 0;
      const again = (): void => {
        posts++;
        loop.post(again);
      };
      loop.post(again);
      const { client, server } = await lab.tcpPair();
      host.sendBytes(client, text('y'), 0, 1);
      expect(show(await lab.receiveAll(server, 1))).toBe('y');
      for (let i = 0; i < 10; i++) await turn();
      expect(posts).toBeGreaterThan(10);
    });
  });

  it('ends everything at shutdown, and refuses to begin anew', async () => {
    const { host } = lab;
    host.unixListen(lab.path('a'));
    host.tcpListen(LOOPBACK);
    const { server } = await lab.tcpPair();
    const udp = host.udpOpen({ local: LOOPBACK });
    host.watch(udp, READABLE, () => {});
    host.shutdown();
    host.shutdown();
    expect(host.receiveBytes(server, new Uint8Array(1), 0, 1)).toBe(-9);
    host.close(udp);
    expect(() => host.udpOpen({ local: LOOPBACK })).toThrow(HostIoError);
  });

  it('answers bad frame numbers and ranges with -EINVAL', async () => {
    const { host } = lab;
    const { client, server } = await lab.tcpPair();
    const udp = host.udpOpen({ local: LOOPBACK, remote: { address: '127.0.0.1', port: 9 } });
    const good = lab.frames('ok');
    for (const bad of [0, -16, 8, 1, 2 ** 30, -(2 ** 31), lab.pool.table.length]) {
      const frames = Int32Array.of(bad);
      expect(host.sendDatagrams(udp, frames, 0, 1)).toBe(-ERRNO.EINVAL);
      expect(host.receiveDatagrams(udp, frames, 0, 1, 0)).toBe(-ERRNO.EINVAL);
      expect(host.sendStream(client, frames, 0, 1, 0)).toBe(-ERRNO.EINVAL);
      expect(host.receiveStream(server, frames, 0, 1, 0, 10)).toBe(-ERRNO.EINVAL);
    }
    for (const [from, to] of [
      [-1, 1],
      [1, 0],
      [0, 2],
      [5, 6],
    ] as const) {
      expect(host.sendDatagrams(udp, good, from, to)).toBe(-ERRNO.EINVAL);
      expect(host.receiveDatagrams(udp, good, from, to, 0)).toBe(-ERRNO.EINVAL);
      expect(host.sendStream(client, good, from, to, 0)).toBe(-ERRNO.EINVAL);
      expect(host.receiveBytes(server, new Uint8Array(1), from, to)).toBe(-ERRNO.EINVAL);
    }
    lab.release(good);
  });
});

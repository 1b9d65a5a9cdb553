/** What only the native implementation has: datagram sockets of the unix kind, grouped UDP, descriptors, shared memory, its own kernels. */

import { closeSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as copyLayout from '../../src/core/copy-list.ts';
import { HostIoError, UnsupportedError } from '../../src/core/errors.ts';
import * as poolLayout from '../../src/core/pool.ts';
import { FramePool, GSO_SIZE, TOTAL } from '../../src/core/pool.ts';
import { loadAddon } from '../../src/host-io/addon.ts';
import * as hostIo from '../../src/host-io/host-io.ts';
import { ERRNO, FAILED, HUNG_UP, READABLE, WRITABLE } from '../../src/host-io/host-io.ts';
import { createNativeHostIo, type NativeHostIo } from '../../src/host-io/native.ts';
import { descriptorsSince, Lab, LOOPBACK, openDescriptors, pattern, show, text, turn } from './lab.ts';

const addon = loadAddon();

describe('the addon', () => {
  it('has the record layout of core/pool.ts and the constants of host-io.ts', () => {
    const mine: Record<string, unknown> = { ...poolLayout, ...copyLayout, ...hostIo };
    for (const [name, value] of Object.entries(addon.layout))
      expect([name, mine[name]]).toEqual([name, value]);
    expect(Object.keys(addon.layout).length).toBe(27);
  });

  it('is reported as missing where there is none', () => {
    expect(() => loadAddon('/nowhere')).toThrow(UnsupportedError);
    expect(() => loadAddon('/nowhere')).toThrow(/No native build was found/);
  });

  it('refuses to open without what it needs', () => {
    const open = addon.open as (...args: unknown[]) => unknown;
    const events = new Int32Array(2);
    const mailbox = new Uint8Array(20);
    for (const args of [
      [],
      [() => true],
      [() => true, events],
      [() => true, mailbox, events],
      [1, events, mailbox],
    ]) {
      expect(() => open(...args)).toThrow(TypeError);
    }
    expect(() => open(() => true, events, new Uint8Array(19))).toThrow(TypeError);
  });
});

describe('kernels', () => {
  /** RFC 1071, word by word. */
  function naiveSum(bytes: Uint8Array): number {
    let sum = 0;
    for (let i = 0; i < bytes.length; i += 2) sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0);
    while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
    return sum;
  }

  it('sum as the naive twin does, at every length and alignment', () => {
    const bytes = pattern(1024);
    for (let from = 0; from < 9; from++) {
      for (let length = 0; length < 300; length++) {
        const expected = naiveSum(bytes.slice(from, from + length));
        expect(addon.sum(bytes, from, from + length)).toBe(expected);
        expect(addon.sumPlain(bytes, from, from + length)).toBe(expected);
      }
    }
  });

  it('sum random and extreme contents', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5000 }), (bytes) => {
        expect(addon.sum(bytes, 0, bytes.length)).toBe(naiveSum(bytes));
      }),
      { numRuns: 200 },
    );
    const ones = new Uint8Array(3_000_001).fill(0xff);
    expect(addon.sum(ones, 0, ones.length)).toBe(naiveSum(ones));
    expect(addon.sumPlain(ones, 0, ones.length)).toBe(naiveSum(ones));
  });

  it('copy as set and copyWithin do', () => {
    const source = pattern(500);
    const target = new Uint8Array(600);
    expect(addon.copy(source, 100, 400, target, 50)).toBe(300);
    const expected = new Uint8Array(600);
    expected.set(source.subarray(100, 400), 50);
    expect(target).toEqual(expected);
    expect(addon.copy(source, 0, 400, source, 100)).toBe(400);
    expect(source).toEqual(Uint8Array.of(...pattern(500).subarray(0, 100), ...pattern(500).subarray(0, 400)));
  });

  it('refuse ranges outside of the arrays', () => {
    const bytes = new Uint8Array(10);
    for (const [from, to] of [
      [-1, 5],
      [0, 11],
      [6, 5],
      [Number.NaN, 5],
      [0, Number.POSITIVE_INFINITY],
    ] as const) {
      expect(addon.sum(bytes, from, to)).toBe(-ERRNO.EINVAL);
      expect(addon.copy(bytes, from, to, new Uint8Array(100), 0)).toBe(-ERRNO.EINVAL);
    }
    expect(addon.copy(bytes, 0, 10, bytes, 1)).toBe(-ERRNO.EINVAL);
    expect(addon.copy(bytes, 0, 10, new Uint16Array(10) as unknown as Uint8Array, 0)).toBe(-ERRNO.EINVAL);
  });
});

describe('native host I/O', () => {
  let lab: Lab;
  let host: NativeHostIo;

  beforeEach(() => {
    lab = new Lab(() => createNativeHostIo());
    host = lab.host as NativeHostIo;
  });

  afterEach(() => lab.end());

  describe('batches', () => {
    it('move 64 datagrams with one system call each way', async () => {
      const server = host.udpOpen({ local: LOOPBACK });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const sent = lab.frames(...Array.from({ length: 64 }, (_, i) => pattern(60 + i, i)));
      const before = host.stats();
      expect(host.sendDatagrams(client, sent, 0, 64)).toBe(64);
      const got = lab.slots(64);
      expect(host.receiveDatagrams(server, got, 0, 64, 0)).toBe(64);
      const after = host.stats();
      expect([after.sendCalls - before.sendCalls, after.receiveCalls - before.receiveCalls]).toEqual([1, 1]);
      lab.release(sent, got);
    });

    it('move equal-size runs as one (UDP_SEGMENT), and receive them as one (UDP_GRO)', async () => {
      const server = host.udpOpen({ local: LOOPBACK, gro: true });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const sent = lab.frames(...Array.from({ length: 64 }, (_, i) => pattern(i === 63 ? 40 : 64, i)));
      await lab.sendDatagrams(client, sent);
      const got = lab.slots(4, 65_536);
      expect(host.receiveDatagrams(server, got, 0, 4, 0)).toBe(1);
      expect(lab.pool.table[got[0]! + GSO_SIZE]).toBe(64);
      expect(lab.pool.table[got[0]! + TOTAL]).toBe(63 * 64 + 40);
      const all = lab.bytesOf(got[0]!);
      for (let i = 0; i < 64; i++)
        expect(all.subarray(i * 64, i * 64 + (i === 63 ? 40 : 64))).toEqual(pattern(i === 63 ? 40 : 64, i));
      // A lone datagram is no run.
      const lone = lab.frames('alone');
      await lab.sendDatagrams(client, lone);
      expect(host.receiveDatagrams(server, got, 0, 4, 0)).toBe(1);
      expect(lab.pool.table[got[0]! + GSO_SIZE]).toBe(0);
      lab.release(sent, got, lone);
    });

    it('begin a new run after 64 frames, after a shorter one, and before a longer one', async () => {
      const lengths = [...new Array(70).fill(100), 50, 100, 100, 200, 200, 10, 10];
      const server = host.udpOpen({ local: LOOPBACK, gro: true });
      const client = host.udpOpen({ remote: host.localEndpoint(server) });
      const sent = lab.frames(...lengths.map((length, i) => pattern(length, i)));
      await lab.sendDatagrams(client, sent);
      const got = lab.slots(16, 65_536);
      const count = host.receiveDatagrams(server, got, 0, 16, 0);
      const pieces: Uint8Array[] = [];
      for (let i = 0; i < count; i++) {
        const bytes = lab.bytesOf(got[i]!);
        const size = lab.pool.table[got[i]! + GSO_SIZE]! || bytes.length;
        for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
      }
      expect(pieces).toEqual(lengths.map((length, i) => pattern(length, i)));
      expect(count).toBeLessThanOrEqual(6);
      lab.release(sent, got);
    });

    it('tell a frame of too many segments by -EMSGSIZE when it is the first, and stop before it otherwise', async () => {
      const region = lab.pool.addRegion(pattern(4096));
      const { client, server } = await lab.tcpPair();
      const udp = host.udpOpen({ remote: { address: '127.0.0.1', port: 9 } });
      const frames = lab.frames('fine', pattern(200));
      let tail = frames[1]!;
      for (let i = 0; i < 1030; i++) tail = lab.pool.borrow(frames[1]!, tail, region, i, 1);
      for (const send of [
        (from: number) => host.sendDatagrams(udp, frames, from, 2),
        (from: number) => host.sendStream(client, frames, from, 2, 0),
      ]) {
        expect(send(0)).toBeGreaterThan(0);
        expect(send(1)).toBe(-ERRNO.EMSGSIZE);
      }
      expect(show(await lab.receiveAll(server, 4))).toBe('fine');
      lab.release(frames);
    });

    it('work with a pool in shared memory', async () => {
      const shared = createNativeHostIo();
      const pool = new FramePool({ shared: true, smallSlots: 8, largeSlots: 1, bareRecords: 1 });
      shared.attachPool(pool);
      const [one, two] = shared.socketPair();
      const frames = Int32Array.of(pool.from(text('shared memory')));
      expect(shared.sendStream(one, frames, 0, 1, 0)).toBe(13);
      const slots = Int32Array.of(pool.alloc(100));
      expect(shared.receiveStream(two, slots, 0, 1, 0, 100)).toBe(13);
      pool.setLength(slots[0]!, 13);
      expect(show(pool.toBytes(slots[0]!))).toBe('shared memory');
      pool.releaseAll(frames, 0, 1);
      pool.releaseAll(slots, 0, 1);
      expect(pool.free).toBe(pool.capacity);
      shared.shutdown();
    });

    it('never see a loop of segments as endless', () => {
      const frames = lab.frames('loop');
      const { table } = lab.pool;
      table[frames[0]! + poolLayout.NEXT] = frames[0]!;
      const udp = host.udpOpen({ remote: { address: '127.0.0.1', port: 9 } });
      expect(host.sendDatagrams(udp, frames, 0, 1)).toBeLessThan(0);
      table[frames[0]! + poolLayout.NEXT] = 0;
      lab.release(frames);
    });
  });

  describe('unix datagrams', () => {
    it('pass between two files, and stop at a full queue until it is read', async () => {
      const paths = [lab.path('one'), lab.path('two')] as const;
      const one = host.unixDatagramOpen({ local: paths[0] });
      expect(statSync(paths[0]).mode & 0o777).toBe(0o600);
      const two = host.unixDatagramOpen({ local: paths[1], remote: paths[0] });
      const sent = lab.frames(...Array.from({ length: 100 }, (_, i) => pattern(100 + i)));
      let done = 0;
      const got = lab.slots(100);
      let received = 0;
      let full = 0;
      while (received < 100) {
        const count = done < 100 ? host.sendDatagrams(two, sent, done, 100) : 0;
        if (count >= 0) done += count;
        else {
          expect(count).toBe(-ERRNO.EAGAIN);
          full++;
          const told = lab.ready(two, WRITABLE);
          received += host.receiveDatagrams(one, got, received, 100, 0);
          expect((await told) & WRITABLE).toBe(WRITABLE);
        }
        if (done === 100) received += host.receiveDatagrams(one, got, received, 100, 0);
      }
      expect(full).toBeGreaterThan(0);
      for (const [i, frame] of got.entries()) expect(lab.bytesOf(frame)).toEqual(pattern(100 + i));
      lab.release(sent, got);
    });

    it('refuse a far end that is not there, and leave no file behind', () => {
      const local = lab.path('local');
      expect(() => host.unixDatagramOpen({ local, remote: lab.path('none') })).toThrow(
        /No such file or directory/,
      );
      expect(() => statSync(local)).toThrow();
      expect(() => host.unixDatagramOpen({ local: 'x'.repeat(200) })).toThrow(/File name too long/);
    });

    it('take over a file that nobody serves, and no other', () => {
      const path = lab.path('left');
      const first = host.unixDatagramOpen({ local: path });
      expect(() => host.unixDatagramOpen({ local: path })).toThrow(/Address already in use/);
      // Closed behind the host's back, the descriptor leaves its file behind, as a killed process does.
      const spare = openSync('/dev/null', 'r');
      closeSync(host.fdOf(first));
      const second = host.unixDatagramOpen({ local: path });
      expect(host.localEndpoint(second).address).toBe(path);
      host.close(second);
      closeSync(spare);
    });
  });

  describe('descriptors', () => {
    it('pass beside bytes, and arrive as handles', () => {
      const [one, two] = host.socketPair();
      const memory = host.memoryFd('passed', 4096);
      const event = host.eventFd();
      expect(host.sendWithFds(one, text('two fds'), [memory, event])).toBe(7);
      const target = new Uint8Array(16);
      const { bytes, fds, excessFds } = host.receiveWithFds(two, target, 8);
      expect(show(target.subarray(0, bytes))).toBe('two fds');
      expect([fds.length, excessFds]).toEqual([2, 0]);
      const theirs = host.map(fds[0]!, 0, 4096);
      const mine = host.map(memory, 0, 4096);
      theirs[100] = 42;
      expect(mine[100]).toBe(42);
      host.signal(event);
      host.signal(event);
      expect(host.drain(fds[1]!)).toBe(2);
      expect(host.drain(event)).toBe(0);
      host.unmap(mine);
      host.unmap(theirs);
    });

    it('beyond what was asked for are closed and counted', () => {
      const [one, two] = host.socketPair();
      const events = Array.from({ length: 100 }, () => host.eventFd());
      const before = openDescriptors();
      expect(host.sendWithFds(one, text('x'), events)).toBe(1);
      const { fds, excessFds } = host.receiveWithFds(two, new Uint8Array(10), 3);
      expect([fds.length, excessFds]).toEqual([3, 97]);
      for (const handle of fds) host.close(handle);
      expect(descriptorsSince(before)).toEqual([]);
      expect(host.sendWithFds(one, text('y'), events)).toBe(1);
      expect(host.receiveWithFds(two, new Uint8Array(10), 0).excessFds).toBe(100);
      expect(descriptorsSince(before)).toEqual([]);
      expect(host.sendWithFds(one, text('z'), [one, 99_999])).toBe(-9);
      expect(host.receiveWithFds(two, new Uint8Array(10), 254).bytes).toBe(-ERRNO.EINVAL);
    });

    it('that come with plain receives are not kept', () => {
      const [one, two] = host.socketPair();
      const before = openDescriptors();
      const event = host.eventFd();
      host.sendWithFds(one, text('x'), [event]);
      host.close(event);
      expect(host.receiveBytes(two, new Uint8Array(4), 0, 4)).toBe(1);
      expect(descriptorsSince(before)).toEqual([]);
    });

    it('can be asked by ioctl, with an argument of the size that the request says', () => {
      const [one, two] = host.socketPair();
      host.sendBytes(one, text('seven'), 0, 5);
      const FIONREAD = 0x541b;
      const count = new Uint8Array(4);
      expect(host.control(two, FIONREAD, count)).toBe(0);
      expect([...count]).toEqual([5, 0, 0, 0]);
      // TUNGETIFF, an _IOR of 4 bytes here.
      expect(host.control(two, 0x800454d2, new Uint8Array(3))).toBe(-22);
      expect(host.control(two, 0x800454d2)).toBe(-22);
      expect(host.control(two, 0x800454d2, new Uint8Array(4))).toBe(-25);
      expect(host.control(99, FIONREAD, count)).toBe(-9);
    });

    it('of other origin can be adopted, and are then closed with their handle', () => {
      const fd = openSync('/dev/zero', 'r+');
      const handle = host.adopt(fd);
      expect(host.fdOf(handle)).toBe(fd);
      const target = new Uint8Array(4).fill(1);
      expect(host.receiveBytes(handle, target, 0, 4)).toBe(4);
      expect([...target]).toEqual([0, 0, 0, 0]);
      const frames = lab.frames('into nothing');
      expect(host.sendStream(handle, frames, 0, 1, 0)).toBe(12);
      host.close(handle);
      expect(() => statSync(`/proc/self/fd/${fd}`)).toThrow();
      expect(() => host.adopt(123_456)).toThrow(/Bad file descriptor/);
      lab.release(frames);
    });

    it('an eventfd is told as readable', async () => {
      const event = host.eventFd();
      const told = lab.ready(event, READABLE);
      host.signal(event);
      expect(await told).toBe(READABLE);
      expect(host.drain(event)).toBe(1);
    });

    it('hardening: 10,000 openings and closings leave nothing and keep handles small', () => {
      const before = openDescriptors();
      let largest = 0;
      for (let i = 0; i < 10_000; i++) {
        const handle =
          i % 3 === 0
            ? host.eventFd()
            : i % 3 === 1
              ? host.udpOpen({ family: 4 })
              : host.unixDatagramOpen({});
        host.watch(handle, READABLE, () => {});
        if (i % 2 === 0) host.close(handle);
        else host.reset(handle);
        largest = Math.max(largest, handle & 0xffff);
        expect(handle).toBeGreaterThan(0);
      }
      expect(largest).toBeLessThan(64);
      expect(host.stats().openHandles).toBe(0);
      expect(descriptorsSince(before)).toEqual([]);
    });
  });

  describe('shared memory', () => {
    it('is mapped at any offset, read-only if so wished, and emptied by unmap', () => {
      const memory = host.memoryFd('ram', 16_384);
      const whole = host.map(memory, 0, 16_384);
      whole.set(pattern(16_384));
      const part = host.map(memory, 5000, 3000, false);
      expect(part).toEqual(pattern(16_384).subarray(5000, 8000));
      whole[5000] = 99;
      expect(part[0]).toBe(99);
      host.unmap(part);
      expect(part.length).toBe(0);
      host.unmap(part);
      host.unmap(whole);
      expect(whole.length).toBe(0);
      expect(() => host.map(memory, 0, 16_385)).toThrow(HostIoError);
      expect(() => host.map(memory, 16_384, 1)).toThrow(HostIoError);
      expect(() => host.map(memory, 0, 0)).toThrow(HostIoError);
      expect(() => host.map(99, 0, 1)).toThrow(/Bad file descriptor/);
      host.unmap(new Uint8Array(5));
    });

    it('cannot be cut short where it was made here', () => {
      const memory = host.memoryFd('sealed', 8192);
      expect(() => ftruncateSync(host.fdOf(memory), 0)).toThrow(/EPERM/);
    });

    it('hardening: a file cut short under a mapping reads as zeros, in JavaScript and in system calls', async () => {
      const path = lab.path('ram');
      const fd = openSync(path, 'w+');
      writeSync(fd, pattern(65_536));
      const { unlinkSync } = await import('node:fs');
      unlinkSync(path);
      const ram = host.map(host.adopt(fd), 0, 65_536);
      const region = lab.pool.addRegion(ram);
      ftruncateSync(fd, 4096);
      expect(ram.subarray(0, 4096)).toEqual(pattern(65_536).subarray(0, 4096));
      expect(ram[30_000]).toBe(0);
      ram[30_000] = 7;
      expect(ram[30_000]).toBe(7);
      // Pages that only the kernel touches.
      const [one, two] = host.socketPair();
      const frames = lab.frames(pattern(200));
      lab.pool.borrow(frames[0]!, frames[0]!, region, 40_000, 1000);
      expect(host.sendStream(one, frames, 0, 1, 0)).toBe(1200);
      expect((await lab.receiveAll(two, 1200)).subarray(200)).toEqual(new Uint8Array(1000));
      const udp = host.udpOpen({ local: LOOPBACK });
      lab.pool.borrow(frames[0]!, lastSegment(frames[0]!), region, 50_000, 100);
      expect(host.sendDatagrams(udp, frames, 0, 1, host.localEndpoint(udp))).toBe(1);
      const got = lab.slots(1);
      await lab.receiveDatagrams(udp, got);
      expect(lab.bytesOf(got[0]!).subarray(200)).toEqual(new Uint8Array(1100));
      lab.release(frames, got);
      host.unmap(ram);
    });

    it('that is unmapped under a frame reads as zeros, registered or not', async () => {
      const ram = host.map(host.memoryFd('ram', 8192), 0, 8192);
      ram.fill(9);
      const region = lab.pool.addRegion(ram);
      const frames = lab.frames(pattern(200));
      lab.pool.borrow(frames[0]!, frames[0]!, region, 0, 500);
      const [one, two] = host.socketPair();
      // Not removed from the pool first: an error of the caller, and still harmless.
      host.unmap(ram);
      expect(host.sendStream(one, frames, 0, 1, 0)).toBe(700);
      expect((await lab.receiveAll(two, 700)).subarray(200)).toEqual(new Uint8Array(500));
      lab.pool.removeRegion(region);
      expect(host.sendStream(one, frames, 0, 1, 200)).toBe(500);
      expect(await lab.receiveAll(two, 500)).toEqual(new Uint8Array(500));
      lab.release(frames);
    });

    function lastSegment(frame: number): number {
      const { table } = lab.pool;
      while (table[frame + poolLayout.NEXT] !== 0) frame = table[frame + poolLayout.NEXT]!;
      return frame;
    }
  });

  describe('readiness', () => {
    it('is delivered for many handles in one wake-up', async () => {
      const { server } = await lab.tcpPair();
      host.close(server);
      const events = Array.from({ length: 40 }, () => host.eventFd());
      let told = 0;
      const before = host.stats().wakeups;
      await new Promise<void>((resolve) => {
        for (const event of events) {
          host.watch(event, READABLE, () => {
            host.drain(event);
            if (++told === 40) resolve();
          });
          host.signal(event);
        }
      });
      // None, where this test went on from within a wake-up, which takes in what came meanwhile.
      expect(host.stats().wakeups - before).toBeLessThanOrEqual(1);
    });

    it('of a hang-up with interest 0 is told once, and does not spin', async () => {
      const { client, server } = await lab.tcpPair();
      let told = 0;
      host.watch(server, 0, (bits) => {
        expect(bits & (FAILED | HUNG_UP)).not.toBe(0);
        told++;
      });
      host.reset(client);
      while (told === 0) await turn();
      const before = host.stats().wakeups;
      for (let i = 0; i < 20; i++) await turn();
      expect(told).toBe(1);
      expect(host.stats().wakeups).toBe(before);
    });

    it('can end the host from within a listener', async () => {
      const other = createNativeHostIo();
      const event = other.eventFd();
      await new Promise<void>((resolve) => {
        other.watch(event, READABLE, () => {
          other.shutdown();
          resolve();
        });
        other.signal(event);
      });
      await turn();
      expect(other.drain(event)).toBe(-9);
    });

    it('with busy polling arrives as well, and idleness looks no more', async () => {
      const polling = createNativeHostIo({ busyPollNs: 50_000 });
      const [one, two] = polling.socketPair();
      let rounds = 0;
      await new Promise<void>((resolve) => {
        const bounce = (from: number, limit: number) => () => {
          const target = new Uint8Array(8);
          const got = polling.receiveBytes(from, target, 0, 8);
          if (got <= 0) return;
          if (++rounds === limit) resolve();
          else polling.sendBytes(from, target, 0, got);
        };
        polling.watch(one, READABLE, bounce(one, 2000));
        polling.watch(two, READABLE, bounce(two, 2000));
        polling.sendBytes(one, text('ball'), 0, 4);
      });
      for (let i = 0; i < 5; i++) await turn();
      const { busyPolls, pollCalls } = polling.stats();
      for (let i = 0; i < 50; i++) await turn();
      expect(polling.stats().busyPolls).toBe(busyPolls);
      expect(polling.stats().pollCalls).toBe(pollCalls);
      expect(() => polling.busyPoll(-1)).toThrow();
      expect(() => polling.busyPoll(2e6)).toThrow();
      polling.shutdown();
    });
  });

  describe('what the network says', () => {
    /** An error about a datagram to a port that nobody has. */
    async function refused(address: string): Promise<Uint8Array> {
      const probe = host.udpOpen({ local: { address, port: 0 } });
      const remote = host.localEndpoint(probe);
      host.close(probe);
      const handle = host.udpOpen({ remote, networkErrors: true });
      const error = new Uint8Array(hostIo.NETWORK_ERROR_BYTES);
      expect(host.networkError(handle, error)).toBe(false);
      const frames = lab.frames('is there anybody?');
      expect(host.sendDatagrams(handle, frames, 0, 1)).toBe(1);
      lab.release(frames);
      expect((await lab.ready(handle, READABLE)) & FAILED).toBe(FAILED);
      expect(host.networkError(handle, error)).toBe(true);
      // Taking it clears the error of the socket as well.
      expect(host.networkError(handle, new Uint8Array(hostIo.NETWORK_ERROR_BYTES))).toBe(false);
      expect(host.takeError(handle)).toBe(0);
      return error;
    }
    const parts = (error: Uint8Array, addressBytes: number) => ({
      what: [...error.subarray(0, 3)],
      from: show(hexOf(error.subarray(hostIo.NETWORK_ERROR_FROM, hostIo.NETWORK_ERROR_FROM + addressBytes))),
      about: show(
        hexOf(error.subarray(hostIo.NETWORK_ERROR_ABOUT, hostIo.NETWORK_ERROR_ABOUT + addressBytes)),
      ),
      quote: show(error.subarray(hostIo.NETWORK_ERROR_QUOTE, hostIo.NETWORK_ERROR_QUOTE + error[3]!)),
    });
    const hexOf = (bytes: Uint8Array): Uint8Array => text(Buffer.from(bytes).toString('hex'));

    it('is kept for a UDP socket that asks, with who said it and about what', async () => {
      expect(parts(await refused('127.0.0.1'), 4)).toEqual({
        what: [3, 3, 4],
        from: '7f000001',
        about: '7f000001',
        quote: 'is there anybody?',
      });
      const loopback6 = '00000000000000000000000000000001';
      expect(parts(await refused('::1'), 16)).toEqual({
        what: [1, 4, 6],
        from: loopback6,
        about: loopback6,
        quote: 'is there anybody?',
      });
    });

    it('hop limits are set and taken back, of open sockets alone', async () => {
      const handle = host.udpOpen({ remote: { address: '127.0.0.1', port: 9 } });
      for (const hops of [1, 255, 0]) expect(host.setHopLimit(handle, hops)).toBe(0);
      for (const hops of [-1, 256]) expect(host.setHopLimit(handle, hops)).toBe(-ERRNO.EINVAL);
      const { client } = await lab.tcpPair();
      expect(host.setHopLimit(client, 3)).toBe(0);
      expect(host.setHopLimit(client, 0)).toBe(0);
      host.close(handle);
      expect(host.setHopLimit(handle, 1)).toBe(-ERRNO.EBADF);
      expect(host.networkError(handle, new Uint8Array(hostIo.NETWORK_ERROR_BYTES))).toBe(false);
      const listener = host.tcpListen(LOOPBACK);
      const far = host.tcpConnect(host.localEndpoint(listener), { hopLimit: 5 });
      await lab.ready(far, WRITABLE);
      expect(host.takeError(far)).toBe(0);
    });
  });

  it('keeps two hosts in one process apart', async () => {
    const other = createNativeHostIo();
    const otherPool = new FramePool({ smallSlots: 4, largeSlots: 1, bareRecords: 1 });
    other.attachPool(otherPool);
    const mine = host.udpOpen({ local: LOOPBACK });
    const theirs = other.udpOpen({ remote: host.localEndpoint(mine) });
    const frames = Int32Array.of(otherPool.from(text('hello over there')));
    expect(other.sendDatagrams(theirs, frames, 0, 1)).toBe(1);
    const got = lab.slots(1);
    await lab.receiveDatagrams(mine, got);
    expect(show(lab.bytesOf(got[0]!))).toBe('hello over there');
    // A number of the larger pool is no frame of the smaller one.
    expect(other.sendDatagrams(theirs, Int32Array.of(16 * 400), 0, 1)).toBe(-ERRNO.EINVAL);
    otherPool.releaseAll(frames, 0, 1);
    lab.release(got);
    other.shutdown();
    expect(() => host.attachPool(otherPool)).toThrow(/one pool/);
  });
});

/** Bad messages, bad rings and bad memory: an error reply or the end of the connection, nothing left open, and the next front-end is served. */
import { ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Bench, openDescriptors } from './bench.ts';
import {
  concat,
  F_EVENT_IDX,
  F_PACKED,
  F_VERSION_1,
  FrontEnd,
  fields,
  GUEST,
  RAM_BYTES,
  RING_SIZE,
  region,
  state,
  USER,
  u64,
} from './front-end.ts';

const EINVAL = 22;
const EEXIST = 17;

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.end());

function put(frontEnd: FrontEnd, index: number, slot: number): void {
  const { ram } = frontEnd;
  const at = ram.allocate(12 + 60);
  ram.bytes.fill(0xff, ram.offset(at) + 12, ram.offset(at) + 18);
  frontEnd.rings[index]!.putRead(slot, at, 12, at + 12, 60);
}

/** A new front-end is served. */
async function works(): Promise<void> {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  await frontEnd.addRing(1, 0n);
  const before = bench.peer.frames.length;
  put(frontEnd, 1, 0);
  frontEnd.kick(1);
  await bench.until(() => bench.peer.frames.length === before + 1);
  frontEnd.close();
  await bench.until(() => !bench.backend.connected);
}

const addresses = (
  index: number,
  descriptors: number,
  used: number,
  available: number,
  flags = 0,
): Uint8Array => fields([index, 4], [flags, 4], [descriptors, 8], [used, 8], [available, 8], [0, 8]);

describe('hardening 55', () => {
  test('a header of another version, a reply, and a payload without end end the connection', async () => {
    for (const [flags, size] of [
      [0, 0],
      [2, 0],
      [5, 0],
      [1, 4097],
      [1, 0xffffffff],
    ] as const) {
      const frontEnd = bench.connect();
      frontEnd.send(1, undefined, { flags, size });
      expect(await frontEnd.receive()).toBeNull();
      frontEnd.close();
    }
    await works();
  });

  test('every request of a wrong length is refused', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    const lengths: Record<number, number> = { 2: 8, 5: 8, 8: 8, 9: 40, 10: 8, 12: 8, 13: 8, 14: 8, 16: 8 };
    Object.assign(lengths, { 18: 8, 19: 8, 20: 8, 37: 40, 38: 40, 39: 8 });
    for (const [request, bytes] of Object.entries(lengths)) {
      for (const length of [0, 1, bytes - 1, bytes + 1]) {
        expect(await frontEnd.call(Number(request), new Uint8Array(length))).toBe(EINVAL);
      }
    }
    frontEnd.close();
    await works();
  });

  test('an unknown request, and one that was not negotiated, is told as not supported', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    for (const request of [0, 21, 24, 25, 28, 41, 999, 0xffffffff]) {
      expect(await frontEnd.call(request)).toBe(95);
    }
    frontEnd.close();
    await works();
  });

  test('without REPLY_ACK what fails ends the connection', async () => {
    const frontEnd = bench.connect();
    frontEnd.send(8, state(0, 0));
    expect(await frontEnd.receive()).toBeNull();
    frontEnd.close();
    await works();
  });

  test('features and protocol features that were not offered are refused', async () => {
    const frontEnd = bench.connect();
    const offered = await frontEnd.getU64(1);
    await frontEnd.begin(0n);
    for (let bit = 0n; bit < 64n; bit++) {
      if ((offered & (1n << bit)) !== 0n) continue;
      expect(await frontEnd.call(2, u64(F_VERSION_1 | (1n << bit)))).toBe(EINVAL);
    }
    const protocol = await frontEnd.getU64(15);
    for (let bit = 0n; bit < 64n; bit++) {
      if ((protocol & (1n << bit)) === 0n)
        expect(await frontEnd.call(16, u64(protocol | (1n << bit)))).toBe(EINVAL);
    }
  });

  test('rings that are not there, and numbers that no ring can have', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    for (const index of [2, 3, 255, 256, 0x7fffffff, 0xffffffff]) {
      for (const request of [8, 10, 18]) expect(await frontEnd.call(request, state(index, 1))).toBe(EINVAL);
      expect(await frontEnd.call(9, addresses(index, USER, USER, USER))).toBe(EINVAL);
      expect(await frontEnd.call(12, u64(index | 0x100))).toBe(index === 256 ? 0 : EINVAL);
    }
    for (const size of [0, 32_769, 0xffffffff]) expect(await frontEnd.call(8, state(0, size))).toBe(EINVAL);
    expect(await frontEnd.call(18, state(0, 2))).toBe(EINVAL);
    expect(await frontEnd.call(9, addresses(0, USER, USER, USER, 2))).toBe(EINVAL);
    // A ring that has no base to tell: there is no error reply.
    frontEnd.send(11, state(7, 0));
    expect(await frontEnd.receive()).toBeNull();
    frontEnd.close();
    await works();
  });

  test('hardening 27: what a running ring is cannot be changed', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    const ring = await frontEnd.addRing(1, 0n);
    expect(await frontEnd.call(8, state(1, RING_SIZE * 2))).toBe(EINVAL);
    expect(await frontEnd.call(10, state(1, 5))).toBe(EINVAL);
    expect(await frontEnd.call(9, addresses(1, USER, USER, USER))).toBe(EINVAL);
    expect(await frontEnd.call(2, u64(F_VERSION_1 | F_PACKED))).toBe(EINVAL);
    expect(
      await frontEnd.call(
        9,
        addresses(1, frontEnd.user(ring.descriptors), frontEnd.user(ring.device), frontEnd.user(ring.driver)),
      ),
    ).toBe(0);
    put(frontEnd, 1, 0);
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 1);
  });

  test('rings outside memory or out of line are refused when they are to start', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    await frontEnd.ok(8, state(0, 256));
    await frontEnd.ok(12, u64(0x100));
    await frontEnd.ok(18, state(0, 1));
    for (const [descriptors, used, available] of [
      [0, 0, 0],
      [USER + RAM_BYTES, USER, USER],
      [USER, USER - 4096, USER],
      [USER + 8, USER, USER],
      [USER, USER + 2, USER],
      [USER, USER, USER + 1],
      [GUEST, GUEST, GUEST],
      [2 ** 53 - 16, 2 ** 53 - 16, 2 ** 53 - 16],
    ] as const) {
      expect(await frontEnd.call(9, addresses(0, descriptors, used, available))).toBe(EINVAL);
    }
    // A size that is no power of two, for a split ring.
    await frontEnd.ok(8, state(0, 100));
    expect(await frontEnd.call(9, addresses(0, USER, USER + 8192, USER + 4096))).toBe(EINVAL);
    expect(bench.backend.ringStats.starts).toBe(0);
  });

  test('regions that are misshapen, too long for their file, no file, or in the way of another are refused', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    const { ramFd } = frontEnd;
    const add = (place: Uint8Array, fds = [ramFd]): Promise<number> =>
      frontEnd.call(37, concat(u64(0), place), fds);
    const top = 0xffffffffffffffffn;
    for (const place of [
      region(0, 0, 0, 0),
      region(0, RAM_BYTES, 0x1000, 4096),
      region(0, RAM_BYTES + 4096, 0x1000, 0),
      region(0, 4096, 0x1000, RAM_BYTES),
      region(0, 4096, 0x1000, top - 4095n),
      region(0, top - 4095n, 0x1000, 0),
      region(top - 4095n, 8192, 0x1000, 0),
      region(0, 8192, top - 4095n, 0),
      region(100, 4096, 0x1000, 0),
      region(0, 4096, 0x1000, 100),
      region(0, 100, 0x1000, 0),
    ]) {
      expect(await add(place)).toBe(EINVAL);
    }
    expect(await add(region(GUEST + 4096, 4096, 0x1000, 0))).toBe(EEXIST);
    expect(await add(region(0, 4096, USER, 0))).toBe(EEXIST);
    expect(await add(region(0, 4096, 0x1000, 0), [])).toBe(EINVAL);
    expect(await add(region(0, 4096, 0x1000, 0), [frontEnd.kicks[0] ?? bench.clientIo.eventFd()])).toBe(
      EINVAL,
    );
    expect(bench.host.memory.ranges.length).toBe(1);
    // A table with a count that its bytes and descriptors do not bear out.
    for (const [count, places, fds] of [
      [2, 1, 1],
      [1, 2, 1],
      [1, 1, 2],
      [0xffffffff, 1, 1],
      [9, 9, 8],
    ] as const) {
      const bytes = concat(
        fields([count, 4], [0, 4]),
        ...Array.from({ length: places }, (_, i) => region(i * 4096, 4096, i * 4096, i * 4096)),
      );
      expect(await frontEnd.call(5, bytes, new Array(fds).fill(ramFd))).toBe(EINVAL);
    }
    expect(bench.host.memory.ranges.length).toBe(1);
    const twice = concat(fields([2, 4], [0, 4]), region(0, 4096, 0, 0), region(0, 4096, 0, 0));
    expect(await frontEnd.call(5, twice, [ramFd, ramFd])).toBe(EEXIST);
  });

  test('descriptors where none belong, too many of them, and kicks that are no eventfds are closed and refused', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    const before = bench.handles;
    const { ramFd } = frontEnd;
    expect(await frontEnd.call(8, state(0, 64), [ramFd])).toBe(EINVAL);
    expect(await frontEnd.call(12, u64(0), [ramFd, ramFd])).toBe(EINVAL);
    expect(await frontEnd.call(12, u64(0x100), [ramFd])).toBe(EINVAL);
    expect(await frontEnd.call(12, u64(0))).toBe(EINVAL);
    for (const request of [12, 13, 14]) expect(await frontEnd.call(request, u64(0), [ramFd])).toBe(EINVAL);
    expect(await frontEnd.call(999, u64(0), [ramFd])).toBe(95);
    expect(await frontEnd.call(3, undefined, new Array(20).fill(ramFd))).toBe(EINVAL);
    expect(bench.handles).toBe(before);
    // Half a message with descriptors, and then nothing more.
    frontEnd.send(5, new Uint8Array(4), { size: 40, fds: [ramFd, ramFd] });
    frontEnd.close();
    await bench.until(() => !bench.backend.connected);
    await works();
  });

  test('the number of descriptors stays flat over 10,000 messages', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    await frontEnd.addRing(1, 0n);
    const table = concat(fields([1, 4], [0, 4]), region(GUEST, RAM_BYTES, USER, 0));
    const extra = concat(u64(0), region(0, 4096, 0x1000, 0));
    const { ramFd, calls, kicks } = frontEnd;
    const round = async (): Promise<void> => {
      await frontEnd.ok(5, table, [ramFd]);
      await frontEnd.ok(37, extra, [ramFd]);
      expect(await frontEnd.call(37, extra, [ramFd])).toBe(EEXIST);
      await frontEnd.ok(38, extra, [ramFd]);
      await frontEnd.ok(12, u64(1), [kicks[1]!]);
      await frontEnd.ok(13, u64(1), [calls[1]!]);
      await frontEnd.ok(14, u64(0), [calls[1]!]);
      expect(await frontEnd.call(13, u64(9), [calls[1]!])).toBe(EINVAL);
      expect(await frontEnd.call(2, u64(0), [calls[1]!, ramFd])).toBe(EINVAL);
      expect(await frontEnd.call(12, u64(0), [ramFd])).toBe(EINVAL);
    };
    await round();
    const [handles, descriptors] = [bench.handles, openDescriptors()];
    for (let i = 0; i < 1000; i++) await round();
    expect(bench.handles).toBe(handles);
    expect(openDescriptors()).toBe(descriptors);
    expect(bench.backend.wireStats.messages).toBeGreaterThan(10_000);
    put(frontEnd, 1, 0);
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 1);
  });
});

test('hardening 55: any bytes, in any pieces, never throw, and leave nothing open', async () => {
  const random = (seed: number) => {
    let x = seed;
    return (below: number): number => {
      x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((x / 2 ** 32) * below);
    };
  };
  for (let seed = 1; seed <= 60; seed++) {
    const next = random(seed);
    const frontEnd = bench.connect();
    if (seed % 2 === 0) await frontEnd.begin(0n);
    for (let i = 0; i < 40 && !frontEnd.ended; i++) {
      const bytes = Uint8Array.from({ length: next(4) === 0 ? next(200) : 8 }, () =>
        next(3) === 0 ? next(256) : 0,
      );
      const fds = Array.from({ length: next(3) }, () => frontEnd.ramFd);
      try {
        frontEnd.send(next(45), bytes, { fds, flags: 9 });
      } catch {
        // The back-end has closed.
        break;
      }
    }
    frontEnd.close();
  }
  await works();
});

describe.each([
  ['split', 0n],
  ['packed', F_PACKED],
] as const)('%s rings that break the rules', (_kind, features) => {
  /** Writes descriptor `index` of ring 1 and makes it, or head 0, available. */
  function offer(frontEnd: FrontEnd, address: number, bytes: number, flags: number, next = 0): void {
    const { ram } = frontEnd;
    const ring = frontEnd.rings[1]!;
    const view = new DataView(ram.bytes.buffer);
    const at = ram.offset(ring.descriptors);
    view.setBigUint64(at, BigInt(address), true);
    view.setUint32(at + 8, bytes, true);
    if (features === 0n) {
      view.setUint16(at + 12, flags, true);
      view.setUint16(at + 14, next, true);
      const driver = ram.offset(ring.driver);
      view.setUint16(driver + 4, 0, true);
      view.setUint16(driver + 2, 1, true);
    } else {
      view.setUint16(at + 12, 0, true);
      view.setUint16(at + 14, flags | 0x80, true);
    }
    bench.clientIo.signal(frontEnd.kicks[1]!);
  }

  const cases: readonly [string, number, number, number, number][] = [
    ['hardening 12: a buffer outside memory', 0x1000, 100, 0, 0],
    ['hardening 12: a buffer that leaves memory', GUEST + RAM_BYTES - 50, 100, 0, 0],
    ['hardening 24: a chain that loops', GUEST, 100, 1, 0],
    ['hardening 24: a next outside the ring', GUEST, 100, 1, RING_SIZE],
    ['hardening 28: an indirect table without negotiation', GUEST, 32, 4, 0],
    ['a descriptor without bytes', GUEST, 0, 0, 0],
  ];
  test.each(cases)('%s', async (name, address, bytes, flags, next) => {
    const frontEnd = bench.connect();
    await frontEnd.begin(features);
    await frontEnd.addRing(1, features);
    if (features !== 0n && (flags & 1) !== 0) {
      // In a packed ring a chain goes on in the next place: one without an end is as long as the ring.
      const { ram } = frontEnd;
      const view = new DataView(ram.bytes.buffer);
      for (let i = 0; i < RING_SIZE; i++) {
        const at = ram.offset(frontEnd.rings[1]!.descriptors) + 16 * i;
        view.setBigUint64(at, BigInt(GUEST), true);
        view.setUint32(at + 8, 100, true);
        view.setUint16(at + 14, 0x81, true);
      }
    }
    offer(frontEnd, address, bytes, flags, next);
    await bench.until(() => bench.device.stats.brokenRings === 1);
    expect(bench.clientIo.drain(frontEnd.errors[1]!), name).toBe(1);
    expect(bench.peer.frames.length).toBe(0);
    // It recovers when the front-end has stopped the ring, and laid it anew.
    await frontEnd.get(11, state(1, 0));
    await frontEnd.addRing(1, features);
    put(frontEnd, 1, 0);
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 1);
  });

  test('hardening 25: more available than the ring holds', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(features);
    await frontEnd.addRing(1, features);
    if (features === 0n) {
      const { ram } = frontEnd;
      new DataView(ram.bytes.buffer).setUint16(ram.offset(frontEnd.rings[1]!.driver) + 2, 5000, true);
      bench.clientIo.signal(frontEnd.kicks[1]!);
      await bench.until(() => bench.device.stats.brokenRings === 1);
    } else {
      // Held buffers stay in flight: a lap that comes round to them offers more than there are.
      bench.peer.hold = true;
      const { ram } = frontEnd;
      const view = new DataView(ram.bytes.buffer);
      const lap = (flags: number): void => {
        for (let i = 0; i < RING_SIZE; i++) {
          const at = ram.offset(frontEnd.rings[1]!.descriptors) + 16 * i;
          view.setBigUint64(at, BigInt(GUEST + (8 << 20)), true);
          view.setUint32(at + 8, 4000, true);
          view.setUint16(at + 12, i, true);
          view.setUint16(at + 14, flags, true);
        }
        bench.clientIo.signal(frontEnd.kicks[1]!);
      };
      lap(0x80);
      await bench.until(() => bench.peer.held.length === RING_SIZE);
      lap(0x8000);
      const { kicks } = bench.backend.ringStats;
      await bench.until(() => bench.backend.ringStats.kicks > kicks);
      expect(bench.peer.held.length).toBe(RING_SIZE);
      bench.peer.letGo();
    }
  });
});

test('hardening 26: kicks of rings that are not served do nothing', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  await frontEnd.addRing(1, 0n);
  await frontEnd.ok(18, state(1, 0));
  put(frontEnd, 1, 0);
  frontEnd.kick(1);
  await bench.until(() => bench.backend.ringStats.kicks === 1);
  expect(bench.peer.frames.length).toBe(0);
  await frontEnd.ok(18, state(1, 1));
  expect(bench.peer.frames.length).toBe(1);
});

test('hardening 29: buffers too small for the header go back empty', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(F_EVENT_IDX);
  const ring = await frontEnd.addRing(0, F_EVENT_IDX);
  const at = frontEnd.ram.allocate(4096);
  ring.putWrite(0, at, 8);
  ring.putWrite(1, at + 64, 2048);
  frontEnd.kick(0);
  await bench.until(() => bench.backend.ringStats.kicks > 0);
  expect(bench.peer.send(new Uint8Array(60).fill(0xff))).toBe(true);
  expect(ring.poll()).toBe(true);
  expect([ring.usedSlot, ring.usedBytes]).toEqual([0, 0]);
  expect(ring.poll()).toBe(true);
  expect([ring.usedSlot, ring.usedBytes]).toEqual([1, 72]);
});

test('hardening 56: memory that is cut short under us reads as zeros, and the process lives', async () => {
  const file = `${bench.path}.ram`;
  const fd = openSync(file, 'w+');
  unlinkSync(file);
  ftruncateSync(fd, RAM_BYTES);
  const frontEnd = bench.connect(bench.clientIo.adopt(fd));
  await frontEnd.begin(0n);
  await frontEnd.addRing(0, 0n);
  const ring = await frontEnd.addRing(1, 0n);
  put(frontEnd, 1, 0);
  frontEnd.kick(1);
  await bench.until(() => bench.peer.frames.length === 1);
  ftruncateSync(fd, 0);
  // The ring reads as never used: what it offers is nonsense, or nothing.
  bench.clientIo.signal(frontEnd.kicks[1]!);
  const { kicks } = bench.backend.ringStats;
  await bench.until(() => bench.backend.ringStats.kicks > kicks);
  expect(bench.peer.send(new Uint8Array(60).fill(0xff))).toBe(bench.device.stats.brokenRings > 0);
  expect(ring.poll()).toBe(false);
  frontEnd.close();
  await bench.until(() => !bench.backend.connected);
  await works();
});

test('a front-end that is killed in the middle of traffic leaves nothing behind', async () => {
  for (let round = 0; round < 20; round++) {
    const frontEnd = new FrontEnd(bench.clientIo, bench.clientIo.unixConnect(bench.path));
    await frontEnd.begin(round % 2 === 0 ? 0n : F_PACKED);
    await frontEnd.addRing(1, round % 2 === 0 ? 0n : F_PACKED);
    bench.peer.hold = true;
    for (let i = 0; i < 16; i++) put(frontEnd, 1, i);
    frontEnd.kick(1);
    if (round % 3 === 0) await bench.until(() => bench.peer.held.length > 0);
    frontEnd.close();
    await bench.until(() => !bench.backend.connected);
    bench.peer.letGo();
    bench.peer.hold = false;
    expect(bench.host.memory.ranges).toEqual([]);
    expect(bench.handles).toBe(1);
  }
  await works();
});

/** The log of written pages that a live migration copies by: what is marked, when, and what is no log. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Bench } from './bench.ts';
import {
  F_MRG_RXBUF,
  F_PACKED,
  F_PROTOCOL,
  F_VERSION_1,
  type FrontEnd,
  fields,
  GUEST,
  u64,
} from './front-end.ts';

const PAGE = 4096;
const LOG_ALL = 1n << 26n;
/** Covers the guest's RAM, which lies at 4 GiB. */
const LOG_BYTES = (GUEST + (16 << 20)) / PAGE / 8;
/** Where it begins in its file: no multiple of a page. */
const LOG_AT = 64;

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.end());

const FRAME = Uint8Array.from({ length: 100 }, (_, i) => (i < 6 ? 0xff : i));

/** Hands the bitmap over; returns what reads the marked pages and clears them, as offsets from the guest's RAM. */
async function giveLog(frontEnd: FrontEnd): Promise<() => number[]> {
  const { clientIo } = bench;
  const fd = clientIo.memoryFd('log', LOG_AT + LOG_BYTES);
  const bits = clientIo.map(fd, 0, LOG_AT + LOG_BYTES);
  frontEnd.send(6, fields([LOG_BYTES, 8], [LOG_AT, 8]), { fds: [fd] });
  expect((await frontEnd.receive())?.request).toBe(6);
  clientIo.close(fd);
  return () => {
    const pages: number[] = [];
    for (let i = 0; i < bits.length; i++) {
      const byte = Atomics.exchange(bits, i, 0);
      for (let n = 0; n < 8; n++) if (byte & (1 << n)) pages.push((8 * (i - LOG_AT) + n) * PAGE - GUEST);
    }
    return pages;
  };
}

function setAddresses(frontEnd: FrontEnd, index: number, flags: number): Promise<number> {
  const ring = frontEnd.rings[index]!;
  return frontEnd.call(
    9,
    fields(
      [index, 4],
      [flags, 4],
      [frontEnd.user(ring.descriptors), 8],
      [frontEnd.user(ring.device), 8],
      [frontEnd.user(ring.driver), 8],
      [ring.device, 8],
    ),
  );
}

function pagesOf(address: number, bytes: number): number[] {
  const first = Math.floor((address - GUEST) / PAGE);
  const last = Math.floor((address + bytes - 1 - GUEST) / PAGE);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * PAGE);
}

const sorted = (pages: Iterable<number>): number[] => [...new Set(pages)].sort((a, b) => a - b);

function sendToGuest(bytes: Uint8Array): void {
  const frame = bench.pool.from(bytes);
  expect(bench.peer.port.send(Int32Array.of(frame), 0, 1)).toBe(1);
}

describe.each([
  ['split', F_MRG_RXBUF],
  ['packed', F_MRG_RXBUF | F_PACKED],
])('%s', (_name, features) => {
  test('what is written to a guest that migrates is marked: its buffers and its ring, and nothing else', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(features);
    await frontEnd.addRing(0, features);
    const ring = frontEnd.rings[0]!;
    const isPacked = (features & F_PACKED) !== 0n;
    const buffers = frontEnd.ram.allocate(16 * PAGE, PAGE);
    for (let i = 0; i < 16; i++) ring.putWrite(i, buffers + i * PAGE, PAGE - 100);
    frontEnd.kick(0);
    await bench.until(() => bench.backend.ringStats.kicks > 0);
    sendToGuest(FRAME);

    const marks = await giveLog(frontEnd);
    sendToGuest(FRAME);
    expect(marks()).toEqual([]);
    const all = features | F_PROTOCOL | F_VERSION_1;
    await frontEnd.ok(2, u64(all | LOG_ALL));
    expect(await setAddresses(frontEnd, 0, 1)).toBe(0);
    marks();
    const rings = [
      ...(isPacked ? pagesOf(ring.descriptors, 16 * ring.size) : []),
      ...pagesOf(ring.device, isPacked ? 4 : 6 + 8 * ring.size),
    ];
    sendToGuest(FRAME);
    expect(marks()).toEqual(sorted([...pagesOf(buffers + 2 * PAGE, 112), ...rings]));
    // Three buffers for one frame.
    sendToGuest(new Uint8Array(9000).fill(0xff));
    expect(marks()).toEqual(sorted([3, 4, 5].flatMap((i) => pagesOf(buffers + i * PAGE, 1)).concat(rings)));
    // The ring runs on all the while, and is not to be marked when its flag is gone.
    expect(await setAddresses(frontEnd, 0, 0)).toBe(0);
    marks();
    sendToGuest(FRAME);
    expect(marks()).toEqual(
      sorted([
        ...pagesOf(buffers + 6 * PAGE, 1),
        ...(isPacked ? pagesOf(ring.descriptors, 16 * ring.size) : []),
      ]),
    );
    await frontEnd.ok(2, u64(all));
    sendToGuest(FRAME);
    expect(marks()).toEqual([]);
    expect(bench.backend.ringStats).toMatchObject({ starts: 1, stops: 0 });
  });

  test('what a stopped ring used last is marked before its base is told', async () => {
    const frontEnd = bench.connect();
    await frontEnd.begin(features);
    await frontEnd.addRing(1, features);
    const marks = await giveLog(frontEnd);
    await frontEnd.ok(2, u64(features | F_PROTOCOL | F_VERSION_1 | LOG_ALL));
    await setAddresses(frontEnd, 1, 1);
    bench.peer.hold = true;
    const ring = frontEnd.rings[1]!;
    const at = frontEnd.ram.allocate(4096, 64);
    frontEnd.ram.bytes.fill(0xff, frontEnd.ram.offset(at) + 12, frontEnd.ram.offset(at) + 4000);
    ring.putRead(0, at, 12, at + 12, 3988);
    frontEnd.kick(1);
    await bench.until(() => bench.peer.held.length === 1);
    marks();
    await frontEnd.get(11, fields([1, 4], [0, 4]));
    expect(marks().length).toBeGreaterThan(0);
    bench.peer.letGo();
  });
});

test('the eventfd of the log is signalled when something was marked', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  await frontEnd.addRing(1, 0n);
  await giveLog(frontEnd);
  const told = bench.clientIo.eventFd();
  await frontEnd.ok(7, undefined, [told]);
  await frontEnd.ok(2, u64(F_PROTOCOL | F_VERSION_1 | LOG_ALL));
  await setAddresses(frontEnd, 1, 1);
  bench.clientIo.drain(told);
  frontEnd.kick(1);
  await bench.until(() => bench.clientIo.drain(told) > 0);
  bench.clientIo.close(told);
});

test('hardening 55: a log that its file does not hold, that is no file, or that was not negotiated ends the connection', async () => {
  const { clientIo } = bench;
  const file = clientIo.memoryFd('log', 8192);
  const event = clientIo.eventFd();
  const bad: [Uint8Array, number[]][] = [
    [fields([8193, 8], [0, 8]), [file]],
    [fields([4096, 8], [4097, 8]), [file]],
    [fields([0, 8], [0, 8]), [file]],
    [fields([2n ** 64n - 1n, 8], [0, 8]), [file]],
    [fields([4096, 8], [2n ** 64n - 4096n, 8]), [file]],
    [fields([4096, 8], [0, 8]), [event]],
    [fields([4096, 8], [0, 8]), []],
    [u64(0), [file]],
  ];
  for (const [payload, fds] of bad) {
    const frontEnd = bench.connect();
    await frontEnd.begin(0n);
    frontEnd.send(6, payload, { fds });
    expect(await frontEnd.receive()).toBeNull();
    await bench.until(() => !bench.backend.connected);
  }
  const plain = bench.connect();
  await plain.getU64(1);
  plain.send(6, fields([4096, 8], [0, 8]), { fds: [file] });
  expect(await plain.receive()).toBeNull();
  await bench.until(() => !bench.backend.connected);
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  expect(await frontEnd.call(7, undefined, [file])).toBe(22);
  expect(await frontEnd.call(7)).toBe(22);
  expect(bench.handles).toBe(2);
  clientIo.close(file);
  clientIo.close(event);
});

test('marks beyond the log, and logs given again and again, do no harm', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  await frontEnd.addRing(0, 0n);
  const small = bench.clientIo.memoryFd('log', 4096);
  const at = frontEnd.ram.allocate(2048, 64);
  frontEnd.rings[0]!.putWrite(0, at, 2048);
  frontEnd.kick(0);
  await bench.until(() => bench.backend.ringStats.kicks > 0);
  await frontEnd.ok(2, u64(F_PROTOCOL | F_VERSION_1 | LOG_ALL));
  expect(await setAddresses(frontEnd, 0, 1)).toBe(0);
  for (let i = 0; i < 100; i++) {
    frontEnd.send(6, fields([4096, 8], [0, 8]), { fds: [small] });
    expect((await frontEnd.receive())?.request).toBe(6);
  }
  sendToGuest(FRAME);
  expect(bench.device.stats.rxFrames).toBe(1);
  expect(bench.host.memory.dirtyLog?.missed).toBeGreaterThan(0);
  bench.clientIo.close(small);
  frontEnd.close();
  await bench.until(() => !bench.backend.connected);
  expect(bench.host.memory.dirtyLog).toBeNull();
});

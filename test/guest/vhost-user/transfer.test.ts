/** Frames both ways over rings in shared memory, and rings that stop and go on. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { F_RING_RESET } from '../../../src/virtio/features.ts';
import { Bench } from './bench.ts';
import {
  concat,
  F_CSUM,
  F_EVENT_IDX,
  F_HOST_TSO4,
  F_INDIRECT,
  F_MRG_RXBUF,
  F_PACKED,
  type FrontEnd,
  fields,
  GUEST,
  RAM_BYTES,
  RING_SIZE,
  region,
  state,
  USER,
  u64,
} from './front-end.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.end());

function frame(tag: number, length = 100): Uint8Array {
  return Uint8Array.from({ length }, (_, i) =>
    i < 6 ? 0xff : i === 12 ? 0x88 : i === 13 ? 0xb5 : (i * 7 + tag) & 0xff,
  );
}

/** Puts one frame on a transmit ring: its header and its bytes. */
function put(
  frontEnd: FrontEnd,
  index: number,
  slot: number,
  bytes: Uint8Array,
  header = new Uint8Array(12),
): void {
  const { ram } = frontEnd;
  const at = ram.allocate(12 + bytes.length);
  ram.bytes.set(header, ram.offset(at));
  ram.bytes.set(bytes, ram.offset(at) + 12);
  frontEnd.rings[index]!.putRead(slot, at, 12, at + 12, bytes.length);
}

function postBuffers(frontEnd: FrontEnd, index: number, count: number, bytes = 2048): number {
  const at = frontEnd.ram.allocate(count * bytes, 64);
  for (let i = 0; i < count; i++) frontEnd.rings[index]!.putWrite(i, at + i * bytes, bytes);
  frontEnd.kick(index);
  return at;
}

function drained(frontEnd: FrontEnd, index: number): number[] {
  const slots: number[] = [];
  while (frontEnd.rings[index]!.poll()) slots.push(frontEnd.rings[index]!.usedSlot);
  return slots;
}

function sendToGuest(...packets: Uint8Array[]): number {
  const frames = Int32Array.from(packets.map((bytes) => bench.pool.from(bytes)));
  const taken = bench.peer.port.send(frames, 0, frames.length);
  bench.pool.releaseAll(frames, taken, frames.length);
  return taken;
}

const KINDS: readonly [string, bigint][] = [
  ['split', F_MRG_RXBUF],
  ['split, event_idx, indirect', F_MRG_RXBUF | F_EVENT_IDX | F_INDIRECT],
  ['packed', F_MRG_RXBUF | F_PACKED],
  ['packed, event_idx, indirect', F_MRG_RXBUF | F_PACKED | F_EVENT_IDX | F_INDIRECT],
];

describe.each(KINDS)('%s', (_name, features) => {
  let frontEnd: FrontEnd;
  beforeEach(async () => {
    frontEnd = bench.connect();
    await frontEnd.begin(features);
  });

  test('what the guest sends arrives, its buffers are used and it is told', async () => {
    await frontEnd.addRing(1, features);
    const slots = Math.min(frontEnd.rings[1]!.slots, 20);
    for (let round = 0; round < 5; round++) {
      bench.peer.frames.length = 0;
      frontEnd.rings[1]!.wantInterrupts(true);
      for (let i = 0; i < slots; i++) put(frontEnd, 1, i, frame(i));
      frontEnd.kick(1);
      await bench.until(() => bench.peer.frames.length === slots);
      expect(bench.peer.frames.map(({ bytes }) => bytes)).toEqual(
        Array.from({ length: slots }, (_, i) => frame(i)),
      );
      await bench.until(() => bench.clientIo.drain(frontEnd.calls[1]!) > 0);
      expect(drained(frontEnd, 1).length).toBe(slots);
    }
  });

  test('what is sent to the guest lies in its buffers, behind a header', async () => {
    await frontEnd.addRing(0, features);
    const at = postBuffers(frontEnd, 0, 32);
    await bench.until(() => bench.backend.ringStats.kicks > 0);
    for (let i = 0; i < 32; i++) expect(sendToGuest(frame(i, 60 + i))).toBe(1);
    const used = drained(frontEnd, 0);
    expect(used).toEqual(Array.from({ length: 32 }, (_, i) => i));
    const { ram } = frontEnd;
    for (let i = 0; i < 32; i++) {
      const from = ram.offset(at + i * 2048) + 12;
      expect(ram.bytes.slice(from, from + 60 + i)).toEqual(frame(i, 60 + i));
    }
    expect(bench.clientIo.drain(frontEnd.calls[0]!)).toBeGreaterThan(0);
  });

  test('a batch costs one notification, each way', async () => {
    await frontEnd.addRing(0, features);
    await frontEnd.addRing(1, features);
    postBuffers(frontEnd, 0, 32);
    await bench.until(() => bench.backend.ringStats.kicks > 0);
    bench.clientIo.drain(frontEnd.calls[0]!);
    frontEnd.rings[0]!.wantInterrupts(true);
    const batch = Int32Array.from({ length: 32 }, (_, i) => bench.pool.from(frame(i)));
    expect(bench.peer.port.send(batch, 0, 32)).toBe(32);
    expect(bench.clientIo.drain(frontEnd.calls[0]!)).toBe(1);

    frontEnd.rings[1]!.wantInterrupts(true);
    for (let i = 0; i < 20; i++) put(frontEnd, 1, i, frame(i));
    const { kicks } = bench.backend.ringStats;
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 20);
    expect(bench.backend.ringStats.kicks).toBe(kicks + 1);
    expect(bench.clientIo.drain(frontEnd.calls[1]!)).toBe(1);
  });

  test('hardening 36: frames without a buffer wait with their sender, and go on when buffers come', async () => {
    await frontEnd.addRing(0, features);
    postBuffers(frontEnd, 0, 1);
    await bench.until(() => bench.backend.ringStats.kicks > 0);
    expect(sendToGuest(frame(1), frame(2))).toBe(1);
    const before = bench.peer.ready;
    const kicks = bench.backend.ringStats.kicks;
    postBuffers(frontEnd, 0, 4);
    await bench.until(() => bench.backend.ringStats.kicks > kicks);
    expect(bench.peer.ready).toBeGreaterThan(before);
    expect(sendToGuest(frame(2))).toBe(1);
  });

  test('a long frame is lent from guest memory, and merged into several buffers on its way back', async () => {
    await frontEnd.addRing(0, features);
    await frontEnd.addRing(1, features);
    postBuffers(frontEnd, 0, 32);
    put(frontEnd, 1, 0, frame(3, 60_000));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 1);
    expect(bench.peer.frames[0]!.bytes).toEqual(frame(3, 60_000));
    expect(bench.device.stats.txBorrowed).toBe(1);
    await bench.until(() => bench.backend.ringStats.kicks > 1);
    expect(sendToGuest(frame(4, 9000))).toBe(1);
    expect(drained(frontEnd, 0).length).toBe(5);
    expect(bench.device.stats.rxMerged).toBe(1);
  });

  test('GET_VRING_BASE stops both rings where they stand, and they go on from there', async () => {
    await frontEnd.addRing(0, features);
    await frontEnd.addRing(1, features);
    postBuffers(frontEnd, 0, 32);
    await bench.until(() => bench.backend.ringStats.kicks > 0);
    for (let i = 0; i < 3; i++) sendToGuest(frame(i));
    for (let i = 0; i < 3; i++) put(frontEnd, 1, i, frame(i));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 3);
    const bases = [];
    for (const index of [0, 1]) {
      const reply = await frontEnd.get(11, state(index, 0));
      expect(reply.view.getUint32(0, true)).toBe(index);
      bases.push(reply.view.getUint32(4, true));
    }
    const packed = (features & F_PACKED) !== 0n;
    expect(bases[0]).toBe(packed ? 0x8003_8003 : 3);
    // Nobody serves the rings now.
    expect(sendToGuest(frame(9))).toBe(1);
    expect(bench.device.stats.rxDropDisabled).toBe(1);
    for (const index of [0, 1]) await frontEnd.startRing(index, bases[index]!);
    drained(frontEnd, 0);
    drained(frontEnd, 1);
    for (let i = 0; i < 29; i++) expect(sendToGuest(frame(i))).toBe(1);
    expect(drained(frontEnd, 0)).toEqual(Array.from({ length: 29 }, (_, i) => i + 3));
    for (let i = 3; i < 6; i++) put(frontEnd, 1, i, frame(i));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 6);
    expect(bench.device.stats.brokenRings).toBe(0);
  });

  test('buffers go back in order, so that their count tells which are left, unless one is held for half a ring', async () => {
    await frontEnd.addRing(1, features);
    bench.peer.hold = true;
    put(frontEnd, 1, 0, frame(0, 4000));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.held.length === 1);
    bench.peer.hold = false;
    put(frontEnd, 1, 1, frame(1));
    put(frontEnd, 1, 2, frame(2, 4000));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 3);
    expect(drained(frontEnd, 1)).toEqual([]);
    bench.peer.letGo();
    await bench.until(() => frontEnd.rings[1]!.poll());
    expect([frontEnd.rings[1]!.usedSlot, ...drained(frontEnd, 1)].sort()).toEqual([0, 1, 2]);
    expect(bench.device.stats.txOrderGivenUp).toBe(0);

    bench.peer.hold = true;
    put(frontEnd, 1, 0, frame(0, 4000));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.held.length === 1);
    bench.peer.hold = false;
    const ring = frontEnd.rings[1]!;
    const slots = ring.slots - 1;
    const before = bench.peer.frames.length;
    let back = 0;
    for (let i = 1; i <= slots; i++) put(frontEnd, 1, i, frame(i));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === before + slots);
    // A ring of chains of two has half as many of them, which is not more than half a ring.
    if (slots > RING_SIZE / 2) {
      await bench.until(() => ring.poll());
      back = 1 + drained(frontEnd, 1).length;
      expect(back).toBeGreaterThan(RING_SIZE / 2);
      expect(bench.device.stats.txOrderGivenUp).toBe(1);
    }
    bench.peer.letGo();
    await bench.until(() => {
      back += drained(frontEnd, 1).length;
      return back === slots + 1;
    });
  });

  test('a ring that stops uses what it still lends out', async () => {
    await frontEnd.addRing(1, features);
    bench.peer.hold = true;
    for (let i = 0; i < 4; i++) put(frontEnd, 1, i, frame(i, 4000));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.held.length === 4);
    expect(drained(frontEnd, 1)).toEqual([]);
    await frontEnd.get(11, state(1, 0));
    expect(drained(frontEnd, 1).sort()).toEqual([0, 1, 2, 3]);
    expect(bench.backend.ringStats.usedAtStop).toBe(4);
    bench.peer.letGo();
  });
});

test('a packed ring may be told without its used place, as DPDK does', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(F_PACKED);
  await frontEnd.addRing(1, F_PACKED, 0x8000);
  const { slots } = frontEnd.rings[1]!;
  for (let round = 1; round <= 3; round++) {
    for (let i = 0; i < slots; i++) put(frontEnd, 1, i, frame(i));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === round * slots);
    expect(drained(frontEnd, 1).length).toBe(slots);
  }
});

test('a checksum to be done and a large segment are facts of the frame', async () => {
  const features = F_CSUM | F_HOST_TSO4;
  const frontEnd = bench.connect();
  await frontEnd.begin(features);
  await frontEnd.addRing(1, features);
  const header = fields([1 | (1 << 8), 2], [54, 2], [1448, 2], [34, 2], [16, 2], [0, 2]);
  const bytes = frame(0, 20_000);
  bytes.set([0x08, 0x00, 0x45, 0, 0x4e, 0x12, 0, 0, 0, 0, 64, 6], 12);
  bytes[46] = 0x50;
  put(frontEnd, 1, 0, bytes, header);
  frontEnd.kick(1);
  await bench.until(() => bench.peer.frames.length === 1 || bench.device.stats.txDropBadHeader > 0);
  expect(bench.peer.frames[0]).toMatchObject({ gsoSize: 1448, csumStart: 34, csumOffset: 16 });
});

test('memory is mapped once: a new table keeps what it shares with the old one, and slots come and go', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  await frontEnd.addRing(1, 0n);
  const table = concat(fields([1, 4], [0, 4]), region(GUEST, RAM_BYTES, USER, 0));
  await frontEnd.ok(5, table, [frontEnd.ramFd]);
  expect(bench.backend.memoryStats).toMatchObject({ maps: 1, kept: 1, unmaps: 0 });
  const fd = bench.clientIo.memoryFd('more', 1 << 20);
  const more = concat(u64(0), region(0x10_0000, 1 << 19, 0x1000_0000, 1 << 19));
  await frontEnd.ok(37, more, [fd]);
  expect(bench.host.memory.ranges.length).toBe(2);
  expect(await frontEnd.call(37, more, [fd])).toBe(17);
  await frontEnd.ok(38, more);
  expect(await frontEnd.call(38, more)).toBe(2);
  expect(bench.host.memory.ranges.length).toBe(1);
  // The ring never stopped.
  expect(bench.backend.ringStats).toMatchObject({ starts: 1, stops: 0 });
  // Without its memory it does.
  await frontEnd.ok(5, concat(fields([1, 4], [0, 4]), region(0, 1 << 20, 0x1000, 0)), [fd]);
  expect(bench.backend.ringStats.stops).toBe(1);
  bench.clientIo.close(fd);
});

test('queue pairs are used as far as their receive rings are served', async () => {
  bench.end();
  bench = new Bench({ properties: { mq: true, queues: 2 } });
  const frontEnd = bench.connect();
  expect(await frontEnd.getU64(17)).toBe(2n);
  await frontEnd.begin(0n);
  for (const index of [0, 1, 2, 3]) await frontEnd.addRing(index, 0n);
  postBuffers(frontEnd, 0, 32);
  postBuffers(frontEnd, 2, 32);
  put(frontEnd, 3, 0, frame(1));
  frontEnd.kick(3);
  await bench.until(() => bench.peer.frames.length === 1 && bench.backend.ringStats.kicks >= 3);
  // What was sent on pair 1 is answered there.
  sendToGuest(frame(1));
  expect(drained(frontEnd, 2).length).toBe(1);
  await frontEnd.ok(18, state(2, 0));
  sendToGuest(frame(1));
  expect(drained(frontEnd, 0).length).toBe(1);
});

test('a guest that moved here is announced, and an MTU is checked', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  await frontEnd.ok(19, Uint8Array.of(0x52, 0x54, 0, 9, 8, 7, 0, 0));
  const { bytes } = bench.peer.frames[0]!;
  expect([...bytes.subarray(6, 14)]).toEqual([0x52, 0x54, 0, 9, 8, 7, 0x80, 0x35]);
  await frontEnd.ok(20, u64(9000));
  expect(bench.backend.ipMtuBytes).toBe(9000);
  expect(await frontEnd.call(20, u64(67))).toBe(22);
  expect(await frontEnd.call(20, u64(65_536))).toBe(22);
});

test('status and reset: everything but the connection and its memory is as at the beginning', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  await frontEnd.addRing(1, 0n);
  await frontEnd.ok(39, u64(7));
  expect(await frontEnd.getU64(40)).toBe(7n);
  await frontEnd.ok(34);
  expect(await frontEnd.getU64(40)).toBe(0n);
  expect(bench.backend.ringStats).toMatchObject({ starts: 1, stops: 1 });
  await frontEnd.ok(2, u64(F_MRG_RXBUF | (1n << 32n) | (1n << 30n)));
  await frontEnd.startRing(1, 0);
  expect(bench.backend.ringStats.starts).toBe(2);
});

test('a reset of single queues is not offered, though the device could: front-ends do not tell of it', async () => {
  const frontEnd = bench.connect();
  expect(bench.device.offered.has(F_RING_RESET)).toBe(true);
  expect((await frontEnd.getU64(1)) & (1n << BigInt(F_RING_RESET))).toBe(0n);
});

test('front-ends come and go, and netemu may be the one that connects', async () => {
  const first = bench.connect();
  await first.begin(0n);
  await first.addRing(1, 0n);
  expect(bench.backend.connected).toBe(true);
  first.close();
  const second = bench.connect();
  await second.begin(0n);
  await second.addRing(1, 0n);
  put(second, 1, 0, frame(5));
  second.kick(1);
  await bench.until(() => bench.peer.frames.length === 1);
  expect(bench.backend.frontEnds).toBe(2);
  bench.end();

  bench = new Bench({ listen: false });
  const listener = bench.clientIo.unixListen(bench.path);
  for (let round = 0; round < 2; round++) {
    let handle = 0;
    // A second of virtual time brings the next try.
    await bench.until(() => {
      bench.loop.runUntil(bench.clock.nowNs() + 1e9);
      handle = bench.clientIo.accept(listener);
      return handle > 0;
    });
    const frontEnd = bench.add(handle);
    await frontEnd.begin(0n);
    await frontEnd.addRing(1, 0n);
    expect(bench.backend.connected).toBe(true);
    frontEnd.close();
    await bench.until(() => !bench.backend.connected);
  }
  bench.clientIo.close(listener);
});

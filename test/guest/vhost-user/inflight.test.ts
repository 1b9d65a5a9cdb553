/**
 * What is in flight when a back-end ends without a word: the next one takes the file that notes it, sends what was not sent, fills what was not filled, and gives back what it cannot. The end
 * is staged: guest RAM and the file as they were at one moment are put back once the first session is over.
 */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openLedger, regionBytes } from '../../../src/guest/vhost-user/inflight.ts';
import type { GuestMemory } from '../../../src/pci/guest-memory.ts';
import type { Ledger } from '../../../src/virtio/tracked.ts';
import { Bench } from './bench.ts';
import {
  F_EVENT_IDX,
  F_INDIRECT,
  F_MRG_RXBUF,
  F_PACKED,
  type FrontEnd,
  fields,
  RING_SIZE,
} from './front-end.ts';

const EINVAL = 22;
let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.end());

const frame = (tag: number, length = 100): Uint8Array =>
  Uint8Array.from({ length }, (_, i) =>
    i < 6 ? 0xff : i === 12 ? 0x88 : i === 13 ? 0xb5 : (i * 7 + tag) & 0xff,
  );

const inflight = (
  length: number | bigint,
  offset: number | bigint,
  queues: number,
  size: number,
): Uint8Array => fields([length, 8], [offset, 8], [queues, 2], [size, 2], [0, 4]);

interface Area {
  fd: number;
  bytes: Uint8Array;
}

/** Asks for the file. */
async function getArea(frontEnd: FrontEnd, queues = 2, size = RING_SIZE): Promise<Area> {
  const reply = await frontEnd.get(31, inflight(0, 0, queues, size));
  const length = Number(reply.view.getBigUint64(0, true));
  expect(reply.payload.length).toBe(24);
  expect(reply.view.getBigUint64(8, true)).toBe(0n);
  expect([reply.view.getUint16(16, true), reply.view.getUint16(18, true)]).toEqual([queues, size]);
  const fd = frontEnd.received.pop()!;
  return { fd, bytes: bench.clientIo.map(fd, 0, length) };
}

const giveArea = (frontEnd: FrontEnd, { fd, bytes }: Area): Promise<void> =>
  frontEnd.ok(32, inflight(bytes.length, 0, 2, RING_SIZE), [fd]);

function put(frontEnd: FrontEnd, slot: number, bytes: Uint8Array): void {
  const { ram } = frontEnd;
  const at = ram.allocate(12 + bytes.length);
  ram.bytes.fill(0, ram.offset(at), ram.offset(at) + 12);
  ram.bytes.set(bytes, ram.offset(at) + 12);
  frontEnd.rings[1]!.putRead(slot, at, 12, at + 12, bytes.length);
}

function drained(frontEnd: FrontEnd, index: number): number[] {
  const slots: number[] = [];
  while (frontEnd.rings[index]!.poll()) slots.push(frontEnd.rings[index]!.usedSlot);
  return slots;
}

function sendToGuest(bytes: Uint8Array): void {
  const one = bench.pool.from(bytes);
  expect(bench.peer.port.send(Int32Array.of(one), 0, 1)).toBe(1);
}

const KINDS: readonly [string, bigint][] = [
  ['split', F_MRG_RXBUF | F_EVENT_IDX],
  ['split, indirect', F_MRG_RXBUF | F_INDIRECT],
  ['packed', F_MRG_RXBUF | F_PACKED],
  ['packed, indirect', F_MRG_RXBUF | F_PACKED | F_EVENT_IDX | F_INDIRECT],
];

describe.each(KINDS)('%s', (_name, features) => {
  let frontEnd: FrontEnd;
  let area: Area;
  const first = (features & F_PACKED) !== 0n ? 0x8000_8000 : 0;

  beforeEach(async () => {
    frontEnd = bench.connect();
    await frontEnd.begin(features);
    area = await getArea(frontEnd);
    await giveArea(frontEnd, area);
  });

  /** The first session ends as if it never had the time to; another one begins on the same memory. `bases`: what a front-end knows then, which is not much. */
  async function crash(indexes: readonly number[], base: (index: number) => number): Promise<void> {
    const ram = frontEnd.ram.bytes.slice();
    const noted = area.bytes.slice();
    bench.clientIo.close(frontEnd.handle);
    await bench.until(() => !bench.backend.connected);
    bench.peer.letGo();
    frontEnd.reconnect(bench.clientIo.unixConnect(bench.path));
    frontEnd.ram.bytes.set(ram);
    area.bytes.set(noted);
    await frontEnd.begin(features);
    await giveArea(frontEnd, area);
    for (const index of indexes) await frontEnd.startRing(index, base(index));
  }

  const usedIndex = (index: number): number => {
    const { ram, rings } = frontEnd;
    const at = ram.offset(rings[index]!.device);
    return (features & F_PACKED) !== 0n ? 0x8000 : ram.bytes[at + 2]! | (ram.bytes[at + 3]! << 8);
  };

  test('frames that were fetched and not sent are sent again, in order', async () => {
    await frontEnd.addRing(1, features, first);
    for (let i = 0; i < 3; i++) put(frontEnd, i, frame(i));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 3);
    expect(drained(frontEnd, 1)).toEqual([0, 1, 2]);
    bench.peer.hold = true;
    for (let i = 3; i < 8; i++) put(frontEnd, i, frame(i, 4000));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.held.length === 5);
    bench.peer.hold = false;
    await crash([1], usedIndex);
    await bench.until(() => bench.peer.frames.length === 13);
    expect(bench.peer.frames.slice(8).map(({ bytes }) => bytes)).toEqual(
      [3, 4, 5, 6, 7].map((i) => frame(i, 4000)),
    );
    expect(drained(frontEnd, 1)).toEqual([3, 4, 5, 6, 7]);
    await goesOn();
  });

  /** The transmit ring works, over more than its length, and no buffer is missing. */
  async function goesOn(): Promise<void> {
    const { slots } = frontEnd.rings[1]!;
    for (let round = 0; round < 3; round++) {
      const before = bench.peer.frames.length;
      for (let i = 0; i < slots; i++) put(frontEnd, i, frame(i));
      frontEnd.kick(1);
      await bench.until(() => bench.peer.frames.length === before + slots);
      expect(drained(frontEnd, 1).sort((a, b) => a - b)).toEqual(Array.from({ length: slots }, (_, i) => i));
    }
    expect(bench.device.stats.brokenRings).toBe(0);
  }

  test('a buffer that was held while others behind it went back is given back', async () => {
    await frontEnd.addRing(1, features, first);
    const { slots } = frontEnd.rings[1]!;
    bench.peer.hold = true;
    put(frontEnd, 0, frame(0, 4000));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.held.length === 1);
    bench.peer.hold = false;
    for (let i = 1; i < slots; i++) put(frontEnd, i, frame(i));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === slots);
    const before = drained(frontEnd, 1);
    await crash([1], usedIndex);
    // In order, all behind the first are sent again; else only the first is left, which is not.
    await bench.until(() => frontEnd.rings[1]!.poll());
    const after = [frontEnd.rings[1]!.usedSlot, ...drained(frontEnd, 1)];
    await bench.until(() => {
      after.push(...drained(frontEnd, 1));
      return before.length + after.length === slots;
    });
    expect([...before, ...after].sort((a, b) => a - b)).toEqual(Array.from({ length: slots }, (_, i) => i));
    await goesOn();
  });

  test('buffers that were fetched ahead are filled by the next one', async () => {
    await frontEnd.addRing(0, features, first);
    const buffers = frontEnd.ram.allocate(32 * 2048, 64);
    for (let i = 0; i < 32; i++) frontEnd.rings[0]!.putWrite(i, buffers + i * 2048, 2048);
    frontEnd.kick(0);
    await bench.until(() => bench.backend.ringStats.kicks > 0);
    for (let i = 0; i < 3; i++) sendToGuest(frame(i));
    expect(drained(frontEnd, 0)).toEqual([0, 1, 2]);
    await crash([0], usedIndex);
    for (let i = 3; i < 32; i++) sendToGuest(frame(i));
    expect(drained(frontEnd, 0)).toEqual(Array.from({ length: 29 }, (_, i) => i + 3));
    expect(frontEnd.ram.bytes.slice(frontEnd.ram.offset(buffers + 31 * 2048) + 12).slice(0, 100)).toEqual(
      frame(31),
    );
  });

  test('a ring that was stopped in order leaves nothing noted', async () => {
    await frontEnd.addRing(1, features, first);
    for (let i = 0; i < 5; i++) put(frontEnd, i, frame(i));
    frontEnd.kick(1);
    await bench.until(() => bench.peer.frames.length === 5);
    const base = (await frontEnd.get(11, fields([1, 4], [0, 4]))).view.getUint32(4, true);
    expect(drained(frontEnd, 1)).toEqual([0, 1, 2, 3, 4]);
    await frontEnd.startRing(1, base);
    await goesOn();
    expect(bench.peer.frames.length).toBe(5 + 3 * frontEnd.rings[1]!.slots);
  });

  test('hardening 55: any bytes in the file do no harm', async () => {
    await frontEnd.addRing(1, features, first);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 96, maxLength: 96 }), async (bytes) => {
        const base = (await frontEnd.get(11, fields([1, 4], [0, 4]))).view.getUint32(4, true);
        for (let at = 0; at < area.bytes.length; at += bytes.length)
          area.bytes.set(bytes.subarray(0, area.bytes.length - at), at);
        const region = area.bytes.length / 2;
        // As if it had been begun, or it would not be looked at.
        area.bytes.set([1, 0, RING_SIZE, 0], region + 8);
        await frontEnd.startRing(1, base);
        frontEnd.kick(1);
        expect(await frontEnd.getU64(40)).toBe(0n);
      }),
      { numRuns: 30 },
    );
  });
});

test('hardening 55: files that are none, that hold too little, and sizes that no ring has; given again and again', async () => {
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  const area = await getArea(frontEnd);
  const length = area.bytes.length;
  const handles = bench.handles;
  for (let i = 0; i < 100; i++) await giveArea(frontEnd, area);
  expect(bench.handles).toBe(handles);
  const bad: [Uint8Array, number[]][] = [
    [inflight(length, 0, 2, RING_SIZE), []],
    [inflight(length, 4096, 2, RING_SIZE), [area.fd]],
    [inflight(length + 4096, 0, 2, RING_SIZE), [area.fd]],
    [inflight(length, 0, 3, RING_SIZE), [area.fd]],
    [inflight(length, 0, 2, 4 * RING_SIZE), [area.fd]],
    [inflight(length, 0, 0, RING_SIZE), [area.fd]],
    [inflight(length, 0, 2, 0), [area.fd]],
    [inflight(2n ** 64n - 1n, 2n ** 63n, 2, RING_SIZE), [area.fd]],
    [new Uint8Array(16), [area.fd]],
    [new Uint8Array(25), [area.fd]],
  ];
  for (const [payload, fds] of bad) expect(await frontEnd.call(32, payload, fds)).toBe(EINVAL);
  // One that rings run on is not to be changed.
  await frontEnd.addRing(1, 0n);
  expect(await frontEnd.call(32, inflight(length, 0, 2, RING_SIZE), [area.fd])).toBe(EINVAL);
  expect(bench.handles).toBe(handles + 3);
  frontEnd.send(31, inflight(0, 0, 3, RING_SIZE));
  expect(await frontEnd.receive()).toBeNull();
  await bench.until(() => !bench.backend.connected);
  for (const [queues, size] of [
    [0, 64],
    [2, 0],
    [2, 32_769],
  ] as const) {
    const other = bench.connect();
    await other.begin(0n);
    other.send(31, inflight(0, 0, queues, size));
    expect(await other.receive()).toBeNull();
    await bench.until(() => !bench.backend.connected);
  }
  bench.clientIo.close(area.fd);
});

/** A packed ring's ledger beside a model of what it notes: chains are fetched, used and shown in any mixture, and at any step the process may be gone. */
class LedgerModel {
  readonly #size = 8;
  readonly #layout = { size: this.#size, descriptors: 0, driver: 0, device: 0 };
  readonly #region = new Uint8Array(regionBytes(this.#size));
  readonly #ledger: Ledger = this.#open(this.#region, false);
  /** In the order of fetch. */
  #chains: { id: number; slots: number; used: boolean }[] = [];
  /** Where the driver was shown the ring to be. */
  #shown = 0x8000;
  #nextId = 0;

  /** `shown`: the driver sees the last batch as used. */
  #open(region: Uint8Array, shown: boolean): Ledger {
    // Descriptors that wait have AVAIL as the lap and USED not so; used ones have both.
    const flags = (): number => ((this.#shown & 0x8000) !== 0 ? (shown ? 0x8080 : 0x80) : shown ? 0 : 0x8000);
    return openLedger(region, this.#layout, true, 0x8000, { u16: flags } as unknown as GuestMemory);
  }

  #check(shown: boolean): void {
    const next = this.#open(this.#region.slice(), shown);
    const left = this.#chains.filter(({ used }) => !(shown && used));
    expect(next.left).toMatchObject(left.map(({ id, slots }) => ({ id, slots })));
    expect(next.left.length).toBe(left.length);
    expect(next.position.used).toBe(shown ? this.#after : this.#shown);
  }

  /** Where the ring stands once all that was used is shown. */
  get #after(): number {
    const used = this.#chains.reduce((sum, chain) => sum + (chain.used ? chain.slots : 0), 0);
    const index = (this.#shown & 0x7fff) + used;
    return index < this.#size
      ? (this.#shown & 0x8000) | index
      : ((this.#shown & 0x8000) ^ 0x8000) | (index - this.#size);
  }

  fetch(slots: number): void {
    if (this.#chains.reduce((sum, chain) => sum + chain.slots, slots) > this.#size) return;
    const id = this.#nextId++;
    const descriptors = new DataView(new ArrayBuffer(16 * slots));
    for (let i = 0; i < slots; i++) descriptors.setUint16(16 * i + 12, id, true);
    this.#ledger.fetched(id, slots, descriptors);
    this.#chains.push({ id, slots, used: false });
    this.#check(false);
  }

  /** The last chain is given back. */
  unfetch(): void {
    if (this.#chains.at(-1)?.used !== false) return;
    this.#ledger.unfetched(this.#chains.pop()!.id);
    this.#check(false);
  }

  use(which: number): void {
    const waiting = this.#chains.filter(({ used }) => !used);
    const chain = waiting[which % waiting.length];
    if (chain === undefined) return;
    this.#ledger.used(chain.id);
    chain.used = true;
    this.#check(false);
  }

  publish(): void {
    if (!this.#chains.some(({ used }) => used)) return;
    const after = this.#after;
    this.#ledger.publishing(after);
    this.#check(false);
    this.#check(true);
    this.#ledger.published();
    this.#chains = this.#chains.filter(({ used }) => !used);
    this.#shown = after;
    this.#check(false);
  }
}

describe('what a packed ring notes is true at every step', () => {
  test('chains that are fetched while a batch is under way', () => {
    const model = new LedgerModel();
    for (const slots of [2, 2, 2]) model.fetch(slots);
    for (let i = 0; i < 3; i++) model.use(0);
    model.fetch(2);
    model.publish();
  });

  test('a batch as long as the ring', () => {
    const model = new LedgerModel();
    for (let lap = 0; lap < 3; lap++) {
      for (let i = 0; i < 4; i++) model.fetch(2);
      for (let i = 0; i < 4; i++) model.use(0);
      model.publish();
    }
  });

  test('any mixture', () => {
    const step = fc.record({ kind: fc.integer({ min: 0, max: 4 }), value: fc.integer({ min: 0, max: 7 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const model = new LedgerModel();
        for (const { kind, value } of steps) {
          if (kind <= 1) model.fetch(1 + (value % 3));
          else if (kind === 2) model.use(value);
          else if (kind === 3) model.publish();
          else model.unfetch();
        }
      }),
    );
  });
});

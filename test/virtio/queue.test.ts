/** The device's half of a virtqueue against the driver's, in mapped and in remote memory: every buffer comes once, whole and in order, and every notification that is owed is given. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FramePool } from '../../src/core/pool.ts';
import { GuestRam } from '../../src/guest/driver/guest-ram.ts';
import { type DriverRing, PackedDriverRing, SplitDriverRing } from '../../src/guest/driver/virtio-ring.ts';
import { GuestMemory } from '../../src/pci/guest-memory.ts';
import { ChainBatch } from '../../src/virtio/chains.ts';
import { FAULT_RING_ADDRESS } from '../../src/virtio/faults.ts';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, Features } from '../../src/virtio/features.ts';
import { isLayoutValid, openQueue, type VirtQueue } from '../../src/virtio/queue.ts';

const SIZE = 16;
const BUFFERS = 0x100000;

interface Way {
  packed: boolean;
  eventIdx: boolean;
  indirect: boolean;
  parts: 1 | 2;
  remote: boolean;
}

class Both {
  readonly ram = new GuestRam(0x10000);
  readonly memory = new GuestMemory(new FramePool({ smallSlots: 1, largeSlots: 0, bareRecords: 1 }));
  readonly driver: DriverRing;
  queue: VirtQueue;
  readonly batch = new ChainBatch();
  readonly features: Features;

  constructor(way: Way) {
    this.features = new Features([
      ...(way.packed ? [F_RING_PACKED] : []),
      ...(way.eventIdx ? [F_EVENT_IDX] : []),
      F_INDIRECT_DESC,
    ]);
    const { bytes } = this.ram;
    if (way.remote) {
      this.memory.addRemote(0, {
        length: bytes.length,
        read(offset, target, at, length) {
          target.set(bytes.subarray(offset, offset + length), at);
          return true;
        },
        write(offset, source, at, length) {
          bytes.set(source.subarray(at, at + length), offset);
          return true;
        },
      });
    } else {
      this.memory.add(0, bytes);
    }
    this.driver = way.packed
      ? new PackedDriverRing(this.ram, SIZE, way)
      : new SplitDriverRing(this.ram, SIZE, way);
    this.queue = openQueue(this.driver, this.features);
  }
}

const WAYS: Way[] = [];
for (const packed of [false, true])
  for (const eventIdx of [false, true])
    for (const [indirect, parts] of [
      [false, 1],
      [false, 2],
      [true, 2],
    ] as const)
      for (const remote of [false, true]) WAYS.push({ packed, eventIdx, indirect, parts, remote });

/** `expect` for what is asked a million times. */
function same<T>(actual: T, wanted: T): void {
  if (actual !== wanted) expect(actual).toBe(wanted);
}

describe.each(WAYS)('%j', (way) => {
  it('chains come as they were put, go back in any order, and nobody sleeps while there is work', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            put: fc.nat({ max: 9 }),
            fetch: fc.nat({ max: 9 }),
            giveBack: fc.nat({ max: 3 }),
            use: fc.nat({ max: 9 }),
            pick: fc.nat(),
            move: fc.boolean(),
          }),
          { maxLength: 60 },
        ),
        (steps) => {
          const both = new Both(way);
          const { driver, memory, batch } = both;
          const free = Array.from({ length: driver.slots }, (_, i) => i);
          const expected: number[] = [];
          const out: { id: number; slots: number; slot: number }[] = [];
          const done: number[] = [];
          let serial = 0;
          let deviceAwake = true;
          let driverAwake = true;
          driver.wantInterrupts(true);
          for (const step of steps) {
            for (let i = 0; i < step.put && free.length > 0; i++) {
              const slot = free.shift()!;
              const address = BUFFERS + 64 * serial++;
              if (way.parts === 1) driver.putWrite(slot, address, 40);
              else driver.putRead(slot, address, 12, address + 12, 28);
              expected.push(slot, address);
            }
            const hadWork = step.put > 0 && expected.length > 0;
            if (driver.publish()) deviceAwake = true;
            if (hadWork && !way.remote) same(deviceAwake || expected.length / 2 > step.put, true);
            // The device.
            const count = deviceAwake ? both.queue.fetch(memory, batch, step.fetch) : 0;
            const keep = Math.max(0, count - step.giveBack);
            for (let i = 0; i < keep; i++) {
              const slot = expected.shift()!;
              const address = expected.shift()!;
              const first = batch.first[i]!;
              same(batch.address[first], address);
              same(batch.bytes(first, batch.first[i + 1]!), 40);
              same(batch.first[i + 1]! - first, way.parts);
              same(batch.writeFrom[i], way.parts === 1 ? first : batch.first[i + 1]);
              out.push({ id: batch.id[i]!, slots: batch.slots[i]!, slot });
            }
            if (count > keep) both.queue.unfetch(batch, keep);
            if (step.move) {
              both.queue.publish(memory);
              both.queue = openQueue(driver, both.features, both.queue.position(), both.queue.inFlight);
              deviceAwake = true;
              driverAwake = true;
            }
            for (let i = 0; i < step.use && out.length > 0; i++) {
              const [chain] = out.splice(step.pick % out.length, 1);
              both.queue.push(memory, chain!.id, chain!.slots, way.parts === 1 ? 7 : 0);
              done.push(chain!.slot);
            }
            if (both.queue.publish(memory)) driverAwake = true;
            same(both.queue.fault, 0);
            same(both.queue.inFlight >= 0 && both.queue.inFlight <= SIZE, true);
            if (expected.length === 0) {
              both.queue.suppressKicks(memory);
              deviceAwake = both.queue.requestKicks(memory);
            }
            // The driver.
            if (!driverAwake) continue;
            const back: number[] = [];
            while (driver.poll()) {
              back.push(driver.usedSlot);
              same(driver.usedBytes, way.parts === 1 ? 7 : 0);
              free.push(driver.usedSlot);
            }
            same(back.join(), done.splice(0).join());
            driver.wantInterrupts(true);
            driverAwake = false;
          }
          // Nothing is left lying: what is used now wakes the driver.
          if (out.length > 0 && done.length === 0) {
            for (const { id, slots } of out.splice(0)) both.queue.push(memory, id, slots, 0);
            expect(both.queue.publish(memory)).toBe(true);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('a run of used chains is what as many single ones are', () => {
    const one = new Both(way);
    const two = new Both(way);
    const written = Int32Array.of(0, 40, 12, 0, 40, 40, 0);
    for (let lap = 0; lap < 9; lap++) {
      for (const { driver, queue, memory, batch } of [one, two]) {
        for (let slot = 0; slot < 7; slot++) {
          if (way.parts === 1) driver.putWrite(slot, BUFFERS, 40);
          else driver.putRead(slot, BUFFERS, 12, BUFFERS + 12, 28);
        }
        driver.publish();
        expect(queue.fetch(memory, batch, 64)).toBe(7);
      }
      for (let i = 0; i < 7; i++)
        one.queue.push(one.memory, one.batch.id[i]!, one.batch.slots[i]!, written[i]!);
      two.queue.pushRun(two.memory, two.batch.id, two.batch.slots, written, 0, 7);
      expect(two.queue.publish(two.memory)).toBe(one.queue.publish(one.memory));
      expect(two.queue.position()).toEqual(one.queue.position());
      expect(two.queue.inFlight).toBe(0);
      expect(Buffer.compare(two.ram.bytes, one.ram.bytes)).toBe(0);
      for (const { driver } of [one, two]) for (let i = 0; i < 7; i++) expect(driver.poll()).toBe(true);
    }
  });

  it('memory that goes away breaks the ring, and nothing is thrown', () => {
    const both = new Both(way);
    const { driver, queue, memory, batch } = both;
    driver.putWrite(0, BUFFERS, 40);
    driver.publish();
    expect(queue.fetch(memory, batch, 1)).toBe(1);
    memory.removeAll();
    queue.push(memory, batch.id[0]!, 1, 0);
    queue.publish(memory);
    queue.suppressKicks(memory);
    expect(queue.requestKicks(memory)).toBe(false);
    expect(queue.fetch(memory, batch, 1)).toBe(0);
    expect(queue.fault).toBe(FAULT_RING_ADDRESS);
  });
});

describe('layouts', () => {
  it('sizes and alignments', () => {
    const good = { size: 256, descriptors: 16, driver: 4, device: 8 };
    expect(isLayoutValid(good, false)).toBe(true);
    expect(isLayoutValid({ ...good, size: 100 }, false)).toBe(false);
    expect(isLayoutValid({ ...good, size: 100 }, true)).toBe(true);
    expect(isLayoutValid({ ...good, driver: 2 }, false)).toBe(true);
    expect(isLayoutValid({ ...good, driver: 2 }, true)).toBe(false);
    for (const bad of [{ size: 0 }, { size: 65_536 }, { descriptors: 8 }, { driver: 1 }, { device: 2 }]) {
      expect(isLayoutValid({ ...good, ...bad }, false)).toBe(false);
      expect(isLayoutValid({ ...good, ...bad }, true)).toBe(false);
    }
  });
});

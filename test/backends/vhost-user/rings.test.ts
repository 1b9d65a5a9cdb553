/** Where a ring stands whose back-end died: what is found in the ring against what the queue itself says. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { positionAfterDeath } from '../../../src/backends/vhost-user/rings.ts';
import { FramePool } from '../../../src/core/pool.ts';
import { GuestRam } from '../../../src/guest/driver/guest-ram.ts';
import { PackedDriverRing, SplitDriverRing } from '../../../src/guest/driver/virtio-ring.ts';
import { GuestMemory } from '../../../src/pci/guest-memory.ts';
import { ChainBatch } from '../../../src/virtio/chains.ts';
import { F_INDIRECT_DESC, F_RING_PACKED, F_VERSION_1, Features } from '../../../src/virtio/features.ts';
import { openQueue, type VirtQueue } from '../../../src/virtio/queue.ts';

interface Ends {
  memory: GuestMemory;
  driver: PackedDriverRing | SplitDriverRing;
  queue: VirtQueue;
}

function ends(packed: boolean, size: number, parts: 1 | 2, indirect: boolean): Ends {
  const ram = new GuestRam(1 << 20);
  const memory = new GuestMemory(new FramePool({ smallSlots: 8, largeSlots: 1, bareRecords: 8 }));
  memory.add(0, ram.bytes);
  const options = { eventIdx: false, indirect, parts };
  const driver = packed ? new PackedDriverRing(ram, size, options) : new SplitDriverRing(ram, size, options);
  const features = new Features([F_VERSION_1, F_INDIRECT_DESC, ...(packed ? [F_RING_PACKED] : [])]);
  return { memory, driver, queue: openQueue(driver, features) };
}

/** The driver puts and takes, the device fetches and uses in order; `steps` say how many of which. */
function play(
  { memory, driver, queue }: Ends,
  steps: readonly { put: number; fetch: number; use: number }[],
): void {
  const batch = new ChainBatch();
  const fetched: [number, number][] = [];
  let next = 0;
  let out = 0;
  for (const { put, fetch, use } of steps) {
    while (driver.poll()) out--;
    for (let i = 0; i < put && out < driver.slots; i++, out++) {
      const slot = next;
      next = (next + 1) % driver.slots;
      driver.putRead(slot, 0x8_0000, 12, 0x8_1000, 64);
    }
    driver.publish();
    const count = queue.fetch(memory, batch, fetch);
    for (let i = 0; i < count; i++) fetched.push([batch.id[i]!, batch.slots[i]!]);
    for (const [id, slots] of fetched.splice(0, use)) queue.push(memory, id, slots, 0);
    queue.publish(memory);
  }
}

const STEPS = fc.array(fc.record({ put: fc.nat(10), fetch: fc.nat(10), use: fc.nat(10) }), {
  minLength: 1,
  maxLength: 60,
});

test('a packed ring of single descriptors goes on from the first buffer that was not used', () => {
  fc.assert(
    fc.property(fc.constantFrom(1, 2, 3, 8, 16), STEPS, (size, steps) => {
      const both = ends(true, size, 2, true);
      play(both, steps);
      const { used } = both.queue.position();
      expect(positionAfterDeath(both.queue, both.memory)).toEqual({ avail: used, used });
    }),
  );
});

test('a split ring goes on from the used index, chains or not', () => {
  fc.assert(
    fc.property(fc.constantFrom(2, 4, 16), fc.boolean(), STEPS, (size, indirect, steps) => {
      const both = ends(false, size, 2, indirect);
      play(both, steps);
      const { used } = both.queue.position();
      expect(positionAfterDeath(both.queue, both.memory)).toEqual({ avail: used, used });
    }),
  );
});

test('a packed ring with chains is never gone on with from a wrong place', () => {
  fc.assert(
    fc.property(fc.constantFrom(4, 8, 16), STEPS, (size, steps) => {
      const both = ends(true, size, 2, false);
      play(both, steps);
      const found = positionAfterDeath(both.queue, both.memory);
      const { used } = both.queue.position();
      if (found !== null) expect(found).toEqual({ avail: used, used });
    }),
  );
});

test('a ring that lies in no memory stands nowhere', () => {
  for (const packed of [false, true]) {
    const both = ends(packed, 8, 2, true);
    both.memory.removeAll();
    expect(positionAfterDeath(both.queue, both.memory)).toBeNull();
  }
});

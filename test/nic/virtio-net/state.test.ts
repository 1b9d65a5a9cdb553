/** Save and restore: in the middle of transfers, over every kind of ring, into a device that was made anew; and states that are none. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/core/errors.ts';
import { Port } from '../../../src/core/port.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { RING_WAYS, Rig } from './rig.ts';

/** Replaces the device under the driver by a new one with the state of the old, as after a move to another process. */
function move(rig: Rig): void {
  const state = JSON.parse(JSON.stringify(rig.nic.saveState())) as unknown;
  rig.nic.close();
  const next = rig.makeNic();
  Port.connect(next.ports[0]!, rig.machine.peer.port);
  // The driver goes on with what it takes for the same device.
  rig.nic = next;
  rig.pci.nic = next;
  next.loadState(state);
  rig.machine.settle();
}

for (const [name, options] of RING_WAYS) {
  describe(`a virtio-net that moves, ${name}`, () => {
    it('goes on in the middle of traffic, and nothing is lost or sent twice', () => {
      const rig = new Rig(options);
      const { peer } = rig.machine;
      for (let round = 0; round < 6; round++) {
        peer.frames.length = 0;
        peer.limit = 3;
        const batch = new PacketBatch(30);
        for (let i = 0; i < 30; i++) {
          const length = i % 3 === 0 ? 3000 : 60 + i;
          batch.plain(i, rig.packet(length, i + round), length);
        }
        const want = Array.from({ length: 30 }, (_, i) => rig.bytesAt(batch.address[i]!, batch.length[i]!));
        expect(rig.driver.send(batch, 0, 30)).toBe(30);
        rig.machine.settle();
        expect(peer.frames.length).toBe(3);
        peer.limit = Number.POSITIVE_INFINITY;
        move(rig);
        expect(peer.frames.map((f) => f.bytes)).toEqual(want);
        expect(rig.sent).toBe(30 * (round + 1));
        for (let i = 0; i < 7; i++) {
          const frame = rig.frame(100 + i, round);
          expect(peer.send(frame)).toBe(true);
          if (i === 3) move(rig);
          rig.machine.settle();
          expect(rig.received.pop()?.bytes).toEqual(frame);
        }
      }
      rig.close();
    });

    it('uses the chains of frames that others held, once', () => {
      const rig = new Rig(options);
      rig.machine.peer.hold = true;
      rig.sendAll([3000, 60, 3000]);
      expect(rig.sent).toBe(0);
      move(rig);
      expect(rig.sent).toBe(3);
      rig.machine.peer.hold = false;
      rig.machine.peer.letGo();
      rig.machine.settle();
      expect(rig.sent).toBe(3);
      rig.expectWorks();
      rig.close();
    });
  });
}

describe('the saved state', () => {
  it('keeps filters, steering, offloads and coalescing', () => {
    const rig = new Rig({
      properties: { mq: true, queues: 2 },
      driver: {
        vlans: [5, 4000],
        multicast: [Uint8Array.of(1, 0, 0x5e, 0, 0, 9)],
        queuePairs: 2,
        take: [2, 53],
      },
    });
    expect(rig.driver.command(6, 1, Uint8Array.of(4, 0, 0, 0, 50, 0, 0, 0))).toBe(0);
    expect(rig.driver.command(5, 0, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0))).toBe(0);
    rig.machine.settle();
    const before = rig.nic.saveState();
    const filter = rig.nic.queryRxFilter('net0');
    move(rig);
    const after = rig.nic.saveState();
    expect({ ...after, transport: null }).toEqual({ ...before, transport: null });
    expect(rig.nic.queryRxFilter('net0')).toEqual(filter);
    expect(rig.nic.ports[0]!.accepts).toBe(1);
    rig.close();
  });

  it('hardening 23: a damaged state is refused by name and changes nothing, or is one that a guest could make', () => {
    const rig = new Rig({ properties: { mq: true, rss: true, queues: 2 }, driver: { queuePairs: 2 } });
    rig.machine.peer.limit = 0;
    const batch = new PacketBatch(2);
    batch.plain(0, rig.packet(60), 60);
    batch.plain(1, rig.packet(3000), 3000);
    rig.driver.send(batch, 0, 2);
    const good = JSON.parse(JSON.stringify(rig.nic.saveState())) as Record<string, unknown>;
    rig.machine.peer.limit = Number.POSITIVE_INFINITY;
    const paths: (string | number)[][] = [];
    const walk = (value: unknown, path: (string | number)[]): void => {
      paths.push(path);
      if (Array.isArray(value)) for (const i of [...value.keys()].slice(0, 8)) walk(value[i], [...path, i]);
      else if (typeof value === 'object' && value !== null)
        for (const [key, item] of Object.entries(value)) walk(item, [...path, key]);
    };
    walk(good, []);
    const junk = fc.oneof(
      fc.constantFrom(
        null,
        undefined,
        -1,
        1.5,
        2 ** 32,
        0xffff,
        65_535,
        3,
        'x',
        '',
        [],
        {},
        true,
        [1, 2],
        'ff:ff',
      ),
      fc.integer(),
    );
    let refused = 0;
    let taken = 0;
    fc.assert(
      fc.property(fc.constantFrom(...paths.filter((path) => path.length > 0)), junk, (path, value) => {
        const state = JSON.parse(JSON.stringify(good)) as Record<string | number, unknown>;
        let holder = state;
        for (const key of path.slice(0, -1)) holder = holder[key] as typeof holder;
        holder[path.at(-1)!] = value;
        const before = JSON.stringify(rig.nic.saveState());
        try {
          rig.nic.loadState(state);
          taken++;
        } catch (error) {
          expect(error).toBeInstanceOf(OptionError);
          expect(JSON.stringify(rig.nic.saveState())).toBe(before);
          refused++;
        }
        rig.machine.settle();
        rig.machine.peer.send(rig.frame(100));
        rig.machine.settle();
      }),
      { numRuns: 1500 },
    );
    expect(Math.min(refused, taken)).toBeGreaterThan(100);
    rig.nic.reset();
    rig.driver.open();
    rig.received.length = 0;
    rig.expectWorks();
    rig.close();
  });
});

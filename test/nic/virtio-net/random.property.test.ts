/**
 * Random streams of what a guest and a peer can do: registers of any kind, ring memory, kicks, commands, frames, resets, time. Whatever happens, nothing is thrown, every turn ends, no frame is lost
 * track of, and a driver that starts anew passes a frame each way.
 */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { Rig } from './rig.ts';

type Op =
  | { kind: 'register'; bar: number; offset: number; size: number; value: number }
  | { kind: 'read'; bar: number; offset: number; size: number }
  | { kind: 'config'; offset: number; size: number; value: number }
  | { kind: 'ram'; at: number; value: number }
  | { kind: 'index'; ring: number; value: number }
  | { kind: 'kick'; queue: number }
  | { kind: 'frame'; length: number; facts: number }
  | { kind: 'send'; length: number; count: number }
  | { kind: 'command'; class: number; command: number; data: number[] }
  | { kind: 'limit'; value: number }
  | { kind: 'letGo' }
  | { kind: 'time'; ns: number }
  | { kind: 'reopen' }
  | { kind: 'move' };

const value = fc.oneof(
  fc.constantFrom(0, 1, 2, 3, 4, 8, 11, 15, 64, 255, 256, 0x1000, 0x7fff, 0x8000, 0xffff, 0xffffffff),
  fc.integer({ min: 0, max: 0xffffffff }),
);
const size = fc.constantFrom(1, 2, 4, 8);
const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('register' as const),
      bar: fc.constantFrom(0, 1, 4),
      offset: fc.oneof(fc.nat({ max: 64 }), fc.constantFrom(0x1000, 0x2000, 0x2003, 0x3000, 0x3004, 0x3008)),
      size,
      value,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      bar: fc.constantFrom(0, 1, 4),
      offset: fc.nat({ max: 0x3100 }),
      size,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('config' as const), offset: fc.nat({ max: 255 }), size, value }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('ram' as const), at: fc.nat({ max: 0x4fff }), value }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('index' as const), ring: fc.nat({ max: 2 }), value }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('kick' as const), queue: fc.nat({ max: 4 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('frame' as const),
      length: fc.oneof(fc.nat({ max: 2000 }), fc.constantFrom(0, 13, 14, 59, 60, 9000, 65_549)),
      facts: fc.constantFrom(0, 0, 2),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      length: fc.constantFrom(14, 60, 1514, 3000, 60_000),
      count: fc.integer({ min: 1, max: 20 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('command' as const),
      class: fc.nat({ max: 8 }),
      command: fc.nat({ max: 6 }),
      data: fc.array(fc.nat({ max: 255 }), { maxLength: 60 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('limit' as const), value: fc.nat({ max: 40 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('letGo' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('time' as const), ns: fc.nat({ max: 1e7 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('move' as const) }) },
);

function apply(rig: Rig, op: Op, ringsAt: number, packets: number): void {
  const { machine, nic, driver } = rig;
  switch (op.kind) {
    case 'register':
      nic.writeBar(op.bar, op.offset, op.size, op.value % 2 ** (8 * op.size));
      return;
    case 'read':
      nic.readBar(op.bar, op.offset, op.size);
      return;
    case 'config':
      nic.writeConfig(op.offset, op.size, op.value % 2 ** (8 * op.size));
      return;
    case 'ram':
      machine.ram.words[(machine.ram.offset(ringsAt) >> 2) + op.at] = op.value;
      return;
    case 'index':
      machine.ram.words[(machine.ram.offset(ringsAt + 0x5000 * op.ring) >> 2) + 64 * 4] = op.value << 16;
      return;
    case 'kick':
      nic.writeBar(4, 0x3000 + 4 * op.queue, 2, op.queue);
      return;
    case 'frame':
      machine.peer.send(rig.frame(op.length), op.facts);
      return;
    case 'send': {
      const batch = new PacketBatch(op.count);
      for (let i = 0; i < op.count; i++) batch.plain(i, packets, op.length);
      driver.send(batch, 0, op.count);
      return;
    }
    case 'command':
      driver.command(op.class, op.command, Uint8Array.from(op.data));
      return;
    case 'limit':
      machine.peer.limit = op.value;
      return;
    case 'letGo':
      machine.peer.hold = !machine.peer.hold;
      machine.peer.letGo();
      machine.peer.port.ready();
      return;
    case 'time':
      rig.turns(op.ns);
      return;
    case 'reopen':
      driver.close();
      driver.open();
      return;
    case 'move':
      nic.loadState(JSON.parse(JSON.stringify(nic.saveState())));
      return;
  }
}

describe('virtio-net under random streams', () => {
  for (const packed of [false, true]) {
    it(packed ? 'packed' : 'split', () => {
      fc.assert(
        fc.property(
          fc.array(op, { minLength: 5, maxLength: 60 }),
          fc.boolean(),
          fc.boolean(),
          (ops, indirect, together) => {
            const rig = new Rig({
              device: { strict: true },
              properties: { packed, mq: true, rss: true, hash: true, queues: 2 },
              driver: { ringSize: 64, indirect, take: [2, 20, 23, 53, 57, 60].filter((bit) => bit !== 57) },
              small: 128,
              large: 4,
              together,
            });
            const packets = rig.packet(60_000);
            for (const one of ops) apply(rig, one, rig.ringsAt, packets);
            const { machine } = rig;
            machine.peer.limit = Number.POSITIVE_INFINITY;
            machine.peer.hold = false;
            machine.peer.letGo();
            rig.driver.close();
            rig.nic.reset();
            rig.nic.writeConfig(4, 2, 7);
            rig.driver.open();
            machine.peer.port.ready();
            machine.peer.frames.length = 0;
            rig.expectWorks();
            rig.close();
          },
        ),
        { numRuns: 300 },
      );
    });
  }
});

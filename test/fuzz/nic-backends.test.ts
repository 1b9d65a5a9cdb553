/**
 * A guest by chance on each NIC model, in front of each kind of peer that answers: the user network, and a hub with another member. It writes
 * and reads registers, writes RAM, sends packets by its driver, lets time pass, resets, takes the NIC off the link and puts it back, saves and
 * restores its state. Each step is bounded, and afterwards a properly driven packet gets its answer and nothing is held.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserBackend } from '../../src/backends/user/index.ts';
import { parseNetdev } from '../../src/config/netdevs/index.ts';
import { seededRandom } from '../../src/core/clock.ts';
import { silentLogger } from '../../src/core/log.ts';
import { Port } from '../../src/core/port.ts';
import { type NicDriver, PacketBatch } from '../../src/guest/driver/driver.ts';
import { Hub } from '../../src/link/hub.ts';
import { REGISTERS as E1000_REGISTERS } from '../../src/nic/e1000/registers.ts';
import { arpFrame } from '../backends/user/lib/guest.ts';
import { E1000Rig } from '../lib/e1000-rig.ts';
import { fakeHostIo } from '../lib/fake-host-io.ts';
import { MAC } from '../lib/nic-rig.ts';
import { Rtl8139Rig } from '../lib/rtl8139-rig.ts';
import type { TestMachine } from '../lib/test-machine.ts';
import { Recorder } from '../lib/test-machine.ts';
import { Rig as VirtioRig } from '../nic/virtio-net/rig.ts';
import { boundMemory, changed, frames, runs } from './lib.ts';

boundMemory();

interface Guest {
  readonly machine: TestMachine;
  readonly nic: E1000Rig['nic'] | Rtl8139Rig['nic'] | VirtioRig['nic'];
  driver: NicDriver;
  readonly received: { bytes: Uint8Array }[];
  /** A new driver on a NIC that was reset, opened. */
  restart(): boolean;
  close(): void;
}

interface Model {
  readonly bar: number;
  readonly barBytes: number;
  /** Registers that mean something. */
  readonly offsets: readonly number[];
  make(): Guest;
}

const every = (bytes: number, step: number): number[] =>
  Array.from({ length: bytes / step }, (_, i) => i * step);

function onRig(rig: E1000Rig | Rtl8139Rig): Guest {
  return Object.assign(Object.create(rig) as Guest, {
    restart(this: Guest) {
      rig.nic.reset();
      rig.driver.close();
      rig.driver = rig.newDriver() as never;
      this.driver = rig.driver;
      return rig.driver.open();
    },
    close: () => rig.close(),
  });
}

const models: Record<string, Model> = {
  e1000: {
    bar: 0,
    barBytes: 1 << 17,
    offsets: E1000_REGISTERS.map(({ offset }) => offset),
    make: () => onRig(new E1000Rig({ small: 4096 })),
  },
  'rtl8139 C+': {
    bar: 1,
    barBytes: 256,
    offsets: every(256, 4),
    make: () => onRig(new Rtl8139Rig({ small: 4096 })),
  },
  'virtio-net': {
    bar: 4,
    barBytes: 1 << 14,
    offsets: [...every(64, 4), ...every(16, 2).map((at) => at + 0x3000)],
    make: () => {
      const rig = new VirtioRig({ small: 4096 });
      return Object.assign(Object.create(rig) as Guest, {
        restart(this: Guest) {
          rig.nic.reset();
          rig.driver.close();
          rig.driver = rig.makeDriver();
          this.driver = rig.driver;
          return rig.driver.open();
        },
        close: () => rig.close(),
      });
    },
  },
};

interface Peer {
  readonly port: Port;
  /** Whether a packet of the guest's brought an answer, or was seen. */
  answers(guest: Guest, send: (frame: Uint8Array) => void): boolean;
  close(): void;
}

const ARP = arpFrame(1, '10.0.2.15', '10.0.2.2');
ARP.set(MAC, 6);
ARP.set(MAC, 22);

const peers: Record<string, (machine: TestMachine) => Peer> = {
  user: (machine) => {
    const config = parseNetdev('user,id=n0');
    if (config.type !== 'user') throw new Error('not user');
    const host = fakeHostIo(machine.loop, machine.pool);
    const backend = new UserBackend(
      'n0',
      config,
      {
        ...machine.link,
        random: seededRandom(5),
        log: silentLogger,
        hostIo: host,
        emit() {},
      },
      { resolvers: () => ['192.0.2.53'] },
    );
    return {
      port: backend.ports[0]!,
      answers: (guest, send) => {
        guest.received.length = 0;
        send(ARP);
        return guest.received.some(({ bytes }) => bytes[12] === 8 && bytes[13] === 6 && bytes[21] === 2);
      },
      close: () => {
        backend.close();
        expect(host.openCount).toBe(0);
      },
    };
  },
  hub: (machine) => {
    const hub = new Hub(0, machine.link);
    const member = hub.addPort('a');
    const other = hub.addPort('b');
    const recorder = new Recorder(machine.link);
    Port.connect(other.port, recorder.port);
    return {
      port: member.port,
      answers: (_guest, send) => {
        const before = recorder.frames.length;
        send(ARP);
        return recorder.frames.slice(before).some(({ bytes }) => bytes[12] === 8 && bytes[13] === 6);
      },
      close: () => {
        recorder.port.disconnect();
        hub.close();
      },
    };
  },
};

type Op =
  | { kind: 'write' | 'read'; at: number; exact: boolean; size: number; value: number }
  | { kind: 'ram'; at: number; value: number }
  | { kind: 'send'; frame: Uint8Array }
  | { kind: 'time'; ns: number }
  | { kind: 'reset' | 'restart' | 'unplug' | 'plug' | 'move' }
  | { kind: 'config'; at: number; value: number };

const words = fc.oneof(
  fc.nat(0xffffffff),
  fc.constantFrom(0, 1, 2, 0xff, 0xffff, 0xffffffff),
  fc.nat(31).map((bit) => 2 ** bit),
);
const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('write' as const, 'write' as const, 'read' as const),
      at: fc.nat(0xffff),
      exact: fc.boolean(),
      size: fc.constantFrom(1, 2, 4, 4, 4),
      value: words,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('ram' as const), at: fc.nat(0xfffff), value: words }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('send' as const), frame: changed([...frames(), ARP], 3) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('time' as const), ns: fc.constantFrom(1e3, 1e6, 1e9) }),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom<Op>(
      { kind: 'reset' },
      { kind: 'restart' },
      { kind: 'unplug' },
      { kind: 'plug' },
      { kind: 'move' },
    ),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('config' as const),
      at: fc.constantFrom(4, 6, 0x10, 0x14, 0x3c),
      value: words,
    }),
  },
);

/** Interrupts a guest takes in one go before it gives up on the device. */
const INTERRUPTS_MAX = 100;

class Run {
  readonly #guest: Guest;
  readonly #peer: Peer;
  readonly #model: Model;
  readonly #batch = new PacketBatch(1);
  readonly #place: number;

  constructor(model: Model, makePeer: (machine: TestMachine) => Peer) {
    this.#model = model;
    const guest = model.make();
    this.#guest = guest;
    this.#peer = makePeer(guest.machine);
    guest.nic.ports[0]!.disconnect();
    this.#plug();
    this.#place = guest.machine.ram.allocate(8192, 16);
  }

  #plug(): void {
    const port = this.#guest.nic.ports[0]!;
    if (port.peer === null) Port.connect(port, this.#peer.port);
  }

  turn(ns: number): void {
    const { machine } = this.#guest;
    let left = INTERRUPTS_MAX;
    machine.onInterrupt = () => {
      if (left-- > 0) this.#guest.driver.interrupt();
      else machine.onInterrupt = null;
    };
    machine.settle(ns);
    machine.onInterrupt = null;
  }

  send(frame: Uint8Array): void {
    const { machine, driver } = this.#guest;
    const bytes = frame.subarray(0, 1500);
    machine.ram.bytes.set(bytes, machine.ram.offset(this.#place));
    this.#batch.plain(0, this.#place, Math.max(bytes.length, 14));
    driver.send(this.#batch, 0, 1);
    this.turn(1e6);
  }

  step(one: Op): void {
    const { nic, machine } = this.#guest;
    const { bar, barBytes, offsets } = this.#model;
    switch (one.kind) {
      case 'write':
      case 'read': {
        const at = one.exact ? offsets[one.at % offsets.length]! : one.at % barBytes;
        if (one.kind === 'write')
          nic.writeBar(bar, at, one.size, one.size === 4 ? one.value : one.value % 2 ** (8 * one.size));
        else expect(nic.readBar(bar, at, one.size)).toBeLessThan(2 ** (8 * one.size));
        break;
      }
      case 'ram':
        machine.ram.words[one.at % machine.ram.words.length] = one.value;
        break;
      case 'send':
        this.send(one.frame);
        break;
      case 'time':
        this.turn(one.ns);
        break;
      case 'reset':
        nic.reset();
        break;
      case 'restart':
        this.#guest.restart();
        break;
      case 'unplug':
        nic.ports[0]!.disconnect();
        break;
      case 'plug':
        this.#plug();
        break;
      case 'move':
        nic.loadState(JSON.parse(JSON.stringify(nic.saveState())));
        break;
      case 'config':
        nic.writeConfig(one.at, 4, one.value);
    }
  }

  finish(): void {
    const guest = this.#guest;
    guest.nic.writeConfig(4, 2, 6);
    this.#plug();
    this.turn(1e9);
    expect(guest.restart()).toBe(true);
    this.turn(1e9);
    expect(this.#peer.answers(guest, (frame) => this.send(frame))).toBe(true);
    guest.nic.ports[0]!.disconnect();
    this.#peer.close();
    guest.machine.settle();
    guest.close();
  }
}

describe.each(Object.entries(models))('%s', (_name, model) => {
  it.each(Object.entries(peers))('hardening: no guest brings it down in front of: %s', (_kind, makePeer) => {
    fc.assert(
      fc.property(fc.array(op, { minLength: 1, maxLength: 40 }), (ops) => {
        const run = new Run(model, makePeer);
        for (const one of ops) run.step(one);
        run.finish();
      }),
      runs(60) as fc.Parameters<[Op[]]>,
    );
  });
});

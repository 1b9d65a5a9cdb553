/** What the virtio benches share: a machine with one virtio-net whose peer is a sink. The twins are those of the e1000 benches: the same work in plain objects. */
import { readDevice } from '../../src/config/devices/index.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { silentLogger } from '../../src/core/log.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool } from '../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../src/core/port.ts';
import { GuestRam } from '../../src/guest/driver/guest-ram.ts';
import { type DriverRing, PackedDriverRing, SplitDriverRing } from '../../src/guest/driver/virtio-ring.ts';
import { modernTransport } from '../../src/guest/driver/virtio-transport.ts';
import { NativeHostIo } from '../../src/host-io/native.ts';
import { adapt } from '../../src/nic/offload.ts';
import { VirtioNet } from '../../src/nic/virtio-net/index.ts';
import type { DeviceHost } from '../../src/pci/device-host.ts';
import { GuestMemory } from '../../src/pci/guest-memory.ts';
import { MAC } from './e1000.ts';

class Machine implements DeviceHost {
  readonly loop = new Loop(new SystemClock(() => performance.now()));
  readonly random = seededRandom(1);
  readonly log = silentLogger;
  readonly pool = new FramePool({ smallSlots: 4096, largeSlots: 64, bareRecords: 8192 });
  readonly memory = new GuestMemory(this.pool);
  readonly ram = new GuestRam(16 << 20);
  interrupts = 0;

  constructor() {
    // The addon copies, as in the command.
    new NativeHostIo().attachPool(this.pool);
    this.memory.add(this.ram.address, this.ram.bytes);
  }

  setIntx(level: boolean): void {
    if (level) this.interrupts++;
  }

  signalMsi(): void {}
}

export class VirtioBench {
  readonly machine = new Machine();
  readonly nic: VirtioNet;
  readonly peer: Port;
  sink: (frames: Int32Array, from: number, to: number) => number;

  constructor(properties: Record<string, unknown>) {
    const { machine } = this;
    const link = { pool: machine.pool, loop: machine.loop, adapt };
    const config = readDevice({
      driver: 'virtio-net-pci',
      rx_queue_size: 1024,
      tx_queue_size: 1024,
      ...properties,
    });
    if (config.model !== 'virtio-net') throw new Error('not a virtio-net');
    this.nic = new VirtioNet({ host: machine, link, name: 'net0' }, { ...config, mac: MAC });
    this.sink = (frames, from, to) => {
      machine.pool.releaseAll(frames, from, to);
      return to - from;
    };
    const receive = (frames: Int32Array, from: number, to: number): number => this.sink(frames, from, to);
    this.peer = new Port('peer', 'backend', { receive, peerReady() {} }, link);
    this.peer.accepts = ACCEPT_ALL;
    Port.connect(this.nic.ports[0]!, this.peer);
  }

  close(): void {
    this.nic.close();
    this.machine.loop.run();
    if (this.machine.pool.free !== this.machine.pool.capacity) throw new Error('frames leaked');
  }
}

/** The kinds of ring that are measured. */
export const RINGS: Record<string, Record<string, unknown>> = {
  split: { packed: false },
  packed: { packed: true },
};

/** One queue whose ring is filled once and made available again and again without a driver: what is measured is the device alone. */
export class ReplayedQueue {
  readonly #bench: VirtioBench;
  readonly #index: number;
  readonly #ring: SplitDriverRing | PackedDriverRing;
  readonly #halves: Uint16Array;
  /** A packed ring as the driver would leave it, for each value of the wrap counter; a lap costs one copy. */
  readonly #laps: Uint8Array[] = [];
  #wrap = 0;
  #offered = 0;
  readonly slots: number;

  /** `put` makes every slot available once. */
  constructor(
    bench: VirtioBench,
    index: number,
    parts: 1 | 2,
    put: (ring: DriverRing, slot: number) => void,
  ) {
    const { ram } = bench.machine;
    const { nic } = bench;
    this.#bench = bench;
    this.#index = index;
    this.#halves = new Uint16Array(ram.bytes.buffer);
    const transport = modernTransport(nic)!;
    nic.writeConfig(4, 2, 7);
    transport.status = 0;
    transport.status = 3;
    const offered = [transport.features(0), transport.features(1)];
    const packed = (offered[1]! & 4) !== 0;
    // CSUM, GUEST_CSUM, HOST_TSO4.
    transport.setFeatures(0, 0x803);
    transport.setFeatures(1, packed ? 5 : 1);
    transport.status = 11;
    const options = { eventIdx: false, indirect: false, parts };
    const size = transport.queueSize(index);
    this.#ring = packed ? new PackedDriverRing(ram, size, options) : new SplitDriverRing(ram, size, options);
    this.slots = this.#ring.slots;
    const from = ram.offset(this.#ring.descriptors);
    for (let lap = 0; lap < (packed ? 2 : 1); lap++) {
      for (let slot = 0; slot < this.slots; slot++) put(this.#ring, slot);
      if (!packed) continue;
      this.#ring.publish();
      this.#laps.push(ram.bytes.slice(from, from + 16 * size));
      ram.bytes.fill(0, from, from + 16 * size);
    }
    if (!transport.enableQueue(index, this.#ring, -1)) throw new Error('the queue was not enabled');
    transport.status = 15;
    if (packed) this.#lap();
  }

  #lap(): void {
    const { ram } = this.#bench.machine;
    ram.bytes.set(this.#laps[this.#wrap]!, ram.offset(this.#ring.descriptors));
    this.#wrap ^= 1;
  }

  /** The driver's part of `count` more buffers; all of them must have been used before the ring is full. */
  offer(count: number): void {
    if (this.#laps.length === 0) {
      this.#offered = (this.#offered + count) & 0xffff;
      this.#halves[(this.#bench.machine.ram.offset(this.#ring.driver) >> 1) + 1] = this.#offered;
      return;
    }
    this.#offered += count;
    if (this.#offered >= this.slots) {
      this.#offered -= this.slots;
      this.#lap();
    }
  }

  kick(): void {
    this.#bench.nic.writeBar(4, 0x3000 + 4 * this.#index, 2, this.#index);
  }
}

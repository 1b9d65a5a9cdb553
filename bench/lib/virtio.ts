/** What the virtio benches share: a machine with one virtio-net whose peer is a sink. The twins are those of the e1000 benches: the same work in plain objects. */
import { readDevice } from '../../src/config/devices/index.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { silentLogger } from '../../src/core/log.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool } from '../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../src/core/port.ts';
import { GuestRam } from '../../src/guest/driver/guest-ram.ts';
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

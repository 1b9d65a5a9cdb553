/** A probe on an e1000 on the `user` netdev, on the host's real sockets and clock: what `netemu --netdev user --device e1000` runs. */

import { UserBackend } from '../../../src/backends/user/index.ts';
import { type ProbeConfig, parseGuest } from '../../../src/config/guest.ts';
import { type NetdevConfigOf, parseNetdev } from '../../../src/config/netdevs/index.ts';
import { SystemClock, seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { Loop } from '../../../src/core/loop.ts';
import { FramePool } from '../../../src/core/pool.ts';
import { Port } from '../../../src/core/port.ts';
import { ProbeMachine } from '../../../src/guest/probe/machine.ts';
import { ProbeGuest, type ProbeOptions } from '../../../src/guest/probe/probe.ts';
import type { ProbeResult, Step } from '../../../src/guest/probe/report.ts';
import { createHostIo } from '../../../src/host-io/index.ts';
import { E1000 } from '../../../src/nic/e1000/index.ts';
import { adapt } from '../../../src/nic/offload.ts';

export class RealNet {
  readonly hostIo = createHostIo();
  readonly clock = new SystemClock(() => performance.now());
  readonly loop = new Loop(this.clock);
  readonly pool = new FramePool();
  readonly backend: UserBackend;
  readonly machine: ProbeMachine;
  readonly nic: E1000;
  readonly probe: ProbeGuest;
  readonly steps: Step[] = [];
  readonly done: Promise<ProbeResult>;

  constructor(guest: string, netdev = 'user,id=n0', options: Partial<ProbeOptions> = {}) {
    const { loop, pool, hostIo } = this;
    const random = seededRandom(7);
    hostIo.attachPool(pool);
    const link = { pool, loop, adapt };
    const context = { ...link, random, log: silentLogger, hostIo, emit() {} };
    const config = parseNetdev(netdev) as NetdevConfigOf<'user'>;
    this.backend = new UserBackend('n0', config, context, { resolvers: () => [] });
    this.machine = new ProbeMachine({ loop, pool, random, log: silentLogger });
    const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
    this.nic = new E1000({ host: this.machine, link, name: 'net0' }, { mac });
    Port.connect(this.nic.port, this.backend.ports[0]);
    let finish: (result: ProbeResult) => void = () => {};
    this.done = new Promise((resolve) => {
      finish = resolve;
    });
    this.probe = ProbeGuest.onNic(this.machine, this.nic, {
      config: parseGuest(guest) as ProbeConfig,
      loop,
      random,
      log: silentLogger,
      report: (step) => this.steps.push(step),
      onDone: (result) => finish(result),
      ...options,
    });
    hostIo.drive(loop);
    this.probe.start();
  }

  told(step: Step['step']): string[] {
    return this.steps.filter((s) => s.step === step).map(({ detail }) => detail);
  }

  /** Ends everything; returns how many buffers of network and guest are missing. */
  close(): number {
    this.probe.close();
    this.nic.port.disconnect();
    this.nic.close();
    this.backend.close();
    this.machine.close();
    this.hostIo.shutdown();
    return this.pool.capacity - this.pool.free + this.machine.packets.capacity - this.machine.packets.free;
  }
}

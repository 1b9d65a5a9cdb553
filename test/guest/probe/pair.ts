/** Probes on real e1000 models, joined by a cable or a hub: everything between their TCPs is the product's. */

import { type ProbeConfig, parseGuest } from '../../../src/config/guest.ts';
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { Loop } from '../../../src/core/loop.ts';
import { FramePool } from '../../../src/core/pool.ts';
import type { LinkContext, Port } from '../../../src/core/port.ts';
import { ProbeMachine } from '../../../src/guest/probe/machine.ts';
import { ProbeGuest, type ProbeOptions } from '../../../src/guest/probe/probe.ts';
import type { ProbeResult, Step } from '../../../src/guest/probe/report.ts';
import { E1000 } from '../../../src/nic/e1000/index.ts';
import { adapt } from '../../../src/nic/offload.ts';

export class World {
  readonly clock = new VirtualClock();
  readonly loop = new Loop(this.clock);
  readonly pool = new FramePool({ debug: true });
  readonly link: LinkContext = { pool: this.pool, loop: this.loop, adapt };
  readonly stations: Station[] = [];

  /** `line`: what stands behind `--guest`. */
  station(line: string, options: Partial<ProbeOptions> = {}): Station {
    const station = new Station(this, this.stations.length, line, options);
    this.stations.push(station);
    return station;
  }

  run(seconds: number): void {
    this.loop.runUntil(this.clock.nowNs() + seconds * 1e9);
  }

  /** Closes all and checks that every buffer, everywhere, is back. */
  close(): void {
    for (const station of this.stations) station.close();
    this.loop.run();
    const leaks: string[] = [];
    for (const { name, machine } of this.stations) {
      if (machine.packets.free !== machine.packets.capacity)
        leaks.push(`${name}: ${machine.packets.capacity - machine.packets.free}`);
    }
    if (this.pool.free !== this.pool.capacity) leaks.push(`network: ${this.pool.capacity - this.pool.free}`);
    if (leaks.length > 0) throw new Error(`leaked buffers: ${leaks.join(', ')}`);
    if (this.loop.nextNs !== Number.POSITIVE_INFINITY) throw new Error('a timer is still armed');
  }
}

export class Station {
  readonly name: string;
  readonly machine: ProbeMachine;
  readonly nic: E1000;
  readonly probe: ProbeGuest;
  readonly steps: Step[] = [];
  result: ProbeResult | null = null;

  constructor(world: World, index: number, line: string, options: Partial<ProbeOptions>) {
    const { loop, pool, link } = world;
    this.name = `probe${index}`;
    const random = seededRandom(index + 1);
    this.machine = new ProbeMachine({ loop, pool, random, log: silentLogger, debug: true });
    const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56 + index);
    this.nic = new E1000({ host: this.machine, link, name: this.name }, { mac });
    this.probe = ProbeGuest.onNic(this.machine, this.nic, {
      config: parseGuest(line) as ProbeConfig,
      loop,
      random,
      log: silentLogger,
      report: (step) => this.steps.push(step),
      onDone: (result) => {
        this.result = result;
      },
      ...options,
    });
  }

  get port(): Port {
    return this.nic.port;
  }

  /** The details of one kind of step. */
  told(step: Step['step']): string[] {
    return this.steps.filter((s) => s.step === step).map(({ detail }) => detail);
  }

  /** Its IPv4 address as text. */
  get address(): string {
    const value = this.probe.host.ipv4.address;
    return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join('.');
  }

  close(): void {
    this.probe.close();
    this.port.disconnect();
    this.nic.close();
    this.machine.close();
  }
}

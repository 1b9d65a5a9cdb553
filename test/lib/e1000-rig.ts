/** An e1000 on a test machine with its driver's half, and a raw way to its registers and rings for tests that misbehave. */
import type { DriverOptions } from '../../src/guest/driver/driver.ts';
import { E1000Driver } from '../../src/guest/driver/e1000-driver.ts';
import { E1000 } from '../../src/nic/e1000/index.ts';
import type { NicSite } from '../../src/nic/nic.ts';
import { MAC, NicRig, type NicRigOptions } from './nic-rig.ts';

export { MAC, testFrame } from './nic-rig.ts';

export interface RigOptions extends NicRigOptions {
  mitigation?: boolean;
  initVet?: boolean;
}

export class E1000Rig extends NicRig<E1000, RigOptions> {
  constructor(options: RigOptions = {}, open = true) {
    super(options, open);
  }

  protected makeNic(site: NicSite): E1000 {
    const { mitigation, initVet, strict } = this.options;
    return new E1000(site, {
      mac: MAC,
      mitigation: mitigation ?? true,
      initVet: initVet ?? true,
      strict: strict ?? false,
    });
  }

  protected makeDriver(options: DriverOptions): E1000Driver {
    return new E1000Driver(options);
  }

  get(register: number): number {
    return this.nic.readBar(0, register, 4);
  }

  put(register: number, value: number): void {
    this.nic.writeBar(0, register, 4, value >>> 0);
  }

  /** A transmit ring of the test's own with these descriptors (4 words each), and rings the doorbell. */
  transmit(descriptors: number[][], options: { count?: number; head?: number; tail?: number } = {}): number {
    const count = options.count ?? 64;
    const ring = this.layRing(descriptors, count, 128);
    this.nic.writeConfig(4, 2, 6);
    this.put(0x400, 0);
    this.put(0x3800, ring);
    this.put(0x3804, Math.floor(ring / 2 ** 32));
    this.put(0x3808, count * 16);
    this.put(0x3810, options.head ?? 0);
    this.put(0x400, 0x4010a);
    this.put(0x3818, options.tail ?? descriptors.length);
    return ring;
  }

  /** The status words of a ring's first descriptors. */
  statuses(ring: number, count: number): number[] {
    const at = this.machine.ram.offset(ring) >> 2;
    return Array.from({ length: count }, (_, i) => this.machine.ram.words[at + 4 * i + 3]! & 15);
  }
}

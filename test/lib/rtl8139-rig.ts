/** An rtl8139 on a test machine with its driver's half, and a raw way to its registers and rings for tests that misbehave. */
import type { DriverOptions } from '../../src/guest/driver/driver.ts';
import { Rtl8139Driver } from '../../src/guest/driver/rtl8139-driver.ts';
import type { NicSite } from '../../src/nic/nic.ts';
import { Rtl8139 } from '../../src/nic/rtl8139/index.ts';
import { MAC, NicRig, type NicRigOptions } from './nic-rig.ts';

export { MAC, testFrame } from './nic-rig.ts';

export interface RigOptions extends NicRigOptions {
  chip?: '8139c+' | '8139c';
  /** As over vfio-user (pci/device-host.ts); default false. */
  writesAreLate?: boolean;
}

const OWN_FS_LS = 0xb0000000;

export class Rtl8139Rig extends NicRig<Rtl8139, RigOptions> {
  constructor(options: RigOptions = {}, open = true) {
    super(options, open);
  }

  protected makeNic(site: NicSite): Rtl8139 {
    const { chip, strict, writesAreLate } = this.options;
    const host = Object.assign(site.host, { writesAreLate: writesAreLate ?? false });
    return new Rtl8139({ ...site, host }, { mac: MAC, chip: chip ?? '8139c+', strict: strict ?? false });
  }

  protected makeDriver(options: DriverOptions): Rtl8139Driver {
    return new Rtl8139Driver(options);
  }

  get(register: number, size = 4): number {
    return this.nic.readBar(1, register, size);
  }

  put(register: number, value: number, size = 4): void {
    this.nic.writeBar(1, register, size, size === 4 ? value >>> 0 : value);
  }

  wordAt(address: number): number {
    return this.machine.ram.words[this.machine.ram.offset(address) >> 2]!;
  }

  /** A ring of the test's own with these descriptors (4 words each). */
  ring(descriptors: number[][]): number {
    return this.layRing(descriptors, 64, 256);
  }

  /** A C+ transmit ring of the test's own, and its doorbell. */
  transmit(descriptors: number[][], high = false): number {
    const ring = this.ring(descriptors);
    this.nic.writeConfig(4, 2, 7);
    this.put(0xe0, this.get(0xe0, 2) | 1, 2);
    this.put(0x37, 0x0c, 1);
    this.put(high ? 0x28 : 0x20, ring);
    this.put(high ? 0x2c : 0x24, Math.floor(ring / 2 ** 32));
    this.put(0xd9, high ? 0x80 : 0x40, 1);
    return ring;
  }

  /** One descriptor with a whole frame. */
  whole(address: number, length: number, bits = 0, tag = 0): number[] {
    return [OWN_FS_LS | bits | length, tag, address, Math.floor(address / 2 ** 32)];
  }

  /** The first words of a ring's descriptors. */
  commands(ring: number, count: number): number[] {
    return Array.from({ length: count }, (_, i) => this.wordAt(ring + 16 * i) >>> 0);
  }
}

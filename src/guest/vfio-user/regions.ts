/**
 * The device's regions as VFIO numbers them: BARs 0 to 5, the expansion ROM, configuration space. Reads and writes of any length are cut into the largest
 * aligned accesses up to 4 bytes; one of 1, 2 or 4 bytes stays one access however it is aligned, as the guest made it.
 */

import type { PciFunction } from '../../pci/pci-function.ts';
import { REGION_CONFIG, REGION_FLAG_READ, REGION_FLAG_WRITE, REGION_ROM } from './protocol.ts';

export class Regions {
  readonly #device: PciFunction;
  #scratch = new DataView(new ArrayBuffer(4096));

  constructor(device: PciFunction) {
    this.#device = device;
  }

  /** Its size; 0 for one that the device does not have. */
  bytes(region: number): number {
    if (region === REGION_CONFIG) return this.#device.config.bytes.length;
    if (region === REGION_ROM) return this.#device.rom?.length ?? 0;
    for (const bar of this.#device.bars) if (bar.index === region) return bar.bytes;
    return 0;
  }

  flags(region: number): number {
    if (this.bytes(region) === 0) return 0;
    return region === REGION_ROM ? REGION_FLAG_READ : REGION_FLAG_READ | REGION_FLAG_WRITE;
  }

  isWritable(region: number): boolean {
    return (this.flags(region) & REGION_FLAG_WRITE) !== 0;
  }

  /** Whether a run of at least one byte lies within the region. */
  holds(region: number, offset: number, count: number): boolean {
    return count > 0 && offset + count <= this.bytes(region);
  }

  /** One access of 1, 2 or 4 bytes within the region. */
  readOne(region: number, offset: number, size: number): number {
    if (region === REGION_CONFIG) return this.#device.readConfig(offset, size);
    if (region !== REGION_ROM) return this.#device.readBar(region, offset, size);
    const rom = this.#device.rom;
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + (rom?.[offset + i] ?? 0xff);
    return value;
  }

  /** The bytes of a run that the region holds; valid until the next read. */
  read(region: number, offset: number, count: number): Uint8Array {
    if (count > this.#scratch.byteLength) this.#scratch = new DataView(new ArrayBuffer(count));
    const target = this.#scratch;
    for (let done = 0; done < count; ) {
      const size = accessSize(offset + done, count - done, count);
      const value = this.readOne(region, offset + done, size);
      if (size === 4) target.setUint32(done, value, true);
      else if (size === 2) target.setUint16(done, value, true);
      else target.setUint8(done, value);
      done += size;
    }
    return new Uint8Array(target.buffer, 0, count);
  }

  write(region: number, offset: number, source: DataView, at: number, count: number): void {
    for (let done = 0; done < count; ) {
      const size = accessSize(offset + done, count - done, count);
      const from = at + done;
      const value =
        size === 4
          ? source.getUint32(from, true)
          : size === 2
            ? source.getUint16(from, true)
            : source.getUint8(from);
      if (region === REGION_CONFIG) this.#device.writeConfig(offset + done, size, value);
      else this.#device.writeBar(region, offset + done, size, value);
      done += size;
    }
  }
}

function accessSize(offset: number, left: number, whole: number): number {
  if (whole === 4 || whole === 2) return whole;
  if (left >= 4 && offset % 4 === 0) return 4;
  return left >= 2 && offset % 2 === 0 ? 2 : 1;
}

/** The two functions of an i440FX PC that a PCI driver meets before any NIC: the host bridge at 00.0 and the PIIX3's ISA bridge at 01.0. They have no BARs. */

import { COMMAND_BUS_MASTER, COMMAND_IO, COMMAND_MEMORY, PCI_COMMAND } from '../../pci/config-space.ts';
import type { DeviceHost } from '../../pci/device-host.ts';
import { PciFunction } from '../../pci/pci-function.ts';

const VENDOR_INTEL = 0x8086;
const CLASS_HOST_BRIDGE = 0x060000;
const CLASS_ISA_BRIDGE = 0x060100;
/** PIIX3 configuration: PIRQRC[A:D] (82371SB datasheet, section 2.2.4). */
const PIRQRC = 0x60;

abstract class Bridge extends PciFunction {
  protected readRegister(): number {
    return 0;
  }

  protected writeRegister(): void {}

  close(): void {}
}

/** The 82441FX host bridge. */
export class HostBridge extends Bridge {
  constructor(host: DeviceHost) {
    super(host, {
      vendorId: VENDOR_INTEL,
      deviceId: 0x1237,
      revision: 2,
      classCode: CLASS_HOST_BRIDGE,
      subsystemVendorId: 0,
      subsystemId: 0,
      interruptPin: 0,
    });
    this.config.put(PCI_COMMAND, 2, COMMAND_MEMORY | COMMAND_BUS_MASTER);
  }

  protected override resetModel(): void {}
}

/** The 82371SB ISA bridge. `onRoute` is told of each write to PIRQRC. */
export class IsaBridge extends Bridge {
  readonly #onRoute: (pirq: number, value: number) => void;

  constructor(host: DeviceHost, onRoute: (pirq: number, value: number) => void) {
    super(host, {
      vendorId: VENDOR_INTEL,
      deviceId: 0x7000,
      revision: 0,
      classCode: CLASS_ISA_BRIDGE,
      subsystemVendorId: 0,
      subsystemId: 0,
      interruptPin: 0,
    });
    this.#onRoute = onRoute;
    this.config.put(PCI_COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER);
    this.config.put(PIRQRC, 4, 0x80808080);
    this.config.allow(PIRQRC, 4, 0x8f8f8f8f);
  }

  protected override resetModel(): void {
    this.config.put(PIRQRC, 4, 0x80808080);
    for (let pirq = 0; pirq < 4; pirq++) this.#onRoute(pirq, 0x80);
  }

  override writeConfig(offset: number, size: number, value: number): void {
    super.writeConfig(offset, size, value);
    for (let pirq = 0; pirq < 4; pirq++) {
      const at = PIRQRC + pirq;
      if (at >= offset && at < offset + size) this.#onRoute(pirq, this.config.bytes[at]);
    }
  }
}

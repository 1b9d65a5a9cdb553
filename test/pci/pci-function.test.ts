/** PCI functions: configuration space, BARs, interrupts by pin and by message. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CAP_MSI, CAP_MSIX, CAP_POWER_MANAGEMENT } from '../../src/pci/config-space.ts';
import { PciFunction } from '../../src/pci/pci-function.ts';
import { TestMachine } from '../lib/test-machine.ts';

class Example extends PciFunction {
  readonly registers = new Uint32Array(64);
  resets = 0;
  dmaChanges = 0;

  constructor(machine: TestMachine) {
    super(machine, {
      vendorId: 0x1234,
      deviceId: 0x5678,
      revision: 9,
      classCode: 0x020000,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      interruptPin: 1,
    });
    this.addBar(0, 'memory32', 0x1000);
    this.addBar(1, 'io', 32);
    this.addBar(2, 'memory64', 0x4000, true);
    this.addPowerManagement();
    this.addMsi(4);
    this.addMsix(3, { bar: 2, tableOffset: 0x800, pbaOffset: 0xc00 });
  }

  protected override readRegister(_bar: number, offset: number): number {
    return this.registers[(offset >> 2) & 63]!;
  }

  protected override writeRegister(_bar: number, offset: number, value: number): void {
    this.registers[(offset >> 2) & 63] = value;
  }

  protected override resetModel(): void {
    this.resets++;
  }

  protected override dmaChanged(): void {
    this.dmaChanges++;
  }

  level(up: boolean): void {
    this.setIntx(up);
  }

  close(): void {}
}

function setUp(): { machine: TestMachine; fn: Example } {
  const machine = new TestMachine();
  return { machine, fn: new Example(machine) };
}

describe('configuration space', () => {
  it('shows identity and capabilities', () => {
    const { fn } = setUp();
    expect(fn.readConfig(0, 4)).toBe(0x56781234);
    expect(fn.readConfig(8, 4)).toBe(0x02000009);
    expect(fn.readConfig(0x2c, 4)).toBe(0x11001af4);
    expect(fn.readConfig(6, 2) & 0x10).toBe(0x10);
    expect(fn.config.findCapability(CAP_POWER_MANAGEMENT)).toBe(0x40);
    expect(fn.config.findCapability(CAP_MSI)).toBeGreaterThan(0x40);
    expect(fn.config.findCapability(CAP_MSIX)).toBeGreaterThan(fn.config.findCapability(CAP_MSI));
    expect(fn.config.findCapability(0x77)).toBe(0);
  });

  it('sizes BARs and keeps fixed bits', () => {
    const { fn } = setUp();
    for (const [at, mask] of [
      [0x10, 0xfffff000],
      [0x14, 0xffffffe1],
      [0x18, 0xffffc00c],
      [0x1c, 0xffffffff],
    ] as const) {
      fn.writeConfig(at, 4, 0xffffffff);
      expect(fn.readConfig(at, 4)).toBe(mask);
    }
    fn.writeConfig(0x18, 4, 0x8000);
    fn.writeConfig(0x1c, 4, 0x12);
    expect(fn.barAddress(2)).toBe(0x12_0000_8000);
    fn.writeConfig(0x14, 4, 0xc040);
    expect(fn.barAddress(1)).toBe(0xc040);
    expect(fn.barAddress(5)).toBe(0);
    fn.writeConfig(0, 4, 0);
    expect(fn.readConfig(0, 4)).toBe(0x56781234);
  });

  it('allows DMA with bus mastering and in D0 only', () => {
    const { fn } = setUp();
    fn.writeConfig(4, 2, 6);
    expect(fn.dmaEnabled).toBe(true);
    expect(fn.memoryEnabled).toBe(true);
    expect(fn.ioEnabled).toBe(false);
    fn.writeConfig(0x44, 2, 3);
    expect(fn.dmaEnabled).toBe(false);
    fn.writeConfig(0x44, 2, 0);
    expect(fn.dmaEnabled).toBe(true);
    fn.reset();
    expect(fn.dmaEnabled).toBe(false);
    expect(fn.resets).toBe(1);
    expect(fn.dmaChanges).toBe(4);
    expect(fn.readConfig(4, 2)).toBe(0);
  });
});

describe('interrupts', () => {
  it('drives the pin, unless disabled', () => {
    const { machine, fn } = setUp();
    fn.level(true);
    expect(machine.intx).toBe(true);
    expect(fn.readConfig(6, 2) & 8).toBe(8);
    fn.writeConfig(4, 2, 0x400);
    expect(machine.intx).toBe(false);
    expect(fn.readConfig(6, 2) & 8).toBe(8);
    fn.writeConfig(4, 2, 0);
    expect(machine.intx).toBe(true);
    fn.level(false);
    expect(machine.intx).toBe(false);
    expect(machine.interrupts).toBe(2);
  });

  it('sends MSI, holding masked vectors back', () => {
    const { machine, fn } = setUp();
    const at = fn.config.findCapability(CAP_MSI);
    fn.msi!.notify(0);
    expect(machine.messages).toEqual([]);
    fn.writeConfig(at + 4, 4, 0xfee00000);
    fn.writeConfig(at + 12, 2, 0x4040);
    fn.writeConfig(at + 2, 2, 1 | (2 << 4));
    fn.level(true);
    expect(machine.intx).toBe(false);
    fn.msi!.notify(3);
    expect(machine.messages).toEqual([{ vector: 3, address: 0xfee00000, data: 0x4043 }]);
    fn.writeConfig(at + 16, 4, 2);
    fn.msi!.notify(1);
    expect(machine.messages.length).toBe(1);
    expect(fn.readConfig(at + 20, 4)).toBe(2);
    fn.writeConfig(at + 16, 4, 0);
    expect(machine.messages[1]).toEqual({ vector: 1, address: 0xfee00000, data: 0x4041 });
    expect(fn.readConfig(at + 20, 4)).toBe(0);
    // Two vectors are granted: the others share the last.
    fn.writeConfig(at + 2, 2, 1 | (1 << 4));
    fn.msi!.notify(3);
    expect(machine.messages[2]!.vector).toBe(1);
  });

  it('sends MSI-X from its table, with masks and pending bits', () => {
    const { machine, fn } = setUp();
    const at = fn.config.findCapability(CAP_MSIX);
    expect(fn.readConfig(at + 2, 2)).toBe(2);
    expect(fn.readConfig(at + 4, 4)).toBe(0x802);
    expect(fn.readBar(2, 0x80c, 4)).toBe(1);
    fn.writeBar(2, 0x810, 4, 0xfee00004);
    fn.writeBar(2, 0x814, 4, 1);
    fn.writeBar(2, 0x818, 4, 77);
    fn.writeConfig(at + 2, 2, 0x8000);
    fn.msix!.notify(1);
    expect(machine.messages).toEqual([]);
    expect(fn.readBar(2, 0xc00, 4)).toBe(2);
    fn.writeBar(2, 0x81c, 4, 0);
    expect(machine.messages).toEqual([{ vector: 1, address: 0x1_fee0_0004, data: 77 }]);
    expect(fn.readBar(2, 0xc00, 4)).toBe(0);
    fn.writeConfig(at + 2, 2, 0xc000);
    fn.msix!.notify(1);
    expect(fn.msix!.isPending(1)).toBe(true);
    fn.writeConfig(at + 2, 2, 0x8000);
    expect(machine.messages.length).toBe(2);
    fn.msix!.notify(9);
    fn.msix!.notify(-1);
    expect(machine.messages.length).toBe(2);
    // The pending bits cannot be written.
    fn.writeBar(2, 0xc00, 4, 7);
    expect(fn.readBar(2, 0xc00, 4)).toBe(0);
  });

  it('signals at once when the client of the transport keeps the masks', () => {
    const { machine, fn } = setUp();
    fn.setExternalInterrupts('msix');
    fn.msix!.notify(2);
    expect(machine.messages.map(({ vector }) => vector)).toEqual([2]);
    fn.setExternalInterrupts('intx');
    fn.writeConfig(4, 2, 0x400);
    fn.level(true);
    expect(machine.intx).toBe(true);
  });
});

describe('odd accesses', () => {
  it('hardening 21: every size and alignment gives a defined value, in BARs, MSI-X tables and configuration space', () => {
    const { fn } = setUp();
    fn.writeConfig(fn.config.findCapability(CAP_MSIX) + 2, 2, 0x8000);
    fc.assert(
      fc.property(
        fc.integer({ min: -1, max: 6 }),
        fc.oneof(fc.integer({ min: -8, max: 0x5000 }), fc.constantFrom(2 ** 31, 2 ** 40, Number.NaN, 0.5)),
        fc.constantFrom(0, 1, 2, 3, 4, 8, 16),
        fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        (bar, offset, size, value) => {
          fn.writeBar(bar, offset, size, value);
          const read = fn.readBar(bar, offset, size);
          expect(Number.isInteger(read) && read >= 0 && read <= 2 ** 64).toBe(true);
          if (size === 1 || size === 2 || size === 4) {
            fn.writeConfig(offset, size, value);
            const config = fn.readConfig(offset, size);
            expect(Number.isInteger(config) && config >= 0 && config < 2 ** (8 * size)).toBe(true);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('reads lanes of a register, and across two', () => {
    const { fn } = setUp();
    fn.writeBar(0, 0, 4, 0x44332211);
    fn.writeBar(0, 4, 4, 0x88776655);
    expect(fn.readBar(0, 1, 1)).toBe(0x22);
    expect(fn.readBar(0, 2, 2)).toBe(0x4433);
    expect(fn.readBar(0, 3, 2)).toBe(0x5544);
    expect(fn.readBar(0, 2, 4)).toBe(0x66554433);
    fn.writeBar(0, 3, 2, 0xaabb);
    expect(fn.readBar(0, 0, 4)).toBe(0xbb332211);
    expect(fn.readBar(0, 4, 4)).toBe(0x887766aa);
    expect(fn.readBar(0, 0x1000, 4)).toBe(0xffffffff);
    expect(fn.readBar(7, 0, 2)).toBe(0xffff);
  });
});

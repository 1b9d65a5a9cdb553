/**
 * A NIC model on the PCI bus of a v86 machine.
 *
 *     guest's in, out, loads and stores ─▶ v86's ports and memory map ─▶ readBar, writeBar
 *     guest's configuration writes ─▶ pci_write8, 16, 32 (taken over for this one function) ─▶ writeConfig ─▶ a copy that v86 answers reads from
 *     DMA ─▶ V86Ram ─▶ cpu.mem8            INTA# ─▶ InterruptPin ─▶ pci.raise_irq, lower_irq
 *
 * v86's PCI has its own ideas: it decodes BARs by itself, an I/O BAR is moved by moving the handlers of its ports (so ports are registered
 * before the device is), a memory BAR stays where it was first, and memory is mapped in pieces of 128 KiB. So memory BARs get a place of ours from
 * MEMORY_BASE up, one piece each at least, and whatever software writes there it reads that address again. It cuts 16-bit stores in two, which a
 * doorbell does not bear, so those are taken over as well. There are no message-signalled interrupts on this machine: software does not see the capabilities for them.
 *
 * RAM is reached as a remote range: the array that v86 keeps it in is another one after its WebAssembly memory has grown.
 */

import type { Random } from '../../core/clock.ts';
import { InvariantError, OptionError } from '../../core/errors.ts';
import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import { CAP_MSI, CAP_MSIX, PCI_BAR0, PCI_CAPABILITIES } from '../../pci/config-space.ts';
import type { DeviceHost } from '../../pci/device-host.ts';
import { GuestMemory, type RemoteRange } from '../../pci/guest-memory.ts';
import type { PciFunction } from '../../pci/pci-function.ts';
import { InterruptPin } from './interrupt-pin.ts';
import { machineOf, type V86Bar, type V86Cpu, type V86Pci, type V86PciDevice } from './machine.ts';

const MEMORY_BASE = 0xf0000000;
const GRANULE_BYTES = 1 << 17;
const IO_BASE = 0xc100;
const IO_STEP = 0x100;
const FIRST_SLOT = 0x0a;
const SLOTS = 32;
const CONFIG_BYTES = 256;

class V86Ram implements RemoteRange {
  readonly length: number;
  readonly #cpu: V86Cpu;

  constructor(cpu: V86Cpu) {
    this.#cpu = cpu;
    this.length = cpu.memory_size[0]!;
  }

  read(offset: number, target: Uint8Array, at: number, length: number): boolean {
    target.set(this.#cpu.mem8.subarray(offset, offset + length), at);
    return true;
  }

  write(offset: number, source: Uint8Array, at: number, length: number): boolean {
    this.#cpu.mem8.set(source.subarray(at, at + length), offset);
    return true;
  }
}

export interface AttachSite {
  readonly loop: Loop;
  readonly pool: FramePool;
  readonly random: Random;
  readonly log: Logger;
}

/** The function as v86's bus lists it. */
class NicOnBus implements V86PciDevice {
  readonly name = 'netemu';
  readonly pci_id: number;
  readonly pci_space: readonly number[];
  readonly pci_bars: readonly (V86Bar | undefined)[];
  readonly pin: InterruptPin;

  constructor(bdf: number, nic: PciFunction, bars: readonly (Bar | undefined)[], pin: InterruptPin) {
    this.pci_id = bdf;
    this.pci_space = [...nic.config.bytes.subarray(0, CONFIG_BYTES)];
    this.pci_bars = bars.map((bar) => bar?.v86);
    this.pin = pin;
  }
}

export interface AttachedNic<T extends PciFunction> {
  readonly nic: T;
  /** Bus, device and function, as v86 counts them. */
  readonly bdf: number;
  readonly stats: V86NicStats;
  /** Lets go of RAM and of the interrupt; the NIC's owner closes it. The function stays on the bus and answers with ones. */
  detach(): void;
}

export class V86NicStats {
  interrupts = 0;
  messagesLost = 0;
}

/**
 * Makes a NIC with `make` and puts it on the bus of `emulator`, a V86. It must be ready (`emulator-ready`) and not have run: firmware looks at the
 * bus once. Throws OptionError when there is no place left, UnsupportedError for what is no such machine.
 */
export function attachNic<T extends PciFunction>(
  emulator: object,
  site: AttachSite,
  make: (host: DeviceHost) => T,
): AttachedNic<T> {
  const { cpu } = machineOf(emulator).v86;
  const { pci } = cpu.devices;
  const slot = freeSlot(pci);
  const bdf = slot << 3;
  const stats = new V86NicStats();
  const memory = new GuestMemory(site.pool);
  if (!memory.addRemote(0, new V86Ram(cpu)))
    throw new InvariantError('the RAM of the v86 machine cannot be laid out');
  let space: Int32Array | null = null;
  let nic: T | null = null;
  const pin = new InterruptPin(pci, bdf, site.loop, () =>
    pci.devices.flatMap((device) => (device instanceof NicOnBus && device.pin !== pin ? [device.pin] : [])),
  );
  const host: DeviceHost = {
    memory,
    loop: site.loop,
    random: site.random,
    log: site.log,
    setIntx(level) {
      if (space === null || nic === null) return;
      copyConfig(nic, space);
      if (level) stats.interrupts++;
      pin.set(level);
    },
    signalMsi() {
      stats.messagesLost++;
    },
  };
  const made = make(host);
  nic = made;
  const bars = placeBars(cpu, made, slot, () => nic !== null);
  space = pci.register_device(new NicOnBus(bdf, made, bars, pin));
  copyConfig(made, space);
  takeConfigWrites(pci, made, bdf, bars, space);
  const config = space;
  onReboot(cpu, () => {
    if (nic === null) return;
    made.reset();
    for (const [index, bar] of bars.entries())
      if (bar !== undefined) made.writeConfig(PCI_BAR0 + 4 * index, 4, bar.address);
    copyConfig(made, config);
  });
  return {
    nic: made,
    bdf,
    stats,
    detach() {
      nic = null;
      pin.close();
      memory.removeAll();
    },
  };
}

interface Bar {
  readonly v86: V86Bar;
  readonly io: boolean;
  /** Where it lies now. */
  address: number;
}

function freeSlot(pci: V86Pci): number {
  for (let slot = FIRST_SLOT; slot < SLOTS; slot++) if (pci.devices[slot << 3] === undefined) return slot;
  throw new OptionError('PCI: no slot/function available, all in use or reserved', { option: 'addr' });
}

/** Registers ports and memory of every BAR and writes their places into configuration space. */
function placeBars(cpu: V86Cpu, nic: PciFunction, slot: number, there: () => boolean): (Bar | undefined)[] {
  const bars: (Bar | undefined)[] = [];
  // Places go by slot, so that NICs never meet: up to 1 MiB of memory, 256 ports each.
  let memoryAt = MEMORY_BASE + (slot << 20);
  let portAt = IO_BASE + slot * IO_STEP;
  for (const { index, kind, bytes } of nic.bars) {
    while (bars.length < index) bars.push(undefined);
    const read = (offset: number, size: number): number =>
      there() ? nic.readBar(index, offset, size) | 0 : -1;
    const write = (offset: number, size: number, value: number): void => {
      if (there()) nic.writeBar(index, offset, size, value >>> 0);
    };
    if (kind === 'io') {
      for (let offset = 0; offset < bytes; offset++) {
        cpu.io.register_read(
          portAt + offset,
          nic,
          () => read(offset, 1) & 0xff,
          () => read(offset, 2) & 0xffff,
          () => read(offset, 4),
        );
        cpu.io.register_write(
          portAt + offset,
          nic,
          (value) => write(offset, 1, value),
          (value) => write(offset, 2, value),
          (value) => write(offset, 4, value),
        );
      }
      bars.push({ v86: { size: bytes }, io: true, address: portAt });
      nic.writeConfig(PCI_BAR0 + 4 * index, 4, portAt);
      portAt += Math.max(bytes, 4);
    } else {
      const mapped = Math.ceil(bytes / GRANULE_BYTES) * GRANULE_BYTES;
      const base = Math.ceil(memoryAt / bytes) * bytes;
      memoryAt = base + mapped;
      cpu.io.mmap_register(
        base,
        mapped,
        (address) => read((address >>> 0) - base, 1) & 0xff,
        (address, value) => write((address >>> 0) - base, 1, value),
        (address) => read((address >>> 0) - base, 4),
        (address, value) => write((address >>> 0) - base, 4, value),
      );
      const store16 = cpu.mmap_write16.bind(cpu);
      cpu.mmap_write16 = (address, value) => {
        const offset = (address >>> 0) - base;
        if (offset >= 0 && offset < mapped) write(offset, 2, value);
        else store16(address, value);
      };
      bars.push({ v86: { size: bytes }, io: false, address: base });
      nic.writeConfig(PCI_BAR0 + 4 * index, 4, base);
    }
  }
  return bars;
}

/** Configuration writes to `bdf` go to the function, and what reads see is its space. */
function takeConfigWrites(
  pci: V86Pci,
  nic: PciFunction,
  bdf: number,
  bars: readonly (Bar | undefined)[],
  space: Int32Array,
): void {
  const written = (offset: number, size: number, value: number): void => {
    nic.writeConfig(offset, size, value >>> 0);
    for (const [index, bar] of bars.entries()) {
      const at = PCI_BAR0 + 4 * index;
      if (bar === undefined || offset + size <= at || offset >= at + 4) continue;
      // Software that asks for the size gets it; a memory BAR is back in its place with the next write.
      const sizing = value >>> 0 >= 0xffffffff - bar.v86.size + 1;
      if (sizing) continue;
      const to = nic.barAddress(index);
      if (!bar.io) nic.writeConfig(at, 4, bar.address);
      else if (to !== bar.address && to !== 0) {
        pci.set_io_bars(bar.v86, bar.address, to);
        bar.address = to;
      }
    }
    copyConfig(nic, space);
  };
  for (const [name, size] of [
    ['pci_write8', 1],
    ['pci_write16', 2],
    ['pci_write32', 4],
  ] as const) {
    const before = pci[name].bind(pci);
    pci[name] = (address, value) => {
      if (((address >>> 8) & 0xffff) === bdf) written(address & 0xff, size, value);
      else before(address, value);
    };
  }
}

/** v86 resets the devices that it knows; `reset` is done before. */
function onReboot(cpu: V86Cpu, reset: () => void): void {
  const before = cpu.reboot_internal.bind(cpu);
  cpu.reboot_internal = () => {
    reset();
    before();
  };
}

function copyConfig(nic: PciFunction, space: Int32Array): void {
  for (let word = 0; word < space.length; word++) space[word] = nic.readConfig(4 * word, 4);
  hideMessages(new Uint8Array(space.buffer, space.byteOffset, space.byteLength));
}

/** Takes MSI and MSI-X out of the list of capabilities. */
function hideMessages(config: Uint8Array): void {
  let link = PCI_CAPABILITIES;
  for (let seen = 0; seen < CONFIG_BYTES / 4 && config[link] !== 0; seen++) {
    const at = config[link]!;
    if (config[at] === CAP_MSI || config[at] === CAP_MSIX) config[link] = config[at + 1]!;
    else link = at + 1;
  }
}

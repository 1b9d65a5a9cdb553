/** The parts of a v86 machine (npm v86 0.5.462) that its own declarations leave out and netemu uses. None of these names is minified. */

import { UnsupportedError } from '../../core/errors.ts';

/** An I/O port's handlers. */
export type PortEntry = object;

export interface V86Io {
  readonly ports: PortEntry[];
  register_read(
    port: number,
    device: object,
    read8: () => number,
    read16: () => number,
    read32: () => number,
  ): void;
  register_write(
    port: number,
    device: object,
    write8: (value: number) => void,
    write16: (value: number) => void,
    write32: (value: number) => void,
  ): void;
  /** Address and size are multiples of 128 KiB; for good. */
  mmap_register(
    address: number,
    size: number,
    read8: (address: number) => number,
    write8: (address: number, value: number) => void,
    read32: (address: number) => number,
    write32: (address: number, value: number) => void,
  ): void;
}

/** A BAR as v86 knows it; `entries` are the handlers that move with an I/O BAR. */
export interface V86Bar {
  readonly size: number;
  entries?: PortEntry[];
  original_bar?: number;
}

export interface V86PciDevice {
  readonly pci_id: number;
  readonly pci_space: readonly number[];
  readonly pci_bars: readonly (V86Bar | undefined)[];
  readonly name: string;
}

export interface V86Pci {
  readonly devices: (V86PciDevice | undefined)[];
  /** What configuration reads see, by bus, device and function. */
  readonly device_spaces: (Int32Array | undefined)[];
  register_device(device: V86PciDevice): Int32Array;
  set_io_bars(bar: V86Bar, from: number, to: number): void;
  raise_irq(bdf: number): void;
  lower_irq(bdf: number): void;
  pci_write8(address: number, value: number): void;
  pci_write16(address: number, value: number): void;
  pci_write32(address: number, value: number): void;
}

export interface V86Cpu {
  readonly io: V86Io;
  readonly devices: { readonly pci: V86Pci };
  /** RAM, anew whenever the WebAssembly memory grew. */
  readonly mem8: Uint8Array;
  /** Bytes of RAM, in a view of one number. */
  readonly memory_size: { readonly [index: number]: number };
  /** A 16-bit store to mapped memory; the machine's own makes two of 8 bits of it. */
  mmap_write16(address: number, value: number): void;
  /** What a reset of the machine does, however it comes about. */
  reboot_internal(): void;
}

export interface V86Bus {
  register(name: string, listener: (value: never) => void, context: object): void;
  unregister(name: string, listener: (value: never) => void): void;
  send(name: string, value: unknown): void;
}

/** A machine whose `emulator-ready` event has come. */
export interface V86Machine {
  readonly v86: {
    readonly cpu: V86Cpu;
    /** One slice of the CPU's time. Throws WebAssembly.RuntimeError where v86 cannot go on, and then never comes again. */
    do_tick(): void;
  };
  readonly bus: V86Bus;
}

/** The machine behind an object of npm v86's class V86, whose declarations do not tell of it. Throws UnsupportedError when it is not ready, or another version. */
export function machineOf(emulator: object): V86Machine {
  const machine = emulator as Partial<V86Machine>;
  const cpu = machine.v86?.cpu;
  if (
    cpu?.devices?.pci?.register_device === undefined ||
    cpu.io?.mmap_register === undefined ||
    machine.bus === undefined
  )
    throw new UnsupportedError(
      'this is no v86 machine of version 0.5.462, or its emulator-ready event has not come',
    );
  return machine as V86Machine;
}

/**
 * The small PC that a qtest client drives in place of a CPU: RAM, an i440FX-style PCI host and the functions behind it.
 *
 *     0 … A0000h            RAM
 *     A0000h … 100000h      the PC's hole: what is there is on the PCI bus, never RAM
 *     100000h … ramBytes    RAM
 *     elsewhere             memory BARs and expansion ROMs, where software put them
 *     CF8h, CFCh … CFFh     PCI configuration mechanism #1 (PCI Local Bus 3.0, section 3.2.2.3.2)
 *     elsewhere             I/O BARs
 *
 * RAM wins over a BAR, and of two BARs that of the function plugged first. Memory where nothing answers reads as zeros, I/O ports as ones, as QEMU's PC does without a CPU. What is left
 * out: timer, keyboard, IDE, the interrupt controllers' registers (their input lines can be listened to: InterruptLines), memory above 4 GiB.
 *
 * Each function gets a DeviceHost of its own (`slot`), so that its pin is known; RAM is the same GuestMemory for all of them.
 */

import type { Random } from '../../core/clock.ts';
import { InvariantError, OptionError } from '../../core/errors.ts';
import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import { PCI_HEADER_TYPE, PCI_ROM } from '../../pci/config-space.ts';
import type { DeviceHost } from '../../pci/device-host.ts';
import { GuestMemory } from '../../pci/guest-memory.ts';
import type { PciFunction } from '../../pci/pci-function.ts';
import { HostBridge, IsaBridge } from './bridges.ts';
import { InterruptLines } from './interrupt-lines.ts';

export interface QtestPlatformOptions {
  loop: Loop;
  pool: FramePool;
  random: Random;
  log: Logger;
  /** RAM, a multiple of 16 up to RAM_LIMIT_BYTES; default 128 MiB. */
  ramBytes?: number;
  /** The slot where the search for a free one begins; default 2 (a PC's display is at 2 when it has one). */
  firstSlot?: number;
}

/** What a PCI function is plugged into: its DeviceHost, and its place on the bus. */
export interface QtestSlot extends DeviceHost {
  readonly slot: number;
  readonly fn: number;
}

export class QtestStats {
  /** Memory accesses where nothing answers, and port accesses. */
  unassignedMemory = 0;
  unassignedPorts = 0;
  /** Interrupt messages to addresses that are not RAM. */
  messagesElsewhere = 0;
}

export const RAM_LIMIT_BYTES = 3 * 2 ** 30;
const RAM_BYTES = 128 << 20;
const HOLE_START = 0xa0000;
const HOLE_END = 0x100000;
const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const CONFIG_ENABLE = 2 ** 31;
const SLOTS = 32;
const ADDRESS_LIMIT = 2 ** 52;
const LIMIT_32 = 2 ** 32;
const MULTIFUNCTION = 0x80;

/** A BAR, or the ROM (bar -1), as memory decodes it. */
interface Window {
  readonly fn: PciFunction;
  readonly bar: number;
  readonly start: number;
  readonly end: number;
}

export class QtestPlatform {
  readonly memory: GuestMemory;
  readonly lines = new InterruptLines();
  readonly stats = new QtestStats();
  readonly ram: Uint8Array;
  readonly #options: QtestPlatformOptions;
  readonly #firstSlot: number;
  /** By slot * 8 + function. */
  readonly #functions = new Map<number, PciFunction>();
  readonly #reserved = new Set<number>();
  #configAddress = 0;

  /** Throws OptionError for an amount of RAM that does not fit. */
  constructor(options: QtestPlatformOptions) {
    const ramBytes = options.ramBytes ?? RAM_BYTES;
    if (ramBytes < 16 || ramBytes > RAM_LIMIT_BYTES || ramBytes % 16 !== 0)
      throw new OptionError('the qtest platform has up to 3 GiB of RAM, in multiples of 16 bytes');
    this.#options = options;
    this.#firstSlot = options.firstSlot ?? 2;
    this.ram = new Uint8Array(ramBytes);
    this.memory = new GuestMemory(options.pool);
    const low = this.memory.add(0, this.ram.subarray(0, Math.min(ramBytes, HOLE_START)));
    const high = ramBytes <= HOLE_END || this.memory.add(HOLE_END, this.ram.subarray(HOLE_END));
    if (!low || !high) throw new InvariantError('the RAM of the qtest platform cannot be laid out');
    this.attach(this.slot({ slot: 0, fn: 0 }), (host) => new HostBridge(host));
    this.attach(
      this.slot({ slot: 1, fn: 0 }),
      (host) => new IsaBridge(host, (pirq, value) => this.lines.setRoute(pirq, value)),
    );
  }

  /** Takes a place on the bus, the one given or the next free slot. Throws OptionError when it is taken or there is none. */
  slot(place?: { readonly slot: number; readonly fn: number }): QtestSlot {
    const { slot, fn } = place ?? { slot: this.#freeSlot(), fn: 0 };
    const key = slot * 8 + fn;
    if (this.#reserved.has(key)) {
      const text = `${slot.toString(16).padStart(2, '0')}.${fn}`;
      throw new OptionError(
        `PCI: slot ${slot} function ${fn} not available, in use by the function at ${text}`,
        {
          option: 'addr',
        },
      );
    }
    this.#reserved.add(key);
    const { loop, random, log } = this.#options;
    return {
      slot,
      fn,
      memory: this.memory,
      loop,
      random,
      log,
      setIntx: (level) => {
        const pin = this.#functions.get(key)?.config.bytes[0x3d] ?? 1;
        this.lines.setPin(slot, Math.max(0, pin - 1), level);
      },
      // A message is a write to memory, wherever software pointed it.
      signalMsi: (_vector, address, data) => {
        if (!this.memory.putU32(address, data)) this.stats.messagesElsewhere++;
      },
    };
  }

  #freeSlot(): number {
    for (let slot = this.#firstSlot; slot < SLOTS; slot++) {
      let free = true;
      for (let fn = 0; fn < 8; fn++) free &&= !this.#reserved.has(slot * 8 + fn);
      if (free) return slot;
    }
    throw new OptionError('PCI: no slot/function available, all in use or reserved', { option: 'addr' });
  }

  /** Makes a function on a slot and puts it on the bus. */
  attach<T extends PciFunction>(host: QtestSlot, make: (host: QtestSlot) => T, multifunction = false): T {
    try {
      const made = make(host);
      if (multifunction) made.config.bytes[PCI_HEADER_TYPE] |= MULTIFUNCTION;
      this.#functions.set(host.slot * 8 + host.fn, made);
      return made;
    } catch (error) {
      this.release(host);
      throw error;
    }
  }

  /** Frees a place, whether or not a function was made on it; the function's owner closes it. */
  release({ slot, fn }: QtestSlot): void {
    const key = slot * 8 + fn;
    const gone = this.#functions.get(key);
    if (gone?.intxPin === true) this.lines.setPin(slot, Math.max(0, gone.config.bytes[0x3d] - 1), false);
    this.#functions.delete(key);
    this.#reserved.delete(key);
  }

  /** As power-on: every function, and RAM as it is. */
  reset(): void {
    this.#configAddress = 0;
    for (const one of this.#functions.values()) one.reset();
  }

  /** After the functions were closed. */
  close(): void {
    this.memory.removeAll();
  }

  // I/O ports.

  /** Reads `size` (1, 2 or 4) bytes at a port. */
  portRead(port: number, size: number): number {
    if (port === CONFIG_ADDRESS && size === 4) return this.#configAddress;
    if (port >= CONFIG_DATA && port < CONFIG_DATA + 4) {
      const one = this.#configured();
      return one === null ? ones(size) : one.readConfig(this.#configOffset(port), size);
    }
    const window = this.#portWindow(port);
    if (window !== null) return window.fn.readBar(window.bar, port - window.start, size) >>> 0;
    this.stats.unassignedPorts++;
    return ones(size);
  }

  portWrite(port: number, size: number, value: number): void {
    if (port === CONFIG_ADDRESS && size === 4) {
      this.#configAddress = value >>> 0;
      return;
    }
    if (port >= CONFIG_DATA && port < CONFIG_DATA + 4) {
      this.#configured()?.writeConfig(this.#configOffset(port), size, value >>> 0);
      return;
    }
    const window = this.#portWindow(port);
    if (window !== null) window.fn.writeBar(window.bar, port - window.start, size, value >>> 0);
    else this.stats.unassignedPorts++;
  }

  /** The function that CONFIG_ADDRESS names, on bus 0; null: nobody answers. */
  #configured(): PciFunction | null {
    const address = this.#configAddress;
    if (address < CONFIG_ENABLE || ((address >>> 16) & 0xff) !== 0) return null;
    return this.#functions.get((address >>> 8) & 0xff) ?? null;
  }

  /** The low two bits of CONFIG_ADDRESS count as well, as under QEMU, whose scripts use them. */
  #configOffset(port: number): number {
    return (this.#configAddress & 0xff) | (port & 3);
  }

  #portWindow(port: number): Window | null {
    for (const fn of this.#functions.values()) {
      if (!fn.ioEnabled) continue;
      for (const { index, kind, bytes } of fn.bars) {
        const start = kind === 'io' ? fn.barAddress(index) : 0;
        if (start !== 0 && port >= start && port < start + bytes && start + bytes <= 0x10000)
          return { fn, bar: index, start, end: start + bytes };
      }
    }
    return null;
  }

  // Memory.

  /** Copies `length` bytes at `address` to `target[at..)`: RAM by bytes, registers by aligned accesses of up to 4. */
  read(address: number, target: Uint8Array, at: number, length: number): void {
    while (length > 0) {
      const ram = this.#ramRun(address, length);
      let part = ram;
      if (ram > 0) {
        target.set(this.ram.subarray(address, address + ram), at);
      } else {
        const window = this.#memoryWindow(address);
        if (window === null) {
          part = this.#emptyRun(address, length);
          target.fill(0, at, at + part);
          this.stats.unassignedMemory++;
        } else {
          part = accessSize(address, Math.min(length, window.end - address));
          const value = readWindow(window, address - window.start, part);
          for (let i = 0; i < part; i++) target[at + i] = value >>> (8 * i);
        }
      }
      address += part;
      at += part;
      length -= part;
    }
  }

  /** The other way. Where nothing answers, nothing happens. */
  write(address: number, source: Uint8Array, at: number, length: number): void {
    while (length > 0) {
      const ram = this.#ramRun(address, length);
      let part = ram;
      if (ram > 0) {
        this.ram.set(source.subarray(at, at + ram), address);
      } else {
        const window = this.#memoryWindow(address);
        if (window === null) {
          part = this.#emptyRun(address, length);
          this.stats.unassignedMemory++;
        } else {
          part = accessSize(address, Math.min(length, window.end - address));
          let value = 0;
          for (let i = 0; i < part; i++) value |= source[at + i]! << (8 * i);
          if (window.bar >= 0) window.fn.writeBar(window.bar, address - window.start, part, value >>> 0);
        }
      }
      address += part;
      at += part;
      length -= part;
    }
  }

  /** Bytes of RAM in one piece at `address`, at most `length`; 0: it is not RAM. */
  #ramRun(address: number, length: number): number {
    const size = this.ram.length;
    if (address < HOLE_START) return Math.max(0, Math.min(length, Math.min(size, HOLE_START) - address));
    if (address < HOLE_END) return 0;
    return Math.max(0, Math.min(length, size - address));
  }

  /** Bytes at `address`, at most `length`, up to where RAM or a window begins. */
  #emptyRun(address: number, length: number): number {
    // Nothing lies so far up, and numbers are no longer exact.
    if (address >= ADDRESS_LIMIT) return length;
    let end = address + length;
    if (address < HOLE_END && this.ram.length > HOLE_END) end = Math.min(end, HOLE_END);
    for (const window of this.#windows()) if (window.start > address) end = Math.min(end, window.start);
    return end - address;
  }

  #memoryWindow(address: number): Window | null {
    for (const window of this.#windows()) if (address >= window.start && address < window.end) return window;
    return null;
  }

  /** What answers on the memory bus now. A BAR at 0, or one that would pass 4 GiB, is not mapped: software is sizing it. */
  *#windows(): Generator<Window> {
    for (const fn of this.#functions.values()) {
      if (!fn.memoryEnabled) continue;
      for (const { index, kind, bytes } of fn.bars) {
        const start = kind === 'io' ? 0 : fn.barAddress(index);
        const fits = kind === 'memory64' || start + bytes < LIMIT_32;
        if (start !== 0 && fits) yield { fn, bar: index, start, end: start + bytes };
      }
      if (fn.rom === null) continue;
      const rom = fn.readConfig(PCI_ROM, 4);
      const start = (rom & ~0x7ff) >>> 0;
      if ((rom & 1) !== 0 && start !== 0) yield { fn, bar: -1, start, end: start + fn.rom.length };
    }
  }
}

function ones(size: number): number {
  return 2 ** (8 * size) - 1;
}

/** The largest of 1, 2 and 4 bytes that is aligned at `address` and at most `length`. */
function accessSize(address: number, length: number): number {
  if (length >= 4 && address % 4 === 0) return 4;
  return length >= 2 && address % 2 === 0 ? 2 : 1;
}

function readWindow({ fn, bar }: Window, offset: number, size: number): number {
  if (bar >= 0) return fn.readBar(bar, offset, size);
  let value = 0;
  for (let i = 0; i < size; i++) value |= (fn.rom?.[offset + i] ?? 0xff) << (8 * i);
  return value;
}

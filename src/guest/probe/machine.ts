/**
 * The machine around the probe's NIC: RAM and interrupts, no CPU. RAM is two ranges: the driver's rings and receive buffers (GuestRam, from
 * address 0), and the guest's packet buffers, a FramePool of the guest's own at PACKETS_ADDRESS.
 *
 * An interrupt never runs the driver inside the device's call: a CPU takes it after the instruction, so it is a task for the loop's next
 * turn. INTx is a level: as long as it stands after the driver looked, the driver looks again, a bounded number of times a turn.
 */

import type { Random } from '../../core/clock.ts';
import { InvariantError } from '../../core/errors.ts';
import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import { FramePool } from '../../core/pool.ts';
import type { DeviceHost, SharedRam } from '../../pci/device-host.ts';
import { GuestMemory } from '../../pci/guest-memory.ts';
import { GuestRam } from '../driver/guest-ram.ts';

/** RAM that lies in a file which `handle` (host-io) names. */
export interface RamFile {
  readonly bytes: Uint8Array;
  readonly handle: number;
  close(): void;
}

export interface MachineOptions {
  loop: Loop;
  /** The network's pool, which the NIC takes its frames from. */
  pool: FramePool;
  random: Random;
  log: Logger;
  /** RAM for rings and receive buffers; default 2 MiB. */
  ramBytes?: number;
  /** Packet buffers of 2 KiB and of 72 KiB; default 1536 and 64, 7.6 MiB together. */
  smallBuffers?: number;
  largeBuffers?: number;
  /** Makes a file for RAM, of whole pages; absent: no other program can be let into this machine's RAM. */
  ramFile?: (lengthBytes: number) => RamFile;
  /** The packet buffers throw on use after release. */
  debug?: boolean;
}

const RAM_BYTES = 2 << 20;
const PAGE_BYTES = 4096;
/** Above any RAM a driver lays out, and below 4 GiB for devices with 32-bit DMA. */
const PACKETS_ADDRESS = 0x1000_0000;

export class ProbeMachine implements DeviceHost {
  readonly memory: GuestMemory;
  readonly loop: Loop;
  readonly random: Random;
  readonly log: Logger;
  readonly ram: GuestRam;
  readonly sharedRam?: SharedRam;
  /** The guest's packet buffers, and the guest address of their first byte. */
  readonly packets: FramePool;
  readonly packetsAddress = PACKETS_ADDRESS;
  /** The driver's interrupt handler. */
  onInterrupt: (() => void) | null = null;
  interrupts = 0;

  readonly #files: RamFile[] = [];
  #level = false;
  #posted = false;
  readonly #service: () => void;

  constructor(options: MachineOptions) {
    this.loop = options.loop;
    this.random = options.random;
    this.log = options.log;
    const { ramFile } = options;
    const ramBytes = options.ramBytes ?? RAM_BYTES;
    const allocate = (lengthBytes: number): Uint8Array => {
      const file = ramFile!(Math.ceil(lengthBytes / PAGE_BYTES) * PAGE_BYTES);
      this.#files.push(file);
      return file.bytes;
    };
    this.ram = new GuestRam(ramBytes, 0, ramFile && allocate(ramBytes));
    this.packets = new FramePool({
      smallSlots: options.smallBuffers ?? 1536,
      largeSlots: options.largeBuffers ?? 64,
      bareRecords: 16,
      debug: options.debug ?? false,
      ...(ramFile && { allocate }),
    });
    this.memory = new GuestMemory(options.pool);
    const laid = this.memory.add(0, this.ram.bytes) && this.memory.add(PACKETS_ADDRESS, this.packets.bytes);
    if (!laid) throw new InvariantError('the ranges of the probe machine overlap');
    if (ramFile !== undefined) {
      const addresses = [0, PACKETS_ADDRESS];
      this.sharedRam = {
        onChanged: null,
        ranges: this.#files.map(({ bytes, handle }, i) => ({
          address: addresses[i]!,
          length: bytes.length,
          handle,
          offset: 0,
        })),
      };
    }
    this.#service = () => {
      this.#posted = false;
      this.interrupts++;
      this.onInterrupt?.();
      if (this.#level) this.#post();
    };
  }

  setIntx(level: boolean): void {
    this.#level = level;
    if (level) this.#post();
  }

  signalMsi(): void {
    this.#post();
  }

  #post(): void {
    if (this.#posted || this.onInterrupt === null) return;
    this.#posted = true;
    this.loop.post(this.#service);
  }

  /** After the NIC was closed. */
  close(): void {
    this.onInterrupt = null;
    this.memory.removeAll();
    for (const file of this.#files.splice(0)) file.close();
  }
}

/**
 * A guest in this process whose NIC's queues are handed to a vhost-user back-end: a network with the netdev, a probe machine with its RAM in a file, and the driver's half of virtio-net. Used by the
 * tests of the netdev, by those against other programs' back-ends, and by the bench.
 */

import { nodeBackends } from '../../src/backends/index.ts';
import { readChardev } from '../../src/config/chardevs.ts';
import { type Clock, SystemClock, seededRandom } from '../../src/core/clock.ts';
import type { Logger } from '../../src/core/log.ts';
import { PacketBatch } from '../../src/guest/driver/driver.ts';
import { VirtioDriver, type VirtioDriverOptions } from '../../src/guest/driver/virtio-driver.ts';
import { ProbeMachine } from '../../src/guest/probe/machine.ts';
import { NativeHostIo } from '../../src/host-io/native.ts';
import { openRamFile } from '../../src/host-io/ram-file.ts';
import { type Device, type Netdev, Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';
import { VirtioNet } from '../../src/nic/virtio-net/index.ts';

export interface VhostGuestOptions {
  /** The unix socket. */
  readonly path: string;
  /** We listen at it; default: we connect. */
  readonly server?: boolean;
  readonly reconnectMs?: number;
  readonly queues?: number;
  /** Properties of the NIC. */
  readonly properties?: object;
  readonly driver?: Partial<VirtioDriverOptions>;
  readonly clock?: Clock;
  readonly log?: Logger;
  readonly ramBytes?: number;
}

const SLOT_BYTES = 2048;
const SLOTS = 512;

export class VhostGuest {
  readonly hostIo = new NativeHostIo();
  readonly network: Network;
  readonly events: string[] = [];
  readonly machine: ProbeMachine;
  readonly options: VhostGuestOptions;
  /** Frames that arrived, as copies, and how many packets were reported sent. */
  readonly received: Uint8Array[] = [];
  sent = 0;
  readonly links: boolean[] = [];
  netdev!: Netdev;
  device!: Device;
  driver!: VirtioDriver;
  readonly #batch = new PacketBatch(SLOTS);
  #slots = 0;
  #slot = 0;

  /** Resolves when a back-end has said hello and the driver has begun. */
  static async make(options: VhostGuestOptions): Promise<VhostGuest> {
    const guest = new VhostGuest(options);
    try {
      await guest.openNetdev();
      guest.plug();
    } catch (error) {
      guest.close();
      throw error;
    }
    return guest;
  }

  constructor(options: VhostGuestOptions) {
    this.options = options;
    const { hostIo } = this;
    this.network = new Network({
      clock: options.clock ?? new SystemClock(() => performance.now()),
      random: seededRandom(7),
      backends: nodeBackends,
      nics,
      hostIo,
      onEvent: (name) => this.events.push(name),
      ...(options.log && { log: options.log }),
    });
    const { loop, pool, context } = this.network;
    hostIo.drive(loop);
    this.machine = new ProbeMachine({
      loop,
      pool,
      random: context.random,
      log: context.log,
      ramBytes: options.ramBytes ?? 16 << 20,
      ramFile: (lengthBytes) => openRamFile(hostIo, lengthBytes),
    });
  }

  async openNetdev(): Promise<void> {
    const { path, server = false, reconnectMs = 0, queues = 1 } = this.options;
    const { network } = this;
    await network.chardevs.open(
      readChardev({
        id: 'c0',
        backend: 'socket',
        path,
        server,
        ...(server && { wait: false }),
        ...(reconnectMs > 0 && { 'reconnect-ms': reconnectMs }),
      }),
    );
    this.netdev = await network.addNetdev({ type: 'vhost-user', id: 'n0', chardev: 'c0', queues });
  }

  plug(): void {
    const { machine, network, options } = this;
    const { queues = 1 } = options;
    this.device = network.addDevice({
      driver: 'virtio-net-pci',
      id: 'net0',
      netdev: 'n0',
      host: machine,
      ...(queues > 1 && { mq: true }),
      ...options.properties,
    } as Parameters<Network['addDevice']>[0]);
    this.driver = new VirtioDriver({
      pci: this.nic,
      ram: machine.ram,
      loop: network.loop,
      queuePairs: queues,
      ...options.driver,
    });
    this.driver.listener = {
      received: (address, length) => {
        const at = machine.ram.offset(address);
        this.received.push(machine.ram.bytes.slice(at, at + length));
      },
      sent: (count) => {
        this.sent += count;
      },
      linkChanged: (up) => this.links.push(up),
    };
    machine.onInterrupt = () => this.driver.interrupt();
    this.#slots = machine.ram.allocate(SLOTS * SLOT_BYTES, 64);
    if (!this.driver.open()) throw new Error('the driver does not know the NIC');
  }

  get nic(): VirtioNet {
    const { nic } = this.device;
    if (!(nic instanceof VirtioNet)) throw new Error('not a virtio-net');
    return nic;
  }

  /** Counters of the netdev. */
  get stats(): Readonly<Record<string, number>> {
    return this.netdev.stats as Readonly<Record<string, number>>;
  }

  /** Queues copies of these frames on a pair; returns how many the driver took. */
  send(frames: readonly Uint8Array[], pair = 0): number {
    const { ram } = this.machine;
    for (const [i, frame] of frames.entries()) {
      const address = this.#slots + SLOT_BYTES * this.#slot;
      ram.bytes.set(frame, ram.offset(address));
      this.#batch.plain(i, address, frame.length);
      this.#slot = (this.#slot + 1) % SLOTS;
    }
    this.driver.sendPair = pair;
    return this.driver.send(this.#batch, 0, frames.length);
  }

  /** Waits, without a clock, until what is asked for holds. */
  async until(holds: () => boolean, turnsMax = 1_000_000): Promise<void> {
    for (let turns = 0; !holds(); turns++) {
      if (turns > turnsMax)
        throw new Error(
          `it never came to hold: ${this.received.length} received, ${this.sent} sent, ${JSON.stringify(this.stats)}`,
        );
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  close(): void {
    this.driver?.close();
    this.network.close();
    this.machine.close();
    this.hostIo.shutdown();
  }
}

/** A frame that a switch floods or turns round: broadcast, of an experimental type, with a number in it. */
export function numbered(number: number, length = 64): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = i < 6 ? 0xff : i < 12 ? 0x52 + i : (i * 7 + number) & 0xff;
  bytes[6] = 0x52;
  bytes[12] = 0x88;
  bytes[13] = 0xb5;
  bytes[14] = number >> 8;
  bytes[15] = number;
  return bytes;
}

export const numberOf = (frame: Uint8Array): number => (frame[14]! << 8) | frame[15]!;

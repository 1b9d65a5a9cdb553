/**
 * What a bench run drives: something that moves frames when it is asked to, and counts them.
 *
 *   NIC, tx       driver ─▶ NIC ─▶ sink, or the netdev
 *   NIC, rx       source ─▶ NIC ─▶ driver, or netdev ─▶ NIC ─▶ driver
 *   netdevs, tx   source ─▶ netdev, or ─▶ hub ─▶ netdevs
 *   netdevs, rx   netdev ─▶ sink
 *
 * Frames are Ethernet frames of the experimental type 0x88b5 to the broadcast address, so whatever stands at the far end sees them and
 * answers nothing. Where traffic comes from a netdev (rx), somebody at its other end has to send it.
 */

import type { DeviceConfig } from '../../config/devices/index.ts';
import { LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import { type Client, Port } from '../../core/port.ts';
import { readCounters } from '../../core/stats.ts';
import { type NicDriver, PacketBatch } from '../../guest/driver/driver.ts';
import { driverModel } from '../../guest/driver/index.ts';
import { ProbeMachine } from '../../guest/probe/machine.ts';
import type { Netdev, Network } from '../../network/network.ts';
import type { Direction } from './options.ts';

const ETHERTYPE_EXPERIMENTAL = 0x88b5;

export interface Workload {
  /** Frames that arrived at the end of what is measured, and their bytes. */
  frames: number;
  bytes: number;
  /** Moves up to a batch; false: nothing could be moved now. */
  step(): boolean;
  /** Frames that were lost, by who lost them and why. */
  drops(): Record<string, number>;
  close(): void;
}

/** Sends fresh frames, and takes and counts whatever comes. */
class BenchClient implements Client {
  readonly port: Port;
  frames = 0;
  bytes = 0;
  readonly #network: Network;
  readonly #frameBytes: number;
  readonly #batch: Int32Array;
  #waiting = 0;

  constructor(network: Network, frameBytes: number, batch: number) {
    this.#network = network;
    this.#frameBytes = frameBytes;
    this.#batch = new Int32Array(batch);
    this.port = new Port('bench', 'nic', this, network.context);
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#network;
    for (let i = from; i < to; i++) this.bytes += pool.table[frames[i]! + TOTAL]!;
    this.frames += to - from;
    pool.releaseAll(frames, from, to);
    return to - from;
  }

  peerReady(): void {}

  /** Offers a batch, refused frames first; returns how many were taken. */
  send(): number {
    const { pool } = this.#network;
    const batch = this.#batch;
    while (this.#waiting < batch.length) {
      const frame = pool.alloc(this.#frameBytes);
      if (frame === 0) break;
      const at = pool.table[frame + OFFSET]!;
      writeBenchFrame(pool.bytes, at, this.#frameBytes);
      pool.table[frame + LENGTH] = this.#frameBytes;
      pool.table[frame + TOTAL] = this.#frameBytes;
      batch[this.#waiting++] = frame;
    }
    const taken = this.port.send(batch, 0, this.#waiting);
    batch.copyWithin(0, taken, this.#waiting);
    this.#waiting -= taken;
    return taken;
  }

  close(): void {
    this.port.disconnect();
    this.#network.pool.releaseAll(this.#batch, 0, this.#waiting);
    this.#waiting = 0;
  }
}

function writeBenchFrame(bytes: Uint8Array, at: number, length: number): void {
  for (let i = 0; i < 6; i++) bytes[at + i] = 0xff;
  for (let i = 6; i < 12; i++) bytes[at + i] = 0x52;
  bytes[at + 12] = ETHERTYPE_EXPERIMENTAL >> 8;
  bytes[at + 13] = ETHERTYPE_EXPERIMENTAL & 0xff;
  if (length > 14) bytes[at + 14] = (bytes[at + 14]! + 1) & 0xff;
}

function collectDrops(out: Record<string, number>, name: string, stats: object): void {
  for (const [counter, value] of Object.entries(readCounters(stats))) {
    if (/drop/i.test(counter) && value > 0) out[`${name}.${counter}`] = value;
  }
}

/** A NIC driven through its registers. */
export function nicWorkload(
  network: Network,
  config: DeviceConfig,
  netdev: Netdev | undefined,
  direction: Direction,
  frameBytes: number,
  batchSize: number,
): Workload {
  const { loop, pool, context } = network;
  const machine = new ProbeMachine({ loop, pool, random: context.random, log: context.log });
  const device = network.makeDevice({ ...config, netdev: netdev?.id }, machine);
  const client = netdev === undefined ? new BenchClient(network, frameBytes, batchSize) : null;
  if (client !== null) Port.connect(client.port, device.nic.ports[0]!);
  const driver: NicDriver = driverModel(config.model).create({
    pci: device.nic,
    ram: machine.ram,
    loop,
    ipMtuBytes: Math.max(1500, frameBytes - 14),
    promiscuous: true,
  });
  const batch = new PacketBatch(batchSize);
  const address = machine.ram.allocate(batchSize * Math.max(64, frameBytes), 64);
  let outstanding = 0;
  let received = 0;
  let receivedBytes = 0;
  driver.listener = {
    received(_address, length) {
      received++;
      receivedBytes += length;
    },
    sent(count) {
      outstanding -= count;
    },
  };
  machine.onInterrupt = () => {
    driver.interrupt();
  };
  if (!driver.open()) throw new Error(`the driver does not know this ${config.model}`);
  for (let i = 0; i < batchSize; i++) {
    const at = address + i * Math.max(64, frameBytes);
    writeBenchFrame(machine.ram.bytes, at - machine.ram.address, frameBytes);
    batch.plain(i, at, frameBytes);
  }
  let sent = 0;
  return {
    get frames() {
      if (direction === 'rx') return received;
      return client?.frames ?? device.nic.ports[0]!.stats.sentFrames;
    },
    get bytes() {
      if (direction === 'rx') return receivedBytes;
      return client?.bytes ?? device.nic.ports[0]!.stats.sentBytes;
    },
    step() {
      if (direction === 'tx') {
        if (outstanding === 0) {
          sent = driver.send(batch, 0, batchSize);
          outstanding = sent;
        }
        driver.interrupt();
        return outstanding === 0 && sent > 0;
      }
      const taken = client === null ? 0 : client.send();
      const served = driver.interrupt();
      return taken > 0 || served;
    },
    drops() {
      const out: Record<string, number> = {};
      collectDrops(out, device.id, device.nic.stats);
      collectDrops(out, `${device.id}.port`, device.nic.ports[0]!.stats);
      if (client !== null) collectDrops(out, 'bench.port', client.port.stats);
      if (netdev !== undefined) {
        collectDrops(out, netdev.id, netdev.stats);
        collectDrops(out, `${netdev.id}.port`, netdev.ports[0]!.stats);
      }
      return out;
    },
    close() {
      driver.close();
      client?.close();
      network.removeDevice(device.id);
      machine.close();
    },
  };
}

/** The bench itself plugged into a netdev; `entry` is the netdev, or the hub port that leads to several. */
export function netdevWorkload(
  network: Network,
  entry: Netdev,
  netdevs: readonly Netdev[],
  direction: Direction,
  frameBytes: number,
  batchSize: number,
): Workload {
  const client = new BenchClient(network, frameBytes, batchSize);
  Port.connect(client.port, entry.ports[0]!);
  return {
    get frames() {
      return direction === 'rx' ? client.frames : client.port.stats.sentFrames;
    },
    get bytes() {
      return direction === 'rx' ? client.bytes : client.port.stats.sentBytes;
    },
    step: () => direction === 'tx' && client.send() > 0,
    drops() {
      const out: Record<string, number> = {};
      collectDrops(out, 'bench.port', client.port.stats);
      for (const netdev of netdevs) {
        collectDrops(out, netdev.id, netdev.stats);
        collectDrops(out, `${netdev.id}.port`, netdev.ports[0]!.stats);
      }
      return out;
    },
    close: () => client.close(),
  };
}

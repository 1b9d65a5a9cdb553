/** netemu in this process, with a NIC on a vfio-user socket: what the tests here put a QEMU guest on. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeBackends } from '../../../src/backends/index.ts';
import type { DeviceInput } from '../../../src/config/devices/index.ts';
import type { NetdevInput } from '../../../src/config/netdevs/index.ts';
import { SystemClock, seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { VfioUserHost, VfioUserServer } from '../../../src/guest/vfio-user/index.ts';
import { openFileSink } from '../../../src/host-io/file-sink.ts';
import { NativeHostIo } from '../../../src/host-io/native.ts';
import { type Device, Network } from '../../../src/network/network.ts';
import { nics } from '../../../src/nic/index.ts';

export interface RigOptions {
  netdev?: NetdevInput;
  device: DeviceInput;
  /** How long the host I/O looks again before it sleeps. */
  busyPollNs?: number;
  /** An expansion ROM for the NIC. */
  rom?: Uint8Array;
}

export class Rig {
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-rig-'));
  readonly path = join(this.folder, 'nic.sock');
  readonly hostIo: NativeHostIo;
  readonly network: Network;
  readonly host: VfioUserHost;
  readonly device: Device;
  readonly server: VfioUserServer;

  static async make(options: RigOptions): Promise<Rig> {
    const hostIo = new NativeHostIo(undefined, { busyPollNs: options.busyPollNs ?? 0 });
    const clock = new SystemClock(() => performance.now());
    const network = new Network({
      clock,
      random: seededRandom(7),
      backends: nodeBackends,
      nics,
      hostIo,
      openFile: openFileSink,
    });
    hostIo.drive(network.loop);
    if (options.netdev !== undefined) await network.addNetdev(options.netdev);
    return new Rig(hostIo, network, options);
  }

  private constructor(hostIo: NativeHostIo, network: Network, { device, rom }: RigOptions) {
    this.hostIo = hostIo;
    this.network = network;
    const { pool, loop } = network;
    this.host = new VfioUserHost({ pool, loop, random: seededRandom(8), log: silentLogger });
    this.device = network.addDevice({ ...device, host: this.host });
    const { nic } = this.device;
    if (rom !== undefined) nic.setRom(rom);
    this.server = new VfioUserServer({
      path: this.path,
      function: nic,
      host: this.host,
      hostIo,
      loop,
      log: silentLogger,
    });
  }

  /** QEMU's arguments for a guest on this NIC; `extra` are more properties of the device. */
  qemuArgs(extra: object = {}): string[] {
    return [
      '-device',
      JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: this.path }, ...extra }),
    ];
  }

  close(): void {
    this.server.close();
    this.network.close();
    this.hostIo.shutdown();
    rmSync(this.folder, { recursive: true });
  }
}

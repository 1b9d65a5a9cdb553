/** netemu in this process, with NICs on vhost-user sockets: what the tests here put QEMU's guests on. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeBackends } from '../../../src/backends/index.ts';
import type { DeviceInput } from '../../../src/config/devices/index.ts';
import type { NetdevInput } from '../../../src/config/netdevs/index.ts';
import { SystemClock, seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { VhostUserBackend, VhostUserHost } from '../../../src/guest/vhost-user/index.ts';
import { openFileSink } from '../../../src/host-io/file-sink.ts';
import { NativeHostIo } from '../../../src/host-io/native.ts';
import { Network } from '../../../src/network/network.ts';
import { nics } from '../../../src/nic/index.ts';
import { VirtioNet } from '../../../src/nic/virtio-net/index.ts';
import type { QemuVersion } from '../lib/guest.ts';

/** The driver of a test's guest, loaded, and its address by DHCP. */
export const LOAD = 'modprobe virtio_pci; modprobe virtio_net; ip link set eth0 up';
export const LEASE = 'udhcpc -n -q -t 10 -T 1 -i eth0';

export class Rig {
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-vhost-'));
  readonly hostIo = new NativeHostIo(undefined, { busyPollNs: 20_000 });
  readonly network: Network;
  readonly #seats: Seat[] = [];

  static async make(...netdevs: readonly NetdevInput[]): Promise<Rig> {
    const rig = new Rig();
    for (const netdev of netdevs) await rig.network.addNetdev(netdev);
    return rig;
  }

  private constructor() {
    const { hostIo } = this;
    this.network = new Network({
      clock: new SystemClock(() => performance.now()),
      random: seededRandom(7),
      backends: nodeBackends,
      nics,
      hostIo,
      openFile: openFileSink,
    });
    hostIo.drive(this.network.loop);
  }

  /** A NIC with a socket; `listen`: ours, else QEMU's. */
  seat(device: DeviceInput, listen = true): Seat {
    const seat = new Seat(this, join(this.folder, `vm${this.#seats.length}.sock`), device, listen);
    this.#seats.push(seat);
    return seat;
  }

  close(): void {
    for (const seat of this.#seats) seat.backend.close();
    this.network.close();
    this.hostIo.shutdown();
    rmSync(this.folder, { recursive: true });
  }
}

export interface QemuNic {
  qemu: QemuVersion;
  queues?: number;
  /** More properties of QEMU's device. */
  properties?: string;
  mac?: string;
  /** What QEMU's parts of it are called; one of several needs a name of its own. */
  id?: string;
}

export class Seat {
  readonly path: string;
  readonly host: VhostUserHost;
  readonly nic: VirtioNet;
  backend: VhostUserBackend;
  readonly #rig: Rig;
  readonly #listen: boolean;

  constructor(rig: Rig, path: string, device: DeviceInput, listen: boolean) {
    this.path = path;
    this.#rig = rig;
    this.#listen = listen;
    const { pool, loop } = rig.network;
    this.host = new VhostUserHost({ pool, loop, random: seededRandom(8), log: silentLogger });
    const { nic } = rig.network.addDevice({ ...device, host: this.host });
    if (!(nic instanceof VirtioNet)) throw new Error('not a virtio-net');
    this.nic = nic;
    this.backend = this.serve();
  }

  serve(): VhostUserBackend {
    const { path, host, nic } = this;
    const { hostIo, network } = this.#rig;
    this.backend = new VhostUserBackend({
      path,
      listen: this.#listen,
      device: nic,
      host,
      hostIo,
      loop: network.loop,
      log: silentLogger,
    });
    return this.backend;
  }

  qemuArgs(options: QemuNic): string[] {
    return vhostUserArgs({ ...options, path: this.path, listen: this.#listen });
  }
}

/** QEMU's arguments for a NIC whose back-end is at `path`; `listen`: it listens there. */
export function vhostUserArgs(options: QemuNic & { path: string; listen: boolean }): string[] {
  const { path, listen, qemu, queues = 1, properties = '', mac = '52:54:00:aa:bb:cc', id = 'vm' } = options;
  const reconnect = qemu === '7.2' ? ',reconnect=1' : ',reconnect-ms=200';
  return [
    '-chardev',
    `socket,id=${id},path=${path}${listen ? reconnect : ',server=on,wait=off'}`,
    '-netdev',
    `vhost-user,id=${id}-net,chardev=${id},queues=${queues}`,
    '-device',
    // Without KVM, QEMU 7.2 ends by a null pointer of its own when a vhost device with MSI-X starts: it gets the INTx line.
    `virtio-net-pci,netdev=${id}-net,mac=${mac}${qemu === '7.2' ? ',vectors=0' : ''}${properties}`,
  ];
}

/** What every NIC model is to those who hold it: a PCI function with ports, a filter that can be asked, counters, and a state that can be saved. */

import type { Logger } from '../core/log.ts';
import type { LinkContext, Port } from '../core/port.ts';
import type { DeviceHost } from '../pci/device-host.ts';
import type { PciFunction } from '../pci/pci-function.ts';
import type { QueueServer } from '../virtio/hand-over.ts';
import type { DriverReport } from './driver-report.ts';
import type { RxFilterInfo } from './rx-filter.ts';

export interface Nic extends PciFunction {
  readonly model: string;
  /** One port for each queue pair; most models have one. */
  readonly ports: readonly Port[];
  /** The address it was configured with; the guest may use another one (see `queryRxFilter`). */
  readonly mac: Uint8Array;
  readonly stats: object;
  /** What the driver did against the manual; null without `strict=on`. */
  readonly driverReport: DriverReport | null;
  /** How long the virtio_net_hdr is that the guest puts in front of each frame; absent: its frames have none. */
  readonly vnetHdrBytes?: number;
  queryRxFilter(name: string): RxFilterInfo;
  /** Called when the filter changes, once until the next query. */
  onRxFilterChanged: (() => void) | null;
  /** The whole state as plain JSON. */
  saveState(): object;
  /** Takes a saved state; throws OptionError, and changes nothing, when it is not one of this model. */
  loadState(state: unknown): void;
}

/** What a NIC model needs: the machine it is plugged into and the network's pool, loop and offload routine. */
export interface NicSite {
  readonly host: DeviceHost;
  readonly link: LinkContext;
  /** The port's name, as operators see it. */
  readonly name: string;
  /** Queues of the netdev that it will be plugged into; absent: 1. */
  readonly queues?: number;
  /** Whoever serves the NIC's queues in place of the NIC; only a virtio device can have one. Absent: the NIC itself. */
  readonly server?: QueueServer;
  /** Where `strict=on` tells of a driver's faults; absent: they are only counted. */
  readonly log?: Logger;
}

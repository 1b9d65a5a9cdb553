/** What every NIC model is to the network that holds it: a PCI function whose queues are clients of ports. */

import type { Port } from '../core/port.ts';
import type { PciFunction } from '../pci/pci-function.ts';
import type { RxFilterInfo } from './rx-filter.ts';

export interface Nic extends PciFunction {
  readonly model: 'e1000' | 'rtl8139' | 'virtio-net';
  /** One for each queue. */
  readonly ports: readonly Port[];
  /** The permanent address, 6 bytes. */
  readonly mac: Uint8Array;
  /** Counters as public number fields. */
  readonly stats: object;
  /** What `query-rx-filter` answers. */
  rxFilterInfo(name: string): RxFilterInfo;
  /** Whole state as JSON; `restore` checks it as if a guest had written it, and throws OptionError when it is not one of ours. */
  save(): unknown;
  restore(state: unknown): void;
  /** Stops, releases every frame and leaves its ports disconnected. Harmless when repeated. */
  close(): void;
}

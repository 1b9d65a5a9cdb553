/**
 * THE TABLE of NIC models: one row a model. The configuration builds its schema, its help and its devices from here; conformance suites run over
 * every row.
 */

import { E1000 } from './e1000/index.ts';
import type { Nic, NicSite } from './nic.ts';

/** One property of a model, beside those that all models have (mac, netdev, addr, bootindex, romfile). */
export interface NicProperty {
  readonly name: string;
  readonly kind: 'bool' | 'uint16' | 'uint32' | 'string';
  readonly default: boolean | number | string;
  readonly doc: string;
}

export interface NicModel {
  readonly name: string;
  readonly description: string;
  readonly properties: readonly NicProperty[];
  /** `mac`: 6 bytes. `properties` holds checked values by name; absent ones have their defaults. */
  create(
    site: NicSite,
    mac: Uint8Array,
    properties: Readonly<Record<string, boolean | number | string>>,
  ): Nic;
}

const E1000_MODEL: NicModel = {
  name: 'e1000',
  description: 'Intel Gigabit Ethernet (82540EM)',
  properties: [
    {
      name: 'init-vet',
      kind: 'bool',
      default: true,
      doc: 'VET holds 0x8100 after reset, as drivers expect that never write it',
    },
    {
      name: 'mitigation',
      kind: 'bool',
      default: true,
      doc: 'interrupts are delayed and throttled as the driver sets ITR, RDTR, RADV, TIDV and TADV',
    },
  ],
  create: (site, mac, properties) =>
    new E1000(site, {
      mac,
      initVet: properties['init-vet'] !== false,
      mitigation: properties.mitigation !== false,
    }),
};

export const NIC_MODELS: readonly NicModel[] = [E1000_MODEL];

export type { Nic, NicSite } from './nic.ts';

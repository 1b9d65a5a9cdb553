/** THE TABLE of NIC models: how each is made from its checked properties (config/devices/ has the schema). Conformance suites run over every row. */

import type { DeviceConfig, NicModelName } from '../config/devices/index.ts';
import { notInThisBuild } from '../core/errors.ts';
import { E1000 } from './e1000/index.ts';
import type { Nic, NicSite } from './nic.ts';
import { Rtl8139 } from './rtl8139/index.ts';
import { VirtioNet } from './virtio-net/index.ts';

type MakeNic<K extends NicModelName> = (
  site: NicSite,
  mac: Uint8Array,
  config: Extract<DeviceConfig, { readonly model: K }>,
) => Nic;

export type NicTable = { readonly [K in NicModelName]?: MakeNic<K> };

export const nics: NicTable = {
  e1000: (site, mac, { initVet, mitigation, strict }) =>
    new E1000(site, { mac, initVet, mitigation, strict }),
  rtl8139: (site, mac, { chip, strict }) => new Rtl8139(site, { mac, chip, strict }),
  'virtio-net': (site, mac, config) => new VirtioNet(site, { ...config, mac, ports: site.queues ?? 1 }),
};

/** `mac`: the permanent address, 6 bytes. Throws UnsupportedError for a model that the table lacks. */
export function createNic(table: NicTable, config: DeviceConfig, site: NicSite, mac: Uint8Array): Nic {
  // The table pairs each model with its own properties, which an index by a union cannot express.
  const make = table[config.model] as MakeNic<NicModelName> | undefined;
  if (make === undefined) throw notInThisBuild(`NIC model '${config.model}'`);
  return make(site, mac, config);
}

export type { Nic, NicSite } from './nic.ts';

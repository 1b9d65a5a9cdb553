/** THE TABLE of drivers: the half of each NIC model that runs in a guest. */

import { UnsupportedError } from '../../core/errors.ts';
import type { DriverOptions, NicDriver } from './driver.ts';
import { E1000Driver } from './e1000-driver.ts';
import { Rtl8139Driver } from './rtl8139-driver.ts';
import { VirtioDriver } from './virtio-driver.ts';

export interface DriverModel {
  /** The model's name in nic/index.ts. */
  readonly model: string;
  /** What its link is, for people. */
  readonly speedText: string;
  create(options: DriverOptions): NicDriver;
}

export const DRIVER_MODELS: readonly DriverModel[] = [
  { model: 'e1000', speedText: '1000 Mb/s full duplex', create: (options) => new E1000Driver(options) },
  { model: 'rtl8139', speedText: '100 Mb/s full duplex', create: (options) => new Rtl8139Driver(options) },
  { model: 'virtio-net', speedText: 'virtual', create: (options) => new VirtioDriver(options) },
];

/** The driver of a model. Throws UnsupportedError when there is none. */
export function driverModel(model: string): DriverModel {
  const row = DRIVER_MODELS.find((candidate) => candidate.model === model);
  if (row === undefined) throw new UnsupportedError(`there is no driver for NIC model '${model}'`);
  return row;
}

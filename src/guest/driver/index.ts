/** THE TABLE of drivers: the half of each NIC model that runs in a guest. */

import type { DriverOptions, NicDriver } from './driver.ts';
import { E1000Driver } from './e1000-driver.ts';

export interface DriverModel {
  /** The model's name in nic/index.ts. */
  readonly model: string;
  /** What its link is, for people. */
  readonly speedText: string;
  create(options: DriverOptions): NicDriver;
}

export const DRIVER_MODELS: readonly DriverModel[] = [
  { model: 'e1000', speedText: '1000 Mb/s full duplex', create: (options) => new E1000Driver(options) },
];

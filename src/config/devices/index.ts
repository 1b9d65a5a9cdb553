/**
 * The NIC models as options see them: names, aliases and properties. (The models themselves are in nic/.)
 *
 * A driver name leads to a model and to the name QEMU has for it in messages: `virtio-net` is `virtio-net-pci`
 * there, and its two variants have names of their own.
 */
import { OptionError } from '../../core/errors.ts';
import { isJsonObject, parseJson } from '../json.ts';
import { splitKeyval } from '../keyval.ts';
import { type ReadContext, wrongType } from '../kinds.ts';
import { nearest } from '../nearest.ts';
import { missing, readJson, readKeyval } from '../read.ts';
import type { InputOf, OptionsOf, OptionTable } from '../schema.ts';
import {
  type NicCommon,
  nicCommonOptions,
  notADeviceModel,
  propertyBadValue,
  resolveNicCommon,
} from './common.ts';
import { type E1000Properties, e1000Options, resolveE1000 } from './e1000.ts';
import { type Rtl8139Properties, resolveRtl8139, rtl8139Options } from './rtl8139.ts';
import { resolveVirtioNet, type VirtioNetProperties, virtioNetOptions } from './virtio-net.ts';

/** THE TABLE of models: what each has beyond nicCommonOptions. */
export const nicModels = {
  e1000: { summary: 'Intel 82540EM gigabit Ethernet', options: e1000Options },
  rtl8139: { summary: 'Realtek RTL8139 and 8139C+ fast Ethernet', options: rtl8139Options },
  'virtio-net': { summary: 'virtio network device', options: virtioNetOptions },
} as const;

export type NicModelName = keyof typeof nicModels;

export interface AnyDriver {
  readonly model: NicModelName;
  /** The name in messages and in the monitor's object tree. */
  readonly qomType: string;
  readonly aliasOf?: string;
}

/** Every name that `--device` takes. */
export const nicDrivers: { readonly [driver: string]: AnyDriver } = {
  e1000: { model: 'e1000', qomType: 'e1000' },
  'e1000-82540em': { model: 'e1000', qomType: 'e1000', aliasOf: 'e1000' },
  rtl8139: { model: 'rtl8139', qomType: 'rtl8139' },
  'virtio-net': { model: 'virtio-net', qomType: 'virtio-net-pci', aliasOf: 'virtio-net-pci' },
  'virtio-net-pci': { model: 'virtio-net', qomType: 'virtio-net-pci' },
  'virtio-net-pci-transitional': { model: 'virtio-net', qomType: 'virtio-net-pci-transitional' },
  'virtio-net-pci-non-transitional': { model: 'virtio-net', qomType: 'virtio-net-pci-non-transitional' },
};

/** A checked NIC; `model` tells which properties it has. */
export type DeviceConfig = { readonly qomType: string } & NicCommon &
  (
    | ({ readonly model: 'e1000' } & E1000Properties)
    | ({ readonly model: 'rtl8139' } & Rtl8139Properties)
    | ({ readonly model: 'virtio-net' } & VirtioNetProperties)
  );

type CommonInput = InputOf<typeof nicCommonOptions>;

/** What a caller of the embedding API may write. */
export type DeviceInput =
  | ({ readonly driver: 'e1000' | 'e1000-82540em' } & CommonInput & InputOf<typeof e1000Options>)
  | ({ readonly driver: 'rtl8139' } & CommonInput & InputOf<typeof rtl8139Options>)
  | ({
      readonly driver: `virtio-net${'' | '-pci' | '-pci-transitional' | '-pci-non-transitional'}`;
    } & CommonInput &
      InputOf<typeof virtioNetOptions>);

/** Parses the argument of `--device`, key=value or JSON. Throws OptionError. */
export function parseDevice(argument: string): DeviceConfig {
  if (argument.startsWith('{')) return readDevice(parseJson(argument));
  const entries = splitKeyval(argument, 'driver');
  const name = entries.findLast(({ key }) => key === 'driver')?.value;
  if (name === undefined) throw missing('driver');
  const driver = driverNamed(name);
  const own = entries.filter(({ key }) => key !== 'driver');
  return resolveDevice(driver, readKeyval(propertiesOf(driver), own, contextFor(driver, 'command-line')));
}

/** Reads the arguments of `device_add`, or a DeviceInput. Throws OptionError. */
export function readDevice(value: unknown): DeviceConfig {
  if (!isJsonObject(value)) throw new OptionError('Invalid parameter type, expected: object');
  const { driver: name, ...members } = value;
  if (name === undefined) throw missing('driver');
  if (typeof name !== 'string') throw wrongType('driver', 'string');
  const driver = driverNamed(name);
  return resolveDevice(driver, readJson(propertiesOf(driver), members, contextFor(driver, 'json')));
}

/** The driver of that name, or the sentence for one that is none. */
export function driverNamed(name: string): AnyDriver {
  if (!Object.hasOwn(nicDrivers, name)) throw notADeviceModel(name, nearest(name, Object.keys(nicDrivers)));
  return nicDrivers[name]!;
}

/** All properties of a driver. */
export function propertiesOf(driver: AnyDriver): OptionTable {
  return { ...nicCommonOptions, ...nicModels[driver.model].options };
}

function contextFor(driver: AnyDriver, source: ReadContext['source']): ReadContext {
  return {
    source,
    voice: 'properties',
    unknown: (name) => `Property '${driver.qomType}.${name}' not found`,
    badMac: (name, text) => propertyBadValue(driver.qomType, name, text).message,
  };
}

function resolveDevice({ model, qomType }: AnyDriver, options: OptionsOf<OptionTable>): DeviceConfig {
  // Each table's own type is known per model; the readers return the union of all.
  const common = resolveNicCommon(options as unknown as OptionsOf<typeof nicCommonOptions>, qomType);
  switch (model) {
    case 'e1000':
      return {
        model,
        qomType,
        ...common,
        ...resolveE1000(options as unknown as OptionsOf<typeof e1000Options>),
      };
    case 'rtl8139':
      return {
        model,
        qomType,
        ...common,
        ...resolveRtl8139(options as unknown as OptionsOf<typeof rtl8139Options>),
      };
    case 'virtio-net': {
      const own = options as unknown as OptionsOf<typeof virtioNetOptions>;
      return { model, qomType, ...common, ...resolveVirtioNet(own, qomType, common.vfioUser) };
    }
  }
}

/** Properties that every NIC model has, and the sentences of `--device` and `device_add`. */
import { OptionError } from '../../core/errors.ts';
import { parseMac } from '../address.ts';
import { defineOptions, type OptionsOf } from '../schema.ts';

export const nicCommonOptions = defineOptions({
  id: { kind: 'id', doc: 'The name the monitor refers to. Unique.' },
  netdev: { kind: 'string', metavar: 'id', doc: 'The netdev to plug into. Without one the NIC has no link.' },
  mac: {
    kind: 'mac',
    defaultText: '52:54:00:12:34:56 and up',
    doc: 'The permanent MAC address; 00:00:00:00:00:00 takes the next free one.',
  },
  bus: { kind: 'string', metavar: 'bus', defaultText: 'pci.0', doc: 'The PCI bus; there is only pci.0.' },
  addr: {
    kind: 'string',
    metavar: 'slot[.function]',
    defaultText: 'the next free slot',
    doc: 'The place on the PCI bus, in hexadecimal.',
  },
  multifunction: { kind: 'bool', default: false, doc: 'Other functions share the PCI slot.' },
  bootindex: {
    kind: 'int',
    defaultText: 'none',
    doc: 'Where firmware that asks looks for this NIC when booting.',
  },
  romfile: {
    kind: 'string',
    metavar: 'file',
    defaultText: 'none',
    doc: 'The option ROM that firmware can boot from.',
  },
  'vfio-user': {
    kind: 'string',
    metavar: 'path',
    beyond: true,
    doc: 'Serve the NIC to a virtual machine monitor on this unix socket by vfio-user.',
  },
  strict: {
    kind: 'bool',
    default: false,
    beyond: true,
    doc: 'Report once each thing that the driver does against the manual, with section and register.',
  },
});

export interface PciPlace {
  readonly slot: number;
  readonly fn: number;
}

/** What every model's config has. */
export interface NicCommon {
  readonly id: string | undefined;
  readonly netdev: string | undefined;
  /** As written, in lower case; undefined or all zero: MacPool chooses. */
  readonly mac: string | undefined;
  /** undefined: the next free slot. */
  readonly addr: PciPlace | undefined;
  readonly multifunction: boolean;
  readonly bootindex: number | undefined;
  readonly romfile: string | undefined;
  readonly vfioUser: string | undefined;
  readonly strict: boolean;
}

/** `qomType` is the model's name in messages. */
export function resolveNicCommon(o: OptionsOf<typeof nicCommonOptions>, qomType: string): NicCommon {
  if (o.mac !== undefined && (parseMac(o.mac)![0]! & 1) === 1) {
    throw new OptionError(`${propertyBadValue(qomType, 'mac', o.mac).message}: it is a multicast address`, {
      option: 'mac',
    });
  }
  if (o.bus !== undefined && !/^pci(\.0)?$/.test(o.bus)) {
    throw new OptionError(`Bus '${o.bus}' not found`, { option: 'bus' });
  }
  if (o['vfio-user'] === '' || (o['vfio-user']?.length ?? 0) > 107) {
    throw propertyBadValue(qomType, 'vfio-user', o['vfio-user']!);
  }
  if (o.bootindex !== undefined && o.bootindex < -1) {
    throw propertyBadValue(qomType, 'bootindex', String(o.bootindex));
  }
  return {
    id: o.id,
    netdev: o.netdev,
    mac: o.mac,
    addr: o.addr === undefined ? undefined : pciPlace(o.addr, qomType),
    multifunction: o.multifunction,
    bootindex: o.bootindex === -1 ? undefined : o.bootindex,
    romfile: o.romfile === '' ? undefined : o.romfile,
    vfioUser: o['vfio-user'],
    strict: o.strict,
  };
}

function pciPlace(text: string, qomType: string): PciPlace {
  const match = /^(?:0x)?([0-9a-f]{1,2})(?:\.([0-7]))?$/i.exec(text);
  const slot = match ? Number.parseInt(match[1]!, 16) : 32;
  if (slot > 31) throw propertyBadValue(qomType, 'addr', text);
  return { slot, fn: Number(match?.[2] ?? 0) };
}

export function notADeviceModel(driver: string, nearestModel: string | undefined): OptionError {
  return new OptionError(`'${driver}' is not a valid device model name`, {
    option: 'driver',
    nearest: nearestModel,
  });
}

export function propertyBadValue(qomType: string, property: string, value: string): OptionError {
  return new OptionError(`Property '${qomType}.${property}' doesn't take value '${value}'`, {
    option: property,
  });
}

/** The value names something that is not there. */
export function propertyNotFoundValue(qomType: string, property: string, value: string): OptionError {
  return new OptionError(`Property '${qomType}.${property}' can't find value '${value}'`, {
    option: property,
  });
}

/** The value names something that another device has. */
export function propertyInUse(qomType: string, property: string, value: string): OptionError {
  return new OptionError(`Property '${qomType}.${property}' can't take value '${value}', it's in use`, {
    option: property,
  });
}

export function duplicateDeviceId(id: string): OptionError {
  return new OptionError(`Duplicate device ID '${id}'`, { option: 'id' });
}

/**
 * `--net` and `--nic`: QEMU's older ways, turned into the netdevs and devices they stand for.
 *
 *   --net nic,model=…,macaddr=…    a device on hub 0, or on netdev= if that is given
 *   --net TYPE,…                   a netdev on hub 0
 *   --nic TYPE,…,model=,mac=       a netdev and a device plugged into each other
 *   --net none, --nic none         nothing
 *
 * Netdevs without an id get one that no user can type (`#net0`), so it never meets a user's own.
 */
import { OptionError } from '../core/errors.ts';
import { type DeviceConfig, nicDrivers, readDevice } from './devices/index.ts';
import { asksForHelp, type KeyvalEntry, splitKeyval } from './keyval.ts';
import { isMulticastMac } from './mac-pool.ts';
import { nearest } from './nearest.ts';
import { checkId, type NetdevConfig, netdevTypeNamed, readNetdevEntries } from './netdevs/index.ts';
import { multiqueueInHub } from './netdevs/tap.ts';
import { type ReadContext, readKeyval } from './read.ts';
import { defineOptions } from './schema.ts';

export interface LegacyNet {
  readonly netdev?: NetdevConfig;
  readonly device?: DeviceConfig;
  /** The hub that the netdev, or the device, joins. */
  readonly hub?: 0;
}

/** Numbers the netdevs whose id was left out. One per network. */
export class LegacyIds {
  private count = 0;

  next(): string {
    return `#net${this.count++}`;
  }
}

const DEFAULT_MODEL = 'e1000';
const CONTEXT: ReadContext = { source: 'command-line', voice: 'options' };

/** The options of `--net nic`. */
export const netNicOptions = defineOptions({
  netdev: { kind: 'string', metavar: 'id', doc: 'Plug into this netdev instead of joining hub 0.' },
  macaddr: { kind: 'mac', defaultText: '52:54:00:12:34:56 and up', doc: 'The MAC address.' },
  model: {
    kind: 'string',
    metavar: 'model',
    default: DEFAULT_MODEL,
    doc: 'The NIC model; virtio is virtio-net-pci.',
  },
  addr: { kind: 'string', metavar: 'slot[.function]', doc: 'The place on the PCI bus, in hexadecimal.' },
  vectors: { kind: 'uint', bits: 32, doc: 'MSI-X vectors of a virtio-net NIC.' },
  name: {
    kind: 'string',
    metavar: 'id',
    legacy: 'use --device MODEL,id=',
    doc: 'The name the monitor refers to.',
  },
});

/** What `--nic` takes beside the options of its netdev type. */
export const nicOptions = defineOptions({
  model: {
    kind: 'string',
    metavar: 'model',
    default: DEFAULT_MODEL,
    doc: 'The NIC model; virtio is virtio-net-pci.',
  },
  mac: { kind: 'mac', defaultText: '52:54:00:12:34:56 and up', doc: 'The MAC address.' },
  id: { kind: 'id', doc: 'The id of the netdev.' },
});

/** Parses the argument of `--net`. */
export function parseNet(argument: string, ids: LegacyIds): LegacyNet {
  const { type, entries } = typeAndEntries(argument, undefined);
  if (type === 'none') return {};
  if (type === 'nic') return parseNetNic(entries);
  if (type === 'dump') {
    throw new OptionError(
      "'dump' is no longer supported: use --object filter-dump,id=ID,netdev=ID,file=FILE",
    );
  }
  netdevTypeNamed(type);
  if (type === 'hubport' || type === 'vhost-user') {
    throw new OptionError(`network backend '${type}' is only supported with -netdev/-nic`, {
      option: 'type',
    });
  }
  const { id, rest } = takeId(entries, 'name', ids);
  const netdev = readNetdevEntries(type, id, rest, CONTEXT);
  if (netdev.type === 'tap' && netdev.multiqueue) throw multiqueueInHub();
  return { netdev, hub: 0 };
}

/** Parses the argument of `--nic`. */
export function parseNic(argument: string, ids: LegacyIds): LegacyNet {
  const { type, entries } = typeAndEntries(argument, 'user');
  if (type === 'none') return {};
  netdevTypeNamed(type);
  const { id, rest } = takeId(entries, 'id', ids);
  const isOwn = ({ key }: KeyvalEntry): boolean => key === 'model' || key === 'mac';
  const { model, mac } = readKeyval(nicOptions, rest.filter(isOwn), CONTEXT);
  if (mac !== undefined) refuseMulticast(mac, 'mac');
  const netdev = readNetdevEntries(
    type,
    id,
    rest.filter((entry) => !isOwn(entry)),
    CONTEXT,
  );
  const device = readDevice({ driver: driverOf(model), netdev: id, mac });
  return { netdev, device };
}

function parseNetNic(entries: readonly KeyvalEntry[]): LegacyNet {
  const o = readKeyval(netNicOptions, entries, CONTEXT);
  if (o.macaddr !== undefined) refuseMulticast(o.macaddr, 'macaddr');
  const driver = driverOf(o.model);
  if (o.vectors !== undefined && nicDrivers[driver]!.model !== 'virtio-net') {
    throw new OptionError('vectors= is only valid with model=virtio', { option: 'vectors' });
  }
  if (o.name !== undefined) checkId(o.name);
  const { netdev, macaddr: mac, addr, vectors, name: id } = o;
  const device = readDevice({ driver, netdev, mac, addr, vectors, id });
  return netdev === undefined ? { device, hub: 0 } : { device };
}

/** True when the argument asks for the list of types, models or options. */
export function legacyAsksForHelp(argument: string): boolean {
  const entries = splitKeyval(argument, 'type');
  return asksForHelp(entries) || entries.some(({ key, value }) => key === 'model' && isHelpWord(value));
}

const isHelpWord = (value: string | undefined): boolean => value === 'help' || value === '?';

function typeAndEntries(
  argument: string,
  defaultType: string | undefined,
): { type: string; entries: KeyvalEntry[] } {
  const entries = splitKeyval(argument, 'type');
  const type = entries.findLast(({ key }) => key === 'type')?.value ?? defaultType;
  if (type === undefined) throw new OptionError("Parameter 'type' is missing", { option: 'type' });
  if (entries.some(({ key }) => key === 'vlan')) {
    throw new OptionError(
      "'vlan' is no longer supported: join clients by --netdev hubport,id=ID,hubid=N,netdev=ID",
      {
        option: 'vlan',
      },
    );
  }
  return { type, entries: entries.filter(({ key }) => key !== 'type') };
}

function takeId(
  entries: readonly KeyvalEntry[],
  legacyKey: string,
  ids: LegacyIds,
): { id: string; rest: KeyvalEntry[] } {
  const isId = ({ key }: KeyvalEntry): boolean => key === 'id' || key === legacyKey;
  const given = entries.findLast(isId);
  if (given) checkId(given.value ?? '');
  return { id: given?.value ?? ids.next(), rest: entries.filter((entry) => !isId(entry)) };
}

function driverOf(model: string): string {
  const driver = model === 'virtio' ? 'virtio-net-pci' : model;
  if (Object.hasOwn(nicDrivers, driver)) return driver;
  throw new OptionError(`Unsupported NIC model: ${model}`, {
    option: 'model',
    nearest: nearest(model, Object.keys(nicDrivers)),
  });
}

function refuseMulticast(mac: string, option: string): void {
  if (isMulticastMac(mac)) {
    throw new OptionError('NIC cannot have multicast MAC address (odd 1st byte)', { option });
  }
}

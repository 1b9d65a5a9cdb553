/**
 * The object tree that qom-list, qom-get and qom-set walk: containers, and in them NICs, filters, character devices and netdevs, each with
 * its options as properties. It is made anew for each question; nothing is kept.
 *
 *     / ─┬─ machine ─┬─ peripheral       NICs with an id
 *        │           └─ peripheral-anon  NICs without one
 *        ├─ objects     filters
 *        ├─ chardevs
 *        └─ netdevs     (QEMU has no such place)
 */

import { chardevTypes } from '../config/chardevs.ts';
import { driverNamed, nicDrivers } from '../config/devices/index.ts';
import { virtioNetOptions } from '../config/devices/virtio-net.ts';
import { deviceProperties, objectProperties } from '../config/introspect.ts';
import type { JsonValue } from '../config/json.ts';
import { netdevTypes } from '../config/netdevs/index.ts';
import { objectTypes } from '../config/objects/index.ts';
import { objectOptions } from '../config/objects/show.ts';
import type { OptionTable } from '../config/schema.ts';
import { OptionError } from '../core/errors.ts';
import { formatMac } from '../network/info.ts';
import { type Device, type Network, type NetworkObject, devicePath as pathOf } from '../network/network.ts';
import { deviceNotFound } from './errors.ts';
import type { Monitor } from './monitor.ts';

export interface QomProperty {
  readonly name: string;
  readonly type: string;
  get(): unknown;
  /** Throws OptionError when it cannot be changed, or not to this. */
  set(value: JsonValue): void;
}

export class QomNode {
  readonly type: string;
  readonly children: ReadonlyMap<string, QomNode>;
  readonly #own: readonly QomProperty[];
  readonly #path: string;

  constructor(
    path: string,
    type: string,
    own: readonly QomProperty[],
    children: ReadonlyMap<string, QomNode> = new Map(),
  ) {
    this.#path = path;
    this.type = type;
    this.#own = own;
    this.children = children;
  }

  get properties(): QomProperty[] {
    const children = [...this.children].map(([name, child]) =>
      fixed(this.type, name, `child<${child.type}>`, `${this.#path === '/' ? '' : this.#path}/${name}`),
    );
    return [fixed(this.type, 'type', 'string', this.type), ...this.#own, ...children];
  }

  /** Throws OptionError when there is none of that name. */
  property(name: string): QomProperty {
    const found = this.properties.find((one) => one.name === name);
    if (found === undefined)
      throw new OptionError(`Property '${this.type}.${name}' not found`, { option: 'property' });
    return found;
  }
}

function fixed(owner: string, name: string, type: string, value: unknown): QomProperty {
  return {
    name,
    type,
    get: () => value,
    set: () => {
      throw new OptionError(`Property '${owner}.${name}' is not writable`, { option: 'property' });
    },
  };
}

/** The node at an absolute path, or the only one whose path ends so. Throws DeviceNotFound. */
export function findNode(monitor: Monitor, path: string): QomNode {
  const root = tree(monitor);
  const parts = path.split('/').filter((part) => part !== '');
  if (path.startsWith('/')) {
    const node = descend(root, parts);
    if (node !== undefined) return node;
  } else {
    const found = endingIn(root, parts);
    if (found.length === 1) return found[0]!;
    if (found.length > 1) throw new OptionError(`Path '${path}' does not uniquely identify an object`);
  }
  throw deviceNotFound(path);
}

function descend(node: QomNode, parts: readonly string[]): QomNode | undefined {
  let at: QomNode | undefined = node;
  for (const part of parts) at = at?.children.get(part);
  return at;
}

function endingIn(node: QomNode, parts: readonly string[]): QomNode[] {
  const here = parts.length === 0 ? undefined : descend(node, parts);
  const below = [...node.children.values()].flatMap((child) => endingIn(child, parts));
  return here === undefined ? below : [here, ...below];
}

function container(path: string, children: Iterable<[string, QomNode]>): QomNode {
  return new QomNode(path, 'container', [], new Map(children));
}

function tree(monitor: Monitor): QomNode {
  const { network } = monitor;
  const devices = [...network.devices.values()];
  const place = (parent: string, named: boolean): QomNode =>
    container(
      parent,
      devices
        .filter(({ config }) => (config.id !== undefined) === named)
        .map((device) => [device.id, deviceNode(device)]),
    );
  const machine = new QomNode(
    '/machine',
    'netemu-machine',
    [],
    new Map([
      ['peripheral', place('/machine/peripheral', true)],
      ['peripheral-anon', place('/machine/peripheral-anon', false)],
    ]),
  );
  const objects = [...network.objects.values()];
  return container('/', [
    ['machine', machine],
    [
      'objects',
      container(
        '/objects',
        objects.map((object) => [object.id, objectNode(network, object)]),
      ),
    ],
    [
      'chardevs',
      container(
        '/chardevs',
        network.chardevs.all.map((chardev) => {
          const type = `chardev-${chardev.config.type}`;
          const properties = [
            fixed(type, 'connected', 'bool', chardev.connected),
            fixed(type, 'filename', 'string', chardev.describe()),
          ];
          return [chardev.id, new QomNode(`/chardevs/${chardev.id}`, type, properties)];
        }),
      ),
    ],
    [
      'netdevs',
      container(
        '/netdevs',
        [...network.netdevs.values()].map((netdev) => {
          const type = `netdev-${netdev.config.type}`;
          const properties = [fixed(type, 'info', 'string', netdev.describe())];
          return [netdev.id, new QomNode(`/netdevs/${netdev.id}`, type, properties)];
        }),
      ),
    ],
  ]);
}

function deviceNode(device: Device): QomNode {
  const { config, nic, id } = device;
  const values: Readonly<Record<string, unknown>> = { ...config, mac: formatMac(nic.mac), addr: undefined };
  const features = config.model === 'virtio-net' ? new Set<string>(config.features) : undefined;
  const properties = deviceProperties(driverNamed(config.qomType)).flatMap(
    ({ name, type }): QomProperty[] => {
      const value = features !== undefined && isFeature(name) ? features.has(name) : values[camelCase(name)];
      if (value === undefined || typeof value === 'object') return [];
      return [
        {
          name,
          type,
          get: () => value,
          set: () => {
            throw new OptionError(
              `Attempt to set property '${name}' on device '${id}' (type '${config.qomType}') after it was realized`,
              { option: 'property' },
            );
          },
        },
      ];
    },
  );
  return new QomNode(pathOf(config, id), config.qomType, [
    fixed(config.qomType, 'realized', 'bool', true),
    ...properties,
  ]);
}

function isFeature(name: string): boolean {
  const spec = (virtioNetOptions as OptionTable)[name];
  return spec?.kind === 'bool' && name !== 'disable-modern' && name !== 'server';
}

/** `init-vet` and `rx_queue_size` as configs name them. */
function camelCase(name: string): string {
  return name.replaceAll(/[-_]([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function objectNode(network: Network, object: NetworkObject): QomNode {
  const { id, config } = object;
  const types = new Map(objectProperties(config.type).map(({ name, type }) => [name, type]));
  const properties = Object.keys(objectOptions(config)).map(
    (name): QomProperty => ({
      name,
      type: types.get(name) ?? 'string',
      get: () => objectOptions(object.config)[name],
      set: (value) => network.changeObject(id, { [name]: value }),
    }),
  );
  return new QomNode(`/objects/${id}`, config.type, properties);
}

/** A NIC by its id or its path. */
export function findDevice(network: Network, name: string): Device | undefined {
  if (!name.startsWith('/')) return network.devices.get(name);
  return [...network.devices.values()].find(({ config, id }) => pathOf(config, id) === name);
}

export function devicePath({ config, id }: Device): string {
  return pathOf(config, id);
}

interface TypeInfo {
  readonly name: string;
  readonly parent: string;
  readonly abstract?: true;
}

function allTypes(): TypeInfo[] {
  const models = new Set(Object.values(nicDrivers).map(({ qomType }) => qomType));
  return [
    { name: 'device', parent: 'object', abstract: true },
    { name: 'pci-device', parent: 'device', abstract: true },
    ...[...models].map((name) => ({ name, parent: 'pci-device' })),
    { name: 'netfilter', parent: 'object', abstract: true },
    ...Object.entries(objectTypes).map(([name, { filter }]) => ({
      name,
      parent: filter ? 'netfilter' : 'object',
    })),
    { name: 'chardev', parent: 'object', abstract: true },
    ...Object.keys(chardevTypes).map((name) => ({ name: `chardev-${name}`, parent: 'chardev' })),
    { name: 'netdev', parent: 'object', abstract: true },
    ...Object.keys(netdevTypes).map((name) => ({ name: `netdev-${name}`, parent: 'netdev' })),
  ];
}

/** The answer of qom-list-types. */
export function listTypes(kind: string | undefined, withAbstract: boolean): TypeInfo[] {
  const types = allTypes();
  const parents = new Map(types.map(({ name, parent }) => [name, parent]));
  const isKind = (name: string | undefined): boolean =>
    name !== undefined && (name === kind || isKind(parents.get(name)));
  return types.filter(
    ({ name, abstract }) => (withAbstract || abstract !== true) && (kind === undefined || isKind(name)),
  );
}

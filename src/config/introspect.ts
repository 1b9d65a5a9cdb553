/**
 * What the tables tell a monitor client: SchemaInfo entries for query-qmp-schema, properties for
 * device-list-properties and options for query-command-line-options. All of it plain data.
 */
import { type ChardevTypeName, chardevTypes, nestedOptions } from './chardevs.ts';
import { nicCommonOptions } from './devices/common.ts';
import { type AnyDriver, driverNamed, nicDrivers, propertiesOf } from './devices/index.ts';
import { docWithDefault, flatOptions } from './help.ts';
import { defaultAsText } from './kinds.ts';
import { monOptions } from './monitor-option.ts';
import { netdevCommonOptions, netdevTypes } from './netdevs/index.ts';
import { objectTypeNamed, objectTypes, optionsOfObject } from './objects/index.ts';
import type { OptionSpec, OptionTable } from './schema.ts';
import { socketAddressBranches } from './socket-address.ts';

/** QAPI's SchemaInfo, as far as option tables need it. */
export type SchemaInfo =
  | { readonly name: string; readonly 'meta-type': 'builtin'; readonly 'json-type': string }
  | {
      readonly name: string;
      readonly 'meta-type': 'enum';
      readonly members: readonly { readonly name: string }[];
      readonly values: readonly string[];
    }
  | { readonly name: string; readonly 'meta-type': 'array'; readonly 'element-type': string }
  | {
      readonly name: string;
      readonly 'meta-type': 'command';
      readonly 'arg-type': string;
      readonly 'ret-type': string;
      readonly 'allow-oob'?: true;
    }
  | { readonly name: string; readonly 'meta-type': 'event'; readonly 'arg-type': string }
  | {
      readonly name: string;
      readonly 'meta-type': 'object';
      readonly members: readonly SchemaMember[];
      readonly tag?: string;
      readonly variants?: readonly { readonly case: string; readonly type: string }[];
    };

export interface SchemaMember {
  readonly name: string;
  readonly type: string;
  /** Present (null) exactly when the member may be left out. */
  readonly default?: null;
}

/** Builds one schema; a monitor adds its commands' own tables to the same builder. */
export class SchemaBuilder {
  private readonly infos = new Map<string, SchemaInfo>();

  /** Adds an object type for a table and whatever its members need. Returns the type's name. */
  table(name: string, table: OptionTable): string {
    if (this.infos.has(name)) return name;
    return this.members(name, this.membersOf(name, table));
  }

  /** Adds a union of tables told apart by `tag`, with members that all have. Returns the type's name. */
  union(
    name: string,
    tag: string,
    common: OptionTable,
    branches: { readonly [branch: string]: OptionTable },
  ): string {
    if (this.infos.has(name)) return name;
    const variants = Object.entries(branches).map(([branch, table]) => ({
      case: branch,
      type: this.table(`${name}-${branch}`, table),
    }));
    return this.tagged(name, tag, this.membersOf(name, common), variants);
  }

  /** The same from types that are in the schema. */
  tagged(
    name: string,
    tag: string,
    common: readonly SchemaMember[],
    variants: readonly { readonly case: string; readonly type: string }[],
  ): string {
    const values = variants.map((variant) => variant.case);
    const members = [...common, { name: tag, type: this.enumeration(`${name}-${tag}`, values) }];
    return this.put({ name, 'meta-type': 'object', members, tag, variants });
  }

  enumeration(name: string, values: readonly string[]): string {
    return this.put({ name, 'meta-type': 'enum', members: values.map((value) => ({ name: value })), values });
  }

  /** Adds an object type with these members. Returns its name. */
  members(name: string, members: readonly SchemaMember[]): string {
    return this.put({ name, 'meta-type': 'object', members });
  }

  list(element: string): string {
    return this.put({ name: `[${element}]`, 'meta-type': 'array', 'element-type': element });
  }

  command(name: string, argType: string, retType: string, outOfBand: boolean): void {
    this.put({
      name,
      'meta-type': 'command',
      'arg-type': argType,
      'ret-type': retType,
      ...(outOfBand && { 'allow-oob': true as const }),
    });
  }

  event(name: string, argType: string): void {
    this.put({ name, 'meta-type': 'event', 'arg-type': argType });
  }

  /** All entries, each name once. */
  schema(): SchemaInfo[] {
    return [...this.infos.values()];
  }

  membersOf(owner: string, table: OptionTable): SchemaMember[] {
    return Object.entries(table).map(([name, spec]) => ({
      name,
      type: this.typeOf(`${owner}-${name}`, spec),
      ...(!spec.required && { default: null }),
    }));
  }

  private typeOf(name: string, spec: OptionSpec): string {
    switch (spec.kind) {
      case 'bool':
        return this.builtin('bool', 'boolean');
      case 'string':
      case 'id':
      case 'mac':
        return this.builtin('str', 'string');
      case 'uint':
      case 'uint64':
      case 'int':
      case 'size':
        return this.builtin('int', 'int');
      case 'rate':
      case 'duration':
      case 'percent':
        return this.builtin('number', 'number');
      case 'enum':
        return this.enumeration(name, spec.values);
      case 'list': {
        const element = this.table('String', { str: { kind: 'string', required: true, doc: 'The text.' } });
        return this.list(element);
      }
      case 'union':
        return this.union(name, spec.tag, {}, spec.branches);
    }
  }

  builtin(name: string, jsonType: string): string {
    return this.put({ name, 'meta-type': 'builtin', 'json-type': jsonType });
  }

  private put(info: SchemaInfo): string {
    this.infos.set(info.name, info);
    return info.name;
  }
}

const optionsByName = <T extends { readonly options: OptionTable }>(types: {
  readonly [name: string]: T;
}): { readonly [name: string]: OptionTable } =>
  Object.fromEntries(Object.entries(types).map(([name, { options }]) => [name, options]));

/** Adds `Netdev`, the argument of netdev_add. */
export function addNetdevSchema(builder: SchemaBuilder): string {
  return builder.union('Netdev', 'type', netdevCommonOptions, optionsByName(netdevTypes));
}

/** Adds `ObjectOptions`, the argument of object-add. */
export function addObjectSchema(builder: SchemaBuilder): string {
  const branches = Object.fromEntries(
    Object.entries(objectTypes).map(([name, type]) => {
      const { id: _id, ...options } = optionsOfObject(
        type as unknown as Parameters<typeof optionsOfObject>[0],
      );
      return [name, options];
    }),
  );
  const id: OptionTable = { id: { kind: 'id', required: true, doc: 'The name others refer to.' } };
  return builder.union('ObjectOptions', 'qom-type', id, branches);
}

/** Adds `ChardevBackend` and the argument of chardev-add around it. */
export function addChardevSchema(builder: SchemaBuilder): string {
  const wrapped = (name: string, data: string): string =>
    builder.members(`${name}Wrapper`, [{ name: 'data', type: data }]);
  const variants = (Object.keys(chardevTypes) as ChardevTypeName[]).map((type) => {
    const name = `Chardev-${type}`;
    let members = builder.membersOf(name, nestedOptions(type));
    if (type === 'socket') {
      const address = Object.entries(socketAddressBranches).map(([branch, table]) => ({
        case: branch,
        type: wrapped(`SocketAddress-${branch}`, builder.table(`SocketAddressData-${branch}`, table)),
      }));
      members = [
        { name: 'addr', type: builder.tagged('SocketAddressLegacy', 'type', [], address) },
        ...members,
      ];
    }
    return { case: type, type: wrapped(name, builder.members(name, members)) };
  });
  const backend = builder.tagged('ChardevBackend', 'type', [], variants);
  return builder.members('chardev-add-arg', [
    { name: 'id', type: builder.builtin('str', 'string') },
    { name: 'backend', type: backend },
  ]);
}

/** Adds `Device`, the argument of device_add. */
export function addDeviceSchema(builder: SchemaBuilder): string {
  const common: OptionTable = { id: nicCommonOptions.id, bus: nicCommonOptions.bus };
  const branches = Object.fromEntries(
    Object.keys(nicDrivers).map((name) => {
      const { id: _id, bus: _bus, ...own } = propertiesOf(driverNamed(name));
      return [name, own];
    }),
  );
  return builder.union('Device', 'driver', common, branches);
}

export interface PropertyInfo {
  readonly name: string;
  readonly type: string;
  readonly description: string;
  readonly 'default-value'?: boolean | number | string;
}

/** The answer of device-list-properties for a driver (`driverNamed` finds it). */
export function deviceProperties(driver: AnyDriver): PropertyInfo[] {
  return propertyInfos(propertiesOf(driver), ['id', 'bus']);
}

/** The options of an object type as the object tree shows them. */
export function objectProperties(type: string): PropertyInfo[] {
  return propertyInfos(optionsOfObject(objectTypeNamed(type)), ['id']);
}

function propertyInfos(table: OptionTable, without: readonly string[]): PropertyInfo[] {
  return Object.entries(table)
    .filter(([name]) => !without.includes(name))
    .map(([name, spec]) => ({
      name,
      type: propertyType(spec),
      description: spec.doc,
      ...('default' in spec && typeof spec.default !== 'bigint' && { 'default-value': spec.default! }),
    }));
}

function propertyType(spec: OptionSpec): string {
  switch (spec.kind) {
    case 'uint':
      return `uint${spec.bits}`;
    case 'int':
      return 'int32';
    case 'string':
    case 'mac':
      return 'str';
    default:
      return spec.kind;
  }
}

export interface CommandLineOption {
  readonly option: string;
  readonly parameters: readonly CommandLineParameter[];
}

export interface CommandLineParameter {
  readonly name: string;
  readonly type: 'string' | 'boolean' | 'number' | 'size';
  readonly help: string;
  readonly default?: string;
}

/** The answer of query-command-line-options. An option with types lists the parameters of all of them. */
export function commandLineOptions(): CommandLineOption[] {
  const all = (types: { readonly [name: string]: { readonly options: OptionTable } }): OptionTable =>
    Object.assign({}, ...Object.values(types).map(({ options }) => options));
  const tables: { readonly [option: string]: OptionTable } = {
    netdev: { ...netdevCommonOptions, ...all(netdevTypes) },
    device: {},
    object: {},
    chardev: all(chardevTypes),
    mon: monOptions,
  };
  return Object.entries(tables).map(([option, table]) => ({
    option,
    parameters: flatOptions(table).map(({ name, spec }) => {
      const value = defaultAsText(spec);
      return {
        name,
        type: parameterType(spec),
        help: docWithDefault(spec),
        ...(value !== undefined && { default: value }),
      };
    }),
  }));
}

function parameterType(spec: OptionSpec): CommandLineParameter['type'] {
  switch (spec.kind) {
    case 'bool':
      return 'boolean';
    case 'uint':
    case 'uint64':
    case 'int':
      return 'number';
    case 'size':
      return 'size';
    default:
      return 'string';
  }
}

/**
 * THE TABLE of objects (`--object`, object-add): the filters of a netdev, and colo-compare, which compares the
 * frames of two guests.
 */
import { OptionError } from '../../core/errors.ts';
import { isJsonObject, parseJson } from '../json.ts';
import { splitKeyval } from '../keyval.ts';
import { doesNotAccept, type ReadContext, wrongType } from '../kinds.ts';
import { missing, readJson, readKeyval } from '../read.ts';
import { defineOptions, type InputOf, type OptionsOf, type OptionTable } from '../schema.ts';
import { type FilterCommon, filterCommonOptions, resolveFilterCommon } from './filter-common.ts';
import { netemOptions, resolveNetem } from './netem.ts';

interface ObjectType<T extends OptionTable, C extends object> {
  readonly summary: string;
  readonly beyond?: true;
  /** Whether filterCommonOptions belong to it. */
  readonly filter: boolean;
  readonly options: T;
  readonly resolve: (options: OptionsOf<T>) => C;
}

function filter<const T extends OptionTable, C extends object>(
  summary: string,
  options: T,
  resolve: (options: OptionsOf<T>) => C,
): ObjectType<T, C> & { readonly filter: true } {
  return { summary, filter: true, options, resolve };
}

const chardevId = (doc: string) => ({ kind: 'string', metavar: 'chardev', doc }) as const;
const vnetHeader = {
  kind: 'bool',
  default: false,
  doc: 'Frames in the stream carry the length of a virtio-net header, and the header.',
} as const;

const coloIpv6 = {
  kind: 'bool',
  default: false,
  beyond: true,
  doc: 'IPv6 as well as IPv4. QEMU knows IPv4 only: leave it off where one of the two sides is QEMU.',
} as const;

export const objectTypes = {
  'filter-dump': filter(
    'writes passing frames to a capture file',
    defineOptions({
      file: { kind: 'string', metavar: 'file', required: true, doc: 'The capture file to write.' },
      maxlen: { kind: 'uint', bits: 32, default: 65536, doc: 'Bytes kept of each frame.' },
      format: {
        kind: 'enum',
        values: ['pcap', 'pcapng'],
        default: 'pcap',
        beyond: true,
        doc: 'pcapng also keeps interface names, directions and nanoseconds.',
      },
    }),
    (o) => {
      if (o.maxlen === 0) {
        throw new OptionError("Property 'filter-dump.maxlen' doesn't take value '0'", { option: 'maxlen' });
      }
      return { file: o.file, maxBytes: o.maxlen, format: o.format };
    },
  ),
  'filter-buffer': filter(
    'holds frames and lets them go in intervals',
    defineOptions({
      interval: {
        kind: 'uint',
        bits: 32,
        required: true,
        doc: 'Microseconds between releases, more than zero.',
      },
    }),
    (o) => {
      if (o.interval === 0) {
        throw new OptionError("Property 'filter-buffer.interval' requires a positive value", {
          option: 'interval',
        });
      }
      return { intervalNs: o.interval * 1000 };
    },
  ),
  'filter-mirror': filter(
    'copies passing frames to a character device',
    defineOptions({
      outdev: { ...chardevId('The chardev that gets the copies.'), required: true },
      vnet_hdr_support: vnetHeader,
    }),
    (o) => ({ outdev: o.outdev, vnetHdr: o.vnet_hdr_support }),
  ),
  'filter-redirector': filter(
    'takes frames out to a character device, or puts frames in from one',
    defineOptions({
      indev: chardevId('The chardev whose frames go in here.'),
      outdev: chardevId('The chardev that passing frames go to.'),
      vnet_hdr_support: vnetHeader,
    }),
    (o) => {
      if (o.indev === undefined && o.outdev === undefined) {
        throw new OptionError("filter redirector needs 'indev' or 'outdev' at least one property set");
      }
      if (o.indev === o.outdev) {
        throw new OptionError("'indev' and 'outdev' could not be same for filter redirector", {
          option: 'indev',
        });
      }
      return { indev: o.indev, outdev: o.outdev, vnetHdr: o.vnet_hdr_support };
    },
  ),
  'filter-rewriter': filter(
    'keeps the TCP sequence numbers of a secondary guest in step',
    defineOptions({ vnet_hdr_support: vnetHeader, ipv6: coloIpv6 }),
    (o) => ({ vnetHdr: o.vnet_hdr_support, ipv6: o.ipv6 }),
  ),
  'filter-replay': filter(
    'records what the netdev sends, or plays it back',
    defineOptions({
      rr: {
        kind: 'enum',
        values: ['none', 'record', 'replay'],
        default: 'none',
        beyond: true,
        doc: "As QEMU's -icount: whether frames are recorded, or come out of a recording; none lets every frame pass.",
      },
      rrfile: { kind: 'string', metavar: 'file', beyond: true, doc: 'The recording.' },
    }),
    (o) => {
      if (o.rr !== 'none' && o.rrfile === undefined) throw missing('rrfile');
      if (o.rr === 'none' && o.rrfile !== undefined) {
        throw new OptionError("'rrfile' has no meaning with rr=none", { option: 'rrfile' });
      }
      return { mode: o.rr, file: o.rrfile ?? '' };
    },
  ),
  'filter-netem': {
    ...filter('delays, loses, doubles, reorders, corrupts and paces frames', netemOptions, resolveNetem),
    beyond: true,
  },
  'filter-hook': {
    ...filter(
      'asks a TypeScript module about each frame or flow',
      defineOptions({
        module: { kind: 'string', metavar: 'file', required: true, doc: 'The module that decides.' },
        config: { kind: 'string', default: '', doc: 'Text handed to the module when it starts.' },
      }),
      (o) => ({ module: o.module, config: o.config }),
    ),
    beyond: true,
  },
  'colo-compare': {
    summary: 'compares the frames of a primary and a secondary guest',
    filter: false,
    options: defineOptions({
      primary_in: { ...chardevId("The chardev with the primary guest's frames."), required: true },
      secondary_in: { ...chardevId("The chardev with the secondary guest's frames."), required: true },
      outdev: { ...chardevId('The chardev that frames go to once they agree.'), required: true },
      iothread: {
        kind: 'string',
        metavar: 'id',
        required: true,
        doc: "The iothread object to compare on; netemu compares on the network's own loop.",
      },
      vnet_hdr_support: vnetHeader,
      notify_dev: chardevId('The chardev that is told when the guests differ.'),
      compare_timeout: {
        kind: 'uint',
        bits: 53,
        default: 3000,
        doc: 'Milliseconds to wait for the other guest.',
      },
      expired_scan_cycle: {
        kind: 'uint',
        bits: 32,
        default: 1000,
        doc: 'Milliseconds between looks for late frames.',
      },
      max_queue_size: {
        kind: 'uint',
        bits: 32,
        default: 1024,
        doc: 'Frames of each guest kept of a connection.',
      },
      ipv6: coloIpv6,
    }),
    resolve: (o: ColoOptions) => {
      const ends = [o.primary_in, o.secondary_in, o.outdev];
      if (new Set(ends).size < ends.length) {
        throw new OptionError("'indev' and 'outdev' could not be same for compare module", {
          option: 'outdev',
        });
      }
      if (o.notify_dev !== undefined && ends.includes(o.notify_dev)) {
        throw new OptionError(`Device '${o.notify_dev}' is in use`, { option: 'notify_dev' });
      }
      if (o.compare_timeout === 0) throw notPositive('compare_timeout');
      if (o.expired_scan_cycle === 0) throw notPositive('expired_scan_cycle');
      if (o.max_queue_size === 0) throw notPositive('max_queue_size');
      return {
        primaryIn: o.primary_in,
        secondaryIn: o.secondary_in,
        outdev: o.outdev,
        iothread: o.iothread,
        vnetHdr: o.vnet_hdr_support,
        ipv6: o.ipv6,
        notifyDev: o.notify_dev,
        compareTimeoutMs: o.compare_timeout,
        expiredScanCycleMs: o.expired_scan_cycle,
        maxQueueFrames: o.max_queue_size,
      };
    },
  },
  iothread: {
    summary: "accepted for colo-compare lines; everything runs on the network's own loop",
    filter: false,
    options: defineOptions({}),
    resolve: () => ({}),
  },
} as const;

/** Declared by hand because the resolve function stands in the same literal as its table. */
interface ColoOptions {
  readonly primary_in: string;
  readonly secondary_in: string;
  readonly outdev: string;
  readonly iothread: string;
  readonly vnet_hdr_support: boolean;
  readonly notify_dev?: string;
  readonly compare_timeout: number;
  readonly expired_scan_cycle: number;
  readonly max_queue_size: number;
  readonly ipv6: boolean;
}

function notPositive(property: string): OptionError {
  return new OptionError(`Property 'colo-compare.${property}' requires a positive value`, {
    option: property,
  });
}

export type ObjectTypeName = keyof typeof objectTypes;

type CommonOf<K extends ObjectTypeName> = (typeof objectTypes)[K] extends { readonly filter: true }
  ? FilterCommon
  : unknown;
type CommonInputOf<K extends ObjectTypeName> = (typeof objectTypes)[K] extends { readonly filter: true }
  ? InputOf<typeof filterCommonOptions>
  : unknown;

/** A checked object; `type` tells which. */
export type ObjectConfig = {
  [K in ObjectTypeName]: { readonly type: K; readonly id: string } & CommonOf<K> &
    ReturnType<(typeof objectTypes)[K]['resolve']>;
}[ObjectTypeName];

/** What a caller of the embedding API may write. */
export type ObjectInput = {
  [K in ObjectTypeName]: { readonly 'qom-type': K; readonly id: string } & CommonInputOf<K> &
    InputOf<(typeof objectTypes)[K]['options']>;
}[ObjectTypeName];

/** Parses the argument of `--object`, key=value or JSON. Throws OptionError. */
export function parseObject(argument: string): ObjectConfig {
  if (argument.startsWith('{')) return readObject(parseJson(argument));
  const entries = splitKeyval(argument, 'qom-type');
  const name = entries.findLast(({ key }) => key === 'qom-type')?.value;
  if (name === undefined) throw missing('qom-type');
  const type = objectTypeNamed(name);
  const own = entries.filter(({ key }) => key !== 'qom-type');
  return resolveObject(name, type, readKeyval(optionsOfObject(type), own, context('command-line')));
}

/** Reads the arguments of object-add, or an ObjectInput. Throws OptionError. */
export function readObject(value: unknown): ObjectConfig {
  if (!isJsonObject(value)) throw new OptionError('Invalid parameter type, expected: object');
  const { 'qom-type': name, ...members } = value;
  if (name === undefined) throw missing('qom-type');
  if (typeof name !== 'string') throw wrongType('qom-type', 'string');
  const type = objectTypeNamed(name);
  return resolveObject(name, type, readJson(optionsOfObject(type), members, context('json')));
}

export type AnyObject = ObjectType<OptionTable, object>;

export function objectTypeNamed(name: string): AnyObject {
  if (!Object.hasOwn(objectTypes, name)) throw doesNotAccept('qom-type', name, Object.keys(objectTypes));
  return objectTypes[name as ObjectTypeName] as unknown as AnyObject;
}

const ID: OptionTable = { id: { kind: 'id', required: true, doc: 'The name others refer to. Unique.' } };

/** All options of a type, with the id and what filters share. */
export function optionsOfObject(type: AnyObject): OptionTable {
  return { ...ID, ...(type.filter ? filterCommonOptions : {}), ...type.options };
}

function context(source: ReadContext['source']): ReadContext {
  return { source, voice: 'options' };
}

function resolveObject(name: string, type: AnyObject, options: OptionsOf<OptionTable>): ObjectConfig {
  const { id } = options as unknown as { id: string };
  const common = type.filter
    ? resolveFilterCommon(options as unknown as OptionsOf<typeof filterCommonOptions>)
    : {};
  return { type: name, id, ...common, ...type.resolve(options) } as unknown as ObjectConfig;
}

export function objectNotFound(id: string): OptionError {
  return new OptionError(`object '${id}' not found`, { option: 'id' });
}

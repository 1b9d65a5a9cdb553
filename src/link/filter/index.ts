/** THE TABLE of objects that can be made from their checked options: filters, and colo-compare, which stands on no netdev. */

import type { Chardev } from '../../chardev/chardev.ts';
import type { ObjectConfig, ObjectTypeName } from '../../config/objects/index.ts';
import type { Random } from '../../core/clock.ts';
import { OptionError, UnsupportedError } from '../../core/errors.ts';
import type { Logger } from '../../core/log.ts';
import type { LinkContext } from '../../core/port.ts';
import { ColoCompare } from '../colo/compare.ts';
import { RewriterFilter } from '../colo/rewriter.ts';
import { BufferFilter } from './buffer.ts';
import { type ByteSink, DumpFilter } from './dump.ts';
import type { Filter, RunningObject } from './filter.ts';
import { HookFilter, type HookModule } from './hook.ts';
import { NetemFilter } from './netem.ts';
import { MirrorFilter, RedirectorFilter } from './redirect.ts';
import { isRecording, ReplayFilter, type ReplayMode } from './replay.ts';

export type FilterConfig = Extract<ObjectConfig, { readonly netdev: string }>;
type FilterConfigOf<K extends ObjectTypeName> = Extract<FilterConfig, { readonly type: K }>;

/** What filters are given. */
export interface FilterContext extends LinkContext {
  /** Milliseconds since 1970 at the clock's zero. */
  readonly epochMs: number;
  /** Makes (or empties) a file; throws HostIoError, or UnsupportedError where there are no files. */
  readonly openFile: (path: string) => ByteSink;
  readonly random: Random;
  readonly log: Logger;
  /** The module of a filter-hook, loaded. */
  readonly hookModule?: HookModule | undefined;
  /** The bytes of a file; throws HostIoError, or UnsupportedError where there are no files. */
  readonly readFile: (path: string) => Uint8Array;
  /** A character device by its id. */
  readonly chardev: (id: string) => Chardev | undefined;
  /** MirrorOptions' of the filter's netdev. */
  readonly linkHeaderBytes: () => number;
}

type MakeFilter<K extends ObjectTypeName> = (config: FilterConfigOf<K>, context: FilterContext) => Filter;

const filters: { readonly [K in FilterConfig['type']]: MakeFilter<K> } = {
  'filter-dump': (config, context) =>
    new DumpFilter(
      {
        id: config.id,
        direction: config.queue,
        format: config.format,
        maxlenBytes: config.maxBytes,
        interfaceName: config.netdev,
        epochMs: context.epochMs,
      },
      context,
      context.openFile(config.file),
    ),
  'filter-buffer': (config, context) =>
    new BufferFilter({ id: config.id, direction: config.queue, intervalNs: config.intervalNs }, context),
  'filter-mirror': (config, context) =>
    new MirrorFilter(
      {
        id: config.id,
        direction: config.queue,
        vnetHdr: config.vnetHdr,
        linkHeaderBytes: context.linkHeaderBytes,
      },
      context,
      chardevFor(config.outdev, '', context),
    ),
  'filter-redirector': (config, context) => {
    const { id, queue: direction, vnetHdr, indev, outdev } = config;
    return new RedirectorFilter(
      { id, direction, vnetHdr, linkHeaderBytes: context.linkHeaderBytes },
      context,
      indev === undefined ? undefined : chardevFor(indev, 'IN ', context),
      outdev === undefined ? undefined : chardevFor(outdev, 'OUT ', context),
    );
  },
  'filter-hook': (config, context) => {
    const { id, queue: direction, netdev, module: path, config: text } = config;
    if (context.hookModule === undefined) {
      throw new UnsupportedError(`filter-hook: modules cannot be loaded here ('${path}')`);
    }
    try {
      return new HookFilter({ id, direction, netdev, config: text }, context, context.hookModule);
    } catch (error) {
      throw new OptionError(
        `filter-hook: '${path}' would not start: ${error instanceof Error ? error.message : error}`,
      );
    }
  },
  'filter-rewriter': (config, context) =>
    new RewriterFilter({ id: config.id, direction: config.queue, ipv6: config.ipv6 }, context),
  'filter-replay': (config, context) =>
    new ReplayFilter({ id: config.id, direction: config.queue }, replayMode(config, context), context),
  'filter-netem': (config, context) =>
    new NetemFilter({ id: config.id, direction: config.queue }, config, context, context.random),
};

function replayMode({ mode, file }: FilterConfigOf<'filter-replay'>, context: FilterContext): ReplayMode {
  if (mode === 'none') return { kind: 'none' };
  if (mode === 'record') return { kind: 'record', sink: context.openFile(file) };
  const recording = context.readFile(file);
  if (!isRecording(recording)) {
    throw new OptionError(`filter-replay: '${file}' is no recording`, { option: 'rrfile' });
  }
  return { kind: 'replay', recording };
}

/** A free chardev. Throws OptionError in QEMU's words. */
function chardevFor(id: string, which: string, context: Pick<FilterContext, 'chardev'>): Chardev {
  const chardev = context.chardev(id);
  if (chardev === undefined) {
    throw new OptionError(`${which}Device '${id}' not found`, { qmpClass: 'DeviceNotFound' });
  }
  if (chardev.busy) throw new OptionError(`Device '${id}' is in use`);
  return chardev;
}

export function isFilter(config: ObjectConfig): config is FilterConfig {
  return 'netdev' in config;
}

export function createFilter(config: FilterConfig, context: FilterContext): Filter {
  // The table pairs each name with its own config type, which an index by a union cannot express.
  const make = filters[config.type] as (config: FilterConfig, context: FilterContext) => Filter;
  const filter = make(config, context);
  filter.active = config.status === 'on';
  return filter;
}

/** What an object that is no filter is given. */
export type ObjectContext = LinkContext & Pick<FilterContext, 'chardev'>;

export function createObject(
  config: Exclude<ObjectConfig, FilterConfig>,
  context: ObjectContext,
): RunningObject {
  const { id } = config;
  // Everything runs on the network's own loop: an iothread is a name that colo-compare lines refer to.
  if (config.type === 'iothread') return { id, type: config.type, stats: {}, close() {} };
  const { primaryIn, secondaryIn, outdev, notifyDev, vnetHdr, ipv6 } = config;
  return new ColoCompare({ id, vnetHdr, ipv6 }, config, context, {
    primary: chardevFor(primaryIn, '', context),
    secondary: chardevFor(secondaryIn, '', context),
    out: chardevFor(outdev, '', context),
    notify: notifyDev === undefined ? undefined : chardevFor(notifyDev, '', context),
  });
}

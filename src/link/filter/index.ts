/** THE TABLE of filters: which `--object filter-…` types can be made, from their checked options. */

import type { ObjectConfig, ObjectTypeName } from '../../config/objects/index.ts';
import { UnsupportedError } from '../../core/errors.ts';
import type { LinkContext } from '../../core/port.ts';
import { type ByteSink, DumpFilter } from './dump.ts';
import type { Filter } from './filter.ts';

export type FilterConfig = Extract<ObjectConfig, { readonly netdev: string }>;
type FilterConfigOf<K extends ObjectTypeName> = Extract<FilterConfig, { readonly type: K }>;

/** What filters are given. */
export interface FilterContext extends LinkContext {
  /** Milliseconds since 1970 at the clock's zero. */
  readonly epochMs: number;
  /** Makes (or empties) a file; throws HostIoError, or UnsupportedError where there are no files. */
  readonly openFile: (path: string) => ByteSink;
}

type MakeFilter<K extends ObjectTypeName> = (config: FilterConfigOf<K>, context: FilterContext) => Filter;

const filters: { readonly [K in FilterConfig['type']]?: MakeFilter<K> } = {
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
};

export function isFilter(config: ObjectConfig): config is FilterConfig {
  return 'netdev' in config;
}

/** Throws UnsupportedError for a type that is not built yet. */
export function createFilter(config: FilterConfig, context: FilterContext): Filter {
  // The table pairs each name with its own config type, which an index by a union cannot express.
  const make = filters[config.type] as ((config: FilterConfig, context: FilterContext) => Filter) | undefined;
  if (make === undefined)
    throw new UnsupportedError(`object type '${config.type}' is not available in this build of netemu`);
  const filter = make(config, context);
  filter.active = config.status === 'on';
  return filter;
}

/** What all filters have: the netdev they sit on, the direction they see and their place in its chain. */
import { OptionError } from '../../core/errors.ts';
import { isIdentifier } from '../kinds.ts';
import { defineOptions, type OptionsOf } from '../schema.ts';

export const filterCommonOptions = defineOptions({
  netdev: { kind: 'string', metavar: 'id', required: true, doc: 'The netdev whose frames pass the filter.' },
  queue: {
    kind: 'enum',
    values: ['all', 'rx', 'tx'],
    default: 'all',
    doc: 'The direction: rx is what is sent to the netdev, tx is what the netdev sends.',
  },
  status: {
    kind: 'string',
    metavar: 'on|off',
    default: 'on',
    doc: 'off lets every frame pass untouched.',
  },
  position: {
    kind: 'string',
    metavar: 'head|tail|id=ID',
    default: 'tail',
    doc: 'Where in the chain to go: its head, its tail, or beside the filter of that id.',
  },
  insert: {
    kind: 'enum',
    values: ['before', 'behind'],
    default: 'behind',
    doc: 'With position=id=ID, on which side of that filter.',
  },
});

export interface FilterCommon {
  readonly netdev: string;
  readonly queue: 'all' | 'rx' | 'tx';
  readonly status: 'on' | 'off';
  readonly position:
    | { readonly at: 'head' | 'tail' }
    | { readonly at: 'before' | 'behind'; readonly filter: string };
}

export function resolveFilterCommon(o: OptionsOf<typeof filterCommonOptions>): FilterCommon {
  return {
    netdev: o.netdev,
    queue: o.queue,
    status: filterStatus(o.status),
    position: filterPosition(o.position, o.insert),
  };
}

/** `on` or `off`; also what `qom-set` may write to a filter's status. */
export function filterStatus(text: string): 'on' | 'off' {
  if (text === 'on' || text === 'off') return text;
  throw new OptionError("Invalid value for netfilter status, should be 'on' or 'off'", { option: 'status' });
}

function filterPosition(text: string, insert: 'before' | 'behind'): FilterCommon['position'] {
  if (text === 'head' || text === 'tail') return { at: text };
  const filter = text.startsWith('id=') ? text.slice(3) : '';
  if (!isIdentifier(filter)) {
    throw new OptionError("Parameter 'position' expects 'head', 'tail' or 'id=<id>'", { option: 'position' });
  }
  return { at: insert, filter };
}

export function filterNotFound(id: string): OptionError {
  return new OptionError(`filter '${id}' not found`, { option: 'position' });
}

/** A filter's netdev that is not there. */
export function filterNetdevNotFound(): OptionError {
  return new OptionError("Parameter 'netdev' expects a network backend id", { option: 'netdev' });
}

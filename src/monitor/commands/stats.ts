/** Counters by the QAPI's statistics commands. QEMU has none for networks; targets and names are netemu's own. */

import { OptionError } from '../../core/errors.ts';
import { type Counted, type CountedKind, countedThings, GAUGES } from '../../network/describe.ts';
import {
  type Command,
  command,
  listArgument,
  objectElement,
  onlyMembers,
  rawCommand,
  readArguments,
} from '../command.ts';
import { addShape, int, list, number, oneOf, optional, str, struct, type ValueOfShape } from '../shape.ts';

const TARGETS = ['nic', 'queue', 'netdev', 'hub-port', 'filter', 'object', 'chardev', 'pool'] as const;
const PROVIDER = 'netemu';

const filterOptions = {
  target: { kind: 'enum', values: TARGETS, required: true, doc: 'What kind of thing to ask about.' },
} as const;
const requestOptions = {
  provider: { kind: 'enum', values: [PROVIDER], required: true, doc: 'Who counts.' },
} as const;

const provider = oneOf('StatsProvider', [PROVIDER]);
const statsResult = struct('StatsResult', {
  provider,
  'qom-path': optional(str),
  stats: list(struct('Stats', { name: str, value: number })),
});
const statsSchema = struct('StatsSchema', {
  provider,
  target: oneOf('StatsTarget', TARGETS),
  stats: list(
    struct('StatsSchemaValue', {
      name: str,
      type: oneOf('StatsType', ['cumulative', 'instant']),
      unit: optional(oneOf('StatsUnit', ['bytes'])),
      base: optional(int),
      exponent: int,
    }),
  ),
});

export const statsCommands: readonly Command[] = [
  rawCommand({
    name: 'query-stats',
    doc: 'Counters of all NICs, queues, netdevs, hub ports, filters or chardevs.',
    returns: list(statsResult),
    schema: (builder) =>
      builder.members('StatsFilter', [
        { name: 'target', type: builder.enumeration('StatsTarget', TARGETS) },
        {
          name: 'providers',
          type: builder.list(
            builder.members('StatsRequest', [
              ...builder.membersOf('StatsRequest', requestOptions),
              { name: 'names', type: addShape(builder, list(str)), default: null },
            ]),
          ),
          default: null,
        },
      ]),
    run: (args, { monitor }) => {
      const { providers, ...rest } = args;
      const { target } = readArguments(filterOptions, rest);
      const wanted = providers === undefined ? undefined : wantedNames(args);
      return [...countedThings(monitor.network)]
        .filter(({ kind }) => kind === target)
        .map((counted) => result(counted, wanted));
    },
  }),
  command({
    name: 'query-stats-schemas',
    doc: 'The names and kinds of the counters that exist now.',
    returns: list(statsSchema),
    args: { provider: { kind: 'enum', values: [PROVIDER], doc: 'Only what this provider counts.' } },
    run: (_args, { monitor }) => {
      const schemas = new Map<CountedKind, Set<string>>();
      for (const { kind, counters } of countedThings(monitor.network)) {
        const known = schemas.get(kind) ?? new Set();
        for (const name of Object.keys(counters)) known.add(name);
        schemas.set(kind, known);
      }
      return [...schemas].map(
        ([target, known]): ValueOfShape<typeof statsSchema> => ({
          provider: PROVIDER,
          target,
          stats: [...known].map((name) => ({
            name,
            type: GAUGES.has(name) ? 'instant' : 'cumulative',
            ...(name.endsWith('Bytes') && { unit: 'bytes' }),
            base: 10,
            exponent: 0,
          })),
        }),
      );
    },
  }),
];

/** The counters that the request names; undefined: all. */
function wantedNames(args: Parameters<Command['run']>[0]): ReadonlySet<string> | undefined {
  const wanted = new Set<string>();
  for (const [index, element] of listArgument(args, 'providers').entries()) {
    const request = objectElement(element, `providers[${index}]`);
    const { names: list, ...rest } = request;
    readArguments(requestOptions, rest);
    if (list === undefined) return undefined;
    for (const name of listArgument(request, 'names')) {
      if (typeof name !== 'string') {
        throw new OptionError(`Invalid parameter type for 'names', expected: string`, { option: 'names' });
      }
      wanted.add(name);
    }
  }
  onlyMembers(args, ['target', 'providers']);
  return wanted;
}

function result(
  { path, counters }: Counted,
  wanted: ReadonlySet<string> | undefined,
): ValueOfShape<typeof statsResult> {
  return {
    provider: PROVIDER,
    'qom-path': path,
    stats: Object.entries(counters)
      .filter(([name]) => wanted === undefined || wanted.has(name))
      .map(([name, value]) => ({ name, value })),
  };
}

/** Every option of every table: it is documented, and its declaration makes sense. */
import { describe, expect, expectTypeOf, it } from 'vitest';
import { chardevTypes } from '../../src/config/chardevs.ts';
import { nicCommonOptions } from '../../src/config/devices/common.ts';
import { nicModels } from '../../src/config/devices/index.ts';
import { flags } from '../../src/config/flags.ts';
import { guestTypes } from '../../src/config/guest.ts';
import { flatOptions } from '../../src/config/help.ts';
import { defaultAsText, fromText, metavar } from '../../src/config/kinds.ts';
import { netNicOptions, nicOptions } from '../../src/config/legacy.ts';
import { monOptions } from '../../src/config/monitor-option.ts';
import { netdevCommonOptions, netdevTypes } from '../../src/config/netdevs/index.ts';
import { filterCommonOptions } from '../../src/config/objects/filter-common.ts';
import { objectTypes } from '../../src/config/objects/index.ts';
import { defineOptions, type InputOf, type OptionsOf, type OptionTable } from '../../src/config/schema.ts';

const groups = {
  netdev: netdevTypes,
  device: nicModels,
  object: objectTypes,
  chardev: chardevTypes,
  guest: guestTypes,
};
const tables: [string, OptionTable][] = [
  ...Object.entries(groups).flatMap(([flag, types]) =>
    Object.entries(types as { [name: string]: { options: OptionTable } }).map(
      ([name, { options }]): [string, OptionTable] => [`--${flag} ${name}`, options],
    ),
  ),
  ['--netdev', netdevCommonOptions],
  ['--device', nicCommonOptions],
  ['--object filter', filterCommonOptions],
  ['--mon', monOptions],
  ['--net nic', netNicOptions],
  ['--nic', nicOptions],
];

describe.each(tables)('%s', (_title, table) => {
  // A table may be empty (null has no options); then there is nothing to check.
  it.each([...flatOptions(table), { name: 'nothing', spec: undefined }])('$name', ({ spec }) => {
    if (spec === undefined) return;
    expect(spec.doc).toMatch(/^(\([a-z]+\) )?\S.{9,}[.]$/s);
    expect(spec.doc).not.toMatch(/\s\s|\bTODO\b/);
    expect(metavar(spec)).not.toBe('');
    const hasDefault = 'default' in spec && spec.default !== undefined;
    expect(
      Number(hasDefault) + Number(spec.defaultText !== undefined) + Number(spec.required ?? 0),
    ).toBeLessThan(2);
    if (!hasDefault) return;
    // What help shows as the default is what the parser makes of it.
    const text = defaultAsText(spec)!;
    expect(fromText('x', spec, text, { source: 'command-line', voice: 'options' })).toEqual(spec.default);
  });
});

it('types share no option name with what all of them have', () => {
  for (const { options } of Object.values(netdevTypes)) expect(options).not.toHaveProperty('id');
  for (const { options } of Object.values(nicModels)) {
    for (const name of Object.keys(options)) expect(nicCommonOptions).not.toHaveProperty(name);
  }
  for (const { options } of Object.values(objectTypes)) {
    for (const name of Object.keys(options)) expect(filterCommonOptions).not.toHaveProperty(name);
  }
});

it('flags are documented and spelled once', () => {
  const names = flags.flatMap((flag) => [flag.name, ...('aliases' in flag ? flag.aliases : [])]);
  expect(new Set(names).size).toBe(names.length);
  for (const { doc } of flags) expect(doc).toMatch(/^\S.{9,}\.$/);
});

it('the TypeScript types follow from the table', () => {
  const table = defineOptions({
    on: { kind: 'bool', default: false, doc: '.' },
    name: { kind: 'string', required: true, doc: '.' },
    mode: { kind: 'enum', values: ['a', 'b'], doc: '.' },
    many: { kind: 'list', doc: '.' },
    big: { kind: 'uint64', doc: '.' },
    addr: {
      kind: 'union',
      tag: 'type',
      doc: '.',
      branches: { unix: { path: { kind: 'string', required: true, doc: '.' } }, none: {} },
    },
  });
  expectTypeOf<OptionsOf<typeof table>>().toEqualTypeOf<{
    readonly on: boolean;
    readonly name: string;
    readonly mode?: 'a' | 'b';
    readonly many?: readonly string[];
    readonly big?: bigint;
    readonly addr?: { type: 'unix'; readonly path: string } | { type: 'none' };
  }>();
  expectTypeOf<{ name: 'x'; many: 'y'; big: 4 }>().toExtend<InputOf<typeof table>>();
  expectTypeOf<{ on: true }>().not.toExtend<InputOf<typeof table>>();
});

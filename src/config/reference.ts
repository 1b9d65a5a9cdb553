/** The reference page docs/options.md, written from the tables. A test keeps the file equal to this text. */
import { chardevTypes } from './chardevs.ts';
import { nicCommonOptions } from './devices/common.ts';
import { nicDrivers, nicModels } from './devices/index.ts';
import { type Flag, flags, spelled } from './flags.ts';
import { guestTypes } from './guest.ts';
import { type FlatOption, flatOptions } from './help.ts';
import { defaultAsText, metavar } from './kinds.ts';
import { netNicOptions, nicOptions } from './legacy.ts';
import { monOptions } from './monitor-option.ts';
import { netdevCommonOptions, netdevTypes } from './netdevs/index.ts';
import { filterCommonOptions } from './objects/filter-common.ts';
import { objectTypes } from './objects/index.ts';
import { sandboxOptions } from './sandbox.ts';
import type { OptionTable } from './schema.ts';

interface Section {
  readonly summary: string;
  readonly beyond?: true;
  readonly options: OptionTable;
}

export function referencePage(): string {
  const aliases = Object.entries(nicDrivers)
    .filter(([, { aliasOf }]) => aliasOf !== undefined)
    .map(([name, { aliasOf }]) => `\`${name}\` is \`${aliasOf}\``);
  return [
    '# Options',
    '',
    'This page is generated from the option tables in `src/config` by `npm run docs`; do not edit it.',
    '',
    'Values are given as `key=value` separated by commas (`,,` is a comma inside a value), or as one JSON object.',
    'A key by itself is `key=on`. Options marked † do not exist in QEMU.',
    '',
    '## The command line',
    '',
    'Every option takes one dash or two, and its argument after a space or a `=`.',
    '',
    ...table(
      ['option', 'argument', 'meaning'],
      (flags as readonly Flag[]).map((flag) => [
        [flag.name, ...(flag.aliases ?? [])].map((name) => code(spelled(name))).join(', '),
        flag.argument === undefined ? '' : code(flag.argument),
        flag.doc,
      ]),
    ),
    '## Netdevs: `--netdev TYPE,id=ID`',
    '',
    ...options(netdevCommonOptions),
    ...sections(netdevTypes),
    '## NICs: `--device MODEL`',
    '',
    `Aliases: ${aliases.join(', ')}. Every model has:`,
    '',
    ...options(nicCommonOptions),
    ...sections(nicModels),
    '## Objects: `--object TYPE,id=ID`',
    '',
    'Every filter has:',
    '',
    ...options(filterCommonOptions),
    ...sections(objectTypes),
    '## Character devices: `--chardev TYPE,id=ID`',
    '',
    ...sections(chardevTypes),
    '## Monitors: `--mon`',
    '',
    ...options(monOptions),
    '## The sandbox: `--sandbox on`',
    '',
    ...options(sandboxOptions),
    '## Guests: `--guest TYPE`',
    '',
    ...sections(guestTypes),
    '## The old ways: `--net` and `--nic`',
    '',
    '`--net TYPE` takes the options of `--netdev TYPE` and puts the netdev on hub 0. `--net nic` takes:',
    '',
    ...options(netNicOptions),
    '`--nic TYPE` takes the options of `--netdev TYPE`, and:',
    '',
    ...options(nicOptions),
  ].join('\n');
}

function sections(types: { readonly [name: string]: Section }): string[] {
  return Object.entries(types).flatMap(([name, { summary, beyond, options: own }]) => [
    `### ${code(name)}${beyond ? ' †' : ''}`,
    '',
    `${summary[0]!.toUpperCase()}${summary.slice(1)}.`,
    '',
    ...options(own),
  ]);
}

function options(own: OptionTable): string[] {
  const rows = flatOptions(own).map(row);
  return rows.length === 0 ? [] : table(['option', 'value', 'default', 'meaning'], rows);
}

function row({ name, spec }: FlatOption): string[] {
  const value = defaultAsText(spec);
  return [
    code(name) + (spec.beyond ? ' †' : ''),
    code(metavar(spec)),
    spec.required ? 'required' : value === undefined || value === '' ? '' : value,
    spec.legacy === undefined ? spec.doc : `${spec.doc} Old: ${spec.legacy}.`,
  ];
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line), ''];
}

const code = (text: string): string => `\`${text}\``;
const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll(/<(?=[a-z])/g, '&lt;');

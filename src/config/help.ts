/** Help texts, written from the tables. Each function returns whole lines, ready to print. */
import { chardevTypes } from './chardevs.ts';
import { driverNamed, nicDrivers, nicModels, propertiesOf } from './devices/index.ts';
import { type Flag, flags, spelled } from './flags.ts';
import { guestTypes } from './guest.ts';
import { defaultAsText, metavar } from './kinds.ts';
import { netNicOptions, nicOptions } from './legacy.ts';
import { monOptions } from './monitor-option.ts';
import { netdevCommonOptions, netdevTypeNamed, netdevTypes } from './netdevs/index.ts';
import { objectTypeNamed, objectTypes, optionsOfObject } from './objects/index.ts';
import { sandboxOptions } from './sandbox.ts';
import type { OptionSpec, OptionTable } from './schema.ts';

const WIDTH = 100;

export function programHelp(): string {
  const titles: { readonly [G in Flag['group']]: string } = {
    network: 'The network',
    guest: 'Who drives the NICs',
    monitor: 'Monitors',
    program: 'The program',
    compat: "QEMU's, taken so that netemu can stand in for it",
  };
  const lines = [
    'usage: netemu [--netdev …]… [--device …]… [option…]',
    '       netemu bench …            measure packet throughput',
    '       netemu netns … -- COMMAND run a command in a namespace on the user network',
    '       netemu build-native       compile the native addon',
    '',
    'A virtual network for NICs without a machine. Try:',
    '  netemu --netdev user,id=n0 --device e1000,netdev=n0',
    '',
    'Options take one dash or two. --netdev help lists types, --netdev user,help their options.',
  ];
  for (const [group, title] of Object.entries(titles)) {
    lines.push('', `${title}:`);
    for (const flag of flags as readonly Flag[]) {
      if (flag.group === group) lines.push(...entry(flagHead(flag), flag.doc));
    }
  }
  return `${lines.join('\n')}\n`;
}

/** `--netdev help`. */
export function netdevHelp(): string {
  return list('Netdev types:', netdevTypes, '--netdev TYPE,help lists the options of a type.');
}

/** `--netdev TYPE,help`. Throws for an unknown type. */
export function netdevTypeHelp(type: string): string {
  const { summary, options } = netdevTypeNamed(type);
  return optionHelp(`--netdev ${type}`, summary, { ...netdevCommonOptions, ...options });
}

/** `--device help`. */
export function deviceHelp(): string {
  const names: Record<string, { summary: string }> = {};
  for (const [name, { model, aliasOf }] of Object.entries(nicDrivers)) {
    const { summary } = nicModels[model];
    names[name] = { summary: aliasOf === undefined ? summary : `${summary}, alias of ${aliasOf}` };
  }
  return list('Device models:', names, '--device MODEL,help lists the properties of a model.');
}

/** `--device MODEL,help`. Throws for an unknown model. */
export function deviceModelHelp(name: string): string {
  const driver = driverNamed(name);
  return optionHelp(`--device ${name}`, nicModels[driver.model].summary, propertiesOf(driver));
}

/** `--object help`. */
export function objectHelp(): string {
  return list('Object types:', objectTypes, '--object TYPE,help lists the options of a type.');
}

/** `--object TYPE,help`. Throws for an unknown type. */
export function objectTypeHelp(name: string): string {
  const type = objectTypeNamed(name);
  return optionHelp(`--object ${name}`, type.summary, optionsOfObject(type));
}

/** `--chardev help`, with all options: the types are few and small. */
export function chardevHelp(): string {
  return typesHelp('--chardev', chardevTypes);
}

/** `--guest help`, with all options. */
export function guestHelp(): string {
  return typesHelp('--guest', guestTypes);
}

export function monHelp(): string {
  return optionHelp('--mon', 'a monitor on a character device', monOptions);
}

export function sandboxHelp(): string {
  return optionHelp('--sandbox on|off', 'what is given up once everything is open', sandboxOptions);
}

export function netHelp(): string {
  return (
    optionHelp('--net nic', 'a NIC on hub 0', netNicOptions) +
    '\n--net TYPE takes the options of --netdev TYPE and puts the netdev on hub 0.\n'
  );
}

export function nicHelp(): string {
  return (
    optionHelp('--nic TYPE', 'a netdev and a NIC plugged into it', nicOptions) +
    '\n--nic TYPE also takes the options of --netdev TYPE; without a type it is user.\n'
  );
}

/** One table as text. Union members appear under their dotted names. */
function optionHelp(title: string, summary: string, table: OptionTable): string {
  const lines = [`${title}: ${summary}`];
  for (const { name, spec } of flatOptions(table)) {
    lines.push(...entry(`${name}=<${metavar(spec)}>`, docWithDefault(spec)));
  }
  if (lines.length === 1) lines.push('  (no options)');
  return `${lines.join('\n')}\n`;
}

export interface FlatOption {
  readonly name: string;
  readonly spec: OptionSpec;
  /** For a union's member: which branches have it. */
  readonly branches?: readonly string[];
}

/** A table's options with union members in place of the union, under dotted names. */
export function flatOptions(table: OptionTable): FlatOption[] {
  return Object.entries(table).flatMap(([name, spec]): FlatOption[] => {
    if (spec.kind !== 'union') return [{ name, spec }];
    const values = Object.keys(spec.branches);
    const tag: OptionSpec = {
      kind: 'enum',
      values,
      doc: spec.doc,
      ...(spec.required && { required: true as const }),
    };
    const members = Object.entries(spec.branches).flatMap(([branch, members]) =>
      Object.entries(members).map(
        ([member, memberSpec]): FlatOption => ({
          name: `${name}.${member}`,
          spec: { ...memberSpec, doc: `(${branch}) ${memberSpec.doc}` },
          branches: [branch],
        }),
      ),
    );
    return [{ name: `${name}.${spec.tag}`, spec: tag }, ...members];
  });
}

/** The doc with what else help says of an option. */
export function docWithDefault(spec: OptionSpec): string {
  const notes: string[] = [];
  const value = defaultAsText(spec);
  if (spec.required) notes.push('required');
  if (value !== undefined && value !== '') notes.push(`default: ${value}`);
  if (spec.legacy !== undefined) notes.push(`old: ${spec.legacy}`);
  return notes.length === 0 ? spec.doc : `${spec.doc} (${notes.join('; ')})`;
}

function flagHead(flag: Flag): string {
  const names = [flag.name, ...(flag.aliases ?? [])].map(spelled).join(', ');
  if (flag.argument === undefined) return names;
  return flag.optional ? `${names}[=${flag.argument}]` : `${names} ${flag.argument}`;
}

function list(
  title: string,
  rows: { readonly [name: string]: { readonly summary: string } },
  hint: string,
): string {
  const width = Math.max(...Object.keys(rows).map((name) => name.length));
  const lines = Object.entries(rows).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return `${title}\n${lines.join('\n')}\n${hint}\n`;
}

function typesHelp(
  flag: string,
  types: { readonly [name: string]: { readonly summary: string; readonly options: OptionTable } },
): string {
  return Object.entries(types)
    .map(([name, { summary, options }]) => optionHelp(`${flag} ${name}`, summary, options))
    .join('\n');
}

/** A head at the left, its text at column 30 and below. */
function entry(head: string, text: string): string[] {
  const indent = 30;
  const lines = wrap(text, WIDTH - indent);
  const first = `  ${head}`;
  const padded = lines.map((line) => ' '.repeat(indent) + line);
  if (first.length >= indent - 1) return [first, ...padded];
  return [first.padEnd(indent) + lines[0], ...padded.slice(1)];
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

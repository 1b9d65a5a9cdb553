/**
 * Shell completion. The scripts are thin: they hand the words typed so far to `netemu --complete`, which answers
 * from the tables, so they never go stale and know the ids given earlier on the same line.
 */
import { OptionError } from '../core/errors.ts';
import { chardevTypes } from './chardevs.ts';
import { driverNamed, nicDrivers, propertiesOf } from './devices/index.ts';
import { type Flag, flagNamed, flags, type Shell, shells, spelled } from './flags.ts';
import { guestTypes } from './guest.ts';
import { flatOptions } from './help.ts';
import { type KeyvalEntry, splitKeyval } from './keyval.ts';
import { netNicOptions, nicOptions } from './legacy.ts';
import { monOptions } from './monitor-option.ts';
import { netdevCommonOptions, netdevTypes } from './netdevs/index.ts';
import { objectTypeNamed, objectTypes, optionsOfObject } from './objects/index.ts';
import { sandboxOptions } from './sandbox.ts';
import type { OptionSpec, OptionTable } from './schema.ts';

/** What can be typed as the argument of a flag: first words, and the options each has. */
interface ArgumentGrammar {
  readonly first: readonly string[];
  readonly table: (first: string) => OptionTable;
}

const known = (types: object, name: string): boolean => Object.hasOwn(types, name);
const ID: OptionTable = { id: { kind: 'id', doc: 'The name others refer to.' } };
const netdevTable = (type: string): OptionTable =>
  known(netdevTypes, type)
    ? { ...netdevCommonOptions, ...netdevTypes[type as keyof typeof netdevTypes].options }
    : {};

const grammars: { readonly [flag: string]: ArgumentGrammar } = {
  netdev: { first: Object.keys(netdevTypes), table: netdevTable },
  device: {
    first: Object.keys(nicDrivers),
    table: (name) => (known(nicDrivers, name) ? propertiesOf(driverNamed(name)) : {}),
  },
  object: {
    first: Object.keys(objectTypes),
    table: (name) => (known(objectTypes, name) ? optionsOfObject(objectTypeNamed(name)) : {}),
  },
  chardev: {
    first: Object.keys(chardevTypes),
    table: (name) =>
      known(chardevTypes, name) ? { ...ID, ...chardevTypes[name as keyof typeof chardevTypes].options } : {},
  },
  guest: {
    first: Object.keys(guestTypes),
    table: (name) => (known(guestTypes, name) ? guestTypes[name as keyof typeof guestTypes].options : {}),
  },
  net: {
    first: ['none', 'nic', ...Object.keys(netdevTypes)],
    table: (type) => (type === 'nic' ? netNicOptions : netdevTable(type)),
  },
  nic: {
    first: ['none', ...Object.keys(netdevTypes)],
    table: (type) => ({ ...nicOptions, ...netdevTable(type) }),
  },
  mon: { first: [], table: () => monOptions },
  sandbox: { first: ['on', 'off'], table: () => sandboxOptions },
};

/** Words that stand for a whole argument. */
const plainArguments: { readonly [flag: string]: readonly string[] } = {
  completion: shells,
  'log-level': ['trace', 'debug', 'info', 'warn', 'error', 'silent'],
  qmp: ['unix:', 'tcp:', 'stdio', 'none'],
  monitor: ['stdio', 'unix:', 'tcp:', 'none'],
  qtest: ['unix:', 'stdio'],
};

/** What the last of `words` may become. `words` are those after the program's name; the last may be empty. */
export function completeWords(words: readonly string[]): string[] {
  const current = words.at(-1) ?? '';
  const flag = flagNamed((words.at(-2) ?? '').replace(/^--?/, ''));
  if (flag?.argument !== undefined && !flag.optional && words.at(-2)!.startsWith('-')) {
    return completeArgument(flag, current, words.slice(0, -2));
  }
  const names = (flags as readonly Flag[])
    .filter(({ group }) => group !== 'compat')
    .map(({ name }) => spelled(name));
  const dashes = /^-[^-]/.test(current) ? `-${current}` : current;
  return names.filter((name) => name.startsWith(dashes));
}

function completeArgument(flag: Flag, current: string, before: readonly string[]): string[] {
  const grammar = grammars[flag.name];
  if (!grammar) return (plainArguments[flag.name] ?? []).filter((word) => word.startsWith(current));
  const comma = current.lastIndexOf(',');
  const start = current.slice(0, comma + 1);
  const last = current.slice(comma + 1);
  if (comma < 0 && grammar.first.length > 0)
    return [...grammar.first, 'help'].filter((word) => word.startsWith(last));

  const entries = entriesOf(start);
  const options = flatOptions(grammar.table(entries[0]?.value ?? ''));
  const equals = last.indexOf('=');
  if (equals >= 0) {
    const key = last.slice(0, equals);
    const spec = options.find(({ name }) => name === key)?.spec;
    const typed = last.slice(equals + 1);
    const values = spec === undefined ? [] : valuesOf(key, spec, before);
    return values.filter((value) => value.startsWith(typed)).map((value) => `${start}${key}=${value}`);
  }
  const given = new Set(entries.map(({ key }) => key));
  return options
    .filter(({ name, spec }) => name.startsWith(last) && (spec.kind === 'list' || !given.has(name)))
    .map(({ name }) => `${start}${name}=`);
}

function valuesOf(key: string, spec: OptionSpec, before: readonly string[]): readonly string[] {
  if (spec.kind === 'bool') return ['on', 'off'];
  if (spec.kind === 'enum') return spec.values;
  if (key === 'netdev') return idsGiven(before, 'netdev');
  if (spec.kind === 'string' && (key === 'chardev' || spec.metavar === 'chardev'))
    return idsGiven(before, 'chardev');
  if (key === 'model') return Object.keys(nicDrivers);
  return [];
}

/** The entries of a line that is still being typed: none while it makes no sense. */
function entriesOf(text: string): KeyvalEntry[] {
  try {
    return splitKeyval(text, 'type');
  } catch (error) {
    if (error instanceof OptionError) return [];
    throw error;
  }
}

/** The ids that earlier words of the line declared by `flag`. */
function idsGiven(words: readonly string[], flag: string): string[] {
  return words.flatMap((word, i) => {
    if (flagNamed((words[i - 1] ?? '').replace(/^--?/, ''))?.name !== flag) return [];
    const id = entriesOf(word).findLast(({ key }) => key === 'id')?.value;
    return id === undefined ? [] : [id];
  });
}

/** The script that a shell's start-up file takes in. */
export function completionScript(shell: Shell): string {
  switch (shell) {
    case 'bash':
      return BASH;
    case 'zsh':
      return ZSH;
    case 'fish':
      return FISH;
  }
}

const BASH = `# bash completion for netemu: source <(netemu --completion bash)
_netemu() {
  local line words current
  # Readline splits words at '=' and ':'; options hold both, so split at blanks only.
  line=\${COMP_LINE:0:COMP_POINT}
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=\${words[-1]}
  mapfile -t COMPREPLY < <(netemu --complete "\${words[@]:1}" 2>/dev/null)
  [[ \${COMPREPLY[0]} == *[=:] || \${#COMPREPLY[@]} -eq 0 ]] && compopt -o nospace
  # What readline thinks is the current word begins after the last '=' or ':'.
  local prefix=\${current%"\${current##*[=:]}"}
  COMPREPLY=("\${COMPREPLY[@]#"$prefix"}")
}
complete -o default -F _netemu netemu
`;

const ZSH = `#compdef netemu
# zsh completion for netemu: source <(netemu --completion zsh)
_netemu() {
  local -a candidates
  candidates=("\${(@f)$(netemu --complete "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  candidates=(\${candidates:#})
  if (( $#candidates )); then
    compadd -Q -S '' -- $candidates
  else
    _files
  fi
}
compdef _netemu netemu
`;

const FISH = `# fish completion for netemu: netemu --completion fish | source
function __netemu_complete
  set -l words (commandline -opc) (commandline -ct)
  netemu --complete $words[2..-1] 2>/dev/null
end
complete -c netemu -a '(__netemu_complete)'
`;

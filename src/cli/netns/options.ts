/** The options of `netemu netns`: those of the program that make sense for one netdev of type user, and a few of its own. */

import {
  type CommandLine,
  CommandLineError,
  type Declaration,
  parseCommandLine,
} from '../../config/commandline.ts';
import { splitKeyval } from '../../config/keyval.ts';
import { checkInterfaceName } from '../../config/netdevs/definition.ts';
import { type NetdevConfigOf, parseNetdev } from '../../config/netdevs/index.ts';
import { OptionError } from '../../core/errors.ts';
import { usesStdio } from '../monitors.ts';

export type UserNetdev = NetdevConfigOf<'user'>;

export interface NetnsOptions {
  readonly action: 'run';
  /** Everything the program is to start, the user netdev among it. */
  readonly declarations: readonly Declaration[];
  readonly user: UserNetdev;
  readonly ifname: string;
  readonly command: readonly string[];
}

/** The largest the user network knows: with it a stream needs the fewest frames. */
const DEFAULT_MTU = '65520';
const DEFAULT_ID = 'user0';

export const netnsHelp = `usage: netemu netns [options] [-- COMMAND [ARGUMENT…]]

Runs a command (default: $SHELL) in a network namespace of its own, whose only way out is netemu's user network.
Needs no privilege where user namespaces are allowed; the command then sees itself as root. Its exit status is netemu's.

  --netdev user[,…]     the network: hostfwd, restrict, egress, loopback=off, … (--netdev user,help lists them)
  --mtu BYTES           the interface's IP MTU (default ${DEFAULT_MTU}; the same as mtu= of the netdev)
  --ifname NAME         what the interface is called inside (default tap0)

Options of the program that work here as well: --object (filters and captures), --chardev, --qmp, --monitor, --mon,
--metrics, --config, --log, --log-level, --name. The netdev's id is ${DEFAULT_ID} unless one is given.
`;

/** Parses what follows `netemu netns`. Throws OptionError. `expand` reads configuration files. */
export function parseNetnsOptions(
  argv: readonly string[],
  shell: string | undefined,
  expand: (declarations: readonly Declaration[]) => Declaration[],
): NetnsOptions | Exclude<CommandLine, { action: 'run' }> {
  const end = argv.indexOf('--');
  const command = end < 0 ? [shell || '/bin/sh'] : argv.slice(end + 1);
  if (command.length === 0) throw new OptionError("there is no command behind '--'");
  const own = new Map<string, string>();
  const rest: string[] = [];
  const words = end < 0 ? argv : argv.slice(0, end);
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!;
    if (/^--?(help|h)$/.test(word)) return { action: 'print', text: netnsHelp };
    const [, name, inline] = /^--?(mtu|ifname)(?:=(.*))?$/s.exec(word) ?? [];
    if (name !== undefined) {
      const value = inline ?? words[++at];
      if (value === undefined)
        throw new CommandLineError(new OptionError('requires an argument'), `--${name}`, undefined);
      own.set(name, value);
    } else if (/^--?netdev$/.test(word) && at + 1 < words.length) {
      rest.push('--netdev', withId(words[++at]!));
    } else {
      const [, argument] = /^--?netdev=(.*)$/s.exec(word) ?? [];
      rest.push(argument === undefined ? word : `--netdev=${withId(argument)}`);
    }
  }
  const line = parseCommandLine(rest);
  if (line.action !== 'run') return line;
  const declarations = expand(line.declarations);
  for (const declaration of declarations) checkFits(declaration);
  if (usesStdio(declarations)) throw new OptionError("standard input and output are the command's own");
  if (!declarations.some(({ kind }) => kind === 'netdev')) {
    const argument = `user,id=${DEFAULT_ID}`;
    declarations.push({ kind: 'netdev', netdev: parseNetdev(argument), flag: '--netdev', argument });
  }
  const at = declarations.findIndex(({ kind }) => kind === 'netdev');
  const declared = declarations[at] as Extract<Declaration, { kind: 'netdev' }>;
  if (declarations.findLastIndex(({ kind }) => kind === 'netdev') !== at)
    throw new OptionError('a namespace has one netdev');
  const user = withMtu(declared, own.get('mtu'));
  declarations[at] = { ...declared, netdev: user };
  const ifname = own.get('ifname') ?? 'tap0';
  try {
    checkInterfaceName('ifname', ifname);
  } catch (error) {
    throw error instanceof OptionError ? new CommandLineError(error, '--ifname', ifname) : error;
  }
  return { action: 'run', declarations, user, ifname, command };
}

/** `user` and `user,…` without an id get one: there is nothing here to tell apart. */
function withId(argument: string): string {
  if (!/^user(,|$)/.test(argument) || asks(argument, 'id') || asks(argument, 'help')) return argument;
  return argument.replace(/^user/, `user,id=${DEFAULT_ID}`);
}

/** Whether the text of a netdev names an option. */
function asks(argument: string, option: string): boolean {
  if (argument.startsWith('{')) return Object.hasOwn(JSON.parse(argument) as object, option);
  return splitKeyval(argument, 'type').some(({ key }) => key === option);
}

function withMtu(
  { netdev, flag, argument }: Extract<Declaration, { kind: 'netdev' }>,
  mtu: string | undefined,
): UserNetdev {
  if (netdev.type !== 'user') {
    throw new CommandLineError(
      new OptionError(`a namespace's netdev is of type 'user', not '${netdev.type}'`),
      flag,
      argument,
    );
  }
  // From a configuration file there is no argument to look at: what the file's netdev has, holds.
  const told = flag !== '--netdev' || asks(argument, 'mtu');
  if (mtu === undefined && told) return netdev;
  try {
    // The netdev's own check; its other options are as they were.
    const families = `ipv4=${netdev.ipv4 ? 'on' : 'off'},ipv6=${netdev.ipv6 ? 'on' : 'off'}`;
    const checked = parseNetdev(`user,id=x,${families},mtu=${mtu ?? DEFAULT_MTU}`) as UserNetdev;
    if (told && checked.ipMtuBytes !== netdev.ipMtuBytes)
      throw new OptionError(`the netdev says mtu=${netdev.ipMtuBytes}`);
    return { ...netdev, ipMtuBytes: checked.ipMtuBytes };
  } catch (error) {
    throw error instanceof OptionError ? new CommandLineError(error, '--mtu', mtu) : error;
  }
}

const FITTING: readonly Declaration['kind'][] = [
  'netdev',
  'object',
  'chardev',
  'monitor',
  'log',
  'log-level',
  'metrics',
  'name',
  'compat',
];

function checkFits({ kind, flag, argument }: Declaration): void {
  if (FITTING.includes(kind)) return;
  throw new CommandLineError(
    new OptionError('has no place in netns: the namespace is the guest'),
    flag,
    argument,
  );
}

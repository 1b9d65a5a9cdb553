/**
 * The command line: argv in, declarations out, in the order they were given.
 *
 * Nothing is made here and no file is read: a declaration is a checked config, and the caller builds the network
 * from all of them (references.ts checks that they fit together). A request for help becomes text to print.
 */
import { OptionError } from '../core/errors.ts';
import {
  type ChardevConfig,
  type ChardevReference,
  parseChardev,
  parseChardevReference,
} from './chardevs.ts';
import { completeWords, completionScript } from './completion.ts';
import { type DeviceConfig, parseDevice } from './devices/index.ts';
import { type Flag, type FlagName, flagNamed, flags, shells, spelled } from './flags.ts';
import { type GuestConfig, parseGuest } from './guest.ts';
import * as help from './help.ts';
import { asksForHelp, splitKeyval } from './keyval.ts';
import { doesNotAccept } from './kinds.ts';
import { LegacyIds, type LegacyNet, legacyAsksForHelp, parseNet, parseNic } from './legacy.ts';
import { type MonitorConfig, parseMon, parseMonitorAddress } from './monitor-option.ts';
import { nearest } from './nearest.ts';
import { type NetdevConfig, parseNetdev } from './netdevs/index.ts';
import { type ObjectConfig, parseObject } from './objects/index.ts';
import { parseSandbox, type SandboxConfig } from './sandbox.ts';
import { resolveHostPort, type SocketAddress, unixSocketPath } from './socket-address.ts';

export type LogLevel = (typeof LOG_LEVELS)[number];
const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

/** What one option declares. */
export type Declared =
  | { readonly kind: 'netdev'; readonly netdev: NetdevConfig }
  | { readonly kind: 'device'; readonly device: DeviceConfig }
  | { readonly kind: 'net'; readonly net: LegacyNet }
  | { readonly kind: 'chardev'; readonly chardev: ChardevConfig }
  | { readonly kind: 'object'; readonly object: ObjectConfig }
  | { readonly kind: 'monitor'; readonly monitor: MonitorConfig }
  | { readonly kind: 'guest'; readonly guest: GuestConfig }
  /** The guest stays stopped until the monitor says cont. */
  | { readonly kind: 'stopped' }
  | { readonly kind: 'qtest'; readonly address: ChardevReference }
  | { readonly kind: 'qtest-log'; readonly path: string }
  | { readonly kind: 'config'; readonly path: string }
  /** undefined: standard error. */
  | { readonly kind: 'log'; readonly path: string | undefined }
  | { readonly kind: 'log-level'; readonly level: LogLevel }
  | { readonly kind: 'metrics'; readonly address: SocketAddress }
  | { readonly kind: 'sandbox'; readonly sandbox: SandboxConfig }
  | { readonly kind: 'name'; readonly name: string }
  /** An option of QEMU's that changes nothing, except for the qtest platform. */
  | { readonly kind: 'compat' };

/** A declaration and where it came from, for messages. */
export type Declaration = Declared & {
  /** As spelled in messages: `--netdev`. */
  readonly flag: string;
  readonly argument: string;
};

export type CommandLine =
  | { readonly action: 'run'; readonly declarations: readonly Declaration[] }
  | { readonly action: 'print'; readonly text: string }
  | { readonly action: 'version' };

/** An OptionError with the option it came from. `message` stays the bare sentence. */
export class CommandLineError extends OptionError {
  override name = 'CommandLineError';
  readonly flag: string;
  /** undefined when the option itself is at fault. */
  readonly argument: string | undefined;

  constructor(cause: OptionError, flag: string, argument: string | undefined) {
    super(cause.message, {
      ...(cause.option !== undefined && { option: cause.option }),
      nearest: cause.nearest,
      qmpClass: cause.qmpClass,
    });
    this.flag = flag;
    this.argument = argument;
  }
}

/** One line: `netemu: --netdev ARG: TEXT`, with the nearest valid spelling where there is one. */
export function formatCliError(error: OptionError): string {
  const place =
    error instanceof CommandLineError
      ? `${oneLine(error.flag)}${error.argument === undefined ? '' : ` ${oneLine(error.argument)}`}: `
      : '';
  const hint = error.nearest === undefined ? '' : ` (did you mean '${error.nearest}'?)`;
  return `netemu: ${place}${oneLine(error.message)}${hint}`;
}

function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters must not reach the terminal
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** Parses what follows the program's name. Throws CommandLineError. */
export function parseCommandLine(argv: readonly string[]): CommandLine {
  if (argv[0] === '--complete') {
    return {
      action: 'print',
      text: completeWords(argv.slice(1))
        .map((word) => `${word}\n`)
        .join(''),
    };
  }
  const ids = new LegacyIds();
  const declarations: Declaration[] = [];
  for (let at = 0; at < argv.length; ) {
    const { flag, argument, next } = takeFlag(argv, at);
    at = next;
    const name = spelled(flag.name);
    try {
      const text = helpRequested(flag.name, argument);
      if (text !== undefined) return { action: 'print', text };
      if (flag.name === 'version') return { action: 'version' };
      const declared = declare(flag.name, argument, ids);
      if (declared) declarations.push({ ...declared, flag: name, argument: argument ?? '' });
    } catch (error) {
      if (error instanceof OptionError) throw new CommandLineError(error, name, argument);
      throw error;
    }
  }
  return { action: 'run', declarations };
}

interface TakenFlag {
  readonly flag: Flag & { readonly name: FlagName };
  readonly argument: string | undefined;
  readonly next: number;
}

function takeFlag(argv: readonly string[], at: number): TakenFlag {
  const word = argv[at]!;
  const match = /^--?([^=-][^=]*)(?:=(.*))?$/s.exec(word);
  const flag = match ? flagNamed(match[1]!) : undefined;
  if (!flag) throw unknownFlag(word, match?.[1]);
  const inline = match![2];
  if (flag.argument === undefined) {
    if (inline !== undefined) throw flagError(flag, 'takes no argument');
    return { flag, argument: undefined, next: at + 1 };
  }
  if (inline !== undefined || flag.optional) return { flag, argument: inline, next: at + 1 };
  if (at + 1 >= argv.length) throw flagError(flag, 'requires an argument');
  return { flag, argument: argv[at + 1]!, next: at + 2 };
}

function flagError(flag: Flag, text: string): CommandLineError {
  return new CommandLineError(new OptionError(text), spelled(flag.name), undefined);
}

function unknownFlag(word: string, name: string | undefined): CommandLineError {
  const near =
    name === undefined
      ? undefined
      : nearest(
          name,
          flags.map((flag) => flag.name),
        );
  const text = name === undefined ? "options begin with '--'" : 'invalid option';
  const error = new OptionError(text, {
    option: word,
    nearest: near === undefined ? undefined : spelled(near),
  });
  return new CommandLineError(error, word, undefined);
}

const HAS_HELP: readonly FlagName[] = [
  ...(['netdev', 'device', 'object', 'chardev', 'guest', 'mon', 'net', 'nic', 'sandbox'] as const),
];

/** The text that `help` in an argument asks for. */
function helpRequested(flag: FlagName, argument = ''): string | undefined {
  if (flag === 'help') return help.programHelp();
  if (flag === 'completion') return completionScript(shellNamed(argument));
  if (argument.startsWith('{') || !HAS_HELP.includes(flag)) return undefined;
  const word = argument === 'help' || argument === '?';
  const asks = word || asksForHelp(splitKeyval(argument, 'type'));
  const type = splitKeyval(argument, 'type')[0]?.value ?? '';
  switch (flag) {
    case 'netdev':
      return word ? help.netdevHelp() : asks ? help.netdevTypeHelp(type) : undefined;
    case 'device':
      return word ? help.deviceHelp() : asks ? help.deviceModelHelp(type) : undefined;
    case 'object':
      return word ? help.objectHelp() : asks ? help.objectTypeHelp(type) : undefined;
    case 'chardev':
      return asks ? help.chardevHelp() : undefined;
    case 'guest':
      return asks ? help.guestHelp() : undefined;
    case 'mon':
      return asks ? help.monHelp() : undefined;
    case 'sandbox':
      return asks ? help.sandboxHelp() : undefined;
    case 'net':
    case 'nic': {
      if (!word && !legacyAsksForHelp(argument)) return undefined;
      if (argument.includes('model=')) return help.deviceHelp();
      return flag === 'net' ? help.netHelp() : help.nicHelp();
    }
    default:
      return undefined;
  }
}

function declare(flag: FlagName, argument = '', ids: LegacyIds): Declared | undefined {
  switch (flag) {
    case 'netdev':
      return { kind: 'netdev', netdev: parseNetdev(argument) };
    case 'device':
      return { kind: 'device', device: parseDevice(argument) };
    case 'net':
      return { kind: 'net', net: parseNet(argument, ids) };
    case 'nic':
      return { kind: 'net', net: parseNic(argument, ids) };
    case 'chardev':
      return { kind: 'chardev', chardev: parseChardev(argument) };
    case 'object':
      return { kind: 'object', object: parseObject(argument) };
    case 'mon':
      return { kind: 'monitor', monitor: parseMon(argument) };
    case 'qmp':
    case 'monitor': {
      const monitor = parseMonitorAddress(flag === 'qmp' ? 'control' : 'readline', argument);
      return monitor && { kind: 'monitor', monitor };
    }
    case 'guest':
      return { kind: 'guest', guest: parseGuest(argument) };
    case 'S':
      return { kind: 'stopped' };
    case 'qtest':
      return { kind: 'qtest', address: parseChardevReference(argument) };
    case 'qtest-log':
      return { kind: 'qtest-log', path: argument };
    case 'config':
      return { kind: 'config', path: argument };
    case 'log':
      return { kind: 'log', path: argument === '' || argument === '-' ? undefined : argument };
    case 'log-level':
      return { kind: 'log-level', level: oneOf('log-level', argument, LOG_LEVELS) };
    case 'metrics':
      return { kind: 'metrics', address: metricsAddress(argument) };
    case 'sandbox':
      return { kind: 'sandbox', sandbox: parseSandbox(argument) };
    case 'name':
      return { kind: 'name', name: argument };
    default:
      return { kind: 'compat' };
  }
}

function oneOf<const T extends readonly string[]>(name: string, text: string, values: T): T[number] {
  if (values.includes(text)) return text;
  throw doesNotAccept(name, text, values);
}

function shellNamed(text: string): (typeof shells)[number] {
  return oneOf('completion', text, shells);
}

/** An address without a host is this machine only: counters are nobody else's business. */
function metricsAddress(text: string): SocketAddress {
  if (text.startsWith('unix:')) return { type: 'unix', path: unixSocketPath(text.slice(5)) };
  const { host, port } = resolveHostPort(text.startsWith(':') ? `127.0.0.1${text}` : text, 'any');
  return { type: 'inet', host, port, lastPort: port, family: undefined, keepAlive: false };
}

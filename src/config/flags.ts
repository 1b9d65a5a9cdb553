/**
 * The long options of the command itself. QEMU users type one dash, so every name works with one dash or two.
 *
 * `compat` options are QEMU's that mean nothing here: they are taken so that programs which start QEMU (qtest
 * drivers, fuzzers, scripts) can start netemu instead, and are handed on for the qtest platform to look at.
 */

export interface Flag {
  readonly name: string;
  /** What stands for the argument in help; undefined: it takes none. */
  readonly argument?: string;
  /** The argument may be left out; it is then taken only as `--name=argument`. */
  readonly optional?: true;
  /** Other spellings, without dashes. */
  readonly aliases?: readonly string[];
  readonly doc: string;
  readonly group: 'network' | 'guest' | 'monitor' | 'program' | 'compat';
}

function flag(group: Flag['group'], name: string, argument: string | undefined, doc: string): Flag {
  return argument === undefined ? { group, name, doc } : { group, name, argument, doc };
}

const compat = (name: string, argument: string | undefined, doc: string): Flag =>
  flag('compat', name, argument, doc);

export const flags = [
  flag('network', 'netdev', 'TYPE,id=ID[,…]', 'Make a netdev, the host end of a link. Repeats.'),
  flag('network', 'device', 'MODEL[,netdev=ID][,…]', 'Make a NIC. Repeats.'),
  flag('network', 'nic', 'TYPE[,…][,model=MODEL]', 'Make a netdev and a NIC plugged into it. Repeats.'),
  flag('network', 'net', 'nic|TYPE[,…]', 'Make a NIC or a netdev on hub 0, the old way. Repeats.'),
  flag('network', 'object', 'TYPE,id=ID[,…]', 'Make a filter on a netdev. Repeats.'),
  flag('network', 'chardev', 'TYPE,id=ID[,…]', 'Make a character device. Repeats.'),
  flag('network', 'config', 'FILE', 'Read netdevs, devices and the rest from a JSON file. Repeats.'),
  flag('guest', 'guest', 'TYPE[,…]', 'Who drives the NICs: probe, v86, qtest or none.'),
  flag('guest', 'S', undefined, 'Start with the guest stopped, until the monitor says cont.'),
  flag('guest', 'qtest', 'ADDR', 'Speak the qtest protocol there; the same as --guest qtest,addr=ADDR.'),
  flag('guest', 'qtest-log', 'FILE', 'Copy the qtest conversation to a file.'),
  flag('monitor', 'qmp', 'ADDR', 'Speak QMP there, such as unix:PATH,server=on,wait=off. Repeats.'),
  flag('monitor', 'monitor', 'ADDR', 'A prompt for people there, such as stdio. Repeats.'),
  flag('monitor', 'mon', '[chardev=]ID[,mode=MODE]', 'A monitor on a character device. Repeats.'),
  {
    ...flag('program', 'log', 'FILE', 'Write JSON log lines to standard error, or to a file.'),
    optional: true,
  },
  flag('program', 'log-level', 'LEVEL', 'How much to log: trace, debug, info, warn, error or silent.'),
  flag('program', 'metrics', 'ADDR', 'Serve counters for Prometheus at [HOST]:PORT or unix:PATH.'),
  flag(
    'program',
    'sandbox',
    'on|off',
    'Give up what is not needed once everything is open: other programs cannot be run, and files elsewhere than what the line names cannot be reached.',
  ),
  flag('program', 'name', 'NAME', 'The name that query-name tells.'),
  flag('program', 'completion', 'SHELL', 'Print a completion script for bash, zsh or fish.'),
  flag('program', 'version', undefined, 'Print the version.'),
  { ...flag('program', 'help', undefined, 'Print this text.'), aliases: ['h', '?'] },
  compat('accel', 'NAME', 'Ignored: there is no CPU.'),
  compat('audio', 'TYPE', 'Ignored: there is no sound.'),
  compat('audiodev', 'TYPE', 'Ignored: there is no sound.'),
  compat('boot', 'ORDER', 'Ignored: nothing boots.'),
  compat('cpu', 'MODEL', 'Ignored: there is no CPU.'),
  compat('display', 'TYPE', 'Ignored: there is no display.'),
  compat('m', 'SIZE', 'The RAM of the qtest platform.'),
  { ...compat('machine', 'TYPE', 'Ignored: the qtest platform is the only machine.'), aliases: ['M'] },
  compat('no-acpi', undefined, 'Ignored: there is no firmware.'),
  compat('no-hpet', undefined, 'Ignored: there is no such timer.'),
  compat('no-reboot', undefined, 'Ignored: nothing reboots.'),
  compat('no-shutdown', undefined, 'Ignored: nothing shuts down.'),
  compat('no-user-config', undefined, 'Ignored: there is no configuration but what is given.'),
  compat('nodefaults', undefined, 'Ignored: there are no default devices.'),
  compat('nographic', undefined, 'Ignored: there is no display.'),
  compat('parallel', 'ADDR', 'Ignored: there is no parallel port.'),
  compat('rtc', 'BASE', 'Ignored: there is no such clock.'),
  compat('serial', 'ADDR', 'Ignored: there is no serial port.'),
  compat('smp', 'COUNT', 'Ignored: there is no CPU.'),
  compat('usb', undefined, 'Ignored: there is no USB.'),
  compat('uuid', 'UUID', 'Ignored: there is no firmware.'),
  compat('vga', 'TYPE', 'Ignored: there is no display.'),
] as const satisfies readonly Flag[];

export type FlagName = (typeof flags)[number]['name'];

/** The flag that `word` (without dashes) names, by name or alias. */
export function flagNamed(word: string): (Flag & { readonly name: FlagName }) | undefined {
  return flags.find((flag: Flag) => flag.name === word || (flag.aliases?.includes(word) ?? false));
}

/** How a flag is written: two dashes, one for single letters. */
export function spelled(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

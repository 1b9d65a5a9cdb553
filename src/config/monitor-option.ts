/** `--mon`, `--qmp` and `--monitor`: which character device speaks which monitor. */
import { type ChardevReference, parseChardevReference } from './chardevs.ts';
import { splitKeyval } from './keyval.ts';
import { readJson, readKeyval } from './read.ts';
import { defineOptions, type OptionsOf } from './schema.ts';

export interface MonitorConfig {
  readonly mode: 'readline' | 'control';
  readonly chardev: ChardevReference;
  readonly pretty: boolean;
}

export const monOptions = defineOptions({
  chardev: { kind: 'string', metavar: 'id', required: true, doc: 'The character device to speak on.' },
  mode: {
    kind: 'enum',
    values: ['readline', 'control'],
    default: 'readline',
    doc: 'readline is for people, control is QMP.',
  },
  pretty: { kind: 'bool', default: false, doc: 'QMP replies spread over several lines.' },
});

/** Parses the argument of `--mon`. */
export function parseMon(argument: string): MonitorConfig {
  return monitor(
    readKeyval(monOptions, splitKeyval(argument, 'chardev'), { source: 'command-line', voice: 'options' }),
  );
}

/** Reads `{"chardev": "c0", "mode": "control"}`. */
export function readMon(value: unknown): MonitorConfig {
  return monitor(readJson(monOptions, value, { source: 'json', voice: 'options' }));
}

/** Parses the argument of `--qmp` and `--monitor`; undefined for `none`. */
export function parseMonitorAddress(
  mode: MonitorConfig['mode'],
  argument: string,
): MonitorConfig | undefined {
  if (argument === 'none') return undefined;
  return { mode, chardev: parseChardevReference(argument), pretty: false };
}

function monitor(o: OptionsOf<typeof monOptions>): MonitorConfig {
  return { mode: o.mode, chardev: { kind: 'chardev', id: o.chardev }, pretty: o.pretty };
}

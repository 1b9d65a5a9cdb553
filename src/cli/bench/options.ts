/** The options of `netemu bench`. */

import { parseArgs } from 'node:util';
import { CommandLineError } from '../../config/commandline.ts';
import { type DeviceConfig, parseDevice } from '../../config/devices/index.ts';
import { type NetdevConfig, parseNetdev } from '../../config/netdevs/index.ts';
import { OptionError } from '../../core/errors.ts';
import { MAX_FRAME_BYTES } from '../../core/pool.ts';

export type Direction = 'tx' | 'rx';

export interface BenchOptions {
  readonly device: DeviceConfig | undefined;
  readonly netdevs: readonly NetdevConfig[];
  readonly directions: readonly Direction[];
  /** Bytes of each frame, without FCS; one run for each. */
  readonly frameBytes: readonly number[];
  readonly batch: number;
  readonly seconds: number;
  /** Stop a run after so many frames; undefined: after `seconds`. */
  readonly count: number | undefined;
  readonly json: boolean;
  readonly html: string | undefined;
}

export const benchHelp = `usage: netemu bench [--device MODEL[,…]] [--netdev TYPE,id=ID[,…]]… [options]

Measures how many frames pass, and what each costs.

  --device MODEL          a NIC, driven through its registers; alone, it sends to (and receives from) the bench itself
  --netdev TYPE,id=ID     a netdev for the NIC to be plugged into; without a NIC the bench is plugged in itself,
                          into a hub where there are several
  --direction tx|rx|both  which way, as the guest sees it (default: both for a NIC alone, tx otherwise)
  --size BYTES[,BYTES…]   frame sizes without FCS (default 64,1514)
  --batch N               frames handed over at once (default 64)
  --seconds S             how long each run lasts (default 3)
  --count N               frames of each run, instead of a time
  --json                  print one JSON line a run
  --html FILE             write a report with charts, which opens without a network
`;

const settings = {
  device: { type: 'string' },
  netdev: { type: 'string', multiple: true },
  direction: { type: 'string' },
  size: { type: 'string', default: '64,1514' },
  batch: { type: 'string', default: '64' },
  seconds: { type: 'string', default: '3' },
  count: { type: 'string' },
  json: { type: 'boolean', default: false },
  html: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

/** Parses what follows `netemu bench`; null: help was asked for. Throws OptionError. */
export function parseBenchOptions(argv: readonly string[]): BenchOptions | null {
  let values: ReturnType<typeof parseArgs<{ options: typeof settings }>>['values'];
  try {
    // QEMU's users type one dash.
    const args = argv.map((word) => (/^-[a-z]{2,}/.test(word) ? `-${word}` : word));
    values = parseArgs({ args, options: settings, allowPositionals: false }).values;
  } catch (error) {
    throw new OptionError((error as Error).message.split('. ')[0]!);
  }
  if (values.help === true) return null;
  const netdevs = (values.netdev ?? []).map((text) => tied('--netdev', text, () => parseNetdev(text)));
  const deviceText = values.device;
  const device =
    deviceText === undefined ? undefined : tied('--device', deviceText, () => parseDevice(deviceText));
  if (device === undefined && netdevs.length === 0)
    throw new OptionError('give a --device, a --netdev, or both');
  if (device !== undefined && netdevs.length > 1)
    throw new OptionError('a --device is measured with one --netdev at most');
  const ids = netdevs.map(({ id }) => id);
  const twice = ids.find((id, i) => ids.indexOf(id) < i);
  if (twice !== undefined) throw new OptionError(`Duplicate ID '${twice}' for netdev`);
  return {
    device,
    netdevs,
    directions: directionsOf(values.direction, device !== undefined && netdevs.length === 0),
    frameBytes: values.size.split(',').map((text) => whole('--size', text, 14, MAX_FRAME_BYTES)),
    batch: whole('--batch', values.batch, 1, 256),
    seconds: positive('--seconds', values.seconds),
    count: values.count === undefined ? undefined : whole('--count', values.count, 1, 1e12),
    json: values.json,
    html: values.html,
  };
}

function directionsOf(text: string | undefined, alone: boolean): Direction[] {
  if (text === undefined) return alone ? ['tx', 'rx'] : ['tx'];
  if (text === 'both') return ['tx', 'rx'];
  if (text === 'tx' || text === 'rx') return [text];
  throw new CommandLineError(new OptionError("expects 'tx', 'rx' or 'both'"), '--direction', text);
}

function whole(flag: string, text: string, least: number, most: number): number {
  const value = /^\d{1,13}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new CommandLineError(new OptionError(`expects a number from ${least} to ${most}`), flag, text);
}

function positive(flag: string, text: string): number {
  const value = /^\d{1,6}(\.\d{1,6})?$/.test(text) ? Number(text) : 0;
  if (value > 0) return value;
  throw new CommandLineError(new OptionError('expects a number of seconds'), flag, text);
}

function tied<T>(flag: string, text: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof OptionError) throw new CommandLineError(error, flag, text);
    throw error;
  }
}

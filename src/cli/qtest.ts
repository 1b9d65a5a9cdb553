/** `--guest qtest` and `--qtest`: the machine that a qtest client drives, with what the line says about its RAM, its bus and its transcript. */

import type { ChardevConfig } from '../config/chardevs.ts';
import { type ChardevReference, chardevNotFound } from '../config/chardevs.ts';
import type { Declaration } from '../config/commandline.ts';
import type { DeviceConfig } from '../config/devices/index.ts';
import { VirtualClock } from '../core/clock.ts';
import { InvariantError, OptionError } from '../core/errors.ts';
import { QtestMachine, type Transcript } from '../guest/qtest/index.ts';
import { openFileSink } from '../host-io/file-sink.ts';
import type { ByteSink } from '../link/filter/dump.ts';
import type { Device, Network } from '../network/network.ts';

/** What the line wants of qtest. */
export interface QtestRequest {
  readonly declaration: Declaration;
  readonly address: ChardevReference;
  readonly log: string | undefined;
}

/** The request that the line names last; undefined: it wants no qtest. */
export function qtestRequest(declarations: readonly Declaration[]): QtestRequest | undefined {
  const log = declarations.findLast((one) => one.kind === 'qtest-log')?.path;
  const declaration = declarations.findLast(
    (one) => one.kind === 'qtest' || (one.kind === 'guest' && one.guest.type === 'qtest'),
  );
  if (declaration?.kind === 'qtest') return { declaration, address: declaration.address, log };
  if (declaration?.kind !== 'guest' || declaration.guest.type !== 'qtest') return undefined;
  const { address, log: own } = declaration.guest;
  return { declaration, address, log: own ?? log };
}

const IN_PLACE_ID = 'qtest';

/** The chardev that a request describes in place, to be opened beforehand. */
export function qtestChardev({ address }: QtestRequest): ChardevConfig | undefined {
  return address.kind === 'device' ? { ...address.device, id: IN_PLACE_ID } : undefined;
}

export interface RunningQtest {
  /** Makes a NIC on the machine's bus. Throws like `Network.makeDevice`, and OptionError when its place is taken. */
  addDevice(config: DeviceConfig): { readonly device: Device; start(): void; close(): void };
  /** Listens to the client, once everything is in place. */
  serve(): void;
  /** After the network was closed. */
  close(): void;
}

/** Builds the machine. Throws OptionError, and HostIoError when the transcript's file cannot be made. */
export function startQtest(
  network: Network,
  declarations: readonly Declaration[],
  request: QtestRequest,
): RunningQtest {
  const { loop, pool, context } = network;
  const { clock } = loop;
  if (!(clock instanceof VirtualClock)) throw new InvariantError('a qtest machine needs a virtual clock');
  const sink = request.log === undefined || request.log === 'none' ? null : openFileSink(request.log);
  let machine: QtestMachine;
  try {
    machine = new QtestMachine({
      loop,
      pool,
      clock,
      random: context.random,
      log: context.log,
      firstSlot: firstSlot(declarations),
      ...ramOf(declarations),
      ...(sink !== null && { transcript: transcriptTo(sink, clock) }),
    });
  } catch (error) {
    sink?.close();
    throw error;
  }
  return {
    addDevice(config) {
      const { platform } = machine;
      const slot = platform.slot(config.addr);
      let device: Device | undefined;
      platform.attach(
        slot,
        () => {
          device = network.makeDevice(config, slot);
          return device.nic;
        },
        config.multifunction,
      );
      return { device: device!, start() {}, close: () => platform.release(slot) };
    },
    serve() {
      const id = request.address.kind === 'chardev' ? request.address.id : IN_PLACE_ID;
      const chardev = network.chardevs.get(id);
      if (chardev === undefined) throw chardevNotFound(id);
      machine.serve(chardev);
    },
    close() {
      machine.close();
      sink?.close();
    },
  };
}

/** A PC has its display in slot 2 unless it is told to have none; its NICs come behind. */
function firstSlot(declarations: readonly Declaration[]): number {
  const noDisplay = declarations.some(
    ({ kind, flag, argument }) =>
      kind === 'compat' && (flag === '--nodefaults' || (flag === '--vga' && argument === 'none')),
  );
  return noDisplay ? 2 : 3;
}

/** `-m 512M`, `-m 64` (MiB), `-m size=1G,slots=2`. Throws OptionError. */
function ramOf(declarations: readonly Declaration[]): { ramBytes?: number } {
  const text = declarations.findLast(({ kind, flag }) => kind === 'compat' && flag === '-m')?.argument;
  if (text === undefined) return {};
  const match = /^(?:size=)?(\d+)([kKmMgG]?)(?:,|$)/.exec(text);
  const shift = { k: 10, m: 20, g: 30 }[match?.[2]?.toLowerCase() || 'm'];
  if (match === null || shift === undefined)
    throw new OptionError(`Parameter 'size' expects a size, such as 512M`, { option: 'size' });
  return { ramBytes: Number(match[1]) * 2 ** shift };
}

function transcriptTo(sink: ByteSink, clock: VirtualClock): Transcript {
  const encoder = new TextEncoder();
  return (kind, line) => {
    const bytes = encoder.encode(`[${kind} +${(clock.nowNs() / 1e9).toFixed(6)}] ${line}\n`);
    sink.write(bytes, 0, bytes.length);
  };
}

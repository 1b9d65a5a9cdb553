/**
 * The monitor: one for a network, however many clients it has. It knows the commands, runs them, and tells every client of every event.
 *
 *     chardev ── a channel for each client ──▶ QmpSession ─┐
 *                                              HmpSession ─┴─▶ Monitor.execute ─▶ commands/ ─▶ Network
 *     Network ── emit ──▶ Monitor ── one text for all ──▶ every session that wants events
 *
 * What the surrounding program decides (how a device gets a guest, what `quit` ends) comes in by MonitorSite.
 */

import type { Chardev } from '../chardev/index.ts';
import type { DeviceConfig } from '../config/devices/index.ts';
import type { SchemaInfo } from '../config/introspect.ts';
import type { JsonObject } from '../config/json.ts';
import { OptionError, UnsupportedError } from '../core/errors.ts';
import type { Device, Network } from '../network/network.ts';
import type { Caller, Command } from './command.ts';
import { commands } from './commands/index.ts';
import type { RunState } from './commands/machine.ts';
import { HmpSession } from './hmp/session.ts';
import { JsonConstant, jsonText } from './json-text.ts';
import { QmpSession } from './qmp-session.ts';

/** What the program around a network brings to its monitor. */
export interface MonitorSite {
  readonly network: Network;
  /** Milliseconds since 1970 at the clock's zero. */
  readonly epochMs: number;
  /** `--name`. */
  readonly name?: string | undefined;
  /** netemu's own version, such as 0.1.0. */
  readonly version: string;
  /** Makes a device and whatever drives it. Absent: devices cannot be added here. */
  readonly addDevice?: (config: DeviceConfig) => Device | Promise<Device>;
  /** Takes a device away with what drove it; absent: the network's own removal is all. */
  readonly removeDevice?: (id: string) => void;
  /** The guest is to run or to stand still; the network itself has been told already. */
  readonly guestRuns?: (running: boolean) => void;
  /** Ends the program, once what was written has had its chance to leave. */
  readonly quit?: () => void;
}

/** The version of QEMU whose monitor this one follows; clients decide by it what they may ask for. */
const FOLLOWS = { micro: 2, minor: 1, major: 11 };
const MAX_CLIENTS = 16;

/** Counters of the monitor itself. */
export class MonitorStats {
  commands = 0;
  commandErrors = 0;
  jsonErrors = 0;
  events = 0;
  /** Events that a client did not get because it does not read. */
  dropEvents = 0;
}

/** A client that is told of events: `text` is one line of JSON in the client's own layout. */
export interface EventListener {
  event(name: string, message: object): void;
}

export class Monitor {
  readonly site: MonitorSite;
  readonly network: Network;
  readonly stats = new MonitorStats();
  readonly #commands: ReadonlyMap<string, Command>;
  readonly #sessions = new Set<EventListener>();
  readonly #chardevs = new Map<Chardev, 'control' | 'readline'>();
  readonly #stopListening: () => void;
  #schema: JsonConstant<readonly SchemaInfo[]> | null = null;
  /** Not since `-S` held the guests back at the start. */
  #hasRun: boolean;
  #quitting = false;
  #closed = false;

  constructor(site: MonitorSite) {
    this.site = site;
    this.network = site.network;
    this.#hasRun = site.network.running;
    this.#commands = new Map(commands.map((one) => [one.name, one]));
    this.#stopListening = this.network.onEvent((name, data) => this.#broadcast(name, data));
  }

  /** Speaks QMP (`control`) or the prompt for people (`readline`) with everybody who connects to the chardev. Throws OptionError when it is in use. */
  serve(chardev: Chardev, mode: 'control' | 'readline', pretty = false): void {
    chardev.attach({
      maxChannels: MAX_CLIENTS,
      opened: (channel) =>
        mode === 'control'
          ? new QmpSession(this, channel, pretty)
          : new HmpSession(this, channel, chardev.isTerminal ?? false),
    });
    this.#chardevs.set(chardev, mode);
  }

  get version(): { readonly qemu: typeof FOLLOWS; readonly package: string } {
    return { qemu: FOLLOWS, package: `netemu ${this.site.version}` };
  }

  get commandNames(): string[] {
    return [...this.#commands.keys()];
  }

  command(name: string): Command | undefined {
    return this.#commands.get(name);
  }

  /** The schema that `make` makes of all commands, made once. */
  schema(make: (commands: readonly Command[]) => readonly SchemaInfo[]): readonly SchemaInfo[] {
    this.#schema ??= new JsonConstant(make(commands));
    return this.#schema.value;
  }

  /** What a session writes for a command's answer: the schema, 200 KB that never change, is made text once. */
  written(answer: unknown): unknown {
    return this.#schema !== null && answer === this.#schema.value ? this.#schema : answer;
  }

  /** Runs a command. Throws or rejects with what explain() understands, or an error of our own. */
  execute(name: string, args: JsonObject, caller: Caller): unknown {
    const found = this.#commands.get(name);
    if (found === undefined) {
      throw new OptionError(`The command ${name} has not been found`, { qmpClass: 'CommandNotFound' });
    }
    this.stats.commands++;
    return found.run(args, caller);
  }

  addSession(session: EventListener): void {
    this.#sessions.add(session);
  }

  removeSession(session: EventListener): void {
    this.#sessions.delete(session);
  }

  #broadcast(name: string, data: object): void {
    this.stats.events++;
    const { clock } = this.network.loop;
    const sinceMicros = this.site.epochMs * 1000 + Math.floor(clock.nowNs() / 1000);
    const message = {
      timestamp: { seconds: Math.floor(sinceMicros / 1e6), microseconds: sinceMicros % 1e6 },
      event: name,
      ...(Object.keys(data).length > 0 && { data }),
    };
    for (const session of this.#sessions) session.event(name, message);
  }

  async addDevice(config: DeviceConfig): Promise<Device> {
    const { addDevice } = this.site;
    if (addDevice === undefined)
      throw new UnsupportedError('devices cannot be added here: nothing would drive them');
    return await addDevice(config);
  }

  removeDevice(id: string): void {
    const { removeDevice } = this.site;
    if (removeDevice === undefined) this.network.removeDevice(id);
    else removeDevice(id);
  }

  get runState(): RunState {
    if (this.network.running) return 'running';
    return this.#hasRun ? 'paused' : 'prelaunch';
  }

  reset(): void {
    this.network.reset();
    this.network.context.emit('RESET', { guest: false, reason: 'host-qmp-system-reset' });
  }

  /** stop and cont; what is so already stays so, and is not told again. */
  setRunning(running: boolean): void {
    if (this.network.running === running) return;
    this.#hasRun = true;
    this.network.setRunning(running);
    this.site.guestRuns?.(running);
    this.network.context.emit(running ? 'RESUME' : 'STOP', {});
  }

  /** Tells everybody, and ends the program. */
  quit(reason: 'host-qmp-quit' | 'host-signal' | 'host-ui'): void {
    if (this.#closed || this.#quitting) return;
    this.#quitting = true;
    this.network.context.emit('SHUTDOWN', { guest: false, reason });
    this.site.quit?.();
  }

  /** The greeting of a control monitor. */
  greeting(): object {
    return { QMP: { version: this.version, capabilities: ['oob'] } };
  }

  /** Leaves every chardev; they stay open. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopListening();
    for (const chardev of this.#chardevs.keys()) chardev.detach();
    this.#chardevs.clear();
  }
}

export { jsonText };

/**
 * From declarations to a running program: the network they describe, and a guest for each NIC. What the line asks for and this build
 * cannot do is refused before anything is made.
 *
 * Character devices come first, for anything may use them. Netdevs are opened in the order of the line, but a hub port after the netdev that it puts on the hub; then filters, then devices with
 * their guests, so that the first frame of a guest finds everything in place; then monitors.
 */

import { readFileSync } from 'node:fs';
import { CommandLineError, type Declaration } from '../config/commandline.ts';
import { parseConfigFile } from '../config/config-file.ts';
import type { DeviceConfig } from '../config/devices/index.ts';
import type { GuestConfig, ProbeConfig } from '../config/guest.ts';
import type { NetdevConfig } from '../config/netdevs/index.ts';
import type { ObjectConfig } from '../config/objects/index.ts';
import { checkReferences } from '../config/references.ts';
import { HostIoError, OptionError, UnsupportedError } from '../core/errors.ts';
import { Monitor } from '../monitor/monitor.ts';
import type { Network } from '../network/network.ts';
import { openChardev, startMonitor, wantedChardevs } from './monitors.ts';
import { type RunningProbe, startProbe } from './probe.ts';
import { qtestChardev, qtestRequest, startQtest } from './qtest.ts';
import { startV86, type V86Terminal } from './v86.ts';
import { type RunningServer, startVfioUser } from './vfio-user.ts';
import { startVhostUser } from './vhost-user.ts';

/** A host error or an unsupported request, with the option that asked for it. */
export class StartError extends Error {
  readonly flag: string;
  readonly argument: string;

  constructor(cause: Error, { flag, argument }: Declaration) {
    super(cause.message, { cause });
    this.flag = flag;
    this.argument = argument;
  }
}

/** What the program's parts tell and ask. */
export interface ProgramOutput {
  /** Somebody at a monitor wants it to end. */
  quit(): void;
  /** One line for people. */
  print(line: string): void;
  warn(line: string): void;
  /** The console of a v86 guest. */
  readonly terminal?: V86Terminal;
  /** A `probe,once` guest has ended; the last one's call decides the exit. */
  done(ok: boolean): void;
}

/** Facts about the process that its monitors tell. */
export interface ProgramFacts {
  readonly version: string;
  /** Milliseconds since 1970 at the network's clock's zero. */
  readonly epochMs: number;
}

export interface Program {
  readonly network: Network;
  readonly monitor: Monitor;
  readonly probes: readonly RunningProbe[];
  close(): void;
}

/** Replaces each `--config FILE` by what the file declares. */
export function expandConfigFiles(
  declarations: readonly Declaration[],
  readText: (path: string) => string,
): Declaration[] {
  return declarations.flatMap((declaration) => {
    if (declaration.kind !== 'config') return [declaration];
    let text: string;
    try {
      text = readText(declaration.path);
    } catch (error) {
      const { code = 'EIO' } = error as { code?: string };
      throw new CommandLineError(
        new OptionError(`cannot read '${declaration.path}': ${code}`),
        declaration.flag,
        declaration.argument,
      );
    }
    return parseConfigFile(declaration.path, text);
  });
}

/** Opens everything. Rejects with CommandLineError or StartError; then nothing is left open. */
export async function startProgram(
  network: Network,
  declarations: readonly Declaration[],
  output: ProgramOutput,
  facts: ProgramFacts,
): Promise<Program> {
  for (const warning of checkReferences(declarations)) output.warn(warning);
  const guest = guestOf(declarations);

  const qtest = qtestRequest(declarations);
  const qtestMachine =
    qtest && (await attempt(qtest.declaration, () => startQtest(network, declarations, qtest)));
  const v86 =
    guest.type === 'v86' && qtest === undefined
      ? await attempt(declarations.findLast(({ kind }) => kind === 'guest')!, () =>
          startV86(network, guest, output.terminal ?? { output() {} }),
        )
      : undefined;
  const live: { close(): void }[] = [];
  const probes: RunningProbe[] = [];
  const servers: RunningServer[] = [];
  const addDevice = (device: DeviceConfig): RunningProbe | RunningServer => {
    const rom = device.romfile === undefined ? undefined : readRom(device.romfile);
    const make = (): RunningProbe | RunningServer => {
      if (device.vfioUser !== undefined) {
        const server = startVfioUser(network, device, device.vfioUser, (line) => output.print(line));
        servers.push(server);
        return server;
      }
      if (device.model === 'virtio-net' && device.vhostUser !== undefined) {
        const server = startVhostUser(network, device, device.vhostUser, (line) => output.print(line));
        servers.push(server);
        return server;
      }
      if (qtestMachine !== undefined) {
        const plugged = qtestMachine.addDevice(device);
        servers.push(plugged);
        return plugged;
      }
      if (v86 !== undefined) {
        const plugged = v86.addDevice(device);
        servers.push(plugged);
        return plugged;
      }
      const probe = startProbe(network, device, probeConfigFor(guest, device), output);
      probes.push(probe);
      return probe;
    };
    const made = make();
    if (rom !== undefined) made.device.nic.setRom(rom);
    return made;
  };
  if (declarations.some(({ kind }) => kind === 'stopped')) network.setRunning(false);
  const monitor = new Monitor({
    network,
    ...facts,
    name: declarations.findLast((declaration) => declaration.kind === 'name')?.name,
    addDevice: (device) => addDevice(device).device,
    removeDevice(id) {
      for (const list of [probes, servers]) {
        const at = list.findIndex(({ device }) => device.id === id);
        const [gone] = at < 0 ? [] : list.splice(at, 1);
        gone?.close();
      }
      network.removeDevice(id);
    },
    guestRuns: (running) => {
      if (running) for (const probe of probes) probe.start();
      if (running) v86?.start();
    },
    quit: () => output.quit(),
  });
  const program: Program = {
    network,
    monitor,
    probes,
    close() {
      monitor.close();
      for (const page of live) page.close();
      for (const guest of [...probes, ...servers]) guest.close();
      network.close();
      qtestMachine?.close();
      v86?.close();
    },
  };
  try {
    for (const { declaration, config } of wantedChardevs(declarations)) {
      await attempt(declaration, async () => await openChardev(network, config, output.warn));
    }
    const qtestChannel = qtest && qtestChardev(qtest);
    if (qtestChannel !== undefined)
      await attempt(qtest!.declaration, async () => await openChardev(network, qtestChannel, output.warn));
    for (const [declaration, netdev] of netdevsInOrder(declarations)) {
      await attempt(declaration, async () => {
        await network.openNetdev(netdev);
      });
    }
    for (const [declaration, object] of objectsInOrder(declarations)) {
      await attempt(declaration, async () => await network.openObject(object));
    }
    const devices = devicesOf(declarations);
    for (const [declaration, device] of devices) {
      await attempt(declaration, () => addDevice(device));
    }
    for (const declaration of declarations) {
      if (declaration.kind !== 'monitor') continue;
      await attempt(declaration, () => startMonitor(monitor, declarations, declaration));
    }
    for (const declaration of declarations) {
      if (declaration.kind !== 'metrics') continue;
      const { address } = declaration;
      await attempt(declaration, async () => {
        const { serveLive } = await import('../monitor/live/server.ts');
        const server = await serveLive(network, address, facts.version);
        live.push(server);
        const place = address.type === 'unix' ? `unix:${address.path}` : `http://127.0.0.1:${server.port}/`;
        output.print(`metrics and live page: ${place}`);
      });
    }
    if (qtestMachine !== undefined) await attempt(qtest!.declaration, () => qtestMachine.serve());
    const sandbox = declarations.findLast(({ kind }) => kind === 'sandbox');
    if (sandbox?.kind === 'sandbox' && sandbox.sandbox.on) {
      const { enterSandbox } = await import('./sandbox.ts');
      output.print(
        await attempt(sandbox, () => enterSandbox(network.context.hostIo, sandbox.sandbox, declarations)),
      );
    }
    if (network.running) v86?.start();
    for (const { backend } of network.netdevs.values())
      for (const line of backend?.notices?.() ?? []) output.print(line);
    if (devices.length === 0 && guest.type === 'probe' && guest.once) output.done(false);
    return program;
  } catch (error) {
    program.close();
    throw error;
  }
}

/** Ties an error to the declaration that caused it. */
async function attempt<T>(declaration: Declaration, act: () => T): Promise<Awaited<T>> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof OptionError)
      throw new CommandLineError(error, declaration.flag, declaration.argument);
    if (error instanceof HostIoError || error instanceof UnsupportedError)
      throw new StartError(error, declaration);
    throw error;
  }
}

/** An option ROM, at most as large as its address register can tell. Throws HostIoError or OptionError. */
function readRom(path: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const { code = 'EIO', syscall = 'open' } = error as NodeJS.ErrnoException;
    throw new HostIoError(syscall, code, `failed to find romfile "${path}"`);
  }
  if (bytes.length === 0) throw new OptionError(`romfile "${path}" is empty`, { option: 'romfile' });
  if (bytes.length > ROM_LIMIT_BYTES) {
    throw new OptionError(`romfile "${path}" too large (size cannot exceed 16 MB)`, { option: 'romfile' });
  }
  return bytes;
}

const ROM_LIMIT_BYTES = 1 << 24;

const DEFAULT_PROBE: ProbeConfig = {
  type: 'probe',
  once: false,
  device: undefined,
  ping: [],
  get: [],
  put: undefined,
  parallel: 1,
  expectSha256: undefined,
  echoPort: undefined,
  httpPort: undefined,
  txFramesPerSecond: undefined,
  timeoutNs: 60e9,
};

/** The guest that the line names last; the probe when it names none. */
function guestOf(declarations: readonly Declaration[]): GuestConfig {
  return declarations.findLast((declaration) => declaration.kind === 'guest')?.guest ?? DEFAULT_PROBE;
}

/** What the guest does on this device; null: nobody drives it. */
function probeConfigFor(guest: GuestConfig, device: DeviceConfig): ProbeConfig | null {
  if (guest.type !== 'probe') return null;
  return guest.device === undefined || guest.device === device.id ? guest : null;
}

/** Objects with their declarations, those that others name first. */
function objectsInOrder(declarations: readonly Declaration[]): [Declaration, ObjectConfig][] {
  const all = declarations.flatMap((declaration): [Declaration, ObjectConfig][] =>
    declaration.kind === 'object' ? [[declaration, declaration.object]] : [],
  );
  const isNamed = ([, { type }]: [Declaration, ObjectConfig]): boolean => type === 'iothread';
  return [...all.filter(isNamed), ...all.filter((one) => !isNamed(one))];
}

/** Netdevs with their declarations, each hub port after the netdev it names; legacy ones bring their hub port along. */
function netdevsInOrder(declarations: readonly Declaration[]): [Declaration, NetdevConfig][] {
  const plain: [Declaration, NetdevConfig][] = [];
  const hubPorts: [Declaration, NetdevConfig][] = [];
  for (const [index, declaration] of declarations.entries()) {
    if (declaration.kind === 'netdev') {
      (declaration.netdev.type === 'hubport' ? hubPorts : plain).push([declaration, declaration.netdev]);
    } else if (declaration.kind === 'net') {
      const { netdev, device, hub } = declaration.net;
      if (netdev !== undefined) plain.push([declaration, netdev]);
      if (hub === undefined) continue;
      const id = legacyHubPort(index);
      const member = device === undefined ? netdev?.id : undefined;
      hubPorts.push([declaration, { type: 'hubport', id, hubId: hub, netdev: member, policy: undefined }]);
    }
  }
  return [...plain, ...hubPorts];
}

/** The id of the hub port by which a `--net` declaration (the n-th of the line) joins hub 0; no user can type it. */
function legacyHubPort(index: number): string {
  return `#hub0port${index}`;
}

function devicesOf(declarations: readonly Declaration[]): [Declaration, DeviceConfig][] {
  const out: [Declaration, DeviceConfig][] = [];
  for (const [index, declaration] of declarations.entries()) {
    if (declaration.kind === 'device') out.push([declaration, declaration.device]);
    if (declaration.kind === 'net' && declaration.net.device !== undefined) {
      const { device, hub } = declaration.net;
      out.push([declaration, hub === undefined ? device : { ...device, netdev: legacyHubPort(index) }]);
    }
  }
  return out;
}

/**
 * The character devices and monitors that a command line asks for. Chardevs come before everything that may use them, and a server with
 * wait=on holds the start up until its client is there; monitors come last, so that their first command finds everything in place.
 */

import type { Chardev } from '../chardev/index.ts';
import { SocketChardev } from '../chardev/socket.ts';
import type { ChardevConfig, ChardevReference } from '../config/chardevs.ts';
import { chardevNotFound } from '../config/chardevs.ts';
import type { Declaration } from '../config/commandline.ts';
import type { MonitorConfig } from '../config/monitor-option.ts';
import type { SocketAddress } from '../config/socket-address.ts';
import { OptionError } from '../core/errors.ts';
import type { Monitor } from '../monitor/monitor.ts';
import type { Network } from '../network/network.ts';
import { qtestChardev, qtestRequest } from './qtest.ts';

type MonitorDeclaration = Extract<Declaration, { readonly kind: 'monitor' }>;

/** A chardev to open, and the declaration that wants it. */
export interface WantedChardev {
  readonly declaration: Declaration;
  readonly config: ChardevConfig;
}

/** All chardevs of the line: declared ones, and those that a monitor describes in place, under QEMU's names for them. */
export function wantedChardevs(declarations: readonly Declaration[]): WantedChardev[] {
  const wanted: WantedChardev[] = [];
  for (const declaration of declarations) {
    if (declaration.kind === 'chardev') wanted.push({ declaration, config: declaration.chardev });
    if (declaration.kind !== 'monitor' || declaration.monitor.chardev.kind !== 'device') continue;
    const id = monitorChardev(declarations, declaration);
    wanted.push({ declaration, config: { ...declaration.monitor.chardev.device, id } });
  }
  for (const { config, declaration } of wanted) {
    if (declaration.kind === 'monitor') checkPrivate(config);
  }
  return wanted;
}

/** The id of the chardev that a monitor speaks on. */
function monitorChardev(declarations: readonly Declaration[], declaration: MonitorDeclaration): string {
  const reference: ChardevReference = declaration.monitor.chardev;
  if (reference.kind === 'chardev') return reference.id;
  const inPlace = declarations.filter(
    (one) => one.kind === 'monitor' && one.monitor.chardev.kind === 'device',
  );
  return `compat_monitor${inPlace.indexOf(declaration)}`;
}

/** Opens a chardev, and waits for its client when it is to; `tell` gets the line that says so. */
export async function openChardev(
  network: Network,
  config: ChardevConfig,
  tell: (line: string) => void,
): Promise<void> {
  const chardev = await network.chardevs.open(config);
  if (config.type !== 'socket' || !config.wait || !(chardev instanceof SocketChardev)) return;
  if (!chardev.connected) tell(`waiting for connection on: ${chardev.describe()}`);
  await chardev.whenConnected();
}

/** Starts the monitor that a declaration asks for. */
export function startMonitor(
  monitor: Monitor,
  declarations: readonly Declaration[],
  declaration: MonitorDeclaration,
): void {
  const { mode, pretty }: MonitorConfig = declaration.monitor;
  const id = monitorChardev(declarations, declaration);
  const chardev: Chardev | undefined = monitor.network.chardevs.get(id);
  if (chardev === undefined) throw chardevNotFound(id);
  checkPrivate(chardev.config);
  monitor.serve(chardev, mode, pretty);
}

/** A monitor can do whatever this process can: it is for nobody beyond this machine. */
function checkPrivate(config: ChardevConfig): void {
  if (config.type !== 'socket' || !config.server || config.address.type !== 'inet') return;
  if (isLoopback(config.address)) return;
  throw new OptionError('a monitor listens on a loopback address or a unix socket only');
}

/** Whether only this machine can reach a listener there. */
export function isLoopback(address: SocketAddress): boolean {
  if (address.type !== 'inet') return address.type === 'unix';
  const { host } = address;
  if (host.family === 0) return host.text === 'localhost';
  return host.family === 4 ? host.value >>> 24 === 127 : host.text === '::1';
}

/** True when the line puts a monitor or another chardev on the terminal, which is then not ours to draw on. */
export function usesStdio(declarations: readonly Declaration[]): boolean {
  const qtest = qtestRequest(declarations);
  const all = [...wantedChardevs(declarations).map(({ config }) => config), qtest && qtestChardev(qtest)];
  return all.some((config) => config?.type === 'stdio');
}

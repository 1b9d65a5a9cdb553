/**
 * What backends need of the process they run in beside host I/O: names, other programs, files' permissions. Injected, so that a test can say
 * what a resolver or a helper answers; node-services.ts is the real one.
 */

import type { Endpoint as ConfigEndpoint, Host } from '../config/address.ts';
import { fdNotFound } from '../config/netdevs/tap.ts';
import type { FdReference } from '../config/socket-address.ts';
import { HostIoError, OptionError, UnsupportedError } from '../core/errors.ts';
import { errnoOf, errnoText } from '../host-io/errno.ts';
import type { Endpoint, Handle, HostIo } from '../host-io/host-io.ts';
import type { BackendContext } from './backend.ts';

export interface Services {
  /** The first address of a name, of `family` (0: of any). Rejects with any error when there is none. */
  resolve(name: string, family: 0 | 4 | 6): Promise<string>;
  /** Runs a program to its end; `fd` of this process becomes its descriptor 3. Resolves with its exit status (128 + n for a signal). Rejects when it cannot be started. */
  run(program: string, args: readonly string[], fd?: number): Promise<number>;
  /** The same, while everything waits: for what must be done before a close goes on. */
  runNow(program: string, args: readonly string[]): number;
  /** Whether there is such a file. */
  exists(path: string): boolean;
  /** Opens a file to read and write; returns the descriptor, the caller's to close. Throws Node's error. */
  openFile(path: string): number;
  /** Removes a file; one that is not there is as good. */
  removeFile(path: string): void;
  /** Sets permissions and, when named, the group of a file. Throws an error whose message names the cause. */
  setAccess(path: string, mode: number, group: string | undefined): void;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly processId: number;
}

/** Host I/O, or the reason why `type` cannot be. */
export function needHostIo(context: BackendContext, type: string): HostIo {
  if (context.hostIo === null)
    throw new UnsupportedError(`netdev type '${type}' needs a host, and there is none here`);
  return context.hostIo;
}

/** The address a host part stands for. Throws OptionError. */
export async function resolveHost(host: Host, family: 0 | 4 | 6, services: Services): Promise<string> {
  if (host.family !== 0) return host.text;
  try {
    return await services.resolve(host.text, family);
  } catch {
    throw new OptionError(`can't resolve host address '${host.text}'`);
  }
}

export async function resolveEndpoint(
  { host, port }: ConfigEndpoint,
  family: 0 | 4 | 6,
  services: Services,
): Promise<Endpoint> {
  return { address: await resolveHost(host, family, services), port };
}

/** Runs `open`; a HostIoError gets the sentence `LEAD: what the errno says` in place of its own. */
export function opening<T>(lead: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    throw retold(lead, error);
  }
}

/** The error with the sentence `LEAD: …`, when it is the host's. */
export function retold(lead: string, error: unknown): unknown {
  if (!(error instanceof HostIoError)) return error;
  return new HostIoError(error.syscall, error.code, `${lead}: ${errnoText(errnoOf(error.code))}`);
}

/** Tells the user that strangers may reach a netdev, which knows no authentication. */
export function warnIfOpen(context: BackendContext, netdev: string, address: string): void {
  if (address !== '0.0.0.0' && address !== '::') return;
  context.log.warn(
    { netdev },
    `netdev ${netdev} takes frames at every address of this machine (${address}), from whoever reaches it`,
  );
}

/** The handle of a descriptor that was inherited (by number) or passed (by its getfd name). */
export function takeDescriptor(fd: FdReference, context: BackendContext, hostIo: HostIo): Handle {
  if ('number' in fd) {
    // Standard input, output and error are nobody's network.
    if (fd.number <= 2)
      throw new OptionError(`Invalid file descriptor number '${fd.number}'`, { option: 'fd' });
    return opening(`fd ${fd.number}`, () => hostIo.adopt(fd.number));
  }
  const handle = context.takeFd?.(fd.name);
  if (handle === undefined) throw fdNotFound(fd.name);
  return handle;
}

export function showFd(fd: FdReference): string {
  return 'number' in fd ? String(fd.number) : fd.name;
}

/** `host:port`, an IPv6 address in brackets. */
export function showEndpoint({ address, port }: Endpoint): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

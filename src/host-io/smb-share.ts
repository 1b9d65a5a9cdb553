/**
 * A folder shared by the host's own smbd, one process for each connection of the guest, with a configuration of its own in a private folder
 * (mode 0700, made by mkdtemp, removed at the end): no port of the host stays open, nothing of the host's Samba is touched. The share is
 * named `qemu`, as guests know it, open to a guest account that maps to the user netemu runs as.
 *
 * smbd asks its standard input for the address of its client, so that is one end of a TCP connection over the loopback. The listener of that moment
 * takes nobody else's. smbd ends by a signal to its whole process group, so it has one of its own.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import type { SmbServer } from '../backends/user/site.ts';
import { HostIoError, OptionError, UnsupportedError } from '../core/errors.ts';
import { type Handle, type HostIo, READABLE } from './host-io.ts';

const ACCEPT_MS = 1000;
const PLACES = ['/usr/sbin/smbd', '/usr/local/sbin/smbd', '/usr/local/samba/sbin/smbd'];

/** Throws OptionError for a folder that is none, UnsupportedError where smbd is not installed. */
export function openSmbShare(hostIo: HostIo, folder: string): SmbServer {
  if (/[\n\r]/.test(folder) || !isFolder(folder)) {
    throw new OptionError(`smb folder '${folder}' cannot be shared: it is no folder`, { option: 'smb' });
  }
  const smbd = PLACES.find(isExecutable);
  if (smbd === undefined) throw new UnsupportedError('smb= needs the smbd program, which is not installed');
  const state = mkdtempSync(join(tmpdir(), 'netemu-smb-'));
  const conf = join(state, 'smb.conf');
  for (const name of ['private', 'locks', 'cache', 'state', 'pid', 'ncalrpc'])
    mkdirSync(join(state, name), { mode: 0o700 });
  writeFileSync(conf, configuration(state, folder), { mode: 0o600 });
  const children = new Set<ChildProcess>();
  return {
    connect: () => runOn(hostIo, loopbackPair(hostIo), smbd, ['-s', conf, '-l', state], children),
    close: () => {
      for (const child of children) child.kill();
      // One that is ending may still write.
      rmSync(state, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function configuration(state: string, folder: string): string {
  const { username } = userInfo();
  return [
    '[global]',
    'security = user',
    'map to guest = Bad User',
    `guest account = ${username}`,
    'load printers = no',
    'printing = bsd',
    'disable spoolss = yes',
    'usershare max shares = 0',
    'server role = standalone server',
    `private dir = ${state}/private`,
    `lock directory = ${state}/locks`,
    `state directory = ${state}/state`,
    `cache directory = ${state}/cache`,
    `pid directory = ${state}/pid`,
    `ncalrpc dir = ${state}/ncalrpc`,
    `smb passwd file = ${state}/private/smbpasswd`,
    `log file = ${state}/log.smbd`,
    '[qemu]',
    `path = ${folder}`,
    'read only = no',
    'guest ok = yes',
    `force user = ${username}`,
    '',
  ].join('\n');
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The two ends of a TCP connection of this process with itself. */
function loopbackPair(hostIo: HostIo): [Handle, Handle] {
  const listener = hostIo.tcpListen({ address: '127.0.0.1', port: 0 });
  let ours: Handle = 0;
  try {
    ours = hostIo.tcpConnect(hostIo.localEndpoint(listener));
    const { port } = hostIo.localEndpoint(ours);
    while (hostIo.waitReady(listener, READABLE, ACCEPT_MS) !== 0) {
      const theirs = hostIo.accept(listener);
      if (theirs < 0) continue;
      const remote = hostIo.remoteEndpoint(theirs);
      if (remote.port === port && remote.address === '127.0.0.1') return [ours, theirs];
      hostIo.close(theirs);
    }
    throw new HostIoError('accept', 'ETIMEDOUT', 'a connection for smbd');
  } catch (error) {
    hostIo.close(ours);
    throw error;
  } finally {
    hostIo.close(listener);
  }
}

/** Starts a program with one end of a socket pair as its standard input and output; returns the other end. */
export function connectProcess(
  hostIo: HostIo,
  program: string,
  args: readonly string[],
  children: Set<ChildProcess>,
): Handle {
  return runOn(hostIo, hostIo.socketPair(), program, args, children);
}

/** The same with the pair given; the program's end is closed here. */
function runOn(
  hostIo: HostIo,
  [ours, theirs]: readonly [Handle, Handle],
  program: string,
  args: readonly string[],
  children: Set<ChildProcess>,
): Handle {
  const fd = hostIo.fdOf(theirs);
  const child = spawn(program, args, { stdio: [fd, fd, 'ignore'], detached: true });
  children.add(child);
  child.on('exit', () => children.delete(child));
  // A program that is not there shows as the end of the stream.
  child.on('error', () => children.delete(child));
  hostIo.close(theirs);
  return ours;
}

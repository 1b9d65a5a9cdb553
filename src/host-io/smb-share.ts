/**
 * A folder shared by the host's own smbd, one process for each connection of the guest, with a configuration of its own in a private folder
 * (mode 0700, made by mkdtemp, removed at the end): no port of the host is opened, nothing of the host's Samba is touched. The share is
 * named `qemu`, as guests know it, open to a guest account that maps to the user netemu runs as.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import type { SmbServer } from '../backends/user/site.ts';
import { OptionError, UnsupportedError } from '../core/errors.ts';
import type { Handle, HostIo } from './host-io.ts';

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
    connect: () => connectProcess(hostIo, smbd, ['-s', conf, '-l', state], children),
    close: () => {
      for (const child of children) child.kill();
      rmSync(state, { recursive: true, force: true });
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

/** Starts a program with one end of a socket pair as its standard input and output; returns the other end. */
export function connectProcess(
  hostIo: HostIo,
  program: string,
  args: readonly string[],
  children: Set<ChildProcess>,
): Handle {
  const [ours, theirs] = hostIo.socketPair();
  const fd = hostIo.fdOf(theirs);
  const child = spawn(program, args, { stdio: [fd, fd, 'ignore'] });
  children.add(child);
  child.on('exit', () => children.delete(child));
  // A program that is not there shows as the end of the stream.
  child.on('error', () => children.delete(child));
  hostIo.close(theirs);
  return ours;
}

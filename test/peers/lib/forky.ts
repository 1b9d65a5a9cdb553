/**
 * Programs newer than Debian 12's, from Debian's next release (forky) in a root file system of its own. They run with that root's /usr in
 * the place of ours, in a private mount namespace, and with everything else as it is: sockets and files have one path for both sides, and
 * the process that `forkyCommand` describes is the program itself, so signals reach it.
 */

import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureInstalled, mirror } from './apt.ts';
import { cached, cachePath, withLock } from './cache.ts';
import { run } from './command.ts';

const ROOT = 'forky';

/** Makes the root and installs `packages` into it, as far as they are not there. */
export async function ensureForky(...packages: string[]): Promise<void> {
  const root = await cached(ROOT, async (folder) => {
    await ensureInstalled('debootstrap', 'util-linux', 'mount');
    // Debian 12's debootstrap knows no forky: sid's script is the right one for any new release.
    await run('debootstrap', ['--variant=minbase', 'forky', folder, await mirror(), 'sid']);
  });
  const isThere = (name: string): boolean =>
    existsSync(join(root, 'var/lib/dpkg/info', `${name}.list`)) ||
    existsSync(join(root, 'var/lib/dpkg/info', `${name}:amd64.list`));
  if (packages.every(isThere)) return;
  await withLock(`${ROOT}-apt`, async () => {
    const wanted = packages.filter((name) => !isThere(name));
    if (wanted.length === 0) return;
    // No package of the root starts a service of its own.
    writeFileSync(join(root, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
    // A mirror may lag behind: its lists are then past their date, and still signed.
    const apt = [
      'env',
      'DEBIAN_FRONTEND=noninteractive',
      'apt-get',
      '-q',
      '-y',
      '-o',
      'Acquire::Check-Valid-Until=false',
    ];
    await run('chroot', [root, ...apt, 'update']);
    await run('chroot', [root, ...apt, 'install', '--no-install-recommends', ...wanted]);
    await run('chroot', [root, 'apt-get', 'clean']);
  });
}

/** What to spawn to run `program` of the forky root. */
export function forkyCommand(program: string, args: readonly string[]): { program: string; args: string[] } {
  const enter =
    'mount --bind "$0/usr" /usr && mount --bind "$0/etc/ld.so.cache" /etc/ld.so.cache && exec "$@"';
  return {
    program: 'unshare',
    args: ['--mount', '--propagation', 'private', 'sh', '-c', enter, cachePath(ROOT), program, ...args],
  };
}

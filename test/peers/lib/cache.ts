/**
 * Where prepared peers lie: outside the checkout, so that they outlive it, in $NETEMU_PEERS_CACHE or /var/cache/netemu-peers. Every entry is made
 * in a scratch folder and renamed when it is whole, under a lock held by flock(1): a run that dies leaves nothing half made, and two runs at
 * once make it one time.
 */

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';

export function cacheDirectory(): string {
  const directory = process.env.NETEMU_PEERS_CACHE ?? '/var/cache/netemu-peers';
  mkdirSync(directory, { recursive: true });
  return directory;
}

export function cachePath(...names: string[]): string {
  return join(cacheDirectory(), ...names);
}

/** Runs `work` while no other process holds the lock of this name. */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const locks = cachePath('locks');
  mkdirSync(locks, { recursive: true });
  const holder = spawn('flock', [join(locks, name), 'sh', '-c', 'echo held; cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    holder.stdout.once('data', () => resolve());
    holder.once('error', reject);
    holder.once('exit', (code) => reject(new Error(`flock exited with ${code}`)));
  });
  try {
    return await work();
  } finally {
    holder.stdin.end();
  }
}

/** The path of the entry `name`; `make` fills an empty folder with it when it is not there yet. */
export async function cached(name: string, make: (folder: string) => Promise<void>): Promise<string> {
  const entry = cachePath(name);
  if (existsSync(entry)) return entry;
  return withLock(name, async () => {
    if (existsSync(entry)) return entry;
    const scratch = `${entry}.making`;
    rmSync(scratch, { recursive: true, force: true });
    mkdirSync(scratch, { recursive: true });
    await make(scratch);
    renameSync(scratch, entry);
    return entry;
  });
}

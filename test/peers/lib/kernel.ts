/** Debian's current 6.1 kernels, unpacked and not installed: a boot image and its modules. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { dependencyOf, ensureInstalled, forArchitecture, unpack } from './apt.ts';
import { cached, cachePath } from './cache.ts';
import { run } from './command.ts';

export type KernelName = 'amd64' | '686';

export interface Kernel {
  /** Such as 6.1.0-56-amd64. */
  version: string;
  image: string;
  /** Holds lib/modules/VERSION. */
  root: string;
}

/** Downloads the kernel unless it is in the cache. */
export async function ensureKernel(name: KernelName): Promise<Kernel> {
  await cached(`kernel-${name}`, async (folder) => {
    await ensureInstalled('kmod');
    const options = name === '686' ? await forArchitecture('i386', cachePath('lists-i386')) : [];
    const found = await dependencyOf(
      `linux-image-${name}`,
      new RegExp(`linux-image-6\\.1\\.0-\\d+-${name}`),
      options,
    );
    await unpack([found], folder, options);
    await run('depmod', ['-b', folder, found.replace('linux-image-', '')]);
  });
  return kernel(name);
}

export function kernel(name: KernelName): Kernel {
  const root = cachePath(`kernel-${name}`);
  const version = readdirSync(join(root, 'lib/modules'))[0]!;
  return { version, root, image: join(root, 'boot', `vmlinuz-${version}`) };
}

/** Debian packages: installed on this machine, or only unpacked somewhere. What is there already costs no look-up at all. */

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { withLock } from './cache.ts';
import { capture, run } from './command.ts';

const WAIT_FOR_LOCK = ['-o', 'DPkg::Lock::Timeout=600'];
const QUIET = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };

async function missing(packages: readonly string[]): Promise<string[]> {
  const { stdout } = await capture('dpkg', ['--get-selections', ...packages]);
  const there = new Set<string>();
  for (const line of stdout.split('\n')) {
    const [name, wanted] = line.split(/\s+/);
    if (name !== undefined && (wanted === 'install' || wanted === 'hold')) there.add(name.split(':')[0]!);
  }
  return packages.filter((name) => !there.has(name));
}

/** Refreshes the package lists, once for a machine that has none or old ones. */
async function update(): Promise<void> {
  const { stdout } = await capture('find', [
    '/var/lib/apt/lists',
    '-maxdepth',
    '1',
    '-name',
    '*InRelease',
    '-mtime',
    '-1',
  ]);
  if (stdout.trim() === '') await fetchLists([]);
}

/** A mirror in the middle of its own update serves lists that do not fit together; apt goes on with those that do, and so do we: what is then missing is told by name. */
async function fetchLists(options: readonly string[]): Promise<void> {
  const { status, stderr } = await capture('apt-get', [...WAIT_FOR_LOCK, ...options, 'update'], QUIET);
  if (status !== 0) console.warn(`apt-get update: ${stderr.trim().split('\n')[0]}`);
}

/** Installs what is not installed yet. */
export async function ensureInstalled(...packages: string[]): Promise<void> {
  if ((await missing(packages)).length === 0) return;
  await withLock('apt', async () => {
    const wanted = await missing(packages);
    if (wanted.length === 0) return;
    await update();
    await run('apt-get', [...WAIT_FOR_LOCK, 'install', '-y', '--no-install-recommends', ...wanted], QUIET);
  });
}

/** The mirror this machine's own package sources name for Debian's main archive. */
export async function mirror(): Promise<string> {
  await withLock('apt', update);
  const lines = await run('apt-get', [
    'indextargets',
    '--format',
    '$(REPO_URI) $(COMPONENT) $(LABEL) $(CODENAME)',
    'Created-By: Packages',
  ]);
  const line = lines.split('\n').find((text) => / main Debian [a-z]+$/.test(text));
  if (line === undefined) throw new Error(`no Debian archive among the package sources:\n${lines}`);
  return line.split(' ')[0]!.replace(/\/$/, '');
}

/** The one package that the metapackage `name` stands for, such as the current kernel's. */
export async function dependencyOf(
  name: string,
  pattern: RegExp,
  options: readonly string[] = [],
): Promise<string> {
  await withLock('apt', update);
  const text = await run('apt-cache', [...options, 'depends', name]);
  const found = text.match(pattern);
  if (found === null) throw new Error(`${name} depends on nothing like ${pattern}:\n${text}`);
  return found[0];
}

/** Downloads packages and unpacks them into `root`, without installing them. */
export async function unpack(
  packages: readonly string[],
  root: string,
  options: readonly string[] = [],
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-debs-'));
  try {
    await run('apt-get', [...options, 'download', ...packages], { ...QUIET, cwd: folder });
    for (const file of readdirSync(folder)) await run('dpkg-deb', ['-x', join(folder, file), root]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Options for apt tools that work on another architecture, with package lists of its own: this machine's set-up stays as it is. */
export async function forArchitecture(architecture: string, listsFolder: string): Promise<string[]> {
  const options = [
    ...['-o', `APT::Architecture=${architecture}`, '-o', `APT::Architectures=${architecture}`],
    ...[
      '-o',
      `Dir::State::lists=${listsFolder}`,
      '-o',
      'Dir::Cache::pkgcache=',
      '-o',
      'Dir::Cache::srcpkgcache=',
    ],
  ];
  await run('mkdir', ['-p', join(listsFolder, 'partial')]);
  await fetchLists(options);
  return options;
}

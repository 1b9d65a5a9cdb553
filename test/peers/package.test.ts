/** The tarball as a stranger gets it: installed without install scripts into an empty folder, run with its addon and without. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';

const ROOT = new URL('../..', import.meta.url).pathname;
const MAIN_JOB = ['--netdev', 'user,id=n0', '--device', 'e1000,netdev=n0', '--guest', 'probe,once'];

let folder: string;
const netemu = (...args: string[]) => {
  const run = spawnSync(join(folder, 'node_modules/.bin/netemu'), args, {
    encoding: 'utf8',
    cwd: folder,
    timeout: 60_000,
  });
  return { status: run.status, output: run.stdout + run.stderr };
};

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'netemu-package-'));
  const packed = execFileSync('npm', ['pack', '--json', '--pack-destination', folder], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  const [{ filename }] = JSON.parse(packed) as [{ filename: string }];
  writeFileSync(join(folder, 'package.json'), '{ "private": true }');
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', `./${filename}`], {
    cwd: folder,
    stdio: 'pipe',
  });
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('tells its version', () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  expect(netemu('--version')).toEqual({ status: 0, output: `netemu ${version}\n` });
});

it('runs the main job by the addon in the tarball', () => {
  const { status, output } = netemu(...MAIN_JOB);
  expect(output).toContain('DHCP lease 10.0.2.15/24 from 10.0.2.2');
  expect(status, output).toBe(0);
});

it('can be imported, in Node and as a browser would', () => {
  const script = `
    import * as node from 'netemu';
    import * as browser from 'netemu/browser';
    console.log(typeof node.createHostIo, typeof browser.createHostIo, node.Network === browser.Network);`;
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    cwd: folder,
  });
  expect(run.stdout + run.stderr).toBe('function undefined true\n');
});

it('runs the main job by the portable I/O when the addon is gone', () => {
  rmSync(join(folder, 'node_modules/netemu/prebuilds'), { recursive: true });
  const { status, output } = netemu(...MAIN_JOB);
  expect(output).toContain('DHCP lease 10.0.2.15/24 from 10.0.2.2');
  expect(status, output).toBe(0);
});

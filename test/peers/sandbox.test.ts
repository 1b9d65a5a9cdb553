/**
 * `--sandbox on`: all threads of a running netemu are under the filter of system calls and the rules for files, it still does its work, and what it
 * gave up fails. A kernel without rules for files is told of, and refused where they were asked for.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { RunningNetemu } from './lib/netemu.ts';
import { Qmp } from './lib/qmp.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'netemu-sandbox-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A line of each thread's status (proc(5)). */
function ofThreads(pid: number, name: string): string[] {
  return readdirSync(`/proc/${pid}/task`).map((task) => {
    const text = readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8');
    return new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)![1]!;
  });
}

it('is in force for every thread once all is open, and netemu goes on', async () => {
  const socket = join(folder, 'qmp');
  const hook = join(folder, 'hook.mjs');
  const outside = mkdtempSync(join(tmpdir(), 'netemu-outside-'));
  writeFileSync(join(outside, 'secret'), 'secret');
  // A module of the user's has netemu's rights: it shows what is left of them.
  writeFileSync(
    hook,
    `import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
export const createHook = ({ log }) => {
  const { error, stdout } = spawnSync('/bin/echo', ['ran']);
  log.warn({}, 'spawn: ' + (error?.code ?? stdout));
  let direct = 'read';
  try { readFileSync('${outside}/secret'); } catch (error) { direct = error.code; }
  readFile('${outside}/secret').then(() => 'read', ({ code }) => code).then((pooled) => log.warn({}, 'secret: ' + direct + ' ' + pooled));
  return {};
};
`,
  );
  const netemu = new RunningNetemu([
    ...['--netdev', 'user,id=n0', '--device', 'e1000,id=e0,netdev=n0', '--guest', 'probe'],
    ...['--object', `filter-hook,id=before,netdev=n0,module=${hook}`],
    ...['--qmp', `unix:${socket},server=on,wait=off`, '--sandbox', `on,write=${folder}`],
  ]);
  try {
    const qmp = await Qmp.connect(socket);
    await netemu.until(/spawn: ran/);
    // The probe guest takes its lease and asks DNS from within.
    await netemu.until(/DHCP lease 10\.0\.2\.15/);
    await netemu.until(/DNS 10\.0\.2\.3 answered/);
    await netemu.until(/secret: read read/);
    // The monitor answers before that, while the rest is being opened.
    await netemu.until(/sandbox: no other program/);
    const { active, files, landlock } = (await qmp.run('query-sandbox')) as Record<string, number | boolean>;
    expect({ active, files }).toEqual({ active: true, files: landlock !== 0 });
    const { pid } = netemu.child;
    expect(ofThreads(pid!, 'Seccomp').length).toBeGreaterThan(4);
    expect(new Set(ofThreads(pid!, 'Seccomp'))).toEqual(new Set(['2']));
    expect(new Set(ofThreads(pid!, 'NoNewPrivs'))).toEqual(new Set(['1']));
    // Sockets, files and hot plug still work; other programs do not run.
    await qmp.run('netdev_add', { type: 'user', id: 'n1', hostfwd: [{ str: 'tcp:127.0.0.1:0-:22' }] });
    const file = join(folder, 'a.pcap');
    await qmp.run('object-add', { 'qom-type': 'filter-dump', id: 'd', netdev: 'n1', file });
    await qmp.run('object-add', { 'qom-type': 'filter-hook', id: 'after', netdev: 'n1', module: hook });
    await netemu.until(/spawn: EPERM/);
    // Elsewhere: not by us, not by the module, by no thread.
    const elsewhere = { 'qom-type': 'filter-dump', id: 'e', netdev: 'n1', file: join(outside, 'b.pcap') };
    if (files === true) {
      await netemu.until(/secret: EACCES EACCES/);
      await expect(qmp.run('object-add', elsewhere)).rejects.toThrow(/b\.pcap.*(EACCES|Permission denied)/);
      expect(readdirSync(outside)).toEqual(['secret']);
    } else {
      await qmp.run('object-add', elsewhere);
    }
    await qmp.run('quit');
    expect((await netemu.finished).status).toBe(0);
    expect(readFileSync(file).length).toBe(24);
  } finally {
    await netemu.stop();
    rmSync(outside, { recursive: true });
  }
  // Its socket lay in a folder that was left to it.
  expect(readdirSync(folder)).not.toContain('qmp');
});

it('reaches what it is told to leave within reach, and a tap made later', async () => {
  const socket = join(folder, 'told');
  const later = mkdtempSync(join(tmpdir(), 'netemu-later-'));
  const netemu = new RunningNetemu([
    ...['--guest', 'none', '--qmp', `unix:${socket},server=on,wait=off`],
    ...['--sandbox', `on,write=${later}`],
  ]);
  try {
    await netemu.until(/sandbox: no other program/);
    const qmp = await Qmp.connect(socket);
    await qmp.run('netdev_add', { type: 'user', id: 'n1' });
    const file = join(later, 'a.pcap');
    await qmp.run('object-add', { 'qom-type': 'filter-dump', id: 'd', netdev: 'n1', file });
    await qmp.run('netdev_add', {
      ...{ type: 'stream', id: 'n2', server: true },
      addr: { type: 'unix', path: join(later, 'socket') },
    });
    expect(readdirSync(later).sort()).toEqual(['a.pcap', 'socket']);
    await qmp.run('netdev_del', { id: 'n2' });
    expect(readdirSync(later)).toEqual(['a.pcap']);
    await qmp.run('netdev_add', { type: 'tap', id: 't', script: 'no', downscript: 'no' });
    await qmp.run('quit');
    expect((await netemu.finished).status).toBe(0);
  } finally {
    await netemu.stop();
    rmSync(later, { recursive: true });
  }
});

it('is not there unless it is asked for, and fails the start where it cannot be', async () => {
  const socket = join(folder, 'off');
  const netemu = new RunningNetemu(['--guest', 'none', '--qmp', `unix:${socket},server=on,wait=off`]);
  const qmp = await Qmp.connect(socket);
  expect(await qmp.run('query-sandbox')).toMatchObject({ active: false, files: false });
  expect(new Set(ofThreads(netemu.child.pid!, 'Seccomp'))).toEqual(new Set(['0']));
  await netemu.stop();
  const portable = await new RunningNetemu(['--guest', 'none', '--sandbox', 'on'], {
    env: { NETEMU_HOST_IO: 'portable' },
  }).finished;
  expect(portable).toMatchObject({ status: 1, output: expect.stringMatching(/the sandbox needs the addon/) });
});

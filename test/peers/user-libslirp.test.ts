/**
 * The same scripted client put to QEMU's `-netdev user` (libslirp) and to ours, with the same option line: what it sees must be alike, but for the tables in
 * fixtures/libslirp, where each difference has its two sides and its reason. A row that no longer differs fails as well.
 *
 * Both run in one network namespace that has a loopback and nothing else, with a name server there in the place of the host's, so nothing depends on
 * where this machine stands.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { prepare } from './lib/prepare.ts';
import { ScriptClient } from './lib/script-client.ts';
import { RESOLVER } from './lib/slirp-host.ts';
import { RESTRICTED, SCENARIOS, settled } from './lib/slirp-script.ts';

const MAIN = new URL('../../dist/cli/main.js', import.meta.url).pathname;
const HOST_PROGRAM = new URL('./lib/slirp-host.ts', import.meta.url).pathname;

type Answers = Record<string, string[]>;

/** A row of fixtures/libslirp/*.json: what QEMU 7.2 with libslirp 4.7 (Debian 12) answers, what we do, and why. */
interface Difference {
  readonly why: string;
  readonly libslirp: readonly string[];
  readonly netemu: readonly string[];
}

const table = (name: string): Record<string, Difference> =>
  JSON.parse(
    readFileSync(new URL(`../../fixtures/libslirp/${name}.json`, import.meta.url), 'utf8'),
  ) as Record<string, Difference>;

let folder: string;
let host: ChildProcess;

/** Runs a shell's script, then the program in its place. */
const shell = (script: string, ...command: string[]): string[] => [
  'sh',
  '-c',
  `${script} && exec "$@"`,
  'sh',
  ...command,
];

beforeAll(async () => {
  await prepare(['qemu-7.2', 'tools']);
  folder = mkdtempSync(join(tmpdir(), 'netemu-slirp-'));
  const root = join(folder, 'tftp');
  mkdirSync(join(root, 'folder'), { recursive: true });
  writeFileSync(join(root, 'file'), 'x'.repeat(1300));
  writeFileSync(join(root, 'small'), 'a small file\n');
  writeFileSync(join(root, 'folder/small'), 'another\n');
  writeFileSync(join(folder, 'outside'), 'outside\n');
  symlinkSync('../outside', join(root, 'link'));
  writeFileSync(join(folder, 'resolv.conf'), `nameserver ${RESOLVER}\n`);
  const script = `ip link set lo up && mount --bind ${join(folder, 'resolv.conf')} /etc/resolv.conf`;
  const serve = [process.execPath, '--import', 'tsx', HOST_PROGRAM, 'serve'];
  host = spawn('unshare', ['--net', '--mount', '--propagation', 'private', ...shell(script, ...serve)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [said] = (await once(host.stdout!, 'data')) as [Buffer];
  expect(said.toString()).toBe('ready\n');
});

afterAll(async () => {
  if (host !== undefined) {
    const ended = once(host, 'close');
    host.stdin!.end();
    await ended;
  }
  if (folder !== undefined) rmSync(folder, { recursive: true });
});

const userOptions = (more: string): string =>
  [
    'user,id=u',
    'hostname=guest,domainname=example.org,dnssearch=example.org,dnssearch=example.net',
    `tftp=${join(folder, 'tftp')},bootfile=pxelinux.0`,
    'guestfwd=tcp:10.0.2.100:1234-cmd:cat',
  ].join(',') + more;

/** Runs the program with the network and the client joined by a hub, puts the scenarios to it, and ends it. */
async function ask(which: 'qemu' | 'netemu', more: string, names: readonly string[]): Promise<Answers> {
  const path = join(folder, `${which}.sock`);
  const { client, connected } = await ScriptClient.listen(path);
  const lines = [
    userOptions(more),
    'hubport,id=h1,hubid=0,netdev=u',
    `stream,id=s,addr.type=unix,addr.path=${path}`,
    'hubport,id=h2,hubid=0,netdev=s',
  ];
  const command =
    which === 'qemu'
      ? ['qemu-system-x86_64', '-M', 'none', '-display', 'none', '-monitor', 'none', '-nodefaults']
      : [process.execPath, MAIN];
  const option = which === 'qemu' ? '-netdev' : '--netdev';
  command.push(...lines.flatMap((line) => [option, line]));
  const child = spawn('nsenter', ['--target', `${host.pid}`, '--net', '--mount', ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  }
  const ended = once(child, 'close').then(() => {});
  const early = ended.then(() => {
    throw new Error(`${which} ended:\n${said}`);
  });
  early.catch(() => {});
  await Promise.race([connected, early]);
  const answers: Answers = {};
  try {
    for (const name of names) answers[name] = settled(await SCENARIOS[name]!(client));
  } catch (error) {
    throw new Error(`${which}: ${String(error)}\n${said}`);
  } finally {
    child.kill('SIGTERM');
    await ended;
    client.close();
    rmSync(path, { force: true });
  }
  return answers;
}

describe.each([
  ['open', '', Object.keys(SCENARIOS)],
  ['restricted', ',restrict=on', RESTRICTED],
] as const)('%s', (title, more, names) => {
  const differences = table(title);
  let libslirp: Answers;
  let ours: Answers;

  beforeAll(async () => {
    libslirp = await ask('qemu', more, names);
    ours = await ask('netemu', more, names);
  });

  it.each(names.filter((name) => !(name in differences)))('alike: %s', (name) => {
    expect(ours[name]).toEqual(libslirp[name]);
  });

  const rows = names.filter((name) => name in differences);
  it.each(rows)('as the table says: %s', (name) => {
    const { libslirp: theirs, netemu, why } = differences[name]!;
    expect(libslirp[name]).toEqual(theirs);
    expect(ours[name]).toEqual(netemu);
    expect(theirs).not.toEqual(netemu);
    expect(why.length).toBeGreaterThan(20);
  });

  it('the table has no scenario that does not exist', () => {
    expect(Object.keys(differences)).toEqual(rows);
  });
});

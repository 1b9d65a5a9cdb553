/**
 * `netemu-jail`: one test for each of its promises. What a kernel or a container does not allow must be refused in one line, with nothing run;
 * the tests ask the same system calls by other programs first, and expect one or the other.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNativeHostIo } from '../../src/host-io/native.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const MAIN = join(ROOT, 'dist/cli/main.js');
const arch = process.arch === 'arm64' ? 'arm64' : 'x64';
const JAIL = join(ROOT, `prebuilds/linux-${arch}/netemu-jail`);
const isRoot = process.getuid!() === 0;

const host = createNativeHostIo();
const hasLandlock = host.fileRulesVersion > 0;
host.shutdown();
const hasNamespaces =
  spawnSync('unshare', [
    '--propagation',
    'unchanged',
    '--ipc',
    '--uts',
    '--mount',
    '--cgroup',
    ...(isRoot ? [] : ['--user']),
    'true',
  ]).status === 0;
/** What this machine cannot do, left out by name; a test of its own sees that it is refused otherwise. */
const POSSIBLE = [
  ...(hasLandlock ? [] : ['--files', 'off']),
  ...(hasNamespaces ? [] : ['--namespaces', 'off']),
];

let base: string;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), 'netemu-jail-'));
  for (const name of ['in', 'out', 'secret']) mkdirSync(join(base, name), { mode: 0o777 });
  writeFileSync(join(base, 'in/file'), 'inside');
  writeFileSync(join(base, 'secret/file'), 'outside');
  symlinkSync(join(base, 'secret'), join(base, 'link'));
});
afterAll(() => rmSync(base, { recursive: true }));

interface Options {
  readonly stdio?: readonly ('pipe' | number)[];
  readonly env?: Record<string, string>;
}

function jail(
  options: readonly string[],
  command: readonly string[],
  { stdio = [], env = {} }: Options = {},
) {
  const { status, stdout, stderr } = spawnSync(JAIL, [...options, '--', ...command], {
    encoding: 'utf8',
    timeout: 100_000,
    stdio: ['pipe', 'pipe', 'pipe', ...stdio],
    env: { PATH: process.env.PATH, ...env },
  });
  return { status, stdout, stderr };
}

/** What a script in Node answers from within, as JSON. */
function inside(options: readonly string[], script: string, more: Options = {}): unknown {
  const run = jail([...POSSIBLE, ...options], [process.execPath, '-e', script], more);
  expect(run).toMatchObject({ status: 0, stderr: '' });
  return JSON.parse(run.stdout);
}

const STATUS = `const text = require('fs').readFileSync('/proc/self/status', 'utf8');
const line = (name) => new RegExp('^' + name + ':[ \\\\t]*(.*?)[ \\\\t]*$', 'm').exec(text)[1];`;

describe('hardening 58: a place that leads through a symbolic link', () => {
  it.each(['--read', '--write', '--bind'])('is refused, whichever part of %s it is', (option) => {
    for (const path of ['link', 'link/', 'link/file', 'in/../link/file']) {
      const run = jail([...POSSIBLE, option, join(base, path)], [process.execPath, '-e', 'console.log(1)']);
      expect(run).toEqual({
        status: 125,
        stdout: '',
        stderr: `netemu-jail: ${option} ${join(base, path)}: is a symbolic link, or leads through one\n`,
      });
    }
    expect(jail([...POSSIBLE, option, '/proc/self/root/tmp'], ['true'])).toMatchObject({
      status: 125,
      stdout: '',
    });
    expect(jail([...POSSIBLE, option, join(base, 'none')], ['true'])).toMatchObject({
      status: 125,
      stderr: expect.stringContaining('No such file'),
    });
  });

  it('leads nowhere from within, though it lies in a folder that was left', () => {
    if (!hasLandlock) return expectRefusal(['--namespaces', 'off'], /no Landlock/);
    symlinkSync(join(base, 'secret/file'), join(base, 'in/planted'));
    const script = `const fs = require('fs');
      const read = (path) => { try { return fs.readFileSync(path, 'utf8'); } catch ({ code }) { return code; } };
      fs.symlinkSync('${base}/secret', '${base}/out/made');
      console.log(JSON.stringify([read('${base}/in/file'), read('${base}/in/planted'), read('${base}/out/made/file')]));`;
    const options = ['--read', join(base, 'in'), '--write', join(base, 'out')];
    expect(inside(options, script)).toEqual(['inside', 'EACCES', 'EACCES']);
  });
});

/** Nothing runs, and one line tells why. */
function expectRefusal(options: readonly string[], message: RegExp): void {
  const run = jail(options, [process.execPath, '-e', 'console.log("ran")']);
  expect(run).toMatchObject({ status: 125, stdout: '', stderr: expect.stringMatching(message) });
  expect(run.stderr.split('\n')).toHaveLength(2);
}

describe('hardening: the jail', () => {
  it('leaves the named files and the system’s, in every thread; or refuses where the kernel cannot', () => {
    if (!hasLandlock) return expectRefusal(['--namespaces', 'off'], /files: this kernel has no Landlock/);
    const script = `const fs = require('fs');
      const code = (act) => { try { return act() ?? 'done'; } catch ({ code }) { return code; } };
      fs.promises.readFile('${base}/secret/file').then(() => 'read', ({ code }) => code).then((pooled) => console.log(JSON.stringify({
        inside: code(() => fs.readFileSync('${base}/in/file', 'utf8')),
        outside: code(() => fs.readFileSync('${base}/secret/file', 'utf8')),
        pooled,
        list: code(() => fs.readdirSync('${base}')),
        shadow: code(() => fs.readFileSync('/etc/shadow')),
        writeRead: code(() => fs.writeFileSync('${base}/in/new', '')),
        write: code(() => fs.writeFileSync('${base}/out/new', '')),
        run: code(() => require('child_process').execFileSync('/bin/true')),
        hosts: typeof code(() => fs.readFileSync('/etc/hosts', 'utf8')),
      })));`;
    expect(inside(['--read', join(base, 'in'), '--write', join(base, 'out')], script)).toEqual({
      inside: 'inside',
      outside: 'EACCES',
      pooled: 'EACCES',
      list: 'EACCES',
      shadow: 'EACCES',
      writeRead: 'EACCES',
      write: 'done',
      run: 'EACCES',
      hosts: 'string',
    });
    // What it makes is its own.
    const { mode } = JSON.parse(
      jail(
        [...POSSIBLE, '--write', join(base, 'out')],
        [
          process.execPath,
          '-e',
          `const fs = require('fs');
        fs.writeFileSync('${base}/out/own', ''); console.log(JSON.stringify({ mode: fs.statSync('${base}/out/own').mode & 0o777 }))`,
        ],
      ).stdout,
    ) as { mode: number };
    expect(mode).toBe(0o600);
  });

  it('leaves no capability, no way to new privileges and no core dump, for root either', () => {
    const seen = inside(
      [],
      `${STATUS}
      console.log(JSON.stringify({
        caps: ['CapInh', 'CapPrm', 'CapEff', 'CapAmb'].map(line), bound: line('CapBnd'), privs: line('NoNewPrivs'),
        core: /core file size\\s+(\\S+)\\s+(\\S+)/.exec(require('fs').readFileSync('/proc/self/limits', 'utf8')).slice(1),
      }));`,
    ) as { caps: string[]; bound: string; privs: string; core: string[] };
    expect(new Set(seen.caps)).toEqual(new Set(['0000000000000000']));
    expect(seen.privs).toBe('1');
    expect(seen.core).toEqual(['0', '0']);
    if (isRoot) expect(seen.bound).toBe('0000000000000000');
  });

  it('runs as the user it is told to, for good; or refuses', () => {
    if (!isRoot) return expectRefusal([...POSSIBLE, '--user', '65534:65533'], /--user: /);
    const seen = inside(
      ['--user', '65534:65533'],
      `${STATUS}
      let back = 'root again';
      try { process.setuid(0); } catch ({ code }) { back = code; }
      console.log(JSON.stringify([line('Uid'), line('Gid'), line('Groups'), back]));`,
    );
    expect(seen).toEqual([Array(4).fill('65534').join('\t'), Array(4).fill('65533').join('\t'), '', 'EPERM']);
  });

  it('has namespaces of its own, on demand a network of its own; or refuses', () => {
    const files = hasLandlock ? [] : ['--files', 'off'];
    if (!hasNamespaces) return expectRefusal(files, /namespaces: .* \(--namespaces off does without\)/);
    const script = `const fs = require('fs');
      console.log(JSON.stringify([...['ipc', 'uts', 'mnt', 'cgroup', 'net'].map((name) => fs.readlinkSync('/proc/self/ns/' + name)), Object.keys(require('os').networkInterfaces())]));`;
    const outer = ['ipc', 'uts', 'mnt', 'cgroup', 'net'].map((name) => readlinkSync(`/proc/self/ns/${name}`));
    const own = inside([], script) as string[];
    for (const i of [0, 1, 2, 3]) expect(own[i]).not.toBe(outer[i]);
    expect(own[4]).toBe(outer[4]);
    const alone = inside(['--net', 'none'], script) as unknown[];
    expect(alone[4]).not.toBe(outer[4]);
    // Its only interface is down.
    expect(alone[5]).toEqual([]);
  });

  it('hands on the descriptors that were named, and no other', () => {
    const fds = [1, 2, 3].map(() => openSync(join(base, 'in/file'), 'r'));
    try {
      const script = `const fs = require('fs');
        const text = (fd) => { try { const b = Buffer.alloc(6); fs.readSync(fd, b, 0, 6, 0); return b.toString(); } catch ({ code }) { return code; } };
        const file = (fd) => { try { return fs.readlinkSync('/proc/self/fd/' + fd); } catch ({ code }) { return code; } };
        console.log(JSON.stringify([text(4), ...[3, 5].map((fd) => file(fd) === '${base}/in/file')]));`;
      expect(inside(['--fd', '4'], script, { stdio: fds })).toEqual(['inside', false, false]);
    } finally {
      for (const fd of fds) closeSync(fd);
    }
    // One that it opened itself is not one that was handed to it.
    expect(jail([...POSSIBLE, '--read', join(base, 'in'), '--fd', '3'], ['true']).stderr).toBe(
      'netemu-jail: --fd 3: Bad file descriptor\n',
    );
  });

  it('hands on the variables that were named, and what no program does without', () => {
    const env = {
      HOME: '/h',
      TZ: 'UTC',
      SECRET: 's',
      WANTED: 'w',
      LD_PRELOAD: '',
      NODE_OPTIONS: '--no-warnings',
    };
    expect(
      inside(
        ['--env', 'WANTED', '--env', 'NOT_THERE'],
        'console.log(JSON.stringify(Object.keys(process.env).sort()))',
        { env },
      ),
    ).toEqual(['HOME', 'PATH', 'TZ', 'WANTED']);
  });

  it('bounds open descriptors', () => {
    expect(
      inside(
        ['--nofile', '64'],
        `${''}console.log(JSON.stringify(/open files\\s+(\\S+)\\s+(\\S+)/.exec(require('fs').readFileSync('/proc/self/limits', 'utf8')).slice(1)))`,
      ),
    ).toEqual(['64', '64']);
  });

  it.each([
    [[], [], /no command/],
    [['--read'], ['true'], /--read needs a value/],
    [['--raed', '/x'], ['true'], /no option --raed/],
    [['--user', '1'], ['true'], /--user expects a number, not '1'/],
    [['--user', '-1:2'], ['true'], /--user expects a number/],
    [['--user', '1:2x'], ['true'], /--user expects a number/],
    [['--net', 'some'], ['true'], /--net expects host or none/],
    [['--net', 'none', '--namespaces', 'off'], ['true'], /--net none needs namespaces/],
    [['--files', 'maybe'], ['true'], /--files expects on or off/],
    [['--fd', '9999'], ['true'], /--fd 9999: Bad file descriptor/],
    [[], ['there-is-no-such-program'], /not found in PATH/],
    [[], ['/no/such/program'], /No such file/],
    [[], [join(ROOT, 'package.json')], /a script is run by naming its interpreter/],
  ])('refuses a line that is none: %j %j', (options, command, message) => {
    const run = spawnSync(JAIL, [...options, ...(command.length > 0 ? ['--', ...command] : [])], {
      encoding: 'utf8',
    });
    expect(run).toMatchObject({ status: 125, stdout: '', stderr: expect.stringMatching(message) });
    expect(run.stderr.split('\n')).toHaveLength(2);
  });

  it('takes no more places than it has room for', () => {
    const many = Array.from({ length: 300 }, () => ['--read', '/usr/share']).flat();
    expectRefusal(many, /more than 256 places/);
  });

  it('holds a netemu that does its work, with its sandbox inside', () => {
    const args = [
      '--netdev',
      'user,id=n0',
      '--device',
      'e1000,netdev=n0',
      '--guest',
      'probe,once',
      '--sandbox',
      'on',
    ];
    const anybody = [MAIN, process.execPath].every(readableByAll);
    const user = isRoot && anybody ? ['--user', '65534:65534'] : [];
    const run = jail([...POSSIBLE, ...user, '--read', ROOT], [process.execPath, MAIN, ...args]);
    expect(run).toMatchObject({ status: 0, stdout: expect.stringContaining('DHCP lease 10.0.2.15/24') });
  });
});

/** Whether somebody else than its owner gets at the file at all. */
function readableByAll(path: string): boolean {
  const user = ['--reuid=65534', '--regid=65534', '--clear-groups'];
  return spawnSync('setpriv', [...user, 'test', '-r', path]).status === 0;
}

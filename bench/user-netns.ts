/**
 * A namespace's way out: netemu's tap and user network beside slirp4netns and pasta (Debian 12's of 2023, and the next release's of 2026), in one run
 * and by turns, against servers on the loopback.
 *
 *     TCP    iperf3, MTU 1500 and 65520, up (out of the namespace) and down, 1 and 8 streams: Gbit/s, CPU seconds per GB (P9, P10, P13)
 *     rr     a byte there and back on one connection; crr: connect, a byte there and back, close: medians in microseconds (P11)
 *     udp    64 and 1400 bytes, up and down, as fast as they leave: thousand datagrams per second that arrive (P12)
 *
 * One JSON line: for each cell each tool's median, and the ratio to the best of the others, above 1 where netemu is better. CPU seconds are those of the
 * process that moves the data. Ratios are medians over the rounds, of figures taken seconds apart: the machine may be busy with other things.
 * Each tool carries every cell's traffic once before it is measured: netemu's code is compiled as it runs, and a network is long-lived. Ports whose
 * connections are over are taken again at once, or the namespace's kernel, not the tool, would be what crr measures after 14,000 connections.
 * Needs root, and `make peers` before. Everything runs in namespaces of its own.
 *
 * In the environment: ROUNDS (default 3) is how often each cell is measured, for a second each; CELLS and TOOLS, lists of names with commas between,
 * choose among them; OTHER is the main.js of another build of netemu to compare with.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachePath } from '../test/peers/lib/cache.ts';
import { compiled } from './lib/forwarding.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 3);
const PORT = 5201;
const TALK_PORT = 5202;
const REUSE_PORTS = 'sysctl -qw net.ipv4.tcp_tw_reuse=1';
const NETEMU = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** A shell in a namespace behind one of the tools. */
interface Side {
  shell: ChildProcess;
  /** The process whose CPU time counts. */
  pid: number;
  /** This machine's loopback, from inside. */
  gateway: string;
  close(): Promise<void>;
}

interface Figure {
  value: number;
  cpuPerGB?: number;
}

interface Cell {
  name: string;
  mtu: number;
  /** A time: less is better. A thousand per second, Gbit/s: more is. */
  unit: 'us' | 'kps' | 'gbps';
  measure(side: Side): Promise<Figure>;
}

function spawnShell(program: string, args: readonly string[]): ChildProcess {
  return spawn(program, [...args, 'sh'], { stdio: ['pipe', 'pipe', 'inherit'] });
}

async function ask(shell: ChildProcess, script: string): Promise<string> {
  let output = '';
  const done = new Promise<void>((resolve, reject) => {
    const onData = (chunk: Buffer): void => {
      output += chunk.toString();
      if (!output.endsWith('--done\n')) return;
      shell.stdout!.off('data', onData);
      shell.off('exit', onExit);
      resolve();
    };
    const onExit = (): void => reject(new Error(`the shell ended: ${output}`));
    shell.stdout!.on('data', onData);
    shell.once('exit', onExit);
  });
  shell.stdin!.write(`${script} </dev/null\necho --done\n`);
  await done;
  return output.slice(0, -'--done\n'.length);
}

async function ended(process: ChildProcess): Promise<void> {
  process.stdin?.end();
  if (process.exitCode === null && process.signalCode === null) await once(process, 'exit');
}

// The tools.

async function openNetemu(main: string, mtu: number): Promise<Side> {
  const shell = spawnShell(process.execPath, [main, 'netns', '--mtu', `${mtu}`, '--']);
  return { shell, pid: shell.pid!, gateway: '10.0.2.2', close: () => ended(shell) };
}

async function openSlirp(mtu: number): Promise<Side> {
  const shell = spawnShell('unshare', ['--net']);
  await ask(shell, ':');
  const stack = spawn('slirp4netns', ['-c', '-m', `${mtu}`, '-r', '3', `${shell.pid}`, 'tap0'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  await once(stack.stdio[3]!, 'data');
  return {
    shell,
    pid: stack.pid!,
    gateway: '10.0.2.2',
    async close() {
      stack.kill();
      await ended(shell);
    },
  };
}

/**
 * Run as an ordinary user, because pasta gives root up and then may not enter what root made. `root` is another release's file system, whose /usr it
 * runs with. It maps the gateway of the default route, which openOutside makes, to the loopback.
 */
async function openPasta(root: string | undefined, mtu: number): Promise<Side> {
  const mounts = ['mount --bind "$1/tun" /dev/net/tun'];
  if (root !== undefined)
    mounts.push('mount --bind "$2/usr" /usr', 'mount --bind "$2/etc/ld.so.cache" /etc/ld.so.cache');
  const pasta = [
    'pasta',
    '-f',
    '-q',
    '--config-net',
    '-m',
    `${mtu}`,
    '-I',
    'tap0',
    '-t',
    'none',
    '-u',
    'none',
  ];
  const script = `${mounts.join(' && ')} && exec setpriv --reuid=65534 --regid=65534 --clear-groups \
    ${pasta.join(' ')} -T none -U none -- sh -c 'echo up; exec cat'`;
  const stack = spawn(
    'unshare',
    ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', scratch, root ?? ''],
    { stdio: ['pipe', 'pipe', 'ignore'] },
  );
  await once(stack.stdout, 'data');
  // Among pasta's own helpers, the one that is the command.
  const children = readFileSync(`/proc/${stack.pid}/task/${stack.pid}/children`, 'latin1').trim().split(' ');
  const isCommand = (pid: string): boolean => /^(sh|cat)$/m.test(readFileSync(`/proc/${pid}/comm`, 'latin1'));
  const inside = children.find(isCommand)!;
  const shell = spawnShell('nsenter', [`--net=/proc/${inside}/ns/net`]);
  await ask(shell, ':');
  return {
    shell,
    pid: stack.pid!,
    gateway: OUTSIDE_GATEWAY,
    async close() {
      await ended(shell);
      await ended(stack);
    },
  };
}

/** Holds a /dev/net/tun that pasta's user may open. */
let scratch = '';
const OUTSIDE_GATEWAY = '192.0.2.254';
const TOOLS: Readonly<Record<string, (mtu: number) => Promise<Side>>> = {
  netemu: (mtu) => openNetemu(NETEMU, mtu),
  ...(process.env.OTHER === undefined ? {} : { other: (mtu: number) => openNetemu(process.env.OTHER!, mtu) }),
  slirp4netns: openSlirp,
  'pasta-2023': (mtu) => openPasta(undefined, mtu),
  'pasta-2026': (mtu) => openPasta(cachePath('forky'), mtu),
};

// What is measured.

/** CPU seconds a process has used. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** A server of its own for each run: one whose client was given up would stay busy. */
async function stream(side: Side, options: string): Promise<Figure> {
  const server = await started('iperf3', ['-s', '-1', '-p', `${PORT}`, '--forceflush']);
  const before = cpuSeconds(side.pid);
  const output = await ask(side.shell, `timeout 5 iperf3 -c ${side.gateway} -p ${PORT} -t 1 -J ${options}`);
  const used = cpuSeconds(side.pid) - before;
  server.kill();
  await ended(server);
  // Some transfers of some tools stall.
  if (output === '') return { value: 0, cpuPerGB: Number.NaN };
  const { end, error } = JSON.parse(output) as {
    error?: string;
    end: { sum_received: { bytes: number; bits_per_second: number } };
  };
  if (error !== undefined) throw new Error(error);
  const { bytes, bits_per_second } = end.sum_received;
  return { value: bits_per_second / 1e9, cpuPerGB: used / (bytes / 1e9) };
}

async function talk(side: Side, what: string, rest = ''): Promise<[number, number, number]> {
  const output = await ask(side.shell, `${compiled('talk')} ${what} ${side.gateway} ${TALK_PORT} 1 ${rest}`);
  // A tool that lets no datagram through at all for 20 seconds has a rate of 0.
  if (output === '' && rest !== '') return [0, 1, 0];
  const [count, seconds, medianUs] = output.split(' ').map(Number);
  if (!(count! > 0)) throw new Error(`talk ${what}: ${output}`);
  return [count!, seconds!, medianUs!];
}

const CELLS: readonly Cell[] = [
  ...[1500, 65520].flatMap((mtu) =>
    ['up', 'down'].flatMap((way) =>
      [1, 8].map((streams) => ({
        name: `${way}_${mtu}_${streams}`,
        mtu,
        unit: 'gbps' as const,
        measure: (side: Side) => stream(side, `-P ${streams} ${way === 'down' ? '-R' : ''}`),
      })),
    ),
  ),
  ...['rr', 'crr'].map((what) => ({
    name: what,
    mtu: 65520,
    unit: 'us' as const,
    measure: async (side: Side) => ({ value: (await talk(side, what))[2] }),
  })),
  ...['up', 'down'].flatMap((way) =>
    [64, 1400].map((bytes) => ({
      name: `udp_${way}_${bytes}`,
      mtu: 1500,
      unit: 'kps' as const,
      measure: async (side: Side) => {
        const [count, seconds] = await talk(side, way, `${bytes}`);
        return { value: count / seconds / 1000 };
      },
    })),
  ),
];

function chosen(names: string | undefined, all: readonly string[]): readonly string[] {
  if (names === undefined) return all;
  const wanted = names.split(',');
  const unknown = wanted.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new Error(`${unknown} is none of ${all.join(' ')}`);
  return all.filter((name) => wanted.includes(name));
}

/** This namespace's own way out, which leads nowhere: pasta copies its addresses and routes. */
function openOutside(): void {
  const ip = (line: string): unknown => execFileSync('ip', line.split(' '));
  ip('link set lo up');
  ip('link add ext0 type veth peer name ext1');
  ip('link set ext1 up');
  ip('addr add 192.0.2.1/24 dev ext0');
  ip('link set ext0 up');
  ip(`route add default via ${OUTSIDE_GATEWAY}`);
  execFileSync('mknod', ['-m', '666', join(scratch, 'tun'), 'c', '10', '200']);
  execFileSync('chmod', ['755', scratch]);
}

async function started(program: string, args: readonly string[]): Promise<ChildProcess> {
  const server = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    server.stdout.once('data', () => resolve());
    server.once('exit', (code) => reject(new Error(`${program} ended with ${code}`)));
  });
  server.stdout.resume();
  return server;
}

async function main(): Promise<void> {
  openOutside();
  const server = await started(compiled('talk'), ['serve', `${TALK_PORT}`]);
  const tools = chosen(process.env.TOOLS, Object.keys(TOOLS));
  const names = chosen(
    process.env.CELLS,
    CELLS.map((cell) => cell.name),
  );
  const cells = CELLS.filter((cell) => names.includes(cell.name));
  const runs = new Map<string, Figure[]>();
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (const mtu of new Set(cells.map((cell) => cell.mtu))) {
        const sides = new Map<string, Side>();
        for (const tool of tools) {
          const side = await TOOLS[tool]!(mtu);
          await ask(side.shell, REUSE_PORTS);
          sides.set(tool, side);
        }
        for (const cell of cells.filter((one) => one.mtu === mtu)) {
          for (const side of sides.values()) await cell.measure(side);
          for (const tool of tools) {
            const key = `${cell.name} ${tool}`;
            runs.set(key, [...(runs.get(key) ?? []), await cell.measure(sides.get(tool)!)]);
          }
        }
        for (const side of sides.values()) await side.close();
      }
    }
  } finally {
    server.kill();
  }
  const figures = Object.fromEntries(cells.map((cell) => [cell.name, row(cell, tools, runs)]));
  report({ bench: 'user-netns', ...runtimeFacts(), rounds: ROUNDS, ...figures });
}

function row(cell: Cell, tools: readonly string[], runs: Map<string, Figure[]>): Record<string, unknown> {
  const of = (tool: string): Figure[] => runs.get(`${cell.name} ${tool}`)!;
  const entries = tools.map((tool): [string, unknown] => {
    const value = median(of(tool).map((run) => run.value));
    if (cell.unit !== 'gbps') return [tool, { [cell.unit]: value }];
    return [tool, { gbps: value, cpuSecondsPerGB: median(of(tool).map((run) => run.cpuPerGB!)) }];
  });
  const ratios: Record<string, number> = {};
  if (tools.includes('netemu')) {
    for (const tool of tools) {
      if (tool === 'netemu') continue;
      ratios[tool] = median(
        of('netemu').map((run, i) => {
          const [a, b] = [run.value, of(tool)[i]!.value];
          return cell.unit === 'us' ? b / a : a / b;
        }),
      );
    }
  }
  return { ...Object.fromEntries(entries), ratios };
}

if (process.argv[2] === 'inside') {
  scratch = mkdtempSync(join(tmpdir(), 'netemu-bench-'));
  try {
    await main();
  } finally {
    rmSync(scratch, { recursive: true });
  }
} else {
  const own = [...process.execArgv, fileURLToPath(import.meta.url), 'inside'];
  execFileSync('unshare', ['--net', process.execPath, ...own], { stdio: 'inherit' });
}

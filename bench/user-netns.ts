/**
 * TCP out of a namespace and into it, through netemu's tap and user network and slirp4netns, in one run and by turns: iperf3 against a server on the
 * loopback, MTU 1500 and 65520, up and down, 1 and 8 streams. One JSON line: medians in Gbit/s, CPU seconds per GB of the process that
 * moves the data, and netemu's ratio to slirp4netns (P9, P10, P13). Needs root, and `make peers` before.
 *
 * All of it runs in a namespace of its own. ROUNDS in the environment (default 3) is
 * how often each cell is measured, for a second each.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { median, report, runtimeFacts } from './lib/report.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 3);
const PORT = 5201;
const NETEMU = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const TOOLS = ['netemu', 'slirp4netns'] as const;
type Tool = (typeof TOOLS)[number];

/** A shell in a namespace behind one of the tools. */
interface Side {
  shell: ChildProcess;
  /** The process whose CPU time counts. */
  pid: number;
  gateway: string;
  close(): Promise<void>;
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
      resolve();
    };
    shell.stdout!.on('data', onData);
    shell.once('exit', () => reject(new Error(`the shell ended: ${output}`)));
  });
  shell.stdin!.write(`${script} </dev/null\necho --done\n`);
  await done;
  return output.slice(0, -'--done\n'.length);
}

async function open(tool: Tool, mtu: number): Promise<Side> {
  const ended = async (shell: ChildProcess): Promise<void> => {
    shell.stdin!.end();
    if (shell.exitCode === null) await once(shell, 'exit');
  };
  if (tool === 'netemu') {
    const shell = spawnShell(process.execPath, [NETEMU, 'netns', '--mtu', `${mtu}`, '--']);
    return { shell, pid: shell.pid!, gateway: '10.0.2.2', close: () => ended(shell) };
  }
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

/** CPU seconds a process has used. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function measure(side: Side, options: string): Promise<{ gbps: number; cpuPerGB: number }> {
  const before = cpuSeconds(side.pid);
  const output = await ask(side.shell, `timeout 20 iperf3 -c ${side.gateway} -p ${PORT} -t 1 -J ${options}`);
  const used = cpuSeconds(side.pid) - before;
  const { end, error } = JSON.parse(output) as {
    error?: string;
    end: { sum_received: { bytes: number; bits_per_second: number } };
  };
  if (error !== undefined) throw new Error(error);
  return { gbps: end.sum_received.bits_per_second / 1e9, cpuPerGB: used / (end.sum_received.bytes / 1e9) };
}

async function main(): Promise<void> {
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  const server = spawn('iperf3', ['-s', '-p', `${PORT}`, '--forceflush'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(server.stdout, 'data');
  server.stdout.resume();
  const figures: Record<string, unknown> = {};
  try {
    for (const mtu of [1500, 65520]) {
      const runs = new Map<string, { gbps: number; cpuPerGB: number }[]>();
      for (let round = 0; round < ROUNDS; round++) {
        for (const tool of TOOLS) {
          const side = await open(tool, mtu);
          for (const [way, options] of [
            ['up', ''],
            ['down', '-R'],
          ] as const) {
            for (const streams of mtu === 1500 ? [1] : [1, 8]) {
              const key = `${way}_${mtu}_${streams}`;
              const list = runs.get(`${key} ${tool}`) ?? [];
              list.push(await measure(side, `-P ${streams} ${options}`));
              runs.set(`${key} ${tool}`, list);
            }
          }
          await side.close();
        }
      }
      for (const key of new Set([...runs.keys()].map((name) => name.split(' ')[0]!))) {
        const of = (tool: Tool, what: 'gbps' | 'cpuPerGB'): number =>
          median(runs.get(`${key} ${tool}`)!.map((run) => run[what]));
        figures[key] = {
          ...Object.fromEntries(
            TOOLS.map((tool) => [tool, { gbps: of(tool, 'gbps'), cpuSecondsPerGB: of(tool, 'cpuPerGB') }]),
          ),
          ratio: of('netemu', 'gbps') / of('slirp4netns', 'gbps'),
        };
      }
    }
  } finally {
    server.kill();
  }
  report({ bench: 'user-netns', ...runtimeFacts(), rounds: ROUNDS, ...figures });
}

if (process.argv[2] === 'inside') await main();
else {
  const own = [...process.execArgv, fileURLToPath(import.meta.url), 'inside'];
  execFileSync('unshare', ['--net', process.execPath, ...own], { stdio: 'inherit' });
}

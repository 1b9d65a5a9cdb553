/**
 * Measures forwarders: processes that take frames at one port and hand them on at another. A load generator keeps a window of frames on their
 * way and checks every one that comes back; contestants take turns, and each figure is the median of its turns.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { median } from './report.ts';

const PEERS = new URL('../peers/', import.meta.url).pathname;

/** Compiles a program of bench/peers; returns its path. */
export function compiled(name: string): string {
  const source = join(PEERS, `${name}.c`);
  const program = join(tmpdir(), `netemu-bench-${process.getuid?.() ?? 0}-${name}`);
  if (!existsSync(program) || statSync(program).mtimeMs < statSync(source).mtimeMs) {
    const folder = mkdtempSync(join(tmpdir(), 'netemu-bench-'));
    execFileSync('cc', ['-O2', '-o', join(folder, name), source]);
    execFileSync('mv', [join(folder, name), program]);
    execFileSync('rmdir', [folder]);
  }
  return program;
}

export interface Contestant {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  /** Loses frames beyond this many on their way (its receive buffer is the kernel's default). */
  readonly windowFrames?: number;
  /** Knows no grouping, and would lose most of a group: its peers are plain ones. */
  readonly plainPeers?: boolean;
  /** Instead of the load's. */
  readonly ports?: Load['ports'];
  /** It says "ready" on its standard output when it is; else it is when this resolves. */
  readonly ready?: () => Promise<void>;
}

export interface Turn {
  framesPerSecond: number;
  /** CPU time of the forwarder and of the load generator for each frame. */
  cpuNsPerFrame: number;
  loadCpuNsPerFrame: number;
}

/** Starts it and waits until it is ready. */
export async function started(contestant: Contestant): Promise<ChildProcess> {
  const child = spawn(contestant.program, contestant.args, {
    // Open: vde_switch ends with its standard input.
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  if (contestant.ready !== undefined) await contestant.ready();
  else {
    await new Promise<void>((resolve, reject) => {
      child.stdout!.once('data', () => resolve());
      child.once('exit', (code) => reject(new Error(`${contestant.name} ended with ${code}`)));
    });
  }
  return child;
}

export async function stopped(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
}

/** User and system time of a process and all its threads, in seconds. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

export interface Load {
  /**
   * Where frames leave and go to, and where they are to arrive and come from: UDP ports of 127.0.0.1; or an interface, `plug:FOLDER` or `serve:FOLDER`
   * and anything (load.c has them).
   */
  readonly ports: readonly [string, string, string, string];
  readonly frameBytes: number;
  readonly windowFrames: number;
  readonly seconds: number;
  /** UDP_SEGMENT and UDP_GRO. */
  readonly grouping: boolean;
  /** Hex digits in front of each frame that is sent, and that comes back. */
  readonly headers?: readonly [string, string];
  /** A command to run the generator by, such as one that enters a namespace. */
  readonly within?: readonly string[];
}

/** One turn of one contestant. */
export async function measure(contestant: Contestant, load: Load): Promise<Turn> {
  const { seconds } = load;
  const window = Math.min(load.windowFrames, contestant.windowFrames ?? Number.POSITIVE_INFINITY);
  const ports = contestant.ports ?? load.ports;
  const words = [
    ...ports,
    load.frameBytes,
    window,
    seconds,
    load.grouping && !contestant.plainPeers ? 'gso' : 'plain',
    ...(load.headers ?? []),
  ].map(String);
  const [program, ...args] = [...(load.within ?? []), compiled('load'), ...words];
  let out = '';
  let err = '';
  const generate = (): ChildProcess => {
    const generator = spawn(program!, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    generator.stdout.on('data', (data) => {
      out += data;
    });
    generator.stderr.on('data', (data) => {
      err += data;
    });
    return generator;
  };
  const serves = ports[0].startsWith('serve:');
  const first = serves ? generate() : null;
  if (first !== null) {
    await new Promise((resolve) => first.stdout!.once('data', resolve));
    out = '';
  }
  const child = await started(contestant);
  try {
    const generator = first ?? generate();
    generator.stdin!.end('go\n');
    const before = cpuSeconds(child.pid!);
    const code = await new Promise((resolve) => generator.once('close', resolve));
    const cpu = cpuSeconds(child.pid!) - before;
    if (code !== 0) throw new Error(`${contestant.name}: ${err}`);
    const [frames, elapsed, loadCpu] = out.trim().split(' ').map(Number) as [number, number, number];
    // The forwarder's time is of the whole run, the frames of its last four fifths.
    return {
      framesPerSecond: frames / elapsed,
      cpuNsPerFrame: ((cpu * (elapsed / seconds)) / frames) * 1e9,
      loadCpuNsPerFrame: (loadCpu / frames) * 1e9,
    };
  } finally {
    await stopped(child);
    if (first !== null) await stopped(first);
  }
}

/** Medians of `rounds` turns, the contestants alternating. */
export async function contest(
  contestants: readonly Contestant[],
  load: Load,
  rounds: number,
): Promise<Record<string, Turn>> {
  const turns = new Map<string, Turn[]>(contestants.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const contestant of contestants) turns.get(contestant.name)!.push(await measure(contestant, load));
  }
  const result: Record<string, Turn> = {};
  for (const [name, list] of turns) {
    result[name] = {
      framesPerSecond: Math.round(median(list.map((turn) => turn.framesPerSecond))),
      cpuNsPerFrame: Math.round(median(list.map((turn) => turn.cpuNsPerFrame))),
      loadCpuNsPerFrame: Math.round(median(list.map((turn) => turn.loadCpuNsPerFrame))),
    };
  }
  return result;
}

#!/usr/bin/env node
/**
 * The command. Exit code 0: all went well (or a signal ended it); 1: a bad option, an error of the host, or a `probe,once` that failed.
 *
 * Until something is printed by the network itself, everything a user can get wrong is told in one line, never as a stack trace.
 */

import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { nodeBackends } from '../backends/index.ts';
import { nodeChardevs } from '../chardev/node.ts';
import {
  CommandLineError,
  type Declaration,
  formatCliError,
  parseCommandLine,
} from '../config/commandline.ts';
import { VirtualClock } from '../core/clock.ts';
import { HostIoError, OptionError, UnsupportedError } from '../core/errors.ts';
import { openFileSink } from '../host-io/file-sink.ts';
import { readWholeFile } from '../host-io/file-source.ts';
import { loadHookModule } from '../host-io/hook-module.ts';
import { createHostIo } from '../host-io/index.ts';
import { systemRandom } from '../host-io/random.ts';
import { systemClock } from '../host-io/system-clock.ts';
import { Network } from '../network/network.ts';
import { nics } from '../nic/index.ts';
import { loggerFor } from './log.ts';
import { usesStdio } from './monitors.ts';
import { expandConfigFiles, type ProgramOutput, StartError, startProgram } from './program.ts';
import { qtestRequest } from './qtest.ts';
import { LiveStatus, statusLines, statusRows } from './status.ts';
import { processTerminal } from './v86.ts';
import { packageVersion } from './version.ts';

const STATUS_MS = 500;
const DRAIN_MS = 2000;
/**
 * What a guest in another process asks for comes in quick succession (kicks, register reads that its CPU waits for): waking up costs more than looking again, for as long as
 * that finds something, and nobody else wants the core.
 */
const GUEST_BUSY_POLL_NS = 50_000;

async function main(argv: readonly string[]): Promise<number> {
  if (argv[0] === 'bench') {
    const { benchCommand } = await import('./bench/command.ts');
    return await benchCommand(argv.slice(1));
  }
  if (argv[0] === 'netns') {
    const { netnsCommand } = await import('./netns/command.ts');
    return await netnsCommand(argv.slice(1));
  }
  const line = parseCommandLine(argv);
  if (line.action === 'print') {
    process.stdout.write(line.text);
    return 0;
  }
  if (line.action === 'version') {
    process.stdout.write(`netemu ${packageVersion()}\n`);
    return 0;
  }
  return await run(expandConfigFiles(line.declarations, (path) => readFileSync(path, 'utf8')));
}

async function run(declarations: readonly Declaration[]): Promise<number> {
  const live = new LiveStatus(process.stdout);
  const warn = (text: string): void => {
    process.stderr.write(`netemu: warning: ${text}\n`);
  };
  const log = loggerFor(declarations, warn);
  const wanted = process.env.NETEMU_HOST_IO;
  const hostIo = createHostIo({
    implementation: wanted === 'native' || wanted === 'portable' ? wanted : 'auto',
    ...(declarations.some(servesOtherProcess) && { busyPollNs: GUEST_BUSY_POLL_NS }),
  });
  const epochMs = Date.now();
  const v86 = declarations.findLast(({ kind }) => kind === 'guest');
  const hasConsole = v86?.kind === 'guest' && v86.guest.type === 'v86';
  const onTerminal = usesStdio(declarations) || hasConsole;
  const network = new Network({
    // Under qtest time stands still until the client moves it.
    clock: qtestRequest(declarations) === undefined ? systemClock() : new VirtualClock(),
    random: systemRandom(),
    backends: nodeBackends,
    nics,
    log,
    hostIo,
    epochMs,
    openFile: openFileSink,
    readFile: readWholeFile,
    chardevs: nodeChardevs({
      input: process.stdin,
      output: process.stdout,
      interrupt: () => process.kill(process.pid, 'SIGINT'),
    }),
    resolveHost,
    loadHook: loadHookModule,
  });
  hostIo.drive(network.loop);

  let finish: (code: number) => void = () => {};
  const finished = new Promise<number>((resolve) => {
    finish = resolve;
  });
  const once = declarations.filter(
    (declaration) =>
      declaration.kind === 'guest' && declaration.guest.type === 'probe' && declaration.guest.once,
  ).length;
  let running = 0;
  let allOk = true;
  stopOnSignals(() => finish(0));
  // Nothing else may be open (a NIC without a netdev), and yet the program runs until it is told to stop.
  const keepAlive = setInterval(() => {}, 1 << 30);
  try {
    const output: ProgramOutput = {
      // Standard output belongs to the monitor that speaks there.
      print: (text) => (onTerminal ? process.stderr.write(`${text}\n`) : live.print(text)),
      warn,
      ...(hasConsole && {
        terminal: processTerminal(
          () => finish(0),
          () => {
            process.stderr.write('netemu: --guest v86: the guest did what v86 cannot go on from\n');
            finish(1);
          },
        ),
      }),
      quit: () => finish(0),
      done(ok) {
        allOk &&= ok;
        running--;
        if (once > 0 && running <= 0) finish(allOk ? 0 : 1);
      },
    };
    const starting = startProgram(network, declarations, output, { version: packageVersion(), epochMs });
    // A chardev may wait for its client for ever; a signal ends that as well.
    const program = await Promise.race([starting, finished]);
    if (typeof program === 'number') {
      starting.catch(() => {});
      return program;
    }
    running += program.probes.length;
    if (once > 0 && running <= 0) finish(allOk ? 0 : 1);
    const status = watchStatus(network, live, !onTerminal);
    const code = await finished;
    status.stop();
    program.monitor.quit('host-signal');
    program.close();
    return code;
  } finally {
    clearInterval(keepAlive);
    // The console reads on until it is told to stop, and keeps the process there.
    if (hasConsole) process.stdin.pause();
    network.close();
    hostIo.shutdown();
  }
}

/** The guest of this device is in another process. */
function servesOtherProcess(declaration: Declaration): boolean {
  if (declaration.kind !== 'device') return false;
  const { device } = declaration;
  return device.vfioUser !== undefined || (device.model === 'virtio-net' && device.vhostUser !== undefined);
}

async function resolveHost(name: string, family: 4 | 6 | undefined): Promise<string> {
  try {
    return (await lookup(name, { family: family ?? 0 })).address;
  } catch {
    throw new OptionError(`can't resolve host address '${name}'`);
  }
}

/** Redraws the status twice a second on a terminal that nothing else draws on. */
function watchStatus(network: Network, live: LiveStatus, mayDraw: boolean): { stop(): void } {
  if (!mayDraw || process.stdout.isTTY !== true) return { stop() {} };
  let before = statusRows(network);
  let beforeMs = performance.now();
  const timer = setInterval(() => {
    const rows = statusRows(network);
    const nowMs = performance.now();
    live.show(statusLines(rows, before, (nowMs - beforeMs) / 1000));
    before = rows;
    beforeMs = nowMs;
  }, STATUS_MS);
  return {
    stop() {
      clearInterval(timer);
      live.end();
    },
  };
}

/** The first SIGINT or SIGTERM stops in an orderly way, within DRAIN_MS; a second one at once. */
function stopOnSignals(stop: () => void): void {
  let stopping = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stopping) process.exit(0);
      stopping = true;
      setTimeout(() => process.exit(0), DRAIN_MS).unref();
      stop();
    });
  }
}

/** The one line that tells an error whose fault is not ours; undefined for one that is. */
function explain(error: unknown): string | undefined {
  if (error instanceof OptionError) return formatCliError(error);
  if (error instanceof StartError) {
    return formatCliError(new CommandLineError(new OptionError(error.message), error.flag, error.argument));
  }
  if (error instanceof HostIoError || error instanceof UnsupportedError) return `netemu: ${error.message}`;
  return undefined;
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  const text = explain(error);
  if (text === undefined) throw error;
  process.stderr.write(`${text}\n`);
  return 1;
});

/**
 * `netemu netns`: a command whose only network is the user network. The namespace is one end of a tap, the program, started as usual with
 * its monitors and filters, is the other; tap and user netdev are joined without a hub, so nothing is dropped between them.
 *
 * Signals: a terminal's interrupt reaches the command by itself, so netemu only stays out of the way; TERM and HUP are handed on. The
 * command's status becomes netemu's.
 */

import { readFileSync } from 'node:fs';
import { nodeBackends } from '../../backends/index.ts';
import { nodeChardevs } from '../../chardev/node.ts';
import { parseNetdev } from '../../config/netdevs/index.ts';
import { Port } from '../../core/port.ts';
import { openFileSink } from '../../host-io/file-sink.ts';
import { readWholeFile } from '../../host-io/file-source.ts';
import type { Handle } from '../../host-io/host-io.ts';
import { createHostIo } from '../../host-io/index.ts';
import { systemRandom } from '../../host-io/random.ts';
import { systemClock } from '../../host-io/system-clock.ts';
import { Network } from '../../network/network.ts';
import { nics } from '../../nic/index.ts';
import { loggerFor } from '../log.ts';
import { expandConfigFiles, type ProgramOutput, startProgram } from '../program.ts';
import { packageVersion } from '../version.ts';
import { Namespace } from './namespace.ts';
import { type NetnsOptions, parseNetnsOptions } from './options.ts';

/** The name under which the namespace's tap is handed to its netdev, once. */
const TAP_FD = 'netns-tap';

/** A request's answer mostly comes sooner than a process falls asleep and wakes up. Only traffic in quick succession is waited for like this. */
const BUSY_POLL_NS = 50_000;

/** Runs what follows `netemu netns`; resolves to the exit status. Rejects like the main command. */
export async function netnsCommand(argv: readonly string[]): Promise<number> {
  const options = parseNetnsOptions(argv, process.env.SHELL, (declarations) =>
    expandConfigFiles(declarations, (path) => readFileSync(path, 'utf8')),
  );
  if (options.action === 'run') return await run(options);
  process.stdout.write(options.action === 'print' ? options.text : `netemu ${packageVersion()}\n`);
  return 0;
}

async function run({ declarations, user, ifname, command }: NetnsOptions): Promise<number> {
  const warn = (text: string): void => {
    process.stderr.write(`netemu: warning: ${text}\n`);
  };
  const hostIo = createHostIo({ implementation: 'native', busyPollNs: BUSY_POLL_NS });
  const epochMs = Date.now();
  let tapHandle: Handle | undefined;
  const network = new Network({
    clock: systemClock(),
    random: systemRandom(),
    backends: nodeBackends,
    nics,
    log: loggerFor(declarations, warn),
    hostIo,
    epochMs,
    openFile: openFileSink,
    readFile: readWholeFile,
    chardevs: nodeChardevs({ input: process.stdin, output: process.stdout, interrupt() {} }),
    takeFd(name) {
      if (name !== TAP_FD) return undefined;
      const handle = tapHandle;
      tapHandle = undefined;
      return handle;
    },
  });
  hostIo.drive(network.loop);
  const space = new Namespace(user, ifname, command);
  const stopForwarding = forwardSignals(space);
  try {
    await space.ready();
    const output: ProgramOutput = {
      print: (text) => process.stderr.write(`${text}\n`),
      // Its peer is the namespace's tap, which no option names.
      warn: (text) => {
        if (text !== `netdev ${user.id} has no peer`) warn(text);
      },
      quit: () => space.signal('SIGTERM'),
      done() {},
    };
    const program = await startProgram(network, declarations, output, { version: packageVersion(), epochMs });
    tapHandle = await space.openTap(hostIo, ifname);
    const id = user.id === 'netns' ? 'netns-tap' : 'netns';
    const tap = await network.openNetdev(parseNetdev(`tap,id=${id},fd=${TAP_FD}`));
    const netdev = network.netdevs.get(user.id)!;
    Port.connect(tap.ports[0]!, netdev.ports[0]!);
    tap.chain.route();
    netdev.chain.route();
    await space.start();
    const status = await space.finished;
    program.monitor.quit('host-signal');
    program.close();
    return status;
  } finally {
    space.signal('SIGKILL');
    stopForwarding();
    network.close();
    hostIo.shutdown();
  }
}

function forwardSignals(space: Namespace): () => void {
  const forward = (signal: NodeJS.Signals): void => space.signal(signal);
  const ignore = (): void => {};
  process.on('SIGTERM', forward).on('SIGHUP', forward).on('SIGINT', ignore).on('SIGQUIT', ignore);
  return () => {
    process.off('SIGTERM', forward).off('SIGHUP', forward).off('SIGINT', ignore).off('SIGQUIT', ignore);
  };
}

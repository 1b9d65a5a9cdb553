/** `netemu bench`: packet throughput of a NIC model, a netdev, or netdevs on a hub, as this machine runs them. */

import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { nodeBackends } from '../../backends/index.ts';
import { HostIoError } from '../../core/errors.ts';
import { createHostIo } from '../../host-io/index.ts';
import { systemRandom } from '../../host-io/random.ts';
import { systemClock } from '../../host-io/system-clock.ts';
import { type Netdev, Network } from '../../network/network.ts';
import { nics } from '../../nic/index.ts';
import { scaled } from '../status.ts';
import { packageVersion } from '../version.ts';
import { benchHtml } from './html.ts';
import { type Measurement, measure } from './measure.ts';
import { type BenchOptions, benchHelp, parseBenchOptions } from './options.ts';
import { benchTable } from './table.ts';
import { netdevWorkload, nicWorkload, type Workload } from './workload.ts';

/** Runs what follows `netemu bench`; resolves to the exit code. Rejects like the main command. */
export async function benchCommand(argv: readonly string[]): Promise<number> {
  const options = parseBenchOptions(argv);
  if (options === null) {
    process.stdout.write(benchHelp);
    return 0;
  }
  const hostIo = createHostIo();
  const network = new Network({
    clock: systemClock(),
    random: systemRandom(),
    backends: nodeBackends,
    nics,
    hostIo,
  });
  hostIo.drive(network.loop);
  try {
    const results = await runAll(network, options);
    if (!options.json) process.stdout.write(benchTable(results));
    if (options.html !== undefined) writeReport(options.html, results);
    return 0;
  } finally {
    network.close();
    hostIo.shutdown();
  }
}

async function runAll(network: Network, options: BenchOptions): Promise<Measurement[]> {
  const netdevs: Netdev[] = [];
  for (const config of options.netdevs) netdevs.push(await network.openNetdev(config));
  const entry = netdevs.length > 1 ? await joinHub(network, netdevs) : netdevs[0];
  const name = [options.device?.model, ...netdevs.map(({ config }) => config.type)]
    .filter(Boolean)
    .join(' + ');
  const results: Measurement[] = [];
  for (const direction of options.directions) {
    for (const frameBytes of options.frameBytes) {
      const { batch, device } = options;
      let workload: Workload;
      if (device !== undefined) workload = nicWorkload(network, device, entry, direction, frameBytes, batch);
      else workload = netdevWorkload(network, entry!, netdevs, direction, frameBytes, batch);
      try {
        const what = { name, direction, frameBytes, batch };
        const result = await measure(workload, what, options, ({ framesPerSecond }) =>
          showRate(`${name} ${direction} ${frameBytes} bytes: ${scaled(framesPerSecond)} frame/s`),
        );
        showRate('');
        results.push(result);
        if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
      } finally {
        workload.close();
      }
    }
  }
  return results;
}

/** The rate of the moment, redrawn in place where standard error is a terminal. */
function showRate(text: string): void {
  if (process.stderr.isTTY === true) process.stderr.write(`\r\x1b[K${text}`);
}

/** Puts the netdevs on a hub of their own; returns the hub port that the bench is plugged into. */
async function joinHub(network: Network, netdevs: readonly Netdev[]): Promise<Netdev> {
  const port = (id: string, netdev: string | undefined) =>
    network.openNetdev({ type: 'hubport', id, hubId: 0, netdev, policy: undefined });
  for (const { id } of netdevs) await port(`#bench-${id}`, id);
  return await port('#bench', undefined);
}

function writeReport(path: string, results: readonly Measurement[]): void {
  const list = cpus();
  const facts = {
    version: packageVersion(),
    node: process.version,
    machine: `${list.length} x ${list[0]?.model ?? 'unknown processor'}`,
    when: new Date().toISOString(),
  };
  try {
    writeFileSync(path, benchHtml(results, facts));
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException;
    throw new HostIoError('open', code, `could not write '${path}': ${code}`);
  }
}

/** netemu as a process to measure: `netemu-hub.ts BUSY_POLL_NS NETDEV…` puts the netdevs of these option lines on one hub. */

import { nodeBackends } from '../../src/backends/index.ts';
import { parseNetdev } from '../../src/config/netdevs/index.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { createNativeHostIo } from '../../src/host-io/native.ts';
import { Network } from '../../src/network/network.ts';

const [busyPollNs = '0', ...lines] = process.argv.slice(2);
const hostIo = createNativeHostIo({ busyPollNs: Number(busyPollNs) });
const network = new Network({
  clock: new SystemClock(() => performance.now()),
  random: seededRandom(1),
  backends: nodeBackends,
  nics: {},
  hostIo,
});
hostIo.drive(network.loop);
for (const line of lines) {
  const config = parseNetdev(line);
  await network.openNetdev(config);
  await network.openNetdev(parseNetdev(`hubport,id=${config.id}-port,hubid=0,netdev=${config.id}`));
}
console.log('ready');

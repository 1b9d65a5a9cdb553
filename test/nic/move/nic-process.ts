/**
 * A NIC in a process of its own: guest RAM and the mailbox's page are descriptors 3 to 5, the network is a stream socket. It serves its guest until it is told to save its state.
 * Arguments: the device as JSON, the socket's path, the state file, lengths and addresses of RAM.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { nodeServices } from '../../../src/backends/node-services.ts';
import { streamBackend } from '../../../src/backends/stream.ts';
import type { DeviceInput } from '../../../src/config/devices/index.ts';
import { SystemClock, seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { readCounters } from '../../../src/core/stats.ts';
import { READABLE } from '../../../src/host-io/host-io.ts';
import { NativeHostIo } from '../../../src/host-io/native.ts';
import { Network } from '../../../src/network/network.ts';
import { nics } from '../../../src/nic/index.ts';
import type { DeviceHost } from '../../../src/pci/device-host.ts';
import { GuestMemory } from '../../../src/pci/guest-memory.ts';
import {
  LOAD,
  MAILBOX_BYTES,
  NicEnd,
  READ_BAR,
  READ_CONFIG,
  SAVE,
  WRITE_BAR,
  WRITE_CONFIG,
} from './mailbox.ts';

const [deviceText, path, stateFile, ...ranges] = process.argv.slice(2) as [
  string,
  string,
  string,
  ...string[],
];
const hostIo = new NativeHostIo();
const random = seededRandom(process.pid);
const network = new Network({
  clock: new SystemClock(() => performance.now()),
  random,
  backends: { stream: streamBackend(nodeServices) },
  nics,
  hostIo,
});
hostIo.drive(network.loop);
const memory = new GuestMemory(network.pool);
for (const [i, range] of ranges.entries()) {
  const [address, length] = range.split(':').map(Number);
  if (!memory.add(address!, hostIo.map(hostIo.adopt(3 + i), 0, length!)))
    throw new Error(`no place for ${range}`);
}
const page = hostIo.map(hostIo.adopt(3 + ranges.length), 0, MAILBOX_BYTES);
process.send!('ready');
const mailbox = new NicEnd(page, path);
const host: DeviceHost = {
  memory,
  loop: network.loop,
  random,
  log: silentLogger,
  setIntx(level) {
    mailbox.setLevel(level);
  },
  signalMsi() {
    mailbox.signal();
  },
};
await network.addNetdev({ type: 'stream', id: 'n0', server: false, addr: { type: 'unix', path } });
const { nic } = network.addDevice({ ...(JSON.parse(deviceText) as DeviceInput), netdev: 'n0', host });
let ending = false;

function answer(operation: number, bar: number, offset: number, size: number, value: number): number {
  switch (operation) {
    case READ_CONFIG:
      return nic.readConfig(offset, size);
    case WRITE_CONFIG:
      nic.writeConfig(offset, size, value);
      return 0;
    case READ_BAR:
      return nic.readBar(bar, offset, size);
    case WRITE_BAR:
      nic.writeBar(bar, offset, size, value);
      return 0;
    case LOAD:
      nic.loadState((JSON.parse(readFileSync(stateFile, 'utf8')) as { state: unknown }).state);
      return 0;
    case SAVE:
      writeFileSync(stateFile, JSON.stringify({ state: nic.saveState(), counters: readCounters(nic.stats) }));
      ending = true;
      return 0;
    default:
      throw new Error(`operation ${operation}`);
  }
}

hostIo.watch(hostIo.adopt(mailbox.requests), READABLE, () => {
  mailbox.serve(answer);
  // Nothing may be sent or written to guest RAM after the state was taken.
  if (ending) process.exit(0);
});

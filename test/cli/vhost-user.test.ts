/** How `--device virtio-net,vhost-user=PATH` becomes a back-end. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { nodeBackends } from '../../src/backends/index.ts';
import { startVhostUser } from '../../src/cli/vhost-user.ts';
import { readDevice } from '../../src/config/devices/index.ts';
import { seededRandom, VirtualClock } from '../../src/core/clock.ts';
import { openFileSink } from '../../src/host-io/file-sink.ts';
import { NativeHostIo } from '../../src/host-io/native.ts';
import { Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';
import { FrontEnd } from '../guest/vhost-user/front-end.ts';

let folder: string;
let hostIo: NativeHostIo;
let network: Network;
const lines: string[] = [];
const print = (line: string): void => {
  lines.push(line);
};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'netemu-cli-vhost-'));
  hostIo = new NativeHostIo();
  lines.length = 0;
  network = new Network({
    clock: new VirtualClock(),
    random: seededRandom(1),
    backends: nodeBackends,
    nics,
    hostIo,
    openFile: openFileSink,
  });
  hostIo.drive(network.loop);
});

afterEach(() => {
  network.close();
  expect(readdirSync(folder)).toEqual([]);
  hostIo.shutdown();
  rmSync(folder, { recursive: true });
});

test('server=on listens, tells where, and serves a front-end', async () => {
  const path = join(folder, 'vm.sock');
  const config = readDevice({ driver: 'virtio-net-pci', id: 'nic0', 'vhost-user': path, server: true });
  const server = startVhostUser(network, config, { path, server: true }, print);
  expect(lines).toEqual([`nic0: served by vhost-user on ${path}`]);
  const frontEnd = new FrontEnd(hostIo, hostIo.unixConnect(path));
  await frontEnd.begin(0n);
  await frontEnd.addRing(0, 0n);
  expect(await frontEnd.getU64(17)).toBe(1n);
  frontEnd.close();
  server.close();
  network.removeDevice('nic0');
  expect(hostIo.stats().openHandles).toBe(0);
});

test('a path that cannot be had leaves no device behind', () => {
  const path = join(folder, 'none', 'vm.sock');
  const config = readDevice({ driver: 'virtio-net-pci', id: 'nic0', 'vhost-user': path, server: true });
  expect(() => startVhostUser(network, config, { path, server: true }, print)).toThrow(/listen/);
  expect(network.devices.size).toBe(0);
  expect(hostIo.stats().openHandles).toBe(0);
});

test('without server=on nobody needs to be there yet', () => {
  const path = join(folder, 'vm.sock');
  const config = readDevice({ driver: 'virtio-net-pci', id: 'nic0', 'vhost-user': path });
  const server = startVhostUser(network, config, { path, server: false }, print);
  expect(lines).toEqual([`nic0: connects by vhost-user to ${path}`]);
  server.close();
  network.removeDevice('nic0');
  expect(hostIo.stats().openHandles).toBe(0);
});

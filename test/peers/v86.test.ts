/** Debian's unmodified 686 kernel in a v86 machine in this process, with its own e1000 driver on our NIC: lease, ping, a download with the right hash. */

import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startV86 } from '../../src/cli/v86.ts';
import { readDevice } from '../../src/config/devices/index.ts';
import { createHostIo, Network, nics, nodeBackends, SystemClock, seededRandom } from '../../src/index.ts';
import { ensureInitramfs, MARK, writeRunImage } from './lib/initramfs.ts';
import { ensureKernel, type Kernel } from './lib/kernel.ts';
import { prepare } from './lib/prepare.ts';

const BODY_BYTES = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), 'netemu-v86-'));
let kernel: Kernel;

beforeAll(async () => {
  await prepare(['firmware', 'kernel-686', 'initramfs-686']);
  kernel = await ensureKernel('686');
});
afterAll(() => rmSync(folder, { recursive: true }));

it('Linux binds e1000, takes a lease, pings the gateway and fetches a file', async () => {
  const body = Buffer.alloc(BODY_BYTES, 'netemu in v86 ');
  const http = createServer((_request, response) => response.end(body));
  await new Promise<void>((resolve) => {
    http.listen(0, '127.0.0.1', resolve);
  });
  const { port } = http.address() as AddressInfo;
  const initrd = join(folder, 'initramfs');
  writeRunImage(
    await ensureInitramfs('686'),
    {
      bind: 'modprobe e1000 && ip link set eth0 up && cat /sys/class/net/eth0/device/vendor',
      lease: 'udhcpc -i eth0 -n -q -t 20 && ip addr show eth0',
      ping: 'ping -c 3 10.0.2.2',
      wget: `wget -q -O - http://10.0.2.2:${port}/ | sha256sum`,
    },
    {},
    initrd,
  );
  const hostIo = createHostIo({ implementation: 'auto' });
  const network = new Network({
    clock: new SystemClock(() => performance.now()),
    random: seededRandom(5),
    backends: nodeBackends,
    nics,
    hostIo,
  });
  hostIo.drive(network.loop);
  await network.addNetdev({ type: 'user', id: 'n0' });
  const serial = ['', ''];
  let ended: () => void = () => {};
  const done = new Promise<void>((resolve) => {
    ended = resolve;
  });
  const machine = await startV86(
    network,
    {
      type: 'v86',
      kernel: kernel.image,
      initrd,
      append: 'console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on panic=-1',
      memoryBytes: 256 << 20,
      bios: undefined,
      vgaBios: undefined,
    },
    {
      output(line, byte) {
        serial[line] += String.fromCharCode(byte);
        if (line === 1 && byte === 10 && serial[1]!.includes(`${MARK}end wget`)) ended();
      },
    },
  );
  const plugged = machine.addDevice(readDevice({ driver: 'e1000', netdev: 'n0' }));
  machine.start();
  const watchdog = setTimeout(() => ended(), 400_000);
  await done;
  clearTimeout(watchdog);
  try {
    const said = `${serial[1]}\n--- console\n${serial[0]!.slice(-3000)}`;
    for (const step of ['bind', 'lease', 'ping', 'wget']) expect(said).toContain(`${MARK}end ${step} 0`);
    expect(said).toContain('0x8086');
    expect(said).toMatch(/10\.0\.2\.15/);
    expect(said).toMatch(/3 packets received/);
    expect(said).toContain(createHash('sha256').update(body).digest('hex'));
    expect(serial[0]).toMatch(/e1000: eth0 NIC Link is Up 1000 Mbps Full Duplex/);
    expect(serial[0]).not.toMatch(/NETDEV WATCHDOG|Detected Tx Unit Hang|nobody cared/);
  } finally {
    await machine.close();
    plugged.close();
    network.close();
    http.close();
    network.loop.run();
    expect(network.pool.free).toBe(network.pool.capacity);
    hostIo.shutdown();
  }
});

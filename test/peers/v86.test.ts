/**
 * Debian's unmodified 686 kernel in a v86 machine in this process, with its own drivers on our NICs: for each a lease, pings, a download and an upload with the right hash,
 * iperf3 both ways. A boot takes most of a minute, so all NICs are in one machine, each with a user network of its own, and are used one after another.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startV86 } from '../../src/cli/v86.ts';
import { type DeviceInput, readDevice } from '../../src/config/devices/index.ts';
import { createHostIo, Network, nics, nodeBackends, SystemClock, seededRandom } from '../../src/index.ts';
import { driverStep, hasEnded, readSteps, type Step } from './lib/driver-steps.ts';
import { ensureInitramfs, writeRunImage } from './lib/initramfs.ts';
import { Iperf } from './lib/iperf.ts';
import { ensureKernel } from './lib/kernel.ts';
import { prepare } from './lib/prepare.ts';
import { startWebServer, type WebServer } from './vfio-user/services.ts';

/** e1000's file; v86 hashes some 5 MiB a second. */
const LARGE_BYTES = Number(process.env.NETEMU_V86_MIB ?? 64) << 20;
const SMALL_BYTES = 8 << 20;
const IPERF_SECONDS = Number(process.env.NETEMU_IPERF_SECONDS ?? 3);

interface Row {
  /** As Linux calls it. */
  driver: string;
  device: DeviceInput;
  modules?: string[];
  fileBytes: number;
  /** What the console must say; absent: the driver says nothing. */
  console?: RegExp;
}

const ROWS: Row[] = [
  {
    driver: 'e1000',
    device: { driver: 'e1000' },
    fileBytes: LARGE_BYTES,
    console: /e1000: eth\d NIC Link is Up 1000 Mbps Full Duplex/,
  },
  {
    driver: '8139cp',
    device: { driver: 'rtl8139' },
    fileBytes: SMALL_BYTES,
    console: /8139cp .* eth\d: link up, 100Mbps, full-duplex/,
  },
  {
    driver: '8139too',
    device: { driver: 'rtl8139', chip: '8139c' },
    fileBytes: SMALL_BYTES,
    console: /8139too .* eth\d: link up, 100Mbps, full-duplex/,
  },
  {
    driver: 'virtio_net',
    device: { driver: 'virtio-net-pci' },
    fileBytes: SMALL_BYTES,
    modules: ['virtio_pci', 'virtio_net'],
  },
];

const folder = mkdtempSync(join(tmpdir(), 'netemu-v86-'));
const servers = new Map<number, WebServer>();
let iperf: Iperf;
/** What each driver's step printed, and how it ended. */
let steps: Map<string, Step>;
let console_ = '';

beforeAll(async () => {
  await prepare(['firmware', 'kernel-686', 'initramfs-686', 'tools']);
  const kernel = await ensureKernel('686');
  for (const bytes of [LARGE_BYTES, SMALL_BYTES]) servers.set(bytes, await startWebServer(bytes));
  iperf = await Iperf.start();
  const initrd = join(folder, 'initramfs');
  const scripts = Object.fromEntries(
    ROWS.map(({ driver, modules = [driver], fileBytes }) => [
      driver,
      driverStep(driver, modules, {
        httpPort: servers.get(fileBytes)!.port,
        iperf: { port: iperf.port, seconds: IPERF_SECONDS },
      }),
    ]),
  );
  writeRunImage(await ensureInitramfs('686'), { ...scripts, over: 'true' }, {}, initrd);
  const hostIo = createHostIo({ implementation: 'auto' });
  const network = new Network({
    clock: new SystemClock(() => performance.now()),
    random: seededRandom(5),
    backends: nodeBackends,
    nics,
    hostIo,
  });
  hostIo.drive(network.loop);
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
      memoryBytes: 512 << 20,
      bios: undefined,
      vgaBios: undefined,
    },
    {
      output(line, byte) {
        serial[line] += String.fromCharCode(byte);
        if (line === 1 && byte === 10 && hasEnded(serial[1]!, 'over')) ended();
      },
    },
  );
  const plugged = [];
  for (const { driver, device } of ROWS) {
    const netdev = `net-${driver}`;
    await network.addNetdev({ type: 'user', id: netdev });
    plugged.push(machine.addDevice(readDevice({ ...device, netdev })));
  }
  machine.start();
  const watchdog = setTimeout(() => ended(), 800_000);
  await done;
  clearTimeout(watchdog);
  await machine.close();
  for (const nic of plugged) nic.close();
  network.close();
  network.loop.run();
  expect(network.pool.free).toBe(network.pool.capacity);
  hostIo.shutdown();
  console_ = serial[0]!.replaceAll('\r', '');
  if (process.env.SHOW) process.stdout.write(`${console_}\n${serial[1]}`);
  steps = readSteps(serial[1]!);
});

afterAll(async () => {
  for (const server of servers.values()) server.close();
  await iperf?.close();
  rmSync(folder, { recursive: true });
});

/** Kilobits per second in each whole second of iperf3's two runs. */
function iperfSeconds(output: string): number[][] {
  const seconds = / (\d+\.\d+)-(\d+\.\d+) +sec .* (\d+) Kbits\/sec(?!.*(sender|receiver))/g;
  return output
    .split('iperf Done.')
    .slice(0, -1)
    .map((run) =>
      [...run.matchAll(seconds)]
        .filter(([, from, to]) => Number(to) - Number(from) > 0.5)
        .map(([, , , kilobits]) => Number(kilobits)),
    );
}

describe.each(ROWS)('v86 and $driver', ({ driver, fileBytes, console: expected }) => {
  it('binds, takes a lease, pings the gateway, a file comes and goes with the right hash, iperf3 both ways does not stall', () => {
    const web = servers.get(fileBytes)!;
    const { output, status } = steps.get(driver) ?? { output: 'it never came so far', status: 'none' };
    const said = `${output}\n--- console\n${console_.slice(-3000)}`;
    expect(status, said).toBe('0');
    expect(output).toMatch(/inet 10\.0\.2\.15\/24/);
    expect(output).toMatch(/3 packets received/);
    expect(output).toContain(web.fileHash);
    expect(output).toContain(`stored ${web.fileHash}`);
    const runs = iperfSeconds(output);
    expect(runs.length, said).toBe(2);
    for (const seconds of runs) {
      expect(seconds.length, said).toBeGreaterThanOrEqual(IPERF_SECONDS - 1);
      // A second may pass without a byte where this process had no time in it; two in a row are a stall.
      expect(seconds.join(' '), said).not.toMatch(/\b0 0\b/);
      expect(Math.max(...seconds), said).toBeGreaterThan(0);
    }
    if (expected !== undefined) expect(console_).toMatch(expected);
  });
});

it('the kernel has nothing to complain about', () => {
  expect(console_).not.toMatch(/NETDEV WATCHDOG|Detected Tx Unit Hang|nobody cared|Oops|BUG:/);
});

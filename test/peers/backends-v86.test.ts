/**
 * v86 in headless Chromium: Debian's kernel boots in a page, its virtio NIC talks over the page's WebSocket to netemu's switch and the user network behind
 * it, takes a DHCP lease and fetches a file from the host.
 */

import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { nodeBackends } from '../../src/backends/index.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { createNativeHostIo, type NativeHostIo } from '../../src/host-io/native.ts';
import { Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';
import { ensureInitramfs, writeRunImage } from './lib/initramfs.ts';
import { ensureKernel } from './lib/kernel.ts';
import { prepare } from './lib/prepare.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const blob = randomBytes(1 << 20);
const END = 'step-is-over';

let hostIo: NativeHostIo;
let network: Network;
let site: Server;
let folder: string;

beforeAll(async () => {
  await prepare(['chromium', 'initramfs-686', 'firmware']);
  folder = mkdtempSync(join(tmpdir(), 'netemu-v86-'));
  hostIo = createNativeHostIo();
  network = new Network({
    clock: new SystemClock(() => performance.now()),
    random: seededRandom(1),
    backends: nodeBackends,
    nics,
    hostIo,
  });
  hostIo.drive(network.loop);
  await network.addNetdev({ type: 'websocket', id: 'w', listen: '127.0.0.1:0' });
  await network.addNetdev({ type: 'user', id: 'u' });
  for (const id of ['w', 'u'])
    await network.addNetdev({ type: 'hubport', id: `${id}p`, hubid: 0, netdev: id });
}, 600_000);

afterAll(() => {
  site?.close();
  network.close();
  expect(network.pool.free).toBe(network.pool.capacity);
  hostIo.shutdown();
  rmSync(folder, { recursive: true, force: true });
});

it('takes a lease and fetches a file over websocket', async () => {
  const kernel = await ensureKernel('686');
  const files: Record<string, () => Uint8Array> = {
    '/libv86.js': () => readFileSync(join(ROOT, 'node_modules/v86/build/libv86.js')),
    '/v86.wasm': () => readFileSync(join(ROOT, 'node_modules/v86/build/v86.wasm')),
    '/bios.bin': () => readFileSync('/usr/share/seabios/bios.bin'),
    '/vgabios.bin': () => readFileSync('/usr/share/seabios/vgabios-stdvga.bin'),
    '/kernel': () => readFileSync(kernel.image),
    '/initrd': () => readFileSync(join(folder, 'initrd')),
    '/blob': () => blob,
  };
  site = createServer((request, response) => {
    const file = files[request.url ?? ''];
    response.setHeader(
      'content-type',
      request.url?.endsWith('.wasm') ? 'application/wasm' : 'application/octet-stream',
    );
    if (request.url === '/') {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><title>v86</title>');
    } else if (file === undefined) response.writeHead(404).end();
    else {
      const bytes = file();
      response.setHeader('content-length', bytes.length);
      response.end(bytes);
    }
  });
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
  const sitePort = (site.address() as AddressInfo).port;
  const relayPort = /listen=127\.0\.0\.1:(\d+)/.exec(network.netdevs.get('w')!.describe())![1];
  writeRunImage(
    await ensureInitramfs('686'),
    {
      main: `modprobe virtio_pci; modprobe virtio_net; modprobe af_packet
nic=$(ls /sys/class/net | grep -v lo | head -1)
busybox ip link set $nic up
busybox udhcpc -n -q -i $nic
busybox ip addr show $nic
busybox wget -q -O /tmp/blob http://10.0.2.2:${sitePort}/blob
busybox md5sum </tmp/blob
echo ${END}`,
    },
    {},
    join(folder, 'initrd'),
  );
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  });
  let output = '';
  let console = '';
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${sitePort}/`);
    await page.addScriptTag({ url: '/libv86.js' });
    await page.evaluate(`window.texts = ['', ''];
      window.emulator = new V86({
        wasm_path: '/v86.wasm',
        memory_size: 256 << 20,
        vga_memory_size: 2 << 20,
        bios: { url: '/bios.bin' },
        vga_bios: { url: '/vgabios.bin' },
        bzimage: { url: '/kernel' },
        initrd: { url: '/initrd' },
        cmdline: 'console=ttyS0 panic=-1 tsc=reliable mitigations=off',
        uart1: true,
        net_device: { type: 'virtio', relay_url: 'ws://127.0.0.1:${relayPort}/' },
        autostart: true,
      });
      for (const i of [0, 1]) emulator.add_listener('serial' + i + '-output-byte', (byte) => { texts[i] += String.fromCharCode(byte); });`);
    for (let waits = 0; waits < 400 && !output.includes(END); waits++) {
      await page.waitForTimeout(1000);
      [console, output] = (await page.evaluate('texts')) as [string, string];
    }
  } finally {
    await browser.close();
  }
  const told = `${console.slice(-2000)}\n---\n${output}`;
  expect(output, told).toContain('inet 10.0.2.15/24');
  expect(output, told).toContain(createHash('md5').update(blob).digest('hex'));
}, 500_000);

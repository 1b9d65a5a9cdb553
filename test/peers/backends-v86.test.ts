/**
 * v86 in headless Chromium: Debian's kernel boots in a page, and is saved before it has looked for a NIC; a second page goes on from there. The virtio NIC
 * of each, with a MAC of its own, talks over its page's WebSocket to netemu's switch and the user network behind it: both take a lease and fetch a file
 * from the host, and each reaches the other, page to page across the switch.
 */

import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { nodeBackends } from '../../src/backends/index.ts';
import type { WebsocketStats } from '../../src/backends/websocket-stats.ts';
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

/** A page with a machine in it, and what its serial lines have said. */
class Machine {
  readonly #page: Page;
  console = '';
  output = '';

  constructor(page: Page) {
    this.#page = page;
  }

  static async start(
    browser: Browser,
    sitePort: number,
    relayPort: string,
    saved: boolean,
  ): Promise<Machine> {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${sitePort}/`);
    await page.addScriptTag({ url: '/libv86.js' });
    await page.evaluate(`(async () => {
      window.texts = ['', ''];
      window.emulator = new V86({
        wasm_path: '/v86.wasm',
        memory_size: 256 << 20,
        vga_memory_size: 2 << 20,
        bios: { url: '/bios.bin' },
        vga_bios: { url: '/vgabios.bin' },
        ${saved ? '' : "bzimage: { url: '/kernel' }, initrd: { url: '/initrd' },"}
        cmdline: 'console=ttyS0 panic=-1 tsc=reliable mitigations=off',
        uart1: true,
        net_device: { type: 'virtio', relay_url: 'ws://127.0.0.1:${relayPort}/' },
        autostart: ${!saved},
      });
      for (const i of [0, 1]) emulator.add_listener('serial' + i + '-output-byte', (byte) => { texts[i] += String.fromCharCode(byte); });
      if (${saved}) {
        await new Promise((resolve) => emulator.add_listener('emulator-ready', resolve));
        await emulator.restore_state(await (await fetch('/state')).arrayBuffer());
        emulator.run();
      }
    })()`);
    return new Machine(page);
  }

  /** Looks until the guest has said `text`. */
  async said(text: string): Promise<void> {
    for (let waits = 0; waits < 400; waits++) {
      [this.console, this.output] = (await this.#page.evaluate('texts')) as [string, string];
      if (this.output.includes(text)) return;
      await this.#page.waitForTimeout(500);
    }
    throw new Error(`the guest never said ${text}\n${this.report()}`);
  }

  /** Answers what it asked of its harness. */
  async answer(line: string): Promise<void> {
    const send = `for (const byte of ${JSON.stringify([...Buffer.from(`${line}\n`)])}) emulator.bus.send('serial1-input', byte)`;
    await this.#page.evaluate(send);
  }

  /** Stops it and leaves its state with the site; then it goes on. */
  async save(): Promise<void> {
    await this.#page.evaluate(`(async () => {
      await emulator.stop();
      await fetch('/state', { method: 'POST', body: await emulator.save_state() });
      await emulator.run();
    })()`);
  }

  report(): string {
    return `${this.console.slice(-2000)}\n---\n${this.output}`;
  }
}

it('two pages, each with a guest: leases, a fetched file, and pings from one to the other', async () => {
  const kernel = await ensureKernel('686');
  let state = Buffer.alloc(0);
  const files: Record<string, () => Uint8Array> = {
    '/libv86.js': () => readFileSync(join(ROOT, 'node_modules/v86/build/libv86.js')),
    '/v86.wasm': () => readFileSync(join(ROOT, 'node_modules/v86/build/v86.wasm')),
    '/bios.bin': () => readFileSync('/usr/share/seabios/bios.bin'),
    '/vgabios.bin': () => readFileSync('/usr/share/seabios/vgabios-stdvga.bin'),
    '/kernel': () => readFileSync(kernel.image),
    '/initrd': () => readFileSync(join(folder, 'initrd')),
    '/blob': () => blob,
    '/state': () => state,
  };
  site = createServer((request, response) => {
    if (request.method === 'POST') {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        state = Buffer.concat(parts);
        response.end();
      });
      return;
    }
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
  const relayPort = /listen=127\.0\.0\.1:(\d+)/.exec(network.netdevs.get('w')!.describe())![1]!;
  writeRunImage(
    await ensureInitramfs('686'),
    {
      // Asked for before the NIC's driver is there: each page's guest finds its own page's MAC.
      main: `host save
modprobe virtio_pci; modprobe virtio_net; modprobe af_packet
nic=$(ls /sys/class/net | grep -v lo | head -1)
cat /sys/class/net/$nic/address
busybox ip link set $nic up
busybox udhcpc -n -q -i $nic
busybox ip addr show $nic
busybox wget -q -O /tmp/blob http://10.0.2.2:${sitePort}/blob
busybox md5sum </tmp/blob
other=$(host leased)
busybox ping -c 3 -w 60 $other
host pinged
echo ${END}`,
    },
    {},
    join(folder, 'initrd'),
  );
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  });
  try {
    const one = await Machine.start(browser, sitePort, relayPort, false);
    await one.said('host save');
    await one.save();
    const two = await Machine.start(browser, sitePort, relayPort, true);
    const machines = [one, two];
    for (const machine of machines) await machine.answer('go');
    const addresses: string[] = [];
    for (const machine of machines) {
      await machine.said('host leased');
      const told = machine.report();
      addresses.push(/inet (10\.0\.2\.\d+)\/24/.exec(machine.output)?.[1] ?? told);
      expect(machine.output, told).toContain(createHash('md5').update(blob).digest('hex'));
    }
    expect([...addresses].sort()).toEqual(['10.0.2.15', '10.0.2.16']);
    await one.answer(addresses[1]!);
    await two.answer(addresses[0]!);
    // Neither leaves before the other is done.
    for (const machine of machines) await machine.said('host pinged');
    for (const machine of machines) await machine.answer('done');
    for (const machine of machines) {
      await machine.said(END);
      expect(machine.output, machine.report()).toMatch(/3 packets transmitted, 3 packets received/);
    }
    const stats = network.netdevs.get('w')!.stats as WebsocketStats;
    // Two to one another and back, three times each, never by way of the hub.
    expect(stats.switchedFrames).toBeGreaterThanOrEqual(12);
  } finally {
    await browser.close();
  }
}, 500_000);

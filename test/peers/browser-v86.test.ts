/**
 * The page of examples/browser in headless Chromium, as a person opens it: v86 boots Debian's 686 kernel in it, whose e1000 driver finds netemu's NIC (the portable build,
 * in the page), takes a lease from the netemu that serves the page, pings, and a file comes and goes with the right hash.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { serve } from '../../examples/browser/serve.ts';
import { driverStep, hasEnded, readSteps } from './lib/driver-steps.ts';
import { ensureInitramfs, writeRunImage } from './lib/initramfs.ts';
import { ensureKernel } from './lib/kernel.ts';
import { prepare } from './lib/prepare.ts';
import { startWebServer, type WebServer } from './vfio-user/services.ts';

const FILE_BYTES = 2 << 20;
const folder = mkdtempSync(join(tmpdir(), 'netemu-page-'));
let web: WebServer;

beforeAll(async () => {
  await prepare(['chromium', 'initramfs-686', 'firmware']);
  web = await startWebServer(FILE_BYTES);
});
afterAll(() => {
  web?.close();
  rmSync(folder, { recursive: true });
});

it('Linux in the page uses e1000: lease, ping, a file down and up', async () => {
  const { image } = await ensureKernel('686');
  const initrd = join(folder, 'initrd');
  const steps = { e1000: driverStep('e1000', ['e1000'], { httpPort: web.port }) };
  writeRunImage(await ensureInitramfs('686'), steps, {}, initrd);
  const site = await serve({
    kernel: image,
    initrd,
    append: 'console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on panic=-1',
  });
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  });
  const serial = ['', ''];
  const errors: string[] = [];
  let nicStats: { txFrames: number; rxFrames: number };
  let free: boolean;
  try {
    const page = await browser.newPage();
    page.on('pageerror', (error) => errors.push(String(error)));
    let ended: () => void = () => {};
    const over = new Promise<void>((resolve) => {
      ended = resolve;
    });
    await page.exposeFunction('serialText', (line: 0 | 1, text: string) => {
      serial[line] += text;
      if (line === 1 && hasEnded(serial[1]!, 'e1000')) ended();
    });
    await page.goto(site.url);
    await page.waitForFunction('globalThis.emulator !== undefined', undefined, { timeout: 60_000 });
    await page.evaluate(`for (const line of [0, 1]) {
      let text = '';
      emulator.add_listener('serial' + line + '-output-byte', (byte) => {
        text += String.fromCharCode(byte);
        if (byte !== 10) return;
        serialText(line, text);
        text = '';
      });
    }`);
    const watchdog = setTimeout(() => ended(), 540_000);
    await over;
    clearTimeout(watchdog);
    nicStats = (await page.evaluate('network.netdevs.get("n0").backend.stats')) as typeof nicStats;
    expect(await page.textContent('#status')).toMatch(/^Running\. Frames sent [1-9]/);
    expect(await page.textContent('#console')).toContain('Linux version 6.1');
    free = (await page.evaluate(`(async () => {
      await emulator.destroy();
      network.close();
      network.loop.run();
      return network.pool.free === network.pool.capacity;
    })()`)) as boolean;
  } finally {
    await browser.close();
    site.close();
  }
  const { output, status } = readSteps(serial[1]!).get('e1000') ?? { output: serial[1]!, status: 'none' };
  const said = `${output}\n--- console\n${serial[0]!.slice(-3000)}`;
  expect(status, said).toBe('0');
  expect(output).toMatch(/inet 10\.0\.2\.15\/24/);
  expect(output).toMatch(/3 packets received/);
  expect(output).toContain(web.fileHash);
  expect(output).toContain(`stored ${web.fileHash}`);
  expect(serial[0]).toMatch(/e1000: eth0 NIC Link is Up 1000 Mbps Full Duplex/);
  expect(serial[0]).not.toMatch(/NETDEV WATCHDOG|Detected Tx Unit Hang|nobody cared/);
  expect(errors).toEqual([]);
  expect(nicStats.txFrames).toBeGreaterThan(1000);
  expect(free).toBe(true);
  expect(site.network.pool.free).toBe(site.network.pool.capacity);
});

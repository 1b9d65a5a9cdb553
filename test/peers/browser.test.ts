/** The portable build in a real browser: bundled, loaded into headless Chromium, run. */
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { beforeAll, expect, it } from 'vitest';
import type { PageResult } from './browser/page.ts';
import { prepare } from './lib/prepare.ts';

beforeAll(() => prepare(['chromium']));

it('hub, e1000 and probe guests run in headless Chromium', async () => {
  const bundle = await build({
    entryPoints: [new URL('./browser/page.ts', import.meta.url).pathname],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    logLevel: 'silent',
  });
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  try {
    const page = await browser.newPage();
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    await page.setContent('<!doctype html><title>netemu</title>');
    await page.addScriptTag({ content: bundle.outputFiles[0]!.text });
    const result = (await page.evaluate('netemuPage()')) as PageResult;
    expect(errors).toEqual([]);
    expect(result.ok, result.lines.join('\n')).toBe(true);
    expect(
      result.lines.some((line) => /^client ok .*200.*1000000 bytes/.test(line)),
      result.lines.join('\n'),
    ).toBe(true);
    expect(result.refused).toMatch(/user/);
    expect(result.poolFree).toBe(true);
  } finally {
    await browser.close();
  }
});

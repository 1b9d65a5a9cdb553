/**
 * Real pages in headless Chromium at the websocket netdev's switch: frames as a browser's own WebSocket sends them reach the user network behind it, its
 * answers come back, and two pages reach each other; a page of another origin does not get in.
 */

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeBackends } from '../../src/backends/index.ts';
import type { WebsocketStats } from '../../src/backends/websocket-stats.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { createNativeHostIo, type NativeHostIo } from '../../src/host-io/native.ts';
import { Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';
import { prepare } from './lib/prepare.ts';

const hex = (text: string) =>
  text
    .replace(/[^0-9a-f]/g, '')
    .match(/../g)!
    .map((pair) => Number.parseInt(pair, 16));

/** Who has 10.0.2.2? Asked by 52:54:00:00:00:LAST, 10.0.2.LAST. */
const arpRequest = (last: number) => {
  const mac = `5254000000${last.toString(16).padStart(2, '0')}`;
  const ip = `0a0002${last.toString(16).padStart(2, '0')}`;
  return hex(`ffffffffffff ${mac} 0806 0001 0800 06 04 0001 ${mac} ${ip} 000000000000 0a000202`).concat(
    Array(18).fill(0),
  );
};

const between = (to: number, from: number, text: string) => [
  ...hex(
    `5254000000${to.toString(16).padStart(2, '0')} 5254000000${from.toString(16).padStart(2, '0')} 88b5`,
  ),
  ...new TextEncoder().encode(text.padEnd(46)),
];

describe('websocket, from pages in Chromium', () => {
  let browser: Browser;
  let hostIo: NativeHostIo;
  let network: Network;
  let site: Server;
  let port = 0;
  let stats: WebsocketStats;

  beforeAll(async () => {
    await prepare(['chromium']);
    site = createServer((_request, response) => response.end('<!doctype html><title>page</title>'));
    await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
    const origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
    hostIo = createNativeHostIo();
    network = new Network({
      clock: new SystemClock(() => performance.now()),
      random: seededRandom(1),
      backends: nodeBackends,
      nics,
      hostIo,
    });
    hostIo.drive(network.loop);
    const websocket = await network.addNetdev({
      type: 'websocket',
      id: 'w',
      listen: '127.0.0.1:0',
      origin: [origin],
    });
    stats = websocket.stats as WebsocketStats;
    port = Number(/listen=127\.0\.0\.1:(\d+)/.exec(websocket.describe())![1]);
    await network.addNetdev({ type: 'user', id: 'u' });
    for (const id of ['w', 'u'])
      await network.addNetdev({ type: 'hubport', id: `${id}p`, hubid: 0, netdev: id });
    browser = await chromium.launch({
      executablePath: '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
    });
  }, 300_000);

  afterAll(async () => {
    await browser?.close();
    site.close();
    network.close();
    expect(network.pool.free).toBe(network.pool.capacity);
    hostIo.shutdown();
  });

  /** A page of the site, with its socket open (or refused). */
  async function open(host: string): Promise<[Page, string]> {
    const page = await browser.newPage();
    await page.goto(`http://${host}:${(site.address() as AddressInfo).port}/`);
    const state = await page.evaluate(`new Promise((resolve) => {
      window.frames_ = [];
      window.socket_ = new WebSocket('ws://127.0.0.1:${port}/');
      socket_.binaryType = 'arraybuffer';
      socket_.onmessage = ({ data }) => frames_.push([...new Uint8Array(data)]);
      socket_.onopen = () => resolve('open');
      socket_.onerror = () => resolve('refused');
    })`);
    return [page, state as string];
  }

  const send = (page: Page, frame: number[]) =>
    page.evaluate(`socket_.send(new Uint8Array(${JSON.stringify(frame)}))`);

  /** The first frame of an EtherType that comes to the page. */
  const first = async (page: Page, type: number) =>
    (await page.evaluate(`new Promise((resolve) => {
      const look = () => {
        const found = frames_.find((frame) => frame[12] * 256 + frame[13] === ${type} && frame[0] !== 255);
        if (found) resolve(found); else setTimeout(look, 10);
      };
      look();
    })`)) as number[];

  it('pages reach the user network and one another, and no other origin does', async () => {
    const [[one, a], [two, b]] = [await open('127.0.0.1'), await open('127.0.0.1')];
    expect([a, b]).toEqual(['open', 'open']);
    await send(one, arpRequest(17));
    const answer = await first(one, 0x0806);
    // A reply, from 10.0.2.2, to us.
    expect(answer.slice(20, 22)).toEqual([0, 2]);
    expect(answer.slice(28, 32)).toEqual([10, 0, 2, 2]);
    expect(answer.slice(0, 6)).toEqual(hex('525400000011'));
    await send(two, arpRequest(18));
    await first(two, 0x0806);
    await send(one, between(18, 17, 'hello from one'));
    const heard = await first(two, 0x88b5);
    expect(String.fromCharCode(...heard.slice(14)).trim()).toBe('hello from one');
    await send(two, between(17, 18, 'hello from two'));
    const back = await first(one, 0x88b5);
    expect(String.fromCharCode(...back.slice(14)).trim()).toBe('hello from two');
    expect(stats.switchedFrames).toBeGreaterThanOrEqual(2);
    const [, refused] = await open('localhost');
    expect(refused).toBe('refused');
    expect(stats.refusedOrigin).toBe(1);
  });
});

/** Prometheus text and the server of the live page. */

import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseIpv4 } from '../../src/config/address.ts';
import type { SocketAddress } from '../../src/config/socket-address.ts';
import { type LiveServer, serveLive } from '../../src/monitor/live/server.ts';
import { prometheusText } from '../../src/monitor/prometheus.ts';
import { packet } from '../lib/context.ts';
import { TestMonitor } from './lib.ts';

const tcp = (text: string): SocketAddress => ({
  type: 'inet',
  host: parseIpv4(text)!,
  port: 0,
  lastPort: 0,
  family: undefined,
  keepAlive: false,
});

interface Reply {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

function get(
  where: { port: number } | { socketPath: string },
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', ...where, path, headers, method }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode!, type: response.headers['content-type'] ?? '', body }),
      );
    })
      .on('error', reject)
      .end();
  });
}

describe('counters for others', () => {
  let test: TestMonitor;
  let server: LiveServer | null = null;

  beforeEach(async () => {
    test = new TestMonitor();
    const client = await test.client();
    await client.run('netdev_add', { type: 'user', id: 'n0' });
    await client.run('device_add', { driver: 'e1000', id: 'e0', netdev: 'n0' });
    test.recorders.get('n0')!.send(packet(1), packet(2));
  });
  afterEach(async () => {
    server?.close();
    server = null;
    await test.close();
  });

  it('as Prometheus text: each family once, with its type before its samples', () => {
    const text = prometheusText(test.network, '1.2.3', { residentMemoryBytes: 5 });
    expect(text).toContain('netemu_build_info{version="1.2.3"} 1\n');
    expect(text).toContain('netemu_resident_memory_bytes 5\n');
    expect(text).toContain('netemu_link_up{id="e0",type="e1000",queue="0"} 1\n');
    expect(text).toContain('netemu_queue_sent_frames_total{id="n0",type="user",queue="0"} 2\n');
    expect(text).toContain('# TYPE netemu_pool_free gauge\n');
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map((match) => match[1]);
    expect(new Set(types).size).toBe(types.length);
    let family = '';
    for (const line of text.trimEnd().split('\n')) {
      const [, declared] = /^# TYPE (\S+)/.exec(line) ?? [];
      if (declared !== undefined) family = declared;
      else expect(line).toMatch(new RegExp(`^${family}(\\{([a-z_]+="[^"]*",?)+\\})? -?[0-9.e+]+$`));
    }
  });

  it('as pages of a server on this machine', async () => {
    server = await serveLive(test.network, tcp('127.0.0.1'), '1.2.3');
    const { port } = server;
    expect(await get({ port }, '/metrics')).toMatchObject({
      status: 200,
      type: 'text/plain; version=0.0.4; charset=utf-8',
      body: expect.stringContaining('netemu_running 1\n'),
    });
    expect(await get({ port }, '/?x')).toMatchObject({
      status: 200,
      body: expect.stringContaining('page.js'),
    });
    expect(JSON.parse((await get({ port }, '/network.json')).body)).toMatchObject({
      version: '1.2.3',
      nics: [{ id: 'e0', queues: [{ peer: 'n0' }] }],
    });
    for (const path of ['/page.js', '/page.css']) expect((await get({ port }, path)).status).toBe(200);
    expect(await get({ port }, '/metrics', {}, 'HEAD')).toMatchObject({ status: 200, body: '' });
    expect((await get({ port }, '/nothing')).status).toBe(404);
    expect((await get({ port }, '/__proto__')).status).toBe(404);
    expect((await get({ port }, '/metrics', {}, 'POST')).status).toBe(405);
  });

  it('only to those who mean this machine', async () => {
    server = await serveLive(test.network, tcp('127.0.0.1'), '1.2.3');
    const { port } = server;
    const status = async (headers: Record<string, string>) =>
      (await get({ port }, '/metrics', headers)).status;
    expect(await status({ host: 'evil.example' })).toBe(403);
    expect(await status({ host: `127.0.0.1.evil.example:${port}` })).toBe(403);
    expect(await status({ host: `localhost:${port}` })).toBe(200);
    expect(await status({ origin: 'http://evil.example' })).toBe(403);
    expect(await status({ origin: `http://127.0.0.1:${port}`, host: `127.0.0.1:${port}` })).toBe(200);
    expect(await status({ 'sec-fetch-site': 'cross-site' })).toBe(403);
    await expect(serveLive(test.network, tcp('0.0.0.0'), '')).rejects.toThrow('on a loopback address');
  });

  it('on a unix socket for this user only, which goes with it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'netemu-live-'));
    const path = join(folder, 's');
    server = await serveLive(test.network, { type: 'unix', path }, '1.2.3');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect((await get({ socketPath: path }, '/metrics')).status).toBe(200);
    await expect(serveLive(test.network, { type: 'unix', path }, '')).rejects.toThrow(
      'Address already in use',
    );
    server.close();
    server = null;
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  });
});

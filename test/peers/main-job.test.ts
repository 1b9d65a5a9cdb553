/**
 * The main job on real input: an e1000 driven through its registers, over the user network, to real servers on the host's loopback, and
 * real clients through forwards; all of it captured, and the capture read by tshark.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type Server } from 'node:http';
import { type AddressInfo, createServer, type Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { netemu, RunningNetemu } from './lib/netemu.ts';
import { prepare } from './lib/prepare.ts';

const BIG_BYTES = 256 << 20;
const SMALL_BYTES = 1 << 20;
const E1000 = ['--netdev', 'user,id=n0', '--device', 'e1000,netdev=n0'];

let folder: string;
let http: Server;
let resetting: NetServer;
let httpPort: number;
let resetPort: number;
const sha256 = new Map<string, string>();

function makeFile(name: string, bytes: number): void {
  const content = randomBytes(bytes);
  writeFileSync(join(folder, name), content);
  sha256.set(name, createHash('sha256').update(content).digest('hex'));
}

beforeAll(async () => {
  await prepare(['tshark', 'tools']);
  folder = mkdtempSync(join(tmpdir(), 'netemu-main-'));
  makeFile('big', BIG_BYTES);
  makeFile('small', SMALL_BYTES);
  http = createHttpServer((request, response) => {
    const name = request.url!.slice(1);
    if (request.method === 'PUT') {
      const hash = createHash('sha256');
      request.on('data', (chunk: Buffer) => hash.update(chunk));
      request.on('end', () => {
        sha256.set(name, hash.digest('hex'));
        response.end('thanks\n');
      });
    } else if (sha256.has(name)) {
      response.setHeader('content-length', name === 'big' ? BIG_BYTES : SMALL_BYTES);
      createReadStream(join(folder, name), { highWaterMark: 1 << 20 }).pipe(response);
    } else {
      response.statusCode = 404;
      response.end();
    }
  });
  resetting = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => socket.resetAndDestroy());
  });
  const listen = (server: NetServer | Server): Promise<number> =>
    new Promise((resolve) => {
      server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
    });
  httpPort = await listen(http);
  resetPort = await listen(resetting);
});

afterAll(() => {
  http.close();
  resetting.close();
  rmSync(folder, { recursive: true });
});

describe('the main job', () => {
  it('comes up, tells each step with its time, stays until Ctrl-C and exits 0', async () => {
    const running = new RunningNetemu(E1000);
    const time = String.raw`\([0-9.]+ (us|ms|s)\)`;
    await running.until(new RegExp(`link up 1000 Mb/s full duplex ${time}`));
    await running.until(
      new RegExp(
        `DHCP lease 10\\.0\\.2\\.15/24 from 10\\.0\\.2\\.2, router 10\\.0\\.2\\.2, DNS 10\\.0\\.2\\.3 ${time}`,
      ),
    );
    await running.until(new RegExp(`ping 10\\.0\\.2\\.2: .* ${time}`));
    await running.until(new RegExp(`DNS 10\\.0\\.2\\.3.* ${time}`));
    expect((await running.stop()).status).toBe(0);
  });

  it('exits 0 by itself with probe,once', async () => {
    expect(await netemu([...E1000, '--guest', 'probe,once'])).toMatchObject({ status: 0 });
  });

  it('fetches 256 MiB through the rings, with the right hash', async () => {
    const { status, output } = await netemu([
      ...E1000,
      '--guest',
      `probe,once,get=http://10.0.2.2:${httpPort}/big`,
    ]);
    expect(output).toMatch(
      new RegExp(`GET .*: 200 OK, ${BIG_BYTES} bytes, sha256 ${sha256.get('big')} \\([0-9.]+ m?s\\)`),
    );
    expect(status).toBe(0);
  });

  it('uploads 256 MiB, with the right hash', async () => {
    const guest = `probe,once,put=http://10.0.2.2:${httpPort}/uploaded,file=${folder}/big`;
    const { status, output } = await netemu([...E1000, '--guest', guest]);
    expect(output).toContain(`${BIG_BYTES} bytes, sha256 ${sha256.get('big')}`);
    expect(sha256.get('uploaded')).toBe(sha256.get('big'));
    expect(status).toBe(0);
  });

  it('fetches over 200 connections at once', async () => {
    const guest = `probe,once,get=http://10.0.2.2:${httpPort}/small,parallel=200,expect-sha256=${sha256.get('small')}`;
    const { status, output } = await netemu([...E1000, '--guest', guest]);
    expect(output).toMatch(/x200: 200 times 200 OK/);
    expect(status).toBe(0);
  });

  it('shows a reset, a refusal and an unreachable host as what they are', async () => {
    const get = (url: string, options = {}) =>
      netemu([...E1000, '--guest', `probe,once,get=${url}`], options);
    const reset = await get(`http://10.0.2.2:${resetPort}/`);
    expect(reset.output).toContain('connection reset by');
    expect(reset.status).toBe(1);
    const refused = await get('http://10.0.2.2:1/');
    expect(refused.output).toContain('connection refused by');
    expect(refused.status).toBe(1);
    // A namespace with a loopback and nothing else: the host has no route to anywhere.
    const namespace = `netemu-${process.pid}`;
    execFileSync('ip', ['netns', 'add', namespace]);
    try {
      execFileSync('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
      const unreachable = await get('http://192.0.2.1/', { namespace });
      expect(unreachable.output).toMatch(/(network|host) unreachable/);
      expect(unreachable.status).toBe(1);
    } finally {
      execFileSync('ip', ['netns', 'delete', namespace]);
    }
  });

  it('runs by the portable I/O as well', async () => {
    const guest = `probe,once,get=http://10.0.2.2:${httpPort}/small`;
    const running = new RunningNetemu([...E1000, '--guest', guest], { env: { NETEMU_HOST_IO: 'portable' } });
    const { status, output } = await running.finished;
    expect(output).toContain(`sha256 ${sha256.get('small')}`);
    expect(status).toBe(0);
  });
});

describe('forwards and captures', () => {
  it('curl reaches the guest by the port that the host chose, and tshark finds nothing wrong in the capture', async () => {
    const file = join(folder, 'all.pcap');
    const running = new RunningNetemu([
      '--netdev',
      'user,id=n0,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.1:0-:7',
      '--device',
      'e1000,netdev=n0',
      '--object',
      `filter-dump,id=f0,netdev=n0,file=${file}`,
      '--guest',
      `probe,http=80,echo=7,get=http://10.0.2.2:${httpPort}/small,put=http://10.0.2.2:${httpPort}/again,size=3M`,
    ]);
    const [, web] = await running.until(/forwarding tcp (127\.0\.0\.1:\d+) to 10\.0\.2\.15:80/);
    await running.until(/GET .* sha256/);
    await running.until(/PUT .* sha256/);
    const curl = (...args: string[]) =>
      spawnSync('curl', ['-sS', '--max-time', '60', ...args], { maxBuffer: 64 << 20 });
    expect(curl(`http://${web}/`).stdout.toString()).toContain('hello');
    expect(curl(`http://${web}/bytes/5000000`).stdout.length).toBe(5_000_000);
    expect(curl('-T', join(folder, 'small'), `http://${web}/up`).stdout.toString()).toContain(
      sha256.get('small'),
    );
    expect((await running.stop()).status).toBe(0);

    const tshark = (...args: string[]) =>
      spawnSync(
        'tshark',
        [
          '-r',
          file,
          '-o',
          'tcp.check_checksum:TRUE',
          '-o',
          'ip.check_checksum:TRUE',
          '-o',
          'udp.check_checksum:TRUE',
          // All of it is HTTP, whatever other protocol a port of the moment may belong to.
          '-d',
          'tcp.port==1024-65535,http',
          ...args,
        ],
        {
          encoding: 'utf8',
          maxBuffer: 64 << 20,
        },
      ).stdout;
    const bad =
      '_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0';
    expect(tshark('-Y', bad)).toBe('');
    // Warnings and errors, whatever their protocol: none. (A sender that uses the whole window it was given is no fault.)
    expect(tshark('-Y', '_ws.expert.severity >= 0x00600000 && !tcp.analysis.window_full')).toBe('');
    expect(tshark('-Y', 'http.response.code == 200').trim().split('\n').length).toBeGreaterThanOrEqual(5);
  });
});

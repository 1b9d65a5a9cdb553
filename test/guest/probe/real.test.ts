import { createHash, randomBytes } from 'node:crypto';
import { createServer, get, type Server } from 'node:http';
import {
  type AddressInfo,
  connect,
  createServer as createTcpServer,
  type Server as TcpServer,
} from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { RealNet } from './real-net.ts';

/** Prime, so that no segment or slot boundary falls on its end. */
const BIG_BYTES = 8_388_617;

describe('e1000 and user netdev against real servers on the loopback', () => {
  const big = randomBytes(BIG_BYTES);
  const bigHash = createHash('sha256').update(big).digest('hex');
  const uploads: { bytes: number; hash: string }[] = [];
  let server: Server;
  let rude: TcpServer;
  let port = 0;
  let rudePort = 0;
  let closedPort = 0;

  beforeAll(async () => {
    server = createServer((request, response) => {
      if (request.url === '/chunked') {
        response.write(big.subarray(0, 100_000));
        response.end(big.subarray(100_000));
      } else if (request.method === 'GET') response.end(big);
      else {
        const hash = createHash('sha256');
        let bytes = 0;
        request.on('data', (data: Buffer) => {
          hash.update(data);
          bytes += data.length;
        });
        request.on('end', () => {
          uploads.push({ bytes, hash: hash.digest('hex') });
          response.writeHead(201).end();
        });
      }
    });
    rude = createTcpServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.resetAndDestroy());
    });
    const gone = createTcpServer();
    const portOf = (listener: Server | TcpServer): Promise<number> =>
      new Promise((resolve) => {
        listener.listen(0, '127.0.0.1', () => resolve((listener.address() as AddressInfo).port));
      });
    port = await portOf(server);
    rudePort = await portOf(rude);
    closedPort = await portOf(gone);
    await new Promise((resolve) => gone.close(resolve));
  });

  afterAll(() => {
    server.closeAllConnections();
    server.close();
    rude.close();
  });

  test('comes up: lease, gateway, resolver asked', async () => {
    const net = new RealNet('probe,once');
    const result = await net.done;
    expect(result).toEqual({ ok: true, failures: [] });
    expect(net.told('dhcp')).toEqual([
      'DHCP lease 10.0.2.15/24 from 10.0.2.2, router 10.0.2.2, DNS 10.0.2.3',
    ]);
    expect(net.told('gateway')[0]).toMatch(/^ping 10\.0\.2\.2: [\d.]+ (ms|us)$/);
    expect(net.told('dns')).toHaveLength(1);
    expect(net.close()).toBe(0);
  });

  test.each(['/big', '/chunked'])('GET %s has the right hash', async (path) => {
    const net = new RealNet(`probe,once,get=http://10.0.2.2:${port}${path},expect-sha256=${bigHash}`);
    expect(await net.done).toEqual({ ok: true, failures: [] });
    expect(net.told('get')).toEqual([
      `GET http://10.0.2.2:${port}${path}: 200 OK, ${BIG_BYTES} bytes, sha256 ${bigHash}`,
    ]);
    expect(net.close()).toBe(0);
  });

  test('PUT arrives with the hash that is told', async () => {
    const net = new RealNet(`probe,once,put=http://10.0.2.2:${port}/up,size=5000011`);
    expect((await net.done).ok).toBe(true);
    const { bytes, hash } = uploads.at(-1)!;
    expect(bytes).toBe(5_000_011);
    expect(net.told('put')).toEqual([
      `PUT http://10.0.2.2:${port}/up: 201 Created, 5000011 bytes, sha256 ${hash}`,
    ]);
    expect(net.close()).toBe(0);
  });

  test('20 connections at once', async () => {
    const net = new RealNet(
      `probe,once,get=http://10.0.2.2:${port}/,parallel=20,expect-sha256=${bigHash}`,
      undefined,
      {
        createSha256: () => createHash('sha256'),
      },
    );
    expect((await net.done).ok).toBe(true);
    expect(net.close()).toBe(0);
  });

  test('a server that resets, a port that refuses, a host that is not there', async () => {
    const urls = [`10.0.2.2:${rudePort}`, `10.0.2.2:${closedPort}`, '10.0.2.99:80'];
    const net = new RealNet(`probe,once,${urls.map((url) => `get=http://${url}/`).join(',')}`);
    expect((await net.done).ok).toBe(false);
    expect(net.told('get').sort()).toEqual(
      [
        `GET http://${urls[0]}/: connection reset by ${urls[0]} after 0 bytes`,
        `GET http://${urls[1]}/: connection refused by ${urls[1]}`,
        `GET http://${urls[2]}/: host unreachable: ${urls[2]}`,
      ].sort(),
    );
    expect(net.close()).toBe(0);
  });

  test('hostfwd: the host reaches the HTTP and the echo service', async () => {
    const net = new RealNet(
      'probe,http=80,echo=7',
      'user,id=n0,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.1:0-:7',
    );
    const [http, echo] = net.backend.forwards.list().map(({ port: chosen }) => chosen);
    const body = await new Promise<Buffer>((resolve, reject) => {
      get({ host: '127.0.0.1', port: http, path: '/bytes/300000' }, (response) => {
        const parts: Buffer[] = [];
        response.on('data', (data: Buffer) => parts.push(data));
        response.on('end', () => resolve(Buffer.concat(parts)));
      }).on('error', reject);
    });
    expect(body.length).toBe(300_000);
    expect(body.readUInt32LE(4)).toBe((Math.imul(1, 0x9e3779b1) ^ (Math.imul(1, 0x9e3779b1) >>> 15)) >>> 0);
    const sent = big.subarray(0, 500_000);
    const echoed = await new Promise<Buffer>((resolve, reject) => {
      const parts: Buffer[] = [];
      const socket = connect(echo, '127.0.0.1', () => socket.end(sent));
      socket.on('data', (data) => parts.push(data));
      socket.on('end', () => resolve(Buffer.concat(parts)));
      socket.on('error', reject);
    });
    expect(echoed.equals(sent)).toBe(true);
    expect(net.close()).toBe(0);
  });
});

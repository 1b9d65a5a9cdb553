/**
 * What the host has for the clients of a user network: web servers of both families, a name server, files for TFTP and a share, an echo of
 * datagrams, iperf3, ports that are open and ports that are not. All of it on this machine's loopback, all of it ended by `close`.
 */

import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DnsServer } from './dns-server.ts';
import { Iperf } from './iperf.ts';
import { freePort, listen, sha } from './servers.ts';

/** All of 127/8 is this machine: an address whose port 53 nobody has. */
const DNS_ADDRESS = '127.77.0.53';
const PART_BYTES = 1 << 20;
const BOOT_BYTES = 1_500_001;

export class UserServices {
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-user-'));
  readonly share = join(this.folder, 'share');
  readonly dns = new DnsServer();
  readonly bootSha: string;
  /** By path. */
  readonly uploads = new Map<string, string>();
  httpPort = 0;
  http6Port = 0;
  /** Ports of 127.0.0.1 where somebody listens, and where nobody does. */
  readonly openPorts: number[] = [];
  readonly closedPorts: number[] = [];
  echoPort = 0;
  readonly #part = randomBytes(PART_BYTES);
  readonly #echo = createSocket('udp4');
  readonly #http: HttpServer[] = [];
  readonly #listeners: Server[] = [];
  #iperf: Iperf | null = null;

  static async start(): Promise<UserServices> {
    const services = new UserServices();
    await services.#start();
    return services;
  }

  private constructor() {
    mkdirSync(this.share);
    mkdirSync(join(this.folder, 'tftp'));
    const boot = randomBytes(BOOT_BYTES);
    writeFileSync(join(this.folder, 'tftp/boot.img'), boot);
    this.bootSha = sha(boot);
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(this.folder, 'host-key')]);
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(this.folder, 'user-key')]);
  }

  /** What the user netdev is to be given for this; a forward of the host's choice to ports 2222 of the guest, by IPv4 and IPv6. */
  netdevOptions(guest6: string): string {
    return [
      `dns-upstream=${this.dns.address},tftp=${this.folder}/tftp,smb=${this.share}`,
      'hostname=guest,domainname=net.test,dnssearch=net.test,dnssearch=other.test',
      `hostfwd=tcp:127.0.0.1:0-:2222,hostfwd=tcp:[::1]:0-[${guest6}]:2222`,
      'egress=deny:tcp:203.0.113.0/24',
    ].join(',');
  }

  /** The hash of what GET /N serves: N bytes. */
  hashOf(bytes: number): string {
    const hash = createHash('sha256');
    for (let at = 0; at < bytes; at += PART_BYTES) hash.update(this.#part.subarray(0, bytes - at));
    return hash.digest('hex');
  }

  key(name: 'host-key' | 'user-key' | 'user-key.pub'): string {
    return readFileSync(join(this.folder, name), 'latin1');
  }

  get keyFile(): string {
    return join(this.folder, 'user-key');
  }

  /** Resolves with the port once a test can begin. */
  async iperf(): Promise<number> {
    this.#iperf ??= await Iperf.start();
    return await this.#iperf.next();
  }

  async close(): Promise<void> {
    for (const server of this.#http) {
      server.closeAllConnections();
      server.close();
    }
    for (const server of this.#listeners) server.close();
    this.#echo.close();
    this.dns.close();
    await this.#iperf?.close();
    // smbd's processes end with their connections.
    rmSync(this.folder, { recursive: true, maxRetries: 5 });
  }

  async #start(): Promise<void> {
    this.httpPort = await listen(this.#fileServer(), '127.0.0.1');
    this.http6Port = await listen(this.#fileServer(), '::1');
    await this.dns.listen(DNS_ADDRESS, 53);
    for (let i = 0; i < 5; i++) {
      const server = createServer((socket) => socket.on('error', () => {}).end());
      this.#listeners.push(server);
      this.openPorts.push(await listen(server, '127.0.0.1'));
    }
    this.closedPorts.push(await freePort(), await freePort(), 1, 9, 65_535);
    this.#echo.on('message', (message, { address, port }) => this.#echo.send(message, port, address));
    await new Promise<void>((resolve) => this.#echo.bind(0, '127.0.0.1', resolve));
    this.echoPort = this.#echo.address().port;
  }

  /** GET /N: N bytes. PUT: the hash of what came, in `uploads`. */
  #fileServer(): HttpServer {
    const server = createHttpServer((request, response) => {
      if (request.method === 'PUT') {
        const hash = createHash('sha256');
        request.on('data', (chunk: Buffer) => hash.update(chunk));
        request.on('end', () => {
          this.uploads.set(request.url!, hash.digest('hex'));
          response.end();
        });
        return;
      }
      let left = Number(request.url!.slice(1));
      response.setHeader('content-length', left);
      const more = (): void => {
        while (left > 0) {
          const part = this.#part.subarray(0, left);
          left -= part.length;
          if (!response.write(part)) return;
        }
        response.end();
      };
      response.on('drain', more);
      more();
    });
    this.#http.push(server);
    return server;
  }
}

/**
 * The user network as the network of a namespace (`netemu netns`): what people run, against servers on this machine's loopback. Every byte that
 * is moved is hashed at both ends.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createReadStream, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type Server } from 'node:http';
import { createServer, type Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture } from './lib/command.ts';
import { ANSWER_V4, ANSWER_V6, DnsServer, LONG_STRINGS } from './lib/dns-server.ts';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { freePort, listen, sha } from './lib/servers.ts';

const MAIN = new URL('../../dist/cli/main.js', import.meta.url).pathname;
const BIG_BYTES = 256 << 20;
/** All of 127/8 is this machine: an address whose port 53 nobody has. */
const DNS_ADDRESS = '127.77.0.53';

const folder = mkdtempSync(join(tmpdir(), 'netemu-user-'));
const dns = new DnsServer();
const uploads = new Map<string, string>();
let bigSha: string;
let bootSha: string;
const http: Server[] = [];
let httpPort = 0;
let http6Port = 0;
/** Ports of 127.0.0.1: somebody listens, nobody does. */
let openPort = 0;
let closedPort = 0;
let listener: NetServer;
let shell: NetnsShell;

function fileServer(): Server {
  const server = createHttpServer((request, response) => {
    if (request.method !== 'PUT') {
      response.setHeader('content-length', BIG_BYTES);
      createReadStream(join(folder, 'big'), { highWaterMark: 1 << 20 }).pipe(response);
      return;
    }
    const hash = createHash('sha256');
    request.on('data', (chunk: Buffer) => hash.update(chunk));
    request.on('end', () => {
      uploads.set(request.url!, hash.digest('hex'));
      response.end();
    });
  });
  http.push(server);
  return server;
}

interface Ended {
  status: number;
  stdout: string;
  stderr: string;
}

/** Runs netemu netns to its end, while the servers of this process go on serving. */
const netns = (...args: string[]): Promise<Ended> => capture(process.execPath, [MAIN, 'netns', ...args]);

beforeAll(async () => {
  await prepare(['tools', 'network-clients']);
  const big = randomBytes(BIG_BYTES);
  writeFileSync(join(folder, 'big'), big);
  bigSha = sha(big);
  mkdirSync(join(folder, 'tftp'));
  const boot = randomBytes(1_500_001);
  writeFileSync(join(folder, 'tftp/boot.img'), boot);
  bootSha = sha(boot);
  httpPort = await listen(fileServer(), '127.0.0.1');
  http6Port = await listen(fileServer(), '::1');
  await dns.listen(DNS_ADDRESS, 53);
  listener = createServer((socket) => socket.end());
  openPort = await listen(listener, '127.0.0.1');
  closedPort = await freePort();
  const forwards = [
    'hostfwd=tcp:127.0.0.1:0-:8000',
    'hostfwd=tcp:[::1]:0-[fec0::15]:8000',
    'hostfwd=udp:127.0.0.1:0-:8001',
  ].join(',');
  shell = new NetnsShell([
    '--netdev',
    `user,dns-upstream=${DNS_ADDRESS},tftp=${folder}/tftp,domainname=net.test,${forwards}`,
  ]);
});

afterAll(async () => {
  await shell.close();
  for (const server of [...http, listener, dns]) server.close();
  rmSync(folder, { recursive: true });
});

describe('transfers', () => {
  it('curl fetches and uploads 256 MiB by IPv4', async () => {
    const url = `http://10.0.2.2:${httpPort}`;
    const down = await shell.run(`curl -sS ${url}/big | sha256sum`);
    expect(down.output).toBe(`${bigSha}  -\n`);
    expect(await shell.run(`curl -sS -T ${folder}/big ${url}/v4`)).toEqual({ status: 0, output: '' });
    expect(uploads.get('/v4')).toBe(bigSha);
  });

  it('curl fetches and uploads 256 MiB by IPv6', async () => {
    const url = `http://[fec0::2]:${http6Port}`;
    const down = await shell.run(`curl -g -sS '${url}/big' | sha256sum`);
    expect(down.output).toBe(`${bigSha}  -\n`);
    expect(await shell.run(`curl -g -sS -T ${folder}/big '${url}/v6'`)).toEqual({ status: 0, output: '' });
    expect(uploads.get('/v6')).toBe(bigSha);
  });

  it('the same with an MTU of 1500', async () => {
    const url = `http://10.0.2.2:${httpPort}`;
    const script = `cat /sys/class/net/tap0/mtu 2>/dev/null; ip link show tap0 | grep -o 'mtu [0-9]*'
      curl -sS ${url}/big | sha256sum`;
    const { stdout, status } = await netns('--mtu', '1500', '--', 'sh', '-c', script);
    expect(stdout).toContain('mtu 1500\n');
    expect(stdout).toContain(bigSha);
    expect(status).toBe(0);
  });

  it('tftp reads a file in blocks of 512, 1428 and 8192 bytes', async () => {
    const out = `${folder}/got`;
    for (const size of ['', '-b 1428', '-b 8192']) {
      const { output, status } = await shell.run(
        `busybox tftp -g ${size} -r boot.img -l ${out} 10.0.2.2 && sha256sum <${out}`,
      );
      expect(output).toContain(bootSha);
      expect(status).toBe(0);
    }
    const { output } = await shell.run(`tftp -m binary 10.0.2.2 -c get boot.img ${out} && sha256sum <${out}`);
    expect(output).toContain(bootSha);
    const missing = await shell.run(`busybox tftp -g -r none -l ${out} 10.0.2.2`);
    expect(missing.output).toMatch(/not found/i);
    expect(missing.status).not.toBe(0);
  });
});

describe('names and leases', () => {
  it('dig asks over UDP and TCP, both families, and by resolv.conf', async () => {
    const { output } = await shell.run(`dig +short name.test
      dig +short AAAA name.test
      dig +short +tcp name.test
      dig +short @fec0::3 name.test
      dig +short +tcp @fec0::3 name.test`);
    expect(output.trim().split('\n')).toEqual([ANSWER_V4, ANSWER_V6, ANSWER_V4, ANSWER_V4, ANSWER_V4]);
    expect(dns.tcpQueries).toBe(2);
    expect(dns.udpQueries).toBeGreaterThanOrEqual(3);
  });

  it('an answer too long for a datagram comes by TCP; a name that is not there is not there', async () => {
    const before = dns.tcpQueries;
    const long = await shell.run('dig +noedns +short TXT long.test');
    expect(long.output.match(/x{200}/g)).toHaveLength(LONG_STRINGS);
    expect(dns.tcpQueries).toBe(before + 1);
    expect((await shell.run('dig nowhere.test')).output).toContain('status: NXDOMAIN');
    expect((await shell.run('getent ahostsv4 name.test')).output).toContain(ANSWER_V4);
  });

  it('udhcpc gets a lease', async () => {
    writeFileSync(join(folder, 'lease'), '#!/bin/sh\necho "$1 $ip/$mask $router $dns $domain $mtu"\n', {
      mode: 0o755,
    });
    const { output, status } = await shell.run(
      `busybox udhcpc -i tap0 -n -q -f -O mtu -O domain -s ${folder}/lease`,
    );
    expect(output).toContain('bound 10.0.2.15/24 10.0.2.2 10.0.2.3 net.test 65520');
    expect(status).toBe(0);
  });
});

describe('errors and states, as the host has them', () => {
  it('ping reaches the gateway by both families, with payloads up to 20,000 bytes', async () => {
    for (const target of ['10.0.2.2', 'fec0::2', '-s 20000 10.0.2.2', '-s 20000 fec0::2'])
      expect((await shell.run(`ping -c 2 -i 0.01 -W 20 ${target}`)).output).toContain(
        '2 received, 0% packet loss',
      );
  });

  it('a packet that lives one hop too short comes back as an error', async () => {
    const { output } = await shell.run('ping -c 1 -t 1 -W 20 192.0.2.1');
    expect(output).toMatch(/From 10\.0\.2\.2 .*Time to live exceeded/);
    const six = await shell.run('ping -6 -c 1 -t 1 -W 20 2001:db8::1');
    expect(six.output).toMatch(/From fec0::2.* Time exceeded: Hop limit/);
    const trace = await shell.run('traceroute -n -q 1 -m 1 -w 20 192.0.2.1');
    expect(trace.output).toMatch(/^ 1 {2}10\.0\.2\.2 {2}[\d.]+ ms$/m);
  });

  it('a connect scan sees which ports are open', async () => {
    const scan = (port: number) => shell.run(`nc -n -v -z -w 20 10.0.2.2 ${port}`);
    for (const port of [openPort, httpPort]) {
      expect(await scan(port)).toEqual({ status: 0, output: expect.stringContaining('succeeded') as string });
    }
    for (const port of [closedPort, 1])
      expect(await scan(port)).toEqual({ status: 1, output: expect.stringContaining('refused') as string });
    // No family of the host's listens there, the other does.
    expect((await shell.run(`nc -n -v -z -w 20 fec0::2 ${httpPort}`)).output).toContain('refused');
    expect((await shell.run(`nc -n -v -z -w 20 fec0::2 ${http6Port}`)).output).toContain('succeeded');
  });

  it('a datagram to a port that nobody has is refused', async () => {
    const { output } = await shell.run(`dig +tries=1 +timeout=20 -p ${closedPort} @10.0.2.2 name.test`);
    expect(output).toContain('connection refused');
  });
});

describe('forwards', () => {
  it('servers in the namespace are reached by ports that the host chose', async () => {
    const ports = [...shell.said.matchAll(/forwarding (tcp|udp) (\S+:\d+) to/g)].map(([, , place]) => place!);
    expect(ports).toHaveLength(3);
    const [tcp4, tcp6, udp] = ports as [string, string, string];
    writeFileSync(
      join(folder, 'servers.cjs'),
      `const fs = require('node:fs');
      const udp = require('node:dgram').createSocket('udp4', (message, { port, address }) => udp.send('from ' + address + ': ' + message, port, address));
      const http = require('node:http').createServer((request, response) => {
        if (request.url === '/end') { response.end('bye'); udp.close(); http.close(); http.closeAllConnections(); }
        else fs.createReadStream('${folder}/big').pipe(response);
      });
      udp.bind(8001, () => http.listen(8000, '::', () => console.log('ready')));`,
    );
    const { output } = await shell.run(
      `mkfifo ${folder}/fifo; ${process.execPath} ${folder}/servers.cjs >${folder}/fifo & read line <${folder}/fifo; echo $line`,
    );
    expect(output).toBe('ready\n');
    const curl = (url: string) => execFileSync('curl', ['-g', '-sS', url], { maxBuffer: 2 * BIG_BYTES });
    expect(sha(curl(`http://${tcp4}/`))).toBe(bigSha);
    expect(sha(curl(`http://${tcp6}/`))).toBe(bigSha);
    const client = createSocket('udp4');
    const answer = new Promise<Buffer>((resolve) => client.once('message', resolve));
    client.send('hello', Number(udp.split(':')[1]), '127.0.0.1');
    expect((await answer).toString()).toBe('from 10.0.2.2: hello');
    client.close();
    expect(curl(`http://${tcp4}/end`).toString()).toBe('bye');
  });
});

describe('the command', () => {
  it("has netemu's standard streams, and its status is netemu's", async () => {
    const run = spawnSync(
      process.execPath,
      [MAIN, 'netns', '--', 'sh', '-c', 'cat; echo error >&2; exit 7'],
      {
        encoding: 'utf8',
        input: 'input',
      },
    );
    expect(run).toMatchObject({ status: 7, stdout: 'input', stderr: 'error\n' });
    expect((await netns('--', 'sh', '-c', 'kill -9 $$')).status).toBe(137);
    expect(await netns('--', '/none')).toMatchObject({
      status: 127,
      stderr: expect.stringContaining('/none'),
    });
  });

  it('sees one interface, and names by netemu alone; the rest of the machine stays as it is', async () => {
    const interfaces = execFileSync('ip', ['-o', 'link']).toString();
    const mounts = execFileSync('cat', ['/proc/mounts']).toString();
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith('netemu-netns-'));
    const { stdout } = await netns('--ifname', 'eth7', '--', 'sh', '-c', 'ip -o link; cat /etc/resolv.conf');
    expect(stdout.match(/^\d+: (\S+):/gm)).toEqual(['1: lo:', '2: eth7:']);
    expect(stdout).toContain('nameserver 10.0.2.3\nnameserver fec0::3\n');
    expect(execFileSync('ip', ['-o', 'link']).toString()).toBe(interfaces);
    expect(execFileSync('cat', ['/proc/mounts']).toString()).toBe(mounts);
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith('netemu-netns-'))).toEqual(before);
  });

  it('restrict=on lets nothing out, loopback=off nothing to this machine', async () => {
    const url = `http://10.0.2.2:${httpPort}/`;
    const restricted = await netns('--netdev', 'user,restrict=on', '--', 'curl', '-sS', '-m', '20', url);
    expect(restricted.status).not.toBe(0);
    const closed = await netns('--netdev', 'user,loopback=off', '--', 'curl', '-sS', '-m', '20', url);
    expect(closed.status).not.toBe(0);
    expect(restricted.stdout + closed.stdout).toBe('');
  });

  it('runs for an ordinary user, in a user namespace', async () => {
    // Where /dev/net/tun is root's alone, as on some servers, one that is not stands in its place for this test.
    const script = `mknod -m 666 '${folder}/tun' c 10 200 && mount --bind '${folder}/tun' /dev/net/tun && chmod 755 '${folder}' &&
      exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/ ${process.execPath} ${MAIN} netns -- \
        sh -c 'id -u; ping -q -c 1 -W 20 10.0.2.2; curl -sS http://10.0.2.2:${httpPort}/ | sha256sum'`;
    const { stdout, stderr, status } = await capture('unshare', ['--mount', 'sh', '-c', script]);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^0\n/);
    expect(stdout).toContain('1 received');
    expect(stdout).toContain(bigSha);
    expect(status).toBe(0);
  });

  it('says in one line what cannot be', async () => {
    const line = async (...args: string[]) => {
      const { status, stdout, stderr } = await netns(...args);
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
      return stderr;
    };
    expect(await line('--mtu', '100', '--', 'true')).toBe(
      "netemu: --mtu 100: Parameter 'mtu' expects a number of bytes from 1280 to 65520\n",
    );
    expect(await line('--mtu', '1500', '--netdev', 'user,mtu=9000', '--', 'true')).toBe(
      'netemu: --mtu 1500: the netdev says mtu=9000\n',
    );
    expect(await line('--netdev', 'tap,id=t', '--', 'true')).toBe(
      "netemu: --netdev tap,id=t: a namespace's netdev is of type 'user', not 'tap'\n",
    );
    expect(await line('--device', 'e1000', '--', 'true')).toBe(
      'netemu: --device e1000: has no place in netns: the namespace is the guest\n',
    );
    expect(await line('--monitor', 'stdio', '--', 'true')).toBe(
      "netemu: standard input and output are the command's own\n",
    );
    expect(await line('--')).toBe("netemu: there is no command behind '--'\n");
  });
});

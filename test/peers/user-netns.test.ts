/**
 * The user network as the network of a namespace (`netemu netns`): the command itself, its forwards, and what it does with an MTU, names and ports.
 * What real clients make of the network is in user-clients.test.ts. Every byte that is moved is hashed at both ends.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture } from './lib/command.ts';
import { ANSWER_V4 } from './lib/dns-server.ts';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { sha } from './lib/servers.ts';
import { UserServices } from './lib/user-services.ts';

const MAIN = new URL('../../dist/cli/main.js', import.meta.url).pathname;
const BIG_BYTES = 256 << 20;

let services: UserServices;
let folder: string;
let bigSha: string;
let shell: NetnsShell;

interface Ended {
  status: number;
  stdout: string;
  stderr: string;
}

/** Runs netemu netns to its end, while the servers of this process go on serving. */
const netns = (...args: string[]): Promise<Ended> => capture(process.execPath, [MAIN, 'netns', ...args]);

beforeAll(async () => {
  await prepare(['tools', 'network-clients']);
  services = await UserServices.start();
  ({ folder } = services);
  const big = randomBytes(BIG_BYTES);
  writeFileSync(join(folder, 'big'), big);
  bigSha = sha(big);
  const forwards = [
    'hostfwd=tcp:127.0.0.1:0-:8000',
    'hostfwd=tcp:[::1]:0-[fec0::15]:8000',
    'hostfwd=udp:127.0.0.1:0-:8001',
  ].join(',');
  shell = new NetnsShell(['--netdev', `user,dns-upstream=${services.dns.address},${forwards}`]);
});

afterAll(async () => {
  await shell?.close();
  await services?.close();
});

describe('transfers', () => {
  it('curl fetches 256 MiB with an MTU of 1500', async () => {
    const script = `ip link show tap0 | grep -o 'mtu [0-9]*'
      curl -sS http://10.0.2.2:${services.httpPort}/${BIG_BYTES} | sha256sum`;
    const { stdout, status } = await netns('--mtu', '1500', '--', 'sh', '-c', script);
    expect(stdout).toBe(`mtu 1500\n${services.hashOf(BIG_BYTES)}  -\n`);
    expect(status).toBe(0);
  });
});

describe('names', () => {
  it("are asked of the network's own server", async () => {
    expect((await shell.run('getent ahostsv4 name.test')).output).toContain(ANSWER_V4);
    expect(services.dns.udpQueries).toBeGreaterThan(0);
  });
});

describe('states, as the host has them', () => {
  it('a connect scan sees which ports are open', async () => {
    const { openPorts, closedPorts, httpPort, http6Port } = services;
    const scan = (port: number) => shell.run(`nc -n -v -z -w 20 10.0.2.2 ${port}`);
    for (const port of [openPorts[0]!, httpPort]) {
      expect(await scan(port)).toEqual({ status: 0, output: expect.stringContaining('succeeded') as string });
    }
    for (const port of [closedPorts[0]!, 1])
      expect(await scan(port)).toEqual({ status: 1, output: expect.stringContaining('refused') as string });
    // No family of the host's listens there, the other does.
    expect((await shell.run(`nc -n -v -z -w 20 fec0::2 ${httpPort}`)).output).toContain('refused');
    expect((await shell.run(`nc -n -v -z -w 20 fec0::2 ${http6Port}`)).output).toContain('succeeded');
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
    const url = `http://10.0.2.2:${services.httpPort}/1`;
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
        sh -c 'id -u; ping -q -c 1 -W 20 10.0.2.2; curl -sS http://10.0.2.2:${services.httpPort}/${BIG_BYTES} | sha256sum'`;
    const { stdout, stderr, status } = await capture('unshare', ['--mount', 'sh', '-c', script]);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^0\n/);
    expect(stdout).toContain('1 received');
    expect(stdout).toContain(services.hashOf(BIG_BYTES));
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

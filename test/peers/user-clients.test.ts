/**
 * The user network as the network of a namespace, and the programs that people's machines do the rest with: a GiB by curl, DHCP clients, file
 * shares by a real smbd, a shell by ssh, a port scan, the ways that traceroute knows. user-netns.test.ts has transfers, names and errors.
 */

import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture } from './lib/command.ts';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { freePort, listen, sha } from './lib/servers.ts';

/** A GiB is this many of these. */
const PART_BYTES = 64 << 20;
const PARTS = 16;

const folder = mkdtempSync(join(tmpdir(), 'netemu-user-'));
const share = join(folder, 'share');
let shell: NetnsShell;

beforeAll(async () => {
  await prepare(['tools', 'network-clients']);
  mkdirSync(share);
  shell = new NetnsShell([
    '--netdev',
    `user,smb=${share},hostname=guest,domainname=net.test,dnssearch=net.test,dnssearch=other.test,` +
      'hostfwd=tcp:127.0.0.1:0-:2222,egress=deny:tcp:203.0.113.0/24',
  ]);
});

afterAll(async () => {
  await shell.close();
  // smbd's processes have ended with their connections.
  rmSync(folder, { recursive: true, maxRetries: 5 });
});

describe('a GiB', () => {
  const part = randomBytes(PART_BYTES);
  let whole: string;
  beforeAll(() => {
    const hash = createHash('sha256');
    for (let i = 0; i < PARTS; i++) hash.update(part);
    whole = hash.digest('hex');
  });

  it.each([
    ['IPv4', '127.0.0.1', '10.0.2.2'],
    ['IPv6', '::1', '[fec0::2]'],
  ])('comes by curl over %s with the right hash', async (_family, address, gateway) => {
    const server = createHttpServer((_request, response) => {
      response.setHeader('content-length', PART_BYTES * PARTS);
      let left = PARTS;
      const more = (): void => {
        while (left > 0) if (left-- > 0 && !response.write(part)) return;
        response.end();
      };
      response.on('drain', more);
      more();
    });
    const port = await listen(server, address);
    const { output } = await shell.run(`curl -g -sS http://${gateway}:${port}/ | sha256sum`);
    expect(output).toBe(`${whole}  -\n`);
    server.closeAllConnections();
    server.close();
  });
});

describe('leases', () => {
  it("ISC's dhclient gets one, and what goes with it", async () => {
    writeFileSync(join(folder, 'dhclient'), `#!/bin/sh\nenv | grep -E '^(reason|new_)' >>${folder}/told\n`, {
      mode: 0o755,
    });
    // -1: one try; it goes to the background with its lease.
    const files = `-sf ${folder}/dhclient -lf ${folder}/leases -pf ${folder}/pid`;
    const { output, status } = await shell.run(
      `touch ${folder}/leases; dhclient -1 ${files} tap0 && dhclient -x ${files} tap0; cat ${folder}/leases`,
    );
    expect(status).toBe(0);
    expect(output).toContain('fixed-address 10.0.2.15;');
    expect(output).toContain('option routers 10.0.2.2;');
    expect(output).toContain('option domain-name-servers 10.0.2.3;');
    expect(output).toContain('option domain-name "net.test";');
    const told = readFileSync(join(folder, 'told'), 'utf8');
    expect(told).toContain('reason=BOUND\n');
    expect(told).toContain('new_interface_mtu=65520\n');
    expect(told).toContain('new_host_name=guest\n');
    expect(told).toContain('new_domain_search=net.test. other.test.\n');
  });
});

describe('files', () => {
  it("smbclient puts and gets through the host's smbd", async () => {
    const content = randomBytes(5_000_001);
    writeFileSync(join(folder, 'given'), content);
    const { output, status } = await shell.run(
      `smbclient //10.0.2.4/qemu -N -c 'put ${folder}/given up; mkdir below; put ${folder}/given below/up; get up ${folder}/got; ls'`,
    );
    expect(output).toMatch(/^ {2}below +D +0 /m);
    expect(output).toMatch(/^ {2}up +A +5000001 /m);
    expect(status).toBe(0);
    for (const place of [join(share, 'up'), join(share, 'below/up'), join(folder, 'got')])
      expect(sha(readFileSync(place))).toBe(sha(content));
    writeFileSync(join(share, "the host's"), 'here');
    const again = await shell.run(`smbclient //10.0.2.4/qemu -N -c "get \\"the host's\\" ${folder}/theirs"`);
    expect(again.status).toBe(0);
    expect(readFileSync(join(folder, 'theirs'), 'utf8')).toBe('here');
    const missing = await shell.run("smbclient //10.0.2.4/qemu -N -c 'get nothing'");
    expect(missing.output).toContain('NT_STATUS_OBJECT_NAME_NOT_FOUND');
  });
});

describe('ssh', () => {
  it('a server in the namespace is reached through a forward: 16 MiB there and back, and a status', async () => {
    const keygen = (name: string): unknown =>
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, name)]);
    keygen('host-key');
    keygen('user-key');
    const lines = [
      'Port 2222',
      `HostKey ${folder}/host-key`,
      `AuthorizedKeysFile ${folder}/user-key.pub`,
      `PidFile ${folder}/sshd.pid`,
      'StrictModes no',
      'UsePAM no',
      'PermitRootLogin prohibit-password',
    ];
    writeFileSync(join(folder, 'sshd_config'), `${lines.join('\n')}\n`);
    const started = await shell.run(
      `mkdir -p /run/sshd; /usr/sbin/sshd -f ${folder}/sshd_config -E ${folder}/sshd.log`,
    );
    expect(started).toEqual({ status: 0, output: '' });
    const [, port] = /forwarding tcp 127\.0\.0\.1:(\d+) to/.exec(shell.said)!;
    const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR'];
    const ssh = (command: string, input: Uint8Array): Buffer =>
      execFileSync(
        'ssh',
        [
          ...['-p', port!, '-i', join(folder, 'user-key'), ...options.flatMap((option) => ['-o', option])],
          ...['root@127.0.0.1', command],
        ],
        { input, maxBuffer: 64 << 20 },
      );
    const bytes = randomBytes(16 << 20);
    expect(sha(ssh('cat', bytes))).toBe(sha(bytes));
    expect(ssh('ip -o -4 addr show tap0', new Uint8Array(0)).toString()).toContain('10.0.2.15/24');
    expect(() => ssh('exit 7', new Uint8Array(0))).toThrow(expect.objectContaining({ status: 7 }));
    await shell.run(`kill $(cat ${folder}/sshd.pid)`);
  });
});

describe('ports, as they are on the host', () => {
  /** What a connect from the host itself finds. */
  const state = (port: number): Promise<string> =>
    new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => {
        socket.destroy();
        resolve('open');
      });
      socket.on('error', () => resolve('closed'));
    });

  it("nmap's connect scan gives each port's true state", async () => {
    const servers = Array.from({ length: 5 }, () =>
      createServer((socket) => socket.on('error', () => {}).end()),
    );
    const ports = await Promise.all(servers.map((server) => listen(server, '127.0.0.1')));
    ports.push(await freePort(), await freePort(), 1, 9, 65_535);
    const { output } = await shell.run(`nmap -sT -Pn -n -oG - -p ${ports.join(',')} 10.0.2.2`);
    const seen = [...output.matchAll(/(\d+)\/(open|closed|filtered)\/tcp/g)].map(([, port, how]) => [
      port!,
      how!,
    ]);
    const truth = await Promise.all(ports.map(async (port) => [`${port}`, await state(port)]));
    expect(Object.fromEntries(seen)).toEqual(Object.fromEntries(truth));
    expect(seen.filter(([, how]) => how === 'open')).toHaveLength(5);
    for (const server of servers) server.close();
  });

  it('what a rule forbids is filtered', async () => {
    const { output } = await shell.run('nmap -sT -Pn -n -oG - -p 80,443 203.0.113.5');
    expect([...output.matchAll(/\d+\/filtered\/tcp/g)]).toHaveLength(2);
  });

  it.each([
    ['UDP', ''],
    ['ICMP', '-I'],
    ['TCP', '-T -p 9'],
  ])('traceroute by %s ends at the gateway', async (_how, options) => {
    const { output } = await shell.run(`traceroute ${options} -n -q 1 -m 3 -w 20 10.0.2.2`);
    expect(output.trim().split('\n').slice(1)).toEqual([
      expect.stringMatching(/^ ?1 {2}10\.0\.2\.2 {2}[\d.]+ ms$/),
    ]);
  });

  it.each([
    ['UDP', ''],
    ['ICMP', '-I'],
    ['TCP', '-T'],
  ])('traceroute by %s to elsewhere hears of the first hop from the gateway', async (_how, options) => {
    const { output } = await shell.run(`traceroute ${options} -n -q 1 -m 1 -w 20 192.0.2.1`);
    expect(output).toMatch(/^ 1 {2}10\.0\.2\.2 {2}[\d.]+ ms$/m);
  });
});

describe('nothing stays behind', () => {
  it('smb= leaves no process and no folder', async () => {
    const states = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('netemu-smb-'));
    const before = states();
    const main = new URL('../../dist/cli/main.js', import.meta.url).pathname;
    const { stdout, status } = await capture(process.execPath, [
      ...[main, 'netns', '--netdev', `user,smb=${share}`, '--', 'sh', '-c'],
      "smbclient //10.0.2.4/qemu -N -c 'ls' && ls -d /tmp/netemu-smb-*",
    ]);
    expect(status).toBe(0);
    const [, own] = /(netemu-smb-\w+)\n$/.exec(stdout)!;
    expect(states().filter((name) => !before.includes(name))).toEqual([]);
    const processes = (await capture('ps', ['-eo', 'stat,args'])).stdout.split('\n');
    expect(processes.filter((line) => !line.startsWith('Z') && line.includes(own!))).toEqual([]);
  });
});

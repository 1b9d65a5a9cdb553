/**
 * Where a guest of the user network may go and by which way it leaves, and how its servers are told who calls, with programs that are not ours: nginx
 * reads our PROXY headers, dnsmasq answers what the egress rules learn from. Everything stands in two namespaces, joined by two wires:
 *
 *     guest's namespace ── netemu ── HOST ══ way0, way1 ══ WORLD (192.0.2.80, .81: a server that says who calls)
 *                                     └ dnsmasq at 127.0.0.53
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture, run } from './lib/command.ts';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { Qmp } from './lib/qmp.ts';

const HOST = `ne-host-${process.pid}`;
const WORLD = `ne-world-${process.pid}`;
const folder = mkdtempSync(join(tmpdir(), 'netemu-policy-'));
const programs: ChildProcess[] = [];
let shell: NetnsShell | undefined;

/** A program in a namespace, until it has printed `ready`. */
async function start(ns: string, command: readonly string[], ready: string): Promise<void> {
  const child = spawn('ip', ['netns', 'exec', ns, ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
  programs.push(child);
  let text = '';
  await new Promise<void>((resolve, reject) => {
    const more = (chunk: Buffer): void => {
      text += chunk.toString();
      if (text.includes(ready)) resolve();
    };
    child.stdout!.on('data', more);
    child.stderr!.on('data', more);
    child.on('exit', () => reject(new Error(`${command[0]} ended: ${text}`)));
  });
}

/** Says to whoever connects, at every address, which address it came from. */
const WHO = `
const { createServer } = require('node:http');
createServer((request, response) => response.end(request.socket.remoteAddress)).listen(80, '0.0.0.0', () => console.log('listening'));
`;

async function open(netdev: string, ...more: string[]): Promise<NetnsShell> {
  await shell?.close();
  shell = new NetnsShell(['--netdev', `user,${netdev}`, ...more], HOST);
  return shell;
}

/** Tells the length of each datagram of a burst to who sent it, after the last, which is `end`. */
const LENGTHS = `
const socket = require('node:dgram').createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
const lengths = [];
socket.on('message', (data, from) => {
  if (data.toString() !== 'end') lengths.push(data.length + ':' + data[0] + ':' + data[data.length - 1]);
  else socket.send(lengths.splice(0).join(' '), from.port, from.address);
});
socket.bind(9000, '192.0.2.80', () => console.log('listening'));
`;

/** Sends a burst of 43 datagrams in one call, by UDP_SEGMENT (socket option 103 of level 17), and prints the answer. */
const BURST = `
use Socket;
socket(my $s, PF_INET, SOCK_DGRAM, 17) or die $!;
connect($s, sockaddr_in(9000, inet_aton("192.0.2.80"))) or die $!;
setsockopt($s, 17, 103, pack("i", 1400)) or die $!;
my $data = join("", map { chr($_) x 1400 } 1..42) . ("z" x 100);
defined(syswrite($s, $data)) or die $!;
setsockopt($s, 17, 103, pack("i", 0)) or die $!;
syswrite($s, "end");
sysread($s, my $answer, 65535);
print $answer;
`;

/** What the server says to the guest, or how it fails. */
async function who(where: string): Promise<string> {
  const { output } = await shell!.run(`curl -sS --max-time 10 http://${where}/`);
  return output.trim();
}

beforeAll(async () => {
  await prepare(['tools', 'network-clients', 'network-servers']);
  const ip = async (...args: string[]): Promise<void> => {
    await run('ip', args);
  };
  await ip('netns', 'add', HOST);
  await ip('netns', 'add', WORLD);
  await ip('-n', HOST, 'link', 'set', 'lo', 'up');
  await ip('-n', WORLD, 'link', 'set', 'lo', 'up');
  for (const i of [0, 1]) {
    const way = `way${i}`;
    await ip('-n', HOST, 'link', 'add', way, 'type', 'veth', 'peer', 'name', way, 'netns', WORLD);
    await ip('-n', HOST, 'address', 'add', `10.99.${i}.1/24`, 'dev', way);
    await ip('-n', WORLD, 'address', 'add', `10.99.${i}.2/24`, 'dev', way);
    await ip('-n', HOST, 'link', 'set', way, 'up');
    await ip('-n', WORLD, 'link', 'set', way, 'up');
    await ip('-n', HOST, 'route', 'add', 'default', 'via', `10.99.${i}.2`, 'dev', way, 'metric', `${i + 1}`);
  }
  for (const address of ['192.0.2.80', '192.0.2.81', '169.254.169.254'])
    await ip('-n', WORLD, 'address', 'add', `${address}/32`, 'dev', 'lo');
  await start(WORLD, [process.execPath, '-e', WHO], 'listening');
  await start(WORLD, [process.execPath, '-e', LENGTHS], 'listening');
  await start(
    HOST,
    [
      'dnsmasq',
      '--no-daemon',
      '--log-queries',
      '--conf-file=/dev/null',
      '--no-resolv',
      '--no-hosts',
      '--bind-interfaces',
      '--listen-address=127.0.0.53',
      '--port=53',
      '--user=root',
      `--pid-file=${folder}/dnsmasq.pid`,
      '--address=/allowed.test/192.0.2.80',
      '--address=/other.test/192.0.2.81',
      '--cname=alias.test,allowed.test',
      '--local-ttl=30',
    ],
    'started',
  );
}, 300_000);

afterAll(async () => {
  await shell?.close();
  for (const child of programs) {
    child.removeAllListeners('exit');
    child.kill();
  }
  for (const ns of [HOST, WORLD]) await capture('ip', ['netns', 'delete', ns]);
  rmSync(folder, { recursive: true, force: true });
});

describe('egress by DNS name', () => {
  it('only what dnsmasq answered for an allowed name is reached, by name or by address', async () => {
    await open('dns-upstream=127.0.0.53,egress=allow:tcp:allowed.test:80,egress=deny:any:all');
    expect(await who('192.0.2.80')).toContain('curl: (7)');
    expect(await who('allowed.test')).toBe('10.99.0.1');
    expect(await who('192.0.2.80')).toBe('10.99.0.1');
    expect(await who('other.test')).toContain('curl: (7)');
    expect((await shell!.run('ping -c 1 -W 2 192.0.2.80')).output).toContain('Packet filtered');
  });

  it('the answer may come over TCP, and from the second name server', async () => {
    await open(
      'dns-upstream=127.0.0.54,dns-upstream=127.0.0.53,egress=allow:any:*.allowed.test,egress=deny:any:all',
    );
    const { output } = await shell!.run(
      'dig +tcp +short @10.0.2.3 www.allowed.test; dig +short @10.0.2.3 x.other.test',
    );
    expect(output).toBe('192.0.2.80\n192.0.2.81\n');
    expect(await who('192.0.2.80')).toBe('10.99.0.1');
    expect(await who('192.0.2.81')).toContain('curl: (7)');
  });

  it('metadata=off closes what stands open else', async () => {
    await open('dns-upstream=127.0.0.53');
    expect(await who('169.254.169.254')).toBe('10.99.0.1');
    await open('dns-upstream=127.0.0.53,metadata=off');
    expect(await who('169.254.169.254')).toContain('curl: (7)');
    expect(await who('192.0.2.81')).toBe('10.99.0.1');
  });
});

describe('the way out', () => {
  it('source-interface= leaves by the interface whatever the routes say, source= from the address', async () => {
    await open('dns-upstream=127.0.0.53,source-interface=way1');
    expect(await who('192.0.2.80')).toBe('10.99.1.1');
    expect((await shell!.run('ping -c 1 -W 3 192.0.2.80')).status).toBe(0);
    await open('dns-upstream=127.0.0.53,source=10.99.1.1');
    expect(await who('192.0.2.80')).toBe('10.99.1.1');
  });

  it('an interface that is not there is told at the start', async () => {
    const { status, stderr } = await capture('ip', [
      'netns',
      'exec',
      HOST,
      process.execPath,
      new URL('../../dist/cli/main.js', import.meta.url).pathname,
      'netns',
      '--netdev',
      'user,source-interface=none0',
      '--',
      'true',
    ]);
    expect([status, stderr]).toEqual([1, expect.stringContaining('source-interface=none0: No such device')]);
  });
});

describe('a run of datagrams', () => {
  it('that the guest’s kernel hands over as one frame arrives as it was sent', async () => {
    await open('dns-upstream=127.0.0.53', '--qmp', `unix:${folder}/qmp,server=on,wait=off`);
    writeFileSync(join(folder, 'burst.pl'), BURST);
    const { output } = await shell!.run(`busybox timeout 20 perl ${folder}/burst.pl`);
    const whole = Array.from({ length: 42 }, (_, i) => `1400:${i + 1}:${i + 1}`);
    expect(output).toBe([...whole, '100:122:122'].join(' '));
    // A kernel before 6.2 has no such frames for taps, and sends the datagrams one by one.
    const qmp = await Qmp.connect(`${folder}/qmp`);
    const reply = await qmp.ask({ execute: 'query-network' });
    const [major, minor] = release().split('.').map(Number);
    const runs = major! > 6 || (major === 6 && minor! >= 2) ? 1 : 0;
    expect(JSON.stringify(reply)).toMatch(new RegExp(`"[^"]*udpRunsOut": ?${runs}[,}]`));
    qmp.close();
  });
});

describe('the PROXY protocol', () => {
  it('nginx in the guest knows the real client by both versions, and refuses a connection without', async () => {
    const port = (at: number): string => `hostfwd=tcp:127.0.0.1:${8080 + at}-:8000`;
    await open(`dns-upstream=127.0.0.53,${port(0)},${port(1)}/proxy1,${port(2)}/proxy2`);
    mkdirSync(join(folder, 'nginx'));
    const conf = join(folder, 'nginx.conf');
    writeFileSync(
      conf,
      `daemon on; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
       events {}
       http {
         access_log off;
         client_body_temp_path ${folder}/nginx; proxy_temp_path ${folder}/nginx; fastcgi_temp_path ${folder}/nginx;
         uwsgi_temp_path ${folder}/nginx; scgi_temp_path ${folder}/nginx;
         server {
           listen 8000 proxy_protocol;
           return 200 "$proxy_protocol_addr $proxy_protocol_server_addr $proxy_protocol_server_port $remote_addr\\n";
         }
       }`,
    );
    expect(await shell!.run(`nginx -c ${conf}`)).toEqual({ status: 0, output: '' });
    const ask = async (at: number): Promise<string> => {
      const url = `http://127.0.0.1:${8080 + at}/`;
      const { stdout } = await capture('ip', [
        'netns',
        'exec',
        HOST,
        'curl',
        '-sS',
        '--interface',
        '127.5.6.7',
        url,
      ]);
      return stdout.trim();
    };
    try {
      expect(await ask(1)).toBe('127.5.6.7 127.0.0.1 8081 10.0.2.2');
      expect(await ask(2)).toBe('127.5.6.7 127.0.0.1 8082 10.0.2.2');
      expect(await ask(0)).toBe('');
    } finally {
      await shell!.run(`kill $(cat ${folder}/nginx.pid)`);
    }
  });
});

/**
 * Linux's own L2TPv3 (a guest's `ip l2tp`) at the other end of the l2tpv3 netdev, over UDP and over IP.
 *
 *     guest ── l2tpeth ── 10.99.0.2 ── QEMU stream ── netemu (stream + tap) ── 10.99.0.1 in a namespace ── netemu (l2tpv3 + user) ── a server
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type GuestResult, runGuest } from './lib/guest.ts';
import { prepare } from './lib/prepare.ts';

const NAMESPACE = `ne${process.pid}l`;
const ROOT = new URL('../..', import.meta.url).pathname;
const MIB = 16;
const ip = (...words: string[]) =>
  execFileSync('ip', words, { stdio: ['ignore', 'pipe', 'pipe'] }).toString();

/** A program in the namespace that has said something. */
async function inside(program: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn('ip', ['netns', 'exec', NAMESPACE, program, ...args], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`${args.join(' ')} ended with ${code}`)));
  });
  return child;
}

const netemu = (...netdevs: string[]) =>
  inside(process.execPath, '--import', 'tsx', join(ROOT, 'bench/peers/netemu-hub.ts'), '0', ...netdevs);

describe('Linux’s L2TPv3', () => {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-l2tp-'));
  const children: ChildProcess[] = [];
  let result: GuestResult;
  let hash = '';

  beforeAll(async () => {
    await prepare(['tools', 'qemu-11.1']);
    ip('netns', 'add', NAMESPACE);
    ip('-n', NAMESPACE, 'link', 'set', 'lo', 'up');
    const up = join(folder, 'up');
    writeFileSync(up, '#!/bin/sh -e\nip addr add 10.99.0.1/24 dev "$1"\nip link set "$1" up\n');
    chmodSync(up, 0o755);
    const program = `const { createHash, randomBytes } = require('crypto');
      const blob = randomBytes(${MIB} << 20);
      const hash = (data) => createHash('md5').update(data).digest('hex');
      require('http').createServer((_, answer) => answer.end(blob)).listen(8000, '127.0.0.1');
      require('net').createServer({ allowHalfOpen: true }, (socket) => {
        const sum = createHash('md5');
        socket.on('data', (data) => sum.update(data));
        socket.on('end', () => socket.end(sum.digest('hex') + '\\n'));
      }).listen(8001, '127.0.0.1', () => console.log(hash(blob)));`;
    const server = spawn('ip', ['netns', 'exec', NAMESPACE, process.execPath, '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(server);
    hash = await new Promise<string>((resolve) =>
      server.stdout.once('data', (data) => resolve(String(data).trim())),
    );
    children.push(
      await netemu(
        `stream,id=q,server=on,addr.type=unix,addr.path=${folder}/q`,
        `tap,id=t,ifname=t0,script=${up},downscript=no`,
      ),
    );
    const common = 'src=10.99.0.1,dst=10.99.0.2';
    children.push(
      await netemu(
        `l2tpv3,id=l,${common},udp=on,srcport=1701,dstport=1702,txsession=0x22,rxsession=0x11,cookie64=on,rxcookie=0x0011223344556677,txcookie=0x8899aabbccddeeff`,
        'user,id=u,ipv4=on,ipv6=off,net=10.50.0.0/24',
      ),
      await netemu(
        `l2tpv3,id=l,${common},txsession=0x44,rxsession=0x33,rxcookie=0xdeadbeef,txcookie=0x01020304`,
        'user,id=u,ipv4=on,ipv6=off,net=10.51.0.0/24',
      ),
    );
    const use = (device: string, net: string) => `ip link set ${device} up mtu 1400
ip addr add ${net}.15/24 dev ${device}
busybox ping -c 3 -i 0.2 -w 20 ${net}.2
busybox wget -q -O /tmp/blob http://${net}.2:8000/
busybox md5sum </tmp/blob
busybox nc ${net}.2 8001 </tmp/blob
rm /tmp/blob`;
    result = await runGuest({
      qemu: '11.1',
      args: [
        ...['-netdev', `stream,id=n0,addr.type=unix,addr.path=${folder}/q`],
        ...['-device', 'virtio-net-pci,netdev=n0,romfile='],
      ],
      timeoutMs: 300_000,
      script: {
        start: `set -e
modprobe virtio_pci; modprobe virtio_net; modprobe l2tp_netlink; modprobe l2tp_eth; modprobe l2tp_ip
nic=$(ls /sys/class/net | grep -v lo | head -1)
ip addr add 10.99.0.2/24 dev $nic
ip link set $nic up
busybox ping -c 1 -w 20 10.99.0.1`,
        udp: `set -e
ip l2tp add tunnel tunnel_id 1 peer_tunnel_id 1 encap udp local 10.99.0.2 remote 10.99.0.1 udp_sport 1702 udp_dport 1701
ip l2tp add session name l2u tunnel_id 1 session_id ${0x22} peer_session_id ${0x11} cookie 0011223344556677 peer_cookie 8899aabbccddeeff l2spec_type none
${use('l2u', '10.50.0')}`,
        ip: `set -e
ip l2tp add tunnel tunnel_id 2 peer_tunnel_id 2 encap ip local 10.99.0.2 remote 10.99.0.1
ip l2tp add session name l2i tunnel_id 2 session_id ${0x44} peer_session_id ${0x33} cookie deadbeef peer_cookie 01020304 l2spec_type none
${use('l2i', '10.51.0')}`,
      },
    });
  }, 900_000);

  afterAll(async () => {
    for (const child of children) {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
    ip('netns', 'del', NAMESPACE);
    rmSync(folder, { recursive: true, force: true });
  });

  it.each(['udp', 'ip'])('over %s: ping, and bytes each way with the right hash', (step) => {
    result.ok('start');
    const output = result.ok(step);
    expect(output).toContain('3 packets received');
    expect(output.split(hash).length - 1).toBe(2);
  });
});

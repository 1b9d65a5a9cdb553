/**
 * Mirrored and redirected frames between QEMU 11.1 and netemu, with a NIC on a tap at both ends: a virtio-net's link is where frames have a
 * virtio_net_hdr, whose length both have to take from their own link. In a namespace of its own; ARP requests of the kernel are the traffic.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { forkyCommand } from './lib/forky.ts';
import { RunningNetemu } from './lib/netemu.ts';
import { prepare } from './lib/prepare.ts';
import { Qmp } from './lib/qmp.ts';

const NAMESPACE = `nef${process.pid}`;
const ip = (...words: string[]): void => void execFileSync('ip', words, { stdio: 'pipe' });

let folder: string;
let started = 0;

beforeAll(async () => {
  await prepare(['qemu-11.1', 'tools']);
  folder = mkdtempSync(join(tmpdir(), 'netemu-filters-'));
  ip('netns', 'add', NAMESPACE);
  for (const which of ['all', 'default'])
    ip('netns', 'exec', NAMESPACE, 'sysctl', '-qw', `net.ipv6.conf.${which}.disable_ipv6=1`);
});
afterAll(() => {
  ip('netns', 'del', NAMESPACE);
  rmSync(folder, { recursive: true, force: true });
});

const tap = (id: string, ifname: string): string[] => [
  ...['-netdev', `tap,id=${id},ifname=${ifname},script=no,downscript=no`],
];

class Qemu {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(...args: string[]): Promise<Qemu> {
    const machine = ['-accel', 'tcg', '-machine', 'pc', '-m', '64', '-nodefaults', '-nic', 'none'];
    const { program, args: words } = forkyCommand('qemu-system-x86_64', [
      ...machine,
      // A machine that does not run takes no frames; without an option ROM nothing drives the NIC.
      ...[
        '-display',
        'none',
        '-qmp',
        'stdio',
        '-global',
        `virtio-net-pci.romfile=`,
        '-global',
        'e1000.romfile=',
      ],
      ...args,
    ]);
    const child = spawn('ip', ['netns', 'exec', NAMESPACE, program, ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await new Qmp(child.stdout!, child.stdin!).negotiate();
    return new Qemu(child);
  }

  async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await once(this.#child, 'close');
  }
}

async function startNetemu(...args: string[]): Promise<{ netemu: RunningNetemu; qmp: Qmp }> {
  const socket = join(folder, `monitor${started++}`);
  const netemu = new RunningNetemu(
    [...args, '--guest', 'none', '--qmp', `unix:${socket},server=on,wait=off`],
    { namespace: NAMESPACE },
  );
  return { netemu, qmp: await Qmp.connect(socket) };
}

/** Has the kernel ask for an address by ARP on `from`, until the request is seen coming out of `to`; returns what tcpdump says of it. */
async function request(from: string, to: string): Promise<string> {
  for (const name of [from, to]) ip('-n', NAMESPACE, 'link', 'set', name, 'up');
  ip('-n', NAMESPACE, 'addr', 'add', '10.77.0.1/24', 'dev', from);
  const dump = spawn(
    'ip',
    ['netns', 'exec', NAMESPACE, 'tcpdump', '-n', '-e', '-l', '-Q', 'in', '-c', '1', '-i', to],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let text = '';
  dump.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  await once(dump.stderr, 'data');
  const ping = spawn('ip', ['netns', 'exec', NAMESPACE, 'ping', '-c', '30', '-i', '0.3', '10.77.0.2'], {
    stdio: 'ignore',
  });
  await once(dump, 'close');
  ping.kill();
  await once(ping, 'close');
  return text;
}

const ARP = /ff:ff:ff:ff:ff:ff, ethertype ARP.*Request who-has 10\.77\.0\.2 tell 10\.77\.0\.1/;

describe('the same NIC on a tap at both ends of the chardev', () => {
  // Without vnet_hdr_support QEMU writes a frame's header as part of it: only links without one are for that.
  for (const { vnetHdr, device } of [
    { vnetHdr: 'on', device: 'virtio-net-pci' },
    { vnetHdr: 'on', device: 'e1000' },
    { vnetHdr: 'off', device: 'e1000' },
  ]) {
    it(`QEMU mirrors, netemu puts in: ${device}, vnet_hdr_support=${vnetHdr}`, async () => {
      const wire = join(folder, `in-${device}-${vnetHdr}`);
      const qemu = await Qemu.start(
        ...tap('t', 'qm0'),
        ...['-device', `${device},netdev=t`],
        ...['-chardev', `socket,id=c,path=${wire},server=on,wait=off`],
        ...['-object', `filter-mirror,id=m,netdev=t,queue=tx,outdev=c,vnet_hdr_support=${vnetHdr}`],
      );
      const { netemu, qmp } = await startNetemu(
        ...tap('t', 'nm0'),
        ...['-device', `${device},netdev=t`],
        ...['-chardev', `socket,id=c,path=${wire}`],
        ...['-object', `filter-redirector,id=r,netdev=t,queue=rx,indev=c,vnet_hdr_support=${vnetHdr}`],
      );
      try {
        expect(await request('qm0', 'nm0')).toMatch(ARP);
        const { netdevs } = (await qmp.run('query-network')) as {
          netdevs: { filters: { counters: object }[] }[];
        };
        expect(netdevs[0]!.filters[0]!.counters).toMatchObject({ badStreams: 0, dropInBad: 0 });
      } finally {
        await qemu.end();
        await netemu.stop();
      }
    });

    it(`netemu mirrors, QEMU puts in: ${device}, vnet_hdr_support=${vnetHdr}`, async () => {
      const wire = join(folder, `out-${device}-${vnetHdr}`);
      const { netemu } = await startNetemu(
        ...tap('t', 'nm1'),
        ...['-device', `${device},netdev=t`],
        ...['-chardev', `socket,id=c,path=${wire},server=on,wait=off`],
        ...['-object', `filter-mirror,id=m,netdev=t,queue=tx,outdev=c,vnet_hdr_support=${vnetHdr}`],
      );
      const qemu = await Qemu.start(
        ...tap('t', 'qm1'),
        ...['-device', `${device},netdev=t`],
        ...['-chardev', `socket,id=c,path=${wire}`],
        ...['-object', `filter-redirector,id=r,netdev=t,queue=rx,indev=c,vnet_hdr_support=${vnetHdr}`],
      );
      try {
        expect(await request('nm1', 'qm1')).toMatch(ARP);
      } finally {
        await qemu.end();
        await netemu.stop();
      }
    });
  }
});

describe('the length of the header that a mirror writes', () => {
  const cases = [
    { program: 'netemu', device: 'virtio-net-pci', length: 10 },
    { program: 'netemu', device: 'e1000', length: 0 },
    { program: 'qemu', device: 'virtio-net-pci', length: 10 },
    { program: 'qemu', device: 'e1000', length: 0 },
  ] as const;
  for (const { program, device, length } of cases) {
    it(`${program}, ${device} without a driver on a tap: ${length}`, async () => {
      const wire = join(folder, `${program}-${device}`);
      const server = createServer().listen(wire);
      await once(server, 'listening');
      const connected = once(server, 'connection');
      const ifname = `${program[0]}${device[0]}9`;
      const options = [
        ...tap('t', ifname),
        ...['-device', `${device},netdev=t`],
        ...['-chardev', `socket,id=c,path=${wire}`],
        ...['-object', 'filter-mirror,id=m,netdev=t,queue=tx,outdev=c,vnet_hdr_support=on'],
      ];
      const running =
        program === 'qemu' ? await Qemu.start(...options) : (await startNetemu(...options)).netemu;
      try {
        const [socket] = await connected;
        ip('-n', NAMESPACE, 'link', 'set', ifname, 'up');
        ip('-n', NAMESPACE, 'addr', 'add', '10.78.0.1/24', 'dev', ifname);
        const ping = spawn('ip', ['netns', 'exec', NAMESPACE, 'ping', '-c', '30', '-i', '0.3', '10.78.0.2'], {
          stdio: 'ignore',
        });
        // QEMU writes the lengths and the frame one by one.
        let bytes = Buffer.alloc(0);
        while (bytes.length < 8 + length + 42) {
          const [more] = (await once(socket, 'data')) as [Buffer];
          bytes = Buffer.concat([bytes, more]);
        }
        ping.kill();
        await once(ping, 'close');
        expect(bytes.readUInt32BE(4)).toBe(length);
        // QEMU pads what comes for an e1000.
        expect([length + 42, length + 60]).toContain(bytes.readUInt32BE(0));
        expect([...bytes.subarray(8 + length, 14 + length)]).toEqual([255, 255, 255, 255, 255, 255]);
        socket.destroy();
      } finally {
        await ('end' in running ? running.end() : running.stop());
        server.close();
      }
    });
  }
});

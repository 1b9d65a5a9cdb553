/**
 * What the soak runs on: one netemu with five netdevs beside the hubs' ports, four NICs with probe guests, two hubs and a filter, and a namespace at its tap.
 *
 *   hub 0: user n0, tap t0 (the namespace), e1000 e0          user n1 ── virtio-net v0, forwarded
 *   hub 1: stream server s0, e1000 e1                         user n2 ── netem ── rtl8139 r0, forwarded
 */

import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { capture, run } from '../peers/lib/command.ts';
import { RunningNetemu } from '../peers/lib/netemu.ts';
import { openDescriptors, residentBytes } from '../peers/lib/process.ts';
import { Qmp } from '../peers/lib/qmp.ts';

export interface Sample {
  residentMiB: number;
  descriptors: number;
  network: NetworkState;
  flows: number;
}

export interface EndState {
  id: string;
  queues: { counters: Record<string, number> }[];
  counters: Record<string, number>;
}

export interface NetworkState {
  nics: EndState[];
  netdevs: EndState[];
  objects: unknown[];
  chardevs: unknown[];
  pool: { capacity: number; free: number; exhausted: number };
}

const ECHO_PORT = 7;

export class Machine {
  readonly folder = mkdtempSync(join(tmpdir(), 'netemu-soak-'));
  readonly files = join(this.folder, 'files');
  readonly sockets = join(this.folder, 'sockets');
  readonly qmpPath = join(this.sockets, 'qmp');
  readonly metricsPath = join(this.sockets, 'metrics');
  readonly streamPath = join(this.sockets, 'stream');
  readonly namespace = `netemu-soak-${process.pid}`;
  readonly interface = `soak${process.pid}`;
  netemu!: RunningNetemu;
  /** The one that samples. */
  qmp!: Qmp;
  forwards: number[] = [];

  async start(): Promise<void> {
    await run('mkdir', [this.files, this.sockets]);
    await run('ip', ['netns', 'add', this.namespace]);
    const forward = `hostfwd=tcp:127.0.0.1:0-:${ECHO_PORT}`;
    this.netemu = new RunningNetemu(
      [
        ...['--netdev', `user,id=n0,tftp=${this.files}`],
        ...['--netdev', `tap,id=t0,ifname=${this.interface},script=no,downscript=no`],
        ...['--netdev', 'hubport,id=p0,hubid=0,netdev=n0', '--netdev', 'hubport,id=p1,hubid=0,netdev=t0'],
        ...['--netdev', 'hubport,id=p2,hubid=0', '--device', 'e1000,id=e0,netdev=p2,mac=52:54:00:00:51:01'],
        ...['--netdev', `user,id=n1,${forward}`],
        ...['--device', 'virtio-net-pci,id=v0,netdev=n1,mac=52:54:00:00:51:02'],
        ...['--netdev', `user,id=n2,${forward}`, '--device', 'rtl8139,id=r0,netdev=n2,mac=52:54:00:00:51:03'],
        ...['--object', 'filter-netem,id=far,netdev=n2,delay=1ms'],
        ...['--netdev', `stream,id=s0,server=on,addr.type=unix,addr.path=${this.streamPath}`],
        ...['--netdev', 'hubport,id=p3,hubid=1,netdev=s0', '--netdev', 'hubport,id=p4,hubid=1'],
        ...['--device', 'e1000,id=e1,netdev=p4,mac=52:54:00:00:51:04'],
        ...['--guest', `probe,echo=${ECHO_PORT}`],
        ...['--qmp', `unix:${this.qmpPath},server=on,wait=off`, '--metrics', `unix:${this.metricsPath}`],
      ],
      {},
    );
    for (const netdev of ['n1', 'n2']) {
      const [, port] = await this.netemu.until(
        new RegExp(`^${netdev}: forwarding tcp 127\\.0\\.0\\.1:(\\d+)`, 'm'),
      );
      this.forwards.push(Number(port));
    }
    for (const nic of ['v0', 'r0']) await this.netemu.until(new RegExp(`^${nic}: DHCP lease`, 'm'));
    await run('ip', ['link', 'set', this.interface, 'netns', this.namespace]);
    await this.inside([
      'sh',
      '-ec',
      `ip link set lo up; ip addr add 10.0.2.100/24 dev ${this.interface}; ip link set ${this.interface} up; ip route add default via 10.0.2.2`,
    ]);
    this.qmp = await Qmp.connect(this.qmpPath);
  }

  /** Runs a command in the namespace; its output. */
  async inside(words: readonly string[]): Promise<string> {
    const command = ['netns', 'exec', this.namespace, ...words];
    const { status, stdout, stderr } = await capture('ip', command);
    if (status !== 0)
      throw new Error(`${words.join(' ').slice(0, 300)} ended with ${status}\n${stdout}${stderr}`);
    return stdout;
  }

  async sample(): Promise<Sample> {
    const pid = this.netemu.child.pid!;
    const usernets = (await this.qmp.run('query-usernet')) as { flows: unknown[] }[];
    return {
      residentMiB: residentBytes(pid) / 2 ** 20,
      descriptors: openDescriptors(pid),
      network: (await this.qmp.run('query-network')) as NetworkState,
      flows: usernets.reduce((sum, { flows }) => sum + flows.length, 0),
    };
  }

  /** What each descriptor is, for a message. */
  descriptorKinds(): Record<string, number> {
    const folder = `/proc/${this.netemu.child.pid}/fd`;
    const kinds: Record<string, number> = {};
    for (const fd of readdirSync(folder)) {
      let kind = 'closed meanwhile';
      try {
        kind = readlinkSync(join(folder, fd)).replace(/\d+/g, 'N');
      } catch {
        // It was closed between the listing and this look.
      }
      kinds[kind] = (kinds[kind] ?? 0) + 1;
    }
    return kinds;
  }

  /** Ends netemu as Ctrl-C does; its status, what it said, and the socket files that it left. */
  async stop(): Promise<{ status: number | null; output: string; left: string[] }> {
    this.qmp.close();
    const finished = await this.netemu.stop();
    return { ...finished, left: readdirSync(this.sockets) };
  }

  async clean(): Promise<void> {
    if (this.netemu !== undefined) await this.netemu.stop();
    await capture('ip', ['netns', 'del', this.namespace]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/**
 * Open vSwitch with DPDK as a peer: a bridge whose ports are vhost-user back-ends, in a folder, a network namespace and with memory of its own (no huge pages). It polls: one of the
 * machine's processors is busy as long as it runs.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { capture, tail } from './command.ts';
import { DPDK_PACKAGES } from './dpdk.ts';
import { ensureForky, forkyCommand } from './forky.ts';

const VSWITCHD = '/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk';
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const DPDK_OPTIONS = '--no-huge -m 512 --no-pci --in-memory --no-telemetry';
const POLL_MS = 20;

/** Installs what an OpenVSwitch needs. */
export function ensureOvs(): Promise<void> {
  return ensureForky(...DPDK_PACKAGES, 'openvswitch-switch', 'openvswitch-switch-dpdk');
}

export class OpenVSwitch {
  readonly folder: string;
  output = '';
  readonly #environment: NodeJS.ProcessEnv;
  readonly #children: ChildProcess[] = [];

  /** A switch with one empty bridge, br0. `folder`: an empty one. */
  static async start(folder: string): Promise<OpenVSwitch> {
    const ovs = new OpenVSwitch(folder);
    try {
      await ovs.#start();
      return ovs;
    } catch (error) {
      await ovs.stop();
      throw error;
    }
  }

  private constructor(folder: string) {
    this.folder = folder;
    this.#environment = {
      ...process.env,
      OVS_RUNDIR: folder,
      OVS_LOGDIR: folder,
      OVS_DBDIR: folder,
      OVS_SYSCONFDIR: folder,
    };
  }

  async #start(): Promise<void> {
    const database = join(this.folder, 'conf.db');
    const socket = join(this.folder, 'db.sock');
    await this.#run('ovsdb-tool', 'create', database, SCHEMA);
    this.#spawn('ovsdb-server', [database, `--remote=punix:${socket}`]);
    while (!existsSync(socket)) await pause(POLL_MS);
    await this.vsctl('--no-wait', 'init');
    await this.vsctl(
      ...['--no-wait', 'set', 'Open_vSwitch', '.', 'other_config:dpdk-init=true'],
      ...[`other_config:dpdk-extra=${DPDK_OPTIONS}`, 'other_config:pmd-cpu-mask=0x2'],
      ...['other_config:dpdk-lcore-mask=0x1', 'other_config:per-port-memory=true'],
    );
    this.#spawn(VSWITCHD, [`unix:${socket}`]);
    await this.vsctl('add-br', 'br0', '--', 'set', 'bridge', 'br0', 'datapath_type=netdev');
  }

  #spawn(program: string, args: readonly string[]): void {
    const command = forkyCommand(program, args);
    const child = spawn('unshare', ['--net', command.program, ...command.args], {
      env: this.#environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.#children.push(child);
  }

  async #run(program: string, ...args: string[]): Promise<string> {
    const command = forkyCommand(program, args);
    const { status, stdout, stderr } = await capture(command.program, command.args, {
      env: this.#environment,
    });
    if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}\n${tail(this.output, 40)}`);
    return stdout;
  }

  /** `ovs-vsctl ARGS`; resolves with what it prints when the switch has done it. */
  vsctl(...args: string[]): Promise<string> {
    return this.#run('ovs-vsctl', '--timeout=30', `--db=unix:${join(this.folder, 'db.sock')}`, ...args);
  }

  /** A port that connects to a front-end's socket at `path`, again and again. */
  async addClientPort(name: string, path: string): Promise<void> {
    await this.vsctl(
      ...['add-port', 'br0', name, '--', 'set', 'Interface', name, 'type=dpdkvhostuserclient'],
      `options:vhost-server-path=${path}`,
    );
  }

  /** A port that listens; returns its path. */
  async addServerPort(name: string): Promise<string> {
    await this.vsctl('add-port', 'br0', name, '--', 'set', 'Interface', name, 'type=dpdkvhostuser');
    return join(this.folder, name);
  }

  /** Nothing of it is kept, and asked to end it may wait for a port's peer: it is killed. */
  async stop(): Promise<void> {
    for (const child of this.#children.splice(0).reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGKILL');
      await gone;
    }
  }
}

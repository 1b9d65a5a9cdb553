/**
 * DPDK's testpmd as a peer: a vhost-user back-end (`net_vhost`) or a front-end (`virtio_user`) in a process of its own, driven by its prompt. It needs no huge pages: its memory is a memfd of
 * ordinary ones. It polls: one of the machine's processors is busy as long as it runs.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { ensureForky, forkyCommand } from './forky.ts';

export interface TestpmdOptions {
  /** `--vdev` arguments, a port each, in order: `net_vhost0,iface=PATH,queues=2,client=1`, `net_virtio_user0,path=PATH,…`. */
  readonly vdevs: readonly string[];
  /** Queues of each port; default 1. */
  readonly queues?: number;
  /** What is done with received packets: `io`, `macswap`, `rxonly`, `txonly`, `5tswap`, `icmpecho`, …; default macswap. */
  readonly forward?: string;
  /** Cores that forward; default 1. */
  readonly cores?: number;
  readonly memoryMegabytes?: number;
  /** More of testpmd's own options, behind `--`. */
  readonly more?: readonly string[];
}

export interface PortCounts {
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  /** Per second since the counts were last asked for. */
  rxRate: number;
  txRate: number;
}

/** testpmd comes with the development files, which bring every driver along. */
export const DPDK_PACKAGES = ['dpdk', 'dpdk-dev'] as const;

/** Installs what a Testpmd needs. */
export function ensureDpdk(): Promise<void> {
  return ensureForky(...DPDK_PACKAGES);
}

/** A running testpmd; its prompt is used for commands. */
export class Testpmd {
  output = '';
  readonly child: ChildProcess;
  readonly finished: Promise<number | null>;
  readonly #waiting = new Set<() => void>();

  constructor({
    vdevs,
    queues = 1,
    forward = 'macswap',
    cores = 1,
    memoryMegabytes = 128,
    more = [],
  }: TestpmdOptions) {
    // Core 0 has the prompt; every core may run wherever there is a processor free.
    const lcores = Array.from({ length: cores + 1 }, (_, i) => `${i}@(0-1)`).join(',');
    const { program, args } = forkyCommand('stdbuf', [
      ...['--output=0', 'dpdk-testpmd'],
      ...[
        '--lcores',
        lcores,
        '--no-huge',
        '-m',
        String(memoryMegabytes),
        '--no-pci',
        '--in-memory',
        '--no-telemetry',
      ],
      ...vdevs.flatMap((vdev) => ['--vdev', vdev]),
      '--',
      ...[
        '-i',
        '--no-mlockall',
        '--disable-link-check',
        '--auto-start',
        `--forward-mode=${forward}`,
        `--nb-cores=${cores}`,
      ],
      ...[`--rxq=${queues}`, `--txq=${queues}`, '--total-num-mbufs=8192', ...more],
    ]);
    this.child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const keep = (chunk: Buffer): void => {
      this.output += chunk.toString();
      for (const look of this.#waiting) look();
    };
    this.child.stdout!.on('data', keep);
    this.child.stderr!.on('data', keep);
    this.child.stdin!.on('error', () => {});
    this.finished = new Promise((resolve) => {
      this.child.on('close', (status) => {
        resolve(status);
        for (const look of this.#waiting) look();
      });
    });
  }

  /** Resolves with the first match behind `from` in the output, once there is one; rejects when testpmd ends without. */
  until(pattern: RegExp, from = 0): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(this.output.slice(from));
        const running = this.child.exitCode === null && this.child.signalCode === null;
        if (match === null && running) return;
        this.#waiting.delete(look);
        if (match !== null) resolve(match);
        else reject(new Error(`testpmd ended before it printed ${pattern}:\n${this.output}`));
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** Resolves when it forwards. */
  async ready(): Promise<void> {
    await this.until(/packet forwarding - ports[\s\S]*testpmd> /);
  }

  /** Types a line at the prompt; resolves with what it printed, up to the next prompt. */
  async command(line: string): Promise<string> {
    const from = this.output.length;
    this.child.stdin!.write(`${line}\n`);
    const [text] = await this.until(/[\s\S]*?\n(?=testpmd> $)/, from);
    return text;
  }

  /** A port's counters. */
  async counts(port = 0): Promise<PortCounts> {
    const text = await this.command(`show port stats ${port}`);
    const match =
      /RX-packets: (\d+)[\s\S]*?RX-bytes: +(\d+)[\s\S]*?TX-packets: (\d+)[\s\S]*?TX-bytes: +(\d+)[\s\S]*?Rx-pps: +(\d+)[\s\S]*?Tx-pps: +(\d+)/.exec(
        text,
      );
    if (match === null) throw new Error(`testpmd has no counters of port ${port}:\n${text}`);
    const [rxPackets, rxBytes, txPackets, txBytes, rxRate, txRate] = match.slice(1).map(Number) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    return { rxPackets, rxBytes, txPackets, txBytes, rxRate, txRate };
  }

  /** Ends it as its user would. */
  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.stdin!.write('quit\n');
    await this.finished;
  }

  /** It dies. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.finished;
  }
}

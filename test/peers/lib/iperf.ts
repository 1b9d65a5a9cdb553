/** iperf3: a server on this machine's loopback, which serves one test after the other, and what a guest runs against it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { freePort } from './servers.ts';

export class Iperf {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #failed: Promise<never>;
  #said = '';

  /** Resolves when it listens. */
  static async start(): Promise<Iperf> {
    const iperf = new Iperf(await freePort());
    await iperf.next();
    return iperf;
  }

  private constructor(port: number) {
    this.port = port;
    this.#child = spawn('iperf3', ['-s', '-B', '127.0.0.1', '-p', `${port}`, '--forceflush'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#failed = new Promise((_, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', (code) => reject(new Error(`iperf3 ended with ${code}:\n${this.#said}`)));
    });
    // Told to who waits, if anybody does.
    this.#failed.catch(() => {});
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
    });
  }

  /** The server listens anew after each test, and says so; until then it refuses. A client that never came needs no waiting for. Resolves with the port. */
  async next(): Promise<number> {
    const said = (text: string): number => this.#said.split(text).length - 1;
    while (said('Server listening') <= said('Accepted connection'))
      await Promise.race([once(this.#child.stdout!, 'data'), this.#failed]);
    return this.port;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'close');
    this.#child.kill();
    await gone;
  }
}

/** A guest's command that runs iperf3's client and prints its report (JSON). Right after a run the server may be busy with its end, and turns the next one away. */
export function iperfCommand(port: number, options: string, host = '10.0.2.2'): string {
  return `n=0; until iperf3 -c ${host} -p ${port} ${options} -J >/tmp/iperf; do n=$((n+1)); [ $n -lt 10 ] || { cat /tmp/iperf; exit 1; }; sleep 1; done; cat /tmp/iperf`;
}

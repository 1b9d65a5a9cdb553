/** The netemu command, as built, run as a user would. */
import { type ChildProcess, spawn } from 'node:child_process';

const MAIN = new URL('../../../dist/cli/main.js', import.meta.url).pathname;

export interface Finished {
  status: number | null;
  output: string;
}

/** A running netemu. What it prints is kept; `until` waits for it. */
export class RunningNetemu {
  output = '';
  readonly finished: Promise<Finished>;
  readonly child: ChildProcess;
  readonly #waiting = new Set<() => void>();

  constructor(
    args: readonly string[],
    options: { namespace?: string; env?: NodeJS.ProcessEnv; stdin?: 'pipe' } = {},
  ) {
    const { namespace } = options;
    const command = [process.execPath, MAIN, ...args];
    const words = namespace === undefined ? command : ['ip', 'netns', 'exec', namespace, ...command];
    this.child = spawn(words[0]!, words.slice(1), {
      stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    const keep = (chunk: Buffer): void => {
      this.output += chunk.toString();
      for (const look of this.#waiting) look();
    };
    this.child.stdout!.on('data', keep);
    this.child.stderr!.on('data', keep);
    this.finished = new Promise((resolve) => {
      this.child.on('close', (status) => {
        resolve({ status, output: this.output });
        for (const look of this.#waiting) look();
      });
    });
  }

  /** Resolves with the match once the output has one; rejects when netemu ends without. */
  until(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(this.output);
        if (match === null && this.child.exitCode === null && this.child.signalCode === null) return;
        this.#waiting.delete(look);
        if (match !== null) resolve(match);
        else reject(new Error(`netemu ended before it printed ${pattern}:\n${this.output}`));
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** Ends it as Ctrl-C does. */
  async stop(): Promise<Finished> {
    if (this.child.exitCode === null) this.child.kill('SIGINT');
    return await this.finished;
  }
}

/** Runs netemu to its end. */
export function netemu(args: readonly string[], options: { namespace?: string } = {}): Promise<Finished> {
  return new RunningNetemu(args, options).finished;
}

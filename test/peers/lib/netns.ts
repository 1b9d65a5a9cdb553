/** A shell in `netemu netns`, which runs one script after the other; what netemu itself says goes to standard error, apart from them. */

import { type ChildProcess, spawn } from 'node:child_process';

const MAIN = new URL('../../../dist/cli/main.js', import.meta.url).pathname;
const MARK = '--- end of the script, status ';

export interface ScriptResult {
  status: number;
  /** Both outputs of the script, together. */
  output: string;
}

/** Where scripts are run, one at a time: a namespace, or a guest. */
export interface Shell {
  run(script: string): Promise<ScriptResult>;
}

export class NetnsShell implements Shell {
  /** What netemu has said. */
  said = '';
  readonly child: ChildProcess;
  readonly finished: Promise<number | null>;
  #output = '';
  #ended = false;
  #wake: () => void = () => {};

  /** `within`: the named namespace that netemu itself runs in; undefined: this machine's. */
  constructor(options: readonly string[], within?: string) {
    const [program, ...args] = within === undefined ? [] : ['ip', 'netns', 'exec', within];
    const command = [process.execPath, MAIN, 'netns', ...options, '--', 'sh'];
    if (program !== undefined) command.unshift(program, ...args);
    this.child = spawn(command[0]!, command.slice(1), {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.child.stdin!.on('error', () => {});
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
      this.#wake();
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.said += text;
    });
    this.finished = new Promise((resolve) => {
      this.child.on('close', (status) => {
        this.#ended = true;
        this.#wake();
        resolve(status);
      });
    });
  }

  /** Runs a script; one at a time. */
  async run(script: string): Promise<ScriptResult> {
    this.#output = '';
    this.child.stdin!.write(`( ${script}\n) </dev/null 2>&1\necho "${MARK}$?"\n`);
    for (;;) {
      const at = this.#output.indexOf(MARK);
      if (at >= 0 && this.#output.endsWith('\n')) {
        return {
          status: Number(this.#output.slice(at + MARK.length)),
          output: this.#output.slice(0, at),
        };
      }
      if (this.#ended) throw new Error(`netns ended:\n${this.#output}\n${this.said}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Ends the shell by its end of input; resolves with netemu's status. */
  async close(): Promise<number | null> {
    this.child.stdin!.end();
    return await this.finished;
  }
}

/** A qtest client on the standard streams of a program: asks line by line, and keeps what is answered to each line. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** A program that speaks qtest on its standard streams; it ends with `close`, or with this process. */
export class QtestSession {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #end: () => void;
  readonly #answers: string[] = [];
  #wake: (() => void) | null = null;
  #ended = false;
  #stderr = '';

  constructor(program: string, args: readonly string[]) {
    this.#name = program;
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    this.#end = () => {
      child.kill('SIGKILL');
    };
    process.on('exit', this.#end);
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    child.stdin.on('error', () => {});
    let messages = '';
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => {
      if (line.startsWith('IRQ ')) {
        messages += `${line}; `;
        return;
      }
      this.#answers.push(messages + line);
      messages = '';
      this.#wake?.();
    });
    lines.on('close', () => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  /** Sends lines without waiting for what is answered. */
  send(lines: readonly string[]): void {
    this.#child.stdin!.write(`${lines.join('\n')}\n`);
  }

  /** The next answer, with the interrupt messages that came before it. */
  async answer(): Promise<string> {
    while (this.#answers.length === 0) {
      if (this.#ended) throw new Error(`${this.#name} ended\n${this.#stderr}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#answers.shift()!;
  }

  /** Sends lines and returns the answers, in order. */
  async ask(lines: readonly string[]): Promise<string[]> {
    this.send(lines);
    const answers: string[] = [];
    while (answers.length < lines.length) answers.push(await this.answer());
    return answers;
  }

  close(): void {
    process.off('exit', this.#end);
    this.#end();
  }
}

/** Runs `script`; the answers in order. The program is ended afterwards. */
export async function runQtest(
  program: string,
  args: readonly string[],
  script: readonly string[],
): Promise<string[]> {
  const session = new QtestSession(program, args);
  try {
    return await session.ask(script);
  } finally {
    session.close();
  }
}

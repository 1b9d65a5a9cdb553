/** Runs programs to their end, for the preparation of peers. Their output is shown only when they fail. */

import { type SpawnOptions, spawn } from 'node:child_process';

export interface Output {
  stdout: string;
  stderr: string;
  status: number;
}

/** Runs `program` and collects what it prints; a status other than zero is left to the caller. */
export function capture(
  program: string,
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    const parts = { stdout: '', stderr: '' };
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      parts.stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      parts.stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      resolve({ ...parts, status: code ?? (signal === null ? 1 : 128) });
    });
  });
}

/** The same, for a program that must succeed; returns what it printed. */
export async function run(
  program: string,
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<string> {
  const output = await capture(program, args, options);
  if (output.status !== 0) {
    throw new Error(
      `${program} ${args.join(' ')} exited with ${output.status}\n${tail(output.stdout, 40)}\n${tail(output.stderr, 40)}`,
    );
  }
  return output.stdout;
}

/** The last `count` lines of a text. */
export function tail(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}

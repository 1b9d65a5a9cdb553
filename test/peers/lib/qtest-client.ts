/** A qtest client on the standard streams of a program: sends a script, line by line, and keeps what is answered to each line. */

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Runs `script`; the answers in order, each with the interrupt messages that came before it. The program is ended afterwards. */
export async function runQtest(
  program: string,
  args: readonly string[],
  script: readonly string[],
): Promise<string[]> {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const end = (): void => {
    child.kill('SIGKILL');
  };
  process.on('exit', end);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => {});
  const answers: string[] = [];
  let messages = '';
  try {
    child.stdin.write(`${script.join('\n')}\n`);
    for await (const line of createInterface({ input: child.stdout })) {
      if (line.startsWith('IRQ ')) {
        messages += `${line}; `;
        continue;
      }
      answers.push(messages + line);
      messages = '';
      if (answers.length === script.length) break;
    }
  } finally {
    process.off('exit', end);
    end();
  }
  if (answers.length < script.length)
    throw new Error(`${program} ended after '${script[answers.length - 1]}'\n${stderr}`);
  return answers;
}

/** `--monitor stdio` on a real terminal (a pty that script(1) makes): line editing, completion, history, and a terminal left as it was. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { prepare } from './lib/prepare.ts';

const MAIN = new URL('../../dist/cli/main.js', import.meta.url).pathname;
const UP = '\x1b[A';
const DOWN = '\x1b[B';
const LEFT = '\x1b[D';
const DELETE = '\x1b[3~';
const BACKSPACE = '\x7f';
const ctrl = (letter: string): string => String.fromCharCode(letter.charCodeAt(0) - 96);

class Terminal {
  /** All that was shown. */
  shown = '';
  readonly #child: ChildProcess;
  readonly finished: Promise<unknown>;
  #from = 0;
  #wake: (() => void) | null = null;

  constructor(command: string) {
    this.#child = spawn('script', ['-qfec', command, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, TERM: 'xterm' },
    });
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.shown += text;
      this.#wake?.();
    });
    this.finished = once(this.#child, 'close').then(([status]) => {
      this.#wake?.();
      return status;
    });
  }

  /** Types, and waits until what is shown from here on matches. */
  async type(keys: string, pattern: RegExp): Promise<string> {
    this.#from = this.shown.length;
    this.#child.stdin!.write(keys);
    return await this.sees(pattern);
  }

  async sees(pattern: RegExp): Promise<string> {
    for (;;) {
      const text = this.shown.slice(this.#from);
      if (pattern.test(text)) return text;
      if (this.#child.exitCode !== null) throw new Error(`ended without ${pattern}: ${JSON.stringify(text)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

const PROMPT = '\\(netemu\\) ';
const answered = (text: string): RegExp => new RegExp(`${text}[^]*${PROMPT}$`);

it('a person at a terminal edits lines, completes words and walks the history', async () => {
  await prepare(['tools']);
  const netemu = `${process.execPath} ${MAIN} --netdev user,id=n0 --device e1000,id=nic0,netdev=n0 --guest none --name pty --monitor stdio`;
  const terminal = new Terminal(`${netemu}; echo status $?; stty -a`);
  await terminal.sees(new RegExp(PROMPT));
  // Completion of a command, a topic, an id and a state.
  await terminal.type('inf\tver\t\r', answered('netemu \\d'));
  await terminal.type('set_l\tnic\tof\t\r', answered('\n'));
  await terminal.type('info net\t\r', answered('nic0: index=0,type=nic,model=e1000'));
  // More than one way to go on: they are listed, and the line stays.
  await terminal.type('hostfwd_\t\t', /hostfwd_add.*hostfwd_remove.*hostfwd_$/s);
  await terminal.type(ctrl('u'), /./);
  // Editing in the middle, at both ends, and with keys that delete.
  await terminal.type(`info nXme${LEFT}${LEFT}${LEFT}${DELETE}a\r`, answered('pty'));
  await terminal.type(`nfo name${ctrl('a')}i${ctrl('e')}\r`, answered('pty'));
  await terminal.type(`info namely${BACKSPACE}${BACKSPACE}\r`, answered('pty'));
  await terminal.type(`info name and more${ctrl('w')}${ctrl('w')}\r`, answered('pty'));
  // The history: back three, on one.
  await terminal.type('info status\r', answered('VM status: running'));
  await terminal.type('info version\r', answered('netemu \\d'));
  await terminal.type(`${UP}${UP}${UP}${DOWN}\r`, answered('VM status: running'));
  // Text that is no key and no command does no harm.
  await terminal.type('\x1b[99~\x1bOZ\x00\u00e9bogus\r', answered('unknown command'));
  // The end, and the terminal as it was before.
  await terminal.type('quit\r', /status 0/);
  await terminal.finished;
  expect(terminal.shown).toMatch(/[^-]icanon/);
  expect(terminal.shown).toMatch(/[^-]echo /);
});

it('Ctrl-C ends the program at the prompt, and the terminal is as it was', async () => {
  const terminal = new Terminal(
    `${process.execPath} ${MAIN} --guest none --monitor stdio; echo status $?; stty -a`,
  );
  await terminal.sees(new RegExp(PROMPT));
  await terminal.type(ctrl('c'), /status 0/);
  await terminal.finished;
  expect(terminal.shown).toMatch(/[^-]icanon/);
});

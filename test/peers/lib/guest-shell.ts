/** A guest under QEMU that runs one script after the other, as a namespace's shell does: a test decides what comes next by what came before. */

import { type Guest, type GuestOptions, type GuestResult, startGuest } from './guest.ts';
import type { ScriptResult, Shell } from './netns.ts';

/** Scripts come as one line each, in base64. */
const LOOP = `while line=$(host next) && [ "$line" != end ]; do
  echo "$line" | base64 -d >/tmp/script
  sh /tmp/script </dev/null 2>&1
  host done $? >/dev/null
done
`;

export class GuestShell implements Shell {
  /** Resolves when QEMU has ended. */
  readonly done: Promise<GuestResult>;
  readonly #guest: Guest;
  readonly #work: Work;

  /** Boots a guest that runs `setUp` first; that must succeed. */
  static async start(
    options: Omit<GuestOptions, 'script' | 'host'>,
    setUp: string,
  ): Promise<{ shell: GuestShell; said: string }> {
    const work = new Work();
    const guest = await startGuest({ ...options, script: LOOP, host: work.host });
    const shell = new GuestShell(guest, work);
    const { status, output } = await shell.run(setUp);
    if (status !== 0) {
      guest.kill();
      throw new Error(`the guest's set-up ended with ${status}\n${output}\n${(await guest.done).console}`);
    }
    return { shell, said: output };
  }

  private constructor(guest: Guest, work: Work) {
    this.#guest = guest;
    this.#work = work;
    this.done = guest.done;
  }

  /** Runs a script; rejects when the guest ends within. */
  async run(script: string): Promise<ScriptResult> {
    const from = this.#guest.output.length;
    const status = this.#work.give(Buffer.from(script).toString('base64'));
    const ended = this.done.then((result) => {
      throw new Error(`the guest ended within a script\n${script}\n${result.report()}`);
    });
    return { status: await Promise.race([status, ended]), output: this.#guest.output.slice(from) };
  }

  /** Ends the guest's work; resolves when it is switched off. */
  async close(): Promise<GuestResult> {
    void this.#work.give('end');
    return await this.done;
  }
}

/** Between those who want a script run, and the guest who asks for one. */
class Work {
  #script: string | null = null;
  #wanted: ((line: string) => void) | null = null;
  #ended: (status: number) => void = () => {};

  /** Resolves with the status of what was given. */
  give(line: string): Promise<number> {
    if (this.#wanted === null) this.#script = line;
    else this.#wanted(line);
    this.#wanted = null;
    return new Promise((resolve) => {
      this.#ended = resolve;
    });
  }

  readonly host = {
    next: (): string | Promise<string> => {
      const script = this.#script;
      this.#script = null;
      if (script !== null) return script;
      return new Promise((resolve) => {
        this.#wanted = resolve;
      });
    },
    done: (status: string): string => {
      this.#ended(Number(status));
      return 'noted';
    },
  };
}

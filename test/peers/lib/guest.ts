/**
 * Runs a Linux guest under QEMU (TCG: no KVM is needed or used) with the steps of a test, and collects what they print.
 *
 * A step is a shell script; its exit status and its output are its result. Within a step, `host WORD …` asks a handler of this process for something and
 * prints its answer, so that a test can act between two commands of the guest (take a link down, count frames). Nothing here sleeps: the guest says when it is
 * ready, and the one limit of time is the watchdog for a guest that hangs. What goes wrong is told with the end of the console.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { tail } from './command.ts';
import { forkyCommand } from './forky.ts';
import { ensureInitramfs, MARK, writeRunImage } from './initramfs.ts';
import { ensureKernel, type KernelName } from './kernel.ts';
import { prepare } from './prepare.ts';

export type QemuVersion = '7.2' | '11.1';

export interface GuestOptions {
  qemu: QemuVersion;
  /** amd64 when absent; the 686 image has busybox's programs only. */
  kernel?: KernelName;
  /** Devices and back-ends; the machine has none but its serial lines. */
  args?: readonly string[];
  /** Step scripts by name, run in this order; a plain string is one step called "main". */
  script: string | Readonly<Record<string, string>>;
  /** Answers to `host WORD …` by WORD: gets the rest of the line, returns one line. */
  host?: Readonly<Record<string, (argument: string) => string | Promise<string>>>;
  /** More files for the guest, by path; they are executable. */
  files?: Readonly<Record<string, Uint8Array | string>>;
  /** MiB of RAM; 256 when absent. */
  memoryMiB?: number;
  /** RAM lies in a memfd that other processes may map (vfio-user, vhost-user). */
  sharedMemory?: boolean;
  /** More words for the kernel's command line. */
  append?: string;
  /** After this long the guest is ended and the run fails; 120 s when absent. */
  timeoutMs?: number;
}

export interface StepResult {
  name: string;
  output: string;
  /** The script's exit status; null when the guest ended within the step. */
  status: number | null;
}

export class GuestResult {
  /** Kernel messages. */
  readonly console: string;
  readonly steps: readonly StepResult[];
  /** QEMU's own exit code (null: ended by a signal), and what it said on its standard error. */
  readonly exitCode: number | null;
  readonly stderr: string;

  constructor(console: string, steps: readonly StepResult[], exitCode: number | null, stderr: string) {
    this.console = console;
    this.steps = steps;
    this.exitCode = exitCode;
    this.stderr = stderr;
  }

  /** Output by step; of a step that ran more than once (a reboot), the last. */
  get sections(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.steps.map((step) => [step.name, step.output]));
  }

  /** The output of a step that must have succeeded; else an error that shows it and the console. */
  ok(name: string): string {
    const step = this.steps.findLast((one) => one.name === name);
    if (step === undefined) throw new Error(`the guest never came to step ${name}\n${this.report()}`);
    if (step.status !== 0)
      throw new Error(
        `step ${name} ended with ${step.status}\n--- its output\n${step.output}\n${this.report()}`,
      );
    return step.output;
  }

  /** The ends of everything that was said, for messages. */
  report(): string {
    return describe(this.console, this.stderr, this.steps.at(-1)?.output ?? '');
  }
}

function describe(console: string, stderr: string, output: string): string {
  const parts = [`--- console\n${tail(console, 40)}`, `--- last step\n${tail(output, 25)}`];
  if (stderr !== '') parts.push(`--- QEMU\n${tail(stderr, 10)}`);
  return parts.join('\n');
}

/** A guest that runs. */
export class Guest {
  readonly pid: number;
  /** Resolves when QEMU has ended; rejects when the watchdog ended it or a `host` handler failed. */
  readonly done: Promise<GuestResult>;

  readonly #child: ChildProcess;
  readonly #serial: Duplex;
  readonly #steps: { name: string; output: string; status: number | null }[] = [];
  readonly #handlers: NonNullable<GuestOptions['host']>;
  readonly #awaited: { pattern: RegExp; resolve: () => void }[] = [];
  #console = '';
  #stderr = '';
  #partial = '';
  #failure: Error | null = null;

  constructor(program: string, args: readonly string[], options: GuestOptions, cleanUp: () => void) {
    this.#handlers = options.host ?? {};
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
    this.#child = child;
    this.pid = child.pid ?? 0;
    const end = (): void => {
      child.kill('SIGKILL');
    };
    process.on('exit', end);
    const watchdog = setTimeout(() => {
      this.#fail(new Error(`the guest did not end within ${options.timeoutMs ?? WATCHDOG_MS} ms`));
    }, options.timeoutMs ?? WATCHDOG_MS);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#steppingOn(text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    const console = child.stdio[3] as Duplex;
    this.#serial = console;
    console.setEncoding('utf8');
    console.on('data', (text: string) => {
      this.#console += text.replaceAll('\r', '');
      this.#tellPrinted();
    });
    console.on('error', () => {});
    child.stdin?.on('error', () => {});
    this.done = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code) => {
        clearTimeout(watchdog);
        process.off('exit', end);
        cleanUp();
        if (this.#failure === null) {
          resolve(new GuestResult(this.#console, this.#steps, code, this.#stderr));
        } else {
          this.#failure.message += `\n${describe(this.#console, this.#stderr, this.#steps.at(-1)?.output ?? '')}`;
          reject(this.#failure);
        }
      });
    });
  }

  /** Ends it as a power cut would (SIGKILL). */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Types on the console, for firmware that has a command line there. */
  type(text: string): void {
    this.#serial.write(text);
  }

  /** What the console has said so far. */
  get console(): string {
    return this.#console;
  }

  /** What the step that runs has printed so far, in whole lines. */
  get output(): string {
    return this.#steps.at(-1)?.output ?? '';
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.kill();
  }

  /** Resolves when the console has said what matches; rejects when the guest ends before. */
  async printed(pattern: RegExp): Promise<void> {
    const ended = this.done.then((result) => {
      if (!pattern.test(result.console))
        throw new Error(`the guest ended and never said ${pattern}\n${result.report()}`);
    });
    const said = new Promise<void>((resolve) => {
      this.#awaited.push({ pattern, resolve });
    });
    this.#tellPrinted();
    await Promise.race([said, ended]);
  }

  #tellPrinted(): void {
    for (const { pattern, resolve } of this.#awaited) if (pattern.test(this.#console)) resolve();
  }

  #steppingOn(text: string): void {
    const lines = (this.#partial + text.replaceAll('\r', '')).split('\n');
    this.#partial = lines.pop()!;
    for (const line of lines) {
      // A step may have left a line unfinished before init's mark.
      const at = line.indexOf(MARK);
      const step = this.#steps.at(-1);
      if (at < 0) {
        if (step !== undefined) step.output += `${line}\n`;
        continue;
      }
      if (at > 0 && step !== undefined) step.output += `${line.slice(0, at)}\n`;
      const [verb, ...words] = line.slice(at + MARK.length).split(' ');
      if (verb === 'begin') this.#steps.push({ name: words[0] ?? '', output: '', status: null });
      else if (verb === 'end' && step !== undefined) step.status = Number(words.at(-1));
      else if (verb === 'host') void this.#answer(words[0] ?? '', words.slice(1).join(' '));
    }
  }

  async #answer(word: string, argument: string): Promise<void> {
    const handler = this.#handlers[word];
    if (handler === undefined) {
      this.#fail(new Error(`the guest asks for ${word}, which the test does not answer`));
      return;
    }
    try {
      // What the guest did to a device before it asked may lie unread on another descriptor of this process, posted; it is read in this turn of the event loop.
      for (let turns = 0; turns < 2; turns++) await new Promise((resolve) => setImmediate(resolve));
      const answer = await handler(argument);
      this.#child.stdin?.write(`${answer}\n`);
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

const WATCHDOG_MS = 120_000;

/** Boots a guest; everything it needs is prepared first. */
export async function startGuest(options: GuestOptions): Promise<Guest> {
  const architecture = options.kernel ?? 'amd64';
  await prepare([`qemu-${options.qemu}`, `initramfs-${architecture}`]);
  const kernel = await ensureKernel(architecture);
  const folder = mkdtempSync(join(tmpdir(), 'netemu-guest-'));
  const image = join(folder, 'initramfs.cpio');
  const script = typeof options.script === 'string' ? { main: options.script } : options.script;
  writeRunImage(await ensureInitramfs(architecture), script, options.files ?? {}, image);
  const args = [
    '-kernel',
    kernel.image,
    '-initrd',
    image,
    '-append',
    `console=ttyS0 panic=-1 ${options.append ?? ''}`.trim(),
  ];
  return spawnQemu(options, args, () => rmSync(folder, { recursive: true, force: true }));
}

/** A machine without a kernel: what its firmware finds to boot, it boots. It has no steps; a reboot ends it. */
export async function startFirmware(
  options: Omit<GuestOptions, 'script' | 'host' | 'files' | 'append'>,
): Promise<Guest> {
  await prepare([`qemu-${options.qemu}`]);
  return spawnQemu({ ...options, script: '' }, ['-no-reboot'], () => {});
}

function spawnQemu(options: GuestOptions, boot: readonly string[], cleanUp: () => void): Guest {
  const memory = `${options.memoryMiB ?? 256}M`;
  const machine = options.sharedMemory
    ? [
        '-object',
        `memory-backend-memfd,id=ram,size=${memory},share=on`,
        '-machine',
        'pc,memory-backend=ram,usb=off,vmport=off',
      ]
    : ['-machine', 'pc,usb=off,vmport=off'];
  const args = [
    ...[
      '-nodefaults',
      '-no-user-config',
      '-accel',
      'tcg',
      ...machine,
      '-m',
      memory,
      '-display',
      'none',
      '-nic',
      'none',
    ],
    ...['-chardev', 'socket,id=console,fd=3', '-serial', 'chardev:console'],
    ...['-chardev', 'stdio,id=steps,signal=off', '-serial', 'chardev:steps'],
    ...boot,
    ...(options.args ?? []),
  ];
  const command =
    options.qemu === '11.1'
      ? forkyCommand('qemu-system-x86_64', args)
      : { program: 'qemu-system-x86_64', args };
  return new Guest(command.program, command.args, options, cleanUp);
}

/** Boots a guest and waits for its end. */
export async function runGuest(options: GuestOptions): Promise<GuestResult> {
  const guest = await startGuest(options);
  return guest.done;
}

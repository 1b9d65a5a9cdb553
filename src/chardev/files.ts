/**
 * Chardevs on files of the host: `stdio`, `file`, `pipe` and `pty`. What can be waited for (pipes, terminals) is a channel on a handle of
 * host I/O, which needs the addon; a regular file is written at once, and read to its end when somebody uses the chardev.
 */

import { closeSync, constants, openSync, readSync, rmSync, symlinkSync, writeSync } from 'node:fs';
import type { ChardevConfig, ChardevDevice } from '../config/chardevs.ts';
import { HostIoError, UnsupportedError } from '../core/errors.ts';
import { errnoOf, errnoText } from '../host-io/errno.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import { BaseChardev, PlainChardev } from './base.ts';
import type { ChardevContext } from './chardev.ts';
import { HandleChannel } from './handle-channel.ts';

export type ConfigOf<K extends ChardevDevice['type']> = ChardevConfig &
  Extract<ChardevDevice, { readonly type: K }>;

/** A chardev whose one channel is on handles that are there from the start. */
export class HandleChardev extends BaseChardev {
  readonly #io: HostIo;
  readonly #name: string;
  readonly #onClose: () => void;
  #input: Handle;
  #output: Handle;
  #channel: HandleChannel | null = null;
  #ended = false;

  constructor(
    config: ChardevConfig,
    io: HostIo,
    handles: { readonly input: Handle; readonly output: Handle },
    name: string,
    onClose: () => void = () => {},
  ) {
    super(config);
    this.#io = io;
    this.#name = name;
    this.#onClose = onClose;
    this.#input = handles.input;
    this.#output = handles.output;
  }

  describe(): string {
    return this.#name;
  }

  get connected(): boolean {
    return this.#channel !== null;
  }

  protected override attached(): void {
    if (this.#output === -1) return;
    const channel = new HandleChannel(
      this.#io,
      { input: this.#input, output: this.#output },
      {
        label: this.#name,
        passesFds: false,
        stats: this.stats,
        onClose: () => {
          // The channel has closed the handles: there is nothing to open again.
          this.#channel = null;
          this.#input = -1;
          this.#output = -1;
          this.stats.closed++;
        },
      },
    );
    this.#channel = channel;
    this.stats.opened++;
    channel.serve(this.user!.opened(channel));
  }

  protected override detached(): void {
    this.#channel?.close();
  }

  close(): void {
    this.detach();
    if (this.#input !== -1) this.#io.close(this.#input);
    if (this.#output !== -1 && this.#output !== this.#input) this.#io.close(this.#output);
    this.#input = -1;
    this.#output = -1;
    if (this.#ended) return;
    this.#ended = true;
    this.#onClose();
  }
}

function hostIoOf(context: ChardevContext, type: string): HostIo {
  const { hostIo } = context;
  if (hostIo?.implementation !== 'native') {
    throw new UnsupportedError(`chardev type '${type}' needs the native addon`);
  }
  return hostIo;
}

function open(path: string, flags: number, mode = 0o600): number {
  try {
    return openSync(path, flags, mode);
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException;
    throw new HostIoError('open', code, `could not open '${path}': ${errnoText(errnoOf(code))}`);
  }
}

/** A named pipe for both directions, or PATH.in and PATH.out. */
export function openPipe(config: ConfigOf<'pipe'>, context: ChardevContext): HandleChardev {
  const io = hostIoOf(context, 'pipe');
  const { path } = config;
  // Read and write, so that opening waits for nobody and the end of one peer does not end the pipe.
  const flags = constants.O_RDWR | constants.O_NONBLOCK;
  const handles: Handle[] = [];
  try {
    for (const half of [`${path}.in`, `${path}.out`]) handles.push(io.adopt(open(half, flags)));
  } catch (error) {
    for (const handle of handles) io.close(handle);
    if (!(error instanceof HostIoError)) throw error;
    const both = io.adopt(open(path, flags));
    return new HandleChardev(config, io, { input: both, output: both }, 'pipe');
  }
  return new HandleChardev(config, io, { input: handles[0]!, output: handles[1]! }, 'pipe');
}

/** A pseudo terminal; `path` names a link to it. What is written while nobody reads it waits in the terminal. */
export function openPty(config: ConfigOf<'pty'>, context: ChardevContext): HandleChardev {
  const io = hostIoOf(context, 'pty');
  const { master, slave, name } = io.ptyOpen();
  const { path } = config;
  if (path !== undefined) {
    try {
      symlinkSync(name, path);
    } catch (error) {
      io.close(master);
      io.close(slave);
      const { code = 'EIO' } = error as NodeJS.ErrnoException;
      throw new HostIoError('symlink', code, `could not create '${path}': ${errnoText(errnoOf(code))}`);
    }
  }
  return new HandleChardev(config, io, { input: master, output: master }, `pty:${name}`, () => {
    io.close(slave);
    if (path !== undefined) rmSync(path, { force: true });
  });
}

const BUFFER_BYTES = 65_536;

/** `file`: what is written goes to the end of a file; `input-path` names another one that is read once, as if it had been typed. */
export class FileChardev extends PlainChardev {
  readonly #fd: number;
  readonly #inputFd: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #from = 0;
  #to = 0;
  #failed = false;
  #closed = false;

  constructor(config: ConfigOf<'file'>, { fds }: ChardevContext) {
    super(config);
    const { O_WRONLY, O_CREAT, O_APPEND, O_TRUNC, O_RDONLY } = constants;
    this.#fd = open(
      fds.resolvePath(config.path),
      O_WRONLY | O_CREAT | (config.append ? O_APPEND : O_TRUNC),
      0o644,
    );
    try {
      this.#inputFd = config.inputPath === undefined ? -1 : open(fds.resolvePath(config.inputPath), O_RDONLY);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  describe(): string {
    return 'file';
  }

  write(bytes: Uint8Array, from: number, to: number): number {
    // A full disk: what cannot be written is gone, as with a terminal nobody looks at.
    if (this.#failed) return to - from;
    try {
      for (let at = from; at < to; ) at += writeSync(this.#fd, bytes, at, to - at);
    } catch {
      this.#failed = true;
    }
    this.stats.txBytes += to - from;
    return to - from;
  }

  override resume(): void {
    if (this.#inputFd === -1 || this.#closed) return;
    while (this.channelUser !== null) {
      if (this.#from === this.#to) {
        this.#from = 0;
        this.#to = readSync(this.#inputFd, this.#buffer, 0, BUFFER_BYTES, null);
        this.stats.rxBytes += this.#to;
        if (this.#to === 0) return;
      }
      const taken = this.channelUser.receive(this.#buffer, this.#from, this.#to);
      this.#from += taken;
      if (taken === 0) return;
    }
  }

  override close(): void {
    if (this.#closed) return;
    this.detach();
    this.#closed = true;
    closeSync(this.#fd);
    if (this.#inputFd !== -1) closeSync(this.#inputFd);
  }
}

/** Standard input and output by Node's own streams, which work wherever Node does. One per process. */
export class StdioChardev extends PlainChardev {
  readonly #signal: boolean;
  readonly #streams: StdioStreams;
  #chunk: Uint8Array | null = null;
  #at = 0;

  constructor(config: ConfigOf<'stdio'>, streams: StdioStreams) {
    super(config);
    this.#signal = config.signal;
    this.#streams = streams;
    const { input, output } = streams;
    input.on('data', this.#onData);
    input.on('end', this.#onEnd);
    input.pause();
    output.on('drain', this.#onDrain);
    output.on('error', this.#onError);
  }

  /** Keys arrive as they are typed, and this end echoes them: a terminal in raw mode. */
  get isTerminal(): boolean {
    return this.#streams.input.isTTY === true && this.#streams.output.isTTY === true;
  }

  describe(): string {
    return 'stdio';
  }

  protected override attached(): void {
    super.attached();
    if (this.isTerminal) this.#streams.input.setRawMode?.(true);
    this.#streams.input.resume();
  }

  protected override detached(): void {
    super.detached();
    this.#streams.input.pause();
    if (this.isTerminal) this.#streams.input.setRawMode?.(false);
  }

  readonly #onData = (chunk: Uint8Array): void => {
    // In raw mode Ctrl-C is a byte; it still ends the program unless signal=off.
    if (this.#signal && this.isTerminal && chunk.includes(3)) {
      this.#streams.interrupt();
      return;
    }
    this.stats.rxBytes += chunk.length;
    this.#chunk = chunk;
    this.#at = 0;
    this.resume();
  };

  override resume(): void {
    while (this.#chunk !== null && this.channelUser !== null) {
      const taken = this.channelUser.receive(this.#chunk, this.#at, this.#chunk.length);
      this.#at += taken;
      if (this.#at === this.#chunk.length) this.#chunk = null;
      else if (taken === 0) {
        this.#streams.input.pause();
        return;
      }
    }
    if (this.channelUser !== null) this.#streams.input.resume();
  }

  readonly #onEnd = (): void => {
    this.channelUser?.ended?.();
  };

  readonly #onDrain = (): void => {
    this.channelUser?.writable?.();
  };

  /** Nobody reads our output any more (EPIPE): it is dropped from now on. */
  readonly #onError = (): void => {};

  write(bytes: Uint8Array, from: number, to: number): number {
    const { output } = this.#streams;
    if (output.writableNeedDrain) return 0;
    output.write(bytes.slice(from, to));
    this.stats.txBytes += to - from;
    return to - from;
  }

  override close(): void {
    super.close();
    const { input, output } = this.#streams;
    input.off('data', this.#onData);
    input.off('end', this.#onEnd);
    input.pause();
    output.off('drain', this.#onDrain);
    output.off('error', this.#onError);
  }
}

/** The process's standard streams, or a test's. */
export interface StdioStreams {
  readonly input: NodeJS.ReadableStream & { isTTY?: boolean; setRawMode?(raw: boolean): unknown };
  readonly output: NodeJS.WritableStream & { isTTY?: boolean; readonly writableNeedDrain?: boolean };
  /** Ctrl-C was typed. */
  interrupt(): void;
}

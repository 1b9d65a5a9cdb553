/**
 * One person, or script, at the prompt. Lines run one after the other; while one runs, or while what was printed is not read, nothing
 * more is taken from the channel.
 */

import type { Channel, ChannelUser } from '../../chardev/index.ts';
import type { Handle } from '../../host-io/host-io.ts';
import type { Caller } from '../command.ts';
import type { Monitor } from '../monitor.ts';
import { LineEditor } from './line-editor.ts';
import { completions, runHmp } from './run.ts';

const PROMPT = '(netemu) ';

export class HmpSession implements ChannelUser, Caller {
  readonly monitor: Monitor;
  readonly #channel: Channel;
  readonly #editor: LineEditor;
  readonly #decoder = new TextDecoder();
  readonly #encoder = new TextEncoder();
  #out: Uint8Array = new Uint8Array(0);
  #sent = 0;
  /** Typed and not taken by the editor yet, since a line runs. */
  #typed = '';
  #running = false;
  #ended = false;
  #closed = false;
  #readingPaused = false;

  constructor(monitor: Monitor, channel: Channel, isTerminal: boolean) {
    this.monitor = monitor;
    this.#channel = channel;
    this.#editor = new LineEditor({
      prompt: PROMPT,
      echo: isTerminal,
      write: (text) => this.#write(text),
      entered: (line) => this.#run(line),
      ended: () => {
        if (isTerminal) this.#run('quit');
      },
      complete: (text) => completions(text, this),
    });
    this.#write(`netemu ${monitor.site.version} monitor - type 'help' for more information\n`);
    this.#editor.prompt();
  }

  takeFd(): Handle | undefined {
    const [first, ...rest] = this.#channel.takeFds();
    for (const fd of rest) this.monitor.network.context.hostIo?.close(fd);
    return first;
  }

  receive(bytes: Uint8Array, from: number, to: number): number {
    if (this.#running || this.#out.length > 0) {
      this.#readingPaused = true;
      return 0;
    }
    this.#typed += this.#decoder.decode(bytes.subarray(from, to), { stream: true });
    this.#takeTyped();
    return to - from;
  }

  /** Feeds the editor up to the end of a line that runs. */
  #takeTyped(): void {
    while (this.#typed !== '' && !this.#running && !this.#closed) {
      this.#typed = this.#typed.slice(this.#editor.type(this.#typed));
    }
  }

  #run(line: string): void {
    this.#running = true;
    void runHmp(line, this).then((text) => {
      this.#running = false;
      if (this.#closed) return;
      this.#write(text);
      this.#editor.prompt();
      this.#takeTyped();
      this.#goOn();
    });
  }

  #write(text: string): void {
    if (this.#closed || text === '') return;
    const bytes = this.#encoder.encode(text);
    if (this.#out.length === 0) {
      this.#out = bytes;
      this.#sent = 0;
    } else {
      const both = new Uint8Array(this.#out.length - this.#sent + bytes.length);
      both.set(this.#out.subarray(this.#sent));
      both.set(bytes, this.#out.length - this.#sent);
      this.#out = both;
      this.#sent = 0;
    }
    this.#flush();
  }

  #flush(): void {
    this.#sent += this.#channel.write(this.#out, this.#sent, this.#out.length);
    if (this.#sent < this.#out.length) return;
    this.#out = new Uint8Array(0);
    this.#sent = 0;
  }

  writable(): void {
    this.#flush();
    this.#goOn();
  }

  #goOn(): void {
    if (this.#running || this.#out.length > 0 || this.#closed) return;
    if (this.#readingPaused) {
      this.#readingPaused = false;
      this.#channel.resume();
    }
    if (this.#ended && !this.#running && this.#typed === '') {
      this.#closed = true;
      this.#channel.close();
    }
  }

  ended(): void {
    this.#ended = true;
    this.#goOn();
  }

  closed(): void {
    this.#closed = true;
  }
}

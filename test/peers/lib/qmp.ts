/** A QMP client for tests, on a socket or on a process's standard streams. */

import { once } from 'node:events';
import { connect } from 'node:net';
import type { Readable, Writable } from 'node:stream';

export type QmpMessage = { readonly [member: string]: unknown };

export class Qmp {
  readonly events: QmpMessage[] = [];
  readonly #out: Writable;
  readonly #replies: QmpMessage[] = [];
  #text = '';
  #wake: (() => void) | null = null;
  #ended = false;

  constructor(input: Readable, output: Writable) {
    this.#out = output;
    output.on('error', () => {});
    input.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString();
      const lines = this.#text.split('\n');
      this.#text = lines.pop()!;
      for (const line of lines) {
        if (line.trim() === '') continue;
        const message = JSON.parse(line) as QmpMessage;
        ('event' in message ? this.events : this.#replies).push(message);
      }
      this.#wake?.();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake?.();
    };
    input.on('end', end);
    input.on('close', end);
    input.on('error', end);
  }

  /** Connects once the socket is there, and negotiates with out-of-band execution. */
  static async connect(path: string): Promise<Qmp> {
    for (;;) {
      const socket = connect(path);
      const connected = await once(socket, 'connect').then(
        () => true,
        () => false,
      );
      if (connected) return await new Qmp(socket, socket).negotiate();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async negotiate(): Promise<this> {
    await this.#next();
    await this.ask({ execute: 'qmp_capabilities', arguments: { enable: ['oob'] } });
    return this;
  }

  async #next(): Promise<QmpMessage> {
    for (;;) {
      const reply = this.#replies.shift();
      if (reply !== undefined) return reply;
      if (this.#ended) throw new Error('the QMP connection ended');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Sends a request and returns its reply. */
  async ask(request: unknown): Promise<QmpMessage> {
    this.#out.write(`${JSON.stringify(request)}\n`);
    return await this.#next();
  }

  /** Runs a command that must succeed. */
  async run(execute: string, args: object = {}): Promise<unknown> {
    const reply = await this.ask({ execute, arguments: args });
    if ('error' in reply) throw new Error(`${execute}: ${JSON.stringify(reply.error)}`);
    return reply.return;
  }

  /** Waits until an event of this name has come; returns it. */
  async event(name: string): Promise<QmpMessage> {
    for (;;) {
      const found = this.events.find(({ event }) => event === name);
      if (found !== undefined) return found;
      if (this.#ended) throw new Error('the QMP connection ended');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(): void {
    this.#out.end();
  }
}

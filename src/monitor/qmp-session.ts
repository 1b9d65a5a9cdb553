/**
 * One QMP client.
 *
 *     bytes ─▶ JsonStream ─▶ requests, at most 8 unanswered ─▶ one command each turn of the loop ─▶ replies ─▶ channel
 *     events ───────────────────────────────────────────────────────────────────────────────────▶
 *
 * Bounded for a client that misbehaves: with 8 requests unanswered, or their replies unread, nothing more is read from it, so what it
 * sends waits in its own socket. Events go to a client only while little is waiting for it; those it misses are counted. Replies come in
 * the order of requests; only a command executed out of band may overtake others.
 */

import type { Channel, ChannelUser } from '../chardev/index.ts';
import { isJsonObject, type JsonObject, type JsonValue } from '../config/json.ts';
import { OptionError } from '../core/errors.ts';
import type { Handle } from '../host-io/host-io.ts';
import type { Caller } from './command.ts';
import { explain } from './errors.ts';
import { JsonStream } from './json-stream.ts';
import { jsonText } from './json-text.ts';
import type { EventListener, Monitor } from './monitor.ts';

const MAX_UNANSWERED = 8;
/** With this many bytes waiting for the client, it gets no events. */
const EVENT_LIMIT_BYTES = 65_536;
const MAX_FDS = 16;

/** A request that was understood, or the error that it is answered with. */
type Request =
  | { readonly command: string; readonly args: JsonObject; readonly id: JsonValue | undefined }
  | { readonly error: unknown; readonly id: JsonValue | undefined };

interface Outgoing {
  readonly bytes: Uint8Array;
  readonly isReply: boolean;
}

export class QmpSession implements ChannelUser, EventListener, Caller {
  readonly monitor: Monitor;
  readonly #channel: Channel;
  readonly #pretty: boolean;
  readonly #json = new JsonStream();
  readonly #encoder = new TextEncoder();
  readonly #requests: Request[] = [];
  readonly #out: Outgoing[] = [];
  readonly #fds: Handle[] = [];
  readonly #step = (): void => this.#runNext();
  /** Bytes of the first outgoing text that were sent. */
  #sent = 0;
  #outBytes = 0;
  #repliesWaiting = 0;
  /** A command runs, or is about to. */
  #busy = false;
  #negotiated = false;
  #oob = false;
  #ended = false;
  #closed = false;
  #readingPaused = false;

  constructor(monitor: Monitor, channel: Channel, pretty: boolean) {
    this.monitor = monitor;
    this.#channel = channel;
    this.#pretty = pretty;
    monitor.addSession(this);
    this.#send(monitor.greeting(), false);
  }

  takeFd(): Handle | undefined {
    this.#collectFds();
    return this.#fds.shift();
  }

  #collectFds(): void {
    for (const fd of this.#channel.takeFds()) {
      if (this.#fds.length < MAX_FDS) this.#fds.push(fd);
      else this.monitor.network.context.hostIo?.close(fd);
    }
  }

  // In.

  get #full(): boolean {
    return this.#requests.length + (this.#busy ? 1 : 0) + this.#repliesWaiting >= MAX_UNANSWERED;
  }

  receive(bytes: Uint8Array, from: number, to: number): number {
    let at = from;
    while (at < to && !this.#closed) {
      if (this.#full) {
        this.#readingPaused = true;
        return at - from;
      }
      const outcome = this.#json.push(bytes, at, to);
      at = this.#json.position;
      if (outcome === 'value') this.#request(this.#json.value);
      if (outcome === 'error') {
        this.monitor.stats.jsonErrors++;
        this.#enqueue({ error: new OptionError(this.#json.error), id: undefined });
      }
    }
    return to - from;
  }

  ended(): void {
    this.#ended = true;
    this.#closeWhenDone();
  }

  closed(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.monitor.removeSession(this);
    this.#requests.length = 0;
    this.#out.length = 0;
    for (const fd of this.#fds.splice(0)) this.monitor.network.context.hostIo?.close(fd);
  }

  #closeWhenDone(): void {
    if (!this.#ended || this.#closed || this.#busy || this.#requests.length > 0 || this.#out.length > 0)
      return;
    this.closed();
    this.#channel.close();
  }

  #request(value: JsonValue): void {
    const id = isJsonObject(value) ? value.id : undefined;
    let parsed: ReturnType<typeof parseRequest>;
    try {
      parsed = parseRequest(value, this.#oob);
    } catch (error) {
      this.#enqueue({ error, id });
      return;
    }
    const { command, args, oob } = parsed;
    if (!oob) {
      this.#enqueue({ command, args, id });
      return;
    }
    if (this.monitor.command(command) !== undefined && this.monitor.command(command)!.oob !== true) {
      this.#answerError(new OptionError(`The command ${command} does not support OOB`), id);
      return;
    }
    this.#execute({ command, args, id }, () => {});
  }

  #enqueue(request: Request): void {
    this.#requests.push(request);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#busy || this.#requests.length === 0) return;
    this.#busy = true;
    this.monitor.network.loop.post(this.#step);
  }

  #runNext(): void {
    const request = this.#requests.shift();
    if (request === undefined) {
      this.#busy = false;
      return;
    }
    this.#execute(request, () => {
      this.#busy = false;
      this.#schedule();
      this.#mayRead();
      this.#closeWhenDone();
    });
  }

  /** Runs one request, answers it, and calls `done`. */
  #execute(request: Request, done: () => void): void {
    const { id } = request;
    try {
      if ('error' in request) throw request.error;
      const result = this.#dispatch(request.command, request.args);
      if (result instanceof Promise) {
        result.then(
          (value: unknown) => {
            this.#answer(value, id);
            done();
          },
          (error: unknown) => {
            this.#answerError(error, id);
            done();
          },
        );
        return;
      }
      this.#answer(result, id);
    } catch (error) {
      this.#answerError(error, id);
    }
    done();
  }

  #dispatch(name: string, args: JsonObject): unknown {
    if (name === 'qmp_capabilities' && this.#negotiated) {
      throw new OptionError('Capabilities negotiation is already complete, command ignored', {
        qmpClass: 'CommandNotFound',
      });
    }
    if (this.#negotiated) return this.monitor.execute(name, args, this);
    if (name !== 'qmp_capabilities') {
      throw new OptionError("Expecting capabilities negotiation with 'qmp_capabilities'", {
        qmpClass: 'CommandNotFound',
      });
    }
    this.#oob = readCapabilities(args).includes('oob');
    this.#negotiated = true;
    return undefined;
  }

  // Out.

  #answer(value: unknown, id: JsonValue | undefined): void {
    this.#send({ return: this.monitor.written(value) ?? {}, id }, true);
  }

  #answerError(error: unknown, id: JsonValue | undefined): void {
    this.monitor.stats.commandErrors++;
    let told = explain(error);
    if (told === undefined) {
      this.monitor.network.context.log.error({ err: error }, 'a monitor command failed by a fault of netemu');
      told = { class: 'GenericError', desc: 'internal error' };
    }
    this.#send({ id, error: told }, true);
  }

  event(_name: string, message: object): void {
    if (!this.#negotiated || this.#closed) return;
    if (this.#outBytes > EVENT_LIMIT_BYTES) this.monitor.stats.dropEvents++;
    else this.#send(message, false);
  }

  #send(message: object, isReply: boolean): void {
    if (this.#closed) return;
    const bytes = this.#encoder.encode(`${jsonText(message, this.#pretty)}\r\n`);
    this.#out.push({ bytes, isReply });
    this.#outBytes += bytes.length;
    if (isReply) this.#repliesWaiting++;
    if (this.#out.length === 1) this.#flush();
  }

  #flush(): void {
    while (this.#out.length > 0 && !this.#closed) {
      const { bytes, isReply } = this.#out[0]!;
      const taken = this.#channel.write(bytes, this.#sent, bytes.length);
      this.#sent += taken;
      if (this.#sent < bytes.length) return;
      this.#sent = 0;
      this.#outBytes -= bytes.length;
      if (isReply) this.#repliesWaiting--;
      this.#out.shift();
    }
  }

  writable(): void {
    this.#flush();
    this.#mayRead();
    this.#closeWhenDone();
  }

  #mayRead(): void {
    if (!this.#readingPaused || this.#full || this.#closed) return;
    this.#readingPaused = false;
    this.#channel.resume();
  }
}

const MEMBERS = ['execute', 'exec-oob', 'arguments', 'id'];

/** What a request asks for. Throws OptionError with QEMU's sentences. */
function parseRequest(
  value: JsonValue,
  oobEnabled: boolean,
): { command: string; args: JsonObject; oob: boolean } {
  if (!isJsonObject(value)) throw new OptionError('QMP input must be a JSON object');
  for (const member of Object.keys(value)) {
    const known = MEMBERS.includes(member) && (oobEnabled || member !== 'exec-oob');
    if (!known) throw new OptionError(`QMP input member '${member}' is unexpected`);
  }
  const { execute, 'exec-oob': outOfBand, arguments: args } = value;
  if (execute !== undefined && outOfBand !== undefined) {
    throw new OptionError("QMP input member 'execute' clashes with 'exec-oob'");
  }
  const oob = outOfBand !== undefined;
  const name = oob ? outOfBand : execute;
  if (name === undefined) throw new OptionError("QMP input lacks member 'execute'");
  if (typeof name !== 'string') {
    throw new OptionError(`QMP input member '${oob ? 'exec-oob' : 'execute'}' must be a string`);
  }
  if (args !== undefined && !isJsonObject(args)) {
    throw new OptionError("QMP input member 'arguments' must be an object");
  }
  return { command: name, args: args ?? {}, oob };
}

function readCapabilities(args: JsonObject): string[] {
  for (const name of Object.keys(args)) {
    if (name !== 'enable') throw new OptionError(`Parameter '${name}' is unexpected`);
  }
  const { enable = [] } = args;
  if (!Array.isArray(enable)) throw new OptionError("Invalid parameter type for 'enable', expected: array");
  return enable.map((capability: unknown, index) => {
    if (typeof capability !== 'string') {
      throw new OptionError(`Invalid parameter type for 'enable[${index}]', expected: string`);
    }
    if (capability !== 'oob')
      throw new OptionError(`Parameter 'enable[${index}]' does not accept value '${capability}'`);
    return capability;
  });
}

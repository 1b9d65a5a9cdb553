/**
 * Reads one HTTP/1.1 message after the other from a stream (RFC 9112): the head, then a body that is as long as Content-Length says, chunked, or
 * ends with the connection. The body is handed on in place; the head is gathered, at most HEAD_MAX_BYTES of it.
 *
 * Where a lenient reading could be led astray it stops instead: a length that is no number or comes twice differently, an unknown transfer
 * coding, a chunk size that is none. Trailers are read and dropped.
 */

import type { ByteMemory } from '../../../core/copy.ts';
import { getLatin1 } from '../../../wire/bytes.ts';

const HEAD_MAX_BYTES = 32 << 10;
const LINE_MAX_BYTES = 4096;
const LF = 10;

export interface HttpHead {
  /** `HTTP/1.1 200 OK` or `GET / HTTP/1.1`. */
  readonly startLine: string;
  /** Names in lower case; repeated ones joined by a comma. */
  readonly headers: ReadonlyMap<string, string>;
  /** Of a response, else 0. */
  readonly status: number;
  readonly reason: string;
  /** Of a request, else ''. */
  readonly method: string;
  readonly target: string;
}

export interface HttpSink {
  head(head: HttpHead): void;
  /** Body bytes `memory.bytes[from .. from + length)`. */
  body(memory: ByteMemory, from: number, length: number): void;
  /** The message is complete. */
  end(): void;
  /** It is not HTTP; nothing more is read. */
  bad(why: string): void;
}

type State =
  | 'head'
  | 'length'
  | 'until-close'
  | 'chunk-size'
  | 'chunk'
  | 'chunk-end'
  | 'trailer'
  | 'ended'
  | 'bad';

export class HttpReader {
  state: State = 'head';
  /** Bytes of the body so far, and how many were promised (-1: not told). */
  bodyBytes = 0;
  promisedBytes = -1;

  readonly #request: boolean;
  readonly #sink: HttpSink;
  #text = '';
  #left = 0;

  constructor(kind: 'request' | 'response', sink: HttpSink) {
    this.#request = kind === 'request';
    this.#sink = sink;
  }

  /** Reads `memory.bytes[from..to)`. Returns how much it used: less than all only when the message ended before. */
  feed(memory: ByteMemory, from: number, to: number): number {
    let at = from;
    while (at < to && this.state !== 'ended' && this.state !== 'bad') {
      if (this.state === 'length' || this.state === 'chunk') {
        const part = Math.min(this.#left, to - at);
        this.#left -= part;
        this.#body(memory, at, part);
        at += part;
        if (this.#left === 0) {
          if (this.state === 'length') this.#end();
          else this.state = 'chunk-end';
        }
      } else if (this.state === 'until-close') {
        this.#body(memory, at, to - at);
        at = to;
      } else {
        at = this.#line(memory.bytes, at, to);
      }
    }
    return at - from;
  }

  /** The stream ended. */
  close(): void {
    if (this.state === 'until-close') this.#end();
  }

  #body(memory: ByteMemory, at: number, length: number): void {
    this.bodyBytes += length;
    this.#sink.body(memory, at, length);
  }

  #end(): void {
    this.state = 'ended';
    this.#sink.end();
  }

  #bad(why: string): void {
    this.state = 'bad';
    this.#sink.bad(why);
  }

  /** Gathers up to the end of a line (of the whole head in state `head`) and acts on it. Returns where it stopped. */
  #line(bytes: Uint8Array, at: number, to: number): number {
    let end = at;
    while (end < to && bytes[end] !== LF) end++;
    const complete = end < to;
    this.#text += getLatin1(bytes, at, (complete ? end + 1 : end) - at);
    const limit = this.state === 'head' ? HEAD_MAX_BYTES : LINE_MAX_BYTES;
    if (this.#text.length > limit) {
      this.#bad(`a line or head of more than ${limit} bytes`);
      return to;
    }
    if (!complete) return end;
    if (this.state === 'head') {
      const blank = this.#text.endsWith('\n\r\n') || this.#text.endsWith('\n\n');
      if (blank) this.#readHead();
      // RFC 9112 section 2.2: an empty line before a request is skipped.
      else if (this.#text === '\r\n' || this.#text === '\n') this.#text = '';
    } else {
      const line = this.#text.replace(/\r?\n$/, '');
      this.#text = '';
      this.#chunkLine(line);
    }
    return end + 1;
  }

  #chunkLine(line: string): void {
    if (this.state === 'chunk-end') {
      if (line !== '') this.#bad('a chunk that does not end where it should');
      else this.state = 'chunk-size';
    } else if (this.state === 'trailer') {
      if (line === '') this.#end();
    } else {
      const match = /^([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?$/.exec(line);
      if (match === null) {
        this.#bad('a chunk without a size');
        return;
      }
      this.#left = Number.parseInt(match[1], 16);
      this.state = this.#left === 0 ? 'trailer' : 'chunk';
    }
  }

  #readHead(): void {
    const lines = this.#text.split(/\r?\n/);
    this.#text = '';
    const startLine = lines[0];
    const headers = new Map<string, string>();
    for (const line of lines.slice(1)) {
      if (line === '') continue;
      const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line);
      if (match === null) {
        this.#bad('a header line that is none');
        return;
      }
      const name = match[1].toLowerCase();
      const before = headers.get(name);
      headers.set(name, before === undefined ? match[2] : `${before},${match[2]}`);
    }
    const request = /^([A-Z]+) (\S+) HTTP\/1\.[01]$/.exec(startLine);
    const response = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(startLine);
    if ((this.#request ? request : response) === null) {
      this.#bad(`not HTTP/1: ${JSON.stringify(startLine.slice(0, 40))}`);
      return;
    }
    const status = this.#request ? 0 : Number(response![1]);
    // An interim answer (100 Continue): the real one follows.
    if (!this.#request && status >= 100 && status < 200 && status !== 101) return;
    const head: HttpHead = {
      startLine,
      headers,
      status,
      reason: this.#request ? '' : (response![2] ?? ''),
      method: this.#request ? request![1] : '',
      target: this.#request ? request![2] : '',
    };
    this.#frame(head);
  }

  /** How long the body is (RFC 9112 section 6.3). */
  #frame(head: HttpHead): void {
    const coding = head.headers.get('transfer-encoding');
    const length = head.headers.get('content-length');
    const bodiless = head.status === 204 || head.status === 304;
    let state: State;
    if (bodiless) state = 'ended';
    else if (coding !== undefined) {
      if (coding.trim().toLowerCase() !== 'chunked') {
        this.#bad(`the transfer coding ${JSON.stringify(coding.slice(0, 40))}`);
        return;
      }
      state = 'chunk-size';
    } else if (length !== undefined) {
      const values = new Set(length.split(',').map((text) => text.trim()));
      const [value] = values;
      if (values.size !== 1 || !/^\d{1,15}$/.test(value)) {
        this.#bad('a Content-Length that is no number');
        return;
      }
      this.#left = Number(value);
      this.promisedBytes = this.#left;
      state = this.#left === 0 ? 'ended' : 'length';
    } else state = this.#request ? 'ended' : 'until-close';
    this.#sink.head(head);
    // The sink may have given up meanwhile.
    if (this.state === 'bad') return;
    if (state === 'ended') this.#end();
    else this.state = state;
  }

  /** Reads nothing more: whoever listens has enough. */
  stop(): void {
    this.state = 'bad';
  }
}

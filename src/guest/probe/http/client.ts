/**
 * One HTTP exchange of the probe: GET, or PUT of a source's bytes, over one connection that ends with it. It ends in exactly one outcome: a status with
 * the body's length and hash, or the problem as what it is. Whoever makes no progress for `timeoutNs` is given up.
 */

import type { ByteMemory } from '../../../core/copy.ts';
import type { Loop, Timer } from '../../../core/loop.ts';
import { ROOM } from '../../../core/pool.ts';
import type { CloseReason, Connection } from '../../../tcp/connection.ts';
import { HEADER_ROOM } from '../../../tcp/stack.ts';
import { putLatin1 } from '../../../wire/bytes.ts';
import { type CreateHash, StreamHash } from '../hash.ts';
import { formatEndpoint, type IpAddress } from '../net/address.ts';
import type { OpenFailure, ProbeTcp, TcpClient, TcpHandle } from '../net/tcp.ts';
import { formatNs } from '../report.ts';
import type { ByteSource } from '../source.ts';
import { eachRun, payloadFrame, payloadPlace, sendPayload, waitForBuffers } from './frames.ts';
import { type HttpHead, HttpReader, type HttpSink } from './reader.ts';

export interface HttpRequest {
  readonly method: 'GET' | 'PUT';
  readonly address: IpAddress;
  readonly port: number;
  /** As the Host header says it. */
  readonly authority: string;
  readonly path: string;
  /** What PUT sends. */
  readonly source: ByteSource | null;
}

export interface HttpOutcome {
  /** '' when the exchange came to its end, whatever the status. */
  readonly problem: string;
  readonly status: number;
  readonly reason: string;
  /** Of the body received (GET) or sent (PUT). */
  readonly bytes: number;
  readonly sha256: string;
  readonly elapsedNs: number;
}

export class HttpExchange implements TcpClient, HttpSink {
  readonly #tcp: ProbeTcp;
  readonly #loop: Loop;
  readonly #request: HttpRequest;
  readonly #timeoutNs: number;
  readonly #done: (outcome: HttpOutcome) => void;
  readonly #reader: HttpReader;
  readonly #hash: StreamHash;
  readonly #timer: Timer;
  readonly #startNs: number;
  readonly #show: (memory: ByteMemory, at: number, length: number) => void;
  #handle: TcpHandle | null = null;
  #connection: Connection | null = null;
  #status = 0;
  #reason = '';
  #sentBytes = 0;
  #progressNs = 0;
  #ended = false;

  constructor(
    tcp: ProbeTcp,
    loop: Loop,
    request: HttpRequest,
    createHash: CreateHash,
    timeoutNs: number,
    done: (outcome: HttpOutcome) => void,
  ) {
    this.#tcp = tcp;
    this.#loop = loop;
    this.#request = request;
    this.#timeoutNs = timeoutNs;
    this.#done = done;
    this.#reader = new HttpReader('response', this);
    this.#hash = new StreamHash(createHash);
    this.#timer = loop.timer(() => this.#timeout());
    this.#startNs = loop.clock.nowNs();
    this.#show = (memory, at, length) => {
      // All payload here lies in the packet buffers; what is left after the end is not read.
      this.#reader.feed(memory, at, at + length);
    };
  }

  start(): void {
    this.#progressNs = this.#startNs;
    this.#timer.arm(this.#startNs + this.#timeoutNs);
    this.#handle = this.#tcp.open(this.#request.address, this.#request.port, this);
  }

  /** Ends it without an outcome. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timer.cancel();
    if (this.#handle !== null) this.#tcp.abort(this.#handle);
  }

  get #where(): string {
    return formatEndpoint(this.#request.address, this.#request.port);
  }

  get #bytes(): number {
    return this.#request.method === 'GET' ? this.#reader.bodyBytes : this.#sentBytes;
  }

  #finish(problem: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timer.cancel();
    this.#reader.stop();
    const handle = this.#handle!;
    // A finished exchange ends with FIN, anything else with a reset.
    if (problem === '' && this.#connection !== null) {
      this.#tcp.done(handle);
      this.#connection.close();
    } else this.#tcp.abort(handle);
    this.#done({
      problem,
      status: this.#status,
      reason: this.#reason,
      bytes: this.#bytes,
      sha256: this.#hash.digest(),
      elapsedNs: this.#loop.clock.nowNs() - this.#startNs,
    });
  }

  /** The timer is not moved for every segment: it looks, when it fires, whether there was progress. */
  #timeout(): void {
    const untilNs = this.#progressNs + this.#timeoutNs;
    if (this.#loop.clock.nowNs() < untilNs) {
      this.#timer.arm(untilNs);
      return;
    }
    const silence = formatNs(this.#timeoutNs);
    if (this.#connection === null) this.#finish(`timeout: ${this.#where} did not answer within ${silence}`);
    else this.#finish(`timeout: no progress with ${this.#where} for ${silence}, after ${this.#bytes} bytes`);
  }

  // From TCP.

  failed(reason: OpenFailure): void {
    if (reason === 'refused') this.#finish(`connection refused by ${this.#where}`);
    else if (reason === 'no-route') this.#finish(`no route to ${this.#where}`);
    else if (reason === 'no-port') this.#finish('no free local port');
    else if (reason === 'prohibited') this.#finish(`${this.#where} unreachable: prohibited by a gateway`);
    else this.#finish(`host unreachable: ${this.#where}`);
  }

  established(connection: Connection): void {
    this.#connection = connection;
    this.#progressNs = this.#loop.clock.nowNs();
    const { method, path, authority, source } = this.#request;
    const length =
      source === null
        ? ''
        : `Content-Length: ${source.sizeBytes}\r\nContent-Type: application/octet-stream\r\n`;
    const head = `${method} ${path} HTTP/1.1\r\nHost: ${authority}\r\nUser-Agent: netemu-probe\r\nAccept: */*\r\n${length}Connection: close\r\n\r\n`;
    const bytes = new Uint8Array(head.length);
    putLatin1(bytes, 0, head);
    if (connection.write(bytes, 0, bytes.length) < bytes.length) this.#finish('no buffer for the request');
  }

  sendReady(connection: Connection): void {
    const { source } = this.#request;
    if (source === null || this.#ended) return;
    const { pool } = connection.stack;
    while (this.#sentBytes < source.sizeBytes) {
      const room = Math.min(connection.sendRoom(), connection.unitBytes, source.sizeBytes - this.#sentBytes);
      if (room <= 0) return;
      const frame = payloadFrame(connection, room);
      if (frame === 0) {
        waitForBuffers(connection);
        return;
      }
      const place = payloadPlace(pool, frame);
      const part = Math.min(room, pool.table[frame + ROOM] - HEADER_ROOM);
      const given = source.read(this.#sentBytes, pool.bytes, place, place + part);
      if (given <= 0) {
        pool.release(frame);
        this.#finish('the file to upload became shorter, or cannot be read');
        return;
      }
      this.#hash.update(pool.memories[0], place, given);
      this.#sentBytes += given;
      this.#progressNs = this.#loop.clock.nowNs();
      sendPayload(connection, frame, given);
    }
  }

  deliver(connection: Connection, frames: Int32Array, from: number, to: number, skip: number): number {
    this.#progressNs = this.#loop.clock.nowNs();
    return eachRun(connection.stack.pool, frames, from, to, skip, this.#show);
  }

  peerClosed(): void {
    if (this.#ended) return;
    this.#reader.close();
    if (this.#ended) return;
    const { promisedBytes, bodyBytes, state } = this.#reader;
    const got =
      state === 'head'
        ? 'before its answer'
        : promisedBytes >= 0
          ? `after ${bodyBytes} of ${promisedBytes} bytes`
          : `in the middle of a chunk, after ${bodyBytes} bytes`;
    this.#finish(`${this.#where} closed the connection ${got}`);
  }

  closed(_connection: Connection, reason: CloseReason): void {
    this.#tcp.done(this.#handle!);
    if (reason === 'refused') this.#finish(`connection refused by ${this.#where}`);
    else if (reason === 'reset')
      this.#finish(`connection reset by ${this.#where} after ${this.#bytes} bytes`);
    else if (reason === 'timeout' && this.#connection === null)
      this.#finish(`timeout: ${this.#where} did not answer`);
    else if (reason === 'timeout')
      this.#finish(`timeout: ${this.#where} answers no more, after ${this.#bytes} bytes`);
    else this.#finish(`${this.#where} closed the connection after ${this.#bytes} bytes`);
  }

  // From the reader.

  head(head: HttpHead): void {
    this.#status = head.status;
    this.#reason = head.reason;
  }

  body(memory: ByteMemory, from: number, length: number): void {
    if (this.#request.method === 'GET') this.#hash.update(memory, from, length);
  }

  end(): void {
    // An answer before the upload's end is the answer.
    this.#finish('');
  }

  bad(why: string): void {
    this.#finish(`${this.#where} sent a bad answer: ${why}`);
  }
}

/**
 * One client's connection: messages in, replies out, and requests of our own.
 *
 * What arrives is kept in one buffer and walked in place. A receive takes whatever the socket has: many posted register writes cost one system call. The
 * kernel never lets bytes of two messages with descriptors run together, and ends a receive behind a message that brought some; so descriptors belong to the
 * last message that begins in what one call returned.
 *
 * Replies gather in an array and leave in one send when everything received has been handled, or before we wait for the client. While the client does not
 * take them we read nothing more from it.
 *
 * `request` asks the client and waits for the answer, with this thread standing still: DMA to memory that the client did not share by descriptor has
 * no other way (device models reach memory synchronously). Commands that come in front of the answer are handled at once, in order, from within: the client may be
 * unable to answer us before its virtual CPU has been answered. So a command may be handled in the middle of another one's DMA, which a device model must
 * bear (as it must a reset from within a callback).
 *
 * In the buffer, what lies before `floor` belongs to commands that are being handled; from there to `next` everything is done, from `next` to `end` nothing is.
 */

import type { Loop } from '../../core/loop.ts';
import { ERRNO, type Handle, type HostIo, READABLE, WRITABLE } from '../../host-io/host-io.ts';
import {
  COMMAND,
  ERROR,
  FLAG_ERROR,
  FLAGS,
  HEADER_BYTES,
  ID,
  MAX_MESSAGE_BYTES,
  MAX_MESSAGE_FDS,
  SIZE,
  TYPE_COMMAND,
  TYPE_MASK,
  TYPE_REPLY,
} from './protocol.ts';

const FIRST_BUFFER_BYTES = 1 << 16;
/** Bytes in the buffer while commands are handled within commands: no more than this. */
const BUFFER_LIMIT = 4 * MAX_MESSAGE_BYTES;
/** Commands handled within the DMA of another, at most so deep. */
const DEPTH_LIMIT = 16;
/** A client that leaves a request unanswered for so long is given up. */
const REQUEST_TIMEOUT_MS = 5000;
/** What a connection tells its owner. */
export interface Messages {
  /**
   * A whole command lies at `at` in `wire.view`, its payload from `at + HEADER_BYTES` to `end`. `fds` are the handler's to close; `excessFds` more came than any
   * message may bring, and are closed already.
   */
  command(at: number, end: number, fds: readonly Handle[], excessFds: number): void;
  /** The client left, or cannot be understood; called once. */
  closed(reason: string): void;
}

/** Descriptors that came with the message at `at`. */
interface Passed {
  at: number;
  fds: Handle[];
  excess: number;
}

export class WireStats {
  messages = 0;
  replies = 0;
  errorReplies = 0;
  requests = 0;
  /** Replies that nobody asked for. */
  strayReplies = 0;
  receives = 0;
  sends = 0;
}

export class Wire {
  view: DataView;
  bytes: Uint8Array;
  open = true;
  readonly stats: WireStats;
  readonly #hostIo: HostIo;
  readonly #handle: Handle;
  readonly #loop: Loop;
  readonly #messages: Messages;
  /** See above. */
  #floor = 0;
  #next = 0;
  #end = 0;
  /** Commands being handled, each but the first within the DMA of the one before. */
  #depth = 0;
  #resumes = false;
  readonly #fds: Passed[] = [];
  #out = new Uint8Array(FIRST_BUFFER_BYTES);
  #outView = new DataView(this.#out.buffer);
  #outFrom = 0;
  /** Bytes of `out` up to here may be sent; behind is the reply of the current command, until that is done. */
  #outWhole = 0;
  #outTo = 0;
  #requestId = 0;
  /** Requests that wait, and answers to outer ones that came while an inner one was waiting. */
  readonly #waiting = new Set<number>();
  readonly #answers = new Map<number, Uint8Array>();

  constructor(hostIo: HostIo, handle: Handle, loop: Loop, messages: Messages, stats: WireStats) {
    this.#hostIo = hostIo;
    this.#loop = loop;
    this.#handle = handle;
    this.#messages = messages;
    this.stats = stats;
    this.bytes = new Uint8Array(FIRST_BUFFER_BYTES);
    this.view = new DataView(this.bytes.buffer);
    hostIo.watch(handle, READABLE, (ready) => this.#ready(ready));
  }

  /** Closes the socket and every descriptor that waits with a message. */
  close(reason: string): void {
    if (!this.open) return;
    this.open = false;
    for (const { fds } of this.#fds.splice(0)) for (const fd of fds) this.#hostIo.close(fd);
    this.#hostIo.close(this.#handle);
    this.#messages.closed(reason);
  }

  #ready(ready: number): void {
    if (!this.open) return;
    if (this.#outWhole > this.#outFrom) {
      this.#flush();
      if (!this.open || this.#outWhole > this.#outFrom) return;
    }
    if ((ready & ~WRITABLE) === 0) return;
    const got = this.#receive();
    if (!this.open) return;
    this.#handleAll();
    if (got === 0) this.close('the client left');
  }

  /** One receive behind what there is; returns the bytes, or a negative errno when there are none now. 0: the end. */
  #receive(): number {
    this.stats.receives++;
    if (this.#next === this.#end) {
      this.#next = this.#floor;
      this.#end = this.#floor;
    }
    if (this.#end === this.bytes.length) this.#makeRoom(this.#end, FIRST_BUFFER_BYTES);
    const target = this.#end === 0 ? this.bytes : this.bytes.subarray(this.#end);
    const { bytes, fds, excessFds } = this.#hostIo.receiveWithFds(this.#handle, target, MAX_MESSAGE_FDS);
    if (bytes < 0) {
      if (bytes !== -ERRNO.EAGAIN && bytes !== -ERRNO.EINTR)
        this.close(`receiving failed with errno ${-bytes}`);
      return bytes;
    }
    const from = this.#end;
    this.#end += bytes;
    if (fds.length + excessFds > 0) this.#fds.push({ at: this.#lastStart(from), fds, excess: excessFds });
    return bytes;
  }

  /** Where the last message begins that has a byte at or behind `from`. */
  #lastStart(from: number): number {
    let at = this.#next;
    while (at + HEADER_BYTES <= this.#end) {
      const next = at + this.view.getUint32(at + SIZE, true);
      if (next >= this.#end || next < at + HEADER_BYTES) break;
      at = next;
    }
    return this.#end > from ? at : this.#next;
  }

  /** The end of the whole message at `at`, or 0 when it is not all there. Makes room for one that does not fit. */
  #messageEnd(at: number): number {
    if (at + HEADER_BYTES > this.#end) {
      this.#makeRoom(at, HEADER_BYTES);
      return 0;
    }
    const size = this.view.getUint32(at + SIZE, true);
    if (at + size <= this.#end) return at + size;
    if (size <= MAX_MESSAGE_BYTES) this.#makeRoom(at, size);
    return 0;
  }

  #makeRoom(at: number, size: number): void {
    if (at + size <= this.bytes.length) return;
    const larger = new Uint8Array(Math.max(2 * this.bytes.length, at + size));
    larger.set(this.bytes.subarray(0, this.#end));
    this.bytes = larger;
    this.view = new DataView(larger.buffer);
  }

  #handleAll(): void {
    while (this.open && this.#takeMessage() !== 0);
    if (!this.open) return;
    this.#compact();
    this.#flush();
  }

  /** Handles the next message when it is all there; returns its command number, REPLY_TAKEN for a reply, or 0 when there is none. */
  #takeMessage(): number {
    const at = this.#next;
    if (at + HEADER_BYTES <= this.#end && !this.#sizeIsSane(at)) return 0;
    const end = this.#messageEnd(at);
    if (end === 0) return 0;
    this.#next = end;
    const { fds, excess } = this.#fdsOf(at);
    if ((this.view.getUint32(at + FLAGS, true) & TYPE_MASK) !== TYPE_COMMAND) {
      for (const fd of fds) this.#hostIo.close(fd);
      this.#takeReply(at, end);
      return REPLY_TAKEN;
    }
    this.stats.messages++;
    const floor = this.#floor;
    this.#floor = end;
    this.#depth++;
    this.#messages.command(at, end, fds, excess);
    this.#depth--;
    this.#floor = floor;
    this.#outWhole = this.#outTo;
    return this.view.getUint16(at + COMMAND, true) + 1;
  }

  #takeReply(at: number, end: number): void {
    const id = this.view.getUint16(at + ID, true);
    const isReply = (this.view.getUint32(at + FLAGS, true) & TYPE_MASK) === TYPE_REPLY;
    if (!isReply || !this.#waiting.delete(id)) this.stats.strayReplies++;
    else this.#answers.set(id, this.bytes.slice(at, end));
  }

  /** A message that cannot be delimited ends the connection: nothing behind it can be trusted. It gets its error reply all the same. */
  #sizeIsSane(at: number): boolean {
    const size = this.view.getUint32(at + SIZE, true);
    if (sane(size)) return true;
    this.replyError(at, size < HEADER_BYTES ? ERRNO.EINVAL : ERRNO.EMSGSIZE);
    this.#outWhole = this.#outTo;
    this.#flush();
    this.close(`a message says that it is ${size} bytes long`);
    return false;
  }

  /** Takes what came with the message at `at`, by however many receives. */
  #fdsOf(at: number): Passed {
    if (this.#fds.length === 0) return NO_FDS;
    const all: Passed = { at, fds: [], excess: 0 };
    for (let i = 0; i < this.#fds.length; ) {
      const one = this.#fds[i]!;
      if (one.at !== at) {
        i++;
        continue;
      }
      all.fds.push(...one.fds);
      all.excess += one.excess;
      this.#fds.splice(i, 1);
    }
    return all;
  }

  /** Moves a message that has only begun to arrive to the front. */
  #compact(): void {
    const from = this.#next;
    if (from === 0) return;
    if (this.#end > from) this.bytes.copyWithin(0, from, this.#end);
    this.#end -= from;
    this.#next = 0;
    for (const entry of this.#fds) entry.at -= from;
  }

  // Out.

  /**
   * Begins a reply to the command at `at` with `payloadBytes` of payload, zeroed; returns where the payload is in `out`. The reply is complete when
   * its payload is.
   */
  reply(at: number, payloadBytes: number): number {
    this.stats.replies++;
    return this.#put(
      this.view.getUint16(at + ID, true),
      this.view.getUint16(at + COMMAND, true),
      TYPE_REPLY,
      0,
      payloadBytes,
    );
  }

  replyError(at: number, errno: number): void {
    this.stats.errorReplies++;
    this.#put(
      this.view.getUint16(at + ID, true),
      this.view.getUint16(at + COMMAND, true),
      TYPE_REPLY | FLAG_ERROR,
      errno,
      0,
    );
  }

  /** Takes back the reply that the current command has begun: it turned out to be bad, or wants none. */
  withdraw(): void {
    if (this.#outTo > this.#outWhole) this.stats.replies--;
    this.#outTo = this.#outWhole;
  }

  get out(): Uint8Array {
    return this.#out;
  }

  get outView(): DataView {
    return this.#outView;
  }

  #put(id: number, command: number, flags: number, errno: number, payloadBytes: number): number {
    const at = this.#outTo;
    const size = HEADER_BYTES + payloadBytes;
    if (at + size > this.#out.length) {
      const larger = new Uint8Array(Math.max(2 * this.#out.length, at + size));
      larger.set(this.#out.subarray(0, at));
      this.#out = larger;
      this.#outView = new DataView(larger.buffer);
    }
    writeHeader(this.#outView, at, id, command, size, flags, errno);
    this.#out.fill(0, at + HEADER_BYTES, at + size);
    this.#outTo = at + size;
    return at + HEADER_BYTES;
  }

  /** Sends what is whole; what the socket does not take is sent when it can. */
  #flush(): void {
    while (this.#outWhole > this.#outFrom) {
      this.stats.sends++;
      const sent = this.#hostIo.sendBytes(this.#handle, this.#out, this.#outFrom, this.#outWhole);
      if (sent === -ERRNO.EAGAIN) {
        this.#hostIo.setInterest(this.#handle, WRITABLE);
        return;
      }
      if (sent < 0) {
        this.close(`sending failed with errno ${-sent}`);
        return;
      }
      this.#outFrom += sent;
    }
    this.#hostIo.setInterest(this.#handle, READABLE);
    if (this.#outFrom !== this.#outTo) return;
    this.#outFrom = 0;
    this.#outTo = 0;
    this.#outWhole = 0;
  }

  // Requests of our own.

  /**
   * Sends `command` with `payload` and waits for its reply. Returns the payload of the reply, or null when it is an error, has less than `replyBytes` of
   * payload, or does not come.
   */
  request(command: number, payload: Uint8Array, replyBytes: number): Uint8Array | null {
    if (!this.open || this.#depth > DEPTH_LIMIT) return null;
    this.stats.requests++;
    this.#requestId = (this.#requestId + 1) & 0xffff;
    const id = this.#requestId;
    const message = new Uint8Array(HEADER_BYTES + payload.length);
    writeHeader(new DataView(message.buffer), 0, id, command, message.length, TYPE_COMMAND, 0);
    message.set(payload, HEADER_BYTES);
    this.#flushAll();
    for (let done = 0; this.open && done < message.length; ) {
      const sent = this.#hostIo.sendBytes(this.#handle, message, done, message.length);
      if (sent >= 0) done += sent;
      else if (sent === -ERRNO.EAGAIN) this.#awaitRoom();
      else this.close(`sending failed with errno ${-sent}`);
    }
    this.#waiting.add(id);
    this.#awaitAnswer(id);
    this.#waiting.delete(id);
    const answer = this.#answers.get(id);
    this.#answers.delete(id);
    if (this.#depth === 0) this.#resume();
    if (answer === undefined || answer.length < HEADER_BYTES + replyBytes) return null;
    const view = new DataView(answer.buffer);
    const failed = (view.getUint32(FLAGS, true) & FLAG_ERROR) !== 0;
    return failed || view.getUint16(COMMAND, true) !== command ? null : answer.subarray(HEADER_BYTES);
  }

  /** Receives and handles until the answer is there, or the connection has ended. */
  #awaitAnswer(id: number): void {
    while (this.open && !this.#answers.has(id)) {
      const taken = this.#takeMessage();
      if (taken === REPLY_TAKEN || !this.open) continue;
      if (taken !== 0) {
        this.#flushAll();
        continue;
      }
      if (this.#end >= BUFFER_LIMIT) {
        this.close('too many commands in front of a reply');
        return;
      }
      const got = this.#receive();
      if (got === 0) this.close('the client left');
      else if (
        got < 0 &&
        this.open &&
        this.#hostIo.waitReady(this.#handle, READABLE, REQUEST_TIMEOUT_MS) === 0
      ) {
        this.close('the client does not answer');
      }
    }
  }

  /** Commands that came behind an answer, which the socket will not tell of again, are handled in the next turn. */
  #resume(): void {
    if (this.#resumes || !this.open || (this.#next === this.#end && this.#outWhole === this.#outFrom)) return;
    this.#resumes = true;
    this.#loop.post(() => {
      this.#resumes = false;
      if (this.open) this.#handleAll();
    });
  }

  #flushAll(): void {
    this.#flush();
    while (this.open && this.#outWhole > this.#outFrom) {
      this.#awaitRoom();
      if (this.open) this.#flush();
    }
  }

  #awaitRoom(): void {
    if (this.#hostIo.waitReady(this.#handle, WRITABLE, REQUEST_TIMEOUT_MS) === 0)
      this.close('the client takes no request');
  }
}

/** No command's number plus one. */
const REPLY_TAKEN = -1;
const NO_FDS: Passed = { at: 0, fds: [], excess: 0 };

function writeHeader(
  view: DataView,
  at: number,
  id: number,
  command: number,
  size: number,
  flags: number,
  errno: number,
): void {
  view.setUint16(at + ID, id, true);
  view.setUint16(at + COMMAND, command, true);
  view.setUint32(at + SIZE, size, true);
  view.setUint32(at + FLAGS, flags, true);
  view.setUint32(at + ERROR, errno, true);
}

function sane(size: number): boolean {
  return size >= HEADER_BYTES && size <= MAX_MESSAGE_BYTES;
}

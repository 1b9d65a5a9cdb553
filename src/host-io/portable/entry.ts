/**
 * One open thing of the portable host I/O. Node pushes; host I/O's callers pull: an entry keeps what was pushed in a bounded buffer and tells
 * its `EntryOwner` whenever its readiness may have changed. Errors of the network wait in `error` for whoever asks first.
 */

import type { FramePool } from '../../core/pool.ts';
import { LENGTH, NEXT, OFFSET, RECORD_WORDS, REFS, ROOM, SLOT, TOTAL } from '../../core/pool.ts';
import { type Endpoint, ERRNO, type Handle } from '../host-io.ts';

/** What an entry needs of its host. */
export interface EntryOwner {
  /** The entry's readiness may have changed. */
  changed(entry: Entry): void;
  readonly pool: FramePool | null;
}

export abstract class Entry {
  readonly owner: EntryOwner;
  handle: Handle = 0;
  /** A positive errno that nobody has been told, or 0. */
  error = 0;
  closed = false;

  constructor(owner: EntryOwner) {
    this.owner = owner;
  }

  abstract get readable(): boolean;
  abstract get writable(): boolean;
  get hungUp(): boolean {
    return false;
  }
  /** Keeps the process alive, or not. */
  abstract keepAlive(yes: boolean): void;
  abstract close(): void;
  abstract get pendingBytes(): number;
  /** Null when there is none (yet). */
  abstract get local(): Endpoint | null;
  abstract get remote(): Endpoint | null;

  takeError(): number {
    const error = this.error;
    this.error = 0;
    return error;
  }

  protected fail(error: number): void {
    if (this.closed) return;
    if (this.error === 0) this.error = error;
    this.owner.changed(this);
  }
}

/** True when every one of frames[from..to) is a record of the pool. */
export function areFrames(
  pool: FramePool | null,
  frames: Int32Array,
  from: number,
  to: number,
): pool is FramePool {
  if (pool === null || !(from >= 0 && from <= to && to <= frames.length)) return false;
  for (let i = from; i < to; i++) {
    const frame = frames[i]!;
    if (frame <= 0 || frame % RECORD_WORDS !== 0 || frame >= pool.table.length) return false;
  }
  return true;
}

/** A frame's length by its segments, or -1 for a chain that does not end. */
export function segmentBytes(pool: FramePool, frame: number): number {
  const t = pool.table;
  let bytes = 0;
  let steps = 0;
  for (let s = frame; s !== 0; s = t[s + NEXT]!) {
    if (++steps > 1024) return -1;
    bytes += t[s + LENGTH]!;
  }
  return bytes;
}

/**
 * Puts a received message into the slot of `frame` at `at` and sets OFFSET, LENGTH and TOTAL; what is too long goes on in spill[i], which is
 * chained behind and becomes 0. False when it does not fit.
 */
export function fillFrame(
  pool: FramePool,
  frame: number,
  at: number,
  message: Uint8Array,
  spill?: Int32Array,
  i = 0,
): boolean {
  const t = pool.table;
  const room = t[frame + ROOM]! - at;
  const start = t[frame + SLOT]! + at;
  const more = spill?.[i] ?? 0;
  if (message.length > room) {
    const rest = message.length - room;
    if (room < 0 || more === 0 || rest > t[more + ROOM]!) return false;
    pool.bytes.set(message.subarray(room), t[more + SLOT]!);
    t[more + OFFSET] = t[more + SLOT]!;
    t[more + LENGTH] = rest;
    t[more + REFS] = 0;
    t[frame + NEXT] = more;
    spill![i] = 0;
  }
  const first = Math.min(room, message.length);
  pool.bytes.set(first === message.length ? message : message.subarray(0, first), start);
  t[frame + OFFSET] = start;
  t[frame + LENGTH] = first;
  t[frame + TOTAL] = message.length;
  return true;
}

/** A message of its own for one frame, behind its header; null for a broken chain. */
export function frameMessage(
  pool: FramePool,
  frame: number,
  headers: Uint8Array | undefined,
  headerBytes: number,
  i: number,
): Uint8Array | null {
  const length = segmentBytes(pool, frame);
  if (length < 0) return null;
  const ahead = headers === undefined ? 0 : headerBytes;
  const message = new Uint8Array(ahead + length);
  if (headers !== undefined) message.set(headers.subarray(i * headerBytes, (i + 1) * headerBytes));
  pool.read(frame, 0, message, ahead, length);
  return message;
}

/** Messages that wait to be received, within a bound; the portable stand-in for a socket's receive buffer. */
export class MessageQueue {
  readonly #limitBytes: number;
  #messages: { bytes: Uint8Array; from: Endpoint | null }[] = [];
  #head = 0;
  #bytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** False (and dropped) when the queue is full. A short message counts for more than its bytes, as in a kernel. */
  push(bytes: Uint8Array, from: Endpoint | null): boolean {
    const cost = bytes.length + 256;
    if (this.#bytes + cost > this.#limitBytes) return false;
    this.#bytes += cost;
    this.#messages.push({ bytes, from });
    return true;
  }

  get first(): { bytes: Uint8Array; from: Endpoint | null } | undefined {
    return this.#messages[this.#head];
  }

  drop(): void {
    this.#bytes -= this.#messages[this.#head]!.bytes.length + 256;
    this.#head++;
    if (this.#head > 64 && this.#head * 2 > this.#messages.length) {
      this.#messages = this.#messages.slice(this.#head);
      this.#head = 0;
    }
  }
}

export const AGAIN = -ERRNO.EAGAIN;
export const INVALID = -ERRNO.EINVAL;

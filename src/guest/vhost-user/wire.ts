/**
 * One connection with a front-end: whole messages in, replies out.
 *
 * A message is received header first, then payload, so that descriptors, which the kernel hands over with the first byte of the message that brought them, always belong to
 * the message being received. Replies are a few bytes each: a front-end that leaves so many unread that the socket takes no more is given up.
 */

import type { Handle, HostIo } from '../../host-io/host-io.ts';
import { ERRNO, READABLE } from '../../host-io/host-io.ts';
import {
  FLAG_REPLY,
  FLAGS,
  HEADER_BYTES,
  MAX_FDS,
  MAX_PAYLOAD_BYTES,
  REQUEST,
  SIZE,
  VERSION,
  VERSION_MASK,
} from '../../virtio/vhost-user.ts';

/** Messages handled before others have their turn. */
const PASS_MESSAGES = 64;
const REPLY_MAX_BYTES = 64;
const NO_FDS: readonly Handle[] = [];

export class WireStats {
  messages = 0;
  replies = 0;
  /** Messages that were answered with an error, or ended the connection. */
  badMessages = 0;
}

export interface Messages {
  /** A whole message: its payload lies in `view` behind the header. `fds` are the handler's to close. `excessFds` more came than any message may bring, and are closed already. */
  message(request: number, flags: number, bytes: number, fds: Handle[], excessFds: number): void;
  /** The front-end left, or cannot be understood; called once. */
  closed(reason: string): void;
}

export class Wire {
  readonly bytes = new Uint8Array(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  readonly view = new DataView(this.bytes.buffer);
  open = true;
  readonly #hostIo: HostIo;
  readonly #handle: Handle;
  readonly #messages: Messages;
  readonly #stats: WireStats;
  #have = 0;
  #fds: Handle[] = [];
  #excessFds = 0;
  readonly #out = new Uint8Array(REPLY_MAX_BYTES);
  readonly #outView = new DataView(this.#out.buffer);

  constructor(hostIo: HostIo, handle: Handle, messages: Messages, stats: WireStats) {
    this.#hostIo = hostIo;
    this.#handle = handle;
    this.#messages = messages;
    this.#stats = stats;
    hostIo.watch(handle, READABLE, () => this.#ready());
  }

  /** Closes the socket and every descriptor that came with half a message. */
  close(reason: string): void {
    if (!this.open) return;
    this.open = false;
    for (const fd of this.#fds.splice(0)) this.#hostIo.close(fd);
    this.#hostIo.close(this.#handle);
    this.#messages.closed(reason);
  }

  #ready(): void {
    for (let done = 0; this.open && done < PASS_MESSAGES; done++) {
      if (!this.#fill(HEADER_BYTES)) return;
      const flags = this.view.getUint32(FLAGS, true);
      const size = this.view.getUint32(SIZE, true);
      if ((flags & (VERSION_MASK | FLAG_REPLY)) !== VERSION || size > MAX_PAYLOAD_BYTES) {
        this.close(`a message of no known version, or of ${size} bytes`);
        return;
      }
      if (!this.#fill(HEADER_BYTES + size)) return;
      const fds = this.#fds;
      const excess = this.#excessFds;
      this.#have = 0;
      this.#fds = [];
      this.#excessFds = 0;
      this.#stats.messages++;
      this.#messages.message(this.view.getUint32(REQUEST, true), flags, size, fds, excess);
    }
  }

  /** Receives until `wanted` bytes of the message are there; false when they are not, yet or ever. */
  #fill(wanted: number): boolean {
    while (this.#have < wanted) {
      const target = this.bytes.subarray(this.#have, wanted);
      const { bytes, fds, excessFds } = this.#hostIo.receiveWithFds(this.#handle, target, MAX_FDS);
      this.#fds.push(...fds);
      this.#excessFds += excessFds;
      if (this.#fds.length > MAX_FDS) {
        this.close('more descriptors than a message may bring');
        return false;
      }
      if (bytes === -ERRNO.EAGAIN || bytes === -ERRNO.EINTR) return false;
      if (bytes <= 0) {
        this.close(bytes === 0 ? 'the front-end left' : `receiving failed with errno ${-bytes}`);
        return false;
      }
      this.#have += bytes;
    }
    return true;
  }

  /** Begins a reply: its payload is written to the view at HEADER_BYTES. */
  get replyView(): DataView {
    return this.#outView;
  }

  /** Sends the reply to `request` with `bytes` of payload; `fds` stay the caller's. */
  reply(request: number, bytes: number, fds: readonly Handle[] = NO_FDS): void {
    const view = this.#outView;
    view.setUint32(REQUEST, request, true);
    view.setUint32(FLAGS, VERSION | FLAG_REPLY, true);
    view.setUint32(SIZE, bytes, true);
    const length = HEADER_BYTES + bytes;
    this.#stats.replies++;
    const sent =
      fds.length === 0
        ? this.#hostIo.sendBytes(this.#handle, this.#out, 0, length)
        : this.#hostIo.sendWithFds(this.#handle, this.#out.subarray(0, length), fds);
    if (sent !== length) this.close('the front-end takes no replies');
  }
}

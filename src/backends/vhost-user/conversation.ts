/**
 * One connection with a back-end as questions and answers: a request goes out with its descriptors, and its reply, where it has one, is awaited before the next request goes. So a
 * descriptor that arrives belongs to the reply that is awaited, and nothing piles up.
 *
 * With REPLY_ACK every request without a reply of its own asks for an acknowledgement. A back-end that answers what was not asked, in another form than it should, too late or with an
 * error is given up: the connection ends, and everybody who waits is told (ConversationOver).
 */

import type { Channel, ChannelUser } from '../../chardev/chardev.ts';
import type { Loop, Timer } from '../../core/loop.ts';
import type { Handle, HostIo } from '../../host-io/host-io.ts';
import {
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FLAGS,
  HEADER_BYTES,
  REQUEST,
  SIZE,
  U64_BYTES,
  u64,
  VERSION,
  VERSION_MASK,
} from '../../virtio/vhost-user.ts';

const REPLY_MAX_BYTES = 64;
/** A back-end that does not answer for so long never will. */
const REPLY_TIMEOUT_NS = 10e9;

const NO_PAYLOAD = new Uint8Array(0);

/** The connection is gone, or had to be given up. */
export class ConversationOver extends Error {}

export class ConversationStats {
  requests = 0;
  replies = 0;
  /** Replies that nobody asked for, of another form, or that say no. */
  badReplies = 0;
  replyTimeouts = 0;
}

/** A reply's payload. Its descriptors are the asker's. */
export interface Reply {
  readonly view: DataView;
  readonly bytes: number;
  readonly fds: readonly Handle[];
}

interface Awaited {
  readonly request: number;
  /** Payload lengths that the reply may have. */
  readonly lengths: readonly number[];
  readonly maxFds: number;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: ConversationOver) => void;
}

export class Conversation implements ChannelUser {
  /** REPLY_ACK was agreed on. */
  acknowledged = false;
  readonly #channel: Channel;
  readonly #hostIo: HostIo;
  readonly #stats: ConversationStats;
  readonly #onEnd: (reason: string) => void;
  readonly #timeout: Timer;
  readonly #in = new Uint8Array(HEADER_BYTES + REPLY_MAX_BYTES);
  readonly #view = new DataView(this.#in.buffer);
  #have = 0;
  #wanted = HEADER_BYTES;
  #awaited: Awaited | null = null;
  #room: { resolve: () => void; reject: (error: ConversationOver) => void } | null = null;
  /** Requests go one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #over: ConversationOver | null = null;

  constructor(
    channel: Channel,
    parts: { readonly hostIo: HostIo; readonly loop: Loop; readonly stats: ConversationStats },
    onEnd: (reason: string) => void,
  ) {
    this.#channel = channel;
    this.#hostIo = parts.hostIo;
    this.#stats = parts.stats;
    this.#onEnd = onEnd;
    this.#timeout = parts.loop.timer(() => {
      this.#stats.replyTimeouts++;
      this.end('it does not answer');
    });
  }

  get open(): boolean {
    return this.#over === null;
  }

  /** A request whose reply has one of `lengths` bytes of payload and at most `maxFds` descriptors. Rejects with ConversationOver. */
  ask(
    request: number,
    lengths: readonly number[],
    payload: Uint8Array = NO_PAYLOAD,
    maxFds = 0,
  ): Promise<Reply> {
    return this.#inTurn(async () => {
      const reply = new Promise<Reply>((resolve, reject) => {
        this.#awaited = { request, lengths, maxFds, resolve, reject };
      });
      // Whoever ends the conversation before it is awaited must not leave it unheard.
      reply.catch(() => {});
      await this.#send(request, 0, payload, []);
      this.#timeout.armIn(REPLY_TIMEOUT_NS);
      return await reply;
    });
  }

  /** A request that has a 64-bit number for a reply. */
  async askU64(request: number): Promise<number> {
    return u64((await this.ask(request, [U64_BYTES])).view, 0);
  }

  /** A request without a reply of its own. `fds` stay the caller's. Rejects with ConversationOver, also when the back-end says no. */
  tell(request: number, payload: Uint8Array = NO_PAYLOAD, fds: readonly Handle[] = []): Promise<void> {
    return this.#inTurn(async () => {
      if (!this.acknowledged) {
        await this.#send(request, 0, payload, fds);
        return;
      }
      const reply = new Promise<Reply>((resolve, reject) => {
        this.#awaited = { request, lengths: [U64_BYTES], maxFds: 0, resolve, reject };
      });
      reply.catch(() => {});
      await this.#send(request, FLAG_NEED_REPLY, payload, fds);
      this.#timeout.armIn(REPLY_TIMEOUT_NS);
      const answer = u64((await reply).view, 0);
      if (answer === 0) return;
      this.#stats.badReplies++;
      this.end(`it refuses request ${request} (${answer})`);
      throw this.#over!;
    });
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      if (this.#over !== null) throw this.#over;
      return act();
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #send(request: number, flags: number, payload: Uint8Array, fds: readonly Handle[]): Promise<void> {
    const bytes = new Uint8Array(HEADER_BYTES + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(REQUEST, request, true);
    view.setUint32(FLAGS, VERSION | flags, true);
    view.setUint32(SIZE, payload.length, true);
    bytes.set(payload, HEADER_BYTES);
    this.#stats.requests++;
    for (let sent = 0; sent < bytes.length; ) {
      // Descriptors go with the first byte.
      sent += this.#channel.write(bytes, sent, bytes.length, sent === 0 ? fds : []);
      if (this.#over !== null) throw this.#over;
      if (sent === bytes.length) return;
      this.#timeout.armIn(REPLY_TIMEOUT_NS);
      await new Promise<void>((resolve, reject) => {
        this.#room = { resolve, reject };
      });
      this.#timeout.cancel();
    }
  }

  // The channel.

  writable(): void {
    const room = this.#room;
    this.#room = null;
    room?.resolve();
  }

  receive(bytes: Uint8Array, from: number, to: number): number {
    for (let at = from; at < to && this.#over === null; ) {
      if (this.#awaited === null) {
        this.#bad('it sends what nobody asked for');
        break;
      }
      const part = Math.min(this.#wanted - this.#have, to - at);
      this.#in.set(bytes.subarray(at, at + part), this.#have);
      this.#have += part;
      at += part;
      if (this.#have === HEADER_BYTES && this.#wanted === HEADER_BYTES) this.#header(this.#awaited);
      if (this.#over === null && this.#have === this.#wanted) this.#replied(this.#awaited);
    }
    return to - from;
  }

  /** The header is there: it must be that of the reply. */
  #header(awaited: Awaited): void {
    const flags = this.#view.getUint32(FLAGS, true);
    const size = this.#view.getUint32(SIZE, true);
    if (this.#view.getUint32(REQUEST, true) !== awaited.request) this.#bad('it answers another request');
    else if ((flags & VERSION_MASK) !== VERSION || (flags & FLAG_REPLY) === 0)
      this.#bad('its reply is none, or of no known version');
    else if (!awaited.lengths.includes(size)) this.#bad(`its reply has ${size} bytes`);
    else this.#wanted = HEADER_BYTES + size;
  }

  #bad(reason: string): void {
    this.#stats.badReplies++;
    this.end(reason);
  }

  #replied(awaited: Awaited): void {
    const fds = this.#channel.takeFds();
    if (fds.length > awaited.maxFds) {
      for (const fd of fds) this.#hostIo.close(fd);
      this.#bad('it passes descriptors that nobody asked for');
      return;
    }
    const bytes = this.#have - HEADER_BYTES;
    this.#stats.replies++;
    this.#have = 0;
    this.#wanted = HEADER_BYTES;
    this.#awaited = null;
    this.#timeout.cancel();
    const payload = this.#in.slice(HEADER_BYTES, HEADER_BYTES + bytes);
    awaited.resolve({ view: new DataView(payload.buffer), bytes, fds });
  }

  closed(): void {
    this.#finish('the back-end left');
  }

  /** Gives the back-end up. */
  end(reason: string): void {
    if (this.#over !== null) return;
    // The channel closes descriptors that nobody took.
    this.#channel.close();
    this.#finish(reason);
  }

  #finish(reason: string): void {
    if (this.#over !== null) return;
    const over = new ConversationOver(reason);
    this.#over = over;
    this.#timeout.cancel();
    const awaited = this.#awaited;
    const room = this.#room;
    this.#awaited = null;
    this.#room = null;
    awaited?.reject(over);
    room?.reject(over);
    this.#onEnd(reason);
  }
}

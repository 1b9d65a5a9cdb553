/**
 * What UDP and raw IP sockets over Node share: messages that arrived wait in a bounded queue until they are received, and so many may be on
 * their way out at once.
 */

import { packAddress } from '../address.ts';
import { errnoOf } from '../errno.ts';
import { ADDRESS_BYTES, type Endpoint } from '../host-io.ts';
import { AGAIN, areFrames, Entry, fillFrame, INVALID, MessageQueue } from './entry.ts';

const QUEUE_BYTES = 1 << 20;
export const SEND_MESSAGES = 256;

export abstract class MessageEntry extends Entry {
  readonly #queue = new MessageQueue(QUEUE_BYTES);
  /** Messages handed to Node whose end was not told yet. */
  sending = 0;
  /** Messages dropped because nobody received them in time. */
  dropQueueFull = 0;
  /** Messages longer than their slot. */
  dropTruncated = 0;

  get readable(): boolean {
    return this.#queue.first !== undefined || this.error !== 0;
  }

  get writable(): boolean {
    return this.sending < SEND_MESSAGES;
  }

  get pendingBytes(): number {
    return this.#queue.first?.bytes.length ?? 0;
  }

  /** A message came; the bytes are the queue's. */
  arrived(message: Uint8Array, from: Endpoint): void {
    if (this.#queue.push(message, from)) this.owner.changed(this);
    else this.dropQueueFull++;
  }

  receive(
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    addresses: Uint8Array | undefined,
    spill: Int32Array | undefined,
  ): number {
    const pool = this.owner.pool;
    if (!areFrames(pool, frames, from, to) || at < 0) return INVALID;
    if (addresses !== undefined && addresses.length < to * ADDRESS_BYTES) return INVALID;
    let next = from;
    while (next < to) {
      const message = this.#queue.first;
      if (message === undefined) break;
      this.#queue.drop();
      if (!fillFrame(pool, frames[next]!, at, message.bytes, spill, next)) {
        this.dropTruncated++;
        continue;
      }
      if (addresses !== undefined && message.from !== null)
        packAddress(message.from, addresses, next * ADDRESS_BYTES);
      next++;
    }
    if (next > from || from === to) return next - from;
    return this.error !== 0 ? -this.takeError() : AGAIN;
  }

  /** The end of a message on its way out. */
  readonly sent = (error: Error | null): void => {
    this.sending--;
    if (this.closed) return;
    if (error !== null) this.fail(errnoOf((error as NodeJS.ErrnoException).code));
    else if (this.sending === SEND_MESSAGES - 1) this.owner.changed(this);
  };
}

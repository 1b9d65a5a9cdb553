/**
 * What a character device is to those who use it: something that brings byte channels. A socket brings one for each connection, everything
 * else brings exactly one, for good.
 *
 *     user.opened(channel) ──▶ the user's half, a ChannelUser
 *     channel ── receive(bytes) ──▶ ChannelUser        bytes that arrived
 *     ChannelUser ── write(bytes) ──▶ channel          bytes to send
 *
 * Both directions have backpressure and no hidden queue: `receive` and `write` return how many bytes they took, from the front. Who took
 * fewer than all calls back later: the user by `channel.resume()`, the channel by `writable()`. Bytes handed over are lent for the call.
 *
 * A chardev has one user at a time: `attach` makes it busy, `detach` closes what is open and makes it free for another one.
 */

import type { ChardevConfig } from '../config/chardevs.ts';
import type { Logger } from '../core/log.ts';
import type { Loop } from '../core/loop.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import type { PassedFds } from './fds.ts';

export interface ChannelUser {
  /** bytes[from..to) arrived, never none. Returns how many were taken; fewer than all stops reading until `channel.resume()`. */
  receive(bytes: Uint8Array, from: number, to: number): number;
  /** A write that was not taken in full may be repeated. */
  writable?(): void;
  /** The other end will send nothing more; it may still read. Told at most once, and not before all bytes were taken. */
  ended?(): void;
  /** The channel is gone: nothing is received and every write is refused from now on. Told once, not for the user's own `close`. */
  closed?(): void;
}

export interface Channel {
  /**
   * Sends bytes[from..to) and returns how many were taken; fewer than all is a promise of a later `writable`. `fds` go with the first byte, where `passesFds`, and stay the
   * caller's.
   */
  write(bytes: Uint8Array, from: number, to: number, fds?: readonly Handle[]): number;
  /** Descriptors can go beside bytes; absent: they cannot. */
  readonly passesFds?: boolean;
  /** The user takes bytes again: what arrived and was not taken is offered at once, then more is read. */
  resume(): void;
  /** Descriptors that arrived (SCM_RIGHTS) and nobody took yet, oldest first; the caller owns them from now on. */
  takeFds(): Handle[];
  /** Who is at the other end, for people. */
  describe(): string;
  /** Ends the channel. Harmless when repeated. */
  close(): void;
}

export interface ChardevUser {
  /** A channel opened. Returns who serves it. */
  opened(channel: Channel): ChannelUser;
  /** Channels this user serves at once, 1 when absent. A connection beyond them waits, or is closed and counted when this is more than 1. */
  readonly maxChannels?: number;
  /** The chardev was closed while this user had it; nothing opens any more. */
  removed?(): void;
}

/** Counters of a chardev: `rx` came in from the other end, `tx` went out. */
export class ChardevStats {
  rxBytes = 0;
  txBytes = 0;
  opened = 0;
  closed = 0;
  connectFailed = 0;
  /** Connections over the user's maximum. */
  dropTooManyClients = 0;
  /** Descriptors that nobody could take. */
  dropFds = 0;
}

export interface Chardev {
  readonly id: string;
  readonly config: ChardevConfig;
  readonly stats: ChardevStats;
  /** Somebody is at the other end. */
  readonly connected: boolean;
  /** A person types here, key by key, and this end echoes. */
  readonly isTerminal?: boolean;
  /** QEMU's words for it in query-chardev and `info chardev`. */
  describe(): string;
  /** Throws OptionError when it is in use. */
  attach(user: ChardevUser): void;
  readonly busy: boolean;
  /** Ends the use; open channels are closed and not told. Harmless without a user. */
  detach(): void;
  /** Cuts the connections, without waiting for anybody; a client connects again when it is to. Absent: there is nothing to cut. */
  yank?(): void;
  close(): void;
}

/** What chardevs are made with. */
export interface ChardevContext {
  readonly loop: Loop;
  readonly log: Logger;
  /** Null where there is no host. */
  readonly hostIo: HostIo | null;
  /** Descriptors that monitor clients passed. */
  readonly fds: PassedFds;
  /** Looks a host name up; rejects with OptionError. Absent: only addresses and localhost are known. */
  readonly resolveHost?: (name: string, family: 4 | 6 | undefined) => Promise<string>;
}

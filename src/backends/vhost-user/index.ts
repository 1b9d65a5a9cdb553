/**
 * `vhost-user`: the NIC's queues are served by a back-end in another process (DPDK, Open vSwitch, passt, another netemu), to which a chardev's unix socket leads. No frame passes here.
 *
 *     driver's rings in guest RAM ◀── mapped by ──▶ back-end          kick, call: eventfds
 *     this file: connections and the link        queues.ts: what is served, step by step        session.ts: what is said
 *
 * The first back-end is waited for, because what the NIC can offer depends on it. Each connection that has said hello puts the link up; its end takes it down, while the driver keeps its rings: the next
 * back-end goes on where the one before stood (rings.ts). One that cannot do what the driver was promised is given up.
 *
 * Frames that are sent into the port have no way out; only an announcement (RARP) becomes a request to the back-end. So hubs and filters, which need frames, are refused by the network.
 */

import type { Channel, ChannelUser, Chardev, ChardevUser } from '../../chardev/chardev.ts';
import { chardevNotFound } from '../../config/chardevs.ts';
import type { NetdevConfigOf } from '../../config/netdevs/index.ts';
import { checkVhostUserChardev } from '../../config/netdevs/vhost-user.ts';
import { OptionError, UnsupportedError } from '../../core/errors.ts';
import { LENGTH, OFFSET } from '../../core/pool.ts';
import { type Client, Port } from '../../core/port.ts';
import type { HostIo } from '../../host-io/host-io.ts';
import { u16be } from '../../wire/bytes.ts';
import { ETHERTYPE_RARP } from '../../wire/ethernet.ts';
import type { Backend, BackendContext, OpenBackend } from '../backend.ts';
import { needHostIo } from '../services.ts';
import { Conversation, ConversationOver } from './conversation.ts';
import { HandedQueues, VhostUserStats } from './queues.ts';
import { Session } from './session.ts';

export const vhostUserBackend: OpenBackend<'vhost-user'> = async (config, context) => {
  const hostIo = needHostIo(context, 'vhost-user');
  const chardev = context.chardev?.(config.chardev);
  if (chardev === undefined) throw chardevNotFound(config.chardev);
  checkVhostUserChardev(chardev.config);
  if (hostIo.implementation !== 'native')
    throw new UnsupportedError(
      "netdev type 'vhost-user' needs the native host I/O, to pass descriptors and share memory",
    );
  const frontEnd = new FrontEnd(config, context, hostIo, chardev);
  try {
    chardev.attach(frontEnd);
    if (!chardev.connected)
      context.log.warn(
        { netdev: config.id },
        `netdev ${config.id} waits for its back-end: ${chardev.describe()}`,
      );
    await frontEnd.whenKnown;
  } catch (error) {
    frontEnd.close();
    throw error;
  }
  return frontEnd;
};

class FrontEnd implements Backend, ChardevUser {
  readonly ports: readonly Port[];
  readonly stats = new VhostUserStats();
  readonly queueServer: HandedQueues;
  /** Resolves when the first back-end has said what it can do; rejects when there will be none. */
  readonly whenKnown: Promise<void>;

  readonly #config: NetdevConfigOf<'vhost-user'>;
  readonly #context: BackendContext;
  readonly #hostIo: HostIo;
  readonly #chardev: Chardev;
  #known: { resolve: () => void; reject: (error: Error) => void } | null = null;
  /** The connection there is, hello or not. */
  #conversation: Conversation | null = null;
  #session: Session | null = null;
  #closed = false;

  constructor(
    config: NetdevConfigOf<'vhost-user'>,
    context: BackendContext,
    hostIo: HostIo,
    chardev: Chardev,
  ) {
    this.#config = config;
    this.#context = context;
    this.#hostIo = hostIo;
    this.#chardev = chardev;
    this.queueServer = new HandedQueues({
      netdev: config.id,
      pairs: config.queues,
      hostIo,
      loop: context.loop,
      log: context.log,
      stats: this.stats,
    });
    this.whenKnown = new Promise((resolve, reject) => {
      this.#known = { resolve, reject };
    });
    // Whoever closes it before it is awaited is not asked.
    this.whenKnown.catch(() => {});
    const client: Client = {
      receive: (frames, from, to) => this.#receive(frames, from, to),
      peerReady() {},
    };
    this.ports = Array.from(
      { length: config.queues },
      (_, index) => new Port(index === 0 ? config.id : `${config.id}.${index}`, 'backend', client, context),
    );
    for (const port of this.ports) port.setCarrier(false);
  }

  describe(): string {
    const state = this.#session === null ? ' (disconnected)' : '';
    return `vhost-user to ${this.#config.chardev}${state}`;
  }

  // The connection.

  opened(channel: Channel): ChannelUser {
    const { loop, log } = this.#context;
    this.stats.connections++;
    const conversation = new Conversation(
      channel,
      { hostIo: this.#hostIo, loop, stats: this.stats },
      (reason) => {
        log.info({ netdev: this.#config.id }, `vhost-user: ${reason}`);
        this.#conversation = null;
        if (this.#session?.conversation === conversation) this.#lost();
        else this.#neverSaidHello(reason);
      },
    );
    this.#conversation = conversation;
    if (channel.passesFds === true) void this.#hello(new Session(conversation));
    else conversation.end(`chardev "${this.#config.chardev}" does not support FD passing`);
    return conversation;
  }

  async #hello(session: Session): Promise<void> {
    const { conversation } = session;
    try {
      await session.hello();
    } catch (error) {
      if (error instanceof ConversationOver) return;
      this.#context.log.error({ netdev: this.#config.id, err: error }, 'vhost-user: the hello failed');
      conversation.end('the hello failed');
      return;
    }
    if (!conversation.open || this.#closed) return;
    const lack = this.queueServer.lack(session);
    if (lack !== null) {
      this.stats.badBackends++;
      this.#context.log.warn({ netdev: this.#config.id }, `vhost-user: ${lack}`);
      this.#fail(new OptionError(lack, { option: 'queues' }));
      conversation.end(lack);
      return;
    }
    this.#session = session;
    const known = this.#known;
    this.#known = null;
    this.queueServer.connected(session);
    this.#context.emit('NETDEV_VHOST_USER_CONNECTED', {
      'netdev-id': this.#config.id,
      'chardev-id': this.#config.chardev,
    });
    for (const port of this.ports) port.setCarrier(true);
    known?.resolve();
  }

  /** A connection ended that was none yet. The next one may be; where none will come, the netdev cannot be opened. */
  #neverSaidHello(reason: string): void {
    const { config } = this.#chardev;
    const willTryAgain = config.type === 'socket' && (config.server || config.reconnectMs > 0);
    if (!willTryAgain) this.#fail(new OptionError(`vhost-user: ${reason}`, { option: 'chardev' }));
  }

  #fail(error: Error): void {
    const known = this.#known;
    this.#known = null;
    known?.reject(error);
  }

  #lost(): void {
    this.#session = null;
    this.queueServer.lost();
    this.#context.emit('NETDEV_VHOST_USER_DISCONNECTED', { 'netdev-id': this.#config.id });
    for (const port of this.ports) port.setCarrier(false);
  }

  // Frames.

  #receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      const at = pool.table[frame + OFFSET]!;
      const isAnnouncement =
        pool.table[frame + LENGTH]! >= 42 && u16be(pool.bytes, at + 12) === ETHERTYPE_RARP;
      if (isAnnouncement) this.queueServer.announce(pool.bytes.slice(at + 22, at + 28));
      else this.stats.dropNotAnnouncement++;
    }
    pool.releaseAll(frames, from, to);
    return to - from;
  }

  removed(): void {
    this.#fail(new OptionError(`chardev '${this.#config.chardev}' was removed`, { option: 'chardev' }));
    this.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const conversation = this.#conversation;
    this.#session = null;
    this.#chardev.detach();
    conversation?.closed();
    this.queueServer.close();
    this.#fail(new OptionError(`netdev '${this.#config.id}' was closed`, { option: 'id' }));
  }
}

/**
 * `vhost-user`: the NIC's queues are served by a back-end in another process (DPDK, Open vSwitch, passt, another netemu), to which a chardev's unix socket leads. No frame passes here.
 *
 *     driver's rings in guest RAM ◀── mapped by ──▶ back-end          kick, call: eventfds
 *     this file: what is wanted (the NIC's driver, its link, the connection) against what is, one step after another (session.ts)
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
import type { SharedRam } from '../../pci/device-host.ts';
import { F_RING_PACKED, Features } from '../../virtio/features.ts';
import type { QueueServer, QueueSource } from '../../virtio/hand-over.ts';
import type { VirtQueue } from '../../virtio/queue.ts';
import { u16be } from '../../wire/bytes.ts';
import { ETHERTYPE_RARP } from '../../wire/ethernet.ts';
import type { Backend, BackendContext, OpenBackend } from '../backend.ts';
import { needHostIo } from '../services.ts';
import { Conversation, ConversationOver, ConversationStats } from './conversation.ts';
import { positionAfterDeath, positionOf, RingEvents } from './rings.ts';
import { type InflightArea, type RingPlan, Session } from './session.ts';

export class VhostUserStats extends ConversationStats {
  connections = 0;
  /** Back-ends that lack what the driver or the netdev's options need. */
  badBackends = 0;
  starts = 0;
  stops = 0;
  kicks = 0;
  interrupts = 0;
  /** Rings taken over from a back-end that died. */
  takenOver = 0;
  /** Rings that could not go on: the back-end said so, or died and left no place to go on from. */
  brokenRings = 0;
  /** Regions of guest RAM beyond what the back-end can map. */
  regionsLeftOut = 0;
  announcements = 0;
  /** Frames of no use to a back-end that takes frames from rings only. */
  dropNotAnnouncement = 0;
}

const NO_RAM: SharedRam = { ranges: [], onChanged: null };

/** Rings that the back-end works on. */
interface Served {
  readonly source: QueueSource;
  readonly epoch: number;
  readonly rings: readonly RingPlan[];
  pairsInUse: number;
  /** The back-end was told all of it. */
  complete: boolean;
}

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
    await frontEnd.whenKnown;
  } catch (error) {
    frontEnd.close();
    throw error;
  }
  return frontEnd;
};

class FrontEnd implements Backend, QueueServer, ChardevUser {
  readonly ports: readonly Port[];
  readonly stats = new VhostUserStats();
  readonly pairs: number;
  readonly features = new Features();
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
  #source: QueueSource | null = null;
  #events: readonly RingEvents[] = [];
  #served: Served | null = null;
  #inflight: (InflightArea & { readonly epoch: number }) | null = null;
  /** The guest's RAM is not what the back-end was told. */
  #ramChanged = false;
  /** Rings went from one back-end to another: whoever waits for an interrupt may have missed it. */
  #takenOver = false;
  /** An address that the network is to be told of. */
  #announced: Uint8Array | null = null;
  #posted = false;
  #working = false;
  #again = false;
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
    this.pairs = config.queues;
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

  get queueServer(): QueueServer {
    return this;
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
      this.#gone(error);
      return;
    }
    if (!conversation.open || this.#closed) return;
    const lack = this.#lack(session);
    if (lack !== null) {
      this.stats.badBackends++;
      this.#context.log.warn({ netdev: this.#config.id }, `vhost-user: ${lack}`);
      if (this.#source === null) this.#fail(new OptionError(lack, { option: 'queues' }));
      conversation.end(lack);
      return;
    }
    this.#session = session;
    const known = this.#known;
    this.#known = null;
    // Devices that are made from now on go by this back-end.
    if (this.#source === null) this.features.copy(session.features);
    this.#context.emit('NETDEV_VHOST_USER_CONNECTED', {
      'netdev-id': this.#config.id,
      'chardev-id': this.#config.chardev,
    });
    for (const port of this.ports) port.setCarrier(true);
    known?.resolve();
    this.update();
  }

  /** Why this back-end cannot serve; null: it can. */
  #lack(session: Session): string | null {
    const { queues } = this.#config;
    if (session.pairs < queues) return `you are asking more queues than supported: ${session.pairs}`;
    const source = this.#source;
    if (source === null || source.accepted.low === 0) return null;
    if (source.needed.mask(session.features)) return 'the back-end lacks features that the driver uses';
    return null;
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

  /** The back-end of this session is gone: where its rings stand is found out without it. */
  #lost(): void {
    this.#session = null;
    const served = this.#served;
    this.#served = null;
    const source = this.#source;
    // Queues of another device, or of an earlier epoch, are nobody's any more.
    if (served !== null && source !== null && isOf(served, source)) this.#recover(served, source);
    this.#context.emit('NETDEV_VHOST_USER_DISCONNECTED', { 'netdev-id': this.#config.id });
    for (const port of this.ports) port.setCarrier(false);
    this.update();
  }

  #recover(served: Served, source: QueueSource): void {
    this.#takenOver = true;
    for (const { index, queue } of served.rings) {
      const position = positionAfterDeath(queue, source.host.memory);
      const isKept = queue.packed && this.#inflight !== null;
      if (position !== null) {
        this.stats.takenOver++;
        source.stoppedAt(index, queue, position);
      } else if (!isKept) {
        this.stats.brokenRings++;
        source.broken();
      }
    }
  }

  // The queues.

  get active(): boolean {
    return this.#served !== null;
  }

  get started(): boolean {
    return this.#served?.complete === true;
  }

  busyWith(source: QueueSource): boolean {
    return this.#served?.source === source && this.#served.epoch !== source.epoch;
  }

  attach(source: QueueSource): void {
    const { sharedRam } = source.host;
    if (this.#source !== null) {
      throw new OptionError(`netdev '${this.#config.id}' is in use`, { option: 'netdev' });
    }
    if (sharedRam === undefined) {
      throw new UnsupportedError(
        'vhost-user needs a guest whose RAM lies in files: the probe guest, or a virtual machine by vfio-user',
      );
    }
    const events: RingEvents[] = [];
    try {
      for (let index = 0; index < source.queueCount; index++) {
        events.push(
          new RingEvents(
            this.#hostIo,
            () => this.#called(index),
            () => this.#failed(index),
          ),
        );
      }
    } catch (error) {
      for (const one of events) one.close();
      throw error;
    }
    this.#events = events;
    this.#source = source;
    sharedRam.onChanged = () => {
      this.#ramChanged = true;
      this.update();
    };
  }

  detach(source: QueueSource): void {
    if (this.#source !== source) return;
    const { sharedRam } = source.host;
    if (sharedRam !== undefined) sharedRam.onChanged = null;
    this.#source = null;
    // The back-end has its own mappings and eventfds: it stops in its time, and the next device waits for that.
    for (const one of this.#events) one.close();
    this.#events = [];
    this.#dropInflight();
    this.update();
  }

  kick(index: number): void {
    // At the start of a ring everything in it is looked at anyway.
    if (this.#served === null) return;
    this.stats.kicks++;
    if (this.#served.source === this.#source) this.#events[index]?.signalKick();
  }

  #called(index: number): void {
    if (this.#served === null) return;
    this.stats.interrupts++;
    this.#source?.interrupt(index);
  }

  #failed(index: number): void {
    if (this.#served === null || index >= this.#events.length) return;
    this.stats.brokenRings++;
    this.#source?.broken();
  }

  update(): void {
    if (this.#working) {
      this.#again = true;
      return;
    }
    if (this.#posted || this.#session === null) return;
    this.#posted = true;
    // Not within a register access of the driver's: several of them make one change.
    this.#context.loop.post(() => {
      this.#posted = false;
      void this.#work();
    });
  }

  /** Brings what is to what is wanted, step by step, until nothing changes meanwhile. */
  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    try {
      do {
        this.#again = false;
        const session = this.#session;
        if (session === null) return;
        await this.#step(session);
      } while (this.#again);
    } catch (error) {
      this.#gone(error);
    } finally {
      this.#working = false;
    }
    if (this.#again) this.update();
  }

  async #step(session: Session): Promise<void> {
    const source = this.#source;
    const served = this.#served;
    const rings = this.#ringsOf(source);
    if (served !== null && !isSame(served, source, rings)) await this.#stop(session, served);
    if (source === null || source !== this.#source) return;
    if (this.#served === null) await this.#start(session, source, this.#ringsOf(source));
    if (this.#served === null || source !== this.#source) return;
    const mac = this.#announced;
    if (mac !== null) {
      this.#announced = null;
      if (await session.announce(mac)) this.stats.announcements++;
      else this.stats.dropNotAnnouncement++;
    }
    if (this.#ramChanged) {
      this.#ramChanged = false;
      await this.#setMemory(session, source);
    }
    if (this.#served !== null && this.#served.pairsInUse !== source.pairsInUse) {
      this.#served.pairsInUse = source.pairsInUse;
      await session.enable(this.#served.rings, source.pairsInUse);
    }
  }

  /** What is to be served: whole pairs that the driver has enabled. */
  #ringsOf(source: QueueSource | null): RingPlan[] {
    if (source === null || !source.wanted) return [];
    const rings: RingPlan[] = [];
    for (let index = 0; index + 1 < source.queueCount; index += 2) {
      const pair = [source.queueAt(index), source.queueAt(index + 1)] as const;
      if (pair[0] === null || pair[1] === null) break;
      for (const [i, queue] of pair.entries())
        rings.push({ index: index + i, queue: queue as VirtQueue, events: this.#events[index + i]! });
    }
    return rings;
  }

  async #start(session: Session, source: QueueSource, rings: readonly RingPlan[]): Promise<void> {
    if (rings.length === 0) return;
    if (source.needed.mask(session.features)) {
      this.stats.badBackends++;
      session.conversation.end('the back-end lacks features that the driver uses');
      return;
    }
    const { epoch, pairsInUse } = source;
    if (this.#inflight !== null && this.#inflight.epoch !== epoch) this.#dropInflight();
    if (this.#inflight === null) {
      const queueSize = Math.max(...rings.map(({ queue }) => queue.size));
      const area = await session.inflightArea(source.queueCount, queueSize);
      if (area !== null) {
        if (this.#closed || this.#source !== source) this.#hostIo.close(area.fd);
        else this.#inflight = { ...area, epoch };
      }
      // The driver may have gone on meanwhile.
      if (this.#source !== source || source.epoch !== epoch || !source.wanted) {
        this.#again = true;
        return;
      }
    }
    this.#ramChanged = false;
    const served: Served = { source, epoch, rings, pairsInUse, complete: false };
    this.#served = served;
    this.stats.starts++;
    await session.start({
      features: source.accepted,
      ipMtuBytes: source.ipMtuBytes,
      ram: source.host.sharedRam ?? NO_RAM,
      inflight: this.#inflight,
      rings,
      packed: source.accepted.has(F_RING_PACKED),
      pairsInUse,
    });
    served.complete = true;
    this.#noteLeftOut(session);
    if (!this.#takenOver) {
      for (const { events } of rings) events.signalKick();
      return;
    }
    this.#takenOver = false;
    for (const { index, events } of rings) {
      events.signalKick();
      source.interrupt(index);
    }
  }

  async #setMemory(session: Session, source: QueueSource): Promise<void> {
    await session.setMemory(source.host.sharedRam ?? NO_RAM);
    this.#noteLeftOut(session);
  }

  #noteLeftOut(session: Session): void {
    const left = session.regionsLeftOut;
    if (left > 0 && left !== this.stats.regionsLeftOut) {
      this.#context.log.warn(
        { netdev: this.#config.id },
        `vhost-user: ${left} regions of guest RAM are more than the back-end can map`,
      );
    }
    this.stats.regionsLeftOut = left;
  }

  async #stop(session: Session, served: Served): Promise<void> {
    this.stats.stops++;
    served.complete = false;
    await session.stop(served.rings, (index, base) => {
      const source = this.#source;
      const ring = served.rings.find((one) => one.index === index);
      if (source === null || ring === undefined || !isOf(served, source)) return;
      source.stoppedAt(index, ring.queue, positionOf(base, ring.queue, source.host.memory));
    });
    if (this.#source === null || !isOf(served, this.#source)) await session.reset();
    if (this.#served === served) this.#served = null;
  }

  #dropInflight(): void {
    if (this.#inflight !== null) this.#hostIo.close(this.#inflight.fd);
    this.#inflight = null;
  }

  // Frames.

  #receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    for (let i = from; i < to; i++) {
      const frame = frames[i]!;
      const at = pool.table[frame + OFFSET]!;
      const isAnnouncement =
        pool.table[frame + LENGTH]! >= 42 && u16be(pool.bytes, at + 12) === ETHERTYPE_RARP;
      if (isAnnouncement) this.#announce(pool.bytes.slice(at + 22, at + 28));
      else this.stats.dropNotAnnouncement++;
    }
    pool.releaseAll(frames, from, to);
    return to - from;
  }

  /** The last one is told, once there is time for it. */
  #announce(mac: Uint8Array): void {
    if (this.#announced !== null) this.stats.dropNotAnnouncement++;
    this.#announced = mac;
    this.update();
  }

  /** A conversation that ended has been dealt with; anything else is ours to mend, and nobody else's to suffer. */
  #gone(error: unknown): void {
    if (error instanceof ConversationOver) return;
    this.#context.log.error({ netdev: this.#config.id, err: error }, 'vhost-user: a step failed');
    this.#session?.conversation.end('a step failed');
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
    this.#served = null;
    this.#chardev.detach();
    conversation?.closed();
    const source = this.#source;
    if (source !== null) this.detach(source);
    this.#dropInflight();
    this.#fail(new OptionError(`netdev '${this.#config.id}' was closed`, { option: 'id' }));
  }
}

function isOf(served: Served, source: QueueSource): boolean {
  return served.source === source && served.epoch === source.epoch;
}

function isSame(served: Served, source: QueueSource | null, rings: readonly RingPlan[]): boolean {
  return (
    source !== null &&
    isOf(served, source) &&
    served.rings.length === rings.length &&
    served.rings.every(({ queue }, i) => queue === rings[i]!.queue)
  );
}

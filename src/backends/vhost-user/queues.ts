/**
 * The queues of one device, and what a back-end has to do with them: what is wanted (the driver is ready, the link is up, these rings, this RAM) against what is, brought together step by step,
 * one request at a time (session.ts), whatever changes meanwhile. Sessions come and go; where the rings stand when one is lost is found out without it (rings.ts).
 */

import { OptionError, UnsupportedError } from '../../core/errors.ts';
import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import type { Handle, HostIo } from '../../host-io/host-io.ts';
import type { SharedRam } from '../../pci/device-host.ts';
import { F_RING_PACKED, Features } from '../../virtio/features.ts';
import type { QueueServer, QueueSource } from '../../virtio/hand-over.ts';
import type { VirtQueue } from '../../virtio/queue.ts';
import { ConversationOver, ConversationStats } from './conversation.ts';
import { positionAfterDeath, positionOf, RingEvents } from './rings.ts';
import type { InflightArea, RingPlan, Session } from './session.ts';

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

const LACKS_FEATURES = 'the back-end lacks features that the driver uses';
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

export interface HandedQueuesParts {
  readonly netdev: string;
  /** Queue pairs. */
  readonly pairs: number;
  readonly hostIo: HostIo;
  readonly loop: Loop;
  readonly log: Logger;
  readonly stats: VhostUserStats;
}

export class HandedQueues implements QueueServer {
  readonly pairs: number;
  readonly features = new Features();
  readonly #parts: HandedQueuesParts;
  #session: Session | null = null;
  #source: QueueSource | null = null;
  #events: readonly RingEvents[] = [];
  #served: Served | null = null;
  #inflight: (InflightArea & { readonly epoch: number }) | null = null;
  /** Handles of a device that went: a request under way may still pass them. */
  readonly #retired: { close(): void }[] = [];
  /** The guest's RAM is not what the back-end was told. */
  #ramChanged = false;
  /** Rings went from one back-end to another: whoever waits for an interrupt may have missed it. */
  #takenOver = false;
  /** An address that the network is to be told of. */
  #announced: Uint8Array | null = null;
  #posted = false;
  #working = false;
  #again = false;

  constructor(parts: HandedQueuesParts) {
    this.#parts = parts;
    this.pairs = parts.pairs;
  }

  /** Why a back-end cannot take the place of the one before; null: it can. */
  lack(session: Session): string | null {
    if (session.pairs < this.pairs) return `you are asking more queues than supported: ${session.pairs}`;
    const source = this.#source;
    if (source === null || source.accepted.low === 0) return null;
    return source.needed.mask(session.features) ? LACKS_FEATURES : null;
  }

  /** A back-end is there that lacks nothing. */
  connected(session: Session): void {
    this.#session = session;
    // Devices that are made from now on go by this back-end.
    if (this.#source === null) this.features.copy(session.features);
    this.update();
  }

  /** It is gone. */
  lost(): void {
    this.#session = null;
    const served = this.#served;
    this.#served = null;
    const source = this.#source;
    // Queues of another device, or of an earlier epoch, are nobody's any more.
    if (served !== null && source !== null && isOf(served, source)) this.#recover(served, source);
  }

  #recover(served: Served, source: QueueSource): void {
    this.#takenOver = true;
    for (const { index, queue } of served.rings) {
      const position = positionAfterDeath(queue, source.host.memory);
      const isKept = queue.packed && this.#inflight !== null;
      if (position !== null) {
        this.#parts.stats.takenOver++;
        source.stoppedAt(index, queue, position);
      } else if (!isKept) {
        this.#parts.stats.brokenRings++;
        source.broken();
      }
    }
  }

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
      throw new OptionError(`netdev '${this.#parts.netdev}' is in use`, { option: 'netdev' });
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
            this.#parts.hostIo,
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
    this.#retired.push(...this.#events);
    this.#events = [];
    this.#dropInflight();
    if (!this.#working) this.#closeRetired();
    this.update();
  }

  kick(index: number): void {
    // At the start of a ring everything in it is looked at anyway.
    if (this.#served === null) return;
    this.#parts.stats.kicks++;
    if (this.#served.source === this.#source) this.#events[index]?.signalKick();
  }

  #called(index: number): void {
    if (this.#served === null) return;
    this.#parts.stats.interrupts++;
    this.#source?.interrupt(index);
  }

  #failed(index: number): void {
    if (this.#served === null || index >= this.#events.length) return;
    this.#parts.stats.brokenRings++;
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
    this.#parts.loop.post(() => {
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
      this.#closeRetired();
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
      if (await session.announce(mac)) this.#parts.stats.announcements++;
      else this.#parts.stats.dropNotAnnouncement++;
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
      this.#parts.stats.badBackends++;
      session.conversation.end(LACKS_FEATURES);
      return;
    }
    const { epoch, pairsInUse } = source;
    if (this.#inflight !== null && this.#inflight.epoch !== epoch) this.#dropInflight();
    if (this.#inflight === null) {
      const queueSize = Math.max(...rings.map(({ queue }) => queue.size));
      const area = await session.inflightArea(source.queueCount, queueSize);
      if (area !== null) {
        if (this.#source !== source) this.#retire(area.fd);
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
    this.#parts.stats.starts++;
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
    if (left > 0 && left !== this.#parts.stats.regionsLeftOut) {
      this.#parts.log.warn(
        { netdev: this.#parts.netdev },
        `vhost-user: ${left} regions of guest RAM are more than the back-end can map`,
      );
    }
    this.#parts.stats.regionsLeftOut = left;
  }

  async #stop(session: Session, served: Served): Promise<void> {
    this.#parts.stats.stops++;
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
    if (this.#inflight !== null) this.#retire(this.#inflight.fd);
    this.#inflight = null;
  }

  #retire(handle: Handle): void {
    this.#retired.push({ close: () => this.#parts.hostIo.close(handle) });
    if (!this.#working) this.#closeRetired();
  }

  #closeRetired(): void {
    for (const one of this.#retired.splice(0)) one.close();
  }

  /** Lets the network know that this address is here, once there is time for it; of several, the last one. */
  announce(mac: Uint8Array): void {
    if (this.#announced !== null) this.#parts.stats.dropNotAnnouncement++;
    this.#announced = mac;
    this.update();
  }

  /** A conversation that ended has been dealt with; anything else is ours to mend, and nobody else's to suffer. */
  #gone(error: unknown): void {
    if (error instanceof ConversationOver) return;
    const { log, netdev } = this.#parts;
    log.error({ netdev, err: error }, 'vhost-user: a step failed');
    this.#session?.conversation.end('a step failed');
  }

  /** No back-end is there, and none will come. */
  close(): void {
    this.#session = null;
    this.#served = null;
    if (this.#source !== null) this.detach(this.#source);
    this.#closeRetired();
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

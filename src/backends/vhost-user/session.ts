/**
 * What is said to one back-end, from hello to good-bye: each method is a step of the protocol that leaves the back-end in a known state, or rejects with ConversationOver when it is gone or had to be
 * given up. Nothing of a session outlives its connection.
 *
 *   hello    features, protocol features, queue pairs, memory slots, owner
 *   start    features, MTU, memory, in-flight area, each ring (size, position, addresses, eventfds), which pairs are enabled
 *   stop     rings disabled and asked for their positions
 */

import type { SharedRam, SharedRange } from '../../pci/device-host.ts';
import { Features } from '../../virtio/features.ts';
import type { VirtQueue } from '../../virtio/queue.ts';
import * as p from '../../virtio/vhost-user.ts';
import type { Conversation } from './conversation.ts';
import { frontEndAddress, regionPayload, regionsOf, sameRegion, tablePayload } from './ram.ts';
import type { RingEvents } from './rings.ts';

/** What this front-end can do, where the back-end can too. */
const WANTED =
  p.PF_MQ |
  p.PF_RARP |
  p.PF_REPLY_ACK |
  p.PF_MTU |
  p.PF_INFLIGHT_SHMFD |
  p.PF_RESET_DEVICE |
  p.PF_CONFIGURE_MEM_SLOTS;
/** Regions of one SET_MEM_TABLE. */
const TABLE_REGIONS_MAX = 8;
const SLOTS_MAX = 509;

/** The back-end's own file about buffers in flight, which outlives it. */
export interface InflightArea {
  readonly fd: number;
  readonly description: Uint8Array;
}

export interface RingPlan {
  readonly index: number;
  readonly queue: VirtQueue;
  readonly events: RingEvents;
}

export class Session {
  readonly conversation: Conversation;
  /** What the back-end offers. */
  readonly features = new Features();
  protocolFeatures = 0;
  /** Queue pairs that it has; at least 1. */
  pairs = 1;
  /** Regions that did not fit into the last memory table. */
  regionsLeftOut = 0;
  #slots = TABLE_REGIONS_MAX;
  #regions: SharedRange[] = [];

  constructor(conversation: Conversation) {
    this.conversation = conversation;
  }

  has(protocolFeature: number): boolean {
    return (this.protocolFeatures & protocolFeature) !== 0;
  }

  async hello(): Promise<void> {
    const { conversation } = this;
    const { view } = await conversation.ask(p.GET_FEATURES, [p.U64_BYTES]);
    this.features.setWord(0, view.getUint32(0, true));
    this.features.setWord(1, view.getUint32(4, true));
    if (this.features.has(p.F_PROTOCOL_FEATURES)) {
      const reply = await conversation.ask(p.GET_PROTOCOL_FEATURES, [p.U64_BYTES]);
      this.protocolFeatures = reply.view.getUint32(0, true) & WANTED;
      await conversation.tell(p.SET_PROTOCOL_FEATURES, u64(this.protocolFeatures));
      conversation.acknowledged = this.has(p.PF_REPLY_ACK);
    }
    if (this.has(p.PF_MQ)) this.pairs = await this.#number(p.GET_QUEUE_NUM, 'queue pairs');
    if (this.has(p.PF_CONFIGURE_MEM_SLOTS))
      this.#slots = Math.min(await this.#number(p.GET_MAX_MEM_SLOTS, 'memory slots'), SLOTS_MAX);
    await conversation.tell(p.SET_OWNER);
  }

  async #number(request: number, what: string): Promise<number> {
    const number = await this.conversation.askU64(request);
    if (number < 1) this.conversation.end(`it has no ${what}`);
    return number;
  }

  /** Tells all there is to tell of a device whose driver is ready. */
  async start(parts: {
    readonly features: Features;
    readonly ipMtuBytes: number;
    readonly ram: SharedRam;
    readonly inflight: InflightArea | null;
    readonly rings: readonly RingPlan[];
    readonly packed: boolean;
    readonly pairsInUse: number;
  }): Promise<void> {
    const { conversation } = this;
    const features = new Features();
    features.copy(parts.features);
    features.mask(this.features);
    if (this.features.has(p.F_PROTOCOL_FEATURES)) features.add(p.F_PROTOCOL_FEATURES);
    await conversation.tell(p.SET_FEATURES, words(features.word(0), features.word(1)));
    if (parts.ipMtuBytes > 0 && this.has(p.PF_MTU))
      await conversation.tell(p.NET_SET_MTU, u64(parts.ipMtuBytes));
    await this.setMemory(parts.ram);
    if (parts.inflight !== null)
      await conversation.tell(p.SET_INFLIGHT_FD, parts.inflight.description, [parts.inflight.fd]);
    for (const ring of parts.rings) await this.#setRing(ring, parts.packed);
    await this.enable(parts.rings, parts.pairsInUse);
  }

  async #setRing({ index, queue, events }: RingPlan, packed: boolean): Promise<void> {
    const { conversation } = this;
    const { size, descriptors, device, driver } = queue.layout;
    const { avail, used } = queue.position();
    await conversation.tell(p.SET_VRING_NUM, words(index, size));
    await conversation.tell(p.SET_VRING_BASE, words(index, packed ? (avail | (used << 16)) >>> 0 : avail));
    const addresses = new Uint8Array(p.VRING_ADDR_BYTES);
    const view = new DataView(addresses.buffer);
    view.setUint32(0, index, true);
    p.putU64(view, 8, frontEndAddress(descriptors));
    p.putU64(view, 16, frontEndAddress(device));
    p.putU64(view, 24, frontEndAddress(driver));
    await conversation.tell(p.SET_VRING_ADDR, addresses);
    await conversation.tell(p.SET_VRING_ERR, u64(index), [events.error]);
    await conversation.tell(p.SET_VRING_CALL, u64(index), [events.call]);
    await conversation.tell(p.SET_VRING_KICK, u64(index), [events.kick]);
  }

  /** The first `pairs` pairs of these rings are in use. Without protocol features rings are enabled from the start. */
  async enable(rings: readonly { readonly index: number }[], pairs: number): Promise<void> {
    if (!this.features.has(p.F_PROTOCOL_FEATURES)) return;
    for (const { index } of rings)
      await this.conversation.tell(p.SET_VRING_ENABLE, words(index, index < 2 * pairs ? 1 : 0));
  }

  /**
   * Brings the back-end's memory table up to date. A range may go while the back-end is waited for, and its handle with it: so what is passed is looked up when it goes. Whoever calls is told of such
   * changes, and calls again.
   */
  async setMemory(ram: SharedRam): Promise<void> {
    const { conversation } = this;
    const wanted = regionsOf(ram.ranges, this.#slots);
    this.regionsLeftOut = regionsOf(ram.ranges, Number.POSITIVE_INFINITY).length - wanted.length;
    const old = this.#regions;
    if (!this.has(p.PF_CONFIGURE_MEM_SLOTS)) {
      const isSame = old.length === wanted.length && old.every((region, i) => sameRegion(region, wanted[i]!));
      if (isSame || wanted.length === 0) return;
      this.#regions = wanted;
      await conversation.tell(
        p.SET_MEM_TABLE,
        tablePayload(wanted),
        wanted.map(({ handle }) => handle),
      );
      // Without acknowledgements any reply tells that the table before is not used any more.
      if (!conversation.acknowledged) await conversation.ask(p.GET_FEATURES, [p.U64_BYTES]);
      return;
    }
    for (const region of old) {
      if (wanted.some((other) => sameRegion(region, other))) continue;
      await conversation.tell(p.REM_MEM_REG, regionPayload(region));
      this.#regions = this.#regions.filter((other) => other !== region);
    }
    for (const region of wanted) {
      if (old.some((other) => sameRegion(region, other))) continue;
      if (!regionsOf(ram.ranges, this.#slots).some((other) => sameRegion(region, other))) continue;
      this.#regions = [...this.#regions, region];
      await conversation.tell(p.ADD_MEM_REG, regionPayload(region), [region.handle]);
    }
  }

  /** A file for what is in flight in `queues` rings of at most `queueSize` descriptors; null: the back-end keeps none. */
  async inflightArea(queues: number, queueSize: number): Promise<InflightArea | null> {
    if (!this.has(p.PF_INFLIGHT_SHMFD)) return null;
    const request = new Uint8Array(p.INFLIGHT_BYTES);
    const view = new DataView(request.buffer);
    view.setUint16(16, queues, true);
    view.setUint16(18, queueSize, true);
    const reply = await this.conversation.ask(p.GET_INFLIGHT_FD, [20, p.INFLIGHT_BYTES], request, 1);
    const [fd] = reply.fds;
    if (fd === undefined) return null;
    const description = new Uint8Array(p.INFLIGHT_BYTES);
    description.set(new Uint8Array(reply.view.buffer, 0, reply.bytes));
    return { fd, description };
  }

  /** Stops the rings; `stopped` is told each one's position as the protocol writes it, as soon as it is known. */
  async stop(
    rings: readonly { readonly index: number }[],
    stopped: (index: number, base: number) => void,
  ): Promise<void> {
    await this.enable(rings, 0);
    for (const { index } of rings) {
      const { view } = await this.conversation.ask(p.GET_VRING_BASE, [p.VRING_STATE_BYTES], words(index, 0));
      stopped(index, view.getUint32(4, true));
    }
  }

  /** The driver has reset the device; its rings are stopped. */
  async reset(): Promise<void> {
    if (this.has(p.PF_RESET_DEVICE)) await this.conversation.tell(p.RESET_DEVICE);
  }

  /** Lets the network know that this address is here now. False: the back-end does not do that. */
  async announce(mac: Uint8Array): Promise<boolean> {
    if (!this.has(p.PF_RARP)) return false;
    const payload = new Uint8Array(p.U64_BYTES);
    payload.set(mac.subarray(0, 6));
    await this.conversation.tell(p.SEND_RARP, payload);
    return true;
  }
}

function u64(value: number): Uint8Array {
  const payload = new Uint8Array(p.U64_BYTES);
  p.putU64(new DataView(payload.buffer), 0, value);
  return payload;
}

/** Two 32-bit numbers. */
function words(first: number, second: number): Uint8Array {
  const payload = new Uint8Array(8);
  const view = new DataView(payload.buffer);
  view.setUint32(0, first, true);
  view.setUint32(4, second, true);
  return payload;
}

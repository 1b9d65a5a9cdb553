/**
 * virtio-net over PCI (virtio 1.3, section 5.1): 1af4:1000 transitional, 1af4:1041 modern.
 *
 *   ../../virtio/   rings and the PCI transport, for any virtio device      tx.ts, rx.ts   a queue each way
 *   features.ts     what is offered, what is required, what follows          control.ts     the driver's commands
 *   modes.ts        receive modes, MAC and VLAN tables                       steering.ts    multiqueue, RSS, hashes
 *   coalesce.ts     delayed notifications                                    state.ts       save and restore
 *   strict.ts       what a driver does against the specification
 *
 * Queue 2n receives and 2n+1 transmits for pair n; the control queue follows the last pair that the driver may use: it is queue 2 until MQ or RSS was negotiated.
 * A pair's queues are served by port n modulo the number of ports: a multiqueue tap has a port for each pair, everything else has one, and then the device
 * spreads what it receives.
 *
 * With a queue server (`site.server`) the pairs' queues are handed over (../../virtio/hand-over.ts): what follows from rings is then the server's, and the device keeps registers, configuration
 * and the control queue. What filters would keep out comes in: the virtio specification lets a device filter as well as it can.
 *
 * Left out: RSC, tunnels, header split, per-queue coalescing and flow filters, none of which is offered.
 */

import type { VirtioNetFeature } from '../../config/devices/virtio-net.ts';
import { UnsupportedError } from '../../core/errors.ts';
import { LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import { ACCEPT_ALL, type Client, Port } from '../../core/port.ts';
import { F_IN_ORDER, F_VERSION_1, Features } from '../../virtio/features.ts';
import type { QueueServer, QueueSource } from '../../virtio/hand-over.ts';
import { VirtioPci } from '../../virtio/pci.ts';
import type { QueuePosition, VirtQueue } from '../../virtio/queue.ts';
import { DriverReport } from '../driver-report.ts';
import type { Nic, NicSite } from '../nic.ts';
import {
  RX_ACCEPT_INEXACT,
  RX_DROP_BROADCAST,
  RX_DROP_MULTICAST,
  RX_DROP_RUNT,
  RX_DROP_UNICAST,
  RX_DROP_VLAN,
  type RxFilterInfo,
} from '../rx-filter.ts';
import { Coalescer } from './coalesce.ts';
import { ControlQueue } from './control.ts';
import {
  acceptsOf,
  DATA_PATH,
  F_CTRL_MAC_ADDR,
  F_CTRL_VLAN,
  F_CTRL_VQ,
  F_GUEST_ANNOUNCE,
  F_HASH_REPORT,
  F_MQ,
  F_MRG_RXBUF,
  F_MTU,
  F_RSS,
  F_SPEED_DUPLEX,
  featuresFit,
  GUEST_OFFLOAD_BITS,
  headerBytes,
  hostOffloadsOf,
  limitToServer,
  offerFeatures,
} from './features.ts';
import { Modes } from './modes.ts';
import type { NetContext } from './net.ts';
import { DROPPED, REFUSED, Receiver } from './rx.ts';
import { parseState, type VirtioNetState } from './state.ts';
import { VirtioNetStats } from './stats.ts';
import { HASH_TYPES, RSS_KEY_MAX_BYTES, RSS_TABLE_MAX, Steering } from './steering.ts';
import {
  CheckedQueue,
  QUEUE_CONTROL,
  QUEUE_RX,
  QUEUE_TX,
  StrictTransport,
  VIRTIO_NET_RULES,
  type VirtioNetReport,
} from './strict.ts';
import { Transmitter } from './tx.ts';

export interface VirtioNetOptions {
  /** 6 bytes, unicast. */
  readonly mac: Uint8Array;
  /** Properties that switch features (config/devices/virtio-net.ts). */
  readonly features: ReadonlySet<VirtioNetFeature>;
  /** Default: both. */
  readonly legacy?: boolean;
  readonly modern?: boolean;
  /** Queue pairs that a driver may use with MQ or RSS; default: one for each port. */
  readonly queuePairs?: number | undefined;
  /** Ports, one for each queue of the netdev; default 1. */
  readonly ports?: number;
  readonly rxQueueSize?: number;
  readonly txQueueSize?: number;
  /** MSI-X vectors; undefined: one for each queue and one for changes. */
  readonly vectors?: number | undefined;
  readonly hostMtuBytes?: number | undefined;
  readonly speedMbps?: number | undefined;
  readonly duplex?: 'half' | 'full' | undefined;
  /** Report what the driver does against the specification; default false. */
  readonly strict?: boolean;
}

const DEVICE_TYPE = 1;
const ETHERNET_CLASS = 0x02_00_00;
const CONFIG_BYTES = 24;
const CONTROL_QUEUE_SIZE = 64;
const DEFAULT_QUEUE_SIZE = 256;
const STATUS_LINK_UP = 1;
const STATUS_ANNOUNCE = 2;
const UNKNOWN_SPEED = 0xffffffff;
const UNKNOWN_DUPLEX = 0xff;
const MAC_BYTES = 6;

/** A port's client: one of the device's ends. */
class NetPort implements Client {
  readonly port: Port;
  /** Frames were refused: the port is told when buffers come. */
  refused = false;
  readonly #device: { receiveAt(index: number, frames: Int32Array, from: number, to: number): number };
  readonly #index: number;
  readonly #onReady: (index: number) => void;
  readonly #onLink: (index: number, up: boolean) => void;
  readonly #onAccepts: (index: number, bits: number) => void;

  constructor(
    site: NicSite,
    index: number,
    device: { receiveAt(index: number, frames: Int32Array, from: number, to: number): number },
    onReady: (index: number) => void,
    onLink: (index: number, up: boolean) => void,
    onAccepts: (index: number, bits: number) => void,
  ) {
    this.#device = device;
    this.#index = index;
    this.#onReady = onReady;
    this.#onLink = onLink;
    this.#onAccepts = onAccepts;
    this.port = new Port(index === 0 ? site.name : `${site.name}.${index}`, 'nic', this, site.link);
  }

  receive(frames: Int32Array, from: number, to: number): number {
    return this.#device.receiveAt(this.#index, frames, from, to);
  }

  peerReady(): void {
    this.#onReady(this.#index);
  }

  linkChanged(up: boolean): void {
    this.#onLink(this.#index, up);
  }

  peerAcceptsChanged(bits: number): void {
    this.#onAccepts(this.#index, bits);
  }
}

export class VirtioNet extends VirtioPci implements Nic {
  readonly model = 'virtio-net';
  readonly stats = new VirtioNetStats();
  protected override readonly transport = this.stats;
  readonly ports: readonly Port[];
  readonly mac: Uint8Array;
  readonly driverReport: VirtioNetReport | null;

  readonly #strict: StrictTransport | null;
  readonly #options: VirtioNetOptions;
  readonly #pairsMax: number;
  readonly #server: QueueServer | null;
  readonly #source: QueueSource;
  /** Resets so far. */
  #epoch = 0;
  readonly #net: NetContext;
  readonly #modes = new Modes();
  readonly #steering = new Steering();
  readonly #ends: readonly NetPort[];
  readonly #tx: readonly Transmitter[];
  readonly #rx: readonly Receiver[];
  readonly #control: ControlQueue;
  readonly #txCoalesce = { maxNs: 0, maxPackets: 0 };
  readonly #rxCoalesce = { maxNs: 0, maxPackets: 0 };
  readonly #coalescers: readonly Coalescer[];
  readonly #guestOffloads = new Features();
  /** What the peer takes; before there is one the port itself can do everything. */
  #peerAccepts = ACCEPT_ALL;
  #linkUp = false;
  #announce = false;
  #hashing = false;
  #onRxFilterChanged: (() => void) | null = null;

  constructor(site: NicSite, options: VirtioNetOptions) {
    const portCount = options.ports ?? 1;
    const isMulti = options.features.has('mq') || options.features.has('rss');
    const wantedPairs = isMulti ? Math.max(options.queuePairs ?? portCount, 1) : 1;
    const pairs = Math.min(wantedPairs, site.server?.pairs ?? wantedPairs);
    super(site.host, {
      deviceType: DEVICE_TYPE,
      classCode: ETHERNET_CLASS,
      legacy: options.legacy ?? true,
      modern: options.modern ?? true,
      vectors: options.vectors ?? 2 * pairs + 2,
      queues: 2 * pairs + 1,
      configBytes: CONFIG_BYTES,
    });
    this.mac = options.mac.slice();
    this.#options = options;
    this.#pairsMax = pairs;
    const report = options.strict === true ? new DriverReport(site.name, VIRTIO_NET_RULES, site.log) : null;
    this.driverReport = report;
    this.#strict = report === null ? null : new StrictTransport(this, report);
    this.#server = site.server ?? null;
    this.#source = this.#handOver(site);
    this.#net = {
      memory: this.memory,
      pool: site.link.pool,
      loop: site.link.loop,
      stats: this.stats,
      filter: this.#modes.filter,
      live: false,
      headerBytes: headerBytes(this.accepted),
      mergeable: false,
      hashReport: false,
      inOrder: false,
      strictOrder: false,
      driverRunsBeside: false,
      hostOffloads: 0,
      guestOffloads: 0,
      broken: () => this.needsReset(),
    };
    const { loop } = site.link;
    this.#coalescers = Array.from(
      { length: 2 * pairs },
      (_, index) =>
        new Coalescer(loop, index % 2 === 0 ? this.#rxCoalesce : this.#txCoalesce, () =>
          this.queueInterrupt(index),
        ),
    );
    this.#rx = Array.from(
      { length: pairs },
      (_, pair) => new Receiver(this.#net, (count, wanted) => this.#coalescers[2 * pair].used(count, wanted)),
    );
    this.#tx = Array.from(
      { length: pairs },
      (_, pair) =>
        new Transmitter(this.#net, (count, wanted) => this.#coalescers[2 * pair + 1].used(count, wanted)),
    );
    this.#control = new ControlQueue(
      this.#net,
      {
        accepted: this.accepted,
        pairsMax: pairs,
        steering: this.#steering,
        modes: this.#modes,
        txCoalesce: this.#txCoalesce,
        rxCoalesce: this.#rxCoalesce,
        announced: () => {
          this.#announce = false;
        },
        setGuestOffloads: (offloads) => this.#setGuestOffloads(offloads),
        steeringChanged: () => this.#steeringChanged(),
      },
      () => this.queueInterrupt(this.#controlIndex),
    );
    const device = {
      receiveAt: (index: number, frames: Int32Array, from: number, to: number): number =>
        this.#receive(index, frames, from, to),
    };
    this.#ends = Array.from(
      { length: isMulti ? portCount : 1 },
      (_, index) =>
        new NetPort(
          site,
          index,
          device,
          (at) => this.#peerReady(at),
          (at, up) => this.#linkChanged(at, up),
          (at, bits) => this.#peerAcceptsChanged(at, bits),
        ),
    );
    this.ports = this.#ends.map((end) => end.port);
    for (const [pair, tx] of this.#tx.entries()) tx.port = this.ports[pair % this.ports.length];
    this.resetModel();
    this.#server?.attach(this.#source);
  }

  /** What a queue server sees of the device. */
  #handOver({ name, host }: NicSite): QueueSource {
    const device = this;
    return {
      name,
      host,
      accepted: this.accepted,
      get needed() {
        const needed = new Features(DATA_PATH);
        needed.mask(device.accepted);
        return needed;
      },
      queueCount: 2 * this.#pairsMax,
      get wanted() {
        return device.live && device.#linkUp;
      },
      get epoch() {
        return device.#epoch;
      },
      get pairsInUse() {
        return device.#steering.pairs;
      },
      get ipMtuBytes() {
        return device.accepted.has(F_MTU) ? (device.#options.hostMtuBytes ?? 0) : 0;
      },
      queueAt: (index) => (this.#isHanded(index) ? (this.slots[index].queue ?? null) : null),
      stoppedAt: (index, queue, position) => this.#stoppedAt(index, queue, position),
      interrupt: (index) => this.queueInterrupt(index),
      broken: () => this.needsReset(),
    };
  }

  /** Whether the queue is somebody else's to serve. */
  #isHanded(index: number): boolean {
    return this.#server !== null && index !== this.#controlIndex && index < 2 * this.#pairsMax;
  }

  #stoppedAt(index: number, queue: VirtQueue, position: QueuePosition): void {
    if (this.slots[index].queue === queue) this.moveQueue(index, position);
  }

  protected override get resetting(): boolean {
    return this.#server?.busyWith(this.#source) ?? false;
  }

  /** The queues are handed over, and all of them are served by whoever has them. */
  override get servedOutside(): boolean {
    return this.#server?.started ?? false;
  }

  override writeBar(bar: number, offset: number, size: number, value: number): void {
    if (this.#strict !== null) this.#strict.write(bar, offset, size, value);
    super.writeBar(bar, offset, size, value);
  }

  // Features.

  protected override offer(): void {
    const { features, hostMtuBytes, speedMbps, duplex, modern } = this.#options;
    offerFeatures(this.offered, features, this.#peerAccepts, modern ?? true);
    if (this.#pairsMax === 1) this.offered.remove(F_MQ);
    if (hostMtuBytes !== undefined) this.offered.add(F_MTU);
    if (speedMbps !== undefined || duplex !== undefined) this.offered.add(F_SPEED_DUPLEX);
    if (this.#server === null) return;
    limitToServer(this.offered, this.#server.features);
  }

  protected override featuresFit(accepted: Features): boolean {
    return featuresFit(accepted);
  }

  protected override featuresSettled(): void {
    const net = this.#net;
    const { accepted } = this;
    net.headerBytes = headerBytes(accepted);
    net.mergeable = accepted.has(F_MRG_RXBUF);
    net.hashReport = accepted.has(F_HASH_REPORT);
    net.strictOrder = accepted.has(F_IN_ORDER);
    net.inOrder = net.strictOrder || this.isServedElsewhere;
    net.driverRunsBeside = this.isServedElsewhere;
    net.hostOffloads = hostOffloadsOf(accepted);
    this.#modes.vlanFilter = accepted.has(F_CTRL_VLAN);
    this.#setGuestOffloads(new Features(GUEST_OFFLOAD_BITS.filter((bit) => accepted.has(bit))));
    this.#steeringChanged();
  }

  #setGuestOffloads(offloads: Features): void {
    this.#guestOffloads.copy(offloads);
    const accepts = acceptsOf(offloads);
    this.#net.guestOffloads = accepts;
    for (const port of this.ports) port.accepts = accepts;
  }

  #peerAcceptsChanged(index: number, bits: number): void {
    if (index !== 0) return;
    this.#peerAccepts = bits;
    this.offerChanged();
  }

  // Queues.

  get #usesPairs(): boolean {
    return this.accepted.has(F_MQ) || this.accepted.has(F_RSS);
  }

  get #controlIndex(): number {
    return this.#usesPairs ? 2 * this.#pairsMax : 2;
  }

  protected override queueSizeMax(index: number): number {
    if (index === this.#controlIndex) return this.#options.features.has('ctrl_vq') ? CONTROL_QUEUE_SIZE : 0;
    if (index >= (this.#usesPairs ? 2 * this.#pairsMax : 2)) return 0;
    const { rxQueueSize, txQueueSize } = this.#options;
    return (index % 2 === 0 ? rxQueueSize : txQueueSize) ?? DEFAULT_QUEUE_SIZE;
  }

  protected override queueOpened(index: number, queue: VirtQueue): void {
    if (this.#isHanded(index)) {
      this.#server?.update();
      return;
    }
    if (index === this.#controlIndex) {
      if (this.accepted.has(F_CTRL_VQ)) this.#control.open(this.#checked(index, queue));
    } else if (index % 2 === 0) {
      this.#rx[index >> 1].open(this.#checked(index, queue));
      if (this.live) this.#tellReady();
    } else {
      this.#tx[index >> 1].open(this.#checked(index, queue));
      if (this.live) this.#tx[index >> 1].run();
    }
  }

  /** The queue, with a checker in front of it where the driver's faults are to be told. */
  #checked(index: number, queue: VirtQueue): VirtQueue {
    const report = this.driverReport;
    if (report === null) return queue;
    const kind = index === this.#controlIndex ? QUEUE_CONTROL : index % 2 === 0 ? QUEUE_RX : QUEUE_TX;
    return new CheckedQueue(queue, kind, this.#net, this.accepted, report);
  }

  protected override queueClosed(index: number): void {
    if (this.#isHanded(index)) {
      this.#server?.update();
      return;
    }
    if (index === this.#controlIndex) this.#control.stop();
    else if (index % 2 === 0) this.#rx[index >> 1].stop();
    else this.#tx[index >> 1].stop();
    this.#coalescers[index]?.reset();
    this.#tellReady();
  }

  protected override kicked(index: number): void {
    if (this.#isHanded(index)) {
      this.#server?.kick(index);
      return;
    }
    if (index === this.#controlIndex) this.#control.run();
    else if (index % 2 === 0) this.#tellReady();
    else this.#tx[index >> 1].run();
  }

  protected override liveChanged(live: boolean): void {
    this.#net.live = live;
    this.#server?.update();
    this.#tellReady();
    if (!live) return;
    for (const tx of this.#tx) tx.run();
    this.#control.run();
  }

  protected override resetDevice(): void {
    for (const tx of this.#tx) tx.stop();
    for (const rx of this.#rx) rx.stop();
    this.#control.stop();
    for (const coalescer of this.#coalescers) coalescer.reset();
    for (const parameters of [this.#txCoalesce, this.#rxCoalesce]) {
      parameters.maxNs = 0;
      parameters.maxPackets = 0;
    }
    this.#modes.reset(this.mac);
    this.#steering.reset();
    this.#announce = false;
    this.#epoch++;
    this.featuresSettled();
    this.#server?.update();
  }

  /** Queue pairs that a driver may use. */
  get pairsMax(): number {
    return this.#pairsMax;
  }

  /** Queue pairs in use, for a transport whose front-end keeps the control queue to itself. */
  usePairs(pairs: number): void {
    this.#steering.pairs = Math.min(Math.max(pairs, 1), this.#pairsMax);
    this.#steeringChanged();
  }

  close(): void {
    for (const port of this.ports) port.disconnect();
    this.reset();
    this.#server?.detach(this.#source);
    for (const tx of this.#tx) tx.close();
  }

  // Link.

  #linkChanged(index: number, up: boolean): void {
    if (index !== 0 || up === this.#linkUp) return;
    this.#linkUp = up;
    this.#server?.update();
    this.configChanged();
  }

  /** Asks the driver to tell the network where it is (announce_self, or after it has moved). False: it cannot. */
  announce(): boolean {
    if (!this.live || !this.accepted.has(F_GUEST_ANNOUNCE)) return false;
    this.#announce = true;
    this.configChanged();
    return true;
  }

  #peerReady(index: number): void {
    for (let pair = index; pair < this.#tx.length; pair += this.#ends.length) this.#tx[pair].peerReady();
  }

  /** Whoever was refused may try again. */
  #tellReady(): void {
    // Told of while it is made, before this object is whole.
    if (this.#ends === undefined) return;
    for (const end of this.#ends) {
      if (!end.refused) continue;
      end.refused = false;
      end.port.ready();
    }
  }

  // Receiving.

  #steeringChanged(): void {
    const steering = this.#steering;
    this.#hashing = this.#net.hashReport || steering.rss;
    const learns = steering.pairs > 1 && !steering.rss && this.ports.length === 1;
    for (const [pair, tx] of this.#tx.entries()) {
      tx.observe = learns ? (frame) => steering.learn(this.#net.pool, frame, pair) : null;
    }
    this.#server?.update();
    this.#tellReady();
  }

  #receive(index: number, frames: Int32Array, from: number, to: number): number {
    const { pool, filter, stats } = this.#net;
    const t = pool.table;
    const steering = this.#steering;
    const spreads = steering.rss || steering.pairs > 1;
    const ownPair = this.ports.length > 1 && !steering.rss;
    let rx = this.#rx[0];
    let receivedBytes = 0;
    let received = 0;
    let i = from;
    if (!spreads && !this.#hashing && this.live) {
      received = rx.storePlain(frames, from, to);
      i += received;
      for (let k = from; k < i; k++) receivedBytes += t[frames[k] + TOTAL];
      pool.releaseAll(frames, from, i);
    }
    for (; i < to; i++) {
      const frame = frames[i];
      if (!this.live) {
        stats.rxDropDisabled += to - i;
        pool.releaseAll(frames, i, to);
        i = to;
        break;
      }
      const verdict = filter.decide(pool.bytes, t[frame + OFFSET], t[frame + LENGTH]);
      if (verdict > RX_ACCEPT_INEXACT) {
        this.#countDrop(verdict);
        pool.release(frame);
        continue;
      }
      if (this.#hashing) steering.hash(pool, frame);
      if (spreads) {
        const pair = ownPair ? index % steering.pairs : steering.pairFor(pool, frame);
        if (this.#rx[pair] !== rx) {
          rx.finish();
          rx = this.#rx[pair];
        }
      }
      if (!rx.isOpen) {
        stats.rxDropDisabled++;
        pool.release(frame);
        continue;
      }
      if (this.#net.hashReport) {
        rx.hash = steering.value;
        rx.hashType = steering.report;
      }
      const result = rx.store(frame);
      if (result === REFUSED) {
        this.#ends[index].refused = true;
        break;
      }
      if (result !== DROPPED) {
        received++;
        receivedBytes += t[frame + TOTAL];
      }
      pool.release(frame);
    }
    stats.rxFrames += received;
    stats.rxBytes += receivedBytes;
    rx.finish();
    return i - from;
  }

  #countDrop(verdict: number): void {
    const { stats } = this;
    if (verdict === RX_DROP_UNICAST) stats.rxDropUnicast++;
    else if (verdict === RX_DROP_MULTICAST) stats.rxDropMulticast++;
    else if (verdict === RX_DROP_BROADCAST) stats.rxDropBroadcast++;
    else if (verdict === RX_DROP_VLAN) stats.rxDropVlan++;
    else if (verdict === RX_DROP_RUNT) stats.rxDropRunt++;
  }

  get vnetHdrBytes(): number {
    return this.#net.headerBytes;
  }

  queryRxFilter(name: string): RxFilterInfo {
    return this.#modes.query(name);
  }

  get onRxFilterChanged(): (() => void) | null {
    return this.#onRxFilterChanged;
  }

  set onRxFilterChanged(listener: (() => void) | null) {
    this.#onRxFilterChanged = listener;
    this.#modes.filter.onChanged = listener;
  }

  // The device configuration (section 5.1.4).

  protected override configByte(offset: number): number {
    const { hostMtuBytes, speedMbps, duplex } = this.#options;
    if (offset < MAC_BYTES) return this.#modes.mac[offset];
    switch (offset) {
      case 6:
        return (this.#linkUp ? STATUS_LINK_UP : 0) | (this.#announce ? STATUS_ANNOUNCE : 0);
      case 8:
      case 9:
        return this.#pairsMax >>> (8 * (offset - 8));
      case 10:
      case 11:
        return (hostMtuBytes ?? 0) >>> (8 * (offset - 10));
      case 12:
      case 13:
      case 14:
      case 15:
        return (speedMbps ?? UNKNOWN_SPEED) >>> (8 * (offset - 12));
      case 16:
        return duplex === undefined ? UNKNOWN_DUPLEX : duplex === 'full' ? 1 : 0;
      case 17:
        return RSS_KEY_MAX_BYTES;
      case 18:
        return RSS_TABLE_MAX;
      case 20:
        return HASH_TYPES;
      default:
        return 0;
    }
  }

  /** Only an old driver's MAC address can be written, and only without the command for it (section 5.1.4.1). */
  protected override writeConfigByte(offset: number, value: number): void {
    const { accepted } = this;
    if (offset >= MAC_BYTES || accepted.has(F_VERSION_1) || accepted.has(F_CTRL_MAC_ADDR)) {
      this.stats.oddAccess++;
      return;
    }
    const mac = this.#modes.mac.slice();
    mac[offset] = value;
    this.#modes.setMac(mac);
  }

  // Save and restore.

  saveState(): VirtioNetState {
    if (this.#server?.active)
      throw new UnsupportedError(
        'another program serves the queues: their state can be saved while the network stands still',
      );
    for (const rx of this.#rx) rx.giveBack();
    return {
      model: 'virtio-net',
      version: 1,
      config: [...this.config.bytes],
      transport: this.saveTransport(),
      modes: this.#modes.save(),
      steering: this.#steering.save(),
      guestOffloads: [this.#guestOffloads.word(0), this.#guestOffloads.word(1)],
      coalesce: [
        this.#txCoalesce.maxNs,
        this.#txCoalesce.maxPackets,
        this.#rxCoalesce.maxNs,
        this.#rxCoalesce.maxPackets,
      ],
      announce: this.#announce,
      tx: this.#tx.map((tx) => tx.save()),
    };
  }

  loadState(state: unknown): void {
    const saved = parseState(state, {
      configBytes: this.config.bytes.length,
      queues: this.slots.length,
      pairs: this.#pairsMax,
    });
    const inFlight = this.slots.map(() => 0);
    for (const [pair, { lent, frames }] of saved.tx.entries()) {
      const index = 2 * pair + 1;
      for (const [, slots] of lent) inFlight[index] += slots;
      for (const { slots } of frames) inFlight[index] += slots;
    }
    this.reset();
    this.loadConfig(saved.config);
    this.loadTransport(saved.transport, inFlight);
    this.#modes.load(saved.modes);
    this.#steering.load(saved.steering, this.#pairsMax);
    const offloads = new Features();
    offloads.setWord(0, saved.guestOffloads[0]);
    offloads.setWord(1, saved.guestOffloads[1]);
    offloads.mask(new Features(GUEST_OFFLOAD_BITS.filter((bit) => this.accepted.has(bit))));
    this.#setGuestOffloads(offloads);
    this.#steeringChanged();
    [
      this.#txCoalesce.maxNs,
      this.#txCoalesce.maxPackets,
      this.#rxCoalesce.maxNs,
      this.#rxCoalesce.maxPackets,
    ] = saved.coalesce;
    this.#announce = saved.announce;
    this.goOn(() => {
      this.#net.live = this.live;
      for (const [pair, tx] of this.#tx.entries()) tx.load(saved.tx[pair]);
    });
    // It may be elsewhere now: switches have to learn that.
    this.announce();
  }
}

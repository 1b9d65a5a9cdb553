/**
 * One front-end's session: every request of the protocol, done to the device. A request that is malformed, out of its bounds or unknown gets an error where the front-end
 * asked for a reply (REPLY_ACK), and else ends the connection; it changes nothing, and no front-end can make this throw.
 *
 * The device is a virtio-net driven without its PCI registers (virtio/pci.ts, `attachTransport`). The front-end keeps the control queue: it enables rings, and
 * the pairs in use are those whose receive ring is served. It filters nothing, and neither does the device.
 *
 * A ring stops on GET_VRING_BASE, when it is disabled, and with the session. What a receive ring fetched ahead is given back; what a transmit ring still lends out is used at once, so
 * that the driver loses no buffer, and whoever serves the ring next can take what stands in it as the whole truth. If netemu is killed, that is nearly always true too: the device keeps to the
 * order of the ring as long as no frame is held for half a ring's length.
 */

import type { Logger } from '../../core/log.ts';
import { ERRNO, type Handle, type HostIo } from '../../host-io/host-io.ts';
import { DATA_PATH, F_MQ, F_MTU } from '../../nic/virtio-net/features.ts';
import type { VirtioNet } from '../../nic/virtio-net/index.ts';
import { F_RING_PACKED, Features } from '../../virtio/features.ts';
import { NOT_LOGGED } from '../../virtio/tracked.ts';
import * as p from '../../virtio/vhost-user.ts';
import { putU16be } from '../../wire/bytes.ts';
import { ETHERTYPE_RARP } from '../../wire/ethernet.ts';
import type { VhostUserHost } from './host.ts';
import { InflightArea, regionBytes } from './inflight.ts';
import { FrontEndMemory, MAX_REGIONS, type MemoryStats, type RegionPlace } from './memory.ts';
import { Ring, takeEventFd } from './ring.ts';
import { Wire, type WireStats } from './wire.ts';
import { WriteLog } from './write-log.ts';

export class RingStats {
  kicks = 0;
  /** Rings that were started, and stopped. */
  starts = 0;
  stops = 0;
  /** Rings that lie in no memory, or cannot be rings. */
  badRings = 0;
  /** Buffers that were still lent out or waiting when their transmit ring stopped, and were used at once. */
  usedAtStop = 0;
  /** Announcements sent for a guest that moved here, and those that could not be. */
  announcements = 0;
  announcementsLost = 0;
  /** Times that the log of written pages was switched on. */
  logsBegun = 0;
}

export interface SessionParts {
  readonly hostIo: HostIo;
  readonly log: Logger;
  readonly host: VhostUserHost;
  readonly device: VirtioNet;
  readonly wireStats: WireStats;
  readonly memoryStats: MemoryStats;
  readonly ringStats: RingStats;
  /** The front-end is gone and everything of it is cleaned up. */
  ended(reason: string): void;
}

const PROTOCOL_FEATURES =
  p.PF_MQ |
  p.PF_LOG_SHMFD |
  p.PF_RARP |
  p.PF_REPLY_ACK |
  p.PF_MTU |
  p.PF_INFLIGHT_SHMFD |
  p.PF_RESET_DEVICE |
  p.PF_CONFIGURE_MEM_SLOTS |
  p.PF_STATUS;

/** What a handler returns when it has sent the reply itself. */
const REPLIED = -1;
const MTU_MIN_BYTES = 68;
const MTU_MAX_BYTES = 65_535;
const ETHERNET_MIN_BYTES = 60;

/** Does a request with this payload; returns 0, an errno, or REPLIED. Descriptors that it keeps it takes out of `fds`. */
type Handler = (at: number, bytes: number, fds: Handle[]) => number;

interface Request {
  /** Exact, or the least there must be when `list`. */
  readonly bytes: number;
  readonly list?: boolean;
  /** The most descriptors that may come along. */
  readonly fds?: number;
  /** It always has a reply of its own: an error of it cannot be told, and ends the connection. */
  readonly replies?: boolean;
  readonly handle: Handler;
}

export class Session {
  readonly #parts: SessionParts;
  readonly #wire: Wire;
  readonly #memory: FrontEndMemory;
  readonly #log: WriteLog;
  #inflight: InflightArea | null = null;
  readonly #rings: readonly Ring[];
  readonly #offered = new Features();
  readonly #features = new Features();
  readonly #requests: ReadonlyMap<number, Request>;
  /** SET_FEATURES came. */
  #settled = false;
  #protocolFeatures = 0;
  #status = 0;
  #broken = false;
  /** As NET_SET_MTU told; 0: not told. */
  ipMtuBytes = 0;

  constructor(handle: Handle, parts: SessionParts) {
    const { hostIo, device, host } = parts;
    this.#parts = parts;
    this.#memory = new FrontEndMemory(hostIo, host.memory, parts.memoryStats);
    this.#log = new WriteLog(hostIo, host.memory);
    this.#rings = Array.from({ length: 2 * device.pairsMax }, (_, index) => new Ring(index, hostIo));
    device.attachTransport({
      queueInterrupt: (index) => this.#rings[index]?.interrupt(),
      ringBroken: () => this.#ringBroken(),
    });
    this.#offer();
    this.#requests = this.#table();
    this.#wire = new Wire(hostIo, handle, this, parts.wireStats);
  }

  #table(): ReadonlyMap<number, Request> {
    const u64 = (handle: (value: number) => number): Request => ({
      bytes: p.U64_BYTES,
      handle: (at) => handle(p.u64(this.#wire.view, at)),
    });
    const state = (handle: (ring: Ring, value: number) => number, replies = false): Request => ({
      bytes: p.VRING_STATE_BYTES,
      replies,
      handle: (at) => {
        const ring = this.#rings[this.#wire.view.getUint32(at, true)];
        return ring === undefined ? ERRNO.EINVAL : handle(ring, this.#wire.view.getUint32(at + 4, true));
      },
    });
    const get = (value: () => number): Request => ({
      bytes: 0,
      replies: true,
      handle: () => value(),
    });
    const eventFd = (request: number, set: (ring: Ring, fd: Handle) => boolean): [number, Request] => [
      request,
      { bytes: p.U64_BYTES, fds: 1, handle: (at, _bytes, fds) => this.#eventFd(at, fds, set) },
    ];
    return new Map<number, Request>([
      [p.GET_FEATURES, get(() => this.#replyFeatures())],
      [p.SET_FEATURES, { bytes: p.U64_BYTES, handle: (at) => this.#setFeatures(at) }],
      [p.SET_OWNER, { bytes: 0, handle: () => 0 }],
      [p.RESET_OWNER, { bytes: 0, handle: () => this.#reset() }],
      [
        p.SET_MEM_TABLE,
        {
          bytes: p.TABLE_HEADER_BYTES,
          list: true,
          fds: p.MAX_FDS,
          handle: (at, bytes, fds) => this.#setMemTable(at, bytes, fds),
        },
      ],
      [
        p.SET_LOG_BASE,
        {
          bytes: p.LOG_BYTES,
          fds: 1,
          replies: true,
          handle: (at, _bytes, fds) => this.#setLogBase(at, fds),
        },
      ],
      [p.SET_LOG_FD, { bytes: 0, fds: 1, handle: (_at, _bytes, fds) => this.#setLogFd(fds) }],
      [p.SET_VRING_NUM, state((ring, size) => this.#setSize(ring, size))],
      [p.SET_VRING_ADDR, { bytes: p.VRING_ADDR_BYTES, handle: (at) => this.#setAddress(at) }],
      [
        p.SET_VRING_BASE,
        state((ring, base) => {
          if (ring.queue !== null) return ERRNO.EINVAL;
          ring.base = base;
          return 0;
        }),
      ],
      [p.GET_VRING_BASE, state((ring) => this.#getBase(ring), true)],
      eventFd(p.SET_VRING_KICK, (ring, fd) => ring.setKick(fd, () => this.#kicked(ring))),
      eventFd(p.SET_VRING_CALL, (ring, fd) => ring.setCall(fd)),
      eventFd(p.SET_VRING_ERR, (ring, fd) => ring.setError(fd)),
      [p.GET_PROTOCOL_FEATURES, get(() => this.#replyU64(p.GET_PROTOCOL_FEATURES, PROTOCOL_FEATURES))],
      [
        p.SET_PROTOCOL_FEATURES,
        u64((value) => {
          if (value >= 2 ** 32 || (value & ~PROTOCOL_FEATURES) !== 0) return ERRNO.EINVAL;
          this.#protocolFeatures = value;
          return 0;
        }),
      ],
      [p.GET_QUEUE_NUM, get(() => this.#replyU64(p.GET_QUEUE_NUM, this.#parts.device.pairsMax))],
      [
        p.SET_VRING_ENABLE,
        state((ring, on) => {
          if (on > 1) return ERRNO.EINVAL;
          ring.enabled = on === 1;
          return this.#refresh(ring);
        }),
      ],
      [p.SEND_RARP, { bytes: p.U64_BYTES, handle: (at) => this.#sendRarp(at) }],
      [p.NET_SET_MTU, u64((bytes) => this.#setMtu(bytes))],
      [
        p.GET_INFLIGHT_FD,
        {
          bytes: p.INFLIGHT_LEAST_BYTES,
          list: true,
          replies: true,
          handle: (at, bytes) => this.#getInflight(at, bytes),
        },
      ],
      [
        p.SET_INFLIGHT_FD,
        {
          bytes: p.INFLIGHT_LEAST_BYTES,
          list: true,
          fds: 1,
          handle: (at, bytes, fds) => this.#setInflight(at, bytes, fds),
        },
      ],
      [p.RESET_DEVICE, { bytes: 0, handle: () => this.#reset() }],
      [p.GET_MAX_MEM_SLOTS, get(() => this.#replyU64(p.GET_MAX_MEM_SLOTS, MAX_REGIONS))],
      [
        p.ADD_MEM_REG,
        {
          bytes: p.TABLE_HEADER_BYTES + p.REGION_BYTES,
          fds: 1,
          handle: (at, _bytes, fds) => {
            if (fds.length !== 1) return ERRNO.EINVAL;
            const errno = this.#memory.add(this.#place(at + p.TABLE_HEADER_BYTES), fds[0]!);
            return errno === 0 ? this.#moved() : errno;
          },
        },
      ],
      [
        p.REM_MEM_REG,
        {
          bytes: p.TABLE_HEADER_BYTES + p.REGION_BYTES,
          // Some front-ends send the region's descriptor here too; it is closed.
          fds: 1,
          handle: (at) => {
            const errno = this.#memory.remove(this.#place(at + p.TABLE_HEADER_BYTES));
            return errno === 0 ? this.#moved() : errno;
          },
        },
      ],
      [
        p.SET_STATUS,
        u64((status) => {
          if (status > 0xff) return ERRNO.EINVAL;
          if (status === 0) this.#reset();
          this.#status = status;
          return 0;
        }),
      ],
      [p.GET_STATUS, get(() => this.#replyU64(p.GET_STATUS, this.#status))],
    ]);
  }

  close(reason: string): void {
    this.#wire.close(reason);
  }

  /** The wire: the connection has ended. */
  closed(reason: string): void {
    this.#stopAll();
    for (const ring of this.#rings) ring.reset();
    this.#log.close();
    this.#inflight?.close();
    this.#inflight = null;
    this.#parts.device.attachTransport(null);
    this.#memory.clear();
    this.#parts.ended(reason);
  }

  /** The wire: a whole message. */
  message(number: number, flags: number, bytes: number, fds: Handle[], excessFds: number): void {
    const { hostIo, wireStats, log } = this.#parts;
    const request = this.#requests.get(number);
    const fits =
      request !== undefined &&
      (request.list === true ? bytes >= request.bytes : bytes === request.bytes) &&
      fds.length <= (request.fds ?? 0) &&
      excessFds === 0;
    let result: number = request === undefined ? ERRNO.EOPNOTSUPP : ERRNO.EINVAL;
    if (fits) {
      try {
        result = request.handle(p.HEADER_BYTES, bytes, fds);
      } catch (error) {
        // Ours to mend, not the front-end's to suffer.
        log.error({ err: error, request: number }, 'vhost-user: a request failed');
      }
    }
    for (const fd of fds) hostIo.close(fd);
    if (result === REPLIED || !this.#wire.open) return;
    if (result !== 0) wireStats.badMessages++;
    const wantsReply = (flags & p.FLAG_NEED_REPLY) !== 0 && (this.#protocolFeatures & p.PF_REPLY_ACK) !== 0;
    if (wantsReply && request?.replies !== true) this.#replyU64(number, result);
    else if (result !== 0) this.#wire.close(`request ${number} failed with errno ${result}`);
  }

  #replyU64(request: number, value: number): number {
    p.putU64(this.#wire.replyView, p.HEADER_BYTES, value);
    this.#wire.reply(request, p.U64_BYTES);
    return REPLIED;
  }

  // Features.

  /** Not RING_RESET: QEMU 11.1 passes it on to the driver, and then tells the back-end of no queue that was reset. */
  #offer(): void {
    const { device } = this.#parts;
    this.#offered.clear();
    for (const bit of DATA_PATH) if (device.offered.has(bit)) this.#offered.add(bit);
    this.#offered.add(F_MTU);
    this.#offered.add(p.F_LOG_ALL);
    this.#offered.add(p.F_PROTOCOL_FEATURES);
    if (device.pairsMax > 1) this.#offered.add(F_MQ);
  }

  #replyFeatures(): number {
    const view = this.#wire.replyView;
    view.setUint32(p.HEADER_BYTES, this.#offered.word(0), true);
    view.setUint32(p.HEADER_BYTES + 4, this.#offered.word(1), true);
    this.#wire.reply(p.GET_FEATURES, p.U64_BYTES);
    return REPLIED;
  }

  #setFeatures(at: number): number {
    const { view } = this.#wire;
    const features = new Features();
    features.setWord(0, view.getUint32(at, true));
    features.setWord(1, view.getUint32(at + 4, true));
    if (features.mask(this.#offered)) return ERRNO.EINVAL;
    // A log begins and ends under rings that run.
    const logAll = features.has(p.F_LOG_ALL);
    features.remove(p.F_LOG_ALL);
    const same = features.low === this.#features.low && features.high === this.#features.high;
    // Rings that run keep to what they began with, the log apart.
    if (!(this.#settled && same) && this.#rings.some(({ queue }) => queue !== null)) return ERRNO.EINVAL;
    if (logAll && !this.#log.on) this.#parts.ringStats.logsBegun++;
    this.#log.switch(logAll);
    if (this.#settled && same) return 0;
    const hasProtocolFeatures = features.has(p.F_PROTOCOL_FEATURES);
    this.#features.copy(features);
    this.#settled = true;
    // A front-end without protocol features does not enable rings: they all are from the start.
    if (!hasProtocolFeatures) for (const ring of this.#rings) ring.enabled = true;
    this.#settle();
    return this.#refreshAll();
  }

  #settle(): void {
    const { device } = this.#parts;
    const features = new Features();
    features.copy(this.#features);
    features.remove(p.F_PROTOCOL_FEATURES);
    // Whatever the driver took, the front-end may use every ring that it was told of.
    if (device.pairsMax > 1) {
      device.offered.add(F_MQ);
      features.add(F_MQ);
    }
    device.settleFeatures(features);
  }

  // Memory.

  #place(at: number): RegionPlace {
    const { view } = this.#wire;
    return {
      guest: p.u64(view, at),
      bytes: p.u64(view, at + 8),
      user: p.u64(view, at + 16),
      offset: p.u64(view, at + 24),
    };
  }

  #setMemTable(at: number, bytes: number, fds: readonly Handle[]): number {
    const count = this.#wire.view.getUint32(at, true);
    if (count !== fds.length || bytes !== p.TABLE_HEADER_BYTES + count * p.REGION_BYTES) return ERRNO.EINVAL;
    const places = fds.map((_, i) => this.#place(at + p.TABLE_HEADER_BYTES + i * p.REGION_BYTES));
    const errno = this.#memory.setTable(places, fds);
    const moved = this.#moved();
    return errno !== 0 ? errno : moved;
  }

  /** Memory came or went: rings that lie elsewhere now are opened there, and those that lie nowhere stop. */
  #moved(): number {
    for (const ring of this.#rings) {
      const { queue } = ring;
      if (queue === null) continue;
      const layout = ring.layout(this.#memory, queue.packed);
      const { layout: old } = queue;
      const stays =
        layout !== null &&
        layout.descriptors === old.descriptors &&
        layout.driver === old.driver &&
        layout.device === old.device;
      if (!stays) this.#stop(ring);
    }
    // Those that can run nowhere are no error of this request: memory may come in several.
    for (const ring of this.#rings) if (ring.layout(this.#memory, this.#packed) !== null) this.#refresh(ring);
    return 0;
  }

  // Rings.

  get #packed(): boolean {
    return this.#features.has(F_RING_PACKED);
  }

  #setSize(ring: Ring, size: number): number {
    if (ring.queue !== null) return size === ring.size ? 0 : ERRNO.EINVAL;
    if (size < 1 || size > 32_768) return ERRNO.EINVAL;
    ring.size = size;
    return 0;
  }

  #setAddress(at: number): number {
    const { view } = this.#wire;
    const ring = this.#rings[view.getUint32(at, true)];
    const flags = view.getUint32(at + 4, true);
    const known = (this.#protocolFeatures & p.PF_LOG_SHMFD) !== 0 ? p.VRING_F_LOG : 0;
    if (ring === undefined || (flags & ~known) !== 0) return ERRNO.EINVAL;
    const usedLogAddress = flags !== 0 ? p.u64(view, at + 32) : NOT_LOGGED;
    const addresses = {
      descriptors: p.u64(view, at + 8),
      used: p.u64(view, at + 16),
      available: p.u64(view, at + 24),
    };
    if (ring.queue !== null) {
      const old = ring.addresses;
      const same =
        old !== null &&
        old.descriptors === addresses.descriptors &&
        old.used === addresses.used &&
        old.available === addresses.available;
      if (same) ring.logUsed(usedLogAddress);
      return same ? 0 : ERRNO.EINVAL;
    }
    ring.addresses = addresses;
    ring.logUsed(usedLogAddress);
    return this.#refresh(ring);
  }

  // The log of written pages.

  #setLogBase(at: number, fds: readonly Handle[]): number {
    const { view } = this.#wire;
    if ((this.#protocolFeatures & p.PF_LOG_SHMFD) === 0 || fds.length !== 1) return ERRNO.EINVAL;
    const taken = this.#log.setBase(fds[0]!, p.u64(view, at + 8), p.u64(view, at));
    return taken ? this.#replyU64(p.SET_LOG_BASE, 0) : ERRNO.EINVAL;
  }

  #setLogFd(fds: Handle[]): number {
    const fd = fds.shift();
    if (fd === undefined || !takeEventFd(this.#parts.hostIo, fd)) return ERRNO.EINVAL;
    this.#log.setEvent(fd);
    return 0;
  }

  #eventFd(at: number, fds: Handle[], set: (ring: Ring, fd: Handle) => boolean): number {
    const value = p.u64(this.#wire.view, at);
    const ring = this.#rings[value & p.VRING_INDEX_MASK];
    const withoutFd = (value & p.VRING_NO_FD) !== 0;
    if (ring === undefined || value > (p.VRING_NO_FD | p.VRING_INDEX_MASK)) return ERRNO.EINVAL;
    if (fds.length !== (withoutFd ? 0 : 1)) return ERRNO.EINVAL;
    if (!set(ring, fds.shift() ?? 0)) return ERRNO.EINVAL;
    return this.#refresh(ring);
  }

  #kicked(ring: Ring): void {
    this.#parts.ringStats.kicks++;
    if (ring.queue !== null) this.#parts.device.kickQueueAt(ring.index);
  }

  #refreshAll(): number {
    let errno = 0;
    for (const ring of this.#rings) errno = this.#refresh(ring) || errno;
    return errno;
  }

  /** Starts or stops a ring as what is known of it now wants. Returns 0, or an errno when it should run and cannot. */
  #refresh(ring: Ring): number {
    const { device, host, ringStats } = this.#parts;
    const wanted = ring.ready && this.#settled && !this.#broken;
    if (wanted === (ring.queue !== null)) return 0;
    if (!wanted) {
      this.#stop(ring);
      return 0;
    }
    const layout = ring.layout(this.#memory, this.#packed);
    if (layout === null) {
      ringStats.badRings++;
      return ERRNO.EINVAL;
    }
    ringStats.starts++;
    const region = this.#inflight?.region(ring.index, ring.size) ?? null;
    const queue = ring.open(layout, device.accepted, host.memory, region);
    device.openQueueAt(ring.index, queue);
    this.#ringsChanged();
    // What was made available before we listened.
    device.kickQueueAt(ring.index);
    return 0;
  }

  #stop(ring: Ring): void {
    const { queue } = ring;
    if (queue === null) return;
    const { device, host, ringStats } = this.#parts;
    ringStats.stops++;
    if (ring.index % 2 === 0) {
      ring.keepBase(queue.rewind(), queue.packed);
    } else {
      const { chains, told } = queue.drain(host.memory);
      ringStats.usedAtStop += chains;
      if (told) ring.interrupt();
      ring.keepBase(queue.position(), queue.packed);
    }
    host.memory.settleLog();
    ring.queue = null;
    device.closeQueueAt(ring.index);
    this.#ringsChanged();
  }

  #stopAll(): void {
    for (const ring of this.#rings) this.#stop(ring);
  }

  #ringsChanged(): void {
    const { device } = this.#parts;
    let pairs = 0;
    while (2 * pairs < this.#rings.length && this.#rings[2 * pairs]!.queue !== null) pairs++;
    device.usePairs(pairs);
    device.setTransportLive(this.#rings.some(({ queue }) => queue !== null));
  }

  #getBase(ring: Ring): number {
    this.#stop(ring);
    ring.stop();
    const view = this.#wire.replyView;
    view.setUint32(p.HEADER_BYTES, ring.index, true);
    view.setUint32(p.HEADER_BYTES + 4, ring.base, true);
    this.#wire.reply(p.GET_VRING_BASE, p.VRING_STATE_BYTES);
    // The last one: what was broken is forgotten, and the rings may be set up anew.
    if (this.#broken && !this.#rings.some(({ kickable }) => kickable)) this.#mend();
    return REPLIED;
  }

  /** The device: a ring broke the rules. Nothing is served until all rings were stopped or reset. */
  #ringBroken(): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#parts.log.warn({}, 'vhost-user: a ring breaks the rules; nothing is served until it is reset');
    for (const ring of this.#rings) if (ring.queue !== null && ring.queue.fault !== 0) ring.tellError();
  }

  #mend(): void {
    this.#broken = false;
    this.#parts.device.restart();
    if (this.#settled) this.#settle();
  }

  #reset(): number {
    this.#stopAll();
    for (const ring of this.#rings) {
      ring.stop();
      ring.enabled = false;
      ring.base = 0;
    }
    this.#log.switch(false);
    this.#inflight?.forget();
    this.#settled = false;
    this.#features.clear();
    this.#status = 0;
    this.#mend();
    return 0;
  }

  // What is in flight.

  #getInflight(at: number, bytes: number): number {
    const { hostIo } = this.#parts;
    const { view } = this.#wire;
    const queues = view.getUint16(at + 16, true);
    const queueSize = view.getUint16(at + 18, true);
    if (!this.#hasInflight(bytes) || queues < 1 || queues > this.#rings.length) return ERRNO.EINVAL;
    if (queueSize < 1 || queueSize > 32_768) return ERRNO.EINVAL;
    const length = queues * regionBytes(queueSize);
    const fd = hostIo.memoryFd('inflight', length);
    const reply = this.#wire.replyView;
    p.putU64(reply, p.HEADER_BYTES, length);
    p.putU64(reply, p.HEADER_BYTES + 8, 0);
    reply.setUint16(p.HEADER_BYTES + 16, queues, true);
    reply.setUint16(p.HEADER_BYTES + 18, queueSize, true);
    reply.setUint32(p.HEADER_BYTES + 20, 0, true);
    this.#wire.reply(p.GET_INFLIGHT_FD, bytes, [fd]);
    hostIo.close(fd);
    return REPLIED;
  }

  #setInflight(at: number, bytes: number, fds: readonly Handle[]): number {
    const { view } = this.#wire;
    if (!this.#hasInflight(bytes) || fds.length !== 1) return ERRNO.EINVAL;
    // Rings that run are noted where they began.
    if (this.#rings.some(({ queue }) => queue !== null)) return ERRNO.EINVAL;
    const area = InflightArea.open(
      this.#parts.hostIo,
      fds[0]!,
      p.u64(view, at + 8),
      p.u64(view, at),
      view.getUint16(at + 16, true),
      view.getUint16(at + 18, true),
    );
    if (area === null) return ERRNO.EINVAL;
    this.#inflight?.close();
    this.#inflight = area;
    return 0;
  }

  #hasInflight(bytes: number): boolean {
    return bytes <= p.INFLIGHT_BYTES && (this.#protocolFeatures & p.PF_INFLIGHT_SHMFD) !== 0;
  }

  // The network's own.

  #setMtu(bytes: number): number {
    if (bytes < MTU_MIN_BYTES || bytes > MTU_MAX_BYTES) return ERRNO.EINVAL;
    this.ipMtuBytes = bytes;
    return 0;
  }

  /** Tells the network where a guest that moved here is now: a RARP request of its own address (RFC 903). */
  #sendRarp(at: number): number {
    const { device, host, ringStats } = this.#parts;
    const mac = this.#wire.bytes.slice(at, at + 6);
    const bytes = new Uint8Array(ETHERNET_MIN_BYTES);
    bytes.fill(0xff, 0, 6);
    bytes.set(mac, 6);
    putU16be(bytes, 12, ETHERTYPE_RARP);
    putU16be(bytes, 14, 1);
    putU16be(bytes, 16, 0x0800);
    bytes[18] = 6;
    bytes[19] = 4;
    putU16be(bytes, 20, 3);
    bytes.set(mac, 22);
    bytes.set(mac, 32);
    const port = device.ports[0]!;
    const frame = port.up ? host.pool.from(bytes) : 0;
    if (frame !== 0 && port.send(Int32Array.of(frame), 0, 1) === 1) {
      ringStats.announcements++;
      return 0;
    }
    if (frame !== 0) host.pool.release(frame);
    ringStats.announcementsLost++;
    return 0;
  }
}

/**
 * The rings of a netmap port: received frames are copied out of the mapped buffers (one copy), frames to send are copied in, and the kernel is told of a
 * whole batch at once.
 *
 *   receive   a wake-up's readiness check (poll, by epoll) is what makes netmap look at its rings: then no further system call
 *   transmit  one NIOCTXSYNC for a batch, and one before when the ring looked full
 *
 * All receive rings are read; frames leave by the first transmit ring, so that none overtakes another. Netmap knows no offloads: checksums and segments are
 * done before frames come here.
 */

import { type FramePool, TOTAL } from '../core/pool.ts';
import { ERRNO, type Handle, type HostIo } from '../host-io/host-io.ts';
import type { BackendContext } from './backend.ts';
import { FramePort, FramePortStats } from './frame-port.ts';
import { NetmapMemory, type NetmapRings, netmapRings } from './netmap-rings.ts';

/** _IO('i', 148) and _IO('i', 149). */
export const NIOCTXSYNC = 0x6994;
export const NIOCRXSYNC = 0x6995;

const ENXIO = 6;
const ENODEV = 19;

export class NetmapStats extends FramePortStats {
  /** Received frames longer than any slot, or whose descriptors make no sense. */
  rxDropBadSlots = 0;
}

/** ioctl, as host I/O has it. */
export type Control = (handle: Handle, request: number, argument?: Uint8Array) => number;

export class NetmapPort extends FramePort {
  readonly stats = new NetmapStats();
  readonly rings: NetmapRings;
  readonly #control: Control;
  readonly #ifname: string;
  readonly #map: Uint8Array;
  #nextRing = 0;
  #mapped = true;

  /** `map` is the port's memory, `at` the place of its netmap_if. Throws HostIoError when they do not fit; then nothing is taken over. */
  constructor(
    name: string,
    ifname: string,
    context: BackendContext,
    hostIo: HostIo,
    control: Control,
    handle: Handle,
    map: Uint8Array,
    at: number,
  ) {
    super(name, context, hostIo);
    this.#ifname = ifname;
    this.#control = control;
    this.#map = map;
    this.rings = netmapRings(new NetmapMemory(map), at);
    this.attach(handle, handle);
  }

  protected read(slots: Int32Array, count: number, spill: Int32Array): number {
    const got = this.#take(slots, count, spill);
    if (got > 0 || count === 0) return got;
    // Ready, and nothing there: more came just now, or the interface is gone.
    const result = this.#control(this.receiveHandle, NIOCRXSYNC);
    return result < 0 ? result : this.#take(slots, count, spill);
  }

  #take(slots: Int32Array, count: number, spill: Int32Array): number {
    const { pool } = this.context;
    const { rx } = this.rings;
    let filled = 0;
    for (let i = 0; i < rx.length && filled < count; i++) {
      const ring = rx[(this.#nextRing + i) % rx.length]!;
      while (filled < count) {
        const taken = ring.take(pool, slots[filled]!, spill[filled]!);
        if (taken === 0) break;
        if (taken < 0) {
          this.stats.rxDropBadSlots++;
          continue;
        }
        if (taken === 2) spill[filled] = 0;
        filled++;
      }
    }
    if (rx.length > 0) this.#nextRing = (this.#nextRing + 1) % rx.length;
    return filled;
  }

  protected write(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.context;
    const ring = this.rings.tx[0];
    if (ring === undefined) return -ERRNO.EINVAL;
    let at = this.#put(pool, frames, from, to);
    if (at < to) {
      if (pool.table[frames[at]! + TOTAL]! > ring.frameMaxBytes) {
        if (at === from) return -ERRNO.EMSGSIZE;
      } else {
        const result = this.#control(this.sendHandle, NIOCTXSYNC);
        if (result < 0 && at === from) return result;
        at = this.#put(pool, frames, at, to);
        if (at < to) ring.wantMore();
        if (at === from) return -ERRNO.EAGAIN;
      }
    }
    const result = this.#control(this.sendHandle, NIOCTXSYNC);
    // What is in the ring is sent, or lost with it.
    return result < 0 && at === from ? result : at - from;
  }

  /** Fills the ring from `at` on; returns the first frame it has no room for. */
  #put(pool: FramePool, frames: Int32Array, at: number, to: number): number {
    const ring = this.rings.tx[0]!;
    while (at < to && pool.table[frames[at]! + TOTAL]! <= ring.frameMaxBytes && ring.put(pool, frames[at]!))
      at++;
    return at;
  }

  protected override mend(): boolean {
    return false;
  }

  protected override isGone(errno: number): boolean {
    return errno === ENXIO || errno === ENODEV;
  }

  protected gone(): void {
    this.context.log.warn({ netdev: this.port.name }, `interface ${this.#ifname} is gone`);
    this.port.setCarrier(false);
    this.close();
  }

  /** Closes the descriptor, which takes the interface out of netmap mode, and unmaps the rings. */
  close(): void {
    this.detach();
    if (!this.#mapped) return;
    this.#mapped = false;
    this.hostIo.unmap(this.#map);
  }
}

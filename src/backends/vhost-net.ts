/**
 * vhost-net: the kernel works on the rings of a virtio-net's data queues and on the tap behind them; no frame passes here. One device (/dev/vhost-net) for each
 * queue pair, with two rings: 0 to receive, 1 to transmit (linux/vhost.h):
 *
 *     SET_OWNER                                         once
 *     SET_FEATURES  SET_MEM_TABLE                       what the driver took; guest RAM, by guest address and by ours
 *     SET_VRING_NUM BASE ADDR KICK CALL for each ring   size, where it stands, where it lies (our addresses), two eventfds
 *     NET_SET_BACKEND for each ring                     the tap; -1 stops it, and GET_VRING_BASE says where it stands
 *
 * Guest RAM is mapped once more for this, so that it stays while the kernel works on it. Each change of what is wanted, or of the RAM, is a stop and a start:
 * the stop is done at once, within the call that told of it, so that a driver's memory is its own again; the start follows in the loop's next turn. From the time a NIC hands its queues over nothing is read from the tap here; one that cannot (another
 * model, a machine whose RAM lies in no files) never attaches, and its frames go by the tap's ports as ever.
 */

import { HostIoError, OptionError, UnsupportedError } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';
import type { Loop } from '../core/loop.ts';
import { errnoName, errnoText } from '../host-io/errno.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import type { SharedRam, SharedRange } from '../pci/device-host.ts';
import { F_ANY_LAYOUT, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Features } from '../virtio/features.ts';
import type { QueueServer, QueueSource } from '../virtio/hand-over.ts';
import type { VirtQueue } from '../virtio/queue.ts';
import { regionsOf, sameRegion } from './vhost-user/ram.ts';
import { RingEvents } from './vhost-user/rings.ts';

/** Requests of linux/vhost.h (type 0xaf). */
export const VHOST = {
  GET_FEATURES: 0x8008_af00,
  SET_FEATURES: 0x4008_af00,
  SET_OWNER: 0xaf01,
  SET_MEM_TABLE: 0x4008_af03,
  SET_VRING_NUM: 0x4008_af10,
  SET_VRING_ADDR: 0x4028_af11,
  SET_VRING_BASE: 0x4008_af12,
  GET_VRING_BASE: 0xc008_af12,
  SET_VRING_KICK: 0x4008_af20,
  SET_VRING_CALL: 0x4008_af21,
  SET_VRING_ERR: 0x4008_af22,
  SET_VRING_BUSYLOOP_TIMEOUT: 0x4008_af23,
  NET_SET_BACKEND: 0x4008_af30,
} as const;

const F_MRG_RXBUF = 15;
/** Checksums and segments: the tap's business, and offered to the driver as far as the tap can do them. */
const OFFLOADS = [0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 54, 55, 56];
/** What concerns rings, and the kernel must know. Bit 27 is ANY_LAYOUT for a driver and "add a header yourself" for vhost-net, which takes any layout. */
const RING_FEATURES = [F_MRG_RXBUF, F_INDIRECT_DESC, F_EVENT_IDX, F_VERSION_1];
const ADD_HEADER = 27;
const REGIONS_MAX = 64;
const REGION_BYTES = 32;

/** Counters; a tap has them among its own. */
export interface VhostNetStats {
  vhostStarts: number;
  vhostStops: number;
  vhostKicks: number;
  vhostInterrupts: number;
  vhostBrokenRings: number;
}

/** A tap's queue, as the kernel is to have it. */
export interface ServedTap {
  readonly handle: Handle;
  readonly vnetHeader: boolean;
  /** Whether somebody else reads and writes the tap. */
  lend(lent: boolean): void;
  /** Bytes of the header in front of each frame of a tap that has one. */
  setHeaderBytes(bytes: number): void;
}

interface Mapping {
  readonly range: SharedRange;
  readonly bytes: Uint8Array;
  readonly base: number;
}

interface Ring {
  readonly index: number;
  readonly queue: VirtQueue;
}

interface Served {
  readonly epoch: number;
  readonly rings: readonly Ring[];
}

const NO_RAM: SharedRam = { ranges: [], onChanged: null };

export class VhostNet implements QueueServer {
  readonly pairs: number;
  readonly optional = true;
  readonly features = new Features();
  readonly stats: VhostNetStats;
  readonly #hostIo: HostIo;
  readonly #log: Logger;
  readonly #loop: Loop;
  readonly #netdev: string;
  readonly #taps: readonly ServedTap[];
  /** One for each tap. */
  readonly #devices: readonly Handle[];
  readonly #kernel = new Features();
  #source: QueueSource | null = null;
  #events: RingEvents[] = [];
  #mappings: Mapping[] = [];
  #served: Served | null = null;
  #posted = false;
  #closed = false;

  /** Takes the open devices over. Throws HostIoError when one is none; they are then closed. */
  constructor(
    netdev: string,
    hostIo: HostIo,
    { log, loop }: { readonly log: Logger; readonly loop: Loop },
    taps: readonly ServedTap[],
    devices: readonly Handle[],
    pollUs: number,
    stats: VhostNetStats,
  ) {
    this.#netdev = netdev;
    this.#hostIo = hostIo;
    this.#log = log;
    this.#loop = loop;
    this.#taps = taps;
    this.#devices = devices;
    this.pairs = taps.length;
    this.stats = stats;
    try {
      for (const device of devices) this.#setUp(device, pollUs);
    } catch (error) {
      for (const device of devices) hostIo.close(device);
      throw error;
    }
    for (const bit of RING_FEATURES) if (this.#kernel.has(bit)) this.features.add(bit);
    for (const bit of [F_ANY_LAYOUT, ...OFFLOADS]) this.features.add(bit);
  }

  #setUp(device: Handle, pollUs: number): void {
    this.#must(device, 'VHOST_SET_OWNER', VHOST.SET_OWNER);
    const words = new Uint32Array(2);
    this.#must(device, 'VHOST_GET_FEATURES', VHOST.GET_FEATURES, words);
    // Low word first on the little-endian machines that vhost-net is on.
    this.#kernel.setWord(0, words[0]!);
    this.#kernel.setWord(1, words[1]!);
    if (pollUs === 0) return;
    for (const ring of [0, 1])
      this.#state(device, 'VHOST_SET_VRING_BUSYLOOP_TIMEOUT', VHOST.SET_VRING_BUSYLOOP_TIMEOUT, ring, pollUs);
  }

  #must(device: Handle, name: string, request: number, argument?: Uint32Array | BigUint64Array): void {
    const { control } = this.#hostIo;
    const bytes = argument && new Uint8Array(argument.buffer);
    const result = control!.call(this.#hostIo, device, request, bytes);
    if (result < 0) throw new HostIoError(name, errnoName(-result), `${name}: ${errnoText(-result)}`);
  }

  /** struct vhost_vring_state, or vhost_vring_file. */
  #state(device: Handle, name: string, request: number, ring: number, value: number): number {
    const words = new Uint32Array([ring, value >>> 0]);
    this.#must(device, name, request, words);
    return words[1]!;
  }

  // The device's side.

  get active(): boolean {
    return this.#served !== null;
  }

  get started(): boolean {
    return this.#served !== null;
  }

  /** Never: a stop is done when it returns. */
  busyWith(): boolean {
    return false;
  }

  attach(source: QueueSource): void {
    const { sharedRam } = source.host;
    if (this.#source !== null)
      throw new OptionError(`netdev '${this.#netdev}' is in use`, { option: 'netdev' });
    if (sharedRam === undefined)
      throw new UnsupportedError('vhost-net needs a guest whose RAM lies in files');
    try {
      for (let index = 0; index < source.queueCount; index++) {
        const events = new RingEvents(
          this.#hostIo,
          () => this.#called(index),
          () => this.#failed(index),
        );
        this.#events.push(events);
      }
    } catch (error) {
      this.#closeEvents();
      throw error;
    }
    this.#source = source;
    for (const tap of this.#taps) tap.lend(true);
    sharedRam.onChanged = () => {
      this.#stop();
      this.update();
    };
    // The device is being made: it is not ready to be asked, and will say when it is.
  }

  detach(source: QueueSource): void {
    if (this.#source !== source) return;
    this.#stop();
    const { sharedRam } = source.host;
    if (sharedRam !== undefined) sharedRam.onChanged = null;
    this.#source = null;
    this.#closeEvents();
    this.#unmapAll();
    for (const tap of this.#taps) tap.lend(false);
  }

  #closeEvents(): void {
    for (const one of this.#events) one.close();
    this.#events = [];
  }

  kick(index: number): void {
    if (this.#served === null) return;
    this.stats.vhostKicks++;
    this.#events[index]?.signalKick();
  }

  #called(index: number): void {
    if (this.#served === null) return;
    this.stats.vhostInterrupts++;
    this.#source?.interrupt(index);
  }

  #failed(_index: number): void {
    if (this.#served === null) return;
    this.stats.vhostBrokenRings++;
    this.#source?.broken();
  }

  /** What is served and not wanted any more is stopped at once, what is to be served begins in the next turn. */
  update(): void {
    const source = this.#source;
    if (source === null || this.#closed) return;
    const rings = this.#ringsOf(source);
    if (this.#served !== null) {
      const { epoch, rings: before } = this.#served;
      const isSame =
        epoch === source.epoch &&
        before.length === rings.length &&
        before.every(({ queue }, i) => queue === rings[i]!.queue);
      if (isSame) return;
      this.#stop();
    }
    if (this.#posted) return;
    this.#posted = true;
    // Not within a register access of the driver's, when the device is between two states.
    this.#loop.post(() => {
      this.#posted = false;
      this.#begin();
    });
  }

  #begin(): void {
    const source = this.#source;
    if (source === null || this.#closed || this.#served !== null) return;
    const rings = this.#ringsOf(source);
    if (rings.length === 0) return;
    try {
      this.#start(source, rings);
    } catch (error) {
      if (!(error instanceof HostIoError)) throw error;
      this.#log.error({ netdev: this.#netdev }, `vhost-net: ${error.message}`);
      this.#stop();
      this.stats.vhostBrokenRings++;
      source.broken();
    }
  }

  /** Whole pairs that the driver has enabled and uses. */
  #ringsOf(source: QueueSource): Ring[] {
    if (!source.wanted) return [];
    const rings: Ring[] = [];
    const count = 2 * Math.min(source.pairsInUse, this.pairs);
    for (let index = 0; index + 1 < source.queueCount && index < count; index += 2) {
      const rx = source.queueAt(index);
      const tx = source.queueAt(index + 1);
      if (rx === null || tx === null) break;
      rings.push({ index, queue: rx }, { index: index + 1, queue: tx });
    }
    return rings;
  }

  #start(source: QueueSource, rings: readonly Ring[]): void {
    const { accepted } = source;
    this.stats.vhostStarts++;
    this.#mapRam(source.host.sharedRam ?? NO_RAM);
    const taken = new Features();
    taken.copy(accepted);
    const known = new Features(RING_FEATURES);
    taken.mask(known);
    // From now on `#stop` undoes it.
    this.#served = { epoch: source.epoch, rings };
    const headerBytes = accepted.has(F_VERSION_1) || accepted.has(F_MRG_RXBUF) ? 12 : 10;
    for (let pair = 0; 2 * pair < rings.length; pair++) {
      const device = this.#devices[pair]!;
      const tap = this.#taps[pair]!;
      const words = new Uint32Array([taken.word(0), taken.word(1)]);
      if (!tap.vnetHeader) words[0] = (words[0]! | (1 << ADD_HEADER)) >>> 0;
      this.#must(device, 'VHOST_SET_FEATURES', VHOST.SET_FEATURES, words);
      this.#must(device, 'VHOST_SET_MEM_TABLE', VHOST.SET_MEM_TABLE, this.#memoryTable());
      if (tap.vnetHeader) tap.setHeaderBytes(headerBytes);
      for (const ring of [0, 1]) this.#startRing(device, ring, rings[2 * pair + ring]!);
      const fd = this.#hostIo.fdOf(tap.handle);
      for (const ring of [0, 1])
        this.#state(device, 'VHOST_NET_SET_BACKEND', VHOST.NET_SET_BACKEND, ring, fd);
    }
    // What the driver has made available before.
    for (const { index } of rings) this.#events[index]!.signalKick();
  }

  #startRing(device: Handle, ring: number, { index, queue }: Ring): void {
    const { layout, size } = queue;
    const events = this.#events[index]!;
    this.#state(device, 'VHOST_SET_VRING_NUM', VHOST.SET_VRING_NUM, ring, size);
    this.#state(device, 'VHOST_SET_VRING_BASE', VHOST.SET_VRING_BASE, ring, queue.position().avail);
    const places = new BigUint64Array(5);
    new Uint32Array(places.buffer)[0] = ring;
    places[1] = BigInt(this.#place(layout.descriptors, 16 * size));
    places[2] = BigInt(this.#place(layout.device, 6 + 8 * size));
    places[3] = BigInt(this.#place(layout.driver, 6 + 2 * size));
    this.#must(device, 'VHOST_SET_VRING_ADDR', VHOST.SET_VRING_ADDR, places);
    const file = (name: string, request: number, handle: Handle): void => {
      this.#state(device, name, request, ring, this.#hostIo.fdOf(handle));
    };
    file('VHOST_SET_VRING_KICK', VHOST.SET_VRING_KICK, events.kick);
    file('VHOST_SET_VRING_CALL', VHOST.SET_VRING_CALL, events.call);
    file('VHOST_SET_VRING_ERR', VHOST.SET_VRING_ERR, events.error);
  }

  /** Takes the rings back, each at the place where it stands; nobody works on them or on guest RAM when it returns. */
  #stop(): void {
    const served = this.#served;
    if (served === null) return;
    this.#served = null;
    this.stats.vhostStops++;
    const source = this.#source;
    for (const { index, queue } of served.rings) {
      const device = this.#devices[index >> 1]!;
      try {
        this.#state(device, 'VHOST_NET_SET_BACKEND', VHOST.NET_SET_BACKEND, index & 1, -1);
        const base = this.#state(device, 'VHOST_GET_VRING_BASE', VHOST.GET_VRING_BASE, index & 1, 0) & 0xffff;
        // It uses buffers in order, and has none in hand now.
        if (source !== null && source.epoch === served.epoch)
          source.stoppedAt(index, queue, { avail: base, used: base });
      } catch (error) {
        if (!(error instanceof HostIoError)) throw error;
        this.#log.error({ netdev: this.#netdev }, `vhost-net: ${error.message}`);
      }
    }
  }

  // Guest RAM.

  #mapRam(ram: SharedRam): void {
    const regions = regionsOf(ram.ranges, REGIONS_MAX);
    const before = this.#mappings;
    this.#mappings = [];
    const kept = new Set<Mapping>();
    try {
      for (const range of regions) {
        const known = before.find((one) => sameRegion(one.range, range));
        if (known !== undefined) kept.add(known);
        this.#mappings.push(known ?? this.#map(range));
      }
    } finally {
      for (const one of before) if (!kept.has(one)) this.#hostIo.unmap(one.bytes);
    }
  }

  #map(range: SharedRange): Mapping {
    const bytes = this.#hostIo.map(range.handle, range.offset, range.length);
    return { range, bytes, base: this.#hostIo.addressOf!(bytes) };
  }

  #unmapAll(): void {
    for (const { bytes } of this.#mappings) this.#hostIo.unmap(bytes);
    this.#mappings = [];
  }

  /** struct vhost_memory. */
  #memoryTable(): BigUint64Array {
    const table = new BigUint64Array(1 + (REGION_BYTES / 8) * this.#mappings.length);
    new Uint32Array(table.buffer)[0] = this.#mappings.length;
    for (const [i, { range, base }] of this.#mappings.entries()) {
      table[1 + 4 * i] = BigInt(range.address);
      table[2 + 4 * i] = BigInt(range.length);
      table[3 + 4 * i] = BigInt(base);
    }
    return table;
  }

  /** Our address of guest bytes [address, address + length). */
  #place(address: number, length: number): number {
    for (const { range, base } of this.#mappings) {
      const at = address - range.address;
      if (at >= 0 && at + length <= range.length) return base + at;
    }
    throw new HostIoError('VHOST_SET_VRING_ADDR', 'EFAULT', 'a ring lies outside of the RAM that files hold');
  }

  close(): void {
    if (this.#closed) return;
    this.#stop();
    this.#closed = true;
    const source = this.#source;
    if (source !== null) this.detach(source);
    for (const device of this.#devices) this.#hostIo.close(device);
  }
}

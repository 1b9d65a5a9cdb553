/**
 * `strict=on`: what a driver of virtio-net does against the virtio 1.3 specification. `StrictTransport` looks at each write to the registers before it is carried
 * out; a `CheckedQueue` stands between a queue and its user and looks at what was fetched, from the private copy of the descriptors. Packets' headers are read once
 * more for it. A device without `strict` has neither.
 *
 * A transport outside this process (vhost-user) keeps the registers to itself: there only queues are checked.
 */

import {
  ACCEPT_CSUM,
  ACCEPT_ECN,
  ACCEPT_TSO4,
  ACCEPT_TSO6,
  ACCEPT_UFO,
  ACCEPT_USO,
} from '../../core/port.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import {
  COMMON_OFFSET,
  DEVICE_OFFSET,
  LEGACY_BAR,
  MODERN_BAR,
  NOTIFY_MULTIPLIER,
  NOTIFY_OFFSET,
} from '../../virtio/capabilities.ts';
import type { ChainBatch } from '../../virtio/chains.ts';
import {
  FAULT_BUFFER_ADDRESS,
  FAULT_CHAIN_LENGTH,
  FAULT_EMPTY,
  FAULT_INDEX,
  FAULT_INDIRECT,
  FAULT_ORDER,
  FAULT_OVERRUN,
  FAULT_RING_ADDRESS,
} from '../../virtio/faults.ts';
import { F_RING_PACKED, F_RING_RESET, F_VERSION_1, type Features } from '../../virtio/features.ts';
import type { QueueState } from '../../virtio/pci.ts';
import { isLayoutValid, type QueueLayout, type QueuePosition, type VirtQueue } from '../../virtio/queue.ts';
import {
  NO_VECTOR,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
} from '../../virtio/registers.ts';
import { u16le } from '../../wire/bytes.ts';
import {
  VNET_HDR_F_DATA_VALID,
  VNET_HDR_F_NEEDS_CSUM,
  VNET_HDR_GSO_ECN,
  VNET_HDR_GSO_NONE,
  VNET_HDR_GSO_TCPV4,
  VNET_HDR_GSO_TCPV6,
  VNET_HDR_GSO_UDP,
  VNET_HDR_GSO_UDP_L4,
} from '../../wire/virtio-net-hdr.ts';
import type { DriverReport } from '../driver-report.ts';
import { HEADER_BYTES } from '../frame-size.ts';
import { F_CSUM, featuresFit, hostOffloadsOf } from './features.ts';
import type { NetContext } from './net.ts';

export const VIRTIO_NET_RULES = {
  'access-width': [
    'common configuration',
    'virtio 4.1.3.1',
    "a field was not written in the field's own width",
  ],
  'read-only': [
    'common configuration',
    'virtio 4.1.4.3',
    'a field that is read-only for the driver was written',
  ],
  'config-written': ['device configuration', 'virtio 5.1.4.2', 'the device configuration was written'],
  'status-cleared': ['device_status', 'virtio 2.1.1', 'a status bit was cleared otherwise than by a reset'],
  'status-order': ['device_status', 'virtio 3.1.1', 'status bits were set out of order'],
  'features-late': ['driver_feature', 'virtio 3.1.1', 'features were written after FEATURES_OK'],
  'feature-not-offered': ['driver_feature', 'virtio 2.2.1', 'a feature was accepted that was not offered'],
  'feature-needs': [
    'driver_feature',
    'virtio 5.1.3.1',
    'a feature was accepted without another one that it requires',
  ],
  'version-1': ['driver_feature', 'virtio 6.1', 'VERSION_1 was offered and not accepted'],
  vector: ['queue_msix_vector', 'virtio 4.1.5.1.2.2', 'there is no such MSI-X vector'],
  'queue-size': [
    'queue_size',
    'virtio 4.1.4.3.2',
    'the size is no power of 2, or larger than the device said',
  ],
  'queue-alignment': [
    'queue_desc, queue_driver, queue_device',
    'virtio 2.7, 2.8',
    'a part of a queue is not aligned',
  ],
  'queue-disable': ['queue_enable', 'virtio 4.1.4.3.2', '0 was written to queue_enable'],
  'queue-early': ['queue_enable', 'virtio 3.1.1', 'a queue was enabled before FEATURES_OK'],
  'queue-frozen': ['queue_size, queue_desc', 'virtio 4.1.4.3.2', 'a queue was changed after it was enabled'],
  'queue-reset': ['queue_reset', 'virtio 2.6.1', 'a queue was reset without RING_RESET'],
  'kick-early': ['notification', 'virtio 3.1.1', 'the device was notified before DRIVER_OK'],
  'kick-queue': ['notification', 'virtio 4.1.5.2', 'a queue that is not there or not enabled was notified'],
  'kick-width': [
    'notification',
    'virtio 4.1.5.2',
    'a notification has 16 bits, or 32 with NOTIFICATION_DATA',
  ],
  'ring-address': ['queue', 'virtio 2.6', 'a part of the ring is not RAM'],
  overrun: ['avail.idx', 'virtio 2.7.13', 'more chains were made available than the queue has descriptors'],
  index: ['desc.next', 'virtio 2.7.5', 'a descriptor index is outside the table'],
  'chain-length': ['desc.next', 'virtio 2.7.5.1', 'a chain is longer than the queue, or a loop'],
  empty: ['desc.len', 'virtio 2.7.5', 'a descriptor has no bytes'],
  indirect: ['desc', 'virtio 2.7.5.3.1', 'an indirect table was not negotiated, is nested or misshapen'],
  order: ['desc', 'virtio 2.7.4.2', 'a part to read stands behind one to write'],
  'buffer-address': ['desc.addr', 'virtio 2.7.5', 'a buffer is not RAM'],
  'chain-reuse': ['desc', 'virtio 2.7.13', 'a chain that the device still owned was made available again'],
  'tx-writable': ['transmit queue', 'virtio 5.1.6.2', 'a packet to send has parts for the device to write'],
  'rx-readable': ['receive queue', 'virtio 5.1.6.3', 'a receive buffer has parts for the device to read'],
  'rx-size': ['receive queue', 'virtio 5.1.6.3.1', 'a receive buffer is too small for what was negotiated'],
  'tx-header': [
    'virtio_net_hdr',
    'virtio 5.1.6.2',
    'a packet is shorter than its header and an Ethernet header',
  ],
  'data-valid': ['virtio_net_hdr.flags', 'virtio 5.1.6.2.1', 'DATA_VALID is set on a packet to send'],
  'csum-feature': ['virtio_net_hdr.flags', 'virtio 5.1.6.2.1', 'NEEDS_CSUM without the CSUM feature'],
  'csum-place': ['virtio_net_hdr.csum_start', 'virtio 5.1.6.2.1', 'the checksum lies outside the packet'],
  'gso-feature': ['virtio_net_hdr.gso_type', 'virtio 5.1.6.2.1', 'a segmentation that was not negotiated'],
  'gso-csum': ['virtio_net_hdr.gso_type', 'virtio 5.1.6.2.1', 'a segmentation without NEEDS_CSUM'],
  'gso-size': ['virtio_net_hdr.gso_size', 'virtio 5.1.6.2.1', 'a segmentation into segments of 0 bytes'],
  'num-buffers': [
    'virtio_net_hdr.num_buffers',
    'virtio 5.1.6.2.1',
    'num_buffers of a packet to send is not 0',
  ],
  'control-answer': ['control queue', 'virtio 5.1.6.5', 'a command has no room for the answer'],
  'control-refused': [
    'control queue',
    'virtio 5.1.6.5',
    'a command was refused: not negotiated, misshapen or out of range',
  ],
} as const;

export type VirtioNetRule = keyof typeof VIRTIO_NET_RULES;
export type VirtioNetReport = DriverReport<VirtioNetRule>;

const RULE_BY_FAULT: ReadonlyMap<number, VirtioNetRule> = new Map([
  [FAULT_RING_ADDRESS, 'ring-address'],
  [FAULT_OVERRUN, 'overrun'],
  [FAULT_INDEX, 'index'],
  [FAULT_CHAIN_LENGTH, 'chain-length'],
  [FAULT_EMPTY, 'empty'],
  [FAULT_INDIRECT, 'indirect'],
  [FAULT_ORDER, 'order'],
  [FAULT_BUFFER_ADDRESS, 'buffer-address'],
]);

// The common configuration's fields (section 4.1.4.3).
const DRIVER_FEATURE_SELECT = 8;
const DRIVER_FEATURE = 12;
const CONFIG_VECTOR = 16;
const DEVICE_STATUS = 20;
const QUEUE_SELECT = 22;
const QUEUE_SIZE = 24;
const QUEUE_VECTOR = 26;
const QUEUE_ENABLE = 28;
const QUEUE_DESC = 32;
const QUEUE_END = 56;
const QUEUE_RESET = 58;
const COMMON_BYTES = 60;
const READ_ONLY = [4, 18, 21, 30, 56];

/** What the checker reads of the device. */
export interface VirtioView {
  readonly offered: Features;
  readonly accepted: Features;
  readonly status: number;
  readonly msix: { readonly vectors: number } | null | undefined;
  queueState(index: number): QueueState | undefined;
}

export class StrictTransport {
  readonly #device: VirtioView;
  readonly #report: VirtioNetReport;
  #featureSelect = 0;
  #queueSelect = 0;

  constructor(device: VirtioView, report: VirtioNetReport) {
    this.#device = device;
    this.#report = report;
  }

  #must(holds: boolean, rule: VirtioNetRule, value: number): void {
    if (!holds) this.#report.broken(rule, value);
  }

  /** `value` is about to be written. */
  write(bar: number, offset: number, size: number, value: number): void {
    if (bar === LEGACY_BAR) {
      if (offset === 16) this.#kicked(value);
      return;
    }
    if (bar !== MODERN_BAR) return;
    if (offset >= NOTIFY_OFFSET) {
      this.#must(size === 2 || size === 4, 'kick-width', size);
      this.#must((this.#device.status & STATUS_DRIVER_OK) !== 0, 'kick-early', offset - NOTIFY_OFFSET);
      this.#kicked((offset - NOTIFY_OFFSET) / NOTIFY_MULTIPLIER);
    } else if (offset >= DEVICE_OFFSET) {
      this.#report.broken('config-written', offset - DEVICE_OFFSET);
    } else if (offset < COMMON_OFFSET + COMMON_BYTES) {
      this.#common(offset, size, value);
    }
  }

  #kicked(index: number): void {
    this.#must(this.#device.queueState(index)?.enabled === true, 'kick-queue', index);
  }

  #common(offset: number, size: number, value: number): void {
    const device = this.#device;
    const width =
      offset < 16 || (offset >= QUEUE_DESC && offset < QUEUE_END)
        ? 4
        : offset === DEVICE_STATUS || offset === 21
          ? 1
          : 2;
    this.#must(size === width && offset % width === 0, 'access-width', offset);
    if (READ_ONLY.includes(offset)) this.#report.broken('read-only', offset);
    if (offset >= QUEUE_DESC && offset < QUEUE_END) {
      this.#must(device.queueState(this.#queueSelect)?.enabled !== true, 'queue-frozen', this.#queueSelect);
      return;
    }
    switch (offset) {
      case DRIVER_FEATURE_SELECT:
        this.#featureSelect = value;
        return;
      case QUEUE_SELECT:
        this.#queueSelect = value;
        return;
      case DRIVER_FEATURE: {
        this.#must((device.status & STATUS_FEATURES_OK) === 0, 'features-late', value);
        const beyond = (value & ~device.offered.word(this.#featureSelect)) >>> 0;
        this.#must(beyond === 0, 'feature-not-offered', beyond);
        return;
      }
      case CONFIG_VECTOR:
      case QUEUE_VECTOR:
        this.#must(value === NO_VECTOR || value < (device.msix?.vectors ?? 0), 'vector', value);
        return;
      case DEVICE_STATUS:
        this.#statusWritten(value);
        return;
      case QUEUE_SIZE: {
        const state = device.queueState(this.#queueSelect);
        this.#must(state?.enabled !== true, 'queue-frozen', this.#queueSelect);
        const packed = device.accepted.has(F_RING_PACKED);
        const fits = value <= (state?.sizeMax ?? 0) && value > 0;
        this.#must(fits && (packed || (value & (value - 1)) === 0), 'queue-size', value);
        return;
      }
      case QUEUE_ENABLE:
        this.#enabled(value);
        return;
      case QUEUE_RESET:
        this.#must(value !== 1 || device.accepted.has(F_RING_RESET), 'queue-reset', this.#queueSelect);
    }
  }

  #statusWritten(value: number): void {
    const { status, accepted, offered } = this.#device;
    if (value === 0) {
      this.#featureSelect = 0;
      this.#queueSelect = 0;
      return;
    }
    this.#must((status & ~value & ~STATUS_FAILED & 0x8f) === 0, 'status-cleared', value);
    const needs = (bit: number, before: number): boolean =>
      (value & bit) === 0 || ((status | value) & before) === before;
    const inOrder =
      needs(STATUS_DRIVER, STATUS_ACKNOWLEDGE) &&
      needs(STATUS_FEATURES_OK, STATUS_DRIVER) &&
      // FEATURES_OK must have been accepted, not only written.
      ((value & STATUS_DRIVER_OK) === 0 || (status & STATUS_FEATURES_OK) !== 0);
    this.#must(inOrder, 'status-order', value);
    if ((value & ~status & STATUS_FEATURES_OK) === 0) return;
    this.#must(!offered.has(F_VERSION_1) || accepted.has(F_VERSION_1), 'version-1', accepted.word(1));
    this.#must(featuresFit(accepted), 'feature-needs', accepted.word(0));
  }

  #enabled(value: number): void {
    const device = this.#device;
    if (value !== 1) {
      this.#report.broken('queue-disable', this.#queueSelect);
      return;
    }
    this.#must((device.status & STATUS_FEATURES_OK) !== 0, 'queue-early', this.#queueSelect);
    const layout = device.queueState(this.#queueSelect)?.layout;
    if (layout === undefined) return;
    // Only the addresses: the size has a rule of its own.
    const aligned = isLayoutValid({ ...layout, size: 1 }, device.accepted.has(F_RING_PACKED));
    this.#must(aligned, 'queue-alignment', this.#queueSelect);
  }
}

const PACKED_IDS = 65_536;
const HEADER_LOOKED_BYTES = 12;
/** Smallest receive buffer's bytes behind the header without mergeable buffers (section 5.1.6.3.1), with and without large packets. */
const RX_LARGE_BYTES = 65_550;
const RX_SMALL_BYTES = 1514;

/** ACCEPT_* that a kind of segmentation needs. */
const GSO_NEEDS: ReadonlyMap<number, number> = new Map([
  [VNET_HDR_GSO_TCPV4, ACCEPT_TSO4],
  [VNET_HDR_GSO_TCPV6, ACCEPT_TSO6],
  [VNET_HDR_GSO_UDP, ACCEPT_UFO],
  [VNET_HDR_GSO_UDP_L4, ACCEPT_USO],
]);

/** What a queue is for. */
export const QUEUE_RX = 0;
export const QUEUE_TX = 1;
export const QUEUE_CONTROL = 2;

export class CheckedQueue implements VirtQueue {
  readonly layout: QueueLayout;
  readonly size: number;
  readonly packed: boolean;
  readonly #queue: VirtQueue;
  readonly #kind: number;
  readonly #net: NetContext;
  readonly #accepted: Features;
  readonly #report: VirtioNetReport;
  /** Ids of chains that the device owns. */
  readonly #owned: Uint8Array;
  readonly #header = new Uint8Array(HEADER_LOOKED_BYTES);
  #fault = 0;
  #refusals: number;

  constructor(queue: VirtQueue, kind: number, net: NetContext, accepted: Features, report: VirtioNetReport) {
    this.#queue = queue;
    this.layout = queue.layout;
    this.size = queue.size;
    this.packed = queue.packed;
    this.#kind = kind;
    this.#net = net;
    this.#accepted = accepted;
    this.#report = report;
    this.#owned = new Uint8Array(queue.packed ? PACKED_IDS : queue.size);
    this.#refusals = net.stats.ctrlErrors;
  }

  get fault(): number {
    return this.#queue.fault;
  }

  set fault(fault: number) {
    this.#queue.fault = fault;
    this.#faulted();
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  #must(holds: boolean, rule: VirtioNetRule, value: number): void {
    if (!holds) this.#report.broken(rule, value);
  }

  #faulted(): void {
    const fault = this.#queue.fault;
    if (fault === this.#fault) return;
    this.#fault = fault;
    const rule = RULE_BY_FAULT.get(fault);
    if (rule !== undefined) this.#report.broken(rule, this.#queue.position().avail);
  }

  fetch(memory: GuestMemory, batch: ChainBatch, limit: number): number {
    const count = this.#queue.fetch(memory, batch, limit);
    this.#faulted();
    for (let i = 0; i < count; i++) {
      const id = batch.id[i];
      this.#must(this.#owned[id] === 0, 'chain-reuse', id);
      this.#owned[id] = 1;
      if (this.#kind === QUEUE_TX) this.#packet(memory, batch, i);
      else if (this.#kind === QUEUE_RX) this.#buffer(batch, i);
      else this.#must(batch.writeFrom[i] < batch.first[i + 1], 'control-answer', id);
    }
    return count;
  }

  unfetch(batch: ChainBatch, from: number): void {
    for (let i = from; i < batch.count; i++) this.#owned[batch.id[i]] = 0;
    this.#queue.unfetch(batch, from);
  }

  push(memory: GuestMemory, id: number, slots: number, bytes: number): void {
    this.#owned[id] = 0;
    this.#queue.push(memory, id, slots, bytes);
  }

  pushRun(
    memory: GuestMemory,
    ids: Int32Array,
    slots: Int32Array,
    written: Int32Array,
    from: number,
    to: number,
  ): void {
    for (let i = from; i < to; i++) this.#owned[ids[i]] = 0;
    this.#queue.pushRun(memory, ids, slots, written, from, to);
  }

  publish(memory: GuestMemory): boolean {
    if (this.#kind === QUEUE_CONTROL) {
      const refusals = this.#net.stats.ctrlErrors;
      this.#must(refusals === this.#refusals, 'control-refused', refusals - this.#refusals);
      this.#refusals = refusals;
    }
    return this.#queue.publish(memory);
  }

  requestKicks(memory: GuestMemory): boolean {
    return this.#queue.requestKicks(memory);
  }

  suppressKicks(memory: GuestMemory): void {
    this.#queue.suppressKicks(memory);
  }

  position(): QueuePosition {
    return this.#queue.position();
  }

  /** A chain of the receive queue. */
  #buffer(batch: ChainBatch, i: number): void {
    const { headerBytes, mergeable, guestOffloads } = this.#net;
    this.#must(batch.writeFrom[i] === batch.first[i], 'rx-readable', batch.id[i]);
    const bytes = batch.bytes(batch.writeFrom[i], batch.first[i + 1]);
    // Whatever is beyond checksums means packets of up to 64 KiB.
    const needed = mergeable ? 0 : (guestOffloads & ~ACCEPT_CSUM) !== 0 ? RX_LARGE_BYTES : RX_SMALL_BYTES;
    this.#must(bytes >= headerBytes + needed, 'rx-size', bytes);
  }

  /** A chain of the transmit queue: a header and a packet. */
  #packet(memory: GuestMemory, batch: ChainBatch, i: number): void {
    const { headerBytes } = this.#net;
    this.#must(batch.writeFrom[i] === batch.first[i + 1], 'tx-writable', batch.id[i]);
    const bytes = batch.bytes(batch.first[i], batch.writeFrom[i]) - headerBytes;
    this.#must(bytes >= HEADER_BYTES, 'tx-header', bytes);
    if (bytes < HEADER_BYTES) return;
    const header = this.#header;
    const looked = Math.min(headerBytes, HEADER_LOOKED_BYTES);
    header.fill(0);
    for (let part = batch.first[i], done = 0; done < looked; part++) {
      const size = Math.min(batch.length[part], looked - done);
      // Not RAM: the device finds that too.
      if (!memory.read(batch.address[part], header, done, size)) return;
      done += size;
    }
    this.#headerGiven(header, bytes);
  }

  #headerGiven(header: Uint8Array, bytes: number): void {
    const [flags, type] = header;
    const summed = (flags & VNET_HDR_F_NEEDS_CSUM) !== 0;
    this.#must((flags & VNET_HDR_F_DATA_VALID) === 0, 'data-valid', flags);
    this.#must(!summed || this.#accepted.has(F_CSUM), 'csum-feature', flags);
    const sumAt = u16le(header, 6) + u16le(header, 8);
    this.#must(!summed || sumAt + 2 <= bytes, 'csum-place', sumAt);
    this.#must(u16le(header, 10) === 0, 'num-buffers', u16le(header, 10));
    if (type === VNET_HDR_GSO_NONE) return;
    const needed = GSO_NEEDS.get(type & ~VNET_HDR_GSO_ECN) ?? -1;
    const ecn = (type & VNET_HDR_GSO_ECN) !== 0 ? ACCEPT_ECN : 0;
    const can = hostOffloadsOf(this.#accepted);
    this.#must(needed >= 0 && ((needed | ecn) & ~can) === 0, 'gso-feature', type);
    this.#must(summed, 'gso-csum', type);
    this.#must(u16le(header, 4) !== 0, 'gso-size', bytes);
  }
}

/**
 * The driver's half of virtio-net, written from virtio 1.3 (sections 3.1, 4.1, 5.1) as an operating system's driver would be: it takes every feature that it knows and is offered, and works
 * with split or packed rings, modern or legacy registers, INTx (or by polling).
 *
 * Transmit: a packet is two parts, the packet header in the driver's own memory and the packet; slots go round in order and are reported in order,
 * whatever order the device uses them in. Receive: buffers of one size; a frame over several (mergeable buffers) is put together in a buffer of its own before the listener sees it.
 * VLAN tags are put in and taken off here: the device has no such offload. Commands are sent one at a time, and are answered before the kick returns.
 */

import type { Timer } from '../../core/loop.ts';
import type {
  DriverCapabilities,
  DriverListener,
  DriverOptions,
  NicDriver,
  PacketBatch,
  PciAccess,
} from './driver.ts';
import { RX_CSUM_OK, RX_VLAN, SEGMENT_NONE, SEGMENT_TCP4 } from './driver.ts';
import type { GuestRam } from './guest-ram.ts';
import { type DriverRing, PackedDriverRing, SplitDriverRing } from './virtio-ring.ts';
import {
  LegacyTransport,
  modernTransport,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FEATURES_OK,
  type VirtioTransport,
} from './virtio-transport.ts';

const VENDOR = 0x1af4;
const DEVICE_TRANSITIONAL = 0x1000;
const DEVICE_MODERN = 0x1041;
const COMMAND_IO_MEMORY_MASTER = 7;

const CSUM = 0;
const GUEST_CSUM = 1;
const GUEST_TSO4 = 7;
const GUEST_TSO6 = 8;
const HOST_TSO4 = 11;
const HOST_TSO6 = 12;
const MRG_RXBUF = 15;
const STATUS = 16;
const CTRL_VQ = 17;
const CTRL_RX = 18;
const CTRL_VLAN = 19;
const GUEST_ANNOUNCE = 21;
const MQ = 22;
const INDIRECT_DESC = 28;
const EVENT_IDX = 29;
const VERSION_1 = 32;
const RING_PACKED = 34;
const IN_ORDER = 35;
const RING_RESET = 40;
/** Taken only where a caller asks for it; it moves the control queue as MQ does. */
const RSS = 60;
/** What the driver can work with. */
const KNOWN = [
  ...[CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX],
  ...[CTRL_VLAN, GUEST_ANNOUNCE, MQ, INDIRECT_DESC, EVENT_IDX, VERSION_1, RING_PACKED, IN_ORDER, RING_RESET],
];
const OFFLOADS = [CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6];

const HDR_NEEDS_CSUM = 1;
const HDR_DATA_VALID = 2;
const HDR_LEGACY_BYTES = 10;
const HDR_BYTES = 12;
/** A header, and the addresses and tag of a frame that the driver tags. */
const TX_HEADER_BYTES = 32;
const ADDRESSES_BYTES = 12;
const TAG_BYTES = 4;
const JUMBO_BYTES = 65_562;
const CONTROL_BYTES = 4096;
const SEND_POLL_NS = 10e6;
const ISR_CONFIG = 2;

export const CTRL_CLASS_RX = 0;
export const CTRL_CLASS_MAC = 1;
export const CTRL_CLASS_VLAN = 2;
export const CTRL_CLASS_ANNOUNCE = 3;
export const CTRL_CLASS_MQ = 4;

export interface VirtioDriverOptions extends DriverOptions {
  /** Feature bits not to take. */
  readonly avoid?: readonly number[];
  /** Further feature bits to take where they are offered. */
  readonly take?: readonly number[];
  /** Use the legacy registers. */
  readonly legacy?: boolean;
  /** Put packets' parts into indirect tables where that was negotiated; default false. */
  readonly indirect?: boolean;
  /** Queue pairs to use where MQ is offered; default 1. */
  readonly queuePairs?: number;
  /** Ask for no interrupts: the owner calls `interrupt` all the time. Default false. */
  readonly polled?: boolean;
}

/** One pair's rings and buffers. */
class Pair {
  readonly rx: DriverRing;
  readonly tx: DriverRing;
  readonly rxBuffers: number;
  readonly headers: number;
  /** Transmit slots in use, oldest first. */
  head = 0;
  used = 0;
  readonly done: Uint8Array;

  constructor(rx: DriverRing, tx: DriverRing, rxBuffers: number, headers: number) {
    this.rx = rx;
    this.tx = tx;
    this.rxBuffers = rxBuffers;
    this.headers = headers;
    this.done = new Uint8Array(tx.slots);
  }
}

export class VirtioDriver implements NicDriver {
  readonly mac = new Uint8Array(6);
  linkUp = false;
  readonly ipMtuBytes: number;
  capabilities: DriverCapabilities = { checksum: false, segmentTcp4: false, segmentTcp6: false, vlan: false };
  listener: DriverListener = { received() {}, sent() {} };
  /** Which pair `send` uses. */
  sendPair = 0;
  /** Frames received on each pair. */
  readonly receivedOn: number[] = [];

  readonly #options: VirtioDriverOptions;
  readonly #pci: PciAccess;
  readonly #ram: GuestRam;
  readonly #poll: Timer;
  readonly #lookAgain: () => void;
  #again = false;
  #transport: VirtioTransport | null = null;
  readonly #accepted = new Set<number>();
  #pairs: Pair[] = [];
  #control: DriverRing | null = null;
  #controlIndex = 2;
  #controlAt = 0;
  #mark = 0;
  #headerBytes = HDR_BYTES;
  #bufferBytes = 2048;
  /** Where frames over several buffers are put together. */
  #jumbo = 0;
  #refused = false;
  #open = false;

  constructor(options: VirtioDriverOptions) {
    this.#options = options;
    this.#pci = options.pci;
    this.#ram = options.ram;
    this.ipMtuBytes = options.ipMtuBytes ?? 1500;
    this.#poll = options.loop.timer(() => this.interrupt());
    this.#lookAgain = () => {
      this.#again = false;
      this.interrupt();
    };
  }

  has(feature: number): boolean {
    return this.#accepted.has(feature);
  }

  get status(): number {
    return this.#transport?.status ?? 0;
  }

  open(): boolean {
    const pci = this.#pci;
    const id = pci.readConfig(2, 2);
    if (pci.readConfig(0, 2) !== VENDOR || (id !== DEVICE_TRANSITIONAL && id !== DEVICE_MODERN)) return false;
    pci.writeConfig(4, 2, pci.readConfig(4, 2) | COMMAND_IO_MEMORY_MASTER);
    const legacy = this.#options.legacy === true;
    if (legacy && id !== DEVICE_TRANSITIONAL) return false;
    const transport = legacy ? new LegacyTransport(pci) : (modernTransport(pci) ?? new LegacyTransport(pci));
    this.#transport = transport;
    transport.status = 0;
    if (transport.status !== 0) return false;
    transport.status = STATUS_ACKNOWLEDGE;
    transport.status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    if (!this.#negotiate(transport) || !this.#layQueues(transport)) return false;
    this.#open = true;
    transport.status = transport.status | STATUS_DRIVER_OK;
    for (let i = 0; i < 6; i++) this.mac[i] = transport.config(i, 1);
    for (const index of this.#pairs.keys()) transport.kick(2 * index);
    if (!this.#setFilters()) return false;
    this.#checkLink(true);
    return true;
  }

  #negotiate(transport: VirtioTransport): boolean {
    const { offloads, avoid, take, queuePairs } = this.#options;
    const words = [transport.features(0), transport.features(1)];
    this.#accepted.clear();
    for (const bit of [...KNOWN, ...(take ?? [])]) {
      if (((words[bit >> 5] >>> (bit & 31)) & 1) === 0 || avoid?.includes(bit)) continue;
      if (offloads === false && OFFLOADS.includes(bit)) continue;
      if (bit === MQ && (queuePairs ?? 1) < 2) continue;
      this.#accepted.add(bit);
    }
    // Large frames need buffers to spread over.
    if (!this.has(MRG_RXBUF) || !this.has(GUEST_CSUM)) {
      this.#accepted.delete(GUEST_TSO4);
      this.#accepted.delete(GUEST_TSO6);
    }
    const taken = [0, 0];
    for (const bit of this.#accepted) taken[bit >> 5] |= 1 << (bit & 31);
    transport.setFeatures(0, taken[0]);
    transport.setFeatures(1, taken[1]);
    if (!transport.legacy) {
      if (!this.has(VERSION_1)) return false;
      transport.status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
      if ((transport.status & STATUS_FEATURES_OK) === 0) return false;
    }
    this.#headerBytes = this.has(VERSION_1) || this.has(MRG_RXBUF) ? HDR_BYTES : HDR_LEGACY_BYTES;
    this.capabilities = {
      checksum: this.has(CSUM),
      segmentTcp4: this.has(HOST_TSO4),
      segmentTcp6: this.has(HOST_TSO6),
      vlan: this.#options.vlans !== undefined,
    };
    return true;
  }

  #ring(size: number, parts: 1 | 2): DriverRing {
    const options = {
      eventIdx: this.has(EVENT_IDX),
      indirect: parts === 2 && this.#options.indirect === true && this.has(INDIRECT_DESC),
      parts,
    };
    return this.has(RING_PACKED)
      ? new PackedDriverRing(this.#ram, size, options)
      : new SplitDriverRing(this.#ram, size, options);
  }

  #layQueues(transport: VirtioTransport): boolean {
    const ram = this.#ram;
    this.#mark = ram.mark();
    // A legacy queue is told by its page, and page 0 says that there is none.
    if (transport.legacy && this.#mark === 0) ram.allocate(1);
    const pairsMax = this.has(MQ) || this.has(RSS) ? transport.config(8, 2) : 1;
    const pairs = Math.min(pairsMax, this.#options.queuePairs ?? 1);
    const frameBytes = this.ipMtuBytes + 18 + this.#headerBytes;
    this.#bufferBytes = this.has(MRG_RXBUF) ? 2048 : Math.ceil(frameBytes / 64) * 64;
    this.#pairs = [];
    const sizeOf = (index: number): number => {
      const offered = transport.queueSize(index);
      const wanted = this.#options.ringSize ?? 256;
      return transport.legacy ? offered : Math.min(offered, wanted);
    };
    for (let i = 0; i < pairs; i++) {
      const rxSize = sizeOf(2 * i);
      const txSize = sizeOf(2 * i + 1);
      if (rxSize === 0 || txSize === 0) return false;
      const rx = this.#ring(rxSize, 1);
      const tx = this.#ring(txSize, 2);
      const rxBuffers = ram.allocate(rxSize * this.#bufferBytes, 64);
      const headers = ram.allocate(TX_HEADER_BYTES * tx.slots, 64);
      const pair = new Pair(rx, tx, rxBuffers, headers);
      this.#pairs.push(pair);
      this.receivedOn[i] = 0;
      if (!transport.enableQueue(2 * i, rx, -1) || !transport.enableQueue(2 * i + 1, tx, -1)) return false;
      for (let slot = 0; slot < rx.slots; slot++) this.#postBuffer(pair, slot);
      rx.publish();
      this.#wantInterrupts(rx);
      this.#wantInterrupts(tx);
    }
    this.#jumbo = this.has(MRG_RXBUF) ? ram.allocate(JUMBO_BYTES, 64) : 0;
    this.#control = null;
    if (this.has(CTRL_VQ)) {
      this.#controlIndex = pairsMax > 1 || this.has(MQ) || this.has(RSS) ? 2 * pairsMax : 2;
      const control = this.#ring(sizeOf(this.#controlIndex), 2);
      if (!transport.enableQueue(this.#controlIndex, control, -1)) return false;
      control.wantInterrupts(false);
      this.#control = control;
      this.#controlAt = ram.allocate(CONTROL_BYTES, 64);
    }
    this.#refused = false;
    return true;
  }

  #postBuffer(pair: Pair, slot: number): void {
    pair.rx.putWrite(slot, pair.rxBuffers + slot * this.#bufferBytes, this.#bufferBytes);
  }

  /** What a device in another process used before it could know is looked at in the next turn. */
  #wantInterrupts(ring: DriverRing): void {
    if (this.#options.polled === true) {
      ring.wantInterrupts(false);
      return;
    }
    if (!ring.wantInterrupts(true) || this.#again) return;
    this.#again = true;
    this.#options.loop.post(this.#lookAgain);
  }

  /** Sends a command and returns its answer: 0 is OK, 1 ERR; -1 when there was none. */
  command(kind: number, command: number, data: Uint8Array): number {
    const control = this.#control;
    const ram = this.#ram;
    if (control === null || data.length + 3 > CONTROL_BYTES) return -1;
    const at = ram.offset(this.#controlAt);
    ram.bytes[at] = kind;
    ram.bytes[at + 1] = command;
    ram.bytes.set(data, at + 2);
    const answer = this.#controlAt + CONTROL_BYTES - 1;
    ram.bytes[ram.offset(answer)] = 0xff;
    control.putCommand(0, this.#controlAt, 2 + data.length, answer, 1);
    if (control.publish()) this.#transport?.kick(this.#controlIndex);
    return control.poll() ? ram.bytes[ram.offset(answer)] : -1;
  }

  #setFilters(): boolean {
    const { promiscuous, vlans, multicast } = this.#options;
    const flag = (on: boolean): Uint8Array => Uint8Array.of(on ? 1 : 0);
    let isOk = true;
    if (this.has(CTRL_RX)) {
      isOk = this.command(CTRL_CLASS_RX, 0, flag(promiscuous === true)) === 0;
      const groups = multicast ?? [];
      const table = new Uint8Array(8 + 6 * groups.length);
      table[4] = groups.length;
      table[5] = groups.length >> 8;
      for (const [i, group] of groups.entries()) table.set(group, 8 + 6 * i);
      isOk = this.command(CTRL_CLASS_MAC, 0, table) === 0 && isOk;
    }
    if (this.has(CTRL_VLAN)) {
      for (const id of vlans ?? []) {
        isOk = this.command(CTRL_CLASS_VLAN, 0, Uint8Array.of(id, id >> 8)) === 0 && isOk;
      }
    }
    if (this.has(MQ)) {
      isOk = this.command(CTRL_CLASS_MQ, 0, Uint8Array.of(this.#pairs.length, 0)) === 0 && isOk;
    }
    return isOk;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#poll.cancel();
    if (this.#transport !== null) this.#transport.status = 0;
    this.#ram.release(this.#mark);
    this.#pairs = [];
    this.#control = null;
  }

  get room(): number {
    const pair = this.#pairs[this.sendPair];
    return pair === undefined ? 0 : pair.tx.slots - pair.used;
  }

  send(batch: PacketBatch, from: number, to: number): number {
    const pair = this.#pairs[this.sendPair];
    if (!this.#open || pair === undefined) return 0;
    if (pair.used + to - from > pair.tx.slots) this.#reap(pair);
    const { tx } = pair;
    const words = this.#ram.words;
    const headerBytes = this.#headerBytes;
    let i = from;
    let slot = (pair.head + pair.used) % tx.slots;
    for (; i < to && pair.used < tx.slots; i++) {
      const header = pair.headers + TX_HEADER_BYTES * slot;
      const at = this.#ram.offset(header) >> 2;
      const start = batch.csumStart[i];
      const segment = batch.segment[i];
      if (start === 0 && segment === SEGMENT_NONE && batch.vlanTci[i] < 0) {
        words[at] = 0;
        words[at + 1] = 0;
        words[at + 2] = 0;
        tx.putRead(slot, header, headerBytes, batch.address[i], batch.length[i]);
      } else {
        this.#putOffloaded(tx, slot, header, at, batch, i);
      }
      pair.done[slot] = 0;
      pair.used++;
      slot = slot + 1 === tx.slots ? 0 : slot + 1;
    }
    if (i > from && tx.publish()) this.#transport?.kick(2 * this.sendPair + 1);
    if (i < to) {
      this.#refused = true;
      if (!this.#poll.armed) this.#poll.armIn(SEND_POLL_NS);
    }
    return i - from;
  }

  /** A packet with a checksum to fill, segments to cut or a tag. */
  #putOffloaded(
    tx: DriverRing,
    slot: number,
    header: number,
    at: number,
    batch: PacketBatch,
    i: number,
  ): void {
    const { bytes, words } = this.#ram;
    const address = batch.address[i];
    const length = batch.length[i];
    const packet = this.#ram.offset(address);
    const tagged = batch.vlanTci[i] >= 0;
    const shift = tagged ? TAG_BYTES : 0;
    const start = batch.csumStart[i];
    const offset = batch.csumOffset[i];
    const segment = batch.segment[i];
    if (segment !== SEGMENT_NONE) {
      // The device wants the pseudo header's sum with the whole length.
      const field = packet + start + offset;
      let sum = ((bytes[field] << 8) | bytes[field + 1]) + (length - start);
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
      bytes[field] = sum >>> 8;
      bytes[field + 1] = sum;
    }
    const gso = segment === SEGMENT_NONE ? 0 : segment === SEGMENT_TCP4 ? 1 : 4;
    const flags = start !== 0 ? HDR_NEEDS_CSUM : 0;
    const headerLength = segment === SEGMENT_NONE ? 0 : batch.headerBytes[i] + shift;
    const size = segment === SEGMENT_NONE ? 0 : batch.segmentBytes[i];
    words[at] = flags | (gso << 8) | (headerLength << 16);
    words[at + 1] = size | ((start === 0 ? 0 : start + shift) << 16);
    words[at + 2] = start === 0 ? 0 : offset;
    if (!tagged) {
      tx.putRead(slot, header, this.#headerBytes, address, length);
      return;
    }
    const target = this.#ram.offset(header) + this.#headerBytes;
    for (let b = 0; b < ADDRESSES_BYTES; b++) bytes[target + b] = bytes[packet + b];
    bytes[target + 12] = 0x81;
    bytes[target + 13] = 0;
    bytes[target + 14] = batch.vlanTci[i] >> 8;
    bytes[target + 15] = batch.vlanTci[i];
    tx.putRead(
      slot,
      header,
      this.#headerBytes + ADDRESSES_BYTES + TAG_BYTES,
      address + ADDRESSES_BYTES,
      length - ADDRESSES_BYTES,
    );
  }

  /** Looks for packets that the device is done with, and reports them in order. */
  #reap(pair: Pair): boolean {
    const { tx, done } = pair;
    let seen = false;
    while (tx.poll()) {
      done[tx.usedSlot] = 1;
      seen = true;
    }
    if (!seen) return false;
    let packets = 0;
    while (packets < pair.used && done[pair.head] === 1) {
      pair.head = pair.head + 1 === tx.slots ? 0 : pair.head + 1;
      packets++;
    }
    pair.used -= packets;
    this.#wantInterrupts(tx);
    if (packets === 0) return true;
    this.listener.sent(packets);
    if (this.#refused && this.room > 0) {
      this.#refused = false;
      this.#poll.cancel();
      this.listener.sendReady?.();
    }
    return true;
  }

  interrupt(): boolean {
    const transport = this.#transport;
    if (!this.#open || transport === null) return false;
    const causes = transport.causes();
    if ((causes & ISR_CONFIG) !== 0) this.#checkLink(false);
    let busy = causes !== 0;
    for (const [index, pair] of this.#pairs.entries()) {
      if (!this.#open) return true;
      busy = this.#reap(pair) || busy;
      if (!this.#open) return true;
      busy = this.#receive(pair, index) || busy;
    }
    if (this.#refused && this.#open && !this.#poll.armed) this.#poll.armIn(SEND_POLL_NS);
    return busy;
  }

  #checkLink(first: boolean): void {
    const status = this.has(STATUS) ? (this.#transport?.config(6, 2) ?? 0) : 1;
    if ((status & 2) !== 0) this.command(CTRL_CLASS_ANNOUNCE, 0, new Uint8Array(0));
    const up = (status & 1) !== 0;
    if (up === this.linkUp) return;
    this.linkUp = up;
    if (!first) this.listener.linkChanged?.(up);
  }

  #receive(pair: Pair, index: number): boolean {
    const { rx, rxBuffers } = pair;
    const { words } = this.#ram;
    const headerBytes = this.#headerBytes;
    let seen = 0;
    for (let budget = rx.slots; budget > 0 && rx.poll(); budget--) {
      seen++;
      const slot = rx.usedSlot;
      const buffer = rxBuffers + slot * this.#bufferBytes;
      const length = rx.usedBytes - headerBytes;
      const at = this.#ram.offset(buffer) >> 2;
      const buffers = headerBytes === HDR_BYTES ? words[at + 2] >>> 16 : 1;
      if (length > 0) {
        this.receivedOn[index]++;
        const csum = (words[at] & (HDR_NEEDS_CSUM | HDR_DATA_VALID)) !== 0 ? RX_CSUM_OK : 0;
        if (buffers <= 1) this.#show(buffer + headerBytes, length, csum);
        else seen += this.#merge(pair, buffer + headerBytes, length, buffers, csum);
        if (!this.#open) return true;
      }
      this.#postBuffer(pair, slot);
    }
    if (seen === 0) return false;
    this.#wantInterrupts(rx);
    if (rx.publish()) this.#transport?.kick(2 * index);
    this.listener.receivedAll?.();
    return true;
  }

  /** Puts a frame over `buffers` buffers together; returns how many more it took. */
  #merge(pair: Pair, first: number, firstBytes: number, buffers: number, flags: number): number {
    const { rx, rxBuffers } = pair;
    const { bytes } = this.#ram;
    let to = this.#ram.offset(this.#jumbo);
    const end = to + JUMBO_BYTES;
    bytes.copyWithin(to, this.#ram.offset(first), this.#ram.offset(first) + firstBytes);
    to += firstBytes;
    let more = 1;
    for (; more < buffers && rx.poll(); more++) {
      const from = this.#ram.offset(rxBuffers + rx.usedSlot * this.#bufferBytes);
      const size = Math.min(rx.usedBytes, end - to);
      bytes.copyWithin(to, from, from + size);
      to += size;
      this.#postBuffer(pair, rx.usedSlot);
    }
    this.#show(this.#jumbo, to - this.#ram.offset(this.#jumbo), flags);
    return more - 1;
  }

  /** Shows a frame to the listener, without its tag where VLANs are asked for. */
  #show(address: number, length: number, flags: number): void {
    const { bytes } = this.#ram;
    const at = this.#ram.offset(address);
    if (this.#options.vlans !== undefined && length > 18 && bytes[at + 12] === 0x81 && bytes[at + 13] === 0) {
      const tci = (bytes[at + 14] << 8) | bytes[at + 15];
      bytes.copyWithin(at + TAG_BYTES, at, at + ADDRESSES_BYTES);
      this.listener.received(address + TAG_BYTES, length - TAG_BYTES, flags | RX_VLAN, tci);
      return;
    }
    this.listener.received(address, length, flags, 0);
  }
}

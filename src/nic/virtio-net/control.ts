/**
 * The control queue (virtio 1.3, section 5.1.6.5): commands of class, command and data to read, one byte of answer to write.
 *
 * A command is copied once, then looked at; it is answered OK only when it was carried out whole. One that the driver did not negotiate, that is too short, too long or out of range is answered
 * ERR and changes nothing. A chain without room for the answer is used with nothing written.
 */

import { ChainBatch } from '../../virtio/chains.ts';
import { FAULT_BUFFER_ADDRESS } from '../../virtio/faults.ts';
import { Features } from '../../virtio/features.ts';
import type { VirtQueue } from '../../virtio/queue.ts';
import { u16le, u32le } from '../../wire/bytes.ts';
import type { CoalesceParameters } from './coalesce.ts';
import {
  F_CTRL_GUEST_OFFLOADS,
  F_CTRL_MAC_ADDR,
  F_CTRL_RX,
  F_CTRL_RX_EXTRA,
  F_CTRL_VLAN,
  F_GUEST_ANNOUNCE,
  F_HASH_REPORT,
  F_MQ,
  F_NOTF_COAL,
  F_RSS,
  GUEST_OFFLOAD_BITS,
} from './features.ts';
import type { Modes } from './modes.ts';
import type { NetContext } from './net.ts';
import { HASH_TYPES, RSS_KEY_MAX_BYTES, RSS_TABLE_MAX, type Steering } from './steering.ts';

export const CTRL_RX = 0;
export const CTRL_MAC = 1;
export const CTRL_VLAN = 2;
export const CTRL_ANNOUNCE = 3;
export const CTRL_MQ = 4;
export const CTRL_GUEST_OFFLOADS = 5;
export const CTRL_NOTF_COAL = 6;
export const MAC_TABLE_SET = 0;
export const MAC_ADDR_SET = 1;
export const VLAN_ADD = 0;
export const VLAN_DEL = 1;
export const ANNOUNCE_ACK = 0;
export const MQ_VQ_PAIRS_SET = 0;
export const MQ_RSS_CONFIG = 1;
export const MQ_HASH_CONFIG = 2;
export const COAL_TX_SET = 0;
export const COAL_RX_SET = 1;
export const CTRL_OK = 0;
export const CTRL_ERR = 1;

const COMMAND_BYTES = 2;
/** The longest command taken: MAC tables of ten thousand addresses, of which 64 are kept. */
const COMMAND_MAX_BYTES = 65_536;
const PASS_CHAINS = 64;
const USEC_MAX = 1_000_000;
const RX_MODES = 6;

/** What commands change beyond the modes. */
export interface ControlTarget {
  readonly accepted: Features;
  readonly pairsMax: number;
  readonly steering: Steering;
  readonly modes: Modes;
  readonly txCoalesce: CoalesceParameters;
  readonly rxCoalesce: CoalesceParameters;
  /** The driver has announced itself. */
  announced(): void;
  setGuestOffloads(offloads: Features): void;
  /** Queue pairs or hashing changed. */
  steeringChanged(): void;
}

export class ControlQueue {
  readonly #net: NetContext;
  readonly #target: ControlTarget;
  readonly #notify: () => void;
  #queue: VirtQueue | null = null;
  readonly #chains = new ChainBatch();
  readonly #data = new Uint8Array(COMMAND_MAX_BYTES);
  readonly #answer = new Uint8Array(1);
  #resumePosted = false;

  constructor(net: NetContext, target: ControlTarget, notify: () => void) {
    this.#net = net;
    this.#target = target;
    this.#notify = notify;
  }

  open(queue: VirtQueue): void {
    this.#queue = queue;
  }

  stop(): void {
    this.#queue = null;
  }

  run(): void {
    const net = this.#net;
    const queue = this.#queue;
    if (queue === null || !net.live) return;
    let done = 0;
    for (let budget = PASS_CHAINS; ; ) {
      const count = queue.fetch(net.memory, this.#chains, PASS_CHAINS);
      for (let i = 0; i < count; i++) this.#chain(queue, i);
      done += count;
      if (queue.fault !== 0) {
        net.broken(queue.fault);
        return;
      }
      // A command may have ended it all.
      if (this.#queue !== queue || !net.live) return;
      budget -= count + 1;
      if (count === 0 && !queue.requestKicks(net.memory)) break;
      if (budget <= 0) {
        this.#resumeNextTurn();
        break;
      }
    }
    if (done > 0 && queue.publish(net.memory)) this.#notify();
  }

  #resumeNextTurn(): void {
    if (this.#resumePosted) return;
    this.#resumePosted = true;
    this.#net.loop.post(() => {
      this.#resumePosted = false;
      this.run();
    });
  }

  #chain(queue: VirtQueue, i: number): void {
    const { memory, stats } = this.#net;
    const { first, writeFrom, address, length, id, slots } = this.#chains;
    stats.ctrlCommands++;
    const answerAt = writeFrom[i];
    if (answerAt === first[i + 1]) {
      stats.ctrlBadCommand++;
      queue.push(memory, id[i], slots[i], 0);
      return;
    }
    let bytes = 0;
    let fits = true;
    for (let part = first[i]; part < answerAt && fits; part++) {
      const size = length[part];
      if (bytes + size > COMMAND_MAX_BYTES) fits = false;
      else if (!memory.read(address[part], this.#data, bytes, size)) {
        queue.fault = FAULT_BUFFER_ADDRESS;
        return;
      } else bytes += size;
    }
    const isOk = fits && bytes >= COMMAND_BYTES && this.#command(this.#data.subarray(0, bytes));
    if (!isOk) stats.ctrlErrors++;
    this.#answer[0] = isOk ? CTRL_OK : CTRL_ERR;
    if (!memory.write(address[answerAt], this.#answer, 0, 1)) {
      queue.fault = FAULT_BUFFER_ADDRESS;
      return;
    }
    queue.push(memory, id[i], slots[i], 1);
  }

  /** Carries a command out; false: ERR. */
  #command(bytes: Uint8Array): boolean {
    const { accepted, modes } = this.#target;
    const command = bytes[1];
    const data = bytes.subarray(COMMAND_BYTES);
    switch (bytes[0]) {
      case CTRL_RX:
        if (data.length < 1 || command >= RX_MODES) return false;
        if (!accepted.has(command < 2 ? F_CTRL_RX : F_CTRL_RX_EXTRA)) return false;
        modes.set(command, data[0] !== 0);
        return true;
      case CTRL_MAC:
        if (command === MAC_TABLE_SET) return accepted.has(F_CTRL_RX) && this.#macTable(data);
        if (command !== MAC_ADDR_SET || !accepted.has(F_CTRL_MAC_ADDR) || data.length < 6) return false;
        modes.setMac(data);
        return true;
      case CTRL_VLAN: {
        if (!accepted.has(F_CTRL_VLAN) || data.length < 2 || command > VLAN_DEL) return false;
        const vlan = u16le(data, 0);
        if (vlan > 4095) return false;
        modes.setVlan(vlan, command === VLAN_ADD);
        return true;
      }
      case CTRL_ANNOUNCE:
        if (command !== ANNOUNCE_ACK || !accepted.has(F_GUEST_ANNOUNCE)) return false;
        this.#target.announced();
        return true;
      case CTRL_MQ:
        return this.#multiqueue(command, data);
      case CTRL_GUEST_OFFLOADS:
        return command === 0 && this.#guestOffloads(data);
      case CTRL_NOTF_COAL:
        return this.#coalesce(command, data);
      default:
        return false;
    }
  }

  /** Two tables, unicast and multicast: a count of 32 bits and that many addresses each (section 5.1.6.5.2). */
  #macTable(data: Uint8Array): boolean {
    if (data.length < 4) return false;
    const unicast = u32le(data, 0);
    // Bounded by what is there before anything is multiplied.
    if (unicast > (data.length - 4) / 6) return false;
    const second = 4 + 6 * unicast;
    if (data.length - second < 4) return false;
    const multicast = u32le(data, second);
    if (multicast > (data.length - second - 4) / 6) return false;
    this.#target.modes.setTable(data, 4, unicast, second + 4, multicast);
    return true;
  }

  #multiqueue(command: number, data: Uint8Array): boolean {
    const { accepted, steering, pairsMax } = this.#target;
    if (command === MQ_VQ_PAIRS_SET) {
      if (!accepted.has(F_MQ) || data.length < 2) return false;
      const pairs = u16le(data, 0);
      if (pairs < 1 || pairs > pairsMax) return false;
      steering.rss = false;
      steering.pairs = pairs;
    } else if (command === MQ_RSS_CONFIG) {
      if (!accepted.has(F_RSS) || !this.#rss(data)) return false;
    } else if (command === MQ_HASH_CONFIG) {
      if (!accepted.has(F_HASH_REPORT) || data.length < 13) return false;
      const types = u32le(data, 0);
      const keyBytes = data[12];
      if ((types & ~HASH_TYPES) !== 0 || keyBytes > RSS_KEY_MAX_BYTES || data.length < 13 + keyBytes)
        return false;
      steering.rss = false;
      steering.setHash(types, data.subarray(13, 13 + keyBytes));
    } else {
      return false;
    }
    this.#target.steeringChanged();
    return true;
  }

  /** struct virtio_net_rss_config (section 5.1.6.5.7.1): every index is checked before any is kept. */
  #rss(data: Uint8Array): boolean {
    const { steering, pairsMax } = this.#target;
    if (data.length < 8) return false;
    const types = u32le(data, 0);
    const entries = u16le(data, 4) + 1;
    const unclassified = u16le(data, 6);
    if ((types & ~HASH_TYPES) !== 0 || entries > RSS_TABLE_MAX || (entries & (entries - 1)) !== 0)
      return false;
    const after = 8 + 2 * entries;
    if (data.length < after + 3 || unclassified >= pairsMax) return false;
    const table = new Uint16Array(entries);
    for (let i = 0; i < entries; i++) {
      table[i] = u16le(data, 8 + 2 * i);
      if (table[i] >= pairsMax) return false;
    }
    const txQueues = u16le(data, after);
    const keyBytes = data[after + 2];
    if (txQueues < 1 || txQueues > pairsMax) return false;
    if (keyBytes > RSS_KEY_MAX_BYTES || data.length < after + 3 + keyBytes) return false;
    steering.rss = true;
    steering.pairs = pairsMax;
    steering.table = table;
    steering.unclassified = unclassified;
    steering.setHash(types, data.subarray(after + 3, after + 3 + keyBytes));
    return true;
  }

  #guestOffloads(data: Uint8Array): boolean {
    const { accepted } = this.#target;
    if (!accepted.has(F_CTRL_GUEST_OFFLOADS) || data.length < 8) return false;
    const wanted = new Features();
    wanted.setWord(0, u32le(data, 0));
    wanted.setWord(1, u32le(data, 4));
    const allowed = new Features(GUEST_OFFLOAD_BITS.filter((bit) => accepted.has(bit)));
    if (wanted.mask(allowed)) return false;
    this.#target.setGuestOffloads(wanted);
    return true;
  }

  #coalesce(command: number, data: Uint8Array): boolean {
    const { accepted, txCoalesce, rxCoalesce } = this.#target;
    if (!accepted.has(F_NOTF_COAL) || data.length < 8 || command > COAL_RX_SET) return false;
    const maxUsecs = u32le(data, 4);
    if (maxUsecs > USEC_MAX) return false;
    const target = command === COAL_TX_SET ? txCoalesce : rxCoalesce;
    target.maxPackets = u32le(data, 0);
    target.maxNs = maxUsecs * 1000;
    return true;
  }
}

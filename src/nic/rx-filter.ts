/**
 * The receive filter that all NIC models share: which frames a guest asked for. The model writes its registers' meaning into the public
 * fields; `decide` applies them in one order, and `query` (QMP's query-rx-filter) reads the same fields, so the two never differ.
 *
 * Order: VLAN table → promiscuous → broadcast → multicast (all, exact table, hash) → unicast (all, exact table, hash). Whether the
 * receiver is on, in loopback, or the frame too long is the model's business, before.
 *
 * NIC_RX_FILTER_CHANGED fires at the first change and then no more until somebody queried: `changed` and `query` keep that rule.
 */

import { formatMac } from '../wire/bytes.ts';

/** Verdicts of `decide`. */
export const RX_ACCEPT = 0;
/** Accepted by a hash or an "all" mode: software has to look again (e1000 PIF). */
export const RX_ACCEPT_INEXACT = 1;
export const RX_DROP_VLAN = 2;
export const RX_DROP_BROADCAST = 3;
export const RX_DROP_MULTICAST = 4;
export const RX_DROP_UNICAST = 5;
export const RX_DROP_RUNT = 6;

/** What a model calls a hash: the index of a destination's bit. */
export type AddressHash = (bytes: Uint8Array, at: number) => number;

/** The QAPI struct RxFilterInfo, field for field. */
export interface RxFilterInfo {
  name: string;
  promiscuous: boolean;
  multicast: 'normal' | 'none' | 'all';
  unicast: 'normal' | 'none' | 'all';
  vlan: 'normal' | 'none' | 'all';
  'broadcast-allowed': boolean;
  'multicast-overflow': boolean;
  'unicast-overflow': boolean;
  'main-mac': string;
  'vlan-table': number[];
  'unicast-table': string[];
  'multicast-table': string[];
}

const ETHERTYPE_OFFSET = 12;
const VLAN_TCI_OFFSET = 14;
const TAGGED_HEADER_BYTES = 18;
const HEADER_BYTES = 14;
const VLAN_WORDS = 128;

export class RxFilter {
  /** Takes every frame that the VLAN table lets pass. */
  promiscuous = false;
  allMulticast = false;
  allUnicast = false;
  noMulticast = false;
  noUnicast = false;
  broadcast = true;
  /** Only tagged frames whose id is in the VLAN table, and untagged ones, pass. */
  vlanFilter = false;
  /** The EtherType that makes a frame tagged. */
  vlanType = 0x8100;
  /** The value that a tag's CFI bit must have; -1: any. */
  cfi = -1;
  /** More addresses were asked for than the exact table holds. */
  multicastOverflow = false;
  unicastOverflow = false;
  /** 4096 bits. */
  readonly vlans = new Int32Array(VLAN_WORDS);
  /** Bits by `hash`; empty: the model has no hash filter. */
  readonly hashBits: Int32Array;
  /** Whether the hash also lets unicast in (rtl8139 does not). */
  hashUnicast = false;

  readonly #hash: AddressHash | null;
  /** Exact addresses, two words each: first four bytes, last two; entry 0 is the main address. -1 in the second: free. */
  readonly #table: Int32Array;
  #used = 0;
  readonly #mainMac = new Uint8Array(6);
  #onChanged: (() => void) | null = null;
  #told = false;

  /** `tableSize`: exact addresses, the main one included. `hash` yields indices below `hashBitCount`. */
  constructor(tableSize: number, hash: AddressHash | null = null, hashBitCount = 0) {
    this.#table = new Int32Array(2 * tableSize).fill(-1);
    this.#hash = hash;
    this.hashBits = new Int32Array(hashBitCount >> 5);
  }

  /** Called once when the filter changes, and not again until the next `query`. */
  set onChanged(listener: (() => void) | null) {
    this.#onChanged = listener;
    this.#told = false;
  }

  /** The model changed a field. */
  changed(): void {
    if (this.#told || this.#onChanged === null) return;
    this.#told = true;
    this.#onChanged();
  }

  /** Puts an address into the exact table, or takes entry `index` out of it (`bytes` null). */
  setAddress(index: number, bytes: Uint8Array | null, at = 0): void {
    const table = this.#table;
    if (bytes === null) {
      table[2 * index + 1] = -1;
    } else {
      table[2 * index] = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
      table[2 * index + 1] = bytes[at + 4] | (bytes[at + 5] << 8);
    }
    if (index === 0 && bytes !== null) this.#mainMac.set(bytes.subarray(at, at + 6));
    let used = table.length >> 1;
    while (used > 0 && table[2 * used - 1] === -1) used--;
    this.#used = used;
  }

  /** True when the frame whose header lies at `at` is accepted as one for the main address, unless its tag speaks against it: `decide` in short. */
  isMain(headers: DataView, at: number): boolean {
    const low = headers.getInt32(at, true);
    return (
      this.#table[0] === low &&
      this.#table[1] === headers.getUint16(at + 4, true) &&
      !this.noUnicast &&
      (low & 1) === 0
    );
  }

  /** Judges the frame of `length` bytes whose header lies at `at`. */
  decide(bytes: Uint8Array, at: number, length: number): number {
    if (length < HEADER_BYTES) return RX_DROP_RUNT;
    if (this.vlanFilter || this.cfi >= 0) {
      const type = (bytes[at + ETHERTYPE_OFFSET] << 8) | bytes[at + ETHERTYPE_OFFSET + 1];
      if (type === this.vlanType) {
        if (length < TAGGED_HEADER_BYTES) return RX_DROP_RUNT;
        const tci = (bytes[at + VLAN_TCI_OFFSET] << 8) | bytes[at + VLAN_TCI_OFFSET + 1];
        const id = tci & 0xfff;
        if (this.vlanFilter && ((this.vlans[id >> 5] >>> (id & 31)) & 1) === 0) return RX_DROP_VLAN;
        if (this.cfi >= 0 && ((tci >> 12) & 1) !== this.cfi) return RX_DROP_VLAN;
      }
    }
    const low = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    const high = bytes[at + 4] | (bytes[at + 5] << 8);
    const table = this.#table;
    if ((low & 1) === 0) {
      // Most frames are for the main address: look there first.
      if (table[0] === low && table[1] === high && !this.noUnicast) return RX_ACCEPT;
      if (this.promiscuous || this.allUnicast) return RX_ACCEPT_INEXACT;
      if (this.noUnicast) return RX_DROP_UNICAST;
      for (let i = 2; i < 2 * this.#used; i += 2)
        if (table[i] === low && table[i + 1] === high) return RX_ACCEPT;
      if (this.hashUnicast && this.#hashed(bytes, at)) return RX_ACCEPT_INEXACT;
      return RX_DROP_UNICAST;
    }
    if (low === -1 && high === 0xffff) {
      if (this.broadcast) return RX_ACCEPT;
      if (this.promiscuous) return RX_ACCEPT_INEXACT;
    } else {
      if (this.promiscuous || this.allMulticast) return RX_ACCEPT_INEXACT;
      if (this.noMulticast) return RX_DROP_MULTICAST;
    }
    for (let i = 0; i < 2 * this.#used; i += 2)
      if (table[i] === low && table[i + 1] === high) return RX_ACCEPT;
    if (this.#hashed(bytes, at)) return RX_ACCEPT_INEXACT;
    return low === -1 && high === 0xffff ? RX_DROP_BROADCAST : RX_DROP_MULTICAST;
  }

  #hashed(bytes: Uint8Array, at: number): boolean {
    if (this.#hash === null) return false;
    const bit = this.#hash(bytes, at);
    return ((this.hashBits[bit >> 5] >>> (bit & 31)) & 1) !== 0;
  }

  /** Empty tables and normal modes, as after a reset; the main address stays. */
  clear(): void {
    this.promiscuous = false;
    this.allMulticast = false;
    this.allUnicast = false;
    this.noMulticast = false;
    this.noUnicast = false;
    this.broadcast = true;
    this.vlanFilter = false;
    this.cfi = -1;
    this.multicastOverflow = false;
    this.unicastOverflow = false;
    this.vlans.fill(0);
    this.hashBits.fill(0);
    for (let i = 1; i < this.#table.length >> 1; i++) this.setAddress(i, null);
  }

  /** The state in QMP's shape; from now on the next change is told again. */
  query(name: string): RxFilterInfo {
    this.#told = false;
    const unicast: string[] = [];
    const multicast: string[] = [];
    const mac = new Uint8Array(6);
    const table = this.#table;
    for (let i = 1; i < this.#used; i++) {
      if (table[2 * i + 1] === -1) continue;
      for (let b = 0; b < 4; b++) mac[b] = table[2 * i] >>> (8 * b);
      mac[4] = table[2 * i + 1];
      mac[5] = table[2 * i + 1] >>> 8;
      ((mac[0] & 1) !== 0 ? multicast : unicast).push(formatMac(mac));
    }
    const vlanTable: number[] = [];
    for (let id = 0; id < 4096; id++) if (((this.vlans[id >> 5] >>> (id & 31)) & 1) !== 0) vlanTable.push(id);
    const hashInUse = this.hashBits.some((word) => word !== 0);
    const multicastListed = multicast.length > 0 || hashInUse || this.multicastOverflow;
    return {
      name,
      promiscuous: this.promiscuous,
      multicast:
        this.allMulticast || this.promiscuous
          ? 'all'
          : this.noMulticast || !multicastListed
            ? 'none'
            : 'normal',
      unicast: this.allUnicast || this.promiscuous ? 'all' : this.noUnicast ? 'none' : 'normal',
      vlan: !this.vlanFilter ? 'all' : vlanTable.length === 0 ? 'none' : 'normal',
      'broadcast-allowed': this.broadcast,
      'multicast-overflow': this.multicastOverflow || hashInUse,
      'unicast-overflow': this.unicastOverflow,
      'main-mac': formatMac(this.#mainMac),
      'vlan-table': vlanTable,
      'unicast-table': unicast,
      'multicast-table': multicast,
    };
  }
}

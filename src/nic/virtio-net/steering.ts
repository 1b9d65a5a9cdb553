/**
 * Which receive queue a frame goes to (virtio 1.3, section 5.1.6.5.6 and 5.1.6.5.7).
 *
 *   RSS         Toeplitz hash of the fields that the driver chose → indirection table
 *   automatic   the queue pair that the flow was last sent on, by a small table of flow hashes; else by the hash
 *
 * The same hash is reported in the packet header when the driver asked for HASH_REPORT.
 */

import { type FramePool, LENGTH, OFFSET } from '../../core/pool.ts';
import { u16be } from '../../wire/bytes.ts';
import { TOEPLITZ_KEY_BYTES, ToeplitzHash } from '../../wire/flow-hash.ts';
import { HeaderLayout } from '../offload.ts';

export const HASH_IPV4 = 1;
export const HASH_TCPV4 = 2;
export const HASH_UDPV4 = 4;
export const HASH_IPV6 = 8;
export const HASH_TCPV6 = 16;
export const HASH_UDPV6 = 32;
/** What the device can hash. */
export const HASH_TYPES = 63;

export const REPORT_NONE = 0;
export const REPORT_IPV4 = 1;
export const REPORT_TCPV4 = 2;
export const REPORT_UDPV4 = 3;
export const REPORT_IPV6 = 4;
export const REPORT_TCPV6 = 5;
export const REPORT_UDPV6 = 6;

export const RSS_KEY_MAX_BYTES = TOEPLITZ_KEY_BYTES;
export const RSS_TABLE_MAX = 128;

const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const FLOWS = 1024;

export interface SavedSteering {
  pairs: number;
  rss: boolean;
  hashTypes: number;
  key: number[];
  table: number[];
  unclassified: number;
}

export class Steering {
  /** Queue pairs in use. */
  pairs = 1;
  rss = false;
  hashTypes = 0;
  key = new Uint8Array(RSS_KEY_MAX_BYTES);
  table = new Uint16Array(1);
  unclassified = 0;
  /** What `hash` found. */
  value = 0;
  report = REPORT_NONE;

  #toeplitz: ToeplitzHash | null = null;
  readonly #layout = new HeaderLayout();
  /** Queue pair by flow hash; 0: not seen, else pair + 1. */
  readonly #flows = new Uint8Array(FLOWS);

  reset(): void {
    this.pairs = 1;
    this.rss = false;
    this.hashTypes = 0;
    this.table = new Uint16Array(1);
    this.unclassified = 0;
    this.#toeplitz = null;
    this.#flows.fill(0);
  }

  setHash(types: number, key: Uint8Array): void {
    this.hashTypes = types;
    this.key = new Uint8Array(RSS_KEY_MAX_BYTES);
    this.key.set(key.subarray(0, RSS_KEY_MAX_BYTES));
    this.#toeplitz = types === 0 ? null : new ToeplitzHash(this.key);
  }

  /** Computes the hash that the driver chose into `value` and `report`. */
  hash(pool: FramePool, frame: number): void {
    this.value = 0;
    this.report = REPORT_NONE;
    const toeplitz = this.#toeplitz;
    if (toeplitz === null) return;
    const { bytes, table: t } = pool;
    const at = t[frame + OFFSET];
    const size = t[frame + LENGTH];
    const layout = this.#layout;
    if (!layout.read(bytes, at, size)) return;
    const types = this.hashTypes;
    const { version, ip, l4, protocol, fragment } = layout;
    const v4 = version === 4;
    const ports =
      !fragment &&
      l4 + 4 <= size &&
      ((protocol === PROTOCOL_TCP && (types & (v4 ? HASH_TCPV4 : HASH_TCPV6)) !== 0) ||
        (protocol === PROTOCOL_UDP && (types & (v4 ? HASH_UDPV4 : HASH_UDPV6)) !== 0));
    if (!ports && (types & (v4 ? HASH_IPV4 : HASH_IPV6)) === 0) return;
    const base = at + ip + (v4 ? 12 : 8);
    const source = ports ? u16be(bytes, at + l4) : 0;
    const target = ports ? u16be(bytes, at + l4 + 2) : 0;
    if (v4) {
      const from = (u16be(bytes, base) << 16) | u16be(bytes, base + 2);
      const to = (u16be(bytes, base + 4) << 16) | u16be(bytes, base + 6);
      this.value = ports ? toeplitz.hashV4Ports(from, to, source, target) : toeplitz.hashV4(from, to);
    } else {
      this.value = ports ? toeplitz.hashV6Ports(bytes, base, source, target) : toeplitz.hashV6(bytes, base);
    }
    const kind = !ports ? 0 : protocol === PROTOCOL_TCP ? 1 : 2;
    this.report = (v4 ? REPORT_IPV4 : REPORT_IPV6) + kind;
  }

  /** The queue pair for a frame that came in, below `pairs`. `hash` was called for it when RSS is on. */
  pairFor(pool: FramePool, frame: number): number {
    if (this.rss) {
      const queue =
        this.report === REPORT_NONE ? this.unclassified : this.table[this.value & (this.table.length - 1)];
      return queue < this.pairs ? queue : queue % this.pairs;
    }
    const flow = this.#flow(pool, frame);
    const known = this.#flows[flow];
    return known !== 0 && known <= this.pairs ? known - 1 : flow % this.pairs;
  }

  /** The driver sent this frame on queue pair `pair`. */
  learn(pool: FramePool, frame: number, pair: number): void {
    if (pair < 255) this.#flows[this.#flow(pool, frame)] = pair + 1;
  }

  /** A hash that is the same for both directions of a flow. */
  #flow(pool: FramePool, frame: number): number {
    const { bytes, table: t } = pool;
    const at = t[frame + OFFSET];
    const size = t[frame + LENGTH];
    const layout = this.#layout;
    if (!layout.read(bytes, at, size)) return 0;
    const v4 = layout.version === 4;
    const base = at + layout.ip + (v4 ? 12 : 8);
    let sum = layout.protocol;
    for (let i = 0; i < (v4 ? 8 : 32); i += 2) sum += u16be(bytes, base + i);
    const hasPorts = layout.protocol === PROTOCOL_TCP || layout.protocol === PROTOCOL_UDP;
    if (hasPorts && !layout.fragment && layout.l4 + 4 <= size) {
      sum += u16be(bytes, at + layout.l4) + u16be(bytes, at + layout.l4 + 2);
    }
    return (Math.imul(sum, 0x9e3779b1) >>> 16) & (FLOWS - 1);
  }

  save(): SavedSteering {
    return {
      pairs: this.pairs,
      rss: this.rss,
      hashTypes: this.hashTypes,
      key: [...this.key],
      table: [...this.table],
      unclassified: this.unclassified,
    };
  }

  /** Takes a state whose shape was checked; `pairsMax` bounds it. */
  load(state: SavedSteering, pairsMax: number): void {
    this.reset();
    this.pairs = Math.min(state.pairs, pairsMax);
    this.rss = state.rss;
    this.setHash(state.hashTypes & HASH_TYPES, Uint8Array.from(state.key));
    this.table = Uint16Array.from(state.table);
    this.unclassified = state.unclassified;
  }
}

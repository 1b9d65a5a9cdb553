/**
 * A TCP for one end of a link: the flow table, what belongs to no connection, the budgets all connections share, and the burst.
 *
 * Its owner (the user backend, facing the guest; the probe guest, facing the network) parses Ethernet and IP, hands each TCP packet to `input`
 * and calls `flush` when the batch is through. Connections with something to do are listed meanwhile and worked off once in `flush`:
 * so a burst of segments costs one call of the sink, one acknowledgement and one look at the windows. What happens outside a batch (timers,
 * a user that sends or can take again) is worked off in a task of the loop.
 *
 * Frames go out through `TcpLower`. When it has no room nothing is made: acknowledgements and data stay a matter of state, and
 * `outputReady` resumes them. So there is no queue of segments here.
 *
 * Memory per connection: about 2.2 KB of objects, a user's included (test/tcp/memory.test.ts), queues only while something is queued.
 */

import type { Random } from '../core/clock.ts';
import type { Loop } from '../core/loop.ts';
import { type FramePool, LENDER, OFFSET } from '../core/pool.ts';
import { ACCEPT_CSUM } from '../core/port.ts';
import { copyBytes, putU16be, u16be, u32be } from '../wire/bytes.ts';
import { ChecksumRegion } from '../wire/checksum.ts';
import { SipHash } from '../wire/siphash.ts';
import { TCP_ACK_FLAG, TCP_RST, TCP_SYN, TcpOptions } from '../wire/tcp.ts';
import { Connection, type TcpUser } from './connection.ts';
import {
  addressesAt,
  isV4,
  linkHeaderReply,
  linkHeaderSum,
  linkMatches,
  linkPseudoSum,
  linkSent,
  mixFlow,
} from './link-header.ts';
import { writeSegment } from './output.ts';
import { pathMtu } from './path-mtu.ts';
import { Segment } from './segment.ts';
import { DEFAULT_TCP_SETTINGS, type TcpSettings } from './settings.ts';
import { TIME_WAIT } from './states.ts';

/** Bytes in front of a payload for all headers: Ethernet, IPv6, TCP with 40 bytes of options; a multiple of 64 for copies. */
export const HEADER_ROOM = 128;

/** Where segments go: the owner's way to its port. */
export interface TcpLower {
  /** ACCEPT_* bits of the port's peer, as they are now. */
  readonly accepts: number;
  /** How many frames `transmit` takes now. Once it said 0, the owner calls `outputReady` when that changes. */
  room(): number;
  /** A whole Ethernet frame. Takes the caller's hold of it. */
  transmit(frame: number): void;
}

export interface TcpStackOptions {
  pool: FramePool;
  loop: Loop;
  random: Random;
  lower: TcpLower;
  /** The address of this end of the link. */
  mac: Uint8Array;
  settings?: Partial<TcpSettings>;
  /**
   * A SYN asks for a new connection, in state SYN_HELD: set `user`, then `accept()` or `refuse()` now or later. Without a user on return the
   * connection is refused with a reset.
   */
  incoming(connection: Connection): void;
}

export class TcpStats {
  rxSegments = 0;
  rxDropMalformed = 0;
  rxDropBadChecksum = 0;
  rxDropHeldBudget = 0;
  rxDropOutOfOrderBudget = 0;
  rxDropNoSlot = 0;
  rxDropPaws = 0;
  rxDuplicateSegments = 0;
  rxUnknownFlow = 0;
  rxUnacceptable = 0;
  txSegments = 0;
  txResets = 0;
  txChallengeAcks = 0;
  txRetransmittedSegments = 0;
  txFastRecoveries = 0;
  /** Retransmissions found lost in their turn before the timer did. */
  txLostRetransmissions = 0;
  txTimeouts = 0;
  /** Tails of a flight that nothing answered, probed (RFC 8985). */
  txTailProbes = 0;
  txWindowProbes = 0;
  /** Connections whose segments became shorter because a router behind the peer said so; and when it said so in vain. */
  pathMtuLowered = 0;
  pathMtuIgnored = 0;
  txKeepAlives = 0;
  connectionsOpened = 0;
  connectionsAccepted = 0;
  connectionsTimedOut = 0;
}

const PORTS_FIRST = 49_152;
const PORTS_LAST = 65_535;
const LENT_MAX = 256;

export class TcpStack {
  readonly pool: FramePool;
  readonly loop: Loop;
  readonly random: Random;
  settings: TcpSettings;
  readonly stats = new TcpStats();
  readonly mac: Uint8Array;
  readonly sums: ChecksumRegion;
  /** Scratch for the options of a segment being written. */
  readonly options = new TcpOptions();
  /** The clock, in microseconds, as of the latest event. */
  nowUs = 0;

  readonly #lower: TcpLower;
  readonly #incoming: (connection: Connection) => void;
  readonly #flows = new Map<number, Connection>();
  readonly #segment = new Segment();
  readonly #hash: SipHash;
  /** Two addresses, two ports, a salt. */
  readonly #keyedInput = new Uint8Array(2 * 16 + 5);
  readonly #seed: number;
  readonly #seed2: number;
  #count = 0;
  #heldSlots = 0;
  #lentSlots = 0;
  /** Listed for the next flush: the first #workCount; null behind. Neither array shrinks. */
  #work: (Connection | null)[] = [];
  #spare: (Connection | null)[] = [];
  #workCount = 0;
  #stalled: Connection[] = [];
  #batch = false;
  #flushing = false;
  #posted = false;
  #closed = false;
  readonly #task: () => void;

  constructor(options: TcpStackOptions) {
    this.pool = options.pool;
    this.loop = options.loop;
    this.random = options.random;
    this.settings = {
      ...DEFAULT_TCP_SETTINGS,
      heldSlotsMax: options.pool.capacity >> 1,
      ...options.settings,
    };
    this.mac = options.mac;
    this.sums = new ChecksumRegion(options.pool.bytes);
    this.#lower = options.lower;
    this.#incoming = options.incoming;
    const key = new Uint8Array(16);
    for (let i = 0; i < 16; i++) key[i] = options.random();
    this.#hash = new SipHash(key);
    this.#seed = options.random() | 0;
    this.#seed2 = options.random() | 0;
    this.#task = () => {
      this.#posted = false;
      this.flush();
    };
    this.tick();
  }

  /** The link's IP MTU changed (DHCP or a router said so): for connections opened from now on. */
  setIpMtu(ipMtuBytes: number): void {
    this.settings = { ...this.settings, ipMtuBytes };
  }

  /** Connections in the table, TIME_WAIT included. */
  get connections(): number {
    return this.#count;
  }

  /** Every connection; for listings. */
  *[Symbol.iterator](): IterableIterator<Connection> {
    for (const first of this.#flows.values()) {
      for (let c: Connection | null = first; c !== null; c = c.nextInBucket) yield c;
    }
  }

  /** Reads the clock. */
  tick(): void {
    this.nowUs = Math.floor(this.loop.clock.nowNs() / 1000);
  }

  /**
   * One TCP packet, whose IP header of `version` lies at `ipOffset` and TCP header at `tcpOffset` of region 0, with `ipPayloadBytes` of
   * header and text. Takes the frame. The caller calls `flush` at the end of its batch.
   */
  input(frame: number, version: number, ipOffset: number, tcpOffset: number, ipPayloadBytes: number): void {
    const segment = this.#segment;
    const stats = this.stats;
    if (!this.#batch) {
      this.#batch = true;
      this.tick();
    }
    stats.rxSegments++;
    if (!segment.parse(this.pool, frame, version, ipOffset, tcpOffset, ipPayloadBytes)) {
      stats.rxDropMalformed++;
      this.pool.release(frame);
      return;
    }
    if (!segment.checksumOk(this.pool)) {
      stats.rxDropBadChecksum++;
      this.pool.release(frame);
      return;
    }
    let connection = this.#find(segment);
    if (connection !== null && connection.state === TIME_WAIT && connection.mayBeReused(segment)) {
      connection.remove();
      connection = null;
    }
    if (connection === null) {
      this.#inputNew(segment);
      this.pool.release(segment.frame);
      return;
    }
    // The connection may have exchanged the frame for a copy of its own.
    if (!connection.input(segment)) this.pool.release(segment.frame);
  }

  #find(segment: Segment): Connection | null {
    const bytes = this.pool.bytes;
    const ip = segment.ipOffset;
    const v4 = segment.version === 4;
    const ports = (segment.dstPort << 16) | segment.srcPort;
    const hash = v4
      ? mixFlow(bytes, ip + 16, ip + 12, 4, ports, this.#seed, this.#seed2)
      : mixFlow(bytes, ip + 24, ip + 8, 16, ports, this.#seed, this.#seed2);
    let c = this.#flows.get(hash) ?? null;
    while (c !== null) {
      if (c.ports === ports && linkMatches(c.link, bytes, segment.version, ip)) return c;
      c = c.nextInBucket;
    }
    return null;
  }

  #inputNew(segment: Segment): void {
    const { flags } = segment;
    if ((flags & TCP_RST) !== 0) return;
    const frameStart = this.pool.table[segment.frame + OFFSET]!;
    const link = linkHeaderReply(
      this.pool.bytes,
      segment.version,
      segment.ipOffset,
      frameStart + 6,
      this.mac,
    );
    if ((flags & (TCP_SYN | TCP_ACK_FLAG)) === TCP_SYN && !this.#closed) {
      const c = this.#add(link, segment.dstPort, segment.srcPort);
      c.hold(segment);
      this.#incoming(c);
      if (c.user === null) c.refuse();
      return;
    }
    this.stats.rxUnknownFlow++;
    this.resetSegment(segment, link);
  }

  /** Answers a segment that fits no connection with a reset (RFC 9293 section 3.10.7.1). */
  resetSegment(segment: Segment, link: Uint8Array): void {
    if ((segment.flags & TCP_RST) !== 0 || this.#lower.room() <= 0) return;
    if ((segment.flags & TCP_ACK_FLAG) !== 0) {
      this.sendBare(link, segment.dstPort, segment.srcPort, segment.ack, 0, TCP_RST);
    } else {
      const ack = (segment.seq + segment.length) | 0;
      this.sendBare(link, segment.dstPort, segment.srcPort, 0, ack, TCP_RST | TCP_ACK_FLAG);
    }
  }

  /** A segment without options, payload or connection. */
  sendBare(
    link: Uint8Array,
    localPort: number,
    remotePort: number,
    seq: number,
    ack: number,
    flags: number,
  ): void {
    const frame = this.emptyFrame();
    if (frame === 0) return;
    this.options.clear();
    if ((flags & TCP_RST) !== 0) this.stats.txResets++;
    this.transmit(
      writeSegment(
        this,
        frame,
        this.payloadPlace(frame),
        0,
        link,
        linkHeaderSum(link),
        linkPseudoSum(link),
        0,
        localPort,
        remotePort,
        seq,
        ack,
        flags,
        0,
        0,
      ),
    );
  }

  #add(link: Uint8Array, localPort: number, remotePort: number): Connection {
    const ports = (localPort << 16) | remotePort;
    const hash = this.#hashOf(link, ports);
    const c = new Connection(this, link, ports, hash);
    c.nextInBucket = this.#flows.get(hash) ?? null;
    this.#flows.set(hash, c);
    this.#count++;
    return c;
  }

  #hashOf(link: Uint8Array, ports: number): number {
    const size = isV4(link) ? 4 : 16;
    const at = addressesAt(link);
    return mixFlow(link, at, at + size, size, ports, this.#seed, this.#seed2);
  }

  /**
   * A router could not pass on a segment of ours: its headers, as quoted, lie at `ip` and `tcp` of `bytes`, 8 bytes of the latter at least.
   * `told` is the next hop's MTU, 0: not known. True: a connection's segments are shorter now.
   */
  packetTooBig(bytes: Uint8Array, version: number, ip: number, tcp: number, told: number): boolean {
    const v4 = version === 4;
    const size = v4 ? 4 : 16;
    const local = ip + (v4 ? 12 : 8);
    const ports = (u16be(bytes, tcp) << 16) | u16be(bytes, tcp + 2);
    const hash = mixFlow(bytes, local, local + size, size, ports, this.#seed, this.#seed2);
    for (let c = this.#flows.get(hash) ?? null; c !== null; c = c.nextInBucket) {
      if (c.ports !== ports || !linkSent(c.link, bytes, version, ip)) continue;
      const packetBytes = v4 ? u16be(bytes, ip + 2) : u16be(bytes, ip + 4) + 40;
      this.tick();
      if (!c.narrow(u32be(bytes, tcp + 4) | 0, pathMtu(version, told, packetBytes))) break;
      this.stats.pathMtuLowered++;
      return true;
    }
    this.stats.pathMtuIgnored++;
    return false;
  }

  /** Takes a connection out of the table. */
  forget(c: Connection): void {
    const first = this.#flows.get(c.hash) ?? null;
    if (first === c) {
      if (c.nextInBucket === null) this.#flows.delete(c.hash);
      else this.#flows.set(c.hash, c.nextInBucket);
    } else {
      for (let p = first; p !== null; p = p.nextInBucket) {
        if (p.nextInBucket === c) {
          p.nextInBucket = c.nextInBucket;
          break;
        }
      }
    }
    c.nextInBucket = null;
    this.#count--;
  }

  /** Whether a connection between these ports and the link's addresses exists. */
  has(link: Uint8Array, localPort: number, remotePort: number): boolean {
    const ports = (localPort << 16) | remotePort;
    for (let c = this.#flows.get(this.#hashOf(link, ports)) ?? null; c !== null; c = c.nextInBucket) {
      if (c.ports === ports && equal(c.link, link)) return true;
    }
    return false;
  }

  /**
   * Opens a connection over `link` (linkHeaderV4 or V6: from this end to the peer). `localPort` 0 chooses one (RFC 6056). Returns null when
   * the four-tuple, or every port, is taken.
   */
  connect(user: TcpUser, link: Uint8Array, localPort: number, remotePort: number): Connection | null {
    const port = localPort === 0 ? this.#choosePort(link, remotePort) : localPort;
    if (port === 0 || this.#closed || this.has(link, port, remotePort)) return null;
    this.tick();
    const c = this.#add(link, port, remotePort);
    c.user = user;
    this.stats.connectionsOpened++;
    c.open();
    return c;
  }

  /** RFC 6056 algorithm 3: a keyed hash of the destination and a random step, so that ports neither repeat early nor tell anything. */
  #choosePort(link: Uint8Array, remotePort: number): number {
    const count = PORTS_LAST - PORTS_FIRST + 1;
    const offset = (this.keyed(link, remotePort, 1) + this.random()) % count;
    for (let i = 0; i < count; i++) {
      const port = PORTS_FIRST + ((offset + i) % count);
      if (!this.has(link, port, remotePort)) return port;
    }
    return 0;
  }

  /** SipHash of a flow: a non-negative 32-bit number. `salt` separates its uses. */
  keyed(link: Uint8Array, ports: number, salt: number): number {
    const input = this.#keyedInput;
    const addresses = isV4(link) ? 8 : 32;
    copyBytes(input, 0, link, addressesAt(link), addresses);
    putU16be(input, addresses, ports >>> 16);
    putU16be(input, addresses + 2, ports & 0xffff);
    input[addresses + 4] = salt;
    return this.#hash.hash(input, 0, addresses + 5);
  }

  /** 32 further bits of the latest `keyed`. */
  get keyedHigh(): number {
    return this.#hash.high;
  }

  // What connections share.

  /** The peer's ACCEPT_* bits. */
  get accepts(): number {
    return this.#lower.accepts;
  }

  get acceptsChecksum(): boolean {
    return (this.#lower.accepts & ACCEPT_CSUM) !== 0;
  }

  outputRoom(): number {
    return this.#lower.room();
  }

  transmit(frame: number): void {
    this.stats.txSegments++;
    this.#lower.transmit(frame);
  }

  /** A small frame for a segment without payload, or 0. */
  emptyFrame(): number {
    return this.pool.alloc(HEADER_ROOM);
  }

  /** Where a fresh frame's payload goes, as a place in region 0. */
  payloadPlace(frame: number): number {
    return this.pool.table[frame + OFFSET]! + HEADER_ROOM;
  }

  /** A connection keeps a frame: counted against the budgets. */
  held(frame: number): void {
    this.#heldSlots++;
    if (this.pool.table[frame + LENDER] !== 0) this.#lentSlots++;
  }

  unheld(frame: number): void {
    this.#heldSlots--;
    if (this.pool.table[frame + LENDER] !== 0) this.#lentSlots--;
  }

  /** `unheld` and release. */
  drop(frame: number): void {
    this.unheld(frame);
    this.pool.release(frame);
  }

  get heldSlots(): number {
    return this.#heldSlots;
  }

  /** Whether one more received frame may be kept; a connection that holds none may always have its first. */
  mayHold(more: boolean): boolean {
    return this.#heldSlots < this.settings.heldSlotsMax || !more;
  }

  mayHoldLent(): boolean {
    return this.#lentSlots < LENT_MAX;
  }

  /** Most bytes a connection should offer in its window, from what slots are left. */
  windowLimit(waiting: boolean): number {
    const left = this.settings.heldSlotsMax - this.#heldSlots;
    if (left <= 0) return waiting ? 0 : 4096;
    return left < this.settings.heldSlotsMax >> 2 ? 16_384 : this.settings.receiveWindowBytes;
  }

  /** Whether a connection with `queued` frames under way may send another: slots run out for nobody while others hold many. */
  maySend(queued: number): boolean {
    const left = this.settings.heldSlotsMax - this.#heldSlots;
    if (left > this.settings.heldSlotsMax >> 1) return true;
    return queued < 2 && left > -64;
  }

  /** Lists a connection for the next flush. */
  wantWork(c: Connection): void {
    if (c.listed) return;
    c.listed = true;
    this.#work[this.#workCount++] = c;
    if (!this.#batch && !this.#flushing) this.#post();
  }

  #post(): void {
    if (this.#posted) return;
    this.#posted = true;
    this.loop.post(this.#task);
  }

  /** The owner's port has no room: the connection goes on in `outputReady`. */
  waitForOutput(c: Connection): void {
    if (c.stalled) return;
    c.stalled = true;
    this.#stalled.push(c);
  }

  /** The port takes frames again. */
  outputReady(): void {
    const stalled = this.#stalled;
    if (stalled.length === 0) return;
    this.#stalled = [];
    for (const c of stalled) {
      c.stalled = false;
      this.wantWork(c);
    }
    if (!this.#flushing) this.flush();
  }

  /** Works off what the batch brought: once per connection. What that causes anew waits for the loop's next turn. */
  flush(): void {
    this.#batch = false;
    if (this.#flushing || this.#workCount === 0) return;
    this.#flushing = true;
    this.tick();
    const work = this.#work;
    const count = this.#workCount;
    this.#work = this.#spare;
    this.#workCount = 0;
    for (let i = 0; i < count; i++) {
      const c = work[i]!;
      work[i] = null;
      c.listed = false;
      c.work();
    }
    this.#spare = work;
    this.#flushing = false;
    if (this.#workCount > 0) this.#post();
  }

  /** Ends everything without a word to anybody and gives all frames back. */
  close(): void {
    this.#closed = true;
    for (const c of [...this]) c.remove();
    this.#work.fill(null);
    this.#workCount = 0;
    this.#stalled.length = 0;
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 14; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

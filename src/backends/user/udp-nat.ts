/**
 * UDP between the guest and the host: one connected host socket for each (guest address and port, far address and port), so that the kernel
 * delivers only the far end's datagrams and tells of its ICMP errors. Opened by the guest's first datagram; closed after silence.
 *
 *     guest ──frames of a burst──▶ flow.pending ──one sendDatagrams──▶ host
 *     guest ◀──one batch────────── slots ◀──one receiveDatagrams────── host
 *
 * Queries to the network's name server go to the host's resolver, opaque. Where there are several, an unanswered query is put to the next one
 * (resolvers.ts); where egress rules name names, answers are read on their way (egress-names.ts).
 *
 * Datagrams are dropped, counted, where the host's socket is full or the guest's side has no room: as on any network.
 */

import { HostIoError } from '../../core/errors.ts';
import type { Timer } from '../../core/loop.ts';
import { FACT_CSUM_VALID, FACT_NEEDS_CSUM, FACTS, GSO_SIZE, LENGTH, SLOT, TOTAL } from '../../core/pool.ts';
import { ACCEPT_CSUM, ACCEPT_USO } from '../../core/port.ts';
import { ERRNO, FAILED, READABLE, type UdpOptions } from '../../host-io/host-io.ts';
import { cutFrame } from '../../tcp/frames.ts';
import {
  linkHeaderReply,
  linkMatches,
  linkSent,
  localAddress,
  mixFlow,
  remoteAddress,
} from '../../tcp/link-header.ts';
import { u16be } from '../../wire/bytes.ts';
import { foldSum, pseudoSumAt } from '../../wire/checksum.ts';
import { DNS_PORT } from '../../wire/dns.ts';
import { sumFrame } from '../../wire/frame-sum.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ipv4.ts';
import { UDP_HEADER_BYTES, type UdpHeader } from '../../wire/udp.ts';
import type { FlowHolder } from './descriptors.ts';
import {
  flowTransport,
  HOST_UNREACHABLE,
  PORT_UNREACHABLE,
  PROHIBITED,
  sendErrorAbout,
  sendFlowUnreachable,
  type Unreachable,
  unreachableFor,
} from './icmp-error.ts';
import { hopLimitOf, hopsOnward, NetworkErrors } from './network-errors.ts';
import { PACKET_ROOM, sendUdp, sendUdpRun } from './packet-out.ts';
import { DENIED, NOBODY, NOWHERE, RESTRICTED, TO_HOST, TO_RESOLVER } from './policy.ts';
import { QUERY_MAX_BYTES, WaitingQueries } from './resolvers.ts';
import { outbound, type Site } from './site.ts';
import { addressText, type FlowInfo } from './tcp-nat.ts';
import { UdpFlow, UseOrder } from './udp-flow.ts';
import { RUN_MAX, runSegmentBytes, splitRun } from './udp-run.ts';

const FLOWS_MAX = 16_384;
const IDLE_NS = 60e9;
/** A name server answers soon or not at all; queries are many and each has its own port. */
const IDLE_DNS_NS = 10e9;
/** A resolver that says nothing for so long is passed over; a guest's own resolver library waits 5 s before it asks again. */
const ANSWER_NS = 2e9;
/** When to look again for a slot. */
const PARK_NS = 5e6;
/** Datagrams of a flow that wait for the end of the turn at most: as many as one UDP_SEGMENT call takes. */
const PENDING_MAX = 64;
const BATCH = 32;
const BATCH_LARGE = 16;
/** With fewer large slots than this free, they are left to TCP and to reassembly. */
const LARGE_KEPT = 96;

/** Whether the guest's side takes a run of datagrams as one frame. */
function takesRuns(site: Site): boolean {
  const wanted = ACCEPT_USO | ACCEPT_CSUM;
  return (site.accepts() & wanted) === wanted;
}

export class UdpNat implements FlowHolder {
  readonly #site: Site;
  readonly #flows = new Map<number, UdpFlow>();
  readonly #order = new UseOrder();
  readonly #dnsOrder = new UseOrder();
  readonly #timer: Timer;
  readonly #seed: number;
  readonly #seed2: number;
  readonly #frames = new Int32Array(BATCH);
  #touched: UdpFlow[] = [];
  #parked: UdpFlow[] = [];
  readonly #parkTimer: Timer;
  /** DNS flows with unanswered queries that another resolver could answer. */
  readonly #asking = new Set<UdpFlow>();
  readonly #answerTimer: Timer;
  readonly #one = new Int32Array(1);
  readonly #pieces = new Int32Array(RUN_MAX);
  readonly #errors: NetworkErrors;
  #count = 0;

  constructor(site: Site) {
    this.#site = site;
    site.descriptors.add(this);
    this.#errors = new NetworkErrors(site);
    this.#seed = site.random() | 0;
    this.#seed2 = site.random() | 0;
    this.#timer = site.loop.timer(() => this.#expire());
    this.#parkTimer = site.loop.timer(() => this.resume());
    this.#answerTimer = site.loop.timer(() => this.#unanswered());
  }

  get flows(): number {
    return this.#count;
  }

  /**
   * A datagram of the guest to somewhere outside. `ip` and `udp` are places in region 0; the frame starts at `start`. Takes the frame.
   */
  input(frame: number, version: number, start: number, ip: number, udp: UdpHeader): void {
    const { pool, stats } = this.#site;
    if (!udpChecksumOk(this.#site, frame, version, start, ip, udp)) {
      stats.udpDropBadChecksum++;
      pool.release(frame);
      return;
    }
    const flow = this.#find(version, ip, udp) ?? this.#open(frame, version, start, ip, udp);
    if (flow === null) {
      pool.release(frame);
      return;
    }
    if (flow.routed) {
      const hops = hopsOnward(hopLimitOf(pool.bytes, version, ip));
      if (hops !== flow.hops) this.#goSoFar(flow, hops);
    }
    const length = udp.payloadEnd - udp.payload;
    const runBytes = runSegmentBytes(pool, frame);
    const cut = cutFrame(pool, frame, udp.payload - start, length);
    if (cut === 0) {
      stats.txDropNoSlot++;
      pool.release(frame);
      return;
    }
    flow.fromGuestBytes += length;
    if (runBytes > 0 && length > runBytes) {
      this.#pushRun(flow, cut, runBytes, length);
      return;
    }
    if (flow.dns) this.#noteQuery(flow, cut);
    this.#push(flow, cut);
  }

  /** The flow's datagrams go another number of hops from now on; those before leave first. */
  #goSoFar(flow: UdpFlow, hops: number): void {
    if (flow.pending.length > 0) this.#send(flow, this.#site.loop.clock.nowNs());
    if (flow.handle !== 0) this.#site.hostIo.setHopLimit?.(flow.handle, hops);
    flow.hops = hops;
  }

  #push(flow: UdpFlow, frame: number): void {
    flow.pending.push(frame);
    if (flow.pending.length >= PENDING_MAX) {
      this.#send(flow, this.#site.loop.clock.nowNs());
      return;
    }
    if (!flow.touched) {
      flow.touched = true;
      this.#touched.push(flow);
    }
  }

  /** A run of datagrams, `each` bytes in all but the last. Takes the frame, which is payload alone. */
  #pushRun(flow: UdpFlow, run: number, each: number, length: number): void {
    const { pool, stats } = this.#site;
    if (length > each * RUN_MAX) {
      stats.udpDropMalformed++;
      pool.release(run);
      return;
    }
    const pieces = this.#pieces;
    const count = splitRun(pool, run, each, length, pieces);
    stats.udpRunsOut++;
    if (count < Math.ceil(length / each)) stats.txDropNoSlot++;
    for (let i = 0; i < count; i++) {
      // The host's socket may fail while the run is on its way.
      if (flow.handle === 0) pool.release(pieces[i]);
      else this.#push(flow, pieces[i]);
    }
  }

  #find(version: number, ip: number, udp: UdpHeader): UdpFlow | null {
    const bytes = this.#site.pool.bytes;
    const ports = (udp.dstPort << 16) | udp.srcPort;
    let flow = this.#flows.get(this.#hash(version, ip, ports)) ?? null;
    while (flow !== null && (flow.ports !== ports || !linkMatches(flow.link, bytes, version, ip)))
      flow = flow.next;
    return flow;
  }

  #hash(version: number, ip: number, ports: number): number {
    const bytes = this.#site.pool.bytes;
    return version === 4
      ? mixFlow(bytes, ip + 16, ip + 12, 4, ports, this.#seed, this.#seed2)
      : mixFlow(bytes, ip + 24, ip + 8, 16, ports, this.#seed, this.#seed2);
  }

  /**
   * The guest says that nobody has the port a flow leads to: `ip` and `udp` are places in region 0, of the headers of a datagram to the
   * guest as it quoted them. Ends the flow; false: there is none.
   */
  refusedByGuest(version: number, ip: number, udp: number): boolean {
    const { bytes } = this.#site.pool;
    const v4 = version === 4;
    const far = ip + (v4 ? 12 : 8);
    const guest = ip + (v4 ? 16 : 24);
    const size = v4 ? 4 : 16;
    const ports = (u16be(bytes, udp) << 16) | u16be(bytes, udp + 2);
    const hash = mixFlow(bytes, far, guest, size, ports, this.#seed, this.#seed2);
    for (let flow = this.#flows.get(hash) ?? null; flow !== null; flow = flow.next) {
      if (flow.ports !== ports || !linkSent(flow.link, bytes, version, ip)) continue;
      this.#site.stats.udpFlowsRefused++;
      this.#remove(flow);
      return true;
    }
    return false;
  }

  #open(frame: number, version: number, start: number, ip: number, udp: UdpHeader): UdpFlow | null {
    const site = this.#site;
    const { stats, policy } = site;
    const dst = ip + (version === 4 ? 16 : 24);
    const verdict = policy.decide(site.pool.bytes, version, dst, 'udp', udp.dstPort);
    let { address } = policy;
    switch (verdict) {
      case NOWHERE:
        stats.txDropBadDestination++;
        return null;
      case NOBODY:
        this.#unreachable(frame, version, start, ip, HOST_UNREACHABLE);
        return null;
      case RESTRICTED:
        stats.txDropRestricted++;
        this.#unreachable(frame, version, start, ip, PROHIBITED);
        return null;
      case DENIED:
        stats.txDropDenied++;
        this.#unreachable(frame, version, start, ip, PROHIBITED);
        return null;
      case TO_RESOLVER: {
        const resolver = site.config.restrict ? undefined : site.resolvers.next();
        if (udp.dstPort !== DNS_PORT || resolver === undefined) {
          if (udp.dstPort === DNS_PORT) stats.dnsDropNoResolver++;
          this.#unreachable(frame, version, start, ip, PORT_UNREACHABLE);
          return null;
        }
        stats.dnsQueries++;
        address = resolver;
        break;
      }
      default:
    }
    if (udp.dstPort === 0 || udp.srcPort === 0) {
      stats.udpDropMalformed++;
      return null;
    }
    const ports = (udp.dstPort << 16) | udp.srcPort;
    const link = linkHeaderReply(site.pool.bytes, version, ip, start + 6, site.mac, IP_PROTOCOL_UDP);
    const resolver = verdict === TO_RESOLVER ? address : '';
    const flow = new UdpFlow(link, ports, this.#hash(version, ip, ports), resolver);
    const from = verdict === TO_HOST ? outbound(site, version) : {};
    flow.routed = verdict === TO_HOST;
    flow.gro = !flow.dns && takesRuns(site);
    if (this.#count >= FLOWS_MAX) this.evict();
    const errno = this.#connect(flow, { remote: { address, port: udp.dstPort }, ...from });
    if (errno !== 0) {
      stats.udpDropNoSocket++;
      const what = unreachableFor(errno);
      if (what !== null) this.#unreachable(frame, version, start, ip, what);
      return null;
    }
    this.#add(flow);
    return flow;
  }

  /** Opens the flow's socket. Returns 0 or an errno. */
  #connect(flow: UdpFlow, options: UdpOptions): number {
    const { hostIo, descriptors } = this.#site;
    try {
      flow.handle = descriptors.open(() =>
        hostIo.udpOpen({ ...options, gro: flow.gro, networkErrors: true }),
      );
    } catch (error) {
      if (!(error instanceof HostIoError)) throw error;
      return ERRNO[error.code as keyof typeof ERRNO] ?? ERRNO.EIO;
    }
    hostIo.watch(flow.handle, READABLE, (ready) => this.#ready(flow, ready));
    return 0;
  }

  /** The flow that was silent longest. One without a socket is just about to get another. */
  #oldest(): UdpFlow | null {
    let query = this.#dnsOrder.oldest;
    if (query !== null && query.handle === 0) query = query.newer;
    const other = this.#order.oldest;
    if (query === null || other === null) return query ?? other;
    return query.lastNs <= other.lastNs ? query : other;
  }

  idleSinceNs(): number {
    return this.#oldest()?.lastNs ?? Number.POSITIVE_INFINITY;
  }

  evict(): void {
    const oldest = this.#oldest();
    if (oldest === null) return;
    this.#site.stats.udpFlowsEvicted++;
    this.#remove(oldest);
  }

  #add(flow: UdpFlow): void {
    const { loop, stats } = this.#site;
    stats.udpFlowsOpened++;
    flow.next = this.#flows.get(flow.hash) ?? null;
    this.#flows.set(flow.hash, flow);
    this.#count++;
    flow.lastNs = loop.clock.nowNs();
    (flow.dns ? this.#dnsOrder : this.#order).add(flow);
    if (!this.#timer.armed) this.#timer.armIn(flow.dns ? IDLE_DNS_NS : IDLE_NS);
    else if (flow.dns && this.#timer.deadlineNs > flow.lastNs + IDLE_DNS_NS) this.#timer.armIn(IDLE_DNS_NS);
  }

  #remove(flow: UdpFlow): void {
    const { hostIo, pool } = this.#site;
    const first = this.#flows.get(flow.hash) ?? null;
    if (first === flow) {
      if (flow.next === null) this.#flows.delete(flow.hash);
      else this.#flows.set(flow.hash, flow.next);
    } else {
      for (let p = first; p !== null; p = p.next) {
        if (p.next === flow) {
          p.next = flow.next;
          break;
        }
      }
    }
    (flow.dns ? this.#dnsOrder : this.#order).remove(flow);
    this.#asking.delete(flow);
    this.#count--;
    hostIo.close(flow.handle);
    flow.handle = 0;
    const { pending } = flow;
    pool.releaseAll(pending.items, pending.head, pending.tail);
    pending.head = 0;
    pending.tail = 0;
  }

  // Several resolvers.

  /** A query is about to go out: it is kept as long as another resolver could be asked for it. */
  #noteQuery(flow: UdpFlow, frame: number): void {
    const { resolvers, loop, pool } = this.#site;
    if (pool.table[frame + TOTAL] > QUERY_MAX_BYTES || !resolvers.several) return;
    flow.waiting ??= new WaitingQueries();
    flow.waiting.asked(pool.toBytes(frame), flow.resolver);
    this.#await(flow, loop.clock.nowNs());
  }

  #await(flow: UdpFlow, nowNs: number): void {
    flow.answerByNs = nowNs + ANSWER_NS;
    // In the order of their time.
    this.#asking.delete(flow);
    this.#asking.add(flow);
    if (!this.#answerTimer.armed) this.#answerTimer.arm(flow.answerByNs);
  }

  #unanswered(): void {
    const nowNs = this.#site.loop.clock.nowNs();
    for (const flow of this.#asking) {
      if (flow.answerByNs > nowNs) {
        this.#answerTimer.arm(flow.answerByNs);
        return;
      }
      this.#asking.delete(flow);
      this.#askNext(flow);
    }
  }

  /** Puts a flow's unanswered queries to a resolver that it did not try. False: there is none, or nothing to ask. */
  #askNext(flow: UdpFlow): boolean {
    const { resolvers, hostIo, pool, loop, stats } = this.#site;
    const { waiting } = flow;
    if (waiting === null || waiting.queries.length === 0) return false;
    resolvers.failed(flow.resolver);
    const resolver = resolvers.next(waiting.tried);
    if (resolver === undefined) {
      waiting.queries.length = 0;
      return false;
    }
    stats.dnsFailovers++;
    waiting.tried.push(resolver);
    hostIo.close(flow.handle);
    flow.handle = 0;
    flow.resolver = resolver;
    const errno = this.#connect(flow, { remote: { address: resolver, port: DNS_PORT } });
    if (errno !== 0) {
      this.#remove(flow);
      return false;
    }
    for (const query of waiting.queries) {
      const frame = pool.from(query);
      if (frame === 0) break;
      this.#one[0] = frame;
      hostIo.sendDatagrams(flow.handle, this.#one, 0, 1);
      pool.release(frame);
    }
    this.#await(flow, loop.clock.nowNs());
    return true;
  }

  /** A resolver's datagram is on its way to the guest: `bytes` at `place` of region 0. */
  #noteAnswer(flow: UdpFlow, place: number, bytes: number, nowNs: number): void {
    const { resolvers, egressNames, pool } = this.#site;
    egressNames.learn(pool.bytes, place, place + bytes, nowNs);
    if (flow.waiting === null || bytes < 2) return;
    resolvers.answered(flow.resolver);
    flow.waiting.answered(u16be(pool.bytes, place));
    if (flow.waiting.queries.length === 0) this.#asking.delete(flow);
  }

  #used(flow: UdpFlow, nowNs: number): void {
    flow.lastNs = nowNs;
    (flow.dns ? this.#dnsOrder : this.#order).touch(flow);
  }

  #expire(): void {
    const nowNs = this.#site.loop.clock.nowNs();
    let nextNs = Number.POSITIVE_INFINITY;
    for (const [order, idleNs] of [
      [this.#dnsOrder, IDLE_DNS_NS],
      [this.#order, IDLE_NS],
    ] as const) {
      for (let flow = order.oldest; flow !== null && flow.lastNs + idleNs <= nowNs; flow = order.oldest) {
        this.#site.stats.udpFlowsExpired++;
        this.#remove(flow);
      }
      if (order.oldest !== null) nextNs = Math.min(nextNs, order.oldest.lastNs + idleNs);
    }
    this.#timer.arm(nextNs);
  }

  /** The end of the turn: each flow's datagrams go out in one call. */
  flush(): void {
    const touched = this.#touched;
    if (touched.length === 0) return;
    const nowNs = this.#site.loop.clock.nowNs();
    for (let i = 0; i < touched.length; i++) {
      const flow = touched[i];
      flow.touched = false;
      if (flow.handle !== 0) this.#send(flow, nowNs);
    }
    touched.length = 0;
  }

  #send(flow: UdpFlow, nowNs: number): void {
    const { hostIo, pool, stats } = this.#site;
    const { pending } = flow;
    this.#used(flow, nowNs);
    let errors = 0;
    let from = pending.head;
    while (from < pending.tail) {
      const sent = hostIo.sendDatagrams(flow.handle, pending.items, from, pending.tail);
      if (sent > 0) {
        from += sent;
        stats.udpDatagramsOut += sent;
      } else if (sent === -ERRNO.EAGAIN || sent === -ERRNO.ENOBUFS || sent === 0) {
        stats.udpDropHostFull += pending.tail - from;
        break;
      } else if (sent === -ERRNO.EMSGSIZE) {
        stats.udpDropHostError++;
        from++;
      } else {
        // Most often the error of an earlier datagram: the guest is told, and the rest tried once more.
        if (this.#failed(flow, -sent)) break;
        if (++errors > 1) {
          stats.udpDropHostError += pending.tail - from;
          break;
        }
      }
    }
    pool.releaseAll(pending.items, pending.head, pending.tail);
    pending.head = 0;
    pending.tail = 0;
  }

  #ready(flow: UdpFlow, ready: number): void {
    const { hostIo } = this.#site;
    if (flow.handle === 0) return;
    if ((ready & FAILED) !== 0) {
      // Also without an error of the socket: one that a call has told leaves its cause behind.
      this.#failed(flow, hostIo.takeError(flow.handle));
    }
    if ((ready & READABLE) !== 0 && flow.handle !== 0) this.#receive(flow);
  }

  #receive(flow: UdpFlow): void {
    const site = this.#site;
    const { hostIo, pool, stats, outbox } = site;
    const frames = this.#frames;
    const room = outbox.room();
    if (room <= 0) {
      this.#park(flow);
      return;
    }
    // A datagram's size is not known before it is received, and what does not fit its slot is lost. So large slots as long as there are
    // plenty; a datagram leaves again at once, or waits in the outbox while small slots take their place.
    // A run needs one in any case.
    const plenty = pool.freeLarge >= LARGE_KEPT;
    const large = plenty || flow.gro;
    const wanted = Math.min(plenty ? BATCH_LARGE : flow.gro ? 1 : BATCH, room);
    let count = 0;
    while (count < wanted) {
      const frame = large ? pool.allocLarge() : pool.alloc(pool.smallBytes);
      if (frame === 0) break;
      frames[count++] = frame;
    }
    if (count === 0) {
      this.#park(flow);
      return;
    }
    const got = hostIo.receiveDatagrams(flow.handle, frames, 0, count, PACKET_ROOM);
    const filled = Math.max(0, got);
    const t = pool.table;
    const guestPort = flow.ports & 0xffff;
    const farPort = flow.ports >>> 16;
    for (let i = 0; i < filled; i++) {
      const frame = frames[i];
      const length = t[frame + LENGTH];
      flow.toGuestBytes += length;
      const each = flow.gro ? t[frame + GSO_SIZE] : 0;
      if (each > 0 && length > each) {
        stats.udpRunsIn++;
        sendUdpRun(site, frame, length, each, flow.link, flow.linkSum, flow.pseudoSum, farPort, guestPort);
        continue;
      }
      stats.udpDatagramsIn++;
      if (flow.dns) this.#noteAnswer(flow, t[frame + SLOT] + PACKET_ROOM, length, site.loop.clock.nowNs());
      sendUdp(
        site,
        frame,
        t[frame + SLOT] + PACKET_ROOM,
        length,
        flow.link,
        flow.linkSum,
        flow.pseudoSum,
        farPort,
        guestPort,
      );
    }
    pool.releaseAll(frames, filled, count);
    if (filled > 0) this.#used(flow, site.loop.clock.nowNs());
    if (got < 0 && got !== -ERRNO.EAGAIN && got !== -ERRNO.EINTR) this.#failed(flow, -got);
  }

  /** Nothing can be received now: the datagrams wait in the socket, which drops what is too many. */
  #park(flow: UdpFlow): void {
    this.#site.hostIo.setInterest(flow.handle, 0);
    this.#parked.push(flow);
    if (!this.#parkTimer.armed) this.#parkTimer.armIn(PARK_NS);
  }

  /** The guest's side may have room again. */
  resume(): void {
    const parked = this.#parked;
    if (parked.length === 0) return;
    this.#parked = [];
    this.#parkTimer.cancel();
    for (const flow of parked) if (flow.handle !== 0) this.#site.hostIo.setInterest(flow.handle, READABLE);
  }

  /** The far end, or the way there, said no. True: the flow's socket is another now, or gone, and took care of what waits. */
  #failed(flow: UdpFlow, errno: number): boolean {
    if (flow.dns && errno !== 0 && this.#askNext(flow)) return true;
    const { link, ports } = flow;
    const told = this.#errors.tell(flow.handle, link, () =>
      flowTransport(link, ports & 0xffff, ports >>> 16, 0),
    );
    const what = told > 0 ? null : unreachableFor(errno);
    if (what !== null) sendFlowUnreachable(this.#site, link, ports & 0xffff, ports >>> 16, 0, what);
    return flow.handle === 0;
  }

  #unreachable(frame: number, version: number, start: number, ip: number, what: Unreachable): void {
    const t = this.#site.pool.table;
    const there = start + t[frame + LENGTH] - ip;
    const [type, code] = version === 4 ? [3, what.v4] : [1, what.v6];
    sendErrorAbout(this.#site, version, ip, there, start + 6, type, code, what.byTarget);
  }

  list(): FlowInfo[] {
    const out: FlowInfo[] = [];
    for (const first of this.#flows.values()) {
      for (let flow: UdpFlow | null = first; flow !== null; flow = flow.next) {
        out.push({
          protocol: 'udp',
          state: '',
          guest: addressText(remoteAddress(flow.link)),
          guestPort: flow.ports & 0xffff,
          remote: addressText(localAddress(flow.link)),
          remotePort: flow.ports >>> 16,
          fromGuestBytes: flow.fromGuestBytes,
          toGuestBytes: flow.toGuestBytes,
          kind: flow.dns ? 'dns' : 'nat',
        });
      }
    }
    return out;
  }

  close(): void {
    this.#timer.cancel();
    this.#parkTimer.cancel();
    this.#answerTimer.cancel();
    for (const first of [...this.#flows.values()]) {
      for (let flow: UdpFlow | null = first; flow !== null; ) {
        const next: UdpFlow | null = flow.next;
        this.#remove(flow);
        flow = next;
      }
    }
    this.#touched = [];
  }
}

/** Whether the datagram's checksum is right, absent (IPv4 only), or answered for by the frame's facts. */
export function udpChecksumOk(
  site: Site,
  frame: number,
  version: number,
  start: number,
  ip: number,
  udp: UdpHeader,
): boolean {
  const { pool } = site;
  if ((pool.table[frame + FACTS] & (FACT_NEEDS_CSUM | FACT_CSUM_VALID)) !== 0) return true;
  if (udp.checksum === 0) return version === 4;
  const length = udp.payloadEnd - udp.payload + UDP_HEADER_BYTES;
  const sum = pseudoSumAt(pool.bytes, ip, IP_PROTOCOL_UDP, length);
  return foldSum(sumFrame(pool, frame, udp.offset - start, length, sum)) === 0xffff;
}

/**
 * ICMP echo of both families. The gateway and the name server answer themselves. Elsewhere a real ping is sent where the host lets us
 * (net.ipv4.ping_group_range, or a privilege): an ICMP socket for each (guest, far end, identifier), closed after silence. On the host's side it
 * has an identifier of its own, which is changed back on the reply. Where it does not, a ping outside stays unanswered, counted. What routers say
 * about a ping comes back too, and hop limits go out (network-errors.ts).
 *
 * The guest's own errors: guest-errors.ts.
 */

import { HostIoError, UnsupportedError } from '../../core/errors.ts';
import type { Timer } from '../../core/loop.ts';
import { LENGTH, SLOT } from '../../core/pool.ts';
import { ADDRESS_BYTES, FAILED, type Handle, READABLE } from '../../host-io/host-io.ts';
import {
  isV4,
  linkHeaderReply,
  linkHeaderSum,
  linkPseudoSum,
  localAddress,
  remoteAddress,
} from '../../tcp/link-header.ts';
import { equalBytes, putU16be, toHex, u16be } from '../../wire/bytes.ts';
import { finishChecksum, foldSum, pseudoSumAt } from '../../wire/checksum.ts';
import { sumFrame } from '../../wire/frame-sum.ts';
import { ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMP_HEADER_BYTES } from '../../wire/icmp.ts';
import { ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST } from '../../wire/icmpv6.ts';
import { IP_PROTOCOL_ICMP } from '../../wire/ipv4.ts';
import { IP_PROTOCOL_ICMPV6 } from '../../wire/ipv6.ts';
import type { FlowHolder } from './descriptors.ts';
import type { GuestErrors } from './guest-errors.ts';
import { HOST_UNREACHABLE, PROHIBITED, sendErrorAbout, type Unreachable } from './icmp-error.ts';
import { hopLimitOf, hopsOnward, NetworkErrors } from './network-errors.ts';
import { allocPacket, PACKET_ROOM, payloadPlace, sendIp } from './packet-out.ts';
import { DENIED, NOBODY, RESTRICTED, TO_HOST, TO_LOOPBACK, TO_RESOLVER } from './policy.ts';
import { outbound, type Site } from './site.ts';
import { addressText, type FlowInfo } from './tcp-nat.ts';

const FLOWS_MAX = 256;
const IDLE_NS = 30e9;
const BATCH = 8;

interface PingFlow {
  readonly key: string;
  readonly link: Uint8Array;
  readonly address: string;
  readonly id: number;
  readonly handle: Handle;
  /** The identifier on the host's side: the kernel's own, or for a raw socket one of ours. */
  readonly wireId: number;
  lastNs: number;
  /** How far its requests go; 0: as the host has it. */
  hops: number;
}

export class Icmp implements FlowHolder {
  readonly #site: Site;
  readonly #guestErrors: GuestErrors;
  readonly #errors: NetworkErrors;
  /** In the order of use. */
  readonly #flows = new Map<string, PingFlow>();
  readonly #timer: Timer;
  readonly #one = new Int32Array(1);
  readonly #frames = new Int32Array(BATCH);
  readonly #addresses = new Uint8Array(BATCH * ADDRESS_BYTES);

  constructor(site: Site, guestErrors: GuestErrors) {
    this.#site = site;
    site.descriptors.add(this);
    this.#guestErrors = guestErrors;
    this.#errors = new NetworkErrors(site);
    this.#timer = site.loop.timer(() => this.#expire());
  }

  get flows(): number {
    return this.#flows.size;
  }

  /**
   * An ICMP or ICMPv6 message of `length` bytes at `at` of region 0, behind the IP header at `ip`; the frame starts at `start`. Only echo
   * requests do anything here. Does not take the frame.
   */
  input(frame: number, version: number, start: number, ip: number, at: number, length: number): void {
    const { pool, stats, policy } = this.#site;
    if (length < ICMP_HEADER_BYTES || !this.checksumOk(frame, version, start, ip, at, length)) {
      stats.icmpDropMalformed++;
      return;
    }
    const request = version === 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
    if (pool.bytes[at] !== request || pool.bytes[at + 1] !== 0) {
      const end = Math.min(at + length, start + pool.table[frame + LENGTH]);
      if (!this.#guestErrors.input(version, ip, at, end)) stats.icmpDropUnsupported++;
      return;
    }
    const verdict = policy.decide(pool.bytes, version, ip + (version === 4 ? 16 : 24), 'icmp', 0);
    switch (verdict) {
      case TO_RESOLVER:
      case TO_LOOPBACK:
        this.#answer(frame, version, start, ip, at, length);
        return;
      case TO_HOST:
        this.#relay(frame, version, start, ip, at, length, policy.address);
        return;
      case NOBODY:
        this.#unreachable(frame, version, start, ip, HOST_UNREACHABLE);
        return;
      case RESTRICTED:
      case DENIED:
        // The gateway itself always answers, whatever may pass it.
        if (this.#isGateway(version, ip)) this.#answer(frame, version, start, ip, at, length);
        else {
          if (verdict === DENIED) stats.txDropDenied++;
          else stats.txDropRestricted++;
          this.#unreachable(frame, version, start, ip, PROHIBITED);
        }
        return;
      default:
        stats.txDropBadDestination++;
    }
  }

  /** Whether the message's checksum is right; ICMPv6 counts the addresses in. */
  checksumOk(frame: number, version: number, start: number, ip: number, at: number, length: number): boolean {
    const { pool } = this.#site;
    const pseudo = version === 4 ? 0 : pseudoSumAt(pool.bytes, ip, IP_PROTOCOL_ICMPV6, length);
    return foldSum(sumFrame(pool, frame, at - start, length, pseudo)) === 0xffff;
  }

  #isGateway(version: number, ip: number): boolean {
    const { config, pool } = this.#site;
    if (version === 4) {
      const host = config.ipv4!.host.value;
      return u16be(pool.bytes, ip + 16) === host >>> 16 && u16be(pool.bytes, ip + 18) === (host & 0xffff);
    }
    const host = config.ipv6!.host.bytes;
    for (let i = 0; i < 16; i++) if (pool.bytes[ip + 24 + i] !== host[i]) return false;
    return true;
  }

  #unreachable(frame: number, version: number, start: number, ip: number, what: Unreachable): void {
    const there = start + this.#site.pool.table[frame + LENGTH] - ip;
    const [type, code] = version === 4 ? [3, what.v4] : [1, what.v6];
    sendErrorAbout(this.#site, version, ip, there, start + 6, type, code, what.byTarget);
  }

  #answer(frame: number, version: number, start: number, ip: number, at: number, length: number): void {
    const site = this.#site;
    if (site.outbox.room() <= 0) {
      site.stats.rxDropQueueFull++;
      return;
    }
    const reply = allocPacket(site, length);
    if (reply === 0) return;
    const place = payloadPlace(site, reply);
    site.pool.read(frame, at - start, site.pool.bytes, place, length);
    site.stats.icmpEchoes++;
    const protocol = version === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6;
    const link = linkHeaderReply(site.pool.bytes, version, ip, start + 6, site.mac, protocol);
    this.#sendEcho(reply, place, length, link);
  }

  /** An echo whose data and identifier are in place goes to the guest as a reply. Takes the frame. */
  #sendEcho(frame: number, place: number, length: number, link: Uint8Array): void {
    const { pool, sums } = this.#site;
    const v4 = isV4(link);
    pool.bytes[place] = v4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
    pool.bytes[place + 1] = 0;
    putU16be(pool.bytes, place + 2, 0);
    const sum = sums.sum(place, length, v4 ? 0 : linkPseudoSum(link) + length);
    putU16be(pool.bytes, place + 2, finishChecksum(sum));
    sendIp(this.#site, frame, place, length, link, linkHeaderSum(link));
  }

  #relay(
    frame: number,
    version: number,
    start: number,
    ip: number,
    at: number,
    length: number,
    address: string,
  ): void {
    const { pool, stats, hostIo } = this.#site;
    const flow = this.#flowFor(version, start, ip, at, address);
    if (flow === null) {
      stats.pingDropNoSocket++;
      return;
    }
    const copy = pool.alloc(length);
    if (copy === 0) {
      stats.txDropNoSlot++;
      return;
    }
    pool.read(frame, at - start, pool.bytes, pool.table[copy + SLOT], length);
    pool.setLength(copy, length);
    this.#renumber(pool.table[copy + SLOT], flow.wireId);
    const hops = hopsOnward(hopLimitOf(pool.bytes, version, ip));
    if (hops !== flow.hops) hostIo.setHopLimit?.(flow.handle, hops);
    flow.hops = hops;
    this.#one[0] = copy;
    const sent = hostIo.sendDatagrams(flow.handle, this.#one, 0, 1, { address, port: 0 });
    // Most often the error of an earlier one.
    if (sent < 0 && this.#failed(flow))
      hostIo.sendDatagrams(flow.handle, this.#one, 0, 1, { address, port: 0 });
    pool.release(copy);
    flow.lastNs = this.#site.loop.clock.nowNs();
  }

  /** Gives the echo at `place` of region 0 another identifier, and the checksum that goes with it (RFC 1624; the kernel sums ICMPv6 itself). */
  #renumber(place: number, id: number): void {
    const { bytes } = this.#site.pool;
    const sum = (~u16be(bytes, place + 2) & 0xffff) + (~u16be(bytes, place + 4) & 0xffff) + id;
    putU16be(bytes, place + 2, ~foldSum(sum) & 0xffff);
    putU16be(bytes, place + 4, id);
  }

  #flowFor(version: number, start: number, ip: number, at: number, address: string): PingFlow | null {
    const { pool, stats, hostIo, mac, loop, random, descriptors } = this.#site;
    const bytes = pool.bytes;
    const id = u16be(bytes, at + 4);
    const src = version === 4 ? toHex(bytes, ip + 12, 4) : toHex(bytes, ip + 8, 16);
    const key = `${src} ${address} ${id}`;
    const known = this.#flows.get(key);
    if (known !== undefined) {
      this.#flows.delete(key);
      this.#flows.set(key, known);
      return known;
    }
    if (this.#flows.size >= FLOWS_MAX) this.evict();
    let handle: Handle;
    try {
      const { local, bindInterface } = outbound(this.#site, version);
      const options = {
        ...(local === undefined ? {} : { local: local.address }),
        ...(bindInterface === undefined ? {} : { bindInterface }),
      };
      handle = descriptors.open(() => hostIo.pingOpen(version === 4 ? 4 : 6, options));
    } catch (error) {
      if (error instanceof HostIoError || error instanceof UnsupportedError) return null;
      throw error;
    }
    const protocol = version === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6;
    const link = linkHeaderReply(bytes, version, ip, start + 6, mac, protocol);
    const wireId = hostIo.localEndpoint(handle).port || random() & 0xffff || 1;
    const flow: PingFlow = { key, link, address, id, handle, wireId, lastNs: loop.clock.nowNs(), hops: 0 };
    hostIo.watch(handle, READABLE, (ready) => {
      if ((ready & FAILED) !== 0) {
        hostIo.takeError(handle);
        this.#failed(flow);
      }
      if ((ready & READABLE) !== 0) this.#receive(flow);
    });
    this.#flows.set(key, flow);
    stats.pingFlows++;
    if (!this.#timer.armed) this.#timer.armIn(IDLE_NS);
    return flow;
  }

  /** Tells the guest what the network says about its requests; true: it said something. A raw socket hears of everybody's. */
  #failed(flow: PingFlow): boolean {
    const request = isV4(flow.link) ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
    const far = localAddress(flow.link);
    const told = this.#errors.tell(flow.handle, flow.link, (quote, about) => {
      if (quote.length < ICMP_HEADER_BYTES || quote[0] !== request) return null;
      if (u16be(quote, 4) !== flow.wireId || !equalBytes(about, 0, far, 0, far.length)) return null;
      const transport = quote.slice(0, ICMP_HEADER_BYTES);
      putU16be(transport, 4, flow.id);
      return transport;
    });
    return told > 0;
  }

  #receive(flow: PingFlow): void {
    const { pool, hostIo, outbox, stats } = this.#site;
    const frames = this.#frames;
    const v4 = isV4(flow.link);
    const reply = v4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
    const large = hostIo.pendingBytes(flow.handle) > pool.smallBytes - PACKET_ROOM;
    let count = 0;
    while (count < (large ? 1 : BATCH)) {
      const frame = large ? pool.allocLarge() : pool.alloc(pool.smallBytes);
      if (frame === 0) break;
      frames[count++] = frame;
    }
    const from = this.#addresses;
    const received =
      count === 0 ? 0 : hostIo.receiveDatagrams(flow.handle, frames, 0, count, PACKET_ROOM, from);
    const got = Math.max(0, received);
    const far = localAddress(flow.link);
    for (let i = 0; i < got; i++) {
      const frame = frames[i];
      const place = pool.table[frame + SLOT] + PACKET_ROOM;
      const length = pool.table[frame + LENGTH];
      // A raw socket hears the replies to everybody on this host.
      const ours =
        length >= ICMP_HEADER_BYTES &&
        pool.bytes[place] === reply &&
        u16be(pool.bytes, place + 4) === flow.wireId &&
        equalBytes(from, i * ADDRESS_BYTES, far, 0, far.length);
      if (!ours || outbox.room() <= 0) {
        if (ours) stats.rxDropQueueFull++;
        else stats.pingDropNotOurs++;
        pool.release(frame);
        continue;
      }
      putU16be(pool.bytes, place + 4, flow.id);
      stats.icmpEchoes++;
      this.#sendEcho(frame, place, length, flow.link);
    }
    pool.releaseAll(frames, got, count);
    flow.lastNs = this.#site.loop.clock.nowNs();
  }

  #expire(): void {
    const nowNs = this.#site.loop.clock.nowNs();
    for (const flow of [...this.#flows.values()]) {
      if (flow.lastNs + IDLE_NS > nowNs) continue;
      this.#flows.delete(flow.key);
      this.#site.hostIo.close(flow.handle);
    }
    if (this.#flows.size > 0) this.#timer.armIn(IDLE_NS);
  }

  #oldest(): PingFlow | undefined {
    return this.#flows.values().next().value;
  }

  idleSinceNs(): number {
    return this.#oldest()?.lastNs ?? Number.POSITIVE_INFINITY;
  }

  evict(): void {
    const oldest = this.#oldest();
    if (oldest === undefined) return;
    this.#site.stats.pingFlowsEvicted++;
    this.#flows.delete(oldest.key);
    this.#site.hostIo.close(oldest.handle);
  }

  list(): FlowInfo[] {
    return [...this.#flows.values()].map((flow) => ({
      protocol: 'icmp' as const,
      state: '',
      guest: addressText(remoteAddress(flow.link)),
      guestPort: flow.id,
      remote: addressText(localAddress(flow.link)),
      remotePort: 0,
      fromGuestBytes: 0,
      toGuestBytes: 0,
      kind: 'ping',
    }));
  }

  close(): void {
    this.#timer.cancel();
    for (const flow of this.#flows.values()) this.#site.hostIo.close(flow.handle);
    this.#flows.clear();
  }
}

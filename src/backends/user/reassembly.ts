/**
 * Puts fragments of IPv4 (RFC 791) and IPv6 (RFC 8200 section 4.5) packets together. Each packet under way has one large slot, into which every
 * fragment is copied to its place; ranges keep track of what is there. Bounds: PACKETS_MAX packets, 64 KiB and PIECES_MAX pieces each,
 * TIMEOUT_NS; the oldest goes when there are too many. Overlap ends a packet (RFC 5722; here for IPv4 too, where nothing honest overlaps
 * either): only an exact repetition is let pass.
 */

import type { Timer } from '../../core/loop.ts';
import { OFFSET, SLOT } from '../../core/pool.ts';
import { copyBytes, putU16be, toHex } from '../../wire/bytes.ts';
import { ETH_HEADER_BYTES } from '../../wire/ethernet.ts';
import { IPV4_HEADER_BYTES, type Ipv4Header, setIpv4Checksum } from '../../wire/ipv4.ts';
import { IPV6_HEADER_BYTES, type Ipv6Header } from '../../wire/ipv6.ts';
import type { Site } from './site.ts';

const PACKETS_MAX = 16;
const PIECES_MAX = 128;
const TIMEOUT_NS = 15e9;
const PAYLOAD_MAX = 0xffff - IPV4_HEADER_BYTES;
/** Where the payload starts in the slot: behind Ethernet and an IP header of either family, without options. */
const HEADERS_MAX = 64;

interface Packet {
  readonly key: string;
  readonly frame: number;
  readonly deadlineNs: number;
  /** Pairs [from, to) in order. */
  readonly pieces: number[];
  /** Bytes of payload in all; -1 until the last fragment came. */
  total: number;
  received: number;
  protocol: number;
  headerSeen: boolean;
}

export class Reassembly {
  readonly #site: Site;
  readonly #packets = new Map<string, Packet>();
  readonly #timer: Timer;

  constructor(site: Site) {
    this.#site = site;
    this.#timer = site.loop.timer(() => this.#expire());
  }

  get waiting(): number {
    return this.#packets.size;
  }

  /** A fragment; does not take the frame. Returns the whole packet as a new frame when it is complete, else 0. */
  inputV4(frame: number, start: number, ip: Ipv4Header): number {
    const bytes = this.#site.pool.bytes;
    const key = `4${toHex(bytes, ip.offset + 12, 8)}${ip.id}/${ip.protocol}`;
    const length = ip.payloadEnd - ip.payload;
    const packet = this.#add(
      key,
      frame,
      ip.payload - start,
      ip.fragmentOffset,
      length,
      ip.moreFragments,
      ip.protocol,
    );
    if (packet === null) return 0;
    if (ip.fragmentOffset === 0) this.#keepHeader(packet, start, ip.offset, IPV4_HEADER_BYTES);
    return this.#finish(packet, 4);
  }

  inputV6(frame: number, start: number, ip: Ipv6Header): number {
    const bytes = this.#site.pool.bytes;
    const key = `6${toHex(bytes, ip.offset + 8, 32)}${ip.fragmentId}`;
    const length = ip.payloadEnd - ip.fragmentHeader - 8;
    const at = ip.fragmentHeader + 8 - start;
    const packet = this.#add(
      key,
      frame,
      at,
      ip.fragmentOffset,
      length,
      ip.moreFragments,
      bytes[ip.fragmentHeader],
    );
    if (packet === null) return 0;
    if (ip.fragmentOffset === 0) this.#keepHeader(packet, start, ip.offset, IPV6_HEADER_BYTES);
    return this.#finish(packet, 6);
  }

  #add(
    key: string,
    frame: number,
    at: number,
    offset: number,
    length: number,
    more: boolean,
    protocol: number,
  ): Packet | null {
    const { pool, stats, loop } = this.#site;
    stats.fragmentsReceived++;
    let packet = this.#packets.get(key);
    if (offset + length > PAYLOAD_MAX || length === 0) {
      stats.fragmentDropMalformed++;
      if (packet !== undefined) this.#drop(packet);
      return null;
    }
    if (packet === undefined) {
      if (this.#packets.size >= PACKETS_MAX) {
        stats.fragmentDropLimit++;
        this.#drop(this.#packets.values().next().value!);
      }
      const slot = pool.allocLarge();
      if (slot === 0) {
        stats.txDropNoSlot++;
        return null;
      }
      packet = {
        key,
        frame: slot,
        deadlineNs: loop.clock.nowNs() + TIMEOUT_NS,
        pieces: [],
        total: -1,
        received: 0,
        protocol,
        headerSeen: false,
      };
      this.#packets.set(key, packet);
      if (!this.#timer.armed) this.#timer.arm(packet.deadlineNs);
    }
    const end = offset + length;
    const { pieces } = packet;
    let i = 0;
    while (i < pieces.length && pieces[i] < offset) i += 2;
    if (pieces[i] === offset && pieces[i + 1] === end) return null; // a repetition
    const overlaps = (i > 0 && pieces[i - 1] > offset) || (i < pieces.length && pieces[i] < end);
    const contradicts = packet.total >= 0 && (end > packet.total || (!more && end !== packet.total));
    const tooShort = !more && pieces.length > 0 && pieces[pieces.length - 1] > end;
    if (overlaps || contradicts || tooShort || pieces.length >= 2 * PIECES_MAX) {
      if (pieces.length >= 2 * PIECES_MAX) stats.fragmentDropLimit++;
      else stats.fragmentDropOverlap++;
      this.#drop(packet);
      return null;
    }
    pieces.splice(i, 0, offset, end);
    if (!more) packet.total = end;
    packet.received += length;
    if (offset === 0) packet.protocol = protocol;
    pool.read(frame, at, pool.bytes, pool.table[packet.frame + SLOT] + HEADERS_MAX + offset, length);
    return packet;
  }

  /** Ethernet and IP header of the first fragment, right in front of the payload; options and extension headers are left out. */
  #keepHeader(packet: Packet, start: number, ip: number, ipBytes: number): void {
    const { pool } = this.#site;
    const to = pool.table[packet.frame + SLOT] + HEADERS_MAX - ipBytes;
    copyBytes(pool.bytes, to - ETH_HEADER_BYTES, pool.bytes, start, ETH_HEADER_BYTES);
    copyBytes(pool.bytes, to, pool.bytes, ip, ipBytes);
    packet.headerSeen = true;
  }

  #finish(packet: Packet, version: number): number {
    if (packet.total < 0 || packet.received !== packet.total || !packet.headerSeen) return 0;
    const { pool, stats } = this.#site;
    const ipBytes = version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const ip = pool.table[packet.frame + SLOT] + HEADERS_MAX - ipBytes;
    if (version === 4) {
      pool.bytes[ip] = 0x45;
      putU16be(pool.bytes, ip + 2, packet.total + ipBytes);
      putU16be(pool.bytes, ip + 6, 0);
      setIpv4Checksum(pool.bytes, ip, ipBytes);
    } else {
      putU16be(pool.bytes, ip + 4, packet.total);
      pool.bytes[ip + 6] = packet.protocol;
    }
    pool.table[packet.frame + OFFSET] = ip - ETH_HEADER_BYTES;
    pool.setLength(packet.frame, ETH_HEADER_BYTES + ipBytes + packet.total);
    this.#packets.delete(packet.key);
    stats.fragmentDatagrams++;
    return packet.frame;
  }

  #drop(packet: Packet): void {
    this.#packets.delete(packet.key);
    this.#site.pool.release(packet.frame);
  }

  #expire(): void {
    const nowNs = this.#site.loop.clock.nowNs();
    for (const packet of this.#packets.values()) {
      if (packet.deadlineNs > nowNs) {
        this.#timer.arm(packet.deadlineNs);
        return;
      }
      this.#site.stats.fragmentDropTimeout++;
      this.#drop(packet);
    }
  }

  close(): void {
    this.#timer.cancel();
    for (const packet of [...this.#packets.values()]) this.#drop(packet);
  }
}

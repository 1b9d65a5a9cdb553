/**
 * Ready payloads become packets to the guest: an IP and Ethernet header in front, in the same slot, in fragments when the link is
 * too narrow (only datagrams and echoes: TCP never is).
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_UDP_L4,
  HEADER_LENGTH,
  OFFSET,
  SLOT,
} from '../../core/pool.ts';
import { ACCEPT_CSUM } from '../../core/port.ts';
import { isV4, linkHeaderSum, linkPseudoSum, putLinkHeader } from '../../tcp/link-header.ts';
import { putU16be } from '../../wire/bytes.ts';
import { finishChecksum, foldSum } from '../../wire/checksum.ts';
import { ETH_HEADER_BYTES } from '../../wire/ethernet.ts';
import { IPV4_HEADER_BYTES, IPV4_MF, setIpv4Checksum } from '../../wire/ipv4.ts';
import {
  IPV6_FRAGMENT_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  NEXT_FRAGMENT,
  writeIpv6Fragment,
} from '../../wire/ipv6.ts';
import { UDP_CHECKSUM, UDP_HEADER_BYTES, writeUdp } from '../../wire/udp.ts';
import type { Site } from './site.ts';

/** Bytes kept free in front of a payload that `sendUdp` and `sendIp` get: Ethernet, IPv6 with a fragment header, UDP; a multiple of 64. */
export const PACKET_ROOM = 128;

/** A slot for `bytes` of payload behind PACKET_ROOM, or 0. `place` of the payload: `payloadPlace`. */
export function allocPacket(site: Site, bytes: number): number {
  const frame = site.pool.alloc(PACKET_ROOM + bytes);
  if (frame === 0) site.stats.rxDropNoSlot++;
  return frame;
}

export function payloadPlace(site: Site, frame: number): number {
  return site.pool.table[frame + OFFSET] + PACKET_ROOM;
}

/**
 * Sends one UDP datagram whose `bytes` of payload lie at `place` of region 0, in the slot of `frame`, with PACKET_ROOM before it. `link` is an
 * Ethernet and IP template for UDP (tcp/link-header.ts). Takes the frame.
 */
export function sendUdp(
  site: Site,
  frame: number,
  place: number,
  bytes: number,
  link: Uint8Array,
  linkSum: number,
  pseudoSum: number,
  srcPort: number,
  dstPort: number,
): void {
  const t = site.pool.table;
  const memory = site.pool.bytes;
  const udp = place - UDP_HEADER_BYTES;
  const length = bytes + UDP_HEADER_BYTES;
  writeUdp(memory, udp, srcPort, dstPort, length);
  const ipBytes = isV4(link) ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const sum = pseudoSum + length;
  t[frame + FACTS] = 0;
  if ((site.accepts() & ACCEPT_CSUM) !== 0 && length + ipBytes <= site.config.ipMtuBytes) {
    putU16be(memory, udp + UDP_CHECKSUM, foldSum(sum));
    t[frame + FACTS] = FACT_NEEDS_CSUM;
    t[frame + GSO_SIZE] = 0;
    t[frame + HEADER_LENGTH] = link.length + UDP_HEADER_BYTES;
    t[frame + CSUM_START] = link.length;
    t[frame + CSUM_OFFSET] = UDP_CHECKSUM;
  } else {
    const checksum = finishChecksum(site.sums.sum(udp, length, sum));
    putU16be(memory, udp + UDP_CHECKSUM, checksum === 0 ? 0xffff : checksum);
  }
  sendIp(site, frame, udp, length, link, linkSum);
}

/**
 * Sends a run of datagrams to the same place, `each` bytes of payload in all but the last, as one frame (USO) whose `bytes` of payload lie at
 * PACKET_ROOM of its slot. Datagrams that the link must fragment go one by one. Takes the frame.
 */
export function sendUdpRun(
  site: Site,
  frame: number,
  bytes: number,
  each: number,
  link: Uint8Array,
  linkSum: number,
  pseudoSum: number,
  srcPort: number,
  dstPort: number,
): void {
  const { pool } = site;
  const t = pool.table;
  const place = t[frame + SLOT] + PACKET_ROOM;
  const ipBytes = isV4(link) ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const length = bytes + UDP_HEADER_BYTES;
  if (each + UDP_HEADER_BYTES + ipBytes > site.config.ipMtuBytes || length + ipBytes > 0xffff) {
    for (let from = 0; from < bytes; from += each) {
      const part = Math.min(each, bytes - from);
      const one = allocPacket(site, part);
      if (one === 0) break;
      const to = payloadPlace(site, one);
      pool.bytes.copyWithin(to, place + from, place + from + part);
      sendUdp(site, one, to, part, link, linkSum, pseudoSum, srcPort, dstPort);
    }
    pool.release(frame);
    return;
  }
  const udp = place - UDP_HEADER_BYTES;
  writeUdp(pool.bytes, udp, srcPort, dstPort, length);
  putU16be(pool.bytes, udp + UDP_CHECKSUM, foldSum(pseudoSum + length));
  t[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_UDP_L4 << 8);
  t[frame + GSO_SIZE] = each;
  t[frame + HEADER_LENGTH] = link.length + UDP_HEADER_BYTES;
  t[frame + CSUM_START] = link.length;
  t[frame + CSUM_OFFSET] = UDP_CHECKSUM;
  const start = udp - link.length;
  putLinkHeader(pool.bytes, start, link, linkSum, site.random() & 0xffff, length);
  t[frame + OFFSET] = start;
  pool.setLength(frame, link.length + length);
  site.outbox.push(frame);
}

/** `sendUdp` for who sends seldom and keeps no sums. */
export function sendUdpOnce(
  site: Site,
  frame: number,
  bytes: number,
  link: Uint8Array,
  srcPort: number,
  dstPort: number,
): void {
  const place = payloadPlace(site, frame);
  sendUdp(site, frame, place, bytes, link, linkHeaderSum(link), linkPseudoSum(link), srcPort, dstPort);
}

/** Sends `bytes` at `place` behind the template's IP header, in fragments if need be. Facts are set by the caller. Takes the frame. */
export function sendIp(
  site: Site,
  frame: number,
  place: number,
  bytes: number,
  link: Uint8Array,
  linkSum: number,
): void {
  const { pool } = site;
  const ipBytes = isV4(link) ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  if (bytes + ipBytes > site.config.ipMtuBytes) {
    if (bytes > 0xffff - IPV4_HEADER_BYTES) site.stats.rxDropTooLong++;
    else if (isV4(link)) fragmentV4(site, place, bytes, link, linkSum);
    else fragmentV6(site, place, bytes, link);
    pool.release(frame);
    return;
  }
  const start = place - link.length;
  putLinkHeader(pool.bytes, start, link, linkSum, site.random() & 0xffff, bytes);
  pool.table[frame + OFFSET] = start;
  pool.setLength(frame, link.length + bytes);
  site.outbox.push(frame);
}

function fragmentV4(site: Site, place: number, bytes: number, link: Uint8Array, linkSum: number): void {
  const { pool } = site;
  const id = site.random() & 0xffff;
  const step = (site.config.ipMtuBytes - IPV4_HEADER_BYTES) & ~7;
  for (let at = 0; at < bytes; at += step) {
    const part = Math.min(step, bytes - at);
    const frame = pool.alloc(PACKET_ROOM + part);
    if (frame === 0) {
      site.stats.rxDropNoSlot++;
      return;
    }
    const start = pool.table[frame + OFFSET];
    putLinkHeader(pool.bytes, start, link, linkSum, id, part);
    // The template's DF bit gives way to offset and MF.
    putU16be(pool.bytes, start + ETH_HEADER_BYTES + 6, (at >> 3) | (at + part < bytes ? IPV4_MF : 0));
    setIpv4Checksum(pool.bytes, start + ETH_HEADER_BYTES, IPV4_HEADER_BYTES);
    pool.bytes.copyWithin(start + link.length, place + at, place + at + part);
    pool.setLength(frame, link.length + part);
    site.outbox.push(frame);
  }
}

function fragmentV6(site: Site, place: number, bytes: number, link: Uint8Array): void {
  const { pool } = site;
  const id = site.random();
  const step = (site.config.ipMtuBytes - IPV6_HEADER_BYTES - IPV6_FRAGMENT_HEADER_BYTES) & ~7;
  const protocol = link[ETH_HEADER_BYTES + 6];
  for (let at = 0; at < bytes; at += step) {
    const part = Math.min(step, bytes - at);
    const frame = pool.alloc(PACKET_ROOM + part);
    if (frame === 0) {
      site.stats.rxDropNoSlot++;
      return;
    }
    const start = pool.table[frame + OFFSET];
    putLinkHeader(pool.bytes, start, link, 0, 0, part + IPV6_FRAGMENT_HEADER_BYTES);
    pool.bytes[start + ETH_HEADER_BYTES + 6] = NEXT_FRAGMENT;
    const header = start + link.length;
    writeIpv6Fragment(pool.bytes, header, protocol, at, at + part < bytes, id);
    pool.bytes.copyWithin(header + IPV6_FRAGMENT_HEADER_BYTES, place + at, place + at + part);
    pool.setLength(frame, link.length + IPV6_FRAGMENT_HEADER_BYTES + part);
    site.outbox.push(frame);
  }
}

/**
 * Writes the headers of one segment right in front of its payload and makes the frame cover both. A peer that completes checksums gets the
 * pseudo-header's sum and the facts; one that segments gets up to 64 KiB as one frame; any other gets a finished segment.
 */

import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_TCPV6,
  HEADER_LENGTH,
  OFFSET,
} from '../core/pool.ts';
import { putU16be } from '../wire/bytes.ts';
import { finishChecksum, foldSum } from '../wire/checksum.ts';
import { TCP_CHECKSUM, TCP_HEADER_BYTES, writeTcp, writeTcpOptions } from '../wire/tcp.ts';
import { isV4, putLinkHeader } from './link-header.ts';
import type { TcpStack } from './stack.ts';

/**
 * `frame` is one slot with `payloadBytes` at `place` of region 0 and room for headers before. Options come from `stack.options`.
 * `gsoBytes` is the payload of one wire segment when the payload is longer than that, else 0. Returns the frame.
 */
export function writeSegment(
  stack: TcpStack,
  frame: number,
  place: number,
  payloadBytes: number,
  link: Uint8Array,
  linkSum: number,
  pseudoSum: number,
  id: number,
  localPort: number,
  remotePort: number,
  seq: number,
  ack: number,
  flags: number,
  window: number,
  gsoBytes: number,
): number {
  const { pool } = stack;
  const bytes = pool.bytes;
  const t = pool.table;
  // The header ends where the payload starts, so its length comes first.
  const optionBytes = optionsLength(stack);
  const headerBytes = TCP_HEADER_BYTES + optionBytes;
  const tcp = place - headerBytes;
  const segmentBytes = headerBytes + payloadBytes;
  writeTcp(bytes, tcp, localPort, remotePort, seq, ack, headerBytes, flags, window);
  if (optionBytes > 0) writeTcpOptions(bytes, tcp + TCP_HEADER_BYTES, stack.options);
  const start = tcp - link.length;
  putLinkHeader(bytes, start, link, linkSum, id, segmentBytes);
  t[frame + OFFSET] = start;
  pool.setLength(frame, link.length + segmentBytes);
  // The length may pass 16 bits by folding only: it is below 2^17.
  const sum = pseudoSum + segmentBytes;
  if (stack.acceptsChecksum) {
    putU16be(bytes, tcp + TCP_CHECKSUM, foldSum(sum));
    t[frame + FACTS] = FACT_NEEDS_CSUM | (gsoBytes === 0 ? 0 : (isV4(link) ? GSO_TCPV4 : GSO_TCPV6) << 8);
    t[frame + GSO_SIZE] = gsoBytes;
    t[frame + HEADER_LENGTH] = link.length + headerBytes;
    t[frame + CSUM_START] = link.length;
    t[frame + CSUM_OFFSET] = TCP_CHECKSUM;
  } else {
    putU16be(bytes, tcp + TCP_CHECKSUM, finishChecksum(stack.sums.sum(tcp, segmentBytes, sum)));
    t[frame + FACTS] = 0;
  }
  return frame;
}

/** What writeTcpOptions will write, in bytes. */
export function optionsLength(stack: TcpStack): number {
  const o = stack.options;
  let length = 0;
  if (o.mss !== 0) length += 4;
  if (o.windowScale >= 0) length += 4;
  if (o.sackPermitted) length += 4;
  if (o.hasTimestamps) length += 12;
  if (o.sackCount > 0) length += 4 + 8 * Math.min(o.sackCount, (40 - length - 4) >> 3);
  return length;
}

/**
 * Announcements: a NIC says who it is, so that switches learn where it is now (after a link came up, a move, a new uplink). A RARP request
 * (RFC 903) for its own address goes out of each NIC's first port, broadcast, some rounds with growing waits between them.
 */

import type { Timer } from '../core/loop.ts';
import type { Nic } from '../nic/nic.ts';
import { putU16be } from '../wire/bytes.ts';
import type { Network } from './network.ts';

export interface AnnounceOptions {
  /** Wait before the second round. */
  readonly initialMs: number;
  readonly maxMs: number;
  readonly rounds: number;
  /** By how much each wait is longer than the one before, up to maxMs. */
  readonly stepMs: number;
  /** Ids of NICs; undefined: all. */
  readonly interfaces?: readonly string[] | undefined;
  /** A new series of the same name takes the place of the old one. */
  readonly id?: string | undefined;
}

const FRAME_BYTES = 60;
const ETHERTYPE_RARP = 0x8035;
const RARP_REQUEST = 3;

/** Counters and running series of one network. */
export class Announcements {
  sentFrames = 0;
  /** Frames that found no slot, or that the link did not take. */
  dropNotTaken = 0;
  readonly series = new Map<string, Timer>();
}

/** Starts a series; the first announcement is sent at once. */
export function announce(network: Network, options: AnnounceOptions): void {
  const { series } = network.announcements;
  const id = options.id ?? '';
  series.get(id)?.cancel();
  let left = options.rounds;
  let waitMs = options.initialMs;
  const timer = network.loop.timer(() => round());
  const round = (): void => {
    for (const device of network.devices.values()) {
      if (options.interfaces?.includes(device.id) ?? true) announceNic(network, device.nic);
    }
    if (--left <= 0) {
      series.delete(id);
      return;
    }
    timer.armIn(Math.min(waitMs, options.maxMs) * 1e6);
    waitMs += options.stepMs;
  };
  series.set(id, timer);
  round();
}

function announceNic(network: Network, nic: Nic): void {
  const { pool, announcements } = network;
  const { mac } = nic;
  const bytes = new Uint8Array(FRAME_BYTES);
  bytes.fill(0xff, 0, 6);
  bytes.set(mac, 6);
  putU16be(bytes, 12, ETHERTYPE_RARP);
  putU16be(bytes, 14, 1);
  putU16be(bytes, 16, 0x0800);
  bytes[18] = 6;
  bytes[19] = 4;
  putU16be(bytes, 20, RARP_REQUEST);
  bytes.set(mac, 22);
  bytes.set(mac, 32);
  const port = nic.ports[0]!;
  const frame = port.up ? pool.from(bytes) : 0;
  if (frame === 0) {
    announcements.dropNotTaken++;
  } else if (port.send(Int32Array.of(frame), 0, 1) === 1) {
    announcements.sentFrames++;
  } else {
    pool.release(frame);
    announcements.dropNotTaken++;
  }
}

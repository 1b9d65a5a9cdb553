/**
 * The memory table: guest RAM as regions of files, each at its guest-physical address and at one of the front-end's own, which rings are told by. The front-end's addresses name nothing here but these
 * regions: guest-physical addresses, moved to where a process's memory commonly lies.
 *
 * Neighbours in guest memory that are neighbours in one file are one region, for a back-end takes few. Where there are still too many, the largest ones go, and the rest is counted: a driver that
 * has its rings or packets there is not served.
 */

import type { SharedRange } from '../../pci/device-host.ts';
import { putU64, REGION_BYTES, TABLE_HEADER_BYTES } from '../../virtio/vhost-user.ts';

const FRONT_END_BASE = 2 ** 46;

/** The front-end's address of a guest-physical one. */
export function frontEndAddress(guest: number): number {
  return FRONT_END_BASE + guest;
}

/** At most `max` regions, by address. */
export function regionsOf(ranges: readonly SharedRange[], max: number): SharedRange[] {
  const merged: SharedRange[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    const isNext =
      last !== undefined &&
      last.handle === range.handle &&
      last.address + last.length === range.address &&
      last.offset + last.length === range.offset;
    if (isNext) merged[merged.length - 1] = { ...last, length: last.length + range.length };
    else merged.push(range);
  }
  if (merged.length <= max) return merged;
  const largest = [...merged].sort((a, b) => b.length - a.length).slice(0, max);
  return largest.sort((a, b) => a.address - b.address);
}

export function sameRegion(a: SharedRange, b: SharedRange): boolean {
  return a.handle === b.handle && a.offset === b.offset && a.address === b.address && a.length === b.length;
}

/** SET_MEM_TABLE. */
export function tablePayload(regions: readonly SharedRange[]): Uint8Array {
  const payload = new Uint8Array(TABLE_HEADER_BYTES + REGION_BYTES * regions.length);
  const view = new DataView(payload.buffer);
  view.setUint32(0, regions.length, true);
  for (const [i, region] of regions.entries()) putRegion(view, TABLE_HEADER_BYTES + REGION_BYTES * i, region);
  return payload;
}

/** ADD_MEM_REG and REM_MEM_REG. */
export function regionPayload(region: SharedRange): Uint8Array {
  const payload = new Uint8Array(TABLE_HEADER_BYTES + REGION_BYTES);
  putRegion(new DataView(payload.buffer), TABLE_HEADER_BYTES, region);
  return payload;
}

function putRegion(view: DataView, at: number, { address, length, offset }: SharedRange): void {
  putU64(view, at, address);
  putU64(view, at + 8, length);
  putU64(view, at + 16, frontEndAddress(address));
  putU64(view, at + 24, offset);
}

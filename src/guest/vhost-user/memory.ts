/**
 * The front-end's memory: each region that it passes is a file, mapped once and added to GuestMemory at its guest-physical address, which buffers are told by. Rings are told by the
 * front-end's own addresses; `guestAddress` translates them.
 *
 * A descriptor is closed as soon as its file is mapped (or refused). A new table keeps the regions that it has in common with the old one, so that frames
 * that borrow from them stay whole. A file that is cut short afterwards reads as zeros (the addon handles SIGBUS). Mappings are windows of at most 1 GiB that begin at a multiple of the file's block
 * size, as huge pages need it.
 */

import { fstatSync, type Stats } from 'node:fs';
import { ERRNO, type Handle, type HostIo } from '../../host-io/host-io.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';

export interface RegionPlace {
  readonly guest: number;
  readonly bytes: number;
  /** The front-end's own address of it. */
  readonly user: number;
  /** Where it begins in its file. */
  readonly offset: number;
}

interface Region extends RegionPlace {
  /** Device and inode. */
  readonly file: string;
  readonly windows: readonly Uint8Array[];
}

/** Regions there may be at once, as CONFIGURE_MEM_SLOTS tells. */
export const MAX_REGIONS = 509;
const WINDOW_BYTES = 2 ** 30;
const PAGE_BYTES = 4096;
const ADDRESS_LIMIT = 2 ** 53;

export class MemoryStats {
  /** Regions that were mapped. */
  maps = 0;
  unmaps = 0;
  /** Regions that a new table had in common with the old one. */
  kept = 0;
  refused = 0;
}

export class FrontEndMemory {
  readonly #hostIo: HostIo;
  readonly #memory: GuestMemory;
  readonly #stats: MemoryStats;
  #regions: Region[] = [];

  constructor(hostIo: HostIo, memory: GuestMemory, stats: MemoryStats) {
    this.#hostIo = hostIo;
    this.#memory = memory;
    this.#stats = stats;
  }

  get count(): number {
    return this.#regions.length;
  }

  /** Takes a whole table; `fds` has a descriptor for each region, which stays the caller's. On an errno nothing is mapped any more. */
  setTable(places: readonly RegionPlace[], fds: readonly Handle[]): number {
    for (const [i, a] of places.entries()) {
      if (places.slice(i + 1).some((b) => overlap(a, b))) return ERRNO.EEXIST;
    }
    const old = this.#regions;
    this.#regions = [];
    const wanted = places.map((place, i) => ({ place, fd: fds[i]!, file: this.#fileOf(fds[i]!)?.key ?? '' }));
    for (const { place, file } of wanted) {
      const at = old.findIndex((region) => region.file === file && samePlace(region, place));
      if (at < 0) continue;
      this.#regions.push(...old.splice(at, 1));
      this.#stats.kept++;
    }
    for (const region of old) this.#unmap(region);
    for (const { place, fd, file } of wanted) {
      if (this.#regions.some((region) => region.file === file && samePlace(region, place))) continue;
      const errno = this.add(place, fd);
      if (errno === 0) continue;
      this.clear();
      return errno;
    }
    return 0;
  }

  /** Maps one more region; the descriptor stays the caller's. Returns 0 or an errno, and then nothing is changed. */
  add(place: RegionPlace, fd: Handle): number {
    const errno = this.#add(place, fd);
    if (errno === 0) this.#stats.maps++;
    else this.#stats.refused++;
    return errno;
  }

  #add(place: RegionPlace, fd: Handle): number {
    const { guest, bytes, user, offset } = place;
    if (this.#regions.length >= MAX_REGIONS) return ERRNO.ENOSPC;
    if (bytes <= 0 || guest + bytes > ADDRESS_LIMIT || user + bytes > ADDRESS_LIMIT) return ERRNO.EINVAL;
    if (offset + bytes > ADDRESS_LIMIT || guest % PAGE_BYTES !== 0 || offset % PAGE_BYTES !== 0)
      return ERRNO.EINVAL;
    if (bytes % PAGE_BYTES !== 0 || user % PAGE_BYTES !== 0) return ERRNO.EINVAL;
    if (this.#regions.some((other) => overlap(place, other))) return ERRNO.EEXIST;
    const file = this.#fileOf(fd);
    if (file === null || offset + bytes > file.status.size) return ERRNO.EINVAL;
    const block = blockBytes(file.status);
    const windows: Uint8Array[] = [];
    try {
      for (let done = 0; done < bytes; ) {
        const start = Math.floor((offset + done) / block) * block;
        const skip = offset + done - start;
        const part = Math.min(bytes - done, WINDOW_BYTES - skip);
        const length = Math.min(Math.ceil((skip + part) / block) * block, file.status.size - start);
        const window = this.#hostIo.map(fd, start, length);
        windows.push(window);
        if (!this.#memory.add(guest + done, window.subarray(skip, skip + part))) throw new RangeError();
        done += part;
      }
    } catch {
      // The host has no room, or the pool no region: the front-end is told, and nothing of it stays.
      this.#memory.removeWithin(guest, bytes);
      for (const window of windows) this.#hostIo.unmap(window);
      return ERRNO.ENOSPC;
    }
    this.#regions.push({ guest, bytes, user, offset, file: file.key, windows });
    return 0;
  }

  /** Takes away the region of exactly this place (its offset apart). Returns 0 or an errno. */
  remove(place: RegionPlace): number {
    const at = this.#regions.findIndex(
      ({ guest, bytes, user }) => guest === place.guest && bytes === place.bytes && user === place.user,
    );
    if (at < 0) return ERRNO.ENOENT;
    this.#unmap(this.#regions.splice(at, 1)[0]!);
    return 0;
  }

  clear(): void {
    for (const region of this.#regions.splice(0)) this.#unmap(region);
  }

  #unmap(region: Region): void {
    this.#memory.removeWithin(region.guest, region.bytes);
    for (const window of region.windows) this.#hostIo.unmap(window);
    this.#stats.unmaps++;
  }

  /** The guest-physical address of a front-end's address; -1: it lies in no region. What follows it is checked by whoever reads it. */
  guestAddress(user: number): number {
    for (const region of this.#regions) {
      if (user >= region.user && user < region.user + region.bytes) return region.guest + user - region.user;
    }
    return -1;
  }

  #fileOf(fd: Handle): { key: string; status: Stats } | null {
    try {
      const status = fstatSync(this.#hostIo.fdOf(fd));
      return status.isFile() ? { key: `${status.dev}:${status.ino}`, status } : null;
    } catch {
      return null;
    }
  }
}

function overlap(a: RegionPlace, b: RegionPlace): boolean {
  return (
    (a.guest < b.guest + b.bytes && b.guest < a.guest + a.bytes) ||
    (a.user < b.user + b.bytes && b.user < a.user + a.bytes)
  );
}

function samePlace(a: RegionPlace, b: RegionPlace): boolean {
  return a.guest === b.guest && a.bytes === b.bytes && a.user === b.user && a.offset === b.offset;
}

/** What mappings of a file are multiples of: its huge page size, where it has them. */
function blockBytes({ blksize }: Stats): number {
  return blksize > PAGE_BYTES && blksize <= WINDOW_BYTES && (blksize & (blksize - 1)) === 0
    ? blksize
    : PAGE_BYTES;
}

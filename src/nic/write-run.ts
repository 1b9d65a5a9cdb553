/**
 * One run of a frame's bytes into guest memory, by the way that suits the memory: a long one goes into the list of copies (core/copy-list.ts), a short one is copied at
 * once, memory that is reached by messages is written by one.
 */

import { copyMemory } from '../core/copy.ts';
import { type FramePool, MAX_FRAME_BYTES } from '../core/pool.ts';
import { DMA_WRITE, type GuestMemory } from '../pci/guest-memory.ts';

/**
 * From how many bytes on a run that goes to guest memory is better gathered. Never with a dirty log: its marks are set before the next translation, and must not be before
 * the copy.
 */
export function gatheredFrom(pool: FramePool, memory: GuestMemory): number {
  return memory.dirtyLog === null ? pool.copies.minBytes : MAX_FRAME_BYTES + 1;
}

/**
 * Writes `length` bytes at `from` of region `region` to guest address `address`; those of `gathered` bytes and more when the caller runs the list of copies. False: the guest
 * has no such memory.
 */
export function writeRun(
  pool: FramePool,
  memory: GuestMemory,
  gathered: number,
  region: number,
  from: number,
  address: number,
  length: number,
): boolean {
  const { copies } = pool;
  const source = pool.memories[region];
  const later = length >= gathered;
  const to = later ? memory.locate(address, length, DMA_WRITE) : memory.translate(address, length, DMA_WRITE);
  if (to >= 0) {
    if (later) {
      copies.makeRoom();
      copies.add(region, from, memory.hitRegion, to, length);
    } else copyMemory(source, from, memory.hit, to, length);
    return true;
  }
  // Remote memory: the machine may go on while it is written, and is to find no work half done.
  copies.run();
  // Borrowed memory that was taken away reads as zeros.
  if (from + length > source.bytes.length) return memory.clear(address, length);
  return memory.write(address, source.bytes, from, length);
}

/**
 * The client's memory: what DMA_MAP gives and DMA_UNMAP takes, as ranges of GuestMemory.
 *
 * A VMM maps its guest's RAM in many ranges of few files, and moves them about while firmware and kernel set up the machine. So a file is mapped once, in windows of
 * at most 1 GiB, and a range is views on windows: adding and removing one costs no mapping once its file is known. Files are told apart by device and inode; the first
 * descriptor of a file is kept, every later one closed at once. Windows and descriptor go with the file's last range.
 *
 * A range without a descriptor is reached by DMA_READ and DMA_WRITE messages.
 */

import { fstatSync, type Stats } from 'node:fs';
import type { Handle, HostIo } from '../../host-io/host-io.ts';
import type { SharedRange } from '../../pci/device-host.ts';
import {
  type GuestMemory,
  DMA_READ as MAY_READ,
  DMA_WRITE as MAY_WRITE,
  type RemoteRange,
} from '../../pci/guest-memory.ts';
import {
  DMA_ACCESS_BYTES,
  DMA_FLAG_READ,
  DMA_FLAG_WRITE,
  DMA_READ,
  DMA_WRITE,
  EACCES,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOSPC,
  MAX_DMA_MAPS,
  PAGE_BYTES,
  putU64,
} from './protocol.ts';
import type { Wire } from './wire.ts';

export class DmaStats {
  maps = 0;
  unmaps = 0;
  /** Windows of files that were really mapped. */
  windows = 0;
  /** Ranges reached by messages. */
  remoteRanges = 0;
  /** Messages to the client that failed. */
  remoteErrors = 0;
}

interface Window {
  readonly bytes: Uint8Array;
  readonly writable: boolean;
}

interface MappedFile {
  readonly key: string;
  bytes: number;
  /** The first descriptor of it, for windows that nobody needed yet. */
  readonly handle: Handle;
  readonly windows: Map<number, Window>;
  /** Windows that were mapped anew, larger or writable. */
  readonly outgrown: Uint8Array[];
  ranges: number;
}

interface Mapping {
  readonly address: number;
  readonly length: number;
  readonly file: MappedFile | null;
  /** Where it begins in the file. */
  readonly offset: number;
  readonly writable: boolean;
}

const WINDOW_BYTES = 2 ** 30;
const ADDRESS_LIMIT = 2 ** 53;

export class DmaMap {
  readonly #hostIo: HostIo;
  readonly #memory: GuestMemory;
  readonly #wire: Wire;
  readonly #stats: DmaStats;
  readonly #changed: () => void;
  readonly #mappings = new Map<number, Mapping>();
  readonly #files = new Map<string, MappedFile>();
  /** The most one DMA message may carry: the client's own limit. */
  transferBytes = 2 ** 16;

  /** `changed`: ranges with descriptors came or went. */
  constructor(hostIo: HostIo, memory: GuestMemory, wire: Wire, stats: DmaStats, changed: () => void) {
    this.#changed = changed;
    this.#hostIo = hostIo;
    this.#memory = memory;
    this.#wire = wire;
    this.#stats = stats;
  }

  get count(): number {
    return this.#mappings.size;
  }

  /** RAM that another program can be let into: what is mapped by descriptors and not for reading only. */
  get sharedRanges(): SharedRange[] {
    const ranges: SharedRange[] = [];
    for (const { address, length, file, offset, writable } of this.#mappings.values())
      if (file !== null && writable) ranges.push({ address, length, handle: file.handle, offset });
    return ranges.sort((a, b) => a.address - b.address);
  }

  /** Adds a range. `fd` (0: none) is taken or closed. Returns 0 or an errno. */
  map(flags: number, offset: number, address: number, length: number, fd: Handle): number {
    const errno = this.#map(flags, offset, address, length, fd);
    if (errno === 0) this.#stats.maps++;
    else if (fd !== 0) this.#hostIo.close(fd);
    return errno;
  }

  #map(flags: number, offset: number, address: number, length: number, fd: Handle): number {
    if ((flags & ~(DMA_FLAG_READ | DMA_FLAG_WRITE)) !== 0) return EINVAL;
    if (length === 0 || address + length > ADDRESS_LIMIT || offset + length > ADDRESS_LIMIT) return EINVAL;
    if (address % PAGE_BYTES !== 0 || length % PAGE_BYTES !== 0 || offset % PAGE_BYTES !== 0) return EINVAL;
    if (this.#overlaps(address, length)) return EEXIST;
    if (this.#mappings.size >= MAX_DMA_MAPS) return ENOSPC;
    const access =
      ((flags & DMA_FLAG_READ) !== 0 ? MAY_READ : 0) | ((flags & DMA_FLAG_WRITE) !== 0 ? MAY_WRITE : 0);
    if (fd !== 0) {
      const file = this.#open(fd, offset + length);
      if (file === null) return EINVAL;
      const errno = this.#addViews(file, offset, address, length, access);
      if (errno !== 0) return errno;
      file.ranges++;
      this.#mappings.set(address, { address, length, file, offset, writable: (access & MAY_WRITE) !== 0 });
      this.#changed();
    } else {
      this.#memory.addRemote(
        address,
        new MessageRange(this.#wire, this, this.#stats, address, length),
        access,
      );
      this.#stats.remoteRanges++;
      this.#mappings.set(address, { address, length, file: null, offset: 0, writable: true });
    }
    return 0;
  }

  #overlaps(address: number, length: number): boolean {
    for (const one of this.#mappings.values())
      if (address < one.address + one.length && one.address < address + length) return true;
    return false;
  }

  /** The file behind a descriptor, which is closed or kept with the file; null when it is no file of at least `bytes` bytes. */
  #open(fd: Handle, bytes: number): MappedFile | null {
    const status = statOf(this.#hostIo.fdOf(fd));
    if (status === null || !status.isFile() || status.size < bytes) return null;
    const key = `${status.dev}:${status.ino}`;
    const known = this.#files.get(key);
    if (known !== undefined) {
      this.#hostIo.close(fd);
      // It may have grown since.
      known.bytes = Math.max(known.bytes, status.size);
      return known;
    }
    const file: MappedFile = {
      key,
      bytes: status.size,
      handle: fd,
      windows: new Map(),
      outgrown: [],
      ranges: 0,
    };
    this.#files.set(key, file);
    return file;
  }

  /** Adds a range as views on the windows it lies in. On an errno nothing of it is left. */
  #addViews(file: MappedFile, offset: number, address: number, length: number, access: number): number {
    for (let done = 0; done < length; ) {
      const number = Math.floor((offset + done) / WINDOW_BYTES);
      const start = number * WINDOW_BYTES;
      const within = offset + done - start;
      const part = Math.min(length - done, WINDOW_BYTES - within);
      const window = this.#window(file, number, within + part, (access & MAY_WRITE) !== 0);
      if (
        window === null ||
        !this.#addRange(address + done, window.subarray(within, within + part), access)
      ) {
        this.#memory.removeWithin(address, length);
        if (file.ranges === 0) this.#forget(file);
        return window === null ? EACCES : ENOSPC;
      }
      done += part;
    }
    return 0;
  }

  /** False when the frame pool has no region left. */
  #addRange(address: number, bytes: Uint8Array, access: number): boolean {
    try {
      return this.#memory.add(address, bytes, access);
    } catch {
      return false;
    }
  }

  /** The mapped window of this number with at least `bytes` bytes, writable if that is asked for; null when the host refuses. */
  #window(file: MappedFile, number: number, bytes: number, writable: boolean): Uint8Array | null {
    const known = file.windows.get(number);
    if (known !== undefined && known.bytes.length >= bytes && (known.writable || !writable))
      return known.bytes;
    const start = number * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES, file.bytes - start);
    const mapped =
      this.#mmap(file.handle, start, length, true) ??
      (writable ? null : this.#mmap(file.handle, start, length, false));
    if (mapped === null) return null;
    // Ranges may still view a smaller one: it goes with the file.
    if (known !== undefined) file.outgrown.push(known.bytes);
    file.windows.set(number, mapped);
    this.#stats.windows++;
    return mapped.bytes;
  }

  #mmap(handle: Handle, start: number, length: number, writable: boolean): Window | null {
    try {
      return { bytes: this.#hostIo.map(handle, start, length, writable), writable };
    } catch {
      return null;
    }
  }

  #forget(file: MappedFile): void {
    this.#files.delete(file.key);
    for (const bytes of file.outgrown) this.#hostIo.unmap(bytes);
    for (const window of file.windows.values()) this.#hostIo.unmap(window.bytes);
    this.#hostIo.close(file.handle);
  }

  /** Takes away the range that was mapped with exactly this address and length. Returns 0 or an errno. */
  unmap(address: number, length: number): number {
    const mapping = this.#mappings.get(address);
    if (mapping === undefined || mapping.length !== length) return ENOENT;
    this.#mappings.delete(address);
    this.#memory.removeWithin(address, length);
    this.#stats.unmaps++;
    const { file } = mapping;
    if (file === null) return 0;
    this.#changed();
    if (--file.ranges === 0) this.#forget(file);
    return 0;
  }

  unmapAll(): void {
    for (const { address, length } of [...this.#mappings.values()]) this.unmap(address, length);
  }
}

/** A range reached by messages, at most the client's transfer limit at a time. */
class MessageRange implements RemoteRange {
  readonly length: number;
  readonly #wire: Wire;
  readonly #map: DmaMap;
  readonly #stats: DmaStats;
  readonly #address: number;

  constructor(wire: Wire, map: DmaMap, stats: DmaStats, address: number, length: number) {
    this.#wire = wire;
    this.#map = map;
    this.#stats = stats;
    this.#address = address;
    this.length = length;
  }

  read(offset: number, target: Uint8Array, at: number, length: number): boolean {
    for (let done = 0; done < length; ) {
      const part = Math.min(length - done, this.#map.transferBytes);
      const request = dmaRequest(this.#address + offset + done, part, 0);
      const reply = this.#wire.request(DMA_READ, request, DMA_ACCESS_BYTES + part);
      if (reply === null || countIn(reply) !== part) return this.#failed();
      target.set(reply.subarray(DMA_ACCESS_BYTES, DMA_ACCESS_BYTES + part), at + done);
      done += part;
    }
    return true;
  }

  write(offset: number, source: Uint8Array, at: number, length: number): boolean {
    for (let done = 0; done < length; ) {
      const part = Math.min(length - done, this.#map.transferBytes);
      const request = dmaRequest(this.#address + offset + done, part, part);
      request.set(source.subarray(at + done, at + done + part), DMA_ACCESS_BYTES);
      // The count in the reply is documented as 4 bytes long and sent as 8.
      const reply = this.#wire.request(DMA_WRITE, request, DMA_ACCESS_BYTES - 4);
      if (reply === null || countIn(reply) !== part) return this.#failed();
      done += part;
    }
    return true;
  }

  #failed(): boolean {
    this.#stats.remoteErrors++;
    return false;
  }
}

/** The low half of the count: no transfer is longer. */
function countIn(reply: Uint8Array): number {
  return new DataView(reply.buffer, reply.byteOffset).getUint32(8, true);
}

function dmaRequest(address: number, count: number, dataBytes: number): Uint8Array {
  const bytes = new Uint8Array(DMA_ACCESS_BYTES + dataBytes);
  const view = new DataView(bytes.buffer);
  putU64(view, 0, address);
  putU64(view, 8, count);
  return bytes;
}

function statOf(fd: number): Stats | null {
  try {
    return fstatSync(fd);
  } catch {
    return null;
  }
}

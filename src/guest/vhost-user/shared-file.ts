/** A part of a regular file (or memfd) that the other side passed, mapped: its offset need not be a multiple of anything. */

import { fstatSync } from 'node:fs';
import type { Handle, HostIo } from '../../host-io/host-io.ts';

const PAGE_BYTES = 4096;
const MAX_BYTES = 2 ** 30;

export class SharedFile {
  readonly bytes: Uint8Array;
  readonly #hostIo: HostIo;
  readonly #window: Uint8Array;

  private constructor(hostIo: HostIo, window: Uint8Array, skip: number, length: number) {
    this.#hostIo = hostIo;
    this.#window = window;
    this.bytes = window.subarray(skip, skip + length);
  }

  /** Maps [offset, offset + length) of the file; null when it is no file, does not hold that, or the host has no room. `fd` stays the caller's. */
  static open(hostIo: HostIo, fd: Handle, offset: number, length: number): SharedFile | null {
    if (!(length > 0 && length <= MAX_BYTES) || !Number.isSafeInteger(offset)) return null;
    const skip = offset % PAGE_BYTES;
    try {
      const status = fstatSync(hostIo.fdOf(fd));
      if (!status.isFile() || offset + length > status.size) return null;
      return new SharedFile(hostIo, hostIo.map(fd, offset - skip, skip + length), skip, length);
    } catch {
      return null;
    }
  }

  close(): void {
    this.#hostIo.unmap(this.#window);
  }
}

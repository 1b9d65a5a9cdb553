/** A file that captures are written to, whole records at a time and at once: what was written survives a kill. */

import { closeSync, openSync, writeSync } from 'node:fs';
import { HostIoError } from '../core/errors.ts';
import type { ByteSink } from '../link/filter/dump.ts';

/** Makes the file, or empties it. Throws HostIoError. */
export function openFileSink(path: string): ByteSink {
  let fd: number;
  try {
    fd = openSync(path, 'w', 0o644);
  } catch (error) {
    const { code = 'EIO', syscall = 'open' } = error as NodeJS.ErrnoException;
    throw new HostIoError(syscall, code, `could not open '${path}': ${code}`);
  }
  return {
    write(bytes, from, to) {
      try {
        while (from < to) from += writeSync(fd, bytes, from, to - from);
        return true;
      } catch {
        return false;
      }
    },
    close() {
      closeSync(fd);
    },
  };
}
